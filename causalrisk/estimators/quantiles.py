"""Quantiles and distribution functions of the potential outcomes, in memory.

Flows in: rows with their importance weights. Flows out: an `Estimate` and its batched refits. With the indicator
z_i = 1{y_i <= q}, F_a(q) is the mean that the estimator has of z in arm a: for Hajek the weighted share of outcomes up
to q, for AIPW the average of a logit of z on the terms of the outcome formula, with its weighted residuals. The
quantile at tau is the smallest outcome of the arm with F_a(q) >= tau, where the logit is that of the indicator at q
itself. Its influence function is that of F_a(q), less and over the density f_a(q): the derivative of F_a(q), in which
a kernel around q has the place of z.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from causalrisk.design import Design
from causalrisk.errors import (
    CausalRiskError,
    DesignWarning,
    Failure,
    Notes,
    OptionError,
    SeparationError,
    first_failure,
)
from causalrisk.estimators.estimates import ROWS_TOGETHER, Estimate, Refits, collect_refits
from causalrisk.estimators.outcome import TrainedRows
from causalrisk.estimators.problem import kept
from causalrisk.estimators.refit import ARRAYS, SeparateRefitter
from causalrisk.estimators.sample import Sample
from causalrisk.estimators.separate import SolvedMeans, Trained, WeighedRows, kept_estimate, solve_means, train
from causalrisk.estimators.specification import DIFFERENCE, EffectScale, Specification
from causalrisk.numerics.blocks import add_up
from causalrisk.numerics.families import outcome_family
from causalrisk.numerics.linalg import Array, solve
from causalrisk.numerics.newton import NewtonFits
from causalrisk.propensity.targets import Target
from causalrisk.propensity.weights import WeightFit

INDICATOR = outcome_family("binomial", None)
ROUNDING = 1e-10  # of a distribution function, by which a step may stay below its level
TURNS = 50  # of the search for a quantile, each of which fits the model of its indicator


@dataclass(frozen=True)
class ArmSteps:
    """The distinct outcomes of an arm.

    Parameters
    ----------
    rows : ndarray of int, shape (n_a,)
        Its rows in the order of their outcomes.
    ends : ndarray of int, shape (d,)
        Place of the last row of each outcome among them.
    values : ndarray, shape (d,)
        The outcomes, ascending.
    """

    rows: NDArray[np.intp]
    ends: NDArray[np.intp]
    values: Array

    def cumulated(self, steps: Array) -> Array:
        """Return the sums of the steps of all rows, shape (n, ...), up to each outcome, shape (d, ...)."""
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
    """Return the first place where ascending heights, shape (d, ...), reach a level; d where none does."""
    at = heights >= np.asarray(level) - ROUNDING
    return np.where(at.any(axis=0), at.argmax(axis=0), len(heights))


def normalised(steps: Array, arms: Sequence[ArmSteps], spec: Specification) -> Array:
    """Return steps, shape (n, ...), that add up to one in each arm if the outcome models are constants."""
    if not spec.constants:
        return steps
    steps = steps.copy()
    for arm in arms:
        steps[arm.rows] /= steps[arm.rows].sum(axis=0)
    return steps


def with_outcome(weighed: WeighedRows, y: Array) -> WeighedRows:
    """Return the rows with other outcomes, of indicators."""
    problem = kept(weighed.problem)
    sample = dataclasses.replace(problem.sample, y=y, family=INDICATOR)
    return dataclasses.replace(weighed, problem=dataclasses.replace(problem, sample=sample))


def distribution_at(weighed: WeighedRows, sample: Sample, thresholds: Array) -> tuple[Trained, SolvedMeans]:
    """Estimate the distribution function of each arm at a threshold, shape (K,), of its own."""
    trained = train(with_outcome(weighed, (sample.y <= thresholds[sample.arm]).astype(float)))
    return trained, solve_means(trained.weighed.problem.spec.mean, trained.over)


# --- the density ---------------------------------------------------------------------------------------------------


def _kernel_sums(rows: TrainedRows) -> tuple[Array, Array]:
    """Sum what outcomes of a kernel add to the scores of the outcome models, (K, p), and to weighted means, (K,)."""
    sample, share = rows.sample, rows.sample.s / rows.sample.total * rows.sample.y
    pull = [rows.q[a].T @ (share * rows.training)[a] for a in sample.slices]
    direct = [float((share * rows.weights.w * sample.in_sample)[a].sum()) for a in sample.slices]
    return np.stack(pull), np.array(direct)


def densities(trained: Trained, at: SolvedMeans, kernel: Array) -> tuple[Array, Array]:
    """Return the derivatives of the distribution functions by their thresholds.

    Parameters
    ----------
    kernel : ndarray, shape (n,)
        Kernel of the distance of each outcome from the threshold of its arm.

    Returns
    -------
    density : ndarray, shape (K,)
        As the thresholds move with the models of their indicators.
    drift : ndarray, shape (K,)
        What of it is by the models of the indicators alone; zero where these are constants.
    """
    spec = trained.weighed.problem.spec
    of_kernel = dataclasses.replace(trained, weighed=with_outcome(trained.weighed, kernel))
    pull, direct = add_up(of_kernel.over(_kernel_sums))
    by_models = np.array([
        float((by_theta @ solve(bread, own))[0])
        for (by_theta, _), bread, own in zip(at.sums.derivatives, at.sums.theta.bread, pull, strict=True)
    ])  # fmt: skip
    if spec.constants:
        return by_models, np.zeros_like(by_models)
    return by_models + direct, by_models


def bandwidth(y: Array, weights: Array, units: Array, level: float) -> float:
    """Return the half width of the kernel of a density at a quantile.

    Parameters
    ----------
    y, weights : ndarray, shape (n,)
        Outcomes and their weights.
    units : ndarray, shape (n,)
        Observations that each row stands for.

    Notes
    -----
    Hall and Sheather's h [1]_ for the effective n of the weights, at most half of the way to 0 or 1, turned into units
    of the outcome as Koenker does [2]_: the normal quantiles of level - h and level + h are as far apart as twice the
    half width, in standard deviations, or interquartile ranges over 1.34 if these are smaller.

    References
    ----------
    .. [1] Hall, P. and Sheather, S. J. (1988). On the distribution of a studentized quantile. Journal of the Royal
       Statistical Society B 50, 381-391.
    .. [2] Koenker, R. (2005). Quantile Regression, section 3.4.2. Cambridge University Press.
    """
    share = weights / weights.sum()
    order = np.argsort(y, kind="stable")
    low, high = (y[order][reached(np.cumsum(share[order]), part)] for part in (0.25, 0.75))
    spread = np.sqrt(share @ (y - share @ y) ** 2)
    if high > low:
        spread = min(spread, (high - low) / 1.34)
    z = ndtri(level)
    height = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    n = 1 / float((share**2 / units).sum())
    h = n ** (-1 / 3) * ndtri(0.975) ** (2 / 3) * (1.5 * height**2 / (2 * z**2 + 1)) ** (1 / 3)
    h = min(h, level / 2, (1 - level) / 2)
    return float(spread * (ndtri(level + h) - ndtri(level - h)))


def _kernel(sample: Sample, thresholds: Array, widths: Array) -> Array:
    """Epanechnikov's kernel of the distance of each outcome from the threshold of its arm, shape (n,)."""
    u = (sample.y - thresholds[sample.arm]) / widths[sample.arm]
    return np.where(np.abs(u) <= 1, 0.75 * (1 - u**2), 0.0) / widths[sample.arm]


# --- the estimate --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LevelFit:
    """The quantiles of all arms at one level.

    Parameters
    ----------
    level : float
        The level tau.
    places : ndarray of int, shape (K,)
        Place of each quantile among the distinct outcomes of its arm.
    thresholds : ndarray, shape (K,)
        The quantiles.
    sample : Sample
        The rows with the indicators as outcomes.
    estimate : Estimate
        The distribution functions at the quantiles.
    density, drift : ndarray, shape (K,)
        As by `densities`.
    """

    level: float
    places: NDArray[np.intp]
    thresholds: Array
    sample: Sample
    estimate: Estimate
    density: Array
    drift: Array


@dataclass(frozen=True)
class QuantileRows:
    """The influence function of quantiles, as in `EstimateRows`."""

    fits: tuple[LevelFit, ...]
    scale: EffectScale

    @property
    def predicted(self) -> Array:
        """Quantiles have no predictions of single rows."""
        raise TypeError("quantiles have no predictions of single rows")

    @property
    def influence(self) -> Array:
        """As in `EstimateRows`."""
        return np.concatenate([values for _, values in self.blocks()])

    def blocks(self) -> Iterator[tuple[slice, Array]]:
        """As in `EstimateRows`."""
        means, gamma = (self.fits[0].estimate.block(name) for name in ("means", "gamma"))
        jacobian = self.scale.jacobian(quantiles_of(self.fits))
        for parts in zip(*(fit.estimate.rows.blocks() for fit in self.fits), strict=True):
            of_arms = [-values[:, means] / fit.density for fit, (_, values) in zip(self.fits, parts, strict=True)]
            rows, values = parts[0]
            own = np.stack(of_arms, axis=2).reshape(len(values), -1)
            yield rows, np.concatenate([own @ jacobian.T, values[:, gamma]], axis=1)


def quantiles_of(fits: Sequence[LevelFit]) -> Array:
    """Quantiles, those of an arm together, shape (K J,)."""
    return np.stack([fit.thresholds for fit in fits], axis=1).ravel()


def check_quantiles(design: Design) -> None:
    """Refuse quantiles of an outcome of two values."""
    if design.has_binary_outcome:
        raise OptionError(f'quantiles of a 0/1 outcome, {design.endog_name!r}, are 0 or 1.\nUse `effect="difference"`.')


def estimate_quantiles(
    weighed: WeighedRows, design: Design, scale: EffectScale, notes: Notes
) -> tuple[Trained, SolvedMeans, Estimate]:
    """Find the quantiles of every arm.

    Returns
    -------
    trained : Trained
        The rows under the models of the indicators at the first level.
    at : SolvedMeans
        The distribution functions at the first level.
    estimate : Estimate
        The quantiles, with their influence function.

    Raises
    ------
    SeparationError
        If the covariates predict an indicator perfectly.
    CausalRiskError
        If a distribution function does not reach a level, or has no density there.

    References
    ----------
    .. [1] Firpo, S. (2007). Efficient semiparametric estimation of quantile treatment effects. Econometrica 75,
       259-276.
    .. [2] Chernozhukov, V., Fernandez-Val, I. and Melly, B. (2013). Inference on counterfactual distributions.
       Econometrica 81, 2205-2268.
    """
    problem = kept(weighed.problem)
    sample, arms = problem.sample, arm_steps(problem.sample)
    plain = sample.s / sample.total * weighed.weights.of(problem.some_block()).w
    steps = normalised(plain, arms, problem.spec)
    units = sample.s if design.weight_type == "frequency" else np.ones(sample.n)
    _check_levels(design, arms, steps / units, units, scale.quantiles)
    found = [_fit_level(weighed, design, arms, steps, units, level) for level in scale.quantiles]
    fits = [fit for _, _, fit in found]
    _warn_of_masses(design, arms, steps / units, fits, notes)
    trained, at, _ = found[0]
    means = quantiles_of(fits)
    codes = zip(*(fit.estimate.failed for fit in fits), strict=True)
    estimate = Estimate(
        params=scale.params(means),
        theta=np.empty((sample.n_arms, 0)),
        gamma=fits[0].estimate.gamma,
        model_means=means,
        rows=QuantileRows(tuple(fits), scale),
        failed=tuple(max(of_arm) for of_arm in codes),
    )
    return trained, at, estimate


def _check_levels(
    design: Design, arms: Sequence[ArmSteps], contributions: Array, units: Array, levels: Sequence[float]
) -> None:
    """Refuse levels beyond which an arm has less than one outcome."""
    for arm, label in zip(arms, design.labels, strict=True):
        own, counts = contributions[arm.rows], units[arm.rows]
        n = float((counts @ own) ** 2 / (counts @ own**2))
        for level in levels:
            if n * min(level, 1 - level) < 1 - ROUNDING:
                raise CausalRiskError(
                    f"quantile {level:g}: arm {label!r} has less than one of its {n:.1f} (effective) outcomes beyond "
                    f"it.\nUse levels from {1 / n:.2g} to {1 - 1 / n:.2g} in `quantiles=`."
                )


def _fit_level(
    weighed: WeighedRows, design: Design, arms: Sequence[ArmSteps], steps: Array, units: Array, level: float
) -> tuple[Trained, SolvedMeans, LevelFit]:
    """Find the quantiles at one level, and the distribution functions and densities there."""
    sample, heights = kept(weighed.problem).sample, [arm.cumulated(steps) for arm in arms]
    start = [reached(height / height[-1], level) for height in heights]
    places, met = np.array(start), [{int(place)} for place in start]
    for _ in range(TURNS):
        thresholds = np.array([arm.values[place] for arm, place in zip(arms, places, strict=True)])
        trained, at = distribution_at(weighed, sample, thresholds)
        _check_indicators(trained, design, thresholds, level)
        moved = places.copy()
        for a, height in enumerate(heights):
            place = int(reached(height - height[places[a]] + at.means[a], level))
            if place == len(height):
                raise CausalRiskError(
                    f"the estimated distribution function of {design.endog_name!r} in arm {design.labels[a]!r} does "
                    f"not reach {level:g} below the largest outcome.\n"
                    f"Use levels below {level:g} in `quantiles=`, or simplify propensity=."
                )
            if place == places[a] or place in met[a]:  # the search of an arm ends where it has been before
                continue
            met[a].add(place)
            moved[a] = place
        if (moved == places).all():
            break
        places = moved
    widths = np.array([bandwidth(sample.y[a.rows], steps[a.rows], units[a.rows], level) for a in arms])
    density, drift = densities(trained, at, _kernel(sample, thresholds, widths))
    if (density <= 0).any():
        a = int(np.argmin(density))
        raise CausalRiskError(
            f"the estimated density of {design.endog_name!r} at its quantile {level:g} in arm {design.labels[a]!r} is "
            "negative.\nUse `Hajek`, which has no outcome model, or simplify the outcome formula."
        )
    estimate = kept_estimate(trained, at, weighed.weights.coefficients, DIFFERENCE)
    indicated = kept(trained.weighed.problem).sample
    return trained, at, LevelFit(level, places, thresholds, indicated, estimate, density, drift)


def _check_indicators(trained: Trained, design: Design, thresholds: Array, level: float) -> None:
    """Refuse a model of an indicator without a finite fit."""
    for label, reason, threshold in zip(design.labels, trained.failed, thresholds, strict=True):
        if reason != Failure.OK:
            raise SeparationError(
                f"the logit of {design.endog_name!r} <= {threshold:.6g}, for the quantile {level:g} of arm {label!r}, "
                "has no finite fit.\nSimplify the outcome formula, or use `Hajek`, which has no logit."
            )


def _warn_of_masses(
    design: Design, arms: Sequence[ArmSteps], contributions: Array, fits: Sequence[LevelFit], notes: Notes
) -> None:
    """Warn of quantiles at outcomes that more rows share than the distribution function is uncertain by."""
    shared = []
    for a, arm in enumerate(arms):
        own = contributions[arm.rows]
        n = own.sum() ** 2 / (own**2).sum()
        for fit in fits:
            last = arm.ends[fit.places[a]]
            tied = own[(arm.ends[fit.places[a] - 1] + 1 if fit.places[a] else 0) : last + 1]
            share = tied.sum() / own.sum()
            if len(tied) > 1 and share > np.sqrt(fit.level * (1 - fit.level) / n):
                shared.append(
                    f"{share:.0%} of arm {design.labels[a]!r} at {fit.thresholds[a]:.6g} (quantile {fit.level:g})"
                )
    if shared:
        notes.warn(
            f"quantiles of {design.endog_name!r} are at values that many rows share; standard errors assume a "
            f"smooth distribution: {', '.join(shared)}.\nUse `res.distribution()`, whose bands hold in any case.",
            DesignWarning,
        )


# --- refits under resamples ----------------------------------------------------------------------------------------


class QuantileRefitter:
    """Refits quantiles under resamples, as in `estimates.Refitter`.

    The distribution functions are refitted at the quantiles of the full sample; those of the resample are where they
    reach the level by the steps of its weights, and by the drift as the models of the indicators move along.

    Parameters
    ----------
    sample : Sample
        The data.
    spec, weight_fit, target
        As in `SeparateRefitter`.
    rows : QuantileRows
        The quantiles of the full sample.
    """

    arrays, rows_together = ARRAYS + 2, ROWS_TOGETHER

    def __init__(
        self, sample: Sample, spec: Specification, weight_fit: WeightFit | None, target: Target, rows: QuantileRows
    ) -> None:
        self.weight_fit, self.rows, self.spec, self.arms = weight_fit, rows, spec, arm_steps(sample)
        self.refitters = [
            SeparateRefitter(fit.sample, spec, weight_fit, fit.estimate, target, DIFFERENCE) for fit in rows.fits
        ]

    def refit(self, counts: Array, fits: NewtonFits | None = None) -> Refits:
        """As in `estimates.Refitter`."""
        if self.weight_fit is not None and fits is None:
            fits = self.weight_fit.refit(counts)
        with np.errstate(invalid="ignore", divide="ignore"):  # resamples without rows in an arm are counted
            steps = normalised(self.refitters[0].steps(counts, fits), self.arms, self.spec)
        heights = [arm.cumulated(steps) for arm in self.arms]
        failures, quantiles = np.zeros(counts.shape[1], dtype=np.int8), []
        for fit, refitter in zip(self.rows.fits, self.refitters, strict=True):
            found = refitter.refit(counts, fits)
            failures = first_failure(failures, found.failures)
            means = found.values[fit.estimate.block("means")]
            quantiles.append(np.stack([self._quantile(fit, a, of_arm, means[a]) for a, of_arm in enumerate(heights)]))
        gamma, m = found.values[fit.estimate.block("gamma")], counts.shape[1]
        params = self.rows.scale.params(np.stack(quantiles, axis=1).reshape(-1, m))
        return collect_refits(params, np.empty((len(self.arms), 0, m)), gamma, failures)

    def _quantile(self, fit: LevelFit, a: int, heights: Array, mean: Array) -> Array:
        """Quantile of an arm under each resample, shape (m,); NaN where its distribution function stays below."""
        arm, place = self.arms[a], fit.places[a]
        drift = fit.drift[a] * (arm.values - fit.thresholds[a])
        places = reached(heights - heights[place] + drift[:, None], fit.level - mean)
        return np.append(arm.values, np.nan)[places]
