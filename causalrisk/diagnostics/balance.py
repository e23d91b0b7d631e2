"""Balance of covariates between arms, before and after weighting, with the denominators of R's cobalt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from itertools import product
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalrisk.design import Design, DesignOnDisk
from causalrisk.design.covariates import Covariate, further_covariates, moderators, on_rows, renamed, with_products
from causalrisk.design.design import rows_not_kept
from causalrisk.errors import DesignError, OptionError, UnavailableError, one_of
from causalrisk.estimation.estimates import FittedRows
from causalrisk.estimation.record import FitRecord
from causalrisk.learners.folds import Arms
from causalrisk.numerics.blocks import Rows, Steps, sums_at
from causalrisk.numerics.linalg import Array

DISTANCE, CHANCE = "propensity score", "probability of an outcome"
ARMS, OBSERVED = "arms", "observed"  # what is compared
ROOM = 10**8  # numbers of covariates on disk that are measured at a time


def balance_table(
    labels: Sequence[str], denominator: str | int, found: Measured, *, raw_binary: bool, means: bool
) -> pd.DataFrame:
    """Balance of the columns and scores in each of K sets of rows against the first; constant columns are left out.

    `denominator` as in `ColumnSums.standard_deviations`; `raw_binary` keeps differences of proportions; `means` adds
    means and standard deviations.
    """
    first = len(labels) - 1
    varying = np.flatnonzero(found.sums.varying[first:])
    index = pd.Index([found.distance, *(found.names[j] for j in varying)], name="covariate")
    tables = {}
    for arm in range(1, len(labels)):
        which = np.r_[arm - 1, first + varying]
        sums = found.sums.some(which)
        binary = sums.binary & (np.arange(len(which)) > 0)
        sums = sums.indicating(binary)
        scale = np.where(binary & raw_binary, 1.0, sums.standard_deviations(denominator, binary))
        scale = np.where(sums.varying, scale, np.nan)  # scores may all be the same
        variances = sums.variance(binary)
        numbers: dict[str, Any] = {}
        for (k, when), (a, label) in product(enumerate(WHEN), enumerate(labels)) if means else ():
            numbers[f"mean {label} {when}"] = sums.mean[a, k]
            numbers[f"sd {label} {when}"] = np.where(binary, np.nan, np.sqrt(variances[a, k]))
        with np.errstate(divide="ignore", invalid="ignore"):
            differences = (sums.mean[arm] - sums.mean[0]) / scale
            ratios = np.where(binary | ~sums.varying, np.nan, variances[arm] / variances[0])
        statistics = {"diff": differences, "var ratio": ratios, "KS": found.distances[which, arm - 1].T}
        numbers |= {f"{name} {when}": values[k] for name, values in statistics.items() for k, when in enumerate(WHEN)}
        numbers["kind"] = ["distance", *np.where(binary[1:], "binary", "continuous")]
        numbers["unit"] = ["raw" if b and raw_binary else "std" for b in binary]
        tables[f"{labels[arm]} vs {labels[0]}"] = pd.DataFrame(numbers, index=index)
    if len(tables) == 1:
        return next(iter(tables.values()))
    return pd.concat(tables, names=["contrast", "covariate"])


def chosen_covariates(
    record: FitRecord,
    rows: FittedRows,
    *,
    also: Any = None,
    data: Any = None,
    interactions: bool = False,
    names: Mapping[str, str] | None = None,
    of_observation: bool = False,
) -> list[Covariate]:
    """Return the covariates of the models and further ones, in memory, as `balance` takes them."""
    full, design = record.full_design, record.design
    found = {c.name: c for c in rows.covariates(of_observation)}
    kept = design.in_sample[full.in_sample].to_numpy()
    for covariate in [] if also is None else on_rows(further_covariates(full, also, data), kept):
        found.setdefault(covariate.name, covariate)
    columns = list(found.values())
    return renamed(with_products(columns) if interactions else columns, names)


def balance(
    record: FitRecord,
    binary: Literal["raw", "std"] = "raw",
    *,
    between: Literal["arms", "observed"] = "arms",
    also: Any = None,
    data: Any = None,
    by: Any = None,
    interactions: bool = False,
    means: bool = False,
    threshold: float | None = None,
    names: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Balance of the covariates between treatment groups, before and after weighting.

    Parameters
    ----------
    binary : {"raw", "std"}
        For binary columns. "raw" (default): difference of proportions. "std": standardized.
    between : {"arms", "observed"}
        "arms" (default) compares each treatment group with the reference. "observed" is for missing outcomes: it
        compares the rows with an outcome to all rows of their group, before and after weighting by the probability
        that the outcome is observed.
    also : str, sequence of str or DataFrame, optional
        Further covariates: a one-sided formula such as "~ fage + C(mrace)", names, or the variables themselves.
    data : DataFrame or mapping, optional
        The data of the model, needed for variables of `also` and `by` that are in neither formula.
    by : str or array-like, optional
        Shows balance within groups: the name of a grouping variable, or one value per row.
    interactions : bool
        Whether to add squares and products of the covariates.
    means : bool
        Whether to add means and standard deviations of each arm.
    threshold : float, optional
        Adds a column "balanced": whether the difference after weighting is at most this. 0.1 is usual.
    names : mapping of str to str, optional
        Printed names, such as ``{"mage": "Mother's age"}``.

    Returns
    -------
    DataFrame
        One row for the propensity score, and one per covariate and factor level of either formula. There is one block
        of rows per contrast with several treatments, per group with `by`, and per treatment group with
        ``between="observed"``. Columns are "diff", "var ratio" and "KS", each "before" and "after" weighting, "kind",
        and "unit" ("std" or "raw"). `means` adds "mean" and "sd" of each treatment group. For a binary covariate the
        mean is the proportion of the larger value, and there is no "sd". For a paper use
        ``res.table_one().save("balance.tex")``, which has the same differences; `to_latex` of a data frame escapes
        names only with ``escape=True``.

    Raises
    ------
    DesignError
        If a variable is unknown or has missing values in the sample, or a group has no rows in an arm.
    OptionError
        If an option has a value that is not allowed.
    UnavailableError
        If the estimator uses no propensity score, if ``between="observed"`` and no outcome is missing, or if `also` or
        `by` is given for a fit to a scan.

    Notes
    -----
    Definitions follow R's cobalt [1]_. Differences of means are divided by the same standard deviation before and after
    weighting:

    - for the ATE: sqrt((s_1^2 + s_0^2) / 2), cobalt's "pooled"; with several treatments, the root of the mean variance;
    - for the ATT and ATC: the standard deviation of the target group;
    - for the overlap population and functions of the score: the standard deviation of all rows after weighting;
    - with ``between="observed"``: the standard deviation of all rows.

    Variance ratios are treated over control, and not defined for binary columns. KS is the largest distance between the
    weighted distribution functions. Differences below 0.1 are usually considered balanced.

    Covariates on disk (`causalrisk.scan`) give the same numbers. `also` and `by` are not available for them.

    References
    ----------
    .. [1] Greifer, N. (2025). cobalt: Covariate Balance Tables and Plots. R package.

    Examples
    --------
    >>> from causalrisk import IPWRA, datasets
    >>> births = datasets.load_cattaneo2()
    >>> res = IPWRA.from_formula(
    ...     "bweight ~ mage + mmarried", births, treat="mbsmoke"
    ... ).fit()
    >>> res.balance()[["unit", "diff before", "diff after"]].round(2)
                     unit  diff before  diff after
    covariate
    propensity score  std         0.59        0.00
    mage              std        -0.30       -0.08
    mmarried          raw        -0.28       -0.00
    """
    one_of("binary", binary, ("raw", "std"))
    one_of("between", between, (ARMS, OBSERVED))
    check_threshold(threshold)
    design, population, labels = record.design, record.options.population, record.design.labels
    denominator = population.balance_denominator if population.toward is None else population.toward
    arms: dict[str, int | None] = {"": None}
    if between == OBSERVED:
        if design.observation is None:
            raise UnavailableError('between="observed" needs missing outcomes.\nUse `from_formula(..., observed=)`.')
        _ = record.used_weight_fit  # refuses estimators without one
        arms, labels, denominator = {label: a for a, label in enumerate(labels)}, ("all", OBSERVED), 0
    measures: dict[tuple[str, ...], Measured] = {}
    if isinstance(design, DesignOnDisk):
        for name, given in (("also", also), ("by", by)):
            if given is not None:
                raise rows_not_kept(f"{name}=")
        for label, arm in arms.items():
            measures["", label] = measured_on_disk(record, names or {}, interactions, arm)
    else:
        fitted, chosen = record.rows, {"also": also, "data": data, "interactions": interactions, "names": names}
        covariates = chosen_covariates(record, fitted, **chosen, of_observation=between == OBSERVED)
        groups = {"": None} if by is None else groups_of(design, by, data)
        for (group, members), (label, arm) in product(groups.items(), arms.items()):
            measures[group, label] = measured(covariates, compared(fitted, arm, members))
    levels = [k for k, asked in enumerate((by is not None, between == OBSERVED)) if asked]
    raw, tables = binary == "raw", {}
    for key, found in measures.items():
        tables[tuple(key[k] for k in levels)] = balance_table(labels, denominator, found, raw_binary=raw, means=means)
    table = pd.concat(tables, names=[("group", "arm")[k] for k in levels]) if levels else tables[()]
    return table if threshold is None else table.assign(balanced=table["diff after"].abs() <= threshold)


def check_threshold(threshold: float | None) -> None:
    """Raise an OptionError unless the threshold of balance is positive or None."""
    number = isinstance(threshold, (int, float, np.number)) and not isinstance(threshold, bool)
    if threshold is not None and not (number and threshold > 0):
        raise OptionError(f"threshold={threshold!r}; expected a positive number.\nUse `threshold=0.1`.")


def groups_of(design: Design, by: Any, data: Any) -> dict[str, NDArray[np.bool_]]:
    """Return the members of each group as masks of the rows; every group needs rows of every arm."""
    found = moderators(design, by, data)
    if not found.groups:
        raise OptionError(f"by={by!r} is a formula; expected a grouping variable.\nUse `by=` with its name.")
    names = [name if isinstance(name, str) else ", ".join(name) for name in found.names]
    members = {name: column > 0 for name, column in zip(names, found.columns.T, strict=True)}
    for name, rows in members.items():
        absent = [label for label, arm in zip(design.labels, design.members, strict=True) if not (rows & arm).any()]
        if absent:
            group = f"{', '.join(found.levels)} = {name}"
            raise DesignError(f"{group} has no rows in arm {absent[0]!r}.\nUse larger groups.")
    return members


WHEN = ("before", "after")


@dataclass(frozen=True)
class WeightedRows:
    """Arms (n,) and weights (2, n) of rows, without and with importance weights.

    `counts` (n,) has the frequency weight of each row, else one.
    """

    arm: Arms
    weights: Array
    counts: Array

    @classmethod
    def of(cls, rows: FittedRows) -> WeightedRows:
        """Return the arms and weights of the rows of a fit."""
        return cls(rows.arm, np.stack([rows.weights, rows.weights * rows.importance]), rows.units)

    def totals(self, n_arms: int) -> tuple[Array, Array]:
        """Return the sums of each arm's weights, and of their squares over the counts, shape (K, 2)."""
        kinds = (self.weights, self.weights**2 / self.counts)
        total, squared = ([np.bincount(self.arm, part, n_arms) for part in kind] for kind in kinds)
        return np.stack(total, axis=1, dtype=float), np.stack(squared, axis=1, dtype=float)

    def some(self, which: Rows) -> WeightedRows:
        """Return some of the rows."""
        return WeightedRows(self.arm[which], self.weights[:, which], self.counts[which])


@dataclass(frozen=True)
class Compared:
    """Sets of rows that are compared with the first of them.

    `rows` are their places among the rows of a fit or block; `scores` (K, m) the probability of being in each set;
    `weighted` has the set of each row instead of its arm. `distance` names the scores.
    """

    rows: Rows
    scores: Array
    weighted: WeightedRows
    distance: str = DISTANCE


def compared(fitted: FittedRows, arm: int | None = None, members: NDArray[np.bool_] | None = None) -> Compared:
    """Return the rows of each arm, maybe of a group; or all rows of one arm, and those that have an outcome."""
    if arm is None or fitted.chances is None or fitted.recorded is None:
        which = slice(None) if members is None else np.flatnonzero(members)
        return Compared(which, fitted.scores[:, which], WeightedRows.of(fitted).some(which))
    every = np.flatnonzero((fitted.arm == arm) & (True if members is None else members))
    seen = every[fitted.recorded[every]]
    rows, group = np.r_[every, seen], np.repeat([0, 1], [len(every), len(seen)])
    chances, weights = fitted.chances[rows], fitted.weights[rows]
    weighted = WeightedRows(group, np.stack([weights, weights / np.where(group, chances, 1)]), fitted.units[rows])
    return Compared(rows, np.stack([1 - chances, chances]), weighted, CHANCE)


@dataclass(frozen=True)
class ColumnSums:
    """Moments of q columns in K arms, before and after weighting, of a block of rows or of all.

    `low`, `high` (q,) are the smallest and largest value, `further` (q,) says whether there are others. `total` and
    `squared` (K, 2) are sums of weights, and of their squares over the counts; `mean` and `spread` (K, 2, q) weighted
    means, NaN of no weight, and weighted sums of squared differences from them.
    """

    low: Array
    high: Array
    further: NDArray[np.bool_]
    total: Array
    squared: Array
    mean: Array
    spread: Array

    @classmethod
    def of(cls, x: Array, rows: WeightedRows, n_arms: int) -> ColumnSums:
        """Return the moments of a column of shape (n,)."""
        low, high = x.min(initial=np.inf), x.max(initial=-np.inf)
        further = ((x != low) & (x != high)).any()
        total, squared = rows.totals(n_arms)
        mean, spread = np.full((n_arms, 2), np.nan), np.zeros((n_arms, 2))
        for a in range(n_arms):
            members = rows.arm == a
            own = x[members]
            for when, weights in enumerate(rows.weights):
                if total[a, when] > 0:
                    mean[a, when] = weights[members] @ own / total[a, when]
                    spread[a, when] = weights[members] @ (own - mean[a, when]) ** 2
        ends = np.array([low]), np.array([high]), np.array([further])
        return cls(*ends, total, squared, mean[:, :, None], spread[:, :, None])

    @classmethod
    def of_levels(cls, codes: NDArray[np.integer], q: int, rows: WeightedRows, n_arms: int) -> ColumnSums:
        """Return the moments of the indicators of a factor's q levels by counting its codes, shape (n,)."""
        total, squared = rows.totals(n_arms)
        codes = codes.astype(np.intp, copy=False)  # small integers would overflow below
        sums = sums_at(codes, q, rows.arm, weights=rows.weights, n_samples=n_arms).transpose(1, 2, 0)
        mean = np.divide(sums, total[:, :, None], out=np.full(sums.shape, np.nan), where=total[:, :, None] > 0)
        found, n = np.bincount(codes, minlength=q), len(codes)
        low, high = (found == n).astype(float), (found > 0).astype(float)
        spread = total[:, :, None] * mean * (1 - mean)
        return cls(low, high, np.zeros(q, dtype=bool), total=total, squared=squared, mean=mean, spread=spread)

    @classmethod
    def of_covariates(cls, covariates: Sequence[Covariate], rows: WeightedRows, n_arms: int) -> ColumnSums:
        """Return the moments of covariates; the levels of a factor are counted together."""
        last: dict[int, int] = {}
        for c in covariates:
            if c.code is not None:
                last[id(c.column)] = max(last.get(id(c.column), int(c.column.max(initial=0))), c.code)
        levels: dict[int, ColumnSums] = {}
        parts = []
        for c in covariates:
            if c.code is None:
                parts.append(cls.of(np.ascontiguousarray(c.column), rows, n_arms))
                continue
            if id(c.column) not in levels:
                levels[id(c.column)] = cls.of_levels(c.column, last[id(c.column)] + 1, rows, n_arms)
            parts.append(levels[id(c.column)].some(np.array([c.code])))
        return side_by_side(parts)

    def beside(self, other: ColumnSums) -> ColumnSums:
        """Merge with the moments of other rows, by the formula of Chan, Golub and LeVeque."""
        low, high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        ends = np.stack([self.low, self.high, other.low, other.high])
        total = self.total + other.total
        share = np.divide(other.total, total, out=np.zeros_like(total), where=total > 0)[:, :, None]
        known, both = self.total[:, :, None] > 0, ((self.total > 0) & (other.total > 0))[:, :, None]
        apart = np.where(both, other.mean - self.mean, 0)
        return ColumnSums(
            low=low,
            high=high,
            further=self.further | other.further | ((ends > low) & (ends < high)).any(axis=0),
            total=total,
            squared=self.squared + other.squared,
            mean=np.where(known, self.mean + apart * share, other.mean),
            spread=self.spread + other.spread + apart**2 * share * self.total[:, :, None],
        )

    @property
    def varying(self) -> NDArray[np.bool_]:
        """Mask of the columns that take more than one value, shape (q,)."""
        return self.low < self.high

    @property
    def binary(self) -> NDArray[np.bool_]:
        """Mask of the columns that take just two values, shape (q,)."""
        return self.varying & ~self.further

    def indicating(self, binary: NDArray[np.bool_]) -> ColumnSums:
        """Return the moments with each binary column as the 0/1 indicator of its larger value."""
        shift, width = np.where(binary, self.low, 0), np.where(binary, self.high - self.low, 1)
        return replace(
            self,
            low=(self.low - shift) / width,
            high=(self.high - shift) / width,
            mean=(self.mean - shift) / width,
            spread=self.spread / width**2,
        )

    def some(self, which: NDArray[np.intp]) -> ColumnSums:
        """Return the moments of some of the columns."""
        ends = {name: getattr(self, name)[which] for name in ("low", "high", "further")}
        return replace(self, **ends, mean=self.mean[:, :, which], spread=self.spread[:, :, which])

    def arms_together(self) -> ColumnSums:
        """Return the moments of all arms merged into one."""
        names = ("total", "squared", "mean", "spread")
        arms = ({name: getattr(self, name)[[a]] for name in names} for a in range(len(self.total)))
        return reduce(ColumnSums.beside, (replace(self, **own) for own in arms))

    def variance(self, binary: NDArray[np.bool_]) -> Array:
        """Weighted variances (K, 2, q) as cobalt defines them; p (1 - p) for binary columns.

        sum w (x - m)^2 sum w / ((sum w)^2 - sum w^2), which is the sample variance for equal weights.
        """
        freedom = self.total**2 - self.squared
        factor = np.divide(self.total, freedom, out=np.full_like(freedom, np.nan), where=freedom > 0)
        return np.where(binary, self.mean * (1 - self.mean), self.spread * factor[:, :, None])

    def standard_deviations(self, denominator: str | int, binary: NDArray[np.bool_]) -> Array:
        """Return the denominators of standardized mean differences, shape (q,).

        Root mean variance of the arms before weighting ("pooled"), that of one arm, or of all rows after it
        ("weighted").
        """
        if denominator == "weighted":
            return np.sqrt(self.arms_together().variance(binary)[0, 1])
        variances = self.variance(binary)[:, 0]
        return np.sqrt(variances[denominator] if isinstance(denominator, int) else variances.mean(axis=0))


def side_by_side(parts: Sequence[ColumnSums]) -> ColumnSums:
    """Return the moments of the columns of all parts, which are of the same rows."""
    names = "low", "high", "further", "mean", "spread"
    return replace(parts[0], **{n: np.concatenate([getattr(part, n) for part in parts], axis=-1) for n in names})


SCORE_DECIMALS = 10  # scores that differ by less are the same: rounding differs between equal rows


@dataclass(frozen=True)
class Measured:
    """Columns measured: the scores of all arms but the reference, then the covariates `names`.

    `distances` (q, K - 1, 2) are Kolmogorov-Smirnov distances from the reference, before and after weighting.
    `distance` names the scores.
    """

    names: tuple[str, ...]
    sums: ColumnSums
    distances: Array
    distance: str = DISTANCE


def columns_of(rows: Compared, covariates: Sequence[Covariate]) -> list[Covariate]:
    """Scores of all sets of rows but the first, then covariates."""
    scores = (Covariate(rows.distance, "", np.round(score, SCORE_DECIMALS)) for score in rows.scores[1:])
    return [*scores, *on_rows(covariates, rows.rows)]


def steps_of(columns: Sequence[Covariate], sums: ColumnSums, rows: WeightedRows) -> Iterator[Steps]:
    """Yield the distribution functions of the columns; of two values they follow from the sums."""
    n_arms = len(sums.total)
    for j, column in enumerate(columns):
        if sums.binary[j] and j >= n_arms - 1:
            ends = np.array([sums.low[j], sums.high[j]])
            above = np.where(sums.total > 0, sums.total * (sums.mean[:, :, j] - ends[0]) / (ends[1] - ends[0]), 0)
            yield Steps(ends, np.stack([sums.total - above, above]))
        else:
            yield Steps.of(column.values, rows.arm, rows.weights, n_arms)


def measured(covariates: Sequence[Covariate], rows: Compared) -> Measured:
    """Measure covariates of shape (n,), and the scores, of rows in memory."""
    columns, weighted = columns_of(rows, covariates), rows.weighted
    sums = ColumnSums.of_covariates(columns, weighted, len(rows.scores))
    distances = np.stack([steps.distances() for steps in steps_of(columns, sums, weighted)])
    return Measured(tuple(c.name for c in covariates), sums, distances, rows.distance)


@dataclass(frozen=True)
class Columns:
    """Columns that are made of the covariates of a block: these, and maybe squares and products.

    `names` are for the reader, `arm` is the arm whose rows with an outcome are compared with all, `base` the covariates
    to multiply, `squared` those to square.
    """

    names: Mapping[str, str]
    arm: int | None = None
    base: frozenset[str] | None = None
    squared: frozenset[str] = frozenset()

    def of(self, rows: FittedRows) -> list[Covariate]:
        """Return the columns of a block."""
        found = rows.covariates(self.arm is not None)
        if self.base is not None:
            found = with_products([c for c in found if c.name in self.base], self.squared)
        return renamed(found, self.names)


def measured_on_disk(
    record: FitRecord, names: Mapping[str, str], interactions: bool, arm: int | None = None
) -> Measured:
    """Measure covariates on disk, and maybe the products of those that vary."""
    rows, columns = compared(record.rows, arm), Columns(names, arm)
    if interactions:
        found = _some_at_a_time(record, Columns({}, arm), rows)
        first = len(found.sums.low) - len(found.names)
        kinds = zip(found.names, found.sums.varying[first:], found.sums.binary[first:], strict=True)
        base = {name: bool(binary) for name, varying, binary in kinds if varying}
        squared = frozenset(name for name, binary in base.items() if not binary)
        columns = Columns(names, arm, frozenset(base), squared)
    return _some_at_a_time(record, columns, rows)


def _some_at_a_time(record: FitRecord, columns: Columns, rows: Compared) -> Measured:
    """As `measured`, with as many covariates in memory at a time as there is room for."""
    width, found, count = max(ROOM // len(rows.weighted.arm), 1), list[Measured](), 1
    while width * len(found) < count:
        some = slice(width * len(found), width * (len(found) + 1))
        counts, parts = zip(*record.over(partial(_columns_of_part, columns, some)), strict=True)
        count, whole = counts[0], dict[int, Array]()
        for same in zip(*parts, strict=True):
            if id(same[0].column) not in whole:  # the levels of a factor share their codes
                whole[id(same[0].column)] = np.concatenate([c.column for c in same])
        found.append(measured([replace(c, column=whole[id(c.column)]) for c in parts[0]], rows))
    scores = len(rows.scores) - 1
    rest = [one.sums.some(np.arange(scores, len(one.sums.low))) for one in found[1:]]
    return Measured(
        tuple(name for one in found for name in one.names),
        side_by_side([found[0].sums, *rest]),
        np.concatenate([found[0].distances, *(one.distances[scores:] for one in found[1:])]),
        rows.distance,
    )


def _columns_of_part(columns: Columns, some: slice, rows: FittedRows) -> tuple[int, list[Covariate]]:
    found = columns.of(rows)
    return len(found), found[some]
