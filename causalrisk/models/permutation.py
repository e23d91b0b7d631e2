"""Randomisation inference of a fit: the test, and its results. Its numbers are those of `inference.permutation`."""

from __future__ import annotations

import functools
import math
from typing import Any

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


class PermutationTest:
    """A test by permutations of the treatment; what `permutation_test` returns.

    Parameters
    ----------
    permutations : Permutations
        The statistic and its distribution.

    Attributes
    ----------
    term : str
        Name of the effect, or of all that are tested jointly.
    statistic : float
        The statistic of the fit: the effect over its robust standard error, the effect, or Wald's of several.
    pvalue : float
        Share of the assignments whose statistic is at least as extreme; the fit's own counts among them.
    mc_se : float
        Monte Carlo standard error of the p-value; zero if every assignment was taken.
    asymptotic_pvalue : float
        The p-value of a studentized statistic by its distribution in large samples; NaN of a difference.
    null_distribution : ndarray, shape (n_permutations,)
        The statistic under each permutation; NaN where it could not be computed.
    n_permutations : int
        Number of permutations; if every assignment was taken, of these.
    exact : bool
        Whether every assignment was taken.
    failed : int
        Permutations under which the estimator could not be computed; they count as extreme.
    """

    def __init__(self, permutations: Permutations) -> None:
        self._data, names, position = permutations, permutations.record.effect_names, permutations.position
        self.term = ", ".join(names) if position is None else names[position - 1]
        self._kind = "wald" if position is None else permutations.kind
        self.statistic, self.pvalue = permutations.observed, permutations.pvalue
        self.mc_se, self.asymptotic_pvalue = permutations.mc_se, permutations.asymptotic_pvalue
        self.null_distribution, self.n_permutations = permutations.null.copy(), len(permutations.null)
        self.exact, self.failed = permutations.exact, permutations.failed

    def tidy(self) -> pd.DataFrame:
        """Return the test as plain data, under the column names of `CausalResults.tidy`.

        Returns
        -------
        DataFrame
            One row: term, statistic, p_value, mc_std_error, n_permutations, exact, failed, alternative, method.
        """
        names = ("term", "statistic", "pvalue", "mc_se", "n_permutations", "exact", "failed")
        row = {name: getattr(self, name) for name in names} | {"alternative": self._data.alternative}
        row["method"] = self._kind
        return pd.DataFrame([row]).rename(columns={"pvalue": "p_value", "mc_se": "mc_std_error"})

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
        data, record, drawn = self._data, self._data.record, f"{self.n_permutations:,}"
        contrast = record.design.contrast if data.position is None else record.contrasts[data.position - 1]
        rows = (
            ("Dep. variable:", record.design.endog_name, "No. observations:", f"{record.design.nobs}"),
            ("Estimator:", record.spec.name, "Value of the statistic:", format_number(self.statistic, 5)),
            ("Effect:", self.term, "Permutations:", f"all {drawn}" if self.exact else drawn),
            ("Contrast:", contrast, "As extreme:", f"{data.extreme:,}"),
            ("Statistic:", STATISTIC_WORDS[self._kind], "P-value:", format_p(self.pvalue)),
            ("Alternative:", data.alternative, "Its Monte Carlo SE:", "none" if self.exact else f"{self.mc_se:.2g}"),
        )
        heading = title or "Permutation Test of No Effect"
        return ResultSummary([ResultTable(rows, aligns="lrlr", title=heading)], self._notes())

    def _notes(self) -> list[str]:
        data = self._data
        notes = [
            f"The treatment is permuted among {data.assignment.words}; every step of the estimator is redone in each "
            "permutation. The p-value is exact for the hypothesis that the treatment changes no outcome, if the "
            "treatment was assigned so."
        ]
        if data.kind == "studentized":
            notes.append(
                "In large samples it also holds for no average effect, as the statistic is in robust standard errors. "
                f"By its distribution there the p-value is {format_p(self.asymptotic_pvalue)}."
            )
        least = 1 / data.assignment.count
        if least > LEVEL / 2 and math.isfinite(data.assignment.count):
            count = int(data.assignment.count)
            notes.append(f"There are only {count} assignments, so the p-value cannot be below {least:.2g}.")
        if data.failed:
            notes.append(f"In {data.failed} permutations there was no estimate; they count as extreme.")
        if data.adjusts_treatment:
            notes.append("The test is not valid for observational data, where the treatment was not randomized.")
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


@functools.wraps(permutation.permutation_test)
def permutation_test(*args: Any, **options: Any) -> PermutationTest:
    """Lay out what the test found."""
    return PermutationTest(permutation.permutation_test(*args, **options))
