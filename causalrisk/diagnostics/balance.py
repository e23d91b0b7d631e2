"""Balance of covariates between arms, before and after weighting, with the denominators of R's cobalt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalrisk.design import Design
from causalrisk.design.covariates import (
    Covariate,
    covariates_of_design,
    further_covariates,
    renamed,
    with_products,
)
from causalrisk.design.moderators import moderators
from causalrisk.errors import DesignError, OptionError, one_of
from causalrisk.estimators.record import FitRecord
from causalrisk.numerics.linalg import Array

DISTANCE = "propensity score"
STATISTICS = ("diff", "var ratio", "KS")


@dataclass(frozen=True)
class WeightedRows:
    """Rows with what they weigh.

    Parameters
    ----------
    arm : ndarray of int, shape (n,)
        Arm of each row.
    before, after : ndarray, shape (n,)
        What a row weighs without and with importance weights.
    counts : ndarray, shape (n,)
        How many rows a row stands for; ones but for frequency weights.
    """

    arm: NDArray[np.intp]
    before: Array
    after: Array
    counts: Array


def is_binary(columns: Array) -> NDArray[np.bool_]:
    """Whether each column of shape (n, q) takes just two values, shape (q,)."""
    low, high = columns.min(axis=0), columns.max(axis=0)
    return np.asarray(((columns == low) | (columns == high)).all(axis=0) & (low < high))


def weighted_mean(columns: Array, weights: Array) -> Array:
    """Weighted mean of each column, shape (q,)."""
    return weights @ columns / weights.sum()


def weighted_variance(columns: Array, weights: Array, counts: Array, binary: NDArray[np.bool_]) -> Array:
    """Weighted variance of each column as cobalt defines it.

    Parameters
    ----------
    columns : ndarray, shape (n, q)
        Columns; binary ones coded 0 and 1.
    weights : ndarray, shape (n,)
        Weight of each row, times its count.
    counts : ndarray, shape (n,)
        How many rows a row stands for.
    binary : ndarray of bool, shape (q,)
        Columns whose variance is p (1 - p).

    Returns
    -------
    ndarray, shape (q,)
        sum w (x - m)^2 sum w / ((sum w)^2 - sum w^2), which is the sample variance for equal weights.
    """
    mean, total = weighted_mean(columns, weights), weights.sum()
    freedom = total**2 - (weights**2 / counts).sum()
    spread = weights @ (columns - mean) ** 2 * total / (freedom if freedom > 0 else np.nan)
    return np.where(binary, mean * (1 - mean), spread)


def ks_distance(first: Array, second: Array, first_weights: Array, second_weights: Array) -> Array:
    """Largest distance between the weighted distribution functions of each column in two samples.

    Parameters
    ----------
    first, second : ndarray, shape (m, q) and (n, q)
        The samples.
    first_weights, second_weights : ndarray, shape (m,) and (n,)
        Their weights.

    Returns
    -------
    ndarray, shape (q,)
        Kolmogorov-Smirnov distances, for a binary column the difference of the proportions.
    """
    signed = np.r_[first_weights / first_weights.sum(), -second_weights / second_weights.sum()]
    distances = []
    for x in np.concatenate([first, second]).T:
        order = np.argsort(x, kind="stable")
        gap = np.cumsum(signed[order])
        last = np.r_[x[order][1:] != x[order][:-1], True]  # ties jump together
        distances.append(np.abs(gap[last]).max())
    return np.array(distances)


def standard_deviations(columns: Array, rows: WeightedRows, denominator: str | int, binary: NDArray[np.bool_]) -> Array:
    """Return what mean differences are divided by, shape (q,).

    Parameters
    ----------
    columns : ndarray, shape (n, q)
        Columns; binary ones coded 0 and 1.
    rows : WeightedRows
        Arms and weights.
    denominator : {"pooled", "weighted"} or int
        Root mean variance of the arms, or that of one arm, before weighting; or that of all rows after it.
    binary : ndarray of bool, shape (q,)
        Binary columns.
    """
    if denominator == "weighted":
        return np.sqrt(weighted_variance(columns, rows.after, rows.counts, binary))
    arms = range(rows.arm.max() + 1) if denominator == "pooled" else [denominator]
    members = [rows.arm == a for a in arms]
    variances = [weighted_variance(columns[m], rows.before[m], rows.counts[m], binary) for m in members]
    return np.sqrt(np.mean(variances, axis=0))


def contrast_balance(
    columns: Array, rows: WeightedRows, arm: int, scale: Array, binary: NDArray[np.bool_]
) -> dict[str, Array]:
    """Compare an arm with the reference arm before and after weighting.

    Parameters
    ----------
    columns : ndarray, shape (n, q)
        Columns; binary ones coded 0 and 1.
    rows : WeightedRows
        Arms and weights.
    arm : int
        The arm.
    scale : ndarray, shape (q,)
        What mean differences are divided by.
    binary : ndarray of bool, shape (q,)
        Binary columns, which have no variance ratio.

    Returns
    -------
    dict of str to ndarray, shape (q,)
        "diff", "var ratio" and "KS", each "before" and "after".
    """
    one, zero = rows.arm == arm, rows.arm == 0
    found = {}
    for when, weights in (("before", rows.before), ("after", rows.after)):
        difference = weighted_mean(columns[one], weights[one]) - weighted_mean(columns[zero], weights[zero])
        variances = [weighted_variance(columns[m], weights[m], rows.counts[m], binary) for m in (one, zero)]
        with np.errstate(divide="ignore", invalid="ignore"):
            found[f"diff {when}"] = difference / scale
            found[f"var ratio {when}"] = np.where(binary, np.nan, variances[0] / variances[1])
        found[f"KS {when}"] = ks_distance(columns[one], columns[zero], weights[one], weights[zero])
    return {f"{name} {when}": found[f"{name} {when}"] for name in STATISTICS for when in ("before", "after")}


def arm_moments(
    columns: Array, rows: WeightedRows, labels: Sequence[str], binary: NDArray[np.bool_]
) -> dict[str, Array]:
    """Return means and standard deviations in each arm before and after weighting.

    Parameters
    ----------
    columns : ndarray, shape (n, q)
        Columns; binary ones coded 0 and 1.
    rows : WeightedRows
        Arms and weights.
    labels : sequence of str
        Labels of the arms.
    binary : ndarray of bool, shape (q,)
        Binary columns, whose mean, a proportion, says it all.

    Returns
    -------
    dict of str to ndarray, shape (q,)
        "mean a before", "sd a before" and so on, for each arm a.
    """
    found = {}
    for when, weights in (("before", rows.before), ("after", rows.after)):
        for arm, label in enumerate(labels):
            members = rows.arm == arm
            values, own = columns[members], weights[members]
            found[f"mean {label} {when}"] = weighted_mean(values, own)
            spread = np.sqrt(weighted_variance(values, own, rows.counts[members], binary))
            found[f"sd {label} {when}"] = np.where(binary, np.nan, spread)
    return found


def balance_table(
    covariates: Sequence[Covariate],
    scores: Array,
    rows: WeightedRows,
    labels: Sequence[str],
    denominator: str | int,
    *,
    raw_binary: bool,
    means: bool = False,
) -> pd.DataFrame:
    """Balance of every column and of the propensity score, for each arm against the reference.

    Parameters
    ----------
    covariates : sequence of Covariate
        The columns; constant ones are left out.
    scores : ndarray, shape (K, n)
        Probability of each arm.
    rows : WeightedRows
        Arms and weights.
    labels : sequence of str
        Labels of the arms.
    denominator : str or int
        As in `standard_deviations`.
    raw_binary : bool
        Whether differences of binary columns stay differences of proportions.
    means : bool
        Whether to add means and standard deviations of the arms.

    Returns
    -------
    DataFrame
        A row a column; with several arms the contrast is the first level of the index.
    """
    varying = [c for c in covariates if np.ptp(c.values) > 0]
    index = pd.Index([DISTANCE, *(c.name for c in varying)], name="covariate")
    tables = {}
    for arm in range(1, len(labels)):
        values = np.column_stack([scores[arm], *(c.values for c in varying)])
        binary = is_binary(values) & (np.arange(values.shape[1]) > 0)
        values = np.where(binary, values == values.max(axis=0), values)
        scale = standard_deviations(values, rows, denominator, binary)
        found = contrast_balance(
            values, rows=rows, arm=arm, scale=np.where(binary & raw_binary, 1.0, scale), binary=binary
        )
        if means:
            found = arm_moments(values, rows, labels, binary) | found
        kinds = ["distance", *np.where(binary[1:], "binary", "continuous")]
        units = ["raw" if b and raw_binary else "std" for b in binary]
        tables[f"{labels[arm]} vs {labels[0]}"] = pd.DataFrame({**found, "kind": kinds, "unit": units}, index=index)
    if len(tables) == 1:
        return next(iter(tables.values()))
    return pd.concat(tables, names=["contrast", "covariate"])


def weighted_rows(record: FitRecord) -> WeightedRows:
    """Return the rows of a fit with what they weigh before and after weighting."""
    design = record.design
    importance = record.sample.restore(record.used_weight_fit.undivided)
    return WeightedRows(design.arm, design.weights, design.weights * importance, design.units)


def chosen_covariates(
    record: FitRecord,
    also: Any = None,
    data: Any = None,
    interactions: bool = False,
    names: Mapping[str, str] | None = None,
) -> list[Covariate]:
    """Return the covariates of both models and further ones on the rows of a fit, as `balance` takes them."""
    full, design = record.full_design, record.design
    kept = design.in_sample[full.in_sample].to_numpy()
    found = {c.name: c for c in covariates_of_design(full, kept)}
    for covariate in [] if also is None else further_covariates(full, also, data):
        found.setdefault(covariate.name, replace(covariate, values=covariate.values[kept]))
    columns = list(found.values())
    return renamed(with_products(columns) if interactions else columns, names)


def balance(
    record: FitRecord,
    binary: str = "raw",
    *,
    also: Any = None,
    data: Any = None,
    by: Any = None,
    interactions: bool = False,
    means: bool = False,
    threshold: float | None = None,
    names: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Balance of the covariates between arms, before and after weighting.

    Parameters
    ----------
    binary : {"raw", "std"}
        Whether differences of binary columns are of proportions, or standardized as those of the others.
    also : str, sequence of str or DataFrame, optional
        Further covariates: a one-sided formula such as "~ fage + C(mrace)", names, or the variables themselves.
    data : DataFrame or mapping, optional
        The data the model was made from; needed for variables of `also` and `by` that are in neither formula.
    by : str or array-like, optional
        Name of a grouping variable, or one value per row: balance within each group.
    interactions : bool
        Whether to add squares and products of the covariates.
    means : bool
        Whether to add means and standard deviations of each arm.
    threshold : float, optional
        Adds a column "balanced", whether the difference after weighting is no larger; 0.1 is usual.
    names : mapping of str to str, optional
        Names for the reader, such as ``{"mage": "Mother's age"}``.

    Returns
    -------
    DataFrame
        A row for the propensity score and for each covariate of either formula, every level of a factor among them;
        several arms: for each arm against the reference; with `by`: for each group. Columns "diff", "var ratio" and
        "KS", each "before" and "after" weighting, "kind" and "unit" ("std" or "raw"); with `means`, "mean" and "sd"
        of each arm; binary covariates have the proportion of the larger value, and no "sd". Where pandas prints dots
        for columns that a terminal has no room for, ``pandas.set_option("display.max_columns", None)`` shows all.

    Raises
    ------
    DesignError
        If a variable is unknown or misses values in the sample, or a group has no rows in an arm.
    OptionError
        If an option has a value that is not allowed.

    Notes
    -----
    Definitions are those that R's cobalt documents [1]_. Differences of means are divided by a standard
    deviation of the unweighted sample, the same before and after: for the ATE sqrt((s_1^2 + s_0^2) / 2),
    cobalt's "pooled" (several arms: the mean of all variances), for the ATT and ATC that of the arm that is the
    target; for the overlap population and functions of the score that of all rows after weighting; within a group, of
    the group. Differences of binary columns are raw by default there too. Variance ratios are treated over control and
    are not defined for binary columns. KS is the largest distance of the weighted distribution functions. Differences
    below 0.1 are usually taken as balanced.

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
    check_threshold(threshold)
    design, scores, rows = record.design, record.scores, weighted_rows(record)
    covariates = chosen_covariates(record, also=also, data=data, interactions=interactions, names=names)
    population = record.options.population
    denominator = population.balance_denominator if population.toward is None else population.toward

    def part(some: NDArray[np.bool_]) -> pd.DataFrame:
        within = [replace(c, values=c.values[some]) for c in covariates]
        own = WeightedRows(rows.arm[some], rows.before[some], rows.after[some], rows.counts[some])
        return balance_table(
            within,
            scores=scores[:, some],
            rows=own,
            labels=design.labels,
            denominator=denominator,
            raw_binary=binary == "raw",
            means=means,
        )

    if by is None:
        table = part(np.ones(design.n, dtype=bool))
    else:
        groups = groups_of(design, by, data)
        table = pd.concat({name: part(some) for name, some in groups.items()}, names=["group"])
    return table if threshold is None else table.assign(balanced=table["diff after"].abs() <= threshold)


def check_threshold(threshold: float | None) -> None:
    """Raise an OptionError unless the threshold of balance is positive or None."""
    number = isinstance(threshold, (int, float, np.number)) and not isinstance(threshold, bool)
    if threshold is not None and not (number and threshold > 0):
        raise OptionError(f"threshold={threshold!r}; expected a positive number.\nType  threshold=0.1.")


def groups_of(design: Design, by: Any, data: Any) -> dict[str, NDArray[np.bool_]]:
    """Return which rows are in which group, each of which needs rows of every arm."""
    found = moderators(design, by, data)
    if not found.groups:
        only = by.strip(" ~") if isinstance(by, str) else ""
        advice = f'by="{only}".' if only.isidentifier() else 'by="sex"  with the name of yours.'
        raise OptionError(f"by={by!r} is a formula; expected a grouping variable.\nType  {advice}")
    names = [name if isinstance(name, str) else ", ".join(name) for name in found.names]
    members = {name: column > 0 for name, column in zip(names, found.columns.T, strict=True)}
    for name, rows in members.items():
        absent = [label for label, arm in zip(design.labels, design.members, strict=True) if not (rows & arm).any()]
        if absent:
            raise DesignError(
                f"{', '.join(found.levels)} = {name} has no rows in arm {absent[0]!r}, so there is nothing to balance "
                "there.\n"
                "Merge that group with another."
            )
    return members
