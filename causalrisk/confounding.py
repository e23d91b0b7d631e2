"""Sensitivity of a fitted record to an omitted confounder."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import norm

from causalrisk.diagnostics.sensitivity import (
    STANDARDIZED,
    STANDARDIZED_SE,
    BiasScale,
    confounding_strength,
    e_value,
    limit_e_value,
    robustness_value,
    scale_influence,
)
from causalrisk.estimators import IPWRA, Estimate
from causalrisk.inference.sandwich import sandwich
from causalrisk.linalg import Array
from causalrisk.record import FitRecord
from causalrisk.replicated import separate_estimate
from causalrisk.weighting import WeightFit


def regression_of(record: FitRecord, fit: WeightFit) -> Estimate:
    """Return the outcome regression of a fit; for JRE and constants that of IPWRA on the same data."""
    if record.joint is not None:
        return record.joint.fit.start
    return separate_estimate(record, fit, IPWRA) if record.spec.constants else record.estimate


def bias_scales(record: FitRecord, fit: WeightFit) -> list[BiasScale]:
    """Scale of the bias of each arm's effect against the reference.

    Parameters
    ----------
    record : FitRecord
        The fit.
    fit : WeightFit
        Its importance weights.

    Returns
    -------
    list of BiasScale
        One for each arm but the reference.
    """
    sample, estimate = record.sample, regression_of(record, fit)
    q, n_arms = sample.outcome.columns, sample.n_arms
    residual = (sample.y - sample.own(estimate.fitted)) * sample.observed
    slope = sample.own(sample.family.slope(estimate.theta @ q.T))
    by_theta = sample.arm_products((-2 * residual * slope)[:, None] * q, np.ones((sample.n, 1)))[..., 0]
    first = 2 * n_arms - 1
    influence = estimate.influence[:, first : first + estimate.theta.size].reshape(sample.n, n_arms, -1)
    moved = np.einsum("ap,nap->n", by_theta, influence)
    share = sample.weights * sample.observed / sample.total
    means, mean_influence = record.estimate.params[-n_arms:], record.estimate.influence[:, n_arms - 1 : first]
    scales = []
    for arm in range(1, n_arms):
        weight = np.where((sample.arm == arm) | (sample.arm == 0), fit.total, 0.0) * sample.observed
        by_state = fit.influence @ sample.mean((2 * weight)[:, None] * fit.by_state)
        divided = -2 * (share @ weight**2) * (fit.measure - sample.observed)  # the weights are over the mean measure
        sigma, nu, of_scale = scale_influence(residual**2, moved, weight**2, by_state + divided, share)
        of_effect = mean_influence[:, arm] - mean_influence[:, 0]
        scales.append(BiasScale(means[arm] - means[0], sigma, nu, of_effect, of_scale))
    return scales


def standard_error(record: FitRecord, influence: Array) -> float:
    """Robust standard error of one estimate from its influence function."""
    sample = record.sample
    variance = sandwich(
        influence[:, None],
        sample.weights,
        frequency=record.frequency,
        cluster=sample.clusters(record.design.cluster),
        total=sample.total,
    )
    return float(np.sqrt(variance[0, 0]))


def bounds_table(
    record: FitRecord, scales: list[BiasScale], grid: list[tuple[float, float]], rho: float, alpha: float
) -> pd.DataFrame:
    """Bounds of every effect for each strength of an omitted confounder, a row each."""
    z = norm.ppf(1 - alpha / 2)
    rows, keys = [], []
    for label, scale in zip(record.design.labels[1:], scales, strict=True):
        for cf_y, cf_d in grid:
            strength = float(confounding_strength(cf_y, cf_d, rho))
            low, high = scale.effect - strength * scale.size, scale.effect + strength * scale.size
            errors = [
                standard_error(record, scale.effect_influence + sign * strength * scale.scale_influence)
                for sign in (-1, 1)
            ]
            rows.append((low, high, low - z * errors[0], high + z * errors[1]))
            keys.append((label, cf_y, cf_d))
    index = pd.MultiIndex.from_tuples(keys, names=["arm", "cf_y", "cf_d"])
    table = pd.DataFrame(rows, index=index, columns=["lower", "upper", "ci lower", "ci upper"])
    return table.droplevel("arm") if len(scales) == 1 else table


def ratio_with_limits(record: FitRecord, covariance: Array, arm: int, alpha: float) -> tuple[float, float, float, str]:
    """Risk ratio of an arm against the reference that an E-value is of, its limits, and where it is from.

    Parameters
    ----------
    record : FitRecord
        The fit.
    covariance : ndarray, shape (d, d)
        Covariance of the parameters.
    arm : int
        The arm.
    alpha : float
        Significance level.

    Returns
    -------
    ratio, low, high : float
        The ratio and its limits.
    basis : {"ratio of the means", "standardized difference"}
        Exact for outcomes that are not negative on scales with a ratio; else the approximation exp(0.91 d).
    """
    n_arms, params, z = record.sample.n_arms, record.estimate.params, norm.ppf(1 - alpha / 2)
    means = slice(n_arms - 1, 2 * n_arms - 1)
    one, zero = params[means][arm], params[means][0]
    block = covariance[means, means][np.ix_([0, arm], [0, arm])]
    y = record.design.y
    binary = bool(((y == 0) | (y == 1)).all())
    if (binary or record.options.effect != "difference") and one > 0 and zero > 0:
        gradient = np.array([-1 / zero, 1 / one])
        log, se = np.log(one / zero), np.sqrt(gradient @ block @ gradient)
        return float(one / zero), float(np.exp(log - z * se)), float(np.exp(log + z * se)), "ratio of the means"
    weights = record.design.weights
    spread = np.sqrt(weights @ (y - weights @ y / weights.sum()) ** 2 / weights.sum())
    se = np.sqrt(np.array([-1, 1]) @ block @ np.array([-1, 1]))
    d, error = (one - zero) / spread, STANDARDIZED_SE / norm.ppf(0.975) * z * se / spread
    center = STANDARDIZED * d
    return (
        float(np.exp(center)),
        float(np.exp(center - error)),
        float(np.exp(center + error)),
        "standardized difference",
    )


def sensitivity_table(record: FitRecord, scales: list[BiasScale], covariance: Array, alpha: float) -> pd.DataFrame:
    """Return E-value and robustness value of every effect, a row each, and of the nearer limit of its interval."""
    z, rows = norm.ppf(1 - alpha / 2), []
    for arm, scale in enumerate(scales, start=1):
        ratio, low, high, basis = ratio_with_limits(record, covariance, arm, alpha)
        rows.append(
            {
                "effect": scale.effect,
                "ratio": ratio,
                "basis": basis,
                "E-value": e_value(ratio),
                "E-value of limit": limit_e_value(low, high),
                "scale": scale.size,
                "robustness value": robustness_value(scale.effect / scale.size),
                "robustness value of limit": _limit_robustness(record, scale, z),
            }
        )
    labels = record.design.labels
    index = pd.Index([f"{label} vs {labels[0]}" for label in labels[1:]], name="contrast")
    return pd.DataFrame(rows, index=index)


def _limit_robustness(record: FitRecord, scale: BiasScale, z: float) -> float:
    """Smallest r = cf_y = cf_d for which the interval of the bounds holds zero, by bisection."""
    sign = np.sign(scale.effect) or 1.0

    def margin(r: float) -> float:
        strength = float(confounding_strength(r, r, 1.0))
        influence = scale.effect_influence - sign * strength * scale.scale_influence
        return sign * scale.effect - strength * scale.size - z * standard_error(record, influence)

    if margin(0.0) <= 0:
        return 0.0
    low, high = 0.0, robustness_value(scale.effect / scale.size)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if margin(middle) > 0 else (low, middle)
    return high
