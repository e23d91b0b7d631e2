"""The parts of a scan: Parquet and CSV files, frames, partitions of Dask data frames, fragments of Arrow datasets."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalrisk.design.csv_files import csv_frames, csv_names
from causalrisk.design.tables import listing, nearest
from causalrisk.errors import CausalRiskError, DesignError, UnavailableError

T = TypeVar("T")
PARQUET, CSV = (".parquet", ".pq"), (".csv", ".csv.gz")


class Place(NamedTuple):
    """Rows of a file or frame: what messages call them, the number of the first in all data, and how many there are."""

    name: str
    first: int
    n: int


def by_place(function: Callable[[Any], T], places: Sequence[Place], position: NDArray[np.intp]) -> T:
    """Apply a function to the rows of a block: which rows, a slice or bool of shape (n,) -> anything.

    Where it raises a DesignError, this says in which of the places. `position` has the number of each row.
    """
    try:
        return function(slice(None))
    except DesignError:
        for name, first, n in places:
            with naming(name):
                function((position >= first) & (position < first + n))
        raise


@contextmanager
def naming(where: str) -> Iterator[None]:
    """Put the name of a file or frame before the message of a DesignError."""
    try:
        yield
    except DesignError as error:
        raise DesignError(f"{where}: {error}") from error


@dataclass(frozen=True)
class Part:
    """Rows that are read one after the other.

    Parameters
    ----------
    where : str
        The file or frame, for messages.
    names : callable
        Names of its columns.
    read : callable
        Columns, and rows of a frame at the most -> the frames; those with more rows are cut.
    path : str, optional
        The file.
    """

    where: str
    names: Callable[[], list[str]]
    read: Callable[[list[str] | None, int], Iterable[pd.DataFrame]]
    path: str = ""

    def frames(self, columns: Sequence[str] | None, rows: int) -> Iterator[tuple[int, pd.DataFrame]]:
        """Yield the frames that have rows, each with the number of its first row in this part."""
        done = 0
        with reading(self.where):
            for whole in self.read(None if columns is None else list(columns), rows):
                check_columns(whole.columns, columns, self.where)
                frame = whole if columns is None else whole.loc[:, [str(name) in columns for name in whole.columns]]
                for first in range(0, len(frame), rows):
                    yield done + first, frame.iloc[first : first + rows]
                done += len(frame)


@contextmanager
def reading(where: str) -> Iterator[None]:
    """Name the file or frame that cannot be read."""
    try:
        yield
    except CausalRiskError:
        raise
    except (OSError, ValueError, NotImplementedError, KeyError) as error:  # those of pyarrow, pandas and Dask are such
        raise DesignError(
            f"{where} cannot be read: {error}\nCheck that it is complete, that text is UTF-8, and that each column has "
            "the same type in all files."
        ) from error


def check_columns(there: Iterable[Any], columns: Sequence[str] | None, where: str) -> None:
    """Raise a DesignError where a column is not there, or is there several times."""
    known = [str(name) for name in there]
    for name in columns or ():
        if known.count(name) > 1:
            raise DesignError(f"{where} has {known.count(name)} columns {name!r}; expected one.\nRename the others.")
        if name not in known:
            raise DesignError(f"{where} has no column {name!r}, which the model uses.\n{nearest(name, known)}")


def frame_part(frame: pd.DataFrame, where: str) -> Part:
    """Return the part that a frame in memory is."""
    return Part(where, lambda: [str(name) for name in frame.columns], lambda columns, rows: [frame])


def file_parts(patterns: Sequence[str]) -> list[Part]:
    """Return the files of some patterns; a DesignError where there are none, or one is named twice."""
    paths = [path for pattern in patterns for path in _matching(pattern)]
    seen: set[str] = set()
    for path in paths:
        real = os.path.realpath(path)
        if real in seen:
            raise DesignError(f"the file {path!r} is named twice; its rows would count twice.\nName each file once.")
        seen.add(real)
    return [_csv_part(path) if path.lower().endswith(CSV) else _parquet_part(path) for path in paths]


def _matching(pattern: str) -> list[str]:
    """Return the files of a pattern, in the order of their names."""
    found = sorted(glob.glob(pattern, recursive=True)) if glob.has_magic(pattern) else [pattern]
    if not found or not os.path.exists(found[0]):
        raise DesignError(f"no file matches {pattern!r}; expected at least one.\nCheck the folder: {os.getcwd()!r}.")
    if os.path.isdir(found[0]):
        raise DesignError(f'{found[0]!r} is a folder; expected files.\nUse `scan("{found[0].rstrip("/")}/*.parquet")`.')
    odd = next((path for path in found if not path.lower().endswith((*PARQUET, *CSV))), None)
    if odd is not None:
        raise DesignError(
            f"{odd!r} is neither Parquet nor CSV by its name; expected one of {listing((*PARQUET, *CSV))}.\n"
            "Read it with pandas, write it with `to_parquet`, and scan that file."
        )
    return found


def _state(path: str) -> tuple[int, int]:
    """Size of a file in bytes, and the time of its last change in nanoseconds."""
    state = os.stat(path)
    return state.st_size, state.st_mtime_ns


def _check_unchanged(path: str, state: tuple[int, int]) -> None:
    """Raise a DesignError where a file is not what it was when the scan was made."""
    if _state(path) != state:
        raise DesignError(f"the file {path!r} has changed since the scan was made.\nMake scan and model anew.")


def _csv_part(path: str) -> Part:
    state, checked = _state(path), list[bool]()

    def frames(columns: list[str] | None, rows: int) -> Iterator[pd.DataFrame]:
        _check_unchanged(path, state)
        yield from csv_frames(path, rows, columns if checked else None)  # with all columns pandas checks their number
        checked.append(True)

    return Part(path, partial(csv_names, path), frames, path)


def _parquet_part(path: str) -> Part:
    state = _state(path)
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise UnavailableError(
            f"{path!r} is a Parquet file, which needs pyarrow; it is not installed.\nUse `pip install pyarrow`."
        ) from error

    def frames(columns: list[str] | None, rows: int) -> Iterator[pd.DataFrame]:
        _check_unchanged(path, state)
        with pyarrow.parquet.ParquetFile(path) as opened:
            for batch in opened.iter_batches(rows, columns=columns):
                yield batch.to_pandas()

    return Part(path, lambda: list(pyarrow.parquet.read_schema(path).names), frames, path)


def dask_parts(frame: Any) -> list[Part]:
    """Return the partitions of a Dask data frame."""
    names = [str(name) for name in frame.columns]

    def frames(k: int, columns: list[str] | None, rows: int) -> list[pd.DataFrame]:
        used = [name for name in frame.columns if columns is None or str(name) in columns]
        return [frame[used].get_partition(k).compute()]

    return [
        Part(f"partition {k + 1} of the Dask data frame", lambda: names, partial(frames, k))
        for k in range(frame.npartitions)
    ]


def arrow_parts(dataset: Any) -> list[Part]:
    """Return the fragments of an Arrow dataset, such as its files; one that is filtered is a single part."""
    partitioned = getattr(getattr(dataset, "partitioning", None), "schema", None)
    in_folders = [] if partitioned is None else partitioned.names
    names = [str(name) for name in dataset.schema.names]

    def frames(scanner: Callable[..., Any], columns: list[str] | None, rows: int) -> Iterator[pd.DataFrame]:
        for path in dataset.files if hasattr(dataset, "files") else ():  # Arrow would make missing values
            there = dataset.format.inspect(path, dataset.filesystem).names
            check_columns(there, [name for name in columns or () if name not in in_folders], path)
        for batch in scanner(columns=columns, batch_size=rows, use_threads=False).to_batches():
            yield batch.to_pandas()

    try:
        fragments = list(dataset.get_fragments())
    except ValueError:  # it is filtered, which its fragments are not
        return [Part("the Arrow dataset", lambda: names, partial(frames, dataset.scanner))]
    return [
        Part(
            getattr(fragment, "path", "") or f"fragment {k + 1} of the Arrow dataset",
            lambda: names,
            partial(frames, partial(fragment.scanner, schema=dataset.schema)),
            getattr(fragment, "path", ""),
        )
        for k, fragment in enumerate(fragments)
    ]
