"""What a scan reads in pieces: files as they were when it was made, Dask data frames and Arrow datasets."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from typing import Any, NamedTuple

import pandas as pd

from causalrisk.design.columns.dtypes import listing
from causalrisk.design.scan.chunks import Part, Piece, Source, check_columns, frame_part, pieces_of, reading
from causalrisk.errors import DesignError, UnavailableError

PARQUET, CSV = (".parquet", ".pq"), (".csv", ".csv.gz")
HEAD = 2**16  # bytes of a CSV file by which its rows are counted, about
PACKED = 16  # bytes of a row in a compressed one, about
THREAD_ROWS = 2**16  # that Arrow's threads are worth their start for
OTHER_TYPES = (
    "Is a file incomplete, has it a column of another type than the first, or does a filter name what is not there? "
    "The first file gives the types, unless  pyarrow.dataset.dataset(..., schema=...)  does; "
    'scan("folder/*.parquet") reads files of several types.'
)


class File(NamedTuple):
    """A file as it was when the scan was made: size in bytes, time of the last change in ns."""

    path: str
    size: int
    changed: int


@dataclass(frozen=True)
class Files:
    """Files of a scan.

    Parameters
    ----------
    files : tuple of File
        At least one.
    """

    files: tuple[File, ...]

    @classmethod
    def matching(cls, patterns: Sequence[str]) -> Files:
        """Return the files of some patterns; a DesignError where there are none, or one is named twice."""
        paths = [path for pattern in patterns for path in _matching(pattern)]
        _check_once(paths)
        return cls(tuple(_file(path) for path in paths))

    def __str__(self) -> str:
        return f"{len(self.files)} files, the first {self.files[0].path!r}"

    def has(self, path: str) -> bool:
        """Whether a file is one of these."""
        return any(same_file(path, file.path) for file in self.files)

    def pieces(self, columns: Sequence[str] | None, block_rows: int) -> Iterator[Piece]:
        """As in `Source`."""
        return pieces_of(self._parts(block_rows), block_rows)

    def _parts(self, block_rows: int) -> Iterator[Part]:
        for file in self.files:
            check_unchanged(file)
            if file.path.lower().endswith(CSV):
                yield Part(file.path, partial(_csv_frames, file, block_rows), _lines(file), counted=False)
            else:
                yield from _parquet_parts(file, block_rows)

    def column_names(self) -> list[str]:
        """As in `Source`; those of the first file and of the last, so that one that the first misses is told."""
        return list(dict.fromkeys([*_columns_of(self.files[0]), *_columns_of(self.files[-1])]))


def same_file(path: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    """Whether two paths lead to one file, be it by a link or by another spelling."""
    try:
        return os.path.samefile(path, other)
    except OSError:  # one of them is not there
        return os.path.realpath(path) == os.path.realpath(other)


def _columns_of(file: File) -> list[str]:
    check_unchanged(file)
    with reading(file.path, 0):
        if file.path.lower().endswith(CSV):
            return [str(name) for name in pd.read_csv(file.path, nrows=0).columns]
        return list(_schema(file.path).names)


def _matching(pattern: str) -> list[str]:
    """Files of a pattern, in the order of their names; a DesignError where there are none."""
    found = sorted(glob.glob(pattern, recursive=True)) if glob.has_magic(pattern) else [pattern]
    if not found or not os.path.exists(found[0]):
        raise DesignError(f"no file matches {pattern!r}; expected at least one.\nCheck the folder: {os.getcwd()!r}.")
    if os.path.isdir(found[0]):
        raise _no_files(found[0].rstrip("/"))
    odd = next((path for path in found if not path.lower().endswith((*PARQUET, *CSV))), None)
    if odd is not None:
        readers = {".dta": "stata", ".sas7bdat": "sas", ".xpt": "sas"}  # of pandas, which read such a file in chunks
        reader = readers.get(os.path.splitext(odd)[1].lower(), "csv")
        raise DesignError(
            f"{odd!r} is neither Parquet nor CSV by its name; expected one of {listing((*PARQUET, *CSV))}.\n"
            f'Type  scan(lambda: pandas.read_{reader}("{odd}", chunksize=100_000))  if that reads it.'
        )
    return found


def _no_files(folder: str) -> DesignError:
    """Say how to name the files of a folder, and one whose folders have the values of a column in their names."""
    typed = f'scan("{folder}/*.parquet")'
    if any("=" in name and os.path.isdir(os.path.join(folder, name)) for name in os.listdir(folder)):
        typed = f'scan(pyarrow.dataset.dataset("{folder}", partitioning="hive"))'
    return DesignError(f"{folder!r} is a folder; expected files.\nType  {typed}.")


def _check_once(paths: Sequence[str]) -> None:
    """Raise a DesignError where a file is named twice, whose rows would count twice."""
    seen: set[str] = set()
    for path in paths:
        real = os.path.realpath(path)
        if real in seen:
            raise DesignError(f"the file {path!r} is named twice; its rows would count twice.\nName each file once.")
        seen.add(real)


def _file(path: str) -> File:
    state = os.stat(path)
    return File(path, state.st_size, state.st_mtime_ns)


def check_unchanged(file: File) -> None:
    """Raise a DesignError where a file is gone or is not what it was when the scan was made."""
    try:
        now = _file(file.path)
    except FileNotFoundError as error:
        raise DesignError(
            f"the file {file.path!r} is gone; every pass over the data reads it again.\nPut it back, or scan anew."
        ) from error
    if now != file:
        raise DesignError(
            f"the file {file.path!r} has changed since the scan was made ({file.size:,} bytes then, {now.size:,} now); "
            "every pass over the data has to read the same rows.\nMake scan and model anew when it is complete."
        )


def _parquet_parts(file: File, block_rows: int) -> Iterator[Part]:
    """Row groups of a Parquet file, as many together as make a block."""
    with reading(file.path, 0):
        sizes = _row_groups(file)
    start, groups = 0, list[int]()
    for k in range(len(sizes)):
        groups.append(k)
        own = sum(sizes[j] for j in groups)
        if own >= block_rows or k + 1 == len(sizes):
            yield Part(file.path, partial(_parquet_batches, file, tuple(groups), block_rows), own, start)
            start, groups = start + own, []
    if not sizes:
        yield Part(file.path, partial(_parquet_batches, file, (), block_rows), 0)


@lru_cache(maxsize=2**16)
def _row_groups(file: File) -> tuple[int, ...]:
    """Rows of each row group of a Parquet file."""
    _schema(file.path)
    from pyarrow.parquet import read_metadata

    found = read_metadata(file.path)
    return tuple(found.row_group(k).num_rows for k in range(found.num_row_groups))


@lru_cache(maxsize=2**16)
def _check_file(file: File, columns: tuple[str, ...] | None) -> None:
    """Raise a DesignError where a file does not have the columns; that it has them is remembered."""
    if columns is not None:
        check_columns(_columns_of(file), columns, file.path)


def _parquet_batches(
    file: File, groups: tuple[int, ...], block_rows: int, columns: Sequence[str] | None
) -> Iterator[Any]:
    """Batches of row groups of a Parquet file."""
    check_unchanged(file)
    used = None if columns is None else tuple(dict.fromkeys(columns))
    _check_file(file, used)
    from pyarrow.parquet import ParquetFile

    with ParquetFile(file.path) as opened:
        rows = sum(_row_groups(file)[k] for k in groups)
        threads = rows >= THREAD_ROWS
        yield from opened.iter_batches(block_rows, list(groups), columns=used and list(used), use_threads=threads)


def _schema(path: str) -> Any:
    """Return the schema of a Parquet file."""
    try:
        from pyarrow.parquet import read_schema
    except ImportError as error:
        raise UnavailableError(
            f"{path!r} is a Parquet file, which needs pyarrow; it is not installed.\nType  pip install pyarrow."
        ) from error
    return read_schema(path)


@lru_cache(maxsize=2**16)
def _lines(file: File) -> int:
    """Rows of a CSV file, about, by the lines at its beginning."""
    if file.path.lower().endswith(".gz"):
        return file.size // PACKED
    with reading(file.path, 0), open(file.path, "rb") as opened:
        head = opened.read(HEAD)
    return max(round(head.count(b"\n") * file.size / max(len(head), 1)) - 1, 0)


def _csv_frames(file: File, block_rows: int, columns: Sequence[str] | None) -> Iterator[pd.DataFrame]:
    """Frames of a CSV file."""
    check_unchanged(file)
    _check_file(file, None if columns is None else tuple(columns))
    with pd.read_csv(file.path, usecols=columns, chunksize=block_rows) as frames:
        yield from frames


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
    # Here and now, also in a worker of a cluster; if it were named, Dask would warn there.
    yield part.compute(scheduler=sys.modules["dask"].get)


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
