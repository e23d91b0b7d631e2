"""Difference-in-differences: turn the outcome into a change, and long data into one row per unit."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalrisk.design.formulas import Formula, in_formula, parse, parsed, renamed, uses
from causalrisk.design.scan import Scan
from causalrisk.design.survey import labels_of
from causalrisk.design.tables import as_table, check_complete, column_of, find_column, listing, missing_mask
from causalrisk.design.treatment import show
from causalrisk.errors import DesignError, OptionError, not_on_disk, one_of, with_other_names

PERIODS = 2
NEVER = "never"
COMPARED = "group or control"  # column that marks the units of a group and its controls


@dataclass(frozen=True, kw_only=True, repr=False)
class DiD:
    """Outcomes before and after the treatment, for difference-in-differences.

    Parameters
    ----------
    before : str, optional
        The outcome before the treatment: a column, or a term as in formulas. The outcome of the formula is then the
        outcome after the treatment.
    time, unit : str, optional
        For long data, instead of `before`: columns with the period (two values) and the unit. Each unit becomes one
        row, with the covariates and weights of the earlier period. Without `unit`, the data are repeated cross
        sections: each period has different units.
    normalize : bool, default True
        For AIPW: whether the weights of the controls' residuals add up to one, as in R's DRDID. Repeated cross sections
        need True.

    Notes
    -----
    Options can also be given under their names in other packages, such as ``id="unit"``.

    The outcome models predict the change, and the effect is the effect on the treated. The assumptions are conditional
    parallel trends and no effect before the treatment. For panels, AIPW is the doubly robust estimator of [1]_. With
    ``propensity_loss="calibrated"``, AIPW is the improved estimator of [1]_, the default of DRDID.

    With repeated cross sections, each group has one outcome model per period, and group means are differences between
    the periods. AIPW is then the locally efficient doubly robust estimator of [1]_. Covariates and treatment must have
    the same distribution in both periods.

    References
    ----------
    .. [1] Sant'Anna, P. H. C. and Zhao, J. (2020). Doubly robust difference-in-differences estimators. Journal of
       Econometrics 219, 101-122.

    Examples
    --------
    >>> from causalrisk import AIPW, DiD, datasets
    >>> jobs = datasets.load_lalonde(controls="cps3")
    >>> AIPW.from_formula(
    ...     "re78 ~ age + educ + black + re74",
    ...     jobs,
    ...     treat="treat",
    ...     did=DiD(before="re75"),
    ... ).fit()
    AIPW: ATT 1287.19 (816.12), 1 vs 0, n 614
    """

    before: str | None = None
    time: str | None = None
    unit: str | None = None
    normalize: bool = True

    def __post_init__(self) -> None:
        one_of("normalize", self.normalize, (True, False))
        given = [value for value in (self.before, self.time, self.unit) if value is not None]
        wrong = (self.before is None) == (self.time is None) or (self.unit is not None and self.time is None)
        if wrong or not all(isinstance(value, str) for value in given):
            needed = "DiD needs the name of a column as before=, or as time= (for panels, together with unit=)"
            raise OptionError(f'{needed}.\nUse `DiD(before="y0")` or `DiD(time="year", unit="id")`.')
        if self.cross_sections and not self.normalize:
            raise OptionError("normalize=False is not available for repeated cross sections.\nLeave normalize= out.")

    @property
    def cross_sections(self) -> bool:
        """Whether the data are repeated cross sections."""
        return self.time is not None and self.unit is None

    def __repr__(self) -> str:
        given = ((field.name, getattr(self, field.name), field.default) for field in fields(self))
        return f"DiD({', '.join(f'{name}={show(value)}' for name, value, usual in given if value != usual)})"


DiD.__init__ = with_other_names(DiD.__init__)  # type: ignore[method-assign]


def with_change(did: Any, formula: Any, data: Any, treat: Any) -> tuple[Any, Any]:
    """Return a formula whose outcome is the change, such as ``I(y1 - y0) ~ x1``, and data with one row per unit."""
    if not isinstance(did, DiD):
        raise OptionError(f'did is a {type(did).__name__}; expected a DiD.\nUse `did=DiD(before="<column>")`.')
    outcome = parse(formula, "outcome", [])
    if len(outcome.left) != 1 or len(outcome.left[0].factors) != 1:
        return formula, data  # such an outcome raises an error later, with or without `did`
    after = outcome.left[0].factors[0].code
    if did.before is not None:
        _check_before(did.before, after, outcome)
        before = did.before if re.search(r"[(\[]", did.before) else in_formula(did.before)
    elif isinstance(data, Scan):
        raise not_on_disk("DiD with time=", use="did=DiD(before=)")
    elif did.cross_sections:
        return formula, data
    else:
        data, before = _one_row_each(did, outcome, data, treat)
    single = ast.Name | ast.Call | ast.Attribute | ast.Subscript  # others, such as `y > 3`, need parentheses
    after, before = (code if isinstance(parsed(code).body, single) else f"I({code})" for code in (after, before))
    return f"I({after} - {before}) ~ {outcome.right_text}", data


def _check_before(before: str, after: str, outcome: Formula) -> None:
    """Raise an error if `before` is the outcome itself, or a column while the outcome is a function of a column."""
    used = list({use.name for use in outcome.uses("left") if use.role not in ("called", "base")})
    itself = before in (after, outcome.left[0].name())
    if itself or (len(used) == 1 and not after.isidentifier() and before.isidentifier()):
        found = "the outcome after treatment" if itself else "a plain column, but the outcome is a function of a column"
        typed = '"<column>"' if itself else show(renamed(after, {used[0]: before}))
        raise DesignError(f"before={show(before)} is {found}.\nUse `did=DiD(before={typed})`.")


def without_change(formula: str, did: DiD | None) -> str:
    """Return the formula with the outcome after the treatment on its left-hand side: the inverse of `with_change`."""
    if did is None or did.cross_sections:
        return formula
    return f"{_change_of(formula)[0]} ~{formula.partition('~')[2]}"


def change_words(formula: str) -> str:
    """Describe in words the outcome that `with_change` made, such as "the change from y_2010 to y"."""
    after, before = _change_of(formula)
    return f"the change from {before} to {after}"


def names_before(formula: str, did: DiD | None) -> set[str]:
    """Return the variables that occur only in the outcome before the treatment. They may be used as covariates."""
    if did is None or did.cross_sections:
        return set()
    after, before = _change_of(formula)
    return {use.name for use in uses(before)} - {use.name for use in uses(after)}


def _change_of(formula: str) -> tuple[str, str]:
    """Split a formula made by `with_change` into the outcome after and the outcome before the treatment."""
    call: Any = parsed(formula.partition("~")[0].strip()).body
    return ast.unparse(call.args[0].left), ast.unparse(call.args[0].right)


def _one_row_each(did: DiD, outcome: Formula, data: Any, treat: Any) -> tuple[pd.DataFrame, str]:
    """Return long data as one row per unit, and the earlier outcome as a term for formulas."""
    table = as_table(data, [])
    frame, period, periods, unit = _keys(table, str(did.time), str(did.unit), PERIODS)
    halves = [frame[period == k].set_axis(pd.Index(unit[period == k], name=did.unit)) for k in range(PERIODS)]
    early, late = halves[0], halves[1].loc[halves[0].index]
    if not isinstance(treat, str):
        raise DesignError('with did=, treat= must be the name of a column.\nUse `treat="d"`.')
    treated = find_column(treat, "treatment", "treat", table, {}, [])
    typed = f'data["{treat}"] = data.groupby("{did.unit}")["{treat}"].transform("max")'
    _check_fixed(treated, unit, f"treatment {treat!r}", f"Use `{typed}`.")
    names = {use.name for use in outcome.uses("left") if use.role != "called" and use.name in early}
    suffix = f"_{_shown(periods)[0]}"
    while any(f"{name}{suffix}" in early for name in names):
        suffix += "_"
    earlier = {name: f"{name}{suffix}" for name in sorted(names)}
    before = renamed(outcome.left[0].factors[0].code, {name: in_formula(new) for name, new in earlier.items()})
    return early.assign(**{new: early[name] for name, new in earlier.items()} | {n: late[n] for n in names}), before


def _check_fixed(values: Any, units: Any, what: str, advice: str) -> None:
    """Raise a DesignError if a variable changes within a unit. Missing values do not count as changes."""
    found = pd.Series(values).groupby(np.asarray(units), sort=False).nunique()
    odd = found.index[found > 1]
    if len(odd):
        text = f"{what} changes within {len(odd)} of {len(found)} units ({listing(odd)})"
        raise DesignError(f"{text}; expected one value per unit.\n{advice}")


def _keys(
    table: pd.DataFrame, time: str, unit: str, count: int | None = None
) -> tuple[pd.DataFrame, NDArray[np.intp], pd.Index, pd.Series]:
    """Return the columns of long data, each row's period number, the ordered periods, and each row's unit."""
    times, units = (find_column(name, role, role, table, {}, []) for role, name in (("time", time), ("unit", unit)))
    check_complete(units, f"unit {unit!r}")
    frame = pd.DataFrame({name: column_of(table, name) for name in table.columns if isinstance(name, str)})
    period, periods = _in_order(time, times, count)
    rows = units.groupby([units.to_numpy(), period]).size().unstack(fill_value=0)
    odd = rows.index[(rows != 1).any(axis=1)]
    if len(odd):
        found = f"{len(odd)} of {len(rows)} units in {unit!r} do not have one row in each period ({listing(odd)})"
        copies = f'`data=data.drop_duplicates(["{unit}", "{time}"])` if rows are duplicates'
        complete = f'`data=data[data.groupby("{unit}")["{time}"].transform("nunique") == {rows.shape[1]}]`'
        other = "For repeated cross sections (different units in each period), use `AIPW` with `did=DiD(time=)`."
        keep = "To keep all units, add rows with a missing outcome."
        raise DesignError(f"{found}.\nUse {copies}, or {complete} to keep only complete units. {keep} {other}")
    return frame, period, periods, units


def _in_order(name: str, values: pd.Series, count: int | None = None) -> tuple[NDArray[np.intp], pd.Index]:
    """Return each row's period number and the periods in order. `count` is the required number of periods."""
    check_complete(values, f"time {name!r}")
    values = _without_order(values)
    if not isinstance(values.dtype, pd.CategoricalDtype) and pd.api.types.is_string_dtype(values):
        order = '"<first period>", "<second>"' + ", ..." * (values.nunique() > PERIODS)
        typed = f'data["{name}"] = pandas.Categorical(data["{name}"], [{order}], ordered=True)'
        found = f"time {name!r} is text ({listing(sorted(values.unique()))}), so the order of the periods is unknown"
        raise DesignError(f"{found}.\nUse `{typed}`.")
    period, found = pd.factorize(values, sort=True)
    periods = pd.Index(found)
    if count is not None and len(periods) != count:
        typed = f"data=data[data[{show(name)}].isin([{listing(periods[[0, -1]]) if len(periods) else ''}])]"
        text = f"time {name!r} has {len(periods)} periods ({listing(periods)}); expected two"
        raise DesignError(f"{text}.\nUse `{typed}`.")
    return period, periods


def _without_order(values: pd.Series) -> pd.Series:
    """Return an unordered categorical as plain values, because the order of its categories has no meaning."""
    if isinstance(values.dtype, pd.CategoricalDtype) and not values.dtype.ordered:
        return values.astype(values.dtype.categories.dtype)
    return values


def _shown(periods: pd.Index) -> tuple[str, ...]:
    return tuple(text.removesuffix(" 00:00:00") for text in labels_of(periods))


@dataclass(frozen=True, eq=False)
class Periods:
    """The two periods of repeated cross sections: a mask (n,) of the later rows, and names, earlier period first."""

    late: NDArray[np.bool_]
    names: tuple[str, ...]

    @classmethod
    def of(cls, name: str, values: pd.Series) -> Periods:
        """Read the periods of the rows. Raise a DesignError unless there are two in a known order."""
        period, periods = _in_order(name, values, PERIODS)
        return cls(period == 1, _shown(periods))

    def cells(self, arm: NDArray[Any], labels: tuple[str, ...]) -> tuple[NDArray[Any], tuple[str, ...]]:
        """Return the cell (arm in a period) of each row, shape (n,), and the cells' names, earlier period first."""
        names = tuple(f"{label} in {period}" for period in self.names for label in labels)
        return arm + len(labels) * self.late, names


class Adoption(NamedTuple):
    """Long data of units that begin treatment at different times.

    `period` (N,) and `unit` (N,) have the period number and the unit number of each row. `names` (T) and `units` (n)
    are the names of the periods and the units. `begins` (n,) is the number of the period in which each unit begins, or
    T for never-treated units. `column` is the name of the column that says when units begin.
    """

    frame: pd.DataFrame
    period: NDArray[np.intp]
    unit: NDArray[np.intp]
    begins: NDArray[np.intp]
    names: pd.Index
    units: pd.Index
    column: str

    def sizes(self, times: NDArray[np.float64]) -> pd.Series:
        """Count units by first treated period, never-treated units last. Unit i counts `times[i]` times."""
        found = np.bincount(self.begins, times, len(self.names) + 1).astype(int)
        return pd.Series(found, index=[*_shown(self.names), NEVER])[found > 0]

    def unequal(self, time: str) -> str:
        """Return a warning if whole-number periods are not equally spaced, otherwise an empty text."""
        values = np.asarray(self.names if pd.api.types.is_numeric_dtype(self.names) else [], dtype=float)
        gaps, shown = np.flatnonzero(np.diff(values) > np.diff(values).min(initial=np.inf)), _shown(self.names)
        between = " and ".join(f"between {shown[k]} and {shown[k + 1]}" for k in gaps if not (values % 1).any())
        return between and (
            f"The periods of {time!r} are not equally spaced: no period is observed {between}. Exposure counts "
            "observed periods, so an average by exposure can mix effects after different times. A unit that begins in "
            "an unobserved period counts as beginning in the next observed one.\nUse `study.effects(None)`, with "
            "one row per group and period, or data with equally spaced periods."
        )

    def of_units(self, name: str, fixed: bool = True) -> pd.Series:
        """Return each unit's first known value of a column. With `fixed`, changes within a unit raise a DesignError."""
        values, order = pd.Series(self.frame[name].array), np.argsort(self.period, kind="stable")
        if fixed:
            _check_fixed(values, self.units[self.unit], repr(name), "Use a column with the value of one period.")
        return values.iloc[order].groupby(self.unit[order]).first().set_axis(self.units)

    def keeping(self, labels: pd.Index) -> Adoption:
        """Return the data of the units with these labels."""
        kept = self.units.isin(labels)
        rows, number = kept[self.unit], np.cumsum(kept) - 1
        by_row = {"frame": self.frame[rows], "period": self.period[rows], "unit": number[self.unit[rows]]}
        return self._replace(**by_row, begins=self.begins[kept], units=self.units[kept])

    def alone(self, cluster: Any) -> list[int]:
        """Return the numbers of the periods in which only one unit, or only units of one cluster, begin."""
        cluster_of = self.of_units(cluster).to_numpy() if cluster in self.frame else self.units
        found = pd.Series(cluster_of).groupby(self.begins).nunique()
        return [k for k in range(len(self.names)) if found.get(k) == 1]

    def cells(
        self, base: str, anticipation: int, not_yet: bool, whole: bool
    ) -> Iterator[tuple[int, int, pd.DataFrame | None, str]]:
        """Yield the two-period data of each group and period: group number, period number, rows, and treatment name.

        With `not_yet`, units that begin after both periods are also controls. With `whole`, the data also keep the
        rows of all other units. The rows are None if there are no controls.
        """
        never = len(self.names)
        for group in np.unique(self.begins[self.begins < never]):
            treated, treat = self.begins == group, f"{self.column} = {self.names[group]}"
            last = group - 1 - anticipation
            if last < 0:
                found = f"group {self.names[group]} has no period before its anticipation periods ({anticipation})"
                raise DesignError(f"{found}.\nUse a smaller `anticipation=`, or leave this group out of the data.")
            for period in range(never):
                before = last if base == "universal" or period >= group else period - 1
                if before < 0 or before == period:
                    continue
                later = (self.begins > max(period, before) + anticipation) & not_yet
                control = ((self.begins == never) | later) & ~treated
                part = None
                if control.any():
                    compared = treated | control
                    rows = np.isin(self.period, (period, before)) & (compared | whole)[self.unit]
                    of_rows = self.unit[rows]
                    marks = {treat: treated[of_rows].astype(int), COMPARED: compared[of_rows]}
                    part = self.frame[rows].assign(**marks)
                yield int(group), period, part, treat


def adoption(data: Any, *, time: str, unit: str, begins: str) -> Adoption:
    """Read long data of units that begin treatment at different times. Arguments are as in `event_study`."""
    table = as_table(data, [])
    frame, period, names, units = _keys(table, time, unit)
    first, never = find_column(begins, "begins", begins, table, {}, []), len(names)
    known = ~missing_mask(first)
    start = np.full(len(frame), never)
    start[known] = _period_of(first[known], names, begins, time)
    unit_codes, unit_names = pd.factorize(units)
    early = start == 0
    if early.any():
        found = f"at or before the start of the data ({listing(names[:1])}) for {len(set(unit_codes[early]))} units"
        values, column = listing(pd.unique(first[early])), f'data["{begins}"]'
        never_begin = f"`{column} = {column}.replace([{values}], np.nan)` if these units are never treated"
        advice = f"{never_begin}, or `data=data[~{column}.isin([{values}])]` if they are always treated"
        if set(first[known].unique()) <= {0, 1} and not set(names[1:]) & {1}:  # an indicator of treatment
            when = f'data["{time}"].where({column} == 1).groupby(data["{unit}"]).transform("min")'
            advice = f"`{when}` if {begins!r} is 1 from the first treated period on"
        raise DesignError(f"begins={begins!r} is {found}; expected a later first period of treatment.\nUse {advice}.")
    _check_fixed(start, units, f"begins={begins!r}", "Leave these units out of the data.")
    of_units = pd.Series(start).groupby(unit_codes).first().to_numpy()
    return Adoption(frame, period, unit_codes, of_units, names, pd.Index(unit_names), begins)


def _period_of(first: pd.Series, names: pd.Index, begins: str, time: str) -> NDArray[np.intp]:
    """Return the number of the first period at or after each value. If periods are positive, 0 means never treated."""
    try:
        start = np.asarray(names.searchsorted(_without_order(first).array))
    except TypeError as error:
        found = f"begins={begins!r} has the value {listing(first[:1])}, but time={time!r} has {listing(names[:1])}"
        typed = f'data["{begins}"].astype(int)' if pd.api.types.is_number(names[0]) else f'data["{time}"].dt.year'
        raise DesignError(f"{found}.\nUse one type for `time=` and `begins=`, such as `{typed}`.") from error
    if pd.api.types.is_number(names[0]) and names[0] > 0:
        start[(first == 0).to_numpy(dtype=bool)] = len(names)  # as in csdid and did
    return start
