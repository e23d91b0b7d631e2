"""The influence function of JRE's coefficients and arm means: the stacked equations of score, start, minimum and means.

The gradient of the Lagrangian is a function of sums over rows. To first order a row adds to it the derivative by its
weight: that of the Lagrangian by each of the row's means m_a times m_a' X, and what it adds to the totals times how
these move with the coefficients. All of this, and what it adds to the averages and biases that estimates are made of,
is linear in the moments of its weights. So the same function of other moments gives the derivative by the score (of the
derivatives of the moments), and that by the mean tilts which weights are divided by.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from causalrisk.estimation.beyond_memory import stored
from causalrisk.estimation.fits import Estimate
from causalrisk.estimation.specification import EffectScale
from causalrisk.joint.minimum import solve_constrained
from causalrisk.joint.objective import Expansion, Rows, Terms, Weights, by_means, centred, pulls, risk_of
from causalrisk.joint.rows import AT_ONCE, Joined, Objective, Replicates, Weighed, lifted
from causalrisk.joint.start import JointProblem, start_sums
from causalrisk.numerics.blocks import chunk_sizes, is_dask
from causalrisk.numerics.linalg import Array
from causalrisk.numerics.optimize import OptimizeResult

ROWS = 4096  # that it is worked out for at a time


class Moments(NamedTuple):
    """Tilt and weight at the fitted score, means of t, w, t^2, t w and w^2 over the replicates, (n, 1) each; w_b.

    Those of some replicates alone have these for w_b, shape (n, B).
    """

    t: Any
    w: Any
    t1: Any
    w1: Any
    t2: Any
    tw: Any
    w2: Any
    each: Array
    some: slice = slice(None)


@dataclass(frozen=True)
class RowParts:
    """What some rows add to the K P equations, and to 2 K + C numbers: a linear function of moments of their weights.

    The numbers are averages over the target, biases averaged over the replicates, and net biases at the fitted score.
    `theta`, shape (K, P, 1), is the minimum, `nu`, shape (1, C), its multipliers and `at` the expansion there.
    """

    rows: Rows
    theta: Array
    start: Array
    nu: Array
    alpha: float
    terms: Terms
    at: Expansion

    @cached_property
    def means(self) -> tuple[Array, Array, Array, Array]:
        """m_a and their slopes, d_a, each (K, n, 1), and the residuals, (n, 1)."""
        rows, eta = self.rows, self.rows.predictors(self.theta)
        m = rows.family.mean(eta)
        d = rows.counted(m, self.start, self.terms)
        return m, rows.family.mean_deriv(eta), d, rows.y[:, None] - rows.own(m)

    def by_predictors(self, of: Moments) -> Array:
        """Return derivatives of the Lagrangian by each row's linear predictors over its share, shape (K, n)."""
        rows, (_, slope, d, r), terms = self.rows, self.means, self.terms
        pull = pulls(self.at, terms)[:, 0, of.some]
        risk = np.concatenate([of.each[own] @ pull[a] for a, own in enumerate(rows.slices)])[:, None]
        found = slope * by_means(rows, of[2:7], of.w, risk, self.at, terms, self.nu, d, r)
        score = rows.family.score(rows.y[:, None], rows.own(rows.predictors(self.theta)))[0]
        loss = self.alpha * terms.sigma2 * score * (of.w if terms.risk else of.w1)
        for a, own in enumerate(rows.slices):
            found[a, own] -= loss[own]
        return found[..., 0]

    def __call__(self, of: Moments, left: Array | None = None) -> Array:
        """Return them for each row, shape (n, S), S = K P + 2 K + C, or `left` (q, n) times these."""
        rows, terms, (m, _, d, r), n_arms = self.rows, self.terms, self.means, len(self.theta)
        X, D, arms = rows.X, terms.D, np.eye(n_arms)[:, rows.arm]

        def add_up(values: Array) -> Array:
            return values.T if left is None else left @ values.T

        by = self.by_predictors(of)
        found = by.T[:, :, None] * X[:, None] if left is None else np.stack([(left * each) @ X for each in by], axis=1)
        if terms.risk:
            own, f, h = arms * r.T, np.ravel(rows.averaged), np.ravel(rows.measured)
            t_psi = of.t2.T * centred(rows, d, self.at.centres)[..., 0] + of.tw.T * own
            added, measured = f * of.t1.T * d[..., 0], of.w1.T * own
            every = ((f, added), (h, measured)) if rows.framed else ((f, added + measured),)
            for centre, (among, to_mean) in zip(self.at.centres, every, strict=True):
                found -= add_up(among * (D @ t_psi))[:, :, None] * centre.N_slope[0]
                found -= add_up(D @ to_mean)[:, :, None] * centre.P_slope[0]
        slopes = terms.n_units / self.at.biases[0].shape[2] * self.at.biases[1][0][..., of.some]
        for a, own_rows in enumerate(rows.slices):
            by_bias = r[own_rows] * of.each[own_rows]
            if left is not None:
                by_bias = left[:, own_rows] @ by_bias
            for b, slope in enumerate(slopes):
                found[slice(None) if left is not None else own_rows, b] -= D[a, b] * (by_bias @ slope.T)
        averages, fitted = np.ravel(rows.averaged) * of.t.T * m[..., 0], terms.constraint[:, rows.arm] * (of.w * r).T
        numbers = np.concatenate([averages, -arms * (of.w1 * r).T, -fitted])
        return np.hstack([found.reshape(len(found), -1), add_up(numbers)])

    def by_start(self, weights: Weights) -> Array:
        """Sum over rows the derivatives of the equations by the coefficients of the start, shape (K P, K P)."""
        rows, (_, slope, _, _), terms, centre = self.rows, self.means, self.terms, self.at.centres[0]
        (t1, _, t2, tw, _), X, arms = weights.moments, rows.X, np.eye(len(self.theta))[:, rows.arm]
        steep = -terms.share * rows.family.mean_deriv(rows.predictors(self.start))
        found = list[list[Array]]()
        for a, of_start in enumerate(steep):
            left = (X * (weights.share * rows.averaged * of_start)).T
            found.append([])
            for b, D in enumerate(terms.D[a]):
                moved = (left * ((t2.T - tw.T * arms[b]) * slope[b].T)) @ X
                moved = moved - (left @ (t2 + 0 * of_start)) * centre.N_slope[0, b]
                found[-1].append(D * (moved - (left @ (t1 + 0 * of_start)) * centre.P_slope[0, b]))
        return np.block(found)


def moments_of(weights: Weights) -> Moments:
    """Return the moments of the weights of the sample."""
    return Moments(weights.tilt, weights.w, *weights.moments, weights.factor[0])


def moments_by_predictor(weights: Weights, dw: Array, dt: Array, dW: Array, dT: Array) -> Moments:
    """Return the derivatives of the moments by a predictor of the score."""
    W, T = weights.factor[0], weights.tilt if weights.tilts is None else weights.tilts

    def mean(values: Array) -> Array:
        return values.mean(axis=1, keepdims=True)

    of_squares = 2 * mean(T * dT), mean(W * dT + T * dW), 2 * mean(W * dW)
    return Moments(dt, dw, mean(dT), mean(dW), *of_squares, dW)


def moments_by_divisors(weights: Weights, measured: Array | float) -> list[Moments]:
    """Return minus the derivatives of the moments by the logs of the mean tilts that divide weights and tilts.

    There is one where the tilt is known. Else there are that at the fitted score, those under each replicate, and that
    of rows which are averaged over but not measured.
    """
    now, W, T = moments_of(weights), weights.factor[0], weights.tilts
    if T is None:
        return [now._replace(t2=2 * now.t2, tw=2 * now.tw, w2=2 * now.w2)]
    zero, none, B, h = np.zeros_like(now.w), np.zeros_like(W), W.shape[1], measured
    t, t1, t2 = ((1 - h) * of for of in (now.t, now.t1, 2 * now.t2))
    found = [Moments(h * now.t, now.w, zero, zero, zero, zero, zero, none)]
    for b in range(B):
        w, t_b = W[:, [b]] / B, h * T[:, [b]] / B
        squares = 2 * B * t_b * t_b, 2 * B * t_b * w, 2 * B * w * w
        found.append(Moments(zero, zero, t_b, w, *squares, W[:, [b]], slice(b, b + 1)))
    return [*found, Moments(t, zero, t1, zero, t2, zero, zero, none)]


def tilts_of(weights: Weights, rows: Rows) -> Array:
    """Return the tilts whose means are these divisors, shape (n, J)."""
    if weights.tilts is None:
        return weights.tilt
    h = rows.measured
    return np.hstack([h * weights.tilt, h * weights.tilts, (1 - h) * rows.averaged * weights.tilt])


@dataclass(frozen=True)
class Totals:
    """Sums over rows, of S equations and numbers; those of chunks of rows add up.

    Of what rows add, (1, S); of minus its derivatives by the logs of the divisors, (J, S); of its derivatives by the
    coefficients of the score, (Q, S), and by those of the start, (K P, K P); of those of the divisors by the score,
    (Q, J).
    """

    value: Array
    by_divisors: Array
    by_score: Array
    by_start: Array
    divisors: Array

    @classmethod
    def of(cls, parts: RowParts, weights: Weights, slopes: list[tuple[Array, ...]]) -> Totals:
        """Add up some rows; `slopes` are those of the weights."""
        share, varies, size = weights.share.T, weights.tilts is not None, parts.theta.size
        value = parts(moments_of(weights), share)
        divided = [parts(of, share) for of in moments_by_divisors(weights, parts.rows.measured)]
        by_score, divisors = [value[:0]], [np.zeros((0, len(divided)))]
        for Z, dw, dt, dW, dT in slopes:
            left, further = Z.T * share, np.zeros((len(share.T), 1))
            by_score.append(parts(moments_by_predictor(weights, dw, dt, dW, dT), left))
            divisors.append(left @ (np.hstack([dt, dT, further]) if varies else further))
        by_start = parts.by_start(weights) if parts.terms.share else np.zeros((size, size))
        return cls(value, np.concatenate(divided), np.concatenate(by_score), by_start, np.concatenate(divisors))


# --- the fit ----------------------------------------------------------------------------------------------------------


def net_means(raw: Array, mean_bias: Array, slopes: Array, scale: EffectScale) -> Array:
    """Arm means net of the common bias, shape (K, ...): all moved alike on the scale of the effect."""
    return scale.g_inverse(scale.g(raw) - np.tensordot(slopes, mean_bias, axes=1) / len(raw))


@dataclass(frozen=True)
class JointFit:
    """The minimum of the sample, with its predictions and influence function.

    Parameters
    ----------
    problem : JointProblem
        The rows and the start.
    objective : Objective
        What is minimised.
    points : Replicates
        The replicates of resamples, about their score.
    alpha : float
        The amount of shrinkage.
    theta : ndarray, shape (K, p, 1)
        Coefficients, with that of the score's predictor if it joined.
    nu : ndarray, shape (1, C)
        Multipliers of the constraint.
    result : OptimizeResult
        What scipy reported.
    """

    problem: JointProblem
    objective: Objective
    points: Replicates
    alpha: float
    theta: Array
    nu: Array
    result: OptimizeResult

    @property
    def terms(self) -> Terms:
        """What the objective holds fixed."""
        return self.objective.terms

    @property
    def rows(self) -> Weighed:
        """The rows."""
        return self.objective.rows

    @property
    def joined(self) -> Joined | None:
        """The score's predictor among the outcome columns."""
        return self.rows.joined

    @property
    def lift(self) -> Array:
        """Coefficients of all columns of all arms by those of the models, shape (K P, K p)."""
        lift = self.rows.lift_of_arms
        return np.eye(self.theta.size) if lift is None else lift[0]

    @property
    def beta(self) -> Array:
        """Coefficients of all columns, shape (K, P, 1)."""
        return lifted(self.rows.lift, self.theta)

    @cached_property
    def at(self) -> Expansion:
        """The objective there, by all columns."""
        return self.objective.at(self.beta)

    @property
    def slopes(self) -> Array:
        """Slopes of the scale of the effect at the start's means, shape (K,)."""
        return self.problem.scale.g_slope(self.problem.start.model_means)

    @cached_property
    def means(self) -> Array:
        """Arm means net of the common bias, shape (K,)."""
        return net_means(self.at.average[0][0], self.at.bias[0][0], self.slopes, self.problem.scale)

    @property
    def estimate(self) -> Estimate:
        """The estimate."""
        start, raw = self.problem.start, self.at.average[0][0]
        return Estimate(
            params=np.concatenate([self.problem.scale.effects(raw), self.means]),
            theta=self.theta[:, : start.theta.shape[1], 0],
            gamma=start.gamma,
            model_means=raw,
            rows=self,
        )

    @cached_property
    def predicted(self) -> Array:
        """Predicted means of all rows in each arm, shape (K, n)."""
        rows = self.rows.rows(slice(0, self.problem.equations.sample.n))
        return rows.family.mean(rows.predictors(self.beta))[..., 0]

    @cached_property
    def influence(self) -> Array:
        """Influence function of all estimates, shape (n, d)."""
        return InfluenceFunction(self).of_all()

    def risks_of(self, predicted: Array) -> tuple[Array, Array]:
        """Biases (M, K, B) and V (M,) of M predictions in memory, (M, K, n); as in `JointEstimate`."""
        own, start, terms = self.rows.with_rows, self.objective.start, self.terms
        every = slice(0, self.problem.equations.sample.n)
        rows, weights = own.rows(every), own.weights(every, slice(0, 1))
        more = left_out(rows, weights, start, start_sums(rows, weights, start[..., 0]).mean, terms)
        found = [risk_of(rows, weights, mean[..., None], start, terms) for mean in predicted]
        return np.stack([biases for biases, _ in found]), more + np.array([value for _, value in found])


def left_out(rows: Rows, weights: Weights, start: Array, means: Array, terms: Terms) -> Array:
    """Sum by how much V at the start is larger with all of the effect heterogeneity than without the share c of it."""
    _, _, t2, tw, _ = weights.moments
    m, c = rows.family.mean(rows.predictors(start)), terms.share
    r, above = rows.y[:, None] - rows.own(m), rows.averaged * (m - means[:, None, None])
    D_above = np.tensordot(terms.D, above, axes=1)
    each = (2 - c) * t2 * (above * D_above).sum(axis=0) + 2 * tw * r * rows.own(D_above)
    return np.array([c * (weights.share * each).sum()])


@dataclass(frozen=True)
class InfluenceFunction:
    """The influence function of a joint fit."""

    fit: JointFit

    def parts(self, rows: Rows) -> RowParts:
        """Return what rows add."""
        fit = self.fit
        return RowParts(rows, fit.beta, fit.objective.start, fit.nu, fit.alpha, fit.objective.terms, fit.at)

    @cached_property
    def hessian(self) -> tuple[Array, Array]:
        """Hessian of the Lagrangian by the coefficients of all columns, and of the models, (1, K p, K p)."""
        fit, lift = self.fit, self.fit.rows.lift_of_arms
        wide = fit.at.at(fit.alpha)[2]
        if not fit.objective.linear:
            wide = wide + fit.objective.curvature(fit.beta, fit.at, fit.nu)
        return wide, wide if lift is None else lift.transpose(0, 2, 1) @ wide @ lift

    def solve(self, right: Array, u: Array) -> Array:
        """Return by how much the models' coefficients (K p, m) move where gradient and net biases move."""
        u_slope = self.fit.at.projected(self.fit.rows.lift_of_arms).u[1]
        return -solve_constrained(self.hessian[1], right[None], u_slope, u[None])[0][0]

    @cached_property
    def totals(self) -> tuple[Totals, Array, Array]:
        """Sums over all rows, and the derivatives by the score of equations of the models, (Q, K p), and of numbers."""

        def of_rows(part: Weighed, here: slice, place: slice, rows: Rows, weights: Weights) -> Totals:
            return Totals.of(self.parts(rows), weights, part.slopes(here))

        fit, found = self.fit, self.fit.rows.over(of_rows, places=True)
        equations, numbers = np.split(found.by_score - found.divisors @ found.by_divisors, [fit.beta.size], axis=1)
        equations = equations @ fit.lift
        if fit.rows.joined is not None and not fit.rows.joined.fixed:
            self.through_joined(equations, numbers)
        return found, equations, numbers

    def through_joined(self, equations: Array, numbers: Array) -> None:
        """Add what the score moves through its predictor among the outcome columns."""
        fit, (n_arms, P, _) = self.fit, self.fit.beta.shape
        joined: Any = fit.rows.joined
        extra, q = joined.of_score.shape
        p, at = P - extra, fit.at
        gradient = at.at(fit.alpha)[1][0] + (fit.nu @ at.u[1][0])[0]
        hessian = (fit.lift.T @ self.hessian[0][0]).reshape(-1, n_arms, P)[..., p:]
        u_slope = at.u[1][0].reshape(-1, n_arms, P)[..., p:]
        average, bias = at.average[1][0][:, p:], at.bias[1][0][:, p:]
        for k in range(joined.count):
            some = slice(k * q, (k + 1) * q)
            moved = np.einsum("eq,b->qbe", joined.of_score, fit.theta[:, p + k, 0])
            by_column = equations[some].reshape(q, n_arms, -1)
            by_column[..., p + k] += (gradient.reshape(n_arms, P)[:, p:] @ joined.of_score).T
            equations[some] = by_column.reshape(q, -1) + np.einsum("rbe,qbe->qr", hessian, moved)
            numbers[some] += np.hstack(
                [(average * moved).sum(axis=2), (bias * moved).sum(axis=2), np.einsum("cbe,qbe->qc", u_slope, moved)]
            )

    def of_rows(self, part: Weighed, here: slice, score: Array, started: Array) -> Array:
        """Influence function of (params, theta, gamma) of some rows, from those of the score and of the start."""
        fit, (totals, by_score, numbers_by_score) = self.fit, self.totals
        problem, (n_arms, P, _), start = fit.problem, fit.beta.shape, fit.problem.start
        parts, weights = self.parts(part.rows(here)), part.weights(here, slice(0, 1))
        inside = part.equations.sample.in_sample[here, None]
        found = parts(moments_of(weights)) - inside * totals.value
        found -= (tilts_of(weights, parts.rows) - inside) @ totals.by_divisors
        equations, numbers = np.split(found, [n_arms * P], axis=1)
        equations, numbers = equations @ fit.lift + score @ by_score, numbers + score @ numbers_by_score
        if fit.terms.share:
            by_start = totals.by_start.reshape(n_arms, P, -1)[:, : start.theta.shape[1]].reshape(start.theta.size, -1)
            equations = equations + started[:, start.block("theta")] @ by_start @ fit.lift
        theta = self.solve(equations.T, numbers[:, 2 * n_arms :].T).T
        steps, at = (theta @ fit.lift.T).reshape(-1, n_arms, P), fit.at
        raw = numbers[:, :n_arms] + np.einsum("nkP,kP->nk", steps, at.average[1][0])
        bias = numbers[:, n_arms : 2 * n_arms] + np.einsum("nkP,kP->nk", steps, at.bias[1][0])
        scale = problem.scale
        common = bias @ scale.g_slope(start.model_means) / n_arms
        moved = raw * scale.g_slope(at.average[0][0]) - common[:, None]
        params = (moved / scale.g_slope(fit.means)) @ scale.jacobian(fit.means).T
        kept = theta.reshape(len(theta), n_arms, -1)[:, :, : start.theta.shape[1]].reshape(len(theta), -1)
        return np.hstack([params, kept, score])

    def of_all(self) -> Array:
        """Influence function of all rows; beyond memory a Dask array."""
        fit, rows = self.fit, self.fit.rows
        pieces = rows.pieces(AT_ONCE // ROWS, fit.problem.score_influence, fit.problem.start.influence)
        found = (self.of_rows(part, here, *given) for part, here, _, *given in pieces)
        return stored(found, chunk_sizes(rows.s)) if is_dask(rows.s) else np.concatenate(list(found))

    def monte_carlo_se(self) -> Array:
        """Return standard errors of the effects over redraws of the replicates, shape (K - 1,); NaN for one replicate.

        By the jackknife: without replicate b the effect moves by c' H^-1 (g_b - mean g) / (B (1 - h_b)), g_b its part
        of the gradient, and h_b its leverage.
        """
        fit, at, terms = self.fit, self.fit.at, self.fit.terms
        size, count, n_arms = fit.lift.shape[1], at.biases[0].shape[2], len(fit.beta)
        if count == 1:
            return np.full(n_arms - 1, np.nan)
        gradients = np.zeros((fit.beta.size, count))
        if terms.risk:
            gradients = fit.rows.over(self.of_variance).reshape(-1, count)
        U = terms.contrasts @ at.biases[0][0]
        U_slope = (terms.contrasts[:, :, None, None] * at.biases[1][0]).reshape(len(U), -1, count)
        gradients = gradients + terms.n_units * np.einsum("cb,ckb->kb", U, U_slope)
        inverse = -self.solve(np.eye(size), np.zeros((len(terms.constraint), size)))
        jacobian = fit.problem.scale.jacobian(at.average[0][0])[: n_arms - 1]
        contrasts = (jacobian[:, :, None] * at.average[1][0]).reshape(n_arms - 1, -1) @ fit.lift
        change = (fit.lift.T @ (gradients - gradients.mean(axis=1, keepdims=True))).T @ inverse @ contrasts.T
        narrow = fit.lift.T @ U_slope
        leverage = terms.n_units / count * np.einsum("ckb,ckb->b", narrow, inverse @ narrow)
        return np.linalg.norm(change / (1 - np.minimum(leverage, 1 - 1e-9))[:, None], axis=0) / count

    def of_variance(self, rows: Rows, weights: Weights) -> Array:
        """Sum over rows the gradient of V / 2 under each replicate, (K, P, B), psi centred as over all of them."""
        parts, W = self.parts(rows), weights.factor[0]
        _, slope, d, r = parts.means
        T = np.broadcast_to(weights.tilt if weights.tilts is None else weights.tilts, W.shape)
        of_squares = 0.0 * T, 0.0 * T, T**2, T * W, W**2
        by = by_means(rows, of_squares, 0.0 * weights.w, 0.0 * W, parts.at, parts.terms, parts.nu, d, r)
        return np.asarray(rows.X.T @ (weights.share * slope * by))
