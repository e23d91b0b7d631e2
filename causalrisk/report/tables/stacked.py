"""Tables and notes of a result, or one table of a paper, in every format, and written to a file.

The class is statsmodels' own, so that what works on its summaries works on these.
"""

from __future__ import annotations

import dataclasses
import html
import io
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import pandas as pd
from statsmodels.iolib.summary import Summary
from statsmodels.iolib.table import SimpleTable

from causalrisk.errors import OptionError, UnavailableError
from causalrisk.report.tables.table import ResultTable, TableContent, head_spans, stack_text
from causalrisk.report.tables.text import csv_lines, escape_latex, escape_markdown, flat, latex_label, wrap
from causalrisk.runtime.system import write_whole

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
        text = stack_text(self.tables, width)
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

    def _repr_markdown_(self) -> str:
        return self.as_markdown()

    def as_latex(self, *, label: str | None = None, caption: str | None = None) -> str:
        r"""Return the summary as LaTeX, for the booktabs package, everything escaped.

        Parameters
        ----------
        label : str, optional
            For ``\ref``: letters, digits and ``_ : . / + -``. With it or a caption the summary floats.
        caption : str, optional
            Caption, by default the title.

        Returns
        -------
        str
            One ``tabular`` per table, and the notes below.

        Raises
        ------
        OptionError
            If the label has other characters.
        """
        if label is not None or caption is not None:
            title = next((table.title for table in self.tables if table.title), "")
            tables = [table.as_latex_tabular(center=False) for table in self.tables]
            notes = [f"[{i}] {' '.join(note.split())}" for i, note in enumerate(self.notes, 1)]
            return _float("\\par\\medskip\n".join(tables), notes, caption or title, label)
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
        notes = csv_lines([f"[{i}] {' '.join(note.split())}"] for i, note in enumerate(self.notes, 1))
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
        """Write the summary to a file in the format of its ending.

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
            _write_docx([_laid_out(table) for table in self.tables], self._word_notes(), file)
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
    >>> table = TableContent(
    ...     rows=(("ATE", "-228.50", "27.60"),), header=(("", "estimate", "std err"),)
    ... )
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


def _minipages(notes: Sequence[str]) -> list[str]:
    """Return notes in LaTeX, as wide as the text."""
    return [
        rf"\par\medskip\begin{{minipage}}{{\linewidth}}\footnotesize {escape_latex(note)}\end{{minipage}}"
        for note in notes
    ]


def _float(tabular: str, notes: Sequence[str], caption: str, label: str | None) -> str:
    """Return the ``table`` environment of LaTeX round a table."""
    heads = [rf"\caption{{{escape_latex(caption)}}}", *([] if label is None else [rf"\label{{{latex_label(label)}}}"])]
    top = [r"\begin{table}[htbp]", r"\centering", *heads, r"\smallskip"]
    return "\n".join([*top, tabular, *_minipages(notes), r"\end{table}"])


def _laid_out(table: SimpleTable) -> ResultTable:
    """Return a table as one of ours; it may have been added by hand."""
    if isinstance(table, ResultTable):
        return table
    rows = tuple(tuple(map(str, row)) for row in table)
    return ResultTable(TableContent(rows, aligns="l" * max(map(len, rows)), title=table.title or ""))


class PaperTable(ResultSummary):
    """A table for a paper.

    Parameters
    ----------
    content : TableContent
        The cells.
    notes : sequence of str
        Sentences for below the table.
    frame : DataFrame
        The numbers behind the cells.
    width : int
        Display width of the text form; columns that do not fit go below the others.
    together : int
        Number of columns that stay together.

    Attributes
    ----------
    frame : DataFrame
        The numbers behind the cells, not rounded.
    """

    def __init__(
        self, content: TableContent, notes: Sequence[str], frame: pd.DataFrame, width: int = 78, together: int = 1
    ) -> None:
        super().__init__([ResultTable(content, width)], notes, width)
        self.frame = frame
        self._content, self._together = content, together

    def __getattr__(self, name: str) -> Any:
        if hasattr(pd.DataFrame, name) and not hasattr(type(self), name.replace("to_", "as_")) and name[0] != "_":
            raise UnavailableError(f"a table has no attribute {name!r}, its numbers have.\nType  table.frame.{name}.")
        return super().__getattr__(name)

    def __repr__(self) -> str:
        return self.as_text()

    def as_text(self) -> str:
        """Return the table as text, columns that do not fit in blocks below one another.

        Returns
        -------
        str
            The blocks, and the notes.
        """
        blocks: list[str] = []
        left = list(range(1, len(self.tables[0].aligns)))
        step = self._together if self._part(left[: self._together]).natural_width <= self.width else 1
        while left or not blocks:
            count = len(left)
            while count > step and self._part(left[:count]).natural_width > self.width:
                count -= step
            blocks.append(self._part(left[:count]).as_text())
            left = left[count:]
        return "\n".join([*blocks, *self._note_lines()])

    def _part(self, columns: Sequence[int]) -> ResultTable:
        """Return the table with the first column and some of the others."""
        if len(columns) == len(self.tables[0].aligns) - 1:
            return ResultTable(self._content, self.width)
        kept = [0, *columns]
        some = dataclasses.replace(
            self._content,
            rows=tuple(tuple(row[j] for j in kept) for row in self._content.rows),
            header=tuple(tuple(row[j] for j in kept) for row in self._content.header),
            aligns="".join(self.tables[0].aligns[j] for j in kept),
            widths=tuple(self._content.widths[j] for j in kept) if self._content.widths else (),
        )
        return ResultTable(some, self.width)

    def as_html(self) -> str:
        """Return the table as HTML, everything escaped.

        Returns
        -------
        str
            A ``table`` element and a paragraph.
        """
        return "\n".join([self.tables[0].as_html(), *(f"<p>{html.escape(text)}</p>" for text in self._note())])

    def to_gt(self) -> Any:
        """Return the table as one of great_tables, laid out by maketables.

        Returns
        -------
        great_tables.GT
            The table.

        Raises
        ------
        UnavailableError
            If maketables is not installed.
        """
        try:
            from maketables import MTable
        except ImportError as error:
            raise UnavailableError(
                "tables of great_tables need maketables, which is not installed.\nType  pip install maketables."
            ) from error
        table = self.tables[0]
        heads = pd.MultiIndex.from_arrays([row[1:] for row in table.heads])
        cells = pd.DataFrame([row[1:] for row in table.body], index=[row[0] for row in table.body], columns=heads)
        return MTable(cells, notes=" ".join(self.notes), caption=table.title or None).make(type="gt")

    def as_latex(self, caption: str | None = None, label: str | None = None) -> str:
        r"""Return the table as LaTeX, for the booktabs package, everything escaped.

        Parameters
        ----------
        caption : str, optional
            Caption, by default the title of the table; with it or a label the table floats, without both it is a
            ``tabular`` to be put where you like.
        label : str, optional
            For ``\ref``: letters, digits and ``_ : . / + -``.

        Returns
        -------
        str
            The ``table`` or ``center`` environment, the notes as wide as the text.

        Raises
        ------
        OptionError
            If the label has other characters.
        """
        caption, tabular = caption or self.tables[0].title or None, self.tables[0].as_latex_tabular(center=False)
        if caption is None and label is None:
            return "\n".join([r"\begin{center}", tabular, *_minipages(self._note()), r"\end{center}"])
        return _float(tabular, self._note(), caption or "", label)

    def as_markdown(self) -> str:
        """Return the table as Markdown, everything escaped.

        Returns
        -------
        str
            A pipe table and a paragraph.
        """
        return "\n\n".join([self.tables[0].as_markdown(), *map(escape_markdown, self._note())])

    def _note(self) -> list[str]:
        return [f"Notes: {' '.join(self.notes)}"] if self.notes else []

    def _note_lines(self) -> list[str]:
        return [line for text in self._note() for line in wrap(text, self.width)]

    def _word_notes(self) -> list[str]:
        return self._note()


POINTS = 9  # size of the font
FONT = "Times New Roman"
INCHES, MARGINS = 0.072, 0.16  # widths of a character, and of the sides of a cell
PORTRAIT, LANDSCAPE = 6.5, 9.0  # widths of a line in inches
THICK, THIN = "12", "4"  # widths of a rule in eighths of a point


def _write_docx(tables: Sequence[ResultTable], notes: Sequence[str], path: Path) -> None:
    """Write tables and notes to a Word document, ruled as tables in print are."""
    try:
        import docx
        from docx.enum.section import WD_ORIENT
        from docx.shared import Inches, Pt
    except ImportError as error:
        raise UnavailableError(
            "Word documents need python-docx, which is not installed.\nType  pip install python-docx."
        ) from error
    document = docx.Document()
    document.styles["Normal"].font.size, document.styles["Normal"].font.name = Pt(POINTS), FONT
    section, line = document.sections[0], PORTRAIT
    section.left_margin = section.right_margin = Inches(1)
    if any(sum(_wanted(table)) > PORTRAIT for table in tables):
        section.page_width, section.page_height, line = section.page_height, section.page_width, LANDSCAPE
        section.orientation = WD_ORIENT.LANDSCAPE
    for table in tables:
        if table.title:
            document.add_paragraph().add_run(flat(table.title)).bold = True
        _add_table(document, table, line)
        document.add_paragraph()
    for note in notes:
        document.add_paragraph(flat(note))
    written = io.BytesIO()
    document.save(written)
    write_whole(path, written.getvalue())


def _add_table(document: Any, table: ResultTable, line: float) -> None:
    """Add a table whose columns are together no wider than the line."""
    from docx.enum.text import WD_ALIGN_PARAGRAPH
    from docx.shared import Inches

    places = {"l": WD_ALIGN_PARAGRAPH.LEFT, "r": WD_ALIGN_PARAGRAPH.RIGHT, "c": WD_ALIGN_PARAGRAPH.CENTER}
    rows, heads = [*table.heads, *table.body], len(table.heads)
    grid = document.add_table(rows=len(rows), cols=len(table.aligns))
    grid.autofit = False
    wanted = _wanted(table)
    widths = [Inches(min(1.0, line / sum(wanted)) * width) for width in wanted]
    for column, width in zip(grid.columns, widths, strict=True):
        column.width = width
    for i, texts in enumerate(rows):
        above = THICK if i == 0 else THIN if i == heads or i - heads in table.rules else ""
        below = THICK if i == len(rows) - 1 else ""
        for j, (cell, text, align) in enumerate(zip(grid.rows[i].cells, texts, table.aligns, strict=True)):
            cell.width = widths[j]
            paragraph = cell.paragraphs[0]
            indent = len(text) - len(text.lstrip(" ")) if j == 0 else len(text)  # intervals stay on one line
            paragraph.add_run(text[:indent].replace(" ", "\N{NO-BREAK SPACE}") + text[indent:])
            paragraph.alignment = places[align]
            paragraph.paragraph_format.space_after = 0
            paragraph.paragraph_format.keep_with_next = i < len(rows) - 1
            _rule(cell, top=above, bottom=below)
        first = 0
        for _, count in head_spans(texts) if i < table.spanned else ():
            if count > 1:
                _span(grid.rows[i].cells[first : first + count])
            first += count
        if i < heads:
            _mark(grid.rows[i]._tr.get_or_add_trPr(), "w:tblHeader", val="true")


def _span(cells: Sequence[Any]) -> None:
    """Merge equal heads into a centred one, with a line below."""
    from docx.enum.text import WD_ALIGN_PARAGRAPH

    for cell in cells[1:]:
        cell.paragraphs[0].clear()
    whole = cells[0].merge(cells[-1])
    whole.paragraphs[0].alignment = WD_ALIGN_PARAGRAPH.CENTER
    drawn = whole._tc.tcPr.xpath("w:tcBorders")
    borders = drawn[0] if drawn else _mark(whole._tc.tcPr, "w:tcBorders")
    _mark(borders, "w:bottom", val="single", sz=THIN, space="0", color="000000")


def _wanted(table: ResultTable) -> list[float]:
    columns = zip(*table.heads, *table.body, strict=True)
    return [INCHES * max(len(cell) for cell in column) + MARGINS for column in columns]


def _rule(cell: Any, **sides: str) -> None:
    """Draw lines along sides of a cell."""
    drawn = {side: size for side, size in sides.items() if size}
    if drawn:
        borders = _mark(cell._tc.get_or_add_tcPr(), "w:tcBorders")
        for side, size in drawn.items():
            _mark(borders, f"w:{side}", val="single", sz=size, space="0", color="000000")


def _mark(parent: Any, tag: str, **attributes: str) -> Any:
    """Append an element of Word's markup, with its attributes."""
    from docx.oxml import OxmlElement
    from docx.oxml.ns import qn

    element = OxmlElement(tag)
    for name, value in attributes.items():
        element.set(qn(f"w:{name}"), value)
    parent.append(element)
    return element
