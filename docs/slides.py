"""A page of the documentation as slides: one file of HTML with its figures and formulas within it."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Callable
from typing import Any

from notebook import linked

CITED = re.compile(r"^Figure (\d+) of \[[^\]]+\]\((\w+)\.md\)\.$", re.M)  # a paragraph of a page

STYLE = """
* { box-sizing: border-box; }
html { scroll-snap-type: y mandatory; font: 1.9vw/1.4 system-ui, sans-serif; color: #1b1b1b; background: #fff; }
body { margin: 0; }
section { min-height: 100vh; scroll-snap-align: start; padding: 4vh 7vw; display: grid; align-content: center; }
section:has(figure) { grid-template-columns: 1fr 1.1fr; column-gap: 3vw; }
section > * { grid-column: 1; margin: 0 0 1.2rem; }
section:has(figure) > h2 { grid-column: 1 / 3; }
figure { grid-column: 2; grid-row: 2 / span 9; margin: 0; text-align: center; }
img { background: #fff; max-width: 100%; height: 74vh; object-fit: contain; }
h1 { font-size: 2em; line-height: 1.2; }
h2 { font-size: 1.5em; }
li { margin-bottom: .5rem; }
td, th { padding: .3rem 1rem .3rem 0; border-bottom: 1px solid #999; text-align: left; }
table { border-collapse: collapse; justify-self: start; }
math[display="block"] { margin: 1rem 0; font-size: 1.15em; }
blockquote { display: none; font-size: .75em; border-left: 3px solid #999; padding-left: 1em; }
.notes blockquote { display: block; }
@media (prefers-color-scheme: dark) { html { color: #eee; background: #14181e; } a { color: #8ab8ff; } }
@media (max-width: 900px) {
  html { scroll-snap-type: none; font-size: 1.05rem; }
  section, section:has(figure) { display: block; min-height: 0; padding: 1.5rem 1rem; border-bottom: 1px solid #999; }
  section > * { overflow-x: auto; }
  img { height: auto; }
}
@page { size: 13.33in 7.5in; margin: 0; }
@media print {
  html { font-size: 24px; color: #000; background: #fff; }
  section { min-height: 0; height: 7.5in; padding: .4in .9in; break-after: page; }
  img { height: 5.4in; }
}
"""

SCRIPT = """
addEventListener("keydown", event => {
  if (event.key === "n") document.body.classList.toggle("notes");
  const step = {ArrowRight: 1, ArrowDown: 1, PageDown: 1, ArrowLeft: -1, ArrowUp: -1, PageUp: -1}[event.key];
  if (!step) return;
  const all = [...document.querySelectorAll("section")];
  const now = all.findLastIndex(section => section.getBoundingClientRect().top < innerHeight / 2);
  event.preventDefault();
  all[now + step]?.scrollIntoView();
});
"""


def mathml(formula: str, block: bool) -> str:
    """Return a formula as MathML, which browsers show without a script."""
    from latex2mathml.converter import convert

    return convert(formula.strip(), display="block" if block else "inline")


def captions(text: str) -> list[str]:
    """Return the captions of the figures of a page, which are also their alternative texts."""
    found = re.findall(r"^Figure: (.*?)(?=\n\n|\Z)", text, re.M | re.S)
    return [html.escape(" ".join(caption.split("\n"))) for caption in found]


def with_figures(text: str, picture: Callable[[str, int], tuple[str, str]]) -> str:
    """Return a page with the figures of others in place of the paragraphs that name them.

    Parameters
    ----------
    text : str
        The page in Markdown.
    picture : callable
        Takes the name of a page and the number of its figure, from 0; returns the address and the caption.
    """

    def figure(found: re.Match[str]) -> str:
        address, caption = picture(found[2], int(found[1]) - 1)
        return f'<figure><img class="drawn" src="{address}" alt="{caption}"></figure>'

    return CITED.sub(figure, text)


def embedded(svg: bytes) -> str:
    """Return the address of a figure that is within the page."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode('ascii')}"


def slides(text: str, folder: str) -> str:
    """Return the slides of a page: its parts between horizontal lines, block quotations as notes.

    Parameters
    ----------
    text : str
        The page in Markdown, with figures.
    folder : str
        Folder of the page, which its links start from; the slides are in one beside it.
    """
    from markdown_it import MarkdownIt
    from mdit_py_plugins.dollarmath import dollarmath_plugin

    def formula(content: str, found: dict[str, Any]) -> str:
        return mathml(content, found["display_mode"])

    parser = MarkdownIt("commonmark").enable("table").use(dollarmath_plugin, renderer=formula)
    title = text.partition("\n")[0].removeprefix("# ")
    parts = "\n".join(linked(line, folder) for line in text.split("\n")).split("\n---\n")
    body = "\n".join(f"<section>\n{parser.render(part)}</section>" for part in parts)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{html.escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{STYLE}</style>\n</head>\n'
        f"<body>\n{body}\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )
