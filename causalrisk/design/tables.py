"""Columns of the data: convert frames of any library to pandas, align columns by row, and reduce dtypes to five."""

from __future__ import annotations

import datetime
import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types as dtypes

from causalrisk.errors import DesignError, OptionError, aliases, needed

MANY_DATES = 10  # a text column with more distinct dates than this is not categorical
MANY_NUMBERS, MOST = 10, 0.8  # if this many texts, and this share, are numbers, others are missing-value codes
NUMBER = re.compile(r"(?=.*\d)[+-]?(\d{1,3}([.,]\d{3})+|\d*)([.,]\d*)?([eE][+-]?\d+)?")  # 1.5e3; 1,234.5; 1,5; 1.234,5
DATE = re.compile(r"\d{4}-\d{1,2}-\d{1,2}([ T].*)?|\d{1,2}[./]\d{1,2}[./]\d{4}|\d{4}/\d{1,2}/\d{1,2}")
DAYS = "{0} = (pd.to_datetime({0}) - pd.to_datetime({0}).min()).dt.days"
NUMBERS_OF = {"m": '{0} = {0} / pd.Timedelta("1D")', "c": "{0} = {0}.to_numpy().real"}  # by the kind of the dtype
COMMAS = 'pandas.read_csv(..., decimal=",")` for a decimal comma, or `thousands=","'
DISTINCT = "expected distinct names.\nUse `data.loc[:, ~data.columns.duplicated()]`."
OF_MISSING = re.compile(r"\b(fillna|isna|isnull|notna|notnull|isnan|nan_to_num)\(")  # what uses missing values
SHOWN = 8


def listing(values: Iterable[Any], limit: int = SHOWN) -> str:
    """Return the values as text, such as "'a', 'b' and 3 more". NumPy scalars are shown as Python scalars."""
    shown = [repr(v.item() if isinstance(v, np.generic) else v) for v in values]
    rest = len(shown) - limit
    return ", ".join(shown[:limit]) + (f" and {rest} more" if rest > 0 else "")


# --- plain columns ---------------------------------------------------------------------------------------------------


def missing_mask(column: pd.Series) -> np.ndarray:
    """Return a mask (n,) of NaN, None, ``pd.NA`` and NaT, including NaN inside nullable and Arrow floats."""
    mask = np.array(pd.isna(column.array), dtype=bool)
    if dtypes.is_extension_array_dtype(column.dtype) and dtypes.is_float_dtype(column.dtype):
        mask |= np.isnan(np.asarray(column.array.to_numpy(dtype=np.float64, na_value=np.nan)))
    return mask


def check_complete(column: pd.Series, what: str) -> None:
    """Raise a DesignError if a column has missing values. `what` names the column in the message."""
    absent = missing_mask(column)
    if absent.any():
        found = f"{int(absent.sum())} rows, such as {listing(column.index[absent])}; expected a value in each"
        raise DesignError(f"{what} is missing in {found}.\nFill in the values, or use `data.dropna()` for the model.")


def plain(column: pd.Series, name: str, codes: bool = False) -> pd.Series:
    """Return a column without missing values as float64, int64, bool, text or Categorical, or raise an error."""
    column = column.reset_index(drop=True)
    column = column.infer_objects() if column.dtype == object else column
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
    else:
        values = _from_objects(column.to_numpy(dtype=object), name, dtype, codes)
    if values.dtype.kind == "f" and np.isinf(values).any():
        found = f"column {name!r} has infinite values in {int(np.isinf(values).sum())} of {len(values)} rows"
        raise DesignError(f"{found}.\nUse `data.replace([np.inf, -np.inf], np.nan)`.")
    return pd.Series(np.array(values, order="C"), dtype=values.dtype, name=name, copy=False)


def _from_objects(values: np.ndarray, name: str, dtype: Any, codes: bool) -> np.ndarray:
    """Convert Python objects to numbers or text, or raise an error that says how to convert them."""
    kinds = {type(v) for v in values}
    if all(issubclass(k, str) for k in kinds):
        return _texts(values, name, dtype, codes)
    if all(issubclass(k, Real | Decimal | np.bool_) for k in kinds):
        return values.astype(np.float64)
    dates = all(issubclass(k, datetime.date) for k in kinds)  # datetimes and pandas' are dates too
    made = "{0} = {0}.astype(str)`, or a column with `{0}.dt.year" if dates else "{0} = {0}.astype(str)"
    if all(issubclass(k, str | Real | Decimal) for k in kinds):
        made = '{0} = pd.to_numeric({0}, errors="coerce")'
    elif not codes:
        made = DAYS if dates else NUMBERS_OF.get(dtype.kind, made)
    holds = f" and holds {', '.join(sorted(k.__name__ for k in kinds))}" if dtype.kind == "O" else ""
    raise _other_dtype(name, f"{dtype}{holds}", "numbers, bool, text or categories", made)


def _texts(values: np.ndarray, name: str, dtype: Any, codes: bool) -> np.ndarray:
    """Return a column of text. Numbers or dates as text raise an error, unless `codes` allows them as categories."""
    places, distinct = pd.factorize(values)
    texts = [str(text) for text in distinct]
    odd = [text for text in texts if not NUMBER.fullmatch(text.strip())]
    count, made = len(texts) - len(odd), ""
    if count and (not odd or (count >= MANY_NUMBERS and count >= MOST * len(texts))):
        holds = f"numbers as text, except {listing(odd, 5)}" if odd else f"numbers as text (e.g. {texts[0]!r})"
        made = '{0} = pd.to_numeric({0}, errors="coerce")' if odd else "{0} = pd.to_numeric({0})"
        made = COMMAS if any("," in text for text in texts if text not in odd) else made
    elif len(texts) > MANY_DATES and all(DATE.fullmatch(text.strip()) for text in texts):
        holds, made = f"dates as text (e.g. {texts[0]!r})", DAYS
    if codes or not made:
        return np.array(texts, dtype=object)[places]
    expected = f"numbers, or `C({name if name.isidentifier() else f'Q({name!r})'})` for a covariate with categories"
    raise _other_dtype(name, f"{dtype} and holds {holds}", expected, made)


def _other_dtype(name: str, found: str, expected: str, made: str) -> DesignError:
    """Return the error for a column of an unsupported dtype. `made` is code that converts the column, called {0}."""
    typed = made.format(f'data["{name}"]')
    return DesignError(f"column {name!r} has dtype {found}; expected {expected}.\nUse `{typed}`.")


def numbers(column: pd.Series, what: str) -> np.ndarray:
    """Return a column without missing values as float64, (n,). Text, categories and infinity raise a DesignError."""
    values = plain(column, str(column.name))
    if values.dtype.kind not in "bif":
        raise DesignError(f"{what} has dtype {column.dtype}; expected numbers.\nUse `pandas.get_dummies` for levels.")
    return np.array(values, dtype=np.float64)


# --- frames and columns of other libraries ---------------------------------------------------------------------------


def as_pandas(value: Any) -> Any:
    """Convert a frame or a column of another library to pandas. Anything else is returned unchanged."""
    if isinstance(value, pd.DataFrame | pd.Series | pd.Index | Mapping | str):
        return value
    library = type(value).__module__.partition(".")[0]
    if library not in ("polars", "pyarrow") and hasattr(value, "to_pandas"):
        return value.to_pandas()
    if not hasattr(value, "to_pandas") and not hasattr(value, "__arrow_c_stream__"):
        return value
    with needed("reading these data needs pyarrow", "pyarrow"):
        import pyarrow as pa
    if library == "polars" and not hasattr(value, "columns"):
        return as_pandas(value.to_frame()).iloc[:, 0].array
    if library == "polars":
        value = value.fill_nan(None)  # NaN is missing, as in pandas
    elif library != "pyarrow":
        value = pa.table(value)

    def pandas_type(kind: Any) -> Any:
        levels = pa.types.is_dictionary(kind) and (kind.ordered or library != "polars")  # polars' Categorical is text
        return None if levels else pd.ArrowDtype(kind)

    read = value.to_pandas(types_mapper=pandas_type)
    return read.array if isinstance(read, pd.Series) else read


def is_column(value: Any) -> bool:
    """Return True if a value can be a variable: one-dimensional, with one entry per row."""
    if isinstance(value, np.ndarray):
        return value.ndim == 1
    known = isinstance(value, pd.Series | pd.Index | list | tuple | pd.api.extensions.ExtensionArray)
    foreign = type(value).__module__.partition(".")[0] in ("polars", "narwhals", "pyarrow")
    return known or (foreign and hasattr(value, "to_numpy") and not hasattr(value, "columns"))


def as_table(data: Any, notes: list[str]) -> pd.DataFrame:
    """Return the caller's data (a frame of any library, or a mapping of names to columns) as a data frame."""
    if isinstance(data, Mapping):
        return gather(data, notes)
    frame = as_pandas(data)
    if isinstance(frame, pd.DataFrame):
        return frame
    expected = "a data frame (pandas, polars, Arrow), a mapping of column names to values, or None"
    typed = "`data=pandas.read_csv(path)`, `data=data.collect()` or `data=pandas.DataFrame(data)`"
    raise OptionError(f"data is of type {_type_of(data)}; expected {expected}.\nUse {typed}.")


def gather(columns: Mapping[str, Any], notes: list[str]) -> pd.DataFrame:
    """Make a data frame from separate variables, aligned by label if they have row labels."""
    columns = {name: _one_column(values, f"variable {name!r}") for name, values in columns.items()}
    labelled = [v.index for v in columns.values() if isinstance(v, pd.Series)]
    index = labelled[0] if labelled else pd.RangeIndex(len(next(iter(columns.values()), ())))
    found = {name: align(values, index, f"variable {name!r}", notes) for name, values in columns.items()}
    return pd.DataFrame(found, index=index, copy=False)


# --- one value per row -----------------------------------------------------------------------------------------------


def align(values: Any, index: pd.Index, what: str, notes: list[str]) -> pd.Series:
    """Put one value per row onto an index: by label if the values have row labels, otherwise by position."""
    name, values = getattr(values, "name", None), _one_column(values, what)
    n, name = len(values), getattr(values, "name", name)
    if n == len(index) and not isinstance(values, pd.Series):
        return pd.Series(values, index=index, name=name)
    position = matched_rows(values.index, index) if isinstance(values, pd.Series) else None
    if position is None:
        labels = " with other row labels" * (n == len(index))
        found = f"{what} has {n} values, but the data have {len(index)} rows{labels}"
        advice = "`values.to_numpy()` to match by position" if labels else "one value per row: `values.loc[data.index]`"
        raise DesignError(f"{found}.\nUse {advice}.")
    if np.any(position != np.arange(n)):
        found = f"{what} has the row labels of the data in another order; it was aligned by label"
        note = f"{found}. Use `.to_numpy()` to match rows by position."
        notes += [] if note in notes else [note]
    return pd.Series(values.array.take(position), index=index, name=name)


def matched_rows(labels: pd.Index, wanted: pd.Index) -> np.ndarray | None:
    """Return the positions (n,) of the `wanted` row labels in `labels`, or None if they do not match one to one."""
    if labels.equals(wanted):
        return np.arange(len(wanted))
    if len(labels) != len(wanted) or not (labels.is_unique and wanted.is_unique):
        return None
    position = labels.get_indexer(wanted)
    return position if np.all(position >= 0) else None


def _one_column(values: Any, what: str) -> Any:
    values = as_pandas(values)
    if isinstance(values, pd.DataFrame | np.ndarray) and values.shape[1:] == (1,):
        return values.squeeze(axis=1)
    if is_column(values):
        return values
    shape = getattr(values, "shape", ())
    found = f"has shape {tuple(shape)}" if len(shape) > 1 else f"is of type {_type_of(values)}"
    raise OptionError(f"{what} {found}; expected one value per row: a column name, Series, array or list.")


def _type_of(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def named_columns(values: Any, what: str, index: pd.Index, notes: list[str]) -> dict[str, pd.Series]:
    """Return the columns of a matrix by name, aligned to `index`. Unnamed columns become "const", "x1", "x2", ..."""
    given, values = values, as_pandas(values)
    if isinstance(values, pd.Series) or (is_column(given) and not isinstance(given, np.ndarray | list | tuple)):
        columns = {str(getattr(given, "name", None) or "x1"): values}
    elif isinstance(values, pd.DataFrame):
        names = pd.Index([str(name) for name in values.columns])
        if names.has_duplicates:
            twice = listing(sorted(set(names[names.duplicated()])))
            raise DesignError(f"{what} has several columns named {twice}; {DISTINCT}")
        labelled = given is values or not isinstance(values.index, pd.RangeIndex)
        parts = (values.iloc[:, j] for j in range(len(names)))
        columns = {name: part if labelled else part.array for name, part in zip(names, parts, strict=True)}
    else:
        columns = _columns_of_matrix(values, what)
    if not columns:
        raise DesignError(f"{what} has no columns; expected at least one.\nUse `np.ones((n, 1))` for a constant.")
    return {name: align(column, index, what, notes).rename(name) for name, column in columns.items()}


def _columns_of_matrix(values: Any, what: str) -> dict[str, Any]:
    """Return the columns of a matrix or a list of rows by name: "const" (the first column of ones), "x1", ..."""
    array = np.asarray(values.toarray() if hasattr(values, "toarray") else values)
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2 or array.dtype.names is not None:
        raise DesignError(f"{what} has shape {array.shape} and dtype {array.dtype}; expected a matrix.")
    constant = next((j for j, column in enumerate(array.T) if len(column) and (column == 1).all()), array.shape[1])
    names = ["const" if j == constant else f"x{j + (j < constant)}" for j in range(array.shape[1])]
    return dict(zip(names, array.T, strict=True))


# --- columns by name -------------------------------------------------------------------------------------------------


def nearest(name: Any, names: Iterable[Any], show: Callable[[str], str] = repr) -> str:
    """Return advice: the column names most similar to an unknown name, each printed by `show`."""
    known = [str(n) for n in names]
    if name in known:  # the column is named by a number
        return "Names of columns must be text.\nUse `data.columns = data.columns.astype(str)`."
    words = [word for word in re.findall(r"\w+", str(name)) if word in known]  # columns named inside other text
    near = words[:3] or aliases.nearest(name, known, 3)
    if near:
        return f"Did you mean {' or '.join(map(show, near))}?"
    return f"The columns are {listing(known)}." if known else f"Arrays have no names. Use `data[{name!r}]`."


def in_index(table: pd.DataFrame, name: str) -> str:
    """Return advice for a name that is a level of the index of the data. Empty for other names."""
    return "It is in the index.\nUse `data=data.reset_index()`." if name in table.index.names else ""


def column_of(table: pd.DataFrame, name: str) -> pd.Series:
    """Return the column with this name. Raise a DesignError if several columns have it."""
    found = table[name]
    if isinstance(found, pd.DataFrame):
        raise DesignError(f"the data have {found.shape[1]} columns named {name!r}; {DISTINCT}")
    return found


def needed_column(table: pd.DataFrame, name: str, where: str, use: str) -> pd.Series:
    """Return a column of new rows. In errors, `where` says which rows lack it, and `use` says what uses it."""
    if name not in table:
        raise DesignError(f"{where} no column {name!r}, which {use}.\nAdd it. {nearest(name, table.columns)}")
    return column_of(table, name)


def new_column(table: pd.DataFrame, name: str, use: str, complete: bool = True) -> pd.Series:
    """Return a column of new rows. Missing values raise an error if `complete`. `use` is as in `needed_column`."""
    column = needed_column(table, name, "the new data have", use)
    if complete:
        check_complete(column, f"column {name!r} of the new data")
    return column


def find_column(
    value: Any, role: str, default: str, table: pd.DataFrame, frame: Mapping[str, Any], notes: list[str]
) -> pd.Series:
    """Return a variable with one value per row, given by its name or by its values. `role` is for messages."""
    if isinstance(value, list | tuple) and len(value) != len(table) and all(isinstance(name, str) for name in value):
        found = f"{role} is the list {listing(value)}; expected one column"
        raise DesignError(f"{found}.\nUse one name, or one value per row.")
    if not isinstance(value, str):
        name = getattr(value, "name", None)
        own = default if name is None else str(name)
        return align(value, table.index, f"{role} {own!r}", notes).rename(own)
    if value in table:
        return column_of(table, value)
    if is_column(frame.get(value)):
        return align(frame[value], table.index, f"{role} {value!r}", notes).rename(value)
    names = [word for word in re.findall(r"\w+", value) if word in table]
    if role == "treatment" and len(names) > 1:  # Stata's syntax for the propensity model
        typed = f'treat="{names[0]}", propensity="{" + ".join(names[1:])}"'
        raise DesignError(f"treat={value!r} has several columns; expected only the treatment.\nUse `{typed}`.")
    found = f"{role} {value!r} is neither a column of the data nor an array in your code"
    formula = f'Use `propensity="{value}"`.' if role == "propensity score" and re.search("[+*~:]", value) else ""
    advice = formula or aliases.answer(default, value) or in_index(table, value) or nearest(value, table.columns)
    raise DesignError(f"{found}.\n{advice}")


def find_condition(value: Any, role: str, table: pd.DataFrame, frame: Mapping[str, Any], notes: list[str]) -> pd.Series:
    """Return a variable as in `find_column`, or a condition ("age >= 20"), which is False where values are missing."""
    if not isinstance(value, str) or value in table or value.isidentifier() or is_column(frame.get(value)):
        return find_column(value, role, role, table, frame, notes)
    words = re.findall(r"`([^`]+)`|(?<![@\w])(\w+)", re.sub(r"\"[^\"]*\"|'[^']*'", "", value))
    used = [name for name in table.columns if name in itertools.chain(*words) and not OF_MISSING.search(value)]
    own = {name: frame[name] for name in re.findall(r"@(\w+)", value) if name in frame}
    try:
        found = table.eval(value, engine="python", local_dict=own, global_dict={})
    except (ArithmeticError, AttributeError, LookupError, NameError, SyntaxError, TypeError, ValueError) as error:
        found = f"the condition {role}={value!r} cannot be evaluated: {error}"
        raise DesignError(f"{found}\nThe columns are {listing(table.columns)}.") from error
    if not isinstance(found, pd.Series):
        found = f"the condition {role}={value!r} does not give True or False for each row"
        raise DesignError(f"{found}.\nUse `==` for equality.")
    unknown = np.logical_or.reduce([np.zeros(len(table), dtype=bool), *(missing_mask(table[name]) for name in used)])
    if unknown.any():
        lost = f"{role}={value!r} is unknown in {int(unknown.sum())} of {len(table)} rows, which have missing values"
        notes.append(
            f"{lost}. They are left out of the subpopulation.\nTo include them, add a True/False column to the data."
        )
    found = found.mask(unknown, False)
    return (found.astype(bool) if dtypes.is_bool_dtype(found.dtype) else found).rename(value)
