"""Workers of a Dask cluster: processes of this machine, jobs of a scheduler, or what runs at an address."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verglas._native import resolve_threads
from verglas.cluster.request import ClusterProfile, ClusterRequest
from verglas.errors import InputError
from verglas.types.listener import Listener

if TYPE_CHECKING:
    from distributed import Client

_ALLOWED_DEATHS = 10  # of workers under one block: then the block is what kills them
_WAIT_S = 600.0  # for the first worker of a queue
_ANSWER_S = 10.0  # of a scheduler at an address
_CONFIG = {
    "distributed.scheduler.allowed-failures": _ALLOWED_DEATHS,
    "distributed.admin.tick.limit": "1h",
    "distributed.deploy.lost-worker-timeout": "20s",  # for a nanny to start its worker again
    "distributed.worker.profile.enabled": False,  # a look at every stack, a hundred times a second
    "distributed.logging.distributed": "error",
}
# The memory plan says what a block takes. A worker that writes half of its sums to disk, or is ended at 95 % of an
# equal share, would only be slower.
_NO_SPILL = {f"distributed.worker.memory.{name}": False for name in ("target", "spill", "pause", "terminate")}


@dataclass(frozen=True)
class Workers:
    """A connection to workers.

    Attributes
    ----------
    client : distributed.Client
    threads : int or None
        Of each worker; None: all its processors.
    images_GB : float
        Images that each may keep.
    request : ClusterRequest
    """

    client: Client
    threads: int | None
    images_GB: float
    request: ClusterRequest

    def addresses(self) -> list[str]:
        """The workers that there are, in a fixed order."""
        return sorted(self.client.nthreads())


@contextlib.contextmanager
def open_cluster(
    request: ClusterRequest,
    listener: Listener,
    *,
    job: str,
    threads: int | None = None,
    memory_GB: float = 8.0,
    processes: bool = True,
) -> Iterator[Workers]:
    """Workers, as long as the block lasts; those that were started for it end with it.

    Parameters
    ----------
    request : ClusterRequest
    listener : Listener
        Is told where the dashboard is.
    job : str
        Who asks, for messages.
    threads : int, optional
        Of all workers of this machine together.
    memory_GB : float
        Of all workers of this machine together; a quarter of it holds images.
    processes : bool
        Local workers are processes; False makes them threads of this one, for tests.

    Raises
    ------
    InputError
        Dask is not installed, or no worker comes.
    """
    _require_dask(job, request)
    import dask
    import distributed  # noqa: F401  before the settings: what it adds to them would be taken back with them

    logging.getLogger("distributed").setLevel(logging.ERROR)
    settings = {**_CONFIG, **(_NO_SPILL if request.kind == "local" else {})}
    with dask.config.set(settings), contextlib.ExitStack() as ends:
        client = ends.enter_context(_client(request, processes, ends))
        if request.kind == "local":
            each = max(1, resolve_threads(threads) // request.workers)
            workers = Workers(client, each, memory_GB / 4 / request.workers, request)
        else:
            cores = request.profile.cores if request.kind == "slurm" else None
            workers = Workers(client, cores, request.profile.images_GB, request)
        _wait(workers, job)
        listener.say(_sentence(workers))
        yield workers


def _require_dask(job: str, request: ClusterRequest) -> None:
    needed = ["dask", "distributed"] + (["dask_jobqueue"] if request.kind == "slurm" else [])
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"{job}: --cluster {request} needs the package {missing[0].replace('_', '-')}, which is not installed: "
            "pip install 'verglas[cluster]'"
        )


def _client(request: ClusterRequest, processes: bool, ends: contextlib.ExitStack) -> Client:
    from distributed import Client

    if request.kind == "address":
        try:
            return Client(request.address, security=_security(request.profile), set_as_default=False, timeout=_ANSWER_S)
        except OSError as error:
            raise InputError(f"--cluster {request}: no Dask scheduler answers there ({error})") from error
    try:
        made = _local(request, processes) if request.kind == "local" else _slurm(request)
    except RuntimeError as error:
        raise InputError(
            f"--cluster {request}: the workers could not be started ({error.__cause__ or error}); a script that starts "
            'them needs its own calls below: if __name__ == "__main__":'
        ) from error
    ends.enter_context(made)
    # Adaptive: a job that its walltime ends is asked for again, without a limit; and so is a process that was killed
    # while it started, which its nanny gives up.
    if request.kind == "slurm":
        made.adapt(minimum_jobs=request.workers, maximum_jobs=request.workers)
    elif processes:
        made.adapt(minimum=request.workers, maximum=request.workers)
    return Client(made, set_as_default=False)


def _local(request: ClusterRequest, processes: bool) -> Any:
    from distributed import LocalCluster

    return LocalCluster(
        n_workers=request.workers,
        threads_per_worker=1,  # a worker has one block at a time; its threads are those of the kernels
        processes=processes,
        memory_limit=None,
        # Named, or the pages would listen on every network of the machine.
        host="127.0.0.1" if processes else None,
        dashboard_address="127.0.0.1:0" if processes else None,
        worker_dashboard_address="127.0.0.1:0" if processes else None,
        silence_logs=logging.CRITICAL,
    )


def slurm_arguments(profile: ClusterProfile) -> dict[str, Any]:
    """What dask-jobqueue is asked for.

    Examples
    --------
    >>> from verglas.cluster import ClusterProfile
    >>> from verglas.cluster.connect import slurm_arguments
    >>> made = slurm_arguments(ClusterProfile(queue="cpu", cores=16, extra=("--exclusive",)))
    >>> made["queue"], made["cores"], made["worker_extra_args"], made["job_extra_directives"]
    ('cpu', 16, ['--nthreads', '1'], ['--exclusive'])
    """
    return {
        "queue": profile.queue or None,
        "account": profile.account or None,
        "walltime": profile.walltime,
        "memory": profile.memory,
        "cores": profile.cores,
        "processes": 1,
        "worker_extra_args": ["--nthreads", "1"],  # one block at a time, with all cores
        "job_extra_directives": list(profile.extra),
        "job_script_prologue": list(profile.before),
        "interface": profile.interface or None,
        "python": profile.python or sys.executable,
        "job_name": "verglas",
    }


def jobqueue() -> Any:
    """The module dask_jobqueue, without what it does to Ctrl-C.

    Its import makes SIGINT end the process with status 0, as if all had been done; jobs leave a checkpoint at it.
    """
    before = signal.getsignal(signal.SIGINT)
    import dask_jobqueue

    if before is not None and signal.getsignal(signal.SIGINT) is not before:
        signal.signal(signal.SIGINT, before)
    return dask_jobqueue


def _slurm(request: ClusterRequest) -> Any:
    return jobqueue().SLURMCluster(
        **slurm_arguments(request.profile),
        security=_security(request.profile),
        scheduler_options={"dashboard_address": "127.0.0.1:0"},
    )


def _security(profile: ClusterProfile) -> Any:
    names = ("tls_ca_file", "tls_certificate", "tls_key")
    given = [name for name in names if getattr(profile, name)]
    if not given:
        return None
    if len(given) < len(names):
        missing = next(name for name in names if name not in given)
        raise InputError(
            f"cluster profile: {given[0]} is given without {missing}; encrypted connections need all three"
        )
    for name in names:
        if not Path(getattr(profile, name)).is_file():
            raise InputError(f"cluster profile: {name}: there is no file {getattr(profile, name)}")
    from distributed.security import Security

    both: dict[str, Any] = {
        f"tls_{who}_{what}": getattr(profile, name)
        for who in ("scheduler", "worker", "client")
        for what, name in (("cert", "tls_certificate"), ("key", "tls_key"))
    }
    return Security(tls_ca_file=profile.tls_ca_file, require_encryption=True, **both)


def _wait(workers: Workers, job: str) -> None:
    request = workers.request
    wanted = request.workers if request.kind == "local" else 1  # a queue gives the others when it has them
    try:
        workers.client.wait_for_workers(wanted, timeout=_WAIT_S)
    except TimeoutError as error:
        raise InputError(f"{job}: --cluster {request}: no worker came within {_WAIT_S:.0f} s") from error


def _sentence(workers: Workers) -> str:
    request, count = workers.request, len(workers.addresses())
    threads = "all processors" if workers.threads is None else f"{workers.threads} threads"
    link = workers.client.dashboard_link if importlib.util.find_spec("bokeh") else ""
    page = f"; dashboard: {link}" if link else "; a dashboard needs the package bokeh"
    return f"cluster {request}: {count} workers, {threads} each{page}"
