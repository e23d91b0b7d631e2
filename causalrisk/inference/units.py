"""The independent units of a fit: its clusters or rows, then the rows of a target frame, each a unit of its own."""

from __future__ import annotations

import numpy as np

from causalrisk.estimators.record import FitRecord
from causalrisk.estimators.resampling import unit_count
from causalrisk.numerics.linalg import Array


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
