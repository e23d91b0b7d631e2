"""Outcome families and links: mean, derivatives and quasi-likelihood, variance functions by statsmodels.

Every outcome model is a generalised linear model with mean m = g^{-1}(eta). Only the variance function counts, up to a
dispersion that cancels, so that fractions under "binomial" or non-integers under "poisson" are quasi-likelihood. The
links of binary models serve the propensity score as well.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.special import log_ndtr, ndtr

from causalrisk.errors import DesignError, OptionError, nearest_name
from causalrisk.errors.aliases import answer
from causalrisk.numerics.linalg import Array

LARGEST = 690.0  # predictors of a complementary log-log link are cut off here: exp(690) is about 1e300
CLASSES = {"identity": "Identity", "log": "Log", "logit": "Logit", "probit": "Probit", "cloglog": "CLogLog"}


class Link(ABC):
    """Inverse link of a binary model, as the functions of the linear predictor the package needs.

    They take the linear predictor eta, shape (n, ...), and maybe the treated indicator d, shape (n, 1) or (n,), and
    return arrays shaped like eta.
    """

    name: str

    @abstractmethod
    def probability(self, eta: Array) -> Array:
        """Return P(A = 1 | eta)."""

    @abstractmethod
    def probabilities(self, eta: Array) -> Array:
        """Return P(A = 0 | eta) and P(A = 1 | eta), shape (2, n, ...), each to all its digits."""

    @abstractmethod
    def score(self, eta: Array, d: Array) -> tuple[Array, Array]:
        """Return the first derivative of the log likelihood by eta, and minus the second."""

    @abstractmethod
    def log_likelihood(self, eta: Array, d: Array) -> Array:
        """Return the log likelihood of each unit."""

    def own_odds(self, eta: Array, d: Array) -> Array:
        """Return (1 - e) / e for the probability e of the unit's own arm; its inverse probability is 1 more."""
        with np.errstate(over="ignore"):
            return np.expm1(-self.log_likelihood(eta, d))

    def own_odds_slope(self, eta: Array, d: Array) -> Array:
        """Return the derivative of `own_odds` by eta."""
        return -self.score(eta, d)[0] * np.exp(-self.log_likelihood(eta, d))


class Logit(Link):
    """P(A = 1 | eta) = 1 / (1 + exp(-eta))."""

    name = "logit"

    def probability(self, eta: Array) -> Array:
        """As in `Link`."""
        return _complement(np.negative(eta, out=np.empty_like(eta)))

    def probabilities(self, eta: Array) -> Array:
        """As in `Link`; each from its own exponential: 1 - p has no digits left where p rounds to 1."""
        return _complement(np.stack([eta, -eta]))

    def score(self, eta: Array, d: Array) -> tuple[Array, Array]:
        """As in `Link`."""
        p = self.probability(eta)
        information = p * p
        np.subtract(p, information, out=information)
        return np.subtract(d, p, out=p), information

    def log_likelihood(self, eta: Array, d: Array) -> Array:
        """As in `Link`."""
        signed = (1 - 2 * d) * eta
        # -log(1 + exp(signed)): the exponent is never positive, so nothing overflows, and log1p keeps small terms.
        return np.asarray(-np.maximum(signed, 0.0) - np.log1p(np.exp(-np.abs(signed))))

    def own_odds(self, eta: Array, d: Array) -> Array:
        """As in `Link`, faster."""
        signed = np.asarray((1 - 2 * d) * eta)
        return np.exp(signed, out=signed)

    def own_odds_slope(self, eta: Array, d: Array) -> Array:
        """As in `Link`, faster."""
        return (1 - 2 * d) * self.own_odds(eta, d)


def _complement(eta: Array) -> Array:
    """Put 1 / (1 + exp(eta)) in the place of eta."""
    with np.errstate(over="ignore"):  # to a probability of zero
        np.exp(eta, out=eta)
    eta += 1
    return np.reciprocal(eta, out=eta)


class Probit(Link):
    """P(A = 1 | eta) is the normal distribution function."""

    name = "probit"

    def probability(self, eta: Array) -> Array:
        """As in `Link`."""
        return np.asarray(ndtr(eta))

    def probabilities(self, eta: Array) -> Array:
        """As in `Link`."""
        return np.asarray(ndtr(np.stack([-eta, eta])))

    def score(self, eta: Array, d: Array) -> tuple[Array, Array]:
        """As in `Link`, by the ratio of the normal density to the distribution function."""
        sign = 2 * d - 1
        x = sign * eta
        # Far out in the tail both underflow; the difference of their logarithms does not.
        mills = np.exp(-0.5 * x * x - 0.5 * np.log(2 * np.pi) - log_ndtr(x))
        return sign * mills, mills * (mills + x)

    def log_likelihood(self, eta: Array, d: Array) -> Array:
        """As in `Link`."""
        return np.asarray(log_ndtr((2 * d - 1) * eta))


class CLogLog(Link):
    """P(A = 1 | eta) = 1 - exp(-exp(eta)), the complementary log-log link."""

    name = "cloglog"

    def probability(self, eta: Array) -> Array:
        """As in `Link`."""
        return -np.expm1(-_hazard(eta))

    def probabilities(self, eta: Array) -> Array:
        """As in `Link`; expm1 keeps the digits of a small probability, of which 1 - exp would leave none."""
        hazard = -_hazard(eta)
        return np.stack([np.exp(hazard), -np.expm1(hazard)])

    def score(self, eta: Array, d: Array) -> tuple[Array, Array]:
        """As in `Link`."""
        hazard = _hazard(eta)
        with np.errstate(over="ignore"):  # to odds of the treated arm that are infinite
            treated = hazard / np.expm1(hazard)
        return np.where(d > 0, treated, -hazard), np.where(d > 0, treated * (treated + hazard - 1), hazard)

    def log_likelihood(self, eta: Array, d: Array) -> Array:
        """As in `Link`; log1p keeps the digits of what a large probability lacks, and expm1 those of a small one."""
        hazard = _hazard(eta)
        with np.errstate(divide="ignore"):  # of the one that is not used
            treated = np.where(hazard > 1, np.log1p(-np.exp(-hazard)), np.log(-np.expm1(-hazard)))
        return np.where(d > 0, treated, -hazard)


def _hazard(eta: Array) -> Array:
    """exp(eta) under the complementary log-log link; the predictor is cut off where exp reaches 1e-300 or 1e300."""
    return np.exp(np.clip(eta, -LARGEST, LARGEST))


BINARY_LINKS: dict[str, Link] = {link.name: link for link in (Logit(), Probit(), CLogLog())}


@dataclass(frozen=True)
class FamilyEntry:
    """Description of a family: names, links and possible outcomes.

    Parameters
    ----------
    name : str
        Spelling of the option.
    statsmodels : str
        Its class in `statsmodels.genmod.families`.
    outcomes : str
        Possible outcomes in words, for messages.
    low, high : float
        Smallest and largest outcome.
    closed : bool
        Whether the smallest outcome itself is allowed.
    links : tuple of str
        Links, the usual one first.
    aliases : tuple of str
        Other spellings, in lower case.
    printed : str
        Its name in tables, where that is another.
    """

    name: str
    statsmodels: str
    outcomes: str
    low: float = 0.0
    high: float = np.inf
    closed: bool = True
    links: tuple[str, ...] = ("log",)
    aliases: tuple[str, ...] = ()
    printed: str = ""


_ENTRIES = (
    FamilyEntry("gaussian", "Gaussian", "numbers", low=-np.inf, links=("identity", "log"), aliases=("normal",)),
    FamilyEntry(
        "binomial", "Binomial", "values from 0 to 1", high=1.0, links=tuple(BINARY_LINKS),
        aliases=("logistic", "bernoulli"),
    ),
    FamilyEntry("poisson", "Poisson", "values of zero or more"),
    FamilyEntry("gamma", "Gamma", "values above zero", closed=False),
    FamilyEntry(
        "negativebinomial", "NegativeBinomial", "values of zero or more", aliases=("negative_binomial",),
        printed="negative binomial",
    ),
    FamilyEntry(
        "inversegaussian", "InverseGaussian", "values above zero", closed=False, aliases=("inverse_gaussian",),
        printed="inverse Gaussian",
    ),
    FamilyEntry("tweedie", "Tweedie", "values of zero or more", printed="Tweedie"),
)  # fmt: skip
FAMILIES = {entry.name: entry for entry in _ENTRIES}
SPELLINGS = {name: entry.name for entry in _ENTRIES for name in (entry.name, *entry.aliases)}
PARAMETERS = {"negativebinomial": "alpha", "tweedie": "var_power"}  # what an object of statsmodels says, not estimated
TWEEDIE = {1: "poisson", 2: "gamma", 3: "inversegaussian"}  # families with these powers of the mean as variance
EVENT, NO_EVENT = np.array(1.0), np.array(0.0)


@dataclass(frozen=True)
class OutcomeFamily:
    """An outcome model's family and link.

    Parameters
    ----------
    name, link : str
        Names of the family and the link.
    parameter : float, optional
        Of the families of `PARAMETERS`: alpha of the negative binomial, the power of the Tweedie family.
    """

    name: str
    link: str
    parameter: float | None = None

    @cached_property
    def distribution(self) -> Any:
        """The family of statsmodels, for its variance function, deviance and starting values."""
        from statsmodels.genmod import families  # here, so that importing causalrisk stays fast

        own = {} if self.parameter is None else {PARAMETERS[self.name]: self.parameter}
        return getattr(families, FAMILIES[self.name].statsmodels)(getattr(families.links, CLASSES[self.link])(), **own)

    @property
    def low(self) -> float:
        """The smallest outcome."""
        return FAMILIES[self.name].low

    @property
    def high(self) -> float:
        """The largest outcome."""
        return FAMILIES[self.name].high

    @property
    def linear(self) -> bool:
        """True where the model is linear least squares."""
        return self.name == "gaussian" and self.link == "identity"

    @property
    def label(self) -> str:
        """Family and link as the summary prints them."""
        return "linear" if self.linear else f"{FAMILIES[self.name].printed or self.name} ({self.link})"

    @property
    def binary(self) -> Link | None:
        """The inverse link of a binomial model."""
        return BINARY_LINKS[self.link] if self.name == "binomial" else None

    def mean(self, eta: Array) -> Array:
        """Mean m at linear predictors of any shape."""
        if self.binary is not None:
            return self.binary.probability(eta)
        return eta if self.link == "identity" else np.exp(eta)

    def predictor(self, mean: Array) -> Array:
        """Linear predictor at means of any shape inside of their range: the link."""
        return mean if self.link == "identity" else np.asarray(self.distribution.link(mean))

    def mean_deriv(self, eta: Array) -> Array:
        """First derivative of the mean by the linear predictor."""
        if self.binary is not None:  # the score at y = 1 is m' / m
            return self.binary.probability(eta) * self.binary.score(eta, EVENT)[0]
        return np.ones_like(eta) if self.link == "identity" else np.exp(eta)

    def mean_deriv2(self, eta: Array) -> Array:
        """Second derivative of the mean by the linear predictor."""
        if self.binary is not None:
            score, information = self.binary.score(eta, EVENT)
            return self.binary.probability(eta) * (score**2 - information)
        return np.zeros_like(eta) if self.link == "identity" else np.exp(eta)

    def variance(self, mean: Array) -> Array:
        """Variance function V(m)."""
        return np.ones_like(mean) if self.linear else np.asarray(self.distribution.variance(mean))

    def loss(self, y: Array, eta: Array) -> Array:
        """Negative log quasi-likelihood at dispersion one, up to terms without the linear predictor."""
        if self.binary is not None:  # it is linear in y, and so holds for fractions
            one, zero = (self.binary.log_likelihood(eta, d) for d in (EVENT, NO_EVENT))
            return -(y * one + (1 - y) * zero)
        mean = self.mean(eta)
        return 0.5 * np.asarray(self.distribution.resid_dev(np.broadcast_to(y, mean.shape), mean)) ** 2

    def score(self, y: Array, eta: Array) -> tuple[Array, Array, Array]:
        """Return derivatives of the log quasi-likelihood by the linear predictor.

        Parameters
        ----------
        y, eta : ndarray, shapes that broadcast
            Outcome and linear predictor.

        Returns
        -------
        score : ndarray
            (y - m) m' / V(m).
        information : ndarray
            Minus the derivative of the score.
        expected : ndarray
            Its expectation, m'^2 / V(m).
        """
        if self.linear:
            one = np.ones_like(eta)
            return y - eta, one, one
        if self.binary is not None:
            (one, by_one), (zero, by_zero) = (self.binary.score(eta, d) for d in (EVENT, NO_EVENT))
            return y * one + (1 - y) * zero, y * by_one + (1 - y) * by_zero, -one * zero
        mean, slope = self.mean(eta), self.mean_deriv(eta)
        variance, residual = self.variance(mean), y - mean
        expected = slope**2 / variance
        by_mean = np.asarray(self.distribution.variance.deriv(mean))
        score = residual * slope / variance
        return score, expected - residual * (self.mean_deriv2(eta) - slope**2 * by_mean / variance) / variance, expected

    def start(self, y: Array) -> Array:
        """Linear predictors to start from."""
        return np.asarray(self.distribution.link(self.distribution.starting_mu(y)))

    def _instead(self, y: Array, name: str) -> str:
        """Advice for outcomes outside of the family."""
        typed = f"I({name.removeprefix('I(').removesuffix(')') if name.startswith('I(') else name}"
        if self.name == "binomial":
            values = np.unique(y)
            if len(values) == 2:
                return f"Use `{typed} == {values[1]:g}) ~ ...` if that is the event."
            if y.min() >= 0 and 1 < y.max() <= 100:
                return f'Use `{typed} / 100) ~ ...` for percentages, else `family="gaussian"`.'
        if not FAMILIES[self.name].closed and y.min() == 0:
            return 'Use `family="poisson"`, which allows zeros.'
        return 'Use `family="gaussian"`.'

    def check(self, y: Array, name: str) -> None:
        """Raise a DesignError unless every outcome is one the family knows.

        Parameters
        ----------
        y : ndarray, shape (n,)
            Outcome.
        """
        family = FAMILIES[self.name]
        bad = (y < family.low) | (y > family.high) | ((y == family.low) & (not family.closed))
        if bad.any():
            raise DesignError(
                f"outcome {name!r} has {int(bad.sum())} values that family={self.name!r} does not know (such as "
                f"{y[bad][0]:g}); expected {family.outcomes}.\n{self._instead(y, name)}"
            )


def _unknown(given: Any, name: str) -> OptionError:
    """Error that names the nearest family."""
    names = [known for known in FAMILIES if known not in PARAMETERS]
    shown = repr(given) if isinstance(given, str) else f"a {type(given).__name__}"
    close = nearest_name(name.partition("(")[0], SPELLINGS)
    advice = answer("family", name) or (f"Use `family={SPELLINGS[close]!r}`." if close else "Use one of them.")
    return OptionError(
        f"family={shown} is not known; expected one of {', '.join(map(repr, names))}, or a family of statsmodels "
        f"such as sm.families.NegativeBinomial(alpha=1.0).\n{advice}"
    )


def outcome_family(family: Any, link: Any) -> OutcomeFamily:
    """Return a family by name, or one of statsmodels.

    Parameters
    ----------
    family : str or statsmodels family
        "gaussian", "binomial", "poisson", "gamma", "inversegaussian", or an instance such as
        ``sm.families.NegativeBinomial(alpha=0.5)``.
    link : str or None
        Name of the link; None for the family's usual one.

    Raises
    ------
    OptionError
        If family or link is not known.
    """
    given = family
    if isinstance(family, type) and hasattr(family, "starting_mu"):  # a class of statsmodels
        family = family()
    name = family.lower() if isinstance(family, str) else type(family).__name__.lower()
    name = SPELLINGS.get(name, name)
    if name not in FAMILIES:
        raise _unknown(given, name)
    parameter: Any = getattr(family, PARAMETERS.get(name, ""), None)
    if name in PARAMETERS and parameter is None:
        usual = "NegativeBinomial(alpha=1.0)" if name == "negativebinomial" else "Tweedie(var_power=1.5)"
        raise OptionError(f"family={given!r} does not say its {PARAMETERS[name]}.\nUse `family=sm.families.{usual}`.")
    if name == "tweedie":
        name = TWEEDIE.get(parameter, name)
        if name == "tweedie" and not 1 < parameter < 2:
            raise OptionError(
                f"family: a Tweedie with var_power={parameter:g}; expected a power from 1 to 2, or 3.\n"
                "Use `family=sm.families.Tweedie(var_power=1.5)`."
            )
    if link is None and not isinstance(family, str):
        link = {v: k for k, v in CLASSES.items()}.get(type(family.link).__name__, "")
        link = link if link in FAMILIES[name].links else None
    links = FAMILIES[name].links
    link = links[0] if link is None else link
    if link not in links:
        raise OptionError(
            f"link={link!r} does not go with family={name!r}; expected {' or '.join(map(repr, links))}.\n"
            f"Use `link={(nearest_name(link, links) or links[0])!r}`"
            + (f", or `propensity_link={link!r}` for the propensity score." if link in BINARY_LINKS else ".")
        )
    return OutcomeFamily(name, link, parameter if name in PARAMETERS else None)
