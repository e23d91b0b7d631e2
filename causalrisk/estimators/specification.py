"""The registries of estimators and of effect scales.

An estimator is a hypothesis class, importance weights, joint or separate arms, and an arm's mean. A scale is how an
effect is reported: as a difference, ratio, odds ratio or percentage of the arm means, or by quantiles.

The mean of an arm is made of the predictions of its outcome model: point estimate, influence function, batched refits.
Flows in: rows under the outcome models of a fit (`ArmRows`) or of many refits (`RefittedRows`), all there are or a
block of them. Flows out: the means. With s_i / N the share of a row, t_i its tilt and m_a the outcome model of arm a at
theta_a, most estimators average the predictions (`ArmMean`):

    mu_a = sum_i (s_i / N) t_i m_a(x_i)

The formulas of another mean are those of a subclass, before its estimator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, TypeAlias

import numpy as np
from scipy.special import expit, logit

from causalrisk.errors import CausalRiskError
from causalrisk.estimators.sample import Sample, shifted
from causalrisk.numerics.families import OutcomeFamily
from causalrisk.numerics.linalg import Array, solve
from causalrisk.propensity.weights import RowWeights


@dataclass(frozen=True)
class ArmRows:
    """Rows whose mean in one arm is projected on columns; on the constant it is the mean itself.

    Parameters
    ----------
    sample : Sample
        The rows.
    weights : RowWeights
        Their importance weights.
    g : ndarray, shape (n, k)
        The columns.
    q, own : ndarray, shape (n, p)
        Columns of the outcome model where the means are taken, and as it is trained.
    arm : int
        The arm.
    family : OutcomeFamily
        Family of the outcome model.
    eta, predicted : ndarray, shape (n,)
        Its linear predictors and its predictions m_a where the means are taken.
    fitted : ndarray, shape (n,), optional
        Predictions as the model is trained, where these are others.
    """

    sample: Sample
    weights: RowWeights
    g: Array
    q: Array
    own: Array
    arm: int
    family: OutcomeFamily
    eta: Array
    predicted: Array
    fitted: Array | None = None

    @cached_property
    def slope(self) -> Array:
        """Derivative of the predictions by the linear predictors, shape (n,)."""
        return self.family.mean_deriv(self.eta)

    @cached_property
    def share(self) -> Array:
        """Share of each row in the weight of all, shape (n,)."""
        return self.sample.s / self.sample.total

    @cached_property
    def weighted(self) -> Array:
        """Share and tilt times the columns, shape (n, k)."""
        return (self.share * self.weights.tilt)[:, None] * self.g

    @cached_property
    def inside(self) -> Array:
        """1.0 for the rows of the arm whose outcome was observed, shape (n,)."""
        return (self.sample.arm == self.arm) * self.sample.with_outcome

    @cached_property
    def exposure(self) -> Array:
        """Exposure of each row over the one that the means are at, shape (n,); one where they are at the observed."""
        offset, at_means = self.sample.offset, self.sample.mean_offset
        return np.ones(self.sample.n) if offset is None or at_means is None else np.exp(offset - at_means)

    @cached_property
    def residual(self) -> Array:
        """Residual of the rows of the arm, shape (n,)."""
        return self.inside * (self.sample.y - (self.exposure * self.predicted if self.fitted is None else self.fitted))

    @cached_property
    def by_period(self) -> Array:
        """The columns g, of repeated cross sections once for each period, shape (n, k) or (n, 2 k)."""
        return self.sample.in_periods(self.g)


@dataclass(frozen=True)
class RefittedRows:
    """Rows under the outcome models of m refits.

    Parameters
    ----------
    sample : Sample
        The rows.
    family : OutcomeFamily
        Family of the outcome models.
    q, own : ndarray, shape (n, p)
        Their columns where the means are taken, and as they are trained.
    theta : ndarray, shape (K, p, m)
        Their coefficients.
    share : ndarray, shape (n, m)
        Share of each row in the weight of all.
    tilt, w : ndarray, shape (n, m) or (n, 1)
        As in `ImportanceWeights`.
    resamples : slice
        Which of all resamples these are.
    """

    sample: Sample
    family: OutcomeFamily
    q: Array
    own: Array
    theta: Array
    share: Array
    tilt: Array
    w: Array
    resamples: slice

    @property
    def eta(self) -> Array:
        """Linear predictors of every arm, shape (K, n, m)."""
        return shifted(self.q @ self.theta, self.sample.mean_offset, axis=-2)

    @cached_property
    def predicted(self) -> Array:
        """Predictions of every arm, shape (K, n, m)."""
        return self.family.mean(self.eta)

    @property
    def residual(self) -> Array:
        """Residual of each row in its own arm, shape (n, m)."""
        if self.own is self.q:
            fitted = self.sample.own(self.predicted)
        else:
            fitted = np.concatenate([self.own[rows] @ self.theta[a] for a, rows in enumerate(self.sample.slices)])
        return self.sample.y[:, None] - fitted


Sums: TypeAlias = tuple[Array, ...]
OverArms: TypeAlias = Callable[[Callable[[ArmRows], Sums]], Iterable[Sums]]
OverRefits: TypeAlias = Callable[[Callable[[RefittedRows], Array]], Array]


@dataclass(frozen=True)
class ArmMean:
    """The mean of an arm: the predictions, averaged over the target.

    It is the projection b of the predictions on the columns g, with mean t g (m_a - g'b) = 0.

    Parameters
    ----------
    gram : ndarray, shape (k, k)
        mean t g g'.
    coefficients : ndarray, shape (k,)
        Projection of the predictions.
    """

    gram: Array
    coefficients: Array

    corrected: ClassVar[bool] = False  # whether residuals of the arm's rows correct the average

    @property
    def value(self) -> Array:
        """The projection, shape (k,)."""
        return self.coefficients

    @classmethod
    def solve(cls, over: OverArms) -> tuple[ArmMean, ...]:
        """Return the mean of each arm.

        Parameters
        ----------
        over : callable
            A pass over the rows: a function of the rows of an arm -> for each arm its sum over all rows. Blocks of rows
            may be worked on elsewhere, so that it is one that can be pickled.
        """
        return tuple(cls.solved(*sums) for sums in over(cls.equations))

    @staticmethod
    def equations(rows: ArmRows) -> Sums:
        """Sum over the rows what the mean solves: the Gram matrix, and mean t g m_a."""
        return rows.weighted.T @ rows.g, rows.weighted.T @ rows.predicted

    @classmethod
    def solved(cls, gram: Array, *sums: Array) -> ArmMean:
        """Solve the equations of all rows."""
        return cls(gram, *(solve(gram, each) for each in sums))

    def derivatives(self, rows: ArmRows) -> tuple[Array, Array]:
        """Sum over the rows the derivatives of the equations by theta, (k, p), and by gamma, (k, Q)."""
        g, weights = rows.g, rows.weights
        by_theta = (rows.weighted * rows.slope[:, None]).T @ rows.q
        by_gamma = np.zeros((g.shape[1], weights.size))
        if weights.tilt_by_gamma is not None:
            error = rows.predicted - g @ self.coefficients
            by_gamma = by_gamma + ((rows.share * error)[:, None] * g).T @ weights.tilt_by_gamma
        return by_theta, by_gamma

    def errors(self, rows: ArmRows) -> Array:
        """Return what each row adds to the equations at the solution, shape (n, k)."""
        return (rows.weights.tilt * (rows.predicted - rows.g @ self.coefficients))[:, None] * rows.g

    def influence(self, rows: ArmRows, by_gamma: Array) -> Array:
        """Influence function at known outcome coefficients, shape (n, k), given the sum over all rows by gamma."""
        moved = self.errors(rows) + rows.weights.influence @ by_gamma.T
        return moved @ solve(self.gram, np.eye(len(self.gram)))  # the Gram matrix is symmetric

    @classmethod
    def refit(cls, over: OverRefits) -> Array:
        """Return the means of the refits, shape (K, m).

        Parameters
        ----------
        over : callable
            A pass over the rows as in `solve`: a function of them under some resamples -> its sum over all rows, of all
            resamples, which are the last axis.
        """
        return over(cls.refitted)

    @staticmethod
    def refitted(rows: RefittedRows) -> Array:
        """Sum over the rows what the means of the refits are made of, shape (K, m)."""
        return np.asarray((rows.share * rows.tilt * rows.predicted).sum(axis=1))


# --- the estimators ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Specification:
    """An estimator as a configuration of importance-weighted empirical risk minimisation.

    Parameters
    ----------
    name, title : str
        Name in tables and heading of the summary.
    how : str
        What it is, for the methods paragraph.
    reference : str
        Where it comes from, a key of the references of the report; empty for the usual ones.
    trained : str
        How the outcome models are trained, for the explanation.
    averaged : str
        What is done to the averages of the predictions, for the explanation; empty where nothing is.
    aliases : tuple of str
        What others call it, in lower case.
    constants : bool
        Whether the hypothesis class is the constants, whatever the outcome formula names.
    weighted : bool
        Whether the outcome models are trained under importance weights.
    joint : bool
        Whether the arms are trained jointly over the distribution of the propensity score.
    given : bool
        Whether the outcome models are predictions that are given, one column of the design for each arm: nothing is
        trained.
    of_controls : bool
        Whether the target is the second arm, so that its mean is that of its rows under any outcome model of theirs:
        one without a unique fit has that of least norm.
    mean : type of ArmMean
        How the mean of an arm is made of the predictions of its outcome model.
    """

    name: str
    title: str
    how: str
    reference: str = ""
    trained: str = "without weights"
    averaged: str = ""
    aliases: tuple[str, ...] = ()
    constants: bool = False
    weighted: bool = False
    joint: bool = False
    given: bool = False
    of_controls: bool = False
    mean: type[ArmMean] = ArmMean

    @property
    def uses_propensity(self) -> bool:
        """Whether the estimator needs a propensity model."""
        return self.weighted or self.mean.corrected or self.joint


UNADJUSTED = Specification(
    name="Unadjusted",
    title="Unadjusted (Difference in Means) Results",
    how="the difference of the raw arm means",
    constants=True,
)
OUTCOME_REGRESSION = Specification(
    name="OutcomeRegression",
    title="Outcome Regression Results",
    how="outcome regression: a regression in each arm, averaged over the target",
    aliases=("ra", "regression", "gformula", "ols", "standardization"),
)
HAJEK = Specification(
    name="Hajek",
    title="Hajek (Normalised IPW) Results",
    how="inverse probability weighting with normalised weights (Hajek 1971)",
    reference="hajek_1971",
    aliases=("iptw",),
    constants=True,
    weighted=True,
)
IPWRA = Specification(
    name="IPWRA",
    title="IPW Regression Adjustment (IPWRA) Results",
    how="inverse probability weighted regression adjustment (Wooldridge 2007)",
    reference="wooldridge_2007",
    trained="under these weights, so that it fits best where the target population lies",
    aliases=("ipw_ra", "wra"),
    weighted=True,
)


@dataclass(frozen=True)
class CorrectedMean(ArmMean):
    """The mean of an arm in AIPW: the average of the predictions, plus the weighted average of the residuals.

    The mean is b + c: b projects the predictions, and c the residuals, c = (mean t g g')^-1 mean w g (y - m_a).

    Parameters
    ----------
    gram, coefficients
        As in `ArmMean`.
    correction : ndarray, shape (k,)
        Projection c of the residuals.
    """

    correction: Array

    corrected = True

    @property
    def value(self) -> Array:
        """The projection, shape (k,)."""
        return self.coefficients + self.correction

    @staticmethod
    def equations(rows: ArmRows) -> Sums:
        """As in `ArmMean`, and mean w g (y - m_a)."""
        return *ArmMean.equations(rows), (rows.share * rows.weights.w * rows.residual) @ rows.g

    def derivatives(self, rows: ArmRows) -> tuple[Array, Array]:
        """As in `ArmMean`."""
        g, weights = rows.g, rows.weights
        by_theta, by_gamma = super().derivatives(rows)
        by_theta = by_theta - ((rows.share * weights.w * rows.inside * rows.slope)[:, None] * g).T @ rows.own
        by_gamma = by_gamma + ((rows.share * rows.residual)[:, None] * g).T @ weights.w_by_gamma
        if weights.measure_by_gamma is not None:
            corrected = g @ self.correction
            by_gamma = by_gamma - ((rows.share * corrected)[:, None] * g).T @ weights.measure_by_gamma
        return by_theta, by_gamma

    def errors(self, rows: ArmRows) -> Array:
        """As in `ArmMean`."""
        g, weights = rows.g, rows.weights
        return super().errors(rows) + (weights.w * rows.residual - weights.measure * (g @ self.correction))[:, None] * g

    @staticmethod
    def refitted(rows: RefittedRows) -> Array:
        """As in `ArmMean`."""
        sample = rows.sample
        residual = rows.share * rows.w * rows.residual
        return ArmMean.refitted(rows) + np.stack([residual[members].sum(axis=0) for members in sample.slices])


@dataclass(frozen=True)
class NormalizedMean(CorrectedMean):
    """The mean of an arm in AIPW with weights of the residuals that add up to one.

    The projection c of the residuals is (mean w h h')^-1 mean w h (y - m_a), over the rows of the arm; h are the
    columns g, of repeated cross sections those in each period by themselves, and the mean has the change of c. Where
    the means are at another exposure than the observed one, w h h' is multiplied by the ratio of the two: c is a rate.

    Parameters
    ----------
    gram, coefficients, correction
        As in `CorrectedMean`; `correction` of repeated cross sections in either period, shape (2 k,).
    weighed : ndarray, shape (k, k) or (2 k, 2 k)
        mean w h h' over the rows of the arm.
    """

    weighed: Array

    @property
    def _change(self) -> Array:
        """What is added up of `correction`, shape (k, k) or (k, 2 k)."""
        one = np.eye(len(self.coefficients))
        return one if len(self.correction) == len(one) else np.hstack([-one, one])

    @property
    def value(self) -> Array:
        """As in `CorrectedMean`."""
        return self.coefficients + self._change @ self.correction

    @staticmethod
    def equations(rows: ArmRows) -> Sums:
        """As in `ArmMean`, mean w h (y - m_a), and mean w h h' over the rows of the arm."""
        weights, h = rows.share * rows.weights.w * rows.inside, rows.by_period
        return *ArmMean.equations(rows), (weights * rows.residual) @ h, ((weights * rows.exposure)[:, None] * h).T @ h

    @classmethod
    def solved(cls, gram: Array, *sums: Array) -> NormalizedMean:
        """As in `ArmMean`."""
        predicted, residuals, weighed = sums
        return cls(gram, solve(gram, predicted), solve(weighed, residuals), weighed)

    @property
    def _scale(self) -> Array:
        """Factor of the equations of the residuals that gives them the Gram matrix of the others, shape (k, .)."""
        return solve(self.weighed, self._change.T @ self.gram).T

    def derivatives(self, rows: ArmRows) -> tuple[Array, Array]:
        """As in `ArmMean`."""
        h, weights = rows.by_period, rows.weights
        by_theta, by_gamma = ArmMean.derivatives(self, rows)
        slope = rows.share * weights.w * rows.inside * rows.exposure * rows.slope
        left = rows.share * self._left(rows)
        by_theta = by_theta - self._scale @ (slope[:, None] * h).T @ rows.own
        return by_theta, by_gamma + self._scale @ (left[:, None] * h).T @ weights.w_by_gamma

    def errors(self, rows: ArmRows) -> Array:
        """As in `ArmMean`."""
        left = (rows.weights.w * self._left(rows))[:, None] * rows.by_period
        return ArmMean.errors(self, rows) + left @ self._scale.T

    def _left(self, rows: ArmRows) -> Array:
        """Residuals of the rows of the arm less their projection, shape (n,)."""
        return rows.residual - rows.inside * rows.exposure * (rows.by_period @ self.correction)

    @classmethod
    def refit(cls, over: OverRefits) -> Array:
        """As in `ArmMean`."""
        averages, tilt, *sums = over(cls.refitted)
        *before, last = (residuals / weights for residuals, weights in zip(sums[::2], sums[1::2], strict=True))
        return np.asarray(averages + tilt * (last - sum(before)))

    @staticmethod
    def refitted(rows: RefittedRows) -> Array:
        """Sum over the rows the predictions, the tilt, and in each period the residuals and their weights.

        Shape (4, K, m), of repeated cross sections (6, K, m).
        """
        averages, weights = ArmMean.refitted(rows), rows.share * rows.w
        tilt, late = (rows.share * rows.tilt).sum(axis=0), rows.sample.late
        each = []
        for period in [np.ones(rows.sample.n)] if late is None else [1 - late, late]:
            inside = weights * period[:, None]
            each += [inside * rows.residual, inside]
        sums = [np.stack([values[a].sum(axis=0) for a in rows.sample.slices]) for values in each]
        return np.stack([averages, np.broadcast_to(tilt, averages.shape), *sums])


AIPW = Specification(
    name="AIPW",
    title="Augmented IPW (AIPW) Results",
    how="augmented inverse probability weighting (Robins, Rotnitzky and Zhao 1994)",
    reference="robins_1994",
    trained="without weights; its average errors are corrected in the next step",
    averaged="plus the weighted mean of the residuals",
    aliases=("dr", "doubly_robust", "doublyrobust", "eif"),
    mean=CorrectedMean,
)
JRE = Specification(
    name="JRE",
    title="Joint Robust Estimator (JRE) Results",
    how=(
        "the joint robust estimator, which trains the outcome models of all arms together for the least error of the "
        "effect (after Zhang 2025)"
    ),
    reference="zhang_2025",
    averaged="less the bias that the arms share",
    weighted=True,
    joint=True,
)
ESTIMATORS = (UNADJUSTED, OUTCOME_REGRESSION, HAJEK, IPWRA, AIPW, JRE)
SEPARATE = tuple(spec for spec in ESTIMATORS if not spec.joint)


@dataclass(frozen=True)
class EffectScale:
    """A scale g on which effects are differences of the arm means, and how these are reported.

    Parameters
    ----------
    name : str
        As the option is spelled.
    label : str
        What follows the estimand in tables.
    form : str
        The effect as a formula of ``{treated}`` and ``{reference}``, to be read.
    g, g_slope, g_inverse : callable
        The scale, its derivative and its inverse, elementwise.
    report, report_slope, contrast : callable
        From a difference on the scale to the reported effect, its derivative and its inverse.
    null : float
        The reported effect when there is none.
    domain : str
        Which means have an effect, for messages.
    low, high : float
        Limits of these means.
    quantiles : tuple of float
        Levels of the quantiles that there are of each arm, J, in the place of its mean: of means, effects and names
        those of an arm stand together. Empty for means, of which there is J = 1.
    """

    name: str
    label: str
    form: str
    g: Callable[[Array], Array]
    g_slope: Callable[[Array], Array]
    g_inverse: Callable[[Array], Array]
    report: Callable[[Array], Array]
    report_slope: Callable[[Array], Array]
    contrast: Callable[[Array], Array]
    null: float
    domain: str
    low: float
    high: float
    quantiles: tuple[float, ...] = ()

    @property
    def per_arm(self) -> int:
        """How many means, or quantiles, there are of each arm, J."""
        return len(self.quantiles) or 1

    @property
    def additive(self) -> bool:
        """Whether effects are differences as they stand, in the units of the outcome."""
        return self.g is _same

    def effects(self, means: Array) -> Array:
        """Effects of arms 1 .. K-1 against arm 0, shape ((K - 1) J, ...), of means (K J, ...); NaN where undefined."""
        with np.errstate(invalid="ignore", divide="ignore"):
            values = self.g(means)
            values = np.where(np.isfinite(values), values, np.nan)
            return self.report(self.against_reference(values))

    def against_reference(self, values: Array) -> Array:
        """Differences of values of the arms, shape (K J, ...), to those of arm 0, shape ((K - 1) J, ...)."""
        of_arms = values.reshape(-1, self.per_arm, *values.shape[1:])
        return (of_arms[1:] - of_arms[:1]).reshape(-1, *values.shape[1:])

    def formula(self, treated: str, reference: str) -> str:
        """Return the effect as a formula of two means, by name or in numbers."""
        return self.form.format(treated=treated, reference=reference)

    def on_bounds(self, means: Array, error: Array) -> Array:
        """Return the means, those no further than their rounding error from a bound of the scale on the bound."""
        means = np.where(np.abs(means - self.low) <= error, self.low, means)
        return np.where(np.abs(means - self.high) <= error, self.high, means)

    def params(self, means: Array) -> Array:
        """Effects, then the means, shape ((2 K - 1) J, ...)."""
        return np.concatenate([self.effects(means), means])

    def jacobian(self, means: Array) -> Array:
        """Return the derivative of `params` by the means, shape ((2 K - 1) J, K J)."""
        every = np.eye(len(means))
        with np.errstate(invalid="ignore", divide="ignore"):
            slope, values = self.g_slope(means), self.g(means)
            outer = self.report_slope(self.against_reference(values))
        return np.vstack([self.against_reference(every) * slope * outer[:, None], every])

    def check(self, means: Array, labels: tuple[str, ...]) -> None:
        """Raise a CausalRiskError where the means have no effect on this scale."""
        outside = ~((means > self.low) & (means < self.high))
        if outside.any():
            arm = int(np.argmax(outside))
            raise CausalRiskError(
                f'effect="{self.name}" needs {self.domain}; POM[{labels[arm]}] is {means[arm]:.4g}.\n'
                'Use `effect="difference"`.'
            )


def effect_names(estimand: str, labels: Sequence[str], quantiles: tuple[float, ...] = ()) -> list[str]:
    """Names of the effects: the estimand, for several arms with the arm that is compared to the first."""
    names = [estimand] if len(labels) == 2 else [f"{estimand}[{label}]" for label in labels[1:]]
    return [f"{name} q{level:g}" for name in names for level in quantiles] if quantiles else names


def mean_names(labels: Sequence[str], quantiles: tuple[float, ...] = ()) -> list[str]:
    """Names of the potential-outcome means of the arms (POM), or of the potential-outcome quantiles (POQ)."""
    if quantiles:
        return [f"POQ[{label}] q{level:g}" for label in labels for level in quantiles]
    return [f"POM[{label}]" for label in labels]


def parameter_names(estimand: str, labels: Sequence[str], quantiles: tuple[float, ...] = ()) -> list[str]:
    """Names of the effects and of the arm means."""
    return [*effect_names(estimand, labels, quantiles), *mean_names(labels, quantiles)]


def _same(x: Array) -> Array:
    return x


def _inverse(means: Array) -> Array:
    return 1 / means


def _logit_slope(means: Array) -> Array:
    return 1 / (means * (1 - means))


def _percent(difference: Array) -> Array:
    return 100 * np.expm1(difference)


def _percent_slope(difference: Array) -> Array:
    return 100 * np.exp(difference)


def _from_percent(percent: Array) -> Array:
    return np.log1p(percent / 100)


DIFFERENCE = EffectScale(
    name="difference",
    label="",
    form="{treated} - {reference}",
    g=_same,
    g_slope=np.ones_like,
    g_inverse=_same,
    report=_same,
    report_slope=np.ones_like,
    contrast=_same,
    null=0.0,
    domain="numbers",
    low=-np.inf,
    high=np.inf,
)
RATIO = EffectScale(
    name="ratio",
    label=" ratio",
    form="{treated} / {reference}",
    g=np.log,
    g_slope=_inverse,
    g_inverse=np.exp,
    report=np.exp,
    report_slope=np.exp,
    contrast=np.log,
    null=1.0,
    domain="positive means",
    low=0.0,
    high=np.inf,
)
ODDS_RATIO = EffectScale(
    name="odds_ratio",
    label=" odds ratio",
    form="({treated} / (1 - {treated})) / ({reference} / (1 - {reference}))",
    g=logit,
    g_slope=_logit_slope,
    g_inverse=expit,
    report=np.exp,
    report_slope=np.exp,
    contrast=np.log,
    null=1.0,
    domain="means between 0 and 1",
    low=0.0,
    high=1.0,
)
PERCENT = EffectScale(
    name="percent",
    label=" percent",
    form="100 ({treated} - {reference}) / {reference}",
    g=np.log,
    g_slope=_inverse,
    g_inverse=np.exp,
    report=_percent,
    report_slope=_percent_slope,
    contrast=_from_percent,
    null=0.0,
    domain="positive means",
    low=0.0,
    high=np.inf,
)
QUANTILE = replace(DIFFERENCE, name="quantile", quantiles=(0.25, 0.5, 0.75))
SCALES = {scale.name: scale for scale in (DIFFERENCE, RATIO, ODDS_RATIO, PERCENT, QUANTILE)}
