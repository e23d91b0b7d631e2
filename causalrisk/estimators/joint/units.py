"""The independent units of a sample: rows, clusters, or one of the equal rows that a frequency weight counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causalrisk.estimators.sample import Sample
from causalrisk.numerics.linalg import Array


@dataclass(frozen=True)
class HeldOutUnits:
    """What is left out at once: rows, clusters, or one of the equal rows that a frequency weight counts.

    Parameters
    ----------
    weights : ndarray, shape (n,)
        Weight of each row within its unit.
    counts : ndarray, shape (G,)
        Number of equal units.
    codes : ndarray of int, shape (n,)
        Unit of each row.
    numbers : ndarray of int, shape (G,), optional
        Which of all clusters the units are.
    """

    weights: Array
    counts: Array
    codes: NDArray[np.intp]
    numbers: NDArray[np.intp] | None = None

    def sums(self, rows: Array) -> Array:
        """Weighted sums of rows, shape (n, d), within units, shape (G, d)."""
        if self.numbers is None:  # a unit each
            return self.weights[:, None] * rows
        total = np.zeros((len(self.counts), rows.shape[1]))
        np.add.at(total, self.codes, self.weights[:, None] * rows)
        return total

    @property
    def cluster_numbers(self) -> NDArray[np.intp]:
        """Which of all clusters the units are."""
        return np.arange(len(self.counts)) if self.numbers is None else self.numbers


UnitsOf = Callable[[slice, Sample], HeldOutUnits]  # of a block of rows, and where it is


def clusters_held_out(place: slice, sample: Sample) -> HeldOutUnits:
    """Leave out the clusters that rows of a block are of."""
    if sample.cluster is None:
        raise TypeError("the rows have no clusters")
    numbers, codes = np.unique(sample.cluster, return_inverse=True)
    return HeldOutUnits(sample.s, np.ones(len(numbers)), codes, numbers)


def rows_alone(frequency: bool, place: slice, sample: Sample) -> HeldOutUnits:
    """Leave out each row of a block, or one of the equal rows that a frequency weight counts."""
    ones, rows = np.ones(sample.n), np.arange(sample.n)
    return HeldOutUnits(ones, sample.s, rows) if frequency else HeldOutUnits(sample.s, ones, rows)


@dataclass(frozen=True)
class ByCluster:
    """Sums over the rows of clusters.

    Parameters
    ----------
    numbers : ndarray of int, shape (g,)
        The clusters, ascending.
    sums : tuple of ndarray, shape (g, ...)
        Their sums.
    """

    numbers: NDArray[np.intp]
    sums: tuple[Array, ...]

    def among(self, numbers: NDArray[np.intp]) -> ByCluster:
        """Return the sums of these clusters and others, zero for the others."""
        every = tuple(np.zeros((len(numbers), *own.shape[1:])) for own in self.sums)
        at = np.searchsorted(numbers, self.numbers)
        for whole, own in zip(every, self.sums, strict=True):
            whole[at] = own
        return ByCluster(numbers, every)


def added(parts: Iterable[ByCluster], numbers: NDArray[np.intp] | None = None) -> ByCluster:
    """Add up the sums of rows in several parts.

    Parameters
    ----------
    parts : iterable of ByCluster
        One at least.
    numbers : ndarray of int, optional
        All clusters, where they are known.
    """
    every = iter(parts)
    first = next(every)
    total = first.among(first.numbers if numbers is None else numbers)
    for part in every:
        together = np.union1d(total.numbers, part.numbers) if numbers is None else numbers
        if len(together) > len(total.numbers):
            total = total.among(together)
        at = np.searchsorted(total.numbers, part.numbers)
        for whole, own in zip(total.sums, part.sums, strict=True):
            whole[at] += own
    return total
