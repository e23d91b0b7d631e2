"""Rows of several files or frames as one frame, where they are stored alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

EXACT = 2**53  # whole numbers up to this are floats without loss


def alike(first: Any, other: Any) -> bool:
    """Whether rows can be put below others, and be what they are by themselves.

    Parameters
    ----------
    first, other : DataFrame or RecordBatch
        The rows.

    Returns
    -------
    bool
        True where all columns are of the same type, and categories the same in the same order; whole numbers go with
        floats where these hold them.
    """
    if not isinstance(first, pd.DataFrame) or not isinstance(other, pd.DataFrame):
        return type(first) is type(other) and _same_schema(first, other)
    if list(first.columns) != list(other.columns):
        return False
    pairs = zip(first.dtypes, other.dtypes, strict=True)
    return all(_same(a, b) or _numbers(first.iloc[:, k], other.iloc[:, k]) for k, (a, b) in enumerate(pairs))


def _same(first: Any, other: Any) -> bool:
    """Whether two dtypes are the same, with categories in the same order."""
    return bool(first == other) and (
        not isinstance(first, pd.CategoricalDtype) or list(first.categories) == list(other.categories)
    )


def _numbers(first: pd.Series, other: pd.Series) -> bool:
    """Whether whole numbers and floats are the same numbers together."""
    if not all(isinstance(values.dtype, np.dtype) and values.dtype.kind in "if" for values in (first, other)):
        return False
    return all(values.dtype.kind == "f" or -EXACT <= values.min() <= values.max() <= EXACT for values in (first, other))


def _same_schema(first: Any, other: Any) -> bool:
    """Whether two Arrow batches have the same columns, and their categories the same order."""
    if not first.schema.equals(other.schema):
        return False
    return all(
        not hasattr(a, "dictionary") or a.dictionary.equals(b.dictionary)
        for a, b in zip(first.columns, other.columns, strict=True)
    )


def joined(rows: Sequence[Any]) -> pd.DataFrame:
    """Put rows that are alike one below the other.

    Parameters
    ----------
    rows : sequence of DataFrame, or of RecordBatch
        The rows; text of Arrow becomes categories in alphabetical order.

    Returns
    -------
    DataFrame
        With the index of its frame where it is one.
    """
    if isinstance(rows[0], pd.DataFrame):
        return rows[0] if len(rows) == 1 else pd.concat(rows, ignore_index=True)
    import pyarrow

    table = pyarrow.Table.from_batches([batch.replace_schema_metadata(rows[0].schema.metadata) for batch in rows])
    text = [field.name for field in table.schema if field.type == pyarrow.string()]
    for name in text:
        k = table.schema.get_field_index(name)
        table = table.set_column(k, name, table.column(k).dictionary_encode())
    frame = table.to_pandas()
    for name in text:
        frame[name] = frame[name].cat.reorder_categories(sorted(frame[name].cat.categories))
    return frame
