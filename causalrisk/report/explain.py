"""Interpretations of the diagnostics of a fit (verdict, finding and advice), and the fit in plain words.

The limits of the verdicts are rules of thumb. The documentation of the report lists them.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources

import numpy as np
import pandas as pd

from causalrisk.design.tables import listing
from causalrisk.errors import check_alpha, one_of
from causalrisk.estimation.overlap import SMALL_FOR_ALL, judged_shares, least_share
from causalrisk.estimation.record import FitRecord, JointRecord
from causalrisk.estimation.specification import EVERYBODY, TargetPopulation
from causalrisk.inference.intervals import parameters, statistic_names
from causalrisk.report import labels as words
from causalrisk.report import methods
from causalrisk.report.labels import count
from causalrisk.report.table import escape_html, format_number, signed_p, wrap

# --- interpretations of the diagnostics ------------------------------------------------------------------------------

GOOD, CAUTION, BAD, UNJUDGED = "good", "caution", "bad", ""
SOME_LEFT, SOME_MATCHED = 2 / 3, SMALL_FOR_ALL  # of `judged_shares`; with full overlap, matching has 0.4 or more
MANY_OUTSIDE, SOME_OUTSIDE = 0.2, 0.05  # share of the rows outside Crump's limits
BALANCED = 0.1
MOVES, MOVES_MUCH = 0.25, 1.0  # differences of JRE from IPWRA, in standard errors
ONE_ROW = 0.25  # change of the effect without one row, in standard errors; twice as much is bad
ONE_CLUSTER = 3  # change of the effect without one cluster / average change over all clusters


@dataclass(frozen=True)
class Reading:
    """Interpretation of a diagnostic: a verdict (empty if none is possible), the finding, numbers and advice."""

    verdict: str
    headline: str
    texts: tuple[str, ...] = ()


def by_contrast(readings: Mapping[str, Reading]) -> Reading:
    """Combine the interpretations of a diagnostic for several contrasts: the worst verdict, and all headlines."""
    found = list(readings.values())
    if len(found) == 1:
        return found[0]
    headline = " ".join(f"{contrast}: {reading.headline}" for contrast, reading in readings.items())
    shared = set.intersection(*(set(reading.texts) for reading in found))
    named = ((contrast, text) for contrast, reading in readings.items() for text in reading.texts)
    texts = tuple(dict.fromkeys(text if text in shared else f"{contrast}: {text}" for contrast, text in named))
    worst = min((reading.verdict for reading in found), key=[BAD, CAUTION, GOOD, UNJUDGED].index)
    return Reading(worst, headline, texts)


def _judged(size: float, some: float, much: float) -> str:
    return BAD if size > much else CAUTION if size > some else GOOD


def read_overlap(
    table: pd.DataFrame, warned: bool, target: TargetPopulation, advice: str, unit_name: str = "row",
    matched: bool = False,
) -> Reading:  # fmt: skip
    """Interpret the table of `overlap()`. `warned` is whether the fit warned. `advice` is for limited overlap."""
    surveyed, toward = "survey n" in table, target.toward
    alone = table["survey n" if surveyed else "n"].to_numpy(dtype=float)
    shares = judged_shares(table["effective n"].to_numpy(), alone, toward)
    worst = min(range(len(table)), key=lambda a: (min(shares[a].round(9), 1), a == toward, shares[a]))
    inside = table if toward is None else table.iloc[[toward]]
    rows, lonely = int(inside["n"].sum()), int(inside["outside support"].sum())
    outside = int(table["outside crump"].sum()) if target.everybody and "outside crump" in table else 0
    some = shares[worst] < (SOME_MATCHED if matched else SOME_LEFT)
    verdict, word = GOOD, "good"
    if warned or shares[worst] < least_share(target) or outside > MANY_OUTSIDE * rows:
        verdict, word = BAD, "poor"
    elif some or max(outside, lonely) > SOME_OUTSIDE * rows:
        verdict, word = CAUTION, "limited"
    others = "the other group" if len(table) == 2 else "another group"
    of = count(rows, unit_name) + ("" if toward is None else f" of group {table.index[toward]}")
    have = "has a propensity score" if lonely == 1 else "have propensity scores"
    apart = f"{lonely} of {of} {have} outside the range of {others}"
    texts = [f"{words.sentence(apart)}."]
    if outside > SOME_OUTSIDE * rows:
        source = "Yang et al. (2016)" if "crump cut" in table else "Crump et al. (2009)"
        share = f"{outside} of {of} ({outside / rows:.0%})"
        texts.append(f"Scores of {share} are outside the limits of {source}. An average over all rows is imprecise.")
    if verdict != GOOD:
        texts.append(advice)
    size = worst if toward is None or alone[worst] <= alone[toward] else toward
    whole = f"an effective n of {alone[size]:.0f} under the probability weights alone"
    whole, link = (whole, ", compared with ") if surveyed else (count(round(alone[size]), unit_name), " out of ")
    link = link if size == worst else f". Target group {table.index[size]} has "
    left = f"after {'matching' if matched else 'weighting'}, group {table.index[worst]} has an effective n of "
    left += f"{table['effective n'].iloc[worst]:.0f}{link}{whole}"
    if verdict == CAUTION and not some:
        left = f"{outside} of {of} have few comparable {unit_name}s in {others}" if outside > lonely else apart
        texts = texts[left == apart :]
    return Reading(verdict, f"Overlap is {word}: {left}.", tuple(texts))


def read_balance(
    table: pd.DataFrame, pvalue: float | None, how: str = "weighting", where: str = "the propensity formula"
) -> Reading:
    """Interpret the table of `balance()`, with the p-value of `balance_test()` if there is one."""
    covariates = table[table["kind"] != "distance"]
    before, after = covariates["diff before"].abs(), covariates["diff after"].abs()
    if not len(covariates):
        return Reading(GOOD, "There is no covariate to balance.")
    worst = ", ".join(map(str, np.atleast_1d(np.array(after.idxmax(), dtype=object))))
    left, many = int((after > BALANCED).sum()), count(len(covariates), "covariate")
    headline = (
        f"{int((before > BALANCED).sum())} of {many} differed by more than {BALANCED:g} standard deviations before "
        f"{how}, and {left or 'none'} after. The largest difference is now {after.max():.2f} ({worst})."
    )
    texts = []
    if pvalue is not None:
        texts.append(f"Overidentification test of balance (Imai and Ratkovic 2014): p {signed_p(pvalue)}.")
    if left:
        names = listing(after.index[after > BALANCED])
        texts.append(f"Use {names} in {where}, with squares or interactions if already there.")
    return Reading(_judged(after.max(), BALANCED, 2 * BALANCED), headline, tuple(texts))


def read_influence(table: pd.DataFrame, clusters: tuple[str, int] | None = None) -> Reading:
    """Interpret the table of `influence(top=)`. `clusters`: name of the cluster variable, number of clusters."""
    label, first = table.index[0], table.iloc[0]
    size = abs(float(first["in std errors"])) if np.isfinite(first["in std errors"]) else 0.0
    what, limit = f"row {label}", ONE_ROW
    if clusters is not None:
        what, limit = f"the cluster {clusters[0]} = {label}", max(ONE_ROW, ONE_CLUSTER / clusters[1] ** 0.5)
    if not np.isfinite(first["change"]):
        return Reading(CAUTION, f"The models cannot be fitted without {what}. Its influence is unknown.")
    verdict = _judged(size, limit, 2 * limit)
    headline = f"Without {what}, the effect changes by {format_number(first['change'])} ({size:.2f} standard errors)."
    advice = f"Check whether {what} is an error or an unusual case."
    return Reading(verdict, headline, () if verdict == GOOD else (advice,))


def read_sensitivity(first: pd.Series, alpha: float) -> Reading:
    """Interpret a row of `sensitivity()`. There is no verdict, because the confounder is unknown."""
    interval, none = f"{100 * (1 - alpha):.4g}% interval", "1" if first["basis"] == "ratio of the means" else "zero"
    needed = f"a risk ratio of at least {first['E-value']:.2f} with both treatment and outcome, given the covariates"
    headline = f"To explain the effect away, a confounder would need {needed} (E-value)."
    if (limit := first["E-value of limit"]) == 1:
        headline = f"The {interval}{f' of the {first.basis}' * (none == '1')} already includes {none}. {headline}"
    elif np.isfinite(limit):
        headline += f" A risk ratio of {limit:.2f} is enough for the {interval} to include {none}."
    texts = ["Compare the E-value with the risk ratios of your strongest covariate (VanderWeele and Ding 2017)."]
    if np.isfinite(first["robustness value"]):
        texts.append(
            f"A confounder that explains {first['robustness value']:.1%} of the residual variance of the outcome and "
            f"{first['robustness value']:.1%} of the variance of the weights would explain the effect away (robustness "
            "value, Chernozhukov et al. 2022)."
        )
    return Reading(UNJUDGED, headline, tuple(texts))


def read_gaps(record: FitRecord, joint: JointRecord) -> Reading:
    """Interpret the differences between JRE's effects and the effects of the IPWRA fit that JRE started from."""
    readings, effects = {}, (record.estimate.params, joint.start.params, record.std_errors)
    for contrast, own, start, se in zip(record.contrasts, *effects, strict=False):
        size = abs(own - start) / se if se > 0 else 0.0
        apart = "" if np.isnan(se) else f"The difference is {size:.2f} times JRE's standard error."
        gap = f"JRE gives {format_number(own)} and IPWRA {format_number(start)}. {apart}".rstrip()
        readings[contrast] = Reading(_judged(size, MOVES, MOVES_MUCH), gap)
    return by_contrast(readings)


# --- the fit in words ------------------------------------------------------------------------------------------------

TEXTS = json.loads(resources.files(__package__).joinpath("questions.json").read_text("utf-8"))
UNTESTED = "Assumptions that no test can check"


@dataclass(frozen=True, repr=False)
class Prose:
    """Text in titled sections, wrapped when it is printed."""

    title: str
    sections: Mapping[str, tuple[list[str], list[str]]]

    def as_text(self, width: int = 78) -> str:
        """Return the text, wrapped."""
        blocks = [f"{self.title}\n{'=' * len(self.title)}"]
        for heading, (paragraphs, items) in self.sections.items():
            lines = [line for text in paragraphs for line in wrap(text, width)]
            lines += [line for item in items for line in wrap(item, width, first="  - ", rest="    ")]
            blocks.append("\n".join([heading, "-" * len(heading), *lines]))
        return "\n\n".join(blocks)

    def as_html(self) -> str:
        """Return the text as HTML, everything escaped."""
        parts = [f"<h2>{html.escape(self.title)}</h2>"]
        for heading, (paragraphs, items) in self.sections.items():
            parts += [f"<h3>{html.escape(heading)}</h3>", *(f"<p>{escape_html(text)}</p>" for text in paragraphs)]
            parts += ["<ul>", *(f"<li>{escape_html(item)}</li>" for item in items), "</ul>"] if items else []
        return "\n".join(parts)

    __str__ = __repr__ = as_text
    _repr_html_ = as_html


def explain(record: FitRecord, alpha: float = 0.05) -> Prose:
    """Explain the estimate in plain words, step by step, with the numbers of this fit.

    Parameters
    ----------
    alpha : float, default 0.05
        Significance level of the interval.

    Returns
    -------
    Prose
        The steps from the question to the standard error, and the assumptions that no data can check. For JRE, also
        what to do if JRE disagrees with IPWRA. Prints as text; `as_html()` gives HTML.
    """
    check_alpha(alpha)
    record.design.check_in_memory("explain()", "Use `res.methods()`. ")
    said, models = methods.facts(record), "matches" if record.spec.matched else "outcome models"
    what, (reference, *others) = "quantiles" if record.options.quantiles else "mean", record.design.labels
    question = f"How would the {what} of {words.outcome_text(record)}, over {words.rows_words(record)}, differ if all "
    question += f"were in group {words.joined(others, 'or')} instead of group {reference}?"
    steps = {
        "The question": [question, *said["effect"], *said["sample"]],
        "The groups as observed": [_observed(record)],
        f"The {'propensity score and the ' * record.uses_score}weights": [*said["score"], *_weights(record)],
        f"The {models}": [*said["outcome"], *said["joint"], *_training(record)],
        "The effect": _effects(record),
        "The standard error": [*said["errors"], *_tests(record, alpha)],
    }
    sections: dict[str, tuple[list[str], list[str]]] = {}
    for k, (title, texts) in enumerate(steps.items(), 1):
        sections[f"{k}. {title}"] = [*filter(None, texts)], []
    if record.joint is not None:
        gap, apart = read_gaps(record, record.joint), TEXTS["if_they_disagree"]
        sections["JRE and IPWRA"] = [gap.headline], apart * (gap.verdict != GOOD)
    items = [f"{heading}. {question}" for heading, question in questions(record).values()]
    sections[UNTESTED] = ["The effect is causal only if all of these hold:"], items
    return Prose(f"How the {record.spec.name} estimate was computed", sections)


def questions(record: FitRecord, stated: Iterable[str] | None = None, **named: str) -> Mapping[str, tuple[str, str]]:
    """Return heading and question of each untestable assumption. `named` sets the variables' names in the text."""
    design, seen, did = record.design, record.design.observation, record.options.did is not None
    variables = words.variables_of(record) + ([] if design.offset_name is None else [design.offset_name])
    names = {
        "treat": design.treat_name,
        "outcome": words.outcome_words(record),
        "covariates": words.joined(variables) or "none",
        "formula": f"{design.treat_name} and the covariates of the outcome formula",
    }
    if seen is not None and record.spec.uses_propensity:
        names["formula"] = seen.formula
    holds = {"unconfoundedness": not did, "parallel_trends": did, "same_population": design.periods is not None}
    holds |= {"equal_effects": record.frame is not None, "missing_at_random": seen is not None}
    texts = TEXTS["assumptions"] | (TEXTS["instruments"] if "instrument" in named else {})
    asked = {key: text for key, text in texts.items() if holds.get(key, True)}
    for name in stated or ():
        one_of("assumptions", name, tuple(asked))
    return {key: (heading, question.format(**names | named)) for key, (heading, question) in asked.items()}


def _observed(record: FitRecord) -> str:
    """Return sentences on the sizes of the groups and, if effects are differences of averages, their raw means."""
    design, groups = record.design, []
    simple = not record.options.quantiles and design.offset is None and design.periods is None
    outcome = words.outcome_words(record).removeprefix("the ")
    for label, n, members in zip(design.labels, design.counts, design.members, strict=True):
        mean = ""
        if simple:
            value = np.average(design.y[design.recorded], weights=(members * design.weights)[design.recorded])
            mean = f", mean {outcome} {format_number(value)}{' where observed' * (design.observation is not None)}"
        groups.append(f"{label} ({words.count(int(n), design.unit_name)}{mean})")
    weighted = "" if design.weight_type is None else ", under the observation weights"
    return (
        f"Groups as observed{weighted}: {words.joined(groups)}. They may also differ in other ways, so "
        "the raw difference may not be the effect."
    )


def _weights(record: FitRecord) -> list[str]:
    name, design, population = record.spec.name, record.design, record.options.population
    if record.weight_fit is None:
        return [f"{name} uses no propensity score{' and no weights' * (design.weight_type is None)}."]
    if not record.spec.uses_propensity:
        return [f"{name} uses the propensity score only to define the target."]
    what = "1" if population is EVERYBODY else "(weight function of the target)"
    what = what if record.frame is None else "(density ratio)"
    if population.toward is not None:
        what = f"(probability of group {design.labels[population.toward]})"
    weight = f"Each row's weight is {what} / (probability of its own group)."
    if record.spec.matched:
        weight = "Each row's weight is 1 if in the target, plus 1 / (number of matches) for each unit it is matched to."
    weight += " It is also divided by the probability that the outcome is observed." * (design.observation is not None)
    weight += " Observation weights multiply these weights." * (design.weight_type == "probability")
    spread = [
        f"Group {label}: effective n {arm.effective_n:.1f} of {words.count(arm.n, design.unit_name)}, largest weight "
        f"{format_number(arm.heaviest)}."
        for label, arm in zip(design.labels, record.overlap, strict=True)
    ]
    return [weight, " ".join(spread), words.sentence(words.poor_overlap(record))]


def _training(record: FitRecord) -> list[str]:
    """Return a sentence on how each group's outcome model is fitted. Empty unless groups are fitted separately."""
    spec, joint = record.spec, record.joint
    if spec.constants and not record.options.quantiles:
        outcome = words.outcome_words(record)
        return [f"The model of each group is a constant, the {'weighted ' * spec.weighted}mean of {outcome}."]
    fitted = not (joint is not None or spec.constants or spec.matched or spec.given or record.options.quantiles)
    return [f"Each group's model is fitted only to rows of that group, {spec.trained}."] * fitted


def _effects(record: FitRecord) -> list[str]:
    names = record.names[len(record.effect_names) :]
    means, (_, spec) = record.estimate.params[record.estimate.block("means")], words.formats(record)
    found = words.joined([f"{name} = {mean:{spec}}" for name, mean in zip(names, means, strict=True)])
    what = "Potential-outcome means" if record.spec.constants else "For each group, the predicted outcomes are averaged"
    what = "Potential-outcome quantiles" if record.options.quantiles else what
    what = "For each group, a unit's outcome or the mean of its matches is averaged" if record.spec.matched else what
    how = "Then the group's weighted mean residual is added" if record.spec.normalized else record.spec.averaged
    how = "" if record.stack is not None or record.options.quantiles else how
    effects = "; ".join(words.effect_words(record, k) for k in range(len(record.effect_names)))
    given = f". {how}. This gives {found}." if how else f": {found}."
    return [f"{what} over {words.rows_words(record)}{given}", f"{effects}."]


def _tests(record: FitRecord, alpha: float) -> list[str]:
    null, (z, p), symbol = record.options.effect_scale.null, parameters(record).tests(), statistic_names(record.df)[0]
    texts = []
    for k, (name, text) in enumerate(zip(record.effect_names, words.uncertainty_words(record, alpha), strict=True)):
        test = f" Test of {name} = {null:g}: {symbol} = {z[k]:.2f}, p {signed_p(p[k])}." if z[k] == z[k] else ""
        texts.append(f"{name}: {text}.{test}")
    return [*texts, "The interval accounts for sampling error. It does not account for a violated assumption."]
