"""Tests of linear combinations and functions of estimates, and of equivalence.

Combinations and functions of ratios are tested on the reported scale, equivalence of ratios on the log scale.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtr

from causalrisk.design.formulas import linear_constraint
from causalrisk.errors import OptionError, check_alpha, is_number
from causalrisk.estimation.record import FitRecord
from causalrisk.estimation.specification import DIFFERENCE, EffectScale
from causalrisk.inference import intervals
from causalrisk.numerics.arrays import Array

# --- linear hypotheses -----------------------------------------------------------------------------------------------


def linear_hypotheses(r_matrix: Any, names: Sequence[str]) -> tuple[Array, Array]:
    """Parse j hypotheses R params = q, given as text, a matrix R or a pair (R, q). Return R (j, d) and q (j,)."""
    if isinstance(r_matrix, list | tuple) and r_matrix and all(isinstance(text, str) for text in r_matrix):
        r_matrix = ", ".join(r_matrix)
    if isinstance(r_matrix, str):
        without_names = re.sub("|".join(re.escape(name) for name in names), "", r_matrix)
        if found := re.search("[<>≤≥]=?", without_names):
            side, limit = "low" if found[0][0] in ">≥" else "high", re.search(r"-?\b[\d.]+$", r_matrix.strip())
            advice = f"For a one-sided test, use `res.equivalence_test({side}={limit[0] if limit else 0})`."
            raise OptionError(f"{r_matrix!r} has the sign {found[0]}; expected =.\n{advice}")
        return linear_constraint(names, r_matrix)
    left, right = r_matrix if isinstance(r_matrix, tuple) and len(r_matrix) == 2 else (r_matrix, 0.0)
    try:
        matrix = np.atleast_2d(np.asarray(left, dtype=float))
        right = np.broadcast_to(np.asarray(right, dtype=float), len(matrix))
    except (TypeError, ValueError):
        problem = "the hypotheses are neither text, nor a matrix R, nor a pair (R, q) of a matrix and a number per row"
        raise OptionError(f'{problem}.\nUse `"{names[0]} = 0"`, for example.') from None
    if matrix.ndim > 2 or matrix.shape[1] != len(names):
        raise OptionError(f"the matrix has {matrix.shape[1]} columns; expected {len(names)}, for {', '.join(names)}.")
    return matrix, right


def combination_errors(record: FitRecord, left: Array) -> Array:
    """Return standard errors (j,) of linear combinations of `params`. Each row of `left` (j, d) is a combination."""
    # Rounding may leave the variance of a combination without sampling error just below zero.
    return np.sqrt(np.clip(np.diag(intervals.covariance_of(left, intervals.parameter_covariance(record))), 0, None))


def single_tests(effect: Array, null: Array, sd: Array, df: Array | float, names: list[str] | None = None) -> Any:
    """Return z or t tests of estimates, as a statsmodels ContrastResults."""
    from statsmodels.stats.contrast import ContrastResults

    ratios, _ = intervals.ratio_and_p(effect, sd, null)
    tests = {"t": ratios, "df_denom": df} if np.isfinite(df).any() else {"statistic": ratios, "distribution": "norm"}
    found = ContrastResults(effect=effect, sd=sd, **tests)
    found.c_names = names or found.c_names
    return found


def wald_test(record: FitRecord, r_matrix: Any) -> Any:
    """Test linear combinations of `params` jointly.

    Parameters
    ----------
    r_matrix : str, array_like, or tuple
        As in `t_test`.

    Returns
    -------
    statsmodels.stats.contrast.ContrastResults
        Chi-squared test, or F test if the fit uses the t distribution (``fit(use_t=True)``). Effects are functions
        of the group means, so combinations may be redundant. The degrees of freedom do not count redundant ones.

    Notes
    -----
    Ratios are tested on their own scale, as in `t_test`.

    With robust errors, the joint test of several effects rejects too often in small samples. In a simulation with three
    groups and a misspecified outcome model, a test at 5% rejected in 18 to 25% of samples of 100 rows, and in 14 to 19%
    of samples of 300 rows. With ``fit(cov_type="jackknife", use_t=True)`` the test rejected in 6 to 7% of samples of
    100 rows. Use these options with a few hundred rows or fewer. "What the standard errors are worth" in the
    documentation has the table.
    """
    left, right = linear_hypotheses(r_matrix, record.names)
    params, covariance = record.estimate.params, intervals.parameter_covariance(record)
    statistic, count, impossible = intervals.wald_statistic(left, right, params, covariance)
    if impossible:
        raise OptionError("the hypotheses cannot all be true.\nLeave one out.")
    return intervals.joint_test(statistic, count, record.df)


def t_test(record: FitRecord, r_matrix: Any) -> Any:
    """Test linear combinations of `params`, one at a time.

    Parameters
    ----------
    r_matrix : str, array_like, or tuple
        As in statsmodels: text such as "POM[1] - POM[0] = 0", with commas between several combinations; a matrix R with
        one column per parameter; or a pair (R, q) for R params = q.

    Returns
    -------
    statsmodels.stats.contrast.ContrastResults
        Estimates, two-sided tests and intervals.

    Raises
    ------
    OptionError
        If the text contains an inequality sign such as >.

    See Also
    --------
    equivalence_test : One-sided tests, and tests that an estimate lies between two limits.

    Notes
    -----
    Ratios are tested on their own scale, by the delta method. To test for no effect, use "ATE ratio = 1"; a matrix
    alone tests against 0. The summary tests the logarithm, which is closer to normal, so its p-value differs.

    Examples
    --------
    >>> from causalrisk import IPWRA, datasets
    >>> births = datasets.load_cattaneo2()
    >>> res = IPWRA.from_formula(
    ...     "bweight ~ mage + medu", births, treat="mbsmoke"
    ... ).fit()
    >>> test = res.t_test("ATE = -200")
    >>> print(f"z = {test.tvalue[0]:.2f}, p = {test.pvalue:.4f}")
    z = -2.33, p = 0.0197
    """
    left, right = linear_hypotheses(r_matrix, record.names)
    return single_tests(left @ record.estimate.params, right, combination_errors(record, left), record.df)


def combination_text(row: Array, names: Sequence[str]) -> str:
    """Return the text of a linear combination of named parameters, such as "ATE[b] - ATE[a]"."""
    parts = [
        f"{'-' if weight < 0 else '+'} {'' if abs(weight) == 1 else f'{abs(weight):.6g}*'}{name}"
        for weight, name in zip(row, names, strict=True)
        if weight
    ]
    text = " ".join(parts).removeprefix("+ ")
    return f"-{text[2:]}" if text.startswith("- ") else text or "0"


# --- nonlinear functions ---------------------------------------------------------------------------------------------

FUNCTIONS = {"__builtins__": {}, "log": np.log, "exp": np.exp, "sqrt": np.sqrt}
ALLOWED = re.compile(r"[\w\s.+\-*/()]+")  # characters of an expression
WHOLE = re.compile(r"(?<![\w.])(?<![eE][+-])\d+(?![\w.])")  # read as floats: exact powers can be huge

SHIFTED = 1e-6  # if all arm means shift, a larger relative change shows that an expression depends on their level


class Expressions:
    """Parsed expressions of d named parameters, separated by commas. "= value" states the null value of a test.

    `texts` has the m expressions without their null values. `null` (m,) has the null values.
    """

    def __init__(self, text: Any, names: Sequence[str]) -> None:
        if isinstance(text, list | tuple):
            text = ", ".join(map(str, text))
        if not isinstance(text, str):
            raise OptionError(f'{text!r} is not text.\nUse `res.nlcom("{names[-1]} / {names[-2]}")`, for example.')
        self.text, self.names = text, names
        found = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
        coded = re.sub(rf"(?<!\w)(?:{found})(?!\w)", lambda name: f"parameter_{names.index(name[0])}_", text)
        self.texts, self.codes, self.null = [], [], np.zeros(coded.count(",") + 1)
        for j, part in enumerate(coded.replace("^", "**").split(",")):
            left, equal, right = part.partition("=")
            shown = part
            if equal and "parameter_" not in right:
                self.null[j], shown = self._value(right, np.empty(0)), left
            elif equal:
                left = f"({left}) - ({right})"
            self.codes.append(left)
            self.texts.append(re.sub(r"parameter_(\d+)_", lambda match: names[int(match[1])], shown).strip())

    def values_at(self, params: Array) -> Array:
        """Return the values, shape (m,), at parameters of shape (d,)."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return np.array([self._value(code, params) for code in self.codes])

    def _value(self, side: str, params: Array) -> Any:
        """Evaluate an expression. Names or characters that are not allowed raise an OptionError."""
        values, cause = {f"parameter_{k}_": value for k, value in enumerate(params)}, None
        try:
            code = compile(WHOLE.sub(r"\g<0>.", side.strip()), "expression", "eval")
            if ALLOWED.fullmatch(side) and {*FUNCTIONS, *values}.issuperset(code.co_names):
                return eval(code, FUNCTIONS, values)
        except (SyntaxError, ArithmeticError, TypeError) as error:
            cause = error
        known = f"numbers, + - * / **, log, exp, sqrt and the names {', '.join(self.names)}"
        use = f'Use `res.nlcom("{" / ".join(self.names[:-3:-1])}")`, for example.'
        raise OptionError(f"cannot read the expression {self.text!r}; expected {known}.\n{use}") from cause


def nlcom(record: FitRecord, expression: str) -> Any:
    """Estimate nonlinear functions of `params`, with standard errors by the delta method.

    Parameters
    ----------
    expression : str
        An expression such as "POM[1] / POM[0] - 1", or several separated by commas. It may contain numbers, names of
        `params`, + - * / ** and log, exp, sqrt. "= value" sets the null hypothesis, by default 0.

    Returns
    -------
    statsmodels.stats.contrast.ContrastResults
        Estimates, tests and intervals, as in `t_test`. `summary()` shows the expressions.

    Raises
    ------
    OptionError
        If the expression cannot be read, or has no value at the estimates. For JRE, also if the expression changes when
        all group means shift, because JRE estimates only effects.

    Examples
    --------
    >>> from causalrisk import IPWRA, datasets
    >>> births = datasets.load_cattaneo2()
    >>> res = IPWRA.from_formula(
    ...     "bweight ~ mage + medu", births, treat="mbsmoke"
    ... ).fit()
    >>> change = res.nlcom("POM[1] / POM[0] - 1")
    >>> print(f"{change.effect[0]:.4f} ({change.sd[0]:.4f})")
    -0.0754 (0.0071)
    """
    from statsmodels.stats._delta_method import NonlinearDeltaCov

    wanted, params = Expressions(expression, record.names), record.estimate.params
    values = wanted.values_at(params)
    if not np.isfinite(values).all():
        text = wanted.texts[int(np.argmin(np.isfinite(values)))]
        advice = "Avoid division by zero, and logarithms and roots of negative numbers."
        raise OptionError(f"{text!r} has no finite value at the estimates.\n{advice}")
    if record.joint is not None:
        _check_of_effect(record, wanted, values)
    sd = NonlinearDeltaCov(wanted.values_at, params, intervals.parameter_covariance(record)).se_vectorized()
    return single_tests(values, wanted.null, intervals.rounded_se(np.r_[values, params], sd), record.df, wanted.texts)


def _check_of_effect(record: FitRecord, wanted: Expressions, values: Array) -> None:
    """Raise an error for an expression that changes if all arm means shift together. JRE estimates only effects."""
    scale, params, first = record.options.effect_scale, record.estimate.params, len(record.effect_names)
    on_scale = scale.g(params[first:])
    by = 0.1 if np.isfinite(scale.low) else max(float(np.abs(on_scale).max()), 1e-3)
    moved = np.r_[params[:first], scale.g_inverse(on_scale + by)]
    if not np.allclose(wanted.values_at(moved), values, rtol=SHIFTED, atol=0):
        instead = 'Use `model.with_options(effect="ratio").fit()`, or `res.start.nlcom(...)`.'
        raise OptionError(f"{wanted.text!r} depends on the means, but only the effect of JRE is valid.\n{instead}")


# --- equivalence -----------------------------------------------------------------------------------------------------


def equivalence_table(
    names: Sequence[str], estimates: intervals.Estimates, low: float | None, high: float | None, alpha: float
) -> pd.DataFrame:
    """Return the table of `equivalence_test` for the named estimates."""
    check_alpha(alpha)
    _check_limits(low, high, estimates.scale if np.any(estimates.effects) else DIFFERENCE)
    letter, pvalues = intervals.statistic_names(estimates.df)[0], []
    columns = {"estimate": estimates.values, "std err": estimates.se}
    errors = np.where(estimates.se > 0, estimates.errors, np.nan)
    for sign, limit in ((">", low), ("<", high)):
        if limit is not None:
            reached = estimates.contrast(np.full(len(errors), float(limit)))
            statistic = (estimates.contrast(estimates.values) - reached) / errors
            pvalues.append(stdtr(estimates.df, -statistic if sign == ">" else statistic))
            columns |= {f"{letter} ({sign} {limit:.6g})": statistic, f"P ({sign} {limit:.6g})": pvalues[-1]}
    columns["P"] = np.max(pvalues, axis=0)
    columns |= dict(zip(intervals.limit_names(2 * alpha), estimates.limits(2 * alpha).T, strict=True))
    return pd.DataFrame({**columns, "shown": columns["P"] < alpha}, index=list(names))


def equivalence_test(
    record: FitRecord, low: float | None = None, high: float | None = None, r_matrix: Any = None, alpha: float = 0.05
) -> pd.DataFrame:
    """Test that effects lie between two limits (equivalence), or beyond one limit (non-inferiority).

    Parameters
    ----------
    low, high : float, optional
        Limits on the reported scale, such as 0.8 and 1.25 for a ratio. With only one limit, the test is of
        non-inferiority: the effect lies above `low`, or below `high`.
    r_matrix : str or array_like, optional
        Linear combinations, as in `t_test`; by default all effects.
    alpha : float, default 0.05
        Significance level of each of the two one-sided tests.

    Returns
    -------
    DataFrame
        One row per estimate: estimate, std err, the statistic and p-value for each limit, the larger p-value "P", the
        interval of level 1 - 2 alpha, and "shown", whether the test shows that the effect lies between the limits.

    Raises
    ------
    OptionError
        If no limit is given, the limits are not ascending numbers, a limit is not possible for a ratio, or `r_matrix`
        states a null value.

    Notes
    -----
    These are the two one-sided tests of Schuirmann [1]_. Equivalence is shown if both tests reject or, equivalently, if
    the interval of level 1 - 2 alpha lies between the limits. Ratios, odds ratios and percentages are tested on the
    logarithmic scale, as in the summary. If every effect passes at level alpha, joint equivalence is shown at
    level alpha. To claim equivalence of only some effects, adjust their p-values for multiple testing.

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
    >>> test[["P", "[0.05", "0.95]", "shown"]].round(4)
              P     [0.05     0.95]  shown
    ATE  0.0146 -296.9607 -216.7671   True
    """
    params, count = record.estimate.params, len(record.effect_names)
    left = np.eye(len(params))[:count]
    if r_matrix is not None:
        left, right = linear_hypotheses(r_matrix, record.names)
        if (right != 0).any():
            found = f"r_matrix={r_matrix!r} sets a value; expected only parameters, such as {record.names[0]!r}"
            raise OptionError(f"{found}.\nUse `low=` and `high=` for the limits.")
    values = left @ params
    sd = intervals.rounded_se(np.r_[values, params], combination_errors(record, left))
    # A single ratio is tested on the log scale, a combination of parameters on the reported scale.
    alone = (np.count_nonzero(left, axis=1) == 1) & (left[:, :count].max(axis=1, initial=0) == 1)
    errors = np.where(alone, intervals.contrast_errors(record)[left[:, :count].argmax(axis=1)], sd)
    estimates = intervals.Estimates(values, sd, errors, record.options.effect_scale, alone, record.df)
    return equivalence_table([combination_text(row, record.names) for row in left], estimates, low, high, alpha)


def _check_limits(low: Any, high: Any, scale: EffectScale) -> None:
    given = [value for value in (low, high) if value is not None]
    plain = all(map(is_number, given))
    with np.errstate(invalid="ignore", divide="ignore"):
        allowed = plain and np.isfinite(scale.contrast(np.array(given, dtype=float))).all()
    if not given or not allowed or (len(given) == 2 and not low < high):
        example = (0.8, 1.25) if scale.null else (-10, 10)
        instead = f"Use `res.equivalence_test(low={example[0]}, high={example[1]})`."
        raise OptionError(f'low={low!r}, high={high!r} are not valid limits for effect="{scale.name}".\n{instead}')
