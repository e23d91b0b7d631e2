"""Factors and products by blocks of rows, against those of all rows at once."""

from __future__ import annotations

import numpy as np
import pytest

from causalrisk.numerics.arrays import (
    IN_CACHE,
    orthonormal_basis,
)

N = 2 * IN_CACHE + 123


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    return rng.normal(size=(N, 4)) * [1, 1e3, 1e-3, 1], rng.uniform(0.5, 2, N)


@pytest.mark.parametrize("close", [1.0, 1e-4, 1e-9])
def test_a_basis_is_orthonormal_however_close_the_columns_are(rows, close):
    """Of columns that are nearly the same too, and far from zero: as Householder's."""
    (X, weights), rng = rows, np.random.default_rng(1)
    near = X[:, 3] + close * rng.normal(size=N)
    design = np.column_stack([np.ones(N), 1e5 + X[:, 0], X[:, 3], near])
    basis = orthonormal_basis(design, weights)
    gram = (basis.columns * weights[:, None]).T @ basis.columns / weights.sum()
    np.testing.assert_allclose(gram, np.eye(4), atol=1e-13)
    np.testing.assert_allclose(basis.columns[:, 0], 1.0, rtol=1e-12)
    centred = design - basis.shift
    centred[:, 0] = 1.0
    np.testing.assert_allclose(basis.columns @ basis.factor, centred, rtol=1e-10, atol=1e-13 * np.abs(centred).max())
