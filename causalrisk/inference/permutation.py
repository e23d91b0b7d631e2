"""Randomisation inference: what an estimate would have been under the other assignments that the trial could have made.

Flows in: a fitted record and how its treatment was assigned: to rows or to clusters, within strata. Flows out: the
statistic of its effects, the same statistic under permuted treatments, and the share of them that is as extreme. Under
the hypothesis that the treatment changes no outcome, outcomes and covariates are the same in every assignment.

Linear outcome models without importance weights are fitted under a block of permutations in matrix products (`Linear`).
Every other estimator goes through all stages of its fit for each of them (`refitted`): learners, propensity score,
trimming, outcome models, joint training.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from causalrisk.design import Design, ScannedDesign
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
from causalrisk.estimation.fits import centred, weights_of
from causalrisk.estimation.options import Alternative, InferenceOptions
from causalrisk.estimation.record import SE_ROUNDING, FitRecord, of_means
from causalrisk.estimation.specification import DIFFERENCE
from causalrisk.inference.covariance import TOGETHER, fit_again, in_blocks, robust_record
from causalrisk.inference.fitted_models import median_fit
from causalrisk.inference.intervals import joint_test, two_sided
from causalrisk.learners.folds import Arms
from causalrisk.numerics.blocks import taken
from causalrisk.numerics.linalg import Array, column_blocks, gram_matrices, pairwise_columns, solve_definite
from causalrisk.numerics.multiplicities import WIDTH, seed_sequence

STATISTICS = ("studentized", "difference")
ALTERNATIVES = ("two-sided", "larger", "smaller")
ALL = "all"  # n_permutations="all" lists every assignment
QUICK, REFITTED = 9999, 199  # permutations by default: in matrix products, and where each takes a fit
MOST_LISTED = 1_000_000  # assignments that are listed one by one
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
    """Redo all stages of a fit under assignments, arms (n, m) of the rows of the design; NaN where it fails."""
    count = record.design.n_arms - 1
    values = np.full((arms.shape[1], count), np.nan)
    covariance = np.full((arms.shape[1], count, count), np.nan)
    for j, arm in enumerate(arms.T):
        with contextlib.suppress(CausalRiskError, np.linalg.LinAlgError):
            values[j], covariance[j] = contrasts_of(fitted_under(record, np.ascontiguousarray(arm)))
    return values, covariance


def fitted_under(record: FitRecord, arm: Arms) -> FitRecord:
    """Return a fit under another assignment, arms (n,) of the design before trimming, with robust errors."""
    given, repeated = record.options, []
    if record.learned is None:  # as IPWRA where a stack starts
        given = dataclasses.replace(given, learner=None, learner_use=None, n_repeats=1)
    design = record.full_design.under(arm)
    drawn = None if record.joint is None else record.bootstrap
    inference = InferenceOptions(cov_type=record.robust_type, rng=record.seed, bootstrap=drawn)
    for repeat in range(given.n_repeats):
        options = dataclasses.replace(given, repeat=repeat)
        repeated.append(robust_record(fit_again(record, design, options, inference)))
    return repeated[0] if len(repeated) == 1 else median_fit(repeated)


def is_linear(record: FitRecord) -> bool:
    """Whether a fit averages linear outcome models on the columns of its design, without importance weights."""
    plain = record.weight_fit is None and record.joint is None and record.learned is None
    plain = plain and record.design.periods is None
    family = weights_of(record).equations.family
    return plain and record.options.trim is None and record.design.offset_kind is None and family.linear


@dataclass(frozen=True)
class Linear:
    """Fits linear outcome models in each arm, averaged over the target, under m assignments at once.

    Rows are those of a target frame, if there is one, then those of the design, rows of a cluster together: `q` (n, p)
    has their columns, `y` (n,) the outcome less `height`, `s` (n,) the observation weights, `rows` their positions in
    the design, `starts` the first row of each cluster. Where columns depend on each other in an arm, the
    fit is redone as by `refitted`.
    """

    record: FitRecord
    q: Array
    y: Array
    s: Array
    rows: NDArray[np.intp]
    starts: NDArray[np.intp] | None
    height: float

    @classmethod
    def of(cls, record: FitRecord) -> Linear:
        """Return the fits of a record for which `is_linear` is true."""
        equations = centred(weights_of(record).equations)
        sample, n_frame, cluster = equations.sample, record.sample.n_frame, record.design.cluster
        order, starts = np.arange(record.design.n), None
        if cluster is not None:
            order = np.argsort(cluster[sample.order], kind="stable")
            edges = np.flatnonzero(np.diff(cluster[sample.order][order])) + 1
            starts = np.r_[np.arange(n_frame), n_frame, n_frame + edges]
        every = np.r_[np.arange(n_frame), n_frame + order]
        q, y, s = equations.columns[every], sample.y[every], sample.s[every]
        return cls(record, q, y, s, sample.order[order], starts, equations.height)

    @cached_property
    def _pairs(self) -> Array:
        return pairwise_columns(self.q)

    def __call__(self, arms: Arms) -> Contrasts:
        """Return effects under assignments, arms (n, m) of the rows of the design."""
        parts = [self._under(arms[:, some]) for some in column_blocks(arms.shape[1], len(self.q))]
        values, covariances = zip(*parts, strict=True)
        return np.concatenate(values), np.concatenate(covariances)

    def _under(self, arms: Arms) -> Contrasts:
        n_arms, n_frame = self.record.design.n_arms, len(self.q) - len(self.rows)
        of_frame = np.full((n_frame, arms.shape[1]), -1, dtype=arms.dtype)
        arm = np.concatenate([of_frame, arms[self.rows]])
        total = self.s[n_frame:].sum()
        tilt = np.ones((len(self.q), 1))  # towards the target, of mean one
        if n_frame:
            tilt = np.r_[np.full(n_frame, total / n_frame), np.zeros(len(self.rows))][:, None]
        elif self.record.options.population.toward is not None:
            inside = (arm == self.record.options.population.toward).astype(float)
            tilt = inside * (total / (self.s @ inside))
        average = self.q.T @ (self.s[:, None] * tilt) / total  # of the columns, over the target
        trained = [self._mean(arm == a, tilt, average, total) for a in range(n_arms)]
        means, influence, singular = zip(*trained, strict=True)
        values, covariance = self._contrasts(np.stack(means), influence, total)
        alone = np.logical_or.reduce(singular)
        if alone.any():
            values[alone], covariance[alone] = refitted(self.record, arms[:, alone])
        return values, covariance

    def _mean(
        self, inside: NDArray[np.bool_], tilt: Array, average: Array, total: float
    ) -> tuple[Array, Array, NDArray[np.bool_]]:
        """Mean of an arm, (m,), times weights its influence function, (n, m), and which systems are singular."""
        own = inside * self.s[:, None]
        gram = gram_matrices(self._pairs, own, self.q.shape[1])
        theta, singular = solve_definite(gram, (self.q * self.y[:, None]).T @ own)
        average = np.broadcast_to(average, theta.shape)
        lever, _ = solve_definite(gram, average)
        predicted, mean = self.q @ theta, (average * theta).sum(axis=0)
        residual = own * (self.y[:, None] - predicted)
        return mean, self.s[:, None] * tilt * (predicted - mean) + total * (self.q @ lever) * residual, singular

    def _contrasts(self, means: Array, influence: tuple[Array, ...], total: float) -> Contrasts:
        scale = self.record.options.effect_scale
        levels = means if scale is DIFFERENCE else means + self.height
        with np.errstate(invalid="ignore", divide="ignore"):
            on_scale, slope = scale.g(levels), scale.g_slope(levels)
            on_scale = np.where((levels > scale.low) & (levels < scale.high), on_scale, np.nan)
        reference = slope[0] * influence[0]
        moved = np.stack([b * moved - reference for b, moved in zip(slope[1:], influence[1:], strict=True)], axis=2)
        if self.starts is not None:
            moved = np.add.reduceat(moved, self.starts, axis=0)
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
    was used. `observed` is the statistic of the fit, `null` (N,) the others, NaN where it could not be computed.
    """

    record: FitRecord
    position: int | None
    kind: str
    alternative: str
    assignment: Assignment
    exact: bool
    observed: float
    null: Array

    @property
    def failed(self) -> int:
        """Assignments under which the estimator could not be computed; they count as extreme."""
        return int(np.isnan(self.null).sum())

    @property
    def adjusts_treatment(self) -> bool:
        """Whether a propensity score was estimated from covariates, as for observational data."""
        fit = self.record.weight_fit
        return fit is not None and fit.estimated and self.record.design.propensity_names != ("Intercept",)

    def are_extreme(self, values: Array) -> NDArray[np.bool_]:
        """Whether values of the statistic are at least as extreme as that of the fit; False for NaN."""
        tie = TIE * abs(self.observed)
        if self.alternative == "two-sided":
            return np.abs(values) >= abs(self.observed) - tie
        return values >= self.observed - tie if self.alternative == "larger" else values <= self.observed + tie

    @property
    def extreme(self) -> int:
        """Assignments whose statistic is at least as extreme as that of the fit, or that have none."""
        return int(self.are_extreme(self.null).sum()) + self.failed

    @property
    def pvalue(self) -> float:
        """Share of the assignments that are as extreme; of drawn ones that of the fit counts as one more."""
        added = 0 if self.exact else 1
        return (self.extreme + added) / (len(self.null) + added)

    @property
    def mc_se(self) -> float:
        """Monte Carlo standard error of the p-value; zero where every assignment was taken."""
        return 0.0 if self.exact else math.sqrt(self.pvalue * (1 - self.pvalue) / (len(self.null) + 1))

    @property
    def asymptotic_pvalue(self) -> float:
        """The p-value of the statistic by its distribution in large samples; NaN of a difference, which has none."""
        if self.kind != "studentized":
            return math.nan
        if self.position is None:
            return float(joint_test(self.observed, self.record.design.n_arms - 1, self.record.df).pvalue)
        if self.alternative == "two-sided":
            return float(two_sided(np.asarray(self.observed), self.record.df))
        return float(stdtr(self.record.df, -self.observed if self.alternative == "larger" else self.observed))


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

    The treatment is permuted as it could have been assigned, and the estimator computed again each time: among the
    rows; where the fit has clusters with one arm each, among whole clusters; where the treatment varies within each
    cluster, within clusters.

    Parameters
    ----------
    n_permutations : int or "all", optional
        Number of random permutations. The default is 9999 for linear outcome models without weights, whose permutations
        take no time, and 199 for the other estimators, which are fitted again in each. If there are no more different
        assignments than that, or for "all", each is used once and the p-value has no Monte Carlo error.
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
    the joint training among them, which takes as long as so many fits. For observational data the test says nothing;
    where a propensity score was estimated from covariates the printed result says so.

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
    one_of("statistic", statistic, STATISTICS)
    alternative = one_of("alternative", alternative, ALTERNATIVES)
    if n_permutations is None:
        n_permutations = QUICK if is_linear(record) else REFITTED
    elif n_permutations != ALL:
        whole_number("n_permutations", n_permutations, 1)
    inference = InferenceOptions(rng=rng, n_jobs=n_jobs, progress=progress)
    _check_fit(record)
    position = None if arm is None and record.design.n_arms > 2 else record.contrast_position(arm)
    if position is None:
        _check_joint(record, statistic, alternative)
    codes, name = coded_strata(record.full_design, strata, data)
    if record.frequency:
        codes, record = codes[_repeated(record.full_design)], of_units(record)
    assignment = assignment_of(record.full_design, codes, name, position)
    exact = _lists_all(assignment, n_permutations)
    count = int(assignment.count) if exact else int(n_permutations)
    draw = assignment.listed if exact else functools.partial(assignment.drawn, seed_sequence(inference.rng))
    level = record.design.outcome_deviation if record.options.effect_scale is DIFFERENCE else 1.0
    measure = functools.partial(statistics_of, position=position, kind=statistic, level=level)
    arm, linear = record.full_design.arm, is_linear(record)
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
    if isinstance(record.design, ScannedDesign):
        raise rows_not_kept("permutation_test")
    if record.design.survey is not None:
        raise UnavailableError("permutation_test does not support survey designs.\nUse `res.pvalues`.")
    if record.design.observation is not None:
        raise UnavailableError("permutation_test does not support missing outcomes.\nUse `res.pvalues`.")
    if record.joint is not None and record.joint.drawn is not None:
        raise UnavailableError("replicates that were given do not permute.\nUse `res.model.fit().permutation_test()`.")


def _check_joint(record: FitRecord, statistic: str, alternative: str) -> None:
    label = record.design.labels[1]
    for name, given, only in (("statistic", statistic, "studentized"), ("alternative", alternative, "two-sided")):
        if given != only:
            raise OptionError(f"{name}={given!r} is for one effect.\nUse `arm={label!r}, {name}={given!r}`.")


def _lists_all(assignment: Assignment, n_permutations: int | str) -> bool:
    """Whether every assignment is taken: asked for, or no more than the permutations that were."""
    if n_permutations != ALL:
        return assignment.count <= int(n_permutations)
    if assignment.count > MOST_LISTED:
        raise OptionError(f"there are more than {MOST_LISTED:,} assignments.\nUse `n_permutations=9999`.")
    return True


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
