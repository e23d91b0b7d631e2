"""The estimators as one engine: a hypothesis class, importance weights, joint or separate arms, and a correction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from causalrisk.linalg import Array, weighted_least_squares
from causalrisk.propensity import PropensityFit
from causalrisk.sample import Sample


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
    gamma : ndarray, shape (q,)
        Propensity coefficients of the basis columns; empty without a propensity model.
    fitted : ndarray, shape (K, n)
        Predicted outcome of every row in every arm.
    model_means : ndarray, shape (K,)
        Averages of `fitted`.
    influence : ndarray, shape (n, 2 K - 1 + K p + q)
        Influence function of (params, theta, gamma).
    """

    params: Array
    theta: Array
    gamma: Array
    fitted: Array
    model_means: Array
    influence: Array

    @property
    def values(self) -> Array:
        """All estimates in the order of the columns of `influence`."""
        return np.concatenate([self.params, self.theta.ravel(), self.gamma])


def effect_map(n_arms: int) -> Array:
    """Matrix that turns arm means into (effects, arm means), shape (2 K - 1, K)."""
    effects = np.eye(n_arms)[1:] - np.eye(n_arms)[0]
    return np.vstack([effects, np.eye(n_arms)])


def training_columns(sample: Sample, spec: Specification) -> Array:
    """Basis columns of the hypothesis class, shape (n, p): those of the design, or the constant."""
    return np.ones((sample.n, 1)) if spec.constants else sample.outcome.columns


def estimate_separately(sample: Sample, spec: Specification, propensity: PropensityFit | None) -> Estimate:
    """Train each arm's outcome model by itself and average, for every estimator but the joint one.

    Parameters
    ----------
    sample : Sample
        The data.
    spec : Specification
        The estimator.
    propensity : PropensityFit or None
        Fitted propensity model, None where the estimator uses none.

    Returns
    -------
    Estimate
        Point estimate and influence function.
    """
    q = training_columns(sample, spec)
    inverse = propensity.weights if propensity is not None else np.ones(sample.n)
    training = inverse if spec.weighted else np.ones(sample.n)
    theta = np.stack([weighted_least_squares(q[a], sample.y[a], (sample.weights * training)[a]) for a in sample.slices])
    fitted = theta @ q.T
    residual = sample.y - fitted[sample.arm, np.arange(sample.n)]
    influence_theta = _influence_of_coefficients(sample, spec, propensity, q, training, residual)
    model_means = sample.mean(fitted.T)
    influence_means = fitted.T + np.einsum("p,nap->na", sample.mean(q), influence_theta)
    means = model_means
    if spec.corrected and propensity is not None:
        correction = sample.blocks((inverse * residual)[:, None])[:, :, 0]
        means = model_means + sample.mean(correction)
        slope = sample.arm_products(inverse[:, None] * q, np.ones((sample.n, 1)))[:, :, 0]
        by_gamma = sample.arm_products((propensity.slope * residual)[:, None], propensity.basis.columns)[:, 0]
        influence_means = influence_means + correction - np.einsum("ap,nap->na", slope, influence_theta)
        influence_means += propensity.influence @ by_gamma.T
    to_params = effect_map(sample.n_arms)
    gamma = propensity.gamma if propensity is not None else np.empty(0)
    parts = [(influence_means - means) @ to_params.T, influence_theta.reshape(sample.n, -1)]
    if propensity is not None:
        parts.append(propensity.influence)
    return Estimate(to_params @ means, theta, gamma, fitted, model_means, np.column_stack(parts))


def _influence_of_coefficients(
    sample: Sample, spec: Specification, propensity: PropensityFit | None, q: Array, training: Array, residual: Array
) -> Array:
    """Influence function of the separately trained outcome coefficients, shape (n, K, p)."""
    scores = sample.blocks((training * residual)[:, None] * q)
    if spec.weighted and propensity is not None:
        by_gamma = sample.arm_products((propensity.slope * residual)[:, None] * q, propensity.basis.columns)
        scores += np.einsum("apq,nq->nap", by_gamma, propensity.influence)
    bread = sample.arm_products(training[:, None] * q, q)
    return np.stack([np.linalg.solve(b, scores[:, a].T).T for a, b in enumerate(bread)], axis=1)
