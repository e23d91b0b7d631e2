"""The methods paragraph of a fit, its references, and the Python call that repeats the fit."""

from __future__ import annotations

import json
import platform
import re
from importlib import resources
from importlib.metadata import version
from itertools import chain
from typing import Any

from causalrisk._version import __version__
from causalrisk.design.did import without_change
from causalrisk.estimation.options import MULTIPLIER, N_BOOT, InferenceOptions, JREOptions, defaults_of, typed_options
from causalrisk.estimation.record import FitRecord, JointRecord
from causalrisk.joint.shrinkage import LADDER
from causalrisk.numerics.resampling import JACKKNIFE, repeating, seed_text
from causalrisk.report import labels as words

NET_BIAS = "The net bias is the difference between the outcome models' biases"


def facts(record: FitRecord) -> dict[str, list[str]]:
    """Return the sentences about a fit, by subject, in the order of the methods paragraph. Some may be empty."""
    design, joint = record.design, record.joint
    own = "The estimator is the package's own implementation of Zhang's idea."
    if joint is not None and joint.anchor is not None:
        own += " The objective used here is the package's own and is unpublished."
    stack = () if record.stack is None else zip(record.stack.weights, record.stack.names, strict=True)
    weights = [f"{weight:.3f} ({name})" for weight, name in stack]
    formula = f"The effect is {words.effect_formula(record)}; POM is the potential-outcome mean of a group."
    return {
        "effect": [
            f"We estimated the {words.estimand_words(record)} of {design.treat_name} ({design.contrast}) on "
            f"{words.outcome_text(record)}, over {words.rows_words(record)}, by {record.spec.how}.",
            "" if record.options.effect_scale.additive else formula,
            "" if joint is None else own,
            words.trend_words(record) + words.santanna_words(record),
        ],
        "outcome": [
            words.learner_words(record),
            f"The averaging weights are {words.joined(weights)}." * bool(weights),
            words.repeats_words(record),
            _outcome_sentence(record),
            words.offset_words(record),
        ],
        "score": _score_sentences(record),
        "joint": [] if joint is None else [_objective_sentence(record, joint)],
        "sample": [_sample_sentence(record), words.missing_words(record), words.filled_words(record)],
        "errors": [f"Standard errors {_errors_source(record)}. {words.inference_words(record)}"],
    }


def methods(record: FitRecord) -> str:
    """Return the methods paragraph of the fit, as in the report.

    Returns
    -------
    str
        Estimand and population, estimator, models, trimming and clipping, the sample, standard errors, version
        and seed. References are given by author and year. The report lists them.

    Examples
    --------
    >>> from causalrisk import IPWRA, datasets
    >>> births = datasets.load_cattaneo2()
    >>> res = IPWRA.from_formula("bweight ~ mage", births, treat="mbsmoke").fit()
    >>> res.methods()[:58]
    'We estimated the average treatment effect (ATE) of mbsmoke'
    """
    return _paragraph(*chain(*facts(record).values()), _computed(seeds_text(record)))


def pooled_methods(pooled: Any) -> str:
    """Return a methods paragraph that describes the fits and how they were pooled.

    Returns
    -------
    str
        Estimand, models and sample, standard errors of each fit, Rubin's rules, version and seed.
    """
    first = pooled._record
    differ = first.joint is not None or first.learned is not None or first.trimmed or first.options.clip is not None
    said = facts(first)
    del said["errors"]
    return _paragraph(
        *chain(*said.values()),
        "Where the imputed data sets differ, the numbers above are from the first." if differ else "",
        f"In each imputed data set, standard errors {_errors_source(first)}.",
        words.pooled_words(first, pooled.n_imputations),
        _computed(seeds_text(*pooled._records)),
    )


def late_methods(res: Any) -> str:
    """Return a methods paragraph: estimand, instrument, models, sample, first stage and standard errors."""
    record, treat, instrument = res._record, res.model.treat, res.model.instrument
    outcome, said, weak = words.outcome_text(record), facts(record), ", which is weak" * res._weak
    first, first_se = res.summary_frame().iloc[1, :2]
    return _paragraph(
        f"We estimated the local average treatment effect (LATE) of {treat} on {outcome}, the average effect on "
        f"compliers, with the instrument {instrument} (Imbens and Angrist 1994). It is the effect of {instrument} on "
        f"{outcome} divided by the effect of {instrument} on {treat} (Tan 2006), over {words.rows_words(record)}. Both "
        f"effects were estimated by {record.spec.how}.",
        *said["outcome"],
        *said["score"],
        *said["sample"],
        f"The first stage is {first:.4g} (standard error {first_se:.4g}, F {res._shown_f}){weak}. An estimated "
        f"{res.complier_share:.1%} of the {res._whose} are compliers. The LATE is {res.effect:.4g} (standard error "
        f"{res.effect_se:.4g}). The 95% interval of Anderson and Rubin (1949), which is valid with a weak instrument, "
        f"is {res._ends()}.",
        f"Standard errors {_errors_source(record)}, jointly for both effects. {words.inference_words(record)}",
        _computed(seeds_text(record)),
    )


def study_methods(study: Any) -> str:
    """Return a methods paragraph: effects, controls, units, models, and standard errors."""
    record, given = study._record, study.given
    right = str(record.design.propensity_formula).partition("~")[2].strip()
    formula = "" if record.design.score is not None else " without covariates" if right == "1" else f": {right}"
    effects, units, *assumed = words.study_words(study)
    source = _errors_source(record).replace("each row in turn", "each unit in turn")  # a unit is a row of a fit
    return _paragraph(
        f"We estimated effects on {study.outcome} by difference-in-differences for each group and period (Callaway and "
        "Sant'Anna 2021). Units begin treatment at different times. A group is all units that begin in one period. "
        f"There are {len(study.periods)} periods ({given['time']}).",
        effects,
        units,
        f"Each effect was estimated by {record.spec.how}.",
        words.learner_words(record).replace("`res.stack`", "`stack` of each of `study.fits`"),
        _outcome_sentence(record),
        f"The propensity model was {words.propensity_text(record)}{formula}." * record.uses_score,
        *assumed,
        f"Standard errors {source}, jointly for all groups and periods.{words.small_sample_words(record)} Confidence "
        f"intervals use {words.distribution_of(study.df)}. Intervals for several effects are simultaneous.",
        *(words.sentence(note.splitlines()[0]) for note in study.notes),
        _computed(seeds_text(record)),
    )


def permutation_methods(test: Any) -> str:
    """Return a methods paragraph.

    Returns
    -------
    str
        Hypothesis, estimator, statistic, what was permuted and how often, version and seed.
    """
    design, number = test.record.design, f"{test.n_permutations:,}"
    others = {"difference": "the effect", "wald": "the Wald statistic of all effects"}
    statistic = others.get(test.kind, "the effect divided by its robust standard error")
    return _paragraph(
        f"We tested the hypothesis that {design.treat_name} has no effect on {design.endog_name} for any unit, by a "
        f"permutation test ({test.alternative}; Phipson and Smyth 2010).",
        f"The effect was estimated by {test.record.spec.how}. The statistic is {statistic}. It was computed under "
        f"{f'all {number}' if test.exact else f'{number} random'} assignments of the treatment among "
        f"{test.assignment.words}.",
        _computed("" if test.exact else f"seed {seed_text(test.seed)}"),
    )


def seeds_text(*records: FitRecord) -> str:
    """Return "seed 0", or the seeds of several fits. Empty if no random number was drawn."""
    first = records[0]
    learned = first.learned is not None or first.options.propensity_score is not None
    if first.joint is None and not learned and (first.boot is None or first.cov_type == "replicates"):
        return ""
    seeds = list(dict.fromkeys(seed_text(record.seed) for record in records))
    return f"seed{'s' * (len(seeds) > 1)} {words.joined(seeds)}"


def _computed(seeds: str) -> str:
    return f"Computed by causalrisk {__version__}{seeds and f' from {seeds}'}."


def _paragraph(*sentences: str) -> str:
    return " ".join(filter(None, sentences))


def _outcome_sentence(record: FitRecord) -> str:
    design, options, spec = record.design, record.options, record.spec
    formula = without_change(design.formula, options.did) if design.formula else ", ".join(design.exog_names)
    if options.quantiles:
        levels = words.joined([f"{level:g}" for level in options.quantiles])
        models = f". The outcome models were logit models of whether the outcome is at most each quantile: {formula}"
        if spec.constants:
            models = ", estimated by weighted quantiles" * spec.weighted
        return f"Effects are differences of the quantiles {levels} of the potential outcomes (Firpo 2007){models}."
    if spec.matched:
        return words.matching_words(record)
    if spec.constants or spec.given:
        return ""
    whose = "" if options.did is None else " of the change" if design.periods is None else " of each period"
    joined = " The linear predictor of the propensity score was added to the formula."
    joined *= record.joint is not None and record.joint.score_joined
    return f"Outcome models{whose} were {record.sample.family.label}: {formula}.{joined}"


def _sample_sentence(record: FitRecord) -> str:
    """Describe the sample. Empty if the means are averages over exactly these rows."""
    design = record.design
    size = words.count(design.nobs, design.unit_name)
    text, unit = f"The sample has {size}", f"other {design.unit_name.replace('observation', 'row')}"
    if design.weight_type is not None:
        text += f" with {design.weight_type} weights ({design.weights_name})"
    if design.n_dropped:
        text += f"; {words.count(design.n_dropped, unit)} {'was' if design.n_dropped == 1 else 'were'} left out"
    if design.n_outside:
        text += f"; {design.n_outside} rows outside the subpopulation are used only for the standard errors"
    return "" if text.endswith(size) and size in words.rows_words(record) else f"{text}."


def _score_sentences(record: FitRecord) -> list[str]:
    design, options, text = record.design, record.options, words.propensity_text(record)
    if not record.uses_score:
        return []
    terms = design.propensity_formula or ", ".join(design.propensity_names)
    first = f"Propensity scores were {text} (Rosenbaum and Rubin 1983)."
    if design.score is None:
        model = f"a {text}{' (Tan 2020)' if options.propensity_loss == 'calibrated' else ' model'}"
        if options.propensity_score is not None:
            model = f"{text}, cross-fitted (Chernozhukov et al. 2018)"
        first = f"The propensity score (Rosenbaum and Rubin 1983) was estimated by {model}: {terms}."
    trimmed = f"Rows were trimmed by their propensity score: {record.trimmed}." * bool(record.trimmed)
    clipped = "" if options.clip is None else f"Propensity scores were clipped: {words.clip_text(record)}."
    transported = (
        "The weights include the density ratio of the covariates, target frame over sample, from a logit model of "
        "membership in the target frame on the covariates of the propensity formula."
    ) * (record.frame is not None)
    return [first, trimmed, clipped, transported]


def _objective_sentence(record: FitRecord, joint: JointRecord) -> str:
    kind = "points of the distribution" if joint.replicates.cubature else "random draws"
    kind = kind if joint.drawn is None else "given draws"
    over, path = f"averaged over {joint.replicates.count} {kind} of the propensity score", joint.path
    over, fitted = (over, "fitted") if record.used_weight_fit.estimated else ("at the given propensity score", "given")
    if joint.anchor is None:
        return (
            "The outcome models of all groups were fitted together. They minimise the weighted loss plus half the "
            f"squared number of rows times the squared net bias, {over}. {NET_BIAS}."
        )
    chosen = "given" if path is None else f"chosen between {LADDER[-1]:g} and {LADDER[0]:g} by cross-validation"
    if path is not None and path.raised_from is not None:
        why = "because JRE's robust variance was larger than IPWRA's"
        chosen = f"raised from {path.raised_from:.3g} ({chosen}), {why}"
    share = (
        " Heterogeneity of the effect adds to the sampling variance. The objective leaves out "
        f"{joint.share:.1%} of this heterogeneity, as estimated by IPWRA. The standard errors include all of it."
    ) * bool(joint.share)
    return (
        "The outcome models of all groups were fitted together to minimise the risk of the "
        f"{record.options.population.estimand} (squared net bias plus sampling variance), {over}. "
        f"{NET_BIAS}. It is zero at the {fitted} propensity score. The weight of the shrinkage toward IPWRA, "
        f"{joint.anchor:g}, was {chosen}.{share}"
    )


def _errors_source(record: FitRecord) -> str:
    """Describe the source of the standard errors, in words that follow "Standard errors"."""
    design, survey = record.design, record.design.survey
    if survey is not None and record.cov_type in ("survey", "replicates"):
        linear = survey.replication is None
        how = "linearised (Binder 1983)" if linear else "from estimates under replicate weights"
        return f"are {how} for the survey design, {words.survey_words(survey)} (Lumley 2010)"
    kept = ["the predictions of the learner"] * (record.learned is not None)
    kept += ["the outcome predictions"] * (design.predictions is not None)
    if (joint := record.joint) is not None:
        kept += ["the shrinkage"] * (joint.anchor is not None) + ["the share of heterogeneity"] * bool(joint.share)
        kept += ["the propensity-score term"] * joint.score_joined
    kept += ["the trimmed sample"] * bool(record.trimmed)
    unit = design.unit_name if design.cluster_name is None else f"cluster of {design.cluster_name}"
    again = f"every step but keep {words.joined(kept)}" if kept else "every step"
    if record.boot is not None:
        what = "standard deviation" if record.joint is None else "root mean square deviation from the estimate"
        used = f"are the {what} over {len(record.boot.used)}"
        if record.multiplied:
            kind = f"{record.bootstrap} multipliers of the influence of each {unit}"
            return f"{used} draws of the multiplier bootstrap (Kline and Santos 2012): {kind}"
        weighted = record.bootstrap == "bayesian" and not record.given_resamples
        units = "rows" if design.cluster_name is None else "clusters"
        kind = "given resamples" if record.given_resamples else words.RESAMPLES[record.bootstrap].format(units=units)
        source = "Rubin 1981" if weighted else "Efron and Tibshirani 1993"
        return f"{used} resamples ({source}): {kind}. The resamples repeat {again}"
    if record.cov_type == JACKKNIFE:
        return (
            f"are from refits that leave out each {unit} in turn (jackknife; Efron and Stein 1981) and repeat {again}"
        )
    if record.spec.matched:
        score = " and account for the estimated propensity score (Abadie and Imbens 2016)"
        estimated = record.options.metric == "propensity" and record.used_weight_fit.estimated
        return "follow Abadie and Imbens (2006)" + score * estimated
    models = "the models other than the learner" if record.learned is not None else "all models"
    text = f"are from the stacked estimating equations of {models} (Stefanski and Boos 2002)"
    if record.cov_type == "cluster":
        text += f", clustered by {words.joined(design.cluster_names)}"
    text += " (Cameron, Gelbach and Miller 2011)" * (design.second_cluster is not None)
    return text + ", given the classifier's scores" * (record.options.propensity_score is not None)


def references(text: str, *keys: str) -> list[str]:
    """Return the references that a text cites by author and year, or that `keys` name, in alphabetical order."""
    known = json.loads(resources.files(__package__).joinpath("references.json").read_text("utf-8"))
    found = []
    for key, reference in known.items():
        author, year = reference.partition(",")[0], reference.partition("(")[2][:4]
        if key in keys or re.search(rf"\b{author}\b[^()\d]*\(?{year}", text):
            found.append(reference)
    return sorted(found)


def versions_text() -> str:
    """Return the versions of the package, of Python and of the libraries."""
    found = [f"{name} {version(name)}" for name in ("numpy", "scipy", "pandas", "patsy", "statsmodels")]
    return f"causalrisk {__version__}, Python {platform.python_version()}, {', '.join(found)}"


def call_of(record: FitRecord) -> str:
    """Return the Python call that repeats a fit: the options as they were typed, and the seed."""
    typed, fit, study = dict(record.options.typed), typed_fit(record), "begins" in record.options.typed
    name = "event_study" if study else "LATE" if "instrument" in typed else record.spec.name
    call, head = name, [] if study else ["y, X, treat,  # outcome, outcome design, treatment"]
    if "formula" in typed and not study:
        call, head = f"{name}.from_formula", [f"{typed.pop('formula')},", "data,"]
    head += [f"{key}={value}," for key, value in typed.items()]
    names = [name, *(used for used in ("DiD", "Survey") if any(text.startswith(f"{used}(") for text in typed.values()))]
    others = ["import numpy as np"] * fit["rng"].startswith("np.")
    first = "study" if study else "model"
    lines = [f"from causalrisk import {', '.join(sorted(names))}", *others, "", f"{first} = {call}("]
    last = [f"res = model.fit({', '.join(f'{key}={value}' for key, value in fit.items())})"] * (not study)
    return "\n".join([*lines, *(f"    {line}" for line in head), ")", *last])


def typed_fit(record: FitRecord) -> dict[str, str]:
    """Return the options of `fit` as they are typed, and the seed that repeats it."""
    given, joint = vars(record.inference), record.joint
    if joint is not None:
        given = given | vars(joint.options) | {"replicates": joint.drawn}
    typed = typed_options(given, defaults_of(InferenceOptions, JREOptions))
    drawn, surveyed = record.boot is not None and record.cov_type != "replicates", record.design.survey is not None
    others = ["cov_type"] * (drawn or surveyed) + ["bootstrap", "multiplier"] * (not drawn and joint is None)
    for name in ("n_jobs", "progress", "n_boot", *others):  # the IPWRA fit within a JRE fit has JRE's options
        typed.pop(name, None)
    if record.given_resamples:
        typed["resamples"] = "resamples"
    elif record.boot is not None and drawn:  # JRE may have chosen the kind
        typed["bootstrap"] = repr(MULTIPLIER if record.multiplied else record.bootstrap)
        if len(record.boot.failures) != N_BOOT:
            typed["n_boot"] = str(len(record.boot.failures))
        if record.small_sample:
            typed["small_sample"] = "True"
    elif not surveyed and (joint is not None or typed.get("cov_type") == "'bootstrap'"):
        typed["cov_type"] = repr(record.cov_type)
    module = "" if isinstance(repeating(record.seed), int) else "np.random."
    return typed | {"rng": f"{module}{seed_text(record.seed)}"}
