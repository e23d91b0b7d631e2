"""One table of formatted cells, as text, HTML, LaTeX, Markdown and CSV.

The class is statsmodels' own, so ``summary.tables[1].data``, ``.as_html()`` and the like work as they do there.
Unlike there, cells are escaped, wide characters count twice, and all tables have the same width.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import pandas as pd
from statsmodels.iolib.table import SimpleTable

from causalrisk.report.tables.text import (
    LEAST_LABEL,
    column_widths,
    csv_lines,
    display_width,
    escape_latex,
    escape_markdown,
    needed_width,
    pad,
    printable,
    wrap,
)

RULES = {"l": ":---", "r": "---:", "c": ":---:"}  # alignments of a Markdown table
LATEX_SIZE = r"\small\setlength{\tabcolsep}{4pt}"  # so that a summary fits a page in 12 point


@dataclass(frozen=True)
class TableContent:
    """One table of a summary.

    Parameters
    ----------
    rows : tuple of tuple of str
        The cells, formatted.
    header : tuple of tuple of str
        None, one or more header lines, each as long as a row.
    aligns : str
        One of l, r, c per column; empty: the first column left, the others right. Each l after the first column
        begins a new group of columns, as in the label-value pairs ``lrlr``, and groups share the width evenly.
    title : str
        Title line, centred above the table.
    widths : tuple of int
        Width wished for each column with the blanks before it (0: what its cells need); the first column takes what is
        left, and wishes give way to long cells. Empty: the free space is spread evenly over the gaps.
    rules : tuple of int
        Rows, counted from 0, that have a thin rule above them.
    """

    rows: tuple[tuple[str, ...], ...]
    header: tuple[tuple[str, ...], ...] = ()
    aligns: str = ""
    title: str = ""
    widths: tuple[int, ...] = ()
    rules: tuple[int, ...] = ()


class ResultTable(SimpleTable):
    """A table of formatted cells.

    Parameters
    ----------
    content : TableContent
        Cells, header, alignment and title.
    width : int
        Display width of the text form. A label that does not fit has a line of its own; numbers that need more room
        widen the table.
    """

    def __init__(self, content: TableContent, width: int = 78) -> None:
        headers = ["\n".join(map(printable, column)) for column in zip(*content.header, strict=True)]
        super().__init__([list(map(printable, row)) for row in content.rows], headers=headers, title=content.title)
        columns = max((len(row) for row in self), default=0)
        self.aligns = content.aligns or ("l" + "r" * columns)[:columns]
        self.widths = content.widths
        self.rules = content.rules
        self.width = width

    @property
    def heads(self) -> list[list[str]]:
        """Cells of the header lines."""
        return [list(map(str, row)) for row in self if row.datatype == "header"]

    @property
    def body(self) -> list[list[str]]:
        """Cells of the rows below the header."""
        return [list(map(str, row)) for row in self if row.datatype != "header"]

    @property
    def natural_width(self) -> int:
        """Display width that the content needs, at least `width`."""
        widths, gaps = self._columns(self.width)
        return max(self.width, sum(widths) + sum(gaps))

    def text_lines(self, width: int) -> list[str]:
        """Return the lines between the upper and the lower rule, at a given width."""
        widths, gaps = self._columns(width)

        def line(texts: list[str]) -> list[str]:
            alone = []
            if display_width(texts[0]) > widths[0]:  # a label on a line of its own
                alone, texts = [texts[0]], ["", *texts[1:]]
            cells = zip(texts, widths, gaps, self.aligns, strict=True)
            return [*alone, "".join(" " * gap + pad(cell, size, align) for cell, size, gap, align in cells).rstrip()]

        lines = [text for row in self.heads for text in line(row)] + ["-" * width] * bool(self.heads)
        for number, row in enumerate(self.body):
            lines += ["-" * width] * (number in self.rules) + line(row)
        return lines

    def _columns(self, width: int) -> tuple[list[int], list[int]]:
        content = [0] * len(self.aligns)
        for row in self:
            content = [max(w, display_width(str(cell))) for w, cell in zip(content, row, strict=True)]
        if content and "l" not in self.aligns[1:]:
            room = width - sum(needed_width(j, 0, content, self.widths) for j in range(1, len(content)))
            content[0] = min(content[0], max(room, LEAST_LABEL))
        return column_widths(content, self.aligns, self.widths, width)

    def as_text(self) -> str:
        """Return the table as text.

        Returns
        -------
        str
            Title, rule, header, rule, rows, rule.
        """
        return stack_text([self], self.natural_width)

    def as_html(self) -> str:
        """Return the table as an HTML ``table`` element, with all text escaped.

        Returns
        -------
        str
            The element. Cells of the header and of left-aligned columns are ``th``.
        """
        sides, lines = {"l": "left", "r": "right", "c": "center"}, ['<table class="simpletable">']
        if self.title:
            lines.append(f"<caption>{html.escape(self.title)}</caption>")
        for row in self:
            cells = ""
            for text, align in zip(map(str, row), self.aligns, strict=True):
                tag = "th" if row.datatype == "header" or align == "l" else "td"
                cells += f'<{tag} style="text-align: {sides[align]}">{_indented(html.escape(text), "&nbsp;")}</{tag}>'
            lines.append(f"<tr>{cells}</tr>")
        return "\n".join([*lines, "</table>"])

    def as_latex_tabular(self, center: bool = True) -> str:
        """Return the table as a LaTeX ``tabular`` for the booktabs package, with all text escaped.

        Parameters
        ----------
        center : bool
            Whether to put it into a ``center`` environment.

        Returns
        -------
        str
            The environment.
        """
        heads = [_latex_spans(row) for row in self.heads[:-1]] + [_latex_row(row) for row in self.heads[-1:]]
        rows = [r"\midrule" + "\n" if i in self.rules else "" for i in range(len(self.body))]
        rows = [rule + _latex_row(row) for rule, row in zip(rows, self.body, strict=True)]
        body = [r"\toprule", *heads, *([r"\midrule"] if heads else []), *rows, r"\bottomrule"]
        tabular = "\n".join([rf"\begin{{tabular}}{{{self.aligns}}}", *body, r"\end{tabular}"])
        return "\n".join([r"\begin{center}", tabular, r"\end{center}"]) if center else tabular

    def as_csv(self) -> str:
        """Return the table as comma-separated values, one line per row, the title first.

        Returns
        -------
        str
            The lines.
        """
        rows = ([str(cell).strip() for cell in row] for row in self)
        return csv_lines([[self.title], *rows] if self.title else rows)

    def as_markdown(self) -> str:
        """Return the table as a Markdown pipe table, with all text escaped.

        Returns
        -------
        str
            The title in bold, and the table; header lines are joined to one.
        """
        joined = [" ".join(filter(None, map(str.strip, column))) for column in zip(*self.heads, strict=True)]
        rows = [joined or [""] * len(self.aligns), *self.body]
        lines = [" | ".join(_indented(escape_markdown(cell), "&nbsp;").rstrip() for cell in row) for row in rows]
        lines.insert(1, " | ".join(RULES[align] for align in self.aligns))
        title = [f"**{escape_markdown(self.title)}**", ""] if self.title else []
        return "\n".join([*title, *(f"| {line} |" for line in lines)])

    def grouped(self) -> pd.DataFrame:
        """Return the cells as a frame for maketables: a level of columns per header line, rules between its groups."""
        heads = [row[1:] for row in self.heads] or [[" " * j for j in range(1, len(self.aligns))]]
        labels = [_indented(row[0], "\N{NO-BREAK SPACE}") for row in self.body]
        groups = [" " * (1 + sum(rule <= i for rule in self.rules)) for i in range(len(labels))]
        index = pd.MultiIndex.from_arrays([groups, labels]) if self.rules else labels
        columns = pd.MultiIndex.from_arrays(heads) if len(heads) > 1 else heads[0]
        return pd.DataFrame([row[1:] for row in self.body], index=index, columns=columns)


def _indented(text: str, blank: str) -> str:
    """Return a text whose blanks at the beginning are blanks that a format keeps."""
    return blank * (len(text) - len(text.lstrip(" "))) + text.lstrip(" ")


def _latex_spans(row: Sequence[str]) -> str:
    """Return a header line of LaTeX in which equal neighbours are one head over several columns, with a line below."""
    cells, rules, first = [], "", 1
    for text, same in groupby(row):
        count = len(list(same))
        if text and count > 1:
            cells.append(rf"\multicolumn{{{count}}}{{c}}{{{escape_latex(text)}}}")
            rules += rf" \cmidrule(lr){{{first}-{first + count - 1}}}"
        else:
            cells += [escape_latex(text)] * count
        first += count
    return " & ".join(cells) + rf" \\{rules}"


def _latex_row(row: Sequence[str]) -> str:
    cells = [re.sub(r"(?<![^\s(}])-(?=\d)", "$-$", _indented(escape_latex(cell), "~")) for cell in row]
    return " & ".join(cells) + r" \\"


def stack_text(tables: Sequence[ResultTable], width: int) -> str:
    """Return tables one below the other, one rule above, between and below them."""
    rule = "=" * width
    lines: list[str] = []
    for number, table in enumerate(tables):
        title = [pad(line, width, "c").rstrip() for line in wrap(table.title, width)] if table.title else []
        if title or number == 0:
            lines += [*title, rule]
        lines += [*table.text_lines(width), rule]
    return "\n".join(lines)
