"""From a design and options to what the estimators work on: the sample, the target, the importance weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalrisk.design import Design, TargetRows, target_rows
from causalrisk.errors import ConvergenceWarning, Notes, OptionError
from causalrisk.estimators.exposure import check_offset, mean_offset
from causalrisk.estimators.options import ModelOptions, is_frame
from causalrisk.estimators.sample import Sample, make_sample
from causalrisk.numerics.linalg import Array
from causalrisk.numerics.memory import keep_freed_memory
from causalrisk.propensity.classifier import ClassifierModel
from causalrisk.propensity.limits import crump_cut, crump_limits, inside, inverse_sum
from causalrisk.propensity.models import (
    BinaryModel,
    CalibratedModel,
    ClippedModel,
    KnownModel,
    MultinomialModel,
    PropensityModel,
)
from causalrisk.propensity.separation import check_membership, find_separation, separation_error
from causalrisk.propensity.targets import ArmTarget, Target, TiltTarget, make_target
from causalrisk.propensity.weights import WeightFit, WeightModel, fit_weights


@dataclass(frozen=True)
class FitData:
    """The data of a fit.

    Parameters
    ----------
    design : Design
        The data, trimmed if asked for.
    full_design : Design
        The data before trimming.
    sample : Sample
        The data as numbers.
    target : Target
        The target population.
    frame : TargetRows or None
        Rows of a target frame.
    weight_fit : WeightFit or None
        The fitted importance weights; None where the estimator and the target need none.
    trimmed : str
        How many rows were trimmed and by what limits; empty where none were.
    """

    design: Design
    full_design: Design
    sample: Sample
    target: Target
    frame: TargetRows | None
    weight_fit: WeightFit | None
    trimmed: str


def prepare(design: Design, options: ModelOptions, uses_propensity: bool, notes: Notes) -> FitData:
    """Trim, sort and weigh the rows.

    Parameters
    ----------
    design : Design
        The data.
    options : ModelOptions
        What is estimated.
    uses_propensity : bool
        Whether the estimator needs importance weights.
    notes : Notes
        Warnings so far; more are added.

    Returns
    -------
    FitData
        The data of the fit.
    """
    keep_freed_memory()
    check_target(design, options)
    check_offset(design, options)
    options.outcome_family.check(design.y, design.endog_name)
    full_design = design
    design, trimmed = _trimmed(full_design, options, notes)
    frame = None
    if is_frame(options.target):
        frame = target_rows(design, options.target, design.missing)
        notes.extend(notes_of_frame(design, frame))
    rows = None if frame is None else (frame.X, frame.Z)
    sample = make_sample(
        y=design.y,
        X=design.X,
        Z=design.Z,
        arm=design.arm,
        weights=design.weights,
        family=options.outcome_family,
        frame=rows,
        offsets=_offsets(design, options),
    )
    target = make_target(options.target, sample.Z.columns, sample.observed == 0)
    weights = None
    if uses_propensity or isinstance(target, TiltTarget):
        weights = _fit_weights(design, sample=sample, target=target, options=options, frame=frame, notes=notes)
    return FitData(
        design=design,
        full_design=full_design,
        sample=sample,
        target=target,
        frame=frame,
        weight_fit=weights,
        trimmed=trimmed,
    )


def notes_of_frame(design: Design, frame: TargetRows) -> list[str]:
    """Say what there is to say of the rows of a target frame."""
    alike = "The rows of the target frame count alike; weights= are those of the sample."
    return [*frame.notes, *([] if design.weight_type is None else [alike])]


def check_trimmed_frame(options: ModelOptions) -> None:
    """Refuse to trim a sample whose target are other rows."""
    if options.trim is not None and is_frame(options.target):
        raise OptionError(
            "trim= with a target frame would trim the sample and not its target.\n"
            "Leave trim= out, and the rows of the frame that have no like in the sample."
        )


def _offsets(design: Design, options: ModelOptions) -> tuple[Array, Array] | None:
    """Offsets as observed, and where the means are taken."""
    at = mean_offset(design, options)
    return None if design.offset is None or at is None else (design.offset, at)


def check_target(design: Design, options: ModelOptions) -> None:
    """Refuse options that several arms do not have."""
    if design.n_arms == 2:
        return
    population = options.population
    instead = 'target="overlap", "matching", "entropy" or "all"'
    if population.toward is not None:
        named = "  or  ".join(f"target={label!r}" for label in design.labels[1:])
        instead = f"{named}  for the rows of that arm"
    refused = {
        "target": (population.two_arms_only, population.name, instead),
        "propensity_link": (options.propensity_link != "logit", options.propensity_link, 'propensity_link="logit"'),
    }
    for name, (holds, value, instead) in refused.items():
        if holds:
            raise OptionError(f"{name}={value!r} is for two arms; here are {design.n_arms}.\nType  {instead}.")


def make_model(
    design: Design, sample: Sample, target: Target, options: ModelOptions, frame: TargetRows | None
) -> PropensityModel:
    """Return the propensity model that the options name, on the rows of the sample."""
    columns, arm = sample.Z.columns, sample.arm
    model: PropensityModel
    if design.score is not None:
        filler = np.full((sample.n_frame, design.n_arms), 1 / design.n_arms)
        model = KnownModel(columns, arm, sample.arrange(np.concatenate([design.score, filler])))
    elif options.propensity_score is not None:
        features = sample.arrange(design.Z if frame is None else np.concatenate([design.Z, frame.Z]))
        model = ClassifierModel(
            columns=columns,
            arm=arm,
            n_arms=design.n_arms,
            classifier=options.propensity_score,
            features=features,
            observed=sample.observed,
            n_folds=options.n_folds,
            limits=options.clip,
            clusters=sample.clusters(design.cluster),
        )
    elif options.propensity_loss == "calibrated":
        model = CalibratedModel(columns, arm, design.n_arms, target.toward)
    elif design.n_arms == 2:
        model = BinaryModel(columns, arm, options.propensity_link)
    else:
        model = MultinomialModel(columns, arm, design.n_arms)
    return model if options.clip is None else ClippedModel(model, *options.clip)


def _fit_weights(
    design: Design, sample: Sample, target: Target, options: ModelOptions, frame: TargetRows | None, notes: Notes
) -> WeightFit:
    """Fit the importance weights, refuse separation, warn of non-convergence."""
    model = WeightModel(
        make_model(design, sample=sample, target=target, options=options, frame=frame), target, sample.observed
    )
    fit = fit_weights(model, sample.s)
    _check_separation(design, sample, fit, options.propensity_link)
    check_membership(fit)
    if not fit.converged:
        models = f"the propensity model ({options.propensity_link})"
        if model.membership is not None:
            models += " or of the membership model (logit), which tells the target frame from the sample,"
        notes.warn(
            f"the optimiser of {models} stopped before it converged: {fit.iterations} Newton iterations.\n"
            "Standardise the covariates or simplify the formula; res.converged is False.",
            ConvergenceWarning,
        )
    return fit


def _check_separation(design: Design, sample: Sample, fit: WeightFit, link: str) -> None:
    """Raise a SeparationError where the propensity model predicts the arm of some rows perfectly."""
    found = find_separation(fit)
    if found is not None:
        coefficients = sample.Z.coefficients(found.direction)
        raise separation_error(design, sample.restore(found.rows), coefficients, link)


def _trimmed(design: Design, options: ModelOptions, notes: Notes) -> tuple[Design, str]:
    """Leave out the rows that trimming excludes, and say how many by what limits."""
    if options.trim is None:
        return design, ""
    check_trimmed_frame(options)
    options = replace(options, clip=None)  # rows are trimmed by the scores as they are
    sample = make_sample(
        design.y, X=design.X, Z=design.Z, arm=design.arm, weights=design.weights, family=options.outcome_family
    )
    everybody = ArmTarget(None)
    fit = fit_weights(
        WeightModel(
            make_model(design, sample=sample, target=everybody, options=options, frame=None), everybody, sample.observed
        ),
        sample.s,
    )
    if options.trim == "separated":
        found = find_separation(fit)
        limits, keep = "separated", np.ones(sample.n, dtype=bool) if found is None else ~found.rows
    else:
        _check_separation(design, sample, fit, options.propensity_link)
        limits, keep = _within(fit.probabilities, sample.s, options.trim)
    dropped = int((~keep).sum())
    reason = f"propensity score {limits}"
    trimmed = design.subset(sample.restore(keep), reason)
    return trimmed, f"{dropped} {limits}"


def _within(scores: Array, weights: Array, trim: Any) -> tuple[str, NDArray[np.bool_]]:
    """Which rows have scores, shape (K, n), that trimming keeps, shape (n,), and the rule in words."""
    if trim == "crump" and len(scores) > 2:
        cut = crump_cut(scores, weights)
        return f"with sum 1/e > {cut:.3g}", inverse_sum(scores) <= cut
    low, high = crump_limits(scores[1], weights) if trim == "crump" else trim
    return f"outside [{low:.3g}, {high:.3g}]", inside(scores[1:] if len(scores) == 2 else scores, low, high)
