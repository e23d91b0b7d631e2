"""Tables and notes of a result, one below the other, in every format, and written to a file.

The class is statsmodels' own, so that what works on its summaries works on these.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from statsmodels.iolib.summary import Summary
from statsmodels.iolib.table import SimpleTable

from causalrisk.errors import OptionError, UnavailableError
from causalrisk.report.tables.columns import wrap
from causalrisk.report.tables.escape import csv_lines, escape_latex, escape_markdown
from causalrisk.report.tables.table import ResultTable, TableContent, head_spans, stack_text
from causalrisk.report.tables.word import WordTable, write_docx
from causalrisk.runtime.files import write_whole

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


def _word_table(table: SimpleTable) -> WordTable:
    """Return the content of a table for a Word document; the table may have been added by hand."""
    if isinstance(table, ResultTable):
        return WordTable(
            title=table.title or "",
            heads=table.heads,
            body=table.body,
            aligns=table.aligns,
            rules=table.rules,
            spans=[[count for _, count in head_spans(line)] for line in table.heads[: table.spanned]],
        )
    rows = [[str(cell) for cell in row] for row in table]
    return WordTable(title=table.title or "", heads=[], body=rows, aligns="l" * max(map(len, rows)), rules=(), spans=[])
