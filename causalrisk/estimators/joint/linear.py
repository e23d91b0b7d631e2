"""The joint objective of linear outcome models under many resamples, from weighted products of their columns.

Flows in: rows, or a block of them, and their weights in m resamples. Flows out: sums over the rows, which add up over
blocks; from them the equations of the objective about theta, and averages and biases at any theta.

With E = (q, y - m, 1) the columns of a row (and its offset, if there is one), psi and its derivatives are combinations
of E times excess, tilt and measure, so that everything is in the sums of products of E under products of two weights:
for a row of arm k

    psi'_a = 1{a != k} t q - 1{a = k} (w - t) q - t C_a - measure D_a
    psi_a  = t (d_a - M_a) - measure R_a + 1{a = k} w (y - m_k)

with d_a, the means less a share of those at the start, and M_a, R_a, C_a, D_a of `VarianceCentres`. The rows of a
target frame stand among those of the first arm, without importance weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from causalrisk.estimators.joint.criterion import JointCriterion
from causalrisk.estimators.joint.objective import ResampledWeights, contrasted, penalised
from causalrisk.estimators.joint.start import Starts
from causalrisk.estimators.outcome import solved_change
from causalrisk.estimators.sample import Sample, shifted
from causalrisk.estimators.training import constant_direction
from causalrisk.numerics.failures import Failure, first_failure
from causalrisk.numerics.linalg import (
    Array,
    pairwise_columns,
    solve_stacked,
    spectral_equations,
    unpack_symmetric,
    upper_triangle,
)
from causalrisk.numerics.newton import LikelihoodSums
from causalrisk.propensity.weights import ImportanceWeights

EXCESS, TILT = 0, 1  # places of the weights; the last is the measure, which may be the tilt


@dataclass(frozen=True)
class LinearModels:
    """Linear outcome models at fixed coefficients, about which the objective of every resample is expanded.

    Parameters
    ----------
    theta : ndarray, shape (K, p)
        The coefficients.
    level : ndarray, shape (K,)
        Average prediction of each arm, where the models have a constant; sums are of what is left, to keep its digits.
    constant : ndarray, shape (p,)
        Coefficients of the columns that give the constant one; zero where there is none.
    """

    theta: Array
    level: Array
    constant: Array

    @classmethod
    def of(cls, theta: Array, sample: Sample) -> LinearModels:
        """Return the models of a sample."""
        constant = constant_direction(sample.X.columns)
        if constant is None:
            return cls.plain(theta)
        return cls(theta, sample.mean(sample.X.columns) @ theta.T, constant)

    @classmethod
    def plain(cls, theta: Array) -> LinearModels:
        """Return models without a level."""
        return cls(theta, np.zeros(len(theta)), np.zeros(theta.shape[1]))

    def rows(self, sample: Sample) -> LinearRows:
        """Return the columns of rows."""
        q = sample.X.columns
        error = sample.y - sample.own(shifted(self.theta @ q.T, sample.offset))
        offset = [] if sample.offset is None else [sample.offset]
        columns = np.column_stack([q, error, np.ones(len(q)), *offset])
        return LinearRows(sample, columns, pairwise_columns(columns))

    def counted(self, share: float, start: Array, width: int) -> tuple[Array, Array]:
        """Return what V counts of each arm: predictions less a share of those at the start, (K, p, m), in two parts.

        Coefficients of E that give it less a level, shape (m, K, width), and the level, shape (K,).
        """
        p, level = self.theta.shape[1], (1 - share) * self.level
        found = np.zeros((start.shape[2], len(self.theta), width))
        found[:, :, :p] = self.theta - level[:, None] * self.constant - share * start.transpose(2, 0, 1)
        found[:, :, p + 2 :] = 1.0 - share  # the offset
        return found, level


@dataclass(frozen=True)
class LinearRows:
    """Rows under linear models.

    Parameters
    ----------
    sample : Sample
        The rows.
    columns : ndarray, shape (n, e)
        E, of p + 2 columns or with an offset p + 3.
    pairs : ndarray, shape (n, e (e + 1) / 2)
        `pairwise_columns` of E.
    """

    sample: Sample
    columns: Array
    pairs: Array

    @property
    def nbytes(self) -> int:
        """Bytes of columns and pairs."""
        return self.columns.nbytes + self.pairs.nbytes


def bias_forms(columns: Array, p: int) -> Array:
    """Columns of E, shape (..., e), that make up the derivative of an arm's bias and the bias, shape (..., p + 1)."""
    return columns[..., : p + 1] * np.append(np.ones(p), -1.0)


@dataclass(frozen=True)
class RiskSums:
    """What the net biases, V and the averages need of the rows, all of them or a group, under m resamples.

    Parameters
    ----------
    fitted, replicated : ndarray, shape (K, 1, m, p + 1) and (K, B, m, p + 1)
        For each arm the derivative of its bias, and the bias: at the fitted score, and under the replicates.
    first : ndarray, shape (K, F, e, m)
        Products of E and excess, tilt and, where it is another, measure; their means over the replicates.
    second : ndarray, shape (J, K, F (F + 1) / 2, e (e + 1) / 2, m)
        Products of pairs of E and pairs of these, for each part of the moments.
    tilted : ndarray, shape (e, m)
        Products of E and the fitted tilt.
    """

    fitted: Array
    replicated: Array
    first: Array
    second: Array
    tilted: Array


@dataclass(frozen=True)
class LinearSums:
    """Sums over rows under m resamples; those of blocks add up.

    Parameters
    ----------
    started : ndarray, shape (K, e (e + 1) / 2, m)
        Products of pairs of E under the weights of IPWRA.
    trained : ndarray, shape (K, e (e + 1) / 2, m)
        The same under the weights of the losses and of the part `own_sd` of V.
    risks : tuple of RiskSums
        Those of everybody, or of each group.
    """

    started: Array
    trained: Array
    risks: tuple[RiskSums, ...]

    @classmethod
    def of(
        cls,
        rows: LinearRows,
        criterion: JointCriterion,
        resampled: ResampledWeights,
        views: Sequence[ResampledWeights],
    ) -> LinearSums:
        """Sum over rows with their weights, and those within each group, which are everybody's where there is one."""
        sample, share = rows.sample, resampled.share

        def products(weights: Array) -> Array:
            return np.stack([rows.pairs[own].T @ weights[own] for own in sample.slices])

        started = products(share * resampled.at.w)
        if criterion.full_risk:
            variance = sum((view.moments.own_sd**2 for view in views), np.zeros(1)) / len(views)
            squares = np.diag(criterion.D)[:, None, None]
            trained = criterion.alpha_sigma2 * started + squares * products(share * variance)
        else:
            trained = criterion.alpha_sigma2 * products(share * resampled.moments.mean.w)
        return cls(started, trained, tuple(_risk_sums(rows, criterion, view) for view in views))


def _risk_sums(of_rows: LinearRows, criterion: JointCriterion, view: ResampledWeights) -> RiskSums:
    columns, slices, p = of_rows.columns, of_rows.sample.slices, of_rows.sample.X.columns.shape[1]
    share, at = view.share, view.at
    forms = bias_forms(columns, p)
    weighted = share * at.w
    of_mean = [share * weights for weights in _kinds(view.moments.mean)]
    kinds = view.moments.parts if criterion.full_risk else []
    return RiskSums(
        fitted=np.stack([weighted[rows].T @ forms[rows] for rows in slices])[:, None],
        replicated=view.replicated.sums(share, forms[:, None]),
        first=np.stack([[columns[rows].T @ weights[rows] for weights in of_mean] for rows in slices]),
        second=np.array([_second_products(slices, share, part, of_rows.pairs) for part in kinds]),
        tilted=columns.T @ (share * at.tilt),
    )


def _kinds(at: ImportanceWeights) -> list[Array]:
    """Excess, tilt and, where it is another, measure."""
    return [at.excess, at.tilt] if at.measure is at.tilt else [at.excess, at.tilt, at.measure]


def _second_products(slices: tuple[slice, ...], share: Array, at: ImportanceWeights, pairs: Array) -> Array:
    """Products of pairs of columns and pairs of weights, shape (K, F (F + 1) / 2, e (e + 1) / 2, m)."""
    kinds = _kinds(at)
    first, second = upper_triangle(len(kinds))
    found = []
    for i, j in zip(first, second, strict=True):
        weights = share * kinds[i] * kinds[j]
        found.append([pairs[rows].T @ weights[rows] for rows in slices])
    return np.asarray(found).swapaxes(0, 1)


@dataclass(frozen=True)
class Solved:
    """Minima of the joint objectives of m resamples.

    Parameters
    ----------
    theta : ndarray, shape (K, p, m)
        Coefficients.
    failures : ndarray of int8, shape (m,)
        What failed.
    averages : tuple of ndarray, shape (K, m)
        Averages of the predictions over the target, or over that of each group.
    biases : ndarray, shape (K, m)
        Biases of the arms averaged over the replicates.
    starts : Starts
        IPWRA in the same resamples.
    """

    theta: Array
    failures: NDArray[np.int8]
    averages: tuple[Array, ...]
    biases: Array
    starts: Starts


class LinearObjectives:
    """The joint objectives of m resamples for linear models.

    Parameters
    ----------
    models : LinearModels
        The models about which they are expanded.
    criterion : JointCriterion
        Weights of the terms.
    sums : LinearSums
        Sums over all rows.
    """

    def __init__(self, models: LinearModels, criterion: JointCriterion, sums: LinearSums) -> None:
        self.models, self.criterion, self.sums = models, criterion, sums
        self.n_arms, self.p = models.theta.shape
        self.width = sums.risks[0].tilted.shape[0]

    @cached_property
    def starts(self) -> Starts:
        """IPWRA in each resample, which the models of the full sample are where it cannot be fitted."""
        p, found = self.p, []
        for packed in self.sums.started:
            products = unpack_symmetric(packed, self.width)
            found.append(solved_change(LikelihoodSums(products[:, :p, :p], products[:, :p, p].T)))
        failures = first_failure(*(failed for _, failed in found))
        change = np.where(failures == Failure.OK, np.stack([step for step, _ in found]), 0.0)
        theta = self.models.theta[..., None] + change
        return Starts(theta, self.averages(self.sums.risks[0], theta), failures)

    def minima(self) -> Solved:
        """Minimise them."""
        (strict, gram), unit = self.equations(), self.criterion.rms_residual
        units = np.append(np.ones(gram.shape[1]), 1 / unit)
        equations = np.concatenate([strict * units, spectral_equations(gram * units[:-1, None] * units)], axis=1)
        step, singular = solve_stacked(equations)
        moved = unit * step.reshape(*self.models.theta.shape, -1)
        theta = self.models.theta[..., None] + moved
        averages = tuple(self.averages(risk, theta) for risk in self.sums.risks)
        failures = np.where(singular, Failure.SINGULAR_OUTCOME, Failure.OK).astype(np.int8)
        return Solved(theta, failures, averages, self.biases(self.sums.risks[0], moved), self.starts)

    def equations(self) -> tuple[Array, Array]:
        """Equations of the net biases with the largest penalty, (m, r, K p + 1), and the Gram matrix of the others."""
        strict, gram = [], self._fit_gram()
        for risk in self.sums.risks:
            fitted, replicated = (contrasted(forms, self.criterion) for forms in (risk.fitted, risk.replicated))
            count = risk.replicated.shape[1]
            if not self.criterion.full_risk:
                strict.append(penalised(self.criterion, fitted, replicated, count)[1])
                continue
            strict.append(np.sqrt(self.criterion.fitted_penalty) * fitted)
            of_biases = replicated[..., :-1].transpose(0, 2, 1) @ replicated
            of_biases *= self.criterion.penalty / count
            gram += (of_biases + self._variance_gram(risk)) / len(self.sums.risks)
        return np.concatenate(strict, axis=1) / np.sqrt(len(strict)), gram

    def _fit_gram(self) -> Array:
        """Gram matrix of the equations of a weighted fit of each arm, shape (m, K p, K p + 1)."""
        n_arms, p = self.n_arms, self.p
        gram = np.zeros((self.sums.trained.shape[2], n_arms * p, n_arms * p + 1))
        for a, packed in enumerate(self.sums.trained):
            block, products = slice(a * p, (a + 1) * p), unpack_symmetric(packed, self.width)
            gram[:, block, block], gram[:, block, -1] = products[:, :p, :p], products[:, :p, p]
        return gram

    def biases(self, risk: RiskSums, step: Array) -> Array:
        """Biases of the arms averaged over the replicates, a step (K, p, m) from the models; shape (K, m)."""
        own = risk.first[:, EXCESS] + risk.first[:, TILT]
        return (own[:, : self.p] * step).sum(axis=1) - own[:, self.p]

    def averages(self, risk: RiskSums, theta: Array) -> Array:
        """Averages of the predictions over the target under coefficients (K, p, m); shape (K, m)."""
        return (risk.tilted[: self.p] * theta).sum(axis=1) + risk.tilted[self.p + 2 :].sum(axis=0)

    def _variance_gram(self, risk: RiskSums) -> Array:
        """Gram matrix of the equations of V but for the part `own_sd`, shape (m, K p, K p + 1)."""
        n_arms, p, D = self.n_arms, self.p, self.criterion.D
        m, total = risk.tilted.shape[1], np.zeros(1)
        combined = self._combinations(risk)
        for part in risk.second:
            for weights, packed in zip(combined, part, strict=True):
                total = total + weights @ self._products(packed) @ weights.transpose(0, 2, 1)
        by_arm = np.reshape(total, (m, n_arms, p + 1, n_arms, p + 1))
        weighted = by_arm * D[:, None, :, None]
        gram = np.empty((m, n_arms * p, n_arms * p + 1))
        gram[:, :, :-1] = weighted[:, :, :p, :, :p].reshape(m, n_arms * p, n_arms * p)
        gram[:, :, -1] = -weighted[:, :, :p, :, p].sum(axis=3).reshape(m, n_arms * p)
        return gram

    def _products(self, packed: Array) -> Array:
        """Symmetric matrices, shape (m, F e, F e), from products of pairs of columns and pairs of weights."""
        kinds, e = int(np.sqrt(2 * len(packed))), self.width
        found = np.empty((packed.shape[2], kinds, e, kinds, e))
        for i, j, products in zip(*upper_triangle(kinds), packed, strict=True):
            found[:, i, :, j] = found[:, j, :, i] = unpack_symmetric(products, e)
        return found.reshape(-1, kinds * e, kinds * e)

    def _combinations(self, risk: RiskSums) -> list[Array]:
        """For rows of each arm, psi' and psi of all arms as combinations of E times weights, (m, K (p + 1), F e)."""
        n_arms, p, e = self.n_arms, self.p, self.width
        first, kinds, m = risk.first, risk.first.shape[1], risk.tilted.shape[1]
        tilted = first[:, TILT].sum(axis=0)
        own, one, error = first[:, EXCESS] + first[:, TILT], p + 1, p
        counted, level = self.models.counted(self.criterion.share, self.starts.theta, e)
        common = np.zeros((m, n_arms, p + 1, kinds, e))
        if kinds == 2:
            common[:, :, :p, TILT, one] = (own[:, :p] - tilted[:p]).transpose(2, 0, 1)
        else:
            common[:, :, :p, TILT, one] = -tilted[:p].T[:, None]
            common[:, :, :p, -1, one] = own[:, :p].transpose(2, 0, 1)
        common[:, :, p, TILT] = counted
        centre = np.einsum("mae,em->ma", counted, tilted) + (tilted[one] - 1)[:, None] * level
        common[:, :, p, TILT, one] -= centre
        common[:, :, p, -1, one] -= own[:, error].T
        found = []
        for k in range(n_arms):
            of_arm = common.copy()
            for a in range(n_arms):
                of_arm[:, a, range(p), EXCESS if a == k else TILT, range(p)] += -1.0 if a == k else 1.0
            of_arm[:, k, p, [EXCESS, TILT], error] += 1.0
            found.append(of_arm.reshape(m, n_arms * (p + 1), kinds * e))
        return found
