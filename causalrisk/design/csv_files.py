"""CSV files, read by one rule for the command line and for scans: rows fit the header, and which cells are missing."""

from __future__ import annotations

import csv
import gzip
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pandas as pd

from causalrisk.errors import DesignError

# As pandas has it, but for "None", which is a level ("no treatment") more often than a missing value.
MISSING = (
    "", "NA", "N/A", "n/a", "#N/A", "#N/A N/A", "#NA", "<NA>", "NaN", "nan", "-NaN", "-nan", "NULL", "null",
    "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN",
)  # fmt: skip
# Without `index_col=False` a longer first row shifts all columns.
OPTIONS: dict[str, Any] = {
    "engine": "c", "index_col": False, "keep_default_na": False, "na_values": list(MISSING), "low_memory": False,
}  # fmt: skip
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
    options = OPTIONS | {"decimal": decimal, "thousands": thousands, "na_values": [*MISSING, *na_values]}
    with _in_words(path, sep):
        return pd.read_csv(path, sep=sep, encoding=encoding, **options)


def csv_frames(path: str, rows: int) -> Iterator[pd.DataFrame]:
    """Read all columns of a CSV file, some rows at a time; of some columns pandas would not check their number."""
    names = csv_names(path)
    with _in_words(path, ","):
        if PANDAS < 3:  # which does not check the first row of a chunk
            _check_fields(path, len(names))
        with pd.read_csv(path, chunksize=rows, **OPTIONS) as frames:
            yield from frames


def csv_names(path: str | os.PathLike[str], *, sep: str = ",", encoding: str = "utf-8") -> list[str]:
    """Return the names of the columns, if the first row of data fits them: the one row that pandas does not check."""
    with _in_words(path, sep):
        head = pd.read_csv(
            path, header=None, nrows=2, dtype=str, na_filter=False, sep=sep, encoding=encoding, engine="c"
        )
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
                raise pd.errors.ParserError(f"C error: Expected {count} fields in line {line}, saw {len(row)}")


@contextmanager
def _in_words(path: str | os.PathLike[str], sep: str) -> Iterator[None]:
    """Name the file and the line that has more fields than the header."""
    try:
        yield
    except pd.errors.ParserError as error:
        found = str(error).rpartition("C error: ")[2].strip()
        advice = f"Put text that contains {sep!r} in quotes, or remove the {sep!r} too many."
        if "Expected 1 fields" in found:
            advice = 'Use `sep=";"` if another sign separates them.'
        raise DesignError(f"{path} cannot be read as columns separated by {sep!r}: {found}.\n{advice}") from error
