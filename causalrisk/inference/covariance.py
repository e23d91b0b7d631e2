"""Standard errors of a fitted record: the sandwich of stacked estimating equations, bootstrap, or jackknife."""

from __future__ import annotations

import dataclasses

import numpy as np

from causalrisk.design import Design
from causalrisk.errors import BootstrapError, Failure, FitInterrupted, MonteCarloWarning, Notes, failure_text
from causalrisk.estimators.estimates import KnownRows
from causalrisk.estimators.fit import fit_joint, fit_separate
from causalrisk.estimators.options import InferenceOptions, ModelOptions
from causalrisk.estimators.record import SE_ROUNDING, BootstrapDistribution, FitRecord, robust_covariance
from causalrisk.estimators.specification import IPWRA
from causalrisk.inference.bootstrap import bootstrap_of, drawn_or_weighed, jackknife_covariance, resample_covariance
from causalrisk.numerics.linalg import Array
from causalrisk.numerics.multiplicities import JACKKNIFE

WITHOUT_ERRORS = "the fit was interrupted before its standard errors; the estimate without them is in err.results"
NOTICEABLE_MONTE_CARLO = 0.05  # Monte Carlo error as a share of the standard error


def fit_again(record: FitRecord, design: Design, options: ModelOptions, inference: InferenceOptions) -> FitRecord:
    """Fit the estimator of a record to a design under options of the model, without standard errors."""
    if record.joint is None:
        return fit_separate(design, record.spec, options, inference)
    return fit_joint(design, options, inference, record.joint.options)


def with_covariance(record: FitRecord, inference: InferenceOptions) -> FitRecord:
    """Add the standard errors that were asked for, and the warnings that come with them.

    Parameters
    ----------
    record : FitRecord
        A fit without standard errors; its `cov_type` says which.
    inference : InferenceOptions
        Options of the standard errors.

    Returns
    -------
    FitRecord
        The fit with covariance, bootstrap distribution and notes.

    Raises
    ------
    FitInterrupted, BootstrapError
        With the record of the fit with robust standard errors, if the bootstrap is interrupted or a worker dies;
        without standard errors, if the robust ones are interrupted.
    """
    notes = Notes(record.notes)
    if record.cov_type == "replicates":
        boot = bootstrap_of(record, inference)
        _check_replicates(boot, record)
        return with_bootstrap(record, boot, notes)
    if record.cov_type not in ("bootstrap", JACKKNIFE):
        covariance = _robust(record, inference.small_sample, notes)
        factor = inference.small_sample or record.cov_type == "HC1"
        record = dataclasses.replace(record, covariance=covariance, small_sample=factor, passes=None)
        return _completed(_with_choice(record), notes)
    if record.passes is not None:  # kept for an interruption or failure, when the rows may be out of reach
        record = dataclasses.replace(record, robust=_robust(record, False, notes))
    try:
        if record.cov_type == JACKKNIFE:
            covariance = jackknife_covariance(record, inference, notes)
            return _completed(dataclasses.replace(record, covariance=covariance, passes=None), notes)
        record, boot = drawn_or_weighed(record, inference, notes, lambda of: bootstrap_of(of, inference))
    except KeyboardInterrupt:
        raise FitInterrupted(robust_record(record)) from None
    except BootstrapError as error:  # a worker died, or too many units cannot be left out
        raise BootstrapError(str(error), robust_record(record)) from error.__cause__
    return with_bootstrap(record, boot, notes)


def _robust(record: FitRecord, small_sample: bool, notes: Notes) -> Array:
    """Return the robust covariance; interrupted, the estimate is not lost."""
    try:
        return robust_covariance(record, small_sample, notes)
    except KeyboardInterrupt:
        without = robust_record(dataclasses.replace(record, passes=None), record.covariance)
        raise FitInterrupted(without, WITHOUT_ERRORS) from None


def with_bootstrap(record: FitRecord, boot: BootstrapDistribution, notes: Notes) -> FitRecord:
    """Add the standard errors of a bootstrap distribution.

    Parameters
    ----------
    record : FitRecord
        A fit without standard errors.
    boot : BootstrapDistribution
        Its estimates over the resamples.
    notes : Notes
        Its warnings so far.

    Returns
    -------
    FitRecord
        The fit with covariance, bootstrap distribution and notes.
    """
    covariance = resample_covariance(record, boot.used, record.estimate.values)
    return _completed(dataclasses.replace(record, boot=boot, covariance=covariance, passes=None), notes)


def _check_replicates(boot: BootstrapDistribution, record: FitRecord) -> None:
    """Refuse a variance from replicate weights some of which have no estimate: each has a part in it."""
    failed = np.flatnonzero(boot.failures != Failure.OK)
    if failed.size:
        raise BootstrapError(
            f"{len(failed)} of {len(boot.failures)} replicate weights have no estimate (the first is number "
            f"{failed[0] + 1}): {failure_text(boot.failures)}.\nThe point estimate with robust standard errors, which "
            "know nothing of the design, is in err.results. Simplify propensity=, or the outcome formula.",
            robust_record(record),
        )


def _completed(record: FitRecord, notes: Notes) -> FitRecord:
    """Warn of Monte Carlo error, and remove rounding error where there is no sampling error."""
    check_monte_carlo(record, notes)
    return without_rounding_error(dataclasses.replace(record, notes=tuple(notes)))


def robust_record(record: FitRecord, covariance: Array | None = None) -> FitRecord:
    """Return the same fit with robust standard errors in place of the bootstrap's; the covariance may be known."""
    plain = dataclasses.replace(record, cov_type=record.robust_type, boot=None, given_resamples=False)
    covariance = robust_covariance(plain, False) if covariance is None else covariance
    return without_rounding_error(_with_choice(dataclasses.replace(plain, covariance=covariance)))


def _with_choice(record: FitRecord) -> FitRecord:
    """Scale the sandwich of a joint fit for the choice of its anchor, which an influence function takes as given."""
    return dataclasses.replace(record, covariance=record.covariance * record.choice_variance)


def start_record(record: FitRecord) -> FitRecord:
    """Return the IPWRA fit that a joint fit started from, with robust standard errors."""
    if record.joint is None:
        return robust_record(record)
    joint = record.joint
    start = dataclasses.replace(
        record,
        spec=IPWRA,
        estimate=joint.start,
        joint=None,
        learned=record.learned if record.stack is None else None,
        stack=None,
        notes=record.design.notes,
        passes=None,
        robust=joint.problem.start_covariance,
    )
    return robust_record(start, joint.problem.start_covariance)


def without_rounding_error(record: FitRecord) -> FitRecord:
    """Give a constant outcome that the models hold its exact estimates: rounding error is not sampling error."""
    estimate, limits = record.estimate, record.design.outcome_limits
    level = limits[0, 0]
    count, n_arms = len(estimate.params), len(estimate.theta)
    null = record.options.effect_scale.null
    exact = np.r_[np.full(count - n_arms, null), np.full(n_arms, level)]
    if np.ptp(limits) > 0 or not np.allclose(estimate.params, exact, rtol=0, atol=1e-9 * abs(level)):
        return record
    boot = record.boot
    if boot is not None:
        values = boot.values.copy()
        values[boot.failures == Failure.OK, :count] = exact
        boot = dataclasses.replace(boot, values=values)
    still = dataclasses.replace(
        estimate, params=exact, rows=KnownRows(estimate.predicted, np.zeros_like(estimate.influence))
    )
    return dataclasses.replace(record, estimate=still, covariance=np.zeros_like(record.covariance), boot=boot)


def check_monte_carlo(record: FitRecord, notes: Notes) -> None:
    """Warn where the finite number of replicates moves the effect noticeably."""
    if record.joint is None:
        return
    mc_ses, count = record.joint.estimate.mc_se, record.joint.replicates.count
    ses = np.sqrt(np.diag(record.covariance)[: len(mc_ses)])
    # What resamples leave out of the combinations of replicates is as small beside the Monte Carlo error.
    real = ses > np.maximum(SE_ROUNDING * np.abs(record.estimate.params).max(), 1e-9 * mc_ses)
    shares = np.divide(mc_ses, ses, out=np.zeros(len(ses)), where=real)
    mc_se, share = mc_ses[shares.argmax()], shares.max()
    if share > NOTICEABLE_MONTE_CARLO:
        needed = int(np.ceil(count * (share / NOTICEABLE_MONTE_CARLO) ** 2 / 100) * 100)
        notes.warn(
            f"the Monte Carlo standard error of the effect, {mc_se:.3g}, is {share:.0%} of its standard error: another "
            f"seed would move the effect by about that much.\nType  fit(n_replicates={needed})  to bring it to 5%.",
            MonteCarloWarning,
        )
