"""Order statistics in blocks against numpy on all values: the same bits, whatever the blocks and what is kept."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pytest

from causalrisk.numerics import blocks
from causalrisk.numerics.blocks import Percentiles, Search, Spread

EXTREME = [0.0, -0.0, 5e-324, -5e-324, 2.2e-308, -1.5e-310, 1.0, np.nextafter(1, 2), -1.0, 1e308, -1e308, 3.0, -7.25]
SAMPLES = {
    "normal": lambda rng, n: rng.normal(size=n),
    "near one another": lambda rng, n: 1 + rng.integers(0, 50, n) * np.spacing(1.0),
    "ties": lambda rng, n: rng.integers(-3, 4, n).astype(float),
    "constant": lambda rng, n: np.full(n, rng.normal()),
    "extreme": lambda rng, n: rng.choice(EXTREME, n),
    "every size": lambda rng, n: rng.choice([-1.0, 1.0], n) * 10.0 ** rng.uniform(-320, 300, n),
    "subnormal": lambda rng, n: rng.integers(-40, 40, n) * 5e-324,
    "far": lambda rng, n: 1e9 + rng.exponential(size=n).round(3),
    "one apart": lambda rng, n: np.r_[np.zeros(n - 1), 1e300],
}


def in_blocks(values, rng):
    cuts = np.sort(rng.integers(0, len(values) + 1, rng.integers(0, 5)))
    return [values[order] for order in np.split(rng.permutation(len(values)), cuts)]


def searched(values, search, rng):
    """The values of the ranks, and the number of passes."""
    for passes in range(1, 9):
        tally = reduce(lambda a, b: a.beside(b), (search.tally(block) for block in in_blocks(values, rng)))
        assert tally.n == search.size
        found = search.found(tally)
        if found is not None:
            return found, passes
        search = search.narrowed(tally)
    raise AssertionError("too many passes")


@pytest.mark.parametrize("kept", [1, 2, 30, 10**6])
@pytest.mark.parametrize("kind", SAMPLES)
def test_percentiles_are_those_of_numpy_to_the_bit(kind, kept, monkeypatch):
    monkeypatch.setattr(blocks, "DISTINCT", kept)
    rng = np.random.default_rng([len(kind), kept])
    for n in (1, 2, 3, 10, 137, 1000):
        values = SAMPLES[kind](rng, n)
        percents = 100 * np.linspace(0, 1, rng.integers(3, 12))[1:-1]
        asked = Percentiles(n, percents)
        found, passes = searched(values, Search(asked.ranks, n), rng)
        with np.errstate(all="ignore"):
            expected = np.array([np.percentile(values, percent) for percent in percents])
        np.testing.assert_array_equal(found, np.sort(values)[asked.ranks])
        np.testing.assert_array_equal(asked.of(found), expected)
        assert passes <= (1 if kept >= n else 4)


@pytest.mark.parametrize("far", [0, 1e9])
def test_spread_is_that_of_all_rows(far):
    rng = np.random.default_rng(4)
    columns = rng.normal(far, [1, 10], (999, 2))
    spread = reduce(Spread.beside, (Spread.of(columns[a:b]) for a, b in [(0, 1), (1, 500), (500, 999)]))
    exact = columns.astype(np.longdouble)  # of float64 the mean of what is far is off by more
    np.testing.assert_allclose(spread.mean, exact.mean(axis=0), rtol=1e-15)
    np.testing.assert_allclose(np.sqrt(spread.squares / 999), exact.std(axis=0), rtol=1e-14 if far == 0 else 1e-11)
