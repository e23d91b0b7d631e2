"""Outcome families: mean, derivatives and quasi-likelihood of an outcome model, variance functions by statsmodels.

Every outcome model is a generalised linear model with mean m = g^{-1}(eta). Only the variance function counts, up to a
dispersion that cancels, so that fractions under "binomial" or non-integers under "poisson" are quasi-likelihood.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any

import numpy as np

from causalrisk.errors import DesignError, OptionError
from causalrisk.linalg import Array
from causalrisk.links import LINKS as BINARY_LINKS
from causalrisk.links import Link

LINKS = {
    "gaussian": ("identity", "log"),
    "binomial": ("logit", "probit", "cloglog"),
    "poisson": ("log",),
    "gamma": ("log",),
    "negativebinomial": ("log",),
}
ALIASES = {
    "normal": "gaussian",
    "logistic": "binomial",
    "bernoulli": "binomial",
    "negative_binomial": "negativebinomial",
}
MEANT = {"logit": "binomial", "probit": "binomial", "binary": "binomial", "ols": "gaussian", "count": "poisson"}
CLASSES = {"identity": "Identity", "log": "Log", "logit": "Logit", "probit": "Probit", "cloglog": "CLogLog"}
PRINTED = {"negativebinomial": "negative binomial"}
# family -> what its outcomes are, smallest and largest value, whether the smallest itself is allowed
DOMAINS: dict[str, tuple[str, float, float, bool]] = {
    "gaussian": ("numbers", -np.inf, np.inf, True),
    "binomial": ("values from 0 to 1", 0.0, 1.0, True),
    "poisson": ("values of zero or more", 0.0, np.inf, True),
    "gamma": ("values above zero", 0.0, np.inf, False),
    "negativebinomial": ("values of zero or more", 0.0, np.inf, True),
}
EVENT, NO_EVENT = np.array(1.0), np.array(0.0)


@dataclass(frozen=True)
class OutcomeFamily:
    """An outcome model's family and link.

    Parameters
    ----------
    name, link : str
        Names of the family and the link.
    distribution : statsmodels.genmod.families.Family
        The family, for its variance function and deviance.
    """

    name: str
    link: str
    distribution: Any

    @property
    def linear(self) -> bool:
        """Whether the model is linear least squares."""
        return self.name == "gaussian" and self.link == "identity"

    @property
    def label(self) -> str:
        """As the summary prints it."""
        return "linear" if self.linear else f"{PRINTED.get(self.name, self.name)} ({self.link})"

    @property
    def binary(self) -> Link | None:
        """The inverse link of a binomial model."""
        return BINARY_LINKS[self.link] if self.name == "binomial" else None

    def mean(self, eta: Array) -> Array:
        """Mean m at linear predictors of any shape."""
        if self.binary is not None:
            return self.binary.probability(eta)
        return eta if self.link == "identity" else np.exp(eta)

    def slope(self, eta: Array) -> Array:
        """First derivative of the mean by the linear predictor."""
        if self.binary is not None:  # the score at y = 1 is m' / m
            return self.binary.probability(eta) * self.binary.score(eta, EVENT)[0]
        return np.ones_like(eta) if self.link == "identity" else np.exp(eta)

    def bend(self, eta: Array) -> Array:
        """Second derivative of the mean by the linear predictor."""
        if self.binary is not None:
            score, information = self.binary.score(eta, EVENT)
            return self.binary.probability(eta) * (score**2 - information)
        return np.zeros_like(eta) if self.link == "identity" else np.exp(eta)

    def variance(self, mean: Array) -> Array:
        """Variance function V(m)."""
        return np.ones_like(mean) if self.linear else np.asarray(self.distribution.variance(mean))

    def loss(self, y: Array, eta: Array) -> Array:
        """Negative log quasi-likelihood at dispersion one, up to what does not depend on the linear predictor."""
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
        mean, slope = self.mean(eta), self.slope(eta)
        variance, residual = self.variance(mean), y - mean
        expected = slope**2 / variance
        by_mean = np.asarray(self.distribution.variance.deriv(mean))
        score = residual * slope / variance
        return score, expected - residual * (self.bend(eta) - slope**2 * by_mean / variance) / variance, expected

    def start(self, y: Array) -> Array:
        """Linear predictors to start from."""
        return np.asarray(self.distribution.link(self.distribution.starting_mu(y)))

    def check(self, y: Array, name: str) -> None:
        """Raise a DesignError unless every outcome is one the family knows.

        Parameters
        ----------
        y : ndarray, shape (n,)
            Outcome.
        name : str
            Its name, for the message.
        """
        what, low, high, closed = DOMAINS[self.name]
        bad = (y < low) | (y > high) | ((y == low) & (not closed))
        advice = 'Recode the outcome, or type  family="gaussian".'
        if self.name == "binomial":
            advice = f'Type  "I({name} == 1) ~ ..." or "I({name} / 100) ~ ...", or  family="gaussian".'
        if bad.any():
            raise DesignError(
                f"outcome {name!r} has {int(bad.sum())} values that family={self.name!r} does not know (such as "
                f"{y[bad][0]:g}); expected {what}.\n{advice}"
            )


def outcome_family(family: Any, link: Any) -> OutcomeFamily:
    """Return a family by name, or one of statsmodels.

    Parameters
    ----------
    family : str or statsmodels family
        "gaussian", "binomial", "poisson", "gamma", or an instance such as
        ``sm.families.NegativeBinomial(alpha=0.5)``.
    link : str or None
        Name of the link; None for the family's usual one.

    Returns
    -------
    OutcomeFamily
        The family.

    Raises
    ------
    OptionError
        If family or link is not known.
    """
    from statsmodels.genmod import families

    given = family
    if isinstance(family, type) and issubclass(family, families.Family):
        family = family()
    name = family.lower() if isinstance(family, str) else type(family).__name__.lower()
    name = ALIASES.get(name, name)
    if name not in LINKS:
        names = [known for known in LINKS if known != "negativebinomial"]
        close = [MEANT[name]] if name in MEANT else difflib.get_close_matches(name, names, 1, 0.4) or ["gaussian"]
        shown = repr(given) if isinstance(given, str) else f"a {type(given).__name__}"
        raise OptionError(
            f"family={shown} is not known; expected one of {', '.join(map(repr, names))}, or a family of statsmodels "
            f"such as sm.families.NegativeBinomial(alpha=1.0).\nType  family={close[0]!r}."
        )
    if name == "negativebinomial" and not hasattr(family, "alpha"):
        raise OptionError(
            f"family={given!r} does not say its alpha, which is not estimated.\n"
            "Type  family=sm.families.NegativeBinomial(alpha=1.0)."
        )
    if link is None and not isinstance(family, str):
        link = {v: k for k, v in CLASSES.items()}.get(type(family.link).__name__, "")
        link = link if link in LINKS[name] else LINKS[name][0]
    link = LINKS[name][0] if link is None else link
    if link not in LINKS[name]:
        raise OptionError(
            f"link={link!r} does not go with family={name!r}; expected {' or '.join(map(repr, LINKS[name]))}.\n"
            f"Type  link={LINKS[name][0]!r}."
        )
    kinds = {"negativebinomial": "NegativeBinomial"}
    extra = {"alpha": family.alpha} if hasattr(family, "alpha") else {}
    made = getattr(families, kinds.get(name, name.capitalize()))(getattr(families.links, CLASSES[link])(), **extra)
    return OutcomeFamily(name, link, made)
