"""The joint objective and its quadratic expansion, for one resample or many at once.

Flows in: a sample, importance weights under the replicates, coefficients theta. Flows out: the equations and Gram
matrices of the objective about theta. With m_a the mean of arm a's outcome model, m_a' its derivative by the linear
predictor and sigma_0^2 the dispersion at the start,

    sigma_0^2 J = alpha sigma_0^2 sum_a L_a + (lambda / 2) mean_b sum_c u_cb^2 + V / 2 + (lambda_0 / 2) sum_c u_c^2

(`criterion` says which terms an objective has), u_b = C B_b the contrasts of the arm biases under replicate b,

    B_a = sum_i share_i 1{arm_i = a} w_ia (m_a - y_i),

and V the mean of psi' D psi (`variance`). All but the curvature of nonlinear means is a sum of squares of equations
(c, h), which stand for the residual c'z - h of a step z from theta; z is stacked arm by arm, shape (K p,). They are
divided by the residual spread of the sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from causalrisk.estimators.joint.criterion import JointCriterion
from causalrisk.estimators.joint.variance import EffectVariance, VarianceCentres
from causalrisk.estimators.sample import Sample, part_of, shifted
from causalrisk.numerics.families import OutcomeFamily
from causalrisk.numerics.linalg import Array, gram_matrices, pairwise_columns
from causalrisk.propensity.replicates import GroupWeights, ReplicateWeights, WeightMoments, weighted_sums
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
    moments : WeightMoments
        Their moments over the replicates.
    """

    share: Array
    at: ImportanceWeights
    replicated: ReplicateWeights
    moments: WeightMoments

    @classmethod
    def of(cls, share: Array, at: ImportanceWeights, replicated: ReplicateWeights) -> ResampledWeights:
        """Return the resamples with the moments of their replicates."""
        return cls(share, at, replicated, replicated.moments(at))

    def views(self, groups: Array | None) -> list[ResampledWeights]:
        """Return the resamples restricted to each group, shape (n, G), and divided by its share; or themselves."""
        if groups is None:
            return [self]
        found = []
        for inside in groups.T:
            share = (self.share * self.at.tilt * inside[:, None]).sum(axis=0)
            factor = inside[:, None] / np.where(share > 0, share, 1.0)
            replicated, moments = GroupWeights(self.replicated, factor), self.moments.scaled(factor)
            found.append(ResampledWeights(self.share, self.at.scaled(factor), replicated, moments))
        return found

    def part(self, rows: slice) -> ResampledWeights:
        """Return those of some of the rows, where the replicates can be taken apart."""
        moments, replicated = self.moments.part(rows), self.replicated.part(rows)
        return ResampledWeights(self.share[rows], self.at.part(rows), replicated, moments)

    def subset(self, columns: NDArray[np.bool_]) -> ResampledWeights:
        """Return some of the resamples."""
        at, moments = self.at.subset(columns), self.moments.subset(columns)
        return ResampledWeights(self.share[:, columns], at, self.replicated.subset(columns), moments)


@dataclass(frozen=True)
class Expansion:
    """The objective near theta.

    Parameters
    ----------
    strict : ndarray, shape (m, r, K p + 1)
        Equations of the net biases with the largest penalty, which keep their digits only as equations.
    gram : ndarray, shape (m, K p, K p + 1)
        Gram matrix of all other equations (c, h), without its last row, that of h.
    curvature : ndarray, shape (m, K p, K p), or None
        Terms of the Hessian that are not products of the equations; None for linear models.
    value : ndarray, shape (m,), or None
        The objective; None for linear models, which are solved in one step.
    """

    strict: Array
    gram: Array
    curvature: Array | None
    value: Array | None

    @property
    def nonlinear(self) -> tuple[Array, Array]:
        """Value and curvature, which linear models do not have."""
        if self.value is None or self.curvature is None:
            raise TypeError("a linear objective is minimised by its equations")
        return self.value, self.curvature


@dataclass(frozen=True)
class OutcomeMeans:
    """Outcome models at theta.

    Parameters
    ----------
    theta : ndarray, shape (K, p, m) or (K, p, 1)
        Coefficients.
    eta, mean, deriv : ndarray, shape (K, n, m) or (K, n, 1)
        Linear predictors, means m_a and their derivatives m_a'.
    residual : ndarray, shape (n, m) or (n, 1)
        y - m in a row's own arm.
    """

    theta: Array
    eta: Array
    mean: Array
    deriv: Array
    residual: Array


def step_unit(criterion: JointCriterion, family: OutcomeFamily) -> float:
    """Return the unit of a step of theta: the residual spread for linear models."""
    return criterion.rms_residual if family.linear else 1.0


def row_units(criterion: JointCriterion, family: OutcomeFamily, n_coefficients: int) -> Array:
    """Return what equations (c, h) in units of the outcome are multiplied by, shape (K p + 1,)."""
    return np.append(np.full(n_coefficients, step_unit(criterion, family)), 1.0) / criterion.rms_residual


def bias_rows(sample: Sample, at: OutcomeMeans) -> Array:
    """Return what each row has of the derivative of its arm's bias and of the bias, shape (n, m, p + 1)."""
    own = sample.own(at.deriv)[..., None] * sample.X.columns[:, None]
    return np.concatenate([own, -at.residual[..., None]], axis=2)


def fitted_forms(slices: tuple[slice, ...], rows: Array, resampled: ResampledWeights) -> Array:
    """Sum `bias_rows` over each arm under the fitted weights, shape (K, 1, m, p + 1)."""
    weighted = resampled.share * resampled.at.w
    return np.stack([weighted_sums(weighted[members], rows[members]) for members in slices])[:, None]


def contrasted(forms: Array, criterion: JointCriterion) -> Array:
    """Equations of the contrasts, shape (m, C B, K p + 1), from the biases of each arm, (K, B, m, p + 1)."""
    n_arms, count, m, width = forms.shape
    p, contrasts = width - 1, criterion.contrasts
    found = np.empty((n_arms * p + 1, m, len(contrasts), count))  # replicates last: what follows sums over them
    for c, contrast in enumerate(contrasts):
        for a, weight in enumerate(contrast):
            np.multiply(weight, forms[a, ..., :-1].transpose(2, 1, 0), out=found[a * p : (a + 1) * p, :, c])
        found[-1, :, c] = -(contrast @ forms[..., -1].reshape(n_arms, -1)).reshape(count, m).T
    return found.reshape(n_arms * p + 1, m, -1).transpose(1, 2, 0)


def penalised(criterion: JointCriterion, fitted: Array, replicated: Array, count: int) -> tuple[Array, Array]:
    """Multiply equations of net biases under `count` replicates by the roots of their penalties."""
    return np.sqrt(criterion.fitted_penalty) * fitted, np.sqrt(criterion.penalty / count) * replicated


def loss_weights(criterion: JointCriterion, resampled: ResampledWeights) -> Array:
    """Return the importance weights of the loss, shape (n, m): fitted, or averaged over the replicates."""
    return (resampled.at if criterion.full_risk else resampled.moments.mean).w


class JointObjective:
    """The joint objective of a sample.

    Parameters
    ----------
    sample : Sample
        The data.
    criterion : JointCriterion
        Weights of the terms.
    groups : ndarray, shape (n, G), optional
        Indicators of groups whose effects are wanted, each with a risk of its own; the objective has their averages.
    """

    def __init__(self, sample: Sample, criterion: JointCriterion, groups: Array | None = None) -> None:
        self.sample, self.criterion, self.groups = sample, criterion, groups
        self.q = sample.X.columns
        self.D = criterion.contrasts.T @ criterion.contrasts
        self.step_unit = step_unit(criterion, sample.family)
        self.row_units = row_units(criterion, sample.family, sample.n_arms * self.q.shape[1])

    @cached_property
    def pairs(self) -> Array:
        """Products of pairs of the outcome columns, shape (n, p (p + 1) / 2)."""
        return pairwise_columns(self.q)

    def means(self, theta: Array) -> OutcomeMeans:
        """Outcome models at theta, shape (K, p, m)."""
        sample, family = self.sample, self.sample.family
        eta = shifted(self.q @ theta, sample.offset, axis=-2)
        mean = family.mean(eta)
        return OutcomeMeans(
            theta=theta, eta=eta, mean=mean, deriv=family.mean_deriv(eta), residual=sample.y[:, None] - sample.own(mean)
        )

    def variance(
        self, at: OutcomeMeans, share: Array, moments: WeightMoments, centres: VarianceCentres | None = None
    ) -> EffectVariance:
        """V and its expansion about theta; with the centres of all rows, where these are a block of them."""
        return EffectVariance(
            q=self.q,
            slices=self.sample.slices,
            D=self.D,
            share=share,
            moments=moments,
            mean=at.mean,
            deriv=at.deriv,
            residual=at.residual,
            centres=centres,
        )

    def loss_weights(self, resampled: ResampledWeights) -> Array:
        """Weight of the loss of a row whose share is one, alpha sigma_0^2 w, shape (n, m)."""
        return self.criterion.alpha_sigma2 * loss_weights(self.criterion, resampled)

    def net_bias_equations(self, at: OutcomeMeans, resampled: ResampledWeights) -> tuple[Array, Array]:
        """Equations of the contrasts of the arm biases, in units of the outcome.

        Returns
        -------
        fitted : ndarray, shape (m, C, K p + 1)
            At the fitted propensity score.
        replicated : ndarray, shape (m, C B, K p + 1)
            Under each replicate.
        """
        rows = bias_rows(self.sample, at)
        return self._fitted_equations(rows, resampled), self._replicated_equations(rows, resampled)

    def _fitted_equations(self, rows: Array, resampled: ResampledWeights) -> Array:
        return contrasted(fitted_forms(self.sample.slices, rows, resampled), self.criterion)

    def _replicated_equations(self, rows: Array, resampled: ResampledWeights) -> Array:
        return contrasted(resampled.replicated.sums(resampled.share, rows), self.criterion)

    def strict_residuals(self, theta: Array, resampled: ResampledWeights) -> Array:
        """Residuals of the equations `Expansion.strict` alone at theta, shape (m, r)."""
        sample, criterion, views = self.sample, self.criterion, resampled.views(self.groups)
        predicted = [
            sample.family.mean(shifted(self.q[rows] @ of_arm, part_of(sample.offset, rows), axis=-2))
            for rows, of_arm in zip(sample.slices, theta, strict=True)
        ]
        error = (np.concatenate(predicted) - sample.y[:, None])[..., None]
        if criterion.full_risk:
            root, equations = np.sqrt(criterion.fitted_penalty), self._fitted_equations
        else:
            root, equations = np.sqrt(criterion.penalty / resampled.replicated.count), self._replicated_equations
        found = np.concatenate([-equations(error, view)[..., -1] for view in views], axis=1)
        return root / np.sqrt(len(views)) * self.row_units[-1] * found

    def penalised(self, fitted: Array, replicated: Array, count: int) -> tuple[Array, Array]:
        """Multiply equations of net biases under `count` replicates by the roots of their penalties."""
        return penalised(self.criterion, fitted, replicated, count)

    def expand(self, theta: Array, resampled: ResampledWeights) -> Expansion:
        """Expand about theta, shape (K, p, m), or (K, p, 1) for all resamples alike."""
        sample, family = self.sample, self.sample.family
        at = self.means(theta)
        own, own_deriv = sample.own(at.eta), sample.own(at.deriv)
        trained = resampled.share * self.loss_weights(resampled)
        score, second, expected = family.score(sample.y[:, None], own)
        weights, scores = trained * expected, trained * score
        views = resampled.views(self.groups)
        strict, grams = [], []
        curved = _Curvature() if family.linear else _Curvature.of_fit(self, at, trained, second - expected)
        for view in views:
            fitted, replicated = self.penalised(*self.net_bias_equations(at, view), view.replicated.count)
            curved.add_risk(self, at=at, view=view, fitted=fitted, replicated=replicated, n_views=len(views))
            if not self.criterion.full_risk:
                strict.append(replicated)
                continue
            strict.append(fitted)
            variance = self.variance(at, view.share, view.moments)
            of_weights, of_scores = variance.own_terms(own_deriv)
            weights = weights + view.share * of_weights / len(views)
            scores = scores + view.share * of_scores / len(views)
            grams.append(replicated[..., :-1].transpose(0, 2, 1) @ replicated + variance.gram(self.pairs))
            curved.add_variance(self, at, variance, len(views))
        gram = sum(grams, np.zeros(1)) / len(views) + self._fit_gram(weights, scores)
        units = self.row_units
        return Expansion(
            np.concatenate(strict, axis=1) / np.sqrt(len(views)) * units,
            gram * units[:-1, None] * units,
            None if curved.weights is None else self._bend(curved.weights),
            None if curved.value is None else curved.value / self.criterion.rms_residual**2,
        )

    def _fit_gram(self, weights: Array, scores: Array) -> Array:
        """Gram matrix of the equations of a weighted fit of each arm, shape (m, K p, K p + 1)."""
        p, m = self.q.shape[1], weights.shape[1]
        size = self.sample.n_arms * p
        gram = np.zeros((m, size, size + 1))
        for a, rows in enumerate(self.sample.slices):
            block = slice(a * p, (a + 1) * p)
            gram[:, block, block] = gram_matrices(self.pairs[rows], weights[rows], p)
            gram[:, block, -1] = scores[rows].T @ self.q[rows]
        return gram

    def _bend(self, weights: Array) -> Array:
        """Curvature of the means, shape (m, K p, K p), from what multiplies it, shape (K, n, m)."""
        n_arms, p = len(weights), self.q.shape[1]
        total = np.zeros((weights.shape[2], n_arms * p, n_arms * p))
        for a in range(n_arms):
            total[:, a * p : (a + 1) * p, a * p : (a + 1) * p] = gram_matrices(self.pairs, weights[a], p)
        return total * (self.step_unit / self.criterion.rms_residual) ** 2


@dataclass
class _Curvature:
    """Value and curvature of a nonlinear objective, added up term by term; nothing for a linear one.

    Parameters
    ----------
    weights : ndarray, shape (K, n, m), or None
        Multiplies q q' in the terms of the Hessian that are not products of the equations.
    value : ndarray, shape (m,), or None
        The objective.
    """

    weights: Array | None = None
    value: Array | None = None

    @classmethod
    def of_fit(cls, objective: JointObjective, at: OutcomeMeans, trained: Array, second: Array) -> _Curvature:
        """Begin with the loss of the rows under weights `trained`, `second` its derivative beside the expected one."""
        sample, family = objective.sample, objective.sample.family
        loss = family.loss(sample.y[:, None], sample.own(at.eta))
        return cls(sample.blocks_of(trained * second), (trained * loss).sum(axis=0))

    def add_risk(
        self,
        objective: JointObjective,
        at: OutcomeMeans,
        view: ResampledWeights,
        fitted: Array,
        replicated: Array,
        n_views: int,
    ) -> None:
        """Add the net biases, given as penalised equations: sum_b lambda_b u_b d2 u_b."""
        if self.weights is None or self.value is None:
            return
        sample, contrasts, count = objective.sample, objective.criterion.contrasts, view.replicated.count
        # the equations have the root of the penalty, which multiplies u_b once more
        times_fitted, times_replicated = objective.penalised(fitted, replicated, count)
        pull = -contrasts.T @ times_fitted[..., -1].T
        values = -times_replicated[..., -1].T.reshape(len(contrasts), -1, times_replicated.shape[0])
        by_row = view.replicated.adjoint(np.tensordot(contrasts.T, values, axes=1))
        for a, rows in enumerate(sample.slices):
            by_row[rows] += view.at.w[rows] * pull[a]
        deriv2 = sample.family.mean_deriv2(sample.own(at.eta))
        self.weights = self.weights + sample.blocks_of(view.share * by_row * deriv2) / n_views
        squares = (fitted[..., -1] ** 2).sum(axis=1) + (replicated[..., -1] ** 2).sum(axis=1)
        self.value = self.value + squares / 2 / n_views

    def add_variance(self, objective: JointObjective, at: OutcomeMeans, variance: EffectVariance, n_views: int) -> None:
        """Add V / 2."""
        if self.weights is None or self.value is None:
            return
        deriv2 = objective.sample.family.mean_deriv2(at.eta)
        self.weights = self.weights + variance.curvature_weights() * deriv2 / n_views
        self.value = self.value + variance.value() / 2 / n_views
