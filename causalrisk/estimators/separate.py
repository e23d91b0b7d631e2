"""The estimators that train each arm by itself: point estimate and influence function, from passes over the rows.

Flows in: a `Problem` and the importance weights of its rows. Flows out: outcome coefficients, arm means, effects and,
where the rows are in memory, an `Estimate` with its influence function.

The influence functions are in closed form; the tests compare them with numerical derivatives of exact refits.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from causalrisk.errors import Failure
from causalrisk.estimators.estimates import Estimate
from causalrisk.estimators.outcome import (
    ArmModel,
    Level,
    OutcomeLikelihood,
    ThetaSums,
    TrainedRows,
    arm_models,
    influence_of_theta,
    outcome_failures,
    theta_sums,
    trained_rows,
    training_weights,
)
from causalrisk.estimators.problem import Block, KeptProblem, Problem, ScannedProblem
from causalrisk.estimators.sample import Sample
from causalrisk.estimators.specification import DIFFERENCE, ArmMean, ArmRows, EffectScale, Specification, Sums
from causalrisk.estimators.weights import BlockWeights, OfLikelihoods, WeightsInMemory, row_weights
from causalrisk.numerics.blocks import add_up, of_made
from causalrisk.numerics.linalg import Array, factor_solution, solve, triangular_factor
from causalrisk.numerics.newton import BlockedLikelihood, WeightedRows, maximize
from causalrisk.propensity.targets import ArmTarget, Target
from causalrisk.propensity.weights import RowWeights, WeightFit

T = TypeVar("T")
EVERYBODY = ArmTarget(None)


def estimate_separately(
    sample: Sample, spec: Specification, weights: RowWeights, effect_scale: EffectScale = DIFFERENCE
) -> Estimate:
    """Train each arm's outcome model by itself and average, in memory."""
    problem = KeptProblem(spec=spec, target=EVERYBODY, sample=sample, model=None)
    trained = train(WeighedRows(problem, WeightsInMemory(weights)))
    return kept_estimate(trained, solve_means(spec.mean, trained.over), weights.coefficients, effect_scale)


@dataclass(frozen=True)
class WeighedRows:
    """The rows of a problem with their importance weights."""

    problem: Problem
    weights: BlockWeights

    def of(self, block: Block) -> tuple[Sample, RowWeights]:
        """Rows of a block with outcomes measured from the level, and their importance weights."""
        return dataclasses.replace(block.sample, y=block.sample.y - self.problem.level.height), self.weights.of(block)

    def training(self, block: Block) -> list[tuple[ArmModel, Array]]:
        """Return the outcome model of each arm on a block, and the weights that it is trained under."""
        if isinstance(self.problem, ScannedProblem):
            self.problem.check_outcome(block)
        sample, weights = self.of(block)
        spec = self.problem.spec
        s = sample.s * training_weights(sample, spec, weights)
        return [(model, s[rows]) for model, rows in zip(arm_models(sample, spec), sample.slices, strict=True)]

    def likelihoods(self, block: Block) -> list[WeightedRows]:
        """Return the likelihoods of the outcome models on a block."""
        return [model.rows(weights) for model, weights in self.training(block)]


def weighed_in_memory(sample: Sample, spec: Specification, target: Target, weight_fit: WeightFit | None) -> WeighedRows:
    """Return rows in memory with their importance weights, of one where none were fitted."""
    model = None if weight_fit is None else weight_fit.model
    problem = KeptProblem(spec=spec, target=target, sample=sample, model=model)
    return WeighedRows(problem, WeightsInMemory(row_weights(sample, weight_fit, target)))


@dataclass(frozen=True)
class Trained:
    """The rows of a problem under trained outcome models.

    Parameters
    ----------
    weighed : WeighedRows
        The rows.
    theta : ndarray, shape (K, p)
        Outcome coefficients, of outcomes measured from the level.
    failed : tuple of int
        How the fit of each arm ended, a `Failure`.
    """

    weighed: WeighedRows
    theta: Array
    failed: tuple[int, ...]

    @property
    def level(self) -> Level:
        """Where the outcome lies."""
        return self.weighed.problem.level

    @property
    def coefficients(self) -> Array:
        """Outcome coefficients of outcomes as they are, shape (K, p)."""
        return self.theta + self.level.height * self.level.direction

    def rows(self, block: Block) -> TrainedRows:
        """Return the rows of a block under the outcome models."""
        sample, weights = self.weighed.of(block)
        return trained_rows(sample, self.weighed.problem.spec, weights, self.theta)

    def over(self, function: Callable[[TrainedRows], T]) -> Iterator[T]:
        """Begin a pass over the rows; a single block of rows in memory is not made again in every pass."""
        if self._alone is not None:
            return iter([function(self._alone)])
        return self.weighed.problem.over(functools.partial(of_made, function, self.rows))

    @cached_property
    def _alone(self) -> TrainedRows | None:
        problem = self.weighed.problem
        if not isinstance(problem, KeptProblem) or len(problem.places) > 1:
            return None
        return next(problem.over(self.rows))

    def __getstate__(self) -> dict[str, Any]:
        """Return what goes to workers: without rows."""
        return {name: value for name, value in self.__dict__.items() if name != "_alone"}


def train(weighed: WeighedRows) -> Trained:
    """Train the arms: a pass where the models are linear, else one for a start and one an iteration.

    Where the outcome models are given, a column for each arm, its coefficient is one.
    """
    problem, family = weighed.problem, weighed.problem.outcome_family
    if problem.spec.given:
        return Trained(weighed, np.eye(problem.n_arms), (Failure.OK,) * problem.n_arms)
    kept = list(problem.over(weighed.training)) if problem.in_memory else None

    def over(function: OfLikelihoods[T]) -> Iterator[T]:
        if kept is not None:
            return (function([model.rows(weights) for model, weights in arms]) for arms in kept)
        return problem.over(functools.partial(of_made, function, weighed.likelihoods))

    begin = functools.partial(of_made, _start_of, weighed.training)
    parts = problem.over(begin) if kept is None else map(_start_of, kept)
    factors = functools.reduce(_stacked_factors, parts)
    theta = np.stack([factor_solution(f, problem.spec.of_controls and a > 0) for a, f in enumerate(factors)])
    failures = np.zeros(problem.n_arms, dtype=np.int8)
    if not family.linear:
        bounded = OutcomeLikelihood(family, np.empty(0)).bounded
        fits = maximize(BlockedLikelihood(over, bounded, tuple(range(problem.n_arms))), theta.T)
        theta, failures = fits.coefficients.T, outcome_failures(fits.failures)
    return Trained(weighed, theta, tuple(int(code) for code in failures))


def _start_of(arms: list[tuple[ArmModel, Array]]) -> list[Array]:
    return [model.start(weights) for model, weights in arms]


def _stacked_factors(first: list[Array], second: list[Array]) -> list[Array]:
    return [triangular_factor(np.vstack(pair)) for pair in zip(first, second, strict=True)]


def kept_estimate(trained: Trained, at: SolvedMeans, gamma: Array, effect_scale: EffectScale) -> Estimate:
    """Return the estimate on rows in memory, with their predictions and influence function."""
    return Estimate(
        params=trained.level.params(effect_scale, at.means),
        theta=trained.coefficients,
        gamma=gamma,
        model_means=at.sums.model_means + trained.level.height,
        rows=SeparateRows(trained, at, effect_scale),
        failed=trained.failed,
    )


@dataclass(frozen=True)
class SeparateRows:
    """Predictions and influence function of an estimate, as in `EstimateRows`; they are made when asked for."""

    trained: Trained
    at: SolvedMeans
    effect_scale: EffectScale

    @cached_property
    def predicted(self) -> Array:
        """As in `EstimateRows`."""
        parts = list(self.trained.over(_predicted))
        return np.concatenate(parts, axis=1) + self.trained.level.height

    @cached_property
    def influence(self) -> Array:
        """As in `EstimateRows`."""
        return np.concatenate([values for _, values in self.blocks()])

    def blocks(self) -> Iterator[tuple[slice, Array]]:
        """As in `EstimateRows`."""
        first = 0
        level, scale = self.trained.level, self.effect_scale
        of_rows = functools.partial(influence_of_estimates, at=self.at, level=level, effect_scale=scale)
        for values in self.trained.over(of_rows):
            yield slice(first, first + len(values)), values
            first += len(values)


def _predicted(rows: TrainedRows) -> Array:
    return rows.predicted


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
    """Arm means, and what their influence function needs of all rows."""

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
    arms = mean.solve(lambda function: add_up(over(functools.partial(_of_arms, function))))
    return SolvedMeans(arms, add_up(over(functools.partial(_estimate_sums, arms))))


def _of_arms(function: Callable[[ArmRows], Sums], rows: TrainedRows) -> tuple[Sums, ...]:
    return tuple(function(arm) for arm in rows.arms)


def _estimate_sums(arms: tuple[ArmMean, ...], rows: TrainedRows) -> EstimateSums:
    return EstimateSums(
        theta=theta_sums(rows),
        derivatives=tuple(mean.derivatives(arm) for mean, arm in zip(arms, rows.arms, strict=True)),
        model_means=rows.sample.mean(rows.weights.tilt[:, None] * rows.predicted.T),
    )


def project_arms(rows: TrainedRows, g: Array, mean: type[ArmMean]) -> list[tuple[Array, Array, Array]]:
    """Project the mean of each arm on columns under the target's distribution.

    Parameters
    ----------
    g : ndarray, shape (n, k)
        The columns.
    mean : type of ArmMean
        How an arm's mean is made of the predictions.

    Returns
    -------
    list
        For each arm the projection, shape (k,), as in its `ArmMean`; its derivative by the arm's outcome coefficients,
        (k, p); and its influence function at known outcome coefficients, (n, k).
    """
    arms, found = rows.projected(g), []
    for arm, at in zip(arms, mean.solve(lambda function: map(function, arms)), strict=True):
        by_theta, by_gamma = at.derivatives(arm)
        found.append((at.value, solve(at.gram, by_theta), at.influence(arm, by_gamma)))
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
