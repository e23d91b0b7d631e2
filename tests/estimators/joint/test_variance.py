"""Vectors of rows that are kept as multiples, against the same written out one by one."""

from __future__ import annotations

import numpy as np
import pytest

from causalrisk.estimators.joint.variance import RowVectors, in_place

N_ARMS, P, N = 3, 2, 5


@pytest.fixture
def drawn():
    return np.random.default_rng(0).standard_normal


def by_hand(scales, columns, factors=(), shared=()):
    """Write out, one row and arm after the other."""
    found = np.zeros((N_ARMS * P, N))
    for i in range(N):
        for a in range(N_ARMS):
            found[a * P : (a + 1) * P, i] += scales[a, i] * columns[:, i]
        for factor, vector in zip(factors, shared, strict=True):
            found[:, i] += factor[i] * vector
    return found


def test_sums_are_written_out_as_their_parts(drawn):
    columns, scales, more = drawn((P, N)), drawn((N_ARMS, N)), drawn((N_ARMS, N))
    factors, shared, own = drawn((2, N)), drawn((2, N_ARMS, P)), drawn((N_ARMS * P, N))
    total = RowVectors.of_columns(scales, P) + RowVectors.of_shared(factors, shared) - RowVectors.of_own(own)
    total = total - RowVectors.of_columns(more, P) - RowVectors.of_own(own) + RowVectors.none(N, N_ARMS * P)
    expected = by_hand(scales - more, columns, factors, shared.reshape(2, -1)) - 2 * own
    np.testing.assert_allclose(total.written(columns), expected, atol=1e-14)


@pytest.mark.parametrize("width", [1, 4])
def test_sums_over_replicates(drawn, width):
    measure, values, factor = drawn((N, width)), drawn((4, N_ARMS * P)), drawn(N_ARMS * P)
    expected = np.array([sum(measure[i, b % width] * values[b] for b in range(4)) for i in range(N)]).T
    found = RowVectors.over_replicates(measure, values)
    np.testing.assert_allclose(found.written(drawn((P, N))), expected, atol=1e-14)
    np.testing.assert_allclose(found.by_place(factor).written(drawn((P, N))), factor[:, None] * expected, atol=1e-14)


def test_vectors_of_arms_are_put_in_their_places():
    placed = in_place(np.array([[1.0, 2.0], [3.0, 4.0]]))
    np.testing.assert_array_equal(placed, [[1, 2, 0, 0], [0, 0, 3, 4]])
