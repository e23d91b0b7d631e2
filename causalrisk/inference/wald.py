"""Wald tests and intervals of estimates, and tables of them.

A ratio is tested and has its interval as a logarithm, so that both turn over when the arms are swapped; the limits
are exactly the transformed limits of the logarithm.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy.special import beta, ndtr, ndtri, stdtr, stdtrit

from causalrisk.estimators.record import SE_ROUNDING, FitRecord
from causalrisk.estimators.specification import DIFFERENCE, EffectScale
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


def limit_names(alpha: float) -> list[str]:
    """Return the names of the columns of the limits of intervals, such as "[0.025" and "0.975]"."""
    return [f"[{alpha / 2:.4g}", f"{1 - alpha / 2:.4g}]"]


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
    names = ["estimate", "std err", *statistic_names(df), *limit_names(alpha)]
    return pd.DataFrame(np.column_stack([values, se, *tests, limits]), index=index, columns=names)


NEGLIGIBLE = 1e-12  # variance of a combination, in those of its parameters, that rounding makes of none
ROUNDING = 1e-8  # of the parameters, relative


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


def parameter_covariance(record: FitRecord) -> Array:
    """Covariance of the effects and arm means, shape (2 K - 1, 2 K - 1)."""
    count = len(record.names)
    return record.covariance[:count, :count]
