"""From a design and options to a fitted record: the stages in order, each a function of the one before."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from causalrisk.design import Design
from causalrisk.diagnostics.overlap import ArmWeights, arm_weights, overlap_message
from causalrisk.errors import ConvergenceWarning, DesignWarning, MonteCarloWarning, OverlapWarning
from causalrisk.estimators import IPWRA, JRE, Estimate, Specification, estimate_separately
from causalrisk.inference.bootstrap import BootstrapDistribution
from causalrisk.inference.resample import seed_sequence
from causalrisk.inference.sandwich import sandwich
from causalrisk.joint import JointEstimate, estimate_jointly
from causalrisk.ledger import Reason
from causalrisk.linalg import Array
from causalrisk.options import InferenceOptions, JREOptions, ModelOptions
from causalrisk.propensity import PropensityFit, fit_propensity
from causalrisk.refit import JointRefitter, PropensityRefitter, SeparateRefitter
from causalrisk.replicates import Replicates
from causalrisk.resampling import Notes, bootstrap, fit_replicates, make_resampling, replicates_of
from causalrisk.risk import Criterion
from causalrisk.sample import Sample, make_sample
from causalrisk.separation import find_separation, separation_error

NOTICEABLE_MONTE_CARLO = 0.05  # share of the standard error


@dataclass(frozen=True)
class JointRecord:
    """What a joint fit has beside an ordinary one.

    Parameters
    ----------
    fit : JointEstimate
        The estimate with its diagnostics.
    options : JREOptions
        The options, without the caller's multiplicities.
    penalty : float
        lambda as a number.
    replicates : Replicates
        The propensity replicates.
    """

    fit: JointEstimate
    options: JREOptions
    penalty: float
    replicates: Replicates


@dataclass(frozen=True)
class FitRecord:
    """Everything a fit produced.

    Parameters
    ----------
    design : Design
        The data.
    spec : Specification
        The estimator.
    options : ModelOptions
        What was estimated.
    sample : Sample
        The data as numbers, rows sorted by arm.
    propensity : PropensityFit or None
        The propensity model.
    estimate : Estimate
        The point estimate.
    overlap : tuple of ArmWeights
        How the importance weights are spread, per arm.
    joint : JointRecord or None
        The joint part, for JRE.
    cov_type : str
        "robust", "HC1", "cluster" or "bootstrap".
    bootstrap : str
        Kind of resampling.
    covariance : ndarray, shape (d, d)
        Covariance of `estimate.values`.
    boot : BootstrapDistribution or None
        The bootstrap distribution.
    given_resamples : bool
        Whether the caller gave the resamples.
    seed : int or sequence
        Entropy that repeats the fit.
    notes : tuple of str
        Text of every warning.
    """

    design: Design
    spec: Specification
    options: ModelOptions
    sample: Sample
    propensity: PropensityFit | None
    estimate: Estimate
    overlap: tuple[ArmWeights, ...]
    joint: JointRecord | None
    cov_type: str
    bootstrap: str
    covariance: Array
    boot: BootstrapDistribution | None
    given_resamples: bool
    seed: Any
    notes: tuple[str, ...]


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
    seed = seed_sequence(inference.rng)
    resampling = make_resampling(design, sample, kind, seed)
    refit = SeparateRefitter(sample, spec, propensity, estimate)
    boot = bootstrap(refit, resampling, sample, inference, notes) if cov_type == "bootstrap" else None
    covariance = _covariance(design, sample, estimate, cov_type, boot, inference.small_sample)
    given = inference.resamples is not None
    _check_outcome(design, notes)
    record = FitRecord(
        design, spec, options, sample, propensity, estimate, overlap, None, cov_type, kind, covariance, boot, given,
        seed.entropy, tuple(notes),
    )  # fmt: skip
    return _without_rounding_error(record)


def fit_joint(
    design: Design, options: ModelOptions, inference: InferenceOptions, joint_options: JREOptions
) -> tuple[FitRecord, FitRecord]:
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
    record, start : FitRecord
        The fit, and the IPWRA fit it started from.
    """
    cov_type, kind = inference.resolved(design.cluster is not None, joint=True)
    notes = Notes(design.notes)
    sample = make_sample(design.y, design.X, design.Z, design.arm, design.weights)
    propensity = _fit_propensity(design, sample, options, notes)
    overlap = _overlap(design, sample, propensity, notes)
    seed = seed_sequence(inference.rng)
    resampling = make_resampling(design, sample, kind, seed)
    start = estimate_separately(sample, IPWRA, propensity)
    refit_propensity = PropensityRefitter(sample, propensity)
    replicates = fit_replicates(refit_propensity, resampling, sample, joint_options, inference.max_failed, notes)
    penalty = joint_options.penalty_value(sample.total)
    criterion = Criterion(joint_options.fit_weight, penalty, joint_options.objective == "mse")
    method = joint_options.method or "least_squares"
    joint = estimate_jointly(sample, propensity, start, replicates, criterion, method)
    if not joint.result.success:
        notes.warn(_not_converged(f"the joint objective ({method})", str(joint.result.message)), ConvergenceWarning)
    boot = None
    if cov_type == "bootstrap":
        spread = replicates_of(refit_propensity, resampling, sample, start, replicates, joint_options)
        refit = JointRefitter(sample, propensity, start, criterion, spread)
        boot = bootstrap(refit, resampling, sample, inference, notes)
    covariance = _covariance(design, sample, joint.estimate, cov_type, boot, inference.small_sample)
    _check_monte_carlo(joint.mc_se, float(np.sqrt(covariance[0, 0])), replicates.count, notes)
    kept = dataclasses.replace(joint_options, replicates=None)
    _check_outcome(design, notes)
    record = FitRecord(
        design, JRE, options, sample, propensity, joint.estimate, overlap,
        JointRecord(joint, kept, penalty, replicates), cov_type, kind, covariance, boot,
        inference.resamples is not None, seed.entropy, tuple(notes),
    )  # fmt: skip
    robust = "cluster" if design.cluster is not None else "robust"
    first = dataclasses.replace(
        record, spec=IPWRA, estimate=start, joint=None, cov_type=robust, boot=None, notes=design.notes,
        covariance=_covariance(design, sample, start, robust, None, False), given_resamples=False,
    )  # fmt: skip
    return _without_rounding_error(record), _without_rounding_error(first)


def robust_record(record: FitRecord) -> FitRecord:
    """Return the same fit with robust standard errors in place of the bootstrap's."""
    robust = "cluster" if record.design.cluster is not None else "robust"
    covariance = _covariance(record.design, record.sample, record.estimate, robust, None, False)
    return dataclasses.replace(record, cov_type=robust, boot=None, covariance=covariance)


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


def _without_rounding_error(record: FitRecord) -> FitRecord:
    """Give a constant outcome that the models hold its exact estimates: rounding error is not sampling error."""
    estimate, level = record.estimate, record.design.y[0]
    count, n_arms = len(estimate.params), len(estimate.theta)
    exact = np.r_[np.zeros(count - n_arms), np.full(n_arms, level)]
    if np.ptp(record.design.y) > 0 or not np.allclose(estimate.params, exact, rtol=0, atol=1e-9 * abs(level)):
        return record
    boot = record.boot
    if boot is not None:
        values = boot.values.copy()
        values[boot.reasons == Reason.OK, :count] = exact
        boot = dataclasses.replace(boot, values=values)
    still = dataclasses.replace(estimate, params=exact, influence=np.zeros_like(estimate.influence))
    return dataclasses.replace(record, estimate=still, covariance=np.zeros_like(record.covariance), boot=boot)


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
    message = overlap_message(summaries, design.labels)
    if message:
        notes.warn(message, OverlapWarning)
    return summaries


def _covariance(
    design: Design,
    sample: Sample,
    estimate: Estimate,
    cov_type: str,
    boot: BootstrapDistribution | None,
    small_sample: bool,
) -> Array:
    """Covariance of all estimates."""
    if cov_type == "bootstrap" and boot is not None:
        return boot.covariance() if len(boot.used) > 1 else np.full((boot.values.shape[1],) * 2, np.nan)
    cluster = design.cluster[sample.order] if cov_type == "cluster" and design.cluster is not None else None
    return sandwich(
        estimate.influence,
        sample.weights,
        frequency=design.weight_type == "frequency",
        cluster=cluster,
        n_coefficients=estimate.theta.size if small_sample or cov_type == "HC1" else 0,
    )


def _check_monte_carlo(mc_se: float, se: float, count: int, notes: Notes) -> None:
    """Warn where the finite number of replicates moves the effect noticeably."""
    share = mc_se / se if se > 0 else 0.0
    if share > NOTICEABLE_MONTE_CARLO:
        needed = int(np.ceil(count * (share / NOTICEABLE_MONTE_CARLO) ** 2 / 100) * 100)
        notes.warn(
            f"the Monte Carlo standard error of the effect, {mc_se:.3g}, is {share:.0%} of its standard error: another "
            f"seed would move the effect by about that much.\nType  fit(n_replicates={needed})  to bring it to 5%.",
            MonteCarloWarning,
        )
