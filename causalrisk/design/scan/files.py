"""Rows of a scan as they are read: in pieces that are read by themselves, here or by a worker, joined to blocks.

Pieces are of files as they were when the scan was made, of Dask data frames and of Arrow datasets.
"""

from __future__ import annotations

import glob
import itertools
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalrisk.design.csv_files import csv_frames, csv_names
from causalrisk.design.dtypes import listing
from causalrisk.design.tables import nearest
from causalrisk.errors import CausalRiskError, DesignError, UnavailableError

EXACT = 2**53  # whole numbers up to this are floats without loss
T = TypeVar("T")
INCOMPLETE = "Is it complete? Write it again, or leave it out."


def alike(first: Any, other: Any) -> bool:
    """Whether rows can be put below others, and be what they are by themselves.

    Parameters
    ----------
    first, other : DataFrame or RecordBatch
        The rows.

    Returns
    -------
    bool
        True where all columns are of the same type, and categories the same in the same order; whole numbers go with
        floats where these hold them.
    """
    if not isinstance(first, pd.DataFrame) or not isinstance(other, pd.DataFrame):
        if type(first) is not type(other) or not first.schema.equals(other.schema):
            return False
        pairs = ((a, b) for a, b in zip(first.columns, other.columns, strict=True) if hasattr(a, "dictionary"))
        return all(a.dictionary.equals(b.dictionary) for a, b in pairs)
    if list(first.columns) != list(other.columns):
        return False
    return all(_same_type(first.iloc[:, k], other.iloc[:, k]) for k in range(first.shape[1]))


def _same_type(first: pd.Series, other: pd.Series) -> bool:
    """Whether two columns are of one type, categories in one order, or whole numbers beside floats that hold them."""
    a, b = first.dtype, other.dtype
    if a == b:
        return not isinstance(a, pd.CategoricalDtype) or list(a.categories) == list(b.categories)
    if not all(isinstance(dtype, np.dtype) and dtype.kind in "if" for dtype in (a, b)):
        return False
    return all(values.dtype.kind == "f" or -EXACT <= values.min() <= values.max() <= EXACT for values in (first, other))


def joined(rows: Sequence[Any]) -> pd.DataFrame:
    """Put rows that are alike one below the other.

    Parameters
    ----------
    rows : sequence of DataFrame, or of RecordBatch
        The rows; text of Arrow becomes categories in alphabetical order.

    Returns
    -------
    DataFrame
        With the index of its frame where it is one.
    """
    if isinstance(rows[0], pd.DataFrame):
        return rows[0] if len(rows) == 1 else pd.concat(rows, ignore_index=True)
    import pyarrow

    table = pyarrow.Table.from_batches([batch.replace_schema_metadata(rows[0].schema.metadata) for batch in rows])
    text = [field.name for field in table.schema if field.type == pyarrow.string()]
    for name in text:
        k = table.schema.get_field_index(name)
        table = table.set_column(k, name, table.column(k).dictionary_encode())
    frame = table.to_pandas()
    for name in text:
        frame[name] = frame[name].cat.reorder_categories(sorted(frame[name].cat.categories))
    return frame


class Place(NamedTuple):
    """Rows of a file or frame: what messages call them, the number of the first in all data, and how many there are."""

    name: str
    first: int
    n: int


def renumbered(places: Sequence[Place], position: NDArray[np.intp], first: int) -> tuple[Place, ...]:
    """Return the places of some of the rows, numbered one after the other.

    Parameters
    ----------
    places : sequence of Place
        Where all rows are from, one after the other.
    position : ndarray of int, shape (n,)
        Numbers of the rows, in order.
    first : int
        New number of the first of these.
    """
    edges = np.searchsorted(position, [*(place.first for place in places), places[-1].first + places[-1].n])
    numbered = ((place, int(a), int(b)) for place, (a, b) in zip(places, itertools.pairwise(edges), strict=True))
    return tuple(Place(place.name, first + a, b - a) for place, a, b in numbered if b > a)


def name_of(places: Sequence[Place]) -> str:
    """Return what messages call rows that come from some places."""
    return places[0].name if len(places) == 1 else f"{places[0].name}, to {places[-1].name}"


def by_place(function: Callable[[Any], T], places: Sequence[Place], position: NDArray[np.intp], why: str = "") -> T:
    """Apply a function to the rows of a block; where it raises a DesignError, say in which of the places.

    Parameters
    ----------
    function : callable
        Which rows, a slice or bool of shape (n,) -> anything.
    places : sequence of Place
        Where the rows are from.
    position : ndarray of int, shape (n,)
        Number of each row in all data.
    why : str
        Put before what is wrong.
    """
    try:
        return function(slice(None))
    except DesignError as error:
        for name, first, n in places if len(places) > 1 else ():
            try:
                function((position >= first) & (position < first + n))
            except DesignError as own:
                raise DesignError(f"{name}: {why}{own}") from own
        raise DesignError(f"{name_of(places)}: {why}{error}") from error


class NamedBlock(NamedTuple):
    """Some rows one after the other, and where they are from."""

    frame: pd.DataFrame
    places: tuple[Place, ...]

    @property
    def position(self) -> NDArray[np.intp]:
        """Number of each row in all data, shape (n,)."""
        return self.places[0].first + np.arange(len(self.frame))


@dataclass(frozen=True)
class Part:
    """Rows that are read from one place.

    Parameters
    ----------
    where : str
        The file or frame, for messages.
    read : callable
        Columns, or None for all -> data frames or Arrow batches.
    rows : int
        How many there are, about.
    start : int
        Rows of the file before these.
    advice : str
        What to type where they cannot be read.
    counted : bool
        Whether `rows` is exact.
    """

    where: str
    read: Callable[[Sequence[str] | None], Iterable[Any]]
    rows: int
    start: int = 0
    advice: str = INCOMPLETE
    counted: bool = True

    def stretches(self, columns: Sequence[str] | None) -> Iterator[Stretch]:
        """Read the rows, as many at a time as come."""
        done, given = self.start, None
        while True:
            with reading(self.where, done, self.advice):
                given = iter(self.read(columns)) if given is None else given
                rows = next(given, None)
            if rows is None:
                return
            if len(rows):
                yield Stretch(self, done, rows)
            done += len(rows)


class Stretch(NamedTuple):
    """Rows of a part that have been read, a data frame or an Arrow batch, and how many of the file are before them."""

    part: Part
    start: int
    rows: Any

    def some(self, first: int, n: int) -> Stretch:
        """Return n rows from the given one on."""
        whole = isinstance(self.rows, pd.DataFrame)
        rows = self.rows.iloc[first : first + n] if whole else self.rows.slice(first, n)
        return Stretch(self.part, self.start + first, rows)


@dataclass(frozen=True)
class Piece:
    """Parts that are read together, here or by a worker elsewhere.

    Parameters
    ----------
    parts : tuple of Part
        At least one.
    block_rows : int
        Rows of a block at the most.
    """

    parts: tuple[Part, ...]
    block_rows: int

    @property
    def where(self) -> str:
        """What messages call it."""
        first, last = self.parts[0].where, self.parts[-1].where
        return first if first == last else f"{first} to {last}"

    def blocks(self, columns: Sequence[str] | None, first: int) -> Iterator[NamedBlock]:
        """Read the blocks that have rows; `first` is the number of the first row in all data.

        A block ends where it is full, and where the next rows are stored otherwise, so that rows beside others are what
        they are by themselves.
        """
        waiting, room = list[Stretch](), self.block_rows
        for stretch in itertools.chain.from_iterable(part.stretches(columns) for part in self.parts):
            done = 0
            while done < len(stretch.rows):
                if waiting and (not room or not alike(waiting[0].rows, stretch.rows)):
                    yield _block(waiting, columns, first)
                    first, waiting, room = first + self.block_rows - room, [], self.block_rows
                waiting.append(stretch.some(done, room))
                done, room = done + len(waiting[-1].rows), room - len(waiting[-1].rows)
        if waiting:
            yield _block(waiting, columns, first)


def _block(stretches: Sequence[Stretch], columns: Sequence[str] | None, first: int) -> NamedBlock:
    """Put rows that are alike one below the other."""
    places = list[Place]()
    for part, start, rows in stretches:
        places.append(Place(f"{part.where}, rows {start} to {start + len(rows) - 1}", first, len(rows)))
        first += len(rows)
    part, start, _ = stretches[0]
    with reading(part.where, start, part.advice):
        frame = joined([stretch.rows for stretch in stretches])
    return NamedBlock(_only(frame, columns, part.where), tuple(places))


def pieces_of(parts: Iterable[Part], block_rows: int) -> Iterator[Piece]:
    """Take as many parts together as make a block.

    Parameters
    ----------
    parts : iterable of Part
        In the order of the data.
    block_rows : int
        Rows of a block at the most.
    """
    waiting, rows = list[Part](), 0
    for part in parts:
        waiting.append(part)
        rows += part.rows
        if rows >= block_rows:
            yield _piece(waiting, rows, block_rows)
            waiting, rows = [], 0
    if waiting:
        yield _piece(waiting, rows, block_rows)


def _piece(parts: Sequence[Part], rows: int, block_rows: int) -> Piece:
    """Return the piece that some parts are, its blocks of the same size where their rows are counted."""
    even = rows > 0 and all(part.counted for part in parts)
    return Piece(tuple(parts), -(-rows // -(-rows // block_rows)) if even else block_rows)


class Source(Protocol):
    """Where the rows of a scan are from; `str` of it is for messages."""

    def pieces(self, columns: Sequence[str] | None, block_rows: int) -> Iterator[Piece]:
        """Begin a pass over the pieces.

        Parameters
        ----------
        columns : sequence of str or None
            The columns that will be read; None for all.
        block_rows : int
            Rows of a block at the most.
        """

    def column_names(self) -> list[str]:
        """Names of all columns."""


@contextmanager
def reading(where: str, rows: int, advice: str = INCOMPLETE) -> Iterator[None]:
    """Name the file or frame that cannot be read."""
    try:
        yield
    except (OSError, ValueError, NotImplementedError, KeyError) as error:  # those of pyarrow, pandas and Dask are such
        if isinstance(error, CausalRiskError):
            raise
        if isinstance(error, UnicodeDecodeError):
            how = f'"{where}", encoding="latin-1", chunksize=100_000'
            advice = f"Say how its text is encoded:  scan(lambda: pandas.read_csv({how}))."
        raise DesignError(f"{where} cannot be read after {rows:,} rows: {error}\n{advice}") from error


def check_columns(there: Iterable[Any], columns: Sequence[str] | None, where: str) -> None:
    """Raise a DesignError where a column is not there, or is there several times."""
    known = [str(name) for name in there]
    for name in columns or ():
        if known.count(name) > 1:
            raise DesignError(f"{where} has {known.count(name)} columns {name!r}; expected one.\nRename the others.")
        if name not in known:
            raise DesignError(
                f"{where} has no column {name!r}, which the model uses and other blocks have; expected the same "
                f"columns in all.\n{nearest(name, known)}"
            )


def frame_part(frame: pd.DataFrame, where: str, columns: Sequence[str] | None) -> Part:
    """Return the part that a frame in memory is, with the columns that are read alone."""
    return Part(where, partial(_itself, _only(frame, columns, where)), len(frame))


def _only(frame: pd.DataFrame, columns: Sequence[str] | None, where: str) -> pd.DataFrame:
    """Return the columns that are read, which all have to be there."""
    check_columns(frame.columns, columns, where)
    return frame if columns is None else frame.loc[:, [str(name) in columns for name in frame.columns]]


def _itself(frame: pd.DataFrame, columns: Sequence[str] | None) -> Iterator[pd.DataFrame]:
    yield frame


PARQUET, CSV = (".parquet", ".pq"), (".csv", ".csv.gz")
_READ: set[File] = set()  # CSV files that were read to the end: each row fits the header
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
            return csv_names(file.path)
        return list(_schema(file.path).names)


def _matching(pattern: str) -> list[str]:
    """Files of a pattern, in the order of their names; a DesignError where there are none."""
    found = sorted(glob.glob(pattern, recursive=True)) if glob.has_magic(pattern) else [pattern]
    if not found or not os.path.exists(found[0]):
        raise DesignError(f"no file matches {pattern!r}; expected at least one.\nCheck the folder: {os.getcwd()!r}.")
    if os.path.isdir(found[0]):
        folder = found[0].rstrip("/")
        typed = f'scan("{folder}/*.parquet")'
        if any("=" in name and os.path.isdir(os.path.join(folder, name)) for name in os.listdir(folder)):
            typed = f'scan(pyarrow.dataset.dataset("{folder}", partitioning="hive"))'  # values of a column in names
        raise DesignError(f"{folder!r} is a folder; expected files.\nType  {typed}.")
    odd = next((path for path in found if not path.lower().endswith((*PARQUET, *CSV))), None)
    if odd is not None:
        readers = {".dta": "stata", ".sas7bdat": "sas", ".xpt": "sas"}  # of pandas, which read such a file in chunks
        reader = readers.get(os.path.splitext(odd)[1].lower(), "csv")
        raise DesignError(
            f"{odd!r} is neither Parquet nor CSV by its name; expected one of {listing((*PARQUET, *CSV))}.\n"
            f'Type  scan(lambda: pandas.read_{reader}("{odd}", chunksize=100_000))  if that reads it.'
        )
    return found


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
    """Frames of a CSV file; the first time with all columns, since pandas then refuses rows of too many fields."""
    check_unchanged(file)
    _check_file(file, None if columns is None else tuple(columns))
    for frame in csv_frames(file.path, block_rows, columns if file in _READ else None):
        yield _only(frame, columns, file.path)
    _READ.add(file)


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
            if any(type(task).__module__.partition(".")[0] == "distributed" for task in part.dask.values()):
                # A cluster holds the rows, so that only its client gets them.
                given = frame_part(part.compute(), where, columns)
            else:  # what it has is not known
                given = Part(where, partial(_computed, part), block_rows, counted=False)
            yield Piece((given,), block_rows)

    def column_names(self) -> list[str]:
        """As in `Source`."""
        return [str(name) for name in self.frame.columns]


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
