"""Standard errors of a fitted record: the sandwich of stacked estimating equations, or the bootstrap of all steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalrisk.errors import BootstrapError, FitInterrupted, MonteCarloWarning, Notes
from causalrisk.estimators.estimates import KnownRows
from causalrisk.estimators.options import InferenceOptions
from causalrisk.estimators.record import SE_ROUNDING, BlockInfluence, BootstrapDistribution, FitRecord
from causalrisk.estimators.specification import IPWRA
from causalrisk.inference.bootstrap import bootstrap_of, drawn_or_weighed, resample_covariance
from causalrisk.numerics.blocks import add_up
from causalrisk.numerics.failures import Failure
from causalrisk.numerics.linalg import Array, weighted_gram

NOTICEABLE_MONTE_CARLO = 0.05  # Monte Carlo error as a share of the standard error


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
        With the record of the fit with robust standard errors, if the bootstrap is interrupted or a worker dies.
    """
    notes = Notes(record.notes)
    if record.cov_type == "bootstrap":
        if record.passes is not None:  # kept for an interruption or failure, when the rows may be out of reach
            record = dataclasses.replace(record, robust=robust_covariance(record, False))
        try:
            record, boot = drawn_or_weighed(record, inference, notes, lambda of: bootstrap_of(of, inference))
        except KeyboardInterrupt:
            raise FitInterrupted(robust_record(record)) from None
        except BootstrapError as error:  # a worker died
            raise BootstrapError(str(error), robust_record(record)) from error.__cause__
        return with_bootstrap(record, boot, notes)
    covariance = robust_covariance(record, inference.small_sample)
    record = dataclasses.replace(record, covariance=covariance, passes=None)
    return _completed(_with_choice(record), notes)


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
        notes=record.design.notes,
        passes=None,
        robust=joint.start_covariance,
    )
    return robust_record(start, joint.start_covariance)


def with_robust(start: FitRecord) -> FitRecord:
    """Return a fit without standard errors with its robust covariance; of a scan this takes a pass over its rows."""
    plain = dataclasses.replace(start, cov_type=start.robust_type)
    return dataclasses.replace(plain, robust=robust_covariance(plain, False), passes=None)


def influence_covariance(record: FitRecord, influence: Array) -> Array:
    """Covariance of estimates on the data of a fit from their influence function, clustered where a cluster was given.

    Parameters
    ----------
    record : FitRecord
        The fit.
    influence : ndarray, shape (n, d)
        Influence function, rows in the order of the sample.

    Returns
    -------
    ndarray, shape (d, d)
        The sandwich.
    """
    return _covariance(record, [(slice(0, len(influence)), influence)], 0)


def _covariance(record: FitRecord, parts: Iterable[tuple[slice, Array]], n_coefficients: int) -> Array:
    """As `influence_covariance`, from parts of the rows of the sample; k of the small-sample factor n / (n - k)."""
    sample = record.sample
    cluster = sample.clusters(record.design.cluster)
    blocks = (
        BlockInfluence(values, sample.s[rows], None if cluster is None else cluster[rows]) for rows, values in parts
    )
    return sandwich(
        lambda function: map(function, blocks),
        n=sample.total + sample.n_frame if record.frequency else sample.n,
        total=sample.total,
        frequency=record.frequency,
        n_clusters=None if cluster is None else int(cluster.max()) + 1,
        n_coefficients=n_coefficients,
    )


def robust_covariance(record: FitRecord, small_sample: bool) -> Array:
    """Return the sandwich covariance of all estimates, clustered where a cluster was given."""
    n_coefficients = record.estimate.theta.size if small_sample or record.cov_type == "HC1" else 0
    if record.robust is not None:
        return record.robust
    if record.passes is None:
        return _covariance(record, record.estimate.rows.blocks(), n_coefficients)
    in_frame = 0 if record.frame is None else len(record.frame.X)
    return sandwich(
        record.passes.influence,
        n=record.design.nobs + in_frame,
        total=record.sample.total,
        frequency=record.frequency,
        n_clusters=record.design.n_clusters + in_frame if record.design.n_clusters else None,
        n_coefficients=n_coefficients,
    )


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
    real = ses > SE_ROUNDING * np.abs(record.estimate.params).max()
    shares = np.divide(mc_ses, ses, out=np.zeros(len(ses)), where=real)
    mc_se, share = mc_ses[shares.argmax()], shares.max()
    if share > NOTICEABLE_MONTE_CARLO:
        needed = int(np.ceil(count * (share / NOTICEABLE_MONTE_CARLO) ** 2 / 100) * 100)
        notes.warn(
            f"the Monte Carlo standard error of the effect, {mc_se:.3g}, is {share:.0%} of its standard error: another "
            f"seed would move the effect by about that much.\nType  fit(n_replicates={needed})  to bring it to 5%.",
            MonteCarloWarning,
        )


def sandwich(
    over: Callable[[Callable[[BlockInfluence], Any]], Iterable[Any]],
    *,
    n: float,
    total: float,
    frequency: bool,
    n_clusters: int | None,
    n_coefficients: int,
) -> Array:
    """Return the covariance of estimates from their influence functions.

    Parameters
    ----------
    over : callable
        Maps a function over blocks of rows: influence function IF_i of d estimates, relative to N, and observation
        weights s_i.
    n : float
        Observations: rows, or the sum of frequency weights.
    total : float
        Sum N of the observation weights of the sample, without rows of a target frame.
    frequency : bool
        Whether weights are counts of equal rows.
    n_clusters : int or None
        Number of clusters G; their influence functions are summed before they are squared. None without clusters.
    n_coefficients : int
        k of the small-sample factor n / (n - k), as HC1 has it, and with clusters G / (G - 1) (n - 1) / (n - k); 0 for
        no factor.

    Returns
    -------
    ndarray, shape (d, d)
        sum_i (s_i IF_i)(s_i IF_i)' / N^2; with frequency weights sum_i s_i IF_i IF_i' / N^2.

    References
    ----------
    .. [1] Stefanski, L. A. and Boos, D. D. (2002). The calculus of M-estimation. The American Statistician 56, 29-38.
    """
    factor = n / (n - n_coefficients) if n_coefficients else 1.0
    if n_clusters is None:
        meat = add_up(over(partial(_products, frequency)))
    else:
        groups = _cluster_sums(over(_sums_of_clusters), n_clusters)
        meat = groups.T @ groups
        if n_coefficients:
            factor *= n_clusters / (n_clusters - 1) * (n - 1) / n
    return np.asarray(factor * meat / total**2)


def _products(frequency: bool, rows: BlockInfluence) -> Array:
    # A frequency weight repeats the square of a row; a probability weight multiplies its influence, which is then
    # squared.
    return weighted_gram(rows.influence, rows.weights if frequency else rows.weights**2)


def _sums_of_clusters(rows: BlockInfluence) -> tuple[NDArray[np.intp], Array]:
    """Clusters of a block, shape (g,), and weighted sums of the influence function over their rows, shape (g, d)."""
    clusters, codes = np.unique(np.asarray(rows.cluster), return_inverse=True)
    sums = [np.bincount(codes, rows.weights * column, minlength=len(clusters)) for column in rows.influence.T]
    return clusters, np.stack(sums, axis=1)


def _cluster_sums(parts: Iterable[tuple[NDArray[np.intp], Array]], n_clusters: int) -> Array:
    """Weighted sums of the influence function over the rows of each cluster, shape (G, d)."""
    total = np.empty((0, 0))
    for clusters, sums in parts:
        total = total if total.size else np.zeros((n_clusters, sums.shape[1]))
        total[clusters] += sums
    return total
