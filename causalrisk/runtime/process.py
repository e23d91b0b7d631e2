"""What a process has one of: the threads of BLAS within matrix products, and the handler of interruptions.

BLAS has one thread while the package works, and whatever it was before afterwards. Its products are many, long and
narrow. Threads inside of them wait for each other: two threads took 1.6 to 15 times as long as one on a busy machine
with two processors, from 4,642 rows by 10 columns to 20,000 by 400.

Python raises KeyboardInterrupt wherever the main thread happens to be. Within the callback of a weak reference, within
an import, or within code that tries something and takes every exception for "no", it goes no further, and the work goes
on; elsewhere it comes out as an exception of another kind.
"""

from __future__ import annotations

import functools
import os
import signal
import threading
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
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


@contextmanager
def interruptions_kept() -> Iterator[None]:
    """Raise at the end of the block an exception of the interruption handler that was lost within it.

    Interruptions act at once, as they do without it. The handler is whichever is there (Python's own, a notebook's); in
    other threads than the main one, and where there is none or interruptions are ignored, nothing is raised and so
    nothing lost.

    Yields
    ------
    None

    Raises
    ------
    BaseException
        Exception of the handler, KeyboardInterrupt as a rule, if the block ended without it, or by an
        exception of another kind. One that is no Exception, such as FitInterrupted, passes.

    Examples
    --------
    >>> import signal
    >>> try:
    ...     with interruptions_kept():
    ...         try:
    ...             signal.raise_signal(signal.SIGINT)
    ...         except BaseException:
    ...             print("lost")
    ... except KeyboardInterrupt:
    ...     print("and found")
    lost
    and found
    """
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    raised: list[BaseException] = []

    def note(kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            raised.append(error)
            signal.signal(signal.SIGINT, handler)  # one is enough

    def handle(number: int, frame: FrameType | None) -> None:
        with ExitStack() as stack:
            stack.push(note)
            handler(number, frame)

    def restore(kind: object, error: BaseException | None, trace: object) -> bool:
        signal.signal(signal.SIGINT, handler)
        return bool(raised) and isinstance(error, Exception)

    with ExitStack() as stack:
        stack.push(restore)
        signal.signal(signal.SIGINT, handle)
        yield
    if raised:
        raise raised.pop()
