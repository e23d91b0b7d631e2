"""The anchor alpha of the joint objective chosen from the data, by influence functions held out.

Flows in: the solutions under a ladder of anchors, most cautious first. Flows out: for each anchor the variance of the
effect's influence function, the solution for a unit's part being that without the unit; the anchor whose variance is
least after `CAUTION` standard errors of its difference to the first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from causalrisk.estimators.joint.criterion import Criterion, JointCriterion
from causalrisk.estimators.joint.equations import JointRows
from causalrisk.estimators.joint.influence import known_terms
from causalrisk.estimators.joint.left_out import RowParts, steps_without_clusters, steps_without_rows
from causalrisk.estimators.joint.replicate_sums import ReplicateCentres, known_score_sums, weight_products
from causalrisk.estimators.joint.solution import JointSolution, SolutionRows
from causalrisk.estimators.joint.train import JointEstimate, Trainer, joint_criterion
from causalrisk.estimators.sample import Sample
from causalrisk.numerics.blocks import add_up
from causalrisk.numerics.linalg import Array, Triangle
from causalrisk.propensity.replicates import KEPT
from causalrisk.propensity.weights import WeightFit

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

    def part(self, place: slice) -> HeldOutUnits:
        """Return those of some rows, which are units each."""
        if place == slice(0, len(self.weights)):
            return self
        return HeldOutUnits(self.weights[place], self.counts[place], np.arange(place.stop - place.start))


UnitsOf = Callable[[slice, Sample], HeldOutUnits]  # of a block of rows, and where it is


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
    trainer: Trainer, criteria: Sequence[Criterion], units: UnitsOf
) -> tuple[JointEstimate, JointCriterion, AnchorPath | None]:
    """Train the arms under each criterion and keep the best, the first unless another is clearly better.

    Parameters
    ----------
    trainer : Trainer
        Trains the arms.
    criteria : sequence of Criterion
        Weights of the terms of the objective, one for each anchor.
    units : callable
        What is left out at once of a block of rows.

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
    path = _choose(found, trainer, units) if len(found) > 1 else None
    best = found[0 if path is None else path.chosen]
    return trainer.estimate(best), best.criterion, path


@dataclass(frozen=True)
class _SquareSums:
    """Sums over units of the squared influence functions of r solutions, and of their differences to the first's."""

    units: float
    squares: Array
    difference: Array
    squared_difference: Array


def _choose(found: Sequence[JointSolution], trainer: Trainer, units: UnitsOf) -> AnchorPath:
    """Compare the variances of the effect from influence functions held out, unit by unit."""
    spread = found[0].criterion.rms_residual
    sums = _square_sums(found, trainer, units)
    se_difference = np.sqrt(np.maximum(sums.squared_difference - sums.difference**2 / sums.units, 0.0))
    converged = np.array([bool(solution.result.success) for solution in found])
    # another anchor than the first has to be better by CAUTION standard errors of the difference
    judged = np.where(converged, sums.difference + CAUTION * se_difference, np.inf)
    first = sums.squares[0] or np.nan
    return AnchorPath(
        effects=np.array([solution.params()[0] for solution in found]),
        std_errors=spread * np.sqrt(sums.squares),
        ratios=sums.squares / first,
        ratio_errors=se_difference / first,
        converged=converged,
        chosen=int(np.argmin(judged)),
    )


def _square_sums(found: Sequence[JointSolution], trainer: Trainer, units: UnitsOf) -> _SquareSums:
    """Sum over the rows, block by block.

    The influence functions are projected on that of the propensity model: that is what estimating the model does to the
    variance. A pass over the rows determines the projection; the second is spared where the rows are in memory.
    """
    problem, held_out_of = trainer.problem, partial(_held_out_all, found, trainer.centres(*found), units)
    kept: list[Array] | None = [] if problem.in_memory else None
    triangle = add_up(trainer.over(partial(_regression, held_out_of, kept)))
    coefficients = _projection(triangle, 1 + problem.weight_fit.model.n_coefficients, problem.n_units)
    squares = partial(_squares, coefficients, problem.sample.total * found[0].criterion.rms_residual)
    if kept is None:
        return add_up(trainer.over(partial(_squares_anew, squares, held_out_of, units)))
    parts = zip(kept, problem.parts(), strict=True)
    return add_up(squares(sample, fit, psi, units(place, sample)) for psi, (place, sample, fit) in parts)


def _regression(held_out_of: Callable[[JointRows], Array], kept: list[Array] | None, rows: JointRows) -> Triangle:
    """Sum over the rows what determines the projection."""
    psi = held_out_of(rows)
    if kept is not None:
        kept.append(psi)
    columns = np.column_stack([_known(rows.sample, rows.weight_fit), psi.reshape(len(psi), -1)])
    return Triangle(np.sqrt(rows.sample.s)[:, None] * columns)


def _squares_anew(
    squares: Callable[..., _SquareSums], held_out_of: Callable[[JointRows], Array], units: UnitsOf, rows: JointRows
) -> _SquareSums:
    """Sum over the rows, whose influence functions were not kept."""
    return squares(rows.sample, rows.weight_fit, held_out_of(rows), units(rows.place, rows.sample))


def _squares(
    coefficients: Array, unit: float, sample: Sample, fit: WeightFit, psi: Array, units: HeldOutUnits
) -> _SquareSums:
    """Sum over the rows; psi of shape (n, r, C)."""
    projected = psi - (_known(sample, fit) @ coefficients).reshape(psi.shape)
    summed = units.sums(projected.reshape(len(psi), -1) / unit).reshape(-1, *psi.shape[1:])
    squares = (summed**2).sum(axis=2)
    difference, counts = squares - squares[:, :1], units.counts
    return _SquareSums(float(counts.sum()), counts @ squares, counts @ difference, counts @ difference**2)


def _known(sample: Sample, fit: WeightFit) -> Array:
    """Return what influence functions held out are projected on, shape (n, 1 + Q)."""
    return np.column_stack([np.ones(sample.n), fit.influence])


def _projection(every: Triangle, width: int, n: float) -> Array:
    """Least-squares coefficients of the other columns of a triangular factor on its first, `width` ones."""
    left, right = every.factor[:, :width], every.factor[:, width:]
    scale = np.maximum(np.linalg.norm(left, axis=0), np.finfo(float).tiny)
    found = np.linalg.lstsq(left / scale, right, rcond=n * np.finfo(float).eps)[0]
    return np.asarray(found / scale[:, None])


def _held_out_all(
    found: Sequence[JointSolution], centres: Sequence[ReplicateCentres], units: UnitsOf, rows: JointRows
) -> Array:
    """Return `held_out` of each solution, shape (n, r, C); some share a pass over the replicates, as memory allows."""
    own = units(rows.place, rows.sample)
    together = max(KEPT // (8 * rows.sample.n * (found[0].theta.size + 1)), 1)
    psi = []
    for first in range(0, len(found), together):
        some = [SolutionRows(solution, rows) for solution in found[first : first + together]]
        for k, (at, products) in enumerate(zip(some, weight_products(some), strict=True), start=first):
            psi.append(held_out(at, centres[k], own, products))
    return np.stack(psi, axis=1)


def held_out(rows: SolutionRows, centres: ReplicateCentres, units: HeldOutUnits, products: Array) -> Array:
    """Influence function of the effects, of each row at the solution without its unit, shape (n, C).

    Parameters
    ----------
    rows : SolutionRows
        The rows at the minimum of the objective.
    centres : ReplicateCentres
        What centres the equations under each replicate.
    units : HeldOutUnits
        What is left out at once.
    products : ndarray, shape (n, K p + 1)
        `weight_products` of the solution.

    Returns
    -------
    ndarray, shape (n, C)
        A column a contrast of the objective, at the fitted propensity score.

    Notes
    -----
    The propensity scores stay: see `causalrisk.estimators.joint.left_out`.
    """
    sums = known_score_sums(rows, centres, products)
    parts = RowParts.of(rows, sums, known_terms(rows, sums))
    step = _steps(rows, parts, units).reshape(-1, *rows.solution.theta.shape)
    at_fit = rows.fitted_variance
    (part,) = at_fit.parts
    moved = [(at_fit.slopes(part, a) * step[:, a]).sum(axis=1) for a in range(rows.sample.n_arms)]
    return (rows.criterion.contrasts @ (part.psi[..., 0] + np.stack(moved))).T


def _steps(rows: SolutionRows, parts: RowParts, units: HeldOutUnits) -> Array:
    """How theta moves without the unit of each row, shape (n, K p)."""
    shares = units.weights / rows.sample.total
    if len(units.counts) == rows.sample.n:
        return steps_without_rows(rows.solution, parts, shares)
    return steps_without_clusters(rows, parts=parts, shares=shares, codes=units.codes)[units.codes]
