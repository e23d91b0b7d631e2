"""Draws of resamples: kinds, seeds, streams."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy import stats

import causalrisk as cr
from causalrisk.numerics.multiplicities import (
    RESAMPLE_STREAM,
    Resampler,
    _draws,
    given_multiplicities,
    seed_sequence,
)
from tests.conftest import RHS, simulate

pytestmark = pytest.mark.filterwarnings("ignore::causalrisk.MonteCarloWarning")


def resampler(kind, n=50, weights=None, frequency=False, groups=None, seed=0):
    return Resampler(kind, seed_sequence(seed), np.ones(n) if weights is None else weights, frequency, groups)


def test_pairs_are_multinomial_counts():
    counts = resampler("pairs", 40).draw(RESAMPLE_STREAM, 0, 4000)
    np.testing.assert_array_equal(counts.sum(axis=0), 40)
    # mean 1 and variance 1 - 1/n of a multinomial cell; 160,000 cells give standard errors of 0.0025 and 0.006
    assert counts.mean(axis=1) == pytest.approx(np.ones(40), abs=0.08)
    assert counts.var() == pytest.approx(1 - 1 / 40, abs=0.03)


def test_fewer_resamples_are_a_prefix_of_more():
    few = resampler("pairs").draw(RESAMPLE_STREAM, 3, 5)
    np.testing.assert_array_equal(few, resampler("pairs").draw(RESAMPLE_STREAM, 3, 32)[:, :5])


def test_blocks_streams_and_seeds_differ():
    base = resampler("pairs").draw(0, 0, 8)
    for other in (
        resampler("pairs").draw(0, 1, 8),
        resampler("pairs").draw(1, 0, 8),
        resampler("pairs", seed=1).draw(0, 0, 8),
    ):
        assert not np.array_equal(base, other)


def test_bayesian_weights_are_dirichlet():
    weights = resampler("bayesian", 30).draw(RESAMPLE_STREAM, 0, 5000)
    np.testing.assert_allclose(weights.sum(axis=0), 30)
    assert weights.var() == pytest.approx(30 * 29 / (30 * 31), abs=0.02)  # n^2 times the variance of a Dirichlet(1)


def test_bayesian_weights_of_clusters_are_dirichlet_by_cluster():
    groups = np.repeat(np.arange(10), [1, 2, 3, 4, 5, 6, 7, 8, 9, 5])
    weights = resampler("bayesian", 50, groups=groups).draw(RESAMPLE_STREAM, 0, 4000)
    first = np.unique(groups, return_index=True)[1]
    np.testing.assert_array_equal(weights, weights[first][groups])
    shares = weights[first] / weights[first].sum(axis=0)
    assert stats.kstest(shares[3], stats.beta(1, 9).cdf).pvalue > 1e-3


def test_bayesian_weights_of_counted_rows_are_in_law_those_of_the_rows_written_out():
    weights = np.arange(1.0, 11.0)
    shares = resampler("bayesian", 10, weights, frequency=True).draw(RESAMPLE_STREAM, 0, 4000) / 55
    written = resampler("bayesian", 55).draw(RESAMPLE_STREAM, 0, 4000) / 55
    ends = np.cumsum(weights).astype(int)
    for row in (0, 4, 9):  # a share of a Dirichlet, the sum of s of them
        law = stats.beta(weights[row], 55 - weights[row]).cdf
        together = written[ends[row] - int(weights[row]) : ends[row]].sum(axis=0)
        assert stats.kstest(shares[row], law).pvalue > 1e-3
        assert stats.kstest(together, law).pvalue > 1e-3


def test_weights_within_a_resample_of_clusters_vary_as_those_of_as_many_clusters():
    """A cluster drawn m times is m clusters, whose weights add up to a gamma variable of m times the shape."""
    groups = np.repeat(np.arange(40), 2)
    drawing = resampler("cluster", 80, groups=groups)
    counts = np.repeat(np.r_[np.ones(36), 4, 0, 0, 0], 2)
    drawn = drawing.perturb_within(counts, number=0, width=4000, spread=0.5)
    np.testing.assert_array_equal(drawn[::2], drawn[1::2])
    assert (drawn[counts == 0] == 0).all()
    assert drawn[72].mean() == pytest.approx(4, abs=0.1)
    assert drawn[72].var() == pytest.approx(4 * 0.25 * (1 - 4 / 40), rel=0.1)  # the weights add up to a total


def test_cluster_resamples_keep_clusters_whole():
    groups = np.repeat(np.arange(10), [1, 2, 3, 4, 5, 6, 7, 8, 9, 5])
    counts = resampler("cluster", 50, groups=groups).draw(RESAMPLE_STREAM, 0, 20)
    for g in range(10):
        assert np.ptp(counts[groups == g], axis=0).max() == 0
    first = np.unique(groups, return_index=True)[1]
    np.testing.assert_array_equal(counts[first].sum(axis=0), 10)


def test_stratified_resamples_keep_the_arms():
    groups = np.r_[np.zeros(35, int), np.ones(15, int)]
    counts = resampler("stratified", 50, groups=groups).draw(RESAMPLE_STREAM, 0, 20)
    np.testing.assert_array_equal(counts[:35].sum(axis=0), 35)
    np.testing.assert_array_equal(counts[35:].sum(axis=0), 15)


def test_frequency_weights_are_drawn_one_by_one():
    weights = np.arange(1.0, 11.0)
    counts = resampler("pairs", 10, weights, frequency=True).draw(RESAMPLE_STREAM, 0, 4000)
    np.testing.assert_array_equal(counts.sum(axis=0), 55)
    assert counts.mean(axis=1) == pytest.approx(weights, abs=0.25)


def test_probability_weights_are_carried_along():
    weights = np.linspace(0.5, 2, 50)
    plain = resampler("pairs").draw(RESAMPLE_STREAM, 0, 6)
    np.testing.assert_allclose(
        resampler("pairs", weights=weights).draw(RESAMPLE_STREAM, 0, 6), plain * weights[:, None]
    )
    plain = resampler("bayesian").draw(RESAMPLE_STREAM, 0, 6)
    weighted = resampler("bayesian", weights=weights).draw(RESAMPLE_STREAM, 0, 6)
    np.testing.assert_allclose(weighted, plain * weights[:, None])


def test_seeds():
    generator = np.random.default_rng(3)
    assert seed_sequence(generator).entropy != seed_sequence(generator).entropy
    assert seed_sequence(None).entropy != seed_sequence(None).entropy
    assert seed_sequence(7).entropy == 7
    sequence = np.random.SeedSequence(5).spawn(2)[1]
    drawn = Resampler("pairs", seed_sequence(sequence), np.ones(50)).draw(0, 0, 4)
    assert not np.array_equal(drawn, resampler("pairs", seed=5).draw(0, 0, 4))


@pytest.mark.parametrize("given", [np.ones((3, 2)), np.ones(4), -np.ones((4, 2)), np.full((4, 2), np.nan)])
def test_given_multiplicities_are_checked(given):
    with pytest.raises(cr.errors.OptionError, match="resamples"):
        given_multiplicities("resamples", given, 4)


def bootstrapped(model=cr.IPWRA, n_boot=400, **options):
    frame = simulate(200, strength=0.4)
    return model.from_formula(f"y ~ {RHS}", frame, treat="d").fit(cov_type="bootstrap", n_boot=n_boot, **options)


def test_fault_57_seeds():
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    by_int = bootstrapped(n_boot=20, rng=5)
    by_sequence = bootstrapped(n_boot=20, rng=np.random.SeedSequence(5))
    np.testing.assert_array_equal(by_int.boot_params, by_sequence.boot_params)
    generator, expected = np.random.default_rng(5), np.random.default_rng(5)
    bootstrapped(cr.JRE, n_boot=20, rng=generator, n_replicates=40)
    expected.integers(2**63)
    assert generator.bit_generator.state == expected.bit_generator.state  # advanced once, whatever is drawn
    first, second = bootstrapped(n_boot=20, rng=generator), bootstrapped(n_boot=20, rng=generator)
    assert not np.array_equal(first.boot_params, second.boot_params)
    repeated = bootstrapped(n_boot=20, rng=first.seed)
    np.testing.assert_array_equal(repeated.boot_params, first.boot_params)
    assert bootstrapped(n_boot=20, rng=None).seed != bootstrapped(n_boot=20, rng=None).seed
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    for wrong in (np.random.RandomState(1), "1", -1, 1.5):
        with pytest.raises(cr.OptionError, match=r"rng=.*expected a non-negative int"):
            bootstrapped(n_boot=20, rng=wrong)


@pytest.mark.parametrize("start", [np.ones(40), np.arange(40.0) % 3], ids=["rows", "counted"])
def test_some_resamples_at_a_time_are_those_of_all_at_once(start, monkeypatch):
    every = _draws(start, np.random.default_rng(3), 32)
    monkeypatch.setattr("causalrisk.numerics.multiplicities.DRAWN", 100)  # two of 40 units at a time
    np.testing.assert_array_equal(_draws(start, np.random.default_rng(3), 32), every)
    assert (every.sum(axis=0) == start.sum()).all()


def test_drawing_takes_little_more_than_what_is_drawn():
    n, width = 200_000, 32
    tracemalloc.start()
    drawn = _draws(np.ones(n), np.random.default_rng(0), width)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 1.6 * drawn.nbytes
