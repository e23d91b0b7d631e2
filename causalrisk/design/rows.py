"""Columns with one value per row, and the estimation sample, whose rows are used in both models and all other steps."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from causalrisk.design.did import DiD
from causalrisk.design.support import check_magnitude
from causalrisk.design.survey import ROLES, Survey, subpopulation, survey_columns
from causalrisk.design.tables import find_column, find_condition, listing, missing_mask, named_columns, numbers
from causalrisk.design.treatment import ByArm, find_by_arm, is_classifier
from causalrisk.errors import DesignError, OptionError, one_of
from causalrisk.numerics.resampling import nearly_whole

EXACT = 2.0**53  # floats up to this represent every integer
GIVEN = ("propensity_score", "outcome_predictions")  # estimates made elsewhere
BY_ROW = ("treat", "weights", "cluster", "offset", "exposure", "subpop", *GIVEN)  # options with one value per row
EMPTY = "the data have no rows; expected at least two.\nCheck how they were read or filtered."
UNRECORDED = "observed"  # "formula" in `sample_ledger` for rows that are kept without an outcome


class Source(NamedTuple):
    """A variable, its values (a Series), and where it is used ("outcome", "outcome, propensity", "treatment", ...)."""

    used_in: str
    name: str
    values: Any


Line = tuple[str, str, int, int]


class Rows(NamedTuple):
    """The estimation sample: a mask of the caller's N rows, and `lines` on the dropped rows.

    Each line has a formula, a variable, the number of rows in which it is missing, and the number of rows dropped
    because of this variable and no earlier one.
    """

    keep: np.ndarray
    lines: list[Line]
    weights: np.ndarray

    @property
    def n(self) -> int:
        """Number of rows in the sample."""
        return int(self.keep.sum())

    def of(self, values: Any) -> Any:
        """Return the values of the rows in the sample, from a Series, Index or array over all rows."""
        return values if self.keep.all() else values[self.keep]


def complete_rows(
    sources: Sequence[Source], index: pd.Index, missing: str, weights: Any = None, subpop: Source | None = None
) -> Rows:
    """Select the rows without missing values and with a nonzero weight. `sources` has all variables that are used."""
    missing = one_of("missing", missing, ("drop", "raise", "indicator"))
    within = True if subpop is None else subpop.values  # missing values outside the subpopulation do not matter
    reasons = [(s.used_in, s.name, missing_mask(s.values) & within) for s in sources]
    found = [reason for reason in reasons if reason[2].any()]
    if missing == "raise" and found:
        counts = "".join(f"\n    {name!r} ({used_in})  {int(mask.sum())} rows" for used_in, name, mask in found)
        some = index[np.logical_or.reduce([mask for _, _, mask in found])]
        text = f'missing values in {len(some)} of {len(index)} rows, and missing="raise":{counts}'
        raise DesignError(f'{text}\nFirst row labels: {listing(some)}.\nUse `missing="drop"`.')
    if subpop is not None:
        reasons.insert(0, ("subpop", f"outside {subpop.name or 'the subpopulation'}", ~subpop.values))
    if weights is not None:
        reasons.append(("weights", "weights = 0", weights == 0))
    keep, lines = np.ones(len(index), dtype=bool), []
    for used_in, name, mask in reasons:
        lines.append((used_in, name, int(mask.sum()), int((mask & keep).sum())))
        keep &= ~mask
    return Rows(keep, lines, np.ones(len(index)) if weights is None else weights)


def check_rows_left(lines: Sequence[Line], n: int, left: int) -> None:
    """Raise a DesignError if no row is left. Its message lists from `lines` why the n rows were dropped."""
    if not n:
        raise DesignError(EMPTY)
    if not left:
        why = "".join(f"\n    {name!r} ({used_in})  {dropped} rows" for used_in, name, _, dropped in lines if dropped)
        found = f"no observations left: all {n} rows were dropped, because of:{why}"
        raise DesignError(f"{found}\nFill in missing values, or check `weights=` and `subpop=`.")


def read_weights(given: Source | None, weight_type: str | None) -> np.ndarray | None:
    """Check observation weights. Return one per row, NaN where missing, or None without weights."""
    one_of("weight_type", weight_type, (None, "frequency", "probability"))
    if (given is None) != (weight_type is None):
        found = f"weight_type={weight_type!r} was given without weights="
        if given is not None:
            found = f"weights {given.name!r} were given without weight_type="
        raise OptionError(f'{found}.\nUse `weights=` with `weight_type="frequency"` or `"probability"`.')
    if given is None:
        return None
    values, name = given.values, given.name
    seen = ~missing_mask(values)
    weights = np.full(len(values), np.nan)
    weights[seen] = numbers(values[seen], f"weights {name!r}")
    frequency = weight_type == "frequency"
    odd = (weights < 0) | (seen & ~nearly_whole(weights) & frequency)
    if odd.any():
        found = f"weights {name!r} have {int(odd.sum())} negative{' or fractional' * frequency} values"
        fractional = ' Fractions need `weight_type="probability"`.' * frequency
        raise DesignError(f"{found}.\nLeave out rows with negative weights.{fractional}")
    return np.rint(weights) if frequency else weights


def relative_weights(weights: np.ndarray, weight_type: str | None) -> np.ndarray:
    """Divide probability weights by their mean, because only ratios of weights matter."""
    if weight_type != "probability":
        return weights
    scaled = weights / weights.max()  # first by the largest, because the sum of huge weights would overflow
    return scaled / scaled.mean()


def cluster_codes(values: pd.Series) -> tuple[np.ndarray, pd.Index]:
    """Return the cluster code of each row, 0 .. G-1, and the names of the clusters."""
    codes, groups = pd.factorize(np.asarray(values, dtype=object), sort=False)
    check_groups(groups, str(values.name))
    return codes.astype(np.intp), pd.Index(groups, name=values.name).infer_objects()


def renumbered(cluster: np.ndarray | None, keep: np.ndarray, name: Any) -> tuple[Any, np.ndarray | None]:
    """Return the old codes of the clusters that remain, and the new cluster code of each kept row."""
    if cluster is None:
        return None, None
    numbers, codes = np.unique(cluster[keep], return_inverse=True)  # in the same order
    check_groups(numbers.tolist(), str(name))
    return numbers, codes


def check_groups(groups: Sequence[Any], name: str) -> None:
    """Raise a DesignError for fewer than two clusters, and for numeric names too large to be exact as floats."""
    odd = next((group for group in groups if isinstance(group, float) and abs(group) >= EXACT), None)
    if odd is not None:
        found = f"cluster {name!r} has numbers such as {odd:.0f}, which lose digits as floats"
        raise DesignError(f'{found}.\nRead it as text: `read_csv(..., dtype={{"{name}": str}})`.')
    if len(groups) < 2:
        raise DesignError(f"there is one cluster, {name} = {listing(groups)}; expected more.\nLeave cluster= out.")


@dataclass
class ColumnOptions:
    """Arguments of a call other than formulas: the treatment, weights, clusters and further options.

    They are described in `causalrisk.JRE.from_formula`. A classifier given as `propensity_score` becomes None.
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
    outcome_predictions: Any = None
    design: Survey | None = None
    subpop: Any = None
    did: DiD | None = None
    observed: Any = None
    missing: str = "drop"
    propensity_loss: str = "ml"
    trim: Any = None

    def __post_init__(self) -> None:
        if self.offset is not None and self.exposure is not None:
            raise OptionError("offset= and exposure= were both given.\nUse `offset=offset + np.log(exposure)`.")
        if is_classifier(self.propensity_score):
            self.propensity_score = None
        if self.design is None and self.subpop is not None:
            raise OptionError("subpop= was given without design=.\nUse `design=Survey(...)`, or select rows of data.")
        if self.design is None:
            return
        if not isinstance(self.design, Survey):
            raise OptionError(f"design is a {type(self.design).__name__}; expected a Survey.\nUse `Survey(weights=)`.")
        for name in ("weights", "weight_type", "cluster"):
            if getattr(self, name) is not None:
                raise OptionError(f"{name}= and design= were both given.\nLeave {name}= out, and use `Survey(...)`.")
        self.weights = self.design.weights
        self.weight_type = None if self.weights is None else "probability"


class ByRows(NamedTuple):
    """Inputs with one value per row other than covariates (None if not given), and the caller's options.

    `subpop` is a mask (N,). `period` is the time column of repeated cross sections.
    """

    treat: Source
    options: ColumnOptions
    weights: Source | None
    cluster: Source | None
    second_cluster: Source | None
    offset: Source | None
    score: ByArm | None
    predictions: ByArm | None
    survey: dict[str, Any] | None
    subpop: Source | None
    period: Source | None

    def fields(self) -> dict[str, Any]:
        """Return the fields of `Design` with the names and kinds of these columns."""
        roles = ("treat", "weights", "cluster", "second_cluster", "offset", "score", "predictions")
        names = {f"{role}_name": getattr(getattr(self, role), "name", None) for role in roles}
        kinds = {"offset_kind": getattr(self.offset, "used_in", None), "weight_type": self.options.weight_type}
        unit = "unit" if getattr(self.options.did, "unit", None) else "row"
        kinds["unit_name"] = "observation" if self.options.weight_type == "frequency" else unit
        return {**names, **kinds, "missing": self.options.missing}


def by_rows(table: pd.DataFrame, given: ColumnOptions, frame: Mapping[str, Any], notes: list[str]) -> ByRows:
    """Find treatment, weights, clusters, offset, scores etc., each given by name or as one value per row."""

    def find(value: Any, role: str, default: str | None = None) -> Any:
        if value is None:
            return None
        column = find_column(value, role, default or role, table, frame, notes)
        return Source(role, str(column.name), column)

    treat, weights = find(given.treat, "treatment", "treat"), find(given.weights, "weights")
    ways = ways_of(given.cluster, len(table.index))
    cluster, second = find(ways[0], "cluster"), find(ways[1], "cluster", "second cluster")
    survey, subpop, own = None, None, given.design
    if own is not None:
        replicates = None if own.replicate_weights is None else replicate_columns(own, table, frame, notes)
        columns = {role: getattr(find(getattr(own, role), role), "values", None) for role in ("weights", *ROLES)}
        survey = survey_columns(own, {**columns, "replicates": replicates})
        cluster = None if survey["psu"] is None else Source("cluster", str(survey["psu"].name), survey["psu"])
    if given.subpop is not None:
        inside = subpopulation(find_condition(given.subpop, "subpop", table, frame, notes))
        subpop = Source("subpop", given.subpop if isinstance(given.subpop, str) else "", inside)
    offset = find(given.offset, "offset") or find(given.exposure, "exposure")
    score = find_by_arm(given.propensity_score, "propensity_score", table, frame, notes)
    predictions = find_by_arm(given.outcome_predictions, "outcome_predictions", table, frame, notes)
    period = find(given.did.time, "time") if given.did is not None and given.did.cross_sections else None
    return ByRows(treat, given, weights, cluster, second, offset, score, predictions, survey, subpop, period)


def replicate_columns(
    survey: Survey, table: pd.DataFrame, frame: Mapping[str, Any], notes: list[str]
) -> dict[str, pd.Series]:
    """Find the replicate weights, given as a pattern, as names or as columns."""
    given, names = survey.replicate_weights, survey.replicate_weights
    if isinstance(given, str):
        own = survey.weights if isinstance(survey.weights, str) else None
        names = [name for name in map(str, table.columns) if fnmatch.fnmatchcase(name, given) and name != own]
    if isinstance(names, list | tuple) and all(isinstance(name, str) for name in names):
        found = {name: find_column(name, "replicate weights", name, table, frame, notes) for name in names}
    else:
        found = named_columns(given, "replicate_weights", table.index, notes)
    if len(found) < 2:
        what, count = f"={given!r}" if isinstance(given, str) else "", len(found) or "no"
        text = f"replicate_weights{what} names {count} column; expected several"
        raise DesignError(f'{text}.\nUse a pattern such as `replicate_weights="repw*"`.')
    return found


def ways_of(given: Any, n: int) -> tuple[Any, Any]:
    """Split two-way clusters, which are two names in a list or two columns. For other clusters, the second is None."""
    if isinstance(given, list | tuple) and len(given) == 2 != n:
        return given[0], given[1]
    if getattr(given, "shape", ())[1:] == (2,):
        columns = given.iloc if isinstance(given, pd.DataFrame) else given
        return columns[:, 0], columns[:, 1]
    return given, None


def draw_rows(sources: Sequence[Source], by: ByRows, index: pd.Index) -> Rows:
    """Select the complete rows with a nonzero weight, from the data or from a frame of a scan."""
    weights = read_weights(by.weights, by.options.weight_type)
    others = (by.treat, by.weights, by.cluster, by.second_cluster, by.offset)
    used = [*sources, *(other for other in others if other is not None)]
    for what, found in (("propensity score", by.score), ("outcome predictions", by.predictions)):
        if found is not None:
            used += [Source(what, str(column.name), column) for column in found.columns]
    return complete_rows(used, index, by.options.missing, weights, by.subpop)


def read_offset(given: Source, keep: Any = slice(None), treat: str = "", outcome: str = "") -> np.ndarray:
    """Return the offset (or the log of the exposure) of the rows to keep, which must have no missing values."""
    what = f"{given.used_in} {given.name!r}"
    if given.name in (treat, outcome):
        kind = "treatment" if given.name == treat else "outcome"
        raise DesignError(f"{what} is also the {kind}.\nUse `{given.used_in}=` with another column.")
    values = numbers(given.values[keep], what)
    if given.used_in == "offset":
        check_magnitude(values, what)
        return values
    low = values <= 0
    if low.any():
        raise DesignError(f"{what} is zero or negative in {int(low.sum())} rows.\nLeave these rows out.")
    return np.log(values)
