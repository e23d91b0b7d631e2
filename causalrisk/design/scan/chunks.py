"""Rows of a scan as they are read: pieces that are read by themselves, here or by a worker, joined to blocks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalrisk.design.columns.tables import nearest
from causalrisk.errors import CausalRiskError, DesignError

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
        return type(first) is type(other) and _same_schema(first, other)
    if list(first.columns) != list(other.columns):
        return False
    pairs = zip(first.dtypes, other.dtypes, strict=True)
    return all(_same(a, b) or _numbers(first.iloc[:, k], other.iloc[:, k]) for k, (a, b) in enumerate(pairs))


def _same(first: Any, other: Any) -> bool:
    """Whether two dtypes are the same, with categories in the same order."""
    return bool(first == other) and (
        not isinstance(first, pd.CategoricalDtype) or list(first.categories) == list(other.categories)
    )


def _numbers(first: pd.Series, other: pd.Series) -> bool:
    """Whether whole numbers and floats are the same numbers together."""
    if not all(isinstance(values.dtype, np.dtype) and values.dtype.kind in "if" for values in (first, other)):
        return False
    return all(values.dtype.kind == "f" or -EXACT <= values.min() <= values.max() <= EXACT for values in (first, other))


def _same_schema(first: Any, other: Any) -> bool:
    """Whether two Arrow batches have the same columns, and their categories the same order."""
    if not first.schema.equals(other.schema):
        return False
    return all(
        not hasattr(a, "dictionary") or a.dictionary.equals(b.dictionary)
        for a, b in zip(first.columns, other.columns, strict=True)
    )


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
