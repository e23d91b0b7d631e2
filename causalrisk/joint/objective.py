"""The objective of JRE: sums over rows, and the value, gradient and Hessian computed from the sums.

Let m_a be the outcome model of arm a, w the importance weight of a row in its own arm, t the tilt of the target, and r
the residual of a row. `share` is the row weight divided by its sum over the sample. With

    B_a = - sum_i share_i 1{arm_i = a} w_i r_i                       bias of arm a under a score
    psi_a = t (d_a - N_a) + 1{arm = a} w r                           d_a = m_a - c (m_a of IPWRA); N_a centres psi_a
    J = alpha sigma_0^2 sum_a L_a + V / 2 + (n / 2) mean_b |C B_b|^2
    V = mean_b sum_i share_i |C psi_ib|^2

JRE minimises J subject to C B = 0 at the fitted score. C has the contrasts of the arms, b = 1 .. B are the replicates
of the score, and L_a is IPWRA's loss. The objective "erm" has alpha = 1, losses averaged over the replicates, no V and
no constraint. With a target frame, t d_a is for the frame's rows and w r for the sample's rows. Each part is then
centred by its own mean.

There may be R columns of row weights, such as resamples. The weight under replicate b is w_b = base + sum_t terms_t
factor_tb. For a single column, `factor` has the weights themselves. For several columns with a logit, `terms` has the
odds in each column, and `factor` has the factor by which each replicate multiplies these odds.

Letters in shapes: n rows, K arms (treatment groups), P columns of the outcome models, C contrasts of the arms, B
replicates of the propensity score, R columns of row weights, T terms of the weights.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from causalrisk.numerics.arrays import Array, weighted_grams
from causalrisk.numerics.families import OutcomeFamily

Pair = tuple[Array, Array]  # a number and its derivative
Centre = tuple[Pair, Pair]  # the mean N that centres psi, and the mean of t psi in the same rows, (R, K), with slopes


@dataclass(frozen=True)
class Terms:
    """The constants of the objective.

    Parameters
    ----------
    contrasts : ndarray, shape (C, K)
        C, the contrasts of the arms.
    n_units : float
        n for "risk", n^2 for "erm".
    sigma2 : float
        sigma_0^2, the mean variance function at IPWRA's fit.
    share : float
        c, the share of IPWRA's effect heterogeneity that V leaves out.
    risk : bool
        Whether the objective is "risk". Otherwise it is "erm".
    level : ndarray, shape (K,)
        Constant near the mean of each d_a, subtracted from d_a for numerical accuracy.
    constant : ndarray, shape (P,)
        Coefficients with which the columns add up to the constant one.
    """

    contrasts: Array
    n_units: float
    sigma2: float
    share: float
    risk: bool
    level: Array
    constant: Array

    @property
    def D(self) -> Array:
        """Matrix C'C of the contrasts, shape (K, K)."""
        return self.contrasts.T @ self.contrasts

    @property
    def constraint(self) -> Array:
        """Contrasts of the biases that are constrained to zero at the fitted score. Empty for "erm"."""
        return self.contrasts if self.risk else self.contrasts[:0]


@dataclass(frozen=True)
class Rows:
    """n rows of a sample, sorted by arm.

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
    offset : ndarray, shape (n, 1), or None
        Known part of the linear predictor.
    averaged, measured : ndarray, shape (n, 1), or 1.0
        `averaged` is one in the rows over which predictions are averaged. The weights are divided by the mean tilt of
        the rows where `measured` is one. Both are one in all rows unless the target is a data frame. Then `averaged` is
        one in the rows of the frame only, and `measured` is one in the rows of the sample only.
    """

    X: Array
    y: Array
    slices: tuple[slice, ...]
    family: OutcomeFamily
    offset: Array | None = None
    averaged: Array | float = 1.0
    measured: Array | float = 1.0

    @property
    def indicators(self) -> Array:
        """Indicators of the arms, shape (K, n, 1): 1.0 if the row is in the arm, otherwise 0.0."""
        return np.eye(len(self.slices))[:, self.arm, None]

    @cached_property
    def arm(self) -> Array:
        """Arm of each row, shape (n,)."""
        return np.repeat(np.arange(len(self.slices)), [own.stop - own.start for own in self.slices])

    def predictors(self, theta: Array) -> Array:
        """Return linear predictors (K, n, R) at coefficients theta (K, P, R)."""
        return self.X @ theta + (0.0 if self.offset is None else self.offset)

    def own(self, values: Array) -> Array:
        """Select from values (K, n, R) the values of each row's own arm, shape (n, R)."""
        return np.concatenate([values[a, members] for a, members in enumerate(self.slices)])

    def counted(self, mean: Array, start: Array, terms: Terms) -> Array:
        """Return the predictions in V, m_a - c (m_a of IPWRA) - `level`, shape (K, n, R). c is `terms.share`."""
        known = terms.share * self.family.mean(self.predictors(start)) if terms.share else 0.0
        return mean - known - terms.level[:, None, None]


@dataclass(frozen=True)
class Weights:
    """Importance weights of rows in R columns of row weights.

    Parameters
    ----------
    share : ndarray, shape (n, R)
        Weights of the rows, divided by their sum over the sample.
    tilt, w : ndarray, shape (n, R) or (n, 1)
        Tilt and importance weight at the fitted score of each column of row weights.
    moments : tuple of ndarray, shape (n, R) or (n, 1)
        Means over the replicates of t, w, t^2, t w and w^2, for the tilt t and the importance weight w.
    base, terms, factor : ndarray, shape (n, R) or (n, 1), (T, n, R) and (T, n, B)
        Decomposition of the importance weights under the replicates; see the module docstring.
    """

    share: Array
    tilt: Array
    w: Array
    moments: tuple[Array, Array, Array, Array, Array]
    base: Array
    terms: Array
    factor: Array

    def over_replicates(self, members: slice, E: Array, left: Array) -> Array:
        """Return sum_i left_ir E_iw w_ib over the arm's n rows i, shape (R, W, B), for `left` (n, R) and E (n, W)."""
        (n, W), R, B = E.shape, left.shape[1], self.factor.shape[2]
        total = (E.T @ (left * self.base[members])).T[..., None]
        for terms, factor in zip(self.terms[:, members], self.factor[:, members], strict=True):
            if R < B:  # multiply the columns by the narrower of the two
                wide = (E[:, :, None] * (left * terms)[:, None]).reshape(n, W * R)
                total = total + (wide.T @ factor).reshape(W, R, B).transpose(1, 0, 2)
            else:
                wide = (E[:, :, None] * factor[:, None]).reshape(n, W * B)
                total = total + ((left * terms).T @ wide).reshape(R, W, B)
        return total

    def adjoint(self, slices: tuple[slice, ...], values: Array) -> Array:
        """Return each row's sum over replicates b of w_b times its arm's entry in `values` (K, R, B), shape (n, R)."""
        parts = []
        for i, own in zip(slices, values, strict=True):
            excess = (self.terms[:, i] * (self.factor[:, i] @ own.T)).sum(axis=0)
            parts.append(self.base[i] * own.sum(axis=1) + excess)
        return np.concatenate(parts)


def mean_and_square(base: Array, terms: Array, factor: Array) -> tuple[Array, Array]:
    """Return means over the replicates of w and w^2 from the decomposition of w; see `Weights`."""
    excess = (terms * factor.mean(axis=2)[..., None]).sum(axis=0)
    second = np.einsum("snb,tnb->stn", factor, factor) / factor.shape[2]
    return base + excess, base * (base + 2 * excess) + np.einsum("snr,tnr,stn->nr", terms, terms, second)


# --- value, gradient and Hessian -------------------------------------------------------------------------------------


def sums(rows: Rows, weights: Weights, theta: Array, start: Array, terms: Terms) -> dict[str, Array]:
    """Return the sums over rows that determine the objective at coefficients theta of shape (K, P, R).

    Sums with one number per arm have shape (R, K, 1 + P): the number, then its derivatives. Derivatives of sums of
    residuals lack their minus sign. "square", "gradient" and "hessian" are V / 2 and its derivatives before psi is
    centred.
    """
    if rows.family.linear:
        return _linear_sums(rows, weights, theta, start, terms)
    X, family, D, (n_arms, P, R) = rows.X, rows.family, terms.D, theta.shape
    share, (t1, w1, t2, tw, w2), averaged = weights.share, weights.moments, rows.averaged * weights.share
    eta, arms, diagonal = rows.predictors(theta), range(n_arms), np.diag(D)[rows.arm, None]
    m, slope, _ = family.mean_and_derivs(eta)
    d, r, own_eta = rows.counted(m, start, terms), rows.y[:, None] - rows.own(m), rows.own(eta)
    own_rows, ones = list(enumerate(rows.slices)), np.ones((len(X), 1))

    def everywhere(by: Array, values: Array) -> Array:
        return _with_slopes(X, by, values, slope)

    def in_arms(by: Array) -> Array:
        each = [_with_slopes(X[i], by[i], r[None, i], slope[[a], i]) for a, i in own_rows]
        return np.concatenate(each, axis=1)

    by_loss, (score, information, _) = share * (weights.w if terms.risk else w1), family.score(rows.y[:, None], own_eta)
    found = {
        "average": everywhere(averaged * weights.tilt, m),
        "w": in_arms(share * weights.w),
        "w_b": np.stack([weights.over_replicates(i, X[i], share[i] * slope[a][i]) for a, i in own_rows], axis=1),
        "r_b": np.stack([weights.over_replicates(i, ones[i], (share * r)[i]) for _, i in own_rows], axis=1),
        "loss": (by_loss * family.loss(rows.y[:, None], own_eta)).sum(axis=0),
        "loss_gradient": np.stack([X[i].T @ (by_loss * score)[i] for i in rows.slices]).transpose(2, 0, 1),
        "loss_hessian": np.stack([weighted_grams(X[i], (by_loss * information)[i]) for i in rows.slices], axis=1),
    }
    if not terms.risk:
        return found
    D_d = np.tensordot(D, d, axes=1)
    by_tt, by_tw, by_ww = averaged * t2, averaged * tw, share * w2 * diagonal
    own = by_tw * rows.own(D_d)
    of_means = by_tt * D_d + by_tw * r * D[:, rows.arm][..., None]
    for a, i in own_rows:
        of_means[a, i] -= own[i] + (by_ww * r)[i]
    pairs, crossed = [(a, b) for a in arms for b in range(a + 1)], list[Array]()
    for a, b in pairs:
        by = D[a, b] * np.broadcast_to(by_tt, share.shape)
        for i in (rows.slices[a], rows.slices[b]):
            by[i] -= D[a, b] * by_tw[i]
        if a == b:
            by[rows.slices[a]] += by_ww[rows.slices[a]]
        crossed.append(by * slope[a] * slope[b])
    hessian = np.zeros((R, n_arms, n_arms, P, P))
    for (a, b), gram in zip(pairs, weighted_grams(X, np.hstack(crossed)).reshape(-1, R, P, P), strict=True):
        hessian[:, a, b] = hessian[:, b, a] = gram
    return found | {
        "square": ((by_tt * d * D_d).sum(axis=0) + r * (2 * own + by_ww * r)).sum(axis=0) / 2,
        "gradient": (X.T @ (of_means * slope)).transpose(2, 0, 1),
        "hessian": hessian,
        "t1": everywhere(averaged * t1, d),
        "t2": everywhere(by_tt, d),
        "tw": in_arms(share * tw),
        "t2_averaged": by_tt.sum(axis=0),
        "t2_measured": (rows.measured * share * t2).sum(axis=0),
    }


def _linear_sums(rows: Rows, weights: Weights, theta: Array, start: Array, terms: Terms) -> dict[str, Array]:
    """Return `sums` for linear models, from products of the columns, the residuals and the offset."""
    D, (n_arms, P, R), share = terms.D, theta.shape, weights.share
    (t1, w1, t2, tw, w2), averaged = weights.moments, rows.averaged * share
    residual = rows.y[:, None] - rows.own(rows.predictors(start[..., :1]))
    E = np.hstack([rows.X, residual, *([] if rows.offset is None else [rows.offset])])
    m, known, r = np.zeros((3, R, n_arms, E.shape[1]))  # coefficients of the columns E
    m[..., :P], known[..., :P] = theta.transpose(2, 0, 1), start.transpose(2, 0, 1)
    m[..., P + 1 :] = known[..., P + 1 :] = r[..., P] = 1.0
    r[..., :P] = known[:1, :, :P] - m[..., :P]
    d = m - terms.share * known
    d[..., :P] -= terms.level[:, None] * terms.constant
    by_loss = weights.w if terms.risk else w1
    by = np.empty((len(E), 4, R))
    for k, (left, right) in enumerate(((averaged, t2), (averaged, tw), (share, w2), (share, by_loss))):
        np.multiply(left, right, out=by[:, k])
    grams = np.stack([weighted_grams(E[i], by[i].reshape(-1, 4 * R)) for i in rows.slices], axis=1)
    of_tt, of_tw, of_ww, of_loss = grams.reshape(4, R, n_arms, *grams.shape[2:])

    def number(total: Array, coefficients: Array) -> Array:
        slopes = np.broadcast_to(total[..., :P], (R, n_arms, P))
        return np.concatenate([(total * coefficients).sum(axis=2, keepdims=True), slopes], axis=2)

    def everywhere(of: Array, coefficients: Array) -> Array:
        return number((E.T @ of).T[:, None], coefficients)

    def in_arms(of: Array) -> Array:
        return number(np.stack([(E[i].T @ of[i]).T for i in rows.slices], axis=1), r)

    def times(matrices: Array, vectors: Array) -> Array:
        return (matrices @ vectors[..., None])[..., 0]

    biases = np.stack([weights.over_replicates(i, E[i], share[i]) for i in rows.slices], axis=1)
    of_tt = of_tt.sum(axis=1, keepdims=True)  # over the rows of all arms
    D_d, loss_r, ww_r = np.einsum("ab,rbw->raw", D, d), times(of_loss, r), np.diag(D)[:, None] * times(of_ww, r)
    tt_d, tw_d, tw_r = times(of_tt, D_d), times(of_tw, D_d), times(of_tw, r)
    hessian = D[:, :, None, None] * (of_tt[:, None] - of_tw[:, :, None] - of_tw[:, None])[..., :P, :P]
    for a in range(n_arms):
        hessian[:, a, a] += D[a, a] * of_ww[:, a, :P, :P]
    return {
        "average": everywhere(averaged * weights.tilt, m),
        "w": in_arms(share * weights.w),
        "w_b": biases[:, :, :P],
        "r_b": (r[..., None] * biases).sum(axis=2, keepdims=True),
        "loss": (r * loss_r).sum(axis=(1, 2)) / 2,
        "loss_gradient": loss_r[..., :P],
        "loss_hessian": of_loss[..., :P, :P],
        "square": (d * tt_d + r * (2 * tw_d + ww_r)).sum(axis=(1, 2)) / 2,
        "gradient": (tt_d + np.einsum("ab,rbw->raw", D, tw_r) - tw_d - ww_r)[..., :P],
        "hessian": hessian,
        "t1": everywhere(averaged * t1, d),
        "t2": everywhere(averaged * t2, d),
        "tw": in_arms(share * tw),
        "t2_averaged": (averaged * t2).sum(axis=0),
        "t2_measured": (rows.measured * share * t2).sum(axis=0),
    }


def _with_slopes(X: Array, by: Array, values: Array, slope: Array) -> Array:
    """Return weighted sums of `values` (K, n, R) over rows, followed by the sums' derivatives, shape (R, K, 1 + P)."""
    total = np.einsum("nr,knr->rk", np.broadcast_to(by, values.shape[1:]), values)
    return np.concatenate([total[..., None], (X.T @ (by * slope)).transpose(2, 0, 1)], axis=2)


def moved(pair: Pair, step: Array) -> Pair:
    """Return value and derivative of a linear function of the coefficients after a `step` of shape (R, K, P)."""
    return pair[0] + np.einsum("rkp...,rkp->rk...", pair[1], step), pair[1]


@dataclass(frozen=True)
class Expansion:
    """Second-order expansion of the objective, for each of R columns of row weights.

    The K P coefficients are stacked by arm.

    Parameters
    ----------
    risk, loss : tuple of ndarray, shape (R,), (R, K P) and (R, K P, K P)
        Value, gradient and Hessian. `risk` has the objective without the losses. `loss` has sigma_0^2 times the losses.
    u : tuple of ndarray, shape (R, C) and (R, C, K P)
        Net bias at the fitted score and its derivative. For "erm", C = 0.
    average : tuple of ndarray, shape (R, K) and (R, K, P)
        Averages of the models over the target, and their derivatives.
    biases : tuple of ndarray, shape (R, K, B) and (R, K, P, B)
        Bias under each replicate, and its derivative.
    centres : list of Centre
        One item for all rows. With a target frame, one item for the frame's rows and one for the sample's rows.
    """

    risk: tuple[Array, Array, Array]
    loss: tuple[Array, Array, Array]
    u: Pair
    average: Pair
    biases: Pair
    centres: list[Centre]

    @property
    def bias(self) -> Pair:
        """Bias of each arm (K) averaged over the replicates, for each column of row weights (R), and its derivative."""
        return self.biases[0].mean(axis=-1), self.biases[1].mean(axis=-1)

    def at(self, alpha: float) -> list[Array]:
        """Return value, gradient and Hessian of the objective with weight alpha on the losses."""
        return [rest + alpha * loss for rest, loss in zip(self.risk, self.loss, strict=True)]

    def projected(self, lift: Array) -> Expansion:
        """Return the expansion in terms of the models' coefficients theta, with beta = `lift` theta."""
        risk, loss = (
            (value, (gradient[:, None] @ lift)[:, 0], lift.transpose(0, 2, 1) @ hessian @ lift)
            for value, gradient, hessian in (self.risk, self.loss)
        )
        return dataclasses.replace(self, risk=risk, loss=loss, u=(self.u[0], self.u[1] @ lift))

    def after_step(self, step: Array) -> Expansion:
        """Return the expansion after a `step` of shape (K, P, R). For linear models, the result is exact."""
        step = step.transpose(2, 0, 1)
        z = step.reshape(len(step), -1)
        risk, loss = (
            (value + (z * (gradient + move / 2)).sum(axis=1), gradient + move, hessian)
            for value, gradient, hessian in (self.risk, self.loss)
            for move in [(hessian @ z[..., None])[..., 0]]
        )
        return Expansion(
            risk,
            loss,
            (self.u[0] + (self.u[1] @ z[..., None])[..., 0], self.u[1]),
            moved(self.average, step),
            moved(self.biases, step),
            [(moved(N, step), moved(of_psi, step)) for N, of_psi in self.centres],
        )

    def some(self, columns: Any) -> Expansion:
        """Select the expansions for the given columns of row weights."""

        def part(of: Any) -> Any:
            return of[columns] if isinstance(of, np.ndarray) else type(of)(map(part, of))

        return Expansion(**{name: part(of) for name, of in vars(self).items()})


def expand(of: dict[str, Array], terms: Terms, *, framed: bool) -> Expansion:
    """Compute the expansion from the sums over all rows."""
    C, D, (R, n_arms, P, _) = terms.contrasts, terms.D, of["w_b"].shape
    size = n_arms * P

    def pair(name: str, sign: float = 1.0) -> Pair:
        return of[name][..., 0], sign * of[name][..., 1:]

    biases = -of["r_b"][:, :, 0], of["w_b"]
    U, U_slope = C @ biases[0], (C[:, :, None, None] * biases[1][:, None]).reshape(R, len(C), size, -1)
    weight, wide = terms.n_units / biases[0].shape[2], U_slope.transpose(0, 2, 1, 3).reshape(R, size, -1)
    value, gradient = weight / 2 * (U**2).sum(axis=(1, 2)), weight * (wide @ U.reshape(R, -1, 1))[..., 0]
    hessian, centres = weight * wide @ wide.transpose(0, 2, 1), list[Centre]()
    if terms.risk:
        value, slope = value + of["square"], of["gradient"]
        hessian = hessian + of["hessian"].transpose(0, 1, 3, 2, 4).reshape(R, size, size)
        M, tM, tR = pair("t1"), pair("t2"), pair("tw", -1.0)
        bias = -biases[0].mean(axis=-1), -biases[1].mean(axis=-1)
        every = [(M, tM, of["t2_averaged"]), (bias, tR, of["t2_measured"])]
        if not framed:
            mean, t_psi = ((one[0] + other[0], one[1] + other[1]) for one, other in ((M, bias), (tM, tR)))
            every = [(mean, t_psi, of["t2_averaged"])]
        for (N, N_slope), (T, T_slope), tt in every:
            DN, tt_N, tt_N_slope = N @ D, tt[:, None] * N, tt[:, None, None] * N_slope
            left, left_slope = T - tt_N / 2, T_slope - tt_N_slope / 2
            value = value - (DN * left).sum(axis=1)
            slope = slope - (left @ D)[..., None] * N_slope - DN[..., None] * left_slope
            product = np.einsum("ab,rap,rbq->rapbq", D, N_slope, left_slope, optimize=True).reshape(R, size, size)
            hessian = hessian - product - product.transpose(0, 2, 1)
            centres.append(((N, N_slope), (T - tt_N, T_slope - tt_N_slope)))
        gradient = gradient + slope.reshape(R, size)
    u, u_slope = pair("w")
    net = -u @ terms.constraint.T, (terms.constraint[:, :, None] * u_slope[:, None]).reshape(R, -1, size)
    losses = of["loss"], -of["loss_gradient"].reshape(R, size), block_diagonal(of["loss_hessian"])
    loss: Any = tuple(terms.sigma2 * each for each in losses)
    return Expansion((value, gradient, hessian), loss, net, pair("average"), biases, centres)


def block_diagonal(blocks: Array) -> Array:
    """Return block-diagonal matrices, shape (R, K P, K P), from `blocks` of shape (R, K, P, P), one per arm."""
    R, n_arms, P, _ = blocks.shape
    found = np.zeros((R, n_arms, P, n_arms, P))
    for a in range(n_arms):
        found[:, a, :, a] = blocks[:, a]
    return found.reshape(R, n_arms * P, n_arms * P)


# --- by row ----------------------------------------------------------------------------------------------------------


def centred(rows: Rows, d: Array, centres: list[Centre]) -> Array:
    """Return `d`, the result of `Rows.counted`, minus the means that centre psi, shape (K, n, R)."""
    first, last = (centres[k][0][0].T[:, None] for k in (0, -1))
    return d - first if len(centres) == 1 else rows.averaged * (d - first) - rows.measured * last


def by_means(
    rows: Rows, moments: Sequence[Array], w: Array, risk: Array, at: Expansion, terms: Terms, nu: Array, d: Array,
    r: Array,
) -> Array:  # fmt: skip
    """Return the Lagrangian's derivatives with respect to each row's means m_a, divided by its share, (K, n, R).

    Derivatives omit the losses, and hold totals over rows fixed. `risk` is the sum over b of w_b times (n / B) D B_b.
    `nu`, shape (R, C), has the multipliers of the constraint.
    """
    arm, D, (t1, w1, t2, tw, w2) = rows.arm, terms.D, moments
    found = np.zeros(d.shape)
    own = risk + w * (nu @ terms.constraint).T[arm]
    if terms.risk:
        D_psi = np.tensordot(D, centred(rows, d, at.centres), axes=1)
        first, last = (D @ at.centres[k][1][0].T for k in (0, -1))
        found = rows.averaged * (t2 * D_psi + tw * r * D[:, arm][..., None] - t1 * first[:, None])
        own = own + w1 * last[arm] - tw * rows.own(D_psi) - np.diag(D)[arm][:, None] * w2 * r
    for a, members in enumerate(rows.slices):
        found[a, members] += own[members]
    return found


def curvature(
    rows: Rows, weights: Weights, theta: Array, start: Array, terms: Terms, at: Expansion, nu: Array
) -> Array:
    """Sum over rows the part of the Hessian that comes from second derivatives of the means, shape (R, K, P, P)."""
    eta = rows.predictors(theta)
    mean, _, second = rows.family.mean_and_derivs(eta)
    risk = weights.adjoint(rows.slices, bias_gradient(at, terms))
    d, r = rows.counted(mean, start, terms), rows.y[:, None] - rows.own(mean)
    by = weights.share * second * by_means(rows, weights.moments, weights.w, risk, at, terms, nu, d, r)
    return np.stack([weighted_grams(rows.X, of) for of in by], axis=1)


def bias_gradient(at: Expansion, terms: Terms) -> Array:
    """Return the derivative of the bias term, (n / 2) mean_b |C B_b|^2, with respect to B_b, shape (K, R, B)."""
    return terms.n_units / at.biases[0].shape[2] * np.tensordot(terms.D, at.biases[0], axes=(1, 1))
