"""A page of the documentation as a Jupyter notebook, with the outputs that the page shows and the build has checked."""

from __future__ import annotations

import doctest
import json
import re
from collections.abc import Mapping
from typing import Any

INSTALL = 'Install first, in the folder of a copy of the source: `python -m pip install ".[plots,learners]"`'


def without_answers(text: str) -> str:
    """Return a page without what opens by a click and is called an answer, for those who are to find it."""
    kept, depth = [], 0
    for line in text.splitlines():
        opened = line.startswith("<details>")
        depth += opened and (depth > 0 or "Answer" in line)
        if not depth:
            kept.append(line)
        depth -= depth > 0 and line.startswith("</details>")
    return "\n".join(kept)


def notebook(text: str, figures: Mapping[int, str], folder: str) -> str:
    """Return the notebook of a page, in nbformat 4.5.

    Parameters
    ----------
    text : str
        The page in Markdown.
    figures : mapping of int to str
        SVG of the figures, by the line of the example that shows each.
    folder : str
        Folder of the page, which its links start from; the notebook is in one beside it.
    """
    examples = {example.lineno: example for example in doctest.DocTestParser().get_examples(text)}
    cells: list[dict[str, Any]] = []
    code: list[str] = []
    words: list[str] = []

    def add(kind: str, lines: list[str], **more: Any) -> None:
        source = "\n".join(lines).strip("\n")
        lines.clear()
        if source:
            cells.append({"cell_type": kind, "id": f"cell{len(cells)}", "metadata": {}, "source": source, **more})

    add("markdown", [INSTALL])
    inside = False
    for number, line in enumerate(text.splitlines()):
        if line.startswith("```python") or (inside and line.startswith("```")):
            inside = not inside
            add("markdown", words)
            add("code", code, execution_count=None, outputs=[])
        elif not inside:
            words.append(linked(line, folder))
        elif number in examples:
            example = examples[number]
            code += example.source.rstrip("\n").split("\n")
            shown = (
                [{"output_type": "stream", "name": "stdout", "text": _printed(example.want)}] if example.want else []
            )
            if number in figures:
                shown = [{"output_type": "display_data", "metadata": {}, "data": {"image/svg+xml": figures[number]}}]
            if shown:
                add("code", code, execution_count=None, outputs=shown)
    add("markdown", words)
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return json.dumps({"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}, indent=1)


def _printed(want: str) -> str:
    return re.sub(r"^<BLANKLINE>$", "", want, flags=re.M)


def linked(line: str, folder: str) -> str:
    """Return a line with links to pages of the site, and plain headings for what opens by a click."""
    line = re.sub(r"^<details><summary>(.*)</summary>$", r"*\1*", line).replace("</details>", "")
    line = re.sub(r"\]\((?!\w+:)(?!\.\./)([\w/]+)\.md", rf"](../{folder}/\1.html", line)
    return re.sub(r"\]\(\.\./([\w/]+)\.md", r"](../\1.html", line)
