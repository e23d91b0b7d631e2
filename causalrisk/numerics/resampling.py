"""Seeds, multiplicities of rows in resamples, multipliers, and folds.

How often a unit is drawn depends only on the seed, the number of the unit and the number of the resample.
"""

from __future__ import annotations

import functools
import numbers
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from causalrisk.errors import OptionError
from causalrisk.numerics.arrays import Arms, Array, Numbers

WIDTH = 32  # resamples per block; like the next two, part of the definition of the random stream, so never an option
CHUNK = 1024  # units that one generator draws
FEW = 8  # equal units per row up to which units are drawn one by one and counted
JACKKNIFE = "jackknife"  # the kind that leaves out one unit in each column instead of drawing
REPLICATE_STREAM, RESAMPLE_STREAM, PERMUTATION_STREAM, MULTIPLIER_STREAM = 0, 1, 4, 5
Split: TypeAlias = Callable[[np.random.Generator, Array, Array], NDArray[Any]]

ROOT5, HALVES = np.sqrt(5), np.sqrt([1.5, 1.0, 0.5])
MULTIPLIERS: dict[str, tuple[Array, Array]] = {  # values with mean 0 and variance 1, and their probabilities
    "rademacher": (np.array([-1.0, 1.0]), np.full(2, 1 / 2)),
    "webb": (np.concatenate([-HALVES, HALVES[::-1]]), np.full(6, 1 / 6)),
    "mammen": (np.array([1 - ROOT5, 1 + ROOT5]) / 2, np.array([ROOT5 + 1, ROOT5 - 1]) / (2 * ROOT5)),
}


# --- seeds -----------------------------------------------------------------------------------------------------------

SOURCES = (np.random.Generator, np.random.SeedSequence, np.random.RandomState)


def check_rng(rng: Any) -> None:
    """Raise an OptionError unless `rng` is a source of randomness."""
    whole = isinstance(rng, numbers.Integral) and not isinstance(rng, bool) and int(rng) >= 0
    if not (whole or rng is None or isinstance(rng, SOURCES)):
        problem = f"rng={rng!r}; expected a non-negative int, a numpy Generator, SeedSequence or RandomState, or None"
        raise OptionError(f"{problem}.\nUse `rng=0`.")


def seed_sequence(rng: Any) -> np.random.SeedSequence:
    """Turn the user's `rng` into a seed sequence. A Generator or RandomState is advanced; None draws fresh entropy."""
    check_rng(rng)
    if isinstance(rng, np.random.SeedSequence):
        return rng
    if isinstance(rng, np.random.Generator):
        return np.random.SeedSequence(int(rng.integers(2**63)))
    if isinstance(rng, np.random.RandomState):
        return np.random.SeedSequence(int(rng.randint(2**63 - 1, dtype=np.int64)))
    return np.random.SeedSequence(None if rng is None else int(rng))


def repeating(seed: np.random.SeedSequence) -> int | np.random.SeedSequence:
    """Return a value of `rng=` that repeats a seed sequence: an int if possible, otherwise the sequence itself."""
    alone = isinstance(seed.entropy, numbers.Integral) and not seed.spawn_key
    return int(seed.entropy) if alone else seed  # type: ignore[arg-type]


def seed_text(seed: np.random.SeedSequence) -> str:
    """Return the result of `repeating` as code, such as "0" or "SeedSequence(5, spawn_key=(1,))"."""
    if isinstance(repeating(seed), int):
        return str(seed.entropy)
    key = f", spawn_key={tuple(map(int, seed.spawn_key))}" if seed.spawn_key else ""
    return f"SeedSequence({seed.entropy!r}{key})"


def stream_generator(seed: np.random.SeedSequence, *key: int) -> np.random.Generator:
    """Return the generator of one part of a random stream. `key` has the number of the stream, then of the part."""
    return np.random.default_rng(np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, *key)))


def numbered_blocks(count: int, together: int = 1) -> list[tuple[int, int]]:
    """Split `count` resamples into blocks of at most `WIDTH`. Return the number and the width of each block.

    If several blocks are processed together, the number is the first block's, and the width is the sum of the widths.
    """
    size = WIDTH * together
    return [(first // WIDTH, min(size, count - first)) for first in range(0, count, size)]


# --- draws of units --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Resampler:
    """Draws multiplicities of units, which are rows or clusters, for blocks of resamples.

    The kind "bayesian" draws fractional weights. The "jackknife" leaves out one unit per column, starting with the
    first unit in column `first`. Other kinds draw units with replacement within strata. `sizes` has frequency weights:
    the number of equal units that each of the n units represents. A multiplicity is the total over equal units.

    Notes
    -----
    A resample draws as many units as there are. The number of draws is split among chunks, and the draws of a chunk
    among its units. Each split has a generator keyed by seed, stream, block of `WIDTH` resamples, stratum, level and
    number of the part that is split. Therefore some of the units can be drawn without the others.

    Fractional weights are gamma variables divided by their average. The shares of the parts in a gamma total are
    independent of the total, so totals of weights are split in the same way.
    """

    kind: str
    seed: np.random.SeedSequence
    n: int
    sizes: Array | None = None
    strata: NDArray[np.intp] | None = None
    first: int = 0

    def draw(self, stream: int, block: int, width: int, number: NDArray[np.intp]) -> Array:
        """Draw multiplicities (m, width) of the units `number`, for the resamples of a block of a stream."""
        if self.kind == JACKKNIFE:
            sizes = np.ones(1) if self.sizes is None else self.sizes[number]
            return sizes[:, None] - (number[:, None] == np.arange(width) + (block * WIDTH - self.first))
        if self.kind == "bayesian":
            return self.perturb(stream, block, width, number, spread=1.0)
        return self._drawn(_multinomial, (stream, block), width, number)

    def perturb(self, stream: int, block: int, width: int, number: NDArray[np.intp], *, spread: float) -> Array:
        """Draw fractional weights of units. Other parameters are as in `draw`.

        The weights are independent gamma variables divided by their average (fractional-random-weight bootstrap [1]_).
        All rows of a unit have the same weight. A row with a frequency weight has the sum of several weights. No weight
        is zero. `spread` is the standard deviation of a unit's weight relative to its mean: 1 in the bootstrap.

        References
        ----------
        .. [1] Xu, L., Gotwalt, C., Hong, Y., King, C. B. and Meeker, W. Q. (2020). Applications of the
           fractional-random-weight bootstrap. The American Statistician 74, 345-358.
        """
        return self._drawn(functools.partial(_dirichlet, spread), (stream, block), width, number)

    @cached_property
    def chunks(self) -> dict[int, Array]:
        """Number of units in each chunk, by stratum."""
        sizes, firsts = np.ones(self.n) if self.sizes is None else self.sizes, np.arange(0, self.n, CHUNK)
        if self.strata is None:
            return {0: np.add.reduceat(sizes, firsts)}
        return {k: np.add.reduceat(sizes * (self.strata == k), firsts) for k in np.unique(self.strata).tolist()}

    def _drawn(self, split: Split, key: tuple[int, int], width: int, number: NDArray[np.intp]) -> Array:
        first, last = int(number.min()) // CHUNK, int(number.max()) // CHUNK + 1
        found = np.empty((min(last * CHUNK, self.n) - first * CHUNK, width))
        for stratum, chunks in self.chunks.items():
            generator = functools.partial(stream_generator, self.seed, *key, stratum)
            totals = np.full((width, 1), chunks.sum())
            if len(chunks) > 1:
                totals = split(generator(1, 0), totals[:, 0], chunks)
            for chunk in range(first, last):
                units = np.arange(chunk * CHUNK, min((chunk + 1) * CHUNK, self.n))
                units = units if self.strata is None else units[self.strata[units] == stratum]
                sizes = np.ones(len(units)) if self.sizes is None else self.sizes[units]
                found[units - first * CHUNK] = split(generator(0, chunk), totals[:, chunk], sizes).T
        return found[number - first * CHUNK]


def _multinomial(rng: np.random.Generator, totals: Array, sizes: Array) -> NDArray[Any]:
    """Return how often each of u units is drawn with replacement, shape (width, u), in `totals` (width,) draws."""
    width, count, times, whole = len(totals), len(sizes), totals.astype(np.int64), int(sizes.sum())
    if not whole:
        return np.zeros((width, count))
    if whole <= min(FEW * count, 2**16):  # each draw by itself
        units = rng.integers(0, whole, times.sum(), dtype=np.uint16)
        if (sizes != 1).any():
            units = np.repeat(np.arange(count), sizes.astype(np.int64))[units]
        units = units + np.repeat(np.arange(0, width * count, count), times)
        return np.bincount(units, minlength=width * count).reshape(width, count)
    drawn, some = np.zeros((width, count)), sizes > 0
    drawn[:, some] = rng.multinomial(times, sizes[some] / sizes.sum())
    return drawn


def _dirichlet(spread: float, rng: np.random.Generator, totals: Array, sizes: Array) -> Array:
    """Split `totals` (width,) in proportion to gamma variables with means `sizes` (u,). Return an array (width, u)."""
    drawn = np.asarray(rng.standard_gamma(sizes / spread**2, (len(totals), len(sizes))))
    whole = drawn.sum(axis=1)
    drawn *= (totals / np.where(whole > 0, whole, 1.0))[:, None]
    return drawn


# --- multipliers, and weights that were given ------------------------------------------------------------------------


def multipliers(
    law: str, seed: np.random.SeedSequence, block: int, width: int, n: int, sizes: Array | None
) -> tuple[Array, Array]:
    """Return random multipliers of n units, shape (n, width), and the squares of the multipliers."""
    (values, shares), drawn = MULTIPLIERS[law], np.empty((2, n, width))
    for chunk, first in enumerate(range(0, n, CHUNK)):
        rng, rows = stream_generator(seed, MULTIPLIER_STREAM, block, chunk), slice(first, min(first + CHUNK, n))
        if sizes is None:
            place = np.searchsorted(np.cumsum(shares)[:-1], rng.random((width, CHUNK)), side="right")
            own = values[place.T[: rows.stop - first]]
            drawn[:, rows] = own, own**2
        else:
            counts = rng.multinomial(sizes[rows].astype(int), shares, (width, rows.stop - first))
            drawn[:, rows] = (counts @ values).T, (counts @ values**2).T
    return drawn[0], drawn[1]


def nearly_whole(values: Array) -> NDArray[np.bool_]:
    """Return a mask of the values that are whole numbers up to rounding error. The mask is False for NaN."""
    return np.isclose(values, np.rint(values), rtol=1e-12, atol=1e-8)


def given_multiplicities(name: str, values: Any, n: int) -> Array:
    """Return the multiplicities (n, m) that the user gave as option `name`. Invalid ones raise an OptionError."""
    expected = f"expected an array of shape ({n}, m): how often each row of the estimation sample counts in each column"
    use = f"Use `{name}=rng.multinomial({n}, np.full({n}, 1 / {n}), size=999).T`, for example."
    try:
        given = np.array(values, dtype=float)
    except (TypeError, ValueError):  # text, or rows of several lengths
        raise OptionError(f"{name} is not an array of numbers; {expected}.\n{use}") from None
    if given.ndim != 2 or len(given) != n or not given.size:
        use = f"Use `{name}={name}.T`." if given.ndim == 2 and given.shape[1] == n else use
        raise OptionError(f"{name} has shape {given.shape}; {expected}.\n{use}")
    wrong = int((~(np.isfinite(given) & (given >= 0))).sum())
    if wrong:
        raise OptionError(f"{name} has {wrong} negative or non-finite entries; expected values >= 0.\n{use}")
    return given


# --- folds -----------------------------------------------------------------------------------------------------------


def folds_of(arm: Arms, clusters: Numbers | None, n_folds: int, repeat: int = 0) -> Numbers:
    """Return the fold of each row, shape (n,). Folds are balanced within arms or, with clusters, keep clusters whole.

    Rows are split into chunks of `CHUNK` consecutive rows. In chunk k = 0, 1, ... of repeat r = 0, 1, ..., the rows of
    each arm are shuffled by `numpy.random.default_rng([r, k])` and dealt to the folds k, k + 1, ..., modulo the number
    of folds. The largest arm comes first; among equally large arms, the arm whose first row comes first. So the names
    of the arms do not matter.

    Examples
    --------
    >>> import numpy as np
    >>> folds_of(np.array([0, 0, 0, 0, 1, 1]), None, n_folds=2).tolist()
    [1, 0, 0, 1, 1, 0]
    """
    if clusters is not None:
        of_cluster = np.empty(int(clusters.max()) + 1, dtype=np.intp)
        of_cluster[np.random.default_rng(repeat).permutation(len(of_cluster))] = np.arange(len(of_cluster)) % n_folds
        return of_cluster[clusters]
    fold = np.empty(len(arm), dtype=np.intp)
    for chunk, first in enumerate(range(0, len(arm), CHUNK)):
        rng, own = np.random.default_rng([repeat, chunk]), arm[first : first + CHUNK]
        arms, place, count = np.unique(own, return_index=True, return_counts=True)
        for a in arms[np.lexsort((place, -count))]:
            rows = first + np.flatnonzero(own == a)
            fold[rng.permutation(rows)] = (chunk + np.arange(len(rows))) % n_folds
    return fold
