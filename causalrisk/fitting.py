"""From a design and options to a fitted record: the stages in order, each a function of the one before."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalrisk.design import Design
from causalrisk.errors import (
    CausalRiskError,
    CausalRiskWarning,
    ConvergenceWarning,
    MonteCarloWarning,
    OverlapWarning,
    ResampleWarning,
    warn_user,
)
from causalrisk.estimators import IPWRA, JRE, Estimate, Specification, estimate_separately
from causalrisk.inference.bootstrap import BootstrapDistribution, run_bootstrap, worker_count
from causalrisk.inference.resample import (
    REPLICATE_STREAM,
    RESAMPLE_STREAM,
    WIDTH,
    Resampler,
    given_multiplicities,
    seed_sequence,
)
from causalrisk.inference.sandwich import sandwich
from causalrisk.joint import JointEstimate, Replicates, deviation_from, estimate_jointly
from causalrisk.ledger import Reason, failure_text
from causalrisk.linalg import Array
from causalrisk.options import InferenceOptions, JREOptions, ModelOptions
from causalrisk.overlap import ArmWeights, arm_weights, overlap_message
from causalrisk.propensity import PropensityFit, fit_propensity
from causalrisk.refit import (
    GeneralReplicates,
    JointRefitter,
    PropensityRefitter,
    Refitter,
    SeparableReplicates,
    SeparateRefitter,
    draw_replicates,
    nested_replicates,
    shifted_replicates,
)
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


class Notes(list[str]):
    """Texts of the warnings of a fit, for the summary."""

    def warn(self, message: str, category: type[CausalRiskWarning]) -> None:
        """Give a warning and keep its text."""
        self.append(message)
        warn_user(message, category)


@dataclass(frozen=True)
class Resampling:
    """The random part of a fit.

    Parameters
    ----------
    resampler : Resampler
        Draws multiplicities, rows in the order of the design.
    order : ndarray of int, shape (n,)
        Position in the design of each row of the sample.
    """

    resampler: Resampler
    order: NDArray[np.intp]

    def draw(self, stream: int, block: int, width: int) -> Array:
        """Multiplicities of a block, rows in the order of the sample."""
        return self.resampler.draw(stream, block, width)[self.order]

    def draw_within(self, weights: Array, number: int, width: int) -> Array:
        """Multiplicities of resamples of a resample, rows in the order of the sample."""
        restored = np.empty_like(weights)
        restored[self.order] = weights
        return self.resampler.draw_within(restored, number, width)[self.order]


def make_resampling(design: Design, sample: Sample, kind: str, seed: np.random.SeedSequence) -> Resampling:
    """The resampling of a design: clusters for "cluster", arms for "stratified"."""
    groups = {"cluster": design.cluster, "stratified": design.arm}.get(kind)
    frequency = design.weight_type == "frequency"
    return Resampling(Resampler(kind, seed, design.weights, frequency, groups), sample.order)


def fit_separate(
    design: Design, spec: Specification, options: ModelOptions, inference: InferenceOptions
) -> FitRecord:
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
    cov_type, kind = inference.resolved(design.cluster is not None, "robust")
    notes = Notes(design.notes)
    sample = make_sample(design.y, design.X, design.Z, design.arm, design.weights)
    propensity = _fit_propensity(design, sample, options, notes) if spec.uses_propensity else None
    overlap = _overlap(design, sample, propensity, notes)
    estimate = estimate_separately(sample, spec, propensity)
    seed = seed_sequence(inference.rng)
    resampling = make_resampling(design, sample, kind, seed)
    refit = SeparateRefitter(sample, spec, propensity, estimate)
    boot = _bootstrap(refit, resampling, sample, inference, notes) if cov_type == "bootstrap" else None
    covariance = _covariance(design, sample, estimate, cov_type, boot, inference.small_sample)
    given = inference.resamples is not None
    return FitRecord(
        design, spec, options, sample, propensity, estimate, overlap, None, cov_type, kind, covariance, boot, given,
        seed.entropy, tuple(notes),
    )  # fmt: skip


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
    cov_type, kind = inference.resolved(design.cluster is not None, "bootstrap")
    notes = Notes(design.notes)
    sample = make_sample(design.y, design.X, design.Z, design.arm, design.weights)
    propensity = _fit_propensity(design, sample, options, notes)
    overlap = _overlap(design, sample, propensity, notes)
    seed = seed_sequence(inference.rng)
    resampling = make_resampling(design, sample, kind, seed)
    start = estimate_separately(sample, IPWRA, propensity)
    refit_propensity = PropensityRefitter(sample, propensity)
    replicates = _replicates(refit_propensity, resampling, sample, joint_options, notes)
    penalty = joint_options.penalty_value(sample.total)
    criterion = Criterion(joint_options.fit_weight, penalty, joint_options.objective == "mse")
    method = joint_options.method or "least_squares"
    joint = estimate_jointly(sample, propensity, start, replicates, criterion, method)
    if not joint.result.success:
        notes.warn(_not_converged(f"the joint objective ({method})", str(joint.result.message)), ConvergenceWarning)
    boot = None
    if cov_type == "bootstrap":
        spread = _replicates_of(refit_propensity, resampling, sample, start, replicates, joint_options)
        refit = JointRefitter(sample, propensity, start, criterion, spread)
        boot = _bootstrap(refit, resampling, sample, inference, notes)
    covariance = _covariance(design, sample, joint.estimate, cov_type, boot, inference.small_sample)
    _check_monte_carlo(joint.mc_se, float(np.sqrt(covariance[0, 0])), replicates.count, notes)
    kept = dataclasses.replace(joint_options, replicates=None)
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
    return record, first


def robust_record(record: FitRecord) -> FitRecord:
    """The same fit with robust standard errors in place of the bootstrap's."""
    robust = "cluster" if record.design.cluster is not None else "robust"
    covariance = _covariance(record.design, record.sample, record.estimate, robust, None, False)
    return dataclasses.replace(record, cov_type=robust, boot=None, covariance=covariance)


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


def _overlap(
    design: Design, sample: Sample, propensity: PropensityFit | None, notes: Notes
) -> tuple[ArmWeights, ...]:
    """Summarise the weights per arm and warn where few dominate."""
    inverse = propensity.weights if propensity is not None else np.ones(sample.n)
    summaries = tuple(arm_weights(inverse[rows], sample.weights[rows]) for rows in sample.slices)
    message = overlap_message(summaries, design.labels)
    if message:
        notes.warn(message, OverlapWarning)
    return summaries


def _replicates(
    refit: PropensityRefitter, resampling: Resampling, sample: Sample, options: JREOptions, notes: Notes
) -> Replicates:
    """Draw or take the multiplicities of the replicates and fit them."""
    if options.replicates is not None:
        given = given_multiplicities("replicates", options.replicates, sample.n)[sample.order]
        given = given * sample.weights[:, None] if not resampling.resampler.frequency else given
        n_drawn = given.shape[1]
        replicates = draw_replicates(refit, lambda j: given[:, j * WIDTH : (j + 1) * WIDTH], -(-n_drawn // WIDTH))
    else:
        n_drawn = options.n_replicates

        def weights(block: int) -> Array:
            return resampling.draw(REPLICATE_STREAM, block, min(WIDTH, n_drawn - block * WIDTH))

        replicates = draw_replicates(refit, weights, -(-n_drawn // WIDTH))
    failed = n_drawn - replicates.count
    if failed == n_drawn:
        raise CausalRiskError(
            f"none of the {n_drawn} propensity replicates could be fitted: {failure_text(replicates.reasons)}.\n"
            "Simplify the formula in propensity=, or fit IPWRA instead."
        )
    if failed:
        notes.warn(
            f"{failed} of {n_drawn} propensity replicates were left out: {failure_text(replicates.reasons)}.\n"
            "See res.replicate_ledger; a simpler formula in propensity= would avoid it.",
            ResampleWarning,
        )
    return replicates


def _replicates_of(
    refit: PropensityRefitter,
    resampling: Resampling,
    sample: Sample,
    start: Estimate,
    replicates: Replicates,
    options: JREOptions,
) -> Callable[..., Any]:
    """The replicates of each resample: nested, shifted and separable, or shifted under any link."""
    fit, deviation = refit.fit, deviation_from(sample, start)
    if options.bootstrap_replicates == "nested":
        count = len(replicates.reasons)
        gamma_of = nested_replicates(refit, lambda w, number: resampling.draw_within(w, number, count))
        return GeneralReplicates(sample, fit, deviation.residual, gamma_of, count)
    if fit.link_name == "logit":
        rows = np.column_stack([sample.outcome.columns, deviation.residual])
        return SeparableReplicates(sample, fit, replicates, rows)
    return GeneralReplicates(sample, fit, deviation.residual, shifted_replicates(fit, replicates), replicates.count)


def _bootstrap(
    refit: Refitter, resampling: Resampling, sample: Sample, inference: InferenceOptions, notes: Notes
) -> BootstrapDistribution:
    """Run the bootstrap and warn of failures."""
    n_boot, draw = inference.n_boot, lambda block, width: resampling.draw(RESAMPLE_STREAM, block, width)
    if inference.resamples is not None:
        given = given_multiplicities("resamples", inference.resamples, sample.n)[sample.order]
        n_boot = given.shape[1]
        scale = np.ones(sample.n) if resampling.resampler.frequency else sample.weights
        draw = lambda block, width: given[:, block * WIDTH : block * WIDTH + width] * scale[:, None]  # noqa: E731
    columns = sample.outcome.columns.shape[1] + sample.propensity.columns.shape[1]
    workers = worker_count(inference.n_jobs, inference.memory, 8.0 * sample.n * WIDTH * (columns + 8))
    boot = run_bootstrap(refit, draw, n_boot, WIDTH, workers, inference.progress)
    failed = int((boot.reasons != Reason.OK).sum())
    if failed and failed < n_boot:
        notes.warn(
            f"{failed} of {n_boot} resamples were left out of the standard errors: {failure_text(boot.reasons)}.\n"
            "See res.boot_ledger; a simpler formula would avoid it.",
            ResampleWarning,
        )
    return boot


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
