"""Coded rows of a scan, kept in memory or on a disk, so that later passes read no file and code nothing.

The rows stand in the order of the data, whatever the files, blocks and workers were that they came from. What is on a
disk is in files that have no name (on Windows one that goes with its process), so that the system frees their room
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
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from causalrisk.design.scan.chunks import Place, name_of, renumbered
from causalrisk.design.scan.encode import BlockCoder, CodedBlock, PassCounter, itself
from causalrisk.design.scan.reader import other_rows
from causalrisk.numerics.multiplicities import CHUNK
from causalrisk.runtime.workers import check_wanted, flat_map

T = TypeVar("T")
Step: TypeAlias = Callable[[CodedBlock], CodedBlock]


@dataclass(frozen=True)
class Store:
    """The rows of a sample, coded.

    Parameters
    ----------
    columns : dict of str to ndarray
        Fields of `CodedBlock` for all rows: "y", "X", "arm", "row", and "Z", "weights", "cluster" and "offset" where
        there are any. Without "Z" both designs are one.
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
            row=own["row"].astype(np.intp),
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
        self.kinds |= {name: ((), short) for name in ("row", "cluster") if name in self.kinds}
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
        kept |= {"cluster": block.cluster, "Z": None if block.Z is block.X else block.Z}
        kept |= {"weights": block.weights if self.weighted else None}
        return {name: values for name, values in kept.items() if values is not None}


@dataclass(frozen=True)
class Columns:
    """Some of the columns of both designs.

    Parameters
    ----------
    outcome, propensity : ndarray of bool, shapes (p,) and (q,)
        The columns.
    """

    outcome: NDArray[np.bool_]
    propensity: NDArray[np.bool_]

    def __call__(self, block: CodedBlock) -> CodedBlock:
        """Return a block with these columns alone."""
        one = block.Z is block.X and np.array_equal(self.outcome, self.propensity)
        X, Z = (
            columns if keep.all() else np.compress(keep, columns, axis=1)
            for columns, keep in ((block.X, self.outcome), (block.Z, self.propensity))
        )
        return dataclasses.replace(block, X=X, Z=X if one else Z)


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
