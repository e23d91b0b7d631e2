"""What single units do to a fit: their influence, leaving them out, and standard errors within resamples."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

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
from causalrisk.refit import JointRefitter, PropensityRefitter, Refitter
from causalrisk.replicates import Replicates
from causalrisk.resample_weights import DenseReplicates
from causalrisk.resampling import make_resampling, replicate_multiplicities
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


@dataclass(frozen=True)
class RemainingStates:
    """Replicates of the full sample, fitted again without the rows that are left out.

    Parameters
    ----------
    refit : PropensityRefitter
        Refits the propensity model.
    drawn : ndarray, shape (n, B)
        Multiplicities of the usable replicates.
    states : ndarray, shape (S, B)
        Their states in the full sample.
    """

    refit: PropensityRefitter
    drawn: Array
    states: Array

    def __call__(self, weights: Array, state: Array, number: int) -> Array:
        """States of the replicates that are usable without the rows of weight zero, shape (S, B)."""
        kept = weights > 0
        # A row moves a replicate about as often as it is in it.
        start = self.states + self.drawn[~kept].mean(axis=0) * (state - self.refit.fit.state)[:, None]
        batch = self.refit(self.drawn * kept[:, None], start)
        return batch.gamma[:, batch.reasons == Reason.OK]


def remaining_refitter(record: FitRecord) -> Refitter:
    """Return the refit of a fit without some of its rows; the other rows of each replicate stay as often as they were.

    Parameters
    ----------
    record : FitRecord
        The fit.

    Returns
    -------
    callable
        Weights (n, m), zero for rows left out, and number of the first column -> `Refits`.
    """
    weights, joint, sample = record.propensity, record.joint, record.sample
    if joint is None or weights is None or joint.criterion.fitted or not weights.weighting.n_coefficients:
        return refitter_of(record)
    drawn, replicates = joint.drawn, joint.replicates
    if drawn is None:
        resampling = make_resampling(record.design, sample, record.bootstrap, record.seed)
        drawn = replicate_multiplicities(resampling, len(replicates.reasons))
    own = drawn[:, replicates.reasons == Reason.OK]
    states_of = RemainingStates(PropensityRefitter(weights), own, replicates.states)
    theta = joint.fit.start.theta if sample.family.linear else record.estimate.theta
    operator_of = DenseReplicates(sample, weights, states_of, replicates.count)
    return JointRefitter(sample, weights, theta, joint.criterion, operator_of, record.options.scale)


def leave_one_out(record: FitRecord, count: int, refit: Refitter | None = None) -> Array:
    """Return the first `count` estimates without each unit (row or cluster), shape (units, count).

    Parameters
    ----------
    record : FitRecord
        The fit.
    count : int
        Number of estimates wanted.
    refit : callable, optional
        Refits the fit, by default as its bootstrap does.

    Returns
    -------
    ndarray, shape (units, count)
        Every step redone without the unit; NaN where that failed.
    """
    sample, cluster = record.sample, record.design.cluster
    clusters = sample.clusters(cluster)
    units = np.arange(sample.n) if clusters is None else clusters
    refit = refit or refitter_of(record)
    total = int(units.max()) + 1
    parts = []
    for first in range(0, total, BLOCK):
        numbers = np.arange(first, min(first + BLOCK, total))
        weights = sample.weights[:, None] * (units[:, None] != numbers)
        parts.append(refit(weights, first).values[:count].T)
    left_out = np.concatenate(parts)
    return left_out if clusters is not None or sample.n_frame else sample.restore(left_out)


def effect_changes(record: FitRecord, method: str) -> Array:
    """Change of the (first) effect when a row is left out, rows in the order of the design, shape (n,).

    Parameters
    ----------
    record : FitRecord
        The fit.
    method : {"exact", "shifted", "influence"}
        Whether every step is redone without the row; or all but the replicates of a joint fit, which move as the
        propensity score does; or its influence function tells.

    Returns
    -------
    ndarray, shape (n,)
        Effect without the row less the effect; NaN where there is none without it.
    """
    sample, joint = record.sample, record.joint
    if method == "influence":
        share = sample.weights * record.estimate.influence[:, 0]
        return -sample.restore(share / (sample.total - sample.weights))
    refit = remaining_refitter(record) if method == "exact" else None
    if joint is not None:  # nested replicates would be drawn anew for each row
        joint = dataclasses.replace(joint, options=dataclasses.replace(joint.options, bootstrap_replicates="shifted"))
    alone = dataclasses.replace(record, design=dataclasses.replace(record.design, cluster=None), joint=joint)
    left_out = leave_one_out(alone, 1, refit)[:, 0]
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
