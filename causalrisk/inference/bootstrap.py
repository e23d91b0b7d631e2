"""The bootstrap: blocks of multiplicities through a batched refit."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from causalrisk.errors import BootstrapError
from causalrisk.inference.parallel import ordered_map
from causalrisk.ledger import Reason
from causalrisk.linalg import Array


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
        Blocks worked on at a time: in threads, or by the joblib backend whose context the caller is in.
    progress : bool
        Whether to count the resamples on standard error.

    Returns
    -------
    BootstrapDistribution
        Estimates and reasons, in the order of the resamples.

    Raises
    ------
    BootstrapError
        If a worker process died.
    """
    block = functools.partial(_refit_block, refit, draw, n_boot, width)
    parts: list[BatchResult] = []
    try:
        with ordered_map(block, -(-n_boot // width), workers) as results, progress_bar(n_boot, progress) as advance:
            for part in results:
                parts.append(part)
                advance(part.values.shape[1])
    except BrokenExecutor as error:
        raise BootstrapError(
            f"a worker process died, and resamples {len(parts) * width} to {n_boot - 1} were lost with it: the system "
            "ends a process that takes too much memory.\n"
            "Type  fit(n_jobs=1)  to stay in one process, or memory=  for fewer resamples at a time."
        ) from error
    values = np.concatenate([p.values for p in parts], axis=1).T
    return BootstrapDistribution(values, np.concatenate([p.reasons for p in parts]))


def _refit_block(
    refit: Callable[[Array, int], BatchResult], draw: Callable[[int, int], Array], n_boot: int, width: int, number: int
) -> BatchResult:
    """Refit block `number`; the last may be narrower. A function of the module, for processes to find it."""
    first = number * width
    return refit(draw(number, min(width, n_boot - first)), first)


@contextmanager
def progress_bar(
    total: int, wanted: bool, label: str = "bootstrap", unit: str = "resample"
) -> Iterator[Callable[[int], object]]:
    """Show progress on standard error: a tqdm bar, or a plain counter where tqdm is not installed.

    Parameters
    ----------
    total : int
        Number of units to do.
    wanted : bool
        Whether to show anything.
    label : str, default "bootstrap"
        What is going on.
    unit : str, default "resample"
        What is counted, in the singular.

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
    with tqdm(total=total, desc=label, unit=unit) as bar:
        yield bar.update
