"""Blocks of rows: passes over them, and sums of what a function leaves of each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")
KEPT = 2**27  # bytes that are kept between passes


class Sized(Protocol):
    """What takes memory."""

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""


S = TypeVar("S", bound=Sized)


class Passes(Generic[S]):
    """Passes over blocks of rows, each made when its turn comes, and kept for the next pass where all take few bytes.

    Parameters
    ----------
    places : list of slice
        The rows of each block.
    """

    def __init__(self, places: list[slice]) -> None:
        self.places = places
        self._kept: list[tuple[slice, S]] = []

    def begin(self, make: Callable[[slice], S]) -> Iterator[tuple[slice, S]]:
        """Begin a pass: rows, and what is made of them, the same in every pass."""
        if self._kept:
            yield from self._kept
            return
        made, n = [], self.places[-1].stop
        for place in self.places:
            block = place, make(place)
            if block[1].nbytes * n <= KEPT * (place.stop - place.start):
                made.append(block)
            yield block
        if len(made) == len(self.places):
            self._kept = made


def add_up(parts: Iterable[T]) -> T:
    """Add up records of sums over the rows of a block.

    Parameters
    ----------
    parts : iterable
        One a block and at least one: arrays, or tuples or dataclasses of these; None is no sum in every block.

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
    if isinstance(first, tuple):
        return tuple(_added(a, b) for a, b in zip(first, second, strict=True))
    if dataclasses.is_dataclass(first) and not isinstance(first, type):
        names = [field.name for field in dataclasses.fields(first)]
        return dataclasses.replace(first, **{n: _added(getattr(first, n), getattr(second, n)) for n in names})
    return first + second
