"""Overlap of the arms: how importance weights are spread, effective sample sizes, and trimming.

Summaries of the weights of an arm say whether few rows dominate it. To trim, the propensity model is fitted to all
rows, and those that its scores exclude are left out; Crump's rule finds the limits of the scores.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from causalrisk.design import Design
from causalrisk.design.scan.coding import CodedBlock
from causalrisk.design.treatment import show
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
)
from causalrisk.numerics.blocks import add_up
from causalrisk.numerics.linalg import Array
from causalrisk.propensity.separation import Separation
from causalrisk.propensity.targets import arm_population
from causalrisk.propensity.weights import WeightFit, fit_weights

Key = TypeVar("Key", bound=Hashable)
TOP_SHARE = 0.01
LARGE_WEIGHT = 1e6
LARGE_SHARE = 0.2
SMALL_EFFECTIVE, SMALL_FOR_ALL = 0.2, 1 / 3  # effective n over n; the second where everybody is the target
CUT_VALUES = 512  # values at which a pass counts the rows for Crump's cut
CUT_TOLERANCE = 1e-12  # relative difference of values that are the same cut
ALMOST = 1 - 1e-9  # an effective n above this share of n differs from n by rounding
REMOTE_SCORE, REMOTE_SHARE = 1e-3, 0.05


@dataclass(frozen=True)
class ArmWeights:
    """Spread of the weights of one arm.

    Parameters
    ----------
    n : int
        Observations: rows, or the sum of their frequency weights.
    effective_n : float
        (sum w)^2 / sum w^2, over observations.
    largest : float
        Largest importance weight.
    top_share : float
        Share of the total weight held by the 1% of observations with the largest weights (at least one).
    largest_share : float
        Share of the total weight held by the observation with the largest.
    extreme : int
        Observations with a weight above 1e6.
    heaviest : float
        Largest product of importance weight and probability weight; the mean of the latter is one.
    alone_n : float
        Effective n under the probability weights alone; without these n.
    alone_share : float
        As `largest_share`, under the probability weights alone.
    alone_total : float
        Sum of the observation weights.
    """

    n: int
    effective_n: float
    largest: float
    top_share: float
    largest_share: float
    extreme: int
    heaviest: float
    alone_n: float
    alone_share: float
    alone_total: float

    @property
    def kept(self) -> float:
        """Share of the effective n under the weights given that importance weights leave."""
        return self.effective_n / self.alone_n


def arm_weights(inverse: Array, weights: Array, units: Array | None = None) -> ArmWeights:
    """Summarise the weights of one arm.

    Parameters
    ----------
    inverse : ndarray, shape (n_a,)
        Importance weights.
    weights : ndarray, shape (n_a,)
        Observation weights.
    units : ndarray, shape (n_a,), optional
        Number of observations of each row: its frequency weight. By default one.
    """
    units = np.ones_like(weights) if units is None else units
    alone, alone_total = weights / units, float(weights.sum())
    relative = inverse * alone
    n, heaviest = int(units.sum()), float(relative.max())
    # Relative to the heaviest, so that squares of extreme weights do not overflow.
    if np.isfinite(heaviest) and heaviest:
        relative /= heaviest
    else:  # a block of rows without weight, or infinite weights: rows at the largest count alike
        relative = (relative == heaviest).astype(float)
    held, top = units * relative, top_count(n)
    total = held.sum()
    few = np.argpartition(relative, max(len(relative) - top, 0))[-top:]  # each row is at least one observation
    few = few[np.argsort(-relative[few], kind="stable")]
    at_top = np.clip(top - (np.cumsum(units[few]) - units[few]), 0, units[few])
    return ArmWeights(
        n=n,
        effective_n=float(total**2 / (held @ relative)),
        largest=float(inverse.max()),
        top_share=float((at_top * relative[few]).sum() / total),
        largest_share=float(relative[few[0]] / total),
        extreme=int(units[inverse > LARGE_WEIGHT].sum()),
        heaviest=heaviest,
        alone_n=float(alone_total**2 / (weights @ alone)),
        alone_share=float(alone.max() / alone_total),
        alone_total=alone_total,
    )


def top_count(n: int) -> int:
    """Return the number of observations that are the 1% with the largest weights, at least one."""
    return max(1, int(np.ceil(TOP_SHARE * n)))


def combined_by_key(parts: Iterable[Mapping[Key, ArmWeights]]) -> dict[Key, ArmWeights]:
    """Summarise weights under each key from summaries of parts of the rows, of which some may have none."""
    found: dict[Key, list[ArmWeights]] = {}
    for part in parts:
        for key, summary in part.items():
            found.setdefault(key, []).append(summary)
    return {key: combined_weights(summaries) for key, summaries in found.items()}


def combined_weights(parts: Sequence[ArmWeights]) -> ArmWeights:
    """Summarise the weights of one arm from summaries of its parts."""
    heaviest = max(part.heaviest for part in parts) or 1.0
    # The largest weight over its share is the total; all relative to the heaviest, so that nothing overflows.
    totals = np.array([part.heaviest / heaviest / part.largest_share for part in parts])
    squares = totals**2 / np.array([part.effective_n for part in parts])
    alone = np.array([part.alone_total for part in parts])
    return ArmWeights(
        n=sum(part.n for part in parts),
        effective_n=float(totals.sum() ** 2 / squares.sum()),
        largest=max(part.largest for part in parts),
        top_share=np.nan,
        largest_share=float(1 / totals.sum()),
        extreme=sum(part.extreme for part in parts),
        heaviest=heaviest,
        alone_n=float(alone.sum() ** 2 / (alone**2 / [part.alone_n for part in parts]).sum()),
        alone_share=float((alone * [part.alone_share for part in parts]).max() / alone.sum()),
        alone_total=float(alone.sum()),
    )


def remote_units(scores: Array, units: Array | None = None) -> tuple[int, int]:
    """Count the observations that have hardly a counterpart in another arm; and all observations.

    Parameters
    ----------
    scores : ndarray, shape (K, n)
        Probability of each arm.
    units : ndarray, shape (n,), optional
        Number of observations of each row; by default one.
    """
    units = np.ones(scores.shape[1]) if units is None else units
    return int(units[scores.min(axis=0) < REMOTE_SCORE].sum()), int(units.sum())


def overlap_message(
    arms: Sequence[ArmWeights],
    labels: Sequence[str],
    remote: tuple[int, int] | None = None,
    unit_name: str = "row",
    instead: Sequence[str] | None = (),
) -> str:
    """Return a warning where overlap is poor, or an empty text.

    It is called poor where a weight exceeds a million, one row holds more than a fifth of its arm's weight (and more
    than twice what one holds by probability weights alone), the effective n is below a third of the arm's rows where
    everybody is the target (a fifth for other targets, whose weights leave rows out on purpose), or more than 5% of all
    rows have a propensity score within 0.001 of 0 or 1. Under probability weights the effective n by these alone takes
    the place of the rows: their cost is no matter of overlap.

    Parameters
    ----------
    labels : sequence of str
        Their labels.
    remote : tuple of int, optional
        Counts of `remote_units`, where everybody is the target.
    instead : sequence of str or None
        Names of the other targets that overlap; None where the target is the only one.
    """
    found = few_dominate(arms, labels, SMALL_EFFECTIVE if remote is None else SMALL_FOR_ALL, unit_name)
    without, everybody = remote or (0, 0)
    if without > REMOTE_SHARE * everybody:
        found.append(
            f"{without} of {everybody} {unit_name}s have hardly a counterpart in another arm (probability below 0.001)"
        )
    if not found:
        return ""
    return (
        f"poor overlap: {'; '.join(found)}.\nSimplify propensity=, or change the target population: "
        f"{populations_text(instead)}."
    )


def populations_text(instead: Sequence[str] | None) -> str:
    """Other targets to use: first the populations found to overlap, then those that always do better."""
    others = [] if instead is None else [*(f"`target={show(name)}`" for name in instead), '`target="overlap"`']
    return " or ".join([*others, '`trim="crump"`'])


def few_dominate(arms: Sequence[ArmWeights], labels: Sequence[str], least: float, unit_name: str) -> list[str]:
    """Sentences on each arm in which few rows hold the weight; `least` is the share of its effective n to be kept."""
    found = []
    for arm, label in zip(arms, labels, strict=True):
        if arm.extreme:
            found.append(
                f"{arm.extreme} {unit_name}{'s' * (arm.extreme > 1)} of arm {label!r} with a propensity score so "
                f"extreme that the weight exceeds 1e6 (largest {arm.largest:.3g})"
            )
        elif arm.largest_share > max(LARGE_SHARE, 2 * arm.alone_share) and arm.n > 1 / LARGE_SHARE:
            found.append(
                f"one {unit_name} holds {arm.largest_share:.0%} of the weight of arm {label!r} (largest weight "
                f"{arm.heaviest:.3g}, effective n {arm.effective_n:.1f} of {arm.n})"
            )
        elif arm.kept < least and arm.n > 1 / SMALL_EFFECTIVE:
            alone = f" ({arm.alone_n:.1f} by the probability weights alone)" if arm.alone_n < arm.n * ALMOST else ""
            found.append(
                f"the {arm.n} {unit_name}s of arm {label!r} weigh as much as {arm.effective_n:.1f} {unit_name}s would "
                f"without weights{alone}"
            )
    return found


def inverse_sum(scores: Array) -> Array:
    """Variance cost of a row: sum over the arms of its inverse propensity scores, (K, n) -> (n,)."""
    with np.errstate(divide="ignore"):  # a score that underflows to zero has an infinite cost
        return np.asarray((1 / scores).sum(axis=0))


def crump_cut(scores: Array, weights: Array) -> float:
    """Return the largest sum of inverse scores of the rows whose average effect has the least variance.

    Parameters
    ----------
    scores : ndarray, shape (K, n)
        Probability of each arm.
    weights : ndarray, shape (n,)
        Observation weights.

    References
    ----------
    .. [1] Crump, R. K., Hotz, V. J., Imbens, G. W. and Mitnik, O. A. (2009). Dealing with limited overlap in estimation
       of average treatment effects. Biometrika 96, 187-199.
    .. [2] Yang, S., Imbens, G. W., Cui, Z., Faries, D. E. and Kadziola, Z. (2016). Propensity score matching and
       subclassification in observational studies with multi-level treatments. Biometrics 72, 1055-1065.
    """
    cost = inverse_sum(scores)
    order = np.argsort(cost)
    cost, weights = cost[order], weights[order]
    means = np.cumsum(cost * weights) / np.cumsum(weights)
    below = (cost <= 2 * means) & np.isfinite(cost)
    # The largest cut at which the marginal row costs no more than twice the average of those below it.
    return np.inf if below[-1] else float(2 * means[np.flatnonzero(below)[-1]])


@dataclass(frozen=True)
class CostsBelow:
    """Counts and sums of the rows whose sum of inverse scores is at most each of g values, shape (g,).

    Parameters
    ----------
    rows : ndarray of int
        Number of rows.
    weight, cost : ndarray
        Sum of their weights, and of their costs times weights.
    """

    rows: NDArray[np.intp]
    weight: Array
    cost: Array

    @classmethod
    def of(cls, values: Array, scores: Array, weights: Array) -> CostsBelow:
        """Return the sums of rows with scores of shape (K, n) and weights of shape (n,); values ascend."""
        cost = inverse_sum(scores)
        place, size = np.searchsorted(values, cost), len(values) + 1
        sums = (np.bincount(place, part, size) for part in (weights, np.where(place < len(values), cost, 0) * weights))
        rows = np.bincount(place, minlength=size)
        return cls(*(np.cumsum(part)[:-1] for part in (rows, *sums)))


def searched_cut(below: Callable[[Array], CostsBelow], n: int) -> float:
    """Return `crump_cut` of rows that come in blocks, from sums over all of them.

    The last row that trimming keeps is the one of largest cost c that is at most F(c), twice the mean cost of the rows
    up to c. Of ascending values the largest v with v <= F(v) is a lower bound of it, and between two values u < v it
    may be where u < F(v), as F ascends. Such gaps are divided until none that is left has rows.

    Parameters
    ----------
    below : callable
        Ascending values, shape (g,) -> the sums over all rows; a pass.
    """
    values = np.append(np.geomspace(1, 1e9, CUT_VALUES), np.finfo(float).max)
    while True:
        sums = below(values)
        twice = np.divide(2 * sums.cost, sums.weight, out=np.full(len(values), np.inf), where=sums.weight > 0)
        sure = int(np.flatnonzero(values <= twice)[-1])
        upper = np.minimum(values, twice)[1:]
        gaps = (upper > values[:-1] * (1 + CUT_TOLERANCE)) & (np.diff(sums.rows) > 0)
        gaps[:sure] = False
        if not gaps.any():
            return np.inf if sums.rows[sure] == n else float(twice[sure])
        pieces = 2 + CUT_VALUES // int(gaps.sum())
        divided = np.linspace(values[:-1][gaps], upper[gaps], pieces).ravel()
        values = np.unique(np.concatenate([values[sure : np.flatnonzero(gaps)[-1] + 2], divided]))


def limits_at(cut: float) -> tuple[float, float]:
    """Return the scores of the treated arm of two at which the sum of inverse scores is at a cut, the lower first."""
    alpha = 0.5 - np.sqrt(max(0.25 - 1 / cut, 0.0))
    return float(alpha), float(1 - alpha)


def inside(scores: Array, low: Array | float, high: Array | float) -> NDArray[np.bool_]:
    """Mask of the rows all of whose scores, shape (J, n), are within limits, shape (n,)."""
    limits = np.reshape(low, (-1, 1)), np.reshape(high, (-1, 1))
    return np.asarray(((scores >= limits[0]) & (scores <= limits[1])).all(axis=0))


def overlap_of(weighed: WeighedRows, design: Design, options: ModelOptions) -> tuple[tuple[ArmWeights, ...], str, int]:
    """Summarise the importance weights of each arm; a pass, and where few rows dominate another.

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
    uses, observations = problem.spec.uses_propensity, (design.weight_type == "frequency", design.nobs)
    spread = functools.partial(_spread_of, weighed.weights, uses, observations)
    if isinstance(problem, KeptProblem):  # all rows together, for the share of the largest weights to be known
        found, extremes = spread(problem.some_block())
    else:
        parts = list(problem.over(spread))
        found, extremes = combined_by_key(arms for arms, _ in parts), add_up(own for _, own in parts)
    arms = tuple(found[a] for a in range(problem.n_arms))
    without, everybody, clipped = extremes
    remote = None
    if uses and target.fixed_tilt and target.toward is None:
        remote = int(without), int(everybody)
    message = overlap_message(arms, design.labels, remote, design.unit_name)
    if message and uses:
        instead = populations_that_overlap(weighed, design, options)
        message = overlap_message(arms, design.labels, remote, unit_name=design.unit_name, instead=instead)
    return arms, message, int(clipped)


def _spread_of(
    weights: BlockWeights, uses: bool, observations: tuple[bool, float], block: Block
) -> tuple[dict[int, ArmWeights], Array]:
    """Weights of each arm, of ones where the estimator uses none; remote observations, all, and those clipped, (3,)."""
    rows, sample, (frequency, nobs) = weights.of(block), block.sample, observations
    units = sample.s if frequency else np.ones(sample.n)
    if not isinstance(rows, WeightFit):
        return weights_of_arms(sample, np.ones(sample.n), units, nobs), np.zeros(3)
    arms = weights_of_arms(sample, rows.undivided if uses else np.ones(sample.n), units, nobs)
    return arms, np.array([*remote_units(rows.probabilities, units), (units * sample.in_sample)[rows.clipped].sum()])


def populations_that_overlap(weighed: WeighedRows, design: Design, options: ModelOptions) -> tuple[str, ...] | None:
    """Return the arms, as names of target populations, towards which the weights of a fit would not warn; a pass.

    None where the target is the only one, as of a change.
    """
    if options.did is not None:
        return None
    observations = design.weight_type == "frequency", design.nobs
    toward = combined_by_key(weighed.problem.over(functools.partial(_toward_arms, weighed.weights, observations)))
    others = [arm for arm in range(design.n_arms)[::-1] if arm != weighed.problem.target.toward]
    passing = []
    for arm in others:
        weighted = [a for a in range(design.n_arms) if a != arm]
        spread, labels = [toward[arm, a] for a in weighted], [design.labels[a] for a in weighted]
        if not few_dominate(spread, labels, SMALL_EFFECTIVE, "row"):
            passing.append(arm_population(arm, design.labels).name)
    return tuple(passing)


def _toward_arms(
    weights: BlockWeights, observations: tuple[bool, float], block: Block
) -> dict[tuple[int, int], ArmWeights]:
    sample, (frequency, nobs), rows = block.sample, observations, weights.of(block)
    if not isinstance(rows, WeightFit):
        raise TypeError("these weights are of no propensity score")
    return weights_toward_arms(sample, rows.probabilities, sample.s if frequency else np.ones(sample.n), nobs)


def weights_of_arms(sample: Sample, inverse: Array, units: Array, nobs: float) -> dict[int, ArmWeights]:
    """Summaries of the weights of each arm that has rows.

    Parameters
    ----------
    inverse : ndarray, shape (n,)
        Importance weights.
    units : ndarray, shape (n,)
        Observations that each row stands for.
    nobs : float
        Observations of the whole sample: probability weights are divided by their mean over them.
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


def trim_rows(design: Design, problem: Problem, trim: Any, link: str) -> tuple[Design, str]:
    """Leave out the rows that trimming excludes.

    Returns
    -------
    design : Design
        The data that are left.
    text : str
        How many rows are not, and why.
    """
    if isinstance(problem, KeptProblem):
        fit = fit_weights(problem.some_block().weight_model, problem.sample.s)
        suspicious, gamma = score_suspicion(fit), fit.gamma[:, None]
    elif isinstance(problem, ScannedProblem):
        rows, fits = fit_scores(problem)
        suspicious, gamma = fit_suspicion(rows, fits), fits.coefficients

    keeps: Callable[[Block], NDArray[np.bool_]]
    if trim == "separated":
        found, reason = separation(problem) if suspicious else None, trim
        keeps = functools.partial(_left, found)
    else:
        if suspicious:
            refuse_separation(problem, design, link)
        limits, cut = trim, 0.0
        if trim == "crump":
            if isinstance(problem, KeptProblem):
                cut = crump_cut(fit.probabilities, problem.sample.s)
            else:
                cut = searched_cut(functools.partial(_costs, problem, gamma), design.n)
            limits = limits_at(cut) if problem.n_arms == 2 else None
        keeps = functools.partial(_inside, limits, cut, gamma)
        reason = f"with sum 1/e > {cut:.3g}" if limits is None else "outside [{:.3g}, {:.3g}]".format(*limits)
    told = f"propensity score {reason}"
    if isinstance(problem, ScannedProblem):
        kept = functools.partial(_kept, problem, keeps)
        trimmed: Design = problem.design.trimmed(kept, told, problem.workers)
    elif isinstance(problem, KeptProblem):
        trimmed = design.subset(problem.sample.restore(np.concatenate([*problem.over(keeps)])), told)
    return trimmed, f"{design.n - trimmed.n} {reason}"


def _kept(problem: ScannedProblem, keeps: Callable[[Block], NDArray[np.bool_]], coded: CodedBlock) -> NDArray[np.bool_]:
    """Which rows of a block of a scan are kept, in its order, shape (n,)."""
    block = problem.block(coded)
    return block.sample.restore(keeps(block))


def _left(found: Separation | None, block: Block) -> NDArray[np.bool_]:
    """Which rows are not predicted perfectly."""
    return np.ones(block.sample.n, dtype=bool) if found is None else ~found.rows(block.weight_model)


def _inside(limits: tuple[float, float] | None, cut: float, gamma: Array, block: Block) -> NDArray[np.bool_]:
    """Which rows have scores within the limits, or, without limits, a sum of inverse scores of at most a cut."""
    scores = _scores(gamma, block)
    if limits is None:
        return np.asarray(inverse_sum(scores) <= cut)
    return inside(scores[1:] if len(scores) == 2 else scores, *limits)


def _scores(gamma: Array, block: Block) -> Array:
    """Probability of each arm, shape (K, n)."""
    model = block.weight_model.propensity
    return model.probabilities(model.predictors(gamma[: model.n_gamma]))[:, :, 0]


def _costs(problem: Problem, gamma: Array, values: Array) -> CostsBelow:
    """Sum over all rows; a pass."""
    return add_up(problem.over(functools.partial(_below, values, gamma)))


def _below(values: Array, gamma: Array, block: Block) -> CostsBelow:
    return CostsBelow.of(values, _scores(gamma, block), block.sample.s)
