"""What an estimand, a target, a weight and a standard error are, in plain words."""

from __future__ import annotations

import numpy as np

from causalrisk.linalg import Array
from causalrisk.record import FitRecord
from causalrisk.report.numbers import column_format, format_number
from causalrisk.report.prose import count, joined
from causalrisk.report.summary import rounded_se

FULL_NAMES = {
    "all": "average treatment effect (ATE)",
    "treated": "average treatment effect on the treated (ATT)",
    "control": "average treatment effect on the untreated (ATC)",
    "overlap": "average treatment effect in the overlap population (ATO)",
    "data frame": "average treatment effect in another population (transported ATE)",
}
COMPARED = {"difference": "difference", "ratio": "ratio", "odds_ratio": "odds ratio", "percent": "change in percent"}
RESAMPLES = {
    "pairs": "resamples of the rows, drawn with replacement",
    "bayesian": "random weightings of the rows (Bayesian bootstrap)",
    "cluster": "resamples of whole clusters, drawn with replacement",
    "stratified": "resamples of the rows, drawn with replacement within each arm",
}


def estimand_words(record: FitRecord) -> str:
    """Return the full name of the effect."""
    name = FULL_NAMES.get(record.options.target_name, "weighted average treatment effect (WATE)")
    return f"{name} among the rows left by trimming" if record.trimmed else name


def population_words(record: FitRecord) -> str:
    """Return whom the effect is an average over."""
    design, options = record.design, record.options
    frame = 0 if record.frame is None else len(record.frame.index)
    return {
        "all": f"all {count(design.nobs, design.unit_name)}",
        "treated": f"the {count(int(design.counts[1]), design.unit_name)} of arm {design.labels[1]}",
        "control": f"the {count(int(design.counts[0]), design.unit_name)} of arm {design.labels[0]}",
        "overlap": "the rows for which every arm was likely (each row counts the more, the less certain its arm was)",
        "data frame": f"the {count(frame, 'row')} of the data frame given as target=",
    }.get(options.target_name, "the rows, counted by the function of the propensity score given as target=")


def variables_of(record: FitRecord) -> list[str]:
    """Return the covariates of both models, each once; none where the estimator uses none."""
    design = record.design
    names = [] if record.spec.constants else list(design.outcome_encoder.variables)
    if record.propensity is not None and design.score is None:
        names += design.propensity_encoder.variables
    return list(dict.fromkeys(names))


def raw_means(record: FitRecord) -> Array:
    """Return the mean outcome of each arm under the observation weights, shape (K,)."""
    design = record.design
    return np.array([np.average(design.y[rows], weights=design.weights[rows]) for rows in design.members])


def weight_words(record: FitRecord) -> str:
    """Return what a row weighs, and why."""
    labels, target = record.design.labels, record.options.target_name
    if target == "all":
        return (
            "A row weighs 1 / (probability of the arm it is in): a row that had a chance of 1 in 10 to be in its arm "
            "stands for ten like it, nine of which are in other arms."
        )
    if target in ("treated", "control"):
        own = labels[1 if target == "treated" else 0]
        return (
            f"Rows of arm {own} are the target and weigh 1. Any other row weighs (probability of {own}) / (probability "
            f"of its own arm), so that the other arms come to look like {own}."
        )
    if target == "overlap" and len(labels) == 2:
        return "A row weighs the probability of the arm it is not in; no weight exceeds 1."
    if target == "overlap":
        return (
            "A row weighs h / (probability of its own arm), where h is 1 over the sum of 1 / probability over the "
            "arms: large where every arm was likely; no weight exceeds 1."
        )
    if target == "data frame":
        return (
            "A row weighs r / (probability of its own arm), where r says how much commoner rows like it are in the "
            "target frame than in the sample (from a logit model of being in the frame)."
        )
    return "A row weighs h(score) / (probability of its own arm), where h is the function given as target=."


def formats(record: FitRecord) -> tuple[str, str]:
    """Return the number formats of the effects and of the arm means: that of the summary where they have one unit."""
    params, se = record.estimate.params, np.sqrt(np.diag(record.covariance))[: len(record.estimate.params)]
    rounded, first = rounded_se(params, se), len(params) - record.design.n_arms
    if record.options.effect == "difference":
        return (column_format(rounded, params),) * 2
    return column_format(rounded[:first], params[:first]), column_format(rounded[first:], params[first:])


def effect_words(record: FitRecord, k: int) -> str:
    """Return how effect k comes from the arm means, with the numbers."""
    params, (effect_format, mean_format) = record.estimate.params, formats(record)
    means = [format(mean, mean_format) for mean in params[-record.design.n_arms :]]
    form = record.options.scale.formula(means[k + 1], means[0])
    return f"{record.effect_names[k]} = {form} = {format(params[k], effect_format)}"


def se_words(record: FitRecord) -> str:
    """Return where the standard errors come from."""
    if record.boot is not None:
        drawn, used = len(record.boot.reasons), len(record.boot.used)
        kind = "the resamples that were given" if record.given_resamples else RESAMPLES[record.bootstrap]
        failed = "" if used == drawn else f" ({used} of them could be used)"
        return (
            f"Every step was done again on {count(drawn, 'resample')}{failed} - {kind} - and the standard error is the "
            "standard deviation of the estimates."
        )
    clusters = f", added up within the clusters of {record.design.cluster_name}" if record.cov_type == "cluster" else ""
    factor = ", times the small-sample factor n / (n - k)" if record.cov_type == "HC1" else ""
    return (
        "The standard error adds up the squared influence of every row on the result, through all steps at once (the "
        f"robust, or sandwich, formula{clusters}{factor})."
    )


def arms_words(record: FitRecord) -> str:
    """Return the number of observations and the raw mean of each arm."""
    design = record.design
    parts = [
        f"{label} ({count(int(n), design.unit_name)}, mean {design.endog_name} {format_number(mean)})"
        for label, n, mean in zip(design.labels, design.counts, raw_means(record), strict=True)
    ]
    return joined(parts)
