"""``verglas denoise``: micrographs to look at and to pick on, from the sums of their even and odd frames."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from verglas._native import resolve_threads
from verglas._screen import ListenerChoice, shown_to
from verglas._version import __version__
from verglas.errors import InputError, VerglasError
from verglas.image import fourier_resample
from verglas.io import make_folder, read_micrograph, write_json
from verglas.io.micrograph_file import write_micrograph
from verglas.learned import DenoiseSettings as DenoiseSettings
from verglas.learned import denoise, wiener
from verglas.run.kept_inputs import keeps_inputs
from verglas.run.parallel import in_order
from verglas.run.reasons import most_common_reason, without_name
from verglas.types import Micrograph

_SAME = 1 - 1e-5  # correlation of sums that share their noise
EVEN, ODD, MADE = "_EVN.mrc", "_ODD.mrc", "_denoised.mrc"


@dataclass(frozen=True)
class DenoiseJob:
    """What ``verglas denoise`` is asked for.

    Attributes
    ----------
    sums : sequence of Path
        Folders, or files ``<name>_EVN.mrc`` beside ``<name>_ODD.mrc``, as ``verglas motion --even-odd`` and RELION
        write them.
    out : Path
        Folder to write: ``<name>_denoised.mrc`` on the grid of the sums, and denoise.json.
    working_pixel_A : float
        What the network sees; finer detail is left out of the result.
    pixel_size_A : float, optional
        In place of the headers'.
    settings : DenoiseSettings
    threads : int, optional
        Micrographs at a time.
    """

    sums: Sequence[Path]
    out: Path
    working_pixel_A: float = 6.0
    pixel_size_A: float | None = None
    settings: DenoiseSettings = field(default_factory=DenoiseSettings)
    threads: int | None = None


@keeps_inputs("denoise")
def denoise_files(job: DenoiseJob, *, listener: ListenerChoice = "screen") -> dict[str, Any]:
    """Denoise every pair of sums; each trains its own network, or takes the Wiener filter where steps are 0.

    Returns
    -------
    dict
        What denoise.json holds: of every micrograph the agreement (correlation) of the two halves before and after the
        Wiener filter, and the seconds; and what was set aside, with the reason.

    Raises
    ------
    InputError
        No pairs, or none that could be denoised.
    """
    pairs, alone = find_pairs(job.sums)
    make_folder(job.out)
    done: list[dict[str, Any] | str] = []
    with shown_to(listener) as heard:
        workers = max(1, min(resolve_threads(job.threads), len(pairs)))
        for one in in_order(lambda pair: _one(pair, job), pairs, workers):
            done.append(one)
            heard.progress("micrographs", len(done), len(pairs))
    names = [_name(even) for even, _ in pairs]
    made = {name: one for name, one in zip(names, done, strict=True) if isinstance(one, dict)}
    set_aside = alone | {name: one for name, one in zip(names, done, strict=True) if isinstance(one, str)}
    if not made:
        why = most_common_reason(list(set_aside.items()))
        raise InputError(f"denoise: none of {len(set_aside)} micrographs could be denoised: {why}")
    record = {
        "verglas": __version__,
        "use": "for display and picking; nothing may be measured in what a denoiser made",
        "working_pixel_A": job.working_pixel_A,
        "settings": asdict(job.settings),
        "micrographs": made,
        "set_aside": set_aside,
    }
    write_json(job.out / "denoise.json", record)
    return record


def find_pairs(sums: Sequence[Path]) -> tuple[list[tuple[Path, Path]], dict[str, str]]:
    """Even and odd sums, in the order of their names.

    Returns
    -------
    tuple
        The pairs; and of sums without the other the name, and which file is missing.

    Raises
    ------
    InputError
        A file that is no even or odd sum, two of one name, or none at all.
    """
    even: dict[str, Path] = {}
    for given in sums:
        # Both, so that an odd sum without its even one does not go unnoticed.
        found = sorted(one for end in (EVEN, ODD) for one in given.rglob(f"*{end}")) if given.is_dir() else [given]
        for path in found:
            if path.name.endswith(ODD):
                path = path.with_name(path.name.removesuffix(ODD) + EVEN)
            if not path.name.endswith(EVEN):
                raise InputError(f"denoise: {path} is neither <name>{EVEN} nor <name>{ODD}")
            other = even.setdefault(_name(path), path)
            if other.resolve() != path.resolve():
                raise InputError(f"denoise: {other} and {path} would both be written as {_name(path)}{MADE}")
    if not even:
        raise InputError(
            f"denoise: no *{EVEN} in {', '.join(map(str, sums))}; verglas motion --even-odd writes even and odd sums"
        )
    pairs, alone = [], {}
    for name, path in sorted(even.items()):
        pair = (path, path.with_name(name + ODD))
        missing = next((one for one in pair if not one.is_file()), None)
        if missing is None:
            pairs.append(pair)
        else:
            alone[name] = f"there is no file {missing}; both sums are needed (verglas motion --even-odd)"
    return pairs, alone


def _name(even: Path) -> str:
    return even.name.removesuffix(EVEN)


def _one(pair: tuple[Path, Path], job: DenoiseJob) -> dict[str, Any] | str:
    """Read, denoise and write one; or why it was not."""
    began, name = time.perf_counter(), _name(pair[0])
    try:
        first, second = (read_micrograph(path, job.pixel_size_A) for path in pair)
        made, record = denoise_pair(first, second, job)
        write_micrograph(job.out / f"{name}{MADE}", made)
    # One micrograph must not end a session of thousands: why it failed stands in the account.
    except (VerglasError, OSError, MemoryError) as error:
        return without_name(error, name)
    return record | {"seconds": round(time.perf_counter() - began, 2)}


def denoise_pair(first: Micrograph, second: Micrograph, job: DenoiseJob) -> tuple[Micrograph, dict[str, Any]]:
    """One micrograph on the sums' own grid, and how its halves agree.

    Raises
    ------
    InputError
        Sums of different shape or pixel size, an unknown pixel size, or one sum twice.
    """
    if first.data.shape != second.data.shape or first.pixel_size_A != second.pixel_size_A:
        raise InputError(
            f"{first.name}: the even sum has {first.data.shape} pixels of {first.pixel_size_A:g} A, the odd one "
            f"{second.data.shape} of {second.pixel_size_A:g} A"
        )
    if not np.isfinite(first.pixel_size_A):
        raise InputError(f"{first.name}: the pixel size is not known; give --pixel-size")
    if _correlation(first.data, second.data) > _SAME:
        # Their noise is one and the same: it would be kept, and the halves' agreement would say that it is signal.
        raise InputError(f"{first.name}: the even and the odd sum are one image; expected sums of different frames")
    shape = first.data.shape
    factor = min(1.0, first.pixel_size_A / job.working_pixel_A)
    # Even sides: a working image is read again at the same places after it is enlarged.
    small = tuple(max(2, 2 * round(factor * side / 2)) for side in shape) if factor < 1 else shape
    even, odd = (
        (one.data if small == shape else fourier_resample(one.data, small, threads=1)).astype(np.float32)
        for one in (first, second)
    )
    made = denoise(even, odd, job.settings)
    filtered = wiener(even, odd)
    record = {
        "pixels": list(small),
        "agreement": round(_correlation(even, odd), 4),
        "agreement_filtered": round(_correlation(*filtered), 4),
    }
    whole = made if small == shape else fourier_resample(made, shape, threads=1)
    return Micrograph(whole.astype(np.float32), first.pixel_size_A, first.name), record


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    """0 where one is constant: nothing that both show was found."""
    if not (first.std() > 0 and second.std() > 0):
        return 0.0
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])
