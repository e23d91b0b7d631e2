"""Pickles of models and results: each says first which version wrote it, and one from a newer version is refused."""

from __future__ import annotations

import re
from typing import Any

from causalrisk._version import __version__
from causalrisk.errors import CausalRiskError


class Stamp:
    """The version that wrote a pickle; it is checked when it is read, before anything that comes after it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return read_stamp, (__version__,)

    def __deepcopy__(self, memo: Any) -> Stamp:
        return self


def read_stamp(version: str) -> Stamp:
    """Refuse a pickle of a newer version.

    Parameters
    ----------
    version : str
        The version that wrote it.

    Returns
    -------
    Stamp
        That of this version.

    Raises
    ------
    CausalRiskError
        If the version is newer than this one.
    """
    if _release(version) > _release(__version__):
        raise CausalRiskError(
            f"the pickle was written by causalrisk {version}; this is causalrisk {__version__}, which cannot know what "
            f"is in it.\nType  pip install 'causalrisk>={version}'."
        )
    return Stamp()


def restore(stamp: Stamp, kind: type, state: dict[str, Any]) -> Any:
    """Make an object from what `stamped` wrote."""
    made: Any = object.__new__(kind)
    made.__dict__.update(state)
    return made


def stamped(thing: Any) -> tuple[Any, ...]:
    """Return what `__reduce__` of an object is to return, so that its pickle begins with the version."""
    return restore, (Stamp(), type(thing), thing.__dict__)


def _release(version: str) -> tuple[int, ...]:
    """Numbers of a version, without what makes it a preliminary one."""
    return tuple(int(part) for part in re.match(r"[0-9]+(?:\.[0-9]+)*", version)[0].split("."))  # type: ignore[index]
