"""Vectors of single rows in the space of theta, kept as what they are multiples of until they are written out.

Gradients of single rows and derivatives of their influence function, K p numbers a row, are sums of multiples of the
row's outcome columns in the places of the arms and of a few vectors that all rows share.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from causalrisk.numerics.linalg import Array


@dataclass(frozen=True)
class RowVectors:
    """A vector of each of n rows; they add up.

    Parameters
    ----------
    scales : ndarray, shape (K, n), or None
        Multiples of the row's outcome columns, in the place of each arm; None for none.
    factors : ndarray, shape (r, n)
        Multiples of the shared vectors.
    shared : ndarray, shape (r, K p)
        The shared vectors.
    own : ndarray, shape (K p, n), or None
        What is of no such form.
    """

    scales: Array | None
    factors: Array
    shared: Array
    own: Array | None = None

    @classmethod
    def of_columns(cls, scales: Array, p: int) -> RowVectors:
        """Return multiples, shape (K, n), of the p outcome columns in the place of each arm."""
        n_arms, n = scales.shape
        return cls(scales, np.empty((0, n)), np.empty((0, n_arms * p)))

    @classmethod
    def of_shared(cls, factors: Array, shared: Array) -> RowVectors:
        """Return multiples, shape (r, n), of vectors that all rows share, (r, K p) or (r, K, p)."""
        return cls(None, factors, shared.reshape(len(factors), -1))

    @classmethod
    def over_replicates(cls, measure: Array, values: Array) -> RowVectors:
        """Sum over replicates of a measure, (n, b) or the same (n, 1) for all, times values, shape (b, K p)."""
        if measure.shape[1] == 1:
            return cls.of_shared(measure.T, values.sum(axis=0, keepdims=True))
        return cls.of_own(values.T @ measure.T)

    @classmethod
    def of_own(cls, own: Array) -> RowVectors:
        """Return any vectors, shape (K p, n)."""
        width, n = own.shape
        return cls(None, np.empty((0, n)), np.empty((0, width)), own)

    @classmethod
    def none(cls, n: int, width: int) -> RowVectors:
        """Return vectors of zeros, K p of them `width`."""
        return cls(None, np.empty((0, n)), np.empty((0, width)))

    def __add__(self, other: RowVectors) -> RowVectors:
        """Add vectors of the same rows."""
        return RowVectors(
            scales=_added(self.scales, other.scales),
            factors=np.concatenate([self.factors, other.factors]),
            shared=np.concatenate([self.shared, other.shared]),
            own=_added(self.own, other.own),
        )

    def __neg__(self) -> RowVectors:
        """Turn them round."""
        scales, own = (None if part is None else -part for part in (self.scales, self.own))
        return RowVectors(scales, self.factors, -self.shared, own)

    def __sub__(self, other: RowVectors) -> RowVectors:
        """Subtract vectors of the same rows."""
        return self + -other

    def by_place(self, factor: Array) -> RowVectors:
        """Multiply what are not multiples of the row's columns by a factor of each component, shape (K p,)."""
        own = None if self.own is None else factor[:, None] * self.own
        return RowVectors(self.scales, self.factors, self.shared * factor, own)

    def written(self, columns: Array) -> Array:
        """Write them out, shape (K p, n); `columns` are the outcome columns, (p, n)."""
        total = self.shared.T @ self.factors
        if self.own is not None:
            total += self.own
        if self.scales is not None:
            for place, scale in zip(total.reshape(-1, *columns.shape), self.scales, strict=True):
                place += scale * columns
        return total


def in_place(vectors: Array) -> Array:
    """Put a vector of each arm into its place, shape (K, K p), from shape (K, p)."""
    n_arms, p = vectors.shape
    placed = np.zeros((n_arms, n_arms, p))
    placed[np.arange(n_arms), np.arange(n_arms)] = vectors
    return placed.reshape(n_arms, n_arms * p)


def _added(one: Array | None, other: Array | None) -> Array | None:
    if one is None or other is None:
        return other if one is None else one
    return one + other
