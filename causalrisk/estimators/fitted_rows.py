"""Rows of a fit, all of them or a block, with their propensity scores and importance weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

from causalrisk.design.covariates import Covariate
from causalrisk.numerics.linalg import Array
from causalrisk.propensity.likelihoods import Arms

T = TypeVar("T")


@dataclass(frozen=True)
class FittedRows:
    """Rows of a fit in the order of the data.

    Parameters
    ----------
    arm : ndarray of int, shape (n,)
        Arm of each row.
    weights, units : ndarray, shape (n,)
        Observation weights, and how many observations each row stands for.
    importance : ndarray, shape (n,)
        Importance weights, not divided by the mean tilt.
    scores : ndarray, shape (K, n)
        Probability of each arm.
    covariates : callable
        Returns the covariates of both models; of a block of others with those that are constant.
    """

    arm: Arms
    weights: Array
    units: Array
    importance: Array
    scores: Array
    covariates: Callable[[], list[Covariate]]


class FittedBlocks(Protocol):
    """The rows of a fit to a scan, as often as they are asked for; it does not travel with a pickle."""

    def over(self, function: Callable[[FittedRows], T], covariates: bool = False) -> Iterator[T]:
        """Begin a pass: what a function makes of each block; over the files where it asks for covariates."""
