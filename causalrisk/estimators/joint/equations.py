"""The joint objective of the full sample as equations about theta, and at its minimum.

Flows in: the rows, in one block or more, a criterion, theta. Flows out: the equations, each factor by QR of the rows of
the data; averages, biases and centres at theta. All of it is added up over the blocks, in two passes: what centres psi
takes the first. For linear models theta may be moved afterwards without another. About the minimum the equations give
the net biases u_b to their last digit with their derivatives, the Hessian H as a triangular factor, effects and arm
means (`JointSolution`), and for any rows, all there are or a block of them, the outcome models (`RowsAtSolution`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, TypeAlias, cast

import numpy as np
from scipy.linalg import solve_triangular

from causalrisk.estimators.joint.objective import (
    JointCriterion,
    JointObjective,
    ResampledWeights,
    bias_rows,
    contrasted,
    fitted_forms,
    loss_weights,
    penalised,
)
from causalrisk.estimators.joint.start import Start
from causalrisk.estimators.joint.variance import EffectVariance, OutcomeMeans, VarianceCentres, own_terms
from causalrisk.estimators.sample import Sample
from causalrisk.estimators.specification import EffectScale
from causalrisk.numerics.blocks import add_up
from causalrisk.numerics.linalg import Array, Triangle, pairwise_columns
from causalrisk.numerics.optimize import OptimizeResult
from causalrisk.propensity.replicates import BatchedWeights, WeightMoments
from causalrisk.propensity.weights import WeightFit


@dataclass(frozen=True)
class JointRows:
    """Rows of a joint problem: all there are, or a block of them.

    Parameters
    ----------
    place : slice
        Where they are in the sample.
    sample : Sample
        The rows.
    weight_fit : WeightFit
        Their importance weights.
    resampled : ResampledWeights
        The same as one resample, with those under the replicates and their moments.
    start : Start
        IPWRA of all rows.
    """

    place: slice
    sample: Sample
    weight_fit: WeightFit
    resampled: ResampledWeights
    start: Start

    @property
    def replicated(self) -> BatchedWeights:
        """Importance weights under the replicates."""
        return cast(BatchedWeights, self.resampled.replicated)

    @cached_property
    def pairs(self) -> Array:
        """Products of pairs of the outcome columns, as in `JointObjective`."""
        return pairwise_columns(self.sample.X.columns)

    @cached_property
    def start_steps(self) -> Array:
        """How the coefficients of IPWRA move without each row, as by `Start.held_out`."""
        return self.start.held_out(self.sample, self.weight_fit)

    @cached_property
    def columns(self) -> Array:
        """The outcome columns one after the other, shape (p, n)."""
        return np.ascontiguousarray(self.sample.X.columns.T)


# Begins a pass over the rows of a joint problem: a function -> what it makes of each block, in their order.
Over: TypeAlias = Callable[[Callable[[JointRows], Any]], Iterator[Any]]


@dataclass(frozen=True)
class MeansAndBiases:
    """Averages and biases at theta with their derivatives by theta_a, of arm a alone; sums over rows.

    Parameters
    ----------
    means, means_slope : ndarray, shape (K,) and (K, p)
        Averages of m_a over the target.
    bias, bias_slope : ndarray, shape (K,) and (K, p)
        Biases under the mean weights over the replicates.
    tilted_slope : ndarray, shape (K, p)
        Derivative of M_a of `VarianceCentres`.
    start_means, start_slope : ndarray, shape (K,) and (K, p)
        Averages of the means at the start under the mean tilt over the replicates, and their derivatives.
    centres, fitted_centres : VarianceCentres
        What centres psi over the replicates, and at the fitted score.
    fitted_slope : ndarray, shape (K, p)
        Derivative of the bias at the fitted score.
    """

    means: Array
    means_slope: Array
    bias: Array
    bias_slope: Array
    tilted_slope: Array
    start_means: Array
    start_slope: Array
    centres: VarianceCentres
    fitted_centres: VarianceCentres
    fitted_slope: Array

    def moved(self, step: Array) -> MeansAndBiases:
        """Return those of linear models at theta moved by a step, shape (K, p)."""
        means, bias, tilted, fitted = (
            (slope * step).sum(axis=1)
            for slope in (self.means_slope, self.bias_slope, self.tilted_slope, self.fitted_slope)
        )
        centres, of_fit = self.centres, self.fitted_centres
        return replace(
            self,
            means=self.means + means,
            bias=self.bias + bias,
            centres=replace(centres, M=centres.M + tilted[:, None], R=centres.R - bias[:, None]),
            fitted_centres=replace(of_fit, M=of_fit.M + means[:, None], R=of_fit.R - fitted[:, None]),
        )


@dataclass(frozen=True)
class PsiSums:
    """Products of psi, for each part of the moments, with tilt and measure; sums over rows.

    Parameters
    ----------
    tilt_slope, measure_slope : ndarray, shape (J, K, p)
        mean of tilt or measure times psi'_a.
    tilt_D_psi, measure_D_psi : ndarray, shape (J, K)
        mean of tilt or measure times (D psi)_a.
    start_slope : ndarray, shape (J, K p, K p)
        mean of psi'_a times the tilt and the derivative of the means at the start by its coefficients; empty where
        V leaves nothing of these out.
    """

    tilt_slope: Array
    measure_slope: Array
    tilt_D_psi: Array
    measure_D_psi: Array
    start_slope: Array

    def moved(self, step: Array, D: Array) -> PsiSums:
        """Return those of linear models at theta moved by a step, shape (K, p)."""
        of_tilt, of_measure = ((slope * step).sum(axis=2) @ D for slope in (self.tilt_slope, self.measure_slope))
        return replace(self, tilt_D_psi=self.tilt_D_psi + of_tilt, measure_D_psi=self.measure_D_psi + of_measure)


@dataclass(frozen=True)
class JointEquations:
    """Equations (c, h) of the terms of the objective about theta, in units of the outcome and without their penalties.

    Parameters
    ----------
    forms : ndarray, shape (K, 1 + B, p + 1)
        For each arm the derivative of its bias, and the bias: at the fitted score first, then under the replicates.
    loss : ndarray, shape (r, K p + 1)
        Of the loss for alpha sigma_0^2 = 1.
    variance : ndarray, shape (r, K p + 1)
        Of V.
    loss_gradient : ndarray, shape (K p,)
        Gradient of that loss. Where an outcome contradicts a mean near the end of its range, the equations do not keep
        its digits: their h are the scores divided by the roots of weights near zero.
    """

    forms: Array
    loss: Array
    variance: Array
    loss_gradient: Array

    def moved(self, step: Array) -> JointEquations:
        """Return those of linear models about theta moved by a step, shape (K, p)."""
        forms, slopes = self.forms.copy(), self.loss[:, :-1]
        forms[..., -1] += np.einsum("abp,ap->ab", forms[..., :-1], step)
        gradient = self.loss_gradient + slopes.T @ (slopes @ step.ravel())
        return JointEquations(forms, _moved(self.loss, step), _moved(self.variance, step), gradient)

    def net_biases(self, criterion: JointCriterion) -> tuple[Array, Array]:
        """Equations of the contrasts of the biases, at the fitted score (C, K p + 1), and under replicates (C B, .)."""
        fitted, replicated = (
            contrasted(forms[:, :, None], criterion)[0] for forms in (self.forms[:, :1], self.forms[:, 1:])
        )
        return fitted, replicated

    def stacked(self, criterion: JointCriterion) -> Array:
        """Equations of the objective, shape (r, K p + 1).

        Those of the net bias at the fitted score, C, and under the replicates, C B, then the others: the largest stand
        first, so that QR keeps their digits.
        """
        parts = [*penalised(criterion, *self.net_biases(criterion), self.forms.shape[1] - 1)]
        if criterion.full_risk:
            parts.append(self.variance)
        return np.concatenate([*parts, np.sqrt(criterion.alpha_sigma2) * self.loss])

    @property
    def variance_gradient(self) -> Array:
        """Gradient of V / 2, shape (K p,)."""
        return -self.variance[:, :-1].T @ self.variance[:, -1]

    @property
    def variance_value(self) -> float:
        """V."""
        return float((self.variance[:, -1] ** 2).sum())


def _moved(rows: Array, step: Array) -> Array:
    found = rows.copy()
    found[:, -1] -= rows[:, :-1] @ step.ravel()
    return found


@dataclass(frozen=True)
class Expanded:
    """The objective about theta.

    Parameters
    ----------
    theta : ndarray, shape (K, p)
        Coefficients.
    equations : JointEquations
        The equations.
    averages : MeansAndBiases
        Averages, biases and centres.
    psi : PsiSums
        Products of psi.
    left_out : float
        What the share c leaves out of V at theta, or where the expansion was moved from; NaN where one pass was made.
    """

    theta: Array
    equations: JointEquations
    averages: MeansAndBiases
    psi: PsiSums
    left_out: float

    def at(self, theta: Array, D: Array) -> Expanded:
        """Return that of linear models about another theta."""
        step = theta - self.theta
        equations, averages, psi = self.equations.moved(step), self.averages.moved(step), self.psi.moved(step, D)
        return Expanded(theta, equations, averages, psi, self.left_out)


@dataclass(frozen=True)
class _FirstSums:
    """What the first pass leaves: forms of the biases, factors of the loss and of the part `own_sd` of V, averages.

    The scores are minus the gradient of the loss, shape (K, p).
    """

    forms: Array
    loss: tuple[Triangle, ...]
    scores: Array
    own: tuple[Triangle, ...]
    averages: MeansAndBiases


@dataclass(frozen=True)
class _SecondSums:
    """What the second pass leaves, which knows the centres: factors of V by part and contrast, products of psi.

    And what the share c leaves out of V.
    """

    variance: tuple[Triangle, ...]
    psi: PsiSums
    left_out: float


def expand_about(
    theta: Array, criterion: JointCriterion, over: Over, centres: VarianceCentres | None = None
) -> Expanded:
    """Expand the objective about theta, shape (K, p): two passes over the rows, or one where the centres are known."""
    if centres is None:
        first = add_up(over(partial(_first_sums, theta, criterion)))
        averages = first.averages
        second = add_up(over(partial(_second_sums, theta, criterion, averages.centres, averages.start_means)))
    else:
        first, second = add_up(over(partial(_both_sums, theta, criterion, centres)))
    variance = [*(triangle.factor for triangle in second.variance), *_placed(first.own, theta)]
    loss = np.concatenate(_placed(first.loss, theta))
    equations = JointEquations(first.forms, loss, np.concatenate(variance), -first.scores.ravel())
    return Expanded(theta, equations, first.averages, second.psi, second.left_out)


def _placed(factors: tuple[Triangle, ...], theta: Array) -> list[Array]:
    """Equations of each arm in the columns of all."""
    p, found = theta.shape[1], []
    for a, triangle in enumerate(factors):
        rows = np.zeros((len(triangle.factor), theta.size + 1))
        rows[:, [*range(a * p, (a + 1) * p), -1]] = triangle.factor
        found.append(rows)
    return found


def _first_sums(theta: Array, criterion: JointCriterion, block: JointRows) -> _FirstSums:
    sample, resampled, share = block.sample, block.resampled, block.resampled.share
    objective = JointObjective(sample, criterion)
    at = objective.means(theta[..., None])
    biases = bias_rows(sample, at)
    forms = [fitted_forms(sample.slices, biases, resampled), resampled.replicated.sums(share, biases)]
    own, own_deriv = sample.own(at.eta), sample.own(at.deriv)
    score, _, expected = sample.family.score(sample.y[:, None], own)
    trained = share * loss_weights(criterion, resampled)
    spread, spread_scores = own_terms(sample, objective.D, resampled.moments, own_deriv, at.residual)
    return _FirstSums(
        forms=np.concatenate(forms, axis=1)[:, :, 0],
        loss=_fit_factors(sample, trained * expected, trained * score),
        scores=np.stack([(trained * score)[rows, 0] @ sample.X.columns[rows] for rows in sample.slices]),
        own=_fit_factors(sample, share * spread, share * spread_scores),
        averages=_averages(objective, at, resampled),
    )


def _fit_factors(sample: Sample, weights: Array, scores: Array) -> tuple[Triangle, ...]:
    """Factors of the equations of a weighted fit of each arm."""
    root = np.sqrt(weights)
    right = np.divide(scores, root, out=np.zeros_like(root), where=root > 0)
    q = sample.X.columns
    return tuple(Triangle(np.column_stack([q[rows] * root[rows], right[rows]])) for rows in sample.slices)


def _averages(objective: JointObjective, at: OutcomeMeans, resampled: ResampledWeights) -> MeansAndBiases:
    sample, q, share = objective.sample, objective.q, resampled.share
    slices, tilted = sample.slices, share * resampled.moments.mean.tilt
    fitted, mean = resampled.at, resampled.moments.mean
    own_deriv = sample.own(at.deriv)

    def slopes(weights: Array) -> Array:
        weighted = share * weights * own_deriv
        return np.stack([weighted[rows, 0] @ q[rows] for rows in slices])

    over_replicates = VarianceCentres.of(sample, share, mean, at, objective.counted(at.mean, resampled))
    return MeansAndBiases(
        means=np.stack([(share * fitted.tilt * m)[:, 0].sum() for m in at.mean]),
        means_slope=np.stack([(share * fitted.tilt * deriv)[:, 0] @ q for deriv in at.deriv]),
        bias=-over_replicates.R[:, 0],
        bias_slope=slopes(mean.w),
        tilted_slope=np.stack([(tilted * deriv)[:, 0] @ q for deriv in at.deriv]),
        start_means=(tilted * objective.start_means(resampled.known_start)).sum(axis=1)[:, 0],
        start_slope=np.stack([(tilted * deriv)[:, 0] @ q for deriv in objective.start_deriv(resampled.known_start)]),
        centres=over_replicates,
        fitted_centres=VarianceCentres.of(sample, share, fitted, at, at.mean),
        fitted_slope=slopes(fitted.w),
    )


def _second_sums(
    theta: Array, criterion: JointCriterion, centres: VarianceCentres, start_means: Array | None, block: JointRows
) -> _SecondSums:
    objective, resampled = JointObjective(block.sample, criterion), block.resampled
    variance = objective.variance(objective.means(theta[..., None]), resampled, centres)
    rows = _variance_rows(variance, criterion.contrasts, block.columns)
    psi = _psi_sums(variance, block.columns, objective.start_deriv(resampled.known_start)[..., 0], criterion.real_share)
    left_out = np.nan
    if start_means is not None:
        above = objective.start_means(resampled.known_start)[..., 0] - start_means[:, None]
        left_out = variance.left_out(criterion.real_share * above)
    return _SecondSums(tuple(Triangle(part) for part in rows), psi, left_out)


def _both_sums(
    theta: Array, criterion: JointCriterion, centres: VarianceCentres, block: JointRows
) -> tuple[_FirstSums, _SecondSums]:
    return _first_sums(theta, criterion, block), _second_sums(theta, criterion, centres, None, block)


def _variance_rows(variance: EffectVariance, contrasts: Array, columns: Array) -> Iterator[Array]:
    """Equations of V but for the part `own_sd`, of each row; a contrast and part of the moments each."""
    root = np.sqrt(variance.share)
    for part in variance.parts:
        for contrast in contrasts:
            slopes = variance.weighted_slopes(part, contrast[:, None]).written(columns)
            yield np.column_stack([slopes.T, -contrast @ part.psi[..., 0]]) * root


def _psi_sums(variance: EffectVariance, columns: Array, start_deriv: Array, share: float) -> PsiSums:
    by_arm, found, of_start = (len(variance.slices), len(columns)), [], []
    at_start = (start_deriv[:, None] * columns).reshape(-1, columns.shape[1])
    for part in variance.parts:
        slopes = variance.weighted_slopes(part, np.ones((len(variance.slices), 1))).written(columns)
        for weights in (part.weights.tilt, part.weights.measure):
            shared = (variance.share * weights)[:, 0]
            found.append(((slopes @ shared).reshape(by_arm), part.D_psi[..., 0] @ shared))
        if share:
            of_start.append(slopes * (variance.share * part.weights.tilt)[:, 0] @ at_start.T)
    tilt, measure = found[::2], found[1::2]
    return PsiSums(
        np.stack([slope for slope, _ in tilt]),
        np.stack([slope for slope, _ in measure]),
        np.stack([D_psi for _, D_psi in tilt]),
        np.stack([D_psi for _, D_psi in measure]),
        np.reshape(of_start, (-1, len(at_start), len(at_start))),
    )


# --- the minimum ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hessian:
    """The Hessian H = R'(I + R^-T S R^-1) R, R the factor of the equations, S the further curvature of the means.

    Parameters
    ----------
    factor : ndarray, shape (K p, K p)
        R.
    inner : ndarray, shape (K p, K p)
        I + R^-T S R^-1.
    plain : bool
        Whether there is no further curvature, so that the inner matrix is the identity.
    """

    factor: Array
    inner: Array
    plain: bool

    @classmethod
    def of(cls, factor: Array, curvature: Array | None) -> Hessian:
        """Return the Hessian of a factor R and a curvature S."""
        inner = np.eye(len(factor))
        if curvature is not None:
            half = solve_triangular(factor, curvature, trans="T")
            inner = inner + solve_triangular(factor, half.T, trans="T")
        return cls(factor, inner, curvature is None)

    def whiten(self, gradient: Array) -> Array:
        """R^-T times the columns of a gradient, shape (K p, ...)."""
        return solve_triangular(self.factor, gradient, trans="T")

    @cached_property
    def whitener(self) -> Array:
        """R^-T, for the many columns of rows, shape (K p, K p)."""
        return solve_triangular(self.factor, np.eye(len(self.factor))).T

    def solve(self, gradient: Array, whitened: Array | float = 0.0) -> Array:
        """Inverse Hessian times the columns of a gradient, shape (K p, j), part of it given as R^-T times it."""
        return solve_triangular(self.factor, np.linalg.solve(self.inner, self.whiten(gradient) + whitened))


class JointSolution:
    """The joint objective at its minimum.

    Parameters
    ----------
    criterion : JointCriterion
        Weights of the terms.
    at : Expanded
        The objective about the minimum.
    curvature : ndarray, shape (K p, K p), or None
        What the Hessian has beside the products of the equations; None for linear models.
    effect_scale : EffectScale
        How the effect is reported.
    result : OptimizeResult
        What scipy reported.

    Attributes
    ----------
    penalties : ndarray, shape (1 + B,)
        lambda_b: of the net bias at the fitted score, and of that under each replicate.
    u : ndarray, shape (C, 1 + B)
        Contrasts of the net biases, at the fitted score first.
    u_slope : ndarray, shape (C, 1 + B, K p)
        Their derivatives by theta.
    u_whitened : ndarray, shape (C, 1 + B, K p)
        R^-T times the derivatives, times the root of the penalty.
    hessian : Hessian
        H, in units of the squared outcome.
    """

    def __init__(
        self,
        criterion: JointCriterion,
        at: Expanded,
        curvature: Array | None,
        effect_scale: EffectScale,
        result: OptimizeResult,
    ) -> None:
        self.criterion, self.theta, self.effect_scale, self.result = criterion, at.theta, effect_scale, result
        self.equations, self.averages, self.psi = at.equations, at.averages, at.psi
        self.raw_means, self.mean_bias = at.averages.means, at.averages.bias
        count, n_contrasts = self.count, len(criterion.contrasts)
        self.penalties = np.append(criterion.fitted_penalty, np.full(count, criterion.penalty / count))
        fitted, replicated = self.equations.net_biases(criterion)
        forms = np.concatenate([fitted[:, None], replicated.reshape(n_contrasts, count, -1)], axis=1)
        self.u, self.u_slope = -forms[..., -1], forms[..., :-1]
        whitened, factor = np.linalg.qr(self.equations.stacked(criterion)[:, :-1])
        of_fitted = whitened[:n_contrasts].reshape(n_contrasts, 1, -1)
        of_replicates = whitened[n_contrasts : n_contrasts * (1 + count)].reshape(n_contrasts, count, -1)
        self.u_whitened = np.concatenate([of_fitted, of_replicates], axis=1)
        self.hessian = Hessian.of(factor, curvature)
        self._correct_net_biases()

    @property
    def count(self) -> int:
        """Number of replicates, B."""
        return self.equations.forms.shape[1] - 1

    @property
    def n_arms(self) -> int:
        """K."""
        return len(self.theta)

    @property
    def root(self) -> Array:
        """Roots of the penalties, shape (1 + B,)."""
        return np.sqrt(self.penalties)

    @property
    def loss_gradient(self) -> Array:
        """Gradient of the losses, shape (K p,)."""
        return self.criterion.alpha_sigma2 * self.equations.loss_gradient

    def _correct_net_biases(self) -> None:
        """Correct the net biases by the Newton step that the gradient implies.

        The gradient at theta is rounding error, which a large penalty magnifies; the step is below the last digit of
        theta.
        """
        rest = self.loss_gradient + (self.equations.variance_gradient if self.criterion.full_risk else 0.0)
        gradient = self.hessian.whiten(rest) + np.tensordot(self.root * self.u, self.u_whitened, axes=2)
        moved = self.u_whitened @ np.linalg.solve(self.hessian.inner, gradient)
        self.u = self.u - np.divide(moved, self.root, out=np.zeros_like(moved), where=self.root > 0)

    @cached_property
    def by_start(self) -> Array:
        """Derivative of the gradient of V / 2 by the coefficients of the start, shape (K p, K p).

        V counts means less the share c of those at the start.
        """
        size, p = self.theta.size, self.theta.shape[1]
        centre = self.psi.tilt_slope.sum(axis=0).reshape(size, 1) * self.averages.start_slope.reshape(1, size)
        D = np.kron(self.criterion.D, np.ones((p, p)))
        return -self.criterion.real_share * D * (self.psi.start_slope.sum(axis=0) - centre)

    def params(self) -> Array:
        """Effects, and arm means net of the common bias, shape (2 K - 1,)."""
        return np.concatenate([self.effect_scale.effects(self.raw_means), self.net_means()])

    def net_means(self) -> Array:
        """Arm means net of the common bias, shape (K,): all moved alike on the scale of the effect."""
        return net_means(self.raw_means, self.mean_bias, self.criterion.scale_slopes, self.effect_scale)


class RowsAtSolution:
    """Rows under the outcome models of a solution.

    Parameters
    ----------
    solution : JointSolution
        The solution.
    data : JointRows
        All rows, or a block of them.
    """

    def __init__(self, solution: JointSolution, data: JointRows) -> None:
        self.solution, self.data, self.criterion = solution, data, solution.criterion
        self.sample, self.weight_fit, self.resampled = data.sample, data.weight_fit, data.resampled
        self.objective = JointObjective(self.sample, self.criterion)
        self.q, self.columns, self.share = self.objective.q, data.columns, self.resampled.share[:, 0]
        self.means = self.objective.means(solution.theta[..., None])
        self.predicted, self.deriv = self.means.mean[..., 0], self.means.deriv[..., 0]
        self.counted = self.objective.counted(self.means.mean, self.resampled)[..., 0]
        self.own_deriv, self.error = self.sample.own(self.deriv), -self.means.residual[:, 0]
        own = self.sample.own(self.means.eta[..., 0])
        self.score, _, self.expected = self.sample.family.score(self.sample.y, own)
        self.loss_w = self.criterion.alpha_sigma2 * loss_weights(self.criterion, self.resampled)[:, 0]

    @cached_property
    def variance(self) -> EffectVariance:
        """V over the replicates."""
        return self.objective.variance(self.means, self.resampled, self.solution.averages.centres)

    def start_moved(self, steps: Array) -> Array:
        """How the means of rows at the start move with its coefficients, (n, K p), less their averages; (K, n)."""
        theta, steps = self.resampled.known_start, steps.reshape(len(steps), *self.solution.theta.shape)
        own = self.objective.start_deriv(theta)[..., 0] * np.einsum("np,nap->an", self.q, steps)
        return own - np.einsum("ap,nap->an", self.solution.averages.start_slope, steps)

    @cached_property
    def fitted_variance(self) -> EffectVariance:
        """The variance of the effect at the fitted score, no share of which is left out."""
        share, moments = self.resampled.share, WeightMoments.single(self.resampled.at)
        centres = self.solution.averages.fitted_centres
        return EffectVariance(self.sample, self.objective.D, share, moments, self.means, self.means.mean, centres)


def net_means(raw: Array, mean_bias: Array, slopes: Array, scale: EffectScale) -> Array:
    """Arm means net of the common bias, shape (K, ...): all moved alike on the scale of the effect.

    Parameters
    ----------
    raw, mean_bias : ndarray, shape (K, ...)
        Arm means, and their biases averaged over the replicates.
    slopes : ndarray, shape (K,)
        Derivative of the scale at each arm mean of the start.
    scale : EffectScale
        The scale.

    Returns
    -------
    ndarray, shape (K, ...)
        Means whose effects are those of the raw ones.
    """
    return scale.g_inverse(scale.g(raw) - np.tensordot(slopes, mean_bias, axes=1) / len(raw))
