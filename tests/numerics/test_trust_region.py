"""Newton's method in a trust region: its steps, and valleys whose minima are known."""

from __future__ import annotations

import numpy as np
import pytest

from causalrisk.numerics.optimize import Expansions, QuadraticModels, minimize_stack


class Rosenbrock:
    """Half of (1 - x)^2 + steep (y - x^2)^2, least at (1, 1); its valley is curved."""

    def __init__(self, steep):
        self.steep, self.points = np.asarray(steep, dtype=float), 0

    def walls(self, theta):
        return (np.sqrt(self.steep) * (theta[1] - theta[0] ** 2))[:, None]

    def expand(self, theta):
        x, root = theta[0], np.sqrt(self.steep)
        wall = self.walls(theta)[:, 0]
        equations = np.zeros((len(x), 2, 3))
        equations[:, 0] = np.stack([-2 * x * root, root, -wall], axis=1)
        equations[:, 1, 0], equations[:, 1, 2] = 1.0, 1 - x
        curvature = np.zeros((len(x), 2, 2))
        curvature[:, 0, 0] = -2 * root * wall
        self.points += len(x)
        return Expansions(equations, curvature, ((1 - x) ** 2 + wall**2) / 2)

    def subset(self, wanted):
        some = Rosenbrock(self.steep[wanted])
        some.expand = lambda theta: self._counted(some, theta)
        return some

    def _counted(self, some, theta):
        self.points += theta.shape[1]
        return Rosenbrock.expand(some, theta)


def test_curved_valleys_are_followed():
    """All at once, whatever their steepness, in far fewer points than without the corrections."""
    steep = np.array([1.0, 1e4, 1e8, 1e12])
    valley, start = Rosenbrock(steep), np.array([[-1.2] * 4, [1.0] * 4])
    found = minimize_stack(valley, start)
    assert found.settled.all() and not found.singular.any()
    np.testing.assert_allclose(found.theta, 1.0, rtol=1e-9)
    assert (found.value < 1e-20).all() and (found.lowest > 0).all()
    assert found.steps < 20


@pytest.mark.parametrize("bend", [0.1, 0.0, -50.0])
@pytest.mark.parametrize("radius", [1e-3, 0.5, 1e3])
def test_steps_are_least_within_the_radius(bend, radius):
    """The conditions of a minimum: a multiple of the identity makes the Hessian positive, and the step Newton's."""
    rows = np.random.default_rng(0).normal(size=(1, 6, 4))
    models = QuadraticModels(Expansions(rows, bend * np.eye(3)[None], np.ones(1)))
    steps = models.step(np.array([radius]), curved=True)
    (step,), decrease, inside = steps.white, steps.decrease, steps.inside
    left, right = rows[0, :, :3], rows[0, :, 3]
    inverse = np.linalg.inv(models.left[0])
    np.testing.assert_allclose(inverse @ inverse.T, np.linalg.inv(left.T @ left), rtol=1e-9)
    hessian, gradient = np.eye(3) + bend * inverse.T @ inverse, -inverse.T @ left.T @ right
    rest = -(hessian @ step + gradient)
    multiple = float(rest @ step / (step @ step))
    assert decrease[0] == pytest.approx(-(gradient @ step + step @ hessian @ step / 2), rel=1e-9)
    assert np.linalg.eigvalsh(hessian)[0] + multiple > 0
    np.testing.assert_allclose(rest, multiple * step, atol=1e-9 * max(np.abs(gradient).max(), radius))
    if inside[0]:
        newton = np.linalg.solve(left.T @ left + bend * np.eye(3), left.T @ right)
        np.testing.assert_allclose(models.unwhiten(step[None])[:, 0], newton, rtol=1e-9)
    else:
        assert np.linalg.norm(step) == pytest.approx(radius, rel=1e-9) and multiple >= 0
