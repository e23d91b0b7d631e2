"""Newton's method in a trust region, for a stack of smooth objectives that large penalties make valleys of.

Flows in: objectives as sums of squares of equations plus a curvature, the equations of the steep terms ("walls")
first. Flows out: their minima.

A penalty like n^2 u^2 makes a narrow valley along u = 0. Where u is curved, a Newton step leaves the floor of the
valley and climbs its wall, so that only tiny steps are taken. Here each step is corrected until the walls' equations
have the values that the quadratic model predicts, and only then judged. The metric of the trust region is the Gram
matrix of the equations at the current point. Where the Hessian is not positive definite this matrix is taken in its
place: up on a wall the curvature n^2 u u'' says nothing about the floor. A step that lowers the objective much less
than predicted is compared with another: one without the correction, or, where the Hessian is not positive definite,
one that follows its curvature.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from causalrisk.numerics.linalg import Array, triangular_systems

MAX_STEPS, CORRECTIONS, BISECTIONS = 200, 8, 60
STEP_TOLERANCE = 1e-8  # Newton steps shrink quadratically: the step after this one is below rounding error
NEGLIGIBLE = 1e-14  # predicted decrease of an objective, relative to its value, that is rounding error
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
    """Quadratic models of m objectives, in coordinates where the Gram matrices of the equations are the identity.

    Parameters
    ----------
    at : Expansions
        The objectives near a point.
    """

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
    objectives : Objectives
        The objectives.
    theta : ndarray, shape (p, m)
        Starting point.

    Returns
    -------
    Minima
        The minima, and whether they are.
    """
    with np.errstate(all="ignore"):  # where a step goes too far the value is not finite, and it is not taken
        return _minimize(objectives, theta)


def _minimize(objectives: Objectives, theta: Array) -> Minima:
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
