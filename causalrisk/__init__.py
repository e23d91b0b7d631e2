"""Average treatment effects by importance-weighted risk minimisation."""

from importlib import import_module
from typing import Any

# Public name -> the module that it is imported from when it is first used. Type checkers read `__init__.pyi`.
_HOMES = {
    "__version__": "causalrisk._version",
    "DiD": "causalrisk.design.did",
    "Scan": "causalrisk.design.scan.source",
    "scan": "causalrisk.design.scan.source",
    "Survey": "causalrisk.design.survey",
    "BootstrapError": "causalrisk.errors",
    "CausalRiskError": "causalrisk.errors",
    "CausalRiskWarning": "causalrisk.errors",
    "ConvergenceWarning": "causalrisk.errors",
    "DesignError": "causalrisk.errors",
    "DesignWarning": "causalrisk.errors",
    "LearnerError": "causalrisk.errors",
    "MonteCarloWarning": "causalrisk.errors",
    "OptionError": "causalrisk.errors",
    "OverlapWarning": "causalrisk.errors",
    "ResampleWarning": "causalrisk.errors",
    "SeparationError": "causalrisk.errors",
    "UnavailableError": "causalrisk.errors",
    "ComparisonResults": "causalrisk.models.comparison",
    "compare": "causalrisk.models.comparison",
    "rosenbaum_bounds": "causalrisk.diagnostics.sensitivity",
    "etable": "causalrisk.report.tables.etable",
    "simultaneous": "causalrisk.models.comparison",
    "table_one": "causalrisk.report.tables.table_one",
    "AIPW": "causalrisk.models.estimators",
    "TMLE": "causalrisk.models.estimators",
    "Matching": "causalrisk.models.estimators",
    "LATE": "causalrisk.models.late",
    "LATEResults": "causalrisk.models.late",
    "IPW": "causalrisk.models.estimators",
    "IPWRA": "causalrisk.models.estimators",
    "JRE": "causalrisk.models.estimators",
    "Hajek": "causalrisk.models.estimators",
    "OutcomeRegression": "causalrisk.models.estimators",
    "EventStudy": "causalrisk.models.event_study",
    "event_study": "causalrisk.models.event_study",
    "PermutationTest": "causalrisk.models.permutation",
    "impute": "causalrisk.models.imputation",
    "PooledResults": "causalrisk.models.pooled",
    "pool": "causalrisk.models.pooled",
    "CausalResults": "causalrisk.models.results",
    "JREResults": "causalrisk.models.results",
    "load": "causalrisk.models.results",
    "show_versions": "causalrisk.runtime.system",
}
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
    errors = import_module(f"{__name__}.errors")
    raise errors.UnavailableError(f"{missing}\n{errors.answer('package', name) or errors.near(name, __all__)}".rstrip())
