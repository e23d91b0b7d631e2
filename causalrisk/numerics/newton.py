"""Newton's method for weighted models of one or several linear predictors, under many columns of weights at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from causalrisk.numerics.failures import Failure
from causalrisk.numerics.linalg import Array, solve_definite, unpack_symmetric, weighted_gram

MAX_ITERATIONS = 60
STEP_TOLERANCE = 1e-8  # Newton steps shrink quadratically: the step after this one is below rounding error
LARGEST_STEP = 4.0  # on the scale of the linear predictor
SEPARATED = 15.0  # a linear predictor this large (odds 3e6) in a fit that will not settle is separation
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
        products = weights * values
        if pairs is None:
            block = weighted_gram(columns, products[:, 0])[None]
        else:
            block = unpack_symmetric(pairs.T @ products, q)
        one, other = slice(first * q, (first + 1) * q), slice(second * q, (second + 1) * q)
        total[:, one, other] = total[:, other, one] = block
    return total


def newton_batch(
    columns: Array, pairs: Array | None, likelihood: Likelihood, weights: Array, start: Array, *, damped: bool = False
) -> NewtonFits:
    """Fit a model under m columns of weights by Newton's method, all at once.

    Parameters
    ----------
    columns : ndarray, shape (n, q)
        Basis columns of the design.
    pairs : ndarray, shape (n, q (q + 1) / 2), or None
        `linalg.pairwise_columns` of them, with which many columns of weights take one product; a single one needs none.
    likelihood : Likelihood
        The model of the rows.
    weights : ndarray, shape (n, m)
        Non-negative weights, a column a refit.
    start : ndarray, shape (L q,) or (L q, m)
        Starting coefficients.
    damped : bool, default False
        Halve steps that lower the likelihood, rather than limit how far they go: slower, and safe from a far start.

    Returns
    -------
    NewtonFits
        Coefficients and the reason where there are none.
    """
    m, q, n_predictors = weights.shape[1], columns.shape[1], likelihood.n_predictors
    gamma = np.array(np.broadcast_to(np.asarray(start).reshape(len(start), -1), (n_predictors * q, m)))
    failures = np.full(m, Failure.NOT_CONVERGED, dtype=np.int8)
    active, current, iteration = np.arange(m), weights, 0
    while active.size and iteration < MAX_ITERATIONS:
        iteration += 1
        eta = predictors(columns, gamma[:, active])
        with np.errstate(all="ignore"):  # a fit that runs away ends as singular
            score, curvature = likelihood.derivatives(eta)
            hessian = information(columns, pairs=pairs, curvature=curvature, weights=current, n_predictors=n_predictors)
            gradient = (columns.T @ (current * score)).reshape(n_predictors * q, -1)
        step, singular = solve_definite(hessian, np.where(np.isfinite(gradient), gradient, 0.0))
        step[:, singular] = 0.0
        whole = np.abs(step).max(axis=0, initial=0)
        # A limit on the predictors would let the few rows farthest out, which hardly matter to the likelihood, hold
        # back all others; where every step is checked against the likelihood none is needed.
        if damped:
            step = _halved(step, gamma[:, active], columns=columns, weights=current, likelihood=likelihood)
        else:
            step = _limited(step, columns, current)
        gamma[:, active] += step
        done = (whole <= STEP_TOLERANCE) & ~singular
        lost = singular | (np.abs(gamma[:, active]).max(axis=0, initial=0) > 1e3)
        failures[active[done]] = Failure.OK
        failed = ~done & (lost | (iteration == MAX_ITERATIONS))
        if failed.any():
            far = likelihood.bounded & _separated(eta[:, :, failed], current[:, failed])
            unsettled = np.where(singular[failed], Failure.SINGULAR_PROPENSITY, Failure.NOT_CONVERGED)
            failures[active[failed]] = np.where(far, Failure.SEPARATION, unsettled)
        go_on = ~(done | failed)
        if not go_on.all():
            active, current = active[go_on], current[:, go_on]
    return NewtonFits(gamma, failures, iteration)


def _separated(eta: Array, weights: Array) -> NDArray[np.bool_]:
    """Which fits, shape (m,), have a used row whose linear predictor says that its arm is all but certain."""
    return np.asarray(np.abs(np.where(weights > 0, eta, 0)).max(axis=(0, 1), initial=0) > SEPARATED)


def refit_batch(
    columns: Array, pairs: Array, likelihood: Likelihood, weights: Array, start: Array, restart: Array
) -> NewtonFits:
    """`newton_batch` from a good start; the few columns that do not settle are fitted again, damped, from `restart`."""
    fits = newton_batch(columns, pairs=pairs, likelihood=likelihood, weights=weights, start=start)
    again = np.flatnonzero(fits.failures == Failure.NOT_CONVERGED)
    if not again.size:
        return fits
    second = newton_batch(
        columns, pairs=pairs, likelihood=likelihood, weights=weights[:, again], start=restart, damped=True
    )
    gamma, failures = fits.coefficients.copy(), fits.failures.copy()
    gamma[:, again], failures[again] = second.coefficients, second.failures
    return NewtonFits(gamma, failures, max(fits.iterations, second.iterations))


def _limited(step: Array, columns: Array, weights: Array) -> Array:
    """Shorten steps that would move a linear predictor of a used row too far."""
    if np.abs(step).max(initial=0) * np.abs(columns).sum(axis=1).max() <= LARGEST_STEP:
        return step
    move = np.abs(np.where(weights > 0, predictors(columns, step), 0)).max(axis=(0, 1))
    return step * np.minimum(1, LARGEST_STEP / np.maximum(move, 1e-300))


def _halved(step: Array, gamma: Array, *, columns: Array, weights: Array, likelihood: Likelihood) -> Array:
    """Halve each step until the likelihood does not fall."""

    def loss(g: Array) -> Array:
        with np.errstate(all="ignore"):
            return -np.asarray((weights * likelihood.value(predictors(columns, g))).sum(axis=0))

    return halve_until_no_worse(step, loss(gamma), lambda s: loss(gamma + s), slack=1e-12, times=30)


def halve_until_no_worse(
    step: Array, before: Array, value: Callable[[Array], Array], *, slack: float, times: int
) -> Array:
    """Halve the steps of those problems of a batch whose value would rise.

    Parameters
    ----------
    step : ndarray, shape (..., m)
        Steps.
    before : ndarray, shape (m,)
        Values without a step.
    value : callable
        Steps -> values, shape (m,).
    slack : float
        Relative rise that is rounding error.
    times : int
        How often a step is halved at the most.

    Returns
    -------
    ndarray, shape (..., m)
        The steps, some of them shorter.
    """
    for _ in range(times):
        worse = ~(value(step) <= before + slack * np.abs(before))
        if not worse.any():
            break
        step = np.where(worse, step / 2, step)
    return step
