"""Hypotheses of papers: one-sided tests and equivalence.

A test here is a statistic T, an estimate over its standard error, normal or of Student's t with the degrees of freedom
of the fit. One-sided p-values are P(T > t) and P(T < t). Two of them make a test of equivalence.
"""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import stdtr

from causalrisk.errors import OptionError, check_alpha, one_of
from causalrisk.estimators.effect_scales import EffectScale
from causalrisk.estimators.record import FitRecord
from causalrisk.estimators.values import Alternative
from causalrisk.inference import wald
from causalrisk.inference.wald import (
    contrast_errors,
    linear_hypotheses,
    parameter_covariance,
    rounded_se,
    statistic_names,
    upper_quantile,
)
from causalrisk.numerics.linalg import Array

ALTERNATIVES = {"larger": ">", "smaller": "<"}


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
