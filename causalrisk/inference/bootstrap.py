"""The bootstrap: blocks of multiplicities through a batched refit."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from causalrisk.ledger import Reason
from causalrisk.linalg import Array

T = TypeVar("T")


class BatchResult(Protocol):
    """What a batched refit returns: `values`, shape (d, m), and `reasons`, shape (m,)."""

    @property
    def values(self) -> Array:
        """Estimates, a column a resample."""

    @property
    def reasons(self) -> NDArray[np.int8]:
        """A `Reason` for each resample."""


@dataclass(frozen=True)
class BootstrapDistribution:
    """Estimates over the resamples.

    Parameters
    ----------
    values : ndarray, shape (n_boot, d)
        A row a resample; NaN where it failed.
    reasons : ndarray of int8, shape (n_boot,)
        A `Reason` for each resample.
    """

    values: Array
    reasons: NDArray[np.int8]

    @property
    def used(self) -> Array:
        """Estimates of the resamples that worked."""
        return self.values[self.reasons == Reason.OK]

    @property
    def failed_share(self) -> float:
        """Share of the resamples that failed."""
        return float(np.mean(self.reasons != Reason.OK))

    def covariance(self) -> Array:
        """Covariance of the estimates over the resamples that worked, divisor m - 1, shape (d, d)."""
        return np.atleast_2d(np.cov(self.used, rowvar=False))


def run_bootstrap(
    refit: Callable[[Array, int], BatchResult],
    draw: Callable[[int, int], Array],
    n_boot: int,
    width: int,
    workers: int,
    progress: bool,
) -> BootstrapDistribution:
    """Draw the resamples block by block and refit each block at once.

    Parameters
    ----------
    refit : callable
        Multiplicities (n, m) and the number of the first resample -> estimates; pure.
    draw : callable
        Block number and width -> multiplicities, shape (n, width).
    n_boot : int
        Number of resamples.
    width : int
        Resamples per block. Blocks are the same whatever the number of workers, so the results are too.
    workers : int
        Blocks worked on at a time.
    progress : bool
        Whether to count the resamples on standard error.

    Returns
    -------
    BootstrapDistribution
        Estimates and reasons, in the order of the resamples.
    """

    def block(number: int) -> BatchResult:
        first = number * width
        return refit(draw(number, min(width, n_boot - first)), first)

    count = -(-n_boot // width)
    parts = []
    with ordered_map(block, count, workers) as results, progress_bar(n_boot, progress) as advance:
        for part in results:
            parts.append(part)
            advance(part.values.shape[1])
    values = np.concatenate([p.values for p in parts], axis=1).T
    return BootstrapDistribution(values, np.concatenate([p.reasons for p in parts]))


@contextmanager
def progress_bar(total: int, wanted: bool) -> Iterator[Callable[[int], object]]:
    """Show progress on standard error: a tqdm bar, or a plain counter where tqdm is not installed.

    Parameters
    ----------
    total : int
        Number of resamples.
    wanted : bool
        Whether to show anything.

    Yields
    ------
    callable
        To be called with the number of resamples just done.
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
            print(f"\rbootstrap: {count} of {total}", end="\n" if count == total else "", file=sys.stderr)

        yield advance
        return
    with tqdm(total=total, desc="bootstrap", unit="resample") as bar:
        yield bar.update


@contextmanager
def ordered_map(function: Callable[[int], T], count: int, workers: int) -> Iterator[Iterator[T]]:
    """Map a function over 0 .. count-1 in threads, results in order; no thread is left behind.

    Parameters
    ----------
    function : callable
        Work on one block.
    count : int
        Number of blocks.
    workers : int
        Threads; 1 works in the calling thread.

    Yields
    ------
    iterator
        The results.
    """
    if workers == 1 or count == 1:
        yield map(function, range(count))
        return
    pool = ThreadPoolExecutor(workers)
    try:
        yield pool.map(function, range(count))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def worker_count(n_jobs: int, memory: float | None, block_bytes: float) -> int:
    """Blocks in flight: as many as asked for, and as fit the memory budget.

    Parameters
    ----------
    n_jobs : int
        Threads asked for; -1 means one per processor.
    memory : float or None
        Budget in bytes; None means no limit.
    block_bytes : float
        Working memory of a block.

    Returns
    -------
    int
        At least 1.
    """
    wanted = n_jobs if n_jobs > 0 else os.cpu_count() or 1
    return wanted if memory is None else max(1, min(wanted, int(memory // block_bytes)))
