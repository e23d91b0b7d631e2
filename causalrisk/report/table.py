"""Tables of formatted cells: a single table, a summary of several tables with notes, and a table for a paper.

The classes extend the classes of statsmodels. For example, ``summary.tables[1].data`` works as in statsmodels. Unlike
in statsmodels, cells are escaped, wide characters count twice, and all tables of a summary have the same width.
"""

from __future__ import annotations

import csv
import html
import io
import re
import textwrap
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from math import floor, isfinite, log10
from operator import itemgetter
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from statsmodels.iolib.summary import Summary
from statsmodels.iolib.table import SimpleTable

from causalrisk.errors import OptionError, UnavailableError, needed, whole_number
from causalrisk.runtime import write_file

# --- text of cells ---------------------------------------------------------------------------------------------------

LARGEST = 1e9
SMALLEST = 1e-6
SIGNIFICANT = 4
WIDE = 7  # columns beyond which a Word file is in landscape format


def format_number(x: float, digits: int = 7) -> str:
    """Return one number as text, with at least two decimals and four to `digits` significant digits."""
    value = float(x)
    if not isfinite(value):
        return str(value)
    if value == 0:
        return "0.00"
    if not SMALLEST <= abs(value) < LARGEST:
        return f"{value:.{SIGNIFICANT - 1}e}"
    exponent = floor(log10(abs(value)))
    return f"{value:.{min(max(2, SIGNIFICANT - 1 - exponent), max(digits - 1 - exponent, 0))}f}"


def column_format(standard_errors: ArrayLike, estimates: ArrayLike = (), digits: int | None = None) -> str:
    """Return a number format for numbers in one unit: the smallest standard error has four significant digits."""
    if digits is not None:
        whole_number("digits", digits, 0)
        return f"z.{digits}f"
    sizes = [np.abs(np.asarray(values, dtype=float)).ravel() for values in (standard_errors, estimates)]
    errors, others = (values[np.isfinite(values) & (values > 0)] for values in sizes)
    leading = errors if errors.size else others
    if not leading.size:
        return "z.2f"
    decimals = max(2, SIGNIFICANT - 1 - floor(log10(leading.min())))
    largest = float(np.concatenate([errors, others]).max())
    whole = max(floor(log10(largest)) + 1, 1)
    scientific = decimals > 8 or largest >= LARGEST or whole + decimals > 15
    return f"z.{SIGNIFICANT - 1}e" if scientific else f"z.{decimals}f"


def format_p(p: float) -> str:
    """Return a p-value as text: three decimals, or ``<0.001``."""
    return "<0.001" if p < 0.001 else f"{float(p):.3f}"


def signed_p(p: float) -> str:
    """Return a p-value with its relation sign, "= 0.043" or "< 0.001"."""
    return "< 0.001" if p < 0.001 else f"= {format_p(p)}"


def format_share(x: float) -> str:
    """Return a share as a percentage."""
    value = float(x)
    return f"{100 * value:z.1f}%" if isfinite(value) else str(value)


def display_width(text: str) -> int:
    """Return the number of terminal columns of a text: two for wide characters, none for combining characters."""
    shown = [c for c in text if not unicodedata.combining(c) and unicodedata.category(c) not in ("Mn", "Me", "Cf")]
    return len(shown) + sum(unicodedata.east_asian_width(char) in ("W", "F") for char in shown)


def pad(text: str, width: int, align: str) -> str:
    """Return the text filled with blanks to a display width. A longer text is returned unchanged."""
    free = max(width - display_width(text), 0)
    left = {"l": 0, "r": free, "c": free // 2}[align]
    return " " * left + text + " " * (free - left)


def flat(text: str) -> str:
    """Return the text on one line. Line breaks and other control characters become blanks."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", " ", text)


def wrap(text: str, width: int, first: str = "", rest: str = "") -> list[str]:
    """Break a text into lines at spaces. Keep its line breaks, and do not break words longer than `width`."""
    wrapper = textwrap.TextWrapper(
        width, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )
    return [line for paragraph in text.splitlines() or [""] for line in wrapper.wrap(flat(paragraph)) or [""]]


LATEX = {
    **{char: f"\\{char}" for char in "{}&%$#_"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"},
    **{"[": "{[}", "*": "{*}"},  # after a line end LaTeX would read these as an argument, and as part of the command
}


def escape_latex(text: str) -> str:
    """Return the text on one line, with every character that LaTeX reads as markup escaped."""
    return "".join(LATEX.get(char, char) for char in flat(text))


MARKDOWN = re.compile(r"([\\`*_<>|~$]|&(?=#?\w+;))|(?<=\])(\()")


def escape_html(text: str) -> str:
    """Return the text escaped for HTML, with `code` between backticks as a ``code`` element."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))


def escape_markdown(text: str) -> str:
    """Return the text on one line, with every character that Markdown reads as markup escaped, except brackets."""
    return MARKDOWN.sub(lambda m: "\\" + m[0], flat(text))


# --- tables ----------------------------------------------------------------------------------------------------------

Lines = Sequence[Sequence[str]]
WIDTH = 78  # of tables as text; long cells widen them
FIELD, GAP = 10, 2  # usual width of a column of numbers, and minimum number of blanks before it
LEAST_LABEL = 12  # minimum width of the labels of rows
RULES = {"l": ":---", "r": "---:", "c": ":---:"}  # alignments of a Markdown table
LATEX_SIZE = r"\small\setlength{\tabcolsep}{4pt}"  # a summary then fits a page in 12 point
ENDINGS = (".txt", ".tex", ".md", ".csv", ".docx", ".html")
PAGE = '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"></head><body>\n{}\n</body></html>\n'


class ResultTable(SimpleTable):
    """A table of formatted cells.

    Parameters
    ----------
    rows : sequence of sequence of str
        The cells, formatted.
    header : sequence of sequence of str
        Header lines, each as long as a row; may be empty.
    aligns : str
        One of l, r, c per column. If empty, the first column is aligned left and the others right. ``lrlr`` is for two
        pairs of label and value.
    title : str
        Title line, centred above the table.
    rules : sequence of int
        Rows, counted from 0, that have a thin rule above them.
    """

    def __init__(
        self, rows: Lines, header: Lines = (), *, aligns: str = "", title: str = "", rules: Sequence[int] = ()
    ) -> None:
        headers = ["\n".join(map(flat, column)) for column in zip(*header, strict=True)]
        super().__init__([list(map(flat, row)) for row in rows], headers=headers, title=title)
        columns = max((len(row) for row in self), default=0)
        self.aligns = aligns or ("l" + "r" * columns)[:columns]
        self.rules = rules

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
        """Display width that the content needs, at least `WIDTH`."""
        return max(WIDTH, sum(self._fields(WIDTH)))

    def text_lines(self, width: int) -> list[str]:
        """Return the lines between the upper and the lower rule, at a given width."""
        fields = self._fields(width)

        def line(texts: list[str], spanned: bool = False) -> list[str]:
            alone = []
            if display_width(texts[0]) > fields[0]:  # a label on a line of its own
                alone, texts = [texts[0]], ["", *texts[1:]]
            if self.aligns == "lrlr":
                texts = [*texts[:2], f"   {texts[2]}", texts[3]]
            cells = list(zip(texts, fields, self.aligns, strict=True))
            if spanned:
                spans = [list(same) for _, same in groupby(cells, itemgetter(0))]
                cells = [(of[0][0], sum(size for _, size, _ in of), "c" if of[1:] else of[0][2]) for of in spans]
            return [*alone, "".join(pad(cell, size, align) for cell, size, align in cells).rstrip()]

        lines = [text for k, row in enumerate(self.heads, 1) for text in line(row, k < len(self.heads))]
        lines += ["-" * width] * bool(self.heads)
        for number, row in enumerate(self.body):
            lines += ["-" * width] * (number in self.rules) + line(row)
        return lines

    def _fields(self, width: int) -> list[int]:
        """Return the width of each column with the blanks before it. The first column gets the remaining width."""
        content = [max(map(display_width, map(str, column)), default=0) for column in zip(*self, strict=True)]
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
        """Return the table as text."""
        return stack_text([self], self.natural_width)

    def as_html(self) -> str:
        """Return the table as an HTML ``table`` element, with all text escaped."""
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
        """Return the table as a LaTeX ``tabular`` for the booktabs package, with all text escaped."""
        heads = [*map(_latex_spans, self.heads[:-1]), *map(_latex_row, self.heads[-1:])]
        rows = ["\\midrule\n" * (i in self.rules) + _latex_row(row) for i, row in enumerate(self.body)]
        body = [r"\toprule", *heads, *[r"\midrule"] * bool(heads), *rows, r"\bottomrule"]
        tabular = "\n".join([rf"\begin{{tabular}}{{{self.aligns}}}", *body, r"\end{tabular}"])
        return "\n".join([r"\begin{center}", tabular, r"\end{center}"]) if center else tabular

    def as_csv(self) -> str:
        """Return the table as comma-separated values, one line per row, the title first."""
        rows = ([str(cell).strip() for cell in row] for row in self)
        return _csv_lines([[self.title], *rows] if self.title else rows)

    def as_markdown(self) -> str:
        """Return the table as a Markdown pipe table, with all text escaped."""
        joined = [" ".join(filter(None, map(str.strip, column))) for column in zip(*self.heads, strict=True)]
        rows = [joined or [""] * len(self.aligns), *self.body]
        lines = [" | ".join(_indented(escape_markdown(cell), "&nbsp;").rstrip() for cell in row) for row in rows]
        lines.insert(1, " | ".join(RULES[align] for align in self.aligns))
        title = [f"**{escape_markdown(self.title)}**", ""] if self.title else []
        return "\n".join([*title, *(f"| {line} |" for line in lines)])

    def grouped(self) -> pd.DataFrame:
        """Return the cells as a frame for maketables: one column level per header line, and one row group per rule."""
        heads = [row[1:] for row in self.heads] or [[" " * j for j in range(1, len(self.aligns))]]
        labels = [_indented(row[0], "\N{NO-BREAK SPACE}") for row in self.body]
        groups = [" " * (1 + sum(rule <= i for rule in self.rules)) for i in range(len(labels))]
        index = pd.MultiIndex.from_arrays([groups, labels]) if self.rules else labels
        columns = pd.MultiIndex.from_arrays(heads) if len(heads) > 1 else heads[0]
        return pd.DataFrame([row[1:] for row in self.body], index=index, columns=columns)


def _csv_lines(rows: Iterable[Sequence[str]]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([[flat(cell) for cell in row] for row in rows])
    return stream.getvalue().removesuffix("\n")


def _indented(text: str, blank: str) -> str:
    """Return a text with its leading blanks replaced by `blank`, for formats that drop plain blanks."""
    return blank * (len(text) - len(text.lstrip(" "))) + text.lstrip(" ")


def _latex_spans(row: Sequence[str]) -> str:
    """Return a LaTeX header line in which equal neighbouring cells are merged, with a rule below."""
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
    stars = re.compile(r"(?<=\d)(?:\{\*\})+$")
    return " & ".join(stars.sub(lambda m: f"$^{{{m[0].replace('{*}', '*')}}}$", cell) for cell in cells) + r" \\"


def stack_text(tables: Sequence[ResultTable], width: int) -> str:
    """Return tables one below the other, with a rule above, between and below them."""
    rule = "=" * width
    lines: list[str] = []
    for number, table in enumerate(tables):
        title = [pad(line, width, "c").rstrip() for line in wrap(table.title, width)] if table.title else []
        if title or number == 0:
            lines += [*title, rule]
        lines += [*table.text_lines(width), rule]
    return "\n".join(lines)


class ResultSummary(Summary):
    """Tables and notes of a result.

    Parameters
    ----------
    tables : sequence of ResultTable
        The tables, from top to bottom.
    notes : sequence of str
        The notes, without their numbers. Empty notes are left out. Each note is put on one line.

    Attributes
    ----------
    tables : list of ResultTable
        The tables, from top to bottom.
    notes : list of str
        The notes, without their numbers.
    """

    _floats = False  # whether a title makes the LaTeX form a floating table

    def __init__(self, tables: Sequence[ResultTable] = (), notes: Sequence[str] = ()) -> None:
        super().__init__()
        self.tables = list(tables)
        self.notes = [flat(note) for note in notes if note]

    def __getattr__(self, name: str) -> Any:
        form = name.removeprefix("to_")
        if form == name:
            return object.__getattribute__(self, name)
        if not hasattr(type(self), f"as_{form}"):
            raise UnavailableError(f'a table has no attribute {name!r}.\nUse `table.save("table.docx")`.')
        made = getattr(self, f"as_{form}")
        return lambda path=None, **options: write_file(path, f"{made(**options)}\n") if path else made(**options)

    def add_extra_txt(self, etext: Sequence[str]) -> None:
        """Add notes."""
        self.notes.extend(etext)

    def as_text(self) -> str:
        """Return the summary as text.

        Returns
        -------
        str
            The tables with rules between them, and the notes.
        """
        lines = [stack_text(self.tables, max([WIDTH, *(table.natural_width for table in self.tables)]))]
        lines += ["", "Notes:"] if self.notes else []
        return "\n".join([*lines, *(line for note in self._note_texts() for line in wrap(note, WIDTH, rest="    "))])

    def as_html(self) -> str:
        """Return the summary as HTML, with all text escaped.

        Returns
        -------
        str
            One ``table`` element per table, and one paragraph per note.
        """
        notes = [f"<p>{escape_html(note)}</p>" for note in self._note_texts()]
        return "\n".join([*(table.as_html() for table in self.tables), *notes])

    def as_latex(self, *, label: str | None = None, caption: str | None = None) -> str:
        r"""Return the summary as LaTeX for the booktabs package, with all text escaped.

        Parameters
        ----------
        label : str, optional
            Name for ``\ref``. With a label or a caption, the result is a floating ``table``. A table for a paper is
            also floating if it has a title.
        caption : str, optional
            Caption; by default the title.

        Returns
        -------
        str
            One ``tabular`` per table, with the notes below.
        """
        texts = [escape_latex(note) for note in self._note_texts()]
        notes = [rf"\par\medskip\begin{{minipage}}{{\linewidth}}\footnotesize {text}\end{{minipage}}" for text in texts]
        titles = [table.title for table in self.tables]
        caption = caption or titles[0] or None if self._floats else caption
        begin, end = [rf"\begin{{center}}{LATEX_SIZE * (len(titles) > 1)}"], r"\end{center}"
        if label is not None or caption is not None:
            caption, titles = escape_latex(caption or next(filter(None, titles), "")), ["", *titles[1:]]
            named = [] if label is None else [rf"\label{{{label}}}"]
            begin = [r"\begin{table}[htbp]", r"\centering", rf"\caption{{{caption}}}", *named, r"\smallskip"]
            end = r"\end{table}"
        heads = [rf"\textbf{{{escape_latex(title)}}}\par\medskip" + "\n" if title else "" for title in titles]
        tabulars = [head + table.as_latex_tabular(False) for head, table in zip(heads, self.tables, strict=True)]
        return "\n".join([*begin, "\\par\\medskip\n".join(tabulars), *notes, end])

    def as_csv(self) -> str:
        """Return the summary as comma-separated values.

        Returns
        -------
        str
            One line per row of a table, then one line per note.
        """
        notes = _csv_lines([note] for note in self._note_texts())
        return "\n".join([*(table.as_csv() for table in self.tables), *filter(None, [notes])])

    def as_markdown(self) -> str:
        """Return the summary as Markdown, with all text escaped.

        Returns
        -------
        str
            One pipe table per table, and one paragraph per note.
        """
        return "\n\n".join([*(table.as_markdown() for table in self.tables), *map(escape_markdown, self._note_texts())])

    _repr_markdown_ = as_markdown

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the summary to a file. The ending of the file name determines the format.

        Parameters
        ----------
        path : path
            A file name that ends in .txt, .tex, .md, .csv, .docx (Word) or .html. The last two need the package
            maketables.

        Returns
        -------
        pathlib.Path
            The file.

        Raises
        ------
        OptionError
            If the file name has another ending.
        UnavailableError
            If maketables is needed and not installed.
        """
        file = Path(path)
        texts = {".txt": self.as_text, ".tex": self.as_latex, ".md": self.as_markdown, ".csv": self.as_csv}
        kind = file.suffix.lower()
        if kind in texts:
            return write_file(file, f"{texts[kind]()}\n")
        if kind == ".html":
            return write_file(file, PAGE.format("\n".join(table.make("gt").as_raw_html() for table in self._made())))
        if kind not in ENDINGS:
            found = f"the ending {file.suffix!r} is not known; expected {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}"
            raise OptionError(f'{found}.\nUse `save("{file.with_suffix(".docx").as_posix()}")`.')
        whole, *others = [table.make("docx") for table in self._made()]
        for other in others:  # one below the other
            whole.add_paragraph()  # Word would merge tables that touch
            for element in list(other.element.body)[:-1]:  # the last has the size of the page
                whole.element.body.insert(len(whole.element.body) - 1, element)
        body, word = whole.element.body, f"{{{whole.element.nsmap['w']}}}"
        for field in body.iter(f"{word}fldChar"):  # the number in the caption
            field.set(f"{word}dirty", "true")  # which Word computes when it opens the file
        if max(len(table.aligns) for table in self.tables) > WIDE:
            page, landscape = whole.sections[0], type(whole.sections[0].orientation)(1)
            page.orientation, page.page_width, page.page_height = landscape, page.page_height, page.page_width
            for width in body.iter(f"{word}gridCol", f"{word}tcW"):
                width.set(f"{word}w", f"{int(width.get(f'{word}w')) * 1.4:.0f}")
        stream = io.BytesIO()
        whole.save(stream)
        return write_file(file, stream.getvalue())

    def _note_texts(self) -> list[str]:
        return [f"[{i}] {note}" for i, note in enumerate(self.notes, 1)]

    def _made(self) -> list[Any]:
        with needed("Word and HTML tables need maketables", '"causalrisk[tables]"'):
            from maketables import MTable
        made = []
        for table in self.tables:
            notes = "\n".join(self._note_texts()) if table is self.tables[-1] else ""
            caption = ": ".join(filter(None, [flat(table.title), *(head[0] for head in table.heads)])) or None
            made.append(MTable(table.grouped(), notes=notes, caption=caption, rgroup_sep="t", rgroup_display=False))
        return made


class HasSummary:
    """Mixin of results that notebooks display as their summary."""

    summary: Callable[..., Any]

    def _repr_html_(self) -> str:
        return str(self.summary().as_html())

    def _repr_markdown_(self) -> str:
        return str(self.summary().as_markdown())


class PaperTable(ResultSummary):
    """A table for a paper.

    Parameters
    ----------
    table : ResultTable
        The cells.
    notes : sequence of str
        Sentences to print below the table.
    frame : DataFrame
        The numbers behind the cells.
    together : int
        Number of columns to keep together if a table is split.

    Attributes
    ----------
    frame : DataFrame
        The numbers behind the cells, not rounded.
    """

    _floats = True

    def __init__(self, table: ResultTable, notes: Sequence[str], frame: pd.DataFrame, together: int = 1) -> None:
        super().__init__([table], notes)
        self.frame, self._together = frame, together

    def as_text(self) -> str:
        """Return the table as text. If it is too wide, blocks of columns are printed one below the other.

        Returns
        -------
        str
            The blocks, and the notes.
        """
        blocks: list[str] = []
        left = list(range(1, len(self.tables[0].aligns)))
        step = self._together if self._part(left[: self._together]).natural_width <= WIDTH else 1
        while left or not blocks:
            count = len(left)
            while count > step and self._part(left[:count]).natural_width > WIDTH:
                count -= step
            blocks.append(self._part(left[:count]).as_text())
            left = left[count:]
        return "\n".join([*blocks, *(line for note in self._note_texts() for line in wrap(note, WIDTH))])

    __repr__ = as_text

    def _part(self, columns: Sequence[int]) -> ResultTable:
        whole, kept = self.tables[0], [0, *columns]
        rows, heads = ([[row[j] for j in kept] for row in lines] for lines in (whole.body, whole.heads))
        aligns = "".join(whole.aligns[j] for j in kept)
        return ResultTable(rows, heads, aligns=aligns, title=whole.title, rules=whole.rules)

    def to_gt(self) -> Any:
        """Return the table as a great_tables table, laid out by maketables.

        Returns
        -------
        great_tables.GT
            The table.

        Raises
        ------
        UnavailableError
            If maketables is not installed.
        """
        return self._made()[0].make("gt")

    def _note_texts(self) -> list[str]:
        return [f"Notes: {' '.join(self.notes)}"] if self.notes else []
