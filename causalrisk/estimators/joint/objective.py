"""The joint objective and its quadratic expansion, for one resample or many at once.

Flows in: a sample, importance weights under the replicates, coefficients theta. Flows out: the equations and Gram
matrices of the objective about theta. With m_a the mean of arm a's outcome model, m_a' its derivative by the linear
predictor and sigma_0^2 the dispersion at the start,

    sigma_0^2 J = alpha sigma_0^2 sum_a L_a + (lambda / 2) mean_b sum_c u_cb^2 + V / 2 + (lambda_0 / 2) sum_c u_c^2

u_b = C B_b the contrasts of the arm biases under replicate b,

    B_a = sum_i share_i 1{arm_i = a} w_ia (m_a - y_i),

u that at the fitted score, L_a the importance-weighted loss of arm a, and V the mean of psi^T D psi, where psi counts
the means less a share c of those at the start (`variance`). All but the curvature of nonlinear means is a sum of
squares of equations (c, h), which stand for the residual c'z - h of a step z from theta; z is stacked arm by arm, shape
(K p,). They are divided by the residual spread of the sample.

For n units the objective "risk" has lambda = n, so that the second and third terms are (n / 2) R, R the expected ATE
risk, and lambda_0 = n^2; its L_a are those at the fitted score. The objective "erm" has alpha = 1, lambda = n^2 and
neither V nor u; its L_a are averages over the replicates.

`JointObjective` evaluates it for nonlinear outcome models. For linear ones it gives means and V alone: the objective is
then made of equations of the rows (`equations`, of the sample) or of sums of products of columns (`minima`, of
resamples). The package docstring has a table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from causalrisk.estimators.joint.variance import DPsiSums, EffectVariance, OutcomeMeans, VarianceCentres, own_terms
from causalrisk.estimators.sample import Sample, part_of, shifted
from causalrisk.numerics.families import OutcomeFamily
from causalrisk.numerics.linalg import Array, gram_matrices, pairwise_columns
from causalrisk.propensity.replicates import ReplicateWeights, WeightMoments, weighted_sums
from causalrisk.propensity.weights import ImportanceWeights


@dataclass(frozen=True)
class Criterion:
    """Weights of the terms of the objective.

    Parameters
    ----------
    alpha : float
        Weight of the importance-weighted loss (the anchor; 1 for "erm").
    penalty : float
        lambda, the weight of the squared net bias averaged over the replicates.
    fitted_penalty : float
        lambda_0, the weight of the squared net bias at the fitted propensity score.
    full_risk : bool
        Whether the risk has the sampling variance V; the loss is then that at the fitted propensity score, else an
        average over the replicates.
    real_share : float, optional
        c; by default what is real of the effect heterogeneity at the start.
    """

    alpha: float
    penalty: float
    fitted_penalty: float
    full_risk: bool
    real_share: float | None = None

    @classmethod
    def risk(cls, alpha: float, n_units: float, share: float | None = None) -> Criterion:
        """Return the objective "risk" for n units."""
        return cls(alpha, n_units, n_units**2, True, share)

    @classmethod
    def erm(cls, penalty: float) -> Criterion:
        """Return the objective "erm"."""
        return cls(1.0, penalty, 0.0, False, 0.0)


@dataclass(frozen=True)
class JointCriterion:
    """A criterion for one sample: with what is held fixed when rows are weighted anew.

    Parameters
    ----------
    alpha_sigma2 : float
        alpha times sigma_0^2, the mean variance function at the start: the loss in units of the squared outcome.
    penalty, fitted_penalty, full_risk
        As in `Criterion`.
    real_share : float
        c.
    contrasts : ndarray, shape (K - 1, K)
        C: contrasts of the arm biases whose squares make up the risk.
    scale_slopes : ndarray, shape (K,)
        Derivative of the scale of the effect at each arm mean of the start.
    rms_residual : float
        Root mean square of the residuals of the start, for equations free of units.
    """

    alpha_sigma2: float
    penalty: float
    fitted_penalty: float
    full_risk: bool
    real_share: float
    contrasts: Array
    scale_slopes: Array
    rms_residual: float

    @property
    def D(self) -> Array:
        """C'C, shape (K, K)."""
        return self.contrasts.T @ self.contrasts


def ate_risk(arm_bias: Array) -> Array:
    """Return the squared net bias under each propensity replicate.

    Parameters
    ----------
    arm_bias : ndarray, shape (K, B)
        Bias of each arm's outcome model, in units of the outcome; row 0 is the reference arm.

    Returns
    -------
    ndarray, shape (B,)
        (2 / K) sum_{k<l} (B_k - B_l)^2, in squared units of the outcome; for two arms the squared net bias.

    Notes
    -----
    Zero when the biases are equal, even if none is zero [1]_. It depends on no reference arm.

    References
    ----------
    .. [1] Zhang, A. (2025). Causal Inference as Distribution Adaptation: Optimizing ATE Risk under Propensity
       Uncertainty. arXiv:2512.18083.

    Examples
    --------
    >>> import numpy as np
    >>> ate_risk(np.array([[1.0, 0.0], [1.0, 3.0]]))
    array([0., 9.])
    """
    return ((bias_contrasts(len(arm_bias)) @ arm_bias) ** 2).sum(axis=0)


def bias_contrasts(n_arms: int) -> Array:
    """Contrasts whose sum of squares is the ATE risk, shape (K - 1, K): Helmert's, each of squared length two."""
    contrasts = np.zeros((n_arms - 1, n_arms))
    for k in range(1, n_arms):
        contrasts[k - 1, :k], contrasts[k - 1, k] = -1.0, k
        contrasts[k - 1] *= np.sqrt(2 / (k * (k + 1)))
    return contrasts


def unit_slopes(slopes: Array) -> Array:
    """Slopes of the scale of an effect at the arm means, their mean square set to one.

    A risk of biases times these keeps the units of the outcome.
    """
    return slopes / np.sqrt((slopes**2).mean())


@dataclass(frozen=True)
class ResampledWeights:
    """m resamples with their importance weights and where their fits start.

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
    start_theta : ndarray, shape (K, p, m), or None
        Coefficients of IPWRA; None where those of linear models are made of sums over the rows.
    """

    share: Array
    at: ImportanceWeights
    replicated: ReplicateWeights
    moments: WeightMoments
    start_theta: Array | None

    @classmethod
    def of(
        cls, share: Array, at: ImportanceWeights, replicated: ReplicateWeights, start_theta: Array | None
    ) -> ResampledWeights:
        """Return the resamples with the moments of their replicates."""
        return cls(share, at, replicated, replicated.moments(at), start_theta)

    @property
    def known_start(self) -> Array:
        """The coefficients of IPWRA, where they are known."""
        if self.start_theta is None:
            raise TypeError("the coefficients of IPWRA are not known")
        return self.start_theta

    def subset(self, columns: NDArray[np.bool_]) -> ResampledWeights:
        """Return some of the resamples."""
        at, moments = self.at.subset(columns), self.moments.subset(columns)
        start_theta = None if self.start_theta is None else self.start_theta[..., columns]
        return ResampledWeights(self.share[:, columns], at, self.replicated.subset(columns), moments, start_theta)


@dataclass(frozen=True)
class Expansion:
    """The objective near theta.

    Parameters
    ----------
    strict : ndarray, shape (m, r, K p + 1)
        Equations of the net biases with the largest penalty, which keep their digits only as equations.
    gram : ndarray, shape (m, K p, K p + 1)
        Gram matrix of all other equations (c, h), without its last row, that of h.
    curvature : ndarray, shape (m, K p, K p)
        Terms of the Hessian that are not products of the equations.
    value : ndarray, shape (m,)
        The objective.
    """

    strict: Array
    gram: Array
    curvature: Array
    value: Array


@dataclass(frozen=True)
class FirstPassSums:
    """What the terms of the objective need of all rows at theta; sums over rows.

    Parameters
    ----------
    fitted, replicated : ndarray, shape (K, 1, m, p + 1) and (K, B, m, p + 1)
        For each arm the derivative of its bias, and the bias: at the fitted score and under the replicates.
    centres : VarianceCentres or None
        What centres psi; None without V.
    D_psi : DPsiSums or None
        What its curvature needs.
    """

    fitted: Array
    replicated: Array
    centres: VarianceCentres | None
    D_psi: DPsiSums | None

    def without_slopes(self) -> FirstPassSums:
        """Return the biases without their derivatives, which the terms do not need."""
        return replace(self, fitted=self.fitted[..., -1:], replicated=self.replicated[..., -1:])


@dataclass(frozen=True)
class ObjectiveTerms:
    """The terms of the objective near theta but for its net biases; sums over rows.

    Parameters
    ----------
    fit : ndarray, shape (m, K p, K p + 1)
        Gram matrix of the equations of the losses and of the part `own_sd` of V.
    variance : ndarray, shape (m, K p, K p + 1), or None
        That of the rest of V; None without V.
    curvature : ndarray, shape (m, K p, K p)
        `Expansion.curvature`.
    loss : ndarray, shape (m,)
        The losses.
    value : ndarray, shape (m,), or None
        V.
    """

    fit: Array
    variance: Array | None
    curvature: Array
    loss: Array
    value: Array | None


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
    # the last column is h = -u: the residual c'z - h of a step z = 0 is the net bias
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
    pairs : callable, optional
        Gives the products of pairs of the outcome columns, shape (n, p (p + 1) / 2), where they are kept elsewhere.
    """

    def __init__(
        self,
        sample: Sample,
        criterion: JointCriterion,
        pairs: Callable[[], Array] | None = None,
    ) -> None:
        self.sample, self.criterion, self._pairs = sample, criterion, pairs
        self._last: tuple[bytes, OutcomeMeans] | None = None
        self._start: tuple[bytes, Array] | None = None
        self.q = sample.X.columns
        self.D = criterion.D
        self.step_unit = step_unit(criterion, sample.family)
        self.row_units = row_units(criterion, sample.family, sample.n_arms * self.q.shape[1])

    @cached_property
    def pairs(self) -> Array:
        """Products of pairs of the outcome columns, shape (n, p (p + 1) / 2)."""
        return pairwise_columns(self.q) if self._pairs is None else self._pairs()

    def means(self, theta: Array) -> OutcomeMeans:
        """Outcome models at theta, shape (K, p, m); those of the last point are kept."""
        sample, family, key, last = self.sample, self.sample.family, theta.tobytes(), self._last
        if last is not None and last[0] == key:
            return last[1]
        eta = shifted(self.q @ theta, sample.offset, axis=-2)
        mean = family.mean(eta)
        residual = sample.y[:, None] - sample.own(mean)
        found = OutcomeMeans(theta=theta, eta=eta, mean=mean, deriv=family.mean_deriv(eta), residual=residual)
        self._last = key, found
        return found

    def counted(self, mean: Array, resampled: ResampledWeights) -> Array:
        """Return means m_a less the share c of those at the start, as V counts them; shape (K, n, m)."""
        share = self.criterion.real_share
        return mean - share * self.start_means(resampled.known_start) if share else mean

    def start_means(self, start: Array) -> Array:
        """Return m_a at the start, (K, p, m); shape (K, n, m). Those of the last start are kept."""
        key = start.tobytes()
        if self._start is None or self._start[0] != key:
            self._start = key, self.sample.family.mean(shifted(self.q @ start, self.sample.offset, axis=-2))
        return self._start[1]

    def start_deriv(self, start: Array) -> Array:
        """Return m_a' at the start, (K, p, m); shape (K, n, m)."""
        return self.sample.family.mean_deriv(shifted(self.q @ start, self.sample.offset, axis=-2))

    def variance(
        self, at: OutcomeMeans, resampled: ResampledWeights, centres: VarianceCentres | None = None
    ) -> EffectVariance:
        """V and its expansion about theta; with the centres of all rows, where these are a block of them."""
        counted = self.counted(at.mean, resampled)
        return EffectVariance(self.sample, self.D, resampled.share, resampled.moments, at, counted, centres)

    def strict_residuals(self, theta: Array, resampled: ResampledWeights) -> Array:
        """Residuals of the equations `Expansion.strict` alone at theta, shape (m, r); those of blocks add up."""
        sample, criterion = self.sample, self.criterion
        predicted = [
            sample.family.mean(shifted(self.q[rows] @ of_arm, part_of(sample.offset, rows), axis=-2))
            for rows, of_arm in zip(sample.slices, theta, strict=True)
        ]
        error = (np.concatenate(predicted) - sample.y[:, None])[..., None]
        if criterion.full_risk:
            root = np.sqrt(criterion.fitted_penalty)
            forms = fitted_forms(sample.slices, error, resampled)
        else:
            root = np.sqrt(criterion.penalty / resampled.replicated.count)
            forms = resampled.replicated.sums(resampled.share, error)
        return root * self.row_units[-1] * -contrasted(forms, criterion)[..., -1]

    def strict_after_pass(self, first_pass: FirstPassSums) -> Array:
        """As `strict_residuals`, where the sums of the first pass are known."""
        fitted, replicated = self.equations(first_pass)
        return -(fitted if self.criterion.full_risk else replicated)[..., -1] * self.row_units[-1]

    def first_pass(self, at: OutcomeMeans, resampled: ResampledWeights) -> FirstPassSums:
        """Sum over rows what the terms need of all rows; those of blocks add up."""
        sample, full_risk, rows = self.sample, self.criterion.full_risk, bias_rows(self.sample, at)
        return FirstPassSums(
            fitted=fitted_forms(sample.slices, rows, resampled),
            replicated=resampled.replicated.sums(resampled.share, rows),
            centres=self._centres(at, resampled) if full_risk else None,
            D_psi=self._D_psi_sums(at, resampled) if full_risk else None,
        )

    def _centres(self, at: OutcomeMeans, resampled: ResampledWeights) -> VarianceCentres:
        counted = self.counted(at.mean, resampled)
        return VarianceCentres.of(self.sample, resampled.share, resampled.moments.mean, at, counted)

    def _D_psi_sums(self, at: OutcomeMeans, resampled: ResampledWeights) -> DPsiSums:
        above, share = self.counted(at.mean, resampled) - self._middle(at)[:, None], resampled.share
        return DPsiSums.of(self.sample.slices, share, resampled.moments, above=above, residual=at.residual)

    def _middle(self, at: OutcomeMeans) -> Array:
        """Where the means that V counts of each arm lie, about, shape (K, m); any number serves.

        It is where only the first basis column, the constant, counts.
        """
        middle = (1 - self.criterion.real_share) * self.sample.family.mean(at.theta[:, 0])
        return np.where(np.isfinite(middle), middle, 0.0)

    def terms(self, at: OutcomeMeans, resampled: ResampledWeights, first_pass: FirstPassSums) -> ObjectiveTerms:
        """Sum over rows the terms of the objective, given what they need of all rows; those of blocks add up."""
        sample, family, share = self.sample, self.sample.family, resampled.share
        own, own_deriv = sample.own(at.eta), sample.own(at.deriv)
        trained = share * (self.criterion.alpha_sigma2 * loss_weights(self.criterion, resampled))
        score, second, expected = family.score(sample.y[:, None], own)
        weights, scores = trained * expected, trained * score
        curving, gram, value = sample.blocks_of(trained * (second - expected)), None, None
        curving = curving + self._risk_curvature(at, resampled, self.equations(first_pass))
        if first_pass.D_psi is not None:
            variance = self.variance(at, resampled, first_pass.centres)
            of_weights, of_scores = own_terms(sample, self.D, resampled.moments, own_deriv, at.residual)
            weights, scores = weights + share * of_weights, scores + share * of_scores
            sums = first_pass.D_psi.centred(self.D, variance.centres, self._middle(at))
            curving = curving + variance.curvature_weights(sums) * family.mean_deriv2(at.eta)
            gram, value = variance.gram(self.pairs), variance.value()
        return ObjectiveTerms(
            fit=self._fit_gram(weights, scores),
            variance=gram,
            curvature=self._curvature(curving),
            loss=(trained * family.loss(sample.y[:, None], own)).sum(axis=0),
            value=value,
        )

    def _risk_curvature(self, at: OutcomeMeans, resampled: ResampledWeights, equations: tuple[Array, Array]) -> Array:
        """Return what multiplies q q' in sum_b lambda_b u_b d2 u_b, shape (K, n, m); the equations are penalised."""
        sample, contrasts, count = self.sample, self.criterion.contrasts, resampled.replicated.count
        # the equations have the root of the penalty, which multiplies u_b once more
        times_fitted, times_replicated = penalised(self.criterion, *equations, count)
        pull = -contrasts.T @ times_fitted[..., -1].T
        values = -times_replicated[..., -1].T.reshape(len(contrasts), count, -1)
        by_row = resampled.replicated.adjoint(np.tensordot(contrasts.T, values, axes=1))
        for a, rows in enumerate(sample.slices):
            by_row[rows] += resampled.at.w[rows] * pull[a]
        return sample.blocks_of(resampled.share * by_row * sample.family.mean_deriv2(sample.own(at.eta)))

    def equations(self, first_pass: FirstPassSums) -> tuple[Array, Array]:
        """Penalised equations of the net biases, shape (m, C, K p + 1) and (m, C B, K p + 1)."""
        fitted, replicated = (contrasted(each, self.criterion) for each in (first_pass.fitted, first_pass.replicated))
        return penalised(self.criterion, fitted, replicated, first_pass.replicated.shape[1])

    def expansion(self, first_pass: FirstPassSums, terms: ObjectiveTerms) -> Expansion:
        """Put together what all rows add up to."""
        units, gram = self.row_units, terms.fit
        fitted, replicated = self.equations(first_pass)
        value = terms.loss + ((fitted[..., -1] ** 2).sum(axis=1) + (replicated[..., -1] ** 2).sum(axis=1)) / 2
        if terms.variance is not None and terms.value is not None:
            gram = replicated[..., :-1].transpose(0, 2, 1) @ replicated + terms.variance + gram
            value = value + terms.value / 2
        return Expansion(
            (fitted if self.criterion.full_risk else replicated) * units,
            gram * units[:-1, None] * units,
            terms.curvature,
            value / self.criterion.rms_residual**2,
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

    def _curvature(self, weights: Array) -> Array:
        """Curvature of the means, shape (m, K p, K p), from what multiplies it, shape (K, n, m)."""
        n_arms, p = len(weights), self.q.shape[1]
        total = np.zeros((weights.shape[2], n_arms * p, n_arms * p))
        for a in range(n_arms):
            total[:, a * p : (a + 1) * p, a * p : (a + 1) * p] = gram_matrices(self.pairs, weights[a], p)
        return total * (self.step_unit / self.criterion.rms_residual) ** 2
