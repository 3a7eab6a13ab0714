"""What ``--cluster`` asks for, and what a profile says of the machines."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from verglas.errors import FormatError, InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_EXPECTED = "expected local:4, slurm:16 or tcp://host:8786"


@dataclass(frozen=True)
class ClusterProfile:
    """How the workers of a scheduler are asked for: the keys of a TOML file.

    Attributes
    ----------
    queue, account, walltime, memory : str
        As the scheduler words them: ``"cpu"``, ``"structures"``, ``"08:00:00"``, ``"16 GB"``.
    cores : int
        Of a worker, which works on one block at a time with all of them.
    images_GB : float
        Images that a worker keeps in memory from one iteration to the next.
    extra : tuple of str
        Further lines for the scheduler, without its word: ``"--constraint=v4"``.
    before : tuple of str
        Shell lines before a worker starts: ``"module load verglas"``.
    interface : str
        Network that workers reach this machine by, as ``ib0``.
    python : str
        Of the workers; this one by default.
    tls_ca_file, tls_certificate, tls_key : str
        PEM files: connections are then encrypted, and both ends have to show a certificate.
    """

    queue: str = ""
    account: str = ""
    walltime: str = "08:00:00"
    memory: str = "8 GB"
    cores: int = 4
    images_GB: float = 2.0
    extra: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    interface: str = ""
    python: str = ""
    tls_ca_file: str = ""
    tls_certificate: str = ""
    tls_key: str = ""


def read_profile(path: str | Path) -> ClusterProfile:
    """Read a profile.

    Raises
    ------
    FormatError
        It is no TOML, has a key that no profile has, or a value of another kind.
    """
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: no TOML ({error})") from error
    return profile_of(table, str(path))


def profile_of(table: dict[str, Any], where: str) -> ClusterProfile:
    """A profile from the keys of a file.

    Examples
    --------
    >>> from verglas.cluster.request import profile_of
    >>> profile_of({"queue": "cpu", "cores": 16}, "profile.toml").cores
    16
    >>> profile_of({"que": "cpu"}, "profile.toml")
    Traceback (most recent call last):
    verglas.errors.FormatError: profile.toml: que is no key of a cluster profile; there are queue, account, ...
    """
    known = {f.name: type(f.default) for f in fields(ClusterProfile)}
    chosen: dict[str, Any] = {}
    for name, value in table.items():
        if name not in known:
            raise FormatError(f"{where}: {name} is no key of a cluster profile; there are {', '.join(known)}")
        kind = known[name]
        is_lines = kind is tuple and isinstance(value, list) and all(isinstance(line, str) for line in value)
        is_number = kind is float and isinstance(value, int) and not isinstance(value, bool)
        if not (is_lines or is_number or type(value) is kind):
            words = {tuple: "a list of lines", str: "a text", int: "a whole number", float: "a number"}[kind]
            raise FormatError(f"{where}: {name}: expected {words}, got {value!r}")
        if kind in (int, float) and value <= 0:
            raise FormatError(f"{where}: {name}: expected a number above 0, got {value!r}")
        chosen[name] = tuple(value) if is_lines else value
    return ClusterProfile(**chosen)


@dataclass(frozen=True)
class ClusterRequest:
    """Which workers to use.

    Attributes
    ----------
    kind : {"local", "slurm", "address"}
        Processes of this machine; jobs of SLURM; a Dask scheduler that runs already.
    workers : int
        How many; 0 for those that the scheduler at an address has.
    address : str
    profile : ClusterProfile
    """

    kind: Literal["local", "slurm", "address"]
    workers: int
    address: str = ""
    profile: ClusterProfile = field(default_factory=ClusterProfile)

    @classmethod
    def parse(cls, text: str | ClusterRequest, profile: str | Path | None = None) -> ClusterRequest:
        """What ``--cluster`` and ``--cluster-profile`` say.

        Examples
        --------
        >>> from verglas.cluster import ClusterRequest
        >>> request = ClusterRequest.parse("local:4")
        >>> request.kind, request.workers
        ('local', 4)
        >>> ClusterRequest.parse("tcp://head:8786").address
        'tcp://head:8786'
        """
        if isinstance(text, ClusterRequest):
            return text
        chosen = ClusterProfile() if profile is None else read_profile(profile)
        kind, _, rest = text.partition(":")
        if kind in ("tcp", "tls") and rest.startswith("//") and rest.rpartition(":")[2].isdecimal():
            return cls("address", 0, text, chosen)
        if kind not in ("local", "slurm") or not rest.isdecimal() or int(rest) < 1:
            raise InputError(f"--cluster {text}: {_EXPECTED}")
        return cls("local" if kind == "local" else "slurm", int(rest), profile=chosen)

    def __str__(self) -> str:
        return self.address or f"{self.kind}:{self.workers}"
