"""The expected ATE risk of every estimator over the propensity replicates, and the paths of anchor and penalty."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from causalrisk.errors import Notes, UnavailableError
from causalrisk.estimators.estimates import Estimate
from typing import Any as JointEstimate; Trainer = JointRecord = JointEstimate; ate_risk=None  # TEMP
from causalrisk.estimators.options import JREOptions, penalty_grid
from causalrisk.estimators.record import FitRecord, of_means, robust_covariance, with_robust
from causalrisk.estimators.sample import shifted
from causalrisk.estimators.specification import IPWRA, SEPARATE, Specification
from causalrisk.numerics.linalg import Array
from causalrisk.estimation.fits import WeightFit, estimate_means


def correlation(first: Array, second: Array) -> float:
    """Correlation over the replicates; NaN where a bias does not vary."""
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return np.nan
    return float(np.corrcoef(first, second)[0, 1])


def root_mean_squares(fit: JointEstimate) -> Array:
    """Return RMS errors over the replicates, of them net bias and sampling, shape (2, 3): of JRE and of IPWRA."""
    net = np.array([fit.squared_net_bias, fit.start_squared_net_bias])
    sampling = np.array([fit.variance, fit.start_variance]) / fit.n_units
    return np.sqrt(np.stack([net + sampling, net, sampling], axis=1))


def separate_estimate(record: FitRecord, fit: WeightFit, spec: Specification) -> Estimate:
    """Another estimator on the data of a fit, with the same importance weights."""
    return estimate_means(fit, spec, record.options.effect_scale)


def joint_of(record: FitRecord) -> JointRecord:
    """Return the joint part of a fit; for another estimator, of JRE with default options on the same data."""
    if record.joint is not None:
        return record.joint
    record.check_observed("The risks of the estimators")
    ipwra = (
        record.estimate if record.spec.name == IPWRA.name else separate_estimate(record, record.used_weight_fit, IPWRA)
    )
    start, options = with_robust(dataclasses.replace(record, spec=IPWRA, estimate=ipwra, robust=None)), JREOptions()
    return train_from(start, options, Notes(()), replicates_of_many(start, options))


@dataclass(frozen=True)
class EstimatorRisks:
    """Biases and sampling variances of every estimator over the same propensity replicates.

    `biases` (K, B) of each arm under each replicate, NaN for an estimator whose outcome model has no fit; `variances`
    of the effect at known scores; `slopes` (K,) turn biases into net biases.
    """

    biases: dict[str, Array]
    variances: dict[str, float]
    slopes: Array

    def frame(self, labels: Sequence[str]) -> pd.DataFrame:
        """Split the expected ATE risk, as the table of `risk_table`."""
        several = len(labels) > 2
        rows = []
        for name, bias in self.biases.items():
            mean = bias.mean(axis=1)
            scaled, squared_net = self.slopes * mean, float(ate_risk(self.slopes[:, None] * bias).mean())
            row = {f"bias[{label}]": value for label, value in zip(labels, mean, strict=True)}
            for a, label in enumerate(labels[1:], start=1):
                row[f"net[{label}]" if several else "net"] = scaled[a] - scaled[0]
            risk = squared_net + self.variances[name]
            row |= {"RMS net": np.sqrt(squared_net), "sampling SD": np.sqrt(self.variances[name])}
            row |= {"RMS error": np.sqrt(risk), "risk": risk}
            for a, label in enumerate(labels[1:], start=1):
                row[f"correlation[{label}]" if several else "correlation"] = correlation(bias[a], bias[0])
            rows.append(row)
        return pd.DataFrame(rows, index=pd.Index(self.biases, name="estimator"))


def estimator_risks(record: FitRecord) -> EstimatorRisks:
    """Return the biases and variances of every estimator under the replicates of JRE on the data of a fit."""
    fit, joint = record.used_weight_fit, joint_of(record)
    sample = record.sample
    share = sample.s / sample.total
    estimates = {spec.name: separate_estimate(record, fit, spec) for spec in SEPARATE}
    fitted = {
        name: np.full_like(e.predicted, np.nan) if any(e.failed) else e.predicted for name, e in estimates.items()
    }
    fitted["JRE"] = joint.estimate.estimate.predicted
    trainer = Trainer(joint.problem)
    errors = np.stack([sample.own(values) - sample.y for values in fitted.values()], axis=1)
    errors *= sample.with_outcome[:, None]
    sums = trainer.whole.replicated.sums(share[:, None], errors[:, None, :])[:, :, 0]
    biases = {name: sums[:, :, j].copy() for j, name in enumerate(fitted)}
    for j, spec in enumerate(SEPARATE):
        if spec.mean.corrected:  # the estimator has subtracted the bias under the fitted propensity score
            biases[spec.name] -= (sample.indicators * (share * fit.w * errors[:, j])[:, None]).sum(axis=0)[:, None]
    n_units = joint.problem.n_units
    variances = {name: trainer.variance_of(predicted, joint.criterion) / n_units for name, predicted in fitted.items()}
    return EstimatorRisks(biases, variances, joint.estimate.slopes)


@of_means
def risk_table(record: FitRecord) -> pd.DataFrame:
    """Compare the expected ATE risk of every estimator on the same propensity replicates.

    Returns
    -------
    DataFrame
        One row per estimator. "bias[arm]" and "net": means over the replicates of the bias of each arm and of one net
        of another. "RMS net": root mean squared net bias; "sampling SD": root of the sampling variance of the effect,
        averaged over the replicates; "RMS error": root of the sum of their squares, the expected ATE "risk". It is no
        standard error: it takes scores as known, and is measured on the rows that JRE was trained on. "correlation": of
        the arms' biases; the nearer to 1, the more they move together.

    Notes
    -----
    All but "risk" are in units of the outcome. The replicates are the fit's; for an estimator that draws none,
    the ones that JRE draws with the same seed. AIPW has subtracted the biases under the fitted score, so that what
    is left is how they vary with it. JRE's risk is never above IPWRA's (objective "risk", canonical link).
    """
    return estimator_risks(record).frame(record.design.labels)


def anchor_path(record: FitRecord) -> pd.DataFrame:
    """Show the effect under each anchor, and the anchor chosen (JRE).

    Returns
    -------
    DataFrame
        One row per anchor, the most cautious first: the (first) effect; "std err", from the influence function with
        each unit held out; "robust se", the robust standard error, which has the errors of the outcome models too, NaN
        where it was not needed; "variance ratio", the square of "std err" over the first anchor's, and "ratio se", the
        standard error of this ratio over the units; "share", of draws of the ratios from the normal distribution of
        their errors in which this ratio plus half its standard error is the least; whether the optimiser converged;
        "held out", the anchor that the units held out choose, the geometric mean by the shares, which has a row of its
        own; "chosen", that of the fit: the same, or where the square of "robust se" is above IPWRA's there by more than
        2 / sqrt(n) of it, one raised until it is not.

    Raises
    ------
    UnavailableError
        If the anchor was given, or the objective has none.
    """
    joint = joint_of(record)
    path, options = joint.path, joint.options
    if path is None:
        given = f"anchor={options.anchor:g} was given" if options.objective == "risk" else 'objective="erm" has none'
        raise UnavailableError(f"no anchor was chosen: {given}.\nUse `fit()`.")
    table = {
        "effect": path.effects,
        "std err": path.std_errors,
        "robust se": path.robust_errors,
        "variance ratio": path.ratios,
        "ratio se": path.ratio_errors,
        "share": path.shares,
        "converged": path.converged,
        "held out": path.anchors == path.anchors[path.held_out],
        "chosen": path.anchors == path.anchor,
    }
    return pd.DataFrame(table, index=pd.Index(path.anchors, name="anchor"))


def penalty_path(record: FitRecord, grid: Sequence[float] | None = None) -> pd.DataFrame:
    """Refit JRE under other penalties lambda, on the same replicates (JRE, objective "erm").

    Parameters
    ----------
    grid : sequence of float, optional
        Penalties; by default from none to n^2, the fit's among them.

    Returns
    -------
    DataFrame
        One row per penalty: effect, robust standard error, mean loss of the importance-weighted fit, mean squared net
        bias "risk" (and "RMS net", its root), and whether the optimiser converged.

    Raises
    ------
    UnavailableError
        If the objective is "risk", which has an anchor instead of a penalty.
    """
    joint = joint_of(record)
    if joint.own_penalty is None:
        raise UnavailableError('objective="risk" has no penalty.\nUse `res.anchor_path()`, or `fit(objective="erm")`.')
    n, own = joint.problem.n_units, joint.own_penalty
    chosen = np.r_[0.0, np.geomspace(n / 10, n**2, 9)] if grid is None else penalty_grid(grid)
    if grid is None and not np.isclose(chosen, own).any():
        chosen = np.sort(np.r_[chosen, own])
    sample, trainer = record.sample, Trainer(joint.problem)
    mean_w = trainer.whole.resampled.moments.mean.w[:, 0]
    rows = []
    for penalty in chosen:
        found = trainer.estimate(trainer.train(dataclasses.replace(joint.criterion, penalty=float(penalty))))
        at = dataclasses.replace(record, estimate=found.estimate, cov_type=record.robust_type)
        eta = shifted(sample.own(found.estimate.theta @ sample.X.columns.T), sample.offset)
        loss = sample.family.loss(sample.y, eta)
        rows.append(
            {
                "effect": float(found.estimate.params[0]),
                "std err": float(np.sqrt(robust_covariance(at, False)[0, 0])),
                "fit loss": float(sample.mean(sample.with_outcome * mean_w * loss)),
                "risk": found.squared_net_bias,
                "RMS net": np.sqrt(found.squared_net_bias),
                "converged": bool(found.result.success),
            }
        )
    return pd.DataFrame(rows, index=pd.Index(chosen, name="penalty"))
