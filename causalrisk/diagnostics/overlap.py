"""How the importance weights are spread within each arm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from causalrisk.linalg import Array

TOP_SHARE = 0.01
LARGE_WEIGHT = 1e6
LARGE_SHARE = 0.2
SMALL_EFFECTIVE = 0.2
REMOTE_SCORE, REMOTE_SHARE = 1e-3, 0.05


@dataclass(frozen=True)
class ArmWeights:
    """Spread of the weights of one arm.

    Parameters
    ----------
    n : int
        Rows.
    effective_n : float
        (sum w)^2 / sum w^2.
    largest : float
        Largest weight.
    top_share : float
        Share of the total weight held by the 1% of rows with the largest weights (at least one row).
    largest_share : float
        Share of the total weight held by the row with the largest.
    extreme : int
        Rows with a weight above 1e6.
    """

    n: int
    effective_n: float
    largest: float
    top_share: float
    largest_share: float
    extreme: int


def arm_weights(inverse: Array, weights: Array) -> ArmWeights:
    """Summarise the weights of one arm.

    Parameters
    ----------
    inverse : ndarray, shape (n_a,)
        Importance weights.
    weights : ndarray, shape (n_a,)
        Observation weights.

    Returns
    -------
    ArmWeights
        The summary; the effective n is Kish's.
    """
    w = np.sort(inverse * weights)[::-1]
    unit = w / w[0] if np.isfinite(w[0]) else (w == w[0]).astype(float)
    top = max(1, int(np.ceil(TOP_SHARE * len(w))))
    total = unit.sum()
    return ArmWeights(
        len(w),
        float(total**2 / (unit**2).sum()),
        float(inverse.max()),
        float(unit[:top].sum() / total),
        float(unit[0] / total),
        int((inverse > LARGE_WEIGHT).sum()),
    )


def overlap_message(arms: Sequence[ArmWeights], labels: Sequence[str], scores: Array | None = None) -> str:
    """Return a warning where overlap is poor, or an empty text.

    It is called poor where a weight exceeds a million, one row holds a fifth of its arm's weight, the effective n is
    below a fifth of the arm's rows, or 5% of all rows have a propensity score within 0.001 of 0 or 1.

    Parameters
    ----------
    arms : sequence of ArmWeights
        Summary per arm.
    labels : sequence of str
        Their labels.
    scores : ndarray, shape (K, n), optional
        Probability of each arm of all rows, where everybody is the target.

    Returns
    -------
    str
        What was found and what to do.
    """
    found = []
    for arm, label in zip(arms, labels, strict=True):
        if arm.extreme:
            found.append(
                f"{arm.extreme} row{'s' * (arm.extreme > 1)} of arm {label!r} with a propensity score so extreme that "
                f"the weight exceeds 1e6 (largest {arm.largest:.3g})"
            )
        elif arm.largest_share > LARGE_SHARE and arm.n > 1 / LARGE_SHARE:
            found.append(
                f"one row holds {arm.largest_share:.0%} of the weight of arm {label!r} (largest weight "
                f"{arm.largest:.3g}, effective n {arm.effective_n:.1f} of {arm.n})"
            )
        elif arm.effective_n < SMALL_EFFECTIVE * arm.n and arm.n > 1 / SMALL_EFFECTIVE:
            found.append(
                f"the {arm.n} rows of arm {label!r} weigh as much as {arm.effective_n:.1f} rows would without weights"
            )
    remote = 0 if scores is None else int((scores.min(axis=0) < REMOTE_SCORE).sum())
    if scores is not None and remote > REMOTE_SHARE * scores.shape[1]:
        found.append(
            f"{remote} of {scores.shape[1]} rows have hardly a counterpart in another arm (probability below 0.001)"
        )
    if not found:
        return ""
    return (
        f'poor overlap: {"; ".join(found)}.\nSimplify propensity=, or change the target population:  target="overlap"'
        '  or  trim="crump".'
    )
