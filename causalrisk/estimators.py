"""The estimators as one engine: a hypothesis class, importance weights, joint or separate arms, and a correction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from causalrisk.effects import DIFFERENCE, EffectScale
from causalrisk.families import OutcomeFamily, outcome_family
from causalrisk.ledger import Reason
from causalrisk.linalg import Array
from causalrisk.outcome import fit_outcome
from causalrisk.sample import Sample
from causalrisk.targets import Target
from causalrisk.weighting import WeightFit


@dataclass(frozen=True)
class Specification:
    """An estimator as a configuration of importance-weighted empirical risk minimisation.

    Parameters
    ----------
    name, title : str
        Name in tables and heading of the summary.
    constants : bool
        Whether the hypothesis class is the constants, whatever the outcome formula names.
    weighted : bool
        Whether the outcome models are trained under importance weights.
    corrected : bool
        Whether the estimated bias of each arm is subtracted.
    joint : bool
        Whether the arms are trained jointly over the distribution of the propensity score.
    """

    name: str
    title: str
    constants: bool = False
    weighted: bool = False
    corrected: bool = False
    joint: bool = False

    @property
    def uses_propensity(self) -> bool:
        """Whether the estimator needs a propensity model."""
        return self.weighted or self.corrected or self.joint


UNADJUSTED = Specification("Unadjusted", "Unadjusted (Difference in Means) Results", constants=True)
OUTCOME_REGRESSION = Specification("OutcomeRegression", "Outcome Regression Results")
HAJEK = Specification("Hajek", "Hajek (Normalised IPW) Results", constants=True, weighted=True)
IPWRA = Specification("IPWRA", "IPW Regression Adjustment (IPWRA) Results", weighted=True)
AIPW = Specification("AIPW", "Augmented IPW (AIPW) Results", corrected=True)
JRE = Specification("JRE", "Joint Robust Estimator (JRE) Results", weighted=True, joint=True)


@dataclass(frozen=True)
class Estimate:
    """A point estimate with its influence function; rows in the order of the sample.

    Parameters
    ----------
    params : ndarray, shape (2 K - 1,)
        Effects of the arms against the reference, then the mean of each arm.
    theta : ndarray, shape (K, p)
        Outcome coefficients of the basis columns.
    gamma : ndarray, shape (Q,)
        Propensity coefficients of the basis columns; empty without a propensity model.
    fitted : ndarray, shape (K, n)
        Predicted outcome of every row in every arm.
    model_means : ndarray, shape (K,)
        Averages of `fitted` over the target.
    influence : ndarray, shape (n, 2 K - 1 + K p + Q)
        Influence function of (params, theta, gamma).
    failed : tuple of Reason
        For each arm OK, or why its outcome model has no fit; empty for a joint fit.
    """

    params: Array
    theta: Array
    gamma: Array
    fitted: Array
    model_means: Array
    influence: Array
    failed: tuple[Reason, ...] = ()

    @property
    def values(self) -> Array:
        """All estimates in the order of the columns of `influence`."""
        return np.concatenate([self.params, self.theta.ravel(), self.gamma])


LINEAR = outcome_family("gaussian", None)


def training_columns(sample: Sample, spec: Specification) -> Array:
    """Basis columns of the hypothesis class, shape (n, p): those of the design, or the constant."""
    return np.ones((sample.n, 1)) if spec.constants else sample.outcome.columns


def training_family(sample: Sample, spec: Specification) -> OutcomeFamily:
    """Family of the outcome models; the best constant is the weighted mean under every one."""
    return LINEAR if spec.constants else sample.family


@dataclass(frozen=True)
class Derivatives:
    """What averages and fits are made of, for the influence functions; rows in the order of the sample.

    Parameters
    ----------
    tilt, measure, weights : ndarray, shape (n,)
        Tilt, measure and importance weight (`Weights`); ones where the estimator uses no propensity score.
    weights_by_state, tilt_by_state, measure_by_state : ndarray, shape (n, Q), or None
        Their derivatives by the propensity coefficients.
    influence : ndarray, shape (n, Q)
        Influence function of these.
    """

    tilt: Array
    measure: Array
    weights: Array
    weights_by_state: Array
    tilt_by_state: Array | None
    measure_by_state: Array | None
    influence: Array


def derivatives_of(sample: Sample, fit: WeightFit | None, target: Target) -> Derivatives:
    """Collect the weights of a fit; without one, the tilt of a target that needs none."""
    if fit is not None:
        return Derivatives(
            fit.tilt, fit.measure, fit.total, fit.by_state, fit.tilt_by_state, fit.measure_by_state, fit.influence
        )
    none = np.empty((sample.n, 0))
    tilt = plain_tilt(sample, target, sample.weights[:, None])[:, 0]
    return Derivatives(tilt, tilt, np.ones(sample.n), none, None, None, none)


def plain_tilt(sample: Sample, target: Target, weights: Array) -> Array:
    """Tilt of a target that needs no propensity score, over its mean under weights (n, m); shape (n, 1) or (n, m).

    That is everybody, the rows of one arm, or a target frame.
    """
    if sample.n_frame:
        tilt = 1 - sample.observed
    elif target.toward is not None:
        tilt = (sample.arm == target.toward).astype(float)
    else:
        return np.ones((sample.n, 1))
    total = weights[sample.n_frame :].sum(axis=0)
    mean = (tilt @ weights) / np.where(total > 0, total, 1.0)
    return tilt[:, None] / np.where(mean > 0, mean, 1.0)


def estimate_separately(
    sample: Sample, spec: Specification, fit: WeightFit | None, target: Target, scale: EffectScale = DIFFERENCE
) -> Estimate:
    """Train each arm's outcome model by itself and average, for every estimator but the joint one.

    Parameters
    ----------
    sample : Sample
        The data.
    spec : Specification
        The estimator.
    fit : WeightFit or None
        Fitted importance weights, None where the estimator uses none.
    target : Target
        The target population.
    scale : EffectScale
        How the effect is reported.

    Returns
    -------
    Estimate
        Point estimate and influence function.
    """
    q, family, at = training_columns(sample, spec), training_family(sample, spec), derivatives_of(sample, fit, target)
    training = at.weights if spec.weighted else sample.observed
    used = sample.weights * training
    fits = [fit_outcome(q[a], sample.y[a], used[a], family) for a in sample.slices]
    theta = np.stack([arm.gamma[:, 0] for arm in fits])
    failed = tuple(Reason(arm.reasons[0]) for arm in fits)
    eta = theta @ q.T
    fitted, slope = family.mean(eta), family.slope(eta)
    score, curvature, _ = family.score(sample.y, sample.own(eta))
    influence_theta = _influence_of_coefficients(sample, spec, at, training, score, curvature)
    model_means = sample.mean(at.tilt[:, None] * fitted.T)
    by_theta = (sample.weights * at.tilt / sample.total * slope) @ q
    influence_means = at.tilt[:, None] * (fitted.T - model_means) + np.einsum("ap,nap->na", by_theta, influence_theta)
    if at.tilt_by_state is not None:
        influence_means += (
            at.influence @ sample.mean((fitted.T - model_means)[:, :, None] * at.tilt_by_state[:, None]).T
        )
    means = model_means
    if spec.corrected:
        correction, influence = _correction(
            sample, at, q, sample.y - sample.own(fitted), sample.own(slope), influence_theta
        )
        means, influence_means = means + correction, influence_means + influence
    with np.errstate(invalid="ignore"):  # means without an effect on this scale are told by the caller
        influence_effects = influence_means @ scale.jacobian(means).T
    parts = [influence_effects, influence_theta.reshape(sample.n, -1), at.influence]
    gamma = fit.coefficients if fit is not None else np.empty(0)
    return Estimate(scale.params(means), theta, gamma, fitted, model_means, np.column_stack(parts), failed)


def _influence_of_coefficients(
    sample: Sample, spec: Specification, at: Derivatives, training: Array, score: Array, curvature: Array
) -> Array:
    """Influence function of the separately trained outcome coefficients, shape (n, K, p)."""
    q = training_columns(sample, spec)
    scores = sample.blocks((training * score)[:, None] * q)
    if spec.weighted and at.influence.shape[1]:
        by_state = sample.arm_products(score[:, None] * q, at.weights_by_state)
        scores += np.einsum("apq,nq->nap", by_state, at.influence)
    bread = sample.arm_products((training * curvature)[:, None] * q, q)
    return np.stack([np.linalg.solve(b, scores[:, a].T).T for a, b in enumerate(bread)], axis=1)


def _correction(
    sample: Sample, at: Derivatives, q: Array, residual: Array, slope: Array, influence_theta: Array
) -> tuple[Array, Array]:
    """Minus the estimated bias of each arm, shape (K,), and its influence function, shape (n, K)."""
    rows = sample.blocks((at.weights * residual)[:, None])[:, :, 0]
    correction = sample.mean(rows)
    by_theta = sample.arm_products((at.weights * slope)[:, None] * q, np.ones((sample.n, 1)))[:, :, 0]
    by_state = sample.arm_products(residual[:, None], at.weights_by_state)[:, 0]
    if at.measure_by_state is not None:
        by_state = by_state - np.outer(correction, sample.mean(at.measure_by_state))
    influence = rows - at.measure[:, None] * correction - np.einsum("ap,nap->na", by_theta, influence_theta)
    return correction, influence + at.influence @ by_state.T
