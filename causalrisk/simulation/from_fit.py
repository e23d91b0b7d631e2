"""Simulate from the user's own fit: their covariates, with treatment and outcomes by their fitted models."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit, logit

from causalrisk.errors import OptionError, one_of
from causalrisk.models.estimators import JRE
from causalrisk.models.results import CausalResults
from causalrisk.numerics.linalg import Array
from causalrisk.simulation.designs import Design, Population
from causalrisk.simulation.results import StudyResults
from causalrisk.simulation.study import choose_estimators, run_study

WRONG = ("none", "outcome", "propensity", "both")


@dataclass(frozen=True, eq=False)
class Plasmode(Design):
    """Rows of a data set, with treatment and outcomes from models fitted to it.

    Parameters
    ----------
    wrong : {"none", "outcome", "propensity", "both"}
        Fitted models that were changed, to misspecify the analyst's models.
    strength : float
        Size of the change, in standard deviations of the residuals and in units of the log odds.
    covariates : DataFrame, shape (N, p + q)
        Columns x1 .. xp of the outcome model and z1 .. zq of the propensity model.
    score : ndarray, shape (N,)
        Probability of treatment.
    mean : ndarray, shape (2, N)
        Mean outcome without and with treatment.
    residuals : tuple of two ndarray
        Residuals of each arm, centred.
    """

    wrong: str
    strength: float
    covariates: pd.DataFrame = field(repr=False)
    score: Array = field(repr=False)
    mean: Array = field(repr=False)
    residuals: tuple[Array, Array] = field(repr=False)

    @property
    def name(self) -> str:
        """Name in tables."""
        return {"none": "both right", "both": "both wrong"}.get(self.wrong, f"{self.wrong} wrong")

    @cached_property
    def stream(self) -> str:
        """A digest of the data and the models."""
        parts = (self.covariates.to_numpy(), self.score, self.mean, *self.residuals)
        return hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts)).hexdigest()

    @property
    def formula(self) -> str:
        """All columns of the fitted outcome model."""
        return f"y ~ {self._all('x')}"

    @property
    def propensity(self) -> str:
        """All columns of the fitted propensity model."""
        return self._all("z")

    def _all(self, letter: str) -> str:
        return " + ".join(name for name in self.covariates if name.startswith(letter)) or "1"

    def _units(self) -> Iterator[Population]:
        yield self._rows(np.arange(len(self.score)))

    def _rows(self, rows: NDArray[np.intp]) -> Population:
        variance = np.repeat([[arm.var()] for arm in self.residuals], len(rows), axis=1)
        covariates = self.covariates.iloc[rows].reset_index(drop=True)
        return Population(covariates, self.score[rows], self.mean[:, rows], variance)

    def population(self, n: int, rng: np.random.Generator) -> Population:
        """Draw rows with replacement; see `Design.population`."""
        return self._rows(rng.integers(0, len(self.score), n))

    def outcomes(self, population: Population, rng: np.random.Generator) -> Array:
        """Add residuals of the arm, drawn with replacement."""
        return population.mean + np.stack([rng.choice(arm, len(population.score)) for arm in self.residuals])


def plasmode(
    res: CausalResults,
    *,
    misspecification: str | Sequence[str] = "none",
    strength: float = 0.5,
    estimators: Any = None,
    **options: Any,
) -> StudyResults:
    """Simulate samples like your data, and compare the estimators on them.

    Covariates are rows of the data, drawn with replacement. Treatment follows the fitted propensity score. Outcomes are
    from the fitted outcome models, plus residuals of the arm drawn with replacement. The true effect is therefore
    known: the average of the fitted effects over the data.

    Parameters
    ----------
    res : CausalResults
        A fit with a propensity score. For JRE, the outcome models are from `res.start`.
    misspecification : {"none", "outcome", "propensity", "both"} or sequence of them, default "none"
        Models that the analyst misspecifies. The true model has an additional term: the absolute deviation of the log
        odds of treatment from their mean. In outcomes it is doubled under treatment.
    strength : float, default 0.5
        Standard deviation of this term, in standard deviations of the residuals and in units of the log odds.
    estimators
        As in `run_study`. The models are fitted with the links of `res`.
    **options
        Options of `run_study`. By default samples have as many rows as the fit.

    Returns
    -------
    StudyResults
        Estimates and tables, with one design per misspecification.

    Raises
    ------
    OptionError
        If the fit has observation weights, clusters, an offset, a target other than "all", or a nonlinear model.
    UnavailableError
        If the fit has no propensity score.

    Examples
    --------
    >>> from causalrisk import IPWRA, datasets, simulation
    >>> births = datasets.load_cattaneo2()
    >>> res = IPWRA.from_formula(
    ...     "bweight ~ mage + medu", births.iloc[::10], treat="mbsmoke"
    ... ).fit()
    >>> simulation.plasmode(res, n_sims=5, estimators=["IPWRA", "AIPW"])
    Study of 2 estimators: both right, n 465, 5 samples
    """
    kinds = [misspecification] if isinstance(misspecification, str) else list(misspecification)
    for kind in kinds:
        one_of("misspecification", kind, WRONG)
    designs = [plasmode_design(res, kind, strength) for kind in kinds]
    links = {name: getattr(res.model.options, name) for name in ("propensity_link", "propensity_loss")}
    named = {  # functions have no links
        entry.label: (entry.run, links | dict(entry.options)) if isinstance(entry.run, type) else entry.run
        for entry in choose_estimators(estimators)
    }
    return run_study(designs, estimators=named, **({"n": res.nobs} | options))


def plasmode_design(res: CausalResults, wrong: str = "none", strength: float = 0.5) -> Plasmode:
    """Make the design of a fit, with the models bent that are to be wrong."""
    _check(res)
    design, source = res.model.design, res.start if isinstance(res.model, JRE) else res
    mean, score = source.potential_outcomes.to_numpy().T, res.propensity_scores.to_numpy()
    residual = design.y - mean[design.arm, np.arange(design.n)]
    odds = logit(score)
    bend = np.abs(odds - odds.mean())  # then of mean 0 and standard deviation 1, or zero
    bend = (bend - bend.mean()) / (bend.std() or 1.0)
    if wrong in ("outcome", "both"):
        mean = mean + strength * residual.std() * bend * np.array([[1.0], [2.0]])
    if wrong in ("propensity", "both"):
        score = expit(odds + strength * bend)
    arms = [residual[design.arm == arm] for arm in (0, 1)]
    columns: dict[str, Array] = {}
    for letter, of_model in (("x", design.X), ("z", design.Z)):
        varying = of_model[:, np.ptp(of_model, axis=0) > 0]
        columns |= {f"{letter}{j + 1}": column for j, column in enumerate(varying.T)}
    centred = (arms[0] - arms[0].mean(), arms[1] - arms[1].mean())
    return Plasmode(wrong, strength, pd.DataFrame(columns), score, mean, centred)


def _check(res: CausalResults) -> None:
    """Refuse fits to data that the simulation would not resemble."""
    design, options = res.model.design, res.model.options
    for what, bad in (
        ("observation weights", design.weight_type is not None),
        ("clusters", design.cluster is not None),
        ("a survey design", design.survey is not None),
        (f"an {design.offset_kind}", design.offset is not None),
        ("more than two arms", design.n_arms > 2),
        (f"target {options.target!r}", options.target != "all"),
        (f"family {options.family!r}", options.family not in (None, "gaussian")),
        (f"effect {options.effect!r}", options.effect != "difference"),
        ("missing outcomes", design.observation is not None),
        ("given propensity scores", options.propensity_score is not None),
        ("given outcome predictions", design.predictions is not None),
    ):
        if bad:
            raise OptionError(f"plasmode: the fit has {what}, which it cannot simulate.\nFit a model without.")
