"""The anchor alpha of the joint objective chosen from the data, by influence functions held out.

Flows in: the solutions under a ladder of anchors, most cautious first. Flows out: for each the variance of the effect's
influence function, the solution for a unit's part being that without the unit; the anchor of the fit. The variances are
estimates, so that the least of them may be that of another anchor in another sample. The anchor is the geometric mean
of those whose variance, and `CAUTION` standard errors of its difference to the first, is least when the variances are
drawn from the normal distribution of their errors: a unit that moves them a little moves it a little, and nothing jumps
from one rung of the ladder to the next.
"""

from __future__ import annotations

import dataclasses
import functools
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
DRAWS = 1000  # pairs of opposite draws of the errors of the variances
DIGITS = 3  # significant digits of the anchor, so that it can be typed


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
class Candidate:
    """The solution under one anchor.

    Parameters
    ----------
    anchor : float
        The anchor.
    solution : JointSolution
        The objective at its minimum.
    squares : ndarray, shape (G,)
        Squares of the effect's influence function held out, summed over the contrasts of the objective, of each unit.
    """

    anchor: float
    solution: JointSolution
    squares: Array

    @property
    def converged(self) -> bool:
        """Whether the optimiser converged; else the anchor is not chosen."""
        return bool(self.solution.result.success)


@dataclass(frozen=True)
class AnchorPath:
    """What each anchor would have given.

    Parameters
    ----------
    anchors : ndarray, shape (r,)
        The ladder and, where it stands between two rungs, the anchor chosen; the most cautious first.
    effects : ndarray, shape (r,)
        The (first) effect.
    std_errors : ndarray, shape (r,)
        Standard error of the effect from the influence function held out, in units of the outcome; for several effects
        that of the contrasts of the objective.
    ratios, ratio_errors : ndarray, shape (r,)
        Its square over that of the first anchor, and the standard error of this ratio over the units; NaN where the
        first is zero.
    shares : ndarray, shape (r,)
        Share of the draws in which its variance is the least; NaN between the rungs.
    converged : ndarray of bool, shape (r,)
        Whether the optimiser converged; an anchor where it did not is not chosen.
    chosen : int
        Number of the anchor chosen.
    choice_variance : float
        Factor of the variance of the estimates that allows for the choice.
    """

    anchors: Array
    effects: Array
    std_errors: Array
    ratios: Array
    ratio_errors: Array
    shares: Array
    converged: NDArray[np.bool_]
    chosen: int
    choice_variance: float

    @property
    def anchor(self) -> float:
        """The anchor chosen."""
        return float(self.anchors[self.chosen])


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
    """Train the arms under each anchor of a ladder, choose an anchor, and train them under that.

    Parameters
    ----------
    trainer : Trainer
        Trains the arms.
    criteria : sequence of Criterion
        Weights of the terms of the objective, one for each anchor, the most cautious first; with a single one nothing
        is chosen.
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
    if len(found) == 1:
        return trainer.estimate(found[0]), found[0].criterion, None
    rungs = _candidates([criterion.alpha for criterion in criteria], found, trainer.replicated, units)
    shares = _shares(rungs, units.counts)
    likeliest = rungs[int(shares.argmax())]
    anchor = mean_anchor([rung.anchor for rung in rungs], shares)
    between = []
    if likeliest.converged and anchor not in [rung.anchor for rung in rungs]:
        criterion = dataclasses.replace(criteria[0], alpha=anchor)
        solution = trainer.train(joint_criterion(trainer.problem, criterion), likeliest.solution)
        between = _candidates([anchor], [solution], trainer.replicated, units)
    best = next((one for one in (*rungs, *between) if one.anchor == anchor and one.converged), likeliest)
    path = _path([*rungs, *between], np.r_[shares, np.full(len(between), np.nan)], best, units.counts)
    return trainer.estimate(best.solution), best.solution.criterion, path


def _candidates(
    anchors: Sequence[float], found: Sequence[JointSolution], replicated: BlockwiseWeights, units: HeldOutUnits
) -> list[Candidate]:
    """Return the solutions with the squares of their influence functions held out."""
    unit = found[0].sample.total * found[0].criterion.rms_residual
    influence = _held_out_all(found, replicated, units)
    squares = [((values / unit) ** 2).sum(axis=1) for values in influence]
    return [Candidate(*candidate) for candidate in zip(anchors, found, squares, strict=True)]


def _shares(rungs: Sequence[Candidate], counts: Array) -> Array:
    """Share of the draws in which the variance of each rung is the least, shape (r,)."""
    usable = np.array([rung.converged and bool(np.isfinite(rung.squares).all()) for rung in rungs])
    shares = np.zeros(len(rungs))
    if not usable.any():
        shares[0] = 1.0
        return shares
    squares = np.stack([rung.squares for rung, used in zip(rungs, usable, strict=True) if used])
    differences = squares - squares[0]  # what they have in common decides nothing
    covariance = _covariance(differences, counts)
    cautious = differences @ counts + CAUTION * np.sqrt(np.diag(covariance))
    shares[usable] = shares_of_least(cautious, covariance)
    return shares


def shares_of_least(means: Array, covariance: Array) -> Array:
    """Share of draws from a normal distribution in which each component is the least.

    Parameters
    ----------
    means : ndarray, shape (r,)
        Means of the components.
    covariance : ndarray, shape (r, r)
        Their covariance matrix.

    Returns
    -------
    ndarray, shape (r,)
        Shares, of draws that are the same each time and symmetric about the means; the first of equal components
        counts as the least.

    Examples
    --------
    >>> import numpy as np
    >>> shares_of_least(np.zeros(2), np.eye(2))
    array([0.5, 0.5])
    """
    values, vectors = np.linalg.eigh(covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T  # the symmetric one, which no sign changes
    least = (means[:, None] + root @ _draws(len(means))).argmin(axis=0)
    return np.bincount(least, minlength=len(means)) / len(least)


@functools.cache
def _draws(size: int) -> Array:
    drawn = np.random.default_rng(0).standard_normal((size, DRAWS))
    return np.hstack([drawn, -drawn])


def mean_anchor(anchors: Sequence[float], shares: Array) -> float:
    """Geometric mean of anchors with their shares as weights, to `DIGITS` significant digits."""
    return float(f"{np.exp(shares @ np.log(anchors)):.{DIGITS}g}")


def _covariance(rows: Array, counts: Array) -> Array:
    """Covariance, shape (r, r), of sums over units of what each unit has in them, shape (r, G)."""
    centred = rows - (rows @ counts / counts.sum())[:, None]
    return (counts * centred) @ centred.T


def _path(found: Sequence[Candidate], shares: Array, best: Candidate, counts: Array) -> AnchorPath:
    """Describe the candidates, the first of which is the most cautious rung."""
    squares = np.stack([candidate.squares for candidate in found])
    variances = squares @ counts
    first = variances[0] or np.nan
    errors = np.sqrt(np.diag(_covariance(squares - squares[0], counts)))
    own = np.sqrt(np.diag(_covariance(squares, counts)))
    order = np.argsort([-candidate.anchor for candidate in found], kind="stable")
    chosen = next(number for number, candidate in enumerate(found) if candidate is best)
    allowed = min(errors[chosen], own[chosen]) / variances[chosen] if variances[chosen] > 0 else 0.0
    return AnchorPath(
        anchors=np.array([candidate.anchor for candidate in found])[order],
        effects=np.array([candidate.solution.params()[0] for candidate in found])[order],
        std_errors=found[0].solution.criterion.rms_residual * np.sqrt(variances)[order],
        ratios=(variances / first)[order],
        ratio_errors=(errors / first)[order],
        shares=shares[order],
        converged=np.array([candidate.converged for candidate in found])[order],
        chosen=int(np.flatnonzero(order == chosen)[0]),
        choice_variance=float(1.0 + allowed),
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
