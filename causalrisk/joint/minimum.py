"""The minimum of JRE's objective under no net bias at the fitted score: by scipy from IPWRA, or by Newton steps.

Coefficients are beta_a = L theta_a of the columns of the rows, with L of shape (P, p): the identity, or with the linear
predictor of the score as a further column its coefficients. Of linear models the objective is quadratic and the
constraint linear, so one Newton step from anywhere is the minimum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causalrisk.errors import CausalRiskError
from causalrisk.joint.objective import Expansion
from causalrisk.numerics.linalg import Array
from causalrisk.numerics.optimize import OptimizeResult, minimize

NEWTON_STEPS, SETTLED, HALVINGS, CONVEX = 100, 1e-9, 12, 1e-10
LARGEST_CONDITION, SINGULAR = 1e14, 1e12

# Evaluates R objectives at theta, shape (K, p, R): the expansion, and the second derivatives of the means in the
# Hessian (R, K p, K p) given multipliers (R, C), or None of linear models.
Curvature = Callable[[Array], Array] | None
Evaluate = Callable[[Array], tuple[Expansion, Curvature]]


@dataclass(frozen=True)
class Minimum:
    """Minima of R objectives.

    Parameters
    ----------
    theta : ndarray, shape (K, p, R)
        Where they are.
    multipliers : ndarray, shape (R, C)
        Of the constraint.
    converged : ndarray of bool, shape (R,)
        Whether the search settled.
    result : OptimizeResult, optional
        Report of scipy.
    """

    theta: Array
    multipliers: Array
    converged: NDArray[np.bool_]
    result: OptimizeResult | None = None


def stack(theta: Array) -> Array:
    """Coefficients (K, p, R) arm by arm, shape (R, K p)."""
    return theta.reshape(-1, theta.shape[2]).T


def unstack(z: Array, shape: tuple[int, ...]) -> Array:
    """Return coefficients stacked arm by arm, (R, K p), in shape (K, p, R)."""
    return z.T.reshape(*shape[:2], -1)


def solve_constrained(hessian: Array, right: Array, u_slope: Array, u: Array) -> tuple[Array, Array]:
    """Solve H x + A' nu = g, A x = u for x (R, k, ...) and nu (R, C, ...); g of shape (R, k, ...), u (R, C, ...)."""
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
    """Solve a stack of equations; NaN where one is singular or not finite."""
    try:
        return np.asarray(np.linalg.solve(matrices, right))
    except np.linalg.LinAlgError:
        found = np.full(right.shape, np.nan)
        for j, (matrix, given) in enumerate(zip(matrices, right, strict=True)):
            try:
                found[j] = np.linalg.solve(matrix, given)
            except np.linalg.LinAlgError:
                continue
        return found


def newton(evaluate: Evaluate, theta: Array, alpha: float, multipliers: Array | None = None) -> Minimum:
    """Minimise by Newton steps for the conditions of a constrained minimum: one of linear models, else from nearby.

    Where the Hessian is not positive definite along the constraint, the second derivatives of the means are left out. A
    step is halved until the objective, with a penalty on net bias, or the error of the conditions is less.
    """
    at, curved = evaluate(theta)
    nu = np.zeros(at.u[0].shape) if multipliers is None else multipliers
    settled = np.zeros(theta.shape[2], dtype=bool)
    for _ in range(NEWTON_STEPS):
        value, gradient, hessian = at.at(alpha)
        if curved is not None:
            whole = hessian + curved(nu)
            convex = _is_convex(whole, at.u[1])
            hessian = np.where(convex[:, None, None], whole, hessian)
        signs = np.broadcast_to((-1.0) ** np.arange(gradient.shape[1]), gradient.shape)
        right, u = np.stack([-gradient, signs], axis=2), np.stack([-at.u[0], np.zeros_like(at.u[0])], axis=2)
        moves, multiplied = solve_constrained(hessian, right, at.u[1], u)
        move, new = moves[..., 0], multiplied[..., 0]
        if curved is None:  # what the signs move tells of the condition number
            size = np.trace(hessian, axis1=1, axis2=2) / gradient.shape[1]
            known = np.abs(moves[..., 1]).max(axis=1) * size < SINGULAR
            return Minimum(theta + unstack(move, theta.shape), new, np.asarray(known & np.isfinite(move).all(axis=1)))
        move, length = np.where(settled[:, None], 0.0, move), np.ones(len(move))
        price, error = 2 * np.abs(new).max(axis=1, initial=0.0), _error(at, alpha, nu)
        merit = value + price * np.abs(at.u[0]).sum(axis=1)
        small = np.abs(move).max(axis=1) <= SETTLED * (1 + np.abs(stack(theta)).max(axis=1))
        for _ in range(HALVINGS):
            tried = theta + unstack(length[:, None] * move, theta.shape)
            multiplied = np.where(settled[:, None], nu, nu + length[:, None] * (new - nu))
            with np.errstate(all="ignore"):
                at, curved = evaluate(tried)
                less = at.at(alpha)[0] + price * np.abs(at.u[0]).sum(axis=1) < merit
                less = less | (_error(at, alpha, multiplied) < error)
            worse = ~(less | small | settled)
            if not worse.any():
                break
            length = np.where(worse, length / 2, length)
        theta, nu, settled = tried, multiplied, settled | small
        if (settled | ~np.isfinite(move).all(axis=1)).all():
            break
    return Minimum(theta, nu, settled)


def _is_convex(hessian: Array, u_slope: Array) -> Array:
    """Whether each Hessian is positive definite along its constraint, shape (R,)."""
    found = np.zeros(len(hessian), dtype=bool)
    finite = np.isfinite(hessian).all(axis=(1, 2)) & np.isfinite(u_slope).all(axis=(1, 2))
    if finite.any():
        along = np.linalg.svd(u_slope[finite].transpose(0, 2, 1), full_matrices=True)[0][:, :, u_slope.shape[1] :]
        values = np.linalg.eigvalsh(along.transpose(0, 2, 1) @ hessian[finite] @ along)
        found[finite] = values[:, 0] > CONVEX * values[:, -1]
    return found


def _error(at: Expansion, alpha: float, nu: Array) -> Array:
    """How far the conditions of a minimum are from zero, shape (R,)."""
    _, gradient, hessian = at.at(alpha)
    gradient = gradient + np.einsum("rc,rck->rk", nu, at.u[1])
    unit = np.sqrt(np.trace(hessian, axis1=1, axis2=2) / gradient.shape[1])
    return np.abs(gradient).max(axis=1) / unit + unit * np.abs(at.u[0]).max(axis=1, initial=0.0)


def minimize_from(evaluate: Evaluate, start: Array, alpha: float, unit: float, method: str, linear: bool) -> Minimum:
    """Minimise the objective of the sample by scipy.

    The coefficients move in the directions in which the net bias at `start` stays, and across so that it is zero: of
    linear models this is the null space of the constraint, of others the intercepts are solved from it.

    Parameters
    ----------
    evaluate : callable
        The objective.
    start : ndarray, shape (K, p, 1)
        The fit of IPWRA.
    unit : float
        Unit of the coefficients: the residual spread of linear models, else 1.
    method : str
        A method of `scipy.optimize.minimize`.
    """
    shape, first = start.shape, evaluate(start)
    across = first[0].u[1][0].T
    along = np.linalg.svd(across, full_matrices=True)[0][:, across.shape[1] :]
    scale = max(float(first[0].at(alpha)[0][0]), unit**2 if linear else 0.0) or 1.0
    origin, known = stack(start)[0], dict[bytes, tuple[float, Array, Array, Array, Array]]()

    def at_free(x: Array) -> tuple[float, Array, Array, Array, Array]:
        key = x.tobytes()
        if key in known:
            return known[key]
        z, moves = origin + unit * (along @ x), np.zeros(across.shape[1])
        with np.errstate(all="ignore"):  # where a step goes too far the value is not finite
            for _ in range(NEWTON_STEPS):
                at, curved = evaluate(unstack((z + across @ moves)[None], shape))
                if not at.u[0].size:
                    break
                step = solve_each((at.u[1] @ across), -at.u[0][..., None])[0, :, 0]
                moves = moves + step
                if not np.abs(step).max() > 1e-13 * (1 + np.abs(moves).max()):
                    break
            z = z + across @ moves
            value, gradient, hessian = (part[0] for part in at.at(alpha))
            steep = at.u[1][0] @ across
            nu = -np.linalg.solve(steep.T, across.T @ gradient) if at.u[0].size else np.zeros(0)
            tangent = along - across @ np.linalg.solve(steep, at.u[1][0] @ along) if at.u[0].size else along
            if curved is not None:
                hessian = hessian + curved(nu[None])[0]
            free = tangent.T @ hessian @ tangent
        if not (np.isfinite(value) and np.isfinite(free).all()):
            return np.inf, np.zeros(len(x)), np.eye(len(x)), z, nu
        known.clear()
        known[key] = value / scale, tangent.T @ gradient * (unit / scale), free * (unit**2 / scale), z, nu
        return known[key]

    none = np.zeros(along.shape[1])
    condition = np.linalg.cond(at_free(none)[2]) if linear else 1.0
    if not condition < LARGEST_CONDITION:
        raise CausalRiskError(
            f"the joint objective does not determine the outcome models: condition number {condition:.1e}, expected "
            f"less than {LARGEST_CONDITION:.0e}.\n"
            "Use a larger `shrinkage=` or a smaller `penalty=`, or simplify the outcome formula."
        )
    result = minimize(lambda x: at_free(x)[:3], none, method)
    _, _, _, z, nu = at_free(result.x)
    return Minimum(unstack(z[None], shape), nu[None], np.array([bool(result.success)]), result)
