"""Readings of the diagnostics of a fit: plain words with numbers and a verdict.

The limits of the verdicts are rules of thumb, and the texts name them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from causalrisk.estimators.overlap import SMALL_EFFECTIVE, SMALL_FOR_ALL, populations_text
from causalrisk.numerics.linalg import Array
from causalrisk.report.labels import TOTAL_WEIGHT, count, joined
from causalrisk.report.tables.text import format_number, signed_p

GOOD, CAUTION, BAD, UNJUDGED = "good", "caution", "bad", ""
SOME_LEFT = 2 / 3  # effective n over n
MANY_OUTSIDE, SOME_OUTSIDE = 0.2, 0.05  # share of the rows outside Crump's limits
BALANCED = 0.1
MOVES, MOVES_MUCH = 0.25, 1.0  # moves of the effect in standard errors
ONE_ROW = 0.25  # move of the effect by one row in standard errors; twice as much is bad
ONE_CLUSTER = 3  # move of the effect by one cluster over the average of all clusters
FAILED = 0.01


@dataclass(frozen=True)
class Reading:
    """Reading of a diagnostic: a verdict (empty where none is possible), the finding, numbers and advice."""

    verdict: str
    headline: str
    texts: tuple[str, ...] = ()


def by_contrast(readings: Mapping[str, Reading]) -> Reading:
    """Merge the readings of one diagnostic for several contrasts, each named; of one contrast, its own."""
    found = list(readings.values())
    if len(found) == 1:
        return found[0]
    order = (BAD, CAUTION, GOOD, UNJUDGED)
    shared = [text for text in found[0].texts if all(text in reading.texts for reading in found)]
    own = [
        f"{contrast}: {' '.join(text for text in reading.texts if text not in shared)}"
        for contrast, reading in readings.items()
        if set(reading.texts) - set(shared)
    ]
    headline = " ".join(f"{contrast}: {reading.headline}" for contrast, reading in readings.items())
    return Reading(min((reading.verdict for reading in found), key=order.index), headline, (*own, *shared))


def read_overlap(
    table: pd.DataFrame, warned: bool, everybody: bool, unit_name: str = "row", instead: Sequence[str] | None = ()
) -> Reading:
    """Read the table of `overlap()`.

    `warned` says whether the fit warned of poor overlap, `everybody` that all rows are the target, to which the limits
    of Crump et al. apply; `instead` names targets that overlap.
    """
    surveyed, rows = "survey n" in table, int(table["n"].sum())
    kept = table["effective n"] / table["survey n" if surveyed else "n"]
    worst = kept.idxmin()
    outside = int(table["outside crump"].sum()) if everybody and "outside crump" in table else 0
    lonely = int(table["outside support"].sum())
    verdict, word = GOOD, "good"
    if kept.min() < SOME_LEFT or max(outside, lonely) > SOME_OUTSIDE * rows:
        verdict, word = CAUTION, "thin"
    few = kept.min() < (SMALL_FOR_ALL if everybody else SMALL_EFFECTIVE)  # the limits at which the fit warns
    if warned or few or outside > MANY_OUTSIDE * rows:
        verdict, word = BAD, "bad"
    arms = joined([
        f"the {count(int(row['n']), unit_name)} of arm {label} count like {row['effective n']:.0f} (largest weight "
        f"{format_number(row['largest weight'])}"
        + (f"; like {row['survey n']:.0f} by the probability weights alone)" if surveyed else ")")
        for label, row in table.iterrows()
    ])  # fmt: skip
    texts = [
        f"Once weighted, {arms}. {count(lonely, unit_name)} of {rows} have a propensity score that does not occur in "
        "some arm, so that their outcome there is extrapolated by the outcome model."
    ]
    if outside:
        if "crump cut" in table:
            found = f"a sum of inverse scores above {table['crump cut'].iloc[0]:.3g}, the limit of Yang et al. (2016)"
        else:
            limits = f"[{table['crump low'].iloc[0]:.3f}, {table['crump high'].iloc[0]:.3f}]"
            found = f"scores outside {limits}, the limits of Crump et al. (2009)"
        texts.append(
            f"{outside} {unit_name}s ({outside / rows:.0%}) have {found} beyond which an average over everybody costs "
            "more precision than it is worth."
        )
    if verdict != GOOD:
        texts.append(
            "Where there is hardly a counterpart, the models answer the question and not the data. Consider "
            f"another population: {populations_text(instead)}, and say so."
        )
    texts.append(
        f"Called bad where the fit warned (an arm keeps less than a third of its {unit_name}s once weighted, for a "
        f"target other than everybody less than a fifth) or a fifth of all {unit_name}s are outside the limits; thin "
        "below two thirds or above 5%."
    )
    left = f"its {unit_name}s"
    if surveyed:
        left = f"what the probability weights alone leave of its {unit_name}s"
        texts.append(
            f"n, effective n and weights are of {TOTAL_WEIGHT}; the verdict leaves out what these cost by themselves."
        )
    return Reading(
        verdict, f"Overlap is {word}: weighting leaves arm {worst} with {kept.min():.0%} of {left}.", tuple(texts)
    )


def read_balance(table: pd.DataFrame, pvalue: float | None, observed: bool = False) -> Reading:
    """Read the table of `balance()`, with the p-value of `balance_test()` where there is one.

    `observed` says that the rows with an outcome are compared with all.
    """
    covariates = table[table["kind"] != "distance"]
    before, after = covariates["diff before"].abs(), covariates["diff after"].abs()
    if not len(covariates):
        return Reading(GOOD, "There is no covariate to balance.")
    worst = ", ".join(map(str, np.atleast_1d(np.array(after.idxmax(), dtype=object))))
    left = int((after > BALANCED).sum())
    verdict = GOOD if not left else BAD if after.max() > 2 * BALANCED else CAUTION
    headline = f"{left} of {count(len(covariates), 'covariate')} differ by more than {BALANCED:g} after weighting"
    what = "of the rows with an outcome and all rows of their arm" if observed else "between the arms"
    texts = [
        f"Differences {what} are in standard deviations, of 0/1 columns in proportions. Before weighting "
        f"{int((before > BALANCED).sum())} exceeded {BALANCED:g} (largest {before.max():.2f}); the largest after it is "
        f"{after.max():.2f} ({worst})."
    ]
    if pvalue is not None:
        means = "the propensity model does not balance its own columns" if pvalue < 0.05 else "nothing against it"
        texts.append(f"Test of the propensity model (Imai and Ratkovic 2014): p {signed_p(pvalue)}, {means}.")
    if left:
        where = "observed=" if observed else "the propensity formula"
        texts.append(f"Add squares and interactions of the covariates that differ to {where}.")
    texts.append("This is balance of the covariates in the formulas. It says nothing about others.")
    return Reading(verdict, f"{headline}.", tuple(texts))


def read_influence(table: pd.DataFrame, approximate: bool, clusters: tuple[str, int] | None = None) -> Reading:
    """Read the rows of `influence(top=)`, the first the most influential, or the clusters, by variable and number.

    A cluster moves the effect by the standard error over the root of their number on average.
    """
    label, first = table.index[0], table.iloc[0]
    size = abs(float(first["in std errors"])) if np.isfinite(first["in std errors"]) else 0.0
    share = f"{first['weight share']:.1%} of the weight of"
    if clusters is None:
        what, several, limit = f"row {label}", "rows", ONE_ROW
        held = f"That row is in arm {first['arm']} and holds {share} its arm."
    else:
        what, several = f"the cluster {clusters[0]} = {label}", "clusters"
        limit = max(ONE_ROW, ONE_CLUSTER / clusters[1] ** 0.5)
        held = f"That cluster has {count(int(first['n']), 'row')} and holds up to {share} an arm (arm {first['arm']})."
    verdict = BAD if size > 2 * limit else CAUTION if size > limit else GOOD
    headline = f"Without {what} the effect would move by {format_number(first['change'])}, {size:.2f} standard errors."
    texts = [f"{held} The {len(table)} most influential {several} are listed."]
    if verdict != GOOD:
        texts.append(f"Look at these {several}: an error of recording, or a kind of case of which there are too few?")
    if approximate:
        texts.append(
            f"Changes are from the influence function, which understates those of the most influential {several}."
        )
    return Reading(verdict, headline, tuple(texts))


def read_trimming(table: pd.DataFrame, se: float) -> Reading:
    """Read the table of `trim_curve()`: how far the effect moves as rows are trimmed."""
    done = table.dropna(subset=["effect", "std err"])
    failed = [str(limit) for limit in table.index.difference(done.index, sort=False)]
    trimmed = done[done["n"] < done["n"].max()]
    untold = (
        f" At {joined(failed)} there is no estimate: too few rows, or too few in an arm, are left." if failed else ""
    )
    if not len(done) or not len(trimmed):
        return Reading(CAUTION if failed else GOOD, "No row was trimmed at any of the limits.", (untold.strip(),))
    start = float(done["effect"].iloc[0])
    most = trimmed[trimmed["n"] >= done["n"].max() / 2]
    judged = most if len(most) else trimmed
    gaps = (judged["effect"] - start).abs()
    far = gaps.idxmax()
    size = float(gaps.max() / se) if se > 0 else 0.0
    half = "Trimming that keeps half of the rows or more" if len(most) else "Trimming"
    low, high = format_number(done["effect"].min()), format_number(done["effect"].max())
    texts = (
        f"Over the limits tried the effect runs from {low} to {high}. At {far} it is "
        f"{format_number(judged.loc[far, 'effect'])}, with {count(int(judged.loc[far, 'n']), 'row')} and a robust "
        f"standard error of {format_number(judged.loc[far, 'std err'])}.{untold}",
        "Trimming changes the population: an effect that moves may differ between people, or may depend on rows "
        "without a counterpart. The data cannot tell which.",
    )
    headline = (
        f"{half} moves the effect from {format_number(start)} by up to {format_number(gaps.max())}, {size:.2f} "
        "standard errors."
    )
    return Reading(_moved(size), headline, texts)


def read_anchor(
    path: pd.DataFrame, chosen: float, raised_from: float | None, se: float, start: float, end: str = ""
) -> Reading:
    """Read the table of `anchor_path()`: how far the effect moves with the anchor; `end` of `ladder_end_words`."""
    used = path[path["share"].notna()]
    size, moves = _moves(used["effect"], se)
    headline = f"Over anchors from {used.index.max():g} to {used.index.min():g}, {moves}"
    held_out = chosen if raised_from is None else raised_from
    texts = (
        f"The anchor is the weight of the fit against the expected risk: the larger, the nearer to IPWRA, which gives "
        f"{format_number(start)}. {held_out:g} was chosen by cross-validation.",
        *([] if raised_from is None else [f"The robust variance there is above IPWRA's, so it is {chosen:g}."]),
        *([end] if end else []),
    )
    return Reading(_moved(size), headline, texts)


def read_penalty(path: pd.DataFrame, own: float, se: float, start: float) -> Reading:
    """Read the table of `penalty_path()`: how far the effect moves with lambda; `own` is the fit's lambda."""
    used = path[(path.index > 0) & path["effect"].notna()]
    low, high = used["effect"].idxmin(), used["effect"].idxmax()
    size, moves = _moves(used["effect"], se)
    headline = f"As lambda goes from {used.index.min():.3g} to {used.index.max():.3g}, {moves}"
    texts = [
        f"The smallest is at lambda = {low:.3g}, the largest at {high:.3g}; the fit has {own:.3g}; IPWRA gives "
        f"{format_number(start)}. The RMS net bias falls from {format_number(used['RMS net'].iloc[0])} to "
        f"{format_number(used['RMS net'].iloc[-1])} over this range."
    ]
    if 0 in path.index:
        texts.append(
            f"Without a penalty (lambda = 0) it would be {format_number(path.loc[0, 'effect'])}: nothing then keeps "
            "the bias small, and it is not an estimate to report."
        )
    if size > MOVES:
        texts.append("Lambda is a choice, not a fact of the data: report the effect at more than one.")
    return Reading(_moved(size), headline, tuple(texts))


def _moves(effects: pd.Series, se: float) -> tuple[float, str]:
    """Return the range of effects in standard errors, and a clause on it."""
    low, high = float(effects.min()), float(effects.max())
    size = (high - low) / se if se > 0 else 0.0
    between = f"{format_number(low)} and {format_number(high)}"
    return size, f"the effect moves between {between}, {size:.2f} standard errors."


def _moved(size: float) -> str:
    return GOOD if size <= MOVES else CAUTION if size <= MOVES_MUCH else BAD


def read_cancellation(table: pd.DataFrame, name: str, outcome: str, labels: Sequence[str]) -> Reading:
    """Read the table of `risk_table()` for the estimator of the fit; `labels` are the arms' labels."""
    own, other = table.loc[name], "IPWRA" if name == "JRE" else "JRE"
    over = "" if len(labels) == 2 else f", over all {len(labels) - 1} contrasts"
    headline = (
        f"{name} has an RMS error of {format_number(own['RMS error'])} over the propensity replicates, of it net bias "
        f"{format_number(own['RMS net'])} (in units of {outcome}{over})."
    )
    texts = [
        "The propensity score is an estimate. Under others that fit the data about as well, the model of each arm is "
        "biased. What the effect is off by is the net bias, upwards in the figure: the closer to the line the better. "
        "The bias that both arms share, across, is not in the effect: how far along the line points lie says nothing."
    ]
    if other in table.index:
        error, net = table.loc[other, "RMS error"], table.loc[other, "RMS net"]
        texts.append(
            f"{other} has {format_number(error)}, of it net bias {format_number(net)}. This is no standard error: the "
            "scores are treated as known, and JRE is trained for it on these rows. Compare standard errors on the same "
            "resamples."
        )
    for label in labels[1:]:
        column, which = "correlation", "the arms' biases"
        if len(labels) > 2:
            column, which = f"correlation[{label}]", f"the biases of {label} and {labels[0]}"
        if np.isfinite(own[column]):  # towards an arm its own bias does not vary
            correlation = f"The correlation of {which} is {own[column]:.2f}"
            texts.append(f"{correlation}; the nearer to 1, the more they move together.")
    texts.append("This is bias within the sample, given the covariates. It says nothing about covariates left out.")
    return Reading(UNJUDGED, headline, tuple(texts))


def read_bootstrap(values: Array, estimate: float, limits: Sequence[Array], drawn: int, alpha: float) -> Reading:
    """Read a bootstrap distribution; `limits` are the normal and the percentile interval."""
    se, used = values.std(ddof=1), len(values)
    shift = abs(values.mean() - estimate) / se if se > 0 else 0.0
    skewness = float((((values - values.mean()) / se) ** 3).mean()) if se > 0 else 0.0
    (low, high), (low_p, high_p) = limits
    apart = max(abs(low - low_p), abs(high - high_p)) / se if se > 0 else 0.0
    verdict = GOOD if apart < MOVES and drawn - used <= FAILED * drawn else CAUTION
    texts = (
        f"{used} of {drawn} resamples could be used. Their mean is {shift:.2f} standard errors from the estimate; "
        f"their skewness is {skewness:.2f} (0 is symmetric).",
        f"The {100 * (1 - alpha):.4g}% interval is {format_number(low)} to {format_number(high)} by the standard error "
        f"and {format_number(low_p)} to {format_number(high_p)} by the quantiles of the resamples.",
    )
    agree = "agree" if apart < MOVES else f"differ by up to {apart:.2f} standard errors; report the second too"
    return Reading(verdict, f"The two intervals {agree}.", texts)


def read_sensitivity(first: pd.Series, alpha: float) -> Reading:
    """Read a row of the table of `sensitivity()`; there is no verdict, since nobody knows the confounder."""
    interval, none = f"{100 * (1 - alpha):.4g}% interval", "1" if first["basis"] == "ratio of the means" else "zero"
    needed = f"a risk ratio of {first['E-value']:.2f} with both treatment and outcome, beyond the covariates (E-value)"
    if first["E-value of limit"] == 1:
        of = "" if none == "zero" else f" of the {first['basis']}"
        headline = (
            f"There is no clear effect to explain away: the {interval}{of} already includes {none}. To explain the "
            f"estimate away, a confounder would need {needed}."
        )
    else:
        headline = (
            f"To explain the effect away, a confounder would need {needed}; {first['E-value of limit']:.2f} for the "
            f"{interval} to include {none}."
        )
    texts = [
        f"The E-value is of the ratio {first['ratio']:.3f} ({first['basis']}; VanderWeele and Ding 2017). Compare it "
        "with the strongest covariate you have: a missing one would have to be as strong, given all of them."
    ]
    if "robustness value" in first:
        texts.append(
            f"By the robustness value, a confounder would have to account for {first['robustness value']:.1%} of what "
            "is left of both the outcome and the weights (Chernozhukov et al. 2022). This assumes that the models are "
            "correctly specified given the covariates, and nothing about how the confounder works."
        )
    return Reading(UNJUDGED, headline, tuple(texts))


def read_gap(own: float, start: float, se: float) -> Reading:
    """Read the gap between JRE and the IPWRA fit it started from."""
    size = abs(own - start) / se if se > 0 else 0.0
    headline = (
        f"JRE gives {format_number(own)}, IPWRA {format_number(start)}: {size:.2f} standard errors apart."
    )  # fmt: skip
    return Reading(_moved(size), headline)
