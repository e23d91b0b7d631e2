"""Where to draw, and in which colours. The Axes is given and returned.

Colours are those of Okabe and Ito, which colour-blind readers tell apart; markers and lines differ as well, for print.
"""

from __future__ import annotations

from typing import Any

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
    """Return the axes that were given, or those of a new figure, as high as a number of labelled rows needs."""
    if ax is not None:
        return ax
    size = None if rows is None else (7.0, 1.2 + 0.4 * rows)
    return _pyplot().subplots(figsize=size, layout="constrained")[1]


def page_or_new(figure: Any) -> tuple[Any, Any]:
    """Return a figure, by default a new page, and its two rows of three axes."""
    figure = _pyplot().figure(figsize=PAGE, layout="constrained") if figure is None else figure
    return figure, figure.subplots(2, 3)


def effect_label(record: FitRecord, position: int = 1) -> str:
    """Return what the axis of the effect of an arm is called."""
    return f"{record.estimand} on {record.design.endog_name}, {record.contrasts[position - 1]}"
