"""Links of binary models: probability, odds and likelihood as functions of the linear predictor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import log_ndtr, ndtr

from causalrisk.numerics.linalg import Array

LARGEST = 690.0  # predictors of a complementary log-log link are cut off here: exp(690) is about 1e300


@dataclass(frozen=True)
class Link:
    """Inverse link of a binary treatment model, as the functions of the linear predictor the package needs.

    Each takes the linear predictor eta, shape (n, ...), and the treated indicator d, shape (n, 1) or (n,), and returns
    an array shaped like eta.

    Parameters
    ----------
    name : str
        Name of the link.
    probability, probabilities : callable
        P(A = 1 | eta) of eta alone; P(A = 0 | eta) and it, shape (2, n, ...), each to all its digits.
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
    probabilities: Callable[[Array], Array]
    own_odds: Callable[[Array, Array], Array]
    own_odds_slope: Callable[[Array, Array], Array]
    score: Callable[[Array, Array], tuple[Array, Array]]
    log_likelihood: Callable[[Array, Array], Array]

    def __reduce__(self) -> tuple[Callable[[str], Link], tuple[str]]:
        return link_of, (self.name,)


def _complement(eta: Array) -> Array:
    """Put 1 / (1 + exp(eta)) in the place of eta."""
    with np.errstate(over="ignore"):  # to a probability of zero
        np.exp(eta, out=eta)
    eta += 1
    return np.reciprocal(eta, out=eta)


def _logit_probability(eta: Array) -> Array:
    return _complement(np.negative(eta, out=np.empty_like(eta)))


def _logit_score(eta: Array, d: Array) -> tuple[Array, Array]:
    p = _logit_probability(eta)
    information = p * p
    np.subtract(p, information, out=information)
    return np.subtract(d, p, out=p), information


def _logit_odds(eta: Array, d: Array) -> Array:
    signed = np.asarray((1 - 2 * d) * eta)
    return np.exp(signed, out=signed)


def _logit_log_likelihood(eta: Array, d: Array) -> Array:
    signed = (1 - 2 * d) * eta
    # -log(1 + exp(signed)): the exponent is never positive, so nothing overflows, and log1p keeps small terms.
    return np.asarray(-np.maximum(signed, 0.0) - np.log1p(np.exp(-np.abs(signed))))


def _mills(x: Array) -> Array:
    """Ratio of the normal density to the distribution function, accurate in both tails."""
    # Far out in the tail density and distribution function underflow; the difference of their logarithms does not.
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


def _hazard(eta: Array) -> Array:
    """exp(eta) under the complementary log-log link; the predictor is cut off where exp reaches 1e-300 or 1e300."""
    return np.exp(np.clip(eta, -LARGEST, LARGEST))


def _cumulative(hazard: Array) -> Array:
    """Odds of the treated arm, expm1(hazard); where they overflow to inf, the odds of the other arm are zero."""
    with np.errstate(over="ignore"):
        return np.expm1(hazard)


def _cloglog_probabilities(eta: Array) -> Array:
    hazard = -_hazard(eta)
    # expm1 keeps the digits of a small probability, of which 1 - exp would leave none.
    return np.stack([np.exp(hazard), -np.expm1(hazard)])


def _cloglog_score(eta: Array, d: Array) -> tuple[Array, Array]:
    hazard = _hazard(eta)
    treated = hazard / _cumulative(hazard)
    return np.where(d > 0, treated, -hazard), np.where(d > 0, treated * (treated + hazard - 1), hazard)


def _cloglog_odds(eta: Array, d: Array) -> Array:
    cumulative = _cumulative(_hazard(eta))
    return np.where(d > 0, 1 / cumulative, cumulative)


def _cloglog_odds_slope(eta: Array, d: Array) -> Array:
    hazard = _hazard(eta)
    cumulative, chance = _cumulative(hazard), -np.expm1(-hazard)
    return np.where(d > 0, -hazard / cumulative / chance, hazard * (cumulative + 1))


def _cloglog_log_likelihood(eta: Array, d: Array) -> Array:
    hazard = _hazard(eta)
    return np.where(d > 0, np.log(-np.expm1(-hazard)), -hazard)


BINARY_LINKS = {
    "logit": Link(
        name="logit",
        probability=_logit_probability,
        # each from its own exponential: 1 - p has no digits left where p rounds to 1
        probabilities=lambda eta: _complement(np.stack([eta, -eta])),
        own_odds=_logit_odds,
        own_odds_slope=lambda eta, d: (1 - 2 * d) * np.exp((1 - 2 * d) * eta),
        score=_logit_score,
        log_likelihood=_logit_log_likelihood,
    ),
    "probit": Link(
        name="probit",
        probability=ndtr,
        probabilities=lambda eta: ndtr(np.stack([-eta, eta])),
        own_odds=_probit_odds,
        own_odds_slope=_probit_odds_slope,
        score=_probit_score,
        log_likelihood=lambda eta, d: log_ndtr((2 * d - 1) * eta),
    ),
    "cloglog": Link(
        name="cloglog",
        probability=lambda eta: -np.expm1(-_hazard(eta)),
        probabilities=_cloglog_probabilities,
        own_odds=_cloglog_odds,
        own_odds_slope=_cloglog_odds_slope,
        score=_cloglog_score,
        log_likelihood=_cloglog_log_likelihood,
    ),
}


def link_of(name: str) -> Link:
    """Return a link by name; pickle restores links by it."""
    return BINARY_LINKS[name]
