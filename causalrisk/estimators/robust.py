"""Robust covariance of a fitted record, clustered where a cluster was given, and the influence of independent units.

Flows in: a record without standard errors. Flows out: the sandwich of its stacked estimating equations. Its independent
units are clusters or rows, then the rows of a target frame, each a unit of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalrisk.errors import DesignWarning, Notes, Once
from causalrisk.estimators.estimates import BlockInfluence, sandwich
from causalrisk.estimators.record import FitRecord
from causalrisk.estimators.resampling import unit_count
from causalrisk.numerics.linalg import Array

NEGATIVE = 1e-12  # variance of a combination, in those of both ways, below which it is negative beyond rounding
NO_COVARIANCE = (
    "two-way clusters of {} leave a negative variance of some combination of the estimates, which is set to zero; that "
    "makes the others larger.\nType  cluster=  one of them, with the fewest clusters, to see how much it matters."
)


def with_robust(start: FitRecord) -> FitRecord:
    """Return a fit without standard errors with its robust covariance; of a scan this takes a pass over its rows."""
    plain = dataclasses.replace(start, cov_type=start.robust_type)
    return dataclasses.replace(plain, robust=robust_covariance(plain, False), passes=None)


def influence_covariance(record: FitRecord, influence: Array) -> Array:
    """Covariance of estimates from their influence function, by clusters or a survey design where these were given.

    Parameters
    ----------
    record : FitRecord
        The fit.
    influence : ndarray, shape (n, d)
        Influence function, rows in the order of the sample.

    Returns
    -------
    ndarray, shape (d, d)
        The sandwich; of replicate weights their linearised covariance.
    """
    replication, sample = record.design.replication, record.sample
    if replication is not None:  # what each of the replicate weights makes of the estimates, to the first order
        own = sample.restore(influence * sample.s[:, None]) / sample.total
        return replication.covariance((replication.multiplicities - 1).T @ own, np.zeros(own.shape[1]))
    parts = [(slice(0, len(influence)), influence)]
    if record.design.second_cluster is not None:
        return _two_way(record, parts, 0, [slice(0, influence.shape[1])], Notes())
    return covariance_over(record, _over_parts(record, parts, sample.clusters(record.design.cluster)))


def over_influence(record: FitRecord) -> Callable[[Callable[[BlockInfluence], Any]], Iterable[Any]]:
    """Return what maps a function over blocks of the influence function of a fit."""
    if record.passes is not None:
        return record.passes.influence
    return _over_parts(record, record.estimate.rows.blocks(), record.sample.clusters(record.design.cluster))


def _over_parts(
    record: FitRecord, parts: Iterable[tuple[slice, Array]], cluster: NDArray[np.intp] | None
) -> Callable[[Callable[[BlockInfluence], Any]], Iterable[Any]]:
    """As `over_influence`, from parts of the rows of the sample and clusters of the rows."""
    sample = record.sample
    number = np.concatenate([np.arange(len(sample.order), sample.n), sample.order])
    by = cluster, sample.strata(record.design.survey), number
    blocks = (
        BlockInfluence(values, sample.s[rows], *(None if each is None else each[rows] for each in by))
        for rows, values in parts
    )
    return lambda function: map(function, blocks)


def covariance_over(
    record: FitRecord,
    over: Callable[[Callable[[BlockInfluence], Any]], Iterable[Any]],
    n_coefficients: int = 0,
    n_clusters: int | None = None,
) -> Array:
    """As `influence_covariance`, from passes over the influence function of estimates.

    `n_coefficients` is the k of the small-sample factor n / (n - k), and `n_clusters` how many clusters there are,
    where these are others than those of the design.
    """
    design, frame = record.design, in_frame(record)
    return sandwich(
        over,
        n=design.nobs + frame,
        total=record.sample.total,
        frequency=record.frequency,
        n_clusters=design.n_clusters + frame if n_clusters is None and design.n_clusters else n_clusters,
        n_coefficients=n_coefficients,
        strata=design.strata,
    )


def _two_way(
    record: FitRecord, parts: Sequence[tuple[slice, Array]], n_coefficients: int, blocks: Sequence[slice], notes: Notes
) -> Array:
    """Covariance under two-way clusters: those of both ways, less that of their intersections, each with its factor.

    Parameters
    ----------
    record : FitRecord
        The fit.
    parts, n_coefficients
        As in `_over_parts` and `covariance_over`.
    blocks : sequence of slice
        Estimates that belong together; negative eigenvalues of the covariance within each are set to zero.
    notes : Notes
        A warning is added where that changes the first block.

    Returns
    -------
    ndarray, shape (d, d)
        The covariance.

    References
    ----------
    .. [1] Cameron, A. C., Gelbach, J. B. and Miller, D. L. (2011). Robust inference with multiway clustering. Journal
       of Business and Economic Statistics 29, 238-249.
    """
    sample, design = record.sample, record.design
    one, other = (np.asarray(sample.clusters(codes)) for codes in (design.cluster, design.second_cluster))
    both = np.unique(one * (other.max() + 1) + other, return_inverse=True)[1]
    by_one, by_other, by_both = (
        covariance_over(record, _over_parts(record, parts, codes), n_coefficients, int(codes.max()) + 1)
        for codes in (one, other, both)
    )
    ways = by_one + by_other
    covariance, size = ways - by_both, np.sqrt(np.diag(ways))
    for number, block in enumerate(blocks):
        unit = np.outer(size[block], size[block])
        unit = np.where(unit > 0, unit, 1.0)
        values, vectors = np.linalg.eigh(covariance[block, block] / unit)
        if values.min(initial=0.0) < -NEGATIVE:
            covariance[block, block] = (vectors * np.maximum(values, 0.0)) @ vectors.T * unit
            if not number:
                notes.warn(Once(NO_COVARIANCE.format(" and ".join(design.cluster_names))), DesignWarning)
    return covariance


def robust_covariance(record: FitRecord, small_sample: bool, notes: Notes | None = None) -> Array:
    """Return the sandwich covariance of all estimates, clustered where a cluster was given.

    Parameters
    ----------
    record : FitRecord
        The fit.
    small_sample : bool
        Whether to apply the small-sample factor of HC1.
    notes : Notes, optional
        A warning is added where two-way clusters leave no covariance without setting eigenvalues to zero.

    Returns
    -------
    ndarray, shape (d, d)
        The sandwich.
    """
    estimate = record.estimate
    n_coefficients = record.n_coefficients if small_sample or record.cov_type == "HC1" else 0
    if record.robust is not None:
        return record.robust
    if record.passes is not None and record.passes.covariance is not None and not n_coefficients:
        return record.passes.covariance
    if record.passes is None and record.design.second_cluster is not None:
        arms = [estimate.block("theta", arm) for arm in range(record.design.n_arms)]
        blocks = [slice(0, len(estimate.params)), *arms, estimate.block("gamma")]
        return _two_way(
            record, list(estimate.rows.blocks()), n_coefficients, blocks, Notes() if notes is None else notes
        )
    return covariance_over(record, over_influence(record), n_coefficients)


def counts_equal_rows(record: FitRecord) -> bool:
    """Return True if a row is several equal units: under frequency weights without clusters."""
    return record.frequency and not record.design.n_clusters


def in_frame(record: FitRecord) -> int:
    """Return the number of rows of the target frame; 0 without one."""
    return 0 if record.frame is None else len(record.frame.X)


def equal_units(record: FitRecord) -> Array:
    """Return the number of equal units of each unit, shape (units,)."""
    own = record.design.weights if counts_equal_rows(record) else np.ones(unit_count(record.design))
    return np.concatenate([own, np.ones(in_frame(record))])


def sum_within_units(record: FitRecord, contributions: Array) -> Array:
    """Add contributions of the rows of the sample, shape (n, d), within units, shape (units, d)."""
    sample, cluster = record.sample, record.design.cluster
    if cluster is None:
        return np.concatenate([sample.restore(contributions), contributions[: sample.n_frame]])
    codes = np.asarray(sample.clusters(cluster))
    groups = np.zeros((int(codes.max()) + 1, contributions.shape[1]))
    np.add.at(groups, codes, contributions)
    return groups


def unit_influence(record: FitRecord, count: int) -> Array:
    """Influence of each unit, or of one of its equal units, on the first estimates, shape (units, count)."""
    own = np.ones(record.sample.n) if counts_equal_rows(record) else record.sample.s
    return sum_within_units(record, record.estimate.influence[:, :count] * own[:, None])
