"""Keywords that are not known: what is said of them, by the words of words.toml, and a decorator that says so."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import numbers
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from causalrisk import datasets
from causalrisk.design import ColumnOptions
from causalrisk.design.formulas.evaluation import parse
from causalrisk.design.treatment import is_classifier
from causalrisk.errors import UnavailableError, explained, listed, meanings, meant, nearest_name, words
from causalrisk.estimators.options import (
    COV_TYPES,
    INTERVALS,
    InferenceOptions,
    JREOptions,
    limits_meant,
    model_option_names,
)
from causalrisk.estimators.specification import ESTIMATORS, SCALES
from causalrisk.learners.cross_fitting import NAMED, SMOOTH
from causalrisk.numerics.families import BINARY_LINKS, family_meant
from causalrisk.propensity.targets import POPULATIONS, SPELLINGS

F = TypeVar("F", bound=Callable[..., Any])
FEW = 6  # items of a list that are repeated in a message
SHORT = 60  # characters of a learner that are
ARMS = 2  # values of a column that may be the treatment
CLOSE = 0.75  # likeness of a misspelt keyword
NEW_MODEL = "It belongs to the data: make a new model with from_formula(...)."
LISTS: dict[str, Iterable[str]] = {"targets": POPULATIONS, "links": BINARY_LINKS, "cov_types": COV_TYPES}
KNOWN: dict[str, Mapping[str, str]] = {
    "effect": {name: name for name in SCALES},
    "propensity_link": {name: name for name in BINARY_LINKS},
    "cov_type": {name: name for name in COV_TYPES},
    "learner": {name: name for name in (SMOOTH, *NAMED)},
    "method": {name: name for name in INTERVALS},
    "target": SPELLINGS,
}
KINDS: dict[str, Callable[[Any], bool]] = {
    "text": lambda given: isinstance(given, str),
    "share": lambda given: isinstance(given, float) and 0 < given < 1,
    "yes": lambda given: given is True,
    "no": lambda given: not given,
    "classifier": is_classifier,
    "learner": lambda given: hasattr(given, "fit") and not isinstance(given, type),
    "mapping": lambda given: isinstance(given, Mapping) and "groups" not in given,
}
MOVED = {  # from_formula and fit know the words of each other
    "from_formula": ("fit", r"from_formula(...).fit(\1)"),
    "fit": ("from_formula", r"from_formula(..., \1).fit()"),
}
BESIDE = {
    "arrays": "from_formula",
    "event_study": "from_formula",
    "with_options": "from_formula",
    "fit_separate": "fit",
    "compare": "fit",
}


def _fields(*kinds: type) -> list[str]:
    return [field.name for kind in kinds for field in dataclasses.fields(kind)]


OF_DATA, OF_JRE = _fields(ColumnOptions), _fields(JREOptions)
OF_MODEL = ["smooth", *model_option_names()]
COMPUTED = {  # options that stand in another call, and what is said of them
    "from_formula": dict.fromkeys(
        [*_fields(InferenceOptions), *OF_JRE], "It belongs to the fit.\nType  from_formula(...).fit({name}={value})."
    ),
    "fit": dict.fromkeys(
        [*OF_DATA, *OF_MODEL], "It belongs to the model.\nType  from_formula(..., {name}={value}).fit()."
    ),
    "fit_separate": dict.fromkeys(OF_JRE, "It is an option of JRE only.\nType  JRE.from_formula(...).fit({name}=...)."),
    "with_options": {
        **dict.fromkeys(("formula", "data", *OF_DATA, "propensity"), NEW_MODEL),
        "smooth": 'Type  with_options(learner="smooth").',
    },
}


def advice_on(place: str, name: str, given: Any, owner: str = "") -> str | None:
    """Return what to type in place of a keyword that others use, or None.

    Parameters
    ----------
    place : str
        The call: a table ``instead`` of words.toml, or "with_options".
    name : str
        The keyword.
    given : object
        Its value; dots if it is not known.
    owner : str
        The class that is called.

    Returns
    -------
    str or None
        A sentence, if one helps, and the line to type.
    """
    text = _text_on(place, name, given)
    if text is None:
        return None
    shown = "..." if given is ... else typed(given)
    level = float(given) if isinstance(given, numbers.Real) else 0.95  # as a share or in percent
    filled = {
        "name": name,
        "owner": owner,
        "value": shown,
        "bare": shown.strip('"').lstrip("~ "),
        "less": f"{1 - level / (100 if level > 1 else 1):.3g}",
        "pair": str(limits_meant(given, (0.1, 0.9))),
        **{key: listed(tuple(values)) for key, values in LISTS.items()},
    }
    return re.sub(r"\{(\w+)\}", lambda found: filled[found[1]], text)


def _text_on(place: str, name: str, given: Any) -> str | None:
    """Return the text for a keyword: that of the call itself, else of the other call, else of the one it extends."""
    text = _text_of(place, name, given)
    if text is None and place in MOVED:
        other, call = MOVED[place]
        text = _text_of(other, name, given)
        return text and re.sub(r"(?<=\w  )(\w+=.*?)(?=  |\.$|\.\n)", call, text)
    return _text_on(BESIDE[place], name, given) if text is None and place in BESIDE else text


def _text_of(place: str, name: str, given: Any) -> str | None:
    """Return the text that one table has for a keyword."""
    entry = words("instead", place).get(name, COMPUTED.get(place, {}).get(name))
    if not isinstance(entry, list):
        return entry
    rule, word = next((rule, found) for rule in entry if (found := _fitting(rule, given)) is not None)
    return "\n".join([*explained(rule.get("like", ""), given), rule["say"].replace("{word}", word)])


def _fitting(rule: Mapping[str, str], given: Any) -> str | None:
    """Return the word that a rule finds in a value, empty for rules without one; None where it does not fit."""
    text = str(given).strip() if isinstance(given, str | dict) else ""
    match rule:
        case {"kind": kind}:
            return "" if KINDS[kind](given) else None
        case {"words": several}:
            return "" if text.casefold() in several.split() else None
        case {"pattern": pattern}:
            found = re.fullmatch(pattern, text)
            return found[1] if found else None
        case {"like": option}:
            return text if text in KNOWN[option] else meant(option, text, KNOWN[option])
        case {"word_of": "family"}:
            return family_meant(text)
        case {"word_of": option}:
            return {**meanings(option), **KNOWN.get(option, {})}.get(text.casefold())
    return ""


def _treatment_inside(args: Sequence[Any]) -> str | None:
    """Return the call that is meant where the treatment stands among the covariates of a formula, as in a regression.

    It is the first of them that has two values in the data.
    """
    text = next((given for given in args if isinstance(given, str) and "~" in given), None)
    columns = next((set(map(str, given.columns)) for given in args if hasattr(given, "columns")), set())
    data = next((given for given in args if hasattr(given, "columns")), None)
    if text is None or data is None:
        return None
    formula = parse(text, "outcome", [])
    names = [{factor.code for factor in term.factors} for term in formula.right]
    alone = [next(iter(codes)) for codes in names if len(codes) == 1]
    treat = next((name for name in alone if name in columns and len(set(data[name])) == ARMS), None)
    if treat is None:
        return None
    rest = [term.name() for term, codes in zip(formula.right, names, strict=True) if codes and treat not in codes]
    outcome = text.partition("~")[0].strip()
    return f'from_formula("{outcome} ~ {" + ".join(rest) or "1"}", data, treat="{treat}")'


def _without_treatment(args: Sequence[Any]) -> str:
    """Say what to type where treat= is missing: both models in Stata's parentheses, fits to compare, or a formula."""
    inside = _treatment_inside(args)
    if inside:
        return f"treat= says which column is the treatment, which is no covariate.\nType  {inside}."
    typed = None
    if typed:
        return f"Type  {typed}."
    listed_too = [part for given in args for part in (given if isinstance(given, list | tuple) else [given])]
    if any(hasattr(part, "params") for part in listed_too):
        return "Fits stand side by side in a table.\nType  etable([res1, res2])."
    return 'treat= says which column is the treatment.\nType  from_formula("y ~ x1 + x2", data, treat="d").'


STUDY = 'Type  event_study("y ~ x1 + x2", data, begins="first", time="year", unit="id").'
REQUIRED: dict[str, Callable[[Sequence[Any]], str]] = {
    "treat": _without_treatment,
    "data": lambda _: 'The covariates come first.\nType  table_one(["x1", "x2"], data, by="d").',
    **dict.fromkeys(("begins", "time", "unit"), lambda _: STUDY),
}
ESTIMATOR_WORDS = {word: spec.name for spec in ESTIMATORS for word in (spec.name.casefold(), *spec.aliases)}


def check_keywords(place: str, *sources: Callable[..., Any], without: Sequence[str] = ()) -> Callable[[F], F]:
    """Decorate a function so that an unknown or a missing keyword is a TypeError that names what to use.

    Parameters
    ----------
    place : str
        Table of words.toml with the keywords that others use.
    *sources : callable
        Functions whose keyword-only parameters a function with ``**options`` takes too: its signature lists them.
    without : sequence of str
        Those of them that it does not take.

    Returns
    -------
    callable
        The decorator.
    """

    def decorate(function: F) -> F:
        signature = inspect.signature(function)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        taken = {parameter.name: parameter for parameter in own}
        for source in sources:
            for parameter in inspect.signature(getattr(source, "__func__", source)).parameters.values():
                if parameter.kind is parameter.KEYWORD_ONLY and parameter.name not in without:
                    taken.setdefault(parameter.name, parameter)
        positional = [p for p in own if p.kind is p.POSITIONAL_OR_KEYWORD]
        known = [name for name in taken if name not in ("self", "cls")]
        needed = [p.name for p in own if p.kind is not p.VAR_POSITIONAL and p.default is p.empty]

        @functools.wraps(function)
        def _checked(*args: Any, **keywords: Any) -> Any:
            for name, value in keywords.items():
                if name not in taken:
                    where = _caller_name(function, args)
                    raise TypeError(unknown_keyword(where, name=name, known=list(taken), place=place, value=value))
            if len(args) > len(positional) and all(p.kind is not p.VAR_POSITIONAL for p in own):
                raise TypeError(_by_name(_caller_name(function, args), args, len(positional), list(taken.values())))
            placed = [p.name for p in positional[: len(args)]]
            for name in keywords:
                if name in placed:
                    raise TypeError(_given_twice(_caller_name(function, args), name, args[placed.index(name)], known))
            for name in needed:
                if name not in keywords and name not in placed:
                    advice = (
                        REQUIRED[name]([*args, *keywords.values()])
                        if name in REQUIRED
                        else f"Its options are {', '.join(known)}."
                    )
                    raise TypeError(f"{_caller_name(function, args)} misses {name!r}.\n{advice}")
            return function(*args, **keywords)

        _checked.__signature__ = signature.replace(parameters=list(taken.values()))  # type: ignore[attr-defined]
        return _checked  # type: ignore[return-value]

    return decorate


def _given_twice(where: str, name: str, first: Any, known: Sequence[str]) -> str:
    """Say that an option is given by position and by name, and which others the first may be meant for."""
    others = ", ".join(f"{other}=" for other in known if other != name)
    return (
        f"{where} got {name!r} twice: what stands first, {typed(first)}, is {name} too.\nGive that by its name"
        + (f", one of {others}" if others else "")
        + ", or leave it out."
    )


def _caller_name(function: Callable[..., Any], args: tuple[Any, ...]) -> str:
    """Name of the called function as the user typed it, with the class it was called on."""
    if not args or "." not in function.__qualname__:
        return function.__name__
    owner = args[0].__name__ if isinstance(args[0], type) else type(args[0]).__name__
    return owner if function.__name__ == "__init__" else f"{owner}.{function.__name__}"


def typed(value: Any) -> str:
    """Return a value as it would be typed, or dots where it would be long."""
    if isinstance(value, str):
        return '"' + value.replace('"', '\\"') + '"'
    short = value is None or isinstance(value, bool | numbers.Number)
    if hasattr(value, "get_params") and not isinstance(value, type):  # of scikit-learn, whose text is what makes it
        text = repr(value)
        return text if len(text) <= SHORT and "\n" not in text else f"{type(value).__name__}(...)"
    few = (
        isinstance(value, list | tuple)
        and len(value) <= FEW
        and all(isinstance(v, str | numbers.Number) for v in value)
    )
    return repr(value) if short or few else "..."


def _by_name(where: str, args: Sequence[Any], positional: int, parameters: Sequence[inspect.Parameter]) -> str:
    """Say that options go by name: the first keyword that takes such a value, by its kind; or that a list is meant."""
    names, given = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY], args[positional:]
    if not names:
        return f"{where} takes {positional} positional arguments, not {len(args)}.\nLeave the others out."
    if positional == 1 and isinstance(given[0], type(args[0])):
        advice = f"Type  {where}([res1, res2])."
    elif names[0] == "cov_type":
        if isinstance(given[0], numbers.Number):
            advice = f"Type  n_boot={typed(given[0])}."
        elif isinstance(given[0], str):
            advice = f"{advice_on('fit', 'vce', given[0])}"
        else:  # arrays, as scikit-learn has them
            advice = f"The data belong to the model.\nType  {where.split('.')[0]}(y, X, d).fit()."
    elif hasattr(given[0], "columns") and "propensity" in names:  # a frame after two formulas
        advice = f'Type  {where}("y ~ x1 + x2", data, treat="d", propensity="x1 + x2").'
    else:
        advice = f"Type  {names[0]}={typed(given[0])}."
    return (
        f"{where} takes its options by name, not as {len(given)} more positional argument{'s' * (len(given) > 1)}.\n"
        f"{advice}"
    )


def unknown_keyword(where: str, name: str, known: Sequence[str], place: str, value: Any = ...) -> str:
    """Return the message for a keyword that is not known: what to use instead, the nearest, or all there are."""
    message = f"{where} got an unknown option {name!r}."
    advice = advice_on(place, name, value, where.split(".")[0])
    if advice:
        return f"{message}\n{advice}"
    allowed = [k for k in known if k not in ("self", "cls")]
    close = nearest_name(name, allowed, CLOSE)
    if close:
        return f"{message}\nDid you mean  {close}= ?"
    return f"{message}\nThe options are {', '.join(allowed)}."


class Advising(type):
    """Class of the classes: says what to type for an attribute that a class does not have."""

    def __getattr__(cls, name: str) -> NoReturn:
        if name.startswith("_"):
            raise AttributeError(f"type object {cls.__name__!r} has no attribute {name!r}")
        start = f"the class {cls.__name__} has"
        raise UnavailableError(unknown_attribute("class", start, name, known=dir(cls), variable=cls.__name__))


def unknown_attribute(place: str, what: str, name: str, known: Iterable[str], variable: str) -> str:
    """Return the message for an attribute that is not there: the one that is probably meant, or where all are listed.

    Parameters
    ----------
    place : str
        Table of words.toml with the attributes that others use.
    what : str
        What has no such attribute, in words.
    name : str
        The attribute.
    known : iterable of str
        Those there are.
    variable : str
        How the object is called in examples.
    """
    close = nearest_name(name, [k for k in known if not k.startswith("_")], CLOSE)
    near = f"Did you mean  {variable}.{close} ?" if close else f"Type  dir({variable})  for all there are."
    advice = words("instead", place).get(name, near).replace("{name}", name)
    return f"{what} no attribute {name!r}.\n{advice}"


def what_is_meant(name: str, known: Sequence[str]) -> str:
    """Return what to type for a name that the package does not have: the one that is probably meant, or how it works.

    Parameters
    ----------
    name : str
        The name.
    known : sequence of str
        Those there are.
    """
    if name in words("instead", "package"):
        return words("instead", "package")[name].replace("{name}", name)
    if name in datasets.__all__:
        return f"Type  causalrisk.datasets.{name}()."
    meant = ESTIMATOR_WORDS.get(name.casefold()) or nearest_name(name, known, CLOSE)
    if meant in known:
        return f"Type  causalrisk.{meant}."
    if meant == "Unadjusted":
        both = '["Unadjusted", "IPWRA"]'
        return f"The difference of raw means stands in comparisons, as in  causalrisk.compare(..., estimators={both})."
    example = 'IPWRA.from_formula("y ~ x1 + x2", data, treat="d").fit().summary()'
    names = [spec.name for spec in ESTIMATORS if spec.name in known]
    return f"The estimators are {', '.join(names[:-1])} and {names[-1]}, as in  {example}."


def unknown_estimator(given: Any, known: Iterable[str], also: str = "", among: Sequence[Any] = ()) -> str:
    """Return the message for an estimator that is not known, with the one that is probably meant.

    Parameters
    ----------
    given : object
        What was given.
    known : iterable of str
        Names of the estimators there are.
    also : str
        What else may be given.
    among : sequence
        All that are given, if several are.

    Returns
    -------
    str
        The message.
    """
    known, word, *others = [list(known), *(str(getattr(g, "__name__", g)).casefold() for g in (given, *among))]
    named = [part for text in others or [word] for part in re.split(r"[\s,]+", text.strip())]
    found = [ESTIMATOR_WORDS.get(w) or nearest_name(w, [*known, "IPW"], 0.6) for w in named]
    meant = f"Type  estimators={json.dumps(found)}." if all(found) else "Type  estimators=  any of them."
    advice = words("instead", "estimators").get(word, meant)
    return f"estimators: {given!r} is not known; expected any of {listed(tuple(known))}{also}.\n{advice}"
