"""Formulas as Stata writes them, in the notation used here."""

from __future__ import annotations

import re

from causalrisk.numerics.families import family_meant
from causalrisk.numerics.links import BINARY_LINKS

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
