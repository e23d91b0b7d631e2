"""Overlap of the arms: separation, the spread of importance weights, effective sample sizes, and trimming."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from causalrisk.design.design import Design
from causalrisk.design.on_disk import DesignOnDisk
from causalrisk.errors import Failure, SeparationError
from causalrisk.estimation.engine import farthest
from causalrisk.estimation.fits import WeightFit
from causalrisk.estimation.options import ModelOptions
from causalrisk.estimation.sample import Sample
from causalrisk.estimation.specification import Specification, TargetPopulation
from causalrisk.numerics.arrays import Array, Basis, in_chunks, load_all, loaded
from causalrisk.numerics.families import OutcomeFamily
from causalrisk.numerics.optimize import MARGIN, separating_direction

SHOWN = 3  # terms that a message names
BOUNDED = ("binomial", "poisson", "negativebinomial")  # families whose means reach a bound only at infinite predictors
SUSPICIOUS = 12.0  # linear predictors beyond this (odds 160,000) are checked by a linear programme


# --- separation ------------------------------------------------------------------------------------------------------


def separated(weights: WeightFit, name: str) -> tuple[NDArray[Any], Array] | None:
    """Find the rows that a model of the weights predicts perfectly.

    Returns a mask of these rows, and the direction in which the coefficients diverge, or None if there are no such
    rows. There is no search if the model converged and no linear predictor is large.
    """
    if name not in weights.beta:
        return None
    sample = weights.equations.sample
    block = next(block for block in weights.equations.weight_blocks if block.name == name)
    s = sample.s[:, None] if name == "member" else (sample.s * sample.in_sample)[:, None]
    if weights.converged and np.max(in_chunks(farthest, block.chunks, block, s, weights.beta)) < SUSPICIOUS:
        return None
    basis, arm, among = sample.Z, sample.arm, sample.in_sample > 0
    if name == "member":
        arm, among = (~among).astype(int), np.ones(sample.n, dtype=bool)
    elif name == "observed":
        basis, arm = cast(Basis, sample.R), sample.with_outcome.astype(int)
    columns, arm, among = load_all([basis.columns, arm, among])
    columns, arm, n_arms = columns[among], arm[among], int(arm.max()) + 1
    (n, q), rows = columns.shape, np.arange(len(columns))
    slopes = np.zeros((n_arms - 1, n, n_arms, q))
    for j in range(1, n_arms):  # slopes of the log odds of a row's own arm against each other arm
        slopes[j - 1, rows, arm] += columns
        slopes[j - 1, rows, (arm + j) % n_arms] -= columns
    signed = slopes[:, :, 1:].reshape(n_arms - 1, n, (n_arms - 1) * q)
    direction = separating_direction(signed.reshape(-1, signed.shape[2]))
    if direction is None:
        return None
    told = np.zeros(len(among), dtype=bool)
    told[among] = (signed @ direction > MARGIN).any(axis=0)
    return told, direction


def refuse_separation(weights: WeightFit, design: Design, link: str) -> None:
    """Raise a SeparationError if the propensity model predicts the arm of some rows perfectly."""
    found = separated(weights, "score")
    if found is None:
        return
    sample = weights.equations.sample
    told = sample.restore(found[0])
    if isinstance(design, DesignOnDisk):
        Z, place, labels = load_all(map(design.dask, ("Z", "position", "row")))
        told = told[place]
    else:
        Z, labels = design.Z, design.index
    by_arm = found[1].reshape(-1, Z.shape[1])
    largest = by_arm[np.abs(by_arm).argmax(axis=0), np.arange(Z.shape[1])]
    cause = _direction(design, sample.Z.coefficients(largest) * np.ptp(Z, axis=0))
    count = int(told.sum())
    right = (design.propensity_formula or "").partition("~")[2].strip()
    where = f'propensity="{right}"' if right else "exog_propensity"
    advice = f'Drop a term from {where}, or drop the rows: `trim="separated"`.'
    if told.all():
        advice = f"These data cannot show the effect. Leave the term out of {where} only if it is not a confounder."
    where = f"in {'all' if told.all() else count} row{'' if count == 1 else 's'}"
    problem = f"the propensity model ({link}) predicts {design.treat_name!r} perfectly {where}: {cause}"
    raise SeparationError(f"{problem}, so weights are infinite.\n{advice}", rows=np.asarray(labels)[told])


def refuse_other(weights: WeightFit, design: Design) -> None:
    """Raise a SeparationError if the membership model or the observation model separates its rows."""
    if separated(weights, "member") is not None:
        problem = "the membership model (logit) predicts perfectly which rows are from the target frame"
        advice = "Simplify propensity=, or drop rows of either sample without comparable rows in the other."
        raise SeparationError(f"{problem}, so weights are infinite.\n{advice}")
    if separated(weights, "observed") is not None:
        formula = None if design.observation is None else design.observation.formula
        problem = f"the observation model (logit) predicts perfectly whether {design.endog_name!r} is observed"
        advice = f"Simplify `observed={formula!r}`. Perhaps a group or level has all outcomes observed, or all missing."
        raise SeparationError(f"{problem}, so weights are infinite.\n{advice}")


def _direction(design: Design, strength: Array) -> str:
    """Return a text on the terms that together separate the groups. `strength` is each term's effect on log odds."""
    order = _strongest(np.abs(strength))
    names = ", ".join(repr(design.propensity_names[j]) for j in order[:SHOWN])
    more = " and others" if len(order) > SHOWN else ""
    return f"a combination of {names}{more} separates the groups" if len(order) > 1 else f"{names} separates the groups"


def _strongest(strength: Array) -> list[int]:
    return [int(j) for j in np.argsort(-strength) if strength[j] > 1e-6 * strength.max()]


# --- outcome models --------------------------------------------------------------------------------------------------


def _separating_terms(design: Design, sample: Sample, arm: int) -> list[str]:
    """Return the columns that separate outcomes at a bound of the family from the other outcomes of an arm."""
    family, rows = sample.family, sample.slices[arm]
    own = sample.with_outcome[rows] > 0
    y, columns = sample.y[rows][own], sample.X.columns[rows][own]
    low, high = y == family.entry.low, y == family.entry.high
    if family.name not in BOUNDED or not (low | high).any():
        return []
    inside = columns[~(low | high)]
    signed = np.vstack([-columns[low], columns[high], inside, -inside])
    direction = separating_direction(signed)
    if direction is None:
        return []
    strength = np.abs(sample.X.coefficients(direction)) * design.X[design.arm == arm].std(axis=0)
    return [design.exog_names[j] for j in _strongest(strength)[:SHOWN]]


def check_outcome_fits(design: Design, family: OutcomeFamily, failed: tuple[int, ...], sample: Sample | None) -> str:
    """Raise an error if an arm's outcome model has no finite fit. Return the labels of arms with other failures."""
    instead = '`exposure=None, family="gaussian"`' if design.offset_kind == "exposure" else '`family="gaussian"`'
    for a in (a for a, reason in enumerate(failed) if reason != Failure.OK):
        low, high = design.outcome_limits[a]
        if low == high and low in (family.entry.low, family.entry.high):
            problem = f"outcome {design.endog_name!r} is {low:g} in all rows of group {design.labels[a]!r}"
            problem += f", so its outcome model ({family.label}) has no finite fit"
            raise SeparationError(f"{problem}.\nUse {instead}, or merge the group with another.")
        found = [] if sample is None else _separating_terms(design, sample, a)
        if found or failed[a] == Failure.OUTCOME_SEPARATION:
            terms = ", ".join(map(repr, found)) or "a combination of the terms"
            problem = f"the outcome model ({family.label}) of group {design.labels[a]!r} has no finite fit"
            cause = f"{terms} predict{'s' * (len(found) < 2)} {design.endog_name!r} perfectly in some rows"
            advice = f"Simplify the outcome formula, or use {instead}. `propensity=` can keep all terms."
            raise SeparationError(f"{problem}: {cause}.\n{advice}")
    return ", ".join(label for label, reason in zip(design.labels, failed, strict=True) if reason != Failure.OK)


# --- overlap ----------------------------------------------------------------------------------------------------------


TOP_SHARE = 0.01
LARGE_WEIGHT = 1e6
LARGE_SHARE = 0.2
SMALL_EFFECTIVE, SMALL_FOR_ALL = 0.2, 1 / 3  # see `least_share`; the second if everybody is the target
ALMOST = 1 - 1e-9  # an effective n above this share of n differs from n by rounding
REMOTE_SCORE, REMOTE_SHARE = 1e-3, 0.05


@dataclass(frozen=True)
class ArmWeights:
    """Spread of the weights of one arm.

    `n` counts observations. `effective_n` is (sum w)^2 / sum w^2. `top_share` is the share of the total weight held by
    the 1% of observations with the largest weights, at least one observation. `largest_share` is the largest share.
    `extreme` counts importance weights above 1e6. `largest` is the largest importance weight. `heaviest` is the largest
    product of importance weight and probability weight (scaled to mean one). `alone_n` and `alone_share` are effective
    n and largest share under the probability weights alone.
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

    @property
    def kept(self) -> float:
        """Effective n as a share of the effective n under the probability weights alone."""
        return self.effective_n / self.alone_n


def arm_weights(inverse: Array, weights: Array, units: Array) -> ArmWeights:
    """Summarise importance and observation weights of one arm, whose rows represent `units` observations each."""
    alone, alone_total = weights / units, float(weights.sum())
    relative = inverse * alone
    n, heaviest = int(units.sum()), float(relative.max())
    # Divided by the heaviest, so squares do not overflow. If it is zero or infinite, rows equal to it count one.
    relative = relative / heaviest if 0 < heaviest < np.inf else (relative == heaviest).astype(float)
    held, top = units * relative, max(1, int(np.ceil(TOP_SHARE * n)))
    total = held.sum()
    few = np.argpartition(-relative, min(top, len(relative)) - 1)[:top]  # each row is at least one observation
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
    )


def advice_on_overlap(spec: Specification, design: Design, options: ModelOptions, weights: WeightFit) -> str:
    """Return what to do about poor overlap. Crump's rule is suggested only if it is available and would trim rows."""
    if spec.matched:
        if options.caliper is None and not options.exact:
            return "Use `caliper=` to leave out units without near matches."
        return 'Match on fewer covariates, or use IPWRA with `target="overlap"`.'
    tilted = options.propensity_loss != "calibrated" and options.population.name != "overlap"
    treated = options.population.everybody and design.n_arms == 2
    targets = [] if options.did is not None else ["overlap"] * tilted + ["treated"] * treated
    found = [f'`target="{name}"`' for name in targets]
    untrimmed = options.trim != "crump" and not options.population.frame
    if untrimmed and np.isfinite(crump_cut(weights.probabilities, weights.s)):
        found.append('`trim="crump"`')
    return f"Try logarithms or squares in propensity={', or use ' * bool(found)}{' or '.join(found)}."


def judged_shares(effective: Array, alone: Array, toward: int | None) -> Array:
    """Return effective n / `alone` of each arm, shape (K,), by which overlap is judged.

    `alone` is n or, with probability weights, the effective n without importance weights. If arm `toward` is the
    target, `alone` is capped at the target's, because the other arms need no more.
    """
    return effective / np.minimum(alone, np.inf if toward is None else alone[toward])


def least_share(target: TargetPopulation) -> float:
    """Return the value of `judged_shares` below which a fit warns."""
    return SMALL_FOR_ALL if target.everybody else SMALL_EFFECTIVE  # other targets leave rows out on purpose


def poor_overlap(
    arms: Sequence[ArmWeights], labels: Sequence[str], target: TargetPopulation, unit_name: str = "row",
    method: str = "weighting",
) -> list[str]:  # fmt: skip
    """Return a text for each arm with extreme or concentrated weights.

    It names the first that holds: a weight above a million; a row with more than a fifth of the arm's weight, and more
    than twice the largest share under probability weights alone; a small `judged_shares`.
    """
    found, toward = [], target.toward
    effective, alone_n = np.array([(arm.effective_n, arm.alone_n) for arm in arms]).T
    shares = judged_shares(effective, alone_n, toward)
    for arm, label, share in zip(arms, labels, shares, strict=True):
        if arm.extreme:
            some = f"{arm.extreme} {unit_name}{'s' * (arm.extreme > 1)} of group {label!r} with a weight above 1e6"
            found.append(f"{some} (largest {arm.largest:.3g})")
        elif arm.largest_share > max(LARGE_SHARE, 2 * arm.alone_share) and arm.n > 1 / LARGE_SHARE:
            numbers = f"largest weight {arm.heaviest:.3g}, effective n {arm.effective_n:.1f} of {arm.n}"
            found.append(f"one {unit_name} holds {arm.largest_share:.0%} of the weight of group {label!r} ({numbers})")
        elif share < least_share(target) and arm.n > 1 / SMALL_EFFECTIVE:
            alone = f" ({arm.alone_n:.1f} under the probability weights alone)" if arm.alone_n < arm.n * ALMOST else ""
            size, whole = f"{arm.effective_n:.1f}{alone}", f", out of {arm.n} {unit_name}s"
            if toward is not None and arms[toward].alone_n < arm.alone_n:
                whole = f"; the target group {labels[toward]!r} has {arms[toward].n} {unit_name}s"
            found.append(f"after {method}, the effective n of group {label!r} is only {size}{whole}")
    return found


def inverse_sum(scores: Array) -> Array:
    """Return each row's sum of inverse propensity scores over the arms, which measures its cost in variance."""
    with np.errstate(divide="ignore"):  # a score that underflows to zero has an infinite cost
        return np.asarray((1 / scores).sum(axis=0))


def crump_cut(scores: Array, weights: Array) -> float:
    """Return the upper limit on `inverse_sum` for which the average effect has the least variance.

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
    """Return the two propensity scores between which the sum of both arms' inverse scores is below a cut."""
    alpha = 0.5 - np.sqrt(max(0.25 - 1 / cut, 0.0))
    return float(alpha), float(1 - alpha)


def inside(scores: Array, low: Array | float, high: Array | float) -> NDArray[np.bool_]:
    """Return a mask (n,) of the rows whose propensity scores (J, n) are all within limits."""
    limits = np.reshape(low, (-1, 1)), np.reshape(high, (-1, 1))
    return np.asarray(((scores >= limits[0]) & (scores <= limits[1])).all(axis=0))


def overlap_of(
    sample: Sample, spec: Specification, weights: WeightFit | None, design: Design, options: ModelOptions
) -> tuple[tuple[ArmWeights, ...], str]:
    """Return a summary of each arm's importance weights, and a message if few rows dominate an arm."""
    s, seen = loaded(sample.s), sample.recorded  # outcomes of data on disk are all recorded
    used = weights if spec.uses_propensity else None
    units = s if design.weight_type == "frequency" else np.ones(sample.n)
    inverse, relative = np.ones(sample.n) if used is None else used.raw_weights, s * (design.nobs / sample.total)
    rows: list[Any] = [slice(max(r.start, sample.n_frame), r.stop) for r in sample.slices]
    if seen is not None:  # rows without an outcome have no weight, which is not a matter of overlap
        rows = [r.start + np.flatnonzero(seen[r]) for r in rows]
    arms = tuple(arm_weights(inverse[r], relative[r], units[r]) for r in rows)
    texts = poor_overlap(arms, design.labels, options.population, design.unit_name, spec.adjustment)
    if used is not None and used.equations.target.everybody and not spec.matched:
        least = used.equations.by_row(lambda of, at: reduce(np.minimum, of.probabilities(at))[:, 0], used.at)
        without = least < REMOTE_SCORE
        remote, every = int(units[without].sum()), int(units.sum())
        if remote > REMOTE_SHARE * every:
            alone = f"{remote} of {every} {design.unit_name}s have almost no comparable {design.unit_name}s in a group"
            texts.append(f"{alone} (propensity score below 0.001)")
    if not texts or used is None:
        return arms, ""
    return arms, f"poor overlap: {'; '.join(texts)}.\n{advice_on_overlap(spec, design, options, used)}"


# --- trimming -------------------------------------------------------------------------------------------------------


def trim_rows(design: Design, weights: WeightFit, trim: Any, link: str) -> tuple[Design, str]:
    """Leave out the rows that trimming excludes. Return the design, and a text that says how many and why."""
    sample, scores = weights.equations.sample, weights.probabilities
    if trim == "separated":
        found, reason, told = separated(weights, "score"), trim, "treatment predicted perfectly"
        left = np.ones(sample.n, dtype=bool) if found is None else ~found[0]
    else:
        refuse_separation(weights, design, link)
        limits = trim
        if trim == "crump":
            cut = crump_cut(scores, weights.s)
            limits = limits_at(cut) if sample.n_arms == 2 else None
        if limits is None:
            told = f"sum of 1 / score > {cut:.3g}"
            left, reason = inverse_sum(scores) <= cut, f"with sum of 1/score > {cut:.3g}"
        else:
            left = inside(scores[1:] if len(scores) == 2 else scores, *limits)
            reason = "outside [{:.3g}, {:.3g}]".format(*limits)
            told = f"propensity score {reason}"
    trimmed = design.subset(sample.restore(left), told)
    return trimmed, f"{design.n - trimmed.n} {reason}"
