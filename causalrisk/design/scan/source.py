"""Data that are read block by block: what `causalrisk.scan` returns."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd

from causalrisk.design.scan.files import Part, Place, arrow_parts, dask_parts, file_parts, frame_part, reading
from causalrisk.design.tables import as_pandas
from causalrisk.errors import DesignError, whole_number

BLOCK_ROWS = 250_000


class NamedBlock(NamedTuple):
    """Some rows one after the other, and where they are from."""

    frame: pd.DataFrame
    place: Place


@dataclass(frozen=True, repr=False)
class Scan:
    """Rows that are read in blocks, as often as they are needed; made by `causalrisk.scan`.

    Parameters
    ----------
    parts : tuple of Part
        Files, frames, or parts of a data frame or dataset.
    block_rows : int
        Rows of a block at the most.
    """

    parts: tuple[Part, ...]
    block_rows: int

    def __repr__(self) -> str:
        return f"Scan: {len(self.parts)} parts, the first {self.parts[0].where}, in blocks of {self.block_rows:,} rows"

    def blocks(self, columns: Sequence[str] | None = None) -> Iterator[NamedBlock]:
        """Read the blocks that have rows.

        Parameters
        ----------
        columns : sequence of str, optional
            The columns to read; by default all.

        Yields
        ------
        NamedBlock
            A frame with these columns, and where its rows are from.

        Raises
        ------
        DesignError
            If a file is gone, has changed since the scan was made, cannot be read or misses a column.
        """
        first = 0
        for part in self.parts:
            for start, frame in part.frames(columns, self.block_rows):
                n = len(frame)
                yield NamedBlock(frame, Place(f"{part.where}, rows {start} to {start + n - 1}", first, n))
                first += n

    def reads(self, path: str) -> bool:
        """Whether a file is known to be one of those that are read."""
        return any(_same_file(path, part.path) for part in self.parts if part.path)

    def column_names(self) -> list[str]:
        """Names of the columns, of the first part and of the last where these differ."""
        names: dict[str, None] = {}
        for part in (self.parts[0], self.parts[-1]):
            with reading(part.where):
                names |= dict.fromkeys(part.names())
        return list(names)

    def collect(self) -> pd.DataFrame:
        """Read all rows into memory.

        Returns
        -------
        DataFrame
            The blocks, one below the other, rows numbered from 0.
        """
        return pd.concat([block.frame for block in self.blocks()], ignore_index=True)


def _same_file(path: str, other: str) -> bool:
    """Whether two paths lead to one file, be it by a link or by another spelling."""
    try:
        return os.path.samefile(path, other)
    except OSError:  # one of them is not there
        return os.path.realpath(path) == os.path.realpath(other)


def scan(source: Any, *, block_rows: int = BLOCK_ROWS) -> Scan:
    """Name data that need not fit into memory; a model reads them block by block, only the columns it uses.

    A model reads the data two to four times. It keeps its numbers (outcome, designs, treatment groups, weights) in
    memory, or in a temporary file if they would take more than a quarter of the free memory.

    Parameters
    ----------
    source : str, path, sequence of these, sequence of DataFrames, Dask DataFrame, or Arrow dataset
        Parquet files (these need pyarrow) or CSV files; ``*`` and ``?`` in a name stand for any characters. Or data
        frames, a Dask data frame, whose partitions are read one by one, or a ``pyarrow.dataset.Dataset``.
    block_rows : int, default 250,000
        Largest number of rows that are read and worked on at a time. Results do not depend on it but for rounding. A
        partition of a Dask data frame is held as a whole.

    Returns
    -------
    Scan
        To be given as `data` to `from_formula` of any estimator.

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
    parts = _parts(source)
    if not parts:
        raise DesignError(f"the {type(source).__name__} given to scan has no parts; expected data.")
    return Scan(tuple(parts), block_rows)


def _parts(source: Any) -> list[Part]:
    if _is_dask(source):
        return dask_parts(source)
    if _is_arrow(source):
        return arrow_parts(source)
    items = [source] if isinstance(source, str | os.PathLike) else source
    if isinstance(items, list | tuple) and items:
        if all(isinstance(item, str | os.PathLike) for item in items):
            return file_parts([os.fspath(item) for item in items])
        frames = [as_pandas(item) for item in items]
        if all(isinstance(frame, pd.DataFrame) for frame in frames):
            return [frame_part(frame, f"block {k + 1}") for k, frame in enumerate(frames)]
    raise TypeError(
        f"scan got a {type(source).__name__}; expected names of files, a list of data frames, a Dask data frame or an "
        'Arrow dataset.\nUse `scan("folder/*.parquet")`.'
    )


def _is_dask(data: Any) -> bool:
    return type(data).__module__.partition(".")[0] in ("dask", "dask_expr") and hasattr(data, "get_partition")


def _is_arrow(data: Any) -> bool:
    return type(data).__module__.partition(".")[0] == "pyarrow" and hasattr(data, "get_fragments")


def as_scan(data: Any) -> Any:
    """Return a Dask data frame or an Arrow dataset as a scan; anything else as it is."""
    return scan(data) if _is_dask(data) or _is_arrow(data) else data
