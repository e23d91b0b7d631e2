"""Readings of the diagnostics of a fit: a verdict, the finding with its numbers, and advice.

The limits of the verdicts are rules of thumb; the page on the report lists them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from causalrisk.estimation.overlap import SMALL_EFFECTIVE, SMALL_FOR_ALL
from causalrisk.estimation.record import FitRecord, JointRecord
from causalrisk.report.labels import count
from causalrisk.report.tables.text import format_number, signed_p

GOOD, CAUTION, BAD, UNJUDGED = "good", "caution", "bad", ""
SOME_LEFT = 2 / 3  # effective n over n
MANY_OUTSIDE, SOME_OUTSIDE = 0.2, 0.05  # share of the rows outside Crump's limits
BALANCED = 0.1
MOVES, MOVES_MUCH = 0.25, 1.0  # moves of the effect in standard errors
ONE_ROW = 0.25  # move of the effect by one row in standard errors; twice as much is bad
ONE_CLUSTER = 3  # move of the effect by one cluster over the average of all clusters


@dataclass(frozen=True)
class Reading:
    """Reading of a diagnostic: a verdict (empty where none is possible), the finding, numbers and advice."""

    verdict: str
    headline: str
    texts: tuple[str, ...] = ()


def by_contrast(readings: Mapping[str, Reading]) -> Reading:
    """Merge the readings of one diagnostic for several contrasts: the worst verdict, and each headline named."""
    found = list(readings.values())
    if len(found) == 1:
        return found[0]
    headline = " ".join(f"{contrast}: {reading.headline}" for contrast, reading in readings.items())
    texts = tuple(dict.fromkeys(text for reading in found for text in reading.texts))
    worst = min((reading.verdict for reading in found), key=[BAD, CAUTION, GOOD, UNJUDGED].index)
    return Reading(worst, headline, texts)


def _judged(size: float, some: float, much: float) -> str:
    return BAD if size > much else CAUTION if size > some else GOOD


def read_overlap(
    table: pd.DataFrame, warned: bool, everybody: bool, unit_name: str = "row", instead: str = '`target="overlap"`',
    matched: bool = False,
) -> Reading:  # fmt: skip
    """Read the table of `overlap()`.

    `warned` says whether the fit warned of poor overlap, `everybody` whether the target is all rows (the limits of
    Crump et al. apply then only); `instead` are other populations. If units are `matched`, many may be no match.
    """
    surveyed, rows = "survey n" in table, int(table["n"].sum())
    kept = table["effective n"] / table["survey n" if surveyed else "n"]
    outside = int(table["outside crump"].sum()) if everybody and "outside crump" in table else 0
    lonely = int(table["outside support"].sum())
    few = kept.min() < (SMALL_FOR_ALL if everybody else SMALL_EFFECTIVE) and not matched  # where the fit warns
    some = kept.min() < SOME_LEFT and not matched
    verdict, word = GOOD, "good"
    if warned or few or outside > MANY_OUTSIDE * rows:
        verdict, word = BAD, "bad"
    elif some or max(outside, lonely) > SOME_OUTSIDE * rows:
        verdict, word = CAUTION, "thin"
    have, others = "has" if lonely == 1 else "have", "the other group" if len(table) == 2 else "another group"
    texts = [f"{count(lonely, unit_name)} of {rows} {have} a propensity score outside the range of scores in {others}."]
    if outside:
        source = "Yang et al. (2016)" if "crump cut" in table else "Crump et al. (2009)"
        share = f"{outside} {unit_name}s ({outside / rows:.0%})"
        texts.append(f"{share} have scores outside the limits of {source}. An average over all is imprecise there.")
    if verdict != GOOD and matched:
        texts.append("Use `caliper=` to leave out units without near matches.")
    elif verdict != GOOD:
        texts.append(f"Without comparable rows the outcome models extrapolate. Consider another population: {instead}.")
    left = f"the {unit_name}s that the probability weights leave it" if surveyed else f"its {unit_name}s"
    group = f"after {'matching' if matched else 'weighting'} group {kept.idxmin()} is worth {kept.min():.0%} of {left}"
    if verdict == CAUTION and not (some or matched):
        group = f"{max(outside, lonely)} of {rows} {unit_name}s are unlike those of {others}"
    return Reading(verdict, f"Overlap is {word}: {group}.", tuple(texts))


def read_balance(table: pd.DataFrame, pvalue: float | None, observed: bool = False) -> Reading:
    """Read the table of `balance()`, with the p-value of `balance_test()` where there is one.

    `observed` says that the rows with an outcome are compared with all.
    """
    covariates = table[table["kind"] != "distance"]
    before, after = covariates["diff before"].abs(), covariates["diff after"].abs()
    if not len(covariates):
        return Reading(GOOD, "There is no covariate to balance.")
    worst = ", ".join(map(str, np.atleast_1d(np.array(after.idxmax(), dtype=object))))
    left, many = int((after > BALANCED).sum()), count(len(covariates), "covariate")
    headline = (
        f"{int((before > BALANCED).sum())} of {many} differed by more than {BALANCED:g} standard deviations before "
        f"weighting, {left or 'none'} after. The largest difference is now {after.max():.2f} ({worst})."
    )
    texts = []
    if pvalue is not None:
        texts.append(f"Test of the propensity model (Imai and Ratkovic 2014): p {signed_p(pvalue)}.")
    if left:
        where = "observed=" if observed else "the propensity formula"
        texts.append(f"Add squares and interactions of the covariates that differ to {where}.")
    return Reading(_judged(after.max(), BALANCED, 2 * BALANCED), headline, tuple(texts))


def read_influence(table: pd.DataFrame, clusters: tuple[str, int] | None = None) -> Reading:
    """Read the rows of `influence(top=)`, the first the most influential, or the clusters, by variable and number.

    A cluster moves the effect by the standard error over the root of their number on average.
    """
    label, first = table.index[0], table.iloc[0]
    size = abs(float(first["in std errors"])) if np.isfinite(first["in std errors"]) else 0.0
    what, limit = f"row {label}", ONE_ROW
    if clusters is not None:
        what, limit = f"the cluster {clusters[0]} = {label}", max(ONE_ROW, ONE_CLUSTER / clusters[1] ** 0.5)
    if not np.isfinite(first["change"]):
        return Reading(CAUTION, f"The models cannot be fitted without {what}.", ("Its influence is unknown.",))
    verdict = _judged(size, limit, 2 * limit)
    headline = f"Without {what} the effect would move by {format_number(first['change'])}, {size:.2f} standard errors."
    advice = "Check it: is it an error, or a rare kind of case?"
    return Reading(verdict, headline, () if verdict == GOOD else (advice,))


def read_sensitivity(first: pd.Series, alpha: float) -> Reading:
    """Read a row of the table of `sensitivity()`; there is no verdict, since nobody knows the confounder."""
    interval, none = f"{100 * (1 - alpha):.4g}% interval", "1" if first["basis"] == "ratio of the means" else "zero"
    needed = f"a risk ratio of {first['E-value']:.2f} with both treatment and outcome, beyond the covariates (E-value)"
    headline = (
        f"To explain the effect away, a confounder would need {needed}; {first['E-value of limit']:.2f} for the "
        f"{interval} to include {none}."
    )
    if first["E-value of limit"] == 1:
        of = f" of the {first['basis']}" * (none == "1")
        headline = (
            f"The {interval}{of} already includes {none}. To explain the estimate away, a confounder would need "
            f"{needed}."
        )
    texts = ["Compare it with the strongest covariate you have (VanderWeele and Ding 2017)."]
    if "robustness value" in first:
        texts.append(
            f"By the robustness value, a confounder would have to explain {first['robustness value']:.1%} of the "
            "remaining variation in both the outcome and the weights (Chernozhukov et al. 2022)."
        )
    return Reading(UNJUDGED, headline, tuple(texts))


def read_gaps(record: FitRecord, joint: JointRecord) -> Reading:
    """Read the gap between JRE and the IPWRA fit it started from."""
    readings, effects = {}, (record.estimate.params, joint.start.params, record.std_errors)
    for contrast, own, start, se in zip(record.contrasts, *effects, strict=False):
        size = abs(own - start) / se if se > 0 else 0.0
        gap = f"JRE gives {format_number(own)}, IPWRA {format_number(start)}: {size:.2f} standard errors apart."
        readings[contrast] = Reading(_judged(size, MOVES, MOVES_MUCH), gap)
    return by_contrast(readings)
