"""The anchor alpha of the joint objective chosen from the data, by influence functions held out.

Flows in: the solutions under a ladder of anchors, most cautious first. Flows out: for each anchor the variance of the
effect's influence function, the solution for a unit's part being that without the unit; the anchor whose variance is
least after `CAUTION` standard errors of its difference to the first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causalrisk.estimators.joint.criterion import Criterion, JointCriterion
from causalrisk.estimators.joint.influence import known_terms
from causalrisk.estimators.joint.left_out import RowParts, steps_without_clusters, steps_without_rows
from causalrisk.estimators.joint.replicate_sums import known_score_sums, weight_products
from causalrisk.estimators.joint.solution import JointSolution
from causalrisk.estimators.joint.train import JointEstimate, Trainer, joint_criterion
from causalrisk.estimators.sample import Sample
from causalrisk.numerics.linalg import Array
from causalrisk.propensity.replicates import KEPT, BlockwiseWeights, WeightMoments

LADDER = (30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03)  # the anchors to choose from, most cautious first
CAUTION = 0.5  # standard errors by which an anchor has to be better than the first


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

    @property
    def choice_variance(self) -> float:
        """Factor of the variance of the estimates that allows for the choice.

        The variance chosen is the least of several estimates, so it is too small on average: it is taken to be one
        standard error of its difference to the first anchor's larger. One where the first anchor was chosen.
        """
        ratio, error = self.ratios[self.chosen], self.ratio_errors[self.chosen]
        return float((ratio + error) / ratio) if ratio > 0 else 1.0


def units_of(sample: Sample, clusters: NDArray[np.intp] | None, frequency: bool) -> HeldOutUnits:
    """Return what is left out at once; clusters as codes of the rows of the sample."""
    ones = np.ones(sample.n)
    if clusters is not None:
        return HeldOutUnits(sample.s, np.ones(int(clusters.max()) + 1), clusters)
    rows = np.arange(sample.n)
    return HeldOutUnits(ones, sample.s, rows) if frequency else HeldOutUnits(sample.s, ones, rows)


def train_best(
    trainer: Trainer, criteria: Sequence[Criterion], units: HeldOutUnits
) -> tuple[JointEstimate, JointCriterion, AnchorPath | None]:
    """Train the arms under each criterion and keep the best, the first unless another is clearly better.

    Parameters
    ----------
    trainer : Trainer
        Trains the arms.
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
    found: list[JointSolution] = []
    for criterion in criteria:  # each from the one before, whose minimum is near
        reached = [solution for solution in found if solution.result.success]
        found.append(trainer.train(joint_criterion(trainer.problem, criterion), *reached[-1:]))
    path = _choose(found, trainer.replicated, units) if len(found) > 1 else None
    best = found[0 if path is None else path.chosen]
    return trainer.estimate(best), best.criterion, path


def _choose(found: Sequence[JointSolution], replicated: BlockwiseWeights, units: HeldOutUnits) -> AnchorPath:
    """Compare the variances of the effect from influence functions held out, unit by unit."""
    sample, spread = found[0].sample, found[0].criterion.rms_residual
    n_units = units.counts.sum()
    influence = [values / (sample.total * spread) for values in _held_out_all(found, replicated, units)]
    squares = np.stack([(values**2).sum(axis=1) for values in influence])
    variances = squares @ units.counts
    difference = squares - squares[0]
    total_difference = difference @ units.counts
    centred = difference - total_difference[:, None] / n_units
    se_difference = np.sqrt(centred**2 @ units.counts)
    converged = np.array([bool(solution.result.success) for solution in found])
    # another anchor than the first has to be better by CAUTION standard errors of the difference
    judged = np.where(converged, total_difference + CAUTION * se_difference, np.inf)
    first = variances[0] or np.nan
    return AnchorPath(
        effects=np.array([solution.params()[0] for solution in found]),
        std_errors=spread * np.sqrt(variances),
        ratios=variances / first,
        ratio_errors=se_difference / first,
        converged=converged,
        chosen=int(np.argmin(judged)),
    )


def _held_out_all(found: Sequence[JointSolution], replicated: BlockwiseWeights, units: HeldOutUnits) -> Iterator[Array]:
    """Yield `held_out` of each solution; as many as memory allows share a pass over the replicates."""
    together = max(KEPT // (8 * found[0].sample.n * (found[0].theta.size + 1)), 1)
    for first in range(0, len(found), together):
        some = found[first : first + together]
        for solution, products in zip(some, weight_products(some, replicated), strict=True):
            yield held_out(solution, replicated, units, products)


def held_out(
    solution: JointSolution, replicated: BlockwiseWeights, units: HeldOutUnits, products: Array | None = None
) -> Array:
    """Influence function of the effects at the solution without each unit, summed over the unit, shape (G, C).

    Parameters
    ----------
    solution : JointSolution
        The objective at its minimum.
    replicated : BlockwiseWeights
        Importance weights of the full sample under its replicates.
    units : HeldOutUnits
        What is left out at once.
    products : ndarray, shape (n, K p + 1), optional
        `weight_products` of the solution.

    Returns
    -------
    ndarray, shape (G, C)
        A column a contrast of the objective, whose influence function at the fitted propensity score has its projection
        on that of the propensity model taken from it: that is what estimating the model does to the variance.

    Notes
    -----
    The propensity scores stay: see `causalrisk.estimators.joint.left_out`.
    """
    sample, contrasts = solution.sample, solution.criterion.contrasts
    n_arms, p = solution.theta.shape
    fitted = WeightMoments.single(solution.weight_fit.as_resample())
    at_fit = solution.objective.variance(solution.means, solution.resampled.share, fitted)
    sums = known_score_sums(solution, replicated, products)
    parts = RowParts.of(solution, sums, known_terms(solution, sums))
    step = _steps(solution, parts, replicated, units).reshape(-1, n_arms, p)
    (part,) = at_fit.parts
    moved = [(at_fit.slopes(part, a) * step[:, a]).sum(axis=1) for a in range(n_arms)]
    psi = (contrasts @ (part.psi[..., 0] + np.stack(moved))).T
    root = np.sqrt(sample.s)[:, None]
    known = np.column_stack([np.ones(sample.n), solution.weight_fit.influence])
    known = known / np.sqrt(np.maximum((known**2).mean(axis=0), np.finfo(float).tiny))
    return units.sums(psi - known @ np.linalg.lstsq(root * known, root * psi, rcond=None)[0])


def _steps(solution: JointSolution, parts: RowParts, replicated: BlockwiseWeights, units: HeldOutUnits) -> Array:
    """How theta moves without the unit of each row, shape (n, K p)."""
    shares = units.weights / solution.sample.total
    if len(units.counts) == solution.sample.n:
        return steps_without_rows(solution, parts, shares)
    return steps_without_clusters(solution, parts=parts, replicated=replicated, shares=shares, codes=units.codes)[
        units.codes
    ]
