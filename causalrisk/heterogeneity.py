"""How effects differ: projections of the unit effects on groups or covariates, with their influence functions."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from causalrisk.effects import EffectScale
from causalrisk.errors import CausalRiskError
from causalrisk.estimators import (
    LINEAR,
    Derivatives,
    Specification,
    derivatives_of,
    estimate_separately,
    training_columns,
    training_family,
)
from causalrisk.ledger import Notes, Reason, failure_text
from causalrisk.linalg import Array
from causalrisk.options import InferenceOptions
from causalrisk.record import FitRecord
from causalrisk.resampling import bootstrap, make_resampling
from causalrisk.sample import Sample
from causalrisk.uncertainty import refitter_of


@dataclass(frozen=True)
class Projection:
    """Effects of each arm against arm 0, projected on k columns.

    Parameters
    ----------
    values : ndarray, shape (K - 1, k)
        Coefficients; of indicators of groups the effects in the groups.
    influence : ndarray, shape (n, K - 1, k)
        Their influence function; rows in the order of the sample.
    """

    values: Array
    influence: Array


def project_effects(record: FitRecord, columns: Array, scale: EffectScale, *, groups: bool) -> Projection:
    """Project the unit effects of an estimator that trains each arm by itself.

    Parameters
    ----------
    record : FitRecord
        The fit.
    columns : ndarray, shape (n, k)
        What to project on, rows in the order of the sample.
    scale : EffectScale
        How effects are reported; on other scales than the difference only for groups.
    groups : bool
        Whether the columns are indicators of groups.

    Returns
    -------
    Projection
        The best linear projection under the target's distribution: b solves mean t g (tau - g'b) = 0, with the
        correction of AIPW in the place of tau's bias. For an estimator of constants, weighted means in each group, or
        the weighted regressions on the columns.

    References
    ----------
    .. [1] Semenova, V. and Chernozhukov, V. (2021). Debiased machine learning of conditional average treatment effects
       and other causal functions. Econometrics Journal 24, 264-289.
    """
    sample, spec, estimate = record.sample, record.spec, record.estimate
    if spec.constants:  # the class of constants becomes that of the columns
        basis = replace(sample.outcome, columns=columns)
        sample, spec = replace(sample, outcome=basis, family=LINEAR), replace(spec, constants=False)
        estimate = estimate_separately(sample, spec, record.propensity, record.target)
    at = derivatives_of(sample, record.propensity, record.target)
    q, family = training_columns(sample, spec), training_family(sample, spec)
    slope = family.slope(estimate.theta @ q.T)
    p, n_arms = estimate.theta.shape[1], sample.n_arms
    first = len(estimate.params)
    of_theta = estimate.influence[:, first : first + estimate.theta.size].reshape(sample.n, n_arms, p)
    means, influence = [], []
    for arm in range(n_arms):
        coefficients, by_theta, rows = _project_arm(sample, spec, at, columns, q, arm, estimate.fitted[arm], slope[arm])
        means.append(coefficients)
        influence.append(rows + of_theta[:, arm] @ by_theta.T)
    stacked, moved = np.stack(means), np.stack(influence, axis=1)
    if not groups:
        return Projection(stacked[1:] - stacked[0], moved[:, 1:] - moved[:, :1])
    jacobians = [scale.jacobian(stacked[:, g])[: n_arms - 1] for g in range(stacked.shape[1])]
    values = scale.effects(stacked)
    combined = np.stack([moved[:, :, g] @ jacobian.T for g, jacobian in enumerate(jacobians)], axis=2)
    return Projection(values, combined)


def _project_arm(
    sample: Sample, spec: Specification, at: Derivatives, g: Array, q: Array, arm: int, fitted: Array, slope: Array
) -> tuple[Array, Array, Array]:
    """Project one arm's mean on the columns g, shape (n, k).

    Returns
    -------
    coefficients : ndarray, shape (k,)
        The projection.
    by_theta : ndarray, shape (k, p)
        Its derivative by the arm's outcome coefficients.
    influence : ndarray, shape (n, k)
        Its influence function at known outcome coefficients.
    """
    share = sample.weights / sample.total
    weighted = (share * at.tilt)[:, None] * g
    gram = weighted.T @ g
    inside = sample.indicators[:, arm] * sample.observed
    residual = inside * (sample.y - fitted) if spec.corrected else np.zeros(sample.n)
    moment = weighted.T @ fitted + (share * at.weights * residual) @ g
    coefficients = np.asarray(np.linalg.solve(gram, moment))
    error = fitted - g @ coefficients
    by_theta = (weighted * slope[:, None]).T @ q
    rows = (at.tilt * error + at.weights * residual)[:, None] * g
    if spec.corrected:
        by_theta = by_theta - ((share * at.weights * inside * slope)[:, None] * g).T @ q
    by_state = ((share * residual)[:, None] * g).T @ at.weights_by_state
    if at.tilt_by_state is not None:
        by_state = by_state + ((share * error)[:, None] * g).T @ at.tilt_by_state
    rows = rows + at.influence @ by_state.T
    return coefficients, np.asarray(np.linalg.solve(gram, by_theta)), np.asarray(np.linalg.solve(gram, rows.T).T)


def joint_group_effects(record: FitRecord, groups: Array, n_boot: int) -> tuple[Array, Array]:
    """Train the arms of a joint fit anew for the effects in groups, and bootstrap them.

    Parameters
    ----------
    record : FitRecord
        A joint fit.
    groups : ndarray, shape (n, G)
        Indicators of the groups, rows in the order of the sample.
    n_boot : int
        Resamples.

    Returns
    -------
    values, se : ndarray, shape (K - 1, G)
        Effects of one model in which every group has a risk and a variance of its own, and their standard errors over
        the resamples of the fit.
    """
    sample, refit = record.sample, refitter_of(record, groups)
    shape = groups.shape[1], sample.n_arms - 1
    point = refit(sample.weights[:, None], 0)
    if point.reasons[0] != Reason.OK:
        raise CausalRiskError(
            f"the joint objective of the groups has no solution: {failure_text(point.reasons)}.\n"
            "Merge small groups, or type  res.start.effects_by(...)."
        )
    resampling = make_resampling(record.design, sample, record.bootstrap, record.seed)
    boot = bootstrap(refit, resampling, sample, InferenceOptions(n_boot=n_boot), Notes())
    se = np.sqrt(np.diag(boot.covariance()))
    return point.values[:, 0].reshape(shape).T, se.reshape(shape).T
