"""Table of the option values that each estimator supports besides the defaults. Other values raise an error."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

from causalrisk.design.design import Design
from causalrisk.design.did import DiD
from causalrisk.errors import IN_MEMORY, OptionError, UnavailableError
from causalrisk.estimation.options import REPLACE, STACK, TERMS, ModelOptions, is_frame
from causalrisk.estimation.specification import POPULATIONS, Specification

PLAIN = {  # values that every estimator supports
    "effect": "difference", "target": "all", "family": "gaussian", "link": "identity", "propensity_link": "logit",
    "propensity_loss": "ml", "cov_type": "robust", "metric": "mahalanobis",
}  # fmt: skip
EVERY: dict[str, tuple[Any, ...]] = {  # values of all estimators but Matching; ABILITIES has the exceptions
    "effect": ("ratio", "odds_ratio", "percent"),
    "target": ("treated", "control", "overlap", "matching", "entropy", "level", "function", "data frame"),
    "family": ("binomial", "poisson", "gamma", "inversegaussian", "negativebinomial"),
    "link": ("log", "logit", "probit", "cloglog"), "propensity_link": ("probit", "cloglog"),
    "propensity_loss": ("calibrated",),
    "propensity_score": ("values", "classifier"), "trim": ("crump", "separated", "limits"), "clip": ("limits",),
    "did": ("panel", "cross sections"), "observed": ("formula",), "data": ("scan",),
    "offset": ("column",), "at_exposure": ("observed", "stated"), "weights": ("frequency", "probability"),
    "cov_type": ("HC1", "cluster", "jackknife", "bootstrap", "survey", "replicates"), "small_sample": (True,),
    "bootstrap": ("pairs", "bayesian", "cluster", "stratified", "rescaled", "rademacher", "webb", "mammen"),
}  # fmt: skip
WITH_QUANTILES = EVERY | {"effect": (*EVERY["effect"], "quantile")}
ABILITIES = {  # if an option has several values, the first is its default
    "Unadjusted": WITH_QUANTILES,
    "OutcomeRegression": EVERY | {"learner_use": (TERMS,)},
    "IPW": WITH_QUANTILES,
    "IPWRA": EVERY | {"learner_use": (TERMS,)},
    "AIPW": WITH_QUANTILES | {
        "learner_use": (REPLACE, TERMS), "did": (*EVERY["did"], "normalize=False"), "at_exposure": ("observed",),
        "normalize": (True,), "outcome_predictions": ("columns",),
    },
    "TMLE": EVERY | {
        "learner_use": (REPLACE, TERMS), "did": (), "at_exposure": ("observed",), "outcome_predictions": ("columns",),
    },
    "Matching": {
        "effect": EVERY["effect"], "target": ("treated", "control", "level"), "trim": EVERY["trim"],
        "propensity_link": EVERY["propensity_link"], "propensity_score": ("values",), "n_neighbors": ("number",),
        "metric": ("inverse_variance", "propensity"), "exact": ("names",), "caliper": ("distance",),
        "bias_adjust": ("names",),
    },
    "JRE": EVERY | {"learner_use": (STACK, TERMS), "did": ("panel",), "at_exposure": ("observed",)},
}  # fmt: skip
NOT_TYPED = (  # words of the table that describe a value instead of spelling it
    *("values", "classifier", "limits", "panel", "cross sections", "formula", "column", "columns", "number", "names"),
    *("distance", "level", "function", "data frame"),
)
IMPLIED_BY = {"cluster": "cluster", "survey": "design", "replicates": "design"}  # kind of standard errors: model option
QUANTILES = EVERY | {  # for quantiles, which have no outcome family and no valid jackknife
    **{option: () for option in ("family", "link", "offset", "at_exposure", "data")},
    "effect": ("quantile",),
    "cov_type": ("cluster", "bootstrap", "survey", "replicates", "HC1"),
}
PREDICTIONS = EVERY | {  # for given predictions, which exist only for the rows and outcomes of the data
    **{option: () for option in ("offset", "at_exposure", "data")},
    "target": tuple(target for target in EVERY["target"] if target != "data frame"),
    "did": ("panel", "normalize=False"),
    "normalize": (True,),
    "outcome_predictions": ("columns",),
}


def check_able(spec: Specification, quantiles: bool = False, **asked: Any) -> None:
    """Raise an error for an option value that the estimator does not support. A value of None is not checked."""
    rows = {spec.name: ABILITIES.get(spec.name, {})} | ({"quantiles": QUANTILES} if quantiles else {})
    rows |= {"outcome_predictions=": PREDICTIONS} if asked.get("outcome_predictions") else {}
    for (name, row), (option, value) in itertools.product(rows.items(), asked.items()):
        own = row.get(option, ())
        if value is None or value in (PLAIN.get(option), *own):
            continue
        shown = f" ({value})" if value in NOT_TYPED else f'"{value}"' if isinstance(value, str) else value
        public = [one for one in ABILITIES if one != "Unadjusted"] if name == spec.name else []
        others = [one for one in public if value in ABILITIES[one].get(option, ())]
        only = f", only for {', '.join(others)}" if others else ""
        other = own[0] if own and option in ("learner_use", "at_exposure") else PLAIN.get(option)
        instead = f"leave `{IMPLIED_BY.get(value, option.removeprefix('at_'))}=` out"
        if option == "data":
            shown, instead = "scan(...)", f"use `{IN_MEMORY}`"
        elif option == "learner_use" and not own:
            option, shown, instead = "learner", "", "leave `learner=` and `learner_use=` out"
        elif other and option != "link" and value not in IMPLIED_BY:
            instead = f'use `{option}="{other}"`'
        if value == "stated":  # at_exposure is a number or None
            option, shown = "exposure", f" without {option}={other!r}"
        advice = f"use one of these, or {instead}" if others else instead
        kind = UnavailableError if option == "data" else OptionError
        raise kind(f"{option}={shown} is not available for {name}{only}.\n{advice[0].upper()}{advice[1:]}.")


def check_options(spec: Specification, design: Design, options: ModelOptions) -> None:
    """Raise an error for model options that the estimator does not support."""
    target, family, did, stated, change = options.population.name, options.outcome_family, options.did, None, None
    if target not in POPULATIONS:  # a level of the treatment has its label as a name
        target = "function" if callable(options.target) else "data frame" if is_frame(options.target) else "level"
    if design.offset_kind == "exposure" and family.link == "log":  # other links are refused later
        stated = "observed" if options.stated_exposure(design) is None else "stated"
    if did is not None:  # with cross sections, residual weights are always normalised
        change = "cross sections" if did.cross_sections else "panel" if did.normalize else "normalize=False"
    score = "values" if design.score is not None else None
    used = None if options.learner is None else use_of_learner(spec, options) or TERMS
    asked = {
        "effect": options.effect, "target": target, "family": family.name, "link": family.link,
        "propensity_link": options.propensity_link, "propensity_loss": options.propensity_loss,
        "propensity_score": score if options.propensity_score is None else "classifier",
        "trim": options.trim and (options.trim if isinstance(options.trim, str) else "limits"),
        "clip": options.clip and "limits", "learner_use": used, "did": change,
        "observed": design.observation and "formula", "at_exposure": stated,
        "weights": None if design.survey is not None else design.weight_type,  # a survey is refused by its cov_type
        "offset": "column" if design.offset_kind == "offset" else None, "normalize": options.normalize or None,
        "outcome_predictions": None if design.predictions is None else "columns",
        "n_neighbors": "number" if options.n_neighbors > 1 else None, "metric": options.metric,
        "exact": options.exact and "names", "caliper": options.caliper and "distance",
        "bias_adjust": options.bias_adjust and "names", "data": "scan" if design.on_disk else None,
    }  # fmt: skip
    check_able(spec, bool(options.quantiles), **asked)


def options_used(spec: Specification, options: ModelOptions) -> ModelOptions:
    """Return the options, without a learner if the outcome models are constants."""
    return dataclasses.replace(options, learner=None, learner_use=None, n_repeats=1) if spec.constants else options


def use_of_learner(spec: Specification, options: ModelOptions) -> str | None:
    """Return how predictions of a learner are used ("terms", "replace" or "stack"), or None without a learner."""
    if options.learner is None or spec.constants:
        return None
    use = options.learner_use or next(iter(ABILITIES.get(spec.name, {}).get("learner_use", ())), None)
    if use == REPLACE and isinstance(options.learner, list | tuple) and len(options.learner) > 1:
        problem = f"learner= has {len(options.learner)} learners, but only one can replace the outcome model"
        raise OptionError(f'{problem}.\nUse `learner_use="terms"`, or a single learner.')
    return use


def with_change(spec: Specification, did: DiD) -> Specification:
    """Return the estimator's specification for difference-in-differences."""
    chosen = did.normalize and "normalize=False" in ABILITIES.get(spec.name, {}).get("did", ())
    controls_only = not (spec.joint or did.cross_sections)
    return dataclasses.replace(spec, normalized=spec.normalized or chosen, controls_only=controls_only)
