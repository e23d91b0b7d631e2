"""The objective of JRE: sums over rows, and what they make of its value, gradient and Hessian.

With m_a the outcome model of arm a, w the importance weight of a row in its own arm, t the tilt of the target, and
averages over the target written as sums of `share` times what a row has,

    B_a = - sum_i share_i 1{arm_i = a} w_i (y_i - m_a)               bias of arm a under a score
    psi_a = t (d_a - mean d_a) + 1{arm = a} w (y - m_a) - t R_a      d_a = m_a - c m_a of IPWRA; R_a centres, as -B_a
    J = alpha sigma_0^2 sum_a L_a + V / 2 + (n / 2) mean_b |C B_b|^2
    V = mean_b sum_i share_i |C psi_ib|^2

minimised under C B = 0 at the fitted score. C has the contrasts of the arms, b = 1 .. B are replicates of the score,
L_a is the loss of IPWRA. "erm" has alpha = 1, losses averaged over the replicates, no V and no constraint.

Every array has the resamples as its last axis, R of them: one for the sample itself. Rows of an arm stand together.
A replicate's weight is w_b = base + sum_t terms_t factor_tb: for one resample the weights themselves are the factor;
with a logit the odds of each resample are terms, and what a shift of the score multiplies them by is the factor.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from causalrisk.numerics.families import OutcomeFamily
from causalrisk.numerics.linalg import Array, weighted_grams


@dataclass(frozen=True)
class Rows:
    """Rows of a sample, n of them.

    Parameters
    ----------
    X : ndarray, shape (n, P)
        Columns of the outcome models.
    y : ndarray, shape (n,)
        Outcome.
    slices : tuple of slice
        Rows of each arm.
    family : OutcomeFamily
        Family of the outcome models.
    offset : ndarray, shape (n, 1), or 0.0
        Known part of the linear predictor.
    averaged, measured : ndarray, shape (n, 1), or 1.0
        One in the rows that the target is averaged over, and in those whose tilt divides the weights: all of them, but
        the rows of a target frame, and those of the sample beside it.
    """

    X: Array
    y: Array
    slices: tuple[slice, ...]
    family: OutcomeFamily
    offset: Array | float = 0.0
    averaged: Array | float = 1.0
    measured: Array | float = 1.0

    @cached_property
    def arm(self) -> Array:
        """Arm of each row."""
        return np.repeat(np.arange(len(self.slices)), [own.stop - own.start for own in self.slices])

    def predictors(self, theta: Array) -> Array:
        """Linear predictors, shape (K, n, R), under theta (K, P, R)."""
        return self.X @ theta + self.offset

    def derivatives(self, eta: Array) -> Array:
        """Return derivatives of the means at predictors (K, n, R), of the same shape; (K, n, 1) of linear models."""
        return np.broadcast_to(1.0, (*eta.shape[:2], 1)) if self.family.linear else self.family.mean_deriv(eta)

    def own(self, values: Array) -> Array:
        """Values (K, n, R) in each row's own arm, shape (n, R)."""
        return np.concatenate([values[a, members] for a, members in enumerate(self.slices)])

    def by_arm(self, values: Array) -> Array:
        """Sum values (n, R) over the rows of each arm, shape (K, R)."""
        return np.stack([values[members].sum(axis=0) for members in self.slices])

    def slopes(self, weights: Array) -> Array:
        """Sum weights (K, n, R), or (1, n, R) for all arms, times the columns, shape (K, P, R)."""
        found = self.X.T @ weights
        return np.broadcast_to(found, (len(self.slices), *found.shape[1:]))

    def own_slopes(self, weights: Array) -> Array:
        """Sum weights (n, R) times the columns over the rows of each arm, shape (K, P, R)."""
        return np.stack([self.X[members].T @ weights[members] for members in self.slices])

    def grams(self, weights: Array) -> Array:
        """Sum weights (n, R) times the products of the columns, shape (R, P, P)."""
        return weighted_grams(self.X, weights)

    def own_grams(self, weights: Array) -> Array:
        """Sum them over the rows of each arm, shape (K, R, P, P)."""
        return np.stack([weighted_grams(self.X[members], weights[members]) for members in self.slices])


@dataclass(frozen=True)
class Weights:
    """Importance weights of rows in R resamples.

    Parameters
    ----------
    share : ndarray, shape (n, R)
        Weights of the rows over their sum in the sample.
    tilt, w : ndarray, shape (n, R) or (n, 1)
        Tilt and importance weight at the score of each resample.
    base, terms, factor : ndarray, shape (n, R) or (n, 1), (T, n, R) and (T, n, B)
        Those under the replicates: see the module.
    tilts : ndarray, shape (n, B), optional
        Tilt under the replicates, of one resample, if it is not the same.
    """

    share: Array
    tilt: Array
    w: Array
    base: Array
    terms: Array
    factor: Array
    tilts: Array | None = None

    @cached_property
    def moments(self) -> tuple[Array, Array, Array, Array, Array]:
        """Means over the replicates of t, w, t^2, t w and w^2, shape (n, R) or (n, 1)."""
        count = self.factor.shape[2]
        first = self.factor.mean(axis=2)[..., None]
        second = np.einsum("snb,tnb->stn", self.factor, self.factor, optimize=True)[..., None] / count
        excess = (self.terms * first).sum(axis=0)
        w2 = self.base * (self.base + 2 * excess)
        for s, of_s in enumerate(self.terms):
            for t, of_t in enumerate(self.terms):
                w2 = w2 + of_s * of_t * second[s, t]
        w1 = self.base + excess
        if self.tilts is None:
            return self.tilt, w1, self.tilt**2, self.tilt * w1, w2
        means = [self.tilts, self.tilts**2, self.tilts * self.factor[0]]
        t1, t2, tw = (each.mean(axis=1, keepdims=True) for each in means)
        return t1, w1, t2, tw, w2

    def over_replicates(self, members: slice, X: Array, left: Array, own: Array) -> tuple[Array, Array]:
        """Sum w_b times left (n, R) times columns X (n, P), and times `own` (n, R), over the rows of an arm.

        Their shapes are (P, R, B) and (R, B). The fewer of left and factor are multiplied by the columns.
        """
        (n, p), m, count = X.shape, left.shape[1], self.factor.shape[2]
        plain = self.base[members]
        slopes, total = (X.T @ (left * plain))[..., None], (own * plain).sum(axis=0)[:, None]
        for terms, factor in zip(self.terms[:, members], self.factor[:, members], strict=True):
            weighted = left * terms
            if m < count:
                wide = (X[:, :, None] * weighted[:, None]).reshape(n, p * m)
                slopes = slopes + (wide.T @ factor).reshape(p, m, count)
            else:
                wide = (X[:, :, None] * factor[:, None]).reshape(n, p * count)
                slopes = slopes + (weighted.T @ wide).reshape(m, p, count).transpose(1, 0, 2)
            total = total + (own * terms).T @ factor
        return slopes, total

    def adjoint(self, slices: tuple[slice, ...], values: Array) -> Array:
        """Sum w_b times values, shape (K, R, B), of a row's arm over the replicates, shape (n, R)."""
        parts = []
        for members, own in zip(slices, values, strict=True):
            total = self.base[members] * own.sum(axis=1)
            for terms, factor in zip(self.terms[:, members], self.factor[:, members], strict=True):
                total = total + terms * (factor @ own.T)
            parts.append(total)
        return np.concatenate(parts)


@dataclass(frozen=True)
class Terms:
    """What the objective holds fixed.

    Parameters
    ----------
    contrasts : ndarray, shape (C, K)
        C.
    n_units : float
        n; the penalty of "erm".
    sigma2 : float
        sigma_0^2, the mean variance function at the start.
    share : float
        c, the share of the start's effect heterogeneity that V leaves out.
    risk : bool
        Whether the objective is "risk"; else "erm".
    level : ndarray, shape (K,)
        About the mean of each m_a, from which d_a is measured so as to lose no digits.
    """

    contrasts: Array
    n_units: float
    sigma2: float
    share: float
    risk: bool
    level: Array

    @property
    def D(self) -> Array:
        """C'C, shape (K, K)."""
        return self.contrasts.T @ self.contrasts


@dataclass(frozen=True)
class Sums:
    """Sums over rows of which the objective is made; those of chunks of rows add up. Letters as in `sums`."""

    M: Array
    R: Array
    t_psi: Array
    h_psi: Array
    tt: Array
    th: Array
    hh: Array
    M_slope: Array
    R_slope: Array
    t_slope: Array
    h_slope: Array
    value: Array
    gradient: Array
    hessian: Array
    loss: Array
    loss_gradient: Array
    loss_hessian: Array
    bias: Array
    bias_slope: Array
    biases: Array
    biases_slope: Array
    average: Array
    average_slope: Array

    def some(self, columns: slice) -> Sums:
        """Return the sums under some of the columns of weights."""
        every = {name: getattr(self, name).swapaxes(at, -1) for name, at in COLUMNS.items()}
        return Sums(**{name: values[..., columns].swapaxes(COLUMNS[name], -1) for name, values in every.items()})


COLUMNS = {field.name: -1 for field in dataclasses.fields(Sums)}  # axis of the columns of weights
COLUMNS |= {"hessian": 2, "loss_hessian": 1, "biases": 1, "biases_slope": 2}


def sums(rows: Rows, weights: Weights, theta: Array, start: Array, terms: Terms) -> Sums:
    """Sum over rows what the objective is made of at theta, shape (K, P, R); `start` are the models of IPWRA.

    V is that of psi with t d_a not yet centred: M_a and R_a are what is subtracted (times t where the rows are averaged
    over, or measured), `t_psi`, `h_psi`, `tt`, `th` and `hh` their products with psi and t, `..._slope` derivatives.
    """
    family, D, arm, frame = rows.family, terms.D, rows.arm, not isinstance(rows.measured, float)
    share, w, m, p = weights.share, weights.w, weights.share.shape[1], rows.X.shape[1]
    t1, w1, t2, tw, w2 = weights.moments

    def averaged(values: Array) -> Array:
        return rows.averaged * values if frame else values

    eta = rows.predictors(theta)
    mean, slope = family.mean(eta), rows.derivatives(eta)
    alike = slope[:1] if family.linear else slope
    n_arms, own_eta, own_slope = len(eta), rows.own(eta), rows.own(slope)
    r = rows.y[:, None] - (own_eta if family.linear else rows.own(mean))
    d = averaged(counted(rows, mean, None if start is theta else start, terms) - terms.level[:, None, None])
    Dd = np.tensordot(D, d, axes=1)
    own_Dd, score, information = rows.own(Dd), *family.score(rows.y[:, None], own_eta)[:2]
    by_t, by_tw, by_w = share * t2, share * tw, share * (w if terms.risk else w1)
    by_w2, each = share * (np.diag(D)[arm][:, None] * w2), share * w1
    twr, w2r, left = by_tw * r, by_w2 * r, share * own_slope
    own_twr, psi, t_share = averaged(twr), by_t * d, averaged(by_t)
    gradient = rows.slopes((by_t * Dd + own_twr * D[:, arm][..., None]) * slope)
    hessian = np.empty((n_arms, n_arms, m, p, p))
    for a, members in enumerate(rows.slices):
        for b in range(a + 1):
            product = D[a, b] * averaged(slope[a] * slope[b])
            v = by_t * product
            for one in (a, b):
                own = rows.slices[one]
                v[own] -= by_tw[own] * product[own]
            if a == b:
                v[members] += by_w2[members] * own_slope[members] ** 2
            hessian[a, b] = hessian[b, a] = rows.grams(v)
    pairs = [weights.over_replicates(own, rows.X[own], left[own], -(share * r)[own]) for own in rows.slices]
    target = averaged(share * weights.tilt)
    tt, t_slope = t_share.sum(axis=0), rows.slopes(t_share * alike) - rows.own_slopes(averaged(by_tw * own_slope))
    t_psi = psi.sum(axis=1) + rows.by_arm(own_twr)
    th, hh, h_psi, h_slope = tt, tt, t_psi, t_slope
    if frame:
        h = rows.measured
        th, hh = (t_share * h).sum(axis=0), (by_t * h).sum(axis=0)
        h_psi = (h * psi).sum(axis=1) + rows.by_arm(h * twr)
        h_slope = rows.slopes(h * t_share * alike) - rows.own_slopes(h * by_tw * own_slope)
    return Sums(
        M=np.einsum("nr,anr->ar", share * t1, d),
        R=rows.by_arm(each * r),
        t_psi=t_psi,
        h_psi=h_psi,
        tt=tt,
        th=th,
        hh=hh,
        M_slope=rows.slopes(averaged(share * t1) * alike),
        R_slope=-rows.own_slopes(each * own_slope),
        t_slope=t_slope,
        h_slope=h_slope,
        value=np.einsum("anr,anr->r", psi, Dd) + (2 * twr * own_Dd + w2r * r).sum(axis=0),
        gradient=gradient - rows.own_slopes((by_tw * own_Dd + w2r) * own_slope),
        hessian=hessian,
        loss=np.einsum("nr,nr->r", by_w, r * r / 2 if family.linear else family.loss(rows.y[:, None], own_eta)),
        loss_gradient=-rows.own_slopes(by_w * score),
        loss_hessian=rows.own_grams(by_w if family.linear else by_w * information),
        bias=-rows.by_arm(share * w * r),
        bias_slope=rows.own_slopes(left * w),
        biases=np.stack([own for _, own in pairs]),
        biases_slope=np.stack([slopes for slopes, _ in pairs]),
        average=np.einsum("nr,anr->ar", target, mean),
        average_slope=rows.slopes(target * alike),
    )


def counted(rows: Rows, mean: Array, start: Array | None, terms: Terms) -> Array:
    """m_a less the share c of that at the start, shape (K, n, R); None where the start is where m_a is."""
    if start is None:
        return (1 - terms.share) * mean
    return mean - terms.share * rows.family.mean(rows.predictors(start)) if terms.share else mean


@dataclass(frozen=True)
class Expansion:
    """The objective about theta in R resamples; coefficients stacked arm by arm, K P of them.

    Parameters
    ----------
    value, gradient, hessian : ndarray, shape (R,), (R, K P), (R, K P, K P)
        Of all terms but the losses.
    loss, loss_gradient, loss_hessian : ndarray
        Of sigma_0^2 times the losses.
    u, u_slope : ndarray, shape (R, C) and (R, C, K P)
        Net bias at the fitted score; none of "erm".
    """

    value: Array
    gradient: Array
    hessian: Array
    loss: Array
    loss_gradient: Array
    loss_hessian: Array
    u: Array
    u_slope: Array

    def at(self, alpha: float) -> tuple[Array, Array, Array]:
        """Value, gradient and Hessian with the weight alpha of the losses."""
        return (
            self.value + alpha * self.loss,
            self.gradient + alpha * self.loss_gradient,
            self.hessian + alpha * self.loss_hessian,
        )


def variance(of: Sums, D: Array) -> Array:
    """V, shape (R,)."""
    DM, DR = D @ of.M, D @ of.R
    value = of.value - 2 * (DM * of.t_psi + DR * of.h_psi).sum(axis=0)
    return value + ((of.M * DM) * of.tt + 2 * (of.M * DR) * of.th + (of.R * DR) * of.hh).sum(axis=0)


def expand(of: Sums, terms: Terms) -> Expansion:
    """Put the sums over all rows together."""
    C, D, (n_arms, p, m) = terms.contrasts, terms.D, of.M_slope.shape
    width, count = n_arms * p, of.biases.shape[2]

    def stacked(slopes: Array) -> Array:
        return slopes.transpose(2, 0, 1).reshape(m, width)

    U, U_slope = np.tensordot(C, of.biases, axes=1), contrasted(C, of.biases_slope)
    weight = terms.n_units / count
    value = weight / 2 * (U**2).sum(axis=(0, 2))
    gradient = weight * np.einsum("crb,crkb->rk", U, U_slope, optimize=True)
    wide = U_slope.transpose(1, 2, 0, 3).reshape(m, width, -1)
    hessian = weight * wide @ wide.transpose(0, 2, 1)
    if terms.risk:
        DM, DR, Dt, Dh = D @ of.M, D @ of.R, D @ of.t_psi, D @ of.h_psi
        slope = of.gradient - Dt[:, None] * of.M_slope - DM[:, None] * of.t_slope
        slope = slope - Dh[:, None] * of.R_slope - DR[:, None] * of.h_slope
        slope = (
            slope + (of.tt * DM + of.th * DR)[:, None] * of.M_slope + (of.th * DM + of.hh * DR)[:, None] * of.R_slope
        )
        value, gradient = value + variance(of, D) / 2, gradient + stacked(slope)
        hessian = hessian + of.hessian.transpose(2, 0, 3, 1, 4).reshape(m, width, width)
        # psi is centred by M_a and R_a, which move with theta too
        for left, right, factor in (
            (of.M_slope, of.t_slope - of.tt / 2 * of.M_slope - of.th * of.R_slope, -1.0),
            (of.R_slope, of.h_slope - of.hh / 2 * of.R_slope, -1.0),
        ):
            product = factor * np.einsum("apr,ab,bqr->rapbq", left, D, right, optimize=True).reshape(m, width, width)
            hessian = hessian + product + product.transpose(0, 2, 1)
    loss_hessian = np.zeros((m, n_arms, p, n_arms, p))
    for a in range(n_arms):
        loss_hessian[:, a, :, a] = of.loss_hessian[a]
    constrained = C if terms.risk else C[:0]
    return Expansion(
        value=value,
        gradient=gradient,
        hessian=hessian,
        loss=terms.sigma2 * of.loss,
        loss_gradient=terms.sigma2 * stacked(of.loss_gradient),
        loss_hessian=terms.sigma2 * loss_hessian.reshape(m, width, width),
        u=(constrained @ of.bias).T,
        u_slope=contrasted(constrained, of.bias_slope[..., None])[..., 0].transpose(1, 0, 2),
    )


def contrasted(C: Array, slopes: Array) -> Array:
    """Contrasts of the derivatives of the arms' biases, shape (C, R, K P, B), from (K, P, R, B)."""
    n_arms, p, m, count = slopes.shape
    found = C[:, None, :, None, None] * slopes.transpose(2, 0, 1, 3)
    return found.reshape(len(C), m, n_arms * p, count)


def risk_of(rows: Rows, weights: Weights, mean: Array, start: Array, terms: Terms) -> tuple[Array, float]:
    """Biases (K, B) and V of any predictions of all rows, shape (K, n, 1), in one resample."""
    r, share, (t1, w1, t2, tw, w2) = rows.y[:, None] - rows.own(mean), weights.share, weights.moments
    d = rows.averaged * (counted(rows, mean, start, terms) - terms.level[:, None, None])
    M, R = (share * t1 * d).sum(axis=1), rows.by_arm(share * w1 * r)
    psi = d - rows.averaged * M[:, None] - rows.measured * R[:, None]
    D_psi = np.tensordot(terms.D, psi, axes=1)
    square = t2 * (psi * D_psi).sum(axis=0) + 2 * tw * r * rows.own(D_psi)
    square = square + np.diag(terms.D)[rows.arm][:, None] * w2 * r * r
    biases = [weights.over_replicates(own, rows.X[own], 0 * r[own], -(share * r)[own])[1][0] for own in rows.slices]
    return np.stack(biases), float((share * square).sum())


def curvature(rows: Rows, weights: Weights, theta: Array, start: Array, terms: Terms, of: Sums, nu: Array) -> Array:
    """Sum over rows the second derivatives of the means in the Hessian, shape (K, R, P, P); `of` all rows' sums.

    `nu`, shape (C, R), are the multipliers of the constraint.
    """
    eta = rows.predictors(theta)
    first, own = coefficients(rows, weights, eta, start, terms, of)
    own = own + weights.share * weights.w * rows.own(spread(rows, terms.contrasts[: len(nu)].T @ nu))
    second = rows.family.mean_deriv2(eta)
    found = np.stack([rows.grams(of_a * deriv) for of_a, deriv in zip(first, second, strict=True)])
    return found + rows.own_grams(own * rows.own(second))


def spread(rows: Rows, values: Array) -> Array:
    """Values of the arms (K, R) for all rows, shape (K, n, R)."""
    return np.broadcast_to(values[:, None], (len(values), len(rows.y), values.shape[1]))


def coefficients(rows: Rows, weights: Weights, eta: Array, start: Array, terms: Terms, of: Sums) -> tuple[Array, Array]:
    """Return derivatives of all but the losses by each row's means m_a, (K, n, R), and further by that of its arm."""
    D, f, h, share = terms.D, rows.averaged, rows.measured, weights.share
    t1, w1, t2, tw, w2 = weights.moments
    DU = terms.n_units / of.biases.shape[2] * np.tensordot(D, of.biases, axes=1)
    own = share * weights.adjoint(rows.slices, DU)
    if not terms.risk:
        return np.zeros_like(eta), own
    mean = rows.family.mean(eta)
    r = rows.y[:, None] - rows.own(mean)
    psi = f * (counted(rows, mean, start, terms) - terms.level[:, None, None] - of.M[:, None]) - h * of.R[:, None]
    D_psi, arm = np.tensordot(D, psi, axes=1), rows.arm
    Dt = D @ (of.t_psi - of.M * of.tt - of.R * of.th)
    Dh = D @ (of.h_psi - of.M * of.th - of.R * of.hh)
    first = share * f * (t2 * D_psi + tw * r * D[:, arm][..., None] - t1 * Dt[:, None])
    own = own - share * (tw * rows.own(D_psi) + np.diag(D)[arm][:, None] * w2 * r - w1 * rows.own(spread(rows, Dh)))
    return first, own
