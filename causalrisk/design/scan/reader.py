"""From a block of a scan to those of its rows that are used, with the variables of the model and the ledger."""

from __future__ import annotations

import ast
import copy
import functools
import itertools
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalrisk.design.build import Formulas, check_roles, kept_offset, read_formulas
from causalrisk.design.dtypes import missing_mask, plain
from causalrisk.design.encoders import INDICATOR
from causalrisk.design.formulas.evaluation import Formula
from causalrisk.design.formulas.stateful import STATEFUL, options_of, stateful_calls
from causalrisk.design.formulas.terms import codes_of
from causalrisk.design.rows import BY_ROW, UNRECORDED, ColumnOptions, Line, by_rows, draw_rows
from causalrisk.design.scan.files import NamedBlock, Piece, Place, by_place, name_of
from causalrisk.design.scan.source import Scan
from causalrisk.design.survey import ROLES, replicate_values
from causalrisk.design.tables import Table, as_table, condition_names, is_column
from causalrisk.errors import DesignError, UnavailableError
from causalrisk.numerics.blocks import taken
from causalrisk.runtime.workers import flat_map, progress_bar

T = TypeVar("T")
MINUTES = 100  # seconds from which the time left is in minutes


@dataclass(frozen=True)
class Mark:
    """Checksum by which later passes over the files know the rows of the first: sums of each column, times the arm.

    Parameters
    ----------
    totals, sizes : dict of str to float
        Sum of each column, and of its absolute values, every row multiplied by one plus its treatment.
    """

    totals: dict[str, float] = field(default_factory=dict)
    sizes: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, columns: Iterable[pd.Series], treat: pd.Series) -> Mark:
        """Return the mark of some rows."""
        times, totals, sizes = 1 + _number_of(treat), dict[str, float](), dict[str, float]()
        with np.errstate(all="ignore"):  # too large numbers are refused elsewhere
            for column in columns:
                values = _number_of(column) * times
                totals[str(column.name)] = float(values.sum())
                sizes[str(column.name)] = float(np.abs(values).sum())
        return cls(totals, sizes)

    def beside(self, other: Mark) -> Mark:
        """Merge with the mark of other rows."""
        return Mark(_sums(self.totals, other.totals), _sums(self.sizes, other.sizes))

    def other(self, later: Mark) -> str:
        """Name of the first column that is not the same in a later pass, in whatever order the rows came; or empty."""
        pairs = ((name, abs(total - later.totals.get(name, 0.0))) for name, total in self.totals.items())
        return next((name for name, off in pairs if off > 1e-9 * self.sizes[name]), "")


def _number_of(values: pd.Series) -> NDArray[np.float64]:
    """Numbers as they are, and of anything else a number between 0 and 1 that is the same for the same value."""
    if isinstance(values.dtype, np.dtype) and values.dtype.kind in "biuf":
        return values.to_numpy(dtype=np.float64)
    return np.asarray(pd.util.hash_pandas_object(values, index=False), dtype=np.float64) / 2.0**64


def _sums(first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, float]:
    return {name: first.get(name, 0.0) + second.get(name, 0.0) for name in {**first, **second}}


@dataclass(frozen=True)
class KeptRows:
    """The rows of a block that are in the sample.

    Parameters
    ----------
    places : tuple of Place
        Where the rows of the block are from.
    read : int
        Rows of the block.
    position : ndarray of int, shape (n,)
        Number in all data of each row kept.
    lines : list of tuple
        Lines of the ledger, as in `Rows`.
    table : DataFrame
        Variables of both models on the n rows kept.
    formulas : Formulas
        Both formulas, and what their names mean in the block.
    treat : Series
        Treatment on the rows kept.
    weights : ndarray, shape (n,), or None
        Observation weights, as given.
    cluster : Series or None
        Clusters.
    offset : ndarray, shape (n,), or None
        Offset of the outcome models; of an exposure its logarithm.
    stratum : Series or None
        Strata of a survey design.
    multiplicities : ndarray, shape (n, R), or None
        Replicate weights over the weights.
    drawn : DataFrame or None
        How all rows of the block were drawn, as by `SurveyColumns.drawn`.
    replicates : ndarray, shape (read, R), or None
        Replicate weights of all of them.
    """

    places: tuple[Place, ...]
    read: int
    position: NDArray[np.intp]
    lines: list[Line]
    table: pd.DataFrame
    formulas: Formulas
    treat: pd.Series
    weights: np.ndarray | None
    cluster: pd.Series | None
    offset: np.ndarray | None
    stratum: pd.Series | None
    multiplicities: np.ndarray | None
    drawn: pd.DataFrame | None
    replicates: np.ndarray | None

    @property
    def name(self) -> str:
        """What messages call the block."""
        return name_of(self.places)

    @property
    def n(self) -> int:
        """Number of rows kept."""
        return len(self.treat)

    def some(self, which: Any) -> KeptRows:
        """Return some of the rows; `which` is a slice or of bool, shape (n,)."""
        names = ("position", "table", "treat", "weights", "cluster", "offset", "stratum", "multiplicities")
        return taken(self, which, *names)

    @property
    def mark(self) -> Mark:
        """Checksum of the rows: of the variables of both models and the weights."""
        weights = [] if self.weights is None else [pd.Series(self.weights, name="the weights")]
        return Mark.of([*(self.table[name] for name in self.table), *weights], self.treat)

    def variables(self) -> dict[str, pd.Series]:
        """Variables of the models as plain columns; without the outcome, where some are missing."""
        given, names = self.formulas, [str(name) for name in self.table]
        codes = set().union(*map(codes_of, given.models))
        if given.seen is not None:
            names = [name for name in names if name not in given.left.variables]
        return {name: plain(self.table[name], name, name in codes) for name in names}

    @property
    def recorded(self) -> NDArray[np.bool_]:
        """Which of the rows have an outcome, shape (n,)."""
        if self.formulas.seen is None:
            return np.ones(self.n, dtype=bool)
        return ~np.logical_or.reduce([missing_mask(self.table[name]) for name in self.formulas.left.variables])


class ScanReader:
    """Reads the blocks of a scan for one model.

    Parameters
    ----------
    scan : Scan
        The data.
    formula, propensity : str
        As in `design_from_formula`.
    columns : ColumnOptions
        Treatment, weights, clusters and survey design, by name.
    frame : mapping of str to object
        The caller's variables; only those of the formulas are kept.
    """

    def __init__(
        self, scan: Scan, formula: str, propensity: str | None, columns: ColumnOptions, frame: Mapping[str, Any]
    ) -> None:
        if columns.missing == INDICATOR:
            raise UnavailableError(
                'missing="indicator" is not there for a scan, whose blocks are coded before all rows are known.\n'
                'Type  missing="drop"  or  data=data.collect()  if the rows fit into memory.'
            )
        self.names = names = scan.column_names()
        self.notes: list[str] = []
        empty = pd.DataFrame({name: pd.Series(dtype=float) for name in names})
        constants = _constants(frame, names, f"{formula} {propensity} {columns.observed}")
        formulas, _ = read_formulas(formula, propensity, columns, empty, constants, self.notes)
        self.scan, self.columns, self.formulas = scan, columns, formulas.models
        used = {use.name for part in self.formulas for use in part.uses()}
        self.frame = {name: value for name, value in constants.items() if name in used}
        for part in self.formulas:
            _refuse_state(part, self.frame, names)
        check_names(columns)
        self.by = by = by_rows(as_table(empty, []), columns, {}, [])
        check_roles(formulas, columns.treat, columns.did)
        others = [getattr(columns, option) for option in BY_ROW[:-1]]
        if isinstance(columns.subpop, str):
            others += condition_names(columns.subpop)
        if columns.design is not None:
            others += [getattr(columns.design, role) for role in ROLES]
        if by.survey is not None and by.survey.replicates is not None:
            others += list(by.survey.replicates)
        self.used = [name for name in names if name in used or name in others]

    @property
    def outcome(self) -> Formula:
        """Outcome formula."""
        return self.formulas[0]

    @property
    def assigned(self) -> Formula:
        """Propensity formula."""
        return self.formulas[1]

    @property
    def observed(self) -> Formula | None:
        """Formula of the observation model, where there is one."""
        return self.formulas[2] if len(self.formulas) > 2 else None

    @property
    def codes(self) -> set[str]:
        """Variables of the formulas that are categories although they may be numbers."""
        return set().union(*map(codes_of, self.formulas))

    def pieces(self) -> Iterator[Piece]:
        """Begin a pass over the pieces that are read by themselves."""
        return self.scan.pieces(self.used)

    def blocks(self, piece: Piece, first: int) -> Iterator[KeptRows]:
        """Read the blocks of a piece; `first` is the number of its first row in all data."""
        for block in piece.blocks(self.used, first):
            yield by_place(functools.partial(self._kept, block), block.places, block.position)

    def without_data(self) -> ScanReader:
        """Return a reader of pieces that knows nothing of the others, to be sent to a worker."""
        sent = copy.copy(self)
        sent.scan = self.scan.without_rows()
        return sent

    def told(self, calls: Mapping[str, str]) -> ScanReader:
        """Return a reader whose formulas are told what some of their calls have learnt."""
        taught = copy.copy(self)
        taught.formulas = [replace(formula, told=(*formula.told, *calls.items())) for formula in self.formulas]
        return taught

    def _kept(self, block: NamedBlock, which: Any) -> KeptRows:
        frame = block.frame[which]
        table = Table(frame.index, frame.assign(**_levels_of_text(frame)))
        formulas = Formulas.of(self.formulas, table, self.frame)
        by = by_rows(table, self.columns, {}, [])
        sources, recorded = formulas.sources(self.columns.treat), formulas.recorded
        rows = draw_rows(sources, by, table.index, self.columns.missing)
        keep, lines, weights = rows.keep, rows.lines, rows.weights
        kept = {source.name: source.values[keep] for source in sources}
        if recorded is not None:
            kept |= {name: values[keep] for name, values in formulas.left.variables.items()}
            lines.append((UNRECORDED, self.outcome.left[0].name(), int((~recorded & keep).sum()), 0))
        drawn, replicates, multiplicities = None, None, None
        if by.survey is not None:
            drawn = by.survey.drawn(None if by.cluster is None else by.cluster.values, table.index)
            if by.survey.replicates is not None and weights is not None:
                drawn["weight"] = weights
                replicates = replicate_values(by.survey.survey, by.survey.replicates, weights)
                multiplicities = replicates[keep] / weights[keep, None]
        return KeptRows(
            places=block.places,
            read=len(keep),
            position=block.position[which][keep],
            lines=lines,
            table=pd.DataFrame(kept),
            formulas=formulas,
            treat=by.treat.values[keep],
            weights=None if weights is None else weights[keep],
            cluster=None if by.cluster is None else by.cluster.values[keep],
            offset=kept_offset(by, keep, (by.treat.name, self.outcome.left[0].name())),
            stratum=None if drawn is None or replicates is not None else drawn["stratum"][keep],
            multiplicities=multiplicities,
            drawn=drawn,
            replicates=replicates,
        )


@dataclass
class PassCounter:
    """Counts the passes of a fit, and shows on standard error how many rows of the current one are done.

    Parameters
    ----------
    expected : int, optional
        About how many there will be, where that is known.
    shown : bool, default True
        Whether to show anything.
    passes : int, default 0
        How many have begun.
    start : float, optional
        When the first began, in seconds.
    """

    expected: int | None = None
    shown: bool = True
    passes: int = 0
    start: float | None = None

    @property
    def place(self) -> str:
        """The current pass, and of about how many, where that is known."""
        number = max(self.passes, 1)
        return f"pass {number} of about {self.expected}" if number <= (self.expected or 0) else f"pass {number}"

    def begun(self, rows: int) -> AbstractContextManager[Callable[[int], object]]:
        """Begin a pass over so many rows; as `progress_bar`."""
        now = time.monotonic()
        self.start = now if self.start is None else self.start
        done, self.passes = self.passes, self.passes + 1
        label = f"{self.place}{self._time_left(done, now - self.start)}"
        return progress_bar(rows, self.shown, label, "row", leave=False)

    def _time_left(self, done: int, seconds: float) -> str:
        """Say what time is left; nothing where that is not known."""
        if not done or self.expected is None or done >= self.expected:
            return ""
        left = seconds / done * (self.expected - done)
        return f", about {left:.0f} s left" if left < MINUTES else f", about {left / 60:.0f} min left"


class Done(NamedTuple):
    """What was made of a block, and of which rows: how many of the sample and of the data, and their checksum."""

    n: int
    read: int
    mark: Mark
    made: Any = None


@dataclass
class Extent:
    """What a pass has read; later ones have to read the same.

    Parameters
    ----------
    read, n : int
        Rows of the data and of the sample.
    mark : Mark
        Checksum of the rows of the sample.
    starts : list of tuple of int
        Rows of the data, and of the sample, before each piece.
    """

    read: int = 0
    n: int = 0
    mark: Mark = field(default_factory=Mark)
    starts: list[tuple[int, int]] = field(default_factory=list)

    def add(self, done: Done | KeptRows) -> None:
        """Add the rows of a block."""
        self.read, self.n = self.read + done.read, self.n + done.n
        if done.n:
            self.mark = self.mark.beside(done.mark)

    def over(
        self,
        reader: ScanReader,
        function: Callable[[KeptRows, int], T],
        workers: int = 1,
        passes: PassCounter | None = None,
    ) -> Iterator[T]:
        """Begin a pass over the same rows.

        Parameters
        ----------
        reader : ScanReader
            The data.
        function : callable
            What is made of the rows of a block that are in the sample, given the number of the first.
        workers : int, default 1
            Pieces worked on at a time, where no cluster is there to work on them.
        passes : PassCounter, optional
            Shows how far the pass is.

        Yields
        ------
        object
            What was made of each block that has rows, in their order.

        Raises
        ------
        DesignError
            If the pass reads other rows.
        """
        later, work = Extent(), functools.partial(_of_piece, reader.without_data(), function)
        with nullcontext(lambda rows: None) if passes is None else passes.begun(self.read) as advance:
            for done in flat_map(work, self._pieces(reader), workers, _where):
                later.add(done)
                advance(done.read)
                if done.n:
                    yield done.made
        if (later.read, later.n) != (self.read, self.n):
            raise other_rows(
                f"the first pass read {self.read} rows and used {self.n}, a later one read {later.read} and used "
                f"{later.n}"
            )
        column = self.mark.other(later.mark)
        if column:
            raise other_rows(
                f"a later pass read other rows than the first ones: the sum of {column!r}, each row times one plus its "
                f"treatment, is {later.mark.totals[column]:.10g} and was {self.mark.totals[column]:.10g}"
            )

    def blocks(self, reader: ScanReader, function: Callable[[KeptRows, int], T]) -> Iterator[T]:
        """Make something of each block that has rows, in this process."""
        for given in self._pieces(reader):
            yield from (done.made for done in _of_piece(reader, function, given) if done.n)

    def _pieces(self, reader: ScanReader) -> Iterator[tuple[Piece, tuple[int, int]]]:
        """Return the pieces, each with the numbers of its first row; those of one too many do not matter."""
        return zip(reader.pieces(), itertools.chain(self.starts, itertools.repeat((self.read, self.n))), strict=False)


def _where(given: tuple[Piece, Any]) -> str:
    return given[0].where


def _of_piece(
    reader: ScanReader, function: Callable[[KeptRows, int], Any], given: tuple[Piece, tuple[int, int]]
) -> Iterator[Done]:
    """Apply a function to each block of a piece."""
    piece, (first, number) = given
    for rows in reader.blocks(piece, first):
        yield Done(rows.n, rows.read, rows.mark, function(rows, number)) if rows.n else Done(0, rows.read, Mark())
        number += rows.n


def other_rows(found: str) -> DesignError:
    """Make the error of passes that do not read the same rows."""
    return DesignError(
        f"{found}; every pass has to read the same rows.\n"
        "Give scan a function that begins anew whenever it is called, and data that do not change."
    )


def check_names(columns: ColumnOptions) -> None:
    """Refuse what is given by rows and not by name, and known scores."""
    given = {option: getattr(columns, option) for option in BY_ROW[:-1]}
    if columns.design is not None:
        roles = (*ROLES, "replicate_weights")
        given |= {"cluster": None, **{role: getattr(columns.design, role) for role in roles}}
    for option, value in given.items():
        names = value if option == "replicate_weights" and isinstance(value, list | tuple) else [value]
        if value is not None and not all(isinstance(name, str) for name in names):
            raise DesignError(
                f"{option}= is a {type(value).__name__}; expected the name of a column, as the rows of a scan come in "
                f'blocks.\nWrite it to the files, and type its name:  {option}="..."'
            )
    if columns.propensity_score is not None:
        raise UnavailableError(
            "propensity_score= is not there for a scan yet; expected a propensity model that is fitted to it.\n"
            "Leave propensity_score= out, or, if the rows fit into memory, type  data=data.collect()."
        )


def _constants(frame: Mapping[str, Any], names: list[str], text: str) -> dict[str, Any]:
    """Variables of the caller's scope that formulas use; a DesignError where one goes by rows and is no column."""
    used = {name: frame[name] for name in sorted({*re.findall(r"(?<![\w.])[^\W\d]\w*", text)}) if name in frame}
    for name, value in used.items():
        if name not in names and is_column(value) and not isinstance(value, list | tuple):
            raise DesignError(
                f"the formulas use {name!r}, which is no column of the scan but a {type(value).__name__} of the "
                "calling scope; expected columns, as the rows of a scan come in blocks.\n"
                "Write it to the files; if it is an option such as levels=, make it a list."
            )
    return used


def _refuse_state(formula: Formula, frame: Mapping[str, Any], columns: Iterable[str]) -> None:
    """Refuse functions of the caller that learn from all rows, and options of others that go by rows."""
    for name, role in formula.uses():
        value = frame.get(name)
        if role == "called" and hasattr(value, "__patsy_stateful_transform__") and value is not STATEFUL.get(name):
            raise DesignError(
                f"the {formula.model} formula {formula.text!r} uses {name}(), which learns from all rows before it "
                "codes one; a scan has one block of rows at a time.\n"
                "Use powers, such as x + I(x**2), or write columns of the basis to the files."
            )
    for call in stateful_calls(formula, frame).values():
        for option in options_of(call):
            if {node.id for node in ast.walk(option) if isinstance(node, ast.Name)} & {*columns, "Q"}:
                raise DesignError(
                    f"the {formula.model} formula {formula.text!r} works out an option of {ast.unparse(call.func)}() "
                    f"from columns, {ast.unparse(option)}; expected numbers, as a scan has one block of rows at a "
                    "time.\nLeave the option out, and it is learnt from all rows where that is its default; or write "
                    "the numbers themselves."
                )


def _levels_of_text(frame: pd.DataFrame) -> dict[str, pd.Series]:
    """Columns of text as categories in sorted order, which are coded faster."""
    texts: Iterable[str] = (
        name
        for name in frame
        if frame[name].dtype.kind == "O" and pd.api.types.infer_dtype(frame[name], skipna=True) == "string"
    )
    return {name: frame[name].astype(object).astype("category") for name in texts}
