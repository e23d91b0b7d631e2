"""Covariates with missing values, filled in, and indicators of where they were missing, for `missing="indicator"`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from causalrisk.design.columns.dtypes import missing_mask, plain
from causalrisk.design.columns.tables import Table
from causalrisk.design.formulas.evaluation import Formula, parse
from causalrisk.design.formulas.terms import codes_of, in_formula
from causalrisk.errors import DesignError, UnavailableError

INDICATOR = "indicator"  # the option
LEVEL = "(missing)"  # of a category that was missing


@dataclass(frozen=True)
class Filled:
    """A covariate whose missing values were replaced.

    Parameters
    ----------
    name : str
        Its name.
    indicator : str or None
        Column of 1 where it was missing, beside its mean there; None where it has a level for that.
    rows : ndarray of bool, shape (N,)
        Where it was missing.
    """

    name: str
    indicator: str | None
    rows: np.ndarray


def fill_covariates(table: Table, formulas: Sequence[Formula], treat: str | None) -> tuple[Table, tuple[Filled, ...]]:
    """Fill in the covariates of formulas that miss values.

    Parameters
    ----------
    table : Table
        The columns.
    formulas : sequence of Formula
        The formulas, on whose right the covariates are.
    treat : str, optional
        Name of the treatment, which is never filled in.

    Returns
    -------
    table : Table
        Numbers with their mean where they were missing, and a column that is 1 there; other covariates with a level of
        their own for it.
    filled : tuple of Filled
        The covariates.

    Raises
    ------
    DesignError
        If a covariate is missing everywhere, or there is another column of an indicator's name.
    """
    codes = set().union(*(codes_of(formula) for formula in formulas))
    names = dict.fromkeys(use.name for formula in formulas for use in formula.uses("right") if use.role != "called")
    columns, found = dict[str, pd.Series](), list[Filled]()
    for name in names:
        if name == treat or name not in table:
            continue
        values = table.column(name)
        rows = missing_mask(values)
        if not rows.any():
            continue
        if rows.all():
            raise DesignError(f"covariate {name!r} is missing in all rows.\nTake {name} out of the formulas.")
        known, indicator = plain(values[~rows], name, name in codes), f"{name}_missing"
        leveled = name in codes or known.dtype.kind not in "if"
        if leveled:
            columns[name] = _with_level(known, rows, values.index)
        elif indicator in table:
            raise DesignError(
                f"{name!r} misses values, and its indicator would be {indicator!r}, which is a column already.\n"
                f'Type  data=data.rename(columns={{"{indicator}": "{indicator}_0"}}).'
            )
        else:
            number = np.full(len(rows), float(known.mean()))
            number[~rows] = known.to_numpy(dtype=float)
            columns |= {name: pd.Series(number, values.index), indicator: pd.Series(rows.astype(int), values.index)}
        found.append(Filled(name, None if leveled else indicator, rows))
    others = None if table.frame is None else table.frame.loc[:, [n not in columns for n in table.frame.columns]]
    return replace(table, frame=others, extra={**table.extra, **columns}), tuple(found)


def _with_level(known: pd.Series, rows: np.ndarray, index: pd.Index) -> pd.Series:
    """Return categories, with a level for the rows that miss one."""
    whole = known.dtype.kind == "f" and (known % 1 == 0).all()  # as pandas keeps whole numbers beside missing ones
    own = known.astype(int if whole else known.dtype).astype("category")
    levels = [*own.cat.categories, LEVEL]
    codes = np.full(len(rows), len(levels) - 1)
    codes[~rows] = own.cat.codes
    return pd.Series(pd.Categorical.from_codes(codes, categories=pd.Index(levels, dtype=object)), index)


def with_indicators(formula: Formula, filled: Sequence[Filled], known: Mapping[str, Any]) -> Formula:
    """Return a formula with the indicators of its covariates as further terms; `known` as in `parse`."""
    used = {use.name for use in formula.uses("right")}
    more = [in_formula(one.indicator) for one in filled if one.indicator is not None and one.name in used]
    return parse(" + ".join([formula.text, *more]), formula.model, [], **known) if more else formula


def without_indicators(text: str, filled: Sequence[Filled]) -> str:
    """Return a formula as it was given."""
    for one in reversed(filled):
        text = text.removesuffix(f" + {in_formula(one.indicator)}" if one.indicator is not None else "")
    return text


def refuse_filled(filled: Sequence[Filled], what: str) -> None:
    """Refuse data that would have to be filled in as the sample was."""
    if filled:
        raise UnavailableError(
            f'missing="indicator" has filled in {", ".join(one.name for one in filled)} by what the rows of the sample '
            f"have; {what} would be of values that nobody there has.\n"
            'Type  missing="drop"  for the rows that have all covariates, or impute: causalrisk.pool takes the fits.'
        )
