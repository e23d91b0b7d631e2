"""Estimates side by side, one column per model, as papers print them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from causalrisk.design.tables import nearest
from causalrisk.errors import OptionError, check_alpha, one_of, with_other_names
from causalrisk.estimation.options import Below
from causalrisk.inference.intervals import rounded_se
from causalrisk.report.labels import covariance_name
from causalrisk.report.table import PaperTable, ResultTable, column_format, format_p

BELOW = {"se": "Standard errors in parentheses.", "ci": "{level}% confidence intervals in brackets.",
         "z": "Test statistics in parentheses.", "p": "P-values in parentheses."}  # fmt: skip
STARS = ((0.01, "***"), (0.05, "**"), (0.1, "*"))
MEANS = ("POM[", "POQ[")  # beginnings of the names of potential-outcome means and quantiles
NUMBERS = ("estimate", "std err", "z", "P", "lower", "upper")
STATISTICS = {
    "estimator": "Estimator",
    "estimand": "Estimand",
    "learner": "Learner",
    "weights": "Weights",
    "std_errors": "Standard errors",
    "clusters": "Clusters",
    "df": "Degrees of freedom",
    "nobs": "Observations",
    "units": "Units",
    "effective_n": "Effective n by group",
    "first_stage_f": "First-stage F",
    "imputations": "Imputations",
    "r_squared": "R-squared",
}


@dataclass(frozen=True)
class Column:
    """One column of the table: the estimates and statistics of one model.

    `statistics` has texts by the keys of `STATISTICS`. `unit` is the outcome if all estimates are in its units.
    `groups` are the treatment groups, in the order in which "effective_n" lists them.
    """

    name: str
    outcome: str
    estimates: pd.DataFrame
    statistics: dict[str, str]
    unit: str | None = None
    groups: tuple[str, ...] = ()


@with_other_names
def etable(
    results: Any,
    *more: Any,
    names: Sequence[str] | None = None,
    keep: Sequence[str] | None = None,
    drop: Sequence[str] = (),
    rename: Mapping[str, str] | None = None,
    below: Below | None = "se",
    stars: bool = False,
    alpha: float = 0.05,
    statistics: Sequence[str] | None = None,
    extra: Mapping[str, Sequence[Any]] | None = None,
    digits: int | None = None,
    title: str = "",
    notes: Sequence[str] = (),
) -> PaperTable:
    """Put results side by side in a table for a paper.

    Parameters
    ----------
    results : sequence or mapping of results, or one of them
        Results of this package, of `pool` or of statsmodels have one column each. Comparisons have one column per
        estimator. The keys of a mapping are the column heads.
    *more : results
        Further results: ``etable(first, second)`` is the same as ``etable([first, second])``.
    names : sequence of str, optional
        Column heads; by default the names of the estimators.
    keep, drop : sequence of str, optional
        Parameters to show (`keep`, in this order) or to leave out (`drop`).
    rename : mapping of str to str, optional
        Printed names of parameters. Parameters with the same name share a row: ``{"mbsmoke": "ATE"}`` puts a
        regression coefficient next to an effect.
    below : {"se", "ci", "z", "p"} or None
        Number below each estimate: standard error, interval, statistic z (or t) or p-value.
    stars : bool
        Whether to mark p-values of effects below 0.1 (``*``), 0.05 (``**``) and 0.01 (``***``).
    alpha : float
        Significance level of intervals.
    statistics : sequence of str, optional
        Rows below the estimates: "estimator", "estimand", "learner", "weights", "std_errors", "clusters", "df" (of t
        tests and intervals), "nobs", "units" (of event studies), "effective_n", "first_stage_f", "imputations",
        "r_squared". By default, all rows with a value in at least one column, without "estimator" if the column heads
        already name the estimators.
    extra : mapping of str to sequence, optional
        Further rows below the estimates: for each label, one value per column.
    digits : int, optional
        Number of decimals. By default, the smallest standard error has four significant digits. If all effects are
        differences in one outcome, all numbers have the same decimals. If some columns are ratios, regressions, `LATE`
        or pooled fits of this outcome, decimals are chosen for each row; rows of one kind, such as POM, share them.
        With several outcomes, they are chosen for each column.
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
    OptionError
        If `keep`, `drop` or `rename` has an unknown parameter, or `rename` gives two parameters of a model the same
        name. Also if `names` or `extra` has the wrong length, or `results` contains anything but results.

    Notes
    -----
    The effective n of a treatment group is Kish's (sum w)^2 / sum w^2 of the importance weights. The reference group
    comes first. Comparisons have bootstrap standard errors, as in their `table`. Only regressions have an R-squared.

    Examples
    --------
    >>> from causalrisk import AIPW, IPWRA, datasets, etable
    >>> births = datasets.load_cattaneo2()
    >>> fits = [
    ...     m.from_formula("bweight ~ mage + medu", births, treat="mbsmoke").fit()
    ...     for m in (IPWRA, AIPW)
    ... ]
    >>> etable(fits, keep=["ATE"])
    ==============================================================================
    bweight                                                   (1)         (2)
                                                             IPWRA        AIPW
    ------------------------------------------------------------------------------
    ATE                                                     -256.86     -259.51
                                                            (24.38)     (24.02)
    ------------------------------------------------------------------------------
    Estimand                                                  ATE         ATE
    Standard errors                                          robust      robust
    Observations                                              4642        4642
    Effective n by group                                   3681 / 775  3681 / 775
    ==============================================================================
    Notes: Standard errors in parentheses.
    """
    results = [results, *more] if more else results
    check_alpha(alpha)
    below = one_of("below", below, (*BELOW, None))
    one_of("stars", stars, (True, False))
    lists = {"names": names, "keep": keep, "drop": drop, "statistics": statistics, "notes": notes}
    for option, given in lists.items():
        if isinstance(given, str) or not isinstance(() if given is None else given, Iterable):
            raise OptionError(f"{option}={given!r}; expected a list.\nUse `{option}=[{given!r}]`.")
    for option, named in (("rename", rename), ("extra", extra)):
        if not isinstance({} if named is None else named, Mapping):
            raise OptionError(f"{option}={named!r}; expected a mapping.\nUse `{option}={{'ATE': ...}}`.")
    rename = {term: str(label) for term, label in (rename or {}).items()}
    columns = _columns(results, names, alpha)
    known = {term for column in columns for term in column.estimates.index}
    for place, column in enumerate(columns):
        estimates = column.estimates.drop(index=list(drop), errors="ignore").rename(index=rename)
        if estimates.index.has_duplicates:
            twice = estimates.index[estimates.index.duplicated()][0]
            raise OptionError(f"rename= gives two parameters of one model the name {twice!r}.\nUse different names.")
        columns[place] = replace(column, estimates=estimates)
    terms = list(dict.fromkeys(str(term) for column in columns for term in column.estimates.index))
    means = {rename.get(term, term) for term in (*terms, *rename) if term.startswith(MEANS)}
    terms.sort(key=lambda term: term in means)  # below the effects of all columns
    for option, asked in (("keep", keep), ("drop", drop), ("rename", rename)):
        for term in asked or ():
            if term not in known and (option == "rename" or term not in terms):
                raise OptionError(f"{option}: {term!r} is not a parameter of any column.\n{nearest(term, terms)}")
    shown = terms if keep is None else dict.fromkeys(rename.get(term, term) for term in keep)
    terms = [term for term in shown if term not in drop]
    for i, column in enumerate(columns, 1):
        if column.estimates.index.intersection(terms).empty:
            own = ", ".join(column.estimates.index) or "all in drop="
            raise OptionError(f"keep= and drop= leave no parameter in column ({i}).\nIts parameters are {own}.")
    specs = _formats(terms, columns, digits)
    starred = set(terms) - means if stars else ()
    lines = [line for term in terms for line in _estimate_lines(term, columns, below, term in starred, specs)]
    if statistics is None:
        same = all(column.name == column.statistics.get("estimator", column.name) for column in columns)
        there = [key for key in STATISTICS if any(column.statistics.get(key) for column in columns)]
        statistics = [key for key in there if key != "estimator" or not same]
    for key in statistics:
        one_of("statistics", key, tuple(STATISTICS))
    found = [(STATISTICS[key], *(column.statistics.get(key, "") for column in columns)) for key in statistics]
    for label, values in (extra or {}).items():
        if isinstance(values, str) or len(values) != len(columns):
            raise OptionError(f"extra: {label!r} has {len(values)} values; expected {len(columns)}, one per column.")
        found.append((label, *map(str, values)))
    outcomes = [column.outcome for column in columns]
    same = len(set(outcomes)) == 1
    header = [(outcomes[0] if same else "", *(f"({i})" for i in range(1, len(columns) + 1)))]
    header += [] if same else [("", *outcomes)]
    header.append(("", *(column.name for column in columns)))
    rules = (len(lines),) if lines and found else ()
    table = ResultTable((*lines, *found), header, aligns="l" + "c" * len(columns), title=title, rules=rules)
    said = [] if below is None else [BELOW[below].format(level=f"{100 * (1 - alpha):.4g}")]
    said += ["Intervals by exposure are pointwise."] * (below == "ci" and any("units" in c.statistics for c in columns))
    said += ["* p < 0.1, ** p < 0.05, *** p < 0.01."] * stars
    orders: dict[tuple[str, ...], list[str]] = {}
    for i, column in enumerate(columns, 1):
        if column.groups and "effective_n" in statistics:
            orders.setdefault(column.groups, []).append(f"({i})")
    for groups, places in orders.items():
        of = f" of {', '.join(places)}" * (len(orders) > 1)
        said += [f"Groups{of} in order: {', '.join(groups)}."] * (groups != ("0", "1"))
    stacked = {f"({i}) {column.name}": column.estimates.reindex(terms).stack() for i, column in enumerate(columns, 1)}
    index = pd.MultiIndex.from_product([terms, list(NUMBERS)], names=["term", "number"])
    return PaperTable(table, [*said, *notes], pd.DataFrame(stacked, index=index))


def _columns(results: Any, names: Sequence[str] | None, alpha: float) -> list[Column]:
    if hasattr(results, "params") or not isinstance(results, Iterable):
        results = [results]
    fits: list[tuple[str, Any]] = []
    for name, res in results.items() if isinstance(results, Mapping) else [("", res) for res in results]:
        inside = {"": res}
        if hasattr(type(res), "bootstrapped"):  # without a bootstrap, robust errors
            inside = {key: res.results[key] if fit.bse.isna().all() else fit for key, fit in res.bootstrapped.items()}
        fits += [(": ".join(filter(None, (str(name), own))), fit) for own, fit in inside.items()]
    if not fits:
        raise OptionError("there are no results; expected at least one.\nUse `etable([res1, res2])`.")
    if names is not None and len(names) != len(fits):
        raise OptionError(f"names has {len(names)} entries; expected {len(fits)}, one per result.")
    heads = [name or None for name, _ in fits] if names is None else map(str, names)
    return [_column(res, name, alpha) for name, (_, res) in zip(heads, fits, strict=True)]


def _column(res: Any, name: str | None, alpha: float) -> Column:
    if hasattr(type(res), "pretrend_test"):
        return _event_study_column(res, name, alpha)
    needed = ("params", "bse", "pvalues", "conf_int")
    found = next((f"has no {name}; expected a fit" for name in needed if not hasattr(res, name)), "")
    if found or np.ndim(res.params) > 1:
        instead = "`res.table_one()` for balance, or " * isinstance(res, pd.DataFrame)
        found = found or "has several equations; expected a fit of one"
        raise OptionError(f"{type(res).__qualname__} {found}.\nUse {instead}`model.fit()`.")
    labels = list(res.params.index) if isinstance(res.params, pd.Series) else list(res.model.exog_names)
    labels, groups = list(map(str, labels)), ()
    numbers = np.column_stack([res.params, res.bse, res.tvalues, res.pvalues, np.asarray(res.conf_int(alpha))])
    estimates = pd.DataFrame(numbers, index=labels, columns=list(NUMBERS))
    unit = None
    if hasattr(res, "glance"):
        row = res.glance().iloc[0]
        outcome = str(row["outcome"])
        statistics = {key: str(row[key]) for key in STATISTICS if key in row and pd.notna(row[key])}
        if "first_stage_f" in statistics:
            statistics["first_stage_f"] = f"{row['first_stage_f']:.1f}"
        statistics["df"] = f"{row['df']:.6g}" if row["df"] == row["df"] and "imputations" not in row else ""
        if hasattr(type(res), "overlap"):  # fits of this package, except LATE and pooled results
            unit = outcome if res._record.options.effect_scale.additive else None
            if res._record.weight_fit is not None and res._record.spec.uses_propensity:
                statistics["effective_n"] = " / ".join(f"{arm.effective_n:.0f}" for arm in res._record.overlap)
                groups = tuple(res._record.design.labels)
    else:
        outcome, statistics = str(res.model.endog_names), {"estimator": type(res.model).__name__}
        statistics |= {"std_errors": str(getattr(res, "cov_type", "")), "nobs": f"{res.nobs:.0f}"}
        statistics |= {"r_squared": f"{res.rsquared:.4f}"} if np.isfinite(getattr(res, "rsquared", np.nan)) else {}
    return Column(statistics["estimator"] if name is None else name, outcome, estimates, statistics, unit, groups)


def _event_study_column(study: Any, name: str | None, alpha: float) -> Column:
    parts = [study.effects("all", alpha), study.effects("exposure", alpha, adjust=None)]
    labels = ["ATT", *(f"exposure {periods}" for periods in parts[1].index)]
    numbers = [part.drop(columns="adjusted P", errors="ignore").to_numpy() for part in parts]
    estimates = pd.DataFrame(np.concatenate(numbers), index=labels, columns=list(NUMBERS))
    errors = covariance_name(study._record)
    statistics = {"estimand": "ATT", "std_errors": errors, "units": f"{study.sizes.sum()}"}
    return Column("Event study" if name is None else name, study.outcome, estimates, statistics, study.outcome)


def _formats(terms: Sequence[str], columns: Sequence[Column], digits: int | None) -> dict[tuple[int, str], str]:
    """Return the number format of each column and row, as described for `digits` in `etable`."""
    parts = [column.estimates.loc[column.estimates.index.isin(terms), ["estimate", "std err"]] for column in columns]
    every, specs = pd.concat(parts), {}
    kinds = every.index.str.partition("[").get_level_values(0)
    one_unit = columns[0].unit is not None and len({column.unit for column in columns}) == 1
    one_outcome = len({column.outcome for column in columns}) == 1
    for place, term in product(range(len(columns)), terms):
        alike = every if one_unit else every[kinds == term.partition("[")[0]] if one_outcome else parts[place]
        values, errors = alike.to_numpy().T
        specs[place, term] = column_format(rounded_se(values, errors), values, digits)
    return specs


def _estimate_lines(
    term: str, columns: Sequence[Column], below: str | None, stars: bool, specs: Mapping[tuple[int, str], str]
) -> list[list[str]]:
    """Return the line of a parameter's estimates and, unless `below` is None, the line of numbers below it."""
    lines = [[term], *[[""]] * (below is not None)]
    for place, column in enumerate(columns):
        cells, spec = ["", ""], specs[place, term]
        if term in column.estimates.index:
            row = column.estimates.loc[term]
            mark = next((mark for level, mark in STARS if row["P"] < level), "") if stars else ""
            under = {
                "se": f"({format(row['std err'], spec)})",
                "ci": f"[{format(row['lower'], spec)}, {format(row['upper'], spec)}]",
                "z": f"({row['z']:.2f})",
                "p": f"({format_p(row['P'])})",
            }
            cells = [f"{format(row['estimate'], spec)}{mark}", under.get(below or "", "")]
        for line, cell in zip(lines, cells, strict=False):
            line.append(cell)
    return lines
