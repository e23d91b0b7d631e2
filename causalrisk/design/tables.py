"""Columns of the data: frames of any library as pandas holds them, aligned by row, in five plain dtypes.

A column (pandas nullable, Arrow, Sparse, Categorical, float32, big-endian) becomes float64, int64, bool, an object
array of text, or a Categorical with object categories, so that the same numbers give the same result. Nothing here
changes the caller's data.
"""

from __future__ import annotations

import datetime
import difflib
import glob
import itertools
import os
import re
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from importlib.util import find_spec
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types as dtypes

from causalrisk.errors import DesignError, OptionError, UnavailableError

MANY_DATES = 10  # distinct dates beyond which a column of dates in text is not taken for categories
MANY_NUMBERS, MOST = 10, 0.8  # distinct numbers, and their share, from which text among numbers is taken for missing
NUMBER = re.compile(r"(?=.*\d)[+-]?(\d{1,3}([.,]\d{3})+|\d*)([.,]\d*)?([eE][+-]?\d+)?")  # 1.5e3; 1,234.5; 1,5; 1.234,5
THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d*)?")
DATE = re.compile(r"\d{4}-\d{1,2}-\d{1,2}([ T].*)?|\d{1,2}[./]\d{1,2}[./]\d{4}|\d{4}/\d{1,2}/\d{1,2}")
DAYS = "({0} - {0}.min()).dt.days"
NUMBERS_OF = {"M": DAYS, "m": '{0} / pd.Timedelta("1D")', "c": "{0}.to_numpy().real"}  # by the kind of the dtype
ARROW_TEXT = ("string[pyarrow]", "large_string[pyarrow]", "string_view[pyarrow]")
SHOWN = 8
COPY_ON_WRITE = int(pd.__version__.split(".")[0]) >= 3  # writing to a column copies it


def listing(values: Iterable[Any], limit: int = SHOWN) -> str:
    """Return the values as text, such as "'a', 'b' and 3 more"; NumPy scalars are shown as Python ones."""
    shown = [repr(v.item() if isinstance(v, np.generic) else v) for v in values]
    rest = len(shown) - limit
    return ", ".join(shown[:limit]) + (f" and {rest} more" if rest > 0 else "")


# --- plain columns ---------------------------------------------------------------------------------------------------


def missing_mask(column: pd.Series) -> np.ndarray:
    """Mask of NaN, None, ``pd.NA`` and NaT, also of NaN inside nullable and Arrow floats, shape (n,)."""
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "biuf":
        return np.isnan(column.to_numpy())
    mask = np.array(column.isna(), dtype=bool)
    if dtypes.is_extension_array_dtype(column.dtype) and dtypes.is_float_dtype(column.dtype):
        mask |= np.isnan(np.asarray(column.array.to_numpy(dtype=np.float64, na_value=np.nan)))
    return mask


def check_complete(column: pd.Series, what: str) -> None:
    """Refuse a column that misses values; `what` is its name in the message."""
    absent = missing_mask(column)
    if absent.any():
        found = f"{int(absent.sum())} rows, such as {listing(column.index[absent])}"
        raise DesignError(f"{what} is missing in {found}; expected a value in each.\nFill them in, or use `dropna`.")


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
    if column.dtype == object:
        inferred = column.infer_objects()
        column = inferred if inferred.dtype.kind in "bif" else column  # dates as objects have advice of their own
    dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        used = column.cat.remove_unused_categories()
        return used.cat.rename_categories(used.cat.categories.astype(object)).copy()
    if dtypes.is_bool_dtype(dtype):
        values = column.to_numpy(dtype=bool)
    elif dtypes.is_integer_dtype(dtype):
        too_large = len(column) and column.max() > np.iinfo(np.int64).max
        values = column.to_numpy(dtype=np.float64 if too_large else np.int64)
    elif dtypes.is_float_dtype(dtype):
        values = column.to_numpy(dtype=np.float64)
    elif getattr(dtype, "kind", "O") in "mMc" or isinstance(dtype, pd.PeriodDtype | pd.IntervalDtype):
        made = "{0}.astype(str)" if codes else NUMBERS_OF.get(dtype.kind, "{0}.astype(str)")
        raise _other_dtype(name, dtype, "", "numbers, bool, text or categories", made)
    elif isinstance(dtype, pd.StringDtype) or str(dtype) in ARROW_TEXT:
        values = _texts(column, name, dtype, codes)
    else:
        values = _from_objects(column.to_numpy(dtype=object), name, dtype, codes)
    _check_finite(values, name)
    if COPY_ON_WRITE and values.dtype == dtype and values.flags.c_contiguous:
        return column.rename(name)
    return pd.Series(np.array(values, order="C"), dtype=values.dtype, name=name, copy=False)


def _other_dtype(name: str, dtype: Any, holds: str, expected: str, made: str) -> DesignError:
    """Make the error of a column of another dtype; `made` is code that converts the column {0}."""
    column = f'data["{name}"]'
    found = f"column {name!r} has dtype {dtype}{holds}; expected {expected}"
    return DesignError(f"{found}.\nUse `{column} = {made.format(column)}`.")


def _check_finite(values: np.ndarray, name: str) -> None:
    if values.dtype.kind == "f" and np.isinf(values).any():
        count = int(np.isinf(values).sum())
        raise DesignError(f"column {name!r} has {count} infinite values.\nMake them missing to leave these rows out.")


def _from_objects(values: np.ndarray, name: str, dtype: Any, codes: bool) -> np.ndarray:
    """Bring Python objects to bool, numbers or text, or say why that cannot be."""
    kinds = {type(v) for v in values}
    if all(issubclass(k, str) for k in kinds):
        return _texts(values, name, dtype, codes)
    if all(issubclass(k, Real | Decimal | np.bool_) for k in kinds):
        return values.astype(np.float64)
    made = "{0}.astype(str)"
    if all(issubclass(k, datetime.date) for k in kinds):  # datetimes and pandas' are dates too
        made = DAYS.replace("{0}", "pd.to_datetime({0})")
    elif all(issubclass(k, str | Real | Decimal) for k in kinds):
        made = 'pd.to_numeric({0}, errors="coerce")'
    holds = f" and holds {', '.join(sorted(k.__name__ for k in kinds))}"
    raise _other_dtype(name, dtype, holds, "numbers, bool or text alone", made)


def _texts(values: Any, name: str, dtype: Any, codes: bool) -> np.ndarray:
    """Bring text without missing values to an object array, in which equal texts are one object.

    Numbers and dates as text are refused, unless they are welcome as category codes.
    """
    places, distinct = pd.factorize(values)
    texts = [str(text) for text in distinct]
    odd = [text for text in texts if not NUMBER.fullmatch(text.strip())]
    count, made = len(texts) - len(odd), ""
    if count and not codes and (not odd or (count >= MANY_NUMBERS and count >= MOST * len(texts))):
        holds = f"numbers as text, but for {listing(odd, 5)}" if odd else f"numbers as text (e.g. {texts[0]!r})"
        made = 'pd.to_numeric({0}, errors="coerce")' if odd else "pd.to_numeric({0})"
    elif not codes and len(texts) > MANY_DATES and all(DATE.fullmatch(text.strip()) for text in texts):
        holds, made = f"dates as text (e.g. {texts[0]!r})", DAYS.replace("{0}", "pd.to_datetime({0})")
    if not made:
        return np.array(texts, dtype=object)[places]
    expected = f"numbers, or `C({name if name.isidentifier() else f'Q({name!r})'})` for categories"
    error = _other_dtype(name, dtype, f" and holds {holds}", expected, made)
    commas = [text for text in texts if "," in text and text not in odd]
    if commas:
        points = any("." in text for text in commas)
        advice = f"""Use `pandas.read_csv(..., decimal=","{', thousands="."' * points})`."""
        if all(THOUSANDS.fullmatch(text.strip()) for text in commas):  # 1,234 may be either
            advice = 'Use `pandas.read_csv(..., thousands=",")`, or `decimal=","` if that is what the comma is.'
        raise DesignError(f"{str(error).splitlines()[0]}\n{advice}")
    raise error


def numbers(column: pd.Series, what: str) -> np.ndarray:
    """Return a column without missing values as float64, shape (n,), an own copy; bool counts as 0 and 1.

    A DesignError, in which `what` names the column, where it holds anything but finite numbers.
    """
    values = plain(column, str(column.name))
    if values.dtype.kind not in "bif":
        raise DesignError(f"{what} has dtype {column.dtype}; expected numbers.\nUse `pandas.get_dummies` for levels.")
    return np.array(values, dtype=np.float64)


# --- frames and columns of other libraries ---------------------------------------------------------------------------


READERS = {".dta": "stata", ".parquet": "parquet", ".xlsx": "excel", ".sav": "spss"}


def as_pandas(value: Any) -> Any:
    """Return a frame or a column of another library as a pandas one, and anything else as it is.

    A column becomes an array, which has no row labels. Whole numbers and bool with gaps stay what they are, an Enum or
    a dictionary keeps the order of its categories. Row labels are 0, 1, ... unless the frame carries others.
    """
    if isinstance(value, pd.DataFrame | pd.Series | pd.Index | Mapping | str):
        return value
    library, kind = type(value).__module__.partition(".")[0], type(value).__name__
    if library.startswith("dask") and hasattr(value, "get_partition"):
        raise DesignError("only data= of a model may be a Dask data frame.\nUse `data.compute()`.")
    if library == "narwhals" and kind in ("DataFrame", "Series"):
        return as_pandas(value.to_native())
    if library == "polars" and kind == "DataFrame":
        return pd.DataFrame({name: _polars_column(value[name]) for name in value.columns}, index=range(len(value)))
    if library == "polars":
        return _polars_column(value) if kind == "Series" else value
    if library != "pyarrow" and callable(getattr(value, "to_pandas", None)):
        return value.to_pandas()
    if library != "pyarrow" and not hasattr(value, "__arrow_c_stream__"):
        return value
    try:
        import pyarrow as pa
    except ImportError as error:
        raise UnavailableError("such data are read by pyarrow.\nUse `pip install pyarrow`.") from error
    value = value if library == "pyarrow" else pa.table(value)
    if not isinstance(value, pa.Table | pa.RecordBatch | pa.Array | pa.ChunkedArray):
        return value
    read = value.to_pandas(types_mapper=lambda kind: None if pa.types.is_dictionary(kind) else pd.ArrowDtype(kind))
    return read.array if isinstance(read, pd.Series) else read


def _polars_column(column: Any) -> Any:
    """Values of a polars Series: text through Arrow where pyarrow is there, else by NumPy, as numbers are."""
    kind = type(column.dtype).__name__
    if kind == "Enum":
        return pd.Categorical(column.to_list(), categories=list(column.dtype.categories), ordered=True)
    if kind in ("String", "Categorical") and find_spec("pyarrow"):
        return as_pandas(column.cast(str).to_arrow())
    gaps = column.null_count() and (column.dtype.is_integer() or kind == "Boolean")
    return pd.array(column.to_list()) if gaps else column.to_numpy()


def is_column(value: Any) -> bool:
    """Return True if a value can stand for a variable: one entry per row, in one dimension."""
    if isinstance(value, np.ndarray):
        return value.ndim == 1
    known = isinstance(value, pd.Series | pd.Index | list | tuple | pd.api.extensions.ExtensionArray)
    foreign = type(value).__module__.partition(".")[0] in ("polars", "narwhals", "pyarrow")
    return known or (foreign and hasattr(value, "to_numpy") and not hasattr(value, "columns"))


def as_table(data: Any, notes: list[str]) -> pd.DataFrame:
    """Return the caller's data, a frame of any library or a mapping of names to columns, as a data frame."""
    if isinstance(data, Mapping):
        return gather(data, notes)
    frame = as_pandas(data)
    if isinstance(frame, pd.DataFrame):
        return frame
    typed = "pandas.DataFrame(data)"
    if isinstance(data, str | os.PathLike):
        path = os.fspath(data)
        several = glob.has_magic(path) or os.path.isdir(path)
        reader = READERS.get(os.path.splitext(path)[1].lower(), "csv")
        typed = f'causalrisk.scan("{path}")' if several else f'pandas.read_{reader}("{path}")'
    for name in ("to_pandas", "to_table", "compute", "collect"):  # lazy frames, datasets of Arrow, Dask
        typed = f"data.{name}()" if callable(getattr(data, name, None)) else typed
    expected = "a data frame (pandas, polars, Arrow), a mapping of column names to values, or None"
    raise OptionError(f"data is of type {_type_of(data)}; expected {expected}.\nUse `data={typed}`.")


def gather(columns: Mapping[str, Any], notes: list[str]) -> pd.DataFrame:
    """Make a data frame of separate variables, aligned by label where they carry labels."""
    columns = {name: _one_column(values, f"variable {name!r}") for name, values in columns.items()}
    labelled = [v.index for v in columns.values() if isinstance(v, pd.Series)]
    index = labelled[0] if labelled else pd.RangeIndex(len(next(iter(columns.values()), ())))
    found = {name: align(values, index, f"variable {name!r}", notes) for name, values in columns.items()}
    return pd.DataFrame(found, index=index, copy=False)


# --- one value per row -----------------------------------------------------------------------------------------------


def align(values: Any, index: pd.Index, what: str, notes: list[str]) -> pd.Series:
    """Put one value per row onto an index: by label if the values carry labels, else by position.

    Parameters
    ----------
    values : Series, DataFrame with one column, Index, pandas array, ndarray, list, tuple, polars or Arrow column
        One value per row.
    index : pandas.Index
        The rows.
    what : str
        Name of the values, for messages, e.g. ``"treatment 'd'"``.
    notes : list of str
        A line is appended if rows had to be put into another order.

    Returns
    -------
    Series
        The values on `index`; may share memory with `values`.
    """
    name, values = getattr(values, "name", None), _one_column(values, what)
    n, name = len(values), getattr(values, "name", name)
    if not isinstance(values, pd.Series):
        if n != len(index):
            raise DesignError(f"{what} has {n} values, the data have {len(index)} rows.\nGive one value per row.")
        return pd.Series(values, index=index, name=name)
    position = matched_rows(values.index, index)
    if position is None:
        subset = values.index.is_unique and index.isin(values.index).all()
        same = "Use `.to_numpy()`." if n == len(index) else "Give one value per row."
        typed = "Use `values.loc[data.index]`." if subset else same
        found = f"{what} has {n} values whose row labels are not those of {len(index)} rows of data"
        raise DesignError(f"{found}.\n{typed}")
    if np.any(position != np.arange(n)):
        found = f"{what} has the row labels of the data in another order; it was aligned by label"
        note = f"{found}. Use `.to_numpy()` to match rows by position."
        notes += [] if note in notes else [note]
        values = values.take(position)
    return pd.Series(values.array, index=index, name=name)


def matched_rows(labels: pd.Index, wanted: pd.Index) -> np.ndarray | None:
    """Positions of the wanted row labels among others, shape (n,); None unless the labels are the same, each once."""
    if labels.equals(wanted):
        return np.arange(len(wanted))
    if len(labels) != len(wanted) or not (labels.is_unique and wanted.is_unique):
        return None
    position = labels.get_indexer(wanted)
    return position if np.all(position >= 0) else None


def _one_column(values: Any, what: str) -> Any:
    values = as_pandas(values)
    if isinstance(values, pd.DataFrame) and values.shape[1] == 1:
        return values.iloc[:, 0]
    if isinstance(values, np.ndarray) and values.shape[1:] == (1,):
        return values[:, 0]
    if is_column(values):
        return values
    shape = getattr(values, "shape", ())
    found = f"has shape {tuple(shape)}" if len(shape) > 1 else f"is of type {_type_of(values)}"
    raise OptionError(f"{what} {found}; expected one value per row: a column name, Series, array or list.")


def _type_of(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def named_columns(values: Any, what: str, index: pd.Index, notes: list[str]) -> dict[str, pd.Series]:
    """Return the columns of a matrix by name.

    Parameters
    ----------
    values : DataFrame, Series, ndarray, scipy sparse matrix, list of rows, or frame of another library
        The matrix. Columns without names become "const" (a column of ones) and "x1", "x2", ...
    what : str
        Name of the matrix, for messages.
    index : pandas.Index
        Labels of the rows.
    notes : list of str
        A line is appended if rows had to be put into another order.

    Returns
    -------
    dict of str to Series
        On `index`, in order; may share memory with `values`.
    """
    given, values = values, as_pandas(values)
    if isinstance(values, pd.Series) or (is_column(given) and not isinstance(given, np.ndarray | list | tuple)):
        name = getattr(given, "name", None)
        columns = {"x1" if name in (None, "") else str(name): values}
    elif isinstance(values, pd.DataFrame):
        names = pd.Index([str(name) for name in values.columns])
        if names.has_duplicates:
            raise _named_twice(f"{what} has several columns named {listing(sorted(set(names[names.duplicated()])))}")
        labelled = given is values or not isinstance(values.index, pd.RangeIndex)
        parts = (values.iloc[:, j] for j in range(len(names)))
        columns = {name: part if labelled else part.array for name, part in zip(names, parts, strict=True)}
    else:
        columns = _columns_of_matrix(values, what)
    if not columns:
        raise DesignError(f"{what} has no columns; expected at least one.\nUse `np.ones((n, 1))` for a constant.")
    found = {name: align(column, index, what, notes) for name, column in columns.items()}
    for name, column in found.items():
        column.name = name
    return found


def _columns_of_matrix(values: Any, what: str) -> dict[str, Any]:
    """Return the columns of a NumPy or sparse matrix, or of a list of rows: "const" for the first that is one, "x1"."""
    array = np.asarray(values.toarray() if hasattr(values, "toarray") else values)
    array = array[:, None] if array.ndim == 1 else array
    if not array.ndim:
        raise OptionError(f"{what} is of type {_type_of(values)}; expected a pandas DataFrame or a NumPy array.")
    if array.ndim != 2 or array.dtype.names is not None:
        raise DesignError(f"{what} has shape {array.shape} and dtype {array.dtype}; expected a matrix.")
    constant = next((j for j, column in enumerate(array.T) if len(column) and (column == 1).all()), array.shape[1])
    names = ["const" if j == constant else f"x{j + (j < constant)}" for j in range(array.shape[1])]
    return dict(zip(names, array.T, strict=True))


def _named_twice(found: str) -> DesignError:
    return DesignError(f"{found}; expected distinct names.\nUse `data.loc[:, ~data.columns.duplicated()]`.")


# --- columns by name -------------------------------------------------------------------------------------------------


def nearest(name: Any, names: Iterable[Any], show: Callable[[str], str] = repr) -> str:
    """Return a line that names the columns nearest to a name that was not found, each printed by `show`."""
    known = [str(n) for n in names]
    words = [word for word in re.findall(r"\w+", str(name)) if word in known]  # columns named inside of other text
    folded = {k.casefold(): k for k in known}  # difflib minds the case, people do not
    close = difflib.get_close_matches(str(name).casefold(), folded, n=3, cutoff=0.6)
    near = words[:3] or [folded[match] for match in close]
    separator = next((s for s in (";", "\t", "|") if s in known[0]), None) if len(known) == 1 else None
    if separator is not None:  # a file with another separator was read as if it had commas
        return f"The only column is {known[0]!r}. Use `pd.read_csv(..., sep={separator!r})`."
    if near:
        return f"Did you mean {' or '.join(map(show, near))}?"
    return f"The columns are {listing(known)}." if known else f"Arrays have no names. Use `data[{name!r}]`."


def in_index(table: pd.DataFrame, name: str) -> str:
    """Advice for a name that is a level of the index of the data; empty for others."""
    return "It is in the index.\nUse `data=data.reset_index()`." if name in table.index.names else ""


def column_of(table: pd.DataFrame, name: str) -> pd.Series:
    """Return the column of that name."""
    found = table[name]
    if isinstance(found, pd.DataFrame):
        raise _named_twice(f"the data have {found.shape[1]} columns named {name!r}")
    return found


def needed_column(table: pd.DataFrame, name: str, where: str, use: str) -> pd.Series:
    """Return a column of new rows; `where` and `use` say in an error whose rows lack it, and what it is for."""
    if name not in table:
        raise DesignError(f"{where} no column {name!r}, which {use}.\nAdd it. {nearest(name, table.columns)}")
    return column_of(table, name)


def new_column(table: pd.DataFrame, name: str, use: str) -> pd.Series:
    """Return a column of new rows that misses no value; `use` as in `needed_column`."""
    column = needed_column(table, name, "the new data have", use)
    check_complete(column, f"column {name!r} of the new data")
    return column


def find_column(
    value: Any, role: str, default: str, table: pd.DataFrame, frame: Mapping[str, Any], notes: list[str]
) -> pd.Series:
    """Find a variable with one value per row, given as the name of a column or as its values.

    Parameters
    ----------
    value : str or array-like
        A name, or the values.
    role : str
        Role of the variable, for messages, e.g. ``"treatment"``.
    default : str
        Its name if it has none.
    table : DataFrame
        The columns there are.
    frame : mapping of str to object
        The caller's variables.
    notes : list of str
        A line is appended if rows had to be put into another order.

    Returns
    -------
    Series
        On the index of the table, under its name.
    """
    named = isinstance(value, list | tuple) and all(isinstance(name, str) and name in table for name in value)
    if named and 0 < len(value) != len(table.index):
        option = {"treatment": "treat", "group": "by"}.get(role, role)
        typed = list(value[:2]) if role == "cluster" and len(value) > 1 else value[0]
        raise DesignError(f"{role} is a list, {listing(value)}; expected one column.\nUse `{option}={typed!r}`.")
    if not isinstance(value, str):
        name = getattr(value, "name", None)
        own = default if name is None else str(name)
        return align(value, table.index, f"{role} {own!r}", notes).rename(own)
    if value in table:
        return column_of(table, value)
    if is_column(frame.get(value)):
        return align(frame[value], table.index, f"{role} {value!r}", notes).rename(value)
    found = f"{role} {value!r} is neither a column of the data nor an array in the calling scope.\n"
    if role == "treatment" and (names := [word for word in re.findall(r"\w+", value) if word in table]):
        found = f"{role} {value!r} is more than a column; expected the treatment alone.\n"
        typed = f'`treat="{names[0]}", propensity="{" + ".join(names[1:])}"`' if names[1:] else f'`treat="{names[0]}"`'
        raise DesignError(f"{found}Use {f'`treat=data.eval({value!r})`' if re.search('[<>=]', value) else typed}.")
    raise DesignError(found + (in_index(table, value) or nearest(value, table.columns)))


def find_condition(value: Any, role: str, table: pd.DataFrame, frame: Mapping[str, Any], notes: list[str]) -> pd.Series:
    """Find a variable as `find_column` does, or evaluate a condition on columns of the data, such as "age >= 20".

    A row that misses a value does not meet a condition.
    """
    if not isinstance(value, str) or value in table or value.isidentifier() or is_column(frame.get(value)):
        return find_column(value, role, role, table, frame, notes)
    words = re.findall(r"`([^`]+)`|(\w+)", re.sub(r"\"[^\"]*\"|'[^']*'", "", value))
    used = [name for name in table.columns if name in itertools.chain(*words)]
    unknown = np.logical_or.reduce([np.zeros(len(table), dtype=bool), *(missing_mask(table[name]) for name in used)])
    own = {name: frame[name] for name in re.findall(r"@(\w+)", value) if name in frame}
    try:
        found = table.eval(value, engine="python", local_dict=own, global_dict={})
    except (ArithmeticError, AttributeError, LookupError, NameError, SyntaxError, TypeError, ValueError) as error:
        found = f"the condition {role}={value!r} cannot be evaluated: {error}"
        raise DesignError(f"{found}\nThe columns are {listing(table.columns)}.") from error
    if not isinstance(found, pd.Series):
        raise DesignError(f"the condition {role}={value!r} is not True or False in each row.\nEquality is `==`.")
    found = found.mask(unknown, False)
    return (found.astype(bool) if dtypes.is_bool_dtype(found.dtype) else found).rename(value)
