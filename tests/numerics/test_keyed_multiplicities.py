"""Weights of rows that come in blocks: their laws, and that nothing but seed, unit and resample tells what they are."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from causalrisk.numerics.keyed_multiplicities import CHUNK, KeyedResampler
from causalrisk.numerics.multiplicities import REPLICATE_STREAM, RESAMPLE_STREAM, WIDTH, seed_sequence

N = 3 * CHUNK + 100
POSITIONS, ONES = np.arange(N), np.ones(N)
FREQUENCIES = 1.0 + POSITIONS % 3


def drawn(kind="pairs", *, units=POSITIONS, weights=None, one_by_one=False, seed=0, stream=RESAMPLE_STREAM, block=0,
          width=WIDTH, spread=None):  # fmt: skip
    resampler = KeyedResampler(kind, seed_sequence(seed), one_by_one)
    weights = np.ones(len(units)) if weights is None else weights
    if spread is None:
        return resampler.draw(stream, block, width, units, weights)
    return resampler.perturb(stream, block, width, spread=spread, units=units, weights=weights)


@pytest.mark.parametrize("one_by_one", [False, True])
@pytest.mark.parametrize(("kind", "spread"), [("pairs", None), ("bayesian", None), ("pairs", 0.5)])
def test_cut_and_order_of_the_rows_do_not_matter(kind, spread, one_by_one):
    given = {"kind": kind, "spread": spread, "one_by_one": one_by_one}
    whole = drawn(**given, weights=FREQUENCIES)
    for seed in range(3):
        mixed = np.random.default_rng(seed).permutation(N)
        for part in np.split(mixed, np.sort(mixed[:2])):
            np.testing.assert_array_equal(drawn(**given, units=part, weights=FREQUENCIES[part]), whole[part])


def test_streams_blocks_seeds_and_units_differ():
    base = drawn()
    others = drawn(block=1), drawn(stream=REPLICATE_STREAM), drawn(seed=1), drawn(units=POSITIONS + CHUNK)
    for other in others:
        assert abs(np.corrcoef(base.ravel(), other.ravel())[0, 1]) < 5 / np.sqrt(base.size)
    spawned = KeyedResampler("pairs", np.random.SeedSequence(0, spawn_key=(1,)))
    assert not np.array_equal(base, spawned.draw(RESAMPLE_STREAM, 0, WIDTH, POSITIONS, ONES))


def test_fewer_resamples_are_a_prefix_of_more():
    np.testing.assert_array_equal(drawn(width=5), drawn()[:, :5])


def test_counts_are_poisson():
    counts = drawn().ravel()
    expected = stats.poisson.pmf(np.arange(7), 1.0) * counts.size
    observed = np.bincount(counts.astype(int), minlength=8)
    assert observed.sum() == counts.size
    found = np.append(observed[:7], observed[7:].sum())
    assert stats.chisquare(found, np.append(expected, counts.size - expected.sum())).pvalue > 1e-3


def test_counts_of_repeated_rows_are_poisson():
    counts = drawn(weights=FREQUENCIES, one_by_one=True)
    for mean in (1, 2, 3):
        own = counts[mean == FREQUENCIES].ravel().astype(int)
        cells = stats.poisson.pmf(np.arange(6), mean) * own.size
        found = np.bincount(own, minlength=7)
        found = np.append(found[:6], found[6:].sum())
        assert stats.chisquare(found, np.append(cells, own.size - cells.sum())).pvalue > 1e-3


@pytest.mark.parametrize(("kind", "spread"), [("bayesian", None), ("pairs", 0.5)])
def test_fractional_weights_are_gamma(kind, spread):
    shape = (spread or 1.0) ** -2
    values = drawn(kind, spread=spread)
    assert stats.kstest(values.ravel() * shape, stats.gamma(shape).cdf).pvalue > 1e-3
    repeated = drawn(kind, spread=spread, weights=FREQUENCIES, one_by_one=True)
    own = repeated[FREQUENCIES == 3].ravel() * shape
    assert stats.kstest(own, stats.gamma(3 * shape).cdf).pvalue > 1e-3


def test_resamples_are_independent():
    values = drawn("bayesian")
    together = np.corrcoef(values.T)[np.triu_indices(WIDTH, 1)]
    assert np.abs(together).max() < 5 / np.sqrt(N)
    along = [np.corrcoef(values[:-lag].ravel(), values[lag:].ravel())[0, 1] for lag in (1, 2, CHUNK)]
    assert np.abs(along).max() < 5 / np.sqrt(values.size)


def test_weights_are_carried_along():
    weights = np.linspace(0.5, 2, N)
    np.testing.assert_allclose(drawn(weights=weights), drawn() * weights[:, None])
    np.testing.assert_allclose(drawn(weights=weights, spread=0.5), drawn(spread=0.5) * weights[:, None])


def test_clusters_stay_whole():
    clusters = np.random.default_rng(0).integers(0, 40, N)
    counts = drawn("cluster", units=clusters, weights=FREQUENCIES) / FREQUENCIES[:, None]
    np.testing.assert_allclose(counts, drawn("cluster", units=np.arange(40))[clusters])
