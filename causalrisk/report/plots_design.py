"""Drawing of what weighting does: balance, overlap, calibration, influence, and biases that cancel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from causalrisk.linalg import Array
from causalrisk.report.plots import ABOVE, BLUE, GREEN, GREY, LINE, ORANGE, PINK

BALANCED = 0.1  # a difference below this is usually taken as balanced
BINS = 30
ARMS = (("o", ORANGE), ("^", BLUE), ("s", GREEN), ("D", PINK), ("v", "black"))  # the reference first


def draw_balance(table: pd.DataFrame, ax: Any) -> Any:
    """Draw a love plot: differences between the arms before and after weighting, the largest on top.

    Parameters
    ----------
    table : DataFrame
        As of `balance`; with several contrasts the largest of each column is drawn.
    ax : matplotlib Axes
        Where to draw.

    Returns
    -------
    matplotlib Axes
        The same.
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
    ax.axvline(BALANCED, **LINE)
    ax.set_yticks(rows, [f"{name}{'*' if star else ''}" for name, star in zip(sizes.index, raw, strict=True)])
    ax.set_ylim(-0.6, len(sizes) - 0.4)
    ax.set_xlabel(
        f"{'largest ' if several else ''}absolute mean difference, standardized"
        + ("\n(* binary: difference of proportions)" if raw.any() else "")
    )
    ax.legend(ncols=2, **ABOVE)
    return ax


def draw_overlap(scores: Sequence[Array], weights: Sequence[Array], labels: Sequence[str], name: str, ax: Any) -> Any:
    """Draw mirrored histograms of the propensity score, one arm upwards and one downwards.

    Parameters
    ----------
    scores : sequence of ndarray, shape (n_a,)
        Scores of the upper arm, and of the lower.
    weights : sequence of ndarray, shape (n_a,)
        What their rows weigh after weighting.
    labels : sequence of str
        Labels of both.
    name : str
        Label of the score.
    ax : matplotlib Axes
        Where to draw.

    Returns
    -------
    matplotlib Axes
        The same.
    """
    low, high = min(s.min() for s in scores), max(s.max() for s in scores)
    edges = np.linspace(low, high if high > low else low + 1e-9, BINS + 1)
    widths = np.diff(edges)
    handles = []
    for sign, score, label, colour in zip((1, -1), scores, labels, (BLUE, ORANGE), strict=True):
        raw, _ = np.histogram(score, edges)
        shown = f"{label} (n {len(score)})"
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
    ax.set_xlabel(name)
    ax.set_ylabel("share of the arm")
    ax.legend(handles=[*handles, outline], ncols=2, **ABOVE)
    return ax


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
        The same.
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
    ax.set_xlabel(f"propensity score of {label}")
    ax.set_ylabel(f"share with {label}")
    ax.legend(ncols=2, **ABOVE)
    return ax


def draw_influence(table: pd.DataFrame, labels: Sequence[str], named: int, name: str, ax: Any) -> Any:
    """Draw how much each row moves the effect against its share of the weight of its arm.

    Parameters
    ----------
    table : DataFrame
        As of `influence`.
    labels : sequence of str
        Labels of the arms, the reference first.
    named : int
        How many of those that move it most are named.
    name : str
        Of the vertical axis.
    ax : matplotlib Axes
        Where to draw.

    Returns
    -------
    matplotlib Axes
        The same.
    """
    for k, label in enumerate(labels):
        rows, (marker, colour) = table[table["arm"] == label], ARMS[k % len(ARMS)]
        ax.plot(
            100 * rows["weight share"], rows["change"], marker, color=colour, markersize=4, alpha=0.6, linestyle="none",
            label=label, markeredgewidth=0,
        )  # fmt: skip
    ax.axhline(0, **LINE)
    order = table["change"].abs().fillna(-1).to_numpy().argsort()[::-1][:named]
    middle = 50 * table["weight share"].max()
    for row_name, row in table.iloc[order].iterrows():
        x, right = 100 * row["weight share"], 100 * row["weight share"] > middle
        ax.annotate(
            str(row_name), (x, row["change"]), xytext=(-5 if right else 5, 0), textcoords="offset points",
            va="center", ha="right" if right else "left", fontsize="small",
        )  # fmt: skip
    ax.set_xlabel("share of the weight of its arm (%)")
    ax.set_ylabel(name)
    ax.legend(ncols=5, **ABOVE)
    return ax


def draw_cancellation(biases: Mapping[str, Array], labels: Sequence[str], unit: str, ax: Any) -> Any:
    """Draw the bias of one arm against that of the reference under each replicate, and where they cancel.

    Parameters
    ----------
    biases : mapping of str to ndarray, shape (2, B)
        Biases of the reference and of the other arm, for up to two estimators.
    labels : sequence of str
        Labels of both arms.
    unit : str
        Name of the outcome.
    ax : matplotlib Axes
        Where to draw.

    Returns
    -------
    matplotlib Axes
        The same.
    """
    for (name, bias), (marker, colour) in zip(biases.items(), (("^", ORANGE), ("o", BLUE)), strict=False):
        ax.plot(
            bias[0], bias[1], marker, color=colour, markersize=4, alpha=0.5, linestyle="none", markeredgewidth=0,
            label=name,
        )  # fmt: skip
    ax.axline((0, 0), slope=1, color="black", linewidth=1, label="biases cancel: no risk")
    ax.axhline(0, color=GREY, linewidth=0.6, zorder=0)
    ax.axvline(0, color=GREY, linewidth=0.6, zorder=0)
    ax.locator_params(nbins=5)
    ax.set_xlabel(f"bias of {labels[0]}, in units of {unit}")
    ax.set_ylabel(f"bias of {labels[1]}")
    ax.legend(ncols=3, **ABOVE)
    return ax
