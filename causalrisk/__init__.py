"""Average treatment effects by importance-weighted risk minimisation."""

from causalrisk import datasets, hle, simulation
from causalrisk._version import __version__
from causalrisk.compare import ComparisonResults, compare
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
from causalrisk.models import AIPW, IPW, IPWRA, JRE, Hajek, OutcomeRegression
from causalrisk.results import CausalResults

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
    "MonteCarloWarning",
    "OptionError",
    "OutcomeRegression",
    "OverlapWarning",
    "ResampleWarning",
    "SeparationError",
    "UnavailableError",
    "__version__",
    "compare",
    "datasets",
    "hle",
    "simulation",
]
