"""What the outcome models of the arms are trained on, one by one, and the rows under the trained models.

Flows in: a sample, importance weights, a `Specification`. Flows out: the training data of each arm (`ArmTraining`) and,
given the coefficients, predictions and scores of the rows (`TrainedRows`), with the influence function of the
coefficients. theta_a solves sum_i s_i 1{A_i = a} w_i score_i(theta_a) = 0, with w_i = 1 for estimators that train
unweighted.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from causalrisk.estimators.arm_means import ArmRows
from causalrisk.estimators.effect_scales import EffectScale
from causalrisk.estimators.outcome import ArmTraining
from causalrisk.estimators.sample import Sample, part_of, shifted
from causalrisk.estimators.specification import Specification
from causalrisk.numerics.families import OutcomeFamily, outcome_family
from causalrisk.numerics.linalg import Array, solve_or_nan, weighted_gram, weighted_rows
from causalrisk.propensity.weights import RowWeights

FAR = 100  # standard deviations from zero: nearer, the level costs no digits
LEVEL_TOLERANCE = 1e-9  # rounding of a constant that is a combination of the columns
LINEAR = outcome_family("gaussian", None)


def training_columns(sample: Sample, spec: Specification) -> Array:
    """Basis columns of the hypothesis class, shape (n, p): those of the design, or the constant, in each period."""
    return sample.in_periods(_plain_columns(sample, spec))


def mean_columns(sample: Sample, spec: Specification) -> Array:
    """Return the same where the means of the arms are taken, shape (n, p)."""
    return sample.at_means(_plain_columns(sample, spec))


def _plain_columns(sample: Sample, spec: Specification) -> Array:
    return np.ones((sample.n, 1)) if spec.constants else sample.X.columns


def trained_family(family: OutcomeFamily, spec: Specification, *, offsets: bool) -> OutcomeFamily:
    """Family of the outcome models; without offsets the best constant is the weighted mean under every one."""
    return LINEAR if spec.constants and not offsets else family


def training_family(sample: Sample, spec: Specification) -> OutcomeFamily:
    """Family of the outcome models of a sample."""
    return trained_family(sample.family, spec, offsets=sample.offset is not None)


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


def training_arms(sample: Sample, spec: Specification, weights: RowWeights) -> list[ArmTraining]:
    """Return what the outcome model of each arm is trained on."""
    q, family = training_columns(sample, spec), training_family(sample, spec)
    s = sample.s * training_weights(sample, spec, weights)
    return [
        ArmTraining(columns=q[a], y=sample.y[a], weights=s[a], family=family, offset=part_of(sample.offset, a))
        for a in sample.slices
    ]


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

    @property
    def training(self) -> Array:
        """Weights of the training of the outcome models beside the observation weights, shape (n,)."""
        return training_weights(self.sample, self.spec, self.weights)

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
        inverse = solve_or_nan(sums.bread[a], np.eye(sums.bread.shape[1]))
        out[:, a] = 0.0 if sums.by_gamma is None else rows.weights.influence @ (inverse @ sums.by_gamma[a]).T
        out[members, a] += weighted_rows(rows.q[members], pull[members], inverse.T)
