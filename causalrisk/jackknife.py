"""What single units do to a fit: their influence, leaving them out, and standard errors within resamples."""

from __future__ import annotations

import dataclasses

import numpy as np

from causalrisk.errors import UnavailableError
from causalrisk.estimators import estimate_separately
from causalrisk.inference.bootstrap import BootstrapDistribution
from causalrisk.inference.intervals import (
    acceleration_of,
    basic_interval,
    bias_corrected_interval,
    percentile_interval,
    studentized_interval,
)
from causalrisk.inference.resample import RESAMPLE_STREAM, WIDTH
from causalrisk.joint import estimate_jointly
from causalrisk.ledger import Reason
from causalrisk.linalg import Array
from causalrisk.record import FitRecord
from causalrisk.replicates import Replicates
from causalrisk.resampling import make_resampling
from causalrisk.sample import Sample
from causalrisk.uncertainty import refitter_of, robust_covariance
from causalrisk.weighting import fit_weighting

BLOCK = 64  # units left out at a time


def sum_within_units(record: FitRecord, contributions: Array) -> Array:
    """Add contributions of rows, shape (n, d), within clusters, shape (G, d); as they are without clusters."""
    cluster = record.design.cluster
    if cluster is None:
        return contributions
    codes = np.asarray(record.sample.clusters(cluster))
    groups = np.zeros((int(codes.max()) + 1, contributions.shape[1]))
    np.add.at(groups, codes, contributions)
    return groups


def unit_influence(record: FitRecord, count: int) -> Array:
    """Influence of each unit (row or cluster) on the first `count` estimates, shape (units, count)."""
    return sum_within_units(record, record.estimate.influence[:, :count] * record.sample.weights[:, None])


def leave_one_out(record: FitRecord, count: int) -> Array:
    """Return the first `count` estimates without each unit (row or cluster), shape (units, count).

    Parameters
    ----------
    record : FitRecord
        The fit.
    count : int
        Number of estimates wanted.

    Returns
    -------
    ndarray, shape (units, count)
        Every step redone without the unit; NaN where that failed.
    """
    sample, cluster = record.sample, record.design.cluster
    clusters = sample.clusters(cluster)
    units = np.arange(sample.n) if clusters is None else clusters
    refit = refitter_of(record)
    total = int(units.max()) + 1
    parts = []
    for first in range(0, total, BLOCK):
        numbers = np.arange(first, min(first + BLOCK, total))
        weights = sample.weights[:, None] * (units[:, None] != numbers)
        parts.append(refit(weights, first).values[:count].T)
    left_out = np.concatenate(parts)
    return left_out if clusters is not None or sample.n_frame else sample.restore(left_out)


def effect_changes(record: FitRecord, exact: bool) -> Array:
    """Change of the (first) effect when a row is left out, rows in the order of the design, shape (n,).

    Parameters
    ----------
    record : FitRecord
        The fit.
    exact : bool
        Whether every step is redone without the row, or its influence function tells.

    Returns
    -------
    ndarray, shape (n,)
        Effect without the row less the effect; NaN where there is none without it.
    """
    sample = record.sample
    if not exact:
        share = sample.weights * record.estimate.influence[:, 0]
        return -sample.restore(share / (sample.total - sample.weights))
    alone = dataclasses.replace(record, design=dataclasses.replace(record.design, cluster=None))
    left_out = leave_one_out(alone, 1)[:, 0]
    if sample.n_frame:
        left_out = sample.restore(left_out)
    return left_out - record.estimate.params[0]


def jackknife_contributions(record: FitRecord, count: int) -> Array:
    """Jackknife deviations times (units - 1), shape (units, count); units that cannot be left out do not count."""
    left_out = leave_one_out(record, count)
    left_out = left_out[~np.isnan(left_out).any(axis=1)]
    return (len(left_out) - 1) * (left_out.mean(axis=0) - left_out)


def resample_standard_errors(record: FitRecord, count: int) -> Array:
    """Robust standard error of the first `count` estimates within each resample, one resample after the other.

    Parameters
    ----------
    record : FitRecord
        A fit with a bootstrap whose resamples it drew itself.
    count : int
        Number of estimates wanted.

    Returns
    -------
    ndarray, shape (n_boot, count)
        Standard errors; NaN where the resample failed.

    Raises
    ------
    UnavailableError
        If the resamples were given: they are not kept.
    """
    if record.given_resamples or record.boot is None:
        raise UnavailableError(
            "studentized intervals draw the resamples again, and this fit was given its own.\n"
            'Type  conf_int(method="bca"), or fit without resamples=.'
        )
    resampling = make_resampling(record.design, record.sample, record.bootstrap, record.seed)
    reasons = record.boot.reasons
    se = np.full((len(reasons), count), np.nan)
    for block in range(-(-len(reasons) // WIDTH)):
        first = block * WIDTH
        drawn = resampling.draw(RESAMPLE_STREAM, block, min(WIDTH, len(reasons) - first))
        for j in range(drawn.shape[1]):
            if reasons[first + j] == Reason.OK:
                se[first + j] = _standard_errors(record, drawn[:, j], count)
    return se


def bootstrap_interval(
    record: FitRecord, boot: BootstrapDistribution, method: str, alpha: float, acceleration: str
) -> Array:
    """Return an interval for each parameter from the bootstrap distribution.

    Parameters
    ----------
    record : FitRecord
        The fit.
    boot : BootstrapDistribution
        Its bootstrap distribution.
    method : {"percentile", "basic", "bc", "bca", "studentized"}
        The interval.
    alpha : float
        Significance level.
    acceleration : {"influence", "jackknife"}
        Where the acceleration of "bca" comes from.

    Returns
    -------
    ndarray, shape (d, 2)
        Lower and upper limits.
    """
    estimate = record.estimate.params
    count, values = len(estimate), boot.used[:, : len(estimate)]
    if method == "percentile":
        return percentile_interval(values, alpha)
    if method == "basic":
        return basic_interval(estimate, values, alpha)
    if method == "studentized":
        value_se = resample_standard_errors(record, count)[boot.reasons == Reason.OK]
        se = np.sqrt(np.diag(robust_covariance(record, False))[:count])
        return studentized_interval(estimate, se, values, value_se, alpha)
    if method == "bc":
        return bias_corrected_interval(estimate, values, np.zeros(count), alpha)
    from_rows = unit_influence if acceleration == "influence" else jackknife_contributions
    return bias_corrected_interval(estimate, values, acceleration_of(from_rows(record, count)), alpha)


def _standard_errors(record: FitRecord, weights: Array, count: int) -> Array:
    """Robust standard errors of a fit to one resample, whose repeated units are units of their own."""
    sample = record.sample.reweighted(weights)
    influence = _resample_influence(record, sample)[:, :count]
    own = np.ones(sample.n) if record.frequency else record.sample.weights
    times = weights / own
    if record.design.cluster is None:
        squares = times @ (influence * own[:, None]) ** 2
    else:
        sums = sum_within_units(record, influence * own[:, None])
        codes = np.asarray(sample.clusters(record.design.cluster))
        squares = times[np.unique(codes, return_index=True)[1]] @ sums**2
    return np.sqrt(squares) / sample.total


def _resample_influence(record: FitRecord, sample: Sample) -> Array:
    """Influence function of the estimates on a reweighted sample."""
    weights, joint, scale = record.propensity, record.joint, record.options.scale
    if weights is not None:
        weights = fit_weighting(weights.weighting, sample.weights)
    start = estimate_separately(sample, record.joint_start_spec, weights, record.target, scale)
    if joint is None or weights is None or record.propensity is None:
        return start.influence
    spread = joint.replicates.states - record.propensity.state[:, None]
    shifted = Replicates(weights.state[:, None] + spread, joint.replicates.reasons)
    method = "least_squares" if sample.family.linear else "trust-exact"
    return estimate_jointly(sample, weights, start, shifted, joint.criterion, method, scale).estimate.influence
