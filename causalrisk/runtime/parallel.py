"""Workers for blocks: threads and processes of our own, and the joblib backend that the caller has chosen."""

from __future__ import annotations

import functools
import itertools
import os
import signal
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import ExitStack, closing, contextmanager
from contextvars import ContextVar
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from causalrisk.errors import ResampleWarning, warn_user
from causalrisk.runtime.memory import free_memory, keep_freed_memory

S = TypeVar("S")
T = TypeVar("T")
FOLLOWER, LOOK = "follows its parent", 0.5  # name of a thread in joblib's workers; seconds between its looks
WANTED: ContextVar[Callable[[], bool]] = ContextVar("WANTED", default=lambda: True)  # asked by this thread's work


def chosen_backend() -> Any:
    """Return the joblib backend whose context the caller is in; None without one, and for threads, which we have.

    joblib is not imported: a caller inside `joblib.parallel_config` has done that.
    """
    parallel = sys.modules.get("joblib.parallel")
    if parallel is None:
        return None
    backend, _ = parallel.get_active_backend(prefer="threads")
    return None if isinstance(backend, parallel.ThreadingBackend) else backend


def streams(backend: Any) -> bool:
    """Return True if a joblib backend yields results one by one; others would also wait for a dead worker forever."""
    if not backend.supports_return_generator:
        warn_user(
            f"joblib's {type(backend).__name__} does not hand results over one by one and would not notice a worker "
            'that dies; threads do the work instead.\nType  joblib.parallel_config("loky")  for processes.',
            ResampleWarning,
        )
    return bool(backend.supports_return_generator)


def in_threads(function: Callable[[S], list[T]], items: Iterable[S], workers: int, ahead: int) -> Generator[list[T]]:
    """Work on items in threads of our own.

    Parameters
    ----------
    function : callable
        Work on one item.
    items : iterable
        The items.
    workers : int
        Threads.
    ahead : int
        Largest number of items begun or waiting at a time.

    Yields
    ------
    list
        The results in the order of the items, and from time to time an empty list where the next is not there yet, as
        `driven` takes it. Work that calls `check_wanted` ends when the generator is closed.
    """
    pool, waiting, left = ThreadPoolExecutor(workers), deque[Future[list[T]]](), threading.Event()
    try:
        for item in items:
            waiting.append(pool.submit(work_while, lambda: not left.is_set(), function, item))
            if len(waiting) == ahead:
                yield from _waited(waiting.popleft())
        while waiting:
            yield from _waited(waiting.popleft())
    finally:
        left.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _waited(future: Future[list[T]]) -> Iterator[list[T]]:
    while not wait_for([future], timeout=LOOK).done:
        yield []
    yield future.result()


def work_while(wanted: Callable[[], bool], function: Callable[[S], T], item: S) -> T:
    """Work on an item; `check_wanted` within it asks whether the result is still wanted."""
    token = WANTED.set(wanted)
    try:
        return function(item)
    finally:
        WANTED.reset(token)


def check_wanted() -> None:
    """Raise where nobody waits for the result any more; long work calls it between its parts.

    Raises
    ------
    CancelledError
        If the giver of the work has been interrupted, or is gone.
    """
    if not WANTED.get()():
        raise CancelledError


@contextmanager
def driven(batches: Generator[list[T]]) -> Iterator[Iterator[T]]:
    """Let another thread drive a generator that works with a pool of workers.

    An interruption of the main thread within a lock of the pool would leave it locked for ever, and the pool could not
    be shut down; the queue that is read here has no such lock.

    Parameters
    ----------
    batches : generator of lists
        Results that are ready; an empty list where none is, so that the work can be given up.

    Yields
    ------
    iterator
        The results. The generator is closed when the block is left.
    """
    queue: SimpleQueue[tuple[list[T], BaseException | None, bool]] = SimpleQueue()
    left = threading.Event()

    def tell(kind: object, error: BaseException | None, trace: object) -> bool:
        queue.put(([], error, True))
        return True

    def drive() -> None:
        with ExitStack() as stack:
            stack.push(tell)  # whatever ends the work, or the reader would wait for it
            stack.enter_context(closing(batches))
            for batch in itertools.takewhile(lambda _: not left.is_set(), batches):
                queue.put((batch, None, False))

    driver, started = threading.Thread(target=drive, daemon=True), False
    try:
        driver.start()
        started = True
        yield _received(queue)
    finally:
        left.set()
        if started:
            driver.join()


def _received(queue: SimpleQueue[tuple[list[T], BaseException | None, bool]]) -> Iterator[T]:
    """Yield the results that a driver puts into its queue, and raise its error."""
    while True:
        try:
            batch, error, ended = queue.get(timeout=LOOK)
        except Empty:  # an interruption that another thread is told of is noticed between two looks
            continue
        if error is not None:
            raise error
        if ended:
            return
        yield from batch


@contextmanager
def joblib_map(function: Callable[[S], T], items: Iterable[S], workers: int) -> Iterator[Iterator[T]]:
    """Map by the joblib backend of the caller's context."""
    import joblib

    parallel = joblib.Parallel(n_jobs=workers, return_as="generator")
    followed = functools.partial(_following, function, os.getpid())
    results = parallel(joblib.delayed(followed)(item) for item in items)
    try:
        yield results
    finally:
        with warnings.catch_warnings(action="ignore"):  # joblib warns of the blocks that closing cancels
            results.close()


def _following(function: Callable[[S], T], home: int, item: S) -> T:
    """Work on an item in a process that ends with process `home`, which started it: joblib's would wait for minutes."""
    if os.getppid() == home and not any(thread.name == FOLLOWER for thread in threading.enumerate()):
        threading.Thread(target=_end_when_left, args=(home,), name=FOLLOWER, daemon=True).start()
    keep_freed_memory()
    return function(item)


def _end_when_left(home: int) -> None:
    while os.getppid() == home:
        time.sleep(LOOK)
    os._exit(1)


@contextmanager
def worker_processes(count: int) -> Iterator[ProcessPoolExecutor]:
    """Worker processes that end with the block: by themselves when it is done, at once when it is left by an exception.

    Parameters
    ----------
    count : int
        Number of processes.

    Yields
    ------
    ProcessPoolExecutor
        The workers, started afresh ("spawn"). An interruption from the keyboard is the caller's to act on; they end
        with the calling process, however that ends.
    """
    pool = ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_follow_parent)
    finished = False
    try:
        yield pool
        finished = True
    finally:
        if not finished:
            for process in list((pool._processes or {}).values()):
                process.terminate()
        pool.shutdown(wait=True, cancel_futures=True)


def _follow_parent() -> None:
    """In a worker: leave interruptions to the parent, and end when the parent has ended without a word."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent.sentinel,), daemon=True).start()


def _end_after(sentinel: Any) -> None:
    wait([sentinel])
    os._exit(1)


def worker_count(n_jobs: int, memory: float | None, block_bytes: float) -> int:
    """Blocks in flight: as many as asked for, and as fit the memory budget.

    Parameters
    ----------
    n_jobs : int
        Workers asked for; -1 means one per processor.
    memory : float or None
        Budget in bytes; None means half of the free memory.
    block_bytes : float
        Working memory of a block.

    Returns
    -------
    int
        At least 1.
    """
    wanted = n_jobs if n_jobs > 0 else os.cpu_count() or 1
    budget = free_memory() / 2 if memory is None else memory
    return max(1, min(wanted, int(budget // block_bytes)))


@contextmanager
def progress_bar(
    total: int, wanted: bool, label: str = "bootstrap", unit: str = "resample", leave: bool = True
) -> Iterator[Callable[[int], object]]:
    """Show progress on standard error: a tqdm bar, or a plain counter where tqdm is not installed.

    Parameters
    ----------
    total : int
        Number of units to do.
    wanted : bool
        Whether to show anything.
    label : str, default "bootstrap"
        Name of the work.
    unit : str, default "resample"
        Noun for what is counted, in the singular.
    leave : bool, default True
        Whether a bar of tqdm stays when all is done.

    Yields
    ------
    callable
        To be called with the number of units just done.
    """
    if not wanted:
        yield lambda done: None
        return
    try:
        from tqdm.auto import tqdm
    except ImportError:
        count = 0

        def advance(done: int) -> None:
            nonlocal count
            count += done
            print(f"\r{label}: {count} of {total} {unit}s", end="\n" if count == total else "", file=sys.stderr)

        yield advance
        return
    with tqdm(total=total, desc=label, unit=unit, leave=leave) as bar:
        yield bar.update
