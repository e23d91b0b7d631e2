"""Maps over items in order: in the caller's thread, in threads, on the caller's joblib backend, or on a Dask cluster.

The choice changes no digit: results come in the order of the items, and sums are formed here.
"""

from __future__ import annotations

import functools
import itertools
import os
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from typing import Any, TypeVar

from causalrisk.errors import BootstrapError, ResampleWarning, warn_user
from causalrisk.runtime.system import free_memory, one_blas_thread

S = TypeVar("S")
T = TypeVar("T")
AHEAD, AHEAD_HERE = 2, 8  # items given out ahead for each thread of a cluster; of our own, where they are small
SMALLER_BLOCKS = "Type  scan(..., block_rows=50_000)  for less memory a worker, or start workers with more."
CARRIED = 2**20  # bytes up to which a function goes to a cluster with every item
LOOK, LOOK_HERE = 1.0, 0.5  # seconds between looks at a cluster that is at work; at work on this computer
SCHEDULER_PATIENCE, WORKER_PATIENCE = 15.0, 120.0  # seconds without the scheduler, or without any worker
ANSWER_PATIENCE = 5.0  # seconds for an answer of the scheduler
FOLLOWER = "follows its parent"  # name of a thread in joblib's workers


def flat_map(
    function: Callable[[S], Iterator[T]], items: Iterable[S], workers: int, name: Callable[[S], str] = str
) -> Iterator[T]:
    """Yield all results of a generator function over the items, in the order of the items.

    Parameters
    ----------
    function : callable
        Work on one item. Elsewhere it is done as a whole before anything is yielded, and function and items are
        pickled.
    items : iterable
        The items; a few are taken ahead.
    workers : int
        Items worked on at a time. On a Dask cluster, that of the caller's `distributed.Client`, there are as many as it
        has threads.
    name : callable, optional
        Name of an item in messages.

    Yields
    ------
    object
        The results.

    Raises
    ------
    BootstrapError
        If workers died over an item, or the cluster is lost.
    """
    backend = chosen_backend() if workers > 1 else None
    client = active_client() or client_of(backend)
    if client is not None:
        yield from on_cluster(client, function, items, name=name, remedy=SMALLER_BLOCKS)
        return
    if backend is not None:
        workers = backend.effective_n_jobs(workers)  # 1, with joblib's warning, where it cannot start processes
    if workers == 1:
        yield from itertools.chain.from_iterable(map(function, items))
    elif backend is not None and streams(backend):
        yield from _on_joblib(function, items, workers)
    else:
        listed = in_threads(functools.partial(_listed, function), items, workers, ahead=workers + 1)
        yield from itertools.chain.from_iterable(listed)


@contextmanager
def ordered_map(
    function: Callable[[int], T], count: int, workers: int, name: Callable[[int], str] = str, remedy: str = ""
) -> Iterator[Iterator[T]]:
    """Map a function over 0 .. count-1, results in order; no work is left behind.

    Parameters
    ----------
    function : callable
        Work on one block.
    count : int
        Number of blocks.
    workers : int
        Blocks worked on at a time; 1 works in the calling thread.
    name : callable, optional
        Name of a block in messages.
    remedy : str, optional
        Advice where the workers of a Dask cluster die over a block.

    Yields
    ------
    iterator
        The results.
    """
    backend = chosen_backend() if min(workers, count) > 1 else None
    client = client_of(backend)
    if backend is not None and client is None:
        workers = backend.effective_n_jobs(workers)  # 1, with joblib's warning, where it cannot start processes
    if min(workers, count) == 1:
        yield map(function, range(count))
    elif client is not None:
        alone = functools.partial(_alone, function)
        with closing(on_cluster(client, alone, range(count), name=name, remedy=remedy)) as results:
            yield results
    elif backend is not None and streams(backend):
        with joblib_map(function, range(count), workers) as results:
            yield results
    else:
        with closing(in_threads(function, range(count), workers, ahead=AHEAD_HERE * workers)) as results:
            yield results


def _alone(function: Callable[[S], T], item: S) -> list[T]:
    return [function(item)]


def client_of(backend: Any) -> Any:
    """Return the `distributed.Client` of joblib's Dask backend; None for others.

    The tasks are given to it by `on_cluster`: the backend itself does not hear of workers that die over a task or of a
    scheduler that is gone, and would wait for ever.
    """
    return backend.client if type(backend).__name__ == "DaskDistributedBackend" else None


def active_client() -> Any:
    """Return the `distributed.Client` whose context the caller is in, or that was made last; None without one.

    distributed is not imported: a caller who has a client has done that.
    """
    distributed = sys.modules.get("distributed")
    try:
        return None if distributed is None else distributed.default_client()
    except ValueError:  # raised where there is no client
        return None


def _listed(function: Callable[[S], Iterable[T]], item: S) -> list[T]:
    return [*function(item)]


def _on_joblib(function: Callable[[S], Iterator[T]], items: Iterable[S], workers: int) -> Iterator[T]:
    try:
        with joblib_map(functools.partial(_listed, function), items, workers) as results:
            yield from itertools.chain.from_iterable(results)
    except BrokenExecutor as error:
        raise BootstrapError(
            "a worker process died: the system ends a process that takes too much memory.\n"
            "Type  fit(n_jobs=1)  to stay in one process, or give scan a smaller block_rows=."
        ) from error


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


def in_threads(function: Callable[[S], T], items: Iterable[S], workers: int, ahead: int) -> Generator[T]:
    """Yield the results of work on items in threads, in order; at most `ahead` items have begun or wait."""
    pool, waiting = ThreadPoolExecutor(workers), deque[Future[T]]()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) == ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


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
    with one_blas_thread():
        return function(item)


def _end_when_left(home: int) -> None:
    while os.getppid() == home:
        time.sleep(LOOK_HERE)
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
        The workers, started afresh ("spawn"); they end with the calling process, however that ends.
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
    """In a worker process: end when the parent process has ended."""
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent.sentinel,), daemon=True).start()


def _end_after(sentinel: Any) -> None:
    wait([sentinel])
    os._exit(1)


def worker_count(n_jobs: int, block_bytes: float) -> int:
    """Return how many blocks to work on at a time: as many as asked for and as fit in half of the free memory.

    Parameters
    ----------
    n_jobs : int
        Workers asked for; -1 means one per processor.
    block_bytes : float
        Working memory of a block.

    Returns
    -------
    int
        At least 1.
    """
    wanted = n_jobs if n_jobs > 0 else os.cpu_count() or 1
    return max(1, min(wanted, int(free_memory() / 2 // block_bytes)))


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


# --- Dask --------------------------------------------------------------------------------------------------------


def on_cluster(
    client: Any, function: Callable[[S], Iterable[T]], items: Iterable[S], *, name: Callable[[S], str], remedy: str
) -> Generator[T]:
    """Work on items on a Dask cluster: give out a few ahead, wait for the first, and give out the next.

    Parameters
    ----------
    client : distributed.Client
        Client of the cluster.
    function, items, name
        As in `flat_map`.
    remedy : str
        Advice where workers die over an item.

    Yields
    ------
    object
        The results, in the order of the items.

    Raises
    ------
    BootstrapError
        If workers died over an item, or the cluster is lost.
    """
    # Pickled once, as an interactive session asks for. What is small goes with every item: the scheduler hands a task
    # to a worker that has its input, and the others would wait until they steal it.
    pickled = sys.modules["distributed.protocol.pickle"].dumps(function)
    work = pickled if len(pickled) <= CARRIED else client.submit(bytes, pickled, pure=False)
    waiting = deque[tuple[Any, str]]()
    try:
        for item in items:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Sending large graph")  # a block of rows, which goes once
                future = client.submit(_by_worker, work, item, pure=False)
            waiting.append((future, name(item)))
            if len(waiting) >= AHEAD * max(_threads(client), 1):
                yield from _result(client, *waiting.popleft(), remedy)
        while waiting:
            yield from _result(client, *waiting.popleft(), remedy)
    finally:
        with suppress(OSError):  # raised where the scheduler has gone
            if client.status == "running":
                client.cancel([future for future, _ in waiting])


def _threads(client: Any) -> int:
    """Count the threads of a cluster; zero where the connection just breaks, which `_result` notices as well."""
    try:  # as client.nthreads(), which would try to connect for half a minute
        return sum(client.sync(client.scheduler.ncores, callback_timeout=ANSWER_PATIENCE).values())
    except OSError:
        return 0


def _by_worker(pickled: bytes, item: Any) -> list[Any]:
    """Work on an item in a Dask worker."""
    function = sys.modules["distributed.protocol.pickle"].loads(pickled)
    with one_blas_thread():
        return [*function(item)]


def _result(client: Any, future: Any, name: str, remedy: str) -> Any:
    """Wait for a result as long as there is a cluster."""
    distributed, seen = sys.modules["distributed"], time.monotonic()
    try:
        while not future.done():
            try:
                distributed.wait([future], timeout=LOOK)
            except TimeoutError:
                seen = _with_cluster(client, seen)
        return future.result()
    except distributed.KilledWorker as error:
        raise BootstrapError(
            f"the Dask workers that were given {name} died one after the other: the system, or Dask's own watch, ends "
            f"a process that takes too much memory.\n{remedy}"
        ) from error
    except (CancelledError, distributed.comm.CommClosedError) as error:
        raise _lost(client) from error


def _with_cluster(client: Any, seen: float) -> float:
    """Raise an error where the cluster has been away for long; the time at which it was last seen."""
    now = time.monotonic()
    if client.status != "running":
        if now - seen > SCHEDULER_PATIENCE:
            raise _lost(client)
        return seen
    if _threads(client):
        return now
    if now - seen > WORKER_PATIENCE:
        raise BootstrapError(
            f"the Dask cluster has had no worker for {WORKER_PATIENCE:.0f} seconds.\n"
            "Start workers, type  client.wait_for_workers(1),  then fit again."
        )
    return seen


def _lost(client: Any) -> BootstrapError:
    address = client.scheduler.address if client.scheduler else "its address"
    return BootstrapError(
        f"the Dask scheduler at {address} does not answer any more, and what its workers were doing is lost.\n"
        "Start it again, type  distributed.Client(address),  then fit again."
    )
