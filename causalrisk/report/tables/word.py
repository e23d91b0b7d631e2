"""Tables in a Word document."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from causalrisk.errors import UnavailableError
from causalrisk.report.tables.columns import flat
from causalrisk.runtime.files import write_whole
from causalrisk.runtime.interruptions import interruptions_kept

POINTS = 9  # size of the font
FONT = "Times New Roman"
INCHES, MARGINS = 0.072, 0.16  # widths of a character, and of the sides of a cell
PORTRAIT, LANDSCAPE = 6.5, 9.0  # widths of a line in inches
THICK, THIN = "12", "4"  # widths of a rule in eighths of a point


@dataclass(frozen=True)
class WordTable:
    """Content of a table in a Word document.

    Parameters
    ----------
    title : str
        Caption; empty for none.
    heads, body : list of list of str
        Cells of the header lines and of the rows.
    aligns : str
        One of l, r, c per column.
    rules : tuple of int
        Rows of the body that have a thin rule above them.
    spans : list of list of int
        Number of columns of each head, for the first header lines.
    """

    title: str
    heads: list[list[str]]
    body: list[list[str]]
    aligns: str
    rules: tuple[int, ...]
    spans: list[list[int]]


@interruptions_kept()
def write_docx(tables: Sequence[WordTable], notes: Sequence[str], path: Path) -> None:
    """Write tables and notes to a Word document, ruled as tables in print are.

    Parameters
    ----------
    tables : sequence of WordTable
        The tables.
    notes : sequence of str
        Lines below them.
    path : Path
        The file.

    Raises
    ------
    UnavailableError
        If python-docx is not installed.
    """
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


def _add_table(document: Any, table: WordTable, line: float) -> None:
    from docx.enum.text import WD_ALIGN_PARAGRAPH

    places = {"l": WD_ALIGN_PARAGRAPH.LEFT, "r": WD_ALIGN_PARAGRAPH.RIGHT, "c": WD_ALIGN_PARAGRAPH.CENTER}
    rows, heads = [*table.heads, *table.body], len(table.heads)
    grid = document.add_table(rows=len(rows), cols=len(table.aligns))
    grid.autofit = False
    widths = _widths(table, line)
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
        for first, count in _starts(table.spans[i]) if i < len(table.spans) else ():
            _span(grid.rows[i].cells[first : first + count])
        if i < heads:
            _mark(grid.rows[i]._tr.get_or_add_trPr(), "w:tblHeader", val="true")


def _starts(counts: Sequence[int]) -> list[tuple[int, int]]:
    firsts = [sum(counts[:k]) for k in range(len(counts))]
    return [(first, count) for first, count in zip(firsts, counts, strict=True) if count > 1]


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


def _wanted(table: WordTable) -> list[float]:
    columns = zip(*table.heads, *table.body, strict=True)
    return [INCHES * max(len(cell) for cell in column) + MARGINS for column in columns]


def _widths(table: WordTable, line: float) -> list[Any]:
    """Return the width of each column, together no wider than the line."""
    from docx.shared import Inches

    wanted = _wanted(table)
    scale = min(1.0, line / sum(wanted))
    return [Inches(scale * width) for width in wanted]


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
