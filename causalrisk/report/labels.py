"""Names of estimands, models and standard errors, and sentences that several texts share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from causalrisk.design.design import Design
from causalrisk.design.did import NEVER, change_words
from causalrisk.design.encoders import INDICATOR
from causalrisk.design.survey import SurveyDesign
from causalrisk.errors import Failure
from causalrisk.estimation.record import FitRecord
from causalrisk.estimation.specification import POPULATIONS
from causalrisk.inference.intervals import parameters, rounded_se
from causalrisk.numerics.arrays import loaded
from causalrisk.numerics.resampling import JACKKNIFE, MULTIPLIERS
from causalrisk.report.table import column_format, format_number

RESAMPLES = {
    "pairs": "rows drawn with replacement",
    "bayesian": "fractional random weights of the {units} (Bayesian bootstrap)",
    "cluster": "whole clusters drawn with replacement",
    "stratified": "rows drawn with replacement within each group",
    "rescaled": "first-stage units drawn within their strata, with rescaled weights (Rao, Wu and Yue)",
    "replicates": "the replicate weights of the survey",
}
DISTANCES = {
    "mahalanobis": "the Mahalanobis distance of the covariates",
    "inverse_variance": "the distance of the covariates in standard deviations",
    "propensity": "the distance of the propensity scores",
}
CONTROLS = {"never": "untreated in all periods", "not yet": "untreated in both periods compared"}
TAKEN = "Standard errors treat the predictions as known."
CHOICE = "{}'s standard errors are multiplied by {:.3f} to allow for choosing the shrinkage from the data."


# --- words and numbers ---------------------------------------------------------------------------------------------


def joined(words: Sequence[str], conjunction: str = "and") -> str:
    """Return words as "a, b and c"."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {conjunction} {words[-1]}"


def count(number: int, noun: str) -> str:
    """Return a number with its noun, "1 row" or "2 rows"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def sentence(text: str) -> str:
    """Return the text of a warning, capitalised. A leading name in quotes or backticks is unchanged."""
    return re.sub(r"^[a-z]+(?=[ :])", lambda word: word[0].capitalize(), text)


def formats(record: FitRecord) -> tuple[str, str]:
    """Return the number formats of effects and group means, which are equal if both have the same unit."""
    params, se = record.estimate.params, np.sqrt(np.diag(record.covariance))[: len(record.estimate.params)]
    rounded, first = rounded_se(params, se), len(params) - record.design.n_arms
    if record.options.effect_scale.additive:
        return (column_format(rounded, params),) * 2
    return column_format(rounded[:first], params[:first]), column_format(rounded[first:], params[first:])


# --- the effect and its population ---------------------------------------------------------------------------------


def estimand_words(record: FitRecord) -> str:
    """Return the full name of the effect."""
    options, scale = record.options, record.options.effect_scale
    name = options.population.full_name
    if options.quantiles:
        name = name.replace("average", "quantile").replace("AT", "QT")
    if not scale.additive:
        binary, exposure = record.design.has_binary_outcome, record.stated_exposure is not None
        ratio = "rate ratio" if exposure else "risk ratio" if binary else "ratio of means"
        names = {"ratio": ratio, "odds_ratio": "odds ratio", "percent": "percentage change in the mean"}
        name = f"{name.removesuffix(')').replace('average treatment effect', names[options.effect])}{scale.label})"
    return name


def effect_formula(record: FitRecord) -> str:
    """Return the formula of the effects as functions of the group means."""
    labels, several = record.design.labels, record.design.n_arms > 2
    name, label = (f"{record.estimand}[level]", "level") if several else (record.effect_names[0], labels[1])
    if record.options.quantiles:
        name = name if several else record.estimand
        return f"{name} = POQ[{label}] - POQ[{labels[0]}] at each q. POQ is the potential-outcome quantile q"
    return f"{name} = {record.options.effect_scale.form.format(treated=f'POM[{label}]', reference=f'POM[{labels[0]}]')}"


def effect_words(record: FitRecord, k: int) -> str:
    """Return effect k as a formula of the group means, with its value."""
    scale, means = record.options.effect_scale, record.names[len(record.effect_names) :]
    form = scale.form.format(treated=means[k + scale.per_arm], reference=means[k % scale.per_arm])
    return f"{record.effect_names[k]} = {form} = {format(record.estimate.params[k], formats(record)[0])}"


def uncertainty_words(record: FitRecord, alpha: float) -> list[str]:
    """Return the standard error and the interval of each effect, "standard error 2.1, 95% interval 1.0 to 9.2"."""
    (spec, _), limits, level = formats(record), parameters(record).limits(alpha), f"{100 * (1 - alpha):.4g}%"
    numbers = zip(record.effect_names, record.std_errors, limits, strict=False)
    return [f"standard error {se:{spec}}, {level} interval {a:{spec}} to {b:{spec}}" for _, se, (a, b) in numbers]


def target_text(record: FitRecord) -> str:
    """Return the name of the target and its estimand, such as "treated (ATT)"."""
    if record.frame is not None:
        return f"data frame, {len(record.frame.index)} rows"
    population, estimand = record.options.population, record.estimand.removesuffix(record.options.effect_scale.label)
    if population.name in POPULATIONS or population.toward is None:
        return f"{population.name} ({estimand})"
    return f"group {population.name} ({estimand.removesuffix(f'({population.name})')})"


def rows_words(record: FitRecord) -> str:
    """Describe the rows over which the means are taken."""
    design, toward = record.design, record.options.population.toward
    counted = design.nobs if toward is None else int(design.counts[toward])
    level = "" if " = " in design.treat_name else f" = {design.levels[toward or 0]}"  # an event study names the group
    group, unmatched = "" if toward is None else f"{design.treat_name}{level}", record.n_unmatched
    if unmatched:
        return f"the {counted - unmatched} of {counted} rows{group and f' with {group}'} that have matches"
    text = record.options.population.rows.format(
        nobs=design.nobs,
        units=design.unit_name if counted == 1 else f"{design.unit_name}s",
        group=group,
        in_arm=counted,
        in_frame=0 if record.frame is None else len(record.frame.index),
    )
    text += " after trimming" * record.estimand.startswith("trimmed")
    if design.survey is not None and design.survey.subpop_name is not None:
        text = f"{text.removesuffix(' used')} in the subpopulation {design.survey.subpop_name}".rstrip()
    weighted = design.weight_type == "probability" and record.frame is None  # the rows of a frame count equally
    return text + ", weighted by the observation weights" * weighted


# --- the outcome and its models ------------------------------------------------------------------------------------


def outcome_name(record: FitRecord) -> str:
    """Return the name of the averaged variable: the outcome, or its change for repeated cross sections."""
    name = record.design.endog_name
    return name if record.design.periods is None else f"change of {name}"


def outcome_words(record: FitRecord) -> str:
    """Return the outcome as words of a sentence: its name, or "the change of y since 2010"."""
    design, did = record.design, record.options.did
    if design.periods is not None:
        return f"the change of {design.endog_name} from {' to '.join(design.periods.names)}"
    return design.endog_name if did is None else change_words(str(design.formula))


def outcome_text(record: FitRecord) -> str:
    """Return the outcome as text for reports, with the value of `at_exposure` if given."""
    design, stated = record.design, record.stated_exposure
    return outcome_words(record) if stated is None else f"{design.endog_name} at {design.offset_name} = {stated:g}"


def variables_of(record: FitRecord) -> list[str]:
    """Return the covariates of both models, each once. The list is empty if the estimator uses no covariates."""
    design = record.design
    names = [] if record.spec.constants else list(design.outcome_encoder.variables)
    if record.weight_fit is not None and design.score is None:
        names += design.propensity_encoder.variables
    return list(dict.fromkeys(names))


def outcome_model_text(record: FitRecord) -> str:
    """Return the name of the outcome models. Empty for an estimator without outcome models."""
    label, exposed = record.sample.family.label, record.design.offset_kind is not None
    if record.spec.matched:
        return ""
    if record.spec.given:
        return "predictions of a learner" if record.design.predictions is None else "given predictions"
    if record.spec.constants:
        return f"constants, {label}" if exposed else "constants"
    return f"logit of {record.design.endog_name} <= quantile" if record.options.quantiles else label


def offset_words(record: FitRecord) -> str:
    """Return a sentence on the offset of the outcome models and the exposure of the means. Empty without an offset."""
    design, stated, kind = record.design, record.stated_exposure, record.design.offset_kind
    if kind is None:
        return ""
    at = f"the observed {kind}s" if stated is None else f"{design.offset_name} = {stated:g}"
    what = design.offset_name if kind == "offset" else f"log({design.offset_name})"
    return f"The outcome models have the offset {what}. Means are at {at}."


def matching_words(record: FitRecord) -> str:
    """Return sentences on how units are matched. Empty for other estimators."""
    options = record.options
    if not record.spec.matched:
        return ""
    nearest = "nearest unit" if options.n_neighbors == 1 else f"{options.n_neighbors} nearest units"
    exact = f", among units with equal {joined(options.exact)}" if options.exact else ""
    caliper = "" if options.caliper is None else f", within a distance of {options.caliper:g}"
    fewer = ", or to fewer if there are fewer" * bool(options.n_neighbors > 1 and (exact or caliper))
    on = f" on {joined(options.bias_adjust)}" if isinstance(options.bias_adjust, tuple) else ""
    adjusted = f" A regression{on} corrects for the remaining differences (Abadie and Imbens 2011)."
    toward, several = record.options.population.toward, record.design.n_arms > 2
    whom = "unit" if toward is None else f"unit of group {record.design.labels[toward]}"
    return (
        f"Each {whom} is matched to the {nearest} of {'each' if several else 'the'} other group by "
        f"{DISTANCES[options.metric]}{exact}{caliper}{fewer}. All ties are used.{adjusted * bool(options.bias_adjust)}"
    )


def learner_text(record: FitRecord) -> str:
    """Return the names of the learners, with the number of folds and repeats."""
    options = record.options
    if record.learned is None:
        return "none"
    folds = "in-sample" if options.n_folds == 1 else f"{options.n_folds} folds"
    return f"{', '.join(record.learned.names)} ({folds}{f' x {options.n_repeats}' * (options.n_repeats > 1)})"


def learner_words(record: FitRecord) -> str:
    """Return sentences on learners or given predictions and how the fit uses them, or an empty text."""
    if record.design.predictions is not None:
        where = joined(record.design.predictions_name or ["arrays"])
        return f"The predictions in {where} replace the outcome models. {TAKEN}"
    if record.learned is None:
        return ""
    names, folds = record.learned.names, record.options.n_folds
    learners = f"Learner{'s' * (len(names) > 1)} {joined(list(map(repr, names)))} {'were' if len(names) > 1 else 'was'}"
    trained = "fitted to the rows of each group" if folds == 1 else f"cross-fitted in {folds} folds"
    how = "The predictions under each treatment are extra terms in every outcome model."
    if record.stack is not None:
        several = any(name.endswith("as terms") for name in record.stack.names)
        how = (
            f"The estimates are weighted averages of JRE{', JRE with the predictions as extra terms,' * several} and "
            "AIPW (normalised weights) with the predictions instead of outcome models. The averaging weights minimise "
            "the variance plus a penalty on unequal weights (see `res.stack`)."
        )
    elif record.spec.given:
        how = "The predictions replace the outcome models."
    return f"{learners} {trained} (Chernozhukov et al. 2018). {how} {TAKEN}"


def repeats_words(record: FitRecord) -> str:
    """Return sentences on repeats with different folds. Empty for a single repeat."""
    if record.repeats is None:
        return ""
    effects = record.repeats[:, 0]
    return (
        f"The folds were drawn {len(effects)} times, and the fit with the median effect is shown. "
        f"{record.effect_names[0]} ranges from {format_number(effects.min())} to {format_number(effects.max())}. We "
        "add (effect - median)^2 to the variance of each draw. The median of these sums is the variance "
        "(Chernozhukov et al. 2018)."
    )


# --- the propensity score ------------------------------------------------------------------------------------------


def propensity_text(record: FitRecord) -> str:
    """Return the name of the propensity model, or the source of the scores."""
    design, options = record.design, record.options
    if not record.uses_score:
        return "none"
    if design.score is not None:
        return f"known ({design.score_name or 'given'})"
    if options.propensity_score is not None:
        return f"{type(options.propensity_score).__name__}, {options.n_folds} folds"
    if options.propensity_loss == "calibrated":
        return "calibrated logit" if design.n_arms == 2 else "calibrated logit per group"
    return options.propensity_link if design.n_arms == 2 else "multinomial logit"


def poor_overlap(record: FitRecord) -> str:
    """Return the text of the fit's warning about poor overlap, on one line. Empty without one."""
    return " ".join(note.replace("\n", " ") for note in record.notes if note.startswith("poor overlap"))


def clip_text(record: FitRecord) -> str:
    """Return the limits of clipped scores, and the number of observations that were clipped."""
    low, high = record.options.clip
    if record.weight_fit is None:
        return ""
    sample, clipped = record.sample, record.weight_fit.clipped
    touched = (clipped * (loaded(sample.s) if record.frequency else 1))[sample.n_frame :].sum()
    return f"{int(touched)} to [{low:g}, {high:g}]"


# --- missing values and changes ------------------------------------------------------------------------------------


def missing_words(record: FitRecord) -> str:
    """Return sentences on missing outcomes, and how they are accounted for. Empty if no outcome is missing."""
    design, seen = record.design, record.design.observation
    if seen is None:
        return ""
    by_group = joined([f"{n} in group {label}" for n, label in zip(design.unrecorded, design.labels, strict=True)])
    lost = count(design.n_unrecorded, design.unit_name)
    rows = f"{lost} with covariates but no outcome are kept ({by_group}). The target population includes them."
    if not record.spec.uses_propensity:
        rows += " The outcome models are fitted to the rows with an outcome."
        return f"{rows} {record.spec.name} does not use the model in `observed=`."
    return (
        f"{rows} The weights of the other rows are divided by the probability of an observed outcome (Robins, "
        f"Rotnitzky and Zhao 1995), by a logit model: {seen.formula}. Standard errors account for this model."
    )


def left_out(design: Design) -> list[tuple[str, int, int]]:
    """Return (reason, rows, new rows) for each reason such as "x1 missing". New rows have no earlier reason."""
    return [
        (variable if formula in ("trim", "weights") else f"{variable} missing", lacking, own)
        for formula, variable, lacking, own in design.ledger
        if own and formula != "subpop"
    ]


def filled_words(record: FitRecord) -> str:
    """Return sentences on covariates with filled-in values. Empty if no value was filled in."""
    ledger = record.design.sample_ledger
    filled = ledger[ledger["formula"] == INDICATOR]
    if filled.empty:
        return ""
    found = joined([f"{line.variable} ({count(line.missing, 'row')})" for line in filled.itertuples()])
    return (
        f"Covariates with missing values: {found}. Missing numbers are replaced by the mean, and the models include an "
        "indicator of missing values. Missing categories are an extra level (Groenwold et al. 2012). This is valid in "
        "a randomized trial. With observational data, prefer multiple imputation."
    )


def trend_words(record: FitRecord, anticipation: int = 0) -> str:
    """Return sentences on the assumptions of difference-in-differences. Empty for other estimators."""
    periods, did = record.design.periods, record.options.did
    if did is None:
        return ""
    kind, same = " of repeated cross sections", " Both periods must be samples of the same population."
    if periods is None:
        kind, same = ": the outcome is the change over time", ""
    given, name = ("", "") if not variables_of(record) else (" with the same covariates", "conditional ")
    return (
        f"Difference-in-differences{kind}. {record.estimand} assumes {name}parallel trends: without the treatment, the "
        f"treated would have changed as the controls{given} did. It also assumes that the treatment had no effect "
        f"before it began{f', except in the anticipation periods ({anticipation})' * bool(anticipation)}.{same}"
    )


def santanna_words(record: FitRecord) -> str:
    """Return a sentence (leading blank) that names an estimator of Sant'Anna and Zhao. Empty for other estimators."""
    did = record.options.did
    if did is None:
        return ""
    sections = did.cross_sections
    improved = record.spec.name == "IPWRA" if sections else record.joint is None and record.spec.uses_propensity
    if record.options.propensity_loss == "calibrated" and improved:
        return " The estimator is the improved one of Sant'Anna and Zhao (2020), with calibrated scores."
    if not record.spec.corrected:
        return ""
    kind = "locally efficient doubly robust" if sections else "doubly robust"
    weights = "normalised weights of the controls, as in R's DRDID" if did.normalize else "unnormalised weights"
    return f" The estimator is the {kind} one of Sant'Anna and Zhao (2020), with {weights}."


# --- inference -----------------------------------------------------------------------------------------------------


def has_converged(record: FitRecord) -> bool:
    """Return True if the propensity model, the outcome models and, for a joint fit, the joint objective converged."""
    scores = record.weight_fit is None or record.weight_fit.converged
    joint = record.joint is None or bool(record.joint.fit.result.success)
    separate = record.estimate if record.joint is None else record.joint.start
    return scores and joint and all(reason == Failure.OK for reason in separate.failed)


def clusters_text(design: Design) -> str:
    """Return the names and the number of the clusters. Empty without clusters."""
    pairs = zip(design.cluster_names, design.cluster_counts, strict=True)
    return ", ".join(f"{name} ({count})" for name, count in pairs)


def covariance_name(record: FitRecord) -> str:
    """Return the printed name of the kind of standard errors."""
    if record.cov_type == "replicates" and record.design.replication is not None:
        return f"replicates ({record.design.replication.kind})"
    if record.cov_type == "bootstrap":
        kind = f"{record.bootstrap} multipliers" if record.bootstrap in MULTIPLIERS else record.bootstrap
        return f"bootstrap ({'given' if record.given_resamples else kind})"
    if record.cov_type == JACKKNIFE and record.design.cluster_name is not None:
        return "jackknife (cluster)"
    return {"cluster": "robust (cluster)", "survey": "survey (linearised)"}.get(record.cov_type, record.cov_type)


def survey_words(survey: SurveyDesign) -> str:
    """Return a text on the units, strata and finite population of a survey design, or on its replicate weights."""
    if survey.replication is not None:
        return f"{len(survey.replication.scales)} replicate weights ({survey.replication.kind})"
    text = f"{survey.units.sum():.0f} "
    text += "rows" if survey.psu_name is None else f"first-stage units ({survey.psu_name})"
    if survey.strata_name is not None:
        strata = "stratum" if len(survey.strata) == 1 else "strata"
        text += f" in {len(survey.strata)} {strata} ({survey.strata_name})"
    return text if survey.fpc_name is None else f"{text} of a finite population ({survey.fpc_name})"


def distribution_words(record: FitRecord) -> str:
    """Return the name of the distribution of intervals: normal, or t with the source of its degrees of freedom."""
    less = "one" if record.cov_type == JACKKNIFE else "groups" if record.spec.matched else "outcome coefficients"
    source = f" (observations minus {less})"
    if record.design.survey is not None:
        source = " (units minus strata)" if record.design.replication is None else " (rank of replicate weights - 1)"
    elif record.design.cluster_name is not None:
        source = " (clusters minus one)"
    return distribution_of(record.df) + source * bool(np.isfinite(record.df) and record.df == record.residual_df)


def logs_words(record: FitRecord) -> str:
    """Return a sentence on intervals and tests of ratios, with a leading blank. Empty for differences."""
    if record.options.effect_scale.additive:
        return ""
    scale, over = record.options.effect_scale, " and its standard error over the resamples" * (record.boot is not None)
    ratio = "ratio of means" if scale.name == "percent" else "ratio"
    return f" The test of {record.estimand} = {scale.null:g} and the interval use the logarithm of the {ratio}{over}."


def small_sample_words(record: FitRecord) -> str:
    """Return a sentence on the small-sample factor, with a leading blank. Empty for other standard errors."""
    if not record.small_sample:
        return ""
    clusters = record.design.cluster_name is not None
    factor = "G / (G - 1) * (n - 1) / (n - k), for G clusters and" if clusters else "n / (n - k), for"
    each = " Each cluster variable and their combination have their own G." * (record.design.second_cluster is not None)
    return f" Variances are multiplied by {factor} k outcome coefficients in total.{each}"


def inference_words(record: FitRecord) -> str:
    """Return sentences on intervals and tests, and on the factors of standard errors."""
    text = f"Confidence intervals use {distribution_words(record)}.{small_sample_words(record)}{logs_words(record)}"
    factor = np.sqrt(record.choice_variance)
    return text + f" {CHOICE.format(record.spec.name, factor)}" * bool(round(factor, 3) != 1)


def pooled_words(record: FitRecord, m: int) -> str:
    """Return sentences on estimates that are pooled over m imputed data sets."""
    logs = "" if record.options.effect_scale.additive else " (for effects, on the logarithmic scale)"
    factor = small_sample_words(record).replace("Variances", "Variances within the data sets")
    return (
        f"Estimates are means over the {m} imputed data sets{logs}. Their variance is the mean variance within the "
        f"data sets plus (1 + 1/{m}) times the variance between them (Rubin 1987).{factor} Confidence intervals use "
        "the t distribution with the degrees of freedom of Barnard and Rubin (1999)."
    )


# --- event studies -------------------------------------------------------------------------------------------------


def study_words(study: Any) -> list[str]:
    """Return sentences on the effects of an event study, its units, their weights, and assumptions."""
    record, given, design = study._record, study.given, study._record.design
    early = f" and anticipation ({given['anticipation']})" * bool(given["anticipation"])
    varying = " Effects before treatment use the change since the previous period." * (given["base"] == "varying")
    sizes, limits = study.sizes.items(), [f"`{name}={given[name]!r}`" for name in ("trim", "clip") if given.get(name)]
    parts = [f"{n} {'untreated in all periods' if at == NEVER else f'treated from {at}'}" for at, n in sizes]
    return [
        f"Each effect is the change of a group relative to the last period before its treatment{early}, minus the "
        f"change of the controls.{varying} Controls are {CONTROLS[given['controls']]}. Averages are weighted by group "
        "size. Standard errors treat these sizes as random.",
        f"There are {study.sizes.sum()} units ({given['unit']!r}): {joined(parts)} (column {given['begins']!r}).",
        "" if design.weight_type is None else f"Units have {design.weight_type} weights ({design.weights_name}).",
        f"Each fit applied {joined(limits)} to its own propensity scores." * bool(limits),
        trend_words(record, given["anticipation"]) + santanna_words(record),
    ]


def distribution_of(df: float) -> str:
    """Return the name of the distribution of tests and intervals."""
    return "the normal distribution" if np.isinf(df) else f"the t distribution with {df:.6g} degrees of freedom"
