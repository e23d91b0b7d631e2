"""Names in a formula: what each means, in the data or the scope of the caller; and which formulas only compute."""

from __future__ import annotations

import ast
import builtins
import difflib
import math
import operator
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import pandas as pd
from pandas.api.types import is_numeric_dtype

from causalrisk.design.formulas.evaluation import FUNCTIONS, Formula, Scope, only_safe, parse, trusted
from causalrisk.design.formulas.foreign import function_here
from causalrisk.design.formulas.terms import in_formula, parsed
from causalrisk.design.tables import Table, align, as_table, gather, is_column, nearest
from causalrisk.errors import DesignError
from causalrisk.errors.aliases import SURVIVAL

NUMPY = {
    "abs", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctanh", "cbrt", "ceil", "clip", "cos", "cosh",
    "digitize", "exp", "exp2", "expm1", "fabs", "floor", "fmax", "fmin", "isin", "log", "log10", "log1p", "log2",
    "logical_and", "logical_not", "logical_or", "maximum", "minimum", "mod", "rint", "round", "sign", "sin", "sinh",
    "sqrt", "square", "tan", "tanh", "trunc", "where",
}  # fmt: skip
LARGEST_POWER = 100
LARGEST_NUMBER = 1e100
MOST_KNOTS = 100  # knots or degrees of freedom of a spline
WIDEST = 1_000  # columns of a formula, levels not counted
ARGUMENTS = {  # arguments of splines after the data
    "bs": ("df", "knots", "degree"),
    "cr": ("df", "knots"),
    "cc": ("df", "knots"),
}
UNKNOWN = "is no column, number, operator or function of a safe formula"
TOO_MUCH = (
    f"may take more than a safe formula is given: powers to {LARGEST_POWER}, numbers to {LARGEST_NUMBER:g}, splines of "
    f"{MOST_KNOTS} degrees of freedom or knots written as numbers, {WIDEST:,} columns, no arithmetic with text"
)
_VALUES = (
    ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.Tuple, ast.List, ast.Load,
    ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.keyword, ast.Call,
)  # fmt: skip
_COSTLY = (ast.LShift, ast.RShift, ast.MatMult)
_ARITHMETIC = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
RESERVED = ("C", "I", "Q")  # the formula language itself; other functions may be replaced by the caller's own


def check_safe(text: str, model: str, names: Collection[str], texts: Collection[str] = ()) -> None:
    """Raise a DesignError unless a formula holds nothing but columns, numbers, operators and known functions.

    Parameters
    ----------
    text : str
        The formula, one- or two-sided.
    model : {"outcome", "propensity"}
        The model it belongs to, for messages.
    names : collection of str
        The columns there are.
    texts : collection of str, optional
        Columns that are not numbers, which arithmetic would repeat.

    Raises
    ------
    DesignError
        If it cannot be parsed, or naming its unsafe part. The functions are patsy's own (``C``, ``I``, ``Q``,
        ``center``, ``bs``, ...) and the elementwise ones of NumPy (``np.log``, ...). Formulas that may take long
        or fill the memory are refused too: more than 10,000 characters or 1,000 terms, powers above 100, numbers above
        1e100, splines of more than 100 degrees of freedom or knots or of 1,000 columns together, shifts, and arithmetic
        with text.

    Examples
    --------
    >>> from causalrisk.design.formulas.scope import check_safe
    >>> check_safe("y ~ np.log(x) + C(site) + I(x**2)", "outcome", ["y", "x", "site"])
    >>> check_safe("y ~ I(__import__('os').getpid())", "outcome", ["y"])
    Traceback (most recent call last):
    causalrisk.errors.DesignError: the outcome formula ... is no column, number, operator or function ...
    """
    with only_safe():
        formula = parse(text, model, [])
    refuse_unsafe(formula, names, texts)


def refuse_unsafe(formula: Formula, names: Collection[str], texts: Collection[str]) -> None:
    """Raise a DesignError unless a formula that was parsed is safe, as `check_safe`.

    Parameters
    ----------
    formula : Formula
        The formula.
    names, texts : collection of str
        As of `check_safe`.
    """
    width = 0
    for term in (*formula.left, *formula.right):
        trees = [parsed(factor.code) for factor in term.factors]
        found = [other for tree in trees for other in _others(tree, names, texts)]
        width += math.prod(_width(tree.body) for tree in trees)
        if width > WIDEST:
            found.append((term.name(), TOO_MUCH))
        if found:
            code, why = next((other for other in found if other[1] == UNKNOWN), found[0])
            hint = nearest(code, list(names)) if code.isidentifier() else ""
            trust = (
                "Make it a column of the file first; or, if you trust the formula, which is run as Python, type  "
                "--allow-python."
            )
            advice = f"{trust}\n{hint}" if "Type  " in hint else f"{hint}\n{trust}" if hint else trust
            raise DesignError(f"the {formula.model} formula {formula.text!r} holds {code!r}, which {why}.\n{advice}")


def _others(tree: ast.Expression, names: Collection[str], texts: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield the unsafe parts of a formula, with the reasons."""
    functions = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    bases = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute) and id(node) in functions}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            known = node.id in FUNCTIONS if id(node) in functions else node.id in names or node.id in FUNCTIONS
            good = known or (id(node) in bases and node.id == "np")
        elif isinstance(node, ast.Attribute):
            good = id(node) in functions and ast.unparse(node.value) == "np" and node.attr in NUMPY
        elif isinstance(node, ast.Constant):
            good = isinstance(node.value, int | float | str | None)
        else:
            good = isinstance(node, _VALUES)
        if not good:
            yield ast.unparse(node), UNKNOWN
        elif _too_much(node, texts):
            yield ast.unparse(node), TOO_MUCH


def _too_much(node: ast.AST, texts: Collection[str]) -> bool:
    """Return True if a part of a formula, by its form, may take long or fill the memory."""
    if isinstance(node, ast.BinOp):
        costly = isinstance(node.op, _COSTLY) or (
            isinstance(node.op, ast.Pow) and not _small(node.right, LARGEST_POWER)
        )
        repeated = any(_is_text(side, texts) or _is_list(side) for side in (node.left, node.right))
        return costly or repeated or not abs(_number(node) or 0) <= LARGEST_NUMBER
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return not abs(node.value) <= LARGEST_NUMBER
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ARGUMENTS:
        return not _counted(node, node.func.id)
    return False


def _is_text(node: ast.expr, texts: Collection[str]) -> bool:
    """Return True if an expression may be text: a quoted one, a column of text, or a function of text."""
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str)
    if isinstance(node, ast.Name):
        return node.id in texts
    if isinstance(node, ast.Call):
        function = ast.unparse(node.func)
        if function == "Q":
            return any(isinstance(arg, ast.Constant) and arg.value in texts for arg in node.args)
        given = [*node.args, *(keyword.value for keyword in node.keywords)]
        return function != "np.isin" and any(_is_text(arg, texts) for arg in given)
    return any(_is_text(part, texts) for part in _parts(node))


def _is_list(node: ast.expr) -> bool:
    """Return True if an expression may be a list that is written out."""
    identity = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "I"
    parts = node.args if isinstance(node, ast.Call) and identity else _parts(node)
    return isinstance(node, ast.List | ast.Tuple) or any(_is_list(part) for part in parts)


def _parts(node: ast.expr) -> list[ast.expr]:
    """Expressions one of which may be the value of another."""
    if isinstance(node, ast.IfExp):
        return [node.body, node.orelse]
    if isinstance(node, ast.BoolOp):
        return node.values
    return node.elts if isinstance(node, ast.List | ast.Tuple) else []


def _number(node: ast.expr) -> float | None:
    """Value of arithmetic with numbers alone, infinite where it is too large; None for anything else."""
    if isinstance(node, ast.UnaryOp):
        return _number(node.operand)
    try:
        if isinstance(node, ast.Constant):
            return float(node.value) if isinstance(node.value, int | float) else None
        if not isinstance(node, ast.BinOp) or type(node.op) not in _ARITHMETIC:
            return None
        left, right = _number(node.left), _number(node.right)
        return None if left is None or right is None else float(_ARITHMETIC[type(node.op)](left, right))
    except ZeroDivisionError:
        return None
    except (OverflowError, TypeError):  # a complex number among them
        return math.inf


def _small(node: ast.expr, most: int) -> bool:
    """Return True if a number is written as it is, and small."""
    if isinstance(node, ast.UnaryOp):
        node = node.operand
    value = node.value if isinstance(node, ast.Constant) else None
    return isinstance(value, int | float) and abs(value) <= most


def _options(call: ast.Call, function: str) -> dict[str | None, ast.expr]:
    placed: dict[str | None, ast.expr] = dict(zip(ARGUMENTS[function], call.args[1:], strict=False))
    return {**placed, **{keyword.arg: keyword.value for keyword in call.keywords if keyword.arg != "x"}}


def _counted(call: ast.Call, function: str) -> bool:
    """Return True if the columns of a spline can be counted, and are few."""
    options = _options(call, function)
    if None in options or any(isinstance(node, ast.Name) for value in options.values() for node in ast.walk(value)):
        return False
    plain = all(
        _small(options[name], MOST_KNOTS) or ast.unparse(options[name]) == "None"
        for name in ("df", "degree")
        if name in options
    )
    return plain and len(_knots(options)) <= MOST_KNOTS


def _knots(options: dict[str | None, ast.expr]) -> list[ast.expr]:
    knots = options.get("knots")
    return knots.elts if isinstance(knots, ast.List | ast.Tuple) else []


def _width(node: ast.AST) -> int:
    """Columns of a factor at the most, where its levels are not counted."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        if node.func.id == "te":
            return math.prod(_width(arg) for arg in node.args)
        if node.func.id in ARGUMENTS:
            options = _options(node, node.func.id)
            sizes = [_number(options[name]) for name in ("df", "degree") if name in options]
            return int(sum(abs(size or 0) for size in sizes)) + len(_knots(options)) + 1
    return max((_width(child) for child in ast.iter_child_nodes(node)), default=1)


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
        If a name is unknown; the nearest known names are given. If formulas are not trusted and this one is not safe.
    """
    variables: dict[str, pd.Series] = {}
    constants: dict[str, Any] = {}
    if not trusted():
        texts = [use.name for use in formula.uses() if use.name in table and _has_text(table.column(use.name))]
        refuse_unsafe(formula, [str(name) for name in table.names], texts)
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


def _has_text(column: pd.Series) -> bool:
    return not is_numeric_dtype(column.dtype) and any(isinstance(value, str | bytes) for value in column)


def _check_called(name: str, formula: Formula) -> None:
    """Refuse a spline without degrees of freedom, and a product of splines of plain columns."""
    if name == "te" and re.search(r"\bte\(\s*\w+\s*[,)]", formula.text):
        raise DesignError(
            f"the {formula.model} formula {formula.text!r} has te() of plain columns; expected splines.\n"
            "Use `te(cr(x, df=4), cr(z, df=4), constraints='center')`."
        )
    found = re.search(rf"\b{name}\(\s*(\w+)\s*\)", formula.text) if name in ("bs", "cr", "cc") else None
    if found:
        centred = "" if name == "bs" else ", constraints='center'"
        raise DesignError(
            f"the {formula.model} formula {formula.text!r} has {name}() without degrees of freedom.\n"
            f"Use `{name}({found[1]}, df=4{centred})`."
        )


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
        there = table.in_index(name) or nearest(name, table.names, repr if role == "quoted" else _suggested)
    return DesignError(
        f"{start} {name!r}, which is neither a column of the data nor an array in the calling scope{kind}.\n{there}"
    )
