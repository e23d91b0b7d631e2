"""Overlap of the arms: how importance weights are spread, effective sample sizes, and trimming.

Summaries of the weights of an arm say whether few rows dominate it. To trim, the propensity model is fitted to all
rows, and those that its scores exclude are left out; Crump's rule finds the limits of the scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalrisk.design import Design
from causalrisk.design.treatment import show
from causalrisk.estimation.engine import Point
from causalrisk.estimation.equations import Equations
from causalrisk.estimation.fits import WeightFit, probabilities_of
from causalrisk.estimation.options import ModelOptions
from causalrisk.estimation.sample import Sample
from causalrisk.estimation.separation import refuse_separation, separation
from causalrisk.estimation.specification import Specification
from causalrisk.estimation.targets import arm_population
from causalrisk.numerics.blocks import loaded
from causalrisk.numerics.linalg import Array

TOP_SHARE = 0.01
LARGE_WEIGHT = 1e6
LARGE_SHARE = 0.2
SMALL_EFFECTIVE, SMALL_FOR_ALL = 0.2, 1 / 3  # effective n over n; the second where everybody is the target
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


def arm_weights(inverse: Array, weights: Array, units: Array) -> ArmWeights:
    """Summarise the weights of one arm.

    Parameters
    ----------
    inverse : ndarray, shape (n_a,)
        Importance weights.
    weights : ndarray, shape (n_a,)
        Observation weights.
    units : ndarray, shape (n_a,)
        Number of observations of each row: its frequency weight.
    """
    alone, alone_total = weights / units, float(weights.sum())
    relative = inverse * alone
    n, heaviest = int(units.sum()), float(relative.max())
    # Relative to the heaviest, so that squares of extreme weights do not overflow.
    if np.isfinite(heaviest) and heaviest:
        relative /= heaviest
    else:  # a block of rows without weight, or infinite weights: rows at the largest count alike
        relative = (relative == heaviest).astype(float)
    held, top = units * relative, max(1, int(np.ceil(TOP_SHARE * n)))
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


def poor_overlap(
    arms: Sequence[ArmWeights], labels: Sequence[str], remote: tuple[int, int] | None = None, unit_name: str = "row"
) -> list[str]:
    """Say where overlap is poor; nothing where it is not.

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
        Observations that have hardly a counterpart in another arm, and all, where everybody is the target.
    """
    found = few_dominate(arms, labels, SMALL_EFFECTIVE if remote is None else SMALL_FOR_ALL, unit_name)
    without, everybody = remote or (0, 0)
    if without > REMOTE_SHARE * everybody:
        found.append(
            f"{without} of {everybody} {unit_name}s have hardly a counterpart in another group (probability below "
            "0.001)"
        )
    return found


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
                f"{arm.extreme} {unit_name}{'s' * (arm.extreme > 1)} of group {label!r} with a propensity score so "
                f"extreme that the weight exceeds 1e6 (largest {arm.largest:.3g})"
            )
        elif arm.largest_share > max(LARGE_SHARE, 2 * arm.alone_share) and arm.n > 1 / LARGE_SHARE:
            found.append(
                f"one {unit_name} holds {arm.largest_share:.0%} of the weight of group {label!r} (largest weight "
                f"{arm.heaviest:.3g}, effective n {arm.effective_n:.1f} of {arm.n})"
            )
        elif arm.kept < least and arm.n > 1 / SMALL_EFFECTIVE:
            alone = f" ({arm.alone_n:.1f} by the probability weights alone)" if arm.alone_n < arm.n * ALMOST else ""
            found.append(
                f"the {arm.n} {unit_name}s of group {label!r} weigh as much as {arm.effective_n:.1f} {unit_name}s "
                f"would without weights{alone}"
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


def limits_at(cut: float) -> tuple[float, float]:
    """Return the scores of the treated arm of two at which the sum of inverse scores is at a cut, the lower first."""
    alpha = 0.5 - np.sqrt(max(0.25 - 1 / cut, 0.0))
    return float(alpha), float(1 - alpha)


def inside(scores: Array, low: Array | float, high: Array | float) -> NDArray[np.bool_]:
    """Mask of the rows all of whose scores, shape (J, n), are within limits, shape (n,)."""
    limits = np.reshape(low, (-1, 1)), np.reshape(high, (-1, 1))
    return np.asarray(((scores >= limits[0]) & (scores <= limits[1])).all(axis=0))


def overlap_of(
    sample: Sample, spec: Specification, weights: WeightFit | None, design: Design, options: ModelOptions
) -> tuple[tuple[ArmWeights, ...], str]:
    """Summarise the importance weights of each arm, and say where few rows dominate another."""
    used, units, remote = weights if spec.uses_propensity else None, _units(sample, design), None
    arms = weights_of_arms(sample, np.ones(sample.n) if used is None else used.undivided, units, design.nobs)
    if spec.matched:  # that most units are no match is not a matter of overlap
        found = "; ".join(few_dominate(arms, design.labels, 0.0, design.unit_name))
        return arms, found and f"poor overlap: {found}.\nUse `caliper=` to leave out units without near matches."
    if used is not None and used.equations.target.everybody:
        without = used.equations.by_row(_is_remote, used.at)
        remote = int(units[without].sum()), int(units.sum())
    texts = poor_overlap(arms, design.labels, remote, design.unit_name)
    if not texts:
        return arms, ""
    instead = () if used is None else populations_that_overlap(used, design, options)
    return arms, (
        f"poor overlap: {'; '.join(texts)}.\nSimplify propensity=, or change the target population: "
        f"{populations_text(instead)}."
    )


def _units(sample: Sample, design: Design) -> Array:
    """Observations that each row stands for."""
    return np.asarray(loaded(sample.s)) if design.weight_type == "frequency" else np.broadcast_to(1.0, sample.n)


def _is_remote(equations: Equations, at: Point) -> NDArray[np.bool_]:
    """Mark rows that are nearly sure not to be in some arm."""
    return probabilities_of(equations, at).min(axis=1) < REMOTE_SCORE


def populations_that_overlap(weights: WeightFit, design: Design, options: ModelOptions) -> tuple[str, ...] | None:
    """Return the arms, as names of target populations, towards which the weights of a fit would not warn.

    None where the target cannot be another, as that of a change is the treated.
    """
    if options.did is not None:
        return None
    sample, scores = weights.equations.sample, weights.probabilities
    own, passing = scores[loaded(sample.arm), np.arange(sample.n)], []
    for toward in range(design.n_arms)[::-1]:
        if toward == weights.equations.target.toward:
            continue
        odds = np.divide(scores[toward], own, out=np.full(sample.n, np.inf), where=own > 0)
        spread = weights_of_arms(sample, odds, _units(sample, design), design.nobs)
        weighted = [a for a in range(design.n_arms) if a != toward]
        labels = [design.labels[a] for a in weighted]
        if not few_dominate([spread[a] for a in weighted], labels, SMALL_EFFECTIVE, "row"):
            passing.append(arm_population(toward, design.labels).name)
    return tuple(passing)


def weights_of_arms(sample: Sample, inverse: Array, units: Array, nobs: float) -> tuple[ArmWeights, ...]:
    """Summaries of the weights of each arm.

    Parameters
    ----------
    inverse : ndarray, shape (n,)
        Importance weights.
    units : ndarray, shape (n,)
        Observations that each row stands for.
    nobs : float
        Observations of the whole sample: probability weights are divided by their mean over them.
    """
    s, seen = loaded(sample.s) * (nobs / sample.total), loaded(sample.recorded)
    rows: list[Any] = [slice(max(r.start, sample.n_frame), r.stop) for r in sample.slices]
    if seen is not None:  # rows without an outcome have no weight, which is no matter of overlap
        rows = [r.start + np.flatnonzero(seen[r]) for r in rows]
    return tuple(arm_weights(inverse[r], s[r], units[r]) for r in rows)


# --- trimming -------------------------------------------------------------------------------------------------------


def trim_rows(design: Design, weights: WeightFit, trim: Any, link: str) -> tuple[Design, str]:
    """Leave out the rows that trimming excludes.

    Returns
    -------
    design : Design
        The data that are left.
    text : str
        How many rows are not, and why.
    """
    sample, scores = weights.equations.sample, weights.probabilities
    if trim == "separated":
        found, reason = separation(weights), trim
        left = np.ones(sample.n, dtype=bool) if found is None else ~found[0]
    else:
        refuse_separation(weights, design, link)
        limits = trim
        if trim == "crump":
            cut = crump_cut(scores, weights.s)
            limits = limits_at(cut) if sample.n_arms == 2 else None
        if limits is None:
            left, reason = inverse_sum(scores) <= cut, f"with sum 1/e > {cut:.3g}"
        else:
            left = inside(scores[1:] if len(scores) == 2 else scores, *limits)
            reason = "outside [{:.3g}, {:.3g}]".format(*limits)
    told = f"propensity score {reason}"
    trimmed = design.subset(sample.restore(left), told)
    return trimmed, f"{design.n - trimmed.n} {reason}"
