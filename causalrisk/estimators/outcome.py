"""Outcome models of the arms: what they are trained on, their fits, and rows under the trained models.

An outcome model is a weighted generalised linear model of one arm, for one column of weights or many at once. Flows in:
a sample, importance weights, a `Specification`. Flows out: the model of each arm (`ArmModel`) and, given the
coefficients, predictions and scores of the rows (`TrainedRows`), with the influence function of the coefficients.
theta_a solves sum_i s_i 1{A_i = a} w_i score_i(theta_a) = 0, with w_i = 1 for estimators that train unweighted.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from causalrisk.design import Design
from causalrisk.errors import TEXT, Failure, SeparationError
from causalrisk.estimators.sample import Sample, part_of, shifted
from causalrisk.estimators.specification import ArmRows, EffectScale, Specification
from causalrisk.numerics.families import OutcomeFamily, outcome_family
from causalrisk.numerics.linalg import (
    Array,
    gram_matrices,
    least_squares_factor,
    pairwise_columns,
    pseudo_inverse,
    solve_definite,
    solve_or_nan,
    weighted_gram,
    weighted_rows,
)
from causalrisk.numerics.newton import Curvature, LikelihoodSums, WeightedRows
from causalrisk.numerics.optimize import separating_direction
from causalrisk.propensity.weights import RowWeights

OUTCOME_FAILURES = {
    Failure.SEPARATION: Failure.OUTCOME_SEPARATION,
    Failure.NOT_CONVERGED: Failure.OUTCOME_NOT_CONVERGED,
    Failure.SINGULAR_PROPENSITY: Failure.SINGULAR_OUTCOME,
}
BOUNDED = ("binomial", "poisson", "negativebinomial", "tweedie")  # means reach a bound at infinite predictors only
SHOWN = 3  # terms that a message names
FAR = 100  # standard deviations from zero: nearer, the level costs no digits
LEVEL_TOLERANCE = 1e-9  # rounding of a constant that is a combination of the columns
LINEAR = outcome_family("gaussian", None)


class OutcomeLikelihood:
    """Quasi-likelihood of an outcome family.

    Parameters
    ----------
    family : OutcomeFamily
        Family and link.
    y : ndarray, shape (n,)
        Outcome.
    offset : ndarray, shape (n,), optional
        Known part of the linear predictor.
    """

    n_predictors = 1

    def __init__(self, family: OutcomeFamily, y: Array, offset: Array | None = None) -> None:
        self.family, self.y, self.offset = family, y[:, None], offset
        self.bounded = family.name == "binomial"

    def derivatives(self, eta: Array) -> tuple[Array, Curvature]:
        """As in `newton.Likelihood`."""
        score, information, _ = self.family.score(self.y, shifted(eta[0], self.offset, axis=-2))
        return score[None], {(0, 0): information}

    def value(self, eta: Array) -> Array:
        """As in `newton.Likelihood`."""
        return -self.family.loss(self.y, shifted(eta[0], self.offset, axis=-2))


@dataclass(frozen=True)
class ArmModel:
    """The outcome model of one arm: all its rows, or those of a block.

    Parameters
    ----------
    columns : ndarray, shape (n, p)
        Basis columns.
    y : ndarray, shape (n,)
        Outcome.
    family : OutcomeFamily
        Family and link.
    offset : ndarray, shape (n,), optional
        Known part of the linear predictor.
    """

    columns: Array
    y: Array
    family: OutcomeFamily
    offset: Array | None

    @cached_property
    def likelihood(self) -> OutcomeLikelihood:
        """The likelihood of the rows, without weights."""
        return OutcomeLikelihood(self.family, self.y, self.offset)

    @cached_property
    def pairs(self) -> Array:
        """Products of pairs of the columns, shape (n, p (p + 1) / 2)."""
        return pairwise_columns(self.columns)

    def start(self, weights: Array) -> Array:
        """`least_squares_factor` of the model, if it is linear, or else of the start of its iterations."""
        known = self.family.linear or not len(self.y)  # a block may have no rows of the arm
        y = self.y if known else self.family.start(self.y)
        return least_squares_factor(self.columns, y if self.offset is None else y - self.offset, weights)

    def rows(self, weights: Array) -> WeightedRows:
        """Return the likelihood of the rows under weights of shape (n,)."""
        return WeightedRows(self.columns, None, self.likelihood, weights[:, None], halving=True)

    def batch(self, weights: Array) -> WeightedRows:
        """Return the likelihoods under many columns of training weights, shape (n, m)."""
        return WeightedRows(self.columns, self.pairs, self.likelihood, weights)

    def equations(self, weights: Array, theta: Array) -> LikelihoodSums:
        """Sum over the rows what the coefficients of a linear model, less the full-sample ones, (p,), solve."""
        residual = self.y - self.family.mean(shifted(self.columns @ theta, self.offset))
        gram = gram_matrices(self.pairs, weights, len(theta))
        return LikelihoodSums(gram, (self.columns * residual[:, None]).T @ weights)


def solved_change(equations: LikelihoodSums, least_norm: bool = False) -> tuple[Array, NDArray[np.int8]]:
    """Solve the equations of linear models: change of the coefficients, shape (p, m), maybe of least norm; failures."""
    if least_norm:
        change = np.einsum("mij,jm->im", pseudo_inverse(equations.hessian), equations.gradient)
        return change, np.zeros(change.shape[1], dtype=np.int8)
    change, singular = solve_definite(equations.hessian, equations.gradient)
    return change, np.where(singular, Failure.SINGULAR_OUTCOME, Failure.OK).astype(np.int8)


def outcome_failures(failures: NDArray[np.int8]) -> NDArray[np.int8]:
    """Turn the failures of Newton's method into those of an outcome model."""
    table = np.array([OUTCOME_FAILURES.get(failure, failure) for failure in TEXT], dtype=np.int8)
    return table[failures]


def _separating_terms(design: Design, sample: Sample, arm: int) -> list[str]:
    """Names of the columns that tell an arm's outcomes at the bound of their family from the others perfectly."""
    family, rows = sample.family, sample.slices[arm]
    own = sample.with_outcome[rows] > 0
    y, columns = sample.y[rows][own], sample.X.columns[rows][own]
    low, high = y == family.low, y == family.high
    if family.name not in BOUNDED or not (low | high).any():
        return []
    inside = columns[~(low | high)]
    signed = np.vstack([-columns[low], columns[high], inside, -inside])
    direction = separating_direction(lambda function: [function(signed)], columns.shape[1])
    if direction is None:
        return []
    strength = np.abs(sample.X.coefficients(direction)) * design.X[design.arm == arm].std(axis=0)
    order = [j for j in np.argsort(-strength) if strength[j] > 1e-6 * strength.max()]
    return [design.exog_names[j] for j in order[:SHOWN]]


def gaussian_instead(design: Design) -> str:
    """Name a family that has a fit in any case."""
    return '`exposure=None, family="gaussian"`' if design.offset_kind == "exposure" else '`family="gaussian"`'


def check_bound(design: Design, family: OutcomeFamily, arm: int) -> None:
    """Raise a SeparationError where all outcomes of an arm are at the bound of their family."""
    low, high = design.outcome_limits[arm]
    if low == high and low in (family.low, family.high):
        raise SeparationError(
            f"outcome {design.endog_name!r} is {low:g} in all rows of arm {design.labels[arm]!r}, so its outcome model "
            f"({family.label}) has no finite fit.\nUse {gaussian_instead(design)}, or merge that arm."
        )


def check_outcome_fits(design: Design, family: OutcomeFamily, failed: tuple[int, ...], sample: Sample | None) -> str:
    """Raise a SeparationError where an arm's outcome model has no finite fit.

    Parameters
    ----------
    failed : tuple of int
        How the fit of each arm ended, a `Failure`.
    sample : Sample or None
        The same data as numbers, where they are in memory.
    """
    for a, reason in enumerate(failed):
        if reason == Failure.OK:
            continue
        check_bound(design, family, a)
        found = [] if sample is None else _separating_terms(design, sample, a)
        if found or (reason == Failure.OUTCOME_SEPARATION and sample is not None):
            terms = ", ".join(map(repr, found)) or "a combination of the terms"
            raise SeparationError(
                f"the outcome model ({family.label}) predicts {design.endog_name!r} perfectly in rows of arm "
                f"{design.labels[a]!r}: {terms} separate{'s' if len(found) == 1 else ''} its outcomes, so it has no "
                f"finite fit.\nSimplify the outcome formula, or use {gaussian_instead(design)}."
            )
    return ", ".join(label for label, reason in zip(design.labels, failed, strict=True) if reason != Failure.OK)


# --- the rows of a sample, in training and under the trained models --------------------------------------------------


def training_columns(sample: Sample, spec: Specification) -> Array:
    """Basis columns of the hypothesis class, shape (n, p): those of the design, or the constant, in each period."""
    columns = np.ones((sample.n, 1)) if spec.constants else sample.X.columns
    return columns if sample.late is None else sample.in_periods(columns)


def mean_columns(sample: Sample, spec: Specification) -> Array:
    """Return the same where the means of the arms are taken, shape (n, p)."""
    return sample.at_means(np.ones((sample.n, 1)) if spec.constants else sample.X.columns)


def training_family(sample: Sample, spec: Specification) -> OutcomeFamily:
    """Family of the outcome models; without offsets the best constant is the weighted mean under every one."""
    return LINEAR if spec.constants and sample.offset is None else sample.family


@dataclass(frozen=True)
class Level:
    """Where the outcome lies: a height that linear models do not see, so that digits are kept for what varies.

    Parameters
    ----------
    height : float
        Mean outcome, in its units; 0 where the models have no constant or are not linear.
    direction : ndarray, shape (p,)
        Coefficients of the columns that give the constant one.
    """

    height: float
    direction: Array

    def params(self, scale: EffectScale, means: Array) -> Array:
        """Effects and arm means, shape (2 K - 1, ...), of arm means (K, ...) that are measured from the height."""
        params = scale.params(means + self.height)
        if scale.additive:  # the height cancels
            effects = len(means) - scale.per_arm
            params[:effects] = scale.params(means)[:effects]
        return params


def outcome_level(sample: Sample, spec: Specification) -> Level:
    """Return the level of the outcome that the models of an estimator can leave out."""
    q = training_columns(sample, spec)
    if spec.given or not training_family(sample, spec).linear or sample.late is not None:  # changes have no level
        return Level(0.0, np.zeros(q.shape[1]))
    direction = constant_direction(q)
    if direction is None:
        return Level(0.0, np.zeros(q.shape[1]))
    y = sample.y if sample.offset is None else sample.y - sample.offset
    mean = float(np.average(y, weights=sample.s * sample.with_outcome))
    spread = float(np.sqrt(np.average((y - mean) ** 2, weights=sample.s * sample.with_outcome)))
    return level_at(mean, spread, direction)


def constant_direction(columns: Array) -> Array | None:
    """Coefficients of the columns, shape (n, p), that give the constant one, shape (p,); None where there are none."""
    steady = np.flatnonzero((columns[0] == columns).all(axis=0) & (columns[0] != 0))
    if steady.size:  # exactly, so that a high level moves no other coefficient
        return np.asarray(np.eye(columns.shape[1])[steady[0]] / columns[0, steady[0]])
    found = np.linalg.lstsq(columns.T @ columns, columns.sum(axis=0), rcond=None)[0]
    return None if np.abs(columns @ found - 1).max() > LEVEL_TOLERANCE else found


def level_at(mean: float, spread: float, direction: Array) -> Level:
    """Return the level of outcomes of that mean and standard deviation, for linear models with a constant."""
    return Level(mean if abs(mean) > FAR * spread else 0.0, direction)


def training_weights(sample: Sample, spec: Specification, weights: RowWeights) -> Array:
    """Weights of the training of the outcome models beside the observation weights, shape (n,)."""
    return weights.w if spec.weighted else sample.with_outcome


def arm_models(sample: Sample, spec: Specification) -> list[ArmModel]:
    """Return the outcome model of each arm."""
    q, family = training_columns(sample, spec), training_family(sample, spec)
    return [ArmModel(q[a], sample.y[a], family, part_of(sample.offset, a)) for a in sample.slices]


def predictions(sample: Sample, spec: Specification, theta: Array) -> Array:
    """Predicted outcomes of rows in every arm where the means are taken, shape (K, n), under theta, shape (K, p)."""
    eta = shifted(theta @ mean_columns(sample, spec).T, sample.mean_offset)
    return training_family(sample, spec).mean(eta)


@dataclass(frozen=True)
class TrainedRows:
    """Rows under trained outcome models.

    Parameters
    ----------
    sample : Sample
        The rows, outcomes measured from the level; all there are, or a block.
    spec : Specification
        The estimator.
    weights : RowWeights
        Their importance weights.
    q, at_means : ndarray, shape (n, p)
        Columns of the outcome models as they are trained, and where the means are taken.
    theta : ndarray, shape (K, p)
        Outcome coefficients.
    family : OutcomeFamily
        Family of the outcome models.
    eta, predicted : ndarray, shape (K, n)
        Linear predictors of the models of each arm where the means are taken, and their predictions.
    score, curvature : ndarray, shape (n,)
        Score of each row in the model of its own arm, and minus its derivative.
    training : ndarray, shape (n,)
        Weights of the training of the outcome models beside the observation weights.
    """

    sample: Sample
    spec: Specification
    weights: RowWeights
    q: Array
    at_means: Array
    theta: Array
    family: OutcomeFamily
    eta: Array
    predicted: Array
    score: Array
    curvature: Array
    training: Array

    def projected(self, g: Array) -> list[ArmRows]:
        """Return the rows as those whose mean in each arm is projected on columns g, shape (n, k)."""
        return [
            ArmRows(
                sample=self.sample,
                weights=self.weights,
                g=g,
                q=self.at_means,
                own=self.q,
                arm=arm,
                family=self.family,
                eta=self.eta[arm],
                predicted=self.predicted[arm],
                fitted=None if self.at_means is self.q else self.q @ self.theta[arm],  # models of changes are linear
            )
            for arm in range(self.sample.n_arms)
        ]

    @cached_property
    def arms(self) -> list[ArmRows]:
        """The rows as those whose mean in each arm is taken."""
        return self.projected(np.ones((self.sample.n, 1)))


def trained_rows(sample: Sample, spec: Specification, weights: RowWeights, theta: Array) -> TrainedRows:
    """Evaluate trained outcome models on rows."""
    q, family = training_columns(sample, spec), training_family(sample, spec)
    own, columns = theta @ q.T, q if sample.late is None else mean_columns(sample, spec)
    eta = shifted(own if columns is q else theta @ columns.T, sample.mean_offset)
    score, curvature, _ = family.score(sample.y, shifted(sample.own(own), sample.offset))
    return TrainedRows(
        sample=sample,
        spec=spec,
        weights=weights,
        q=q,
        at_means=columns,
        theta=theta,
        family=family,
        eta=eta,
        predicted=family.mean(eta),
        score=score,
        curvature=curvature,
        training=training_weights(sample, spec, weights),
    )


@dataclass(frozen=True)
class ThetaSums:
    """Sums over rows that the influence function of the outcome coefficients is made of; those of blocks add up.

    Parameters
    ----------
    bread : ndarray, shape (K, p, p)
        Mean of minus the derivatives of the scores.
    by_gamma : ndarray, shape (K, p, Q), or None
        Mean of the derivatives by the propensity coefficients, where these matter.
    """

    bread: Array
    by_gamma: Array | None


def theta_sums(rows: TrainedRows) -> ThetaSums:
    """Sum the derivatives of the scores over rows."""
    sample, weights = rows.sample, rows.weights
    share, by_gamma = sample.s / sample.total, None
    curved, pull = share * rows.training * rows.curvature, share * rows.score
    bread = np.stack([weighted_gram(rows.q[a], curved[a]) for a in sample.slices])
    if rows.spec.weighted and weights.size:
        by_gamma = np.stack([weighted_gram(rows.q[a], pull[a], weights.w_by_gamma[a]) for a in sample.slices])
    return ThetaSums(bread, by_gamma)


def influence_of_theta(rows: TrainedRows, sums: ThetaSums, out: Array) -> None:
    """Write the influence function of the separately trained coefficients, (n, K, p): bread^-1 times the scores.

    It is zero where the outcome models are given.
    """
    if rows.spec.given:
        out[:] = 0.0
        return
    pull = rows.training * rows.score
    for a, members in enumerate(rows.sample.slices):
        bread = sums.bread[a]
        least_norm = rows.spec.of_controls and a > 0
        inverse = pseudo_inverse(bread) if least_norm else solve_or_nan(bread, np.eye(len(bread)))
        out[:, a] = 0.0 if sums.by_gamma is None else rows.weights.influence @ (inverse @ sums.by_gamma[a]).T
        out[members, a] += weighted_rows(rows.q[members], pull[members], inverse.T)
