"""A slow reference for the classic estimators, written apart from the package: stacked estimating equations.

Nothing of the package is used. Starting values come from statsmodels or from zero; the stacked equations are solved
block by block with derivatives by complex steps, and so are the bread of the sandwich and the delta method.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import statsmodels.api as sm
from scipy.special import erf

from tests.differential.cases import STATED, Case, Data

STEP = 1e-30
ALPHA = 0.7  # of the negative binomial
Vector = np.ndarray


class NoReferenceError(Exception):
    """The equations have no solution that this module finds."""


@dataclass(frozen=True)
class Answer:
    """Effects and arm means with their covariance, and what else can be compared."""

    params: Vector
    cov: Vector
    predicted: Vector
    groups: Vector
    group_se: Vector
    condition: float


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
    offset: Vector
    mean_offset: Vector

    @property
    def n_arms(self) -> int:
        return self.case.arms


def design(frame: pd.DataFrame, names: tuple[str, ...], factor: bool) -> Vector:
    """Constant, indicators of the factor's levels b and c, then the covariates."""
    columns = [np.ones(len(frame))]
    if factor:
        columns += [(frame["g"] == level).to_numpy(float) for level in ("b", "c")]
    return np.column_stack([*columns, *(frame[name].to_numpy(float) for name in names)])


def problem_of(case: Case, data: Data) -> Problem:
    """Leave out rows that miss a covariate, standardise the covariates, and put both populations together."""
    used = list(data.names)
    own = data.frame.dropna(subset=used)
    frames = [own, data.elsewhere] if case.target == "frame" else [own]
    both = pd.concat(frames, ignore_index=True)
    middle, spread = own[used].mean(), own[used].std()
    both = both.assign(**{name: (both[name] - middle[name]) / spread[name] for name in used})
    X = design(both, data.names, case.factor)
    Z = design(both, propensity_names(case, data.names), case.factor)
    n, m = len(own), len(both) - len(own)
    s = own["w"].to_numpy(float) if case.weight_type else np.ones(n)
    if case.weight_type == "probability":
        s = s / s.mean()
    cluster = own["c"].to_numpy() if case.clusters else np.arange(n)
    pad = np.zeros(m)
    t = own["t"].to_numpy()
    offset = np.r_[{"": np.zeros(n), "offset": t}.get(case.offset, np.log(np.abs(t))), pad]
    stated = case.offset == "stated"
    problem = Problem(
        case, X, Z, np.r_[own["y"].to_numpy(float), pad], np.r_[own["d"].to_numpy(int), pad.astype(int)],
        np.r_[s, np.ones(m)], np.r_[np.ones(n), pad],
        np.r_[cluster, 10_000 + np.arange(m)], both["g"].to_numpy(),
        offset, np.full(n + m, np.log(STATED)) if stated else offset,
    )  # fmt: skip
    return problem if case.trim is None else trimmed(problem)


def propensity_names(case: Case, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the covariates of the propensity model: fewer than those of the outcome where it is another one."""
    return names[:-1] if case.other_propensity and len(names) > 1 else names


def trimmed(problem: Problem) -> Problem:
    low, high = problem.case.trim
    gamma = solve_propensity(problem)
    e = probabilities(problem, gamma)
    scores = e[1:] if problem.n_arms == 2 else e
    keep = ((scores >= low) & (scores <= high)).all(axis=0)
    names = ("X", "Z", "y", "d", "s", "observed", "cluster", "g", "offset", "mean_offset")
    parts = (getattr(problem, name)[keep] for name in names)
    smaller = Problem(problem.case, *parts)
    if problem.case.weight_type == "probability":
        smaller.s = smaller.s / smaller.s.mean()
    return smaller


# --- models --------------------------------------------------------------------------------------------------------


def inverse_link(name: str, eta: Vector) -> tuple[Vector, Vector]:
    """Mean and its derivative."""
    if name == "logit":
        m = 1 / (1 + np.exp(-eta))
        return m, m * (1 - m)
    if name == "probit":
        return (1 + erf(eta / np.sqrt(2))) / 2, np.exp(-(eta**2) / 2) / np.sqrt(2 * np.pi)
    if name == "cloglog":
        return 1 - np.exp(-np.exp(eta)), np.exp(eta - np.exp(eta))
    return (np.exp(eta), np.exp(eta)) if name == "log" else (eta, np.ones_like(eta))


def usual_link(case: Case) -> str:
    return case.outcome_link or {"gaussian": "identity", "binomial": "logit"}.get(case.family, "log")


def outcome_mean(problem: Problem, eta: Vector) -> tuple[Vector, Vector]:
    """Mean of the outcome model, and derivative over variance."""
    case = problem.case
    if case.estimator == "Hajek" and not case.offset:
        return eta, np.ones_like(eta)
    m, slope = inverse_link(usual_link(case), eta)
    variance = {
        "gaussian": lambda: np.ones_like(m),
        "binomial": lambda: m * (1 - m),
        "poisson": lambda: m,
        "gamma": lambda: m**2,
        "negativebinomial": lambda: m + ALPHA * m**2,
    }[case.family]()
    return m, slope / variance


def probabilities(problem: Problem, gamma: Vector) -> Vector:
    """Probability of each arm, shape (K, n)."""
    q = problem.Z.shape[1]
    eta = (gamma.reshape(-1, q) @ problem.Z.T) if gamma.size else np.zeros((problem.n_arms - 1, len(problem.y)))
    if problem.n_arms == 2:
        e = inverse_link(problem.case.propensity_link, eta[0])[0]
        return np.stack([1 - e, e])
    odds = np.exp(np.vstack([np.zeros_like(eta[:1]), eta]))
    return odds / odds.sum(axis=0)


def propensity_scores(problem: Problem, gamma: Vector) -> Vector:
    """Contributions of the rows to the likelihood equations, shape (n, L q)."""
    Z, d, own = problem.Z, problem.d, problem.observed
    if problem.n_arms == 2:
        e, slope = inverse_link(problem.case.propensity_link, Z @ gamma)
        return (own * (d - e) * slope / (e * (1 - e)))[:, None] * Z
    p = probabilities(problem, gamma)
    return np.hstack([(own * ((d == k) - p[k]))[:, None] * Z for k in range(1, problem.n_arms)])


# --- solving -------------------------------------------------------------------------------------------------------


def jacobian(total: Callable[[Vector], Vector], theta: Vector) -> Vector:
    """Derivative by complex steps, shape (m, d)."""
    columns = []
    for j in range(len(theta)):
        moved = theta.astype(complex)
        moved[j] += 1j * STEP
        columns.append(np.imag(total(moved)) / STEP)
    return np.column_stack(columns)


def newton(total: Callable[[Vector], Vector], start: Vector) -> Vector:
    """Solve total(theta) = 0, halving steps that make it larger."""
    theta = start.astype(float)
    value = total(theta)
    for _ in range(60):
        try:
            step = np.linalg.solve(jacobian(total, theta), value)
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
        if np.abs(step).max() < 1e-12 * (1 + np.abs(theta).max()):
            return theta
    raise NoReferenceError("not solved")


def solve_propensity(problem: Problem) -> Vector:
    size = problem.Z.shape[1] * (problem.n_arms - 1)
    return newton(lambda gamma: problem.s @ propensity_scores(problem, gamma), np.zeros(size))


def start_of_outcome(problem: Problem, X: Vector, rows: Vector, w: Vector) -> Vector:
    """Start from statsmodels' fit of an arm."""
    case, f = problem.case, sm.families
    y = problem.y[rows]
    if case.estimator == "Hajek" and not case.offset:
        return np.array([np.average(y, weights=w)])
    link = {"logit": f.links.Logit, "probit": f.links.Probit, "cloglog": f.links.CLogLog, "log": f.links.Log,
            "identity": f.links.Identity}[usual_link(case)]()  # fmt: skip
    family = {
        "gaussian": lambda: f.Gaussian(link), "binomial": lambda: f.Binomial(link), "poisson": lambda: f.Poisson(link),
        "gamma": lambda: f.Gamma(link), "negativebinomial": lambda: f.NegativeBinomial(link, ALPHA),
    }[case.family]()  # fmt: skip
    start = None
    if case.family == "gaussian" and usual_link(case) == "log":
        t = np.exp(problem.offset[rows])
        start = np.r_[np.log((w @ y) / (w @ t)), np.zeros(X.shape[1] - 1)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(
            sm.GLM(y, X[rows], family=family, freq_weights=w, offset=problem.offset[rows])
            .fit(start_params=start)
            .params
        )


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
        grouped = case.factor and case.target != "frame" and not self.refitted
        self.masks = [np.ones(len(problem.y))]
        self.masks += [(problem.g == level).astype(float) for level in "abc"] if grouped else []
        sizes = [q * (K - 1) * self.scored, q * self.joined, K * p, K * len(self.masks)]
        sizes.append(K * len(self.masks) * (case.estimator == "AIPW"))
        self.parts = [slice(int(b - a), int(b)) for a, b in zip(sizes, np.cumsum(sizes), strict=True)]

    @property
    def refitted(self) -> bool:
        """Whether the constants of a group are not those of its weighted means."""
        return self.problem.case.estimator == "Hajek" and bool(self.problem.case.offset)

    def weights(self, gamma: Vector, mu: Vector) -> tuple[Vector, Vector, Vector]:
        """Importance weight of each row in its own arm, tilt and measure, shape (n,)."""
        problem, case = self.problem, self.problem.case
        d, own, ones = problem.d, problem.observed, np.ones(len(problem.y))
        e = probabilities(problem, gamma) if self.scored else None
        if e is not None and case.clip is not None:
            low, high = case.clip
            e1 = np.where(e[1].real < low, low, np.where(e[1].real > high, high, e[1]))
            e = np.stack([1 - e1, e1])
        mine = ones if e is None else e[d, np.arange(len(d))]
        if case.target == "frame":
            ratio = own * np.exp(problem.Z @ mu) if self.joined else ones
            return ratio / mine, 1 - own, ratio
        if case.target in ("treated", "control"):
            toward = int(case.target == "treated")
            tilt = (d == toward).astype(float)
            return (ones if e is None else e[toward] / mine), tilt, tilt
        if case.target == "all" or e is None:
            return ones / mine, ones, ones
        tilt = {
            "overlap": lambda: 1 / (1 / e).sum(axis=0),
            "matching": lambda: e[e.real.argmin(axis=0), np.arange(len(d))],
            "entropy": lambda: -(e * np.log(e)).sum(axis=0),
            "tilt": lambda: e[1] ** 2 * (1 - e[1]),
        }[case.target]()
        return tilt / mine, tilt, tilt

    def rows(self, theta: Vector) -> Vector:
        """Contribution of each row to each equation, shape (n, d)."""
        problem, case, K = self.problem, self.problem.case, self.problem.n_arms
        gamma, mu, beta, tau, rho = (theta[part] for part in self.parts)
        own, X = problem.observed, self.X
        blocks = []
        if self.scored:
            blocks.append(propensity_scores(problem, gamma))
        if self.joined:
            member = 1 / (1 + np.exp(-problem.Z @ mu))
            blocks.append((1 - own - member)[:, None] * problem.Z)
        w, tilt, measure = self.weights(gamma, mu)
        training = w if case.estimator in ("IPWRA", "Hajek") else np.ones(len(own))
        fits = [outcome_mean(problem, X @ b + problem.offset) for b in beta.reshape(K, -1)]
        at = [outcome_mean(problem, X @ b + problem.mean_offset)[0] for b in beta.reshape(K, -1)]
        inside = [own * (problem.d == a) for a in range(K)]
        for a, (m, slope) in enumerate(fits):
            blocks.append((inside[a] * training * (problem.y - m) * slope)[:, None] * X)
        for j, mask in enumerate(self.masks):
            for a, m in enumerate(at):
                t = tau.reshape(len(self.masks), K)[j, a]
                if case.estimator == "Hajek" and not self.refitted:  # weighted means of a group are those of its rows
                    blocks.append((mask * inside[a] * w * (problem.y - t))[:, None])
                else:
                    blocks.append((mask * tilt * (m - t))[:, None])
        if case.estimator == "AIPW":
            for j, mask in enumerate(self.masks):
                for a, (m, _) in enumerate(fits):
                    r = rho.reshape(len(self.masks), K)[j, a]
                    blocks.append((mask * (inside[a] * w * (problem.y - m) - own_measure(measure, own) * r))[:, None])
        return np.hstack(blocks)

    def solve(self, s: Vector) -> Vector:
        """Solve block by block under row weights."""
        problem, K = self.problem, self.problem.n_arms
        theta = np.zeros(self.parts[-1].stop)

        def settle(part: slice, start: Vector) -> None:
            if part.stop == part.start:
                return

            def total(values: Vector) -> Vector:
                moved = theta.astype(values.dtype)
                moved[part] = values
                return (s @ self.rows(moved)[:, part]) / s.sum()

            theta[part] = newton(total, start)

        for part in self.parts[:2]:
            settle(part, np.zeros(part.stop - part.start))
        w, _, _ = self.weights(theta[self.parts[0]], theta[self.parts[1]])
        training = s * (w.real if problem.case.estimator in ("IPWRA", "Hajek") else 1) * problem.observed
        p = self.X.shape[1]
        first = self.parts[2].start
        for a in range(K):
            rows = (problem.d == a) & (training > 0)
            start = start_of_outcome(problem, self.X, rows, training[rows])
            settle(slice(first + a * p, first + (a + 1) * p), start)
        for part in self.parts[3:]:
            settle(part, np.zeros(part.stop - part.start))
        return theta

    def means(self, theta: Vector) -> Vector:
        """Arm means over everybody and in each group, shape (J, K)."""
        shape = len(self.masks), self.problem.n_arms
        found = theta[self.parts[3]].reshape(shape)
        rho = theta[self.parts[4]]
        return found + rho.reshape(shape) if rho.size else found

    def reported(self, theta: Vector) -> Vector:
        """Effects and means over everybody, then the effects in the groups."""
        means = self.means(theta)
        return np.concatenate([self.effects(means[0]), means[0], *(self.effects(m) for m in means[1:])])

    def effects(self, m: Vector) -> Vector:
        first, others = m[0], m[1:]
        return {
            "difference": lambda: others - first,
            "ratio": lambda: others / first,
            "percent": lambda: 100 * (others / first - 1),
            "odds_ratio": lambda: (others / (1 - others)) / (first / (1 - first)),
        }[self.problem.case.effect]()


def own_measure(measure: Vector, own: Vector) -> Vector:
    """What a correction is divided by: a population elsewhere has no rows of its own there."""
    return measure * own


def answer(case: Case, data: Data) -> Answer:
    """Return the effects of a case with their covariance."""
    problem = problem_of(case, data)
    stack = Stack(problem)
    theta, s = stack.solve(problem.s), problem.s
    bread = jacobian(lambda t: s @ stack.rows(t), theta)
    cov = meat_and_bread(problem, stack, theta, bread)
    slope = jacobian(stack.reported, theta)
    values, spread = stack.reported(theta), slope @ cov @ slope.T
    count = 2 * case.arms - 1
    n = (s * problem.observed).sum() if case.weight_type == "frequency" else len(s)
    factor = small_sample(case, problem, stack, n)
    beta = theta[stack.parts[2]].reshape(case.arms, -1)
    predicted = np.column_stack([outcome_mean(problem, stack.X[:5] @ b + problem.mean_offset[:5])[0] for b in beta])
    own = problem.observed > 0
    return Answer(
        values[:count], factor * spread[:count, :count], predicted, values[count:],
        np.sqrt(np.diag(spread)[count:]),
        max(np.linalg.cond(M[own & (problem.d == a)]) for M in (problem.X, problem.Z) for a in range(case.arms)),
    )  # fmt: skip


def meat_and_bread(problem: Problem, stack: Stack, theta: Vector, bread: Vector) -> Vector:
    rows, s, case = stack.rows(theta), problem.s, problem.case
    if case.clusters:
        sums = pd.DataFrame(s[:, None] * rows).groupby(problem.cluster).sum().to_numpy()
        meat = sums.T @ sums
    else:
        power = 1 if case.weight_type == "frequency" else 2
        meat = (rows * (s**power)[:, None]).T @ rows
    half = np.linalg.solve(bread, meat)
    return np.linalg.solve(bread, half.T)


def small_sample(case: Case, problem: Problem, stack: Stack, n: float) -> float:
    if not case.small_sample:
        return 1.0
    k = case.arms * stack.X.shape[1]
    if not case.clusters:
        return n / (n - k)
    groups = len(np.unique(problem.cluster))
    return groups / (groups - 1) * (n - 1) / (n - k)


def resampled(case: Case, data: Data, counts: Vector) -> Vector:
    """Effects and means under other weights of the rows, in the order of the sample of the package's design."""
    problem = problem_of(case, data)
    stack = Stack(problem)
    return stack.reported(stack.solve(counts))[: 2 * case.arms - 1]
