"""Overlap of the arms: how the importance weights of a fit are spread, and trimming.

To trim, the propensity model is fitted to all rows, and those that its scores exclude are left out.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalrisk.design import Design, ScannedDesign
from causalrisk.design.scan.encode import CodedBlock
from causalrisk.estimators.options import ModelOptions
from causalrisk.estimators.problem import Block, KeptProblem, Problem, ScannedProblem
from causalrisk.estimators.sample import Sample
from causalrisk.estimators.separate import WeighedRows
from causalrisk.estimators.weights import (
    BlockWeights,
    fit_scores,
    fit_suspicion,
    refuse_separation,
    score_suspicion,
    separation,
    told_rows,
)
from causalrisk.numerics.blocks import add_up
from causalrisk.numerics.linalg import Array
from causalrisk.propensity.limits import (
    SMALL_EFFECTIVE,
    ArmWeights,
    CostsBelow,
    arm_weights,
    combined_by_key,
    crump_cut,
    few_dominate,
    inside,
    inverse_sum,
    limits_at,
    overlap_message,
    remote_units,
    searched_cut,
)
from causalrisk.propensity.separation import Separation
from causalrisk.propensity.targets import Target, arm_population
from causalrisk.propensity.weights import RowWeights, WeightFit, fit_weights


def overlap_of(weighed: WeighedRows, design: Design, options: ModelOptions) -> tuple[tuple[ArmWeights, ...], str, int]:
    """Summarise the importance weights of each arm; a pass, and where few rows dominate another.

    Parameters
    ----------
    weighed : WeighedRows
        The rows with their importance weights.
    design : Design
        The data with their names.
    options : ModelOptions
        What is estimated.

    Returns
    -------
    arms : tuple of ArmWeights
        Summaries of the weights of each arm; of ones where the estimator uses none.
    message : str
        The warning where few rows dominate; empty otherwise.
    clipped : int
        Observations whose score was clipped.
    """
    problem, target = weighed.problem, weighed.problem.target
    uses, observations = problem.spec.uses_propensity, _observations(design)
    if isinstance(problem, KeptProblem):  # all rows together, for the share of the largest weights to be known
        whole = problem.block(slice(0, problem.sample.n))
        found = _arms_of(weighed.weights.of(whole), uses, observations, problem.sample)
        extremes = problem.over(functools.partial(_extremes_of_block, weighed.weights, observations))
    else:
        spread = list(problem.over(functools.partial(_spread_of, weighed.weights, uses, observations)))
        found, extremes = combined_by_key(arms for arms, _ in spread), iter([own for _, own in spread])
    arms = tuple(found[a] for a in range(problem.n_arms))
    without, everybody, clipped = add_up(extremes)
    remote = None
    if uses and target.separable and target.toward is None:
        remote = int(without), int(everybody)
    message = overlap_message(arms, design.labels, remote, design.unit_name)
    if message and uses:
        instead = populations_that_overlap(weighed, design, options)
        message = overlap_message(arms, design.labels, remote, unit_name=design.unit_name, instead=instead)
    return arms, message, int(clipped)


def _observations(design: Design) -> tuple[bool, float]:
    """Whether weights count observations, and how many there are."""
    return design.weight_type == "frequency", design.nobs


def _units(sample: Sample, frequency: bool) -> Array:
    """Observations that each row stands for, shape (n,); each row of a target frame for one."""
    return sample.s if frequency else np.ones(sample.n)


def _arms_of(rows: RowWeights, uses: bool, observations: tuple[bool, float], sample: Sample) -> dict[int, ArmWeights]:
    """Summaries of the weights of each arm in some rows, of ones where the estimator uses none."""
    frequency, nobs = observations
    inverse = rows.undivided if uses and isinstance(rows, WeightFit) else np.ones(sample.n)
    return weights_of_arms(sample, inverse, _units(sample, frequency), nobs)


def _extremes_of(rows: RowWeights, observations: tuple[bool, float], sample: Sample) -> Array:
    """Observations that are remote, as by `remote_units`, and those whose score was clipped, shape (3,)."""
    units = _units(sample, observations[0])
    if not isinstance(rows, WeightFit):
        return np.zeros(3)
    return np.array([*remote_units(rows.probabilities, units), (units * sample.observed)[rows.clipped].sum()])


def _extremes_of_block(weights: BlockWeights, observations: tuple[bool, float], block: Block) -> Array:
    return _extremes_of(weights.of(block), observations, block.sample)


def _spread_of(
    weights: BlockWeights, uses: bool, observations: tuple[bool, float], block: Block
) -> tuple[dict[int, ArmWeights], Array]:
    rows, sample = weights.of(block), block.sample
    return _arms_of(rows, uses, observations, sample), _extremes_of(rows, observations, sample)


def populations_that_overlap(weighed: WeighedRows, design: Design, options: ModelOptions) -> tuple[str, ...] | None:
    """Return the arms, as names of target populations, towards which the weights of a fit would not warn; a pass.

    None where the target is the only one, as of a change.
    """
    if options.did is not None:
        return None
    toward = weighed.problem.over(functools.partial(_toward_arms, weighed.weights, _observations(design)))
    return overlapping_arms(combined_by_key(toward), design.labels, weighed.problem.target)


def _toward_arms(
    weights: BlockWeights, observations: tuple[bool, float], block: Block
) -> dict[tuple[int, int], ArmWeights]:
    sample, (frequency, nobs), rows = block.sample, observations, weights.of(block)
    if not isinstance(rows, WeightFit):
        raise TypeError("these weights are of no propensity score")
    return weights_toward_arms(sample, rows.probabilities, _units(sample, frequency), nobs)


def overlapping_arms(
    found: Mapping[tuple[int, int], ArmWeights], labels: Sequence[str], target: Target
) -> tuple[str, ...]:
    """Return the names of the arms among `weights_toward_arms` that a fit would not warn of as its target."""
    n_arms = len(labels)
    passing = [
        toward
        for toward in range(n_arms)[::-1]
        if toward != target.toward
        and not few_dominate(
            [found[toward, a] for a in range(n_arms) if a != toward],
            [labels[a] for a in range(n_arms) if a != toward],
            SMALL_EFFECTIVE,
            "row",
        )
    ]
    return tuple(arm_population(arm, labels).name for arm in passing)


def weights_of_arms(sample: Sample, inverse: Array, units: Array, nobs: float) -> dict[int, ArmWeights]:
    """Summaries of the weights of each arm that has rows.

    Parameters
    ----------
    sample : Sample
        The rows, or a block of them.
    inverse : ndarray, shape (n,)
        Importance weights.
    units : ndarray, shape (n,)
        Observations that each row stands for.
    nobs : float
        Observations of the whole sample: probability weights are divided by their mean over them.

    Returns
    -------
    dict of int to ArmWeights
        By arm.
    """
    s, seen = sample.s * (nobs / sample.total), sample.recorded
    rows: list[Any] = [slice(max(r.start, sample.n_frame), r.stop) for r in sample.slices]
    if seen is not None:  # rows without an outcome have no weight, which is no matter of overlap
        rows = [r.start + np.flatnonzero(seen[r]) for r in rows]
    return {a: arm_weights(inverse[r], s[r], units[r]) for a, r in enumerate(rows) if len(inverse[r])}


def weights_toward_arms(sample: Sample, scores: Array, units: Array, nobs: float) -> dict[tuple[int, int], ArmWeights]:
    """Summaries of the weights of each other arm, were the rows of one arm the target, from scores of shape (K, n).

    Keys are the arm that is the target and the arm that is weighted; the others are as in `weights_of_arms`.
    """
    own, found = scores[sample.arm, np.arange(sample.n)], dict[tuple[int, int], ArmWeights]()
    for toward in range(sample.n_arms):
        odds = np.divide(scores[toward], own, out=np.full(sample.n, np.inf), where=own > 0)
        spread = weights_of_arms(sample, odds, units, nobs)
        found |= {(toward, arm): summary for arm, summary in spread.items() if arm != toward}
    return found


# --- trimming -------------------------------------------------------------------------------------------------------


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
    keeps : callable
        Which rows of a block are kept, shape (n,).
    """

    problem: ScannedProblem
    keeps: Callable[[Block], NDArray[np.bool_]]

    def __call__(self, coded: CodedBlock) -> NDArray[np.bool_]:
        """Which rows of the block are kept, in its order, shape (n,)."""
        block = self.problem.block(coded)
        return block.sample.restore(self.keeps(block))


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
        trimmed, reason = _trim_scan(problem, trim, link)
    return trimmed, f"{design.n - trimmed.n} {reason}"


def _trim_kept(design: Design, problem: KeptProblem, trim: Any, link: str) -> tuple[Design, str]:
    sample, model = problem.sample, problem.model
    if model is None:
        raise TypeError("trimming goes by a propensity model")
    fit = fit_weights(model, sample.s)
    suspicious = score_suspicion(fit)
    if trim == "separated":
        found, reason = separation(problem, suspicious), trim
        keep = np.ones(design.n, dtype=bool) if found is None else ~told_rows(problem, found)
    else:
        refuse_separation(problem, design, suspicious, link)
        scores = fit.probabilities
        rule = Rule.of(trim, len(scores), functools.partial(crump_cut, scores, sample.s))
        keep, reason = sample.restore(rule.keeps(scores)), rule.text
    return design.subset(keep, f"propensity score {reason}"), reason


def _trim_scan(problem: ScannedProblem, trim: Any, link: str) -> tuple[ScannedDesign, str]:
    design, (rows, fits) = problem.design, fit_scores(problem)
    suspicious, gamma = fit_suspicion(rows, fits), fits.coefficients
    keeps: Callable[[Block], NDArray[np.bool_]]
    if trim == "separated":
        found, reason = separation(problem, suspicious), trim
        keeps = functools.partial(_left, found)
    else:
        refuse_separation(problem, design, suspicious, link)
        rule = Rule.of(trim, problem.n_arms, lambda: searched_cut(functools.partial(_costs, problem, gamma), design.n))
        keeps, reason = functools.partial(_inside, rule, gamma), rule.text
    kept = Kept(problem, keeps)
    return design.trimmed(kept, f"propensity score {reason}", problem.workers, problem.passes), reason


def _left(found: Separation | None, block: Block) -> NDArray[np.bool_]:
    """Which rows are not predicted perfectly."""
    return np.ones(block.sample.n, dtype=bool) if found is None else ~found.rows(block.weight_model)


def _inside(rule: Rule, gamma: Array, block: Block) -> NDArray[np.bool_]:
    return rule.keeps(_scores(gamma, block))


def _scores(gamma: Array, block: Block) -> Array:
    """Probability of each arm, shape (K, n)."""
    model = block.propensity
    return model.probabilities(model.predictors(gamma))[:, :, 0]


def _costs(problem: ScannedProblem, gamma: Array, values: Array) -> CostsBelow:
    """Sum over all rows; a pass."""
    return add_up(problem.over(functools.partial(_below, values, gamma)))


def _below(values: Array, gamma: Array, block: Block) -> CostsBelow:
    return CostsBelow.of(values, _scores(gamma, block), block.sample.s)
