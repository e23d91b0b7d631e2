"""Text in columns: display widths, padding, wrapping, and widths of the columns."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

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
    r"""Return the text on one line: line breaks become blanks, other control characters are spelled out.

    Examples
    --------
    >>> flat("two\r\nlines,  a\x0bbell\a")
    'two lines,  a bell\\x07'
    """
    return printable(" ".join(text.splitlines()))


def wrap(text: str, width: int, first: str = "", rest: str = "") -> list[str]:
    """Break a text into lines at blanks.

    Parameters
    ----------
    text : str
        The text; its own line breaks are kept. Blanks between words that stay on a line are kept too.
    width : int
        Display width of a line. A word that is longer is not broken.
    first, rest : str
        Beginnings of the first and of the other lines.

    Returns
    -------
    list of str
        The lines, without blanks at their ends.
    """
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

    Parameters
    ----------
    content : sequence of int, length k
        Display width of each column's longest cell.
    aligns : str, length k
        Alignment of each column, l, r or c. Each l after the first column begins a new group; groups share the width.
    preferred : sequence of int, length k or 0
        Width wished for each column with the blanks before it; it gives way when the table would become too wide.
        Remaining width goes to the first column of a group. Empty: it is spread evenly over the gaps.
    width : int
        Width wished for the table.

    Returns
    -------
    widths : list of int, length k
        Width of each column without the blanks before it.
    gaps : list of int, length k
        Blanks before each column. All widths and gaps add up to `width`, or to more if the content needs it.
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
    """Return the least width of column j, with the blanks before it; a wish may bring these down to one."""
    if j == start:
        return content[j]
    least, usual = content[j] + 1, content[j] + GAP
    return min(max(preferred[j], least), usual) if preferred else usual


def _shares(needs: list[int], width: int) -> list[int]:
    """Divide a width evenly between groups, the later ones taking the remainder, without going below any need."""
    width = max(width, sum(needs))
    open_groups = set(range(len(needs)))
    shares = list(needs)
    while open_groups:
        left = width - sum(needs[g] for g in range(len(needs)) if g not in open_groups)
        ordered = sorted(open_groups)
        even = [left * (i + 1) // len(ordered) - left * i // len(ordered) for i in range(len(ordered))]
        tight = {g for g, share in zip(ordered, even, strict=True) if needs[g] > share}
        if not tight:
            for g, share in zip(ordered, even, strict=True):
                shares[g] = share
            break
        open_groups -= tight
    return shares


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
