"""Robust covariance of a fitted record, clustered where a cluster was given.

Flows in: a record without standard errors. Flows out: the sandwich of its stacked estimating equations.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from causalrisk.estimators.record import FitRecord
from causalrisk.estimators.sandwich import BlockInfluence, sandwich
from causalrisk.numerics.linalg import Array


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


def over_influence(
    record: FitRecord, parts: Iterable[tuple[slice, Array]] | None = None
) -> Callable[[Callable[[BlockInfluence], Any]], Iterable[Any]]:
    """Return what maps a function over blocks of the influence function of a fit, or over parts of another in memory."""
    if record.passes is not None and parts is None:
        return record.passes.influence
    sample = record.sample
    cluster = sample.clusters(record.design.cluster)
    number = np.concatenate([np.arange(len(sample.order), sample.n), sample.order])
    blocks = (
        BlockInfluence(values, sample.s[rows], None if cluster is None else cluster[rows], number[rows])
        for rows, values in (record.estimate.rows.blocks() if parts is None else parts)
    )
    return lambda function: map(function, blocks)


def _covariance(record: FitRecord, parts: Iterable[tuple[slice, Array]], n_coefficients: int) -> Array:
    """As `influence_covariance`, from parts of the rows of the sample; k of the small-sample factor n / (n - k)."""
    sample, cluster = record.sample, record.sample.clusters(record.design.cluster)
    return sandwich(
        over_influence(record, parts),
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
    if record.passes is not None and record.passes.covariance is not None and not n_coefficients:
        return record.passes.covariance
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
