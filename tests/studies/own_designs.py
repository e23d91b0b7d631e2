"""Designs of this project's evidence: earnings as in a job training, and populations in which estimators lose."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import expit

from causalrisk.numerics.arrays import Array
from causalrisk.simulation.designs import Design, KangSchafer, Population
from tests.studies.published import main_effects, make_units

CV = 0.8  # coefficient of variation of positive earnings given covariates, in `LalondeLike`


@dataclass(frozen=True)
class MissedConfounder(Design):
    """The outcome formula omits a strong confounder that the propensity formula contains.

    Parameters
    ----------
    strength : float
        Coefficient of the confounder x1 in the log odds of treatment.
    """

    strength: float = 1.6
    effect = 1.0
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
    """

    curvature: float = 0.7
    effect = 0.0
    efficiency_bound = np.inf  # the log odds contain half of the square of x1
    formula = f"y ~ {main_effects(4)}"
    oracle_formula = f"{formula} + I(x1**2)"
    oracle_propensity = f"{main_effects(4)} + I(x1**2)"

    def population(self, n: int, rng: np.random.Generator) -> Population:
        """Draw units; see `Design.population`."""
        x = rng.normal(size=(n, 4))
        bend = x[:, 0] ** 2 - 1
        score = expit(0.7 * x[:, 0] + 0.35 * x[:, 1] + 0.5 * bend)
        untreated = x[:, 0] + x[:, 1] - self.curvature * bend
        return make_units(list(x.T), score, untreated, 2 * self.curvature * bend, 1.0)


@dataclass(frozen=True)
class KangSchaferMean(KangSchafer):
    """Kang and Schafer's original problem: the mean of an outcome that is observed only for the treated.

    An unobserved outcome is set to 0. The mean without treatment is then exactly 0, and the effect is the mean with
    treatment, 210.
    """

    effect = 210.0

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
    columns = {
        "age": age.astype(int), "educ": educ.astype(int), "black": (race == 1).astype(int),
        "hispan": (race == 2).astype(int), "married": married, "nodegree": (educ < 12).astype(int),
        "re74": before[0], "re75": before[1],
    }  # fmt: skip
    return pd.DataFrame(columns)


def _earnings(frame: pd.DataFrame) -> tuple[Array, Array]:
    """Return each unit's probability of positive earnings, and the mean of positive earnings."""
    f = {name: frame[name].to_numpy(dtype=float) for name in frame}
    works = expit(1.6 - 0.035 * (f["age"] - 16) - 0.5 * f["black"] + 0.05 * f["re74"] + 0.1 * f["re75"])
    log_mean = 1.2 + 0.01 * f["age"] + 0.05 * f["educ"] + 0.02 * (f["re74"] + f["re75"]) - 0.1 * f["black"]
    return works, np.exp(log_mean)
