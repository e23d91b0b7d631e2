"""Randomisation inference of a fit: the test, and its results. Its numbers are those of `inference.permutation`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from causalrisk.estimators.record import FitRecord, of_means
from causalrisk.estimators.values import Alternative
from causalrisk.inference.permutation import Permutations, permuted
from causalrisk.models.keywords import check_keywords
from causalrisk.report.plots import draw_permutations
from causalrisk.report.tables.stacked import ResultSummary, build_summary
from causalrisk.report.tables.table import TableContent
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

    @check_keywords("methods")
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
        return build_summary([TableContent(rows=rows, aligns="lrlr", title=heading)], self._notes())

    def _notes(self) -> list[str]:
        data, record = self._data, self._data.record
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
        if record.weight_fit is not None and record.weight_fit.model.propensity.estimated:
            notes.append("The propensity score is fitted again in each permutation.")
        return notes

    @check_keywords("methods")
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
            f"{data.alternative}, {how}"
        )

    def _repr_html_(self) -> str:
        return self.summary().as_html()

    def _repr_markdown_(self) -> str:
        return self.summary().as_markdown()


@of_means
def permutation_test(
    record: FitRecord,
    n_permutations: int | str = 9999,
    *,
    strata: Any = None,
    data: Any = None,
    statistic: str = "studentized",
    alternative: Alternative = "two-sided",
    arm: Any = None,
    rng: Any = 0,
    n_jobs: int = 1,
    progress: bool = False,
) -> PermutationTest:
    """Test by randomisation inference that the treatment of a trial has no effect.

    The treatment is permuted as it could have been assigned, and the estimator computed again each time: among the
    rows; where the fit has clusters with one arm each, among whole clusters; where the treatment varies within each
    cluster, within clusters.

    Parameters
    ----------
    n_permutations : int or "all", default 9999
        Random permutations. Where there are no more different assignments than that, and for "all", each is taken once
        and the p-value has no Monte Carlo error.
    strata : str, array_like or list of them, optional
        The strata, blocks or pairs within which the treatment was assigned: name of a variable of the model's formulas
        or of `data`, or one value per row; of several the combinations.
    data : DataFrame or mapping, optional
        The data the model was made from, for strata that its formulas do not use.
    statistic : {"studentized", "difference"}
        The effect over its robust (clustered) standard error, or the effect itself, on the scale where it is a
        difference: of ratios their logarithms. The standard error has no small-sample factor, which would change no
        p-value.
    alternative : {"two-sided", "larger", "smaller"}
        Which effects are evidence against the hypothesis; "two-sided" are those as large either way.
    arm : level or label, optional
        Of several arms the one whose effect is tested; it then changes places with the reference arm alone. By default
        all arms do, and Wald's statistic tests all effects jointly.
    rng : int, Generator, SeedSequence or None, default 0
        Source of randomness, as in `fit`.
    n_jobs : int, default 1
        Threads, or workers of the joblib backend, as in `fit`. Results do not depend on it.
    progress : bool, default False
        Show a progress bar of the permutations.

    Returns
    -------
    PermutationTest
        `statistic`, `pvalue`, `null_distribution`, `mc_se`; `summary()` and `plot()`.

    Raises
    ------
    OptionError
        If strata, clusters or known scores do not allow the permutation, or nothing could have been assigned otherwise.
    UnavailableError
        For a fit to a scan, whose rows are not kept; with replicates that were given; or if the effect has no sampling
        error.

    Warns
    -----
    ResampleWarning
        If the estimator could not be computed in some permutations; they count as extreme.

    Notes
    -----
    The p-value is (1 + number as extreme) / (1 + permutations) [1]_. It is exact, whatever the size of the sample and
    the model, for the sharp hypothesis that no outcome depends on the treatment, if the treatment was assigned as it is
    permuted. Studentized it also holds in large samples for the hypothesis that the average effect is zero, which
    the difference alone does not where arms differ in their variance [2]_, [3]_; and it is more reliable than the
    asymptotic test in the experiments of [4]_. ritest of Stata [5]_, R's ri2 and pyfixest permute likewise.

    Linear outcome models (`OutcomeRegression`, `Unadjusted`) without importance weights are fitted under many
    permutations in matrix products. Other estimators redo each step of their fit, the propensity score, learners and
    the joint training among them, which takes as long as so many fits.

    References
    ----------
    .. [1] Phipson, B. and Smyth, G. K. (2010). Permutation p-values should never be zero. Statistical Applications in
       Genetics and Molecular Biology 9, 39.
    .. [2] Wu, J. and Ding, P. (2021). Randomization tests for weak null hypotheses in randomized experiments. JASA 116,
       1898-1913.
    .. [3] Zhao, A. and Ding, P. (2021). Covariate-adjusted Fisher randomization tests for the average treatment effect.
       Journal of Econometrics 225, 278-294.
    .. [4] Young, A. (2019). Channeling Fisher: randomization tests and the statistical insignificance of seemingly
       significant experimental results. Quarterly Journal of Economics 134, 557-598.
    .. [5] Hess, S. (2017). Randomization inference with Stata: a guide and software. Stata Journal 17, 630-651.

    Examples
    --------
    >>> from causalrisk import OutcomeRegression, datasets
    >>> jobs = datasets.load_lalonde()
    >>> res = OutcomeRegression.from_formula(
    ...     "re78 ~ age + educ + re75", jobs, treat="treat"
    ... ).fit()
    >>> res.permutation_test()
    Permutation test, OutcomeRegression: ATE, z 2.489, p 0.015, two-sided, 9,999 permutations
    """
    return PermutationTest(
        permuted(
            record,
            n_permutations,
            strata=strata,
            data=data,
            statistic=statistic,
            alternative=alternative,
            arm=arm,
            rng=rng,
            n_jobs=n_jobs,
            progress=progress,
        )
    )
