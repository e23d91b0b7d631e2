"""Sensitivity of the effect to single rows and clusters (their influence), and to an omitted confounder."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri

from causalrisk import errors
from causalrisk.estimation import engine
from causalrisk.estimation.engine import ALL, Block, Linear, Point, solve
from causalrisk.estimation.fit import fit_estimator
from causalrisk.estimation.fits import Refits, SeparateRows, WeightFit, estimate_means
from causalrisk.estimation.matching import no_influence
from causalrisk.estimation.options import InferenceOptions
from causalrisk.estimation.record import FitRecord, influence_covariance, sum_within_units
from causalrisk.estimation.sample import unit_count
from causalrisk.estimation.specification import DIFFERENCE, IPWRA, RATIO
from causalrisk.inference.covariance import leave_one_out, refit_together
from causalrisk.inference.intervals import critical_value, differences_of_arms, refits_of
from causalrisk.numerics.arrays import Array
from causalrisk.numerics.optimize import root_between

EXACT_ROWS, QUICK_ROWS = 5000, 1000  # maximum number of rows to leave out in turn: in `influence`, and in reports
LARGEST, MOST = "largest", 10  # with more rows, only the 10 rows with the largest influence functions are left out


# --- rows and clusters -----------------------------------------------------------------------------------------------


def influence(
    record: FitRecord, top: int | None = None, method: str | None = None, arm: Any = None, clusters: bool = False
) -> pd.DataFrame:
    """Influence of each row, or of each cluster, on the effect.

    Parameters
    ----------
    top : int, optional
        Number of rows to show, the most influential first. By default all rows, in the order of the data.
    method : {"exact", "influence", "largest"}, optional
        "exact" (default up to 5000 rows): repeats every step without the row, except trimming and the choice of
        JRE's shrinkage.
        "influence" (default if a classifier estimates the propensity score): the influence function. It keeps the
        classifier's scores and is faster, but understates the change from the most influential rows.
        "largest" (default for more rows): "exact" for the ten most influential rows, and "influence" for the others.
    arm : level or label, optional
        The treatment group whose effect is studied. By default, the first group after the reference.
    clusters : bool, default False
        Whether to leave out whole clusters instead of rows.

    Returns
    -------
    DataFrame
        One row per row of the sample, with its treatment group. "change" is the effect without the row minus the effect
        of the fit. "in std errors" is this change divided by the standard error. "weight share" is the row's share of
        the total weight of its group. With `clusters`, there is one row per cluster, with its number of observations
        "n" and all its groups. If it has several groups, "weight share" is the largest of its shares.

    Raises
    ------
    OptionError
        If the fit has no clusters.

    Examples
    --------
    >>> from causalrisk import IPWRA, datasets
    >>> jobs = datasets.load_lalonde()
    >>> res = IPWRA.from_formula(
    ...     "re78 ~ age + educ + re75", jobs, treat="treat"
    ... ).fit()
    >>> changes = res.influence()["change"]
    >>> bool((changes.abs() > res.effect_se).any())
    False
    """
    record.check_means("influence()")
    if top is not None:
        errors.whole_number("top", top, 1)
    position = record.arm_position(arm, effect=True)
    frame = influence_tables(record, influence_method(record, method, clusters), clusters)[position - 1]
    return frame if top is None else most_influential(frame, top)


def influence_method(record: FitRecord, method: str | None, clusters: bool, quick: bool = False) -> str:
    """Check the method of `influence`, or choose it by the number of rows. `quick` allows fewer rows for "exact"."""
    errors.one_of("method", method, (None, "exact", "influence", LARGEST))
    design = record.design
    if clusters and design.cluster is None:
        raise errors.OptionError("clusters=True, but the fit has no clusters.\nUse `cluster=` in the model.")
    if method is None and record.options.propensity_score is not None:  # "exact" would fit a classifier for each row
        return "influence"
    rows = np.sqrt(design.n * design.n_clusters) if clusters else design.n  # number of rows that would take as long
    return method or ("exact" if rows <= (QUICK_ROWS if quick else EXACT_ROWS) else LARGEST)


def influence_tables(record: FitRecord, method: str, clusters: bool = False) -> list[pd.DataFrame]:
    """Return one table of `influence` per effect, that is, per arm except the reference."""
    design, fit = record.design, record.weight_fit if record.spec.uses_propensity else None
    sample, count = record.sample, len(record.effect_names)
    weight = design.weights * (1.0 if fit is None else sample.restore(fit.raw_weights))
    share, labels, index = weight / np.bincount(design.arm, weight)[design.arm], np.array(design.labels), design.index
    arm = labels[design.arm]
    common = {}
    if clusters and design.cluster is not None:
        shares = np.zeros((design.n_clusters, design.n_arms))
        np.add.at(shares, (design.cluster, design.arm), share)
        share, arm = shares.max(axis=1), np.array([", ".join(labels[own]) for own in shares > 0])
        index = pd.RangeIndex(design.n_clusters) if design.clusters is None else design.clusters
        common["n"] = np.bincount(design.cluster, design.units).astype(int)
    common["arm"] = arm
    if method != "exact":
        sums, weights = sample.s[:, None] * record.estimate.influence[:, :count], sample.s[:, None]
        if clusters:
            sums, weights = (sum_within_units(record, part)[: design.n_clusters] for part in (sums, weights))
        changes = -sums / (sample.total - weights)
        changes = changes if clusters else sample.restore(changes)
        unit_of = design.cluster if clusters else np.arange(design.n)
        for unit in np.unique(np.argsort(-np.abs(changes), axis=0)[:MOST]) if method == LARGEST else ():
            s = sample.s * sample.arrange(np.concatenate([unit_of != unit, np.ones(sample.n_frame)]))
            (refits,) = refit_together([record.estimate.rows], [record.weight_fit], s[:, None])
            changes[unit] = refits.values[0, :count] - record.estimate.params[:count]
    else:  # rows in the order of the design
        at = record
        if not clusters:
            alone, rows = dataclasses.replace(design, cluster=None), dataclasses.replace(sample, cluster=None)
            at = dataclasses.replace(record, design=alone, sample=rows)
        left_out = leave_one_out(at, InferenceOptions(), whole=True)
        changes = left_out.values[: unit_count(at.design), :count] - record.estimate.params[:count]
    tables = []
    for change, se in zip(changes.T, record.std_errors, strict=False):
        moved = {"change": change, "in std errors": change / se if se > 0 else np.nan, "weight share": share}
        tables.append(pd.DataFrame({**common, **moved}, index=index))
    return tables


def most_influential(frame: pd.DataFrame, top: int) -> pd.DataFrame:
    """Return the rows that change the effect most. Rows that cannot be left out come first."""
    return frame.iloc[np.argsort(-frame["change"].abs().fillna(np.inf).to_numpy(), kind="stable")[:top]]


# --- an omitted confounder -------------------------------------------------------------------------------------------

CONFOUNDER = "Bounds for an omitted confounder"
STANDARDIZED, STANDARDIZED_SE = 0.91, 1.78  # log risk ratio per standardized difference, and this times 1.96


def e_value(ratio: float) -> float:
    """Return the E-value of a risk ratio [1]_.

    Parameters
    ----------
    ratio : float
        Risk ratio, on either side of 1.

    Returns
    -------
    float
        Smallest risk ratio that an unmeasured confounder must have with both treatment and outcome, given the
        covariates, to explain the given ratio away. NaN if the given ratio is not positive.

    References
    ----------
    .. [1] VanderWeele, T. J. and Ding, P. (2017). Sensitivity analysis in observational research: introducing the
       E-value. Annals of Internal Medicine 167, 268-274.

    Examples
    --------
    The example of [1]_, a ratio of 3.9 with a 95% interval that begins at 1.8:

    >>> from causalrisk.diagnostics.sensitivity import e_value
    >>> round(e_value(3.9), 2), round(e_value(1.8), 2)
    (7.26, 3.0)
    """
    if not ratio > 0:
        return np.nan
    up = max(ratio, 1 / ratio)
    return float(up + np.sqrt(up * (up - 1)))


def robustness_value(ratio: float) -> float:
    """Return the strength r at which a confounder with cf_y = cf_d = r causes a bias as large as the estimate.

    Parameters
    ----------
    ratio : float
        Estimate divided by the scale S of the bias.

    Returns
    -------
    float
        r between 0 and 1, with r^2 / (1 - r) = ratio^2.

    Examples
    --------
    Cinelli and Hazlett (2020), Darfur: t = 4.18 on 783 degrees of freedom gives 13.9%:

    >>> from causalrisk.diagnostics.sensitivity import robustness_value
    >>> round(robustness_value(4.18 / 783**0.5), 3)
    0.139
    """
    with np.errstate(divide="ignore", over="ignore"):  # 0 for a ratio of 0, and 1 for an infinite one
        return float(2 / (1 + np.sqrt(1 + 4 / np.square(float(ratio)))))


@dataclasses.dataclass(frozen=True)
class BiasScale:
    """Scale S of the bias of an omitted confounder, with influence functions (n,) of the effect and of S.

    `size` is S, the largest bias at cf_y cf_d / (1 - cf_d) = 1. S^2 is the product of `variance`, the mean squared
    residual E (Y - g)^2, and `nu`, the mean squared importance weight E w^2.
    """

    effect: float
    size: float
    variance: float
    nu: float
    effect_influence: Array
    scale_influence: Array

    def bound(self, record: FitRecord, strength: float) -> tuple[float, float]:
        """Return the effect plus `strength` times S, and its robust standard error."""
        influence = self.effect_influence + strength * self.scale_influence
        error = np.sqrt(influence_covariance(record, influence[:, None])[0, 0])
        return self.effect + strength * self.size, float(error)


def bias_scales(record: FitRecord, fit: WeightFit) -> list[BiasScale]:
    """Return the `BiasScale` of each effect, which compares an arm with the reference."""
    found = record.estimate if record.joint is None else record.joint.start
    if record.joint is None and record.spec.constants:
        found = estimate_means(fit, IPWRA)  # for IPW, residuals are from IPWRA's outcome models
    rows = found.rows
    if not isinstance(rows, SeparateRows):
        raise no_influence()
    equations, beta = rows.equations, rows.beta
    sample, ones, n_arms = equations.sample, np.ones((record.sample.n, 1)), record.sample.n_arms
    inside = sample.in_sample
    sigma, measure = Linear("sigma", ones), Linear("measure", ones)
    scaled = [Linear(f"nu {arm}", ones) for arm in range(1, n_arms)]

    def spread(at: Point) -> list[Any]:
        left = [at.of(sample.y) - equations.predicted(at, a, observed=True) for a in range(n_arms)]
        parts = sum(of_arm**2 * at.of(sample.arm == a) for a, of_arm in enumerate(left))
        return [parts * at.of(sample.with_outcome) - at(sigma) * at.of(inside)]

    def squares(arm: int) -> Block:
        def residuals(at: Point) -> list[Any]:
            w = sum(equations.weight(at, a) * at.of(sample.arm == a) for a in (0, arm))
            return [((w / at(measure)) ** 2 - at(scaled[arm - 1])) * at.of(inside)]

        return Block((scaled[arm - 1],), ((ALL, residuals),), linear=True)

    mass = ALL, lambda at: [(equations.measure(at) - at(measure)) * at.of(inside)]
    blocks = [Block((sigma,), ((ALL, spread),), linear=True), Block((measure,), (mass,), linear=True)]
    blocks += [squares(arm) for arm in range(1, n_arms)]
    s = sample.s[:, None]
    beta, _ = solve(blocks, s, known=beta)
    moved = engine.influence(blocks, s, beta, sample.total, rows.of_blocks())
    block = record.estimate.block("means")
    means, mean_influence = record.estimate.params[block], record.estimate.influence[:, block]
    scales, variance = [], float(beta["sigma"][0, 0, 0])
    for arm in range(1, n_arms):
        nu = float(beta[f"nu {arm}"][0, 0, 0])
        size = float(np.sqrt(variance * nu))
        of_scale = (nu * moved["sigma"] + variance * moved[f"nu {arm}"])[:, 0] / (2 * size) if size else 0 * sample.s
        effect = means[arm] - means[0]
        scales.append(BiasScale(effect, size, variance, nu, mean_influence[:, arm] - mean_influence[:, 0], of_scale))
    return scales


def _ratio_with_limits(record: FitRecord, arm: int, z: float, refits: Refits | None) -> tuple[float, float, float, str]:
    """Return the risk ratio behind an arm's E-value, its two limits, and a text that says how it was computed."""
    positive = (record.estimate.params[record.estimate.block("means")][[0, arm]] > 0).all()
    exact = positive and (record.design.has_binary_outcome or record.options.effect != "difference")
    scale, pair = RATIO if exact else DIFFERENCE, (np.array([arm]), np.array([0]))
    (value,), _, ((variance,),) = differences_of_arms(record, scale, *pair, refits)
    reach = np.array([0, -z, z]) * np.sqrt(variance)
    if exact:
        return *np.exp(np.log(value) + reach).tolist(), "ratio of the means"
    logs = (STANDARDIZED * value + STANDARDIZED_SE / ndtri(0.975) * reach) / record.design.outcome_deviation
    return *np.exp(logs).tolist(), "difference over the SD of all outcomes"


def _limit_robustness(record: FitRecord, scale: BiasScale, z: float) -> float:
    """Return the smallest r = cf_y = cf_d for which the bounds' confidence interval includes zero."""
    sign = np.sign(scale.effect) or 1.0

    def margin(r: float) -> float:
        bound, error = scale.bound(record, -sign * r / np.sqrt(1 - r))  # both strengths are r
        return sign * bound - z * error

    distance = margin(0.0)
    if not distance > 0:
        return np.nan if np.isnan(distance) else 0.0  # NaN without a standard error
    most = robustness_value(scale.effect / scale.size)
    return root_between(margin, 0.0, most) if most < 1 else most


STRENGTHS = (0.01, 0.03, 0.1)
BOUNDS = ("scale", "robustness value", "robustness value of limit")


def sensitivity(record: FitRecord, alpha: float = 0.05) -> pd.DataFrame:
    """Strength of an omitted confounder that would explain the effect away.

    Two numbers describe the strength of a confounder. cf_y is the share of the residual variance of the outcome that
    the confounder explains. cf_d is the share of the variance of the importance weights (the Riesz representer) that is
    due to the confounder.

    Parameters
    ----------
    alpha : float, default 0.05
        Significance level of the intervals.

    Returns
    -------
    DataFrame
        One row per treatment group except the reference. "effect" is a difference of means. "ratio" is the risk ratio
        from which the E-value is computed. "basis" says how this ratio was computed. "E-value" is for the estimate.
        "E-value of limit" is for the limit of the interval that is nearer to no effect. "scale" is S. "robustness
        value" is the strength cf_y = cf_d at which the bias is as large as the effect. "robustness value of limit" is
        the strength at which the interval includes zero. Scale and robustness values are NaN without a propensity score
        and for `Matching`.

    Notes
    -----
    The E-value [1]_ is the smallest risk ratio that a confounder must have with both treatment and outcome, given the
    covariates, to explain the effect away. For a 0/1 outcome, or if the effect is a ratio, an odds ratio or a
    percentage, the E-value uses the ratio of the means and is exact. Otherwise it uses the approximate risk ratio
    exp(0.91 d) with limits exp(0.91 d +- 1.78 se). Here d and se are the effect and its standard error, divided by the
    (weighted) standard deviation of all outcomes, with divisor n. The smaller one within groups gives a larger E-value.

    The robustness value [2]_ makes no assumption about the confounder. It assumes that the outcome regression g and the
    propensity score are correctly specified given the covariates. The bias is then at most S sqrt(cf_y cf_d / (1 -
    cf_d)), with S^2 = E (Y - g)^2 E w^2. Here w is the importance weight. For JRE, g is the IPWRA outcome regression.

    References
    ----------
    .. [1] VanderWeele, T. J. and Ding, P. (2017). Sensitivity analysis in observational research: introducing the
       E-value. Annals of Internal Medicine 167, 268-274.
    .. [2] Chernozhukov, V., Cinelli, C., Newey, W., Sharma, A. and Syrgkanis, V. (2022). Long story short: omitted
       variable bias in causal machine learning. NBER working paper 30302.

    Examples
    --------
    >>> from causalrisk import IPWRA, datasets
    >>> births = datasets.load_cattaneo2()
    >>> res = IPWRA.from_formula(
    ...     "bweight ~ mage + medu", births, treat="mbsmoke"
    ... ).fit()
    >>> res.sensitivity()[["E-value", "E-value of limit", "robustness value"]].round(
    ...     2
    ... )
              E-value  E-value of limit  robustness value
    contrast
    1 vs 0       2.36              2.13              0.16
    """
    record.check_means("sensitivity()")
    errors.check_alpha(alpha)
    record.check_observed(CONFOUNDER)
    bounded = record.spec.uses_propensity and not record.spec.matched
    scales = bias_scales(record, record.used_weight_fit) if bounded else None
    z, rows, refits = float(critical_value(alpha, record.df)), [], refits_of(record)
    means = record.estimate.params[record.estimate.block("means")]
    for arm in range(1, record.design.n_arms):
        ratio, low, high, basis = _ratio_with_limits(record, arm, z, refits)
        row = {"effect": means[arm] - means[0], "ratio": ratio, "basis": basis}
        row |= {"E-value": e_value(ratio), "E-value of limit": e_value(float(np.clip(1, low, high)))}
        bounds = [np.nan] * len(BOUNDS)
        if scales is not None and scales[arm - 1].size > 0:  # not for a constant outcome
            scale = scales[arm - 1]
            bounds = [scale.size, robustness_value(scale.effect / scale.size), _limit_robustness(record, scale, z)]
        rows.append(row | dict(zip(BOUNDS, bounds, strict=True)))
    return pd.DataFrame(rows, index=pd.Index(record.contrasts, name="contrast"))


def covariate_strengths(record: FitRecord, scales: list[BiasScale], name: str) -> list[dict[str, float]]:
    """Return the strength of a covariate as a confounder of each arm's effect, from fits without it [1]_.

    References
    ----------
    .. [1] Chernozhukov, V., Cinelli, C., Newey, W., Sharma, A. and Syrgkanis, V. (2022). Long story short: omitted
       variable bias in causal machine learning. NBER working paper 30302, section 4.
    """
    design, options = record.design, record.options
    if design.predictions is not None or options.learner is not None or not record.used_weight_fit.estimated:
        problem = "benchmark= is not available with learners, given predictions or given scores"
        why = "It fits both models again without the covariate"
        raise errors.UnavailableError(f"{problem}. {why}.\nUse `res.sensitivity_bounds(cf_y=0.03, cf_d=0.03)`.")
    spec = record.spec if record.joint is None else IPWRA
    names = [name, *(one.indicator for one in design.filled if one.name == name and one.indicator)]
    with warnings.catch_warnings(action="ignore", category=errors.CausalRiskWarning):
        once = dataclasses.replace(options, trim=None)  # the rows are trimmed already
        short = fit_estimator(design.without(names), spec, once, InferenceOptions())
    long, means = record.estimate if record.joint is None else record.joint.start, record.estimate.block("means")
    moved = short.estimate.params[means] - long.params[means]
    changes = moved[1:] - moved[0]
    found = []
    for scale, without, change in zip(scales, bias_scales(short, short.used_weight_fit), changes, strict=True):
        of_y, of_d = without.variance - scale.variance, scale.nu - without.nu
        largest = np.sqrt(of_y * of_d) if min(of_y, of_d) > 0 else 0.0
        rho = np.sign(change) * (min(abs(change) / largest, 1.0) if largest else 1.0)
        cf_y, cf_d = np.clip([of_y / (scale.variance or 1.0), of_d / without.nu], 0, 1).tolist()
        found.append({"cf_y": cf_y, "cf_d": cf_d, "rho": float(rho), "change": float(change)})
    return found


def sensitivity_bounds(
    record: FitRecord,
    cf_y: float | Sequence[float] = STRENGTHS,
    cf_d: float | Sequence[float] = STRENGTHS,
    rho: float = 1.0,
    alpha: float = 0.05,
    benchmark: str | Sequence[str] | None = None,
) -> pd.DataFrame:
    """Bounds on the effect if a confounder of a given strength was omitted.

    Parameters
    ----------
    cf_y : float or sequence of float
        Share of the residual variance of the outcome that the confounder explains, from 0 to 1.
    cf_d : float or sequence of float
        Share of the variance of the importance weights that is due to the confounder, at least 0 and below 1. It is
        1 - E w^2 / E w_full^2, where w_full are the weights that also use the confounder. If the treatment is linear in
        the covariates, cf_d is the partial R^2 of the confounder with the treatment.
    rho : float, default 1
        Correlation of the errors that the omission causes in the outcome model and the weights. 1 is the worst case.
    alpha : float, default 0.05
        Significance level of the intervals.
    benchmark : str or sequence of str, optional
        Covariates to compare with. The bounds are then for a confounder as strong as each covariate, instead of `cf_y`
        and `cf_d`.

    Returns
    -------
    DataFrame
        One row per pair of strengths (and group). "lower" and "upper" are the bounds on the effect, a difference of
        means. "ci lower" and "ci upper" are confidence limits of the bounds, from robust standard errors. With
        `benchmark`, there is one row per covariate, with its strengths "cf_y" and "cf_d", the correlation "rho", and
        the "change" of the effect in a fit without the covariate (for JRE, of IPWRA's effect).

    Warns
    -----
    DesignWarning
        If leaving out a covariate does not raise the error of the outcome model, or does not lower the variance of the
        weights. Both bounds then equal the estimate, and the covariate cannot serve as a benchmark.

    Notes
    -----
    The bounds are effect -+ abs(rho) S sqrt(cf_y cf_d / (1 - cf_d)). The docstring of `sensitivity` defines S, states
    the assumptions and has the reference, where the formula is theorem 2.

    The strengths of a covariate are computed as in DoubleML, by fitting both models without it. cf_y is the relative
    increase of E (Y - g)^2 when the covariate is left out. cf_d is the relative increase of E w^2 when the
    covariate is added. Both are clipped to the range from 0 to 1.

    Examples
    --------
    >>> from causalrisk import AIPW, datasets
    >>> births = datasets.load_cattaneo2()
    >>> res = AIPW.from_formula(
    ...     "bweight ~ mage + medu + mmarried", births, treat="mbsmoke"
    ... ).fit()
    >>> res.sensitivity_bounds(benchmark="mmarried").iloc[:, :6].round(2)
               cf_y  cf_d   rho  change   lower   upper
    benchmark
    mmarried   0.01  0.11 -0.47   -25.2 -293.26 -175.37
    """
    record.check_means("sensitivity_bounds()")
    errors.check_alpha(alpha)
    shares = [np.atleast_1d(pd.to_numeric(values, errors="coerce")).astype(float) for values in (cf_y, cf_d)]
    for name, typed, values in (("cf_y", cf_y, shares[0]), ("cf_d", cf_d, shares[1])):
        if not ((values >= 0) & (values <= 1 if name == "cf_y" else values < 1)).all():
            instead = f'Use `{name}=0.03`, or `benchmark="x"` for the strength of a covariate.'
            expected = "numbers from 0 to 1" if name == "cf_y" else "numbers from 0 to below 1"
            raise errors.OptionError(f"{name}={typed!r}; expected {expected}.\n{instead}")
    if not (errors.is_number(rho) and -1 <= rho <= 1):
        raise errors.OptionError(f"rho={rho!r}; expected a correlation, from -1 to 1.\nUse `rho=1`.")
    record.check_observed(CONFOUNDER)
    scales = bias_scales(record, record.used_weight_fit)
    labels, z = record.design.labels[1:], float(critical_value(alpha, record.df))

    def bounds(scale: BiasScale, y: float, d: float) -> dict[str, float]:
        if d == 1 and y * rho != 0:  # possible for a benchmark: there is no bound
            return {"lower": -np.inf, "upper": np.inf, "ci lower": -np.inf, "ci upper": np.inf}
        strength = abs(rho) * float(np.sqrt(y * d / (1 - d))) if d < 1 else 0.0
        (low, low_se), (high, high_se) = (scale.bound(record, sign * strength) for sign in (-1, 1))
        return {"lower": low, "upper": high, "ci lower": low - z * low_se, "ci upper": high + z * high_se}

    rows: dict[tuple[Any, ...], dict[str, float]]
    if benchmark is None:
        names, arms = ["arm", "cf_y", "cf_d"], zip(labels, scales, strict=True)
        grid = product(arms, shares[0].tolist(), shares[1].tolist())
        rows = {(label, y, d): bounds(scale, y, d) for (label, scale), y, d in grid}
    else:
        given, names = [benchmark] if isinstance(benchmark, str) else list(benchmark), ["arm", "benchmark"]
        rows = {
            (label, name): found | bounds(scale, found["cf_y"], found["cf_d"])
            for name in given
            for label, scale, found in zip(labels, scales, covariate_strengths(record, scales, name), strict=True)
        }
        _warn_of_no_strength(rows)
    index = pd.MultiIndex.from_tuples(rows, names=names)
    table = pd.DataFrame(rows.values(), index=index)
    return table.droplevel("arm") if len(scales) == 1 else table


def _warn_of_no_strength(rows: dict[tuple[Any, ...], dict[str, float]]) -> None:
    """Warn about benchmarks with zero strength, whose bounds equal the effect."""
    reasons = {"cf_y": "raise the error of the outcome model", "cf_d": "lower the variance of the weights"}
    for column, why in reasons.items():
        none = dict.fromkeys(name for (_, name), found in rows.items() if found[column] == 0)
        if names := errors.listed(tuple(none)):
            lost = f"leaving out {names} does not {why}, so {column} is 0 and the bounds equal the effect"
            errors.warn_user(f"{lost}.\nUse another covariate in `benchmark=`.", errors.DesignWarning)


GAMMAS = (1.0, 1.25, 1.5, 2.0, 3.0)


def rosenbaum_bounds(
    treated: Any, control: Any = None, gamma: float | Sequence[float] = GAMMAS, alternative: str = "larger"
) -> pd.DataFrame:
    """Rosenbaum's bounds on the p-value of matched pairs if a confounder was omitted.

    Parameters
    ----------
    treated, control : array_like, shape (n,)
        Outcomes of the treated and the control unit of each pair. No unit is in two pairs.
    gamma : float or sequence of float
        Largest odds ratio of treatment between the two units of a pair, at least 1.
    alternative : {"larger", "smaller"}
        Alternative hypothesis: the treatment raises (default) or lowers the outcome.

    Returns
    -------
    DataFrame
        One row per gamma: "lower p" and "upper p", the bounds on the one-sided p-value of Wilcoxon's signed rank test.

    Notes
    -----
    If there is no effect, the treated unit of a pair has the higher outcome with a probability between 1 / (1 + gamma)
    and gamma / (1 + gamma) [1]_. P-values use the normal distribution, as in R's rbounds.

    References
    ----------
    .. [1] Rosenbaum, P. R. (2002). Observational Studies, second edition, chapter 4. Springer.

    Examples
    --------
    >>> from causalrisk import rosenbaum_bounds
    >>> with_drug = [5.1, 6.0, 4.8, 7.2, 6.6, 5.9, 6.1, 7.0, 5.5, 6.3]
    >>> without = [4.2, 5.1, 5.0, 5.8, 5.1, 5.2, 5.5, 5.6, 5.0, 5.2]
    >>> rosenbaum_bounds(with_drug, without, [1, 2, 3]).round(4)
           lower p  upper p
    gamma
    1.0     0.0034   0.0034
    2.0     0.0001   0.0304
    3.0     0.0000   0.0666
    """
    alternative = errors.one_of("alternative", alternative, ("larger", "smaller"))
    if control is None or hasattr(treated, "matches"):
        expected = "rosenbaum_bounds() needs the outcomes of both units of each pair"
        found = f"{expected}, with each unit in one pair. `Matching` can use a unit several times"
        raise errors.OptionError(f"{found}.\nUse `res.sensitivity_bounds()` of AIPW.")
    limits = np.atleast_1d(np.asarray(gamma, dtype=float))
    pairs = [np.asarray(pd.to_numeric(outcomes, errors="coerce"), dtype=float) for outcomes in (treated, control)]
    if not (limits >= 1).all():
        raise errors.OptionError(f"gamma={gamma!r}; expected odds ratios of at least 1.\nUse `gamma=[1, 1.5, 2]`.")
    if pairs[0].ndim != 1 or pairs[0].shape != pairs[1].shape or not all(np.isfinite(one).all() for one in pairs):
        found = f"treated and control have shapes {pairs[0].shape} and {pairs[1].shape}"
        raise errors.DesignError(f"{found}; expected two vectors of numbers of equal length, without missing values.")
    differences = (pairs[0] - pairs[1]) * (1 if alternative == "larger" else -1)
    differences = differences[differences != 0]
    ranks = pd.Series(np.abs(differences)).rank().to_numpy()
    statistic, high = ranks[differences > 0].sum(), limits / (1 + limits)
    error = np.sqrt(high * (1 - high) * (ranks @ ranks))
    low_p, high_p = (ndtr((share * ranks.sum() - statistic) / error) for share in (1 - high, high))
    return pd.DataFrame({"lower p": low_p, "upper p": high_p}, index=pd.Index(limits, name="gamma"))
