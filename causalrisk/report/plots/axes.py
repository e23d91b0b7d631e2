"""Axes and style of plots. The Axes is given and returned.

Colours are Okabe and Ito's, which colour-blind readers can distinguish; markers and lines differ too, for print. Texts
have the colour of the Axes, which may be dark.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from causalrisk.errors import UnavailableError
from causalrisk.estimation.record import FitRecord
from causalrisk.report.labels import outcome_name

BLUE, ORANGE, GREEN, PINK, SKY, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "0.5"

SERIES = (("o", ORANGE, "-"), ("^", BLUE, "--"), ("s", GREEN, "-."), ("D", PINK, ":"), ("v", SKY, "-"))  # arms in turn

ROWS: dict[str, Any] = {"color": GREY, "alpha": 0.3, "zorder": 0}

LINE: dict[str, Any] = {"color": GREY, "linewidth": 1, "linestyle": "--", "zorder": 0}

ABOVE: dict[str, Any] = {  # a legend above the axes, where it hides nothing and may be as wide as the figure
    "frameon": False, "fontsize": "small", "loc": "lower right", "bbox_to_anchor": (1, 1), "columnspacing": 1,
    "borderaxespad": 0.2,
}  # fmt: skip

PAGE, PANEL = (11.7, 8.3), (5.2, 4.2)  # inches; A4

ACROSS, UPRIGHT, ROW = 45, 40, 28  # characters of a line of a label below axes, beside them, and of the name of a row

WIDE, SMALL = 75, 3  # largest over smallest of an axis that has ticks at 1, 10, ...; and at steps of equal length


def pyplot() -> Any:
    """Return matplotlib.pyplot, or an error that says how to install it."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise UnavailableError("plots need matplotlib.\nUse `pip install matplotlib`.") from error
    return plt


def verbatim(text: object) -> str:
    """Return a name as matplotlib shows it as it is: a dollar sign would begin a formula."""
    return str(text).replace("$", r"\$")


def series(record: FitRecord, a: int) -> tuple[str, str, str, str]:
    """Return marker, colour, line and name of an arm."""
    return *SERIES[a % len(SERIES)], verbatim(f"{record.design.treat_name} = {record.design.labels[a]}")


def ink(ax: Any) -> Any:
    """Return the colour of the texts of axes, which is light on a dark page."""
    return ax.xaxis.label.get_color()


def axes_or_new(ax: Any, rows: int | None = None) -> Any:
    """Return the axes given, or new ones in a figure as high as a number of labelled rows needs."""
    if ax is not None:
        return ax
    plt = pyplot()
    size = None if rows is None else (plt.rcParams["figure.figsize"][0], 1.2 + 0.4 * rows)
    return plt.subplots(figsize=size, layout="constrained")[1]


def finish(ax: Any, across: str, upright: str = "", columns: int = 0, handles: Sequence[Any] | None = None) -> Any:
    """Label the axes in lines of words, put a legend in this many columns above, and return the axes."""
    ax.set_xlabel(broken(verbatim(across), ACROSS))
    ax.set_ylabel(broken(verbatim(upright), UPRIGHT))
    if columns:
        ax.legend(handles=handles, ncols=columns, **ABOVE)
    return ax


def broken(text: str, width: int) -> str:
    """Break each line of a text into lines of words of at most this many characters."""
    lines = [textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False) for line in text.split("\n")]
    return "\n".join(lines)


def mark_if_seen(ax: Any, value: float, across: bool = False) -> None:
    """Draw a line at a value that the horizontal axis shows, or `across` the axes where the vertical one does."""
    low, high = ax.get_ylim() if across else ax.get_xlim()
    if low < value < high:
        (ax.axhline if across else ax.axvline)(value, **LINE)


def label_rows(ax: Any, rows: Any, names: Iterable[object]) -> None:
    """Name rows on the left."""
    ax.set_yticks(rows, [broken(verbatim(name), ROW) for name in names])
    ax.set_ylim(min(rows) - 0.6, max(rows) + 0.6)


def log_scale(ax: Any) -> None:
    """Make the horizontal axis logarithmic, with ticks that are numbers and do not touch."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    ax.set_xscale("log")
    low, high = ax.get_xlim()
    span = high / low
    ax.xaxis.set_major_locator(MaxNLocator(4) if span < SMALL else LogLocator(subs=(1, 2, 5) if span < WIDE else (1,)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.minorticks_off()


def panel_by_arm(
    record: FitRecord, draw: Callable[[int, Any], Any], *, ax: Any = None, arm: Any = None, effect: bool = False
) -> Any:
    """Draw a plot of one arm, or of each arm but the reference in a panel of its own.

    `draw` takes the position of an arm, and the axes. On axes that are given, several arms show the first, which the
    label below says. An `effect` has no plot of the reference.
    """
    if arm is not None:
        return draw(record.contrast_position(arm) if effect else record.arm_position(arm), axes_or_new(ax))
    count = record.design.n_arms - 1
    if ax is not None or count == 1:
        ax = draw(1, axes_or_new(ax))
        if count > 1:
            ax.set_xlabel(f"{ax.get_xlabel()}\n(1 of {count} comparisons)")
        return ax
    across = min(count, 3)
    down = -(-count // across)
    size = (PANEL[0] * across, PANEL[1] * down)
    axes = pyplot().subplots(down, across, figsize=size, layout="constrained", squeeze=False)[1]
    for empty in axes.flat[count:]:
        empty.remove()
    return np.array([draw(position, axes.flat[position - 1]) for position in range(1, count + 1)])


def effect_label(record: FitRecord, position: int = 1) -> str:
    """Return the label of the axis of an arm's effect."""
    return f"{record.estimand} on {outcome_name(record)}, {record.contrasts[position - 1]}"
