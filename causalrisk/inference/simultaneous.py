"""Multiple tests and fits: adjusted p-values, uniform bands, and estimators compared on the same resamples.

Methods that control the familywise error rate use the p-values alone or, with "single-step", the distribution of max
|T|, which depends on the correlations of the estimates.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import combinations
from typing import Any, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit, gammaincinv, logit, ndtr, ndtri

from causalrisk.errors import DesignError, Failure, OptionError, UnavailableError, check_alpha, one_of
from causalrisk.estimation.abilities import ABILITIES, check_options
from causalrisk.estimation.fits import Refits, weights_of
from causalrisk.estimation.options import Adjustment
from causalrisk.estimation.quantiles import distribution_at
from causalrisk.estimation.record import FitRecord, influence_covariance
from causalrisk.estimation.specification import DIFFERENCE, IPWRA, JRE, QUANTILE, EffectScale
from causalrisk.inference import intervals
from causalrisk.inference.covariance import covariance_over, resample_covariance, start_record
from causalrisk.inference.intervals import Estimates
from causalrisk.numerics.arrays import Array
from causalrisk.numerics.optimize import root_between

REFERENCE = "reference"  # against="reference": the first arm, group or estimator
POINTS = 17  # there are 2^POINTS integration points, fewer with many tests
FEW_POINTS = 13
MANY_TESTS = 16
DEPENDENT = 1e-10  # smaller conditional variances of a statistic, given the others, count as zero
TIED = 1e-6  # variances with a smaller relative difference count as equal
PRECISION = 1e-5  # of the integrals; smaller probabilities are replaced by an upper limit


class LargestModulus:
    """Distribution of the largest |T| of correlated statistics T, which are normal or have Student's t distribution.

    T = L Z / s. L L' is the correlation matrix, which may be singular, as for the differences of all pairs. Z has r
    independent normal variables. s is sqrt(chi2 / df), or 1 for normal statistics. With its rows in the order of the
    pivots, L is triangular. |T| <= c then means that Z_1 is in an interval, Z_2 in an interval that depends on Z_1,
    and so on (Genz 1992, Journal of Computational and Graphical Statistics 1, 141-149). If the last nonzero
    entries of several rows of L are in the same column, the intervals are intersected. The probability is a mean over N
    = 2^points folded points of Richtmyer's sequence, for Z_1, ..., Z_(r-1) and s. Pivots that differ only by rounding
    keep their order, so results are the same on every processor. For up to ten tests, probabilities are within about
    1e-5 of R's mvtnorm.
    """

    def __init__(self, correlation: Array, df: float, points: int = POINTS) -> None:
        self.df = df
        self.factor = _triangular_factor(correlation)
        ends = (np.abs(self.factor) > np.sqrt(DEPENDENT)) * np.arange(1, self.factor.shape[1] + 1)
        self.last = ends.max(axis=1) - 1  # the last variable on which each row depends
        size = self.factor.shape[1] - 1 + int(np.isfinite(df))
        fewer = int(np.ceil(np.log2(max(len(correlation) / MANY_TESTS, 1))))
        self.points = _spread_points(size, max(points - fewer, FEW_POINTS) if size > 1 else FEW_POINTS)
        self.scale = np.ones(self.points.shape[1])  # the variable s at the points, shape (N,)
        if np.isfinite(df):
            self.scale = np.asarray(np.sqrt(2 * gammaincinv(df / 2, self.points[-1]) / df))

    def tail(self, threshold: float) -> float:
        """Return the probability that max |T| is at least the threshold.

        The result is at least the probability for a single |T|, and at most the sum of these probabilities. If the
        computed value is at most `PRECISION`, the smaller of this sum and `PRECISION` is returned.
        """
        single = float(intervals.two_sided(np.asarray(threshold), self.df))
        if self.factor.shape[1] == 1:
            return single
        most = min(1.0, len(self.factor) * single)
        found = float(np.clip(1 - self._inside(threshold * self.scale).mean(), single, most))
        return found if found > PRECISION else min(most, PRECISION)

    def _inside(self, reach: Array) -> Array:
        """Return the probability that all |L Z| <= reach at each of N points, with the last variable integrated out."""
        factor, rank = self.factor, self.factor.shape[1]
        drawn, probability = np.empty((rank, len(reach))), np.ones(len(reach))
        for k in range(rank):
            rows = factor[self.last == k]
            middle, half = -(rows[:, :k] @ drawn[:k]) / rows[:, k : k + 1], reach / np.abs(rows[:, k : k + 1])
            low, high = ndtr((middle - half).max(axis=0)), ndtr((middle + half).min(axis=0))
            width = np.maximum(high - low, 0.0)
            probability *= width
            if k == 0:  # the distribution is symmetric, so half of it is enough
                low, width = np.full_like(low, 0.5), width / 2
            if k < rank - 1:
                drawn[k] = ndtri(np.clip(low + self.points[k] * width, 1e-300, 1 - 1e-16))
        return probability

    def quantile(self, alpha: float) -> float:
        """Return the threshold that is exceeded with probability alpha, searched within Bonferroni's bounds."""
        low, high = (float(intervals.critical_value(level, self.df)) for level in (alpha, alpha / len(self.factor)))
        if self.tail(low) <= alpha:
            return low
        if self.tail(high) >= alpha:
            return high
        return root_between(lambda threshold: self.tail(threshold) - alpha, low, high)


def _triangular_factor(correlation: Array) -> Array:
    """Return L (m, r) with L L' = R, triangular up to the order of its rows, by pivoted Cholesky decomposition.

    The pivot is the first of the largest variances. Variances that differ only by rounding count as equal.
    """
    left, factor = np.diag(correlation).astype(float), np.empty((len(correlation), 0))
    while left.max() > DEPENDENT:
        pivot = int(np.argmax(left > (1 - TIED) * left.max()))
        column = (correlation[:, pivot] - factor @ factor[pivot]) / np.sqrt(left[pivot])
        factor, left = np.column_stack([factor, column]), left - column**2
    return factor


def _spread_points(size: int, power: int) -> Array:
    """Return N = 2^power points of the unit cube, shape (size, N): multiples of roots of primes, folded at a half."""
    candidates = range(2, 20 + 2 * size * size.bit_length())  # large enough to contain `size` primes
    primes = [k for k in candidates if all(k % other for other in range(2, int(k**0.5) + 1))][:size]
    multiples = np.sqrt(primes)[:, None] * np.arange(1, 2**power + 1)
    return np.abs(2 * (multiples % 1) - 1)


def pairs_against(against: Any, names: Sequence[Any], found: int | None) -> list[tuple[int, int]]:
    """Return the pairs of positions of arms, groups or estimators to compare.

    `against` is None for all pairs, "reference" for the first, or a name, whose position is `found`.
    """
    if against is None:
        return [(high, low) for low, high in combinations(range(len(names)), 2)]
    if found is None and against == REFERENCE:
        found = 0
    if found is None:
        raise OptionError(f"against={against!r} is not in {', '.join(map(str, names))}.\nUse `against={names[0]!r}`.")
    return [(k, found) for k in range(len(names)) if k != found]


def adjusted(statistic: Array, covariance: Array, adjust: str, alpha: float, df: float) -> tuple[Array, float]:
    """Return two-sided p-values adjusted for the number of tests, and the critical value of intervals.

    NaN statistics are not counted as tests. The critical value is for simultaneous intervals, by Bonferroni's method
    for "bonferroni", "holm" and "hochberg". For "fdr_bh", it is not adjusted.

    Examples
    --------
    >>> import numpy as np
    >>> p, critical = adjusted(
    ...     np.array([2.5, 1.0]), np.eye(2), "single-step", 0.05, np.inf
    ... )
    >>> p.round(4), round(critical, 4)
    (array([0.0247, 0.5339]), 2.2365)
    """
    from statsmodels.stats.multitest import multipletests

    tests = np.flatnonzero(np.isfinite(statistic))
    sizes, p, count = np.abs(statistic[tests]), np.full(len(statistic), np.nan), len(tests)
    if not count:
        return p, np.nan
    if adjust == "single-step":
        errors = np.sqrt(np.diag(covariance)[tests])
        largest = LargestModulus(covariance[np.ix_(tests, tests)] / np.outer(errors, errors), df)
        p[tests] = [largest.tail(size) for size in sizes]
        return p, largest.quantile(alpha)
    method = "simes-hochberg" if adjust == "hochberg" else adjust
    p[tests] = multipletests(intervals.two_sided(sizes, df), method=method)[1]
    return p, float(intervals.critical_value(alpha / (1 if adjust == "fdr_bh" else count), df))


def adjusted_frame(
    values: Array,
    se: Array,
    covariance: Array,
    index: pd.Index,
    *,
    adjust: str | None,
    alpha: float,
    df: Array | float,
    scale: EffectScale = DIFFERENCE,
) -> pd.DataFrame:
    """Return the table of `Estimates.frame`. `adjust` adds "adjusted P" and the intervals of `adjusted`.

    `covariance` is on the additive scale (logs of ratios).
    """
    adjust = one_of("adjust", adjust, (None, *get_args(Adjustment)))
    errors = np.sqrt(np.clip(np.diag(covariance), 0, None))
    frame = Estimates(values, se, errors, scale, df=df).frame(index, alpha)
    if adjust is None:
        return frame
    least = float(np.min(np.asarray(df, dtype=float), initial=np.inf))
    p, critical = adjusted(frame.iloc[:, 2].to_numpy(), covariance, adjust, alpha, least)
    reach, centre = critical * errors, scale.contrast(frame["estimate"].to_numpy())
    frame.iloc[:, -2], frame.iloc[:, -1] = scale.report(np.stack([centre - reach, centre + reach]))
    frame.insert(4, "adjusted P", p)
    return frame


def simultaneous_frame(records: Sequence[FitRecord], names: Sequence[str], adjust: str, alpha: float) -> pd.DataFrame:
    """Return the effects of several fits to the same rows, with adjusted p-values and simultaneous intervals.

    Correlations come from the influence functions. Standard errors come from the fits.
    """
    first = records[0]
    influence = np.concatenate([_effects_influence(record, first) for record in records], axis=1)
    values = np.concatenate([record.estimate.params[: len(record.effect_names)] for record in records])
    se = np.concatenate([record.std_errors[: len(record.effect_names)] for record in records])
    errors = np.concatenate([intervals.contrast_errors(record) for record in records])
    df = np.repeat([record.df for record in records], len(first.effect_names))
    covariance = influence_covariance(first, influence)
    with np.errstate(invalid="ignore", divide="ignore"):  # no correlation where there is no sampling error
        covariance = covariance * np.outer(*[errors / np.sqrt(np.diag(covariance))] * 2)
    np.fill_diagonal(covariance, errors**2)
    pairs = [(name, effect) for name, record in zip(names, records, strict=True) for effect in record.effect_names]
    index, scale = pd.MultiIndex.from_tuples(pairs, names=["fit", "effect"]), first.options.effect_scale
    return adjusted_frame(values, se, covariance, index, adjust=adjust, alpha=alpha, df=df, scale=scale)


def _effects_influence(record: FitRecord, first: FitRecord) -> Array:
    """Return the influence function of a fit's effects, in the row order of the first fit."""
    record.design.check_in_memory("simultaneous")
    one, other = record.design, first.design
    effects = [of.options.effect for of in (first, record)]
    if effects[0] != effects[1]:
        raise DesignError(f"the fits have effect={effects[0]!r} and {effects[1]!r}.\nUse one `effect=` for both.")
    same = one.index.equals(other.index) and all(map(np.array_equal, _settings(record), _settings(first)))
    if same and one.treat_name == other.treat_name:  # reordered rows may have the same index
        levels = [np.array([str(level) for level in of.levels])[of.arm] for of in (one, other)]
        same = np.array_equal(*levels)
    if not same:
        advice = "Use the same `weights=`, `cluster=` and order of the rows for both."
        if not one.index.sort_values().equals(other.index.sort_values()):
            advice = "Use `data.dropna(subset=[...])` for both, with the variables of both in the brackets."
        raise DesignError(f"the fits differ in their rows, weights or clusters.\n{advice}")
    values, sample = record.estimate.influence[:, : len(record.effect_names)], record.sample
    return first.sample.arrange(np.concatenate([sample.restore(values), values[: sample.n_frame]]))


def _settings(record: FitRecord) -> tuple[Any, ...]:
    design, survey = record.design, record.design.survey
    of_survey = (None, None) if survey is None else (survey.stratum, survey.call)
    weights, clusters = (design.weight_type, design.weights), (design.cluster, design.second_cluster)
    return record.frame is None, *weights, *clusters, *of_survey


GRID_POINTS = 30  # of the default grid: quantiles of the outcome at levels from LEAST to 1 - LEAST
LEAST = 0.02


def distribution(record: FitRecord, grid: Any = None, alpha: float = 0.05) -> pd.DataFrame:
    """Distribution functions of the potential outcomes: the share of outcomes up to each value (Unadjusted, IPW, AIPW).

    Parameters
    ----------
    grid : array_like, optional
        Values of the outcome. By default up to 30 quantiles of the outcome, at levels from 0.02 to 0.98.
    alpha : float, default 0.05
        Significance level of the intervals and bands.

    Returns
    -------
    DataFrame
        One row per treatment group and value: estimate, std err, limits of the pointwise interval, and limits of a band
        that is simultaneous over all values and groups. Standard errors are robust, clustered, or from the survey
        design. They are NaN if all outcomes of a group are on one side of the value. The estimate is NaN if AIPW's
        logit (see Notes) has no finite fit.

    Raises
    ------
    UnavailableError
        If the data are scanned, or the fit uses `did`.
    OptionError
        If the estimator has no distribution functions, or the grid has values that are not finite.

    Notes
    -----
    The distribution function at q is the mean of 1(potential outcome <= q), by the estimator of the fit. AIPW fits a
    logit of this indicator on the terms of the outcome formula. Estimates and limits of a group are sorted and
    clipped to [0, 1], which reduces their error [1]_. Limits are computed for the log odds by the delta method, and
    transformed. If AIPW's estimate before clipping is not between 0 and 1, its limits are computed for the probability
    itself. The critical value of the band is a quantile of the largest absolute value of correlated normal (or t)
    variables, one per value and group.

    References
    ----------
    .. [1] Chernozhukov, V., Fernandez-Val, I. and Galichon, A. (2009). Improving point and interval estimators of
       monotone functions by rearrangement. Biometrika 96, 559-575.

    Examples
    --------
    >>> from causalrisk import AIPW, datasets
    >>> births = datasets.load_cattaneo2()
    >>> model = AIPW.from_formula("bweight ~ mage + medu", births, treat="mbsmoke")
    >>> model.fit().distribution([2500, 3500])["estimate"].round(3)
    arm  bweight
    0    2500.0     0.050
         3500.0     0.554
    1    2500.0     0.111
         3500.0     0.749
    Name: estimate, dtype: float64
    """
    check_alpha(alpha)
    design = record.design
    if record.options.did is not None:
        raise UnavailableError("distribution() is not available with did=.\nUse a fit without did=.")
    if QUANTILE.name not in ABILITIES.get(record.spec.name, {}).get("effect", ()):
        raise UnavailableError(f"distribution() is not available for {record.spec.name}.\nUse IPW or AIPW.")
    # A logit of the indicator replaces the outcome model.
    indicated = dataclasses.replace(record.options, family="gaussian", link=None)
    check_options(record.spec, design, dataclasses.replace(indicated, effect=QUANTILE.name, quantiles=None))
    values = _grid(record, grid)
    weights, spec, sample = weights_of(record), record.spec, record.sample
    own = [design.y[design.recorded & (design.arm == a)] for a in range(design.n_arms)]
    heights, known, influence = [], [], []
    for value in values:
        shares = np.array([(y <= value).mean() for y in own])
        fitted = open_arms = (shares > 0) & (shares < 1)
        while True:
            # Arms without a fit get an alternating outcome, which can be fitted. Their estimates are not used.
            y = np.where(fitted[sample.arm], sample.y, value + np.arange(sample.n) % 2)
            found = distribution_at(weights, spec, dataclasses.replace(sample, y=y), np.full(design.n_arms, value))
            working = fitted & (np.array(found.failed) == Failure.OK)
            if np.array_equal(working, fitted):
                break
            fitted = working
        means = found.block("means")
        heights.append(np.where(fitted, found.params[means], np.where(open_arms, np.nan, shares)))
        known.append(fitted)
        influence.append(found.influence[:, means])
    flat, tested = np.stack(heights, axis=1).ravel(), np.stack(known, axis=1).ravel()
    of_arms = np.stack(influence, axis=2).reshape(sample.n, -1)[:, tested]
    se, critical = np.full(len(flat), np.nan), np.nan
    if tested.any() and not record.one_cluster:
        covariance = influence_covariance(record, of_arms)
        se[tested] = errors = np.sqrt(np.diag(covariance))
        critical = LargestModulus(covariance / np.outer(errors, errors), record.df, FEW_POINTS).quantile(alpha)
    limits = _limits(record, flat, se, critical, alpha)
    ordered = _ascending(np.column_stack([flat, limits]).reshape(design.n_arms, len(values), -1))
    index = pd.MultiIndex.from_product([design.labels, values], names=["arm", design.endog_name])
    columns = ["estimate", "std err", *intervals.limit_names(alpha), "band low", "band high"]
    return pd.DataFrame(np.insert(ordered, 1, se, axis=1), index=index, columns=columns)


def _limits(record: FitRecord, shares: Array, se: Array, critical: float, alpha: float) -> Array:
    """Return the limits of m intervals and bands, shape (m, 4). Shares between 0 and 1 use the log odds scale."""
    found = []
    with np.errstate(divide="ignore", invalid="ignore"):
        for values, errors in ((shares, se), (logit(shares), se / (shares * (1 - shares)))):
            reach = critical * errors
            interval = intervals.wald_interval(values, errors, alpha, record.df)
            found.append(np.column_stack([interval, values - reach, values + reach]))
        return np.where(((shares > 0) & (shares < 1))[:, None], expit(found[1]), found[0])


def _grid(record: FitRecord, given: Any) -> Array:
    y, weights = (of[record.design.recorded] for of in (record.design.y, record.design.weights))
    if given is None:
        order = np.argsort(y, kind="stable")
        share = np.cumsum(weights[order]) / weights.sum()
        places = np.searchsorted(share, np.linspace(LEAST, 1 - LEAST, GRID_POINTS))
        return np.unique(y[order][places])
    values = np.unique(pd.to_numeric(np.atleast_1d(given).ravel(), errors="coerce").astype(float))
    if not values.size or not np.isfinite(values).all():
        raise OptionError(f"grid={given!r:.80}; expected numbers.\nUse `grid=[{float(np.median(y)):.4g}]`.")
    return values


def _ascending(values: Array) -> Array:
    """Clip `values` (K, G, c) to [0, 1] and sort them over the grid (G). Return shape (K G, c). NaN stays in place."""
    for of_arm in values:
        for column in of_arm.T:
            known = ~np.isnan(column)
            column[known] = np.sort(np.clip(column[known], 0.0, 1.0))
    return values.reshape(-1, values.shape[-1])


PAIRED_ROUNDING = 1e-10  # a paired standard error below this share of the estimators' standard errors is rounding error


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Fits of E estimators to one sample.

    `records` has the fits with robust errors. `drawn` has the fits with errors from common resamples. `notes` has the
    text of every warning.
    """

    records: tuple[FitRecord, ...]
    drawn: tuple[FitRecord, ...]
    notes: tuple[str, ...] = ()

    @property
    def boot(self) -> Array:
        """Effects in the resamples, estimator by estimator, shape (n_boot, E (K - 1)). NaN for failures."""
        count = len(self.effect_names)
        every = np.concatenate([record.used_boot.values[:, :count] for record in self.drawn], axis=1)
        return np.where(np.repeat(self.failures == Failure.OK, count, axis=1), every, np.nan)

    @property
    def failures(self) -> NDArray[np.int8]:
        """A `Failure` for each resample and estimator, shape (n_boot, E)."""
        return np.stack([record.used_boot.failures for record in self.drawn], axis=1)

    @property
    def effect_names(self) -> list[str]:
        """Names of the effects: one for each arm but the reference."""
        return self.records[0].effect_names

    @property
    def rows(self) -> pd.Index:
        """Labels of the columns of `boot`: estimators or, with several arms, pairs of estimator and effect."""
        if len(self.effect_names) == 1:
            return pd.Index(self.names, name="estimator")
        return pd.MultiIndex.from_product([self.names, self.effect_names], names=["estimator", "effect"])

    @property
    def names(self) -> list[str]:
        """Name of each estimator."""
        return [record.spec.name for record in self.records]

    @property
    def effects(self) -> Array:
        """Effects by each estimator, shape (E (K - 1),)."""
        return np.concatenate([record.estimate.params[: len(self.effect_names)] for record in self.records])


def start_difference(record: FitRecord, alpha: float = 0.05) -> pd.DataFrame:
    """Compare JRE with the IPWRA fit it starts from, on the same resamples (JRE with bootstrap standard errors).

    Parameters
    ----------
    alpha : float, default 0.05
        Significance level of the intervals.

    Returns
    -------
    DataFrame
        Rows "IPWRA" and "JRE - IPWRA" (per effect, with several groups), with estimate, standard error, test and
        interval. The standard error of the difference is computed from the paired differences.

    Raises
    ------
    UnavailableError
        If the fit has no bootstrap.

    Examples
    --------
    >>> from causalrisk import JRE, datasets
    >>> births = datasets.load_cattaneo2()
    >>> model = JRE.from_formula("bweight ~ mage + medu", births, treat="mbsmoke")
    >>> model.fit(n_boot=99).start_difference().iloc[:, :2].round(2)
                 estimate  std err
    estimator
    IPWRA         -256.86    26.61
    JRE - IPWRA      0.80     0.72
    """
    start = np.asarray(record.used_boot.start)
    failed = np.isnan(start).any(axis=1)
    of_start = Refits(start, np.where(failed, Failure.NO_EFFECT, Failure.OK).astype(np.int8))
    ipwra = start_record(record)
    drawn = dataclasses.replace(ipwra, cov_type=record.cov_type, boot=of_start, small_sample=record.small_sample)
    covariance = resample_covariance(drawn, of_start.used, drawn.estimate.params)
    pair = Comparison((record, ipwra), (record, dataclasses.replace(drawn, covariance=covariance)))
    effects, difference = effects_frame(pair, alpha).drop(columns="robust se"), differences_frame(pair, alpha)
    named = difference.droplevel("minus").rename(index={JRE.name: f"{JRE.name} - {IPWRA.name}"})
    return pd.concat([effects.loc[[IPWRA.name]], named])


def effects_frame(comparison: Comparison, alpha: float) -> pd.DataFrame:
    """Return the effects of each estimator with bootstrap and robust standard errors, tests and intervals."""
    count = len(comparison.effect_names)
    frames = [intervals.parameters(record).frame(record.names, alpha)[:count] for record in comparison.drawn]
    frame = pd.concat(frames).set_axis(comparison.rows)
    frame.insert(2, "robust se", np.concatenate([record.std_errors[:count] for record in comparison.records]))
    return frame


def differences_frame(
    comparison: Comparison, alpha: float, adjust: str | None = None, against: Any = None
) -> pd.DataFrame:
    """Return the differences of the effects of pairs of estimators, with paired standard errors.

    `against` names the estimator to subtract ("reference" means the first). By default, each estimator is subtracted
    from all estimators before it. If two estimators agree up to rounding error, the difference and its standard error
    are exactly zero, and there is no test. A difference has the smaller degrees of freedom of its two estimators, and
    the larger factor of `small_sample`.
    """
    names, count = comparison.names, len(comparison.effect_names)
    position = names.index(against) if against in names else None
    first = list(combinations(range(len(names)), 2))  # earlier minus later
    chosen = first if against is None else pairs_against(against, names, position)
    pairs = [(i, j, k) for k in range(count) for i, j in chosen]
    left, right = [i * count + k for i, _, k in pairs], [j * count + k for _, j, k in pairs]
    differences = comparison.effects[left] - comparison.effects[right]
    resampled = comparison.boot[:, left] - comparison.boot[:, right]
    replication = comparison.records[0].design.replication
    own, covariance = (
        covariance_over(values) if replication is None else replication.covariance(values, of)
        for values, of in ((comparison.boot, comparison.effects), (resampled, differences))
    )
    if comparison.records[0].one_cluster:
        covariance = np.full_like(covariance, np.nan)
    sd, paired = np.sqrt(np.diag(own)), np.sqrt(np.diag(covariance))
    constant = np.repeat([record.constant_means for record in comparison.records], count)
    rounding = np.where(constant[left] & constant[right], np.inf, PAIRED_ROUNDING * np.maximum(sd[left], sd[right]))
    paired = np.where(paired <= rounding, 0.0, paired)
    differences = np.where((paired == 0) & (np.abs(differences) <= rounding), 0.0, differences)
    levels = {"estimator": [names[i] for i, _, _ in pairs], "minus": [names[j] for _, j, _ in pairs]}
    if count > 1:
        levels["effect"] = [comparison.effect_names[k] for _, _, k in pairs]
    index = pd.MultiIndex.from_arrays(list(levels.values()), names=list(levels))
    df = np.repeat([record.df for record in comparison.records], count)
    df = np.minimum(df[left], df[right])
    factors = np.repeat([np.sqrt(record.small_sample_factor) for record in comparison.drawn], count)
    factor = np.maximum(factors[left], factors[right])
    paired, covariance = factor * paired, covariance * np.outer(factor * (paired > 0), factor * (paired > 0))
    return adjusted_frame(differences, paired, covariance, index, adjust=adjust, alpha=alpha, df=df)
