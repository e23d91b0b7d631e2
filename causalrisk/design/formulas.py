"""Formulas: split them into terms, look up their names, and evaluate them with patsy.

Formulas in the syntax of R or Stata raise an error that says what to write instead.
"""

from __future__ import annotations

import ast
import builtins
import functools
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from keyword import iskeyword
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import patsy.builtins
from patsy.parse_formula import parse_formula

from causalrisk.design.tables import align, as_table, column_of, gather, in_index, is_column, listing, nearest
from causalrisk.design.treatment import show
from causalrisk.errors import CausalRiskError, DesignError, OptionError
from causalrisk.errors.aliases import LATE, SURVIVAL, near

# --- formulas as R and Stata write them ------------------------------------------------------------------------------

QUOTED = r"\"[^\"]*\"|'[^']*'"
NAME = r"([A-Za-z_]\w*)"

HABITS: tuple[tuple[str, str], ...] = (  # a pattern, and the advice for it with the groups \1, ...
    (r"^\s*(?:teffects\s+\w+\s*)?\([^()~]*\)\s*\([^()~]*\)", 'Give the second formula as `propensity="x1 + x2"`.'),
    (r"#", "Stata's `i.g##c.x` is `C(g)*x`, `i.g#c.x` is `C(g):x`, `c.x##c.x` is `x + I(x**2)`. Leave comments out."),
    (rf"\bi?b(\d+)\.{NAME}", r"Stata's `ib\1.\2` is `C(\2, Treatment(\1))`."),
    (rf"\b(?:ibn?|io?|c)\.(?:\(\s*)?{NAME}\b(?!\()", r"Stata's `i.\1` is `C(\1)`, and `c.\1` is `\1`."),
    (rf"(?<![\w.])(\d+)\.(?!e\d){NAME}", r"Stata's `\1.\2` is `I(\2 == \1)`."),
    (rf"\b[LFDS]\d*\.{NAME}\b(?!\()", r'Make a column of lags: `data.groupby("unit")["\1"].shift(1)`.'),
    (r"\bxi\s*:", "Leave out Stata's `xi:`; factors are `C(x)`."),
    (r"\[\s*[fpai]w(?:eight)?\s*=\s*(\w*)", r'Weights are options: `weights="\1"` with `weight_type=`.'),
    (r"^(?!.*\selse\s).*?\sif\s+([^,]+)", r'Choose rows in the data: `data.query("\1")`.'),
    (r"^(?!.*\b(in|and|or|not|is|for)\b)(\w+\s*~\s*)?\w+(\s+\w+)+\s*(,.*)?$", "Join terms with `+`: `y ~ x1 + x2`."),
    (
        r"(?:^|[~+*:])\s*(?!not\b|lambda\b)(\w+) (?!(?:in|is|and|or|not|if|else|for)\b)(\w+)\s*(?=$|[~+*:])",
        r"Write `\1 + \2` for two columns, or `Q('\1 \2')` for one with a blank in its name.",
    ),
    (r"\bbs\(\s*(\w+)\s*(?:,\s*degree\s*=\s*\d\s*)?\)", r"Splines need degrees of freedom: `bs(\1, df=3)`, as in R."),
    (r"\b(cr|cc)\(\s*(\w+)\s*\)", r"Splines need degrees of freedom: `\1(\2, df=4, constraints='center')`."),
    (r"\bte\(\s*\w+\s*[,)]", "Products of splines are `te(cr(x, df=4), cr(z, df=4), constraints='center')`."),
    (rf"(?:^|[~+])\s*{NAME}\s*&\s*{NAME}\s*(?:$|\+)", r"An interaction is `\1:\2`."),
    ("`", "R's backticks are `Q('odd name')`."),
    (r"^(?!.*[:(,]\s*\{)(?!.*\{[^}]*:).*\{", "Write arithmetic inside `I(...)`."),
    (r"^\s*(?:as\.)?(?:factor|ordered)\(\s*(\w+)\s*\)\s*~", r"The outcome must be a number: `\1 ~ ...`."),
    (r"\bas\.\w+\(\s*(\w+)", r"R's `as.factor(\1)` is `C(\1)`, and `as.numeric(\1)` is `1.0 * \1`."),
    (r"\bcontr\.(\w+)", r"R's contrasts are `C(x, Treatment)`, `C(x, Sum)`, `C(x, Helmert)` and `C(x, Poly)`."),
    (r"\boffset\((?:(?:np\.)?log\()?\s*(\w+)", r'Use the option `offset="\1"`, or `exposure="\1"` for `log(\1)`.'),
    (r"\b[\w.]+::(\w+)\(", r"Leave out the package: `\1(...)`."),
    (r"\w\s*:\s*[01](?![\w.])", "A product with a number is not a term. Leave the number out."),
    (rf"(?:^|[~+])\s*{NAME}\s*([*/])\s*(\d[\d.]*)\s*(?:$|[~+])", r"Write arithmetic as `I(\1 \2 \3)`."),
    (r"\)\s*\^\s*(\d)", r"R's `^\1` is `**\1`."),
    (rf"\bI\(\s*{NAME}\s*=(?!=)", r"Write equality as `==`: `I(\1 == ...)`."),
    (rf"\b{NAME}\s*\^\s*(\d+)", r"Powers are `I(\1**\2)`."),
    (r"(?:^|[~+])\s*\.\s*($|[-+])", 'Name the columns: `" + ".join(data.columns.drop(["<y>", "<d>"]))`.'),
    (r"(\w+)\s*%in%", r"R's `%in%` is `I(\1.isin([...]))`."),
    (r"(?<![\w.])c\([-\d.,\s]*\)", "R's `c(1, 2)` is the list `[1, 2]`."),
    (
        rf"\b(?:C|relevel)\(\s*(\w+)\s*,\s*(?:ref|reference|base|baseline)\s*=\s*({QUOTED}|\w*)",
        r"The base level is `C(\1, Treatment(\2))`.",
    ),
    (r"[<>]\s*[\w.]+\s*[&|]\s*\w+\s*[<>]|==\s*[\w.]+\s*[&|]", "Use parentheses: `I((x > 1) & (z < 2))`."),
    (
        r"\(\s*[01]\s*\|\s*(\w+)\s*\)",
        r'Random effects are not available. Use `C(\1)`, or `cluster="\1"` for standard errors.',
    ),
    (r"\w\s*\|\s*(\w+)[\s\w+]*$", rf'Fixed effects: `C(\1)`. Clusters: `cluster="\1"`. Instruments: `{LATE}`.'),
    (r"\w\$(\w+)", r"Name the column alone: `\1`."),
    ("[\u223c\u02dc\uff5e]", "Use the `~` of the keyboard instead of the similar character."),
    (r"^\s*\w+\s*=(?!=)[^~]*$", "Use `~` between the outcome and the covariates, not `=`."),
    (
        r"^((?:[^,()\[\]]|\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)|\[[^\]]*\])+),",
        r'Options are not part of the formula. Use `"\1"`.',
    ),
)

FUNCTIONS = {  # functions of R and Stata by their names; x is the first argument, df the number after it
    "factor as_factor ordered fe": "C({x})",
    "ln log exp sqrt abs log10 log2 log1p": "np.{name}({x})",
    "ns rcs s": "cr({x}, df={df}, constraints='center')",
    "poly": "{powers}",
    "ifelse": "np.where(condition, 1, 0)",
    "interaction": "C(a):C(b)",
    "cut": "C(pd.cut({x}, {number}))",
    "lag": 'data["new"] = data.groupby("unit")["{x}"].shift(1)',
    "diff": 'data["new"] = data.groupby("unit")["{x}"].diff()',
    "relevel": "C({x}, Treatment(level))",
    "cbind": 'I(successes / trials)` with `weights=` the trials and `weight_type="frequency"',
}


def refuse_foreign(text: str, model: str, roles: tuple[str, str] = ("y", "d")) -> None:
    """Raise a DesignError for a formula in the syntax of R or Stata. `roles` are the names of outcome and treatment."""
    bare = re.sub(QUOTED, "", text)
    for pattern, sentence in HABITS:
        where = text if QUOTED in pattern else bare
        found = list(dict.fromkeys(match.expand(sentence) for match in re.finditer(pattern, where)))
        if found:
            advice = " ".join(found[:5]).replace("<y>", roles[0]).replace("<d>", roles[1])
            raise DesignError(f"the {model} formula {text!r} cannot be read.\n{advice}")


def function_here(name: str, text: str) -> str:
    """Return what to write for a function of R or Stata, or of NumPy without ``np.``. Empty for other functions."""
    found = re.search(rf"\b{re.escape(name)}\(\s*([\w.]+)(?:\s*,\s*(?:df|degree)?\s*=?\s*(\d+))?", text)
    x, number = (found[1], int(found[2] or 0)) if found else ("x", 0)
    df = (number - 1 if name == "rcs" else number) or 4  # R's rcs counts knots
    powers = " + ".join([x, *(f"I({x}**{k})" for k in range(2, (number or 2) + 1))])
    typed = next((typed for names, typed in FUNCTIONS.items() if name in names.split()), "")
    return typed.format(x=x, df=df, powers=powers, number=number or "bins", name={"ln": "log"}.get(name, name))


# --- names in a term -------------------------------------------------------------------------------------------------


PATSY_FUNCTIONS = {name: getattr(patsy.builtins, name) for name in patsy.builtins.__all__}
STATE = "__patsy_stateful_transform__"  # attribute of stateful transforms, which need all rows
CANNOT = (ArithmeticError, AttributeError, LookupError, NotImplementedError, TypeError, ValueError)
OPTIONS = {"observation": "observed"}  # options whose name differs from the model's
PARSER = threading.RLock()  # Python 3.11 may fail to parse in two threads at once (recursion depth mismatch)
AS_THEY_ARE = patsy.NAAction("raise", [])  # missing and infinite values have their own errors here


def callers_variables(depth: int) -> Any:
    """Return ``np`` and the variables of the caller, `depth` calls above the calling function, for use in formulas."""
    return patsy.EvalEnvironment.capture(depth + 1).with_outer_namespace({"np": np}).namespace


def parsed(code: str) -> ast.Expression:
    """Parse an expression, one thread at a time."""
    with PARSER:
        return ast.parse(code, mode="eval")


class Use(NamedTuple):
    """A name in a term, its role, and whether it is a variable in the first argument of ``C(...)``.

    Roles: "called" (``f(...)``), "quoted" (``Q("...")``), "base" (before a dot), "option" (value of a keyword, or a
    further argument of ``C``), "term" (the whole term), "plain" (anywhere else).
    """

    name: str
    role: str
    coded: bool = False


@functools.lru_cache(maxsize=1000)  # one fit asks a dozen times
def uses(code: str) -> tuple[Use, ...]:
    """List the names that a term uses, in order, without names that it binds itself."""
    return tuple(use for _, use in _named(code))


def renamed(code: str, names: Mapping[str, str]) -> str:
    """Return a term with its variables renamed. `names` maps old names to new names."""
    text = code.encode()  # positions in the tree count bytes
    for node, use in reversed(_named(code)):
        if use.role != "called" and use.name in names:
            text = text[: node.col_offset] + names[use.name].encode() + text[node.end_col_offset :]
    return text.decode()


def _named(code: str) -> list[tuple[Any, Use]]:
    """List the nodes of a term that use a name, in order, and their uses."""
    tree = parsed(code)
    nodes: list[Any] = list(ast.walk(tree))
    bound = {n.arg for n in nodes if isinstance(n, ast.arg)}
    bound |= {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    roles, found, coded = {tree.body: "term"}, list[tuple[Any, Use]](), set[Any]()
    for node in nodes:  # parents before children
        if isinstance(node, ast.Attribute):
            roles[node.value] = "base"
        elif isinstance(node, ast.Call):
            roles[node.func] = "called"
            options = [keyword.value for keyword in node.keywords]
            if _function(node) == "C":
                coded |= {inside for first in node.args[:1] for inside in ast.walk(first)}
                options += node.args[1:]
            roles |= dict.fromkeys(options, "option")
            if _function(node) == "Q":
                name = node.args[0].value if len(node.args) == 1 and isinstance(node.args[0], ast.Constant) else None
                if not isinstance(name, str):
                    raise DesignError(f'{ast.unparse(node)!r} does not quote a name.\nUse `Q("name of the column")`.')
                found.append((node, Use(name, "quoted", node in coded)))
        elif isinstance(node, ast.Name) and node.id not in bound:
            role = roles.get(node, "plain")
            found.append((node, Use(node.id, role, node in coded and role != "called")))
    return sorted(found, key=lambda each: each[0].col_offset)


def whole_variable(code: str) -> str | None:
    """Return the variable if it is the whole factor: x for ``x``, ``Q("x")`` and ``C(x)``. None for other factors."""
    node: Any = parsed(code).body
    if _function(node) == "C" and node.args:
        node = node.args[0]
    if _function(node) == "Q":
        return str(node.args[0].value)
    return node.id if isinstance(node, ast.Name) else None


def _function(node: Any) -> str:
    return node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""


def in_formula(name: str) -> str:
    """Return a column's name as written in a formula: ``age``, ``Q("mother's age")``."""
    return name if name.isidentifier() and not iskeyword(name) else f"Q({show(name)})"


def typed_name(name: str) -> str:
    """Return a column's name in single quotes, inside ``Q(...)`` if it is not an identifier."""
    return repr(name) if in_formula(name) == name else f"Q({name!r})"


def quotes_needed(names: Iterable[str], text: str) -> str:
    """Return advice on names of columns that need ``Q(...)`` but are used in formulas without it."""
    bare = re.sub(QUOTED, "", text)
    words = (name for name in names if in_formula(name) != name and re.search(r"[^\W\d_]", name))
    odd = [typed_name(name) for name in words if re.search(rf"(?<!\w){re.escape(name.strip())}(?!\w)", bare)]
    if not odd or "`" in text:
        return ""
    return f"Names with spaces or symbols, and Python keywords, need Q(...). Use `{'`, `'.join(odd)}`."


# --- formulas --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Formula:
    """A formula of a model, split into terms, with normalised white space. `left` is empty for one-sided formulas."""

    model: str
    text: str
    left: tuple[Any, ...]
    right: tuple[Any, ...]

    def __reduce__(self) -> tuple[Any, ...]:
        return parse, (self.text, self.model, [])  # patsy's terms do not pickle

    def codes(self, *sides: str) -> list[str]:
        """List the factors of the terms on the given sides (by default "left" and "right"), as typed."""
        terms = [term for side in sides or ("left", "right") for term in getattr(self, side)]
        return list(dict.fromkeys(factor.code for term in terms for factor in term.factors))

    def uses(self, *sides: str) -> list[Use]:
        """List the names used on the given sides, in order, once per role."""
        return list(dict.fromkeys(use for code in self.codes(*sides) for use in uses(code)))

    def coded(self, side: str = "right") -> set[str]:
        """Names of the variables on a side that are inside ``C(...)``."""
        return {use.name for use in self.uses(side) if use.coded}

    @property
    def outcome_name(self) -> str:
        """Name of the left-hand side. For ``Q("a name")``, it is the quoted name."""
        name = str(self.left[0].name())
        quoted_name = re.fullmatch(r"""Q\((['"])(.*)\1\)""", name)
        return quoted_name[2] if quoted_name else name

    @property
    def right_text(self) -> str:
        """Text of the right-hand side."""
        return self.text.split("~", 1)[-1].strip()


ARITHMETIC = ("+", "-", "*", "/", ":", "**")  # what patsy reads as operations on terms


def parse(text: str, model: str, notes: list[str], roles: tuple[str, str] = ("y", "d")) -> Formula:
    """Split a formula into terms, without looking up its variables. Terms that are probably a mistake add `notes`."""
    typed = '"y ~ {}"' if model == "outcome" else OPTIONS.get(model, model) + '="{}"'
    if not isinstance(text, str):
        if hasattr(text, "predict_proba") or (model == "propensity" and hasattr(text, "__array__")):
            typed = "propensity_score="
        found = f"the {model} formula is of type {type(text).__name__}; expected text."
        raise OptionError(f"{found}\nUse `{typed.format('x1 + x2')}`.")
    text = re.sub(r"(\"[^\"]*\"|'[^']*')|\s+", lambda m: m.group(1) or " ", text).strip()
    refuse_foreign(text, model, roles)
    try:
        tree = parse_formula(text if text.split("~", 1)[-1].strip() else f"{text} 0")
        terms = patsy.ModelDesc.from_formula(tree)
        formula = Formula(model, text, tuple(terms.lhs_termlist), tuple(terms.rhs_termlist))
        formula.uses()
    except (patsy.PatsyError, SyntaxError, RecursionError, MemoryError, AssertionError) as error:
        why = getattr(error, "message", getattr(error, "msg", error))  # of patsy or Python
        why = str(why).rstrip(".") or "a term begins with an operator"
        advice = 'Join terms with `+`. Write arithmetic inside `I(...)`, and an odd name as `Q("odd name")`.'
        if (end := re.search(r"[-+*:/]+$", text)) is not None:
            why, advice = f"it ends in `{end[0]}`", f"Leave `{end[0]}` out, or add a term."
        found = f"the {model} formula {text!r} cannot be read: {why}."
        raise DesignError(f"{found}\n{advice}") from error
    left = tree.args[0] if len(tree.args) == 2 else None
    if left is not None and left.type in ARITHMETIC:
        what, right = text.split("~", 1)
        found = f"the {model} formula {text!r} has arithmetic on its left-hand side, outside I()"
        raise DesignError(f"{found}.\nUse `I({what.strip()}) ~ {right.strip()}`.")
    if not formula.right:
        found = f"the {model} formula {text!r} has an empty right-hand side; expected at least one term"
        raise DesignError(f"{found}.\nFor a model with only a constant, use `{typed.format(1)}`.")
    notes += [note for note in dict.fromkeys(_powers(tree, formula)) if note not in notes]
    return formula


def right_side(text: Any, model: str, notes: list[str]) -> Formula:
    """Parse a one-sided formula. Raise a DesignError if it has a left-hand side."""
    formula = parse(text, model, notes)
    if formula.left:
        raise DesignError(f"the {model} formula {formula.text!r} has a left-hand side.\nUse `{formula.right_text!r}`.")
    return formula


def _powers(node: Any, formula: Formula) -> Iterator[str]:
    """Yield a note for each ``x**2`` or ``x*x``, which patsy reads as x alone."""
    names = [_typed(arg) for arg in node.args]
    itself = node.type in ("*", ":") and names == names[:1] * 2
    if (node.type == "**" or itself) and node.args[0].type == "PYTHON_EXPR" and not names[0].startswith("C("):
        power = "2" if itself else names[1]
        yield (
            f"{names[0]}{node.type}{names[0] if itself else power} in the {formula.model} formula {formula.text!r} "
            f"means just {names[0]}: outside I(), {node.type} builds interactions. For the power use "
            f"`I({names[0]}**{power})`."
        )
    for child in node.args:
        yield from _powers(child, formula)


def _typed(node: Any) -> str:
    known = node.type == "PYTHON_EXPR" or not node.origin
    return str(node.token.extra if known else node.origin.relevant_code().rpartition("~")[2].strip())


# --- what names mean -------------------------------------------------------------------------------------------------


RESERVED = ("C", "I", "Q")  # the formula language itself; other functions may be replaced by the caller's own


class Scope(NamedTuple):
    """The names in a formula. Variables have one value per row. Functions, modules and anything else are constants."""

    variables: Mapping[str, pd.Series]
    constants: Mapping[str, Any]


def collect(data: Any, frame: Mapping[str, Any], formulas: Sequence[Formula], notes: list[str]) -> pd.DataFrame:
    """Return the columns of the data, and the caller's arrays with one value per row that formulas use."""
    table, roles = None if data is None else as_table(data, notes), dict[str, set[str]]()
    for name, role, _ in (use for formula in formulas for use in formula.uses()):
        if is_column(frame.get(name)) and (table is None or name not in table) and role != "called":
            roles.setdefault(name, set()).add(role)
    if table is None:  # values of keywords (knots=, levels=) are left out, because they may have another length
        table = gather({name: frame[name] for name, found in roles.items() if found != {"option"}}, notes)
    extra = {
        name: align(frame[name], table.index, f"variable {name!r}", notes)
        for name, found in roles.items()
        if name not in table and (len(frame[name]) == len(table.index) or "term" in found)
    }
    return table.assign(**extra) if extra else table


def resolve(formula: Formula, table: pd.DataFrame, frame: Mapping[str, Any], *sides: str) -> Scope:
    """Look up each name on the given sides, among the table's variables and the caller's functions and constants."""
    variables, constants, others = dict[str, pd.Series](), dict[str, Any](), set[str]()
    for name, role, _ in formula.uses(*sides):
        value, known = frame.get(name), name in PATSY_FUNCTIONS or hasattr(builtins, name)
        # a function of the caller replaces patsy's of the same name; a class or a module does not
        replaces = isinstance(value, FunctionType | BuiltinFunctionType) or hasattr(value, STATE)
        if role == "called":
            own = callable(value) and name not in RESERVED and (name not in PATSY_FUNCTIONS or replaces)
        elif role == "option" and name in PATSY_FUNCTIONS:
            own = False
        elif name in table and not (role == "base" and isinstance(value, ModuleType)):
            variables[name] = column_of(table, name)
            continue
        else:
            by_rows = role in ("quoted", "term")
            own, known = name in frame and not by_rows, known and not by_rows
        if not own and not known:
            raise _unknown(name, role=role, formula=formula, table=table, frame=frame)
        others.add(name)
        if own:
            constants[name] = value
    for name in sorted(others & variables.keys()):
        found = f"the {formula.model} formula {formula.text!r} uses {name!r} as a column and as a function"
        typed = f"`data.rename(columns={{{name!r}: {name + '_1'!r}}})`, and the new name in the formula"
        raise DesignError(f"{found}.\nUse {typed}.")
    return Scope(variables, constants)


def _unknown(name: str, role: str, formula: Formula, table: pd.DataFrame, frame: Mapping[str, Any]) -> DesignError:
    start = f"the {formula.model} formula {formula.text!r} uses"
    if role == "called":
        typed = function_here(name, formula.text)
        advice = f"Use `{typed}`." if typed else SURVIVAL if name == "Surv" else near(name, PATSY_FUNCTIONS)
        advice = advice or f"Define or import {name} first."
        return DesignError(f"{start} the function {name!r}, which is not defined.\n{advice}")
    there = f"Define {name!r} in your code, or use `data=` with a data frame that has it."
    if not all(column in frame for column in table.columns):
        word = re.search(rf"\b{re.escape(name)}[\w.]*", formula.text) if role == "base" else None  # R has x.1 for "x 1"
        quotes = f"Text is in quotes: `{name!r}`." * bool(re.search(rf"[=!]= *{re.escape(name)}\b", formula.text))
        there = in_index(table, name) or quotes or nearest(word.group() if word else name, table.columns, typed_name)
    return DesignError(f"{start} {name!r}, which is neither a column of the data nor an array in your code.\n{there}")


# --- evaluation ------------------------------------------------------------------------------------------------------


PRODUCT = r"\*|\b(mul|multiply|pow|power|square|prod|cumprod)\("  # operations that may overflow integers


class _Factor(patsy.EvalFactor):
    """Factor of a patsy term that avoids integer overflow, codes levels without a loop, and stores the levels."""

    def __init__(self, shown: Any, formula: Formula) -> None:
        super().__init__(shown.code, shown.origin)
        self.formula = formula
        self.floats = re.search(PRODUCT, shown.code) and not any(use.coded for use in uses(shown.code))

    def name(self) -> str:
        return "Q('Intercept')" if self.code == "Intercept" else str(self.code)  # patsy has its own Intercept

    def memorize_passes_needed(self, state: Any, eval_env: Any) -> Any:
        """As in patsy, but an outcome ``I(a - b)`` subtracts True and False as 1 and 0."""
        body: Any = parsed(self.code).body
        change = _function(body) == "I" and any(isinstance(getattr(one, "op", None), ast.Sub) for one in body.args)
        needed = super().memorize_passes_needed(state, eval_env)
        if change and self.code in self.formula.codes("left"):
            state["eval_code"] = re.sub(r"^I\s*\(", "I(1 * ", state["eval_code"])
        return needed

    def memorize_chunk(self, state: Any, which_pass: int, data: Any) -> None:
        super().memorize_chunk(state, which_pass, self._numbers(data))

    def eval(self, state: Any, data: Any) -> Any:
        """Evaluate the factor. Values other than numbers become Categorical, because patsy would loop over rows."""
        value = super().eval(state, self._numbers(data))
        boxed = hasattr(value, "contrast")  # C(...)
        values = value.data if boxed else value
        values = values if hasattr(values, "dtype") else np.asarray(values)
        rows, size = [len(column) for column in dict(data).values()], len(values) if values.ndim else 1
        if not values.ndim or size != max(rows, default=size):
            where = f"{self.code!r} of the {self.formula.model} formula has length {size}; expected one value per row"
            raise DesignError(f"{where}.\nUse functions that return one value per row.")
        if values.dtype.kind in "cm":
            raise DesignError(f"{self.code!r} has the dtype {values.dtype}; expected numbers.\nConvert it to float.")
        if not boxed and values.dtype.kind in "iuf":
            return np.asarray(values)
        codes, distinct = pd.factorize(values, sort=True)
        first = "levels" not in state  # the first evaluation is on the sample
        if first:
            every = [False, True] if distinct.dtype == bool else getattr(distinct.dtype, "categories", distinct)
            levels = every if not boxed or value.levels is None else value.levels
            state["levels"] = pd.CategoricalDtype(pd.Index(levels, dtype=object, tupleize_cols=False))
        levels = state["levels"].categories
        places = levels.get_indexer(pd.Index(distinct, dtype=object, tupleize_cols=False))
        check_finite(codes >= 0, self.code, self.formula)
        if (places < 0).any():
            unseen = listing(np.asarray(distinct, dtype=object)[places < 0][:1])
            where = f"{self.code!r} in the {self.formula.model} formula {self.formula.text!r}"
            raise DesignError(f"{where} has the level {unseen}; expected {listing(levels)}.\nLeave out these rows.")
        coded = pd.Categorical.from_codes(places[codes], dtype=state["levels"])
        return patsy.builtins.C(coded, value.contrast) if boxed and first else coded

    def _numbers(self, data: Any) -> Any:
        if not self.floats:
            return data
        names = {use.name for use in uses(self.code)} & set(data)
        return {**data, **{name: data[name].astype(float) for name in names if data[name].dtype.kind == "i"}}


def compile_terms(terms: Iterable[Any], formula: Formula, scope: Scope) -> patsy.DesignInfo:
    """Return the DesignInfo of the terms. Stateful transforms are fitted to the variables of the scope."""
    env = patsy.EvalEnvironment([dict(scope.constants)])
    factors = [patsy.Term([_Factor(factor, formula) for factor in term.factors]) for term in terms]
    with as_design_error(formula), PARSER:
        return patsy.design_matrix_builders([factors], lambda: iter([scope.variables]), env, AS_THEY_ARE)[0]


def evaluate(info: patsy.DesignInfo, formula: Formula, variables: Mapping[str, pd.Series], n: int) -> np.ndarray:
    """Make the C-contiguous design matrix (n, p) of rows of the estimation sample or of new data."""
    data: Any = variables or pd.DataFrame(index=range(n))
    with as_design_error(formula):
        matrix = np.asarray(patsy.build_design_matrices([info], data, AS_THEY_ARE)[0])
    for term, columns in info.term_slices.items():
        check_finite(np.isfinite(matrix[:, columns]).all(axis=1), term.name(), formula)
    return matrix


def check_finite(finite: np.ndarray, term: str, formula: Formula) -> None:
    """Raise a DesignError unless a term is finite in every row. The mask `finite` marks the rows in which it is."""
    if not finite.all():
        where = f"term {term!r} of the {formula.model} formula {formula.text!r}"
        found = f"{where} is NaN or infinite in {int((~finite).sum())} rows"
        raise DesignError(f"{found}.\nChange the term, or leave these rows out.")


@contextmanager
def as_design_error(formula: Formula) -> Iterator[None]:
    """Turn errors of patsy, and of functions in a formula, into a DesignError."""
    try:
        with np.errstate(all="ignore"):
            yield
    except CausalRiskError:
        raise
    except (patsy.PatsyError, *CANNOT) as error:  # CANNOT: raised inside splines and contrasts
        message, origin = getattr(error, "message", f"{type(error).__name__}: {error}"), getattr(error, "origin", None)
        where = "" if origin is None else f" in {origin.relevant_code()!r}"
        message = message.removeprefix("Error evaluating factor: ")
        if "outermost knots" in message:
            problem = f"values are outside the knots of the spline{where}"
            raise DesignError(f"{problem}.\nUse values in the range of the sample, or `cr(x, df=4)`.") from error
        found = f"the {formula.model} formula {formula.text!r} cannot be evaluated{where}: {message}"
        levels = " A numeric level is `Treatment(1)`, a text level `Treatment('1')`." * ("Treatment" in formula.text)
        raise DesignError(f"{found}\nCheck the term, and write arithmetic inside `I(...)`.{levels}") from error


def stateful_function(formula: Formula, constants: Mapping[str, Any]) -> str | None:
    """Return the name of the first stateful transform in a formula, such as a spline, or None if there is none."""
    functions = {**PATSY_FUNCTIONS, **constants}
    called = (use.name for use in formula.uses() if use.role == "called")
    return next((name for name in called if hasattr(functions.get(name), STATE)), None)


# --- hypotheses ------------------------------------------------------------------------------------------------------


def linear_constraint(names: Sequence[str], text: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the coefficients (j, d) and right-hand sides (j,) of constraints such as "POM[1] - POM[0] = 0"."""
    try:
        read = patsy.DesignInfo(list(names)).linear_constraint(text)
    except (patsy.PatsyError, IndexError) as error:
        why = getattr(error, "message", "it is empty")
        nonlinear = "in a linear constraint" in why
        advice = f"Use `res.nlcom({text!r})`." if nonlinear else f'Use `"{names[-1]} = {names[-2]}"` for example.'
        found = f"cannot read the hypothesis {text!r}: {why}"
        raise DesignError(f"{found}\nThe parameters are {', '.join(names)}. {advice}") from error
    return read.coefs, read.constants[:, 0]
