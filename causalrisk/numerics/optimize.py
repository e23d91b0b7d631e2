"""Minimisation: by scipy.optimize, which only this module imports, and in a trust region for a stack of objectives.

The trust region is for smooth objectives that large penalties make valleys of: sums of squares of equations plus a
curvature, the equations of the steep terms ("walls") first. A penalty like n^2 u^2 makes a narrow valley along u = 0.
Where u is curved, a Newton step leaves the floor of the valley and climbs its wall, so that only tiny steps are
taken. Here each step is corrected until the walls' equations have the values that the quadratic model predicts, and
only then judged. The metric of the trust region is the Gram matrix of the equations at the current point. Where the
Hessian is not positive definite this matrix is taken in its place: up on a wall the curvature n^2 u u'' says nothing
about the floor. A step that lowers the objective much less than predicted is compared with another: one without the
correction, or, where the Hessian is not positive definite, one that follows its curvature.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import scipy  # its submodules are imported when they are first used; most fits need no optimiser
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from causalrisk.errors import CausalRiskError
from causalrisk.numerics.linalg import Array, triangular_factor, triangular_systems

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
) -> tuple[Array, OptimizeResult]:
    """Minimise a smooth objective from z = 0, in coordinates where its Hessian there is about the identity.

    Parameters
    ----------
    value_gradient_hessian : callable
        z, shape (p,) -> value, gradient (p,) and Hessian (p, p); an infinite value where z is too far.
    equations : ndarray, shape (r, p + 1)
        Equations (c, h) of the objective at z = 0, whose c have the Hessian's positive part as their Gram matrix.

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

    result = _polished(whitened, _minimize(whitened, np.zeros(len(factor)), method))
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
    """What rows say of some directions."""

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


MAX_STEPS, CORRECTIONS, BISECTIONS = 200, 8, 60
STEP_TOLERANCE = 1e-8  # Newton steps shrink quadratically: the step after this one is below rounding error
ROUNDING = 1e-13  # difference of two values of an objective, relative to them, that is rounding error
CORRECTED = 1e-3  # a correction this much smaller than its step ends the corrections
REJECTED, POOR, GOOD = 1e-4, 0.25, 0.75  # actual decreases over predicted ones
CONVEX = 1e-9  # least eigenvalue of a Hessian that is positive definite, relative to the equations' Gram matrix


@dataclass(frozen=True)
class Expansions:
    """m objectives near a point.

    Parameters
    ----------
    equations : ndarray, shape (m, r, p + 1)
        Equations (c, h) with the residual c'z - h of a step z; the walls' equations first.
    curvature : ndarray, shape (m, p, p)
        Hessian less the Gram matrix of the equations.
    value : ndarray, shape (m,)
        The objectives; not finite where the point is too far.
    """

    equations: Array
    curvature: Array
    value: Array

    def where(self, wanted: NDArray[np.bool_], other: Expansions) -> Expansions:
        """Return these expansions at the objectives wanted, shape (m,), and the other ones elsewhere."""
        mask = wanted[:, None, None]
        return Expansions(
            np.where(mask, self.equations, other.equations),
            np.where(mask, self.curvature, other.curvature),
            np.where(wanted, self.value, other.value),
        )

    def spread(self, places: NDArray[np.bool_], others: Expansions) -> Expansions:
        """Return these expansions with others put in some places, as many as there are."""
        equations, curvature, value = self.equations.copy(), self.curvature.copy(), self.value.copy()
        equations[places], curvature[places], value[places] = others.equations, others.curvature, others.value
        return Expansions(equations, curvature, value)

    def subset(self, wanted: NDArray[np.bool_]) -> Expansions:
        """Return the expansions of some objectives."""
        return Expansions(self.equations[wanted], self.curvature[wanted], self.value[wanted])


class Objectives(Protocol):
    """m smooth objectives of p coefficients."""

    def expand(self, theta: Array) -> Expansions:
        """Expand about coefficients, shape (p, m)."""

    def walls(self, theta: Array) -> Array:
        """Residuals -h of the walls' equations at coefficients, shape (m, w)."""

    def subset(self, wanted: NDArray[np.bool_]) -> Objectives:
        """Return some of the objectives."""


@dataclass(frozen=True)
class Minima:
    """Minima of m objectives.

    Parameters
    ----------
    theta : ndarray, shape (p, m)
        Coefficients.
    value : ndarray, shape (m,)
        The objectives.
    lowest : ndarray, shape (m,)
        Least eigenvalue of the Hessian at the last step, relative to the Gram matrix of the equations.
    settled, singular : ndarray of bool, shape (m,)
        Whether a minimum was found; whether the equations do not determine a step.
    steps : int
        Steps taken.
    """

    theta: Array
    value: Array
    lowest: Array
    settled: NDArray[np.bool_]
    singular: NDArray[np.bool_]
    steps: int


@dataclass(frozen=True)
class Steps:
    """Steps of m objectives.

    Parameters
    ----------
    white : ndarray, shape (m, p)
        Steps, in coordinates where the Gram matrices of the equations are the identity.
    decrease : ndarray, shape (m,)
        Predicted decrease of each objective, by its quadratic model.
    inside : ndarray of bool, shape (m,)
        Whether the steps are inside their radii.
    """

    white: Array
    decrease: Array
    inside: NDArray[np.bool_]

    def where(self, wanted: NDArray[np.bool_], other: Steps) -> Steps:
        """Return these steps at the objectives wanted, shape (m,), and the other ones elsewhere."""
        white = np.where(wanted[:, None], self.white, other.white)
        decrease = np.where(wanted, self.decrease, other.decrease)
        return Steps(white, decrease, np.where(wanted, self.inside, other.inside))

    def gain(self, at: Expansions, after: Expansions) -> Array:
        """Actual decrease of the objectives relative to the predicted one, shape (m,)."""
        slack = ROUNDING * np.abs(at.value)
        reached = np.where(np.isfinite(after.value), after.value, np.inf)
        return np.asarray((at.value - reached + slack) / (self.decrease + slack))


class QuadraticModels:
    """Quadratic models of m objectives, in coordinates where the Gram matrices of the equations are the identity."""

    def __init__(self, at: Expansions) -> None:
        self.left, self.right, self.singular = triangular_systems(at.equations)
        self.transposed = self.left.transpose(0, 2, 1)
        p = self.left.shape[1]
        half = np.asarray(np.linalg.solve(self.transposed, at.curvature))
        inner = np.eye(p) + np.linalg.solve(self.transposed, half.transpose(0, 2, 1))
        inner = np.where(np.isfinite(inner).all(axis=(1, 2), keepdims=True), inner, -np.eye(p))
        self.values, self.vectors = np.linalg.eigh((inner + inner.transpose(0, 2, 1)) / 2)
        self.gradient = -np.einsum("mij,mi->mj", self.vectors, self.right)

    @property
    def convex(self) -> NDArray[np.bool_]:
        """Mask of the positive definite Hessians, shape (m,)."""
        return np.asarray(self.values[:, 0] > CONVEX)

    def step(self, radius: Array, *, curved: bool = False) -> Steps:
        """Minimise the models within radii, shape (m,); nonconvex ones with curvature, or by their equations alone."""
        values = self.values if curved else np.where(self.convex[:, None], self.values, 1.0)
        convex = values[:, 0] > CONVEX
        along = -self.gradient / np.where(convex[:, None], values, 1.0)
        inside = convex & (np.linalg.norm(along, axis=1) <= radius)
        if not inside.all():
            along = np.where(inside[:, None], along, self._at_radius(values, radius))
        decrease = -(self.gradient * along + values * along**2 / 2).sum(axis=1)
        white = np.einsum("mij,mj->mi", self.vectors, along)
        return Steps(np.where(self.singular[:, None], 0.0, white), decrease, inside)

    def _at_radius(self, values: Array, radius: Array) -> Array:
        """Minima on the sphere, by bisection of the multiple of the identity that is added; along the eigenvectors."""
        # Just above the multiple at which the least eigenvalue becomes zero and the step infinite; at the upper end
        # every eigenvalue is large enough for a step within the radius.
        least = np.maximum(-values[:, 0], 0.0) * (1 + 1e-12)
        low, high = least, np.maximum(np.linalg.norm(self.gradient, axis=1) / radius - values[:, 0], least)
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            long = np.linalg.norm(self.gradient / (values + middle[:, None]), axis=1) > radius
            low, high = np.where(long, middle, low), np.where(long, high, middle)
        return np.asarray(-self.gradient / (values + high[:, None]))

    def unwhiten(self, step: Array) -> Array:
        """Turn steps, shape (m, p), into steps of the coefficients, shape (p, m)."""
        return np.asarray(np.linalg.solve(self.left, step[:, :, None])[:, :, 0].T)

    def followed(self, objectives: Objectives, at: Expansions, theta: Array, step: Array) -> Array:
        """Coefficients after steps, shape (m, p), corrected until the walls' equations have their predicted values.

        A correction is the Gauss-Newton step against the difference of the walls' residuals from the predicted ones.
        """
        ahead = theta + self.unwhiten(step)
        reached = objectives.walls(ahead)
        size = reached.shape[1]
        walls = np.linalg.solve(self.transposed, at.equations[:, :size, :-1].transpose(0, 2, 1))
        foretold = np.einsum("mpw,mp->mw", walls, step) - at.equations[:, :size, -1]
        length, last = np.linalg.norm(step, axis=1), np.full(len(step), np.inf)
        for _ in range(CORRECTIONS):
            back = np.einsum("mpw,mw->mp", walls, reached - foretold)
            far = np.linalg.norm(back, axis=1)
            going = (far < last) & (far > CORRECTED * np.minimum(length, 1.0))
            if not going.any():
                break
            ahead = ahead - self.unwhiten(np.where(going[:, None], back, 0.0))
            last, reached = np.where(going, far, 0.0), objectives.walls(ahead)
        return ahead


def minimize_stack(objectives: Objectives, theta: Array) -> Minima:
    """Minimise m objectives at once; those that settle are set aside.

    Parameters
    ----------
    theta : ndarray, shape (p, m)
        Starting point.
    """
    with np.errstate(all="ignore"):  # where a step goes too far the value is not finite, and it is not taken
        return _minimize_each(objectives, theta)


def _minimize_each(objectives: Objectives, theta: Array) -> Minima:
    m = theta.shape[1]
    found, values, lowest = theta.copy(), np.full(m, np.nan), np.full(m, np.nan)
    minimum, degenerate = np.zeros((2, m), dtype=bool)
    active, steps = np.arange(m), 0
    at = objectives.expand(theta)
    # In whitened coordinates steps have the units of the residuals, whose length is the root of the objective.
    radius = np.sqrt(np.maximum(at.value, np.finfo(float).tiny))
    while active.size and steps < MAX_STEPS:
        steps += 1
        models = QuadraticModels(at)
        step = models.step(radius)
        small = np.abs(models.unwhiten(step.white)).max(axis=0) <= STEP_TOLERANCE
        settled = step.inside & models.convex & (small | (step.decrease <= NEGLIGIBLE * np.abs(at.value)))
        ahead = models.followed(objectives, at, theta, step.white)
        after = objectives.expand(ahead)
        poor = ~(step.gain(at, after) > GOOD) & ~settled
        if poor.any():
            other = models.step(radius, curved=True)
            plain, along = theta + models.unwhiten(other.white), models.followed(objectives, at, theta, other.white)
            points = np.where(models.convex, plain, along)
            second = after.spread(poor, objectives.subset(poor).expand(points[:, poor]))
            better = poor & (second.value < after.value)
            step, after = other.where(better, step), second.where(better, after)
            ahead = np.where(better, points, ahead)
        gain = step.gain(at, after)
        radius = np.where(gain < POOR, POOR * np.linalg.norm(step.white, axis=1), radius)
        radius = np.where((gain > GOOD) & ~step.inside, 2 * radius, radius)
        taken = gain > REJECTED
        theta, at = np.where(taken, ahead, theta), after.where(taken, at)
        found[:, active], values[active], lowest[active] = theta, at.value, models.values[:, 0]
        minimum[active], degenerate[active] = settled, models.singular
        go_on = ~(settled | models.singular)
        if not go_on.all():
            active, theta, radius, at = active[go_on], theta[:, go_on], radius[go_on], at.subset(go_on)
            objectives = objectives.subset(go_on)
    return Minima(
        theta=found, value=values, lowest=lowest, settled=minimum & ~degenerate, singular=degenerate, steps=steps
    )
