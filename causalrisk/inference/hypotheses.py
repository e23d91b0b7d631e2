"""Hypotheses of papers: one-sided tests, equivalence, and several tests at once.

A test here is a statistic T, an estimate over its standard error, normal or of Student's t with the degrees of freedom
of the fit. One-sided p-values are P(T > t) and P(T < t). Two of them make a test of equivalence. Of several tests,
those that reject none wrongly but with probability alpha have adjusted p-values and simultaneous intervals: by the
distribution of max |T| (the single step, of the correlations of the estimates), or from the p-values alone.
"""

from __future__ import annotations

import functools
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import gammaincinv, ndtr, ndtri, stdtr

from causalrisk.design import ScannedDesign
from causalrisk.design.design import by_rows
from causalrisk.errors import DesignError, OptionError, check_alpha, one_of
from causalrisk.estimators.effect_scales import DIFFERENCE, EffectScale
from causalrisk.estimators.record import FitRecord
from causalrisk.estimators.robust import influence_covariance
from causalrisk.inference import wald
from causalrisk.inference.wald import (
    contrast_errors,
    critical_value,
    inference_frame,
    linear_hypotheses,
    parameter_covariance,
    rounded_se,
    statistic_names,
    two_sided,
)
from causalrisk.numerics.linalg import Array
from causalrisk.values import Alternative

ALTERNATIVES = {"larger": ">", "smaller": "<"}


def upper_quantile(level: float, df: float) -> float:
    """Return what T exceeds with probability `level`; of the normal distribution for infinite df."""
    return float(critical_value(2 * level, df))


# --- one-sided tests -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class OneSidedTest:
    """One-sided tests of linear combinations, with the attributes of statsmodels' ContrastResults.

    Parameters
    ----------
    effect, sd, statistic : ndarray, shape (j,)
        Estimates, their standard errors and the statistics.
    alternative : {"larger", "smaller"}
        What is shown where the hypothesis is rejected: that the combination is larger or smaller than its value.
    df : float
        Degrees of freedom; infinite for normal tests.
    c_names : sequence of str, length j
        Names of the combinations.
    """

    effect: Array
    sd: Array
    statistic: Array
    alternative: str
    df: float
    c_names: Sequence[str]

    @property
    def pvalue(self) -> Array:
        """One-sided p-values, shape (j,), of one combination without an axis as in statsmodels."""
        sign = -1 if self.alternative == "larger" else 1
        return np.squeeze(stdtr(self.df, sign * self.statistic))

    @property
    def tvalue(self) -> Array:
        """The statistics, shape (j,)."""
        return self.statistic

    @property
    def distribution(self) -> str:
        """Name of the distribution of the statistics in scipy, "norm" or "t"."""
        return "norm" if np.isinf(self.df) else "t"

    @property
    def df_denom(self) -> float:
        """Degrees of freedom."""
        return self.df

    def conf_int(self, alpha: float = 0.05) -> Array:
        """Return one-sided intervals, shape (j, 2): the limit on the side of the alternative, and infinity.

        Parameters
        ----------
        alpha : float, default 0.05
            Significance level: the limit is the one of a two-sided interval of level 1 - 2 alpha.

        Returns
        -------
        ndarray, shape (j, 2)
            The value of the hypothesis lies outside exactly where the p-value is below alpha.
        """
        check_alpha(alpha)
        reach = upper_quantile(alpha, self.df) * self.sd
        none = np.full(len(self.effect), np.inf)
        sides = (self.effect - reach, none) if self.alternative == "larger" else (-none, self.effect + reach)
        return np.column_stack(sides)

    def summary_frame(self, xname: Sequence[str] | None = None, alpha: float = 0.05) -> pd.DataFrame:
        """Return the tests as a table.

        Parameters
        ----------
        xname : sequence of str, optional
            Names of the combinations.
        alpha : float, default 0.05
            Significance level of the intervals.

        Returns
        -------
        DataFrame
            The columns of statsmodels, but for that of the p-values, whose name says the side.
        """
        letter = statistic_names(self.df)[0]
        names = ["coef", "std err", letter, f"P{ALTERNATIVES[self.alternative]}{letter}",
                 "Conf. Int. Low", "Conf. Int. Upp."]  # fmt: skip
        columns = [self.effect, self.sd, self.statistic, np.atleast_1d(self.pvalue), *self.conf_int(alpha).T]
        return pd.DataFrame(dict(zip(names, columns, strict=True)), index=list(xname or self.c_names))

    def summary(self, xname: Sequence[str] | None = None, alpha: float = 0.05, title: str | None = None) -> Any:
        """Return the tests as statsmodels prints them.

        Parameters
        ----------
        xname : sequence of str, optional
            Names of the combinations.
        alpha : float, default 0.05
            Significance level of the intervals.
        title : str, optional
            Heading.

        Returns
        -------
        statsmodels.iolib.summary.Summary
            With `as_text`, `as_html`, `as_latex` and `as_csv`.
        """
        frame = self.summary_frame(xname, alpha)
        return _summary_of(frame, title or f"One-sided tests: {self.alternative}", [])

    def __repr__(self) -> str:
        return str(self.summary())


def _summary_of(frame: pd.DataFrame, title: str, notes: Sequence[str]) -> Any:
    """Return a table of numbers, and lines below it, as statsmodels' summaries have them."""
    from statsmodels.iolib.summary import Summary
    from statsmodels.iolib.table import SimpleTable
    from statsmodels.iolib.tableformatting import fmt_params

    texts = [[f"{value:.4g}" if isinstance(value, float) else str(value) for value in row]
             for row in frame.itertuples(index=False)]  # fmt: skip
    for j, name in enumerate(frame.columns):  # p-values as in the summary of a fit
        if name.startswith("P"):
            for row, value in zip(texts, frame[name], strict=True):
                row[j] = f"{value:.3f}"
    made = Summary()
    made.tables.append(SimpleTable(texts, list(frame.columns), list(map(str, frame.index)), title, txt_fmt=fmt_params))
    if notes:
        made.add_extra_txt(list(notes))
    return made


def t_test(record: FitRecord, r_matrix: Any, alternative: Alternative = "two-sided") -> Any:
    """Test linear combinations of `params`, one at a time.

    Parameters
    ----------
    r_matrix : str, array_like, or tuple
        As in statsmodels: a text such as "POM[1] - POM[0] = 0" (several separated by commas), a matrix R with a
        column per parameter, or a pair (R, q) for R params = q.
    alternative : {"two-sided", "larger", "smaller"}, default "two-sided"
        What is to be shown: that a combination differs from its value, is larger or is smaller.

    Returns
    -------
    statsmodels.stats.contrast.ContrastResults or OneSidedTest
        Estimates, tests and intervals. One-sided tests have the same attributes; their ``conf_int(alpha)`` has one
        limit, and infinity on the side of the alternative.

    Raises
    ------
    OptionError
        If the alternative is not known, or a text has a sign such as > in it.

    Examples
    --------
    >>> from causalrisk import IPWRA, datasets
    >>> births = datasets.load_cattaneo2()
    >>> res = IPWRA.from_formula(
    ...     "bweight ~ mage + medu", births, treat="mbsmoke"
    ... ).fit()
    >>> test = res.t_test("ATE = -200", alternative="smaller")
    >>> print(f"p = {test.pvalue:.4f}, upper limit {test.conf_int()[0, 1]:.1f}")
    p = 0.0098, upper limit -216.8
    """
    one_of("alternative", alternative, ("two-sided", *ALTERNATIVES))
    both = wald.t_test(record, r_matrix)
    if alternative == "two-sided":
        return both
    names = [combination_text(row, record.names) for row in linear_hypotheses(r_matrix, record.names)[0]]
    return OneSidedTest(both.effect, both.sd, both.statistic, alternative, record.df, names)


def combination_text(row: Array, names: Sequence[str]) -> str:
    """Write a linear combination of named parameters, such as "ATE[b] - ATE[a]"."""
    parts = [
        f"{'-' if weight < 0 else '+'} {'' if abs(weight) == 1 else f'{abs(weight):.6g}*'}{name}"
        for weight, name in zip(row, names, strict=True)
        if weight
    ]
    text = " ".join(parts).removeprefix("+ ")
    return f"-{text[2:]}" if text.startswith("- ") else text or "0"


# --- equivalence -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class EquivalenceTest:
    """Two one-sided tests of each of m estimates, returned by `equivalence_test`.

    Parameters
    ----------
    names : list of str, length m
        Names of the estimates.
    estimate, sd : ndarray, shape (m,)
        Estimates as they are reported, and their standard errors.
    low, high : float
        The limits; infinite where there is none.
    alpha : float
        Significance level.
    df : float
        Degrees of freedom; infinite for normal tests.
    statistic : ndarray, shape (m, 2)
        Statistics against the lower and the upper limit.
    pvalues : ndarray, shape (m, 2)
        P-values of the two tests: that the estimate lies above the lower limit, and below the upper.
    limits : ndarray, shape (m, 2)
        Intervals of level 1 - 2 alpha.
    """

    names: list[str]
    estimate: Array
    sd: Array
    low: float
    high: float
    alpha: float
    df: float
    statistic: Array
    pvalues: Array
    limits: Array

    @property
    def pvalue(self) -> Array:
        """The larger of the two p-values of each estimate, shape (m,)."""
        return self.pvalues.max(axis=1)

    @property
    def shown(self) -> NDArray[np.bool_]:
        """Whether each estimate is shown to lie between the limits, at the level alpha, shape (m,)."""
        return np.asarray(self.pvalue < self.alpha)

    def conf_int(self) -> pd.DataFrame:
        """Return intervals of level 1 - 2 alpha: they lie between the limits exactly where that is shown.

        Returns
        -------
        DataFrame
            Columns 0 and 1, a row an estimate.
        """
        return pd.DataFrame(self.limits, index=self.names)

    def summary_frame(self) -> pd.DataFrame:
        """Return the tests as a table.

        Returns
        -------
        DataFrame
            A row an estimate: estimate, std err; statistic and p-value of each limit; the larger p-value; the
            interval of level 1 - 2 alpha; and whether the estimate is shown to lie between the limits.
        """
        letter = statistic_names(self.df)[0]
        columns: dict[str, Any] = {"estimate": self.estimate, "std err": self.sd}
        for side, (sign, limit) in enumerate(((">", self.low), ("<", self.high))):
            if np.isfinite(limit):
                columns |= {f"{letter} ({sign} {limit:.6g})": self.statistic[:, side]}
                columns |= {f"P ({sign} {limit:.6g})": self.pvalues[:, side]}
        limits = dict(zip((f"[{self.alpha:.4g}", f"{1 - self.alpha:.4g}]"), self.limits.T, strict=True))
        columns |= {"P": self.pvalue, **limits, "shown": self.shown}
        return pd.DataFrame(columns, index=self.names)

    def summary(self, title: str | None = None) -> Any:
        """Return the tests with a sentence on each estimate.

        Parameters
        ----------
        title : str, optional
            Heading.

        Returns
        -------
        statsmodels.iolib.summary.Summary
            With `as_text`, `as_html`, `as_latex` and `as_csv`.
        """
        both = np.isfinite([self.low, self.high]).all()
        claim = f"lies above {self.low:.6g}" if np.isinf(self.high) else f"lies below {self.high:.6g}"
        claim = f"lies between {self.low:.6g} and {self.high:.6g}" if both else claim
        notes = [
            f"{name}: {'' if yes else 'not '}shown that it {claim} (p = {p:.4f}; "
            f"{100 * (1 - 2 * self.alpha):.4g}% interval {low:.5g} to {high:.5g})."
            for name, yes, p, (low, high) in zip(self.names, self.shown, self.pvalue, self.limits, strict=True)
        ]
        heading = "Test of equivalence (two one-sided tests)" if both else "One-sided test against a margin"
        repeated = ["shown"] if both else ["shown", "P"]
        return _summary_of(self.summary_frame().drop(columns=repeated), title or heading, notes)

    def __repr__(self) -> str:
        return str(self.summary())

    def _repr_html_(self) -> str:
        return str(self.summary().as_html())


def equivalence_test(
    record: FitRecord,
    low: float | None = None,
    high: float | None = None,
    r_matrix: Any = None,
    alpha: float = 0.05,
) -> EquivalenceTest:
    """Test that effects lie between two limits (equivalence), or beyond one margin (non-inferiority).

    Parameters
    ----------
    low, high : float, optional
        Limits on the scale on which the effect is reported: 0.8 and 1.25 for a ratio. With one of them only, the test
        is one of non-inferiority: with `low` that the effect lies above it, with `high` that it lies below.
    r_matrix : str or array_like, optional
        Linear combinations, as in `t_test`; by default all effects.
    alpha : float, default 0.05
        Significance level of each of the two one-sided tests.

    Returns
    -------
    EquivalenceTest
        Both tests of each estimate, the larger p-value, the interval of level 1 - 2 alpha, and `summary()`.

    Raises
    ------
    OptionError
        If no limit is given, they are not numbers in ascending order, a ratio has none, or a combination has a value
        of its own.

    Notes
    -----
    The two one-sided tests of Schuirmann [1]_: equivalence is shown where both reject, which they do exactly where the
    interval of level 1 - 2 alpha lies between the limits. An effect that is a ratio, odds ratio or percentage is tested
    on the logarithmic scale, as in the summary. That all of several effects lie between the limits is shown at the
    level alpha if it is of each; what is said of some of them is not adjusted for their number.

    References
    ----------
    .. [1] Schuirmann, D. J. (1987). A comparison of the two one-sided tests procedure and the power approach for
       assessing the equivalence of average bioavailability. Journal of Pharmacokinetics and Biopharmaceutics 15,
       657-680.

    Examples
    --------
    >>> from causalrisk import IPWRA, datasets
    >>> births = datasets.load_cattaneo2()
    >>> res = IPWRA.from_formula(
    ...     "bweight ~ mage + medu", births, treat="mbsmoke"
    ... ).fit()
    >>> test = res.equivalence_test(-310, -190)
    >>> print(f"p = {test.pvalue[0]:.4f}", test.shown[0])
    p = 0.0146 True
    >>> test.conf_int().round(1)
             0      1
    ATE -297.0 -216.8
    """
    check_alpha(alpha)
    scale, count = record.options.effect_scale, len(record.effect_names)
    _check_limits(low, high, scale)
    if r_matrix is None:
        left = np.eye(len(record.names))[:count]
    else:
        left, right = linear_hypotheses(r_matrix, record.names)
        if (right != 0).any():
            raise OptionError(
                f"the hypothesis has a value of its own, {right[right != 0][0]:.6g}; expected a combination alone, "
                "which the limits are of.\n"
                f"Type  res.equivalence_test({low!r}, {high!r}, {combination_text(left[0], record.names)!r})."
            )
    estimate = left @ record.estimate.params
    sd = rounded_se(
        np.r_[estimate, record.estimate.params],
        np.sqrt(np.clip(np.einsum("jd,de,je->j", left, parameter_covariance(record), left), 0, None)),
    )
    # An effect that stands alone is tested on the scale where effects are differences, everything else as it is.
    alone = (np.count_nonzero(left, axis=1) == 1) & (left[:, :count].max(axis=1, initial=0) == 1)
    of_effect = left[:, :count].argmax(axis=1)
    tested, errors = (
        np.where(alone, on_scale, plain)
        for on_scale, plain in (
            (scale.contrast(record.estimate.params[of_effect]), estimate),
            (contrast_errors(record)[of_effect], sd),
        )
    )
    bounds = np.array([-np.inf if low is None else low, np.inf if high is None else high])
    with np.errstate(invalid="ignore", divide="ignore"):
        on_scale = np.where(np.isfinite(bounds), scale.contrast(bounds), bounds)
        distance = tested[:, None] - np.where(alone[:, None], on_scale, bounds)
        statistic = distance / np.where(sd > 0, errors, np.nan)[:, None]
    half = upper_quantile(alpha, record.df) * errors
    limits = np.column_stack([tested - half, tested + half])
    return EquivalenceTest(
        names=[combination_text(row, record.names) for row in left],
        estimate=estimate,
        sd=sd,
        low=float(bounds[0]),
        high=float(bounds[1]),
        alpha=float(alpha),
        df=record.df,
        statistic=statistic,
        pvalues=stdtr(record.df, statistic * [-1, 1]),
        limits=np.where(alone[:, None], scale.report(limits), limits),
    )


def _check_limits(low: Any, high: Any, scale: EffectScale) -> None:
    """Refuse limits of equivalence that are missing, no numbers, in the wrong order, or no effects on the scale."""
    example = (0.8, 1.25) if scale.null else (-10, 10)
    for name, value in (("low", low), ("high", high)):
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, numbers.Real) or not np.isfinite(float(value)):
            raise OptionError(
                f"{name}={value!r}; expected a number, or None for no limit on this side.\n"
                f"Type  res.equivalence_test(low={example[0]}, high={example[1]})."
            )
        with np.errstate(invalid="ignore", divide="ignore"):
            inside = np.isfinite(scale.contrast(np.array(float(value))))
        if not inside:
            raise OptionError(
                f'{name}={value!r} is no effect="{scale.name}"; the limits are on the scale on which the effect is '
                f"reported, where no effect is {scale.null:g}.\n"
                f"Type  res.equivalence_test(low={example[0]}, high={example[1]})."
            )
    if low is None and high is None:
        raise OptionError(
            "there is no limit; expected two for a test of equivalence, or one for non-inferiority.\n"
            f"Type  res.equivalence_test(low={example[0]}, high={example[1]})."
        )
    if low is not None and high is not None and not low < high:
        raise OptionError(
            f"low={low!r} is not below high={high!r}; expected limits in ascending order.\n"
            f"Type  res.equivalence_test(low={min(low, high)!r}, high={max(low, high)!r})  for limits that differ."
        )


# --- several tests at once -------------------------------------------------------------------------------------------

ADJUSTMENTS = {  # what is typed -> statsmodels' name; the single step is not among its methods
    "single-step": None,
    "holm": "holm",
    "bonferroni": "bonferroni",
    "hochberg": "simes-hochberg",
    "simes-hochberg": "simes-hochberg",
    "fdr_bh": "fdr_bh",
}
REFERENCE = "reference"  # against="reference": the arm, group or estimator that stands first
POINTS = 17  # of the integrals below, 2 to this power; fewer where there are many tests
FEW_POINTS = 13
MANY_TESTS = 16
DEPENDENT = 1e-10  # variance of an estimate given the others, in its own, that rounding makes of none
SECANTS = 30
NEGLIGIBLE_TAIL = 1e-10  # of a probability, beside its error above


class LargestModulus:
    """The distribution of max |T| of correlated statistics, normal or of Student's t.

    Parameters
    ----------
    correlation : ndarray, shape (m, m)
        Correlations of the statistics; they may depend on each other, as the differences of all pairs do.
    df : float
        Degrees of freedom; infinite for the normal distribution.
    points : int, default 17
        Binary logarithm of the points of the integrals below; fewer where there are many tests.

    Notes
    -----
    With the factor L of the correlations, T = L Z / s: Z of r independent normal variables, s the root of a chi-squared
    variable over its degrees of freedom. Rows of L in the order of its pivots are triangular, so that the probability
    of |T| <= c is that of Z_1 in an interval, of Z_2 in one that depends on Z_1, and so on [1]_; where more rows than
    one end in a column, the interval is their intersection. The mean over Z_1, ..., Z_(r-1) and s is one of 2^17 points
    of a Sobol sequence, shifted digitally with a fixed seed and folded, so that the same correlations have the same
    digits. Beside R's mvtnorm and among other seeds probabilities of up to ten tests differ by about 1e-5 at most, of
    the 28 pairs of eight arms by 5e-5.

    References
    ----------
    .. [1] Genz, A. (1992). Numerical computation of multivariate normal probabilities. Journal of Computational and
       Graphical Statistics 1, 141-149.
    """

    def __init__(self, correlation: Array, df: float, points: int = POINTS) -> None:
        self.df = df
        self.factor = _triangular_factor(correlation)
        ends = (np.abs(self.factor) > np.sqrt(DEPENDENT)) * np.arange(1, self.factor.shape[1] + 1)
        self.last = ends.max(axis=1) - 1  # the last variable on which each row depends
        size = self.factor.shape[1] - 1 + int(np.isfinite(df))
        fewer = int(np.ceil(np.log2(max(len(correlation) / MANY_TESTS, 1))))
        self.points = _spread_points(size, max(points - fewer, FEW_POINTS) if size > 1 else FEW_POINTS)

    @functools.cached_property
    def scale(self) -> Array:
        """The variable s at the points, shape (N,)."""
        if np.isinf(self.df):
            return np.ones(self.points.shape[1])
        return np.asarray(np.sqrt(2 * gammaincinv(self.df / 2, self.points[-1]) / self.df))

    def tail(self, threshold: float) -> float:
        """Probability that max |T| is at least the threshold; never less than one |T| has, nor more than all add up to.

        Parameters
        ----------
        threshold : float
            Not negative.

        Returns
        -------
        float
            The probability.
        """
        single = float(two_sided(np.asarray(threshold), self.df))
        if self.factor.shape[1] == 1:
            return single
        inside = self._inside(threshold * self.scale).mean()
        return float(np.clip(1 - inside, single, min(1.0, len(self.factor) * single)))

    def _inside(self, reach: Array) -> Array:
        """Probability of all |L Z| <= reach at each point, shape (N,), the last variable integrated."""
        factor, rank = self.factor, self.factor.shape[1]
        drawn, probability = np.empty((rank, len(reach))), np.ones(len(reach))
        for k in range(rank):
            rows = factor[self.last == k]
            middle, half = -(rows[:, :k] @ drawn[:k]) / rows[:, k : k + 1], reach / np.abs(rows[:, k : k + 1])
            low, high = ndtr((middle - half).max(axis=0)), ndtr((middle + half).min(axis=0))
            width = np.maximum(high - low, 0.0)
            probability *= width
            if k == 0:  # the distribution is symmetric: half of it is enough
                low, width = np.full_like(low, 0.5), width / 2
            if k < rank - 1:
                drawn[k] = ndtri(np.clip(low + self.points[k] * width, 1e-300, 1 - 1e-16))
        return probability

    def quantile(self, alpha: float) -> float:
        """Return the threshold that max |T| exceeds with probability alpha.

        Parameters
        ----------
        alpha : float
            The probability.

        Returns
        -------
        float
            Between the quantiles of one test and of Bonferroni's inequality; secants within that bracket.
        """
        low, high = upper_quantile(alpha / 2, self.df), upper_quantile(alpha / 2 / len(self.factor), self.df)
        above, below = self.tail(low) - alpha, self.tail(high) - alpha
        if above <= 0 or below >= 0:
            return low if above <= 0 else high
        middle, side = low, 0
        for _ in range(SECANTS):
            middle = low + (high - low) * above / (above - below)
            found = self.tail(middle) - alpha
            if abs(found) < NEGLIGIBLE_TAIL:
                break
            if found > 0:  # where the same end moves twice, the other one counts half (the Illinois rule)
                low, above, below, side = middle, found, below / (2 if side > 0 else 1), 1
            else:
                high, below, above, side = middle, found, above / (2 if side < 0 else 1), -1
        return middle


def _triangular_factor(correlation: Array) -> Array:
    """Return L of L L' = R up to the order of the rows, shape (m, r): lower triangular in the rows of the pivots."""
    from scipy.linalg import qr

    values, vectors = np.linalg.eigh(correlation)
    kept = values > DEPENDENT * values.max()
    return np.asarray(qr((vectors[:, kept] * np.sqrt(values[kept])).T, mode="economic", pivoting=True)[1].T)


def _spread_points(size: int, power: int) -> Array:
    """Return 2^power points of the unit cube, shape (size, N), each coordinate folded about a half."""
    from scipy.stats.qmc import Sobol

    if size == 0:
        return np.zeros((0, 1))
    digits = (Sobol(size, scramble=False).random_base2(power) * 2**32).astype(np.uint64)
    shift = np.random.default_rng(0).integers(0, 2**32, size, dtype=np.uint64)
    return np.abs(((digits ^ shift) + 0.5) / 2**31 - 1).T


def compared(against: Any, names: Sequence[Any], found: int | None) -> list[tuple[int, int]]:
    """Return which of several arms, groups or estimators are compared, and with which.

    Parameters
    ----------
    against : object
        None for all pairs, "reference" for the first, or a name.
    names : sequence
        Their names.
    found : int or None
        Position of the one that `against` names; None where none has this name.

    Returns
    -------
    list of (int, int)
        Positions of each and of the one that it is compared with; of all pairs the later with the earlier.
    """
    if against is None:
        return [(high, low) for low, high in combinations(range(len(names)), 2)]
    if found is None and against == REFERENCE:
        found = 0
    if found is None:
        raise OptionError(
            f"against={against!r} is none of {', '.join(map(str, names))}; expected one of these, "
            f'"{REFERENCE}" for the first, or None for all pairs.\nType  against={names[0]!r}.'
        )
    return [(k, found) for k in range(len(names)) if k != found]


def check_adjustment(adjust: str | None) -> None:
    """Raise an OptionError unless it is a way to adjust for several tests, or None."""
    one_of("adjust", adjust, (None, *ADJUSTMENTS))


def adjusted(statistic: Array, covariance: Array, adjust: str, alpha: float, df: float) -> tuple[Array, float]:
    """Adjust p-values for the number of tests, and the critical value of intervals.

    Parameters
    ----------
    statistic : ndarray, shape (m,)
        Statistics; those that are NaN are no tests.
    covariance : ndarray, shape (m, m)
        Covariance of the estimates, of which the single step takes the correlations.
    adjust : str
        One of `ADJUSTMENTS`.
    alpha : float
        Significance level.
    df : float
        Degrees of freedom; infinite for normal tests.

    Returns
    -------
    p : ndarray, shape (m,)
        Adjusted two-sided p-values; NaN where there is no test.
    critical : float
        How many standard errors intervals reach: simultaneous ones by the single step, by Bonferroni's inequality for
        "bonferroni", "holm" and "hochberg"; for "fdr_bh" each interval is by itself.

    Examples
    --------
    >>> import numpy as np
    >>> p, critical = adjusted(
    ...     np.array([2.5, 1.0]), np.eye(2), "single-step", 0.05, np.inf
    ... )
    >>> p.round(4), round(critical, 4)
    (array([0.0247, 0.5339]), 2.2365)
    """
    from statsmodels.stats.multitest import multipletests

    tests = np.flatnonzero(np.isfinite(statistic))
    sizes, p, count = np.abs(statistic[tests]), np.full(len(statistic), np.nan), len(tests)
    if not count:
        return p, np.nan
    if adjust == "single-step":
        errors = np.sqrt(np.diag(covariance)[tests])
        largest = LargestModulus(covariance[np.ix_(tests, tests)] / np.outer(errors, errors), df)
        different, place = np.unique(sizes, return_inverse=True)
        p[tests] = np.array([largest.tail(size) for size in different])[place]
        return p, largest.quantile(alpha)
    p[tests] = multipletests(two_sided(sizes, df), method=ADJUSTMENTS[adjust])[1]
    return p, upper_quantile(alpha / 2 / (1 if adjust == "fdr_bh" else count), df)


def adjusted_frame(
    frame: pd.DataFrame,
    covariance: Array,
    *,
    adjust: str | None,
    alpha: float,
    df: float,
    scale: EffectScale = DIFFERENCE,
    twins: NDArray[np.intp] | None = None,
) -> pd.DataFrame:
    """Add adjusted p-values to a table of estimates, and make its intervals simultaneous.

    Parameters
    ----------
    frame : DataFrame
        As by `wald.inference_frame`.
    covariance : ndarray, shape (d, d)
        Covariance of the estimates on the scale where effects are differences.
    adjust : str or None
        One of `ADJUSTMENTS`; None leaves the table as it is.
    alpha : float
        Significance level.
    df : float
        Degrees of freedom; infinite for normal tests.
    scale : EffectScale
        Scale on which the estimates are reported.
    twins : ndarray of int, shape (d,), optional
        For each row the first one that is the same test, such as of the same pair the other way round.

    Returns
    -------
    DataFrame
        The table with "adjusted P" after the p-values, and other limits.
    """
    if adjust is None:
        return frame
    statistic = frame.iloc[:, 2].to_numpy()
    rows, place = np.unique(np.arange(len(frame)) if twins is None else twins, return_inverse=True)
    p, critical = adjusted(statistic[rows], covariance[np.ix_(rows, rows)], adjust, alpha, df)
    return _with_adjustment(frame, p[place], critical * np.sqrt(np.diag(covariance)), scale)


def _with_adjustment(frame: pd.DataFrame, p: Array, reach: Array, scale: EffectScale) -> pd.DataFrame:
    """Add adjusted p-values, and limits as far from the estimates as `reach` on the scale of differences."""
    frame, centre = frame.copy(), scale.contrast(frame["estimate"].to_numpy())
    frame.iloc[:, -2], frame.iloc[:, -1] = scale.report(np.stack([centre - reach, centre + reach]))
    frame.insert(4, "adjusted P", p)
    return frame


def simultaneous_frame(records: Sequence[FitRecord], names: Sequence[str], adjust: str, alpha: float) -> pd.DataFrame:
    """Effects of several fits to the same rows with adjusted p-values and simultaneous intervals.

    Parameters
    ----------
    records : sequence of FitRecord
        Fits of the same rows, weights and clusters, such as of several outcomes.
    names : sequence of str
        What each of them is called.
    adjust : str
        One of `ADJUSTMENTS`.
    alpha : float
        Significance level.

    Returns
    -------
    DataFrame
        A row a fit and effect. The correlations are those of the influence functions, the standard errors the fits'
        own.
    """
    first = records[0]
    influence = np.concatenate([_effects_influence(record, first) for record in records], axis=1)
    errors = np.concatenate([contrast_errors(record) for record in records])
    covariance, df = influence_covariance(first, influence), min(record.df for record in records)
    with np.errstate(invalid="ignore", divide="ignore"):  # no correlation where there is no sampling error
        covariance = covariance * np.outer(*[errors / np.sqrt(np.diag(covariance))] * 2)
    frames, ends = [], np.cumsum([len(record.effect_names) for record in records])
    for record, name in zip(records, names, strict=True):
        count, scale = len(record.effect_names), record.options.effect_scale
        index = pd.MultiIndex.from_product([[name], record.effect_names], names=["fit", "effect"])
        effects, se = record.estimate.params[:count], record.std_errors[:count]
        frames.append(inference_frame(effects, se, alpha, index, scale, contrast_errors(record), df=df))
    statistic = np.concatenate([frame.iloc[:, 2] for frame in frames])
    p, critical = adjusted(statistic, covariance, adjust, alpha, df)
    parts = zip(frames, records, np.split(p, ends[:-1]), np.split(critical * errors, ends[:-1]), strict=True)
    return pd.concat(
        [_with_adjustment(frame, own, reach, record.options.effect_scale) for frame, record, own, reach in parts]
    )


def _effects_influence(record: FitRecord, first: FitRecord) -> Array:
    """Influence function of a fit's effects, rows in the order of the first fit's sample, which has to be the same."""
    if isinstance(record.design, ScannedDesign):
        raise by_rows("simultaneous")
    one, other = record.design, first.design
    same = one.index.equals(other.index) and (record.frame is None) == (first.frame is None)
    same = same and np.array_equal(one.weights, other.weights) and one.weight_type == other.weight_type
    for own, of_first in ((one.cluster, other.cluster), (one.second_cluster, other.second_cluster)):
        same = same and (own is of_first if own is None or of_first is None else np.array_equal(own, of_first))
    survey, other_survey = one.survey, other.survey
    if survey is None or other_survey is None:
        same = same and survey is other_survey
    else:
        same = same and survey.call == other_survey.call and np.array_equal(survey.stratum, other_survey.stratum)
    if not same:
        raise DesignError(
            f"the fits of {one.endog_name!r} and {other.endog_name!r} differ in their rows, weights or clusters; "
            "expected fits to the same rows, whose estimates have known correlations.\n"
            f"Type  data=data.dropna(subset=[{other.endog_name!r}, {one.endog_name!r}])  in both models."
        )
    values, order = record.estimate.influence[:, : len(record.effect_names)], first.sample.order
    if np.array_equal(record.sample.order, order):
        return values
    return np.asarray(record.sample.restore(values)[order])
