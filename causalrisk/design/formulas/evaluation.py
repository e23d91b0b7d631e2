"""Formulas: parsed, resolved against the data and the caller's scope, and evaluated. The only importer of patsy.

Before patsy evaluates a term, each variable in it is renamed to an alias. A column named C, np or center therefore
never hides the function of that name, and ``Q("C")`` still reaches the column.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import patsy.builtins
from patsy import EvalEnvironment
from patsy.categorical import CategoricalSniffer, categorical_to_int
from patsy.parse_formula import parse_formula

from causalrisk.design.formulas.foreign import refuse_foreign
from causalrisk.design.formulas.terms import PARSER, Use, computes, rewrite, uses, with_calls_told
from causalrisk.errors import CausalRiskError, DesignError

FUNCTIONS = {name: getattr(patsy.builtins, name) for name in patsy.builtins.__all__}
CANNOT = (ArithmeticError, AttributeError, LookupError, NotImplementedError, TypeError, ValueError)
OPTIONS = {"observation": "observed"}  # of the models that go by another name there
MOST_TERMS = 10_000  # terms that * and ** may be expanded to
BLOCK = 4096  # rows of a matrix that are filled at a time, which the processor's cache has room for


def callers_variables(depth: int) -> Any:
    """Return variables that formulas may name, and ``np``: those `depth` calls above the function that asks."""
    return EvalEnvironment.capture(depth + 1).with_outer_namespace({"np": np}).namespace


@dataclass(frozen=True)
class Formula:
    """A formula split into terms.

    Parameters
    ----------
    model : {"outcome", "propensity"}
        The model it belongs to, for messages.
    text : str
        The formula as given, without superfluous white space.
    left, right : tuple of patsy.Term
        Terms on either side; `left` is empty for a one-sided formula.
    told : tuple of (str, str), optional
        Calls of stateful transforms, each with the call that replaces it, its state filled in. Terms keep their
        names.
    """

    model: str
    text: str
    left: tuple[Any, ...]
    right: tuple[Any, ...]
    told: tuple[tuple[str, str], ...] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return parsed_again, (self.text, self.model, self.told, bool(self.left))  # patsy's terms do not pickle

    def uses(self, *sides: str) -> list[Use]:
        """List the names used on the given sides ("left", "right"; both by default) in order, each role once."""
        terms = [term for side in sides or ("left", "right") for term in getattr(self, side)]
        found: dict[Use, None] = {}
        for term in terms:
            for factor in term.factors:
                found.update(dict.fromkeys(uses(factor.code)))
        return list(found)

    @property
    def computes(self) -> bool:
        """Whether a term is more than a column or its categories, so that it might depend on other rows."""
        terms = (*self.left, *self.right)
        return any(computes(factor.code) for term in terms for factor in term.factors)

    @property
    def right_text(self) -> str:
        """Text of the right-hand side."""
        return self.text.split("~", 1)[-1].strip()


def parsed_again(text: str, model: str, told: tuple[tuple[str, str], ...], two_sided: bool = True) -> Formula:
    """Return a formula from its text, its model and the replacements of its stateful calls."""
    formula = replace(parse(text, model, []), told=told)
    return formula if two_sided else replace(formula, left=())


@dataclass(frozen=True)
class Scope:
    """Meaning of the names in a formula.

    Parameters
    ----------
    variables : mapping of str to Series
        One value per row.
    constants : mapping of str to object
        Functions, modules and everything else that does not go by rows.
    """

    variables: Mapping[str, pd.Series]
    constants: Mapping[str, Any]


def parse(text: str, model: str, notes: list[str]) -> Formula:
    """Split a formula, one- or two-sided, into terms; the variables are not looked up yet.

    Lines are appended to the notes for terms that probably mean something else than they do.
    """
    if not isinstance(text, str):
        raise _not_text(text, model)
    text = re.sub(r"(\"[^\"]*\"|'[^']*')|\s+", lambda m: m.group(1) or " ", text).strip()
    if not text.split("~", 1)[-1].strip():
        raise _empty(model, text)
    refuse_foreign(text, model)
    try:
        tree = parse_formula(text)
        if (count := _written_out(tree)) > MOST_TERMS:
            raise _too_many(model, f"{count:,} terms")
        terms = patsy.ModelDesc.from_formula(tree)
        formula = Formula(model, text, tuple(terms.lhs_termlist), tuple(terms.rhs_termlist))
        formula.uses()
    except (patsy.PatsyError, SyntaxError) as error:
        reason = f"{error.msg} in {(error.text or '').strip()!r}" if isinstance(error, SyntaxError) else str(error)
        raise DesignError(
            f"the {model} formula {text!r} cannot be read: {reason}\nArithmetic is inside `I(...)`."
        ) from error
    except (RecursionError, MemoryError) as error:
        raise _too_many(model, f"{text.count('+') + 1} terms, or too many parentheses") from error
    if not formula.right:
        raise _empty(model, text)
    _note_powers(tree, formula, notes)
    _note_removals(tree, formula, notes)
    return formula


def right_side(text: Any, model: str, notes: list[str]) -> Formula:
    """Parse a formula that has nothing on the left."""
    formula = parse(text, model, notes)
    if formula.left:
        raise DesignError(
            f"the {model} formula {formula.text!r} has a left-hand side; expected a one-sided formula.\n"
            f'Use `"{formula.right_text}"`.'
        )
    return formula


def _too_many(model: str, found: str) -> DesignError:
    return DesignError(
        f"the {model} formula has {found}, more than a formula can have.\n"
        "Give arrays: `Model(data[outcome], data[covariates].assign(const=1.0), data[treatment])`."
    )


def _written_out(node: Any) -> int:
    """Bound the number of terms of a node of a parsed formula when its products are written out."""
    counts = [_written_out(arg) for arg in node.args]
    if node.type == "**":
        power = node.args[1].origin.relevant_code()
        steps = range(1, min(counts[0], int(power)) + 1) if power.isdecimal() else ()  # patsy refuses other powers
        count = 0
        for step in steps:
            count += math.comb(counts[0], step)
            if count > MOST_TERMS:
                break
        return count
    if node.type in ("*", ":"):
        return math.prod(counts) + (sum(counts) if node.type == "*" else 0)
    return sum(counts) or 1


def _not_text(given: Any, model: str) -> TypeError:
    typed = "y ~ x1 + x2" if model == "outcome" else f"{OPTIONS.get(model, model)}="
    if hasattr(given, "predict_proba") or (model == "propensity" and hasattr(given, "__array__")):
        typed = "propensity_score="
    return TypeError(f"the {model} formula is of type {type(given).__name__}; expected text.\nUse `{typed}`.")


def _empty(model: str, text: str) -> DesignError:
    typed = '"y ~ 1"' if model == "outcome" else f'{OPTIONS.get(model, model)}="1"'
    return DesignError(
        f"the {model} formula {text!r} has an empty right-hand side; expected at least one term.\n"
        f"Use `{typed}` for a constant only."
    )


def _note_powers(node: Any, formula: Formula, notes: list[str]) -> None:
    """Note each ``x**2`` or ``x*x``, which the formula language reads as interactions of x with itself, that is x."""
    names = [arg.token.extra if arg.type == "PYTHON_EXPR" else None for arg in node.args]
    itself = node.type in ("*", ":") and names == names[:1] * 2
    if (node.type == "**" or itself) and names[0] is not None and not names[0].startswith("C("):
        base, power = names[0], "2" if itself else node.args[1].origin.relevant_code()
        note = (
            f"{base}{node.type}{base if itself else power} in the {formula.model} formula {formula.text!r} means just "
            f"{base}: outside I(), {node.type} builds interactions. For the power use `I({base}**{power})`."
        )
        if note not in notes:
            notes.append(note)
    for child in node.args:
        _note_powers(child, formula, notes)


def _note_removals(node: Any, formula: Formula, notes: list[str]) -> None:
    """Note each ``a - b`` that removes a term that is not there: it is no difference, and changes nothing."""
    if node.type == "-" and len(node.args) == 2:
        left, right = (patsy.desc.Evaluator().eval(side) for side in node.args)
        if right.terms and not set(right.terms) <= set(left.terms):
            kept, gone = (side.origin.relevant_code() for side in (_last_term(node.args[0]), node.args[1]))
            note = (
                f"- {gone} in the {formula.model} formula {formula.text!r} takes out a term that is not there. For the "
                f"difference use `I({kept} - {gone})`."
            )
            if note not in notes:
                notes.append(note)
    for child in node.args:
        _note_removals(child, formula, notes)


def _last_term(node: Any) -> Any:
    return _last_term(node.args[-1]) if node.type in ("+", "~") else node


class _Factor:
    """Factor of a term for patsy: shown as the user wrote it, evaluated with aliases for the variables."""

    def __init__(self, shown: Any, code: str, formula: Formula, numeric: bool) -> None:
        self._inner = patsy.EvalFactor(code, origin=shown.origin)
        self._shown, self._formula, self._numeric = shown.code, formula, numeric
        self.origin = shown.origin
        self.memorize_passes_needed = self._inner.memorize_passes_needed
        self.memorize_chunk = self._inner.memorize_chunk
        self.memorize_finish = self._inner.memorize_finish

    @property
    def shown(self) -> str:
        """The code as the user wrote it."""
        return str(self._shown)

    def name(self) -> str:
        # patsy calls its constant Intercept and takes no second column of that name.
        return "Q('Intercept')" if self._shown == "Intercept" else self._shown

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Factor) and self._shown == other._shown

    def __hash__(self) -> int:
        return hash(self._shown)

    def eval(self, state: Any, data: Any) -> Any:
        value = self._inner.eval(state, data)
        if not self._numeric:
            if isinstance(value, pd.Series) and value.dtype.kind in "if":
                return value.to_numpy()  # which goes faster
            return self._with_codes(value, state)
        dtype = getattr(value, "dtype", np.asarray(value).dtype if isinstance(value, list | tuple) else None)
        if getattr(dtype, "kind", "O") not in "bif":
            boxed = hasattr(value, "contrast")  # C(...)
            values = pd.Series(value.data if boxed else value)
            shown = self._shown[2:-1] if boxed else self._shown
            raise DesignError(
                f"the outcome {self._shown!r} is not numeric (dtype {values.dtype}); expected numbers or bool.\n"
                f"Use `I({shown} == {sorted(map(repr, values.unique()))[0]}) ~ {self._formula.right_text}`, or the "
                "level that is the event."
            )
        return np.asarray(value, dtype=np.float64)

    def _with_codes(self, value: Any, state: dict[str, Any]) -> Any:
        """Return values with levels as a Categorical, coded as patsy codes the distinct ones; others as they are.

        patsy goes through the rows of all but a bare Categorical in Python. The levels are those of the first rows
        that are evaluated, the sample's, and stay in the state of the factor with the codes of these.
        """
        boxed, missing = hasattr(value, "contrast"), _RefuseMissing(self._formula)
        values = value.data if boxed else value
        dtype = getattr(values, "dtype", None)
        if getattr(values, "ndim", 0) != 1 or dtype is None or dtype.kind not in ("iufOU" if boxed else "OU"):
            return value
        if state.get("sample") is values:
            return state["coded"]
        try:
            codes, distinct = pd.factorize(values)
        except TypeError:  # not hashable, which patsy says
            return value
        found = list(distinct)
        if "levels" not in state:
            listed = isinstance(dtype, pd.CategoricalDtype) and (not boxed or value.levels is None)
            sniffer = CategoricalSniffer(missing, self.origin)
            sniffer.sniff(values if listed else patsy.builtins.C(found, levels=value.levels if boxed else None))
            state["levels"], _ = sniffer.levels_contrast()
            state["sample"], known = values, False
        else:
            known = True
        places = categorical_to_int(found, state["levels"], missing, self)
        levels = pd.Index(state["levels"], dtype=object, tupleize_cols=False)
        coded = pd.Categorical.from_codes(np.append(places, -1)[codes], levels)
        if known:
            return coded
        state["coded"] = coded
        return patsy.builtins.C(coded, value.contrast) if boxed else coded


class _RefuseMissing(patsy.NAAction):
    """Refuse terms that are NaN or infinite although their variables are not, instead of dropping rows."""

    def __init__(self, formula: Formula) -> None:
        super().__init__()
        self._formula = formula

    def is_categorical_NA(self, obj: Any) -> bool:
        return obj is None or obj is pd.NA or obj is pd.NaT or (isinstance(obj, float) and obj != obj)

    def is_numerical_NA(self, arr: Any) -> np.ndarray:
        array = np.asarray(arr)
        return np.asarray(~np.isfinite(array).reshape(len(array), -1).all(axis=1))

    def handle_NA(self, values: list[Any], is_NAs: list[Any], origins: list[Any]) -> list[Any]:
        for bad, origin in zip(is_NAs, origins, strict=True):
            if np.any(bad):
                raise not_finite(origin.relevant_code(), int(np.sum(bad)), self._formula)
        return values


def not_finite(term: str, count: int, formula: Formula) -> DesignError:
    """Make the error of a term that is not finite in some rows."""
    return DesignError(
        f"term {term!r} of the {formula.model} formula {formula.text!r} is NaN or infinite in {count} rows, although "
        "its variables are not.\nChange the term, such as `np.log` to `np.log1p`, or leave these rows out."
    )


def check_finite(columns: np.ndarray, term: str, formula: Formula) -> None:
    """Raise the error of a term whose columns, shape (n, k), are not finite in some rows."""
    bad = ~np.isfinite(columns).all(axis=1)
    if bad.any():
        raise not_finite(term, int(bad.sum()), formula)


def compile_terms(terms: Iterable[Any], formula: Formula, scope: Scope, numeric: bool = False) -> patsy.DesignInfo:
    """Fix the columns of a matrix, and the state of its stateful transforms, on the variables of the scope.

    `numeric` terms must be numbers, as an outcome must; bool then counts as 0 and 1.
    """
    rewritten = [
        patsy.Term([_Factor(f, _evaluated(f.code, formula, scope), formula, numeric) for f in t.factors]) for t in terms
    ]
    data = _aliased(scope.variables)
    env = patsy.EvalEnvironment([dict(scope.constants)])
    with in_words(formula, scope), PARSER:
        return patsy.design_matrix_builders([rewritten], lambda: iter([data]), env, _RefuseMissing(formula))[0]


def value_of(code: str, formula: Formula, scope: Scope) -> Any:
    """Evaluate a part of a term, whose stateful calls are replaced as in the formula."""
    env = patsy.EvalEnvironment([dict(scope.constants), FUNCTIONS])
    with in_words(formula, scope):
        return env.eval(_evaluated(code, formula, scope), inner_namespace=_aliased(scope.variables))


def _evaluated(code: str, formula: Formula, scope: Scope) -> str:
    told = with_calls_told(code, dict(formula.told))
    return rewrite(told, list(scope.variables), scope.constants, FUNCTIONS)


def evaluate(info: patsy.DesignInfo, formula: Formula, scope: Scope, n: int) -> np.ndarray:
    """Make the matrix, shape (n, p) and C-contiguous, of rows of the estimation sample or of new data."""
    data = _aliased(scope.variables)
    with in_words(formula, scope):
        values = {factor: _values(factor, coded, data, formula) for factor, coded in info.factor_infos.items()}
    for found in values.values():
        if len(found) != n:
            raise DesignError(
                f"the {formula.model} formula {formula.text!r} gives {len(found)} rows for {n} rows of data.\n"
                "Use functions that keep the number of rows."
            )
    matrix, start = np.empty((n, len(info.column_names))), 0
    for term, subterms in info.term_codings.items():
        for subterm in subterms:
            parts = [(subterm.contrast_matrices.get(factor), values[factor]) for factor in subterm.factors]
            _fill(matrix[:, start : start + subterm.num_columns], parts)
            start += subterm.num_columns
        if any(info.factor_infos[factor].type == "numerical" for factor in term.factors):
            check_finite(matrix[:, info.term_slices[term]], term.name(), formula)
    return matrix


def _fill(columns: np.ndarray, parts: Sequence[tuple[Any, np.ndarray]]) -> None:
    """Write products of factors, the columns of the first changing fastest, block by block: faster than by columns.

    A part is the contrasts of a factor and the codes of its rows, or None and its numbers, shape (n, j).
    """
    for start in range(0, len(columns), BLOCK):
        rows = slice(start, start + BLOCK)
        with np.errstate(all="ignore"):
            product = np.ones((1, 1))
            for contrast, values in parts:
                part = values[rows] if contrast is None else contrast.matrix[values[rows]]
                product = (part[:, :, None] * product[:, None, :]).reshape(len(part), -1)
        columns[rows] = product


def _values(factor: Any, coded: Any, data: Mapping[str, pd.Series], formula: Formula) -> np.ndarray:
    """Codes of the levels of a factor, shape (n,), or its finite columns of numbers, shape (n, k)."""
    with np.errstate(all="ignore"):
        value = factor.eval(coded.state, data)
    if coded.type == "categorical":
        codes = np.asarray(categorical_to_int(value, coded.categories, _RefuseMissing(formula), factor))
        if (codes < 0).any():
            raise not_finite(factor.shown, int((codes < 0).sum()), formula)
        return codes
    columns = np.asarray(value)
    if columns.dtype.kind not in "iuf":
        raise patsy.PatsyError(f"{factor.shown} gives {columns.dtype}, and gave numbers before", factor)
    columns = columns.astype(np.float64, copy=False)
    columns = columns.reshape(-1, 1) if columns.ndim < 2 else columns
    if columns.shape[1:] != (coded.num_columns,):
        raise patsy.PatsyError(f"{factor.shown} gives columns of shape {columns.shape}", factor)
    check_finite(columns, factor.shown, formula)
    return columns


@dataclass(frozen=True)
class FactorValues:
    """A factor of a term on the rows of a sample.

    Parameters
    ----------
    code : str
        The factor as the user wrote it.
    levels : tuple or None
        Levels of a categorical factor; None for numbers.
    values : ndarray
        Position of each row's level, shape (n,), or columns of numbers, shape (n, k).
    """

    code: str
    levels: tuple[Any, ...] | None
    values: np.ndarray


def factor_values(
    term: Any, formula: Formula, scope: Scope, rows: Mapping[str, pd.Series] | None = None
) -> list[FactorValues]:
    """Evaluate the factors of a term, before a contrast codes their levels.

    `rows` are the variables on other rows, with the levels that they have in the scope.
    """
    info, data = compile_terms([term], formula, scope), _aliased(scope.variables if rows is None else rows)
    found = []
    for factor in info.terms[0].factors:
        coded = info.factor_infos[factor]
        levels = tuple(coded.categories) if coded.type == "categorical" else None
        found.append(FactorValues(factor.shown, levels, _values(factor, coded, data, formula)))
    return found


def _aliased(variables: Mapping[str, pd.Series]) -> dict[str, pd.Series]:
    data = {}
    for i, values in enumerate(variables.values()):
        data[f"_column_{i}"] = values
        data[f"_float_{i}"] = values.astype(np.float64) if values.dtype.kind == "i" else values
    return data


@contextmanager
def in_words(formula: Formula, scope: Scope) -> Iterator[None]:
    """Context in which a formula is evaluated: what its functions and patsy raise becomes a DesignError."""
    try:
        with np.errstate(all="ignore"):
            yield
    except patsy.PatsyError as error:
        raise _failed(error, formula, scope) from error
    except CausalRiskError:
        raise
    except CANNOT as error:  # raised within a spline or a contrast
        raise _failed(patsy.PatsyError(f"{type(error).__name__}: {error}"), formula, scope) from error


def _failed(error: patsy.PatsyError, formula: Formula, scope: Scope) -> DesignError:
    names = list(scope.variables)
    message = re.sub(r"_(?:column|float)_(\d+)", lambda m: names[int(m.group(1))], error.message)
    message = re.sub(r"\bnp\.\w+\((.*?)\)", r"\1", message)  # NumPy's repr of a scalar
    code = "" if error.origin is None else error.origin.relevant_code()
    unseen = re.search(r"observation with value (.*) does not match any .*\(expected: .(.*).\)", message)
    if unseen:
        return DesignError(
            f"{code!r} in the {formula.model} formula {formula.text!r} has the level {unseen[1]}; expected {unseen[2]}."
            f"\nLeave out the rows with {unseen[1]}, or merge it with another level."
        )
    where = f" in {code!r}" if code else ""
    return DesignError(
        f"the {formula.model} formula {formula.text!r} cannot be evaluated{where}: {message}\n"
        "Arithmetic is inside `I(...)`; levels are typed as they are, `C(x, Treatment(1))` or `C(x, Treatment('1'))`."
    )


def linear_constraint(names: Sequence[str], text: str) -> tuple[np.ndarray, np.ndarray]:
    """Read linear constraints on named parameters, such as "POM[1] - POM[0] = 0".

    Parameters
    ----------
    names : sequence of str
        Names of the d parameters.
    text : str
        One or more constraints, separated by commas; "= 0" may be left out.

    Returns
    -------
    R : ndarray, shape (j, d)
        Coefficients.
    q : ndarray, shape (j,)
        Right-hand sides.
    """
    try:
        read = patsy.DesignInfo(list(names)).linear_constraint(text)
    except patsy.PatsyError as error:
        nonlinear = "in a linear constraint" in error.message
        advice = f"Use `res.nlcom({text!r})`." if nonlinear else f'Use `"{names[0]} = 0"` for example.'
        raise DesignError(
            f"cannot read the hypothesis {text!r}: {error.message}\nThe parameters are {', '.join(names)}. {advice}"
        ) from error
    return read.coefs, read.constants[:, 0]
