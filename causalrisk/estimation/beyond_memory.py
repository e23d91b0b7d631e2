"""The coded rows of a scan as a sample: in memory where they are few, as Dask arrays where they are not."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalrisk.design import Design, DesignOnDisk, TargetRows
from causalrisk.design.covariates import Covariate, covariates_of_block
from causalrisk.design.scan.coding import CodedRows
from causalrisk.design.scan.design import stored_array
from causalrisk.design.scan.source import Folder
from causalrisk.design.treatment import Arms
from causalrisk.estimation.options import ModelOptions
from causalrisk.estimation.sample import Sample
from causalrisk.learners.folds import Numbers, folds_of
from causalrisk.numerics.blocks import is_dask, loaded
from causalrisk.numerics.linalg import Array, Basis

CHUNK = 100_000  # rows of a target frame that are worked on at a time
FEW = 2**23  # numbers in the columns of both designs, up to which the rows are worked on in memory
Places = list[list[tuple[int, slice]]]  # for each arm the numbers of parts, and its rows in them


def arm_places(design: DesignOnDisk) -> Places:
    """Return where the rows of each arm are."""
    places: Places = [[] for _ in design.labels]
    for k, part in enumerate(design.parts):
        ends = np.searchsorted(part.arm, range(len(places) + 1)).tolist()
        for own, low, high in zip(places, ends, ends[1:], strict=False):
            if high > low:
                own.append((k, slice(low, high)))
    return places


def rows_by_arm(design: DesignOnDisk, name: str) -> Any:
    """Return an array of all rows, sorted by arm; beyond memory a Dask array with a chunk for each arm of each part."""
    places = [place for own in arm_places(design) for place in own]
    if design.n * (len(design.exog_names) + len(design.propensity_names)) <= FEW:
        return np.concatenate([np.asarray(getattr(design.parts[k], name))[rows] for k, rows in places])
    import dask.array as da

    whole = design.dask(name)
    return da.concatenate([whole.blocks[k][rows] for k, rows in places])


def chunked(rows: NDArray[Any], sizes: Any = CHUNK) -> Any:
    """Return rows as a Dask array, by default those of a target frame."""
    import dask.array as da

    return da.from_array(rows, chunks=(sizes, *rows.shape[1:]))


def scanned_sample(design: DesignOnDisk, options: ModelOptions, frame: TargetRows | None) -> Sample:
    """Return the rows of a scan, those of a target frame first."""
    n_frame, names = 0 if frame is None else len(frame.X), design.parts[0].arrays

    def column(name: str, of_frame: Any = 0.0) -> Any:
        found = rows_by_arm(design, name)
        if frame is None:
            return found
        before = np.array(np.broadcast_to(np.asarray(of_frame, dtype=found.dtype), (n_frame, *found.shape[1:])))
        return np.concatenate([chunked(before) if is_dask(found) else before, found])

    def basis(name: str, of: Basis, of_frame: Any) -> Basis:
        found = column(name, of_frame)
        columns = stored_array(found.map_blocks(of.of_rows, dtype=float)) if is_dask(found) else of.of_rows(found)
        return dataclasses.replace(of, columns=columns)

    X = basis("X", design.outcome_basis, None if frame is None else frame.X)
    Z = X if "Z" not in names else basis("Z", design.propensity_basis, None if frame is None else frame.Z)
    y, arm, R, recorded = column("y", design.outcome_limits.mean()), column("arm"), design.observation_basis, None
    if R is not None:
        recorded = np.where(np.isnan(column("y", np.nan)), 0.0, 1.0)
        y = np.where(np.isnan(y), design.outcome_limits.mean(), y)
    offset, stated = column("offset") if "offset" in names else None, options.stated_exposure(design)
    sizes = [sum(rows.stop - rows.start for _, rows in own) for own in arm_places(design)]
    ends = n_frame + np.cumsum(sizes)
    sample = Sample(
        y=y,
        X=X,
        Z=Z,
        arm=arm,
        s=column("weights", 1.0),
        slices=tuple(slice(int(a), int(b)) for a, b in zip(np.r_[0, ends[:-1]], ends, strict=True)),
        order=loaded(rows_by_arm(design, "position")),
        family=options.outcome_family,
        offset=offset,
        mean_offset=offset if stated is None or offset is None else np.full_like(offset, np.log(stated)),
        cluster=column("cluster", design.n_clusters + np.arange(n_frame)) if design.n_clusters else None,
        R=None if R is None else basis("R", R, 0.0),
        recorded=recorded,
        constant=design.constant,
    )
    sample.__dict__["total"] = float(design.arm_totals.sum())
    return sample


def covariates_of_part(design: DesignOnDisk, rows: CodedRows, of_observation: bool = False) -> list[Covariate]:
    """Return the covariates of a part of the rows, those that are constant among them, as in `FittedRows`."""
    variables = design.variables(rows)
    if of_observation:
        treat = Arms(design.levels, design.labels).coded(np.asarray(rows.arm))
        variables = variables.assign(**{design.treat_name: treat})
    return covariates_of_block(design, variables, of_observation)


def folds_by_position(design: Design, n_folds: int, repeat: int = 0) -> Numbers:
    """Return the fold of each row of a design, in memory or not, by its position."""
    if not isinstance(design, DesignOnDisk):
        return folds_of(design.arm, design.cluster, n_folds, repeat)
    names = ("position", "arm", "cluster") if design.n_clusters else ("position", "arm")
    position, arm, *cluster = (np.concatenate([getattr(part, name) for part in design.parts]) for name in names)
    order = np.argsort(position)
    return folds_of(arm[order], cluster[0][order] if cluster else None, n_folds, repeat)


def stored(values: Iterable[Array], chunks: tuple[int, ...]) -> Any:
    """Return rows that are made some at a time as a Dask array over a file."""
    import dask.array as da

    folder, first, file = Folder(), 0, None
    for rows in values:
        if file is None:
            file = np.lib.format.open_memmap(
                f"{folder.path}/rows.npy", mode="w+", dtype=float, shape=(sum(chunks), rows.shape[1])
            )
        file[first : first + len(rows)] = rows
        first += len(rows)
    found = da.from_array(file, chunks=(chunks, -1))
    found.folder = folder  # which goes with the array
    return found
