"""Offsets: the known part of the linear predictor of the outcome models, such as the logarithm of an exposure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from causalrisk.design.columns.dtypes import numbers
from causalrisk.design.columns.tables import as_table, nearest
from causalrisk.design.design import Design
from causalrisk.design.rows import Named
from causalrisk.design.support.rank import check_magnitude
from causalrisk.errors import DesignError


def read_offset(given: Named, kind: str, taken: Sequence[str] = (), *, scanned: bool = False) -> np.ndarray:
    """Return the offset of rows that miss no value.

    Parameters
    ----------
    given : Named
        One value per row.
    kind : {"offset", "exposure"}
        Kind of the values; the offset of an exposure is its logarithm.
    taken : sequence of str
        Names of the treatment and the outcome, which are no offset.
    scanned : bool
        Whether the rows are of a scan, which knows its columns by name only.

    Returns
    -------
    ndarray of float64, shape (n,)
        The offset.

    Raises
    ------
    DesignError
        If the values are not numbers, or an exposure is not above zero.
    """
    name, what = given.name, f"{kind} {given.name!r}"
    if name in taken:
        raise DesignError(
            f"{kind}={name!r} is the {('treatment', 'outcome')[list(taken).index(name)]}; expected "
            f"{_meaning(kind)}.\nLeave {kind}= out, or name the column of it."
        )
    values = numbers(given.values.rename(name), what)
    if kind == "offset":
        check_magnitude(values, what)
        return values
    low = values <= 0
    if low.any():
        column, instead = f'data["{name}"]', "make them missing in the files"
        if not scanned:
            instead = f"type  exposure={column}.where({column} > 0)"
        raise DesignError(
            f"{what} has {int(low.sum())} values of zero or less (such as {values[low][0]:g}); expected "
            f"{_meaning(kind)}, more than zero.\n"
            f"Correct them, or {instead}  to leave these rows out."
        )
    return np.log(values)


def _meaning(kind: str) -> str:
    if kind == "offset":
        return "a known part of the linear predictor of the outcome"
    return "how long, or over how much, each unit was observed"


def new_offset(design: Design, data: Any) -> np.ndarray:
    """Return the offset of new rows.

    Parameters
    ----------
    design : Design
        A design with an offset.
    data : DataFrame or mapping of str to array-like
        New rows, which have the offset or exposure under the name it has in the design.

    Returns
    -------
    ndarray of float64, shape (m,)
        The offset.

    Raises
    ------
    DesignError
        If it is not among the columns, misses values, or is no offset.
    """
    kind, name = str(design.offset_kind), str(design.offset_name)
    instead = f"Add it{', or type  at_exposure=1  for means at that exposure' if kind == 'exposure' else ''}."
    if not hasattr(data, "columns") and not hasattr(data, "keys"):
        raise DesignError(
            f"new data without names have no {kind} {name!r}, at which outcomes are predicted; expected a data frame "
            f"with that column.\n{instead}"
        )
    table = as_table(data, [])
    if name not in table:
        near = nearest(name, table.names)
        raise DesignError(f"the new data have no column {name!r}, the {kind} of the fit.\n{instead} {near}")
    column = table.column(name)
    if column.isna().any():
        raise DesignError(
            f"column {name!r} of the new data, the {kind} of the fit, is missing in {int(column.isna().sum())} rows; "
            f'expected complete rows.\nLeave them out:  newdata.dropna(subset=["{name}"]).'
        )
    return read_offset(Named(column, name), kind)
