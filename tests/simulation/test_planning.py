"""Power of an experiment beside statsmodels."""

from __future__ import annotations

import numpy as np
import pytest
from statsmodels.stats.power import TTestIndPower

from causalrisk import OptionError
from causalrisk.simulation import solve_power

T = TTestIndPower()


@pytest.mark.parametrize(("effect", "n", "share", "alpha"), [(0.3, 200, 0.5, 0.05), (-0.8, 60, 0.25, 0.1)])
def test_units_as_statsmodels(effect, n, share, alpha):
    first = n * (1 - share)
    expected = T.power(abs(effect) / 2, first, alpha, ratio=share / (1 - share))
    found = solve_power(effect, n, sd=2, share=share, alpha=alpha)
    np.testing.assert_allclose(found, expected, rtol=1e-8)
    detectable = solve_power(n=n, power=0.8, sd=2, share=share, alpha=alpha)
    np.testing.assert_allclose(T.power(detectable / 2, first, alpha, ratio=share / (1 - share)), 0.8, rtol=1e-8)
    units = solve_power(effect, power=0.9, sd=2, share=share, alpha=alpha)
    again = T.power(abs(effect) / 2, units * (1 - share), alpha, ratio=share / (1 - share))
    np.testing.assert_allclose(again, 0.9, rtol=1e-8)


def test_clusters_whose_units_are_alike_count_as_units():
    expected = T.power(0.5, 20, 0.05)
    np.testing.assert_allclose(solve_power(0.5, 400, cluster_size=10, icc=1.0), expected, rtol=1e-8)


@pytest.mark.parametrize("options", [{"n": 3}, {"n": 75, "cluster_size": 25, "icc": 0.1}, {"n": 100, "alpha": 1e-10}])
@pytest.mark.parametrize("power", [0.5, 0.8, 1 - 1e-9])
def test_few_units_and_high_power_have_a_solution(options, power):
    """SciPy's distribution function is NaN here, on the side away from the effect."""
    np.testing.assert_allclose(solve_power(solve_power(power=power, **options), **options), power, rtol=1e-9)


def test_covariates_and_clusters_change_the_variance():
    plain = solve_power(n=1e6, power=0.8)
    np.testing.assert_allclose(solve_power(n=1e6, power=0.8, r_squared=0.36), 0.8 * plain, rtol=1e-6)
    np.testing.assert_allclose(solve_power(n=1e6, power=0.8, cluster_size=21, icc=0.15), 2 * plain, rtol=1e-4)


def test_power_of_clusters_by_simulation():
    rng, size, clusters, icc, effect = np.random.default_rng(0), 8, 24, 0.2, 0.5
    treated = np.arange(clusters) % 2
    shared = rng.normal(size=(20_000, clusters)) * np.sqrt(icc + (1 - icc) / size)  # means of the clusters
    means = shared + effect * treated
    by_arm = [means[:, treated == a] for a in (0, 1)]
    pooled = np.sqrt(sum(arm.var(axis=1, ddof=1) for arm in by_arm) / 2)
    t = (by_arm[1].mean(axis=1) - by_arm[0].mean(axis=1)) / (pooled * np.sqrt(2 / 12))
    share = (np.abs(t) > 2.0738730679040147).mean()
    np.testing.assert_allclose(solve_power(effect, size * clusters, cluster_size=size, icc=icc), share, atol=0.01)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"effect": 0.3}, "exactly two"),
        ({"effect": 0.3, "n": 100, "power": 0.8}, "exactly two"),
        ({"n": 100, "power": 0.01}, "above alpha"),
        ({"n": 100, "power": 0.8, "share": 1}, "share=1"),
        ({"n": 20, "power": 0.8, "cluster_size": 10, "icc": 0.1}, "three units or clusters"),
        ({"effect": 0, "n": 20}, "a number other than 0"),
        ({"n": 100, "power": 0.8, "icc": 1.2, "cluster_size": 5}, "icc=1.2"),
        ({"n": 100, "power": 0.8, "icc": 0.1}, "need each other"),
        ({"n": 100, "power": 0.8, "cluster_size": 5}, "need each other"),
        ({"effect": np.nan, "n": 100}, "the power is unknown"),
        ({"effect": 0.2, "n": np.inf}, "the power is unknown at .*n=inf"),
        ({"n": 100, "power": 0.8, "alpha": 1e-320}, "alpha=1e-320; expected 1e-15 or more"),
    ],
)
def test_what_cannot_be_is_refused(options, match):
    with pytest.raises(OptionError, match=match):
        solve_power(**options)
