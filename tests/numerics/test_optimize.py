"""Minimisation of smooth objectives: saddles, places where the objective is no number, several starts."""

from __future__ import annotations

import numpy as np
import pytest

from causalrisk.numerics.optimize import minimize_objective

EQUATIONS = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


def rosenbrock(z, low=-np.inf):
    """Its minimum 0 is at (1, 1); no number where the first coordinate is below `low`."""
    x, y = z
    value = (1 - x) ** 2 + 100 * (y - x**2) ** 2
    gradient = np.array([-2 * (1 - x) - 400 * x * (y - x**2), 200 * (y - x**2)])
    hessian = np.array([[2 - 400 * (y - 3 * x**2), -400 * x], [-400 * x, 200.0]])
    return (value if x >= low else np.inf), gradient, hessian


@pytest.mark.parametrize("method", ["trust-exact", "BFGS"])
def test_steps_to_where_the_objective_is_no_number_are_shortened(method):
    seen = []

    def bounded(z):
        seen.append(z[0])
        return rosenbrock(z, low=-0.5)

    z, result = minimize_objective(bounded, EQUATIONS, method, np.array([[-0.49, 1.5]]))
    assert result.success and result.hessian_min > 0
    np.testing.assert_allclose(z, 1, rtol=1e-8)
    assert len(result.starts) == 2


def test_a_saddle_is_no_minimum():
    """x^2 - y^2 from its saddle: the gradient is zero, and the Hessian says that it is none."""

    def saddle(z):
        return z[0] ** 2 - z[1] ** 2, np.array([2 * z[0], -2 * z[1]]), np.diag([2.0, -2.0])

    _, result = minimize_objective(saddle, EQUATIONS, "BFGS", None)
    assert not result.success
    assert "not positive definite" in result.message and result.hessian_min == pytest.approx(-2)
