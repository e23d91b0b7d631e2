"""From a design and options to what the estimators work on: the sample, the target, the importance weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from causalrisk.design import Design, TargetRows, target_rows
from causalrisk.diagnostics.overlap import crump_limits
from causalrisk.errors import ConvergenceWarning, OptionError
from causalrisk.ledger import Notes
from causalrisk.options import ModelOptions, is_frame
from causalrisk.propensity import (
    BinaryModel,
    CalibratedModel,
    ClassifierModel,
    ClippedModel,
    KnownModel,
    MultinomialModel,
    PropensityModel,
)
from causalrisk.sample import Sample, make_sample
from causalrisk.separation import check_membership, check_separation, separated_rows
from causalrisk.targets import ArmTarget, FrameTarget, FunctionTilt, Target, TiltTarget, overlap_tilt
from causalrisk.weighting import WeightFit, Weighting, fit_weighting


@dataclass(frozen=True)
class Assembly:
    """The data of a fit.

    Parameters
    ----------
    design : Design
        The data, trimmed if asked for.
    sample : Sample
        The data as numbers.
    target : Target
        The target population.
    frame : TargetRows or None
        Rows of a target frame.
    weights : WeightFit or None
        The fitted importance weights; None where the estimator and the target need none.
    trimmed : str
        How many rows were trimmed and by what limits; empty where none were.
    """

    design: Design
    sample: Sample
    target: Target
    frame: TargetRows | None
    weights: WeightFit | None
    trimmed: str


def assemble(design: Design, options: ModelOptions, uses_propensity: bool, notes: Notes) -> Assembly:
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
    Assembly
        The data of the fit.
    """
    _check_arms(design, options)
    options.outcome.check(design.y, design.endog_name)
    design, trimmed = _trimmed(design, options, notes)
    frame = None
    if is_frame(options.target):
        frame = target_rows(design, options.target, design.missing)
        notes.extend(frame.notes)
        if design.weight_type is not None:
            notes.append("The rows of the target frame count alike; weights= are those of the sample.")
    rows = None if frame is None else (frame.X, frame.Z)
    sample = make_sample(design.y, design.X, design.Z, design.arm, design.weights, options.outcome, rows)
    target = make_target(sample, options)
    weights = None
    if uses_propensity or isinstance(target, TiltTarget):
        weights = _fit_weights(design, sample, target, options, frame, notes)
    return Assembly(design, sample, target, frame, weights, trimmed)


def _check_arms(design: Design, options: ModelOptions) -> None:
    """Refuse options that several arms do not have."""
    if design.n_arms == 2:
        return
    treated, one_score = options.target == "treated", callable(options.target)
    towards_one = options.clip is not None and options.target_name != "all"
    refused = {
        "target": (
            treated or one_score,
            options.target_name,
            'target="control"  (the reference arm), "overlap" or "all"',
        ),
        "propensity_link": (options.propensity_link != "logit", options.propensity_link, 'propensity_link="logit"'),
        "trim": (options.trim == "crump", options.trim, "trim=(0.05, 0.95)"),
        "clip": (towards_one, options.clip, 'target="all", or leave clip= out'),
    }
    for name, (holds, value, instead) in refused.items():
        if holds:
            raise OptionError(f"{name}={value!r} is for two arms; here are {design.n_arms}.\nType  {instead}.")


def make_target(sample: Sample, options: ModelOptions) -> Target:
    """Return the target population that the options name."""
    named: dict[str, Callable[[], Target]] = {
        "all": lambda: ArmTarget(None),
        "treated": lambda: ArmTarget(1),
        "control": lambda: ArmTarget(0),
        "overlap": lambda: TiltTarget(overlap_tilt),
    }
    if isinstance(options.target, str):
        return named[options.target]()
    if sample.n_frame:
        of_frame = sample.observed == 0
        membership = BinaryModel(sample.propensity.columns, of_frame.astype(np.intp), "logit")
        return FrameTarget(of_frame, membership)
    return TiltTarget(FunctionTilt(options.target))


def make_model(
    design: Design, sample: Sample, target: Target, options: ModelOptions, frame: TargetRows | None
) -> PropensityModel:
    """Return the propensity model that the options name, on the rows of the sample."""
    columns, arm = sample.propensity.columns, sample.arm
    model: PropensityModel
    if design.score is not None:
        filler = np.full((sample.n_frame, design.n_arms), 1 / design.n_arms)
        model = KnownModel(columns, arm, sample.arrange(np.concatenate([design.score, filler])))
    elif options.propensity_score is not None:
        features = sample.arrange(design.Z if frame is None else np.concatenate([design.Z, frame.Z]))
        model = ClassifierModel(
            columns, arm, design.n_arms, options.propensity_score, features, sample.observed, options.n_folds,
            options.clip, sample.clusters(design.cluster),
        )  # fmt: skip
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
    weighting = Weighting(make_model(design, sample, target, options, frame), target, sample.observed)
    fit = fit_weighting(weighting, sample.weights)
    check_separation(design, sample, fit, options.propensity_link)
    if weighting.membership is not None:
        check_membership(sample, weighting.membership, fit)
    if not fit.converged:
        models = f"the propensity model ({options.propensity_link})"
        if weighting.membership is not None:
            models += " or of the membership model (logit), which tells the target frame from the sample,"
        notes.warn(
            f"the optimiser of {models} stopped before it converged: {fit.iterations} Newton iterations.\n"
            "Standardise the covariates or simplify the formula; res.converged is False.",
            ConvergenceWarning,
        )
    return fit


def _trimmed(design: Design, options: ModelOptions, notes: Notes) -> tuple[Design, str]:
    """Leave out the rows that trimming excludes, and say how many by what limits."""
    if options.trim is None:
        return design, ""
    if is_frame(options.target):
        raise OptionError(
            "trim= with a target frame would trim the sample and not its target.\n"
            "Leave trim= out, and the rows of the frame that have no like in the sample."
        )
    options = replace(options, clip=None)  # rows are trimmed by the scores as they are
    sample = make_sample(design.y, design.X, design.Z, design.arm, design.weights, options.outcome)
    everybody = ArmTarget(None)
    fit = fit_weighting(
        Weighting(make_model(design, sample, everybody, options, None), everybody, sample.observed), sample.weights
    )
    if options.trim == "separated":
        limits, keep = "separated", np.asarray(~separated_rows(sample, fit))
    else:
        check_separation(design, sample, fit, options.propensity_link)
        low, high = crump_limits(fit.probabilities[1], sample.weights) if options.trim == "crump" else options.trim
        scores = fit.probabilities[1:] if design.n_arms == 2 else fit.probabilities
        limits = f"outside [{low:.3g}, {high:.3g}]"
        keep = np.asarray(((scores >= low) & (scores <= high)).all(axis=0))
    dropped = int((~keep).sum())
    reason = f"propensity score {limits}"
    trimmed = design.subset(sample.restore(keep), reason)
    return trimmed, f"{dropped} {limits}"
