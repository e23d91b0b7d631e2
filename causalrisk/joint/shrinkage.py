"""The shrinkage of JRE toward IPWRA: alpha, the weight of IPWRA's loss, chosen by ten-fold cross-validation.

For each alpha of `LADDER`, the variance of the effect's influence function is estimated in each fold at the fit to the
other folds. Another sample might favour another alpha. The variances are therefore drawn many times from the normal
distribution of their errors. In each draw, the winner minimises the variance plus `CAUTION` standard errors of its
difference from the variance at the first alpha. The chosen alpha is the geometric mean of the winners.

These variances treat the coefficients as known. The robust variance includes the errors of the coefficients, which
matter if the score is wrong. If it is more than 1 + `EXCESS` / sqrt(units) times IPWRA's, alpha is raised.
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
from causalrisk.numerics.arrays import Array, Numbers, chunk_sizes, is_dask, loaded, symmetric_root

LADDER = (30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03)  # values of alpha to choose from, the largest first
BEYOND = (3000.0, 300.0)  # larger values, used only if alpha is raised
FOLDS = 10
CAUTION = 0.5  # standard errors by which a variance must be below the variance at the first alpha
DRAWS = 1000  # antithetic pairs of draws of the variances' errors
DIGITS = 3  # significant digits of alpha, few enough to type
EXCESS = 2.0  # allowed relative excess over IPWRA's variance, times the root of the number of units


@dataclass(frozen=True)
class Path:
    """Results for each alpha of `LADDER`, the largest first, and the alpha that was chosen.

    Parameters
    ----------
    table : DataFrame
        One row per alpha. The columns are the (first) effect, its standard error by cross-validation, its robust
        standard error (NaN if not needed), the ratio of the cross-validated variance to the variance at the first
        alpha, the standard error of this ratio, the share of draws that the alpha wins, and whether the fits converged.
        With several effects, standard errors are of the objective's contrasts.
    anchor : float
        The alpha of the fit.
    choice_variance : float
        Factor by which variances of estimates are multiplied to allow for the choice of alpha.
    raised_from : float or None
        The alpha chosen by cross-validation, if the alpha of the fit is larger.
    """

    table: pd.DataFrame
    anchor: float
    choice_variance: float
    raised_from: float | None = None


def held_out(rows: Rows, tilt: Array, w: Array, folds: Array, thetas: Array, C: Array) -> tuple[Array, Array, Any]:
    """Return each row's influence function at the fit to the other folds, its weight in its fold, and its position."""
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
    """Regress influence functions `psi` on `known` (m, Q), and add up squared residuals over rows or clusters.

    Returns the sum at each alpha, the covariance of the differences from the first sum, the sums' standard errors, and
    the divisor of the influence functions, which keeps fourth powers of large outcomes finite.
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
    """Choose alpha from `LADDER` by cross-validation. `total` is the sum of the weights of all rows."""
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
    return Path(pd.DataFrame(table, index=pd.Index(LADDER, name="anchor")), anchor, float(factor))


def raised(path: Path, variance: Callable[[float], float], start: float, problem: JointProblem) -> Path:
    """Raise alpha until the robust variance is at most 1 + `EXCESS` / sqrt(units) times IPWRA's variance `start`."""
    sample = problem.equations.sample
    units = sample.total if sample.cluster is None else int(loaded(sample.cluster.max())) + 1
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
    raised_from = None if here == path.anchor else path.anchor
    return Path(table, here, path.choice_variance if here < LADDER[0] else 1.0, raised_from)


def rounded(anchor: float) -> float:
    """Round alpha to `DIGITS` significant digits."""
    return float(f"{anchor:.{DIGITS}g}")


def shares_of_winners(squares: Array, covariance: Array, converged: NDArray[np.bool_]) -> Array:
    """Return the share of draws in which each alpha wins. It is zero for an alpha whose fit did not converge."""
    usable = np.flatnonzero(converged & np.isfinite(squares))
    if not usable.size:
        return np.eye(len(squares))[0]
    turned = np.eye(len(squares))[usable]
    turned[:, usable[0]] -= 1.0  # differences from the first usable alpha
    covariance, means = turned @ covariance @ turned.T, squares[usable] - squares[usable[0]]
    errors = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    drawn = np.random.default_rng(0).standard_normal((len(means), DRAWS))
    moved = symmetric_root(covariance) @ np.hstack([drawn, -drawn])
    winners = usable[((means + CAUTION * errors)[:, None] + moved).argmin(axis=0)]
    return np.bincount(winners, minlength=len(squares)) / len(winners)


def fold_weights(problem: JointProblem, folds: Numbers) -> Array:
    """Return the weights (n, G) of the rows in each fold. Frequency weights without clusters are split over folds."""
    s, count = problem.equations.sample.s, int(folds.max()) + 1
    if is_dask(s):
        folds = chunked(folds, chunk_sizes(s))
    if not problem.frequency or problem.equations.sample.cluster is not None:
        return (folds[:, None] == np.arange(count)) * s[:, None]
    later = (np.arange(count) - folds[:, None]) % count
    return s[:, None] // count + (later < (s % count)[:, None])


def path_of(objective: Objective) -> list[Minimum]:
    """Minimise the objective at each alpha of `LADDER`, the largest first. Each search starts from the last minimum."""
    found, theta, nu = list[Minimum](), objective.models, np.zeros(objective.first.u[0].shape)
    for alpha in LADDER:
        found.append(newton(objective, theta, alpha, nu))
        settled = found[-1].converged
        theta = np.where(settled, found[-1].theta, theta)
        nu = np.where(settled[:, None], found[-1].multipliers, nu)
    return found


def choose_shrinkage(
    problem: JointProblem, objective: Objective, points: Replicates, folds: Numbers
) -> tuple[Path, NDArray[np.int8]]:
    """Choose alpha by cross-validation. Return the results for each alpha, and the `Failure` of each fold."""
    sample, weights, own = problem.equations.sample, fold_weights(problem, folds), objective.rows
    without, refits = refitted(problem, objective, points, sample.s[:, None] - weights)
    of_folds, of_all = path_of(without), path_of(objective)
    used = (refits.failures == Failure.OK) & np.all([m.converged for m in of_folds], axis=0)
    thetas = np.stack([without.rows.lifted(m.theta) for m in of_folds])
    thetas[..., ~used] = np.nan
    found = list[tuple[Any, ...]]()
    for part, here, place, score, fold, cluster in own.pieces(1, problem.score_influence, weights, sample.cluster):
        inside = part.equations.sample.in_sample[here, None]
        known = np.hstack([score, inside, *([1 - inside] if problem.equations.target.frame else [])])
        tilt, w = problem.weights.tilt[place], problem.weights.w[place]
        psi, weight, row = held_out(part.rows(here), tilt, w, fold, thetas, problem.contrasts)
        found.append((psi, known[row], weight, None if cluster is None else cluster[row]))
    every: Any = [None if each[0] is None else np.concatenate(each) for each in zip(*found, strict=True)]
    path = choose(
        variances=compare(problem.frequency and sample.cluster is None, *every),
        converged=np.array([bool(m.converged.all()) for m in of_all]),
        effects=np.array([problem.scale.effects(m.average[0])[0] for m in of_all]),
        total=sample.total,
    )
    return path, refits.failures
