"""A fit for those who repeat it: the methods paragraph, its references, and the call in Python."""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Mapping, Sequence
from importlib import resources
from importlib.metadata import version
from typing import Any

import numpy as np

from causalrisk._version import __version__
from causalrisk.design.did import without_change
from causalrisk.design.encoders import without_indicators
from causalrisk.estimation.options import MULTIPLIER, JREOptions, ModelOptions
from causalrisk.estimation.record import FitRecord, JointRecord
from causalrisk.estimation.specification import JRE
from causalrisk.estimation.targets import TargetPopulation
from causalrisk.inference.covariance import start_record
from causalrisk.inference.intervals import rounded_se
from causalrisk.inference.paired_resamples import start_difference
from causalrisk.joint.shrinkage import LADDER
from causalrisk.numerics.multiplicities import JACKKNIFE, repeating, seed_text
from causalrisk.report import labels as words
from causalrisk.report.tables.text import column_format, format_number, signed_p


def objective_sentence(record: FitRecord, joint: JointRecord) -> str:
    """Sentence on the objective that was minimised."""
    units = "rows"
    if record.design.cluster_name is not None:
        units = "clusters" if record.design.survey is None else "first-stage units"
    how = f"random weights of the {units}"
    if joint.replicates.cubature:
        how = "points that represent the normal distribution of its coefficients"
    over = f"{joint.replicates.count} propensity replicates ({how}, spread "
    over += f"{joint.options.replicate_spread:g})" if joint.drawn is None else "as given)"
    if joint.anchor is None:
        return (
            f"The arms were trained together by weighted fit plus {joint.own_penalty:.4g} times the squared net "
            f"bias over {over}."
        )
    chosen = "was given"
    if joint.path is not None:
        chosen = f"was {words.choice_of_anchor(joint.path, f' between {LADDER[0]:g} and {LADDER[-1]:g}')}"
    return (
        "The arms were trained together to minimise the expected ATE risk (squared net bias plus sampling variance) "
        f"over {over}, with no net bias at the fitted score. The weight of the fit, {joint.anchor:g}, {chosen}. Of the "
        f"effect heterogeneity at the start, a share of {joint.share:.3g} was left out of the variance."
    )


def _beside_sentence(record: FitRecord) -> str:
    """Sentence with the effects by JRE and by IPWRA, and on the same resamples the differences."""
    start, count, texts = start_record(record), len(record.effect_names), []
    paired = None if record.boot is None or record.boot.start is None else start_difference(record).to_numpy()
    errors = start.std_errors if paired is None else paired[:, 1]
    for k, name in enumerate(record.effect_names):
        own, own_se, before = record.estimate.params[k], record.std_errors[k], start.estimate.params[k]
        spec = column_format(rounded_se(np.array([own]), np.array([own_se])), np.array([own, before]))
        text = f"{name} = {own:{spec}} ({own_se:{spec}}) by JRE and {before:{spec}} ({errors[k]:{spec}}) by IPWRA"
        if paired is not None:
            difference, se, _, p = paired[count + k, :4]
            text += f", difference {format_number(difference)} ({format_number(se)}), p {signed_p(p)}"
        texts.append(text)
    same = "robust" if paired is None else "the same resamples'"
    same = same if record.design.survey is None else "the survey design's"
    return f"With the same models ({same} standard errors in parentheses): {'; '.join(texts)}."


def methods(record: FitRecord) -> str:
    """Return the methods paragraph of the fit, as in the report.

    Returns
    -------
    str
        Estimand and population, estimator, models, trimming and clipping, the sample, standard errors, version
        and seed; of JRE also the estimate with IPWRA's beside, and their difference. References are named by author
        and year; the report lists them.

    Examples
    --------
    >>> from causalrisk import IPWRA, datasets
    >>> births = datasets.load_cattaneo2()
    >>> res = IPWRA.from_formula("bweight ~ mage", births, treat="mbsmoke").fit()
    >>> res.methods()[:58]
    'We estimated the average treatment effect (ATE) of mbsmoke'
    """
    parts = _model_sentences(record)
    parts.append(f"Standard errors {errors_source(record)}; {_intervals_clause(record)}.")
    if record.joint is not None:
        parts.append(_beside_sentence(record))
    parts.append(f"Computed by causalrisk {__version__} from seed {seed_text(record.seed)}.")
    return " ".join(parts)


def pooled_methods(records: Sequence[FitRecord]) -> str:
    """Return the methods paragraph of fits to imputed data sets that are pooled; see `PooledResults.methods`."""
    first, seeds = records[0], list(dict.fromkeys(seed_text(record.seed) for record in records))
    parts = [*_model_sentences(first), f"The models were fitted to each of {len(records)} imputed data sets."]
    if first.joint is not None or first.learned is not None or first.trimmed or first.options.clip is not None:
        parts.append("Numbers above that differ between the data sets are those of the first.")
    logs = "" if first.options.effect_scale.additive else " Effects were pooled on the logarithmic scale."
    parts += [
        f"In each, standard errors {errors_source(first)}.",
        "Estimates were pooled by Rubin's rules (Rubin 1987): they are means over the data sets, and their variance is "
        f"the mean variance plus 1 + 1/{len(records)} times the variance between the data sets.{logs}",
        "Intervals are of the t distribution with the degrees of freedom of Barnard and Rubin (1999).",
        f"Computed by causalrisk {__version__} from seed{'s' * (len(seeds) > 1)} {words.joined(seeds)}.",
    ]
    return " ".join(parts)


def _model_sentences(record: FitRecord) -> list[str]:
    """Sentences on the effect, the models and the sample."""
    design, options = record.design, record.options
    parts = [
        f"We estimated the {words.estimand_words(record)} of {design.treat_name} ({design.contrast}) on "
        f"{words.outcome_text(record)}, over {words.rows_words(record)}, by {record.spec.how}."
    ]
    if not options.effect_scale.additive:
        parts.append(f"It is {words.effect_formula(record)}; POM is the potential-outcome mean of a group.")
    if record.joint is not None:
        text = "This version of the estimator is the package's own implementation of that paper's idea"
        parts.append(f"{text}{'' if record.joint.anchor is None else '; its default objective is not in any paper'}.")
    if options.did is not None:
        parts.append(words.trend_words(record) + words.santanna_words(record))
    if record.learned is not None:
        how = "fitted to the rows of the arm" if options.n_folds == 1 else f"cross-fitted in {options.n_folds} folds"
        repeated = f", {options.n_repeats} times with other folds" if options.n_repeats > 1 else ""
        parts.append(f"Learners were {how}{repeated} (Chernozhukov et al. 2018). {words.learner_words(record)}")
        if record.stack is not None:
            pairs = zip(record.stack.weights, record.stack.names, strict=True)
            parts.append(f"The weights are {words.joined([f'{weight:.3f} ({name})' for weight, name in pairs])}.")
        if repeated:
            parts.append("The estimate is the median over the folds, with the variance of Chernozhukov et al. (2018).")
    if options.quantiles:
        parts.append(_quantile_sentence(record))
    elif not (record.spec.constants or record.spec.given):
        whose = "" if options.did is None else " of the change" if design.periods is None else " of each period"
        model = f"Outcome models{whose} were {record.sample.family.label}"
        formula = design.formula and without_change(design.formula, options.did)
        parts.append(f"{model}: {formula}." if formula else f"{model} in {', '.join(design.exog_names)}.")
    if record.design.offset_kind is not None:
        parts.append(words.offset_words(record))
    if record.spec.uses_propensity:
        parts.append(_propensity_sentence(record))
    if record.joint is not None:
        parts.append(objective_sentence(record, record.joint))
    if record.trimmed:
        parts.append(f"Rows were left out by their propensity score: {record.trimmed}.")
    if options.clip is not None and record.weight_fit is not None:
        parts.append(f"Propensity scores were clipped: {words.clip_text(record)}.")
    filled = words.filled_counts(record)
    parts += filter(None, [sample_sentence(record), words.missing_words(record)])
    if filled:
        parts.append(
            f"Missing covariates ({filled}) were set to a constant, with an indicator (Groenwold et al. 2012)."
        )
    return parts


def sample_sentence(record: FitRecord) -> str:
    """Sentence on the rows in the sample, their weights, and those left out."""
    design = record.design
    text = f"The sample has {words.count(design.nobs, design.unit_name)}"
    if design.weight_type is not None:
        text += f" with {design.weight_type} weights ({design.weights_name})"
    text += f"; {design.n_dropped} were left out" if design.n_dropped else ""
    if design.n_outside:
        text += f"; {design.n_outside} outside of the subpopulation stay in the design for the standard errors"
    return f"{text}."


def _quantile_sentence(record: FitRecord) -> str:
    """Sentence on the quantiles, and the models of outcomes up to them."""
    levels, design = words.joined([f"{level:g}" for level in record.options.quantiles]), record.design
    what = f"Effects are differences of the quantiles {levels} of the potential outcomes (Firpo 2007)"
    if record.spec.constants:
        return f"{what}, which are weighted quantiles." if record.spec.weighted else f"{what}."
    source = design.formula if design.formula else ", ".join(design.exog_names)
    return f"{what}; the outcome models were logits of the outcomes up to each quantile: {source}."


def _propensity_sentence(record: FitRecord) -> str:
    design, text = record.design, words.propensity_text(record)
    if design.score is not None:
        return f"Propensity scores were {text} (Rosenbaum and Rubin 1983)."
    formula = design.propensity_formula
    what = f": {formula}" if formula else f" in {', '.join(design.propensity_names)}"
    loss = " (Tan 2020)" if record.options.propensity_loss == "calibrated" else ""
    if record.options.propensity_score is not None:
        loss = ", cross-fitted (Chernozhukov et al. 2018)"
    return f"The propensity score (Rosenbaum and Rubin 1983) was estimated by {text}{loss}{what}."


def errors_source(record: FitRecord) -> str:
    """Words on the source of the standard errors, behind these two."""
    survey = record.design.survey
    if survey is not None and record.cov_type in ("survey", "replicates"):
        linear = survey.replication is None
        how = "linearised (Binder 1983)" if linear else "from estimates under replicate weights"
        return f"are {how} for the survey design, {words.survey_words(survey)} (Lumley 2010)"
    if record.boot is not None:
        kind = "given resamples" if record.given_resamples else words.resamples_words(record)
        what = "standard deviation" if record.joint is None else "root mean square deviation from the estimate"
        used = f"are the {what} over {len(record.boot.used)}"
        if record.multiplied:
            return f"{used} draws of the multiplier bootstrap (Kline and Santos 2012): {kind}"
        return f"{used} resamples that redo {words.redone_words(record)} ({kind})"
    if record.cov_type == JACKKNIFE:
        again = f"redoes {words.redone_words(record)} without each {words.left_out_words(record)} in turn"
        return f"are by the jackknife, which {again} (Efron and Stein 1981)"
    clustered = f", clustered by {words.joined(record.design.cluster_names)}" if record.cov_type == "cluster" else ""
    clustered += " (Cameron, Gelbach and Miller 2011)" if record.design.second_cluster is not None else ""
    clustered += f", with the small-sample factor {words.factor_text(record)}" if record.small_sample else ""
    taken = "" if record.learned is None else ", at the predictions of the learner"
    return f"are from the stacked estimating equations of all models{clustered} (Stefanski and Boos 2002){taken}"


def _intervals_clause(record: FitRecord) -> str:
    """Clause on the intervals; those of a ratio are computed on the logarithmic scale."""
    text = f"intervals are {words.distribution_words(record)}"
    if record.options.effect_scale.additive:
        return text
    source = "" if record.boot is None else ", with the variation of the logarithms over the resamples,"
    return f"{text}, computed on the logarithmic scale{source} and transformed back"


def references(
    record: FitRecord,
    crump: bool = False,
    balance_test: bool = False,
    sensitivity: bool = False,
    staggered: bool = False,
) -> list[str]:
    """Return the references that the methods paragraph and the readings cite, in alphabetical order."""
    options, cited = record.options, {record.spec.reference, record.options.population.reference} - {""}
    if record.spec.uses_propensity:
        cited |= {"rosenbaum_1983", JRE.reference}
    weighted = record.bootstrap == "bayesian" and not record.given_resamples
    survey = record.cov_type in ("survey", "replicates")
    if survey:
        cited |= {"lumley_2010"} if record.cov_type == "replicates" else {"binder_1983", "lumley_2010"}
    elif record.boot is None:
        cited.add("efron_1981" if record.cov_type == JACKKNIFE else "stefanski_2002")
    else:
        cited.add("kline_2012" if record.multiplied else "rubin_1981" if weighted else "efron_1993")
    wanted = (
        ("firpo_2007", bool(options.quantiles)),
        ("tan_2020", options.propensity_loss == "calibrated"),
        ("robins_1995", record.design.observation is not None and record.spec.uses_propensity),
        ("chernozhukov_2018", options.propensity_score is not None or record.learned is not None),
        ("cameron_2011", record.design.second_cluster is not None),
        ("crump_2009" if record.design.n_arms == 2 else "yang_2016", crump or options.trim == "crump"),
        ("imai_2014", balance_test),
        ("groenwold_2012", bool(words.filled_counts(record))),
        ("santanna_2020", bool(words.santanna_words(record))),
        ("callaway_2021", staggered),
        ("vanderweele_2017", sensitivity),
        ("chernozhukov_2022", sensitivity),
    )
    known = json.loads(resources.files(__package__).joinpath("references.json").read_text("utf-8"))
    return sorted(known[key] for key in cited | {key for key, holds in wanted if holds})


SPECIAL = {"learner", "repeat", "read_as", "family", "propensity_score", "target"}  # no plain values
SPELLED = [field.name for field in dataclasses.fields(ModelOptions) if field.name not in SPECIAL]


def call_of(record: FitRecord) -> str:
    """Return the Python call that repeats a fit. Objects that cannot be spelled out get a name with a comment."""
    names = ", ".join(sorted([record.spec.name, *(["DiD"] if record.options.did is not None else [])]))
    numpy = "" if isinstance(repeating(record.seed), int) else "\nimport numpy as np"
    design, lines = record.design, [f"from causalrisk import {names}{numpy}", ""]
    given = _data_options(record) | _model_options(record)
    if design.formula is not None:
        formula = without_change(without_indicators(design.formula, design.filled), record.options.did)
        head = [f"    {formula!r},", "    data,", f"    treat={design.treat_name!r},"]
        lines.append(f"model = {record.spec.name}.from_formula(")
    else:
        head = ["    y, X, treat,  # outcome, outcome design, treatment"]
        lines.append(f"model = {record.spec.name}(")
    lines += [*head, *(f"    {name}={value}," for name, value in given.items()), ")"]
    fit = ", ".join(f"{name}={value}" for name, value in _fit_options(record).items())
    return "\n".join([*lines, f"res = model.fit({fit})"])


def typed_options(record: FitRecord) -> dict[str, str]:
    """Return the options of the call that repeats a fit, as they are typed."""
    return _data_options(record) | _model_options(record) | _fit_options(record)


def _data_options(record: FitRecord) -> dict[str, str]:
    """Return the options that describe the data."""
    design, given = record.design, {}
    if design.formula is None:
        given["exog_propensity"] = "Z"
    elif design.propensity_formula is not None:
        outcome, propensity = (text.partition("~")[2].strip() for text in (design.formula, design.propensity_formula))
        if outcome.replace(" ", "") != propensity.replace(" ", ""):
            given["propensity"] = repr(without_indicators(propensity, design.filled))
    if tuple(design.levels) not in ((0, 1), (False, True)):
        given["reference"] = _plain(design.levels[0])
    if any(str(level) != label for level, label in zip(design.levels, design.labels, strict=True)):
        pairs = zip(design.levels, design.labels, strict=True)
        given["levels"] = "{" + ", ".join(f"{_plain(level)}: {label!r}" for level, label in pairs) + "}"
    if design.survey is not None:
        given["design"] = design.survey.call
        if design.survey.subpop_name is not None:
            given["subpop"] = repr(design.survey.subpop_name) if design.survey.subpop_name else "condition"
    elif design.weight_type is not None:
        given |= {"weights": repr(design.weights_name), "weight_type": repr(design.weight_type)}
    if design.cluster_name is not None and design.survey is None:
        names = list(design.cluster_names)
        given["cluster"] = repr(names if len(names) > 1 else design.cluster_name)
    if design.offset_kind is not None:
        given[design.offset_kind] = repr(design.offset_name)
    if design.score is not None:
        given["propensity_score"] = repr(design.score_name) if design.score_name else "scores"
    if design.observation is not None:
        given["observed"] = repr(without_indicators(design.observation.formula, design.filled))
    if design.missing != "drop":
        given["missing"] = repr(design.missing)
    if design.rules.collinear != "drop":
        given["collinear"] = repr(design.rules.collinear)
    return given


def _model_options(record: FitRecord) -> dict[str, str]:
    """Return the options of the model that are not the default."""
    options, usual, given = record.options, ModelOptions(), {}
    if record.sample.family.name != "gaussian":
        text = isinstance(options.family, str)
        given["family"] = repr(options.family) if text else f"family,  # {type(options.family).__name__}"
    for name in SPELLED:
        if getattr(options, name) != getattr(usual, name):
            given[name] = repr(getattr(options, name))
    if options.learner is not None:
        given["learner"] = repr(options.learner).replace("\n", " ")
    if options.propensity_score is not None:
        given["propensity_score"] = repr(options.propensity_score).replace("\n", " ")
    if isinstance(options.target, (str, TargetPopulation)):
        given |= {} if options.target == "all" or options.did is not None else {"target": repr(options.population.name)}
    else:
        frame = isinstance(options.target, Mapping) or hasattr(options.target, "columns")
        given["target"] = "target_frame" if frame else "tilt"
    return given


def _plain(level: Any) -> str:
    return repr(level.item() if isinstance(level, np.generic) else level)


def _fit_options(record: FitRecord) -> dict[str, str]:
    """Return the options of `fit`: the kind of standard errors and the seed, then options other than defaults."""
    given = {} if record.cov_type in ("survey", "replicates") else {"cov_type": repr(record.cov_type)}
    if record.boot is not None and record.cov_type != "replicates":
        given["bootstrap"] = repr(record.bootstrap)
        if record.multiplied:
            given |= {"bootstrap": repr(MULTIPLIER), "multiplier": repr(record.bootstrap)}
        given |= {"resamples": "resamples"} if record.given_resamples else {"n_boot": str(len(record.boot.failures))}
    elif record.small_sample and record.cov_type != "HC1":
        given["small_sample"] = "True"
    by_design = record.design.survey is not None
    if by_design and np.isinf(record.df):
        given["use_t"] = "False"
    elif np.isfinite(record.df) and not (by_design and record.df == record.residual_df):
        given |= {"use_t": "True"} if record.df == record.residual_df else {"df": f"{record.df!r}"}
    if record.joint is not None:
        own, usual = record.joint.options, JREOptions(objective=record.joint.options.objective)
        for field in dataclasses.fields(JREOptions):
            value = getattr(own, field.name)
            if value != getattr(usual, field.name) or field.name == "objective":
                given[field.name] = repr(value)
        if len(record.joint.replicates.failures) != own.n_drawn:
            given["replicates"] = "replicates"
        if record.boot is None and record.bootstrap == "stratified":  # its replicates are stratified
            given["bootstrap"] = repr(record.bootstrap)
    module = "" if isinstance(repeating(record.seed), int) else "np.random."
    given["rng"] = f"{module}{seed_text(record.seed)}"
    return given


LIBRARIES = ("numpy", "scipy", "pandas", "patsy", "statsmodels")


def versions_text() -> str:
    """Return the versions of the package, of Python and of the libraries."""
    found = [f"{name} {version(name)}" for name in LIBRARIES]
    return f"causalrisk {__version__}, Python {platform.python_version()}, {', '.join(found)}"
