"""Versions of what computed a result."""

from __future__ import annotations

import platform
from importlib.metadata import version

from causalrisk._version import __version__

LIBRARIES = ("numpy", "scipy", "pandas", "patsy", "statsmodels")


def versions_text() -> str:
    """Return the versions of the package, of Python and of the libraries."""
    found = [f"{name} {version(name)}" for name in LIBRARIES]
    return f"causalrisk {__version__}, Python {platform.python_version()}, {', '.join(found)}"
