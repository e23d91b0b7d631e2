"""Weighted distribution functions of several samples: from the distinct values, or at cuts where these are too many."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causalrisk.numerics.linalg import Array

CUTS = 4096  # distinct values kept of a column in blocks; about so many cuts replace them where it has more
HEAVY = 4  # a value of so many times the weight between two cuts is a cut itself


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
        values, place = np.unique(x, return_inverse=True)
        return cls(values, _sums(place, len(values), sample, weights=weights, n_samples=n_samples))

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
        both = _sums(place, 2 * len(cuts), sample, weights=weights, n_samples=n_samples)
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


def _sums(place: NDArray[np.intp], size: int, sample: NDArray[np.intp], *, weights: Array, n_samples: int) -> Array:
    """Sum weights by place and sample, shape (size, K, m)."""
    code = place * n_samples + sample
    sums = [np.bincount(code, part, size * n_samples).reshape(size, n_samples) for part in weights]
    return np.stack(sums, axis=-1)
