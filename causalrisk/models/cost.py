"""What a fit takes of the processor and of memory, told from fits to samples of its rows."""

from __future__ import annotations

import time
import tracemalloc
import warnings
from collections.abc import Callable
from dataclasses import dataclass

SAMPLE = 200_000  # rows of the larger sample that is timed
HELD = 2  # times as many are fitted for the memory; of fewer, what is held of blocks of rows is more than that of all
RESAMPLES = 32, 96  # one block and three
LEAST, REPEATS = 0.5, 3  # seconds of fits, or fits, of which the shortest counts
MOMENTS = 5.0  # seconds up to which a fit to all rows is done in the place of a part of its resamples


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


def cost_of(sample: Callable[[int], Callable[[int], object]], rows: int, n_boot: int, block: int) -> Cost:
    """Work out what a fit takes, as a function that is linear in the rows and in the resamples.

    A fit to all rows that takes moments is done as it is.

    Parameters
    ----------
    sample : callable
        Makes, of so many rows, what fits them with so many resamples; making it is no part of the cost.
    rows, n_boot : int
        Those of the fit; no resamples are 0.
    block : int
        Rows that the fit holds at a time; memory grows up to them.
    """
    large = min(rows, SAMPLE)
    small = large // 4
    few, more = (min(n_boot, count) for count in RESAMPLES)

    def seconds(n: int, count: int) -> float:
        times: list[float] = []
        while sum(times) < LEAST and len(times) < REPEATS:
            fit = sample(n)
            begun = time.process_time()
            fit(count)
            times.append(time.process_time() - begun)
        return min(times)

    def at(size: int) -> float:
        first = seconds(size, few)
        return first if more == few else line(n_boot, few, first, more, seconds(size, more))

    def peak(n: int) -> float:
        fit = sample(n)
        tracemalloc.start()
        try:
            fit(more)
            return float(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()

    held = min(HELD * SAMPLE, rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the fit itself will warn
        sample(small)(few)  # imports and first calls
        taken = at(large)
        if rows > large:
            taken = line(rows, small, at(small), large, taken)
        elif taken < MOMENTS:
            taken = seconds(rows, n_boot)
        largest = peak(held) * max(min(rows, block), held) / held
    return Cost(taken, largest, rows, held, n_boot)


def line(at: int, x: int, first: float, y: int, second: float) -> float:
    """Go on along a line from two sizes, but not below what the larger one took."""
    return second if x == y else max(first + (second - first) * (at - x) / (y - x), second)
