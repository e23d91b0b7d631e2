"""Errors and warnings of the package."""

from __future__ import annotations

import difflib
import numbers
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np


class CausalRiskError(ValueError):
    """Base of every error the package raises about data, models or options."""


class DesignError(CausalRiskError):
    """The data, the formulas or the treatment coding do not describe a model that can be fitted."""


class SeparationError(CausalRiskError):
    """A model predicts the treatment, or an arm's outcomes, of some rows perfectly, so no finite fit exists.

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
    """Too many resamples or propensity replicates failed, or work was lost with a worker process.

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
        and of a study.
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


class Notes(list[str]):
    """Texts of the warnings of a fit, for the summary."""

    def warn(self, message: str, category: type[CausalRiskWarning]) -> None:
        """Give a warning and keep its text."""
        self.append(message)
        warn_user(message, category)


def listed(values: Sequence[object]) -> str:
    """Return the values as text, quoted and separated by commas."""
    return ", ".join(repr(v) for v in values)


MEANT = {"or": "odds_ratio", "rr": "ratio", "risk_ratio": "ratio", "rd": "difference", "percentage": "percent"}


def one_of(name: str, value: object, allowed: Sequence[object]) -> None:
    """Raise an OptionError unless the value is among the allowed ones."""
    if not any(value is a or (isinstance(value, str) and value == a) for a in allowed):
        close = difflib.get_close_matches(str(value), [a for a in allowed if isinstance(a, str)], 1, 0.4)
        meant = MEANT.get(str(value).lower())
        hint = meant if meant in allowed else close[0] if close else allowed[0]
        raise OptionError(f"{name}={value!r} is not known; expected one of {listed(allowed)}.\nType  {name}={hint!r}.")


def whole_number(name: str, value: object, least: int) -> None:
    """Raise an OptionError unless the value is an integer of at least the given size."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise OptionError(
            f"{name}={value!r}; expected a whole number of at least {least}.\nType  {name}={least} or more."
        )


def check_alpha(alpha: float) -> None:
    """Raise an OptionError unless alpha is a significance level between 0 and 1."""
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float, np.number)) or not 0 < alpha < 1:
        percent = isinstance(alpha, (int, float)) and 1 < alpha < 100
        hint = min(alpha, 100 - alpha) / 100 if percent else 0.05  # 95 and 5 both mean 95% intervals
        raise OptionError(
            f"alpha={alpha!r}; expected a significance level between 0 and 1 (0.05 gives 95% intervals)."
            f"\nType  alpha={hint:.3g}."
        )
