"""Designs of published simulations (as far as documented), one like LaLonde's data, and two in which JRE does worse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
from scipy.special import expit, ndtr

from causalrisk.numerics.arrays import Array
from causalrisk.simulation.designs import DESIGNS, Design, KangSchafer, Population, main_effects, make_units

CV = 0.8  # coefficient of variation of positive earnings given covariates


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
    known_effect: ClassVar[float | None] = 0.0
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
    known_effect: ClassVar[float | None] = 0.0
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
    known_effect: ClassVar[float | None] = 2.0
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

    known_effect: ClassVar[float | None] = -0.4
    formula = f"y ~ {main_effects(10)}"
    oracle_formula = formula
    has_bound = False  # because the log odds contain 0.7 x7^2; see `Design.has_bound`

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
    known_effect: ClassVar[float | None] = 1.0
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


@dataclass(frozen=True)
class MissedConfounder(Design):
    """The outcome formula omits a strong confounder that the propensity formula contains.

    Parameters
    ----------
    strength : float
        Coefficient of the confounder x1 in the log odds of treatment.
    """

    strength: float = 1.6
    known_effect: ClassVar[float | None] = 1.0
    formula = "y ~ x2 + x3 + x4 + x5"
    propensity = main_effects(5)
    oracle_formula = f"y ~ {main_effects(5)}"
    oracle_propensity = propensity

    def population(self, n: int, rng: np.random.Generator) -> Population:
        """Draw units; see `Design.population`."""
        x = rng.normal(size=(n, 5))
        score = expit(self.strength * (x[:, 0] + 0.5 * x[:, 1]))
        return make_units(list(x.T), score, x[:, 0] + x[:, 1], 1.0, 1.0)


@dataclass(frozen=True)
class OppositeCurves(Design):
    """The outcome depends on x1^2 with opposite signs in the two groups, and both formulas of the analyst omit x1^2.

    Parameters
    ----------
    curvature : float
        Coefficient of x1^2 - 1 in the outcome with treatment. Without treatment, the coefficient has the opposite sign.
    score_curvature : float
        Coefficient of x1^2 - 1 in the log odds of treatment.
    """

    curvature: float = 0.7
    score_curvature: float = 0.5
    known_effect: ClassVar[float | None] = 0.0
    formula = f"y ~ {main_effects(4)}"
    oracle_formula = f"{formula} + I(x1**2)"
    oracle_propensity = f"{main_effects(4)} + I(x1**2)"

    def population(self, n: int, rng: np.random.Generator) -> Population:
        """Draw units; see `Design.population`."""
        x = rng.normal(size=(n, 4))
        bend = x[:, 0] ** 2 - 1
        score = expit(0.7 * x[:, 0] + 0.35 * x[:, 1] + self.score_curvature * bend)
        untreated = x[:, 0] + x[:, 1] - self.curvature * bend
        return make_units(list(x.T), score, untreated, 2 * self.curvature * bend, 1.0)


@dataclass(frozen=True)
class KangSchaferMean(KangSchafer):
    """Kang and Schafer's original problem: the mean of an outcome that is observed only for the treated.

    An unobserved outcome is set to 0. The mean without treatment is then exactly 0, and the effect is the mean with
    treatment, 210.
    """

    known_effect: ClassVar[float | None] = 210.0

    def population(self, n: int, rng: np.random.Generator) -> Population:
        """Draw units; see `Design.population`."""
        drawn, seen = super().population(n, rng), np.array([[0.0], [1.0]])
        return Population(drawn.covariates, drawn.score, seen * drawn.mean, seen * drawn.variance)


@dataclass(frozen=True)
class LalondeLike(Design):
    """Earnings as in LaLonde's data with survey controls: discrete covariates, many zeros, heavy tails.

    The design is a parametric model of the 614 rows that MatchIt distributes, with rounded coefficients. About a third
    of the units are treated. Unlike the controls, most treated units are black, single and without earnings.

    Parameters
    ----------
    confounding : float
        Factor of the log odds of treatment, relative to their centre.
    effect_share : float
        Relative increase of earnings under treatment.
    """

    confounding: float = 1.0
    effect_share: float = 0.15
    formula = "y ~ age + educ + black + hispan + married + nodegree + re74 + re75"
    oracle_propensity = formula.removeprefix("y ~ ")  # the propensity model of the analyst is correctly specified

    def population(self, n: int, rng: np.random.Generator) -> Population:
        """Draw units; see `Design.population`."""
        frame = _trainees(n, rng)
        index = frame.to_numpy() @ [0.016, 0.16, 3.1, 1.0, -0.8, 0.7, -0.07, 0.05]  # in the order of _trainees
        score = expit(self.confounding * (index - 3.3) - 1.2)
        works, earned = _earnings(frame)
        # A share `works` earns; what they earn has coefficient of variation CV: two moments of the mixture.
        mean = np.stack([works * earned, works * earned * (1 + self.effect_share)])
        return Population(frame, score, mean, mean**2 * ((1 + CV**2) / works - 1))

    def outcomes(self, population: Population, rng: np.random.Generator) -> Array:
        """Draw earnings that are zero or lognormal. Treatment multiplies earnings by a factor."""
        works, earned = _earnings(population.covariates)
        n, spread = len(works), np.log(1 + CV**2)
        drawn = earned * np.exp(rng.normal(-spread / 2, np.sqrt(spread), n)) * (rng.random(n) < works)
        return drawn * np.array([[1.0], [1 + self.effect_share]])


def _trainees(n: int, rng: np.random.Generator) -> pd.DataFrame:
    """Draw the covariates of n units. Earnings are in thousands of dollars a year."""
    race = rng.choice(3, size=n, p=[0.49, 0.4, 0.11])
    age = np.clip(np.round(16 + rng.gamma(1.4, 8, n)), 16, 55)
    educ = np.clip(np.round(rng.normal(10.3, 2.5, n)), 0, 17)
    married = (rng.random(n) < expit(-2.2 + 0.07 * age - 1.2 * (race == 1))).astype(int)
    level = 1.2 + 0.02 * age + 0.6 * married - 0.3 * (race == 1)
    before = []
    for fall in (0.0, 0.5):
        works = rng.random(n) < expit(0.6 + 0.6 * married - 0.7 * (race == 1))
        before.append(np.round(works * np.minimum(np.exp(level - fall + rng.normal(0, 0.8, n)), 25), 3))
    return pd.DataFrame(
        {
            "age": age.astype(int), "educ": educ.astype(int), "black": (race == 1).astype(int),
            "hispan": (race == 2).astype(int), "married": married, "nodegree": (educ < 12).astype(int),
            "re74": before[0], "re75": before[1],
        }
    )  # fmt: skip


def _earnings(frame: pd.DataFrame) -> tuple[Array, Array]:
    """Return each unit's probability of positive earnings, and the mean of positive earnings."""
    f = {name: frame[name].to_numpy(dtype=float) for name in frame}
    works = expit(1.6 - 0.035 * (f["age"] - 16) - 0.5 * f["black"] + 0.05 * f["re74"] + 0.1 * f["re75"])
    log_mean = 1.2 + 0.01 * f["age"] + 0.05 * f["educ"] + 0.02 * (f["re74"] + f["re75"]) - 0.1 * f["black"]
    return works, np.exp(log_mean)


DESIGNS |= {
    design.name: design
    for design in (
        LalondeLike(), KangSchaferMean(), Hainmueller(), Froelich(), LuncefordDavidian(), SetoguchiLee(),
        HahnMurrayCarvalho(), Tan(), MissedConfounder(), OppositeCurves(),
    )
}  # fmt: skip
