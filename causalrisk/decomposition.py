"""Where the variance of an effect comes from: parts of its influence function."""

from __future__ import annotations

import dataclasses
from itertools import combinations

import numpy as np
import pandas as pd

from causalrisk.estimators import derivatives_of, estimate_separately
from causalrisk.inference.sandwich import sandwich
from causalrisk.joint import estimate_jointly
from causalrisk.linalg import Array
from causalrisk.record import FitRecord

PARTS = ("sampling of X", "outcome model", "propensity score")


def effect_parts(record: FitRecord) -> Array:
    """Split the influence function of the effects.

    Parameters
    ----------
    record : FitRecord
        The fit.

    Returns
    -------
    ndarray, shape (3, n, K - 1)
        What the sampling of the covariates moves at the fitted models; what the outcomes move at the fitted propensity
        score; and what its estimation moves, through everything it enters. Rows in the order of the sample.
    """
    count, n_arms = len(record.effect_names), record.sample.n_arms
    estimate, fit = record.estimate, record.propensity
    known = None if fit is None else dataclasses.replace(fit, influence=np.zeros_like(fit.influence))
    sample, target, scale = record.sample, record.target, record.options.scale
    if record.joint is None:
        without = estimate_separately(sample, record.spec, known, target, scale)
        means = estimate.params[-n_arms:]
    elif known is None:
        raise TypeError("a joint fit has importance weights")
    else:
        joint, method = record.joint, "least_squares" if sample.family.linear else "trust-exact"
        without = estimate_jointly(
            sample, known, joint.fit.start, joint.replicates, joint.criterion, method, scale
        ).estimate
        means = estimate.model_means
    tilt = derivatives_of(sample, fit, target).tilt
    sampling = tilt[:, None] * (estimate.fitted.T - estimate.model_means) @ scale.jacobian(means)[:count].T
    rest = without.influence[:, :count]
    return np.stack([sampling, rest - sampling, estimate.influence[:, :count] - rest])


def variance_table(record: FitRecord) -> pd.DataFrame:
    """Variance of the (first) effect by the parts of its influence function, which add up with their covariances.

    Parameters
    ----------
    record : FitRecord
        The fit.

    Returns
    -------
    DataFrame
        Rows the parts, twice their covariances, and the total; columns "variance", "std err" and "share".
    """
    parts = effect_parts(record)[:, :, 0].T
    clusters = record.sample.clusters(record.design.cluster)
    sample = record.sample
    covariance = sandwich(parts, sample.weights, frequency=record.frequency, cluster=clusters, total=sample.total)
    rows = dict(zip(PARTS, np.diag(covariance), strict=True))
    for (i, first), (j, second) in combinations(enumerate(PARTS), 2):
        rows[f"2 cov({first}, {second})"] = 2 * covariance[i, j]
    total = float(covariance.sum())
    variance = np.array([*rows.values(), total])
    with np.errstate(invalid="ignore"):
        errors = np.where(np.arange(len(variance)) < len(PARTS), np.sqrt(variance), np.nan)
    errors[-1] = np.sqrt(total)
    share = variance / total if total > 0 else np.full(len(variance), np.nan)
    index = pd.Index([*rows, "total"], name="part")
    return pd.DataFrame({"variance": variance, "std err": errors, "share": share}, index=index)
