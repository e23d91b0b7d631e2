"""Errors and warnings of the package."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import numpy as np


class CausalRiskError(ValueError):
    """Base of every error the package raises about data, models or options."""


class DesignError(CausalRiskError):
    """The data, the formulas or the treatment coding do not describe a model that can be fitted."""


class SeparationError(CausalRiskError):
    """The propensity model predicts the treatment of some rows perfectly, so no finite fit exists.

    Parameters
    ----------
    message : str
        What was found and what to type.
    rows : sequence, optional
        Index labels of the rows that are predicted perfectly.

    Attributes
    ----------
    rows : ndarray
        Index labels of the rows that are predicted perfectly.
    """

    def __init__(self, message: str, rows: Any = ()) -> None:
        super().__init__(message)
        self.rows = np.asarray(rows)


class BootstrapError(CausalRiskError):
    """Too many resamples or propensity replicates failed, or resamples were lost with a worker process.

    Parameters
    ----------
    message : str
        How many failed, why, and what to type.
    results : CausalResults, optional
        The fitted results with the robust standard errors; the point estimate stays usable.

    Attributes
    ----------
    results : CausalResults or None
        The fitted results with the robust standard errors; None where the replicates failed and nothing was estimated,
        or where a worker process died.
    """

    def __init__(self, message: str, results: Any = None) -> None:
        super().__init__(message)
        self.results = results


class FitInterrupted(KeyboardInterrupt):
    """The bootstrap was interrupted; the estimate is not lost.

    Parameters
    ----------
    results : CausalResults
        The fitted results with the robust standard errors.
    """

    def __init__(self, results: Any) -> None:
        super().__init__("the bootstrap was interrupted; the estimate with robust standard errors is in err.results")
        self.results = results


class OptionError(CausalRiskError):
    """An option has a value that is not allowed, or two options contradict each other."""


class CausalRiskWarning(UserWarning):
    """Base of every warning the package gives."""


class DesignWarning(CausalRiskWarning):
    """The data or formulas were understood, but probably not as meant."""


class OverlapWarning(CausalRiskWarning):
    """Some units have propensity scores so close to 0 or 1 that a few weights dominate."""


class ConvergenceWarning(CausalRiskWarning):
    """An optimiser stopped before it converged."""


class ResampleWarning(CausalRiskWarning):
    """Some resamples or replicates failed, or are too few for what is asked of them."""


class MonteCarloWarning(CausalRiskWarning):
    """The estimate depends noticeably on the random numbers drawn."""


class UnavailableError(CausalRiskError, AttributeError):
    """The results do not carry what was asked for; the message says which do."""


def warn_user(message: str, category: type[CausalRiskWarning]) -> None:
    """Give a warning that points at the line of the caller outside the package.

    Parameters
    ----------
    message : str
        What was noticed and what to type.
    category : type
        Class of the warning.
    """
    package = __name__.partition(".")[0]
    level, frame = 1, sys._getframe(0)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
