"""Calibration of predicted probabilities: bins of equal size and the root mean squared gap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalrisk.errors import DesignError, one_of, whole_number
from causalrisk.estimators.record import FitRecord
from causalrisk.numerics.linalg import Array
from causalrisk.numerics.multiplicities import seed_sequence

BINNINGS = ("all", "published")
BIN_SIZE = 100


@dataclass(frozen=True)
class CalibrationBins:
    """Mean prediction and observed frequency in bins of rows with similar predictions.

    Parameters
    ----------
    n : ndarray of int, shape (b,)
        Rows of each bin.
    predicted : ndarray, shape (b,)
        Mean prediction, increasing.
    observed : ndarray, shape (b,)
        Observed frequency: the mean outcome of the rows.
    """

    n: NDArray[np.intp]
    predicted: Array
    observed: Array


def calibration_bins(predicted: Array, observed: Array, size: int = BIN_SIZE) -> CalibrationBins:
    """Sort rows by their prediction and average them bin by bin.

    Parameters
    ----------
    predicted : ndarray, shape (m,)
        Predicted probabilities.
    observed : ndarray, shape (m,)
        0 or 1; ties of `predicted` stay in the order given.
    size : int, default 100
        Rows in a bin. There are m // size bins, at least one; the last also takes what is left over.

    Returns
    -------
    CalibrationBins
        The bins, from the lowest predictions to the highest.
    """
    order = np.argsort(predicted, kind="stable")
    starts = _starts(len(order), size)
    n = np.diff(starts, append=len(order))
    means = np.add.reduceat(np.stack([predicted, observed])[:, order], starts, axis=1) / n
    return CalibrationBins(n, means[0], means[1])


def rms_calibration_error(predicted: Array, observed: Array, binning: str = "all", size: int = BIN_SIZE) -> float:
    """Root mean squared gap between prediction and frequency, over bins of equal size.

    Parameters
    ----------
    predicted : ndarray, shape (m,)
        Predicted probabilities, between 0 and 1.
    observed : ndarray, shape (m,)
        0 or 1.
    binning : {"all", "published"}, default "all"
        "all" uses a stable sort and every bin. "published" is the scoring code of Humanity's Last Exam: it leaves out
        the last, most confident bin, yet divides by all m rows, and its sort may permute ties.
    size : int, default 100
        Rows in a bin, as for `calibration_bins`.

    Returns
    -------
    float
        sqrt(sum_b n_b / m (mean predicted - mean observed)^2), a share; NaN if m is 0.

    Raises
    ------
    DesignError
        If binning is "published" and there are fewer rows than one bin takes.

    Notes
    -----
    Even perfect predictions have a positive value in a sample: the gap of a bin has a standard error of its own.
    """
    m = _checked(predicted, binning, size)
    order = np.argsort(predicted, kind="stable" if binning == "all" else None)
    return float(_error((predicted - observed)[order], _starts(m, size), binning)) if m else np.nan


def rms_calibration_error_se(
    predicted: Array, observed: Array, binning: str = "all", size: int = BIN_SIZE, n_boot: int = 999, rng: Any = 0
) -> float:
    """Bootstrap standard error of the calibration error: rows are drawn, sorted and binned again.

    Parameters
    ----------
    predicted, observed, binning, size
        As for `rms_calibration_error`.
    n_boot : int, default 999
        Resamples.
    rng : int, Generator, SeedSequence or None, default 0
        Source of the draws.

    Returns
    -------
    float
        Standard deviation over the resamples; NaN if there are no rows.
    """
    whole_number("n_boot", n_boot, 2)
    m = _checked(predicted, binning, size)
    if not m:
        return np.nan
    generator, starts = np.random.default_rng(seed_sequence(rng)), _starts(m, size)
    gap = (predicted - observed)[np.argsort(predicted, kind="stable")]
    # The rows are sorted already, so sorting the drawn positions sorts each resample.
    errors = [_error(gap[np.sort(generator.integers(m, size=m))], starts, binning) for _ in range(n_boot)]
    return float(np.std(errors, ddof=1))


def _checked(predicted: Array, binning: str, size: int) -> int:
    one_of("binning", binning, BINNINGS)
    whole_number("size", size, 1)
    m = len(predicted)
    if binning == "published" and m < size:
        raise DesignError(
            f'binning="published" needs at least {size} answers with a confidence, one full bin; found {m}.\n'
            'Type  binning="all".'
        )
    return m


def _starts(m: int, size: int) -> NDArray[np.intp]:
    return np.arange(max(m // size, 1)) * size


def _error(gap: Array, starts: NDArray[np.intp], binning: str) -> Any:
    """Calibration error of sorted gaps, shape (m,)."""
    n = np.diff(starts, append=len(gap))
    terms = n / len(gap) * (np.add.reduceat(gap, starts) / n) ** 2
    return np.sqrt((terms if binning == "all" else terms[:-1]).sum())


def calibration(record: FitRecord, bins: int = 10) -> pd.DataFrame:
    """Compare propensity scores with how many were treated, in bins of rows with similar scores.

    Parameters
    ----------
    bins : int, default 10
        Number of bins, of equal size.

    Returns
    -------
    DataFrame
        A row a bin: rows, mean score "predicted", share treated "observed", and the "std err" of the latter; with
        several arms a block for each but the reference. Every row counts once, or as often as its frequency weight.
    """
    size, pairs = _predictions(record, bins)
    tables = {}
    for label, pair in pairs.items():
        found = calibration_bins(*pair, size)
        error = np.sqrt(found.observed * (1 - found.observed) / found.n)
        columns = {"n": found.n, "predicted": found.predicted, "observed": found.observed, "std err": error}
        tables[label] = pd.DataFrame(columns, index=pd.RangeIndex(1, len(found.n) + 1, name="bin"))
    return next(iter(tables.values())) if len(tables) == 1 else pd.concat(tables, names=["arm", "bin"])


def calibration_error(record: FitRecord, bins: int = 10) -> pd.Series:
    """Root mean squared gap between score and share treated over the bins of `calibration`, a row an arm."""
    size, pairs = _predictions(record, bins)
    values = [rms_calibration_error(*pair, size=size) for pair in pairs.values()]
    return pd.Series(values, index=pd.Index(list(pairs), name="arm"), name="calibration error")


def _predictions(record: FitRecord, bins: int) -> tuple[int, dict[str, tuple[Array, Array]]]:
    """Return the rows of a bin, and by arm the scores of all rows and whether they are in it."""
    whole_number("bins", bins, 1)
    design, rows = record.design, record.counted_rows
    arms = enumerate(design.labels[1:], start=1)
    pairs = {label: (record.scores[a, rows], (design.arm == a)[rows].astype(float)) for a, label in arms}
    return max(len(rows) // bins, 1), pairs
