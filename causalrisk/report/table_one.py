"""Table 1: covariates by treatment group, before a fit and after weighting by a fit."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd

from causalrisk.design.covariates import MANY_LEVELS, Covariate, covariates_in, renamed
from causalrisk.design.rows import Source, read_weights, relative_weights
from causalrisk.design.tables import as_table, find_column, listing, missing_mask
from causalrisk.design.treatment import arms_in_order, treatment_levels
from causalrisk.diagnostics.balance import (
    NO_COVARIATES,
    WHEN,
    balance,
    check_threshold,
    chosen_covariates,
    mean_and_variance,
)
from causalrisk.errors import DesignError, OptionError, UnavailableError, one_of, with_other_names
from causalrisk.estimation.options import WeightType, is_frame
from causalrisk.estimation.record import FitRecord
from causalrisk.numerics.arrays import Array
from causalrisk.report.labels import filled_words, joined
from causalrisk.report.table import PaperTable, ResultTable, column_format, format_share

INDENT = "  "
MOST_LEVELS = 200  # levels of a variable, each a row of the table
NUMBERS = ("n", "missing", "mean", "sd", "q25", "median", "q75")
SHOWN = "Mean (SD) if numeric, percent if 0/1 or a category"


@with_other_names
def table_one(
    covariates: Any = None,
    data: Any = None,
    by: Any = None,
    *,
    treated: Any = None,
    reference: Any = None,
    levels: Mapping[Any, str] | None = None,
    weights: Any = None,
    weight_type: WeightType | None = None,
    overall: bool = False,
    threshold: float | None = 0.1,
    median: Sequence[str] = (),
    digits: int | None = None,
    names: Mapping[str, str] | None = None,
    title: str = "",
    notes: Sequence[str] = (),
) -> PaperTable:
    """Describe the covariates in each treatment group before any fit: Table 1 of a paper.

    Parameters
    ----------
    covariates : str, sequence of str, or None
        A one-sided formula such as "~ age + C(race)", names of variables, or None for all variables except `by`.
    data : DataFrame or mapping of columns
        The data.
    by : str or array-like, optional
        The treatment, or another grouping variable. None describes all rows together.
    treated, reference : level, optional
        `treated` is the treated group if there are two groups. `reference` is the group that others are compared with,
        by default the first group.
    levels : mapping, optional
        Printed label of each group.
    weights : str or array-like, optional
        Observation weights.
    weight_type : {"frequency", "probability"}, optional
        Meaning of the weights; required with `weights`. Frequency weights count equal rows. With probability (survey)
        weights, means, standard deviations, percentages and differences are weighted, and n counts rows.
    overall : bool
        Whether to add a column for all rows together.
    threshold : float or None
        Standardized differences larger than this in absolute value are marked with a star.
    median : sequence of str
        Variables to describe by median and quartiles.
    digits : int, optional
        Decimals of means and standard deviations. By default, enough for four significant digits of a row's smallest
        standard deviation.
    names : mapping of str to str, optional
        Printed names, such as ``{"mage": "Mother's age"}``.
    title : str
        Heading.
    notes : sequence of str
        Sentences to add to the notes.

    Returns
    -------
    PaperTable
        Table that prints as text, with methods `as_latex`, `as_markdown`, `as_csv`, `as_html`, `to_gt` and `save` (also
        to Word). The attribute `frame` has the numbers.

    Raises
    ------
    DesignError
        If a variable is unknown or has more than 200 levels, if there are fewer than 2 or more than 20 groups, or if
        weights are negative.
    OptionError
        If an option has a value that is not allowed.

    Notes
    -----
    Text, bool, categories and numbers inside ``C()`` are factors, counted level by level. A factor with two levels has
    one row. Each variable is described on the rows where it is not missing, and missing values are counted. SMD is the
    standardized mean difference: the mean minus the mean of the reference, divided by the root of the groups' mean
    variance. There are no p-values, because they mainly reflect the sample size. Under probability weights, the
    variance is sum w (x - m)^2 sum w / ((sum w)^2 - sum w^2), as in `balance`. A weighted quantile at level q is the
    smallest value that has at least a share q of the weight at or below it.

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
                                               nonsmoker          smoker       SMD
                                                  n 3778           n 864
    ------------------------------------------------------------------------------
    mage                                  26.810 (5.645)  25.167 (5.301)   -0.300*
    mmarried                                2839 (75.1%)     409 (47.3%)   -0.596*
    ==============================================================================
    Notes: Mean (SD) if numeric, n (%) if 0/1 or a category. SMD: difference in
    means from group nonsmoker, divided by sqrt(mean of the groups' variances). *
    marks SMDs beyond 0.1.
    """
    if is_frame(covariates) and not is_frame(data):  # the arguments are in the wrong order
        covariates, data = data, covariates
    given = covariates.strip() if isinstance(covariates, str) else ""
    grouped = re.fullmatch(r"(?:(\w+) *~|~?)([^|~]+)(?:\| *(\w+))?", given)
    if grouped and (group := grouped[1] or grouped[3]):
        use = f'table_one("{grouped[2].strip()}", data, by="{by or group}")'
        raise OptionError(f"covariates={given!r} names a group; expected covariates alone.\nUse `{use}`.")
    check_threshold(threshold)
    weight_type = one_of("weight_type", weight_type, (None, "frequency", "probability"))
    told: list[str] = []
    table = as_table(data, [])
    weight, units, weights_name = _weighing(weights, weight_type, table, told)
    labels, groups, grouping = _groups(by, table, treated, reference, levels, told)
    if covariates is None:
        covariates = [str(name) for name in table.columns if name not in (grouping, weights_name)]
    found = renamed(map(_indicator, covariates_in(covariates, table, MOST_LEVELS)), names)
    median, used = [median] if isinstance(median, str) else list(median or ()), weight > 0
    quartiles, known = [(names or {}).get(name, name) for name in median], [c.term for c in found if not _counted(c)]
    if unknown := [name for name, shown in zip(median, quartiles, strict=True) if shown not in known]:
        problem = f"median={unknown}; expected numeric covariates: {listing(known) or 'there are none'}"
        raise OptionError(f"{problem}.\nUse `median={known[:1]}`.")
    whole = ["overall"] if overall or by is None else []
    heads, members = (*whole, *labels), [*[used] * len(whole), *(used & rows for rows in groups)]
    contrasts = [("SMD", "" if len(labels) == 2 else label) for label in labels[1:]]
    numbers: dict[str, dict[str, float]] = {}
    shown: dict[str, list[str]] = {}
    absent: dict[str, list[str]] = {}
    for c in found:
        parts = [_described(c, rows, weight, units) for rows in members]
        spec = column_format([part["sd"] for part in parts], [part["mean"] for part in parts], digits)
        if c.term in quartiles:
            _describe_by_quartiles(parts, [(c.values[rows], weight[rows]) for rows in members], weight_type, digits)
        for part in parts:
            part["text"] = part["text"] or f"{part['mean']:{spec}} ({part['sd']:{spec}})" * bool(part["n"])
        compared = parts[len(whole) :]
        variances = [part["variance"] for part in compared if np.isfinite(part["variance"])]
        scale = np.sqrt(np.mean(variances)) if variances else np.nan
        smd = [(part["mean"] - compared[0]["mean"]) / (scale if scale > 0 else np.nan) for part in compared[1:]]
        shown[c.name] = [*(part["text"] for part in parts), *_marked(smd, threshold)]
        absent[c.name] = [part["absent"] for part in parts]
        named = zip(heads, parts, strict=True)
        numbers[c.name] = {f"{key} {label}": part[key] for label, part in named for key in NUMBERS if key in part}
        numbers[c.name] |= {" ".join(filter(None, contrast)): d for contrast, d in zip(contrasts, smd, strict=True)}
    header = (
        ("", *heads, *(smd for smd, _ in contrasts)),
        ("", *(f"n {units[rows].sum():.0f}" for rows in members), *(label for _, label in contrasts)),
    )
    said = [f"{SHOWN.replace('percent', 'n (%)')}.", *["Median [quartiles] where shown."] * bool(median), *told]
    if any(np.isnan(c.values).any() for c in found):
        said.append("Missing: n (%) of all rows. The other numbers exclude missing values.")
    if contrasts:
        said.append(_note_on_differences(threshold, labels[0], "sqrt(mean of the groups' variances)"))
    frame = pd.DataFrame.from_dict(numbers, orient="index").rename_axis("covariate")
    frame = frame[sorted(frame, key=lambda name: name.startswith("SMD"))]  # last, also if only some rows have medians
    return PaperTable(ResultTable(_rows(found, shown, absent), header, title=title), [*said, *notes], frame)


def balance_for_paper(
    record: FitRecord,
    *,
    also: Any = None,
    data: Any = None,
    interactions: bool = False,
    threshold: float | None = 0.1,
    digits: int | None = None,
    names: Mapping[str, str] | None = None,
    title: str = "",
    notes: Sequence[str] = (),
) -> PaperTable:
    """Describe the covariates in each treatment group, before and after weighting: Table 1 of a fit.

    Parameters
    ----------
    also, data, interactions, names
        As in `balance`.
    threshold : float or None
        Standardized differences larger than this in absolute value are marked with a star.
    digits : int, optional
        Decimals of means and standard deviations. By default, enough for four significant digits of a row's smallest
        standard deviation.
    title : str
        Heading.
    notes : sequence of str
        Sentences to add to the notes.

    Returns
    -------
    PaperTable
        Means and standard deviations of every covariate of both formulas in each treatment group, and the standardized
        differences from the reference. Factors are shown level by level. Estimators without weights, such as
        `OutcomeRegression`, have no columns "after". The attribute `frame` has the numbers.

    Raises
    ------
    DesignError
        If a variable is unknown or has missing values in the sample.
    OptionError
        If an option has a value that is not allowed.

    Notes
    -----
    Differences are the same as in `balance`. For a table before any fit, use `causalrisk.table_one`.

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
    design, population, whens = record.design, record.options.population, WHEN[: 1 + record.spec.uses_propensity]
    whole = balance(record, also=also, data=data, interactions=interactions, means=True, names=names)
    parts = [whole.xs(contrast) for contrast in record.contrasts] if design.n_arms > 2 else [whole]
    every = chosen_covariates(record, also, data, interactions, names)
    constant = [covariate.name for covariate in every if covariate.name not in parts[0].index]
    covariates = [covariate for covariate in every if covariate.name in parts[0].index]
    if not covariates:
        raise UnavailableError(NO_COVARIATES)
    numbers = parts[0].loc[parts[0]["kind"] != "distance", parts[0].columns.str.match("mean |sd ")]
    versus = [""] if design.n_arms == 2 else list(design.labels[1:])
    smd = {when: [" ".join(filter(None, ("SMD", label, when))) for label in versus] for when in whens}
    for when in whens:
        for name, part in zip(smd[when], parts, strict=True):
            numbers[name] = part[f"diff {when}"]
    numbers = numbers.rename(index={covariate.name: _indicator(covariate).name for covariate in covariates})
    shown: dict[str, list[str]] = {str(name): [] for name in numbers.index}
    for name, row in numbers.iterrows():
        for when in whens:
            pairs = [(row[f"mean {label} {when}"], row[f"sd {label} {when}"]) for label in design.labels]
            spec = column_format([sd for _, sd in pairs], [mean for mean, _ in pairs], digits)
            texts = [format_share(mean) if np.isnan(sd) else f"{mean:{spec}} ({sd:{spec}})" for mean, sd in pairs]
            shown[str(name)] += [*texts, *_marked(row[smd[when]].to_numpy(), threshold)]
    half, sizes = design.n_arms + len(versus), [f"n {n}" for n in design.counts]
    header = [("", *(*design.labels, *["SMD"] * len(versus)) * len(whens)), ("", *sizes, *versus)]
    said, before, by = [f"{SHOWN}."], "", f"Weighted by {design.weights_name}."
    if len(whens) > 1:
        how, effective = record.spec.adjustment, [f"n {arm.effective_n:.1f}" for arm in record.overlap]
        header = [("", *np.repeat(whens, half)), header[0], (*header[1], *effective, *versus)]
        said = [f"{SHOWN}. n after {how} is Kish's effective n."]
        before, by = f" before {how}", f'Columns "before" are weighted by {design.weights_name} only.'
    scale = f"sqrt(mean of the groups' variances{before})"
    if population.toward is not None:
        scale = f"the standard deviation of group {design.labels[population.toward]} (the target){before}"
    elif population.balance_denominator == "weighted":
        scale = f"the standard deviation of all rows{' after weighting' * bool(before)}"
    said += [by] * (design.weight_type is not None)
    said += [_note_on_differences(threshold, design.labels[0], scale), filled_words(record)]
    if constant:
        said.append(f"Constant covariates are left out: {joined(constant)}.")
    table = ResultTable(_rows(list(map(_indicator, covariates)), shown), header, title=title)
    return PaperTable(table, [*said, *notes], numbers, together=half)


def _weighing(
    given: Any, weight_type: WeightType | None, table: pd.DataFrame, told: list[str]
) -> tuple[Array, Array, str | None]:
    """Return each row's weight (0 if missing), the number of rows that it represents, and the name of the weights."""
    column = None if given is None else find_column(given, "weights", "weights", table, {}, told)
    name = None if column is None else str(column.name)
    found = read_weights(None if column is None else Source("weights", str(name), column), weight_type)
    if found is None:
        return np.ones(len(table.index)), np.ones(len(table.index)), None
    weights = np.where(np.isnan(found), 0.0, found)
    used = weights > 0
    if not used.any():
        raise DesignError(f"weights {name!r} are 0 or missing in all rows.")
    if not used.all():
        told.append(f"{int((~used).sum())} rows without a positive weight are left out.")
    weights[used] = relative_weights(weights[used], weight_type)
    if weight_type == "frequency":
        told.append(f"Each row counts {name} times.")
        return weights, weights, name
    told.append(f"All numbers except n are weighted by {name}.")
    return weights, used.astype(float), name


def _groups(
    by: Any, table: pd.DataFrame, treated: Any, reference: Any, levels: Mapping[Any, str] | None, told: list[str]
) -> tuple[tuple[str, ...], list[np.ndarray], str | None]:
    """Return labels of the groups (reference first), a mask of the rows of each group, and the name of `by`."""
    if by is None and (treated is not None or reference is not None):
        option = "reference" if treated is None else "treated"
        raise OptionError(f'{option}= needs groups.\nUse `by="..."` with the name of the group column.')
    if by is None:
        return (), [], None
    column = find_column(by, role="group", default="group", table=table, frame={}, notes=[])
    name = str(column.name)
    known = ~missing_mask(column)
    codes, found = treatment_levels(column[known], name)
    if not 2 <= len(found) <= MANY_LEVELS:
        problem = f"group {name!r} has {len(found)} values; expected two to {MANY_LEVELS} groups"
        advice = "Leave out by= for one table of all rows, or cut the values into groups with pandas.cut."
        raise DesignError(f"{problem}.\n{advice}")
    first = found[0] if treated is None and reference is None else reference
    asked = {"treated": treated, "reference": first, "levels": levels}
    groups = arms_in_order(found, np.bincount(codes), name, named=True, **asked)
    members = np.zeros((len(found), len(known)), dtype=bool)
    members[:, known] = groups.arm_of(codes, found) == np.arange(len(found))[:, None]
    if not known.all():
        told.append(f"{int((~known).sum())} rows without {name} are in no group.")
    return groups.labels, list(members), name


def _indicator(covariate: Covariate) -> Covariate:
    """Recode a two-valued covariate as an indicator of its larger value. Return 0/1 and other covariates unchanged."""
    low, high = covariate.ends
    if (low, high) == (0.0, 1.0) or not (covariate.varies and covariate.binary):
        return covariate
    indicator = np.where(np.isnan(covariate.column), np.nan, (covariate.column == high).astype(float))
    return replace(covariate, level=covariate.level or f"{high:g}", column=indicator)


def _rows(
    covariates: Sequence[Covariate], shown: Mapping[str, list[str]], absent: Mapping[str, list[str]] | None = None
) -> list[tuple[str, ...]]:
    """Return one table row per covariate, with the levels of a factor below its name, and rows for missing values."""
    rows: list[tuple[str, ...]] = []
    for term, same in groupby(covariates, key=lambda c: c.term):
        siblings = list(same)
        first, width = siblings[0], len(shown[siblings[0].name])
        if len(siblings) > 1:
            rows.append((term, *[""] * width))
        for c in siblings:
            rows.append((c.name if len(siblings) == 1 else f"{INDENT}{c.level or c.name}", *shown[c.name]))
        if absent is not None and np.isnan(first.values).any():
            counts = absent[first.name]
            rows.append((f"{INDENT}missing", *counts, *[""] * (width - len(counts))))
    return rows


def _counted(c: Covariate) -> bool:
    return bool(c.level) or (c.binary and set(c.ends) <= {0.0, 1.0})


def _described(c: Covariate, rows: np.ndarray, weights: Array, units: Array) -> dict[str, Any]:
    """Return statistics of a covariate over `rows`. The caller formats the mean (SD) of numeric covariates."""
    values = c.values[rows]
    known = ~np.isnan(values)
    x, w, u = values[known], weights[rows][known], units[rows][known]
    n = float(u.sum())
    missing, share = float(units[rows].sum()) - n, 0.0 if known.all() else 1 - w.sum() / weights[rows].sum()
    found: dict[str, Any] = dict.fromkeys(("mean", "sd", "variance"), np.nan)
    found |= {"n": int(n), "missing": int(missing), "text": "", "absent": f"{missing:.0f} ({format_share(share)})"}
    if not n:
        return found
    found["mean"], found["variance"] = mean_and_variance(x, w, u, _counted(c))
    if _counted(c):
        return found | {"text": f"{u @ x:.0f} ({format_share(found['mean'])})"}
    return found | {"sd": np.sqrt(found["variance"])}


def _describe_by_quartiles(
    parts: list[dict[str, Any]], given: list[tuple[Array, Array]], weight_type: WeightType | None, digits: int | None
) -> None:
    """Add the weighted median and quartiles of each group to `parts`, as numbers and as text (empty if unknown)."""
    found, levels = np.full((len(parts), 3), np.nan), [0.25, 0.5, 0.75]
    for k, (values, weights) in enumerate(given):
        known = ~np.isnan(values)
        order = np.argsort(values[known])
        x, w = values[known][order], weights[known][order]
        if weight_type != "probability" and x.size:
            found[k] = np.quantile(np.repeat(x, w.astype(int)), levels)
        elif x.size:  # rounding could leave an exact share just below its level
            found[k] = x[np.searchsorted(np.cumsum(w) / w.sum() * (1 + 1e-12), levels)]
    whole = digits is None and (found[~np.isnan(found)] % 1 == 0).all()
    spec = ".0f" if whole else column_format(found[:, 2] - found[:, 0], found, digits)
    for part, (low, middle, high) in zip(parts, found, strict=True):
        part["text"] = "" if np.isnan(middle) else f"{middle:{spec}} [{low:{spec}}, {high:{spec}}]"
        part |= {"q25": low, "median": middle, "q75": high}


def _marked(differences: Sequence[float] | Array, threshold: float | None) -> list[str]:
    marks = ["" if threshold is None else "*" if abs(d) > threshold else " " for d in differences]
    return ["" if np.isnan(d) else f"{d:z.3f}{mark}" for d, mark in zip(differences, marks, strict=True)]


def _note_on_differences(threshold: float | None, reference: str, scale: str) -> str:
    starred = "" if threshold is None else f" * marks SMDs beyond {threshold:g}."
    return f"SMD: difference in means from group {reference}, divided by {scale}.{starred}"
