"""Names in a formula: what each means, in the data or the scope of the caller."""

from __future__ import annotations

import builtins
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

import pandas as pd

from causalrisk.design.formulas.evaluation import FUNCTIONS, Formula, Scope, in_formula
from causalrisk.design.formulas.foreign import function_here
from causalrisk.design.tables import Table, align, as_table, gather, is_column, nearest
from causalrisk.errors import DesignError
from causalrisk.errors.aliases import SURVIVAL

RESERVED = ("C", "I", "Q")  # the formula language itself; other functions may be replaced by the caller's own


def collect(data: Any, frame: Mapping[str, Any], formulas: Sequence[Formula], notes: list[str]) -> Table:
    """Collect the columns of the data, and the arrays of the caller's scope that have one value per row."""
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
    """Look up each name on the given sides: a variable of the table, or a function or constant of the caller."""
    variables: dict[str, pd.Series] = {}
    constants: dict[str, Any] = {}
    functions = set[str]()
    for name, role in formula.uses(*sides):
        meaning = _meaning(name, role, table, frame)
        if meaning == "unknown":
            raise _unknown(name, role=role, formula=formula, table=table, frame=frame)
        if meaning == "variable":
            variables[name] = table.column(name)
            continue
        functions.add(name)
        if meaning == "constant":
            constants[name] = frame[name]
    for name in sorted(functions & variables.keys()):
        raise DesignError(
            f"the {formula.model} formula {formula.text!r} uses {name!r} as a column and as a function.\n"
            f'Use `data.rename(columns={{"{name}": "{name}_"}})`.'
        )
    return Scope(variables, constants)


def _meaning(name: str, role: str, table: Table, frame: Mapping[str, Any]) -> str:
    value = frame.get(name)
    if role == "called":
        if name in RESERVED or (name in FUNCTIONS and not callable(value)):
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


def _instead_of(name: str, formula: Formula, table: Table) -> str:
    """Advice for a function that is not defined."""
    typed = function_here(name, formula.text)
    if typed:
        return f"Use `{typed}`."
    if name in table:
        return f"To multiply, use `{name} * (...)`."
    if name == "Surv":
        return SURVIVAL
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
    there = f"Define {name!r} where the model is made, or give a data frame as data=."
    if table.frame is not None:
        there = table.in_index(name) or nearest(
            name, table.names, lambda n: repr(n) if role == "quoted" or n.isidentifier() else in_formula(n)
        )
    return DesignError(
        f"{start} {name!r}, which is neither a column of the data nor an array in the calling scope{kind}.\n{there}"
    )
