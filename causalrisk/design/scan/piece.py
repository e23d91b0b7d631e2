"""Pieces of the data that are read by themselves, here or by a worker, and their blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import pandas as pd

from causalrisk.design.columns.tables import nearest
from causalrisk.errors import CausalRiskError, DesignError

INCOMPLETE = "Is it complete? Write it again, or leave it out."


class NamedBlock(NamedTuple):
    """Some rows, where they are from, for messages, and the number of the first in all data."""

    name: str
    frame: pd.DataFrame
    first: int


@dataclass(frozen=True)
class Piece:
    """Rows that are read by themselves, here or by a worker elsewhere.

    Parameters
    ----------
    where : str
        The file or frame, for messages.
    read : callable
        Columns, or None for all -> frames, none with more rows than a block.
    start : int
        Rows of the file before these.
    advice : str
        What to type where they cannot be read.
    """

    where: str
    read: Callable[[Sequence[str] | None], Iterable[pd.DataFrame]]
    start: int = 0
    advice: str = INCOMPLETE

    def blocks(self, columns: Sequence[str] | None, first: int) -> Iterator[NamedBlock]:
        """Read the blocks that have rows; `first` is the number of the first row in all data."""
        done, frames = self.start, iter(self.read(columns))
        while True:
            with reading(self.where, done, self.advice):
                frame = next(frames, None)
            if frame is None:
                return
            check_columns(frame.columns, columns, self.where)
            if columns is not None:
                frame = frame.loc[:, [str(name) in columns for name in frame.columns]]
            if len(frame):
                name = f"{self.where}, rows {done} to {done + len(frame) - 1}"
                yield NamedBlock(name, frame, first + done - self.start)
            done += len(frame)


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


def frame_piece(frame: pd.DataFrame, where: str, columns: Sequence[str] | None, block_rows: int) -> Piece:
    """Return the piece that a frame in memory is, with the columns that are read alone."""
    check_columns(frame.columns, columns, where)
    if columns is not None:
        frame = frame.loc[:, [str(name) in columns for name in frame.columns]]
    return Piece(where, partial(slices, frame, block_rows))


def slices(frame: pd.DataFrame, block_rows: int, columns: Sequence[str] | None) -> Iterator[pd.DataFrame]:
    """Cut a frame into blocks."""
    for start in range(0, len(frame), block_rows):
        yield frame.iloc[start : start + block_rows]
