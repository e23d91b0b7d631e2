"""What a fit says beside its effects, worked out by hand: coefficients by name, estimating equations, groups, tables.

The scores and weights are those of the stacked equations of `reference`. Rows that a frequency weight counts are
written out one by one, so that nothing has to be said of counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd

from tests.differential import reference
from tests.differential.cases import Case, Data
from tests.differential.fits import ERROR, apart, coded, label, labelled, silently
from tests.differential.reference import Stack, Vector, meat
from tests.differential.storage import contained

ROUNDED = 10  # decimals of scores that count as equal
DEPENDENT = 1e-12  # of a variance, that is rounding
EQUAL = 1e-10  # relative, up to which a score is within limits


@dataclass(frozen=True)
class Solved:
    """A solution of the stacked equations of a case, of the joint estimator those of its start.

    Parameters
    ----------
    case, data
        The case.
    stack : Stack
        The equations.
    theta : ndarray, shape (d,)
        Their solution.
    outcome : ndarray, shape (K, p)
        Coefficients of the outcome models, of the basis.
    cov : ndarray, shape (d, d), optional
        Covariance of the solution, with the factor for small samples; not of the joint estimator.
    """

    case: Case
    data: Data
    stack: Stack
    theta: Vector
    outcome: Vector
    cov: Vector | None = None

    @property
    def labels(self) -> list[str]:
        """Labels of the arms."""
        return [label(self.case, arm) for arm in range(self.case.arms)]

    @property
    def weighing(self) -> bool:
        """Whether the estimator weighs its rows."""
        return self.case.estimator != "OutcomeRegression"

    def terms(self, names: tuple[str, ...]) -> list[str]:
        """Names of the columns of a design."""
        factor = ["g[T.b]", "g[T.c]"] if self.case.factor else []
        return ["Intercept", *factor, *names, *(["I(x1 ** 2)"] if self.case.square else [])]


def differences(solved: Solved, res: Any) -> Iterator[str]:
    """Yield what disagrees of all that a fit says beside its effects."""
    case, problem = solved.case, solved.stack.problem
    own = problem.observed > 0
    n = problem.s[own].sum() if case.weight_type == "frequency" else own.sum()
    yield "" if res.nobs == n else f"nobs: {res.nobs}, expected {n:g}"
    yield from coefficients(solved, res)
    yield from equations(solved, res)
    if solved.stack.groups and case.by and solved.cov is not None:
        yield from groups(solved, res)
    if solved.weighing:
        gamma, mu = (solved.theta[part] for part in solved.stack.parts[:2])
        importance = solved.stack.weights(gamma, mu)[0][own]
        scores = reference.clipped(problem, reference.probabilities(problem, gamma))[:, own]
        yield apart("importance weights", res.importance_weights, importance, importance)
        if case.arms == 2:  # the score is that of the treated, who may have a calibrated model of their own
            scores = np.stack([1 - scores[1], scores[1]])
        rows = Rows.of(solved, scores, importance)
        yield labelled("overlap", res.overlap(), overlap(solved, rows))
        yield labelled("balance", res.balance(means=True), balance(solved, rows))


def coefficients(solved: Solved, res: Any) -> Iterator[str]:
    """Compare the coefficients of both models, each with its name, and their standard errors."""
    case, stack = solved.case, solved.stack
    to_outcome, to_score = stack.problem.to_columns
    if stack.X.shape[1] == 1:
        to_outcome = np.ones((1, 1))
    terms = ["Intercept"] if case.estimator == "Hajek" else solved.terms(solved.data.names)
    expected = pd.DataFrame((solved.outcome @ to_outcome.T).T, index=terms, columns=solved.labels)
    se = res.outcome_bse
    yield labelled("outcome coefficients", res.outcome_params, expected, se.to_numpy().max())
    own = np.kron(np.eye(case.arms), to_outcome)
    if solved.cov is not None:
        spread = np.diag(own @ solved.cov[stack.parts[2], stack.parts[2]] @ own.T)
        wanted = np.sqrt(spread).reshape(case.arms, -1).T
        yield apart("outcome standard errors", se, wanted, wanted, ERROR)
    names, part = score_names(solved), np.r_[stack.parts[0], stack.parts[1]]
    if not names:
        return
    several = np.kron(np.eye(len(part) // len(to_score)), to_score)
    se = res.propensity_bse
    values = pd.Series(several @ solved.theta[part], index=names)
    yield labelled("propensity coefficients", res.propensity_params, values, se.to_numpy())
    if solved.cov is not None:
        wanted = np.sqrt(np.diag(several @ solved.cov[np.ix_(part, part)] @ several.T))
        yield labelled("propensity standard errors", se, pd.Series(wanted, index=names), wanted, ERROR)


def score_names(solved: Solved) -> list[str]:
    """Names of the propensity coefficients: the arm whose odds they are of, where there are several."""
    case, stack = solved.case, solved.stack
    aim, arms = reference.toward(case), list(range(case.arms))
    if case.propensity == "known" or not stack.scored:
        modelled = []
    elif case.propensity == "calibrated":
        modelled = [arm for arm in arms if arm != aim]
    else:
        modelled = arms[1:]
    prefixes = [f"{solved.labels[arm]}: " for arm in modelled] + ["membership: "] * stack.joined
    if len(prefixes) == 1 and not stack.joined:
        prefixes = [""]
    elif len(modelled) == 1 and stack.joined:
        prefixes[0] = ""
    terms = solved.terms(reference.propensity_names(case, solved.data.names))
    return [f"{prefix}{term}" for prefix in prefixes for term in terms]


def equations(solved: Solved, res: Any) -> Iterator[str]:
    """Check that the estimating equations are solved, and that their squares are the covariance."""
    case, problem = solved.case, solved.stack.problem
    psi = res.estimating_equations()
    outcome, named = res.outcome_params, score_names(solved)
    names = [f"outcome[{label}]: {term}" for label in outcome.columns for term in outcome.index]
    names = [*res.params.index, *names, *(f"propensity: {name}" for name in named)]
    if list(psi.columns) != names:
        yield f"estimating equations, labels: {list(psi.columns)}, expected {names}"
        return
    total, values = problem.s @ problem.observed, psi.to_numpy()
    spread = np.sqrt(np.diag(meat(problem, values)))
    yield apart("estimating equations, sums", problem.s @ values, np.zeros(values.shape[1]), spread)
    n = problem.s.sum() if case.weight_type == "frequency" else len(problem.s)
    factor = reference.small_sample(case, problem, solved.stack, n)
    errors = [res.bse, res.outcome_bse.T.to_numpy().ravel(), res.propensity_bse if named else []]
    wanted = np.sqrt(factor) * spread / total
    yield apart("estimating equations, squares", np.concatenate(errors), wanted, wanted, ERROR)


def groups(solved: Solved, res: Any) -> Iterator[str]:
    """Compare effects in groups, their differences and the test that they are the same."""
    case, stack = solved.case, solved.stack
    keys = ["h", "k"][: case.by]
    by: Any = keys[0] if case.by == 1 else keys
    data = contained(case.container, coded(case, solved.data.frame, solved.data))
    table = silently(res.effects_by, by, data)
    problem = stack.problem
    counted = problem.s if case.weight_type == "frequency" else np.ones(len(problem.s))
    counts = [int(counted[problem.g == group].sum()) for group in stack.groups]
    yield apart("effects in groups, n", table["n"], np.tile(counts, case.arms - 1), 0.0)
    values = stack.group_contrasts(solved.theta)
    slope = reference.jacobian(stack.group_contrasts, solved.theta, stack.averages)
    factor = reference.small_sample(
        case, problem, stack, counted.sum() if case.weight_type == "frequency" else len(problem.s)
    )
    cov = slope @ solved.cov @ slope.T / factor  # that of groups has none
    se = np.sqrt(np.diag(cov))
    at = reference.reported(case, values)
    yield apart("effects in groups", table["estimate"], at, table["std err"])
    yield apart("effects in groups, z", table["z"], values / se, 1 + np.abs(values / se), ERROR)
    size = len(stack.groups)
    pairs = [(e * size + a, e * size + b) for e in range(case.arms - 1) for a, b in permutations(range(size), 2)]
    against = silently(res.differences_by, by, data)
    gaps = np.array([values[a] - values[b] for a, b in pairs])
    yield apart("differences of groups", against["estimate"], reference.reported(case, gaps), against["std err"])
    z = gaps / np.sqrt([cov[a, a] - cov[a, b] - cov[b, a] + cov[b, b] for a, b in pairs])
    yield apart("differences of groups, z", against["z"], z, 1 + np.abs(z), ERROR)
    first = np.kron(np.eye(case.arms - 1), np.eye(size)[1:] - np.eye(size)[0])
    statistic, df = wald(first @ values, first @ cov @ first.T, np.abs(first) @ se)
    found = silently(res.equality_test, by, data)
    yield apart("test of groups", found.statistic.item(), statistic, 1 + statistic, ERROR)
    yield "" if found.df_denom == df else f"test of groups, df: {found.df_denom}, expected {df}"


def wald(gaps: Vector, cov: Vector, units: Vector) -> tuple[float, int]:
    """Test that gaps are zero, and its degrees of freedom: the rank of their covariance, in some units."""
    if not np.isfinite(cov).all():
        return np.nan, len(gaps)
    scaled = cov / np.outer(units, units)
    inverse = np.linalg.pinv(scaled, rcond=DEPENDENT, hermitian=True)
    return (gaps / units) @ inverse @ (gaps / units), np.linalg.matrix_rank(scaled, tol=DEPENDENT, hermitian=True)


@dataclass(frozen=True)
class Rows:
    """Rows of the sample, each as often as it counts.

    Parameters
    ----------
    arm, importance : ndarray, shape (n,)
        Arm and importance weight.
    weights : ndarray, shape (n,)
        Observation weights; ones of rows that are written out.
    scores : ndarray, shape (K, n)
        Probability of each arm.
    covariates : ndarray, shape (n, q)
        The covariates.
    """

    arm: Vector
    importance: Vector
    weights: Vector
    scores: Vector
    covariates: Vector

    @classmethod
    def of(cls, solved: Solved, scores: Vector, importance: Vector) -> Rows:
        """Write out the rows of the sample."""
        problem, case = solved.stack.problem, solved.case
        n = len(importance)
        s = problem.s[:n]
        rows = np.repeat(np.arange(n), s.astype(int)) if case.weight_type == "frequency" else np.arange(n)
        weights = s if case.weight_type == "probability" else np.ones(len(rows))
        return cls(problem.d[rows], importance[rows], weights, scores[:, rows], problem.covariates[rows])


def overlap(solved: Solved, rows: Rows) -> pd.DataFrame:
    """The table of overlap."""
    count, two = solved.case.arms, solved.case.arms == 2
    compared = rows.scores[1:] if two else rows.scores
    inside = np.ones(len(rows.arm), dtype=bool)
    for score in compared:
        ends = np.array([[score[rows.arm == a].min(), score[rows.arm == a].max()] for a in range(count)])
        inside &= (score >= ends[:, 0].max() * (1 - EQUAL)) & (score <= ends[:, 1].min() * (1 + EQUAL))
    with np.errstate(divide="ignore"):
        cost = (1 / rows.scores).sum(axis=0)
    cut = reference.largest_cost(cost, rows.weights)
    alpha = 0.5 - np.sqrt(max(0.25 - 1 / cut, 0))
    crump = (rows.scores[1] >= alpha) & (rows.scores[1] <= 1 - alpha) if two else cost <= cut
    found = []
    for a in range(count):
        own = rows.arm == a
        weights = np.sort(rows.importance[own] * rows.weights[own])[::-1]
        score, surveyed = rows.scores[1 if two else a, own], kish(rows.weights[own])
        shares = [0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1]
        found.append({
            "n": own.sum(),
            **({"survey n": surveyed} if solved.case.weight_type == "probability" else {}),
            "effective n": kish(weights),
            "largest weight": weights[0],
            "largest share": weights[0] / weights.sum(),
            "top 1% share": weights[: max(1, int(np.ceil(0.01 * len(weights))))].sum() / weights.sum(),
            **{f"score {share:.0%}": np.quantile(score, share) for share in shares},
            "outside support": (~inside & own).sum(),
            **({"crump low": alpha, "crump high": 1 - alpha} if two else {"crump cut": cut}),
            "outside crump": (~crump & own).sum(),
        })  # fmt: skip
    return pd.DataFrame(found, index=pd.Index(solved.labels, name="arm"))


def kish(weights: Vector) -> float:
    """How many equal weights would say as much."""
    return weights.sum() ** 2 / (weights**2).sum()


def balance(solved: Solved, rows: Rows) -> pd.DataFrame:
    """The table of balance, with means."""
    case, names = solved.case, covariate_names(solved)
    kept = {name: rows.covariates[:, j] for name, j in names.items() if np.ptp(rows.covariates[:, j]) > 0}
    whole = {}
    for arm in range(1, case.arms):
        columns = {"propensity score": rows.scores[arm]} | kept
        table = {name: balance_of(solved, rows, name, x, arm) for name, x in columns.items()}
        whole[f"{solved.labels[arm]} vs {solved.labels[0]}"] = pd.DataFrame(table).T.infer_objects()
    return next(iter(whole.values())) if len(whole) == 1 else pd.concat(whole)


def covariate_names(solved: Solved) -> dict[str, int]:
    """Names of the covariates as a reader knows them, those of the propensity model first, and which column each is."""
    case, names = solved.case, solved.data.names
    every = [*(["g: a", "g: b", "g: c"] if case.factor else []), *names, *(["x1^2"] if case.square else [])]
    first = reference.propensity_names(case, names)
    order = sorted(every, key=lambda name: name in names and name not in first)
    return {name: every.index(name) for name in order}


def balance_of(solved: Solved, rows: Rows, name: str, x: Vector, arm: int) -> dict[str, Any]:
    """The row of a covariate."""
    case, scored = solved.case, name == "propensity score"
    binary = not scored and len(np.unique(x)) == 2
    x = (x == x.max()).astype(float) if binary else x
    weights = {"before": rows.weights, "after": rows.weights * rows.importance}
    members = [rows.arm == a for a in range(case.arms)]
    aim = reference.toward(case)
    if case.target in ("all", "frame"):
        spread = np.sqrt(np.mean([variance(x[own], weights["before"][own], binary) for own in members]))
    elif aim is not None:
        spread = np.sqrt(variance(x[members[aim]], weights["before"][members[aim]], binary))
    else:
        spread = np.sqrt(variance(x, weights["after"], binary))
    found: dict[str, Any] = {}
    for when, w in weights.items():
        means = [w[own] @ x[own] / w[own].sum() for own in members]
        variances = [variance(x[own], w[own], binary) for own in members]
        for name_of_arm, mean, value in zip(solved.labels, means, variances, strict=True):
            found[f"mean {name_of_arm} {when}"] = mean
            found[f"sd {name_of_arm} {when}"] = np.nan if binary else np.sqrt(value)
        found[f"diff {when}"] = (means[arm] - means[0]) / (1.0 if binary else spread)
        found[f"var ratio {when}"] = np.nan if binary else variances[arm] / variances[0]
        found[f"KS {when}"] = largest_distance(np.round(x, ROUNDED) if scored else x, w, members[arm], members[0])
    found["kind"] = "distance" if scored else "binary" if binary else "continuous"
    found["unit"] = "raw" if binary else "std"
    return {column: found[column] for column in balance_columns(solved)}


def balance_columns(solved: Solved) -> list[str]:
    """Columns of the table of balance, in their order."""
    when = ("before", "after")
    means = [f"{what} {label} {k}" for k in when for label in solved.labels for what in ("mean", "sd")]
    return [*means, *(f"{what} {k}" for what in ("diff", "var ratio", "KS") for k in when), "kind", "unit"]


def variance(x: Vector, w: Vector, binary: bool) -> float:
    """Weighted variance as R's cobalt has it; that of a proportion."""
    mean = w @ x / w.sum()
    if binary:
        return mean * (1 - mean)
    return w @ (x - mean) ** 2 * w.sum() / (w.sum() ** 2 - w @ w)


def largest_distance(x: Vector, w: Vector, one: Vector, other: Vector) -> float:
    """Kolmogorov and Smirnov's distance."""
    upto = x[None, :] <= np.unique(x)[:, None]
    first, second = ((upto[:, own] @ w[own]) / w[own].sum() for own in (one, other))
    return np.abs(first - second).max()
