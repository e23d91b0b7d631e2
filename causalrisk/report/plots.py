"""Drawing of estimates: where to draw, forests, paths, bootstrap distributions, risks. The Axes is given and returned.

Colours are those of Okabe and Ito, which colour-blind readers tell apart; markers and lines differ as well, for print.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from causalrisk.errors import UnavailableError
from causalrisk.linalg import Array

BLUE, ORANGE, GREEN, PINK, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "0.45"
LINE: dict[str, Any] = {"color": "0.6", "linewidth": 1, "linestyle": "--", "zorder": 0}
ABOVE: dict[str, Any] = {  # a legend above the axes, where it hides nothing
    "frameon": False, "fontsize": "small", "loc": "lower center", "bbox_to_anchor": (0.5, 1), "columnspacing": 1,
    "borderaxespad": 0.2,
}  # fmt: skip
REMOTE = 30  # biases smaller than the least root mean square by this factor are drawn at the edge
PAGE = (11.7, 8.3)  # inches, A4


def _pyplot() -> Any:
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise UnavailableError(
            "plots need matplotlib, which is not installed.\nType  pip install matplotlib."
        ) from error
    return plt


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


def draw_forest(frame: pd.DataFrame, ax: Any) -> Any:
    """Draw effects and intervals from the top down, and a line at no effect where it is in sight.

    Parameters
    ----------
    frame : DataFrame
        Columns "effect", "lower", "upper"; a row each, labelled by the index.
    ax : matplotlib Axes
        Where to draw.

    Returns
    -------
    matplotlib Axes
        The same.
    """
    rows = np.arange(len(frame))[::-1]
    ax.hlines(rows, frame["lower"], frame["upper"], color="0.4")
    ax.plot(frame["effect"], rows, "o", color="black")
    ax.set_yticks(rows, frame.index)
    ax.set_ylim(-0.6, len(frame) - 0.4)
    low, high = ax.get_xlim()
    if low < 0 < high:
        ax.axvline(0, **LINE)
    return ax


def draw_risk(table: pd.DataFrame, unit: str, ax: Any) -> Any:
    """Draw the net bias of each estimator on a logarithmic scale: root mean square, mean and spread.

    Parameters
    ----------
    table : DataFrame
        As of `risk_table`.
    unit : str
        Name of the outcome.
    ax : matplotlib Axes
        Where to draw.

    Returns
    -------
    matplotlib Axes
        The same.
    """
    rows = np.arange(len(table))[::-1]
    ax.hlines(rows, 0, 1, color="0.92", transform=ax.get_yaxis_transform(), zorder=0)
    kinds: tuple[tuple[str, Any, str, str, str, int], ...] = (
        ("root mean square", table["RMS net"], "o", BLUE, BLUE, 9),
        ("mean", np.sqrt(table["squared mean"]), "D", ORANGE, "none", 6),
        ("spread", np.sqrt(table["variance"].clip(lower=0)), "|", "black", "black", 11),
    )
    positive = table["RMS net"][table["RMS net"] > 0]
    least = positive.min() / REMOTE if len(positive) else 0.0
    for label, values, marker, edge, face, size in kinds:
        near = (values >= least).to_numpy()
        ax.plot(values[near], rows[near], marker, color=edge, markerfacecolor=face, markersize=size, label=label)
        if not near.all():
            ax.plot(np.full((~near).sum(), least), rows[~near], "<", color=edge, markerfacecolor=face, clip_on=False)
    if least:
        ax.set_xscale("log")
        ax.set_xlim(left=least)
    ax.set_yticks(rows, table.index)
    ax.set_ylim(-0.6, len(table) - 0.4)
    ax.set_xlabel(f"net bias over replicates ({unit})")
    ax.legend(ncols=3, **ABOVE)
    return ax


def draw_penalty_path(
    path: pd.DataFrame, own: float | None, effects: tuple[float, float], z: float, labels: tuple[str, str, str], ax: Any
) -> Any:
    """Draw the effect with its interval, and the net bias on an axis of its own, over the penalty.

    Parameters
    ----------
    path : DataFrame
        As of `penalty_path`; no penalty cannot be shown on the logarithmic scale.
    own : float or None
        Penalty of the fit; None where it is not on the path.
    effects : tuple of float
        Effect of the fit, and of its start.
    z : float
        Standard errors to either side.
    labels : tuple of str
        Of the effect, the interval and the net bias.
    ax : matplotlib Axes
        Where to draw.

    Returns
    -------
    matplotlib Axes
        The same, with the effect; that of the bias shares its penalties.
    """
    path = path[path.index > 0]
    x, effect, half = path.index.to_numpy(), path["effect"].to_numpy(), z * path["std err"].to_numpy()
    ax.fill_between(x, effect - half, effect + half, color=BLUE, alpha=0.15, linewidth=0, label=labels[1])
    ax.plot(x, effect, "o-", color=BLUE, markersize=4, label="JRE")
    ax.axhline(effects[1], color=GREY, linestyle=":", label="IPWRA (its start)")
    if own is None:
        ax.axhline(effects[0], **LINE, label="this fit")
    else:
        ax.axvline(own, **LINE)
        ax.annotate(
            "this fit", (own, 1), xycoords=("data", "axes fraction"), xytext=(3, -3), textcoords="offset points",
            va="top", fontsize="small", color="0.3",
        )  # fmt: skip
    bias = ax.twinx()
    bias.plot(x, path["RMS net"], "s--", color=ORANGE, markersize=4, label="net bias")
    bias.set_ylim(bottom=0)
    bias.set_ylabel(labels[2], color=ORANGE)
    bias.tick_params(axis="y", colors=ORANGE)
    ax.set_xscale("log")
    ax.set_xlabel("penalty λ (logarithmic)")
    ax.set_ylabel(labels[0], color=BLUE)
    ax.tick_params(axis="y", colors=BLUE)
    own_legend, bias_legend = ax.get_legend_handles_labels(), bias.get_legend_handles_labels()
    handles, names = own_legend[0] + bias_legend[0], own_legend[1] + bias_legend[1]
    ax.legend(handles, names, ncols=2, **ABOVE)
    return ax


def draw_bootstrap(
    values: Array, estimate: float, intervals: Mapping[str, tuple[float, float]], label: str, ax: Any
) -> Any:
    """Draw the bootstrap distribution of an effect, and intervals below it.

    Parameters
    ----------
    values : ndarray, shape (m,)
        The effect in each resample.
    estimate : float
        The effect.
    intervals : mapping of str to tuple of float
        Limits by name.
    label : str
        Of the effect.
    ax : matplotlib Axes
        Where to draw.

    Returns
    -------
    matplotlib Axes
        The same.
    """
    counts, _, _ = ax.hist(values, bins="auto", color=BLUE, alpha=0.35, edgecolor="white", linewidth=0.5)
    top, step = counts.max(), 0.09 * counts.max()
    ax.plot([estimate, estimate], [0, top], color="black", label="estimate")
    for k, (name, limits) in enumerate(intervals.items(), start=1):
        ax.plot(limits, [-k * step] * 2, "|-", color="black", markersize=7)
        ax.annotate(
            name, (limits[1], -k * step), xytext=(5, 0), textcoords="offset points", va="center", fontsize="small"
        )
    ax.set_ylim(-(len(intervals) + 0.8) * step, 1.12 * top)
    ax.set_yticks([tick for tick in ax.get_yticks() if 0 <= tick <= 1.1 * top])
    low, high = ax.get_xlim()
    if low < 0 < high:
        ax.axvline(0, **LINE)
    ends = max((limits[1] for limits in intervals.values()), default=high)
    ax.set_xlim(low, max(high, ends + 0.5 * (high - low)))  # room for the names of the intervals
    ax.annotate("estimate", (estimate, top), xytext=(4, 2), textcoords="offset points", fontsize="small", va="bottom")
    ax.locator_params(axis="x", nbins=5)
    ax.set_xlabel(label)
    ax.set_ylabel("resamples")
    return ax
