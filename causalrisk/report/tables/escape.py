"""Text that Markdown, LaTeX or a spreadsheet would take for more than text."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence

from causalrisk.errors import OptionError
from causalrisk.report.tables.columns import flat

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
    "[": "{[}",  # after a line end LaTeX would read "[" as an optional argument
    "*": "{*}",
}


def escape_latex(text: str) -> str:
    r"""Return the text on one line with every character that LaTeX takes for markup escaped.

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
    return "".join(LATEX.get(char, char) for char in flat(text))


NO_LABEL = re.compile(r"[^\w:./+-]+")  # what would end a label, or what LaTeX expands in one


def latex_label(label: str) -> str:
    r"""Return a name for ``\ref`` as it is: escapes have no place in one.

    Raises
    ------
    OptionError
        If it has characters other than letters, digits and ``_ : . / + -``.
    """
    if not label or NO_LABEL.search(label):
        plain = NO_LABEL.sub("-", label).strip("-") or "tab:effects"
        raise OptionError(
            f"label={label!r} is no name for \\ref; expected letters, digits and any of _ : . / + -\n"
            f'Type  label="{plain}".'
        )
    return label


MARKDOWN = re.compile(r"([\\`*_<>|~$]|&(?=#?\w+;))|(?<=\])(\()")


def escape_markdown(text: str) -> str:
    r"""Return the text on one line with every character that Markdown takes for markup escaped.

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
    return MARKDOWN.sub(lambda m: "\\" + m[0], flat(text))


FORMULA = ("=", "+", "-", "@")  # what a spreadsheet takes for the beginning of a formula


def no_formula(cell: str) -> str:
    """Return a cell as text for a spreadsheet, on one line: a formula gets an apostrophe in front.

    Examples
    --------
    >>> no_formula("=cmd|calc"), no_formula("-228.50"), no_formula("mage")
    ("'=cmd|calc", '-228.50', 'mage')
    """
    cell = flat(cell)
    if not cell.lstrip().startswith(FORMULA):
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
