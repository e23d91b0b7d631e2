"""The distribution of the propensity score: coefficients of replicates.

Flows in: a weight fit, multiplicities of B replicates. Flows out: gamma_b.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causalrisk.errors import Failure
from causalrisk.numerics.linalg import Array, symmetric_root
from causalrisk.propensity.weights import WeightFit


@dataclass(frozen=True)
class Replicates:
    """The distribution of the propensity score.

    Parameters
    ----------
    gamma : ndarray, shape (S, B)
        Coefficients of the usable replicates.
    failures : ndarray of int8, shape (B_drawn,)
        A `Failure` for each replicate drawn.
    cubature : bool
        Whether they are the points of `of_normal`; else they are random.
    """

    gamma: Array
    failures: NDArray[np.int8]
    cubature: bool = False

    @property
    def count(self) -> int:
        """Number of usable replicates, B."""
        return self.gamma.shape[1]

    def shifts(self, gamma: Array) -> Array:
        """Distances of the replicates from a score, shape (S, B)."""
        return self.gamma - gamma[:, None]

    @classmethod
    def single(cls, gamma: Array) -> Replicates:
        """Return the distribution that has one value."""
        return cls(gamma[:, None], np.full(1, Failure.OK, dtype=np.int8))

    @classmethod
    def of_normal(cls, gamma: Array, covariance: Array) -> Replicates:
        """Return 2 S points that stand for a normal distribution about gamma, (S,), with a covariance, (S, S).

        Means over them of polynomials of third degree are those of the distribution: the spherical-radial rule [1]_.

        References
        ----------
        .. [1] Arasaratnam, I. and Haykin, S. (2009). Cubature Kalman filters. IEEE Transactions on Automatic Control
           54, 1254-1269.
        """
        root = symmetric_root(covariance)
        away = np.sqrt(len(gamma)) * np.hstack([root, -root])
        return cls(gamma[:, None] + away, np.full(2 * len(gamma), Failure.OK, dtype=np.int8), cubature=True)


def draw_replicates(weight_fit: WeightFit, draws: Iterable[Array]) -> Replicates:
    """Fit the propensity replicates under multiplicities, shape (n, m), some columns at a time."""
    fits = [weight_fit.refit(counts) for counts in draws]
    failures = np.concatenate([f.failures for f in fits])
    gamma = np.concatenate([f.coefficients for f in fits], axis=1)
    return Replicates(gamma[:, failures == Failure.OK], failures)
