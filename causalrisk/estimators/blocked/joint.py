"""The Joint Robust Estimator over blocks of rows: the joint problem of a scan, whose passes read the rows anew.

Flows in: a scan, its IPWRA fit over blocks. Flows out: a record of the joint fit. Training is that of a fit in memory;
only where the rows are, and how the propensity replicates are drawn, is different.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias, TypeVar, cast

import numpy as np

from causalrisk.design import ScannedDesign
from causalrisk.design.size import check_clusters_held_out
from causalrisk.errors import Notes, UnavailableError
from causalrisk.estimators.blocked.problem import Block, Problem
from causalrisk.estimators.blocked.refit import Resamples, refit_propensity
from causalrisk.estimators.blocked.separate import (
    BlockedFit,
    BlockedWeights,
    check_available,
    check_matrices_of,
    problem_of,
    separate_record,
)
from causalrisk.estimators.estimate import ScannedEstimate
from causalrisk.estimators.fit import (
    KeepStart,
    check_clusters,
    check_converged,
    check_outcome,
    check_range,
    joint_method,
    train_by,
    trainer_of,
    units_of,
)
from causalrisk.estimators.joint.equations import JointRows
from causalrisk.estimators.joint.left_out.clusters import cluster_numbers
from causalrisk.estimators.joint.refit import JointFit, refit_joint_blocks
from causalrisk.estimators.joint.train import SHARE, JointProblem, SolvedRows, of_weighed
from causalrisk.estimators.options import InferenceOptions, JREOptions, ModelOptions
from causalrisk.estimators.record import BlockInfluence, FitRecord, LaterPasses
from causalrisk.estimators.refits import Refits
from causalrisk.estimators.resampling import checked_replicates
from causalrisk.estimators.sample import Sample
from causalrisk.estimators.separate import FullFit
from causalrisk.estimators.specification import IPWRA, JRE
from causalrisk.numerics.failures import Failure
from causalrisk.numerics.linalg import Array
from causalrisk.propensity.replicates import Replicates, ReplicateTotals, WeightMoments
from causalrisk.propensity.weights import WeightFit

T = TypeVar("T")
OfFit: TypeAlias = Callable[[slice, Sample, WeightFit], T]  # of some rows, where they are in their block


@dataclass(frozen=True, kw_only=True)
class ScannedJointProblem(JointProblem):
    """A joint problem whose rows come in blocks.

    Parameters
    ----------
    sample, weight_fit, start, replicates, effect_scale, n_units
        As in `JointProblem`, without rows.
    source : Problem
        What is estimated from which data.
    weights : BlockedWeights
        The fitted importance weights.
    """

    source: Problem
    weights: BlockedWeights

    in_memory = kept = False
    in_blocks = True

    def over_fits(self, function: Callable[[slice, Sample, WeightFit], T]) -> Iterator[T]:
        """As in `JointProblem`."""
        blocks = self.source.over(functools.partial(_of_parts, self.weights, function))
        return itertools.chain.from_iterable(blocks)

    def over(self, function: Callable[[JointRows], T], moments: dict[int, WeightMoments] | None = None) -> Iterator[T]:
        """As in `JointProblem`; what blocks need of all rows is summed here, before they go to workers."""
        _ = self.totals
        return super().over(function, moments)

    def by_block(self, function: Callable[[JointRows], T], combine: Callable[[Iterable[T]], T]) -> Iterator[T]:
        """As in `JointProblem`."""
        _ = self.totals
        weighed = functools.partial(of_weighed, self, function, None)
        return self.source.over(functools.partial(_combined_parts, self.weights, weighed, combine))

    @functools.cached_property
    def totals(self) -> ReplicateTotals | None:
        """As in `JointProblem`."""
        return ReplicateTotals(self.weights.whole.target, None) if self.separable else self.varying_totals()

    def without_rows(self) -> JointProblem:
        """Return what is kept of the problem after the fit."""
        names = [field.name for field in dataclasses.fields(JointProblem)]
        return JointProblem(**{name: getattr(self, name) for name in names})


def _of_parts(weights: BlockedWeights, function: OfFit[T], block: Block) -> list[T]:
    return list(_parts(weights, function, block))


def _combined_parts(
    weights: BlockedWeights, function: OfFit[T], combine: Callable[[Iterable[T]], T], block: Block
) -> T:
    return combine(_parts(weights, function, block))


def _parts(weights: BlockedWeights, function: OfFit[T], block: Block) -> Iterator[T]:
    """Yield what a function makes of some rows of a block at a time."""
    fit = weights.of(block)
    return (function(rows, block.sample.part(rows), fit.part_of_fit(rows)) for rows in block.sample.parts(SHARE))


def fit_joint_blocks(
    design: ScannedDesign,
    options: ModelOptions,
    inference: InferenceOptions,
    joint_options: JREOptions,
    keep: KeepStart,
) -> FitRecord:
    """Fit the Joint Robust Estimator to a scan.

    Parameters
    ----------
    design : ScannedDesign
        The data.
    options : ModelOptions
        What is estimated.
    inference : InferenceOptions
        How standard errors are computed.
    joint_options : JREOptions
        How it is trained.
    keep : callable
        As in `fit_joint`; its covariance takes a pass over the rows.

    Returns
    -------
    FitRecord
        The fit, without standard errors.
    """
    kinds = inference.resolved(design.cluster_name is not None, joint=True)
    check_available(options, inference)
    _check_joint(design, joint_options, kinds)
    if kinds[0] == "bootstrap":
        check_matrices_of(design, inference.draws)
    method = joint_method(joint_options, options)
    notes, problem = Notes(design.notes), dataclasses.replace(problem_of(design, JRE, options, inference), spec=IPWRA)
    _check_clusters_held_out(problem, joint_options, inference.memory)
    start, fit = separate_record(problem, inference, kinds, notes)
    covariance = keep(start)
    joint = _joint_problem(start, problem=problem, fit=fit, options=joint_options, notes=notes)
    trained = train_by(trainer_of(joint, start, joint_options), joint_options, units_of(joint, start), notes)
    check_converged(trained, method, notes)
    check_outcome(problem.design, notes)
    check_clusters(problem.design, notes)
    estimate = trained.estimate.estimate
    kept = ScannedEstimate(
        params=estimate.params,
        theta=estimate.theta,
        gamma=estimate.gamma,
        model_means=estimate.model_means,
        failed=estimate.failed,
    )
    record = dataclasses.replace(
        trained,
        problem=joint.without_rows(),
        estimate=dataclasses.replace(trained.estimate, estimate=kept),
        start_covariance=covariance,
    )
    passes = JointPasses(joint, cast(SolvedRows, estimate.rows))
    found = dataclasses.replace(start, spec=JRE, estimate=kept, joint=record, passes=passes)
    check_range(found, notes)
    return dataclasses.replace(found, notes=tuple(notes))


def _joint_problem(
    start: FitRecord, problem: Problem, fit: BlockedFit, options: JREOptions, notes: Notes
) -> ScannedJointProblem:
    """Draw the propensity replicates, whose weights go by the number of each row, and fit them."""
    estimate, weights = start.estimate, fit.weights
    if weights is None:
        raise TypeError("the joint estimator has importance weights")
    resampler = problem.resampler(start.bootstrap, start.seed)
    full = FullFit(estimate.params, fit.theta, fit.level, problem.options.effect_scale)
    resamples = Resamples(resampler, options.n_drawn, spread=options.replicate_spread)
    fits = refit_propensity(problem, full, estimate.gamma, resamples)
    replicates = Replicates(fits.coefficients[:, fits.failures == Failure.OK], fits.failures)
    return ScannedJointProblem(
        sample=start.sample,
        weight_fit=start.used_weight_fit,
        start=estimate,
        replicates=checked_replicates(replicates, notes),
        effect_scale=problem.options.effect_scale,
        n_units=float(problem.design.nobs),
        clusters=problem.n_clusters,
        source=problem,
        weights=weights,
    )


def _check_clusters_held_out(problem: Problem, options: JREOptions, budget: float | None) -> None:
    """Refuse to choose the anchor by more clusters than there is memory for."""
    design = problem.design
    if problem.n_clusters and options.objective == "risk" and options.anchor is None:
        numbers = cluster_numbers((design.n_arms, len(design.exog_names)), options.n_drawn)
        check_clusters_held_out(problem.n_clusters, numbers, budget)


def _check_joint(design: ScannedDesign, joint_options: JREOptions, kinds: tuple[str, str]) -> None:
    """Refuse what the joint estimator has in memory alone."""
    if kinds[0] == "bootstrap" and joint_options.bootstrap_replicates == "nested":
        raise UnavailableError(
            'bootstrap_replicates="nested" is not there for a scan: the replicates of each resample would take passes '
            'of their own.\nType  bootstrap_replicates="shifted".'
        )
    if kinds[1] == "stratified":
        raise UnavailableError(
            'bootstrap="stratified" is not there for JRE from a scan: its propensity replicates are of all rows.\n'
            'Type  bootstrap="bayesian".'
        )
    if joint_options.replicates is not None:
        raise UnavailableError(
            "replicates= goes by rows, and those of a scan are not kept in memory.\n"
            "Leave replicates= out, or, if the rows fit into memory, type  data=data.collect()."
        )


@dataclass(frozen=True)
class JointPasses(LaterPasses):
    """Further passes over the rows of a joint fit.

    Parameters
    ----------
    problem : ScannedJointProblem
        What was trained.
    rows : SolvedRows
        The influence function.
    """

    problem: ScannedJointProblem
    rows: SolvedRows

    def influence(self, function: Callable[[BlockInfluence], T]) -> Iterator[T]:
        """As in `LaterPasses`."""
        return self.problem.source.over(functools.partial(_on_influence, function, self.problem, self.rows))

    def refits(self, kind: str, seed: np.random.SeedSequence, n_boot: int) -> Refits:
        """As in `LaterPasses`."""
        problem, solution = self.problem, self.rows.solution
        linear, weight_fit = problem.sample.family.linear, problem.weight_fit
        fit = JointFit(
            params=solution.params(),
            theta=problem.start.theta if linear else solution.theta,
            gamma=weight_fit.gamma,
            replicates=problem.replicates.gamma,
            criterion=solution.criterion,
            effect_scale=problem.effect_scale,
        )
        return refit_joint_blocks(problem.source, fit, problem.source.resampler(kind, seed), n_boot)


def _on_influence(
    function: Callable[[BlockInfluence], T], problem: ScannedJointProblem, rows: SolvedRows, block: Block
) -> T:
    def influence(place: slice, sample: Sample, fit: WeightFit) -> Array:
        return rows.of(problem.block(place, sample, fit))[1]

    values = np.concatenate(_of_parts(problem.weights, influence, block))
    return function(BlockInfluence(values, block.sample.s, block.cluster))
