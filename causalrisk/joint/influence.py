"""The influence function of JRE's coefficients and arm means: the stacked equations of score, start, minimum and means.

For a direction e of the coefficients, e' grad J is a function of sums over rows. To first order in these it is a sum of
Phi_i over rows: its derivative by the weight of a row is the row's part in the equations, that by importance weights
and tilt gives what the score moves. Phi is a derivative by a step along e of a function of the predictions, taken by a
complex step for all directions at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from causalrisk.joint.objective import Rows, Sums, Terms, Weights, counted
from causalrisk.numerics.linalg import Array

STEP = 1e-30


@dataclass(frozen=True)
class Slopes:
    """Derivatives by the linear predictors of the score, L of them, before division by the mean tilt.

    Parameters
    ----------
    w, tilt : ndarray, shape (L, n), tilt None where it is fixed
        Of importance weight and tilt at the fitted score.
    replicated, tilts : ndarray, shape (L, n, B)
        Of those under the replicates.
    columns : list of ndarray, shape (n, q_l)
        Columns of each predictor.
    """

    w: Array
    tilt: Array | None
    replicated: Array
    tilts: Array | None
    columns: list[Array]

    def by_gamma(self, values: Array) -> Array:
        """Sum values (L, n, R) times the columns of each predictor, shape (Q, R)."""
        of_known = np.zeros((0, values.shape[2]))
        return np.concatenate([of_known, *(x.T @ of for x, of in zip(self.columns, values, strict=True))])


@dataclass(frozen=True)
class At:
    """The minimum of the sample: coefficients (K, P, 1), multipliers (C,), alpha and the sums over all rows there."""

    theta: Array
    start: Array
    nu: Array
    alpha: float
    terms: Terms
    sums: Sums


def moved_sums(at: At, directions: Array) -> tuple[Array, ...]:
    """M, R, t_psi and h_psi centred, and the biases of all rows, complex, for steps along directions (K, P, R)."""
    of, move = at.sums, 1j * STEP * directions

    def along(value: Array, slope: Array) -> Array:
        return value + np.einsum("kpb,kpr->krb", slope[:, :, 0].reshape(*slope.shape[:2], -1), move).reshape(
            len(value), move.shape[2], *value.shape[2:]
        )

    M, R = along(of.M, of.M_slope), along(of.R, of.R_slope)
    t_psi, h_psi = along(of.t_psi, of.t_slope), along(of.h_psi, of.h_slope)
    return M, R, t_psi - M * of.tt - R * of.th, h_psi - M * of.th - R * of.hh, along(of.biases, of.biases_slope)


@dataclass(frozen=True)
class Phi:
    """Phi of rows for R directions.

    Parameters
    ----------
    value : ndarray, shape (n, R)
        Phi.
    sums : tuple of ndarray
        Sums over the rows: of Phi, (R,); of weight and tilt times the derivatives by them, over all weights (R,), at
        the fitted score (R,), under each replicate (B, R) and of averaged rows that are not measured (R,); of the
        derivatives by the coefficients of the score (Q, R) and by those of the start's outcome models (K, P, R).
    """

    value: Array
    sums: tuple[Array, ...]


def phi(rows: Rows, weights: Weights, slopes: Slopes, at: At, directions: Array) -> Phi:
    """Phi of rows along directions (K, P, R) of theta, and sums of its derivatives."""
    terms, (M, R, t_psi, h_psi, biases), D = at.terms, moved_sums(at, directions), at.terms.D
    f, h, share, W, T = rows.averaged, rows.measured, weights.share, weights.factor[0], weights.tilts
    t1, w1, t2, tw, w2 = weights.moments
    eta, step = rows.predictors(at.theta), rows.X @ directions
    m = rows.family.mean(eta) + 1j * STEP * rows.family.mean_deriv(eta) * step
    r, arm = rows.y[:, None] - rows.own(m), rows.arm
    loss = -at.alpha * terms.sigma2 * 1j * STEP * rows.family.score(rows.y[:, None], rows.own(eta))[0] * rows.own(step)
    DU = terms.n_units / W.shape[1] * np.tensordot(D, biases, axes=1)
    # Phi = w fitted + mean_b of [w linear - w r D u_b + t averaged + t^2 squares[0] + t w squares[1] + w^2 squares[2]]
    fitted, linear, averaged, squares, by_start = 0 * r, loss, 0 * r, np.zeros((3, *r.shape), complex), None
    if terms.risk:
        fitted, linear = loss - (terms.contrasts.T @ at.nu)[arm][:, None] * r, -(D @ h_psi)[arm] * r
        d = f * (counted(rows, m, at.start, terms) - terms.level[:, None, None])
        psi = d - f * M[:, None] - h * R[:, None]
        D_psi, Dt = np.tensordot(D, psi, axes=1), D @ t_psi
        averaged = -(Dt[:, None] * d).sum(axis=0)
        squares = np.stack([(psi * D_psi).sum(axis=0) / 2, r * rows.own(D_psi), np.diag(D)[arm][:, None] * r * r / 2])
        by_mean = f * (t2 * D_psi + tw * r * D[:, arm][..., None] - t1 * Dt[:, None])
        moved = -terms.share * rows.family.mean_deriv(rows.predictors(at.start)) * share
        by_start = rows.slopes(moved * by_mean.imag / STEP)
    risk = -r * weights.adjoint(rows.slices, DU)
    in_t, in_w = t1 * averaged + 2 * t2 * squares[0] + tw * squares[1], w1 * linear + tw * squares[1] + risk
    in_w = in_w + 2 * w2 * squares[2]
    value = weights.w * fitted + w1 * linear + risk + t1 * averaged
    value = value + t2 * squares[0] + tw * squares[1] + w2 * squares[2]
    tilts, every = weights.tilt if T is None else T, []
    for k, dw in enumerate(slopes.w):
        dW = slopes.replicated[k]
        of_k = dw[:, None] * fitted + mean(dW) * linear + mean(tilts * dW) * squares[1] + 2 * mean(W * dW) * squares[2]
        of_k = of_k - r * np.concatenate([dW[own] @ DU[a].T for a, own in enumerate(rows.slices)])
        if slopes.tilts is not None and T is not None:
            dT = slopes.tilts[k]
            of_k = of_k + mean(dT) * averaged + 2 * mean(T * dT) * squares[0] + mean(W * dT) * squares[1]
        every.append((share * of_k).imag / STEP)
    each = np.zeros((0, r.shape[1]))
    if T is not None:
        a, (b, c, e) = h * share * averaged, 2 * h * share * squares
        each = T.T @ a + (T**2).T @ b + (T * W).T @ c + (W**2).T @ e + W.T @ (share * linear)
        each = each / W.shape[1]
        each = each - sum(W[own].T @ (share * r)[own] * DU[k].T for k, own in enumerate(rows.slices))
    sums = (
        (share * value).sum(axis=0), (share * (weights.w * fitted + in_t + in_w)).sum(axis=0),
        (share * weights.w * fitted).sum(axis=0), each, (share * (1 - h) * in_t).sum(axis=0),
    )  # fmt: skip
    by_gamma = slopes.by_gamma(np.array(every)) if every else np.zeros((0, r.shape[1]))
    none = np.zeros_like(directions)
    return Phi(value.imag / STEP, (*(s.imag / STEP for s in sums), by_gamma, none if by_start is None else by_start))


def mean(values: Array) -> Array:
    """Mean over the replicates, shape (n, 1)."""
    return values.mean(axis=1, keepdims=True)


def tilt_slopes(weights: Weights, slopes: Slopes) -> tuple[Array, Array] | None:
    """Sum over rows share times derivatives of the tilt by the score, (Q, 1), and under replicates, (Q, B)."""
    if slopes.tilt is None or slopes.tilts is None:
        return None
    return slopes.by_gamma(weights.share * slopes.tilt[..., None]), slopes.by_gamma(weights.share * slopes.tilts)


def contributions(value: Array, sums: tuple[Array, ...], rows: Rows, weights: Weights, inside: Array) -> Array:
    """Return what rows add to the equations of which Phi is the value, (n, R): weights are divided by the mean tilt.

    `inside`, shape (n, 1), is one for rows of the sample.
    """
    total, scaled, fitted, each, beside = sums[:5]
    f, h = rows.averaged, rows.measured
    if weights.tilts is None:
        return value - inside * total - (weights.tilt - inside) * scaled
    moved = (h * weights.tilt - inside) * fitted + (h * weights.tilts) @ each - inside * each.sum(axis=0)
    return value - inside * total - moved - ((1 - h) * f * weights.tilt - inside) * beside


def by_score(sums: tuple[Array, ...], tilts: tuple[Array, Array] | None) -> Array:
    """Return the derivative of the sum of Phi by the coefficients of the score, shape (Q, R)."""
    _, _, fitted, each, _, by_gamma, _ = sums
    return by_gamma if tilts is None else by_gamma - tilts[0] * fitted - tilts[1] @ each


def linear_parts(rows: Rows, weights: Weights, slopes: Slopes, at: At) -> Phi:
    """As `phi`, of averages over the target, biases averaged over the replicates, and those at the fitted score.

    R is 3 K; these do not move with directions.
    """
    n_arms, arm, share, f, h = len(rows.slices), rows.arm, weights.share, rows.averaged, rows.measured
    m = rows.family.mean(rows.predictors(at.theta))[..., 0]
    r, W, T = rows.y - rows.own(m[..., None])[:, 0], weights.factor[0], weights.tilts
    averaged, own = f * weights.tilt * m.T, -r[:, None] * np.eye(n_arms)[arm]
    none = np.zeros_like(own)
    value = np.hstack([averaged, mean(W) * own, weights.w * own])
    by = []
    for k, dw in enumerate(slopes.w):
        dt = none if slopes.tilt is None else f * slopes.tilt[k][:, None] * m.T
        by.append(share * np.hstack([dt, mean(slopes.replicated[k]) * own, dw[:, None] * own]))
    fitted = np.hstack([h * averaged, none, weights.w * own])
    each = np.zeros((0, 3 * n_arms))
    if T is not None:
        each = np.hstack(
            [np.zeros((W.shape[1], n_arms)), W.T @ (share * own) / W.shape[1], np.zeros((W.shape[1], n_arms))]
        )
    sums = ((share * value).sum(axis=0), (share * value).sum(axis=0), (share * fitted).sum(axis=0), each)
    beside = (share * (1 - h) * np.hstack([averaged, none, none])).sum(axis=0)
    by_gamma = slopes.by_gamma(np.array(by)) if by else np.zeros((0, 3 * n_arms))
    return Phi(value, (*sums, beside, by_gamma, np.zeros(1)))


def monte_carlo_se(
    gradients: Array, contrasts: Array, U: Array, U_slope: Array, weight: float, inverse: Array
) -> Array:
    """Return standard errors of the effects over redraws of the replicates, shape (d,); NaN for one replicate.

    By the jackknife: without replicate b the effect moves by c' H^-1 (g_b - mean g) / (B (1 - h_b)), g_b its part of
    the gradient, and h_b its leverage.

    Parameters
    ----------
    gradients : ndarray, shape (B, K p)
        g_b but for the net bias.
    contrasts : ndarray, shape (d, K p)
        c, a row an effect.
    U, U_slope : ndarray, shape (C, B) and (C, K p, B)
        Net biases and their derivatives.
    weight : float
        n.
    inverse : ndarray, shape (K p, K p)
        Inverse of the Hessian under the constraint.
    """
    count = len(gradients)
    if count == 1:
        return np.full(len(contrasts), np.nan)
    gradient = gradients + weight * np.einsum("cb,ckb->bk", U, U_slope)
    change = (gradient - gradient.mean(axis=0)) @ inverse @ contrasts.T
    leverage = weight / count * np.einsum("ckb,kj,cjb->b", U_slope, inverse, U_slope, optimize=True)
    return np.linalg.norm(change / (1 - np.minimum(leverage, 1 - 1e-9))[:, None], axis=0) / count


def variance_gradients(rows: Rows, weights: Weights, at: At) -> Array:
    """Sum over rows the gradient of V / 2 under each replicate, shape (K, P, B), psi centred as over all of them."""
    terms, of, share, W = at.terms, at.sums, weights.share, weights.factor[0]
    T = np.broadcast_to(weights.tilt, W.shape) if weights.tilts is None else weights.tilts
    D, f, h, arm = terms.D, rows.averaged, rows.measured, rows.arm
    eta = rows.predictors(at.theta)
    mean_, slope = rows.family.mean(eta), rows.family.mean_deriv(eta)
    r = rows.y[:, None] - rows.own(mean_)
    d = counted(rows, mean_, at.start, terms) - terms.level[:, None, None]
    D_psi = np.tensordot(D, f * (d - of.M[:, None]) - h * of.R[:, None], axes=1)
    own = W * (T * rows.own(D_psi) + np.diag(D)[arm][:, None] * W * r)
    found = []
    for a, members in enumerate(rows.slices):
        every = f * T * (T * D_psi[a] + W * r * D[a, arm][:, None])
        every[members] -= own[members]
        found.append(rows.X.T @ (share * slope[a] * every))
    return np.stack(found)
