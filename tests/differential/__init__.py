"""Random fits against a reference that shares nothing with the package, and a scan against memory."""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # cases are small; must be set before numpy loads
