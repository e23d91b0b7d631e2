"""What a fit takes of the processor and of memory, told from fits to samples of its rows."""

from __future__ import annotations

import time
import tracemalloc
import warnings
from collections.abc import Callable
from dataclasses import dataclass

SAMPLE = 200_000  # rows of the larger sample that is timed
HELD = 2  # times as many are fitted for the memory, as what is held of blocks of rows grows no further from there on
RESAMPLES = 32, 96  # one block and three


@dataclass(frozen=True)
class Cost:
    """Processor time and memory that a fit is expected to take.

    Parameters
    ----------
    seconds : float
        Seconds of a processor, beside those that made the model.
    bytes : float
        Largest memory of the fit, beside that of the data and the model.
    rows, sample : int
        Rows of the fit, and of the largest sample that was fitted.
    n_boot : int
        Resamples of the fit; 0 for other standard errors.
    """

    seconds: float
    bytes: float
    rows: int
    sample: int
    n_boot: int

    def __str__(self) -> str:
        resamples = f" and {self.n_boot:,} resamples" if self.n_boot else ""
        return (
            f"{self.rows:,} rows{resamples}: {self.seconds:.2g} s of a processor, {self.bytes / 1e9:.2g} GB beside the "
            f"data (from fits to {self.sample:,} rows)"
        )


def cost_of(fit: Callable[[int, int], object], rows: int, n_boot: int) -> Cost:
    """Work out what a fit takes, as a function that is linear in the rows and in the resamples.

    Parameters
    ----------
    fit : callable
        Fits so many rows with so many resamples.
    rows, n_boot : int
        Those of the fit; no resamples are 0.
    """
    large = min(rows, SAMPLE)
    small = large // 4
    few, more = (min(n_boot, count) for count in RESAMPLES)

    def seconds(n: int, count: int) -> float:
        begun = time.process_time()
        fit(n, count)
        return time.process_time() - begun

    def at(size: int) -> float:
        first = seconds(size, few)
        return first if more == few else first + (seconds(size, more) - first) * (n_boot - few) / (more - few)

    def peak(n: int) -> float:
        tracemalloc.start()
        try:
            fit(n, few)
            return float(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()

    def line(x: int, first: float, y: int, second: float) -> float:
        """Go on to all rows, from two sizes, but not below what the larger one took."""
        return second if x == y else max(first + (second - first) * (rows - x) / (y - x), second)

    held = min(HELD * SAMPLE, rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the fit itself will warn
        fit(small, few)  # imports and first calls
        taken = line(small, at(small), large, at(large))
        largest = line(large, peak(large), held, peak(held))
    return Cost(taken, largest, rows, held, n_boot)
