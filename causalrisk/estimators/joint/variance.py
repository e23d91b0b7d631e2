"""The sampling variance of the effect, averaged over the propensity distribution, and its quadratic expansion.

Flows in: means of all arms and their derivatives at theta, moments of the importance weights over the replicates.
Flows out: V and its expansion in theta, for one resample or many at once.

    V = mean_ib psi_ib^T D psi_ib,    psi_ib,a = t_ib (d_a - M_a) + 1{arm = a} w_ib (y - m_a) - measure_ib R_a

For d_a = m_a, psi_a is the influence function of the mean of arm a at known propensity scores; M_a = mean_ib t_ib d_a
and R_a = mean_ib 1{arm = a} w_ib (y - m_a) centre it. The objective counts d_a = m_a - c m_a(start): less a share of
the effect heterogeneity at the start, which does not depend on theta. So psi here is the psi' of the method page; in
the code a prime is a derivative by theta_a, or in C'C a transpose. D = C'C, C the contrasts. The derivative of psi_a is

    psi'_ib,a = (t_ib - 1{arm = a} w_ib) m_a' q - t_ib M'_a - measure_ib R'_a

A mean over b of a product of two weights is a sum over the parts of `WeightMoments`, so nothing here has B columns.

Gradients of single rows and derivatives of their psi, K p numbers a row, are sums of multiples of the row's outcome
columns in the places of the arms and of a few vectors that all rows share: `RowVectors` keeps the multiples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from causalrisk.estimators.sample import Sample
from causalrisk.numerics.linalg import Array, gram_matrices
from causalrisk.propensity.replicates import WeightMoments
from causalrisk.propensity.weights import ImportanceWeights


@dataclass(frozen=True)
class RowVectors:
    """A vector of each of n rows; they add up.

    Parameters
    ----------
    scales : ndarray, shape (K, n), or None
        Multiples of the row's outcome columns, in the place of each arm; None for none.
    factors : ndarray, shape (r, n)
        Multiples of the shared vectors.
    shared : ndarray, shape (r, K p)
        The shared vectors.
    own : ndarray, shape (K p, n), or None
        What is of no such form.
    """

    scales: Array | None
    factors: Array
    shared: Array
    own: Array | None = None

    @classmethod
    def of_columns(cls, scales: Array, p: int) -> RowVectors:
        """Return multiples, shape (K, n), of the p outcome columns in the place of each arm."""
        n_arms, n = scales.shape
        return cls(scales, np.empty((0, n)), np.empty((0, n_arms * p)))

    @classmethod
    def of_shared(cls, factors: Array, shared: Array) -> RowVectors:
        """Return multiples, shape (r, n), of vectors that all rows share, (r, K p) or (r, K, p)."""
        return cls(None, factors, shared.reshape(len(factors), -1))

    @classmethod
    def over_replicates(cls, measure: Array, values: Array) -> RowVectors:
        """Sum over replicates of a measure, (n, b) or the same (n, 1) for all, times values, shape (b, K p)."""
        if measure.shape[1] == 1:
            return cls.of_shared(measure.T, values.sum(axis=0, keepdims=True))
        return cls.of_own(values.T @ measure.T)

    @classmethod
    def of_own(cls, own: Array) -> RowVectors:
        """Return any vectors, shape (K p, n)."""
        width, n = own.shape
        return cls(None, np.empty((0, n)), np.empty((0, width)), own)

    @classmethod
    def none(cls, n: int, width: int) -> RowVectors:
        """Return vectors of zeros, K p of them `width`."""
        return cls(None, np.empty((0, n)), np.empty((0, width)))

    def __add__(self, other: RowVectors) -> RowVectors:
        """Add vectors of the same rows."""
        return RowVectors(
            scales=_added(self.scales, other.scales),
            factors=np.concatenate([self.factors, other.factors]),
            shared=np.concatenate([self.shared, other.shared]),
            own=_added(self.own, other.own),
        )

    def __neg__(self) -> RowVectors:
        """Turn them round."""
        scales, own = (None if part is None else -part for part in (self.scales, self.own))
        return RowVectors(scales, self.factors, -self.shared, own)

    def __sub__(self, other: RowVectors) -> RowVectors:
        """Subtract vectors of the same rows."""
        return self + -other

    def by_place(self, factor: Array) -> RowVectors:
        """Multiply what are not multiples of the row's columns by a factor of each component, shape (K p,)."""
        own = None if self.own is None else factor[:, None] * self.own
        return RowVectors(self.scales, self.factors, self.shared * factor, own)

    def written(self, columns: Array) -> Array:
        """Write them out, shape (K p, n); `columns` are the outcome columns, (p, n)."""
        total = self.shared.T @ self.factors
        if self.own is not None:
            total += self.own
        if self.scales is not None:
            for place, scale in zip(total.reshape(-1, *columns.shape), self.scales, strict=True):
                place += scale * columns
        return total


def in_place(vectors: Array) -> Array:
    """Put a vector of each arm into its place, shape (K, K p), from shape (K, p)."""
    n_arms, p = vectors.shape
    placed = np.zeros((n_arms, n_arms, p))
    placed[np.arange(n_arms), np.arange(n_arms)] = vectors
    return placed.reshape(n_arms, n_arms * p)


def _added(one: Array | None, other: Array | None) -> Array | None:
    if one is None or other is None:
        return other if one is None else one
    return one + other


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


@dataclass(frozen=True)
class PsiPart:
    """psi with the weights of one part of the moments.

    Parameters
    ----------
    weights : ImportanceWeights
        The weights of this part.
    psi : ndarray, shape (K, n, m)
        psi_a.
    D_psi : ndarray, shape (K, n, m)
        D psi.
    factor : ndarray, shape (K, n, m)
        (t - 1{arm = a} w) m_a', what multiplies q in the derivative before centring.
    """

    weights: ImportanceWeights
    psi: Array
    D_psi: Array
    factor: Array


@dataclass(frozen=True)
class VarianceCentres:
    """What centres psi and its derivatives: sums over all rows.

    Parameters
    ----------
    M, R : ndarray, shape (K, m)
        M_a and R_a.
    of_tilt : ndarray, shape (K, p, m)
        M'_a, or where tilt and measure are one M'_a + R'_a.
    of_measure : ndarray, shape (K, p, m), or None
        R'_a; None where tilt and measure are one.
    """

    M: Array
    R: Array
    of_tilt: Array
    of_measure: Array | None

    @classmethod
    def of(
        cls, sample: Sample, share: Array, weights: ImportanceWeights, at: OutcomeMeans, counted: Array
    ) -> VarianceCentres:
        """Sum over rows, under the mean of the weights; those of blocks add up. Arguments as in `EffectVariance`."""
        q, slices, weighted = sample.X.columns, sample.slices, share * weights.w * at.residual
        M = np.stack([(share * weights.tilt * d).sum(axis=0) for d in counted])
        R = np.stack([weighted[rows].sum(axis=0) for rows in slices])
        factors = [_factor(weights, rows, slope) for rows, slope in zip(slices, at.deriv, strict=True)]
        total = np.stack([q.T @ (share * factor) for factor in factors])
        if weights.measure is weights.tilt:
            return cls(M, R, total, None)
        tilted = np.stack([q.T @ (share * weights.tilt * slope) for slope in at.deriv])
        return cls(M, R, tilted, total - tilted)


@dataclass(frozen=True)
class DPsiSums:
    """Sums over all rows of D psi times tilt and measure, before psi is centred; for each part of the moments.

    Parameters
    ----------
    of_tilt, of_measure : ndarray, shape (J, K, m)
        Sums of share times tilt, or measure, times psi_a without its centres, d_a measured from a middle.
    tilt_tilt, tilt_measure, measure_measure : ndarray, shape (J, m)
        Sums of share times their products.
    """

    of_tilt: Array
    of_measure: Array
    tilt_tilt: Array
    tilt_measure: Array
    measure_measure: Array

    @classmethod
    def of(
        cls, slices: tuple[slice, ...], share: Array, moments: WeightMoments, *, above: Array, residual: Array
    ) -> DPsiSums:
        """Sum over rows, of `above` d_a less its middle, shape (K, n, m); those of blocks add up."""
        found = []
        for part in moments.parts:
            factors = [part.tilt] if part.measure is part.tilt else [part.tilt, part.measure]
            products = [_uncentred(slices, share * f, part, above=above, residual=residual) for f in factors]
            found.append((*products[0], *products[-1]))
        of_tilt, tilt_tilt, tilt_measure, of_measure, _, measure_measure = (
            np.stack(of) for of in zip(*found, strict=True)
        )
        return cls(of_tilt, of_measure, tilt_tilt, tilt_measure, measure_measure)

    def centred(self, D: Array, centres: VarianceCentres, middle: Array) -> tuple[Array, Array]:
        """Sum over the parts D psi times tilt and times measure, shape (K, m), the middles (K, m) given."""
        M, R = centres.M - middle, centres.R
        of_tilt = self.of_tilt - M * self.tilt_tilt[:, None] - R * self.tilt_measure[:, None]
        of_measure = self.of_measure - M * self.tilt_measure[:, None] - R * self.measure_measure[:, None]
        return D @ of_tilt.sum(axis=0), D @ of_measure.sum(axis=0)


def _uncentred(
    slices: tuple[slice, ...], share: Array, part: ImportanceWeights, *, above: Array, residual: Array
) -> tuple[Array, Array, Array]:
    """Sum share times psi_a without its centres, shape (K, m), and share times tilt and measure, shape (m,)."""
    tilted = share * part.tilt
    own = share * part.w * residual
    sums = [(tilted * m).sum(axis=0) + own[rows].sum(axis=0) for m, rows in zip(above, slices, strict=True)]
    return np.stack(sums), tilted.sum(axis=0), (share * part.measure).sum(axis=0)


class EffectVariance:
    """V at theta and its expansion.

    Parameters
    ----------
    sample : Sample
        The rows.
    D : ndarray, shape (K, K)
        C'C.
    share : ndarray, shape (n, m)
        Weights of the rows divided by their sum over the sample.
    moments : WeightMoments
        Moments of the importance weights over the replicates.
    at : OutcomeMeans
        Outcome models at theta.
    counted : ndarray, shape (K, n, m) or (K, n, 1)
        d_a.
    centres : VarianceCentres, optional
        Where the rows are a block of others, those of all.
    """

    def __init__(
        self,
        sample: Sample,
        D: Array,
        share: Array,
        moments: WeightMoments,
        at: OutcomeMeans,
        counted: Array,
        centres: VarianceCentres | None = None,
    ) -> None:
        self.q, self.slices, self.D, self.share = sample.X.columns, sample.slices, D, share
        self.moments, self.deriv, self.residual = moments, at.deriv, at.residual
        self.centres = centres or VarianceCentres.of(sample, share, moments.mean, at, counted)
        self.M, self.R = self.centres.M, self.centres.R
        self.parts = [self.psi_under(weights, counted) for weights in moments.parts]
        self.own_D = np.diag(D)[sample.arm][:, None]

    def psi_under(self, weights: ImportanceWeights, counted: Array) -> PsiPart:
        """Return psi under weights of shape (n, m); `counted` is d_a, shape (K, n, m) or (K, n, 1)."""
        psi, factor, w = [], [], weights.w
        for a, rows in enumerate(self.slices):
            value = (weights.tilt * (counted[a] - self.M[a]) - weights.measure * self.R[a]) * np.ones_like(w)
            value[rows] += w[rows] * self.residual[rows]
            psi.append(value)
            factor.append(_factor(weights, rows, self.deriv[a]) * np.ones_like(self.share))
        stacked = np.stack(psi)
        return PsiPart(weights, stacked, np.tensordot(self.D, stacked, axes=1), np.stack(factor))

    def centring(self, weights: ImportanceWeights) -> list[tuple[Array, Array]]:
        """Return what centres the derivatives: pairs of multiples, (n, m), of vectors, (K, p, m)."""
        centres = [(weights.tilt, self.centres.of_tilt)]
        of_measure = self.centres.of_measure
        return centres if of_measure is None else [*centres, (weights.measure, of_measure)]

    def weighted_slopes(self, part: PsiPart, weights: Array) -> RowVectors:
        """psi'_a of a single resample times weights of the arms, shape (K, n) or the same (K, 1) for all rows."""
        found = RowVectors.of_columns(weights * part.factor[..., 0], self.q.shape[1])
        for f, centre in self.centring(part.weights):
            found -= RowVectors.of_shared(weights * f.T, in_place(centre[..., 0]))
        return found

    def value(self) -> Array:
        """V, shape (m,)."""
        own = self.own_D * (self.moments.own_sd * self.residual) ** 2
        total = own + sum((part.D_psi * part.psi).sum(axis=0) for part in self.parts)
        return (self.share * total).sum(axis=0)

    def left_out(self, above: Array) -> float:
        """How much larger V of a single resample is where the tilt multiplies d_a and `above`, (K, n), centred."""
        found = 0.0
        for part in self.parts:
            added = part.weights.tilt[:, 0] * above
            total = 2 * part.D_psi[..., 0] * added + added * (self.D @ added)
            found += float(self.share[:, 0] @ total.sum(axis=0))
        return found

    def gram(self, pairs: Array) -> Array:
        """Gram matrix of the equations (c, h) of all but the part `own_sd`, shape (m, K p, K p + 1).

        `pairs` are the pairwise products of the columns, shape (n, p (p + 1) / 2).
        """
        n_arms, p, m = len(self.slices), self.q.shape[1], self.share.shape[1]
        gram = np.zeros((m, n_arms * p, n_arms * p + 1))
        for part in self.parts:
            self._add_gram(gram, part, pairs)
        return gram

    def _add_gram(self, gram: Array, part: PsiPart, pairs: Array) -> None:
        n_arms, p, share = len(self.slices), self.q.shape[1], self.share
        centres = self.centring(part.weights)
        products = [[self.q.T @ (share * f * factor) for factor in part.factor] for f, _ in centres]
        squares = [[(share * f * g).sum(axis=0) for g, _ in centres] for f, _ in centres]
        for a in range(n_arms):
            of_a = slice(a * p, (a + 1) * p)
            for b in range(a + 1):
                block = gram_matrices(pairs, share * part.factor[a] * part.factor[b], p)
                for k, (_, centre) in enumerate(centres):
                    block -= _outer(products[k][a], centre[b]) + _outer(centre[a], products[k][b])
                    for j, (_, other) in enumerate(centres):
                        block += squares[k][j][:, None, None] * _outer(centre[a], other[b])
                of_b = slice(b * p, (b + 1) * p)
                gram[:, of_a, of_b] += self.D[a, b] * block
                if a != b:
                    gram[:, of_b, of_a] += self.D[a, b] * block.transpose(0, 2, 1)
            weighted = share * part.D_psi[a]
            cross = self.q.T @ (weighted * part.factor[a])
            cross -= sum((weighted * f).sum(axis=0) * centre[a] for f, centre in centres)
            gram[:, of_a, -1] -= cross.T

    def curvature_weights(self, D_psi_sums: tuple[Array, Array]) -> Array:
        """Return what m_a'' q q' is multiplied by in half the second derivative of V, shape (K, n, m).

        `D_psi_sums` are those over all rows, of `DPsiSums.centred`.
        """
        (of_M, of_R), first, total = D_psi_sums, self.parts[0].weights, []
        for a, rows in enumerate(self.slices):
            pairs = [(part.weights, part.D_psi[a]) for part in self.parts]
            weight = sum((w.tilt * D_psi for w, D_psi in pairs), np.zeros_like(self.share)) - first.tilt * of_M[a]
            own = sum((w.w[rows] * D_psi[rows] for w, D_psi in pairs), np.zeros_like(self.share[rows]))
            own += self.own_D[rows] * self.moments.own_sd[rows] ** 2 * self.residual[rows]
            weight[rows] -= own - first.w[rows] * of_R[a]
            total.append(self.share * weight)
        return np.stack(total)


def own_terms(
    sample: Sample, D: Array, moments: WeightMoments, own_deriv: Array, residual: Array
) -> tuple[Array, Array]:
    """Weights and scores of a least-squares fit of each arm that stands for the part `own_sd` of V, (n, m)."""
    weights = np.diag(D)[sample.arm][:, None] * moments.own_sd**2 * own_deriv
    return weights * own_deriv, weights * residual


def _factor(weights: ImportanceWeights, own: slice, deriv: Array) -> Array:
    """(t - 1{arm = a} w) m_a', shape (n, m); `own` are the rows of arm a."""
    factor = weights.tilt * deriv * np.ones_like(weights.excess)
    factor[own] = -weights.excess[own] * deriv[own]  # t - w: w is near t, the excess keeps its digits
    return factor


def _outer(left: Array, right: Array) -> Array:
    """Outer products of columns, shape (m, p, p), of two arrays of shape (p, m)."""
    return np.einsum("pm,qm->mpq", left, right)
