"""Designs of published simulations, as far as the papers document them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit, ndtr

from causalrisk.numerics.arrays import Array
from causalrisk.simulation.designs import Design, Population


def main_effects(count: int) -> str:
    """Return the formula x1 + x2 + ... of `count` covariates."""
    return " + ".join(f"x{j + 1}" for j in range(count))


def make_units(columns: Any, score: Array, untreated: Array, effect: Array | float, variance: float) -> Population:
    """Return units from their covariates x1, x2, ..., means without treatment, effects, and the variance."""
    frame = pd.DataFrame({f"x{j + 1}": column for j, column in enumerate(columns)})
    mean = np.stack([untreated, untreated + effect])
    return Population(frame, score, mean, np.full(mean.shape, variance))


@dataclass(frozen=True)
class Hainmueller(Design):
    """Six covariates of several kinds, effect 0 [1]_.

    Parameters
    ----------
    outcome : {1, 2, 3}
        Mean outcome. 1: linear, so main effects are correctly specified. 2: moderately nonlinear. 3: the square of a
        sum.
    noise : float
        Variance of the normal noise in the choice of treatment: 30 gives strong confounding, 100 weak confounding.

    References
    ----------
    .. [1] Hainmueller, J. (2012). Entropy balancing for causal effects. Political Analysis 20, 25-46.
    """

    outcome: int = 3
    noise: float = 30.0
    effect = 0.0
    formula = f"y ~ {main_effects(6)}"

    def population(self, n: int, rng: np.random.Generator) -> Population:
        """Draw units; see `Design.population`."""
        covariance = np.array([[2, 1, -1], [1, 1, -0.5], [-1, -0.5, 1]])
        x1, x2, x3 = rng.multivariate_normal(np.zeros(3), covariance, size=n).T
        x4, x5, x6 = rng.uniform(-3, 3, n), rng.chisquare(1, n), (rng.random(n) < 0.5).astype(float)
        score = ndtr((x1 + 2 * x2 - 2 * x3 - x4 - 0.5 * x5 + x6) / np.sqrt(self.noise))
        if self.outcome == 1:
            mean = x1 + x2 + x3 - x4 + x5 + x6
        elif self.outcome == 2:
            mean = x1 + x2 + 0.2 * x3 * x4 - np.sqrt(x5)
        else:
            mean = (x1 + x2 + x5) ** 2
        return make_units([x1, x2, x3, x4, x5, x6], score, mean, 0.0, 1.0)


@dataclass(frozen=True)
class Froelich(Design):
    """One covariate, a wavy mean outcome, weak overlap and effect 0 [1]_ [2]_.

    Parameters
    ----------
    intercept, slope : float
        The propensity score is intercept + slope q, where q is the logistic function of sqrt(2) x1. With intercept 0.6
        and slope 0.4, there are few controls where x1 is large. With intercept 0 and slope 1, the groups have equal
        size, and overlap is weak both where x1 is small and where it is large.

    References
    ----------
    .. [1] Froelich, M. (2004). Finite-sample properties of propensity-score matching and weighting estimators. Review
       of Economics and Statistics 86, 77-90. The curve is the sixth of six.
    .. [2] Busso, M., DiNardo, J. and McCrary, J. (2014). New evidence on the finite sample properties of propensity
       score reweighting and matching estimators. Review of Economics and Statistics 96, 885-897.
    """

    intercept: float = 0.6
    slope: float = 0.4
    effect = 0.0
    formula = "y ~ x1"

    def population(self, n: int, rng: np.random.Generator) -> Population:
        """Draw units; see `Design.population`."""
        x = rng.normal(size=n)
        q = expit(np.sqrt(2) * x)
        mean = 0.4 + 0.25 * np.sin(8 * q - 5) + 0.4 * np.exp(-16 * (4 * q - 2.5) ** 2)
        return make_units([x], self.intercept + self.slope * q, mean, 0.0, 0.01)


@dataclass(frozen=True)
class LuncefordDavidian(Design):
    """Confounders x1 to x3, predictors of the outcome x4 to x6, and effect 2 [1]_. Both models are correctly specified.

    Parameters
    ----------
    confounding : float
        Absolute coefficient of the three confounders in the log odds of treatment: 0.6 is strong, 0.3 moderate.

    References
    ----------
    .. [1] Lunceford, J. K. and Davidian, M. (2004). Stratification and weighting via the propensity score in
       estimation of causal treatment effects. Statistics in Medicine 23, 2937-2960.
    """

    confounding: float = 0.6
    effect = 2.0
    formula = f"y ~ {main_effects(6)}"
    oracle_formula = formula
    oracle_propensity = "x1 + x2 + x3"

    def population(self, n: int, rng: np.random.Generator) -> Population:
        """Draw units; see `Design.population`."""
        x3 = (rng.random(n) < 0.2).astype(float)
        v3 = (rng.random(n) < np.where(x3 == 1, 0.75, 0.25)).astype(float)
        covariance = [[1, 0.5, -0.5, -0.5], [0.5, 1, -0.5, -0.5], [-0.5, -0.5, 1, 0.5], [-0.5, -0.5, 0.5, 1]]
        centre = np.where(x3[:, None] == 1, [1.0, 1.0, -1.0, -1.0], [-1.0, -1.0, 1.0, 1.0])
        x1, v1, x2, v2 = (centre + rng.multivariate_normal(np.zeros(4), covariance, size=n)).T
        score = expit(self.confounding * (x1 - x2 + x3))
        return make_units([x1, x2, x3, v1, v2, v3], score, -x1 + x2 - x3 - v1 + v2 + v3, 2.0, 1.0)


@dataclass(frozen=True)
class SetoguchiLee(Design):
    """Ten partly correlated covariates, a linear outcome that does not depend on x5 to x7, and effect -0.4 [1]_ [2]_.

    The log odds contain squares and products of the covariates ("scenario G"), which the analyst's formula omits.

    References
    ----------
    .. [1] Setoguchi, S. et al. (2008). Evaluating uses of data mining techniques in propensity score estimation.
       Pharmacoepidemiology and Drug Safety 17, 546-555.
    .. [2] Lee, B. K., Lessler, J. and Stuart, E. A. (2010). Improving propensity score weighting using machine
       learning. Statistics in Medicine 29, 337-346.
    """

    effect = -0.4
    formula = f"y ~ {main_effects(10)}"
    oracle_formula = formula
    efficiency_bound = np.inf  # because the log odds contain 0.7 x7^2

    def population(self, n: int, rng: np.random.Generator) -> Population:
        """Draw units; see `Design.population`."""
        covariance = np.eye(10)
        for first, second, correlation in ((0, 4, 0.2), (1, 5, 0.9), (2, 7, 0.2), (3, 8, 0.9)):
            covariance[first, second] = covariance[second, first] = correlation
        x = rng.multivariate_normal(np.zeros(10), covariance, size=n)
        binary = [0, 2, 4, 5, 7, 8]
        x[:, binary] = x[:, binary] > 0
        b = np.array([0.8, -0.25, 0.6, -0.4, -0.8, -0.5, 0.7])
        index = x[:, :7] @ b + x[:, [1, 3, 6]] ** 2 @ b[[1, 3, 6]]
        products = ((0, 2, 0.5), (1, 3, 0.7), (2, 4, 0.5), (3, 5, 0.7), (4, 6, 0.5))
        more = ((0, 5, 0.5), (1, 2, 0.7), (2, 3, 0.5), (3, 4, 0.5), (4, 5, 0.5))
        for first, second, factor in products + more:
            index += factor * b[first] * x[:, first] * x[:, second]
        mean = -3.85 + x[:, [0, 1, 2, 3, 7, 8, 9]] @ [0.3, -0.36, -0.73, -0.2, 0.71, -0.19, 0.26]
        return make_units(list(x.T), expit(index), mean, -0.4, 1.0)


@dataclass(frozen=True)
class HahnMurrayCarvalho(Design):
    """Five covariates, a propensity score that depends on the untreated mean outcome, and effects 1 + 2 x2 x5 [1]_.

    Parameters
    ----------
    linear : bool
        Whether the mean outcome without treatment is 1 + g(x4) + x1 x3, instead of -6 + g(x4) + 6 abs(x3 - 1).

    References
    ----------
    .. [1] Hahn, P. R., Murray, J. S. and Carvalho, C. M. (2020). Bayesian regression tree models for causal inference.
       Bayesian Analysis 15, 965-1056.
    """

    linear: bool = False
    effect = 1.0
    formula = "y ~ x1 + x2 + x3 + C(x4) + x5"

    def population(self, n: int, rng: np.random.Generator) -> Population:
        """Draw units; see `Design.population`."""
        x1, x2, x3 = rng.normal(size=(3, n))
        x4, x5 = rng.integers(1, 4, n), rng.integers(0, 2, n)
        level = np.array([2.0, -1.0, -4.0])[x4 - 1]
        mean = 1 + level + x1 * x3 if self.linear else -6 + level + 6 * np.abs(x3 - 1)
        score = 0.8 * ndtr(3 * mean / mean.std() - 0.5 * x1) + 0.05 + rng.random(n) / 10
        return make_units([x1, x2, x3, x4, x5], score, mean, 1 + 2 * x2 * x5, 1.0)


@dataclass(frozen=True)
class Tan(Design):
    """Many covariates, of which four are relevant, and curvature only in the treated group, after [1]_.

    Parameters
    ----------
    n_covariates : int
        Number of covariates; all are in both formulas. The correlation of xj and xk is 0.5^abs(j - k).

    References
    ----------
    .. [1] Tan, Z. (2020). Model-assisted inference for treatment effects using regularized calibrated estimation with
       high-dimensional data. Annals of Statistics 48, 811-837.
    """

    n_covariates: int = 20

    @property
    def formula(self) -> str:
        """Outcome formula with the main effects of all covariates."""
        return f"y ~ {main_effects(self.n_covariates)}"

    @property
    def oracle_propensity(self) -> str:
        """Formula of the analyst, which is correctly specified."""
        return self.propensity

    def population(self, n: int, rng: np.random.Generator) -> Population:
        """Draw units; see `Design.population`."""
        steps = np.arange(self.n_covariates)
        covariance = 0.5 ** np.abs(steps[:, None] - steps)
        x = rng.multivariate_normal(np.zeros(self.n_covariates), covariance, size=n)
        slopes = np.array([1.0, 0.5, 0.25, 0.125])
        mean = x[:, :4] @ slopes
        bent = (x[:, :4] + np.maximum(x[:, :4] + 1, 0) ** 2) @ slopes
        return make_units(list(x.T), expit(-1 + mean), mean, (bent - mean) / 2, 1.0)
