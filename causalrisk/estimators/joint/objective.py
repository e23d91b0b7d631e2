"""The joint objective and its quadratic expansion, for one resample or many at once.

With every outcome model at theta, m_a its mean and m_a' the derivative by the linear predictor, the objective is

    J = fit * mean_b sum_a loss_a(e_b) + (penalty / 2) mean_b sum_c u_cb^2 + (1 / 2) mean_i sum_ab D_ab psi_ia psi_ib

with u_b = C B_b the contrasts of the arm biases under replicate b, D = C'C, and psi_a the influence function of the
mean of arm a. All but the curvature of nonlinear means is a sum of squares of rows (c, h), a row standing for the
residual c'z - h of a step z from theta; z is stacked arm by arm, shape (K p,). Each row is divided by the unit of the
sample.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causalrisk.estimators.joint.criterion import JointCriterion
from causalrisk.estimators.sample import Sample
from causalrisk.numerics.linalg import Array, gram_matrices, pairwise_columns, triangular_factor
from causalrisk.propensity.replicates import GroupWeights, ReplicateWeights
from causalrisk.propensity.weights import ImportanceWeights


@dataclass(frozen=True)
class ResampledWeights:
    """m resamples with their importance weights.

    Parameters
    ----------
    share : ndarray, shape (n, m)
        Weights of the rows divided by their sum over the sample.
    at : ImportanceWeights
        Importance weights at each resample's own propensity fit.
    replicated : ReplicateWeights
        Importance weights under its replicates.
    mean_weight : ndarray, shape (n, m)
        Their average.
    """

    share: Array
    at: ImportanceWeights
    replicated: ReplicateWeights
    mean_weight: Array

    def views(self, groups: Array | None) -> list[ResampledWeights]:
        """Return the resamples restricted to each group, shape (n, G), and divided by its share; or themselves."""
        if groups is None:
            return [self]
        found = []
        for inside in groups.T:
            share = (self.share * self.at.tilt * inside[:, None]).sum(axis=0)
            factor = inside[:, None] / np.where(share > 0, share, 1.0)
            operator = GroupWeights(self.replicated, factor)
            found.append(ResampledWeights(self.share, self.at.scaled(factor), operator, factor * self.mean_weight))
        return found

    def subset(self, columns: NDArray[np.bool_]) -> ResampledWeights:
        """Return some of the resamples."""
        at = self.at.subset(columns)
        return ResampledWeights(
            self.share[:, columns], at, self.replicated.subset(columns), self.mean_weight[:, columns]
        )


@dataclass(frozen=True)
class Expansion:
    """The objective near theta.

    Parameters
    ----------
    net_bias : ndarray, shape (m, G C B, K p + 1)
        Rows of the contrasts of the biases, to be weighted by penalty / B.
    gram : ndarray, shape (m, K p, K p + 1)
        Gram matrix of the rows (c, h) of all other terms, without its last row, that of h.
    curvature : ndarray, shape (m, K p, K p), or None
        What the Hessian has beside the rows; None for linear models.
    value : ndarray, shape (m,), or None
        The objective; None for linear models, which are solved in one step.
    bias : ndarray, shape (K, m)
        Bias of each arm averaged over the replicates, in units of the outcome.
    count : int
        Number of replicates, B.
    """

    net_bias: Array
    gram: Array
    curvature: Array | None
    value: Array | None
    bias: Array
    count: int


class JointObjective:
    """The joint objective of a sample.

    Parameters
    ----------
    sample : Sample
        The data.
    criterion : JointCriterion
        Weights of the terms.
    groups : ndarray, shape (n, G), optional
        Indicators of groups whose effects are wanted, each with a risk and a variance of its own; the objective has
        their averages.
    """

    def __init__(self, sample: Sample, criterion: JointCriterion, groups: Array | None = None) -> None:
        self.sample, self.criterion, self.groups = sample, criterion, groups
        self.q = sample.X.columns
        self.pairs = pairwise_columns(self.q)
        self.D = criterion.contrasts.T @ criterion.contrasts
        n_coefficients = sample.n_arms * self.q.shape[1]
        self.step_unit = criterion.rms_residual if sample.family.linear else 1.0
        self.row_units = np.append(np.full(n_coefficients, self.step_unit), 1.0) / criterion.rms_residual

    def expand(self, theta: Array, resampled: ResampledWeights) -> Expansion:
        """Expand about theta, shape (K, p, m), or (K, p, 1) for all resamples alike."""
        sample, criterion, share = self.sample, self.criterion, resampled.share
        family, y = sample.family, sample.y[:, None]
        eta = self.q @ theta
        means = family.mean(eta), family.mean_deriv(eta), family.mean_deriv2(eta)
        own = sample.own(eta)
        error = sample.own(means[0]) - y
        score, curvature, expected = family.score(y, own)
        trained = criterion.alpha_sigma2 * share * resampled.mean_weight
        rest = self._fit_gram(trained, score, expected)
        bends = None if family.linear else sample.blocks_of(trained * (curvature - expected))
        value = None if family.linear else (trained * family.loss(y, own)).sum(axis=0)
        nets = []
        rows = np.concatenate([sample.own(means[1])[..., None] * self.q[:, None], error[..., None]], axis=2)
        views = resampled.views(self.groups)
        for view in views:
            net = self._net_rows(view.replicated.sums(view.share, rows))
            psi = ArmInfluence(self, view, *means[:2], -error) if criterion.with_variance else None
            nets.append(net / np.sqrt(len(views)))
            if psi is not None:
                rest += psi.gram() / len(views)
            if bends is not None and value is not None:
                bends = bends + self._bend_weights(view, net, psi, means[2]) / len(views)
                value = value + self._squares(net, psi, view.replicated.count) / len(views)
        bias = np.stack([(share * resampled.mean_weight * error)[a].sum(axis=0) for a in sample.slices])
        units = self.row_units
        return Expansion(
            np.concatenate(nets, axis=1) * units,
            rest * units[:-1, None] * units,
            None if bends is None else self._bend(bends),
            None if value is None else value / criterion.rms_residual**2,
            bias,
            resampled.replicated.count,
        )

    def _net_rows(self, forms: Array) -> Array:
        """Rows of the contrasts of the biases, shape (m, C B, K p + 1), from those of each arm, (K, B, m, p + 1)."""
        rows = []
        for contrast in self.criterion.contrasts:
            slopes = [c * forms[a, ..., :-1] for a, c in enumerate(contrast)]
            rows.append(np.concatenate([*slopes, -np.tensordot(contrast, forms[..., -1:], axes=1)], axis=-1))
        return np.concatenate(rows).transpose(1, 0, 2)

    def _fit_gram(self, trained: Array, score: Array, expected: Array) -> Array:
        """Gram matrix of the rows of the fit, shape (m, K p, K p + 1)."""
        p, m = self.q.shape[1], trained.shape[1]
        size = self.sample.n_arms * p
        gram = np.zeros((m, size, size + 1))
        for a, rows in enumerate(self.sample.slices):
            block = slice(a * p, (a + 1) * p)
            gram[:, block, block] = gram_matrices(self.pairs[rows], trained[rows] * expected[rows], p)
            gram[:, block, -1] = (trained[rows] * score[rows]).T @ self.q[rows]
        return gram

    def _squares(self, net: Array, psi: ArmInfluence | None, n_rep: int) -> Array:
        """Risk and variance, shape (m,)."""
        value = self.criterion.penalty / 2 * (net[..., -1] ** 2).sum(axis=1) / n_rep
        return value if psi is None else value + psi.variance() / 2

    def _bend_weights(self, view: ResampledWeights, net: Array, psi: ArmInfluence | None, bends: Array) -> Array:
        """Return what multiplies the outer products of the columns in the curvature of risk and variance, (K, n, m)."""
        sample, contrasts = self.sample, self.criterion.contrasts
        values = -net[..., -1].T.reshape(len(contrasts), -1, net.shape[0])
        pull = self.criterion.penalty / values.shape[1] * np.tensordot(contrasts.T, values, axes=1)
        weights = sample.blocks_of(view.share * view.replicated.adjoint(pull) * sample.own(bends))
        if psi is not None:
            weights += np.stack([psi.bend_weights(a) for a in range(sample.n_arms)]) * bends
        return weights

    def _bend(self, weights: Array) -> Array:
        """Curvature of the means, shape (m, K p, K p), from what multiplies it, shape (K, n, m)."""
        n_arms, p = len(weights), self.q.shape[1]
        total = np.zeros((weights.shape[2], n_arms * p, n_arms * p))
        for a in range(n_arms):
            total[:, a * p : (a + 1) * p, a * p : (a + 1) * p] = gram_matrices(self.pairs, weights[a], p)
        return total * (self.step_unit / self.criterion.rms_residual) ** 2


class ArmInfluence:
    """Influence functions of the arm means at known propensity scores, and their squares.

    psi_a = tilt (m_a - M_a) + 1{arm = a} w (y - m_a) - measure R_a, M_a and R_a what centres the two parts. The
    derivative by theta_a is dpsi_a q less its centre, dpsi_a = m_a' (tilt - 1{arm = a} w).

    Parameters
    ----------
    objective : JointObjective
        The objective.
    resampled : ResampledWeights
        The resamples.
    mean, slope : ndarray, shape (K, n, m) or (K, n, 1)
        Means and their derivatives by the linear predictor.
    residual : ndarray, shape (n, m) or (n, 1)
        y - m in a row's own arm.
    """

    def __init__(
        self, objective: JointObjective, resampled: ResampledWeights, mean: Array, slope: Array, residual: Array
    ) -> None:
        self.q, self.pairs, self.D = objective.q, objective.pairs, objective.D
        self.share, self.at, self.slices = resampled.share, resampled.at, objective.sample.slices
        self.weight = self.at.w
        weighted = self.share * self.weight * residual
        psi, sigma = [], []
        for a, rows in enumerate(self.slices):
            centred = self.at.tilt * (mean[a] - (self.share * self.at.tilt * mean[a]).sum(axis=0))
            centred = centred - self.at.measure * weighted[rows].sum(axis=0)
            centred[rows] += self.weight[rows] * residual[rows]
            tilted = self.at.tilt * slope[a] * np.ones_like(self.share)
            tilted[rows] = -self.at.excess[rows] * slope[a][rows]
            psi.append(centred)
            sigma.append(tilted)
        self.psi, self.dpsi, self.slope = np.stack(psi), np.stack(sigma), slope
        self.D_psi = np.tensordot(self.D, self.psi, axes=1)

    def variance(self) -> Array:
        """Mean of sum_ab D_ab psi_a psi_b, shape (m,)."""
        return (self.share * (self.D_psi * self.psi).sum(axis=0)).sum(axis=0)

    def centring(self) -> list[tuple[Array, Array]]:
        """Return what centres the derivatives: pairs of multiples, (n, m), of vectors, (K, p, m)."""
        total = np.stack([self.q.T @ (self.share * sigma) for sigma in self.dpsi])
        if self.at.measure is self.at.tilt:
            return [(self.at.tilt, total)]
        tilted = np.stack([self.q.T @ (self.share * self.at.tilt * slope) for slope in self.slope])
        return [(self.at.tilt, tilted), (self.at.measure, total - tilted)]

    def centred_slopes(self) -> list[tuple[Array, Array]]:
        """For each arm D psi, shape (n,), and the centred derivative of psi by theta, (n, p), of a single resample."""
        centres = self.centring()
        return [
            (pulled[:, 0], sigma * self.q - sum(f * centre[a].T for f, centre in centres))
            for a, (pulled, sigma) in enumerate(zip(self.D_psi, self.dpsi, strict=True))
        ]

    def gram(self) -> Array:
        """Gram matrix of the rows, shape (m, K p, K p + 1)."""
        n_arms, p, m = len(self.slices), self.q.shape[1], self.share.shape[1]
        gram, centres = np.zeros((m, n_arms * p, n_arms * p + 1)), self.centring()
        products = [[self.q.T @ (self.share * f * sigma) for sigma in self.dpsi] for f, _ in centres]
        squares = [[(self.share * f * g).sum(axis=0) for g, _ in centres] for f, _ in centres]
        for a in range(n_arms):
            for b in range(a + 1):
                block = gram_matrices(self.pairs, self.share * self.dpsi[a] * self.dpsi[b], p)
                for k, (_, centre) in enumerate(centres):
                    block -= _outer(products[k][a], centre[b]) + _outer(centre[a], products[k][b])
                    for j, (_, other) in enumerate(centres):
                        block += squares[k][j][:, None, None] * _outer(centre[a], other[b])
                gram[:, a * p : (a + 1) * p, b * p : (b + 1) * p] = self.D[a, b] * block
                gram[:, b * p : (b + 1) * p, a * p : (a + 1) * p] = self.D[a, b] * block.transpose(0, 2, 1)
            pulled = self.share * self.D_psi[a]
            cross = self.q.T @ (pulled * self.dpsi[a])
            cross -= sum((pulled * f).sum(axis=0) * centre[a] for f, centre in centres)
            gram[:, a * p : (a + 1) * p, -1] = -cross.T
        return gram

    def bend_weights(self, arm: int) -> Array:
        """Factor of m'' in the second derivative of the variance, halved, for one arm, shape (n, m)."""
        pulled, rows = self.D_psi[arm], self.slices[arm]
        by_tilt = pulled - (self.share * pulled * self.at.tilt).sum(axis=0)
        by_weight = pulled - (self.share * pulled * self.at.measure).sum(axis=0)
        total = self.at.tilt * by_tilt
        total[rows] -= self.weight[rows] * by_weight[rows]
        return self.share * total


def _outer(left: Array, right: Array) -> Array:
    """Outer products of columns, shape (m, p, p), of two arrays of shape (p, m)."""
    return np.einsum("pm,qm->mpq", left, right)


def objective_rows(objective: JointObjective, theta: Array, resampled: ResampledWeights) -> Array:
    """Rows of the joint objective about theta on the full sample, each factor by QR of the rows of the data.

    Parameters
    ----------
    objective : JointObjective
        The objective.
    theta : ndarray, shape (K, p)
        Coefficients.
    resampled : ResampledWeights
        The full sample as a resample.

    Returns
    -------
    ndarray, shape (r, K p + 1)
        Rows in the units of the objective, those of the net biases first, the largest first so that QR keeps their
        digits.
    """
    sample, criterion, q = objective.sample, objective.criterion, objective.q
    n_arms, p = theta.shape
    expansion = objective.expand(theta[..., None], resampled)
    eta = theta @ q.T
    share = resampled.share[:, 0]
    parts = [np.sqrt(criterion.penalty / resampled.replicated.count) * expansion.net_bias[0] / objective.row_units]
    if criterion.with_variance:
        mean, slope = sample.family.mean(eta), sample.family.mean_deriv(eta)
        residual = (sample.y - sample.own(mean))[:, None]
        arms = ArmInfluence(objective, resampled, mean[..., None], slope[..., None], residual)
        slopes = [part for _, part in arms.centred_slopes()]
        for contrast in criterion.contrasts:
            columns = [c * part for c, part in zip(contrast, slopes, strict=True)]
            row = np.column_stack([*columns, -contrast @ arms.psi[..., 0]])
            parts.append(triangular_factor(row * np.sqrt(share)[:, None]))
    score, _, expected = sample.family.score(sample.y, sample.own(eta))
    root = np.sqrt(criterion.alpha_sigma2 * share * resampled.mean_weight[:, 0] * expected)
    for a, rows in enumerate(sample.slices):
        placed = np.zeros((p + 1, n_arms * p + 1))
        factor = triangular_factor(np.column_stack([q[rows], score[rows] / expected[rows]]) * root[rows, None])
        placed[: len(factor), [*range(a * p, (a + 1) * p), -1]] = factor
        parts.append(placed)
    return np.concatenate(parts) * objective.row_units
