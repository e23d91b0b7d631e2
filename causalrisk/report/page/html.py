"""One self-contained HTML page: style, tables, figures as images within it. Nothing is fetched when it opens."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import Any

import pandas as pd

from causalrisk.errors import UnavailableError
from causalrisk.report.page.verdicts import BAD, CAUTION, GOOD, Reading
from causalrisk.report.tables.text import format_number

FIGURE_SIZE = (5.4, 3.9)  # inches
LARGEST_SVG = 250_000  # bytes; figures with more points become bitmaps
MARKER = 60  # bytes of a point of a vector image, at the least
DPI = 150
BADGES = {GOOD: "Fine", CAUTION: "Look closely", BAD: "Problem"}
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def page(title: str, parts: Sequence[str]) -> str:
    """Return a page.

    Parameters
    ----------
    title : str
        Title, for the window.
    parts : sequence of str
        HTML of the body.

    Returns
    -------
    str
        The document. Its content policy forbids it to load anything.
    """
    style = resources.files(__package__).joinpath("style.css").read_text("utf-8")
    head = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{html.escape(title)}</title>",
        f"<style>\n{style}</style>",
        "</head>",
        "<body>",
        "<main>",
    ]
    return "\n".join([*head, *parts, "</main>", "</body>", "</html>", ""])


def paragraph(text: str, kind: str = "") -> str:
    """Return a text as a paragraph, escaped."""
    return f'<p class="{kind}">{html.escape(text)}</p>' if kind else f"<p>{html.escape(text)}</p>"


def badge(verdict: str) -> str:
    """Return a verdict as a word on a coloured ground; nothing where there is none."""
    if not verdict:
        return ""
    return f'<span class="badge {verdict}">{BADGES[verdict]}</span>'


def reading_html(reading: Reading) -> str:
    """Return a reading: badge and headline, then the texts."""
    head = f"<p>{badge(reading.verdict)}<strong>{html.escape(reading.headline)}</strong></p>"
    return "\n".join([head, *(paragraph(text) for text in reading.texts if text)])


def _usual(value: Any) -> str:
    return format_number(value) if isinstance(value, float) else str(value)


def formatted(frame: pd.DataFrame, formats: Mapping[str, Callable[[Any], str]] | None = None) -> pd.DataFrame:
    """Return a frame of texts: each column by its format, else as usual for numbers; empty where a value is missing."""
    columns = {}
    for name in frame:
        form = (formats or {}).get(str(name), _usual)
        columns[name] = ["" if pd.isna(value) else form(value) for value in frame[name]]
    return pd.DataFrame(columns, index=frame.index, columns=frame.columns, dtype=object)


def table_html(frame: pd.DataFrame, caption: str, texts: Sequence[str] = ()) -> str:
    """Return a frame of texts as a table that scrolls sideways where it is too wide.

    Parameters
    ----------
    frame : DataFrame
        The table, formatted; its index becomes the row heads.
    caption : str
        Caption of the table.
    texts : sequence of str
        Columns of words, aligned left.

    Returns
    -------
    str
        HTML, everything escaped.
    """
    corner = " / ".join(str(name) for name in frame.index.names if name is not None)
    kinds = [' class="text"' if str(name) in texts else "" for name in frame.columns]
    names = zip([' class="text"', *kinds], [corner, *map(str, frame.columns)], strict=True)
    heads = "".join(f'<th scope="col"{kind}>{_head(name)}</th>' for kind, name in names)
    rows = []
    for label, values in zip(frame.index, frame.itertuples(index=False), strict=True):
        shown = ", ".join(map(str, label)) if isinstance(label, tuple) else str(label)
        cells = [f'<th scope="row">{html.escape(shown)}</th>']
        cells += [f"<td{kind}>{html.escape(str(value))}</td>" for kind, value in zip(kinds, values, strict=True)]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    label = html.escape(caption, quote=True)
    lines = [
        f'<div class="scroll" role="region" tabindex="0" aria-label="{label}">',
        f"<table><caption>{html.escape(caption)}</caption>",
        f"<thead><tr>{heads}</tr></thead>",
        f"<tbody>{''.join(rows)}</tbody></table></div>",
    ]
    return "\n".join(lines)


def _head(name: str) -> str:
    return html.escape(name).replace("[", "<wbr>[")


def blank_figure() -> tuple[Any, Any]:
    """Return a figure that belongs to nobody else, and matplotlib's context of settings."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UnavailableError(
            "the plots of a report need matplotlib, which is not installed.\nType  pip install matplotlib."
        ) from error
    return Figure(figsize=FIGURE_SIZE, layout="constrained"), rc_context


def figure_html(draw: Callable[[Any], Any], alternative: str, caption: str) -> str:
    """Return a plot as an image within the page.

    Parameters
    ----------
    draw : callable
        Draws on the Axes it is given.
    alternative : str
        Alternative text, for readers who do not see the plot.
    caption : str
        Caption of the plot.

    Returns
    -------
    str
        HTML; a vector image, or a bitmap where that would be large. The same plot gives the same bytes.

    Raises
    ------
    UnavailableError
        If matplotlib is not installed.
    """
    figure, rc_context = blank_figure()
    draw(figure.subplots())
    stream, kind = io.BytesIO(), "image/svg+xml"
    points = sum(len(line.get_xdata()) for line in figure.axes[0].lines if line.get_marker() != "None")
    small = MARKER * points <= LARGEST_SVG  # to write each of a million points takes minutes
    if small:
        with rc_context({"svg.hashsalt": "causalrisk"}):
            figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    if not small or stream.tell() > LARGEST_SVG:
        stream, kind = io.BytesIO(), "image/png"
        figure.savefig(stream, format="png", dpi=DPI, metadata={"Software": None})
    data = base64.b64encode(stream.getvalue()).decode("ascii")
    size = f'width="{round(FIGURE_SIZE[0] * 100)}" height="{round(FIGURE_SIZE[1] * 100)}"'
    image = f'<img src="data:{kind};base64,{data}" {size} alt="{html.escape(alternative, quote=True)}">'
    return f"<figure>\n{image}\n<figcaption>{html.escape(caption)}</figcaption>\n</figure>"
