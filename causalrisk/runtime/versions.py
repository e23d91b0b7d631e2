"""The versions that a report of a fault needs."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version

from causalrisk._version import __version__

SHOWN = ("numpy", "scipy", "pandas", "patsy", "statsmodels", "matplotlib", "scikit-learn", "pyarrow", "polars")


def show_versions() -> None:
    """Print the versions of Python, the system, this package and what it uses, for a report of a fault.

    Examples
    --------
    >>> from causalrisk import show_versions
    >>> show_versions()
    causalrisk    ...
    Python        ...
    """
    found = {"causalrisk": __version__, "Python": sys.version.split()[0], "system": platform.platform()}
    for name in SHOWN:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    found["threads"] = f"OPENBLAS_NUM_THREADS={os.environ.get('OPENBLAS_NUM_THREADS')}, {os.cpu_count()} processors"
    for name, text in found.items():
        print(f"{name:<13} {text}")
