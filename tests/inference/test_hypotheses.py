"""Joint tests of linear combinations: units, combinations that nearly are others, what contradicts the estimates."""

from __future__ import annotations

import numpy as np
import pytest

from causalrisk.inference.wald import wald_statistic


@pytest.mark.parametrize("unit", [1.0, 1e-7, 1e7])
def test_units_of_the_parameters_do_not_matter(unit):
    """By hand: (2 / 1)^2 + (0.3 / 0.1)^2 of independent estimates, whatever the second is measured in."""
    params, covariance = np.array([2.0, 0.3 * unit]), np.diag([1.0, (0.1 * unit) ** 2])
    statistic, df, impossible = wald_statistic(np.eye(2), np.zeros(2), params, covariance)
    assert statistic == pytest.approx(13, rel=1e-9) and df == 2 and not impossible


@pytest.mark.parametrize(("spread", "df"), [(1e-3, 2), (1e-5, 2), (1e-7, 1), (0.0, 1)])
def test_what_is_nearly_another_is_tested_if_it_has_sampling_error(spread, df):
    """The second estimate is the first and a little noise, two standard errors of which it differs by."""
    params = np.array([1.0, 1 + 2 * spread])
    covariance = np.ones((2, 2)) + np.diag([0.0, spread**2])
    statistic, found, impossible = wald_statistic(np.eye(2), np.zeros(2), params, covariance)
    assert not impossible and found == df
    assert statistic == pytest.approx(1 + 4 * (df - 1), rel=1e-4)  # (1 / 1)^2 + (2 / 1)^2


def test_what_has_no_sampling_error_and_is_not_so_is_impossible():
    left, covariance = np.array([[1.0, 0.0], [-1.0, 1.0]]), np.ones((2, 2))
    assert not wald_statistic(left, np.array([0.0, 2.0]), np.array([1.0, 3.0]), covariance)[2]
    assert wald_statistic(left, np.array([0.0, 2.1]), np.array([1.0, 3.0]), covariance)[2]
