"""Rows some at a time: chunks of Dask arrays, and sums over parts of the rows."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np

from causalrisk.numerics.linalg import Array

T = TypeVar("T")


def is_dask(array: Any) -> bool:
    """Whether rows are beyond memory."""
    return hasattr(array, "compute")


def totals(arrays: Iterable[Any]) -> list[Any]:
    """Return arrays in memory."""
    found = list(arrays)
    if any(map(is_dask, found)):
        import dask

        found = [*dask.compute(*found)]
    return found


def loaded(array: Any) -> Any:
    """Return an array in memory."""
    return array.compute() if is_dask(array) else array


def chunk_sizes(rows: Any) -> tuple[int, ...]:
    """Return the numbers of rows of the chunks of a Dask array."""
    return tuple(rows.chunks[0])


def chunks_of(rows: Any) -> list[Any]:
    """Return the chunks of rows of a Dask array, delayed."""
    return list(rows.rechunk({axis: -1 for axis in range(1, rows.ndim)}).to_delayed().ravel())


def in_chunks(function: Callable[..., T], chunks: Sequence[Any], *given: Any) -> list[T]:
    """Return what a function finds of each of some delayed objects, and the same chunks of Dask arrays among others."""
    import dask

    return list(dask.compute(*_delayed(function, chunks, *given)))


def lazy_rows(
    function: Callable[..., Array], chunks: Sequence[Any], shapes: Sequence[tuple[int, ...]], *given: Any
) -> Any:
    """Return what a function finds of the rows of each chunk, as in `in_chunks`, as a Dask array."""
    import dask.array as da

    parts = _delayed(function, chunks, *given)
    return da.concatenate([da.from_delayed(*each, float) for each in zip(parts, shapes, strict=True)])


def _delayed(function: Callable[..., Any], chunks: Sequence[Any], *given: Any) -> list[Any]:
    import dask

    work = dask.delayed(functools.partial(_quietly, function), pure=False)
    columns = [chunks_of(each) if is_dask(each) else [each] * len(chunks) for each in given]
    return [work(*each) for each in zip(chunks, *columns, strict=True)]


def _quietly(function: Callable[..., T], *given: Any) -> T:
    with np.errstate(all="ignore"):  # threads do not know of the caller's
        return function(*given)


def add_up(parts: Iterable[T]) -> T:
    """Add up what blocks of rows give, one at least: arrays, or tuples, lists or dictionaries of these.

    What has a method `beside` merges with that of later rows by it.
    """
    return functools.reduce(_added, parts)


def _added(first: Any, second: Any) -> Any:
    if isinstance(first, tuple | list):
        return type(first)(_added(a, b) for a, b in zip(first, second, strict=True))
    if isinstance(first, dict):
        return {key: _added(value, second[key]) for key, value in first.items()}
    return first.beside(second) if hasattr(first, "beside") else first + second


def taken(record: T, which: Any, *names: str) -> T:
    """Return a record with some of the rows of the named arrays; None stays, and two that are one array stay one."""
    found: dict[int, Any] = {id(None): None}
    for name in names:
        array = getattr(record, name)
        if id(array) not in found:
            found[id(array)] = array[which]
    return dataclasses.replace(record, **{name: found[id(getattr(record, name))] for name in names})  # type: ignore[type-var]
