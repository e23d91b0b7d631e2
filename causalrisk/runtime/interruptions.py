"""Interruptions from the keyboard that other code would lose.

Python raises KeyboardInterrupt wherever the main thread happens to be. Within the callback of a weak reference, within
an import, or within code that tries something and takes every exception for "no", it goes no further, and the work goes
on; elsewhere it comes out as an exception of another kind.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType


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
