"""The anchor of the joint objective chosen from the data, by the variance of influence functions held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causalrisk.estimators.joint.criterion import Criterion, JointCriterion
from causalrisk.estimators.joint.influence import JointSolution
from causalrisk.estimators.joint.train import (
    JointEstimate,
    JointProblem,
    Trained,
    estimate_of_trained,
    joint_criterion,
    train,
)
from causalrisk.estimators.sample import Sample
from causalrisk.numerics.linalg import Array

CAUTION = 1.0  # standard errors by which an anchor has to be better than the first
LARGEST_LEVERAGE = 0.9  # where more, the step without the unit is not to be trusted


@dataclass(frozen=True)
class HeldOutUnits:
    """What is left out at once: rows, clusters, or one of the equal rows that a frequency weight counts.

    Parameters
    ----------
    weights : ndarray, shape (n,)
        Weight of each row within its unit.
    counts : ndarray, shape (G,)
        Number of equal units.
    codes : ndarray of int, shape (n,)
        Unit of each row.
    """

    weights: Array
    counts: Array
    codes: NDArray[np.intp]

    def sums(self, rows: Array) -> Array:
        """Weighted sums of rows, shape (n, d), within units, shape (G, d)."""
        total = np.zeros((len(self.counts), rows.shape[1]))
        np.add.at(total, self.codes, self.weights[:, None] * rows)
        return total


@dataclass(frozen=True)
class AnchorPath:
    """What each anchor would have given.

    Parameters
    ----------
    effects : ndarray, shape (r,)
        The (first) effect.
    std_errors : ndarray, shape (r,)
        Standard error of the effect from the influence function held out, in units of the outcome; for several effects
        that of the contrasts of the objective.
    ratios, ratio_errors : ndarray, shape (r,)
        Its square over that of the first anchor, and the standard error of this ratio over the units; NaN where the
        first is zero.
    converged : ndarray of bool, shape (r,)
        Whether the optimiser converged; an anchor where it did not is not chosen.
    chosen : int
        Number of the anchor chosen.
    """

    effects: Array
    std_errors: Array
    ratios: Array
    ratio_errors: Array
    converged: NDArray[np.bool_]
    chosen: int


def units_of(sample: Sample, clusters: NDArray[np.intp] | None, frequency: bool) -> HeldOutUnits:
    """Return what is left out at once; clusters as codes of the rows of the sample."""
    ones = np.ones(sample.n)
    if clusters is not None:
        return HeldOutUnits(sample.s, np.ones(int(clusters.max()) + 1), clusters)
    rows = np.arange(sample.n)
    return HeldOutUnits(ones, sample.s, rows) if frequency else HeldOutUnits(sample.s, ones, rows)


def train_best(
    problem: JointProblem,
    criteria: Sequence[Criterion],
    method: str,
    units: HeldOutUnits,
    starts: Array | None = None,
) -> tuple[JointEstimate, JointCriterion, AnchorPath | None]:
    """Train the arms under each criterion and keep the best, the first unless another is clearly better.

    Parameters
    ----------
    problem, method, starts
        As in `causalrisk.estimators.joint.train.train`.
    criteria : sequence of Criterion
        Weights of the terms of the objective, one for each anchor.
    units : HeldOutUnits
        What is left out at once.

    Returns
    -------
    estimate : JointEstimate
        The estimate.
    criterion : JointCriterion
        The criterion chosen, of this sample.
    path : AnchorPath or None
        How it was chosen; None for a single criterion.
    """
    found = [train(problem, joint_criterion(problem, criterion), method, starts) for criterion in criteria]
    path = _choose(found, units) if len(found) > 1 else None
    best = found[0 if path is None else path.chosen]
    return estimate_of_trained(problem, best), best.solution.criterion, path


def _choose(found: Sequence[Trained], units: HeldOutUnits) -> AnchorPath:
    """Compare the variances of the effect from influence functions held out, unit by unit."""
    sample, unit = found[0].solution.sample, found[0].solution.criterion.rms_residual
    squares = np.stack([((held_out(t.solution, units) / (sample.total * unit)) ** 2).sum(axis=1) for t in found])
    converged = np.array([bool(t.result.success) for t in found])
    variances, gain = squares @ units.counts, squares - squares[0]
    gains, n_units = gain @ units.counts, units.counts.sum()
    errors = np.sqrt((gain - gains[:, None] / n_units) ** 2 @ units.counts)
    chosen = int(np.argmin(np.where(converged, gains + CAUTION * errors, np.inf)))
    effects, first = np.array([t.solution.params()[0] for t in found]), variances[0] or np.nan
    return AnchorPath(effects, unit * np.sqrt(variances), variances / first, errors / first, converged, chosen)


def held_out(solution: JointSolution, units: HeldOutUnits) -> Array:
    """Influence function of the effects at the solution without each unit, summed over the unit, shape (G, C).

    Parameters
    ----------
    solution : JointSolution
        The objective at its minimum.
    units : HeldOutUnits
        What is left out at once.

    Returns
    -------
    ndarray, shape (G, C)
        A column a contrast of the objective, whose influence function at known propensity scores has its projection
        on that of the propensity model taken from it: that is what estimating the model does to the variance.

    Notes
    -----
    The solution without a unit is a Newton step away: the unit's part of the influence function of the coefficients,
    divided by one less its leverage. The propensity scores stay.
    """
    sample, arms, criterion = solution.sample, solution.arms, solution.criterion
    n_arms, p = solution.theta.shape
    slopes = [part for _, part in arms.centred_slopes()]
    influence = solution.influence_at_known_scores(solution.moments())
    leverage = np.minimum(units.sums(_leverage(solution, slopes)[:, None]) / sample.total, LARGEST_LEVERAGE)
    step = (units.sums(influence) / sample.total / (1 - leverage))[units.codes].reshape(-1, n_arms, p)
    psi = arms.psi[..., 0] - np.stack([(part * step[:, a]).sum(axis=1) for a, part in enumerate(slopes)])
    contrasts = (criterion.contrasts @ psi).T
    root = np.sqrt(sample.s)[:, None]
    known = np.column_stack([np.ones(sample.n), solution.weight_fit.influence])
    known = known / np.sqrt(np.maximum((known**2).mean(axis=0), np.finfo(float).tiny))
    return units.sums(contrasts - known @ np.linalg.lstsq(root * known, root * contrasts, rcond=None)[0])


def _leverage(solution: JointSolution, slopes: Sequence[Array]) -> Array:
    """Leverage of a row of weight one times the weight of the sample, shape (n,): of its fit and its variance."""
    sample, criterion, q = solution.sample, solution.criterion, solution.q
    expected = sample.family.score(sample.y, sample.own(solution.theta @ q.T))[2]
    root = np.sqrt(criterion.alpha_sigma2 * solution.mean_weight * expected)
    parts = [sample.blocks(root[:, None] * q).reshape(sample.n, -1)]
    if criterion.with_variance:
        parts += [
            np.column_stack([c * part for c, part in zip(contrast, slopes, strict=True)])
            for contrast in criterion.contrasts
        ]
    return sum((solution.whiten(part) for part in parts), np.zeros(sample.n))
