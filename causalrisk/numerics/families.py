"""Outcome families and links: mean, derivatives and quasi-likelihood, with variance functions of statsmodels.

Every outcome model is a generalised linear model with mean m = g^{-1}(eta). Only the variance function matters, because
the dispersion cancels. Therefore fractions under "binomial", or non-integers under "poisson", are fitted by
quasi-likelihood. The propensity score uses the links of binary models too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from scipy.special import expit, log_expit, log_ndtr, ndtr

from causalrisk.errors import DesignError, OptionError, nearest_name
from causalrisk.errors.aliases import answer
from causalrisk.numerics.arrays import Array

LARGEST = 690.0  # predictors of a complementary log-log link are cut off here: exp(690) is about 1e300
CLASSES = {"identity": "Identity", "log": "Log", "logit": "Logit", "probit": "Probit", "cloglog": "CLogLog"}


@dataclass(frozen=True)
class Link:
    """Inverse link of a binary model, as functions of the linear predictor eta and possibly the treatment d.

    `score` returns the first derivative of the log likelihood by eta, and minus the second derivative.
    """

    probability: Callable[[Array], Array]
    log_likelihood: Callable[[Array, Array], Array]
    score: Callable[[Array, Array], tuple[Array, Array]]

    def own_odds(self, eta: Array, d: Array) -> Array:
        """Return (1 - e) / e, where e is the probability of the unit's own arm. Adding 1 gives 1 / e."""
        with np.errstate(over="ignore"):
            return np.expm1(-self.log_likelihood(eta, d))

    def own_odds_slope(self, eta: Array, d: Array) -> Array:
        """Return the derivative of `own_odds` with respect to eta."""
        return -self.score(eta, d)[0] * np.exp(-self.log_likelihood(eta, d))


def _symmetric(log_probability: Callable[[Array], Any], eta: Array, d: Array) -> Array:
    """Return the log likelihood under a link whose probabilities of eta and -eta add up to one."""
    return np.asarray(log_probability((2 * d - 1) * eta))


def _logit_score(eta: Array, d: Array) -> tuple[Array, Array]:
    with np.errstate(over="ignore"):  # gives a probability of zero
        p = 1 / (1 + np.exp(-eta))  # faster than scipy's expit
    return d - p, p * (1 - p)


def _probit_score(eta: Array, d: Array) -> tuple[Array, Array]:
    sign = 2 * d - 1
    x = sign * eta
    # The normal density over the distribution function: in the tail both underflow, but not their logarithms.
    mills = np.exp(-0.5 * x * x - 0.5 * np.log(2 * np.pi) - log_ndtr(x))
    return sign * mills, mills * (mills + x)


def _hazard(eta: Array) -> Array:
    return np.exp(np.clip(eta, -LARGEST, LARGEST))


def _cloglog_probability(eta: Array) -> Array:
    return -np.expm1(-_hazard(eta))


def _cloglog_log_likelihood(eta: Array, d: Array) -> Array:
    hazard = _hazard(eta)
    with np.errstate(divide="ignore"):  # in the unused branch: log1p is for large probabilities, expm1 for small
        treated = np.where(hazard > 1, np.log1p(-np.exp(-hazard)), np.log(-np.expm1(-hazard)))
    return np.where(d > 0, treated, -hazard)


def _cloglog_score(eta: Array, d: Array) -> tuple[Array, Array]:
    hazard = _hazard(eta)
    with np.errstate(over="ignore"):  # gives infinite odds of the treated arm
        treated = hazard / np.expm1(hazard)
    return np.where(d > 0, treated, -hazard), np.where(d > 0, treated * (treated + hazard - 1), hazard)


BINARY_LINKS = {
    "logit": Link(expit, partial(_symmetric, log_expit), _logit_score),
    "probit": Link(ndtr, partial(_symmetric, log_ndtr), _probit_score),
    "cloglog": Link(_cloglog_probability, _cloglog_log_likelihood, _cloglog_score),
}


@dataclass(frozen=True)
class FamilyEntry:
    """A family: its class in statsmodels, a description and limits of its outcomes, and its links, the default first.

    `closed` says whether the smallest outcome itself is allowed.
    """

    statsmodels: str
    outcomes: str
    low: float
    high: float
    links: tuple[str, ...]
    closed: bool = True


NEGATIVE_BINOMIAL = "negativebinomial"  # its alpha comes from an object of statsmodels, and is not estimated
FAMILIES = {
    "gaussian": FamilyEntry("Gaussian", "numbers", -np.inf, np.inf, ("identity", "log")),
    "binomial": FamilyEntry("Binomial", "values from 0 to 1", 0.0, 1.0, tuple(BINARY_LINKS)),
    "poisson": FamilyEntry("Poisson", "values of zero or more", 0.0, np.inf, ("log",)),
    "gamma": FamilyEntry("Gamma", "values above zero", 0.0, np.inf, ("log",), closed=False),
    "inversegaussian": FamilyEntry("InverseGaussian", "values above zero", 0.0, np.inf, ("log",), closed=False),
    NEGATIVE_BINOMIAL: FamilyEntry("NegativeBinomial", "values of zero or more", 0.0, np.inf, ("log",)),
}
SPELLINGS = {name: name for name in FAMILIES} | {"normal": "gaussian", "logistic": "binomial", "bernoulli": "binomial"}
EVENT, NO_EVENT = np.array(1.0), np.array(0.0)


@dataclass(frozen=True)
class OutcomeFamily:
    """Family and link of an outcome model. `alpha` is the dispersion of the negative binomial."""

    name: str
    link: str
    alpha: float | None = None

    @cached_property
    def distribution(self) -> Any:
        """The family of statsmodels, for its variance function, deviance and starting values."""
        from statsmodels.genmod import families  # here, so that importing causalrisk stays fast

        own = {} if self.alpha is None else {"alpha": self.alpha}
        return getattr(families, self.entry.statsmodels)(getattr(families.links, CLASSES[self.link])(), **own)

    @property
    def entry(self) -> FamilyEntry:
        """Properties of the family under every link."""
        return FAMILIES[self.name]

    @property
    def linear(self) -> bool:
        """Whether the model is linear least squares."""
        return self.name == "gaussian" and self.link == "identity"

    @property
    def label(self) -> str:
        """Family and link as the summary prints them."""
        name = {NEGATIVE_BINOMIAL: "negative binomial", "inversegaussian": "inverse Gaussian"}.get(self.name, self.name)
        return "linear" if self.linear else f"{name} ({self.link})"

    @property
    def binary(self) -> Link | None:
        """The inverse link of a binomial model, otherwise None."""
        return BINARY_LINKS[self.link] if self.name == "binomial" else None

    def mean(self, eta: Array) -> Array:
        """Return the mean m at linear predictors of any shape."""
        if self.binary is not None:
            return self.binary.probability(eta)
        return eta if self.link == "identity" else np.exp(eta)

    def mean_and_derivs(self, eta: Array) -> tuple[Array, Array, Array]:
        """Return the mean at linear predictors of any shape, and its first two derivatives."""
        if self.binary is not None:  # the score at y = 1 is m' / m
            mean, (score, information) = self.binary.probability(eta), self.binary.score(eta, EVENT)
            return mean, mean * score, mean * (score**2 - information)
        mean = self.mean(eta)
        return (mean, np.ones_like(eta), np.zeros_like(eta)) if self.link == "identity" else (mean, mean, mean)

    def variance(self, mean: Array) -> Array:
        """Return the variance function V(m) at means m."""
        if self.binary is not None:
            return mean * (1 - mean)
        return np.ones_like(mean) if self.linear else np.asarray(self.distribution.variance(mean))

    def loss(self, y: Array, eta: Array) -> Array:
        """Return the negative log quasi-likelihood at dispersion one, up to terms that do not depend on `eta`."""
        if self.binary is not None:  # it is linear in y, and so holds for fractions
            one, zero = (self.binary.log_likelihood(eta, d) for d in (EVENT, NO_EVENT))
            return -(y * one + (1 - y) * zero)
        mean = self.mean(eta)
        return 0.5 * np.asarray(self.distribution.resid_dev(np.broadcast_to(y, mean.shape), mean)) ** 2

    def score(self, y: Array, eta: Array) -> tuple[Array, Array, Array]:
        """Return the score (y - m) m' / V(m), the observed information (minus its derivative) and the expected one."""
        if self.linear:
            one = np.ones_like(eta)
            return y - eta, one, one
        if self.binary is not None:
            (one, by_one), (zero, by_zero) = (self.binary.score(eta, d) for d in (EVENT, NO_EVENT))
            return y * one + (1 - y) * zero, y * by_one + (1 - y) * by_zero, -one * zero
        mean, slope, curvature = self.mean_and_derivs(eta)
        variance, residual = self.variance(mean), y - mean
        expected = slope**2 / variance
        by_mean = np.asarray(self.distribution.variance.deriv(mean))
        score = residual * slope / variance
        return score, expected - residual * (curvature - slope**2 * by_mean / variance) / variance, expected

    def _instead(self, y: Array, name: str) -> str:
        if self.name == "binomial":
            values = np.unique(y)
            if len(values) == 2:
                return f"Use `I({name} == {values[1]:g}) ~ ...` if that is the event."
            if y.min() >= 0 and 1 < y.max() <= 100:
                return f'Use `I({name} / 100) ~ ...` for percentages, else `family="gaussian"`.'
        if not self.entry.closed and y.min() == 0:
            return 'Use `family="poisson"`, which allows zeros.'
        return 'Use `family="gaussian"`.'

    def check(self, y: Array, name: str) -> None:
        """Raise a DesignError unless every outcome is in the family's range."""
        low, high = self.entry.low, self.entry.high
        bad = (y < low if self.entry.closed else y <= low) | (y > high)
        if bad.any():
            found = f"outcome {name!r} has {int(bad.sum())} values that family={self.name!r} does not allow"
            expected = f"expected {self.entry.outcomes}.\n{self._instead(y, name)}"
            raise DesignError(f"{found} (such as {y[bad][0]:g}); {expected}")


LINEAR = OutcomeFamily("gaussian", "identity")


def outcome_family(family: Any, link: Any) -> OutcomeFamily:
    """Return a family, given by name or as an instance of statsmodels, with a link by name or its default link."""
    if isinstance(family, type) and hasattr(family, "starting_mu"):  # a class of statsmodels
        family = family()
    name = family.lower() if isinstance(family, str) else type(family).__name__.lower()
    name, alpha = SPELLINGS.get(name, name), getattr(family, "alpha", None)
    if name not in FAMILIES or (name == NEGATIVE_BINOMIAL and alpha is None):
        names = ", ".join(repr(known) for known in FAMILIES if known != NEGATIVE_BINOMIAL)
        shown = f"={family!r} is not known" if isinstance(family, str) else f" is a {type(family).__name__}"
        close = nearest_name(name.partition("(")[0], SPELLINGS)
        advice = answer("family", name) or (f"Use `family={SPELLINGS[close]!r}`." if close else "Use one of them.")
        such = "a statsmodels object of these families, or sm.families.NegativeBinomial(alpha=1.0)"
        raise OptionError(f"family{shown}; expected one of {names}, {such}.\n{advice}")
    links = FAMILIES[name].links
    if link is None:
        given = None if isinstance(family, str) else type(family.link).__name__
        link = next((known for known in links if CLASSES[known] == given), links[0])
    typed = link if isinstance(link, str) else ""
    if typed not in links:
        binary = f'family="binomial"` for a 0/1 outcome, or `propensity_link={link!r}` for the propensity score.'
        instead = binary if typed in BINARY_LINKS else f"link={(nearest_name(link, links) or links[0])!r}`."
        expected = f"expected {' or '.join(map(repr, links))}"
        raise OptionError(f"link={link!r} is not available for family={name!r}; {expected}.\nUse `{instead}")
    return OutcomeFamily(name, link, alpha)
