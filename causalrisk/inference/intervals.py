"""Tests and confidence intervals from a standard error or a bootstrap distribution, and tables of them.

A ratio is tested and has its interval as a logarithm, so that both turn over when the arms are swapped; the limits
are exactly the transformed limits of the logarithm.

Quantiles are interpolated linearly between order statistics (numpy's and scipy's convention, Hyndman and Fan's type 7);
R's `boot.ci` interpolates on the normal scale instead.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import beta, ndtr, ndtri, stdtr, stdtrit

from causalrisk.errors import Failure, OptionError, ResampleWarning, UnavailableError, check_alpha, one_of, warn_user
from causalrisk.estimation.fits import estimate_means, fit_weights, weights_of
from causalrisk.estimation.options import INTERVALS, Interval
from causalrisk.estimation.record import (
    SE_ROUNDING,
    FitRecord,
    counts_equal_rows,
    equal_units,
    robust_covariance,
    sum_within_units,
    unit_influence,
)
from causalrisk.estimation.specification import DIFFERENCE, EffectScale
from causalrisk.inference.covariance import jackknife_contributions, resample_errors
from causalrisk.numerics.linalg import Array
from causalrisk.numerics.multiplicities import RESAMPLE_STREAM, WIDTH


def critical_value(alpha: float, df: Array | float = np.inf) -> Array:
    """Return the two-sided quantile of Student's t; for infinite df of the normal distribution."""
    finite = np.where(np.isinf(df), 1.0, df)
    quantile = np.asarray(stdtrit(finite, 1 - alpha / 2))
    for _ in range(2):  # Newton steps on the distribution function: older versions of scipy have eight digits
        density = np.exp(-(finite + 1) / 2 * np.log1p(quantile**2 / finite)) / (np.sqrt(finite) * beta(0.5, finite / 2))
        quantile = quantile + (stdtr(finite, -quantile) - alpha / 2) / density
    return np.where(np.isinf(df), ndtri(1 - alpha / 2), quantile)


def two_sided(statistics: Array, df: Array | float = np.inf) -> Array:
    """Return two-sided p-values of Student's t; for infinite df of the normal distribution."""
    return np.asarray(2 * stdtr(df, -np.abs(statistics)))


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
    """Return the column names of a test: t for finite degrees of freedom, else z."""
    return ["t", "P>|t|"] if np.isfinite(df).all() else ["z", "P>|z|"]


def limit_names(alpha: float) -> list[str]:
    """Return the column names of interval limits, such as "[0.025" and "0.975]"."""
    return [f"[{alpha / 2:.4g}", f"{1 - alpha / 2:.4g}]"]


def rounded_se(values: Array, se: Array) -> Array:
    """Return the standard errors, zero where they are below the rounding error of the estimates."""
    return np.where(se <= SE_ROUNDING * np.abs(values).max(initial=0), 0.0, se)


def delta_errors(effects: Array, se: Array, scale: EffectScale) -> Array:
    """Return standard errors of reported effects on the scale where they are differences, by the delta method."""
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
    """Return statistics against no effect and p-values; `errors` are on the scale of differences."""
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
    """Return reported effects with standard errors, tests and intervals, under the summary's names.

    `errors` are standard errors on the scale where effects are differences, by default from the delta method.
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
    """Return Wald's test of `count` hypotheses as statsmodels has it: chi-squared, or F for finite df."""
    from statsmodels.stats.contrast import ContrastResults

    if np.isfinite(df) and count:
        return ContrastResults(F=np.array([[statistic / count]]), df_num=count, df_denom=df)
    return ContrastResults(statistic=np.array([[statistic]]), df_denom=count, distribution="chi2")


def parameter_covariance(record: FitRecord) -> Array:
    """Covariance of the effects and arm means, shape (2 K - 1, 2 K - 1)."""
    count = len(record.names)
    return record.covariance[:count, :count]


TAIL = 5  # order statistics wanted beyond a limit


def percentile_interval(values: Array, alpha: float) -> Array:
    """Quantiles alpha / 2 and 1 - alpha / 2 of estimates over the resamples (m, d), shape (d, 2)."""
    _check_tail(len(values), alpha / 2)
    return np.quantile(values, [alpha / 2, 1 - alpha / 2], axis=0).T


def bias_corrected_interval(estimate: Array, values: Array, acceleration: Array, alpha: float) -> Array:
    """Bias-corrected interval, shape (d, 2), accelerated unless the accelerations (d,) are zero.

    NaN, with a warning, where the estimate lies outside the bootstrap distribution, values (m, d). See Efron, B.
    (1987). Better bootstrap confidence intervals. JASA 82, 171-185.
    """
    # Ties count half, so that a discrete distribution about its estimate has no bias to correct.
    share = ((values < estimate).mean(axis=0) + (values <= estimate).mean(axis=0)) / 2
    z0 = ndtri(share)[:, None]
    z = ndtri([alpha / 2, 1 - alpha / 2])
    with np.errstate(invalid="ignore", divide="ignore"):
        levels = ndtr(z0 + (z0 + z) / (1 - acceleration[:, None] * (z0 + z)))
    defined = np.isfinite(z0[:, 0]) & np.isfinite(levels).all(axis=1)
    if not defined.all():
        found = "the estimate lies outside the bootstrap distribution, so a bias-corrected interval is NaN"
        warn_user(f'{found}.\nUse `conf_int(method="percentile")`.', ResampleWarning)
    limits = np.full((len(estimate), 2), np.nan)
    for k in np.flatnonzero(defined):
        limits[k] = np.quantile(values[:, k], levels[k])
    if defined.any():
        _check_tail(len(values), float(np.minimum(levels, 1 - levels)[defined].min()))
    return limits


def acceleration_of(contributions: Array, times: Array) -> Array:
    """Return sum L^3 / (6 (sum L^2)^(3/2)) of contributions L (n, d), each of `times` equal units."""
    squares = times @ contributions**2
    return np.asarray(times @ contributions**3 / np.where(squares > 0, 6 * squares**1.5, 1.0))


def _check_tail(count: int, level: float) -> None:
    """Warn where a limit rests on fewer than five order statistics."""
    if count * level < TAIL:
        needed = int(np.ceil(TAIL / max(level, 1e-6) / 100) * 100)
        found = f"{count} resamples leave {count * level:.1f} beyond a limit of the interval, fewer than {TAIL}"
        warn_user(f"{found}.\nUse `fit(n_boot={needed})`.", ResampleWarning)


def resample_standard_errors(record: FitRecord, count: int) -> Array:
    """Robust standard errors of the first `count` estimates in each resample; NaN where it failed."""
    if record.boot is not None and record.boot.errors is not None:
        return record.boot.errors[:, :count]
    if record.options.quantiles or record.given_resamples or record.joint is not None:
        what = "of quantiles" if record.options.quantiles else "that were given" if record.given_resamples else "of JRE"
        raise UnavailableError(f'resamples {what} have no studentized intervals.\nUse `conf_int(method="percentile")`.')
    resampling, failures = record.resampler(), record.used_boot.failures
    se = np.full((len(failures), count), np.nan)
    for first in range(0, len(failures), WIDTH):
        drawn = resampling.draw(RESAMPLE_STREAM, first // WIDTH, min(WIDTH, len(failures) - first))
        for j, weights in enumerate(drawn.T, first):
            if failures[j] == Failure.OK:
                se[j] = _standard_errors(record, weights, count)
    return se


def with_choice(record: FitRecord, values: Array) -> Array:
    """Widen resampled effects and means (m, d) of a joint fit for the choice of its anchor, which resamples keep.

    Effects move on the scale where they are differences.
    """
    factor, count = np.sqrt(record.choice_variance), len(record.effect_names)
    if factor == 1:
        return values
    scale, estimate = record.options.effect_scale, record.estimate.params
    wide = estimate + factor * (values - estimate)
    center = scale.contrast(estimate[:count])
    wide[:, :count] = scale.report(center + factor * (scale.contrast(values[:, :count]) - center))
    return wide


def _pivots(record: FitRecord, method: str) -> tuple[Array, Array]:
    """Deviations of the used resamples from the estimates, shape (m, d), in a unit, (d,): one, or robust errors."""
    estimate, boot, count = record.estimate.params, record.used_boot, len(record.estimate.params)
    replicates, by_quantiles = record.cov_type == "replicates", method in ("percentile", "basic", "bc")
    if replicates or (record.bootstrap == "rescaled" and not by_quantiles):
        instead = "conf_int()" if replicates else 'conf_int(method="percentile")'
        raise UnavailableError(f"resamples of a survey design have no interval {method!r}.\nUse `{instead}`.")
    drawn = boot.used[:, :count]
    if method != "studentized":
        return with_choice(record, drawn) - estimate, np.ones(count)
    errors = resample_standard_errors(record, count)[boot.failures == Failure.OK]
    variances = record.choice_variance * np.diag(robust_covariance(record, False))[:count]
    return (drawn - estimate) / errors, np.sqrt(variances)


def bootstrap_interval(record: FitRecord, method: str, alpha: float, acceleration: str) -> Array:
    """Return an interval for each parameter from the bootstrap distribution, shape (d, 2)."""
    estimate, (pivots, unit) = record.estimate.params, _pivots(record, method)
    count = len(estimate)
    if method == "percentile":
        return estimate[:, None] + percentile_interval(pivots, alpha)
    if method in ("basic", "studentized"):  # reflected about the estimate
        return estimate[:, None] - unit[:, None] * percentile_interval(pivots, alpha)[:, ::-1]
    accelerations = np.zeros(count)
    if method == "bca":
        of_units = unit_influence if acceleration == "influence" else jackknife_contributions
        accelerations = acceleration_of(of_units(record, count), equal_units(record))
    return bias_corrected_interval(estimate, estimate + pivots, accelerations, alpha)


def _standard_errors(record: FitRecord, weights: Array, count: int) -> Array:
    """Robust standard errors of a fit to one resample, whose repeated units are units of their own."""
    sample = record.sample.reweighted(weights)
    fitted = fit_weights(dataclasses.replace(weights_of(record).equations, sample=sample))
    influence = estimate_means(fitted, record.spec, record.options.effect_scale).influence[:, :count]
    own = np.ones(sample.n) if counts_equal_rows(record) else record.sample.s
    moved, times = influence * own[:, None], weights / own
    if sample.cluster is not None:
        moved, times = sum_within_units(record, moved), times[np.unique(sample.cluster, return_index=True)[1]]
    return np.sqrt(times @ moved**2) / sample.total


def conf_int(
    record: FitRecord,
    alpha: float = 0.05,
    method: Interval | None = None,
    acceleration: str = "influence",
    cols: Sequence[int | str] | None = None,
) -> pd.DataFrame:
    """Confidence intervals of `params`.

    Parameters
    ----------
    alpha : float, default 0.05
        Significance level; 0.05 gives 95% intervals.
    method : {"normal", "delta", "percentile", "basic", "bc", "bca", "studentized"}, optional
        "normal" (default): by standard errors. For a ratio, odds ratio or percentage, limits are computed for the
        logarithm of the ratio and transformed.
        "delta": by standard errors on the reported scale. The interval is symmetric.
        Both use the t distribution if the fit does (``fit(use_t=True)``). The others use the bootstrap distribution.
        "percentile": its quantiles. "basic": the quantiles reflected about the estimate. "bc": bias-corrected. "bca":
        bias-corrected and accelerated. "studentized": quantiles of estimates over each resample's robust standard error
        (for JRE only with "multiplier"). For JRE, they are widened for the choice of shrinkage.
    acceleration : {"influence", "jackknife"}
        For "bca": from the influence function (default), or from leaving out each row (cluster) in turn.
    cols : sequence of int or str, optional
        Positions or names of the parameters. By default all.

    Returns
    -------
    DataFrame
        Columns 0 (lower) and 1 (upper).

    Raises
    ------
    OptionError
        If alpha is not a significance level, or the method is unknown.
    UnavailableError
        If the method needs a bootstrap and the fit has none.
    """
    if isinstance(alpha, str) and alpha in record.names:
        raise OptionError(f"alpha={alpha!r} is a parameter; expected a significance level.\nUse `cols=[{alpha!r}]`.")
    check_alpha(alpha)
    method = one_of("method", method, (None, *INTERVALS))
    one_of("acceleration", acceleration, ("influence", "jackknife"))
    estimate = record.estimate.params
    if method in (None, "normal"):
        limits = parameter_limits(record, alpha)
    elif method == "delta":
        limits = wald_interval(estimate, record.std_errors, alpha, record.df)
    else:
        limits = bootstrap_interval(record, str(method), alpha, acceleration)
    table = pd.DataFrame(limits, index=record.names)
    return table if cols is None else table.loc[[c if isinstance(c, str) else record.names[c] for c in cols]]


def summary_frame(record: FitRecord, alpha: float = 0.05) -> pd.DataFrame:
    """Return the table of estimates as a DataFrame.

    Parameters
    ----------
    alpha : float, default 0.05
        Significance level of the intervals.

    Returns
    -------
    DataFrame
        Columns estimate, std err, z, P>|z| (t, P>|t| if `use_t`) and the limits of the interval.
    """
    limits = conf_int(record, alpha).to_numpy()
    columns = np.column_stack([record.estimate.params, record.std_errors, *parameter_tests(record), limits])
    names = ["estimate", "std err", *statistic_names(record.df), *limit_names(alpha)]
    return pd.DataFrame(columns, index=record.names, columns=names)


def boot_pvalues(record: FitRecord, null: float | None = None, method: str = "studentized") -> pd.Series:
    """Two-sided p-values of `params` by the bootstrap, without a normal distribution.

    Parameters
    ----------
    null : float, optional
        Null value of the effects; by default no effect. Arm means are tested against zero.
    method : {"studentized", "percentile", "basic"}
        The method of `conf_int` whose interval the test inverts.

    Returns
    -------
    Series
        The p-value 2 (1 + m) / (1 + B), at most 1. Count the B resamples on each side that are at least as extreme; m
        is the smaller count. Up to one resample, it is the smallest alpha whose interval excludes the null value.

    Raises
    ------
    OptionError
        If the method is unknown.
    UnavailableError
        If the fit has no bootstrap, or its bootstrap has no such interval.

    References
    ----------
    .. [1] Davison, A. C. and Hinkley, D. V. (1997). Bootstrap Methods and their Application. Cambridge University
       Press, section 4.4.

    Examples
    --------
    >>> from causalrisk import IPWRA, datasets
    >>> births = datasets.load_cattaneo2()
    >>> model = IPWRA.from_formula("bweight ~ mage + medu", births, treat="mbsmoke")
    >>> res = model.fit(bootstrap="multiplier", n_boot=999)
    >>> float(res.boot_pvalues()["ATE"])
    0.002
    """
    method = one_of("method", method, ("studentized", "percentile", "basic"))
    (drawn, unit), tested = _pivots(record, method), record.null
    if null is not None:
        tested[: len(record.effect_names)] = null
    at = (tested - record.estimate.params) / unit * (1 if method == "percentile" else -1)
    fewer = np.minimum((drawn <= at).sum(axis=0), (drawn >= at).sum(axis=0))
    values = np.where(np.isnan(drawn).any(axis=0) | np.isnan(at), np.nan, 2 * (1 + fewer) / (1 + len(drawn)))
    return pd.Series(np.minimum(values, 1.0), index=record.names, name=f"P ({method})")
