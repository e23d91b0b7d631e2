"""The names of the table of notation exist, and so do the files that the page for contributors names."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TABLE = (ROOT / "docs/explanation/notation_in_code.md").read_text("utf-8")
CONTRIBUTING = (ROOT / "docs/development/contributing.md").read_text("utf-8")
ROWS = [line for line in TABLE.splitlines() if line.startswith("| ") and not line.startswith("| symbol")]
NAMES = [name for row in ROWS for name in re.findall(r"`([\w.]+)`", row)]


def set_in_init(kind):
    """Attributes that the constructors of a class and of its bases set."""
    found = set()
    for base in kind.__mro__[:-1]:
        for function in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(base)))):
            if isinstance(function, ast.FunctionDef) and function.name == "__init__":
                stored = (node for node in ast.walk(function) if isinstance(node, ast.Attribute))
                found |= {node.attr for node in stored if isinstance(node.ctx, ast.Store)}
    return found


def exists(name):
    """Whether a dotted name below causalrisk is a module, or found in one."""
    found, rest = importlib.import_module("causalrisk"), name.split(".")
    while rest and hasattr(found, "__path__") and importlib.util.find_spec(f"{found.__name__}.{rest[0]}"):
        found = importlib.import_module(f"{found.__name__}.{rest.pop(0)}")
    while rest and hasattr(found, rest[0]):
        found = getattr(found, rest.pop(0))
    return not rest or (len(rest) == 1 and inspect.isclass(found) and rest[0] in declared(found))


def declared(kind):
    """Annotated attributes of a class and those that its constructor sets."""
    return {name for base in kind.__mro__ for name in vars(base).get("__annotations__", ())} | set_in_init(kind)


def test_names_that_do_not_exist_are_found():
    for name in ("estimation.sample.Sample.weight", "estimation.sampling", "joint.rows.Replicates.shifts.b"):
        assert not exists(name)


@pytest.mark.parametrize("row", ROWS)
def test_each_symbol_has_a_name(row):
    assert re.findall(r"`([\w.]+)`", row)
    assert row.count("|") == 3


@pytest.mark.parametrize("name", NAMES)
def test_name_exists(name):
    assert exists(name)


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`([\w./]+(?:\.py|/))`", CONTRIBUTING))))
def test_files_named_for_contributors_exist(path):
    assert (ROOT / "causalrisk" / path).exists() or (ROOT / path).exists()
