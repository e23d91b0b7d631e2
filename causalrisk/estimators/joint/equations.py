"""The joint objective of the full sample as equations about theta, and the sums over rows that go with them.

Flows in: the rows, in one block or more, a criterion, theta. Flows out: the equations, each factor by QR of the rows of
the data; averages, biases and centres at theta. All of it is added up over the blocks, in two passes: what centres psi
takes the first. For linear models theta may be moved afterwards without another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Protocol, TypeVar

import numpy as np

from causalrisk.estimators.joint.criterion import JointCriterion
from causalrisk.estimators.joint.objective import (
    JointObjective,
    OutcomeMeans,
    ResampledWeights,
    bias_rows,
    contrasted,
    fitted_forms,
    loss_weights,
    penalised,
)
from causalrisk.estimators.joint.start import Start
from causalrisk.estimators.joint.variance import EffectVariance, VarianceCentres
from causalrisk.estimators.sample import Sample
from causalrisk.numerics.blocks import add_up
from causalrisk.numerics.linalg import Array, Triangle, pairwise_columns
from causalrisk.propensity.replicates import BlockwiseWeights, WeightMoments
from causalrisk.propensity.weights import WeightFit

T = TypeVar("T")


@dataclass(frozen=True)
class JointRows:
    """Rows of a joint problem: all there are, or a block of them.

    Parameters
    ----------
    place : slice
        Where they are in the sample.
    sample : Sample
        The rows.
    weight_fit : WeightFit
        Their importance weights.
    replicated : BlockwiseWeights
        Those under the replicates.
    resampled : ResampledWeights
        The same with their moments, as one resample.
    start : Start
        IPWRA of all rows.
    """

    place: slice
    sample: Sample
    weight_fit: WeightFit
    replicated: BlockwiseWeights
    resampled: ResampledWeights
    start: Start

    @classmethod
    def of(
        cls,
        place: slice,
        sample: Sample,
        weight_fit: WeightFit,
        replicated: BlockwiseWeights,
        start: Start,
        moments: WeightMoments | None = None,
    ) -> JointRows:
        """Return the rows with the moments of their weights over the replicates, which may be known."""
        at = weight_fit.as_resample()
        moments = replicated.moments(at) if moments is None else moments
        share, theta = (sample.s / sample.total)[:, None], start.theta[..., None]
        return cls(
            place, sample, weight_fit, replicated, ResampledWeights(share, at, replicated, moments, theta), start
        )

    @cached_property
    def pairs(self) -> Array:
        """Products of pairs of the outcome columns, as in `JointObjective`."""
        return pairwise_columns(self.sample.X.columns)

    @cached_property
    def start_steps(self) -> Array:
        """How the coefficients of IPWRA move without each row, as by `Start.held_out`."""
        return self.start.held_out(self.sample, self.weight_fit)

    @cached_property
    def columns(self) -> Array:
        """The outcome columns one after the other, shape (p, n)."""
        return np.ascontiguousarray(self.sample.X.columns.T)


class Over(Protocol):
    """A pass over the rows of a joint problem."""

    def __call__(self, function: Callable[[JointRows], T]) -> Iterator[T]:
        """Begin it: what a function makes of each block, in their order."""


@dataclass(frozen=True)
class LevelSums:
    """Averages and biases at theta with their derivatives by theta_a, of arm a alone; sums over rows.

    Parameters
    ----------
    means, means_slope : ndarray, shape (K,) and (K, p)
        Averages of m_a over the target.
    bias, bias_slope : ndarray, shape (K,) and (K, p)
        Biases under the mean weights over the replicates.
    tilted_slope : ndarray, shape (K, p)
        Derivative of M_a of `VarianceCentres`.
    start_means, start_slope : ndarray, shape (K,) and (K, p)
        Averages of the means at the start under the mean tilt over the replicates, and their derivatives.
    centres, fitted_centres : VarianceCentres
        What centres psi over the replicates, and at the fitted score.
    fitted_slope : ndarray, shape (K, p)
        Derivative of the bias at the fitted score.
    """

    means: Array
    means_slope: Array
    bias: Array
    bias_slope: Array
    tilted_slope: Array
    start_means: Array
    start_slope: Array
    centres: VarianceCentres
    fitted_centres: VarianceCentres
    fitted_slope: Array

    def moved(self, step: Array) -> LevelSums:
        """Return those of linear models at theta moved by a step, shape (K, p)."""
        means, bias, tilted, fitted = (
            (slope * step).sum(axis=1)
            for slope in (self.means_slope, self.bias_slope, self.tilted_slope, self.fitted_slope)
        )
        centres, of_fit = self.centres, self.fitted_centres
        return replace(
            self,
            means=self.means + means,
            bias=self.bias + bias,
            centres=replace(centres, M=centres.M + tilted[:, None], R=centres.R - bias[:, None]),
            fitted_centres=replace(of_fit, M=of_fit.M + means[:, None], R=of_fit.R - fitted[:, None]),
        )


@dataclass(frozen=True)
class PsiSums:
    """Products of psi, for each part of the moments, with tilt and measure; sums over rows.

    Parameters
    ----------
    tilt_slope, measure_slope : ndarray, shape (J, K, p)
        mean of tilt or measure times psi'_a.
    tilt_pulled, measure_pulled : ndarray, shape (J, K)
        mean of tilt or measure times (D psi)_a.
    start_slope : ndarray, shape (J, K p, K p)
        mean of psi'_a times the tilt and the derivative of the means at the start by its coefficients; empty where
        V leaves nothing of these out.
    """

    tilt_slope: Array
    measure_slope: Array
    tilt_pulled: Array
    measure_pulled: Array
    start_slope: Array

    def moved(self, step: Array, D: Array) -> PsiSums:
        """Return those of linear models at theta moved by a step, shape (K, p)."""
        of_tilt, of_measure = ((slope * step).sum(axis=2) @ D for slope in (self.tilt_slope, self.measure_slope))
        return replace(self, tilt_pulled=self.tilt_pulled + of_tilt, measure_pulled=self.measure_pulled + of_measure)


@dataclass(frozen=True)
class JointEquations:
    """Equations (c, h) of the terms of the objective about theta, in units of the outcome and without their penalties.

    Parameters
    ----------
    forms : ndarray, shape (K, 1 + B, p + 1)
        For each arm the derivative of its bias, and the bias: at the fitted score first, then under the replicates.
    loss : ndarray, shape (r, K p + 1)
        Of the loss for alpha sigma_0^2 = 1.
    variance : ndarray, shape (r, K p + 1)
        Of V.
    loss_gradient : ndarray, shape (K p,)
        Gradient of that loss. Where an outcome contradicts a mean near the end of its range, the equations do not keep
        its digits: their h are the scores divided by the roots of weights near zero.
    """

    forms: Array
    loss: Array
    variance: Array
    loss_gradient: Array

    def moved(self, step: Array) -> JointEquations:
        """Return those of linear models about theta moved by a step, shape (K, p)."""
        forms, slopes = self.forms.copy(), self.loss[:, :-1]
        forms[..., -1] += np.einsum("abp,ap->ab", forms[..., :-1], step)
        gradient = self.loss_gradient + slopes.T @ (slopes @ step.ravel())
        return JointEquations(forms, _moved(self.loss, step), _moved(self.variance, step), gradient)

    def net_biases(self, criterion: JointCriterion) -> tuple[Array, Array]:
        """Equations of the contrasts of the biases, at the fitted score (C, K p + 1), and under replicates (C B, .)."""
        fitted, replicated = (
            contrasted(forms[:, :, None], criterion)[0] for forms in (self.forms[:, :1], self.forms[:, 1:])
        )
        return fitted, replicated

    def stacked(self, criterion: JointCriterion) -> Array:
        """Equations of the objective, shape (r, K p + 1).

        Those of the net bias at the fitted score, C, and under the replicates, C B, then the others: the largest stand
        first, so that QR keeps their digits.
        """
        parts = [*penalised(criterion, *self.net_biases(criterion), self.forms.shape[1] - 1)]
        if criterion.full_risk:
            parts.append(self.variance)
        return np.concatenate([*parts, np.sqrt(criterion.alpha_sigma2) * self.loss])

    @property
    def variance_gradient(self) -> Array:
        """Gradient of V / 2, shape (K p,)."""
        return -self.variance[:, :-1].T @ self.variance[:, -1]

    @property
    def variance_value(self) -> float:
        """V."""
        return float((self.variance[:, -1] ** 2).sum())


def _moved(rows: Array, step: Array) -> Array:
    found = rows.copy()
    found[:, -1] -= rows[:, :-1] @ step.ravel()
    return found


@dataclass(frozen=True)
class Expanded:
    """The objective about theta.

    Parameters
    ----------
    theta : ndarray, shape (K, p)
        Coefficients.
    equations : JointEquations
        The equations.
    levels : LevelSums
        Averages, biases and centres.
    psi : PsiSums
        Products of psi.
    left_out : float
        What the share c leaves out of V at theta, or where the expansion was moved from; NaN where one pass was made.
    """

    theta: Array
    equations: JointEquations
    levels: LevelSums
    psi: PsiSums
    left_out: float

    def at(self, theta: Array, D: Array) -> Expanded:
        """Return that of linear models about another theta."""
        step = theta - self.theta
        equations, levels, psi = self.equations.moved(step), self.levels.moved(step), self.psi.moved(step, D)
        return Expanded(theta, equations, levels, psi, self.left_out)


@dataclass(frozen=True)
class _FirstSums:
    """What the first pass leaves: forms of the biases, factors of the loss and of the part `own_sd` of V, levels.

    The scores are minus the gradient of the loss, shape (K, p).
    """

    forms: Array
    loss: tuple[Triangle, ...]
    scores: Array
    own: tuple[Triangle, ...]
    levels: LevelSums


@dataclass(frozen=True)
class _SecondSums:
    """What the second pass leaves, which knows the centres: factors of V by part and contrast, products of psi.

    And what the share c leaves out of V.
    """

    variance: tuple[Triangle, ...]
    psi: PsiSums
    left_out: float


def expand_about(
    theta: Array, criterion: JointCriterion, over: Over, centres: VarianceCentres | None = None
) -> Expanded:
    """Expand the objective about theta, shape (K, p): two passes over the rows, or one where the centres are known."""
    if centres is None:
        first = add_up(over(partial(_first_sums, theta, criterion)))
        levels = first.levels
        second = add_up(over(partial(_second_sums, theta, criterion, levels.centres, levels.start_means)))
    else:
        first, second = add_up(over(partial(_both_sums, theta, criterion, centres)))
    variance = [*(triangle.factor for triangle in second.variance), *_placed(first.own, theta)]
    loss = np.concatenate(_placed(first.loss, theta))
    equations = JointEquations(first.forms, loss, np.concatenate(variance), -first.scores.ravel())
    return Expanded(theta, equations, first.levels, second.psi, second.left_out)


def _placed(factors: tuple[Triangle, ...], theta: Array) -> list[Array]:
    """Equations of each arm in the columns of all."""
    p, found = theta.shape[1], []
    for a, triangle in enumerate(factors):
        rows = np.zeros((len(triangle.factor), theta.size + 1))
        rows[:, [*range(a * p, (a + 1) * p), -1]] = triangle.factor
        found.append(rows)
    return found


def _first_sums(theta: Array, criterion: JointCriterion, block: JointRows) -> _FirstSums:
    sample, resampled, share = block.sample, block.resampled, block.resampled.share
    objective = JointObjective(sample, criterion)
    at = objective.means(theta[..., None])
    rows = bias_rows(sample, at)
    forms = [fitted_forms(sample.slices, rows, resampled), resampled.replicated.sums(share, rows)]
    own, own_deriv = sample.own(at.eta), sample.own(at.deriv)
    score, _, expected = sample.family.score(sample.y[:, None], own)
    trained = share * loss_weights(criterion, resampled)
    D = np.diag(objective.D)[sample.arm][:, None]
    spread = share * D * resampled.moments.own_sd**2 * own_deriv
    return _FirstSums(
        forms=np.concatenate(forms, axis=1)[:, :, 0],
        loss=_fit_factors(sample, trained * expected, trained * score),
        scores=np.stack([(trained * score)[rows, 0] @ sample.X.columns[rows] for rows in sample.slices]),
        own=_fit_factors(sample, spread * own_deriv, spread * at.residual),
        levels=_levels(objective, at, resampled),
    )


def _fit_factors(sample: Sample, weights: Array, scores: Array) -> tuple[Triangle, ...]:
    """Factors of the equations of a weighted fit of each arm."""
    root = np.sqrt(weights)
    right = np.divide(scores, root, out=np.zeros_like(root), where=root > 0)
    q = sample.X.columns
    return tuple(Triangle(np.column_stack([q[rows] * root[rows], right[rows]])) for rows in sample.slices)


def _levels(objective: JointObjective, at: OutcomeMeans, resampled: ResampledWeights) -> LevelSums:
    sample, q, share = objective.sample, objective.q, resampled.share
    slices, tilted = sample.slices, share * resampled.moments.mean.tilt
    fitted, mean = resampled.at, resampled.moments.mean
    own_deriv = sample.own(at.deriv)

    def slopes(weights: Array) -> Array:
        weighted = share * weights * own_deriv
        return np.stack([weighted[rows, 0] @ q[rows] for rows in slices])

    def centres(of: WeightMoments, mean: Array) -> VarianceCentres:
        return VarianceCentres.of(q, slices, share, of.mean, mean=mean, deriv=at.deriv, residual=at.residual)

    over_replicates = centres(resampled.moments, objective.counted(at.mean, resampled))
    return LevelSums(
        means=np.stack([(share * fitted.tilt * m)[:, 0].sum() for m in at.mean]),
        means_slope=np.stack([(share * fitted.tilt * deriv)[:, 0] @ q for deriv in at.deriv]),
        bias=-over_replicates.R[:, 0],
        bias_slope=slopes(mean.w),
        tilted_slope=np.stack([(tilted * deriv)[:, 0] @ q for deriv in at.deriv]),
        start_means=(tilted * objective.start_means(resampled.known_start)).sum(axis=1)[:, 0],
        start_slope=np.stack([(tilted * deriv)[:, 0] @ q for deriv in objective.start_deriv(resampled.known_start)]),
        centres=over_replicates,
        fitted_centres=centres(WeightMoments.single(fitted), at.mean),
        fitted_slope=slopes(fitted.w),
    )


def _second_sums(
    theta: Array, criterion: JointCriterion, centres: VarianceCentres, start_means: Array | None, block: JointRows
) -> _SecondSums:
    objective, resampled = JointObjective(block.sample, criterion), block.resampled
    variance = objective.variance(objective.means(theta[..., None]), resampled, centres)
    rows = _variance_rows(variance, criterion.contrasts, block.columns)
    psi = _psi_sums(variance, block.columns, objective.start_deriv(resampled.known_start)[..., 0], criterion.share)
    left_out = np.nan
    if start_means is not None:
        above = objective.start_means(resampled.known_start)[..., 0] - start_means[:, None]
        left_out = variance.left_out(criterion.share * above)
    return _SecondSums(tuple(Triangle(part) for part in rows), psi, left_out)


def _both_sums(
    theta: Array, criterion: JointCriterion, centres: VarianceCentres, block: JointRows
) -> tuple[_FirstSums, _SecondSums]:
    return _first_sums(theta, criterion, block), _second_sums(theta, criterion, centres, None, block)


def _variance_rows(variance: EffectVariance, contrasts: Array, columns: Array) -> Iterator[Array]:
    """Equations of V but for the part `own_sd`, of each row; a contrast and part of the moments each."""
    root = np.sqrt(variance.share)
    for part in variance.parts:
        for contrast in contrasts:
            slopes = variance.weighted_slopes(part, contrast[:, None]).written(columns)
            yield np.column_stack([slopes.T, -contrast @ part.psi[..., 0]]) * root


def _psi_sums(variance: EffectVariance, columns: Array, start_deriv: Array, left_out: float) -> PsiSums:
    by_arm, found, of_start = (len(variance.slices), len(columns)), [], []
    at_start = (start_deriv[:, None] * columns).reshape(-1, columns.shape[1])
    for part in variance.parts:
        slopes = variance.weighted_slopes(part, np.ones((len(variance.slices), 1))).written(columns)
        for weights in (part.weights.tilt, part.weights.measure):
            shared = (variance.share * weights)[:, 0]
            found.append(((slopes @ shared).reshape(by_arm), part.D_psi[..., 0] @ shared))
        if left_out:
            of_start.append(slopes * (variance.share * part.weights.tilt)[:, 0] @ at_start.T)
    tilt, measure = found[::2], found[1::2]
    return PsiSums(
        np.stack([slope for slope, _ in tilt]),
        np.stack([slope for slope, _ in measure]),
        np.stack([pulled for _, pulled in tilt]),
        np.stack([pulled for _, pulled in measure]),
        np.reshape(of_start, (-1, len(at_start), len(at_start))),
    )
