"""Randomisation inference: the statistic of a fit under other possible treatment assignments.

Under the hypothesis that the treatment changes no outcome, outcomes and covariates are the same in every assignment.
Rows or clusters are permuted, within strata if the treatment was assigned within strata. Linear outcome models are
fitted to a block of permutations by matrix products (`linear_contrasts`). All other estimators repeat every step of the
fit for each permutation (`refitted_contrasts`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import gammaln, stdtr

from causalrisk import errors
from causalrisk.design.covariates import groups_of
from causalrisk.design.design import Design
from causalrisk.diagnostics.scores import SAME_SCORE
from causalrisk.errors import OptionError, UnavailableError, one_of
from causalrisk.errors.aliases import attribute
from causalrisk.estimation.fit import DEFAULTS, fit_estimator
from causalrisk.estimation.fits import RELATIVE_ROUNDING, centred, group_sums, weights_of
from causalrisk.estimation.options import Alternative, InferenceOptions
from causalrisk.estimation.record import FitRecord
from causalrisk.estimation.specification import DIFFERENCE
from causalrisk.inference import fitted_models, intervals
from causalrisk.inference.covariance import in_blocks, robust_record
from causalrisk.numerics.arrays import Arms, Array, solve_definite, weighted_grams
from causalrisk.numerics.resampling import MULTIPLIERS, PERMUTATION_STREAM, WIDTH, seed_sequence, stream_generator
from causalrisk.report import methods, plots
from causalrisk.report.table import HasSummary, ResultSummary, ResultTable, format_number, format_p

# --- assignments -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Assignment:
    """How the treatment was assigned: the arms of U units, which can be permuted within strata.

    `unit`, shape (n,), is the unit of each row of the design. `words` describes what is permuted, and within which
    strata or clusters.
    """

    arm: Arms
    stratum: NDArray[np.intp]
    unit: NDArray[np.intp]
    words: str

    @cached_property
    def _strata(self) -> list[NDArray[np.intp]]:
        parts = pd.Series(self.arm).groupby(self.stratum).indices.values()
        return [units for units in parts if np.ptp(self.arm[units]) > 0]

    @cached_property
    def count(self) -> float:
        """Number of different assignments. Large numbers are approximate."""
        counts = [np.bincount(self.arm[units]) for units in self._strata]
        logarithm = sum(gammaln(sizes.sum() + 1) - gammaln(sizes + 1).sum() for sizes in counts)
        return float(np.rint(np.exp(min(logarithm, 700.0))))  # larger numbers have no float

    @cached_property
    def _tables(self) -> list[Arms]:
        return [arrangements(self.arm[units]) for units in self._strata]

    def listed(self, number: int, width: int) -> Arms:
        """Return block `number` of a list of all assignments, as arms (n, width) of the design's rows."""
        arms = np.repeat(self.arm[:, None], width, axis=1)
        places = np.unravel_index(number * WIDTH + np.arange(width), [len(table) for table in self._tables])
        for units, table, place in zip(self._strata, self._tables, places, strict=True):
            arms[units] = table[place].T
        return arms[self.unit]

    def drawn(self, seed: np.random.SeedSequence, number: int, width: int) -> Arms:
        """Return assignments (n, width) of the design's rows, in which the arms of each stratum are in random order.

        They are the first `width` assignments of block `number`.
        """
        chance = stream_generator(seed, PERMUTATION_STREAM, number).random((width, len(self.arm)))
        # ranks of the units, whose order is random within strata
        places = np.argsort(np.argsort(self.stratum + chance, axis=1), axis=1).T
        return self.arm[np.argsort(self.stratum, kind="stable")][places][self.unit]


def arrangements(arm: Arms) -> Arms:
    """Return all different orders of the arms of U units, one per row, shape (M, U).

    Examples
    --------
    >>> import numpy as np
    >>> arrangements(np.array([0, 1, 1]))
    array([[0, 1, 1],
           [1, 0, 1],
           [1, 1, 0]])
    """
    open_place = -1
    found = np.full((1, len(arm)), open_place, dtype=arm.dtype)
    for value, size in zip(*np.unique(arm, return_counts=True), strict=True):
        left = int((found[0] == open_place).sum())
        chosen = np.array(list(itertools.combinations(range(left), size)))
        places = np.argsort(found != open_place, axis=1, kind="stable")[:, :left]
        rows = np.repeat(found, len(chosen), axis=0)
        np.put_along_axis(rows, places[:, chosen].reshape(len(rows), size), value, axis=1)
        found = rows
    return found


def coded_strata(design: Design, strata: Any, data: Any) -> tuple[NDArray[np.intp], str]:
    """Return the stratum (n,) of each row of a design, and the name of the strata."""
    if strata is None:
        return np.zeros(design.n, dtype=np.intp), ""
    if isinstance(strata, str) and strata == design.cluster_name:
        return np.asarray(design.cluster), strata
    groups, _, names = groups_of(design, strata, data)
    return groups, ", ".join(names)


def assignment_of(design: Design, codes: NDArray[np.intp], name: str, arm: int | None) -> Assignment:
    """Return the `Assignment` of the treatment in a design.

    If each cluster has one arm, the units are the clusters. If the treatment varies within each cluster, rows are
    permuted within clusters. `codes`, shape (n,), are the strata, and `name` is their name, empty without strata. With
    several arms, only `arm` and the reference are permuted; None permutes all.
    """
    within = f" within {len(np.unique(codes))} strata ({name})" if name else ""
    if design.cluster is None:
        made = Assignment(design.arm, codes, np.arange(design.n), f"the {design.n} {design.unit_name}s{within}")
    else:
        made = _of_clusters(design, codes, name, within)
    if arm is not None and design.n_arms > 2:  # other arms are not permuted: one stratum each
        moved = np.isin(made.arm, (0, arm))
        words = f"{made.words}, of groups {design.labels[0]} and {design.labels[arm]}"
        stratum = np.unique(np.stack([made.stratum, np.where(moved, -1, made.arm)]), axis=1, return_inverse=True)[1]
        made = dataclasses.replace(made, stratum=stratum.reshape(-1), words=words)
    if made.count == 1:
        raise OptionError(f"{made.words} allow only one assignment.\nUse coarser `strata=`, or leave strata= out.")
    scores: Any = () if design.score is None else design.score.T[1:].round(SAME_SCORE)
    if any(_varies_within(made.stratum[made.unit], column).any() for column in scores):
        found = f"the known propensity scores differ among the permuted units ({made.words})"
        raise OptionError(f"{found}.\nUse `strata={design.score_name!r}, data=data`.")
    return made


def _of_clusters(design: Design, codes: NDArray[np.intp], name: str, strata: str) -> Assignment:
    """Return the assignment that permutes clusters or, if treatment varies within them, rows within clusters."""
    ways = [*zip(map(np.asarray, (design.cluster, design.second_cluster)), design.cluster_names, strict=False)]
    whole = [way for way in ways if not _varies_within(way[0], design.arm).any()]  # one treatment per cluster
    codes_of, of = min(whole or ways[:1], key=lambda way: len(np.unique(way[0])))
    cluster = np.unique(codes_of, return_inverse=True)[1]
    count = int(cluster.max()) + 1
    several = _varies_within(cluster, design.arm)
    if several.all() or (several.any() and not _varies_within(codes, cluster).any()):  # each stratum is in one cluster
        words = f"the {design.n} rows within {count} clusters ({of})"
        within = np.unique(np.stack([cluster, codes]), axis=1, return_inverse=True)[1].reshape(-1)
        if name not in ("", of):
            words = f"the {design.n} {design.unit_name}s within {within.max() + 1} strata ({of}, {name})"
        return Assignment(design.arm, within, np.arange(design.n), words)
    if several.any():
        raise OptionError(f"the treatment varies within some but not all clusters of {of!r}.\nUse `strata={of!r}`.")
    if _varies_within(cluster, codes).any():
        found = f"some clusters of {of!r} are in several strata of {name}"
        raise OptionError(f"{found}.\nLeave `strata=` out, or use strata of whole clusters.")
    first = np.unique(cluster, return_index=True)[1]
    return Assignment(design.arm[first], codes[first], cluster, f"the {count} clusters ({of}) as a whole{strata}")


def _varies_within(group: NDArray[np.intp], values: NDArray[Any]) -> NDArray[np.bool_]:
    return pd.Series(values).groupby(group).nunique().to_numpy() > 1


# --- the test --------------------------------------------------------------------------------------------------------

QUICK, REFITTED = 9999, 199  # default number of permutations: by matrix products, and with a refit for each
MOST_LISTED = 1_000_000  # maximum number of assignments to enumerate
TIE = 1e-9  # statistics with a smaller relative difference are equal
ARRAYS = 8  # arrays of shape (rows, permutations) per block
STATISTICS = {  # kind -> name in the summary, name in the one-line repr
    "studentized": ("studentized effect (z)", "z"),
    "difference": ("effect as a difference", "difference"),
    "wald": ("Wald's, of all effects", "Wald"),
}
SIZES: dict[str, Callable[[Any], Any]] = {"two-sided": np.abs, "larger": np.positive, "smaller": np.negative}


@dataclass(eq=False, repr=False)
class PermutationTest(HasSummary):
    """A permutation test of no treatment effect, returned by `permutation_test`.

    Attributes
    ----------
    statistic : float
        Statistic of the fit: the effect divided by its robust standard error, the effect itself, or the Wald statistic
        of several effects.
    pvalue : float
        Share of assignments whose statistic is at least as extreme as the fit's. The fit's own assignment is included.
    mc_se : float
        Monte Carlo standard error of the p-value; zero if every assignment was used.
    asymptotic_pvalue : float
        Large-sample p-value of a studentized statistic; NaN for a difference.
    null_distribution : ndarray, shape (n_permutations,)
        The statistic under each permutation; NaN if it could not be computed.
    n_permutations : int
        Number of random permutations; if `exact`, number of all assignments.
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
    statistic: float
    null_distribution: Array
    seed: np.random.SeedSequence | None  # None if every assignment was used

    methods = methods.permutation_methods

    def __post_init__(self) -> None:
        record, position, statistic = self.record, self.position, self.statistic
        self.exact = self.seed is None
        self.n_permutations = len(self.null_distribution)
        self.failed = int(np.isnan(self.null_distribution).sum())
        size = SIZES[self.alternative]
        reached = size(self.null_distribution) >= size(statistic) - TIE * abs(statistic)
        self.extreme = int(reached.sum()) + self.failed
        own, names = 0 if self.exact else 1, record.effect_names  # random assignments do not include the fit's own
        self.pvalue = (self.extreme + own) / (self.n_permutations + own)
        self.mc_se = own * math.sqrt(self.pvalue * (1 - self.pvalue) / (self.n_permutations + 1))
        self.term = ", ".join(names) if position is None else names[position - 1]
        self.asymptotic_pvalue = math.nan
        if self.kind == "wald":
            self.asymptotic_pvalue = float(intervals.joint_test(statistic, record.design.n_arms - 1, record.df).pvalue)
        elif self.kind == "studentized":
            tails = 2 if self.alternative == "two-sided" else 1
            self.asymptotic_pvalue = float(tails * stdtr(record.df, -size(statistic)))
        fit = record.weight_fit  # estimated from covariates, as for observational data
        self._adjusts = fit is not None and fit.estimated and record.design.propensity_names != ("Intercept",)

    def __getattr__(self, name: str) -> Any:
        raise UnavailableError(attribute("test", "test", name, [*vars(type(self)), *vars(self)]))

    def plot(self, ax: Any = None) -> Any:
        """Histogram of the statistic under the permutations, with a line at the statistic of the fit.

        A two-sided test of one effect also has a dashed line at minus this statistic.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Axes to draw on; by default a new figure.

        Returns
        -------
        matplotlib Axes
            The plot.
        """
        ax, null = plots.axes_or_new(ax), self.null_distribution[np.isfinite(self.null_distribution)]
        ax.hist(null, bins=50, color=plots.BLUE, alpha=0.35)
        ax.axvline(self.statistic, color=plots.ink(ax), label=f"observed, p {format_p(self.pvalue)}")
        if self.alternative == "two-sided" and self.position is not None:
            plots.mark_if_seen(ax, -self.statistic)
        return plots.finish(ax, f"{self.term}: {STATISTICS[self.kind][0]}", "permutations", columns=1)

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
        """Return the summary of the test.

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
            ("Alternative:", self.alternative, "Monte Carlo SE:", "none" if self.exact else f"{self.mc_se:.2g}"),
        )
        count = self.assignment.count
        large_sample = (
            "The statistic uses robust standard errors, so in large samples the test is also valid for the hypothesis "
            f"that the average effect is zero. The asymptotic p-value is {format_p(self.asymptotic_pvalue)}."
        )
        notes = [
            f"The treatment is permuted among {self.assignment.words}. Each permutation repeats every step of the "
            "estimator. If the treatment was randomized in this way, the p-value is exact for the hypothesis that the "
            "treatment changes no outcome.",
            large_sample * (self.kind != "difference"),
            f"There are only {count:.0f} assignments, so the p-value cannot be below {1 / count:.2g}." * (count < 40),
            f"Permutations without an estimate, which count as extreme: {self.failed}." * bool(self.failed),
            "The test is not valid for observational data, where the treatment was not randomized." * self._adjusts,
        ]
        return ResultSummary([ResultTable(rows, aligns="lrlr", title=title or "Permutation Test of No Effect")], notes)

    def __repr__(self) -> str:
        how = f"all {self.n_permutations:,} assignments" if self.exact else f"{self.n_permutations:,} permutations"
        value = f"{STATISTICS[self.kind][1]} {format_number(self.statistic, 5)}"
        test = f"Permutation test, {self.record.spec.name}: {self.term}, {value}, p {format_p(self.pvalue)}"
        return f"{test}, {self.alternative}, {how}{'; for randomized trials only' if self._adjusts else ''}"


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
    """Test that the treatment of a randomised trial has no effect, by randomisation inference.

    The treatment is permuted many times, and the estimator is computed for each permutation. Without clusters, rows are
    permuted. If each cluster has one treatment, whole clusters are permuted. If the treatment varies within clusters,
    rows are permuted within them.

    Parameters
    ----------
    n_permutations : int or "all", optional
        Number of random permutations. The default is 9999 for linear outcome models without importance weights, which
        are fast. It is 199 for other estimators, which are refitted each time. With "all", or if there are at most
        `n_permutations` assignments, each assignment is used once and there is no Monte Carlo error.
    strata : str, array_like or list of them, optional
        Strata, blocks or pairs within which the treatment was assigned: the name of a variable of the model's formulas
        or of `data`, or one value per row. A list gives one stratum per combination of values.
    data : DataFrame or mapping, optional
        The data of the model; needed for strata that its formulas do not use.
    statistic : {"studentized", "difference"}
        "studentized" (default): the effect divided by its robust (clustered) standard error, without a small-sample
        factor. "difference": the effect itself. For ratios, both use the logarithm.
    alternative : {"two-sided", "larger", "smaller"}
        Alternative hypothesis. "two-sided" (default) counts effects at least as large in either direction.
    arm : level or label, optional
        With several treatment groups, the group whose effect is tested. Only this group and the reference are permuted.
        By default all groups are permuted, and Wald's statistic tests all effects jointly.
    rng : int, Generator, SeedSequence or None, default 0
        Source of randomness, as in `fit`.
    n_jobs : int, default 1
        Number of threads, or of workers of the joblib backend, as in `fit`. The number does not change the results.
    progress : bool, default False
        Whether to show a progress bar.

    Returns
    -------
    PermutationTest
        `statistic`, `pvalue`, `null_distribution`, `mc_se`; `summary()` and `tidy()`.

    Raises
    ------
    OptionError
        If strata, clusters or known scores do not allow the permutation, or if only one assignment is possible.
    UnavailableError
        For data from `scan`, frequency weights, survey designs, `observed=`, and JRE with `replicates=`. Also if a
        standard error is 0, because the effect cannot be studentized.

    Warns
    -----
    ResampleWarning
        If the estimator fails for some permutations, which count as extreme.

    Notes
    -----
    The p-value is (1 + number of permutations as extreme) / (1 + number of permutations) [1]_, or the share of all
    assignments that are as extreme. The null hypothesis is that the treatment changes no outcome (the sharp null). The
    p-value is exact for any sample size and any model if the treatment was assigned in the way it is permuted. In large
    samples, the studentized test is also valid for the hypothesis that the average effect is zero. The test with
    "difference" is not valid for this hypothesis if the variances of the groups differ [2]_, [3]_. In the experiments
    of [4]_, the studentized test is more reliable than the asymptotic test. Stata's ritest [5]_, R's ri2 and pyfixest
    permute in the same way.

    Linear outcome models without importance weights are fitted to many permutations at once. Other estimators repeat
    every step of their fit, including the propensity score, learners and the joint fit. The test is not valid for
    observational data. The printed result warns of this if the propensity score was estimated.

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
    record.design.check_in_memory("permutation_test")
    if record.frequency or record.design.survey is not None or record.design.observation is not None:
        found = "permutation_test does not support frequency weights, survey designs or `observed=`"
        raise UnavailableError(f"{found}.\nUse `res.pvalues`, or data with one row per observation.")
    if record.joint is not None and record.joint.drawn is not None:
        raise UnavailableError("given replicates cannot be permuted.\nUse `res.model.fit().permutation_test()`.")
    linear = is_linear(record)
    if n_permutations is None:
        n_permutations = QUICK if linear else REFITTED
    elif n_permutations != "all":
        errors.whole_number("n_permutations", n_permutations, 1, QUICK if linear else REFITTED)
    position = None if arm is None and record.design.n_arms > 2 else record.arm_position(arm, effect=True)
    for name, given, only in (("statistic", statistic, "studentized"), ("alternative", alternative, "two-sided")):
        if position is None and given != only:
            use = f"arm={record.design.labels[1]!r}, {name}={given!r}"
            raise OptionError(f"{name}={given!r} needs a test of one effect.\nUse `{use}`.")
    codes, name = coded_strata(record.full_design, strata, data)
    assignment = assignment_of(record.full_design, codes, name, position)
    if n_permutations == "all" and assignment.count > MOST_LISTED:
        raise OptionError(f"there are more than {MOST_LISTED:,} assignments.\nUse `n_permutations=9999`.")
    exact = n_permutations == "all" or assignment.count <= int(n_permutations)
    count = int(assignment.count) if exact else int(n_permutations)
    seed = None if exact else seed_sequence(inference.rng)
    draw = assignment.listed if seed is None else partial(assignment.drawn, seed)
    kind = "wald" if position is None else statistic
    level = record.design.outcome_deviation if record.options.effect_scale is DIFFERENCE else 1.0
    measure = partial(statistics_of, position=position, kind=kind, level=level)
    actual = record.full_design.arm
    with warnings.catch_warnings(action="ignore", category=errors.CausalRiskWarning):  # given by the fit
        again = fitted_under(record, actual)  # raises the fit's error if it fails for the actual assignment
        under = partial(linear_contrasts, again) if linear else partial(refitted_contrasts, record)
        values, covariance = contrasts_of(again)
        observed = float(measure((values[None], covariance[None]))[0])
        block, needed = partial(_block, under, draw, measure), 8.0 * ARRAYS * len(actual) * WIDTH
        null = np.concatenate(list(in_blocks(block, count, needed, inference, "permutations", "permutation")))
    if not np.isfinite(observed):
        found = "a standard error is 0 or NaN, so there is no studentized test"
        raise UnavailableError(f'{found}.\nUse `statistic="difference"`.')
    test = PermutationTest(record, position, kind, alternative, assignment, observed, null, seed)
    if test.failed:
        lost = f"{test.failed} of {len(null)} permutations have no estimate and count as extreme"
        errors.warn_user(f"{lost}.\nUse simpler formulas.", errors.ResampleWarning)
    return test


def _block(under: Any, draw: Any, measure: Any, block: tuple[int, int]) -> Array:
    """Draw and fit the assignments of a block, given its number and width, and return their statistics."""
    with warnings.catch_warnings(action="ignore", category=errors.CausalRiskWarning):  # also in worker processes
        return measure(under(draw(*block)))


# --- effects under assignments ---------------------------------------------------------------------------------------


def contrasts_of(record: FitRecord) -> tuple[Array, Array]:
    """Return a fit's effects (K - 1,) on the additive scale (logs of ratios), and their covariance."""
    count = record.design.n_arms - 1
    values, covariance = intervals.on_scale(record)
    return values[:count], covariance[:count, :count]


def refitted_contrasts(record: FitRecord, arms: Arms) -> tuple[Array, Array]:
    """Repeat all steps of a fit under m assignments `arms` (n, m) of the design's rows. NaN for failures.

    Effects (m, K - 1) and covariances (m, K - 1, K - 1) are on the additive scale (logs of ratios).
    """
    count = record.design.n_arms - 1
    values = np.full((arms.shape[1], count), np.nan)
    covariance = np.full((arms.shape[1], count, count), np.nan)
    for j, arm in enumerate(arms.T):
        with contextlib.suppress(errors.CausalRiskError, np.linalg.LinAlgError):
            values[j], covariance[j] = contrasts_of(fitted_under(record, np.ascontiguousarray(arm)))
    return values, covariance


def fitted_under(record: FitRecord, arm: Arms) -> FitRecord:
    """Refit, with robust standard errors, under another assignment `arm` (n,) of the rows before trimming."""
    given = record.options
    if record.learned is None:  # such as the IPWRA fit within an average of fits
        given = dataclasses.replace(given, learner=None, learner_use=None, n_repeats=1)
    design = record.full_design.under(arm)
    drawn = None if record.joint is None or record.bootstrap in MULTIPLIERS else record.bootstrap
    inference = InferenceOptions(cov_type=record.robust_type, rng=record.seed, bootstrap=drawn)
    of_joint = DEFAULTS if record.joint is None else record.joint.options
    repeats = [dataclasses.replace(given, repeat=repeat) for repeat in range(given.n_repeats)]
    fits = [robust_record(fit_estimator(design, record.spec, options, inference, of_joint)) for options in repeats]
    return fits[0] if len(fits) == 1 else fitted_models.median_fit(fits)


def is_linear(record: FitRecord) -> bool:
    """Return whether a fit averages linear outcome models over its own rows, without importance weights."""
    design, options = record.design, record.options
    weighted = record.weight_fit is not None or record.joint is not None or record.learned is not None
    other_rows = design.periods is not None or design.offset_kind is not None or options.trim is not None
    other_rows |= design.second_cluster is not None
    return not (weighted or other_rows or record.frame is not None) and weights_of(record).equations.family.linear


def linear_contrasts(record: FitRecord, arms: Arms) -> tuple[Array, Array]:
    """Return what `refitted_contrasts` returns, for linear outcome models, under the assignments `arms` (n, m).

    Assignments with a singular design matrix are refitted. `is_linear` must be true for the record.
    """
    equations = centred(weights_of(record).equations)
    q, sample, scale = equations.columns, equations.sample, record.options.effect_scale
    toward = record.options.population.toward
    arm, s, total = arms[sample.order], sample.s[:, None], sample.s.sum()
    tilt = np.ones((len(q), 1))  # weight of each row in the target, with mean one
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
        slope = scale.g_slope(levels)
    moved = np.stack([b * own - slope[0] * influence[0] for b, own in zip(slope[1:], influence[1:], strict=True)], 2)
    if sample.cluster is not None:
        count = int(sample.cluster.max()) + 1
        moved = group_sums(moved.reshape(len(moved), -1), sample.cluster, count).reshape(count, *moved.shape[1:])
    values, covariance = scale.differences(levels).T, np.einsum("nmj,nmk->mjk", moved, moved) / total**2
    if alone.any():
        values[alone], covariance[alone] = refitted_contrasts(record, arms[:, alone])
    return values, covariance


def statistics_of(contrasts: tuple[Array, Array], position: int | None, kind: str, level: float) -> Array:
    """Return the statistic (m,): the effect of the arm at `position`, studentized or not, or Wald's for all effects.

    NaN for assignments without an estimate. Effects and standard errors far below `level` are rounding error and count
    as zero. The studentized statistic is then zero for an effect of zero, and infinite for other effects.
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
