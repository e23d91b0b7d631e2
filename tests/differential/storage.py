"""How the data of a case are held: kinds of data frames, files, and blocks of a scan."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import causalrisk as cr
from tests.differential.cases import Case


def contained(kind: str, frame: pd.DataFrame) -> Any:
    """The same data in another container."""
    if kind == "polars":
        import polars

        return polars.from_pandas(frame)
    if kind == "arrow":
        import pyarrow

        return pyarrow.Table.from_pandas(frame, preserve_index=False)
    if kind == "decimal":
        numbers = frame.select_dtypes("float").columns
        return frame.assign(**{name: [decimal(value) for value in frame[name]] for name in numbers})
    return {
        "pandas": lambda: frame,
        "nullable": frame.convert_dtypes,
        "arrow dtypes": lambda: frame.convert_dtypes(dtype_backend="pyarrow"),
        "mapping": lambda: {name: frame[name].array for name in frame.columns},
    }[kind]()


def decimal(value: float) -> Decimal | None:
    """The decimal that a float is, to the last digit; None of NaN."""
    return None if np.isnan(value) else Decimal(value)


def arranged(case: Case, frame: pd.DataFrame) -> pd.DataFrame:
    """Rows in the order that the layout of a scan asks for."""
    by = {"by arm": "d", "by level": "g"}.get(case.layout)
    if case.layout == "gaps" and case.missing:
        return frame.sort_values("x1", kind="stable", ignore_index=True)  # rows that miss it come last
    return frame if by is None else frame.sort_values(by, kind="stable", ignore_index=True)


def edges(case: Case, frame: pd.DataFrame) -> list[int]:
    """Where the rows, as they are arranged, are cut."""
    n = len(frame)
    by = {"by arm": "d", "by level": "g"}.get(case.layout)
    if by is not None:
        values = frame[by].astype(str)
        inner = [0, *np.flatnonzero(values.ne(values.shift()).to_numpy()).tolist()]
    else:
        inner = {
            "half": [n // 2], "uneven": [n // 9, n // 9, n // 2 + 7], "single rows": [1, n - 1],
            "gaps": [int(frame["x1"].notna().sum())], "one": [],
        }[case.layout]  # fmt: skip
    return sorted({0, n, *inner}) if case.storage != "frames" else sorted([0, n, *inner])


def scanned(case: Case, frame: pd.DataFrame, folder: Path) -> Any:
    """A scan of the rows, cut and stored as the case says."""
    cuts = edges(case, frame)
    parts = [frame[a:b] for a, b in pairwise(cuts)]
    if case.storage == "frames":
        return cr.scan(parts)
    if case.storage == "function":
        return cr.scan(parts, block_rows=max(len(frame) // 3, 1))
    if case.storage == "dask":
        import dask
        import dask.dataframe

        with dask.config.set({"dataframe.convert-string": False}):
            return cr.scan(dask.dataframe.from_pandas(frame, npartitions=min(len(parts), 3), sort=False))
    for k, part in enumerate(parts):
        if case.storage == "csv":
            part.to_csv(folder / f"{k:03}.csv", index=False)
        else:
            part.to_parquet(folder / f"{k:03}.parquet", index=False, row_group_size=max(len(frame) // 3, 1))
    if case.storage == "dataset":
        import pyarrow.dataset

        return cr.scan(pyarrow.dataset.dataset(folder, format="parquet"))
    return cr.scan(f"{folder}/*")
