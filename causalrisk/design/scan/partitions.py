"""Data that other libraries hold in parts: Dask data frames and Arrow datasets, as the sources of a scan."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd

from causalrisk.design.scan.files import same_file
from causalrisk.design.scan.piece import Piece, Source, check_columns, frame_piece, reading, slices

OTHER_TYPES = (
    "Is a file incomplete, has it a column of another type than the first, or does a filter name what is not there? "
    "The first file gives the types, unless  pyarrow.dataset.dataset(..., schema=...)  does; "
    'scan("folder/*.parquet") reads files of several types.'
)


def held_in_parts(data: Any) -> Source | None:
    """Return a Dask data frame or an Arrow dataset as the source of a scan; None for anything else."""
    library = type(data).__module__.partition(".")[0]
    if library in ("dask", "dask_expr") and hasattr(data, "get_partition") and hasattr(data, "columns"):
        return Partitions(data)
    if library == "pyarrow" and hasattr(data, "get_fragments"):
        return Fragments(data)
    return None


@dataclass(frozen=True)
class Partitions:
    """The partitions of a Dask data frame, each of which is a piece.

    Parameters
    ----------
    frame : dask.dataframe.DataFrame
        The data.
    """

    frame: Any

    def __str__(self) -> str:
        return f"a Dask data frame of {self.frame.npartitions} partitions"

    def pieces(self, columns: Sequence[str] | None, block_rows: int) -> Iterator[Piece]:
        """As in `Source`; a partition is worked out where it is read, but for those that a cluster holds."""
        check_columns(self.frame.columns, columns, str(self))
        used = [name for name in self.frame.columns if columns is None or str(name) in columns]
        frame = self.frame[used]
        for k in range(frame.npartitions):
            part, where = frame.get_partition(k), f"partition {k + 1} of the Dask data frame"
            if _held(part):
                yield frame_piece(part.compute(), where, columns, block_rows)
            else:
                yield Piece(where, partial(_computed, part, block_rows))

    def column_names(self) -> list[str]:
        """As in `Source`."""
        return [str(name) for name in self.frame.columns]


def _held(part: Any) -> bool:
    """Whether a cluster holds the rows, so that only its client gets them."""
    return any(type(task).__module__.partition(".")[0] == "distributed" for task in part.dask.values())


def _computed(part: Any, block_rows: int, columns: Sequence[str] | None) -> Iterator[pd.DataFrame]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Running on a single-machine scheduler")  # it is meant
        frame = part.compute(scheduler="synchronous")
    yield from slices(frame, block_rows, columns)


@dataclass(frozen=True)
class Fragments:
    """The fragments of an Arrow dataset, such as its files, each of which is a piece.

    Parameters
    ----------
    dataset : pyarrow.dataset.Dataset
        The data; one that is filtered is a single piece.
    """

    dataset: Any

    def __str__(self) -> str:
        return "an Arrow dataset"

    def has(self, path: str) -> bool:
        """Whether a file is one of those of the dataset."""
        return any(same_file(path, file) for file in getattr(self.dataset, "files", ()))

    def pieces(self, columns: Sequence[str] | None, block_rows: int) -> Iterator[Piece]:
        """As in `Source`."""
        self._check_files(columns)
        try:
            fragments = list(self.dataset.get_fragments())
        except ValueError:  # it is filtered, which its fragments are not
            yield Piece(str(self), partial(_batches, self.dataset.scanner, block_rows), advice=OTHER_TYPES)
            return
        for k, fragment in enumerate(fragments):
            where = getattr(fragment, "path", "") or f"fragment {k + 1} of the Arrow dataset"
            scanner = partial(fragment.scanner, schema=self.dataset.schema)
            yield Piece(where, partial(_batches, scanner, block_rows), advice=OTHER_TYPES)

    def _check_files(self, columns: Sequence[str] | None) -> None:
        """Refuse files without a column, of which Arrow would make missing values."""
        partitioned = getattr(getattr(self.dataset, "partitioning", None), "schema", None)
        in_folders = [] if partitioned is None else partitioned.names
        needed = [name for name in columns or () if name not in in_folders]
        for path in getattr(self.dataset, "files", ()):
            with reading(path, 0, OTHER_TYPES):
                there = self.dataset.format.inspect(path, self.dataset.filesystem).names
            check_columns(there, needed, path)

    def column_names(self) -> list[str]:
        """As in `Source`."""
        return [str(name) for name in self.dataset.schema.names]


def _batches(scanner: Any, block_rows: int, columns: Sequence[str] | None) -> Iterator[pd.DataFrame]:
    used = None if columns is None else list(dict.fromkeys(columns))
    for batch in scanner(columns=used, batch_size=block_rows, use_threads=False).to_batches():
        yield batch.to_pandas()
