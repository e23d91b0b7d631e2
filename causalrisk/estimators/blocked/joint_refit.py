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
from typing import cast

import numpy as np
from numpy.typing import NDArray

from causalrisk.estimators.effect_scales import EffectScale
from causalrisk.estimators.joint.criterion import JointCriterion
from causalrisk.estimators.joint.linear import LinearModels, LinearObjectives, LinearSums, Solved
from causalrisk.estimators.joint.minimum import expansions
from causalrisk.estimators.joint.objective import (
    Expansion,
    JointObjective,
    ObjectiveLevels,
    ObjectiveTerms,
    ResampledWeights,
)
from causalrisk.estimators.joint.refit import mean_sums, minimum_failures, parameters
from causalrisk.estimators.problem import ScannedProblem
from causalrisk.estimators.refit import FullFit, RefitRows, Resamples, ScannedPasses, Weighing, weigh_resamples
from causalrisk.estimators.refits import Refits, collect_refits
from causalrisk.estimators.training import Level
from causalrisk.numerics.failures import first_failure
from causalrisk.numerics.linalg import Array
from causalrisk.numerics.multiplicities import WIDTH, Resampler
from causalrisk.numerics.trust_region import Expansions, minimize_stack
from causalrisk.propensity.replicates import (
    BlockwiseWeights,
    ReplicateTotals,
    ReplicateWeights,
    ShiftedLogitWeights,
    ShiftFactors,
)
from causalrisk.propensity.weights import TargetSums

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


def refit_joint_blocks(problem: ScannedProblem, fit: JointFit, resampler: Resampler, n_boot: int) -> Refits:
    """Estimate again under resamples, all at once.

    Parameters
    ----------
    problem : ScannedProblem
        What is estimated, its estimator IPWRA, where the joint one starts.
    fit : JointFit
        The full-sample estimate.
    resampler : Resampler
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
    passes = ScannedPasses(problem, full, Resamples(resampler, n_boot))
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


def _batches(passes: ScannedPasses, fit: JointFit) -> Iterator[ScannedPasses]:
    """Yield passes for some groups of resamples at a time, whose sums take little memory."""
    n_arms, p = fit.theta.shape
    numbers = n_arms * (p + 1) * (fit.replicates.shape[1] + 1 + 2 * n_arms * p)
    width = max(AT_ONCE // (8 * WIDTH * numbers), 1)
    for first in range(0, len(passes.resamples.groups()), width):
        yield replace(passes, resamples=replace(passes.resamples, some=slice(first, first + width)))


def _linear(passes: ScannedPasses, weighing: JointWeighing, fit: JointFit) -> list[Solved]:
    """Minimise the objectives of linear models, for each group of resamples; a pass."""
    models = LinearModels.plain(fit.theta)
    found = passes.over(functools.partial(_linear_sums, models, weighing, fit.criterion))
    return [LinearObjectives(models, fit.criterion, sums).minima() for sums in found]


def _nonlinear(passes: ScannedPasses, weighing: JointWeighing, fit: JointFit) -> list[Solved]:
    """Minimise those of other models, together, and average over rows, for each group of resamples."""
    groups = passes.resamples.groups()
    numbers = np.arange(groups[0].start, groups[-1].stop)
    objectives = BlockedObjectives(passes, weighing, fit.criterion, numbers)
    minima = minimize_stack(objectives, np.repeat(fit.theta.reshape(-1, 1), len(numbers), axis=1))
    theta, failures = minima.theta.reshape(*fit.theta.shape, -1), minimum_failures(minima)
    found, first = [], groups[0].start
    for group, sums in zip(groups, passes.over(functools.partial(_mean_sums, weighing, theta, first)), strict=True):
        own = slice(group.start - first, group.stop - first)
        found.append((theta[..., own], failures[own], *sums))
    return found


class BlockedObjectives:
    """The joint objectives of resamples whose rows come in blocks, as functions of coefficients, shape (K p, w).

    Parameters
    ----------
    passes : ScannedPasses
        Passes over the rows.
    weighing : JointWeighing
        Importance weights.
    criterion : JointCriterion
        Weights of the terms.
    numbers : ndarray of int, shape (w,)
        The resamples, ascending.
    """

    def __init__(
        self, passes: ScannedPasses, weighing: JointWeighing, criterion: JointCriterion, numbers: NDArray[np.intp]
    ) -> None:
        self.passes, self.weighing, self.criterion, self.numbers = passes, weighing, criterion, numbers
        self.objective = JointObjective(passes.problem.without_rows().sample, criterion)
        self._last: tuple[bytes, list[ObjectiveLevels]] = b"", []

    def _points(self, theta: Array) -> list[Points]:
        """Coefficients, shape (K, p, w) or (K, p, 1), by group of resamples; groups without any are left out."""
        found = []
        for group in self.passes.resamples.groups():
            inside = (self.numbers >= group.start) & (self.numbers < group.stop)
            if inside.any():
                own = theta if theta.shape[2] == 1 else theta[:, :, inside]
                found.append(Points(self.numbers[inside], own))
        return found

    def _levels(self, theta: Array) -> list[ObjectiveLevels]:
        """Sum what the terms need of all rows, for each group of resamples; a pass, but for the last point."""
        key = theta.tobytes()
        if self._last[0] != key:
            points = self._points(theta)
            stage = functools.partial(_levels, self.weighing, self.criterion, points)
            self._last = key, [found for found in self.passes.over(stage) if found is not None]
        return self._last[1]

    def at(self, theta: Array) -> list[Expansion]:
        """Expand about coefficients, shape (K, p) for all alike or (K, p, w), for each group of resamples."""
        theta = theta if theta.ndim > 2 else theta[..., None]
        levels, points = self._levels(theta), self._points(theta)
        known = [replace(of, levels=level.without_slopes()) for of, level in zip(points, levels, strict=True)]
        found = self.passes.over(functools.partial(_terms, self.weighing, self.criterion, known))
        terms = [of_group for of_group in found if of_group is not None]
        return [self.objective.expansion(*pair) for pair in zip(levels, terms, strict=True)]

    def _by_arm(self, theta: Array) -> Array:
        return theta.reshape(self.objective.sample.n_arms, -1, theta.shape[1])

    def expand(self, theta: Array) -> Expansions:
        """As in `trust_region.Objectives`; two passes."""
        parts = [expansions(at) for at in self.at(self._by_arm(theta))]
        names = ("equations", "curvature", "value")
        return Expansions(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def walls(self, theta: Array) -> Array:
        """As in `trust_region.Objectives`; the pass for the levels, which are needed next."""
        return np.concatenate([self.objective.strict_levels(levels) for levels in self._levels(self._by_arm(theta))])

    def subset(self, wanted: NDArray[np.bool_]) -> BlockedObjectives:
        """As in `trust_region.Objectives`."""
        return BlockedObjectives(self.passes, self.weighing, self.criterion, self.numbers[wanted])


# --- what a stage makes of some rows -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Points:
    """Coefficients of resamples of one group.

    Parameters
    ----------
    numbers : ndarray of int, shape (w,)
        The resamples.
    theta : ndarray, shape (K, p, w) or (K, p, 1)
        Their coefficients.
    levels : ObjectiveLevels, optional
        What is known of all rows there.
    """

    numbers: NDArray[np.intp]
    theta: Array
    levels: ObjectiveLevels | None = None


def _at_points(
    weighing: JointWeighing, points: list[Points], rows: RefitRows, counts: Array, group: slice
) -> tuple[Points, ResampledWeights] | None:
    """Return the points of a group and the weights of some rows in their resamples; None where there are none."""
    for own in points:
        if group.start <= own.numbers[0] < group.stop:
            return own, weighing.of(rows, counts[:, own.numbers - group.start], own.numbers)
    return None


def _levels(
    weighing: JointWeighing, criterion: JointCriterion, points: list[Points], rows: RefitRows, counts: Array,
    group: slice,
) -> ObjectiveLevels | None:  # fmt: skip
    found = _at_points(weighing, points, rows=rows, counts=counts, group=group)
    if found is None:
        return None
    (own, resampled), objective = found, JointObjective(rows.sample, criterion)
    return objective.levels(objective.means(own.theta), [resampled], of_block=True)


def _terms(
    weighing: JointWeighing, criterion: JointCriterion, points: list[Points], rows: RefitRows, counts: Array,
    group: slice,
) -> ObjectiveTerms | None:  # fmt: skip
    found = _at_points(weighing, points, rows=rows, counts=counts, group=group)
    if found is None:
        return None
    (own, resampled), objective = found, JointObjective(rows.sample, criterion)
    return objective.terms(objective.means(own.theta), resampled, [resampled], cast(ObjectiveLevels, own.levels))


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
