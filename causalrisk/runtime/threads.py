"""Threads of BLAS within matrix products: one while the package works, and whatever it was before afterwards.

Its products are many, long and narrow. Threads inside of them wait for each other: two threads took 1.6 to 15 times as
long as one on a busy machine with two processors, from 4,642 rows by 10 columns to 20,000 by 400.
"""

from __future__ import annotations

import functools
import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from threadpoolctl import ThreadpoolController


class _Block:
    """A block of `one_blas_thread` that is running."""


_running: weakref.WeakSet[_Block] = weakref.WeakSet()  # one whose end an interruption lost goes with its frame
_limiter: Any = None
_lock = threading.Lock()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Give matrix products one thread in the block; the number before is back when the last of such blocks has ended.

    The number is one of the process, for BLAS has no other: blocks may be in each other, and in several threads.

    Yields
    ------
    None

    Examples
    --------
    >>> from threadpoolctl import threadpool_info
    >>> with one_blas_thread():
    ...     found = threadpool_info()
    >>> {each["num_threads"] for each in found if each["user_api"] == "blas"}
    {1}
    """
    global _limiter
    block = _Block()
    try:
        with _lock:
            _running.add(block)
            if _limiter is None:
                _limiter = _libraries().limit(limits=1, user_api="blas")
        yield
    finally:
        with _lock:
            _running.discard(block)
            if not _running and _limiter is not None:
                _limiter.restore_original_limits()
                _limiter = None


@functools.cache
def _libraries() -> ThreadpoolController:
    """Libraries that the process has loaded; to look for them takes longer than a product."""
    import scipy.linalg  # noqa: F401 - which has a BLAS of its own

    return ThreadpoolController()


def _after_fork() -> None:
    """Begin anew in a forked process: the threads that were in a block, or held the lock, are not in it."""
    global _lock
    _lock = threading.Lock()
    _running.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
