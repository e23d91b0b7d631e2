"""Tables and notes of a result, or one table of a paper: text, LaTeX, Markdown and CSV; Word and HTML by maketables."""

from __future__ import annotations

import io
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import pandas as pd
from statsmodels.iolib.summary import Summary

from causalrisk.errors import OptionError, UnavailableError
from causalrisk.report.tables.table import LATEX_SIZE, ResultTable, stack_text
from causalrisk.report.tables.text import csv_lines, escape_html, escape_latex, escape_markdown, flat, latex_label, wrap
from causalrisk.runtime.system import write_whole

ENDINGS = (".txt", ".tex", ".md", ".csv", ".docx", ".html")
PAGE = '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"></head><body>\n{}\n</body></html>\n'


class ResultSummary(Summary):
    """Tables and notes of a result.

    Parameters
    ----------
    tables : sequence of ResultTable
        The tables, from top to bottom.
    notes : sequence of str
        The notes, without their numbers.
    width : int
        Display width of the text form; longer cells widen it.

    Attributes
    ----------
    tables : list of ResultTable
        The tables, from top to bottom.
    notes : list of str
        The notes, without their numbers.
    """

    def __init__(self, tables: Sequence[ResultTable] = (), notes: Sequence[str] = (), width: int = 78) -> None:
        super().__init__()
        self.tables = list(tables)
        self.notes = list(notes)
        self.width = width

    def __getattr__(self, name: str) -> Any:
        form = name.removeprefix("to_")
        typed = 'save("table.docx")' if form in ("word", "docx") else f"as_{form}()"
        if form != name and hasattr(type(self), typed.partition("(")[0]):
            raise UnavailableError(f"a table has no attribute {name!r}.\nUse `table.{typed}`.")
        return object.__getattribute__(self, name)

    def add_extra_txt(self, etext: Sequence[str]) -> None:
        """Add notes.

        Parameters
        ----------
        etext : sequence of str
            The notes.
        """
        self.notes.extend(etext)

    def as_text(self) -> str:
        """Return the summary as text.

        Returns
        -------
        str
            The tables with rules between them, and the notes.
        """
        lines = [stack_text(self.tables, max([self.width, *(table.natural_width for table in self.tables)]))]
        lines += ["", "Notes:"] if self.notes else []
        for i, note in enumerate(self.notes, 1):
            lines += wrap(note, self.width, first=f"[{i}] ", rest="    ")
        return "\n".join(lines)

    def as_html(self) -> str:
        """Return the summary as HTML, with all text escaped.

        Returns
        -------
        str
            One ``table`` element per table, and one paragraph per note.
        """
        notes = [f"<p>{escape_html(note)}</p>" for note in self._note_texts()]
        return "\n".join([*(table.as_html() for table in self.tables), *notes])

    def _repr_markdown_(self) -> str:
        return self.as_markdown()

    def as_latex(self, *, label: str | None = None, caption: str | None = None) -> str:
        r"""Return the summary as LaTeX for the booktabs package, with all text escaped.

        Parameters
        ----------
        label : str, optional
            Name for ``\ref``: letters, digits and ``_ : . / + -``. With a label or a caption the result is a floating
            ``table``.
        caption : str, optional
            Caption; by default the title.

        Returns
        -------
        str
            One ``tabular`` per table, with the notes below.

        Raises
        ------
        OptionError
            If the label has other characters.
        """
        texts = [escape_latex(note) for note in self._note_texts()]
        notes = [rf"\par\medskip\begin{{minipage}}{{\linewidth}}\footnotesize {text}\end{{minipage}}" for text in texts]
        titles = [table.title for table in self.tables]
        begin, end = [rf"\begin{{center}}{LATEX_SIZE * (len(titles) > 1)}"], r"\end{center}"
        if label is not None or caption is not None:
            caption, titles = escape_latex(caption or next(filter(None, titles), "")), ["", *titles[1:]]
            named = [] if label is None else [rf"\label{{{latex_label(label)}}}"]
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
        notes = csv_lines([note] for note in self._note_texts())
        return "\n".join([*(table.as_csv() for table in self.tables), *filter(None, [notes])])

    def as_markdown(self) -> str:
        """Return the summary as Markdown, with all text escaped.

        Returns
        -------
        str
            One pipe table per table, and one paragraph per note.
        """
        return "\n\n".join([*(table.as_markdown() for table in self.tables), *map(escape_markdown, self._note_texts())])

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the summary to a file. The ending of its name says the format.

        Parameters
        ----------
        path : path
            A name that ends in .txt, .tex, .md, .csv, .docx (Word) or .html. The last two need the package maketables.

        Returns
        -------
        pathlib.Path
            The file.

        Raises
        ------
        OptionError
            If the ending is none of these.
        UnavailableError
            If maketables is needed and not installed.
        """
        file = Path(path)
        texts = {".txt": self.as_text, ".tex": self.as_latex, ".md": self.as_markdown, ".csv": self.as_csv}
        kind = file.suffix.lower()
        if kind in texts:
            return write_whole(file, f"{texts[kind]()}\n")
        if kind == ".html":
            return write_whole(file, PAGE.format("\n".join(table.make("gt").as_raw_html() for table in self._made())))
        if kind not in ENDINGS:
            typed = file.with_suffix(".docx").as_posix()
            raise OptionError(
                f"the ending {file.suffix!r} is not known; expected {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}.\n"
                f'Use `save("{typed}")`.'
            )
        whole, *others = [table.make("docx") for table in self._made()]
        for other in others:  # one below the other
            whole.add_paragraph()  # Word would merge tables that touch
            for element in list(other.element.body)[:-1]:  # the last has the size of the page
                whole.element.body.insert(len(whole.element.body) - 1, element)
        stream = io.BytesIO()
        whole.save(stream)
        return write_whole(file, stream.getvalue())

    def _note_texts(self) -> list[str]:
        return [f"[{i}] {flat(note)}" for i, note in enumerate(self.notes, 1)]

    def _made(self) -> list[Any]:
        """Return each table as one of maketables; the last has the notes."""
        try:
            from maketables import MTable
        except ImportError as error:
            raise UnavailableError(
                'Word and HTML tables need maketables, which is not installed.\nUse `pip install "causalrisk[tables]"`.'
            ) from error
        made = []
        for table in self.tables:
            notes = "\n".join(self._note_texts()) if table is self.tables[-1] else ""
            caption = ": ".join(filter(None, [flat(table.title), *(head[0] for head in table.heads)])) or None
            made.append(MTable(table.grouped(), notes=notes, caption=caption, rgroup_sep="t", rgroup_display=False))
        return made


class PaperTable(ResultSummary):
    """A table for a paper.

    Parameters
    ----------
    table : ResultTable
        The cells.
    notes : sequence of str
        Sentences for below the table.
    frame : DataFrame
        The numbers behind the cells.
    together : int
        Number of columns that stay together.

    Attributes
    ----------
    frame : DataFrame
        The numbers behind the cells, not rounded.
    """

    def __init__(self, table: ResultTable, notes: Sequence[str], frame: pd.DataFrame, together: int = 1) -> None:
        super().__init__([table], notes, table.width)
        self.frame, self._together = frame, together

    def __repr__(self) -> str:
        return self.as_text()

    def as_text(self) -> str:
        """Return the table as text. Columns that do not fit are in blocks below one another.

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
        return "\n".join([*blocks, *(line for note in self._note_texts() for line in wrap(note, self.width))])

    def _part(self, columns: Sequence[int]) -> ResultTable:
        """Return the table with the first column and some of the others."""
        whole, kept = self.tables[0], [0, *columns]
        rows, heads = ([[row[j] for j in kept] for row in lines] for lines in (whole.body, whole.heads))
        aligns = "".join(whole.aligns[j] for j in kept)
        return ResultTable(rows, heads, aligns=aligns, title=whole.title, rules=whole.rules, width=self.width)

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
        return self._made()[0].make("gt")

    def as_latex(self, *, label: str | None = None, caption: str | None = None) -> str:
        r"""Return the table as LaTeX for the booktabs package, with all text escaped.

        Parameters
        ----------
        label : str, optional
            Name for ``\ref``: letters, digits and ``_ : . / + -``.
        caption : str, optional
            Caption; by default the title. With a label, a caption or a title the result is a floating ``table``.

        Returns
        -------
        str
            The ``table`` or ``center`` environment, with the notes below the ``tabular``.

        Raises
        ------
        OptionError
            If the label has other characters.
        """
        return super().as_latex(label=label, caption=caption or self.tables[0].title or None)

    def _note_texts(self) -> list[str]:
        return [f"Notes: {flat(' '.join(self.notes))}"] if self.notes else []
