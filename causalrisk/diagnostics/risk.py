"""How far the biases of the arms cancel over the propensity replicates."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from causalrisk.errors import Notes
from causalrisk.estimators.fit import train_from
from causalrisk.estimators.joint.criterion import ate_risk
from causalrisk.estimators.joint.train import estimate_jointly
from causalrisk.estimators.options import JREOptions, penalty_grid
from causalrisk.estimators.record import FitRecord, JointRecord
from causalrisk.estimators.separate import estimate_separately, row_weights
from causalrisk.estimators.specification import (
    IPWRA,
    SEPARATE,
    Estimate,
    Specification,
)
from causalrisk.inference.covariance import robust_covariance
from causalrisk.numerics.linalg import Array
from causalrisk.propensity.targets import TiltTarget
from causalrisk.propensity.weights import WeightFit


def bias_table(biases: Mapping[str, Array], slopes: Array, labels: Sequence[str]) -> pd.DataFrame:
    """Split the expected ATE risk of each estimator.

    Parameters
    ----------
    biases : mapping of str to ndarray, shape (K, B)
        For each estimator the bias of each arm under each replicate.
    slopes : ndarray, shape (K,)
        What net biases and risk multiply the biases by: one but for effects that are no differences.
    labels : sequence of str
        Labels of the arms.

    Returns
    -------
    DataFrame
        A row an estimator: mean bias of each arm and net; root mean squared net bias; expected ATE risk and its parts
        "squared mean" and "variance"; correlation of an arm's biases with those of the reference.
    """
    several = len(labels) > 2
    rows = []
    for bias in biases.values():
        mean = bias.mean(axis=1)
        scaled = slopes * mean
        risk, systematic = float(ate_risk(slopes[:, None] * bias).mean()), float(ate_risk(scaled[:, None])[0])
        row = {f"bias[{label}]": value for label, value in zip(labels, mean, strict=True)}
        for a, label in enumerate(labels[1:], start=1):
            row[f"net[{label}]" if several else "net"] = scaled[a] - scaled[0]
        row |= {"RMS net": np.sqrt(risk), "risk": risk, "squared mean": systematic, "variance": risk - systematic}
        for a, label in enumerate(labels[1:], start=1):
            row[f"correlation[{label}]" if several else "correlation"] = correlation(bias[a], bias[0])
        rows.append(row)
    return pd.DataFrame(rows, index=pd.Index(biases, name="estimator"))


def correlation(first: Array, second: Array) -> float:
    """Correlation over the replicates; NaN where a bias does not vary."""
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return np.nan
    return float(np.corrcoef(first, second)[0, 1])


MAX_FAILED = 0.05


def separate_estimate(record: FitRecord, fit: WeightFit, spec: Specification) -> Estimate:
    """Another estimator on the data of a fit, with the same importance weights."""
    needed = spec.uses_propensity or isinstance(record.target, TiltTarget)
    weights = row_weights(record.sample, fit if needed else None, record.target)
    return estimate_separately(record.sample, spec, weights, record.options.effect_scale)


def joint_of(record: FitRecord) -> JointRecord:
    """Return the joint part of a fit; for another estimator that of JRE on the same data, with its default options."""
    if record.joint is not None:
        return record.joint
    ipwra = record.estimate if record.spec is IPWRA else separate_estimate(record, record.used_weight_fit, IPWRA)
    start = dataclasses.replace(record, spec=IPWRA, estimate=ipwra)
    return train_from(start, JREOptions(), MAX_FAILED, Notes(()))


def estimator_biases(record: FitRecord, fit: WeightFit, joint: JointRecord) -> dict[str, Array]:
    """Bias of each arm under each replicate, shape (K, B), for every estimator on the data of a fit.

    Parameters
    ----------
    record : FitRecord
        The fit.
    fit : WeightFit
        Its importance weights.
    joint : JointRecord
        Its joint part, or `joint_of` it.

    Returns
    -------
    dict of str to ndarray, shape (K, B)
        NaN for an estimator whose outcome model has no fit.
    """
    sample = record.sample
    share = sample.s / sample.total
    estimates = {spec.name: separate_estimate(record, fit, spec) for spec in SEPARATE}
    fitted = {
        name: np.full_like(e.predicted, np.nan) if any(e.failed) else e.predicted for name, e in estimates.items()
    }
    fitted["JRE"] = joint.estimate.estimate.predicted
    errors = np.stack([sample.own(values) - sample.y for values in fitted.values()], axis=1)
    errors *= sample.observed[:, None]
    sums = joint.problem.replicate_weights().sums(share[:, None], errors[:, None, :])[:, :, 0]
    biases = {name: sums[:, :, j].copy() for j, name in enumerate(fitted)}
    for j, spec in enumerate(SEPARATE):
        if spec.corrected:  # it has subtracted the bias under the fitted propensity score
            biases[spec.name] -= (sample.indicators * (share * fit.w * errors[:, j])[:, None]).sum(axis=0)[:, None]
    return biases


def risk_table(record: FitRecord) -> pd.DataFrame:
    """How the biases of the arms cancel, for every estimator on the same propensity replicates.

    Returns
    -------
    DataFrame
        A row an estimator: mean bias of each arm over the replicates and net of one another; root mean squared net
        bias "RMS net"; the expected ATE "risk", which is "squared mean" plus "variance" over the replicates; and
        the "correlation" of the arms' biases: the nearer to 1, the more of them cancels.

    Notes
    -----
    The biases are those of section 2 of the explanation of the method, in units of the outcome. The replicates are
    those of the fit; for an estimator that draws none, those JRE would have drawn with the same seed. AIPW has
    subtracted the biases under the fitted score, so that what is left is how they vary with it.
    """
    fit = record.used_weight_fit
    joint = joint_of(record)
    return bias_table(estimator_biases(record, fit, joint), joint.estimate.slopes, record.design.labels)


def penalty_path(record: FitRecord, grid: Sequence[float] | None = None) -> pd.DataFrame:
    """Refit JRE under other penalties lambda, on the same replicates (JRE).

    Parameters
    ----------
    grid : sequence of float, optional
        Penalties; by default from none to n^2, with that of the fit.

    Returns
    -------
    DataFrame
        A row a penalty: effect, robust standard error, mean loss of the importance-weighted fit, expected ATE risk
        (and "RMS net", its root), and whether the optimiser converged.

    Notes
    -----
    The risk is that over the replicates. A fit by the objective "adaptive" has its risk at the fitted propensity
    score alone, so it is not on the path, which has its anchor.
    """
    joint = joint_of(record)
    sample, n, own = record.sample, record.sample.total, joint.own_penalty
    chosen = np.r_[0.0, np.geomspace(n / 10, n**2, 9)] if grid is None else penalty_grid(grid)
    if grid is None and own is not None and not np.isclose(chosen, own).any():
        chosen = np.sort(np.r_[chosen, own])
    mean_weight = joint.problem.replicate_weights().mean()[:, 0]
    rows = []
    for penalty in chosen:
        criterion = dataclasses.replace(joint.criterion, penalty=float(penalty), at_fitted_score=False)
        found = estimate_jointly(joint.problem, criterion)
        at = dataclasses.replace(record, estimate=found.estimate, cov_type=record.robust_type)
        loss = sample.family.loss(sample.y, sample.own(found.estimate.theta @ sample.X.columns.T))
        rows.append(
            {
                "effect": float(found.estimate.params[0]),
                "std err": float(np.sqrt(robust_covariance(at, False)[0, 0])),
                "fit loss": float(sample.mean(sample.observed * mean_weight * loss)),
                "risk": found.expected_risk,
                "RMS net": np.sqrt(found.expected_risk),
                "converged": bool(found.result.success),
            }
        )
    return pd.DataFrame(rows, index=pd.Index(chosen, name="penalty"))
