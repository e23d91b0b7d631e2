"""Formulas that only compute: which of them may be run for somebody who is not trusted with Python."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator

from causalrisk.design.columns.tables import nearest
from causalrisk.design.formulas.evaluation import FUNCTIONS, parse
from causalrisk.errors import DesignError

NUMPY = {
    "abs",
    "arccos",
    "arccosh",
    "arcsin",
    "arcsinh",
    "arctan",
    "arctanh",
    "cbrt",
    "ceil",
    "clip",
    "cos",
    "cosh",
    "digitize",
    "exp",
    "exp2",
    "expm1",
    "fabs",
    "floor",
    "fmax",
    "fmin",
    "isin",
    "log",
    "log10",
    "log1p",
    "log2",
    "logical_and",
    "logical_not",
    "logical_or",
    "maximum",
    "minimum",
    "mod",
    "rint",
    "round",
    "sign",
    "sin",
    "sinh",
    "sqrt",
    "square",
    "tan",
    "tanh",
    "trunc",
    "where",
}
LARGEST_POWER = 100
_VALUES = (
    ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.Tuple, ast.List, ast.Load,
    ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.keyword, ast.Call,
)  # fmt: skip


def check_safe(text: str, model: str, names: Collection[str]) -> None:
    """Raise a DesignError unless a formula holds nothing but columns, numbers, operators and known functions.

    Parameters
    ----------
    text : str
        The formula, one- or two-sided.
    model : {"outcome", "propensity"}
        The model it belongs to, for messages.
    names : collection of str
        The columns there are.

    Raises
    ------
    DesignError
        If it cannot be parsed, or naming what else it holds. The functions are patsy's own (``C``, ``I``, ``Q``,
        ``center``, ``bs``, ...) and the elementwise ones of NumPy (``np.log``, ...).

    Examples
    --------
    >>> from causalrisk.design.formulas.safe import check_safe
    >>> check_safe("y ~ np.log(x) + C(site) + I(x**2)", "outcome", ["y", "x", "site"])
    >>> check_safe("y ~ I(__import__('os').getpid())", "outcome", ["y"])
    Traceback (most recent call last):
    causalrisk.errors.DesignError: the outcome formula ... is no column, number, operator or function ...
    """
    formula = parse(text, model, [])
    for term in (*formula.left, *formula.right):
        for factor in term.factors:
            for found in _others(ast.parse(factor.code, mode="eval"), names):
                hint = nearest(found, list(names)) if found.isidentifier() else ""
                trust = (
                    "Make it a column of the file first; or, if you trust the formula, which is run as Python, type  "
                    "--allow-python."
                )
                advice = f"{trust}\n{hint}" if "Type  " in hint else f"{hint}\n{trust}" if hint else trust
                raise DesignError(
                    f"the {model} formula {text!r} holds {found!r}, which is no column, number, operator or function "
                    f"of a safe formula.\n{advice}"
                )


def _others(tree: ast.Expression, names: Collection[str]) -> Iterator[str]:
    """Yield what a safe formula does not hold."""
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
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
            good = _small(node.right)
        if not good:
            yield ast.unparse(node)


def _small(power: ast.expr) -> bool:
    """Whether a power is a plain number that takes no time to work out."""
    if isinstance(power, ast.UnaryOp):
        power = power.operand
    value = power.value if isinstance(power, ast.Constant) else None
    return isinstance(value, int | float) and abs(value) <= LARGEST_POWER
