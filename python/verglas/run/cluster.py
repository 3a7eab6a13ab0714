"""Jobs on a cluster: what ``--cluster`` says, and the runner of passes that follows from it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from verglas.cluster import ClusterRequest, Passes, Workers, open_cluster
from verglas.cluster.passes import spool_folder
from verglas.errors import InputError
from verglas.io.image_cache import ImageCache
from verglas.search.half_pass import Runner, run_here
from verglas.types import Particles
from verglas.types.listener import Listener

ClusterChoice = str | ClusterRequest | Workers | None


def cluster_request(text: str | None, profile: Path | None) -> ClusterRequest | None:
    """``--cluster`` and ``--cluster-profile``; None without a cluster.

    Examples
    --------
    >>> from verglas.run.cluster import cluster_request
    >>> str(cluster_request("slurm:16", None))
    'slurm:16'
    """
    if text is None:
        if profile is not None:
            raise InputError("--cluster-profile says how workers are asked for; --cluster says how many: slurm:16")
        return None
    return ClusterRequest.parse(text, profile)


def image_cache(folder: Path | None, limit_GB: float) -> ImageCache | None:
    """``--cache`` and ``--cache-size``; None without a cache."""
    return None if folder is None else ImageCache(folder, limit_GB)


@dataclass(frozen=True)
class ClusterUse:
    """What a job does with a cluster, checked before anything is read.

    Attributes
    ----------
    asked : ClusterRequest, Workers or None
        Workers of a job that this one is part of are used as they are.
    job : str
        Who asks, for messages.
    out : Path, optional
        The run folder.
    """

    asked: ClusterRequest | Workers | None
    job: str
    out: Path | None

    @classmethod
    def of(cls, choice: ClusterChoice, job: str, out: str | Path | None, devices: tuple[str, ...]) -> ClusterUse:
        """Refuse what cannot be.

        Raises
        ------
        InputError
            It is no cluster, GPUs are asked for, or other machines would not find the run folder.
        """
        asked = ClusterRequest.parse(choice) if isinstance(choice, str) else choice
        request = asked.request if isinstance(asked, Workers) else asked
        if request is not None and devices != ("cpu",):
            raise InputError(f"{job}: --cluster {request} uses the processors of its workers; leave out --device")
        if request is not None and request.kind != "local" and out is None:
            raise InputError(f"{job}: --cluster {request} needs a run folder (out) that all workers see")
        return cls(asked, job, None if out is None else Path(out))

    @contextlib.contextmanager
    def workers(self, listener: Listener, threads: int | None, memory_GB: float) -> Iterator[Workers | None]:
        """The workers, as long as the block lasts."""
        if self.asked is None or isinstance(self.asked, Workers):
            yield self.asked
            return
        with open_cluster(self.asked, listener, job=self.job, threads=threads, memory_GB=memory_GB) as workers:
            yield workers

    @contextlib.contextmanager
    def runner(
        self, listener: Listener, threads: int | None, memory_GB: float, particles: Particles | None = None
    ) -> Iterator[Runner]:
        """What runs the passes over half sets; ``particles`` as of :class:`verglas.cluster.Passes`."""
        with self.workers(listener, threads, memory_GB) as workers:
            if workers is None:
                yield run_here
                return
            with spool_folder(self.out) as spool:
                yield Passes(workers, particles, spool, listener, job=self.job)
