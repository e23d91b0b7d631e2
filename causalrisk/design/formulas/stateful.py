"""Stateful transforms, such as splines: state that depends on all rows is found in passes over blocks of rows.

A call is then replaced by one with its state filled in: ``bs(x, df=4)`` by ``bs(x, df=4, knots=[26.0],
lower_bound=13.0, upper_bound=45.0)``, and ``center(x)`` by ``x - 26.5``. Bases and knots are patsy's.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from causalrisk.design.formulas.evaluation import FUNCTIONS, Formula, Scope, check_finite, in_words, value_of
from causalrisk.design.formulas.scope import is_function
from causalrisk.design.formulas.terms import parsed, with_calls_told
from causalrisk.errors import DesignError
from causalrisk.numerics.blocks import Spread, add_up
from causalrisk.numerics.linalg import Array

STATEFUL = {name: known for name, known in FUNCTIONS.items() if hasattr(known, "__patsy_stateful_transform__")}
BOUNDS = ("lower_bound", "upper_bound")
COUNTS = ("df", "degree", "include_intercept", "constraints")  # options of splines that can be tried on any numbers
TRIED = np.arange(1000.0)
NAMELESS = Scope({}, {})


def stateful_calls(formula: Formula, frame: Mapping[str, Any]) -> dict[str, ast.Call]:
    """Find the calls of stateful transforms by their text; a call inside of another comes before it."""
    codes = dict.fromkeys(factor.code for term in (*formula.left, *formula.right) for factor in term.factors)
    calls = (call for code in codes for call in _calls(parsed(code)))
    own = {name for name in STATEFUL if is_function(frame.get(name)) and frame[name] is not STATEFUL[name]}
    return {ast.unparse(call): call for call in calls if _name(call) in STATEFUL and _name(call) not in own}


def options_of(call: ast.Call) -> list[ast.expr]:
    """Return the arguments of such a call that are not the data it codes."""
    return [*([] if _name(call) == "te" else call.args[1:]), *(k.value for k in call.keywords if k.arg != "x")]


def _calls(node: ast.AST) -> Iterator[ast.Call]:
    for child in ast.iter_child_nodes(node):
        yield from _calls(child)
    if isinstance(node, ast.Call):
        yield node


def _name(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else ""


@dataclass(frozen=True)
class Lesson:
    """Pass over the blocks by which a stateful transform finds its state.

    Parameters
    ----------
    call : str
        The stateful call, as the user wrote it.
    code : str
        An expression by rows.
    formula : Formula
        Its formula.
    of_block : callable
        Values of the expression in a block, shape (n, k) -> what is kept of them.
    after : callable
        What is kept of all blocks, a list -> the next pass, or the call with its state filled in.
    """

    call: str
    code: str
    formula: Formula
    of_block: Callable[[Array], Any]
    after: Callable[[list[Any]], Lesson | str]

    def of(self, scope: Scope) -> Any:
        """Return what is kept of a block."""
        value = value_of(self.code, self.formula, scope)
        with in_words(self.formula, NAMELESS):
            columns = _columns(value)
        check_finite(columns, self.call, self.formula)
        return self.of_block(columns)


def _first_column(columns: Array) -> Array:
    return columns[:, 0]


def _columns(value: Any) -> Array:
    """Bring the value of an expression to numbers, shape (n, k)."""
    array = np.atleast_1d(np.asarray(value))
    if array.dtype.kind not in "iuf":
        array[:1] - array[:1]  # flags and text are refused in the words of whoever works out a quantile in memory
    return array.astype(np.float64).reshape(len(array), -1)


def first_lesson(call: ast.Call, formula: Formula, scope: Scope) -> Lesson | None:
    """Return the first pass that a stateful transform needs.

    Parameters
    ----------
    call : ast.Call
        One of `stateful_calls`; calls inside of it have their state.
    formula : Formula
        Its formula.
    scope : Scope
        Plain variables of some rows, and the constants.

    Returns
    -------
    Lesson or None
        The pass; None where the call needs no state.

    Raises
    ------
    DesignError
        If the function does not take its options.
    """
    if any(isinstance(arg, ast.Starred) for arg in call.args) or any(option.arg is None for option in call.keywords):
        raise DesignError(
            f"the {formula.model} formula {formula.text!r} has {ast.unparse(call)}, with unpacked arguments.\n"
            "Write them out, as in `bs(x, df=4)`."
        )
    with in_words(formula, NAMELESS):
        return _Stateful(call, formula=formula, options=_options(call, formula, scope)).lesson()


def _options(call: ast.Call, formula: Formula, scope: Scope) -> dict[str, Any]:
    """Evaluate the options of a call on some rows; patsy refuses unknown ones."""
    given = ast.unparse(ast.Call(ast.Name("_given", ast.Load()), call.args, call.keywords))
    recorder = {**scope.constants, "_given": lambda *args, **kwargs: (args, kwargs)}
    args, kwargs = value_of(given, formula, Scope(scope.variables, recorder))
    transform = STATEFUL[_name(call)].__patsy_stateful_transform__
    few = {name: np.atleast_1d(value)[:2] if name == "x" else value for name, value in kwargs.items()}
    transform().memorize_chunk(*(np.atleast_1d(value)[:2] for value in args), **few)
    bound = inspect.signature(transform.memorize_chunk).bind(None, *args, **kwargs)
    bound.apply_defaults()
    return {**bound.arguments, **bound.arguments.get("kwargs", {})}


@dataclass(frozen=True)
class _Stateful:
    """A call, its formula, and its options by name."""

    call: ast.Call
    formula: Formula
    options: dict[str, Any]

    def lesson(self) -> Lesson | None:
        """As `first_lesson`."""
        if _name(self.call) == "bs":
            return self._of_bs()
        if _name(self.call) in ("cr", "cc"):
            return self._of_cubic()
        if _name(self.call) == "te":
            return self._centred() if self._is_centred else None
        return self._asked(self._data, Spread.of, self._standardized)

    @property
    def _is_centred(self) -> bool:
        constraints = self.options.get("constraints")
        return isinstance(constraints, str) and constraints == "center"

    @property
    def _data(self) -> str:
        """Code of the call's data, with state in the calls inside of it."""
        data = self.call.args or [option.value for option in self.call.keywords if option.arg == "x"]
        every = data if _name(self.call) == "te" else data[:1]
        return ", ".join(with_calls_told(ast.unparse(arg), dict(self.formula.told)) for arg in every)

    def _code(self, **options: Any) -> str:
        known = {name: value for name, value in self.options.items() if name not in ("self", "x", "args", "kwargs")}
        given = {name: value for name, value in (known | options).items() if value is not None}
        return f"{_name(self.call)}({', '.join([self._data, *(f'{k}={_shown(v)}' for k, v in given.items())])})"

    def _asked(
        self, code: str, of_block: Callable[[Array], Any], after: Callable[[list[Any]], Lesson | str]
    ) -> Lesson:
        return Lesson(ast.unparse(self.call), code, self.formula, of_block, after)

    def _told_bounds(self, values: Array) -> dict[str, Any]:
        limits = dict(zip(BOUNDS, (float(values.min()), float(values.max())), strict=True))
        return {name: limits[name] if self.options[name] is None else self.options[name] for name in BOUNDS}

    def _tried(self, x: Array, *names: str) -> Any:
        """Let patsy form the state from other numbers; it refuses options that are none."""
        made = STATEFUL[_name(self.call)].__patsy_stateful_transform__()
        made.memorize_chunk(x, **{name: self.options[name] for name in names if name in self.options})
        made.memorize_finish()
        return made

    def _learns_knots(self) -> bool:
        if self.options["knots"] is not None or self.options["df"] is None:
            return False
        self._tried(TRIED, *COUNTS)
        return True

    def _of_bs(self) -> Lesson | None:
        percents = np.empty(0)
        if self._learns_knots():
            inner = self.options["df"] - self.options["degree"] - 1 + (not self.options["include_intercept"])
            percents = 100 * np.linspace(0, 1, inner + 2)[1:-1]
        elif all(self.options[name] is not None for name in BOUNDS):
            return None
        return self._asked(self._data, _first_column, partial(self._with_knots, percents))

    def _with_knots(self, percents: Array, parts: list[Array]) -> str:
        values = np.concatenate(parts)
        knots = np.percentile(values, percents) if self.options["knots"] is None else self.options["knots"]
        return self._code(knots=knots, **self._told_bounds(values))

    def _of_cubic(self) -> Lesson | None:
        if self._learns_knots() or any(self.options[name] is None for name in BOUNDS):
            return self._asked(self._data, _first_column, self._with_distinct_knots)
        return self._centred() if self._is_centred else None

    def _with_distinct_knots(self, parts: list[Array]) -> Lesson | str:
        """Fill in the knots, which patsy takes as quantiles of the distinct values."""
        values = np.unique(np.concatenate(parts))
        told = self._told_bounds(values)
        if self.options["knots"] is None:
            with in_words(self.formula, NAMELESS):
                knots = self._tried(values, *COUNTS, *BOUNDS)._all_knots
            told = {"knots": knots[1:-1], **dict(zip(BOUNDS, knots[[0, -1]], strict=True))}
        taught = replace(self, options=self.options | told)
        return taught._centred() if self._is_centred else taught._code()

    def _centred(self) -> Lesson:
        """Pass for the means of the basis, which the constraint subtracts."""
        return self._asked(
            self._code(df=None, constraints=None),
            Spread.of,
            lambda spreads: self._code(constraints=[_floats(add_up(spreads).mean)]),
        )

    def _standardized(self, spreads: list[Spread]) -> str:
        """Code of the standardization with the mean and standard deviation filled in."""
        learnt, plain = add_up(spreads), f"({self._data})"
        centred = self.options.get("center", True)
        scaled = self.options.get("rescale", False)
        shifted = f"({plain} - {_shown(_floats(learnt.mean))})" if centred else plain
        if not scaled:
            return shifted
        with np.errstate(all="ignore"):
            deviation = np.sqrt(learnt.squares / (learnt.n - self.options["ddof"]))
        return f"{shifted} / {_shown(_floats(deviation))}"


def _floats(values: Any) -> Any:
    floats = np.asarray(values, dtype=np.float64)
    return floats if len(floats) > 1 else floats[0]


def _shown(value: Any) -> str:
    return repr(np.asarray(value).tolist())
