"""A slow reference for the joint estimator: the objective of the page on the method, written out and minimised.

Nothing of the package is used, but that Newton's method begins at its coefficients where the models are not linear and
more than one minimum may be near. Every row under every replicate is a term of a sum; the gradient is that of the sum,
its derivative is taken by complex steps, and Newton's method sets it to zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from tests.differential import reference
from tests.differential.cases import Case, Data, usual_link
from tests.differential.reference import Stack, Vector

ENOUGH = 1e-9  # a Newton step after which the next is below rounding error, which the largest penalty magnifies


def replicate_weights(case: Case, rows: int) -> Vector:
    """Fractional weights of the rows of the sample, one column a replicate."""
    return np.random.default_rng([11, case.seed]).standard_gamma(4.0, (rows, case.replicates)) / 4


@dataclass(frozen=True)
class Weighted:
    """Importance weights, tilt and measure under one propensity score, divided by the mean of the measure or tilt."""

    w: Vector
    tilt: Vector
    measure: Vector


class JointReference:
    """The objective of a case, and what of the full sample it holds fixed.

    Parameters
    ----------
    case : Case
        The case; its anchor is a number.
    data : Data
        Its data.
    basis : callable
        Spans the columns anew.
    """

    def __init__(self, case: Case, data: Data, basis: Callable[[Vector], Vector] = reference.standardised) -> None:
        self.case = case
        problem = reference.problem_of(replace(case, estimator="IPWRA"), data, basis)
        problem.y = problem.y - case.level  # what is computed from deviations keeps its digits
        self.problem, self.stack = problem, Stack(problem)
        self.X, self.own = problem.X, problem.observed
        self.n_own = int(self.own.sum())
        self.units = problem.s[: self.n_own].sum() if case.weight_type == "frequency" else float(self.n_own)
        self.solution = start = self.stack.solve(problem.s)
        gamma, mu, self.start = (start[part] for part in self.stack.parts[:3])
        c = np.ones((len(problem.s), case.replicates))
        c[: self.n_own] = replicate_weights(case, self.n_own)
        self.shifts = [
            (self._propensity(s) - gamma, self._membership(s) - mu) for s in (problem.s[:, None] * c).T
        ] if gamma.size else [(gamma, 0 * mu)]  # fmt: skip
        means = self.stack.means(start)[0] + case.level
        self.slopes = reference.jacobian(lambda m: reference.on_scale(case, m), means).diagonal()
        at = self._weighted(problem.s, gamma, mu)
        trained = problem.s * at.w * self.own
        _, over_variance, slope = self._means(self.start)
        self.sigma2 = trained @ sum(self.stack.inside[a] * slope[a] / over_variance[a] for a in range(case.arms))
        self.sigma2 = self.sigma2 / trained.sum()
        self.relative = (self.slopes / np.sqrt((self.slopes**2).mean()))[:, None]
        self.share = 0.0 if case.objective == "erm" else self._real_share(at) if case.share is None else case.share

    def _propensity(self, s: Vector) -> Vector:
        return reference.solve_propensity(self.problem, s)

    def _membership(self, s: Vector) -> Vector:
        return reference.solve_membership(self.problem, s) if self.stack.joined else np.zeros(0)

    def _all_weights(self, s: Vector, gamma: Vector, mu: Vector) -> tuple[Weighted, list[Weighted]]:
        """Weights of the full sample, and under each replicate."""
        return self._weighted(s, gamma, mu), [self._weighted(s, gamma + a, mu + b) for a, b in self.shifts]

    def _weighted(self, s: Vector, gamma: Vector, mu: Vector) -> Weighted:
        w, tilt, measure = self.stack.weights(gamma, mu)
        own, total = reference.own_measure(measure, self.own), s @ self.own
        return Weighted(self.own * w * total / (s @ own), tilt * total / (s @ tilt), own * total / (s @ own))

    def _real_share(self, at: Weighted) -> float:
        """Share of the effect heterogeneity at the start that is not sampling error."""
        problem, arms, X, s = self.problem, self.case.arms, self.X, self.problem.s
        inside, p = np.stack(self.stack.inside), self.X.shape[1]
        m, over_variance, slope = self._means(self.start)
        eta = self.start.reshape(arms, -1) @ X.T + problem.offset + 1j * reference.STEP
        ahead, ahead_over = reference.outcome_mean(problem, eta)
        curvature = -(ahead_over * (problem.y - ahead)).imag / reference.STEP
        unit, t = (1.0 if self.case.weight_type == "frequency" else s), s * at.tilt / (s @ at.tilt)
        inverse, rows = np.zeros((arms * p, arms * p)), np.zeros((len(s), arms * p))
        for a in range(arms):
            of_arm, weights = slice(a * p, (a + 1) * p), inside[a] * at.w
            inverse[of_arm, of_arm] = np.linalg.inv((X.T * (s * weights * curvature[a])) @ X)
            leverage = unit * weights * curvature[a] * ((X @ inverse[of_arm, of_arm]) * X).sum(axis=1)
            residual = (problem.y - m[a]) * over_variance[a] / (1 - np.minimum(leverage, 0.9))
            rows[:, of_arm] = (weights * residual)[:, None] * X
        covariance = inverse @ reference.meat(problem, rows) @ inverse
        D = 2 * self.relative * (np.eye(arms) - 1 / arms) * self.relative.T
        tau = m - (m @ t)[:, None]
        slopes = np.hstack([slope[a][:, None] * X - t @ (slope[a][:, None] * X) for a in range(arms)])
        error = np.sum(np.kron(D, np.ones((p, p))) * ((slopes.T * t) @ slopes) * covariance)
        total = np.sum(D * ((tau * t) @ tau.T))
        return float(max(0.0, 1 - 2 * error / total))

    def _means(self, theta: Vector) -> tuple[Vector, Vector, Vector]:
        """Means of each arm, derivative over variance, and derivative, shape (K, n)."""
        eta = theta.reshape(self.case.arms, -1) @ self.X.T + self.problem.offset
        m, over_variance = reference.outcome_mean(self.problem, eta)
        return m, over_variance, reference.inverse_link(usual_link(self.case), eta)[1]

    def _centred(self, values: Vector) -> Vector:
        """Deviations from the mean over the arms; twice their sum of squares is the mean of those of all pairs."""
        return values - values.mean(axis=0)

    def start_gradient(self, theta: Vector, s: Vector, at: Weighted) -> Vector:
        """Gradient of the losses of IPWRA by theta, shape (K p,)."""
        m, over_variance, _ = self._means(theta)
        return ((s * at.w * np.stack(self.stack.inside) * (m - self.problem.y) * over_variance) @ self.X).ravel()

    def equations(self, solved: Vector, s: Vector, at: Weighted, replicates: list[Weighted], start: Vector) -> Vector:
        """Gradient of the objective by theta, shape (K p,), and net biases at the fitted score, which "erm" has not.

        `solved` are theta and the multipliers of these, (K - 1,), `start` theta of IPWRA.
        """
        theta, multipliers = np.split(solved, [len(self.start)])
        case, y, inside = self.case, self.problem.y, np.stack(self.stack.inside)
        share = s / (s @ self.own)
        m, over_variance, slope = self._means(theta)
        relative = self.relative
        erm = case.objective == "erm"
        alpha, n = (1.0 if erm else case.anchor), self.units
        penalty, count = (n**2 if erm else n), len(replicates)
        trained = sum(r.w for r in replicates) / count if erm else at.w
        rows = -alpha * self.sigma2 * share * trained * inside * (y - m) * over_variance

        def net_bias(weighted: Weighted, weight: float) -> Vector:
            bias = self._centred(relative[:, 0] * ((inside * weighted.w * (m - y)) @ share))
            return weight * 2 * bias[:, None] * relative * inside * weighted.w * slope * share

        for weighted in replicates:
            rows = rows + net_bias(weighted, penalty / count)
        if not erm:
            pulled = np.concatenate([-multipliers.sum(keepdims=True), multipliers])
            rows = rows + pulled[:, None] * relative * inside * at.w * slope * share
            counted = m - self.share * self._means(start)[0]
            rows = rows + self._variance_rows(m, counted, slope, share, replicates)
        bias = relative[:, 0] * ((inside * at.w * (m - y)) @ share)
        return np.concatenate([(rows @ self.X).ravel(), bias[1:] - bias[0]][: 1 if erm else 2])

    def _variance_rows(
        self, m: Vector, counted: Vector, slope: Vector, share: Vector, replicates: list[Weighted]
    ) -> Vector:
        """Derivative of V by the predictors, shape (K, n): of rows under replicates, and of what centres them."""
        inside, error, count = np.stack(self.stack.inside), self.problem.y - m, len(replicates)
        relative, M = self.relative, sum(counted @ (share * r.tilt) for r in replicates) / count
        R = sum((inside * r.w * error) @ share for r in replicates) / count
        total, of_M, of_R = np.zeros_like(m), np.zeros_like(M), np.zeros_like(R)
        for r in replicates:
            psi = r.tilt * (counted - M[:, None]) + inside * r.w * error - r.measure * R[:, None]
            away = 2 * relative * self._centred(relative * psi) * share / count
            total = total + away * (r.tilt - inside * r.w)
            of_M, of_R = of_M - away @ r.tilt, of_R - away @ r.measure
        for r in replicates:
            total = total + (of_M[:, None] * r.tilt - of_R[:, None] * inside * r.w) * share / count
        return total * slope

    def params(self, s: Vector, begin: Vector) -> tuple[Vector, Vector]:
        """Effects and means net of the common bias under row weights, theta and multipliers, by Newton's method."""
        at, replicates = self._all_weights(s, self._propensity(s), self._membership(s))
        start = reference.newton(lambda t: self.start_gradient(t, s, at), self.start, ENOUGH)
        begin = np.concatenate([begin, np.zeros(0 if self.case.objective == "erm" else self.case.arms - 1)])
        solved = reference.newton(lambda t: self.equations(t, s, at, replicates, start), begin, ENOUGH)
        return self._net(solved[: len(self.start)], s, at, replicates), solved

    def _net(self, theta: Vector, s: Vector, at: Weighted, replicates: list[Weighted]) -> Vector:
        """Effects and means net of the common bias."""
        case, share, (m, _, _) = self.case, s / (s @ self.own), self._means(theta)
        raw = m @ (share * at.tilt) + case.level
        w = sum(r.w for r in replicates) / len(replicates)
        bias = (np.stack(self.stack.inside) * w * (m - self.problem.y)) @ share
        moved = reference.on_scale(case, raw) - (self.slopes * bias).mean()
        inverse = {"difference": lambda g: g, "odds_ratio": lambda g: 1 / (1 + np.exp(-g))}.get(case.effect, np.exp)
        return np.concatenate([self.stack.effects(raw), inverse(moved)])

    def coefficients(self, predictors: Vector) -> Vector:
        """Coefficients of the columns, from linear predictors of the rows of the sample, shape (n, K)."""
        return np.linalg.lstsq(self.X[: self.n_own], predictors, rcond=None)[0].T.ravel()

    def moved(self, direction: Vector, solved: Vector) -> Vector:
        """Derivative of effects and means where the weight of each row of the sample grows by a share.

        A step along the imaginary axis goes through the equations of the propensity score and of theta, each of which
        moves its solution by the implicit function theorem. Steps of a finite length would cross limits of `clip`.
        """
        problem, s = self.problem, self.problem.s
        grown = s + 1j * reference.STEP * s * np.r_[direction, np.zeros(len(self.own) - self.n_own)]
        still = s, self._propensity(s), self._membership(s)

        def followed(solved: Vector, scores: Callable[..., Vector]) -> Vector:
            return reference.follow(solved, lambda t, w: w @ scores(problem, t), (s,), (grown,))

        def start_gradient(t: Vector, *weighed: Vector) -> Vector:
            return self.start_gradient(t, weighed[0], self._weighted(*weighed))

        def equations(t: Vector, start: Vector, *weighed: Vector) -> Vector:
            return self.equations(t, weighed[0], *self._all_weights(*weighed), start)

        scores = reference.propensity_scores, reference.membership_scores
        moving = (grown, *map(followed, still[1:], scores))
        start = reference.follow(self.start, start_gradient, still, moving)
        solved = reference.follow(solved, equations, (self.start, *still), (start, *moving))
        theta = solved[: len(self.start)]
        return self._net(theta, grown, *self._all_weights(*moving)).imag / reference.STEP
