"""Drawing of estimates: where to draw, forests, paths, bootstrap distributions, risks. The Axes is given and returned.

Colours are those of Okabe and Ito, which colour-blind readers tell apart; markers and lines differ as well, for print.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm

from causalrisk.diagnostics.balance import balance, check_threshold
from causalrisk.diagnostics.calibration import calibration
from causalrisk.diagnostics.influence import influence, quick_method
from causalrisk.diagnostics.risk import EstimatorRisks, anchor_path, estimator_risks, joint_of, penalty_path, risk_table
from causalrisk.errors import UnavailableError, check_alpha, whole_number
from causalrisk.estimators.record import FitRecord
from causalrisk.inference.intervals import conf_int
from causalrisk.inference.wald import delta_errors, effect_interval
from causalrisk.numerics.linalg import Array
from causalrisk.report.summary import one_line

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
    ax.set_yticks(rows, [verbatim(name) for name in frame.index])
    ax.set_ylim(-0.6, len(frame) - 0.4)
    low, high = ax.get_xlim()
    if low < 0 < high:
        ax.axvline(0, **LINE)
    return ax


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
        The same.
    """
    rows = np.arange(len(table))[::-1]
    ax.hlines(rows, 0, 1, color="0.92", transform=ax.get_yaxis_transform(), zorder=0)
    kinds: tuple[tuple[str, Any, str, str, str, int], ...] = (
        ("RMS error", table["RMS error"], "o", BLUE, BLUE, 9),
        ("net bias", table["RMS net"], "D", ORANGE, "none", 6),
        ("sampling", table["sampling SD"], "|", "black", "black", 11),
    )
    positive = table["RMS error"][table["RMS error"] > 0]
    least = positive.min() / REMOTE if len(positive) else 0.0
    for label, values, marker, edge, face, size in kinds:
        near = (values >= least).to_numpy()
        ax.plot(values[near], rows[near], marker, color=edge, markerfacecolor=face, markersize=size, label=label)
        if not near.all():
            ax.plot(np.full((~near).sum(), least), rows[~near], "<", color=edge, markerfacecolor=face, clip_on=False)
    if least:
        ax.set_xscale("log")
        ax.set_xlim(left=least)
    ax.set_yticks(rows, [verbatim(name) for name in table.index])
    ax.set_ylim(-0.6, len(table) - 0.4)
    ax.set_xlabel(f"root mean square over replicates ({verbatim(unit)})")
    ax.legend(ncols=3, **ABOVE)
    return ax


def draw_anchor_path(
    path: pd.DataFrame, effects: tuple[float, float], z: float | None, labels: tuple[str, str], ax: Any
) -> Any:
    """Draw the effect with its interval over the anchor, the one chosen marked.

    Parameters
    ----------
    path : DataFrame
        As of `anchor_path`.
    effects : tuple of float
        Effect of the fit, and of its start.
    z : float or None
        Standard errors to either side; None for no interval.
    labels : tuple of str
        Of the effect and the interval.
    ax : matplotlib Axes
        Where to draw.

    Returns
    -------
    matplotlib Axes
        The same; the most cautious anchor stands on the right, next to IPWRA.
    """
    x, effect = path.index.to_numpy(), path["effect"].to_numpy()
    if z is not None:
        half = z * path["std err"].to_numpy()
        ax.fill_between(x, effect - half, effect + half, color=BLUE, alpha=0.15, linewidth=0, label=labels[1])
    ax.plot(x, effect, "o-", color=BLUE, markersize=4, label="JRE")
    chosen = path.index[path["chosen"]][0]
    ax.plot([chosen], [effects[0]], "o", color="black", markersize=9, markerfacecolor="none", label="chosen")
    ax.axhline(effects[1], color=GREY, linestyle=":", label="IPWRA")
    ax.set_xscale("log")
    ax.set_xticks(x, [f"{anchor:g}" for anchor in x])
    ax.minorticks_off()
    ax.set_xlabel("anchor: weight of the fit (logarithmic)")
    ax.set_ylabel(labels[0])
    ax.legend(ncols=4, **ABOVE)
    return ax


def draw_penalty_path(
    path: pd.DataFrame, own: float, effects: tuple[float, float], limits: Array, labels: tuple[str, str, str], ax: Any
) -> Any:
    """Draw the effect with its interval, and the net bias on an axis of its own, over the penalty.

    Parameters
    ----------
    path : DataFrame
        As of `penalty_path`; no penalty cannot be shown on the logarithmic scale.
    own : float
        Penalty of the fit.
    effects : tuple of float
        Effect of the fit, and of its start.
    limits : ndarray, shape (m, 2)
        Of the interval at each penalty.
    labels : tuple of str
        Of the effect, the interval and the net bias.
    ax : matplotlib Axes
        Where to draw.

    Returns
    -------
    matplotlib Axes
        The same, with the effect; that of the bias shares its penalties.
    """
    shown = path.index > 0
    path, (low, high) = path[shown], limits[shown].T
    x, effect = path.index.to_numpy(), path["effect"].to_numpy()
    ax.fill_between(x, low, high, color=BLUE, alpha=0.15, linewidth=0, label=labels[1])
    ax.plot(x, effect, "o-", color=BLUE, markersize=4, label="JRE")
    ax.axhline(effects[1], color=GREY, linestyle=":", label="IPWRA (its start)")
    ax.axvline(own, **LINE)
    ax.annotate(
        "this fit", (own, 1), xycoords=("data", "axes fraction"), xytext=(3, -3), textcoords="offset points",
        va="top", fontsize="small", color="0.3",
    )  # fmt: skip
    bias = ax.twinx()
    bias.plot(x, path["RMS net"], "s--", color=ORANGE, markersize=4, label="net bias")
    bias.set_ylim(bottom=0)
    bias.set_ylabel(verbatim(labels[2]), color=ORANGE)
    bias.tick_params(axis="y", colors=ORANGE)
    ax.set_xscale("log")
    ax.set_xlabel("penalty λ (logarithmic)")
    ax.set_ylabel(verbatim(labels[0]), color=BLUE)
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
    ax.set_xlabel(verbatim(label))
    ax.set_ylabel("resamples")
    return ax


BALANCED = 0.1  # a difference below this is usually taken as balanced
BINS = 30
ARMS = (("o", ORANGE), ("^", BLUE), ("s", GREEN), ("D", PINK), ("v", "black"))  # the reference first


def draw_balance(table: pd.DataFrame, ax: Any, threshold: float = BALANCED) -> Any:
    """Draw a love plot: differences between the arms before and after weighting, the largest on top.

    Parameters
    ----------
    table : DataFrame
        As of `balance`; with several contrasts or groups the largest of each column is drawn.
    ax : matplotlib Axes
        Where to draw.
    threshold : float
        Where the dashed line is.

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
    ax.axvline(threshold, **LINE)
    ax.set_yticks(rows, [f"{verbatim(name)}{'*' if star else ''}" for name, star in zip(sizes.index, raw, strict=True)])
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
    ax.set_xlabel(f"propensity score of {verbatim(label)}")
    ax.set_ylabel(f"share with {verbatim(label)}")
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
    ax.set_xlabel("share of the weight of its arm (%)")
    ax.set_ylabel(verbatim(name))
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
    low, high = min(ax.get_xlim()[0], ax.get_ylim()[0]), max(ax.get_xlim()[1], ax.get_ylim()[1])
    ax.set_xlim(low, high)
    ax.set_ylim(low, high)
    ax.set_aspect("equal", adjustable="box")  # so that the diagonal is one
    ax.locator_params(nbins=5)
    ax.set_xlabel(f"bias of {verbatim(labels[0])}, in units of {verbatim(unit)}")
    ax.set_ylabel(f"bias of {verbatim(labels[1])}")
    ax.legend(ncols=3, **ABOVE)
    return ax


TITLE_PAD = 34  # points, above the legends


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
        Where the dashed line is.

    Returns
    -------
    matplotlib Axes
        The plot.
    """
    check_threshold(threshold)
    table = balance(record, binary, also=also, data=data, by=by, interactions=interactions, names=names)
    rows = table.index.get_level_values("covariate").nunique()
    return draw_balance(table, axes_or_new(ax, rows), threshold)


def plot_overlap(record: FitRecord, ax: Any = None, arm: Any = None) -> Any:
    """Mirrored histograms of the propensity score in an arm and in the reference arm.

    Parameters
    ----------
    ax : matplotlib Axes, optional
        Where to draw; by default a new figure.
    arm : level or label, optional
        The arm, by default the first that is not the reference.

    Returns
    -------
    matplotlib Axes
        The plot: bars the rows as they are, black lines as they are weighted.
    """
    design, position = record.design, record.arm_position(arm)
    rows, once = record.counted_rows, 1.0 if record.frequency else design.weights
    score = record.scores[position, rows]
    weight = (once * record.sample.restore(record.used_weight_fit.undivided))[rows]
    members = [(design.arm == a)[rows] for a in (position, 0)]
    labels = [f"{design.treat_name} = {design.labels[a]}" for a in (position, 0)]
    name = f"propensity score of {labels[0]}"
    return draw_overlap([score[m] for m in members], [weight[m] for m in members], labels, name, axes_or_new(ax))


def plot_cancellation(record: FitRecord, ax: Any = None, arm: Any = None) -> Any:
    """Bias of an arm against that of the reference over the propensity replicates, for JRE and IPWRA.

    Parameters
    ----------
    ax : matplotlib Axes, optional
        Where to draw; by default a new figure.
    arm : level or label, optional
        The arm, by default the first that is not the reference.

    Returns
    -------
    matplotlib Axes
        The plot. On the diagonal the biases cancel in the effect; how far along it a replicate lies does not
        matter. Results of an estimator other than JRE are drawn in place of IPWRA.
    """
    return cancellation_of(record, estimator_risks(record), arm, ax)


def cancellation_of(record: FitRecord, risks: EstimatorRisks, arm: Any = None, ax: Any = None) -> Any:
    """Draw `plot_cancellation` from risks that are at hand."""
    position, design = record.arm_position(arm), record.design
    labels = f"{design.treat_name} = {design.labels[0]}", f"{design.treat_name} = {design.labels[position]}"
    own = record.spec.name
    shown = {name: (risks.slopes[:, None] * risks.biases[name])[[0, position]] for name in _compared(own, risks.biases)}
    return draw_cancellation(shown, labels, design.endog_name, axes_or_new(ax))


def plot_risk(record: FitRecord, ax: Any = None) -> Any:
    """Plot the root of the expected ATE risk of every estimator over the propensity replicates, and its parts.

    Parameters
    ----------
    ax : matplotlib Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    matplotlib Axes
        The plot of `risk_table`, on a logarithmic scale; an arrow at the edge stands for less.
    """
    return draw_risk(risk_table(record), record.design.endog_name, axes_or_new(ax))


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
    effects = float(joint.estimate.estimate.params[0]), float(joint.start.params[0])
    labels = _effect_label(record), f"{100 * (1 - alpha):.4g}% interval"
    alone = record.options.effect == "difference" and record.design.n_arms == 2
    z = float(norm.ppf(1 - alpha / 2)) if alone else None
    return draw_anchor_path(path, effects, z, labels, axes_or_new(ax))


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
    """Draw a penalty path that is at hand."""
    check_alpha(alpha)
    joint, unit = joint_of(record), record.design.endog_name
    labels = _effect_label(record), f"robust {100 * (1 - alpha):.4g}% interval", f"RMS net bias ({unit})"
    effects = float(joint.estimate.estimate.params[0]), float(joint.start.params[0])
    scale, values = record.options.effect_scale, path["effect"].to_numpy()
    limits = effect_interval(values, delta_errors(values, path["std err"].to_numpy(), scale), scale, alpha)
    return draw_penalty_path(path, float(joint.own_penalty or 0.0), effects, limits, labels, axes_or_new(ax))


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
        Which to draw; methods of `conf_int`.
    arm : level or label, optional
        The arm whose effect it is, by default the first that is not the reference.

    Returns
    -------
    matplotlib Axes
        The plot; "normal" is the interval of the summary.

    Raises
    ------
    UnavailableError
        If the fit has no bootstrap.
    """
    boot, position = record.used_boot, record.contrast_position(arm)
    k = position - 1
    limits = {method: conf_int(record, alpha, method).iloc[k] for method in intervals}
    shown = {f"{100 * (1 - alpha):.4g}% {name}": (float(low), float(high)) for name, (low, high) in limits.items()}
    estimate = float(record.estimate.params[k])
    return draw_bootstrap(boot.used[:, k], estimate, shown, _effect_label(record, position), axes_or_new(ax))


def plot_influence(record: FitRecord, ax: Any = None, top: int = 5, method: str | None = None, arm: Any = None) -> Any:
    """How much each row moves the effect, against its share of the weight.

    Parameters
    ----------
    ax : matplotlib Axes, optional
        Where to draw; by default a new figure.
    top : int, default 5
        How many rows are named.
    method : {"exact", "shifted", "influence"}, optional
        As in `influence`.
    arm : level or label, optional
        The arm whose effect it is, by default the first that is not the reference.

    Returns
    -------
    matplotlib Axes
        The plot.
    """
    whole_number("top", top, 1)
    position = record.contrast_position(arm)
    return draw_changes(record, influence(record, method=method, arm=arm), ax, top, position)


def draw_changes(record: FitRecord, table: pd.DataFrame, ax: Any, top: int, position: int = 1) -> Any:
    """Draw a table of influences on the effect of an arm that is at hand."""
    design = record.design
    table = table.assign(arm=[f"{design.treat_name} = {label}" for label in table["arm"]])
    labels = [f"{design.treat_name} = {label}" for label in design.labels]
    effect = record.effect_names[position - 1]
    name = f"{effect} without the row, less the {effect}"
    return draw_influence(table, labels, top, name, axes_or_new(ax))


def plot_calibration(record: FitRecord, ax: Any = None, bins: int = 10, arm: Any = None) -> Any:
    """Share treated against the propensity score, bin by bin.

    Parameters
    ----------
    ax : matplotlib Axes, optional
        Where to draw; by default a new figure.
    bins : int, default 10
        Number of bins.
    arm : level or label, optional
        The arm, by default the first that is not the reference.

    Returns
    -------
    matplotlib Axes
        The plot, with 95% intervals of the shares.
    """
    design = record.design
    label, table = design.labels[record.arm_position(arm)], calibration(record, bins)
    if design.n_arms > 2:
        table = table.loc[label]
    return draw_calibration(table, 1.96, "95% interval", f"{design.treat_name} = {label}", axes_or_new(ax))


def plot_diagnostics(record: FitRecord, figure: Any = None) -> Any:
    """Draw six diagnostics on one page.

    Parameters
    ----------
    figure : matplotlib Figure, optional
        Where to draw; by default a new page, A4 across.

    Returns
    -------
    matplotlib Figure
        Overlap, balance, calibration, cancellation, influence; and the bootstrap distribution, or without one the
        path of the anchor or penalty of JRE, or the risks.
    """
    balance(record)  # an estimator without scores is refused before anything is drawn
    last: tuple[str, Callable[..., Any]] = ("Risk", plot_risk)
    if record.boot is not None:
        last = ("Bootstrap", plot_bootstrap)
    elif record.joint is not None and record.joint.path is not None:
        last = ("Anchor", plot_anchor_path)
    elif record.joint is not None and record.joint.own_penalty is not None:
        last = ("Penalty", plot_penalty_path)
    figure, axes = page_or_new(figure)
    plots: tuple[tuple[str, Callable[..., Any]], ...] = (
        ("Overlap", plot_overlap),
        ("Balance", plot_balance),
        ("Calibration", plot_calibration),
        ("Cancellation", plot_cancellation),
        ("Influence", partial(plot_influence, method=quick_method(record))),
        last,
    )
    for (title, plot), ax in zip(plots, axes.flat, strict=True):
        plot(record, ax).set_title(title, loc="left", fontweight="bold", pad=TITLE_PAD)
    figure.suptitle(verbatim(one_line(record)))
    return figure


def _effect_label(record: FitRecord, position: int = 1) -> str:
    """Return what the axis of the effect of an arm is called."""
    return f"{record.estimand} on {record.design.endog_name}, {record.contrasts[position - 1]}"


def _compared(own: str, biases: dict[str, Array]) -> list[str]:
    """Names of the two estimators whose cancellation is drawn."""
    return [own if own in biases and own != "JRE" else "IPWRA", "JRE"]
