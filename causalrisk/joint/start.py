"""What JRE starts from: an IPWRA fit, and what that decides.

It decides the share c of its effect heterogeneity that is real, and whether the score is missing among the outcome
columns. Both need the variance of coefficients of each arm's weighted fit, a sandwich of residuals over 1 - h, h the
leverage, summed within clusters.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtri

from causalrisk.errors import CausalRiskError
from causalrisk.estimation.equations import Equations
from causalrisk.estimation.fits import Estimate, Refits, RefittedScores, SeparateRows, WeightFit
from causalrisk.estimation.specification import EffectScale
from causalrisk.joint.objective import Rows, Weights
from causalrisk.joint.rows import Joined, Replicates, Weighed, flat
from causalrisk.numerics.blocks import add_up, loaded
from causalrisk.numerics.linalg import Array, inverse_or_nan, weighted_grams

RANK = 1e-9  # share of the variance of a column of the score that outcome columns leave, below which it is rounding
LARGEST_LEVERAGE = 0.9  # of a row: beyond, its residual says nothing of the others
LEVEL = 0.01  # of the test that lets the score's linear predictor join the outcome columns


@dataclass(frozen=True)
class StartSums:
    """Sums over rows of which the tests of a start are made; of K arms with P columns.

    Parameters
    ----------
    bread : ndarray, shape (K, P, P)
        Information of the weighted fit of each arm.
    score : ndarray, shape (K, P)
        Its score: zero but in columns that the fit does not have.
    mean, slope : ndarray, shape (K,) and (K, P)
        Average of the predictions over the target, and its derivatives.
    weight, variance, squares : float
        Sum of the weights, of these times the variance function, and mean squared residual.
    size : float
        Mean squared outcome.
    """

    bread: Array
    score: Array
    mean: Array
    slope: Array
    weight: float
    variance: float
    squares: float
    size: float


def start_sums(rows: Rows, weighed: Weights, theta: Array) -> StartSums:
    """Sum over rows at the coefficients theta, shape (K, P)."""
    share, tilt, w = weighed.share[:, 0], weighed.tilt[:, 0], weighed.w[:, 0]
    eta = rows.predictors(theta[..., None])
    score, information, _ = rows.family.score(rows.y[:, None], rows.own(eta))
    weights, tilted = (share * w)[:, None], share[:, None] * rows.averaged * tilt[:, None]
    own = rows.family.mean(rows.own(eta))
    return StartSums(
        bread=np.concatenate([weighted_grams(rows.X[own], (weights * information)[own]) for own in rows.slices]),
        score=np.stack([rows.X[own].T @ (weights * score)[own, 0] for own in rows.slices]),
        mean=(tilted * rows.family.mean(eta)).sum(axis=1)[:, 0],
        slope=(tilted * rows.family.mean_deriv(eta))[..., 0] @ rows.X,
        weight=float(weights.sum()),
        variance=float((weights * rows.family.variance(own)).sum()),
        squares=float((share * (w > 0) * (rows.y - own[:, 0]) ** 2).sum()),
        size=float((share * (w > 0) * rows.y**2).sum()),
    )


def held_out_scores(rows: Rows, w: Array, own: Array, theta: Array, inverse: Array) -> Array:
    """Scores of rows over 1 - h, in the place of their arm, shape (n, K P); `own` (n,) is the share of one observation.

    `inverse`, shape (K, P, P), is the inverse of the bread.
    """
    eta = rows.own(rows.predictors(theta[..., None]))[:, 0]
    score, information, _ = rows.family.score(rows.y, eta)
    found = np.zeros((len(rows.y), len(theta), theta.shape[1]))
    for a, members in enumerate(rows.slices):
        x, weight = rows.X[members], w[members]
        leverage = own[members] * weight * information[members] * ((x @ inverse[a]) * x).sum(axis=1)
        kept = 1 - np.minimum(leverage, LARGEST_LEVERAGE)
        found[members, a] = (weight * score[members] / kept)[:, None] * x
    return found.reshape(len(rows.y), -1)


def heterogeneity(rows: Rows, weighed: Weights, theta: Array, sums: StartSums, C: Array) -> tuple[float, Array]:
    """S, the spread of the effects over the target, and the spread of their derivatives, (K P, K P); sums over rows."""
    eta = rows.predictors(theta[..., None])[..., 0]
    tilted = (weighed.share * rows.averaged * weighed.tilt)[:, 0]
    tau = C @ (rows.family.mean(eta) - sums.mean[:, None])
    slopes = [
        deriv[:, None] * rows.X - mean for deriv, mean in zip(rows.family.mean_deriv(eta), sums.slope, strict=True)
    ]
    every = np.concatenate(slopes, axis=1)
    return float((tau**2).sum(axis=0) @ tilted), (every.T * tilted) @ every


def inverse_of(bread: Array) -> Array:
    """Inverse of the bread of each arm, shape (K, P, P)."""
    return np.stack([inverse_or_nan(own) for own in bread])


def real_share(spread: tuple[float, Array], inverse: Array, meat: Array, C: Array) -> float:
    """Share c = max(0, 1 - 2 N / S), N the sampling variance of the effects over the target."""
    squares, slopes = spread
    p = inverse.shape[1]
    products = np.kron(C.T @ C, np.ones((p, p))) * slopes
    error = float((products * sandwich(inverse, meat)).sum())
    share = 1 - 2 * error / squares if squares > 0 else 0.0
    return max(share, 0.0) if np.isfinite(share) else 0.0


def sandwich(inverse: Array, meat: Array) -> Array:
    """Covariance of the coefficients of all arms, shape (K P, K P)."""
    n_arms, p, _ = inverse.shape
    bread = np.zeros((n_arms, p, n_arms, p))
    bread[range(n_arms), :, range(n_arms)] = inverse
    wide = bread.reshape(n_arms * p, n_arms * p)
    return wide @ meat @ wide.T


def rejected(estimates: Array, covariance: Array, level: float = LEVEL) -> bool:
    """Whether Wald's test that all estimates are zero rejects."""
    if not np.isfinite(covariance).all():
        return False
    statistic = float(estimates @ np.linalg.lstsq(covariance, estimates, rcond=None)[0])
    return bool(statistic > chdtri(len(estimates), level))


# --- the problem -----------------------------------------------------------------------------------------------------


def bias_contrasts(n_arms: int) -> Array:
    """Contrasts whose sum of squares is the ATE risk, shape (K - 1, K): Helmert's, each of squared length two."""
    contrasts = np.zeros((n_arms - 1, n_arms))
    for k in range(1, n_arms):
        contrasts[k - 1, :k], contrasts[k - 1, k] = -1.0, k
        contrasts[k - 1] *= np.sqrt(2 / (k * (k + 1)))
    return contrasts


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


@dataclass(frozen=True)
class JointProblem:
    """What JRE is trained on: the rows and the IPWRA fit that it starts from.

    Parameters
    ----------
    weights : WeightFit
        Importance weights at the fitted score.
    start : Estimate
        The IPWRA estimate.
    covariance : ndarray, shape (d, d), optional
        Robust covariance of its estimates.
    scale : EffectScale
        How the effect is reported.
    n_units : float
        n: rows of the sample, each as often as a frequency weight counts it.
    frequency : bool
        Whether weights count repeated rows.
    cluster : ndarray of int, shape (n,), or None
        Cluster of each row.
    folds : ndarray of int, shape (n,)
        Fold of each row in the cross-validation.
    """

    weights: WeightFit
    start: Estimate
    covariance: Array | None
    scale: EffectScale
    n_units: float
    frequency: bool
    cluster: NDArray[np.intp] | None
    folds: NDArray[np.intp]

    @property
    def equations(self) -> Equations:
        """The rows."""
        return self.weights.equations

    @property
    def n_clusters(self) -> int:
        """Number of clusters, 0 without them."""
        return 0 if self.cluster is None else int(loaded(self.cluster.max())) + 1

    @property
    def linear(self) -> bool:
        """Whether the outcome models are linear."""
        return self.equations.sample.family.linear

    @property
    def contrasts(self) -> Array:
        """C: contrasts of the arms, on another scale than the difference in its slopes at the start's means."""
        slopes = self.scale.g_slope(self.start.model_means)
        return bias_contrasts(len(slopes)) * slopes / np.sqrt((slopes**2).mean())

    @property
    def score_influence(self) -> Array:
        """Influence function of the coefficients of the weights, shape (n, Q)."""
        return self.start.influence[:, self.start.block("gamma")]

    def weighed(self, replicates: Replicates, joined: Joined | None = None) -> Weighed:
        """Return the rows at the fitted score."""
        return Weighed(self.equations, self.equations.sample.s[:, None], self.weights.beta, replicates, joined)


def points_about(problem: JointProblem, spread: float) -> Replicates:
    """Points that stand for the sampling distribution of the score."""
    model, block = problem.equations.model, problem.start.block("gamma")
    known = problem.covariance is None or (model is not None and model.classifier is not None)
    if known or problem.covariance is None:
        return Replicates.of_normal(problem.weights, None)
    return Replicates.of_normal(problem.weights, spread**2 * problem.covariance[block, block])


def meat_of(problem: JointProblem, weighed: Weighed, theta: Array, inverse: Array) -> Array:
    """Sum of squares of the scores held out, within clusters, shape (K P, K P)."""
    sample, clusters = problem.equations.sample, problem.n_clusters

    def squares(part: Weighed, here: slice, place: slice) -> Array:
        s, rows, weights = part.equations.sample.s[here], part.rows(here), part.weights(here, slice(0, 1))
        own = np.ones(len(s)) if problem.frequency else s
        scores = held_out_scores(rows, weights.w[:, 0], own / sample.total, theta, inverse) / sample.total
        if problem.cluster is None:
            return (scores.T * (s if problem.frequency else s**2)) @ scores
        sums = np.zeros((clusters, scores.shape[1]))
        np.add.at(sums, loaded(problem.cluster[place]), s[:, None] * scores)
        return sums

    found: Array = add_up(squares(*piece) for piece in weighed.pieces(weighed.replicates.count))
    return found.T @ found if clusters else found


def joined_score(problem: JointProblem, weighed: Weighed, theta: Array, asked: bool | None) -> Joined | None:
    """Return the score's linear predictor among the outcome columns, where it is asked for or a test rejects."""
    if asked is False or "score" not in weighed.beta:
        return None
    joined = further_columns(problem, len(weighed.beta["score"]))
    return joined if joined is not None and (asked or lacks(problem, weighed, theta, joined)) else None


def outcome_misses_square(problem: JointProblem) -> bool:
    """Test whether squares of the score's linear predictors belong to the outcome models of IPWRA."""
    if "score" not in problem.weights.beta:
        return False
    gamma = problem.weights.beta["score"][..., 0].T
    joined = further_columns(problem, gamma.shape[1], gamma)
    weighed = problem.weighed(Replicates.of_normal(problem.weights, None))
    return joined is not None and lacks(problem, weighed, problem.start.theta, joined)


def further_columns(problem: JointProblem, count: int, squared: Array | None = None) -> Joined | None:
    """Return what the score's columns, or squares of predictors with coefficients `squared`, have beyond the formula's.

    There are `count` predictors.
    """
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
    return Joined(from_Z, from_X @ from_Z, (root * vectors[:, kept] * scale[:, None]).T, count, squared)


def lacks(problem: JointProblem, weighed: Weighed, theta: Array, joined: Joined) -> bool:
    """Test the coefficients of further columns after one step of Newton's method from IPWRA."""
    tried, p = dataclasses.replace(weighed, joined=joined), theta.shape[1]
    wide = np.pad(theta, ((0, 0), (0, joined.of_score.shape[0])))
    lift = joined.lift(weighed.beta["score"], p)[..., 0]
    sums = tried.over(partial(start_sums, theta=wide))
    inverse = inverse_of(lift.T @ sums.bread @ lift)
    step = np.einsum("kpq,kq->kp", inverse, sums.score @ lift)
    everywhere = np.einsum("Pp,kpq,Qq->kPQ", lift, inverse, lift)
    meat = meat_of(problem, tried, wide + step @ lift.T, everywhere)
    lifts = np.kron(np.eye(len(theta)), lift)
    covariance, size = sandwich(inverse, lifts.T @ meat @ lifts), lift.shape[1]
    last = (np.arange(len(theta))[:, None] * size + np.arange(p, size)).ravel()
    return rejected(step.ravel()[last], covariance[np.ix_(last, last)])


# --- under other row weights -----------------------------------------------------------------------------------------


def refitted(
    problem: JointProblem, joined: Joined | None, points: Replicates, s: Array, scores: RefittedScores | None = None
) -> tuple[Weighed, Array, Refits]:
    """Rows under columns of weights with the scores of each; models of IPWRA there (K, p, R); estimates of IPWRA.

    The models are those of the sample where IPWRA failed, and zero for the predictor of the score if that joined.
    """
    start, equations = problem.start, problem.equations
    if not isinstance(start.rows, SeparateRows):
        raise CausalRiskError("IPWRA trains each arm by itself")
    scored, beta, codes = scores or problem.weights.refit(s)
    if scored.model is not None and scored.model.classifier is not None:  # not in coefficients
        equations = dataclasses.replace(equations, model=scored.model)
    refits = start.rows.refit(s, (scored, beta, codes))
    bad = ~np.isfinite(flat(beta)).all(axis=0)
    beta = {name: np.where(bad, problem.weights.beta[name], each) for name, each in beta.items()}
    theta = refits.values[start.block("theta")].reshape(*start.theta.shape, -1)
    theta = np.where(np.isnan(theta), start.theta[..., None], theta)
    return Weighed(equations, s, beta, points, joined), padded(theta, joined), refits


def padded(theta: Array, joined: Joined | None) -> Array:
    """Coefficients of the formula's columns (K, p, R), with zeros for the predictor of the score if that joined."""
    return theta if joined is None else np.pad(theta, ((0, 0), (0, joined.width), (0, 0)))
