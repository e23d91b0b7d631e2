"""Keywords of other libraries and versions, what to type here instead, and a decorator that says so."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from causalrisk.design import ColumnOptions
from causalrisk.errors import listed, nearest_name, outside
from causalrisk.estimators.options import InferenceOptions, JREOptions, ModelOptions
from causalrisk.propensity.targets import POPULATIONS

F = TypeVar("F", bound=Callable[..., Any])
FEW = 6  # items of a list that are repeated in a message
CLOSE = 0.75  # likeness of a misspelt keyword
_OF_JRE = "It is an option of JRE only."


def _named(*groups: tuple[str, str]) -> dict[str, str]:
    """Return a mapping of each of the words, separated by blanks, to its advice."""
    return {word: advice for words, advice in groups for word in words.split()}


def _fields(kind: type) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


# {value} stands for what was given to the keyword, as it would be typed.
FIT_INSTEAD = _named(
    (
        "cov_kwds clusters groups",
        'Clusters are given to the model: from_formula(..., cluster="column"); fit(cov_type="cluster").',
    ),
    ("use_t", "p-values and intervals are normal; use_t is always False. Leave it out."),
    ("disp verbose", "fit prints nothing; progress=True shows the bootstrap."),
    ("maxiter tol", "The optimisers run to convergence; res.converged and res.optimize_result tell. Leave it out."),
    ("seed random_state", "Type  rng={value}."),
    ("reps n_bootstrap n_bootstraps bootstrap_reps nboot n_resamples B R", "Type  n_boot={value}."),
    ("vce vcov se se_type", "Type  cov_type={value}."),
    ("robust", 'Type  cov_type="robust".'),
    ("boot bootstrapped", 'Type  cov_type="bootstrap".'),
    ("alpha", "Type  res.summary(alpha={value})  after the fit."),
    ("level conf_level", "alpha is 1 less the level.\nType  res.summary(alpha={less})  after the fit."),
    ("n_workers workers num_threads cores", "Type  n_jobs={value}."),
    *(
        (name, f"It belongs to the model.\nType  from_formula(..., {name}={{value}}).fit().")
        for name in (*_fields(ColumnOptions), *_fields(ModelOptions))
    ),
)
FIT_SEPARATE = FIT_INSTEAD | {
    name: f"{_OF_JRE}\nType  JRE.from_formula(...).fit({name}=...)." for name in _fields(JREOptions)
}
MODEL_INSTEAD = _named(
    ("treatment treat_name treatment_name d D", "Type  treat={value}."),
    ("groups clusters cluster_var", "Type  cluster={value}."),
    ("estimand population", f"Type  target={{value}}  (one of {', '.join(map(repr, POPULATIONS))})."),
    ("atet att", 'Type  target="treated".'),
    ("focal tlevel", "Type  target={value}."),
    ("subset", "Give the rows themselves: data=data[...]."),
    ("eval_env", "Variables are taken from data=, or from where from_formula is called. Leave it out."),
    ("ps_formula propensity_formula treatment_formula ps_model tmodel exposure_model", "Type  propensity={value}."),
    ("outcome_formula outcome_model omodel", "Type it first: from_formula({value}, data, ...)."),
    ("ps pscore propensity_scores", "Type  propensity_score={value}."),
    ("strata stratum", f"{outside('survey')}\nFor strata as covariates type  C({{bare}})  in both formulas."),
    ("instrument instruments iv endog_iv z", outside("instrument")),
    ("time_effects entity_effects fixed_effects absorb fe", "Type  C({bare})  in the formulas for fixed effects."),
    ("freq_weights fweights frequency_weights", 'Type  weights={value}, weight_type="frequency".'),
    (
        "sample_weight sample_weights sampling_weights pweights survey_weights var_weights",
        'Type  weights={value}, weight_type="probability".',
    ),
    (
        "ps_bounds ps_trim bounds",
        "Type  clip={value}  to set scores to the limits, or  trim={value}  to leave rows out.",
    ),
    ("trimming", "Type  trim={value}."),
    ("person_time person_years at_risk time_at_risk exposures", "Type  exposure={value}."),
    ("log_exposure offsets", "Type  offset={value}."),
    (
        "covariates controls confounders common_causes x X",
        'They stand in the formula: from_formula("y ~ x1 + x2", ...).',
    ),
    ("outcome y Y", 'It stands in the formula: from_formula("y ~ x1 + x2", ...).'),
    ("by subgroup subgroups", "Type  res.effects_by({value})  after the fit."),
    ("control control_level ref base baseline", "Type  reference={value}."),
    ("treated_level treatment_level", "Type  treated={value}."),
    ("na_action na_rm dropna", 'Type  missing="drop".'),
    ("caliper ratio nearest exact", outside("matching")),
    ("estimator method", "An estimator is a class: IPWRA.from_formula(...), AIPW.from_formula(...)."),
    ("measure estimate_type scale contrast", 'Type  effect=  "difference", "ratio", "odds_ratio" or "percent".'),
    ("seed random_state", "Type  fit(rng={value})  after the model."),
    ("vce vcov", 'Type  fit(cov_type="robust")  after the model.'),
    *(
        (name, f"It belongs to the fit.\nType  from_formula(...).fit({name}={{value}}).")
        for name in (*_fields(InferenceOptions), *_fields(JREOptions))
        if name != "method"
    ),
)
FROM_ARRAYS = MODEL_INSTEAD | _named(
    ("data formula", 'A formula goes to from_formula.\nType  {owner}.from_formula("y ~ x1 + x2", data, treat="d").'),
    ("propensity", "The arrays of the propensity model are exog_propensity=; a formula goes to from_formula."),
)
OF_RESULTS = _named(
    ("level conf_level", "alpha is 1 less the level.\nType  alpha={less}."),
    ("ci", "Type  alpha=0.05  for 95% intervals."),
    ("newdata new_data exog X", "Type  data={value}."),
    ("scalar", "The statistic is a number already. Leave it out."),
)
REQUIRED = {
    "treat": 'treat= says which column is the treatment.\nType  from_formula("y ~ x1 + x2", data, treat="d").',
}
DATA_OPTIONS = ("treat", "propensity", "treated", "reference", "levels", "weights", "weight_type", "cluster", "offset",
                "exposure")  # fmt: skip
NEW_MODEL = "It belongs to the data: make a new model with from_formula(...)."
ESTIMATOR_WORDS = {
    "ra": "OutcomeRegression", "regression": "OutcomeRegression", "gformula": "OutcomeRegression", "ols":
    "OutcomeRegression", "standardization": "OutcomeRegression", "iptw": "Hajek", "ipw_ra": "IPWRA", "wra": "IPWRA",
    "dr": "AIPW", "doubly_robust": "AIPW", "doublyrobust": "AIPW", "eif": "AIPW",
}  # fmt: skip
MATCHING_WORDS = {"matching", "psmatch", "nnmatch", "psm", "match"}


def check_keywords(
    instead: Mapping[str, str], *sources: Callable[..., Any], without: Sequence[str] = ()
) -> Callable[[F], F]:
    """Decorate a function so that an unknown or a missing keyword is a TypeError that names what to use.

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
        positional = [p for p in own if p.kind is p.POSITIONAL_OR_KEYWORD]
        needed = [p.name for p in own if p.kind is p.KEYWORD_ONLY and p.default is p.empty]

        @functools.wraps(function)
        def _checked(*args: Any, **keywords: Any) -> Any:
            for name, value in keywords.items():
                if name not in taken:
                    where = _caller_name(function, args)
                    raise TypeError(unknown_keyword(where, name, list(taken), instead, value))
            if len(args) > len(positional) and all(p.kind is not p.VAR_POSITIONAL for p in own):
                raise TypeError(_by_name(_caller_name(function, args), args[len(positional) :], list(taken.values())))
            for name in needed:
                if name not in keywords:
                    raise TypeError(f"{_caller_name(function, args)} misses {name!r}.\n{REQUIRED[name]}")
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


def typed(value: Any) -> str:
    """Return a value as it would be typed, or dots where it would be long."""
    if isinstance(value, str):
        return '"' + value.replace('"', '\\"') + '"'
    short = value is None or isinstance(value, bool | numbers.Number)
    few = (
        isinstance(value, list | tuple)
        and len(value) <= FEW
        and all(isinstance(v, str | numbers.Number) for v in value)
    )
    return repr(value) if short or few else "..."


def _share(level: Any) -> float:
    """Return a confidence level as a share, given as one or in percent."""
    return float(level) / (100 if level > 1 else 1)


def _by_name(where: str, given: Sequence[Any], parameters: Sequence[inspect.Parameter]) -> str:
    """Say that options go by name: the first keyword that takes such a value, by its kind."""
    names = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    count = isinstance(given[0], numbers.Number) and "n_boot" in names
    return (
        f"{where} takes its options by name, not as {len(given)} more positional argument{'s' * (len(given) > 1)}.\n"
        f"Type  {'n_boot' if count else names[0]}={typed(given[0])}."
    )


def unknown_keyword(where: str, name: str, known: Sequence[str], instead: Mapping[str, str], value: Any = ...) -> str:
    """Return the message for a keyword that is not known: what to use instead, the nearest, or all there are."""
    message = f"{where} got an unknown option {name!r}."
    if name in instead:
        shown = "..." if value is ... else typed(value)
        less = f"{1 - _share(value):.3g}" if isinstance(value, numbers.Real) else "0.05"
        advice = instead[name].replace("{value}", shown).replace("{bare}", shown.strip('"')).replace("{less}", less)
        return f"{message}\n{advice.replace('{owner}', where.partition('.')[0])}"
    allowed = [k for k in known if k not in ("self", "cls")]
    close = nearest_name(name, allowed, CLOSE)
    if close:
        return f"{message}\nDid you mean  {close}= ?"
    return f"{message}\nThe options are {', '.join(allowed)}."


def unknown_name(name: str, known: Sequence[str]) -> str:
    """Return the message for a name that the package does not have: the one that is probably meant, or how it works."""
    message = f"module 'causalrisk' has no attribute {name!r}."
    if name.startswith("_"):
        return message
    meant = ESTIMATOR_WORDS.get(name.casefold()) or nearest_name(name, known, CLOSE)
    if meant:
        return f"{message}\nType  causalrisk.{meant}."
    example = 'IPWRA.from_formula("y ~ x1 + x2", data, treat="d").fit().summary()'
    return f"{message}\nThe estimators are OutcomeRegression, Hajek (IPW), IPWRA, AIPW and JRE, as in  {example}."


def unknown_estimator(given: Any, known: Iterable[str], also: str = "") -> str:
    """Return the message for an estimator that is not known, with the one that is probably meant.

    Parameters
    ----------
    given : object
        What was given.
    known : iterable of str
        Names of the estimators there are.
    also : str
        What else may be given.

    Returns
    -------
    str
        The message.
    """
    known, word = list(known), str(getattr(given, "__name__", given)).casefold()
    meant = ESTIMATOR_WORDS.get(word) or nearest_name(word, [*known, "IPW"], 0.6)
    if word in MATCHING_WORDS:
        advice = outside("matching")
    else:
        advice = f'Type  estimators=["{meant}"].' if meant else "Type  estimators=  any of them."
    return f"estimators: {given!r} is not known; expected any of {listed(tuple(known))}{also}.\n{advice}"
