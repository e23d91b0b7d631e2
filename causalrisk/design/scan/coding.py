"""From frames of a scan to numbers: the first reading learns levels and fixes the coding, the second codes the rows."""

from __future__ import annotations

import ast
import copy
import dataclasses
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalrisk.design.build import Formulas, check_roles, kept_offset, outcome_values, read_formulas
from causalrisk.design.design import Rowless
from causalrisk.design.dtypes import plain
from causalrisk.design.encoders import INDICATOR, Encoder, FormulaEncoder
from causalrisk.design.formulas.evaluation import Formula, Scope
from causalrisk.design.formulas.stateful import STATEFUL, Lesson, first_lesson, options_of, stateful_calls
from causalrisk.design.formulas.terms import codes_of, parsed
from causalrisk.design.rows import (
    BY_ROW,
    UNRECORDED,
    ColumnOptions,
    Line,
    by_rows,
    check_exact,
    check_groups,
    check_smallest,
    draw_rows,
)
from causalrisk.design.scan.source import Frame, Scan, naming
from causalrisk.design.support import check_size
from causalrisk.design.survey import (
    ROLES,
    ReplicateSums,
    Replication,
    SurveyDesign,
    labels_of,
    replicate_values,
    replication_of,
)
from causalrisk.design.tables import Table, as_table, condition_names, is_column
from causalrisk.design.treatment import Arms, arms_in_order, notes_of_spelling, treatment_levels
from causalrisk.errors import DesignError, UnavailableError
from causalrisk.numerics.blocks import add_up

T = TypeVar("T")
TRIED = 9  # rows that are coded by themselves, to see whether a formula goes by rows
HEAD = 2  # numbers of each frame that a formula is tried on


@dataclass(frozen=True)
class Kept:
    """The rows of a frame that are in the sample.

    Parameters
    ----------
    where : str
        The frame, for messages.
    keep : ndarray of bool, shape (read,)
        Which rows of the frame these n are.
    lines : list of tuple
        Lines of the ledger, as in `Rows`.
    table : DataFrame
        Variables of the models on them.
    formulas : Formulas
        The formulas, and what their names mean in the frame.
    texts : set of str
        Variables that were text.
    treat, weights, cluster, offset, stratum, multiplicities
        As of a design; None where there are none.
    drawn : DataFrame or None
        How all rows of the frame were drawn, as by `SurveyColumns.drawn`.
    replicates : ReplicateSums or None
        Sums of replicate weights over all of them.
    """

    where: str
    keep: NDArray[np.bool_]
    lines: list[Line]
    table: pd.DataFrame
    formulas: Formulas
    texts: set[str]
    treat: pd.Series
    weights: np.ndarray | None
    cluster: pd.Series | None
    offset: np.ndarray | None
    stratum: pd.Series | None = None
    multiplicities: np.ndarray | None = None
    drawn: pd.DataFrame | None = None
    replicates: ReplicateSums | None = None

    @property
    def n(self) -> int:
        """Number of rows kept."""
        return len(self.treat)

    @property
    def recorded(self) -> NDArray[np.bool_]:
        """Which of the rows have an outcome, shape (n,)."""
        recorded = self.formulas.recorded
        return np.ones(self.n, dtype=bool) if recorded is None else recorded[self.keep]

    def variables(self) -> dict[str, pd.Series]:
        """Plain variables of the models, without an outcome that may be missing."""
        given = self.formulas
        codes = set().union(*map(codes_of, given.models))
        names = [name for name in self.table if given.seen is None or name not in given.left.variables]
        return {name: plain(self.table[name], name, name in codes) for name in names}


class Reader:
    """Finds the rows and variables of a model in the frames of a scan; parameters as of `design_from_scan`."""

    def __init__(
        self, scan: Scan, formula: str, propensity: str | None, columns: ColumnOptions, frame: Mapping[str, Any]
    ) -> None:
        if columns.missing == INDICATOR:
            raise UnavailableError(
                'missing="indicator" is not available for a scan.\n'
                'Use `missing="drop"`, or `data=data.collect()` if the rows fit into memory.'
            )
        names, self.notes = scan.column_names(), list[str]()
        empty = pd.DataFrame({name: pd.Series(dtype=float) for name in names})
        constants = _constants(frame, names, f"{formula} {propensity} {columns.observed}")
        formulas, _ = read_formulas(formula, propensity, columns, empty, constants, self.notes)
        self.scan, self.part_rows, self.columns, self.formulas = scan, scan.part_rows, columns, formulas.models
        uses = {use.name for formula in self.formulas for use in formula.uses()}
        self.frame = {name: value for name, value in constants.items() if name in uses}
        scopes = [formulas.right, formulas.assign, *([] if formulas.seen is None else [formulas.seen])]
        self.names = [list(scope.variables) for scope in scopes]
        self.constants = {n: value for scope in (formulas.left, *scopes) for n, value in scope.constants.items()}
        for each in self.formulas:
            _refuse_state(each, self.frame, names)
        _check_names(columns)
        self.by = by_rows(as_table(empty, []), columns, {}, [])
        check_roles(formulas, columns.treat, columns.did)
        others = [getattr(columns, option) for option in BY_ROW[:-1]]
        if isinstance(columns.subpop, str):
            others += condition_names(columns.subpop)
        if columns.design is not None:
            others += [getattr(columns.design, role) for role in ROLES]
        if self.by.survey is not None and self.by.survey.replicates is not None:
            others += list(self.by.survey.replicates)
        self.used = [name for name in names if name in uses or name in others]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"scan": None}  # a worker is given the parts it reads

    @property
    def codes(self) -> set[str]:
        """Variables of the formulas that are categories although they may be numbers."""
        return set().union(*map(codes_of, self.formulas))

    def read(self, function: Callable[[Iterator[Frame]], list[T]], again: bool = False) -> list[T]:
        """Read all parts, and put the lists that a function makes of each one after the other."""
        every = range(len(self.scan.parts))
        found = self.scan.read([function] * len(every), [[k] for k in every], self.used, again)
        return list(itertools.chain.from_iterable(found))

    def told(self, calls: Mapping[str, str]) -> Reader:
        """Return a reader whose formulas are told what some of their calls have learnt."""
        taught = copy.copy(self)
        taught.scan = self.scan
        taught.formulas = [dataclasses.replace(formula, told=(*formula.told, *calls.items())) for formula in self.formulas]
        return taught

    def kept(self, frame: Frame) -> Kept:
        """Return the rows of a frame that are in the sample."""
        with naming(frame.where):
            texts = {name: values for name, values in frame.rows.items() if _is_text(values)}
            categories = {name: values.astype(object).astype("category") for name, values in texts.items()}
            table = Table(frame.rows.index, frame.rows.assign(**categories))  # whose coding is faster
            formulas = Formulas.of(self.formulas, table, self.frame)
            by = by_rows(table, self.columns, {}, [])
            sources, outcome = formulas.sources(self.columns.treat), self.formulas[0].left[0].name()
            rows = draw_rows(sources, by, table.index, self.columns.missing)
            keep, lines, weights = rows.keep, rows.lines, rows.weights
            values = {source.name: source.values[keep] for source in sources}
            if formulas.recorded is not None:
                values |= {name: column[keep] for name, column in formulas.left.variables.items()}
                lines.append((UNRECORDED, outcome, int((~formulas.recorded & keep).sum()), 0))
            more: dict[str, Any] = {}
            if by.survey is not None:
                drawn = by.survey.drawn(None if by.cluster is None else by.cluster.values, table.index)
                more = {"drawn": drawn, "stratum": drawn["stratum"][keep]}
                if by.survey.replicates is not None and weights is not None:
                    every = replicate_values(by.survey.survey, by.survey.replicates, weights)
                    sums, ratios = ReplicateSums.of(every, weights), every[keep] / weights[keep, None]
                    more |= {"stratum": None, "replicates": sums, "multiplicities": ratios}
            return Kept(
                where=frame.where,
                keep=keep,
                lines=lines,
                table=pd.DataFrame(values),
                formulas=formulas,
                texts=set(texts),
                treat=by.treat.values[keep],
                weights=None if weights is None else weights[keep],
                cluster=None if by.cluster is None else by.cluster.values[keep],
                offset=kept_offset(by, keep, (by.treat.name, outcome)),
                **more,
            )


def _is_text(values: pd.Series) -> bool:
    return values.dtype.kind == "O" and pd.api.types.infer_dtype(values, skipna=True) == "string"


def _check_names(columns: ColumnOptions) -> None:
    """Refuse what is given by rows and not by name, and known scores."""
    given = {option: getattr(columns, option) for option in BY_ROW[:-1]}
    if columns.design is not None:
        roles = (*ROLES, "replicate_weights")
        given |= {"cluster": None, **{role: getattr(columns.design, role) for role in roles}}
    for option, value in given.items():
        names = value if option == "replicate_weights" and isinstance(value, list | tuple) else [value]
        if value is not None and not all(isinstance(name, str) for name in names):
            raise DesignError(
                f"{option}= is a {type(value).__name__}; with a scan, expected the name of a column.\n"
                f'Write it to the files, and use `{option}="name"`.'
            )
    if columns.propensity_score is not None:
        raise UnavailableError(
            "propensity_score= is not available for a scan.\n"
            "Leave it out, or use `data=data.collect()` if the rows fit into memory."
        )


def _constants(frame: Mapping[str, Any], names: list[str], text: str) -> dict[str, Any]:
    """Variables of the caller's scope that formulas use; a DesignError where one goes by rows and is no column."""
    used = {name: frame[name] for name in sorted({*re.findall(r"(?<![\w.])[^\W\d]\w*", text)}) if name in frame}
    for name, value in used.items():
        if name not in names and is_column(value) and not isinstance(value, list | tuple):
            raise DesignError(
                f"the formulas use {name!r}, a {type(value).__name__} that is no column of the scan.\n"
                "Write it to the files; if it is an option such as levels=, make it a list."
            )
    return used


def _refuse_state(formula: Formula, frame: Mapping[str, Any], columns: Iterable[str]) -> None:
    """Refuse functions of the caller that learn from all rows, and options of others that go by rows."""
    for name, role in formula.uses():
        value = frame.get(name)
        if role == "called" and hasattr(value, "__patsy_stateful_transform__") and value is not STATEFUL.get(name):
            raise DesignError(
                f"the {formula.model} formula {formula.text!r} uses {name}(), which learns from all rows; a scan has "
                "one block of rows at a time.\nUse powers, such as `x + I(x**2)`, or write its columns to the files."
            )
    for call in stateful_calls(formula, frame).values():
        for option in options_of(call):
            if {node.id for node in ast.walk(option) if isinstance(node, ast.Name)} & {*columns, "Q"}:
                raise DesignError(
                    f"the {formula.model} formula {formula.text!r} computes an option of {ast.unparse(call.func)}() "
                    f"from columns, {ast.unparse(option)}; with a scan, expected numbers.\nWrite the numbers."
                )



class Learnt(NamedTuple):
    """What a frame teaches: rows of the data and of the sample, the ledger, levels of columns, and how rows were drawn.

    `few` are rows of each variable, and of the treatment, that have all its levels; `numbers` are the variables without
    levels. `drawn` counts the rows of each stratum, unit and finite population correction.
    """

    where: str
    size: tuple[int, int]
    lines: list[Line]
    drawn: pd.DataFrame | None
    replicates: ReplicateSums | None
    few: Mapping[str, pd.Series] = MappingProxyType({})
    numbers: frozenset[str] = frozenset()
    treat: pd.Series | None = None
    counts: Mapping[Any, int] = MappingProxyType({})
    clusters: Sequence[Any] = ()
    weights: tuple[float, float, float] = (0.0, np.inf, 0.0)


def learn(reader: Reader, frames: Iterator[Frame]) -> list[Learnt]:
    """Learn from the frames of a part."""
    return [_learnt(reader, reader.kept(frame)) for frame in frames]


def _learnt(reader: Reader, rows: Kept) -> Learnt:
    drawn, columns = rows.drawn, reader.columns
    if drawn is not None:
        drawn = drawn.groupby(list(drawn), observed=True, sort=False).size().reset_index(name="rows")
    found = Learnt(rows.where, (len(rows.keep), rows.n), rows.lines, drawn, rows.replicates)
    if not rows.n:
        return found
    few, numbers = dict[str, pd.Series](), set[str]()
    with naming(rows.where):
        for name, values in rows.variables().items():
            column = rows.table[name].astype(object) if name in rows.texts else rows.table[name]
            if values.dtype.kind in "bif":
                numbers.add(name)
            plenty = values.dtype.kind in "if" and name not in reader.codes
            few[name] = column.iloc[:HEAD] if plenty else column.drop_duplicates()
            if not plenty:
                levels = len(few[name])
                check_size(max(reader.part_rows, levels), levels, f"the coding of the levels of column {name!r}")
                plain(few[name], name, name in reader.codes)  # refuses numbers and dates as text
        codes, levels_found = treatment_levels(rows.treat, columns.treat)
        clusters = [] if rows.cluster is None else pd.unique(np.asarray(rows.cluster, dtype=object))
        check_exact(clusters, columns.cluster)
    counts = np.bincount(codes, minlength=len(levels_found)).tolist()
    given = rows.weights
    return found._replace(
        few=few,
        numbers=frozenset(numbers),
        treat=rows.treat.drop_duplicates(),
        counts=dict(zip(levels_found, counts, strict=True)),
        clusters=clusters,
        weights=found.weights if given is None else (given.sum(), given.min(), given.max()),
    )


def _few_rows(found: Sequence[Learnt], name: str, coded: bool) -> pd.Series:
    """Return rows of a variable that have all its levels; a DesignError where some frames have text, others numbers."""
    having = [one for one in found if name in one.few]
    numbers = [one.where for one in having if name in one.numbers]
    text = next((one for one in having if name not in one.numbers), None)
    if numbers and text is not None:
        raise DesignError(
            f"column {name!r} has numbers in {numbers[0]}, and in {text.where} text such as "
            f"{str(text.few[name].iloc[0])!r}; expected the same in every file.\n"
            "Write the files alike, a missing value as an empty cell."
        )
    few = plain(pd.concat([one.few[name] for one in having], ignore_index=True).drop_duplicates(), name, coded)
    return few if isinstance(few.dtype, pd.CategoricalDtype) or few.dtype.kind in "bif" else few.astype("category")


@dataclass(frozen=True)
class CodedBlock:
    """Some rows of the sample as numbers.

    Parameters
    ----------
    where : str
        What messages call them.
    position : ndarray of int, shape (n,)
        Number of each row among those of the sample, in the order of the data.
    y : ndarray, shape (n,)
        Outcome; NaN where it is missing and the sample has the row.
    X, Z : ndarray, shape (n, p) and (n, q)
        Outcome and propensity designs; one object where both are the same.
    arm : ndarray of int, shape (n,)
        Arm of each row.
    weights : ndarray, shape (n,)
        Observation weights; probability weights over their mean in all rows.
    cluster : ndarray of int, shape (n,), or None
        Cluster of each row, 0 .. G-1.
    offset : ndarray, shape (n,), or None
        Offset of the outcome models; of an exposure its logarithm.
    stratum : ndarray of int, shape (n,), optional
        Stratum of each row in a survey design, 0 .. H-1.
    multiplicities : ndarray, shape (n, R), optional
        Replicate weights of a survey design over the weights.
    row : ndarray of int, shape (n,), optional
        Number of each row in all data, those counted that are not in the sample.
    R : ndarray, shape (n, r), optional
        Design of the observation model, where outcomes may be missing.
    V : ndarray, shape (n, v), optional
        Variables of the models as in `variable_kinds`: numbers, or numbers of levels.
    """

    where: str
    position: np.ndarray
    y: np.ndarray
    X: np.ndarray
    Z: np.ndarray
    arm: np.ndarray
    weights: np.ndarray
    cluster: np.ndarray | None = None
    offset: np.ndarray | None = None
    stratum: np.ndarray | None = None
    multiplicities: np.ndarray | None = None
    row: np.ndarray | None = None
    R: np.ndarray | None = None
    V: np.ndarray | None = None

    @property
    def recorded(self) -> np.ndarray:
        """Which rows have an outcome, bool, shape (n,)."""
        return ~np.isnan(self.y)

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays by their names; without Z where both designs are one."""
        names = (of.name for of in dataclasses.fields(self) if of.name != "Z" or self.Z is not self.X)
        return {name: getattr(self, name) for name in names if isinstance(getattr(self, name), np.ndarray)}

    def with_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> CodedBlock:
        """Return a block with other arrays, as of `arrays`."""
        return dataclasses.replace(self, **{"Z": arrays["X"], **arrays})

    def some(self, rows: np.ndarray) -> CodedBlock:
        """Return some of the rows."""
        return self.with_arrays({name: values[rows] for name, values in self.arrays.items()})


def variable_kinds(encoders: Iterable[Encoder], treat: str) -> dict[str, Any]:
    """Return the dtypes of the variables of some models, without the treatment."""
    found = {name: few.dtype for encoder in encoders for name, few in encoder.sample_variables().items()}
    return {name: dtype for name, dtype in found.items() if name != treat}


@dataclass(frozen=True)
class Coder:
    """Codes rows, always in the same way.

    Parameters
    ----------
    reader : Reader
        Finds the rows.
    encoders : tuple of FormulaEncoder
        Coding of the right-hand sides of outcome, propensity and, where there is one, observation.
    arms : Arms
        Coding of the treatment.
    clusters, strata : Index
        Clusters and strata in the order of their numbers.
    survey : SurveyDesign or None
        The survey design.
    unit : float
        What weights are divided by.
    """

    reader: Reader
    encoders: tuple[FormulaEncoder, ...]
    arms: Arms
    clusters: pd.Index
    strata: pd.Index
    survey: SurveyDesign | None
    unit: float

    def coded(self, rows: Kept, row: int = 0, position: int = 0) -> CodedBlock:
        """Code the rows of a frame; the numbers are those of the first among all data and those of the sample."""
        outcome, propensity, *observed = self.encoders
        name, left = self.reader.columns.treat, rows.formulas.left
        arm = self.arms.arm_of(*treatment_levels(rows.treat, name), name)
        table = rows.table.assign(**{name: self.arms.coded(arm)}) if observed else rows.table
        X, variables = outcome.encode(rows.table), dict[str, pd.Series]()
        same = self.reader.formulas[0].right_text == self.reader.formulas[1].right_text
        for encoder in self.encoders:
            variables |= encoder.variables_like(as_table(table, []))
        V = np.empty((rows.n, len(kinds := variable_kinds(self.encoders, name))))
        for j, (variable, dtype) in enumerate(kinds.items()):
            values = variables[variable]
            V[:, j] = values.cat.codes if isinstance(dtype, pd.CategoricalDtype) else values
        own = Scope({variable: rows.table[variable] for variable in left.variables}, left.constants)
        return CodedBlock(
            where=rows.where,
            position=np.arange(position, position + rows.n),
            y=outcome_values(self.reader.formulas[0], own, rows.recorded),
            X=X,
            Z=X if same and outcome.names == propensity.names else propensity.encode(rows.table),
            arm=arm,
            weights=np.ones(rows.n) if rows.weights is None else rows.weights / self.unit,
            cluster=_numbers(self.clusters, rows.cluster, "cluster"),
            offset=rows.offset,
            stratum=_numbers(self.strata, rows.stratum, "stratum"),
            multiplicities=rows.multiplicities,
            row=row + np.flatnonzero(rows.keep),
            R=observed[0].encode(table) if observed else None,
            V=V,
        )

    def check_by_rows(self, frame: Frame, rows: Kept, block: CodedBlock) -> None:
        """Raise a DesignError where a formula codes rows differently beside other rows, as with ``x - x.mean()``."""
        formulas = self.reader.formulas
        if not any(model.computes for model in formulas):
            return
        for k in np.unique(np.linspace(0, rows.n - 1, TRIED).astype(int)):
            try:
                row = frame.rows.iloc[[np.flatnonzero(rows.keep)[k]]]
                alone = self.coded(self.reader.kept(Frame(frame.where, row)))
            except DesignError:  # such as a division by what is zero for this row
                alone = None
            for formula, name in zip([formulas[0], *formulas], "yXZR", strict=False):
                whole = getattr(block, name)
                rounding = 1e-13 * np.nanmax(np.abs(whole), axis=0, initial=0)
                own = None if alone is None else getattr(alone, name)[0]
                if own is None or not np.isclose(whole[k], own, rtol=1e-9, atol=rounding, equal_nan=True).all():
                    raise DesignError(
                        f"the formula {formula.text!r} codes a row differently beside other rows, as "
                        "`I(x - x.mean())` would; a scan has some rows at a time.\n"
                        "Write the number itself, or a column to the files."
                    )


def _numbers(names: pd.Index, values: pd.Series | None, what: str) -> NDArray[np.intp] | None:
    """Return the number of the cluster or stratum of each row, where there are any."""
    if values is None:
        return None
    found = names.get_indexer(pd.Index(np.asarray(values, dtype=object), dtype=object))
    if (found < 0).any():
        raise DesignError(f"there is a {what} that the first reading did not find.\nMake scan and model anew.")
    return found


def coder_of(reader: Reader, found: Sequence[Learnt], notes: list[str]) -> Coder:
    """Fix the coding on what the first reading learnt; lines are appended to `notes`."""
    columns, n = reader.columns, sum(one.size[1] for one in found)
    found_weights = np.array([one.weights for one in found])
    total, low, high = found_weights[:, 0].sum(), found_weights[:, 1].min(), found_weights[:, 2].max()
    unit = total / n if columns.weight_type == "probability" else 1.0
    if columns.weight_type == "probability":
        check_smallest(low, high, low / unit, columns.weights)
    names = dict.fromkeys(name for one in found for name in one.few)
    few = {name: _few_rows(found, name, name in reader.codes) for name in names}
    counts = sum((Counter(one.counts) for one in found), Counter())
    notes += notes_of_spelling({**few, columns.treat: counts})
    clusters = pd.Index(pd.unique(np.concatenate([np.asarray(one.clusters, dtype=object) for one in found])))
    if columns.cluster is not None:
        _check_alike(clusters, f"cluster {columns.cluster!r}")
        check_groups(list(clusters), n, columns.cluster)
    strata, survey = (pd.Index([]), None) if reader.by.survey is None else _survey(reader, found)
    notes += [] if survey is None else survey.notes
    treat = [one.treat for one in found if one.treat is not None]
    _check_alike(counts, f"treatment {columns.treat!r}")
    levels = treatment_levels(pd.concat(treat, ignore_index=True), columns.treat)[1]
    arms = arms_in_order(
        levels,
        np.array([counts[level] for level in levels]),
        columns.treat,
        named=any(isinstance(one.dtype, pd.CategoricalDtype) for one in treat),
        treated=columns.treated,
        reference=columns.reference,
        levels=columns.levels,
    )
    size = max([HEAD, len(levels), *map(len, few.values())])
    few = {name: values.iloc[np.resize(np.arange(len(values)), size)].reset_index(drop=True)
           for name, values in few.items()}  # fmt: skip
    reader = _taught(reader, Scope(few, reader.constants))
    with_treat = few | {columns.treat: pd.Series(arms.coded(np.resize(np.arange(len(levels)), size)))}
    scopes = [few, few, with_treat]
    encoders = tuple(
        _encoder(formula, Scope({name: scope[name] for name in own}, reader.constants))
        for formula, own, scope in zip(reader.formulas, reader.names, scopes, strict=False)
    )
    return Coder(reader, encoders, arms, clusters, strata, survey, unit)


def _check_alike(values: Iterable[Any], what: str) -> None:
    """Refuse text in some files and numbers in others."""
    if len({isinstance(value, str) for value in values}) > 1:
        raise DesignError(
            f"{what} has text in one file and numbers in another, and 3 and '3' would be two; expected the same in all."
            "\nWrite the files alike."
        )


class ScannedReplication(Rowless, Replication):
    """Replicate weights without those of each row."""


class ScannedSurvey(Rowless, SurveyDesign):
    """A survey design without what it says of each row, which goes with the blocks."""


def _survey(reader: Reader, found: Sequence[Learnt]) -> tuple[pd.Index, ScannedSurvey]:
    """Return the strata in the order of their numbers, and the design that all rows of the data make."""
    columns, given, replication = reader.by.survey, reader.columns, None
    drawn = pd.concat([one.drawn for one in found], ignore_index=True)
    _check_alike(drawn["stratum"], "the stratum")
    stratum, names = treatment_levels(drawn["stratum"], "stratum")
    by = drawn.groupby(stratum)
    units = by["rows"].sum()
    if "unit" in drawn:
        pairs = pd.DataFrame({"stratum": stratum, "unit": drawn["unit"].astype(object)}).drop_duplicates()
        columns.check_nested(pairs)
        units = pairs.groupby("stratum").size()
    limits = (by["fpc"].min().to_numpy(), by["fpc"].max().to_numpy()) if "fpc" in drawn else None
    sums = [one.replicates for one in found if one.replicates is not None]
    if sums:
        replication = ScannedReplication(**replication_of(columns.survey, add_up(sums)))
    known = columns.described(labels_of(names), units.to_numpy(float), limits, given.weights, given.subpop)
    return pd.Index(names, dtype=object), ScannedSurvey(replication=replication, **known)


def _encoder(formula: Formula, scope: Scope) -> FormulaEncoder:
    """Fix the coding of a right-hand side on rows that have every level of every variable."""
    encoder = FormulaEncoder(formula, scope)
    for code, levels in encoder.categorical_factors():
        if levels != (False, True) and not _is_variable(code):
            raise DesignError(
                f"the {formula.model} formula {formula.text!r} computes categories, {code}, which a scan cannot code.\n"
                "Make it a column of the files, or 0/1 columns by `I(x > 1)`."
            )
    return encoder


def _is_variable(code: str) -> bool:
    """Whether a categorical factor is a variable as it is: g, Q("g"), C(g), C(g, Treatment("a"))."""
    node = parsed(code).body
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("C", "Q") and node.args:
        node = node.args[0]
        return isinstance(node, ast.Constant) or _is_variable(ast.unparse(node))
    return isinstance(node, ast.Name)


def _taught(reader: Reader, scope: Scope) -> Reader:
    """Find the state of all stateful functions of the formulas, such as knots; those inside of others come first."""
    lessons, done = dict[str, Lesson](), set[str]()
    while True:
        calls = {
            call: (node, formula)
            for formula in reversed(reader.formulas)
            for call, node in stateful_calls(formula, reader.frame).items()
            if call not in done
        }
        ready = [call for call in calls if not any(other in call for other in calls if other != call)]
        if not ready:
            return reader
        for call in ready:
            lesson = lessons.get(call) or first_lesson(*calls[call], scope)
            if lesson is None:
                done.add(call)
            else:
                lessons[call] = lesson
        if lessons:
            answers = reader.read(partial(_answers, reader, lessons), again=True)
            steps = {call: lesson.after([one[call] for one in answers]) for call, lesson in lessons.items()}
            lessons = {call: step for call, step in steps.items() if not isinstance(step, str)}
            reader = reader.told({call: step for call, step in steps.items() if isinstance(step, str)})
            done |= steps.keys() - lessons.keys()


def _answers(reader: Reader, lessons: Mapping[str, Lesson], frames: Iterator[Frame]) -> list[dict[str, Any]]:
    """Return what the next lesson of each call keeps of each frame."""
    found = []
    for rows in map(reader.kept, frames):
        if rows.n:
            with naming(rows.where):
                scope = Scope(rows.variables(), reader.constants)
                found.append({call: lesson.of(scope) for call, lesson in lessons.items()})
    return found
