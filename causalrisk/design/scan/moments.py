"""The second pass over a scan: what the designs, the arms and the outcome leave of all rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from causalrisk.design.scan.encode import CodedBlock, PassCounter
from causalrisk.design.scan.store import View, Writer
from causalrisk.design.support.columns import arm_spans
from causalrisk.design.support.rank import ColumnMoments
from causalrisk.errors import DesignError
from causalrisk.numerics.linalg import Array


@dataclass(frozen=True)
class Moments:
    """What the second pass learns.

    Parameters
    ----------
    X, Z : ColumnMoments
        Of both designs.
    y : ColumnMoments
        Of the outcome, and of the outcome less its offset.
    rows : ndarray of int, shape (K,)
        Rows of each arm.
    totals : ndarray, shape (K,)
        Sum of their weights.
    members : ndarray of int, shape (m,)
        Cluster times K plus arm, where a cluster has rows in an arm.
    """

    X: ColumnMoments
    Z: ColumnMoments
    y: ColumnMoments
    rows: np.ndarray
    totals: Array
    members: np.ndarray

    def beside(self, other: Moments) -> Moments:
        """Return those of other rows beside these."""
        return Moments(
            X=self.X.beside(other.X),
            Z=self.Z.beside(other.Z),
            y=self.y.beside(other.y),
            rows=self.rows + other.rows,
            totals=self.totals + other.totals,
            members=np.union1d(self.members, other.members),
        )

    @property
    def outcome_limits(self) -> Array:
        """Smallest and largest outcome of each arm, shape (K, 2)."""
        return np.column_stack([self.y.low[:, 0], self.y.high[:, 0]])

    def outcome(self) -> tuple[float, float]:
        """Mean and standard deviation under the weights of the outcome less its offset."""
        triangle = self.y.triangle
        mean = self.y.origin[1] + triangle[0, 2] / triangle[0, 0]
        return float(mean), float(np.linalg.norm(triangle[1:, 2]) / abs(triangle[0, 0]))


def moments(
    source: View,
    first: CodedBlock,
    n_arms: int,
    writer: Writer | None = None,
    workers: int = 1,
    passes: PassCounter | None = None,
) -> Moments:
    """Make the second pass, in which the coded rows are written to where they are kept.

    Parameters
    ----------
    source : View
        The rows.
    first : CodedBlock
        The first block of them.
    n_arms : int
        K.
    writer : Writer, optional
        Keeps the rows.
    workers, passes
        As in `BlockCoder.over`.
    """
    origins = tuple(np.median(columns, axis=0) for columns in (first.X, first.Z, _outcomes(first)))
    found: Moments | None = None
    for made, block in source.over(partial(_moments_of, origins, n_arms, writer is not None), workers, passes):
        if writer is not None and block is not None:
            writer.append(block)
        found = made if found is None else found.beside(made)
    if found is None:
        raise DesignError("the second pass over the data found no rows.\nGive scan a function that begins anew.")
    return found


def spans(
    source: View, n_arms: int, directions: Array, workers: int = 1, passes: PassCounter | None = None
) -> tuple[Array, Array]:
    """Limits in each arm of combinations of the columns of the propensity design, as by `arm_spans`; a pass."""
    parts = list(source.over(partial(_spans_of, n_arms, directions), workers, passes))
    return np.min([low for low, _ in parts], axis=0), np.max([high for _, high in parts], axis=0)


def _spans_of(k: int, directions: Array, block: CodedBlock) -> tuple[Array, Array]:
    return arm_spans(block.Z, block.arm, k, directions)


def _outcomes(block: CodedBlock) -> Array:
    """Outcome, and outcome less its offset, shape (n, 2)."""
    return np.column_stack([block.y, block.y if block.offset is None else block.y - block.offset])


def _moments_of(origins: tuple[Array, ...], k: int, kept: bool, block: CodedBlock) -> tuple[Moments, CodedBlock | None]:
    """Return the moments of a block, and the block itself where it is to be kept."""
    X, Z, y = (
        ColumnMoments.of(columns, block.arm, k, origin=origin, weights=block.weights)
        for columns, origin in zip((block.X, block.Z, _outcomes(block)), origins, strict=True)
    )
    cluster = np.empty(0, dtype=np.intp) if block.cluster is None else block.cluster
    found = Moments(
        X=X,
        Z=Z,
        y=y,
        rows=np.bincount(block.arm, minlength=k),
        totals=np.bincount(block.arm, block.weights, minlength=k).astype(float),
        members=np.unique(cluster * k + block.arm[: len(cluster)]),
    )
    return found, replace(block, table=None, place=None) if kept else None
