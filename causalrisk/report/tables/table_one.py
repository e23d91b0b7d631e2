"""Table 1: covariates of each treatment group, before a fit and under its weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd

from causalrisk.design.covariates import MANY_LEVELS, Covariate, covariates_in, renamed, shown_levels
from causalrisk.design.dtypes import missing_mask, plain
from causalrisk.design.rows import ColumnOptions, Source, read_weights, relative_weights
from causalrisk.design.survey import Survey, subpopulation
from causalrisk.design.tables import Table, as_table, find_column, find_condition
from causalrisk.diagnostics.balance import WHEN, ColumnSums, WeightedRows, check_threshold, chosen_covariates
from causalrisk.errors import DesignError, OptionError
from causalrisk.estimators.options import WeightType
from causalrisk.estimators.record import FitRecord
from causalrisk.numerics.linalg import Array
from causalrisk.report.tables.stacked import PaperTable
from causalrisk.report.tables.table import ResultTable
from causalrisk.report.tables.text import column_format, format_share

INDENT = "  "
MOST_LEVELS = 200  # levels of a variable, each a row of the table
NOTE_CELLS = "Mean (SD) of numbers, n (%) of categories."
Cells = Callable[[Covariate], list[str]]


@dataclass(frozen=True)
class Sets:
    """Sets of rows, one for each column of a table before a fit: the groups, after all rows where these are asked for.

    `members` has the mask of the rows of each column, `units` the number of equal rows that a row stands for.
    """

    labels: tuple[str, ...]
    names: tuple[str, ...]
    members: list[np.ndarray]
    weights: Array
    units: Array

    def counted(self, rows: np.ndarray) -> list[float]:
        """Count some rows in each column."""
        return [float(self.units[rows & inside].sum()) for inside in self.members]

    def sums(self, covariate: np.ndarray, known: np.ndarray, levels: int) -> list[ColumnSums]:
        """Return sums of a covariate (by its codes, of its indicators) over the rows that have it, for each column."""
        found = []
        for inside in self.members:
            some = known & inside
            weights = np.stack([self.weights[some], self.units[some]])
            rows, values = WeightedRows(np.zeros(int(some.sum()), int), weights, self.units[some]), covariate[some]
            found.append(ColumnSums.of_levels(values, levels, rows, 1) if levels else ColumnSums.of(values, rows, 1))
        return found


@dataclass(frozen=True)
class Line:
    """A covariate in each column of a table before a fit, shape (C,), and its differences to the reference, (K - 1,).

    Mean and standard deviation are weighted; `ones` counts the rows that have a one, `missing` those without a value.
    """

    n: Array
    missing: Array
    mean: Array
    sd: Array
    ones: Array
    missing_share: Array
    differences: Array


def table_one(
    covariates: Any,
    data: Any,
    *,
    by: Any = None,
    treated: Any = None,
    reference: Any = None,
    levels: Mapping[Any, str] | None = None,
    weights: Any = None,
    weight_type: WeightType | None = None,
    design: Survey | None = None,
    subpop: Any = None,
    overall: bool = False,
    median: Sequence[str] = (),
    threshold: float | None = 0.1,
    names: Mapping[str, str] | None = None,
    title: str = "",
    notes: Sequence[str] = (),
) -> PaperTable:
    """Describe the rows of each treatment group: the first table of a paper, before anything is fitted.

    Parameters
    ----------
    covariates : str, sequence of str, or None
        A one-sided formula such as "~ age + C(race)", names of variables, or None for all but `by`.
    data : DataFrame or mapping of columns
        The data.
    by : str or array-like, optional
        The treatment, or another grouping; None describes all rows together.
    treated, reference : level, optional
        Of two groups, the one that is compared; or the group that the others are compared with. By default the first
        is the reference.
    levels : mapping, optional
        Printed label of each group.
    weights : str or array-like, optional
        Observation weights.
    weight_type : {"frequency", "probability"}, optional
        Meaning of the weights; needed with weights. Frequencies count equal rows. With probability (survey) weights,
        means, standard deviations, percentages and differences are weighted, and n counts rows.
    design : Survey, optional
        Survey design; only its weights are used.
    subpop : str or array-like, optional
        Subpopulation of the survey to describe, a column of True and False.
    overall : bool
        Whether to add a column of all rows.
    median : sequence of str
        Variables to describe by median and quartiles.
    threshold : float or None
        A star marks larger differences.
    names : mapping of str to str, optional
        Printed names, such as ``{"mage": "Mother's age"}``.
    title : str
        Heading.
    notes : sequence of str
        Sentences to add to the notes.

    Returns
    -------
    PaperTable
        Prints as text. Has `as_latex`, `as_markdown`, `as_csv`, `as_html`, `to_gt`, `save` (also to Word) and `frame`,
        the numbers.

    Raises
    ------
    DesignError
        If a variable is unknown or has more than 200 levels, there are fewer than two or very many groups, or weights
        are negative.
    OptionError
        If an option has a value that is not allowed.

    Notes
    -----
    Text, bool, categories and numbers inside ``C()`` are counted level by level; a factor of two levels has one row.
    Each variable is described on the rows that have it, and missing values are counted. SMD is the standardized mean
    difference to the reference, over the root of the mean variance of the groups. There are no p-values: they measure
    the sample size. Weighted variances are those of `balance`: under probability weights
    sum w (x - m)^2 sum w / ((sum w)^2 - sum w^2). A weighted quantile is the smallest value that has its share of the
    weight at or below it.

    Examples
    --------
    >>> from causalrisk import datasets, table_one
    >>> births = datasets.load_cattaneo2()
    >>> table_one(
    ...     ["mage", "mmarried"],
    ...     births,
    ...     by="mbsmoke",
    ...     levels={0: "nonsmoker", 1: "smoker"},
    ... )
    ==============================================================================
                             nonsmoker                    smoker               SMD
                                n 3778                     n 864
    ------------------------------------------------------------------------------
    mage                26.810 (5.645)            25.167 (5.301)           -0.300*
    mmarried              2839 (75.1%)               409 (47.3%)           -0.596*
    ==============================================================================
    Notes: Mean (SD) of numbers, n (%) of categories. SMD: difference of means to
    nonsmoker over the root of the mean variance of the groups; * above 0.1.
    """
    if hasattr(covariates, "columns") and isinstance(data, str | list | tuple):
        raise TypeError("covariates is a frame and data is not.\nUse `table_one(covariates, data)`.")
    if isinstance(covariates, str) and covariates.count("|") == 1 and "(" not in covariates:
        left, group = (part.strip() for part in covariates.split("|"))
        raise OptionError(
            f"the covariates {covariates!r} have a group after a bar, which is an option here.\n"
            f'Use `covariates="{left}", by="{group}"`.'
        )
    check_threshold(threshold)
    told: list[str] = []
    table = as_table(data, [])
    columns, given = ColumnOptions(by, weights=weights, weight_type=weight_type, design=design, subpop=subpop), None
    weights = columns.weights
    if weights is not None:
        column, name = find_column(weights, role="weights", default="weights", table=table, frame={}, notes=told)
        given = Source("weights", name, column)
    weight, units = _weighing(given, columns.weight_type, len(table.index), told)
    labels: tuple[str, ...] = ()
    groups: list[np.ndarray] = []
    grouping = None
    if by is not None:
        options = {"treated": treated, "reference": reference}
        labels, groups, grouping = _groups(by, table=table, options=options, levels=levels or {}, told=told)
    elif treated is not None or reference is not None:
        option = "reference" if treated is None else "treated"
        raise OptionError(f'{option}= needs the groups.\nUse `by="..."` with the name of their column.')
    if covariates is None:
        covariates = [str(name) for name in table.names if name not in (grouping, given and given.name)]
    found = renamed(map(_indicator, covariates_in(covariates, table, MOST_LEVELS)), names)
    quartiles = [(names or {}).get(name, name) for name in median]
    unknown = [name for name in quartiles if name not in {c.term for c in found}]
    if unknown:
        raise OptionError(f"median: {unknown[0]!r} is not among the covariates.")
    whole = ["overall"] if overall or by is None else []
    used = weight > 0
    if subpop is not None:
        inside, name = find_condition(subpop, "subpop", table, {}, told)
        used &= subpopulation(inside, name)
        shown = f"the subpopulation {name}" if isinstance(subpop, str) else "a subpopulation"
        told.append(f"Rows are those of {shown}.")
    members = [*[used] * len(whole), *(used & rows for rows in groups)]
    sets = Sets(labels=labels, names=(*whole, *labels), members=members, weights=weight, units=units)
    lines = dict(zip(map(id, found), _lines(found, sets), strict=True))

    def cells(covariate: Covariate) -> list[str]:
        line, middle = lines[id(covariate)], covariate.term in quartiles and not _counted(covariate)
        shown = _quartiles(covariate, sets, columns.weight_type) if middle else _shown(covariate, line)
        return shown + _marked(line.differences, threshold)

    def absent(covariate: Covariate) -> list[str]:
        line = lines[id(covariate)]
        return list(map(_count, line.missing, line.missing_share))

    contrasts = [("SMD", "" if len(labels) == 2 else a) for a in labels[1:]]
    header = (("", *sets.names, *(c[0] for c in contrasts)),
              ("", *(f"n {n:.0f}" for n in sets.counted(used)), *(c[1] for c in contrasts)))  # fmt: skip
    said = [NOTE_CELLS] + ["Median [quartiles] where so shown."] * bool(quartiles) + told
    if contrasts:
        said += _note_on_differences(threshold, labels[0], "the root of the mean variance of the groups")
    table = ResultTable(_rows(found, cells, absent), header, title=title)
    return PaperTable(table, [*said, *notes], _numbers(found, list(lines.values()), sets))


def balance_for_paper(
    record: FitRecord,
    *,
    also: Any = None,
    data: Any = None,
    interactions: bool = False,
    threshold: float | None = 0.1,
    names: Mapping[str, str] | None = None,
    title: str = "",
    notes: Sequence[str] = (),
) -> PaperTable:
    """Describe the rows of each treatment group before and after weighting: Table 1 of a fit.

    Parameters
    ----------
    also, data, interactions, names
        As in `balance`.
    threshold : float or None
        A star marks larger differences.
    title : str
        Heading.
    notes : sequence of str
        Sentences to add to the notes.

    Returns
    -------
    PaperTable
        Means and standard deviations of every covariate of both formulas in each treatment group, factors level by
        level, and the standardized differences to the reference. `frame` has the numbers.

    Raises
    ------
    DesignError
        If a variable is unknown or has missing values in the sample.
    OptionError
        If an option has a value that is not allowed.

    Notes
    -----
    Differences are those of ``balance(binary="std")``. `causalrisk.table_one` describes the rows before a fit.

    Examples
    --------
    >>> from causalrisk import IPWRA, datasets
    >>> births = datasets.load_cattaneo2()
    >>> res = IPWRA.from_formula(
    ...     "bweight ~ mage + mmarried", births, treat="mbsmoke"
    ... ).fit()
    >>> table = res.table_one(names={"mage": "Mother's age", "mmarried": "Married"})
    >>> table.frame[["SMD before", "SMD after"]].round(3)
                  SMD before  SMD after
    covariate
    Mother's age      -0.300     -0.078
    Married           -0.596     -0.003
    """
    check_threshold(threshold)
    design, fitted, population = record.design, record.rows, record.options.population
    chosen = chosen_covariates(record, fitted, also=also, data=data, interactions=interactions, names=names)
    covariates, rows = [_indicator(c) for c in chosen], WeightedRows.of(fitted)
    denominator = population.balance_denominator if population.toward is None else population.toward
    sums = ColumnSums.of_covariates(covariates, rows, design.n_arms)
    every = [sums.some(np.array([j])) for j in range(len(covariates))]
    found = {
        c.name: _moments(part, _counted(c), design.labels, denominator)
        for c, part in zip(covariates, every, strict=True)
    }

    def cells(covariate: Covariate) -> list[str]:
        texts: list[str] = []
        for when in WHEN:
            mine = {name: value for name, value in found[covariate.name].items() if name.endswith(f" {when}")}
            for label in design.labels:
                mean, sd = mine[f"mean {label} {when}"], mine[f"sd {label} {when}"]
                texts.append(format_share(mean) if np.isnan(sd) else _mean_and_sd(mean, sd))
            texts += _marked([value for name, value in mine.items() if name.startswith("SMD ")], threshold)
        return texts

    effective = [f"n {arm.effective_n:.1f}" for arm in record.overlap]
    counts = [f"n {n}" for n in design.counts]
    versus = [""] if design.n_arms == 2 else list(design.labels[1:])
    smd = ["SMD"] * (design.n_arms - 1)
    half = design.n_arms + len(smd)
    header = (
        ("", *["before"] * half, *["after"] * half),
        ("", *(*design.labels, *smd) * 2),
        ("", *counts, *versus, *effective, *versus),
    )
    said = ["Mean (SD) of numbers, percentages of categories, before and after weighting; n after weighting is Kish's "
            "effective n."]  # fmt: skip
    said += _note_on_differences(threshold, design.labels[0], _scale_text(denominator, design.labels))
    table = ResultTable(_rows(covariates, cells), header, title=title)
    numbers = pd.DataFrame.from_dict(found, orient="index").rename_axis("covariate")
    return PaperTable(table, [*said, *notes], numbers, together=half)


def _scale_text(denominator: str | int, labels: Sequence[str]) -> str:
    """Name of the denominator of standardized differences."""
    if isinstance(denominator, int):
        return f"the standard deviation of arm {labels[denominator]} before weighting"
    if denominator == "weighted":
        return "the standard deviation of all rows after weighting"
    return "the root of the mean variance of the arms before weighting"


def _weighing(given: Source | None, weight_type: str | None, n: int, told: list[str]) -> tuple[Array, Array]:
    """Return the weight of each row, 0 for none, and the rows it stands for; note the weighting."""
    weights = read_weights(given, weight_type)
    if weights is None or given is None:
        return np.ones(n), np.ones(n)
    weights = np.where(np.isnan(weights), 0.0, weights)
    used = weights > 0
    if not used.any():
        raise DesignError(f"weights {given.name!r} are 0 or missing in all rows.")
    if not used.all():
        told.append(f"{int((~used).sum())} rows without a weight are left out.")
    weights[used] = relative_weights(weights[used], weight_type, given.name)
    if weight_type == "frequency":
        told.append(f"A row counts as {given.name} rows.")
        return weights, weights
    told.append(f"Means, SDs, percentages and SMDs are weighted by {given.name}; n is not.")
    return weights, used.astype(float)


def _groups(
    by: Any, table: Table, options: Mapping[str, Any], levels: Mapping[Any, str], told: list[str]
) -> tuple[tuple[str, ...], list[np.ndarray], str]:
    """Return labels of the groups, the reference first, their rows and name; note rows in none."""
    column, name = find_column(by, role="group", default="group", table=table, frame={}, notes=[])
    known = ~missing_mask(column)
    values = plain(column[known], name, codes=True)
    if isinstance(values.dtype, pd.CategoricalDtype):
        codes, found = values.cat.codes.to_numpy(), list(values.cat.categories)
    else:
        codes, unique = pd.factorize(values, sort=True)
        found = list(unique)
    if not 2 <= len(found) <= MANY_LEVELS:
        raise DesignError(
            f"group {name!r} has {len(found)} values; expected two to {MANY_LEVELS} groups.\n"
            "Leave out by= for one table of all rows, or cut it into groups with pandas.cut."
        )
    labels = [levels.get(level, shown) for level, shown in zip(found, shown_levels(found), strict=True)]
    first = _first(options, found, labels, name)
    order = [first, *(k for k in range(len(found)) if k != first)]
    members = np.zeros((len(found), len(known)), dtype=bool)
    members[:, known] = codes == np.array(order)[:, None]
    if not known.all():
        told.append(f"{int((~known).sum())} rows without {name} are in no group.")
    return tuple(labels[k] for k in order), list(members), name


def _first(options: Mapping[str, Any], found: Sequence[Any], labels: Sequence[str], name: str) -> int:
    """Return the position of the reference group; by default the first."""
    places: dict[str, int] = {}
    for option, value in options.items():
        match = [k for k, level in enumerate(found) if value == level or value == labels[k]]
        if match:
            places[option] = match[0]
        elif value is not None:
            raise OptionError(
                f"{option}={value!r} is not a value of {name!r}; expected one of {', '.join(map(repr, labels))}."
            )
    if "treated" in places and (len(found) > 2 or places["treated"] == places.get("reference")):
        raise OptionError(
            f"treated={options['treated']!r}: {name!r} has {len(found)} groups, and each is compared with the "
            "reference.\nUse `reference=` alone."
        )
    return places.get("reference", 1 - places["treated"] if "treated" in places else 0)


def _indicator(covariate: Covariate) -> Covariate:
    """Return a covariate of two values as an indicator of the larger, with that in its name unless they are 0 and 1."""
    if covariate.code is not None:
        return covariate
    low, high = covariate.ends
    if not (covariate.varies and covariate.binary) or (low, high) == (0.0, 1.0):
        return covariate
    indicator = np.where(np.isnan(covariate.column), np.nan, (covariate.column == high).astype(float))
    return replace(covariate, level=covariate.level or f"{high:g}", column=indicator)


def _counted(covariate: Covariate) -> bool:
    """Return True if a covariate is a yes or no."""
    return covariate.code is not None or (covariate.binary and set(covariate.ends) <= {0.0, 1.0})


def _rows(covariates: Sequence[Covariate], cells: Cells, absent: Cells | None = None) -> tuple[tuple[str, ...], ...]:
    """Lay out one row a covariate, the levels of a factor below its name, and rows that count missing values."""
    rows: list[tuple[str, ...]] = []
    for place, covariate in enumerate(covariates):
        texts = cells(covariate)
        siblings = [c for c in covariates if c.term == covariate.term]
        if len(siblings) == 1:
            rows.append((covariate.name, *texts))
        else:
            if covariate is siblings[0]:
                rows.append((covariate.term, *[""] * len(texts)))
            rows.append((f"{INDENT}{covariate.level or covariate.name}", *texts))
        last = place + 1 == len(covariates) or covariates[place + 1].term != covariate.term
        if last and absent is not None and np.isnan(covariate.values).any():
            counts = absent(covariate)
            rows.append((f"{INDENT}missing", *counts, *[""] * (len(texts) - len(counts))))
    return tuple(rows)


def _lines(covariates: Sequence[Covariate], sets: Sets) -> list[Line]:
    """Describe each covariate in each column of the table; the levels of a factor are counted together."""
    found: list[Line] = []
    for _, same in groupby(covariates, key=lambda c: id(c.column)):
        siblings = list(same)
        column, codes = siblings[0].column, siblings[0].code is not None
        known = column >= 0 if codes else ~np.isnan(column)
        sums = sets.sums(column, known, int(column.max()) + 1 if codes else 0)
        n, missing = np.array(sets.counted(known)), np.array(sets.counted(~known))
        total = np.array([float(sets.weights[inside].sum()) for inside in sets.members])
        share = 1 - np.array([part.total[0, 0] for part in sums]) / np.where(total > 0, total, np.nan)
        for covariate in siblings:
            place, binary = covariate.code or 0, np.array([_counted(covariate)])
            own = [part.some(np.array([place])) for part in sums]
            mean, ones = np.array([part.mean[0, :, 0] for part in own]).T
            variance = np.array([part.variance(binary)[0, 0, 0] for part in own])
            groups = slice(len(sets.names) - len(sets.labels), None)
            scale = np.sqrt(variance[groups].mean()) if sets.labels else np.nan
            gaps = mean[groups][1:] - mean[groups][:1]
            found.append(
                Line(
                    n=n,
                    missing=missing,
                    mean=mean,
                    sd=np.where(binary, np.nan, np.sqrt(variance)),
                    ones=ones * n,
                    missing_share=np.where(missing > 0, share, 0.0),
                    differences=gaps / (scale if scale > 0 else np.nan),
                )
            )
    return found


def _shown(covariate: Covariate, line: Line) -> list[str]:
    """Print a covariate in each column: count and share of a yes or no, mean and standard deviation of numbers."""
    numbers = zip(line.ones, line.mean, strict=True) if _counted(covariate) else zip(line.mean, line.sd, strict=True)
    form = _count if _counted(covariate) else _mean_and_sd
    return [form(*pair) if n else "" for pair, n in zip(numbers, line.n, strict=True)]


def _quartiles(covariate: Covariate, sets: Sets, weight_type: str | None) -> list[str]:
    """Print the median and the quartiles of a covariate in each column."""
    cells = []
    for inside in sets.members:
        some = inside & ~np.isnan(covariate.column)
        if not some.any():
            cells.append("")
            continue
        low, median, high = quantiles(
            covariate.column[some], sets.weights[some], np.array([0.25, 0.5, 0.75]), weight_type != "probability"
        )
        whole = float(low).is_integer() and float(median).is_integer() and float(high).is_integer()
        spec = ".0f" if whole else column_format(high - low, [low, median, high])
        cells.append(f"{format(median, spec)} [{format(low, spec)}, {format(high, spec)}]")
    return cells


def quantiles(values: Array, weights: Array, levels: Array, counts: bool) -> Array:
    """Return quantiles of values with positive weights, at levels from 0 to 1.

    If the weights count equal rows, quantiles are interpolated as in numpy; else a quantile is the smallest value that
    has its share of the weight at or below it.
    """
    order = np.argsort(values, kind="stable")
    values, reached = values[order], np.cumsum(weights[order])
    if not counts:
        share = reached / reached[-1] * (1 + 1e-12)  # rounding leaves a share that is reached exactly just below
        return values[np.searchsorted(share, levels)]
    place = levels * (reached[-1] - 1)
    below = np.floor(place)
    low, high = (values[np.searchsorted(reached, k, side="right")] for k in (below, np.ceil(place)))
    return low + (high - low) * (place - below)


def _mean_and_sd(mean: float, sd: float) -> str:
    spec = column_format(sd, mean)
    return f"{format(mean, spec)} ({format(sd, spec)})"


def _count(some: float, share: float) -> str:
    return f"{some:.0f} ({format_share(share)})"


def _marked(differences: Sequence[float] | Array, threshold: float | None) -> list[str]:
    marks = ["" if threshold is None else "*" if abs(d) > threshold else " " for d in differences]
    return ["" if np.isnan(d) else f"{d:z.3f}{mark}" for d, mark in zip(differences, marks, strict=True)]


def _note_on_differences(threshold: float | None, reference: str, scale: str) -> list[str]:
    note = f"SMD: difference of means to {reference} over {scale}"
    return [f"{note}; * above {threshold:g}." if threshold is not None else f"{note}."]


def _numbers(covariates: Sequence[Covariate], lines: Sequence[Line], sets: Sets) -> pd.DataFrame:
    """Return the numbers behind a table before a fit, a row a covariate."""
    found = {}
    for covariate, line in zip(covariates, lines, strict=True):
        own: dict[str, float] = {}
        for k, label in enumerate(sets.names):
            own |= {f"n {label}": int(line.n[k]), f"missing {label}": int(line.missing[k])}
            own |= {f"mean {label}": line.mean[k], f"sd {label}": line.sd[k]}
        names = [f"SMD {label}" for label in sets.labels[1:]] if len(sets.labels) > 2 else ["SMD"]
        found[covariate.name] = own | dict(zip(names, line.differences, strict=False))
    return pd.DataFrame.from_dict(found, orient="index").rename_axis("covariate")


def _moments(sums: ColumnSums, counted: bool, labels: Sequence[str], denominator: str | int) -> dict[str, float]:
    """Means, standard deviations and standardized differences of a column, of each arm before and after weighting."""
    binary = np.array([counted])
    spread, scale = np.sqrt(sums.variance(binary)), sums.standard_deviations(denominator, binary)
    found: dict[str, float] = {}
    for k, when in enumerate(WHEN):
        found |= {f"mean {label} {when}": sums.mean[arm, k, 0] for arm, label in enumerate(labels)}
        found |= {f"sd {a} {when}": np.nan if binary[0] else spread[arm, k, 0] for arm, a in enumerate(labels)}
    for k, when in enumerate(WHEN):
        for arm, label in enumerate(labels[1:], start=1):
            name = f"SMD {when}" if len(labels) == 2 else f"SMD {label} {when}"
            found[name] = sums.differences(arm, scale)[k, 0]
    return found
