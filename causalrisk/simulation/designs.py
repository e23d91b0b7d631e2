"""Simulation designs: populations with a known effect, and the formulas that an analyst would use.

`DESIGNS` has the named designs. Each design is a frozen dataclass, so ``dataclasses.replace(DESIGNS["strong"],
confounding=2)`` is a design with less overlap.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from operator import attrgetter
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from scipy.special import expit

from causalrisk.errors import OptionError, listed
from causalrisk.errors.aliases import near
from causalrisk.numerics.arrays import Array

# Units per block, and number of blocks, of the draw that gives effects and bounds without a closed form.
BLOCK, BLOCKS = 2**16, 16
SEED = 20251218


@dataclass(frozen=True)
class Population:
    """Units with their true propensity scores, and outcome moments given the covariates.

    Parameters
    ----------
    covariates : DataFrame, shape (n, p)
        Observed covariates of each unit.
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
    """One simulated sample, with its unobserved truth.

    Parameters
    ----------
    data : DataFrame, shape (n, p + 2)
        Observed data: outcome y, treatment d, covariates.
    y0, y1 : ndarray, shape (n,)
        Outcome of each unit without and with treatment. The observed y is one of the two.
    score : ndarray, shape (n,)
        True probability of treatment.
    """

    data: pd.DataFrame
    y0: Array
    y1: Array
    score: Array


@dataclass(frozen=True)
class Design:
    """A population, and the formulas that an analyst uses for samples from it.

    To define your own design, write a frozen dataclass that inherits from this class. Define `population` and
    `formula`. Define `propensity` if its covariates differ from those of `formula`. `effect` and `efficiency_bound` are
    computed from a large draw, unless you define them.

    Attributes
    ----------
    formula, propensity : str
        Formulas of the analyst. They are misspecified in designs that study misspecification.
    oracle_formula, oracle_propensity : str or None
        The correctly specified formulas; None if there is no such formula.
    """

    oracle_formula: ClassVar[Any] = None
    oracle_propensity: ClassVar[Any] = None

    @property
    def name(self) -> str:
        """Name in tables: the label or class name, and the parameters that differ from the defaults."""
        plain = "".join("_" + c.lower() if c.isupper() else c for c in type(self).__name__).strip("_")
        plain, changed = getattr(self, "label", "") or plain, []
        for field in fields(self):
            value, usual = getattr(self, field.name), getattr(DESIGNS.get(plain), field.name, field.default)
            if field.name != "label" and value != usual:
                changed.append(f"{field.name}={value!r}")
        return f"{plain}({', '.join(changed)})" if changed else plain

    @property
    def stream(self) -> str:
        """Key of the random numbers, by default the name: each design has its own random numbers."""
        return self.name

    @property
    def formula(self) -> str:
        """Outcome formula of the analyst."""
        raise OptionError(f"{type(self).__name__} has no formula.\nDefine the property `formula`.")

    @property
    def propensity(self) -> str:
        """Propensity formula of the analyst. By default, it has the covariates of the outcome formula."""
        return self.formula.partition("~")[2].strip()

    def population(self, n: int, rng: np.random.Generator) -> Population:
        """Draw units with their true propensity scores and outcome moments.

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
        raise OptionError(f"{type(self).__name__} has no population.\nDefine the method `population`.")

    def outcomes(self, population: Population, rng: np.random.Generator) -> Array:
        """Draw normal outcomes without and with treatment, shape (2, n). Both use the same standard normal noise."""
        noise = rng.normal(size=len(population.score))
        return population.mean + np.sqrt(population.variance) * noise

    def draw(self, n: int, rng: int | np.random.Generator) -> Draw:
        """Draw a sample.

        Parameters
        ----------
        n : int
            Number of rows.
        rng : int or Generator
            Source of randomness.

        Returns
        -------
        Draw
            The sample and its unobserved truth.

        Examples
        --------
        >>> from causalrisk.simulation import DESIGNS
        >>> drawn = DESIGNS["strong"].draw(3, rng=0)
        >>> list(drawn.data.columns)
        ['y', 'd', 'x1', 'x2', 'x3', 'x4']
        >>> bool(((drawn.data["y"] == drawn.y1) == (drawn.data["d"] == 1)).all())
        True
        """
        rng = np.random.default_rng(rng)
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
        """Semiparametric efficiency bound: the smallest asymptotic variance of sqrt(n) times the estimation error [1]_.

        It is infinite if the mean of 1 / score or 1 / (1 - score) is. A draw cannot show this: define it yourself.

        References
        ----------
        .. [1] Hahn, J. (1998). On the role of the propensity score in efficient semiparametric estimation of average
           treatment effects. Econometrica 66, 315-331.
        """
        return self._moments[1]

    @cached_property
    def _moments(self) -> tuple[float, float]:
        """Return the effect E[m1 - m0], and the efficiency bound E[v1 / e + v0 / (1 - e)] + Var(m1 - m0)."""
        blocks = []
        rng = np.random.default_rng(SEED)
        for units in (self.population(BLOCK, rng) for _ in range(BLOCKS)):
            effect = units.mean[1] - units.mean[0]
            noise = units.variance[1] / units.score + units.variance[0] / (1 - units.score)
            blocks.append((effect.mean(), (effect**2).mean(), noise.mean()))
        mean, square, noise_mean = np.mean(blocks, axis=0)
        return float(mean), float(noise_mean + square - mean**2)


@dataclass(frozen=True)
class Specified(Design):
    """A design with the samples of another design, but other formulas of the analyst.

    Parameters
    ----------
    base : Design
        Design that the samples are drawn from.
    label : str
        Name in tables.
    outcome_formula : str
        Outcome formula of the analyst.
    propensity_formula : str
        Propensity formula of the analyst.
    """

    base: Design
    label: str
    outcome_formula: str
    propensity_formula: str

    name = property(attrgetter("label"), doc="Name in tables.")
    stream = property(attrgetter("base.stream"), doc="Stream of `base`, so both have the same samples.")
    effect = property(attrgetter("base.effect"), doc="Effect of `base`.")
    efficiency_bound = property(attrgetter("base.efficiency_bound"), doc="Efficiency bound of `base`.")
    formula = property(attrgetter("outcome_formula"), doc="Outcome formula of the analyst.")
    propensity = property(attrgetter("propensity_formula"), doc="Propensity formula of the analyst.")

    def draw(self, n: int, rng: int | np.random.Generator) -> Draw:
        """Draw a sample of the design `base`."""
        return self.base.draw(n, rng)


SHAPES: dict[str, tuple[Callable[[Array], Array], str | None]] = {  # functions of the covariates, and their terms
    "square": (lambda x: x[:, 0] ** 2 - 1, "I(x1**2)"),
    "wave": (lambda x: np.sin(3 * x[:, 0]), None),
    "product": (lambda x: x[:, 0] * x[:, 1], "x1:x2"),
}


@dataclass(frozen=True)
class Linear(Design):
    """Normal covariates, logit treatment and linear outcome. By default, both models are correctly specified.

    Parameters
    ----------
    confounding : float
        Factor c of the log odds of treatment, c (x1 + 0.5 x2 - 0.25 x3). 0 gives a randomised trial, 1.5 little
        overlap.
    curvature : float
        Coefficient of the nonlinear term that a linear outcome model omits. It is twice as large for the treated.
    shape : {"square", "wave", "product"}
        The nonlinear term: x1^2 - 1, sin(3 x1) or x1 x2.
    score_curvature : float
        Coefficient of x1^2 - 1 in the log odds of treatment. The analyst's propensity formula omits this term.
    heterogeneity : float
        Slope of the effect in x1.
    n_covariates : int
        Number of covariates. The fourth and later covariates are irrelevant, but are in both formulas.
    tails : float
        Degrees of freedom of the t noise, which has variance 1. Infinite for normal noise, 3 for heavy tails.
    baseline : float
        Log odds of treatment at average covariates. At 0, half of the units are treated; at -2.2, one in ten.
    label : str
        Name in tables; by default the name of the class.

    Examples
    --------
    >>> from causalrisk.simulation import designs
    >>> mild = designs.Linear()
    >>> mild.formula, mild.propensity, mild.effect, round(mild.efficiency_bound, 2)
    ('y ~ x1 + x2 + x3 + x4', 'x1 + x2 + x3 + x4', 1.0, 4.47)
    >>> designs.Linear(confounding=1.5).name
    'linear(confounding=1.5)'
    """

    confounding: float = 0.4
    curvature: float = 0.0
    shape: str = "square"
    score_curvature: float = 0.0
    heterogeneity: float = 0.5
    n_covariates: int = 4
    tails: float = np.inf
    baseline: float = 0.0
    label: str = ""
    effect = 1.0  # the shapes average to zero

    def __post_init__(self) -> None:
        if not self.tails > 2:
            raise OptionError(f"tails={self.tails!r}; expected more than 2 degrees of freedom.\nUse `tails=3`.")

    @property
    def formula(self) -> str:
        """Outcome formula with the main effects of all covariates."""
        return "y ~ " + " + ".join(f"x{j + 1}" for j in range(self.n_covariates))

    @property
    def oracle_formula(self) -> str | None:
        """Outcome formula with main effects and the nonlinear term. None for "wave"."""
        if not self.curvature:
            return self.formula
        term = SHAPES[self.shape][1]
        return f"{self.formula} + {term}" if term else None

    @property
    def oracle_propensity(self) -> str:
        """Propensity formula with main effects, and the square of x1 if the log odds contain it."""
        return self.propensity + (" + I(x1**2)" if self.score_curvature else "")

    @cached_property
    def efficiency_bound(self) -> float:
        """Efficiency bound; infinite if `score_curvature` is 0.5 or more in absolute value."""
        return super().efficiency_bound if abs(self.score_curvature) < 0.5 else np.inf

    def population(self, n: int, rng: np.random.Generator) -> Population:
        """Draw units; see `Design.population`."""
        x = rng.normal(size=(n, self.n_covariates))
        index = self.confounding * (x[:, 0] + 0.5 * x[:, 1] - 0.25 * x[:, 2])
        score = expit(self.baseline + index + self.score_curvature * (x[:, 0] ** 2 - 1))
        bend = self.curvature * SHAPES[self.shape][0](x)
        untreated = x[:, 0] + x[:, 1] + 0.5 * x[:, 2] + bend
        mean = np.stack([untreated, untreated + (1 + self.heterogeneity * x[:, 0] + bend)])
        covariates = pd.DataFrame(x, columns=[f"x{j + 1}" for j in range(self.n_covariates)])
        return Population(covariates, score, mean, np.ones((2, n)))

    def outcomes(self, population: Population, rng: np.random.Generator) -> Array:
        """Draw outcomes with normal or t noise; see `Design.outcomes`."""
        if np.isinf(self.tails):
            return super().outcomes(population, rng)
        scale = np.sqrt((self.tails - 2) / self.tails)
        return population.mean + scale * rng.standard_t(self.tails, size=len(population.score))


@dataclass(frozen=True)
class BinaryOutcome(Linear):
    """A 0/1 outcome from a logit model. Estimators fit linear models to it unless `family` is given."""

    confounding: float = 1.0
    effect = Design.effect  # has no closed form

    def population(self, n: int, rng: np.random.Generator) -> Population:
        """Draw units. The linear predictor of the outcome is half the mean outcome of `Linear`."""
        units = super().population(n, rng)
        chance = expit(units.mean / 2)
        return Population(units.covariates, units.score, chance, chance * (1 - chance))

    def outcomes(self, population: Population, rng: np.random.Generator) -> Array:
        """Draw zeros and ones, with the same uniform number for both treatments."""
        return (rng.random(len(population.score)) < population.mean).astype(float)


@dataclass(frozen=True)
class KangSchafer(Design):
    """Kang and Schafer's design [1]_, with effect 0. By default, the formulas use functions of the true covariates.

    Parameters
    ----------
    confounding : float
        Factor of the log odds of treatment.
    misspecified : bool
        Whether both formulas use the functions x1 .. x4 instead of the true covariates z1 .. z4.

    References
    ----------
    .. [1] Kang, J. D. Y. and Schafer, J. L. (2007). Demystifying double robustness. Statistical Science 22, 523-539.
    """

    confounding: float = 1.0
    misspecified: bool = True
    effect = 0.0
    oracle_formula = "y ~ z1 + z2 + z3 + z4"
    oracle_propensity = "z1 + z2 + z3 + z4"

    @property
    def formula(self) -> str:
        """Outcome formula with main effects of the functions or, if not `misspecified`, of the true covariates."""
        return "y ~ x1 + x2 + x3 + x4" if self.misspecified else self.oracle_formula

    def population(self, n: int, rng: np.random.Generator) -> Population:
        """Draw units; see `Design.population`."""
        z = rng.normal(size=(n, 4))
        score = expit(self.confounding * (z @ [-1, 0.5, -0.25, -0.1]))
        mean = 210 + z @ [27.4, 13.7, 13.7, 13.7]
        x = (
            np.exp(z[:, 0] / 2),
            z[:, 1] / (1 + np.exp(z[:, 0])) + 10,
            (z[:, 0] * z[:, 2] / 25 + 0.6) ** 3,
            (z[:, 1] + z[:, 3] + 20) ** 2,
        )
        columns = {f"x{j + 1}": x[j] for j in range(4)} | {f"z{j + 1}": z[:, j] for j in range(4)}
        return Population(pd.DataFrame(columns), score, np.stack([mean, mean]), np.ones((2, n)))


LINEAR: dict[str, dict[str, Any]] = {  # parameters of `Linear`
    "linear": {},  # mild confounding; both models are correctly specified
    "linear_strong": {"confounding": 1.0},
    "heavy_tails": {"confounding": 0.7, "tails": 3.0},
    # In the others, the outcome formula of the analyst omits a term.
    "quadratic": {"curvature": 0.5},
    "strong": {"confounding": 1.2, "curvature": 0.35},
    "weak_overlap": {"confounding": 1.6, "curvature": 0.35},
    "ten_covariates": {"confounding": 0.7, "curvature": 0.2, "n_covariates": 10},
    "forty_covariates": {"confounding": 0.7, "curvature": 0.2, "n_covariates": 40},
    "wiggly": {"curvature": 0.5, "shape": "wave"},
    "interaction": {"confounding": 0.7, "curvature": 0.5, "shape": "product"},
    "rare_treatment": {"confounding": 0.6, "curvature": 0.35, "baseline": -2.2},
    "randomized": {"confounding": 0.0, "curvature": 0.5},
    # Here both formulas omit the same square.
    "doubly_wrong": {"confounding": 0.7, "curvature": 0.25, "score_curvature": 0.25},
}
DESIGNS: dict[str, Design] = {name: Linear(**parameters, label=name) for name, parameters in LINEAR.items()}
DESIGNS |= {"binary_outcome": BinaryOutcome(), "kang_schafer": KangSchafer()}


def find_design(design: Any) -> Design:
    """Return a design by its name, or the design itself. For an unknown name, the error suggests the nearest one."""
    if isinstance(design, Design):
        return design
    if isinstance(design, str) and design in DESIGNS:
        return DESIGNS[design]
    advice = near(str(design), DESIGNS) or 'Use `design="strong"`, another name, or an instance of your own class.'
    raise OptionError(f"design={design!r:.60} is not known; expected one of {listed(tuple(DESIGNS))}.\n{advice}")
