"""Text of cells: number formats, display widths of columns, and escapes."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Sequence
from math import floor, isfinite, log10

import numpy as np
from numpy.typing import ArrayLike

from causalrisk.errors import OptionError

LARGEST = 1e9
SMALLEST = 1e-6
SIGNIFICANT = 4


def format_number(x: float, digits: int = 7) -> str:
    """Return one number as text: at least two decimals and four significant digits, at most `digits` of them."""
    value = float(x)
    if not isfinite(value):
        return str(value)
    if value == 0:
        return "0.00"
    if not SMALLEST <= abs(value) < LARGEST:
        return f"{value:.{SIGNIFICANT - 1}e}"
    exponent = floor(log10(abs(value)))
    decimals = min(max(2, SIGNIFICANT - 1 - exponent), max(digits - 1 - exponent, 0))
    return f"{value:.{decimals}f}"


def column_format(standard_errors: ArrayLike, estimates: ArrayLike = ()) -> str:
    """Return a number format for numbers in one unit: the smallest standard error has four significant digits.

    Without a standard error that is finite and not zero, the estimates decide. The format has 2 to 8 decimals, or is
    scientific where the numbers are too small or too far apart for that.
    """
    errors, others = _sizes(standard_errors), _sizes(estimates)
    leading = errors if errors.size else others
    if not leading.size:
        return "z.2f"
    decimals = max(2, SIGNIFICANT - 1 - floor(log10(leading.min())))
    largest = float(np.concatenate([errors, others]).max())
    whole = max(floor(log10(largest)) + 1, 1)
    if decimals > 8 or largest >= LARGEST or whole + decimals > 15:
        return f"z.{SIGNIFICANT - 1}e"
    return f"z.{decimals}f"


def format_p(p: float) -> str:
    """Return a p-value as text: three decimals, or ``<0.001``."""
    return "<0.001" if p < 0.001 else f"{float(p):.3f}"


def signed_p(p: float) -> str:
    """Return a p-value behind its sign, "= 0.043" or "< 0.001"."""
    return "< 0.001" if p < 0.001 else f"= {format_p(p)}"


def format_share(x: float) -> str:
    """Return a share as a percentage."""
    value = float(x)
    return f"{100 * value:z.1f}%" if isfinite(value) else str(value)


def _sizes(values: ArrayLike) -> np.ndarray:
    sizes = np.abs(np.asarray(values, dtype=float)).ravel()
    return sizes[np.isfinite(sizes) & (sizes > 0)]


LEAST_LABEL = 12  # width left to the labels of rows

GAP = 2  # blanks between two columns

GROUP_GAP = 3  # blanks between two groups of columns, such as the label-value pairs of a summary's head


def display_width(text: str) -> int:
    """Return the number of terminal columns of a text: two for wide characters, none for combining ones."""
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


def flat(text: str) -> str:
    """Return the text on one line: line breaks become blanks, other control characters are spelled out."""
    return printable(" ".join(text.splitlines()))


def wrap(text: str, width: int, first: str = "", rest: str = "") -> list[str]:
    """Break a text into lines at blanks; its own line breaks stay, and a longer word is not broken."""
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

    Each "l" in `aligns` after the first begins a new group of columns; groups share the width. A preferred width
    includes the blanks before the column and gives way when the table would be too wide; the first column of a group
    gets what is left. Without preferred widths, what is left is spread over the gaps. If `content`, the width of the
    longest cells, needs more, the table is wider.
    """
    if not content:
        return [], []
    starts = [j for j, align in enumerate(aligns) if j == 0 or align == "l"]
    groups = [range(start, stop) for start, stop in zip(starts, [*starts[1:], len(aligns)], strict=True)]
    needs = [[needed_width(j, group.start, content, preferred) for j in group] for group in groups]
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
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in ("W", "F") else 1


def needed_width(j: int, start: int, content: Sequence[int], preferred: Sequence[int]) -> int:
    """Return the least width of column j with the blanks before it; a preferred width may reduce these to one."""
    if j == start:
        return content[j]
    least, usual = content[j] + 1, content[j] + GAP
    return min(max(preferred[j], least), usual) if preferred else usual


def _shares(needs: list[int], width: int) -> list[int]:
    """Divide a width evenly between groups, but give no group less than it needs."""
    width, tight = max(width, sum(needs)), set[int]()
    while True:
        roomy, left = [g for g in range(len(needs)) if g not in tight], width - sum(needs[g] for g in tight)
        even = {g: left * (i + 1) // len(roomy) - left * i // len(roomy) for i, g in enumerate(roomy)}
        more = {g for g, share in even.items() if needs[g] > share}
        if not more:
            return [even.get(g, need) for g, need in enumerate(needs)]
        tight |= more


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
    """Return the text on one line with every character escaped that LaTeX reads as markup."""
    return "".join(LATEX.get(char, char) for char in flat(text))


NO_LABEL = re.compile(r"[^\w:./+-]+")  # what would end a label, or what LaTeX expands in one


def latex_label(label: str) -> str:
    r"""Return a name for ``\ref`` unchanged; an OptionError if LaTeX could not read it."""
    if not label or NO_LABEL.search(label):
        plain = NO_LABEL.sub("-", label).strip("-") or "tab:effects"
        raise OptionError(f'label={label!r}: expected letters, digits and any of _ : . / + -\nUse `label="{plain}"`.')
    return label


MARKDOWN = re.compile(r"([\\`*_<>|~$]|&(?=#?\w+;))|(?<=\])(\()")


def escape_markdown(text: str) -> str:
    """Return the text on one line with every character escaped that Markdown reads as markup; brackets stay."""
    return MARKDOWN.sub(lambda m: "\\" + m[0], flat(text))


FORMULA = ("=", "+", "-", "@")  # what a spreadsheet takes for the beginning of a formula


def no_formula(cell: str) -> str:
    """Return a cell as text for a spreadsheet, on one line: a formula gets an apostrophe in front."""
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
