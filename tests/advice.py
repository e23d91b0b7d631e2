"""What a message tells to type: found in the source of the package, read from a message, carried out, compared."""

from __future__ import annotations

import ast
import re
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import causalrisk
from causalrisk.models.model import CausalModel
from causalrisk.models.results import CausalResults

PACKAGE = Path(causalrisk.__file__).parent
ADVICE = re.compile(r"\b[Tt]ype  ")


@dataclass(frozen=True)
class Site:
    """A piece of text in the source that says what to type.

    Parameters
    ----------
    file, function : str
        Where it stands; the function is empty at the top level of a module.
    text : str
        The text, with ``{}`` for what is filled in.
    owner : str
        The class it stands in, if any.
    """

    file: str
    function: str
    text: str
    owner: str = ""

    def told_by(self, message: str, called: set[tuple[str, str]]) -> bool:
        """Whether a message has this text, and the function that makes it was called."""
        pattern = ".*?".join(re.escape(part) for part in re.split(r"\{\w*\}", self.text))
        made = not self.function or (self.file, self.function) in called
        return made and re.search(pattern, message, re.DOTALL) is not None


class _Finder(ast.NodeVisitor):
    def __init__(self, file: str) -> None:
        self.file, self.scope, self.found = file, [], []

    def _scoped(self, node: Any) -> None:
        self.scope.append(node)
        self.generic_visit(node)
        self.scope.pop()

    visit_FunctionDef = visit_ClassDef = _scoped

    def visit_Expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):  # a docstring
            self.generic_visit(node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        self._note("".join(v.value if isinstance(v, ast.Constant) else "{}" for v in node.values))
        for value in node.values:
            if isinstance(value, ast.FormattedValue):
                self.visit(value.value)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str):
            self._note(node.value)

    def _note(self, text: str) -> None:
        if ADVICE.search(text):
            functions = [node.name for node in self.scope if isinstance(node, ast.FunctionDef)]
            classes = [node.name for node in self.scope if isinstance(node, ast.ClassDef)]
            self.found.append(Site(self.file, functions[-1] if functions else "", text, "".join(classes)))


def sites() -> list[Site]:
    """All texts of the package that say what to type, each once."""
    found: dict[Site, None] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        finder = _Finder(path.relative_to(PACKAGE).as_posix())
        finder.visit(ast.parse(path.read_text("utf-8")))
        found.update(dict.fromkeys(finder.found))
    return list(found)


@dataclass
class Told:
    """What a call told: its message, and the functions of the package that it called."""

    message: str
    called: set[tuple[str, str]] = field(default_factory=set)

    @property
    def advice(self) -> str:
        """The line of the message that says what to type."""
        lines = [line for line in self.message.splitlines() if ADVICE.search(line)]
        assert lines, self.message
        return lines[-1]

    def codes(self) -> list[str]:
        """What to type, each alternative."""
        start = ADVICE.split(self.advice, maxsplit=1)[1]
        parts = [re.split(r"  (?!\s)|,? or (?! )", part)[0].strip() for part in re.split(r",? or  ", start)]
        return [re.sub(r"(?<=\.\.\.)\.$|(?<!\.)[.,]$", "", part) for part in parts]


def told(call: Callable[[], Any]) -> Told:
    """Return what a call raises, else warns of, else returns as text."""
    called: set[tuple[str, str]] = set()

    def note(frame: Any, event: str, _: Any) -> None:
        name = frame.f_code.co_filename
        if event == "call" and name.startswith(str(PACKAGE)):
            called.add((Path(name).relative_to(PACKAGE).as_posix(), frame.f_code.co_name))

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        before = sys.getprofile()
        sys.setprofile(note)
        try:
            message = str(call())
        except (ValueError, TypeError, AttributeError, ImportError) as error:
            message = str(error)
        finally:
            sys.setprofile(before)
    texts = [str(w.message) for w in caught if ADVICE.search(str(w.message))]
    return Told(texts[-1] if texts and not ADVICE.search(message) else message, called)


def seen(value: Any) -> Any:
    """Return what has to agree: estimand, sample and digits of a fit; data and options of a model; values else."""
    if isinstance(value, CausalResults):
        return type(value), repr(value), value.cov_type, seen(value.params), seen(value.bse)
    if isinstance(value, CausalModel):
        design = value.design
        options = re.sub(r" at 0x\w+", "", repr(value.options))
        return (
            type(value),
            repr(value),
            options,
            *(None if a is None else a.tobytes() for a in (design.X, design.Z, design.y, design.offset)),
        )
    if type(value).__module__.startswith("matplotlib"):
        return "a figure"
    if isinstance(value, pd.DataFrame | pd.Series):
        return list(value.index), repr(value.to_numpy().tolist())  # as text, so that NaN equals NaN
    return value.tolist() if isinstance(value, np.ndarray) else str(value) if hasattr(value, "tables") else value
