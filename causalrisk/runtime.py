"""Memory and files of the computer, threads of BLAS, and maps over items in threads or processes.

BLAS uses one thread while the package works. The previous number of threads is restored afterwards. Most matrices are
long and narrow, and threads within their products wait for each other. On a busy machine with two processors, two
threads took 1.6 to 15 times as long as one, for matrices from 4,642 x 10 to 20,000 x 400. The number of threads or
processes does not change the digits: results come in the order of the items, and the caller adds them up.
"""

from __future__ import annotations

import functools
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import scipy.linalg  # noqa: F401 - which has a BLAS of its own, for `ThreadpoolController` to find
from threadpoolctl import ThreadpoolController

from causalrisk.errors import needed

USUAL_MEMORY = 16e9  # bytes, if the system does not say


def memory() -> float:
    """Return the memory of this computer in bytes."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, OSError, ValueError):  # not on every system
        return USUAL_MEMORY


def write_file(path: str | os.PathLike[str], content: str | bytes) -> Path:
    """Write text (as UTF-8) or bytes to a file, and return its path."""
    Path(path).write_bytes(content.encode() if isinstance(content, str) else content)
    return Path(path)


_running = 0  # blocks of `one_blas_thread` that have begun but not ended
_limiter: Any = None
_lock = threading.Lock()
_libraries = functools.cache(ThreadpoolController)  # finding the libraries is slow


def with_one_thread(function: Callable[..., T], *items: Any) -> T:
    """Return function(*items), computed with one BLAS thread."""
    with one_blas_thread():
        return function(*items)


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Use one BLAS thread inside the `with` block, in the whole process. Blocks may be nested, and run in threads.

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
    global _running, _limiter
    with _lock:
        _running += 1
        if _limiter is None:
            _limiter = _libraries().limit(limits=1, user_api="blas")
    try:
        yield
    finally:
        with _lock:
            _running -= 1
            if not _running:
                _limiter.restore_original_limits()
                _limiter = None


# --- maps in order ---------------------------------------------------------------------------------------------------

S = TypeVar("S")
T = TypeVar("T")


@contextmanager
def ordered_map(
    function: Callable[[S], T], items: Sequence[S], workers: int, prefer: str = "threads"
) -> Iterator[Iterator[T]]:
    """Map a function over items, with results in order. Unfinished work is cancelled at the end of the `with` block."""
    if min(workers, len(items)) <= 1:
        yield map(function, items)
        return
    import joblib

    work = joblib.delayed(functools.partial(with_one_thread, function))
    results = joblib.Parallel(n_jobs=workers, prefer=prefer, return_as="generator")(work(item) for item in items)
    try:
        yield results
    finally:
        with warnings.catch_warnings(action="ignore"):  # joblib warns of the blocks that closing cancels
            results.close()


def worker_count(n_jobs: int, block_bytes: float = 1.0) -> int:
    """Return the number of blocks to process at a time: `n_jobs` or one per processor (-1), as far as memory allows."""
    wanted = n_jobs if n_jobs > 0 else os.cpu_count() or 1
    return max(1, min(wanted, int(memory() / 2 // block_bytes)))


@contextmanager
def progress_bar(total: int, wanted: bool, label: str, unit: str) -> Iterator[Callable[[int], object]]:
    """Show a progress bar by tqdm; yields a function to call with the number of units just done."""
    if not wanted:
        yield lambda done: None
        return
    with needed("progress=True needs tqdm", '"causalrisk[progress]"'):
        from tqdm.auto import tqdm
    with tqdm(total=total, desc=label, unit=unit) as bar:
        yield bar.update
