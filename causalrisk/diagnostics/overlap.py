"""Tables of overlap: supports of the propensity scores of the arms, and spread of the importance weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial, reduce

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalrisk.errors import one_of
from causalrisk.estimators.estimates import FittedRows
from causalrisk.estimators.record import FitRecord
from causalrisk.numerics.blocks import add_up
from causalrisk.numerics.distributions import Percentiles, Search, Tally
from causalrisk.numerics.linalg import Array
from causalrisk.propensity.limits import (
    CostsBelow,
    crump_cut,
    inside,
    inverse_sum,
    limits_at,
    searched_cut,
    top_count,
)
from causalrisk.propensity.models import Arms

QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
EQUAL = 1e-10  # relative difference up to which a score is within limits: rounding differs between equal rows


def compared(scores: Array) -> Array:
    """Scores by which supports are compared, shape (J, n): of two arms the score of the treated alone."""
    return scores[1:] if len(scores) == 2 else scores


@dataclass(frozen=True)
class ArmLimits:
    """Smallest and largest scores of J arms in the rows of each arm, of a block or of all rows.

    Parameters
    ----------
    low, high : ndarray, shape (K, J)
        Infinite of an arm without rows.
    """

    low: Array
    high: Array

    @classmethod
    def of(cls, scores: Array, arm: Arms) -> ArmLimits:
        """Return the limits of scores of shape (K, n)."""
        members = [compared(scores)[:, arm == a] for a in range(len(scores))]
        low = np.stack([m.min(axis=1, initial=np.inf) for m in members])
        return cls(low, np.stack([m.max(axis=1, initial=-np.inf) for m in members]))

    def beside(self, other: ArmLimits) -> ArmLimits:
        """Merge with the limits of other rows."""
        return ArmLimits(np.minimum(self.low, other.low), np.maximum(self.high, other.high))

    def support(self, scores: Array) -> NDArray[np.bool_]:
        """Mask of the rows in the common support, shape (n,): above all minima of the arms, below all maxima."""
        low, high = self.low.max(axis=0) * (1 - EQUAL), self.high.min(axis=0) * (1 + EQUAL)
        return inside(compared(scores), low, high)


def crump_names(cut: float, n_arms: int) -> dict[str, float]:
    """Limits of Crump et al. at a cut under their names; of several arms the cut itself."""
    return {"crump cut": cut} if n_arms > 2 else dict(zip(("crump low", "crump high"), limits_at(cut), strict=True))


def in_crump(scores: Array, cut: float) -> NDArray[np.bool_]:
    """Mask of the rows within the limits of Crump et al., shape (n,), for scores of all arms, shape (K, n)."""
    return np.asarray(inverse_sum(scores) <= cut) if len(scores) > 2 else inside(scores[1:], *limits_at(cut))


@dataclass(frozen=True)
class Seen:
    """Results of a pass: tallies of some series of `series_of`, by number, and limits of the scores."""

    tallies: dict[int, Tally]
    limits: ArmLimits

    @classmethod
    def of(cls, searches: Mapping[int, Search], rows: FittedRows) -> Seen:
        """Return the tallies and limits of a block."""
        tallies = {k: search.tally(series_of(rows, k)) for k, search in searches.items()}
        return cls(tallies, ArmLimits.of(rows.scores, rows.arm))

    def beside(self, other: Seen) -> Seen:
        """Merge with the tallies and limits of other rows."""
        tallies = {k: tally.beside(other.tallies[k]) for k, tally in self.tallies.items()}
        return Seen(tallies, self.limits.beside(other.limits))


def series_of(rows: FittedRows, k: int) -> Array:
    """Values of observations: of arm k the scores that are tabulated; from K on the weights of arm k - K."""
    n_arms = len(rows.scores)
    members = np.flatnonzero(rows.arm == k % n_arms)
    own = rows.scores[1 if n_arms == 2 else k % n_arms, members] if k < n_arms else held(rows, members)
    return np.repeat(own, rows.units[members].astype(int))


def held(rows: FittedRows, members: NDArray[np.intp]) -> Array:
    """Return the weight of one observation of each of some rows: importance times probability weight."""
    return rows.importance[members] * rows.weights[members] / rows.units[members]


def order_statistics(record: FitRecord, ranks: Mapping[int, NDArray[np.intp]]) -> tuple[dict[int, Array], ArmLimits]:
    """Return the values of some ranks in series of `series_of`, and the limits of the scores.

    Parameters
    ----------
    record : FitRecord
        A fit.
    ranks : mapping of int to ndarray of int
        Ranks in each series, by its number.

    Returns
    -------
    found : dict of int to ndarray
        The values; in one pass, or up to four where there are more distinct ones than `distributions.DISTINCT`.
    limits : ArmLimits
        The limits.
    """
    found, searches = dict[int, Array](), {k: Search(r, 0) for k, r in ranks.items()}
    while True:
        seen = reduce(Seen.beside, record.over(partial(Seen.of, searches)))
        for k, tally in seen.tallies.items():
            values = searches[k].found(tally)
            if values is None:
                searches[k] = searches[k].narrowed(tally)
            else:
                found[k] = values
                del searches[k]
        if not searches:
            return found, seen.limits


@dataclass(frozen=True)
class Counts:
    """Counts and sums over the rows of each arm, shape (K,).

    Parameters
    ----------
    unsupported, outside : ndarray of int
        Observations outside the common support, and outside the limits of Crump et al.
    above : ndarray of int
        Observations that weigh more than a threshold.
    heavy, total : ndarray
        Sum of the weights of these, and of all observations.
    """

    unsupported: NDArray[np.intp]
    outside: NDArray[np.intp]
    above: NDArray[np.intp]
    heavy: Array
    total: Array

    @classmethod
    def of(cls, limits: ArmLimits, cut: float, threshold: Array, rows: FittedRows) -> Counts:
        """Return the counts of a block, given the thresholds of the arms."""
        weights = held(rows, np.arange(len(rows.arm))) * rows.units
        above = weights > threshold[rows.arm] * rows.units  # comparisons with an unknown threshold, NaN, are false

        def by_arm(values: Array) -> Array:
            return np.bincount(rows.arm, values, len(rows.scores)).astype(np.float64)

        return cls(
            unsupported=by_arm(rows.units * ~limits.support(rows.scores)).astype(np.intp),
            outside=by_arm(rows.units * ~in_crump(rows.scores, cut)).astype(np.intp),
            above=by_arm(rows.units * above).astype(np.intp),
            heavy=by_arm(np.where(above, weights, 0)),
            total=by_arm(weights),
        )


def crump_cut_of(record: FitRecord) -> float:
    """Return the cut of Crump et al., of a scan in some passes."""
    if record.blocks is None:
        return crump_cut(record.rows.scores, record.rows.weights)
    return searched_cut(lambda values: add_up(record.over(partial(_costs, values))), record.design.n)


def _costs(values: Array, rows: FittedRows) -> CostsBelow:
    return CostsBelow.of(values, rows.scores, rows.weights)


def overlap_table(record: FitRecord) -> pd.DataFrame:
    """Describe the propensity scores and the weights of each arm.

    Parameters
    ----------
    record : FitRecord
        A fit.

    Returns
    -------
    DataFrame
        A row an arm. Quantiles are of the score of the treated arm, with several arms of a row's own arm. Where two
        arms have limits of Crump et al., several have the largest sum of inverse scores, "crump cut".
    """
    sizes, labels = [summary.n for summary in record.overlap], record.design.labels
    asked = [Percentiles(n, 100 * np.array(QUANTILES)) for n in sizes]
    ranks = {a: percentiles.ranks for a, percentiles in enumerate(asked)}
    if record.blocks is not None:
        ranks |= {len(sizes) + a: np.array([n - top_count(n)]) for a, n in enumerate(sizes)}
    values, limits = order_statistics(record, ranks)
    threshold = np.array([values.get(len(sizes) + a, [np.nan])[0] for a in range(len(sizes))])
    cut = crump_cut_of(record)
    counts = add_up(record.over(partial(Counts.of, limits, cut, threshold)))
    rows = []
    for a, summary in enumerate(record.overlap):
        top = counts.heavy[a] + (top_count(summary.n) - counts.above[a]) * threshold[a]
        row = {
            "n": summary.n,
            **({"survey n": summary.alone_n} if record.design.weight_type == "probability" else {}),
            "effective n": summary.effective_n,
            "largest weight": summary.heaviest,
            "largest share": summary.largest_share,
            "top 1% share": summary.top_share if record.blocks is None else top / counts.total[a],
            **{f"score {q:.0%}": value for q, value in zip(QUANTILES, asked[a].of(values[a]), strict=True)},
            "outside support": int(counts.unsupported[a]),
        }
        rows.append({**row, **crump_names(cut, len(sizes)), "outside crump": int(counts.outside[a])})
    return pd.DataFrame(rows, index=pd.Index(labels, name="arm"))


def overlap(record: FitRecord, by: str = "arm") -> pd.DataFrame:
    """Overlap of the arms in the propensity score, and spread of their importance weights.

    Parameters
    ----------
    by : {"arm", "unit"}
        A row an arm, or a row a row of the sample.

    Returns
    -------
    DataFrame
        By arm: n, effective n (Kish), largest weight, shares of the largest and of the 1% largest, all under importance
        weight times probability weight (of mean one), and where there are probability weights "survey n", the effective
        n by these alone: from n down to it is their cost, from there down to the effective n the cost of overlap.
        Further quantiles of the propensity score (several arms: of a row's own arm), how many are outside the common
        support (the scores that every arm has), the limits of Crump et al. (2009) that minimise the variance (several
        arms: the largest sum of inverse scores, Yang et al. 2016), and how many are outside them; a row of frequency
        weight s counts as s. By unit: arm, score of the own arm, weight, and whether it is inside either. Of a scan
        (`causalrisk.scan`) by arm alone, in some four passes over the data, with the same numbers but for rounding.

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
    if by == "arm":
        return overlap_table(record)
    design, rows = record.design, record.rows
    unit = pd.DataFrame(
        {
            "arm": np.array(design.labels)[rows.arm],
            "score": rows.scores[rows.arm, np.arange(len(rows.arm))],
            "weight": record.per_row(record.used_weight_fit.undivided, "weight"),
            "in support": ArmLimits.of(rows.scores, rows.arm).support(rows.scores),
        },
        index=design.index,
    )
    unit["in crump"] = in_crump(rows.scores, crump_cut(rows.scores, rows.weights))
    return unit
