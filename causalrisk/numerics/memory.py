"""Memory that arrays have left is kept by the process for the next ones."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of malloc.h
LARGEST, KEPT = 2**25, 2**26  # bytes; the largest MMAP_THRESHOLD that the C library of Linux takes is the first


@cache
def keep_freed_memory() -> None:
    """Have the C library keep the memory of freed arrays of up to 32 MB, at most 64 MB in all.

    Otherwise it hands the memory back to the system whenever an array is freed, and every page is cleared again for
    the next one, which takes longer than the arithmetic on arrays of a thousand rows. The library of Linux is told by
    `mallopt`; others have no such function, and nothing happens. No memory is touched, and once is enough for a
    process. It is for workers as well: those of Dask are started with a threshold of 64 kB.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(MMAP_THRESHOLD, LARGEST)
        mallopt(TRIM_THRESHOLD, KEPT)
