"""Keywords of other libraries and versions, what to type here instead, and a decorator that says so."""

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
from causalrisk.design.formulas.stata import from_teffects
from causalrisk.errors import EXPLAINED, MEANT, UnavailableError, listed, meant, nearest_name, outside
from causalrisk.estimators.effect_scales import SCALES
from causalrisk.estimators.options import COV_TYPES, INTERVALS, InferenceOptions, JREOptions, ModelOptions, limits_meant
from causalrisk.estimators.specification import ESTIMATORS
from causalrisk.numerics.families import family_meant
from causalrisk.numerics.interruptions import interruptions_kept
from causalrisk.numerics.links import BINARY_LINKS
from causalrisk.propensity.targets import POPULATIONS, SPELLINGS

F = TypeVar("F", bound=Callable[..., Any])
FEW = 6  # items of a list that are repeated in a message
ARMS = 2  # values of a column that may be the treatment
CLOSE = 0.75  # likeness of a misspelt keyword
_OF_JRE = "It is an option of JRE only."
MEANS_TOO = "The potential-outcome means are estimated along with every effect.\nType  res.params  after the fit."
AS_FORMULA, AS_PROPENSITY = "Type  from_formula({value}, data, ...).", "Type  propensity={value}."


Advice = str | Callable[[Any], str]  # for a keyword; a function of what was given where that decides


def named(*groups: tuple[str, Advice]) -> dict[str, Advice]:
    """Return a mapping of each of the words, separated by blanks, to its advice.

    Parameters
    ----------
    *groups : tuple of str and advice
        Words of one meaning, and what to type here.

    Returns
    -------
    dict
        Word -> advice.
    """
    return {word: advice for words, advice in groups for word in words.split()}


def _standard_errors(given: Any) -> str:
    """Translate standard errors as Stata, R and statsmodels ask for them: vce(bootstrap, reps(50)), vcov = ~ id."""
    text = given.strip() if isinstance(given, str) else ""
    clusters = re.fullmatch(r"(?:cl\w*\s+|~\s*)(\w+)", text)
    repetitions = re.match(r"boot\w*\W.*?(\d+)", text)
    if clusters:
        return f'Clusters are given to the model.\nType  from_formula(..., cluster="{clusters[1]}").fit().'
    if repetitions:
        return f"Type  n_boot={repetitions[1]}."
    kind = text if text in COV_TYPES else meant("cov_type", text, COV_TYPES)
    why = EXPLAINED.get(("cov_type", text.casefold()))
    advice = f'Type  cov_type="{kind}".' if kind else f"Type  cov_type=  one of {listed(COV_TYPES)}."
    return f"{why}\n{advice}" if why else advice


def _clusters(given: Any) -> str:
    """Translate cov_kwds= of statsmodels."""
    if isinstance(given, Mapping) and "groups" not in given:
        return "Rows are independent, or dependent within clusters; there are no series of time. Leave it out."
    return 'Clusters are given to the model: from_formula(..., cluster="column"); fit(cov_type="cluster").'


def _method(given: Any) -> str:
    """Translate method= of WeightIt, else of DoWhy and the like."""
    loss = MEANT["propensity_loss"].get(str(given).casefold())
    if loss:
        return f'Type  propensity_loss="{loss}".'
    return "An estimator is a class: IPWRA.from_formula(...), AIPW.from_formula(...)."


def _outcome_model(given: Any) -> str:
    """Translate omodel= of Stata, whose word names a family; a formula else."""
    family = family_meant(given) if isinstance(given, str) else None
    return f"Type  {family}." if family else AS_FORMULA


def _treatment_model(given: Any) -> str:
    """Translate tmodel= of Stata, whose word names a link; a classifier, or a formula else."""
    if hasattr(given, "predict_proba"):
        return "Type  propensity_score=  with the classifier."
    if not isinstance(given, str) or given not in {*BINARY_LINKS, *MEANT["propensity_link"]}:
        return AS_PROPENSITY
    link = meant("propensity_link", given, BINARY_LINKS)
    return (
        f'Type  propensity_link="{link}".' if link else f"Type  propensity_link=  one of {listed(tuple(BINARY_LINKS))}."
    )


def _weight(given: Any) -> str:
    """Translate weight= of PSweight, whose word names a population; observation weights else."""
    target = SPELLINGS.get(str(given).casefold())
    return f'Type  target="{target}".' if target else 'Type  weights={value}, weight_type="probability".'


def _population(given: Any) -> str:
    """Translate estimand= of WeightIt and the statistic of Stata, which names a population or the arms' means."""
    if str(given).casefold() in ("pomeans", "pomean"):
        return MEANS_TOO
    scale = MEANT["effect"].get(str(given).casefold())
    if scale:
        return f'Type  effect="{scale}".'
    return f"Type  target={{value}}  (one of {', '.join(map(repr, POPULATIONS))})."


def _trim_of_fit(given: Any) -> str:
    """Translate trim= of a fit, a number of which is a quantile of the weights to WeightIt."""
    if isinstance(given, float) and 0 < given < 1:
        limits = limits_meant(given, (0.1, 0.9))
        return (
            "It belongs to the model, and weights are not capped.\n"
            f"Type  from_formula(..., trim={limits}).fit()  to leave rows out by their score, or  "
            f"from_formula(..., clip={limits}).fit()  to set scores to the limits."
        )
    return "It belongs to the model.\nType  from_formula(..., trim={value}).fit()."


def _distance(given: Any) -> str:
    """Translate distance= of MatchIt, whose word may name a link of the score."""
    word = str(given)
    if word in ("glm", "logit", "ps"):
        return "The propensity score is a logit anyhow. Leave it out."
    return f'Type  propensity_link="{word}".' if word in BINARY_LINKS else outside("matching")


def _dependent(given: Any) -> str:
    """Translate singular.ok= of R's lm and what asks for full rank elsewhere."""
    return f'Type  collinear="{"drop" if given else "raise"}".'


def _rows(given: Any) -> str:
    """Translate subset=, a condition on the rows."""
    return "Type  data=data.query({value})." if isinstance(given, str) else "Type  data=data[...]  with the condition."


def _scale(given: Any) -> str:
    """Translate type= of PSweight, of R's predict and of boot.ci, and exponentiate= of broom."""
    interval = meant("method", given, INTERVALS) if isinstance(given, str) else None
    if interval:
        return f'Type  method="{interval}".'
    scale = "ratio" if given is True else meant("effect", given, SCALES)
    if scale:
        return f'The scale belongs to the model.\nType  res.model.with_options(effect="{scale}").fit().'
    return "Everything is on the scale of the outcome. Leave it out."


def _fields(kind: type) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


# {value} stands for what was given to the keyword, as it would be typed.
FIT_INSTEAD = named(
    ("cov_kwds clusters groups", _clusters),
    ("use_t", "p-values and intervals are normal; use_t is always False. Leave it out."),
    ("disp verbose", "fit prints nothing; progress=True shows the bootstrap."),
    ("maxiter tol", "The optimisers run to convergence; res.converged and res.optimize_result tell. Leave it out."),
    ("start_params", "The search finds its start. Leave it out."),
    ("optimizer solver", "Each model has its own search. Leave it out."),
    (
        "effect_group estimand population stat",
        "It belongs to the model.\nType  from_formula(..., target={value}).fit().",
    ),
    ("pomeans pomean", MEANS_TOO),
    ("aequations", "Type  res.summary(coefficients={value})  after the fit."),
    ("seed random_state", "Type  rng={value}."),
    ("reps n_bootstrap n_bootstraps bootstrap_reps nboot n_resamples B R", "Type  n_boot={value}."),
    ("vce vcov se se_type", _standard_errors),
    ("robust", 'Type  cov_type="robust".'),
    ("boot bootstrapped", 'Type  cov_type="bootstrap".'),
    ("alpha", "Type  res.summary(alpha={value})  after the fit."),
    ("level conf_level", "alpha is 1 less the level.\nType  res.summary(alpha={less})  after the fit."),
    ("n_workers workers num_threads cores", "Type  n_jobs={value}."),
    (
        "sample_weight sample_weights s_weights pweights pweight",
        'It belongs to the model.\nType  from_formula(..., weights={value}, weight_type="probability").fit().',
    ),
    *(
        (name, f"It belongs to the model.\nType  from_formula(..., {name}={{value}}).fit().")
        for name in (*_fields(ColumnOptions), *_fields(ModelOptions))
        if name != "trim"
    ),
    ("trim", _trim_of_fit),
)
MODEL_INSTEAD = named(
    ("treatment treat_name treatment_name d D A zname", "Type  treat={value}."),
    ("groups clusters cluster_var psu ids", "Type  cluster={value}."),
    ("estimand population stat", _population),
    ("pomeans pomean", MEANS_TOO),
    ("atet att", 'Type  target="treated".'),
    ("focal", "Type  target={value}."),
    (
        "tlevel",
        "Type  target={value}  for the effect on its rows, or  treated={value}  for the level that is treated.",
    ),
    ("subset subpop iff if_", _rows),
    ("weight", _weight),
    ("aequations", "Type  res.summary(coefficients={value})  after the fit."),
    ("eval_env", "Variables are taken from data=, or from where from_formula is called. Leave it out."),
    ("ps_formula propensity_formula treatment_formula gform results_select", AS_PROPENSITY),
    ("tmodel ps_model propensity_model model_propensity exposure_model model_t ml_m", _treatment_model),
    ("omodel outcome_model", _outcome_model),
    ("outcome_formula out_formula Qform", AS_FORMULA),
    ("ps pscore propensity_scores", "Type  propensity_score={value}."),
    ("strata stratum", f"{outside('survey')}\nFor strata as covariates type  C({{bare}})  in both formulas."),
    (
        "design svydesign svy fpc",
        f'{outside("survey")}\nType  weights="w", weight_type="probability", cluster="psu"  for what is here.',
    ),
    ("instrument instruments iv endog_iv z", outside("instrument")),
    ("time_effects entity_effects fixed_effects absorb fe", "Type  C({bare})  in the formulas for fixed effects."),
    ("freq_weights fweights fweight frequency_weights", 'Type  weights={value}, weight_type="frequency".'),
    (
        "sample_weight sample_weights s_weights sampling_weights pweights pweight survey_weights var_weights",
        'Type  weights={value}, weight_type="probability".',
    ),
    (
        "ps_bounds ps_trim bounds",
        "Type  clip={value}  to set scores to the limits, or  trim={value}  to leave rows out.",
    ),
    ("trimming", "Type  trim={value}."),
    ("gbound", "Type  clip={pair}."),
    ("pstolerance osample", "Poor overlap is warned of, and res.overlap() has its numbers. Leave it out."),
    ("discard common", 'Type  trim={pair}  or  trim="crump"  to leave rows out by their score.'),
    ("stabilize stabilized", "It multiplies all weights of an arm by one number; the effect stays. Leave it out."),
    ("moments int poly", 'They are terms of the formula.\nType  propensity="x1 + I(x1**2) + x1:x2".'),
    ("person_time person_years at_risk time_at_risk exposures", "Type  exposure={value}."),
    ("log_exposure offsets", "Type  offset={value}."),
    (
        "Q_SL_library g_SL_library SL_library ml_g ml_l learner model_regression model_outcome model_y",
        "Outcome models are formulas; scores may come from a classifier.\nType  propensity_score=LogisticRegression().",
    ),
    ("drop_cols", "Leave the terms out of the formula."),
    ("hasconst", "No constant is added, and a missing one is warned of. Leave it out."),
    (
        "covariates controls confounders common_causes x X W",
        'They stand in the formula: from_formula("y ~ x1 + x2", ...).',
    ),
    ("outcome y Y yname", 'It stands in the formula.\nType  from_formula("{bare} ~ x1 + x2", ...).'),
    ("by subgroup subgroups", "Type  res.effects_by({value})  after the fit."),
    ("control control_level ref base baseline", "Type  reference={value}."),
    ("treated_level treatment_level", "Type  treated={value}."),
    ("na_action na_rm dropna", 'Type  missing="drop".'),
    ("singular_ok drop_collinear", _dependent),
    (
        "collin_tol",
        'Columns are judged by what rounding leaves of them. Leave it out, or type  collinear="raise"  to refuse them.',
    ),
    ("caliper ratio nearest exact neighbor nneighbor biasadj replace", outside("matching")),
    ("distance", _distance),
    ("cv k_split n_splits nfolds", "Type  n_folds={value}."),
    (
        "wnls omethod",
        "AIPW fits its outcome models by likelihood, IPWRA and JRE fit theirs under the weights. Leave it out.",
    ),
    ("estimator method", _method),
    ("measure estimate_type scale contrast", 'Type  effect=  "difference", "ratio", "odds_ratio" or "percent".'),
    ("seed random_state", "Type  fit(rng={value})  after the model."),
    ("vce vcov se", 'Type  fit(cov_type="robust")  after the model.'),
    *(
        (name, f"It belongs to the fit.\nType  from_formula(...).fit({name}={{value}}).")
        for name in (*_fields(InferenceOptions), *_fields(JREOptions))
        if name != "method"
    ),
)


def _elsewhere(advice: Advice, before: str, after: str) -> Advice:
    """Return the advice for a word that is given in the wrong one of two calls: what is typed goes to the other."""

    def told(given: Any) -> str:
        text = advice if isinstance(advice, str) else advice(given)
        return re.sub(r"(?<=\w  )(\w+=.*?)(?=  |\.$|\.\n)", rf"{before}\1{after}", text)

    return told


OF_A_MODEL = {name: _elsewhere(advice, "from_formula(..., ", ").fit()") for name, advice in MODEL_INSTEAD.items()}
OF_A_FIT = {name: _elsewhere(advice, "from_formula(...).fit(", ")") for name, advice in FIT_INSTEAD.items()}
FIT_INSTEAD = OF_A_MODEL | FIT_INSTEAD  # each knows the words of the other
MODEL_INSTEAD = OF_A_FIT | MODEL_INSTEAD
FIT_SEPARATE = FIT_INSTEAD | {
    name: f"{_OF_JRE}\nType  JRE.from_formula(...).fit({name}=...)." for name in _fields(JREOptions)
}
FIT_SEPARATE["method"] = (
    "Each model has its own search; JRE alone has several, JRE.from_formula(...).fit(method=...). Leave it out."
)
FROM_ARRAYS = MODEL_INSTEAD | named(
    ("data formula", 'A formula goes to from_formula.\nType  {owner}.from_formula("y ~ x1 + x2", data, treat="d").'),
    (
        "propensity results_select gform",
        "The arrays of the propensity model are exog_propensity=; a formula goes to from_formula.",
    ),
    (
        "outcome y Y x X W covariates A d D treatment",
        "Arrays are endog, exog and treat, in this order.\nType  {owner}(y, X, d).",
    ),
)
OF_RESULTS = named(
    ("level conf_level", "alpha is 1 less the level.\nType  alpha={less}."),
    ("ci", "Type  alpha=0.05  for 95% intervals."),
    ("newdata new_data exog X", "Type  data={value}."),
    ("treat treatment", "Type  arm={value}."),
    ("abs", "Differences are drawn without their signs; res.balance() has these. Leave it out."),
    ("stars", "Differences of proportions have their star anyhow. Leave it out."),
    ("bins", "The number of bars is fixed. Leave it out."),
    ("figsize", "Type  ax=plt.subplots(figsize={value})[1]."),
    ("scalar", "The statistic is a number already. Leave it out."),
    ("use_f use_t", "Tests are normal and chi-squared. Leave it out."),
    ("un disp", "Both are in the table, before and after weighting. Leave it out."),
    ("stats", "Differences, variance ratios and KS are in the table. Leave it out."),
    ("thresholds m_threshold", "Type  threshold=0.1."),
    ("addl", "Type  also={value}."),
    ("poly int", "Type  interactions=True."),
    ("aequations", "Type  coefficients={value}."),
    ("exponentiate eform type comparison", _scale),
    (
        "statistic te ps pomean options",
        "Type  res.potential_outcomes  for the means of each row in each arm, or  res.propensity_scores.",
    ),
    ("transform", "Rows are coded by the formula. Leave it out."),
    ("r_matrix", "Type  res.t_test({value})  for linear combinations."),
    ("remove_data", "Results compute from their data.\nType  res.tidy()  for the numbers alone."),
)
OF_TABLES = named(
    ("strata groupby group treat", "Type  by={value}."),
    ("vars variables columns", "Type  covariates={value}."),
    ("nonnormal", "Type  median={value}."),
    ("dfcom", "Type  df_complete={value}."),
    ("digits fmt decimals float_format", "Numbers have the digits of their standard errors. Leave it out."),
    ("caption", "Type  title={value}."),
    (
        "label output export file filename path tex",
        'A table writes itself.\nType  table.save("table.docx"), or  table.as_latex(label="tab:1").',
    ),
    ("pval pvalues pDigits test", "There are no p-values: they measure the sample size. Leave it out."),
    ("se vcov", 'Standard errors are those of the fits.\nType  below="se"  for where they stand.'),
    ("model_names models_names headers", "Type  names={value}."),
    ("coef_map coef_rename coef_labels", "Type  rename={value}."),
    ("coef_omit", "Type  drop={value}."),
    ("gof_map gof_omit model_stats scalars", 'Type  statistics=["nobs"].'),
    ("level conf_level", "alpha is 1 less the level.\nType  alpha={less}."),
)


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
    typed = next((from_teffects(given) for given in args if isinstance(given, str)), None)
    if typed:
        return f"Type  {typed}."
    listed_too = [part for given in args for part in (given if isinstance(given, list | tuple) else [given])]
    if any(hasattr(part, "params") for part in listed_too):
        return "Fits stand side by side in a table.\nType  etable([res1, res2])."
    return 'treat= says which column is the treatment.\nType  from_formula("y ~ x1 + x2", data, treat="d").'


REQUIRED: dict[str, Callable[[Sequence[Any]], str]] = {
    "treat": _without_treatment,
    "data": lambda _: 'The covariates come first.\nType  table_one(["x1", "x2"], data, by="d").',
}
OF_PACKAGE = named(
    (
        "modelsummary esttab estout outreg2 stargazer summary_col texreg estimates_table",
        "Type  causalrisk.etable([res1, res2]).",
    ),
    (
        "TableOne tableone CreateTableOne table1 tbl_summary",
        'Type  causalrisk.table_one(["x1", "x2"], data, by="d").',
    ),
    ("bal_tab cobalt", "Type  res.balance()."),
    ("love_plot", "Type  res.plot_balance()."),
    *((name, f"It is a method of results.\nType  res.{name}().") for name in ("tidy", "glance", "summary")),
    ("weightit WeightIt twang psweight PSweight CBPS cbps ebal", 'Type  causalrisk.Hajek.from_formula("y ~ 1", '
     'data, treat="d", propensity="x1 + x2").'),
    ("matchit MatchIt psmatch2 nnmatch", outside("matching")),
    ("tmle TMLE", outside("tmle")),
    *((name, f"Type  causalrisk.datasets.{name}().") for name in datasets.__all__),
)  # fmt: skip
OF_CLASS = named(
    ("load", 'Type  causalrisk.load("fit.pickle").'),
    ("from_data from_dataframe from_frame from_pandas", 'Type  IPWRA.from_formula("y ~ x1 + x2", data, treat="d").'),
)
NEW_MODEL = "It belongs to the data: make a new model with from_formula(...)."
OF_MODEL = named(
    ("update", "Another formula is another model: from_formula(...)."),
)
WITH_OPTIONS = MODEL_INSTEAD | dict.fromkeys(("formula", "data", *_fields(ColumnOptions), "propensity"), NEW_MODEL)
ESTIMATOR_WORDS = {word: spec.name for spec in ESTIMATORS for word in (spec.name.casefold(), *spec.aliases)}
MATCHING_WORDS = {"matching", "psmatch", "nnmatch", "psm", "match"}


def check_keywords(
    instead: Mapping[str, Advice], *sources: Callable[..., Any], without: Sequence[str] = ()
) -> Callable[[F], F]:
    """Decorate a function so that an unknown or a missing keyword is a TypeError that names what to use.

    It is the way into the package: interruptions that are lost within the call are raised at its end.

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
        known = [name for name in taken if name not in ("self", "cls")]
        needed = [p.name for p in own if p.kind is not p.VAR_POSITIONAL and p.default is p.empty]

        @functools.wraps(function)
        def _checked(*args: Any, **keywords: Any) -> Any:
            for name, value in keywords.items():
                if name not in taken:
                    where = _caller_name(function, args)
                    raise TypeError(unknown_keyword(where, name=name, known=list(taken), instead=instead, value=value))
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
            with interruptions_kept():
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
    few = (
        isinstance(value, list | tuple)
        and len(value) <= FEW
        and all(isinstance(v, str | numbers.Number) for v in value)
    )
    return repr(value) if short or few else "..."


def _share(level: Any) -> float:
    """Return a confidence level as a share, given as one or in percent."""
    return float(level) / (100 if level > 1 else 1)


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
            advice = _standard_errors(given[0])
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


def unknown_keyword(
    where: str, name: str, known: Sequence[str], instead: Mapping[str, Advice], value: Any = ...
) -> str:
    """Return the message for a keyword that is not known: what to use instead, the nearest, or all there are."""
    message = f"{where} got an unknown option {name!r}."
    if name in instead:
        shown = "..." if value is ... else typed(value)
        less = f"{1 - _share(value):.3g}" if isinstance(value, numbers.Real) else "0.05"
        filled = {
            "value": shown,
            "bare": shown.strip('"').lstrip("~ "),
            "less": less,
            "pair": limits_meant(value, (0.1, 0.9)),
            "owner": where.split(".")[0],
        }
        given = instead[name]
        advice = given if isinstance(given, str) else given(value)
        for place, text in filled.items():
            advice = advice.replace(f"{{{place}}}", str(text))
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
        if name in OF_CLASS:
            raise UnavailableError(f"{start} no attribute {name!r}.\n{OF_CLASS[name]}")
        raise UnavailableError(unknown_attribute(start, name, dir(cls), cls.__name__))


def unknown_attribute(what: str, name: str, known: Iterable[str], variable: str) -> str:
    """Return the message for an attribute that is not there: the one that is probably meant, or where all are listed.

    Parameters
    ----------
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
    advice = f"Did you mean  {variable}.{close} ?" if close else f"Type  dir({variable})  for all there are."
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
    if name in OF_PACKAGE:
        return f"{OF_PACKAGE[name]}"
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
    words = [part for text in others or [word] for part in re.split(r"[\s,]+", text.strip())]
    found = [ESTIMATOR_WORDS.get(w) or nearest_name(w, [*known, "IPW"], 0.6) for w in words]
    if word in MATCHING_WORDS:
        advice = outside("matching")
    else:
        advice = f"Type  estimators={json.dumps(found)}." if all(found) else "Type  estimators=  any of them."
    return f"estimators: {given!r} is not known; expected any of {listed(tuple(known))}{also}.\n{advice}"
