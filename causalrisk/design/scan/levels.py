"""What a scan learns of all rows before it codes one: levels and kinds of columns, then the state of splines."""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from causalrisk.design.design import Rowless
from causalrisk.design.encoders import FormulaEncoder
from causalrisk.design.formulas.evaluation import Formula, Scope, learn, parsed
from causalrisk.design.rows import Line, check_exact, check_groups, check_smallest, no_rows_left
from causalrisk.design.scan.encode import BlockCoder
from causalrisk.design.scan.files import naming
from causalrisk.design.scan.reader import KeptRows, ScanReader
from causalrisk.design.survey import (
    ReplicateSums,
    Replication,
    SurveyColumns,
    SurveyDesign,
    labels_of,
    replication_of,
)
from causalrisk.design.tables import plain
from causalrisk.design.treatment import Arms, arms_in_order, notes_of_spelling, treatment_levels
from causalrisk.errors import DesignError
from causalrisk.numerics.blocks import add_up
from causalrisk.runtime.system import memory

COPIES = 12  # of the coded columns of a block, at the most, at a time


@dataclass
class SeenColumn:
    """What blocks had in a column so far.

    Parameters
    ----------
    kind : {"numbers", "levels"}
        Numbers and flags, or text and categories.
    block : str
        The block that said so.
    dtypes : set of str
        Kinds of NumPy dtypes: "b", "i", "f", or "O" for levels.
    levels : dict
        Distinct values of a categorical column, in order.
    orders : set of tuple
        Orders of the categories.
    head : ndarray
        Some values.
    """

    kind: str = ""
    block: str = ""
    dtypes: set[str] = field(default_factory=set)
    levels: dict[Any, None] = field(default_factory=dict)
    orders: set[tuple[Any, ...]] = field(default_factory=set)
    head: np.ndarray = field(default_factory=lambda: np.empty(0))

    def sorted_levels(self) -> list[Any]:
        """Return the levels in the order of the categories where all blocks have the same, else sorted."""
        if len(self.orders) == 1:
            return [level for level in next(iter(self.orders)) if level in self.levels]
        return sorted(self.levels)

    def note(self, values: pd.Series, dtype: Any, block: str, coded: bool) -> None:
        """Add the plain values of a block, which had a dtype; `coded` where numbers are categories."""
        order = tuple(dtype.categories) if isinstance(dtype, pd.CategoricalDtype) else None
        numeric = values.dtype.kind in "bif" and order is None
        kind = "numbers" if numeric else "levels"
        if not self.kind:
            self.kind, self.block, self.head = kind, block, values.to_numpy()[:2]
        if self.kind != kind:
            text = {"numbers": "numbers", "levels": f"text such as {str(next(iter(self.levels or values)))!r}"}
            raise DesignError(
                f"column {str(values.name)!r} has {text[kind]} and in {self.block} {text[self.kind]}; expected the "
                "same in every block.\nWrite the files alike, a missing value as an empty cell."
            )
        self.dtypes.add(values.dtype.kind if numeric else "O")
        if not numeric and not coded and all(isinstance(level, str) for level in pd.unique(values)):
            plain(pd.Series(list(pd.unique(values)), dtype=object), str(values.name))  # refuses numbers, dates as text
        if not numeric or coded:
            self.levels.update(dict.fromkeys(pd.unique(values)))
            if order is not None:
                self.orders.add(order)


@dataclass
class FirstPass:
    """What the first pass learns.

    Parameters
    ----------
    reader : ScanReader
        The data.
    read, n : int
        Rows of the data and of the sample.
    first : KeptRows, optional
        The first block that has rows in the sample.
    stratum : SeenColumn
        Strata of a survey design, of all rows.
    strata : DataFrame, optional
        Columns "stratum", "rows", and "low" and "high" of the finite population correction.
    units : DataFrame, optional
        Columns "stratum" and "unit", each unit once.
    replicates : ReplicateSums, optional
        Sums of replicate weights, over all rows too.
    """

    reader: ScanReader
    read: int = 0
    n: int = 0
    columns: dict[str, SeenColumn] = field(default_factory=lambda: defaultdict(SeenColumn))
    treat: SeenColumn = field(default_factory=SeenColumn)
    counts: Counter[Any] = field(default_factory=Counter)
    clusters: dict[Any, None] = field(default_factory=dict)
    ledger: dict[tuple[str, str], Any] = field(default_factory=lambda: defaultdict(lambda: np.zeros(2, dtype=int)))
    weight_sum: float = 0.0
    first: KeptRows | None = None
    weight_limits: tuple[float, float] = (np.inf, 0.0)
    stratum: SeenColumn = field(default_factory=SeenColumn)
    strata: pd.DataFrame | None = None
    units: pd.DataFrame | None = None
    replicates: ReplicateSums | None = None

    @property
    def lines(self) -> list[Line]:
        """Lines of the ledger."""
        return [(*key, *counts.tolist()) for key, counts in self.ledger.items()]


def first_pass(reader: ScanReader) -> FirstPass:
    """Make the first pass, which learns what the coding of every block needs to know of all."""
    found = FirstPass(reader)
    for rows in reader.blocks():
        found.read, found.n = found.read + rows.read, found.n + rows.n
        for used_in, name, missing, dropped in rows.lines:
            found.ledger[used_in, name] += np.array([missing, dropped])
        with naming(rows.place.name):
            _note_drawn(found, rows)
            if rows.n:
                _note_rows(found, rows)
                found.first = found.first or rows
    return found


def _note_rows(found: FirstPass, rows: KeptRows) -> None:
    """Add the rows of a block to what is known."""
    codes, columns = found.reader.codes, found.reader.columns
    for name, values in rows.variables().items():
        found.columns[name].note(values, rows.table[name].dtype, rows.place.name, name in codes)
        _check_levels(name, len(found.columns[name].levels), found.reader.scan.block_rows)
    levels = treatment_levels(rows.treat, columns.treat)
    counts = np.bincount(levels[0], minlength=len(levels[1])).tolist()
    found.counts.update(dict(zip(levels[1], counts, strict=True)))
    found.treat.note(pd.Series(levels[1], name=columns.treat), rows.treat.dtype, rows.place.name, True)
    if rows.cluster is not None:
        groups = pd.unique(np.asarray(rows.cluster, dtype=object))
        check_exact(groups, columns.cluster)
        found.clusters.update(dict.fromkeys(groups))
        kinds = {isinstance(group, str) for group in (*groups, next(iter(found.clusters)))}
        if len(kinds) > 1:
            raise DesignError(
                f"cluster {columns.cluster!r} has text in one block and numbers in another; expected the same in every "
                "block, as 3 and '3' are two clusters.\nWrite the files alike."
            )
    if rows.weights is not None:
        low, high = found.weight_limits
        found.weight_limits = min(low, rows.weights.min()), max(high, rows.weights.max())
        found.weight_sum += rows.weights.sum()


def _note_drawn(found: FirstPass, block: KeptRows) -> None:
    """Add how the rows of a block were drawn, in the sample or not, to what is known of the strata."""
    if block.drawn is None or found.reader.by.survey is None:
        return
    drawn, given = block.drawn, found.reader.by.survey.strata
    codes, levels = pd.factorize(drawn["stratum"])
    names = np.asarray(levels, dtype=object)
    values = pd.Series(names.tolist(), name="stratum" if given is None else given.name)
    found.stratum.note(values, drawn["stratum"].dtype, block.place.name, True)
    fpc = drawn.get("fpc", pd.Series(0.0, drawn.index)).groupby(codes)
    new = pd.DataFrame({"stratum": names, "rows": fpc.size(), "low": fpc.min(), "high": fpc.max()})
    by = pd.concat([new] if found.strata is None else [found.strata, new]).groupby("stratum", sort=False)
    found.strata = by.agg({"rows": "sum", "low": "min", "high": "max"}).reset_index()
    if "unit" in drawn:
        pairs = pd.DataFrame({"stratum": names[codes], "unit": np.asarray(drawn["unit"], dtype=object)})
        every = [pairs] if found.units is None else [found.units, pairs.drop_duplicates()]
        found.units = pd.concat(every).drop_duplicates()
    if block.replicates is not None:
        sums = ReplicateSums.of(block.replicates, drawn["weight"].to_numpy())
        found.replicates = sums if found.replicates is None else add_up([found.replicates, sums])


class ScannedReplication(Rowless, Replication):
    """Replicate weights without those of each row."""


class ScannedSurvey(Rowless, SurveyDesign):
    """A survey design without what it says of each row, which goes with the blocks."""


def scanned_survey(found: FirstPass, columns: SurveyColumns) -> tuple[pd.Index, ScannedSurvey]:
    """Return the strata in the order of their numbers, and the design that all rows of the data make."""
    if found.strata is None:
        raise no_rows_left(found.lines, found.read)
    names = pd.Index(found.stratum.sorted_levels(), dtype=object)
    by = found.strata.set_index("stratum").reindex(names)
    units = by["rows"]
    if found.units is not None:
        columns.check_nested(found.units)
        units = found.units.groupby("stratum").size().reindex(names)
    limits = None if columns.fpc is None else (by["low"].to_numpy(), by["high"].to_numpy())
    given, replication = found.reader.columns, None
    if found.replicates is not None:
        replication = ScannedReplication(**replication_of(columns.survey, found.replicates))
    sizes = units.to_numpy().astype(float)
    known = columns.described(labels_of(names), sizes, limits, given.weights, given.subpop)
    return names, ScannedSurvey(replication=replication, **known)


def _check_levels(name: str, levels: int, block_rows: int) -> None:
    """Raise a DesignError where blocks with a column a level, or the products of these columns, do not fit memory."""
    needed, there = 8.0 * COPIES * levels * max(block_rows, levels), memory()
    if needed > there:
        raise DesignError(
            f"column {name!r} has {levels:,} levels or more: coded in blocks of {block_rows:,} rows they take about "
            f"{needed / 1e9:,.0f} GB, and this computer has {there / 1e9:,.0f} GB.\n"
            "Merge levels, or use a smaller `block_rows=` of scan."
        )


def make_encoder(found: FirstPass, formula: Formula, scope: Scope, arms: Arms | None = None) -> FormulaEncoder:
    """Fix the coding of a right-hand side on a few rows that have every level of every variable.

    `scope` has what its names mean in one block, and `arms` the treatment groups, where these may be in the formula.
    """
    codes, treat = formula.coded, found.reader.columns.treat
    names = [name for name in scope.variables if arms is None or name != treat]
    n = max([2, *(len(found.columns[name].levels) for name in names), 0 if arms is None else len(arms.levels)])
    few = {name: _few_rows(found.columns[name], name, name in codes, n) for name in names}
    if arms is not None and treat in scope.variables:
        few[treat] = pd.Series(arms.coded(np.resize(np.arange(len(arms.levels)), n)), name=treat)
    encoder = FormulaEncoder(formula, Scope(few, scope.constants))
    for factor, known in encoder.info.factor_infos.items():
        code = factor.code
        if known.categories not in (None, (False, True)) and not _is_variable(code):
            raise DesignError(
                f"the {formula.model} formula {formula.text!r} computes categories, {code}, which a scan cannot code.\n"
                "Make it a column of the files, or 0/1 columns by `I(x > 1)`."
            )
    return encoder


def _few_rows(seen: SeenColumn, name: str, coded: bool, n: int) -> pd.Series:
    """Every level of a column, repeated to n rows; of numbers any."""
    if seen.kind == "levels":
        levels = seen.sorted_levels()
        return pd.Series(pd.Categorical(np.resize(np.array(levels, dtype=object), n), categories=levels), name=name)
    if seen.dtypes == {"b"}:
        return pd.Series(np.resize([False, True], n), name=name)
    values = np.array(sorted(seen.levels)) if coded else seen.head
    return pd.Series(np.resize(values, n).astype(np.int64 if seen.dtypes == {"i"} else np.float64), name=name)


def _is_variable(code: str) -> bool:
    """Whether a categorical factor is a variable as it is: g, Q("g"), C(g), C(g, Treatment("a"))."""
    node = parsed(code).body
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("C", "Q") and node.args:
        node = node.args[0]
        return isinstance(node, ast.Constant) or _is_variable(ast.unparse(node))
    return isinstance(node, ast.Name)


def arm_levels(found: FirstPass) -> Arms:
    """Order the levels of the treatment as arms."""
    columns, seen = found.reader.columns, found.treat
    levels = seen.sorted_levels() if seen.kind == "levels" else sorted(found.counts)
    if seen.kind == "levels":  # an interval is known by its text
        levels = [level for level in levels if level in found.counts] or sorted(found.counts)
    return arms_in_order(
        levels,
        np.array([found.counts[level] for level in levels]),
        columns.treat,
        named=bool(seen.orders),
        treated=columns.treated,
        reference=columns.reference,
        levels=columns.levels,
    )


def taught(found: FirstPass, first: KeptRows) -> ScanReader:
    """Let all stateful functions of the formulas learn from all rows, such as knots."""
    given = first.formulas
    scopes = [scope for scope in (given.left, given.right, given.assign, given.seen) if scope is not None]
    constants = {name: value for scope in scopes for name, value in scope.constants.items()}

    def blocks() -> Iterator[tuple[str, dict[str, pd.Series]]]:
        for rows in found.reader.blocks((found.read, found.n)):
            if rows.n:  # copies, so that the rest of the block is freed
                yield rows.place.name, {name: values.copy() for name, values in rows.variables().items()}

    return found.reader.taught(learn(found.reader.formulas, constants, blocks))


def coder_of(found: FirstPass, first: KeptRows, notes: list[str]) -> BlockCoder:
    """Fix the coding on what the first pass learnt, and try it on the first rows; lines are appended to `notes`."""
    columns = found.reader.columns
    reader = taught(found, first)
    formulas, unit, clusters, strata, design = first.formulas, 1.0, None, None, None
    low, high = found.weight_limits
    notes += notes_of_spelling({**{name: c.levels for name, c in found.columns.items()}, columns.treat: found.counts})
    if columns.weight_type == "probability":
        unit = found.weight_sum / found.n
        check_smallest(low, high, low / unit, columns.weights)
    if columns.cluster is not None:
        clusters = pd.Index(list(found.clusters), dtype=object)
        check_groups(list(clusters), columns.cluster)
    if reader.by.survey is not None:
        strata, design = scanned_survey(found, reader.by.survey)
        notes += design.notes
    arms, observed = arm_levels(found), None
    if reader.observed is not None and formulas.seen is not None:
        observed = make_encoder(found, reader.observed, formulas.seen, arms)
    coder = BlockCoder(
        observed=observed,
        reader=reader,
        outcome=make_encoder(found, reader.outcome, formulas.right),
        propensity=make_encoder(found, reader.assigned, formulas.assign),
        arms=arms,
        clusters=clusters,
        strata=strata,
        survey=design,
        unit=unit,
        size=(found.read, found.n),
    )
    coder.check_by_rows(first)
    return coder
