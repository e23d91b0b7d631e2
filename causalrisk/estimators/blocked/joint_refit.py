"""Batched refits of the joint estimator over blocks of rows: stages of `joint.refit`, each a pass for all resamples.

Flows in: a joint fit, its criterion and replicates. Flows out: its estimates under resamples. The score is fitted again
under each and the replicates are shifted along with it; then the objectives of linear models are solved from the sums
of one pass; others are searched for together, each point with two passes, the second of which knows what centres psi
and the net biases.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from causalrisk.estimators.blocked.problem import Problem
from causalrisk.estimators.blocked.refit import ResamplePasses, Resamples, Weighing, weigh_resamples
from causalrisk.estimators.effect_scales import EffectScale
from causalrisk.estimators.joint.criterion import JointCriterion
from causalrisk.estimators.joint.linear import LinearModels, LinearObjectives, LinearSums, Solved
from causalrisk.estimators.joint.newton import NonlinearObjectives, Point, Stage
from causalrisk.estimators.joint.objective import JointObjective, ResampledWeights
from causalrisk.estimators.joint.refit import mean_sums, minimum_failures, parameters
from causalrisk.estimators.refits import Refits, collect_refits
from causalrisk.estimators.separate import FullFit, RefitRows
from causalrisk.estimators.training import Level
from causalrisk.numerics.failures import first_failure
from causalrisk.numerics.keyed_multiplicities import KeyedResampler
from causalrisk.numerics.linalg import Array
from causalrisk.numerics.multiplicities import WIDTH
from causalrisk.propensity.replicates import (
    BlockwiseWeights,
    ReplicateTotals,
    ReplicateWeights,
    ShiftedLogitWeights,
    ShiftFactors,
)
from causalrisk.propensity.weights import TargetSums

T = TypeVar("T")
AT_ONCE = 2**28  # bytes of the sums of the resamples that are worked on in a pass


@dataclass(frozen=True)
class JointFit:
    """A joint fit, to be made again under resamples.

    Parameters
    ----------
    params : ndarray, shape (2 K - 1,)
        Its estimates.
    theta : ndarray, shape (K, p)
        Where refits begin, as in `JointRefitter`.
    gamma : ndarray, shape (Q,)
        Propensity coefficients.
    replicates : ndarray, shape (Q, B)
        Those of its propensity replicates.
    criterion : JointCriterion
        Weights of the terms of the objective.
    effect_scale : EffectScale
        How the effect is reported.
    """

    params: Array
    theta: Array
    gamma: Array
    replicates: Array
    criterion: JointCriterion
    effect_scale: EffectScale

    @property
    def shifts(self) -> Array:
        """Distances of the replicates from the fitted score, shape (Q, B)."""
        return self.replicates - self.gamma[:, None]


@dataclass(frozen=True)
class JointWeighing:
    """Importance weights of resamples, and under the replicates of each.

    Parameters
    ----------
    own : Weighing
        Those of the resamples.
    shifts : ndarray, shape (Q, B)
        Distances of the replicates from the score of each resample.
    tilts, measures : ndarray, shape (n_boot, B), or None
        Sums over all rows that weights under the replicates are divided by; None where the tilt does not vary.
    """

    own: Weighing
    shifts: Array
    tilts: Array | None = None
    measures: Array | None = None

    def of(self, rows: RefitRows, counts: Array, columns: NDArray[np.intp]) -> ResampledWeights:
        """Weigh some rows under multiplicities (n, w) of resamples of these numbers."""
        own, model = self.own.some(columns), rows.weight_model
        eta, share = model.predictors(own.gamma), counts / own.whole.total
        if not model.separable:
            at = model.weights_at(eta, counts, own.whole)
            return ResampledWeights.of(share, at, self._blockwise(rows, counts, columns))
        terms, at = model.terms(eta, counts, own.whole)
        factors = ShiftFactors.of(model.odds(model.predictors(self.shifts)))
        replicated: ReplicateWeights = ShiftedLogitWeights(rows.sample.slices, terms, at.tilt, factors)
        return ResampledWeights.of(share, at, replicated)

    def _blockwise(self, rows: RefitRows, counts: Array, columns: NDArray[np.intp]) -> BlockwiseWeights:
        own, totals = self.own.some(columns), None
        if self.tilts is not None and self.measures is not None:
            sums = zip(own.whole.total[:, None], self.tilts[columns], self.measures[columns], strict=True)
            totals = [ReplicateTotals(TargetSums(*of), None) for of in sums]
        elif rows.weight_model.divided:
            every = (own.whole.some(np.array([j])) for j in range(len(columns)))
            totals = [ReplicateTotals(one, None) for one in every]
        return BlockwiseWeights(
            slices=rows.sample.slices,
            model=rows.weight_model,
            counts=counts,
            gammas=[gamma[:, None] + self.shifts for gamma in own.gamma.T],
            count=self.shifts.shape[1],
            totals=totals,
        )


def refit_joint_blocks(problem: Problem, fit: JointFit, resampler: KeyedResampler, n_boot: int) -> Refits:
    """Estimate again under resamples, all at once.

    Parameters
    ----------
    problem : Problem
        What is estimated, its estimator IPWRA, where the joint one starts.
    fit : JointFit
        The full-sample estimate.
    resampler : KeyedResampler
        Draws the resamples.
    n_boot : int
        How many.

    Returns
    -------
    Refits
        Estimates and failures.
    """
    level = Level(0.0, np.zeros(fit.theta.shape[1]))
    full = FullFit(fit.params, fit.theta, level, fit.effect_scale)
    passes = ResamplePasses(problem, full, Resamples(resampler, n_boot))
    own, failures, _ = weigh_resamples(passes, fit.gamma)
    weighing = JointWeighing(own, fit.shifts)
    if not problem.target.separable:
        found = passes.over(functools.partial(_replicate_targets, weighing))
        tilts, measures = (np.concatenate([sums[k] for sums in found]) for k in (0, 1))
        weighing = replace(weighing, tilts=tilts, measures=measures)
    with np.errstate(all="ignore"):  # resamples that cannot be fitted are counted
        solve = _linear if problem.family.linear else _nonlinear
        solved = [part for some in _batches(passes, fit) for part in solve(some, weighing, fit)]
    theta, bias = (np.concatenate([part[k] for part in solved], axis=-1) for k in (0, 3))
    raw = np.concatenate([part[2][0] for part in solved], axis=-1)
    outcome = np.concatenate([part[1] for part in solved])
    params = parameters(raw, bias, fit.criterion, fit.effect_scale)
    return collect_refits(params, theta, own.gamma, first_failure(failures, outcome))


def _batches(passes: ResamplePasses, fit: JointFit) -> Iterator[ResamplePasses]:
    """Yield passes for some groups of resamples at a time, whose sums take little memory."""
    n_arms, p = fit.theta.shape
    numbers = n_arms * (p + 1) * (fit.replicates.shape[1] + 1 + 2 * n_arms * p)
    width = max(AT_ONCE // (8 * WIDTH * numbers), 1)
    for first in range(0, len(passes.resamples.groups()), width):
        yield replace(passes, resamples=replace(passes.resamples, some=slice(first, first + width)))


def _linear(passes: ResamplePasses, weighing: JointWeighing, fit: JointFit) -> list[Solved]:
    """Minimise the objectives of linear models, for each group of resamples; a pass."""
    models = LinearModels.plain(fit.theta)
    found = passes.over(functools.partial(_linear_sums, models, weighing, fit.criterion))
    return [LinearObjectives(models, fit.criterion, sums).minima() for sums in found]


def _nonlinear(passes: ResamplePasses, weighing: JointWeighing, fit: JointFit) -> list[Solved]:
    """Minimise those of other models, together, and average over rows, for each group of resamples."""
    groups = passes.resamples.groups()
    numbers = np.arange(groups[0].start, groups[-1].stop)
    objective = JointObjective(passes.problem.without_rows().sample, fit.criterion)
    start = np.repeat(fit.theta[..., None], len(numbers), axis=2)
    minima = NonlinearObjectives(objective, WeighedPasses(passes, weighing, fit.criterion, numbers)).minima(start)
    theta, failures = minima.theta.reshape(*fit.theta.shape, -1), minimum_failures(minima)
    found, first = [], groups[0].start
    for group, sums in zip(groups, passes.over(functools.partial(_mean_sums, weighing, theta, first)), strict=True):
        own = slice(group.start - first, group.stop - first)
        found.append((theta[..., own], failures[own], *sums))
    return found


@dataclass(frozen=True)
class WeighedPasses:
    """Passes over rows that come in blocks, as in `newton.JointPasses`; rows are weighed anew in each.

    Parameters
    ----------
    passes : ResamplePasses
        Passes over the rows.
    weighing : JointWeighing
        Importance weights.
    criterion : JointCriterion
        Weights of the terms.
    numbers : ndarray of int, shape (m,)
        The resamples, ascending.
    """

    passes: ResamplePasses
    weighing: JointWeighing
    criterion: JointCriterion
    numbers: NDArray[np.intp]
    in_blocks = True

    @property
    def _groups(self) -> list[NDArray[np.intp]]:
        """The resamples of each group that has some."""
        first = [group.start for group in self.passes.resamples.groups()]
        groups = np.split(self.numbers, np.searchsorted(self.numbers, first[1:]))
        return [group for group in groups if len(group)]

    @property
    def sizes(self) -> list[int]:
        """As in `JointPasses`."""
        return [len(group) for group in self._groups]

    def over(self, stage: Stage[T], points: list[Point]) -> list[T]:
        """As in `JointPasses`."""
        at = list(zip(self._groups, points, strict=True))
        found = self.passes.over(functools.partial(_at_points, stage, self.weighing, self.criterion, at))
        return [of_group for of_group in found if of_group is not None]

    def subset(self, wanted: NDArray[np.bool_]) -> WeighedPasses:
        """As in `JointPasses`."""
        return replace(self, numbers=self.numbers[wanted])


# --- what a stage makes of some rows -----------------------------------------------------------------------------


def _at_points(
    stage: Stage[T], weighing: JointWeighing, criterion: JointCriterion, at: list[tuple[NDArray[np.intp], Point]],
    rows: RefitRows, counts: Array, group: slice,
) -> T | None:  # fmt: skip
    """Apply a stage to some rows at the point of a group; None where no resample of the group is wanted."""
    for numbers, point in at:
        if group.start <= numbers[0] < group.stop:
            resampled = weighing.of(rows, counts[:, numbers - group.start], numbers)
            return stage(JointObjective(rows.sample, criterion), resampled, point)
    return None


def _replicate_targets(weighing: JointWeighing, rows: RefitRows, counts: Array, group: slice) -> tuple[Array, Array]:
    """Sum tilt and measure under the replicates of each resample, shape (w, B)."""
    model, found = rows.weight_model, []
    for j, gamma in enumerate(weighing.own.gamma[:, group].T):
        sums = model.target_sums(model.predictors(gamma[:, None] + weighing.shifts), counts[:, [j]])
        found.append((sums.tilt, sums.measure))
    return np.stack([tilt for tilt, _ in found]), np.stack([measure for _, measure in found])


def _linear_sums(
    models: LinearModels, weighing: JointWeighing, criterion: JointCriterion, rows: RefitRows, counts: Array,
    group: slice,
) -> LinearSums:  # fmt: skip
    resampled = weighing.of(rows, counts, np.arange(group.start, group.stop))
    return LinearSums.of(models.rows(rows.sample), criterion, resampled=resampled, views=[resampled])


def _mean_sums(
    weighing: JointWeighing, theta: Array, first: int, rows: RefitRows, counts: Array, group: slice
) -> tuple[tuple[Array, ...], Array]:
    resampled = weighing.of(rows, counts, np.arange(group.start, group.stop))
    own = theta[..., group.start - first : group.stop - first]
    return mean_sums(rows.sample, resampled, [resampled], own)
