"""An event study in words, as a summary and as a page: units and groups, methods, report."""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from causalrisk.design.did import NEVER
from causalrisk.estimation.record import FitRecord
from causalrisk.numerics.multiplicities import JACKKNIFE
from causalrisk.report import labels as words
from causalrisk.report.page.explain import questions
from causalrisk.report.page.html import Part, figure_html, paragraph, write_page
from causalrisk.report.page.methods import references
from causalrisk.report.page.sections import (
    assumptions_part,
    check_page,
    methods_part,
    repeat_part,
    statements,
    summary_part,
)
from causalrisk.report.summary import head_texts, numbers_table
from causalrisk.report.tables.stacked import ResultSummary
from causalrisk.report.tables.table import ResultTable

TITLE = "Event Study: Difference-in-Differences by Group and Period"


@dataclass(frozen=True)
class StudyFacts:
    """The data of an event study in words: formula, columns, sizes of the groups, controls, clusters, df, its call."""

    formula: str
    begins: str
    time: str
    unit: str
    sizes: pd.Series
    periods: int
    controls: str
    clusters: str
    df: float
    call: str

    @property
    def outcome(self) -> str:
        """Name of the outcome."""
        return self.formula.partition("~")[0].strip()

    @property
    def groups(self) -> str:
        """Sizes of the groups in a sentence."""
        parts = [
            f"{size} never begin" if name == NEVER else f"{size} begin in {name}" for name, size in self.sizes.items()
        ]
        return f"Of {self.sizes.sum()} units by {self.unit}, {words.joined(parts)} ({self.begins})."

    @property
    def intervals(self) -> str:
        """Distribution of tests and intervals."""
        return "normal" if np.isinf(self.df) else f"of the t distribution with {self.df:.6g} degrees of freedom"


def summarize_event_study(
    record: FitRecord, facts: StudyFacts, tables: Mapping[str, pd.DataFrame], said: Sequence[str], title: str | None
) -> ResultSummary:
    """Compose the summary of an event study from its effects by heading, and notes on groups and controls."""
    texts = head_texts(record) | ({"Clusters:": facts.clusters} if facts.clusters else {})
    labels = ["Strata:", "PSUs:", "Population:", "Replicates:", *["Clusters:"] * bool(facts.clusters)]
    head = (
        ("Dep. Variable:", facts.outcome, "Target:", texts["Target:"]),
        ("Model:", texts["Model:"], "Propensity:", texts["Propensity:"]),
        ("Outcome model:", texts["Outcome model:"], "Std. errors:", texts["Std. errors:"]),
        ("Units:", f"{facts.unit} ({facts.sizes.sum()})", "Periods:", f"{facts.time} ({facts.periods})"),
        *((label, texts[label], "", "") for label in labels if label in texts),
    )
    right = str(record.design.propensity_formula).partition("~")[2].strip()
    notes = [
        "The effect on a group in a period compares its change since its last period without treatment with that of "
        "the controls; averages weight groups by size. Exposure is the number of periods since treatment began; "
        "effects before it are placebos. The intervals of a table are simultaneous and match its adjusted p-values; P "
        "is for each test alone.",
        f"Outcome: {facts.formula}" + f"   Propensity: {right}" * (record.weight_fit is not None),
        f"{facts.groups} Controls: {facts.controls}. Intervals are {facts.intervals}.",
        *said,
        words.trend_words(record),
    ]
    heading = ResultTable(head, aligns="lrlr", title=title or TITLE)
    return ResultSummary([heading, *(numbers_table(frame, name) for name, frame in tables.items())], notes)


def study_methods(record: FitRecord, facts: StudyFacts, said: Sequence[str]) -> str:
    """Return the methods paragraph of an event study."""
    survey, right = record.design.survey, str(record.design.propensity_formula).partition("~")[2].strip()
    models = ""
    if not record.spec.constants:
        models += f"; outcome models were {words.outcome_model_text(record)}: {facts.formula}"
    if record.weight_fit is not None:
        models += f"; the propensity model was {words.propensity_text(record)}: {right}"
    source = "from the influence functions of all fits"
    if survey is not None:
        source += f" for the survey design, {words.survey_words(survey)}"
    elif record.cov_type == JACKKNIFE:
        left_out = f"cluster of {facts.clusters}" if facts.clusters else "unit"
        source = f"by the jackknife, which makes the whole study again without each {left_out} in turn"
    elif facts.clusters:
        source += f", clustered by {facts.clusters}"
    source += ", with the factor for small samples" * record.small_sample
    sentences = [
        f"We estimated effects on {facts.outcome} of a treatment that units begin at different times, by "
        f"difference-in-differences for each group that begins together in each of {facts.periods} periods "
        f"({facts.time}; Callaway and Sant'Anna 2021).",
        f"Effects are on the change since the last period before the group began, against {facts.controls}.",
        facts.groups,
        f"Each is by {record.spec.how}{models}.",
        words.trend_words(record) + words.santanna_words(record),
        "Averages weight groups by size; standard errors account for the estimated sizes.",
        f"The joint covariance is {source}. Intervals are {facts.intervals}; those of several effects hold together.",
        *(note.splitlines()[0] for note in said),
    ]
    return " ".join(sentences)


def write_study(
    path: str | os.PathLike[str],
    record: FitRecord,
    facts: StudyFacts,
    *,
    title: str,
    summary: ResultSummary,
    plots: Mapping[str, Callable[[Any], Any]],
    placebos: str,
    assumptions: Mapping[str, str],
    said: Sequence[str],
) -> Path:
    """Write the page of an event study; `plots` draw each kind of average on Axes."""
    check_page(path, "study")
    asked = questions(record, treat=f"treatment ({facts.begins})", outcome=f"change of {facts.outcome}")
    stated = statements(assumptions, asked)
    caption = f"Effects on {facts.outcome} by {{}}, each by itself and all together."
    parts = [
        summary_part(summary),
        assumptions_part(asked, stated),
        Part("effects", "Effects", "\n".join(figure_html(caption.format(by), draw) for by, draw in plots.items())),
        Part("placebos", "Placebos", paragraph(placebos)),
        methods_part(study_methods(record, facts, said), references(record, staggered=True)),
        repeat_part("", facts.call),
    ]
    return write_page(path, title, [f"<h1>{html.escape(title)}</h1>"], parts)
