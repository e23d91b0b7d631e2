"""The HTML page of a fit: each diagnostic with its plot, its table and its reading."""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from causalrisk.design import ScannedDesign
from causalrisk.design.design import rows_not_kept
from causalrisk.diagnostics.balance import balance
from causalrisk.diagnostics.influence import influence_tables, most_influential, quick_method
from causalrisk.diagnostics.risk import anchor_path, joint_of
from causalrisk.diagnostics.scores import balance_test, overlap, trim_curve
from causalrisk.diagnostics.sensitivity import sensitivity
from causalrisk.errors import CausalRiskError, OptionError, check_alpha, failures_frame, listed, nearest_name
from causalrisk.estimation.overlap import populations_that_overlap
from causalrisk.estimation.record import FitRecord
from causalrisk.estimation.targets import ALL
from causalrisk.inference.intervals import parameter_limits
from causalrisk.numerics.multiplicities import seed_text
from causalrisk.report import labels as words
from causalrisk.report.page import verdicts
from causalrisk.report.page.explain import explain, questions
from causalrisk.report.page.html import badge, blank_figure, figure_html, formatted, page, paragraph, table_html
from causalrisk.report.page.methods import call_of, methods, references, sample_sentence, versions_text
from causalrisk.report.page.verdicts import Reading, by_contrast
from causalrisk.report.plots import fits as plots
from causalrisk.report.summary import one_line, summary
from causalrisk.report.tables.stacked import ResultSummary
from causalrisk.report.tables.text import format_number, format_share
from causalrisk.runtime.system import write_whole

TOP, NAMED = 10, 5  # influential rows of the table, and of the plot
Body = tuple[str, Reading | None]  # HTML below a heading, and what is said in the overview


@dataclass(frozen=True)
class Part:
    """A part of the page: anchor, heading, HTML below it, and its reading in the overview."""

    anchor: str
    heading: str
    body: str
    reading: Reading | None = None

    def html(self) -> str:
        """Return the part as HTML."""
        said, found = "", self.reading
        if found is not None:
            said = f"<p>{badge(found.verdict)}<strong>{html.escape(found.headline)}</strong></p>\n"
            said += "\n".join(paragraph(text) for text in found.texts)
        return f'<section id="{self.anchor}">\n<h2>{html.escape(self.heading)}</h2>\n{said}\n{self.body}\n</section>'


def report(
    record: FitRecord,
    path: str | os.PathLike[str] = "report.html",
    title: str | None = None,
    alpha: float = 0.05,
    assumptions: Mapping[str, str] | None = None,
) -> Path:
    """Write one self-contained page: estimate, diagnostics with their reading, assumptions, how to repeat it.

    Parameters
    ----------
    path : str or path, default "report.html"
        Where to write; a file that exists is replaced.
    title : str, optional
        Heading.
    alpha : float, default 0.05
        Significance level of the intervals.
    assumptions : mapping, optional
        Your statements on "unconfoundedness", "no_post_treatment" and "no_interference", the assumptions that no data
        can check; with `did`, "parallel_trends" instead of the first, and with repeated cross sections also
        "same_population"; with `observed`, also "missing_at_random". The page shows those you leave out as open
        questions.

    Returns
    -------
    Path
        The file. It contains its figures and loads nothing. The same fit gives the same bytes.

    Raises
    ------
    UnavailableError
        If matplotlib is not installed.
    OptionError
        If an assumption is not one of these, or the name of the file is not that of a web page.
    """
    check_alpha(alpha)
    check_page(path)
    if isinstance(record.design, ScannedDesign):
        raise rows_not_kept("the report", "Use `res.methods()`, `res.summary()` and `res.balance()`. ")
    asked = questions(record)
    stated = statements(assumptions or {}, asked)
    blank_figure()  # without matplotlib nothing is computed
    heading = title or f"Report: {one_line(record)}"
    parts = parts_of(record, alpha, assumptions_part(asked, stated))
    top = front(record, heading, alpha, parts, open_questions=len(asked) - len(stated))
    return write_page(path, heading, top, parts)


def check_page(path: str | os.PathLike[str], variable: str = "res") -> None:
    """Refuse a name of another kind of file than a web page; `variable` is what the results are called in examples."""
    if Path(path).suffix.lower() not in ("", ".html", ".htm"):
        page_path = Path(path).with_suffix(".html").as_posix()
        raise OptionError(
            f"the report is a web page (a browser prints it as PDF); {os.fspath(path)!r} is another kind of file.\n"
            f'Use `{variable}.report("{page_path}")`.'
        )


def statements(assumptions: Mapping[str, str], known: Mapping[str, Any]) -> dict[str, str]:
    """Return the statements on assumptions that are not empty; an OptionError for unknown ones."""
    for name in assumptions:
        if name not in known:
            close = nearest_name(name, known)
            raise OptionError(
                f"assumptions: {name!r} is not known; expected any of {listed(tuple(known))}."
                + (f'\nUse `assumptions={{"{close}": "..."}}`.' if close else "")
            )
    return {name: text for name, text in assumptions.items() if str(text).strip()}


def parts_of(record: FitRecord, alpha: float, assumptions: Part) -> list[Part]:
    """Return the parts of the report that a fit's estimator has, in the order of the page."""
    scored, joint, means = record.spec.uses_propensity, record.joint, not record.options.quantiles
    units = "rows" if record.design.cluster is None else "clusters"
    diagnostics: tuple[tuple[bool, str, str, Callable[[], Body]], ...] = (
        (scored, "overlap", "Overlap", lambda: _overlap(record)),
        (scored, "balance", "Balance of the covariates", lambda: _balance(record)),
        (scored and record.design.observation is not None, "missing", "Missing outcomes", lambda: _missing(record)),
        (not means, "distribution", "Distribution functions", lambda: _distribution(record, alpha)),
        (scored and means, "trimming", "Trimming", lambda: _trimming(record)),
        (joint is not None and joint.path is not None, "anchor", "The anchor", lambda: _anchor(record, alpha)),
        (means, "influence", f"Influential {units}", lambda: _influence(record)),
        (scored and means, "sensitivity", "An omitted confounder", lambda: _sensitivity(record, alpha)),
    )
    found = [_attempted(anchor, heading, make) for holds, anchor, heading, make in diagnostics if holds]
    done = {part.anchor for part in found if part.reading is not None}
    crump = "overlap" in done and record.options.population is ALL
    cited = references(record, crump, "balance" in done, "sensitivity" in done)
    return [
        summary_part(summary(record, alpha)),
        assumptions,
        *found,
        _ledgers(record),
        Part("explained", "How the estimate came about", explain(record, alpha).as_html().partition("\n")[2]),
        methods_part(methods(record), cited),
        repeat_part(f"Seed {seed_text(record.seed)}. ", call_of(record)),
    ]


def _attempted(anchor: str, heading: str, make: Callable[[], Body]) -> Part:
    """Return a diagnostic, or the reason why this fit has none."""
    try:
        return Part(anchor, heading, *make())
    except CausalRiskError as error:
        reason = str(error).partition("\n")[0]
        return Part(anchor, heading, paragraph(f"Not available for this fit: {reason}", "soft"))


def front(record: FitRecord, heading: str, alpha: float, parts: Sequence[Part], open_questions: int) -> list[str]:
    """Return the top of the page: heading, answer in a sentence, and headlines of all diagnostics."""
    se, limits, (spec, _) = record.std_errors, parameter_limits(record, alpha), words.formats(record)
    answers = [
        f"{words.effect_words(record, k)} (standard error {se[k]:{spec}}, {100 * (1 - alpha):.4g}% interval "
        f"{limits[k, 0]:{spec}} to {limits[k, 1]:{spec}})"
        for k in range(len(record.effect_names))
    ]
    what = f"The {words.estimand_words(record)} of {record.design.treat_name} on {words.outcome_words(record)}, over "
    lines = [
        f'<li>{badge(part.reading.verdict)}<a href="#{part.anchor}">{html.escape(part.heading)}</a>: '
        f"{html.escape(part.reading.headline)}</li>"
        for part in parts
        if part.reading is not None
    ]
    if record.joint is not None:
        pairs = zip(record.contrasts, record.estimate.params, record.joint.start.params, se, strict=False)
        gap = by_contrast({contrast: verdicts.read_gap(own, start, error) for contrast, own, start, error in pairs})
        lines.append(f"<li>{badge(gap.verdict)}{html.escape(gap.headline)}</li>")
    if open_questions:
        have = f"{words.count(open_questions, 'assumption')} {'has' if open_questions == 1 else 'have'} no argument yet"
        lines.append(f'<li><a href="#assumptions">Assumptions</a>: {have}.</li>')
    return [
        f"<h1>{html.escape(heading)}</h1>",
        f'<div class="answer">{"".join(paragraph(f"{answer}.") for answer in answers)}</div>',
        paragraph(f"{what}{words.rows_words(record)}, by {record.spec.title.removesuffix(' Results')}.", "soft"),
        "<h2>In short</h2>",
        f'<ul class="verdicts">{"".join(lines)}</ul>',
    ]


def write_page(path: str | os.PathLike[str], heading: str, top: Sequence[str], parts: Sequence[Part]) -> Path:
    """Write the top of a page, links to its parts, and the parts; return the path of the file."""
    links = "".join(f'<li><a href="#{part.anchor}">{html.escape(part.heading)}</a></li>' for part in parts)
    contents = f'<nav aria-label="Contents"><h2>Contents</h2><ul>{links}</ul></nav>'
    return write_whole(path, page(heading, [*top, contents, *(part.html() for part in parts)]))


def summary_part(found: ResultSummary) -> Part:
    """Return the summary."""
    start = '<div class="scroll summary" role="region" tabindex="0" aria-label="Summary">'
    return Part("summary", "Summary", f"{start}{found.as_html()}</div>")


def _overlap(record: FitRecord) -> Body:
    table, labels = overlap(record), record.design.labels
    warned = any(note.startswith("poor overlap") for note in record.notes)
    instead = populations_that_overlap(record.used_weight_fit, record.design, record.options)
    everybody = record.options.population is ALL
    reading = verdicts.read_overlap(table, warned, everybody, unit_name=record.design.unit_name, instead=instead)
    figures = [
        figure_html(
            partial(plots.plot_overlap, record, arm=label),
            f"Propensity scores in arm {label} and in arm {labels[0]}: bars are rows, lines rows as weighted.",
        )
        for label in labels[1:]
    ]
    whole = ("n", "outside support", "outside crump")
    formatting = {str(c): _whole if c in whole else format_share if "share" in str(c) else _three for c in table}
    shown = formatted(table, formatting).T.rename_axis(None)
    return "\n".join([*figures, table_html(shown, "Overlap by arm")]), reading


def _balance(record: FitRecord) -> Body:
    table = balance(record)
    try:
        pvalue = float(balance_test(record).pvalue)
    except CausalRiskError:  # only some propensity models have the test
        pvalue = None
    parts = {contrast: table.xs(contrast) if record.design.n_arms > 2 else table for contrast in record.contrasts}
    reading = by_contrast({contrast: verdicts.read_balance(part, pvalue) for contrast, part in parts.items()})
    caption = "Differences between the arms before and after weighting; the dashed line is at 0.1."
    return figure_html(partial(plots.plot_balance, record), caption) + _balance_html(table, "Balance"), reading


def _balance_html(table: pd.DataFrame, caption: str) -> str:
    return table_html(formatted(table, {str(c): _three for c in table if c not in ("kind", "unit")}), caption)


def _missing(record: FitRecord) -> Body:
    table = balance(record, between="observed")
    parts = {f"arm {label}": table.xs(label) for label in record.design.labels}
    reading = by_contrast({name: verdicts.read_balance(part, None, observed=True) for name, part in parts.items()})
    figure = figure_html(
        partial(plots.plot_balance, record, between="observed"),
        "Differences of the rows with an outcome and all rows of their arm, before and after weighting; the larger one "
        "of the arms.",
    )
    return paragraph(words.missing_words(record)) + figure + _balance_html(table, "Observed and all"), reading


def _trimming(record: FitRecord) -> Body:
    curve, labels = trim_curve(record), record.design.labels
    readings, tables = {}, []
    for contrast, label, se in zip(record.contrasts, labels[1:], record.std_errors, strict=False):
        own = curve if len(labels) == 2 else curve.xs(label, level="arm")
        own = own.set_axis([_kept(limit, len(labels)) for limit in own.index]).rename_axis("scores kept")
        readings[contrast] = verdicts.read_trimming(own, se)
        caption = f"Effect{_of(record, contrast)} by trimming (robust standard errors)"
        tables.append(table_html(formatted(own.drop(columns="note"), {"n": _whole}), caption))
    return "\n".join(tables), by_contrast(readings)


def _kept(limit: Any, n_arms: int) -> str:
    """Return limits of the score as `trim_curve` names them: an interval, or of several arms the lower limit."""
    if not isinstance(limit, float) or not limit:
        return str(limit or "all")
    return f"[{limit:g}, {1 - limit:g}]" if n_arms == 2 else f"{limit:.3g} or more"


def _anchor(record: FitRecord, alpha: float) -> Body:
    path, joint = anchor_path(record), joint_of(record)
    chosen, raised_from = float(joint.anchor or 0.0), None if joint.path is None else joint.path.raised_from
    reading = verdicts.read_anchor(path, chosen, raised_from, record.std_errors[0], words.ladder_end_words(joint))
    caption = "Effect with intervals by cross-validation, over the anchor; the circle is the one chosen."
    figure = figure_html(partial(plots.plot_anchor_path, record, alpha=alpha), caption)
    shown = path.set_axis([f"{anchor:g}" for anchor in path.index]).rename_axis("anchor")
    return figure + table_html(formatted(shown), "Effect by anchor (std err: by cross-validation)"), reading


def _influence(record: FitRecord) -> Body:
    clusters = record.design.cluster is not None
    named = (str(record.design.cluster_name), record.design.n_clusters) if clusters else None
    method, what = quick_method(record, clusters), "cluster" if clusters else "row"
    formatting: dict[str, Callable[[Any], str]] = {"n": _whole, "in std errors": _three, "weight share": format_share}
    readings, body = {}, []
    for position, table in enumerate(influence_tables(record, method, clusters), start=1):
        contrast = record.contrasts[position - 1]
        top, of = most_influential(table, TOP), _of(record, contrast)
        readings[contrast] = verdicts.read_influence(top, named)
        figure = figure_html(
            partial(plots.draw_changes, record, table, top=NAMED, position=position, clusters=clusters),
            f"How much the effect{of} moves without each {what}, against the {what}'s share of the weight of an arm.",
        )
        heading = f"The {len(top)} most influential {what}s{of and f' for the effect{of}'}"
        body += [figure, table_html(formatted(top, formatting), heading)]
    return "\n".join(body), by_contrast(readings)


def _of(record: FitRecord, contrast: str) -> str:
    """Return " of" with the effect's name where there are several effects; else empty."""
    return "" if record.design.n_arms == 2 else f" of {contrast}"


def _distribution(record: FitRecord, alpha: float) -> Body:
    caption = f"Share of outcomes up to each value; the bands hold for all values and arms at once, at {1 - alpha:.4g}."
    return figure_html(partial(plots.plot_distribution, record, alpha=alpha), caption), None


def _sensitivity(record: FitRecord, alpha: float) -> Body:
    table = sensitivity(record, alpha)
    formatting = {str(c): _three for c in table if c not in ("effect", "scale", "basis")}
    shown = table_html(formatted(table, formatting).T.rename_axis(None), "Sensitivity to an omitted confounder")
    reading = by_contrast({str(contrast): verdicts.read_sensitivity(row, alpha) for contrast, row in table.iterrows()})
    return shown, reading


def _ledgers(record: FitRecord) -> Part:
    ledger, body = record.design.sample_ledger, [paragraph(sample_sentence(record))]
    if len(ledger):
        body.append(table_html(formatted(ledger), "Rows that were left out, and why"))
    for what, failures in (
        ("Resamples", None if record.boot is None else record.boot.failures),
        ("Propensity replicates", None if record.joint is None else record.joint.replicates.failures),
    ):
        if failures is not None:
            found = failures_frame(failures, what)["reason"].value_counts()
            counts = words.joined([f"{number} {reason}" for reason, number in found.items()])
            body.append(paragraph(f"{what}: {counts}."))
    body += [paragraph(f"Warning: {note}") for note in record.notes]
    return Part("ledgers", "Rows, resamples and warnings", "\n".join(body))


def assumptions_part(asked: Mapping[str, tuple[str, str]], stated: Mapping[str, str]) -> Part:
    """Return the author's statements on the assumptions, and open questions."""
    blocks = [paragraph("No data can check these. The author of the report has to argue for each of them.")]
    for key, (heading, question) in asked.items():
        title = f"<h3>{html.escape(heading)}</h3>{paragraph(question)}"
        if key in stated:
            blocks.append(f'<div class="stated">{title}{paragraph(stated[key])}</div>')
            continue
        field = f'<div contenteditable="true" role="textbox" aria-multiline="true" aria-label="{html.escape(heading)}">'
        hint = paragraph(f'Not yet answered. Write here and print, or pass assumptions={{"{key}": "..."}}.', "soft")
        blocks.append(f'<div class="open">{title}{field}</div>{hint}</div>')
    return Part("assumptions", "Assumptions", "\n".join(blocks))


def methods_part(text: str, cited: Sequence[str]) -> Part:
    """Return the methods paragraph and the references."""
    items = "".join(f"<li>{html.escape(reference)}</li>" for reference in cited)
    return Part("methods", "Methods", f"{paragraph(text)}\n<h3>References</h3>\n<ul>{items}</ul>")


def repeat_part(said: str, call: str) -> Part:
    """Return the call that repeats the results, and the versions."""
    body = [
        paragraph(f"{said}{versions_text()}."),
        f"<pre><code>{html.escape(call)}</code></pre>",
        paragraph("data is the data frame that was used; the same versions give the same digits.", "soft"),
    ]
    return Part("repeat", "Repeat it", "\n".join(body))


def _whole(value: Any) -> str:
    return f"{value:.0f}"


def _three(value: Any) -> str:
    return f"{value:.3f}" if abs(value) < 1000 else format_number(value)
