"""The HTML page of a fit: each diagnostic with its plot, its table and its reading."""

from __future__ import annotations

import dataclasses
import html
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from causalrisk.design import ScannedDesign
from causalrisk.design.design import rows_not_kept
from causalrisk.diagnostics.balance import balance
from causalrisk.diagnostics.influence import influence_tables, most_influential, quick_method
from causalrisk.diagnostics.risk import anchor_path, estimator_risks, joint_of, penalty_path
from causalrisk.diagnostics.scores import balance_test, overlap, trim_curve
from causalrisk.diagnostics.sensitivity import sensitivity
from causalrisk.errors import CausalRiskError, OptionError, check_alpha, failures_frame, listed, nearest_name
from causalrisk.estimation.targets import ALL
from causalrisk.estimators.overlap import populations_that_overlap
from causalrisk.estimators.record import FitRecord
from causalrisk.inference.fitted_models import learner_fit, stack_table, used_learned
from causalrisk.inference.intervals import conf_int, parameter_limits, with_choice
from causalrisk.numerics.multiplicities import seed_text
from causalrisk.report import plots
from causalrisk.report.labels import (
    effect_words,
    estimand_words,
    formats,
    joined,
    ladder_end_words,
    learner_words,
    missing_words,
    outcome_words,
    population_words,
    variables_of,
)
from causalrisk.report.page import verdicts
from causalrisk.report.page.explain import explain
from causalrisk.report.page.html import (
    badge,
    blank_figure,
    figure_html,
    formatted,
    page,
    paragraph,
    reading_html,
    table_html,
)
from causalrisk.report.page.methods import call_of, methods, references, versions_text
from causalrisk.report.page.verdicts import BAD, Reading, by_contrast
from causalrisk.report.summary import one_line, summary
from causalrisk.report.tables.stacked import ResultSummary
from causalrisk.report.tables.text import format_number, format_share
from causalrisk.runtime.system import write_whole

TOP, NAMED = 10, 5  # influential rows of the table, and of the plot
MONTE_CARLO = "the Monte Carlo standard error"  # how the note of a fit with few replicates begins
GRID = (0.1, 1.0, 10.0, 100.0)  # penalties tried, in units of n, beside none, the fit's and n^2
ASSUMPTIONS = {
    "unconfoundedness": (
        "No common cause is missing (unconfoundedness)",
        "Why do the covariates hold every common cause of {treat} and {outcome}?",
    ),
    "no_post_treatment": (
        "No covariate is a consequence of the treatment",
        "When was each covariate measured, and why can {treat} not have changed it? Covariates: {covariates}.",
    ),
    "no_interference": ("No interference", "Why does the {outcome} of one row not depend on the {treat} of another?"),
}
TRENDS = {
    "parallel_trends": (
        "Untreated, the treated would have changed as the controls did (conditional parallel trends)",
        "Why would the {outcome} have been alike without {treat} in both arms given the covariates, and why did nobody "
        "react before {treat} began?",
    )
}
SECTIONS = {
    "same_population": (
        "The units of both periods are of the same population",
        "How were they found in each period, and why are neither the {covariates} nor {treat} distributed otherwise?",
    )
}
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
        said = "" if self.reading is None else reading_html(self.reading)
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
        "same_population". The page shows those you leave out as open questions.

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
    stated = statements(assumptions or {}, assumptions_of(record))
    blank_figure()  # without matplotlib nothing is computed
    heading = title or f"Report: {one_line(record)}"
    parts = parts_of(record, alpha, stated)
    top = front(record, heading=heading, alpha=alpha, parts=parts, stated=len(stated))
    return write_page(path, heading, top, parts)


def check_page(path: str | os.PathLike[str], variable: str = "res") -> None:
    """Refuse a name of another kind of file than a web page; `variable` is what the results are called in examples."""
    if Path(path).suffix.lower() not in ("", ".html", ".htm"):
        page_path = Path(path).with_suffix(".html").as_posix()
        raise OptionError(
            f"the report is a web page (a browser prints it as PDF); {os.fspath(path)!r} is another kind of file.\n"
            f'Use `{variable}.report("{page_path}")`.'
        )


def assumptions_of(record: FitRecord) -> Mapping[str, tuple[str, str]]:
    """Return the heading and the question of each assumption of a fit that no data can check."""
    if record.options.did is None:
        return ASSUMPTIONS
    of_sections = {} if record.design.periods is None else SECTIONS
    return TRENDS | of_sections | {name: texts for name, texts in ASSUMPTIONS.items() if name != "unconfoundedness"}


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


def parts_of(record: FitRecord, alpha: float, stated: Mapping[str, str]) -> list[Part]:
    """Return the parts of the report that a fit's estimator has, in the order of the page."""
    scored, joint, means = record.spec.uses_propensity, record.joint, not record.options.quantiles
    resampled = record.cov_type == "bootstrap" and means
    missing = scored and record.design.observation is not None
    chosen, penalised = joint is not None and joint.path is not None, joint is not None and joint.anchor is None
    units = "rows" if record.design.cluster is None else "clusters"
    diagnostics: tuple[tuple[bool, str, str, Callable[[], Body]], ...] = (
        (scored, "overlap", "Overlap", lambda: _overlap(record)),
        (scored, "balance", "Balance of the covariates", lambda: _balance(record)),
        (missing, "missing", "Missing outcomes", lambda: _missing(record)),
        (not means, "distribution", "Distribution functions", lambda: _distribution(record, alpha)),
        (scored and means, "trimming", "Trimming", lambda: _trimming(record)),
        (record.learned is not None, "learners", "Learners of the outcome", lambda: _learners(record)),
        (chosen, "anchor", "The anchor", lambda: _anchor(record, alpha)),
        (penalised, "penalty", "The penalty lambda", lambda: _penalty(record, alpha)),
        (scored and means, "cancellation", "Net bias and risk", lambda: _cancellation(record)),
        (means, "influence", f"Influential {units}", lambda: _influence(record)),
        (resampled, "bootstrap", "Bootstrap distribution", lambda: _bootstrap(record, alpha)),
        (scored and means, "sensitivity", "An omitted confounder", lambda: _sensitivity(record, alpha)),
    )
    found = [_attempted(anchor, heading, make) for holds, anchor, heading, make in diagnostics if holds]
    done = {part.anchor for part in found if part.reading is not None}
    crump = "overlap" in done and record.options.population is ALL
    cited = references(record, crump, "balance" in done, "sensitivity" in done)
    return [
        summary_part(summary(record, alpha)),
        assumptions_part(record, stated),
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


def front(record: FitRecord, heading: str, alpha: float, parts: Sequence[Part], stated: int) -> list[str]:
    """Return the top of the page: heading, answer in a sentence, and headlines of all diagnostics."""
    estimates, se = record.estimate.params, np.sqrt(np.diag(record.covariance))[: len(record.estimate.params)]
    limits, (spec, _) = parameter_limits(record, alpha), formats(record)
    answers = [
        f"{effect_words(record, k)} (standard error {se[k]:{spec}}, {100 * (1 - alpha):.4g}% interval "
        f"{limits[k, 0]:{spec}} to {limits[k, 1]:{spec}})"
        for k in range(len(record.effect_names))
    ]
    what = f"The {estimand_words(record)} of {record.design.treat_name} on {outcome_words(record)}, over "
    lines = [
        f'<li>{badge(part.reading.verdict)}<a href="#{part.anchor}">{html.escape(part.heading)}</a>: '
        f"{html.escape(part.reading.headline)}</li>"
        for part in parts
        if part.reading is not None
    ]
    if record.joint is not None:
        starts = record.joint.start.params
        gaps = {
            contrast: verdicts.read_gap(float(estimates[k]), float(starts[k]), float(se[k]))
            for k, contrast in enumerate(record.contrasts)
        }
        gap = by_contrast(gaps)
        lines.append(f"<li>{badge(gap.verdict)}{html.escape(gap.headline)}</li>")
    missing = len(ASSUMPTIONS) - stated
    if missing:
        lines.append(
            f'<li>{badge(BAD)}<a href="#assumptions">Assumptions</a>: {missing} of {len(ASSUMPTIONS)} are not yet '
            "argued for. Without them the number is a comparison, not an effect.</li>"
        )
    return [
        f"<h1>{html.escape(heading)}</h1>",
        f'<div class="answer">{"".join(paragraph(f"{answer}.") for answer in answers)}</div>',
        paragraph(f"{what}{population_words(record)}, by {record.spec.title.removesuffix(' Results')}.", "soft"),
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
    everybody, weights = record.options.population is ALL, record.used_weight_fit
    instead = populations_that_overlap(weights, record.design, record.options)
    reading = verdicts.read_overlap(table, warned, everybody, unit_name=record.design.unit_name, instead=instead)
    figures = [
        figure_html(
            partial(plots.plot_overlap, record, arm=label),
            f"Mirrored histograms of the propensity score of arm {label} against {labels[0]}. {reading.headline}",
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
    figure = figure_html(
        partial(plots.plot_balance, record),
        f"Love plot of the differences between the arms before and after weighting. {reading.headline}",
        "Differences between the arms before and after weighting; the dashed line is at 0.1.",
    )
    return figure + _balance_html(table, "Balance"), reading


def _balance_html(table: pd.DataFrame, caption: str) -> str:
    formatting = {str(c): _three for c in table if c not in ("kind", "unit")}
    return table_html(formatted(table, formatting), caption, ("kind", "unit"))


def _missing(record: FitRecord) -> Body:
    table = balance(record, between="observed")
    parts = {f"arm {label}": table.xs(label) for label in record.design.labels}
    reading = by_contrast({name: verdicts.read_balance(part, None, observed=True) for name, part in parts.items()})
    figure = figure_html(
        partial(plots.plot_balance, record, between="observed"),
        f"Love plot of the differences of the rows with an outcome and all rows of their arm. {reading.headline}",
        "Differences of the rows with an outcome and all rows of their arm, before and after weighting by the inverse "
        "of the probability that the outcome is observed; the larger one of the arms.",
    )
    text = paragraph(missing_words(record))
    return text + figure + _balance_html(table, "Observed and all"), reading


def _trimming(record: FitRecord) -> Body:
    curve, labels = trim_curve(record), record.design.labels
    tables = {
        contrast: (curve if len(labels) == 2 else curve.xs(label, level="arm"))
        for contrast, label in zip(record.contrasts, labels[1:], strict=True)
    }
    kept = _at_most if len(labels) > 2 else _limits
    tables = {
        contrast: table.set_axis([kept(limit) for limit in table.index]).rename_axis("scores kept")
        for contrast, table in tables.items()
    }
    pairs = zip(tables.items(), record.std_errors, strict=False)
    reading = by_contrast({contrast: verdicts.read_trimming(table, se) for (contrast, table), se in pairs})
    told = next(iter(tables.values()))["note"]
    noisy = [str(limit) for limit, note in told.items() if str(note).startswith(MONTE_CARLO)]
    notes = [
        paragraph(f"{limit}: {' '.join(str(note).split())}", "soft")
        for limit, note in told.items()
        if note and str(limit) not in noisy
    ]
    if noisy:
        moves = f"At {joined(noisy)} another seed would move the effect by more than 5% of its standard error."
        notes.insert(0, paragraph(f"{moves} More replicates (n_replicates=) bring it down.", "soft"))
    shown = [
        table_html(
            formatted(table.drop(columns="note"), {"n": _whole}),
            f"Effect{_of(record, contrast)} by trimming (robust standard errors)",
            ("estimand",),
        )
        for contrast, table in tables.items()
    ]
    return "\n".join([*shown, *notes]), reading


def _learners(record: FitRecord) -> Body:
    learned = used_learned(record)
    figures = [
        figure_html(
            partial(plots.plot_learner, record, learner=name),
            f"Mean outcome against the prediction by {name}, by arm.",
            f"Mean outcome of bins of rows against their predictions by {name}, each by models fitted to other folds.",
        )
        for name in learned.names
    ]
    shown = learner_fit(record)
    shown.index = [": ".join(key) for key in shown.index]
    tables = [table_html(formatted(shown), "Fit outside of the folds")]
    if record.stack is not None:
        fits = stack_table(record).rename_axis(None)
        tables.append(table_html(formatted(fits), "Fits of the average"))
    return "\n".join([paragraph(learner_words(record)), *figures, *tables]), None


def _anchor(record: FitRecord, alpha: float) -> Body:
    path, joint = anchor_path(record), joint_of(record)
    chosen, raised_from = float(joint.anchor or 0.0), None if joint.path is None else joint.path.raised_from
    start, end = float(joint.start.params[0]), ladder_end_words(joint)
    reading = verdicts.read_anchor(path, chosen, raised_from, record.std_errors[0], start, end)
    figure = figure_html(
        partial(plots.plot_anchor_path, record, alpha=alpha),
        f"Effect over the anchor. {reading.headline}",
        "Effect with intervals by cross-validation, over the anchor; the circle is the one chosen.",
    )
    shown = path.set_axis([f"{anchor:g}" for anchor in path.index]).rename_axis("anchor")
    table = table_html(formatted(shown), "Effect by anchor (std err: by cross-validation)")
    return figure + table, reading


def _penalty(record: FitRecord, alpha: float) -> Body:
    joint = joint_of(record)
    n, own, start = joint.problem.n_units, float(joint.own_penalty or 0.0), float(joint.start.params[0])
    grid = np.unique(np.r_[0.0, own, n**2, np.multiply(GRID, n)])
    kept = np.r_[True, np.diff(grid) > 1e-9 * grid[1:]]
    path = penalty_path(record, grid[kept].tolist())
    reading = verdicts.read_penalty(path, own, record.std_errors[0], start)
    if len(record.contrasts) > 1:
        reading = dataclasses.replace(reading, headline=f"{record.contrasts[0]}: {reading.headline}")
    figure = figure_html(
        lambda ax: plots.draw_penalties(record, path, ax, alpha),
        f"Effect and net bias over the penalty lambda. {reading.headline}",
        "Effect with robust intervals, and the net bias (right axis), over the penalty lambda.",
    )
    shown = path.set_axis([f"{penalty:.4g}" for penalty in path.index]).rename_axis("lambda")
    table = table_html(formatted(shown), "Effect by lambda (robust standard errors)")
    return figure + table, reading


def _cancellation(record: FitRecord) -> Body:
    risks, labels = estimator_risks(record), record.design.labels
    table = risks.frame(labels)
    reading = verdicts.read_cancellation(table, record.spec.name, record.design.endog_name, labels)
    figures = [
        figure_html(
            partial(plots.cancellation_of, record, risks, label),
            f"Net bias of {label} less {labels[0]} over the propensity replicates. {reading.headline}",
            f"Bias of arm {label} less that of {labels[0]} (upwards), and the bias they share (across), over the "
            "propensity replicates; on the line there is no net bias.",
        )
        for label in labels[1:]
    ]
    figures.append(
        figure_html(
            partial(plots.draw_risk, table, record.design.endog_name),
            f"Expected ATE risk of every estimator. {reading.headline}",
            "Root of the expected ATE risk of every estimator over the propensity replicates, and of its parts.",
        )
    )
    shown = formatted(table).T.rename_axis(None)
    body = "\n".join([*figures, table_html(shown, "Biases by estimator")])
    return body, reading


def _influence(record: FitRecord) -> Body:
    clusters = record.design.cluster is not None
    named = (str(record.design.cluster_name), record.design.n_clusters) if clusters else None
    method, what = quick_method(record, clusters), "cluster" if clusters else "row"
    numbered = isinstance(record.design.in_sample.index, pd.RangeIndex) and not clusters
    counted = ", counted from 0 in the data" if numbered else ""
    formatting: dict[str, Callable[[Any], str]] = {"n": _whole, "in std errors": _three, "weight share": format_share}
    readings, body = {}, []
    for position, table in enumerate(influence_tables(record, method, clusters), start=1):
        contrast = record.contrasts[position - 1]
        top, of = most_influential(table, TOP), _of(record, contrast)
        readings[contrast] = verdicts.read_influence(top, method == "influence", named)
        figure = figure_html(
            partial(plots.draw_changes, record, table, top=NAMED, position=position, clusters=clusters),
            f"Change of the effect{of} without each {what}, against its share of the weight. "
            f"{readings[contrast].headline}",
            f"How much the effect{of} moves without each {what}, against the {what}'s share of the weight of "
            f"{'the arm where it is largest' if clusters else 'its arm'}.",
        )
        heading = f"The {len(top)} most influential {what}s{of and f' for the effect{of}'}{counted}"
        body += [figure, table_html(formatted(top, formatting), heading, ("arm",))]
    return "\n".join(body), by_contrast(readings)


def _of(record: FitRecord, contrast: str) -> str:
    """Return " of" with the effect's name where there are several effects; else empty."""
    return "" if record.design.n_arms == 2 else f" of {contrast}"


def _bootstrap(record: FitRecord, alpha: float) -> Body:
    boot = record.used_boot
    intervals = [conf_int(record, alpha, method).to_numpy() for method in ("normal", "percentile")]
    drawn, readings, figures = len(boot.failures), {}, []
    used = with_choice(record, boot.used[:, : len(record.estimate.params)])
    for k, (contrast, label) in enumerate(zip(record.contrasts, record.design.labels[1:], strict=True)):
        limits, of = [rows[k] for rows in intervals], _of(record, contrast)
        reading = verdicts.read_bootstrap(
            used[:, k], estimate=record.estimate.params[k], limits=limits, drawn=drawn, alpha=alpha
        )
        readings[contrast] = reading
        figure = figure_html(
            partial(plots.plot_bootstrap, record, alpha=alpha, arm=label),
            f"Histogram of the effect{of} over {drawn} resamples with its intervals. {reading.headline}",
            f"The effect{of} over {drawn} resamples, with its intervals.",
        )
        figures.append(figure)
    return "\n".join(figures), by_contrast(readings)


def _distribution(record: FitRecord, alpha: float) -> Body:
    figure = figure_html(
        partial(plots.plot_distribution, record, alpha=alpha),
        "Distribution functions of the outcome in each arm, over the target, with uniform bands.",
        f"Share of outcomes up to each value; the bands hold at all values of all arms at once, at {1 - alpha:.4g}.",
    )
    return figure, None


def _sensitivity(record: FitRecord, alpha: float) -> Body:
    table = sensitivity(record, alpha)
    formatting = {str(c): _three for c in table if c not in ("effect", "scale", "basis")}
    shown = table_html(formatted(table, formatting).T.rename_axis(None), "Sensitivity to an omitted confounder")
    reading = by_contrast({str(contrast): verdicts.read_sensitivity(row, alpha) for contrast, row in table.iterrows()})
    return shown, reading


def _ledgers(record: FitRecord) -> Part:
    ledger = record.design.sample_ledger
    dropped, outside = record.design.n_dropped, record.design.n_outside
    kept = f"; {outside} outside of the subpopulation stay in the design for the standard errors" if outside else ""
    body = [paragraph(f"{record.design.n} rows are in the sample, {dropped} were left out{kept}.")]
    if len(ledger):
        body.append(table_html(formatted(ledger), "Rows that were left out, and why", tuple(ledger)))
    for what, failures in (
        ("Resamples", None if record.boot is None else record.boot.failures),
        ("Propensity replicates", None if record.joint is None else record.joint.replicates.failures),
    ):
        if failures is not None:
            found = failures_frame(failures, what)["reason"].value_counts()
            counts = joined([f"{number} {reason}" for reason, number in found.items()])
            body.append(paragraph(f"{what}: {counts}."))
    body += [paragraph(f"Warning: {note}") for note in record.notes]
    return Part("ledgers", "Rows, resamples and warnings", "\n".join(body))


def assumptions_part(record: FitRecord, stated: Mapping[str, str], **named: str) -> Part:
    """Return the author's statements on the assumptions, and open questions; `named` renames the variables."""
    names = {
        "treat": record.design.treat_name,
        "outcome": outcome_words(record).removeprefix("the "),
        "covariates": joined(variables_of(record)) or "none",
    } | named
    blocks = [paragraph("No data can check these. The author of the report has to argue for each of them.")]
    for key, (heading, question) in assumptions_of(record).items():
        title, asked = f"<h3>{html.escape(heading)}</h3>", paragraph(question.format(**names))
        if key in stated:
            blocks.append(f'<div class="stated">{title}{asked}{paragraph(stated[key])}</div>')
            continue
        field = '<div contenteditable="true" role="textbox" aria-multiline="true"'
        field += f' aria-label="{html.escape(heading)}"></div>'
        hint = paragraph(f'Not yet answered. Write here and print, or pass assumptions={{"{key}": "..."}}.', "soft")
        blocks.append(f'<div class="open">{title}{asked}{field}{hint}</div>')
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


def _limits(limit: Any) -> str:
    """Return limits of the score as `trim_curve` names them, as an interval."""
    return str(limit) if not isinstance(limit, float) else f"[{limit:g}, {1 - limit:g}]" if limit else "all"


def _at_most(limit: Any) -> str:
    """Return limits of the scores of several arms in words: the lower limit decides."""
    return f"{limit:.3g} or more" if isinstance(limit, float) and limit else _limits(limit)


def _whole(value: Any) -> str:
    return f"{value:.0f}"


def _three(value: Any) -> str:
    return f"{value:.3f}" if abs(value) < 1000 else format_number(value)
