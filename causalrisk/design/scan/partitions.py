"""Data that other libraries hold in parts: Dask data frames and Arrow datasets, as the sources of a scan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import pandas as pd

from causalrisk.design.scan.chunks import Part, Piece, Source, check_columns, frame_part, pieces_of, reading
from causalrisk.design.scan.files import same_file

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
                given = frame_part(part.compute(), where, columns)
            else:  # what it has is not known
                given = Part(where, partial(_computed, part), block_rows, counted=False)
            yield Piece((given,), block_rows)

    def column_names(self) -> list[str]:
        """As in `Source`."""
        return [str(name) for name in self.frame.columns]


def _held(part: Any) -> bool:
    """Whether a cluster holds the rows, so that only its client gets them."""
    return any(type(task).__module__.partition(".")[0] == "distributed" for task in part.dask.values())


def _computed(part: Any, columns: Sequence[str] | None) -> Iterator[pd.DataFrame]:
    import dask

    # Here and now, also in a worker of a cluster; if it were named, Dask would warn there.
    yield part.compute(scheduler=dask.get)


@dataclass(frozen=True)
class Fragments:
    """The fragments of an Arrow dataset, such as its files.

    Parameters
    ----------
    dataset : pyarrow.dataset.Dataset
        The data; one that is filtered is a single piece.
    checked : set of frozenset
        Columns that all files are known to have.
    """

    dataset: Any
    checked: set[frozenset[str]] = field(default_factory=set, repr=False, compare=False)

    def __str__(self) -> str:
        return "an Arrow dataset"

    def has(self, path: str) -> bool:
        """Whether a file is one of those of the dataset."""
        return any(same_file(path, file) for file in getattr(self.dataset, "files", ()))

    def pieces(self, columns: Sequence[str] | None, block_rows: int) -> Iterator[Piece]:
        """As in `Source`."""
        names = frozenset(columns or ())
        if names not in self.checked:
            self._check_files(columns)
            self.checked.add(names)
        return pieces_of(self._parts(block_rows), block_rows)

    def _parts(self, block_rows: int) -> Iterator[Part]:
        for where, scanner, rows in self._fragments:
            read = partial(_batches, scanner, block_rows)
            known = block_rows if rows is None else rows
            yield Part(where, read, known, advice=OTHER_TYPES, counted=rows is not None)

    @cached_property
    def _fragments(self) -> list[tuple[str, Any, int | None]]:
        """What messages call each fragment, what reads it, and its rows where they are known without reading it."""
        try:
            fragments = list(self.dataset.get_fragments())
        except ValueError:  # it is filtered, which its fragments are not
            return [(str(self), self.dataset.scanner, None)]
        found = []
        for k, fragment in enumerate(fragments):
            where = getattr(fragment, "path", "") or f"fragment {k + 1} of the Arrow dataset"
            with reading(where, 0, OTHER_TYPES):
                rows = getattr(getattr(fragment, "metadata", None), "num_rows", None)  # of Parquet
            found.append((where, partial(fragment.scanner, schema=self.dataset.schema), rows))
        return found

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


def _batches(scanner: Any, block_rows: int, columns: Sequence[str] | None) -> Iterator[Any]:
    used = None if columns is None else list(dict.fromkeys(columns))
    return scanner(columns=used, batch_size=block_rows, use_threads=False).to_batches()
