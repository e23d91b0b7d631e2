"""One table of cells that are already formatted, as text, HTML, LaTeX, Markdown and CSV.

The class is statsmodels' own, so that ``summary.tables[1].data``, ``.as_html()`` and the like work as they do there.
Other than there, cells are escaped, wide characters count twice, and all tables are equally wide.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

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
    spanned : int
        Number of header lines, from the first, in which equal neighbours are one head over several columns, where the
        format has such heads.
    """

    rows: tuple[tuple[str, ...], ...]
    header: tuple[tuple[str, ...], ...] = ()
    aligns: str = ""
    title: str = ""
    widths: tuple[int, ...] = ()
    rules: tuple[int, ...] = ()
    spanned: int = 0


def head_spans(cells: Sequence[str]) -> list[tuple[str, int]]:
    """Return the cells of a header line with their numbers of columns: equal neighbours, if not empty, are one.

    Examples
    --------
    >>> head_spans(["", "before", "before", "after"])
    [('', 1), ('before', 2), ('after', 1)]
    """
    found: list[tuple[str, int]] = []
    for cell in cells:
        if found and cell and cell == found[-1][0]:
            found[-1] = cell, found[-1][1] + 1
        else:
            found.append((cell, 1))
    return found


class ResultTable(SimpleTable):
    """A table of formatted cells.

    Parameters
    ----------
    content : TableContent
        Cells, header, alignment and title.
    width : int
        Display width of the text form. A label for which there is no room stands on a line of its own; numbers that
        need more widen the table.
    """

    def __init__(self, content: TableContent, width: int = 78) -> None:
        headers = ["\n".join(map(printable, column)) for column in zip(*content.header, strict=True)]
        super().__init__([list(map(printable, row)) for row in content.rows], headers=headers, title=content.title)
        columns = max((len(row) for row in self), default=0)
        self.aligns = content.aligns or ("l" + "r" * columns)[:columns]
        self.widths = content.widths
        self.rules, self.spanned = content.rules, content.spanned
        self.width = width

    @property
    def heads(self) -> list[list[str]]:
        """Cells of the header lines."""
        return [self._cells(row) for row in self if row.datatype == "header"]

    @property
    def body(self) -> list[list[str]]:
        """Cells of the rows below the header."""
        return [self._cells(row) for row in self if row.datatype != "header"]

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

    def title_lines(self, width: int) -> list[str]:
        """Return the title, centred, on as many lines as it needs."""
        if not self.title:
            return []
        return [pad(line, width, "c").rstrip() for line in wrap(self.title, width)]

    def as_text(self) -> str:
        """Return the table as text.

        Returns
        -------
        str
            Title, rule, header, rule, rows, rule.
        """
        return stack_text([self], self.natural_width)

    def as_html(self) -> str:
        """Return the table as an HTML ``table`` element, everything escaped.

        Returns
        -------
        str
            The element. Header cells and left-aligned columns are ``th``.
        """
        lines = ['<table class="simpletable">']
        if self.title:
            lines.append(f"<caption>{html.escape(self.title)}</caption>")
        heads = [
            self._html_spans(row) if i < self.spanned else self._html_row(row, head=True)
            for i, row in enumerate(self.heads)
        ]
        rows = [self._html_row(row, head=False, ruled=i in self.rules) for i, row in enumerate(self.body)]
        if heads:
            lines += ["<thead>", *heads, "</thead>"]
        return "\n".join([*lines, "<tbody>", *rows, "</tbody>", "</table>"])

    def as_latex_tabular(self, center: bool = True) -> str:
        """Return the table as a LaTeX ``tabular``, for the booktabs package, everything escaped.

        Parameters
        ----------
        center : bool
            Whether to put it, with its title, into a ``center`` environment.

        Returns
        -------
        str
            The environment.
        """
        heads = [
            self._latex_spans(row) if i < self.spanned else self._latex_row(row) for i, row in enumerate(self.heads)
        ]
        rows = [("\\midrule\n" if i in self.rules else "") + self._latex_row(row) for i, row in enumerate(self.body)]
        body = [r"\toprule", *heads, *([r"\midrule"] if heads else []), *rows, r"\bottomrule"]
        lines = [rf"\begin{{tabular}}{{{self.aligns}}}", *body, r"\end{tabular}"]
        if not center:
            return "\n".join(lines)
        title = [rf"\textbf{{{escape_latex(self.title)}}}\par\medskip"] if self.title else []
        return "\n".join([rf"\begin{{center}}{LATEX_SIZE}", *title, *lines, r"\end{center}"])

    def as_csv(self) -> str:
        """Return the table as comma-separated values, one line per row, the title first.

        Returns
        -------
        str
            The lines.
        """
        rows = ([cell.strip() for cell in self._cells(row)] for row in self)
        return csv_lines([[self.title], *rows] if self.title else rows)

    def _cells(self, row: Iterable[object]) -> list[str]:
        return [str(cell) for cell in row]

    def _columns(self, width: int) -> tuple[list[int], list[int]]:
        content = [0] * len(self.aligns)
        for row in self:
            content = [max(w, display_width(cell)) for w, cell in zip(content, self._cells(row), strict=True)]
        if content and "l" not in self.aligns[1:]:
            room = width - sum(needed_width(j, 0, content, self.widths) for j in range(1, len(content)))
            content[0] = min(content[0], max(room, LEAST_LABEL))
        return column_widths(content, self.aligns, self.widths, width)

    def as_markdown(self) -> str:
        """Return the table as a Markdown pipe table, everything escaped.

        Returns
        -------
        str
            The title in bold, and the table; header lines are joined to one.
        """
        joined = [" ".join(filter(None, map(str.strip, column))) for column in zip(*self.heads, strict=True)]
        head = joined or [""] * len(self.aligns)
        rows = [[_markdown_cell(cell) for cell in row] for row in (head, *self.body)]
        lines = [" | ".join(row) for row in (rows[0], [RULES[align] for align in self.aligns], *rows[1:])]
        title = [f"**{escape_markdown(self.title)}**", ""] if self.title else []
        return "\n".join([*title, *(f"| {line} |" for line in lines)])

    def _html_row(self, row: Iterable[object], head: bool, ruled: bool = False) -> str:
        cells = []
        for cell, align in zip(self._cells(row), self.aligns, strict=True):
            tag, scope = ("th", ' scope="col"') if head else ("th", ' scope="row"') if align == "l" else ("td", "")
            side = {"l": "left", "r": "right"}.get(align, "center")
            indent = "&nbsp;" * (len(cell) - len(cell.lstrip(" ")))
            text = indent + html.escape(cell.strip(" "))
            cells.append(f'<{tag}{scope} style="text-align: {side}">{text}</{tag}>')
        rule = ' style="border-top: 1px solid"' if ruled else ""
        return f"<tr{rule}>{''.join(cells)}</tr>"

    def _html_spans(self, row: Sequence[str]) -> str:
        cells = [
            f'<th scope="colgroup" colspan="{count}" style="text-align: center">{html.escape(text)}</th>'
            for text, count in head_spans(row)
        ]
        return f"<tr>{''.join(cells)}</tr>"

    def _latex_spans(self, row: Sequence[str]) -> str:
        cells, rules, first = [], "", 1
        for text, count in head_spans(row):
            cells.append(rf"\multicolumn{{{count}}}{{c}}{{{escape_latex(text)}}}" if text else "")
            rules += rf"\cmidrule(lr){{{first}-{first + count - 1}}}" if text else ""
            first += count
        return " & ".join(cells) + rf" \\ {rules}"

    def _latex_row(self, row: Iterable[object]) -> str:
        cells = []
        for cell in self._cells(row):
            indent = "~" * (len(cell) - len(cell.lstrip(" ")))
            text = escape_latex(cell.strip(" "))
            cells.append(indent + re.sub(r"(?<![^\s(}])-(?=\d)", "$-$", text))
        return " & ".join(cells) + r" \\"


def _markdown_cell(cell: str) -> str:
    return "&nbsp;" * (len(cell) - len(cell.lstrip(" "))) + escape_markdown(cell.strip(" "))


def stack_text(tables: Sequence[SimpleTable], width: int) -> str:
    """Return tables one below the other, one rule above, between and below them."""
    rule = "=" * width
    lines: list[str] = []
    for number, table in enumerate(tables):
        if not isinstance(table, ResultTable):  # one that was added by hand
            lines += [table.as_text(), rule]
            continue
        title = table.title_lines(width)
        if title or number == 0:
            lines += [*title, rule]
        lines += [*table.text_lines(width), rule]
    return "\n".join(lines)
