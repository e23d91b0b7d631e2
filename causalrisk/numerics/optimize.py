"""Minimisation by scipy.optimize, which only this module imports: squares, smooth objectives, linear programmes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy  # its submodules are imported when they are first used; most fits need no optimiser
from scipy.linalg import solve_triangular

from causalrisk.errors import CausalRiskError
from causalrisk.numerics.linalg import Array, triangular_factor

OptimizeResult = Any  # scipy's class of this name, for annotations

SETTINGS: dict[str, dict[str, float]] = {
    "trust-exact": {"gtol": 1e-10, "max_trust_radius": 1e12, "maxiter": 5000},
    "trust-ncg": {"gtol": 1e-10, "max_trust_radius": 1e12},
    "Newton-CG": {"xtol": 1e-14},
    "BFGS": {"gtol": 1e-10, "maxiter": 2000},
    "L-BFGS-B": {"gtol": 1e-12, "ftol": 1e-18, "maxiter": 5000},
    "SLSQP": {"ftol": 1e-20, "maxiter": 2000},
}
WITH_HESSIAN = ("trust-exact", "trust-ncg", "Newton-CG")
LARGEST_CONDITION = 1e12
POLISHING, NEGLIGIBLE = 5, 1e-14  # Newton steps after scipy's; relative decrease of the objective that is rounding
SETTLED = 1e-3  # gradient of a statistic below which rounding error ends the search
MARGIN = 1e-6  # ten times the feasibility tolerance of HiGHS, the solver of the linear programmes
WRONG = 2e-7  # twice that tolerance
CUTS = 5000  # constraints that are added to a linear programme at a time


def minimize_squares(equations: Array, method: str) -> tuple[Array, OptimizeResult]:
    """Minimise a sum of squares from z = 0.

    Parameters
    ----------
    equations : ndarray, shape (r, p + 1)
        Equations (c, h) of the objective 1/2 sum (c'z - h)^2, in a basis where z = 0 is the start.
    method : str
        "least_squares" or a method of `scipy.optimize.minimize`.

    Returns
    -------
    z : ndarray, shape (p,)
        The minimiser.
    result : OptimizeResult
        Report of scipy; `fun` and the gradient are of the objective divided by the sum of squares of the start.

    Raises
    ------
    CausalRiskError
        If the equations do not determine z.
    """
    triangle = triangular_factor(equations)  # the same squares, of p + 1 equations
    factor, right = _determining(triangle[:-1, :-1]), triangle[:, -1]
    # scipy's tolerances are absolute: with orthonormal columns and a right side of length one they are relative.
    scale = float(np.linalg.norm(right)) or 1.0
    white = np.column_stack([np.eye(len(right), len(factor)), right / scale])
    left, right, start = white[:, :-1], white[:, -1], np.zeros(len(factor))
    if method == "least_squares":
        result = scipy.optimize.least_squares(
            lambda v: left @ v - right, start, lambda v: left, method="lm", ftol=1e-15, xtol=1e-15, gtol=1e-15
        )
    else:
        curvature = np.eye(len(factor))

        def parts(v: Array) -> tuple[float, Array, Array]:
            residual = left @ v - right
            return 0.5 * float(residual @ residual), left.T @ residual, curvature

        result = _minimize(parts, start, method)
    return solve_triangular(factor, result.x) * scale, result


def _determining(factor: Array) -> Array:
    """Return a triangular factor of left sides; a CausalRiskError where these do not determine a solution."""
    condition = float(np.linalg.cond(factor))
    if not condition < LARGEST_CONDITION:
        raise CausalRiskError(
            f"the joint objective does not determine the outcome models: condition number {condition:.1e}, expected "
            f"less than {LARGEST_CONDITION:.0e}.\n"
            "Simplify the outcome formula, or give a larger anchor= or a smaller penalty=."
        )
    return factor


def minimize_objective(
    value_gradient_hessian: Callable[[Array], tuple[float, Array, Array]],
    equations: Array,
    method: str,
    starts: Array | None,
) -> tuple[Array, OptimizeResult]:
    """Minimise a smooth objective from z = 0, in coordinates where its Hessian there is about the identity.

    Parameters
    ----------
    value_gradient_hessian : callable
        z, shape (p,) -> value, gradient (p,) and Hessian (p, p); an infinite value where z is too far.
    equations : ndarray, shape (r, p + 1)
        Equations (c, h) of the objective at z = 0, whose c have the Hessian's positive part as their Gram matrix.
    method : str
        A method of `scipy.optimize.minimize`.
    starts : ndarray, shape (s, p), or None
        Further starting points in these coordinates; the best minimum is kept.

    Returns
    -------
    z : ndarray, shape (p,)
        The minimiser.
    result : OptimizeResult
        Report of scipy on the objective without units, and `hessian_min`, the smallest eigenvalue of the Hessian
        relative to that at the start; `success` is False unless it is positive.
    """
    factor = _determining(triangular_factor(equations[:, :-1]))

    def whitened(v: Array) -> tuple[float, Array, Array]:
        value, gradient, hessian = value_gradient_hessian(solve_triangular(factor, v))
        if not np.isfinite(value):
            return np.inf, np.zeros(len(v)), np.eye(len(v))  # too far: the step is shortened
        half = solve_triangular(factor, hessian, trans="T")
        white = solve_triangular(factor, half.T, trans="T")
        return value, solve_triangular(factor, gradient, trans="T"), (white + white.T) / 2

    points = np.zeros((1, len(factor))) if starts is None else np.vstack([np.zeros(len(factor)), starts])
    results = [_minimize(whitened, point, method) for point in points]
    result = min((_polished(whitened, r) for r in results), key=lambda r: (not r.success, r.fun))
    result.starts = [float(r.fun) for r in results]
    return solve_triangular(factor, result.x), result


def _polished(parts: Callable[[Array], tuple[float, Array, Array]], result: OptimizeResult) -> OptimizeResult:
    """Go on with plain Newton steps to rounding error, and judge by the Hessian and the decrease they foretell."""
    value, gradient, hessian = parts(result.x)
    for _ in range(POLISHING):
        values, vectors = np.linalg.eigh(hessian)
        result.hessian_min = float(values[0])
        if not values[0] > 0:
            result.success, result.message = False, "the Hessian at the solution is not positive definite"
            return result
        step = -vectors @ ((vectors.T @ gradient) / values)
        decrease = -float(gradient @ step)
        after = parts(result.x + step)
        # along a large penalty the gradient may grow in a step that lowers the objective
        if not (np.linalg.norm(after[1]) < np.linalg.norm(gradient) or after[0] < value):
            break
        result.x = result.x + step
        value, gradient, hessian = after
    result.fun, result.jac, result.hess = value, gradient, hessian
    result.success = decrease <= NEGLIGIBLE * max(value, 1e-300)
    return result


def _minimize(parts: Callable[[Array], tuple[float, Array, Array]], start: Array, method: str) -> OptimizeResult:
    """Minimise a function given with its gradient and Hessian, which are worked out together once a point."""
    last: dict[bytes, tuple[float, Array, Array]] = {}

    def at(v: Array) -> tuple[float, Array, Array]:
        key = v.tobytes()
        if key not in last:
            last.clear()
            last[key] = parts(v)
        return last[key]

    result = scipy.optimize.minimize(
        lambda v: at(v)[0],
        start,
        jac=lambda v: at(v)[1],
        hess=(lambda v: at(v)[2]) if method in WITH_HESSIAN else None,
        method=method,
        options=SETTINGS[method],
    )
    if not result.success and np.linalg.norm(result.jac) <= 1e-8:  # stopped by rounding, at the minimum
        result.success = True
    return result


@dataclass(frozen=True)
class _Tried:
    """What rows say of some directions.

    Parameters
    ----------
    rest : ndarray, shape (q,)
        Sum of the rows that none of them moves.
    n_rest : int
        How many these are.
    against : ndarray, shape (m, q)
        Rows that the last direction moves the wrong way, those farthest of them.
    """

    rest: Array
    n_rest: int
    against: Array

    @classmethod
    def of(cls, directions: Array, signed: Array) -> _Tried:
        """Try directions of shape (q, k) on rows (n, q)."""
        moves = signed @ directions
        rest = signed[(moves <= MARGIN).all(axis=1)]
        against = np.unique(signed[moves[:, -1] < -WRONG], axis=0)
        return cls(rest.sum(axis=0), len(rest), against[np.argsort(against @ directions[:, -1])[:CUTS]])

    def beside(self, other: _Tried, direction: Array) -> _Tried:
        """Merge with what other rows say."""
        against = np.unique(np.concatenate([self.against, other.against]), axis=0)
        farthest = np.argsort(against @ direction, kind="stable")[:CUTS]
        return _Tried(self.rest + other.rest, self.n_rest + other.n_rest, against[farthest])


def separating_direction(over: Callable[[Callable[[Array], _Tried]], Iterable[_Tried]], size: int) -> Array | None:
    """Find a direction along which the linear predictor never contradicts the observed arms.

    Parameters
    ----------
    over : callable
        Begins a pass over the rows: what a function makes of those of each block, of shape (n, q). They are rows of the
        design in an orthonormal basis, negated in the reference arm.
    size : int
        q.

    Returns
    -------
    ndarray, shape (q,), or None
        A direction b with signed @ b >= 0, positive for every row for which any such direction is, or None when the
        arms overlap.

    Notes
    -----
    The linear programme of Konis (2007): maximise sum_i signed_i'b subject to signed_i'b >= 0 and |b_j| <= 1; again for
    the rows its solution leaves at zero, until none can be moved. The sum of the solutions is the direction. Of the
    constraints those are stated that solutions broke so far, which are few beside many rows: a pass a solution.
    """

    def tried(*directions: Array) -> _Tried:
        parts = over(functools.partial(_Tried.of, np.column_stack(directions)))
        return functools.reduce(lambda one, other: one.beside(other, directions[-1]), parts)

    found, rows = [np.zeros(size)], np.empty((0, size))
    last = tried(*found)
    while last.n_rest:
        solved = scipy.optimize.linprog(
            -last.rest, A_ub=-rows, b_ub=np.zeros(len(rows)), bounds=(-1, 1), method="highs"
        )
        if solved.status != 0:
            break
        now = tried(*found, solved.x)
        stated = np.unique(np.concatenate([rows, now.against]), axis=0)
        if len(stated) > len(rows):
            rows = stated
        elif now.n_rest < last.n_rest:
            found, last = [*found, solved.x], now
        else:
            break
    return np.sum(found, axis=0) if len(found) > 1 else None


def minimize_value(value: Callable[[Array], tuple[float, Array]], start: Array) -> tuple[float, bool]:
    """Return the minimum of a smooth function near a start, and whether the search settled.

    Parameters
    ----------
    value : callable
        Coefficients -> value and gradient.
    start : ndarray, shape (p,)
        Starting point.

    Returns
    -------
    minimum : float
        The smallest value found.
    settled : bool
        Whether the gradient there is negligible.
    """
    result = scipy.optimize.minimize(value, start, jac=True, method="BFGS", options={"gtol": 1e-6})
    return float(result.fun), bool(result.success or np.abs(result.jac).max() < SETTLED)


def non_negative_least_squares(columns: Array, right: Array) -> Array:
    """Return the x >= 0 that minimises the sum of squares of columns x - right, shape (p,)."""
    return np.asarray(scipy.optimize.nnls(columns, right)[0])
