"""Data that are read block by block, and where their coded rows are kept: what `causalrisk.scan` returns."""

from __future__ import annotations

import itertools
import math
import numbers
import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from causalrisk.design.scan.files import (
    Files,
    Fragments,
    NamedBlock,
    Piece,
    Source,
    frame_part,
    held_in_parts,
    pieces_of,
    reading,
)
from causalrisk.design.tables import as_pandas, nearest
from causalrisk.errors import DesignError, OptionError, one_of, whole_number
from causalrisk.runtime.system import free_memory, is_in_memory

KEEP = ("auto", "memory", "disk", "nothing")
OF_MEMORY, OF_DISK = 0.25, 0.5  # shares of what is free that rows take where no budget is given
BLOCK_ROWS = 250_000
BEGIN_ANEW = "Let it begin anew, as  scan(lambda: pandas.read_csv(..., chunksize=100_000))  does."


@dataclass(frozen=True)
class Keeping:
    """Options of `causalrisk.scan` on where coded rows are kept; they check themselves.

    Parameters
    ----------
    keep : {"auto", "memory", "disk", "nothing"}
        Where; "auto" is memory where they fit, else the disk where they fit, else nothing.
    folder : str, optional
        Folder of the disk; by default that of temporary files.
    budget : float, optional
        Bytes that the rows may take; by default a quarter of the free memory, or half of the room on the disk.
    """

    keep: str = "auto"
    folder: str | None = None
    budget: float | None = None

    def __post_init__(self) -> None:
        one_of("keep", self.keep, KEEP)
        number = isinstance(self.budget, numbers.Real) and not isinstance(self.budget, bool)
        if self.budget is not None and not (number and 0 < self.budget < math.inf):
            raise OptionError(
                f"budget={self.budget!r}; expected a number of bytes or None.\nType  budget=2e9  for 2 GB."
            )
        if self.folder is not None:
            _check_folder(self.folder)

    @property
    def place(self) -> str:
        """The folder of rows on a disk."""
        return tempfile.gettempdir() if self.folder is None else self.folder

    def chosen(self, size: float, taken: float = 0.0) -> tuple[str, str]:
        """Choose where some rows are kept.

        Parameters
        ----------
        size : float
            Their bytes.
        taken : float
            Bytes of the budget that other rows have already.

        Returns
        -------
        where : {"memory", "disk", "nothing"}
            The choice.
        why : str
            Why nothing is kept although something was to be; else empty.
        """
        if self.keep == "nothing":
            return "nothing", ""
        rooms = {"memory": self._most(free_memory(), OF_MEMORY, taken)}
        if self.keep == "disk" or self.folder is not None or not is_in_memory(self.place):
            rooms["disk"] = self._most(shutil.disk_usage(self.place).free, OF_DISK, taken)
        asked = rooms if self.keep == "auto" else {self.keep: rooms[self.keep]}
        for where, room in asked.items():
            if size <= room:
                return where, ""
        said = " and ".join(
            f"{room / 1e9:,.3g} GB {'of memory' if where == 'memory' else f'in {self.place!r}'}"
            for where, room in asked.items()
        )
        why = "what budget= and free room allow" if self.budget else "a quarter of free memory, half of a disk's room"
        return "nothing", f"the coded rows take {size / 1e9:,.3g} GB, and may take {said} ({why})"

    def _most(self, free: float, share: float, taken: float) -> float:
        return share * free if self.budget is None else min(self.budget - taken, free)


def _check_folder(folder: Any) -> None:
    """Raise an OptionError where a file cannot be made in a folder."""
    try:
        if not os.path.isdir(folder):
            raise NotADirectoryError("there is no such folder")
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, TypeError) as error:
        raise OptionError(
            f"folder={folder!r} cannot hold temporary files: {error}; expected a folder that can be written to.\n"
            f"Type  folder={tempfile.gettempdir()!r}, or leave it out."
        ) from error


@dataclass(frozen=True)
class Frames:
    """Frames that come one after the other.

    Parameters
    ----------
    begin : callable
        Begins a pass over them.
    """

    begin: Callable[[], Iterable[Any]]

    def __str__(self) -> str:
        return "frames"

    def pieces(self, columns: Sequence[str] | None, block_rows: int) -> Iterator[Piece]:
        """As in `Source`; small frames of a function are taken together, those of a list are blocks by themselves."""
        parts = (frame_part(frame, f"block {k + 1}", columns) for k, frame in enumerate(self._frames()))
        if from_function(self):
            yield from pieces_of(parts, block_rows)
        else:
            yield from (Piece((part,), block_rows) for part in parts)

    def column_names(self) -> list[str]:
        """As in `Source`; those of the first frame."""
        with closing(self._frames()) as frames:
            return [str(name) for frame in itertools.islice(frames, 1) for name in frame.columns]

    def _frames(self) -> Generator[pd.DataFrame]:
        """Begin a pass."""
        given = self.begin()
        try:
            with reading("the function given to scan", 0, BEGIN_ANEW):
                yield from (_frame(frame, k) for k, frame in enumerate(given))
        finally:
            if hasattr(given, "close"):  # a reader of pandas that is not at its end has its file open
                given.close()


@dataclass(frozen=True, repr=False)
class Scan:
    """Rows that are read in blocks, as often as they are needed; made by `causalrisk.scan`.

    Parameters
    ----------
    source : Source
        Where they are from.
    block_rows : int
        Rows of a block at the most.
    columns : tuple of str, optional
        The columns that there are; by default all.
    keeping : Keeping
        Where a model keeps the coded rows.
    """

    source: Source
    block_rows: int
    columns: tuple[str, ...] | None = None
    keeping: Keeping = field(default_factory=Keeping)

    def __repr__(self) -> str:
        return f"Scan: {self.source}, in blocks of {self.block_rows:,} rows"

    def blocks(self, columns: Sequence[str] | None = None) -> Iterator[NamedBlock]:
        """Begin a pass over the blocks that have rows.

        Parameters
        ----------
        columns : sequence of str, optional
            The columns to read; by default all.

        Yields
        ------
        NamedBlock
            A frame with these columns, what messages call it, and where it stands.

        Raises
        ------
        DesignError
            If a file is gone, has changed since the scan was made, cannot be read or misses a column.
        """
        first, used = 0, self.columns if columns is None else columns
        for piece in self.pieces(used):
            for block in piece.blocks(used, first):
                yield block
                first += len(block.frame)

    def pieces(self, columns: Sequence[str] | None = None) -> Iterator[Piece]:
        """Begin a pass over the pieces that are read each by itself, whatever rows they have.

        Parameters
        ----------
        columns : sequence of str, optional
            The columns that will be read; by default all.
        """
        return self.source.pieces(self.columns if columns is None else columns, self.block_rows)

    def reads(self, path: str) -> bool:
        """Whether a file is known to be one of those that are read."""
        return isinstance(self.source, Files | Fragments) and self.source.has(path)

    def without_rows(self) -> Scan:
        """Return a scan of no rows, which workers have in the place of this one."""
        return Scan(Frames(_Again(())), self.block_rows)

    def column_names(self) -> list[str]:
        """Names of the columns, of the first file or frame where these may differ."""
        names = self.source.column_names()
        for name in self.columns or ():
            if name not in names:
                raise DesignError(f"columns= names {name!r}, and there is no such column.\n{nearest(name, names)}")
        return [name for name in names if self.columns is None or name in self.columns]

    def collect(self) -> pd.DataFrame:
        """Read all rows into memory.

        Returns
        -------
        DataFrame
            The blocks, one below the other, rows numbered from 0.
        """
        return pd.concat([block.frame for block in self.blocks()], ignore_index=True)


def scan(
    source: Any,
    *,
    columns: Sequence[str] | None = None,
    block_rows: int = BLOCK_ROWS,
    keep: str = "auto",
    folder: str | os.PathLike[str] | None = None,
    budget: float | None = None,
) -> Scan:
    """Name data that need not fit into memory; a model reads them block by block, only the columns it uses.

    A model reads the data two to four times, and keeps its numbers (outcome, designs, arms, weights) for its fits.

    Parameters
    ----------
    source : str, path, sequence of these, Dask DataFrame, Arrow dataset, sequence of DataFrames, or callable
        Files, ``*`` and ``?`` standing for any names: Parquet (needs pyarrow) or CSV. Or a Dask data frame, whose
        partitions are read, or a ``pyarrow.dataset.Dataset``, whose files are. Or frames; or a function without
        arguments that begins a pass over frames, such as ``lambda: pandas.read_csv(..., chunksize=100_000)``.
    columns : sequence of str, optional
        The columns that there are to be; by default all. Of these a model reads what its formulas name.
    block_rows : int, default 250,000
        Rows of a block, which are held in memory at a time: small files, and small frames of a function, are taken
        together, large ones cut. Results do not depend on it but for rounding. Of a Dask data frame a partition is held
        as a whole.
    keep : {"auto", "memory", "disk", "nothing"}, default "auto"
        Where a model keeps its numbers: in memory if they take no more than the budget, else in a temporary file if
        that has the room, else nowhere, with a warning: every pass of a fit reads the data again, as with "nothing".
        The file goes with the model, and with the process however that ends.
    folder : str or path, optional
        Folder of that file; by default that of temporary files.
    budget : float, optional
        Bytes that the numbers of a model may take; by default a quarter of the free memory, or half of the room on the
        disk.

    Returns
    -------
    Scan
        To be given as `data` to `from_formula` of any estimator.

    Raises
    ------
    DesignError
        If there is no such file or column, or a file is of another kind.
    OptionError
        If an option is not one of these, or the folder cannot be written to.
    TypeError
        If the source is anything else.

    Examples
    --------
    >>> from causalrisk import IPWRA, datasets, scan
    >>> births = datasets.load_cattaneo2()
    >>> IPWRA.from_formula(
    ...     "bweight ~ mage + medu",
    ...     scan([births[:2000], births[2000:]]),
    ...     treat="mbsmoke",
    ... ).fit()
    IPWRA: ATE -256.86 (24.38), 1 vs 0, n 4642
    """
    whole_number("block_rows", block_rows, 1)
    keeping = Keeping(keep, None if folder is None else os.fspath(folder), budget)
    made = Scan(_source(source), block_rows, None if columns is None else _names(columns), keeping)
    if columns is not None:
        made.column_names()
    return made


def _names(columns: Sequence[str]) -> tuple[str, ...]:
    if isinstance(columns, str):
        raise TypeError(f'columns is the text {columns!r}; expected a list of names.\nType  columns=["{columns}"].')
    if not isinstance(columns, Iterable) or not list(columns):
        raise TypeError(f'columns is {columns!r}; expected a list of names.\nType  columns=["y", "d", "x"].')
    return tuple(str(name) for name in columns)


def _source(given: Any) -> Source:
    """Tell what the rows are from."""
    if callable(given):
        return Frames(given)
    parts = held_in_parts(given)
    if parts is not None:
        return parts
    items = [given] if isinstance(given, str | os.PathLike) else given
    if isinstance(items, list | tuple) and items and all(isinstance(item, str | os.PathLike) for item in items):
        return Files.matching([os.fspath(item) for item in items])
    if isinstance(items, list | tuple) and items and all(isinstance(as_pandas(item), pd.DataFrame) for item in items):
        return Frames(_Again(tuple(items)))
    passed = ", which can be gone through once only" if isinstance(given, Iterator) else ""
    raise TypeError(
        f"scan got a {type(given).__name__}{passed}; expected names of files, a Dask data frame, an Arrow dataset, a "
        "list of data frames, or a function that begins a pass over frames.\n"
        'Type  scan("folder/*.parquet")  or  scan(lambda: pandas.read_csv("file.csv", chunksize=100_000)).'
    )


def as_scan(data: Any) -> Any:
    """Return data that another library holds in parts as a scan of them; anything else as it is."""
    return data if held_in_parts(data) is None else scan(data)


def from_function(source: Source) -> bool:
    """Whether the rows come from a function of the caller, which may not give them a second time."""
    return isinstance(source, Frames) and not isinstance(source.begin, _Again)


@dataclass(frozen=True)
class _Again:
    """A pass over frames in memory; a class, so that it can be pickled."""

    given: tuple[Any, ...]

    def __call__(self) -> Iterable[Any]:
        return self.given


def _frame(given: Any, k: int) -> pd.DataFrame:
    frame = as_pandas(given)
    if not isinstance(frame, pd.DataFrame):
        raise DesignError(
            f"block {k + 1} of the scan is a {type(given).__name__}; expected a data frame.\n"
            "Let the function yield frames, as  pandas.read_csv(..., chunksize=100_000)  does."
        )
    return frame
