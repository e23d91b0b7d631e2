"""What a design leaves of its columns: compared with the rows themselves."""

import numpy as np
import pytest

from causalrisk.design.support import ColumnMoments
from causalrisk.numerics.arrays import IN_CACHE

N, K = 2 * IN_CACHE + 123, 3
RNG = np.random.default_rng(8)
ARM = RNG.integers(0, K, N)
WEIGHTS = RNG.uniform(0.5, 2.0, N)
COLUMNS = np.column_stack([np.ones(N), RNG.normal(2000.0, 3.0, N), RNG.exponential(size=N), ARM == 1.0])


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("origin", [None, np.array([0.5, 2000.0, 1.0, 0.0])])
def test_inner_products_and_limits_of_each_arm(weights, origin):
    found = ColumnMoments.of(COLUMNS, ARM, K, origin=origin, weights=weights)
    shift, s = np.zeros(4) if origin is None else origin, np.ones(N) if weights is None else weights
    for a, (triangle, plain) in enumerate(zip(found.triangles, found.arms(), strict=True)):
        own = np.equal(ARM, a)
        beside = np.column_stack([np.ones(own.sum()), COLUMNS[own] - shift])
        np.testing.assert_allclose(triangle.T @ triangle, (beside.T * s[own]) @ beside, rtol=1e-12, atol=1e-9)
        np.testing.assert_allclose(plain.T @ plain, (COLUMNS[own].T * s[own]) @ COLUMNS[own], rtol=1e-12, atol=1e-6)
        assert (found.low[a] == COLUMNS[own].min(axis=0)).all() and (found.high[a] == COLUMNS[own].max(axis=0)).all()
    assert found.steady.tolist() == [True, False, False, False]


def test_blocks_beside_each_other_are_all_rows():
    whole = ColumnMoments.of(COLUMNS, ARM, K)
    first, rest = (ColumnMoments.of(COLUMNS[rows], ARM[rows], K) for rows in (slice(0, 50), slice(50, None)))
    both = first.merged(rest)
    np.testing.assert_array_equal(both.limits, whole.limits)
    products = [moments.triangle.T @ moments.triangle for moments in (both, whole)]
    np.testing.assert_allclose(*products, rtol=1e-12, atol=1e-9)


def test_an_arm_without_rows_has_no_limits():
    found = ColumnMoments.of(COLUMNS[ARM == 0], ARM[ARM == 0], K)
    assert found.triangles[2].shape == (0, 5)
    assert np.isinf(found.low[1:]).all()
    np.testing.assert_array_equal(found.limits[0], [1.0, 1.0])


def test_dependent_columns_are_found_whatever_the_order_of_the_rows():
    columns, notes = np.column_stack([COLUMNS, COLUMNS[:, 1] - 2 * COLUMNS[:, 2]]), []
    keep = ColumnMoments.of(columns, ARM, K).usable(("const", "year", "x", "one", "both"), "outcome", notes)
    assert keep.tolist() == [True, True, True, True, False]
    assert "dropped 'both'" in notes[0]
    again = ColumnMoments.of(columns[::-1]).usable(("const", "year", "x", "one", "both"), "outcome", [])
    assert again.tolist() == keep.tolist()


def hats(values, count):
    """Piecewise linear functions that add up to one."""
    knots = np.quantile(values, np.linspace(0, 1, count))
    return np.column_stack([np.interp(values, knots, np.eye(count)[j]) for j in range(count)])


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_rounding_of_dependent_columns_is_small(seed):
    """Two bases that add up to one beside a constant: what is left of the last column is rounding error."""
    rng, n = np.random.default_rng(seed), 4642
    arm, x, z = rng.integers(0, 2, n), rng.integers(13, 45, n).astype(float), rng.normal(size=n)
    found = ColumnMoments.of(np.column_stack([np.ones(n), hats(x, 4)[:, :3], hats(z, 7)]), arm, 2)
    for factor in found.arms():
        unit = factor / np.linalg.norm(factor, axis=0)
        left = unit[:, 10] - unit[:, :10] @ np.linalg.lstsq(unit[:, :10], unit[:, 10], rcond=None)[0]
        assert np.linalg.norm(left) < 3e-14
