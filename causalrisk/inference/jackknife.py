"""Leave-one-out influence of rows and clusters, jackknife contributions, and standard errors within resamples."""

from __future__ import annotations

import dataclasses

import numpy as np

from causalrisk.estimators.estimates import Refitter
from causalrisk.estimators.record import FitRecord
from causalrisk.estimators.resampling import replicate_counts
from causalrisk.inference.bootstrap import refitter_of
from causalrisk.numerics.failures import Failure
from causalrisk.numerics.linalg import Array
from causalrisk.propensity.replicates import Replicates
from causalrisk.propensity.resample_replicates import BlockwiseReplicates
from causalrisk.propensity.weights import WeightFit

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


def counts_equal_rows(record: FitRecord) -> bool:
    """Return True if a row is several equal units: under frequency weights without clusters."""
    return record.frequency and record.design.cluster is None


def equal_units(record: FitRecord) -> Array:
    """Return the number of equal units of each row or cluster, shape (units,), rows in the order of the sample."""
    clusters = record.sample.clusters(record.design.cluster)
    if clusters is not None:
        return np.ones(int(clusters.max()) + 1)
    return record.sample.s if record.frequency else np.ones(record.sample.n)


def unit_influence(record: FitRecord, count: int) -> Array:
    """Influence of each unit (cluster, row, or one of its equal units) on the first estimates, shape (units, count)."""
    own = np.ones(record.sample.n) if counts_equal_rows(record) else record.sample.s
    return sum_within_units(record, record.estimate.influence[:, :count] * own[:, None])


class RemainingReplicates(BlockwiseReplicates):
    """Replicates of the full sample, fitted again without the rows that are left out.

    Parameters
    ----------
    slices, weight_fit
        As in `BlockwiseReplicates`.
    replicates : Replicates
        The replicates of the full sample.
    drawn : ndarray, shape (n, B)
        Multiplicities of the usable ones.
    """

    def __init__(self, slices: tuple[slice, ...], weight_fit: WeightFit, replicates: Replicates, drawn: Array) -> None:
        super().__init__(slices, weight_fit, replicates.count)
        self.replicates, self.drawn = replicates, drawn

    def gamma_of(self, counts: Array, gamma: Array, number: int) -> Array:
        """As in `BlockwiseReplicates`, without the rows whose count is zero."""
        kept = counts > 0
        # A row moves a replicate about as often as it is in it.
        moved = self.drawn[~kept].mean(axis=0) * (gamma - self.weight_fit.gamma)[:, None]
        fits = self.weight_fit.refit(self.drawn * kept[:, None], self.replicates.gamma + moved)
        return fits.coefficients[:, fits.failures == Failure.OK]


def remaining_refitter(record: FitRecord) -> Refitter:
    """Return the refitter of a fit without some of its rows; multiplicities of the other rows in each replicate stay.

    Parameters
    ----------
    record : FitRecord
        The fit.

    Returns
    -------
    Refitter
        Takes counts of zero for the rows that are left out.
    """
    joint, sample = record.joint, record.sample
    if joint is None or not joint.problem.weight_fit.model.n_coefficients:
        return refitter_of(record)
    weight_fit, replicates, drawn = joint.problem.weight_fit, joint.replicates, joint.drawn
    if drawn is None:
        drawn = replicate_counts(record.resampler(), len(replicates.failures), joint.options.replicate_spread)
    usable = drawn[:, replicates.failures == Failure.OK]
    remaining = RemainingReplicates(sample.slices, weight_fit, replicates, usable)
    return refitter_of(record, replicates=remaining)


def leave_one_out(record: FitRecord, count: int, refitter: Refitter | None = None, *, whole: bool = True) -> Array:
    """Return the first `count` estimates with each unit (row or cluster) left out, shape (units, count).

    Parameters
    ----------
    record : FitRecord
        The fit.
    count : int
        Number of estimates wanted.
    refitter : Refitter, optional
        Refits under multiplicities; by default the bootstrap's.
    whole : bool, default True
        Whether a row is left out with all its weight, or only one of the equal units that it stands for.

    Returns
    -------
    ndarray, shape (units, count)
        Estimates, every step redone without the unit; NaN after a failure. Rows as in the design, with a target
        frame as in the sample.
    """
    sample, cluster = record.sample, record.design.cluster
    clusters = sample.clusters(cluster)
    units = np.arange(sample.n) if clusters is None else clusters
    refitter = refitter or refitter_of(record)
    total = int(units.max()) + 1
    parts = []
    for first in range(0, total, BLOCK):
        numbers = np.arange(first, min(first + BLOCK, total))
        out = units[:, None] == numbers
        counts = sample.s[:, None] * ~out if whole else sample.s[:, None] - out
        parts.append(refitter.refit(counts, first).values[:count].T)
    left_out = np.concatenate(parts)
    return left_out if clusters is not None or sample.n_frame else sample.restore(left_out)


def effect_changes(record: FitRecord, method: str, clusters: bool = False) -> Array:
    """Change of the effects when a row, in the order of the design, or a cluster is left out, shape (units, K - 1).

    Parameters
    ----------
    record : FitRecord
        The fit.
    method : {"exact", "shifted", "influence"}
        Whether every step is redone without the row; or all but the replicates of a joint fit, which move as the
        propensity score does; or its influence function tells.
    clusters : bool
        Whether clusters are left out.

    Returns
    -------
    ndarray, shape (n, K - 1) or (G, K - 1)
        Effects without the unit less the effects; NaN where there are none without it.
    """
    sample, joint, count = record.sample, record.joint, len(record.effect_names)
    if method == "influence":
        share, weight = sample.s[:, None] * record.estimate.influence[:, :count], sample.s[:, None]
        if clusters:
            share, weight = (sum_within_units(record, part)[: record.design.n_clusters] for part in (share, weight))
            return -share / (sample.total - weight)
        return -sample.restore(share / (sample.total - weight))
    refit = remaining_refitter(record) if method == "exact" else None
    if joint is not None:  # nested replicates would be drawn anew for each row
        joint = dataclasses.replace(joint, options=dataclasses.replace(joint.options, bootstrap_replicates="shifted"))
    design = record.design if clusters else dataclasses.replace(record.design, cluster=None)
    left_out = leave_one_out(dataclasses.replace(record, design=design, joint=joint), count, refit)
    if clusters:
        left_out = left_out[: design.n_clusters]
    elif sample.n_frame:
        left_out = sample.restore(left_out)
    return left_out - record.estimate.params[:count]


def jackknife_contributions(record: FitRecord, count: int) -> Array:
    """Jackknife deviations times (units - 1), as `unit_influence`; zero for units that cannot be left out."""
    left_out = leave_one_out(record, count, whole=not counts_equal_rows(record))
    if record.design.cluster is None and not record.sample.n_frame:
        left_out = record.sample.arrange(left_out)
    worked = np.asarray(np.isfinite(left_out).all(axis=1))
    times = equal_units(record) * worked
    mean = times[worked] @ left_out[worked] / times.sum()
    return np.where(worked[:, None], (times.sum() - 1) * (mean - left_out), 0.0)
