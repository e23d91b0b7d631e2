"""Text that Markdown, LaTeX or a spreadsheet would take for more than text."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence

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


MARKDOWN = re.compile(r"([\\\\`*_<>|~$])|(?<=\])(\()")


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


FORMULA = ("=", "+", "-", "@")  # what a spreadsheet takes for the beginning of a formula


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


def csv_lines(rows: Iterable[Sequence[str]]) -> str:
    """Return rows as comma-separated values, quoted where needed, without a line break at the end."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([[no_formula(cell) for cell in row] for row in rows])
    return stream.getvalue().removesuffix("\n")
