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
from causalrisk.report.page.verdicts import BAD, CAUTION, GOOD
from causalrisk.report.tables.text import format_number

FIGURE_SIZE = (5.4, 3.9)  # inches
DPI = 150
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


def page(title: str, parts: Sequence[str]) -> str:
    """Return a page with a title for the window. Its content policy forbids it to load anything."""
    style = resources.files(__package__).joinpath("style.css").read_text("utf-8")
    return PAGE.format(title=html.escape(title), style=style, body="\n".join(parts))


def paragraph(text: str, kind: str = "") -> str:
    """Return a text as a paragraph, escaped."""
    return f'<p class="{kind}">{html.escape(text)}</p>' if kind else f"<p>{html.escape(text)}</p>"


def badge(verdict: str) -> str:
    """Return a verdict as a word on a coloured ground; nothing where there is none."""
    return f'<span class="badge {verdict}">{BADGES[verdict]}</span>' if verdict else ""


def formatted(frame: pd.DataFrame, formats: Mapping[str, Callable[[Any], str]] | None = None) -> pd.DataFrame:
    """Return a frame of texts: each column by its format, else as usual for numbers; empty where a value is missing."""
    columns = {}
    for name in frame:
        form = (formats or {}).get(str(name), lambda value: format_number(value) if isinstance(value, float) else value)
        columns[name] = ["" if pd.isna(value) else str(form(value)) for value in frame[name]]
    return pd.DataFrame(columns, index=frame.index, columns=frame.columns, dtype=object)


def table_html(frame: pd.DataFrame, caption: str) -> str:
    """Return a frame of formatted texts as a table with a caption."""
    with pd.option_context("display.max_colwidth", None):
        cells = frame.to_html(border=0).replace("<thead>", f"<caption>{html.escape(caption)}</caption>\n<thead>", 1)
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{html.escape(caption)}">\n{cells}</div>'


def blank_figure() -> Any:
    """Return a figure that no other part of a program has."""
    try:
        from matplotlib import figure
    except ImportError as error:
        raise UnavailableError("the report needs matplotlib.\nUse `pip install matplotlib`.") from error
    return figure.Figure(figsize=FIGURE_SIZE, layout="constrained")


def figure_html(draw: Callable[[Any], Any], caption: str) -> str:
    """Return what a function draws on Axes as an image within the page; the caption is also its text for the blind."""
    figure, stream = blank_figure(), io.BytesIO()
    draw(figure.subplots())
    figure.savefig(stream, format="png", dpi=DPI, metadata={"Software": None})
    data = base64.b64encode(stream.getvalue()).decode("ascii")
    size = f'width="{round(FIGURE_SIZE[0] * 100)}" height="{round(FIGURE_SIZE[1] * 100)}"'
    image = f'<img src="data:image/png;base64,{data}" {size} alt="{html.escape(caption)}">'
    return f"<figure>\n{image}\n<figcaption>{html.escape(caption)}</figcaption>\n</figure>"
