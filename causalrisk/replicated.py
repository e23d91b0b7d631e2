"""What estimators do over the propensity replicates: the biases of their arms, and the joint fit along its penalty."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd

from causalrisk.anchor import train_best, units_of
from causalrisk.estimators import (
    AIPW,
    HAJEK,
    IPWRA,
    OUTCOME_REGRESSION,
    UNADJUSTED,
    Estimate,
    Specification,
    estimate_separately,
)
from causalrisk.joint import estimate_jointly, replicated_weights
from causalrisk.ledger import Notes
from causalrisk.linalg import Array
from causalrisk.options import JREOptions
from causalrisk.record import FitRecord, JointRecord
from causalrisk.refit import PropensityRefitter
from causalrisk.resampling import fit_replicates, make_resampling
from causalrisk.targets import TiltTarget
from causalrisk.uncertainty import robust_covariance
from causalrisk.weighting import WeightFit

SEPARATE = (UNADJUSTED, OUTCOME_REGRESSION, HAJEK, IPWRA, AIPW)
MAX_FAILED = 0.05


def separate_estimate(record: FitRecord, fit: WeightFit, spec: Specification) -> Estimate:
    """Another estimator on the data of a fit, with the same importance weights."""
    needed = spec.uses_propensity or isinstance(record.target, TiltTarget)
    return estimate_separately(record.sample, spec, fit if needed else None, record.target, record.options.scale)


def joint_method(record: FitRecord) -> str:
    """Return the optimiser of the joint objective."""
    return "least_squares" if record.sample.family.linear else "trust-exact"


def joint_of(record: FitRecord, fit: WeightFit) -> JointRecord:
    """Return the joint part of a fit; for another estimator that of JRE on the same data, with its default options."""
    if record.joint is not None:
        return record.joint
    options, sample, scale = JREOptions(), record.sample, record.options.scale
    resampling = make_resampling(record.design, sample, record.bootstrap, record.seed)
    replicates = fit_replicates(PropensityRefitter(fit), resampling, None, options.n_replicates, MAX_FAILED, Notes(()))
    start = record.estimate if record.spec is IPWRA else separate_estimate(record, fit, IPWRA)
    units = units_of(sample, sample.clusters(record.design.cluster), record.frequency)
    criteria = options.criteria(sample.total)
    best = train_best(sample, fit, start, replicates, criteria, joint_method(record), scale, units)
    joint, criterion, path = best
    return JointRecord(joint, options, criterion, replicates, path)


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
    share = sample.weights / sample.total
    estimates = {spec.name: separate_estimate(record, fit, spec) for spec in SEPARATE}
    fitted = {name: np.full_like(e.fitted, np.nan) if any(e.failed) else e.fitted for name, e in estimates.items()}
    fitted["JRE"] = joint.fit.estimate.fitted
    errors = np.stack([sample.own(values) - sample.y for values in fitted.values()], axis=1)
    errors *= sample.observed[:, None]
    sums = replicated_weights(sample, fit, joint.replicates).sums(share[:, None], errors[:, None, :])[:, :, 0]
    biases = {name: sums[:, :, j].copy() for j, name in enumerate(fitted)}
    # AIPW has subtracted the bias under the fitted propensity score.
    corrected = sample.indicators * (share * fit.total * errors[:, list(fitted).index(AIPW.name)])[:, None]
    biases[AIPW.name] -= corrected.sum(axis=0)[:, None]
    return biases


def penalty_path(record: FitRecord, fit: WeightFit, joint: JointRecord, grid: Array) -> pd.DataFrame:
    """Refit JRE under other penalties, on the same replicates.

    Parameters
    ----------
    record : FitRecord
        The joint fit.
    fit : WeightFit
        Its importance weights.
    joint : JointRecord
        Its joint part.
    grid : ndarray, shape (g,)
        Penalties.

    Returns
    -------
    DataFrame
        A row a penalty.
    """
    sample, scale, method = record.sample, record.options.scale, joint_method(record)
    mean_weight = replicated_weights(sample, fit, joint.replicates).mean()[:, 0]
    rows = []
    for penalty in grid:
        criterion = dataclasses.replace(joint.criterion, penalty=float(penalty), fitted=False)
        found = estimate_jointly(sample, fit, joint.fit.start, joint.replicates, criterion, method, scale)
        at = dataclasses.replace(record, estimate=found.estimate, cov_type=record.robust_type)
        loss = sample.family.loss(sample.y, sample.own(found.estimate.theta @ sample.outcome.columns.T))
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
    return pd.DataFrame(rows, index=pd.Index(grid, name="penalty"))
