"""Binary propensity models by maximum likelihood: links, the fit, and many weighted refits in one batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_ndtr, ndtr

from causalrisk.ledger import Reason
from causalrisk.linalg import Array, Basis, gram_matrices, pairwise_columns, solve_definite

MAX_ITERATIONS = 60
STEP_TOLERANCE = 1e-8  # Newton steps shrink quadratically: the step after this one is below rounding error
LARGEST_STEP = 4.0  # on the scale of the linear predictor
SEPARATED = 15.0  # a linear predictor this large (odds 3e6) in a fit that will not settle is separation


@dataclass(frozen=True)
class Link:
    """Inverse link of a binary treatment model, as the functions of the linear predictor the package needs.

    Each takes the linear predictor eta, shape (n, ...), and the treated indicator d, shape (n, 1) or (n,), and returns
    an array shaped like eta.

    Parameters
    ----------
    name : str
        Name of the link.
    probability : callable
        P(A = 1 | eta), of eta alone.
    own_odds : callable
        (1 - e) / e for the probability e of the arm the unit is in, so that its inverse probability is 1 + own_odds.
    own_odds_slope : callable
        Derivative of own_odds by eta.
    score : callable
        First derivative of the log likelihood by eta, and minus the second.
    log_likelihood : callable
        Log likelihood of each unit.
    """

    name: str
    probability: Callable[[Array], Array]
    own_odds: Callable[[Array, Array], Array]
    own_odds_slope: Callable[[Array, Array], Array]
    score: Callable[[Array, Array], tuple[Array, Array]]
    log_likelihood: Callable[[Array, Array], Array]


def _logit_score(eta: Array, d: Array) -> tuple[Array, Array]:
    p = expit(eta)
    return d - p, p * (1 - p)


def _mills(x: Array) -> Array:
    """Ratio of the normal density to the distribution function, accurate in both tails."""
    return np.exp(-0.5 * x * x - 0.5 * np.log(2 * np.pi) - log_ndtr(x))


def _probit_score(eta: Array, d: Array) -> tuple[Array, Array]:
    sign = 2 * d - 1
    mills = _mills(sign * eta)
    return sign * mills, mills * (mills + sign * eta)


def _probit_odds(eta: Array, d: Array) -> Array:
    signed = (2 * d - 1) * eta
    return ndtr(-signed) / ndtr(signed)


def _probit_odds_slope(eta: Array, d: Array) -> Array:
    sign = 2 * d - 1
    signed = sign * eta
    return -sign * _mills(signed) / ndtr(signed)


def _cloglog_score(eta: Array, d: Array) -> tuple[Array, Array]:
    hazard = np.exp(eta)
    with np.errstate(over="ignore"):
        treated = hazard / np.expm1(hazard)
    return np.where(d > 0, treated, -hazard), np.where(d > 0, treated * (treated + hazard - 1), hazard)


def _cloglog_odds(eta: Array, d: Array) -> Array:
    cumulative = np.expm1(np.exp(eta))
    return np.where(d > 0, 1 / cumulative, cumulative)


def _cloglog_odds_slope(eta: Array, d: Array) -> Array:
    cumulative = np.expm1(np.exp(eta))
    slope = np.exp(eta) * (cumulative + 1)
    return np.where(d > 0, -slope / cumulative**2, slope)


LINKS = {
    "logit": Link(
        "logit",
        expit,
        lambda eta, d: np.exp((1 - 2 * d) * eta),
        lambda eta, d: (1 - 2 * d) * np.exp((1 - 2 * d) * eta),
        _logit_score,
        lambda eta, d: -np.logaddexp(0, (1 - 2 * d) * eta),
    ),
    "probit": Link(
        "probit",
        ndtr,
        _probit_odds,
        _probit_odds_slope,
        _probit_score,
        lambda eta, d: log_ndtr((2 * d - 1) * eta),
    ),
    "cloglog": Link(
        "cloglog",
        lambda eta: -np.expm1(-np.exp(eta)),
        _cloglog_odds,
        _cloglog_odds_slope,
        _cloglog_score,
        lambda eta, d: np.where(d > 0, np.log(-np.expm1(-np.exp(eta))), -np.exp(eta)),
    ),
}


@dataclass(frozen=True)
class PropensityFit:
    """A fitted propensity model; rows as in the sample it was fitted to.

    Parameters
    ----------
    link_name : str
        Name of the link.
    basis : Basis
        Orthonormal basis of the propensity design; `gamma` belongs to its columns.
    gamma : ndarray, shape (q,)
        Coefficients of the basis columns.
    eta : ndarray, shape (n,)
        Linear predictor.
    odds, slope : ndarray, shape (n,)
        Own-arm odds (1 - e) / e and their derivative by eta.
    influence : ndarray, shape (n, q)
        Influence function of `gamma`.
    converged : bool
        Whether the Newton iterations met their tolerance.
    iterations : int
        Newton iterations taken.
    """

    link_name: str
    basis: Basis
    gamma: Array
    eta: Array
    odds: Array
    slope: Array
    influence: Array
    converged: bool
    iterations: int

    @property
    def link(self) -> Link:
        """The inverse link."""
        return LINKS[self.link_name]

    @property
    def weights(self) -> Array:
        """Inverse probability of the own arm, shape (n,)."""
        return 1 + self.odds

    @property
    def score(self) -> Array:
        """Probability of the treated arm, shape (n,)."""
        return self.link.probability(self.eta)


@dataclass(frozen=True)
class PropensityBatch:
    """Refits of a propensity model under several weightings of the rows.

    Parameters
    ----------
    gamma : ndarray, shape (q, m)
        Coefficients of the basis columns; only columns with reason OK may be used.
    reasons : ndarray of int8, shape (m,)
        A `Reason` for each refit.
    iterations : int
        Largest number of Newton iterations taken.
    """

    gamma: Array
    reasons: NDArray[np.int8]
    iterations: int


def fit_batch(
    columns: Array, pairs: Array, treated: Array, weights: Array, link: Link, start: Array, *, damped: bool = False
) -> PropensityBatch:
    """Fit the model under m weightings of the rows by Newton's method, all at once.

    Parameters
    ----------
    columns : ndarray, shape (n, q)
        Basis columns of the propensity design.
    pairs : ndarray, shape (n, q (q + 1) / 2)
        `linalg.pairwise_columns` of them.
    treated : ndarray, shape (n,)
        1.0 for treated rows, 0.0 for the others.
    weights : ndarray, shape (n, m)
        Non-negative weights, a column a refit.
    link : Link
        The inverse link.
    start : ndarray, shape (q,) or (q, m)
        Starting coefficients.
    damped : bool, default False
        Halve steps that lower the likelihood: slower, and safe from a far start.

    Returns
    -------
    PropensityBatch
        Coefficients and the reason where there are none.
    """
    m = weights.shape[1]
    gamma = np.array(np.broadcast_to(np.asarray(start).reshape(len(start), -1), (columns.shape[1], m)))
    reasons = np.full(m, Reason.NOT_CONVERGED, dtype=np.int8)
    share = treated @ weights
    empty = (share <= 0) | (weights.sum(axis=0) - share <= 0)
    reasons[empty] = Reason.EMPTY_ARM
    active = np.flatnonzero(~empty)
    d, current = treated[:, None], weights[:, active]
    iteration = 0
    while active.size and iteration < MAX_ITERATIONS:
        iteration += 1
        eta = columns @ gamma[:, active]
        score, information = link.score(eta, d)
        hessian = gram_matrices(pairs, current * information, columns.shape[1])
        step, singular = solve_definite(hessian, columns.T @ (current * score))
        step[:, singular] = 0.0
        step = _limited(step, columns, current)
        if damped:
            step = _halved(step, columns, gamma[:, active], d, current, link)
        gamma[:, active] += step
        far = np.abs(np.where(current > 0, eta, 0)).max(axis=0) > SEPARATED
        size = np.abs(step).max(axis=0)
        done = (size <= STEP_TOLERANCE) & ~singular
        lost = singular | (np.abs(gamma[:, active]).max(axis=0) > 1e3)
        reasons[active] = np.where(far, Reason.SEPARATION, Reason.NOT_CONVERGED)
        reasons[active[singular & ~far]] = Reason.SINGULAR_PROPENSITY
        reasons[active[done]] = Reason.OK
        go_on = ~(done | lost)
        if not go_on.all():
            active, current = active[go_on], current[:, go_on]
    return PropensityBatch(gamma, reasons, iteration)


def _limited(step: Array, columns: Array, weights: Array) -> Array:
    """Shorten steps that would move the linear predictor of a used row too far."""
    if np.abs(step).max(initial=0) * np.abs(columns).sum(axis=1).max() <= LARGEST_STEP:
        return step
    move = np.abs(np.where(weights > 0, columns @ step, 0)).max(axis=0)
    return step * np.minimum(1, LARGEST_STEP / np.maximum(move, 1e-300))


def _halved(step: Array, columns: Array, gamma: Array, d: Array, weights: Array, link: Link) -> Array:
    """Halve each step until the likelihood does not fall."""

    def likelihood(g: Array) -> Array:
        values = link.log_likelihood(columns @ g, d)
        return (weights * values).sum(axis=0)

    before = likelihood(gamma)
    for _ in range(30):
        worse = likelihood(gamma + step) < before - 1e-12 * np.abs(before)
        if not worse.any():
            break
        step = np.where(worse, step / 2, step)
    return step


def refit_batch(
    basis: Basis, pairs: Array, treated: Array, weights: Array, link: Link, start: Array
) -> PropensityBatch:
    """`fit_batch` from a good start; the few columns that do not settle are fitted again from zero with damping."""
    batch = fit_batch(basis.columns, pairs, treated, weights, link, start)
    again = np.flatnonzero(batch.reasons == Reason.NOT_CONVERGED)
    if not again.size:
        return batch
    zero = np.zeros(basis.columns.shape[1])
    second = fit_batch(basis.columns, pairs, treated, weights[:, again], link, zero, damped=True)
    gamma, reasons = batch.gamma.copy(), batch.reasons.copy()
    gamma[:, again], reasons[again] = second.gamma, second.reasons
    return PropensityBatch(gamma, reasons, max(batch.iterations, second.iterations))


def fit_propensity(basis: Basis, treated: Array, weights: Array, link_name: str) -> PropensityFit:
    """Fit a binary propensity model by maximum likelihood.

    Parameters
    ----------
    basis : Basis
        Orthonormal basis of the propensity design, columns of shape (n, q).
    treated : ndarray, shape (n,)
        1.0 for treated rows, 0.0 for the others.
    weights : ndarray, shape (n,)
        Observation weights.
    link_name : {"logit", "probit", "cloglog"}
        The link.

    Returns
    -------
    PropensityFit
        The fit; `converged` is False when the iterations did not settle, as under separation.
    """
    link = LINKS[link_name]
    columns = basis.columns
    pairs = pairwise_columns(columns)
    zero = np.zeros(columns.shape[1])
    batch = fit_batch(columns, pairs, treated, weights[:, None], link, zero, damped=True)
    gamma = batch.gamma[:, 0]
    eta = columns @ gamma
    score, information = link.score(eta, treated)
    hessian = gram_matrices(pairs, (weights * information / weights.sum())[:, None], len(gamma))[0]
    # A separated fit has no information left; its influence function is never used, so least squares is enough.
    influence = np.linalg.lstsq(hessian, (columns * score[:, None]).T, rcond=None)[0].T
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        odds, slope = link.own_odds(eta, treated), link.own_odds_slope(eta, treated)
    converged = bool(batch.reasons[0] == Reason.OK)
    return PropensityFit(link_name, basis, gamma, eta, odds, slope, influence, converged, batch.iterations)
