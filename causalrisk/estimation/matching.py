"""Nearest-neighbour matching with replacement, and its standard errors (Abadie and Imbens 2006, 2011, 2016).

Y_i(a) is the outcome of unit i if a is its own arm. Otherwise it is the mean over its matches in arm a. K_i is the sum
of 1 / (number of matches) over the target units that are matched with unit i, and K2_i is the sum of the squares. The
mean of an arm is the average of Y_i(a) over the N units of the target that have matches in all arms. The covariance of
the means is

    1 / N^2 [sum_i (Y_i(.) - mu)(Y_i(.) - mu)' + diag_a sum_{j in arm a} ((t_j + K_j)^2 - t_j - K2_j) s2_j].

The first sum is over these N units. t_j is 1 for these units and otherwise 0. s2_j is the sample variance of the
outcomes of unit j and the two nearest units of its arm (one with an estimated score, more if distances are tied). With
exact matching, these units are from the same stratum if it has enough units of the arm. `bias_adjust` corrects Y_i(a).
An estimated score adds `score_correction` to the covariance.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import scipy  # its submodules are imported when they are first used
from numpy.typing import NDArray

from causalrisk.design.design import Design
from causalrisk.errors import CausalRiskError, DesignWarning, Notes, OptionError, UnavailableError, listed
from causalrisk.estimation.fits import Estimate, WeightFit
from causalrisk.estimation.options import ModelOptions
from causalrisk.estimation.sample import Sample
from causalrisk.numerics.arrays import Array
from causalrisk.numerics.families import BINARY_LINKS

TIED = 1e-9  # distances that differ by less, relative to the spread of the columns, are equal
FAR = 1e6  # distance between the strata of exact matching, in spreads of the columns
PROPENSITY = "propensity"  # the metric
DEPENDENT = 1e-12  # eigenvalue of the correlations, relative to the largest, that counts as zero
WITHIN = 2  # nearest units that give an outcome's variance; with an estimated score, one is the unit itself


@dataclass(frozen=True)
class Matches:
    """The matches of n units among m candidates.

    Units with the same values in all matching columns form a cell and have the same matches. Candidates form cells in
    the same way. `of` and `among` are sparse indicators of the cells of units and candidates. `near` is a sparse
    indicator of the pairs of cells that are matched.
    """

    of: Any
    among: Any
    near: Any

    def sum(self, values: Array) -> Array:
        """Return the sum of `values` (m, ...) over the matches of each unit, shape (n, ...)."""
        return np.asarray(self.of @ (self.near @ (self.among.T @ values)))

    @cached_property
    def count(self) -> Array:
        """Number of matches of each unit. It is 0 if no candidate is near enough."""
        return self.sum(np.ones(self.among.shape[0]))

    def mean(self, values: Array) -> Array:
        """Return the mean of values over the matches of each unit. It is NaN for a unit without matches."""
        with np.errstate(invalid="ignore"):
            return np.asarray((self.sum(values).T / self.count).T)

    def covariance(self, columns: Array, y: Array) -> Array:
        """Return the covariance of `columns` (m, q) and `y` (m,) among the matches of each unit, shape (n, q)."""
        y = y - y.mean()
        products = self.mean(columns * y[:, None]) - self.mean(columns) * self.mean(y)[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):  # NaN for a unit with one match
            return np.asarray(products * (self.count / (self.count - 1))[:, None])

    def used(self, power: int, inside: Any = 1.0) -> Array:
        """Return, for each candidate, the sum of 1 / (number of matches)^power over `inside` units matched with it."""
        share = np.divide(1.0, self.count**power, out=np.zeros(len(self.count)), where=self.count > 0)
        return np.asarray(self.among @ (self.near.T @ (self.of.T @ (share * inside))))


def match(units: Array, others: Array, least: int, tied: float, caliper: float | None = None) -> Matches:
    """Match each unit with its `least` nearest candidates and all that are tied with the last, within any caliper."""
    (points, of), (centres, among) = _cells(units), _cells(others)
    tree, wanted = scipy.spatial.cKDTree(centres), min(least, len(centres))
    distance, place = tree.query(points, k=np.arange(1, wanted + 1))
    enough = (np.cumsum(among.sum(axis=0)[place], axis=1) >= least).argmax(axis=1)
    radius = distance[np.arange(len(place)), enough]
    near = tree.query_ball_point(points, (radius if caliper is None else np.minimum(radius, caliper)) + tied)
    ends, columns = np.cumsum([0, *map(len, near)]), np.concatenate(near).astype(np.intp)
    return Matches(of, among, scipy.sparse.csr_array((np.ones(ends[-1]), columns, ends), (len(points), len(centres))))


def _cells(columns: Array) -> tuple[Array, Any]:
    """Return the distinct rows (cells, p), and a sparse matrix (n, cells) with a one for the cell of each unit."""
    points, of_unit = np.unique(columns + 0.0, axis=0, return_inverse=True)  # -0.0 is 0.0
    return points, scipy.sparse.csr_array((np.ones(len(columns)), (np.arange(len(columns)), of_unit.ravel())))


# --- the estimate ----------------------------------------------------------------------------------------------------


def no_influence() -> UnavailableError:
    """Return the error for methods that need an influence function or refits."""
    problem = "matching has no influence function and no valid bootstrap (Abadie and Imbens 2008)"
    return UnavailableError(f"{problem}.\nUse `AIPW.from_formula(...).fit()`.")


@dataclass(frozen=True)
class MatchedRows:
    """The results by row of an `Estimate` by matching.

    `predicted` (K, n) has each unit's outcome in its own arm, and the mean over its matches in other arms. `inside`
    marks the units of the target that have matches in all arms. `matches` has triples of the arm of the units, the arm
    of the matches, and the `Matches`.
    """

    predicted: Array
    inside: NDArray[np.bool_]
    matches: list[tuple[int, int, Matches]]
    columns: Array

    @property
    def influence(self) -> Array:
        """Raise an error: a matching estimate is not a sum over rows."""
        raise no_influence()

    def refit(self, *_: Any) -> Any:
        """Raise an error: resamples do not show how matches vary."""
        raise no_influence()


def metric_columns(weights: WeightFit, design: Design, options: ModelOptions, notes: Notes) -> Array:
    """Return columns (n, p), in the order of the sample, whose Euclidean distance is the metric."""
    sample, metric = weights.equations.sample, options.metric
    if metric == PROPENSITY:
        if sample.n_arms > 2:
            raise OptionError(f'metric="propensity" needs 2 groups, not {sample.n_arms}.\nUse `metric="mahalanobis"`.')
        return weights.probabilities[1][:, None]
    if not np.ptp(design.X, axis=0).any():
        advice = 'Use `metric="propensity"` to match on the propensity score, or add covariates: `y ~ x`.'
        raise OptionError(f"the outcome formula has no covariates to match on.\n{advice}")
    unused = [name for name in design.propensity_names if name not in design.exog_names]
    if unused:
        problem = f"metric={metric!r} ignores {listed(unused)}, which only the propensity formula has"
        advice = 'Use `metric="propensity"`, or add these variables to the outcome formula.'
        notes.warn(f"{problem}.\n{advice}", DesignWarning)
    columns = sample.arrange(design.X)
    columns = columns[:, np.ptp(columns, axis=0) > 0]
    scaled = (columns - columns.mean(axis=0)) / columns.std(axis=0, ddof=1)
    return np.asarray(scaled) if metric == "inverse_variance" else whitened(scaled)


def whitened(columns: Array) -> Array:
    """Return uncorrelated columns of variance one that span the same space as the centred columns."""
    values, vectors = np.linalg.eigh(columns.T @ columns / (len(columns) - 1))
    kept = values > DEPENDENT * values.max(initial=0.0)
    return np.asarray(columns @ (vectors[:, kept] / np.sqrt(values[kept])))


def variable_of(column: str) -> str:
    """Return the name of the variable in a column's name, such as "C(g, Treatment(1))[T.2]" or "Q('a b')"."""
    inner = column.partition("[")[0]
    for called in ("C(", "Q("):
        inner = inner.removeprefix(called)
    return inner.partition(",")[0].strip("()'\" ")


def named_columns(design: Design, names: tuple[str, ...], option: str) -> Array:
    """Return the columns of the named variables in the outcome design, shape (n, q)."""
    found = list[int]()
    for name in names:
        own = [k for k, column in enumerate(design.exog_names) if name in (column, variable_of(column))]
        if not own:
            advice = f"Add {name} to the formula: `y ~ {name}`."
            raise OptionError(f"{option}={name!r} is not in the outcome formula.\n{advice}")
        found += own
    return design.X[:, found]


def estimate_matched(
    weights: WeightFit, design: Design, options: ModelOptions, notes: Notes
) -> tuple[Estimate, WeightFit, Array]:
    """Match the arms. Return the estimate, the matching weights, and the covariance of the estimate."""
    sample, toward, least = weights.equations.sample, weights.equations.target.toward, options.n_neighbors
    scale, terms = options.effect_scale, options.bias_adjust
    fewest = min(own.stop - own.start for own in sample.slices)
    if fewest < max(least, WITHIN + 1):
        instead = f"n_neighbors={fewest}" if fewest > WITHIN else "IPWRA"
        problem = f"n_neighbors={least} needs {max(least, WITHIN + 1)} rows in each group for standard errors"
        raise CausalRiskError(f"{problem}; the smallest group has {fewest}.\nUse `{instead}`.")
    estimated = options.metric == PROPENSITY and weights.estimated
    for name in ("exact", "bias_adjust"):
        if estimated and getattr(options, name):
            problem = f"standard errors with an estimated score are not available with {name}= (Abadie and Imbens 2016)"
            raise OptionError(f'{problem}.\nUse `metric="mahalanobis"`, or leave {name}= out.')
    columns = metric_columns(weights, design, options, notes)
    within = WITHIN + (not estimated)
    matches, neighbours = matches_of(columns, sample, options, design, within)
    predicted = np.full((sample.n_arms, sample.n), np.nan)
    Z = sample.arrange(design.X if terms in (None, True) else named_columns(design, terms, "bias_adjust"))
    Z = whitened((Z - Z.mean(axis=0)) / np.where(np.ptp(Z, axis=0) > 0, Z.std(axis=0), 1.0)) if terms else Z
    for a, own in enumerate(sample.slices):
        predicted[a, own] = sample.y[own]
    for a, b, found in matches:
        own, others = sample.slices[a], sample.slices[b]
        predicted[b, own] = found.mean(sample.y[others])
        if terms:
            slopes = fitted_slopes(Z[others], sample.y[others], found.used(1))
            predicted[b, own] += (Z[own] - found.mean(Z[others])) @ slopes
    target = np.ones(sample.n, dtype=bool) if toward is None else sample.arm == toward
    inside = target & np.isfinite(predicted).all(axis=0)
    if not inside.any():
        raise CausalRiskError("no unit has a match.\nUse a larger `caliper=`, or fewer variables in `exact=`.")
    if (left := int(target.sum() - inside.sum())) > 0:
        problem = f"{left} of {int(target.sum())} rows of the target have no match and are left out"
        notes.warn(f"{problem}.\nUse a larger `caliper=`, or fewer variables in `exact=`.", DesignWarning)
    times, squares = np.zeros(sample.n), np.zeros(sample.n)
    for a, b, found in matches:
        own, others = sample.slices[a], sample.slices[b]
        times[others] += found.used(1, inside[own])
        squares[others] += found.used(2, inside[own])
    means, count = predicted[:, inside].mean(axis=1), inside.sum()
    apart = predicted[:, inside] - means[:, None]
    noise, times = (inside + times) ** 2 - inside - squares, inside + times
    spread = []
    for own, near in zip(sample.slices, neighbours, strict=True):
        y = sample.y[own] - sample.y[own].mean()
        variances = near.covariance(y[:, None], y)[:, 0]
        if (few := near.count < within).any():  # in their stratum
            anywhere = nearest(columns[own], slice(None), within)
            variances = np.where(few, anywhere.covariance(y[:, None], y)[:, 0], variances)
        spread.append(np.maximum(variances, 0.0) @ noise[own])
    covariance = (apart @ apart.T + np.diag(spread)) / count**2
    if estimated:
        covariance = covariance + score_correction(weights, options, means)
    jacobian = scale.jacobian(means)
    if jacobian[0] @ covariance @ jacobian[0] < 0:
        problem = "the estimated variance of the effect is negative, so its standard error is NaN"
        notes.warn(f"{problem}.\nUse a larger `caliper=`, or another `metric=`.", DesignWarning)
        covariance = np.full_like(covariance, np.nan)
    rows = MatchedRows(predicted, inside, matches, columns)
    estimate = Estimate(scale.params(means), np.empty((sample.n_arms, 0)), np.empty(0), means, rows)
    return estimate, dataclasses.replace(weights, times=times), jacobian @ covariance @ jacobian.T


def matches_of(
    columns: Array, sample: Sample, options: ModelOptions, design: Design, within: int
) -> tuple[list[tuple[int, int, Matches]], list[Matches]]:
    """Return `MatchedRows.matches`, and each arm's matches with `within` nearest units of the arm and stratum."""
    spread = float(columns.std(axis=0).max(initial=0.0)) or 1.0
    far, caliper, toward = FAR * spread, options.caliper, options.population.toward
    if options.exact:
        named = named_columns(design, options.exact, "exact")
        stratum = sample.arrange(np.unique(named + 0.0, axis=0, return_inverse=True)[1].ravel())
        columns, caliper = np.column_stack([columns, far * stratum]), min(caliper or far / 2, far / 2)
    of_arms, tied = [columns[own] for own in sample.slices], TIED * spread
    matched = range(sample.n_arms) if toward is None else [toward]
    pairs = [(a, b) for a in matched for b in range(sample.n_arms) if a != b]
    matches = [(a, b, match(of_arms[a], of_arms[b], options.n_neighbors, tied, caliper)) for a, b in pairs]
    return matches, [match(own, own, within, tied, far / 2 if options.exact else None) for own in of_arms]


def fitted_slopes(Z: Array, y: Array, times: Array) -> Array:
    """Return the slopes of a regression of y on the columns Z, with weights `times`."""
    root = np.sqrt(times)[:, None]
    columns = np.column_stack([np.ones(len(Z)), Z])
    return np.asarray(np.linalg.lstsq(columns * root, y * root[:, 0], rcond=None)[0][1:])


def nearest(columns: Array, among: slice, least: int, caliper: float | None = None) -> Matches:
    """Match units by their columns, shape (n, p), with at least `least` nearest units in the slice `among`."""
    return match(columns, columns[among], least, TIED * float(columns.std(axis=0).max()), caliper)


# --- the estimated score ---------------------------------------------------------------------------------------------


def score_correction(weights: WeightFit, options: ModelOptions, means: Array) -> Array:
    """Return the contribution of score estimation to the covariance of the means, shape (2, 2) [1]_.

    With a caliper, the averages in [1]_ use only the units that have a match.

    References
    ----------
    .. [1] Abadie, A. and Imbens, G. W. (2016). Matching on the estimated propensity score. Econometrica 84, 781-807.
    """
    sample, toward = weights.equations.sample, weights.equations.target.toward
    e, Z, link = weights.probabilities, sample.Z.columns, BINARY_LINKS[options.propensity_link]
    steep = e[1] * link.score(Z @ weights.gamma, np.array(1.0))[0]  # derivative of the score in its linear predictor
    inverse = np.linalg.inv((Z * (steep**2 / (e[0] * e[1]))[:, None]).T @ Z)
    score, arms = e[1][:, None], (0, 1)
    near_score = np.stack([nearest_outcomes(score, sample, a, options.caliper) for a in arms])
    inside = np.isfinite(near_score).all(axis=0)
    steep = np.where(inside, steep, 0.0)[:, None]
    moved = [steep * nearest(score, own, WITHIN).covariance(Z[own], sample.y[own]) for own in sample.slices]
    if toward is None:
        C = np.stack([-(moved[0] / e[0][:, None]).sum(axis=0), (moved[1] / e[1][:, None]).sum(axis=0)]) / inside.sum()
        return np.asarray(-C @ inverse @ C.T)
    other, sign = 1 - toward, 1.0 if toward else -1.0
    rising = sign * steep * Z  # slope of the target's score
    near_Z = np.stack([nearest_outcomes(Z, sample, a) for a in arms])
    count = float((inside & (sample.arm == toward)).sum())
    C, D = ((np.nan_to_num(of) - means[:, None]) @ rising / count for of in (near_score, near_Z))
    C[toward] += sign * moved[toward].sum(axis=0) / count
    C[other] -= sign * (moved[other] * (e[toward] / e[other])[:, None]).sum(axis=0) / count
    return np.asarray(D @ inverse @ D.T - C @ inverse @ C.T)


def nearest_outcomes(columns: Array, sample: Sample, a: int, caliper: float | None = None) -> Array:
    """Return each unit's outcome in an arm: its own, or the mean of the nearest units of the arm, shape (n,)."""
    own = sample.slices[a]
    outcomes = nearest(columns, own, 1, caliper).mean(sample.y[own])
    outcomes[own] = sample.y[own]
    return outcomes


# --- the pairs -------------------------------------------------------------------------------------------------------


def matched_pairs(record: Any) -> pd.DataFrame:
    """Return one row per matched pair: labels "unit" and "match", "weight" (1 / matches of the unit), "distance"."""
    if not record.spec.matched:
        raise UnavailableError(f"{record.spec.name} has no matches.\nUse `Matching.from_formula(...).fit()`.")
    sample, rows, parts = record.sample, record.estimate.rows, list[pd.DataFrame]()
    labels = record.design.index[sample.order]
    for a, b, found in rows.matches:
        pairs = (found.of @ found.near @ found.among.T).tocoo()
        inside = rows.inside[sample.slices[a]][pairs.row]
        unit, other = pairs.row[inside], pairs.col[inside]
        own, others = sample.slices[a].start + unit, sample.slices[b].start + other
        distance = np.linalg.norm(rows.columns[own] - rows.columns[others], axis=1)
        columns = {"unit": labels[own], "match": labels[others], "weight": 1 / found.count[unit], "distance": distance}
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)
