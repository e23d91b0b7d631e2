"""Files and frames that are read block by block: what `causalrisk.scan` returns."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import pandas as pd

from causalrisk.design.columns.dtypes import listing
from causalrisk.design.columns.frames import as_pandas
from causalrisk.design.columns.tables import nearest
from causalrisk.errors import CausalRiskError, DesignError, UnavailableError, whole_number

BLOCK_ROWS = 250_000
PARQUET, CSV = (".parquet", ".pq"), (".csv", ".csv.gz")


class NamedBlock(NamedTuple):
    """Some rows, where they are from, for messages, and the number of the first in all data."""

    name: str
    frame: pd.DataFrame
    first: int


class File(NamedTuple):
    """A file as it was when the scan was made: size in bytes, time of the last change in ns."""

    path: str
    size: int
    changed: int


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
    """

    where: str
    read: Callable[[Sequence[str] | None], Iterable[pd.DataFrame]]
    start: int = 0

    def blocks(self, columns: Sequence[str] | None, first: int) -> Iterator[NamedBlock]:
        """Read the blocks that have rows; `first` is the number of the first row in all data."""
        done, frames = self.start, iter(self.read(columns))
        while True:
            with _reading(self.where, done):
                frame = next(frames, None)
            if frame is None:
                return
            _check_columns(frame.columns, columns, self.where)
            if columns is not None:
                frame = frame.loc[:, [str(name) in columns for name in frame.columns]]
            if len(frame):
                name = f"{self.where}, rows {done} to {done + len(frame) - 1}"
                yield NamedBlock(name, frame, first + done - self.start)
            done += len(frame)


@dataclass(frozen=True, repr=False)
class Scan:
    """Rows that are read in blocks, as often as they are needed; made by `causalrisk.scan`.

    Parameters
    ----------
    files : tuple of File
        The files; empty where the rows come from frames.
    frames : callable or None
        Begins a pass over frames.
    block_rows : int
        Rows of a block at the most.
    """

    files: tuple[File, ...]
    frames: Callable[[], Iterable[Any]] | None
    block_rows: int

    def __repr__(self) -> str:
        what = f"{len(self.files)} files, the first {self.files[0].path!r}" if self.files else "frames"
        return f"Scan: {what}, in blocks of {self.block_rows:,} rows"

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
        first = 0
        for piece in self.pieces(columns):
            for block in piece.blocks(columns, first):
                yield block
                first += len(block.frame)

    def pieces(self, columns: Sequence[str] | None = None) -> Iterator[Piece]:
        """Begin a pass over the pieces that are read each by itself, whatever rows they have.

        Parameters
        ----------
        columns : sequence of str, optional
            The columns that will be read; by default all.
        """
        for file in self.files:
            check_unchanged(file)
            yield from (_csv_pieces if file.path.lower().endswith(CSV) else _parquet_pieces)(file, self.block_rows)
        if self.frames is not None:
            frames = self.frames()
            try:
                for k, given in enumerate(frames):
                    yield _frame_piece(given, k, columns, self.block_rows)
            finally:
                if hasattr(frames, "close"):  # a reader of pandas that is not at its end has its file open
                    frames.close()

    def column_names(self) -> list[str]:
        """Names of the columns of the first file or frame."""
        if not self.files:
            first = next(self.blocks(), None)
            return [] if first is None else [str(name) for name in first.frame.columns]
        path = self.files[0].path
        check_unchanged(self.files[0])
        with _reading(path, 0):
            return list(pd.read_csv(path, nrows=0).columns) if path.lower().endswith(CSV) else _schema(path).names

    def collect(self) -> pd.DataFrame:
        """Read all rows into memory.

        Returns
        -------
        DataFrame
            The blocks, one below the other, rows numbered from 0.
        """
        return pd.concat([block.frame for block in self.blocks()], ignore_index=True)


def scan(source: Any, *, block_rows: int = BLOCK_ROWS) -> Scan:
    """Name data that need not fit into memory; a model reads them block by block, only the columns it uses.

    Parameters
    ----------
    source : str, path, sequence of these, sequence of DataFrames, or callable
        Files, ``*`` and ``?`` standing for any names: Parquet (needs pyarrow) or CSV. Or frames; or a function without
        arguments that begins a pass over frames, such as ``lambda: pandas.read_csv(..., chunksize=100_000)``.
    block_rows : int, default 250,000
        Rows held in memory at a time, at the most. Results do not depend on it but for rounding.

    Returns
    -------
    Scan
        To be given as `data` to `from_formula` of OutcomeRegression, Hajek, IPWRA, AIPW or Unadjusted.

    Raises
    ------
    DesignError
        If there is no such file, or a file is of another kind.
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
    if callable(source):
        return Scan((), source, block_rows)
    given = [source] if isinstance(source, str | os.PathLike) else source
    if isinstance(given, list | tuple) and given and all(isinstance(item, str | os.PathLike) for item in given):
        paths = [path for item in given for path in _matching(os.fspath(item))]
        _check_once(paths)
        return Scan(tuple(_file(path) for path in paths), None, block_rows)
    if isinstance(given, list | tuple) and given and all(isinstance(as_pandas(item), pd.DataFrame) for item in given):
        return Scan((), _Again(tuple(given)), block_rows)
    passed = ", which can be gone through once only" if isinstance(source, Iterator) else ""
    raise TypeError(
        f"scan got a {type(source).__name__}{passed}; expected names of files, a list of data frames, or a function "
        "that begins a pass over frames.\n"
        'Type  scan("folder/*.parquet")  or  scan(lambda: pandas.read_csv("file.csv", chunksize=100_000)).'
    )


@dataclass(frozen=True)
class _Again:
    """A pass over frames in memory; a class, so that it can be pickled."""

    given: tuple[Any, ...]

    def __call__(self) -> Iterable[Any]:
        return self.given


def _matching(pattern: str) -> list[str]:
    """Files of a pattern, in the order of their names; a DesignError where there are none."""
    found = sorted(glob.glob(pattern, recursive=True)) if glob.has_magic(pattern) else [pattern]
    if not found or not os.path.exists(found[0]):
        raise DesignError(f"no file matches {pattern!r}; expected at least one.\nCheck the folder: {os.getcwd()!r}.")
    if os.path.isdir(found[0]):
        raise DesignError(f'{found[0]!r} is a folder; expected files.\nType  scan("{found[0].rstrip("/")}/*.parquet").')
    odd = next((path for path in found if not path.lower().endswith((*PARQUET, *CSV))), None)
    if odd is not None:
        raise DesignError(
            f"{odd!r} is neither Parquet nor CSV by its name; expected one of {listing((*PARQUET, *CSV))}.\n"
            f'Type  scan(lambda: pandas.read_{_reader(odd)}("{odd}", chunksize=100_000))  if that reads it.'
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


def _frame(given: Any, k: int) -> pd.DataFrame:
    frame = as_pandas(given)
    if not isinstance(frame, pd.DataFrame):
        raise DesignError(
            f"block {k + 1} of the scan is a {type(given).__name__}; expected a data frame.\n"
            "Let the function yield frames, as  pandas.read_csv(..., chunksize=100_000)  does."
        )
    return frame


@contextmanager
def _reading(where: str, rows: int) -> Iterator[None]:
    """Name the file or frame that cannot be read."""
    try:
        yield
    except (OSError, ValueError) as error:  # pyarrow's and pandas' errors are among these
        if isinstance(error, CausalRiskError):
            raise
        raise DesignError(
            f"{where} cannot be read after {rows:,} rows: {error}\nIs it complete? Write it again, or leave it out."
        ) from error


def _check_columns(there: Iterable[Any], columns: Sequence[str] | None, where: str) -> None:
    known = [str(name) for name in there]
    for name in columns or ():
        if known.count(name) > 1:
            raise DesignError(f"{where} has {known.count(name)} columns {name!r}; expected one.\nRename the others.")
        if name not in known:
            raise DesignError(
                f"{where} has no column {name!r}, which the model uses and other blocks have; expected the same "
                f"columns in all.\n{nearest(name, known)}"
            )


def _frame_piece(given: Any, k: int, columns: Sequence[str] | None, block_rows: int) -> Piece:
    """Return the piece that a frame in memory is, with the columns that are read alone."""
    frame, where = _frame(given, k), f"block {k + 1}"
    _check_columns(frame.columns, columns, where)
    if columns is not None:
        frame = frame.loc[:, [str(name) in columns for name in frame.columns]]
    return Piece(where, partial(_slices, frame, block_rows))


def _slices(frame: pd.DataFrame, block_rows: int, columns: Sequence[str] | None) -> Iterator[pd.DataFrame]:
    for start in range(0, len(frame), block_rows):
        yield frame.iloc[start : start + block_rows]


def _parquet_pieces(file: File, block_rows: int) -> Iterator[Piece]:
    """Row groups of a Parquet file, as many together as make a block."""
    with _reading(file.path, 0):
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

    _check_columns(schema.names, columns, path)
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
        _check_columns(pd.read_csv(file.path, nrows=0).columns, columns, file.path)
    with pd.read_csv(file.path, usecols=columns, chunksize=block_rows) as frames:
        yield from frames
