"""The results of a fit as a frozen `FitRecord`, its robust covariance, and weighted averages of fits.

The robust covariance is the sandwich of the stacked estimating equations, clustered if a cluster was given.

A stack averages M fits of one effect: JRE on a formula, JRE with the predictions of a learner among its terms, and
AIPW with the predictions alone. Its arm means are w_1 mu_1 + ... + w_M mu_M, with w >= 0 and sum 1. The weights
minimise w' (S + diag S) w, where S is the covariance of the effects from their influence functions. The diagonal is
doubled because unequal weights gain less in a new sample than in this one. Influence functions and resamples treat the
weights as fixed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from causalrisk.design.design import Design, TargetRows
from causalrisk.design.on_disk import DesignOnDisk
from causalrisk.errors import DesignWarning, Notes, OptionError, UnavailableError, first_failure, not_on_disk
from causalrisk.estimation import fits
from causalrisk.estimation.fits import Estimate, FittedRows, Refits, WeightFit, collect_refits
from causalrisk.estimation.learned import Learned
from causalrisk.estimation.matching import MatchedRows
from causalrisk.estimation.options import InferenceOptions, JREOptions, ModelOptions
from causalrisk.estimation.overlap import ArmWeights
from causalrisk.estimation.sample import Sample, SampleResampler, sample_resampler, unit_count
from causalrisk.estimation.specification import DIFFERENCE, EffectScale, Specification, effect_names, parameter_names
from causalrisk.joint.fit import JointFit
from causalrisk.joint.rows import Replicates
from causalrisk.joint.shrinkage import Path
from causalrisk.numerics.arrays import Array, loaded
from causalrisk.numerics.optimize import non_negative_least_squares
from causalrisk.numerics.resampling import JACKKNIFE, MULTIPLIERS

MEAN_ROUNDING = 1e-9  # a mean within this share of a constant outcome is the constant


@dataclass(frozen=True)
class JointRecord:
    """The parts of a fit that only JRE has."""

    replicates: Replicates  # of the propensity score
    fit: JointFit  # the minimum, with the input of the fit
    expected_risk: float
    options: JREOptions  # without the caller's weights
    path: Path | None  # how the amount of shrinkage was chosen; None if it was given
    drawn: Array | None = None  # replicate weights from the caller, (n, B), in the order of the sample

    @property
    def start(self) -> Estimate:
        """The IPWRA estimate that JRE started from."""
        return self.fit.problem.start

    @property
    def share(self) -> float:
        """Heterogeneity share c: the share of IPWRA's effect heterogeneity that the objective's variance leaves out."""
        return self.fit.terms.share

    @property
    def anchor(self) -> float | None:
        """The amount of shrinkage toward IPWRA, given or chosen. None for objective="erm", which has no shrinkage."""
        return self.fit.alpha if self.fit.terms.risk else None

    @property
    def score_joined(self) -> bool:
        """Whether the linear predictor of the propensity score is a term of the outcome models."""
        return self.fit.rows.joined is not None


@dataclass(frozen=True)
class Task:
    """The input of a fit."""

    design: Design  # trimmed if asked for
    full_design: Design  # before trimming
    spec: Specification
    options: ModelOptions
    inference: InferenceOptions  # in a `FitRecord` without the caller's resamples
    cov_type: str  # "robust", "HC1", "cluster", "jackknife", "bootstrap", "survey" or "replicates"
    bootstrap: str  # kind of resampling, or the distribution of the multipliers
    notes: Any  # texts of all notes and warnings so far: `Notes`, or a tuple
    frame: TargetRows | None = None  # rows of a target frame
    trimmed: str = ""  # how many rows were trimmed and by what limits


@dataclass(frozen=True, kw_only=True)
class FitRecord(Task):
    """Everything a fit produced."""

    sample: Sample  # the data as numbers, rows sorted by arm
    weight_fit: WeightFit | None  # the propensity model and the importance weights
    estimate: Estimate
    overlap: tuple[ArmWeights, ...]  # how the importance weights of each arm are spread
    joint: JointRecord | None = None  # for JRE only
    covariance: Array  # of `estimate.values`, or of effects and means alone
    boot: Refits | None = None
    given_resamples: bool  # whether the caller gave the resamples
    seed: np.random.SeedSequence  # root of the random streams
    df: float = np.inf  # of t tests and intervals; infinite for the normal distribution
    small_sample: bool = False  # whether the covariance has the factor of HC1
    robust: Array | None = None  # the robust covariance if it is known already, as for the start of JRE
    learned: Learned | None = None  # predictions of learners, if any
    stack: Stack | None = None  # the fits that are averaged, if any
    repeats: Array | None = None  # effects and arm means with other folds of the learners, (R, 2 K - 1)

    @property
    def estimand(self) -> str:
        """Name of the effect, such as "ATE", with "trimmed" or "matched" before it if rows were left out."""
        trimmed = any(line[0] == "trim" for line in self.design.ledger)
        return "trimmed " * trimmed + "matched " * (self.n_unmatched > 0) + self.options.estimand

    @property
    def n_unmatched(self) -> int:
        """Number of rows of the target that matching left out, because they have no match."""
        rows, toward = self.estimate.rows, self.options.population.toward
        if not isinstance(rows, MatchedRows):
            return 0
        return (self.design.nobs if toward is None else int(self.design.counts[toward])) - int(rows.inside.sum())

    @property
    def effect_names(self) -> list[str]:
        """Names of the effects: the estimand, followed by the label of the arm if there are several effects."""
        return effect_names(self.estimand, self.design.labels, self.options.effect_scale.quantiles)

    @property
    def contrasts(self) -> list[str]:
        """The comparison of arms that each effect makes, such as "b vs a"."""
        return [f"{label} vs {self.design.labels[0]}" for label in self.design.labels[1:]]

    @property
    def names(self) -> list[str]:
        """Names of the parameters: effects, then arm means."""
        return parameter_names(self.estimand, self.design.labels, self.options.effect_scale.quantiles)

    @property
    def null(self) -> Array:
        """Null values of the parameters, shape (2 K - 1,): no effect, and zero for the arm means."""
        scale = self.options.effect_scale
        return np.r_[np.full(len(self.effect_names), scale.null), np.zeros(self.design.n_arms * scale.per_arm)]

    @property
    def constant_means(self) -> bool:
        """Whether the outcome is constant and every arm mean is that constant, so effects have no sampling error."""
        design, limits = self.design, self.design.outcome_limits
        level = limits[0, 0]
        if np.ptp(limits) or design.offset_kind is not None or design.predictions is not None:
            return False
        away = self.estimate.params[-design.n_arms :] - (level if design.periods is None else 0.0)  # else changes
        return bool((np.abs(away) <= MEAN_ROUNDING * np.abs(level)).all())

    @property
    def stated_exposure(self) -> float | None:
        """The exposure at which the means are computed. None for observed exposures, or without exposures."""
        return self.options.stated_exposure(self.design)

    @property
    def frequency(self) -> bool:
        """Whether the observation weights count repeated rows."""
        return self.design.weight_type == "frequency"

    @property
    def multiplied(self) -> bool:
        """Whether the bootstrap multiplies influence functions instead of refitting."""
        return self.boot is not None and self.bootstrap in MULTIPLIERS

    @property
    def draws_units(self) -> bool:
        """Whether fractional weights of the rows or clusters could replace the resamples."""
        return self.bootstrap not in ("bayesian", "rescaled", "replicates") and self.options.propensity_score is None

    @property
    def robust_type(self) -> str:
        """Covariance type from influence functions: "robust", "cluster" or "survey"."""
        if self.design.survey is not None:
            return "survey" if self.design.replication is None else "robust"
        return "cluster" if self.design.cluster_name is not None else "robust"

    @property
    def n_coefficients(self) -> int:
        """Number of coefficients of the outcome models of all arms. For quantiles, only one level's models count."""
        if not self.options.quantiles:
            return max(self.estimate.theta.size, self.design.n_arms)  # Matching has means alone
        return self.design.n_arms * (1 if self.spec.constants else self.sample.X.columns.shape[1])

    @property
    def residual_df(self) -> float:
        """Degrees of freedom of the t distribution of estimates.

        For surveys, they come from the design. With clusters, they are the number of clusters minus one; two-way
        clusters use the variable with fewer clusters. Otherwise they are the number of observations minus the number
        of outcome coefficients or, for the jackknife of rows, minus one.
        """
        design = self.design
        if design.survey is not None:
            return design.survey.df
        if design.n_clusters:
            return float(min(design.cluster_counts) - 1)
        return float(design.nobs - (1 if self.cov_type == JACKKNIFE else self.n_coefficients))

    @property
    def choice_variance(self) -> float:
        """Factor of the variance that allows for the choice of JRE's shrinkage. It is one for other estimators."""
        if self.stack is not None:
            factors = [np.sqrt(of.choice_variance) for of in self.stack.records]
            return float(self.stack.weights @ factors) ** 2
        return 1.0 if self.joint is None or self.joint.path is None else self.joint.path.choice_variance

    def factor_with(self, n_clusters: int | None) -> float:
        """Return the small-sample factor of the variance with `n_clusters` clusters, or one without `small_sample`."""
        count = self.n_coefficients if self.small_sample else 0
        return fits.small_sample_factor(self.design.nobs, count, n_clusters)

    @property
    def small_sample_factor(self) -> float:
        """Small-sample factor of the variance over resamples. It is one without `small_sample`."""
        return self.factor_with(self.design.n_clusters or None)

    @property
    def uses_score(self) -> bool:
        """Whether the estimate depends on a propensity score."""
        scored = not self.spec.matched or self.options.metric == "propensity" or self.options.trim is not None
        return self.weight_fit is not None and scored

    @property
    def used_weight_fit(self) -> WeightFit:
        """The importance weights that the estimator uses. Raises an UnavailableError if the estimator uses none."""
        if self.weight_fit is None or not self.spec.uses_propensity:
            raise self.without_scores()
        return self.weight_fit

    def check_means(self, what: str) -> None:
        """Raise an error if a method for arm means is used with quantiles."""
        if self.options.quantiles:
            use = 'res.model.with_options(effect="difference").fit()'
            raise UnavailableError(f"{what} is not available for quantiles.\nUse `{use}`.")

    def check_observed(self, what: str) -> None:
        """Raise an error for a diagnostic of residuals with cross sections or a stated exposure."""
        if self.design.periods is not None:
            raise UnavailableError(f"{what} are not available for cross sections.\nFit each period without did=.")
        if self.stated_exposure is not None:
            problem = f"{what} are not available for means at exposure {self.stated_exposure:g}"
            raise UnavailableError(f'{problem}.\nUse `model.with_options(at_exposure="observed").fit()`.')

    def without_scores(self) -> UnavailableError:
        """Return the error for an estimator that uses no propensity score."""
        name = f"{self.spec.name}{' on covariates' * self.spec.matched}"
        return UnavailableError(f"{name} uses no propensity score.\nUse `IPWRA.from_formula(...).fit()`.")

    @property
    def used_boot(self) -> Refits:
        """The bootstrap distribution. A fit without a bootstrap raises an UnavailableError."""
        if self.boot is None:
            raise UnavailableError('this fit has no bootstrap.\nUse `model.fit(cov_type="bootstrap")`.')
        return self.boot

    @property
    def std_errors(self) -> Array:
        """Standard errors of the effects and arm means, shape (2 K - 1,)."""
        return np.sqrt(np.diag(self.covariance)[: len(self.estimate.params)])

    @property
    def one_cluster(self) -> bool:
        """Whether a group has rows in only one cluster. No variance can then be estimated."""
        return bool(self.design.n_clusters) and self.design.survey is None and min(self.design.arm_clusters) == 1

    def covariance_of(self, block: slice) -> Array:
        """Return the covariance of `estimate.values[block]`, which is computed if it is not stored."""
        known = self.covariance if block.stop <= len(self.covariance) else reported_covariance(self)
        return known[block, block]

    @property
    def scores(self) -> Array:
        """Probability of each arm for the rows of the design, shape (K, n_design)."""
        return self.sample.restore(self.used_weight_fit.probabilities.T).T

    @property
    def rows(self) -> FittedRows:
        """The rows of the design in the order of the data. Without a score, scores are NaN and weights are one."""
        weights, design, sample = self.weight_fit if self.spec.uses_propensity else None, self.design, self.sample
        chances = None
        if weights is not None and "observed" in weights.beta:
            chances = weights.equations.by_row(lambda of, at: expit(at(of.observed)[:, 0]), weights.at)
        if isinstance(design, DesignOnDisk) and not design.parts:  # `parts` raises one if the model is from a file
            raise not_on_disk()
        own = sample.restore(loaded(sample.s))
        ones = np.ones(len(own))
        return FittedRows(
            sample.restore(loaded(sample.arm)),
            own,
            own if self.frequency else ones,
            importance=ones if weights is None else sample.restore(weights.raw_weights),
            scores=np.full((design.n_arms, len(own)), np.nan) if weights is None else self.scores,
            recorded=(ones if chances is None else sample.restore(sample.with_outcome)) > 0,
            chances=None if chances is None else sample.restore(chances),
        )

    @property
    def counted_rows(self) -> NDArray[np.intp]:
        """Positions of the rows of the design, each as often as its frequency weight says."""
        rows = np.arange(self.design.n)
        return np.repeat(rows, self.design.weights.astype(int)) if self.frequency else rows

    def arm_position(self, arm: Any, *, effect: bool = False) -> int:
        """Return the position of an arm, by default (None) the first arm that is compared with the reference."""
        if arm is None:
            return 1
        labels, position = self.design.labels, self.design.arm_named(arm)
        if position is None:
            raise OptionError(f"arm={arm!r} is not one of {', '.join(map(repr, labels))}.\nUse `arm={labels[-1]!r}`.")
        if effect and not position:
            raise OptionError(f"arm={arm!r} is the reference group.\nUse `arm={labels[-1]!r}`.")
        return position

    def resampler(self) -> SampleResampler:
        """Return the object that can draw this fit's propensity replicates and resamples again."""
        return sample_resampler(self.design, self.sample, self.bootstrap, self.seed)


@dataclass(frozen=True)
class Stack:
    """Fits of one effect to the same rows and propensity scores, and the weights with which they are averaged."""

    names: tuple[str, ...]  # description of each fit
    weights: Array  # not negative, with sum one, (M,)
    records: tuple[FitRecord, ...]  # without standard errors
    covariances: Array  # of the fits' effects, from influence functions, summed over the effects, (M, M)


# --- covariance ------------------------------------------------------------------------------------------------------

NEGATIVE = 1e-12  # negative eigenvalue, relative to the sum of both one-way variances, that is more than rounding


def influence_covariance(record: FitRecord, influence: Array) -> Array:
    """Return the sandwich covariance from an influence function (n, d), by clusters or a survey design."""
    replication, sample = record.design.replication, record.sample
    if record.one_cluster:
        return np.full((influence.shape[1], influence.shape[1]), np.nan)
    if replication is None:
        return _sandwich(record, influence, [slice(0, influence.shape[1])], Notes())
    # change of the estimates under each of the replicate weights, to first order
    own = (influence * sample.s[:, None])[sample.n_frame :] / sample.total
    moved = (replication.multiplicities[sample.order] - 1).T @ own
    return replication.covariance(moved, np.zeros(own.shape[1]))


def robust_covariance(record: FitRecord, notes: Notes | None = None, whole: bool = True) -> Array:
    """Return the sandwich covariance (d, d) of all estimates. `whole=False` may omit coefficients to save time."""
    if record.robust is not None:
        return record.robust
    estimate, rows = record.estimate, record.estimate.rows
    blocks = [slice(0, len(estimate.params))]
    if not whole and isinstance(rows, fits.SeparateRows) and not record.design.on_disk:
        influence = rows.influence_of_params
    else:
        influence = estimate.influence
        arms = [estimate.block("theta", arm) for arm in range(record.design.n_arms)]
        blocks += [*arms, estimate.block("gamma")]
    return _sandwich(record, influence, blocks, Notes() if notes is None else notes)


def reported_covariance(record: FitRecord, notes: Notes | None = None, whole: bool = True) -> Array:
    """Return `robust_covariance` times `choice_variance`. It is NaN if a group has only one cluster."""
    if record.one_cluster:
        return np.full((len(record.estimate.values), len(record.estimate.values)), np.nan)
    return record.choice_variance * robust_covariance(record, notes, whole)


def _sandwich(record: FitRecord, influence: Array, blocks: Sequence[slice], notes: Notes) -> Array:
    """Return the sandwich covariance, with the small-sample factor if the fit has `small_sample`.

    With two-way clusters, it is the sum of the covariances for both cluster variables, minus the covariance for their
    intersections. Negative eigenvalues are then set to zero in each block of estimates.
    """
    design, sample = record.design, record.sample

    def one_way(codes: NDArray[np.intp] | None) -> Array:
        rows = {"cluster": codes, "stratum": sample.stratum, "strata": design.strata}
        n_clusters = None  # of the sample; the codes of a target frame's rows come last
        if codes is not None and design.strata is None:
            n_clusters = int(loaded(codes.max())) + 1 - sample.n_frame
        covariance = fits.sandwich(influence, sample.s, sample.total, frequency=record.frequency, **rows)
        return record.factor_with(n_clusters) * covariance

    if design.second_cluster is None:
        return one_way(sample.cluster)
    second, one = design.second_cluster, np.asarray(sample.cluster)
    other = sample.arrange(np.concatenate([second, second.max() + 1 + np.arange(sample.n_frame)]))
    both = np.unique(one * (other.max() + 1) + other, return_inverse=True)[1]
    ways = one_way(one) + one_way(other)
    covariance, size = ways - one_way(both), np.sqrt(np.diag(ways))
    for number, block in enumerate(blocks):
        unit = np.outer(size[block], size[block])
        unit = np.where(unit > 0, unit, 1.0)
        values, vectors = np.linalg.eigh(covariance[block, block] / unit)
        if values.min(initial=0.0) < -NEGATIVE:
            covariance[block, block] = (vectors * np.maximum(values, 0.0)) @ vectors.T * unit
            if not number:
                problem = f"with two-way clusters of {' and '.join(design.cluster_names)}, the covariance matrix has a"
                problem += " negative eigenvalue, which is set to zero"
                advice = "Compare the standard errors with one-way clusters: use `cluster=` with the variable that has "
                advice += "fewer clusters."
                notes.warn(f"{problem}.\n{advice}", DesignWarning)
    return covariance


def equal_units(record: FitRecord) -> Array:
    """Return the number of equal units that each row or cluster represents: its frequency weight, otherwise one."""
    sample, repeated = record.sample, record.frequency and not record.design.n_clusters
    own = sample.restore(sample.s) if repeated else np.ones(unit_count(record.design))
    return np.concatenate([own, np.ones(sample.n_frame)])


def sum_within_units(record: FitRecord, contributions: Array) -> Array:
    """Add up contributions (n, d) of the rows within units, which are clusters or rows. Return shape (units, d)."""
    sample = record.sample
    if sample.cluster is None:
        return np.concatenate([sample.restore(contributions), contributions[: sample.n_frame]])
    return fits.group_sums(contributions, sample.cluster, int(sample.cluster.max()) + 1)


def unit_influence(record: FitRecord, count: int) -> Array:
    """Return the influence (units, count) on the first estimates, per unit if a row represents several equal units."""
    record.design.check_in_memory("this result")
    weighted = record.estimate.influence[:, :count] * record.sample.s[:, None]
    return sum_within_units(record, weighted) / equal_units(record)[:, None]


# --- stacks of records -----------------------------------------------------------------------------------------------

ROUNDING = 1e-10  # relative to the largest variance; fits that differ by less are the same
SMALL = 1e-8  # weight, relative to the largest, that counts as zero


def least_variance_weights(covariance: Array) -> Array:
    """Return the weights on the simplex that minimise w' (S + diag S) w, for the covariance S (M, M).

    They are v / sum v, where v >= 0 minimises v' (S + diag S) v - 2 sum v, a least-squares problem. Fits whose variance
    is not finite get no weight.

    Examples
    --------
    >>> import numpy as np
    >>> least_variance_weights(np.diag([1.0, 3.0]))
    array([0.75, 0.25])
    >>> least_variance_weights(np.array([[1.0, 2.0], [2.0, 9.0]])).round(6)
    array([1., 0.])
    """
    finite = np.isfinite(np.diag(covariance))
    some = covariance[np.ix_(finite, finite)]
    scale = np.diag(some).max(initial=0.0)
    weights = np.zeros(len(covariance))
    if not scale > 0:
        weights[np.flatnonzero(finite)[0] if finite.any() else 0] = 1.0
        return weights
    doubled = (some + np.diag(np.diag(some))) / scale + ROUNDING * np.eye(len(some))
    factor = np.asarray(np.linalg.cholesky(doubled).T, dtype=float)
    found = non_negative_least_squares(factor, np.linalg.solve(factor.T, np.ones(len(some))))
    found[found < SMALL * found.max()] = 0.0
    weights[finite] = found / found.sum()
    return weights


def stacked(lead: FitRecord, names: Sequence[str], records: Sequence[FitRecord]) -> FitRecord:
    """Return the average of fits of one effect, with the weights that minimise its variance."""
    scale, n_arms = lead.options.effect_scale, lead.design.n_arms
    jacobian = scale.jacobian(lead.estimate.params[-n_arms:])[: n_arms - 1]
    moved = [one.estimate.influence[:, one.estimate.block("means")] @ jacobian.T for one in records]
    plain = dataclasses.replace(lead, small_sample=False)  # `stack_table` applies the factor of each fit
    joint = influence_covariance(plain, np.concatenate(moved, axis=1))
    joint = joint.reshape(len(records), n_arms - 1, -1, n_arms - 1)
    covariances = np.einsum("mknk->mn", joint)
    stack = Stack(tuple(names), least_variance_weights(covariances), tuple(records), covariances)
    estimates = tuple(record.estimate for record in records)
    params = np.stack([one.params for one in estimates], axis=-1) @ stack.weights
    means = np.stack([one.model_means for one in estimates], axis=-1) @ stack.weights
    params, rows = params_of(scale, params, n_arms), StackedRows(estimates, stack.weights, scale, lead.used_weight_fit)
    average = dataclasses.replace(lead.estimate, params=params, model_means=means, rows=rows)
    return dataclasses.replace(lead, estimate=average, stack=stack)


def params_of(scale: EffectScale, mixed: Array, n_arms: int) -> Array:
    """Return effects and arm means (2 K - 1, ...) of averaged fits. Ratios are computed from the averaged means."""
    return mixed if scale == DIFFERENCE else scale.params(mixed[-n_arms:])


@dataclass(frozen=True)
class StackedRows:
    """The results by row of an average of fits. Refits keep the weights of the sample."""

    estimates: tuple[Estimate, ...]  # the first is the lead, which provides the coefficients
    weights: Array
    scale: EffectScale
    weight_fit: WeightFit  # the same in all fits

    @cached_property
    def predicted(self) -> Array:
        """Predicted outcome of every row in every arm, shape (K, n)."""
        return np.asarray(sum(w * one.predicted for w, one in zip(self.weights, self.estimates, strict=True)))

    @cached_property
    def influence(self) -> Array:
        """Influence function of (params, theta, gamma), as in `Estimate`."""
        pairs = [(w, one) for w, one in zip(self.weights, self.estimates, strict=True) if w > 0]
        of_means = sum(w * one.influence[:, one.block("means")] for w, one in pairs)
        means = sum(w * one.params[one.block("means")] for w, one in pairs)
        moved = of_means @ self.scale.jacobian(np.asarray(means)).T
        lead = self.estimates[0]
        return np.hstack([moved, lead.influence[:, len(lead.params) :]])

    def refit(self, s: Array, weighed: Any = None) -> Refits:
        """Return the averaged estimates under row weights. Fits with weight zero are left out, except the first."""
        lead, weighed = self.estimates[0], weighed or self.weight_fit.refit(s)
        used = [k for k, weight in enumerate(self.weights) if weight > 0 or k == 0]
        found, size = [self.estimates[k].rows.refit(s, weighed) for k in used], len(lead.params)
        mixed = np.tensordot(self.weights[used], np.stack([refits.values[:, :size].T for refits in found]), axes=1)
        params = params_of(self.scale, mixed, len(lead.theta))
        rest, failures = found[0].values[:, size:].T, first_failure(*(refits.failures for refits in found))
        return dataclasses.replace(collect_refits(params, rest[:, None], rest[:0], failures), start=found[0].start)
