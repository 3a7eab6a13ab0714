"""What the command line says of a cluster, as jobs take it."""

from __future__ import annotations

from pathlib import Path

from verglas.cluster import ClusterRequest
from verglas.errors import InputError


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
