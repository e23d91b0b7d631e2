"""The estimators that train each arm by itself: point estimate, influence function, and batched refits.

Flows in: a sample, importance weights w with their derivatives, a `Specification`; for refits multiplicities of rows,
shape (n, m). Flows out: an `Estimate`; for m resamples at once its values. The rows are all of a sample, or a block of
them, whose sums the caller adds up.

The influence functions are in closed form; the tests compare them with numerical derivatives of exact refits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from causalrisk.estimators.arm_means import ArmMean, ArmRows, RefittedRows, Sums
from causalrisk.estimators.effect_scales import DIFFERENCE, EffectScale
from causalrisk.estimators.estimate import Estimate
from causalrisk.estimators.outcome import OutcomeRefitter, fit_outcome, outcome_failures, solved_change
from causalrisk.estimators.refits import (
    RELATIVE_ROUNDING,
    ROWS_TOGETHER,
    Refits,
    collect_refits,
    count_totals,
    empty_arms,
)
from causalrisk.estimators.sample import PART, Sample, part_of
from causalrisk.estimators.specification import Specification
from causalrisk.estimators.training import (
    Level,
    ThetaSums,
    TrainedRows,
    influence_of_theta,
    outcome_level,
    theta_sums,
    trained_rows,
    training_arms,
    training_columns,
    training_family,
)
from causalrisk.numerics.blocks import add_up
from causalrisk.numerics.failures import first_failure
from causalrisk.numerics.families import OutcomeFamily
from causalrisk.numerics.linalg import Array, row_blocks, solve
from causalrisk.numerics.newton import LikelihoodSums, NewtonFits, PartedRows, WeightedRows, refit_batch
from causalrisk.propensity.row_weights import KeptWeights, RowWeights
from causalrisk.propensity.targets import FrameTarget, Target
from causalrisk.propensity.weights import TargetSums, WeightFit, WeightModel


def row_weights(sample: Sample, weight_fit: WeightFit | None, target: Target, mean: Array | None = None) -> RowWeights:
    """Return the fitted importance weights; without a fit weights of one and the tilt of a target that needs none."""
    if weight_fit is not None:
        return weight_fit
    return KeptWeights.without_scores(plain_tilt(sample, target, sample.s[:, None], mean)[:, 0])


def plain_tilt(sample: Sample, target: Target, counts: Array, mean: Array | None = None) -> Array:
    """Tilt of a target that needs no propensity score, over its mean under counts (n, m); shape (n, 1) or (n, m).

    That is everybody, the rows of one arm, or a target frame. Where the rows are a block of others, `mean`, shape (m,),
    is that of all.
    """
    if isinstance(target, FrameTarget):
        tilt = 1 - sample.observed
    elif target.toward is not None:
        tilt = (sample.arm == target.toward).astype(float)
    else:
        return np.ones((sample.n, 1))
    mean = (tilt @ counts) / count_totals(sample, counts) if mean is None else mean
    return tilt[:, None] / np.where(mean > 0, mean, 1.0)


def estimate_separately(
    sample: Sample, spec: Specification, weights: RowWeights, effect_scale: EffectScale = DIFFERENCE
) -> Estimate:
    """Train each arm's outcome model by itself and average, for every estimator but the joint one.

    Parameters
    ----------
    sample : Sample
        The data.
    spec : Specification
        The estimator.
    weights : RowWeights
        Importance weights and the tilt of the target, as by `row_weights`.
    effect_scale : EffectScale
        How the effect is reported.

    Returns
    -------
    Estimate
        Point estimate and influence function.
    """
    level = outcome_level(sample, spec)
    centred = dataclasses.replace(sample, y=sample.y - level.height)
    fits = [fit_outcome(arm) for arm in training_arms(centred, spec, weights)]
    theta = np.stack([fit.coefficients[:, 0] for fit in fits])
    trained = TrainedSample(sample=sample, spec=spec, weights=weights, theta=theta, level=level)
    alone = list(trained.blocks()) if len(sample.parts()) == 1 else None  # not to be made again in every pass
    at = solve_means(spec.mean, lambda function: map(function, trained.blocks() if alone is None else alone))
    return Estimate(
        params=level.params(effect_scale, at.means),
        theta=theta + level.height * level.direction,
        gamma=weights.coefficients,
        model_means=at.sums.model_means + level.height,
        rows=SeparateRows(trained, at, effect_scale),
        failed=tuple(int(fit.failures[0]) for fit in fits),
    )


@dataclass(frozen=True)
class TrainedSample:
    """A sample under trained outcome models.

    Parameters
    ----------
    sample : Sample
        All rows.
    spec : Specification
        The estimator.
    weights : RowWeights
        Their importance weights.
    theta : ndarray, shape (K, p)
        Outcome coefficients, of outcomes measured from the level.
    level : Level
        Where the outcome lies.
    """

    sample: Sample
    spec: Specification
    weights: RowWeights
    theta: Array
    level: Level

    def blocks(self) -> Iterator[TrainedRows]:
        """Begin a pass over the rows."""
        for rows in self.sample.parts():
            part = self.sample.part(rows)
            centred = dataclasses.replace(part, y=part.y - self.level.height)
            yield trained_rows(centred, self.spec, self.weights.part(rows), self.theta)


@dataclass(frozen=True)
class SeparateRows:
    """Predictions and influence function of an estimate, as in `EstimateRows`; they are made when asked for.

    Parameters
    ----------
    trained : TrainedSample
        The rows.
    at : SolvedMeans
        The arm means.
    effect_scale : EffectScale
        How the effect is reported.
    """

    trained: TrainedSample
    at: SolvedMeans
    effect_scale: EffectScale

    @cached_property
    def predicted(self) -> Array:
        """As in `EstimateRows`."""
        parts = [rows.predicted for rows in self.trained.blocks()]
        return np.concatenate(parts, axis=1) + self.trained.level.height

    @cached_property
    def influence(self) -> Array:
        """As in `EstimateRows`."""
        return np.concatenate([values for _, values in self.blocks()])

    def blocks(self) -> Iterator[tuple[slice, Array]]:
        """As in `EstimateRows`."""
        level = self.trained.level
        for part, rows in zip(self.trained.sample.parts(), self.trained.blocks(), strict=True):
            yield part, influence_of_estimates(rows, self.at, level, self.effect_scale)


@dataclass(frozen=True)
class EstimateSums:
    """Sums over rows, given the arm means, that their influence function is made of; those of blocks add up.

    Parameters
    ----------
    theta : ThetaSums
        Of the outcome models.
    derivatives : tuple of (ndarray, ndarray)
        For each arm those of the equations of its mean by the outcome and by the propensity coefficients.
    model_means : ndarray, shape (K,)
        Averages of the predictions over the target.
    """

    theta: ThetaSums
    derivatives: tuple[tuple[Array, Array], ...]
    model_means: Array


@dataclass(frozen=True)
class SolvedMeans:
    """Arm means, and what their influence function needs of all rows.

    Parameters
    ----------
    arms : tuple of ArmMean
        The mean of each arm.
    sums : EstimateSums
        Sums over the rows.
    """

    arms: tuple[ArmMean, ...]
    sums: EstimateSums

    @property
    def means(self) -> Array:
        """Arm means, shape (K,), measured from the level."""
        return np.concatenate([at.value for at in self.arms])


def solve_means(mean: type[ArmMean], over: Callable[[Callable[[TrainedRows], Any]], Iterable[Any]]) -> SolvedMeans:
    """Average over the target, and sum what the influence function needs in one more pass.

    Parameters
    ----------
    mean : type of ArmMean
        How an arm's mean is made of the predictions.
    over : callable
        Begins a pass over the rows: what a function makes of each block of them, of which there may be one.
    """
    arms = mean.solve(lambda function: add_up(over(partial(_of_arms, function))))
    return SolvedMeans(arms, add_up(over(partial(_estimate_sums, arms))))


def _of_arms(function: Callable[[ArmRows], Sums], rows: TrainedRows) -> tuple[Sums, ...]:
    return tuple(function(arm) for arm in rows.arms)


def _estimate_sums(arms: tuple[ArmMean, ...], rows: TrainedRows) -> EstimateSums:
    return EstimateSums(
        theta=theta_sums(rows),
        derivatives=tuple(mean.derivatives(arm) for mean, arm in zip(arms, rows.arms, strict=True)),
        model_means=rows.sample.mean(rows.weights.tilt[:, None] * rows.predicted.T),
    )


def project_arms(rows: TrainedRows, g: Array) -> list[tuple[Array, Array, Array]]:
    """Project the mean of each arm on columns under the target's distribution.

    Parameters
    ----------
    rows : TrainedRows
        All rows.
    g : ndarray, shape (n, k)
        The columns.

    Returns
    -------
    list
        For each arm the projection, shape (k,), as in its `ArmMean`; its derivative by the arm's outcome coefficients,
        (k, p); and its influence function at known outcome coefficients, (n, k).
    """
    arms, found = rows.projected(g), []
    for arm, mean in zip(arms, rows.spec.mean.solve(lambda function: map(function, arms)), strict=True):
        by_theta, by_gamma = mean.derivatives(arm)
        found.append((mean.value, solve(mean.gram, by_theta), mean.influence(arm, by_gamma)))
    return found


def influence_of_estimates(rows: TrainedRows, at: SolvedMeans, level: Level, effect_scale: EffectScale) -> Array:
    """Influence function of all estimates, shape (n, d): effects and means, outcome and propensity coefficients."""
    sample, weights = rows.sample, rows.weights
    effects, n_theta = 2 * sample.n_arms - 1, rows.theta.size
    influence = np.empty((sample.n, effects + n_theta + weights.size))
    influence[:, effects + n_theta :] = weights.influence
    of_theta = influence[:, effects : effects + n_theta].reshape(sample.n, *rows.theta.shape)  # a view of its columns
    influence_of_theta(rows, at.sums.theta, of_theta)
    of_means = [
        mean.influence(arm, by_gamma) + of_theta[:, a] @ solve(mean.gram, by_theta).T
        for a, (arm, mean, (by_theta, by_gamma)) in enumerate(zip(rows.arms, at.arms, at.sums.derivatives, strict=True))
    ]
    with np.errstate(invalid="ignore"):  # means without an effect on this scale are told by the caller
        jacobian = effect_scale.jacobian(at.means + level.height)
        influence[:, :effects] = np.concatenate(of_means, axis=1) @ jacobian.T
    return influence


@dataclass(frozen=True)
class FullFit:
    """The full-sample estimate, which resamples start from.

    Parameters
    ----------
    params : ndarray, shape (2 K - 1,)
        Effects and arm means.
    theta : ndarray, shape (K, p)
        Outcome coefficients, of outcomes measured from the level.
    level : Level
        Where the outcome lies.
    effect_scale : EffectScale
        How the effect is reported.
    """

    params: Array
    theta: Array
    level: Level
    effect_scale: EffectScale

    def refits(self, means: Array, theta: Array, gamma: Array, failures: NDArray[np.int8]) -> Refits:
        """Collect the values of m resamples.

        Parameters
        ----------
        means : ndarray, shape (K, m)
            Arm means, measured from the level.
        theta : ndarray, shape (K, p, m)
            Outcome coefficients, measured from it.
        gamma : ndarray, shape (Q, m)
            Propensity coefficients.
        failures : ndarray of int8, shape (m,)
            What failed.
        """
        level, error = self.level, RELATIVE_ROUNDING * np.abs(self.params[-len(means) :])[:, None]
        if self.effect_scale != DIFFERENCE:
            means = self.effect_scale.on_bounds(means + level.height, error) - level.height
        params = level.params(self.effect_scale, means)
        return collect_refits(params, theta + level.height * level.direction[:, None], gamma, failures)


@dataclass(frozen=True)
class RefitRows:
    """Rows under multiplicities: all of a sample, or a block of them.

    Parameters
    ----------
    sample : Sample
        The rows, outcomes measured from the level.
    spec : Specification
        The estimator.
    target : Target
        The target population.
    model : WeightModel or None
        Propensity model and target, where there are importance weights to fit.
    theta : ndarray, shape (K, p)
        The full-sample outcome coefficients.
    """

    sample: Sample
    spec: Specification
    target: Target
    model: WeightModel | None
    theta: Array

    @property
    def weight_model(self) -> WeightModel:
        """The model, where there is one."""
        return cast(WeightModel, self.model)

    @cached_property
    def q(self) -> Array:
        """Columns of the outcome models, shape (n, p)."""
        return training_columns(self.sample, self.spec)

    @cached_property
    def family(self) -> OutcomeFamily:
        """Family of the outcome models."""
        return training_family(self.sample, self.spec)

    @cached_property
    def outcome(self) -> list[OutcomeRefitter]:
        """The outcome model of each arm."""
        return [
            OutcomeRefitter(
                columns=self.q[rows],
                y=self.sample.y[rows],
                family=self.family,
                theta=theta,
                offset=part_of(self.sample.offset, rows),
            )
            for rows, theta in zip(self.sample.slices, self.theta, strict=True)
        ]

    def weights(self, counts: Array, gamma: Array, whole: TargetSums | None = None) -> tuple[Array, Array]:
        """Tilt and importance weights under multiplicities (n, m) and propensity coefficients (S, m).

        Where the rows are a block of others, `whole` has the sums over all of them.
        """
        if self.model is None:
            tilt = plain_tilt(self.sample, self.target, counts, None if whole is None else whole.mean_tilt)
            return tilt, np.ones((self.sample.n, 1))
        at = self.model.weights_at(self.model.predictors(gamma), counts, whole)
        return at.tilt, at.w

    def training(self, counts: Array, w: Array) -> list[Array]:
        """Weights of the training of the outcome model of each arm, shape (n_a, m)."""
        training = counts * (w if self.spec.weighted else self.sample.observed[:, None])
        return [training[rows] for rows in self.sample.slices]

    def refitted(
        self, share: Array, tilt: Array, w: Array, *, theta: Array, resamples: slice = slice(None)
    ) -> RefittedRows:
        """Return the rows under refitted outcome models.

        Parameters
        ----------
        share : ndarray, shape (n, m)
            Multiplicities over their total.
        tilt, w : ndarray, shape (n, m) or (n, 1)
            As by `weights`.
        theta : ndarray, shape (K, p, m)
            Outcome coefficients.
        resamples : slice
            Which of all resamples these are; by default all.
        """
        return RefittedRows(
            sample=self.sample,
            family=self.family,
            q=self.q,
            theta=theta,
            share=share,
            tilt=tilt,
            w=w,
            resamples=resamples,
        )


class SeparateRefitter:
    """Refits every estimator but the joint one, in memory.

    Parameters
    ----------
    sample : Sample
        The data.
    spec : Specification
        The estimator.
    weight_fit : WeightFit or None
        The full-sample importance weights.
    estimate : Estimate
        The full-sample estimate.
    target : Target
        The target population.
    effect_scale : EffectScale
        How the effect is reported.
    """

    arrays, rows_together = 4, ROWS_TOGETHER

    def __init__(
        self,
        sample: Sample,
        spec: Specification,
        weight_fit: WeightFit | None,
        estimate: Estimate,
        target: Target,
        effect_scale: EffectScale,
    ) -> None:
        level = outcome_level(sample, spec)
        theta = estimate.theta - level.height * level.direction
        self.weight_fit, self.full = weight_fit, FullFit(estimate.params, theta, level, effect_scale)
        self.rows = RefitRows(
            sample=dataclasses.replace(sample, y=sample.y - level.height),
            spec=spec,
            target=target,
            model=None if weight_fit is None else weight_fit.model,
            theta=theta,
        )

    def refit(self, counts: Array, first: int, fits: NewtonFits | None = None) -> Refits:
        """As in `refits.Refitter`."""
        sample, gamma = self.rows.sample, np.empty((0, counts.shape[1]))
        failures = [empty_arms(sample, counts)]
        if self.weight_fit is not None:
            fits = fits or self.weight_fit.refit(counts)
            failures.append(fits.failures)
            gamma = fits.coefficients
        resampled = ResampledRows(self._passes, counts, gamma, count_totals(sample, counts))
        change, outcome_failures = resampled.outcome_change()
        theta = self.rows.theta[..., None] + change
        with np.errstate(over="ignore", invalid="ignore"):  # resamples without a mean are counted
            means = self.rows.spec.mean.refit(partial(resampled.over_refits, theta))
        n_gamma = 0 if self.weight_fit is None else len(self.weight_fit.coefficients)
        return self.full.refits(means, theta, gamma[:n_gamma], first_failure(*failures, *outcome_failures))

    def _passes(self) -> Iterator[tuple[slice, RefitRows]]:
        """Begin a pass over the rows, a few at a time where there are many, for their arrays to stay small."""
        sample, model = self.rows.sample, self.rows.model
        if sample.n <= PART or not (model is None or model.by_rows):
            yield slice(0, sample.n), self.rows
            return
        for part in row_blocks(sample.n):
            some = None if model is None else model.part(part)
            yield part, dataclasses.replace(self.rows, sample=sample.part(part), model=some)


Weighed: TypeAlias = tuple[RefitRows, Array, Array, Array]


@dataclass(frozen=True)
class ResampledRows:
    """All rows under a block of m resamples.

    Parameters
    ----------
    passes : callable
        Begins a pass: some of the rows, and which they are.
    counts : ndarray, shape (n, m)
        Multiplicities.
    gamma : ndarray, shape (Q, m)
        Propensity coefficients.
    totals : ndarray, shape (m,)
        As by `count_totals`.
    """

    passes: Callable[[], Iterator[tuple[slice, RefitRows]]]
    counts: Array
    gamma: Array
    totals: Array

    @cached_property
    def whole(self) -> TargetSums:
        """What weights are divided by."""
        return add_up(self._target_sums(rows, self.counts[part]) for part, rows in self.passes())

    def _target_sums(self, rows: RefitRows, counts: Array) -> TargetSums:
        if rows.model is not None:
            return rows.model.target_sums(rows.model.predictors(self.gamma), counts)
        tilt = plain_tilt(rows.sample, rows.target, counts, np.ones(1))[:, 0] @ counts
        return TargetSums(rows.sample.observed @ counts, tilt, tilt)

    @cached_property
    def at_once(self) -> Weighed | None:
        """All rows with their weights, not to be made again in every pass; None where they come in parts."""
        part, rows = next(self.passes())
        if part.stop < len(self.counts):
            return None
        return rows, self.counts, *rows.weights(self.counts, self.gamma)

    def weighed(self) -> Iterator[Weighed]:
        """Begin a pass over the rows, with their multiplicities, tilt and importance weights."""
        if self.at_once is not None:
            yield self.at_once
            return
        for part, rows in self.passes():
            counts = self.counts[part]
            yield rows, counts, *rows.weights(counts, self.gamma, self.whole)

    def outcome_change(self) -> tuple[Array, list[NDArray[np.int8]]]:
        """Train the arms: coefficients less the full-sample ones, shape (K, p, m), and for each arm what failed."""
        rows = next(self.passes())[1]
        if rows.family.linear:
            solved = [solved_change(sums) for sums in add_up(map(_equations, self.weighed()))]
        else:
            solved = [self._refitted_arm(a, theta) for a, theta in enumerate(rows.theta)]
        return np.stack([change for change, _ in solved]), [failures for _, failures in solved]

    def _refitted_arm(self, a: int, theta: Array) -> tuple[Array, NDArray[np.int8]]:
        parts = partial(self._likelihoods, a)
        likelihood = PartedRows(parts, self.counts.shape[1]) if self.at_once is None else next(parts())
        fits = refit_batch(likelihood, theta, restart=theta)
        return fits.coefficients - theta[:, None], outcome_failures(fits.failures)

    def _likelihoods(self, a: int) -> Iterator[WeightedRows]:
        """Begin a pass over the rows of an arm."""
        for rows, counts, _, w in self.weighed():
            if rows.sample.slices[a].stop > rows.sample.slices[a].start:
                yield rows.outcome[a].batch(rows.training(counts, w)[a])

    def over_refits(self, theta: Array, function: Callable[[RefittedRows], Array]) -> Array:
        """Make a pass over the rows under outcome coefficients (K, p, m): a function's sums."""
        return add_up(
            function(rows.refitted(counts / self.totals, tilt, w, theta=theta))
            for rows, counts, tilt, w in self.weighed()
        )


def _equations(weighed: Weighed) -> tuple[LikelihoodSums, ...]:
    """Sum what the coefficients of linear outcome models solve."""
    rows, counts, _, w = weighed
    pairs = zip(rows.outcome, rows.training(counts, w), strict=True)
    return tuple(model.equations(weights) for model, weights in pairs)
