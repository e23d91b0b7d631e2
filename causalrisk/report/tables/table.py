"""One table of formatted cells, as text, HTML, LaTeX, Markdown and CSV.

The class is statsmodels' own, so ``summary.tables[1].data``, ``.as_html()`` and the like work as they do there.
Unlike there, cells are escaped, wide characters count twice, and all tables have the same width.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from itertools import groupby

import pandas as pd
from statsmodels.iolib.table import SimpleTable

from causalrisk.report.tables.text import csv_lines, display_width, escape_latex, escape_markdown, pad, printable, wrap

FIELD, GAP = 10, 2  # usual width of a column of numbers, and the blanks before it at least
LEAST_LABEL = 12  # width left to the labels of rows
RULES = {"l": ":---", "r": "---:", "c": ":---:"}  # alignments of a Markdown table
LATEX_SIZE = r"\small\setlength{\tabcolsep}{4pt}"  # so that a summary fits a page in 12 point


class ResultTable(SimpleTable):
    """A table of formatted cells.

    Parameters
    ----------
    rows : sequence of sequence of str
        The cells, formatted.
    header : sequence of sequence of str
        None, one or more header lines, each as long as a row.
    aligns : str
        One of l, r, c per column; empty: the first column left, the others right. ``lrlr`` are two label-value pairs.
    title : str
        Title line, centred above the table.
    rules : tuple of int
        Rows, counted from 0, that have a thin rule above them.
    width : int
        Display width of the text form. A label that does not fit has a line of its own; numbers that need more room
        widen the table.
    """

    def __init__(
        self,
        rows: Sequence[Sequence[str]],
        header: Sequence[Sequence[str]] = (),
        *,
        aligns: str = "",
        title: str = "",
        rules: tuple[int, ...] = (),
        width: int = 78,
    ) -> None:
        headers = ["\n".join(map(printable, column)) for column in zip(*header, strict=True)]
        super().__init__([list(map(printable, row)) for row in rows], headers=headers, title=title)
        columns = max((len(row) for row in self), default=0)
        self.aligns = aligns or ("l" + "r" * columns)[:columns]
        self.rules, self.width = rules, width

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
        return max(self.width, sum(self._fields(self.width)))

    def text_lines(self, width: int) -> list[str]:
        """Return the lines between the upper and the lower rule, at a given width."""
        fields = self._fields(width)

        def line(texts: list[str]) -> list[str]:
            alone = []
            if display_width(texts[0]) > fields[0]:  # a label on a line of its own
                alone, texts = [texts[0]], ["", *texts[1:]]
            if self.aligns == "lrlr":
                texts = [*texts[:2], f"   {texts[2]}", texts[3]]
            cells = zip(texts, fields, self.aligns, strict=True)
            return [*alone, "".join(pad(cell, size, align) for cell, size, align in cells).rstrip()]

        lines = [text for row in self.heads for text in line(row)] + ["-" * width] * bool(self.heads)
        for number, row in enumerate(self.body):
            lines += ["-" * width] * (number in self.rules) + line(row)
        return lines

    def _fields(self, width: int) -> list[int]:
        """Return the width of each column with the blanks before it; the first gets what is left."""
        content = [max(map(display_width, map(str, column)), default=0) for column in zip(*self, strict=True)]
        if not content:
            return []
        if self.aligns == "lrlr":
            first, second = content[0] + GAP + content[1], 3 + content[2] + GAP + content[3]
            first = max(first, min((width - 3) // 2, width - second))
            return [content[0], first - content[0], 3 + content[2], max(width - first, second) - 3 - content[2]]
        for least, gap in ((FIELD, GAP), (0, GAP), (0, 1)):
            fields = [max(least, size + gap) for size in content[1:]]
            if content[0] + sum(fields) <= width:
                break
        return [max(width - sum(fields), min(content[0], LEAST_LABEL)), *fields]

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
        lines += [f"<caption>{html.escape(self.title)}</caption>"] * bool(self.title)
        for head in self.heads[:-1]:
            spans = [(html.escape(text), len(list(same))) for text, same in groupby(head)]
            cells = "".join(f'<th colspan="{n}" style="text-align: center">{text}</th>' for text, n in spans)
            lines.append(f"<tr>{cells}</tr>")
        last = self.heads[-1:]
        for row in [*last, *self.body]:
            cells = ""
            for text, align in zip(row, self.aligns, strict=True):
                tag = "th" if row in last or align == "l" else "td"
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
        heads = [*map(_latex_spans, self.heads[:-1]), *map(_latex_row, self.heads[-1:])]
        rows = ["\\midrule\n" * (i in self.rules) + _latex_row(row) for i, row in enumerate(self.body)]
        body = [r"\toprule", *heads, *[r"\midrule"] * bool(heads), *rows, r"\bottomrule"]
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
    cells = [re.sub(r"(?<=\d)(?:\{\*\})+$", _latex_stars, cell) for cell in cells]
    return " & ".join(cells) + r" \\"


def _latex_stars(found: re.Match[str]) -> str:
    return f"$^{{{found[0].replace('{*}', '*')}}}$"


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
