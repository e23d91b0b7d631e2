"""Wald tests and intervals: of estimates, of linear hypotheses, and of nonlinear functions by the delta method.

A ratio is tested and has its interval as a logarithm, so that both turn over when the arms are swapped; the limits
are exactly the transformed limits of the logarithm.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import beta, ndtr, ndtri, stdtr, stdtrit

from causalrisk.design import linear_constraint
from causalrisk.errors import OptionError, listed
from causalrisk.estimators.effect_scales import DIFFERENCE, EffectScale
from causalrisk.estimators.record import SE_ROUNDING, FitRecord
from causalrisk.inference.bootstrap import resample_errors
from causalrisk.numerics.linalg import Array


def critical_value(alpha: float, df: Array | float = np.inf) -> Array:
    """Return the two-sided quantile of Student's t; of infinite degrees of freedom that of the normal distribution."""
    finite = np.where(np.isinf(df), 1.0, df)
    quantile = np.asarray(stdtrit(finite, 1 - alpha / 2))
    for _ in range(2):  # Newton steps on the distribution function: older versions of scipy have eight digits
        quantile = quantile + (stdtr(finite, -quantile) - alpha / 2) / _t_density(quantile, finite)
    return np.where(np.isinf(df), ndtri(1 - alpha / 2), quantile)


def upper_quantile(level: float, df: float) -> float:
    """Return what T exceeds with probability `level`; of the normal distribution for infinite df."""
    return float(critical_value(2 * level, df))


def _t_density(values: Array, df: Array) -> Array:
    return np.asarray(np.exp(-(df + 1) / 2 * np.log1p(values**2 / df)) / (np.sqrt(df) * beta(0.5, df / 2)))


def two_sided(statistics: Array, df: Array | float = np.inf) -> Array:
    """Return two-sided p-values by Student's t; of infinite degrees of freedom by the normal distribution."""
    below, finite = -np.abs(statistics), np.where(np.isinf(df), 1.0, df)
    return np.asarray(2 * np.where(np.isinf(df), ndtr(below), stdtr(finite, below)))


def wald_interval(estimate: Array, se: Array, alpha: float, df: Array | float = np.inf) -> Array:
    """Estimate -+ so many standard errors as the critical value says, shape (d, 2)."""
    half = critical_value(alpha, df) * se
    return np.column_stack([estimate - half, estimate + half])


def ratio_and_p(values: Array, se: Array, null: Array | float = 0.0, df: Array | float = np.inf) -> tuple[Array, Array]:
    """Return statistics z, or t, against the null and two-sided p-values; NaN where the error is zero to rounding."""
    rounded = rounded_se(values, se)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(rounded > 0, (values - null) / rounded, np.nan)
    return ratios, two_sided(ratios, df)


def statistic_names(df: Array | float) -> list[str]:
    """Return the names of the columns of a test: of z, or where degrees of freedom are finite of t."""
    return ["t", "P>|t|"] if np.isfinite(df).all() else ["z", "P>|z|"]


def rounded_se(values: Array, se: Array) -> Array:
    """Return the standard errors, zero where they are below the rounding error of the estimates."""
    return np.where(se <= SE_ROUNDING * np.abs(values).max(initial=0), 0.0, se)


def delta_errors(effects: Array, se: Array, scale: EffectScale) -> Array:
    """Return standard errors on the scale where effects are differences, by the delta method.

    Parameters
    ----------
    effects, se : ndarray, shape (d,)
        Effects as they are reported, and their standard errors.
    scale : EffectScale
        Scale on which they are reported.

    Returns
    -------
    ndarray, shape (d,)
        Standard errors; of a ratio, of its logarithm.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(se / scale.report_slope(scale.contrast(effects)))


def contrast_errors(record: FitRecord) -> Array:
    """Return standard errors of a fit's effects on the scale where they are differences, shape (K - 1,).

    After a bootstrap they are errors of the resamples' transformed effects, else from the delta method.
    """
    scale, count = record.options.effect_scale, len(record.effect_names)
    if record.boot is None or scale is DIFFERENCE:
        return delta_errors(record.estimate.params[:count], record.std_errors[:count], scale)
    effects, resampled = record.estimate.params[:count], record.boot.used[:, :count]
    return resample_errors(record, scale.contrast(resampled), scale.contrast(effects))


def effect_tests(
    effects: Array, se: Array, errors: Array, scale: EffectScale, df: Array | float = np.inf
) -> tuple[Array, Array]:
    """Return statistics z, or t, against no effect and two-sided p-values.

    Parameters
    ----------
    effects, se : ndarray, shape (d,)
        Effects as they are reported, and their standard errors.
    errors : ndarray, shape (d,)
        Standard errors on the scale where effects are differences.
    scale : EffectScale
        Scale on which they are reported.
    df : float or ndarray, shape (d,)
        Degrees of freedom; infinite for the normal distribution.

    Returns
    -------
    statistics, p : ndarray, shape (d,)
        NaN where the standard error is zero to rounding.
    """
    return ratio_and_p(scale.contrast(effects), np.where(rounded_se(effects, se) > 0, errors, 0.0), df=df)


def effect_interval(
    effects: Array, errors: Array, scale: EffectScale, alpha: float, df: Array | float = np.inf
) -> Array:
    """Limits of effects, shape (d, 2): limits on the scale where effects are differences, transformed."""
    return np.asarray(scale.report(wald_interval(scale.contrast(effects), errors, alpha, df)))


def parameter_tests(record: FitRecord) -> tuple[Array, Array]:
    """Return statistics and two-sided p-values of `params`: of the effects on their scale, of the means against 0."""
    count, params, se = len(record.effect_names), record.estimate.params, record.std_errors
    kept = rounded_se(params, se)  # against the largest of all parameters
    scale = record.options.effect_scale
    effects = effect_tests(params[:count], kept[:count], contrast_errors(record), scale, record.df)
    means = ratio_and_p(params[count:], kept[count:], df=record.df)
    return np.concatenate([effects[0], means[0]]), np.concatenate([effects[1], means[1]])


def parameter_limits(record: FitRecord, alpha: float) -> Array:
    """Return intervals of `params` by standard errors, shape (2 K - 1, 2); effects' transformed from their scale."""
    count, params, scale = len(record.effect_names), record.estimate.params, record.options.effect_scale
    effects = effect_interval(params[:count], contrast_errors(record), scale, alpha, record.df)
    return np.concatenate([effects, wald_interval(params[count:], record.std_errors[count:], alpha, record.df)])


def delta_tests(record: FitRecord) -> tuple[Array, Array]:
    """Return statistics and two-sided p-values of `params` on the reported scale."""
    return ratio_and_p(record.estimate.params, record.std_errors, record.null, record.df)


def inference_frame(
    values: Array,
    se: Array,
    alpha: float,
    index: pd.Index,
    scale: EffectScale = DIFFERENCE,
    errors: Array | None = None,
    df: Array | float = np.inf,
) -> pd.DataFrame:
    """Return estimates with standard errors, tests and intervals, under the summary's names.

    Parameters
    ----------
    values, se : ndarray, shape (d,)
        Effects as they are reported, and their standard errors.
    alpha : float
        Significance level of the intervals.
    index : Index
        Names of the rows.
    scale : EffectScale
        Scale on which they are reported.
    errors : ndarray, shape (d,), optional
        Standard errors on the scale where effects are differences; by default from the delta method.
    df : float or ndarray, shape (d,)
        Degrees of freedom; infinite for the normal distribution.

    Returns
    -------
    DataFrame
        A row an estimate; columns estimate, std err, z and P>|z| or t and P>|t|, and the limits.
    """
    errors = delta_errors(values, se, scale) if errors is None else errors
    tests = effect_tests(values, se, errors, scale, df)
    limits = effect_interval(values, errors, scale, alpha, df)
    names = ["estimate", "std err", *statistic_names(df), f"[{alpha / 2:.4g}", f"{1 - alpha / 2:.4g}]"]
    return pd.DataFrame(np.column_stack([values, se, *tests, limits]), index=index, columns=names)


NEGLIGIBLE = 1e-12  # variance of a combination, in those of its parameters, that rounding makes of none
ROUNDING = 1e-8  # of the parameters, relative


def linear_hypotheses(r_matrix: Any, names: Sequence[str]) -> tuple[Array, Array]:
    """Turn one or more texts, a matrix R, or a pair (R, q) into R, shape (j, d), and q, shape (j,), of R params = q."""
    if isinstance(r_matrix, list) and r_matrix and all(isinstance(text, str) for text in r_matrix):
        r_matrix = ", ".join(r_matrix)
    if isinstance(r_matrix, str):
        _check_without_direction(r_matrix, names)
        return linear_constraint(names, r_matrix)
    left, right = r_matrix if isinstance(r_matrix, tuple) and len(r_matrix) == 2 else (r_matrix, 0.0)
    matrix = np.atleast_2d(np.asarray(left, dtype=float))
    if matrix.shape[1] != len(names):
        raise OptionError(
            f"the matrix has {matrix.shape[1]} columns; expected {len(names)}, one for each of {', '.join(names)}.\n"
            f'Type  res.t_test("{names[-1]} - {names[-2]}").'
        )
    return matrix, np.broadcast_to(np.asarray(right, dtype=float), len(matrix))


def _check_without_direction(text: str, names: Sequence[str]) -> None:
    """Refuse a hypothesis with a sign such as >, which is no part of the name of a parameter."""
    known = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    hidden = re.sub(known, lambda name: "_" * len(name[0]), text)
    found = re.search("[<>≤≥]=?", hidden)
    if found is None:
        return
    start, stop = hidden.rfind(",", 0, found.start()) + 1, hidden.find(",", found.end())
    left, right = text[start : found.start()].strip(), text[found.end() : None if stop < 0 else stop].strip()
    side = "smaller" if found[0][0] in "<≤" else "larger"
    raise OptionError(
        f"the hypothesis {text!r} has the sign {found[0]}; expected an equation, and beside it which side is to be "
        f'shown.\nType  res.t_test("{left} = {right}", alternative="{side}").'
    )


def _single_tests(effect: Array, null: Array, sd: Array, df: float) -> Any:
    """Return z tests of estimates, or with degrees of freedom t tests, as statsmodels has them."""
    from statsmodels.stats.contrast import ContrastResults

    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(sd > 0, (effect - null) / sd, np.nan)
    if np.isfinite(df):
        return ContrastResults(effect=effect, t=ratios, sd=sd, df_denom=df)
    return ContrastResults(effect=effect, statistic=ratios, sd=sd, distribution="norm")


def wald_statistic(left: Array, right: Array, params: Array, covariance: Array) -> tuple[float, int, bool]:
    """Return Wald's statistic of R params = q, its degrees of freedom, and whether it is impossible.

    Combinations are measured in the standard errors of their parameters, so that units do not matter. One that has no
    sampling error beside these tells nothing that the others do not, and is left out; the hypotheses are impossible if
    the estimates contradict it.
    """
    parameters, tried = np.sqrt(np.clip(np.diag(covariance), 0, None)), np.abs(left)
    size, level = tried @ parameters, tried @ np.abs(params)
    size = np.where(size > SE_ROUNDING * level, size, np.where(level > 0, level, 1.0))
    values, vectors = np.linalg.eigh(left @ covariance @ left.T / np.outer(size, size))
    kept = values > NEGLIGIBLE
    projected = vectors.T @ ((left @ params - right) / size)
    rounding = 10 * np.sqrt(NEGLIGIBLE) + ROUNDING * (level / size).max()
    statistic = float((projected[kept] ** 2 / values[kept]).sum())
    return statistic, int(kept.sum()), bool((np.abs(projected[~kept]) > rounding).any())


def joint_test(statistic: float, count: int, df: float = np.inf) -> Any:
    """Return Wald's test as statsmodels has it.

    Parameters
    ----------
    statistic : float
        Wald's statistic.
    count : int
        Number j of hypotheses, redundant ones aside.
    df : float
        Degrees of freedom of the covariance.

    Returns
    -------
    statsmodels.stats.contrast.ContrastResults
        Chi-squared test of the statistic with j degrees of freedom; F test of statistic / j with j and `df` where
        these are finite.
    """
    from statsmodels.stats.contrast import ContrastResults

    if np.isfinite(df) and count:
        return ContrastResults(F=np.array([[statistic / count]]), df_num=count, df_denom=df)
    return ContrastResults(statistic=np.array([[statistic]]), df_denom=count, distribution="chi2")


def t_test(record: FitRecord, r_matrix: Any) -> Any:
    """Return two-sided tests of linear combinations of `params`; `hypotheses.t_test` is the public one."""
    left, right = linear_hypotheses(r_matrix, record.names)
    # Rounding may leave the variance of an exact combination just below zero.
    variance = np.clip(np.einsum("jd,de,je->j", left, parameter_covariance(record), left), 0, None)
    return _single_tests(left @ record.estimate.params, right, np.sqrt(variance), record.df)


def wald_test(record: FitRecord, r_matrix: Any) -> Any:
    """Test linear combinations of `params` jointly.

    Parameters
    ----------
    r_matrix : str, array_like, or tuple
        As in `t_test`.

    Returns
    -------
    statsmodels.stats.contrast.ContrastResults
        Chi-squared test; where the fit has degrees of freedom (``fit(use_t=True)``) an F test. Since the effect is a
        difference of the arm means, combinations may be redundant; those that are not are counted.

    Notes
    -----
    With robust errors the joint test of several effects rejects too often in small samples. In a simulation with three
    arms and n = 300 it did in 14 to 19% instead of 5 where the outcome model was wrong and in 8 to 9% where it was
    right; after ``cov_type="bootstrap"`` in 11 to 13% and 6 to 7%, with the jackknife in 9 to 10% and 6%. "What the
    standard errors are worth" in the documentation has the table, and the jackknife.
    """
    left, right = linear_hypotheses(r_matrix, record.names)
    statistic, count, impossible = wald_statistic(left, right, record.estimate.params, parameter_covariance(record))
    if impossible:
        raise OptionError(
            "the hypotheses contradict each other: a combination without sampling error is not what they say.\n"
            'Leave out the redundant one, as in  res.wald_test("ATE = 0").'
        )
    return joint_test(statistic, count, record.df)


def parameter_covariance(record: FitRecord) -> Array:
    """Covariance of the effects and arm means, shape (2 K - 1, 2 K - 1)."""
    count = len(record.names)
    return record.covariance[:count, :count]


OPERATORS: dict[type, Callable[..., Any]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.Pow: np.power,
    ast.USub: np.negative,
    ast.UAdd: np.positive,
}
FUNCTIONS: dict[str, Callable[..., Any]] = {"log": np.log, "exp": np.exp, "sqrt": np.sqrt}
PLACEHOLDER = "parameter_{}_"
TOLD = 1e-6  # relative change of an expression beyond which it depends on the level of the arm means


class Expressions:
    """Expressions of named parameters.

    Parameters
    ----------
    text : str
        One or more, separated by commas; "= value" states the null value of a test.
    names : sequence of str, length d
        Names of the parameters.

    Attributes
    ----------
    texts : list of str, length m
        The expressions as given, without their null values.
    null : ndarray, shape (m,)
        Null values of the tests.
    """

    def __init__(self, text: str, names: Sequence[str]) -> None:
        self.text, self.names = text, names
        ordered = sorted(range(len(names)), key=lambda k: -len(names[k]))
        self.places = {PLACEHOLDER.format(k): k for k in range(len(names))}
        found = "|".join(re.escape(names[k]) for k in ordered)
        position = {name: k for k, name in enumerate(names)}
        coded = re.sub(rf"(?<!\w)(?:{found})(?!\w)", lambda match: PLACEHOLDER.format(position[match[0]]), text)
        self.texts, self.null, self.trees = [], np.zeros(coded.count(",") + 1), []
        for j, part in enumerate(coded.split(",")):
            sides = [self._parsed(side) for side in part.split("=")]
            if len(sides) > 2:
                raise self._unreadable("it has more than one =")
            left = sides[0]
            if len(sides) == 2 and not any(isinstance(node, ast.Name) for node in ast.walk(sides[1])):
                self.null[j] = float(self._value(sides[1], np.empty(0)))
            elif len(sides) == 2:
                left = ast.BinOp(left, ast.Sub(), sides[1])
            shown = part.partition("=")[0] if len(sides) == 2 and left is sides[0] else part
            self.trees.append(left)
            self.texts.append(re.sub(r"parameter_(\d+)_", lambda match: names[int(match[1])], shown).strip())

    def values_at(self, params: Array) -> Array:
        """Values at parameters of shape (d,), shape (m,)."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return np.array([self._value(tree, params) for tree in self.trees])

    def _parsed(self, side: str) -> ast.expr:
        if "^" in side:
            raise self._unreadable("^ is not a power", 'Type  **  for a power, as in  "POM[1]**2".')
        try:
            return ast.parse(side.strip(), mode="eval").body
        except SyntaxError as error:
            raise self._unreadable(error.msg) from error

    def _value(self, node: ast.AST, params: Array) -> Any:
        """Value of a node at the parameters."""
        if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)) and not isinstance(node.value, bool):
            return float(node.value)
        if isinstance(node, ast.Name) and node.id in self.places:
            return params[self.places[node.id]]
        if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
            return OPERATORS[type(node.op)](self._value(node.left, params), self._value(node.right, params))
        if isinstance(node, ast.UnaryOp) and type(node.op) in OPERATORS:
            return OPERATORS[type(node.op)](self._value(node.operand, params))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) == 1 and not node.keywords:
            if node.func.id in FUNCTIONS:
                return FUNCTIONS[node.func.id](self._value(node.args[0], params))
            raise self._unreadable(f"{node.func.id} is no function it knows; expected {listed(tuple(FUNCTIONS))}")
        if isinstance(node, ast.Name):
            raise self._unreadable(f"{node.id!r} is not a parameter")
        raise self._unreadable("expected numbers, parameters, + - * / ** and log, exp, sqrt")

    def _unreadable(self, reason: str, advice: str = "") -> OptionError:
        names = ", ".join(self.names)
        usual = f'The parameters are {names}. Type  "{self.names[-1]} / {self.names[-2]} - 1"  for example.'
        return OptionError(f"cannot read the expression {self.text!r}: {reason}.\n{advice or usual}")


def nlcom(record: FitRecord, expression: str) -> Any:
    """Estimate functions of `params` that need not be linear, with standard errors by the delta method.

    Parameters
    ----------
    expression : str
        Such as "POM[1] / POM[0] - 1", of numbers, names of `params`, + - * / ** and log, exp, sqrt; several separated
        by commas. "= value" says what it is tested against, by default 0.

    Returns
    -------
    statsmodels.stats.contrast.ContrastResults
        Estimates, tests and intervals, as of `t_test`; `summary()` names the expressions.

    Raises
    ------
    OptionError
        If the expression cannot be read, or has no value at the estimates.
    OptionError
        For JRE, if it depends on more than the effect: the arm means are net of a bias that they share.

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
        raise OptionError(
            f"{text!r} has no finite value at the estimates: "
            f"{', '.join(f'{name} = {value:.4g}' for name, value in zip(record.names, params, strict=True))}.\n"
            "Write an expression that has, such as a difference in place of a ratio or logarithm."
        )
    if record.joint is not None:
        _check_of_effect(record, wanted, values)
    sd = NonlinearDeltaCov(wanted.values_at, params, parameter_covariance(record)).se_vectorized()
    found = _single_tests(values, wanted.null, rounded_se(np.r_[values, params], sd), record.df)
    found.c_names = wanted.texts
    return found


def _check_of_effect(record: FitRecord, wanted: Expressions, values: Array) -> None:
    """Refuse an expression that changes as all arm means move together, which leaves a joint fit's effect as it is."""
    scale, params, first = record.options.effect_scale, record.estimate.params, len(record.effect_names)
    on_scale = scale.g(params[first:])
    by = 0.1 if np.isfinite(scale.low) else max(float(np.abs(on_scale).max()), 1e-3)
    moved = np.r_[params[:first], scale.g_inverse(on_scale + by)]
    if not np.allclose(wanted.values_at(moved), values, rtol=TOLD, atol=0):
        raise OptionError(
            f"{wanted.text!r} depends on the level of the arm means, and JRE knows them only up to a bias that they "
            f'share; its effect="{scale.name}" does not depend on it.\n'
            'Choose the scale before the fit:  model.with_options(effect="ratio").fit(),  or type  res.start.nlcom().'
        )
