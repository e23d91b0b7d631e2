"""The weights of the terms of the joint objective."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Criterion:
    """Weights of the terms of the objective.

    Parameters
    ----------
    fit : float
        Weight of the importance-weighted fit (the anchor; 1 for `erm`).
    penalty : float
        lambda, the weight of the expected ATE risk.
    variance : bool
        Whether the variance of the influence function is a term (`mse`).
    """

    fit: float
    penalty: float
    variance: bool
