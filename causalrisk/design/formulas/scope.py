"""Names in a formula: what each means, in the data or the scope of the caller."""

from __future__ import annotations

import builtins
import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import pandas as pd

from causalrisk.design.formulas.dialects import called_elsewhere, stata_factor, without_arguments
from causalrisk.design.formulas.evaluation import FUNCTIONS, Formula, Scope
from causalrisk.design.formulas.terms import Use, in_formula
from causalrisk.design.tables import Table, align, as_table, gather, is_column, nearest
from causalrisk.errors import DesignError, words

RESERVED = ("C", "I", "Q")  # the formula language itself; other functions may be replaced by the caller's own


def collect(data: Any, frame: Mapping[str, Any], formulas: Sequence[Formula], notes: list[str]) -> Table:
    """Collect the variables the formulas may use, from the data and from the caller's scope.

    Parameters
    ----------
    data : DataFrame, mapping or None
        The caller's data.
    frame : mapping of str to object
        The caller's variables.
    formulas : sequence of Formula
        The formulas.
    notes : list of str
        A line is appended for each variable whose rows had to be put into another order.

    Returns
    -------
    Table
        The columns of the data, and the arrays of the scope that have one value per row.

    Raises
    ------
    DesignError
        If lengths or labels do not agree.
    """
    table = None if data is None else as_table(data, notes)
    used = [use for formula in formulas for use in formula.uses()]
    roles: dict[str, set[str]] = {}
    for use in used:
        if is_column(frame.get(use.name)) and (table is None or use.name not in table) and use.role != "called":
            roles.setdefault(use.name, set()).add(use.role)
    if table is None:
        # The value of a keyword (knots=, levels=) need not go by rows; it joins below if its length is right.
        firm = [name for name, found in roles.items() if found - {"option", "contrast"}]
        table = gather({name: frame[name] for name in firm}, notes)
    extra = dict(table.extra)
    for name, found in roles.items():
        if name not in extra and (len(frame[name]) == len(table.index) or "term" in found):
            extra[name] = align(frame[name], table.index, f"variable {name!r}", notes)
    return replace(table, extra=extra)


def resolve(formula: Formula, table: Table, frame: Mapping[str, Any], *sides: str) -> Scope:
    """Look up each name in a formula: a variable of the table, or a function or constant of the caller's scope.

    Parameters
    ----------
    formula : Formula
        The formula.
    table : Table
        The variables.
    frame : mapping of str to object
        The caller's variables.
    *sides : {"left", "right"}
        Sides to look at; both by default.

    Returns
    -------
    Scope
        The variables in the order of their appearance, and the constants.

    Raises
    ------
    DesignError
        If a name is unknown; the nearest known names are given.
    """
    variables: dict[str, pd.Series] = {}
    constants: dict[str, Any] = {}
    _check_stata(formula, table)
    for name, role in formula.uses(*sides):
        meaning = _meaning(name, role, table, frame)
        if meaning == "variable":
            variables[name] = table.column(name)
        elif meaning == "constant":
            constants[name] = frame[name]
        elif meaning == "builtin" and role == "called":
            _check_called(name, formula)
        elif meaning == "unknown":
            raise _unknown(name, role=role, formula=formula, table=table, frame=frame)
    return Scope(variables, constants)


def _check_stata(formula: Formula, table: Table) -> None:
    """Refuse Stata's i.region and c.age with their forms here; and L.x and its like, which need the order of rows."""
    for prefix, name in re.findall(r"\b(i|c|ib\w+|[LFDS]\d*)\.(\w+)", formula.text):
        if Use(prefix, "base") in formula.uses() and prefix not in table and name in table:
            start = f"the {formula.model} formula {formula.text!r} uses {prefix}.{name},"
            if prefix[0] in "ic":
                raise DesignError(f"{start} which is Stata's notation.\nType  {stata_factor(prefix, name)}.")
            shift = {"F": f".shift(-{prefix[1:] or 1})", "D": ".diff()"}.get(prefix[0], f".shift({prefix[1:] or 1})")
            raise DesignError(
                f"{start} a time-series operator of Stata; expected columns.\nMake it a column, of data in the order "
                f'of time:  data["{prefix}_{name}"] = data.groupby("unit")["{name}"]{shift}.'
            )


def _check_called(name: str, formula: Formula) -> None:
    """Refuse a spline without degrees of freedom, and a product of splines of plain columns."""
    typed = without_arguments(name, formula.text)
    if typed is not None:
        why = "without splines inside is the plain product" if name == "te" else "misses its degrees of freedom"
        raise DesignError(f"the {formula.model} formula {formula.text!r} has {name}(), which {why}.\nType  {typed}.")


def is_function(value: Any) -> bool:
    """Return True if a caller's variable takes the place of a function of formulas: a module called `cr` does not."""
    return isinstance(value, FunctionType | BuiltinFunctionType) or hasattr(value, "__patsy_stateful_transform__")


def _meaning(name: str, role: str, table: Table, frame: Mapping[str, Any]) -> str:
    value = frame.get(name)
    if role == "called":
        if name in RESERVED or (name in FUNCTIONS and not is_function(value)):
            return "builtin"
        if callable(value):
            return "constant"
        return "builtin" if hasattr(builtins, name) else "unknown"
    if role == "contrast" and name in FUNCTIONS:
        return "builtin"
    if role == "base" and isinstance(value, ModuleType):
        return "constant"
    if name in table:
        return "variable"
    if role in ("quoted", "term"):
        return "unknown"
    if name in frame:
        return "constant"
    return "builtin" if name in FUNCTIONS or hasattr(builtins, name) else "unknown"


def _suggested(name: str) -> str:
    typed = in_formula(name)
    return repr(name) if typed == name else typed


def _instead_of(name: str, formula: Formula, table: Table) -> str:
    """Advice for a function that is not defined."""
    typed = called_elsewhere(name, formula.text)
    if typed is not None:
        return f"Type  {typed}."
    if name in table:
        return f"To multiply, type  {name} * (...)."
    elsewhere = words("instead", "function").get(name)
    if elsewhere:
        return str(elsewhere)
    close = difflib.get_close_matches(name, FUNCTIONS, 1, 0.75)
    return f"Did you mean {close[0]}?" if close else f"Define or import {name} first."


def _unknown(name: str, role: str, formula: Formula, table: Table, frame: Mapping[str, Any]) -> DesignError:
    start = f"the {formula.model} formula {formula.text!r} uses"
    if role == "called":
        return DesignError(
            f"{start} the function {name!r}, which is not defined where the model is.\n"
            + _instead_of(name, formula, table)
        )
    kind = f"; the {type(frame[name]).__name__} of that name has no rows" if name in frame else ""
    known = table.names if table.frame is not None else [k for k, v in frame.items() if is_column(v) and k[:1] != "_"]
    return DesignError(
        f"{start} {name!r}, which is neither a column of the data nor an array in the calling scope{kind}.\n"
        + (table.in_index(name) or nearest(name, known or table.names, repr if role == "quoted" else _suggested))
    )
