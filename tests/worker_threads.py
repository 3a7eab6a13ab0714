"""Imported before anything that loads OpenMP or BLAS, which read the environment once: workers share the processors.

Each of several workers would start a thread per processor and get in the others' way. What a test asks for by
``threads=`` is not touched.
"""

from __future__ import annotations

import os

WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))

if WORKERS > 1:
    for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(_name, str(max(1, (os.cpu_count() or 1) // WORKERS)))
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads that wait would spin on a processor others need
