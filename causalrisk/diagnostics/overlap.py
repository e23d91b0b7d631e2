"""How the propensity scores of the arms overlap, and how the importance weights are spread within each arm."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalrisk.errors import one_of
from causalrisk.estimators.record import FitRecord
from causalrisk.numerics.linalg import Array
from causalrisk.propensity.limits import ArmWeights, crump_cut, crump_limits, inside, inverse_sum

QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)


def common_support(scores: Array, arm: NDArray[np.intp]) -> tuple[Array, Array]:
    """Return the limits within which every arm has propensity scores.

    Parameters
    ----------
    scores : ndarray, shape (J, n)
        Probabilities of J arms.
    arm : ndarray of int, shape (n,)
        Arm of each row.

    Returns
    -------
    low, high : ndarray, shape (J,)
        The largest of the arms' minima, and the smallest of their maxima.
    """
    members = [scores[:, arm == a] for a in range(int(arm.max()) + 1)]
    return np.max([m.min(axis=1) for m in members], axis=0), np.min([m.max(axis=1) for m in members], axis=0)


def crump_names(scores: Array, weights: Array) -> dict[str, float]:
    """Limits of Crump et al. for scores of all arms, shape (K, n), under their names; of several arms the cut."""
    if len(scores) > 2:
        return {"crump cut": crump_cut(scores, weights)}
    return dict(zip(("crump low", "crump high"), crump_limits(scores[1], weights), strict=True))


def in_crump(scores: Array, weights: Array) -> NDArray[np.bool_]:
    """Which rows are within the limits of Crump et al., shape (n,), for scores of all arms, shape (K, n)."""
    if len(scores) > 2:
        return np.asarray(inverse_sum(scores) <= crump_cut(scores, weights))
    return inside(scores[1:], *crump_limits(scores[1], weights))


def overlap_table(
    scores: Array,
    arm: NDArray[np.intp],
    weights: Array,
    units: Array,
    summaries: Sequence[ArmWeights],
    labels: Sequence[str],
) -> pd.DataFrame:
    """Describe the propensity scores and the weights of each arm.

    Parameters
    ----------
    scores : ndarray, shape (K, n)
        Probability of each arm.
    arm : ndarray of int, shape (n,)
        Arm of each row.
    weights : ndarray, shape (n,)
        Observation weights.
    units : ndarray, shape (n,)
        How many observations each row stands for.
    summaries : sequence of ArmWeights
        Spread of the importance weights of each arm.
    labels : sequence of str
        Labels of the arms.

    Returns
    -------
    DataFrame
        A row an arm. Quantiles are of the score of the treated arm, with several arms of a row's own arm. Where two
        arms have limits of Crump et al., several have the largest sum of inverse scores, "crump cut".
    """
    two = len(labels) == 2
    compared = scores[1:] if two else scores
    own = scores[1] if two else scores[arm, np.arange(len(arm))]
    supported = inside(compared, *common_support(compared, arm))
    limits = crump_names(scores, weights)
    outside = ~in_crump(scores, weights)
    rows = []
    for a, summary in enumerate(summaries):
        members = arm == a
        quantiles = np.quantile(np.repeat(own[members], units[members].astype(int)), QUANTILES)
        row = {
            "n": summary.n,
            "effective n": summary.effective_n,
            "largest weight": summary.largest,
            "largest share": summary.largest_share,
            "top 1% share": summary.top_share,
            **{f"score {q:.0%}": value for q, value in zip(QUANTILES, quantiles, strict=True)},
            "outside support": int(units[members & ~supported].sum()),
        }
        rows.append({**row, **limits, "outside crump": int(units[members & outside].sum())})
    return pd.DataFrame(rows, index=pd.Index(labels, name="arm"))


def overlap(record: FitRecord, by: str = "arm") -> pd.DataFrame:
    """How the arms overlap in the propensity score, and how their importance weights are spread.

    Parameters
    ----------
    by : {"arm", "unit"}
        A row an arm, or a row a row of the sample.

    Returns
    -------
    DataFrame
        By arm: n, effective n (Kish), largest weight, its share and that of the 1% largest, quantiles of the
        propensity score (several arms: of a row's own arm), how many are outside the common support (the scores
        that every arm has), the limits of Crump et al. (2009) that minimise the variance (several arms: the largest
        sum of inverse scores, Yang et al. 2016), and how many are outside them; a row of frequency weight s counts as
        s. By unit: arm, score of the own arm, weight, and whether it is
        inside either.

    Examples
    --------
    >>> from causalrisk import IPWRA, datasets
    >>> births = datasets.load_cattaneo2()
    >>> res = IPWRA.from_formula(
    ...     "bweight ~ mage + medu", births, treat="mbsmoke"
    ... ).fit()
    >>> res.overlap()[["n", "effective n", "score 50%", "outside support"]].round(2)
            n  effective n  score 50%  outside support
    arm
    0    3778      3681.42       0.18               28
    1     864       774.72       0.20                0
    """
    one_of("by", by, ("arm", "unit"))
    scores = record.scores
    design = record.design
    if by == "arm":
        return overlap_table(
            scores,
            arm=design.arm,
            weights=design.weights,
            units=design.units,
            summaries=record.overlap,
            labels=design.labels,
        )
    compared = scores[1:] if design.n_arms == 2 else scores
    unit = pd.DataFrame(
        {
            "arm": np.array(design.labels)[design.arm],
            "score": scores[design.arm, np.arange(design.n)],
            "weight": record.per_row(record.used_weight_fit.undivided, "weight"),
            "in support": inside(compared, *common_support(compared, design.arm)),
        },
        index=design.index,
    )
    unit["in crump"] = in_crump(scores, design.weights)
    return unit
