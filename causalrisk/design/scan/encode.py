"""Blocks of a scan as numbers: the outcome, both designs, arms and weights of their rows; and the rows that are kept.

Rows are kept in memory, or in a temporary file where they would take much of it. The file has no name (on Windows it
goes with its process), so the system frees its room when the design is gone or the process ends.
"""

from __future__ import annotations

import dataclasses
import itertools
import mmap
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalrisk.design.build import outcome_values
from causalrisk.design.encoders import FormulaEncoder
from causalrisk.design.formulas.evaluation import Scope
from causalrisk.design.scan.files import Place, naming
from causalrisk.design.scan.reader import KeptRows, PassCounter, ScanReader
from causalrisk.design.survey import SurveyDesign
from causalrisk.design.treatment import Arms, treatment_levels
from causalrisk.errors import DesignError
from causalrisk.numerics.blocks import taken
from causalrisk.runtime.system import free_memory
from causalrisk.runtime.workers import flat_map

T = TypeVar("T")
TRIED = 9  # rows that are coded by themselves, to see whether a formula goes by rows
OF_MEMORY = 0.25  # share of the free memory that kept rows may take


@dataclass(frozen=True)
class CodedBlock:
    """The rows of a block that are in the sample.

    Parameters
    ----------
    places : tuple of Place
        Where the rows of the block are from, numbered as they are.
    position : ndarray of int, shape (n,)
        Number of each row among those of the sample, in the order of the data; as it is read, among all rows.
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
    size : tuple of int
        Rows of the data and of the sample.
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
    size: tuple[int, int]
    observed: FormulaEncoder | None = None

    @property
    def one_design(self) -> bool:
        """Whether both right-hand sides are the same, and the columns that are left of them."""
        same = self.reader.outcome.right_text == self.reader.assigned.right_text
        return same and self.outcome.names == self.propensity.names

    def blocks(self) -> Iterator[CodedBlock]:
        """Read and code the blocks that have rows in the sample."""
        for rows in self.reader.blocks(self.size):
            if rows.n:
                with naming(rows.place.name):
                    block = self.coded(rows)
                yield block

    def coded(self, rows: KeptRows) -> CodedBlock:
        """Code some rows."""
        X, name, left = self.outcome.encode(rows.table), self.reader.columns.treat, rows.formulas.left
        arm = self.arms.arm_of(*treatment_levels(rows.treat, name), name)
        outcome = Scope({name: rows.table[name] for name in left.variables}, left.constants)
        return CodedBlock(
            R=None if self.observed is None else self.observed.encode(self.with_treatment(rows.table, arm)),
            places=(rows.place,),
            position=rows.position,
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
        if all(code.isidentifier() for model in rows.formulas.models for code in model.codes()):
            return
        whole = _parts(self.coded(rows))
        for k in np.unique(np.linspace(0, rows.n - 1, TRIED).astype(int)):
            one = slice(k, k + 1)
            try:
                alone = _parts(self.coded(rows.some(one)))
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
                    f"the formula {formula.text!r} codes a row differently beside other rows, as `I(x - x.mean())` "
                    "would; a scan has one block of rows at a time.\nWrite the number itself, or a column to the files."
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
        raise DesignError(f"there is a {what} that the first pass did not find.\nMake scan and model anew.")
    return found


Step: TypeAlias = Callable[[CodedBlock], CodedBlock]
ROWS = tuple(field.name for field in dataclasses.fields(CodedBlock) if field.name not in ("places", "table", "place"))


def keep_rows(blocks: Iterable[CodedBlock], n: int, block_rows: int) -> list[CodedBlock]:
    """Collect the n rows of a sample, numbered one after the other, in memory or in a temporary file.

    Small blocks are joined to blocks of up to `block_rows` rows.
    """
    coming = _joined(_numbered(blocks), block_rows)
    first = next(coming)
    nbytes = n / len(first.y) * sum(values.nbytes for values in _arrays(first).values())
    every = itertools.chain([first], coming)
    return list(every) if nbytes <= OF_MEMORY * free_memory() else _on_disk(every, nbytes)


def _numbered(blocks: Iterable[CodedBlock]) -> Iterator[CodedBlock]:
    """Count the rows, and those of their places, one after the other."""
    first = 0
    for block in blocks:
        limits = [(place.first, place.first + place.n) for place in block.places]
        edges = np.searchsorted(block.position, limits).tolist()
        places = (Place(place.name, first + a, b - a) for place, (a, b) in zip(block.places, edges, strict=True))
        position = first + np.arange(len(block.y))
        yield dataclasses.replace(block, places=tuple(places), position=position, table=None, place=None)
        first += len(block.y)


def _joined(blocks: Iterable[CodedBlock], block_rows: int) -> Iterator[CodedBlock]:
    """Join blocks as long as they have no more than so many rows."""
    waiting, rows = list[CodedBlock](), 0
    for block in blocks:
        if waiting and rows + len(block.y) > block_rows:
            yield _one(waiting)
            waiting, rows = [], 0
        waiting.append(block)
        rows += len(block.y)
    yield _one(waiting)


def _one(blocks: list[CodedBlock]) -> CodedBlock:
    """Put blocks one below the other."""
    first, every = blocks[0], [_arrays(block) for block in blocks]
    if len(blocks) == 1:
        return first
    joined = {name: np.concatenate([arrays[name] for arrays in every]) for name in every[0]}
    places = tuple(itertools.chain.from_iterable(block.places for block in blocks))
    return dataclasses.replace(first, places=places, **{"Z": joined["X"], **joined})


def _arrays(block: CodedBlock) -> dict[str, NDArray[Any]]:
    """Return the arrays of a block by their fields; without Z where both designs are one."""
    names = [name for name in ROWS if name != "Z" or block.Z is not block.X]
    return {name: getattr(block, name) for name in names if getattr(block, name) is not None}


def _on_disk(blocks: Iterable[CodedBlock], nbytes: float) -> list[CodedBlock]:
    """Write blocks to a temporary file, and return them with their arrays mapped from there."""
    folder = tempfile.gettempdir()
    written = list[tuple[tuple[Place, ...], dict[str, tuple[int, tuple[int, ...], Any]]]]()
    try:
        if shutil.disk_usage(folder).free < nbytes:
            raise OSError("it has too little room")
        with tempfile.TemporaryFile(dir=folder) as file:
            for block in blocks:
                spec = {}
                for name, values in _arrays(block).items():
                    spec[name] = file.tell(), values.shape, values.dtype
                    file.write(np.ascontiguousarray(values).data)
                written.append((block.places, spec))
            file.flush()
            mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise DesignError(
            f"the coded rows take {nbytes / 1e9:,.3g} GB, more than a quarter of the free memory, and the folder of "
            f"temporary files, {folder!r}, cannot hold them: {error}.\n"
            "Set the environment variable TMPDIR to a folder on a disk that has the room."
        ) from error
    found = []
    for places, spec in written:
        arrays = {
            name: np.frombuffer(mapped, kind, int(np.prod(shape)), start).reshape(shape)
            for name, (start, shape, kind) in spec.items()
        }
        found.append(CodedBlock(places=places, **{"Z": arrays["X"], **arrays}))
    return found


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
    keep: Callable[[CodedBlock], NDArray[np.bool_]], scale: float, clusters: NDArray[np.intp] | None, block: CodedBlock
) -> CodedBlock:
    """Return the rows of a block that trimming leaves: those that `keep` marks.

    Their observation weights are multiplied by `scale`, and `clusters` has the new number of each cluster.
    """
    left = block.some(keep(block))
    cluster = left.cluster if clusters is None or left.cluster is None else clusters[left.cluster]
    return dataclasses.replace(left, weights=left.weights * scale, cluster=cluster)


@dataclass(frozen=True)
class View:
    """The rows of a sample as passes see them.

    Parameters
    ----------
    source : list of CodedBlock, or BlockCoder
        Rows that are kept, or files that every pass reads.
    n : int
        How many rows there are.
    steps : tuple of callable
        What is done to each block, one after the other.
    """

    source: list[CodedBlock] | BlockCoder
    n: int
    steps: tuple[Step, ...] = ()

    def after(self, *steps: Step) -> View:
        """Return the rows with further steps."""
        return View(self.source, self.n, (*self.steps, *steps))

    def over(
        self, function: Callable[[CodedBlock], T], workers: int = 1, passes: PassCounter | None = None
    ) -> Iterator[T]:
        """Begin a pass: yield what a function makes of each block that has rows, in their order.

        `workers` blocks are worked on at a time, as by `flat_map`; `passes` shows how far the pass is.
        """
        with nullcontext(lambda rows: None) if passes is None else passes.begun(self.n) as advance:
            for rows, made in flat_map(partial(_after, self.steps, function), self._read(), workers):
                advance(rows)
                yield from made

    def blocks(self) -> Iterator[CodedBlock]:
        """Yield the blocks that have rows, in this process."""
        for block in self._read():
            for _, made in _after(self.steps, itself, block):
                yield from made

    def _read(self) -> Iterable[CodedBlock]:
        return self.source.blocks() if isinstance(self.source, BlockCoder) else self.source


def itself(block: CodedBlock) -> CodedBlock:
    """Return a block as it is."""
    return block


def _after(
    steps: tuple[Step, ...], function: Callable[[CodedBlock], T], block: CodedBlock
) -> Iterator[tuple[int, list[T]]]:
    """Return the rows of a block, and what a function makes of it after some steps; nothing where no row is left."""
    rows = len(block.y)
    for step in steps:
        block = step(block)
    yield rows, [function(block)] if len(block.y) else []
