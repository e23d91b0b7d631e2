"""Randomisation inference of a fit: the test, and its results. Its numbers are those of `inference.permutation`."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, ParamSpec

import numpy as np
import pandas as pd

from causalrisk.inference import permutation
from causalrisk.inference.permutation import Permutations
from causalrisk.report.plots.fits import draw_permutations
from causalrisk.report.tables.stacked import ResultSummary
from causalrisk.report.tables.table import ResultTable
from causalrisk.report.tables.text import format_number, format_p

STATISTIC_WORDS = {
    "studentized": "effect over its SE (z)",
    "difference": "effect as a difference",
    "wald": "Wald's, of all effects",
}
NAMES = {"studentized": "z", "difference": "difference", "wald": "Wald"}
LEVEL = 0.05
P = ParamSpec("P")


class PermutationTest:
    """A test by permutations of the treatment; what `permutation_test` returns.

    Parameters
    ----------
    permutations : Permutations
        The statistic and its distribution.
    """

    def __init__(self, permutations: Permutations) -> None:
        self._data = permutations

    @property
    def statistic(self) -> float:
        """The statistic of the fit: the effect over its robust standard error, the effect, or Wald's of several."""
        return self._data.observed

    @property
    def pvalue(self) -> float:
        """Share of the assignments whose statistic is at least as extreme; the fit's own counts among them."""
        return self._data.pvalue

    @property
    def mc_se(self) -> float:
        """Monte Carlo standard error of the p-value; zero where every assignment was taken."""
        return self._data.mc_se

    @property
    def asymptotic_pvalue(self) -> float:
        """The p-value of a studentized statistic by its distribution in large samples; NaN of a difference."""
        return self._data.asymptotic_pvalue

    @property
    def null_distribution(self) -> np.ndarray:
        """The statistic under each permutation, shape (n_permutations,); NaN where it could not be computed."""
        return self._data.null.copy()

    @property
    def n_permutations(self) -> int:
        """Number of permutations; where every assignment was taken, of these."""
        return len(self._data.null)

    @property
    def exact(self) -> bool:
        """Whether every assignment was taken."""
        return self._data.exact

    @property
    def failed(self) -> int:
        """Permutations under which the estimator could not be computed; they count as extreme."""
        return self._data.failed

    @property
    def term(self) -> str:
        """Name of the effect, or of all that are tested jointly."""
        names, position = self._data.record.effect_names, self._data.position
        return ", ".join(names) if position is None else names[position - 1]

    def tidy(self) -> pd.DataFrame:
        """Return the test as plain data, under the column names of `CausalResults.tidy`.

        Returns
        -------
        DataFrame
            One row: term, statistic, p_value, mc_std_error, n_permutations, exact, failed, alternative, method.
        """
        return pd.DataFrame(
            {
                "term": [self.term],
                "statistic": [self.statistic],
                "p_value": [self.pvalue],
                "mc_std_error": [self.mc_se],
                "n_permutations": [self.n_permutations],
                "exact": [self.exact],
                "failed": [self.failed],
                "alternative": [self._data.alternative],
                "method": [self._kind],
            }
        )

    @property
    def _kind(self) -> str:
        return "wald" if self._data.position is None else self._data.kind

    def summary(self, title: str | None = None) -> ResultSummary:
        """Summary of the test.

        Parameters
        ----------
        title : str, optional
            Heading.

        Returns
        -------
        ResultSummary
            With `as_text`, `as_html`, `as_latex`, `as_csv`.
        """
        data, record = self._data, self._data.record
        drawn = f"{self.n_permutations:,}"
        left = [
            ("Dep. variable:", record.design.endog_name),
            ("Estimator:", record.spec.name),
            ("Effect:", self.term),
            ("Contrast:", record.design.contrast if data.position is None else record.contrasts[data.position - 1]),
            ("Statistic:", STATISTIC_WORDS[self._kind]),
            ("Alternative:", data.alternative),
        ]
        right = [
            ("No. observations:", f"{record.design.nobs}"),
            ("Value of the statistic:", format_number(self.statistic, 5)),
            ("Permutations:", f"all {drawn}" if self.exact else drawn),
            ("As extreme:", f"{data.extreme:,}"),
            ("P-value:", format_p(self.pvalue)),
            ("Its Monte Carlo SE:", "none" if self.exact else f"{self.mc_se:.2g}"),
        ]
        rows = tuple((*a, *b) for a, b in zip(left, right, strict=True))
        heading = title or "Permutation Test of No Effect"
        return ResultSummary([ResultTable(rows, aligns="lrlr", title=heading)], self._notes())

    def _notes(self) -> list[str]:
        data = self._data
        again = "every step of the estimator is redone in each permutation"
        notes = [
            f"The treatment is permuted among {data.assignment.words}; {again}. The p-value is exact for the "
            "hypothesis that the treatment changes no outcome, if the treatment was assigned so."
        ]
        if data.kind == "studentized":
            notes.append(
                f"In large samples it also holds for no average effect, as the statistic is in robust standard errors. "
                f"By its distribution there the p-value is {format_p(self.asymptotic_pvalue)}."
            )
        least = 1 / data.assignment.count
        if least > LEVEL / 2 and math.isfinite(least):
            notes.append(
                f"There are {int(data.assignment.count)} assignments, so that the p-value is never below {least:.2g}."
            )
        if data.failed:
            notes.append(
                f"In {data.failed} permutations the estimator could not be computed; they count as extreme, so that "
                "the p-value is too large rather than too small."
            )
        if data.adjusts_treatment:
            notes.append(
                "The propensity score was estimated from covariates. For observational data, whose treatment was not "
                "assigned at random, the test says nothing."
            )
        return notes

    def plot(self, ax: Any = None) -> Any:
        """Histogram of the statistic over the permutations, with that of the fit.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; by default a new figure.

        Returns
        -------
        matplotlib Axes
            The plot; what is as extreme is darker.

        Raises
        ------
        UnavailableError
            If matplotlib is not installed.
        """
        return draw_permutations(self._data, ax)

    def __repr__(self) -> str:
        data = self._data
        how = f"all {self.n_permutations:,} assignments" if self.exact else f"{self.n_permutations:,} permutations"
        value = f"{NAMES[self._kind]} {format_number(self.statistic, 5)}"
        return (
            f"Permutation test, {data.record.spec.name}: {self.term}, {value}, p {format_p(self.pvalue)}, "
            f"{data.alternative}, {how}{'; for randomized trials only' if data.adjusts_treatment else ''}"
        )

    def _repr_html_(self) -> str:
        return self.summary().as_html()

    def _repr_markdown_(self) -> str:
        return self.summary().as_markdown()


def _with_summary(function: Callable[P, Permutations]) -> Callable[P, PermutationTest]:
    """Return a function that lays out what another one found."""

    @functools.wraps(function)
    def test(*args: P.args, **options: P.kwargs) -> PermutationTest:
        return PermutationTest(function(*args, **options))

    return test


permutation_test = _with_summary(permutation.permutation_test)
