"""Tables of variables: frames of any library as pandas holds them, columns by name, aligned, in five plain dtypes.

A column (pandas nullable, Arrow, Sparse, Categorical, float32, big-endian) becomes float64, int64, bool, an object
array of text, or a Categorical with object categories, so that the same numbers give the same result. Nothing here
changes the caller's data.
"""

from __future__ import annotations

import ast
import datetime
import difflib
import glob
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from importlib.util import find_spec
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types as dtypes
from pandas.api.types import is_scalar

from causalrisk.errors import DesignError, OptionError, UnavailableError

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
        found = f"column {name!r} has dtype {dtype}; expected numbers, bool, text or categories"
        raise DesignError(f"{found}.\nUse `{_converted(name, dtype, codes)}`.")
    elif isinstance(dtype, pd.StringDtype) or str(dtype) in ARROW_TEXT:
        values = _texts(column, name, dtype, codes)
    else:
        values = _from_objects(column.to_numpy(dtype=object), name, dtype, codes)
    if COPY_ON_WRITE and values.dtype == dtype and values.flags.c_contiguous:
        result = column.rename(name)
    else:
        result = pd.Series(np.array(values, order="C"), dtype=values.dtype, name=name, copy=False)
    _check_finite(values, name)
    return result


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
    typed = f'data["{name}"] = data["{name}"].astype(str)'
    if all(issubclass(k, datetime.date) for k in kinds):  # datetimes and pandas' are dates too
        typed = _days(name, f'pd.to_datetime(data["{name}"])')
    elif all(issubclass(k, str | Real | Decimal) for k in kinds):
        typed = f'data["{name}"] = pd.to_numeric(data["{name}"], errors="coerce")'
    found = f"dtype {dtype} and holds {', '.join(sorted(k.__name__ for k in kinds))}"
    raise DesignError(f"column {name!r} has {found}; expected numbers, bool or text alone.\nUse `{typed}`.")


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
    typed = name if name.isidentifier() else f"Q({name!r})"
    found = f"column {name!r} has dtype {dtype} and holds {found}"
    raise DesignError(f"{found}; expected numbers, or `C({typed})` for categories.\n{advice}")


def numbers_within(name: str, levels: Iterable[Any]) -> str:
    """Return the line that reads the number in texts such as "$1,234.50" or "3 kg"; empty if few have one."""
    texts = [str(level) for level in levels]
    found = [text for text in texts if re.fullmatch(r"[^\d\w]*([^\W\d]{1,3}[^\d\w]*)?\d[\d.,]*\D*", text)]
    if len(texts) < 3 or len(found) < MOST * len(texts):
        return ""
    comma = any(re.search(r"\d\.\d{3},|,(\d{1,2}|\d{4,})\D*$", text) for text in found)  # 1.234,5
    column, kept = f'data["{name}"]', "-,0-9" if comma else "-.0-9"
    digits = f'{column}.str.replace("[^{kept}]", "", regex=True)' + '.str.replace(",", ".")' * comma
    return f"{column} = pd.to_numeric({digits})"


def numbers(column: pd.Series, what: str) -> np.ndarray:
    """Return a column without missing values as float64, shape (n,), an own copy; bool counts as 0 and 1.

    A DesignError, in which `what` names the column, where it holds anything but finite numbers.
    """
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "biuf":
        found = np.array(column.to_numpy(), dtype=np.float64)
        _check_finite(found, str(column.name))
        return found
    values = plain(column, str(column.name))
    if values.dtype.kind not in "bif":
        raise DesignError(f"{what} has dtype {column.dtype}; expected numbers.\nUse `pandas.get_dummies` for levels.")
    return np.array(values, dtype=np.float64)


READERS = {
    ".csv": "csv", ".dta": "stata", ".parquet": "parquet", ".xlsx": "excel", ".xls": "excel", ".feather": "feather",
    ".json": "json", ".sas7bdat": "sas", ".xpt": "sas", ".sav": "spss", ".tsv": "table",
}  # fmt: skip


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


def is_foreign_column(value: Any) -> bool:
    """Return True if a value is a column of polars, pyarrow or narwhals."""
    columns = {"polars": ("Series",), "narwhals": ("Series",), "pyarrow": ("ChunkedArray",)}
    library, kind = type(value).__module__.partition(".")[0], type(value).__name__
    return kind in columns.get(library, ()) or (library == "pyarrow" and kind.endswith("Array"))


def how_to_convert(data: Any) -> str:
    """Return the option to type for data that are not a frame."""
    if isinstance(data, str | os.PathLike):
        path = os.fspath(data)
        if glob.has_magic(path) or os.path.isdir(path):
            return f'data=causalrisk.scan("{path}")'
        return f'data=pandas.read_{READERS.get(os.path.splitext(path)[1].lower(), "csv")}("{path}")'
    for name in ("collect", "compute"):  # lazy frames of polars and narwhals; of dask
        if callable(getattr(data, name, None)):
            return f"data=data.{name}()"
    if hasattr(data, "to_table"):  # a dataset of Arrow
        return "data=data.to_table()"
    return "data=data.to_pandas()" if hasattr(data, "to_pandas") else "data=pandas.DataFrame(data)"


def _polars_column(column: Any) -> Any:
    """Values of a polars Series: text through Arrow where pyarrow is there, else by NumPy, as numbers are."""
    dtype, kind = column.dtype, type(column.dtype).__name__
    if kind == "Enum":
        codes = column.to_physical().cast(int).fill_null(-1).to_numpy()
        return pd.Categorical.from_codes(codes, categories=list(dtype.categories), ordered=True)
    if kind in ("String", "Categorical") and find_spec("pyarrow"):
        return as_pandas(column.cast(str).to_arrow())
    if not column.null_count() or not (dtype.is_integer() or kind == "Boolean"):
        return column.to_numpy()
    return pd.array(column.to_list(), dtype="boolean" if kind == "Boolean" else kind)


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
    if not known:
        return f"Arrays have no names. Use `data[{name!r}]`."
    return f"The columns are {listing(known)}."


def is_column(value: Any) -> bool:
    """Return True if a value can stand for a variable: one entry per row, in one dimension."""
    if isinstance(value, np.ndarray):
        return value.ndim == 1
    known = isinstance(value, pd.Series | pd.Index | list | tuple | pd.api.extensions.ExtensionArray)
    return known or is_foreign_column(value)


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
    if len(shape) > 1:
        raise DesignError(f"{what} has shape {tuple(shape)}; expected one value per row.\nPass a single column.")
    kind = f"{type(values).__module__}.{type(values).__qualname__}"
    one = "\nUse `pandas.DataFrame([data])` for one row." if is_scalar(values) else ""
    raise OptionError(f"{what} is of type {kind}; expected a column name, Series, array or list.{one}")


@dataclass(frozen=True)
class Table:
    """Columns that a formula may use: of the data, then variables of the caller's scope.

    Parameters
    ----------
    index : pandas.Index
        Labels of the n rows.
    frame : DataFrame or None
        The caller's data; never changed.
    extra : dict of str to Series
        Variables from elsewhere, on `index`, and in the place of columns of the data with their names.
    """

    index: pd.Index
    frame: pd.DataFrame | None = None
    extra: dict[str, pd.Series] = field(default_factory=dict)

    @property
    def names(self) -> list[Any]:
        """Names of all columns, of the data first."""
        return [*([] if self.frame is None else self.frame.columns), *self.extra]

    def __contains__(self, name: object) -> bool:
        return name in self.extra or (self.frame is not None and name in self.frame.columns)

    def in_index(self, name: str) -> str:
        """Advice for a name that is a level of the index of the data; empty for others."""
        return "It is in the index.\nUse `data=data.reset_index()`." if name in self.index.names else ""

    def column(self, name: str) -> pd.Series:
        """Return the column of that name."""
        if name in self.extra or self.frame is None:
            return self.extra[name]
        found = self.frame[name]
        if isinstance(found, pd.DataFrame):
            raise _named_twice(f"the data have {found.shape[1]} columns named {name!r}")
        return found


def _named_twice(found: str) -> DesignError:
    return DesignError(f"{found}; expected distinct names.\nUse `data.loc[:, ~data.columns.duplicated()]`.")


def needed_column(table: Table, name: str, where: str, use: str) -> pd.Series:
    """Return a column of new rows; `where` and `use` say in an error whose rows lack it, and what it is for."""
    if name not in table:
        raise DesignError(f"{where} no column {name!r}, which {use}.\nAdd it. {nearest(name, table.names)}")
    return table.column(name)


def new_column(table: Table, name: str, use: str) -> pd.Series:
    """Return a column of new rows that misses no value; `use` as in `needed_column`."""
    column = needed_column(table, name, "the new data have", use)
    check_complete(column, f"column {name!r} of the new data")
    return column.rename(name)


def find_column(
    value: Any, role: str, default: str, table: Table, frame: Mapping[str, Any], notes: list[str]
) -> tuple[pd.Series, str]:
    """Find a variable with one value per row, given as the name of a column or as its values.

    Parameters
    ----------
    value : str or array-like
        A name, or the values.
    role : str
        Role of the variable, for messages, e.g. ``"treatment"``.
    default : str
        Its name if it has none.
    table : Table
        The columns there are.
    frame : mapping of str to object
        The caller's variables.
    notes : list of str
        A line is appended if rows had to be put into another order.

    Returns
    -------
    column : Series
        On the index of the table.
    name : str
        Its name.
    """
    named = isinstance(value, list | tuple) and all(isinstance(name, str) and name in table for name in value)
    if named and 0 < len(value) != len(table.index):
        raise _several_columns(role, value)
    if not isinstance(value, str):
        name = getattr(value, "name", None)
        own = default if name is None else str(name)
        return align(value, table.index, f"{role} {own!r}", notes), own
    if value in table:
        return table.column(value), value
    if is_column(frame.get(value)):
        return align(frame[value], table.index, f"{role} {value!r}", notes), value
    known = table.names if table.frame is not None else [*table.names, *(k for k in frame if is_column(frame[k]))]
    found = f"{role} {value!r} is neither a column of the data nor an array in the calling scope.\n"
    more = _more_than_a_treatment(value, table) if role == "treatment" else ""
    raise DesignError(more or found + (table.in_index(value) or nearest(value, known)))


def find_condition(
    value: Any, role: str, table: Table, frame: Mapping[str, Any], notes: list[str]
) -> tuple[pd.Series, str]:
    """Find a variable as `find_column` does, or evaluate a condition on columns of the data, such as "age >= 20".

    The condition is missing where one of its columns is.
    """
    if not isinstance(value, str) or value in table or is_column(frame.get(value)) or not condition_names(value):
        return find_column(value, role, role, table, frame, notes)
    names = condition_names(value)
    what = f"in the condition {role}={value!r},"
    columns = {name: find_column(name, what, name, table, {}, notes)[0] for name in names}
    found = pd.DataFrame(columns).eval(value, engine="python")
    missing = np.logical_or.reduce([missing_mask(column) for column in columns.values()])
    return (found.astype(object).mask(missing, None) if missing.any() else found), value


def condition_names(text: str) -> list[str]:
    """Names in a condition, such as "age >= 20 and region == 'north'"; none where the text is no condition."""
    try:
        parsed = ast.parse(text, mode="eval").body
    except SyntaxError:
        return []
    if not isinstance(parsed, ast.Compare | ast.BoolOp | ast.BinOp | ast.UnaryOp):
        return []
    return list(dict.fromkeys(node.id for node in ast.walk(parsed) if isinstance(node, ast.Name)))


def _more_than_a_treatment(text: str, table: Table) -> str:
    """Message and advice for a treatment with its covariates, or a condition; empty for other texts."""
    name, _, rest = re.sub(r"[\s+,]+", " ~ ", text.strip("( )"), count=1).partition(" ~ ")
    others = re.findall(r"[A-Za-z_]\w*", rest.partition(",")[0])
    condition = re.search("[<>]|[=!]=", text)
    if name not in table or not (others or condition):
        return ""
    found, typed = "more than a column", f'treat="{name}", propensity="{" + ".join(others)}"'
    if condition:
        found, typed = "a condition", f"treat=data.eval({text!r})"
    return f"treat={text!r} is {found}; expected the treatment alone. Use `{typed}`."


def _several_columns(role: str, names: Sequence[str]) -> DesignError:
    """Make the error of a list of columns where one is expected."""
    typed = repr(names[0])
    if role == "cluster" and len(names) > 1:
        typed = repr(list(names[:2]))  # two-way
    elif role in ("treatment", "strata", "psu") and len(names) > 1:
        typed = ' + "/" + '.join(f'data["{name}"].astype(str)' for name in names)
    option = "treat" if role == "treatment" else role
    return DesignError(f"{role} is a list, {listing(names)}; expected one column.\nUse `{option}={typed}`.")


def gather(columns: Mapping[str, Any], notes: list[str]) -> Table:
    """Make a table of separate variables, aligned by label where they carry labels."""
    columns = {name: _one_column(values, f"variable {name!r}") for name, values in columns.items()}
    labelled = [v.index for v in columns.values() if isinstance(v, pd.Series)]
    index = labelled[0] if labelled else pd.RangeIndex(len(next(iter(columns.values()), ())))
    return Table(index, None, {name: align(v, index, f"variable {name!r}", notes) for name, v in columns.items()})


def as_table(data: Any, notes: list[str]) -> Table:
    """Return the caller's data as a table."""
    if isinstance(data, Mapping):
        return gather(data, notes)
    frame = as_pandas(data)
    if isinstance(frame, pd.DataFrame):
        return Table(frame.index, frame)
    kind = f"{type(data).__module__}.{type(data).__qualname__}"
    expected = "a data frame (pandas, polars, Arrow), a mapping of column names to values, or None"
    raise OptionError(f"data is of type {kind}; expected {expected}.\nUse `{how_to_convert(data)}`.")


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
    columns: dict[str, Any]
    if isinstance(values, pd.Series) or is_foreign_column(given):
        name = getattr(given, "name", None)
        columns = {"x1" if name in (None, "") else str(name): values}
    elif isinstance(values, pd.DataFrame):
        names = pd.Index([str(name) for name in values.columns])
        if names.has_duplicates:
            twice = listing(sorted(set(names[names.duplicated()])))
            raise _named_twice(f"{what} has several columns named {twice}")
        labelled = given is values or not isinstance(values.index, pd.RangeIndex)
        parts = (values.iloc[:, j] for j in range(len(names)))
        columns = {name: part if labelled else part.array for name, part in zip(names, parts, strict=True)}
    else:
        array = _matrix(values, what)
        columns = dict(zip(_names(array), array.T, strict=True))
    if not columns:
        raise DesignError(f"{what} has no columns; expected at least one.\nUse `np.ones((n, 1))` for a constant.")
    return {name: align(column, index, what, notes).rename(name) for name, column in columns.items()}


def _matrix(values: Any, what: str) -> np.ndarray:
    """Return a NumPy or sparse matrix, or a list of rows, as an array of two dimensions."""
    values = values.toarray() if hasattr(values, "toarray") else values
    if not isinstance(values, np.ndarray | list | tuple):
        kind = f"{type(values).__module__}.{type(values).__qualname__}"
        raise OptionError(f"{what} is of type {kind}; expected a pandas DataFrame or a NumPy array.")
    array = np.asarray(values)
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2 or array.dtype.names is not None:
        raise DesignError(f"{what} has shape {array.shape} and dtype {array.dtype}; expected a matrix.")
    return array


def _names(array: np.ndarray) -> list[str]:
    """Names of the columns of a matrix without names: "const" for the first that is one, "x1" and so on."""
    likely = np.flatnonzero((array[:1] == 1).all(axis=0)).tolist() if len(array) else []
    constant = next((j for j in likely if (array[:, j] == 1).all()), array.shape[1])
    return ["const" if j == constant else f"x{j + (j < constant)}" for j in range(array.shape[1])]
