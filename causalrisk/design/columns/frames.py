"""Data frames and columns of other libraries (polars, Arrow, narwhals and their like), as pandas holds them."""

from __future__ import annotations

import glob
import os
import warnings
from collections.abc import Mapping
from typing import Any

import pandas as pd

from causalrisk.design.columns.dtypes import listing
from causalrisk.errors import DesignError, UnavailableError

READERS = {
    ".csv": "csv", ".dta": "stata", ".parquet": "parquet", ".xlsx": "excel", ".xls": "excel", ".feather": "feather",
    ".json": "json", ".sas7bdat": "sas", ".xpt": "sas", ".sav": "spss", ".tsv": 'csv("{}", sep="\\t")',
}  # fmt: skip


def as_pandas(value: Any) -> Any:
    """Return a frame or a column of another library as a pandas one, and anything else as it is.

    Parameters
    ----------
    value : object
        A polars, pyarrow or narwhals frame or column; or a frame with ``to_pandas()``, with the Arrow PyCapsule
        interface (``__arrow_c_stream__``) or with the dataframe interchange protocol (``__dataframe__``).

    Returns
    -------
    object
        A DataFrame; for a column an array, which has no row labels. Whole numbers and bool with gaps stay what they
        are, an Enum or a dictionary keeps the order of its categories. Row labels are 0, 1, ... unless the frame
        carries others.

    Raises
    ------
    DesignError
        If the interchange protocol loses missing values.
    UnavailableError
        If a frame can only be read through Arrow and pyarrow is not installed.
    """
    if isinstance(value, pd.DataFrame | pd.Series | pd.Index | Mapping | str):
        return value
    library, kind = _library(value), type(value).__name__
    if library.startswith("dask") and hasattr(value, "get_partition"):
        raise DesignError(
            "a Dask data frame is not in memory; expected one that is (`data=` of a model alone is read by partitions)."
            "\nType  data.compute()."
        )
    if library == "narwhals" and kind in ("DataFrame", "Series"):
        return as_pandas(value.to_native())
    if library == "polars":
        return _from_polars(value, kind)
    if library == "pyarrow":
        return _from_pyarrow(value)
    if callable(getattr(value, "to_pandas", None)):
        return value.to_pandas()
    if hasattr(value, "__arrow_c_stream__"):
        return _from_capsule(value)
    return _interchanged(value) if hasattr(value, "__dataframe__") else value


def is_foreign_column(value: Any) -> bool:
    """Return True if a value is a column of polars, pyarrow or narwhals."""
    columns = {"polars": ("Series",), "narwhals": ("Series",), "pyarrow": ("ChunkedArray",)}
    library, kind = _library(value), type(value).__name__
    return kind in columns.get(library, ()) or (library == "pyarrow" and kind.endswith("Array"))


def how_to_convert(data: Any) -> str:
    """Return the option to type for data that are not a frame.

    Parameters
    ----------
    data : object
        Text, a lazy query, or anything that `as_pandas` left as it was.

    Returns
    -------
    str
        For example ``data=pandas.read_csv("births.csv")`` or ``data=data.collect()``.
    """
    if isinstance(data, str | os.PathLike):
        path = os.fspath(data)
        if glob.has_magic(path) or os.path.isdir(path):
            return f'data=causalrisk.scan("{path}")'
        if path.isidentifier():
            return f"data={path}  without quotes, for a variable of that name"
        reader = READERS.get(os.path.splitext(path)[1].lower(), "csv")
        call = reader.format(path) if "(" in reader else f'{reader}("{path}")'
        return f"data=pandas.read_{call}"
    for name in ("collect", "compute"):  # lazy frames of polars and narwhals; of dask
        if callable(getattr(data, name, None)):
            return f"data=data.{name}()"
    if hasattr(data, "to_table"):  # a dataset of Arrow
        return "data=data.to_table()"
    return "data=data.to_pandas()" if hasattr(data, "to_pandas") else "data=pandas.DataFrame(data)"


def _library(value: Any) -> str:
    return type(value).__module__.partition(".")[0]


def _from_polars(value: Any, kind: str) -> Any:
    if kind == "DataFrame":
        return pd.DataFrame({name: _polars_column(value[name]) for name in value.columns}, index=range(len(value)))
    return _polars_column(value) if kind == "Series" else value


def _polars_column(column: Any) -> Any:
    """Values of a polars Series through NumPy, for which polars needs no pyarrow."""
    dtype = column.dtype
    if hasattr(dtype, "categories") and type(dtype).__name__ == "Enum":
        return pd.Categorical(column.to_numpy(), categories=list(dtype.categories))
    whole, yes_no = dtype.is_integer(), str(dtype) == "Boolean"
    if not column.null_count() or not (whole or yes_no):
        return column.to_numpy()
    known, absent = column.fill_null(0 if whole else False).to_numpy().copy(), column.is_null().to_numpy().copy()
    return (pd.arrays.IntegerArray if whole else pd.arrays.BooleanArray)(known, absent)


def _from_pyarrow(value: Any) -> Any:
    import pyarrow as pa

    def exact(kind: Any) -> Any:
        return None if pa.types.is_dictionary(kind) else pd.ArrowDtype(kind)

    if isinstance(value, pa.Table | pa.RecordBatch):
        return value.to_pandas(types_mapper=exact)
    if isinstance(value, pa.Array | pa.ChunkedArray):
        return value.to_pandas(types_mapper=exact).array
    return value


def _from_capsule(value: Any) -> Any:
    try:
        import pyarrow as pa
    except ImportError as error:
        raise UnavailableError(
            f"data of type {type(value).__module__}.{type(value).__qualname__} are read through Arrow, which needs "
            "pyarrow; it is not installed.\nType  pip install pyarrow."
        ) from error
    return _from_pyarrow(pa.table(value))


def _interchanged(value: Any) -> pd.DataFrame:
    with warnings.catch_warnings():  # pandas wants the capsule to be used, which this frame does not have
        warnings.simplefilter("ignore")
        frame = pd.api.interchange.from_dataframe(value)
        source = value.__dataframe__()
        absent = {name: source.get_column_by_name(name).null_count for name in source.column_names()}
    lost = [name for name, count in absent.items() if count is not None and count != frame[name].isna().sum()]
    if lost:  # pandas reads missing categories and bool as values
        raise DesignError(
            f"the dataframe interchange protocol, as pandas reads it, loses the missing values of {listing(lost)}.\n"
            "Pass data= as a pandas, polars or Arrow frame."
        )
    return frame
