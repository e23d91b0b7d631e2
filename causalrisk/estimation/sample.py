"""The numbers of a design in the form the estimators work on: rows grouped by arm, designs as orthonormal bases."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalrisk.design import Design, DesignOnDisk, TargetRows
from causalrisk.design.scan.design import stored_array
from causalrisk.estimation.beyond_memory import arm_places, chunked, rows_by_arm
from causalrisk.estimation.options import ModelOptions
from causalrisk.numerics.blocks import chunk_sizes, chunks_of, is_dask, loaded, totals
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
        The data, in memory or on disk.
    options : ModelOptions
        The family of the outcome, and the exposure that means are at.
    frame : TargetRows or None
        The rows of a target frame, which stand first; with an offset means are then at one exposure.
    given : bool, default False
        Whether the outcome design is predictions that stay as they are.
    """
    own: Callable[[str], Any]
    if isinstance(design, DesignOnDisk):
        names, own = design.parts[0].arrays, partial(rows_by_arm, design)
        order, sizes = loaded(own("position")), [sum(r.stop - r.start for _, r in each) for each in arm_places(design)]
    else:
        names, order, sizes = arrays_of(design), np.argsort(design.arm, kind="stable"), [*np.bincount(design.arm)]
        own = partial(rows_in_order, names, order)
    n_frame, middle = 0 if frame is None else len(frame.X), 0.0
    if n_frame or design.observation is not None:
        middle = float(design.outcome_limits.mean())  # of outcomes that count for nothing

    def column(name: str, of_frame: Any = 0.0) -> Any:
        """Return the rows of the target frame, then those of the sample."""
        found = own(name)
        if not n_frame:
            return found
        before = np.array(np.broadcast_to(np.asarray(of_frame, dtype=found.dtype), (n_frame, *found.shape[1:])))
        return np.concatenate([chunked(before) if is_dask(found) else before, found])

    def basis(name: str, of_frame: Any = 0.0) -> Basis:
        """Return the basis of a design in all rows."""
        if isinstance(design, DesignOnDisk):
            bases = {"X": design.outcome_basis, "Z": design.propensity_basis, "R": design.observation_basis}
            of: Any = bases[name]
            rows = column(name, of_frame)
            columns = stored_array(rows.map_blocks(of.of_rows, dtype=float)) if is_dask(rows) else of.of_rows(rows)
            return dataclasses.replace(of, columns=columns)
        of = plain_basis(own(name)) if given and name == "X" else orthonormal_basis(names[name], s[n_frame:], order)
        if not n_frame:
            return of
        before = of.of_rows(np.broadcast_to(of_frame, (n_frame, of.columns.shape[1])))
        return dataclasses.replace(of, columns=np.concatenate([before, of.columns]))

    ends, stated = n_frame + np.cumsum(sizes), options.stated_exposure(design)
    y, offset, recorded = column("y", middle), column("offset") if "offset" in names else None, None
    if "R" in names:
        recorded = np.where(np.isnan(column("y", np.nan)), 0.0, 1.0)
        y = np.where(np.isnan(y), middle, y)
    s = column("weights", 1.0)
    X = basis("X", 0.0 if frame is None else frame.X)
    n_strata = 0 if design.survey is None else len(design.survey.units)  # a target frame is one more, the last
    sample = Sample(
        y=y,
        X=X,
        Z=basis("Z", 0.0 if frame is None else frame.Z) if "Z" in names else X,
        arm=column("arm"),
        s=s,
        slices=tuple(slice(int(low), int(high)) for low, high in zip(np.r_[0, ends[:-1]], ends, strict=True)),
        order=order,
        family=options.outcome_family,
        offset=offset,
        mean_offset=offset if offset is None or stated is None else np.full_like(offset, np.log(stated)),
        R=basis("R") if "R" in names else None,
        recorded=recorded,
        late=column("late") if "late" in names else None,
        cluster=column("cluster", design.n_clusters + np.arange(n_frame)) if "cluster" in names else None,
        stratum=column("stratum", n_strata) if "stratum" in names else None,
    )
    if isinstance(design, DesignOnDisk):
        sample = dataclasses.replace(sample, constant=design.constant)
        sample.__dict__["total"] = float(design.arm_totals.sum())
    return sample


def arrays_of(design: Design) -> dict[str, NDArray[Any]]:
    """Return the arrays of a design in memory by the names that they have on disk; without Z where it is X."""
    seen, survey, periods = design.observation, design.survey, design.periods
    found = {name: getattr(design, name) for name in ("y", "X", "Z", "arm", "weights", "offset", "cluster")}
    found |= {
        "Z": None if design.Z is design.X else design.Z,
        "R": None if seen is None else seen.columns,
        "late": None if periods is None else periods.late.astype(float),
        "stratum": None if survey is None or survey.replication is not None else survey.stratum,
    }
    return {name: array for name, array in found.items() if array is not None}


def rows_in_order(arrays: Mapping[str, NDArray[Any]], order: NDArray[np.intp], name: str) -> NDArray[Any]:
    """Return an array of rows in an order."""
    return arrays[name][order]


def within(slices: tuple[slice, ...], rows: slice) -> tuple[slice, ...]:
    """Return the slices of the arms within some of the rows."""
    first, last = rows.start, rows.stop
    return tuple(slice(*(min(max(end, first), last) - first for end in (arm.start, arm.stop))) for arm in slices)
