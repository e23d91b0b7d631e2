"""Draws of resamples: their laws, seeds and streams, and that units are drawn alike whichever are drawn together."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import causalrisk as cr
from causalrisk.numerics.resampling import (
    CHUNK,
    REPLICATE_STREAM,
    RESAMPLE_STREAM,
    WIDTH,
    Resampler,
    given_multiplicities,
    seed_sequence,
)
from tests.conftest import RHS, simulate

N = 3 * CHUNK + 100
LARGE = 130 * CHUNK + 10
FREQUENCIES = 1.0 + np.arange(N) % 3
ARMS = np.arange(N) % 7 % 3


class Draws:
    """Draws of all rows of a sample, or some."""

    def __init__(self, kind="pairs", n=N, weights=None, arms=None, clusters=None, seed=0):
        self.number = np.arange(n) if clusters is None else clusters
        self.resampler = Resampler(kind, seed_sequence(seed), int(self.number.max()) + 1, weights, arms)

    def draw(self, stream=RESAMPLE_STREAM, block=0, width=WIDTH, rows=slice(None), spread=None):
        if spread is None:
            return self.resampler.draw(stream, block, width, self.number[rows])
        return self.resampler.perturb(stream, block, width, self.number[rows], spread=spread)

    def many(self, count, **options):
        blocks = range(-(-count // WIDTH))
        return np.hstack([self.draw(block=block, **options) for block in blocks])[:, :count]


# --- the laws ----------------------------------------------------------------------------------------------------


def test_pairs_are_multinomial_counts():
    counts = Draws(n=40).many(4000)
    np.testing.assert_array_equal(counts.sum(axis=0), 40)
    # mean 1 and variance 1 - 1/n of a multinomial cell; 160,000 cells give standard errors of 0.0025 and 0.006
    assert counts.mean(axis=1) == pytest.approx(np.ones(40), abs=0.08)
    assert counts.var() == pytest.approx(1 - 1 / 40, abs=0.03)
    cells = stats.binom.pmf(np.arange(5), 40, 1 / 40) * counts.size
    found = np.bincount(counts.ravel().astype(int), minlength=6)
    found = np.append(found[:5], found[5:].sum())
    assert stats.chisquare(found, np.append(cells, counts.size - cells.sum())).pvalue > 1e-3


@pytest.mark.parametrize("arms", [None, np.arange(2 * CHUNK + 20) // 500], ids=["pairs", "stratified"])
def test_totals_of_chunks_are_multinomial_and_units_given_them_independent(arms):
    n, m = 2 * CHUNK + 20, 3000
    counts = Draws("pairs" if arms is None else "stratified", n, arms=arms).many(m)
    place = np.arange(n) // CHUNK if arms is None else arms
    totals = np.stack([counts[place == chunk].sum(axis=0) for chunk in np.unique(place)])
    sizes = np.bincount(place)
    if arms is not None:
        np.testing.assert_array_equal(totals, np.tile(sizes[:, None], m))
        return
    np.testing.assert_array_equal(totals.sum(axis=0), n)
    share = sizes / n
    expected = n * (np.diag(share) - np.outer(share, share))
    np.testing.assert_allclose(np.cov(totals), expected, atol=5 * 2 * expected.max() / np.sqrt(m))
    first, last = counts[0] - totals[0] / CHUNK, counts[CHUNK] - totals[1] / CHUNK
    assert abs(np.corrcoef(first, last)[0, 1]) < 5 / np.sqrt(m)
    for one, other in ((0, 1), (0, CHUNK), (5, n - 1)):  # covariance -1/n of two cells
        assert np.cov(counts[one], counts[other])[0, 1] == pytest.approx(-1 / n, abs=5 / np.sqrt(m))


def test_a_small_stratum_of_very_many_rows_is_drawn():
    sizes = (np.arange(9_000_000) < 66_000).astype(float)
    drawn = Draws("stratified", len(sizes), weights=sizes, arms=None).draw(width=2, rows=slice(70_000))
    np.testing.assert_array_equal(drawn.sum(axis=0), 66_000)


def test_halves_of_many_rows_vary_as_a_binomial_variable():
    counts = Draws(n=LARGE).many(100)
    np.testing.assert_array_equal(counts.sum(axis=0), LARGE)
    for rows in (slice(0, LARGE // 2), slice(0, LARGE, 2), slice(5 * CHUNK, 7 * CHUNK)):
        size = len(range(LARGE)[rows])
        law = stats.norm(size, np.sqrt(size * (1 - size / LARGE))).cdf
        assert stats.kstest(counts[rows].sum(axis=0), law).pvalue > 1e-3
    assert counts.var() == pytest.approx(1, abs=0.01)


def test_bayesian_weights_are_dirichlet():
    weights = Draws("bayesian", 30).many(5000)
    np.testing.assert_allclose(weights.sum(axis=0), 30)
    assert weights.var() == pytest.approx(30 * 29 / (30 * 31), abs=0.02)  # n^2 times the variance of a Dirichlet(1)


@pytest.mark.parametrize(("kind", "spread"), [("bayesian", None), ("pairs", 0.5)])
def test_fractional_weights_of_several_chunks_are_shares_of_gamma_variables(kind, spread):
    shape = (spread or 1.0) ** -2
    weights = Draws(kind).many(1024, spread=spread)
    np.testing.assert_allclose(weights.sum(axis=0), N)
    assert stats.kstest(weights[::64].ravel() / N, stats.beta(shape, (N - 1) * shape).cdf).pvalue > 1e-3
    own = weights[:CHUNK].sum(axis=0) / N
    assert stats.kstest(own, stats.beta(CHUNK * shape, (N - CHUNK) * shape).cdf).pvalue > 1e-3


def test_cluster_resamples_keep_clusters_whole():
    groups = np.repeat(np.arange(10), [1, 2, 3, 4, 5, 6, 7, 8, 9, 5])
    counts = Draws("cluster", 50, clusters=groups).draw()
    for g in range(10):
        assert np.ptp(counts[groups == g], axis=0).max() == 0
    first = np.unique(groups, return_index=True)[1]
    np.testing.assert_array_equal(counts[first].sum(axis=0), 10)
    np.testing.assert_array_equal(counts, Draws("cluster", 10).draw()[groups])
    some = np.array([0, 1, 2, 9, 9, 10, 20, 21, 48, 49])  # as many rows as there are clusters
    np.testing.assert_array_equal(Draws("cluster", 50, clusters=groups).draw(rows=some), counts[some])


def test_stratified_resamples_keep_the_arms():
    for options, size in (({}, np.ones(N)), ({"weights": FREQUENCIES}, FREQUENCIES)):
        counts = Draws("stratified", arms=ARMS, **options).draw()
        for arm in range(3):
            np.testing.assert_array_equal(counts[arm == ARMS].sum(axis=0), size[arm == ARMS].sum())
    counts = Draws("stratified", 50, arms=np.arange(50) % 2).many(4000)
    assert counts.var() == pytest.approx(1 - 1 / 25, abs=0.03)


@pytest.mark.parametrize("scale", [1.0, 9.0])  # counted by draws, and by rows
def test_frequency_weights_are_drawn_one_by_one(scale):
    weights = scale * np.arange(1.0, 11.0)
    counts = Draws("pairs", 10, weights).many(4000)
    total = weights.sum()
    np.testing.assert_array_equal(counts.sum(axis=0), total)
    for row in (0, 4, 9):
        law = stats.binom(total, weights[row] / total)
        edges = np.r_[-1, np.unique(law.ppf([0.1, 0.3, 0.5, 0.7, 0.9])), total]
        found = np.histogram(counts[row], edges + 0.5)[0]
        assert stats.chisquare(found, 4000 * np.diff(law.cdf(edges))).pvalue > 1e-3


# --- that they go by row -----------------------------------------------------------------------------------------

KINDS = {
    "pairs": {},
    "many rows": {"n": LARGE},
    "clusters": {"kind": "cluster", "clusters": np.random.default_rng(0).integers(0, 2 * CHUNK, N)},
    "bayesian": {"kind": "bayesian"},
    "frequencies": {"weights": FREQUENCIES},
    "large frequencies": {"weights": 100 * FREQUENCIES},
    "bayesian frequencies": {"kind": "bayesian", "weights": FREQUENCIES},
    "stratified": {"kind": "stratified", "arms": ARMS},
    "stratified frequencies": {"kind": "stratified", "arms": ARMS, "weights": FREQUENCIES},
}


@pytest.mark.parametrize("spread", [None, 0.5])
@pytest.mark.parametrize("name", KINDS)
def test_cut_and_order_of_the_rows_do_not_matter(name, spread):
    drawing, rng = Draws(**KINDS[name]), np.random.default_rng(1)
    whole = drawing.draw(spread=spread)
    n = len(whole)
    for first, last in ((0, n), (0, 5), (5, CHUNK + 1), (CHUNK, 2 * CHUNK), (n - CHUNK - 7, n)):
        rows = rng.permutation(np.arange(first, last))
        np.testing.assert_array_equal(drawing.draw(rows=rows, spread=spread), whole[rows])


@pytest.mark.parametrize("spread", [None, 0.5])
@pytest.mark.parametrize("name", KINDS)
def test_fewer_resamples_are_the_first_of_more(name, spread):
    drawing = Draws(**KINDS[name])
    every = drawing.draw(block=3, spread=spread)
    np.testing.assert_array_equal(drawing.draw(block=3, width=5, spread=spread), every[:, :5])


def test_streams_blocks_seeds_and_chunks_are_independent():
    base = Draws().draw()
    others = [
        Draws().draw(block=1),
        Draws().draw(stream=REPLICATE_STREAM),
        Draws(seed=1).draw(),
        Draws(seed=np.random.SeedSequence(0, spawn_key=(1,))).draw(),
        np.roll(base, CHUNK, axis=0),
        np.roll(base, 1, axis=1),
    ]
    for other in others:
        assert abs(np.corrcoef(base.ravel(), other.ravel())[0, 1]) < 5 / np.sqrt(base.size)
    together = np.corrcoef(Draws("bayesian").draw().T)[np.triu_indices(WIDTH, 1)]
    assert np.abs(together).max() < 5 / np.sqrt(N)


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
    for wrong in ("1", -1, 1.5):
        with pytest.raises(cr.OptionError, match=r"rng=.*expected a non-negative int"):
            bootstrapped(n_boot=20, rng=wrong)
