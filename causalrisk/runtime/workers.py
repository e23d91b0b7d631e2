"""Maps over items in order: in threads, in processes, or by joblib.

The choice changes no digit: results come in the order of the items, and sums are formed here.
"""

from __future__ import annotations

import functools
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any, TypeVar

from causalrisk.errors import UnavailableError
from causalrisk.runtime.system import memory, one_blas_thread

S = TypeVar("S")
T = TypeVar("T")


@contextmanager
def ordered_map(
    function: Callable[[S], T], items: Sequence[S], workers: int, *, processes: bool = False
) -> Iterator[Iterator[T]]:
    """Map a function over items, results in order; no work is left behind.

    `workers` is the number of threads, of `processes`, or of the workers of the joblib backend whose context the caller
    is in; 1 works in the calling thread.
    """
    if min(workers, len(items)) <= 1:
        yield map(function, items)
        return
    work = functools.partial(with_one_thread, function)
    if chosen_backend() is not None:
        import joblib

        try:
            parallel = joblib.Parallel(n_jobs=workers, return_as="generator")
        except ValueError:  # Dask under joblib 1.3, which gives all results at once
            yield iter(joblib.Parallel(n_jobs=workers)(joblib.delayed(work)(item) for item in items))
            return
        results = parallel(joblib.delayed(work)(item) for item in items)
        try:
            yield results
        finally:
            with warnings.catch_warnings(action="ignore"):  # joblib warns of the blocks that closing cancels
                results.close()
        return
    pool: Executor = ThreadPoolExecutor(workers)
    if processes:
        pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    try:
        yield pool.map(work, items)
    finally:
        pool.shutdown(cancel_futures=True)


def chosen_backend() -> Any:
    """Return the joblib backend whose context the caller is in; None without one, and for threads, which we have.

    joblib is not imported: a caller inside `joblib.parallel_config` has done that.
    """
    parallel = sys.modules.get("joblib.parallel")
    if parallel is None:
        return None
    backend, _ = parallel.get_active_backend(prefer="threads")
    return None if isinstance(backend, parallel.ThreadingBackend) else backend


def with_one_thread(function: Callable[..., T], *items: Any) -> T:
    """Work on an item, if there is any, maybe in another process."""
    with one_blas_thread():
        return function(*items)


def worker_count(n_jobs: int, block_bytes: float = 1.0) -> int:
    """Return how many blocks to work on at a time: as many as asked for (-1: one per processor), and at least one.

    Blocks of `block_bytes` bytes of working memory each take no more than half of the memory.
    """
    wanted = n_jobs if n_jobs > 0 else os.cpu_count() or 1
    return max(1, min(wanted, int(memory() / 2 // block_bytes)))


@contextmanager
def progress_bar(total: int, wanted: bool, label: str, unit: str) -> Iterator[Callable[[int], object]]:
    """Show progress on standard error, by tqdm; yields a function of the number of units just done."""
    if not wanted:
        yield lambda done: None
        return
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise UnavailableError('progress=True needs tqdm.\nUse `pip install "causalrisk[progress]"`.') from error
    with tqdm(total=total, desc=label, unit=unit) as bar:
        yield bar.update
