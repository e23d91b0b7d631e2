"""Plots of effects: side by side, over resamples, without each row. `plot_` from a record, `draw_` from a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from causalrisk.diagnostics.influence import influence_method, influence_tables
from causalrisk.errors import whole_number
from causalrisk.estimators.record import FitRecord
from causalrisk.inference.intervals import conf_int
from causalrisk.numerics.linalg import Array
from causalrisk.report.plots.axes import (
    ABOVE,
    BLUE,
    GREEN,
    LINE,
    ORANGE,
    PINK,
    axes_or_new,
    effect_label,
    panel_by_arm,
    verbatim,
)

ARMS = (("o", ORANGE), ("^", BLUE), ("s", GREEN), ("D", PINK), ("v", "black"))  # the reference first


def draw_forest(frame: pd.DataFrame, ax: Any) -> Any:
    """Draw effects and intervals from the top down, and a line at no effect where it is in sight.

    Parameters
    ----------
    frame : DataFrame
        Estimates in the first column, limits in the last two; a row each, labelled by the index.
    ax : matplotlib Axes
        Where to draw.

    Returns
    -------
    matplotlib Axes
        The axes given.
    """
    rows = np.arange(len(frame))[::-1]
    ax.hlines(rows, frame.iloc[:, -2], frame.iloc[:, -1], color="0.4")
    ax.plot(frame.iloc[:, 0], rows, "o", color="black")
    ax.set_yticks(rows, [verbatim(name) for name in frame.index])
    ax.set_ylim(-0.6, len(frame) - 0.4)
    low, high = ax.get_xlim()
    if low < 0 < high:
        ax.axvline(0, **LINE)
    return ax


def plot_bootstrap(
    record: FitRecord,
    ax: Any = None,
    alpha: float = 0.05,
    intervals: Sequence[str] = ("normal", "percentile"),
    arm: Any = None,
) -> Any:
    """Bootstrap distribution of the effect with its intervals.

    Parameters
    ----------
    ax : matplotlib Axes, optional
        Where to draw; by default a new figure.
    alpha : float, default 0.05
        Significance level of the intervals.
    intervals : sequence of str
        Intervals to draw: methods of `conf_int`.
    arm : level or label, optional
        The arm whose effect it is; by default a panel for each that is not the reference.

    Returns
    -------
    matplotlib Axes, or of several panels an array of Axes
        The plot; "normal" is the interval of the summary.

    Raises
    ------
    UnavailableError
        If the fit has no bootstrap.
    """
    boot = record.used_boot
    limits = {f"{100 * (1 - alpha):.4g}% {method}": conf_int(record, alpha, method) for method in intervals}

    def draw(position: int, ax: Any) -> Any:
        k = position - 1
        shown = {name: (float(both.iloc[k, 0]), float(both.iloc[k, 1])) for name, both in limits.items()}
        estimate, label = float(record.estimate.params[k]), effect_label(record, position)
        return draw_bootstrap(boot.used[:, k], estimate=estimate, intervals=shown, label=label, ax=ax)

    return panel_by_arm(record, draw, ax=ax, arm=arm, effect=True)


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
        Name of the effect.
    ax : matplotlib Axes
        Where to draw.

    Returns
    -------
    matplotlib Axes
        The axes given.
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
    ax.set_xlabel(verbatim(label))
    ax.set_ylabel("resamples")
    return ax


def plot_influence(
    record: FitRecord,
    ax: Any = None,
    top: int = 5,
    method: str | None = None,
    arm: Any = None,
    clusters: bool = False,
) -> Any:
    """Influence of each row, or of each cluster, on the effect against its share of the weight.

    Parameters
    ----------
    ax : matplotlib Axes, optional
        Where to draw; by default a new figure.
    top : int, default 5
        Number of rows that are named.
    method, clusters
        As in `influence`.
    arm : level or label, optional
        The arm whose effect it is; by default a panel for each that is not the reference.

    Returns
    -------
    matplotlib Axes, or of several panels an array of Axes
        The plot.
    """
    whole_number("top", top, 1)
    tables = influence_tables(record, influence_method(record, method, clusters), clusters)

    def draw(position: int, ax: Any) -> Any:
        table = tables[position - 1]
        return draw_changes(record, table=table, ax=ax, top=top, position=position, clusters=clusters)

    return panel_by_arm(record, draw, ax=ax, arm=arm, effect=True)


def draw_changes(
    record: FitRecord, table: pd.DataFrame, ax: Any, top: int, position: int = 1, clusters: bool = False
) -> Any:
    """Draw the table of the influences of the rows, or of the clusters, on the effect of an arm."""
    design = record.design
    table = table.assign(arm=[f"{design.treat_name} = {label}" for label in table["arm"]])
    labels = [f"{design.treat_name} = {label}" for label in design.labels]
    name = f"change of {record.effect_names[position - 1]} without the {'cluster' if clusters else 'row'}"
    names = name, f"{'largest share of the weight of an' if clusters else 'share of the weight of its'} arm (%)"
    return draw_influence(table, labels=labels, named=top, names=names, ax=axes_or_new(ax))


def draw_influence(table: pd.DataFrame, labels: Sequence[str], named: int, names: tuple[str, str], ax: Any) -> Any:
    """Draw the influence of each row or cluster on the effect against its share of the weight of its arm.

    Parameters
    ----------
    table : DataFrame
        As of `influence`.
    labels : sequence of str
        Labels of the arms, the reference first.
    named : int
        Number of the most influential rows that are named.
    names : tuple of str
        Labels of the vertical and the horizontal axis.
    ax : matplotlib Axes
        Where to draw.

    Returns
    -------
    matplotlib Axes
        The axes given.
    """
    for k, label in enumerate(labels):
        rows, (marker, colour) = table[table["arm"] == label], ARMS[k % len(ARMS)]
        ax.plot(
            100 * rows["weight share"], rows["change"], marker, color=colour, markersize=4, alpha=0.6, linestyle="none",
            label=verbatim(label), markeredgewidth=0,
        )  # fmt: skip
    ax.axhline(0, **LINE)
    order = table["change"].abs().fillna(-1).to_numpy().argsort()[::-1][:named]
    middle = 50 * table["weight share"].max()
    for row_name, row in table.iloc[order].iterrows():
        x, right = 100 * row["weight share"], 100 * row["weight share"] > middle
        ax.annotate(
            verbatim(row_name), (x, row["change"]), xytext=(-5 if right else 5, 0), textcoords="offset points",
            va="center", ha="right" if right else "left", fontsize="small",
        )  # fmt: skip
    ax.set_xlabel(names[1])
    ax.set_ylabel(verbatim(names[0]))
    ax.legend(ncols=5, **ABOVE)
    return ax
