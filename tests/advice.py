"""What a message tells to type: found in the source of the package, read from a message, carried out, compared."""

from __future__ import annotations

import ast
import functools
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
SAID_OTHERWISE = re.compile(r"\bType(?!  |\w)")


@dataclass(frozen=True)
class Site:
    """A piece of text in the source that says what to type.

    Parameters
    ----------
    file, function : str
        Where it stands; the function is empty at the top level of a module.
    text : str
        The text, with ``{}`` for what is filled in.
    lines : range
        Where it stands in the file.
    """

    file: str
    function: str
    text: str
    lines: range

    def told_by(self, message: str, run: set[tuple[str, int]]) -> bool:
        """Whether a message has this text, and one of its lines was run; at the top level of a module all are."""
        pattern = ".*?".join(re.escape(part) for part in re.split(r"\{\w*\}", self.text))
        made = not self.function or any((self.file, line) in run for line in self.lines)
        return made and re.search(pattern, message, re.DOTALL) is not None


class _Finder(ast.NodeVisitor):
    def __init__(self, file: str, wanted: re.Pattern[str]) -> None:
        self.file, self.wanted, self.scope, self.found = file, wanted, [], []

    def _scoped(self, node: Any) -> None:
        self.scope.append(node)
        self.generic_visit(node)
        self.scope.pop()

    visit_FunctionDef = visit_ClassDef = visit_Lambda = _scoped

    def visit_Expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):  # a docstring
            self.generic_visit(node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        self._note("".join(v.value if isinstance(v, ast.Constant) else "{}" for v in node.values), node)
        for value in node.values:
            if isinstance(value, ast.FormattedValue):
                self.visit(value.value)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str):
            self._note(node.value, node)

    def _note(self, text: str, node: ast.expr) -> None:
        if self.wanted.search(text):
            functions = [
                getattr(s, "name", "a lambda") for s in self.scope if isinstance(s, ast.FunctionDef | ast.Lambda)
            ]
            lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
            self.found.append(Site(self.file, functions[-1] if functions else "", text, lines))


def package_files() -> list[Path]:
    """The modules of the package."""
    return sorted(PACKAGE.rglob("*.py"))


def sites_of(source: str, file: str, wanted: re.Pattern[str] = ADVICE) -> list[Site]:
    """All texts of a source that say what to type, docstrings aside."""
    finder = _Finder(file, wanted)
    finder.visit(ast.parse(source))
    return finder.found


@functools.cache
def sites() -> list[Site]:
    """All texts of the package that say what to type."""
    files = {path.relative_to(PACKAGE).as_posix(): path.read_text("utf-8") for path in package_files()}
    return [site for file, source in files.items() for site in sites_of(source, file)]


@dataclass
class Told:
    """What a call told: its message, and which of the lines of texts that say what to type it ran."""

    message: str
    run: set[tuple[str, int]] = field(default_factory=set)

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


# By the identity of code: to hash code takes longer than most calls.
_WATCHED: dict[int, tuple[Any, tuple[str, set[int]] | None]] = {}


def _watched(code: Any) -> tuple[str, set[int]] | None:
    """File of a function, and its lines on which a text stands that says what to type; None if it has none."""
    known = _WATCHED.get(id(code))
    if known is None:
        known = _WATCHED[id(code)] = code, _told_by(code)  # which keeps the code, so that its identity stays its own
    return known[1]


def _told_by(code: Any) -> tuple[str, set[int]] | None:
    if not code.co_filename.startswith(str(PACKAGE)):
        return None
    file = Path(code.co_filename).relative_to(PACKAGE).as_posix()
    lines = {line for site in sites() if site.file == file for line in site.lines}
    own = lines & {line for _, _, line in code.co_lines()}
    return (file, own) if own else None


def told(call: Callable[[], Any]) -> Told:
    """Return what a call raises, else warns of, else returns as text."""
    run: set[tuple[str, int]] = set()

    def note(frame: Any, event: str, _: Any) -> Any:
        watched = _watched(frame.f_code)
        if event == "line" and watched is not None and frame.f_lineno in watched[1]:
            run.add((watched[0], frame.f_lineno))
        return note if watched is not None else None

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        before = sys.gettrace()
        sys.settrace(note)
        try:
            message = str(call())
        except (ValueError, TypeError, AttributeError, ImportError) as error:
            message = str(error)
        finally:
            sys.settrace(before)
    texts = [str(w.message) for w in caught if ADVICE.search(str(w.message))]
    return Told(texts[-1] if texts and not ADVICE.search(message) else message, run)


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
