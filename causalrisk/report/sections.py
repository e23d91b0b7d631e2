"""The HTML page of a fit: each diagnostic with its plot, its table and its interpretation."""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd

from causalrisk.diagnostics import balance, scores, sensitivity
from causalrisk.errors import CausalRiskError, OptionError, check_alpha, failures_frame, one_of, with_other_names
from causalrisk.estimation.overlap import advice_on_overlap
from causalrisk.estimation.record import FitRecord
from causalrisk.report import explain, methods, plots, summary
from causalrisk.report import labels as words
from causalrisk.report.explain import Reading, by_contrast
from causalrisk.report.table import ResultSummary, escape_html, format_number, signed_p
from causalrisk.report.table_one import balance_for_paper
from causalrisk.runtime import write_file

FIGURE_SIZE = (5.4, 3.9)  # inches
DPI = 150
BADGES = {explain.GOOD: "Fine", explain.CAUTION: "Look closely", explain.BAD: "Problem"}
TOP, NAMED = 10, 5  # influential rows of the table, and of the plot
ROWS = (
    '"effect" is the difference of means. "ratio" is the risk ratio behind the E-value, and "basis" says how it was '
    'computed. Rows that end in "of limit" refer to the interval limit nearest to no effect.'
)
SCALE = (
    ' The bias is at most "scale" times sqrt(cf_y cf_d / (1 - cf_d)), where the confounder explains the share cf_y of '
    "the outcome's residual variance and the share cf_d of the variance of the weights."
)
Body = tuple[str, Reading | None]  # HTML below a heading, and its interpretation, if any
Asked = tuple[str, str, str, str]  # key and heading of an assumption, the question, and the author's statement
Row = tuple[str, str, Callable[[FitRecord, float], Body]]  # anchor and heading of a part, and what makes its body


@dataclass(frozen=True)
class Part:
    """A part of a page: anchor, heading, HTML below the heading, and its interpretation, if any."""

    anchor: str
    heading: str
    body: str
    reading: Reading | None = None

    def html(self) -> str:
        """Return the part as HTML."""
        said = ""
        if self.reading is not None:
            headline = f"{badge(self.reading)}<strong>{escape_html(self.reading.headline)}</strong>"
            said = "\n".join([f"<p>{headline}</p>", *map(paragraph, self.reading.texts)])
        return f'<section id="{self.anchor}">\n<h2>{html.escape(self.heading)}</h2>\n{said}\n{self.body}\n</section>'


def report(
    record: FitRecord,
    path: str | os.PathLike[str] = "report.html",
    title: str | None = None,
    alpha: float = 0.05,
    assumptions: Mapping[str, str] | None = None,
    short: bool = False,
) -> Path:
    """Write a self-contained web page: estimate, interpreted diagnostics, assumptions, and code to repeat the fit.

    Parameters
    ----------
    path : str or path, default "report.html"
        File to write; an existing file is replaced.
    title : str, optional
        Heading.
    alpha : float, default 0.05
        Significance level of the intervals.
    assumptions : mapping, optional
        Your statements on the assumptions that no data can check. The keys are "unconfoundedness", "no_post_treatment"
        and "no_interference". With `did`, "parallel_trends" replaces "unconfoundedness", and repeated cross sections
        add "same_population". `observed` adds "missing_at_random", and a target frame adds "equal_effects". Assumptions
        without a statement appear as open questions.
    short : bool, default False
        Whether to write one printed page only: estimate, findings, open questions, balance plot and methods paragraph.

    Returns
    -------
    Path
        The file. It contains all figures and loads nothing from elsewhere. The same fit always gives the same file.

    Raises
    ------
    UnavailableError
        If matplotlib is not installed.
    OptionError
        If an assumption is unknown, or the file name has an ending other than .html or .htm.
    """
    record.design.check_in_memory("the report", "Use `res.methods()`, `res.summary()` and `res.balance()`. ")
    one_of("short", short, (False, True))
    asked = _asked(record, path, alpha, assumptions)
    scored, means = record.spec.uses_propensity, not record.options.quantiles
    units = "rows" if record.design.cluster is None else "clusters"
    rows: list[Row] = [
        *_rows_of_score(record, "Overlap"),
        ("table-1", "Table 1", _table_one),
        *[("missing", "Missing outcomes", _missing)] * (scored and record.design.observation is not None),
        *[("distribution", "Distribution functions", _distribution)] * (not means),
        *[("influence", f"Influential {units}", _influence)] * means,
        *[("sensitivity", "An omitted confounder", _sensitivity)] * (scored and means),
        ("ledgers", "Rows, resamples and warnings", _ledgers),
        ("explained", "How the estimate was computed", _explained),
    ]
    text = methods.methods(record)
    parts = _parts(record, alpha, rows, summary.summary(record, alpha), text, asked)
    front = _front(record, alpha, parts, short)
    unanswered = [question for _, _, question, statement in asked if not statement]
    if unanswered:
        where = ":" if short else '; see <a href="#assumptions">Assumptions</a>.'
        front.append(f"<p>{words.count(len(unanswered), 'assumption')} to argue for{where}</p>")
    if short:
        front.append(f"<ul>{''.join(f'<li>{html.escape(text)}</li>' for text in unanswered)}</ul>" * bool(unanswered))
        kept = [replace(part, reading=None) for part in parts if part.anchor == "balance"]
        parts = [*kept, Part("methods", "Methods", paragraph(text))]
    return write_page(path, title or f"Report: {summary.one_line(record)}", front, parts, contents=not short)


def _asked(
    record: FitRecord, path: str | os.PathLike[str], alpha: float, assumptions: Mapping[str, str] | None,
    variable: str = "res", **named: str,
) -> list[Asked]:  # fmt: skip
    """Check the options of a report, and return the assumptions that it asks about. `named` is as in `questions`."""
    check_alpha(alpha)
    if Path(path).suffix.lower() not in ("", ".html", ".htm"):
        found = f"path={os.fspath(path)!r} is not a web page; expected a name that ends in .html"
        use = f'Use `{variable}.report("{Path(path).with_suffix(".html").as_posix()}")`.'
        raise OptionError(f"{found}.\n{use} A browser can print the page as PDF.")
    asked, given = explain.questions(record, assumptions, **named), assumptions or {}
    plots.pyplot()  # without matplotlib nothing is computed
    return [(key, *texts, str(given.get(key, "")).strip()) for key, texts in asked.items()]


def _rows_of_score(record: FitRecord, overlap: str) -> list[Row]:
    """Return the parts on overlap (heading `overlap`) and balance. Empty if the estimator has no propensity score."""
    balance_row: Row = "balance", "Balance of the covariates", _balance
    return [("overlap", overlap, _overlap), balance_row] * record.spec.uses_propensity


def _parts(
    record: FitRecord, alpha: float, rows: Sequence[Row], shown: ResultSummary, text: str, asked: Sequence[Asked],
    then: str = "",
) -> list[Part]:  # fmt: skip
    """Return the parts of a page: summary, assumptions, those made by `rows`, methods `text`, and code with `then`."""
    own = []
    for anchor, heading, make in rows:
        try:
            own.append(Part(anchor, heading, *make(record, alpha)))
        except CausalRiskError as error:
            reason = f"Not available for this fit: {str(error).splitlines()[0]}"
            own.append(Part(anchor, heading, paragraph(reason, "soft")))
    page = f'<div class="scroll summary" role="region" tabindex="0" aria-label="Summary">{shown.as_html()}</div>'
    said = [text for part in own for text in (part.reading.texts if part.reading else [part.body])]
    cited = methods.references(" ".join([text, *said]), record.options.population.reference)
    items = "".join(f"<li>{html.escape(reference)}</li>" for reference in cited)
    seed = methods.seeds_text(record).capitalize()
    repeat = [
        paragraph(f"{'. '.join(filter(None, [seed, methods.versions_text()]))}."),
        f"<pre><code>{html.escape(methods.call_of(record) + then)}</code></pre>",
        paragraph("`data` is the data frame that was used. Last digits may depend on versions and processors.", "soft"),
    ]
    return [
        Part("summary", "Summary", page),
        assumptions_part(asked),
        *own,
        Part("methods", "Methods", f"{paragraph(text)}\n<h3>References</h3>\n<ul>{items}</ul>"),
        Part("repeat", "How to repeat this", "\n".join(repeat)),
    ]


def _front(record: FitRecord, alpha: float, parts: Sequence[Part], short: bool) -> list[str]:
    """Return the top of the page below its heading: the answer in a sentence, and the findings of all diagnostics."""
    uncertain = enumerate(words.uncertainty_words(record, alpha))
    answers = [f"{words.effect_words(record, k)} ({text})." for k, text in uncertain]
    lines = []
    for part in parts:
        if part.reading is not None:
            name = html.escape(part.heading) if short else f'<a href="#{part.anchor}">{html.escape(part.heading)}</a>'
            lines.append(f"{badge(part.reading)}{name}: {escape_html(part.reading.headline)}")
    if record.joint is not None:
        gap = explain.read_gaps(record, record.joint)
        lines.append(f"{badge(gap)}{html.escape(gap.headline)}")
    return [
        f'<div class="answer">{"".join(map(paragraph, answers))}</div>',
        paragraph(methods.facts(record)["effect"][0], "soft"),
        "<h2>In short</h2>",
        f'<ul class="verdicts">{"".join(f"<li>{line}</li>" for line in lines)}</ul>',
    ]


def _overlap(record: FitRecord, alpha: float) -> Body:
    table, labels = scores.overlap(record), record.design.labels
    warned = bool(words.poor_overlap(record))
    options, unit_name, matched = record.options, record.design.unit_name, record.spec.matched
    advice = advice_on_overlap(record.spec, record.design, options, record.used_weight_fit)
    if record.trimmed:  # after trimming, the limits of Crump et al. do not apply
        table = table.drop(columns="outside crump")
    reading = explain.read_overlap(table, warned, options.population, advice, unit_name, matched)
    caption = f"Propensity scores of groups {{}} and {labels[0]}. Bars show the rows, lines the "
    caption += f"{'matched' if matched else 'weighted'} rows."
    figures = [figure_html(caption.format(label), plots.plot_overlap, record, arm=label) for label in labels[1:]]
    return "\n".join(figures), reading


def _balance(record: FitRecord, alpha: float) -> Body:
    table = balance.balance(record, "std")
    try:
        pvalue = float(scores.balance_test(record).pvalue) if record.uses_score else None
    except CausalRiskError:  # only some propensity models have the test
        pvalue = None
    parts = {contrast: table.xs(contrast) if record.design.n_arms > 2 else table for contrast in record.contrasts}
    how, on_covariates = record.spec.adjustment, record.spec.matched and record.options.metric != "propensity"
    where = f"the {'outcome' if on_covariates else 'propensity'} formula"
    readings = {contrast: explain.read_balance(part, pvalue, how, where) for contrast, part in parts.items()}
    caption = f"Differences between the groups before and after {how}. The dashed line is at 0.1."
    return figure_html(caption, plots.plot_balance, record), by_contrast(readings)


def _table_one(record: FitRecord, alpha: float) -> Body:
    table = balance_for_paper(record).as_html()
    return f'<div class="scroll" role="region" tabindex="0" aria-label="Table 1">{table}</div>', None


def _missing(record: FitRecord, alpha: float) -> Body:
    table = balance.balance(record, "std", between="observed")
    parts = {f"group {label}": table.xs(label) for label in record.design.labels}
    reading = by_contrast({name: explain.read_balance(part, None, where="observed=") for name, part in parts.items()})
    caption = (
        "Differences between the rows with an outcome and all rows of their group, before and after weighting. The "
        "plot shows the largest difference over the groups."
    )
    figure = figure_html(caption, plots.plot_balance, record, between="observed")
    shown = table_html(table.rename_axis(index={"arm": "group"}), "Rows with an outcome, and all rows")
    return paragraph(words.missing_words(record)) + figure + shown, reading


def _distribution(record: FitRecord, alpha: float) -> Body:
    level = f"{100 * (1 - alpha):.4g}%"
    caption = f"Share of outcomes at or below each value. The {level} bands are simultaneous over values and groups."
    return figure_html(caption, plots.plot_distribution, record, alpha=alpha), None


def _influence(record: FitRecord, alpha: float) -> Body:
    design, readings, body, several = record.design, {}, [], record.design.n_arms > 2
    clusters = design.cluster is not None
    named = (str(design.cluster_name), design.n_clusters) if clusters else None
    what, share = ("cluster", "largest share of a") if clusters else ("row", "share of its")
    method = sensitivity.influence_method(record, None, clusters, quick=True)
    tables = sensitivity.influence_tables(record, method, clusters)
    for position, (contrast, table) in enumerate(zip(record.contrasts, tables, strict=True), start=1):
        top = sensitivity.most_influential(table, TOP)
        readings[contrast] = explain.read_influence(top, named)
        of = f" of {contrast}" * several
        caption = f"Change in the effect{of} when a {what} is dropped, against its {share} group's weight."
        shown: dict[str, Any] = {"top": NAMED, "position": position, "clusters": clusters}
        body.append(figure_html(caption, plots.draw_changes, record, table, **shown))
        heading = f"The {len(top)} most influential {what}s{f' for the effect{of}' * several}"
        body.append(table_html(top.rename(columns={"arm": "group"}), heading))
    return "\n".join(body), by_contrast(readings)


def _sensitivity(record: FitRecord, alpha: float) -> Body:
    table = sensitivity.sensitivity(record, alpha)
    reading = by_contrast({str(contrast): explain.read_sensitivity(row, alpha) for contrast, row in table.iterrows()})
    known = table.dropna(axis=1, how="all")
    note = paragraph(ROWS + SCALE * ("scale" in known), "soft")
    return table_html(known, "Sensitivity to an omitted confounder", turned=True) + note, reading


def _ledgers(record: FitRecord, alpha: float) -> Body:
    """Return counts of dropped and kept rows, counts of resamples by reason of failure, and the warnings."""
    design, joint = record.design, record.joint
    units = design.unit_name.replace("observation", "row") + "s"
    flow = [(f"{units} of the data", len(design.in_sample))]
    flow += [("outside the subpopulation", -design.n_outside)] * bool(design.n_outside)
    flow += [(f"left out: {why}", -own) for why, _, own in words.left_out(design)]
    flow.append((f"{units} of the sample", design.n))
    groups = zip(design.labels, design.members.sum(axis=1), strict=True)
    flow += [(f"{design.treat_name} = {label}", rows) for label, rows in groups]
    flow += [(f"{units} of the sample without an outcome", design.n_unrecorded)] * bool(design.n_unrecorded)
    table = pd.DataFrame(flow, columns=["", units]).set_index("")
    blocks = [table_html(table, "From the data to the sample")]
    drawn = {"Resamples": record.boot, "Draws of the propensity score": None if joint is None else joint.replicates}
    for what, draws in drawn.items():
        if draws is not None:
            reasons = failures_frame(draws.failures, what)["reason"].value_counts().items()
            blocks.append(paragraph(f"{what}: {words.joined([f'{number} {reason}' for reason, number in reasons])}."))
    return "\n".join([*blocks, *(paragraph(f"Warning: {note}") for note in record.notes)]), None


def _explained(record: FitRecord, alpha: float) -> Body:
    prose = explain.explain(record, alpha)
    steps = {heading: texts for heading, texts in prose.sections.items() if heading != explain.UNTESTED}
    return replace(prose, sections=steps).as_html().partition("\n")[2], None


def assumptions_part(asked: Sequence[Asked]) -> Part:
    """Return the author's statements on the assumptions, and the open questions."""
    blocks = [paragraph("The data cannot prove these assumptions. The author of the report must argue for each.")]
    for key, heading, question, statement in asked:
        title = f"<h3>{html.escape(heading)}</h3>{paragraph(question)}"
        if statement:
            blocks.append(f'<div class="stated">{title}{paragraph(statement)}</div>')
            continue
        field = f'<div contenteditable="true" role="textbox" aria-multiline="true" aria-label="{html.escape(heading)}">'
        hint = paragraph(f'Not yet answered. Write here, or use `report(assumptions={{"{key}": "..."}})`.', "soft")
        blocks.append(f'<div class="open">{title}{field}</div>{hint}</div>')
    return Part("assumptions", "Assumptions", "\n".join(blocks))


class HasReport:
    """Base class of results with their own kind of report. `_report_parts` returns its parts."""

    @with_other_names
    def report(
        self: Any,
        path: str | os.PathLike[str] = "report.html",
        title: str | None = None,
        alpha: float = 0.05,
        assumptions: Mapping[str, str] | None = None,
    ) -> Path:
        """Write a web page with the summary, the assumptions, the methods and diagnostics.

        For an event study, these are plots and a test of the placebos. For `LATE`, they describe the compliers, and the
        overlap and balance of the instrument. For pooled fits, overlap and balance are from the first imputed data set.

        Parameters
        ----------
        path : str or path, default "report.html"
            File to write; an existing file is replaced.
        title : str, optional
            Heading.
        alpha : float, default 0.05
            Significance level of the intervals.
        assumptions : mapping, optional
            Your statements on assumptions that no data can check. The keys are "no_post_treatment", "no_interference"
            and "unconfoundedness" (or "parallel_trends" with difference-in-differences). `LATE` adds "exclusion" and
            "monotonicity". Assumptions without a statement appear as open questions.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        UnavailableError
            If matplotlib is not installed.
        OptionError
            If an assumption is unknown, or the file name has an ending other than .html or .htm.
        """
        rows, then, named = self._report_parts()
        asked = _asked(self._record, path, alpha, assumptions, self._place[1], **named)
        parts = _parts(self._record, alpha, rows, self.summary(alpha), self.methods(), asked, then)
        return write_page(path, title or f"Report: {self!r}", [], parts)


Own = tuple[list[Row], str, dict[str, str]]  # parts of a page, code after the call, and words for the assumptions


def study_parts(study: Any) -> Own:
    """Return the parts of the report of an event study."""

    def effects(record: FitRecord, alpha: float) -> Body:
        said = "Effects on {} by {}: pointwise and simultaneous intervals.".format
        return "\n".join(figure_html(said(study.outcome, by), study.plot, by, alpha=alpha) for by in plots.ALONG), None

    def placebos(record: FitRecord, alpha: float) -> Body:
        test = study.pretrend_test()
        return paragraph(
            f"Before treatment there should be no effect. Hotelling's F test that all {study.placebos.sum()} placebos "
            f"are zero: F({test.df_num:g}, {test.df_denom:g}) = {test.statistic.item():.2f}, p "
            f"{signed_p(float(test.pvalue))}. A small p-value is evidence against parallel trends. A large one does "
            "not show that trends are parallel."
        ), None

    named = {"treat": "treatment", "outcome": f"the change of {study.outcome}"}
    return [("effects", "Effects", effects), ("placebos", "Placebos", placebos)], "", named


def late_parts(res: Any) -> Own:
    """Return the parts of the report of `LATE`."""

    def compliers(record: FitRecord, alpha: float) -> Body:
        return table_html(res.compliers(), "Means of all units and of compliers"), None

    rows = [("compliers", "Compliers", compliers), *_rows_of_score(res._record, "Overlap of the instrument")]
    return rows, "", {"treat": res.model.treat, "instrument": res.model.instrument}


def pooled_parts(pooled: Any) -> Own:
    """Return the parts of the report of pooled fits."""
    then = "\n\n# `fits`: one such result per imputed data set\nimport causalrisk\n\npooled = causalrisk.pool(fits)"
    return _rows_of_score(pooled._record, "Overlap in the first imputed data set"), then, {}


def write_page(
    path: str | os.PathLike[str], title: str, top: Sequence[str], parts: Sequence[Part], contents: bool = True
) -> Path:
    """Write the heading and the top of a page, links to its parts, and the parts. Return the path of the file."""
    links = "".join(f'<li><a href="#{part.anchor}">{html.escape(part.heading)}</a></li>' for part in parts)
    nav = f'<nav aria-label="Contents"><h2>Contents</h2><ul>{links}</ul></nav>' * contents
    body = "\n".join([f"<h1>{html.escape(title)}</h1>", *top, nav, *(part.html() for part in parts)])
    files = resources.files(__package__)
    page, style = (files.joinpath(name).read_text("utf-8") for name in ("page.html", "style.css"))
    return write_file(path, page.format(title=html.escape(title), style=style, body=body))


def badge(reading: Reading) -> str:
    """Return a verdict as a word on a coloured background. Empty without a verdict."""
    verdict = reading.verdict
    return f'<span class="badge {verdict}">{BADGES[verdict]}</span>' if verdict else ""


def paragraph(text: str, kind: str = "") -> str:
    """Return a text as a paragraph, escaped."""
    return f'<p class="{kind}">{escape_html(text)}</p>' if kind else f"<p>{escape_html(text)}</p>"


def table_html(frame: pd.DataFrame, caption: str, turned: bool = False) -> str:
    """Return a frame as a table with a caption. Cells of missing values are empty."""

    def cell(value: Any) -> str:
        return "" if pd.isna(value) else format_number(value) if isinstance(value, float) else str(value)

    shown, label = frame.astype(object).map(cell), html.escape(caption)
    shown = shown.T.rename_axis(None) if turned else shown
    with pd.option_context("display.max_colwidth", None):
        cells = shown.to_html(border=0).replace("<thead>", f"<caption>{label}</caption>\n<thead>", 1)
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{label}">\n{cells}</div>'


def figure_html(caption: str, plot: Callable[..., Any], *given: Any, **options: Any) -> str:
    """Return a plot as an image within the page. The caption is also the alternative text of the image."""
    figure = plots.pyplot().Figure(figsize=FIGURE_SIZE, layout="constrained")
    stream, label = io.BytesIO(), html.escape(caption)
    plot(*given, ax=figure.subplots(), **options)
    figure.savefig(stream, format="png", dpi=DPI, metadata={"Software": None})
    data = base64.b64encode(stream.getvalue()).decode("ascii")
    size = f'width="{round(FIGURE_SIZE[0] * 100)}" height="{round(FIGURE_SIZE[1] * 100)}"'
    image = f'<img src="data:image/png;base64,{data}" {size} alt="{label}">'
    return f"<figure>\n{image}\n<figcaption>{label}</figcaption>\n</figure>"
