"""The joint robust estimator under many resamples: the same objectives, minimised for all of them together.

Flows in: rows and their multiplicities, in memory or in blocks that are read in every pass; the criterion and the
replicates of the full sample. Flows out: estimates under the resamples. The score is fitted again under each, and its
replicates are shifted along with it or drawn anew; then the objectives of linear models are solved from the sums of one
pass, and others are searched for together (`minima`).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from causalrisk.errors import Failure, first_failure
from causalrisk.estimators.estimates import ROWS_TOGETHER, Refits, collect_refits
from causalrisk.estimators.joint.equations import net_means
from causalrisk.estimators.joint.minima import LinearModels, ObjectiveStage, Point, Solved, solve
from causalrisk.estimators.joint.objective import JointCriterion, JointObjective, ResampledWeights
from causalrisk.estimators.joint.start import Starts
from causalrisk.estimators.refit import SeparateRefitter, Weighing, refit_weighed, weigh_resamples
from causalrisk.estimators.resampling import (
    FullFit,
    KeptPasses,
    ResamplePasses,
    RowsToRefit,
    ScannedPasses,
)
from causalrisk.estimators.specification import EffectScale
from causalrisk.numerics.blocks import KEPT, add_up
from causalrisk.numerics.linalg import UNDER_RESAMPLES, Array, row_blocks
from causalrisk.numerics.multiplicities import WIDTH
from causalrisk.numerics.newton import NewtonFits
from causalrisk.propensity.replicates import BatchedReplicates, ModelRows, ReplicateTotals, ResampleReplicates
from causalrisk.propensity.weights import TargetSums, WeightFit

T = TypeVar("T")
Weighed: TypeAlias = tuple[JointObjective, ResampledWeights]  # rows, and their weights in resamples
ARRAYS = 12  # with a number for each row and resample, where the weights of all rows are kept
KEPT_WEIGHTS = 2**29  # bytes of these that are kept between passes
AT_ONCE_BYTES = 2**28  # bytes of the sums of the resamples that are worked on in a pass


def starts_of(full: FullFit, refits: Refits) -> Starts:
    """Return refits of IPWRA as where those of a joint fit start."""
    first, theta = len(full.params), full.coefficients
    found = refits.values[first : first + theta.size].reshape(*theta.shape, -1)
    found = np.where(np.isnan(found), theta[..., None], found)
    return Starts(found, refits.values[first - len(theta) : first], refits.failures)


# --- importance weights of resamples -----------------------------------------------------------------------------


@dataclass(frozen=True)
class JointFit:
    """A joint fit, to be made again under resamples.

    Parameters
    ----------
    weight_fit : WeightFit
        The full-sample importance weights.
    criterion : JointCriterion
        Weights of the terms of the objective, those of the full sample.
    replicates : ResampleReplicates
        The distribution of the propensity score within each resample.
    models : LinearModels
        The models where refits begin: the start of a linear fit, the solution of another.
    """

    weight_fit: WeightFit
    criterion: JointCriterion
    replicates: ResampleReplicates
    models: LinearModels


@dataclass(frozen=True)
class JointWeighing:
    """Importance weights of resamples, and under the replicates of each.

    Parameters
    ----------
    own : Weighing
        Those of the resamples.
    starts : Starts or None
        IPWRA in them, as in `solve`.
    criterion, replicates
        As in `JointFit`.
    """

    own: Weighing
    starts: Starts | None
    criterion: JointCriterion
    replicates: ResampleReplicates

    def of(self, rows: RowsToRefit, counts: Array, columns: NDArray[np.intp]) -> Weighed:
        """Weigh some rows under multiplicities (n, w) of some of the resamples."""
        own, start = self.own.some(columns), None if self.starts is None else self.starts.theta[..., columns]
        place = rows.block.place if rows.block.problem.in_memory else None
        of_rows = ModelRows(rows.weight_model, rows.sample.slices, place)
        at, replicated = self.replicates.weigh(of_rows, counts, own.gamma, columns, own.whole)
        objective = JointObjective(rows.sample, self.criterion)
        return objective, ResampledWeights.of(counts / own.whole.total, at, replicated, start)


def _weighed(weighing: JointWeighing, rows: RowsToRefit, counts: Array, group: slice) -> Weighed:
    return weighing.of(rows, counts, np.arange(group.start, group.stop))


@dataclass(frozen=True)
class ResamplePoints:
    """Passes over rows with their weights in resamples, as in `minima.JointPasses`.

    Parameters
    ----------
    passes : ResamplePasses
        Passes over the rows.
    weighing : JointWeighing
        Importance weights.
    numbers : ndarray of int, shape (m,)
        The resamples, ascending.
    kept : list, optional
        The weighed rows in memory, where they are kept; otherwise rows are weighed anew in each pass.
    """

    passes: ResamplePasses
    weighing: JointWeighing
    numbers: NDArray[np.intp]
    kept: list[Weighed] | None = None

    @property
    def in_blocks(self) -> bool:
        """As in `JointPasses`."""
        return not self.passes.problem.in_memory

    @property
    def batches(self) -> list[NDArray[np.intp]]:
        """The resamples that are worked on together, of each batch that has some."""
        first = [batch.start for batch in self.passes.groups()]
        batches = np.split(self.numbers, np.searchsorted(self.numbers, first[1:]))
        return [batch for batch in batches if len(batch)]

    @property
    def sizes(self) -> list[int]:
        """As in `JointPasses`."""
        return [len(batch) for batch in self.batches]

    def over(self, stage: ObjectiveStage[T], points: list[Point]) -> list[T]:
        """As in `JointPasses`."""
        if self.kept is not None:
            return [add_up(stage(*weighed, point) for weighed in self.kept) for point in points]
        at = list(zip(self.batches, points, strict=True))
        found = self.passes.over(functools.partial(_at_points, stage, self.weighing, at))
        return [of_group for of_group in found if of_group is not None]

    def subset(self, wanted: NDArray[np.bool_]) -> ResamplePoints:
        """As in `JointPasses`."""
        kept = None if self.kept is None else [(rows, resampled.subset(wanted)) for rows, resampled in self.kept]
        return replace(self, numbers=self.numbers[wanted], kept=kept)


def _at_points(
    stage: ObjectiveStage[T],
    weighing: JointWeighing,
    at: list[tuple[NDArray[np.intp], Point]],
    rows: RowsToRefit,
    counts: Array,
    batch: slice,
) -> T | None:
    """Apply a stage to some rows at the point of a batch; None where no resample of the batch is wanted."""
    for numbers, point in at:
        if batch.start <= numbers[0] < batch.stop:
            own = counts if len(numbers) == counts.shape[1] else counts[:, numbers - batch.start]
            return stage(*weighing.of(rows, own, numbers), point)
    return None


# --- refits ------------------------------------------------------------------------------------------------------


def refit_jointly(
    start_passes: ResamplePasses,
    passes: ResamplePasses,
    fit: JointFit,
    fits: NewtonFits | None = None,
    keeps: bool = False,
) -> Refits:
    """Estimate again under resamples.

    Parameters
    ----------
    start_passes : ResamplePasses
        Passes over the rows under the resamples, of IPWRA, where each fit starts.
    passes : ResamplePasses
        The same of outcomes as they are: the level is left out of IPWRA's fits alone, as the joint equations are of
        deviations from the start.
    fit : JointFit
        The full-sample estimate.
    fits : NewtonFits, optional
        Propensity refits, where they were made already.
    keeps : bool, default False
        Whether weights of rows in memory are kept between passes.

    Returns
    -------
    Refits
        Estimates and failures.
    """
    problem = start_passes.problem
    own, begins, widest = weigh_resamples(start_passes, fit.weight_fit.gamma, fits)
    linear = problem.outcome_family.linear
    starts = None if linear else starts_of(start_passes.full, refit_weighed(start_passes, own, begins, widest))
    replicates = fit.replicates
    if isinstance(passes, ScannedPasses) and isinstance(replicates, BatchedReplicates):
        replicates = replace(replicates, totals=_replicate_totals(passes, own, replicates))
    weighing = JointWeighing(own, starts, fit.criterion, replicates)
    objective, found = JointObjective(problem.some_block().sample, fit.criterion), list[Refits]()
    with np.errstate(all="ignore"):  # resamples that cannot be fitted are counted
        for points in _batches(passes, fit, weighing, keeps):
            solved = solve(objective, points, fit.models, None if starts is None else starts.part(points.numbers))
            unusable = [points.kept[0][1].replicated.failures] if points.kept else []  # those of any block
            for numbers, each in zip(points.batches, solved, strict=True):
                gamma = own.gamma[: len(fit.weight_fit.coefficients), numbers]
                found.append(_collected(each, fit, start_passes.full.effect_scale, gamma, begins[numbers], unusable))
    return Refits.joined(found)


def _collected(
    solved: Solved,
    fit: JointFit,
    scale: EffectScale,
    gamma: Array,
    begins: NDArray[np.int8],
    unusable: list[NDArray[np.int8]],
) -> Refits:
    """Return the estimates at the minima of some resamples, given what failed before, first of all of the weights."""
    of_starts = [solved.starts.failures] if fit.criterion.real_share else []  # the objective depends on them
    failures = first_failure(begins, *unusable, solved.failures, *of_starts)
    raw = solved.averages
    means = net_means(raw, solved.biases, fit.criterion.scale_slopes, scale)
    found = collect_refits(np.concatenate([scale.effects(raw), means]), solved.theta, gamma, failures)
    return replace(found, start=np.where(begins == Failure.OK, solved.starts.params(scale), np.nan))


def _batches(passes: ResamplePasses, fit: JointFit, weighing: JointWeighing, keeps: bool) -> Iterator[ResamplePoints]:
    """Yield passes for the resamples, over a scan some groups at a time, whose sums take little memory."""
    every = passes.groups()
    if not isinstance(passes, ScannedPasses):
        kept = passes.over(functools.partial(_weighed, weighing), list)[0] if keeps else None
        yield ResamplePoints(passes, weighing, np.arange(every[0].stop), kept)
        return
    n_arms, p = fit.models.theta.shape
    numbers = n_arms * (p + 1) * (weighing.replicates.count + 1 + 2 * n_arms * p)
    width = max(AT_ONCE_BYTES // (8 * WIDTH * numbers), 1)
    for first in range(0, len(every), width):
        groups = every[first : first + width]
        some = replace(passes, resamples=replace(passes.resamples, some=slice(first, first + width)))
        yield ResamplePoints(some, weighing, np.arange(groups[0].start, groups[-1].stop))


def _replicate_totals(
    passes: ScannedPasses, own: Weighing, replicates: BatchedReplicates
) -> list[ReplicateTotals] | None:
    """Sum over all rows what weights under the replicates of each resample are divided by; a pass if the tilt varies.

    None where weights are not divided.
    """
    if not passes.problem.target.fixed_tilt:
        found = passes.over(functools.partial(_replicate_targets, own.gamma, replicates))
        every = itertools.chain.from_iterable(found)
        totals = (replace(sums, total=own.whole.total[[j]]) for j, sums in enumerate(every))
    elif passes.problem.some_block().weight_model.divided:
        totals = (own.whole.some(np.array([j])) for j in range(own.gamma.shape[1]))
    else:
        return None
    return [ReplicateTotals(of_one, None) for of_one in totals]


def _replicate_targets(
    gamma: Array, replicates: BatchedReplicates, rows: RowsToRefit, counts: Array, group: slice
) -> tuple[TargetSums, ...]:
    """Sum tilt and measure under the replicates of each resample."""
    model = rows.weight_model
    gammas = (replicates.gamma_of(counts[:, j], own) for j, own in enumerate(gamma[:, group].T))
    return tuple(model.target_sums(model.predictors(own), counts[:, [j]]) for j, own in enumerate(gammas))


class JointRefitter:
    """Refits the Joint Robust Estimator in memory.

    Parameters
    ----------
    start : SeparateRefitter
        Refits IPWRA, where each fit starts.
    theta : ndarray, shape (K, p)
        Where refits begin.
    criterion, replicates
        As in `JointFit`.
    """

    def __init__(
        self,
        start: SeparateRefitter,
        theta: Array,
        criterion: JointCriterion,
        replicates: ResampleReplicates,
    ) -> None:
        if start.weight_fit is None:
            raise TypeError("the joint estimator has importance weights")
        self.start, self.sample, self.criterion = start, start.problem.sample, criterion
        linear = self.sample.family.linear
        models = LinearModels.of(theta, self.sample) if linear else LinearModels.plain(theta)
        self.fit = JointFit(start.weight_fit, criterion, replicates, models)

    @property
    def arrays(self) -> int:
        """As in `estimates.Refitter`; over blocks of rows, whose weights are not kept, the multiplicities alone."""
        return ARRAYS if self._keeps(WIDTH) else 1

    @property
    def rows_together(self) -> int:
        """As in `estimates.Refitter`; linear models need all weights of no more than a block at a time."""
        return KEPT // (8 * WIDTH) if self.sample.family.linear and len(self._kept) > 1 else ROWS_TOGETHER

    @cached_property
    def _kept(self) -> list[RowsToRefit]:
        fit, problem, n = self.fit, self.start.problem, self.sample.n
        by_blocks = fit.replicates.in_blocks and fit.weight_fit.model.by_rows
        places = row_blocks(n, UNDER_RESAMPLES) if by_blocks else [slice(0, n)]
        return [RowsToRefit(problem.block(place), self.start.full.without_level()) for place in places]

    def _keeps(self, m: int) -> bool:
        """Whether weights under m resamples are kept: of one block of rows, or of some with several passes, if few."""
        several = not self.sample.family.linear and 8 * ARRAYS * self.sample.n * m <= KEPT_WEIGHTS
        return len(self._kept) == 1 or several

    def refit(self, counts: Array, fits: NewtonFits | None = None) -> Refits:
        """As in `estimates.Refitter`."""
        fits, m, parts = fits or self.fit.weight_fit.refit(counts), counts.shape[1], list[Refits]()
        width = self.fit.replicates.at_once or m
        for begin in range(0, m, width):
            part = slice(begin, min(begin + width, m))
            some = NewtonFits(fits.coefficients[:, part], fits.failures[part], fits.iterations)
            start = self.start.passes(counts[:, part])
            passes = KeptPasses(start.problem, start.full.without_level(), start.counts, self._kept)
            keeps = self._keeps(part.stop - begin)
            parts.append(refit_jointly(start, passes, self.fit, some, keeps))
        return Refits.joined(parts)
