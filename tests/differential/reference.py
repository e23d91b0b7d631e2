"""A slow reference for the classic estimators, written apart from the package: stacked estimating equations.

Nothing of the package is used. Starting values come from statsmodels, from least squares or from zero; the stacked
equations are solved block by block with derivatives by complex steps, and so are the bread of the sandwich and the
delta method.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import statsmodels.api as sm
from scipy.special import erfc

from tests.differential.cases import STATED, Case, Data, usual_link

STEP = 1e-30
ZERO = 1e-13  # of the largest mean: what rounding leaves of none
ALPHA = 0.7  # of the negative binomial
Z90 = 1.6448536269514722  # normal quantile of 95%
Vector = np.ndarray


class NoReferenceError(Exception):
    """The equations have no solution that this module finds."""


@dataclass(frozen=True)
class Answer:
    """Effects and arm means with their covariance, and what else can be compared.

    `limits` are those of 90% intervals, of effects on a scale where they are differences, transformed; `z` are
    statistics against no effect, and of the means against zero.
    """

    params: Vector
    cov: Vector
    limits: Vector
    z: Vector
    predicted: Vector
    predicted_se: Vector
    groups: Vector
    group_se: Vector
    condition: float
    stack: Stack
    theta: Vector
    theta_cov: Vector


@dataclass
class Problem:
    """The rows of a case as numbers: those of the sample, then those of another population."""

    case: Case
    X: Vector
    Z: Vector
    y: Vector
    d: Vector
    s: Vector
    observed: Vector
    cluster: Vector
    g: Vector
    e: Vector
    offset: Vector
    mean_offset: Vector
    to_columns: tuple[Vector, Vector]

    @property
    def n_arms(self) -> int:
        return self.case.arms


def design(case: Case, frame: pd.DataFrame, names: tuple[str, ...]) -> Vector:
    """Constant, indicators of the factor's levels b and c, the covariates, and the square of the first."""
    columns = [np.ones(len(frame))]
    if case.factor:
        columns += [(frame["g"] == level).to_numpy(float) for level in ("b", "c")]
    columns += [frame[name].to_numpy(float) for name in names]
    if case.square:
        columns.append(frame[names[0]].to_numpy(float) ** 2)
    return np.column_stack(columns)


def standardised(columns: Vector) -> Vector:
    """Columns of mean zero and unit spread, but for the constant, which stands first."""
    rest = columns[:, 1:]
    return np.column_stack([columns[:, :1], (rest - rest.mean(axis=0)) / rest.std(axis=0)])


def problem_of(case: Case, data: Data, basis: Callable[[Vector], Vector] = standardised) -> Problem:
    """Leave out rows that miss a covariate, put both populations together, and span the columns anew."""
    used = [*data.names, "y", *(["g"] if case.factor else [])]
    own = data.frame.dropna(subset=used)
    frames = [own, data.elsewhere] if case.target == "frame" else [own]
    both = pd.concat(frames, ignore_index=True)
    raw = [design(case, both, names) for names in (data.names, propensity_names(case, data.names))]
    X, Z = map(basis, raw)
    n, m = len(own), len(both) - len(own)
    s = own["w"].to_numpy(float) if case.weight_type else np.ones(n)
    if case.weight_type == "probability":
        s = s / s.mean()
    cluster = own["c"].to_numpy() if case.clusters else np.arange(n)
    pad = np.zeros(m)
    t = own["t"].to_numpy()
    offset = np.r_[{"": np.zeros(n), "offset": t}.get(case.offset, np.log(np.abs(t))), pad]
    problem = Problem(
        case, X, Z, np.r_[own["y"].to_numpy(float), pad], np.r_[own["d"].to_numpy(int), pad.astype(int)],
        np.r_[s, np.ones(m)], np.r_[np.ones(n), pad],
        np.r_[cluster, 10_000 + np.arange(m)], both["g"].astype(str).to_numpy(dtype=object),
        np.column_stack([own[[f"e{k}" for k in range(case.arms)]].to_numpy().T, np.full((case.arms, m), 0.5)]),
        offset, np.full(n + m, np.log(STATED)) if case.offset == "stated" else offset,
        (np.linalg.lstsq(raw[0], X, rcond=None)[0], np.linalg.lstsq(raw[1], Z, rcond=None)[0]),
    )  # fmt: skip
    return problem if case.trim is None else trimmed(problem)


def propensity_names(case: Case, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the covariates of the propensity model: fewer than those of the outcome where it is another one."""
    return names[:-1] if case.other_propensity and len(names) > 1 else names


def trimmed(problem: Problem) -> Problem:
    case = problem.case
    plain = replace(problem, case=replace(case, target="all", clip=None))
    e = probabilities(plain, solve_propensity(plain, problem.s))
    if case.arms == 2:
        e = np.stack([1 - e[1], e[1]])
    if case.trim == "crump":
        cost = (1 / e).sum(axis=0)
        keep = cost <= largest_cost(cost, problem.s) * (1 + 1e-9)
    else:
        scores = e[1:] if case.arms == 2 else e
        keep = ((scores >= case.trim[0]) & (scores <= case.trim[1])).all(axis=0)
    smaller = replace(problem, **{
        name: getattr(problem, name)[keep] for name in ("X", "Z", "y", "d", "s", "observed", "cluster", "g",
                                                      "offset", "mean_offset")
    }, e=problem.e[:, keep])  # fmt: skip
    if case.weight_type == "probability":
        smaller.s = smaller.s / smaller.s.mean()
    return smaller


def largest_cost(cost: Vector, s: Vector) -> float:
    """Crump's rule: the largest cut that is no more than twice the mean of the costs below it."""
    best = np.inf
    order = np.argsort(cost)
    for count in range(int(np.isfinite(cost).sum()), 0, -1):
        below = order[:count]
        best = 2 * (s[below] @ cost[below]) / s[below].sum()
        if cost[below[-1]] <= best:
            break
    return best if count < len(cost) else np.inf


# --- models --------------------------------------------------------------------------------------------------------


def inverse_link(name: str, eta: Vector) -> tuple[Vector, Vector]:
    """Mean and its derivative."""
    if name in ("logit", "probit", "cloglog"):
        m, rest = both_chances(name, eta)
        return m, {
            "logit": lambda: m * rest,
            "probit": lambda: np.exp(-(eta**2) / 2) / np.sqrt(2 * np.pi),
            "cloglog": lambda: np.exp(eta) * rest,
        }[name]()
    return (np.exp(eta), np.exp(eta)) if name == "log" else (eta, np.ones_like(eta))


def both_chances(name: str, eta: Vector) -> tuple[Vector, Vector]:
    """Chance of one and of zero under a link, each with all its digits: one is not taken from 1 to have the other."""
    return {
        "logit": lambda: (1 / (1 + np.exp(-eta)), 1 / (1 + np.exp(eta))),
        "probit": lambda: (erfc(-eta / np.sqrt(2)) / 2, erfc(eta / np.sqrt(2)) / 2),
        "cloglog": lambda: (-np.expm1(-np.exp(eta)), np.exp(-np.exp(eta))),
    }[name]()


def outcome_mean(problem: Problem, eta: Vector) -> tuple[Vector, Vector]:
    """Mean of the outcome model, and derivative over variance."""
    case = problem.case
    if case.estimator == "Hajek" and not case.offset:
        return eta, np.ones_like(eta)
    link = usual_link(case)
    m, slope = inverse_link(link, eta)
    if link == "cloglog":  # the chance of zero, which may be none to the last digit, cancels
        return m, np.exp(eta) / m
    variance = {
        "gaussian": lambda: np.ones_like(m),
        "binomial": lambda: np.prod(both_chances(link, eta), axis=0),
        "poisson": lambda: m,
        "gamma": lambda: m**2,
        "negativebinomial": lambda: m + ALPHA * m**2,
    }[case.family]()
    return m, slope / variance


def predictors(problem: Problem, gamma: Vector) -> Vector:
    """Linear predictors of the propensity model, shape (L, n)."""
    return gamma.reshape(-1, problem.Z.shape[1]) @ problem.Z.T


def probabilities(problem: Problem, gamma: Vector) -> Vector:
    """Probability of each arm, shape (K, n); of calibrated ones each by the model of that arm."""
    return problem.e if problem.case.propensity == "known" else chances(problem, predictors(problem, gamma))


def chances(problem: Problem, eta: Vector) -> Vector:
    """As `probabilities`, of linear predictors."""
    case = problem.case
    if case.propensity == "calibrated" and toward(case) is None:
        return 1 / (1 + np.exp(-eta))
    if problem.n_arms == 2 and case.propensity == "ml":
        return np.stack(both_chances(case.propensity_link, eta[0])[::-1])
    base = 0 if case.propensity == "ml" else toward(case)
    odds = np.exp(np.insert(eta, base, 0, axis=0))
    return odds / odds.sum(axis=0)


def clipped(problem: Problem, e: Vector) -> Vector:
    """Probabilities within the limits: of the treated arm and its complement, or of each of several arms."""
    if problem.case.clip is None:
        return e
    low, high = problem.case.clip
    lows, highs = (low, high) if len(e) > 2 else (np.array([[1 - high], [low]]), np.array([[1 - low], [high]]))
    return np.where(e.real < lows, lows, np.where(e.real > highs, highs, e))


def toward(case: Case) -> int | None:
    """Return the arm whose rows are the target."""
    return {"control": 0, "treated": 1, "arm": case.arms - 1}.get(case.target)


def propensity_scores(problem: Problem, gamma: Vector) -> Vector:
    """Contributions of the rows to the equations of the propensity model, shape (n, L q)."""
    return np.hstack([f[:, None] * problem.Z for f in propensity_factors(problem, predictors(problem, gamma))])


def propensity_factors(problem: Problem, eta: Vector) -> Vector:
    """What the columns of the rows are multiplied by in these equations, at linear predictors, shape (L, n)."""
    d, own, case = problem.d, problem.observed, problem.case
    if case.propensity == "calibrated":
        aim = toward(case)
        arms = [a for a in range(case.arms) if a != aim]
        weight = np.exp(-eta) + (aim is None)
        wanted = 1.0 if aim is None else (d == aim)
        return np.stack([(d == a) * w - wanted for a, w in zip(arms, weight, strict=True)])
    p = chances(problem, eta)
    if case.arms == 2:
        slope = inverse_link(case.propensity_link, eta[0])[1]
        return (own * (d - p[1]) * slope / (p[1] * p[0]))[None]
    return np.stack([own * ((d == k) - p[k]) for k in range(1, problem.n_arms)])


# --- solving -------------------------------------------------------------------------------------------------------


def jacobian(total: Callable[[Vector], Vector], theta: Vector, moving: slice = slice(None)) -> Vector:
    """Derivative by complex steps, shape (m, d); it is zero by what is not `moving`."""
    places, columns = np.arange(len(theta))[moving], []
    for j in places:
        moved = theta.astype(complex)
        moved[j] += 1j * STEP
        columns.append(np.imag(total(moved)) / STEP)
    found = np.zeros((len(columns[0]), len(theta)))
    found[:, places] = np.column_stack(columns)
    return found


def newton(
    total: Callable[[Vector], Vector],
    start: Vector,
    enough: float = 1e-12,
    slope: Callable[[Vector], Vector] | None = None,
) -> Vector:
    """Solve total(theta) = 0, halving steps that make it larger; one shorter than `enough` is the last."""
    theta = start.astype(float)
    value = total(theta)
    for _ in range(60):
        try:
            step = np.linalg.solve(jacobian(total, theta) if slope is None else slope(theta), value)
        except np.linalg.LinAlgError as error:
            raise NoReferenceError(str(error)) from error
        if not np.isfinite(step).all():
            raise NoReferenceError("the step is not finite")
        for _ in range(30):
            with np.errstate(all="ignore"):
                tried = total(theta - step)
            if np.isfinite(tried).all() and np.abs(tried).max() <= np.abs(value).max() * (1 + 1e-3) + 1e-12:
                break
            step = step / 2
        theta, value = theta - step, tried
        if np.abs(step).max() < enough * (1 + np.abs(theta).max()):
            return theta
    raise NoReferenceError("not solved")


def solve_predictors(
    factors: Callable[[Vector], Vector], X: Vector, s: Vector, start: Vector, enough: float = 1e-12
) -> Vector:
    """Solve for the coefficients of L linear predictors: sums of factors(predictors), shape (L, n), times X are zero.

    The predictors take the complex steps, one after the other; by coefficients the derivatives are X times as large.
    """

    def at(theta: Vector) -> Vector:
        return theta.reshape(-1, X.shape[1]) @ X.T

    def total(theta: Vector) -> Vector:
        return ((s * factors(at(theta))) @ X).ravel() / s.sum()

    def slope(theta: Vector) -> Vector:
        eta, blocks = at(theta), []
        for k in range(len(eta)):
            moved = eta.astype(complex)
            moved[k] += 1j * STEP
            blocks.append(np.vstack([(X.T * row) @ X for row in s * np.imag(factors(moved)) / STEP]))
        return np.hstack(blocks) / s.sum()

    return newton(total, start, enough, slope)


def follow(
    solved: Vector, equations: Callable[..., Vector], still: tuple[Vector, ...], moving: tuple[Vector, ...]
) -> Vector:
    """Move the solution of equations(theta, *still) = 0 to what has moved by an imaginary step, to first order.

    The second Newton step takes away the rounding error of the first.
    """
    if not len(solved):
        return solved
    slope, moved = jacobian(lambda theta: equations(theta, *still), solved), solved.astype(complex)
    for _ in range(2):
        moved = moved - 1j * np.linalg.solve(slope, np.imag(equations(moved, *moving)))
    return moved


def n_models(case: Case) -> int:
    """Linear predictors of the propensity model."""
    return {"known": 0, "ml": case.arms - 1, "calibrated": case.arms - (toward(case) is not None)}[case.propensity]


def solve_propensity(problem: Problem, s: Vector) -> Vector:
    size = problem.Z.shape[1] * n_models(problem.case)
    if not size:
        return np.zeros(0)
    return solve_predictors(lambda eta: propensity_factors(problem, eta), problem.Z, s, np.zeros(size))


def solve_membership(problem: Problem, s: Vector) -> Vector:
    return solve_predictors(lambda eta: membership_factor(problem, eta), problem.Z, s, np.zeros(problem.Z.shape[1]))


def membership_scores(problem: Problem, mu: Vector) -> Vector:
    """Contributions to the logit of belonging to another population, shape (n, q)."""
    return membership_factor(problem, problem.Z @ mu)[:, None] * problem.Z


def membership_factor(problem: Problem, eta: Vector) -> Vector:
    """What the columns of the rows are multiplied by in them, at a linear predictor."""
    return 1 - problem.observed - 1 / (1 + np.exp(-eta))


def start_of_outcome(problem: Problem, X: Vector, rows: Vector, w: Vector) -> Vector:
    """Start from least squares of an arm where they are its fit, else from statsmodels' fit."""
    case, f = problem.case, sm.families
    y = problem.y[rows]
    if case.estimator == "Hajek" and not case.offset:
        return np.array([np.average(y, weights=w)])
    if (case.family, usual_link(case)) == ("gaussian", "identity"):
        return np.linalg.lstsq(np.sqrt(w)[:, None] * X[rows], np.sqrt(w) * (y - problem.offset[rows]), rcond=None)[0]
    link = {"logit": f.links.Logit, "probit": f.links.Probit, "cloglog": f.links.CLogLog, "log": f.links.Log,
            "identity": f.links.Identity}[usual_link(case)]()  # fmt: skip
    family = {
        "gaussian": lambda: f.Gaussian(link), "binomial": lambda: f.Binomial(link), "poisson": lambda: f.Poisson(link),
        "gamma": lambda: f.Gamma(link), "negativebinomial": lambda: f.NegativeBinomial(link, ALPHA),
    }[case.family]()  # fmt: skip
    start = None
    if case.family == "gaussian" and usual_link(case) == "log":
        start = np.r_[np.log((w @ y) / (w @ np.exp(problem.offset[rows]))), np.zeros(X.shape[1] - 1)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            glm = sm.GLM(y, X[rows], family=family, freq_weights=w, offset=problem.offset[rows])
            return np.asarray(glm.fit(start_params=start).params)
        except ValueError as error:  # no weights of its own steps are left
            raise NoReferenceError(str(error)) from error


# --- the stack -----------------------------------------------------------------------------------------------------


class Stack:
    """Stacked estimating equations of an estimator: propensity, membership, outcomes, means."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        case, K = problem.case, problem.n_arms
        self.X = np.ones((len(problem.y), 1)) if case.estimator == "Hajek" else problem.X
        self.scored = case.estimator != "OutcomeRegression" or case.target in ("overlap", "matching", "entropy", "tilt")
        self.joined = case.target == "frame" and case.estimator != "OutcomeRegression"
        q, p = problem.Z.shape[1], self.X.shape[1]
        self.constants = case.estimator == "Hajek" and not case.offset
        grouped = case.factor and case.target != "frame"
        self.masks = [np.ones(len(problem.y))]
        self.groups = sorted(set(problem.g)) if grouped else []
        self.masks += [(problem.g == level).astype(float) for level in self.groups]
        self.inside = [problem.observed * (problem.d == a) for a in range(K)]
        sizes = [q * n_models(case) * self.scored, q * self.joined, K * p, K * len(self.masks)]
        in_groups = case.estimator == "IPWRA" or (case.estimator == "Hajek" and not self.constants)
        self.corrected = self.masks if case.estimator == "AIPW" else self.masks[1:] if in_groups else []
        sizes.append(K * len(self.corrected))
        self.parts = [slice(int(b - a), int(b)) for a, b in zip(sizes, np.cumsum(sizes), strict=True)]
        self.averages = slice(self.parts[3].start, self.parts[4].stop)

    def weights(self, gamma: Vector, mu: Vector) -> tuple[Vector, Vector, Vector]:
        """Importance weight of each row in its own arm, tilt and measure, shape (n,)."""
        problem, case = self.problem, self.problem.case
        d, own, ones = problem.d, problem.observed, np.ones(len(problem.y))
        e = clipped(problem, probabilities(problem, gamma)) if self.scored else None
        mine = ones if e is None else e[d, np.arange(len(d))]
        if case.target == "frame":
            ratio = own * np.exp(problem.Z @ mu) if self.joined else ones
            return ratio / mine, 1 - own, ratio
        aim = toward(case)
        if aim is not None:
            tilt = (d == aim).astype(float)
            return (ones if e is None else e[aim] / mine), tilt, tilt
        if case.target == "all" or e is None:
            return ones / mine, ones, ones
        tilt = {
            "overlap": lambda: 1 / (1 / e).sum(axis=0),
            "matching": lambda: e[e.real.argmin(axis=0), np.arange(len(d))],
            "entropy": lambda: -(e * np.log(e)).sum(axis=0),
            "tilt": lambda: e[1] ** 2 * (1 - e[1]),
        }[case.target]()
        return tilt / mine, tilt, tilt

    def training(self, w: Vector) -> Vector:
        """Weights that the outcome models are fitted under."""
        return w if self.problem.case.estimator in ("IPWRA", "Hajek") else np.ones(len(w))

    def outcome_factor(self, arm: int, eta: Vector, training: Vector) -> Vector:
        """What the columns of the rows are multiplied by in the equations of an arm's outcome model."""
        m, slope = outcome_mean(self.problem, eta + self.problem.offset)
        return self.inside[arm] * training * (self.problem.y - m) * slope

    def averaged(self, arm: int, m: Vector, w: Vector, tilt: Vector) -> tuple[Vector, Vector]:
        """Numerator and denominator of the mean of an arm, row by row."""
        if self.constants:  # weighted means of a group are those of its rows
            return self.inside[arm] * w * self.problem.y, self.inside[arm] * w
        return tilt * m, tilt

    def corrections(self, arm: int, m: Vector, w: Vector, measure: Vector) -> tuple[Vector, Vector]:
        """Numerator and denominator of the correction by weighted residuals, row by row.

        Of weighted means, and of rates at a stated exposure, it is by the weights, or weighted exposures, of the rows.
        """
        problem, own = self.problem, self.inside[arm] * w
        exposure = np.exp(problem.offset - problem.mean_offset)
        above = own * (problem.y - (exposure * m if problem.case.offset == "stated" else m))
        if problem.case.estimator == "Hajek" or problem.case.offset == "stated":
            return above, own * exposure
        return above, own_measure(measure, problem.observed)

    def mean_terms(self, theta: Vector) -> Iterator[tuple[Vector, Vector]]:
        """Numerator and denominator of each mean, then of each correction, row by row, from the models' parameters."""
        problem, K = self.problem, self.problem.n_arms
        gamma, mu, beta = (theta[part] for part in self.parts[:3])
        w, tilt, measure = self.weights(gamma, mu)
        means = [outcome_mean(problem, self.X @ b + problem.mean_offset)[0] for b in beta.reshape(K, -1)]
        for masks, kind, last in ((self.masks, self.averaged, tilt), (self.corrected, self.corrections, measure)):
            terms = [kind(a, means[a], w, last) for a in range(K)] if masks else []
            yield from ((mask * above, mask * below) for mask in masks for above, below in terms)

    def rows(self, theta: Vector) -> Vector:
        """Contribution of each row to each equation, shape (n, d)."""
        problem, K = self.problem, self.problem.n_arms
        gamma, mu, beta = (theta[part] for part in self.parts[:3])
        blocks = [propensity_scores(problem, gamma)] if self.scored and gamma.size else []
        if self.joined:
            blocks.append(membership_scores(problem, mu))
        training = self.training(self.weights(gamma, mu)[0])
        blocks += [
            self.outcome_factor(a, self.X @ b, training)[:, None] * self.X for a, b in enumerate(beta.reshape(K, -1))
        ]
        values = theta[self.averages]
        terms = zip(self.mean_terms(theta), values, strict=True)
        blocks += [(above - below * value)[:, None] for (above, below), value in terms]
        return np.hstack(blocks)

    def bread(self, theta: Vector) -> Vector:
        """Derivative of the sums of the equations; each mean is in its own alone, times its denominators."""
        s = self.problem.s
        found = jacobian(lambda t: s @ self.rows(t), theta, slice(self.averages.start))
        return found - np.diag(np.r_[np.zeros(self.averages.start), [s @ below for _, below in self.mean_terms(theta)]])

    def solve(self, s: Vector) -> Vector:
        """Solve block by block under row weights."""
        problem, K = self.problem, self.problem.n_arms
        theta = np.zeros(self.averages.stop)
        if self.scored:
            theta[self.parts[0]] = solve_propensity(problem, s)
        if self.joined:
            theta[self.parts[1]] = solve_membership(problem, s)
        training = self.training(self.weights(theta[self.parts[0]], theta[self.parts[1]])[0])
        theta[self.parts[2]] = np.concatenate([self.solve_outcome(a, s, training) for a in range(K)])
        theta[self.averages] = [(s @ above) / (s @ below) for above, below in self.mean_terms(theta)]
        return theta

    def solve_outcome(self, arm: int, s: Vector, training: Vector) -> Vector:
        counted = s * training * self.problem.observed
        rows = (self.problem.d == arm) & (counted > 0)
        start = start_of_outcome(self.problem, self.X, rows, counted[rows])
        return solve_predictors(lambda eta: self.outcome_factor(arm, eta, training), self.X, s, start)

    def means(self, theta: Vector) -> Vector:
        """Arm means over everybody and in each group, shape (J, K)."""
        found, rho = (theta[part].reshape(-1, self.problem.n_arms) for part in self.parts[3:])
        none = np.zeros((len(found) - len(rho), self.problem.n_arms))
        return found + np.vstack([none, rho])

    def reported(self, theta: Vector) -> Vector:
        """Effects and means over everybody, then the effects in the groups."""
        means = self.means(theta)
        return np.concatenate([self.effects(means[0]), means[0], *(self.effects(m) for m in means[1:])])

    def group_contrasts(self, theta: Vector) -> Vector:
        """Effects in the groups on the scale where they are differences, an effect after the other."""
        return np.stack([self.contrasts(m) for m in self.means(theta)[1:]], axis=1).ravel()

    def effects(self, m: Vector) -> Vector:
        return reported(self.problem.case, self.contrasts(m))

    def contrasts(self, m: Vector) -> Vector:
        """Effects of arm means on the scale where they are differences."""
        g = on_scale(self.problem.case, m)
        return g[1:] - g[0]


def on_scale(case: Case, m: Vector) -> Vector:
    """Arm means on the scale where effects are differences; no events, or nothing but events, have no logarithm."""
    if case.effect != "difference":
        m = np.where(np.abs(m) > ZERO * np.abs(m).max(), m, np.nan)
    if case.effect == "odds_ratio":
        m = np.where(np.abs(1 - m) > ZERO, m, np.nan)
    return {
        "difference": lambda: m, "ratio": lambda: np.log(m), "percent": lambda: np.log(m),
        "odds_ratio": lambda: np.log(m / (1 - m)),
    }[case.effect]()  # fmt: skip


def reported(case: Case, contrast: Vector) -> Vector:
    """Effects as they are reported, of differences on their scale."""
    if case.effect == "difference":
        return contrast
    return 100 * (np.exp(contrast) - 1) if case.effect == "percent" else np.exp(contrast)


def own_measure(measure: Vector, own: Vector) -> Vector:
    """What a correction is divided by: a population elsewhere has no rows of its own there."""
    return measure * own


def answer(case: Case, data: Data, basis: Callable[[Vector], Vector] = standardised) -> Answer:
    """Return the effects of a case with their covariance."""
    problem = problem_of(case, data, basis)
    stack = Stack(problem)
    theta = stack.solve(problem.s)
    cov = meat_and_bread(problem, stack, theta, stack.bread(theta))
    slope = jacobian(stack.reported, theta, stack.averages)
    values, spread = stack.reported(theta), slope @ cov @ slope.T
    count = 2 * case.arms - 1
    factor = small_sample(case, problem, stack)
    cov = factor * cov
    limits, z = intervals(stack, theta, cov)

    def predicted(t: Vector) -> Vector:
        beta = t[stack.parts[2]].reshape(case.arms, -1)
        return np.column_stack(
            [outcome_mean(problem, stack.X[:5] @ b + problem.mean_offset[:5])[0] for b in beta]
        ).ravel()

    by_theta = jacobian(predicted, theta, stack.parts[2])
    own = problem.observed > 0
    return Answer(
        values[:count], factor * spread[:count, :count], limits, z, predicted(theta).reshape(5, -1),
        np.sqrt(np.einsum("ij,jk,ik->i", by_theta, cov, by_theta)).reshape(5, -1), values[count:],
        np.sqrt(factor * np.diag(spread)[count:]),
        max(np.linalg.cond(M[own & (problem.d == a)]) for M in (problem.X, problem.Z) for a in range(case.arms)),
        stack, theta, cov,
    )  # fmt: skip


def intervals(stack: Stack, theta: Vector, cov: Vector) -> tuple[Vector, Vector]:
    """90% limits, shape (2 K - 1, 2), and z statistics."""
    case = stack.problem.case

    def measured(t: Vector) -> Vector:
        m = stack.means(t)[0]
        return np.concatenate([stack.contrasts(m), m])

    slope, values = jacobian(measured, theta, stack.averages), measured(theta)
    se = np.sqrt(np.diag(slope @ cov @ slope.T))
    limits = values[:, None] + np.outer(se, [-Z90, Z90])
    limits[: case.arms - 1] = reported(case, limits[: case.arms - 1])
    return limits, values / se


def meat_and_bread(problem: Problem, stack: Stack, theta: Vector, bread: Vector) -> Vector:
    half = np.linalg.solve(bread, meat(problem, stack.rows(theta)))
    return np.linalg.solve(bread, half.T)


def meat(problem: Problem, rows: Vector) -> Vector:
    """Sum of squares of the weighted contributions, of clusters where there are any."""
    s, case = problem.s, problem.case
    if case.clusters:
        sums = pd.DataFrame(s[:, None] * rows).groupby(problem.cluster).sum().to_numpy()
        return sums.T @ sums
    power = 1 if case.weight_type == "frequency" else 2
    return (rows * (s**power)[:, None]).T @ rows


def small_sample(case: Case, problem: Problem, stack: Stack) -> float:
    """The factor of the covariance, from the sample alone: rows of a target frame have cluster numbers from 10,000."""
    if not case.small_sample:
        return 1.0
    own = problem.cluster < 10_000
    n = problem.s[own].sum() if case.weight_type == "frequency" else own.sum()
    k = case.arms * stack.X.shape[1]
    if not case.clusters:
        return n / (n - k)
    groups = len(np.unique(problem.cluster[own]))
    return groups / (groups - 1) * (n - 1) / (n - k)


def resampled(stack: Stack, counts: Vector) -> Vector:
    """Effects and means under other weights of the rows, in the order of the sample of the package's design."""
    return stack.reported(stack.solve(counts))[: 2 * stack.problem.n_arms - 1]
