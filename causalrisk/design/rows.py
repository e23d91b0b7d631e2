"""Columns that go by rows, and the estimation sample: one set of rows for both models and everything else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from causalrisk.design.did import DiD
from causalrisk.design.dtypes import listing, missing_mask, numbers
from causalrisk.design.rank import check_magnitude
from causalrisk.design.survey import ROLES, Survey, SurveyColumns, nobody_inside, replicate_names, subpopulation
from causalrisk.design.tables import Table, find_column, find_condition, named_columns
from causalrisk.design.treatment import Score, find_score, is_classifier
from causalrisk.errors import DesignError, Once, OptionError, one_of

WEIGHT_TYPES = ("frequency", "probability")
EXACT = 2.0**53  # floats up to this hold every whole number
SMALLEST_SHARE = 1e-100  # least weight over the mean weight, whose square does not underflow
WAYS = 2  # variables of two-way clusters
BY_ROW = ("treat", "weights", "cluster", "offset", "exposure", "subpop", "propensity_score")  # options that go by rows
UNRECORDED = "observed"  # formula in the ledger of rows that are kept without an outcome
LEDGER = ("formula", "variable", "missing", "dropped")
ZERO = ("weights", "weights = 0")  # line of the ledger of rows without weight


class Source(NamedTuple):
    """Variable of the model, and its uses ("outcome", "outcome, propensity", "treatment", ...)."""

    used_in: str
    name: str
    values: pd.Series


Line = tuple[str, str, int, int]


@dataclass(frozen=True)
class Rows:
    """Rows of the estimation sample, and the ledger of the others.

    Parameters
    ----------
    keep : ndarray of bool, shape (N,)
        True for the rows in the sample, over all N rows of the caller.
    lines : list of tuple
        A line of the ledger for each variable: formula, variable, rows that miss it, and rows dropped for that and
        nothing before; the last add up to the rows that are not in the sample.
    weights : ndarray of float64, shape (N,), or None
        The weights of all rows; None where none were given.
    """

    keep: np.ndarray
    lines: list[Line]
    weights: np.ndarray | None = None

    @cached_property
    def n(self) -> int:
        """Number of rows in the sample."""
        return int(self.keep.sum())

    def of(self, values: Any) -> Any:
        """Values of the rows in the sample, of a Series, Index or array over all; itself where they are all."""
        return values if self.n == len(self.keep) else values[self.keep]

    def with_kept(self, why: str, name: str, count: int) -> Rows:
        """Return the same rows with a line in the ledger for those that miss a variable and are not dropped."""
        return replace(self, lines=[*self.lines, (why, name, count, 0)])


def complete_rows(
    sources: Sequence[Source],
    index: pd.Index,
    missing: str,
    weights: np.ndarray | None = None,
    inside: tuple[str, np.ndarray] | None = None,
) -> Rows:
    """Drop the rows that miss any variable, or have no weight.

    Parameters
    ----------
    sources : sequence of Source
        All variables used, on `index`.
    index : pandas.Index
        Labels of the caller's N rows.
    missing : {"drop", "raise"}
        Whether to drop rows with missing values or to refuse them.
    weights : ndarray of float64, shape (N,), optional
        Weights of the rows; those of zero are left out.
    inside : tuple of str and ndarray of bool, shape (N,), optional
        Name of a subpopulation, and the rows in it.

    Returns
    -------
    Rows
        The rows that are left, maybe none.

    Raises
    ------
    DesignError
        If values are missing and `missing` is "raise".
    OptionError
        If `missing` is anything else.
    """
    if missing not in ("drop", "raise", "indicator"):
        raise OptionError(
            f"missing={missing!r} is not an option; expected 'drop', 'raise' or 'indicator'.\nType  missing=\"drop\"  "
            'to leave out rows with missing values and count them, or  missing="raise"  to refuse them.'
        )
    keep, lines = np.ones(len(index), dtype=bool), []
    reasons = [(s.used_in, s.name, missing_mask(s.values)) for s in sources]
    if inside is not None:  # what rows outside miss is of no interest
        reasons = [
            ("subpop", f"outside {inside[0] or 'the subpopulation'}", ~inside[1]),
            *((f, n, m & inside[1]) for f, n, m in reasons),
        ]
    if missing == "raise":
        _refuse([reason for reason in reasons if reason[0] != "subpop"], index)
    if weights is not None:
        reasons.append((*ZERO, weights == 0))
    for used_in, name, mask in reasons:
        lines.append((used_in, name, int(mask.sum()), int((mask & keep).sum())))
        keep &= ~mask
    return Rows(keep, lines, weights)


def no_rows_left(lines: Sequence[Line], n: int) -> DesignError:
    """Make the error that says why none of n rows is left, from the lines of the ledger."""
    if not any(missing for _, _, missing, _ in lines):
        return DesignError(
            "no observations left: the data have 0 rows; expected one row per unit.\nCheck the filter that made them."
        )
    why = "".join(f"\n    {name!r} ({used_in})  {dropped} rows" for used_in, name, _, dropped in lines if dropped)
    return DesignError(
        f"no observations left: all {n} rows were dropped, because missing:{why}\nLeave out the variable that is "
        "missing throughout, or fill in its values before fitting."
    )


def ledger_frame(lines: Iterable[tuple[Any, ...]]) -> pd.DataFrame:
    """Return the ledger of the rows that are not in the sample.

    Parameters
    ----------
    lines : iterable of tuple
        As in `Rows`; those of variables that no row misses are left out.

    Returns
    -------
    DataFrame
        One row per line.
    """
    rows = [row for row in lines if row[2]]
    text = None if rows else object  # pandas infers it from the values
    columns = [
        pd.Series([row[k] for row in rows], dtype=dtype, name=LEDGER[k])
        for k, dtype in enumerate((text, text, np.int64, np.int64))
    ]
    return pd.DataFrame({column.name: column for column in columns})


def _refuse(reasons: Sequence[tuple[str, str, np.ndarray]], index: pd.Index) -> None:
    found = [(used_in, name, mask) for used_in, name, mask in reasons if mask.any()]
    if found:
        counts = "".join(f"\n    {name!r} ({used_in})  {int(mask.sum())} rows" for used_in, name, mask in found)
        some = index[np.logical_or.reduce([mask for _, _, mask in found])]
        raise DesignError(
            f'missing values in {len(some)} of {len(index)} rows, and missing="raise":{counts}\n'
            f'First row labels: {listing(some)}.\nType  missing="drop"  to leave these rows out of every model.'
        )


def _unknown_weight_type(given: Any) -> OptionError:
    """Error that says what either type means."""
    return OptionError(
        f"weight_type={given!r} is not known; expected 'frequency' or 'probability'.\n"
        'Use `weight_type="frequency"` if a row stands for that many equal rows, or `weight_type="probability"` for '
        "sampling weights."
    )


def read_weights(given: Source | None, weight_type: str | None) -> np.ndarray | None:
    """Check observation weights.

    Parameters
    ----------
    given : Source or None
        One weight per row; missing ones stay missing.
    weight_type : {"frequency", "probability"} or None
        Meaning of the weights; needed with weights, refused without.

    Returns
    -------
    ndarray of float64, shape (N,), or None
        The weights, NaN where missing.

    Raises
    ------
    DesignError
        If weights are negative, infinite, not numbers, or, as frequencies, not whole.
    OptionError
        If one of weights and weight_type is given without the other.
    """
    if weight_type is not None and weight_type not in WEIGHT_TYPES:
        raise _unknown_weight_type(weight_type)
    if given is None:
        if weight_type is not None:
            raise OptionError(
                f'weight_type={weight_type!r} without weights.\nAdd  weights="<column>"  or leave it out.'
            )
        return None
    values, name = given.values, given.name
    if weight_type is None:
        raise OptionError(
            f"weights {name!r} without weight_type: standard errors differ between frequency and probability weights.\n"
            'Add  weight_type="frequency"  (each row stands for that many equal rows) or  weight_type="probability".'
        )
    seen = ~missing_mask(values)
    weights = np.full(len(values), np.nan)
    weights[seen] = numbers(values[seen].rename(name), f"weights {name!r}")
    negative = int((weights < 0).sum())
    if negative:
        raise DesignError(
            f"weights {name!r} have {negative} negative values; expected zero or more.\n"
            "Correct them, or set them to 0 to leave these rows out."
        )
    broken = int((weights[seen] % 1 != 0).sum())
    if weight_type == "frequency" and broken:
        raise DesignError(
            f"weights {name!r} have {broken} values that are not whole numbers; expected counts of equal rows for "
            'frequency weights.\nRound them, or type  weight_type="probability".'
        )
    return weights


def relative_weights(weights: np.ndarray, weight_type: str | None, name: str | None) -> np.ndarray:
    """Divide probability weights by their mean: only their ratios count, in whatever units they came.

    Parameters
    ----------
    weights : ndarray of float64, shape (n,)
        Positive observation weights of the rows in the sample.
    weight_type : {None, "frequency", "probability"}
        Meaning of the weights; frequencies stay as they are.
    name : str or None
        Their name, for messages.

    Returns
    -------
    ndarray of float64, shape (n,)
        Weights of mean one.

    Raises
    ------
    DesignError
        If the smallest is negligible against the largest.
    """
    if weight_type != "probability":
        return weights
    # By the largest first: the sum of huge weights would overflow.
    scaled = weights / weights.max()
    scaled = scaled / scaled.mean()
    check_smallest(weights.min(), weights.max(), scaled.min(), name)
    return scaled


def check_smallest(low: float, high: float, share: float, name: str | None) -> None:
    """Raise a DesignError where the smallest weight, a share of the mean one, is negligible against the largest."""
    if share < SMALLEST_SHARE:
        raise DesignError(
            f"weights {name!r} range from {low:.3g} to {high:.3g}: the smallest is nothing beside the largest.\n"
            "Set weights of no size to 0, which leaves their rows out."
        )


def cluster_codes(values: pd.Series, name: str) -> tuple[np.ndarray, pd.Index]:
    """Return the number of each row's cluster, 0 .. G-1, and the names of the clusters.

    Parameters
    ----------
    values : Series
        One value per row in the sample, none missing.
    name : str
        Their name, for messages.

    Returns
    -------
    codes : ndarray of intp, shape (n,)
        Cluster of each row, numbered by first appearance.
    names : pandas.Index, shape (G,)
        The clusters.

    Raises
    ------
    DesignError
        If there is only one cluster, or they are numbers that are not exact.
    """
    codes, groups = pd.factorize(np.asarray(values, dtype=object), sort=False)
    check_exact(groups, name)
    check_groups(groups, len(codes), name)
    return codes.astype(np.intp), pd.Index(groups, name=name).infer_objects()


def check_exact(groups: Iterable[Any], name: str) -> None:
    """Raise a DesignError where clusters are floats so large that distinct whole numbers may coincide."""
    odd = next((group for group in groups if isinstance(group, float) and abs(group) >= EXACT), None)
    if odd is not None:
        raise DesignError(
            f"cluster {name!r} has numbers such as {odd:.0f} as floats, which hold 15 digits, so that several clusters "
            "would count as one; expected text or whole numbers. (pandas makes floats of whole numbers where some are "
            f'missing.)\nRead them as text:  pandas.read_csv(..., dtype={{"{name}": str}}).'
        )


def check_groups(groups: Sequence[Any], n: int, name: str) -> None:
    """Raise a DesignError unless n rows have at least two clusters."""
    if len(groups) < 2:
        raise DesignError(
            f"cluster {name!r} has one group in {n} rows ({listing(groups)}); expected at least two.\n"
            "Give another cluster variable, or leave cluster= out."
        )


@dataclass(frozen=True)
class ColumnOptions:
    """Columns and their options as the caller gave them, formulas aside: treatment, weights, clusters, scores.

    Parameters
    ----------
    treat, treated, reference, levels, weights, weight_type, cluster, offset, exposure, propensity_score
    design, subpop, did, observed, missing, collinear, propensity_loss, trim
        As in `causalrisk.JRE.from_formula`; a classifier given as `propensity_score` is no column, and becomes None.
        The last two decide which columns can stay.

    Notes
    -----
    A survey design gives the weights, and its first-stage units are the clusters.
    """

    treat: Any
    treated: Any = None
    reference: Any = None
    levels: Mapping[Any, str] | None = None
    weights: Any = None
    weight_type: str | None = None
    cluster: Any = None
    offset: Any = None
    exposure: Any = None
    propensity_score: Any = None
    design: Survey | None = None
    subpop: Any = None
    did: DiD | None = None
    observed: Any = None
    missing: str = "drop"
    collinear: str = "drop"
    propensity_loss: str = "ml"
    trim: Any = None

    def __post_init__(self) -> None:
        one_of("collinear", self.collinear, ("drop", "raise"))
        if self.offset is not None and self.exposure is not None:
            raise OptionError(
                "offset= and exposure= were both given; the offset of an exposure is its logarithm.\nGive one of them, "
                "the sum  offset + np.log(exposure)  as offset= if both are meant."
            )
        if is_classifier(self.propensity_score):
            object.__setattr__(self, "propensity_score", None)
        if self.observed is not None and not isinstance(self.observed, str):
            raise OptionError(
                f"observed is of type {type(self.observed).__name__}; expected the formula of a model of whether the "
                "outcome is observed. Which outcomes are missing is seen from the outcome itself.\n"
                'Type  observed="x1 + x2"  with what tells why outcomes are missing, the treatment too.'
            )
        self._check_survey()

    def _check_survey(self) -> None:
        if self.design is None:
            if self.subpop is not None:
                raise OptionError(
                    "subpop= is of a survey design, whose units without rows in the subpopulation count in the "
                    "variance, and design= was not given.\nType  design=Survey(...), or leave the other rows out."
                )
            return
        if not isinstance(self.design, Survey):
            changed = f"Type  did={self.design!r}." if isinstance(self.design, DiD) else None
            raise OptionError(
                f"design is a {type(self.design).__name__}; expected a survey design.\n"
                + (changed or 'Type  design=causalrisk.Survey(weights="<column>", strata="<column>", psu="<column>").')
            )
        for name, place in (("weights", "weights"), ("weight_type", None), ("cluster", "psu")):
            if getattr(self, name) is not None:
                where = (
                    f"Type  Survey({place}=...)  for it" if place else "The weights of a survey are sampling weights"
                )
                raise OptionError(f"{name}= and design= were both given.\n{where}, and leave {name}= out.")
        object.__setattr__(self, "weights", self.design.weights)
        object.__setattr__(self, "weight_type", None if self.design.weights is None else "probability")
        object.__setattr__(self, "cluster", self.design.psu)


def name_of(given: Source | Score | None) -> str | None:
    """Return the name of a column, where there is one."""
    return None if given is None else given.name


@dataclass(frozen=True)
class ByRows:
    """Per-row inputs other than the covariates: treatment, weights, cluster, offset, score.

    Parameters
    ----------
    treat : Source
        Treatment.
    weights, cluster, second_cluster : Source or None
        Observation weights and clusters, where they are given; the second variable of two-way clusters.
    weight_type : {None, "frequency", "probability"}
        Meaning of the weights.
    offset : Source or None
        Offset or exposure of the outcome models, used in "offset" or "exposure".
    score : Score or None
        Known propensity scores.
    survey : SurveyColumns or None
        Survey design.
    subpop : Source or None
        Whether a row is in the subpopulation.
    subpop_label : str or None
        Its name; empty where it was given by values, as of a condition, whose name is that of a column in it.
    period : Source or None
        Period of each row of repeated cross sections.
    """

    treat: Source
    weights: Source | None
    weight_type: str | None
    cluster: Source | None
    offset: Source | None
    score: Score | None
    survey: SurveyColumns | None
    subpop: Source | None
    subpop_label: str | None
    second_cluster: Source | None = None
    period: Source | None = None

    def fields(self) -> dict[str, Any]:
        """Return the fields of `Design` that say what the columns are."""
        return {
            "treat_name": self.treat.name,
            "weight_type": self.weight_type,
            "weights_name": name_of(self.weights),
            "cluster_name": name_of(self.cluster),
            "second_cluster_name": name_of(self.second_cluster),
            "offset_kind": None if self.offset is None else self.offset.used_in,
            "offset_name": name_of(self.offset),
            "score_name": name_of(self.score),
        }


def by_rows(table: Table, given: ColumnOptions, frame: Mapping[str, Any], notes: list[str]) -> ByRows:
    """Find treatment, weights, cluster, offset and propensity score, each by a column's name or as one value per row.

    Parameters
    ----------
    table : Table
        The columns there are.
    given : ColumnOptions
        Columns and options of the caller.
    frame : mapping of str to object
        The caller's variables.
    notes : list of str
        A line is appended for each whose rows had to be put into another order.

    Returns
    -------
    ByRows
        All on the index of the table.

    Raises
    ------
    DesignError
        If a name is unknown, or there is not one value per row.
    """
    if given.treat is None:
        raise TypeError('treat is None; expected a column name or one value per row.\nType  treat="d".')

    def find(value: Any, role: str, default: str | None = None) -> Source | None:
        if value is None:
            return None
        column, name = find_column(value, role, default or role, table, frame, notes)
        return Source(role, name, column)

    weights = find(given.weights, "weights")
    if given.design is None:
        survey, ways = None, ways_of(given.cluster, len(table.index))
        cluster, second = find(ways[0], "cluster"), find(ways[1], "cluster", "second cluster")
    else:
        survey, second = _survey_columns(given.design, table, frame, notes), None
        survey.check_complete(None if weights is None else weights.values.rename(weights.name))
        units = survey.units()
        cluster = None if units is None else Source("cluster", str(units.name), units)
    treat, treat_name = find_column(given.treat, "treatment", "treat", table, frame, notes)
    offset = find(given.offset, "offset") or find(given.exposure, "exposure")
    score, subpop = find_score(given.propensity_score, table, frame, notes), None
    if given.subpop is not None:
        inside, label = find_condition(given.subpop, "subpop", table, frame, notes)
        subpop = Source("subpop", label, inside)
    return ByRows(
        treat=Source("treatment", treat_name, treat),
        weights=weights,
        weight_type=given.weight_type,
        cluster=cluster,
        second_cluster=second,
        offset=offset,
        score=score,
        survey=survey,
        subpop=subpop,
        subpop_label=None if given.subpop is None else given.subpop if isinstance(given.subpop, str) else "",
        period=find(given.did.time, "time") if given.did is not None and given.did.cross_sections else None,
    )


def _survey_columns(survey: Survey, table: Table, frame: Mapping[str, Any], notes: list[str]) -> SurveyColumns:
    """Find the columns of a survey design."""

    def find(value: Any, role: str) -> pd.Series | None:
        return None if value is None else find_column(value, role, role, table, frame, notes)[0]

    replicates, given = None, survey.replicate_weights
    if given is not None:
        names = replicate_names(survey, table.names)
        if names is None:
            columns = named_columns(given, "replicate_weights", table.index, notes)
        else:
            columns = {name: find_column(name, "replicate weights", name, table, frame, notes)[0] for name in names}
        replicates = columns
    return SurveyColumns(survey, replicates=replicates, **{role: find(getattr(survey, role), role) for role in ROLES})


def ways_of(given: Any, n: int) -> tuple[Any, Any]:
    """Return the two variables of two-way clusters: names in a list, or columns of values; one of them and None.

    Parameters
    ----------
    given : object
        Clusters as the caller gave them.
    n : int
        Number of rows, which a list of values has.

    Returns
    -------
    tuple of object
        The variables, each a name or one value per row.
    """
    if isinstance(given, list | tuple) and len(given) == WAYS != n:
        return given[0], given[1]
    if isinstance(given, pd.DataFrame) and given.shape[1] == WAYS:
        return given.iloc[:, 0], given.iloc[:, 1]
    if isinstance(given, np.ndarray) and given.ndim == WAYS and given.shape[1] == WAYS:
        return given[:, 0], given[:, 1]
    return given, None


def draw_rows(sources: Sequence[Source], by: ByRows, index: pd.Index, missing: str) -> Rows:
    """Return the rows of some data, maybe a block of a scan, that miss nothing and have a weight.

    Parameters
    ----------
    sources : sequence of Source
        The variables of both models.
    by : ByRows
        Treatment, weights, cluster, offset and propensity score.
    index : pandas.Index
        Labels of the caller's rows.
    missing : {"drop", "raise"}
        Whether to drop rows with missing values or to refuse them.

    Returns
    -------
    Rows
        The rows, maybe none.
    """
    weights, inside = read_weights(by.weights, by.weight_type), None
    if by.subpop is not None:
        label = by.subpop_label or ""
        inside = label, subpopulation(by.subpop.values, label or by.subpop.name)
    others = (by.treat, by.weights, by.cluster, by.second_cluster, by.offset)
    used = [*sources, *(other for other in others if other is not None)]
    if by.score is not None:
        used += [Source("propensity score", str(column.name), column) for column in by.score.columns.values()]
    return complete_rows(used, index, missing, weights, inside)


def check_drawn(lines: Sequence[Line], read: int, n: int, by: ByRows) -> list[str]:
    """Refuse a sample without rows, and return notes on what was left out.

    Parameters
    ----------
    lines : sequence of tuple
        Lines of the ledger, as in `Rows`.
    read, n : int
        Rows of the data and of the sample.
    by : ByRows
        Treatment, weights and subpopulation.
    """
    if by.subpop_label is not None and any(line[0] == "subpop" and line[2] == read for line in lines):
        raise nobody_inside(by.subpop_label)
    if not n:
        raise no_rows_left(lines, read)
    zeros = sum(line[2] for line in lines if line[:2] == ZERO)
    if not zeros or by.survey is not None:
        return []
    return [
        Once(
            f"weights {name_of(by.weights)!r}: {zeros} rows of weight 0 are left out of the sample. Filter them out "
            "beforehand to silence this."
        )
    ]


def read_offset(given: Source, taken: Sequence[str] = (), *, scanned: bool = False) -> np.ndarray:
    """Return the offset of rows that miss no value.

    Parameters
    ----------
    given : Source
        One value per row, used in "offset" or "exposure"; the offset of an exposure is its logarithm.
    taken : sequence of str
        Names of the treatment and the outcome, which are no offset.
    scanned : bool
        Whether the rows are of a scan, which knows its columns by name only.

    Returns
    -------
    ndarray of float64, shape (n,)
        The offset.

    Raises
    ------
    DesignError
        If the values are not numbers, or an exposure is not above zero.
    """
    kind, name, what = given.used_in, given.name, f"{given.used_in} {given.name!r}"
    if name in taken:
        raise DesignError(
            f"{kind}={name!r} is the {('treatment', 'outcome')[list(taken).index(name)]}; expected "
            f"{_meaning(kind)}.\nLeave {kind}= out, or name the column of it."
        )
    values = numbers(given.values.rename(name), what)
    if kind == "offset":
        check_magnitude(values, what)
        return values
    low = values <= 0
    if low.any():
        column, instead = f'data["{name}"]', "make them missing in the files"
        if not scanned:
            instead = f"type  exposure={column}.where({column} > 0)"
        raise DesignError(
            f"{what} has {int(low.sum())} values of zero or less (such as {values[low][0]:g}); expected "
            f"{_meaning(kind)}, more than zero.\n"
            f"Correct them, or {instead}  to leave these rows out."
        )
    return np.log(values)


def _meaning(kind: str) -> str:
    if kind == "offset":
        return "a known part of the linear predictor of the outcome"
    return "how long, or over how much, each unit was observed"
