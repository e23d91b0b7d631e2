"""Functions of a fitted record as methods of the results that hold it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from causalrisk.estimators.record import FitRecord
from causalrisk.models.keywords import OF_RESULTS, check_keywords

P = ParamSpec("P")
R = TypeVar("R")


def of_record(function: Callable[Concatenate[FitRecord, P], R]) -> Callable[Concatenate[Any, P], R]:
    """Return a method that calls a function of a record with the record of its results.

    A keyword that the function does not have is a TypeError that says what to type.

    Parameters
    ----------
    function : callable
        Takes a record, then what the method takes.

    Returns
    -------
    callable
        The method, under the name, the docstring and the other parameters of the function.
    """
    signature = inspect.signature(function)
    self, *others = signature.parameters.values()

    @functools.wraps(function)
    def method(self: Any, *args: P.args, **keywords: P.kwargs) -> R:
        return function(self._record, *args, **keywords)

    method.__qualname__ = f"CausalResults.{function.__name__}"
    own = self.replace(name="self", annotation=inspect.Parameter.empty)
    method.__signature__ = signature.replace(parameters=[own, *others])  # type: ignore[attr-defined]
    return check_keywords(OF_RESULTS)(method)
