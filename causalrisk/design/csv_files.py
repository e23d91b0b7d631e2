"""CSV files, read by one rule for the command line and for scans: rows fit the header, and which cells are missing."""

from __future__ import annotations

import csv
import gzip
import os
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from causalrisk.errors import DesignError

# As pandas has it, but for "None", which is a level ("no treatment") more often than a missing value.
MISSING = (
    "", "NA", "N/A", "n/a", "#N/A", "#N/A N/A", "#NA", "<NA>", "NaN", "nan", "-NaN", "-nan", "NULL", "null",
    "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN",
)  # fmt: skip


PANDAS = int(pd.__version__.partition(".")[0])


def read_csv(
    path: str | os.PathLike[str],
    *,
    sep: str = ",",
    decimal: str = ".",
    thousands: str | None = None,
    encoding: str = "utf-8",
    na_values: Sequence[str] = (),
) -> pd.DataFrame:
    """Read a CSV file.

    Parameters
    ----------
    path : path
        The file; its first line has the names of the columns.
    sep, decimal, thousands, encoding : str
        As in `pandas.read_csv`.
    na_values : sequence of str
        Further words that are missing values in every column.

    Returns
    -------
    DataFrame
        All rows. Empty cells and the words of `MISSING` are missing in every column; "None" is text.
    """
    csv_names(path, sep=sep, encoding=encoding)
    try:
        return pd.read_csv(
            path, sep=sep, decimal=decimal, thousands=thousands, encoding=encoding, **_options(na_values)
        )  # fmt: skip
    except pd.errors.ParserError as error:
        raise _misfit(path, sep, error) from error


def csv_frames(path: str, rows: int, columns: Sequence[str] | None = None) -> Iterator[pd.DataFrame]:
    """Read a CSV file, some rows at a time; with `columns` pandas skips its check of the number of fields."""
    names = csv_names(path)
    if columns is None and PANDAS < 3:  # which does not check the first row of a chunk
        _check_fields(path, len(names))
    try:
        with pd.read_csv(path, usecols=columns, chunksize=rows, **_options()) as frames:
            yield from frames
    except pd.errors.ParserError as error:
        raise _misfit(path, ",", error) from error


def csv_names(path: str | os.PathLike[str], *, sep: str = ",", encoding: str = "utf-8") -> list[str]:
    """Return the names of the columns, if the first row of data fits them: the one row that pandas does not check."""
    try:
        how = {"sep": sep, "encoding": encoding, "engine": "c"}
        head = pd.read_csv(path, header=None, nrows=2, dtype=str, na_filter=False, **how)
    except pd.errors.ParserError as error:
        raise _misfit(path, sep, error) from error
    names = head.iloc[0]
    twice = names[names.duplicated() & (names != "")]
    if len(twice):
        count = (names == twice.iloc[0]).sum()
        raise DesignError(f"{path} has {count} columns {twice.iloc[0]!r}; expected one. Rename the others.")
    return [name or f"Unnamed: {k}" for k, name in enumerate(names)]  # as pandas calls them


def _check_fields(path: str, count: int) -> None:
    """Refuse a file that has a row of more fields."""
    opened = gzip.open if path.endswith(".gz") else open
    with opened(path, "rt", encoding="utf-8", errors="replace", newline="") as file:
        for line, row in enumerate(csv.reader(file), 1):
            if len(row) > count:
                found = f"C error: Expected {count} fields in line {line}, saw {len(row)}"
                raise _misfit(path, ",", pd.errors.ParserError(found))


def _options(na_values: Sequence[str] = ()) -> dict[str, Any]:
    """Options of `pandas.read_csv`; without `index_col=False` a longer first row shifts all columns."""
    missing = [*MISSING, *na_values]
    return {"engine": "c", "index_col": False, "keep_default_na": False, "na_values": missing, "low_memory": False}


def _misfit(path: str | os.PathLike[str], sep: str, error: pd.errors.ParserError) -> DesignError:
    """Name the file and the line that has more fields than the header."""
    found = str(error).rpartition("C error: ")[2].strip()
    advice = f"Put text that contains {sep!r} in quotes, or remove the {sep!r} too many."
    if "Expected 1 fields" in found:
        advice = 'Use `sep=";"` if another sign separates them.'
    return DesignError(f"{path} cannot be read as columns separated by {sep!r}: {found}.\n{advice}")
