"""Text in sections, printed as text or HTML, and small helpers to word it."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

from causalrisk.report.layout import wrap


@dataclass(frozen=True)
class Section:
    """One section.

    Parameters
    ----------
    title : str
        Heading.
    paragraphs : tuple of str
        The paragraphs.
    items : tuple of str
        A list below them.
    """

    title: str
    paragraphs: tuple[str, ...]
    items: tuple[str, ...] = ()


@dataclass(frozen=True, repr=False)
class Prose:
    """A text that prints.

    Parameters
    ----------
    title : str
        Heading.
    sections : tuple of Section
        The sections.
    """

    title: str
    sections: tuple[Section, ...]

    def as_text(self, width: int = 78) -> str:
        """Return the text, wrapped.

        Parameters
        ----------
        width : int
            Display width of a line.

        Returns
        -------
        str
            Headings, paragraphs and lists.
        """
        blocks = [f"{self.title}\n{'=' * len(self.title)}"]
        for section in self.sections:
            lines = [section.title, "-" * len(section.title)]
            for paragraph in section.paragraphs:
                lines += wrap(paragraph, width)
            for item in section.items:
                lines += wrap(item, width, first="  - ", rest="    ")
            blocks.append("\n".join(lines))
        return "\n\n".join(blocks)

    def as_html(self) -> str:
        """Return the text as HTML, everything escaped.

        Returns
        -------
        str
            Headings (h3), paragraphs and lists.
        """
        parts = [f"<h2>{html.escape(self.title)}</h2>"]
        for section in self.sections:
            parts.append(f"<h3>{html.escape(section.title)}</h3>")
            parts += [f"<p>{html.escape(paragraph)}</p>" for paragraph in section.paragraphs]
            if section.items:
                parts += ["<ul>", *(f"<li>{html.escape(item)}</li>" for item in section.items), "</ul>"]
        return "\n".join(parts)

    def __str__(self) -> str:
        return self.as_text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.as_html()


def joined(words: Sequence[str], conjunction: str = "and") -> str:
    """Return words as "a, b and c"."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {conjunction} {words[-1]}"


def count(number: int, noun: str) -> str:
    """Return a number with its noun, "1 row" or "2 rows"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
