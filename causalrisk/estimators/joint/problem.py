"""The joint problem that an IPWRA fit leaves: of rows in memory, and over blocks of the rows of a scan.

Flows in: the IPWRA fit, of a scan what it was made from. Flows out: the joint problem, and of a scan its passes after
the fit. Training is the same; only where the rows are, and how the propensity replicates are drawn, is different.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar, cast

import numpy as np

from causalrisk.design import Design, ScannedDesign
from causalrisk.design.support import check_clusters_held_out
from causalrisk.errors import Notes, UnavailableError
from causalrisk.estimators.estimates import BlockInfluence, EstimateRows, Refits, ScannedEstimate
from causalrisk.estimators.joint.equations import JointRows
from causalrisk.estimators.joint.leave_one_out import cluster_numbers
from causalrisk.estimators.joint.minima import LinearModels
from causalrisk.estimators.joint.refit import JointFit, refit_jointly
from causalrisk.estimators.joint.train import ENOUGH, SMALLER, JointEstimate, JointEstimateRows, JointProblem
from causalrisk.estimators.options import JREOptions
from causalrisk.estimators.problem import Block, ScannedProblem
from causalrisk.estimators.record import FitRecord, LaterPasses
from causalrisk.estimators.refit import refit_propensity
from causalrisk.estimators.resampling import FullFit, Resamples, ScannedPasses, checked_replicates
from causalrisk.estimators.sample import Sample
from causalrisk.estimators.separate import Trained
from causalrisk.estimators.weights import WeightsOfScan
from causalrisk.numerics.blocks import spread_evenly
from causalrisk.numerics.linalg import Array
from causalrisk.propensity.replicates import (
    BatchedReplicates,
    Replicates,
    ReplicateTotals,
    ResampleReplicates,
    ShiftedLogitReplicates,
    WeightMoments,
    shifted_gamma,
)
from causalrisk.propensity.weights import WeightFit

T = TypeVar("T")
OfFit: TypeAlias = Callable[[slice, Sample, WeightFit], T]  # of some rows, where they are in their block


@dataclass(frozen=True, kw_only=True)
class ScannedJointProblem(JointProblem):
    """A joint problem whose rows come in blocks.

    Parameters
    ----------
    sample, weight_fit, start, replicates, effect_scale, n_units, start_covariance, strata
        As in `JointProblem`, without rows.
    source : ScannedProblem
        What is estimated from which data.
    weights : WeightsOfScan
        The fitted importance weights.
    full : FullFit
        The IPWRA fit, to be made again.
    """

    source: ScannedProblem
    weights: WeightsOfScan
    full: FullFit
    thinning: float = 1.0

    in_memory = kept = False
    in_blocks = True

    def over_fits(self, function: Callable[[slice, Sample, WeightFit], T]) -> Iterator[T]:
        """As in `JointProblem`."""
        blocks = self.source.over(functools.partial(_of_parts, self.weights, function, self.thinning, list))
        return itertools.chain.from_iterable(blocks)

    def over(self, function: Callable[[JointRows], T], moments: dict[int, WeightMoments] | None = None) -> Iterator[T]:
        """As in `JointProblem`; what blocks need of all rows is summed here, before they go to workers."""
        _ = self.totals, self.start_sums
        return super().over(function, moments)

    def by_block(self, function: Callable[[JointRows], T], combine: Callable[[Iterable[T]], T]) -> Iterator[T]:
        """As in `JointProblem`."""
        _ = self.totals, self.start_sums
        weighed = functools.partial(self.on_weighed, function, None)
        return self.source.over(functools.partial(_of_parts, self.weights, weighed, 1.0, combine))

    def over_influence(self, rows: EstimateRows, function: Callable[[BlockInfluence], T]) -> Iterator[T]:
        """As in `JointProblem`."""
        return self.source.over(functools.partial(_on_influence, function, self, cast(JointEstimateRows, rows)))

    @functools.cached_property
    def totals(self) -> ReplicateTotals | None:
        """As in `JointProblem`."""
        if self.every is not None:
            return self.every.totals
        return ReplicateTotals(self.weights.whole.target, None) if self.fixed_tilt else self.varying_totals()

    @functools.cached_property
    def thinned(self) -> JointProblem:
        """As in `JointProblem`."""
        thinning = ENOUGH / self.source.design.n
        if thinning >= 1 or self.clusters or self.weight_fit.model.membership is not None:
            return self
        return dataclasses.replace(self, thinning=thinning, every=self)

    def without_rows(self) -> JointProblem:
        """Return what is kept of the problem after the fit."""
        names = [field.name for field in dataclasses.fields(JointProblem)]
        return JointProblem(**{name: getattr(self, name) for name in names})


def _of_parts(
    weights: WeightsOfScan, function: OfFit[T], thinning: float, combine: Callable[[Iterable[T]], Any], block: Block
) -> Any:
    """Combine what a function makes of some rows of a block at a time, or of a share of them, `thinning`."""
    fit, sample = weights.of(block), block.sample
    if thinning < 1:
        rows = spread_evenly(block.position, thinning)
        fit, sample = fit.part_of_fit(rows), sample.some(rows)
    return combine(function(rows, sample.part(rows), fit.part_of_fit(rows)) for rows in sample.parts(SMALLER))


def joint_problem(start: FitRecord, sample: Sample, replicates: Replicates, clusters: int) -> JointProblem:
    """Return what is trained from an IPWRA fit: rows, propensity replicates and the number of clusters are given."""
    return JointProblem(
        sample=sample,
        weight_fit=start.used_weight_fit,
        start=start.estimate,
        replicates=replicates,
        effect_scale=start.options.effect_scale,
        n_units=float(start.design.nobs),
        clusters=clusters,
        frequency=start.frequency,
        start_covariance=start.robust,
        strata=start.design.strata,
    )


def scanned_joint_problem(
    start: FitRecord,
    problem: ScannedProblem,
    trained: Trained,
    options: JREOptions,
    notes: Notes,
    replicates: Replicates | None,
) -> ScannedJointProblem:
    """Draw the propensity replicates if they are not known; their weights go by the number of each row."""
    estimate, weights = start.estimate, trained.weighed.weights
    if not isinstance(weights, WeightsOfScan):
        raise TypeError("the joint estimator has importance weights")
    full = FullFit(estimate.params, trained.theta, trained.level, problem.options.effect_scale)
    if replicates is None:
        resampler = problem.resampler(start.bootstrap, start.seed)
        resamples = Resamples(resampler, options.n_drawn, spread=options.replicate_spread)
        fits = refit_propensity(problem, full, estimate.gamma, resamples)
        replicates = checked_replicates(Replicates(fits.usable, fits.failures), notes)
    known = vars(joint_problem(start, start.sample, replicates, problem.n_clusters))
    return ScannedJointProblem(**known, source=problem, weights=weights, full=full)


def without_rows(
    problem: ScannedJointProblem, found: JointEstimate
) -> tuple[JointEstimate, JointProblem, LaterJointPasses]:
    """Return what is kept of an estimate and its problem after the fit, and further passes over the rows."""
    kept = dataclasses.replace(found, estimate=ScannedEstimate.of(found.estimate))
    passes = LaterJointPasses(problem, cast(JointEstimateRows, found.estimate.rows), found.covariance)
    return kept, problem.without_rows(), passes


def check_held_out(problem: ScannedProblem, options: JREOptions) -> None:
    """Refuse to choose the anchor by more clusters than there is memory for."""
    design = problem.design
    if problem.n_clusters and options.objective == "risk" and options.anchor is None:
        numbers = cluster_numbers((design.n_arms, len(design.exog_names)), options.n_drawn)
        check_clusters_held_out(problem.n_clusters, numbers)


def check_joint_scan(design: Design, joint_options: JREOptions) -> None:
    """Refuse of a scan what the joint estimator has in memory alone."""
    if isinstance(design, ScannedDesign) and joint_options.replicates is not None:
        raise UnavailableError(
            "replicates= goes by rows, and those of a scan are not kept in memory.\n"
            "Leave replicates= out, or, if the rows fit into memory, use `data=data.collect()`."
        )


@dataclass(frozen=True)
class LaterJointPasses(LaterPasses):
    """Further passes over the rows of a joint fit.

    Parameters
    ----------
    problem : ScannedJointProblem
        What was trained.
    rows : JointEstimateRows
        The influence function.
    covariance : ndarray, shape (d, d), optional
        Robust covariance of all estimates, where it is known.
    start : LaterPasses, optional
        Those of the IPWRA fit that it starts from.
    """

    problem: ScannedJointProblem
    rows: JointEstimateRows
    covariance: Array | None
    start: LaterPasses | None = None

    def influence(self, function: Callable[[BlockInfluence], T]) -> Iterator[T]:
        """As in `LaterPasses`."""
        return self.problem.over_influence(self.rows, function)

    def refits(self, kind: str, seed: np.random.SeedSequence, n_boot: int) -> Refits:
        """As in `LaterPasses`."""
        problem, solution, weight_fit = self.problem, self.rows.solution, self.problem.weight_fit
        theta, shifts = problem.start.theta, problem.replicates.shifts(weight_fit.gamma)
        if not problem.sample.family.linear:
            theta = solution.theta
        replicates: ResampleReplicates = ShiftedLogitReplicates(shifts)
        if not weight_fit.model.separable:
            shifted = functools.partial(shifted_gamma, shifts)
            replicates = BatchedReplicates(problem.replicates.count, shifted)
        fit = JointFit(weight_fit, solution.criterion, replicates, LinearModels.plain(theta))
        start = ScannedPasses(problem.source, problem.full, Resamples(problem.source.resampler(kind, seed), n_boot))
        passes = dataclasses.replace(start, full=start.full.without_level())
        return refit_jointly(start, passes, fit)


def _on_influence(
    function: Callable[[BlockInfluence], T], problem: ScannedJointProblem, rows: JointEstimateRows, block: Block
) -> T:
    def influence(place: slice, sample: Sample, fit: WeightFit) -> Array:
        return rows.of(problem.block(place, sample, fit))[1]

    values = np.concatenate(_of_parts(problem.weights, influence, 1.0, list, block))
    return function(BlockInfluence(values, block.sample.s, block.sample.cluster, block.sample.stratum, block.number))
