"""The objective of JRE: sums of products of columns over rows, and its value, gradient and Hessian from them.

With m_a the outcome model of arm a, w the importance weight of a row in its own arm, t the tilt of the target, r the
residual of a row, and averages over the target written as sums of `share` times what a row has,

    B_a = - sum_i share_i 1{arm_i = a} w_i r_i                       bias of arm a under a score
    psi_a = t (d_a - N_a) + 1{arm = a} w r                           d_a = m_a - c m_a of IPWRA; N_a centres it
    J = alpha sigma_0^2 sum_a L_a + V / 2 + (n / 2) mean_b |C B_b|^2
    V = mean_b sum_i share_i |C psi_ib|^2

minimised under C B = 0 at the fitted score. C has the contrasts of the arms, b = 1 .. B are replicates of the score,
L_a is the loss of IPWRA. "erm" has alpha = 1, losses averaged over the replicates, no V and no constraint. Of a target
frame t d_a is of its rows and w r of the sample, and each is centred by its own mean.

d_a, r and m_a are products of columns E_a with coefficients: of linear models the columns are the same at all
coefficients, (X, residual at IPWRA, offset), of others they are (m_a' X, r, d_a, m_a) there. Row weights may be R
columns, such as resamples. A replicate's weight is w_b = base + sum_t terms_t factor_tb: for one column of row weights
the weights themselves are the factor; with a logit the odds of each resample are terms, and what a shift of the score
multiplies them by is the factor.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from causalrisk.numerics.families import OutcomeFamily
from causalrisk.numerics.linalg import Array, weighted_grams

Pair = tuple[Array, Array]  # a number and its derivative
SQUARES, EVERYWHERE, OWN = ("tt", "tw", "ww", "loss"), ("t1", "t2", "average"), ("tw1", "w")  # sums of products


@dataclass(frozen=True)
class Terms:
    """What the objective holds fixed.

    Parameters
    ----------
    contrasts : ndarray, shape (C, K)
        C.
    n_units : float
        n; its square for "erm".
    sigma2 : float
        sigma_0^2, the mean variance function at the start.
    share : float
        c, the share of the start's effect heterogeneity that V leaves out.
    risk : bool
        Whether the objective is "risk"; else "erm".
    level : ndarray, shape (K,)
        About the mean of each m_a, from which d_a is measured so as to lose no digits.
    constant : ndarray, shape (P,)
        Coefficients of the columns that give the constant one.
    origin : ndarray, shape (K, P)
        Coefficients from which residuals of linear models are measured.
    unit : float
        Root mean square of the residuals of the start.
    """

    contrasts: Array
    n_units: float
    sigma2: float
    share: float
    risk: bool
    level: Array
    constant: Array
    origin: Array
    unit: float

    @property
    def D(self) -> Array:
        """C'C, shape (K, K)."""
        return self.contrasts.T @ self.contrasts

    @property
    def constraint(self) -> Array:
        """Contrasts that are zero at the fitted score."""
        return self.contrasts if self.risk else self.contrasts[:0]


@dataclass(frozen=True)
class Rows:
    """Rows of a sample, n of them, those of an arm together.

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
        One in the rows that the target is averaged over, and in those whose tilt divides the weights: all of them, but
        the rows of a target frame, and those of the sample beside it.
    """

    X: Array
    y: Array
    slices: tuple[slice, ...]
    family: OutcomeFamily
    offset: Array | None = None
    averaged: Array | float = 1.0
    measured: Array | float = 1.0

    @property
    def framed(self) -> bool:
        """Whether there is a target frame."""
        return not isinstance(self.measured, float)

    @property
    def indicators(self) -> Array:
        """One in the rows of each arm, shape (K, n, 1)."""
        return np.eye(len(self.slices))[:, self.arm, None]

    @cached_property
    def arm(self) -> Array:
        """Arm of each row."""
        return np.repeat(np.arange(len(self.slices)), [own.stop - own.start for own in self.slices])

    def predictors(self, theta: Array) -> Array:
        """Linear predictors, shape (K, n, R), under theta (K, P, R)."""
        return self.X @ theta + (0.0 if self.offset is None else self.offset)

    def own(self, values: Array) -> Array:
        """Values (K, n, R) in each row's own arm, shape (n, R)."""
        return np.concatenate([values[a, members] for a, members in enumerate(self.slices)])

    def counted(self, mean: Array, start: Array, terms: Terms) -> Array:
        """d_a of means (K, n, R) and models of IPWRA (K, P, R), measured from their level."""
        known = terms.share * self.family.mean(self.predictors(start)) if terms.share else 0.0
        return mean - known - terms.level[:, None, None]

    def columns(self, terms: Terms) -> Array:
        """E of linear models, shape (n, W)."""
        left = self.y - self.own(self.predictors(terms.origin[..., None]))[:, 0]
        return np.column_stack([self.X, left, *([] if self.offset is None else [self.offset])])


@dataclass(frozen=True)
class Weights:
    """Importance weights of rows in R columns of row weights.

    Parameters
    ----------
    share : ndarray, shape (n, R)
        Weights of the rows over their sum in the sample.
    tilt, w : ndarray, shape (n, R) or (n, 1)
        Tilt and importance weight at the score of each column.
    base, terms, factor : ndarray, shape (n, R) or (n, 1), (T, n, R) and (T, n, B)
        Those under the replicates: see the module.
    tilts : ndarray, shape (n, B), optional
        Tilt under the replicates, of one column, if it is not the same.
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

    def over_replicates(self, members: slice, E: Array, left: Array) -> Array:
        """Sum w_b times `left` (n, R) times columns E (n, W) over the rows of an arm, shape (R, W, B).

        The fewer of left and factor are multiplied by the columns.
        """
        (n, width), m, count = E.shape, left.shape[1], self.factor.shape[2]
        total = (E.T @ (left * self.base[members])).T[..., None]
        for terms, factor in zip(self.terms[:, members], self.factor[:, members], strict=True):
            weighted = left * terms
            if m < count:
                wide = (E[:, :, None] * weighted[:, None]).reshape(n, width * m)
                total = total + (wide.T @ factor).reshape(width, m, count).transpose(1, 0, 2)
            else:
                wide = (E[:, :, None] * factor[:, None]).reshape(n, width * count)
                total = total + (weighted.T @ wide).reshape(m, width, count)
        return total

    def adjoint(self, slices: tuple[slice, ...], values: Array) -> Array:
        """Sum w_b times values, shape (K, R, B), of a row's arm over the replicates, shape (n, R)."""
        parts = []
        for members, own in zip(slices, values, strict=True):
            total = self.base[members] * own.sum(axis=1)
            for terms, factor in zip(self.terms[:, members], self.factor[:, members], strict=True):
                total = total + terms * (factor @ own.T)
            parts.append(total)
        return np.concatenate(parts)


# --- sums over rows --------------------------------------------------------------------------------------------------


def sums(rows: Rows, weights: Weights, theta: Array, start: Array, terms: Terms) -> dict[str, Array]:
    """Sum products of the columns at theta, shape (K, P, R), under the weights; those of chunks of rows add up.

    Shapes are (R, K, ...), with one for K where the columns of all arms are the same. "tt" are over all rows, "tw",
    "ww" and "loss" over those of each arm, as are "tw1", "w" and "w_b" of single columns.
    """
    share, (t1, w1, t2, tw, w2), averaged = weights.share, weights.moments, rows.averaged * weights.share
    by_w, by_tw, by_t2 = share * weights.w, share * tw, averaged * t2
    v = {"t1": averaged * t1, "t2": by_t2, "average": averaged * weights.tilt, "tw1": by_tw, "w": by_w}
    v |= {"tt": by_t2, "tw": rows.averaged * by_tw, "ww": share * w2, "loss": by_w if terms.risk else share * w1}
    linear = rows.family.linear
    found = _of_linear(rows, weights, v, terms) if linear else _of_bent(rows, weights, v, theta, start, terms)
    return found | {"t2_averaged": by_t2.sum(axis=0), "t2_measured": (rows.measured * share * t2).sum(axis=0)}


def _of_linear(rows: Rows, weights: Weights, v: dict[str, Array], terms: Terms) -> dict[str, Array]:
    """Return the sums for linear models, whose columns are the same in all arms, with weights v of the products."""
    E, slices = rows.columns(terms), rows.slices
    each = [weighted_grams(E[i], np.hstack([v[name][i] for name in SQUARES])) for i in slices]
    tt, tw, ww, loss = np.stack(each, axis=1).reshape(4, -1, len(slices), E.shape[1], E.shape[1])
    return {
        "tt": tt.sum(axis=1)[:, None, None],
        "tw": tw[:, :, None],
        "ww": ww,
        "loss": loss,
        **{name: (E.T @ v[name]).T[:, None] for name in EVERYWHERE},
        **{name: np.stack([(E[i].T @ v[name][i]).T for i in slices], axis=1) for name in OWN},
        "w_b": np.stack([weights.over_replicates(i, E[i], weights.share[i]) for i in slices], axis=1),
    }


def _of_bent(
    rows: Rows, weights: Weights, v: dict[str, Array], theta: Array, start: Array, terms: Terms
) -> dict[str, Array]:
    """Return the sums for models that are not linear; products of columns that nothing needs are zero.

    Products that give the losses and their derivatives stand in place of squares.
    """
    X, y, family, share = rows.X, rows.y[:, None], rows.family, weights.share
    by_tt, by_tw, by_ww, by_loss = (v[name] for name in SQUARES)
    eta = rows.predictors(theta)
    m, slope, (n_arms, P, R) = family.mean(eta), family.mean_deriv(eta), theta.shape
    d, r, own_eta, width = rows.counted(m, start, terms), y - rows.own(m), rows.own(eta), P + 3
    score, curve, loss = (by_loss * v for v in (*family.score(y, own_eta)[:2], family.loss(y, own_eta)))
    of_r, of_d, of_m, arms = P, P + 1, P + 2, range(n_arms)
    found = {name: np.zeros((R, n_arms, width)) for name in (*EVERYWHERE, *OWN)}
    found |= {name: np.zeros((R, n_arms, width, width)) for name in ("ww", "loss")}
    found |= {name: np.zeros((R, n_arms, n_arms, width, width)) for name in ("tt", "tw")}
    found["w_b"] = np.zeros((R, n_arms, width, weights.factor.shape[2]))
    pairs = [(a, b) for a in arms for b in range(a + 1)]
    grams = weighted_grams(X, np.hstack([by_tt * slope[a] * slope[b] for a, b in pairs]))
    for (a, b), gram in zip(pairs, grams.reshape(-1, R, P, P), strict=True):
        found["tt"][:, a, b, :P, :P] = found["tt"][:, b, a, :P, :P] = gram
    for a, i in enumerate(rows.slices):
        x, s = X[i], slope[:, i]
        for name in EVERYWHERE:
            by, (column, values) = v[name], (of_m, m[a]) if name == "average" else (of_d, d[a])
            found[name][:, a, :P], found[name][:, a, column] = (X.T @ (by * slope[a])).T, (by * values).sum(axis=0)
        for name in OWN:
            by = v[name][i]
            found[name][:, a, :P], found[name][:, a, of_r] = (x.T @ (by * s[a])).T, (by * r[i]).sum(axis=0)
        of_rows = [*(by_tw[i] * s[a] * s[b] for b in arms), by_ww[i] * s[a] ** 2, curve[i]]
        *tw, ww, of_loss = weighted_grams(x, np.hstack(of_rows)).reshape(-1, R, P, P)
        for b in arms:
            tt, of_tw, by = found["tt"][:, a, b], found["tw"][:, a, b], by_tt * d[b]
            tt[:, :P, of_d], tt[:, of_d, of_d] = (X.T @ (by * slope[a])).T, (by * d[a]).sum(axis=0)
            of_tw[:, :P, :P], of_tw[:, :P, of_d] = tw[b], (x.T @ (by_tw[i] * s[a] * d[b, i])).T
            by = by_tw[i] * r[i]
            of_tw[:, of_r, :P], of_tw[:, of_r, of_d] = (x.T @ (by * s[b])).T, (by * d[b, i]).sum(axis=0)
        for name, gram, of_x, value in (
            ("ww", ww, by_ww[i] * s[a] * r[i], by_ww[i] * r[i] ** 2),
            ("loss", of_loss, score[i], 2 * loss[i]),
        ):
            into = found[name][:, a]
            into[:, :P, :P], into[:, of_r, of_r] = gram, value.sum(axis=0)
            into[:, :P, of_r] = into[:, of_r, :P] = (x.T @ of_x).T
        found["w_b"][:, a, :P] = weights.over_replicates(i, x, share[i] * s[a])
        found["w_b"][:, a, of_r] = weights.over_replicates(i, np.ones((len(x), 1)), share[i] * r[i])[:, 0]
    return found


# --- value, gradient and Hessian -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Centre:
    """A mean N that psi is centred by and P, the mean of t psi in its rows, (R, K), each with its slope (R, K, P)."""

    N: Pair
    P: Pair
    tt: Array

    @classmethod
    def of(cls, N: Pair, t_psi: Pair, tt: Array) -> Centre:
        """Centre t psi; tt, shape (R,), is the mean of t^2."""
        tt = tt[:, None]
        return cls(N, (t_psi[0] - tt * N[0], t_psi[1] - tt[..., None] * N[1]), tt)


@dataclass(frozen=True)
class Expansion:
    """The objective about theta in R columns of row weights; coefficients stacked arm by arm, K P of them.

    Parameters
    ----------
    risk, loss : tuple of ndarray, shape (R,), (R, K P) and (R, K P, K P)
        Value, gradient and Hessian of all terms but the losses, and of sigma_0^2 times these.
    u : tuple of ndarray, shape (R, C) and (R, C, K P)
        Net bias at the fitted score and its derivative; none of "erm".
    average : tuple of ndarray, shape (R, K) and (R, K, P)
        Means of the models over the target.
    biases : tuple of ndarray, shape (R, K, B) and (R, K, P, B)
        Bias under each replicate.
    variance : ndarray, shape (R,)
        V.
    centres : list of Centre
        Of all rows, or of those averaged over and those of the sample.
    """

    risk: tuple[Array, Array, Array]
    loss: tuple[Array, Array, Array]
    u: Pair
    average: Pair
    biases: Pair
    variance: Array
    centres: list[Centre]

    @property
    def bias(self) -> Pair:
        """Biases averaged over the replicates, shape (R, K) and (R, K, P)."""
        return self.biases[0].mean(axis=-1), self.biases[1].mean(axis=-1)

    def at(self, alpha: float) -> list[Array]:
        """Value, gradient and Hessian with the weight alpha of the losses."""
        return [rest + alpha * loss for rest, loss in zip(self.risk, self.loss, strict=True)]

    def projected(self, lift: Array | None) -> Expansion:
        """Return derivatives by coefficients of which lift, (R, K P, K p), makes those of all columns."""
        if lift is None:
            return self
        risk, loss = (
            (value, (gradient[:, None] @ lift)[:, 0], lift.transpose(0, 2, 1) @ hessian @ lift)
            for value, gradient, hessian in (self.risk, self.loss)
        )
        return dataclasses.replace(self, risk=risk, loss=loss, u=(self.u[0], self.u[1] @ lift))

    def means_after(self, step: Array) -> tuple[Array, Array]:
        """Return averages and biases of linear models, (R, K), where coefficients (K, P, R) are a step further."""
        step = step.transpose(2, 0, 1)
        average, bias = (value + (slope * step).sum(axis=2) for value, slope in (self.average, self.bias))
        return average, bias

    def some(self, columns: slice) -> Expansion:
        """Return the biases and centres of some columns."""

        def pair(of: Pair) -> Pair:
            return of[0][columns], of[1][columns]

        centres = [Centre(pair(of.N), pair(of.P), of.tt[columns]) for of in self.centres]
        return dataclasses.replace(self, biases=pair(self.biases), centres=centres)


def coefficients(theta: Array, start: Array, terms: Terms, linear: bool, width: int) -> list[Array]:
    """Coefficients of d_a, r and m_a in the columns, each (R, K, W), at theta (K, P, R)."""
    theta, start = theta.transpose(2, 0, 1), start.transpose(2, 0, 1)
    R, n_arms, P = theta.shape
    d, r, m = np.zeros((3, R, n_arms, width))
    r[..., P] = 1.0
    if linear:
        d[..., :P] = theta - terms.share * start - terms.level[:, None] * terms.constant
        r[..., :P], m[..., :P] = terms.origin - theta, theta
        d[..., P + 1 :], m[..., P + 1 :] = 1.0 - terms.share, 1.0
    else:
        d[..., P + 1] = m[..., P + 2] = 1.0
    return [d, r, m]


def expand(of: dict[str, Array], theta: Array, start: Array, terms: Terms, *, linear: bool, framed: bool) -> Expansion:
    """Return the objective at theta, shape (K, P, R), from the sums over all rows."""
    d, r, m = coefficients(theta, start, terms, linear, of["w"].shape[2])
    C, D, (n_arms, P, R) = terms.contrasts, terms.D, theta.shape
    size, diagonal = n_arms * P, np.diag(D)

    def pair(name: str, by: Array, sign: float = 1.0) -> Pair:
        return sign * (of[name] * by).sum(axis=2), np.broadcast_to(of[name][..., :P], (R, n_arms, P))

    biases = -(of["w_b"] * r[..., None]).sum(axis=2), of["w_b"][:, :, :P]
    U, U_slope = C @ biases[0], (C[:, :, None, None] * biases[1][:, None]).reshape(R, len(C), size, -1)
    weight, wide = terms.n_units / biases[0].shape[2], U_slope.transpose(0, 2, 1, 3).reshape(R, size, -1)
    value, gradient = weight / 2 * (U**2).sum(axis=(1, 2)), weight * (wide @ U.reshape(R, -1, 1))[..., 0]
    hessian, square, centres = weight * wide @ wide.transpose(0, 2, 1), np.zeros(R), list[Centre]()
    if terms.risk:
        # V before centring: d'D d under t^2, r D d under t w, r^2 under w^2
        tt, tw = of["tt"], of["tw"]
        tt_d = (D[:, :, None] * (tt @ d[:, None, ..., None])[..., 0]).sum(axis=2)
        tw_d = (D[:, :, None] * (tw @ d[:, None, ..., None])[..., 0]).sum(axis=2)
        r_tw = (D[:, :, None] * (r[:, :, None, None] @ tw)[..., 0, :]).sum(axis=1)
        ww_r = diagonal[:, None] * (of["ww"] @ r[..., None])[..., 0]
        square = (d * tt_d + r * (2 * tw_d + ww_r)).sum(axis=(1, 2))
        slope = (tt_d + r_tw - tw_d - ww_r)[..., :P]
        blocks = D[:, :, None, None] * (tt - tw - tw.transpose(0, 2, 1, 4, 3))[..., :P, :P]
        blocks[:, range(n_arms), range(n_arms)] += diagonal[:, None, None] * of["ww"][..., :P, :P]
        curve = blocks.transpose(0, 1, 3, 2, 4).reshape(R, size, size)
        M, tM, tR = pair("t1", d), pair("t2", d), pair("tw1", r)
        tR, R_ = (tR[0], -tR[1]), (-biases[0].mean(axis=-1), -biases[1].mean(axis=-1))
        if framed:
            centres = [Centre.of(M, tM, of["t2_averaged"]), Centre.of(R_, tR, of["t2_measured"])]
        else:
            mean, t_psi = ((one[0] + other[0], one[1] + other[1]) for one, other in ((M, R_), (tM, tR)))
            centres = [Centre.of(mean, t_psi, of["t2_averaged"])]
        for of_rows in centres:
            (N, N_slope), (P_, P_slope), tt_ = of_rows.N, of_rows.P, of_rows.tt
            DN, DP, half = N @ D, P_ @ D, tt_[..., None] / 2 * N_slope
            square = square - (DN * (2 * P_ + tt_ * N)).sum(axis=1)
            slope = slope - DP[..., None] * N_slope - DN[..., None] * (P_slope + 2 * half)
            product = np.einsum("ab,rap,rbq->rapbq", D, N_slope, P_slope + half, optimize=True)
            product = product.reshape(R, size, size)
            curve = curve - product - product.transpose(0, 2, 1)
        value, gradient, hessian = value + square / 2, gradient + slope.reshape(R, size), hessian + curve
    by_loss, loss_hessian = (of["loss"] @ r[..., None])[..., 0], np.zeros((R, n_arms, P, n_arms, P))
    for a in range(n_arms):
        loss_hessian[:, a, :, a] = terms.sigma2 * of["loss"][:, a, :P, :P]
    loss_value, loss_gradient = (r * by_loss).sum(axis=(1, 2)), by_loss[..., :P].reshape(R, size)
    loss = terms.sigma2 / 2 * loss_value, -terms.sigma2 * loss_gradient, loss_hessian.reshape(R, size, size)
    u, u_slope = pair("w", r, -1.0)
    net = u @ terms.constraint.T, (terms.constraint[:, :, None] * u_slope[:, None]).reshape(R, -1, size)
    return Expansion((value, gradient, hessian), loss, net, pair("average", m), biases, square, centres)


# --- by row ----------------------------------------------------------------------------------------------------------


def centred(rows: Rows, d: Array, centres: list[Centre]) -> Array:
    """d_a, shape (K, n, R), less the means by which psi is centred over t."""
    first, last = (centre.N[0].T[:, None] for centre in (centres[0], centres[-1]))
    return d - first if len(centres) == 1 else rows.averaged * (d - first) - rows.measured * last


def by_means(
    rows: Rows, moments: tuple[Array, ...], w: Array, risk: Array, at: Expansion, terms: Terms, nu: Array, d: Array,
    r: Array,
) -> Array:  # fmt: skip
    """Return derivatives of all but the losses by each row's means m_a over its share, (K, n, R), totals held fixed.

    It is linear in the moments of the weights, in the weight w at the fitted score, and in `risk`, the sum of w_b times
    (n / B) D B_b. `nu`, shape (R, C), are the multipliers of the constraint.
    """
    arm, D, (t1, w1, t2, tw, w2) = rows.arm, terms.D, moments
    found = np.zeros(d.shape)
    own = risk + w * (nu @ terms.constraint).T[arm]
    if terms.risk:
        D_psi = np.tensordot(D, centred(rows, d, at.centres), axes=1)
        first, last = (D @ centre.P[0].T for centre in (at.centres[0], at.centres[-1]))
        found = rows.averaged * (t2 * D_psi + tw * r * D[:, arm][..., None] - t1 * first[:, None])
        own = own + w1 * last[arm] - tw * rows.own(D_psi) - np.diag(D)[arm][:, None] * w2 * r
    for a, members in enumerate(rows.slices):
        found[a, members] += own[members]
    return found


def curvature(
    rows: Rows, weights: Weights, theta: Array, start: Array, terms: Terms, at: Expansion, nu: Array
) -> Array:
    """Sum over rows the second derivatives of the means in the Hessian, shape (R, K, P, P)."""
    eta = rows.predictors(theta)
    mean, second = rows.family.mean(eta), rows.family.mean_deriv2(eta)
    risk = weights.adjoint(rows.slices, pulls(at, terms))
    d, r = rows.counted(mean, start, terms), rows.y[:, None] - rows.own(mean)
    by = weights.share * second * by_means(rows, weights.moments, weights.w, risk, at, terms, nu, d, r)
    return np.stack([weighted_grams(rows.X, of) for of in by], axis=1)


def pulls(at: Expansion, terms: Terms) -> Array:
    """(n / B) D B_b, shape (K, R, B)."""
    return terms.n_units / at.biases[0].shape[2] * np.tensordot(terms.D, at.biases[0], axes=(1, 1))


def risk_of(rows: Rows, weights: Weights, mean: Array, start: Array, terms: Terms) -> tuple[Array, float]:
    """Biases (K, B) and V of any predictions of all rows, shape (K, n, 1), in one column of row weights."""
    r, share, (t1, w1, t2, tw, w2) = rows.y[:, None] - rows.own(mean), weights.share, weights.moments
    d, arm = rows.averaged * rows.counted(mean, start, terms), rows.arm
    R = np.array([(share * w1 * r)[own].sum() for own in rows.slices])[:, None, None]
    psi = d - rows.averaged * (share * t1 * d).sum(axis=1, keepdims=True) - rows.measured * R
    D_psi = np.tensordot(terms.D, psi, axes=1)
    square = t2 * (psi * D_psi).sum(axis=0) + 2 * tw * r * rows.own(D_psi)
    square = square + np.diag(terms.D)[arm][:, None] * w2 * r * r
    biases = [-weights.over_replicates(own, r[own], share[own])[0, 0] for own in rows.slices]
    return np.stack(biases), float((share * square).sum())
