"""The joint objective at its minimum: net biases to their last digit, the Hessian, the parameters.

Flows in: the objective expanded about the minimum. Flows out: u_b and their derivatives, H as a triangular factor,
effects and arm means; and for any rows, all there are or a block of them, the outcome models there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import solve_triangular

from causalrisk.estimators.effect_scales import EffectScale
from causalrisk.estimators.joint.criterion import JointCriterion
from causalrisk.estimators.joint.equations import Expanded, JointRows
from causalrisk.estimators.joint.objective import JointObjective, loss_weights
from causalrisk.estimators.joint.variance import EffectVariance
from causalrisk.numerics.linalg import Array
from causalrisk.numerics.optimize import OptimizeResult
from causalrisk.propensity.replicates import WeightMoments


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
        self.equations, self.levels, self.psi = at.equations, at.levels, at.psi
        self.raw_means, self.mean_bias = at.levels.means, at.levels.bias
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
        centre = self.psi.tilt_slope.sum(axis=0).reshape(size, 1) * self.levels.start_slope.reshape(1, size)
        D = np.kron(self.criterion.D, np.ones((p, p)))
        return -self.criterion.share * D * (self.psi.start_slope.sum(axis=0) - centre)

    def params(self) -> Array:
        """Effects, and arm means net of the common bias, shape (2 K - 1,)."""
        return np.concatenate([self.effect_scale.effects(self.raw_means), self.net_means()])

    def net_means(self) -> Array:
        """Arm means net of the common bias, shape (K,): all moved alike on the scale of the effect."""
        return net_means(self.raw_means, self.mean_bias, self.criterion.scale_slopes, self.effect_scale)


class SolutionRows:
    """Rows under the outcome models of a solution.

    Parameters
    ----------
    solution : JointSolution
        The solution.
    rows : JointRows
        All rows, or a block of them.
    """

    def __init__(self, solution: JointSolution, rows: JointRows) -> None:
        self.solution, self.rows, self.criterion = solution, rows, solution.criterion
        self.sample, self.weight_fit, self.resampled = rows.sample, rows.weight_fit, rows.resampled
        self.objective = JointObjective(self.sample, self.criterion)
        self.q, self.columns, self.share = self.objective.q, rows.columns, self.resampled.share[:, 0]
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
        return self.objective.variance(self.means, self.resampled, self.solution.levels.centres)

    def start_moved(self, steps: Array) -> Array:
        """How the means of rows at the start move with its coefficients, (n, K p), less their averages; (K, n)."""
        theta, steps = self.resampled.known_start, steps.reshape(len(steps), *self.solution.theta.shape)
        own = self.objective.start_deriv(theta)[..., 0] * np.einsum("np,nap->an", self.q, steps)
        return own - np.einsum("ap,nap->an", self.solution.levels.start_slope, steps)

    @cached_property
    def fitted_variance(self) -> EffectVariance:
        """The variance of the effect at the fitted score, no share of which is left out."""
        return EffectVariance(
            q=self.q,
            slices=self.sample.slices,
            D=self.objective.D,
            share=self.resampled.share,
            moments=WeightMoments.single(self.resampled.at),
            mean=self.means.mean,
            deriv=self.means.deriv,
            residual=self.means.residual,
            centres=self.solution.levels.fitted_centres,
        )


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
