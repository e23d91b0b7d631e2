"""Ridge regression whose penalties maximise the restricted likelihood, from sums of squares and products.

The coefficients of standardised columns are penalised; those of curves and products as much as those of the covariates
or more, or they are left out, so that many columns of which few matter do not hide a straight line. Penalties maximise
the restricted likelihood of the model in which coefficients are normal [1]_ [2]_, which the eigenvalues of the sums of
squares and products give for every penalty at once.

References
----------
.. [1] Patterson, H. D. and Thompson, R. (1971). Recovery of inter-block information when block sizes are unequal.
   Biometrika 58, 545-554.
.. [2] Wood, S. N. (2011). Fast stable restricted maximum likelihood and marginal likelihood estimation of
   semiparametric generalized linear models. Journal of the Royal Statistical Society B 73, 3-36.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import itemgetter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from causalrisk.numerics.linalg import Array

Kinds = NDArray[np.intp]
SHARES = (0.0, 0.1, 0.3, 1.0)  # standard deviations of coefficients of curves and products that are tried, see `Choice`
FIRST = 0.3  # that of the curves while that of the products is chosen
PENALTIES = np.geomspace(1e4, 1e-8, 49)  # relative to the number of rows, the largest first
NO_VARIATION = 1e-12  # mean square about its mean below which a column is constant; covariates have 1
NO_INFORMATION = 1e-14  # eigenvalue of sums of products, relative to the largest, that is rounding error


def coefficients_of(solution: Array, unit: Array, origin: float = 0.0) -> Array:
    """Coefficients of the constant and of the columns as they are, of outcomes about an origin."""
    return np.concatenate([[solution[0] + origin], solution[1:] * unit])


@dataclass(frozen=True)
class RidgeSums:
    """Weighted sums of products of the constant, the q columns and the outcome, (q + 2, q + 2); blocks add up."""

    products: Array
    count: float

    def problem(self, kinds: Kinds, unit: Array | None = None) -> RidgeProblem:
        """Return the problem of columns times `unit`, by default one over their deviation, 0 for constants."""
        total = float(self.products[0, 0])
        mean = self.products[0, 1:] / total
        centred = self.products[1:, 1:] - total * np.outer(mean, mean)
        if unit is None:
            squares = np.diag(centred)[:-1] / total
            unit = np.where(squares > NO_VARIATION, 1 / np.sqrt(np.maximum(squares, NO_VARIATION)), 0.0)
        gram, inner = centred[:-1, :-1] * np.outer(unit, unit), centred[:-1, -1] * unit
        return RidgeProblem(total, self.count, mean, unit, kinds, float(centred[-1, -1]), gram, inner)


@dataclass(frozen=True)
class RidgeProblem:
    """Ridge regressions on standardised columns, each row times the root of its weight.

    `total` is the sum of the weights, `count` the number of rows they stand for, `mean` (q + 1,) the means of columns
    and outcome, `unit` (q,) the factors of the columns, `kinds` as in `SmoothBasis`, `square` the outcome's sum of
    squares about its mean, `gram` (q, q) and `inner` (q,) products of the columns and with the outcome.
    """

    total: float
    count: float
    mean: Array
    unit: Array
    kinds: Kinds
    square: float
    gram: Array
    inner: Array

    def spectrum(self, shares: tuple[float, float]) -> tuple[Array, Array, Array]:
        """Return squared singular values (r,) of the columns, their directions, and the outcome along these."""
        factors = self.factors(shares)
        used = factors > 0
        values, vectors = np.linalg.eigh((self.gram * np.outer(factors, factors))[np.ix_(used, used)])
        known = values > values.max(initial=0.0) * NO_INFORMATION
        values = np.where(known, values, 0.0)
        along = vectors.T @ (self.inner * factors)[used]
        return values, vectors, np.divide(along, np.sqrt(values), out=np.zeros_like(along), where=known)

    def factors(self, shares: tuple[float, float]) -> Array:
        """Return factors of the columns, shape (q,), under which the penalty of all is the same."""
        return np.array([1.0, *shares])[self.kinds]

    def choose(self, penalties: Array) -> Choice:
        """Return what is likeliest: first the products' share is chosen, then that of the curves."""
        curves, products = (SHARES if (self.kinds == kind).any() else (0.0,) for kind in (1, 2))
        _, found = min((self._best((FIRST, share), penalties) for share in products), key=itemgetter(0))
        return min((self._best((share, found.shares[1]), penalties) for share in curves), key=itemgetter(0))[1]

    def _best(self, shares: tuple[float, float], penalties: Array) -> tuple[float, Choice]:
        deviance = self.deviance(shares, penalties)
        least = int(np.argmin(deviance))
        return float(deviance[least]), Choice(shares, float(penalties[least]))

    def deviance(self, shares: tuple[float, float], penalties: Array) -> Array:
        """Return minus twice the log restricted likelihood at each penalty, up to a constant.

        Of the model in which the coefficients are normal, their variances those of the noise divided by the penalty,
        with the variance of the noise at its maximum. Infinite where the fit has more than half a degree of freedom for
        each row: few rows do not tell a smooth outcome from one that they happen to fit.

        Generalised cross-validation, which is found from the same numbers, follows the noise at times, above all with
        few rows; with a factor against that, as `gamma` of R's mgcv, it misses more where columns are many.
        """
        values, _, along = self.spectrum(shares)
        inside = float(along @ along)
        rest = max(self.square - inside, 0.0)
        kept = values / (values + penalties[:, None])
        squares = np.maximum((1 - kept) @ along**2 + rest, (inside + rest) * NO_INFORMATION)
        found = (self.count - 1) * np.log(squares) + np.log1p(values / penalties[:, None]).sum(axis=1)
        return np.where(1 + kept.sum(axis=1) <= self.count / 2, found, np.inf)

    def solution(self, choice: Choice) -> Array:
        """Return the constant, and the slopes of the columns in their units, shape (q + 1,)."""
        slopes, (values, vectors, along) = self.factors(choice.shares), self.spectrum(choice.shares)
        slopes[slopes > 0] *= vectors @ (np.sqrt(values) * (along / (values + choice.penalty)))
        return np.concatenate([[self.mean[-1] - self.mean[:-1] @ (slopes * self.unit)], slopes])


class Choice(NamedTuple):
    """Penalty of the covariates' coefficients, and relative standard deviations of those of curves and products.

    A share of 0 leaves columns out.
    """

    shares: tuple[float, float]
    penalty: float
