"""Trimming: the propensity model is fitted to all rows, and those that its scores exclude are left out."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalrisk.design import Design, ScannedDesign
from causalrisk.design.scan.encode import CodedBlock
from causalrisk.estimators.problem import Block, KeptProblem, Problem, ScannedProblem
from causalrisk.estimators.weights import fit_scores, refuse_separation
from causalrisk.numerics.blocks import add_up
from causalrisk.numerics.linalg import Array
from causalrisk.propensity.limits import (
    CostsBelow,
    crump_cut,
    find_separation,
    inside,
    inverse_sum,
    limits_at,
    searched_cut,
)
from causalrisk.propensity.weights import fit_weights


@dataclass(frozen=True)
class Rule:
    """Which propensity scores trimming keeps.

    Parameters
    ----------
    limits : tuple of float
        Of the propensity scores.
    cut : float, optional
        Largest sum of inverse scores; in the place of the limits.
    """

    limits: tuple[float, float]
    cut: float | None = None

    @classmethod
    def of(cls, trim: Any, n_arms: int, find_cut: Callable[[], float]) -> Rule:
        """Return the rule of an option `trim=`; `find_cut` finds Crump's cut where that is asked for."""
        if trim != "crump":
            return cls(trim)
        cut = find_cut()
        return cls(limits_at(cut)) if n_arms == 2 else cls((0.0, 1.0), cut)

    @property
    def text(self) -> str:
        """Say which rows are left out."""
        if self.cut is not None:
            return f"with sum 1/e > {self.cut:.3g}"
        return "outside [{:.3g}, {:.3g}]".format(*self.limits)

    def keeps(self, scores: Array) -> NDArray[np.bool_]:
        """Which rows with scores of shape (K, n) are kept, shape (n,)."""
        if self.cut is not None:
            return np.asarray(inverse_sum(scores) <= self.cut)
        return inside(scores[1:] if len(scores) == 2 else scores, *self.limits)


@dataclass(frozen=True)
class Kept:
    """Which rows of a block of a scan trimming keeps.

    Parameters
    ----------
    problem : ScannedProblem
        The propensity model on all rows.
    gamma : ndarray, shape (Q, 1)
        Its coefficients.
    rule : Rule
        Which scores are kept.
    """

    problem: ScannedProblem
    gamma: Array
    rule: Rule

    def __call__(self, coded: CodedBlock) -> NDArray[np.bool_]:
        """Which rows of the block are kept, shape (n,)."""
        block = self.problem.block(coded)
        return block.sample.restore(self.rule.keeps(_scores(self.gamma, block)))


def trim_rows(design: Design, problem: Problem, trim: Any, link: str) -> tuple[Design, str]:
    """Leave out the rows that trimming excludes.

    Parameters
    ----------
    design : Design
        The data.
    problem : Problem
        The propensity model on all of its rows, unclipped, with everybody as the target.
    trim : str or tuple of float
        The option.
    link : str
        Name of the propensity link.

    Returns
    -------
    design : Design
        The data that are left.
    text : str
        How many rows are not, and why.
    """
    if isinstance(problem, KeptProblem):
        trimmed, reason = _trim_kept(design, problem, trim, link)
    elif isinstance(problem, ScannedProblem):
        trimmed, reason = _trim_scan(problem, trim)
    return trimmed, f"{design.n - trimmed.n} {reason}"


def _trim_kept(design: Design, problem: KeptProblem, trim: Any, link: str) -> tuple[Design, str]:
    sample, model = problem.sample, problem.model
    if model is None:
        raise TypeError("trimming goes by a propensity model")
    fit = fit_weights(model, sample.s)
    if trim == "separated":
        found, reason = find_separation(fit), "separated"
        keep = np.ones(sample.n, dtype=bool) if found is None else ~found.rows
    else:
        refuse_separation(design, sample, fit, link)
        scores = fit.probabilities
        rule = Rule.of(trim, len(scores), functools.partial(crump_cut, scores, sample.s))
        keep, reason = rule.keeps(scores), rule.text
    return design.subset(sample.restore(keep), f"propensity score {reason}"), reason


def _trim_scan(problem: ScannedProblem, trim: Any) -> tuple[ScannedDesign, str]:
    gamma, design = fit_scores(problem)[1].coefficients, problem.design
    rule = Rule.of(
        trim, problem.n_arms, lambda: searched_cut(functools.partial(_costs, problem, gamma), problem.design.n)
    )
    kept = Kept(problem, gamma, rule)
    return design.trimmed(kept, f"propensity score {rule.text}", problem.workers, problem.passes), rule.text


def _scores(gamma: Array, block: Block) -> Array:
    """Probability of each arm, shape (K, n)."""
    model = block.propensity
    return model.probabilities(model.predictors(gamma))[:, :, 0]


def _costs(problem: ScannedProblem, gamma: Array, values: Array) -> CostsBelow:
    """Sum over all rows; a pass."""
    return add_up(problem.over(functools.partial(_below, values, gamma)))


def _below(values: Array, gamma: Array, block: Block) -> CostsBelow:
    return CostsBelow.of(values, _scores(gamma, block), block.sample.s)
