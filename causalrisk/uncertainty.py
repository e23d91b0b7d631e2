"""Standard errors of a fitted record: the sandwich, or the bootstrap of the whole procedure."""

from __future__ import annotations

import dataclasses

import numpy as np

from causalrisk.errors import FitInterrupted, MonteCarloWarning
from causalrisk.estimators import IPWRA
from causalrisk.inference.sandwich import sandwich
from causalrisk.ledger import Notes, Reason
from causalrisk.linalg import Array
from causalrisk.options import InferenceOptions
from causalrisk.record import FitRecord
from causalrisk.refit import JointRefitter, Refitter, SeparateRefitter
from causalrisk.resampling import bootstrap, make_resampling, operators_of

ROUNDING = 1e-13  # a standard error below this share of the estimates is rounding error
NOTICEABLE_MONTE_CARLO = 0.05  # share of the standard error


def refitter_of(record: FitRecord, groups: Array | None = None) -> Refitter:
    """Return the batched refit of a fitted record.

    Parameters
    ----------
    record : FitRecord
        The fit.
    groups : ndarray, shape (n, G), optional
        For a joint fit indicators of groups, rows in the order of the sample, whose effects are wanted instead.

    Returns
    -------
    callable
        Multiplicities (n, m) and number of the first resample -> `Refits`.
    """
    sample, weights, joint, scale = record.sample, record.propensity, record.joint, record.options.scale
    if joint is None or weights is None:
        return SeparateRefitter(sample, record.spec, weights, record.estimate, record.target, scale)
    resampling = make_resampling(record.design, sample, record.bootstrap, record.seed)
    operator_of = operators_of(weights, resampling, sample, joint.replicates, joint.options)
    theta = joint.fit.start.theta if sample.family.linear else record.estimate.theta
    return JointRefitter(sample, weights, theta, joint.criterion, operator_of, scale, groups)


def with_uncertainty(record: FitRecord, inference: InferenceOptions, notes: Notes) -> FitRecord:
    """Add the standard errors that were asked for, and the warnings that come with them.

    Parameters
    ----------
    record : FitRecord
        A fit without standard errors; its `cov_type` says which.
    inference : InferenceOptions
        How they are computed.
    notes : Notes
        Warnings so far; more are added.

    Returns
    -------
    FitRecord
        The fit with covariance, bootstrap distribution and notes.

    Raises
    ------
    FitInterrupted
        With the record of the fit with robust standard errors, if the bootstrap is interrupted.
    """
    if record.cov_type == "bootstrap":
        resampling = make_resampling(record.design, record.sample, record.bootstrap, record.seed)
        try:
            boot = bootstrap(refitter_of(record), resampling, record.sample, inference, notes)
        except KeyboardInterrupt:
            raise FitInterrupted(robust_record(record)) from None
        used = boot.used
        covariance = boot.covariance() if len(used) > 1 else np.full((boot.values.shape[1],) * 2, np.nan)
        record = dataclasses.replace(record, boot=boot, covariance=covariance)
    else:
        record = dataclasses.replace(record, covariance=robust_covariance(record, inference.small_sample))
    if record.joint is not None:
        check_monte_carlo(record, notes)
    return without_rounding_error(dataclasses.replace(record, notes=tuple(notes)))


def robust_record(record: FitRecord) -> FitRecord:
    """Return the same fit with robust standard errors in place of the bootstrap's."""
    plain = dataclasses.replace(record, cov_type=record.robust_type, boot=None, given_resamples=False)
    return without_rounding_error(dataclasses.replace(plain, covariance=robust_covariance(plain, False)))


def start_record(record: FitRecord) -> FitRecord:
    """Return the IPWRA fit that a joint fit started from, with robust standard errors."""
    if record.joint is None:
        return robust_record(record)
    start = record.joint.fit.start
    return robust_record(dataclasses.replace(record, spec=IPWRA, estimate=start, joint=None, notes=record.design.notes))


def robust_covariance(record: FitRecord, small_sample: bool) -> Array:
    """Return the sandwich covariance of all estimates, clustered where a cluster was given."""
    cluster = record.design.cluster
    return sandwich(
        record.estimate.influence,
        record.sample.weights,
        frequency=record.frequency,
        cluster=record.sample.clusters(cluster),
        total=record.sample.total,
        n_coefficients=record.estimate.theta.size if small_sample or record.cov_type == "HC1" else 0,
    )


def without_rounding_error(record: FitRecord) -> FitRecord:
    """Give a constant outcome that the models hold its exact estimates: rounding error is not sampling error."""
    estimate, level = record.estimate, record.design.y[0]
    count, n_arms = len(estimate.params), len(estimate.theta)
    null = record.options.scale.null
    exact = np.r_[np.full(count - n_arms, null), np.full(n_arms, level)]
    if np.ptp(record.design.y) > 0 or not np.allclose(estimate.params, exact, rtol=0, atol=1e-9 * abs(level)):
        return record
    boot = record.boot
    if boot is not None:
        values = boot.values.copy()
        values[boot.reasons == Reason.OK, :count] = exact
        boot = dataclasses.replace(boot, values=values)
    still = dataclasses.replace(estimate, params=exact, influence=np.zeros_like(estimate.influence))
    return dataclasses.replace(record, estimate=still, covariance=np.zeros_like(record.covariance), boot=boot)


def check_monte_carlo(record: FitRecord, notes: Notes) -> None:
    """Warn where the finite number of replicates moves the effect noticeably."""
    if record.joint is None:
        return
    mc_ses, count = record.joint.fit.mc_se, record.joint.replicates.count
    ses = np.sqrt(np.diag(record.covariance)[: len(mc_ses)])
    real = ses > ROUNDING * np.abs(record.estimate.params).max()
    shares = np.divide(mc_ses, ses, out=np.zeros(len(ses)), where=real)
    mc_se, share = mc_ses[shares.argmax()], shares.max()
    if share > NOTICEABLE_MONTE_CARLO:
        needed = int(np.ceil(count * (share / NOTICEABLE_MONTE_CARLO) ** 2 / 100) * 100)
        notes.warn(
            f"the Monte Carlo standard error of the effect, {mc_se:.3g}, is {share:.0%} of its standard error: another "
            f"seed would move the effect by about that much.\nType  fit(n_replicates={needed})  to bring it to 5%.",
            MonteCarloWarning,
        )
