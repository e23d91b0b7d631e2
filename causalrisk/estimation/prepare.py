"""Turn a design and options into the equations of a fit, after checks and trimming.

Let eta be the linear predictor of the covariates, and o the offset, which is log t for an exposure t. The outcome
models fit g^{-1}(eta + o). The means average g^{-1}(eta + o) at the observed offsets, or g^{-1}(eta + log e) at a
stated exposure e. Bias corrections use the residuals at the observed offsets. Means at a stated exposure are not
corrected. Effects in groups are corrected by the mean residual, scaled to this exposure.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from causalrisk.design.design import Design, TargetRows, target_rows
from causalrisk.design.on_disk import DesignOnDisk
from causalrisk.design.support import check_size, scores_rule
from causalrisk.errors import IN_MEMORY, DesignWarning, Notes, OptionError, UnavailableError, listed, not_on_disk
from causalrisk.estimation.abilities import check_able
from causalrisk.estimation.equations import Classifier, Equations, ScoreModel
from causalrisk.estimation.fits import fit_weights
from causalrisk.estimation.learned import Learned, with_predictions
from causalrisk.estimation.options import REPLACE, InferenceOptions, ModelOptions, is_frame
from causalrisk.estimation.overlap import trim_rows
from causalrisk.estimation.record import Task
from causalrisk.estimation.sample import Sample, make_sample
from causalrisk.estimation.specification import EVERYBODY, IPWRA, Specification, TargetPopulation
from causalrisk.learners.cross_fitting import EDGE, on_predictor_scale
from causalrisk.numerics.arrays import Array
from causalrisk.numerics.resampling import JACKKNIFE, MULTIPLIERS, folds_of


def task_of(design: Design, spec: Specification, options: ModelOptions, inference: InferenceOptions) -> Task:
    """Check the options against the data, and return the task with the notes of the data."""
    score = design.score if options.propensity_score is None else options.propensity_score
    design = design.for_scores(scores_rule(options.propensity_loss, score, options.trim))
    if design.n_clusters:  # so no fold is empty
        options = dataclasses.replace(options, n_folds=min(options.n_folds, max(2, design.n_clusters)))
    cov_type, bootstrap = inference.resolved(design, joint=spec.joint)
    kind = bootstrap if cov_type == "bootstrap" else None
    if spec.matched and kind:
        problem = "the bootstrap is not valid for matching (Abadie and Imbens 2008)"
        advice = "Leave cov_type=, bootstrap= and n_boot= out for Abadie and Imbens' standard errors."
        raise OptionError(f"{problem}.\n{advice} `compare` needs a bootstrap, so it cannot include Matching.")
    factor = inference.small_sample or None
    check_able(spec, bool(options.quantiles), cov_type=cov_type, bootstrap=kind, small_sample=factor)
    if cov_type in ("bootstrap", JACKKNIFE):
        check_one_way(design, 'fit(cov_type="cluster")')
    if options.quantiles and design.has_binary_outcome:
        raise OptionError(f'quantiles of the 0/1 outcome {design.endog_name!r} are 0 or 1.\nUse `effect="difference"`.')
    if design.on_disk:
        for refused, what, use in (
            (options.propensity_score is not None, 'propensity_score="classifier"', IN_MEMORY),
            (cov_type == JACKKNIFE and not design.n_clusters, 'cov_type="jackknife"', 'cov_type="robust"'),
            (kind in MULTIPLIERS, 'bootstrap="multiplier"', 'bootstrap="bayesian"'),
            (inference.resamples is not None, "resamples=", "n_boot=999"),
        ):
            if refused:
                raise not_on_disk(what, use=use)
    elif spec.joint or cov_type == JACKKNIFE or (cov_type == "bootstrap" and bootstrap not in MULTIPLIERS):
        robust = "robust" if design.cluster_name is None else "cluster"
        advice = "Use `IPWRA` instead of JRE" if spec.joint else f'Use `fit(cov_type="{robust}")`'
        for model, columns in (("outcome", design.X.shape[1]), ("propensity", design.Z.shape[1])):
            check_size(design.n, columns, f"the {model} model", advice, (columns + 1) / 2)  # products of all pairs
    return Task(design, design, spec, options, inference, cov_type, bootstrap, Notes(design.notes))


def check_one_way(design: Design, advice: str) -> None:
    """Raise an error if there are two-way clusters, which cannot be resampled."""
    if design.second_cluster is not None:
        names = listed(design.cluster_names)
        raise OptionError(f"resampling is not available for two-way clusters ({names}).\nUse `{advice}`.")


def prepare(task: Task) -> Task:
    """Return the task after checking the outcome and the target, trimming, and reading the target frame."""
    design, options = task.design, task.options
    if design.n_arms > 2:
        check_target(design, options)
    if design.offset_kind is not None or options.at_exposure is not None:
        check_offset(design, options)
    for y in [part.y for part in design.parts] if isinstance(design, DesignOnDisk) else [design.y[design.recorded]]:
        options.outcome_family.check(y, design.endog_name)
    if options.trim is not None:  # by the scores before clipping
        if is_frame(options.target):
            advice = "Leave trim= out, and drop rows of the frame without comparable rows in the sample."
            raise OptionError(f"trim= would trim only the sample, not the target frame.\n{advice}")
        first = dataclasses.replace(task, spec=IPWRA, options=dataclasses.replace(options, clip=None))
        weights = fit_weights(equations_of(first, EVERYBODY))
        design, trimmed = trim_rows(design, weights, options.trim, options.propensity_link)
        task = dataclasses.replace(task, design=design, trimmed=trimmed)
    if is_frame(options.target):
        if design.replication is not None:
            problem = "with replicate weights, target= cannot be a data frame"
            raise OptionError(f'{problem}.\nUse `Survey(weights=, strata=, psu=)`, or a target such as "treated".')
        frame = target_rows(design, options.target, design.missing)
        task.notes.extend(frame.notes)
        if design.weight_type is not None:
            task.notes.append("The rows of the target frame have equal weights; weights= applies to the sample only.")
        task = dataclasses.replace(task, frame=frame)
    return task if design.predictions is None else with_given(task)


def with_learner(task: Task, learned: Learned, use: str) -> Task:
    """Return a task in which predictions of learners are added to the terms of the outcome models, or replace them."""
    spec = dataclasses.replace(task.spec, given=use == REPLACE)
    design, frame = with_predictions(task.design, task.frame, learned, task.notes, given=spec.given)
    return dataclasses.replace(task, design=design, frame=frame, spec=spec)


def with_given(task: Task) -> Task:
    """Return a task whose outcome models are replaced by the given predictions."""
    design, family, predictions = task.design, task.options.outcome_family, np.asarray(task.design.predictions)
    if np.array_equal(predictions[np.arange(len(design.y)), design.arm], design.y):
        problem = "the outcome predictions equal the observed outcomes, so residuals are zero"
        advice = "Use predictions from models that were fitted to other rows."
        task.notes.warn(f"{problem} and standard errors are too small.\n{advice}", DesignWarning)
    low, high = family.entry.low, family.entry.high
    outside = int(((predictions < low) | (predictions > high)).sum())
    X, moved = on_predictor_scale(family, predictions) if task.spec.targeted else (predictions, 0)
    if outside or moved:
        found = f"{outside or moved} outcome predictions are {'outside' if outside else 'at a limit'}"
        inside = f"`predictions.clip({EDGE}, {1 - EDGE})`" if family.binary else "predictions above 0"
        problem = f"{found} of the range of the {family.label} model; expected {low:g} to {high:g}"
        raise OptionError(f'{problem}.\nUse {inside}, or `family="gaussian"`.')
    names = [f"prediction[{label}]" for label in design.labels]
    keep = np.repeat([False, True], [len(design.exog_names), len(names)])
    encoder = design.outcome_encoder.extended(names, no_predictions, keep)
    design = dataclasses.replace(design, X=X, outcome_encoder=encoder)
    return dataclasses.replace(task, design=design, spec=dataclasses.replace(task.spec, given=True))


def no_predictions(columns: Array) -> Array:
    """Raise an error for new rows, for which no predictions were given."""
    raise UnavailableError("outcome_predictions= has no predictions for new rows.\nUse `res.predict()`, without data.")


def equations_of(task: Task, target: TargetPopulation | None = None) -> Equations:
    """Return the equations of a task. A given `target` replaces the target of the options."""
    design, spec, options, frame = task.design, task.spec, task.options, task.frame
    if design.predictions is not None and not spec.targeted:  # the means do not depend on the family
        options = dataclasses.replace(options, family="gaussian", link=None)
    sample = make_sample(design, options, frame, given=spec.given)
    target = target or options.population
    needed = spec.uses_propensity or target.tilt is not None
    return Equations(sample, spec, target, score_model(design, sample, options, frame) if needed else None)


def score_model(design: Design, sample: Sample, options: ModelOptions, frame: TargetRows | None) -> ScoreModel:
    """Return the propensity model, or the given scores, for the rows of the sample."""
    limits = options.clip
    if design.score is not None:
        filler = np.full((sample.n_frame, design.n_arms), 1 / design.n_arms)
        return ScoreModel("known", limits, e=sample.arrange(np.concatenate([design.score, filler])))
    if options.propensity_score is None:
        kind = "calibrated" if options.propensity_loss == "calibrated" else options.propensity_link
        return ScoreModel(kind, limits)
    of_frame = folds_of(np.zeros(sample.n_frame, dtype=np.intp), None, options.n_folds, options.repeat)
    fold = np.concatenate([folds_of(design.arm, design.cluster, options.n_folds, options.repeat), of_frame])
    Z = design.Z if frame is None else np.concatenate([design.Z, frame.Z])
    varying = np.ptp(Z, axis=0) > 0  # a classifier has its own constant
    features = sample.arrange(Z[:, varying] if varying.any() else Z)
    classifier = Classifier(options.propensity_score, features, sample.arrange(fold), options.repeat)
    return ScoreModel("classifier", limits, classifier=classifier)


def check_offset(design: Design, options: ModelOptions) -> None:
    """Raise an error for options that conflict with the offset of a design, or that need an offset."""
    kind, family = design.offset_kind, options.outcome_family
    if kind != "exposure":
        if options.at_exposure is not None:
            advice = "Leave at_exposure= out" if kind is None else "Use `exposure=np.exp(offset)` instead of offset="
            raise OptionError(f"at_exposure={options.at_exposure!r} needs exposure=.\n{advice}.")
    elif family.link != "log":
        problem = f"exposure={design.offset_name!r} needs a log link; the outcome model is {family.label}"
        advice = 'Use `family="poisson"` for a rate, or `link="log"` if the family allows it.'
        if design.outcome_limits.min() < 0:
            advice = "Leave exposure= out, because a rate cannot be negative."
        raise OptionError(f"{problem}.\n{advice}")
    if kind is not None and is_frame(options.target) and options.stated_exposure(design) is None:
        advice = "Leave target= out" if kind == "offset" else "Use `at_exposure=1`"
        raise OptionError(f"the rows of a target frame have no {kind} ({design.offset_name!r}).\n{advice}.")


def check_target(design: Design, options: ModelOptions) -> None:
    """Raise an error for options that are not available with several arms."""
    population, link = options.population, options.propensity_link
    if population.two_arms_only or link != "logit":
        option, value, others = "propensity_link", link, ["logit"]
        if population.two_arms_only:
            option, value, others = "target", population.name, [*design.labels[1:], "overlap"]
        instead = " or ".join(f"`{option}={other!r}`" for other in others)
        raise OptionError(f"{option}={value!r} is for two groups; there are {design.n_arms}.\nUse {instead}.")
