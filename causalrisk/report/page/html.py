"""One self-contained HTML page: style, tables, figures as images within it. Nothing is fetched when it opens."""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd

from causalrisk.errors import UnavailableError
from causalrisk.report.page.verdicts import BAD, CAUTION, GOOD, Reading
from causalrisk.report.tables.text import format_number, format_share
from causalrisk.runtime.system import write_whole

FIGURE_SIZE = (5.4, 3.9)  # inches
DPI = 150
WHOLE = ("n", "outside support", "outside crump")  # columns of whole numbers
BADGES = {GOOD: "Fine", CAUTION: "Look closely", BAD: "Problem"}
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


@dataclass(frozen=True)
class Part:
    """A part of a page: anchor, heading, HTML below it, and its reading in the overview."""

    anchor: str
    heading: str
    body: str
    reading: Reading | None = None

    def html(self) -> str:
        """Return the part as HTML."""
        said = ""
        if self.reading is not None:
            headline = f"{badge(self.reading)}<strong>{html.escape(self.reading.headline)}</strong>"
            said = "\n".join([f"<p>{headline}</p>", *map(paragraph, self.reading.texts)])
        return f'<section id="{self.anchor}">\n<h2>{html.escape(self.heading)}</h2>\n{said}\n{self.body}\n</section>'


def write_page(path: str | os.PathLike[str], title: str, top: Sequence[str], parts: Sequence[Part]) -> Path:
    """Write the top of a page, links to its parts, and the parts; return the path of the file."""
    links = "".join(f'<li><a href="#{part.anchor}">{html.escape(part.heading)}</a></li>' for part in parts)
    contents = f'<nav aria-label="Contents"><h2>Contents</h2><ul>{links}</ul></nav>'
    body = "\n".join([*top, contents, *(part.html() for part in parts)])
    style = resources.files(__package__).joinpath("style.css").read_text("utf-8")
    return write_whole(path, PAGE.format(title=html.escape(title), style=style, body=body))


def badge(reading: Reading) -> str:
    """Return a verdict as a word on a coloured ground; nothing where there is none."""
    verdict = reading.verdict
    return f'<span class="badge {verdict}">{BADGES[verdict]}</span>' if verdict else ""


def paragraph(text: str, kind: str = "") -> str:
    """Return a text as a paragraph, escaped."""
    return f'<p class="{kind}">{html.escape(text)}</p>' if kind else f"<p>{html.escape(text)}</p>"


def table_html(frame: pd.DataFrame, caption: str, three: Container[str] = (), turned: bool = False) -> str:
    """Return a frame as a table with a caption; columns `three` have three decimals, empty cells no value."""

    def cell(name: str, value: Any) -> str:
        if pd.isna(value):
            return ""
        if name in WHOLE or not isinstance(value, float):
            return f"{value:.0f}" if name in WHOLE else str(value)
        if name.endswith(" share"):
            return format_share(value)
        return f"{value:.3f}" if name in three and abs(value) < 1000 else format_number(value)

    texts = {name: [cell(str(name), value) for value in frame[name]] for name in frame}
    shown = pd.DataFrame(texts, index=frame.index, columns=frame.columns, dtype=object)
    shown, label = shown.T.rename_axis(None) if turned else shown, html.escape(caption)
    with pd.option_context("display.max_colwidth", None):
        cells = shown.to_html(border=0).replace("<thead>", f"<caption>{label}</caption>\n<thead>", 1)
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{label}">\n{cells}</div>'


def blank_figure() -> Any:
    """Return a figure that no other part of a program has."""
    try:
        from matplotlib import figure
    except ImportError as error:
        raise UnavailableError("the report needs matplotlib.\nUse `pip install matplotlib`.") from error
    return figure.Figure(figsize=FIGURE_SIZE, layout="constrained")


def figure_html(caption: str, plot: Callable[..., Any], *given: Any, **options: Any) -> str:
    """Return a plot as an image within the page; the caption is also its text for the blind."""
    figure, stream, label = blank_figure(), io.BytesIO(), html.escape(caption)
    plot(*given, ax=figure.subplots(), **options)
    figure.savefig(stream, format="png", dpi=DPI, metadata={"Software": None})
    data = base64.b64encode(stream.getvalue()).decode("ascii")
    size = f'width="{round(FIGURE_SIZE[0] * 100)}" height="{round(FIGURE_SIZE[1] * 100)}"'
    image = f'<img src="data:image/png;base64,{data}" {size} alt="{label}">'
    return f"<figure>\n{image}\n<figcaption>{label}</figcaption>\n</figure>"
