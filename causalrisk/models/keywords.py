"""Keywords of other libraries and versions, what to type here instead, and a decorator that says so."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from causalrisk.estimators.options import JREOptions
from causalrisk.propensity.targets import POPULATIONS

F = TypeVar("F", bound=Callable[..., Any])
_OF_JRE = "It is an option of causalrisk.JRE(...).fit only."
FIT_INSTEAD = {
    "cov_kwds": 'Clusters are given to the model: from_formula(..., cluster="column"); fit(cov_type="cluster").',
    "use_t": "p-values and intervals are normal; use_t is always False. Leave it out.",
    "disp": "fit prints nothing; progress=True shows the bootstrap.",
    "maxiter": "The optimisers run to convergence; res.converged and res.optimize_result tell. Leave it out.",
    "seed": "Type  rng=0.",
    "reps": "Type  n_boot=.",
    "n_bootstrap": "Type  n_boot=.",
    "vce": 'Type  cov_type="robust", "cluster" or "bootstrap".',
    "random_state": "Type  rng=0.",
}
FIT_SEPARATE = FIT_INSTEAD | {
    field.name: f"{_OF_JRE}\nType  causalrisk.JRE.from_formula(...).fit({field.name}=...)."
    for field in dataclasses.fields(JREOptions)
}
MODEL_INSTEAD = {
    "treatment": "Type  treat=.",
    "groups": "Clusters: type  cluster=.",
    "focal": "Type  target=  with the level.",
    "tlevel": "Type  target=  with the level.",
    "estimand": f"Type  target=  one of {', '.join(map(repr, POPULATIONS))}.",
    "subset": "Give the rows themselves: data=data[...].",
    "eval_env": "Variables are taken from data=, or from where from_formula is called. Leave it out.",
    "seed": "Give it to fit: fit(rng=0).",
    "rng": "Give it to fit: fit(rng=0).",
    "cov_type": 'Give it to fit: fit(cov_type="robust").',
    "n_boot": "Give it to fit: fit(n_boot=999).",
}
DATA_OPTIONS = ("treat", "propensity", "treated", "reference", "levels", "weights", "weight_type", "cluster")
NEW_MODEL = "It belongs to the data: make a new model with from_formula(...)."


def check_keywords(
    instead: Mapping[str, str], *sources: Callable[..., Any], without: Sequence[str] = ()
) -> Callable[[F], F]:
    """Decorate a function so that an unknown keyword is a TypeError that names what to use.

    Parameters
    ----------
    instead : mapping
        Keywords of other libraries or classes -> what to type here.
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

        @functools.wraps(function)
        def _checked(*args: Any, **keywords: Any) -> Any:
            for name in keywords:
                if name not in taken:
                    raise TypeError(unknown_keyword(_caller_name(function, args), name, list(taken), instead))
            return function(*args, **keywords)

        _checked.__signature__ = signature.replace(parameters=list(taken.values()))  # type: ignore[attr-defined]
        return _checked  # type: ignore[return-value]

    return decorate


def _caller_name(function: Callable[..., Any], args: tuple[Any, ...]) -> str:
    """Name of the called function as the user typed it, with the class it was called on."""
    if not args or "." not in function.__qualname__:
        return function.__name__
    owner = args[0].__name__ if isinstance(args[0], type) else type(args[0]).__name__
    return owner if function.__name__ == "__init__" else f"{owner}.{function.__name__}"


def unknown_keyword(where: str, name: str, known: Sequence[str], instead: Mapping[str, str]) -> str:
    """Return the message for a keyword that is not known: what to use instead, the nearest, or all there are."""
    message = f"{where} got an unknown option {name!r}."
    if name in instead:
        return f"{message}\n{instead[name]}"
    allowed = [k for k in known if k not in ("self", "cls")]
    close = difflib.get_close_matches(name, allowed, 1, 0.5)
    if close:
        return f"{message}\nDid you mean  {close[0]}= ?"
    return f"{message}\nThe options are {', '.join(allowed)}."
