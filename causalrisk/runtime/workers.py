"""Maps over numbers in order: in threads, by joblib or on a Dask cluster.

The choice changes no digit: results come in the order of the items, and sums are formed here.
"""

from __future__ import annotations

import os
import sys
import threading
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import CancelledError, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing, contextmanager
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from typing import Any, TypeVar

from causalrisk.errors import BootstrapError
from causalrisk.runtime.system import free_memory, one_blas_thread

S = TypeVar("S")
T = TypeVar("T")


@contextmanager
def ordered_map(
    function: Callable[[int], T], count: int, workers: int, name: Callable[[int], str] = str, remedy: str = ""
) -> Iterator[Iterator[T]]:
    """Map a function over 0 .. count-1, results in order; no work is left behind.

    `workers` is the number of threads, or of the workers of the joblib backend whose context the caller is in; 1 works
    in the calling thread. Otherwise inside of a `distributed.Client` its cluster does the work. `name` and `remedy` are
    for messages: the name of an item, and advice where the workers of a cluster die over it.
    """
    client = active_client()
    if min(workers, count) == 1:
        yield map(function, range(count))
        return
    if client is not None:
        results = on_cluster(client, function, range(count), name=name, remedy=remedy)
    else:
        results = (_in_threads if chosen_backend() is None else _on_joblib)(function, count, workers)
    with closing(results):
        yield results


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


def _in_threads(function: Callable[[int], T], count: int, workers: int) -> Generator[T]:
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(function, range(count))


def _on_joblib(function: Callable[[int], T], count: int, workers: int) -> Generator[T]:
    import joblib

    parallel = joblib.Parallel(n_jobs=workers, return_as="generator")
    results = parallel(joblib.delayed(_with_one_thread)(function, item) for item in range(count))
    try:
        yield from results
    finally:
        with warnings.catch_warnings(action="ignore"):  # joblib warns of the blocks that closing cancels
            results.close()


def on_cluster(
    client: Any, function: Callable[[S], T], items: Iterable[S], *, name: Callable[[S], str], remedy: str
) -> Generator[T]:
    """Work on a Dask cluster; results in order.

    `name` and `remedy` are for messages: the name of an item, and advice where workers die over it.

    Raises
    ------
    BootstrapError
        If workers died over an item, or the cluster is lost.
    """
    distributed = sys.modules["distributed"]
    work = client.scatter(function, broadcast=True, hash=False)
    futures = [(item, client.submit(_with_one_thread, work, item, pure=False)) for item in items]
    try:
        for item, future in futures:
            try:
                yield future.result()
            except (distributed.KilledWorker, distributed.comm.CommClosedError, CancelledError) as error:
                raise BootstrapError(f"the Dask workers that did {name(item)} are lost: {error}\n{remedy}") from error
    finally:
        if client.status == "running":
            client.cancel([future for _, future in futures])


def _with_one_thread(function: Callable[[S], T], item: S) -> T:
    """Work on an item in another process."""
    with one_blas_thread():
        return function(item)


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
