"""Moderators of effects: groups, or the columns of a formula."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype, is_scalar

from causalrisk.design.columns.dtypes import listing, missing_mask, plain
from causalrisk.design.columns.tables import Table, align, as_pandas, as_table, find_column, matched_rows
from causalrisk.design.design import Design
from causalrisk.design.encoders import FormulaEncoder
from causalrisk.design.formulas.evaluation import parse
from causalrisk.design.formulas.scope import resolve
from causalrisk.design.rank import ColumnMoments
from causalrisk.errors import DesignError

MANY_LEVELS = 20
WHOLE = 2.0**53  # floats below this have all digits of a whole number


@dataclass(frozen=True)
class Moderators:
    """Columns that effects are projected on.

    Parameters
    ----------
    columns : ndarray of float64, shape (n, k)
        Indicators of the groups, or the columns of a formula; rows as in the design.
    names : tuple of str, or of tuple of str
        Groups or columns; of several grouping variables a value of each.
    levels : tuple of str
        Names of the grouping variables, or the formula.
    groups : bool
        Whether the columns are indicators of groups.
    """

    columns: np.ndarray
    names: tuple[str, ...] | tuple[tuple[str, ...], ...]
    levels: tuple[str, ...]
    groups: bool


def moderators(design: Design, by: Any, data: Any = None) -> Moderators:
    """Find the moderators that were asked for.

    Parameters
    ----------
    design : Design
        The data of the fit.
    by : str, array-like or list of them
        Name of a variable, or one value per row of the data, for a group each; several for a group of each combination
        that occurs; or a one-sided formula beginning with "~" for a linear projection.
    data : DataFrame or mapping, optional
        The data the model was made from; needed for variables that are in neither of its formulas.

    Returns
    -------
    Moderators
        The columns on the estimation sample.

    Raises
    ------
    DesignError
        If a variable is unknown, misses values in the sample, or has too many values to be a grouping.
    """
    table = data_on_sample(design, data)
    if isinstance(by, str) and by.lstrip().startswith("~"):
        return _projection(design, by, table)
    several = _several(design, by)
    coded = [_coded(design, part, table, data is None) for part in (by if several else [by])]
    codes = np.stack([codes for codes, _, _ in coded], axis=1)
    found, groups = np.unique(codes, axis=0, return_inverse=True)
    indicators = (groups.reshape(-1)[:, None] == np.arange(len(found))).astype(float)
    combined = [tuple(values[k] for k, (_, values, _) in zip(row, coded, strict=True)) for row in found]
    names = tuple(combined) if several else tuple(row[0] for row in combined)
    levels = tuple(name for _, _, name in coded)
    if several and len(set(levels)) < len(levels):
        raise DesignError(
            f"groups {listing(levels)} have a name twice; expected different variables.\n"
            'Name each once, as in  by=["sex", "region"], or give a Series another name.'
        )
    return Moderators(indicators, names, levels, True)


def _several(design: Design, by: Any) -> bool:
    """Return True if a list names several grouping variables, rather than giving one value per row."""
    if not isinstance(by, (list, tuple)) or len(by) in (design.n, len(design.in_sample)):
        return False
    return len(by) > 0 and all(isinstance(part, str) or not is_scalar(part) for part in by)


def _coded(design: Design, by: Any, table: Table, only_formulas: bool) -> tuple[np.ndarray, tuple[str, ...], str]:
    """Codes of the groups of one variable, shape (n,), names of the groups, and name of the variable."""
    if isinstance(by, str):
        values, name = _named(by, table, only_formulas)
    else:
        whole = design.in_sample.index
        own = getattr(by, "name", None)
        name = "group" if own is None else str(own)
        by = as_pandas(by)
        by = by if isinstance(by, pd.Series | pd.api.extensions.ExtensionArray) else np.asarray(by)
        of_sample = not isinstance(by, pd.Series) and len(by) == design.n
        aligned = align(by, design.index if of_sample else whole, f"group {name!r}", [])
        values = aligned if of_sample else aligned[design.in_sample.to_numpy()]
    _check_complete(values, name)
    codes, levels = pd.factorize(np.asarray(values, dtype=object), sort=True)
    column = plain(values, name, codes=True)
    if isinstance(column.dtype, pd.CategoricalDtype):
        codes, levels = column.cat.codes.to_numpy(), column.cat.categories
    if len(levels) > MANY_LEVELS:
        raise DesignError(
            f"group {name!r} has {len(levels)} values; expected at most {MANY_LEVELS} groups.\n"
            f'Type  effects_by("~ {name}")  for how the effect changes along it, or cut it into groups with pandas.cut.'
        )
    return np.asarray(codes), shown_levels(levels), name


def _named(name: str, table: Table, only_formulas: bool) -> tuple[pd.Series, str]:
    """Find a variable by name; of a missing one say where else it could be."""
    if only_formulas and name not in table:
        inside = [word for word in re.findall(r"\w+", name) if word in table]
        if inside and re.search("[<>]|[=!]=", name):
            raise DesignError(
                f"group {name!r} is a condition; expected a variable, or one value per row.\n"
                f"Type  by=data.eval({name!r})."
            )
        if inside:
            raise DesignError(f'group {name!r} is no variable; expected its name alone.\nType  by="{inside[0]}".')
        raise DesignError(
            f"group {name!r} is in neither formula of the model; known are {listing(table.names)}.\n"
            f'Type  effects_by("{name}", data)  with the data the model was made from.'
        )
    return find_column(name, role="group", default="group", table=table, frame={}, notes=[])


def shown_levels(levels: Iterable[Any]) -> tuple[str, ...]:
    """Levels as they are printed: whole floats without a point, others by six digits or as many as tell them apart."""
    raw = list(levels)
    for digits in range(6, 18):  # 17 tell any two floats apart
        shown = tuple(_shown(level, digits) for level in raw)
        if len(set(shown)) == len(raw):
            return shown
    return tuple(map(repr, raw))  # tells 1 from "1"


def _shown(level: Any, digits: int) -> str:
    if not isinstance(level, float):
        return str(level)
    return f"{level:.0f}" if level.is_integer() and abs(level) < WHOLE else f"{level:.{digits}g}"


def data_on_sample(design: Design, data: Any = None) -> Table:
    """Return the rows of the data that are in the sample; of no data, the variables of both formulas.

    Rows are matched by their labels where these are the fit's, else by position; either way variables that the data and
    the formulas share have to be equal.
    """
    return _known(design) if data is None else _on_sample(design, as_table(data, []))


def _known(design: Design) -> Table:
    """Return the variables of both formulas, where the design still has all their rows."""
    columns: dict[str, pd.Series] = {}
    for encoder in (design.propensity_encoder, design.outcome_encoder):
        if isinstance(encoder, FormulaEncoder):
            columns |= {k: v for k, v in encoder.sample_variables().items() if len(v) == design.n}
    return Table(design.index, None, columns)


def _on_sample(design: Design, table: Table) -> Table:
    """Return the rows of the data that are in the sample."""
    if len(table.index) != len(design.in_sample):
        raise DesignError(
            f"data has {len(table.index)} rows, the model was made from {len(design.in_sample)}; expected the same "
            "data.\nType  data=  with the DataFrame that from_formula was given."
        )
    rows = np.flatnonzero(design.in_sample)
    position = matched_rows(table.index, design.in_sample.index)
    rows = rows if position is None else position[rows]
    found = {str(name): pd.Series(table.column(name).array.take(rows), index=design.index) for name in table.names}
    shared = _shared(design, found)
    changed = [name for name, values in shared.items() if not _same(values, found[name])]
    if changed:
        raise DesignError(
            f"{listing(changed)} of data differ from what the model was made from; expected the same rows, in the same "
            "order or with the same labels.\nType  data=  with the DataFrame that from_formula was given."
        )
    if position is None and not shared and not isinstance(table.index, pd.RangeIndex):
        raise DesignError(
            "data has other row labels than the data of the model and no variable of its formulas, so rows cannot be "
            "matched.\nType  data=data.reset_index(drop=True)  if its rows are in the same order."
        )
    return Table(design.index, None, found)


def _shared(design: Design, found: Mapping[str, pd.Series]) -> dict[str, pd.Series]:
    """Variables of the fit, its outcome among them, that the data have as well."""
    known = _known(design).extra
    if design.endog_name in found and is_numeric_dtype(found[design.endog_name]):
        known = {**known, design.endog_name: pd.Series(design.y)}
    return {name: values for name, values in known.items() if name in found}


def _same(values: pd.Series, others: pd.Series) -> bool:
    """Return True if complete values are the same ones in the same order."""
    if missing_mask(others).any():
        return False
    numeric = is_numeric_dtype(values) and is_numeric_dtype(others)
    kind = float if numeric else object
    return np.array_equal(values.to_numpy(dtype=kind), others.to_numpy(dtype=kind))


def _projection(design: Design, text: str, table: Table) -> Moderators:
    """Code a one-sided formula on the sample."""
    formula = parse(text.lstrip().removeprefix("~"), "effects_by", [])
    scope = resolve(formula, table, {}, "right")
    for name, values in scope.variables.items():
        _check_complete(values, name)
    encoder = FormulaEncoder(formula, scope)
    matrix = encoder.sample_matrix(design.n)
    keep = ColumnMoments.of(matrix).usable(encoder.names, "effects_by", [])
    names = tuple(name for name, kept in zip(encoder.names, keep, strict=True) if kept)
    return Moderators(matrix[:, keep], names, (f"~ {formula.right_text}",), False)


def _check_complete(values: pd.Series, name: str) -> None:
    absent = missing_mask(values)
    if absent.any():
        raise DesignError(
            f"group {name!r} is missing in {int(absent.sum())} rows of the sample, such as "
            f"{listing(values.index[absent])}; expected a value in each.\nFill these in, or fit without these rows."
        )
