"""Importance weights of the rows of a problem: its propensity model, a pass an iteration, and what they are divided by.

Flows in: a `Problem`. Flows out: `BlockWeights`, which weigh the rows of any of its blocks.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, TypeAlias, TypeVar

import numpy as np

from causalrisk.design import Design
from causalrisk.design.covariates import Covariate, covariates_of_block
from causalrisk.design.scan.coding import CodedBlock
from causalrisk.design.treatment import Arms
from causalrisk.errors import ConvergenceWarning, Failure, Notes
from causalrisk.estimators.estimates import FittedRows
from causalrisk.estimators.problem import Block, KeptProblem, Problem, ScannedProblem, kept
from causalrisk.estimators.sample import Sample
from causalrisk.numerics.blocks import add_up, of_made
from causalrisk.numerics.linalg import Array
from causalrisk.numerics.newton import BlockedLikelihood, NewtonFits, WeightedRows, maximize
from causalrisk.propensity.models import likelihood_of
from causalrisk.propensity.separation import (
    Models,
    Predicted,
    Separation,
    check_other,
    find_separation,
    separation_error,
)
from causalrisk.propensity.targets import FrameTarget, FunctionTarget, Target
from causalrisk.propensity.weights import (
    KeptWeights,
    RowWeights,
    ScannedWeights,
    TargetSums,
    WeightFit,
    WeightModel,
    WeightSums,
    fit_weights,
    weigh_rows,
)

T = TypeVar("T")
SUSPICIOUS = 12.0  # linear predictors beyond this (odds 160,000) are worth a linear programme
OfLikelihoods: TypeAlias = Callable[[Sequence[WeightedRows]], T]


@dataclass(frozen=True)
class WeightsInMemory:
    """Importance weights of rows in memory."""

    rows: RowWeights

    @property
    def coefficients(self) -> Array:
        """Propensity coefficients, shape (Q,); none where none were estimated."""
        return self.rows.coefficients

    def of(self, block: Block) -> RowWeights:
        """Weigh the rows of a block."""
        return self.rows if block.place == slice(0, len(self.rows.tilt)) else self.rows.part(block.place)


@dataclass(frozen=True)
class WeightsOfScan:
    """Fitted importance weights of a scan, as what every block needs of all rows."""

    fits: NewtonFits
    whole: WeightSums

    @property
    def coefficients(self) -> Array:
        """As in `WeightsInMemory`."""
        return self.fits.coefficients[:, 0]

    def of(self, block: Block) -> WeightFit:
        """As in `WeightsInMemory`."""
        return weigh_rows(block.weight_model, block.sample.s, self.fits, self.whole)

    def summary(self, model: WeightModel, n_clipped: int) -> ScannedWeights:
        """Return what is kept of them; `model` is that of a block without rows."""
        return ScannedWeights(
            model=model,
            gamma=self.coefficients,
            converged=bool(self.fits.failures[0] == Failure.OK),
            iterations=self.fits.iterations,
            n_clipped=n_clipped,
        )


@dataclass(frozen=True)
class PlainBlocks:
    """Weights of one, of a scan whose target needs no propensity score.

    Parameters
    ----------
    target : Target
        The target population.
    mean_tilt : ndarray, shape (1,), or None
        Mean of its tilt over all rows; None where that is one.
    """

    target: Target
    mean_tilt: Array | None
    coefficients = np.empty(0)

    def of(self, block: Block) -> RowWeights:
        """As in `WeightsInMemory`."""
        return plain_weights(block.sample, self.target, self.mean_tilt)


BlockWeights: TypeAlias = WeightsInMemory | WeightsOfScan | PlainBlocks


def plain_weights(sample: Sample, target: Target, mean: Array | None = None) -> RowWeights:
    """Return weights of one, and the tilt of a target that needs no propensity score; `mean` as in `plain_tilt`."""
    return KeptWeights.without_scores(plain_tilt(sample, target, sample.s[:, None], mean)[:, 0])


def row_weights(sample: Sample, weight_fit: WeightFit | None, target: Target) -> RowWeights:
    """Return the fitted importance weights of rows in memory; without a fit those of `plain_weights`."""
    return plain_weights(sample, target) if weight_fit is None else weight_fit


def plain_tilt(sample: Sample, target: Target, counts: Array, mean: Array | None = None) -> Array:
    """Tilt of a target that needs no propensity score, over its mean under counts (n, m); shape (n, 1) or (n, m).

    That is everybody, the rows of one arm, or a target frame. Where the rows are a block of others, `mean`, shape (m,),
    is that of all.
    """
    if isinstance(target, FrameTarget):
        tilt = 1 - sample.in_sample
    elif target.toward is not None:
        tilt = (sample.arm == target.toward).astype(float)
    else:
        return np.ones((sample.n, 1))
    if mean is None:
        total = counts[sample.n_frame :].sum(axis=0)
        mean = (tilt @ counts) / np.where(total > 0, total, 1.0)  # one without rows is recorded as an empty arm
    return tilt[:, None] / np.where(mean > 0, mean, 1.0)


def not_converged(what: str, message: str) -> str:
    """Say that an optimiser stopped before it converged."""
    return (
        f"the optimiser of {what} stopped before it converged: {message}\n"
        "Standardise the covariates or simplify the formula; res.converged is False."
    )


def weigh(problem: Problem, design: Design, link: str, notes: Notes) -> BlockWeights:
    """Weigh the rows of a problem: fit its propensity model, refuse separation, warn of one that did not settle."""
    if isinstance(problem, ScannedProblem):
        return _fit_scanned(problem, link, notes)
    sample, model = kept(problem).sample, kept(problem).model
    if model is None:
        return WeightsInMemory(plain_weights(sample, problem.target))
    fit = fit_weights(model, sample.s)
    if score_suspicion(fit):
        refuse_separation(problem, design, link)
    for k, eta in enumerate(fit.eta[model.propensity.n_predictors :], start=1):
        if is_suspicious(fit.converged, eta):
            check_other(models_of(problem), model, k, design)
    if not fit.converged:
        _warn_unsettled(fit.iterations, model, link, notes)
    return WeightsInMemory(fit)


def is_suspicious(converged: bool, eta: Array) -> bool:
    """Whether a fit gives cause to look for separation: it did not settle, or a linear predictor is that large."""
    return not (converged and np.abs(eta).max(initial=0) < SUSPICIOUS)


def score_suspicion(fit: WeightFit) -> bool:
    """Whether the propensity model of rows in memory gives cause to look for separation."""
    return is_suspicious(fit.converged, fit.eta[: fit.model.propensity.n_predictors, fit.model.in_sample > 0])


def models_of(problem: Problem) -> Models:
    """Return what begins a pass over the weight models of the blocks."""
    return lambda function: problem.over(functools.partial(of_made, function, attrgetter("weight_model")))


def separation(problem: Problem) -> Separation | None:
    """Look for rows that the propensity model predicts perfectly."""
    return find_separation(models_of(problem), problem.some_block().weight_model)


def refuse_separation(problem: Problem, design: Design, link: str) -> None:
    """Raise a SeparationError where the propensity model predicts the arm of some rows perfectly."""
    found = separation(problem)
    if found is None:
        return
    if isinstance(problem, ScannedProblem):
        look = functools.partial(_predicted, problem, found)
        predicted = add_up(problem.design.over(look, problem.workers))
    elif isinstance(problem, KeptProblem):
        told = problem.sample.restore(np.concatenate([*models_of(problem)(found.rows)]))
        predicted = Predicted.of(design, design.Z, design.arm, told, design.index)
    coefficients = problem.some_block().sample.Z.coefficients(found.strongest)
    raise separation_error(design, predicted, coefficients, link)


def _predicted(problem: ScannedProblem, found: Separation, coded: CodedBlock) -> Predicted:
    block, number = problem.block(coded), coded.position if coded.row is None else coded.row
    told = block.sample.restore(found.rows(block.weight_model))
    return Predicted.of(problem.design, coded.Z, coded.arm, told, number)


def _warn_unsettled(iterations: int, model: WeightModel, link: str, notes: Notes) -> None:
    models = f"the propensity model ({link})"
    if model.observation is not None:
        models += " or of the observation model (logit), which tells which outcomes are missing,"
    if model.membership is not None:
        models += " or of the membership model (logit), which tells the target frame from the sample,"
    notes.warn(not_converged(models, f"{iterations} Newton iterations."), ConvergenceWarning)


def _fit_scanned(problem: ScannedProblem, link: str, notes: Notes) -> BlockWeights:
    if not problem.weighs:
        toward = problem.target.toward
        mean = None if toward is None else problem.design.arm_totals[[toward]] / problem.total
        return PlainBlocks(problem.target, np.array([problem.n_frame / problem.total]) if problem.n_frame else mean)
    rows, fits = fit_scores(problem)
    if fit_suspicion(rows, fits):
        refuse_separation(problem, problem.design, link)
    information, model = [rows.sums(fits.coefficients).hessian[0] / problem.total], problem.some_block().weight_model
    for k in range(1, len(model.models)):
        rows, other = _fit_likelihood(problem, k)
        if fit_suspicion(rows, other):
            check_other(models_of(problem), model, k, problem.design)
        information.append(rows.sums(other.coefficients).hessian[0] / problem.total)
        fits = fits.above(other)
    if fits.failures[0] != Failure.OK:
        _warn_unsettled(fits.iterations, model, link, notes)
    sums, log_mean = _target_sums(problem, fits)
    return WeightsOfScan(fits, WeightSums(sums, log_mean, tuple(information)))


def fit_scores(problem: ScannedProblem) -> tuple[BlockedLikelihood, NewtonFits]:
    """Fit the propensity model, a pass an iteration, and return its likelihood too."""
    return _fit_likelihood(problem, 0)


def fit_suspicion(rows: BlockedLikelihood, fits: NewtonFits) -> bool:
    """Whether a model of a scan gives cause to look for separation; no pass, as the fit has been at its end."""
    return is_suspicious(bool(fits.failures[0] == Failure.OK), rows.farthest(fits.coefficients))


def _fit_likelihood(problem: ScannedProblem, k: int) -> tuple[BlockedLikelihood, NewtonFits]:
    """Fit one of `WeightModel.models`."""
    empty = likelihood_of(problem.some_block().weight_model.models[k][0])

    def over(function: OfLikelihoods[T]) -> Iterator[T]:
        return problem.over(functools.partial(_on_likelihood, k, function))

    rows = BlockedLikelihood(over, empty.likelihood.bounded, (0,))
    return rows, maximize(rows, np.zeros((empty.n_coefficients, 1)))


def _on_likelihood(k: int, function: OfLikelihoods[T], block: Block) -> T:
    """Apply a function to the likelihood of one of the models on a block."""
    model, counts = block.weight_model.likelihood(k, block.sample.s[:, None])
    return function((model.weighted(counts),))


def _target_sums(problem: ScannedProblem, fits: NewtonFits) -> tuple[TargetSums, Array | None]:
    """Return what weights are divided by, with the derivative of its logarithm: two passes where scores tilt."""
    toward, totals = problem.target.toward, problem.design.arm_totals
    if problem.target.fixed_tilt:
        tilt = np.array([problem.total if toward is None else totals[toward]])
        return TargetSums(np.array([problem.total]), tilt, tilt), None

    whole = add_up(problem.over(functools.partial(_sums_of_target, fits.coefficients)))
    if isinstance(problem.target, FunctionTarget):
        problem.target.check_tilt(float(whole.tilt[0]))
    return whole, add_up(problem.over(functools.partial(_log_mean, fits.coefficients, whole)))


def _sums_of_target(gamma: Array, block: Block) -> TargetSums:
    return block.weight_model.target_sums(block.weight_model.predictors(gamma), block.sample.s[:, None])


def _log_mean(gamma: Array, whole: TargetSums, block: Block) -> Array | None:
    return block.weight_model.log_mean(block.weight_model.predictors(gamma), block.sample.s[:, None], whole)


@dataclass(frozen=True)
class FittedScan:
    """The rows of a fit to a scan with their scores and importance weights; it does not travel with a pickle.

    Parameters
    ----------
    problem : Problem
        What was estimated.
    gamma : ndarray, shape (S,)
        The propensity coefficients.
    """

    problem: ScannedProblem
    gamma: Array

    def over(self, function: Callable[[FittedRows], T]) -> Iterator[T]:
        """Begin a pass over the rows but those of a target frame."""
        problem = self.problem
        work = functools.partial(_on_fitted, function, problem, self.gamma)
        return problem.design.over(work, problem.workers)

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        return type(None), ()

    def __deepcopy__(self, memo: Any) -> FittedScan:
        return self


def _block_covariates(problem: ScannedProblem, coded: CodedBlock, of_observation: bool = False) -> list[Covariate]:
    """Return the covariates of a block as in `FittedRows`."""
    design = problem.design
    variables = design.variables(coded)
    if of_observation:
        treat = Arms(design.levels, design.labels).coded(coded.arm)
        variables = variables.assign(**{design.treat_name: treat})
    return covariates_of_block(design, variables, of_observation)


def _on_fitted(function: Callable[[FittedRows], T], problem: ScannedProblem, gamma: Array, coded: CodedBlock) -> T:
    block = problem.block(coded)
    (scores, importance, chances), restore = block.scored(gamma), block.sample.restore
    frequency = problem.design.weight_type == "frequency"
    return function(
        FittedRows(
            arm=coded.arm,
            weights=coded.weights,
            units=coded.weights if frequency else np.ones(len(coded.arm)),
            importance=restore(importance),
            scores=restore(scores.T).T,
            covariates=functools.partial(_block_covariates, problem, coded),
            chances=None if chances is None else restore(chances),
            recorded=None if chances is None else coded.recorded,
        )
    )
