"""Several machines: blocks of particles on the workers of a Dask cluster, with the same bits as in one process.

Dask belongs here and is loaded on first use: ``pip install 'verglas[cluster]'``.
"""

from __future__ import annotations

from functools import partial

from verglas.cluster.connect import Workers, open_cluster
from verglas.cluster.passes import Passes
from verglas.cluster.request import ClusterProfile, ClusterRequest, read_profile

__all__ = ["ClusterProfile", "ClusterRequest", "Passes", "Workers", "open_cluster", "read_profile"]
__dir__ = partial(sorted, __all__)
