"""Results in files: `save`, a method of results, and `load`; every pickle of ours begins with the version.

A pickle from a newer version is refused before anything in it is read.
"""

from __future__ import annotations

import os
import pickle
import re
from pathlib import Path
from typing import Any

from causalrisk._version import __version__
from causalrisk.design import ScannedDesign
from causalrisk.errors import CausalRiskError, DesignError, UnavailableError
from causalrisk.runtime.files import would_replace, write_whole

# What reading a pickle may raise, by the objects that it names and how it was cut off.
NO_PICKLE = (pickle.UnpicklingError, ArithmeticError, AttributeError, EOFError, ImportError, LookupError, MemoryError,
             RuntimeError, SyntaxError, TypeError, ValueError)  # fmt: skip


def save(results: Any, path: str | os.PathLike[str]) -> Path:
    """Write results to a file, whole or not at all.

    Parameters
    ----------
    results : CausalResults
        Results of `fit`.
    path : str or path
        Where to write.

    Returns
    -------
    Path
        Path of the file.

    Raises
    ------
    UnavailableError
        If the results hold something that cannot be pickled.
    OptionError
        If the path is a file of the scan that was fitted.
    """
    design = results.model.design
    if isinstance(design, ScannedDesign) and design.reads(os.fspath(path)):
        raise would_replace(f"path={os.fspath(path)!r}", "one of the files of the scan", 'res.save("fit.pickle").')
    try:
        content = pickle.dumps(results)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UnavailableError(
            f"the results hold something that cannot be written: {error}.\n"
            "Define it at the top level of a module (def, not lambda), then fit again."
        ) from error
    return write_whole(path, content)


def load(path: str | os.PathLike[str]) -> Any:
    """Read results that were saved; as with every pickle, only from a file that one trusts.

    Parameters
    ----------
    path : str or path
        The file.

    Returns
    -------
    CausalResults
        The results, with all of their methods.

    Raises
    ------
    DesignError
        If the file does not hold results.

    Examples
    --------
    >>> import tempfile
    >>> from causalrisk import IPWRA, datasets, load
    >>> births = datasets.load_cattaneo2()
    >>> res = IPWRA.from_formula(
    ...     "bweight ~ mage + medu", births, treat="mbsmoke"
    ... ).fit()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     again = load(res.save(f"{folder}/smoking.pickle"))
    >>> again
    IPWRA: ATE -256.86 (24.38), 1 vs 0, n 4642
    """
    content = Path(path).read_bytes()
    try:
        results = pickle.loads(content)
    except CausalRiskError:  # the pickle of a newer version was refused
        raise
    except NO_PICKLE as error:
        raise DesignError(
            f"{str(path)!r} does not hold saved results ({error}).\nType  res.save({str(path)!r})  to write some."
        ) from error
    if not (type(results).__module__.startswith("causalrisk.models.") and hasattr(results, "params")):
        raise DesignError(
            f"{str(path)!r} holds a {type(results).__name__}; expected results.\n"
            f"Type  res.save({str(path)!r})  to write some."
        )
    return results


class Stamp:
    """Version that wrote a pickle; checked on reading, before the content."""

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
        The stamp of this version.

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
    """Make an object from the arguments of `stamped`."""
    made: Any = object.__new__(kind)
    made.__dict__.update(state)
    return made


def stamped(thing: Any) -> tuple[Any, ...]:
    """Return the value of an object's `__reduce__` that lets its pickle begin with the version."""
    return restore, (Stamp(), type(thing), thing.__dict__)


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.match(r"[0-9]+(?:\.[0-9]+)*", version)[0].split("."))  # type: ignore[index]
