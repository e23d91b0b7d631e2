"""Quantiles and distribution functions of the potential outcomes, for rows in memory.

Let z_i be the indicator 1{y_i <= q}. F_a(q) is the estimator's mean of z in arm a. For IPW it is the weighted share of
outcomes up to q. For AIPW it is the average prediction of a logit of z on the terms of the outcome formula, plus the
average weighted residual. The quantile at tau is the smallest outcome q of the arm with F_a(q) >= tau. Its influence
function is minus the influence function of F_a(q), divided by the density f_a(q). The density is the derivative of
F_a(q), computed with a kernel around q instead of z.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from causalrisk.design.design import Design
from causalrisk.errors import CausalRiskError, DesignWarning, Failure, Notes, SeparationError, first_failure
from causalrisk.estimation.engine import Point, value_of
from causalrisk.estimation.fits import Estimate, Refits, SeparateRows, WeightFit, collect_refits, estimate_means
from causalrisk.estimation.sample import Sample
from causalrisk.estimation.specification import EffectScale, Specification
from causalrisk.numerics.arrays import Array
from causalrisk.numerics.families import outcome_family

INDICATOR = outcome_family("binomial", None)
ROUNDING = 1e-10  # a distribution function reaches a level if it is no further below it than this


@dataclass(frozen=True)
class ArmSteps:
    """The distinct outcomes of an arm.

    `values` are the outcomes in ascending order. `rows` are the arm's rows sorted by outcome. `ends` has the position
    in `rows` of the last row of each outcome.
    """

    rows: NDArray[np.intp]
    ends: NDArray[np.intp]
    values: Array

    def cumulated(self, steps: Array) -> Array:
        """Return cumulative sums of row weights `steps` (n, ...) up to each distinct outcome, shape (d, ...)."""
        return np.asarray(np.cumsum(steps[self.rows], axis=0)[self.ends])


def arm_steps(sample: Sample) -> list[ArmSteps]:
    """Sort the rows of each arm by their outcomes."""
    found = []
    for members in sample.slices:
        own = np.arange(members.start, members.stop)[sample.with_outcome[members] > 0]
        rows = own[np.argsort(sample.y[own], kind="stable")]
        y = sample.y[rows]
        ends = np.r_[np.flatnonzero(np.diff(y)), len(y) - 1]
        found.append(ArmSteps(rows, ends, y[ends]))
    return found


def reached(heights: Array, level: Array | float) -> NDArray[np.intp]:
    """Return the first position at which ascending `heights` (d, ...) reach a level, or d if they never do."""
    at = heights >= np.asarray(level) - ROUNDING
    return np.where(at.any(axis=0), at.argmax(axis=0), len(heights))


def normalised(steps: Array, arms: Sequence[ArmSteps], spec: Specification) -> Array:
    """Return row weights (n, ...). If the outcome models are constants, the weights of each arm sum to one."""
    if not spec.constants:
        return steps
    steps = steps.copy()
    for arm in arms:
        steps[arm.rows] /= steps[arm.rows].sum(axis=0)
    return steps


def distribution_at(weights: WeightFit, spec: Specification, sample: Sample, thresholds: Array) -> Estimate:
    """Estimate the distribution function of each arm at the arm's threshold. `thresholds` has shape (K,)."""
    indicated = dataclasses.replace(sample, y=(sample.y <= thresholds[sample.arm]).astype(float), family=INDICATOR)
    equations = dataclasses.replace(weights.equations, sample=indicated)
    return estimate_means(dataclasses.replace(weights, equations=equations), spec)


# --- the density ---------------------------------------------------------------------------------------------------


def densities(rows: SeparateRows, kernel: Array) -> tuple[Array, Array]:
    """Return the density of each arm at its threshold, and the part of it that comes from the outcome models.

    The kernel replaces the indicator as the outcome. This changes the equations of the outcome models, and therefore
    the means. The residuals in the means of AIPW also contain the kernel.
    """
    equations, sample = rows.equations, rows.equations.sample
    moved, weighed = dict[str, Array](), dict[str, Array]()
    for a, members in enumerate(sample.slices):
        pull = sample.s[members] * kernel[members] * sample.with_outcome[members]
        w = value_of(equations.weight(Point(rows.beta, members), a)) * np.ones((len(pull), 1))
        u = w[:, 0] if equations.spec.weighted else 1.0
        moved[f"outcome {a}"] = equations.columns[members].T @ (pull * u)
        if equations.spec.corrected:
            weighed[f"correction {a}" if equations.corrects_apart else f"mean {a}"] = np.array([pull @ w[:, 0]])
    factors = rows.of_blocks().factors  # they map the equations of each block to coefficients

    def change(which: dict[str, Array], a: int) -> float:
        found = factors[f"mean {a}"]
        return sum(float((found[name] @ which[name])[0]) for name in found if name in which) / sample.total

    density, drift = (np.array([change(which, a) for a in range(sample.n_arms)]) for which in (moved | weighed, moved))
    return density, np.zeros_like(drift) if equations.spec.constants else drift


def bandwidth(y: Array, weights: Array, units: Array, level: float) -> float:
    """Return the half width of the kernel for the density at a quantile. Each row represents `units` units.

    Notes
    -----
    Hall and Sheather's h [1]_ is computed for the effective n of the weights, and is at most half of the way from the
    level to 0 or 1. As in Koenker [2]_, the half width is the distance between the normal quantiles of level - h and
    level + h, times the standard deviation, or times the interquartile range / 1.34 if this is smaller.

    References
    ----------
    .. [1] Hall, P. and Sheather, S. J. (1988). On the distribution of a studentized quantile. Journal of the Royal
       Statistical Society B 50, 381-391.
    .. [2] Koenker, R. (2005). Quantile Regression, section 3.4.2. Cambridge University Press.
    """
    from statsmodels.regression.quantile_regression import hall_sheather  # imported here, because it is slow

    share = weights / weights.sum()
    order = np.argsort(y, kind="stable")
    low, high = (y[order][reached(np.cumsum(share[order]), part)] for part in (0.25, 0.75))
    spread = np.sqrt(share @ (y - share @ y) ** 2)
    if high > low:
        spread = min(spread, (high - low) / 1.34)
    effective_n = 1 / float((share**2 / units).sum())
    h = min(hall_sheather(effective_n, level), level / 2, (1 - level) / 2)
    return float(spread * (ndtri(level + h) - ndtri(level - h)))


# --- the estimate --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LevelFit:
    """The quantiles of all arms at one level.

    `thresholds` are the quantiles, and `places` their positions among the arm's distinct outcomes. `estimate` has the
    distribution functions at the thresholds. `density` and `drift` are the results of `densities`.
    """

    level: float
    places: NDArray[np.intp]
    thresholds: Array
    estimate: Estimate
    density: Array
    drift: Array


@dataclass(frozen=True)
class QuantileRows:
    """The results by row of an `Estimate` of quantiles."""

    fits: tuple[LevelFit, ...]
    scale: EffectScale
    arms: tuple[ArmSteps, ...]

    @property
    def influence(self) -> Array:
        """Influence function of (params, gamma), as in `Estimate`. There is no theta."""
        means, gamma = (self.fits[0].estimate.block(name) for name in ("means", "gamma"))
        every = [fit.estimate.influence for fit in self.fits]
        of_arms = [-values[:, means] / fit.density for fit, values in zip(self.fits, every, strict=True)]
        own = np.stack(of_arms, axis=2).reshape(len(every[0]), -1)
        return np.concatenate([self.scale.params(own.T).T, every[0][:, gamma]], axis=1)  # effects are differences

    def refit(self, s: Array, weighed: Any = None) -> Refits:
        """Return quantiles under row weights (n, R). Outcome models are refitted at the sample's quantiles only."""
        arms, first = self.arms, self.fits[0].estimate.rows
        weighed = weighed or first.weights.refit(s)
        with np.errstate(invalid="ignore", divide="ignore"):  # resamples without rows in an arm have a failure code
            steps = normalised(first.steps(s, weighed), arms, first.equations.spec)
        heights = [arm.cumulated(steps) for arm in arms]
        failures, quantiles, m = np.zeros(s.shape[1], dtype=np.int8), [], s.shape[1]
        for fit in self.fits:
            found, of_arms = fit.estimate.rows.refit(s, weighed), []
            failures = first_failure(failures, found.failures)
            means = found.values[:, fit.estimate.block("means")].T
            for a, arm in enumerate(arms):
                drift = fit.drift[a] * (arm.values - fit.thresholds[a])
                rise = heights[a] - heights[a][fit.places[a]] + drift[:, None]
                of_arms.append(np.append(arm.values, np.nan)[reached(rise, fit.level - means[a])])
            quantiles.append(np.stack(of_arms))
        gamma = found.values[:, fit.estimate.block("gamma")].T
        params = self.scale.params(np.stack(quantiles, axis=1).reshape(-1, m))
        return collect_refits(params, np.empty((len(arms), 0, m)), gamma, failures)


def estimate_quantiles(
    weights: WeightFit, spec: Specification, design: Design, scale: EffectScale, notes: Notes
) -> Estimate:
    """Find the quantiles of every arm, with their influence function.

    References
    ----------
    .. [1] Firpo, S. (2007). Efficient semiparametric estimation of quantile treatment effects. Econometrica 75,
       259-276.
    .. [2] Chernozhukov, V., Fernandez-Val, I. and Melly, B. (2013). Inference on counterfactual distributions.
       Econometrica 81, 2205-2268.
    """
    sample = weights.equations.sample
    arms = arm_steps(sample)
    used = weights.w if spec.uses_propensity else sample.with_outcome
    steps = normalised(sample.s / sample.total * used, arms, spec)
    units = sample.s if design.weight_type == "frequency" else np.ones(sample.n)
    fits = tuple(_fit_level(weights, spec, design, arms, steps, units, level) for level in scale.quantiles)
    _warn_of_ends(design, fits, notes)
    _warn_of_masses(design, sample.y, arms, steps, units, fits, notes)
    means = np.stack([fit.thresholds for fit in fits], axis=1).ravel()  # by arm, then by level
    theta, rows = np.empty((sample.n_arms, 0)), QuantileRows(fits, scale, tuple(arms))
    return Estimate(scale.params(means), theta, fits[0].estimate.gamma, means, rows)


def _fit_level(
    weights: WeightFit, spec: Specification, design: Design, arms: Sequence[ArmSteps], steps: Array, units: Array,
    level: float,
) -> LevelFit:  # fmt: skip
    """Return the quantiles of all arms at one level, with distribution functions and densities at the quantiles."""
    sample, heights = weights.equations.sample, [arm.cumulated(steps) for arm in arms]
    curves, ends = [height / height[-1] for height in heights], np.array([len(arm.values) - 1 for arm in arms])
    low, high = np.full(len(arms), -1), ends + 1  # places known to be below the level, and known to reach it
    places = np.array([reached(curve, level) for curve in curves])
    while True:
        thresholds = np.array([arm.values[place] for arm, place in zip(arms, places, strict=True)])
        found = distribution_at(weights, spec, sample, thresholds)
        means, last = found.params[found.block("means")], places.copy()
        for a, place in enumerate(last):
            if found.failed[a] == Failure.OK:  # row weights predict the distribution function elsewhere
                curves[a] = heights[a] - heights[a][place] + means[a]
            if curves[a][place] >= level - ROUNDING:
                high[a] = place
            else:
                low[a] = place
            if high[a] - low[a] > 1:
                places[a] = np.clip(reached(curves[a], level), low[a] + 1, high[a] - 1)
            elif high[a] <= ends[a]:
                places[a] = high[a]
            else:
                problem = f"the estimated distribution function of {design.endog_name!r} in group {design.labels[a]!r}"
                advice = f"Use levels below {level:g} in `quantiles=`, or simplify propensity=."
                raise CausalRiskError(f"{problem} is below {level:g} at all outcomes except the largest.\n{advice}")
        if (places == last).all():
            break
    for label, reason, threshold, end in zip(design.labels, found.failed, thresholds, places == ends, strict=True):
        if reason != Failure.OK:
            advice = "Simplify the outcome formula" if not end else f"Use levels below {level:g} in `quantiles=`"
            problem = f"the logit of {design.endog_name!r} <= {threshold:.6g} in group {label!r} has no finite fit"
            raise SeparationError(f"{problem} (quantile {level:g}).\n{advice}, or use `IPW`, which has no logit.")
    widths = np.array([bandwidth(sample.y[a.rows], steps[a.rows], units[a.rows], level) for a in arms])
    u = (sample.y - thresholds[sample.arm]) / widths[sample.arm]
    kernel = np.where(np.abs(u) <= 1, 0.75 * (1 - u**2), 0.0) / widths[sample.arm]  # Epanechnikov's
    density, drift = densities(found.rows, kernel)
    # At the largest outcome, the distribution function is always one. A negative density is no estimate.
    density[(places == ends) | (density <= 0)] = np.nan
    return LevelFit(level, places, thresholds, found, density, drift)


def _warn_of_ends(design: Design, fits: Sequence[LevelFit], notes: Notes) -> None:
    ends = [
        f"quantile {fit.level:g} of group {label!r} ({threshold:.6g})"
        for fit in fits
        for label, threshold, density in zip(design.labels, fit.thresholds, fit.density, strict=True)
        if np.isnan(density)
    ]
    if ends:
        problem = f"the robust standard error is NaN for {', '.join(ends)}"
        why = "The quantile is the largest outcome of its group, or the estimated density there is not positive"
        advice = "Use other levels in `quantiles=`, or `IPW`, which has no outcome model."
        notes.warn(f"{problem}. {why}.\n{advice}", DesignWarning)


def _warn_of_masses(
    design: Design, y: Array, arms: Sequence[ArmSteps], steps: Array, units: Array, fits: Sequence[LevelFit],
    notes: Notes,
) -> None:  # fmt: skip
    """Warn if the share of rows tied at a quantile exceeds the standard error of the distribution function."""
    shared = []
    for a, arm in enumerate(arms):
        held, times = steps[arm.rows] / steps[arm.rows].sum(), units[arm.rows]
        for fit in fits:
            tied = (y[arm.rows] == fit.thresholds[a]) & (fit.density[a] > 0)  # not at the largest
            share, error = held[tied].sum(), np.sqrt(fit.level * (1 - fit.level) * (held**2 / times).sum())
            if times[tied].sum() > 1 and share > error:
                at = f"{fit.thresholds[a]:.6g} (quantile {fit.level:g})"
                shared.append(f"{share:.0%} of group {design.labels[a]!r} at {at}")
    if shared:
        where = f"quantiles of {design.endog_name!r} are at values that many rows share ({', '.join(shared)})"
        problem = f"{where}, but standard errors assume a smooth distribution"
        notes.warn(f"{problem}.\nUse `res.distribution()`, whose bands remain valid.", DesignWarning)
