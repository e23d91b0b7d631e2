"""Minimisation by scipy.optimize, which only this module imports."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import scipy  # its submodules are imported when they are first used; most fits need no optimiser

from causalrisk.numerics.arrays import Array

OptimizeResult = Any  # scipy's class of this name, for annotations

SETTINGS = {"trust-exact": {"gtol": 1e-10, "max_trust_radius": 1e12, "maxiter": 5000}}  # of the default method
TOLERANCE = 1e-12  # of other methods
NEGLIGIBLE = 1e-13  # relative decrease of the objective, as predicted by Newton's method, at a minimum
SETTLED = 1e-3  # a search that ends at a gradient below this has converged up to rounding error
MARGIN = 1e-6  # ten times the feasibility tolerance of HiGHS, the solver of the linear programmes
WRONG = 2e-7  # twice that tolerance
CUTS = 5000  # constraints that are added to a linear programme at a time


def minimize(parts: Callable[[Array], tuple[float, Array, Array]], start: Array, method: str) -> OptimizeResult:
    """Minimise a function by scipy. `parts` returns value (near one), gradient (p,) and Hessian (p, p)."""

    @lru_cache(maxsize=1)  # scipy asks for the parts one by one
    def at(point: bytes) -> tuple[float, Array, Array]:
        return parts(np.frombuffer(point))

    # A step may go too far, and methods warn about derivatives that they do not use.
    with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
        result = scipy.optimize.minimize(
            lambda v: at(v.tobytes())[:2],
            start,
            jac=True,
            hess=lambda v: at(v.tobytes())[2],
            method=method,
            tol=TOLERANCE,
            options=SETTINGS.get(method, {}),
        )
    if not result.success:  # it may have been stopped by rounding, at the minimum
        _, gradient, hessian = parts(result.x)
        step = np.linalg.lstsq(hessian, gradient, rcond=None)[0]
        result.success = bool(0 <= gradient @ step <= NEGLIGIBLE)
        if result.success:  # the gradient distinguishes the points, the value does not
            result.x = result.x - step
    return result


def separating_direction(signed: Array) -> Array | None:
    """Find a direction b along which the linear predictor never contradicts the observed arms; None if there is none.

    `signed` (n, q) has the rows of the design in an orthonormal basis, negated in the reference arm. No entry of
    signed @ b is negative.

    Notes
    -----
    The linear programme of Konis (2007) maximises sum_i signed_i'b subject to signed_i'b >= 0 and |b_j| <= 1. The
    programme is solved again for the rows with signed_i'b = 0, until this holds for all rows that remain. The direction
    is the sum of the solutions. Each programme has only the constraints that earlier solutions violated.
    """
    total, rest, stated = np.zeros(signed.shape[1]), np.ones(len(signed), dtype=bool), np.empty((0, signed.shape[1]))
    while rest.any():
        solved = scipy.optimize.linprog(
            -signed[rest].sum(axis=0), A_ub=-stated, b_ub=np.zeros(len(stated)), bounds=(-1, 1), method="highs"
        )
        if solved.status != 0:
            break
        moves = signed @ solved.x
        broken = np.unique(signed[moves < -WRONG], axis=0)
        broken = broken[np.argsort(broken @ solved.x)[:CUTS]]
        more = np.unique(np.concatenate([stated, broken]), axis=0)
        told = rest & (moves > MARGIN)
        if len(more) > len(stated):
            stated = more
        elif told.any():
            total, rest = total + solved.x, rest & ~told
        else:
            break
    return total if total.any() else None


def minimize_value(value: Callable[[Array], tuple[float, Array]], start: Array) -> tuple[float, bool]:
    """Minimise a function from a start. Return the minimum, and whether the gradient there is negligible."""
    result = scipy.optimize.minimize(value, start, jac=True, method="BFGS", options={"gtol": 1e-6})
    return float(result.fun), bool(result.success or np.abs(result.jac).max() < SETTLED)


def root_between(function: Callable[[float], float], low: float, high: float) -> float:
    """Find the root of a function between two points by Brent's method."""
    return float(scipy.optimize.brentq(function, low, high, xtol=1e-10))


def non_negative_least_squares(columns: Array, right: Array) -> Array:
    """Return the vector x >= 0, shape (p,), that minimises the sum of squares of columns @ x - right."""
    return np.asarray(scipy.optimize.nnls(columns, right)[0])
