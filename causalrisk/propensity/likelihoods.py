"""Likelihoods and losses of propensity models: binary, multinomial, calibrated."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from causalrisk.numerics.linalg import Array
from causalrisk.numerics.links import Link
from causalrisk.numerics.newton import Curvature

Arms = NDArray[np.signedinteger[Any]]


class BinaryLikelihood:
    """Bernoulli likelihood under any link.

    Parameters
    ----------
    link : Link
        The inverse link.
    arm : ndarray of int, shape (n,)
        Arm of each row, 0 or 1.
    """

    n_predictors, bounded = 1, True

    def __init__(self, link: Link, arm: Arms) -> None:
        self.link, self.arm = link, arm

    @property
    def treated(self) -> Array:
        """1.0 for treated rows, 0.0 for the others, shape (n, 1)."""
        return (self.arm > 0).astype(float)[:, None]

    def derivatives(self, eta: Array) -> tuple[Array, Curvature]:
        """As in `newton.Likelihood`."""
        score, information = self.link.score(eta[0], self.treated)
        return score[None], {(0, 0): information}

    def value(self, eta: Array) -> Array:
        """As in `newton.Likelihood`."""
        return self.link.log_likelihood(eta[0], self.treated)


class MultinomialLikelihood:
    """Multinomial logit likelihood; predictor l is the log odds of arm l + 1 against arm 0.

    Parameters
    ----------
    arm : ndarray of int, shape (n,)
        Arm of each row.
    n_arms : int
        K.
    """

    bounded = True

    def __init__(self, arm: Arms, n_arms: int) -> None:
        self.n_predictors = n_arms - 1
        self.indicators = (arm == np.arange(1, n_arms)[:, None])[:, :, None].astype(float)

    def derivatives(self, eta: Array) -> tuple[Array, Curvature]:
        """As in `newton.Likelihood`."""
        p = softmax(eta)[1:]
        curvature = {(k, k): p[k] * (1 - p[k]) for k in range(len(p))}
        curvature |= {(k, j): -p[k] * p[j] for j in range(len(p)) for k in range(j)}
        return self.indicators - p, curvature

    def value(self, eta: Array) -> Array:
        """As in `newton.Likelihood`."""
        full = np.concatenate([np.zeros_like(eta[:1]), eta])
        return (self.indicators * eta).sum(axis=0) - logsumexp(full, axis=0)


class CalibratedLoss:
    """Minus the calibration loss of Tan (2020): at its minimum the weighted covariates of an arm meet the target's.

    Predictor l belongs to arm ``arms[l]``; its weights are 1 + exp(-eta) for everybody as the target, exp(-eta) for the
    rows of one arm.

    Parameters
    ----------
    arm : ndarray of int, shape (n,)
        Arm of each row.
    arms : sequence of int
        The arms that are weighted.
    toward : int or None
        Arm whose rows are the target; None for everybody.

    References
    ----------
    .. [1] Tan, Z. (2020). Regularized calibrated estimation of propensity scores with model misspecification and
       high-dimensional data. Biometrika 107, 137-158.
    """

    bounded = True

    def __init__(self, arm: Arms, arms: Arms, toward: int | None) -> None:
        self.n_predictors = len(arms)
        self.own = (arm == arms[:, None])[:, :, None].astype(float)
        self.target = 1 - self.own if toward is None else (arm == toward)[None, :, None].astype(float)

    def derivatives(self, eta: Array) -> tuple[Array, Curvature]:
        """As in `newton.Likelihood`."""
        weight = self.own * np.exp(np.where(self.own > 0, -eta, 0.0))
        return weight - self.target, {(k, k): weight[k] for k in range(len(eta))}

    def value(self, eta: Array) -> Array:
        """As in `newton.Likelihood`."""
        weight = self.own * np.exp(np.where(self.own > 0, -eta, 0.0))
        return -(weight + self.target * eta).sum(axis=0)


def softmax(eta: Array) -> Array:
    """Probabilities of K arms, shape (K, ...), from the log odds of arms 1 .. K-1 against arm 0, (K - 1, ...)."""
    full = np.concatenate([np.zeros_like(eta[:1]), eta])
    full -= full.max(axis=0)
    np.exp(full, out=full)
    return full / full.sum(axis=0)
