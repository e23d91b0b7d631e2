"""The IPWRA fit that JRE starts from, and two results computed from it.

The first is the share c of IPWRA's effect heterogeneity that is real. The second is whether the outcome columns lack
the score's linear predictor. Both need the covariance of the coefficients of each arm's weighted fit. Its sandwich
divides residuals by 1 - h, where h is the leverage, and adds up scores within clusters.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy.linalg import helmert
from scipy.special import chdtri

from causalrisk.estimation.equations import Equations
from causalrisk.estimation.fits import Estimate, Refits, RefittedScores, WeightFit, gamma_of, sandwich
from causalrisk.estimation.options import JREOptions
from causalrisk.estimation.specification import EffectScale
from causalrisk.joint.minimum import Objective
from causalrisk.joint.objective import Rows, Terms, Weights, sums
from causalrisk.joint.rows import Replicates, ScoreColumns, WeightedRows
from causalrisk.numerics.arrays import Array, inverse_or_nan, loaded

RANK = 1e-9  # share of a score column that the outcome columns do not explain; below this it is rounding error
LARGEST_LEVERAGE = 0.9  # cap on a row's leverage: above it, the residual carries no information about the noise
LEVEL = 0.01  # level of the test that adds the score's linear predictor to the outcome columns


def start_sums(weighed: WeightedRows, theta: Array) -> tuple[Array, Array, Array]:
    """Return information matrices (K, P, P), scores (K, P), and average predictions with derivatives (K, 1 + P)."""
    (n_arms, P), models = theta.shape, theta[..., None]
    terms = Terms(np.eye(n_arms), 1.0, 1.0, 0.0, True, np.zeros(n_arms), np.zeros(P))
    found = weighed.over(lambda rows, weights, _: sums(rows, weights, models, models, terms))
    return found["loss_hessian"][0], found["loss_gradient"][0], found["average"][0]


def variance_sums(rows: Rows, weighed: Weights, _: slice, theta: Array) -> Array:
    """Return the sums over rows of the importance weights times the variance function, and of the weights."""
    mean = rows.own(rows.family.mean(rows.predictors(theta[..., None])))
    return np.array([(weighed.share * weighed.w * each).sum() for each in (rows.family.variance(mean), 1.0)])


def heterogeneity(rows: Rows, weighed: Weights, _: slice, theta: Array, average: Array, C: Array) -> list[Any]:
    """Return the sums for `real_share`: squared deviations of effects, and products (K P, K P) of their derivatives."""
    eta = rows.predictors(theta[..., None])[..., 0]
    tilted = (weighed.share * rows.averaged * weighed.tilt)[:, 0]
    means, slopes = rows.family.mean_and_derivs(eta)[:2]
    tau = C @ (means - average[:, :1])
    every = np.concatenate([own[:, None] * rows.X - at for own, at in zip(slopes, average[:, 1:], strict=True)], axis=1)
    return [(tau**2).sum(axis=0) @ tilted, (every.T * tilted) @ every]


def real_share(squares: float, slopes: Array, covariance: Array, C: Array) -> float:
    """Return c = max(0, 1 - 2 N / S), a cautious estimate of the share of effect heterogeneity that is real.

    S is `squares`, and N is the contribution of sampling errors of the coefficients to S.
    """
    p = len(slopes) // C.shape[1]
    error = float((np.kron(C.T @ C, np.ones((p, p))) * slopes * covariance).sum())
    share = 1 - 2 * error / squares if squares > 0 else 0.0
    return max(share, 0.0) if np.isfinite(share) else 0.0


def rejected(estimates: Array, covariance: Array, level: float = LEVEL) -> bool:
    """Return whether a Wald test rejects the hypothesis that all estimates are zero."""
    if not np.isfinite(covariance).all():
        return False
    statistic = float(estimates @ np.linalg.lstsq(covariance, estimates, rcond=None)[0])
    return bool(statistic > chdtri(len(estimates), level))


# --- the problem -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class JointProblem:
    """The input of JRE: the rows and the IPWRA fit that it starts from.

    Parameters
    ----------
    weights : WeightFit
        Importance weights at the fitted score.
    start : Estimate
        The IPWRA estimate.
    covariance : ndarray, shape (d, d)
        Robust covariance of the IPWRA estimates.
    scale : EffectScale
        Scale on which the effect is reported.
    frequency : bool
        Whether weights count repeated rows.
    """

    weights: WeightFit
    start: Estimate
    covariance: Array
    scale: EffectScale
    frequency: bool

    @property
    def equations(self) -> Equations:
        """The sample, its score and target."""
        return self.weights.equations

    @property
    def slopes(self) -> Array:
        """Derivatives of the scale g of the effect at IPWRA's arm means, shape (K,)."""
        return self.scale.g_slope(self.start.model_means)

    @property
    def bias_slopes(self) -> Array:
        """Factors of the biases in the risk, shape (K,): the slopes of the scale divided by their root mean square."""
        return self.slopes / np.sqrt((self.slopes**2).mean())

    @property
    def contrasts(self) -> Array:
        """Contrasts of the arms with squared length two, (K - 1, K), then multiplied by `bias_slopes`."""
        return -np.sqrt(2) * helmert(len(self.slopes)) * self.bias_slopes

    def net_means(self, raw: Array, mean_bias: Array) -> Array:
        """Subtract the mean of the arms' biases from arm means (K, ...), on the scale g of the effect."""
        return self.scale.g_inverse(self.scale.g(raw) - np.tensordot(self.slopes, mean_bias, axes=1) / len(raw))

    @property
    def score_influence(self) -> Array:
        """Influence function of the coefficients of the weights' models, shape (n, Q)."""
        return self.start.influence[:, self.start.block("gamma")]

    def weighed(self, replicates: Replicates | None = None, joined: ScoreColumns | None = None) -> WeightedRows:
        """Return the rows for the objective, with the given replicates or with the fitted propensity score alone."""
        replicates = replicates or Replicates.of_normal(self.weights, None)
        return WeightedRows(self.equations, self.equations.sample.s[:, None], self.weights.beta, replicates, joined)


def points_about(problem: JointProblem, spread: float) -> Replicates:
    """Return cubature points for the distribution of the fitted propensity score, or one point for a classifier."""
    model, block = problem.equations.model, problem.start.block("gamma")
    if model is not None and model.classifier is not None:
        return Replicates.of_normal(problem.weights, None)
    return Replicates.of_normal(problem.weights, spread**2 * problem.covariance[block, block])


def objective_of(problem: JointProblem, replicates: Replicates, options: JREOptions) -> Objective:
    """Return the objective of the options, with its constants."""
    theta, C, risk = problem.start.theta, problem.contrasts, options.objective == "risk"
    c = options.share if risk else 0.0
    weighed = problem.weighed()
    information, _, average = start_sums(weighed, theta)
    variance, weight = weighed.over(partial(variance_sums, theta=theta))
    if c is None:
        squares, slopes = weighed.over(partial(heterogeneity, theta=theta, average=average, C=C))
        c = real_share(squares, slopes, covariance_of(problem, weighed, theta, information), C)
    joined = joined_score(problem, options.join_score) if risk else None
    models, rows = padded(theta[..., None], joined), problem.weighed(replicates, joined)
    constant = problem.equations.constant
    terms = Terms(
        contrasts=C,
        n_units=problem.equations.sample.total ** (1 if risk else 2),
        sigma2=variance / weight,
        share=c,
        risk=risk,
        level=(1 - c) * average[:, 0] * (constant.any() or not problem.equations.sample.family.linear),
        constant=np.pad(constant, (0, len(rows.lift) - len(constant))),
    )
    return Objective(rows, models, terms)


def covariance_of(problem: JointProblem, weighed: WeightedRows, theta: Array, information: Array) -> Array:
    """Return the sandwich covariance of the arms' weighted fits, shape (K P, K P), from residuals / (1 - leverage)."""
    sample, inverse = problem.equations.sample, [inverse_or_nan(own) for own in information]

    def influence(part: WeightedRows, here: slice) -> Array:
        rows, s, w = part.rows(here), part.s[here, 0], part.scores(here).w[:, 0]
        eta = rows.own(rows.predictors(theta[..., None]))[:, 0]
        score, curved, _ = rows.family.score(rows.y, eta)
        found, own = np.zeros((len(s), *theta.shape)), (np.ones(len(s)) if problem.frequency else s) / sample.total
        for a, i in enumerate(rows.slices):
            moved = rows.X[i] @ inverse[a]
            leverage = own[i] * w[i] * curved[i] * (moved * rows.X[i]).sum(axis=1)
            found[i, a] = (w[i] * score[i] / (1 - np.minimum(leverage, LARGEST_LEVERAGE)))[:, None] * moved
        return found.reshape(len(s), -1)

    psi = weighed.by_row(influence)
    return sandwich(psi, sample.s, sample.total, frequency=problem.frequency, cluster=sample.cluster)


def joined_score(problem: JointProblem, asked: bool | None) -> ScoreColumns | None:
    """Return the score's linear predictor as an outcome column if it is `asked` for or significant, otherwise None."""
    if asked is False or "score" not in problem.weights.beta:
        return None
    joined = further_columns(problem, len(problem.weights.beta["score"]))
    return joined if joined is not None and (asked or lacks(problem, joined)) else None


def outcome_misses_square(problem: JointProblem) -> bool:
    """Return whether a test finds that IPWRA's outcome models lack squares of the score's linear predictors."""
    if "score" not in problem.weights.beta:
        return False
    gamma = problem.weights.beta["score"][..., 0].T
    joined = further_columns(problem, gamma.shape[1], gamma)
    return joined is not None and lacks(problem, joined)


def further_columns(problem: JointProblem, count: int, squared: Array | None = None) -> ScoreColumns | None:
    """Return propensity columns or squared predictors, residualised on the outcome columns. None if all are zero."""
    sample = problem.equations.sample
    X, Z = sample.X.columns, sample.Z.columns
    p, share = X.shape[1], sample.s * sample.in_sample / sample.total
    every = np.hstack([X, Z if squared is None else (Z @ squared) ** 2])
    gram = loaded((every.T * share) @ every)
    from_X = np.linalg.lstsq(gram[:p, :p], gram[:p, p:], rcond=None)[0]
    rest = gram[p:, p:] - gram[p:, :p] @ from_X
    scale = np.sqrt(np.maximum(np.diag(gram)[p:], np.finfo(float).tiny))
    values, vectors = np.linalg.eigh(rest / np.outer(scale, scale))
    kept = values > RANK
    if not kept.any():
        return None
    root = np.sqrt(values[kept])
    from_Z = vectors[:, kept] / root / scale[:, None]
    return ScoreColumns(from_Z, from_X @ from_Z, (root * vectors[:, kept] * scale[:, None]).T, count, squared)


def lacks(problem: JointProblem, joined: ScoreColumns) -> bool:
    """Return whether a test, by one Newton step from IPWRA, finds that the outcome models lack these columns."""
    n_arms, p = problem.start.theta.shape
    made = joined.lift(problem.weights.beta["score"], p)[p:, p:, 0]  # coefficients of the predictors
    fixed = dataclasses.replace(joined, from_Z=joined.from_Z @ made, from_X=joined.from_X @ made)
    weighed, theta = problem.weighed(joined=fixed), padded(problem.start.theta[..., None], joined)[..., 0]
    information, score, _ = start_sums(weighed, theta)
    step = np.stack([inverse_or_nan(own) @ of_arm for own, of_arm in zip(information, score, strict=True)])
    covariance, size = covariance_of(problem, weighed, theta + step, information), theta.shape[1]
    last = (np.arange(n_arms)[:, None] * size + np.arange(p, size)).ravel()
    return rejected(step.ravel()[last], covariance[np.ix_(last, last)])


# --- under other row weights -----------------------------------------------------------------------------------------


def refitted(
    problem: JointProblem, objective: Objective, points: Replicates, s: Array, scores: RefittedScores | None = None
) -> tuple[Objective, Refits]:
    """Refit propensity score and IPWRA under each column of row weights. Return the objective and IPWRA's estimates."""
    start, (scored, beta, codes) = problem.start, scores or problem.weights.refit(s)
    equations = dataclasses.replace(problem.equations, model=scored.model)  # has the scores of a classifier
    refits = start.rows.refit(s, (scored, beta, codes))
    bad = ~np.isfinite(gamma_of(beta, s.shape[1])).all(axis=0)
    beta = {name: np.where(bad, problem.weights.beta[name], each) for name, each in beta.items()}
    theta = refits.values[:, start.block("theta")].T.reshape(*start.theta.shape, -1)
    theta = np.where(np.isnan(theta), start.theta[..., None], theta)
    joined = objective.rows.joined
    return Objective(WeightedRows(equations, s, beta, points, joined), padded(theta, joined), objective.terms), refits


def padded(theta: Array, joined: ScoreColumns | None) -> Array:
    """Append zeros to coefficients `theta` (K, p, R) of the formula's columns, for the columns of `joined`."""
    return theta if joined is None else np.pad(theta, ((0, 0), (0, joined.width), (0, 0)))
