"""Numbers and dates that arrived as text: notations of commas and points, and advice for converting a column.

Nothing is converted here; errors give the line to type. A comma is dropped only before groups of three digits, and
where it may be either a thousands separator or a decimal comma, both readings are shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

import pandas as pd

MANY_DATES = 10  # distinct dates beyond which a column of dates in text is not taken for categories
NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
DATE = r"\d{4}-\d{1,2}-\d{1,2}([ T].*)?|\d{1,2}[./]\d{1,2}[./]\d{4}|\d{4}/\d{1,2}/\d{1,2}"


class Notation(NamedTuple):
    """A way to write numbers.

    Parameters
    ----------
    pattern : str
        Regular expression for the whole of a number in this notation.
    replacing : str
        The methods that turn such a column of text into text that `pandas.to_numeric` reads.
    reading : str
        The options of `pandas.read_csv` that read it as numbers.
    words : str
        Meaning of the comma.
    """

    pattern: str
    replacing: str
    reading: str
    words: str


PLAIN = Notation(NUMBER, "", "", "")
THOUSANDS = Notation(
    r"[+-]?(\d{1,3}(,\d{3})+|\d+)(\.\d*)?", '.str.replace(",", "")', 'thousands=","', "separates thousands"
)
DECIMAL = Notation(r"[+-]?\d*(,\d*)?", '.str.replace(",", ".")', 'decimal=","', "is the decimal comma")
CONTINENTAL = Notation(
    r"[+-]?(\d{1,3}(\.\d{3})+|\d+)(,\d*)?",
    '.str.replace(".", "").str.replace(",", ".")',
    'decimal=",", thousands="."',
    "is the decimal comma",
)
SURELY_THOUSANDS = r"[+-]?[1-9]\d{0,2}(,\d{3}){2,}(\.\d*)?|[+-]?[1-9]\d{0,2}(,\d{3})+\.\d*"


def notations(texts: Iterable[str]) -> list[Notation]:
    """List the ways of writing numbers that all the texts follow.

    Parameters
    ----------
    texts : iterable of str
        Texts, not empty.

    Returns
    -------
    list of Notation
        None if they are not all numbers in one notation; two where the comma may be either.
    """
    stripped = [text.strip() for text in texts]
    with_comma = [text for text in stripped if "," in text]
    if any(not re.search(r"\d", text) for text in stripped):
        return []
    if not with_comma:
        return [PLAIN] if _all_match(PLAIN, stripped) else []
    found = [kind for kind in (THOUSANDS, DECIMAL) if _all_match(kind, stripped)]
    if THOUSANDS in found and any(re.fullmatch(r"[+-]?0+,.*", text) for text in with_comma):
        found.remove(THOUSANDS)  # 0,123 is no thousand
    if len(found) == 2 and any(re.fullmatch(SURELY_THOUSANDS, text) for text in with_comma):
        found.remove(DECIMAL)
    return found or [kind for kind in (CONTINENTAL,) if _all_match(kind, stripped)]


def _all_match(kind: Notation, texts: list[str]) -> bool:
    return all(re.fullmatch(kind.pattern, text) for text in texts)


def looks_numeric(text: str) -> bool:
    """Return True if a text is a number in any notation."""
    text = text.strip()
    return bool(re.search(r"\d", text)) and any(
        re.fullmatch(kind.pattern, text) for kind in (PLAIN, THOUSANDS, DECIMAL, CONTINENTAL)
    )


def conversion(name: str, texts: Iterable[str], coerce: bool = False) -> str:
    """Return the lines that say how to make numbers of a column of text.

    Parameters
    ----------
    name : str
        Name of the column.
    texts : iterable of str
        Its distinct texts that are numbers.
    coerce : bool
        Whether other texts of the column become missing.

    Returns
    -------
    str
        One line for each reading; with a comma also how to read the file again.
    """
    column = f'data["{name}"]'
    end = ', errors="coerce")' if coerce else ")"
    found = notations(texts)
    if not found:
        return (
            "Commas and points mean different things in its rows. Correct the file, then type  "
            f"{column} = pd.to_numeric({column}{end}"
        )
    lines = []
    for kind in found:
        typed = f"{column} = pd.to_numeric({column}{kind.replacing}{end}"
        start = "Convert it" if not kind.words else f"The comma {kind.words}: read the file with  "
        start = start if not kind.words else f"{start}pd.read_csv(..., {kind.reading})  or convert it"
        lines.append(f"{start if len(found) == 1 else 'If t' + start[1:]}:  {typed}")
    return "\n".join(lines)


def are_dates(texts: Iterable[str]) -> bool:
    """Return True if distinct texts are dates, and too many to be categories."""
    texts = list(texts)
    return len(texts) > MANY_DATES and all(re.fullmatch(DATE, text.strip()) for text in texts)


def date_conversion(name: str, kind: str, texts: Iterable[str] = ()) -> str:
    """Return the line that says how to make numbers of a column of dates or times.

    Parameters
    ----------
    name : str
        Name of the column.
    kind : {"date", "text", "span", "period", "interval"}
        Dates; dates as text or Python objects; differences of dates; periods; intervals of numbers.
    texts : iterable of str
        The dates as text.

    Returns
    -------
    str
        An assignment, and for dates the parts of a date as another way.
    """
    column = f'data["{name}"]'
    if kind == "span":
        return f'Count in days:  {column} = {column} / pd.Timedelta("1D")'
    if kind == "period":
        return f"Take a part of it, e.g. the year:  {column} = {column}.dt.year"
    if kind == "interval":
        return f"Make categories of it:  {column} = {column}.astype(str)"
    dates = column if kind == "date" else f"pd.to_datetime({column}{day_first(texts)})"
    return (
        f"Count in days since the first:  {column} = ({dates} - {dates}.min()).dt.days   or take a part, e.g. the "
        f"year:  {column} = {dates}.dt.year"
    )


def day_first(texts: Iterable[str]) -> str:
    """Return the option of `pandas.to_datetime` for dates such as 24.12.2020, or 24/12/2020 where a day says so."""
    firsts = [re.match(r"(\d{1,2})([./])\d{1,2}[./]\d{4}", text.strip()) for text in texts]
    return ", dayfirst=True" if any(m and (m[2] == "." or int(m[1]) > 12) for m in firsts) else ""


def distinct_texts(values: Iterable[object]) -> list[str]:
    """Return the distinct texts of a column, in order."""
    return [str(text) for text in pd.unique(pd.Series(list(values), dtype=object))]
