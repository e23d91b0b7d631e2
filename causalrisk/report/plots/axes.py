"""Axes and style of plots. The Axes is given and returned.

Colours are Okabe and Ito's, which colour-blind readers tell apart; markers and lines differ as well, for print. Ink and
paper are those of the Axes, which may be dark. `finish` fits legend and labels into the figure.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from causalrisk.errors import UnavailableError
from causalrisk.estimators.record import FitRecord
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

NARROW = 5.0  # inches: panels of a figure so narrow are below each other

PAD = 0.25, 0.45  # inches around axes that a layout engine places, and around one of several beside each other

NAMES = 0.45  # share of the width that names of rows may take

WIDE, SMALL = 75, 3  # largest over smallest of an axis that has ticks at 1, 10, ...; and at steps of equal length


def _pyplot() -> Any:
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise UnavailableError(
            "plots need matplotlib, which is not installed.\nType  pip install matplotlib."
        ) from error
    return plt


def verbatim(text: object) -> str:
    """Return a name as matplotlib shows it as it is: a dollar sign would begin a formula."""
    return str(text).replace("$", r"\$")


def ink(ax: Any) -> Any:
    """Return the colour of the texts of axes, which is light on a dark page."""
    return ax.xaxis.label.get_color()


def axes_or_new(ax: Any, rows: int | None = None) -> Any:
    """Return the axes given, or new ones in a figure as high as a number of labelled rows needs."""
    if ax is not None:
        return ax
    plt = _pyplot()
    size = None if rows is None else (plt.rcParams["figure.figsize"][0], 1.2 + 0.4 * rows)
    return plt.subplots(figsize=size, layout="constrained")[1]


def finish(ax: Any, columns: int = 0, handles: Sequence[Any] | None = None) -> Any:
    """Break the labels of axes into lines that fit, and put a legend above in as many columns as fit.

    Parameters
    ----------
    ax : matplotlib Axes
        Axes with all that they show.
    columns : int
        Columns of the legend at most; by default there is no legend.
    handles : sequence of matplotlib Artist, optional
        What the legend lists; by default all that has a label.

    Returns
    -------
    matplotlib Axes
        The axes given.
    """
    _, whole, high = _room(ax)
    for count in range(columns, 0, -1):
        if ax.legend(handles=handles, ncols=count, **ABOVE).get_window_extent().width <= whole:
            break
    above = 0 if ax.get_legend() is None else ax.get_legend().get_window_extent().height
    for other in (ax, *_twins(ax)):
        fit_text(other.yaxis.label, high - above, upright=True)
    return fit_across(ax)


def fit_across(ax: Any) -> Any:
    """Let the label below axes begin left of them, where it is wider than they are, and return the axes."""
    wide, whole, _ = _room(ax)
    if ax.xaxis.label.get_window_extent().width > wide:
        ax.set_xlabel(ax.get_xlabel(), loc="right")
        fit_text(ax.xaxis.label, whole)
    return ax


def fit_text(text: Any, room: float, upright: bool = False) -> None:
    """Break a text into lines of words that fit a length in pixels."""
    box = text.get_window_extent()
    text.set_text(_broken(text.get_text(), box.height if upright else box.width, room))


def _broken(text: str, long: float, room: float, least: int = 8) -> str:
    if long <= room:
        return text
    lines = text.split("\n")
    width = max(int(0.95 * max(map(len, lines)) * room / long), least)
    return "\n".join(textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False) for line in lines)


def _room(ax: Any) -> tuple[float, float, float]:
    """Return the pixels of axes across, with their labels, and upwards, when a layout engine has made room for all."""
    cell = _cell(ax)
    if cell is None or ax.figure.get_layout_engine() is None:
        return ax.bbox.width, ax.bbox.width, ax.bbox.height
    down, across = cell.get_gridspec().get_geometry()
    column = [other for other in ax.figure.axes if _cell(other) and _cell(other).colspan == cell.colspan]
    beside = max(sum(other.yaxis.get_tightbbox().width for other in (own, *_twins(own))) for own in column)
    pad = PAD[across > 1] * ax.figure.dpi, PAD[down > 1] * ax.figure.dpi
    whole = len(cell.colspan) / across * ax.figure.bbox.width - pad[0]
    high = len(cell.rowspan) / down * ax.figure.bbox.height - ax.xaxis.get_tightbbox().height - pad[1]
    return whole - beside, whole, high


def _twins(ax: Any) -> list[Any]:
    return [other for other in ax.get_shared_x_axes().get_siblings(ax) if other is not ax and _cell(other) == _cell(ax)]


def _cell(ax: Any) -> Any:
    spec = ax.get_subplotspec()
    return spec and spec.get_topmost_subplotspec()


def mark_if_seen(ax: Any, value: float, across: bool = False) -> None:
    """Draw a line at a value that the horizontal axis shows, or `across` the axes where the vertical one does."""
    low, high = ax.get_ylim() if across else ax.get_xlim()
    if low < value < high:
        (ax.axhline if across else ax.axvline)(value, **LINE)


def label_rows(ax: Any, rows: Any, names: Sequence[str]) -> None:
    """Name rows on the left, long names in two lines."""
    ax.set_yticks(rows, names)
    room = NAMES * _room(ax)[1]
    longs = [label.get_window_extent().width for label in ax.get_yticklabels()]
    lines = [_broken(name, long, room, len(name) // 2 + 4) for name, long in zip(names, longs, strict=True)]
    ax.set_yticks(rows, lines)
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

    Parameters
    ----------
    record : FitRecord
        The fit.
    draw : callable
        Takes the position of an arm, and the axes.
    ax : matplotlib Axes, optional
        Where to draw; of several arms the first, which the label of the horizontal axis then says.
    arm : level or label, optional
        The arm.
    effect : bool
        Whether the plot is of an effect, which the reference has not.

    Returns
    -------
    matplotlib Axes or ndarray of Axes, shape (K - 1,)
        The axes, or the axes of all panels.
    """
    if arm is not None:
        return draw(record.contrast_position(arm) if effect else record.arm_position(arm), axes_or_new(ax))
    count = record.design.n_arms - 1
    if ax is None and count > 1:
        plt = _pyplot()
        wide, high = plt.rcParams["figure.figsize"]
        if wide >= NARROW:
            wide, high = PANEL
        across = 1 if wide < NARROW else min(count, 3)
        down = -(-count // across)
        size = (wide * across, high * down)
        axes = plt.subplots(down, across, figsize=size, layout="constrained", squeeze=False)[1]
        for empty in axes.flat[count:]:
            empty.remove()
        return np.array([draw(position, axes.flat[position - 1]) for position in range(1, count + 1)])
    ax = draw(1, axes_or_new(ax))
    if count > 1:
        ax.set_xlabel(f"{ax.get_xlabel()}\n(1 of {count} comparisons)")
    return ax


def page_or_new(figure: Any) -> tuple[Any, Any]:
    """Return a figure, by default a new page, and its six axes: two rows of three, or one column if it is narrow."""
    if figure is None:
        plt = _pyplot()
        wide, high = plt.rcParams["figure.figsize"]
        figure = plt.figure(figsize=(wide, 6 * high) if wide < NARROW else PAGE, layout="constrained")
    return figure, figure.subplots(*((6, 1) if figure.get_figwidth() < NARROW else (2, 3)))


def effect_label(record: FitRecord, position: int = 1) -> str:
    """Return the label of the axis of an arm's effect."""
    return f"{record.estimand} on {outcome_name(record)}, {record.contrasts[position - 1]}"
