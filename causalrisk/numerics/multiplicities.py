"""How often rows count in resamples: for each row a function of the seed, its number and that of the resample.

Rows may come all together or block by block, in any order, and be drawn by any worker.
"""

from __future__ import annotations

import functools
import itertools
import numbers
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr

from causalrisk.errors import OptionError
from causalrisk.numerics.linalg import Array

WIDTH = 32  # resamples per block: like the next three part of the definition of the random stream, so never an option
CHUNK = 1024  # units that one generator draws
FEW = 8  # equal units a row up to which units are drawn one after the other, and counted
FAN = 64  # chunks, or groups of as many, among which one generator splits their total
JACKKNIFE = "jackknife"  # the kind that leaves out one unit in each column in place of drawing
REPLICATE_STREAM, RESAMPLE_STREAM, PERMUTATION_STREAM, MULTIPLIER_STREAM = 0, 1, 4, 5
Split: TypeAlias = Callable[[np.random.Generator, Array, Array], NDArray[Any]]

ROOT5, HALVES = np.sqrt(5), np.sqrt([1.5, 1.0, 0.5])
MULTIPLIERS: dict[str, tuple[Array, Array]] = {  # values with mean 0 and variance 1, and their probabilities
    "rademacher": (np.array([-1.0, 1.0]), np.full(2, 1 / 2)),
    "webb": (np.concatenate([-HALVES, HALVES[::-1]]), np.full(6, 1 / 6)),
    "mammen": (np.array([1 - ROOT5, 1 + ROOT5]) / 2, np.array([ROOT5 + 1, ROOT5 - 1]) / (2 * ROOT5)),
}


SOURCES = (np.random.Generator, np.random.SeedSequence, np.random.RandomState)


def check_rng(rng: Any) -> None:
    """Raise an OptionError unless `rng` is a source of randomness."""
    whole = isinstance(rng, numbers.Integral) and not isinstance(rng, bool)
    if (whole and rng >= 0) or rng is None or isinstance(rng, SOURCES):
        return
    raise OptionError(
        f"rng={rng!r}; expected a non-negative int, a numpy Generator, SeedSequence or RandomState, or None.\n"
        "Use `rng=0`."
    )


def seed_sequence(rng: Any) -> np.random.SeedSequence:
    """Turn what the user gave as `rng` into a seed sequence.

    A Generator or RandomState is advanced once; None draws fresh entropy. `repeating` says what repeats the draw.

    Raises
    ------
    OptionError
        If it is anything else.
    """
    check_rng(rng)
    if isinstance(rng, np.random.SeedSequence):
        return rng
    if isinstance(rng, np.random.Generator):
        return np.random.SeedSequence(int(rng.integers(2**63)))
    if isinstance(rng, np.random.RandomState):
        return np.random.SeedSequence(int(rng.randint(2**63 - 1, dtype=np.int64)))
    return np.random.SeedSequence(None if rng is None else int(rng))


def repeating(seed: np.random.SeedSequence) -> int | np.random.SeedSequence:
    """Return what repeats the draws of a seed sequence as `rng`: its entropy alone where that is an int and enough."""
    entropy = seed.entropy
    if isinstance(entropy, numbers.Integral) and not seed.spawn_key:
        return int(entropy)
    return np.random.SeedSequence(entropy, spawn_key=seed.spawn_key)


def seed_text(seed: np.random.SeedSequence) -> str:
    """Return `repeating` as it is typed, a seed sequence without the name of its module."""
    if isinstance(repeating(seed), int):
        return str(seed.entropy)
    entropy = seed.entropy.tolist() if isinstance(seed.entropy, np.ndarray) else seed.entropy
    key = f", spawn_key={tuple(map(int, seed.spawn_key))}" if seed.spawn_key else ""
    return f"SeedSequence({entropy!r}{key})"


def stream_generator(seed: np.random.SeedSequence, *key: int) -> np.random.Generator:
    """Return the generator of a part of a random stream: `key` is the number of the stream and those of the part."""
    return np.random.default_rng(np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, *key)))


@dataclass(frozen=True)
class Units:
    """Rows, all or some, as they are drawn.

    Parameters
    ----------
    number : ndarray of int, shape (n,)
        Number of the unit of each row: its running number among all rows, or its cluster.
    weights : ndarray, shape (n,)
        Observation weights.
    strata : ndarray of int, shape (n,), optional
        The stratum that each row is drawn within.
    """

    number: NDArray[np.intp]
    weights: Array
    strata: NDArray[np.intp] | None = None

    @cached_property
    def weighted(self) -> bool:
        """Whether a weight is not one."""
        return bool((self.weights != 1).any())

    @cached_property
    def by_stratum(self) -> list[tuple[int, NDArray[np.intp]]]:
        """Strata, and positions of their rows in the order of the units."""
        if self.strata is None:
            return [(0, np.argsort(self.number, kind="stable"))]
        order = np.lexsort((self.number, self.strata))
        edges = np.flatnonzero(np.diff(self.strata[order], prepend=-1))
        return [(int(self.strata[rows[0]]), rows) for rows in np.split(order, edges[1:]) if len(rows)]

    def some(self, rows: slice | NDArray[np.intp]) -> Units:
        """Return some of the rows."""
        return Units(self.number[rows], self.weights[rows], None if self.strata is None else self.strata[rows])

    def chunks(self, n: int, n_strata: int) -> Chunks:
        """Return what these rows, a unit each or as many as the weight says, add to the chunks of n rows."""
        count, strata, chunk = -(-n // CHUNK), 1, self.number // CHUNK
        place = chunk
        if self.strata is not None:
            strata, place = n_strata, chunk + count * self.strata
        sums = np.asarray(np.bincount(place, weights=self.weights, minlength=strata * count), dtype=float)
        cut = np.flatnonzero(np.bincount(chunk)[chunk] < CHUNK)
        return Chunks(sums.reshape(strata, count), self.some(cut[np.argsort(self.number[cut], kind="stable")]))


@dataclass(frozen=True)
class Chunks:
    """What draws of some rows have to know of all.

    Parameters
    ----------
    sums : ndarray, shape (strata, chunks)
        How many units there are among each `CHUNK` numbers.
    cut : Units, optional
        Rows of chunks that come in several blocks, in their order; `weights` are how many units a row is.
    """

    sums: Array
    cut: Units | None = None

    def beside(self, other: Chunks) -> Chunks:
        """Add what other blocks of rows add, which come later."""
        if self.cut is None or other.cut is None:
            return Chunks(self.sums + other.sums)
        one, two = self.cut, other.cut
        cut = Units(
            np.concatenate([one.number, two.number]),
            np.concatenate([one.weights, two.weights]),
            None if one.strata is None or two.strata is None else np.concatenate([one.strata, two.strata]),
        )
        return Chunks(self.sums + other.sums, cut)

    @cached_property
    def levels(self) -> list[Array]:
        """Units in each chunk, in each group of chunks, in each group of groups and so on to all, (strata, groups)."""
        levels = [self.sums]
        while (count := levels[-1].shape[1]) > 1:
            levels.append(np.add.reduceat(levels[-1], np.arange(0, count, FAN), axis=1))
        return levels

    @cached_property
    def cut_by_stratum(self) -> dict[int, Units]:
        """Rows of cut chunks in each stratum."""
        cut = self.cut
        return {} if cut is None else {stratum: cut.some(rows) for stratum, rows in cut.by_stratum}


@dataclass(frozen=True)
class Resampler:
    """Draws multiplicities of rows, all or some, for blocks of resamples.

    Parameters
    ----------
    kind : {"pairs", "bayesian", "cluster", "stratified", "jackknife"}
        "cluster" draws as "pairs" does: `Units.number` is then the cluster, so all its rows have one multiplicity.
        "bayesian" draws fractional weights, and of a "jackknife" column j is without unit j; the others draw units with
        replacement, which `Units.number` and `Units.strata` tell of.
    seed : SeedSequence
        Root of the random streams.
    chunks : Chunks
        How many units there are; in several strata for "stratified" only.
    one_by_one : bool, default False
        Whether each of the equal rows that a frequency weight counts is a unit. Otherwise weights are carried along, as
        always with clusters, which are drawn whole.
    first : int, default 0
        Of a "jackknife" the number of the column that is without the first of these units.

    Notes
    -----
    A resample is multinomial: as many units are drawn, with replacement, as there are. Their number is split among
    groups of chunks, that of a group among its chunks, and that of a chunk among its units, each by a generator keyed
    by seed, stream, block of `WIDTH` resamples, stratum, level and number of what is split. Whoever has some of the
    rows thus draws their chunks, and the few groups that these are in, and finds what all rows together have.

    Fractional weights are gamma variables over their mean. Sums of some of these split the total as they do the sums,
    independently, so that the same tree draws them.
    """

    kind: str
    seed: np.random.SeedSequence
    chunks: Chunks
    one_by_one: bool = False
    first: int = 0

    @classmethod
    def of(cls, kind: str, seed: np.random.SeedSequence, n: int) -> Resampler:
        """Make that of n rows or clusters, each a unit, in one stratum."""
        return cls(kind, seed, Chunks(np.diff(np.r_[0:n:CHUNK, n]).astype(float)[None]))

    def draw(self, stream: int, block: int, width: int, units: Units) -> Array:
        """Draw multiplicities of rows, times their weights.

        Parameters
        ----------
        stream, block : int
            The random stream, and which resamples of it: those from block times `WIDTH` on.
        width : int
            How many, at most `WIDTH`; fewer are the first of more.
        units : Units
            The rows.

        Returns
        -------
        ndarray, shape (n, width)
            Multiplicities times observation weights.
        """
        if self.kind == JACKKNIFE:
            out = units.number[:, None] == np.arange(width) + (block * WIDTH - self.first)
            weights = units.weights[:, None]
            return np.asarray(weights - out if self.one_by_one else weights * ~out)
        if self.kind == "bayesian":
            return self.perturb(stream, block, width, units, spread=1.0)
        return next(self._columns(_multinomial, (stream, block), width, units, at_once=width))

    def perturb(self, stream: int, block: int, width: int, units: Units, *, spread: float) -> Array:
        """Draw fractional random weights times observation weights, shape (n, width).

        Gamma variables of shape 1 / spread^2, one a unit (row, cluster, or one of the equal rows a frequency weight
        counts), divided by their mean: the fractional-random-weight bootstrap [1]_. No weight is zero. `spread` is the
        standard deviation of the weight of a unit, relative to its mean; 1 is that of the bootstrap.

        References
        ----------
        .. [1] Xu, L., Gotwalt, C., Hong, Y., King, C. B. and Meeker, W. Q. (2020). Applications of the
           fractional-random-weight bootstrap. The American Statistician 74, 345-358.
        """
        return next(self.perturbations(stream, block, width, units, spread=spread, at_once=width))

    def perturbations(
        self, stream: int, block: int, width: int, units: Units, *, spread: float, at_once: int
    ) -> Iterator[Array]:
        """Draw as `perturb` does, in groups of `at_once` columns, which are the same whatever it is."""
        return self._columns(functools.partial(_dirichlet, spread), (stream, block), width, units, at_once=at_once)

    def _columns(
        self, split: Split, key: tuple[int, int], width: int, units: Units, *, at_once: int
    ) -> Iterator[Array]:
        """Draw some columns at a time."""
        sizes = None  # equal units that each row stands for, where not for one
        if self.one_by_one or units.strata is not None:
            sizes = units.weights if self.one_by_one else np.ones(len(units.number))
        chunks: list[_Chunk] = []
        for stratum, rows in units.by_stratum:
            generator = functools.partial(stream_generator, self.seed, *key, stratum)
            levels, cut = [level[stratum] for level in self.chunks.levels], self.chunks.cut_by_stratum.get(stratum)
            tree = _Tree(levels, cut, split, generator, width)
            chunks += tree.chunks(rows, units.number[rows], None if sizes is None else sizes[rows])
        for first in range(0, width, at_once):
            some = slice(first, min(first + at_once, width))
            drawn = np.empty((len(units.number), some.stop - first))
            for chunk in chunks:
                drawn[chunk.rows] = split(chunk.rng, chunk.totals[some], chunk.sizes)[:, chunk.within].T
            if units.weighted and not self.one_by_one:
                drawn *= units.weights[:, None]
            yield drawn


@dataclass(frozen=True)
class _Chunk:
    """A chunk of units to be drawn: its rows, the unit of each, sizes of the units, and what is split among them."""

    rows: NDArray[np.intp]
    within: NDArray[np.intp] | slice
    sizes: Array
    totals: Array
    rng: np.random.Generator


@dataclass(frozen=True)
class _Tree:
    """Splits of the units of a stratum among groups of chunks, and so on down to the chunks; fields as in `Chunks`."""

    levels: list[Array]
    cut: Units | None
    split: Split
    generator: Callable[[int, int], np.random.Generator]
    width: int

    def chunks(self, rows: NDArray[np.intp], number: NDArray[np.intp], sizes: Array | None) -> Iterator[_Chunk]:
        """Yield the chunks of rows whose units ascend; `sizes` as in `Resampler`, shape (n,)."""
        found, places = _groups(number, CHUNK)
        for chunk, place, totals in zip(found, places, self._totals(0, found).T, strict=True):
            own, count = number[place], self.levels[0][chunk]
            if sizes is None:
                children, within = np.ones(int(count)), own - chunk * CHUNK
            else:
                _, first, within = np.unique(own, return_index=True, return_inverse=True)
                children = sizes[place][first]
                if self.cut is not None and not np.isclose(children.sum(), count, rtol=1e-9):  # some are elsewhere
                    first, last = np.searchsorted(self.cut.number, [chunk * CHUNK, (chunk + 1) * CHUNK])
                    children = self.cut.weights[first:last]
                    within = np.searchsorted(self.cut.number[first:last], own)
            every = np.array_equal(within, np.arange(len(children)))
            yield _Chunk(rows[place], slice(None) if every else within, children, totals, self.generator(0, int(chunk)))

    def _totals(self, level: int, groups: NDArray[np.intp]) -> Array:
        """Units drawn from some groups of a level, whose numbers ascend, shape (width, groups)."""
        sizes = self.levels[level]
        if len(sizes) == 1:
            return np.full((self.width, len(groups)), sizes[0])
        found = np.empty((self.width, len(groups)))
        parents, places = _groups(groups, FAN)
        for parent, place, totals in zip(parents, places, self._totals(level + 1, parents).T, strict=True):
            first, rng = parent * FAN, self.generator(level + 1, int(parent))
            found[:, place] = self.split(rng, totals, sizes[first : first + FAN])[:, groups[place] - first]
        return found


def _groups(number: NDArray[np.intp], size: int) -> tuple[NDArray[np.intp], list[slice]]:
    """Find the groups, of so many numbers each, of some ascending numbers; and which of them are in each."""
    group = number // size
    edges = np.flatnonzero(np.diff(group, prepend=-1))
    return group[edges], [slice(a, b) for a, b in itertools.pairwise([*edges.tolist(), len(number)])]


def _multinomial(rng: np.random.Generator, totals: Array, sizes: Array) -> NDArray[Any]:
    """Split totals as draws with replacement do, shape (width, u)."""
    width, count, times, whole = len(totals), len(sizes), totals.astype(np.int64), int(sizes.sum())
    if whole <= FEW * count:  # each draw by itself
        units = rng.integers(0, whole, times.sum(), dtype=np.uint16)
        if (sizes != 1).any():
            units = np.repeat(np.arange(count), sizes.astype(np.int64))[units]
        units = units + np.repeat(np.arange(0, width * count, count), times)
        return np.bincount(units, minlength=width * count).reshape(width, count)
    drawn, some = np.zeros((width, count)), sizes > 0
    drawn[:, some] = rng.multinomial(times, sizes[some] / sizes.sum())
    return drawn


def _dirichlet(spread: float, rng: np.random.Generator, totals: Array, sizes: Array) -> Array:
    """Split totals as gamma variables of mean `sizes` do, shape (width, u); a size of zero gets nothing."""
    shapes = sizes / spread**2
    shape = shapes[0] if (shapes == shapes[0]).all() else shapes  # numpy draws faster with one for all
    drawn = np.asarray(rng.standard_gamma(shape, (len(totals), len(sizes))))
    whole = drawn.sum(axis=1)
    drawn *= (totals / np.where(whole > 0, whole, 1.0))[:, None]
    return drawn


def multipliers(
    law: str, seed: np.random.SeedSequence, block: int, width: int, number: NDArray[np.intp], sizes: Array | None
) -> tuple[Array, Array]:
    """Draw random multipliers of units.

    Parameters
    ----------
    law : str
        Name of a distribution of `MULTIPLIERS`.
    seed : SeedSequence
        Root of the random stream.
    block, width : int
        Which resamples, as in `Resampler.draw`.
    number : ndarray of int, shape (n,)
        Number of each unit.
    sizes : ndarray, shape (n,), or None
        How many equal units each stands for, all of which have multipliers; None where all are one.

    Returns
    -------
    sums, squares : ndarray, shape (n, width)
        Sum of the multipliers of the equal units, and of their squares.
    """
    values, shares = MULTIPLIERS[law]
    order = np.argsort(number, kind="stable")
    sums, squares = np.empty((2, len(number), width))
    for chunk, place in zip(*_groups(number[order], CHUNK), strict=True):
        rows = order[place]
        rng, within = stream_generator(seed, MULTIPLIER_STREAM, block, int(chunk)), number[rows] - chunk * CHUNK
        if sizes is None:
            drawn = values[np.searchsorted(np.cumsum(shares)[:-1], rng.random((width, CHUNK)), side="right")]
            sums[rows] = drawn[:, within].T
            squares[rows] = sums[rows] ** 2
            continue
        uniform = rng.random((width, len(values) - 1, CHUNK))[..., within]
        left, share = np.repeat(sizes[rows][None], width, axis=0), 1.0
        total = np.zeros((2, width, len(rows)))
        for value, p, u in zip(values, shares, uniform.transpose(1, 0, 2), strict=False):
            times, share = _binomial(u, left, p / share), share - p
            total, left = total + np.multiply.outer([value, value**2], times), left - times
        total += np.multiply.outer([values[-1], values[-1] ** 2], left)
        sums[rows], squares[rows] = total.transpose(0, 2, 1)
    return sums, squares


def _binomial(u: Array, n: Array, p: float) -> Array:
    """Quantiles u of binomial variables; n may be 0."""
    found = np.zeros_like(u)
    for size in np.unique(n[n > 0]).astype(int).tolist():
        own = n == size
        found[own] = np.searchsorted(bdtr(np.arange(size), size, p), u[own])
    return found


def given_multiplicities(name: str, values: Any, n: int) -> Array:
    """Return multiplicities that the user gave as `name`, shape (n, m); an OptionError if they are none."""
    given = np.array(values, dtype=float)
    if given.ndim != 2 or given.shape[0] != n or given.shape[1] < 1:
        raise OptionError(
            f"{name} has shape {given.shape}; expected ({n}, m): a row for each row of the estimation sample, a column "
            "for each resample."
        )
    if not (np.isfinite(given) & (given >= 0)).all():
        raise OptionError(f"{name} has negative or non-finite entries; expected how often each row counts.")
    return given
