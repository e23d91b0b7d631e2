"""Balance of covariates between arms, before and after weighting, with the denominators of R's cobalt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalrisk.errors import one_of
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


def balance_table(
    columns: Array,
    names: Sequence[str],
    scores: Array,
    rows: WeightedRows,
    labels: Sequence[str],
    denominator: str | int,
    raw_binary: bool,
) -> pd.DataFrame:
    """Balance of every column and of the propensity score, for each arm against the reference.

    Parameters
    ----------
    columns : ndarray, shape (n, q)
        Columns of the propensity design; constant ones are left out.
    names : sequence of str
        Their names.
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

    Returns
    -------
    DataFrame
        A row a column; with several arms the contrast is the first level of the index.
    """
    varying = [j for j, spread in enumerate(np.ptp(columns, axis=0)) if spread > 0]
    tables = {}
    for arm in range(1, len(labels)):
        values = np.column_stack([scores[arm], columns[:, varying]])
        binary = is_binary(values) & (np.arange(values.shape[1]) > 0)
        values = np.where(binary, values == values.max(axis=0), values)
        scale = standard_deviations(values, rows, denominator, binary)
        found = contrast_balance(values, rows, arm, np.where(binary & raw_binary, 1.0, scale), binary)
        kinds = ["distance", *np.where(binary[1:], "binary", "continuous")]
        units = ["raw" if b and raw_binary else "std" for b in binary]
        index = pd.Index([DISTANCE, *(names[j] for j in varying)], name="covariate")
        tables[f"{labels[arm]} vs {labels[0]}"] = pd.DataFrame({"kind": kinds, "unit": units, **found}, index=index)
    if len(tables) == 1:
        return next(iter(tables.values()))
    return pd.concat(tables, names=["contrast", "covariate"])


def balance(record: FitRecord, binary: str = "raw") -> pd.DataFrame:
    """Balance of the columns of the propensity design between arms, before and after weighting.

    Parameters
    ----------
    binary : {"raw", "std"}
        Whether differences of binary columns are of proportions, or standardized as those of the others.

    Returns
    -------
    DataFrame
        A row for the propensity score and each column but the constant (several arms: for each arm against the
        reference); columns "kind", "unit" ("std" or "raw"), and "diff", "var ratio" and "KS", each "before" and
        "after" weighting.

    Notes
    -----
    Definitions are those that R's cobalt documents [1]_. Differences of means are divided by a standard
    deviation of the unweighted sample, the same before and after: for the ATE sqrt((s_1^2 + s_0^2) / 2),
    cobalt's "pooled" (several arms: the mean of all variances), for the ATT and ATC that of the arm that is the
    target; for the overlap population and functions of the score that of all rows after
    weighting. Differences of binary columns are raw by default there too. Variance ratios are treated over
    control and are not defined for binary columns. KS is the largest distance of the weighted distribution
    functions. Differences below 0.1 are usually taken as balanced.

    References
    ----------
    .. [1] Greifer, N. (2025). cobalt: Covariate Balance Tables and Plots. R package.

    Examples
    --------
    >>> from causalrisk import IPWRA, datasets
    >>> births = datasets.load_cattaneo2()
    >>> res = IPWRA.from_formula("bweight ~ mage + mmarried", births, treat="mbsmoke").fit()
    >>> res.balance()[["unit", "diff before", "diff after"]].round(2)
                     unit  diff before  diff after
    covariate
    propensity score  std         0.59        0.00
    mage              std        -0.30       -0.08
    mmarried          raw        -0.28       -0.00
    """
    one_of("binary", binary, ("raw", "std"))
    design, scores = record.design, record.scores
    importance = record.sample.restore(record.used_weight_fit.undivided)
    rows = WeightedRows(design.arm, design.weights, design.weights * importance, design.units)
    population, names = record.options.population, design.propensity_names
    denominator = population.balance_denominator if population.toward is None else population.toward
    return balance_table(design.Z, names, scores, rows, design.labels, denominator, binary == "raw")
