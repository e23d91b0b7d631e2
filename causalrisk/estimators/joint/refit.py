"""The joint robust estimator under many resamples: the same objectives, minimised for all of them together.

Flows in: rows and their multiplicities, in memory or in blocks that are read in every pass; the criterion and the
replicates of the full sample. Flows out: estimates under the resamples. The score is fitted again under each, and its
replicates are shifted along with it or drawn anew; then the objectives of linear models are solved from the sums of one
pass, and others are searched for together (`newton`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from causalrisk.estimators.effect_scales import EffectScale
from causalrisk.estimators.estimates import ROWS_TOGETHER, Refits, collect_refits, count_totals, empty_arms
from causalrisk.estimators.joint.criterion import JointCriterion
from causalrisk.estimators.joint.linear import LinearModels, LinearObjectives, LinearSums, Solved
from causalrisk.estimators.joint.newton import JointPasses, NonlinearObjectives, Point, Stage
from causalrisk.estimators.joint.objective import JointObjective, ResampledWeights
from causalrisk.estimators.joint.solution import net_means
from causalrisk.estimators.joint.start import Starts
from causalrisk.estimators.problem import ScannedProblem
from causalrisk.estimators.refit import SeparateRefitter, Weighing, refit_weighed, weigh_resamples
from causalrisk.estimators.resample_passes import FullFit, RefitRows, Resamples, ScannedPasses
from causalrisk.estimators.sample import Sample, shifted
from causalrisk.estimators.training import Level
from causalrisk.numerics.blocks import KEPT, add_up
from causalrisk.numerics.failures import Failure, first_failure
from causalrisk.numerics.linalg import Array, pairwise_columns
from causalrisk.numerics.multiplicities import WIDTH, Resampler
from causalrisk.numerics.newton import NewtonFits
from causalrisk.numerics.trust_region import Minima
from causalrisk.propensity.replicates import (
    BlockwiseWeights,
    ReplicateTotals,
    ReplicateWeights,
    ResampleReplicates,
    ShiftedLogitWeights,
    ShiftFactors,
)
from causalrisk.propensity.weights import TargetSums, WeightFit

T = TypeVar("T")
Weighed: TypeAlias = tuple[JointObjective, ResampledWeights]  # rows, and their weights in resamples
ARRAYS = 12  # with a number for each row and resample, where the weights of all rows are kept
KEPT_WEIGHTS = 2**29  # bytes of these that are kept between passes
AT_ONCE = 2**28  # bytes of the sums of the resamples that are worked on in a pass


# --- the objectives of resamples, minimised ----------------------------------------------------------------------


def solve(objective: JointObjective, passes: JointPasses, models: LinearModels, starts: Starts | None) -> list[Solved]:
    """Minimise the objectives of resamples.

    Parameters
    ----------
    objective : JointObjective
        The objective, of whose rows nothing is asked.
    passes : JointPasses
        Passes over the rows.
    models : LinearModels
        Where refits begin; of other than linear models theirs are the coefficients.
    starts : Starts or None
        IPWRA in all resamples; None of linear models, whose sums have it.

    Returns
    -------
    list
        The minima of each group of resamples.
    """
    if objective.sample.family.linear:
        points = [Point(models.theta[..., None])] * len(passes.sizes)
        found = passes.over(functools.partial(_linear_sums, models), points)
        return [LinearObjectives(models, objective.criterion, sums).minima() for sums in found]
    if starts is None:
        raise TypeError("nonlinear models are refitted by themselves first")
    begin = np.repeat(models.theta[..., None], sum(passes.sizes), axis=2)
    minima, cuts = NonlinearObjectives(objective, passes).minima(begin), np.cumsum(passes.sizes)[:-1]
    theta = np.split(minima.theta.reshape(begin.shape), cuts, axis=2)
    failures, sums = np.split(minimum_failures(minima), cuts), passes.over(_mean_sums, [Point(own) for own in theta])
    some = [starts.part(part) for part in np.split(np.arange(begin.shape[2]), cuts)]
    every = zip(theta, failures, sums, some, strict=True)
    return [Solved(own, failed, *of_group, started) for own, failed, of_group, started in every]


def _linear_sums(models: LinearModels, objective: JointObjective, resampled: ResampledWeights, _: Point) -> LinearSums:
    views = resampled.views(objective.groups)
    return LinearSums.of(models.rows(objective.sample), objective.criterion, resampled=resampled, views=views)


def _mean_sums(objective: JointObjective, resampled: ResampledWeights, point: Point) -> tuple[tuple[Array, ...], Array]:
    """Sum arm means of each view, and biases averaged over the replicates, (K, m), at theta (K, p, m)."""
    sample, views = objective.sample, resampled.views(objective.groups)
    predicted = sample.family.mean(shifted(sample.X.columns @ point.theta, sample.offset, axis=-2))
    means = tuple((resampled.share * view.at.tilt * predicted).sum(axis=1) for view in views)
    error = resampled.share * resampled.moments.mean.w * (sample.own(predicted) - sample.y[:, None])
    return means, np.stack([error[rows].sum(axis=0) for rows in sample.slices])


def minimum_failures(minima: Minima) -> NDArray[np.int8]:
    """Say of each search how it ended."""
    failures = np.where(minima.settled, Failure.OK, Failure.OUTCOME_NOT_CONVERGED)
    return np.where(minima.singular, Failure.SINGULAR_OUTCOME, failures).astype(np.int8)


def starts_of(full: FullFit, refits: Refits) -> Starts:
    """Return refits of IPWRA as where those of a joint fit start."""
    first, theta = len(full.params), full.coefficients
    found = refits.values[first : first + theta.size].reshape(*theta.shape, -1)
    found = np.where(np.isnan(found), theta[..., None], found)
    return Starts(found, refits.values[first - len(theta) : first], refits.failures)


def failures_of(solved: Solved, criterion: JointCriterion) -> list[NDArray[np.int8]]:
    """Return what failed of the minima, and of the starts where the objective depends on them."""
    return [solved.failures, solved.starts.failures] if criterion.share else [solved.failures]


def parameters(solved: Solved, criterion: JointCriterion, scale: EffectScale) -> Array:
    """Effects and net arm means, shape (2 K - 1, m)."""
    (raw,) = solved.averages
    return np.concatenate([scale.effects(raw), net_means(raw, solved.biases, criterion.scale_slopes, scale)])


# --- rows in memory ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ResamplesInMemory:
    """Passes over rows in memory, as in `newton.JointPasses`.

    Parameters
    ----------
    weigh : callable
        Numbers of some resamples, ascending -> the objective of each block of rows and its weights in them.
    numbers : ndarray of int, shape (m,)
        The resamples.
    kept : list, optional
        What `weigh` gives, where it is kept; otherwise rows are weighed anew in each pass.
    """

    weigh: Callable[[NDArray[np.intp]], Iterable[Weighed]]
    numbers: NDArray[np.intp]
    kept: list[Weighed] | None
    in_blocks = False

    @property
    def sizes(self) -> list[int]:
        """As in `JointPasses`."""
        return [len(self.numbers)]

    def over(self, stage: Stage[T], points: list[Point]) -> list[T]:
        """As in `JointPasses`."""
        (point,) = points
        blocks = self.weigh(self.numbers) if self.kept is None else self.kept
        return [add_up(stage(objective, resampled, point) for objective, resampled in blocks)]

    def subset(self, wanted: NDArray[np.bool_]) -> ResamplesInMemory:
        """As in `JointPasses`."""
        kept = None if self.kept is None else [(rows, resampled.subset(wanted)) for rows, resampled in self.kept]
        return replace(self, numbers=self.numbers[wanted], kept=kept)


@dataclass(frozen=True)
class KeptBlock:
    """A block of rows that stays in memory.

    Parameters
    ----------
    place : slice
        Where the rows are in the sample.
    sample : Sample
        The rows.
    replicates : ResampleReplicates
        The distribution of their propensity scores.
    keeps : bool
        Whether products of pairs of its columns are kept.
    """

    place: slice
    sample: Sample
    replicates: ResampleReplicates
    keeps: bool

    @cached_property
    def pairs(self) -> Array:
        """Products of pairs of the outcome columns, as in `JointObjective`."""
        return pairwise_columns(self.sample.X.columns)

    def objective(self, criterion: JointCriterion, groups: Array | None) -> JointObjective:
        """Return the objective of the rows."""
        return JointObjective(self.sample, criterion, groups, pairs=(lambda: self.pairs) if self.keeps else None)


class JointRefitter:
    """Refits the Joint Robust Estimator in memory.

    Parameters
    ----------
    sample : Sample
        The data.
    weight_fit : WeightFit
        The full-sample importance weights.
    theta : ndarray, shape (K, p)
        Where refits begin: the start of a linear fit, the solution of another.
    criterion : JointCriterion
        Weights of the terms of the objective, those of the full sample.
    replicates : ResampleReplicates
        The distribution of the propensity score within each resample.
    start : SeparateRefitter
        Refits IPWRA, where each fit starts.
    groups : ndarray, shape (n, G), optional
        Indicators of groups whose effects are wanted in the place of the average ones.
    """

    def __init__(
        self,
        sample: Sample,
        weight_fit: WeightFit,
        theta: Array,
        criterion: JointCriterion,
        replicates: ResampleReplicates,
        start: SeparateRefitter,
        groups: Array | None = None,
    ) -> None:
        self.sample, self.weight_fit, self.theta, self.criterion = sample, weight_fit, theta, criterion
        self.replicates, self.start, self.effect_scale = replicates, start, start.full.effect_scale
        self.groups, self.objective = groups, JointObjective(sample, criterion, groups)

    @property
    def arrays(self) -> int:
        """As in `estimates.Refitter`; over blocks of rows, whose weights are not kept, the multiplicities alone."""
        return ARRAYS if self._keeps(WIDTH) else 1

    @property
    def rows_together(self) -> int:
        """As in `estimates.Refitter`; linear models need all weights of no more than a block at a time."""
        return KEPT // (8 * WIDTH) if self.sample.family.linear and len(self._blocks) > 1 else ROWS_TOGETHER

    @cached_property
    def models(self) -> LinearModels:
        """Models where the refits begin."""
        linear = self.sample.family.linear
        return LinearModels.of(self.theta, self.sample) if linear else LinearModels.plain(self.theta)

    @cached_property
    def _blocks(self) -> list[KeptBlock]:
        n, (_, p) = self.sample.n, self.sample.X.columns.shape
        keeps = 4 * n * p * (p + 1) <= KEPT
        places = self.replicates.places(n) if self.groups is None and self.weight_fit.model.by_rows else [slice(0, n)]
        if len(places) == 1:
            return [KeptBlock(slice(0, n), self.sample, self.replicates, keeps)]
        return [KeptBlock(place, self.sample.part(place), self.replicates.part(place), keeps) for place in places]

    def refit(self, counts: Array, first: int, fits: NewtonFits | None = None) -> Refits:
        """As in `estimates.Refitter`."""
        fits = fits or self.weight_fit.refit(counts)
        m, width = counts.shape[1], self.replicates.at_once or counts.shape[1]
        parts = []
        for begin in range(0, m, width):
            part = slice(begin, min(begin + width, m))
            some = NewtonFits(fits.coefficients[:, part], fits.failures[part], fits.iterations)
            parts.append(self._refit(counts[:, part], first + begin, some))
        values, failures = (
            np.concatenate([p.values for p in parts], axis=1),
            np.concatenate([p.failures for p in parts]),
        )
        starts = [part.start for part in parts if part.start is not None]
        return Refits(values, failures, np.concatenate(starts, axis=1) if starts else None)

    def _refit(self, counts: Array, first: int, fits: NewtonFits) -> Refits:
        sample, linear = self.sample, self.sample.family.linear
        starts = None if linear else starts_of(self.start.full, self.start.refit(counts, first, fits))
        gamma = np.where(fits.failures == Failure.OK, fits.coefficients, self.weight_fit.gamma[:, None])
        totals, m = count_totals(sample, counts), counts.shape[1]
        whole = self.replicates.whole(counts) if len(self._blocks) > 1 else None
        weigh, every = functools.partial(self._weighed, counts, gamma, starts, first, totals, whole), np.arange(m)
        kept = list(weigh(every)) if self._keeps(m) else None
        (solved,) = solve(self.objective, ResamplesInMemory(weigh, every, kept), self.models, starts)
        unusable = np.zeros(m, dtype=np.int8) if kept is None else kept[0][1].replicated.failures  # those of any block
        begins = first_failure(empty_arms(sample, counts), fits.failures)
        failures = first_failure(begins, unusable, *failures_of(solved, self.criterion))
        if self.groups is not None:
            effects = np.concatenate([self.effect_scale.effects(group) for group in solved.averages])
            return collect_refits(effects, solved.theta[:, :0], gamma[:0], failures)
        params = parameters(solved, self.criterion, self.effect_scale)
        found = collect_refits(params, solved.theta, gamma[: len(self.weight_fit.coefficients)], failures)
        return replace(found, start=np.where(begins == Failure.OK, solved.starts.params(self.effect_scale), np.nan))

    def _keeps(self, m: int) -> bool:
        """Whether weights under m resamples are kept: of one block of rows, or of some with several passes, if few."""
        several = not self.sample.family.linear and 8 * ARRAYS * self.sample.n * m <= KEPT_WEIGHTS
        return len(self._blocks) == 1 or several

    def _weighed(
        self, counts: Array, gamma: Array, starts: Starts | None, first: int, totals: Array, whole: TargetSums | None,
        numbers: NDArray[np.intp],
    ) -> Iterator[Weighed]:  # fmt: skip
        """Weigh one block of rows after the other under some of the resamples."""
        some = slice(None) if len(numbers) == counts.shape[1] else numbers
        start, of_all = None if starts is None else starts.theta[..., some], None if whole is None else whole.some(some)
        for block in self._blocks:
            own = counts[block.place, some]
            at, replicated = block.replicates.for_resamples(own, gamma[:, some], first, of_all)
            objective = block.objective(self.criterion, self.groups)
            yield objective, ResampledWeights.of(own / totals[some], at, replicated, start)


# --- rows that are read in every pass ----------------------------------------------------------------------------


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
    start : FullFit
        The IPWRA fit where it started.
    """

    params: Array
    theta: Array
    gamma: Array
    replicates: Array
    criterion: JointCriterion
    start: FullFit

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
    starts : Starts or None
        IPWRA in them, as in `solve`.
    shifts : ndarray, shape (Q, B)
        Distances of the replicates from the score of each resample.
    tilts, measures : ndarray, shape (n_boot, B), or None
        Sums over all rows that weights under the replicates are divided by; None where the tilt does not vary.
    """

    own: Weighing
    starts: Starts | None
    shifts: Array
    tilts: Array | None = None
    measures: Array | None = None

    def of(self, rows: RefitRows, counts: Array, columns: NDArray[np.intp]) -> ResampledWeights:
        """Weigh some rows under multiplicities (n, w) of resamples of these numbers."""
        own, model = self.own.some(columns), rows.weight_model
        eta, share = model.predictors(own.gamma), counts / own.whole.total
        start = None if self.starts is None else self.starts.theta[..., columns]
        if not model.separable:
            at = model.weights_at(eta, counts, own.whole)
            return ResampledWeights.of(share, at, self._blockwise(rows, counts, columns), start)
        terms, at = model.terms(eta, counts, own.whole)
        factors = ShiftFactors.of(model.odds(model.predictors(self.shifts)))
        replicated: ReplicateWeights = ShiftedLogitWeights(rows.sample.slices, terms, at.tilt, factors)
        return ResampledWeights.of(share, at, replicated, start)

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


@dataclass(frozen=True)
class ResamplesOfBlocks:
    """Passes over rows that come in blocks, as in `newton.JointPasses`; rows are weighed anew in each.

    Parameters
    ----------
    passes : ScannedPasses
        Passes over the rows.
    weighing : JointWeighing
        Importance weights.
    criterion : JointCriterion
        Weights of the terms.
    numbers : ndarray of int, shape (m,)
        The resamples, ascending.
    """

    passes: ScannedPasses
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

    def subset(self, wanted: NDArray[np.bool_]) -> ResamplesOfBlocks:
        """As in `JointPasses`."""
        return replace(self, numbers=self.numbers[wanted])


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
    scale = fit.start.effect_scale
    of_start = ScannedPasses(problem, fit.start, Resamples(resampler, n_boot))
    own, failures, widest = weigh_resamples(of_start, fit.gamma)
    linear = problem.outcome_family.linear
    starts = None if linear else starts_of(fit.start, refit_weighed(of_start, own, failures, widest))
    weighing = JointWeighing(own, starts, fit.shifts)
    # The level is left out of IPWRA's fits alone: the joint equations are of deviations from the start as they are.
    passes = replace(of_start, full=FullFit(fit.params, fit.theta, Level(0.0, np.zeros(fit.theta.shape[1])), scale))
    if not problem.target.separable:
        found = passes.over(functools.partial(_replicate_targets, weighing))
        tilts, measures = (np.concatenate([sums[k] for sums in found]) for k in (0, 1))
        weighing = replace(weighing, tilts=tilts, measures=measures)
    objective = JointObjective(problem.without_rows().sample, fit.criterion)
    models = LinearModels.plain(fit.theta)
    with np.errstate(all="ignore"):  # resamples that cannot be fitted are counted
        solved = []
        for some in _batches(passes, fit, weighing):
            solved += solve(objective, some, models, None if starts is None else starts.part(some.numbers))
    params, theta, start = (
        np.concatenate(of, axis=-1)
        for of in zip(
            *((parameters(s, fit.criterion, scale), s.theta, s.starts.params(scale)) for s in solved), strict=True
        )
    )
    ended = [np.concatenate(of) for of in zip(*(failures_of(s, fit.criterion) for s in solved), strict=True)]
    refits = collect_refits(params, theta, own.gamma, first_failure(failures, *ended))
    return replace(refits, start=np.where(failures == Failure.OK, start, np.nan))


def _batches(passes: ScannedPasses, fit: JointFit, weighing: JointWeighing) -> Iterator[ResamplesOfBlocks]:
    """Yield passes for some groups of resamples at a time, whose sums take little memory."""
    n_arms, p = fit.theta.shape
    numbers = n_arms * (p + 1) * (fit.replicates.shape[1] + 1 + 2 * n_arms * p)
    width, every = max(AT_ONCE // (8 * WIDTH * numbers), 1), passes.resamples.groups()
    for first in range(0, len(every), width):
        groups = every[first : first + width]
        some = replace(passes, resamples=replace(passes.resamples, some=slice(first, first + width)))
        yield ResamplesOfBlocks(some, weighing, fit.criterion, np.arange(groups[0].start, groups[-1].stop))


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
