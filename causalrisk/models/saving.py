"""Results in files: written by `save`, a method of results, and read by `load`."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

from causalrisk.errors import DesignError, UnavailableError
from causalrisk.report.files import write_whole


def save(results: Any, path: str | os.PathLike[str]) -> Path:
    """Write results to a file, which is there whole or not at all.

    Parameters
    ----------
    results : CausalResults
        What `fit` returned.
    path : str or path
        Where to write.

    Returns
    -------
    Path
        Where they are.

    Raises
    ------
    UnavailableError
        If the results hold something that cannot be pickled.
    """
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
    >>> res = IPWRA.from_formula("bweight ~ mage + medu", births, treat="mbsmoke").fit()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     again = load(res.save(f"{folder}/smoking.pickle"))
    >>> again
    IPWRA: ATE -256.86 (24.38), 1 vs 0, n 4642
    """
    try:
        results = pickle.loads(Path(path).read_bytes())
    except (pickle.UnpicklingError, EOFError, UnicodeDecodeError, ValueError, KeyError, IndexError) as error:
        raise DesignError(
            f"{str(path)!r} does not hold saved results ({error}).\nType  res.save({str(path)!r})  to write some."
        ) from error
    if not hasattr(results, "params"):
        raise DesignError(
            f"{str(path)!r} holds a {type(results).__name__}; expected results.\n"
            f"Type  res.save({str(path)!r})  to write some."
        )
    return results
