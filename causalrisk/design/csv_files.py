"""CSV files, read by one rule for the command line and for scans: rows fit the header, and which cells are missing."""

from __future__ import annotations

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
OPTIONS: dict[str, Any] = {"keep_default_na": False, "index_col": False, "low_memory": False}


def read_csv(
    path: str | os.PathLike[str], *, sep: str, decimal: str, encoding: str, na_values: Sequence[str]
) -> pd.DataFrame:
    """Read a CSV file; empty cells, the words of `MISSING` and others are missing in every column."""
    csv_names(path, sep=sep, encoding=encoding)
    words = [*MISSING, *na_values]
    return pd.read_csv(path, sep=sep, decimal=decimal, encoding=encoding, na_values=words, **OPTIONS)


def csv_frames(path: str, rows: int) -> Iterator[pd.DataFrame]:
    """Read all columns of a CSV file, some rows at a time; of some columns pandas would not check their number."""
    csv_names(path)
    with pd.read_csv(path, chunksize=rows, na_values=list(MISSING), **OPTIONS) as frames:
        yield from frames


def csv_names(path: str | os.PathLike[str], **options: Any) -> list[str]:
    """Return the names of the columns, if the first row of data fits them: the one row that pandas does not check."""
    names = pd.read_csv(path, header=None, nrows=2, dtype=str, na_filter=False, **options).iloc[0]
    twice = names[names.duplicated() & (names != "")]
    if len(twice):
        count = (names == twice.iloc[0]).sum()
        raise DesignError(f"{path} has {count} columns {twice.iloc[0]!r}; expected one. Rename the others.")
    return [name or f"Unnamed: {k}" for k, name in enumerate(names)]  # as pandas calls them
