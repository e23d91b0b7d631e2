"""Summaries as text, HTML, LaTeX, Markdown, CSV and Word, from cells that are already formatted.

The classes are statsmodels' own, so that ``summary.tables[1].data``, ``.as_html()`` and the like work as they do there.
What is mended: cells and notes are escaped, wide characters count twice, and all tables are equally wide.
"""

from __future__ import annotations

import csv
import html
import io
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from statsmodels.iolib.summary import Summary
from statsmodels.iolib.table import SimpleTable

from causalrisk.errors import OptionError, UnavailableError
from causalrisk.report.files import write_whole
from causalrisk.report.word import WordTable, write_docx

LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # after a line end it would be read as its optional argument
    "*": "{*}",
}

FORMULA = ("=", "+", "-", "@")  # what a spreadsheet takes for the beginning of a formula


MARKDOWN = re.compile(r"([\\\\`*_<>|~$])|(?<=\])(\()")
RULES = {"l": ":---", "r": "---:", "c": ":---:"}  # of a Markdown table
LATEX_SIZE = r"\small\setlength{\tabcolsep}{4pt}"  # so that a summary fits a page in 12 point
PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font-family: sans-serif; }}
table {{ border-collapse: collapse; border-top: 2px solid; border-bottom: 2px solid; margin-bottom: 1em; }}
th, td {{ padding: 0.2em 0.8em; font-weight: normal; }}
thead tr:last-child th {{ border-bottom: 1px solid; }}
caption {{ font-weight: bold; padding: 0.4em; }}
</style></head><body>
{body}
</body></html>"""


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
        Display width of the text form. A label for which there is no room stands on a line of its own; numbers that
        need more widen the table.
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
        return _stack_text([self], self.natural_width)

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
        heads = [self._html_row(row, head=True) for row in self.heads]
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
        heads = [self._latex_row(row) for row in self.heads]
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
        return _csv_lines([[self.title], *rows] if self.title else rows)

    def _cells(self, row: Iterable[object]) -> list[str]:
        return [str(cell) for cell in row]

    def _columns(self, width: int) -> tuple[list[int], list[int]]:
        content = [0] * len(self.aligns)
        for row in self:
            content = [max(w, display_width(cell)) for w, cell in zip(content, self._cells(row), strict=True)]
        if content and "l" not in self.aligns[1:]:
            room = width - sum(_need(j, 0, content, self.widths) for j in range(1, len(content)))
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

    def _latex_row(self, row: Iterable[object]) -> str:
        cells = []
        for cell in self._cells(row):
            indent = "~" * (len(cell) - len(cell.lstrip(" ")))
            text = escape_latex(cell.strip(" "))
            cells.append(indent + re.sub(r"(?<![^\s(}])-(?=\d)", "$-$", text))
        return " & ".join(cells) + r" \\"


class ResultSummary(Summary):
    """Tables and notes of a result.

    Parameters
    ----------
    tables : sequence of SimpleTable
        The tables, from top to bottom.
    notes : sequence of str
        The notes, without their numbers.
    width : int
        Display width of the text form; longer cells widen it.

    Attributes
    ----------
    tables : list of SimpleTable
        The tables, from top to bottom.
    notes : list of str
        The notes, without their numbers.
    """

    def __init__(self, tables: Sequence[SimpleTable] = (), notes: Sequence[str] = (), width: int = 78) -> None:
        super().__init__()
        self.tables = list(tables)
        self.notes = list(notes)
        self.width = width

    def __getattr__(self, name: str) -> Any:
        kind, written = name.removeprefix("to_"), dir(type(self))
        if name.startswith("to_") and (f"as_{kind}" in written or kind in ("word", "docx")):
            advice = f"table.as_{kind}()" if f"as_{kind}" in written else 'table.save("table.docx")'
            raise UnavailableError(f"a table has no attribute {name!r}.\nType  {advice}.")
        return object.__getattribute__(self, name)

    @property
    def extra_txt(self) -> str | None:
        """The notes as they stand below the tables of the text form; None if there are none."""
        return "\n".join(self._note_lines()) if self.notes else None

    @extra_txt.setter
    def extra_txt(self, text: str | None) -> None:
        self.notes = [] if text is None else [text]

    def add_extra_txt(self, etext: Sequence[str]) -> None:
        """Add notes.

        Parameters
        ----------
        etext : sequence of str
            The notes, one each.
        """
        self.notes.extend(etext)

    def as_text(self) -> str:
        """Return the summary as text.

        Returns
        -------
        str
            The tables with the rules between them, and the notes.
        """
        width = max([self.width, *(t.natural_width for t in self.tables if isinstance(t, ResultTable))])
        text = _stack_text(self.tables, width)
        return "\n".join([text, "", *self._note_lines()]) if self.notes else text

    def as_html(self) -> str:
        """Return the summary as HTML, everything escaped.

        Returns
        -------
        str
            One ``table`` element per table, and the notes as a numbered list.
        """
        parts = [table.as_html() for table in self.tables]
        if self.notes:
            spaced = (html.escape(note).replace("   ", " \N{EM SPACE}") for note in self.notes)
            items = (f"<li>{note}</li>" for note in spaced)
            parts += ["<p>Notes:</p>", "<ol>", *items, "</ol>"]
        return "\n".join(parts)

    def as_latex(self) -> str:
        """Return the summary as LaTeX, for the booktabs package, everything escaped.

        Returns
        -------
        str
            One ``tabular`` per table, and the notes below.
        """
        parts = [table.as_latex_tabular() for table in self.tables]
        texts = [escape_latex(note).replace("   ", r" \quad ") for note in self.notes]
        notes = [rf"\noindent {{[}}{i}{{]}} {text}\par" for i, text in enumerate(texts, 1)]
        return "\n".join([*parts, *([r"\noindent Notes:\par"] if notes else []), *notes])

    def as_csv(self) -> str:
        """Return the summary as comma-separated values.

        Returns
        -------
        str
            One line per table row, then one per note.
        """
        notes = _csv_lines([f"[{i}] {' '.join(note.split())}"] for i, note in enumerate(self.notes, 1))
        return "\n".join([*(table.as_csv() for table in self.tables), *([notes] if notes else [])])

    def as_markdown(self) -> str:
        """Return the summary as Markdown, everything escaped.

        Returns
        -------
        str
            One pipe table per table, and the notes as a numbered list.
        """
        notes = [f"{i}. {escape_markdown(' '.join(note.split()))}" for i, note in enumerate(self.notes, 1)]
        parts = [
            table.as_markdown() if isinstance(table, ResultTable) else f"```\n{table.as_text()}\n```"  # added by hand
            for table in self.tables
        ]
        return "\n\n".join([*parts, *(["Notes:", "\n".join(notes)] if notes else [])])

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the summary to a file, whose ending says what it becomes.

        Parameters
        ----------
        path : path
            Ending in .txt, .html (a page), .tex (to be input into a document), .md, .csv or .docx (Word; needs
            python-docx).

        Returns
        -------
        pathlib.Path
            The file.

        Raises
        ------
        OptionError
            If the ending is none of these, or the folder does not exist.
        UnavailableError
            If python-docx is needed and not installed.
        """
        file = Path(path)
        makers = {".txt": self.as_text, ".html": self._page, ".tex": self.as_latex, ".md": self.as_markdown}
        makers[".csv"] = self.as_csv
        kind = file.suffix.lower()
        if kind not in (*makers, ".docx"):
            raise OptionError(
                f"the ending {file.suffix!r} is not known; expected one of {', '.join(makers)}, .docx.\n"
                f'Type  save("{file.with_suffix(".docx").as_posix()}").'
            )
        if not file.parent.is_dir():
            raise OptionError(f'there is no folder {str(file.parent)!r}.\nMake it, or type  save("{file.name}").')
        if kind == ".docx":
            write_docx([_word_table(table) for table in self.tables], self._word_notes(), file)
        else:
            write_whole(file, f"{makers[kind]()}\n")
        return file

    def _word_notes(self) -> list[str]:
        return [f"[{i}] {' '.join(note.split())}" for i, note in enumerate(self.notes, 1)]

    def _page(self) -> str:
        title = next((table.title for table in self.tables if table.title), "Table")
        return PAGE.format(title=html.escape(title), body=self.as_html())

    def _note_lines(self) -> list[str]:
        lines = ["Notes:"]
        for i, note in enumerate(self.notes, 1):
            lines += wrap(note, self.width, first=f"[{i}] ", rest="    ")
        return lines


def build_summary(tables: Sequence[TableContent], notes: Sequence[str], width: int = 78) -> ResultSummary:
    """Lay out tables and notes.

    Parameters
    ----------
    tables : sequence of TableContent
        The tables, from top to bottom.
    notes : sequence of str
        The notes, without numbers.
    width : int
        Display width of the text form; longer cells widen all tables, nothing is cut off.

    Returns
    -------
    ResultSummary
        With ``as_text``, ``as_html``, ``as_latex``, ``as_markdown``, ``as_csv`` and ``save``.

    Examples
    --------
    >>> table = TableContent(rows=(("ATE", "-228.50", "27.60"),), header=(("", "estimate", "std err"),))
    >>> print(build_summary([table], ["Made up."], width=40))
    ========================================
                     estimate        std err
    ----------------------------------------
    ATE               -228.50          27.60
    ========================================
    <BLANKLINE>
    Notes:
    [1] Made up.
    """
    return ResultSummary([ResultTable(content, width) for content in tables], notes, width)


def escape_latex(text: str) -> str:
    r"""Return the text with every character that LaTeX takes for markup escaped.

    Parameters
    ----------
    text : str
        Plain text.

    Returns
    -------
    str
        Text for a LaTeX document.

    Examples
    --------
    >>> print(escape_latex("50% of I(x^2) & a_b"))
    50\% of I(x\textasciicircum{}2) \& a\_b
    """
    return "".join(LATEX.get(char, char) for char in text)


def escape_markdown(text: str) -> str:
    r"""Return the text with every character that Markdown takes for markup escaped.

    Parameters
    ----------
    text : str
        Plain text.

    Returns
    -------
    str
        Text for a Markdown document; brackets stay, as they make no link.

    Examples
    --------
    >>> print(escape_markdown("P>|z| of x**2 in POM[a](b)"))
    P\>\|z\| of x\*\*2 in POM[a]\(b)
    """
    return MARKDOWN.sub(lambda m: "\\" + m[0], text)


def _word_table(table: SimpleTable) -> WordTable:
    """Return what a Word document shows of a table, which may be one that was added by hand."""
    if isinstance(table, ResultTable):
        return WordTable(table.title or "", table.heads, table.body, table.aligns, table.rules)
    rows = [[str(cell) for cell in row] for row in table]
    return WordTable(table.title or "", [], rows, "l" * max(map(len, rows)), ())


def _markdown_cell(cell: str) -> str:
    return "&nbsp;" * (len(cell) - len(cell.lstrip(" "))) + escape_markdown(cell.strip(" "))


def _stack_text(tables: Sequence[SimpleTable], width: int) -> str:
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


def no_formula(cell: str) -> str:
    """Return a cell as text for a spreadsheet: what it would run as a formula gets an apostrophe in front.

    Examples
    --------
    >>> no_formula("=cmd|calc"), no_formula("-228.50"), no_formula("mage")
    ("'=cmd|calc", '-228.50', 'mage')
    """
    if not cell.startswith(FORMULA):
        return cell
    try:
        float(cell.rstrip("%"))
    except ValueError:
        return f"'{cell}"
    return cell


def _csv_lines(rows: Iterable[Sequence[str]]) -> str:
    """Return rows as comma-separated values, quoted where needed, without a line break at the end."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([[no_formula(cell) for cell in row] for row in rows])
    return stream.getvalue().removesuffix("\n")


LEAST_LABEL = 12  # width left to the labels of rows
GAP = 2  # blanks between two columns
GROUP_GAP = 3  # blanks between two groups of columns, such as the label-value pairs of a summary's head


def display_width(text: str) -> int:
    """Return how many terminal columns a text takes: two for wide characters, none for combining ones."""
    return sum(_char_width(char) for char in text)


def pad(text: str, width: int, align: str) -> str:
    """Return the text filled with blanks to a display width; a longer text is returned as it is."""
    free = max(width - display_width(text), 0)
    if align == "l":
        return text + " " * free
    if align == "r":
        return " " * free + text
    return " " * (free // 2) + text + " " * (free - free // 2)


def printable(text: str) -> str:
    r"""Return the text with line breaks and other control characters spelled out, as ``\n``."""
    return "".join(
        char.encode("unicode_escape").decode("ascii") if unicodedata.category(char) in ("Cc", "Zl", "Zp") else char
        for char in text
    )


def wrap(text: str, width: int, first: str = "", rest: str = "") -> list[str]:
    """Break a text into lines at blanks.

    Parameters
    ----------
    text : str
        The text; its own line breaks are kept. Blanks between words that stay on a line are kept too.
    width : int
        Display width of a line. A word that is longer is not broken.
    first, rest : str
        What the first and the other lines begin with.

    Returns
    -------
    list of str
        The lines, without blanks at their ends.
    """
    lines: list[str] = []
    start = first
    for paragraph in text.splitlines() or [""]:
        line = start
        empty = True
        for blanks, word in re.findall(r"( *)([^ ]+)", printable(paragraph)):
            if not empty and display_width(line + blanks + word) > width:
                lines.append(line)
                line, blanks = rest, ""
            line += word if empty else blanks + word
            empty = False
        lines.append(line.rstrip())
        start = rest
    return lines


def column_widths(
    content: Sequence[int], aligns: str, preferred: Sequence[int], width: int
) -> tuple[list[int], list[int]]:
    """Return the width of each column, and the blanks before it, that make a table as wide as asked.

    Parameters
    ----------
    content : sequence of int, length k
        Display width of each column's longest cell.
    aligns : str, length k
        Alignment of each column, l, r or c. Each l after the first column begins a new group; groups share the width.
    preferred : sequence of int, length k or 0
        Width wished for each column with the blanks before it; it gives way when the table would become too wide.
        What is left over goes to the first column of a group. Empty: it is spread evenly over the gaps.
    width : int
        Width wished for the table.

    Returns
    -------
    widths : list of int, length k
        Width of each column without the blanks before it.
    gaps : list of int, length k
        Blanks before each column. All widths and gaps add up to `width`, or to more if the content needs it.
    """
    if not content:
        return [], []
    starts = [j for j, align in enumerate(aligns) if j == 0 or align == "l"]
    groups = [range(start, stop) for start, stop in zip(starts, [*starts[1:], len(aligns)], strict=True)]
    needs = [[_need(j, group.start, content, preferred) for j in group] for group in groups]
    shares = _shares([sum(need) for need in needs], width - GROUP_GAP * (len(groups) - 1))
    widths, gaps = list(content), [0] * len(content)
    for group, need, share in zip(groups, needs, shares, strict=True):
        wished = [max(n, preferred[j] if preferred else 0) for j, n in zip(group, need, strict=True)]
        fields = _spread(need, wished, share, to_first=bool(preferred) or len(group) == 1)
        widths[group.start] = fields[0]
        gaps[group.start] = GROUP_GAP if group.start else 0
        for j, field in zip(group[1:], fields[1:], strict=True):
            gaps[j] = field - content[j]
    return widths, gaps


def _char_width(char: str) -> int:
    """Return 0, 1 or 2, the terminal columns of one character."""
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in ("W", "F") else 1


def _need(j: int, start: int, content: Sequence[int], preferred: Sequence[int]) -> int:
    """Return the least width of column j, with the blanks before it; a wish may bring these down to one."""
    if j == start:
        return content[j]
    least, usual = content[j] + 1, content[j] + GAP
    return min(max(preferred[j], least), usual) if preferred else usual


def _shares(needs: list[int], width: int) -> list[int]:
    """Divide a width evenly between groups, the later ones taking the remainder, without going below any need."""
    width = max(width, sum(needs))
    open_groups = set(range(len(needs)))
    shares = list(needs)
    while open_groups:
        left = width - sum(needs[g] for g in range(len(needs)) if g not in open_groups)
        ordered = sorted(open_groups)
        even = [left * (i + 1) // len(ordered) - left * i // len(ordered) for i in range(len(ordered))]
        tight = {g for g, share in zip(ordered, even, strict=True) if needs[g] > share}
        if not tight:
            for g, share in zip(ordered, even, strict=True):
                shares[g] = share
            break
        open_groups -= tight
    return shares


def _spread(need: list[int], wished: list[int], width: int, to_first: bool) -> list[int]:
    """Return column widths that add up to `width`, between the needs and the wishes as far as possible."""
    short = sum(wished) - width
    if short > 0:
        slack = [w - n for w, n in zip(wished, need, strict=True)]
        room = width - sum(need)
        ends = [room * sum(slack[: j + 1]) // sum(slack) for j in range(len(slack))]
        return [n + end - start for n, end, start in zip(need, ends, [0, *ends[:-1]], strict=True)]
    if to_first:
        return [wished[0] - short, *wished[1:]]
    gaps = len(need) - 1
    extra = [-short // gaps + (j < -short % gaps) for j in range(gaps)]
    return [wished[0], *(w + e for w, e in zip(wished[1:], extra, strict=True))]
