"""Table 1: who is in which arm, before a fit and under its weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from causalrisk.design.columns.dtypes import missing_mask, plain
from causalrisk.design.columns.tables import Table, as_table, find_column
from causalrisk.design.covariates import Covariate, covariates_in, renamed
from causalrisk.design.moderators import MANY_LEVELS, shown_levels
from causalrisk.diagnostics.balance import check_threshold, chosen_covariates
from causalrisk.diagnostics.column_sums import WHEN, ColumnSums, WeightedRows
from causalrisk.errors import DesignError, OptionError
from causalrisk.estimators.record import FitRecord
from causalrisk.numerics.linalg import Array
from causalrisk.report.numbers import column_format, format_share
from causalrisk.report.tables.paper import PaperTable
from causalrisk.report.tables.table import TableContent

INDENT = "  "
NOTE_CELLS = "Mean (SD) of numbers, n (%) of categories."
Cells = Callable[[Covariate], list[str]]


@dataclass(frozen=True)
class Groups:
    """Rows by group.

    Parameters
    ----------
    labels : tuple of str
        Labels of the groups, the reference first.
    members : ndarray of bool, shape (K, n)
        Which rows are in which.
    """

    labels: tuple[str, ...]
    members: np.ndarray


def table_one(
    covariates: Any,
    data: Any,
    *,
    by: Any = None,
    reference: Any = None,
    levels: Mapping[Any, str] | None = None,
    overall: bool = False,
    median: Sequence[str] = (),
    threshold: float | None = 0.1,
    names: Mapping[str, str] | None = None,
    title: str = "",
    notes: Sequence[str] = (),
) -> PaperTable:
    """Describe the rows of each arm: the first table of a paper, before anything is fitted.

    Parameters
    ----------
    covariates : str, sequence of str, or None
        A one-sided formula such as "~ age + C(race)", names of variables, or None for all but `by`.
    data : DataFrame or mapping of columns
        The data.
    by : str or array-like, optional
        The treatment, or another grouping; None describes all rows together.
    reference : level, optional
        The group the others are compared with; by default the first.
    levels : mapping, optional
        Printed label of each group.
    overall : bool
        Whether to add a column of all rows.
    median : sequence of str
        Variables to be described by median and quartiles.
    threshold : float or None
        Differences larger than this are marked by a star.
    names : mapping of str to str, optional
        Names for the reader, such as ``{"mage": "Mother's age"}``.
    title : str
        Heading.
    notes : sequence of str
        Sentences to add to the notes.

    Returns
    -------
    PaperTable
        Printed as text; `as_html`, `as_latex`, `as_markdown`, `as_csv`, `save` (also to Word) and `frame`, its numbers.

    Raises
    ------
    DesignError
        If a variable is unknown, or the grouping has fewer than two or very many values.
    OptionError
        If an option has a value that is not allowed.

    Notes
    -----
    Text, bool and categories are counted level by level, also numbers inside ``C()``; a factor of two levels has one
    row. Each variable is described on the rows that have it, and the rows that miss it are counted. SMD is the
    standardized mean difference to the reference, over the root of the mean variance of the groups. There are no
    p-values: they measure the sample size, and no hypothesis of a population is meant.

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
    _check_arguments(covariates, data)
    check_threshold(threshold)
    told: list[str] = []
    table = as_table(data, [])
    groups = Groups((), np.zeros((0, len(table.index)), dtype=bool))
    if by is not None:
        groups, name = _groups(by, table=table, reference=reference, levels=levels or {}, told=told)
        if covariates is None:
            covariates = [str(column) for column in table.names if column != name]
    found = renamed(map(_indicator, covariates_in(covariates, table)), names)
    quartiles = [(names or {}).get(name, name) for name in median]
    unknown = [name for name in quartiles if name not in {c.term for c in found}]
    if unknown:
        raise OptionError(f"median: {unknown[0]!r} is not among the covariates.\nLeave it out, or name it there too.")
    whole = np.ones((1, len(table.index)), dtype=bool)
    sets = [*(whole if overall or by is None else []), *groups.members]
    labels = [*(["overall"] if overall or by is None else []), *groups.labels]

    def cells(covariate: Covariate) -> list[str]:
        middle = covariate.term in quartiles
        return [_described(covariate, rows, middle) for rows in sets] + _marked(
            _differences(covariate, groups), threshold
        )

    contrasts = [("SMD", "" if len(groups.labels) == 2 else a) for a in groups.labels[1:]]
    header = (("", *labels, *(c[0] for c in contrasts)),
              ("", *(f"n {int(rows.sum())}" for rows in sets), *(c[1] for c in contrasts)))  # fmt: skip
    rows = _rows(found, cells, lambda c: [_count(np.isnan(c.values) & rows, rows) for rows in sets])
    said = [NOTE_CELLS] + ["Median [quartiles] where so shown."] * bool(quartiles) + told
    if contrasts:
        said += _note_on_differences(threshold, groups.labels[0], "the root of the mean variance of the groups")
    content = TableContent(rows=rows, header=header, title=title)
    return PaperTable(content, [*said, *notes], _numbers(found, dict(zip(labels, sets, strict=True)), groups))


def _check_arguments(covariates: Any, data: Any) -> None:
    """Refuse the data in the place of the covariates, and groups behind a bar, as other packages have them."""
    if hasattr(covariates, "columns") and isinstance(data, str | list | tuple):
        raise TypeError(
            f"data is of type {type(data).__name__} and the covariates are a frame; expected them the other way "
            f"round.\nType  covariates={data!r}, data=data."
        )
    if isinstance(covariates, str) and covariates.count("|") == 1 and "(" not in covariates:
        left, group = (part.strip() for part in covariates.split("|"))
        raise OptionError(
            f"the covariates {covariates!r} have groups behind a bar, which are an option here.\n"
            f'Type  covariates="{left}", by="{group}".'
        )


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
    """Describe the rows of each arm before and after weighting: Table 1 of a fit.

    Parameters
    ----------
    also, data, interactions, names
        As in `balance`.
    threshold : float or None
        Differences larger than this are marked by a star.
    title : str
        Heading.
    notes : sequence of str
        Sentences to add to the notes.

    Returns
    -------
    PaperTable
        Means (and standard deviations) of every covariate of either formula in each arm, every level of a factor
        among them, and the standardized differences to the reference; `frame` has the numbers.

    Raises
    ------
    DesignError
        If a variable is unknown or misses values in the sample.
    OptionError
        If an option has a value that is not allowed.

    Notes
    -----
    Differences are those of ``balance(binary="std")``. For the rows before a fit see `causalrisk.table_one`.

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
    found = {c.name: _moments(c, rows, design.n_arms, denominator) for c in covariates}

    def cells(covariate: Covariate) -> list[str]:
        mine = found[covariate.name]
        return [
            cell
            for when in WHEN
            for cell in (
                *(_moment_cell(mine, arm, when) for arm in range(design.n_arms)),
                *_marked(mine[f"SMD {when}"], threshold),
            )
        ]

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
    content = TableContent(rows=_rows(covariates, cells), header=header, title=title)
    return PaperTable(content, [*said, *notes], _moments_frame(found, design.labels), together=half)


def _scale_text(denominator: str | int, labels: Sequence[str]) -> str:
    """Say what differences are divided by."""
    if isinstance(denominator, int):
        return f"the standard deviation of arm {labels[denominator]} before weighting"
    if denominator == "weighted":
        return "the standard deviation of all rows after weighting"
    return "the root of the mean variance of the arms before weighting"


def _groups(by: Any, table: Table, reference: Any, levels: Mapping[Any, str], told: list[str]) -> tuple[Groups, str]:
    """Find the groups, and say how many rows are in none."""
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
            "Leave by= out for one table of all rows, or cut it into groups with pandas.cut."
        )
    labels = [levels.get(level, shown) for level, shown in zip(found, shown_levels(found), strict=True)]
    first = 0
    if reference is not None:
        places = [k for k, level in enumerate(found) if reference == level or reference == labels[k]]
        if not places:
            raise OptionError(
                f"reference={reference!r} is not a value of {name!r}; the groups are {', '.join(map(repr, labels))}.\n"
                f"Type  reference={labels[0]!r}."
            )
        first = places[0]
    order = [first, *(k for k in range(len(found)) if k != first)]
    members = np.zeros((len(found), len(known)), dtype=bool)
    members[:, known] = codes == np.array(order)[:, None]
    if not known.all():
        told.append(f"{int((~known).sum())} rows without {name} are in no group.")
    return Groups(tuple(labels[k] for k in order), members), name


def _indicator(covariate: Covariate) -> Covariate:
    """Return a covariate of two values as an indicator of the larger, with that in its name unless they are 0 and 1."""
    known = np.unique(covariate.values[~np.isnan(covariate.values)])
    if len(known) != 2 or set(known) == {0.0, 1.0}:
        return covariate
    indicator = np.where(np.isnan(covariate.values), np.nan, (covariate.values == known[1]).astype(float))
    return replace(covariate, level=covariate.level or f"{known[1]:g}", values=indicator)


def _counted(covariate: Covariate) -> bool:
    """Whether a covariate is a yes or no."""
    return bool(np.isin(covariate.values[~np.isnan(covariate.values)], (0.0, 1.0)).all())


def _rows(covariates: Sequence[Covariate], cells: Cells, absent: Cells | None = None) -> tuple[tuple[str, ...], ...]:
    """Lay out one row a covariate, the levels of a factor below its name, and rows that count what is missing."""
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


def _described(covariate: Covariate, rows: np.ndarray, middle: bool) -> str:
    values = covariate.values[rows & ~np.isnan(covariate.values)]
    if not len(values):
        return ""
    if _counted(covariate):
        return f"{int(values.sum())} ({format_share(values.mean())})"
    if middle:
        low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
        whole = float(low).is_integer() and float(median).is_integer() and float(high).is_integer()
        spec = ".0f" if whole else column_format(high - low, [low, median, high])
        return f"{format(median, spec)} [{format(low, spec)}, {format(high, spec)}]"
    return _mean_and_sd(float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else np.nan)


def _mean_and_sd(mean: float, sd: float) -> str:
    spec = column_format(sd, mean)
    return f"{format(mean, spec)} ({format(sd, spec)})"


def _count(some: np.ndarray, rows: np.ndarray) -> str:
    return f"{int(some.sum())} ({format_share(some.sum() / max(rows.sum(), 1))})"


def _differences(covariate: Covariate, groups: Groups) -> list[float]:
    """Standardized differences to the reference on the rows that have the covariate."""
    if not groups.labels:
        return []
    known = ~np.isnan(covariate.values)
    members = groups.members & known
    if not members.any(axis=1).all():
        return [np.nan] * (len(members) - 1)
    some, binary = members.any(axis=0), np.array([_counted(covariate)])
    arm, ones = members[:, some].argmax(axis=0), np.ones(some.sum())
    rows = WeightedRows(arm, np.stack([ones, ones]), ones)
    sums = ColumnSums.of(covariate.values[some, None], rows, len(members))
    scale = sums.standard_deviations("pooled", binary)
    return [float(sums.differences(a, np.where(scale > 0, scale, np.nan))[0, 0]) for a in range(1, len(members))]


def _marked(differences: Iterable[float], threshold: float | None) -> list[str]:
    """Print differences, a star behind those above the threshold and a blank behind the others."""
    marks = ["" if threshold is None else "*" if abs(d) > threshold else " " for d in differences]
    return ["" if np.isnan(d) else f"{d:z.3f}{mark}" for d, mark in zip(differences, marks, strict=True)]


def _note_on_differences(threshold: float | None, reference: str, scale: str) -> list[str]:
    note = f"SMD: difference of means to {reference} over {scale}"
    return [f"{note}; * above {threshold:g}." if threshold is not None else f"{note}."]


def _numbers(covariates: Sequence[Covariate], sets: Mapping[str, np.ndarray], groups: Groups) -> pd.DataFrame:
    """Return the numbers behind a table before a fit, a row a covariate."""
    lines = {}
    for covariate in covariates:
        line: dict[str, float] = {}
        for label, rows in sets.items():
            values = covariate.values[rows]
            known = values[~np.isnan(values)]
            line |= {f"n {label}": len(known), f"missing {label}": len(values) - len(known)}
            line[f"mean {label}"] = known.mean() if len(known) else np.nan
            line[f"sd {label}"] = np.nan if _counted(covariate) or len(known) < 2 else known.std(ddof=1)
        names = [f"SMD {label}" for label in groups.labels[1:]] if len(groups.labels) > 2 else ["SMD"]
        lines[covariate.name] = line | dict(zip(names, _differences(covariate, groups), strict=False))
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis("covariate")


def _moments(covariate: Covariate, rows: WeightedRows, n_arms: int, denominator: str | int) -> dict[str, Array]:
    """Means, standard deviations and standardized differences before and after weighting, an entry an arm."""
    binary = np.array([_counted(covariate)])
    sums = ColumnSums.of(covariate.values[:, None], rows, n_arms)
    scale = sums.standard_deviations(denominator, binary)
    spread = np.where(binary, np.nan, np.sqrt(sums.variance(binary)))
    gaps = np.stack([sums.differences(arm, scale)[:, 0] for arm in range(1, n_arms)])
    found: dict[str, Array] = {}
    for k, when in enumerate(WHEN):
        found |= {f"mean {when}": sums.mean[:, k, 0], f"sd {when}": spread[:, k, 0]}
    return found | {f"SMD {when}": gaps[:, k] for k, when in enumerate(WHEN)}


def _moment_cell(found: Mapping[str, Array], arm: int, when: str) -> str:
    mean, sd = found[f"mean {when}"][arm], found[f"sd {when}"][arm]
    return format_share(mean) if np.isnan(sd) else _mean_and_sd(mean, sd)


def _moments_frame(found: Mapping[str, Mapping[str, Array]], labels: Sequence[str]) -> pd.DataFrame:
    lines = {}
    for name, numbers in found.items():
        line: dict[str, float] = {}
        for key, values in numbers.items():
            kind, when = key.split(" ")
            several = labels if kind != "SMD" else labels[1:]
            plain_name = kind == "SMD" and len(labels) == 2
            line |= {key if plain_name else f"{kind} {a} {when}": v for a, v in zip(several, values, strict=True)}
        lines[name] = line
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis("covariate")
