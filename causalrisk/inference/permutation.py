"""Randomisation inference: the statistic of a fit under the other assignments that the trial could have made.

Under the hypothesis that the treatment changes no outcome, outcomes and covariates are the same in every assignment.
Linear outcome models are fitted under a block of permutations in matrix products (`Linear`). All other estimators
repeat every step of the fit for each permutation (`refitted`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from causalrisk.design import Design
from causalrisk.design.assignment import Assignment, assignment_of, coded_strata
from causalrisk.design.design import rows_not_kept
from causalrisk.errors import (
    CausalRiskError,
    CausalRiskWarning,
    OptionError,
    ResampleWarning,
    UnavailableError,
    one_of,
    warn_user,
    whole_number,
)
from causalrisk.estimation.estimates import group_sums
from causalrisk.estimation.fits import centred, weights_of
from causalrisk.estimation.options import Alternative, InferenceOptions
from causalrisk.estimation.record import SE_ROUNDING, FitRecord, of_means
from causalrisk.estimation.specification import DIFFERENCE
from causalrisk.inference.covariance import TOGETHER, fit_again, in_blocks, robust_record
from causalrisk.inference.fitted_models import median_fit
from causalrisk.inference.intervals import joint_test, two_sided
from causalrisk.learners.folds import Arms
from causalrisk.numerics.blocks import taken
from causalrisk.numerics.linalg import Array, gram_matrices, pairwise_columns, solve_definite
from causalrisk.numerics.multiplicities import WIDTH, seed_sequence

ALL = "all"  # n_permutations="all" lists every assignment
QUICK, REFITTED = 9999, 199  # permutations by default: in matrix products, and where each takes a fit
MOST_LISTED = 1_000_000  # assignments that are listed
TIE = 1e-9  # relative difference of statistics that rounding makes
PROGRESS = ("permutations", "permutation")  # label of the bar, and what it counts
ARRAYS = 8  # arrays of a number for each row and permutation, of a block


# --- effects under assignments -----------------------------------------------------------------------------------


# Effects (m, K - 1) where they are differences, covariances (m, K - 1, K - 1).
Contrasts: TypeAlias = tuple[Array, Array]


def contrasts_of(record: FitRecord) -> tuple[Array, Array]:
    """Return effects of a fit, (K - 1,), on the scale where they are differences, and their covariance."""
    scale, count = record.options.effect_scale, record.design.n_arms - 1
    with np.errstate(invalid="ignore", divide="ignore"):
        values = scale.contrast(record.estimate.params[:count])
        slope = scale.report_slope(values)
        return values, record.covariance[:count, :count] / np.outer(slope, slope)


def refitted(record: FitRecord, arms: Arms) -> Contrasts:
    """Repeat all steps of a fit under assignments, arms (n, m) of the rows of the design; NaN where it fails."""
    count = record.design.n_arms - 1
    values = np.full((arms.shape[1], count), np.nan)
    covariance = np.full((arms.shape[1], count, count), np.nan)
    for j, arm in enumerate(arms.T):
        with contextlib.suppress(CausalRiskError, np.linalg.LinAlgError):
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
    return fits[0] if len(fits) == 1 else median_fit(fits)


def is_linear(record: FitRecord) -> bool:
    """Whether a fit averages linear outcome models over its own rows, without importance weights."""
    design, options = record.design, record.options
    weighted = record.weight_fit is not None or record.joint is not None or record.learned is not None
    other_rows = design.periods is not None or design.offset_kind is not None or options.trim is not None
    return not (weighted or other_rows or record.frame is not None) and weights_of(record).equations.family.linear


@dataclass(frozen=True)
class Linear:
    """Linear outcome models of each arm, averaged over the target, under m assignments at once.

    `q` (n, p) has the columns, `pairs` their products, `y` (n,) the outcome less `height`, `s` (n,) the observation
    weights, `rows` the positions in the design, `cluster` the cluster of each row, if there are any.
    """

    record: FitRecord
    q: Array
    pairs: Array
    y: Array
    s: Array
    rows: NDArray[np.intp]
    cluster: NDArray[np.intp] | None
    height: float

    @classmethod
    def of(cls, record: FitRecord) -> Linear:
        """Prepare the rows of a record for which `is_linear` is true."""
        equations = centred(weights_of(record).equations)
        q, sample = equations.columns, equations.sample
        return cls(record, q, pairwise_columns(q), sample.y, sample.s, sample.order, sample.cluster, equations.height)

    def __call__(self, arms: Arms) -> Contrasts:
        """Return effects under assignments, arms (n, m) of the rows of the design; refit where columns depend."""
        arm, total, toward = arms[self.rows], self.s.sum(), self.record.options.population.toward
        tilt = np.ones((len(self.q), 1))  # of the target, of mean one
        if toward is not None:
            inside = (arm == toward).astype(float)
            tilt = inside * (total / (self.s @ inside))
        means, influence, singular = zip(
            *(self._mean(arm == a, tilt, total) for a in range(self.record.design.n_arms)), strict=True
        )
        values, covariance = self._contrasts(np.stack(means), influence, total)
        alone = np.logical_or.reduce(singular)
        if alone.any():
            values[alone], covariance[alone] = refitted(self.record, arms[:, alone])
        return values, covariance

    def _mean(self, inside: NDArray[np.bool_], tilt: Array, total: float) -> tuple[Array, Array, NDArray[np.bool_]]:
        """Mean of an arm, (m,), s times its influence function, (n, m), and which systems are singular."""
        own = inside * self.s[:, None]
        gram = gram_matrices(self.pairs, own, self.q.shape[1])
        theta, singular = solve_definite(gram, (self.q * self.y[:, None]).T @ own)
        average = np.broadcast_to(self.q.T @ (self.s[:, None] * tilt) / total, theta.shape)
        lever, _ = solve_definite(gram, average)
        predicted, mean = self.q @ theta, (average * theta).sum(axis=0)
        residual = own * (self.y[:, None] - predicted)
        return mean, self.s[:, None] * tilt * (predicted - mean) + total * (self.q @ lever) * residual, singular

    def _contrasts(self, means: Array, influence: tuple[Array, ...], total: float) -> Contrasts:
        """Return contrasts with the reference of arm means (K, m) and their covariances from influence functions."""
        scale = self.record.options.effect_scale
        levels = means if scale is DIFFERENCE else means + self.height
        with np.errstate(invalid="ignore", divide="ignore"):
            on_scale, slope = scale.g(levels), scale.g_slope(levels)
            on_scale = np.where((levels > scale.low) & (levels < scale.high), on_scale, np.nan)
        reference = slope[0] * influence[0]
        moved = np.stack([b * own - reference for b, own in zip(slope[1:], influence[1:], strict=True)], axis=2)
        if self.cluster is not None:
            count = int(self.cluster.max()) + 1
            moved = group_sums(moved.reshape(len(moved), -1), self.cluster, count).reshape(count, *moved.shape[1:])
        return (on_scale[1:] - on_scale[0]).T, np.einsum("nmj,nmk->mjk", moved, moved) / total**2


def of_units(record: FitRecord) -> FitRecord:
    """Return a fit with frequency weights whose observations are rows of their own."""

    def longer(design: Design) -> Design:
        rows = _repeated(design)
        every = taken(design, rows, "y", "X", "Z", "arm", "cluster", "offset", "score", "index")
        return dataclasses.replace(every, weights=np.ones(len(rows)), weight_type=None, weights_name=None)

    return dataclasses.replace(record, design=longer(record.design), full_design=longer(record.full_design))


def _repeated(design: Design) -> NDArray[np.intp]:
    return np.repeat(np.arange(design.n), design.weights.astype(int))


# --- the test ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Permutations:
    """A statistic of a fit and its distribution over assignments.

    `position` is the arm whose effect is tested, None for a joint Wald statistic. `exact` says whether every assignment
    was used. `null_distribution` (N,) is NaN where the statistic could not be computed.
    """

    record: FitRecord
    position: int | None
    kind: str
    alternative: str
    assignment: Assignment
    exact: bool
    statistic: float
    null_distribution: Array

    @property
    def n_permutations(self) -> int:
        """Number of permutations, or of all assignments."""
        return len(self.null_distribution)

    @property
    def failed(self) -> int:
        """Permutations without an estimate; they count as extreme."""
        return int(np.isnan(self.null_distribution).sum())

    @property
    def adjusts_treatment(self) -> bool:
        """Whether a propensity score was estimated from covariates, as for observational data."""
        fit = self.record.weight_fit
        return fit is not None and fit.estimated and self.record.design.propensity_names != ("Intercept",)

    def are_extreme(self, values: Array) -> NDArray[np.bool_]:
        """Whether values of the statistic are at least as extreme as that of the fit; False for NaN."""
        tie = TIE * abs(self.statistic)
        if self.alternative == "two-sided":
            return np.abs(values) >= abs(self.statistic) - tie
        return values >= self.statistic - tie if self.alternative == "larger" else values <= self.statistic + tie

    @property
    def extreme(self) -> int:
        """Assignments whose statistic is at least as extreme as that of the fit, or that have none."""
        return int(self.are_extreme(self.null_distribution).sum()) + self.failed

    @property
    def pvalue(self) -> float:
        """Share of the assignments that are as extreme; among random ones the fit's own counts as one more."""
        added = 0 if self.exact else 1
        return (self.extreme + added) / (self.n_permutations + added)

    @property
    def mc_se(self) -> float:
        """Monte Carlo standard error of the p-value; zero if every assignment was used."""
        return 0.0 if self.exact else math.sqrt(self.pvalue * (1 - self.pvalue) / (self.n_permutations + 1))

    @property
    def asymptotic_pvalue(self) -> float:
        """P-value of a studentized statistic by its distribution in large samples; NaN for a difference."""
        if self.kind == "difference":
            return math.nan
        if self.position is None:
            return float(joint_test(self.statistic, self.record.design.n_arms - 1, self.record.df).pvalue)
        if self.alternative == "two-sided":
            return float(two_sided(np.asarray(self.statistic), self.record.df))
        return float(stdtr(self.record.df, -self.statistic if self.alternative == "larger" else self.statistic))


@of_means
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
) -> Permutations:
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
        `statistic`, `pvalue`, `null_distribution`, `mc_se`; `summary()` and `plot()`.

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
    one_of("statistic", statistic, ("studentized", "difference"))
    alternative = one_of("alternative", alternative, ("two-sided", "larger", "smaller"))
    inference = InferenceOptions(rng=rng, n_jobs=n_jobs, progress=progress)
    _check_fit(record)
    linear = is_linear(record)
    if n_permutations is None:
        n_permutations = QUICK if linear else REFITTED
    elif n_permutations != ALL:
        whole_number("n_permutations", n_permutations, 1, QUICK if linear else REFITTED)
    position = None if arm is None and record.design.n_arms > 2 else record.contrast_position(arm)
    for name, given, only in (("statistic", statistic, "studentized"), ("alternative", alternative, "two-sided")):
        if position is None and given != only:
            use = f"arm={record.design.labels[1]!r}, {name}={given!r}"
            raise OptionError(f"{name}={given!r} is for one effect.\nUse `{use}`.")
    codes, name = coded_strata(record.full_design, strata, data)
    if record.frequency:
        codes, record = codes[_repeated(record.full_design)], of_units(record)
    assignment = assignment_of(record.full_design, codes, name, position)
    if n_permutations == ALL and assignment.count > MOST_LISTED:
        raise OptionError(f"there are more than {MOST_LISTED:,} assignments.\nUse `n_permutations=9999`.")
    exact = n_permutations == ALL or assignment.count <= int(n_permutations)
    count = int(assignment.count) if exact else int(n_permutations)
    draw = assignment.listed if exact else functools.partial(assignment.drawn, seed_sequence(inference.rng))
    level = record.design.outcome_deviation if record.options.effect_scale is DIFFERENCE else 1.0
    measure = functools.partial(statistics_of, position=position, kind=statistic, level=level)
    arm = record.full_design.arm
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausalRiskWarning)  # the fit has given them
        again = fitted_under(record, arm)  # where every assignment fails, the error of the fit
        under: Callable[[Arms], Contrasts] = Linear.of(again) if linear else functools.partial(refitted, record)
        values, covariance = contrasts_of(again)
        observed = float(measure((values[None], covariance[None]))[0])
        width = WIDTH * max((TOGETHER if linear else 1) // len(arm), 1)
        block, needed = functools.partial(_block, under, draw, measure), 8.0 * ARRAYS * len(arm) * width
        null = np.concatenate(list(in_blocks(block, count, width, needed, inference, PROGRESS)))
    if not np.isfinite(observed):
        raise UnavailableError('the effect has no sampling error.\nUse `statistic="difference"`.')
    test = Permutations(record, position, statistic, alternative, assignment, exact, observed, null)
    if test.failed:
        lost = f"{test.failed} of {len(null)} permutations have no estimate, and count as extreme"
        warn_user(f"{lost}.\nUse simpler formulas.", ResampleWarning)
    return test


def _check_fit(record: FitRecord) -> None:
    """Refuse fits that cannot be redone under other assignments."""
    if record.design.on_disk:
        raise rows_not_kept("permutation_test")
    if record.design.survey is not None:
        raise UnavailableError("permutation_test does not support survey designs.\nUse `res.pvalues`.")
    if record.design.observation is not None:
        raise UnavailableError("permutation_test does not support missing outcomes.\nUse `res.pvalues`.")
    if record.joint is not None and record.joint.drawn is not None:
        raise UnavailableError("replicates that were given do not permute.\nUse `res.model.fit().permutation_test()`.")


def statistics_of(contrasts: Contrasts, position: int | None, kind: str, level: float) -> Array:
    """Return the statistic (m,) of effects: studentized or not, of the arm at a position, or Wald's of all.

    NaN where there are no effects; standard errors far below `level` are rounding error.
    """
    values, covariance = contrasts
    se = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    se = np.where(se <= SE_ROUNDING * level, 0.0, se)
    values = np.where(np.abs(values) <= SE_ROUNDING * level, 0.0, values)
    if position is not None and kind == "difference":
        return np.asarray(values[:, position - 1])
    with np.errstate(invalid="ignore", divide="ignore"):
        t = np.where(values == 0, 0.0, values / se)
        if position is not None:
            return np.asarray(t[:, position - 1])
        correlation = covariance / (se[:, :, None] * se[:, None, :])
        solved, _ = solve_definite(correlation, t.T)
        return np.asarray((t.T * solved).sum(axis=0))


def _block(
    under: Callable[[Arms], Contrasts],
    draw: Callable[[int, int], Arms],
    measure: Callable[[Contrasts], Array],
    count: int,
    width: int,
    number: int,
) -> Array:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausalRiskWarning)  # in a process of its own too
        return measure(under(draw(number * width, min(width, count - number * width))))
