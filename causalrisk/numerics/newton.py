"""Newton's method for weighted models of one or several linear predictors, under many columns of weights at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial, reduce
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from causalrisk.errors import Failure, first_failure
from causalrisk.numerics.blocks import add_up
from causalrisk.numerics.linalg import Array, solve_definite, unpack_symmetric, weighted_gram

MAX_ITERATIONS = 60
STEP_TOLERANCE = 1e-8  # Newton steps shrink quadratically: the step after this one is below rounding error
NEGLIGIBLE_STEP = 1e-13  # and a larger one is the last where the next would be no larger than this
LARGEST_STEP = 4.0  # on the scale of the linear predictor
SEPARATED = 15.0  # a linear predictor this large (odds 3e6) in a fit that will not settle is separation
HALVINGS, SLACK = 30, 1e-12  # of a step that lowers a likelihood, and relative loss of one that is rounding error
Curvature = Mapping[tuple[int, int], Array]


class Likelihood(Protocol):
    """A model of the rows in L linear predictors.

    Attributes
    ----------
    n_predictors : int
        L.
    bounded : bool
        Whether probabilities reach 0 or 1 only at infinite predictors, so that large ones mean separation.
    """

    n_predictors: int
    bounded: bool

    def derivatives(self, eta: Array) -> tuple[Array, Curvature]:
        """First derivatives of the log likelihood by the predictors, (L, n, m), and minus the second ones.

        Parameters
        ----------
        eta : ndarray, shape (L, n, m)
            Linear predictors.

        Returns
        -------
        score : ndarray, shape (L, n, m)
            First derivatives.
        curvature : mapping of (k, l) to ndarray, shape (n, m)
            Minus the second derivatives, k <= l; pairs left out are zero.
        """

    def value(self, eta: Array) -> Array:
        """Log likelihood of each row, shape (n, m)."""


@dataclass(frozen=True)
class NewtonFits:
    """Refits of a model under several columns of weights.

    Parameters
    ----------
    coefficients : ndarray, shape (L q, m)
        Coefficients of the basis columns, predictor by predictor; only columns with reason OK may be used.
    failures : ndarray of int8, shape (m,)
        A `Failure` for each refit.
    iterations : int
        Largest number of Newton iterations taken.
    """

    coefficients: Array
    failures: NDArray[np.int8]
    iterations: int

    @property
    def usable(self) -> Array:
        """Coefficients of the refits that succeeded."""
        return self.coefficients[:, self.failures == Failure.OK]

    def above(self, other: NewtonFits) -> NewtonFits:
        """Stack on the refits of another model under the same weights, which fail where either failed."""
        return NewtonFits(
            np.concatenate([self.coefficients, other.coefficients]),
            first_failure(self.failures, other.failures),
            max(self.iterations, other.iterations),
        )


def predictors(columns: Array, gamma: Array) -> Array:
    """Linear predictors, shape (L, n, m), of basis columns (n, q) under coefficients (L q, m)."""
    q = columns.shape[1]
    return columns @ gamma.reshape(-1, q, gamma.shape[1])


def information(columns: Array, pairs: Array | None, curvature: Curvature, weights: Array, n_predictors: int) -> Array:
    """Weighted sums of minus the second derivatives by the coefficients, shape (m, L q, L q); without pairs m is 1."""
    q = columns.shape[1]
    size = n_predictors * q
    total = np.zeros((weights.shape[1], size, size))
    for (first, second), values in curvature.items():
        if pairs is None:
            block = weighted_gram(columns, (weights * values)[:, 0])[None]
        else:
            block = unpack_symmetric(weighted_products(pairs, values, weights), q)
        one, other = slice(first * q, (first + 1) * q), slice(second * q, (second + 1) * q)
        total[:, one, other] = total[:, other, one] = block
    return total


def weighted_products(columns: Array, values: Array, weights: Array) -> Array:
    """Sum of columns (n, k) times values (n, m) times weights (n, m), shape (k, m); the values of (n, 1) are shared."""
    if values.shape[1] < weights.shape[1]:
        # All columns of weights share the values: one product of matrices, without an array of shape (n, m).
        return (columns * values).T @ weights
    return columns.T @ (weights * values)


@dataclass(frozen=True)
class LikelihoodSums:
    """Hessian and gradient for Newton's method under m gammas: sums over rows, which add up over blocks.

    Parameters
    ----------
    hessian : ndarray, shape (m, L q, L q)
        Weighted sums of minus the second derivatives of the log likelihood.
    gradient : ndarray, shape (L q, m)
        Weighted sums of the first derivatives.
    """

    hessian: Array
    gradient: Array


class WeightedLikelihood(Protocol):
    """A likelihood of weighted rows, wherever they are, under m columns of weights.

    Attributes
    ----------
    bounded : bool
        As in `Likelihood`.
    halving : bool
        Whether steps that lower the likelihood are halved, rather than limited in how far they go: slower, and safe
        from a far start.
    """

    @property
    def bounded(self) -> bool:
        """True where large predictors mean separation."""

    @property
    def halving(self) -> bool:
        """Whether steps are halved."""

    @property
    def widest(self) -> float:
        """Bound of the sum of the sizes of the columns of a row."""

    def sums(self, gamma: Array) -> LikelihoodSums:
        """Return sums over the rows under gammas of shape (L q, m), or one for all weights, (L q, 1)."""

    def loss(self, gamma: Array) -> Array:
        """Minus the log likelihood under each gamma, shape (m,)."""

    def farthest(self, gamma: Array) -> Array:
        """Return the largest size of a linear predictor of a row that has weight, shape (m,)."""

    def some(self, which: NDArray[np.bool_]) -> WeightedLikelihood:
        """Return the likelihood under some of the columns of weights."""

    @property
    def width(self) -> int:
        """Number of columns of weights, m."""


@dataclass(frozen=True)
class WeightedRows:
    """A likelihood of rows in memory.

    Parameters
    ----------
    columns : ndarray, shape (n, q)
        Basis columns of the design.
    pairs : ndarray, shape (n, q (q + 1) / 2), or None
        `linalg.pairwise_columns` of the columns: one product for many columns of weights; a single column needs none.
    likelihood : Likelihood
        The model of the rows.
    weights : ndarray, shape (n, m)
        Non-negative weights, a column a refit.
    halving : bool
        As in `WeightedLikelihood`.
    """

    columns: Array
    pairs: Array | None
    likelihood: Likelihood
    weights: Array
    halving: bool = False

    @property
    def bounded(self) -> bool:
        """As in `WeightedLikelihood`."""
        return self.likelihood.bounded

    def sums(self, gamma: Array) -> LikelihoodSums:
        """As in `WeightedLikelihood`."""
        return self._sums_at(predictors(self.columns, gamma))

    def farthest(self, gamma: Array) -> Array:
        """As in `WeightedLikelihood`."""
        return self._farthest_at(predictors(self.columns, gamma))

    def loss(self, gamma: Array) -> Array:
        """As in `WeightedLikelihood`."""
        return self._loss_at(predictors(self.columns, gamma))

    def everything(self, gamma: Array) -> tuple[LikelihoodSums, Array, Array]:
        """Return sums, loss and farthest, which have the predictors in common."""
        eta = predictors(self.columns, gamma)
        return self._sums_at(eta), self._loss_at(eta), self._farthest_at(eta)

    def _sums_at(self, eta: Array) -> LikelihoodSums:
        with np.errstate(all="ignore"):  # a fit that runs away ends as singular
            score, curvature = self.likelihood.derivatives(eta)
            hessian = information(self.columns, self.pairs, curvature, self.weights, self.likelihood.n_predictors)
            gradient = np.concatenate([weighted_products(self.columns, values, self.weights) for values in score])
        return LikelihoodSums(hessian, gradient)

    def _farthest_at(self, eta: Array) -> Array:
        return np.asarray(np.abs(np.where(self.weights > 0, eta, 0)).max(axis=(0, 1), initial=0))

    def _loss_at(self, eta: Array) -> Array:
        with np.errstate(all="ignore"):
            return -np.asarray((self.weights * self.likelihood.value(eta)).sum(axis=0))

    @property
    def widest(self) -> float:
        """As in `WeightedLikelihood`."""
        return float(np.abs(self.columns).max(axis=0, initial=0).sum())

    def some(self, which: NDArray[np.bool_]) -> WeightedRows:
        """As in `WeightedLikelihood`."""
        return replace(self, weights=self.weights[:, which])

    @property
    def width(self) -> int:
        """As in `WeightedLikelihood`."""
        return self.weights.shape[1]


def maximize(rows: WeightedLikelihood, start: Array, *, halving: bool = False) -> NewtonFits:
    """Maximise m weighted likelihoods by Newton's method, all at once.

    Parameters
    ----------
    start : ndarray, shape (L q, m) or (L q, 1)
        Starting coefficients, of each or of all.
    """
    m = rows.width
    gamma = np.repeat(start, m, axis=1) if start.shape[1] < m else np.array(start)
    failures = np.full(m, Failure.NOT_CONVERGED, dtype=np.int8)
    active, iteration, last = np.arange(m), 0, np.full(m, np.inf)
    while active.size and iteration < MAX_ITERATIONS:
        iteration += 1
        before = gamma[:, active]
        # A start that all share, of shape (L q, 1), is evaluated once rather than m times.
        at = rows.sums(before if iteration > 1 else start)
        step, singular = solve_definite(at.hessian, np.where(np.isfinite(at.gradient), at.gradient, 0.0))
        step[:, singular] = 0.0
        whole = np.abs(step).max(axis=0, initial=0)
        gamma[:, active] += _damped(rows, step, before, halving or rows.halving)
        # Convergence is quadratic: the next step is this one squared times a constant, about step / last^2, at least 1.
        with np.errstate(all="ignore"):  # of a fit that runs away
            following = whole**2 * np.maximum(whole / last**2, 1.0)
        done = ((whole <= STEP_TOLERANCE) | (following <= NEGLIGIBLE_STEP)) & ~singular
        # Basis columns have mean square one, so a coefficient of a thousand means odds of exp(1000): it ran away.
        lost = singular | (np.abs(gamma[:, active]).max(axis=0, initial=0) > 1e3)
        failures[active[done]] = Failure.OK
        failed = ~done & (lost | (iteration == MAX_ITERATIONS))
        if failed.any():
            far = rows.bounded & (rows.some(failed).farthest(before[:, failed]) > SEPARATED)
            unsettled = np.where(singular[failed], Failure.SINGULAR_PROPENSITY, Failure.NOT_CONVERGED)
            failures[active[failed]] = np.where(far, Failure.SEPARATION, unsettled)
        go_on = ~(done | failed)
        if not go_on.all():
            active, rows = active[go_on], rows.some(go_on)
        last = whole[go_on]
    return NewtonFits(gamma, failures, iteration)


def _damped(rows: WeightedLikelihood, step: Array, gamma: Array, halving: bool) -> Array:
    """Shorten steps of shape (L q, m) from the gammas where they go too far."""
    # A limit on the predictors would let the few rows farthest out, which hardly matter to the likelihood, hold
    # back all others; where every step is checked against the likelihood none is needed.
    if halving:
        return halved(step, gamma, rows.loss)
    small = np.abs(step).max(initial=0) * rows.widest <= LARGEST_STEP
    return step if small else limited(step, rows.farthest(step))


class BlockedLikelihood:
    """Likelihoods of rows that come in blocks; every set of gammas takes one pass over them.

    Parameters
    ----------
    over : callable
        Maps a function over the blocks; its argument are a block's likelihoods, each with one column of weights and
        halved steps.
    bounded : bool
        As in `Likelihood`.
    which : tuple of int
        Positions of the likelihoods among those of a block.
    """

    halving, widest = True, np.inf

    def __init__(
        self,
        over: Callable[[Callable[[Sequence[WeightedRows]], Any]], Iterable[Any]],
        bounded: bool,
        which: tuple[int, ...],
    ) -> None:
        self._over, self.bounded, self._which, self.width = over, bounded, which, len(which)
        self._known: dict[bytes, tuple[LikelihoodSums, Array, Array]] = {}

    def sums(self, gamma: Array) -> LikelihoodSums:
        """As in `WeightedLikelihood`."""
        return self._at(np.broadcast_to(gamma, (len(gamma), self.width)))[0]

    def loss(self, gamma: Array) -> Array:
        """As in `WeightedLikelihood`; the pass is that of `sums`, where the next step begins."""
        return self._at(gamma)[1]

    def farthest(self, gamma: Array) -> Array:
        """As in `WeightedLikelihood`; the pass is that of `sums`."""
        return self._at(gamma)[2]

    def some(self, which: NDArray[np.bool_]) -> BlockedLikelihood:
        """As in `WeightedLikelihood`."""
        kept = tuple(position for position, wanted in zip(self._which, which, strict=True) if wanted)
        return BlockedLikelihood(self._over, self.bounded, kept)

    def _at(self, gamma: Array) -> tuple[LikelihoodSums, Array, Array]:
        key = gamma.tobytes()
        if key not in self._known:
            self._known = dict([*self._known.items()][-1:])  # the point before; others are not asked for again
            *sums, farthest = zip(*self._over(partial(_sums_of_each, self._which, gamma)), strict=True)
            self._known[key] = (*map(add_up, sums), np.max(farthest, axis=0))
        return self._known[key]


def _sums_of_each(
    which: tuple[int, ...], gamma: Array, block: Sequence[WeightedRows]
) -> tuple[LikelihoodSums, Array, Array]:
    """Return sums, losses and `farthest` of some likelihoods of a block, each under its column of gamma (L q, m)."""
    hessians, gradients, losses, farthest = [], [], [], []
    for j, position in enumerate(which):
        sums, loss, far = block[position].everything(gamma[:, [j]])
        hessians.append(sums.hessian)
        gradients.append(sums.gradient)
        losses.append(loss)
        farthest.append(far)
    total = LikelihoodSums(np.concatenate(hessians), np.concatenate(gradients, axis=1))
    return total, np.concatenate(losses), np.concatenate(farthest)


class PartedRows:
    """Likelihood of rows in memory worked on in parts, so that arrays with a column a pair stay small.

    Parameters
    ----------
    parts : callable
        Begins a pass: yields the likelihood of each part under all m columns of weights.
    width : int
        m.
    """

    halving = False

    def __init__(self, parts: Callable[[], Iterator[WeightedRows]], width: int) -> None:
        self.parts, self.width, self.bounded = parts, width, next(parts()).bounded

    def sums(self, gamma: Array) -> LikelihoodSums:
        """As in `WeightedLikelihood`."""
        return add_up(rows.sums(gamma) for rows in self.parts())

    def loss(self, gamma: Array) -> Array:
        """As in `WeightedLikelihood`."""
        return add_up(rows.loss(gamma) for rows in self.parts())

    def farthest(self, gamma: Array) -> Array:
        """As in `WeightedLikelihood`."""
        return np.asarray(reduce(np.maximum, (rows.farthest(gamma) for rows in self.parts())))

    @cached_property
    def widest(self) -> float:
        """As in `WeightedLikelihood`."""
        return max(rows.widest for rows in self.parts())

    def some(self, which: NDArray[np.bool_]) -> PartedRows:
        """As in `WeightedLikelihood`."""
        return PartedRows(lambda: (rows.some(which) for rows in self.parts()), int(which.sum()))


def refit_batch(rows: WeightedLikelihood, start: Array, restart: Array) -> NewtonFits:
    """Fit under m columns of weights from a good start, shape (L q,) or (L q, m).

    The few columns that do not settle are fitted again, with halved steps, from `restart`, of either shape.
    """
    fits = maximize(rows, start.reshape(len(start), -1))
    # Separated and singular fits have no maximum that shorter steps could find.
    again = fits.failures == Failure.NOT_CONVERGED
    if not again.any():
        return fits
    origin = restart.reshape(len(restart), -1)
    second = maximize(rows.some(again), origin if origin.shape[1] == 1 else origin[:, again], halving=True)
    gamma, failures = fits.coefficients.copy(), fits.failures.copy()
    gamma[:, again], failures[again] = second.coefficients, second.failures
    return NewtonFits(gamma, failures, max(fits.iterations, second.iterations))


def limited(step: Array, move: Array) -> Array:
    """Shorten steps that move a linear predictor by more than LARGEST_STEP; `move`, shape (m,), is how far they do."""
    return step * np.minimum(1, LARGEST_STEP / np.maximum(move, 1e-300))


def halved(step: Array, gamma: Array, loss: Callable[[Array], Array]) -> Array:
    """Halve the steps, shape (L q, m), of those likelihoods that would fall.

    Parameters
    ----------
    step, gamma : ndarray, shape (L q, m)
        Steps, and where they begin.
    loss : callable
        Coefficients -> minus the log likelihoods, shape (m,).
    """
    before = loss(gamma)
    for _ in range(HALVINGS):
        worse = ~(loss(gamma + step) <= before + SLACK * np.abs(before))
        if not worse.any():
            break
        step = np.where(worse, step / 2, step)
    return step
