"""Balance of covariates between arms, before and after weighting, with the denominators of R's cobalt."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalrisk.design import Design
from causalrisk.design.covariates import Covariate, further_covariates, moderators, renamed, with_products
from causalrisk.design.design import by_rows
from causalrisk.diagnostics.balance_moments import WHEN, ColumnSums, Measured, WeightedRows, measured, measured_by_block
from causalrisk.errors import DesignError, OptionError, one_of
from causalrisk.estimators.estimates import FittedRows
from causalrisk.estimators.record import FitRecord
from causalrisk.numerics.linalg import Array

DISTANCE = "propensity score"
STATISTICS = ("diff", "var ratio", "KS")
SHORT = "KS short by"  # attribute of a table


def balance_table(
    found: Measured,
    labels: Sequence[str],
    denominator: str | int,
    *,
    raw_binary: bool,
    means: bool = False,
) -> pd.DataFrame:
    """Balance of every column and of the propensity score, for each arm against the reference.

    Parameters
    ----------
    found : Measured
        The columns; constant ones are left out.
    labels : sequence of str
        Labels of the arms.
    denominator : str or int
        As in `ColumnSums.standard_deviations`.
    raw_binary : bool
        Whether differences of binary columns stay differences of proportions.
    means : bool
        Whether to add means and standard deviations of the arms.

    Returns
    -------
    DataFrame
        A row a column; with several arms the contrast is the first level of the index.
    """
    first = len(labels) - 1
    varying = np.flatnonzero(found.sums.varying[first:])
    index = pd.Index([DISTANCE, *(found.names[j] for j in varying)], name="covariate")
    tables = {}
    for arm in range(1, len(labels)):
        which = np.r_[arm - 1, first + varying]
        sums = found.sums.some(which)
        binary = sums.binary & (np.arange(len(which)) > 0)
        sums = sums.indicating(binary)
        scale = np.where(binary & raw_binary, 1.0, sums.standard_deviations(denominator, binary))
        numbers = contrast_balance(sums, found.distances[which, arm - 1].T, arm, scale=scale, binary=binary)
        if means:
            numbers = arm_moments(sums, labels, binary) | numbers
        kinds = ["distance", *np.where(binary[1:], "binary", "continuous")]
        units = ["raw" if b and raw_binary else "std" for b in binary]
        tables[f"{labels[arm]} vs {labels[0]}"] = pd.DataFrame({**numbers, "kind": kinds, "unit": units}, index=index)
    if len(tables) == 1:
        return next(iter(tables.values()))
    return pd.concat(tables, names=["contrast", "covariate"])


def contrast_balance(
    sums: ColumnSums, distances: Array, arm: int, *, scale: Array, binary: NDArray[np.bool_]
) -> dict[str, Array]:
    """Compare an arm with the reference arm before and after weighting.

    Parameters
    ----------
    sums : ColumnSums
        Moments of q columns; binary ones coded 0 and 1.
    distances : ndarray, shape (2, q)
        Kolmogorov-Smirnov distances.
    arm : int
        The arm.
    scale : ndarray, shape (q,)
        Denominators of the mean differences.
    binary : ndarray of bool, shape (q,)
        Binary columns, which have no variance ratio.

    Returns
    -------
    dict of str to ndarray, shape (q,)
        "diff", "var ratio" and "KS", each "before" and "after".
    """
    variances = sums.variance(binary)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(binary, np.nan, variances[arm] / variances[0])
    numbers = zip(STATISTICS, (sums.differences(arm, scale), ratios, distances), strict=True)
    return {f"{name} {when}": values[k] for name, values in numbers for k, when in enumerate(WHEN)}


def arm_moments(sums: ColumnSums, labels: Sequence[str], binary: NDArray[np.bool_]) -> dict[str, Array]:
    """Return means and standard deviations in each arm before and after weighting.

    Parameters
    ----------
    sums : ColumnSums
        Moments of q columns; binary ones coded 0 and 1.
    labels : sequence of str
        Labels of the arms.
    binary : ndarray of bool, shape (q,)
        Binary columns, whose mean, a proportion, says it all.

    Returns
    -------
    dict of str to ndarray, shape (q,)
        "mean a before", "sd a before" and so on, for each arm a.
    """
    spread = np.where(binary, np.nan, np.sqrt(sums.variance(binary)))
    found = {}
    for k, when in enumerate(WHEN):
        for arm, label in enumerate(labels):
            found[f"mean {label} {when}"] = sums.mean[arm, k]
            found[f"sd {label} {when}"] = spread[arm, k]
    return found


def chosen_covariates(
    record: FitRecord,
    rows: FittedRows,
    *,
    also: Any = None,
    data: Any = None,
    interactions: bool = False,
    names: Mapping[str, str] | None = None,
) -> list[Covariate]:
    """Return the covariates of both models and further ones on the rows of a fit in memory, as `balance` takes them."""
    full, design = record.full_design, record.design
    found = {c.name: c for c in rows.covariates()}
    for covariate in [] if also is None else further_covariates(full, also, data):
        kept = design.in_sample[full.in_sample].to_numpy()
        found.setdefault(covariate.name, covariate.of(kept))
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
        Whether differences of binary columns are of proportions, or standardized like the others.
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
    UnavailableError
        If the estimator uses no propensity score, or a fit to a scan is asked for `also` or `by`, which go by rows.

    Notes
    -----
    Definitions are as documented by R's cobalt [1]_. Differences of means are divided by a standard
    deviation of the unweighted sample, the same before and after: for the ATE sqrt((s_1^2 + s_0^2) / 2),
    cobalt's "pooled" (several arms: the mean of all variances), for the ATT and ATC the target arm's; for the
    overlap population and functions of the score the one of all rows after weighting; within a group, the group's.
    Differences of binary columns are raw by default there too. Variance ratios are treated over control and are not
    defined for binary columns. KS is the largest distance of the weighted distribution functions. Differences below 0.1
    are usually taken as balanced.

    For a scan (`causalrisk.scan`) the numbers come from sums over its blocks, in one pass, one more for
    `interactions`, and one more where a column has more than 4096 distinct values: its KS is then the largest
    distance at about 4096 of them, evenly spread in weight. Between two there may be a larger one;
    ``table.attrs["KS short by"]`` bounds by how much. `also` and `by` go by rows and are refused.

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
    population = record.options.population
    tabulated = functools.partial(
        balance_table,
        labels=record.design.labels,
        denominator=population.balance_denominator if population.toward is None else population.toward,
        raw_binary=binary == "raw",
        means=means,
    )
    if record.blocks is None:
        covariates = functools.partial(
            chosen_covariates, record, also=also, data=data, interactions=interactions, names=names
        )
        table = _table_in_memory(record, tabulated, covariates, by=by, data=data)
    else:
        for name, given in (("also", also), ("by", by)):
            if given is not None:
                raise by_rows(f"{name}=")
        found = measured_by_block(record, names or {}, interactions)
        table = tabulated(found)
        table.attrs[SHORT] = found.short
    return table if threshold is None else table.assign(balanced=table["diff after"].abs() <= threshold)


def _table_in_memory(
    record: FitRecord,
    tabulated: Callable[[Measured], pd.DataFrame],
    chosen: Callable[[FittedRows], list[Covariate]],
    *,
    by: Any,
    data: Any,
) -> pd.DataFrame:
    """Tabulate the balance of all rows, or group by group."""
    fitted = record.rows
    covariates, rows = chosen(fitted), WeightedRows.of(fitted)
    if by is None:
        return tabulated(measured(covariates, fitted.scores, rows))

    def part(some: NDArray[np.bool_]) -> pd.DataFrame:
        within = [c.of(some) for c in covariates]
        return tabulated(measured(within, fitted.scores[:, some], rows.some(some)))

    groups = groups_of(record.design, by, data)
    return pd.concat({name: part(some) for name, some in groups.items()}, names=["group"])


def check_threshold(threshold: float | None) -> None:
    """Raise an OptionError unless the threshold of balance is positive or None."""
    number = isinstance(threshold, (int, float, np.number)) and not isinstance(threshold, bool)
    if threshold is not None and not (number and threshold > 0):
        raise OptionError(f"threshold={threshold!r}; expected a positive number.\nType  threshold=0.1.")


def groups_of(design: Design, by: Any, data: Any) -> dict[str, NDArray[np.bool_]]:
    """Return the members of each group as masks of the rows; every group needs rows of every arm."""
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
