"""Memory that arrays have left is kept by the process for the next ones."""

from __future__ import annotations

from functools import cache

import numpy as np

KEPT_BYTES = 31 * 2**20  # the largest threshold of the C library of Linux is 32 MiB


@cache
def keep_freed_memory() -> None:
    """Have the C library keep the memory of freed arrays of up to 31 MB, at most twice as much in all.

    Otherwise it may hand the memory back to the system whenever an array is freed, and every page is cleared again for
    the next one, which takes longer than the arithmetic on arrays of a thousand rows. The library of Linux moves its
    threshold to the size of the largest array that was freed; elsewhere nothing happens. No memory is touched,
    and once is enough for a process.
    """
    np.empty(KEPT_BYTES, dtype=np.uint8)
