"""Estimation over blocks of rows: the stages of `fit`, each a pass over the data.

Every quantity of a fit is a function of the rows given coefficients, or a sum of such functions over the rows. A pass
evaluates them block by block, with the functions that a fit in memory applies to all rows at once, and adds up.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from causalrisk.design import ScannedDesign, target_rows
from causalrisk.design.scan.coder import PassCounter
from causalrisk.design.scan.piece import by_place
from causalrisk.design.size import check_matrices
from causalrisk.errors import ConvergenceWarning, Notes, OverlapWarning, SeparationError, UnavailableError
from causalrisk.estimators.blocked.problem import Block, Problem
from causalrisk.estimators.blocked.refit import refit_blocks
from causalrisk.estimators.blocked.trimming import trimmed
from causalrisk.estimators.blocked.weights import BlockedWeights, FittedScan, OfLikelihoods, fit_blocked_weights
from causalrisk.estimators.estimate import ScannedEstimate
from causalrisk.estimators.exposure import check_means, check_offset
from causalrisk.estimators.fit import (
    check_clusters,
    check_outcome,
    check_range,
    not_converged,
    overlapping_arms,
    weights_of_arms,
    weights_toward_arms,
)
from causalrisk.estimators.options import InferenceOptions, ModelOptions, is_frame
from causalrisk.estimators.outcome import (
    ArmTraining,
    OutcomeLikelihood,
    check_bound,
    gaussian_instead,
    outcome_failures,
)
from causalrisk.estimators.prepare import check_target, check_trimmed_frame, notes_of_frame
from causalrisk.estimators.record import BlockInfluence, FitRecord, LaterPasses
from causalrisk.estimators.refits import Refits
from causalrisk.estimators.sample import BlockSample, ScannedSample
from causalrisk.estimators.separate import FullFit, SolvedMeans, influence_of_estimates, row_weights, solve_means
from causalrisk.estimators.specification import JRE, Specification
from causalrisk.estimators.training import (
    LEVEL_TOLERANCE,
    Level,
    TrainedRows,
    level_at,
    trained_rows,
    training_arms,
    training_family,
)
from causalrisk.numerics.failures import Failure
from causalrisk.numerics.linalg import Array, factor_solution, triangular_factor
from causalrisk.numerics.multiplicities import seed_sequence
from causalrisk.numerics.newton import BlockedLikelihood, maximize
from causalrisk.numerics.parallel import worker_count
from causalrisk.propensity.limits import ArmWeights, combined_by_key, overlap_message, remote_units
from causalrisk.propensity.row_weights import RowWeights
from causalrisk.propensity.targets import FunctionTarget, make_target
from causalrisk.propensity.weights import WeightFit

T = TypeVar("T")


def fit_blocks(
    design: ScannedDesign, spec: Specification, options: ModelOptions, inference: InferenceOptions
) -> FitRecord:
    """Fit one of the estimators that train each arm by itself to a scan.

    Parameters
    ----------
    design : ScannedDesign
        The data.
    spec : Specification
        The estimator.
    options : ModelOptions
        What is estimated.
    inference : InferenceOptions
        How standard errors are computed.

    Returns
    -------
    FitRecord
        The fit, without standard errors.
    """
    kinds = inference.resolved(design.cluster_name is not None, joint=False)
    check_available(options, inference)
    if kinds[0] == "bootstrap":
        check_matrices_of(design, inference.draws)
    notes, problem = Notes(design.notes), problem_of(design, spec, options, inference)
    record, _ = separate_record(problem, inference, kinds, notes)
    check_outcome(problem.design, notes)
    check_clusters(problem.design, notes)
    check_range(record, notes)
    return dataclasses.replace(record, notes=tuple(notes))


def separate_record(
    problem: Problem, inference: InferenceOptions, kinds: tuple[str, str], notes: Notes
) -> tuple[FitRecord, BlockedFit]:
    """Fit weights and outcome models, and average over the target.

    Parameters
    ----------
    problem : Problem
        What is estimated.
    inference : InferenceOptions
        How standard errors are computed.
    kinds : tuple of str
        Covariance type and kind of resampling.
    notes : Notes
        Warnings so far; more are added.

    Returns
    -------
    record : FitRecord
        The fit, without standard errors and notes.
    fit : BlockedFit
        Weights and outcome models.
    """
    design, spec, options = problem.design, problem.spec, problem.options
    if problem.frame is not None:
        notes.extend(notes_of_frame(design, problem.frame))
    weights = fit_blocked_weights(problem, notes) if problem.weighs else None
    fit = _fit_outcome(problem, weights, notes)
    estimate, at, spread = _estimate(problem, fit)
    overlap = spread.summaries(notes)
    size, empty = len(estimate.values), problem.without_rows()
    record = FitRecord(
        design=design,
        full_design=problem.full_design or design,
        spec=spec,
        options=options,
        sample=_kept_sample(problem, empty.sample),
        target=problem.target,
        frame=problem.frame,
        trimmed=problem.trimmed,
        weight_fit=None if weights is None else weights.summary(empty.model, spread.clipped),
        estimate=estimate,
        overlap=overlap,
        joint=None,
        cov_type=kinds[0],
        bootstrap=kinds[1],
        covariance=np.full((size, size), np.nan),
        boot=None,
        given_resamples=False,
        seed=seed_sequence(inference.rng),
        notes=design.notes,
        passes=BlockedPasses(problem, fit, at, estimate.params),
        blocks=None if weights is None else FittedScan(problem, weights.fits.coefficients[:, 0]),
    )
    return record, fit


def problem_of(
    design: ScannedDesign, spec: Specification, options: ModelOptions, inference: InferenceOptions
) -> Problem:
    """Return what is estimated from a scan, where that can be."""
    check_target(design, options)
    check_offset(design, options)
    check_means(design, options, spec)
    check_trimmed_frame(options)
    frame = target_rows(design, options.target, design.missing) if is_frame(options.target) else None
    target = make_target(options.target, np.empty((0, 1)), np.empty(0, dtype=bool))
    if isinstance(target, FunctionTarget):
        target = dataclasses.replace(target, in_blocks=True)
    workers = worker_count(inference.n_jobs, inference.memory, design.block_bytes)
    family = options.outcome_family
    return trimmed(
        Problem(
            design=design,
            spec=spec,
            options=options,
            target=target,
            family=family,
            workers=workers,
            passes=PassCounter(expected_passes(design, spec, options, inference)) if inference.progress else None,
            frame=frame,
            n_frame=0 if frame is None else len(frame.X),
        )
    )


NEWTON, ANCHORS = 6, 14  # passes that a likelihood takes as a rule, and linear models of JRE with their choice


def expected_passes(
    design: ScannedDesign, spec: Specification, options: ModelOptions, inference: InferenceOptions
) -> int | None:
    """Return about how many passes a fit takes: steps of Newton's method are as many as a logit takes as a rule.

    Parameters
    ----------
    design : ScannedDesign
        The data.
    spec : Specification
        The estimator.
    options : ModelOptions
        What is estimated.
    inference : InferenceOptions
        How standard errors are computed.

    Returns
    -------
    int or None
        None where it is not known: with trimming, and where JRE has nonlinear outcome models.
    """
    joint, nonlinear = spec is JRE, not (spec.constants or options.outcome_family.linear)
    if options.trim is not None or (joint and nonlinear):
        return None
    likelihoods = int(spec.uses_propensity) + int(nonlinear)
    expected = 4 + NEWTON * likelihoods + ANCHORS * joint
    if inference.resolved(design.cluster_name is not None, joint=joint)[0] == "bootstrap":
        expected += 3 + 4 * likelihoods
    return expected


def _kept_sample(problem: Problem, empty: BlockSample) -> ScannedSample:
    """Return what is kept of the sample, given a block without rows."""
    return ScannedSample(X=empty.X, Z=empty.Z, family=problem.family, total=problem.total, n_arms=problem.n_arms)


def check_available(options: ModelOptions, inference: InferenceOptions) -> None:
    """Refuse what goes by rows in more ways than sums over them."""
    if options.propensity_score is not None:
        raise UnavailableError(
            "a classifier as propensity_score= is not there for a scan; expected a propensity model with a formula.\n"
            "Leave propensity_score= out, or, if the rows fit into memory, type  data=data.collect()."
        )
    if options.trim == "separated":
        raise UnavailableError(
            "trim='separated' looks at all rows at once, and those of a scan come in blocks; expected limits of the "
            "propensity score.\n"
            'Type  trim=(0.01, 0.99)  or  trim="crump",  with a simpler propensity model if that one separates.'
        )
    if inference.resamples is not None:
        raise UnavailableError(
            "resamples= goes by rows, and those of a scan are not kept in memory; expected a number of resamples.\n"
            "Type  n_boot=999."
        )


def check_matrices_of(design: ScannedDesign, n_boot: int) -> None:
    """Refuse a bootstrap whose matrices of products fill the memory."""
    advice = f'Type  fit(cov_type="{"robust" if design.cluster_name is None else "cluster"}")'
    predictors = (design.n_arms - 1) * len(design.propensity_names)
    for model, columns in (("outcome", len(design.exog_names)), ("propensity", predictors)):
        check_matrices(n_boot, columns, f"the {model} model", advice)


@dataclass(frozen=True)
class BlockedFit:
    """Fitted weights and trained outcome models, to be evaluated on any block.

    Parameters
    ----------
    weights : BlockedWeights or None
        The importance weights; None where there are none to fit.
    level : Level
        Where the outcome lies.
    theta : ndarray, shape (K, p)
        Outcome coefficients, of outcomes measured from the level.
    failed : tuple of int
        How the fit of each arm ended, a `Failure`.
    """

    weights: BlockedWeights | None
    level: Level
    theta: Array
    failed: tuple[int, ...]

    def rows(self, block: Block) -> TrainedRows:
        """Return the rows of a block under the outcome models."""
        sample, weights = _centred(block, self.weights, self.level)
        return trained_rows(sample, block.problem.spec, weights, self.theta)


def _centred(block: Block, weights: BlockedWeights | None, level: Level) -> tuple[BlockSample, RowWeights]:
    """Rows of a block with outcomes measured from the level, and their importance weights."""
    problem = block.problem
    toward = problem.target.toward
    mean = None if toward is None else problem.design.arm_totals[[toward]] / problem.total
    if problem.n_frame:
        mean = np.array([problem.n_frame / problem.total])
    fitted = None if weights is None else weights.of(block)
    rows = row_weights(block.sample, fitted, problem.target, mean)
    return dataclasses.replace(block.sample, y=block.sample.y - level.height), rows


def _level(problem: Problem) -> Level:
    """Return the level of the outcome that linear models with a constant can leave out."""
    design = problem.design
    direction = np.ones(1) if problem.spec.constants else design.constant
    linear = training_family(problem.without_rows().sample, problem.spec).linear
    if not linear or abs(direction @ direction - 1) > LEVEL_TOLERANCE:
        return Level(0.0, np.zeros(len(direction)))
    return level_at(*design.outcome_moments, direction)


def _fit_outcome(problem: Problem, weights: BlockedWeights | None, notes: Notes) -> BlockedFit:
    """Train the arms: one pass where the models are linear, else one for a start and one an iteration."""
    level, n_arms = _level(problem), problem.n_arms
    empty = problem.without_rows().sample
    family = training_family(empty, problem.spec)

    def over(function: OfLikelihoods[T]) -> Iterator[T]:
        return problem.over(functools.partial(_on_outcome, function, weights, level))

    factors = [np.empty((0, len(level.direction) + 1))] * n_arms
    for parts in problem.over(functools.partial(_starts, weights, level)):
        factors = [triangular_factor(np.vstack(pair)) for pair in zip(factors, parts, strict=True)]
    theta = np.stack([factor_solution(factor) for factor in factors])
    failures = np.zeros(n_arms, dtype=np.int8)
    if not family.linear:
        bounded = OutcomeLikelihood(family, empty.y).bounded
        fits = maximize(BlockedLikelihood(over, 1, bounded, tuple(range(n_arms))), theta.T)
        theta, failures = fits.coefficients.T, outcome_failures(fits.failures)
    failed = tuple(int(code) for code in failures)
    _check_outcome_fits(problem, failed, notes)
    return BlockedFit(weights=weights, level=level, theta=theta, failed=failed)


def _training(weights: BlockedWeights | None, level: Level, block: Block) -> list[ArmTraining]:
    """Return what the outcome model of each arm is trained on, of a block."""
    problem, outcome = block.problem, block.sample.y[block.sample.n_frame :]
    name = problem.design.endog_name
    by_place(lambda which: problem.family.check(outcome[which], name), block.places, block.position)
    sample, rows = _centred(block, weights, level)
    return training_arms(sample, problem.spec, rows)


def _starts(weights: BlockedWeights | None, level: Level, block: Block) -> list[Array]:
    return [arm.start() for arm in _training(weights, level, block)]


def _on_outcome(function: OfLikelihoods[T], weights: BlockedWeights | None, level: Level, block: Block) -> T:
    """Apply a function to the likelihoods of the outcome models on a block."""
    return function([arm.rows() for arm in _training(weights, level, block)])


def _check_outcome_fits(problem: Problem, failed: tuple[int, ...], notes: Notes) -> None:
    """Refuse an outcome model that separates; warn of one that did not settle."""
    design, family = problem.design, problem.family
    arms = [label for label, reason in zip(design.labels, failed, strict=True) if reason != Failure.OK]
    if not arms:
        return
    for a, reason in enumerate(failed):
        if reason != Failure.OK:
            check_bound(design, family, a)
    what = f"the outcome model ({family.label}) of {', '.join(arms)}"
    if Failure.OUTCOME_SEPARATION in failed:
        raise SeparationError(
            f"{what} predicts {design.endog_name!r} perfectly in some rows, as far as its iterations went.\n"
            f"Simplify the outcome formula. {gaussian_instead(design)}  for a fit in any case."
        )
    notes.warn(not_converged(what, "it did not settle."), ConvergenceWarning)


def _estimate(problem: Problem, fit: BlockedFit) -> tuple[ScannedEstimate, SolvedMeans, _WeightSpread]:
    """Average over the target."""
    spread, scale, level = _WeightSpread(problem, fit), problem.options.effect_scale, fit.level
    at = solve_means(problem.spec.mean, spread.over)
    params = level.params(scale, at.means)
    scale.check(params[-problem.n_arms :], problem.design.labels)
    estimate = ScannedEstimate(
        params=params,
        theta=fit.theta + level.height * level.direction,
        gamma=np.empty(0) if fit.weights is None else fit.weights.fits.coefficients[:, 0],
        model_means=at.sums.model_means + level.height,
        failed=fit.failed,
    )
    return estimate, at, spread


def _on_trained(function: Callable[[TrainedRows], T], fit: BlockedFit, block: Block) -> T:
    return function(fit.rows(block))


@dataclass(frozen=True)
class BlockedPasses(LaterPasses):
    """Further passes over the rows of a fit.

    Parameters
    ----------
    problem : Problem
        What was estimated.
    fit : BlockedFit
        Weights and outcome models.
    at : SolvedMeans
        The arm means.
    params : ndarray, shape (2 K - 1,)
        The estimates.
    """

    problem: Problem
    fit: BlockedFit
    at: SolvedMeans
    params: Array

    def refits(self, kind: str, seed: np.random.SeedSequence, n_boot: int) -> Refits:
        """As in `LaterPasses`."""
        problem, fit = self.problem, self.fit
        full = FullFit(self.params, fit.theta, fit.level, problem.options.effect_scale)
        gamma = np.empty(0) if fit.weights is None else fit.weights.fits.coefficients[:, 0]
        return refit_blocks(problem, full, gamma, resampler=problem.resampler(kind, seed), n_boot=n_boot)

    def influence(self, function: Callable[[BlockInfluence], T]) -> Iterator[T]:
        """As in `LaterPasses`."""
        return self.problem.over(functools.partial(_on_influence, function, self.fit, self.at))


def _on_influence(function: Callable[[BlockInfluence], T], fit: BlockedFit, at: SolvedMeans, block: Block) -> T:
    trained = fit.rows(block)
    values = influence_of_estimates(trained, at, fit.level, block.problem.options.effect_scale)
    return function(BlockInfluence(values, trained.sample.s, block.cluster))


class _WeightSpread:
    """How the importance weights of each arm are spread; it is looked at along the way of the first pass."""

    def __init__(self, problem: Problem, fit: BlockedFit) -> None:
        self.problem, self.fit = problem, fit
        self.arms: dict[int, ArmWeights] = {}
        self.toward: dict[tuple[int, int], ArmWeights] = {}
        self.remote, self.clipped = np.zeros(2, dtype=np.intp), 0
        self.begun = False

    def over(self, function: Callable[[TrainedRows], T]) -> Iterator[T]:
        """Begin a pass over the rows under the outcome models."""
        if self.begun:
            return self.problem.over(functools.partial(_on_trained, function, self.fit))
        self.begun = True
        return self._first(function)

    def _first(self, function: Callable[[TrainedRows], T]) -> Iterator[T]:
        for result, block in self.problem.over(functools.partial(_with_spread, function, self.fit)):
            self.arms = combined_by_key([self.arms, block.arms])
            self.toward = combined_by_key([self.toward, block.toward])
            self.remote += block.remote
            self.clipped += block.clipped
            yield result

    def summaries(self, notes: Notes) -> tuple[ArmWeights, ...]:
        """Summaries of all rows; a warning where few rows dominate."""
        design, target = self.problem.design, self.problem.target
        everybody = self.problem.spec.uses_propensity and target.separable and target.toward is None
        arms = tuple(self.arms[a] for a in range(self.problem.n_arms))
        instead = overlapping_arms(self.toward, design.labels, target) if self.toward else ()
        remote = (int(self.remote[0]), int(self.remote[1])) if everybody else None
        message = overlap_message(arms, design.labels, remote, unit_name=design.unit_name, instead=instead)
        if message:
            notes.warn(message, OverlapWarning)
        return arms


@dataclass(frozen=True)
class _BlockSpread:
    """How the weights of a block are spread.

    Parameters
    ----------
    arms : dict of int to ArmWeights
        Of each arm.
    toward : dict of tuple of int to ArmWeights
        As by `weights_toward_arms`; nothing where there are no scores.
    remote : ndarray of int, shape (2,)
        Of `remote_units`.
    clipped : int
        Observations whose score was clipped.
    """

    arms: dict[int, ArmWeights]
    toward: dict[tuple[int, int], ArmWeights]
    remote: NDArray[np.intp]
    clipped: int


def _with_spread(function: Callable[[TrainedRows], T], fit: BlockedFit, block: Block) -> tuple[T, _BlockSpread]:
    """Apply a function to the rows of a block, and say how their weights are spread."""
    rows, sample, design = fit.rows(block), block.sample, block.problem.design
    weights = rows.weights if isinstance(rows.weights, WeightFit) and rows.spec.uses_propensity else None
    units = sample.s if design.weight_type == "frequency" else np.ones(sample.n)
    inverse, remote, toward = np.ones(sample.n), np.zeros(2, dtype=np.intp), {}
    if weights is not None:
        scores, inverse = weights.probabilities, weights.undivided
        remote = np.array(remote_units(scores, units))
        toward = weights_toward_arms(rows.sample, scores, units, design.nobs)
    arms = weights_of_arms(rows.sample, inverse, units, design.nobs)
    clipped = int((units * sample.observed)[rows.weights.clipped].sum()) if isinstance(rows.weights, WeightFit) else 0
    return function(rows), _BlockSpread(arms, toward, remote, clipped)
