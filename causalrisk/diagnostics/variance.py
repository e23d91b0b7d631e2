"""Decomposition of the variance of an effect by parts of its influence function."""

from __future__ import annotations

import dataclasses
from itertools import combinations
from typing import TypeVar

import numpy as np
import pandas as pd

from causalrisk.estimators.joint.train import estimate_jointly
from causalrisk.estimators.record import FitRecord
from causalrisk.estimators.separate import estimate_separately
from causalrisk.estimators.weights import row_weights
from causalrisk.inference.covariance import influence_covariance
from causalrisk.numerics.linalg import Array
from causalrisk.propensity.weights import RowWeights

AnyWeights = TypeVar("AnyWeights", bound=RowWeights)
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
        Parts of the influence function: of the covariates at the fitted models, of the outcomes at the fitted
        propensity score, and of the estimation of the score, through everything it enters. Rows in the order of the
        sample.
    """
    count = len(record.effect_names)
    sample, estimate, scale = record.sample, record.estimate, record.options.effect_scale
    weights = row_weights(sample, record.weight_fit, record.target)
    if record.joint is None:
        without = estimate_separately(sample, record.spec, _known(weights), scale)
        means = estimate.params[estimate.block("means")]
    else:
        problem = record.joint.problem
        problem = dataclasses.replace(problem, weight_fit=_known(problem.weight_fit))
        without = estimate_jointly(problem, record.joint.criterion).estimate
        means = estimate.model_means
    sampling = weights.tilt[:, None] * (estimate.predicted.T - estimate.model_means) @ scale.jacobian(means)[:count].T
    rest = without.influence[:, :count]
    return np.stack([sampling, rest - sampling, estimate.influence[:, :count] - rest])


def _known(weights: AnyWeights) -> AnyWeights:
    return dataclasses.replace(weights, inverse=np.zeros_like(weights.inverse))


def se_decomposition(record: FitRecord) -> pd.DataFrame:
    """Decomposition of the robust variance of the effect.

    Returns
    -------
    DataFrame
        Rows "sampling of X" (who is in the sample), "outcome model" (their outcomes, at the fitted score),
        "propensity score" (that it is estimated), twice the covariance of each pair, and "total"; columns
        "variance", "std err" and "share". Estimating the score often lowers the total: its covariance is negative.
    """
    parts = effect_parts(record)[:, :, 0].T
    covariance = record.choice_variance * influence_covariance(record, parts)
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
