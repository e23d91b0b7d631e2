"""From a design and options to a fitted record: the stages in order, each a function of the one before."""

from __future__ import annotations

import dataclasses

import numpy as np

from causalrisk.design import Design
from causalrisk.diagnostics.overlap import ArmWeights, arm_weights, overlap_message
from causalrisk.errors import ConvergenceWarning, DesignWarning, OverlapWarning
from causalrisk.estimators import IPWRA, JRE, Estimate, Specification, estimate_separately
from causalrisk.inference.resample import seed_sequence
from causalrisk.joint import estimate_jointly
from causalrisk.options import InferenceOptions, JREOptions, ModelOptions
from causalrisk.propensity import PropensityFit, fit_propensity
from causalrisk.record import FitRecord, JointRecord
from causalrisk.refit import PropensityRefitter
from causalrisk.resampling import Notes, fit_replicates, make_resampling
from causalrisk.sample import Sample, make_sample
from causalrisk.separation import find_separation, separation_error
from causalrisk.uncertainty import with_uncertainty

FEW_CLUSTERS = 10


def fit_separate(design: Design, spec: Specification, options: ModelOptions, inference: InferenceOptions) -> FitRecord:
    """Fit one of the estimators that train each arm by itself.

    Parameters
    ----------
    design : Design
        The data.
    spec : Specification
        The estimator.
    options : ModelOptions
        What is estimated.
    inference : InferenceOptions
        How standard errors are computed.

    Returns
    -------
    FitRecord
        The fit.
    """
    cov_type, kind = inference.resolved(design.cluster is not None, joint=False)
    notes = Notes(design.notes)
    sample = make_sample(design.y, design.X, design.Z, design.arm, design.weights)
    propensity = _fit_propensity(design, sample, options, notes) if spec.uses_propensity else None
    overlap = _overlap(design, sample, propensity, notes)
    estimate = estimate_separately(sample, spec, propensity)
    _check_outcome(design, notes)
    _check_clusters(design, notes)
    record = _record(design, spec, options, inference, sample, propensity, estimate, overlap, cov_type, kind)
    return with_uncertainty(record, inference, notes)


def fit_joint(
    design: Design, options: ModelOptions, inference: InferenceOptions, joint_options: JREOptions
) -> FitRecord:
    """Fit the Joint Robust Estimator.

    Parameters
    ----------
    design : Design
        The data.
    options : ModelOptions
        What is estimated.
    inference : InferenceOptions
        How standard errors are computed.
    joint_options : JREOptions
        How it is trained.

    Returns
    -------
    FitRecord
        The fit.
    """
    cov_type, kind = inference.resolved(design.cluster is not None, joint=True)
    notes = Notes(design.notes)
    sample = make_sample(design.y, design.X, design.Z, design.arm, design.weights)
    propensity = _fit_propensity(design, sample, options, notes)
    overlap = _overlap(design, sample, propensity, notes)
    start = estimate_separately(sample, IPWRA, propensity)
    first = _record(design, IPWRA, options, inference, sample, propensity, start, overlap, cov_type, kind)
    resampling = make_resampling(design, sample, kind, first.seed)
    refit = PropensityRefitter(sample, propensity)
    replicates = fit_replicates(refit, resampling, sample, joint_options, inference.max_failed, notes)
    criterion = joint_options.criterion(sample.total)
    method = joint_options.method or "least_squares"
    joint = estimate_jointly(sample, propensity, start, replicates, criterion, method)
    if not joint.result.success:
        notes.warn(_not_converged(f"the joint objective ({method})", str(joint.result.message)), ConvergenceWarning)
    _check_outcome(design, notes)
    _check_clusters(design, notes)
    kept = dataclasses.replace(joint_options, replicates=None)
    parts = JointRecord(joint, kept, criterion, replicates)
    record = dataclasses.replace(first, spec=JRE, estimate=joint.estimate, joint=parts)
    return with_uncertainty(record, inference, notes)


def _record(
    design: Design,
    spec: Specification,
    options: ModelOptions,
    inference: InferenceOptions,
    sample: Sample,
    propensity: PropensityFit | None,
    estimate: Estimate,
    overlap: tuple[ArmWeights, ...],
    cov_type: str,
    kind: str,
) -> FitRecord:
    """Make a record without standard errors yet."""
    given, seed = inference.resamples is not None, seed_sequence(inference.rng)
    size = estimate.influence.shape[1]
    unknown = np.full((size, size), np.nan)
    return FitRecord(
        design, spec, options, sample, propensity, estimate, overlap, None, cov_type, kind, unknown, None, given, seed,
        design.notes,
    )  # fmt: skip


def _check_clusters(design: Design, notes: Notes) -> None:
    """Warn of an arm in clusters too few for the sandwich and the bootstrap to know their variance."""
    if design.cluster is None:
        return
    counts = [len(np.unique(design.cluster[design.arm == arm])) for arm in range(design.n_arms)]
    fewest = int(np.argmin(counts))
    if counts[fewest] < FEW_CLUSTERS:
        notes.warn(
            f"arm {design.labels[fewest]!r} has rows in only {counts[fewest]} of the {int(design.cluster.max()) + 1} "
            f"clusters of {design.cluster_name!r}; clustered standard errors are too small with fewer than about "
            f"{FEW_CLUSTERS} clusters in an arm.\nRead the intervals as optimistic, or type  "
            'fit(cov_type="cluster", small_sample=True).',
            DesignWarning,
        )


def _check_outcome(design: Design, notes: Notes) -> None:
    """Warn of an outcome that is constant, in all rows or within an arm."""
    name = design.endog_name
    if np.ptp(design.y) == 0:
        notes.warn(
            f"outcome {name!r} is constant: {design.y[0]:g} in all {design.n} rows; the effect is 0 with standard "
            "error 0, and there is no test.\nCheck that it is the column you mean.",
            DesignWarning,
        )
        return
    values = [design.y[design.arm == arm] for arm in range(design.n_arms)]
    constant = [f"{y[0]:g} in arm {label!r}" for y, label in zip(values, design.labels, strict=True) if np.ptp(y) == 0]
    if constant:
        notes.warn(
            f"outcome {name!r} does not vary within an arm: it is {' and '.join(constant)}, whose sampling variance "
            "cannot be learnt from it.\nCheck that it is the column you mean.",
            DesignWarning,
        )


def _not_converged(what: str, message: str) -> str:
    return (
        f"the optimiser of {what} stopped before it converged: {message}\n"
        "Standardise the covariates or simplify the formula; res.converged is False."
    )


def _fit_propensity(design: Design, sample: Sample, options: ModelOptions, notes: Notes) -> PropensityFit:
    """Fit the propensity model, refuse separation, warn of non-convergence."""
    fit = fit_propensity(sample.propensity, sample.treated, sample.weights, options.propensity_link)
    found = find_separation(sample, fit)
    if found is not None:
        raise separation_error(design, sample, found, options.propensity_link)
    if not fit.converged:
        message = f"{fit.iterations} Newton iterations."
        notes.warn(_not_converged(f"the propensity model ({options.propensity_link})", message), ConvergenceWarning)
    return fit


def _overlap(design: Design, sample: Sample, propensity: PropensityFit | None, notes: Notes) -> tuple[ArmWeights, ...]:
    """Summarise the weights per arm and warn where few dominate."""
    inverse = propensity.weights if propensity is not None else np.ones(sample.n)
    summaries = tuple(arm_weights(inverse[rows], sample.weights[rows]) for rows in sample.slices)
    message = overlap_message(summaries, design.labels, None if propensity is None else propensity.score)
    if message:
        notes.warn(message, OverlapWarning)
    return summaries
