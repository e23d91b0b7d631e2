"""A Newton step from the solution of all rows to the one without a row, or without a cluster.

The propensity scores stay. Without unit i the gradient of the objective is minus its part xi_i, and the Hessian loses
the squares of the unit's equations: within a row those are few, so that the Hessian changes by U' change U with U the
row's column, its pull by the net biases and its slopes of psi (page "Derivations", "Without one unit"). All is in
coordinates where the Hessian is `inner`, R times theta.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causalrisk.estimators.joint.equations import JointSolution, RowsAtSolution
from causalrisk.estimators.joint.influence import KnownScoreSums, with_fitted
from causalrisk.estimators.joint.objective import contrasted
from causalrisk.estimators.joint.start import HeldOutUnits
from causalrisk.estimators.joint.variance import EffectVariance, RowVectors, own_terms
from causalrisk.numerics.linalg import UNDER_RESAMPLES, Array, row_blocks, solve_each

SINGULAR = 1e-12  # determinant below which a row's directions leave nothing to solve


@dataclass(frozen=True)
class RowParts:
    """What each row has in gradient and Hessian, in coordinates where the Hessian is `inner`.

    Parameters
    ----------
    column : ndarray, shape (K p, n)
        The row's outcome column, in the place of its arm.
    deriv : ndarray, shape (n,)
        Its m'.
    fit : ndarray, shape (n,)
        Weight of the column's square in the losses and the part `own_sd` of V.
    pull : ndarray, shape (K p, n)
        sum_b lambda_b w_ib times the slope of the contrast of its arm.
    slopes : list of ndarray, shape (K p, n)
        Derivatives of the contrasts of psi, for each part of the moments.
    gradient : ndarray, shape (K p, n)
        Its part in the gradient.
    squares : ndarray, shape (n,)
        sum_b lambda_b w_ib^2 times the squared contrasts of its arm.
    error : ndarray, shape (n,)
        m - y.
    """

    column: Array
    deriv: Array
    fit: Array
    pull: Array
    slopes: list[Array]
    gradient: Array
    squares: Array
    error: Array

    @classmethod
    def of(
        cls, rows: RowsAtSolution, sums: KnownScoreSums, terms: tuple[RowVectors, RowVectors], units: HeldOutUnits
    ) -> RowParts:
        """Return the parts of rows at a solution; `terms` are those of its gradient, plain and whitened."""
        sample, criterion, variance = rows.sample, rows.criterion, rows.variance
        columns, whitener = rows.columns, rows.solution.hessian.whitener
        fit, slopes = rows.loss_w * rows.expected, []
        if criterion.full_risk:
            own_deriv = rows.own_deriv[:, None]
            fit = fit + own_terms(sample, variance.D, variance.moments, own_deriv, variance.residual)[0][:, 0]
            slopes = [whitener @ of.written(columns) for of in variance_slopes(variance, criterion.contrasts)]
        moments = rows.resampled.moments
        mean_square = sum((part.w[:, 0] ** 2 for part in moments.parts), moments.own_sd[:, 0] ** 2)
        squares = criterion.fitted_penalty * rows.weight_fit.w**2 + criterion.penalty * mean_square
        own = RowVectors.of_columns(sample.indicators.T, len(columns))
        plain, whitened = (of.written(columns) for of in terms)
        gradient = whitener @ plain + whitened
        if criterion.real_share:  # the start moves too
            moved = rows.data.start_steps
            gradient += whitener @ rows.solution.by_start @ moved.T
            if units.numbers is None:  # and the row is no part of how the gradient moves with it
                tau = criterion.contrasts @ rows.start_moved(moved)
                tilts = [part.weights.tilt[:, 0] for part in variance.parts]
                alone = sum(s * t for s, t in zip(slopes, (tilt * of for tilt in tilts for of in tau), strict=True))
                gradient += criterion.real_share * units.weights / sample.total * alone
        return cls(
            column=whitener @ own.written(columns),
            deriv=rows.own_deriv,
            fit=fit,
            pull=sums.w_times_slope,
            slopes=slopes,
            gradient=gradient,
            squares=squares * variance.D[sample.arm, sample.arm],
            error=rows.error,
        )


def steps_without_rows(solution: JointSolution, parts: RowParts, shares: Array) -> Array:
    """How theta moves without each row of a share, shape (n,): R times the steps, (K p, n)."""
    inverse = None if solution.hessian.plain else np.linalg.inv(solution.hessian.inner)

    def solved(vectors: Array) -> Array:
        return vectors if inverse is None else inverse @ vectors

    directions = [parts.column, parts.pull, *parts.slopes]
    moved, size = [solved(vectors) for vectors in directions], len(directions)
    products = np.empty((size, size, len(shares)))
    for i in range(size):
        for k in range(i + 1):
            products[i, k] = products[k, i] = dots(moved[i], directions[k])
    right = shares * parts.gradient
    right -= shares**2 * parts.squares * parts.error * parts.deriv * parts.column
    own = shares * parts.fit - shares**2 * parts.squares * parts.deriv**2
    cross = shares * parts.deriv

    def change(values: Array) -> Array:
        """Multiply values (size, ..., n) by what the Hessian loses within U, of U' change U."""
        changed = shares * values
        changed[0] = own * values[0] + cross * values[1]
        changed[1] = cross * values[0]
        return changed

    inner = np.eye(size)[:, :, None] - change(products).swapaxes(0, 1)
    within = solve_each(inner, np.stack([dots(vectors, right) for vectors in moved]), SINGULAR)
    step = solved(right)
    for weight, vectors in zip(change(within), moved, strict=True):
        step = step + weight * vectors
    return step


def dots(one: Array, other: Array) -> Array:
    """Scalar products of columns, shape (n,)."""
    return np.einsum("kn,kn->n", one, other)


def variance_slopes(variance: EffectVariance, contrasts: Array) -> list[RowVectors]:
    """Return the derivatives of the contrasts of psi, for a part of the moments and a contrast each."""
    return [variance.weighted_slopes(part, of[:, None]) for part in variance.parts for of in contrasts]


AT_ONCE = 2**22  # numbers of clusters under replicates that are worked on at a time
LARGE = 32  # rows of a group from which on a matrix product is faster than sums of products


class Grouped:
    """Rows in groups.

    Parameters
    ----------
    codes : ndarray of int, shape (n,)
        Group of each row.
    count : int
        Number of groups.
    """

    def __init__(self, codes: NDArray[np.intp], count: int) -> None:
        self.codes, self.count = codes, count
        self.order = np.argsort(codes, kind="stable")
        self.edges = np.concatenate([[0], np.cumsum(np.bincount(codes, minlength=count))])

    def sums(self, of_rows: Callable[[NDArray[np.intp]], Array], shape: tuple[int, ...], some: slice) -> Array:
        """Sum over the rows of some groups what a function makes of rows, (r, *shape), given their numbers."""
        members = self.order[self.edges[some.start] : self.edges[some.stop]]
        found = np.zeros((some.stop - some.start, *shape))
        for part in row_blocks(len(members), UNDER_RESAMPLES):
            rows = members[part]
            own = self.codes[rows] - some.start
            starts = np.flatnonzero(np.diff(own, prepend=-1))
            found[own[starts]] += np.add.reduceat(of_rows(rows), starts, axis=0)
        return found

    def products(self, left: Array, right: Array, some: slice) -> Array:
        """Sum products of columns (n, a) and (n, b) over the rows of some groups, shape (g, a, b)."""
        n_groups, n = some.stop - some.start, int(self.edges[some.stop] - self.edges[some.start])
        if n < LARGE * n_groups:
            shape = (left.shape[1], right.shape[1])
            return self.sums(lambda rows: left[rows, :, None] * right[rows, None], shape, some)
        edges = self.edges[some.start : some.stop + 1]
        groups = (self.order[first:last] for first, last in itertools.pairwise(edges))
        return np.stack([left[rows].T @ right[rows] for rows in groups])


def cluster_terms(rows: RowsAtSolution, parts: RowParts, shares: Array, groups: Grouped) -> tuple[Array, Array]:
    """Sum what gradient and Hessian lose with each cluster but for net biases, shape (G, K p) and (G, K p, K p)."""
    every, size = slice(0, groups.count), rows.solution.theta.size
    gradient = groups.sums(lambda some: shares[some, None] * parts.gradient[:, some].T, (size,), every)

    def squares(some: NDArray[np.intp]) -> Array:
        share, column, pull = shares[some], parts.column[:, some], parts.pull[:, some]
        cross = share * parts.deriv[some]
        slopes = [of[:, some] for of in parts.slopes]
        left = np.stack([share * parts.fit[some] * column + cross * pull, cross * column, *(share * s for s in slopes)])
        right = np.stack([column, pull, *slopes])
        return np.asarray(left.transpose(2, 1, 0) @ right.transpose(2, 0, 1))

    return gradient, groups.sums(squares, (size, size), every)


class ClusterForms:
    """Parts of clusters in the biases and their derivatives under replicates, as sums over rows.

    Parameters
    ----------
    rows : RowsAtSolution
        The rows.
    shares : ndarray, shape (n,)
        Their shares.
    codes : ndarray of int, shape (n,)
        Their clusters.
    count : int
        G.
    """

    def __init__(self, rows: RowsAtSolution, shares: Array, codes: NDArray[np.intp], count: int) -> None:
        self.n_arms = rows.sample.n_arms
        self.groups = Grouped(codes * self.n_arms + rows.sample.arm, count * self.n_arms)
        self.columns = shares[:, None] * np.column_stack([rows.own_deriv[:, None] * rows.q, rows.error])

    def of(self, w: Array, some: slice) -> Array:
        """Sum over some clusters under weights of shape (n, b): derivative and bias of each arm, (g, K, b, p + 1)."""
        slots = slice(some.start * self.n_arms, some.stop * self.n_arms)
        found = self.groups.products(w, self.columns, slots)
        return found.reshape(-1, self.n_arms, *found.shape[1:])


def add_squares(solution: JointSolution, replicates: slice, forms: Array, gradient: Array, hessian: Array) -> None:
    """Add to what is left of gradient and Hessian without some clusters the squares of their parts of the net biases.

    Parameters
    ----------
    solution : JointSolution
        The solution.
    replicates : slice
        Which replicates the forms are of; number 0 is the fitted score.
    forms : ndarray, shape (g, K, b, p + 1)
        As by `ClusterForms`.
    gradient, hessian : ndarray, shape (g, K p) and (g, K p, K p)
        What is added to.
    """
    equations = contrasted(forms.transpose(1, 2, 0, 3), solution.criterion)
    penalties = np.tile(solution.penalties[replicates], len(solution.criterion.contrasts))
    slopes = equations[..., :-1] @ solution.hessian.whitener.T
    scaled = penalties[:, None] * slopes
    gradient += (scaled * equations[..., -1:]).sum(axis=1)
    hessian += scaled.transpose(0, 2, 1) @ slopes


def solved_steps(gradient: Array, hessian: Array) -> Array:
    """R times the steps, shape (K p, G), from gradient and Hessian without each cluster."""
    hessian[np.abs(np.linalg.det(hessian)) < SINGULAR] = np.eye(hessian.shape[1])
    return np.asarray(np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0].T, dtype=float)


def steps_without_clusters(rows: RowsAtSolution, parts: RowParts, shares: Array, codes: NDArray[np.intp]) -> Array:
    """How theta moves without each of G clusters: R times the steps, (K p, G); shares and codes of the rows, (n,)."""
    solution, count = rows.solution, int(codes.max()) + 1
    gradient, lost = cluster_terms(rows, parts, shares, Grouped(codes, count))
    hessian, forms = solution.hessian.inner - lost, ClusterForms(rows, shares, codes, count)
    for replicates, at in with_fitted(rows.resampled.at, rows.data.replicated):
        w = at.w
        for some in _some_clusters(count, solution, w.shape[1]):
            add_squares(solution, replicates, forms.of(w, some), gradient=gradient[some], hessian=hessian[some])
    return solved_steps(gradient, hessian)


def cluster_sums(rows: RowsAtSolution, parts: RowParts, shares: Array, codes: NDArray[np.intp]) -> tuple[Array, ...]:
    """Sum what `steps_of_sums` needs of the rows of each of G clusters, others of which may be elsewhere."""
    count = int(codes.max()) + 1
    forms = ClusterForms(rows, shares, codes, count)
    replicated = with_fitted(rows.resampled.at, rows.data.replicated)
    every = [forms.of(at.w, slice(0, count)) for _, at in replicated]
    return *cluster_terms(rows, parts, shares, Grouped(codes, count)), np.concatenate(every, axis=2)


def steps_of_sums(solution: JointSolution, sums: tuple[Array, ...]) -> Array:
    """As `steps_without_clusters`, from the `cluster_sums` of all rows, which are used up."""
    gradient, lost, forms = sums
    hessian = np.subtract(solution.hessian.inner, lost, out=lost)
    for some in _some_clusters(len(forms), solution, solution.count + 1):
        every = slice(0, solution.count + 1)
        add_squares(solution, every, forms[some], gradient=gradient[some], hessian=hessian[some])
    return solved_steps(gradient, hessian)


def cluster_numbers(shape: tuple[int, ...], count: int) -> int:
    """Count the numbers that `cluster_sums` has of a cluster, for theta of shape (K, p) and B replicates."""
    n_arms, p = shape
    size = n_arms * p
    return size * (size + 1) + n_arms * (1 + count) * (p + 1)


def _some_clusters(count: int, solution: JointSolution, replicates: int) -> list[slice]:
    """Slices of the clusters, of which few numbers are made at a time."""
    size = len(solution.criterion.contrasts) * replicates * (solution.theta.size + 1)
    return row_blocks(count, max(AT_ONCE // size, 1))
