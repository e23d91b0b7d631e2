"""A fit of JRE, the influence functions of its coefficients and arm means, and its refits to resamples.

The estimating equations are stacked: propensity score, IPWRA (the start), joint minimum, arm means. The equations of
the minimum are the gradient of the Lagrangian, a function of sums over rows. To first order, a row contributes the
derivative of the gradient with respect to the row's weight. This derivative has two parts. The first is the derivative
of the Lagrangian with respect to the row's means m_a, times m_a' X. The second is the change, due to the row, of the
Lagrangian's derivatives with respect to the sums, times the derivatives of the sums with respect to the coefficients.
Both parts, and the row's contributions to averages and biases, are linear in the moments of the row's importance weight
(`Moments`). So `RowParts` gives two more derivatives. At the derivatives of the moments, it has the derivative with
respect to the score. At `by_divisors`, it has the derivative with respect to the mean tilts that divide the weights.

`joint.objective` has the notation. In shapes, p is the number of coefficients of an outcome model, Q of the propensity
score, and d of all estimates. J is the number of divisors.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from causalrisk.errors import Failure, first_failure
from causalrisk.estimation.engine import FieldsAlone, value_of
from causalrisk.estimation.fits import Estimate, Refits, RefittedScores, collect_refits
from causalrisk.joint.minimum import Objective, newton, solve_constrained
from causalrisk.joint.objective import Expansion, Rows, Terms, bias_gradient, by_means, centred, expand, sums
from causalrisk.joint.rows import Moments, Replicates, Scores, WeightedRows, derivative_of
from causalrisk.joint.start import JointProblem, refitted
from causalrisk.numerics.arrays import Array, add_up, loaded
from causalrisk.numerics.families import LINEAR
from causalrisk.numerics.optimize import OptimizeResult


def by_divisors(scores: Scores, rows: Rows) -> list[Moments]:
    """Return minus the derivatives of the moments with respect to the logs of the mean tilts that divide them.

    There is one divisor if the tilt does not vary with the propensity score. Otherwise there are B + 2: one at the
    fitted propensity score, one per replicate, and one for rows with `averaged` but not `measured` (see `Rows`).
    """
    now, h, (_, _, T, W, varies) = Moments.of(scores), rows.measured, scores
    if not varies:
        return [now._replace(t2=2 * now.t2, tw=2 * now.tw, w2=2 * now.w2)]
    zero, none, B = np.zeros_like(now.w), np.zeros_like(W), W.shape[1]
    t, t1, t2 = ((1 - h) * of for of in (now.t, now.t1, 2 * now.t2))
    found = [Moments(h * now.t, now.w, zero, zero, zero, zero, zero, none)]
    for b in range(B):
        w, t_b = W[:, [b]] / B, h * T[:, [b]] / B
        of_squares = 2 * B * t_b * t_b, 2 * B * t_b * w, 2 * B * w * w
        found.append(Moments(zero, zero, t_b, w, *of_squares, W[:, [b]], slice(b, b + 1)))
    return [*found, Moments(t, zero, t1, zero, t2, zero, zero, none)]


def divisors_of(t: Array, T: Array, rows: Rows, varies: bool) -> Array:
    """Return each row's contribution to the J mean tilts that are divisors, shape (n, J); see `by_divisors`."""
    if not varies:
        return t
    h = rows.measured
    return np.hstack([h * t, h * T, (1 - h) * rows.averaged * t])


# --- the fit ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class JointFit(FieldsAlone):
    """The minimum of JRE's objective in the sample, with its predictions, biases and influence function.

    Parameters
    ----------
    problem : JointProblem
        The rows and the IPWRA fit.
    objective : Objective
        The objective that was minimised.
    points : Replicates
        Replicates of the propensity score for resamples, as differences from each resample's own propensity score.
    alpha : float
        The amount of shrinkage.
    theta : ndarray, shape (K, p, 1)
        Coefficients of the outcome models, including the coefficient of the propensity score's linear predictor if it
        is a term.
    nu : ndarray, shape (1, C)
        Lagrange multipliers of the constraint.
    result : OptimizeResult
        The result of scipy's optimiser.
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
        """The constants of the objective."""
        return self.objective.terms

    @property
    def rows(self) -> WeightedRows:
        """The rows with their weights and replicates."""
        return self.objective.rows

    @property
    def lift(self) -> Array:
        """Matrix L that turns theta into beta, for all arms, shape (K P, K p); see `joint.minimum`."""
        return self.rows.lift_of_arms[0]

    @property
    def beta(self) -> Array:
        """Coefficients beta of the columns of `Rows.X`, shape (K, P, 1)."""
        return self.rows.lifted(self.theta)

    @cached_property
    def at(self) -> Expansion:
        """Second-order expansion of the objective about `beta`: value, gradient and Hessian."""
        return self.objective.at(self.beta)

    @cached_property
    def hessian(self) -> Array:
        """Hessian of the Lagrangian with respect to beta, shape (K P, K P)."""
        found = self.at.at(self.alpha)[2][0]
        return found if self.objective.linear else found + self.objective.curvature(self.beta, self.at, self.nu)[0]

    @cached_property
    def means(self) -> Array:
        """Arm means minus the mean of the arms' biases (on the scale g of the effect), shape (K,)."""
        return self.problem.net_means(self.at.average[0][0], self.at.bias[0][0])

    @property
    def estimate(self) -> Estimate:
        """The effects, arm means and coefficients."""
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
        return np.asarray(loaded(rows.family.mean(rows.predictors(self.beta))))[..., 0]

    # --- biases and risk ---------------------------------------------------------------------------------------------

    @property
    def bias(self) -> Array:
        """Bias of each arm under each replicate, shape (K, B)."""
        return self.at.biases[0][0]

    @property
    def net_bias(self) -> Array:
        """Biases times `bias_slopes` of arms 1 .. K-1, minus those of arm 0, under each replicate, (K - 1, B)."""
        scaled = self.problem.bias_slopes[:, None] * self.bias
        return scaled[1:] - scaled[:1]

    @cached_property
    def left_out(self) -> float:
        """The part of the sampling variance that the objective's V leaves out, at IPWRA's models."""
        first = self.objective.first
        terms = dataclasses.replace(self.terms, share=0.0, level=first.average[0][0])
        return 2 * float((Objective(self.rows, self.objective.models, terms).first.risk[0] - first.risk[0])[0])

    def expected_risk(self) -> float:
        """Return squared net bias averaged over replicates, plus sampling variance unless the objective is "erm"."""
        return float(2 * self.at.risk[0][0] + self.left_out) / self.terms.n_units

    def risks_of(self, predicted: Array) -> tuple[Array, Array]:
        """Return biases (M, K, B) and variances V (M,) of M sets of predictions (M, K, n), with c = 0."""
        n_arms, origin = predicted.shape[1], float(self.estimate.model_means.mean())
        models, start = np.split(np.eye(2 * n_arms)[..., None], 2)
        none: dict[str, Any] = {"n_units": 0.0, "level": np.zeros(n_arms), "constant": np.zeros(2 * n_arms)}
        terms = dataclasses.replace(self.terms, risk=True, **none)

        def of_piece(part: WeightedRows, here: slice, place: slice) -> list[dict[str, Array]]:
            rows, weights = part.rows(here), part.weights(here, slice(0, 1))
            started = rows.family.mean(rows.predictors(self.objective.start))[..., 0]
            linear = dataclasses.replace(rows, y=rows.y - origin, family=LINEAR, offset=None)
            every = [np.concatenate([means, started]).T - origin for means in predicted[..., place]]
            return [sums(dataclasses.replace(linear, X=X), weights, models, start, terms) for X in every]

        found = add_up(of_piece(*piece) for piece in self.rows.pieces(self.rows.replicates.count))
        at = [expand(of, terms, framed=self.rows.equations.target.frame) for of in found]
        variances = self.left_out + 2 * np.array([each.risk[0][0] for each in at])
        return np.stack([each.biases[0][0] for each in at]), variances

    # --- resamples --------------------------------------------------------------------------------------------------

    @cached_property
    def replicate_offset(self) -> Array:
        """Estimates minus the estimates of a refit to the same sample with `points` as replicates, shape (d,)."""
        found = self._refit(self.problem.equations.sample.s[:, None]).values[0]
        return np.where(np.isfinite(found), self.estimate.values - found, 0.0)

    def refit(self, s: Array, weighed: RefittedScores | None = None) -> Refits:
        """Refit under each column of row weights `s` (n, R), and add `replicate_offset` to the estimates."""
        found = self._refit(s, weighed)
        return dataclasses.replace(found, values=found.values + self.replicate_offset)

    def _refit(self, s: Array, weighed: RefittedScores | None = None) -> Refits:
        problem, scale, linear = self.problem, self.problem.scale, self.objective.linear
        objective, refits = refitted(problem, self.objective, self.points, s, weighed)
        theta, nu = objective.models, None
        if not linear:
            theta, nu = theta + (self.theta - self.objective.models), np.repeat(self.nu, s.shape[1], axis=0)
        with np.errstate(all="ignore"):  # resamples that cannot be fitted have a failure code
            found = newton(objective, theta, self.alpha, nu)
            raw = found.average.T
            means = problem.net_means(raw, found.bias.T)
        failed = Failure.SINGULAR_OUTCOME if linear else Failure.OUTCOME_NOT_CONVERGED
        of_minimum = np.where(found.converged, Failure.OK, failed).astype(np.int8)
        params, theta = np.concatenate([scale.effects(raw), means]), found.theta[:, : problem.start.theta.shape[1]]
        gamma = refits.values[:, problem.start.block("gamma")].T
        collected = collect_refits(params, theta, gamma, first_failure(refits.failures, of_minimum))
        return dataclasses.replace(collected, start=refits.values[:, : len(problem.start.params)])

    # --- influence function ------------------------------------------------------------------------------------------

    @cached_property
    def totals(self) -> dict[str, Array]:
        """Sums over rows of the S columns of `RowParts`, and derivatives of the sums.

        "value" (1, S) has the sums. The others have derivatives: "by_divisors" (J, S) with respect to the logarithms of
        the divisors, with a minus sign; "by_score" (Q, S) with respect to the coefficients of the propensity score; and
        "by_start" (K P, K P) of the equations of beta with respect to IPWRA's coefficients.
        """

        def of_piece(part: WeightedRows, here: slice) -> dict[str, Array]:
            share, scores = part.s[here] / part.total, part.scores(here, frozenset(part.beta))
            parts, of, varies = RowParts(part.rows(here), self), Moments.of(scores), scores.varies
            now = Scores(*(value_of(each) for each in scores))
            value = share.T @ parts(Moments.of(now))
            divided = [share.T @ parts(each) for each in by_divisors(now, parts.rows)]
            by_score, by_tilts = [value[:0]], [np.zeros((0, len(divided)))]
            for eta in (eta for block in part.equations.weight_blocks for eta in block.own):
                left = (eta.X[here] * share).T
                by_score.append(left @ parts(of.by(eta)))
                dt, dT = (derivative_of(each, eta) for each in (scores.tilt, scores.tilts))
                by_tilts.append(left @ divisors_of(dt, dT, parts.rows, varies))
            return {
                "value": value,
                "by_divisors": np.concatenate(divided),
                "by_score": np.concatenate(by_score),
                "by_start": parts.by_start(Moments.of(now), share),
                "divisors": np.concatenate(by_tilts),
            }

        pieces = self.rows.pieces(self.rows.replicates.count)
        found: dict[str, Array] = add_up(of_piece(part, here) for part, here, _ in pieces)
        found["by_score"] = found["by_score"] - found["divisors"] @ found["by_divisors"]
        return found

    @cached_property
    def by_score(self) -> tuple[Array, Array]:
        """Derivatives with respect to gamma: of theta's equations, (Q, K p), and of the quantities, (Q, 2 K + C)."""
        joined, (n_arms, P, _), at = self.rows.joined, self.beta.shape, self.at
        equations, numbers = np.split(self.totals["by_score"], [n_arms * P], axis=1)
        equations = equations @ self.lift
        if joined is None or joined.fixed:
            return equations, numbers
        # the score's linear predictor, an outcome column, depends on the score's coefficients
        count, (extra, q) = joined.count, joined.of_score.shape
        p = P - extra
        moved, by = np.zeros((len(numbers), n_arms, P)), np.einsum("eq,bk->kqbe", joined.of_score, self.theta[:, p:, 0])
        moved[: count * q, :, p:] = by.reshape(-1, n_arms, extra)
        equations = equations + moved.reshape(len(moved), -1) @ self.hessian @ self.lift
        gradient = (at.at(self.alpha)[1][0] + (self.nu @ at.u[1][0])[0]).reshape(n_arms, P)[:, p:] @ joined.of_score
        of_predictors = equations[: count * q].reshape(count, q, n_arms, p + count)
        for k in range(count):
            of_predictors[k, :, :, p + k] += gradient.T
        return equations, numbers + self._numbers_after(moved)

    def _numbers_after(self, steps: Array) -> Array:
        average, bias = (np.einsum("mkP,kP->mk", steps, of[1][0]) for of in (self.at.average, self.at.bias))
        return np.hstack([average, bias, steps.reshape(-1, self.beta.size) @ self.at.u[1][0].T])

    def _estimates_after(self, equations: Array, numbers: Array) -> Array:
        """Return the changes of effects, arm means and theta after m changes of the equations and the quantities."""
        (n_arms, P, _), p, scale, at = self.beta.shape, self.problem.start.theta.shape[1], self.problem.scale, self.at
        hessian, u_slope = self.lift.T @ self.hessian @ self.lift, at.u[1] @ self.lift
        u = numbers[None, :, 2 * n_arms :].transpose(0, 2, 1)
        theta = -solve_constrained(hessian[None], equations.T[None], u_slope, u)[0][0].T  # the conditions hold again
        numbers = numbers + self._numbers_after((theta @ self.lift.T).reshape(-1, n_arms, P))
        raw, bias = numbers[:, :n_arms], numbers[:, n_arms : 2 * n_arms]
        moved = raw * scale.g_slope(at.average[0][0]) - (bias @ self.problem.slopes / n_arms)[:, None]
        params = (moved / scale.g_slope(self.means)) @ scale.jacobian(self.means).T
        kept = theta.reshape(-1, *self.theta.shape[:2])[:, :, :p]
        return np.hstack([params, kept.reshape(-1, n_arms * p)])

    @cached_property
    def maps(self) -> list[Array]:
        """Four matrices that turn the parts of a row into its influence on effects, arm means and theta.

        The influence is the sum of the parts times their matrices. The parts are `RowParts`, `divisors_of`, and the
        influence functions of the propensity score and of IPWRA.
        """
        totals, (n_arms, P, _), (_, p) = self.totals, self.beta.shape, self.problem.start.theta.shape
        equations, numbers = np.split(np.eye(totals["value"].shape[1]), [n_arms * P], axis=1)
        of_parts = self._estimates_after(equations @ self.lift, numbers)
        by_start = totals["by_start"].reshape(n_arms, P, -1)[:, :p].reshape(n_arms * p, -1) @ self.lift
        of_start = self._estimates_after(by_start, np.zeros((len(by_start), numbers.shape[1])))
        return [of_parts, totals["by_divisors"] @ of_parts, self._estimates_after(*self.by_score), of_start]

    @cached_property
    def influence(self) -> Array:
        """Influence function (n, d) of all estimates. It is a Dask array if the rows do not fit in memory."""
        start, score = self.problem.start, self.problem.score_influence
        own = self.rows.by_row(self._influence_of, score, start.influence[:, start.block("theta")])
        return np.hstack([own, score])

    def _influence_of(self, part: WeightedRows, here: slice, score: Array, started: Array) -> Array:
        of_parts, of_divisors, of_score, of_start = self.maps
        parts, scores, inside = RowParts(part.rows(here), self), part.scores(here), part.equations.sample.in_sample
        divisors = divisors_of(scores.tilt, scores.tilts, parts.rows, scores.varies) - inside[here, None]
        found = parts(Moments.of(scores)) - inside[here, None] * self.totals["value"]
        return found @ of_parts - divisors @ of_divisors + score @ of_score + started @ of_start


@dataclass(frozen=True)
class RowParts:
    """Computes what each row adds to the sums that determine JRE's estimates: K P equations and 2 K + C quantities.

    The equations determine the coefficients beta. The quantities are the K averages of predictions over the target, the
    K biases averaged over the replicates, and the C net biases at the fitted score. All are linear in `Moments`.
    """

    rows: Rows
    fit: JointFit

    @cached_property
    def means(self) -> tuple[Array, Array, Array, Array]:
        """Means m_a, their slopes and d_a, shape (K, n, 1) each, and residuals, shape (n, 1); see `joint.objective`."""
        rows, eta = self.rows, self.rows.predictors(self.fit.beta)
        m, slope, _ = rows.family.mean_and_derivs(eta)
        d = rows.counted(m, self.fit.objective.start, self.fit.terms)
        return m, slope, d, rows.y[:, None] - rows.own(m)

    def by_predictors(self, of: Moments) -> Array:
        """Return derivatives of the Lagrangian with respect to linear predictors, per unit of row weight (K, n)."""
        rows, fit, (_, slope, d, r), terms = self.rows, self.fit, self.means, self.fit.terms
        pull = bias_gradient(fit.at, terms)[:, 0, of.some]
        risk = np.concatenate([of.each[own] @ pull[a] for a, own in enumerate(rows.slices)])[:, None]
        found = slope * by_means(rows, of[2:7], of.w, risk, fit.at, terms, fit.nu, d, r)
        score = rows.family.score(rows.y[:, None], rows.own(rows.predictors(fit.beta)))[0]
        loss = fit.alpha * terms.sigma2 * score * (of.w if terms.risk else of.w1)
        for a, own in enumerate(rows.slices):
            found[a, own] -= loss[own]
        return found[..., 0]

    def __call__(self, of: Moments) -> Array:
        """Return the contributions of each row, shape (n, S) with S = K P + 2 K + C."""
        rows, terms, at, (m, _, d, r) = self.rows, self.fit.terms, self.fit.at, self.means
        D, arms = terms.D, rows.indicators[..., 0]
        found = self.by_predictors(of).T[:, :, None] * rows.X[:, None]
        if terms.risk:
            own, f, h = arms * r.T, np.ravel(rows.averaged), np.ravel(rows.measured)
            t_psi = of.t2.T * centred(rows, d, at.centres)[..., 0] + of.tw.T * own
            added, measured = f * of.t1.T * d[..., 0], of.w1.T * own
            every = ((f, added), (h, measured)) if len(at.centres) == 2 else ((f, added + measured),)
            for ((_, N_slope), (_, P_slope)), (among, to_mean) in zip(at.centres, every, strict=True):
                found -= (among * (D @ t_psi)).T[:, :, None] * N_slope[0]
                found -= (D @ to_mean).T[:, :, None] * P_slope[0]
        slopes = terms.n_units / at.biases[0].shape[2] * at.biases[1][0][..., of.some]
        for a, i in enumerate(rows.slices):
            pulled = (D[a, :, None, None] * slopes).reshape(found[0].size, -1)
            found[i] -= ((r[i] * of.each[i]) @ pulled.T).reshape(found[i].shape)
        averages, fitted = np.ravel(rows.averaged) * of.t.T * m[..., 0], terms.constraint[:, rows.arm] * (of.w * r).T
        numbers = np.concatenate([averages, -arms * (of.w1 * r).T, -fitted])
        return np.hstack([found.reshape(len(found), -1), numbers.T])

    def by_start(self, of: Moments, share: Array) -> Array:
        """Return the derivatives of the summed equations with respect to IPWRA's coefficients, shape (K P, K P)."""
        rows, (_, slope, _, _), terms, fit = self.rows, self.means, self.fit.terms, self.fit
        if not terms.share:
            return np.zeros((fit.beta.size, fit.beta.size))
        X, arms, ((_, N_slope), (_, P_slope)) = rows.X, rows.indicators, fit.at.centres[0]
        start_slope = rows.family.mean_and_derivs(rows.predictors(fit.objective.start))[1]
        left = -terms.share * share * rows.averaged * start_slope * X
        by = (slope * (of.t2 - of.tw * arms))[..., 0]
        moved = np.einsum("anp,bn,nq->apbq", left, by, X, optimize=True)
        to_N, to_P = (np.einsum("anp,n->ap", left, np.broadcast_to(t, share.shape)[:, 0]) for t in (of.t2, of.t1))
        moved = moved - np.einsum("ap,bq->apbq", to_N, N_slope[0]) - np.einsum("ap,bq->apbq", to_P, P_slope[0])
        return (terms.D[:, None, :, None] * moved).reshape(fit.beta.size, -1)
