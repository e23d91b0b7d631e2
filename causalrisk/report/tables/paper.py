"""Tables for papers: one table, its notes below it, in every format."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Sequence
from typing import Any

import pandas as pd

from causalrisk.errors import UnavailableError
from causalrisk.report.tables.columns import wrap
from causalrisk.report.tables.escape import escape_latex, escape_markdown, latex_label
from causalrisk.report.tables.stacked import ResultSummary
from causalrisk.report.tables.table import ResultTable, TableContent


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
        notes = [rf"\par\medskip\begin{{minipage}}{{\linewidth}}\footnotesize {escape_latex(t)}\end{{minipage}}"
                 for t in self._note()]  # fmt: skip
        caption = caption or self.tables[0].title or None
        if caption is None and label is None:
            return "\n".join(
                [r"\begin{center}", self.tables[0].as_latex_tabular(center=False), *notes, r"\end{center}"]
            )
        heads = [rf"\caption{{{escape_latex(caption or '')}}}"]
        heads += [] if label is None else [rf"\label{{{latex_label(label)}}}"]
        tabular = self.tables[0].as_latex_tabular(center=False)
        return "\n".join(
            [r"\begin{table}[htbp]", r"\centering", *heads, r"\smallskip", tabular, *notes, r"\end{table}"]
        )

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
