"""The coded rows of a scan: in memory where they are few, as Dask arrays where they are not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalrisk.design import Design, DesignOnDisk
from causalrisk.design.covariates import Covariate, covariates_of_block
from causalrisk.design.scan.coding import CodedRows
from causalrisk.design.scan.source import Folder
from causalrisk.design.treatment import Arms
from causalrisk.learners.folds import Numbers, folds_of
from causalrisk.numerics.linalg import Array

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
