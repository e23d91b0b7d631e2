"""Axes and colours of plots. The Axes is given and returned.

Colours are Okabe and Ito's, which colour-blind readers tell apart; markers and lines differ as well, for print.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from causalrisk.errors import UnavailableError
from causalrisk.estimators.record import FitRecord

BLUE, ORANGE, GREEN, PINK, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "0.45"

LINE: dict[str, Any] = {"color": "0.6", "linewidth": 1, "linestyle": "--", "zorder": 0}

ABOVE: dict[str, Any] = {  # a legend above the axes, where it hides nothing
    "frameon": False, "fontsize": "small", "loc": "lower center", "bbox_to_anchor": (0.5, 1), "columnspacing": 1,
    "borderaxespad": 0.2,
}  # fmt: skip

PAGE = (11.7, 8.3)  # inches, A4


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


def axes_or_new(ax: Any, rows: int | None = None) -> Any:
    """Return the axes given, or new ones in a figure as high as a number of labelled rows needs."""
    if ax is not None:
        return ax
    size = None if rows is None else (7.0, 1.2 + 0.4 * rows)
    return _pyplot().subplots(figsize=size, layout="constrained")[1]


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
        across = min(count, 3)
        down = -(-count // across)
        size = (5.2 * across, 4.2 * down)
        axes = _pyplot().subplots(down, across, figsize=size, layout="constrained", squeeze=False)[1]
        for empty in axes.flat[count:]:
            empty.remove()
        return np.array([draw(position, axes.flat[position - 1]) for position in range(1, count + 1)])
    ax = draw(1, axes_or_new(ax))
    if count > 1:
        ax.set_xlabel(f"{ax.get_xlabel()}\n(1 of {count} comparisons)")
    return ax


def page_or_new(figure: Any) -> tuple[Any, Any]:
    """Return a figure, by default a new page, and its two rows of three axes."""
    figure = _pyplot().figure(figsize=PAGE, layout="constrained") if figure is None else figure
    return figure, figure.subplots(2, 3)


def effect_label(record: FitRecord, position: int = 1) -> str:
    """Return the label of the axis of an arm's effect."""
    return f"{record.estimand} on {record.design.endog_name}, {record.contrasts[position - 1]}"
