"""Blocks of a scan as numbers: the outcome, both designs, arms and weights of their rows."""

from __future__ import annotations

import bisect
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from causalrisk.design.build import outcome_values
from causalrisk.design.encoders import FormulaEncoder
from causalrisk.design.formulas.evaluation import Scope
from causalrisk.design.scan.chunks import Piece, Place, by_place, renumbered
from causalrisk.design.scan.levels import ArmLevels
from causalrisk.design.scan.reader import KeptRows, Mark, ScanReader, check_read, numbered, other_rows, where
from causalrisk.errors import DesignError
from causalrisk.numerics.blocks import taken
from causalrisk.runtime.workers import check_wanted, flat_map, progress_bar

T = TypeVar("T")
MINUTES = 100  # seconds from which the time left is in minutes
TRIED = 9  # rows that are coded by themselves, to see whether a formula goes by rows
OTHER_DATA = "the data are not those of the first pass: "


@dataclass(frozen=True)
class CodedBlock:
    """The rows of a block that are in the sample.

    Parameters
    ----------
    places : tuple of Place
        Where the rows of the block are from, numbered as they are.
    position : ndarray of int, shape (n,)
        Number of each row among those of the sample, in the order of the data.
    y : ndarray, shape (n,)
        Outcome.
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
    row : ndarray of int, shape (n,), optional
        Number of each row in all data, those counted that are not in the sample.
    table : DataFrame, optional
        Variables of both models, on these rows and those that trimming left out; not of rows that were kept.
    place : ndarray of int, shape (n,), optional
        Where these rows are in the table.
    """

    places: tuple[Place, ...]
    position: np.ndarray
    y: np.ndarray
    X: np.ndarray
    Z: np.ndarray
    arm: np.ndarray
    weights: np.ndarray
    cluster: np.ndarray | None
    offset: np.ndarray | None
    row: np.ndarray | None = None
    table: pd.DataFrame | None = None
    place: np.ndarray | None = None

    @property
    def variables(self) -> pd.DataFrame:
        """Variables of both models."""
        if self.table is None or self.place is None:
            raise TypeError("rows that were kept have no variables; a pass over the files has")
        return self.table.iloc[self.place]

    def some(self, keep: np.ndarray) -> CodedBlock:
        """Return some of the rows; `keep` is of bool, shape (n,)."""
        return taken(self, keep, "position", "y", "X", "Z", "arm", "weights", "cluster", "offset", "row", "place")


@dataclass(frozen=True)
class Done:
    """What was made of a block, and of which rows.

    Parameters
    ----------
    n, read : int
        Its rows in the sample, and in the data.
    mark : Mark
        Checksum of the rows in the sample.
    made : object
        What the function returned; None without rows.
    """

    n: int
    read: int
    mark: Mark
    made: Any


@dataclass
class PassCounter:
    """Shows on standard error how many rows of the current pass are done.

    Parameters
    ----------
    expected : int, optional
        About how many there will be, where that is known.
    passes : int, default 0
        How many have begun.
    start : float, optional
        When the first began, in seconds.
    """

    expected: int | None = None
    passes: int = 0
    start: float | None = None

    def begun(self, rows: int) -> AbstractContextManager[Callable[[int], object]]:
        """Begin a pass over so many rows; as `progress_bar`."""
        now = time.monotonic()
        self.start = now if self.start is None else self.start
        done, self.passes = self.passes, self.passes + 1
        return progress_bar(
            rows, True, f"pass {self.passes}{self._outlook(done, now - self.start)}", "row", leave=False
        )

    def _outlook(self, done: int, seconds: float) -> str:
        """Say of how many passes this one is, and what time is left; nothing where that is not known."""
        if self.expected is None or done >= self.expected:
            return ""
        text = f" of about {self.expected}"
        if not done:
            return text
        left = seconds / done * (self.expected - done)
        return f"{text}, about {left:.0f} s left" if left < MINUTES else f"{text}, about {left / 60:.0f} min left"


@dataclass(frozen=True)
class BlockCoder:
    """Codes the blocks of a scan, every pass in the same way.

    Parameters
    ----------
    reader : ScanReader
        The data.
    outcome, propensity : FormulaEncoder
        Coding of both right-hand sides.
    arms : ArmLevels
        Coding of the treatment.
    clusters : Index or None
        The clusters, in the order of their numbers.
    unit : float
        What weights are divided by.
    n, read : int
        Rows of the sample and of the data.
    starts, numbers : tuple of int
        Rows of the data, and of the sample, before each piece.
    mark : Mark
        Checksum of the rows of the first pass; later passes have to have the same.
    """

    reader: ScanReader
    outcome: FormulaEncoder
    propensity: FormulaEncoder
    arms: ArmLevels
    clusters: pd.Index | None
    unit: float
    n: int
    read: int
    starts: tuple[int, ...]
    numbers: tuple[int, ...]
    mark: Mark

    @property
    def one_design(self) -> bool:
        """Whether both right-hand sides are the same, and the columns that are left of them."""
        same = self.reader.outcome.right_text == self.reader.assigned.right_text
        return same and self.outcome.names == self.propensity.names

    def over(
        self, function: Callable[[CodedBlock], T], workers: int = 1, passes: PassCounter | None = None
    ) -> Iterator[T]:
        """Begin a pass over the blocks that have rows in the sample.

        Parameters
        ----------
        function : callable
            What is made of a block.
        workers : int, default 1
            Pieces worked on at a time, where no cluster is there to work on them.
        passes : PassCounter, optional
            Shows how far the pass is.

        Yields
        ------
        object
            What was made of each block, in their order.

        Raises
        ------
        DesignError
            If the data are not those of the first pass.
        """
        n, read, mark = 0, 0, Mark()
        sent = dataclasses.replace(self, reader=self.reader.without_data())
        work = functools.partial(_of_piece, sent, function)
        with nullcontext(lambda rows: None) if passes is None else passes.begun(self.read) as advance:
            for done in flat_map(work, numbered(self.reader, self.starts, self.read), workers, where):
                n, read, mark = n + done.n, read + done.read, mark.beside(done.mark)
                advance(done.read)
                if done.n:
                    yield done.made
        check_read((self.read, self.n), (read, n))
        column = self.mark.other(mark)
        if column:
            raise other_rows(
                f"a later pass read other rows than the first ones: the sum of {column!r}, each row times one plus its "
                f"treatment, is {mark.totals[column]:.10g} and was {self.mark.totals[column]:.10g}"
            )

    def blocks(self) -> Iterator[CodedBlock]:
        """Read and code the blocks in this process."""
        for given in numbered(self.reader, self.starts, self.read):
            yield from (done.made for done in _of_piece(self, itself, given) if done.n)

    def number(self, start: int) -> int:
        """Rows of the sample before the piece that begins with some row of the data."""
        k = bisect.bisect_left(self.starts, start)
        return self.numbers[k] if k < len(self.numbers) else self.n

    def coded(self, rows: KeptRows, number: int) -> CodedBlock:
        """Code some rows, the first of which has the given number in the sample."""
        cluster = None
        if rows.cluster is not None and self.clusters is not None:
            cluster = self.clusters.get_indexer(pd.Index(np.asarray(rows.cluster, dtype=object), dtype=object))
            if (cluster < 0).any():
                raise DesignError("there is a cluster that it did not have.\nMake scan and model anew.")
        X = self.outcome.encode(rows.table)
        return CodedBlock(
            places=renumbered(rows.places, rows.position, number),
            position=number + np.arange(rows.n),
            y=self.outcome_of(rows, slice(None)),
            X=X,
            Z=X if self.one_design else self.propensity.encode(rows.table),
            arm=self.arms.arms(rows.treat, self.reader.columns.treat),
            weights=np.ones(rows.n) if rows.weights is None else rows.weights / self.unit,
            cluster=cluster,
            offset=rows.offset,
            row=rows.position,
            table=rows.table,
            place=np.arange(rows.n),
        )

    def outcome_of(self, rows: KeptRows, which: slice) -> np.ndarray:
        """Outcome of some rows of a block."""
        variables, left = rows.variables(), rows.formulas.left
        own = {name: variables[name].iloc[which].reset_index(drop=True) for name in left.variables}
        return outcome_values(self.reader.outcome, Scope(own, left.constants), len(range(rows.n)[which]))

    def check_by_rows(self, rows: KeptRows) -> None:
        """Raise a DesignError where a formula codes rows differently beside other rows, as with ``x - x.mean()``."""
        every = slice(None)
        whole = self.outcome.encode(rows.table), self.propensity.encode(rows.table), self.outcome_of(rows, every)
        for k in np.unique(np.linspace(0, rows.n - 1, TRIED).astype(int)):
            one = slice(k, k + 1)
            try:
                alone = (
                    *(code.encode(rows.table[one]) for code in (self.outcome, self.propensity)),
                    self.outcome_of(rows, one),
                )
            except DesignError:  # such as a division by what is zero for this row
                alone = tuple(np.full_like(part[one], np.nan) for part in whole)
            same = [
                np.isclose(part[one], own, rtol=1e-9, atol=1e-13 * np.abs(part).max(axis=0)).all()  # rounding of sums
                for part, own in zip(whole, alone, strict=True)
            ]
            if not all(same):
                formula = self.reader.assigned if same[0] and same[2] else self.reader.outcome
                raise DesignError(
                    f"the formula {formula.text!r} codes a row differently beside other rows (as  I(x - x.mean())  "
                    "would); expected terms of one row, as a scan has one block of rows at a time.\n"
                    "Write the number itself, or make a column of the files of it."
                )


def itself(block: CodedBlock) -> CodedBlock:
    """Return a block as it is."""
    return block


def first_block(coder: BlockCoder, rows: KeptRows) -> CodedBlock:
    """Code the first rows of the sample, which the first pass has left."""
    return by_place(functools.partial(_coded, coder, rows, 0), rows.places, rows.position)


def _coded(coder: BlockCoder, rows: KeptRows, number: int, which: Any) -> CodedBlock:
    return coder.coded(rows.some(which), number)


def _of_piece(coder: BlockCoder, function: Callable[[CodedBlock], Any], given: tuple[Piece, int]) -> Iterator[Done]:
    """Apply a function to each block of a piece, whose first row has the number that comes with it."""
    number = coder.number(given[1])
    for rows in coder.reader.blocks(*given):
        check_wanted()
        if not rows.n:
            yield Done(0, rows.read, Mark(), None)
            continue
        block = by_place(functools.partial(_coded, coder, rows, number), rows.places, rows.position, OTHER_DATA)
        number += rows.n
        yield Done(rows.n, rows.read, rows.mark, function(block))
