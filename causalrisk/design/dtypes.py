"""Columns brought to one of five plain dtypes, whatever storage they had, and what to type for text that is numbers.

A column (pandas nullable, Arrow, Sparse, Categorical, float32, big-endian) leaves this module as float64, int64, bool,
an object array of text, or a Categorical with object categories, so that the same numbers give the same result.
Nothing here changes the caller's data. Numbers and dates that arrived as text are refused with the line that converts
them. In that line a comma is dropped only before groups of three digits, and where it may be either a thousands
separator or a decimal comma, both readings are shown.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable
from decimal import Decimal
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from pandas.api import types as dtypes

from causalrisk.errors import DesignError

MANY_DATES = 10  # distinct dates beyond which a column of dates in text is not taken for categories
NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
DATE = r"\d{4}-\d{1,2}-\d{1,2}([ T].*)?|\d{1,2}[./]\d{1,2}[./]\d{4}|\d{4}/\d{1,2}/\d{1,2}"
SURELY_THOUSANDS = r"[+-]?[1-9]\d{0,2}(,\d{3}){2,}(\.\d*)?|[+-]?[1-9]\d{0,2}(,\d{3})+\.\d*"
ARROW_TEXT = ("string[pyarrow]", "large_string[pyarrow]", "string_view[pyarrow]")
SHOWN = 8
COPY_ON_WRITE = int(pd.__version__.split(".")[0]) >= 3  # writing to a column copies it


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


def listing(values: Iterable[Any], limit: int = SHOWN) -> str:
    """Return the values as a comma-separated text, cut after `limit` of them.

    Parameters
    ----------
    values : iterable
        Values to list, shown with ``repr``, NumPy scalars as Python ones.
    limit : int
        Number of values to show.

    Returns
    -------
    str
        For example ``'a', 'b' and 3 more``.
    """
    shown = [repr(v.item() if isinstance(v, np.generic) else v) for v in values]
    rest = len(shown) - limit
    return ", ".join(shown[:limit]) + (f" and {rest} more" if rest > 0 else "")


def missing_mask(column: pd.Series) -> np.ndarray:
    """Mask of the missing rows of a column.

    Parameters
    ----------
    column : Series
        Column of any dtype.

    Returns
    -------
    ndarray of bool, shape (n,)
        True for NaN, None, ``pd.NA`` and NaT, also for NaN inside nullable and Arrow floats.
    """
    mask = np.array(column.isna(), dtype=bool)
    if dtypes.is_extension_array_dtype(column.dtype) and dtypes.is_float_dtype(column.dtype):
        mask |= np.isnan(np.asarray(column.array.to_numpy(dtype=np.float64, na_value=np.nan)))
    return mask


def plain(column: pd.Series, name: str, codes: bool = False) -> pd.Series:
    """Return a column without missing values as float64, int64, bool, text (object) or Categorical.

    Parameters
    ----------
    column : Series
        Without missing values.
    name : str
        Its name, for messages.
    codes : bool
        Whether text that looks like numbers is welcome, as in ``C(zip)``.

    Returns
    -------
    Series
        On a RangeIndex; writing to the column given does not change it. Categories without rows are gone.

    Raises
    ------
    DesignError
        If the column holds dates, complex numbers, numbers as text, mixed types, or infinite values.
    """
    column = column.reset_index(drop=True)
    if isinstance(column.dtype, pd.SparseDtype):
        column = column.sparse.to_dense()
    dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        used = column.cat.remove_unused_categories()
        return used.cat.rename_categories(used.cat.categories.astype(object)).copy()
    if dtypes.is_bool_dtype(dtype):
        values = column.to_numpy(dtype=bool)
    elif dtypes.is_integer_dtype(dtype):
        values = column.to_numpy(dtype=np.uint64 if getattr(dtype, "kind", "i") == "u" else np.int64)
        too_large = values.dtype.kind == "u" and values.size and values.max() > np.iinfo(np.int64).max
        values = values.astype(np.float64 if too_large else np.int64)
    elif dtypes.is_float_dtype(dtype):
        values = column.to_numpy(dtype=np.float64)
    elif getattr(dtype, "kind", "O") in "mMc" or isinstance(dtype, pd.PeriodDtype | pd.IntervalDtype):
        raise DesignError(
            f"column {name!r} has dtype {dtype}; expected numbers, bool, text or categories.\n"
            + _conversion_of(name, dtype, codes)
        )
    elif isinstance(dtype, pd.StringDtype) or str(dtype) in ARROW_TEXT:
        values = _texts(column, name, dtype, codes)
    else:
        values = _from_objects(column.to_numpy(dtype=object), name, dtype, codes)
    if COPY_ON_WRITE and values.dtype == dtype and values.flags.c_contiguous:
        result = column.rename(name)
    else:
        result = pd.Series(np.array(values, order="C"), dtype=values.dtype, name=name, copy=False)
    if values.dtype.kind == "f" and np.isinf(values).any():
        raise DesignError(
            f"column {name!r} has {int(np.isinf(values).sum())} infinite values; expected finite numbers.\n"
            f'Drop them, or set them missing:  data["{name}"] = data["{name}"].replace([np.inf, -np.inf], np.nan).'
        )
    return result


def _from_objects(values: np.ndarray, name: str, dtype: Any, codes: bool) -> np.ndarray:
    """Bring Python objects to bool, numbers or text, or say why that cannot be."""
    kinds = {type(v) for v in values}
    if all(issubclass(k, str) for k in kinds):
        return _texts(values, name, dtype, codes)
    if all(issubclass(k, bool | np.bool_) for k in kinds):
        return values.astype(bool)
    if all(issubclass(k, int | np.integer) and k is not bool for k in kinds):
        largest = max(abs(int(v)) for v in values)
        return values.astype(np.int64 if largest <= np.iinfo(np.int64).max else np.float64)
    if all(
        issubclass(k, Real | Decimal | np.number | np.bool_) and not issubclass(k, np.complexfloating) for k in kinds
    ):
        return values.astype(np.float64)
    found = sorted(k.__name__ for k in kinds)
    raise DesignError(
        f"column {name!r} has dtype {dtype} and holds {', '.join(found)}; expected all numbers, all bool "
        f"or all text.\n{_conversion_of_mixed(name, values)}"
    )


def _texts(values: Any, name: str, dtype: Any, codes: bool) -> np.ndarray:
    """Bring text without missing values to an object array, in which equal texts are one object."""
    places, distinct = pd.factorize(values)
    if not codes and len(distinct):
        _refuse_typed(distinct_texts(distinct), name, dtype)
    return np.array([str(text) for text in distinct], dtype=object)[places]


def _conversion_of(name: str, dtype: Any, codes: bool) -> str:
    """Advice for converting a column of dates, times, periods, intervals or complex numbers."""
    column = f'data["{name}"]'
    if getattr(dtype, "kind", "O") == "c":
        return f"Take the real parts:  {column} = {column}.to_numpy().real"
    if codes:
        return f"Make categories of it:  {column} = {column}.astype(str)"
    if isinstance(dtype, pd.PeriodDtype | pd.IntervalDtype):
        return date_conversion(name, "period" if isinstance(dtype, pd.PeriodDtype) else "interval")
    return date_conversion(name, "span" if dtype.kind == "m" else "date")


def _conversion_of_mixed(name: str, values: np.ndarray) -> str:
    """Advice for converting a column of Python objects of several kinds, or of none that is a number, bool or text."""
    column = f'data["{name}"]'
    if all(isinstance(v, datetime.date) for v in values):  # datetimes and pandas' are dates too
        return date_conversion(name, "text")
    texts = distinct_texts(v for v in values if isinstance(v, str))
    numeric = [text for text in texts if looks_numeric(text)]
    if not any(isinstance(v, Real | Decimal) and not isinstance(v, bool | np.bool_) for v in values):
        return f"Make categories of it:  {column} = {column}.astype(str)"
    if all("," not in text for text in numeric):
        odd = [text for text in texts if text not in numeric]
        lost = f" ({listing(odd, 5)} become missing)" if odd else ""
        end = ', errors="coerce")' if odd else ")"
        return (
            f"Convert it{lost}:  {column} = pd.to_numeric({column}{end}   or, for categories:  "
            f"{column} = {column}.astype(str)"
        )
    written = notations(numeric)
    replacing = written[0].replacing if len(written) == 1 else '.str.replace(",", ".")'
    return f"Convert it:  {column} = pd.to_numeric({column}.astype(str){replacing})"


def _refuse_typed(texts: list[str], name: str, dtype: Any) -> None:
    """Refuse text that holds numbers or dates, given the distinct ones."""
    numeric = [text for text in texts if looks_numeric(text)]
    odd = [text for text in texts if text not in numeric]
    if not odd:
        raise DesignError(
            f"column {name!r} has dtype {dtype} and holds numbers as text (e.g. {texts[0]!r}); expected a numeric "
            f"dtype; if the numbers are codes, write  C({name})  in the formula.\n{conversion(name, numeric)}"
        )
    if are_dates(texts):
        raise DesignError(
            f"column {name!r} has dtype {dtype} and holds dates as text (e.g. {texts[0]!r}), {len(texts)} different "
            f"ones; expected numbers; if they are categories, write  C({name})  in the formula.\n"
            + date_conversion(name, "text", texts)
        )
    if len(numeric) >= 10 and len(numeric) >= 0.8 * len(texts):
        raise DesignError(
            f"column {name!r} has dtype {dtype}: numbers as text, but for {listing(odd, 5)}; expected all numbers; for "
            f"categories write  C({name})  in the formula.\nIf those are missing values: "
            + conversion(name, numeric, coerce=True)
        )


def numbers(column: pd.Series, what: str) -> np.ndarray:
    """Return a column without missing values as float64.

    Parameters
    ----------
    column : Series
        Without missing values; bool counts as 0 and 1.
    what : str
        Name of the column, for messages, e.g. ``"weights 'w'"``.

    Returns
    -------
    ndarray of float64, shape (n,)
        An own copy.

    Raises
    ------
    DesignError
        If the column holds anything but finite numbers.
    """
    values = plain(column, str(column.name))
    if values.dtype.kind not in "bif":
        raise DesignError(
            f"{what} has dtype {column.dtype}; expected numbers.\nMake 0 and 1 of its levels with pd.get_dummies, or "
            "use a formula, which does."
        )
    return np.array(values, dtype=np.float64)
