"""Average treatment effects by importance-weighted risk minimisation."""

from typing import Any

from causalrisk import datasets, hle, simulation
from causalrisk._version import __version__
from causalrisk.design.scan.source import Scan, scan
from causalrisk.errors import (
    BootstrapError,
    CausalRiskError,
    CausalRiskWarning,
    ConvergenceWarning,
    DesignError,
    DesignWarning,
    FitInterrupted,
    MonteCarloWarning,
    OptionError,
    OverlapWarning,
    ResampleWarning,
    SeparationError,
    UnavailableError,
)
from causalrisk.models.comparison import ComparisonResults, compare
from causalrisk.models.keywords import OF_TABLES, check_keywords, unknown_name
from causalrisk.models.model import AIPW, IPW, IPWRA, JRE, Hajek, OutcomeRegression
from causalrisk.models.pooled import PooledResults, pool
from causalrisk.models.results import CausalResults, JREResults
from causalrisk.models.saving import load
from causalrisk.report.etable import etable
from causalrisk.report.table_one import table_one

__all__ = [
    "AIPW",
    "IPW",
    "IPWRA",
    "JRE",
    "BootstrapError",
    "CausalResults",
    "CausalRiskError",
    "CausalRiskWarning",
    "ComparisonResults",
    "ConvergenceWarning",
    "DesignError",
    "DesignWarning",
    "FitInterrupted",
    "Hajek",
    "JREResults",
    "MonteCarloWarning",
    "OptionError",
    "OutcomeRegression",
    "OverlapWarning",
    "PooledResults",
    "ResampleWarning",
    "Scan",
    "SeparationError",
    "UnavailableError",
    "__version__",
    "compare",
    "datasets",
    "etable",
    "hle",
    "load",
    "pool",
    "scan",
    "simulation",
    "table_one",
]


etable = check_keywords(OF_TABLES)(etable)
table_one = check_keywords(OF_TABLES)(table_one)


def __getattr__(name: str) -> Any:
    raise AttributeError(unknown_name(name, __all__))
