"""The estimators that train each arm by itself: the point estimate with its influence function.

Flows in: a sample, importance weights w with their derivatives, a `Specification`. Flows out: an `Estimate`. Its
batched refits are in `separate_refit`.

With s_i / N the share of a row, t_i its tilt, m_a the outcome model of arm a at theta_a, the mean of arm a is

    mu_a = sum_i (s_i / N) t_i m_a(x_i)  [ + sum_i (s_i / N) 1{A_i = a} w_i (y_i - m_a(x_i))  for AIPW ]

and theta_a solves sum_i s_i 1{A_i = a} w_i score_i(theta_a) = 0, with w_i = 1 for estimators that train unweighted.
The influence functions are in closed form; the tests compare them with numerical derivatives of exact refits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from causalrisk.estimators.effect_scales import DIFFERENCE, EffectScale
from causalrisk.estimators.outcome import ArmTraining, fit_outcome
from causalrisk.estimators.refits import count_totals
from causalrisk.estimators.sample import Sample, part_of, shifted
from causalrisk.estimators.specification import Estimate, Specification
from causalrisk.numerics.blocks import add_up
from causalrisk.numerics.families import OutcomeFamily, outcome_family
from causalrisk.numerics.linalg import Array, solve, solve_or_nan, weighted_gram, weighted_rows
from causalrisk.propensity.targets import FrameTarget, Target
from causalrisk.propensity.weights import RowWeights, WeightFit

FAR = 100  # standard deviations from zero: nearer, the level costs no digits
LEVEL_TOLERANCE = 1e-9  # rounding of a constant that is a combination of the columns
LINEAR = outcome_family("gaussian", None)


def training_columns(sample: Sample, spec: Specification) -> Array:
    """Basis columns of the hypothesis class, shape (n, p): those of the design, or the constant."""
    return np.ones((sample.n, 1)) if spec.constants else sample.X.columns


def training_family(sample: Sample, spec: Specification) -> OutcomeFamily:
    """Family of the outcome models; without offset the best constant is the weighted mean under every one."""
    return LINEAR if spec.constants and sample.offset is None else sample.family


@dataclass(frozen=True)
class Level:
    """Where the outcome lies: a height that linear models do not see, so that digits are kept for what varies.

    Parameters
    ----------
    height : float
        Mean outcome, in its units; 0 where the models have no constant or are not linear.
    direction : ndarray, shape (p,)
        Coefficients of the columns that give the constant one.
    """

    height: float
    direction: Array

    def params(self, scale: EffectScale, means: Array) -> Array:
        """Effects and arm means, shape (2 K - 1, ...), of arm means (K, ...) that are measured from the height."""
        params = scale.params(means + self.height)
        if scale == DIFFERENCE:  # the height cancels
            effects = len(means) - 1
            params[:effects] = scale.params(means)[:effects]
        return params


def outcome_level(sample: Sample, spec: Specification) -> Level:
    """Return the level of the outcome that the models of an estimator can leave out."""
    q = training_columns(sample, spec)
    if not training_family(sample, spec).linear:
        return Level(0.0, np.zeros(q.shape[1]))
    direction = np.linalg.lstsq(q.T @ q, q.sum(axis=0), rcond=None)[0]
    if np.abs(q @ direction - 1).max() > LEVEL_TOLERANCE:
        return Level(0.0, np.zeros(q.shape[1]))
    y = sample.y if sample.offset is None else sample.y - sample.offset
    mean = float(np.average(y, weights=sample.s * sample.observed))
    spread = float(np.sqrt(np.average((y - mean) ** 2, weights=sample.s * sample.observed)))
    return level_at(mean, spread, direction)


def level_at(mean: float, spread: float, direction: Array) -> Level:
    """Return the level of outcomes of that mean and standard deviation, for linear models with a constant."""
    return Level(mean if abs(mean) > FAR * spread else 0.0, direction)


def row_weights(sample: Sample, weight_fit: WeightFit | None, target: Target, mean: Array | None = None) -> RowWeights:
    """Return the fitted importance weights; without a fit weights of one and the tilt of a target that needs none."""
    if weight_fit is not None:
        return weight_fit
    return RowWeights.without_scores(plain_tilt(sample, target, sample.s[:, None], mean)[:, 0])


def plain_tilt(sample: Sample, target: Target, counts: Array, mean: Array | None = None) -> Array:
    """Tilt of a target that needs no propensity score, over its mean under counts (n, m); shape (n, 1) or (n, m).

    That is everybody, the rows of one arm, or a target frame. Where the rows are a block of others, `mean`, shape (m,),
    is that of all.
    """
    if isinstance(target, FrameTarget):
        tilt = 1 - sample.observed
    elif target.toward is not None:
        tilt = (sample.arm == target.toward).astype(float)
    else:
        return np.ones((sample.n, 1))
    mean = (tilt @ counts) / count_totals(sample, counts) if mean is None else mean
    return tilt[:, None] / np.where(mean > 0, mean, 1.0)


def estimate_separately(
    sample: Sample, spec: Specification, weights: RowWeights, effect_scale: EffectScale = DIFFERENCE
) -> Estimate:
    """Train each arm's outcome model by itself and average, for every estimator but the joint one.

    Parameters
    ----------
    sample : Sample
        The data.
    spec : Specification
        The estimator.
    weights : RowWeights
        Importance weights and the tilt of the target, as by `row_weights`.
    effect_scale : EffectScale
        How the effect is reported.

    Returns
    -------
    Estimate
        Point estimate and influence function.
    """
    level = outcome_level(sample, spec)
    centred = dataclasses.replace(sample, y=sample.y - level.height)
    fits = [fit_outcome(arm) for arm in training_arms(centred, spec, weights)]
    theta = np.stack([fit.coefficients[:, 0] for fit in fits])
    trained = TrainedSample(sample=sample, spec=spec, weights=weights, theta=theta, level=level)
    alone = list(trained.blocks()) if len(sample.parts()) == 1 else None  # not to be made again in every pass
    at = solve_means(lambda function: map(function, trained.blocks() if alone is None else alone))
    return Estimate(
        params=level.params(effect_scale, at.means),
        theta=theta + level.height * level.direction,
        gamma=weights.coefficients,
        model_means=at.model_means + level.height,
        rows=SeparateRows(trained, at, effect_scale),
        failed=tuple(int(fit.failures[0]) for fit in fits),
    )


@dataclass(frozen=True)
class TrainedSample:
    """A sample under trained outcome models.

    Parameters
    ----------
    sample : Sample
        All rows.
    spec : Specification
        The estimator.
    weights : RowWeights
        Their importance weights.
    theta : ndarray, shape (K, p)
        Outcome coefficients, of outcomes measured from the level.
    level : Level
        Where the outcome lies.
    """

    sample: Sample
    spec: Specification
    weights: RowWeights
    theta: Array
    level: Level

    def blocks(self) -> Iterator[TrainedRows]:
        """Begin a pass over the rows."""
        for rows in self.sample.parts():
            part = self.sample.part(rows)
            centred = dataclasses.replace(part, y=part.y - self.level.height)
            yield trained_rows(centred, self.spec, self.weights.part(rows), self.theta)


@dataclass(frozen=True)
class SeparateRows:
    """Predictions and influence function of an estimate, as in `EstimateRows`; they are made when asked for.

    Parameters
    ----------
    trained : TrainedSample
        The rows.
    at : SolvedMeans
        The arm means.
    effect_scale : EffectScale
        How the effect is reported.
    """

    trained: TrainedSample
    at: SolvedMeans
    effect_scale: EffectScale

    @cached_property
    def predicted(self) -> Array:
        """As in `EstimateRows`."""
        parts = [rows.predicted for rows in self.trained.blocks()]
        return np.concatenate(parts, axis=1) + self.trained.level.height

    @cached_property
    def influence(self) -> Array:
        """As in `EstimateRows`."""
        return np.concatenate([values for _, values in self.blocks()])

    def blocks(self) -> Iterator[tuple[slice, Array]]:
        """As in `EstimateRows`."""
        level = self.trained.level
        for part, rows in zip(self.trained.sample.parts(), self.trained.blocks(), strict=True):
            yield part, influence_of_estimates(rows, self.at, level, self.effect_scale)


def training_weights(sample: Sample, spec: Specification, weights: RowWeights) -> Array:
    """Weights of the training of the outcome models beside the observation weights, shape (n,)."""
    return weights.w if spec.weighted else sample.observed


def training_arms(sample: Sample, spec: Specification, weights: RowWeights) -> list[ArmTraining]:
    """Return what the outcome model of each arm is trained on."""
    q, family = training_columns(sample, spec), training_family(sample, spec)
    s = sample.s * training_weights(sample, spec, weights)
    return [
        ArmTraining(columns=q[a], y=sample.y[a], weights=s[a], family=family, offset=part_of(sample.offset, a))
        for a in sample.slices
    ]


@dataclass(frozen=True)
class TrainedRows:
    """Rows under trained outcome models.

    Parameters
    ----------
    sample : Sample
        The rows, outcomes measured from the level; all there are, or a block.
    spec : Specification
        The estimator.
    weights : RowWeights
        Their importance weights.
    q : ndarray, shape (n, p)
        Columns of the outcome models.
    theta : ndarray, shape (K, p)
        Outcome coefficients.
    predicted, slope : ndarray, shape (K, n)
        Means of the models of each arm, and their derivatives by the linear predictor.
    score, curvature : ndarray, shape (n,)
        Score of each row in the model of its own arm, and minus its derivative.
    """

    sample: Sample
    spec: Specification
    weights: RowWeights
    q: Array
    theta: Array
    predicted: Array
    slope: Array
    score: Array
    curvature: Array

    @property
    def training(self) -> Array:
        """Weights of the training of the outcome models beside the observation weights, shape (n,)."""
        return training_weights(self.sample, self.spec, self.weights)

    @cached_property
    def arms(self) -> list[ArmRows]:
        """The rows as those whose mean is taken in each arm."""
        ones = np.ones((self.sample.n, 1))
        return [
            ArmRows(
                sample=self.sample,
                spec=self.spec,
                weights=self.weights,
                g=ones,
                q=self.q,
                arm=arm,
                predicted=self.predicted[arm],
                slope=self.slope[arm],
            )
            for arm in range(self.sample.n_arms)
        ]


def trained_rows(sample: Sample, spec: Specification, weights: RowWeights, theta: Array) -> TrainedRows:
    """Evaluate trained outcome models on rows."""
    q, family = training_columns(sample, spec), training_family(sample, spec)
    eta = theta @ q.T
    at_means = shifted(eta, sample.mean_offset)
    score, curvature, _ = family.score(sample.y, shifted(sample.own(eta), sample.offset))
    return TrainedRows(
        sample=sample,
        spec=spec,
        weights=weights,
        q=q,
        theta=theta,
        predicted=family.mean(at_means),
        slope=family.mean_deriv(at_means),
        score=score,
        curvature=curvature,
    )


@dataclass(frozen=True)
class ThetaSums:
    """Sums over rows that the influence function of the outcome coefficients is made of; those of blocks add up.

    Parameters
    ----------
    bread : ndarray, shape (K, p, p)
        Mean of minus the derivatives of the scores.
    by_gamma : ndarray, shape (K, p, Q), or None
        Mean of the derivatives by the propensity coefficients, where these matter.
    """

    bread: Array
    by_gamma: Array | None


def theta_sums(rows: TrainedRows) -> ThetaSums:
    """Sum the derivatives of the scores over rows."""
    sample, weights = rows.sample, rows.weights
    share, by_gamma = sample.s / sample.total, None
    curved, pull = share * rows.training * rows.curvature, share * rows.score
    bread = np.stack([weighted_gram(rows.q[a], curved[a]) for a in sample.slices])
    if rows.spec.weighted and weights.size:
        by_gamma = np.stack([weighted_gram(rows.q[a], pull[a], weights.w_by_gamma[a]) for a in sample.slices])
    return ThetaSums(bread, by_gamma)


def _influence_of_theta(rows: TrainedRows, sums: ThetaSums, out: Array) -> None:
    """Write the influence function of the separately trained coefficients, (n, K, p): bread^-1 times the scores."""
    pull = rows.training * rows.score
    for a, members in enumerate(rows.sample.slices):
        inverse = solve_or_nan(sums.bread[a], np.eye(sums.bread.shape[1]))
        out[:, a] = 0.0 if sums.by_gamma is None else rows.weights.influence @ (inverse @ sums.by_gamma[a]).T
        out[members, a] += weighted_rows(rows.q[members], pull[members], inverse.T)


@dataclass(frozen=True)
class MeanSums:
    """Sums over rows that the arm means and the outcome models are made of; those of blocks add up.

    Parameters
    ----------
    theta : ThetaSums
        Of the outcome models.
    arms : tuple of ProjectionEquations
        Of the mean of each arm.
    model_means : ndarray, shape (K,)
        Averages of the predictions over the target.
    """

    theta: ThetaSums
    arms: tuple[ProjectionEquations, ...]
    model_means: Array


@dataclass(frozen=True)
class SolvedMeans:
    """Arm means, and what their influence function needs of all rows.

    Parameters
    ----------
    theta, model_means
        As in `MeanSums`.
    arms : tuple of SolvedProjection
        The mean of each arm.
    derivatives : tuple of (ndarray, ndarray)
        For each arm those of its equations by the outcome and by the propensity coefficients.
    """

    theta: ThetaSums
    model_means: Array
    arms: tuple[SolvedProjection, ...]
    derivatives: tuple[tuple[Array, Array], ...]

    @property
    def means(self) -> Array:
        """Arm means, shape (K,), measured from the level."""
        return np.concatenate([at.value for at in self.arms])


def solve_means(over: Callable[[Callable[[TrainedRows], Any]], Iterable[Any]]) -> SolvedMeans:
    """Average over the target, in a pass for the means and one for their derivatives.

    Parameters
    ----------
    over : callable
        Begins a pass over the rows: what a function makes of each block of them, of which there may be one.
    """
    sums: MeanSums = add_up(over(mean_sums))
    solved = tuple(equations.solved() for equations in sums.arms)
    derivatives = add_up(over(partial(mean_derivatives, solved)))
    return SolvedMeans(theta=sums.theta, model_means=sums.model_means, arms=solved, derivatives=derivatives)


def mean_sums(rows: TrainedRows) -> MeanSums:
    """Sum over rows what the arm means and the outcome models are made of."""
    return MeanSums(
        theta=theta_sums(rows),
        arms=tuple(arm.equations() for arm in rows.arms),
        model_means=rows.sample.mean(rows.weights.tilt[:, None] * rows.predicted.T),
    )


def mean_derivatives(solved: tuple[SolvedProjection, ...], rows: TrainedRows) -> tuple[tuple[Array, Array], ...]:
    """Sum over rows the derivatives of the equations of each arm's mean."""
    return tuple(arm.derivatives(at) for arm, at in zip(rows.arms, solved, strict=True))


def influence_of_estimates(rows: TrainedRows, at: SolvedMeans, level: Level, effect_scale: EffectScale) -> Array:
    """Influence function of all estimates, shape (n, d): effects and means, outcome and propensity coefficients."""
    sample, weights = rows.sample, rows.weights
    effects, n_theta = 2 * sample.n_arms - 1, rows.theta.size
    influence = np.empty((sample.n, effects + n_theta + weights.size))
    influence[:, effects + n_theta :] = weights.influence
    of_theta = influence[:, effects : effects + n_theta].reshape(sample.n, *rows.theta.shape)  # a view of its columns
    _influence_of_theta(rows, at.theta, of_theta)
    of_means = [
        arm.influence(mean, by_gamma) + of_theta[:, a] @ solve(mean.gram, by_theta).T
        for a, (arm, mean, (by_theta, by_gamma)) in enumerate(zip(rows.arms, at.arms, at.derivatives, strict=True))
    ]
    with np.errstate(invalid="ignore"):  # means without an effect on this scale are told by the caller
        jacobian = effect_scale.jacobian(at.means + level.height)
        influence[:, :effects] = np.concatenate(of_means, axis=1) @ jacobian.T
    return influence


def project_arm(
    sample: Sample,
    spec: Specification,
    weights: RowWeights,
    g: Array,
    q: Array,
    *,
    arm: int,
    predicted: Array,
    slope: Array,
) -> tuple[Array, Array, Array]:
    """Project one arm's mean on columns under the target's distribution; on the constant, the mean itself.

    Parameters
    ----------
    sample, spec, weights
        As in `estimate_separately`.
    g : ndarray, shape (n, k)
        The columns.
    q : ndarray, shape (n, p)
        Columns of the outcome model.
    arm : int
        The arm.
    predicted, slope : ndarray, shape (n,)
        Its predictions m_a and their derivatives by the linear predictor.

    Returns
    -------
    coefficients : ndarray, shape (k,)
        The projection b with mean t g (m_a - g'b) = 0; for AIPW b + c, c = (mean t g g')^-1 mean w g (y - m_a).
    by_theta : ndarray, shape (k, p)
        Its derivative by the arm's outcome coefficients.
    influence : ndarray, shape (n, k)
        Its influence function at known outcome coefficients.
    """
    rows = ArmRows(sample=sample, spec=spec, weights=weights, g=g, q=q, arm=arm, predicted=predicted, slope=slope)
    at = rows.equations().solved()
    by_theta, by_gamma = rows.derivatives(at)
    return at.value, solve(at.gram, by_theta), rows.influence(at, by_gamma)


@dataclass(frozen=True)
class ProjectionEquations:
    """Sums over rows that determine a projection; those of blocks add up.

    Parameters
    ----------
    gram : ndarray, shape (k, k)
        mean t g g'.
    predicted : ndarray, shape (k,)
        mean t g m_a.
    residual : ndarray, shape (k,), or None
        For AIPW mean w g (y - m_a).
    """

    gram: Array
    predicted: Array
    residual: Array | None

    def solved(self) -> SolvedProjection:
        """Solve the equations of all rows."""
        correction = None if self.residual is None else solve(self.gram, self.residual)
        return SolvedProjection(self.gram, solve(self.gram, self.predicted), correction)


@dataclass(frozen=True)
class SolvedProjection:
    """A projection.

    Parameters
    ----------
    gram : ndarray, shape (k, k)
        mean t g g'.
    coefficients : ndarray, shape (k,)
        That of the predictions.
    correction : ndarray, shape (k,), or None
        For AIPW that of the residuals.
    """

    gram: Array
    coefficients: Array
    correction: Array | None

    @property
    def value(self) -> Array:
        """The projection, shape (k,)."""
        return self.coefficients if self.correction is None else self.coefficients + self.correction


@dataclass(frozen=True)
class ArmRows:
    """Rows whose mean in one arm is projected, as in `project_arm`; all there are, or a block of them.

    Parameters
    ----------
    sample, spec, weights, g, q, arm, predicted, slope
        As in `project_arm`.
    """

    sample: Sample
    spec: Specification
    weights: RowWeights
    g: Array
    q: Array
    arm: int
    predicted: Array
    slope: Array

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
        """1.0 for the rows of the arm, shape (n,)."""
        return (self.sample.arm == self.arm) * self.sample.observed

    @cached_property
    def residual(self) -> Array:
        """Residual of the rows of the arm, shape (n,)."""
        return self.inside * (self.sample.y - self.predicted)

    def equations(self) -> ProjectionEquations:
        """Sum over the rows what determines the projection."""
        residual = None
        if self.spec.corrected:
            residual = (self.share * self.weights.w * self.residual) @ self.g
        return ProjectionEquations(self.weighted.T @ self.g, self.weighted.T @ self.predicted, residual)

    def derivatives(self, at: SolvedProjection) -> tuple[Array, Array]:
        """Sum over the rows the derivatives of the equations by theta, (k, p), and by gamma, (k, Q)."""
        g, weights = self.g, self.weights
        by_theta = (self.weighted * self.slope[:, None]).T @ self.q
        by_gamma = np.zeros((g.shape[1], weights.size))
        if weights.tilt_by_gamma is not None:
            error = self.predicted - g @ at.coefficients
            by_gamma = by_gamma + ((self.share * error)[:, None] * g).T @ weights.tilt_by_gamma
        if at.correction is not None:
            by_theta = by_theta - ((self.share * weights.w * self.inside * self.slope)[:, None] * g).T @ self.q
            by_gamma = by_gamma + ((self.share * self.residual)[:, None] * g).T @ weights.w_by_gamma
            if weights.measure_by_gamma is not None:
                corrected = g @ at.correction
                by_gamma = by_gamma - ((self.share * corrected)[:, None] * g).T @ weights.measure_by_gamma
        return by_theta, by_gamma

    def influence(self, at: SolvedProjection, by_gamma: Array) -> Array:
        """Influence function of the projection at known outcome coefficients, shape (n, k)."""
        g, weights = self.g, self.weights
        rows = (weights.tilt * (self.predicted - g @ at.coefficients))[:, None] * g
        if at.correction is not None:
            rows = rows + (weights.w * self.residual - weights.measure * (g @ at.correction))[:, None] * g
        rows = rows + weights.influence @ by_gamma.T
        return rows @ solve(at.gram, np.eye(len(at.gram)))  # the Gram matrix is symmetric
