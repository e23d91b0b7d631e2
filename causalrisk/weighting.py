"""Importance weights: how a target population and a propensity model weigh the rows.

A row of arm a has the importance weight w = h / e_a, h the tilt of the target. Everything here is divided by the mean
tilt, so that sums over the rows divided by N are averages over the target. With the tilt as t, weights are kept as the
*excess* w - t: for the whole population that is the odds (1 - e_a) / e_a, which keeps its digits where w is close to 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from causalrisk.ledger import Reason
from causalrisk.linalg import Array
from causalrisk.newton import Batch
from causalrisk.propensity import ClippedModel, PropensityModel
from causalrisk.targets import FrameTarget, Target


@dataclass(frozen=True)
class Weights:
    """Importance weights under m states and m weightings of the rows, divided by the mean tilt.

    Parameters
    ----------
    excess : ndarray, shape (n, m)
        Importance weight less the tilt.
    tilt : ndarray, shape (n, m) or (n, 1)
        How much a row counts in averages over the target.
    measure : ndarray, shape (n, m) or (n, 1)
        The row's part in what the importance weights were divided by; the tilt itself, but for a target frame.
    """

    excess: Array
    tilt: Array
    measure: Array

    @property
    def total(self) -> Array:
        """Importance weights, shape (n, m)."""
        return self.excess + self.tilt

    def scaled(self, factor: Array) -> Weights:
        """Return the weights times a factor of shape (n, m)."""
        tilt = self.tilt * factor
        return Weights(self.excess * factor, tilt, tilt if self.measure is self.tilt else self.measure * factor)

    def subset(self, columns: NDArray[np.bool_]) -> Weights:
        """Those of some of the weightings."""
        tilt = some_columns(self.tilt, columns)
        measure = tilt if self.measure is self.tilt else some_columns(self.measure, columns)
        return Weights(self.excess[:, columns], tilt, measure)


def some_columns(values: Array, columns: NDArray[np.bool_]) -> Array:
    """Columns of values of shape (n, m); values of shape (n, 1), which are those of every column, as they are."""
    return values if values.shape[1] == 1 else values[:, columns]


class Weighting:
    """A propensity model and a target, as functions of a state and of the weights of the rows.

    Parameters
    ----------
    model : PropensityModel
        The model of the arm.
    target : Target
        The target population.
    observed : ndarray, shape (n,)
        1.0 for the rows of the sample, 0.0 for those of a target frame.
    """

    def __init__(self, model: PropensityModel, target: Target, observed: Array) -> None:
        self.model, self.target, self.observed = model, target, observed
        self.membership = target.membership if isinstance(target, FrameTarget) else None

    @property
    def columns(self) -> Array:
        """Basis columns of the propensity design, shape (n, q)."""
        return self.model.columns

    @property
    def n_coefficients(self) -> int:
        """Number of coefficients of all models, Q."""
        return self.model.n_coefficients + (0 if self.membership is None else self.membership.n_coefficients)

    @property
    def separable(self) -> bool:
        """Whether shifts of the state multiply the terms of the excess."""
        return self.target.separable and self.model.log_linear

    def _both(self, weights: Array, fit: Callable[[PropensityModel, Array, slice], Batch]) -> Batch:
        """Fit the model on the sample and the membership model on all rows, and stack the states."""
        cut = self.model.n_state
        own = fit(self.model, weights * self.observed[:, None], slice(0, cut if self.membership else None))
        if self.membership is None:
            return own
        other = fit(self.membership, weights, slice(cut, None))
        reasons = np.where(own.reasons == Reason.OK, other.reasons, own.reasons)
        return Batch(np.concatenate([own.gamma, other.gamma]), reasons, max(own.iterations, other.iterations))

    def fit(self, weights: Array) -> Batch:
        """Fit under weights of shape (n,)."""
        return self._both(weights[:, None], lambda model, s, part: model.fit(s))

    def refit(self, weights: Array, start: Array) -> Batch:
        """Refit under weights of shape (n, m) from a state of shape (S,) or (S, m)."""
        return self._both(weights, lambda model, s, part: model.refit(s, start[part]))

    def influence(self, state: Array, weights: Array) -> Array:
        """Influence function of all coefficients, relative to the total weight of the sample, shape (n, Q)."""
        own = self.model.influence(state[: self.model.n_state], weights * self.observed)
        if self.membership is None:
            return own
        scale = (weights * self.observed).sum() / weights.sum()
        other = self.membership.influence(state[self.model.n_state :], weights) * scale
        return np.concatenate([own * self.observed[:, None], other], axis=1)

    def predictors(self, state: Array) -> Array:
        """Linear predictors, shape (L, n, m), under states of shape (S, m)."""
        if self.membership is None:
            return self.model.predictors(state)
        cut = self.model.n_state
        return np.concatenate([self.model.predictors(state[:cut]), self.membership.predictors(state[cut:])])

    def weights(self, eta: Array, weights: Array) -> Weights:
        """Weigh the rows under predictors (L, n, m) and weightings of the rows (n, m) or (n, 1)."""
        excess, tilt, measure = self.target.parts(self.model, eta)
        return self.divided(excess, tilt, measure, weights)

    def divided(self, excess: Array, tilt: Array, measure: Array, weights: Array) -> Weights:
        """Divide excess, tilt and measure by the means of tilt and measure under the weights."""
        if self.target.separable and self.target.toward is None:
            return Weights(excess, tilt, measure)
        total = _positive(self.observed @ weights)
        scale = _positive((weights * measure).sum(axis=0) / total)
        if measure is tilt:
            tilt = tilt / scale
            return Weights(excess / scale, tilt, tilt)
        mean_tilt = _positive((weights * tilt).sum(axis=0) / total)
        shifted = tilt / mean_tilt
        return Weights((excess + tilt) / scale - shifted, shifted, measure / scale)

    def odds(self, eta: Array) -> Array:
        """Terms of the undivided excess of a separable weighting, shape (T, n, m)."""
        return self.model.odds(eta, self.target.toward)

    def terms(self, eta: Array, weights: Array) -> tuple[Array, Weights]:
        """Terms of the excess of a separable weighting, shape (T, n, m), divided, and the importance weights."""
        terms, (tilt, scale) = self.odds(eta), self._fixed_tilt(weights)
        terms = terms if scale is None else terms / scale
        return terms, Weights(terms.sum(axis=0), tilt, tilt)

    def _fixed_tilt(self, weights: Array) -> tuple[Array, Array | None]:
        """Tilt of a separable target, divided by its mean, and that mean; None where it is one."""
        toward = self.target.toward
        if toward is None:
            return np.ones((len(self.columns), 1)), None
        tilt = (self.model.arm == toward)[:, None].astype(float)
        scale = _positive((weights * tilt).sum(axis=0) / _positive(self.observed @ weights))
        return tilt / scale, scale

    def slopes(self, eta: Array, weights: Array) -> tuple[Array, Array | None]:
        """Return derivatives of importance weights by each predictor that has coefficients, and of the mean measure.

        Returns
        -------
        weight : ndarray, shape (L, n, m)
            Derivative of the importance weight, divided by the mean measure.
        log_measure : ndarray, shape (L q, m), or None
            Derivative of the logarithm of the mean measure by the coefficients.
        """
        slope, by_measure = self.target.slopes(self.model, eta)
        if self.target.separable and self.target.toward is None:
            return slope, None
        _, _, measure = self.target.parts(self.model, eta)
        scale = _positive((weights * measure).sum(axis=0) / _positive(self.observed @ weights))
        if by_measure is None:
            return slope / scale, None
        mass = weights * by_measure / (weights * measure).sum(axis=0)
        return slope / scale, (self.columns.T @ mass).reshape(-1, eta.shape[2])


def _positive(values: Array) -> Array:
    """Return the values, 1 where they are zero: a weighting without rows, which is recorded as an empty arm."""
    return np.where(values > 0, values, 1.0)


@dataclass(frozen=True)
class WeightFit:
    """A fitted weighting; rows as in the sample it was fitted to.

    Parameters
    ----------
    weighting : Weighting
        Model and target.
    state : ndarray, shape (S,)
        The fitted state; for models with coefficients these.
    eta : ndarray, shape (L, n)
        Linear predictors.
    excess, tilt, measure : ndarray, shape (n,)
        As in `Weights`.
    by_state : ndarray, shape (n, Q)
        Derivative of the importance weights by the coefficients.
    tilt_by_state, measure_by_state : ndarray, shape (n, Q), or None
        Derivatives of tilt and measure; None where they do not depend on them.
    influence : ndarray, shape (n, Q)
        Influence function of the coefficients.
    converged : bool
        Whether the iterations met their tolerance.
    iterations : int
        Newton iterations taken.
    """

    weighting: Weighting
    state: Array
    eta: Array
    excess: Array
    tilt: Array
    measure: Array
    by_state: Array
    tilt_by_state: Array | None
    measure_by_state: Array | None
    influence: Array
    converged: bool
    iterations: int

    @property
    def total(self) -> Array:
        """Importance weights divided by the mean tilt, shape (n,)."""
        return self.excess + self.tilt

    @property
    def coefficients(self) -> Array:
        """The state where it consists of coefficients, shape (Q,)."""
        return self.state[: self.weighting.n_coefficients]

    @property
    def clipped(self) -> NDArray[np.bool_]:
        """Rows whose propensity score was clipped, shape (n,)."""
        model = self.weighting.model
        if not isinstance(model, ClippedModel):
            return np.zeros(len(self.excess), dtype=bool)
        return model.clipped(self.eta[: model.n_predictors, :, None])[1][:, 0]

    @property
    def undivided(self) -> Array:
        """Importance weights h / e, not divided by the mean tilt, shape (n,)."""
        excess, tilt, _ = self.weighting.target.parts(self.weighting.model, self.eta[..., None])
        return (excess + tilt)[:, 0]

    @property
    def probabilities(self) -> Array:
        """Probability of each arm, shape (K, n)."""
        model = self.weighting.model
        return model.probabilities(self.eta[: model.n_predictors, :, None])[:, :, 0]


def fit_weighting(weighting: Weighting, weights: Array) -> WeightFit:
    """Fit a weighting to a sample.

    Parameters
    ----------
    weighting : Weighting
        Model and target.
    weights : ndarray, shape (n,)
        Observation weights.

    Returns
    -------
    WeightFit
        The fit; `converged` is False when the iterations did not settle, as under separation.
    """
    batch = weighting.fit(weights)
    state = batch.gamma[:, 0]
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        made = weight_at(weighting, state, weights)
        influence = weighting.influence(state, weights)
    converged = bool(batch.reasons[0] == Reason.OK)
    return replace(made, influence=influence, converged=converged, iterations=batch.iterations)


def weight_at(weighting: Weighting, state: Array, weights: Array) -> WeightFit:
    """Return importance weights and their derivatives at a state, without what belongs to the fitting of it."""
    eta, column = weighting.predictors(state[:, None]), weights[:, None]
    at = weighting.weights(eta, column)
    slope, log_measure = weighting.slopes(eta, column)
    columns = weighting.columns
    by_state, by_measure = _by_coefficients(slope, columns), None
    if log_measure is not None:
        by_state = by_state - at.total * log_measure.T
        _, measure_slope = weighting.target.slopes(weighting.model, eta)
        _, _, measure = weighting.target.parts(weighting.model, eta)
        scale = np.divide(at.measure, measure, out=np.zeros_like(measure), where=measure > 0)
        by_measure = _by_coefficients(measure_slope * scale, columns) - at.measure * log_measure.T
    same = at.measure is at.tilt
    tilt = _column(at.tilt)
    return WeightFit(
        weighting, state, eta[:, :, 0], at.excess[:, 0], tilt, tilt if same else _column(at.measure), by_state,
        by_measure if same else None, by_measure, np.empty((len(columns), weighting.n_coefficients)), True, 0,
    )  # fmt: skip


def _by_coefficients(slopes: Array, columns: Array) -> Array:
    """Return derivatives by the coefficients, shape (n, L q), from those by the predictors, shape (L, n, 1)."""
    return (slopes * columns).transpose(1, 0, 2).reshape(len(columns), -1)


def _column(values: Array) -> Array:
    return np.ascontiguousarray(values[:, 0])
