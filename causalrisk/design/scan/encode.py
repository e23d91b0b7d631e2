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
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import DTypeLike, NDArray

from causalrisk.design.build import outcome_values
from causalrisk.design.encoders import FormulaEncoder
from causalrisk.design.formulas.evaluation import Scope
from causalrisk.design.scan.files import Place, by_place, name_of, renumbered
from causalrisk.design.scan.reader import Extent, KeptRows, PassCounter, ScanReader, other_rows
from causalrisk.design.survey import SurveyDesign
from causalrisk.design.treatment import Arms, treatment_levels
from causalrisk.errors import DesignError
from causalrisk.numerics.blocks import taken
from causalrisk.numerics.multiplicities import CHUNK
from causalrisk.runtime.workers import flat_map

T = TypeVar("T")
TRIED = 9  # rows that are coded by themselves, to see whether a formula goes by rows
OTHER_DATA = "the data are not those of the first pass: "
NUMBERS = ("row", "cluster", "stratum")  # fields of numbers, which are kept in four bytes where these hold them
KEPT = ("y", "X", "arm", *NUMBERS, "offset", "multiplicities", "R")  # and Z and the weights, where they are others


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
    cluster: np.ndarray | None = None
    offset: np.ndarray | None = None
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
        return taken(self, keep, *(of.name for of in dataclasses.fields(self) if of.name not in ("places", "table")))


@dataclass(frozen=True)
class BlockCoder:
    """Codes the blocks of a scan, every pass in the same way.

    Parameters
    ----------
    reader : ScanReader
        The data.
    outcome, propensity : FormulaEncoder
        Coding of both right-hand sides.
    arms : Arms
        Coding of the treatment.
    clusters : Index or None
        The clusters, in the order of their numbers.
    strata : Index or None
        The strata of a survey design, in the order of their numbers.
    survey : SurveyDesign or None
        The survey design.
    unit : float
        What weights are divided by.
    extent : Extent
        What the first pass has read.
    observed : FormulaEncoder, optional
        Coding of the right-hand side of the observation model.
    """

    reader: ScanReader
    outcome: FormulaEncoder
    propensity: FormulaEncoder
    arms: Arms
    clusters: pd.Index | None
    strata: pd.Index | None
    survey: SurveyDesign | None
    unit: float
    extent: Extent
    observed: FormulaEncoder | None = None

    @property
    def one_design(self) -> bool:
        """Whether both right-hand sides are the same, and the columns that are left of them."""
        same = self.reader.outcome.right_text == self.reader.assigned.right_text
        return same and self.outcome.names == self.propensity.names

    def over(
        self, function: Callable[[CodedBlock], T], workers: int = 1, passes: PassCounter | None = None
    ) -> Iterator[T]:
        """Begin a pass over the blocks that have rows in the sample, as `Extent.over`."""
        sent = dataclasses.replace(self, reader=self.reader.without_data())
        return self.extent.over(self.reader, functools.partial(_made_of, sent, function), workers, passes)

    def blocks(self) -> Iterator[CodedBlock]:
        """Read and code the blocks in this process."""
        return self.extent.blocks(self.reader, functools.partial(_made_of, self, itself))

    def coded(self, rows: KeptRows, number: int) -> CodedBlock:
        """Code some rows, the first of which has the given number in the sample."""
        X, name, left = self.outcome.encode(rows.table), self.reader.columns.treat, rows.formulas.left
        arm = self.arms.arm_of(*treatment_levels(rows.treat, name), name)
        outcome = Scope({name: rows.table[name] for name in left.variables}, left.constants)
        return CodedBlock(
            R=None if self.observed is None else self.observed.encode(self.with_treatment(rows.table, arm)),
            places=renumbered(rows.places, rows.position, number),
            position=number + np.arange(rows.n),
            y=outcome_values(self.reader.outcome, outcome, rows.recorded),
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

    def with_treatment(self, table: pd.DataFrame, arm: np.ndarray) -> pd.DataFrame:
        """Return a table with the treatment by its levels, as the observation model has it."""
        return table.assign(**{self.reader.columns.treat: self.arms.coded(arm)})

    def check_by_rows(self, rows: KeptRows) -> None:
        """Raise a DesignError where a formula codes rows differently beside other rows, as with ``x - x.mean()``.

        Columns and their categories are those of a row, whatever stands beside it.
        """
        if not any(model.computes for model in rows.formulas.models):
            return
        whole = _parts(self.coded(rows, 0))
        for k in np.unique(np.linspace(0, rows.n - 1, TRIED).astype(int)):
            one = slice(k, k + 1)
            try:
                alone = _parts(self.coded(rows.some(one), 0))
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


def _parts(block: CodedBlock) -> tuple[np.ndarray, ...]:
    """Both designs, the outcome and the design of the observation model, if there is one."""
    return (block.X, block.Z, block.y, *(() if block.R is None else (block.R,)))


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


def coded_block(coder: BlockCoder, rows: KeptRows, number: int = 0, why: str = "") -> CodedBlock:
    """Code the rows of a block, of which the first has a number in the sample; `why` as by `by_place`."""
    return by_place(lambda which: coder.coded(rows.some(which), number), rows.places, rows.position, why)


def _made_of(coder: BlockCoder, function: Callable[[CodedBlock], T], rows: KeptRows, number: int) -> T:
    return function(coded_block(coder, rows, number, OTHER_DATA))


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
        own |= {name: own[name].astype(np.intp) for name in NUMBERS if name in own}
        a = bisect.bisect_right(self.places, first, key=lambda place: place.first) - 1
        b = bisect.bisect_left(self.places, stop, key=lambda place: place.first)
        given = {"Z": own["X"], "weights": np.ones(stop - first), **own}
        return CodedBlock(places=tuple(self.places[a:b]), position=np.arange(first, stop), **given)

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
        with nullcontext(lambda rows: None) if passes is None else passes.begun(self.n) as advance:
            for rows, made in flat_map(functools.partial(_on_block, function), self.blocks(), workers, _where):
                advance(rows)
                yield made


def _where(block: CodedBlock) -> str:
    return name_of(block.places)


def _on_block(function: Callable[[CodedBlock], T], block: CodedBlock) -> Iterator[tuple[int, T]]:
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
        self.kinds |= {name: ((), short) for name in NUMBERS if name in self.kinds}
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
        others = {"Z": block.Z is not block.X, "weights": self.weighted}
        names = (*KEPT, *(name for name, differs in others.items() if differs))
        return {name: values for name in names if (values := getattr(block, name)) is not None}


def of_columns(
    outcome: NDArray[np.bool_], propensity: NDArray[np.bool_], observed: NDArray[np.bool_] | None, block: CodedBlock
) -> CodedBlock:
    """Return a block with some of the columns of the designs, as marked; without marks the observation model goes."""
    one = block.Z is block.X and np.array_equal(outcome, propensity)
    X, Z = (
        columns if keep.all() else np.compress(keep, columns, axis=1)
        for columns, keep in ((block.X, outcome), (block.Z, propensity))
    )
    seen = None if observed is None or block.R is None else np.compress(observed, block.R, axis=1)
    return dataclasses.replace(block, X=X, Z=X if one else Z, R=seen)


def rows_left(
    keep: Callable[[CodedBlock], NDArray[np.bool_]],
    scale: float,
    clusters: NDArray[np.intp] | None,
    numbers: dict[int, int] | None,
    block: CodedBlock,
) -> CodedBlock:
    """Return the rows of a block that trimming leaves.

    Parameters
    ----------
    keep : callable
        A block -> which of its rows are left, bool of shape (n,).
    scale : float
        What their observation weights are multiplied by.
    clusters : ndarray of int, shape (G,), or None
        New number of each cluster.
    numbers : dict of int to int, or None
        Number of the first row of each block -> rows left before it. Without these rows keep their numbers.
    block : CodedBlock
        The block.
    """
    left = block.some(keep(block))
    cluster = left.cluster if clusters is None or left.cluster is None else clusters[left.cluster]
    left = dataclasses.replace(left, weights=left.weights * scale, cluster=cluster)
    if numbers is None or not len(left.position):
        return left
    first = numbers.get(int(block.position[0]), -1)
    if first < 0:
        raise other_rows("a later pass over the data has its rows in other blocks than the first ones")
    places, position = renumbered(block.places, left.position, first), first + np.arange(len(left.position))
    return dataclasses.replace(left, places=places, position=position)


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
