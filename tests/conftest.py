"""What all tests share."""

from __future__ import annotations

import os

from hypothesis import settings

# Each of pytest-xdist's workers has one processor. Set before anything imports NumPy or torch, and for child processes.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Examples may be slow on a busy machine; that is no failure.
settings.register_profile("offramp", deadline=None, print_blob=True)
settings.load_profile("offramp")
