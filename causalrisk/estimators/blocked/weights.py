"""Importance weights over blocks of rows: the propensity model, a pass an iteration, and what they are divided by."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np

from causalrisk.design.covariates import covariates_of_block
from causalrisk.design.scan.coder import CodedBlock
from causalrisk.errors import ConvergenceWarning, Notes, SeparationError
from causalrisk.estimators.blocked.problem import Block, Problem
from causalrisk.estimators.fit import not_converged
from causalrisk.estimators.fitted_rows import FittedBlocks, FittedRows
from causalrisk.numerics.blocks import add_up
from causalrisk.numerics.failures import Failure
from causalrisk.numerics.linalg import Array
from causalrisk.numerics.newton import BlockedLikelihood, NewtonFits, WeightedRows, maximize
from causalrisk.propensity.targets import FunctionTarget
from causalrisk.propensity.weights import ScannedWeights, TargetSums, WeightFit, WeightModel, WeightSums, weigh_rows

T = TypeVar("T")
OfLikelihoods: TypeAlias = Callable[[Sequence[WeightedRows]], T]


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

    def summary(self, model: WeightModel, n_clipped: int) -> ScannedWeights:
        """Return what is kept of them; `model` is that of a block without rows."""
        return ScannedWeights(
            model=model,
            gamma=self.fits.coefficients[:, 0],
            converged=self.converged,
            iterations=self.fits.iterations,
            n_clipped=n_clipped,
        )


@dataclass(frozen=True)
class FittedScan(FittedBlocks):
    """The rows of a fit to a scan with their scores and importance weights.

    Parameters
    ----------
    problem : Problem
        What was estimated.
    gamma : ndarray, shape (S,)
        The propensity coefficients.
    """

    problem: Problem
    gamma: Array

    def over(self, function: Callable[[FittedRows], T], covariates: bool = False) -> Iterator[T]:
        """As in `FittedBlocks`; rows of a target frame are not among them."""
        problem = self.problem
        work = functools.partial(_on_fitted, function, problem, self.gamma)
        return problem.design.over(work, problem.workers, problem.passes, variables=covariates)

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        return type(None), ()

    def __deepcopy__(self, memo: Any) -> FittedScan:
        return self


def _on_fitted(function: Callable[[FittedRows], T], problem: Problem, gamma: Array, coded: CodedBlock) -> T:
    block = problem.block(coded)
    (scores, importance), restore = block.scored(gamma), block.sample.restore
    frequency = problem.design.weight_type == "frequency"
    return function(
        FittedRows(
            arm=coded.arm,
            weights=coded.weights,
            units=coded.weights if frequency else np.ones(len(coded.arm)),
            importance=restore(importance),
            scores=restore(scores.T).T,
            covariates=lambda: covariates_of_block(problem.design, coded.variables),
        )
    )


def fit_blocked_weights(problem: Problem, notes: Notes) -> BlockedWeights:
    """Fit the propensity model, a pass an iteration; refuse separation, warn of non-convergence."""
    rows, fits = fit_scores(problem)
    information, membership = rows.sums(fits.coefficients).hessian[0] / problem.total, None
    if problem.n_frame:
        of_frame, other = _fit_membership(problem)
        membership = of_frame.sums(other.coefficients).hessian[0] / problem.total
        fits = fits.above(other)
    if fits.failures[0] != Failure.OK:
        model = f"the propensity model ({problem.options.propensity_link})"
        if problem.n_frame:
            model += " or of the membership model (logit), which tells the target frame from the sample,"
        notes.warn(not_converged(model, f"{fits.iterations} Newton iterations."), ConvergenceWarning)
    sums, log_mean = _target_sums(problem, fits)
    return BlockedWeights(fits, WeightSums(sums, log_mean, information, membership))


def fit_scores(problem: Problem) -> tuple[BlockedLikelihood, NewtonFits]:
    """Fit the propensity model, a pass an iteration, and return its likelihood too; refuse separation."""
    empty = problem.without_rows().propensity

    def over(function: OfLikelihoods[T]) -> Iterator[T]:
        return problem.over(functools.partial(_on_propensity, function))

    rows = BlockedLikelihood(over, empty.likelihood.n_predictors, empty.likelihood.bounded, (0,))
    fits = maximize(rows, np.zeros((empty.n_coefficients, 1)))
    link, name = problem.options.propensity_link, problem.design.treat_name
    if fits.failures[0] == Failure.SEPARATION:
        raise SeparationError(
            f"the propensity model ({link}) predicts {name!r} perfectly in some rows, as far as its iterations went, "
            "so no weight exists.\nMerge or drop a level or term in propensity=; a fit in memory to a part of the rows "
            "names it."
        )
    return rows, fits


def _on_propensity(function: OfLikelihoods[T], block: Block) -> T:
    """Apply a function to the likelihood of the propensity model on a block."""
    return function((block.propensity.weighted((block.sample.s * block.sample.observed)[:, None]),))


def _fit_membership(problem: Problem) -> tuple[BlockedLikelihood, NewtonFits]:
    """Fit the membership model of a target frame, a pass an iteration; refuse separation."""

    def over(function: OfLikelihoods[T]) -> Iterator[T]:
        return problem.over(functools.partial(_on_membership, function))

    empty = problem.without_rows().membership
    rows = BlockedLikelihood(over, empty.likelihood.n_predictors, empty.likelihood.bounded, (0,))
    fits = maximize(rows, np.zeros((empty.n_coefficients, 1)))
    if fits.failures[0] == Failure.SEPARATION:
        raise SeparationError(
            "the membership model (logit) tells rows of the target frame from those of the sample perfectly, as far as "
            "its iterations went, so no weight exists.\nSimplify propensity=, or leave out the rows of either that "
            "have no like in the other."
        )
    return rows, fits


def _on_membership(function: OfLikelihoods[T], block: Block) -> T:
    """Apply a function to the likelihood of the membership model on a block."""
    return function((block.membership.weighted(block.sample.s[:, None]),))


def _target_sums(problem: Problem, fits: NewtonFits) -> tuple[TargetSums, Array | None]:
    """Return what weights are divided by, with the derivative of its logarithm: two passes where scores tilt."""
    toward, totals = problem.target.toward, problem.design.arm_totals
    if problem.target.separable:
        tilt = np.array([problem.total if toward is None else totals[toward]])
        return TargetSums(np.array([problem.total]), tilt, tilt), None

    whole = add_up(problem.over(functools.partial(_sums_of_target, fits.coefficients)))
    if isinstance(problem.target, FunctionTarget):
        problem.target.check_tilt(float(whole.tilt[0]))
    return whole, add_up(problem.over(functools.partial(_log_mean, fits.coefficients, whole)))


def _sums_of_target(gamma: Array, block: Block) -> TargetSums:
    return block.model.target_sums(block.model.predictors(gamma), block.sample.s[:, None])


def _log_mean(gamma: Array, whole: TargetSums, block: Block) -> Array | None:
    return block.model.log_mean(block.model.predictors(gamma), block.sample.s[:, None], whole)
