"""Crump's cut of rows that come in blocks."""

from __future__ import annotations

import numpy as np
import pytest

from causalrisk.estimators.overlap import CostsBelow, crump_cut, inverse_sum, searched_cut
from causalrisk.numerics.blocks import add_up


@pytest.mark.parametrize("seed", range(40))
def test_the_cut_searched_is_the_cut(seed):
    """Few rows and many, ties, scores of zero, weights, costs beyond the first values; in a handful of passes."""
    rng = np.random.default_rng(seed)
    n, arms = int(rng.integers(5, 3000)), int(rng.integers(2, 4))
    log_odds = rng.normal(size=(arms, n)) * rng.choice([0.1, 1, 3, 6])
    scores = np.exp(np.round(log_odds) if seed % 3 == 0 else log_odds)
    if seed % 5 == 0:
        scores[0] *= 1e-12
    scores /= scores.sum(axis=0)
    if seed % 7 == 0:
        scores[:, 0] = np.eye(arms)[0]
    weights, passes = rng.integers(1, 4, n).astype(float), []

    def below(values):
        passes.append(len(values))
        parts = np.array_split(np.arange(n), 3)
        return add_up(CostsBelow.of(values, scores[:, rows], weights[rows]) for rows in parts)

    np.testing.assert_allclose(searched_cut(below, n), crump_cut(scores, weights), rtol=1e-11)
    assert len(passes) <= 4


@pytest.mark.parametrize("rare", [[0.1, 0.9], [0.1, 0.1, 0.8]])
def test_no_row_above_the_cut_is_a_cut_without_end_whatever_rows_between_cost(rare):
    """Of ten rows of the larger cost the first is above twice the mean up to it, the last below the mean of all."""
    even = np.full((len(rare), 10), 1 / len(rare))
    scores = np.concatenate([even, np.repeat(np.array(rare)[:, None], 10, axis=1)], axis=1)
    low, high = inverse_sum(scores)[[0, -1]]
    assert high > 2 * (10 * low + high) / 11 and high < low + high

    def below(values):
        return CostsBelow.of(values, scores, np.ones(20))

    assert crump_cut(scores, np.ones(20)) == searched_cut(below, 20) == np.inf
