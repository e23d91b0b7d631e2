"""The expected ATE risk of every estimator over the propensity replicates, and the paths of anchor and penalty."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd

from causalrisk.errors import Notes, OptionError, UnavailableError
from causalrisk.estimation.abilities import check_options, options_used
from causalrisk.estimation.fit import replicates_of_many, train_from
from causalrisk.estimation.fits import estimate_means
from causalrisk.estimation.options import TERMS, JREOptions
from causalrisk.estimation.record import FitRecord, JointRecord, of_means, with_robust
from causalrisk.estimation.specification import IPWRA, SEPARATE
from causalrisk.joint.start import ate_risk
from causalrisk.numerics.blocks import loaded
from causalrisk.numerics.linalg import Array


def joint_of(record: FitRecord) -> JointRecord:
    """Return the joint part of a fit; for another estimator, of JRE with default options on the same data."""
    if record.joint is not None:
        return record.joint
    record.check_observed("The risks of the estimators")
    ipwra = record.estimate
    if record.spec.name != IPWRA.name:
        ipwra = estimate_means(record.used_weight_fit, IPWRA, record.options.effect_scale)
    start, options = with_robust(dataclasses.replace(record, spec=IPWRA, estimate=ipwra, robust=None)), JREOptions()
    return train_from(start, options, Notes(()), replicates_of_many(start, options))


def estimator_risks(record: FitRecord) -> tuple[dict[str, Array], dict[str, float], Array]:
    """Return what every estimator has over the propensity replicates of JRE on the data of a fit.

    Biases (K, B) of each arm under each replicate, NaN for an estimator whose outcome model has no fit; variances of
    the effect at known scores; and slopes (K,) that turn biases into net biases.
    """
    fit, joint, sample, able, fitted = record.used_weight_fit, joint_of(record), record.sample, [], {}
    # Predictions of a learner are terms of the outcome models here.
    options = dataclasses.replace(record.options, learner_use=None if record.options.learner is None else TERMS)
    for spec in SEPARATE:
        try:
            check_options(spec, record.design, options_used(spec, options))
        except (OptionError, UnavailableError):
            continue
        estimate = estimate_means(fit, spec, record.options.effect_scale)
        able.append(spec)
        fitted[spec.name] = np.full_like(estimate.predicted, np.nan) if any(estimate.failed) else estimate.predicted
    fitted["JRE"] = joint.fit.predicted
    found, variances = joint.fit.risks_of(np.stack([*fitted.values()]))
    biases = dict(zip(fitted, found, strict=True))
    for spec in able:
        if spec.corrected:  # the estimator has subtracted the bias under the fitted propensity score
            error = (sample.own(fitted[spec.name]) - sample.y) * sample.with_outcome
            own = loaded(sample.indicators.T @ (sample.s / sample.total * fit.w * error))
            biases[spec.name] = biases[spec.name] - own[:, None]
    spread = {name: value / joint.problem.n_units for name, value in zip(fitted, variances, strict=True)}
    return biases, spread, joint.fit.bias_slopes


@of_means
def risk_table(record: FitRecord) -> pd.DataFrame:
    """Compare the expected ATE risk of every estimator on the same propensity replicates.

    Returns
    -------
    DataFrame
        One row per estimator.

        - "bias[...]" and "net" are means over the replicates: the bias of each treatment group, and the net bias, their
          difference.
        - "RMS net" is the root mean squared net bias. "sampling SD" is the root of the mean sampling variance.
        - "risk" is the expected ATE risk, the sum of these squares. "RMS error" is its root. This is no standard error:
          it treats the scores as known and uses the rows that JRE was trained on.
        - "correlation" is the correlation of the groups' biases. Near 1, they nearly cancel out of the effect.

    Notes
    -----
    All columns but "risk" are in units of the outcome. An estimator without replicates uses those that JRE draws with
    the same seed. AIPW subtracts the biases under the fitted score, so its biases show how they vary with the score.
    With objective "risk", a canonical link and an intercept, JRE's risk does not exceed IPWRA's, unless the score's
    linear predictor is one of its outcome columns.
    """
    (biases, variances, slopes), labels, rows = estimator_risks(record), record.design.labels, []
    for name, bias in biases.items():
        mean = bias.mean(axis=1)
        squared_net, row = float(ate_risk(slopes[:, None] * bias).mean()), dict[str, float]()
        for label, value in zip(labels, mean, strict=True):
            row[f"bias[{label}]"] = value
        suffixes = [f"[{label}]" if len(labels) > 2 else "" for label in labels]
        for a in range(1, len(labels)):
            row[f"net{suffixes[a]}"] = slopes[a] * mean[a] - slopes[0] * mean[0]
        row |= {"RMS net": np.sqrt(squared_net), "sampling SD": np.sqrt(variances[name])}
        row |= {"RMS error": np.sqrt(squared_net + variances[name]), "risk": squared_net + variances[name]}
        for a in range(1, len(labels)):
            varies = bias.shape[1] > 1 and np.ptp(bias[a]) and np.ptp(bias[0])
            row[f"correlation{suffixes[a]}"] = float(np.corrcoef(bias[a], bias[0])[0, 1]) if varies else np.nan
        rows.append(row)
    return pd.DataFrame(rows, index=pd.Index(biases, name="estimator"))


def anchor_path(record: FitRecord) -> pd.DataFrame:
    """Show the effect for each amount of shrinkage toward IPWRA (JRE).

    Returns
    -------
    DataFrame
        One row per amount, the largest first. "effect" is the (first) effect. "std err" is by cross-validation and
        treats the outcome models as known; "robust se" accounts for their errors, and is NaN if not needed. "variance
        ratio" is the square of "std err" relative to that at 30, and "ratio se" its standard error. Ratios are
        drawn from their normal distribution; "share" is how often the ratio plus half its standard error is the
        smallest. "converged" is about the optimiser. `res.joint.shrinkage` is the mean of the amounts, geometric and
        weighted by "share". If the robust variance there exceeds IPWRA's by more than a share 2 / sqrt(n), it is the
        next amount where it does not.

    Raises
    ------
    UnavailableError
        If `shrinkage` was given, or the objective has none.
    """
    joint = joint_of(record)
    path, options = joint.path, joint.options
    if path is None:
        given = f"anchor={options.anchor:g} was given" if options.objective == "risk" else 'objective="erm" has none'
        raise UnavailableError(f"no anchor was chosen: {given}.\nUse `fit()`.")
    return path.table.copy()
