"""Records of a fit to a scan: as those of a fit in memory, less what goes by rows."""

from __future__ import annotations

import dataclasses
from typing import Any

from causalrisk.errors import UnavailableError


def unit_level() -> UnavailableError:
    """Make the error of what a fit says of every row, which can be written to a file."""
    return UnavailableError(
        "that is a number for each row, and the model was made from a scan, whose rows are not kept in memory.\n"
        'Type  res.write_units("units.parquet")  to have it in a file; or, if the rows fit into memory, make the model '
        "anew with  data=data.collect()."
    )


def by_rows(what: str = "that", instead: str = "") -> UnavailableError:
    """Make the error of what goes by rows that were not kept; it may say what else to type."""
    return UnavailableError(
        f"{what} goes by rows, and the model was made from a scan, whose rows are not kept in memory.\n"
        f"{instead}If they fit into memory, make the model anew: type  data=data.collect()."
    )


class Rowless:
    """Mixin of a frozen record whose fields that go by rows were not kept: to ask for one is an UnavailableError.

    Parameters
    ----------
    **known
        The fields that were kept, and others of the subclass.
    """

    def __init__(self, **known: Any) -> None:
        self.__dict__.update(known)

    def __getattr__(self, name: str) -> Any:
        fields = {field.name for field in dataclasses.fields(self)}  # type: ignore[arg-type]
        if name not in fields and not hasattr(type(self), name):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        made = getattr(type(self), name, None)
        if isinstance(made, property) and made.fget is not None:
            return made.fget(self)  # its own error, in whose place Python asks here
        raise by_rows()

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.__getstate__())

    def __getstate__(self) -> dict[str, Any]:
        return dict(self.__dict__)

    def __deepcopy__(self, memo: Any) -> Any:
        return self  # nothing in it changes


def _restore(kind: type, state: dict[str, Any]) -> Any:
    made: Any = object.__new__(kind)
    made.__dict__.update(state)
    return made
