"""Plots of the joint estimator: net and shared bias, risks, and the effect over the anchor or the penalty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from causalrisk.diagnostics.risk import EstimatorRisks, anchor_path, estimator_risks, joint_of, penalty_path, risk_table
from causalrisk.errors import check_alpha
from causalrisk.estimators.record import FitRecord, of_means
from causalrisk.inference.intervals import critical_value, delta_errors, effect_interval
from causalrisk.numerics.linalg import Array
from causalrisk.report.plots.axes import (
    BLUE,
    GREY,
    LINE,
    ORANGE,
    ROWS,
    axes_or_new,
    effect_label,
    finish,
    ink,
    label_rows,
    log_scale,
    panel_by_arm,
    verbatim,
)

REMOTE = 300  # biases smaller than the least root mean square by this factor are drawn at the edge, with their number


@of_means
def plot_cancellation(record: FitRecord, ax: Any = None, arm: Any = None) -> Any:
    """Net bias of the effect under each propensity replicate, against the bias that both arms share, for JRE and IPWRA.

    Parameters
    ----------
    ax : matplotlib Axes, optional
        Where to draw; by default a new figure.
    arm : level or label, optional
        The arm; by default a panel for each that is not the reference.

    Returns
    -------
    matplotlib Axes, or of several panels an array of Axes
        The plot. Upwards: the bias of the arm less that of the reference, which is what the effect is off by.
        Across: the mean of the two, which the effect does not have in it. An estimator is better the closer its points
        are to the line of no net bias, wherever along it they lie. Results of an estimator other than JRE are drawn in
        place of IPWRA.
    """
    return cancellation_of(record, estimator_risks(record), arm, ax)


def cancellation_of(record: FitRecord, risks: EstimatorRisks, arm: Any = None, ax: Any = None) -> Any:
    """Draw `plot_cancellation` from risks already computed."""
    design, names = record.design, _compared(record.spec.name, risks.biases)

    def draw(position: int, ax: Any) -> Any:
        labels = f"{design.treat_name} = {design.labels[0]}", f"{design.treat_name} = {design.labels[position]}"
        shown = {name: (risks.slopes[:, None] * risks.biases[name])[[0, position]] for name in names}
        return draw_cancellation(shown, labels, design.endog_name, ax)

    return panel_by_arm(record, draw, ax=ax, arm=arm)


def draw_cancellation(biases: Mapping[str, Array], labels: Sequence[str], unit: str, ax: Any) -> Any:
    """Draw the net bias of two arms under each replicate against their mean bias, and the line of no net bias.

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
        The axes given.
    """
    for (name, (reference, other)), (marker, colour) in zip(biases.items(), (("^", ORANGE), ("o", BLUE)), strict=False):
        ax.plot(
            (reference + other) / 2, other - reference, marker, color=colour, markersize=4, alpha=0.6,
            linestyle="none", markeredgewidth=0, label=name,
        )  # fmt: skip
    ax.axhline(0, color=ink(ax), linewidth=1, label="no net bias")
    extent = 1.1 * max(map(abs, ax.get_ylim()))
    ax.set_ylim(-extent, extent)  # the line in the middle, and both sides alike
    ax.locator_params(nbins=5)
    ax.set_xlabel(f"bias that both arms share: not in the effect ({verbatim(unit)})")
    ax.set_ylabel(f"net bias of the effect:\n{verbatim(labels[1])} less {verbatim(labels[0])}")
    return finish(ax, 3)


@of_means
def plot_risk(record: FitRecord, ax: Any = None) -> Any:
    """Plot the root of the expected ATE risk of every estimator over the propensity replicates, and its parts.

    Parameters
    ----------
    ax : matplotlib Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    matplotlib Axes
        The plot of `risk_table`, on a logarithmic scale; an arrow at the edge has a number too small for it.
    """
    return draw_risk(risk_table(record), record.design.endog_name, axes_or_new(ax))


def draw_risk(table: pd.DataFrame, unit: str, ax: Any) -> Any:
    """Draw the root of the expected ATE risk of each estimator, and of its parts, on a logarithmic scale.

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
        The axes given.
    """
    rows = np.arange(len(table))[::-1]
    ax.hlines(rows, 0, 1, transform=ax.get_yaxis_transform(), **ROWS)
    kinds: tuple[tuple[str, Any, str, Any, Any, int], ...] = (
        ("RMS error", table["RMS error"], "o", BLUE, BLUE, 9),
        ("net bias", table["RMS net"], "D", ORANGE, "none", 6),
        ("sampling", table["sampling SD"], "|", ink(ax), ink(ax), 11),
    )
    positive = table["RMS error"][table["RMS error"] > 0]
    least = positive.min() / REMOTE if len(positive) else 0.0
    for label, values, marker, edge, face, size in kinds:
        near, far = (values >= least).to_numpy(), (values < least).to_numpy()
        ax.plot(values[near], rows[near], marker, color=edge, markerfacecolor=face, markersize=size, label=label)
        for row, value in zip(rows[far], values[far], strict=True):
            ax.plot([least], [row], "<", color=edge, markerfacecolor=face)
            ax.annotate(
                f"{value:.1g}", (least, row), xytext=(6, 4), textcoords="offset points", fontsize="small", color=edge
            )
    if least:
        log_scale(ax)
    label_rows(ax, rows, [verbatim(name) for name in table.index])
    ax.set_xlabel(f"root mean square over replicates ({verbatim(unit)})")
    return finish(ax, 3)


def plot_anchor_path(record: FitRecord, ax: Any = None, alpha: float = 0.05) -> Any:
    """Effect over the anchors that could be chosen (JRE).

    Parameters
    ----------
    ax : matplotlib Axes, optional
        Where to draw; by default a new figure.
    alpha : float, default 0.05
        Significance level of the intervals.

    Returns
    -------
    matplotlib Axes
        The plot of `anchor_path`, for a single difference with intervals from the influence functions held out.
    """
    check_alpha(alpha)
    path, joint = anchor_path(record), joint_of(record)
    ax, x, effect = axes_or_new(ax), path.index.to_numpy(), path["effect"].to_numpy()
    if record.options.effect == "difference" and record.design.n_arms == 2:
        half, name = critical_value(alpha, record.df) * path["std err"].to_numpy(), f"{100 * (1 - alpha):.4g}% interval"
        ax.fill_between(x, effect - half, effect + half, color=BLUE, alpha=0.25, linewidth=0, label=name)
    ax.plot(x, effect, "o-", color=BLUE, markersize=4, label="JRE")
    chosen, own = path.index[path["chosen"]][0], joint.estimate.estimate.params[0]
    ax.plot([chosen], [own], "o", color=ink(ax), markersize=9, markerfacecolor="none", label=f"chosen: {chosen:g}")
    ax.axhline(joint.start.params[0], color=GREY, linestyle=":", label="IPWRA")
    ax.set_xscale("log")
    rungs = path.index[path["share"].notna()]
    ax.set_xticks(rungs, [f"{anchor:g}" for anchor in rungs])
    ax.minorticks_off()
    ax.set_xlabel("anchor: weight of the fit (logarithmic)")  # the most cautious is on the right, next to IPWRA
    ax.set_ylabel(verbatim(effect_label(record)))
    return finish(ax, 4)


def plot_penalty_path(record: FitRecord, ax: Any = None, grid: Any = None, alpha: float = 0.05) -> Any:
    """Effect and net bias over the penalty (JRE).

    Parameters
    ----------
    ax : matplotlib Axes, optional
        Where to draw; by default a new figure.
    grid : sequence of float, optional
        As in `penalty_path`.
    alpha : float, default 0.05
        Significance level of the intervals.

    Returns
    -------
    matplotlib Axes
        The plot of the effect with robust intervals; the net bias has the axis on the right.
    """
    return draw_penalties(record, penalty_path(record, grid), ax, alpha)


def draw_penalties(record: FitRecord, path: pd.DataFrame, ax: Any, alpha: float) -> Any:
    """Draw a penalty path already computed: no penalty cannot be shown on the logarithmic scale."""
    check_alpha(alpha)
    joint, scale, path, ax = joint_of(record), record.options.effect_scale, path[path.index > 0], axes_or_new(ax)
    x, effect = path.index.to_numpy(), path["effect"].to_numpy()
    errors = delta_errors(effect, path["std err"].to_numpy(), scale)
    low, high = effect_interval(effect, errors, scale, alpha, record.df).T
    name = f"robust {100 * (1 - alpha):.4g}% interval"
    ax.fill_between(x, low, high, color=BLUE, alpha=0.25, linewidth=0, label=name)
    ax.plot(x, effect, "o-", color=BLUE, markersize=4, label="JRE")
    ax.axhline(joint.start.params[0], color=GREY, linestyle=":", label="IPWRA (its start)")
    own = float(joint.own_penalty or 0.0)
    ax.axvline(own, **LINE)
    left = own > np.sqrt(x[0] * x[-1])  # the half of the axis that has room
    ax.annotate(
        "this fit", (own, 1), xycoords=("data", "axes fraction"), xytext=(-3 if left else 3, -3),
        textcoords="offset points", ha="right" if left else "left", va="top", fontsize="small", color=GREY,
    )  # fmt: skip
    bias = ax.twinx()
    bias.plot(x, path["RMS net"], "s--", color=ORANGE, markersize=4, label="net bias")
    bias.set_ylim(bottom=0)
    bias.set_ylabel(verbatim(f"RMS net bias ({record.design.endog_name})"), color=ORANGE)
    bias.tick_params(axis="y", colors=ORANGE)
    ax.set_xscale("log")
    ax.set_xlabel("penalty λ (logarithmic)")
    ax.set_ylabel(verbatim(effect_label(record)), color=BLUE)
    ax.tick_params(axis="y", colors=BLUE)
    handles = [handle for axes in (ax, bias) for handle in axes.get_legend_handles_labels()[0]]
    return finish(ax, 2, handles)


def _compared(own: str, biases: dict[str, Array]) -> list[str]:
    return [own if own in biases and own != "JRE" else "IPWRA", "JRE"]
