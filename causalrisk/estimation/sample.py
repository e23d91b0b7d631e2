"""The numbers of a design in the form the estimators work on: rows grouped by arm, designs as orthonormal bases."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalrisk.design import Design, TargetRows
from causalrisk.estimation.options import ModelOptions
from causalrisk.numerics.blocks import chunk_sizes, chunks_of, is_dask, totals
from causalrisk.numerics.families import OutcomeFamily
from causalrisk.numerics.linalg import Array, Basis, orthonormal_basis, plain_basis

BY_ROW = ("y", "arm", "s", "offset", "mean_offset", "recorded", "cluster", "stratum")


@dataclass(frozen=True)
class Sample:
    """Rows sorted by arm, so that each arm is a slice.

    The rows of a target frame, which have covariates only, stand first. They share the slice of the reference arm, and
    `in_sample` and their importance weights are zero, so that only averages over the target see them.

    Parameters
    ----------
    y : ndarray, shape (n,)
        Outcome; its mean in the rows of a target frame, where it counts for nothing.
    X : Basis
        Basis of the outcome design; columns of shape (n, p).
    Z : Basis
        Basis of the propensity design; columns of shape (n, q).
    arm : ndarray of int, shape (n,)
        Arm of each row, ascending.
    s : ndarray, shape (n,)
        Observation weights; one in the rows of a target frame.
    slices : tuple of slice
        Rows of each arm.
    order : ndarray of int, shape (n_design,)
        Position in the design of each row that is not of a target frame.
    family : OutcomeFamily
        Family of the outcome models.
    offset : ndarray, shape (n,), optional
        Known part of the linear predictor of the outcome models; 0 in the rows of a target frame.
    mean_offset : ndarray, shape (n,), optional
        The same where the means of the arms are taken; present where `offset` is.
    R : Basis, optional
        Basis of the design of the observation model, where outcomes are missing; columns of shape (n, r).
    recorded : ndarray, shape (n,), optional
        1.0 for the rows whose outcome was observed, where some are missing; `y` is then a mean outcome in the others.
    late : ndarray, shape (n,), optional
        1.0 for the rows of the later period of repeated cross sections, whose arm means are changes between periods.
    constant : ndarray, shape (p,), optional
        Of rows beyond memory the coefficients of X that give the constant.
    cluster, stratum : ndarray of int, shape (n,), optional
        Cluster and stratum of each row, of a survey design without replicate weights.
    """

    y: Array
    X: Basis
    Z: Basis
    arm: NDArray[np.signedinteger[Any]]
    s: Array
    slices: tuple[slice, ...]
    order: NDArray[np.intp]
    family: OutcomeFamily
    offset: Array | None = None
    mean_offset: Array | None = None
    R: Basis | None = None
    recorded: Array | None = None
    late: Array | None = None
    constant: Array | None = None
    cluster: Any = None
    stratum: Any = None

    @property
    def n(self) -> int:
        """Number of rows, with those of a target frame."""
        return len(self.y)

    @property
    def n_frame(self) -> int:
        """Number of rows of a target frame."""
        return self.n - len(self.order)

    @cached_property
    def in_sample(self) -> Array:
        """1.0 for the rows of the sample, 0.0 for those of a target frame, shape (n,)."""
        return (np.arange(self.n) >= self.n_frame).astype(float)

    @property
    def with_outcome(self) -> Array:
        """1.0 for the rows of the sample whose outcome was observed, shape (n,)."""
        return self.in_sample if self.recorded is None else self.recorded

    @cached_property
    def total(self) -> float:
        """Sum of the observation weights of the sample, N."""
        return float(self.s[self.n_frame :].sum())

    @property
    def n_arms(self) -> int:
        """Number of arms, K."""
        return len(self.slices)

    @property
    def indicators(self) -> Array:
        """1.0 in the arm of each row, shape (n, K)."""
        return np.eye(self.n_arms)[:, self.arm].T  # what goes by arm is then one row of memory

    def in_periods(self, columns: Array) -> Array:
        """Columns, shape (n, k); of repeated cross sections once for each period and zero in the other, (n, 2 k)."""
        if self.late is None:
            return columns
        late = self.late[:, None]
        return np.hstack([columns * (1 - late), columns * late])

    def at_means(self, columns: Array) -> Array:
        """Columns `in_periods` where means are taken: of repeated cross sections those of the change, (m, 2 k)."""
        return columns if self.late is None else np.hstack([-columns, columns])

    def own(self, values: Array) -> Array:
        """Values of shape (K, n, ...) in each row's own arm, shape (n, ...)."""
        return np.concatenate([values[a, rows] for a, rows in enumerate(self.slices)])

    def clusters(self, codes: NDArray[np.intp] | None) -> NDArray[np.intp] | None:
        """Cluster of each row from those of the design's rows; each row of a target frame is one of its own."""
        if codes is None:
            return None
        return self.arrange(np.concatenate([codes, int(codes.max()) + 1 + np.arange(self.n_frame)]))

    def restore(self, values: NDArray[Any]) -> NDArray[Any]:
        """Values of shape (n, ...) in this order, those of the sample put back into the order of the design."""
        restored = np.empty_like(values[self.n_frame :])
        restored[self.order] = values[self.n_frame :]
        return restored

    def arrange(self, values: NDArray[Any]) -> NDArray[Any]:
        """Values of the design's rows, then of the target frame's, shape (n, ...), in the order of the sample."""
        return np.concatenate([values[len(self.order) :], values[self.order]])

    # --- rows beyond memory ------------------------------------------------------------------------------------------

    @cached_property
    def columns(self) -> dict[str, Any]:
        """The arrays that go by row, by their names."""
        known = {name: getattr(self, name) for name in (*BY_ROW, "X", "R", *(["Z"] if self.Z is not self.X else []))}
        return {n: of.columns if isinstance(of, Basis) else of for n, of in known.items() if of is not None}

    @property
    def with_rows(self) -> Sample:
        """The same with all rows in memory."""
        columns = dict(zip(self.columns, totals(self.columns.values()), strict=True))
        return self.some(columns, (0, self.n), self.slices, self.n_frame, self.total)

    @cached_property
    def empty(self) -> Sample:
        """The same without rows, in memory."""
        none = {name: np.empty((0, *values.shape[1:]), values.dtype) for name, values in self.columns.items()}
        return self.some(none, (0, 0), self.slices, self.n_frame, self.total)

    @cached_property
    def chunks(self) -> list[Any]:
        """The sample of each chunk of rows beyond memory, delayed."""
        if not is_dask(self.y):
            return []
        import dask

        make, edges = dask.delayed(self.empty.some), np.cumsum([0, *chunk_sizes(self.y)]).tolist()
        parts = {name: chunks_of(values) for name, values in self.columns.items()}
        return [
            make({name: each[k] for name, each in parts.items()}, edge, self.slices, self.n_frame, self.total)
            for k, edge in enumerate(itertools.pairwise(edges))
        ]

    def some(
        self, columns: dict[str, Any], edge: tuple[int, int], slices: tuple[slice, ...], n_frame: int, total: float
    ) -> Sample:
        """Return the rows of a sample from the first to the last, whose columns are these."""
        first, last = edge
        names = [name for name in "XZR" if name in columns]
        bases = {name: dataclasses.replace(getattr(self, name), columns=columns[name]) for name in names}
        found = dataclasses.replace(
            self,
            **columns | {"Z": bases["X"]} | bases,
            order=np.arange(last - np.clip(n_frame, first, last)),
            slices=within(slices, slice(first, last)),
        )
        found.__dict__["total"] = total
        return found


def make_sample(design: Design, options: ModelOptions, frame: TargetRows | None, *, given: bool = False) -> Sample:
    """Sort the rows of a design by arm and orthonormalise its columns.

    Parameters
    ----------
    design : Design
        The data, in memory.
    options : ModelOptions
        The family of the outcome, and the exposure that means are at.
    frame : TargetRows or None
        The rows of a target frame; with an offset means are then at one exposure.
    given : bool, default False
        Whether the outcome design is predictions that stay as they are.
    """
    n_frame = 0 if frame is None else len(frame.X)
    order = np.argsort(design.arm, kind="stable")  # of short integers in time proportional to the rows
    ends = n_frame + np.cumsum(np.bincount(design.arm))
    weights, y, seen = design.weights[order], design.y, design.observation

    def column(values: NDArray[Any], of_frame: float = 0.0) -> NDArray[Any]:
        own = values[order]
        return np.concatenate([np.full(n_frame, of_frame, own.dtype), own]) if n_frame else own

    def basis(own: Array, of_frame: Array | None) -> Basis:
        found = orthonormal_basis(own, weights, order)
        if not n_frame:
            return found
        before = np.zeros((n_frame, own.shape[1])) if of_frame is None else found.of_rows(of_frame)
        return dataclasses.replace(found, columns=np.concatenate([before, found.columns]))

    if seen is not None:
        y = np.where(seen.recorded, y, y[seen.recorded].mean())
    if given:
        X = plain_basis(design.X[order] if frame is None else np.vstack([frame.X, design.X[order]]))
    else:
        X = basis(design.X, None if frame is None else frame.X)
    same, stated = design.Z is design.X, options.stated_exposure(design)
    offset = None if design.offset is None else column(design.offset)
    sample = Sample(
        y=column(y, y.mean()),
        X=X,
        Z=X if same else basis(design.Z, None if frame is None else frame.Z),
        arm=column(design.arm),
        s=column(design.weights, 1.0),
        slices=tuple(slice(int(low), int(high)) for low, high in zip(np.r_[0, ends[:-1]], ends, strict=True)),
        order=order,
        family=options.outcome_family,
        offset=offset,
        mean_offset=offset if offset is None or stated is None else np.full_like(offset, np.log(stated)),
        R=None if seen is None else basis(seen.columns, None),
        recorded=None if seen is None else column(seen.recorded.astype(float)),
        late=None if design.periods is None else design.periods.late[order].astype(float),
    )
    if design.survey is None or design.survey.replication is not None:
        return dataclasses.replace(sample, cluster=sample.clusters(design.cluster))
    stratum = column(design.survey.stratum, len(design.survey.units))  # a target frame has one of its own, the last
    return dataclasses.replace(sample, cluster=sample.clusters(design.cluster), stratum=stratum)


def within(slices: tuple[slice, ...], rows: slice) -> tuple[slice, ...]:
    """Return the slices of the arms within some of the rows."""
    first, last = rows.start, rows.stop
    return tuple(slice(*(min(max(end, first), last) - first for end in (arm.start, arm.stop))) for arm in slices)
