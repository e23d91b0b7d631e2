"""A design that looks like LaLonde's data: discrete covariates, many zeros, heavy tails, poor overlap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import expit

from causalrisk.numerics.linalg import Array
from causalrisk.simulation.population import Design, Population

CV = 0.8  # coefficient of variation of positive earnings given covariates


@dataclass(frozen=True)
class LalondeLike(Design):
    """Earnings like those of LaLonde's trainees beside a survey: discrete covariates, many zeros, heavy tails.

    A parametric look-alike of the 614 rows that MatchIt distributes, with coefficients rounded from fits to them. About
    a third are treated, most of them black, single and without earnings, and few of the others are.

    Parameters
    ----------
    confounding : float
        Factor of the score about its centre.
    effect_share : float
        Earnings with treatment as a share of those without, less one.
    """

    confounding: float = 1.0
    effect_share: float = 0.15

    @property
    def formula(self) -> str:
        """Main effects, earnings in thousands of dollars."""
        return "y ~ age + educ + black + hispan + married + nodegree + re74 + re75"

    @property
    def oracle_propensity(self) -> str:
        """The analyst's: the propensity model is right."""
        return self.propensity

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
        """Draw earnings: none, or lognormal; treatment multiplies them."""
        works, earned = _earnings(population.covariates)
        n, spread = len(works), np.log(1 + CV**2)
        drawn = earned * np.exp(rng.normal(-spread / 2, np.sqrt(spread), n)) * (rng.random(n) < works)
        return drawn * np.array([[1.0], [1 + self.effect_share]])


def _trainees(n: int, rng: np.random.Generator) -> pd.DataFrame:
    """Draw covariates, earnings in thousands of dollars a year."""
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
    """Chance to earn anything, and the mean of what is earned."""
    f = {name: frame[name].to_numpy(dtype=float) for name in frame}
    works = expit(1.6 - 0.035 * (f["age"] - 16) - 0.5 * f["black"] + 0.05 * f["re74"] + 0.1 * f["re75"])
    log_mean = 1.2 + 0.01 * f["age"] + 0.05 * f["educ"] + 0.02 * (f["re74"] + f["re75"]) - 0.1 * f["black"]
    return works, np.exp(log_mean)
