"""Blocks of a scan as numbers: the outcome, both designs, arms and weights of their rows; and where these are kept.

Rows that are kept, in memory or on a disk, are read by later passes from there, so that these read no file and code
nothing. They stand in the order of the data, whatever the files, blocks and workers were that they came from. What is
on a disk is in files that have no name (on Windows one that goes with its process), so that the system frees their room
when the design is gone or the process ends, however it ends; the rows are read through a memory map.
"""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import functools
import itertools
import mmap
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import DTypeLike, NDArray

from causalrisk.design.build import outcome_values
from causalrisk.design.columns.dtypes import plain
from causalrisk.design.encoders import FormulaEncoder
from causalrisk.design.formulas.evaluation import Scope
from causalrisk.design.formulas.terms import codes_of
from causalrisk.design.scan.files import Piece, Place, by_place, name_of, renumbered
from causalrisk.design.scan.levels import ArmLevels, ScannedSurvey
from causalrisk.design.scan.reader import KeptRows, Mark, ScanReader, check_read, numbered, other_rows, where
from causalrisk.errors import DesignError
from causalrisk.numerics.blocks import taken
from causalrisk.numerics.multiplicities import CHUNK
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
    table : DataFrame, optional
        Variables of both models, on these rows and those that trimming left out; not of rows that were kept.
    place : ndarray of int, shape (n,), optional
        Where these rows are in the table.
    R : ndarray, shape (n, r), optional
        Design of the observation model, where outcomes may be missing.
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
    stratum: np.ndarray | None = None
    multiplicities: np.ndarray | None = None
    row: np.ndarray | None = None
    table: pd.DataFrame | None = None
    place: np.ndarray | None = None
    R: np.ndarray | None = None

    @property
    def recorded(self) -> np.ndarray:
        """Which rows have an outcome, bool, shape (n,)."""
        return ~np.isnan(self.y)

    @property
    def variables(self) -> pd.DataFrame:
        """Variables of both models."""
        if self.table is None or self.place is None:
            raise TypeError("rows that were kept have no variables; a pass over the files has")
        return self.table.iloc[self.place]

    def some(self, keep: np.ndarray) -> CodedBlock:
        """Return some of the rows; `keep` is of bool, shape (n,)."""
        names = ("position", "y", "X", "Z", "arm", "weights", "cluster", "offset", "stratum", "multiplicities", "row")
        return taken(self, keep, *names, "place", "R")


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
    strata : Index or None
        The strata of a survey design, in the order of their numbers.
    survey : ScannedSurvey or None
        The survey design.
    unit : float
        What weights are divided by.
    n, read : int
        Rows of the sample and of the data.
    starts, numbers : tuple of int
        Rows of the data, and of the sample, before each piece.
    mark : Mark
        Checksum of the rows of the first pass; later passes have to have the same.
    observed : FormulaEncoder, optional
        Coding of the right-hand side of the observation model.
    """

    reader: ScanReader
    outcome: FormulaEncoder
    propensity: FormulaEncoder
    arms: ArmLevels
    clusters: pd.Index | None
    strata: pd.Index | None
    survey: ScannedSurvey | None
    unit: float
    n: int
    read: int
    starts: tuple[int, ...]
    numbers: tuple[int, ...]
    mark: Mark
    observed: FormulaEncoder | None = None

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
        X, arm = self.outcome.encode(rows.table), self.arms.arms(rows.treat, self.reader.columns.treat)
        return CodedBlock(
            R=self.seen_of(rows.table, arm),
            places=renumbered(rows.places, rows.position, number),
            position=number + np.arange(rows.n),
            y=self.outcome_of(rows, slice(None)),
            X=X,
            Z=X if self.one_design else self.propensity.encode(rows.table),
            arm=arm,
            weights=np.ones(rows.n) if rows.weights is None else rows.weights / self.unit,
            cluster=_numbers(self.clusters, rows.cluster, "cluster"),
            offset=rows.offset,
            stratum=_numbers(self.strata, rows.stratum, "stratum"),
            multiplicities=rows.multiplicities,
            row=rows.position,
            table=rows.table,
            place=np.arange(rows.n),
        )

    def seen_of(self, table: pd.DataFrame, arm: np.ndarray) -> np.ndarray | None:
        """Code the design of the observation model on rows with their arms, shape (n,)."""
        return None if self.observed is None else self.observed.encode(self.with_treatment(table, arm))

    def with_treatment(self, table: pd.DataFrame, arm: np.ndarray) -> pd.DataFrame:
        """Return a table with the treatment by its levels, as the observation model has it."""
        return table.assign(**{self.reader.columns.treat: self.arms.coded(arm)})

    def outcome_of(self, rows: KeptRows, which: slice) -> np.ndarray:
        """Outcome of some rows of a block, NaN where it is missing."""
        left, codes, seen = rows.formulas.left, codes_of(self.reader.outcome), rows.recorded[which]
        y = np.full(len(seen), np.nan)
        if seen.any():
            own = {name: plain(rows.table[name].iloc[which][seen], name, name in codes) for name in left.variables}
            y[seen] = outcome_values(self.reader.outcome, Scope(own, left.constants), int(seen.sum()))
        return y

    def check_by_rows(self, rows: KeptRows) -> None:
        """Raise a DesignError where a formula codes rows differently beside other rows, as with ``x - x.mean()``."""
        whole = self._coded_parts(rows, slice(None))
        for k in np.unique(np.linspace(0, rows.n - 1, TRIED).astype(int)):
            one = slice(k, k + 1)
            try:
                alone = self._coded_parts(rows, one)
            except DesignError:  # such as a division by what is zero for this row
                alone = tuple(np.full_like(part[one], np.nan) for part in whole)
            same = [
                np.isclose(
                    part[one], own, rtol=1e-9, atol=1e-13 * np.nanmax(np.abs(part), axis=0, initial=0), equal_nan=True
                ).all()  # but for rounding of sums
                for part, own in zip(whole, alone, strict=True)
            ]
            if not all(same):
                formula = self.reader.assigned if same[0] and same[2] else self.reader.outcome
                if self.reader.observed is not None and all(same[:3]):
                    formula = self.reader.observed
                raise DesignError(
                    f"the formula {formula.text!r} codes a row differently beside other rows (as  I(x - x.mean())  "
                    "would); expected terms of one row, as a scan has one block of rows at a time.\n"
                    "Write the number itself, or make a column of the files of it."
                )

    def _coded_parts(self, rows: KeptRows, which: slice) -> tuple[np.ndarray, ...]:
        """Both designs, the outcome and the design of the observation model, if there is one, of some rows."""
        table = rows.table[which]
        seen = self.seen_of(table, self.arms.arms(rows.treat[which], self.reader.columns.treat))
        parts = self.outcome.encode(table), self.propensity.encode(table), self.outcome_of(rows, which)
        return parts if seen is None else (*parts, seen)


def _numbers(names: pd.Index | None, values: pd.Series | None, what: str) -> NDArray[np.intp] | None:
    """Return the number of the cluster or stratum of each row, where there are any."""
    if names is None or values is None:
        return None
    found = names.get_indexer(pd.Index(np.asarray(values, dtype=object), dtype=object))
    if (found < 0).any():
        raise DesignError(f"there is a {what} that it did not have.\nMake scan and model anew.")
    return found


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


Step: TypeAlias = Callable[[CodedBlock], CodedBlock]


@dataclass(frozen=True)
class Store:
    """The rows of a sample, coded.

    Parameters
    ----------
    columns : dict of str to ndarray
        Fields of `CodedBlock` for all rows: "y", "X", "arm", "row", and "Z", "weights", "cluster", "offset",
        "stratum", "multiplicities" and "R" where there are any. Without "Z" both designs are one.
    places : list of Place
        Where the rows are from.
    block_rows : int
        Rows of a block at the most.
    """

    columns: dict[str, NDArray[Any]]
    places: list[Place]
    block_rows: int

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self.columns["y"])

    @property
    def nbytes(self) -> float:
        """Bytes of the rows."""
        return float(sum(values.nbytes for values in self.columns.values()))

    def block(self, first: int, stop: int) -> CodedBlock:
        """Return the rows from one number to another, without copying their designs."""
        own = {name: values[first:stop] for name, values in self.columns.items()}
        a = bisect.bisect_right(self.places, first, key=lambda place: place.first) - 1
        b = bisect.bisect_left(self.places, stop, key=lambda place: place.first)
        return CodedBlock(
            places=tuple(self.places[a:b]),
            position=np.arange(first, stop),
            y=own["y"],
            X=own["X"],
            Z=own.get("Z", own["X"]),
            arm=own["arm"],
            weights=own["weights"] if "weights" in own else np.ones(stop - first),
            cluster=own["cluster"].astype(np.intp) if "cluster" in own else None,
            offset=own.get("offset"),
            stratum=own["stratum"].astype(np.intp) if "stratum" in own else None,
            multiplicities=own.get("multiplicities"),
            row=own["row"].astype(np.intp),
            R=own.get("R"),
        )

    def blocks(self) -> Iterator[CodedBlock]:
        """Yield the rows in blocks of about the same size, which begin at multiples of `CHUNK`."""
        most = max(self.block_rows // CHUNK, 1)
        chunks = -(-self.n // CHUNK)
        size = CHUNK * -(-chunks // -(-chunks // most))
        return (self.block(first, min(first + size, self.n)) for first in range(0, self.n, size))

    def over(
        self, function: Callable[[CodedBlock], T], workers: int = 1, passes: PassCounter | None = None
    ) -> Iterator[T]:
        """Begin a pass over the blocks, as `BlockCoder.over`; other processes are sent the arrays of each block."""
        with contextlib.nullcontext(lambda rows: None) if passes is None else passes.begun(self.n) as advance:
            for rows, made in flat_map(functools.partial(_on_block, function), self.blocks(), workers, _where):
                advance(rows)
                yield made


def _where(block: CodedBlock) -> str:
    return name_of(block.places)


def _on_block(function: Callable[[CodedBlock], T], block: CodedBlock) -> Iterator[tuple[int, T]]:
    check_wanted()
    yield len(block.y), function(block)


class _Column:
    """Values of all rows that come one after the other, in memory or in a file without a name.

    Parameters
    ----------
    shape : tuple of int
        Shape of all values.
    dtype : dtype
        Their type.
    folder : str or None
        Folder of the file; None for memory.
    """

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike, folder: str | None) -> None:
        self.shape, self.dtype, self.done = shape, np.dtype(dtype), 0
        # Without a buffer, so that nothing is left to be written when a disk is full.
        self.file = None if folder is None else tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        self.values = np.empty(shape if folder is None else 0, self.dtype)

    def append(self, values: NDArray[Any]) -> None:
        """Add the values of the next rows; those of more rows than were expected are left out."""
        own = np.ascontiguousarray(values[: self.shape[0] - self.done], dtype=self.dtype)
        if self.file is None:
            self.values[self.done : self.done + len(own)] = own
        elif own.size:
            left = own.data.cast("B")
            while left:
                left = left[self.file.write(left) :]
        self.done += len(own)

    def finished(self) -> NDArray[Any]:
        """Return all values, not to be written to."""
        values = self.values
        if self.file is not None and all(self.shape):
            mapped = mmap.mmap(self.file.fileno(), 0, access=mmap.ACCESS_READ)
            values = np.frombuffer(mapped, self.dtype)
        values = values.reshape(self.shape)
        values.flags.writeable = False
        return values


class Writer:
    """Writes the rows of a sample to where they are kept; to be closed.

    Parameters
    ----------
    first : CodedBlock
        The first rows, which tell what there is to keep.
    n, read : int
        Rows of the sample, and of the data.
    weighted : bool
        Whether there are observation weights.
    """

    def __init__(self, first: CodedBlock, n: int, read: int, weighted: bool) -> None:
        self.n, self.weighted = n, weighted
        self.kinds = {name: (values.shape[1:], values.dtype) for name, values in self._values(first).items()}
        short = np.dtype(np.int32 if read < 2**31 else np.int64)
        self.kinds |= {name: ((), short) for name in ("row", "cluster", "stratum") if name in self.kinds}
        self.columns: dict[str, _Column] = {}
        self.places: list[Place] = []
        self.failed: OSError | None = None

    @property
    def nbytes(self) -> float:
        """Bytes of all rows."""
        return float(self.n * sum(kind.itemsize * np.prod(shape) for shape, kind in self.kinds.values()))

    def open(self, folder: str | None) -> None:
        """Begin, in memory or in a folder."""
        with self._noting():
            for name, (shape, kind) in self.kinds.items():
                self.columns[name] = _Column((self.n, *shape), kind, folder)

    def append(self, block: CodedBlock) -> None:
        """Add the next rows; where the disk is full, all are given up."""
        if self.failed is None:
            with self._noting():
                for name, values in self._values(block).items():
                    self.columns[name].append(values)
            self.places += block.places

    def finished(self, block_rows: int) -> Store | None:
        """Return the rows; None where the disk was full."""
        if self.failed is not None:
            return None
        with self._noting():
            return Store({name: column.finished() for name, column in self.columns.items()}, self.places, block_rows)
        return None

    def close(self) -> None:
        """Close the files; rows that are finished stay."""
        for column in self.columns.values():
            if column.file is not None:
                column.file.close()

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        """Note that the disk could not be written to."""
        try:
            yield
        except OSError as error:
            self.failed = error

    def _values(self, block: CodedBlock) -> dict[str, NDArray[Any]]:
        """Return what is kept of some rows."""
        kept = {"y": block.y, "X": block.X, "arm": block.arm, "row": block.row, "offset": block.offset}
        kept |= {"cluster": block.cluster, "stratum": block.stratum, "Z": None if block.Z is block.X else block.Z}
        kept |= {"weights": block.weights if self.weighted else None, "multiplicities": block.multiplicities}
        kept["R"] = block.R
        return {name: values for name, values in kept.items() if values is not None}


@dataclass(frozen=True)
class Columns:
    """Some of the columns of both designs.

    Parameters
    ----------
    outcome, propensity : ndarray of bool, shapes (p,) and (q,)
        The columns.
    observed : ndarray of bool, shape (r,), optional
        Those of the observation model; without them it goes.
    """

    outcome: NDArray[np.bool_]
    propensity: NDArray[np.bool_]
    observed: NDArray[np.bool_] | None = None

    def __call__(self, block: CodedBlock) -> CodedBlock:
        """Return a block with these columns alone."""
        one = block.Z is block.X and np.array_equal(self.outcome, self.propensity)
        X, Z = (
            columns if keep.all() else np.compress(keep, columns, axis=1)
            for columns, keep in ((block.X, self.outcome), (block.Z, self.propensity))
        )
        seen = None if self.observed is None or block.R is None else np.compress(self.observed, block.R, axis=1)
        return dataclasses.replace(block, X=X, Z=X if one else Z, R=seen)


@dataclass(frozen=True)
class Trim:
    """The rows that trimming leaves.

    Parameters
    ----------
    keep : callable
        A block -> which of its rows are left, bool of shape (n,).
    scale : float
        What their observation weights are multiplied by.
    clusters : ndarray of int, shape (G,), optional
        New number of each cluster.
    numbers : dict of int to int, optional
        Number of the first row of each block -> rows left before it. Without these rows keep their numbers.
    """

    keep: Callable[[CodedBlock], NDArray[np.bool_]]
    scale: float = 1.0
    clusters: NDArray[np.intp] | None = None
    numbers: dict[int, int] | None = None

    def __call__(self, block: CodedBlock) -> CodedBlock:
        """Return the rows of a block that are left."""
        left = block.some(self.keep(block))
        cluster = left.cluster if self.clusters is None or left.cluster is None else self.clusters[left.cluster]
        position, places = left.position, block.places
        if self.numbers is not None and len(position):
            first = self.numbers.get(int(block.position[0]), -1)
            if first < 0:
                raise other_rows("a later pass over the data has its rows in other blocks than the first ones")
            position, places = first + np.arange(len(position)), renumbered(places, position, first)
        return dataclasses.replace(
            left, weights=left.weights * self.scale, cluster=cluster, position=position, places=places
        )


@dataclass(frozen=True)
class View:
    """The rows of a sample as passes see them.

    Parameters
    ----------
    source : Store or BlockCoder
        Rows that were kept, or files that every pass reads.
    steps : tuple of callable
        What is done to each block, one after the other.
    """

    source: Store | BlockCoder
    steps: tuple[Step, ...] = ()

    def after(self, *steps: Step) -> View:
        """Return the rows with further steps."""
        return View(self.source, (*self.steps, *steps))

    def over(
        self, function: Callable[[CodedBlock], T], workers: int = 1, passes: PassCounter | None = None
    ) -> Iterator[T]:
        """Begin a pass over the blocks that have rows, as `BlockCoder.over`."""
        work = functools.partial(_after, self.steps, function)
        return itertools.chain.from_iterable(self.source.over(work, workers, passes))

    def blocks(self) -> Iterator[CodedBlock]:
        """Return the blocks that have rows, in this process."""
        return itertools.chain.from_iterable(_after(self.steps, itself, block) for block in self.source.blocks())


def _after(steps: tuple[Step, ...], function: Callable[[CodedBlock], T], block: CodedBlock) -> list[T]:
    """Return what a function makes of a block after some steps; nothing where no row is left."""
    for step in steps:
        block = step(block)
    return [function(block)] if len(block.y) else []
