"""Plots of the arms: balance, overlap, calibration of the score. `plot_` from a record, `draw_` from a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from causalrisk.diagnostics.balance import balance, check_threshold
from causalrisk.diagnostics.calibration import calibration
from causalrisk.estimators.record import FitRecord
from causalrisk.numerics.linalg import Array
from causalrisk.report.plots.axes import ABOVE, BLUE, LINE, ORANGE, axes_or_new, panel_by_arm, verbatim

BALANCED = 0.1  # a difference below this is usually taken as balanced

BINS = 30


def plot_balance(
    record: FitRecord,
    ax: Any = None,
    binary: str = "raw",
    *,
    also: Any = None,
    data: Any = None,
    by: Any = None,
    interactions: bool = False,
    threshold: float = BALANCED,
    names: Mapping[str, str] | None = None,
) -> Any:
    """Love plot: differences between the arms before and after weighting.

    Parameters
    ----------
    ax : matplotlib Axes, optional
        Where to draw; by default a new figure.
    binary : {"raw", "std"}
        As in `balance`.
    also, data, by, interactions, names
        As in `balance`; of several groups the largest difference is drawn.
    threshold : float, default 0.1
        Position of the dashed line.

    Returns
    -------
    matplotlib Axes
        The plot.
    """
    check_threshold(threshold)
    table = balance(record, binary, also=also, data=data, by=by, interactions=interactions, names=names)
    rows = table.index.get_level_values("covariate").nunique()
    return draw_balance(table, axes_or_new(ax, rows), threshold)


def draw_balance(table: pd.DataFrame, ax: Any, threshold: float = BALANCED) -> Any:
    """Draw a love plot: differences between the arms before and after weighting, the largest on top.

    Parameters
    ----------
    table : DataFrame
        As of `balance`; with several contrasts or groups the largest of each column is drawn.
    ax : matplotlib Axes
        Where to draw.
    threshold : float
        Position of the dashed line.

    Returns
    -------
    matplotlib Axes
        The axes given.
    """
    several = isinstance(table.index, pd.MultiIndex)
    sizes = table[["diff before", "diff after"]].abs()
    raw = table["unit"] == "raw"
    if several:
        sizes, raw = (values.groupby(level="covariate", sort=False).max() for values in (sizes, raw))
    order = np.argsort(sizes["diff before"].to_numpy(), kind="stable")
    sizes, raw = sizes.iloc[order], raw.iloc[order]
    rows = np.arange(len(sizes))
    ax.hlines(rows, sizes.min(axis=1), sizes.max(axis=1), color="0.8", zorder=1)
    ax.plot(sizes["diff before"], rows, "o", color=ORANGE, markerfacecolor="white", label="before weighting")
    ax.plot(sizes["diff after"], rows, "o", color=BLUE, label="after weighting")
    ax.axvline(0, color="black", linewidth=0.8, zorder=0)
    ax.axvline(threshold, **LINE)
    ax.set_yticks(rows, [f"{verbatim(name)}{'*' if star else ''}" for name, star in zip(sizes.index, raw, strict=True)])
    ax.set_ylim(-0.6, len(sizes) - 0.4)
    ax.set_xlabel(
        f"{'largest ' if several else ''}absolute mean difference, standardized"
        + ("\n(* binary: difference of proportions)" if raw.any() else "")
    )
    ax.legend(ncols=2, **ABOVE)
    return ax


def plot_overlap(record: FitRecord, ax: Any = None, arm: Any = None) -> Any:
    """Mirrored histograms of the propensity score in an arm and in the reference arm.

    Parameters
    ----------
    ax : matplotlib Axes, optional
        Where to draw; by default a new figure.
    arm : level or label, optional
        The arm; by default a panel for each that is not the reference.

    Returns
    -------
    matplotlib Axes, or of several panels an array of Axes
        The plot: bars the rows as they are, black lines as they are weighted.
    """
    design = record.design
    rows, once = record.counted_rows, 1.0 if record.frequency else design.weights
    weight = (once * record.sample.restore(record.used_weight_fit.undivided))[rows]

    def draw(position: int, ax: Any) -> Any:
        score = record.scores[position, rows]
        members = [(design.arm == a)[rows] for a in (position, 0)]
        labels = [f"{design.treat_name} = {design.labels[a]}" for a in (position, 0)]
        scores, weights = ([values[m] for m in members] for values in (score, weight))
        return draw_overlap(scores, weights=weights, labels=labels, name=f"propensity score of {labels[0]}", ax=ax)

    return panel_by_arm(record, draw, ax=ax, arm=arm)


def draw_overlap(scores: Sequence[Array], weights: Sequence[Array], labels: Sequence[str], name: str, ax: Any) -> Any:
    """Draw mirrored histograms of the propensity score, one arm upwards and one downwards.

    Parameters
    ----------
    scores : sequence of ndarray, shape (n_a,)
        Scores of the upper arm, and of the lower.
    weights : sequence of ndarray, shape (n_a,)
        Importance weights of their rows.
    labels : sequence of str
        Labels of both.
    name : str
        Label of the score.
    ax : matplotlib Axes
        Where to draw.

    Returns
    -------
    matplotlib Axes
        The axes given.
    """
    low, high = min(s.min() for s in scores), max(s.max() for s in scores)
    edges = np.linspace(low, high if high > low else low + 1e-9, BINS + 1)
    widths = np.diff(edges)
    handles = []
    for sign, score, label, colour in zip((1, -1), scores, labels, (BLUE, ORANGE), strict=True):
        raw, _ = np.histogram(score, edges)
        shown = f"{verbatim(label)} (n {len(score)})"
        handles.append(
            ax.bar(edges[:-1], sign * raw / raw.sum(), widths, align="edge", color=colour, alpha=0.4, label=shown)
        )
    for sign, score, weight in zip((1, -1), scores, weights, strict=True):
        weighted, _ = np.histogram(score, edges, weights=weight)
        outline = ax.stairs(
            sign * weighted / weighted.sum(), edges, color="black", linewidth=1.1, label="after weighting"
        )
    ax.axhline(0, color="black", linewidth=0.8)
    ax.yaxis.set_major_formatter(lambda value, _: f"{100 * abs(value):.3g}%")
    ax.set_xlabel(verbatim(name))
    ax.set_ylabel("share of the arm")
    ax.legend(handles=[*handles, outline], ncols=2, **ABOVE)
    return ax


def plot_calibration(record: FitRecord, ax: Any = None, bins: int = 10, arm: Any = None) -> Any:
    """Share treated against the propensity score, bin by bin.

    Parameters
    ----------
    ax : matplotlib Axes, optional
        Where to draw; by default a new figure.
    bins : int, default 10
        Number of bins.
    arm : level or label, optional
        The arm; by default a panel for each that is not the reference.

    Returns
    -------
    matplotlib Axes, or of several panels an array of Axes
        The plot, with 95% intervals of the shares.
    """
    design, table = record.design, calibration(record, bins)

    def draw(position: int, ax: Any) -> Any:
        label = design.labels[position]
        own = table.loc[label] if design.n_arms > 2 else table
        return draw_calibration(own, z=1.96, interval="95% interval", label=f"{design.treat_name} = {label}", ax=ax)

    return panel_by_arm(record, draw, ax=ax, arm=arm)


def draw_calibration(table: pd.DataFrame, z: float, interval: str, label: str, ax: Any) -> Any:
    """Draw the share treated against the mean score of each bin.

    Parameters
    ----------
    table : DataFrame
        As of `calibration`, for one arm.
    z : float
        Standard errors to either side.
    interval : str
        Name of a bin with its interval.
    label : str
        Label of the arm.
    ax : matplotlib Axes
        Where to draw.

    Returns
    -------
    matplotlib Axes
        The axes given.
    """
    top = 1.05 * max(table["predicted"].max(), (table["observed"] + z * table["std err"]).max())
    limits = 0.0, min(1.0, top) if top > 0 else 1.0
    ax.plot(limits, limits, label="calibrated", **LINE)
    spread = z * table["std err"]
    ax.errorbar(
        table["predicted"], table["observed"], spread, fmt="o", color=BLUE, ecolor="0.6", markersize=5, label=interval
    )
    ax.set_xlim(-0.02 * limits[1], limits[1])
    ax.set_ylim(-0.02 * limits[1], limits[1])
    ax.set_xlabel(f"propensity score of {verbatim(label)}")
    ax.set_ylabel(f"share with {verbatim(label)}")
    ax.legend(ncols=2, **ABOVE)
    return ax
