"""Formulas as Stata, R and other formula languages write them: recognised, with the notation used here."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable

import numpy as np

from causalrisk.errors import DesignError
from causalrisk.numerics.links import BINARY_LINKS

QUOTED = r"\"[^\"]*\"|'[^']*'"
STATA_FACTOR = r"(?:(?:ibn?\d*|io?\d*|c)\.)?[A-Za-z_]\w*"
STATA_LIST = rf"({STATA_FACTOR}(?:\s+{STATA_FACTOR})+)\s*(?:,\s*(\w+))?"  # variables, and a model after a comma
STATA_PRODUCT = rf"{STATA_FACTOR}(?:\s*##?\s*{STATA_FACTOR})+"
R_FACTORS = {"factor", "as_factor", "ordered"}
OTHER_FUNCTIONS = {
    "scale": "standardize({x})",
    "ns": "cr({x}, df=4, constraints='center')",
    "rcs": "cr({x}, df=4, constraints='center')",
    "s": "cr({x}, df=4, constraints='center')",
    "fe": "C({x})",
}


def refuse_foreign(text: str, model: str) -> None:
    """Refuse a formula in another language with the same formula in this one.

    Parameters
    ----------
    text : str
        The formula.
    model : {"outcome", "propensity"}
        The model it belongs to.

    Raises
    ------
    DesignError
        If it has Stata's ``##``, ``if`` or variables without ``+``; R's backticks, ``as.factor``, ``::``, ``.`` or
        ``^`` of a sum; or the braces of formulaic.
    """
    bare = re.sub(QUOTED, "", text)
    for found in (_stata(text, bare, model), _other(text, bare, model)):
        if found is not None:
            raise DesignError(f"the {model} formula {text!r} has {found}")


def _stata(text: str, bare: str, model: str) -> str | None:
    """Say what of Stata a formula has, and what to type."""
    if re.search(STATA_PRODUCT, bare):
        return f'Stata\'s # for interactions.\nType  "{from_stata(text)}".'
    chosen = re.fullmatch(r"(.*?)\s+if\s+(.+)", text)
    if chosen and " else " not in text:
        return f"Stata's if; rows are chosen in the data.\nType  data=data.query({chosen[2]!r})."
    words = re.fullmatch(rf"(?:(\w+)\s*~\s*)?{STATA_LIST}", text)
    return f"no + between its variables.\nType  {_from_list(words[1], words[2], words[3], model)}." if words else None


def _other(text: str, bare: str, model: str) -> str | None:
    """Say what of R or formulaic a formula has, and what to type."""
    if "`" in bare:
        typed = re.sub("`([^`]*)`", lambda m: m[1] if m[1].isidentifier() else f"Q('{m[1]}')", text)
        return f'backticks, which are R\'s; odd names stand inside Q(...) here.\nType  "{typed}".'
    if "{" in bare and not re.search(r"[:(,]\s*\{|\{[^}]*:", bare):
        typed = re.sub(r"\{([^}]*)\}", r"I(\1)", text)
        return f'braces; arithmetic stands inside I(...) here.\nType  "{typed}".'
    if re.search(r"\bas\.(factor|numeric|character)\(", bare):
        typed = re.sub(r"\bas\.(?:factor|character)\(", "C(", re.sub(r"\bas\.numeric\(", "1.0 * (", text))
        return f'a function of R.\nType  "{typed}".'
    if re.search(r"\boffset\(", bare):
        what = "an option here" if model == "outcome" else "one of the outcome model only"
        return f"R's offset(), which is {what}.\nType  {_offset_as_option(text, model)}."
    qualified = re.search(r"\b[\w.]+::(\w+)\(", bare)
    if qualified:
        here = called_elsewhere(qualified[1], text)
        return "a function of a package of R.\n" + (f"Type  {here}." if here else f"Define {qualified[1]} first.")
    if re.search(r"\([^()]*\+[^()]*\)\s*\^\s*\d", bare):
        typed = re.sub(r"\)\s*\^\s*(\d)", r")**\1", text)
        return f'R\'s ^ for interactions.\nType  "{typed}".'
    if re.search(r"[~+]\s*\.\s*($|[-+])", bare):
        left = text.split("~")[0].strip() if "~" in text else "y"
        return (
            "R's dot for all other columns; they are named here, so that nothing enters by accident.\n"
            f'Type  "{left} ~ " + " + ".join(data.columns.drop(["{left}", "<treatment>"]))  without what else is no '
            "covariate."
        )
    return None


def _offset_as_option(text: str, model: str) -> str:
    """Return a formula without its offset, and the option that takes its place."""
    start = text.index("offset(")
    end, depth = start + len("offset("), 1
    while end < len(text) and depth:
        depth += {"(": 1, ")": -1}.get(text[end], 0)
        end += 1
    inner, after = text[start + len("offset(") : end - 1].strip(), text[end:].strip()
    before = text[:start].rstrip().removesuffix("+").rstrip()
    alone = before in ("", "~") or before.endswith("~")
    rest = after.removeprefix("+").strip() if alone else after
    formula = f"{before} {rest or '1' * alone}".strip()
    if model == "propensity":
        return f'propensity="{formula}"'
    log = re.fullmatch(r"(?:np\.)?log\((\w+)\)", inner)
    option = f'offset="{inner}"' if inner.isidentifier() else f'offset=data.eval("{inner}")'
    return f'formula="{formula}", ' + (f'exposure="{log[1]}"' if log else option)


def from_stata(text: str) -> str:
    """Return a formula with Stata's factor variables and interactions as they are typed here.

    Parameters
    ----------
    text : str
        The formula.

    Returns
    -------
    str
        For example ``y ~ age + I(age**2)`` for ``y ~ c.age##c.age``.
    """
    text = re.sub(STATA_PRODUCT, lambda m: _product(m[0]), text)
    return re.sub(r"\b(ibn?\d*|io?\d*|c)\.([A-Za-z_]\w*)", lambda m: stata_factor(m[1], m[2]), text)


def _from_list(left: str | None, variables: str, option: str | None, model: str) -> str:
    """Translate Stata's list of variables; that of an outcome model without ~ begins with the outcome."""
    names = [from_stata(name) for name in variables.split()]
    if model == "outcome":
        outcome = left or names.pop(0)
        return f'"{outcome} ~ {" + ".join(names)}"'
    link = f', propensity_link="{option}"' if option in BINARY_LINKS else ""
    return f'propensity="{" + ".join(names)}"{link}'


def stata_factor(prefix: str, name: str) -> str:
    """Return a variable with its prefix, as in i.region, c.age or ib2.region, as a formula here has it."""
    if prefix == "c":
        return name
    base = re.search(r"\d+", prefix)
    return f"C({name}, Treatment({base[0]}))" if base else f"C({name})"


def _product(text: str) -> str:
    """Translate one interaction; a bare name in it is a factor to Stata."""
    full = "##" in text
    factors = [part.strip() for part in re.split("##?", text)]
    parts = [part.rpartition(".") for part in factors]
    powers: dict[str, int] = {}
    for prefix, _, name in parts:
        typed = stata_factor(prefix or "i", name)
        powers[typed] = powers.get(typed, 0) + 1
    terms = [_powers(typed, count, full) for typed, count in powers.items()]
    if len(terms) == 1:
        return terms[0]
    terms = [f"({term})" if " + " in term else term for term in terms]
    return ("*" if full else ":").join(terms)


def _powers(name: str, count: int, full: bool) -> str:
    if count == 1 or name.startswith("C("):
        return name
    powers = [f"I({name}**{k})" for k in range(2, count + 1)]
    return " + ".join([name, *powers]) if full else powers[-1]


def bitwise_or_and(code: str) -> str | None:
    """Return what to type for variables joined by ``|`` or ``&`` outside of any function, or None.

    Parameters
    ----------
    code : str
        A term of a formula.

    Returns
    -------
    str or None
        The advice; None where the term is something else, or joins comparisons, as in ``(a > 1) | (b > 2)``.
    """
    tree = ast.parse(code, mode="eval").body
    if not (isinstance(tree, ast.BinOp) and isinstance(tree.op, ast.BitOr | ast.BitAnd)):
        return None
    leaves = list(_leaves(tree))
    if isinstance(tree.left, ast.Constant):
        group = ast.unparse(tree.right)
        return (
            f"{code!r} is a random effect of other packages; there is none here.\nType  C({group})  for a constant of "
            f'each group, or leave it out and give  cluster="{group}"  for standard errors.'
        )
    if all(isinstance(leaf, ast.Compare) for leaf in leaves):
        return None
    sign, what = ("|", "or") if isinstance(tree.op, ast.BitOr) else ("&", "and")
    left, right = ast.unparse(tree.left), ast.unparse(tree.right)
    coded = right if right.startswith("C(") else f"C({right})"
    variable = coded.removeprefix("C(").removesuffix(")")
    instead = f"{left} + {coded}" if sign == "|" else f"{left}:{right}"
    meaning = f"for dummies of {variable} (fixed effects)" if sign == "|" else "for their interaction"
    return (
        f"{code!r} joins variables by {sign}, which in Python is the bitwise {what}.\nType  {instead}  {meaning}, or  "
        f"I({code})  if you mean that."
    )


def _leaves(node: ast.expr) -> Iterable[ast.expr]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr | ast.BitAnd):
        yield from _leaves(node.left)
        yield from _leaves(node.right)
    else:
        yield node


def called_elsewhere(name: str, text: str) -> str | None:
    """Return what to type for a function of R, Stata or NumPy without its prefix, or None.

    Parameters
    ----------
    name : str
        The function.
    text : str
        The formula that calls it.

    Returns
    -------
    str or None
        Such as ``C(race)`` for ``factor(race)``.
    """
    number_of = r"(?:,\s*(?:(?:degree|df|k|nk)\s*=\s*)?(\d+))?"
    found = re.search(rf"\b{re.escape(name)}\(\s*([^,()]+?)\s*{number_of}\s*[,)]", text)
    x = found[1] if found else "..."
    number = found[2] if found else None
    if isinstance(getattr(np, name, None), np.ufunc):
        return f"np.{name}({x})"
    if name == "poly":
        return " + ".join([x, *(f"I({x}**{k})" for k in range(2, int(number or 2) + 1))])
    if name in ("ifelse", "interaction", "cut", "relevel", "cbind"):
        return _by_arguments(name, text)
    if name in R_FACTORS:
        return f"C({x})"
    if name in OTHER_FUNCTIONS:
        typed = OTHER_FUNCTIONS[name].format(x=x)
        return typed.replace("df=4", f"df={number}") if number else typed
    return None


def _by_arguments(name: str, text: str) -> str | None:
    """Translate a function of R by the arguments of its first call, if they are plain."""
    found = re.search(rf"\b{name}\(([^()]*)\)", text)
    arguments = [part.strip() for part in found[1].split(",")] if found else []
    if name == "ifelse" and len(arguments) == 3:
        return f"np.where({', '.join(arguments)})"
    if name == "interaction" and len(arguments) == 2:
        return ":".join(f"C({argument})" for argument in arguments)
    if name == "relevel" and len(arguments) == 2:
        return f"C({arguments[0]}, Treatment({arguments[1].partition('=')[2].strip() or arguments[1]}))"
    if name == "cbind" and len(arguments) == 2:
        yes, no = arguments
        return f'I({yes} / ({yes} + {no}))  with  weights=data["{yes}"] + data["{no}"], weight_type="frequency"'
    if name == "cut" and len(arguments) == 2:
        return f"C(pd.cut({arguments[0]}, {arguments[1]}))"
    return None
