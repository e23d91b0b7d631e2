"""Average treatment effects by importance-weighted risk minimisation."""

from causalrisk import datasets
from causalrisk._version import __version__
from causalrisk.errors import (
    BootstrapError,
    CausalRiskError,
    CausalRiskWarning,
    ConvergenceWarning,
    DesignError,
    DesignWarning,
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
    "ConvergenceWarning",
    "DesignError",
    "DesignWarning",
    "Hajek",
    "MonteCarloWarning",
    "OptionError",
    "OutcomeRegression",
    "OverlapWarning",
    "ResampleWarning",
    "SeparationError",
    "UnavailableError",
    "__version__",
    "datasets",
]
