"""JRE's objective, and its minimum among models whose net bias is zero at the fitted score.

The net bias of an effect is the difference of the biases of its two arms. scipy minimises the objective of the fit,
starting at IPWRA. Newton steps minimise the objectives of folds and resamples. The models have coefficients theta_a,
and the columns of `Rows.X` have coefficients beta_a = L theta_a, with L of shape (P, p). L is the identity unless the
linear predictor of the score is an outcome column. Then L also holds the score's coefficients. For linear models the
objective is quadratic and the constraint linear, so one Newton step from any point reaches the minimum.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from causalrisk.joint.objective import Expansion, Rows, Terms, Weights, block_diagonal, curvature, expand, sums
from causalrisk.joint.rows import WeightedRows
from causalrisk.numerics.arrays import Array, inverse_or_nan
from causalrisk.numerics.optimize import OptimizeResult, minimize

NEWTON_STEPS, HALVINGS, CONVEX = 100, 13, 1e-10
SETTLED, SETTLED_CONVEX = 1e-9, 1e-6  # relative length of the last step; the error is about its square
ROUNDING = 1e-12  # ratio of mean squared residual to mean squared prediction that is rounding error
SINGULAR, UNDETERMINED = 1e12, 1e15  # condition numbers above which a linear fit fails, and `determined` is False


@dataclass(frozen=True)
class Objective:
    """The objective under R columns of row weights.

    Parameters
    ----------
    rows : WeightedRows
        The rows.
    models : ndarray, shape (K, p, R)
        Coefficients of IPWRA's models.
    terms : Terms
        The constants of the objective.
    """

    rows: WeightedRows
    models: Array
    terms: Terms

    @property
    def linear(self) -> bool:
        """Whether the outcome models are linear, which makes the objective quadratic."""
        return self.rows.equations.sample.family.linear

    @cached_property
    def start(self) -> Array:
        """IPWRA's coefficients of the columns of `Rows.X`, shape (K, P, R)."""
        return self.rows.lifted(self.models)

    def _expand(self, theta: Array) -> Expansion:
        def of_rows(rows: Rows, weights: Weights, own: slice) -> dict[str, Array]:
            return sums(rows, weights, theta[..., own], self.start[..., own], self.terms)

        return expand(self.rows.over(of_rows), self.terms, framed=self.rows.equations.target.frame)

    @cached_property
    def _at_start(self) -> Expansion:
        return self._expand(self.start)

    def at(self, beta: Array) -> Expansion:
        """Return the expansion of the objective about `beta` (K, P, R), coefficients of the columns of `Rows.X`."""
        return self._at_start.after_step(beta - self.start) if self.linear else self._expand(beta)

    def of_models(self, theta: Array) -> Expansion:
        """Return the expansion of the objective about `theta` (K, p, R), the models' coefficients."""
        at = self.at(self.rows.lifted(theta))
        return at if self.rows.joined is None else at.projected(self.rows.lift_of_arms)

    @cached_property
    def first(self) -> Expansion:
        """Expansion of the objective about IPWRA's models."""
        return self.of_models(self.models)

    def curvature(self, beta: Array, at: Expansion, nu: Array) -> Array:
        """Return the part of the Hessian that comes from second derivatives of the means, shape (R, K P, K P)."""

        def of_rows(rows: Rows, weights: Weights, own: slice) -> Array:
            return curvature(rows, weights, beta[..., own], self.start[..., own], self.terms, at.some(own), nu[own])

        return block_diagonal(self.rows.over(of_rows))

    def some(self, columns: NDArray[np.intp]) -> Objective:
        """Return the objective with only the given columns of row weights."""
        if len(columns) == self.models.shape[2]:
            return self
        return Objective(self.rows.under(columns), self.models[..., columns], self.terms)

    def curvature_of_models(self, theta: Array, at: Expansion, nu: Array) -> Array:
        """Return `curvature` with respect to the models' coefficients theta, shape (R, K p, K p)."""
        found, lift = self.curvature(self.rows.lifted(theta), at, nu), self.rows.lift_of_arms
        return lift.transpose(0, 2, 1) @ found @ lift


@dataclass(frozen=True)
class Minimum:
    """Minima of R objectives.

    Parameters
    ----------
    theta : ndarray, shape (K, p, R)
        Coefficients at the minima.
    multipliers : ndarray, shape (R, C)
        Lagrange multipliers of the constraint.
    converged : ndarray of bool, shape (R,)
        Whether each search converged.
    average, bias : ndarray, shape (R, K)
        Averages of the models over the target, and biases of the arms averaged over the replicates.
    """

    theta: Array
    multipliers: Array
    converged: NDArray[np.bool_]
    average: Array
    bias: Array


def stack(theta: Array) -> Array:
    """Stack coefficients of shape (K, p, R) arm by arm. Return an array of shape (R, K p)."""
    return theta.reshape(-1, theta.shape[2]).T


def unstack(z: Array, shape: tuple[int, ...]) -> Array:
    """Turn coefficients stacked arm by arm, shape (R, K p), into an array of shape (K, p, R)."""
    return z.T.reshape(*shape[:2], -1)


def solve_constrained(hessian: Array, right: Array, u_slope: Array, u: Array) -> tuple[Array, Array]:
    """Solve R systems H x + A' nu = g, A x = u for x and nu, with H = `hessian`, A = `u_slope` and g = `right`."""
    count, size = u_slope.shape[1:]
    scale = np.sqrt(np.trace(hessian, axis1=1, axis2=2) / size)[:, None, None]
    norm = np.linalg.norm(u_slope, axis=2, keepdims=True)
    rows = u_slope / np.where(norm > 0, norm, 1.0)
    whole = np.zeros((len(hessian), size + count, size + count))
    whole[:, :size, :size] = hessian / scale**2
    whole[:, size:, :size], whole[:, :size, size:] = rows, rows.transpose(0, 2, 1)
    given = np.concatenate([right / scale**2, u / np.where(norm > 0, norm, 1.0)], axis=1)
    found = solve_each(whole, given)
    return found[:, :size], found[:, size:] * scale**2 / np.where(norm > 0, norm, 1.0)


def solve_each(matrices: Array, right: Array) -> Array:
    """Solve linear systems. The solution is NaN if a system is singular or not finite."""
    try:
        return np.asarray(np.linalg.solve(matrices, right))
    except np.linalg.LinAlgError:
        return np.stack([inverse_or_nan(matrix) @ given for matrix, given in zip(matrices, right, strict=True)])


def newton(objective: Objective, theta: Array, alpha: float, multipliers: Array | None = None) -> Minimum:
    """Minimise by Newton steps on the first-order conditions of the constrained minimum."""
    at = objective.first if theta is objective.models else objective.of_models(theta)
    if objective.linear:
        return _one_step(objective, theta, alpha, at)
    shape, active = theta.shape, np.arange(theta.shape[2])
    theta, converged = theta.copy(), np.zeros(len(active), dtype=bool)
    nu = np.zeros(at.u[0].shape) if multipliers is None else multipliers.copy()
    average, bias = np.empty((2, len(active), shape[0]))
    for _ in range(NEWTON_STEPS):
        old, own = theta[..., active], nu[active]
        value, gradient, hessian = at.at(alpha)
        whole = hessian + objective.curvature_of_models(old, at, own)
        convex = _is_convex(whole, at.u[1])
        hessian = np.where(convex[:, None, None], whole, hessian)
        found = solve_constrained(hessian, -gradient[..., None], at.u[1], -at.u[0][..., None])
        move, new = (part[..., 0] for part in found)
        price, error = 2 * np.abs(new).max(axis=1, initial=0.0), _error(at, alpha, own)
        merit = value + price * np.abs(at.u[0]).sum(axis=1)
        longest = np.where(convex, SETTLED_CONVEX, SETTLED) * (1 + np.abs(stack(old)).max(axis=1))
        small, length = np.abs(move).max(axis=1) <= longest, np.ones((len(active), 1))
        for _ in range(HALVINGS):
            theta[..., active], nu[active] = old + unstack(length * move, shape), own + length * (new - own)
            with np.errstate(all="ignore"):
                at = objective.of_models(theta[..., active])
                less = at.at(alpha)[0] + price * np.abs(at.u[0]).sum(axis=1) < merit
                less = less | small | (_error(at, alpha, nu[active]) < error)
            if less.all():
                break
            length[~less] /= 2
        average[active], bias[active] = at.average[0], at.bias[0]
        less &= np.isfinite(move).all(axis=1)
        converged[active[small & less]] = True
        left = np.flatnonzero(less & ~small)
        if not left.size:
            break
        active, objective, at = active[left], objective.some(left), at.some(left)
    return Minimum(theta, nu, converged, average, bias)


def _one_step(objective: Objective, theta: Array, alpha: float, at: Expansion) -> Minimum:
    """Minimise the objective of linear models, which is quadratic, in one Newton step."""
    _, gradient, hessian = at.at(alpha)
    # The solution for gradients of alternating signs estimates the condition number.
    signs = np.broadcast_to((-1.0) ** np.arange(gradient.shape[1]), gradient.shape)
    right, u = np.stack([-gradient, signs], axis=2), np.stack([-at.u[0], np.zeros_like(at.u[0])], axis=2)
    moves, multipliers = solve_constrained(hessian, right, at.u[1], u)
    size = np.trace(hessian, axis1=1, axis2=2) / gradient.shape[1]
    known = np.abs(moves[..., 1]).max(axis=1) * size < SINGULAR
    converged, theta = known & np.isfinite(moves[..., 0]).all(axis=1), theta + unstack(moves[..., 0], theta.shape)
    at = objective.of_models(theta)
    return Minimum(theta, multipliers[..., 0], converged, at.average[0], at.bias[0])


def null_space(u_slope: Array) -> Array:
    """Return orthonormal directions (R, k, k - C) in which net biases do not change to first order."""
    return np.linalg.svd(u_slope.transpose(0, 2, 1), full_matrices=True)[0][:, :, u_slope.shape[1] :]


def determined(at: Expansion, alpha: float) -> bool:
    """Return whether the Hessian, restricted to the directions that the constraint allows, is invertible."""
    hessian, along = at.at(alpha)[2][0], null_space(at.u[1])[0]
    return bool(np.isfinite(hessian).all() and np.linalg.cond(along.T @ hessian @ along) < UNDETERMINED)


def _is_convex(hessian: Array, u_slope: Array) -> Array:
    """Return whether each of R Hessians is positive definite in the directions that its constraint allows."""
    found = np.zeros(len(hessian), dtype=bool)
    finite = np.isfinite(hessian).all(axis=(1, 2)) & np.isfinite(u_slope).all(axis=(1, 2))
    if finite.any():
        along = null_space(u_slope[finite])
        values = np.linalg.eigvalsh(along.transpose(0, 2, 1) @ hessian[finite] @ along)
        found[finite] = values[:, 0] > CONVEX * values[:, -1]
    return found


def _error(at: Expansion, alpha: float, nu: Array) -> Array:
    """Return how far each point is from satisfying the first-order conditions, shape (R,)."""
    _, gradient, hessian = at.at(alpha)
    gradient = gradient + np.einsum("rc,rck->rk", nu, at.u[1])
    unit = np.sqrt(np.trace(hessian, axis1=1, axis2=2) / gradient.shape[1])
    return np.abs(gradient).max(axis=1) / unit + unit * np.abs(at.u[0]).max(axis=1, initial=0.0)


def minimize_from_start(objective: Objective, alpha: float, method: str) -> tuple[Array, Array, OptimizeResult]:
    """Minimise the sample's objective with scipy, starting at IPWRA, in directions that keep the net bias at zero."""
    start, linear, first = objective.models, objective.linear, objective.first
    origin, squares = stack(start)[0], 2 * first.loss[0][0]  # squared residuals
    squares = max(squares, ROUNDING * origin @ first.loss[2][0] @ origin)  # at least rounding error of the predictions
    unit = float(np.sqrt(squares)) or 1.0 if linear else 1.0
    shape, across, along = start.shape, first.u[1][0].T, null_space(first.u[1])[0]
    scale = max(float(first.at(alpha)[0][0]), unit**2 if linear else 0.0) or 1.0

    def at_free(x: Array) -> tuple[float, Array, Array, Array, Array]:
        z, moves = origin + unit * (along @ x), np.zeros(across.shape[1])
        with np.errstate(all="ignore"):  # the value is not finite after a step that is too long
            for _ in range(NEWTON_STEPS):
                theta = unstack((z + across @ moves)[None], shape)
                at = objective.of_models(theta)
                steep = at.u[1] @ across  # singular where all fitted means are at their bounds
                step = solve_each(steep, -at.u[0][..., None])[0, :, 0]
                moves = moves + step
                if not np.abs(step).max(initial=0.0) > 1e-13 * (1 + np.abs(moves).max(initial=0.0)):
                    break
            z = z + across @ moves
            value, gradient, hessian = (part[0] for part in at.at(alpha))
            nu = -solve_each(steep.transpose(0, 2, 1), (across.T @ gradient)[None, :, None])[0, :, 0]
            tangent = along - across @ solve_each(steep, at.u[1] @ along)[0]
            if not linear:
                hessian = hessian + objective.curvature_of_models(theta, at, nu[None])[0]
            free = tangent.T @ hessian @ tangent
        if not (np.isfinite(value) and np.isfinite(free).all()):
            return np.inf, np.zeros(len(x)), np.eye(len(x)), z, nu
        return value / scale, tangent.T @ gradient * (unit / scale), free * (unit**2 / scale), z, nu

    result = minimize(lambda x: at_free(x)[:3], np.zeros(along.shape[1]), method)
    _, _, _, z, nu = at_free(result.x)
    return unstack(z[None], shape), nu[None], result
