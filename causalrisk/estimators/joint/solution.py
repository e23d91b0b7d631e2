"""The joint objective at its minimum: net biases to their last digit, the Hessian, the parameters.

Flows in: the objective, theta, the equations of the objective there. Flows out: u_b and their derivatives, H as a
triangular factor, effects and arm means.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular

from causalrisk.estimators.effect_scales import EffectScale
from causalrisk.estimators.joint.objective import JointObjective, ResampledWeights
from causalrisk.numerics.linalg import Array
from causalrisk.numerics.optimize import OptimizeResult
from causalrisk.propensity.replicates import Replicates
from causalrisk.propensity.weights import WeightFit


@dataclass(frozen=True)
class Hessian:
    """The Hessian H = R'(I + R^-T S R^-1) R, R the factor of the equations, S the further curvature of the means.

    Parameters
    ----------
    factor : ndarray, shape (K p, K p)
        R.
    inner : ndarray, shape (K p, K p)
        I + R^-T S R^-1.
    """

    factor: Array
    inner: Array

    @classmethod
    def of(cls, factor: Array, curvature: Array | None) -> Hessian:
        """Return the Hessian of a factor R and a curvature S."""
        inner = np.eye(len(factor))
        if curvature is not None:
            half = solve_triangular(factor, curvature, trans="T")
            inner = inner + solve_triangular(factor, half.T, trans="T")
        return cls(factor, inner)

    def whiten(self, gradient: Array) -> Array:
        """R^-T times the columns of a gradient, shape (K p, ...)."""
        return solve_triangular(self.factor, gradient, trans="T")

    def solve(self, gradient: Array, whitened: Array | float = 0.0) -> Array:
        """Inverse Hessian times the columns of a gradient, shape (K p, j), part of it given as R^-T times it."""
        return solve_triangular(self.factor, np.linalg.solve(self.inner, self.whiten(gradient) + whitened))

    def unwhiten(self, step: Array) -> Array:
        """R^-1 times the columns of a step, shape (K p, ...)."""
        return solve_triangular(self.factor, step)


class JointSolution:
    """The joint objective at its minimum.

    Parameters
    ----------
    objective : JointObjective
        The objective.
    weight_fit : WeightFit
        The fitted importance weights.
    replicates : Replicates
        The distribution of the propensity score.
    resampled : ResampledWeights
        The full sample as a resample.
    theta : ndarray, shape (K, p)
        The solution.
    equations : ndarray, shape (r, K p + 1)
        Equations of the objective there, those of the net biases first.
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
        objective: JointObjective,
        weight_fit: WeightFit,
        replicates: Replicates,
        resampled: ResampledWeights,
        theta: Array,
        equations: Array,
        effect_scale: EffectScale,
        result: OptimizeResult,
    ) -> None:
        self.objective, self.weight_fit, self.replicates, self.resampled = objective, weight_fit, replicates, resampled
        self.theta, self.effect_scale, self.result = theta, effect_scale, result
        self.sample, self.criterion, self.q = objective.sample, objective.criterion, objective.q
        self.share = resampled.share[:, 0]
        self.means = objective.means(theta[..., None])
        self.predicted, self.deriv = self.means.mean[..., 0], self.means.deriv[..., 0]
        self.own_deriv, self.error = self.sample.own(self.deriv), -self.means.residual[:, 0]
        own = self.sample.own(self.means.eta[..., 0])
        self.score, _, self.expected = self.sample.family.score(self.sample.y, own)
        self.loss_w = objective.loss_weights(resampled)[:, 0]
        self.variance = objective.variance(self.means, resampled.share, resampled.moments)
        self.raw_means = self.sample.mean(weight_fit.tilt[:, None] * self.predicted.T)
        mean_w = resampled.moments.mean.w[:, 0]
        self.mean_bias = self.sample.indicators.T @ (self.share * mean_w * self.error)
        count, n_contrasts = replicates.count, len(self.criterion.contrasts)
        self.penalties = np.append(self.criterion.fitted_penalty, np.full(count, self.criterion.penalty / count))
        fitted, replicated = objective.net_bias_equations(self.means, resampled)
        forms = np.concatenate([fitted[0][:, None], replicated[0].reshape(n_contrasts, count, -1)], axis=1)
        self.u, self.u_slope = -forms[..., -1], forms[..., :-1]
        whitened, factor = np.linalg.qr((equations / objective.row_units)[:, :-1])
        of_fitted = whitened[:n_contrasts].reshape(n_contrasts, 1, -1)
        of_replicates = whitened[n_contrasts : n_contrasts * (1 + count)].reshape(n_contrasts, count, -1)
        self.u_whitened = np.concatenate([of_fitted, of_replicates], axis=1)
        self.hessian = Hessian.of(factor, self._curvature())
        self._correct_net_biases()

    def _curvature(self) -> Array | None:
        if self.sample.family.linear:
            return None
        curvature = self.objective.expand(self.theta[..., None], self.resampled).curvature
        return None if curvature is None else curvature[0] / self.objective.row_units[0] ** 2

    @property
    def root(self) -> Array:
        """Roots of the penalties, shape (1 + B,)."""
        return np.sqrt(self.penalties)

    @property
    def loss_gradient(self) -> Array:
        """Gradient of the losses, shape (K p,)."""
        rows = -(self.share * self.loss_w * self.score)[:, None] * self.q
        return np.concatenate([rows[members].sum(axis=0) for members in self.sample.slices])

    @property
    def variance_gradient(self) -> Array:
        """Gradient of V / 2, shape (K p,)."""
        total = np.zeros(self.theta.shape)
        for part in self.variance.parts:
            for a in range(len(total)):
                total[a] += (self.share * part.D_psi[a, :, 0]) @ self.variance.slopes(part, a)
        _, scores = self.variance.own_terms(self.own_deriv[:, None])
        for a, rows in enumerate(self.sample.slices):
            total[a] -= (self.share * scores[:, 0])[rows] @ self.q[rows]
        return total.ravel()

    def _correct_net_biases(self) -> None:
        """Correct the net biases by the Newton step that the gradient implies.

        The gradient at theta is rounding error, which a large penalty magnifies; the step is below the last digit of
        theta.
        """
        rest = self.loss_gradient + (self.variance_gradient if self.criterion.full_risk else 0.0)
        gradient = self.hessian.whiten(rest) + np.tensordot(self.root * self.u, self.u_whitened, axes=2)
        moved = self.u_whitened @ np.linalg.solve(self.hessian.inner, gradient)
        self.u = self.u - np.divide(moved, self.root, out=np.zeros_like(moved), where=self.root > 0)

    def params(self) -> Array:
        """Effects, and arm means net of the common bias, shape (2 K - 1,)."""
        return np.concatenate([self.effect_scale.effects(self.raw_means), self.net_means()])

    def net_means(self) -> Array:
        """Arm means net of the common bias, shape (K,): all moved alike on the scale of the effect."""
        return net_means(self.raw_means, self.mean_bias, self.criterion.scale_slopes, self.effect_scale)


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
