"""Importance weights of the rows under a target population and a propensity model, and how they depend on its gamma.

Flows in: a propensity model, a target, multiplicities s of the rows. Flows out: w = h / e_a for a row of arm a, h the
tilt of the target, with its derivatives by the propensity coefficients gamma.

Everything is divided by the mean tilt, so that sums of s times it over N are averages over the target. With the tilt as
t, weights are kept as the *excess* w - t: for the whole population that is the odds (1 - e_a) / e_a, which keeps its
digits where w is close to 1. The *measure* is the divisor's summand: t itself, but for a target frame, whose rows
have no weight, the density ratio of the rows of the sample.

Where outcomes are missing, the weights have one more factor, 1 / (probability that the outcome is observed), and are
zero in the rows without an outcome; tilt and measure, which are of all rows, have none of it. Its model is a logit with
columns of its own, and its coefficients are the last of gamma.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from causalrisk.design.design import Rowless, rows_not_kept
from causalrisk.errors import Failure
from causalrisk.numerics.blocks import Rows, add_up, taken
from causalrisk.numerics.linalg import Array, row_blocks, weighted_rows
from causalrisk.numerics.newton import NewtonFits
from causalrisk.propensity.models import ClippedModel, LikelihoodModel, PropensityModel, likelihood_of
from causalrisk.propensity.targets import FrameTarget, Target


@dataclass(frozen=True)
class ImportanceWeights:
    """Importance weights under m gammas and m multiplicities of the rows, divided by the mean tilt.

    Parameters
    ----------
    excess : ndarray, shape (n, m)
        Importance weight w less the tilt.
    tilt : ndarray, shape (n, m) or (n, 1)
        Weight of a row in averages over the target.
    measure : ndarray, shape (n, m) or (n, 1)
        The row's summand in the divisor of the importance weights; the tilt itself, but for a target frame.
    """

    excess: Array
    tilt: Array
    measure: Array

    @property
    def w(self) -> Array:
        """Importance weights, shape (n, m)."""
        return self.excess + self.tilt

    def subset(self, resamples: NDArray[np.bool_]) -> ImportanceWeights:
        """Return the weights of some of the resamples."""
        tilt = some_columns(self.tilt, resamples)
        measure = tilt if self.measure is self.tilt else some_columns(self.measure, resamples)
        return ImportanceWeights(self.excess[:, resamples], tilt, measure)


def some_columns(values: Array, columns: NDArray[np.bool_]) -> Array:
    """Take columns of values of shape (n, m); values of shape (n, 1), shared by all columns, stay as they are."""
    return values if values.shape[1] == 1 else values[:, columns]


@dataclass(frozen=True)
class WeightSlopes:
    """Derivatives of importance weights under m gammas, by each predictor that has coefficients.

    Parameters
    ----------
    w : ndarray, shape (L, n, m)
        Slopes of the importance weight, divided by the mean measure.
    measure : ndarray, shape (L, n, m), or None
        Slopes of the measure, divided by its mean; None where it does not depend on gamma.
    log_mean : ndarray, shape (L q, m), or None
        Derivatives of the logarithm of the mean measure by the coefficients.
    """

    w: Array
    measure: Array | None
    log_mean: Array | None

    def part(self, rows: slice) -> WeightSlopes:
        """Return the derivatives of some of the rows."""
        return WeightSlopes(self.w[:, rows], None if self.measure is None else self.measure[:, rows], self.log_mean)

    def of_w(self, model: WeightModel, w: Array, factor: Array) -> Array:
        """Sum over the gammas of a factor (n, m) times the derivative of w by the coefficients, shape (n, Q)."""
        return self._summed(self.w, model, w, factor)

    def of_measure(self, model: WeightModel, measure: Array, factor: Array) -> Array:
        """Sum over the gammas of a factor times the derivative of the measure, (n, Q); zero where it is fixed."""
        if self.measure is None:
            return np.zeros((len(measure), model.n_coefficients))
        return self._summed(self.measure, model, measure, factor)

    def _summed(self, slope: Array, model: WeightModel, value: Array, factor: Array) -> Array:
        total = _by_coefficients(np.einsum("lnm,nm->ln", slope, factor)[..., None], model.columns, model.beside)
        return total if self.log_mean is None else total - (factor * value) @ self.log_mean.T


@dataclass(frozen=True)
class RowWeights(ABC):
    """Importance weights of rows, divided by the mean tilt; arrays of several numbers a row are made when asked for.

    Parameters
    ----------
    excess, tilt, measure : ndarray, shape (n,)
        As in `ImportanceWeights`.
    columns : ndarray, shape (n, q)
        Basis columns of the propensity design.
    inverse : tuple of ndarray, shape (q, Q)
        Inverse information, for each predictor: times score and basis columns it is the influence function of the
        coefficients.
    beside : ndarray, shape (n, r), or None
        Basis columns of the observation model, whose predictor is the last; None where no outcomes are missing.
    """

    excess: Array
    tilt: Array
    measure: Array
    columns: Array
    inverse: tuple[Array, ...]
    beside: Array | None

    @property
    @abstractmethod
    def slopes(self) -> WeightSlopes:
        """Derivatives of the importance weights, of shape (L, n, 1)."""

    @property
    @abstractmethod
    def score(self) -> Array:
        """Score of each row in each predictor, shape (L, n)."""

    @property
    def size(self) -> int:
        """Number of propensity coefficients that weights depend on, Q."""
        return self.inverse[0].shape[1] if self.inverse else 0

    def part(self, rows: slice) -> RowWeights:
        """Return the weights of some of the rows."""
        arrays = self.excess, self.tilt, self.measure, self.columns, self.inverse, self.beside
        kept = KeptWeights(*arrays, self.slopes.part(rows), self.score[:, rows])
        return taken(kept, rows, "excess", "tilt", "measure", "columns", "beside")

    @cached_property
    def w_by_gamma(self) -> Array:
        """Derivative of the importance weights by the propensity coefficients, shape (n, Q)."""
        return self._by_gamma(self.slopes.w, self.w)

    @cached_property
    def measure_by_gamma(self) -> Array | None:
        """Derivative of the measure by the propensity coefficients, shape (n, Q); None where it is fixed."""
        slopes = self.slopes
        return None if slopes.measure is None else self._by_gamma(slopes.measure, self.measure)

    @property
    def tilt_by_gamma(self) -> Array | None:
        """Derivative of the tilt by the propensity coefficients, shape (n, Q); None where it is fixed."""
        return self.measure_by_gamma if self.measure is self.tilt else None

    def _by_gamma(self, slope: Array, value: Array) -> Array:
        total, log_mean = _by_coefficients(slope, self.columns, self.beside), self.slopes.log_mean
        return total if log_mean is None else total - value[:, None] @ log_mean.T

    @cached_property
    def influence(self) -> Array:
        """Influence function of the propensity coefficients, shape (n, Q)."""
        found = np.zeros((len(self.tilt), self.size))
        of_predictors = predictor_columns(self.columns, self.beside, len(self.inverse))
        for columns, factor, matrix in zip(of_predictors, self.score, self.inverse, strict=True):
            found += weighted_rows(columns, factor, matrix)
        return found

    @property
    def w(self) -> Array:
        """Importance weights, shape (n,)."""
        return self.excess + self.tilt

    @property
    def coefficients(self) -> Array:
        """The propensity coefficients, shape (Q,)."""
        return np.empty(0)

    def as_resample(self) -> ImportanceWeights:
        """Return the weights of the full sample as a single resample's, shape (n, 1)."""
        tilt = self.tilt[:, None]
        measure = tilt if self.measure is self.tilt else self.measure[:, None]
        return ImportanceWeights(self.excess[:, None], tilt, measure)


@dataclass(frozen=True)
class KeptWeights(RowWeights):
    """Importance weights whose derivatives and score are kept.

    Parameters
    ----------
    excess, tilt, measure, columns, inverse, beside
        As in `RowWeights`.
    kept_slopes, kept_score
        The `slopes` and `score`.
    """

    kept_slopes: WeightSlopes
    kept_score: Array

    @classmethod
    def without_scores(cls, tilt: Array) -> KeptWeights:
        """Return weights of one, for estimators that use no propensity score; tilt of shape (n,)."""
        none = np.empty((0, len(tilt)))
        return cls(
            excess=1 - tilt,
            tilt=tilt,
            measure=tilt,
            columns=none.T,
            inverse=(),
            beside=None,
            kept_slopes=WeightSlopes(none[..., None], None, None),
            kept_score=none,
        )

    @property
    def slopes(self) -> WeightSlopes:
        """As in `RowWeights`."""
        return self.kept_slopes

    @property
    def score(self) -> Array:
        """As in `RowWeights`."""
        return self.kept_score


def predictor_columns(columns: Array, beside: Array | None, count: int) -> list[Array]:
    """Columns of each of `count` predictors: those of the propensity design, and of the last `beside` if given."""
    return [columns] * count if beside is None else [*[columns] * (count - 1), beside]


def _by_coefficients(slopes: Array, columns: Array, beside: Array | None = None) -> Array:
    """Return derivatives by the coefficients, shape (n, Q), from derivatives by the predictors, shape (L, n, 1)."""
    if beside is not None:
        return np.hstack([_by_coefficients(slopes[:-1], columns), slopes[-1] * beside])
    return (slopes * columns).transpose(1, 0, 2).reshape(len(columns), len(slopes) * columns.shape[1])


class WeightModel:
    """A propensity model and a target, as functions of gamma and of multiplicities of the rows.

    Parameters
    ----------
    propensity : PropensityModel
        The model of the arm.
    target : Target
        The target population.
    in_sample : ndarray, shape (n,)
        1.0 for the rows of the sample, 0.0 for those of a target frame.
    observation : LikelihoodModel, optional
        Logit of the outcome of a row being observed, where some are missing.

    Attributes
    ----------
    columns : ndarray, shape (n, q)
        Basis columns of the propensity design.
    beside : ndarray, shape (n, r), or None
        Basis columns of the observation model.
    divided : bool
        Whether weights are divided by the mean tilt, as it need not be one.
    models : list of (PropensityModel, slice)
        Models of the arm, the membership of a target frame and the observation, each with its part of gamma.
    n_coefficients : int
        Number of coefficients of all models, Q.
    """

    def __init__(
        self, propensity: PropensityModel, target: Target, in_sample: Array, observation: LikelihoodModel | None = None
    ) -> None:
        self.propensity, self.target, self.in_sample, self.observation = propensity, target, in_sample, observation
        self.membership = target.membership if isinstance(target, FrameTarget) else None
        self.columns = propensity.columns
        self.beside = None if observation is None else observation.columns
        self.divided = not target.fixed_tilt or target.toward is not None
        self.models, cut = list[tuple[PropensityModel, slice]](), 0
        for model in (propensity, self.membership, observation):
            if model is not None:
                self.models.append((model, slice(cut, cut + model.n_gamma)))
                cut += model.n_gamma
        self.n_coefficients = sum(model.n_coefficients for model, _ in self.models)

    @cached_property
    def complete(self) -> WeightModel:
        """The same as if all outcomes were observed."""
        return WeightModel(self.propensity, self.target, self.in_sample)

    def likelihood(self, k: int, counts: Array) -> tuple[LikelihoodModel, Array]:
        """Return the likelihood of one of `models`, and its multiplicities (n, m): that of membership has all rows."""
        model, _ = self.models[k]
        alone = self.membership is None or model is self.membership
        return likelihood_of(model), counts if alone else counts * self.in_sample[:, None]

    @property
    def separable(self) -> bool:
        """True if shifts of gamma multiply the terms of the excess."""
        return self.target.fixed_tilt and self.propensity.log_linear and self.observation is None

    @property
    def by_rows(self) -> bool:
        """True if blocks of rows can be weighed by themselves: the propensity model has coefficients."""
        return isinstance(self.propensity, LikelihoodModel)

    def part(self, rows: Rows) -> WeightModel:
        """Return the model on some of the rows, where it goes `by_rows`."""
        if not isinstance(self.propensity, LikelihoodModel | ClippedModel):
            raise TypeError("this propensity model is one of all rows")
        observation = None if self.observation is None else self.observation.part(rows)
        return WeightModel(self.propensity.part(rows), self.target.part(rows), self.in_sample[rows], observation)

    def refit(self, counts: Array, start: Array | None) -> NewtonFits:
        """Fit each model under multiplicities (n, m), from nowhere or from a gamma of shape (S,) or (S, m)."""
        own, fits = counts if self.membership is None else counts * self.in_sample[:, None], []
        for model, part in self.models:  # that of membership is of all rows, the others are of the sample
            weights = counts if model is self.membership else own
            fits.append(model.fit(weights) if start is None else model.refit(weights, start[part]))
        return functools.reduce(NewtonFits.above, fits)

    def score(self, eta: Array) -> Array:
        """Return the score of `RowWeights` under predictors (L, n, 1)."""
        scores, cut = [], 0
        for model, _ in self.models:
            own = model.score(eta[cut : cut + model.n_predictors])
            alone = self.membership is None or model is self.membership
            scores.append(own if alone else own * self.in_sample)
            cut += model.n_predictors
        return np.concatenate(scores)

    def inverse(self, gamma: Array, s: Array, whole: WeightSums | None = None) -> tuple[Array, ...]:
        """Return the inverse of `RowWeights`, relative to the total weight of the sample."""
        own, cut, placed = s if self.membership is None else s * self.in_sample, 0, list[Array]()
        # The information of the membership model is a mean over sample and frame, the inverse relative to the sample.
        share = own.sum() / s.sum() if whole is None and self.membership is not None else 1.0
        for k, (model, part) in enumerate(self.models):
            weights, factor = (s, share) if model is self.membership else (own, 1.0)
            for rows in model.inverse(gamma[part], weights, None if whole is None else whole.information[k]):
                wide = np.zeros((len(rows), self.n_coefficients))
                wide[:, cut : cut + model.n_coefficients] = rows * factor
                placed.append(wide)
            cut += model.n_coefficients
        return tuple(placed)

    def predictors(self, gamma: Array) -> Array:
        """Linear predictors, shape (L, n, m), under gammas of shape (S, m)."""
        parts = [model.predictors(gamma[part]) for model, part in self.models]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def probabilities(self, eta: Array) -> Array:
        """Probability of each arm, shape (K, n, m), under predictors (L, n, m)."""
        return self.propensity.probabilities(eta[: self.propensity.n_predictors])

    def undivided(self, eta: Array) -> Array:
        """Return importance weights h / e, not divided by the mean tilt, shape (n, m), under predictors (L, n, m)."""
        if self.observation is not None:
            return self.complete.undivided(eta[:-1]) * self._factor(self.observation, eta[-1])[0]
        excess, tilt, _ = self.target.parts(self.propensity, eta)
        return excess + tilt

    def observation_probabilities(self, eta: Array) -> Array | None:
        """Probability that the outcome is observed, where some are missing, (n, m), under predictors (L, n, m)."""
        return None if self.observation is None else self.observation.probabilities(eta[-1:])[1]

    @staticmethod
    def _factor(observation: LikelihoodModel, eta: Array) -> tuple[Array, Array]:
        """Inverse probability that the outcome is observed, zero where it is not, and its slope; shape (n, m)."""
        seen = (observation.arm > 0)[:, None]
        odds = np.where(seen, np.exp(np.where(seen, -eta, 0.0)), 0.0)
        return seen.astype(float) + odds, -odds

    def weights_at(self, eta: Array, counts: Array, whole: TargetSums | None = None) -> ImportanceWeights:
        """Weigh the rows under predictors (L, n, m) and multiplicities of the rows (n, m) or (n, 1).

        Where the rows are a block, `whole` has the sums over all rows.
        """
        if self.observation is not None:
            at = self.complete.weights_at(eta[:-1], counts, whole)
            factor, _ = self._factor(self.observation, eta[-1])
            return ImportanceWeights(factor * at.excess + (factor - 1) * at.tilt, at.tilt, at.measure)
        excess, tilt, measure = self.target.parts(self.propensity, eta)
        if not self.divided:
            return ImportanceWeights(excess, tilt, measure)
        means = self._sums(tilt, measure, counts) if whole is None else whole
        if measure is tilt:
            tilt = tilt / means.mean_measure
            return ImportanceWeights(excess / means.mean_measure, tilt, tilt)
        # A frame divides weights by the mean density ratio and its tilt by the mean tilt, so the excess is formed anew.
        shifted = tilt / means.mean_tilt
        return ImportanceWeights((excess + tilt) / means.mean_measure - shifted, shifted, measure / means.mean_measure)

    def target_sums(self, eta: Array, counts: Array) -> TargetSums:
        """Return sums over the rows that weights are divided by; they add up over blocks."""
        _, tilt, measure = self.target.parts(self.propensity, eta if self.observation is None else eta[:-1])
        return self._sums(tilt, measure, counts)

    def _sums(self, tilt: Array, measure: Array, counts: Array) -> TargetSums:
        of_measure = _weighted_sums(counts, measure)
        of_tilt = of_measure if measure is tilt else _weighted_sums(counts, tilt)
        return TargetSums(self.in_sample @ counts, of_tilt, of_measure)

    def odds(self, eta: Array) -> Array:
        """Terms of the undivided excess of a separable weight model, shape (T, n, m)."""
        return self.propensity.odds(eta, self.target.toward)

    def terms(self, eta: Array, counts: Array, whole: TargetSums | None = None) -> tuple[Array, ImportanceWeights]:
        """Terms of the excess of a separable weight model, shape (T, n, m), divided, and the importance weights.

        Where the rows are a block, `whole` has the sums over all rows.
        """
        terms, tilt = self.odds(eta), np.ones((len(self.columns), 1))
        if self.divided:
            mean_tilt = (self.fixed_sums(counts) if whole is None else whole).mean_tilt
            terms, tilt = terms / mean_tilt, self._undivided_tilt / mean_tilt
        return terms, ImportanceWeights(terms.sum(axis=0), tilt, tilt)

    @property
    def _undivided_tilt(self) -> Array:
        arm, toward = self.propensity.arm, self.target.toward
        return (np.ones(len(arm)) if toward is None else (arm == toward).astype(float))[:, None]

    def fixed_sums(self, counts: Array) -> TargetSums:
        """As `target_sums`, of a target whose tilt is fixed and needs no predictors."""
        return self._sums(self._undivided_tilt, self._undivided_tilt, counts)

    def slopes(
        self, eta: Array, counts: Array, whole: TargetSums | None = None, log_mean: Array | None = None
    ) -> WeightSlopes:
        """Return the derivatives of importance weights and measure under predictors (L, n, m).

        Where the rows are a block, `whole` and `log_mean` belong to all rows.
        """
        if self.observation is not None:
            base = self.complete.slopes(eta[:-1], counts, whole, log_mean)
            w = self.complete.weights_at(eta[:-1], counts, whole).w
            factor, slope = self._factor(self.observation, eta[-1])
            measure, log_mean, last = base.measure, base.log_mean, (w * slope)[None]
            if measure is not None and log_mean is not None:
                measure = np.concatenate([measure, np.zeros_like(last)])
                log_mean = np.concatenate([log_mean, np.zeros((self.observation.n_coefficients, log_mean.shape[1]))])
            return WeightSlopes(np.concatenate([base.w * factor, last]), measure, log_mean)
        w_slope, measure_slope = self.target.slopes(self.propensity, eta)
        if not self.divided:
            return WeightSlopes(w_slope, None, None)
        whole = self._sums(*self.target.parts(self.propensity, eta)[1:], counts) if whole is None else whole
        if measure_slope is None:
            return WeightSlopes(w_slope / whole.mean_measure, None, None)
        log_mean = self._log_mean(measure_slope, counts, whole) if log_mean is None else log_mean
        return WeightSlopes(w_slope / whole.mean_measure, measure_slope / whole.mean_measure, log_mean)

    def log_mean(self, eta: Array, counts: Array, whole: TargetSums) -> Array | None:
        """As in `WeightSlopes`, of all rows; the parts of blocks add up."""
        measure_slope = self.target.slopes(self.propensity, eta if self.observation is None else eta[:-1])[1]
        return None if measure_slope is None else self._log_mean(measure_slope, counts, whole)

    def _log_mean(self, measure_slope: Array, counts: Array, whole: TargetSums) -> Array:
        mass = counts * measure_slope / whole.measure
        return (self.columns.T @ mass).reshape(-1, mass.shape[2])


@dataclass(frozen=True)
class TargetSums:
    """Divisors of importance weights, as sums over rows under m multiplicities.

    Parameters
    ----------
    total : ndarray, shape (m,)
        Weight of the rows of the sample.
    tilt, measure : ndarray, shape (m,)
        Sums of tilt and measure.
    """

    total: Array
    tilt: Array
    measure: Array

    def some(self, columns: slice | NDArray[np.intp]) -> TargetSums:
        """Return the sums under some of the multiplicities; a single sum stands for all of them."""
        parts = (self.total, self.tilt, self.measure)
        return TargetSums(*(part if len(part) == 1 else part[columns] for part in parts))

    @property
    def mean_tilt(self) -> Array:
        """Mean tilt, shape (m,)."""
        return positive(self.tilt / positive(self.total))

    @property
    def mean_measure(self) -> Array:
        """Mean measure, shape (m,)."""
        return positive(self.measure / positive(self.total))


def _weighted_sums(counts: Array, values: Array) -> Array:
    """Sum counts, (n, m) or (n, 1), times values of either shape over the rows."""
    if counts.shape[1] == 1:
        return counts[:, 0] @ values
    return add_up((counts[rows] * values[rows]).sum(axis=0) for rows in row_blocks(len(values)))


def positive(values: Array) -> Array:
    """Return the values with 1 for zero, as of multiplicities without rows: recorded as an empty arm."""
    return np.where(values > 0, values, 1.0)


@dataclass(frozen=True)
class WeightFit(RowWeights):
    """Importance weights from a fitted propensity model; rows as in the sample it was fitted to.

    Parameters
    ----------
    excess, tilt, measure, columns, inverse, beside
        As in `RowWeights`.
    model : WeightModel
        Propensity model and target.
    gamma : ndarray, shape (S,)
        The fitted coefficients; of a classifier the log odds of every row.
    s : ndarray, shape (n,)
        Observation weights.
    target : TargetSums or None
        Divisors of the importance weights; None where they are not divided.
    log_mean : ndarray, shape (Q, 1), or None
        As in `WeightSlopes`.
    converged : bool
        Whether the iterations met their tolerance.
    iterations : int
        Newton iterations taken.
    """

    model: WeightModel
    gamma: Array
    s: Array
    target: TargetSums | None
    log_mean: Array | None
    converged: bool
    iterations: int

    @property
    def coefficients(self) -> Array:
        """The propensity coefficients, shape (Q,); none of a classifier, whose log odds are none."""
        return self.gamma[len(self.gamma) - self.model.n_coefficients :]

    @property
    def eta(self) -> Array:
        """Linear predictors, shape (L, n)."""
        return self.model.predictors(self.gamma[:, None])[:, :, 0]

    @cached_property
    def slopes(self) -> WeightSlopes:
        """As in `RowWeights`."""
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            return self.model.slopes(self.eta[..., None], self.s[:, None], self.target, self.log_mean)

    @cached_property
    def score(self) -> Array:
        """As in `RowWeights`."""
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            return self.model.score(self.eta[..., None])

    @property
    def clipped(self) -> NDArray[np.bool_]:
        """Rows whose propensity score was clipped, shape (n,)."""
        model = self.model.propensity
        if not isinstance(model, ClippedModel):
            return np.zeros(len(self.excess), dtype=bool)
        return model.clipped(self.eta[: model.n_predictors, :, None])[1][:, 0]

    @property
    def undivided(self) -> Array:
        """Importance weights h / e, not divided by the mean tilt, shape (n,)."""
        return self.model.undivided(self.eta[..., None])[:, 0]

    @property
    def probabilities(self) -> Array:
        """Probability of each arm, shape (K, n)."""
        return self.model.probabilities(self.eta[..., None])[:, :, 0]

    @property
    def observation_probabilities(self) -> Array | None:
        """Probability that the outcome is observed, where some are missing, shape (n,)."""
        found = self.model.observation_probabilities(self.eta[..., None])
        return None if found is None else found[:, 0]

    def part(self, rows: slice) -> RowWeights:
        """As in `RowWeights`."""
        return self.part_of_fit(rows) if self.model.by_rows else super().part(rows)

    def part_of_fit(self, rows: Rows) -> WeightFit:
        """Return the fit on some of the rows, where its model goes `by_rows`."""
        model = self.model.part(rows)
        kept = taken(self, rows, "excess", "tilt", "measure", "s")
        return replace(kept, columns=model.columns, beside=model.beside, model=model)

    def refit(self, counts: Array, start: Array | None = None) -> NewtonFits:
        """Refit under multiplicities (n, m), from a gamma of shape (S,) or (S, m), by default of this fit."""
        return self.model.refit(counts, self.gamma if start is None else start)


class ScannedWeights(Rowless, WeightFit):
    """Importance weights of rows that come in blocks: the model without rows, and how the fit ended.

    Parameters
    ----------
    n_clipped : int
        Observations whose propensity score was clipped.
    **known
        Fields of `WeightFit`.
    """

    n_clipped = 0

    @property
    def eta(self) -> Array:
        """As in `WeightFit`."""
        raise rows_not_kept()


@dataclass(frozen=True)
class WeightSums:
    """Sums over all rows that the importance weights of a block need.

    Parameters
    ----------
    target : TargetSums
        Divisors of the weights.
    log_mean : ndarray, shape (Q, 1), or None
        As in `WeightSlopes`.
    information : tuple of ndarray
        Information of each of `WeightModel.models`, over the weight of the sample.
    """

    target: TargetSums
    log_mean: Array | None
    information: tuple[Array, ...]


def fit_weights(model: WeightModel, s: Array) -> WeightFit:
    """Fit a weight model to a sample.

    Parameters
    ----------
    s : ndarray, shape (n,)
        Observation weights.
    """
    return weigh_rows(model, s, model.refit(s[:, None], None))


def weigh_rows(model: WeightModel, s: Array, fits: NewtonFits, whole: WeightSums | None = None) -> WeightFit:
    """Weigh rows under the coefficients of a fit.

    Parameters
    ----------
    s : ndarray, shape (n,)
        Observation weights.
    whole : WeightSums, optional
        Sums over all rows, where these are a block of them.
    """
    gamma, counts = fits.coefficients[:, 0], s[:, None]
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        eta = model.predictors(gamma[:, None])
        if whole is None:
            target = model.target_sums(eta, counts) if model.divided else None
            log_mean = None if target is None else model.log_mean(eta, counts, target)
        else:
            target, log_mean = whole.target, whole.log_mean
        at = model.weights_at(eta, counts, target)
        inverse = model.inverse(gamma, s, whole)
    tilt = at.tilt[:, 0]
    return WeightFit(
        excess=at.excess[:, 0],
        tilt=tilt,
        measure=tilt if at.measure is at.tilt else at.measure[:, 0],
        columns=model.columns,
        inverse=inverse,
        beside=model.beside,
        model=model,
        gamma=gamma,
        s=s,
        target=target,
        log_mean=log_mean,
        converged=bool(fits.failures[0] == Failure.OK),
        iterations=fits.iterations,
    )
