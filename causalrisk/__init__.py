"""Average treatment effects by importance-weighted risk minimisation."""

from importlib import import_module
from typing import Any

# The public names of each module, which is imported when one of them is first used. Type checkers read `__init__.pyi`.
_NAMES = {
    "_version": "__version__",
    "design.did": "DiD",
    "design.scan": "Scan scan",
    "design.survey": "Survey",
    "diagnostics.sensitivity": "rosenbaum_bounds",
    "errors": (
        "BootstrapError CausalRiskError CausalRiskWarning ConvergenceWarning DesignError DesignWarning "
        "LearnerError OptionError OverlapWarning ResampleWarning SeparationError UnavailableError"
    ),
    "models.comparison": "ComparisonResults compare simultaneous",
    "models.estimators": "AIPW Hajek IPW IPWRA JRE Matching OutcomeRegression TMLE Unadjusted",
    "models.event_study": "EventStudy event_study",
    "models.late": "LATE LATEResults",
    "models.permutation": "PermutationTest",
    "models.pooled": "PooledResults pool",
    "models.results": "CausalResults JREResults load",
    "report.etable": "etable",
    "report.table_one": "table_one",
}
_HOMES = {name: f"causalrisk.{module}" for module, names in _NAMES.items() for name in names.split()}
_SUBPACKAGES = ("datasets", "simulation")
__all__ = sorted([*_HOMES, *_SUBPACKAGES])


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    if name in _SUBPACKAGES:
        return import_module(f"{__name__}.{name}")
    if name in _HOMES:
        globals()[name] = getattr(import_module(_HOMES[name]), name)
        return globals()[name]
    missing = f"module {__name__!r} has no attribute {name!r}."
    if name.startswith("_"):
        raise AttributeError(missing)
    if name.startswith("load_"):
        missing += f"\nUse `causalrisk.datasets.{name}()`."
    errors, aliases = (import_module(f"{__name__}.{module}") for module in ("errors", "errors.aliases"))
    advice = aliases.answer("package", name) or aliases.near(name, __all__)
    raise errors.UnavailableError(f"{missing}\n{advice}".rstrip())
