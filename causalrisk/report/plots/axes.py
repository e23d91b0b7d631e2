"""Axes and style of plots. The Axes is given and returned.

Colours are Okabe and Ito's, which colour-blind readers can distinguish; markers and lines differ too, for print. Texts
have the colour of the Axes, which may be dark. Labels are broken, and ticks are thinned, to the size of the Axes.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from causalrisk.errors import OptionError, UnavailableError
from causalrisk.estimation.record import FitRecord
from causalrisk.report.labels import outcome_name

BLUE, ORANGE, GREEN, PINK, SKY, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "0.5"
SERIES = (("o", ORANGE, "-"), ("^", BLUE, "--"), ("s", GREEN, "-."), ("D", PINK, ":"), ("v", SKY, "-"))  # by group
ROWS: dict[str, Any] = {"color": GREY, "alpha": 0.3, "zorder": 0}
LINE: dict[str, Any] = {"color": GREY, "linewidth": 1, "linestyle": "--", "zorder": 0}
PANEL = (5.2, 4.2)  # inches
CHARACTER, TICK = 7, 55  # points that a character of a label and a tick with its label need


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
    """Return marker, colour, line and name of a treatment group."""
    return *SERIES[a % len(SERIES)], verbatim(f"{record.design.treat_name} = {record.design.labels[a]}")


def ink(ax: Any) -> Any:
    """Return the colour of the texts of axes, which is light on a dark page."""
    return ax.xaxis.label.get_color()


def check_drawable(given: Any, name: str, kind: str) -> None:
    """Refuse an option `ax` or `figure` that is not of its kind, such as the name of a file."""
    if not isinstance(given, getattr(pyplot(), kind)):
        typed = "`ax=plt.subplots()[1]`" if name == "ax" else "`figure=plt.figure()`"
        if isinstance(given, str | os.PathLike):
            saved = f'savefig("{os.fspath(given)}")`'
            typed = (
                f"`ax.figure.{saved} with the Axes that the plot returns" if name == "ax" else f"`res.plot().{saved}"
            )
        raise OptionError(f"{name}={given!r:.80}; expected a matplotlib {kind}.\nUse {typed}.")


def axes_or_new(ax: Any, rows: int | None = None) -> Any:
    """Return the axes given, or new ones in a figure as high as a number of labelled rows needs."""
    if ax is not None:
        check_drawable(ax, "ax", "Axes")
        return ax
    plt = pyplot()
    size = None if rows is None else (plt.rcParams["figure.figsize"][0], 1.2 + 0.4 * rows)
    return plt.subplots(figsize=size, layout="constrained")[1]


def room(ax: Any) -> tuple[float, float]:
    """Return width and height of axes in points."""
    box = ax.get_window_extent()
    return box.width * 72 / ax.figure.dpi, box.height * 72 / ax.figure.dpi


def broken(text: object, points: float) -> str:
    """Break each line of a text into lines of words that need at most so many points."""
    width = max(int(points / CHARACTER), 8)
    lines = verbatim(text).split("\n")
    return "\n".join(textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False) for line in lines)


def finish(ax: Any, across: str, upright: str = "", columns: int = 0, handles: Sequence[Any] | None = None) -> Any:
    """Label the axes, put a legend in this many columns above them, and return the axes."""
    from matplotlib.ticker import AutoLocator

    width, height = room(ax)
    ax.set_xlabel(broken(across, width))
    ax.set_ylabel(broken(upright, height))
    if type(ax.xaxis.get_major_locator()) is AutoLocator:
        ax.locator_params(axis="x", nbins=max(int(width / TICK), 2))
    if columns:  # above the axes, where the legend hides nothing and may be as wide as the figure
        ax.legend(
            handles=handles, ncols=columns, frameon=False, fontsize="small", loc="lower right", bbox_to_anchor=(1, 1),
            columnspacing=1, borderaxespad=0.2,
        )  # fmt: skip
    return ax


def mark_if_seen(ax: Any, value: float, across: bool = False) -> None:
    """Draw a line at a value that the horizontal axis shows, or `across` the axes where the vertical one does."""
    low, high = ax.get_ylim() if across else ax.get_xlim()
    if low < value < high:
        (ax.axhline if across else ax.axvline)(value, **LINE)


def label_rows(ax: Any, rows: Any, names: Iterable[object]) -> None:
    """Name rows on the left."""
    ax.set_yticks(rows, [broken(name, 0.6 * room(ax)[0]) for name in names])
    ax.set_ylim(min(rows) - 0.6, max(rows) + 0.6)


def log_scale(ax: Any) -> None:
    """Make the horizontal axis logarithmic, with ticks that are numbers and do not touch."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    ax.set_xscale("log")
    low, high = ax.get_xlim()
    steps = (1, 2, 5) if high / low < 75 else (1,)
    ax.xaxis.set_major_locator(MaxNLocator(4) if high / low < 3 else LogLocator(subs=steps))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.minorticks_off()


def panel_by_arm(
    record: FitRecord, draw: Callable[[int, Any], Any], *, ax: Any = None, arm: Any = None, effect: bool = False
) -> Any:
    """Draw a plot of one treatment group, or of each group but the reference in a panel of its own.

    `draw` takes the position of a group, and the axes. Axes that are given show the first of several groups, and their
    label says so. An `effect` has no plot of the reference.
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
    """Return the label of the axis of the effect of a treatment group."""
    return f"{record.estimand} on {outcome_name(record)}, {record.contrasts[position - 1]}"
