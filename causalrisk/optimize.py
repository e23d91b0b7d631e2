"""Minimisation by scipy.optimize: the joint objective, and the linear programme that finds separation."""

from __future__ import annotations

import numpy as np
from scipy.linalg import solve_triangular
from scipy.optimize import OptimizeResult, least_squares, linprog, minimize

from causalrisk.errors import CausalRiskError
from causalrisk.linalg import Array, triangular_factor
from causalrisk.risk import gradient, objective

SETTINGS: dict[str, dict[str, float]] = {
    "trust-exact": {"gtol": 1e-10, "max_trust_radius": 1e12},
    "trust-ncg": {"gtol": 1e-10, "max_trust_radius": 1e12},
    "Newton-CG": {"xtol": 1e-14},
    "BFGS": {"gtol": 1e-10, "maxiter": 2000},
    "L-BFGS-B": {"gtol": 1e-12, "ftol": 1e-18, "maxiter": 5000},
    "SLSQP": {"ftol": 1e-20, "maxiter": 2000},
}
LARGEST_CONDITION = 1e12
MARGIN = 1e-6  # ten times the feasibility tolerance of the linear programmes


def minimize_rows(rows: Array, method: str) -> tuple[Array, OptimizeResult]:
    """Minimise the sum of squares of the rows from z = 0.

    Parameters
    ----------
    rows : ndarray, shape (r, p + 1)
        Rows (c, h) of the objective 1/2 sum (c'z - h)^2, in a basis where z = 0 is the start.
    method : str
        "least_squares" or a method of `scipy.optimize.minimize`.

    Returns
    -------
    z : ndarray, shape (p,)
        The minimiser.
    result : OptimizeResult
        What scipy reports; `fun` and the gradient are of the objective divided by the sum of squares of the start.

    Raises
    ------
    CausalRiskError
        If the rows do not determine z.
    """
    p = rows.shape[1] - 1
    factor = triangular_factor(rows[:, :p])
    condition = float(np.linalg.cond(factor))
    if not condition < LARGEST_CONDITION:
        raise CausalRiskError(
            f"the joint objective does not determine the outcome models: condition number {condition:.1e}, expected "
            f"less than {LARGEST_CONDITION:.0e}.\nSimplify the outcome formula, or lower penalty=."
        )
    scale = float(np.linalg.norm(rows[:, -1])) or 1.0
    unit = np.column_stack([rows[:, :p], rows[:, -1] / scale])
    if method == "least_squares":
        z, result = _by_least_squares(unit)
    else:
        z, result = _by_minimize(unit, factor, method)
    return z * scale, result


def _by_least_squares(unit: Array) -> tuple[Array, OptimizeResult]:
    left, right = unit[:, :-1], unit[:, -1]
    result = least_squares(
        lambda z: left @ z - right,
        np.zeros(left.shape[1]),
        jac=lambda z: left,
        x_scale="jac",
        ftol=1e-15,
        xtol=1e-15,
        gtol=1e-15,
    )
    return result.x, result


def _by_minimize(unit: Array, factor: Array, method: str) -> tuple[Array, OptimizeResult]:
    """Minimise in the coordinates v = factor z, where the Hessian is the identity."""
    white = np.column_stack([solve_triangular(factor, unit[:, :-1].T, trans="T").T, unit[:, -1]])
    curvature = white[:, :-1].T @ white[:, :-1]
    takes_hessian = method in ("trust-exact", "trust-ncg", "Newton-CG")
    result = minimize(
        lambda v: objective(white, v),
        np.zeros(len(curvature)),
        jac=lambda v: gradient(white, v),
        hess=(lambda v: curvature) if takes_hessian else None,
        method=method,
        options=SETTINGS[method],
    )
    if not result.success and np.linalg.norm(result.jac) <= 1e-8:  # stopped by rounding, at the minimum
        result.success = True
    return solve_triangular(factor, result.x), result


def separating_direction(signed: Array) -> Array | None:
    """Find a direction along which the linear predictor never contradicts the observed arms.

    Parameters
    ----------
    signed : ndarray, shape (n, q)
        Rows of the propensity design in an orthonormal basis, negated in the reference arm.

    Returns
    -------
    ndarray, shape (q,), or None
        A direction b with signed @ b >= 0, positive for every row for which any such direction is, or None when the
        arms overlap.

    Notes
    -----
    The linear programme of Konis (2007): maximise sum_i signed_i'b subject to signed_i'b >= 0 and |b_j| <= 1; again for
    the rows its solution leaves at zero, until none can be moved. The sum of the solutions is the direction.
    """
    rows = np.unique(signed, axis=0)
    rest, direction = np.ones(len(rows), dtype=bool), np.zeros(rows.shape[1])
    while rest.any():
        cost = -rows[rest].sum(axis=0)
        found = linprog(cost, A_ub=-rows, b_ub=np.zeros(len(rows)), bounds=(-1, 1), method="highs")
        moved = rest & (rows @ found.x > MARGIN) if found.status == 0 else np.zeros(len(rows), dtype=bool)
        if not moved.any():
            break
        direction, rest = direction + found.x, rest & ~moved
    return direction if not rest.all() else None
