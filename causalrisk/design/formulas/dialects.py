"""Formulas as R, Stata and other formula languages write them: recognised, with the notation used here."""

from __future__ import annotations

import ast
import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from causalrisk.errors import DesignError, words
from causalrisk.numerics.families import BINARY_LINKS, family_meant

PARSER = threading.Lock()  # Python 3.11 may fail to parse in two threads at once (recursion depth mismatch)


def parsed(code: str) -> ast.Expression:
    """Parse an expression, one thread at a time."""
    with PARSER:
        return ast.parse(code, mode="eval")


FACTOR = r"(?:(?:ibn?\d*|io?\d*|c)\.)?[A-Za-z_]\w*"
VARIABLES = rf"{FACTOR}(?:\s+{FACTOR})+"
GROUP = rf"(?<!\w)(?:(?:ibn?\d*|io?\d*|c)\.)\(\s*{FACTOR}(?:\s+{FACTOR})*\s*\)"  # as in c.(age weight)
OPERAND = rf"(?:{GROUP}|\(\s*{FACTOR}(?:[\s+]+{FACTOR})*\s*\)|{FACTOR})"
PRODUCT = rf"{OPERAND}(?:\s*##?\s*{OPERAND})+"
LIST = rf"(?:(\w+)\s*~\s*)?({VARIABLES})\s*(?:,\s*(\w+))?"  # outcome, variables, and a model after a comma
IF = r"(.*?)\s+if\s+([^,]+)(?:,.*)?"
XI = r"\bxi\s*:\s*(?=i\w*\.|\w+\s*~)"
LEVEL = r"(?<![\w.])(\d+)\.(?!e\d)([A-Za-z_]\w*)"  # as in 1.mmarried, an indicator
WEIGHTS = r"\s*\[\s*([fpai])w(?:eight)?\s*=\s*([^\]]+?)\s*\]"
TEFFECTS = r"(?:teffects\s+\w+\s*)?\(([^()]+)\)\s*\(([^()]+)\)\s*(?:,.*)?"
TREATMENT = rf"\(?\s*({VARIABLES})\s*(?:,\s*(\w+))?\s*\)?"  # of teffects: the treatment and its covariates
QUOTED = r"\"[^\"]*\"|'[^']*'"
BEFORE_COMMA = r"^((?:[^,()\[\]]|\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)|\[[^\]]*\])+),(.*)$"
STATA_OPTIONS = {"robust", "r", "noconstant", "nocons", "nolog", "atet", "ate", "pomeans", "aequations", "level"}
DEFAULT_KNOTS = {"rcs": 5}  # of functions that are given knots, one more than columns
COMPARISON = r"[A-Za-z_]\w*\s*(?:[<>]=?|[=!]=)\s*[\w.]+"
COMPARISONS = rf"{COMPARISON}(?:\s*[&|]\s*{COMPARISON})+"
COMMENT = r"^([^#.]*\w)\s+#\s+((?!\w*\.\w)[A-Za-z][^#]*)$"
BY_NUMBER = r"^(?:[^()\[\]{}]|\([^()]*\))*\w\s*:\s*[01](?![\w.])"  # outside of brackets, as in x:0 or "Unnamed: 0"
R_VECTOR = r"(?<![\w.])c\(([-\d.,\s]*)\)"  # of numbers, or of text that is taken out
BASE = r"\bC\(\s*(\w+)\s*,\s*(?:ref|reference|base|baseline)\s*=\s*([^,()]*)\)"


def stata_formula(text: str) -> str:
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
    text = re.sub(PRODUCT, lambda m: _product(m[0]), _with_plus(re.sub(XI, "", text)))
    text = re.sub(GROUP, lambda m: _operand(m[0])[1:-1], text)
    text = re.sub(r"\b(ibn?\d*|io?\d*|c)\.([A-Za-z_]\w*)", lambda m: stata_factor(m[1], m[2]), text)
    return re.sub(LEVEL, r"I(\2 == \1)", text)


def _with_plus(text: str) -> str:
    """Put + between variables that stand side by side, outside of parentheses and before if, options and weights."""
    head, *rest = re.split(r"(\s+if\s|,|\[)", text, maxsplit=1)
    inside = re.sub(r"\([^()]*\)", lambda m: m[0].replace(" ", "\0"), head)
    return re.sub(r"(?<=[\w)])\s+(?=[\w(])", " + ", inside).replace("\0", " ") + "".join(rest)


def stata_factor(prefix: str, name: str) -> str:
    """Return a variable with its prefix, as in i.region, c.age or ib2.region, as a formula here has it."""
    if prefix == "c":
        return name
    base = re.search(r"\d+", prefix)
    return f"C({name}, Treatment({base[0]}))" if base else f"C({name})"


def as_option(text: str, model: str) -> str:
    """Return a formula as the option of its model."""
    return f'propensity="{text}"' if model == "propensity" else f'formula="{text}"'


def model_option(word: str, model: str) -> str:
    """Return the option for a model that is named by one word, after a comma: ", propensity_link='probit'"."""
    if model == "propensity":
        return f', propensity_link="{word}"' if word in BINARY_LINKS else ""
    family = family_meant(word)
    return f", {family}" if family else ""


def from_list(outcome: str | None, variables: str, model: str) -> str:
    """Return a list of variables as a formula; for an outcome model without ~ it begins with the outcome."""
    names = [stata_formula(name) for name in variables.split()]
    if model == "outcome":
        outcome = outcome or names.pop(0)
        return f"{outcome} ~ {' + '.join(names) or 1}"
    return " + ".join(names)


def from_teffects(text: str) -> str | None:
    """Return the arguments for both models in Stata's parentheses, "(y x1 x2) (d x1 x2, probit)", or None."""
    found = re.fullmatch(TEFFECTS, text.strip())
    if not found:
        return None
    outcome, word = _parted(found[1])
    typed = f'formula="{from_list(None, outcome, "outcome")}"{model_option(word, "outcome")}'
    variables, word = _parted(found[2])
    treat, *covariates = variables.split()
    if covariates:
        assigned = from_list(None, " ".join(covariates), "propensity")
        return f'{typed}, treat="{treat}", propensity="{assigned}"{model_option(word, "propensity")}'
    return f'{typed}, treat="{treat}"'


def from_treatment(text: str) -> str | None:
    """Return the options for a treatment that is given along with its covariates, "d x1 x2, probit", or None."""
    found = re.fullmatch(TREATMENT, text.strip())
    if not found:
        return None
    treat, *covariates = found[1].split()
    assigned = from_list(None, " ".join(covariates), "propensity")
    return f'treat="{treat}", propensity="{assigned}"{model_option(found[2] or "", "propensity")}'


def _parted(text: str) -> tuple[str, str]:
    variables, _, word = text.partition(",")
    return variables.strip(), word.strip()


def _product(text: str) -> str:
    """Translate one interaction; a bare name in it is a factor to Stata."""
    full = "##" in text
    powers: dict[str, int] = {}
    for part in re.split("##?", text):
        typed = _operand(part.strip())
        powers[typed] = powers.get(typed, 0) + 1
    terms = [_powers(typed, count, full) for typed, count in powers.items()]
    if len(terms) == 1:
        return terms[0]
    terms = [f"({term})" if " + " in term and term not in powers else term for term in terms]
    return ("*" if full else ":").join(terms)


def _operand(text: str) -> str:
    """Translate a variable of an interaction, or several in parentheses; those with + between them stay as they are."""
    prefix, bracket, names = text.partition("(")
    if not bracket:
        prefix, _, name = text.rpartition(".")
        return stata_factor(prefix or "i", name)
    parts = [part.rpartition(".") for part in re.split(r"[\s+]+", names.removesuffix(")").strip())]
    default = prefix.removesuffix(".") or ("c" if "+" in names else "i")
    return f"({' + '.join(stata_factor(own or default, name) for own, _, name in parts)})"


def _powers(name: str, count: int, full: bool) -> str:
    if count == 1 or name.startswith("C("):
        return name
    if name.startswith("("):
        squares = [_powers(part, count, False) for part in name[1:-1].split(" + ")]
        return " + ".join([f"{name}**{count}", *(part for part in squares if part.startswith("I("))])
    powers = [f"I({name}**{k})" for k in range(2, count + 1)]
    return " + ".join([name, *powers]) if full else powers[-1]


@dataclass(frozen=True)
class Asked:
    """A formula that is looked at.

    Parameters
    ----------
    text : str
        The formula.
    model : {"outcome", "propensity", "covariates", "effects_by"}
        The model it belongs to.
    treatment, outcome : str
        Names that are no covariates, as far as they are known.
    """

    text: str
    model: str
    treatment: str
    outcome: str


Advice = Callable[[Asked, re.Match[str]], str]


def _whole(rewritten: Callable[[str], str]) -> Advice:
    """Type the whole formula, rewritten."""
    return lambda asked, _: f'Type  "{rewritten(asked.text)}".'


def _listed(asked: Asked, found: re.Match[str]) -> str:
    """Type variables without + between them."""
    outcome, variables, word = found[1], found[2], found[3] or ""
    formula, option = from_list(outcome, variables, asked.model), model_option(word, asked.model)
    if asked.model == "propensity":
        return f"Type  {as_option(formula, asked.model)}{option}."
    return f'Type  "{formula}"{option}.'


def _before_comma(asked: Asked, found: re.Match[str]) -> str:
    """Type a formula without what follows after a comma: an option if it names a model, more variables if names."""
    found = re.search(BEFORE_COMMA, asked.text) or found  # with the names that are quoted
    formula, parts = found[1].strip(), [part.strip() for part in found[2].split(",")]
    option = model_option(parts[0], asked.model)
    if not option and all(part.isidentifier() and part not in STATA_OPTIONS for part in parts):
        formula = " + ".join([formula, *parts])
    return f"Type  {as_option(formula, asked.model)}{option}."


def _weighted(asked: Asked, found: re.Match[str]) -> str:
    """Type Stata's weights as options."""
    kind = "frequency" if found[1] == "f" else "probability"
    formula = as_option(re.sub(WEIGHTS, "", asked.text).strip(), asked.model)
    return f'Type  {formula}, weights="{found[2]}", weight_type="{kind}".'


def _odd_names(text: str) -> str:
    return re.sub("`([^`]*)`", lambda m: m[1] if m[1].isidentifier() else f"Q('{m[1]}')", text)


def _rs_types(text: str) -> str:
    return re.sub(r"\bas\.(?:factor|character)\(", "C(", re.sub(r"\bas\.numeric\(", "1.0 * (", text))


def _rs_vectors(text: str) -> str:
    text = re.sub(r"(?<![\w.])c\(([^()]*)\)", r"[\1]", text)
    return re.sub(r"(?<![\w.])cut\(", "pd.cut(", text)


def _base(found: re.Match[str]) -> str:
    return f"C({found[1]}, Treatment({found[2].strip()}))"


def _of_package(asked: Asked, found: re.Match[str]) -> str:
    here = called_elsewhere(found[1], asked.text)
    return f"Type  {here}." if here else f"Define {found[1]} first."


def _offset_as_option(asked: Asked, _: re.Match[str]) -> str:
    """Type a formula without its offset, and the option that takes its place."""
    text = asked.text
    start = text.index("offset(")
    end, depth = start + len("offset("), 1
    while end < len(text) and depth:
        depth += {"(": 1, ")": -1}.get(text[end], 0)
        end += 1
    inner, after = text[start + len("offset(") : end - 1].strip(), text[end:].strip()
    before = text[:start].rstrip().removesuffix("+").rstrip()
    alone = before in ("", "~") or before.endswith("~")
    rest = after.removeprefix("+").strip() if alone else after
    formula = as_option(f"{before} {rest or '1' * alone}".strip(), asked.model)
    if asked.model == "propensity":
        return f"It is one of the outcome model only.\nType  {formula}."
    log = re.fullmatch(r"(?:np\.)?log\((\w+)\)", inner)
    option = f'offset="{inner}"' if inner.isidentifier() else f'offset=data.eval("{inner}")'
    return f"Type  {formula}, " + (f'exposure="{log[1]}".' if log else f"{option}.")


def _all_others(asked: Asked, found: re.Match[str]) -> str:
    """Type the names of all other columns, with the further terms beside the dot."""
    left, right = (part.strip() for part in asked.text.split("~")) if "~" in asked.text else ("", asked.text)
    minus = re.findall(r"-\s*([A-Za-z_]\w*)", right)
    rest = re.sub(r"^\s*\.|\+\s*\.|-\s*[A-Za-z_]\w*", "", right).strip().removeprefix("+").strip()
    outcome = left if asked.model == "outcome" and left else asked.outcome
    treatment = left if asked.model == "propensity" and left else asked.treatment
    dropped = ", ".join(f'"{name}"' for name in dict.fromkeys((outcome, treatment, *minus)))
    names = f'" + ".join(data.columns.drop([{dropped}]))' + (f' + " + {rest}"' if rest else "")
    typed = {"propensity": f"propensity={names}", "outcome": f'"{outcome} ~ " + {names}'}.get(asked.model, names)
    return f"Type  {typed}  without what else is no covariate."


@dataclass(frozen=True)
class Notation:
    """A notation of another language.

    Parameters
    ----------
    pattern : str
        What it is known by, in the formula without quoted names.
    what : str
        What the formula has, for the message.
    advice : callable
        Returns what to type.
    """

    pattern: str
    what: str
    advice: Advice


def _commented(asked: Asked, found: re.Match[str]) -> str:
    """Type a formula without what may be a comment; one word may be Stata's interaction as well."""
    alone = f'Type  "{found[1]}"'
    if re.search(r"\w\s+\w", found[2]):
        return f"{alone}."
    return f'{alone}  if it begins a comment, or  "{stata_formula(asked.text)}"  for Stata\'s interaction.'


def _in_parentheses(text: str) -> str:
    """Put each of several comparisons that are joined into parentheses, and all of them into I(...)."""

    def joined(found: re.Match[str]) -> str:
        typed = re.sub(COMPARISON, lambda m: f"({m[0]})", found[0])
        return typed if text.count("(", 0, found.start()) > text.count(")", 0, found.start()) else f"I({typed})"

    return re.sub(COMPARISONS, joined, text)


NOTATIONS = (
    Notation(
        rf"^{TEFFECTS}$", "Stata's parentheses around both models.",
        lambda asked, _: f"Type  {from_teffects(asked.text)}.",
    ),
    Notation(COMMENT, "#, which formulas do not have.", _commented),
    Notation(PRODUCT, "Stata's # for interactions.", _whole(stata_formula)),
    Notation(GROUP, "Stata's prefix of several variables.", _whole(stata_formula)),
    Notation(XI, "Stata's xi.", _whole(stata_formula)),
    Notation(LEVEL, "Stata's indicator of a level.", _whole(stata_formula)),
    Notation(WEIGHTS, "Stata's weights, which are options here.", _weighted),
    Notation(
        rf"^(?!.*\selse\s){IF}$", "Stata's if; rows are chosen in the data.",
        lambda asked, _: f"Type  data=data.query({re.match(IF, asked.text)[2].strip()!r}).",  # type: ignore[index]
    ),
    Notation(rf"^(?!.*\selse\s){LIST}$", "no + between its variables.", _listed),
    Notation("`", "backticks, which are R's; odd names stand inside Q(...) here.", _whole(_odd_names)),
    Notation(
        r"^(?!.*[:(,]\s*\{)(?!.*\{[^}]*:).*\{", "braces; arithmetic stands inside I(...) here.",
        _whole(lambda text: re.sub(r"\{([^}]*)\}", r"I(\1)", text)),
    ),
    Notation(
        r"^\s*(?:as\.)?(?:factor|ordered)\(\s*(\w+)\s*\)\s*~", "a factor as the outcome; expected numbers.",
        _whole(lambda text: re.sub(r"^[^(]*\(\s*(\w+)\s*\)", r"\1", text)),
    ),
    Notation(r"\bas\.(factor|numeric|character)\(", "a function of R.", _whole(_rs_types)),
    Notation(
        r"\bcontr\.(sum|treatment|helmert|poly)\b", "a contrast of R.",
        _whole(lambda text: re.sub(r"\bcontr\.(\w+)", lambda m: m[1].capitalize(), text)),
    ),
    Notation(r"\boffset\(", "R's offset(), which is an option here.", _offset_as_option),
    Notation(r"\b[\w.]+::(\w+)\(", "a function of a package of R.", _of_package),
    Notation(
        BY_NUMBER, "an interaction with a number, which leaves the term out.",
        _whole(lambda text: re.sub(r"\s*:\s*[01](?![\w.])", "", text)),
    ),
    Notation(
        r"\([^()]*\+[^()]*\)\s*\^\s*\d", "R's ^ for interactions.",
        _whole(lambda text: re.sub(r"\)\s*\^\s*(\d)", r")**\1", text)),
    ),
    Notation(
        r"(?:^|[~+])\s*\.\s*($|[-+])",
        "R's dot for all other columns; they are named here, so that nothing enters by accident.", _all_others,
    ),
    Notation(
        r"%in%\s*c\(", "R's %in%.",
        _whole(lambda text: re.sub(r"(\w+)\s*%in%\s*c\(([^()]*)\)", r"\1.isin([\2])", text)),
    ),
    Notation(R_VECTOR, "R's c(), which is a list here.", _whole(_rs_vectors)),
    Notation(BASE, "the base of a factor by another name.", _whole(lambda text: re.sub(BASE, _base, text))),
    Notation(COMPARISONS, "comparisons that are joined without parentheses.", _whole(_in_parentheses)),
    Notation(r"\w\$\w", "R's $; columns are named alone.", _whole(lambda text: re.sub(r"\w+\$(\w+)", r"\1", text))),
    Notation(
        "[\u223c\u02dc\uff5e]", "another sign than ~, as a printed page has it.",
        _whole(lambda text: re.sub("[\u223c\u02dc\uff5e]", "~", text)),
    ),
    Notation(
        r"^\s*\w+\s*=(?!=)[^~]*$", "= in place of ~.",
        _whole(lambda text: re.sub(r"\s*=\s*", " ~ ", text, count=1)),
    ),
    Notation(BEFORE_COMMA, "more after a comma; terms are joined by +, and options go by name.", _before_comma),
)  # fmt: skip


def refuse_foreign(text: str, model: str, treatment: str = "<treatment>", outcome: str = "<outcome>") -> None:
    """Refuse a formula in another language with the same formula in this one.

    Parameters
    ----------
    text : str
        The formula.
    model : {"outcome", "propensity", "covariates", "effects_by"}
        The model it belongs to.
    treatment, outcome : str
        Names that are no covariates, if they are known.

    Raises
    ------
    DesignError
        If it has one of the `NOTATIONS`.
    """
    bare, asked = re.sub(QUOTED, "", text), Asked(text, model, treatment, outcome)
    for notation in NOTATIONS:
        found = re.search(notation.pattern, bare)
        if found:
            raise DesignError(f"the {model} formula {text!r} has {notation.what}\n{notation.advice(asked, found)}")


def without_arguments(name: str, text: str) -> str | None:
    """Return what to type for a spline whose degrees of freedom are not given, or a product of plain columns, or None.

    Parameters
    ----------
    name : str
        A function of the formula language.
    text : str
        The formula that calls it.

    Returns
    -------
    str or None
        Such as ``bs(age, df=3)`` for ``bs(age)``.
    """
    found = re.search(rf"\b{name}\(([^()]*)\)", text)
    names = [part.strip() for part in found[1].split(",")] if found else []
    plain = [part for part in names if "=" not in part]
    alone = words("functions_of_one")
    if name in alone and len(names) == 1:
        return alone[name].format(x=names[0])
    if name == "te" and plain:
        number = re.search(r"\bk\s*=\s*(\d+)", found[1]) if found else None
        splines = ", ".join(f"cr({part}, df={number[1] if number else 4})" for part in plain)
        return f"te({splines}, constraints='center')"
    return None


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
    tree = parsed(code).body
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
    arguments = _arguments(name, text)
    x = arguments[0] if arguments else "..."
    numbers = [re.fullmatch(r"(?:(?:degree|df|k|nk)\s*=\s*)?(\d+)", argument) for argument in arguments[1:]]
    number = next((found[1] for found in numbers if found), None)
    if isinstance(getattr(np, name, None), np.ufunc):
        return f"np.{name}({x})"
    if name == "poly":
        return " + ".join([x, *(f"I({x}**{k})" for k in range(2, int(number or 2) + 1))])
    typed = words("functions").get(name, "")
    places = set(re.findall(r"\{(\d)\}", typed))
    if len(places) not in (0, len(arguments)):
        return None
    if name == "relevel":
        variable = re.sub(r"^(?:factor|C)\(\s*(\w+)\s*\)$", r"\1", x)
        arguments = [variable, re.sub(r"^ref\s*=\s*", "", arguments[1])]
    knots = next((found[1] for a in arguments[1:] if (found := re.fullmatch(r"(?:knots\s*=\s*)?(\[.*\])", a))), None)
    df = int(number or DEFAULT_KNOTS.get(name, 4)) - (name in DEFAULT_KNOTS)
    typed = typed.replace("df={df}", "knots={knots}" if knots else "df={df}")
    return typed.format("", *arguments, x=x, df=df, knots=knots) or None


def _arguments(name: str, text: str) -> list[str]:
    """Return the arguments of the first call of a function in a formula, as they are typed."""
    found = re.search(rf"\b{re.escape(name)}\(", text)
    if not found:
        return []
    arguments, depth = [""], 0
    for sign in text[found.end() :]:
        depth += (sign in "([{") - (sign in ")]}")
        if depth < 0:
            break
        if sign == "," and not depth:
            arguments.append("")
        else:
            arguments[-1] += sign
    return [argument.strip() for argument in arguments]
