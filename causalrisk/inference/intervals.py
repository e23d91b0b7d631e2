"""Tests and confidence intervals from a standard error or a bootstrap distribution.

A test statistic is an estimate divided by its standard error. Its distribution is normal, or Student's t with the
degrees of freedom of the fit. A ratio is tested on the log scale, and the limits of its interval are the transformed
limits of the logarithm. Swapping the arms therefore inverts the interval and leaves the test unchanged. The scale of
the tests is called the additive scale: the logarithm of a ratio, or the difference itself.

Quantiles are interpolated linearly between order statistics (as in numpy and scipy; Hyndman and Fan's type 7). R's
`boot.ci` interpolates on the normal scale instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import beta, ndtr, ndtri, stdtr, stdtrit

from causalrisk.errors import ResampleWarning, UnavailableError, check_alpha, one_of, warn_user
from causalrisk.estimation.fits import RELATIVE_ROUNDING, Refits
from causalrisk.estimation.options import INTERVALS, InferenceOptions, Interval
from causalrisk.estimation.record import FitRecord, equal_units, reported_covariance, unit_influence
from causalrisk.estimation.specification import DIFFERENCE, ODDS_RATIO, RATIO, EffectScale
from causalrisk.inference.covariance import leave_one_out, resample_covariance
from causalrisk.numerics.arrays import Array
from causalrisk.numerics.resampling import JACKKNIFE


def critical_value(alpha: float, df: Array | float = np.inf) -> Array:
    """Return the two-sided quantile of Student's t, or of the normal distribution for infinite df."""
    finite = np.where(np.isinf(df), 1.0, df)
    quantile = -np.asarray(stdtrit(finite, alpha / 2))
    for _ in range(2):  # Newton steps on the distribution function, as older versions of scipy have only eight digits
        density = np.exp(-(finite + 1) / 2 * np.log1p(quantile**2 / finite)) / (np.sqrt(finite) * beta(0.5, finite / 2))
        quantile = quantile + (stdtr(finite, -quantile) - alpha / 2) / density
    return np.where(np.isinf(df), -ndtri(alpha / 2), quantile)


def two_sided(statistics: Array, df: Array | float = np.inf) -> Array:
    """Return two-sided p-values of Student's t, or of the normal distribution for infinite df."""
    return np.asarray(2 * stdtr(df, -np.abs(statistics)))


def wald_interval(estimate: Array, se: Array, alpha: float, df: Array | float = np.inf) -> Array:
    """Return estimate +- critical value times standard error, shape (d, 2)."""
    half = critical_value(alpha, df) * se
    return np.column_stack([estimate - half, estimate + half])


def ratio_and_p(values: Array, se: Array, null: Array | float = 0.0, df: Array | float = np.inf) -> tuple[Array, Array]:
    """Return z or t statistics and two-sided p-values. They are NaN if the standard error is zero up to rounding."""
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
    """Return the standard errors, with zero for errors below the rounding error of the estimates."""
    return np.where(se <= RELATIVE_ROUNDING * np.abs(values).max(initial=0), 0.0, se)


@dataclass(frozen=True, eq=False)
class Estimates:
    """Estimates, with the standard errors for their tests and intervals.

    `values` (d,) and `se` (d,) are reported estimates and standard errors. `errors` (d,) are standard errors on the
    additive scale (log scale for ratios). `effects` marks the estimates that are effects. Other estimates, such as arm
    means, are not transformed.
    """

    values: Array
    se: Array
    errors: Array
    scale: EffectScale = DIFFERENCE
    effects: NDArray[np.bool_] | bool = True
    df: Array | float = np.inf

    def contrast(self, values: Array) -> Array:
        """Transform reported values to the additive scale (log scale for ratios). Impossible values become NaN."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.effects, self.scale.contrast(values), values)

    def report(self, values: Array) -> Array:
        """Transform values from the additive scale (log scale for ratios) to reported values."""
        with np.errstate(over="ignore"):  # of means, whose transform is not used
            return np.where(self.effects, self.scale.report(values), values)

    def slopes(self, on_scale: Array) -> Array:
        """Return the derivatives of `report` at values on the additive scale."""
        with np.errstate(over="ignore"):
            return np.where(self.effects, self.scale.report_slope(on_scale), 1.0)

    def tests(self) -> tuple[Array, Array]:
        """Return statistics and two-sided p-values. Effects are tested for no effect, other estimates against zero."""
        errors = np.where(rounded_se(self.values, self.se) > 0, self.errors, 0.0)
        return ratio_and_p(self.contrast(self.values), errors, df=self.df)

    def limits(self, alpha: float) -> Array:
        """Return intervals, shape (d, 2), computed on the additive scale (log scale for ratios) and transformed."""
        return self.report(wald_interval(self.contrast(self.values), self.errors, alpha, self.df).T).T

    def frame(self, index: Any, alpha: float) -> pd.DataFrame:
        """Return estimates, standard errors, tests and intervals, in columns named as in the summary."""
        check_alpha(alpha)
        columns = np.column_stack([self.values, self.se, *self.tests(), self.limits(alpha)])
        names = ["estimate", "std err", *statistic_names(self.df), *limit_names(alpha)]
        return pd.DataFrame(columns, index=index, columns=names)


def parameters(record: FitRecord) -> Estimates:
    """Return the effects and arm means of a fit, as `Estimates`."""
    params, se, count = record.estimate.params, record.std_errors, len(record.effect_names)
    errors, effects = np.r_[contrast_errors(record), se[count:]], np.arange(len(params)) < count
    return Estimates(params, se, errors, record.options.effect_scale, effects, record.df)


def on_scale(record: FitRecord) -> tuple[Array, Array]:
    """Return the parameters of a fit and their covariance, on the additive scale (log scale for ratios)."""
    found = parameters(record)
    values = found.contrast(found.values)
    unit = np.divide(found.errors, found.se, out=1 / found.slopes(values), where=found.se > 0)
    return values, parameter_covariance(record) * np.outer(unit, unit)


def contrast_errors(record: FitRecord) -> Array:
    """Return standard errors of a fit's effects on the additive scale (log scale for ratios), shape (K - 1,).

    After a bootstrap, they come from the transformed effects of the resamples. Otherwise the delta method is used.
    """
    scale, count = record.options.effect_scale, len(record.effect_names)
    effects = record.estimate.params[:count]
    if record.boot is not None and scale is not DIFFERENCE:
        contrasts = scale.contrast(record.boot.used[:, :count])
        return np.sqrt(np.diag(resample_covariance(record, contrasts, scale.contrast(effects))))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(record.std_errors[:count] / scale.report_slope(scale.contrast(effects)))


def refits_of(record: FitRecord) -> Refits | None:
    """Return the bootstrap or leave-one-out (jackknife) estimates. None if there are none."""
    return leave_one_out(record, InferenceOptions()) if record.cov_type == JACKKNIFE else record.boot


def differences(
    scale: EffectScale, values: Array, covariance: Array, one: NDArray[np.intp], other: NDArray[np.intp]
) -> tuple[Array, Array, Array]:
    """Return values[one] - values[other], from values on the additive scale (log scale for ratios).

    The differences and standard errors are on the reported scale, their covariance is on the additive scale.
    """
    rows = covariance[one] - covariance[other]
    covariance, on_scale = rows[:, one] - rows[:, other], values[one] - values[other]
    se = np.sqrt(np.clip(np.diag(covariance), 0, None)) * scale.report_slope(on_scale)
    return scale.report(on_scale), se, covariance


def differences_of_arms(
    record: FitRecord, scale: EffectScale, one: NDArray[np.intp], other: NDArray[np.intp], refits: Refits | None
) -> tuple[Array, Array, Array]:
    """Return `differences` of the means of arms `one` and `other` on a scale. `refits` is from `refits_of`."""
    block = record.estimate.block("means")
    means = record.estimate.params[block]
    slope = scale.g_slope(means)
    covariance = record.covariance[block, block] * np.outer(slope, slope)
    values, se, covariance = differences(scale, scale.g(means), covariance, one, other)
    if scale is not DIFFERENCE and refits is not None:
        drawn = refits.values[:, block]
        with np.errstate(invalid="ignore", divide="ignore"):  # draws by multipliers are linearised
            moved = scale.g(means) + (drawn - means) * slope if record.multiplied else scale.g(drawn)
        se, covariance = refitted_errors(record, moved[:, one] - moved[:, other], scale, values)
    return values, se, covariance


def refitted_errors(record: FitRecord, contrasts: Array, scale: EffectScale, values: Array) -> tuple[Array, Array]:
    """Return standard errors (d,) of reported effects, and their covariance on the additive scale (logs for ratios).

    `contrasts` (m, d) has the effects of the m refits on the additive scale.
    """
    contrasts, center = np.where(np.isfinite(contrasts), contrasts, np.nan), scale.contrast(values)
    covariance = resample_covariance(record, contrasts, center)
    if record.cov_type == JACKKNIFE:
        return scale.report_slope(center) * np.sqrt(np.diag(covariance)), covariance
    return np.sqrt(np.diag(resample_covariance(record, scale.report(contrasts), values))), covariance


NEGLIGIBLE = 1e-12  # smaller variances of a combination, relative to its parameters' variances, count as zero
ROUNDING = 1e-8  # relative rounding error of the parameters


def wald_statistic(left: Array, right: Array, params: Array, covariance: Array) -> tuple[float, int, bool]:
    """Return Wald's statistic of R params = q (`left`, `right`), its df, and whether the hypotheses are impossible.

    Combinations are scaled by the standard errors of their parameters, so units do not matter. A combination without
    sampling error is redundant and left out. If its value differs from q, the hypotheses are impossible.
    """
    parameters, tried = np.sqrt(np.clip(np.diag(covariance), 0, None)), np.abs(left)
    size, level = tried @ np.nan_to_num(parameters), tried @ np.abs(params)
    size = np.where(size > RELATIVE_ROUNDING * level, size, np.where(level > 0, level, 1.0))
    scaled = covariance_of(left, covariance) / np.outer(size, size)
    if np.isnan(scaled).any():
        return np.nan, len(left), False
    values, vectors = np.linalg.eigh(scaled)
    kept = values > NEGLIGIBLE
    projected = vectors.T @ ((left @ params - right) / size)
    rounding = 10 * np.sqrt(NEGLIGIBLE) + ROUNDING * (level / size).max()
    statistic = float((projected[kept] ** 2 / values[kept]).sum())
    return statistic, int(kept.sum()), bool((np.abs(projected[~kept]) > rounding).any())


def covariance_of(left: Array, covariance: Array) -> Array:
    """Return the covariance of the linear combinations in the rows of `left`. It is NaN where a variance is missing."""
    unknown = ((left != 0) & np.isnan(np.diag(covariance))).any(axis=1)
    found = left @ np.nan_to_num(covariance) @ left.T
    found[unknown] = found[:, unknown] = np.nan
    return found


def joint_test(statistic: float, count: int, df: float = np.inf) -> Any:
    """Return the Wald test of `count` hypotheses as a statsmodels result: chi-squared, or F for finite df."""
    from statsmodels.stats.contrast import ContrastResults

    if np.isfinite(df) and count:
        return ContrastResults(F=np.float64(statistic / count), df_num=count, df_denom=df)
    return ContrastResults(statistic=np.float64(statistic), df_denom=count, distribution="chi2")


def parameter_covariance(record: FitRecord) -> Array:
    """Return the covariance of the effects and arm means, shape (2 K - 1, 2 K - 1)."""
    count = len(record.names)
    return record.covariance[:count, :count]


TAIL = 5  # with fewer resamples beyond a limit of an interval, there is a warning


def bias_corrected_interval(estimate: Array, values: Array, acceleration: Array, alpha: float) -> Array:
    """Return bias-corrected intervals, shape (d, 2), accelerated by `acceleration` (d,), which may be zero.

    If the estimate lies outside the bootstrap distribution `values` (m, d), the interval is NaN, with a warning. See
    Efron, B. (1987). Better bootstrap confidence intervals. JASA 82, 171-185.
    """
    # Ties count half, so a discrete distribution centred at its estimate has no bias to correct.
    share = ((values < estimate).mean(axis=0) + (values <= estimate).mean(axis=0)) / 2
    z0 = ndtri(share)[:, None]
    z = ndtri([alpha / 2, 1 - alpha / 2])
    with np.errstate(invalid="ignore", divide="ignore"):
        levels = ndtr(z0 + (z0 + z) / (1 - acceleration[:, None] * (z0 + z)))
    defined = np.isfinite(z0[:, 0]) & np.isfinite(levels).all(axis=1)
    if not defined.all():
        found = "the estimate is outside the bootstrap distribution, so its bias-corrected interval is NaN"
        warn_user(f'{found}.\nUse `conf_int(method="percentile")`.', ResampleWarning)
    limits = np.full((len(estimate), 2), np.nan)
    for k in np.flatnonzero(defined):
        limits[k] = np.quantile(values[:, k], levels[k])
    if defined.any():
        _check_tail(len(values), float(np.minimum(levels, 1 - levels)[defined].min()))
    return limits


def acceleration_of(contributions: Array, times: Array) -> Array:
    """Return the accelerations of BCa intervals, shape (d,): sum L^3 / (6 (sum L^2)^(3/2)).

    L is the influence of a unit, a row of `contributions` (n, d). `times` (n,) says how often each unit counts.
    """
    squares = times @ contributions**2
    return np.asarray(times @ contributions**3 / np.where(squares > 0, 6 * squares**1.5, 1.0))


def _check_tail(count: int, level: float) -> None:
    beyond = round((count + 1) * level, 9)
    if beyond < TAIL:
        needed = int(np.ceil(TAIL / max(level, 1e-6) / 100) * 100)
        found = f"fewer than {int(beyond) + 1} of {count} resamples are beyond a limit of the interval"
        warn_user(f"{found}; expected {TAIL} or more.\nUse `fit(n_boot={needed})`.", ResampleWarning)


def widened_for_choice(record: FitRecord, values: Array) -> Array:
    """Multiply the deviations of resampled estimates (m, d) by the root of the variance factors.

    The factors are for choosing JRE's shrinkage and for small samples. Deviations of ratios are of their logs.
    """
    factor, count = np.sqrt(record.choice_variance * record.small_sample_factor), len(record.effect_names)
    if factor == 1:
        return values
    scale, estimate = record.options.effect_scale, record.estimate.params
    wide = estimate + factor * (values - estimate)
    center = scale.contrast(estimate[:count])
    wide[:, :count] = scale.report(center + factor * (scale.contrast(values[:, :count]) - center))
    return wide


def _pivots(record: FitRecord, method: str) -> tuple[Array, Array]:
    """Return deviations (m, d) of the resamples from the estimates, and the units (d,) in which they are measured.

    For "studentized", deviations are divided by each resample's robust standard error, and the unit is the fit's robust
    standard error. Otherwise the unit is one.
    """
    estimate, boot, count = record.estimate.params, record.used_boot, len(record.estimate.params)
    replicates, by_quantiles = record.cov_type == "replicates", method in ("percentile", "basic", "bc")
    if replicates or (record.bootstrap == "rescaled" and not by_quantiles):
        instead = "conf_int()" if replicates else 'conf_int(method="percentile")'
        raise UnavailableError(f"method={method!r} is not available for survey designs.\nUse `{instead}`.")
    drawn = boot.used[:, :count]
    if method != "studentized":
        return widened_for_choice(record, drawn) - estimate, np.ones(count)
    if boot.errors is None:
        instead = 'Use `method="percentile"`, or `fit(bootstrap="multiplier")`.'
        raise UnavailableError(f'method="studentized" needs the multiplier bootstrap.\n{instead}')
    variances = np.diag(reported_covariance(record))[:count]
    return (drawn - estimate) / boot.errors[:, :count], np.sqrt(variances)


def bootstrap_interval(record: FitRecord, method: str, alpha: float) -> Array:
    """Return an interval for each parameter from the bootstrap distribution, shape (d, 2)."""
    if record.one_cluster:
        return np.full((len(record.estimate.params), 2), np.nan)
    estimate, (pivots, unit) = record.estimate.params, _pivots(record, method)
    if method in ("bc", "bca"):
        accelerations = np.zeros(len(estimate))
        if method == "bca":
            accelerations = acceleration_of(unit_influence(record, len(estimate)), equal_units(record))
        return bias_corrected_interval(estimate, estimate + pivots, accelerations, alpha)
    _check_tail(len(pivots), alpha / 2)
    low, high = np.quantile(pivots, [alpha / 2, 1 - alpha / 2], axis=0)
    if method != "percentile":  # reflected about the estimate
        low, high = -unit * high, -unit * low
    return np.column_stack([estimate + low, estimate + high])


def conf_int(
    record: FitRecord, alpha: float = 0.05, method: Interval | None = None, cols: Sequence[int | str] | None = None
) -> pd.DataFrame:
    """Confidence intervals of `params`.

    Parameters
    ----------
    alpha : float, default 0.05
        Significance level; 0.05 gives 95% intervals.
    method : {"normal", "delta", "percentile", "basic", "bc", "bca", "studentized"}, optional
        "normal" (default): from standard errors. For a ratio, odds ratio or percentage, limits are computed for the
        logarithm of the ratio and transformed.
        "delta": from standard errors on the reported scale. The interval is symmetric.
        "percentile": quantiles of the bootstrap distribution.
        "basic": these quantiles, reflected about the estimate (on the reported scale, also for ratios).
        "bc": bias-corrected quantiles. "bca": also accelerated, by the skewness of the influence function.
        "studentized": bootstrap-t, which divides by the robust standard error of each resample (multiplier bootstrap
        only).
        "normal" and "delta" use the t distribution if the fit does. For JRE, bootstrap intervals are widened for the
        choice of shrinkage.
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
        If the method needs a bootstrap that the fit does not have.
    """
    check_alpha(alpha)
    method = one_of("method", method, (None, *INTERVALS))
    estimate = record.estimate.params
    if method in (None, "normal"):
        limits = parameters(record).limits(alpha)
    elif method == "delta":
        limits = wald_interval(estimate, record.std_errors, alpha, record.df)
    else:
        limits = bootstrap_interval(record, str(method), alpha)
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
    return parameters(record).frame(record.names, alpha)


def boot_pvalues(record: FitRecord, null: float | None = None, method: str | None = None) -> pd.Series:
    """Two-sided p-values of `params` from the bootstrap, without assuming a normal distribution.

    Parameters
    ----------
    null : float, optional
        Null value of the effects; by default the value for no effect. Group means are tested against zero.
    method : {"studentized", "percentile", "basic"}, optional
        Method of `conf_int` whose interval is inverted. By default "percentile", or "studentized" for the multiplier
        bootstrap, the only one for which it is available.

    Returns
    -------
    Series
        P-values 2 (1 + m) / (1 + B), at most 1, for B resamples. m is the smaller of the numbers of resamples below and
        above a threshold. The threshold is the null value ("percentile"), its reflection about the estimate ("basic")
        or the t statistic ("studentized"). A p-value is, to within 2 / (1 + B), the smallest alpha whose interval
        excludes the null value.

    Raises
    ------
    OptionError
        If the method is unknown.
    UnavailableError
        If the fit has no bootstrap, or its kind of bootstrap does not support the method.

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
    known = one_of("method", method, (None, "studentized", "percentile", "basic"))
    method = known or ("percentile" if record.used_boot.errors is None else "studentized")
    (drawn, unit), tested = _pivots(record, method), record.null
    if null is not None:
        tested[: len(record.effect_names)] = null
    at = (tested - record.estimate.params) / unit * (1 if method == "percentile" else -1)
    fewer = np.minimum((drawn <= at).sum(axis=0), (drawn >= at).sum(axis=0))
    values = np.where(np.isnan(drawn).any(axis=0) | np.isnan(at), np.nan, 2 * (1 + fewer) / (1 + len(drawn)))
    return pd.Series(np.minimum(values, 1.0), index=record.names, name=f"P ({method})")


def effects_on_scales(record: FitRecord, alpha: float = 0.05) -> pd.DataFrame:
    """Return the effects as differences, ratios and odds ratios of the means in one table.

    Parameters
    ----------
    alpha : float, default 0.05
        Significance level of the intervals.

    Returns
    -------
    DataFrame
        One row per scale and effect: estimate, standard error, test of no effect and limits, as from fits with
        ``effect="difference"``, ``"ratio"`` and ``"odds_ratio"``. Ratios need positive means, and odds ratios need
        outcomes between 0 and 1. Otherwise they are left out.

    Raises
    ------
    UnavailableError
        For JRE, which is fitted for the effect on one scale.

    Examples
    --------
    >>> from causalrisk import AIPW, datasets
    >>> births = datasets.load_cattaneo2()
    >>> res = AIPW.from_formula(
    ...     "lbweight ~ mage + medu", births, treat="mbsmoke", family="binomial"
    ... ).fit()
    >>> res.effects_on_scales()[["estimate", "[0.025", "0.975]"]].round(3)
                    estimate  [0.025  0.975]
    ATE                0.061   0.037   0.086
    ATE ratio          2.234   1.734   2.879
    ATE odds ratio     2.389   1.807   3.159
    """
    record.check_means("effects_on_scales()")
    if record.joint is not None:
        found = "effects on several scales are not available for JRE, which is fitted for the effect on one scale"
        raise UnavailableError(f"{found}.\nUse `res.model.with_options(effect=...).fit()` for each scale.")
    means, refits, frames = record.estimate.params[record.estimate.block("means")], refits_of(record), []
    for scale in (DIFFERENCE, RATIO, ODDS_RATIO):
        if not ((means > scale.low) & (means < scale.high)).all() or record.design.outcome_limits.max() > scale.high:
            continue
        arms = np.arange(1, len(means))
        effects, se, covariance = differences_of_arms(record, scale, arms, np.zeros_like(arms), refits)
        names = replace(record, options=replace(record.options, effect=scale.name)).effect_names
        estimates = Estimates(effects, se, np.sqrt(np.diag(covariance)), scale, df=record.df)
        frames.append(estimates.frame(names, alpha))
    return pd.concat(frames)


def nnt(record: FitRecord, alpha: float = 0.05) -> pd.DataFrame:
    """Return the number needed to treat: 1 / difference of the means of a 0/1 outcome.

    Parameters
    ----------
    alpha : float, default 0.05
        Significance level of the interval.

    Returns
    -------
    DataFrame
        Columns "nnt", "lower" and "upper". Treating "nnt" units gives one more outcome of 1 on average, or one fewer if
        "nnt" is negative. If the interval of the difference includes zero, there are two rows [1]_: one interval from
        "lower" to infinity, and one from minus infinity to "upper". Numbers between these intervals are excluded.

    Raises
    ------
    UnavailableError
        If the outcome is not 0/1, or the fit uses `did` or an exposure.

    References
    ----------
    .. [1] Altman, D. G. (1998). Confidence intervals for the number needed to treat. BMJ 317, 1309-1312.

    Examples
    --------
    >>> from causalrisk import AIPW, datasets
    >>> births = datasets.load_cattaneo2()
    >>> res = AIPW.from_formula(
    ...     "lbweight ~ mage + medu", births, treat="mbsmoke", family="binomial"
    ... ).fit()
    >>> res.nnt().round(1)
               nnt  lower  upper
    contrast
    1 vs 0    16.3   11.6   27.0
    """
    record.check_means("nnt()")
    design = record.design
    if record.options.did is not None or record.stated_exposure is not None or not design.has_binary_outcome:
        found = "nnt() is only available for 0/1 outcomes, without did= and without an exposure"
        raise UnavailableError(f"{found}.\nUse `res.effect`.")
    table = (summary_frame if record.options.effect == "difference" else effects_on_scales)(record, alpha)
    rows, index = [], []
    for contrast, (value, low, high) in zip(record.contrasts, table.iloc[:, [0, -2, -1]].to_numpy(), strict=False):
        ends = [(1 / high, 1 / low)] if low * high > 0 else [(1 / high, np.inf), (-np.inf, 1 / low)]
        rows += [(1 / value, *limits) for limits in ends]
        index += [contrast] * len(ends)
    return pd.DataFrame(rows, index=pd.Index(index, name="contrast"), columns=["nnt", "lower", "upper"])
