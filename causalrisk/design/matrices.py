"""Arrays as named columns: DataFrames, NumPy arrays, scipy sparse matrices and lists."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from causalrisk.design.tables import align, unique_names
from causalrisk.errors import DesignError


def common_index(values: Iterable[Any], n: int) -> pd.Index:
    """Return the row labels that arrays share.

    Parameters
    ----------
    values : iterable of array-like
        The first pandas Series or DataFrame among them gives the labels.
    n : int
        Number of rows if none of them has labels.

    Returns
    -------
    pandas.Index
        The labels; ``0 .. n-1`` if there are none.
    """
    return next((v.index for v in values if isinstance(v, pd.Series | pd.DataFrame)), pd.RangeIndex(n))


def named_columns(values: Any, what: str, index: pd.Index, notes: list[str]) -> dict[str, pd.Series]:
    """Return the columns of a matrix by name.

    Parameters
    ----------
    values : DataFrame, Series, ndarray, scipy sparse matrix or list of rows
        The matrix. Columns without names become "const" (a column of ones) and "x1", "x2", ...
    what : str
        What it is, for messages.
    index : pandas.Index
        Labels of the rows.
    notes : list of str
        A line is appended if rows had to be put into another order.

    Returns
    -------
    dict of str to Series
        On `index`, in order.

    Raises
    ------
    DesignError
        If it is not a matrix with one row per label, or two columns share a name.
    TypeError
        If it is not a matrix at all.
    """
    frame, labelled = _frame(values, what)
    rows = np.arange(len(frame))
    position = align(pd.Series(rows, index=frame.index) if labelled else rows, index, what, notes).to_numpy()
    unique_names(list(frame.columns), what)
    if frame.shape[1] == 0:
        raise DesignError(
            f"{what} has no columns; expected at least one.\nPass e.g. a column of ones, np.ones((n, 1))."
        )
    return {
        name: pd.Series(frame.iloc[:, j].array.take(position), index=index, name=name)
        for j, name in enumerate(frame.columns)
    }


def _frame(values: Any, what: str) -> tuple[pd.DataFrame, bool]:
    """Columns with names, and whether the rows carry labels."""
    if isinstance(values, pd.Series):
        name = "x1" if values.name is None else str(values.name)
        return values.to_frame(name), True
    if isinstance(values, pd.DataFrame):
        return values.set_axis([str(c) for c in values.columns], axis=1), True
    if hasattr(values, "toarray"):
        values = values.toarray()
    if not isinstance(values, np.ndarray | list | tuple):
        raise TypeError(
            f"{what} is of type {type(values).__module__}.{type(values).__qualname__}; expected a pandas DataFrame, a "
            f"NumPy array, a scipy sparse matrix or a list of rows.\nPass e.g. np.asarray({what})."
        )
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise DesignError(f"{what} is ragged: {error}.\nGive rows of equal length, or a DataFrame.") from error
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2 or array.dtype.names is not None:
        raise DesignError(
            f"{what} has shape {array.shape} and dtype {array.dtype}; expected a matrix, one row per unit.\n"
            f"Pass pandas.DataFrame({what})."
        )
    names, count = [], 0
    for j in range(array.shape[1]):
        if "const" not in names and len(array) and bool(np.all(array[:, j] == 1)):
            names.append("const")
        else:
            count += 1
            names.append(f"x{count}")
    return pd.DataFrame({name: array[:, j] for j, name in enumerate(names)}, index=pd.RangeIndex(len(array))), False
