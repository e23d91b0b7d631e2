"""The anchor alpha of the joint objective chosen from the data, by influence functions held out.

Flows in: the solutions under a ladder of anchors, most cautious first. Flows out: for each the variance of the effect's
influence function, the solution for a unit's part being that without the unit; the anchor of the fit. The variances are
estimates, so that the least of them may be that of another anchor in another sample. The anchor is the geometric mean
of those whose variance, and `CAUTION` standard errors of its difference to the first, is least when the variances are
drawn from the normal distribution of their errors: a unit that moves them a little moves it a little, and nothing jumps
from one rung of the ladder to the next.

These variances take theta as known, which is right to first order if the propensity model is. If it is not, errors of
theta count too, and the robust variance has them: where that of the effect is above the start's by more than
`EXCESS_VARIANCE`, about a standard error of such a variance, the anchor is raised until it is not, at most to one under
which the fit is nearly the start.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from causalrisk.design.support import cluster_bytes
from causalrisk.estimators.joint.equations import JointRows, JointSolution, RowsAtSolution
from causalrisk.estimators.joint.influence import ReplicateCentres, known_score_sums, known_terms, weight_products
from causalrisk.estimators.joint.leave_one_out import (
    RowParts,
    cluster_numbers,
    cluster_sums,
    dots,
    steps_of_sums,
    steps_without_clusters,
    steps_without_rows,
    variance_slopes,
)
from causalrisk.estimators.joint.objective import Criterion, JointCriterion
from causalrisk.estimators.joint.start import ByCluster, HeldOutUnits, UnitsOf, added
from causalrisk.estimators.joint.train import JointEstimate, JointProblem, Trainer, joint_criterion
from causalrisk.estimators.sample import Sample
from causalrisk.numerics.blocks import KEPT, add_up
from causalrisk.numerics.linalg import Array, Triangle, symmetric_root
from causalrisk.propensity.weights import WeightFit

LADDER = (30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03)  # the anchors to choose from, most cautious first
CAUTION = 0.5  # standard errors by which an anchor has to be better than the first
DRAWS = 1000  # pairs of opposite draws of the errors of the variances
AT_ONCE_BYTES = 2**28  # bytes of sums within clusters that are gathered in a pass
DIGITS = 3  # significant digits of the anchor, so that it can be typed
BEYOND = (300.0, 3000.0)  # anchors to raise it to where even the first of the ladder is not cautious enough
EXCESS_VARIANCE = 2.0  # over the root of the number of units: how far above the start's the robust variance may be


@dataclass(frozen=True)
class SquareSums:
    """Sums over units of the squares of the influence functions held out of r solutions.

    The squares are of the effect, summed over the contrasts of the objective, of each unit.

    Parameters
    ----------
    units : float
        Number of units.
    squares, fourth_powers : ndarray, shape (r,)
        Of the squares, and of their squares.
    differences : ndarray, shape (r,)
        Of the squares' differences to those of the first.
    products : ndarray, shape (r, r)
        Of the products of these differences.
    """

    units: float
    squares: Array
    fourth_powers: Array
    differences: Array
    products: Array

    @classmethod
    def of(cls, summed: Array, counts: Array) -> SquareSums:
        """Return those of influence functions summed within units, shape (G, r, C); counts as in `HeldOutUnits`."""
        squares = (summed**2).sum(axis=2)
        differences = squares - squares[:, :1]
        return cls(
            units=float(counts.sum()),
            squares=counts @ squares,
            fourth_powers=counts @ squares**2,
            differences=counts @ differences,
            products=(counts[:, None] * differences).T @ differences,
        )

    def of_all(self, problem: JointProblem) -> SquareSums:
        """Return the sums over all rows, where those of a problem are some; their errors stay those of the part."""
        if problem.every is None:
            return self
        k = problem.n_units / self.units
        return SquareSums(
            self.units, k * self.squares, k**2 * self.fourth_powers, k * self.differences, k**2 * self.products
        )

    @property
    def covariance(self) -> Array:
        """Covariance of the differences, shape (r, r)."""
        return self.products - np.outer(self.differences, self.differences) / self.units

    @property
    def errors(self) -> Array:
        """Standard errors of the differences, shape (r,)."""
        return np.sqrt(np.maximum(np.diag(self.covariance), 0.0))

    @property
    def spread(self) -> Array:
        """The squares, standard errors of their differences to those of the first, and of themselves, shape (3, r)."""
        own = np.sqrt(np.maximum(self.fourth_powers - self.squares**2 / self.units, 0.0))
        return np.stack([self.squares, self.errors, own])

    def some(self, which: NDArray[np.bool_]) -> SquareSums:
        """Return those of some of the solutions, whose differences are to the first of these."""
        lead = int(np.flatnonzero(which)[0])
        products = self.products - self.products[lead] - self.products[:, [lead]] + self.products[lead, lead]
        return SquareSums(
            units=self.units,
            squares=self.squares[which],
            fourth_powers=self.fourth_powers[which],
            differences=(self.differences - self.differences[lead])[which],
            products=products[np.ix_(which, which)],
        )


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
    robust_errors : ndarray, shape (r,)
        Robust standard error of the same; NaN where it was not needed.
    ratios, ratio_errors : ndarray, shape (r,)
        Its square over that of the first anchor, and the standard error of this ratio over the units; NaN where the
        first is zero.
    shares : ndarray, shape (r,)
        Share of the draws in which its variance is the least; NaN between the rungs.
    converged : ndarray of bool, shape (r,)
        Whether the optimiser converged; an anchor where it did not is not chosen.
    held_out, chosen : int
        Number of the anchor that the units held out choose, and of the anchor of the fit, which may be raised.
    choice_variance : float
        Factor of the variance of the estimates that allows for the choice.
    """

    anchors: Array
    effects: Array
    std_errors: Array
    robust_errors: Array
    ratios: Array
    ratio_errors: Array
    shares: Array
    converged: NDArray[np.bool_]
    held_out: int
    chosen: int
    choice_variance: float

    @property
    def anchor(self) -> float:
        """The anchor of the fit."""
        return float(self.anchors[self.chosen])

    @property
    def raised_from(self) -> float | None:
        """The anchor that the units held out choose, where that of the fit is another."""
        return None if self.held_out == self.chosen else float(self.anchors[self.held_out])


def train_best(
    trainer: Trainer, criteria: Sequence[Criterion]
) -> tuple[JointEstimate, JointCriterion, AnchorPath | None]:
    """Train the arms under each anchor of a ladder, choose an anchor, and train them under that.

    Parameters
    ----------
    trainer : Trainer
        Trains the arms.
    criteria : sequence of Criterion
        Weights of the terms of the objective, one for each anchor, the most cautious first; with a single one nothing
        is chosen.

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
    sums, of_first = square_sums(found, trainer)
    anchors, shares = [criterion.alpha for criterion in criteria], _shares(found, sums)
    climb = Climb(trainer, criteria[0], dict(zip(anchors, found, strict=True)))
    likeliest, anchor = int(shares.argmax()), mean_anchor(anchors, shares)
    if not (found[likeliest].result.success and climb.solution(anchor, near=anchors[likeliest]).result.success):
        anchor = anchors[likeliest]
    estimate, best = climb.to_start(anchor)
    spread, between = sums.spread, [one for one in climb.solutions if one not in anchors]
    if between:
        others = [found[0], *(climb.solutions[one] for one in between)]
        spread = np.hstack([spread, square_sums(others, trainer, of_first)[0].spread[:, 1:]])
    part = sums.units / problem.n_units if (problem := trainer.problem).thinned.every else 1.0
    shares = np.r_[shares, np.full(len(between), np.nan)]
    path = _path(climb.solutions, spread, shares, climb.variances, (anchor, best), part)
    return estimate, climb.solutions[best].criterion, path


class Climb:
    """From an anchor to one under which the robust variance of the effect is about that of the start, or less.

    Parameters
    ----------
    trainer : Trainer
        Trains the arms.
    criterion : Criterion
        Weights of the terms of the objective, under any anchor.
    solutions : dict of float to JointSolution
        The solutions so far, by anchor; more are added.

    Attributes
    ----------
    variances : dict of float to float
        The robust variances that were needed, by anchor.
    """

    def __init__(self, trainer: Trainer, criterion: Criterion, solutions: dict[float, JointSolution]) -> None:
        self.trainer, self.criterion, self.solutions = trainer, criterion, solutions
        self.variances: dict[float, float] = {}

    def solution(self, anchor: float, near: float) -> JointSolution:
        """Return the solution under an anchor, trained from that under another if there is none yet."""
        if anchor not in self.solutions:
            criterion = joint_criterion(self.trainer.problem, dataclasses.replace(self.criterion, alpha=anchor))
            self.solutions[anchor] = self.trainer.train(criterion, self.solutions[near])
        return self.solutions[anchor]

    def to_start(self, anchor: float) -> tuple[JointEstimate, float]:
        """Climb from an anchor to the first rung with no excess of variance, and back to where it ends.

        Between an anchor and the rung above the excess is taken as linear in log alpha.

        Returns
        -------
        estimate : JointEstimate
            The estimate under the anchor reached.
        anchor : float
            That anchor.
        """
        estimate, excess = self._tried(anchor)
        for rung in sorted(one for one in {*self.solutions, *BEYOND} if one > anchor):
            if not excess > 0:
                break
            if not self.solution(rung, near=anchor).result.success:
                continue
            above, left = self._tried(rung)
            if left < 0:
                share = excess / (excess - left)
                root = mean_anchor((anchor, rung), np.array([1 - share, share]))
                if self.solution(root, near=rung).result.success:
                    rung, above = root, self._tried(root)[0]
            anchor, estimate, excess = rung, above, max(left, 0.0)
        return estimate, anchor

    def _tried(self, anchor: float) -> tuple[JointEstimate, float]:
        """Return the estimate under an anchor, and how far its variance is above what it may be."""
        problem, estimate = self.trainer.problem, self.trainer.estimate(self.solutions[anchor])
        covariance = problem.covariance(estimate.estimate.rows)
        self.variances[anchor] = problem.effect_variance(covariance)
        allowed = 1 + EXCESS_VARIANCE / np.sqrt(problem.clusters or problem.n_units)
        excess = self.variances[anchor] - allowed * problem.start_robust_variance
        return dataclasses.replace(estimate, covariance=covariance), excess


def _shares(rungs: Sequence[JointSolution], sums: SquareSums) -> Array:
    """Share of the draws in which the variance of each rung is the least, shape (r,); zero of one not converged."""
    usable = np.array([bool(rung.result.success) for rung in rungs]) & np.isfinite(sums.squares)
    shares = np.zeros(len(rungs))
    if not usable.any():
        shares[0] = 1.0
        return shares
    some = sums.some(usable)  # what they have in common decides nothing
    shares[usable] = shares_of_least(some.differences + CAUTION * some.errors, some.covariance)
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
    least = (means[:, None] + symmetric_root(covariance) @ _draws(len(means))).argmin(axis=0)
    return np.bincount(least, minlength=len(means)) / len(least)


@cache
def _draws(size: int) -> Array:
    drawn = np.random.default_rng(0).standard_normal((size, DRAWS))
    return np.hstack([drawn, -drawn])


def mean_anchor(anchors: Sequence[float], shares: Array) -> float:
    """Geometric mean of anchors with their shares as weights, to `DIGITS` significant digits."""
    return float(f"{np.exp(shares @ np.log(anchors)):.{DIGITS}g}")


def _path(
    found: dict[float, JointSolution],
    spread: Array,
    shares: Array,
    robust: dict[float, float],
    anchors: tuple[float, float],
    part: float,
) -> AnchorPath:
    """Describe the solutions by anchor, the first of which is the most cautious rung; anchors held out, and of the fit.

    They were held out in a part of the rows. What the choice leads one to believe of the variance of all is less.
    """
    every, solutions, (variances, errors, own) = [*found], [*found.values()], spread
    first, order = variances[0] or np.nan, np.argsort(-np.array(every), kind="stable")
    held_out, chosen = (every.index(anchor) for anchor in anchors)
    least = variances[chosen] > 0 and every[chosen] < every[0]  # where raised beyond the first it is not by luck
    allowed = np.sqrt(part) * min(errors[chosen], own[chosen]) / variances[chosen] if least else 0.0
    return AnchorPath(
        anchors=np.array(every)[order],
        effects=np.array([solution.params()[0] for solution in solutions])[order],
        std_errors=solutions[0].criterion.rms_residual * np.sqrt(variances)[order],
        robust_errors=np.sqrt([robust.get(anchor, np.nan) for anchor in every])[order],
        ratios=(variances / first)[order],
        ratio_errors=(errors / first)[order],
        shares=shares[order],
        converged=np.array([bool(solution.result.success) for solution in solutions])[order],
        held_out=int(np.flatnonzero(order == held_out)[0]),
        chosen=int(np.flatnonzero(order == chosen)[0]),
        choice_variance=float(1.0 + allowed),
    )


def square_sums(
    found: Sequence[JointSolution], trainer: Trainer, of_first: dict[int, Array] | None = None
) -> tuple[SquareSums, dict[int, Array] | None]:
    """Sum over the rows, block by block.

    The influence functions are projected on that of the propensity model: that is what estimating the model does to the
    variance. A pass over the rows determines the projection; the second is spared where the rows are in memory.

    Parameters
    ----------
    found : sequence of JointSolution
        The solutions.
    trainer : Trainer
        What trained them.
    of_first : dict of ndarray, shape (n, 1, C), optional
        The influence function of the first, of each block by where it begins.

    Returns
    -------
    sums : SquareSums
        The sums.
    of_first : dict of ndarray, or None
        As the parameter; None where the rows are not in memory.
    """
    problem, new = trainer.problem.thinned, found if of_first is None else found[1:]
    over = trainer.over if problem is trainer.problem else problem.over
    units = problem.units
    centres = trainer.centres(*new)
    steps = _cluster_steps(new, centres, units, trainer) if problem.clusters and problem.in_blocks else None
    held_out_of = partial(_held_out_all, new, centres, units, of_first, steps)
    kept: dict[int, Array] | None = {} if problem.in_memory else None
    triangle = add_up(over(partial(_regression, held_out_of, kept)))
    coefficients = _projection(triangle, 1 + problem.weight_fit.model.n_coefficients, problem.n_units)
    summed = partial(_summed, coefficients, problem.sample.total * found[0].criterion.rms_residual)
    if steps is not None:
        of_block = partial(_summed_by_cluster, summed, held_out_of, units)
        every = added(problem.by_block(of_block, added), np.arange(problem.clusters)).sums[0]
        return SquareSums.of(every, np.ones(len(every))), None
    if kept is None:
        return add_up(over(partial(_squares_anew, summed, held_out_of, units))).of_all(problem), None
    own = ((sample, fit, kept[place.start], units(place, sample)) for place, sample, fit in problem.parts())
    sums = add_up(SquareSums.of(summed(*given), given[-1].counts) for given in own).of_all(problem)
    return sums, {start: kept.pop(start)[:, :1].copy() for start in [*kept]}


def _cluster_steps(
    found: Sequence[JointSolution], centres: Sequence[ReplicateCentres], units: UnitsOf, trainer: Trainer
) -> list[Array]:
    """Find the steps of each solution without each cluster, (K p, G), from rows in several blocks; a pass or more."""
    problem, steps = trainer.problem, list[Array]()
    numbers = cluster_numbers(found[0].theta.shape, found[0].count)
    width = max(int(AT_ONCE_BYTES // cluster_bytes(problem.clusters, numbers)), 1)
    for first in range(0, len(found), width):
        some = slice(first, first + width)
        sums_of = partial(_cluster_sums, found[some], centres[some], units)
        every = added(problem.by_block(sums_of, added), np.arange(problem.clusters)).sums
        of_each = len(every) // len(found[some])
        for k, solution in enumerate(found[some]):
            steps.append(steps_of_sums(solution, every[k * of_each : (k + 1) * of_each]))
    return steps


def _cluster_sums(
    found: Sequence[JointSolution], centres: Sequence[ReplicateCentres], units: UnitsOf, rows: JointRows
) -> ByCluster:
    """Return the `cluster_sums` of each solution, one after the other."""
    own, sums = units(rows.place, rows.sample), list[Array]()
    shares = own.weights / rows.sample.total
    for (at, products), centre in zip(_with_products(found, rows), centres, strict=True):
        sums += cluster_sums(at, _parts(at, centre, products, own), shares, own.codes)
    return ByCluster(own.cluster_numbers, tuple(sums))


def _regression(held_out_of: Callable[[JointRows], Array], kept: dict[int, Array] | None, rows: JointRows) -> Triangle:
    """Sum over the rows what determines the projection."""
    psi = held_out_of(rows)
    if kept is not None:
        kept[rows.place.start] = psi
    columns = np.column_stack([_known(rows.sample, rows.weight_fit), psi.reshape(len(psi), -1)])
    return Triangle(np.sqrt(rows.sample.s)[:, None] * columns)


def _squares_anew(
    summed: Callable[..., Array], held_out_of: Callable[[JointRows], Array], units: UnitsOf, rows: JointRows
) -> SquareSums:
    """Sum over the rows, whose influence functions were not kept."""
    own = units(rows.place, rows.sample)
    return SquareSums.of(summed(rows.sample, rows.weight_fit, held_out_of(rows), own), own.counts)


def _summed_by_cluster(
    summed: Callable[..., Array], held_out_of: Callable[[JointRows], Array], units: UnitsOf, rows: JointRows
) -> ByCluster:
    """Sum within the clusters of rows, others of which are elsewhere."""
    own = units(rows.place, rows.sample)
    return ByCluster(own.cluster_numbers, (summed(rows.sample, rows.weight_fit, held_out_of(rows), own),))


def _summed(coefficients: Array, unit: float, sample: Sample, fit: WeightFit, psi: Array, units: HeldOutUnits) -> Array:
    """Sum projected influence functions, psi of shape (n, r, C), within units, shape (G, r, C)."""
    projected = psi - (_known(sample, fit) @ coefficients).reshape(psi.shape)
    return units.sums(projected.reshape(len(psi), -1) / unit).reshape(-1, *psi.shape[1:])


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
    found: Sequence[JointSolution],
    centres: Sequence[ReplicateCentres],
    units: UnitsOf,
    of_first: dict[int, Array] | None,
    steps: Sequence[Array] | None,
    rows: JointRows,
) -> Array:
    """Return `held_out` of each solution, shape (n, r, C), which may know its steps without each cluster.

    That of a first one, which is known, is put before them.
    """
    own = units(rows.place, rows.sample)
    psi = [] if of_first is None else [of_first[rows.place.start][:, 0]]
    if steps is None:
        for (at, products), centre in zip(_with_products(found, rows), centres, strict=True):
            psi.append(held_out(at, centre, own, products))
    else:
        of_rows = own.cluster_numbers[own.codes]
        psi += [_moved(RowsAtSolution(at, rows), step[:, of_rows]) for at, step in zip(found, steps, strict=True)]
    return np.stack(psi, axis=1)


def _with_products(found: Sequence[JointSolution], rows: JointRows) -> Iterator[tuple[RowsAtSolution, Array]]:
    """Yield rows under each solution with their `weight_products`; some share a pass over the replicates."""
    together = max(KEPT // (8 * rows.sample.n * (found[0].theta.size + 1)), 1)
    for first in range(0, len(found), together):
        some = found[first : first + together]
        for solution, products in zip(some, weight_products(some, rows), strict=True):
            yield RowsAtSolution(solution, rows), products


def held_out(rows: RowsAtSolution, centres: ReplicateCentres, units: HeldOutUnits, products: Array) -> Array:
    """Influence function of the effects, of each row at the solution without its unit, shape (n, C).

    Parameters
    ----------
    rows : RowsAtSolution
        The rows at the minimum of the objective.
    centres : ReplicateCentres
        What centres the equations under each replicate.
    units : HeldOutUnits
        What is left out at once.
    products : ndarray, shape (K p + 1, n)
        `weight_products` of the solution.

    Returns
    -------
    ndarray, shape (n, C)
        A column a contrast of the objective, at the fitted propensity score.

    Notes
    -----
    The propensity scores stay: see `causalrisk.estimators.joint.leave_one_out`.
    """
    return _moved(rows, _steps(rows, _parts(rows, centres, products, units), units))


def _parts(rows: RowsAtSolution, centres: ReplicateCentres, products: Array, units: HeldOutUnits) -> RowParts:
    sums = known_score_sums(rows, centres, products)
    return RowParts.of(rows, sums, known_terms(rows, sums), units)


def _moved(rows: RowsAtSolution, step: Array) -> Array:
    """Influence function of the effects, shape (n, C), at theta moved by R times a step of each row, (K p, n)."""
    at_fit, contrasts = rows.fitted_variance, rows.criterion.contrasts
    (part,), whitener = at_fit.parts, rows.solution.hessian.whitener
    moved = [dots(whitener @ of.written(rows.columns), step) for of in variance_slopes(at_fit, contrasts)]
    return (contrasts @ part.psi[..., 0] + np.stack(moved)).T


def _steps(rows: RowsAtSolution, parts: RowParts, units: HeldOutUnits) -> Array:
    """How theta moves without the unit of each row: R times the steps, shape (K p, n)."""
    shares = units.weights / rows.sample.total
    if len(units.counts) == rows.sample.n:
        return steps_without_rows(rows.solution, parts, shares)
    return steps_without_clusters(rows, parts=parts, shares=shares, codes=units.codes)[:, units.codes]
