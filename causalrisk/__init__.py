"""Average treatment effects by importance-weighted risk minimisation."""

import ast
import sys
from importlib import import_module
from importlib.util import find_spec
from pkgutil import get_data
from typing import Any

# Public name -> the module that defines it, for a subpackage this one. The names stand in `__init__.pyi` alone, where
# type checkers find them too; each is imported when it is first used.
_HOMES = {
    alias.name: node.module
    for node in ast.parse(get_data(__name__, "__init__.pyi") or b"").body
    if isinstance(node, ast.ImportFrom)
    for alias in node.names
}
__all__ = sorted(_HOMES)


# `import causalrisk.api` and `import causalrisk.formula.api`, as of statsmodels, give the package itself.
sys.modules.update((f"{__name__}.{name}", sys.modules[__name__]) for name in ("api", "formula", "formula.api"))


def __dir__() -> list[str]:
    return list(__all__)


def __getattr__(name: str) -> Any:
    home, missing = _HOMES.get(name), f"module {__name__!r} has no attribute {name!r}."
    if home not in (None, __name__):
        globals()[name] = getattr(import_module(home), name)
        return globals()[name]
    if name.startswith("_"):
        raise AttributeError(missing)
    if find_spec(f"{__name__}.{name}"):
        return import_module(f"{__name__}.{name}")
    if name.startswith("load_"):
        missing += f"\nUse `causalrisk.datasets.{name}()`."
    aliases = import_module(f"{__name__}.errors.aliases")
    raise AttributeError(f"{missing}\n{aliases.answer('package', name) or aliases.near(name, __all__)}".rstrip())
