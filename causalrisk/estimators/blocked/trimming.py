"""Trimming over blocks of rows: the propensity model is fitted to all, and each pass leaves out rows by their score."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causalrisk.design.scan.coder import CodedBlock
from causalrisk.estimators.blocked.problem import Block, Problem
from causalrisk.estimators.blocked.weights import fit_scores
from causalrisk.numerics.blocks import add_up
from causalrisk.numerics.linalg import Array
from causalrisk.propensity.limits import CostsBelow, inside, inverse_sum, limits_at, searched_cut
from causalrisk.propensity.targets import ArmTarget


@dataclass(frozen=True)
class Kept:
    """Which rows of a block trimming keeps.

    Parameters
    ----------
    problem : Problem
        The propensity model on all rows.
    gamma : ndarray, shape (Q, 1)
        Its coefficients.
    limits : tuple of float
        Of the propensity scores.
    cut : float, optional
        Largest sum of inverse scores; in the place of the limits.
    """

    problem: Problem
    gamma: Array
    limits: tuple[float, float]
    cut: float | None = None

    def __call__(self, coded: CodedBlock) -> NDArray[np.bool_]:
        """Which rows of the block are kept, shape (n,)."""
        block = self.problem.block(coded)
        scores = _scores(self.gamma, block)
        if self.cut is not None:
            return block.sample.restore(inverse_sum(scores) <= self.cut)
        return block.sample.restore(inside(scores[1:] if len(scores) == 2 else scores, *self.limits))


def trimmed(problem: Problem) -> Problem:
    """Leave out the rows that trimming excludes, as `prepare.prepare` does.

    Parameters
    ----------
    problem : Problem
        What is estimated.

    Returns
    -------
    Problem
        From the rows that are left; the same where nothing is trimmed.
    """
    trim = problem.options.trim
    if trim is None:
        return problem
    unclipped = dataclasses.replace(problem.options, clip=None)  # rows are trimmed by the scores as they are
    first = dataclasses.replace(problem, target=ArmTarget(None), options=unclipped)
    gamma = fit_scores(first)[1].coefficients
    kept = Kept(first, gamma, (0.0, 1.0) if trim == "crump" else trim)
    limits = "outside [{:.3g}, {:.3g}]"
    if trim == "crump":
        cut = searched_cut(functools.partial(_costs, first, gamma), problem.design.n)
        if problem.n_arms > 2:
            kept, limits = dataclasses.replace(kept, cut=cut), f"with sum 1/e > {cut:.3g}"
        else:
            kept = dataclasses.replace(kept, limits=limits_at(cut))
    limits = limits.format(*kept.limits)
    design = problem.design.trimmed(kept, f"propensity score {limits}", problem.workers, problem.passes)
    return dataclasses.replace(
        problem, design=design, full_design=problem.design, trimmed=f"{problem.design.n - design.n} {limits}"
    )


def _scores(gamma: Array, block: Block) -> Array:
    """Probability of each arm, shape (K, n)."""
    model = block.propensity
    return model.probabilities(model.predictors(gamma))[:, :, 0]


def _costs(problem: Problem, gamma: Array, values: Array) -> CostsBelow:
    """Sum over all rows; a pass."""
    return add_up(problem.over(functools.partial(_below, values, gamma)))


def _below(values: Array, gamma: Array, block: Block) -> CostsBelow:
    return CostsBelow.of(values, _scores(gamma, block), block.sample.s)
