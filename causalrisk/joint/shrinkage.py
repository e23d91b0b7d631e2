"""How far JRE is shrunk toward IPWRA: alpha, the weight of IPWRA's loss, by ten-fold cross-validation.

The variance of the effect's influence function is measured in each fold at the fit to the others. The least of a few
estimates may be another's in another sample; so alpha is the geometric mean of those of `LADDER` whose variance, and
`CAUTION` standard errors of its difference to the first, is least when the variances are drawn from the normal
distribution of their errors. These variances take the coefficients as known. If the score is wrong their errors count
too: where the robust variance, which has them, is above IPWRA's by more than `EXCESS`, alpha is raised.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalrisk.errors import Failure
from causalrisk.estimation.fits import group_sums
from causalrisk.estimation.sample import chunked
from causalrisk.joint.minimum import Minimum, Objective, newton
from causalrisk.joint.objective import Rows
from causalrisk.joint.rows import Replicates
from causalrisk.joint.start import JointProblem, refitted
from causalrisk.numerics.arrays import Array, chunk_sizes, is_dask, loaded, symmetric_root

LADDER = (30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03)  # to choose from, most cautious first
BEYOND = (3000.0, 300.0)  # to raise it to
FOLDS = 10
CAUTION = 0.5  # standard errors by which a variance has to be less than the first
DRAWS = 1000  # pairs of opposite draws of the errors of the variances
DIGITS = 3  # significant digits of alpha, so that it can be typed
EXCESS = 2.0  # over the root of the number of units: how far above IPWRA's the variance may be, relative to it


@dataclass(frozen=True)
class Path:
    """What each alpha of the ladder would have given, the most cautious first, and what was chosen.

    Parameters
    ----------
    table : DataFrame
        One row per alpha: (first) effect; its standard error by cross-validation, and the robust one, NaN where this
        was not needed (for several effects those of the contrasts of the objective); the square of the first over that
        of the first alpha, and the standard error of this ratio; share of the draws in which the variance is the least;
        whether the fits converged.
    held_out, anchor : float
        alpha by cross-validation, and that of the fit, which may be raised.
    choice_variance : float
        Factor of the variance of the estimates that allows for the choice.
    """

    table: pd.DataFrame
    held_out: float
    anchor: float
    choice_variance: float

    @property
    def raised_from(self) -> float | None:
        """Alpha by cross-validation, where that of the fit is another."""
        return None if self.held_out == self.anchor else self.held_out


def held_out(rows: Rows, tilt: Array, w: Array, folds: Array, thetas: Array, C: Array) -> tuple[Array, Array, Any]:
    """Return the influence functions of rows in their folds.

    Parameters
    ----------
    tilt, w : ndarray, shape (n,)
        Tilt and importance weight at the fitted score.
    folds : ndarray, shape (n, G)
        Weight of each row in each fold.
    thetas : ndarray, shape (A, K, P, G)
        Coefficients of the fits without each fold.

    Returns
    -------
    psi : ndarray, shape (m, A, C)
        At the fits without their fold, for the contrasts C.
    weight : ndarray, shape (m,)
        Weight of the row in its fold.
    row : ndarray of int, shape (m,)
        Which row it is: equal rows that a weight counts are in several folds.
    """
    row, fold = np.nonzero(folds)
    every, arm, own_w = np.arange(len(row)), rows.arm[row], w[row, None]
    eta = np.empty((len(row), *thetas.shape[:2]))
    for g, theta in enumerate(thetas.reshape(-1, *thetas.shape[2:]).T):
        eta[fold == g] = (rows.X[folds[:, g] != 0] @ theta).reshape(-1, *thetas.shape[:2])
    mean = rows.family.mean(eta if rows.offset is None else eta + rows.offset[row, None])
    terms = (np.ravel(rows.averaged) * tilt)[row, None, None] * mean
    terms[every, :, arm] += own_w * (rows.y[row, None] - mean[every, :, arm])
    return terms @ C.T, folds[row, fold], row


Variances = tuple[Array, Array, Array, float]


def compare(frequency: bool, psi: Array, known: Array, weight: Array, cluster: NDArray[np.intp] | None) -> Variances:
    """Sum squared held-out influence functions over rows or clusters, after projection on `known`, (m, Q).

    Returns
    -------
    squares, covariance, errors : ndarray, shape (A,), (A, A) and (A,)
        The sums of each alpha, the covariance of their differences to the first, and their standard errors.
    unit : float
        What influence functions are divided by: squares of squares of large outcomes would not be finite.
    """
    use, count = np.isfinite(psi).all(axis=(1, 2)), psi.shape[1]
    if not use.any():  # no fold could be fitted
        return np.full(count, np.nan), np.full((count, count), np.nan), np.full(count, np.nan), 1.0
    unit = float(np.abs(psi[use]).max()) or 1.0
    psi, known, weight = psi[use] / unit, known[use], weight[use]
    root, flat = np.sqrt(weight)[:, None], psi.reshape(len(psi), -1)
    scale = np.maximum(np.abs(known).max(axis=0, initial=0.0), np.finfo(float).tiny)
    rest = flat - (known / scale) @ np.linalg.lstsq(root * known / scale, root * flat, rcond=None)[0]
    times = weight if frequency else np.ones(len(psi))
    own = rest if frequency else weight[:, None] * rest
    if cluster is not None:
        own = group_sums(weight[:, None] * rest, np.unique(cluster[use], return_inverse=True)[1])
        times = np.ones(len(own))
    squares = (own.reshape(len(own), *psi.shape[1:]) ** 2).sum(axis=2)
    differences, n = squares - squares[:, :1], times.sum()
    total, moved = times @ squares, times @ differences
    covariance = (times[:, None] * differences).T @ differences - np.outer(moved, moved) / n
    return total, covariance, np.sqrt(np.maximum(times @ squares**2 - total**2 / n, 0.0)), unit


def choose(variances: Variances, converged: NDArray[np.bool_], effects: Array, total: float) -> Path:
    """Choose alpha from `LADDER` by cross-validation.

    Parameters
    ----------
    variances : tuple
        Those of each, by `compare`.
    converged : ndarray of bool, shape (r,)
        Whether the fits converged.
    effects : ndarray, shape (r,)
        Effects of the fits to all rows.
    total : float
        Weight of all rows, over which squares are summed.
    """
    squares, covariance, own, unit = variances
    shares = shares_of_winners(squares, covariance, converged)
    anchor = rounded(float(np.exp(shares @ np.log(LADDER))))
    first, errors, factor = squares[0] or np.nan, np.sqrt(np.maximum(np.diag(covariance), 0.0)), 1.0
    if anchor < LADDER[0] and np.isfinite(squares).all():
        at, ladder = -np.log(anchor), -np.log(LADDER)
        square = np.interp(at, ladder, squares)
        factor += min(np.interp(at, ladder, errors), np.interp(at, ladder, own)) / square if square > 0 else 0.0
    table = {
        "effect": effects,
        "std err": np.sqrt(squares) * (unit / total),
        "robust se": np.nan,
        "variance ratio": squares / first,
        "ratio se": errors / first,
        "share": shares,
        "converged": converged,
    }
    return Path(pd.DataFrame(table, index=pd.Index(LADDER, name="anchor")), anchor, anchor, float(factor))


def raised(path: Path, variance: Callable[[float], float], start: float, problem: JointProblem) -> Path:
    """Raise alpha until the robust variance of the effect is not above IPWRA's, `start`, by more than `EXCESS`.

    Between two values of the ladder the excess is taken as linear in log alpha.
    """
    units = problem.n_units if problem.cluster is None else int(loaded(problem.cluster.max())) + 1
    limit, here, known = (1 + EXCESS / np.sqrt(units)) * start, path.anchor, dict[float, float]()
    known[here] = at = variance(here)
    for rung in sorted(one for one in (*BEYOND, *LADDER) if one > path.anchor):
        if not at > limit:
            break
        known[rung] = beyond = variance(rung)
        if beyond <= limit:
            share = (at - limit) / (at - beyond)
            here = rounded(float(np.exp((1 - share) * np.log(here) + share * np.log(rung))))
            break
        here, at = rung, beyond
    table = path.table.assign(**{"robust se": np.sqrt([known.get(one, np.nan) for one in LADDER])})
    return Path(table, path.held_out, here, path.choice_variance if here < LADDER[0] else 1.0)


def rounded(anchor: float) -> float:
    """Return an alpha that can be typed."""
    return float(f"{anchor:.{DIGITS}g}")


def shares_of_winners(squares: Array, covariance: Array, converged: NDArray[np.bool_]) -> Array:
    """Share of draws in which the variance of each alpha is the least; zero of one that did not converge."""
    usable = np.flatnonzero(converged & np.isfinite(squares))
    if not usable.size:
        return np.eye(len(squares))[0]
    turned = np.eye(len(squares))[usable]
    turned[:, usable[0]] -= 1.0  # differences to the first usable one
    covariance, means = turned @ covariance @ turned.T, squares[usable] - squares[usable[0]]
    errors = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    drawn = np.random.default_rng(0).standard_normal((len(means), DRAWS))
    moved = symmetric_root(covariance) @ np.hstack([drawn, -drawn])
    winners = usable[((means + CAUTION * errors)[:, None] + moved).argmin(axis=0)]
    return np.bincount(winners, minlength=len(squares)) / len(winners)


def fold_weights(problem: JointProblem) -> Array:
    """Weight of each row in each fold, shape (n, G); equal rows that a weight counts are dealt out."""
    s, folds = problem.equations.sample.s, problem.folds
    count = int(folds.max()) + 1
    if is_dask(s):
        folds = chunked(folds, chunk_sizes(s))
    if not problem.frequency or problem.cluster is not None:
        return (folds[:, None] == np.arange(count)) * s[:, None]
    later = (np.arange(count) - folds[:, None]) % count
    return s[:, None] // count + (later < (s % count)[:, None])


def path_of(objective: Objective) -> list[Minimum]:
    """Minima under each alpha of the ladder, the most cautious first, each from the one before."""
    found, theta, nu = list[Minimum](), objective.models, np.zeros(objective.first.u[0].shape)
    for alpha in LADDER:
        found.append(newton(objective, theta, alpha, nu))
        settled = found[-1].converged
        theta = np.where(settled, found[-1].theta, theta)
        nu = np.where(settled[:, None], found[-1].multipliers, nu)
    return found


def choose_shrinkage(problem: JointProblem, objective: Objective, points: Replicates) -> tuple[Path, NDArray[np.int8]]:
    """Choose alpha by cross-validation, with the objective of the sample; also returns why folds failed."""
    sample, folds, own = problem.equations.sample, fold_weights(problem), objective.rows
    without, refits = refitted(problem, objective, points, sample.s[:, None] - folds)
    paths, of_all = [path_of(part) for part in without.parts()], path_of(objective)
    converged = np.concatenate([[m.converged for m in path] for path in paths], axis=-1)
    theta = np.concatenate([[m.theta for m in path] for path in paths], axis=-1)
    used = (refits.failures == Failure.OK) & converged.all(axis=0)
    thetas = np.stack([without.rows.lifted(each) for each in theta])
    thetas[..., ~used] = np.nan
    found = list[tuple[Any, ...]]()
    for part, here, place, score, fold, cluster in own.pieces(1, problem.score_influence, folds, problem.cluster):
        inside = part.equations.sample.in_sample[here, None]
        known = np.hstack([score, inside, *([1 - inside] if problem.equations.target.frame else [])])
        tilt, w = problem.weights.tilt[place], problem.weights.w[place]
        psi, weight, row = held_out(part.rows(here), tilt, w, fold, thetas, problem.contrasts)
        found.append((psi, known[row], weight, None if cluster is None else cluster[row]))
    every: Any = [None if each[0] is None else np.concatenate(each) for each in zip(*found, strict=True)]
    path = choose(
        variances=compare(problem.frequency and problem.cluster is None, *every),
        converged=np.array([bool(m.converged.all()) for m in of_all]),
        effects=np.array([problem.scale.effects(m.at.average[0][0])[0] for m in of_all]),
        total=sample.total,
    )
    return path, refits.failures
