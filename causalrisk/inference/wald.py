"""Normal tests and intervals from standard errors, on the scale on which an effect is a difference.

A ratio is tested and has its interval as a logarithm, so that both turn over when the arms are swapped; the limits
are exactly the transformed limits of the logarithm.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri

from causalrisk.estimators.effect_scales import DIFFERENCE, EffectScale
from causalrisk.estimators.record import SE_ROUNDING, FitRecord
from causalrisk.inference.bootstrap import resample_errors
from causalrisk.numerics.linalg import Array


def normal_interval(estimate: Array, se: Array, alpha: float) -> Array:
    """Estimate -+ z(1 - alpha / 2) standard errors, shape (d, 2)."""
    half = ndtri(1 - alpha / 2) * se
    return np.column_stack([estimate - half, estimate + half])


def z_and_p(values: Array, se: Array, null: Array | float = 0.0) -> tuple[Array, Array]:
    """Return z statistics against the null and two-sided p-values; NaN where the standard error is zero to rounding."""
    rounded = rounded_se(values, se)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(rounded > 0, (values - null) / rounded, np.nan)
    return z, 2 * ndtr(-np.abs(z))


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


def effect_tests(effects: Array, se: Array, errors: Array, scale: EffectScale) -> tuple[Array, Array]:
    """Return z statistics against no effect and two-sided p-values.

    Parameters
    ----------
    effects, se : ndarray, shape (d,)
        Effects as they are reported, and their standard errors.
    errors : ndarray, shape (d,)
        Standard errors on the scale where effects are differences.
    scale : EffectScale
        Scale on which they are reported.

    Returns
    -------
    z, p : ndarray, shape (d,)
        NaN where the standard error is zero to rounding.
    """
    return z_and_p(scale.contrast(effects), np.where(rounded_se(effects, se) > 0, errors, 0.0))


def effect_interval(effects: Array, errors: Array, scale: EffectScale, alpha: float) -> Array:
    """Limits of effects, shape (d, 2): normal limits on the scale where effects are differences, transformed."""
    return np.asarray(scale.report(normal_interval(scale.contrast(effects), errors, alpha)))


def parameter_tests(record: FitRecord) -> tuple[Array, Array]:
    """Return z statistics and two-sided p-values of `params`: of the effects on their scale, of the means against 0."""
    count, params, se = len(record.effect_names), record.estimate.params, record.std_errors
    kept = rounded_se(params, se)  # against the largest of all parameters
    effects = effect_tests(params[:count], kept[:count], contrast_errors(record), record.options.effect_scale)
    means = z_and_p(params[count:], kept[count:])
    return np.concatenate([effects[0], means[0]]), np.concatenate([effects[1], means[1]])


def parameter_limits(record: FitRecord, alpha: float) -> Array:
    """Return normal intervals of `params`, shape (2 K - 1, 2); of the effects transformed from their scale."""
    count, params = len(record.effect_names), record.estimate.params
    effects = effect_interval(params[:count], contrast_errors(record), record.options.effect_scale, alpha)
    return np.concatenate([effects, normal_interval(params[count:], record.std_errors[count:], alpha)])


def delta_tests(record: FitRecord) -> tuple[Array, Array]:
    """Return z statistics and two-sided p-values of `params` on the reported scale."""
    return z_and_p(record.estimate.params, record.std_errors, record.null)


def inference_frame(
    values: Array,
    se: Array,
    alpha: float,
    index: pd.Index,
    scale: EffectScale = DIFFERENCE,
    errors: Array | None = None,
) -> pd.DataFrame:
    """Return estimates with standard errors, z tests and normal intervals, under the summary's names.

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

    Returns
    -------
    DataFrame
        A row an estimate.
    """
    errors = delta_errors(values, se, scale) if errors is None else errors
    z, p = effect_tests(values, se, errors, scale)
    limits = effect_interval(values, errors, scale, alpha)
    names = ["estimate", "std err", "z", "P>|z|", f"[{alpha / 2:.4g}", f"{1 - alpha / 2:.4g}]"]
    return pd.DataFrame(np.column_stack([values, se, z, p, limits]), index=index, columns=names)
