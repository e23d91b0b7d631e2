"""The expected ATE risk of every estimator over random propensity scores, and JRE's fits by amount of shrinkage."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd

from causalrisk.errors import OptionError, UnavailableError
from causalrisk.estimation.abilities import check_options, options_used
from causalrisk.estimation.fits import estimate_means
from causalrisk.estimation.options import TERMS
from causalrisk.estimation.record import FitRecord, JointRecord
from causalrisk.estimation.specification import SEPARATE
from causalrisk.numerics.arrays import loaded

ROUNDING = 1e-10  # a bias whose range over the replicates is smaller, in sampling SDs, is constant


def joint_of(record: FitRecord) -> JointRecord:
    """Return the `JointRecord` of a JRE fit. Raise an UnavailableError for other estimators."""
    if record.joint is None:
        raise UnavailableError(f"{record.spec.name} has no propensity replicates.\nUse `JRE.from_formula(...).fit()`.")
    return record.joint


def risk_table(record: FitRecord) -> pd.DataFrame:
    """Compare the expected ATE risk of every estimator, over JRE's random draws of the propensity score (replicates).

    Returns
    -------
    DataFrame
        One row per estimator.

        - "bias[...]" is the bias of each treatment group's mean. "net" is the net bias, the difference of these biases
          (if the effect is a ratio, weighted by the slopes of its log scale). Both are means over the replicates.
        - "RMS net" is the root mean squared net bias. "sampling SD" is the root of the mean sampling variance. It
          includes the effect heterogeneity that JRE's objective leaves out, as estimated by IPWRA.
        - "risk" is the expected ATE risk, the sum of the squares of "RMS net" and "sampling SD".
        - "RMS error" is its root, but no standard error: it treats the scores as known and uses the rows of JRE's fit.
        - "correlation" is the correlation of the groups' biases. If it is near 1, the biases nearly cancel in the
          effect.

    Notes
    -----
    Columns are in units of the outcome, except "risk" (squared units) and "correlation" (no unit). Values are NaN if an
    outcome model cannot be fitted. AIPW subtracts its bias under the fitted propensity score. Its biases therefore show
    only how the bias varies over the replicates.

    With objective "risk", a canonical link and an intercept, JRE's risk does not exceed IPWRA's. It can exceed IPWRA's
    if the linear predictor of the propensity score is a term of JRE's outcome models.
    """
    record.check_means("risk_table()")
    fit, joint, sample, labels = record.used_weight_fit, joint_of(record), record.sample, record.design.labels
    # Predictions of a learner are terms of the outcome models here.
    options = dataclasses.replace(record.options, learner_use=None if record.options.learner is None else TERMS)
    predicted, corrected = {}, []
    for spec in SEPARATE:
        try:
            check_options(spec, record.design, options_used(spec, options))
        except (OptionError, UnavailableError):
            continue
        found = estimate_means(fit, spec, record.options.effect_scale)
        predicted[spec.name] = np.full_like(found.predicted, np.nan) if any(found.failed) else found.predicted
        corrected += [spec.name] if spec.corrected else []
    predicted["JRE"] = joint.fit.predicted
    every, variances = joint.fit.risks_of(np.stack([*predicted.values()]))
    rows, slopes = [], joint.fit.problem.bias_slopes  # factors (K,) of the biases in the net bias
    for name, bias, variance in zip(predicted, every, variances / sample.total, strict=True):
        if name in corrected:  # the estimator has subtracted the bias under the fitted propensity score
            own = np.concatenate([predicted[name][a, of_arm] for a, of_arm in enumerate(sample.slices)])
            error = (own - sample.y) * sample.with_outcome
            bias = bias - loaded(sample.indicators.T @ (sample.s / sample.total * fit.w * error))[:, None]
        mean, squared_net = bias.mean(axis=1), float(((joint.fit.problem.contrasts @ bias) ** 2).sum(axis=0).mean())
        suffixes = [f"[{label}]" if len(labels) > 2 else "" for label in labels]
        row = {f"bias[{label}]": value for label, value in zip(labels, mean, strict=True)}
        row |= {f"net{suffixes[a]}": slopes[a] * mean[a] - slopes[0] * mean[0] for a in range(1, len(labels))}
        row |= {"RMS net": np.sqrt(squared_net), "sampling SD": np.sqrt(variance)}
        row |= {"RMS error": np.sqrt(squared_net + variance), "risk": squared_net + variance}
        for a in range(1, len(labels)):
            varies = min(np.ptp(bias[a]), np.ptp(bias[0])) > ROUNDING * np.sqrt(variance)
            row[f"correlation{suffixes[a]}"] = float(np.corrcoef(bias[a], bias[0])[0, 1]) if varies else np.nan
        rows.append(row)
    return pd.DataFrame(rows, index=pd.Index(predicted, name="estimator"))


def anchor_path(record: FitRecord) -> pd.DataFrame:
    """Show the effect for each amount of shrinkage toward IPWRA (JRE).

    Returns
    -------
    DataFrame
        One row per amount, the largest (30) first.

        - "effect" is the (first) effect. With nonlinear links and few rows, it may differ from the effect of
          `fit(shrinkage=)`: the objective may have several minima, and each search here starts from the row above.
        - "std err" is from cross-validation and treats the outcome models as known. "robust se" accounts for their
          estimation. It is NaN if it was not needed.
        - "variance ratio" is the square of "std err" divided by the square in the first row. "ratio se" is the standard
          error of this ratio.
        - "share" is the share of random draws in which the amount has the smallest sum of ratio and half its
          "ratio se". The ratios are drawn from their normal distribution.
        - "converged" says whether the optimiser converged.

        `res.joint.shrinkage` is the geometric mean of the amounts, weighted by "share". If necessary, it is then raised
        until JRE's robust variance is at most 1 + 2 / sqrt(n) times IPWRA's, with n observations or clusters.

    Raises
    ------
    UnavailableError
        If `shrinkage` was given, or for ``objective="erm"``, which has no shrinkage.
    """
    joint = joint_of(record)
    path, options = joint.path, joint.options
    if path is None:
        alpha = options.shrinkage
        given = 'objective="erm" has none' if alpha is None else f"shrinkage={alpha:g} was given"
        raise UnavailableError(f"the shrinkage was not chosen from the data, because {given}.\nUse `fit()`.")
    return path.table.copy()
