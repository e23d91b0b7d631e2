"""Randomisation inference: the statistic of a fit under the other assignments that the trial could have made.

Under the hypothesis that the treatment changes no outcome, outcomes and covariates are the same in every assignment.
Linear outcome models are fitted under a block of permutations in matrix products (`linear_contrasts`). All other
estimators repeat every step of the fit for each permutation (`refitted_contrasts`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtr

from causalrisk import errors
from causalrisk.design import Design
from causalrisk.design.assignment import Assignment, assignment_of, coded_strata
from causalrisk.design.design import rows_not_kept
from causalrisk.errors import OptionError, UnavailableError, one_of
from causalrisk.estimation.fits import RELATIVE_ROUNDING, centred, group_sums, weights_of
from causalrisk.estimation.options import Alternative, InferenceOptions
from causalrisk.estimation.record import FitRecord
from causalrisk.estimation.specification import DIFFERENCE
from causalrisk.inference import fitted_models, intervals
from causalrisk.inference.covariance import TOGETHER, fit_again, in_blocks, robust_record
from causalrisk.learners.folds import Arms
from causalrisk.numerics.blocks import taken
from causalrisk.numerics.linalg import Array, solve_definite, weighted_grams
from causalrisk.numerics.multiplicities import WIDTH, seed_sequence
from causalrisk.report.tables.table import ResultSummary, ResultTable
from causalrisk.report.tables.text import format_number, format_p

QUICK, REFITTED = 9999, 199  # permutations by default: in matrix products, and where each takes a fit
MOST_LISTED = 1_000_000  # assignments that are listed
TIE = 1e-9  # relative difference of statistics that rounding makes
PROGRESS = ("permutations", "permutation")  # label of the bar, and what it counts
ARRAYS = 8  # arrays of a number for each row and permutation, of a block
STATISTICS = {  # kind -> in the summary, in one line
    "studentized": ("effect over its SE (z)", "z"),
    "difference": ("effect as a difference", "difference"),
    "wald": ("Wald's, of all effects", "Wald"),
}
SIZES: dict[str, Callable[[Any], Any]] = {"two-sided": np.abs, "larger": np.positive, "smaller": np.negative}


@dataclass(eq=False, repr=False)
class PermutationTest:
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

    record: FitRecord
    position: int | None
    kind: str
    alternative: str
    assignment: Assignment
    exact: bool
    statistic: float
    null_distribution: Array

    def __post_init__(self) -> None:
        record, position, exact, statistic = self.record, self.position, self.exact, self.statistic
        self.n_permutations = len(self.null_distribution)
        self.failed = int(np.isnan(self.null_distribution).sum())
        size = SIZES[self.alternative]
        reached = size(self.null_distribution) >= size(statistic) - TIE * abs(statistic)
        self.extreme = int(reached.sum()) + self.failed
        own, names = 0 if exact else 1, record.effect_names  # among random assignments the fit's own is one more
        self.pvalue = (self.extreme + own) / (self.n_permutations + own)
        self.mc_se = own * math.sqrt(self.pvalue * (1 - self.pvalue) / (self.n_permutations + 1))
        self.term = ", ".join(names) if position is None else names[position - 1]
        self.asymptotic_pvalue = math.nan
        if self.kind == "wald":
            self.asymptotic_pvalue = float(intervals.joint_test(statistic, record.design.n_arms - 1, record.df).pvalue)
        elif self.kind == "studentized":
            tails = 2 if self.alternative == "two-sided" else 1
            self.asymptotic_pvalue = float(tails * stdtr(record.df, -size(statistic)))
        fit = record.weight_fit  # of covariates, as for observational data
        self._adjusts = fit is not None and fit.estimated and record.design.propensity_names != ("Intercept",)

    def tidy(self) -> pd.DataFrame:
        """Return the test as plain data, under the column names of `CausalResults.tidy`.

        Returns
        -------
        DataFrame
            One row: term, statistic, p_value, mc_std_error, n_permutations, exact, failed, alternative, method.
        """
        names = ("term", "statistic", "pvalue", "mc_se", "n_permutations", "exact", "failed", "alternative", "kind")
        columns = {"pvalue": "p_value", "mc_se": "mc_std_error", "kind": "method"}
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
            ("Statistic:", STATISTICS[self.kind][0], "P-value:", format_p(self.pvalue)),
            ("Alternative:", self.alternative, "Its Monte Carlo SE:", "none" if self.exact else f"{self.mc_se:.2g}"),
        )
        notes = [
            f"The treatment is permuted among {self.assignment.words}; every step of the estimator is redone in each "
            "permutation. The p-value is exact for the hypothesis that the treatment changes no outcome, if the "
            "treatment was assigned so."
        ]
        if self.kind != "difference":
            notes.append(
                "In large samples it also holds for no average effect, as the statistic is in robust standard errors. "
                f"By its distribution there the p-value is {format_p(self.asymptotic_pvalue)}."
            )
        least = 1 / self.assignment.count
        if least > 0.025 and math.isfinite(self.assignment.count):
            count = int(self.assignment.count)
            notes.append(f"There are only {count} assignments, so the p-value cannot be below {least:.2g}.")
        if self.failed:
            notes.append(f"In {self.failed} permutations there was no estimate; they count as extreme.")
        if self._adjusts:
            notes.append("The test is not valid for observational data, where the treatment was not randomized.")
        heading = title or "Permutation Test of No Effect"
        return ResultSummary([ResultTable(rows, aligns="lrlr", title=heading)], notes)

    def __repr__(self) -> str:
        how = f"all {self.n_permutations:,} assignments" if self.exact else f"{self.n_permutations:,} permutations"
        value = f"{STATISTICS[self.kind][1]} {format_number(self.statistic, 5)}"
        return (
            f"Permutation test, {self.record.spec.name}: {self.term}, {value}, p {format_p(self.pvalue)}, "
            f"{self.alternative}, {how}{'; for randomized trials only' if self._adjusts else ''}"
        )

    def _repr_html_(self) -> str:
        return self.summary().as_html()

    def _repr_markdown_(self) -> str:
        return self.summary().as_markdown()


def permutation_test(
    record: FitRecord,
    n_permutations: int | str | None = None,
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

    The treatment is permuted, and the estimator is computed again each time. Without clusters, rows are permuted. If
    each cluster has one arm, whole clusters are permuted. If the treatment varies within clusters, rows are permuted
    within them.

    Parameters
    ----------
    n_permutations : int or "all", optional
        Number of random permutations. The default is 9999 for linear outcome models without weights, which are fast,
        and 199 for other estimators, which are fitted again in each. With "all", or if there are no more assignments
        than this, each assignment is used once and the p-value has no Monte Carlo error.
    strata : str, array_like or list of them, optional
        Strata, blocks or pairs within which the treatment was assigned: the name of a variable of the model's formulas
        or of `data`, or one value per row. A list gives all combinations.
    data : DataFrame or mapping, optional
        The data of the model, for strata that its formulas do not use.
    statistic : {"studentized", "difference"}
        "studentized" (default): the effect over its robust (clustered) standard error, without a small-sample factor.
        "difference": the effect. For ratios, both use the logarithm.
    alternative : {"two-sided", "larger", "smaller"}
        Alternative hypothesis on the effect. "two-sided" (default) counts effects that are as large in either
        direction.
    arm : level or label, optional
        With several arms, the arm whose effect is tested. Only it and the reference arm are permuted. By default all
        arms are permuted, and Wald's statistic tests all effects jointly.
    rng : int, Generator, SeedSequence or None, default 0
        Source of randomness, as in `fit`.
    n_jobs : int, default 1
        Threads, or workers of the joblib backend, as in `fit`. Results do not depend on it.
    progress : bool, default False
        Show a progress bar of the permutations.

    Returns
    -------
    PermutationTest
        `statistic`, `pvalue`, `null_distribution`, `mc_se`; `summary()` and `tidy()`.

    Raises
    ------
    OptionError
        If strata, clusters or known scores do not allow the permutation, or only one assignment is possible.
    UnavailableError
        For a fit to a scan, whose rows are not kept; with given replicates; or if the effect has no sampling error.

    Warns
    -----
    ResampleWarning
        If the estimator could not be computed in some permutations; they count as extreme.

    Notes
    -----
    The p-value is (1 + number as extreme) / (1 + permutations) [1]_. It is exact in any sample size and for any model,
    for the sharp hypothesis that no outcome depends on the treatment, if the treatment was assigned as it is permuted.
    The studentized test is also valid in large samples for the hypothesis that the average effect is zero. The
    difference is not, if arms differ in their variance [2]_, [3]_. In the experiments of [4]_ the studentized test is
    more reliable than the asymptotic test. Stata's ritest [5]_, R's ri2 and pyfixest permute in the same way.

    `OutcomeRegression` and `Unadjusted` are computed for many permutations at once. Other estimators repeat every step
    of their fit, including the propensity score, learners and joint training. The test is not valid for observational
    data; the printed result says so if a propensity score was estimated from covariates.

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
    record.check_means("permutation_test()")
    one_of("statistic", statistic, ("studentized", "difference"))
    alternative = one_of("alternative", alternative, tuple(SIZES))
    inference = InferenceOptions(rng=rng, n_jobs=n_jobs, progress=progress)
    if record.design.on_disk:
        raise rows_not_kept("permutation_test")
    if record.design.survey is not None:
        raise UnavailableError("permutation_test does not support survey designs.\nUse `res.pvalues`.")
    if record.design.observation is not None:
        raise UnavailableError("permutation_test does not support missing outcomes.\nUse `res.pvalues`.")
    if record.joint is not None and record.joint.drawn is not None:
        raise UnavailableError("replicates that were given do not permute.\nUse `res.model.fit().permutation_test()`.")
    linear = is_linear(record)
    if n_permutations is None:
        n_permutations = QUICK if linear else REFITTED
    elif n_permutations != "all":
        errors.whole_number("n_permutations", n_permutations, 1, QUICK if linear else REFITTED)
    position = None if arm is None and record.design.n_arms > 2 else record.contrast_position(arm)
    for name, given, only in (("statistic", statistic, "studentized"), ("alternative", alternative, "two-sided")):
        if position is None and given != only:
            use = f"arm={record.design.labels[1]!r}, {name}={given!r}"
            raise OptionError(f"{name}={given!r} is for one effect.\nUse `{use}`.")
    codes, name = coded_strata(record.full_design, strata, data)
    if record.frequency:
        codes = np.repeat(codes, record.full_design.weights.astype(int))
        record = dataclasses.replace(record, design=of_units(record.design), full_design=of_units(record.full_design))
    assignment = assignment_of(record.full_design, codes, name, position)
    if n_permutations == "all" and assignment.count > MOST_LISTED:
        raise OptionError(f"there are more than {MOST_LISTED:,} assignments.\nUse `n_permutations=9999`.")
    exact = n_permutations == "all" or assignment.count <= int(n_permutations)
    count = int(assignment.count) if exact else int(n_permutations)
    draw = assignment.listed if exact else partial(assignment.drawn, seed_sequence(inference.rng))
    kind = "wald" if position is None else statistic
    level = record.design.outcome_deviation if record.options.effect_scale is DIFFERENCE else 1.0
    measure = partial(statistics_of, position=position, kind=kind, level=level)
    actual = record.full_design.arm
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", errors.CausalRiskWarning)  # the fit has given them
        again = fitted_under(record, actual)  # where every assignment fails, the error of the fit
        under = partial(linear_contrasts, again) if linear else partial(refitted_contrasts, record)
        values, covariance = contrasts_of(again)
        observed = float(measure((values[None], covariance[None]))[0])
        width = WIDTH * max((TOGETHER if linear else 1) // len(actual), 1)
        block, needed = partial(_block, under, draw, measure), 8.0 * ARRAYS * len(actual) * width
        null = np.concatenate(list(in_blocks(block, count, width, needed, inference, PROGRESS)))
    if not np.isfinite(observed):
        raise UnavailableError('the effect has no sampling error.\nUse `statistic="difference"`.')
    test = PermutationTest(record, position, kind, alternative, assignment, exact, observed, null)
    if test.failed:
        lost = f"{test.failed} of {len(null)} permutations have no estimate, and count as extreme"
        errors.warn_user(f"{lost}.\nUse simpler formulas.", errors.ResampleWarning)
    return test


def of_units(design: Design) -> Design:
    """Return a design with frequency weights whose observations are rows of their own."""
    rows = np.repeat(np.arange(design.n), design.weights.astype(int))
    every = taken(design, rows, "y", "X", "Z", "arm", "cluster", "offset", "score", "index")
    return dataclasses.replace(every, weights=np.ones(len(rows)), weight_type=None, weights_name=None)


# --- effects under assignments ---------------------------------------------------------------------------------------


def contrasts_of(record: FitRecord) -> tuple[Array, Array]:
    """Return effects of a fit, (K - 1,), on the scale where they are differences, and their covariance."""
    count = record.design.n_arms - 1
    values, covariance = intervals.on_scale(record)
    return values[:count], covariance[:count, :count]


def refitted_contrasts(record: FitRecord, arms: Arms) -> tuple[Array, Array]:
    """Repeat all steps of a fit under assignments, arms (n, m) of the rows of the design; NaN where it fails.

    Effects (m, K - 1) are on the scale where they are differences, and so are their covariances (m, K - 1, K - 1).
    """
    count = record.design.n_arms - 1
    values = np.full((arms.shape[1], count), np.nan)
    covariance = np.full((arms.shape[1], count, count), np.nan)
    for j, arm in enumerate(arms.T):
        with contextlib.suppress(errors.CausalRiskError, np.linalg.LinAlgError):
            values[j], covariance[j] = contrasts_of(fitted_under(record, np.ascontiguousarray(arm)))
    return values, covariance


def fitted_under(record: FitRecord, arm: Arms) -> FitRecord:
    """Return a fit under another assignment, arms (n,) of the design before trimming, with robust errors."""
    given = record.options
    if record.learned is None:  # as IPWRA where a stack starts
        given = dataclasses.replace(given, learner=None, learner_use=None, n_repeats=1)
    design = record.full_design.under(arm)
    drawn = None if record.joint is None else record.bootstrap
    inference = InferenceOptions(cov_type=record.robust_type, rng=record.seed, bootstrap=drawn)
    repeats = [dataclasses.replace(given, repeat=repeat) for repeat in range(given.n_repeats)]
    fits = [robust_record(fit_again(record, design, options, inference)) for options in repeats]
    return fits[0] if len(fits) == 1 else fitted_models.median_fit(fits)


def is_linear(record: FitRecord) -> bool:
    """Whether a fit averages linear outcome models over its own rows, without importance weights."""
    design, options = record.design, record.options
    weighted = record.weight_fit is not None or record.joint is not None or record.learned is not None
    other_rows = design.periods is not None or design.offset_kind is not None or options.trim is not None
    return not (weighted or other_rows or record.frame is not None) and weights_of(record).equations.family.linear


def linear_contrasts(record: FitRecord, arms: Arms) -> tuple[Array, Array]:
    """Effects by linear models of each arm, averaged over the target, under assignments; refitted where singular.

    `arms` (n, m) are of the rows of the design. For such records `is_linear` is true.
    """
    equations = centred(weights_of(record).equations)
    q, sample, scale = equations.columns, equations.sample, record.options.effect_scale
    toward = record.options.population.toward
    arm, s, total = arms[sample.order], sample.s[:, None], sample.s.sum()
    tilt = np.ones((len(q), 1))  # of the target, of mean one
    if toward is not None:
        inside = (arm == toward).astype(float)
        tilt = inside * (total / (sample.s @ inside))
    means, influence, alone = [], [], np.zeros(arms.shape[1], dtype=bool)
    for position in range(record.design.n_arms):
        own = (arm == position) * s
        gram = weighted_grams(q, own)
        theta, singular = solve_definite(gram, (q * sample.y[:, None]).T @ own)
        average = np.broadcast_to(q.T @ (s * tilt) / total, theta.shape)
        lever, _ = solve_definite(gram, average)
        predicted, mean = q @ theta, (average * theta).sum(axis=0)
        residual = own * (sample.y[:, None] - predicted)
        means.append(mean)
        influence.append(s * tilt * (predicted - mean) + total * (q @ lever) * residual)
        alone |= singular
    levels = np.stack(means) if scale is DIFFERENCE else np.stack(means) + equations.height
    with np.errstate(invalid="ignore", divide="ignore"):
        on_scale, slope = scale.g(levels), scale.g_slope(levels)
        on_scale = np.where((levels > scale.low) & (levels < scale.high), on_scale, np.nan)
    moved = np.stack([b * own - slope[0] * influence[0] for b, own in zip(slope[1:], influence[1:], strict=True)], 2)
    if sample.cluster is not None:
        count = int(sample.cluster.max()) + 1
        moved = group_sums(moved.reshape(len(moved), -1), sample.cluster, count).reshape(count, *moved.shape[1:])
    values, covariance = (on_scale[1:] - on_scale[0]).T, np.einsum("nmj,nmk->mjk", moved, moved) / total**2
    if alone.any():
        values[alone], covariance[alone] = refitted_contrasts(record, arms[:, alone])
    return values, covariance


def statistics_of(contrasts: tuple[Array, Array], position: int | None, kind: str, level: float) -> Array:
    """Return the statistic (m,) of effects: studentized or not, of the arm at a position, or Wald's of all.

    NaN where there are no effects; standard errors far below `level` are rounding error.
    """
    values, covariance = contrasts
    se = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    se = np.where(se <= RELATIVE_ROUNDING * level, 0.0, se)
    values = np.where(np.abs(values) <= RELATIVE_ROUNDING * level, 0.0, values)
    if position is not None and kind == "difference":
        return np.asarray(values[:, position - 1])
    with np.errstate(invalid="ignore", divide="ignore"):
        t = np.where(values == 0, 0.0, values / se)
        if position is not None:
            return np.asarray(t[:, position - 1])
        correlation = covariance / (se[:, :, None] * se[:, None, :])
        solved, _ = solve_definite(correlation, t.T)
        return np.asarray((t.T * solved).sum(axis=0))


def _block(under: Any, draw: Any, measure: Any, count: int, width: int, number: int) -> Array:
    """Return the statistic of the assignments of a block, of `width` among `count`: drawn, fitted and measured."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", errors.CausalRiskWarning)  # in a process of its own too
        return measure(under(draw(number * width, min(width, count - number * width))))
