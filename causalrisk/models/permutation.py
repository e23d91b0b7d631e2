"""The permutation test of a fit with its summary and plot; `inference.permutation` computes the numbers."""

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


class PermutationTest(Permutations):
    """A permutation test of no treatment effect, returned by `permutation_test`.

    Attributes
    ----------
    statistic : float
        The statistic of the fit: the effect over its robust standard error, the effect, or Wald's for several effects.
    pvalue : float
        Share of assignments whose statistic is at least as extreme, including the fit's own assignment.
    mc_se : float
        Monte Carlo standard error of the p-value; zero if every assignment was used.
    asymptotic_pvalue : float
        Large-sample p-value of a studentized statistic; NaN for a difference.
    null_distribution : ndarray, shape (n_permutations,)
        The statistic under each permutation; NaN if it could not be computed.
    n_permutations : int
        Number of permutations, or number of all assignments.
    exact : bool
        Whether every assignment was used.
    failed : int
        Number of permutations for which the estimator failed. They count as extreme.
    """

    @property
    def term(self) -> str:
        """Name of the effect, or names of all effects that are tested jointly."""
        names = self.record.effect_names
        return ", ".join(names) if self.position is None else names[self.position - 1]

    @property
    def _kind(self) -> str:
        return "wald" if self.position is None else self.kind

    def tidy(self) -> pd.DataFrame:
        """Return the test as plain data, under the column names of `CausalResults.tidy`.

        Returns
        -------
        DataFrame
            One row: term, statistic, p_value, mc_std_error, n_permutations, exact, failed, alternative, method.
        """
        names = ("term", "statistic", "pvalue", "mc_se", "n_permutations", "exact", "failed", "alternative", "_kind")
        columns = {"pvalue": "p_value", "mc_se": "mc_std_error", "_kind": "method"}
        return pd.DataFrame([{columns.get(name, name): getattr(self, name) for name in names}])

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
        record, drawn = self.record, f"{self.n_permutations:,}"
        contrast = record.design.contrast if self.position is None else record.contrasts[self.position - 1]
        rows = (
            ("Dep. variable:", record.design.endog_name, "No. observations:", f"{record.design.nobs}"),
            ("Estimator:", record.spec.name, "Value of the statistic:", format_number(self.statistic, 5)),
            ("Effect:", self.term, "Permutations:", f"all {drawn}" if self.exact else drawn),
            ("Contrast:", contrast, "As extreme:", f"{self.extreme:,}"),
            ("Statistic:", STATISTIC_WORDS[self._kind], "P-value:", format_p(self.pvalue)),
            ("Alternative:", self.alternative, "Its Monte Carlo SE:", "none" if self.exact else f"{self.mc_se:.2g}"),
        )
        heading = title or "Permutation Test of No Effect"
        return ResultSummary([ResultTable(rows, aligns="lrlr", title=heading)], self._notes())

    def _notes(self) -> list[str]:
        notes = [
            f"The treatment is permuted among {self.assignment.words}; every step of the estimator is redone in each "
            "permutation. The p-value is exact for the hypothesis that the treatment changes no outcome, if the "
            "treatment was assigned so."
        ]
        if self.kind == "studentized":
            notes.append(
                "In large samples it also holds for no average effect, as the statistic is in robust standard errors. "
                f"By its distribution there the p-value is {format_p(self.asymptotic_pvalue)}."
            )
        least = 1 / self.assignment.count
        if least > LEVEL / 2 and math.isfinite(self.assignment.count):
            count = int(self.assignment.count)
            notes.append(f"There are only {count} assignments, so the p-value cannot be below {least:.2g}.")
        if self.failed:
            notes.append(f"In {self.failed} permutations there was no estimate; they count as extreme.")
        if self.adjusts_treatment:
            notes.append("The test is not valid for observational data, where the treatment was not randomized.")
        return notes

    def plot(self, ax: Any = None) -> Any:
        """Plot a histogram of the statistic over the permutations, and the statistic of the fit.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; by default a new figure.

        Returns
        -------
        matplotlib Axes
            The plot. Statistics at least as extreme are darker.

        Raises
        ------
        UnavailableError
            If matplotlib is not installed.
        """
        return draw_permutations(self, ax)

    def __repr__(self) -> str:
        how = f"all {self.n_permutations:,} assignments" if self.exact else f"{self.n_permutations:,} permutations"
        value = f"{NAMES[self._kind]} {format_number(self.statistic, 5)}"
        return (
            f"Permutation test, {self.record.spec.name}: {self.term}, {value}, p {format_p(self.pvalue)}, "
            f"{self.alternative}, {how}{'; for randomized trials only' if self.adjusts_treatment else ''}"
        )

    def _repr_html_(self) -> str:
        return self.summary().as_html()

    def _repr_markdown_(self) -> str:
        return self.summary().as_markdown()


@functools.wraps(permutation.permutation_test)
def permutation_test(*args: Any, **options: Any) -> PermutationTest:
    """Add the summary and the plot to what the test found."""
    return PermutationTest(**vars(permutation.permutation_test(*args, **options)))
