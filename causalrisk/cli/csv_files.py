"""CSV files as the command line reads them: nothing is fetched, and no word of a text column is lost as missing."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from causalrisk.errors import OptionError

WORDS = {
    "NA",
    "N/A",
    "n/a",
    "na",
    "#N/A",
    "<NA>",
    "NaN",
    "nan",
    "-NaN",
    "-nan",
    "NULL",
    "null",
    "Null",
    "None",
    "none",
    "NONE",
}  # what stands for a missing number; in a column of texts these are texts
FLAGS = {"True": True, "true": True, "TRUE": True, "False": False, "false": False, "FALSE": False}


def read_table(
    path: Path,
    missing: frozenset[str] = frozenset(),
    *,
    sep: str = ",",
    decimal: str = ".",
    thousands: str | None = None,
    encoding: str = "utf-8",
) -> tuple[pd.DataFrame, list[str]]:
    """Read a text file of columns with a header line.

    Parameters
    ----------
    path : Path
        The file.
    missing : frozenset of str
        Words that are missing values in every column.
    sep, decimal, thousands, encoding : str
        How the file is written, as of `pandas.read_csv`.

    Returns
    -------
    table : DataFrame
        Empty cells are missing; so are "NA", "None" and the like in a column of numbers or of True and False. In a
        column of texts they are texts.
    notes : list of str
        A line for each column of texts that holds such words.

    Raises
    ------
    OptionError
        If the path is a web address, which is never fetched.
    """
    refuse_address(path)
    table = pd.read_csv(
        path.absolute(), keep_default_na=False, na_values=["", *missing], low_memory=False, sep=sep, decimal=decimal,
        thousands=thousands, encoding=encoding,
    )  # fmt: skip
    notes = []
    for name in table:
        if table[name].dtype.kind in "bif":
            continue
        table[name], note = _words_read(table[name], decimal, thousands)
        notes += [note] if note else []
    return table, notes


def refuse_address(path: Path) -> None:
    """Raise an OptionError for a web address, which is never fetched."""
    if not path.exists() and ":/" in str(path):
        raise OptionError(
            f"{str(path)!r} is a web address; expected a file on this computer: nothing is fetched.\n"
            "Download it first, and look at it."
        )


def _words_read(column: pd.Series, decimal: str, thousands: str | None) -> tuple[pd.Series, str]:
    """Take words for missing where all other cells are numbers or flags, and note them where they are texts."""
    texts = column.astype(object)
    words = texts.isin(WORDS)
    if not words.any():
        return column, ""
    others = texts[~words & texts.notna()]
    if others.map(lambda text: text in FLAGS).all() and len(others):
        return texts.map(FLAGS), ""
    plain = others.astype(str).str.replace(thousands or "", "", regex=False).str.replace(decimal, ".", regex=False)
    if (numbers := pd.to_numeric(plain, errors="coerce")).notna().all():
        return numbers.reindex(column.index), ""
    found = ", ".join(f"{word!r} ({count})" for word, count in texts[words].value_counts().items())
    return column, f"column {str(column.name)!r} is text, and its cells {found} are kept as levels"
