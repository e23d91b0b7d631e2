"""Maps over items in order: in the caller's thread, in threads, on the caller's joblib backend, or on a Dask cluster.

The choice changes no digit: results come in the order of the items, and sums are formed here.
"""

from __future__ import annotations

import os
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from itertools import chain
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from typing import Any, TypeVar

from causalrisk.errors import BootstrapError
from causalrisk.runtime.system import free_memory, one_blas_thread

S = TypeVar("S")
T = TypeVar("T")
AHEAD = 2  # items given out ahead for each worker


def in_order(function: Callable[[S], T], items: Sequence[S], workers: int | None) -> Iterator[T]:
    """Yield what a function makes of each item, in their order; Dask works on a few at a time.

    `workers` is the number of threads, None what Dask has, and 1 a plain loop; inside of a `distributed.Client` its
    cluster does the work, whatever the number.
    """
    client = active_client()
    if workers == 1 and client is None:
        yield from map(function, items)
        return
    import dask

    how = {} if client is not None or workers is None else {"scheduler": "threads", "num_workers": workers}
    threads = (workers or os.cpu_count() or 1) if client is None else max(sum(client.nthreads().values()), 1)
    for first in range(0, len(items), AHEAD * threads):
        works = [partial(_alone_with_blas, function, item) for item in items[first : first + AHEAD * threads]]
        yield from dask.compute(*(dask.delayed(work, pure=False, traverse=False)() for work in works), **how)


def _alone_with_blas(function: Callable[[S], T], item: S) -> T:
    with one_blas_thread():
        return function(item)


@contextmanager
def ordered_map(
    function: Callable[[int], T], count: int, workers: int, name: Callable[[int], str] = str, remedy: str = ""
) -> Iterator[Iterator[T]]:
    """Map a function over 0 .. count-1, results in order; no work is left behind.

    `workers` blocks are worked on at a time, as by `flat_map`; 1 works in the calling thread. `name` and `remedy` are
    for messages: the name of a block, and advice where the workers of a Dask cluster die over it.
    """
    if min(workers, count) == 1:
        yield map(function, range(count))
        return
    with closing(_mapped(partial(_alone, function), range(count), workers, name, remedy)) as results:
        yield results


def _alone(function: Callable[[S], T], item: S) -> list[T]:
    return [function(item)]


def _mapped(
    function: Callable[[S], Iterable[T]],
    items: Iterable[S],
    workers: int,
    name: Callable[[S], str] = str,
    remedy: str = "Use a smaller `block_rows=` of scan, or start workers with more memory.",
) -> Generator[T]:
    """Work as `flat_map`, elsewhere than in the calling thread."""
    client = active_client()
    if client is not None:
        return on_cluster(client, function, items, name=name, remedy=remedy)
    return (_in_threads if chosen_backend() is None else _on_joblib)(function, items, workers)


def active_client() -> Any:
    """Return the `distributed.Client` whose context the caller is in, or that was made last; None without one.

    distributed is not imported: a caller who has a client has done that.
    """
    distributed = sys.modules.get("distributed")
    try:
        return None if distributed is None else distributed.default_client()
    except ValueError:  # raised where there is no client
        return None


def chosen_backend() -> Any:
    """Return the joblib backend whose context the caller is in; None without one, and for threads, which we have.

    joblib is not imported: a caller inside `joblib.parallel_config` has done that.
    """
    parallel = sys.modules.get("joblib.parallel")
    if parallel is None:
        return None
    backend, _ = parallel.get_active_backend(prefer="threads")
    return None if isinstance(backend, parallel.ThreadingBackend) else backend


def _in_threads(function: Callable[[S], Iterable[T]], items: Iterable[S], workers: int) -> Generator[T]:
    pool, waiting = ThreadPoolExecutor(workers), deque[Future[list[T]]]()
    try:
        for item in items:
            waiting.append(pool.submit(_listed, function, item))
            if len(waiting) == AHEAD * workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _on_joblib(function: Callable[[S], Iterable[T]], items: Iterable[S], workers: int) -> Generator[T]:
    import joblib

    parallel = joblib.Parallel(n_jobs=workers, return_as="generator")
    results = parallel(joblib.delayed(_listed)(function, item) for item in items)
    try:
        yield from chain.from_iterable(results)
    finally:
        with warnings.catch_warnings(action="ignore"):  # joblib warns of the blocks that closing cancels
            results.close()


def on_cluster(
    client: Any, function: Callable[[S], Iterable[T]], items: Iterable[S], *, name: Callable[[S], str], remedy: str
) -> Generator[T]:
    """Work on a Dask cluster as `flat_map`, a few items for each of its threads at a time.

    `name` and `remedy` are for messages: the name of an item, and advice where workers die over it.

    Raises
    ------
    BootstrapError
        If workers died over an item, or the cluster is lost.
    """
    distributed, waiting = sys.modules["distributed"], deque[tuple[S, Any]]()
    work = client.scatter(function, broadcast=True, hash=False)
    ahead = AHEAD * max(sum(client.nthreads().values()), 1)
    try:
        for item in items:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Sending large graph")  # a block of rows, which goes once
                waiting.append((item, client.submit(_listed, work, item, pure=False)))
            if len(waiting) == ahead:
                yield from waiting[0][1].result()
                waiting.popleft()
        while waiting:
            yield from waiting[0][1].result()
            waiting.popleft()
    except (distributed.KilledWorker, distributed.comm.CommClosedError, CancelledError) as error:
        raise BootstrapError(f"the Dask workers that did {name(waiting[0][0])} are lost: {error}\n{remedy}") from error
    finally:
        if client.status == "running":
            client.cancel([future for _, future in waiting])


def _listed(function: Callable[[S], Iterable[T]], item: S) -> list[T]:
    """Work on an item in another thread or process."""
    with one_blas_thread():
        return [*function(item)]


@contextmanager
def worker_processes(count: int) -> Iterator[ProcessPoolExecutor]:
    """Worker processes, started afresh; they end when the block is left, and with the calling process."""
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
    """Return how many blocks to work on at a time: as many as asked for (-1: one per processor), and at least one.

    Blocks of `block_bytes` bytes of working memory each take no more than half of the free memory.
    """
    wanted = n_jobs if n_jobs > 0 else os.cpu_count() or 1
    return max(1, min(wanted, int(free_memory() / 2 // block_bytes)))


@contextmanager
def progress_bar(
    total: int, wanted: bool, label: str = "bootstrap", unit: str = "resample", leave: bool = True
) -> Iterator[Callable[[int], object]]:
    """Show progress on standard error: a tqdm bar, or a plain counter where tqdm is not installed.

    Yields a function that is called with the number of units just done. `label` names the work and `unit` what is
    counted, in the singular; `leave` says whether a bar of tqdm stays when all is done.
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
