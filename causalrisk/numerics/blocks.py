"""Blocks of rows: sums over blocks, and distributions of values that come in blocks, too many to be kept.

A value is counted by its key, 64 bits in the order of the numbers. Where there are more distinct values than are
kept, values of the wanted ranks are found digit by digit: a pass counts the values by the next 16 bits of their keys
within the part that has a rank, so that the fourth pass at the latest knows the whole key. Distribution functions are
those of the distinct values, or at cuts where these are too many.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from causalrisk.numerics.linalg import Array

Keys = NDArray[np.uint64]
DISTINCT = 2**20  # distinct values kept, at the most
DIGIT, DIGITS = 16, 4  # bits of a digit, and digits of a key
SIGN = np.uint64(2**63)
CUTS = 4096  # distinct values kept of a column in blocks; about so many cuts replace them where it has more
COUNTED = 2**16  # whole numbers within less than this of one another are counted
HEAVY = 4  # a value of so many times the weight between two cuts is a cut itself


def add_up(parts: Iterable[T]) -> T:
    """Add up records of sums over the rows of a block.

    Parameters
    ----------
    parts : iterable
        One a block and at least one: arrays, or tuples, lists, dictionaries or dataclasses of these, or what has a
        method `beside` that merges it with that of later rows; None is no sum in every block.

    Returns
    -------
    object
        The sums over all rows.
    """
    every = iter(parts)
    total = next(every)
    for part in every:
        total = _added(total, part)
    return total


def _added(first: Any, second: Any) -> Any:
    if first is None:
        return None
    if isinstance(first, tuple | list):
        return type(first)(_added(a, b) for a, b in zip(first, second, strict=True))
    if isinstance(first, dict):
        return {key: _added(value, second[key]) for key, value in first.items()}
    if hasattr(first, "beside"):
        return first.beside(second)
    if dataclasses.is_dataclass(first) and not isinstance(first, type):
        names = [field.name for field in dataclasses.fields(first)]
        return dataclasses.replace(first, **{n: _added(getattr(first, n), getattr(second, n)) for n in names})
    return first + second


def of_made(function: Callable[[Any], T], make: Callable[[Any], Any], block: Any) -> T:
    """Apply a function to what is made of a block; at the top of a module, so that workers can import it."""
    return function(make(block))


def taken(record: T, which: Any, *names: str) -> T:
    """Return a record with some of the rows of its arrays.

    Parameters
    ----------
    record : dataclass
        The record.
    which : slice, or ndarray of bool or int
        The rows.
    *names : str
        The fields that go by rows; None stays None, and two that are one array stay one.
    """
    found: dict[int, Any] = {id(None): None}
    for name in names:
        array = getattr(record, name)
        if id(array) not in found:
            found[id(array)] = array[which]
    return dataclasses.replace(record, **{name: found[id(getattr(record, name))] for name in names})  # type: ignore[type-var]


def spread_evenly(numbers: NDArray[np.intp], share: float) -> NDArray[np.intp]:
    """Where a share of rows stand, by their numbers in the sample: those whose multiples of the golden ratio end low.

    Of any stretch of rows it takes that share, and no period of the rows is one of its own.
    """
    return np.flatnonzero((numbers * GOLDEN) % 1.0 < share)


def keys_of(values: Array) -> Keys:
    """Return integers in the order of the numbers; -0.0 and 0.0 have the same."""
    bits = (np.asarray(values, dtype=np.float64) + 0.0).view(np.uint64)
    return np.where(bits >= SIGN, ~bits, bits | SIGN)


def numbers_of(keys: Keys) -> Array:
    """Return the numbers of integers from `keys_of`."""
    return np.where(keys >= SIGN, keys ^ SIGN, ~keys).view(np.float64)


@dataclass(frozen=True)
class Tally:
    """Counts of values, of a block or of all.

    Parameters
    ----------
    n : int
        Number of values counted.
    low, high : float
        Smallest and largest.
    keys, counts : ndarray, shape (d,), or None
        Distinct keys in their order, and their counts; None where there are more than `DISTINCT`.
    digits : ndarray of int, shape (p, 65536)
        Counts by the next digit of the key in each part of a search.
    """

    n: int
    low: float
    high: float
    keys: Keys | None
    counts: NDArray[np.intp] | None
    digits: NDArray[np.intp]

    def beside(self, other: Tally) -> Tally:
        """Merge with the tally of other values."""
        keys, counts = None, None
        if self.keys is not None and other.keys is not None:
            keys, which = np.unique(np.concatenate([self.keys, other.keys]), return_inverse=True)
            counts = np.zeros(len(keys), dtype=np.intp)
            np.add.at(counts, which, np.concatenate([self.counts, other.counts]))
        return Tally(
            n=self.n + other.n,
            low=min(self.low, other.low),
            high=max(self.high, other.high),
            keys=keys if keys is not None and len(keys) <= DISTINCT else None,
            counts=counts if keys is not None and len(keys) <= DISTINCT else None,
            digits=self.digits + other.digits,
        )


@dataclass(frozen=True)
class Search:
    """Search for the values of some ranks: each pass tallies all values and narrows the search by a digit.

    Parameters
    ----------
    ranks : ndarray of int, shape (r,)
        Ranks of the order statistics wanted, from 0.
    size : int
        Number of values that the next pass has to count.
    known : int, default 0
        Number of digits known of the wanted keys.
    parts : ndarray of uint64, shape (p,)
        Known digits of each part of the search, ascending; before the first pass a 0.
    below : ndarray of int, shape (p,)
        Number of values below each part.
    """

    ranks: NDArray[np.intp]
    size: int
    known: int = 0
    parts: Keys = field(default_factory=lambda: np.zeros(1, dtype=np.uint64))
    below: NDArray[np.intp] = field(default_factory=lambda: np.zeros(1, dtype=np.intp))

    def tally(self, values: Array) -> Tally:
        """Count the values of a block, shape (n,), finite."""
        keys = keys_of(values)
        part = np.zeros(len(keys), dtype=np.intp)
        if self.known:
            leading = keys >> np.uint64(DIGIT * (DIGITS - self.known))
            part = np.minimum(np.searchsorted(self.parts, leading), len(self.parts) - 1)
            inside = self.parts[part] == leading
            keys, part = keys[inside], part[inside]
        digit = (keys >> np.uint64(DIGIT * (DIGITS - 1 - self.known))) & np.uint64(2**DIGIT - 1)
        shape = len(self.parts), 2**DIGIT
        distinct, counts = np.unique(keys, return_counts=True)
        few = len(distinct) <= DISTINCT
        return Tally(
            n=len(keys),
            low=float(np.min(values, initial=np.inf)),
            high=float(np.max(values, initial=-np.inf)),
            keys=distinct if few else None,
            counts=counts if few else None,
            digits=np.bincount((part << DIGIT) | digit.astype(np.intp), minlength=shape[0] * shape[1]).reshape(shape),
        )

    def found(self, tally: Tally) -> Array | None:
        """Return the values of the ranks, shape (r,), or None where another pass is needed."""
        if not len(self.ranks):
            return np.empty(0)
        if tally.keys is not None and tally.counts is not None:
            upto = np.cumsum(tally.counts)
            before = np.concatenate([[0], np.cumsum(tally.digits.sum(axis=1))])[:-1]  # counted in the parts before
            part = self._part_of(self.ranks)
            at = np.searchsorted(upto, self.ranks - self.below[part] + before[part], side="right")
            return numbers_of(tally.keys[at])
        if self.known == DIGITS - 1:
            after = self.narrowed(tally)
            return numbers_of(after.parts[after._part_of(self.ranks)])
        return None

    def narrowed(self, tally: Tally) -> Search:
        """Return the search that knows one digit more."""
        part = self._part_of(self.ranks)
        upto = np.cumsum(tally.digits, axis=1)
        local = self.ranks - self.below[part]
        digit = np.array([np.searchsorted(upto[p], k, side="right") for p, k in zip(part, local, strict=True)])
        own = tally.digits[part, digit]
        keys = (self.parts[part] << np.uint64(DIGIT)) | digit.astype(np.uint64)
        parts, first = np.unique(keys, return_index=True)
        return replace(
            self,
            size=int(own[first].sum()),
            known=self.known + 1,
            parts=parts,
            below=(self.below[part] + upto[part, digit] - own)[first],
        )

    def _part_of(self, ranks: NDArray[np.intp]) -> NDArray[np.intp]:
        return np.searchsorted(self.below, ranks, side="right") - 1


@dataclass(frozen=True)
class Percentiles:
    """Percentiles of n values, as `numpy.percentile` has them, by interpolation between order statistics.

    Parameters
    ----------
    n : int
        Number of values.
    percents : ndarray, shape (k,)
        The percentiles, from 0 to 100.
    """

    n: int
    percents: Array

    @property
    def _position(self) -> Array:
        return np.asarray((self.n - 1) * np.true_divide(self.percents, 100), dtype=np.float64)

    @property
    def ranks(self) -> NDArray[np.intp]:
        """Ranks of the values around each percentile, shape (2 * k,): all lower neighbours, then all upper ones."""
        left = np.floor(self._position).astype(np.intp)
        return np.minimum(np.concatenate([left, left + 1]), self.n - 1)

    def of(self, values: Array) -> Array:
        """Return the percentiles, shape (k,), given the values of `ranks`."""
        position = self._position
        low, high = values.reshape(2, -1)
        share = position - np.floor(position)
        with np.errstate(all="ignore"):
            step = high - low
            return np.where(share >= 0.5, high - step * (1 - share), low + step * share)


@dataclass(frozen=True)
class Spread:
    """Means of columns and sums of squares about them, of a block or of all rows.

    Parameters
    ----------
    n : int
        Rows.
    mean, squares : ndarray of longdouble, shape (k,)
        Means, and sums of squared differences from them.
    """

    n: int
    mean: NDArray[np.longdouble]
    squares: NDArray[np.longdouble]

    @classmethod
    def of(cls, columns: Array) -> Spread:
        """Return the spread of the rows of a block, shape (n, k); of a constant it is exact."""
        first = columns[0].astype(np.longdouble)
        away = columns - first
        mean = away.mean(axis=0)
        return cls(len(columns), first + mean, ((away - mean) ** 2).sum(axis=0))

    def beside(self, other: Spread) -> Spread:
        """Merge with the spread of other rows, by the formula of Chan, Golub and LeVeque."""
        n, apart = self.n + other.n, other.mean - self.mean
        squares = self.squares + other.squares + apart**2 * (self.n * other.n / n)
        return Spread(n, self.mean + apart * (other.n / n), squares)


@dataclass(frozen=True)
class Steps:
    """Step functions: the distribution functions of K samples, each under m weights.

    Parameters
    ----------
    values : ndarray, shape (d,)
        Distinct values, ascending.
    masses : ndarray, shape (d, K, m)
        Weight of each sample at each value; where neighbours were joined, up to it.
    exact : bool, default True
        Whether no values were joined.
    """

    values: Array
    masses: Array
    exact: bool = True

    @classmethod
    def of(cls, x: Array, sample: NDArray[np.intp], weights: Array, n_samples: int) -> Steps:
        """Return the distribution functions of some rows.

        Parameters
        ----------
        x : ndarray, shape (n,)
            The values.
        sample : ndarray of int, shape (n,)
            Sample of each row.
        weights : ndarray, shape (m, n)
            Its weights.
        n_samples : int
            K.
        """
        if len(x) and x.max() - x.min() < COUNTED and (x == np.floor(x)).all():  # whole numbers are counted, not sorted
            low = x.min()
            place = (x - low).astype(np.intp)
            there = np.flatnonzero(np.bincount(place))
            masses = sums_at(place, there[-1] + 1, sample, weights=weights, n_samples=n_samples)
            return cls(low + there, masses[there])
        values, place = np.unique(x, return_inverse=True)
        return cls(values, sums_at(place, len(values), sample, weights=weights, n_samples=n_samples))

    def beside(self, other: Steps) -> Steps:
        """Merge with the distribution functions of other rows."""
        values, place = np.unique(np.concatenate([self.values, other.values]), return_inverse=True)
        masses = np.zeros((len(values), *self.masses.shape[1:]))
        np.add.at(masses, place, np.concatenate([self.masses, other.masses]))
        return Steps(values, masses, self.exact and other.exact)

    def joined(self, most: int | None = None) -> Steps:
        """Coarsen to about `CUTS` values of like weight by joining neighbours; as they are where there are no more."""
        most = CUTS if most is None else most
        if len(self.values) <= most:
            return self
        total = self.masses.sum(axis=0)
        shares = np.divide(self.masses, total, out=np.zeros_like(self.masses), where=total > 0).mean(axis=(1, 2))
        rank = np.floor(np.cumsum(shares) / shares.sum() * most).astype(np.intp)
        ends = np.append(rank[1:] > rank[:-1], True)
        last = np.flatnonzero(ends | (shares > HEAVY / most))
        upto = np.cumsum(self.masses, axis=0)[last]
        return Steps(self.values[last], np.diff(upto, axis=0, prepend=0), exact=False)

    def distances(self) -> Array:
        """Largest distance of each sample but the first from the first, shape (K - 1, m); ties jump together."""
        upto = np.cumsum(self.masses, axis=0)
        with np.errstate(invalid="ignore"):  # of a sample without weight there is none
            upto /= upto[-1]
        return np.abs(upto[:, 1:] - upto[:, :1]).max(axis=0)


@dataclass(frozen=True)
class Cells:
    """Weight of K samples at cuts and between them, under m weights; cells of blocks add up.

    Parameters
    ----------
    between, at : ndarray, shape (d, K, m)
        Weight of the values between each cut and the cut before it, and of the values equal to the cut.
    """

    between: Array
    at: Array

    @classmethod
    def of(cls, x: Array, sample: NDArray[np.intp], weights: Array, *, cuts: Array, n_samples: int) -> Cells:
        """Return the cells of some rows, none above the last cut; other parameters as in `Steps.of`."""
        cell = np.minimum(np.searchsorted(cuts, x), len(cuts) - 1)
        place = 2 * cell + (cuts[cell] == x)
        both = sums_at(place, 2 * len(cuts), sample, weights=weights, n_samples=n_samples)
        return cls(both[::2], both[1::2])

    def distances(self) -> tuple[Array, Array]:
        """Largest distance at a cut, and by how much it may be larger between two, both of shape (K - 1, m)."""
        total = (self.between + self.at).sum(axis=0)
        with np.errstate(invalid="ignore"):
            between, at = self.between / total, self.at / total
        upto = np.cumsum(between + at, axis=0)
        gaps = upto[:, 1:] - upto[:, :1]
        before = gaps - (between + at)[:, 1:] + (between + at)[:, :1]
        most = np.maximum(before + between[:, 1:], between[:, :1] - before).max(axis=0)
        found = np.abs(gaps).max(axis=0)
        return found, np.maximum(most - found, 0)


def sums_at(
    place: NDArray[np.integer], size: int, sample: NDArray[np.intp], *, weights: Array, n_samples: int
) -> Array:
    """Sum weights of shape (m, n) by place below `size` and sample below K, both of shape (n,): (size, K, m)."""
    code = place * n_samples + sample
    sums = [np.bincount(code, part, size * n_samples).reshape(size, n_samples) for part in weights]
    return np.stack(sums, axis=-1)


T = TypeVar("T")
Rows = slice | NDArray[np.intp]  # which rows
KEPT = 2**27  # bytes that are kept between passes
GOLDEN = (np.sqrt(5) - 1) / 2
