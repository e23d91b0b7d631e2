"""Designs of simulations: a population to draw from, its true effect, and the formulas of an analyst."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from functools import cached_property

import numpy as np
import pandas as pd

from causalrisk.numerics.linalg import Array

BLOCK, BLOCKS = 2**16, 16  # units in all from which effects and bounds without a closed form are computed
SEED = 20251218


@dataclass(frozen=True)
class Population:
    """Units with their true scores and outcome distributions given the covariates.

    Parameters
    ----------
    covariates : DataFrame, shape (n, p)
        Covariates recorded of each unit.
    score : ndarray, shape (n,)
        True probability of treatment.
    mean, variance : ndarray, shape (2, n)
        Mean and variance of the outcome without and with treatment.
    """

    covariates: pd.DataFrame
    score: Array
    mean: Array
    variance: Array


@dataclass(frozen=True)
class Draw:
    """One simulated sample, with the truth that no analyst sees.

    Parameters
    ----------
    data : DataFrame, shape (n, p + 2)
        Data of the analyst: outcome y, treatment d, covariates.
    y0, y1 : ndarray, shape (n,)
        Outcome of each unit without and with treatment, in units of the outcome; y is one of the two.
    score : ndarray, shape (n,)
        True probability of treatment.
    """

    data: pd.DataFrame
    y0: Array
    y1: Array
    score: Array


@dataclass(frozen=True)
class Design:
    """A population, and the models an analyst fits to samples of it.

    A design of your own is a frozen dataclass under this class with `population`, and, unless its columns are x1 .. xp
    and the analyst uses them all, with the formulas.

    Attributes
    ----------
    formula, propensity : str
        Formulas of the analyst, wrong on purpose where the design is about that.
    oracle_formula, oracle_propensity : str or None
        The right models; None where no formula writes them.
    """

    @property
    def name(self) -> str:
        """Name in tables: the class's, with the knobs that were turned."""
        plain = "".join("_" + c.lower() if c.isupper() else c for c in type(self).__name__).strip("_")
        knobs = [
            f"{f.name}={getattr(self, f.name)!r}"
            for f in fields(self)
            if f.default is MISSING or getattr(self, f.name) != f.default
        ]
        return f"{plain}({', '.join(knobs)})" if knobs else plain

    @property
    def stream(self) -> str:
        """Key of the design's random numbers, which differ from those of other designs: its name."""
        return self.name

    @property
    def formula(self) -> str:
        """Outcome formula that the analyst types."""
        raise TypeError(f"{type(self).__name__} has no formula; define the property.")

    @property
    def propensity(self) -> str:
        """Propensity formula that the analyst types; by default the covariates of the outcome formula."""
        return self.formula.partition("~")[2].strip()

    @property
    def oracle_formula(self) -> str | None:
        """Outcome formula that is right."""
        return None

    @property
    def oracle_propensity(self) -> str | None:
        """Propensity formula that is right."""
        return None

    def population(self, n: int, rng: np.random.Generator) -> Population:
        """Draw units and the truth about them.

        Parameters
        ----------
        n : int
            Number of units.
        rng : Generator
            Source of randomness.

        Returns
        -------
        Population
            The units.
        """
        raise TypeError(f"{type(self).__name__} has no population; define the method.")

    def outcomes(self, population: Population, rng: np.random.Generator) -> Array:
        """Draw the outcomes of units without and with treatment, shape (2, n): normal, with the same noise in both."""
        noise = rng.normal(size=len(population.score))
        return population.mean + np.sqrt(population.variance) * noise

    def draw(self, n: int, rng: np.random.Generator) -> Draw:
        """Draw a sample.

        Parameters
        ----------
        n : int
            Rows.
        rng : Generator
            Source of randomness.

        Returns
        -------
        Draw
            The sample, and the truth that the analyst does not see.

        Examples
        --------
        >>> import numpy as np
        >>> from causalrisk.simulation import designs
        >>> drawn = designs.Strong().draw(3, np.random.default_rng(0))
        >>> list(drawn.data.columns)
        ['y', 'd', 'x1', 'x2', 'x3', 'x4']
        >>> bool(((drawn.data["y"] == drawn.y1) == (drawn.data["d"] == 1)).all())
        True
        """
        units = self.population(n, rng)
        treated = rng.random(n) < units.score
        y0, y1 = self.outcomes(units, rng)
        data = pd.DataFrame({"y": np.where(treated, y1, y0), "d": treated.astype(int)})
        return Draw(pd.concat([data, units.covariates], axis=1), y0, y1, units.score)

    @cached_property
    def effect(self) -> float:
        """True average treatment effect, in units of the outcome."""
        return self._moments[0]

    @cached_property
    def efficiency_bound(self) -> float:
        """Least asymptotic variance of sqrt(n) times the error of a regular estimator of the effect [1]_.

        References
        ----------
        .. [1] Hahn, J. (1998). On the role of the propensity score in efficient semiparametric estimation of average
           treatment effects. Econometrica 66, 315-331.
        """
        return self._moments[1]

    @cached_property
    def _moments(self) -> tuple[float, float]:
        """Effect, and E[v1 / e + v0 / (1 - e)] + Var(effect given covariates)."""
        sums, count = np.zeros(3), 0
        for units in self._units():
            count += 1
            effect = units.mean[1] - units.mean[0]
            noise = units.variance[1] / units.score + units.variance[0] / (1 - units.score)
            sums += effect.mean(), (effect**2).mean(), noise.mean()
        mean, square, noise_mean = sums / count
        return float(mean), float(noise_mean + square - mean**2)

    def _units(self) -> Iterator[Population]:
        rng = np.random.default_rng(SEED)
        return (self.population(BLOCK, rng) for _ in range(BLOCKS))


@dataclass(frozen=True)
class Specified(Design):
    """Another design's samples under other formulas.

    Parameters
    ----------
    base : Design
        Design with the same samples, to the last digit.
    label : str
        Name in tables.
    outcome_formula : str
        Outcome formula that the analyst types.
    propensity_formula : str
        Propensity formula that the analyst types.
    """

    base: Design
    label: str
    outcome_formula: str
    propensity_formula: str

    @property
    def name(self) -> str:
        """Name in tables."""
        return self.label

    @property
    def stream(self) -> str:
        """Stream of the other design, so that the samples are the same."""
        return self.base.stream

    @property
    def formula(self) -> str:
        """Outcome formula that the analyst types."""
        return self.outcome_formula

    @property
    def propensity(self) -> str:
        """Propensity formula that the analyst types."""
        return self.propensity_formula

    def draw(self, n: int, rng: np.random.Generator) -> Draw:
        """Draw a sample of the other design."""
        return self.base.draw(n, rng)

    @property
    def effect(self) -> float:
        """True average treatment effect."""
        return self.base.effect

    @property
    def efficiency_bound(self) -> float:
        """Bound of the other design."""
        return self.base.efficiency_bound
