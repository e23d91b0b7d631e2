"""Blocks of rows: some rows of a record, and sums over blocks of what a function leaves of each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
Rows = slice | NDArray[np.intp]  # which rows
KEPT = 2**27  # bytes that are kept between passes
GOLDEN = (np.sqrt(5) - 1) / 2


def add_up(parts: Iterable[T]) -> T:
    """Add up records of sums over the rows of a block.

    Parameters
    ----------
    parts : iterable
        One a block and at least one: arrays, or tuples, lists, dictionaries or dataclasses of these, or what has a
        method `beside` that merges it with that of later rows; None is no sum in every block.

    Returns
    -------
    object
        The sums over all rows.
    """
    every = iter(parts)
    total = next(every)
    for part in every:
        total = _added(total, part)
    return total


def _added(first: Any, second: Any) -> Any:
    if first is None:
        return None
    if isinstance(first, tuple | list):
        return type(first)(_added(a, b) for a, b in zip(first, second, strict=True))
    if isinstance(first, dict):
        return {key: _added(value, second[key]) for key, value in first.items()}
    if hasattr(first, "beside"):
        return first.beside(second)
    if dataclasses.is_dataclass(first) and not isinstance(first, type):
        names = [field.name for field in dataclasses.fields(first)]
        return dataclasses.replace(first, **{n: _added(getattr(first, n), getattr(second, n)) for n in names})
    return first + second


def of_made(function: Callable[[Any], T], make: Callable[[Any], Any], block: Any) -> T:
    """Apply a function to what is made of a block; at the top of a module, so that workers can import it."""
    return function(make(block))


def taken(record: T, which: Any, *names: str) -> T:
    """Return a record with some of the rows of its arrays.

    Parameters
    ----------
    record : dataclass
        The record.
    which : slice, or ndarray of bool or int
        The rows.
    *names : str
        The fields that go by rows; None stays None, and two that are one array stay one.
    """
    found: dict[int, Any] = {id(None): None}
    for name in names:
        array = getattr(record, name)
        if id(array) not in found:
            found[id(array)] = array[which]
    return dataclasses.replace(record, **{name: found[id(getattr(record, name))] for name in names})  # type: ignore[type-var]


def spread_evenly(numbers: NDArray[np.intp], share: float) -> NDArray[np.intp]:
    """Where a share of rows stand, by their numbers in the sample: those whose multiples of the golden ratio end low.

    Of any stretch of rows it takes that share, and no period of the rows is one of its own.
    """
    return np.flatnonzero((numbers * GOLDEN) % 1.0 < share)
