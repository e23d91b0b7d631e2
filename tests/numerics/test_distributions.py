"""Means and standard deviations in blocks."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pytest

from causalrisk.numerics.blocks import Spread


@pytest.mark.parametrize("far", [0, 1e9])
def test_spread_is_that_of_all_rows(far):
    rng = np.random.default_rng(4)
    columns = rng.normal(far, [1, 10], (999, 2))
    spread = reduce(Spread.beside, (Spread.of(columns[a:b]) for a, b in [(0, 1), (1, 500), (500, 999)]))
    exact = columns.astype(np.longdouble)  # of float64 the mean of what is far is off by more
    np.testing.assert_allclose(spread.mean, exact.mean(axis=0), rtol=1e-15)
    np.testing.assert_allclose(np.sqrt(spread.squares / 999), exact.std(axis=0), rtol=1e-14 if far == 0 else 1e-11)


def test_spread_of_a_constant_is_nothing():
    spread = reduce(Spread.beside, [Spread.of(np.full((n, 1), 0.1)) for n in (3, 7, 11)])
    assert (float(spread.mean[0]), float(spread.squares[0])) == (0.1, 0.0)
