"""Balance of covariates between arms, before and after weighting, with the denominators of R's cobalt."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalrisk.design import covariates
from causalrisk.design.covariates import Covariate
from causalrisk.design.design import Design
from causalrisk.design.on_disk import DesignOnDisk
from causalrisk.errors import DesignError, OptionError, UnavailableError, not_on_disk, one_of
from causalrisk.estimation.fits import FittedRows
from causalrisk.estimation.record import FitRecord
from causalrisk.numerics.arrays import Arms, Array

ARMS, OBSERVED = "arms", "observed"  # what is compared
WHEN = ("before", "after")
ROOM = 10**8  # maximum number of covariate values from disk in memory
NO_COVARIATES = 'the formulas have no covariate that varies.\nUse `also="~ x1 + x2", data=data`.'
SCORE_DECIMALS = 10  # scores are rounded, as rounding error differs between equal rows


def chosen_covariates(
    record: FitRecord, also: Any, data: Any, interactions: bool, names: Any, of_observation: bool = False
) -> list[Covariate]:
    """Return the covariates of both formulas and of `also`, for data in memory. Options are as in `balance`."""
    full, design = record.full_design, record.design
    kept = design.in_sample[full.in_sample].to_numpy()
    found = {c.name: c for c in covariates.covariates_of_design(full, kept, of_observation)}
    for covariate in [] if also is None else covariates.further_covariates(full, also, data):
        found.setdefault(covariate.name, replace(covariate, column=covariate.column[kept]))
    columns = list(found.values())
    return covariates.renamed(covariates.with_products(columns) if interactions else columns, names)


def balance(
    record: FitRecord,
    binary: Literal["raw", "std"] = "std",
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
    binary : {"std", "raw"}
        Difference to show for binary columns. "std" (default): standardized, as in `plot_balance`. "raw": difference of
        proportions, the default of R's cobalt.
    between : {"arms", "observed"}
        "arms" (default) compares each treatment group with the reference. "observed" is for missing outcomes. It
        compares the rows with an outcome to all rows of their treatment group, before and after weighting by the
        inverse probability that the outcome is observed.
    also : str, sequence of str or DataFrame, optional
        Further covariates: a one-sided formula such as "~ fage + C(mrace)", names, or the variables themselves.
    data : DataFrame or mapping, optional
        The data of the model; needed for variables of `also` and `by` that are in neither formula.
    by : str or array-like, optional
        Grouping variable: a name, or one value per row. Balance is shown within each group.
    interactions : bool
        Whether to add squares and products of the covariates.
    means : bool
        Whether to add the mean and standard deviation in each treatment group.
    threshold : float, optional
        Largest absolute difference (after weighting, if any) that counts as balanced, usually 0.1. Adds a column
        "balanced".
    names : mapping of str to str, optional
        Printed names, such as ``{"mage": "Mother's age"}``.

    Returns
    -------
    DataFrame
        One row per covariate of either formula, or per level of a factor. The first row is the propensity score if the
        estimate uses it. The rows are repeated for each contrast (with several treatments), each group of `by`, and
        each treatment group (with ``between="observed"``). There are columns "diff", "var ratio" and "KS", each
        "before" and "after" weighting. Estimators without weights, such as `OutcomeRegression`, have no columns
        "after". "kind" is "distance" (the score), "binary" or "continuous". "unit" is the unit of the difference, "std"
        or "raw". `means` adds "mean" and "sd" of each treatment group. For a binary covariate, "mean" is the proportion
        of the larger value, and "sd" is NaN. For a paper, use
        ``res.table_one().save("balance.tex")``, which has the same differences.

    Raises
    ------
    DesignError
        If a variable is unknown or has missing values in the sample, or a treatment group has no rows in a group of
        `by`.
    OptionError
        If an option has a value that is not allowed.
    UnavailableError
        If ``between="observed"`` and no missing outcome is modelled, or if `also`, `by` or `interactions` is given for
        scanned data.

    Notes
    -----
    Definitions follow R's cobalt [1]_. Differences of means are divided by the same standard deviation before and after
    weighting:

    - for the ATE and target frames: the root of the mean of the variances ("pooled"), sqrt((s_1^2 + s_0^2) / 2);
    - for the ATT and ATC: the standard deviation of the target group;
    - for targets that depend on the propensity score, such as "overlap": the standard deviation of all rows after
      weighting;
    - with ``between="observed"``: the standard deviation of all rows of the treatment group.

    Variance ratios are relative to the reference group. They are missing for binary columns. KS is the
    Kolmogorov-Smirnov statistic, the largest distance between the weighted distribution functions. Differences below
    0.1 are usually considered balanced. Scanned data (`causalrisk.scan`) give the same numbers.

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
    >>> res.balance()[["diff before", "diff after"]].round(2)
                      diff before  diff after
    covariate
    propensity score         0.59        0.00
    mage                    -0.30       -0.08
    mmarried                -0.60       -0.00
    """
    one_of("binary", binary, ("raw", "std"))
    one_of("between", between, (ARMS, OBSERVED))
    check_threshold(threshold)
    design, population, labels, rows = record.design, record.options.population, record.design.labels, record.rows
    denominator = population.balance_denominator if population.toward is None else population.toward
    arms: dict[str, int | None] = {"": None}
    if between == OBSERVED:
        if rows.chances is None:
            raise UnavailableError('between="observed" needs observed=.\nUse `IPWRA.from_formula(..., observed=)`.')
        arms, labels, denominator = {label: a for a, label in enumerate(labels)}, ("all", OBSERVED), 0
    for name, given in {"also": also, "by": by, "interactions": interactions or None}.items():
        if design.on_disk and given is not None:
            raise not_on_disk(f"{name}=")
    observed, weighted, tables = between == OBSERVED, record.spec.uses_propensity, {}
    groups: dict[Any, Any] = {"": None} if by is None else groups_of(design, by, data)
    levels = [k for k, asked in enumerate((by is not None, observed)) if asked]
    every = [] if design.on_disk else chosen_covariates(record, also, data, interactions, names, observed)
    for (group, members), (label, arm) in product(groups.items(), arms.items()):
        part, key = compared(rows, arm, members), tuple((group, label)[k] for k in levels)
        columns = covariates_on_disk(record, names) if design.on_disk else iter(every)
        tables[key] = balance_table(part, columns, labels, denominator, raw_binary=binary == "raw", means=means)
    table = pd.concat(tables, names=[("group", "arm")[k] for k in levels]) if levels else tables[()]
    table = table if weighted and record.uses_score else table[table["kind"] != "distance"]
    table = table if weighted else table.loc[:, ~table.columns.str.endswith(WHEN[1])]
    return table if threshold is None else table.assign(balanced=table[f"diff {WHEN[weighted]}"].abs() <= threshold)


def check_threshold(threshold: float | None) -> None:
    """Raise an OptionError unless the threshold of balance is positive or None."""
    if threshold is not None and not threshold > 0:
        raise OptionError(f"threshold={threshold!r}; expected a positive number.\nUse `threshold=0.1`.")


def groups_of(design: Design, by: Any, data: Any) -> dict[Any, NDArray[np.bool_]]:
    """Return a mask of the rows of each group. Raise a DesignError if a group has no rows of some arm."""
    found = covariates.moderators(design, by, data)
    if not found.groups:
        raise OptionError(f'by={by!r} is a formula; expected the name of a grouping variable.\nUse `by="x"`.')
    members = {name: column > 0 for name, column in zip(found.keys, found.columns.T, strict=True)}
    for name, rows in members.items():
        absent = [label for label, arm in zip(design.labels, design.members, strict=True) if not (rows & arm).any()]
        if absent:
            group = f"{', '.join(found.levels)} = {name}"
            raise DesignError(f"{group} has no rows in treatment group {absent[0]!r}.\nUse larger groups.")
    return members


@dataclass(frozen=True)
class Compared:
    """K sets of rows, n rows in all. Each set is compared with the first.

    `rows` has positions in the sample. `arm` is the set of each row. `weights` (2, n) are before and after weighting.
    `counts` (n,) is the number of observations that each row represents. `scores` (K, n) has each set's probability.
    """

    rows: slice | NDArray[np.intp]
    arm: Arms
    weights: Array
    counts: Array
    scores: Array
    distance: str = "propensity score"


def compared(fitted: FittedRows, arm: int | None = None, members: NDArray[np.bool_] | None = None) -> Compared:
    """Return the sets to compare: the arms. For one `arm`, the sets are all its rows and its rows with an outcome."""
    if arm is None or fitted.chances is None:
        rows = slice(None) if members is None else np.flatnonzero(members)
        weights = np.stack([fitted.weights, fitted.weights * fitted.importance])
        return Compared(rows, fitted.arm[rows], weights[:, rows], fitted.units[rows], fitted.scores[:, rows])
    every = np.flatnonzero((fitted.arm == arm) & (True if members is None else members))
    seen = every[fitted.recorded[every]]
    rows, group = np.r_[every, seen], np.repeat([0, 1], [len(every), len(seen)])
    chances, weights = fitted.chances[rows], fitted.weights[rows]
    both, scores = np.stack([weights, weights / np.where(group, chances, 1)]), np.stack([1 - chances, chances])
    return Compared(rows, group, both, fitted.units[rows], scores, "probability of an outcome")


def mean_and_variance(x: Array, weights: Array, counts: Array, binary: bool) -> tuple[float, float]:
    """Return mean and variance as in cobalt: sum w (x - m)^2 sum w / ((sum w)^2 - sum w^2), or p (1 - p) if binary."""
    total = weights.sum()
    if not total > 0:
        return np.nan, np.nan
    mean = float(weights @ x / total)
    if binary:
        return mean, mean * (1 - mean)
    freedom = total**2 - (weights**2 / counts).sum()
    return mean, float(weights @ (x - mean) ** 2 * total / freedom) if freedom > 0 else np.nan


def comparisons(
    x: Array, rows: Compared, labels: Sequence[str], denominator: str | int, raw_binary: bool, means: bool, score: bool
) -> list[dict[str, Any]]:
    """Compare the mean of a covariate (n,) in each set of rows with the first set. Return one row per comparison."""
    low, high = x.min(initial=np.inf), x.max(initial=-np.inf)
    binary = bool(not score and low < high and ((x == low) | (x == high)).all())
    x = np.where(x == high, 1.0, 0.0) if binary else x
    members = [np.flatnonzero(rows.arm == a) for a in range(len(labels))]
    found = np.array([
        [mean_and_variance(x[own], weights[own], rows.counts[own], binary) for weights in rows.weights]
        for own in members
    ])  # fmt: skip
    mean, variance = found[:, :, 0], found[:, :, 1]
    distances = np.abs(mean[1:] - mean[0]) if binary else ks_distances(x, rows)
    square = variance[denominator, 0] if isinstance(denominator, int) else variance[:, 0].mean()
    if denominator == "weighted":
        square = mean_and_variance(x, rows.weights[1], rows.counts, binary)[1]
    unit = 1.0 if binary and raw_binary else np.sqrt(square) if low < high else np.nan
    with np.errstate(divide="ignore", invalid="ignore"):
        differences = (mean - mean[0]) / unit
        ratios = variance / (np.nan if binary or low == high else variance[0])
    common: dict[str, Any] = {}
    for (k, when), (a, label) in product(enumerate(WHEN), enumerate(labels)) if means else ():
        common[f"mean {label} {when}"] = mean[a, k]
        common[f"sd {label} {when}"] = np.nan if binary else np.sqrt(variance[a, k])
    kind = {"kind": "distance" if score else "binary" if binary else "continuous"}
    kind["unit"] = "raw" if binary and raw_binary else "std"
    table = []
    for arm in range(1, len(labels)):
        named = {"diff": differences[arm], "var ratio": ratios[arm], "KS": distances[arm - 1]}
        numbers = {f"{name} {when}": values[k] for name, values in named.items() for k, when in enumerate(WHEN)}
        table.append(common | numbers | kind)
    return table


def ks_distances(x: Array, rows: Compared) -> Array:
    """Return the largest distance (K - 1, 2) between the weighted distribution functions of each set and the first."""
    values, place = np.unique(x, return_inverse=True)
    n_arms, size = len(rows.scores), len(values)
    code = place * n_arms + rows.arm
    masses = [np.bincount(code, w, size * n_arms).reshape(size, n_arms) for w in rows.weights]
    upto = np.cumsum(np.stack(masses, axis=-1), axis=0, dtype=float)
    with np.errstate(invalid="ignore"):  # a set may have no weight
        upto /= upto[-1]
    largest: Array = np.abs(upto[:, 1:] - upto[:, :1]).max(axis=0)
    return largest


def balance_table(
    rows: Compared, every: Iterable[Covariate], labels: Sequence[str], denominator: str | int, **shown: Any
) -> pd.DataFrame:
    """Compare score and covariates in each set of rows with the first set. Constant covariates are left out."""
    how, names, found, tables = (rows, labels, denominator), [rows.distance], [], {}
    for covariate in every:
        x = np.ascontiguousarray(covariate.values[rows.rows])
        if (x != x[:1]).any():
            names.append(covariate.name)
            found.append(comparisons(x, *how, **shown, score=False))
    for arm in range(1, len(labels)):
        score = comparisons(np.round(rows.scores[arm], SCORE_DECIMALS), *how, **shown, score=True)
        table = [of_arms[arm - 1] for of_arms in (score, *found)]
        tables[f"{labels[arm]} vs {labels[0]}"] = pd.DataFrame(table, pd.Index(names, name="covariate"))
    return next(iter(tables.values())) if len(tables) == 1 else pd.concat(tables, names=["contrast", "covariate"])


def covariates_on_disk(record: FitRecord, names: Mapping[str, str] | None) -> Iterator[Covariate]:
    """Yield the covariates of data on disk. Only as many as `ROOM` allows are in memory at a time."""
    design, first, count = cast(DesignOnDisk, record.design), 0, 1
    width, order = max(ROOM // design.n, 1), np.argsort(np.concatenate([part.position for part in design.parts]))
    while first < count:
        parts: list[list[Covariate]] = []
        for part in design.parts:
            every = covariates.covariates_of_block(design, design.variables(part))
            count = len(every)
            parts.append(every[first : first + width])
        for same in zip(*parts, strict=True):
            column = np.concatenate([covariate.column for covariate in same])[order]
            yield from covariates.renamed([replace(same[0], column=column)], names)
        first += width
