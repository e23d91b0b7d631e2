"""An event study in words and as a page: units and groups, methods, report."""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from causalrisk.errors import words
from causalrisk.estimators.record import FitRecord
from causalrisk.report.labels import StudyFacts, outcome_model_text, propensity_text, survey_words, trend_words
from causalrisk.report.page.html import blank_figure, figure_html, page, paragraph
from causalrisk.report.page.methods import references
from causalrisk.report.page.sections import (
    Part,
    assumptions_of,
    assumptions_part,
    check_page,
    contents,
    methods_part,
    repeat_part,
    statements,
    summary_part,
)
from causalrisk.report.tables.stacked import ResultSummary
from causalrisk.runtime.files import write_whole


def study_methods(record: FitRecord, facts: StudyFacts) -> str:
    """Return the methods paragraph of an event study; `record` is the first of its fits."""
    survey, right = record.design.survey, str(record.design.propensity_formula).partition("~")[2].strip()
    models = [] if record.spec.constants else [f"outcome models were {outcome_model_text(record)}: {facts.formula}"]
    models += [] if record.weight_fit is None else [f"the propensity model was {propensity_text(record)}: {right}"]
    source = "from the influence functions of all fits"
    if survey is not None:
        source += f" for the survey design, {survey_words(survey)}"
    elif facts.clusters:
        source += f", clustered by {facts.clusters}"
    return (
        f"We estimated effects on {facts.outcome} of a treatment that units begin at different times, by "
        f"difference-in-differences for each group that begins together in each of {facts.periods} periods "
        f"({facts.time}; Callaway and Sant'Anna 2021): effects on the change since the last period before the group "
        f"began, against {facts.controls}. {facts.groups} Each is by {record.spec.how}"
        f"{''.join(f'; {text}' for text in models)}. {trend_words(record)} Averages weigh groups by their sizes. The "
        f"joint covariance is {source}, the estimation of the sizes counted; intervals are {facts.intervals}, and "
        "those of several effects hold together."
    )


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
) -> Path:
    """Write the page of an event study.

    Parameters
    ----------
    path : str or path
        Where to write.
    record : FitRecord
        The first of the fits.
    facts : StudyFacts
        The data.
    title : str
        Heading.
    summary : ResultSummary
        The summary.
    plots : mapping of str to callable
        For each kind of average what draws it on Axes.
    placebos : str
        What the placebos say.
    assumptions : mapping
        The author's statements.

    Returns
    -------
    Path
        The file.
    """
    check_page(path, "study")
    stated = statements(assumptions, assumptions_of(record))
    blank_figure()  # without matplotlib nothing is drawn
    captions = {by: f"Effects on {facts.outcome} by {by}, each by itself and all together." for by in plots}
    figures = [figure_html(draw, captions[by], captions[by]) for by, draw in plots.items()]
    named = {"treat": f"the treatment ({facts.begins})", "outcome": f"change of {facts.outcome}"}
    cited = sorted({words.table("references")["callaway_2021"], *references(record, False, False, False)})
    parts = [
        summary_part(summary),
        assumptions_part(record, stated, **named),
        Part("effects", "Effects", "\n".join(figures)),
        Part("placebos", "Placebos", paragraph(placebos)),
        methods_part(study_methods(record, facts), cited),
        repeat_part("", facts.call),
    ]
    body = [f"<h1>{html.escape(title)}</h1>", contents(parts), *(part.html() for part in parts)]
    return write_whole(path, page(title, body))
