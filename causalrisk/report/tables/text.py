"""Text of cells: number formats, display widths of columns, and escapes."""

from __future__ import annotations

import html
import re
import textwrap
import unicodedata
from math import floor, isfinite, log10

import numpy as np
from numpy.typing import ArrayLike

from causalrisk.errors import whole_number

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
    return f"{value:.{min(max(2, SIGNIFICANT - 1 - exponent), max(digits - 1 - exponent, 0))}f}"


def column_format(standard_errors: ArrayLike, estimates: ArrayLike = (), digits: int | None = None) -> str:
    """Return a number format for numbers in one unit: the smallest standard error has four significant digits.

    Without a standard error that is finite and not zero, the estimates decide. The format has `digits` decimals if they
    are given, else 2 to 8, or is scientific where the numbers are too small or too far apart for that.
    """
    if digits is not None:
        whole_number("digits", digits, 0)
        return f"z.{digits}f"
    sizes = [np.abs(np.asarray(values, dtype=float)).ravel() for values in (standard_errors, estimates)]
    errors, others = (values[np.isfinite(values) & (values > 0)] for values in sizes)
    leading = errors if errors.size else others
    if not leading.size:
        return "z.2f"
    decimals = max(2, SIGNIFICANT - 1 - floor(log10(leading.min())))
    largest = float(np.concatenate([errors, others]).max())
    whole = max(floor(log10(largest)) + 1, 1)
    scientific = decimals > 8 or largest >= LARGEST or whole + decimals > 15
    return f"z.{SIGNIFICANT - 1}e" if scientific else f"z.{decimals}f"


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


def display_width(text: str) -> int:
    """Return the number of terminal columns of a text: two for wide characters, none for combining ones."""
    shown = [c for c in text if not unicodedata.combining(c) and unicodedata.category(c) not in ("Mn", "Me", "Cf")]
    return len(shown) + sum(unicodedata.east_asian_width(char) in ("W", "F") for char in shown)


def pad(text: str, width: int, align: str) -> str:
    """Return the text filled with blanks to a display width; a longer text is returned as it is."""
    free = max(width - display_width(text), 0)
    left = {"l": 0, "r": free, "c": free // 2}[align]
    return " " * left + text + " " * (free - left)


def flat(text: str) -> str:
    """Return the text on one line: line breaks and other control characters become blanks."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", " ", text)


def wrap(text: str, width: int, first: str = "", rest: str = "") -> list[str]:
    """Break a text into lines at blanks; its own line breaks stay, and a longer word is not broken."""
    wrapper = textwrap.TextWrapper(
        width, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )
    return [line for paragraph in text.splitlines() or [""] for line in wrapper.wrap(flat(paragraph)) or [""]]


LATEX = {
    **{char: f"\\{char}" for char in "{}&%$#_"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"},
    **{"[": "{[}", "*": "{*}"},  # after a line end LaTeX would read these as an argument, and as part of the command
}


def escape_latex(text: str) -> str:
    """Return the text on one line with every character escaped that LaTeX reads as markup."""
    return "".join(LATEX.get(char, char) for char in flat(text))


MARKDOWN = re.compile(r"([\\`*_<>|~$]|&(?=#?\w+;))|(?<=\])(\()")


def escape_html(text: str) -> str:
    """Return the text escaped for HTML, with `code` between backticks as a ``code`` element."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))


def escape_markdown(text: str) -> str:
    """Return the text on one line with every character escaped that Markdown reads as markup; brackets stay."""
    return MARKDOWN.sub(lambda m: "\\" + m[0], flat(text))
