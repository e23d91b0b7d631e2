"""Whether probabilities are right: their calibration in bins of equal size, and a test of the propensity model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import chdtrc, expit

from causalrisk.errors import DesignError, UnavailableError, one_of, whole_number
from causalrisk.estimators.record import FitRecord
from causalrisk.numerics.linalg import Array, weighted_gram
from causalrisk.numerics.multiplicities import seed_sequence
from causalrisk.numerics.optimize import minimize_value

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


# --- a test of the propensity model ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class BalanceTest:
    """Overidentification test of balance.

    Parameters
    ----------
    statistic : float
        The statistic J.
    df : int
        Its degrees of freedom: the number of balance conditions.
    pvalue : float
        Probability of a larger J where the propensity model is right.
    converged : bool
        Whether the minimisation settled.
    """

    statistic: float
    df: int
    pvalue: float
    converged: bool

    def __str__(self) -> str:
        left = "" if self.converged else " (the minimisation did not settle)"
        return f"Balance: chi2({self.df}) = {self.statistic:.4f}, p = {self.pvalue:.4f}{left}"


def _balance_factor(p: Array, target: str) -> tuple[Array, Array]:
    """Return the factor of treated - p in the weight of a balance condition, and its slope by the linear predictor."""
    if target == "treated":
        return 1 / (1 - p), p / (1 - p)
    if target == "control":
        return 1 / p, -(1 - p) / p
    return 1 / (p * (1 - p)), (2 * p - 1) / (p * (1 - p))


def balance_test(record: FitRecord) -> BalanceTest:
    """Test that the propensity model balances its columns.

    Moment conditions, that weighting balances each column (the constant too), are tested together with the score of
    the logit, which determines the coefficients. A small p-value says that the model is wrong; a large one does not say
    that it is right, nor that nothing was left out.

    Returns
    -------
    BalanceTest
        With `statistic`, `df`, `pvalue`.

    Notes
    -----
    The test of Imai and Ratkovic [1]_ in the continuously updated form, with the variance given the covariates, as
    Stata's ``tebalance overid``: J is the minimum over the coefficients of m' S^-1 m, with m the sum of both sets of
    conditions and S its variance under the model, and chi-squared. Rows are independent in it. In small
    samples it rejects less often than its level: a right logit of three covariates at the nominal 5% in 0.5% of 400
    samples of 80 rows, 2.5% of 300, 3.0% of 1000 (Monte Carlo error 1.1%). Its power is small there too.

    References
    ----------
    .. [1] Imai, K. and Ratkovic, M. (2014). Covariate balancing propensity score. Journal of the Royal Statistical
       Society B 76, 243-263.

    Examples
    --------
    >>> from causalrisk import Hajek, datasets
    >>> births = datasets.load_cattaneo2()
    >>> propensity = "mmarried + mage + prenatal1 + fbaby"
    >>> res = Hajek.from_formula(
    ...     "bweight ~ 1", births, treat="mbsmoke", propensity=propensity
    ... ).fit()
    >>> print(res.balance_test())
    Balance: chi2(5) = 38.1464, p = 0.0000
    """
    fit = record.used_weight_fit
    options, sample = record.options, record.sample
    plain = options.propensity_link == "logit" and options.propensity_loss == "ml" and options.clip is None
    fitted = record.design.score is None and options.propensity_score is None
    towards = options.population.name if options.population.by_arm else None
    dependent = record.design.cluster is not None or record.design.survey is not None
    if not (plain and fitted and towards and sample.n_arms == 2 and not dependent):
        raise UnavailableError(
            "balance_test() is for a logit of two arms by maximum likelihood, independent rows, and the targets "
            "all, treated and control.\nType  res.balance()  for the differences themselves."
        )
    columns, treated, weights = sample.Z.columns, (sample.arm == 1).astype(float), sample.s
    squared = weights if record.frequency else weights**2

    df = columns.shape[1]
    unit, start = 1 / np.sqrt(sample.total), fit.coefficients[:df]  # of about a standard error: then few steps suffice

    def value(step: Array) -> tuple[float, Array]:
        p = expit(columns @ (start + unit * step))
        pq = p * (1 - p)
        factor, slope = _balance_factor(p, towards)
        moments = np.concatenate([columns.T @ (weights * (treated - p) * k) for k in (1.0, factor)])
        first, both, second = (weighted_gram(columns, squared * pq * k) for k in (1.0, factor, factor**2))
        solved = np.linalg.solve(np.block([[first, both], [both, second]]), moments)
        score, balance = (columns @ half for half in np.split(solved, 2))
        pull = score + factor * balance
        by_moment = weights * (-pq * pull + (treated - p) * slope * balance)
        by_variance = squared * pq * ((1 - 2 * p) * pull**2 + 2 * pull * slope * balance)
        return float(moments @ solved), unit * (columns.T @ (2 * by_moment - by_variance))

    statistic, converged = minimize_value(value, np.zeros(df))
    return BalanceTest(statistic, df, float(chdtrc(df, statistic)), converged)
