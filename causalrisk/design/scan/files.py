"""Parquet and CSV files as they were when a scan was made, in pieces that are read by themselves."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import pandas as pd

from causalrisk.design.columns.dtypes import listing
from causalrisk.design.scan.piece import Piece, check_columns, reading
from causalrisk.errors import DesignError, UnavailableError

PARQUET, CSV = (".parquet", ".pq"), (".csv", ".csv.gz")


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
        for file in self.files:
            check_unchanged(file)
            yield from (_csv_pieces if file.path.lower().endswith(CSV) else _parquet_pieces)(file, block_rows)

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
        raise DesignError(
            f"{odd!r} is neither Parquet nor CSV by its name; expected one of {listing((*PARQUET, *CSV))}.\n"
            f'Type  scan(lambda: pandas.read_{_reader(odd)}("{odd}", chunksize=100_000))  if that reads it.'
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


def _reader(path: str) -> str:
    """Name of the pandas function that reads such a file in chunks."""
    return {".dta": "stata", ".sas7bdat": "sas", ".xpt": "sas"}.get(os.path.splitext(path)[1].lower(), "csv")


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


def _parquet_pieces(file: File, block_rows: int) -> Iterator[Piece]:
    """Row groups of a Parquet file, as many together as make a block."""
    with reading(file.path, 0):
        sizes = _row_groups(file)
    start, groups = 0, list[int]()
    for k in range(len(sizes)):
        groups.append(k)
        own = sum(sizes[j] for j in groups)
        if own >= block_rows or k + 1 == len(sizes):
            size = -(-own // -(-own // block_rows)) if own else block_rows  # blocks of the same size
            yield Piece(file.path, partial(_parquet_frames, file, tuple(groups), size), start)
            start, groups = start + own, []
    if not sizes:
        yield Piece(file.path, partial(_parquet_frames, file, (), block_rows))


@lru_cache(maxsize=2**16)
def _row_groups(file: File) -> tuple[int, ...]:
    """Rows of each row group of a Parquet file."""
    _schema(file.path)
    from pyarrow.parquet import read_metadata

    found = read_metadata(file.path)
    return tuple(found.row_group(k).num_rows for k in range(found.num_row_groups))


def _parquet_frames(
    file: File, groups: tuple[int, ...], block_rows: int, columns: Sequence[str] | None
) -> Iterator[pd.DataFrame]:
    """Frames of row groups of a Parquet file, text as categories."""
    check_unchanged(file)
    path, schema = file.path, _schema(file.path)
    from pyarrow.parquet import ParquetFile

    check_columns(schema.names, columns, path)
    used = list(schema.names if columns is None else dict.fromkeys(columns))
    text = [name for name in used if str(schema.field(name).type) == "string"]
    with ParquetFile(path, read_dictionary=text) as opened:
        for batch in opened.iter_batches(batch_size=block_rows, row_groups=list(groups), columns=used):
            frame = batch.to_pandas()
            for name in text:
                frame[name] = frame[name].cat.reorder_categories(sorted(frame[name].cat.categories))
            yield frame


def _schema(path: str) -> Any:
    """Return the schema of a Parquet file."""
    try:
        from pyarrow.parquet import read_schema
    except ImportError as error:
        raise UnavailableError(
            f"{path!r} is a Parquet file, which needs pyarrow; it is not installed.\nType  pip install pyarrow."
        ) from error
    return read_schema(path)


def _csv_pieces(file: File, block_rows: int) -> Iterator[Piece]:
    """Return the piece that a CSV file is: where its rows begin is not known before it is read."""
    yield Piece(file.path, partial(_csv_frames, file, block_rows))


def _csv_frames(file: File, block_rows: int, columns: Sequence[str] | None) -> Iterator[pd.DataFrame]:
    """Frames of a CSV file."""
    check_unchanged(file)
    if columns is not None:
        check_columns(pd.read_csv(file.path, nrows=0).columns, columns, file.path)
    with pd.read_csv(file.path, usecols=columns, chunksize=block_rows) as frames:
        yield from frames
