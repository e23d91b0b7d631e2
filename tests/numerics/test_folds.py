"""Folds of rows."""

from __future__ import annotations

import numpy as np

from causalrisk.numerics.resampling import folds_of


def drawn(n=5000, n_arms=3, seed=0):
    return np.arange(n), np.random.default_rng(seed).integers(0, n_arms, n)


def test_a_rare_arm_has_rows_in_all_folds():
    """One row in each thousand: the first row of an arm goes to another fold in the next."""
    number, _ = drawn(10 * 1024)
    arm = (number % 1024 == 5).astype(int)
    assert np.bincount(folds_of(arm, None, 5)[arm == 1]).tolist() == [2] * 5


def test_folds_of_an_arm_are_of_like_size():
    _, arm = drawn()
    sizes = np.array([np.bincount(folds_of(arm, None, 5)[arm == a]) for a in range(3)])
    assert np.ptp(sizes, axis=1).max() <= 5  # of five thousands of rows


def test_clusters_stay_together():
    arm, clusters = np.repeat([0, 1, 2], [40, 30, 20]), np.arange(90) // 6
    fold = folds_of(arm, clusters, 5)
    assert all(len(set(fold[clusters == g])) == 1 for g in range(15)) and len(set(fold)) == 5


def test_the_names_of_the_arms_do_not_matter():
    _, arm = drawn()
    np.testing.assert_array_equal(folds_of(2 - arm, None, 5), folds_of(arm, None, 5))
