"""From a block of a scan to those of its rows that are used, with the variables of the model and the ledger."""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalrisk.design.build import Formulas, check_roles, kept_offset, read_formulas
from causalrisk.design.encoders import INDICATOR
from causalrisk.design.formulas.evaluation import STATEFUL, Formula, state_options
from causalrisk.design.rows import BY_ROW, UNRECORDED, ColumnOptions, Line, by_rows, draw_rows
from causalrisk.design.scan.files import Place, naming
from causalrisk.design.scan.source import NamedBlock, Scan
from causalrisk.design.survey import ROLES, replicate_values
from causalrisk.design.tables import Table, as_table, condition_names, is_column, missing_mask, plain
from causalrisk.errors import DesignError, UnavailableError
from causalrisk.numerics.blocks import taken
from causalrisk.runtime.workers import progress_bar


@dataclass(frozen=True)
class KeptRows:
    """The rows of a block that are in the sample.

    Parameters
    ----------
    place : Place
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

    place: Place
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
    def n(self) -> int:
        """Number of rows kept."""
        return len(self.treat)

    def some(self, which: slice) -> KeptRows:
        """Return some of the rows."""
        names = ("position", "table", "treat", "weights", "cluster", "offset", "stratum", "multiplicities")
        return taken(self, which, *names)

    def variables(self) -> dict[str, pd.Series]:
        """Variables of the models as plain columns; without the outcome, where some are missing."""
        given, names = self.formulas, [str(name) for name in self.table]
        codes = set().union(*(formula.coded for formula in given.models))
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
                'missing="indicator" is not available for a scan.\n'
                'Use `missing="drop"`, or `data=data.collect()` if the rows fit into memory.'
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
        return set().union(*(formula.coded for formula in self.formulas))

    def blocks(self, again: tuple[int, int] | None = None) -> Iterator[KeptRows]:
        """Begin a pass over the data.

        Parameters
        ----------
        again : tuple of int, optional
            Rows of the data and of the sample that the first pass read; this one has to read as many.
        """
        read = n = 0
        for block in self.scan.blocks(self.used):
            with naming(block.place.name):
                rows = self._kept(block)
            read, n = read + rows.read, n + rows.n
            yield rows
        if again is not None and again != (read, n):
            raise DesignError(
                f"the first pass over the data read {again[0]} rows and used {again[1]}, a later one {read} and {n}.\n"
                "Use data that do not change."
            )

    def taught(self, learnt: Mapping[str, Any]) -> ScanReader:
        """Return a reader whose formulas have what their stateful functions have learnt."""
        taught = copy.copy(self)
        taught.formulas = [replace(formula, learnt=learnt) for formula in self.formulas]
        return taught

    def _kept(self, block: NamedBlock) -> KeptRows:
        frame = block.frame
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
            place=block.place,
            read=len(keep),
            position=block.place.first + np.flatnonzero(keep),
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
    """

    expected: int | None = None
    shown: bool = True
    passes: int = 0

    def begun(self, rows: int) -> AbstractContextManager[Callable[[int], object]]:
        """Begin a pass over so many rows; as `progress_bar`."""
        self.passes += 1
        about = f" of about {self.expected}" if self.passes <= (self.expected or 0) else ""
        return progress_bar(rows, self.shown, f"pass {self.passes}{about}", "row", leave=False)


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
    for name, option in state_options(formula, frame):
        if {node.id for node in ast.walk(option) if isinstance(node, ast.Name)} & {*columns, "Q"}:
            raise DesignError(
                f"the {formula.model} formula {formula.text!r} computes an option of {name}() from columns, "
                f"{ast.unparse(option)}; with a scan, expected numbers.\nWrite the numbers."
            )


def _levels_of_text(frame: pd.DataFrame) -> dict[str, pd.Series]:
    """Columns of text as categories in sorted order, which are coded faster."""
    texts: Iterable[str] = (
        name
        for name in frame
        if frame[name].dtype.kind == "O" and pd.api.types.infer_dtype(frame[name], skipna=True) == "string"
    )
    return {name: frame[name].astype(object).astype("category") for name in texts}
