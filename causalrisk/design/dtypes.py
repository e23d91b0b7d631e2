"""Columns brought to one of five plain dtypes, whatever storage they had.

A column (pandas nullable, Arrow, Sparse, Categorical, float32, big-endian) leaves this module as float64, int64, bool,
an object array of text, or a Categorical with object categories, so that the same numbers give the same result.
Nothing here changes the caller's data.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types as dtypes

from causalrisk.errors import DesignError

MANY_DATES = 10  # distinct dates beyond which a column of dates in text is not taken for categories
MANY_NUMBERS, MOST = 10, 0.8  # distinct numbers, and their share, from which text among numbers is taken for missing
NUMBERS = (  # 1.5e3; 1,234.5; 1,5; 1.234,5
    r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?",
    r"[+-]?(\d{1,3}(,\d{3})+|\d+)(\.\d*)?",
    r"[+-]?\d*(,\d*)?",
    r"[+-]?(\d{1,3}(\.\d{3})+|\d+)(,\d*)?",
)
DATE = r"\d{4}-\d{1,2}-\d{1,2}([ T].*)?|\d{1,2}[./]\d{1,2}[./]\d{4}|\d{4}/\d{1,2}/\d{1,2}"
ARROW_TEXT = ("string[pyarrow]", "large_string[pyarrow]", "string_view[pyarrow]")
SHOWN = 8
COPY_ON_WRITE = int(pd.__version__.split(".")[0]) >= 3  # writing to a column copies it


def looks_numeric(text: str) -> bool:
    """Return True if a text is a number, also one with a comma."""
    text = text.strip()
    return bool(re.search(r"\d", text)) and any(re.fullmatch(pattern, text) for pattern in NUMBERS)


def listing(values: Iterable[Any], limit: int = SHOWN) -> str:
    """Return the values as text, such as "'a', 'b' and 3 more"; NumPy scalars are shown as Python ones."""
    shown = [repr(v.item() if isinstance(v, np.generic) else v) for v in values]
    rest = len(shown) - limit
    return ", ".join(shown[:limit]) + (f" and {rest} more" if rest > 0 else "")


def missing_mask(column: pd.Series) -> np.ndarray:
    """Mask of NaN, None, ``pd.NA`` and NaT, also of NaN inside nullable and Arrow floats, shape (n,)."""
    mask = np.array(column.isna(), dtype=bool)
    if dtypes.is_extension_array_dtype(column.dtype) and dtypes.is_float_dtype(column.dtype):
        mask |= np.isnan(np.asarray(column.array.to_numpy(dtype=np.float64, na_value=np.nan)))
    return mask


def check_complete(column: pd.Series, what: str) -> None:
    """Refuse a column that misses values; `what` is its name in the message."""
    absent = missing_mask(column)
    if absent.any():
        raise DesignError(
            f"{what} is missing in {int(absent.sum())} rows, such as {listing(column.index[absent])}; expected a value "
            "in each.\nFill in these values, or leave these rows out with `dropna`."
        )


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
            f"Use `{_converted(name, dtype, codes)}`."
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
            f'Use `data["{name}"] = data["{name}"].replace([np.inf, -np.inf], np.nan)` to leave them out.'
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
    typed = f'data["{name}"] = data["{name}"].astype(str)'
    if all(issubclass(k, datetime.date) for k in kinds):  # datetimes and pandas' are dates too
        typed = _days(name, f'pd.to_datetime(data["{name}"])')
    elif all(issubclass(k, str | Real | Decimal) for k in kinds):
        typed = f'data["{name}"] = pd.to_numeric(data["{name}"], errors="coerce")'
    raise DesignError(
        f"column {name!r} has dtype {dtype} and holds {', '.join(sorted(k.__name__ for k in kinds))}; expected all "
        f"numbers, all bool or all text.\nUse `{typed}`."
    )


def _texts(values: Any, name: str, dtype: Any, codes: bool) -> np.ndarray:
    """Bring text without missing values to an object array, in which equal texts are one object."""
    places, distinct = pd.factorize(values)
    texts = [str(text) for text in distinct]
    if not codes and texts:
        _refuse_typed(texts, name, dtype)
    return np.array(texts, dtype=object)[places]


def _converted(name: str, dtype: Any, codes: bool) -> str:
    """Return the line that converts a column of dates, times, periods, intervals or complex numbers."""
    column = f'data["{name}"]'
    if getattr(dtype, "kind", "O") == "c":
        return f"{column} = {column}.to_numpy().real"
    if codes or isinstance(dtype, pd.IntervalDtype):
        return f"{column} = {column}.astype(str)"
    if isinstance(dtype, pd.PeriodDtype):
        return f"{column} = {column}.dt.year"
    return f'{column} = {column} / pd.Timedelta("1D")' if dtype.kind == "m" else _days(name, column)


def _days(name: str, dates: str) -> str:
    return f'data["{name}"] = ({dates} - {dates}.min()).dt.days'


def _refuse_typed(texts: list[str], name: str, dtype: Any) -> None:
    """Refuse distinct texts that are numbers or dates."""
    odd, column = [text for text in texts if not looks_numeric(text)], f'data["{name}"]'
    count = len(texts) - len(odd)
    if not odd or (count >= MANY_NUMBERS and count >= MOST * len(texts)):
        found = f"numbers as text, but for {listing(odd, 5)}" if odd else f"numbers as text (e.g. {texts[0]!r})"
        coerce = ', errors="coerce"' if odd else ""
        advice = f"Use `{column} = pd.to_numeric({column}{coerce})`."
        if any("," in text for text in texts if text not in odd):  # 1,234 may be either
            advice = 'Read the file with `decimal=","` or `thousands=","`, whichever the comma is.'
    elif len(texts) > MANY_DATES and all(re.fullmatch(DATE, text.strip()) for text in texts):
        found, advice = f"dates as text (e.g. {texts[0]!r})", f"Use `{_days(name, f'pd.to_datetime({column})')}`."
    else:
        return
    raise DesignError(
        f"column {name!r} has dtype {dtype} and holds {found}; expected numbers, or `C({name})` for categories.\n"
        f"{advice}"
    )


def numbers(column: pd.Series, what: str) -> np.ndarray:
    """Return a column without missing values as float64, shape (n,), an own copy; bool counts as 0 and 1.

    A DesignError, in which `what` names the column, where it holds anything but finite numbers.
    """
    values = plain(column, str(column.name))
    if values.dtype.kind not in "bif":
        raise DesignError(f"{what} has dtype {column.dtype}; expected numbers.\nUse `pandas.get_dummies` for levels.")
    return np.array(values, dtype=np.float64)
