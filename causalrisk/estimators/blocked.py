"""Estimation over blocks of rows: the stages of `fit`, each a pass over the data.

Every quantity of a fit is a function of the rows given coefficients, or a sum of such functions over the rows. A pass
evaluates them block by block, with the functions that a fit in memory applies to all rows at once, and adds up.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from causalrisk.design import ScannedDesign
from causalrisk.design.scan.coder import CodedBlock
from causalrisk.design.scan.reader import named
from causalrisk.errors import ConvergenceWarning, Notes, OverlapWarning, SeparationError, UnavailableError
from causalrisk.estimators.fit import check_clusters, check_outcome, not_converged, weights_of_arms
from causalrisk.estimators.options import InferenceOptions, ModelOptions, is_frame
from causalrisk.estimators.outcome import OutcomeLikelihood, outcome_failures
from causalrisk.estimators.prepare import check_target, make_model
from causalrisk.estimators.record import BlockInfluence, FitRecord
from causalrisk.estimators.sample import BlockSample, ScannedSample, block_sample
from causalrisk.estimators.separate import (
    LEVEL_TOLERANCE,
    ArmRows,
    Level,
    ProjectionEquations,
    SolvedProjection,
    ThetaSums,
    TrainedRows,
    influence_of_theta,
    level_at,
    row_weights,
    stacked_influence,
    theta_sums,
    trained_rows,
    training_columns,
    training_family,
    training_of,
)
from causalrisk.estimators.specification import ScannedEstimate, Specification
from causalrisk.numerics.blocks import add_up
from causalrisk.numerics.failures import Failure
from causalrisk.numerics.families import OutcomeFamily
from causalrisk.numerics.linalg import Array, solve, triangular_equations, weighted_least_squares
from causalrisk.numerics.newton import BlockedLikelihood, NewtonFits, WeightedRows, maximize
from causalrisk.numerics.resample import seed_sequence
from causalrisk.propensity.models import LikelihoodModel
from causalrisk.propensity.overlap import ArmWeights, combined_weights, overlap_text, remote_units
from causalrisk.propensity.targets import Target, TiltTarget, make_target
from causalrisk.propensity.weights import (
    RowWeights,
    ScannedWeights,
    TargetSums,
    WeightFit,
    WeightModel,
    WeightSums,
    weigh_rows,
)


@dataclass(frozen=True)
class Block:
    """A block of rows, sorted by arm.

    Parameters
    ----------
    name : str
        What messages call it.
    sample : BlockSample
        The rows.
    model : WeightModel
        Propensity model and target, on the rows.
    cluster : ndarray of int, shape (n,), or None
        Clusters.
    """

    name: str
    sample: BlockSample
    model: WeightModel
    cluster: NDArray[np.intp] | None


@dataclass(frozen=True)
class Problem:
    """What is estimated from which data.

    Parameters
    ----------
    design : ScannedDesign
        The data.
    spec : Specification
        The estimator.
    options : ModelOptions
        What is estimated.
    target : Target
        The target population.
    family : OutcomeFamily
        Family of the outcome models.
    """

    design: ScannedDesign
    spec: Specification
    options: ModelOptions
    target: Target
    family: OutcomeFamily

    @property
    def n_arms(self) -> int:
        """K."""
        return self.design.n_arms

    @property
    def total(self) -> float:
        """Sum of the observation weights, N."""
        return float(self.design.arm_totals.sum())

    @property
    def weighs(self) -> bool:
        """Whether there are importance weights to fit."""
        return self.spec.uses_propensity or isinstance(self.target, TiltTarget)

    def blocks(self) -> Iterator[Block]:
        """Begin a pass over the rows."""
        for block in self.design.blocks():
            yield self.block(block)

    def block(self, block: CodedBlock) -> Block:
        """Make the sample and the models of a block."""
        design = self.design
        sample = block_sample(
            block,
            design.outcome_basis,
            design.propensity_basis,
            self.family,
            n_arms=self.n_arms,
            total=self.total,
        )
        model = WeightModel(make_model(design, sample, self.target, self.options, None), self.target, sample.observed)
        return Block(block.name, sample, model, None if block.cluster is None else block.cluster[sample.order])

    def without_rows(self) -> Block:
        """Return a block without rows, which knows the columns and models."""
        design, none = self.design, np.empty(0)
        p, q = len(design.exog_names), len(design.propensity_names)
        arm = np.empty(0, dtype=np.intp)
        return self.block(CodedBlock("no rows", none, np.empty((0, p)), np.empty((0, q)), arm, none, None))


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
    cov_type, kind = inference.resolved(design.cluster_name is not None, joint=False)
    _check_available(options, cov_type)
    notes, problem = Notes(design.notes), _problem(design, spec, options)
    weights = _fit_weights(problem, notes) if problem.weighs else None
    estimate, blockwise, overlap = _estimate(problem, _fit_outcome(problem, weights, notes), notes)
    check_outcome(design, notes)
    check_clusters(design, notes)
    size, empty = len(estimate.values), problem.without_rows()
    return FitRecord(
        design=design,
        full_design=design,
        spec=spec,
        options=options,
        sample=_kept_sample(problem, empty.sample),
        target=problem.target,
        frame=None,
        trimmed="",
        weight_fit=None if weights is None else weights.summary(empty.model),
        estimate=estimate,
        overlap=overlap,
        joint=None,
        cov_type=cov_type,
        bootstrap=kind,
        covariance=np.full((size, size), np.nan),
        boot=None,
        given_resamples=False,
        seed=seed_sequence(inference.rng),
        notes=tuple(notes),
        blockwise=blockwise,
    )


def _problem(design: ScannedDesign, spec: Specification, options: ModelOptions) -> Problem:
    check_target(design, options)
    target = make_target(options.target, np.empty((0, 1)), np.empty(0, dtype=bool))
    return Problem(design, spec, options, target, options.outcome_family)


def _kept_sample(problem: Problem, empty: BlockSample) -> ScannedSample:
    """Return what is kept of the sample, given a block without rows."""
    return ScannedSample(X=empty.X, Z=empty.Z, family=problem.family, total=problem.total, n_arms=problem.n_arms)


def _check_available(options: ModelOptions, cov_type: str) -> None:
    """Refuse what goes by rows in more ways than sums over them."""
    given = {
        "trim": options.trim,
        "clip": options.clip,
        "propensity_score": options.propensity_score,
        "target": options.target if is_frame(options.target) or callable(options.target) else None,
    }
    for name, value in given.items():
        if value is not None:
            raise UnavailableError(
                f"{name}= of this kind is not there for a scan yet; expected a target by name and a propensity model "
                "that is fitted to all rows.\n"
                f"Leave {name}= out, or, if the rows fit into memory, type  data=data.collect()."
            )
    if cov_type == "bootstrap":
        raise UnavailableError(
            "the bootstrap is not there for a scan: it resamples rows, which are not kept in memory.\n"
            'Type  fit(cov_type="robust").'
        )


@dataclass(frozen=True)
class BlockedWeights:
    """Fitted importance weights, as what every block needs of all rows.

    Parameters
    ----------
    fits : NewtonFits
        The propensity coefficients, shape (Q, 1).
    whole : WeightSums
        Sums over all rows.
    """

    fits: NewtonFits
    whole: WeightSums

    @property
    def converged(self) -> bool:
        """Whether the iterations met their tolerance."""
        return bool(self.fits.failures[0] == Failure.OK)

    def of(self, block: Block) -> WeightFit:
        """Weigh the rows of a block."""
        return weigh_rows(block.model, block.sample.s, self.fits, self.whole)

    def summary(self, model: WeightModel) -> ScannedWeights:
        """Return what is kept of them; `model` is that of a block without rows."""
        gamma = self.fits.coefficients[:, 0]
        return ScannedWeights(model=model, gamma=gamma, converged=self.converged, iterations=self.fits.iterations)


def _fit_weights(problem: Problem, notes: Notes) -> BlockedWeights:
    """Fit the propensity model, a pass an iteration; refuse separation, warn of non-convergence."""

    def likelihoods() -> Iterator[tuple[WeightedRows]]:
        for block in problem.blocks():
            model = _propensity(block)
            yield (WeightedRows(model.columns, None, model.likelihood, block.sample.s[:, None], halving=True),)

    empty = _propensity(problem.without_rows())
    rows = BlockedLikelihood(likelihoods, empty.likelihood.n_predictors, empty.likelihood.bounded, (0,))
    fits = maximize(rows, np.zeros((empty.n_coefficients, 1)))
    link, name = problem.options.propensity_link, problem.design.treat_name
    if fits.failures[0] == Failure.SEPARATION:
        raise SeparationError(
            f"the propensity model ({link}) predicts {name!r} perfectly in some rows, as far as its iterations went, "
            "so no weight exists.\nMerge or drop a level or term in propensity=; a fit in memory to a part of the rows "
            "names it."
        )
    if fits.failures[0] != Failure.OK:
        notes.warn(
            not_converged(f"the propensity model ({link})", f"{fits.iterations} Newton iterations."), ConvergenceWarning
        )
    information = rows.sums(fits.coefficients).hessian[0] / problem.total
    return BlockedWeights(fits, WeightSums(*_target_sums(problem, fits), information))


def _propensity(block: Block) -> LikelihoodModel:
    return cast(LikelihoodModel, block.model.propensity)  # others are refused


def _target_sums(problem: Problem, fits: NewtonFits) -> tuple[TargetSums, Array | None]:
    """Return what weights are divided by, with the derivative of its logarithm: two passes where scores tilt."""
    toward, totals = problem.target.toward, problem.design.arm_totals
    if problem.target.separable:
        tilt = np.array([problem.total if toward is None else totals[toward]])
        return TargetSums(np.array([problem.total]), tilt, tilt), None

    def over(function: Callable[[WeightModel, Array, Array], Any]) -> Iterator[Any]:
        for block in problem.blocks():
            eta = block.model.predictors(fits.coefficients)
            yield function(block.model, eta, block.sample.s[:, None])

    whole = add_up(over(lambda model, eta, s: model.target_sums(eta, s)))
    return whole, add_up(over(lambda model, eta, s: model.log_mean(eta, s, whole)))


@dataclass(frozen=True)
class BlockedFit:
    """Fitted weights and trained outcome models, to be evaluated on any block.

    Parameters
    ----------
    problem : Problem
        What is estimated.
    weights : BlockedWeights or None
        The importance weights; None where there are none to fit.
    level : Level
        Where the outcome lies.
    theta : ndarray, shape (K, p)
        Outcome coefficients, of outcomes measured from the level.
    failed : tuple of Failure
        How the fit of each arm ended.
    """

    problem: Problem
    weights: BlockedWeights | None
    level: Level
    theta: Array
    failed: tuple[Failure, ...]

    def of(self, block: Block) -> TrainedRows:
        """Evaluate the outcome models on the rows of a block."""
        sample, weights = _centred(self.problem, block, self.weights, self.level)
        return trained_rows(sample, self.problem.spec, weights, self.theta)

    def arms(self, rows: TrainedRows) -> list[ArmRows]:
        """Return the rows as those whose mean is taken in each arm."""
        sample, ones = rows.sample, np.ones((rows.sample.n, 1))
        q = training_columns(sample, rows.spec)
        return [
            ArmRows(sample, rows.spec, rows.weights, ones, q, arm, rows.predicted[arm], rows.slope[arm])
            for arm in range(self.problem.n_arms)
        ]


def _centred(
    problem: Problem, block: Block, weights: BlockedWeights | None, level: Level
) -> tuple[BlockSample, RowWeights]:
    """Rows of a block with outcomes measured from the level, and their importance weights."""
    toward = problem.target.toward
    mean = None if toward is None else problem.design.arm_totals[[toward]] / problem.total
    fitted = None if weights is None else weights.of(block)
    rows = row_weights(block.sample, fitted, problem.target, mean)
    return dataclasses.replace(block.sample, y=block.sample.y - level.height), rows


def _level(problem: Problem) -> Level:
    """Return the level of the outcome that linear models with a constant can leave out."""
    design = problem.design
    direction = np.ones(1) if problem.spec.constants else design.constant
    linear = problem.spec.constants or problem.family.linear
    if not linear or abs(direction @ direction - 1) > LEVEL_TOLERANCE:
        return Level(0.0, np.zeros(len(direction)))
    return level_at(*design.outcome_moments, direction)


def _fit_outcome(problem: Problem, weights: BlockedWeights | None, notes: Notes) -> BlockedFit:
    """Train the arms: one pass where the models are linear, else one for a start and one an iteration."""
    level, n_arms = _level(problem), problem.n_arms
    empty = problem.without_rows().sample
    family = training_family(empty, problem.spec)

    def training() -> Iterator[list[tuple[Array, Array, Array]]]:
        for block in problem.blocks():
            with named(block.name):
                problem.family.check(block.sample.y, problem.design.endog_name)
            sample, rows = _centred(problem, block, weights, level)
            q, s = training_columns(sample, problem.spec), sample.s * training_of(sample, problem.spec, rows)
            yield [(q[a], sample.y[a], s[a]) for a in sample.slices]

    def likelihoods() -> Iterator[list[WeightedRows]]:
        for arms in training():
            yield [WeightedRows(q, None, OutcomeLikelihood(family, y), s[:, None], halving=True) for q, y, s in arms]

    equations: list[list[tuple[Array, Array]]] = [[] for _ in range(n_arms)]
    for arms in training():
        for found, (q, y, s) in zip(equations, arms, strict=True):
            found.append(triangular_equations(q, y if family.linear else family.start(y), s))
            found[:] = [_merged(found)]
    theta = np.stack([weighted_least_squares(r, z, np.ones(len(z))) for [(r, z)] in equations])
    failures = np.zeros(n_arms, dtype=np.int8)
    if not family.linear:
        bounded = OutcomeLikelihood(family, empty.y).bounded
        fits = maximize(BlockedLikelihood(likelihoods, 1, bounded, tuple(range(n_arms))), theta.T)
        theta, failures = fits.coefficients.T, outcome_failures(fits.failures)
    failed = tuple(Failure(int(code)) for code in failures)
    _check_outcome_fits(problem, failed, notes)
    return BlockedFit(problem, weights, level, theta, failed)


def _merged(equations: list[tuple[Array, Array]]) -> tuple[Array, Array]:
    """Equations that have the least-squares solution of several sets of them."""
    left, right = np.vstack([r for r, _ in equations]), np.concatenate([z for _, z in equations])
    return triangular_equations(left, right, np.ones(len(right)))


def _check_outcome_fits(problem: Problem, failed: tuple[Failure, ...], notes: Notes) -> None:
    """Refuse an outcome model that separates; warn of one that did not settle."""
    arms = [label for label, reason in zip(problem.design.labels, failed, strict=True) if reason != Failure.OK]
    if not arms:
        return
    what = f"the outcome model ({problem.family.label}) of {', '.join(arms)}"
    if Failure.OUTCOME_SEPARATION in failed:
        raise SeparationError(
            f"{what} predicts {problem.design.endog_name!r} perfectly in some rows, as far as its iterations went.\n"
            'Simplify the outcome formula, or type  family="gaussian".'
        )
    notes.warn(not_converged(what, "it did not settle."), ConvergenceWarning)


@dataclass(frozen=True)
class MeanSums:
    """Sums over rows that the arm means and the outcome models are made of.

    Parameters
    ----------
    theta : ThetaSums
        Of the outcome models.
    equations : tuple of ProjectionEquations
        Of the mean of each arm.
    model_means : ndarray, shape (K,)
        Averages of the predictions over the target.
    """

    theta: ThetaSums
    equations: tuple[ProjectionEquations, ...]
    model_means: Array


def _estimate(
    problem: Problem, fit: BlockedFit, notes: Notes
) -> tuple[ScannedEstimate, Callable[[], Iterator[BlockInfluence]], tuple[ArmWeights, ...]]:
    """Average over the target, in a pass for the means and one for their derivatives; a third gives the influence."""
    spread = _WeightSpread(problem)

    def means() -> Iterator[MeanSums]:
        for block in problem.blocks():
            rows = fit.of(block)
            spread.add(rows)
            model_means = rows.sample.mean(rows.weights.tilt[:, None] * rows.predicted.T)
            yield MeanSums(theta_sums(rows), tuple(arm.equations() for arm in fit.arms(rows)), model_means)

    def derivatives() -> Iterator[tuple[tuple[Array, Array], ...]]:
        for block in problem.blocks():
            arms = fit.arms(fit.of(block))
            yield tuple(arm.derivatives(at) for arm, at in zip(arms, solved, strict=True))

    sums = add_up(means())
    solved = tuple(equations.solved(problem.spec) for equations in sums.equations)
    height, direction = fit.level.height, fit.level.direction
    mu = np.concatenate([at.coefficients + at.correction for at in solved])
    scale, labels = problem.options.effect_scale, problem.design.labels
    params = fit.level.params(scale, mu)
    scale.check(params[-problem.n_arms :], labels)
    estimate = ScannedEstimate(
        params=params,
        theta=fit.theta + height * direction,
        gamma=np.empty(0) if fit.weights is None else fit.weights.fits.coefficients[:, 0],
        model_means=sums.model_means + height,
        failed=fit.failed,
    )
    influence = _Influence(fit, sums.theta, solved, add_up(derivatives()), mu)
    return estimate, influence.blocks, spread.summaries(notes)


@dataclass(frozen=True)
class _Influence:
    """Influence function of all estimates, block by block.

    Parameters
    ----------
    fit : BlockedFit
        Weights and outcome models.
    theta : ThetaSums
        Of the outcome models.
    solved : tuple of SolvedProjection
        The mean of each arm.
    derivatives : tuple of (ndarray, ndarray)
        For each arm those of its mean by the outcome and the propensity coefficients, before they are solved for.
    means : ndarray, shape (K,)
        Arm means, measured from the level.
    """

    fit: BlockedFit
    theta: ThetaSums
    solved: tuple[SolvedProjection, ...]
    derivatives: tuple[tuple[Array, Array], ...]
    means: Array

    def blocks(self) -> Iterator[BlockInfluence]:
        """Begin a pass over the influence function."""
        for block in self.fit.problem.blocks():
            rows = self.fit.of(block)
            yield BlockInfluence(self._of(rows), rows.sample.s, block.cluster)

    def _of(self, rows: TrainedRows) -> Array:
        of_theta, of_means = influence_of_theta(rows, self.theta), []
        parts = zip(self.fit.arms(rows), self.solved, self.derivatives, strict=True)
        for a, (arm, at, (by_theta, by_gamma)) in enumerate(parts):
            of_means.append(arm.influence(at, by_gamma) + of_theta[:, a] @ solve(at.gram, by_theta).T)
        scale, means = self.fit.problem.options.effect_scale, self.means + self.fit.level.height
        return stacked_influence(np.concatenate(of_means, axis=1), means, scale, of_theta, rows.weights)


class _WeightSpread:
    """How the importance weights of each arm are spread, block by block."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.parts: list[list[ArmWeights]] = [[] for _ in range(problem.n_arms)]
        self.remote = np.zeros(2, dtype=np.intp)

    def add(self, rows: TrainedRows) -> None:
        """Add the rows of a block."""
        sample = rows.sample
        weights = rows.weights if isinstance(rows.weights, WeightFit) and rows.spec.uses_propensity else None
        units = sample.s if self.problem.design.weight_type == "frequency" else np.ones(sample.n)
        for a, summary in weights_of_arms(sample, weights, units).items():
            self.parts[a] = [combined_weights([*self.parts[a], summary])]
        if weights is not None:
            self.remote += remote_units(weights.probabilities, units)

    def summaries(self, notes: Notes) -> tuple[ArmWeights, ...]:
        """Summaries of all rows; a warning where few rows dominate."""
        design, target = self.problem.design, self.problem.target
        everybody = self.problem.spec.uses_propensity and target.separable and target.toward is None
        arms = tuple(part for [part] in self.parts)
        remote = (int(self.remote[0]), int(self.remote[1])) if everybody else None
        message = overlap_text(arms, design.labels, remote, design.unit_name)
        if message:
            notes.warn(message, OverlapWarning)
        return arms
