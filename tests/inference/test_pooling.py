"""Rubin's rules against the formulas of R's mice, written down again number by number."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from causalrisk.models.pooled import rubin


def mice(q, u, dfcom):
    """pool.scalar and barnard.rubin of R's mice 3, for one parameter, and its summary's p-value and interval."""
    m = len(q)
    qbar, ubar = sum(q) / m, sum(u) / m
    b = sum((x - qbar) ** 2 for x in q) / (m - 1)
    t = ubar + (m + 1) * b / m
    r = (1 + 1 / m) * b / ubar
    lam = (1 + 1 / m) * b / t
    dfold = (m - 1) / lam**2
    dfobs = (dfcom + 1) / (dfcom + 3) * dfcom * (1 - lam) if np.isfinite(dfcom) else np.inf
    df = dfold * dfobs / (dfold + dfobs) if np.isfinite(dfcom) else dfold
    fmi = (r + 2 / (df + 3)) / (r + 1)
    p = 2 * scipy.stats.t.sf(abs(qbar) / t**0.5, df)
    return [qbar, t, r, lam, df, fmi, p]


@pytest.mark.parametrize("dfcom", [12.0, 250.0, np.inf])
@pytest.mark.parametrize("m", [2, 5, 40])
def test_formulas_of_mice(m, dfcom):
    rng = np.random.default_rng(m)
    estimates = rng.normal(2, [0.5, 1, 0.01], (m, 3))
    roots = rng.normal(size=(m, 3, 3)) * np.array([1, 0.3, 2])[:, None]
    covariances = roots @ roots.transpose(0, 2, 1)
    pooled = rubin(estimates, covariances, dfcom)
    p, limits = pooled.t_and_p()[1], pooled.limits(0.1)
    for j in range(3):
        found = [pooled.estimates[j], pooled.total[j, j], pooled.increase[j], pooled.share[j], pooled.df[j]]
        found += [pooled.fmi[j], p[j]]
        np.testing.assert_allclose(found, mice(estimates[:, j], covariances[:, j, j], dfcom), rtol=1e-10)
        # each limit cuts off 5%: the distribution function is known to more digits than older scipy's quantiles
        t = np.abs(limits[j] - pooled.estimates[j]) / pooled.std_errors[j]
        np.testing.assert_allclose(scipy.stats.t.sf(t, pooled.df[j]), 0.05, rtol=1e-10)
        assert limits[j][0] < pooled.estimates[j] < limits[j][1]
    np.testing.assert_allclose(pooled.total, covariances.mean(axis=0) + (1 + 1 / m) * np.cov(estimates.T), rtol=1e-10)


def test_where_nothing_is_missing():
    same = rubin(np.full((4, 1), 2.0), np.full((4, 1, 1), 0.25), 50.0)
    assert (same.share[0], same.increase[0]) == (0, 0)
    np.testing.assert_allclose(same.df, 51 / 53 * 50)
    normal = rubin(np.full((4, 1), 2.0), np.full((4, 1, 1), 0.25), np.inf)
    np.testing.assert_allclose(normal.limits(0.05)[0], 2 + 0.5 * scipy.stats.norm.ppf([0.025, 0.975]))
    np.testing.assert_allclose(normal.t_and_p()[1], 2 * scipy.stats.norm.sf(4))


def test_without_variance():
    between = rubin(np.array([[1.0], [2.0]]), np.zeros((2, 1, 1)), 50.0)
    assert between.fmi[0] == 1 and np.isinf(between.increase[0])
    constant = rubin(np.ones((3, 1)), np.zeros((3, 1, 1)), 50.0)
    assert np.isnan(constant.t_and_p()[0][0]) and constant.std_errors[0] == 0
