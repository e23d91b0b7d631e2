"""Names in a term of a formula: their roles, and the term rewritten with aliases."""

from __future__ import annotations

import ast
import functools
import re
import threading
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from keyword import iskeyword
from typing import Any, NamedTuple

from causalrisk.design.formulas.foreign import QUOTED
from causalrisk.design.treatment import show
from causalrisk.errors import DesignError

PARSER = threading.Lock()  # Python 3.11 may fail to parse in two threads at once (recursion depth mismatch)


def parsed(code: str) -> ast.Expression:
    """Parse an expression, one thread at a time."""
    with PARSER:
        return ast.parse(code, mode="eval")


class Use(NamedTuple):
    """Name and role of a use in a term.

    Roles: "called" (``f(...)``), "quoted" (``Q("...")``), "base" (before a dot), "contrast" (a further argument of
    ``C``), "option" (the value of a keyword), "term" (the whole term), "plain" (anywhere else).
    """

    name: str
    role: str


@functools.lru_cache(maxsize=1000)  # one fit asks a dozen times
def uses(code: str) -> tuple[Use, ...]:
    """List the names that a term uses, in order, without those it binds itself."""
    found: list[Use] = []

    def note(name: str, role: str) -> None:
        found.append(Use(name, role))

    tree = parsed(code)
    _Renamer(tree, note).visit(tree)
    return tuple(found)


def rewrite(code: str, variables: Sequence[str], constants: Container[str], functions: Container[str]) -> str:
    """Rewrite a term with aliases for its variables.

    The alias of the i-th is ``_column_i``, or ``_float_i`` in products and powers, where integers would overflow
    silently. `constants` do not go by rows; only a base before a dot can be both. `functions` keep their meaning as a
    further argument of ``C``.
    """
    tree = parsed(code)
    nodes = list(ast.walk(tree))
    product = any(isinstance(n, ast.BinOp) and isinstance(n.op, ast.Pow | ast.Mult) for n in nodes)
    coded = any(isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id == "C" for n in nodes)
    prefix = "_float" if product and not coded else "_column"

    def alias(name: str, role: str) -> str | None:
        kept = role == "called" or (role == "base" and name in constants) or (role == "contrast" and name in functions)
        return None if kept or name not in variables else f"{prefix}_{list(variables).index(name)}"

    return ast.unparse(_Renamer(tree, alias).visit(tree))


def renamed(code: str, names: Mapping[str, str]) -> str:
    """Return a term with other variables: `names` are those of the variables, each with the one in its place."""
    tree = parsed(code)
    return ast.unparse(_Renamer(tree, lambda name, role: None if role == "called" else names.get(name)).visit(tree))


def with_calls_told(code: str, told: Mapping[str, str]) -> str:
    """Replace calls, as `ast.unparse` writes them, in a term; inside of a call that is replaced nothing is."""
    return ast.unparse(_Teller(told).visit(parsed(code))) if told else code


@functools.lru_cache(maxsize=1000)
def coded_names(code: str) -> frozenset[str]:
    """List the variables in the first argument of ``C(...)``."""
    found: set[str] = set()
    for node in ast.walk(parsed(code)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "C" and node.args:
            found.update(use.name for use in uses(ast.unparse(node.args[0])) if use.role != "called")
    return frozenset(found)


@functools.lru_cache(maxsize=1000)
def computes(code: str) -> bool:
    """Whether a term is more than a column by its name, ``x`` or ``Q("x")``, or its categories, ``C(x)``."""
    node = parsed(code).body
    called = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
    if isinstance(node, ast.Call) and called == "C" and node.args:
        return computes(ast.unparse(node.args[0]))
    return not isinstance(node, ast.Name) and called != "Q"


def codes_of(formula: Any) -> set[str]:
    """Names of the variables of the right-hand side of a `Formula` that are category codes."""
    return set().union(*(coded_names(factor.code) for term in formula.right for factor in term.factors))


def in_formula(name: str) -> str:
    """Return a column's name as a formula has it, such as ``age`` or ``Q("mother's age")``."""
    return name if name.isidentifier() and not iskeyword(name) else f"Q({show(name)})"


def quoted(text: str, names: Iterable[Any]) -> str:
    """Return a formula with Q() around the names of columns that are no plain words; numbers and operators stay."""
    columns = set(map(str, names))
    odd = {
        name.strip(): code.replace('"', "'") if "'" not in name else code
        for name in columns
        if (code := in_formula(name)) != name and re.search(r"[^\W\d_]", name) and name.strip() not in columns - {name}
    }
    if not odd:
        return text
    found = "|".join(map(re.escape, sorted(odd, key=len, reverse=True)))
    return re.sub(rf"{QUOTED}|(?<!\w)({found})(?!\w)", lambda m: odd[m[1]] if m[1] else m[0], text)


class _Teller(ast.NodeTransformer):
    def __init__(self, told: Mapping[str, str]) -> None:
        self._told = told

    def visit_Call(self, node: ast.Call) -> ast.AST:
        code = self._told.get(ast.unparse(node))
        return self.generic_visit(node) if code is None else parsed(code).body


class _Renamer(ast.NodeTransformer):
    def __init__(self, tree: ast.Expression, rename: Callable[[str, str], str | None]) -> None:
        self._rename = rename
        self._whole = tree.body
        self._bound = {n.arg for n in ast.walk(tree) if isinstance(n, ast.arg)}
        self._bound |= {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}

    def _name(self, node: ast.Name, role: str) -> ast.Name:
        if node.id in self._bound:
            return node
        return ast.Name(self._rename(node.id, role) or node.id, ast.Load())

    def _value(self, node: ast.expr, role: str) -> ast.expr:
        return self._name(node, role) if isinstance(node, ast.Name) else self.visit(node)

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return self._name(node, "term" if node is self._whole else "plain")

    def visit_Attribute(self, node: ast.Attribute) -> ast.Attribute:
        node.value = self._value(node.value, "base")
        return node

    def visit_Call(self, node: ast.Call) -> ast.expr:
        function = node.func.id if isinstance(node.func, ast.Name) else None
        if function == "Q":
            return self._quoted(node)
        node.func = self._value(node.func, "called")
        further = "contrast" if function == "C" else "plain"
        node.args = [self._value(arg, further) if i else self.visit(arg) for i, arg in enumerate(node.args)]
        for keyword in node.keywords:
            keyword.value = self._value(keyword.value, "contrast" if function == "C" else "option")
        return node

    def _quoted(self, node: ast.Call) -> ast.expr:
        name = node.args[0].value if len(node.args) == 1 and isinstance(node.args[0], ast.Constant) else None
        if not isinstance(name, str):
            raise DesignError(f'{ast.unparse(node)!r} does not quote a name.\nUse `Q("name of the column")`.')
        alias = self._rename(name, "quoted")
        return node if alias is None else ast.Name(alias, ast.Load())
