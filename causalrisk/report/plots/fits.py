"""Plots of a fit: balance, overlap and calibration, its effects, and the biases, risks and paths of a joint one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import pandas as pd

from causalrisk.design import ScannedDesign
from causalrisk.design.covariates import moderators
from causalrisk.design.design import rows_not_kept
from causalrisk.diagnostics.balance import balance, check_threshold
from causalrisk.diagnostics.influence import influence_method, influence_tables, quick_method
from causalrisk.diagnostics.risk import anchor_path, estimator_risks, joint_of, penalty_path, risk_table
from causalrisk.diagnostics.scores import calibration
from causalrisk.errors import OptionError, check_alpha, one_of, whole_number
from causalrisk.estimators.options import Adjustment, Interval
from causalrisk.estimators.record import FitRecord, of_means
from causalrisk.inference.fitted_models import used_learned
from causalrisk.inference.heterogeneity import effects_by
from causalrisk.inference.intervals import conf_int, critical_value, delta_errors, effect_interval
from causalrisk.inference.permutation import Permutations
from causalrisk.inference.simultaneous import distribution
from causalrisk.report.plots.axes import (
    BLUE,
    GREY,
    LINE,
    ORANGE,
    PAGE,
    ROWS,
    SERIES,
    UPRIGHT,
    axes_or_new,
    broken,
    effect_label,
    finish,
    ink,
    label_rows,
    log_scale,
    mark_if_seen,
    panel_by_arm,
    pyplot,
    verbatim,
)
from causalrisk.report.summary import one_line
from causalrisk.report.tables.text import format_p

BALANCED = 0.1  # a difference below this is usually taken as balanced

BINS = 30


def plot_balance(
    record: FitRecord,
    ax: Any = None,
    binary: Literal["raw", "std"] = "raw",
    *,
    between: Literal["arms", "observed"] = "arms",
    also: Any = None,
    data: Any = None,
    by: Any = None,
    interactions: bool = False,
    threshold: float = BALANCED,
    names: Mapping[str, str] | None = None,
) -> Any:
    """Love plot: differences between the arms, or of the rows with an outcome and all, before and after weighting.

    Parameters
    ----------
    ax : matplotlib Axes, optional
        Where to draw; by default a new figure.
    binary : {"raw", "std"}
        As in `balance`.
    between, also, data, by, interactions, names
        As in `balance`; of several groups or arms the largest difference is drawn.
    threshold : float, default 0.1
        Position of the dashed line.

    Returns
    -------
    matplotlib Axes
        The plot.
    """
    check_threshold(threshold)
    table = balance(
        record, binary, between=between, also=also, data=data, by=by, interactions=interactions, names=names
    )
    ax = axes_or_new(ax, table.index.get_level_values("covariate").nunique())
    several = isinstance(table.index, pd.MultiIndex)
    sizes = table[["diff before", "diff after"]].abs()
    raw = table["unit"] == "raw"
    if several:
        sizes, raw = (values.groupby(level="covariate", sort=False).max() for values in (sizes, raw))
    order = np.argsort(sizes["diff before"].to_numpy(), kind="stable")
    sizes, raw = sizes.iloc[order], raw.iloc[order]
    rows = np.arange(len(sizes))
    ax.hlines(rows, sizes.min(axis=1), sizes.max(axis=1), **ROWS)
    paper = ax.get_facecolor()
    ax.plot(sizes["diff before"], rows, "o", color=ORANGE, markerfacecolor=paper, label="before weighting")
    ax.plot(sizes["diff after"], rows, "o", color=BLUE, label="after weighting")
    ax.axvline(0, color=ink(ax), linewidth=0.8, zorder=0)
    ax.axvline(threshold, **LINE)
    label_rows(ax, rows, [f"{verbatim(name)}{'*' * star}" for name, star in zip(sizes.index, raw, strict=True)])
    ax.set_xlabel(
        f"{'largest ' if several else ''}absolute mean difference, standardized"
        + ("\n(* binary: difference of proportions)" if raw.any() else "")
    )
    return finish(ax, 2)


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
        The plot: bars the rows as they are, lines as they are weighted.
    """
    design = record.design
    rows, once = record.counted_rows, 1.0 if record.frequency else design.weights
    weight = (once * record.sample.restore(record.used_weight_fit.undivided))[rows]

    def draw(position: int, ax: Any) -> Any:
        score = record.scores[position, rows]
        members = [(design.arm == a)[rows] for a in (position, 0)]
        labels = [f"{design.treat_name} = {design.labels[a]}" for a in (position, 0)]
        scores, weights = ([values[m] for m in members] for values in (score, weight))
        low, high = min(s.min() for s in scores), max(s.max() for s in scores)
        edges = np.linspace(low, high if high > low else low + 1e-9, BINS + 1)
        widths = np.diff(edges)
        handles = []
        for sign, own, label, colour in zip((1, -1), scores, labels, (BLUE, ORANGE), strict=True):
            share = sign * np.histogram(own, edges)[0] / len(own)
            shown = f"{verbatim(label)} (n {len(own)})"
            handles.append(ax.bar(edges[:-1], share, widths, align="edge", color=colour, alpha=0.4, label=shown))
        for sign, own, weights_of in zip((1, -1), scores, weights, strict=True):
            weighted, _ = np.histogram(own, edges, weights=weights_of)
            share = sign * weighted / weighted.sum()
            outline = ax.stairs(share, edges, color=ink(ax), linewidth=1.1, label="after weighting")
        ax.axhline(0, color=ink(ax), linewidth=0.8)
        ax.yaxis.set_major_formatter(lambda value, _: f"{100 * abs(value):.3g}%")
        ax.set_xlabel(verbatim(f"propensity score of {labels[0]}"))
        ax.set_ylabel("share of the arm")
        return finish(ax, 2, [*handles, outline])

    return panel_by_arm(record, draw, ax=ax, arm=arm)


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
        label = verbatim(f"{design.treat_name} = {design.labels[position]}")
        own = table.loc[design.labels[position]] if design.n_arms > 2 else table
        spread = 1.96 * own["std err"]
        top = 1.05 * max(own["predicted"].max(), (own["observed"] + spread).max())
        limits = 0.0, min(1.0, top) if top > 0 else 1.0
        ax.plot(limits, limits, label="calibrated", **LINE)
        ax.errorbar(
            own["predicted"], own["observed"], spread, fmt="o", color=BLUE, ecolor=GREY, markersize=5,
            label="95% interval",
        )  # fmt: skip
        ax.set_xlim(-0.02 * limits[1], limits[1])
        ax.set_ylim(-0.02 * limits[1], limits[1])
        ax.set_xlabel(f"propensity score of {label}")
        ax.set_ylabel(f"share with {label}")
        return finish(ax, 2)

    return panel_by_arm(record, draw, ax=ax, arm=arm)


def plot_learner(record: FitRecord, ax: Any = None, bins: int = 10, learner: str | None = None) -> Any:
    """Mean outcome of the rows of each arm against their predictions by a learner, bin by bin.

    Parameters
    ----------
    ax : matplotlib Axes, optional
        Where to draw; by default a new figure.
    bins : int, default 10
        Number of bins, each with as many rows of an arm.
    learner : str, optional
        Name of the learner; by default the first.

    Returns
    -------
    matplotlib Axes
        The plot, with 95% intervals of the means. Each prediction is by models that were fitted to other folds.

    Raises
    ------
    UnavailableError
        If the fit has no learner.
    OptionError
        If it has no learner of that name.
    """
    whole_number("bins", bins, 2)
    learned, design = used_learned(record), record.design
    one_of("learner", learner, (None, *learned.names))
    fit = learned.fits[0 if learner is None else learned.names.index(learner)]
    if isinstance(design, ScannedDesign):
        raise rows_not_kept("the plot of a learner", "res.learner_fit  has its fit outside of the folds. ")
    values, ax = fit.kept_predictions(), axes_or_new(ax)
    for a, label in enumerate(design.labels):
        own = np.flatnonzero((design.arm == a) & design.recorded)
        order = own[np.argsort(values[a, own], kind="stable")]
        points = []
        for part in np.array_split(order, min(bins, max(len(order) // 2, 1))):
            weights = design.weights[part]
            mean = np.average(design.y[part], weights=weights)
            squared = weights if record.frequency else weights**2
            spread = 1.96 * np.sqrt(squared @ (design.y[part] - mean) ** 2) / weights.sum()
            points.append((np.average(values[a, part], weights=weights), mean, spread))
        centres, means, spreads = np.transpose(points)
        marker, colour, _ = SERIES[a % len(SERIES)]
        ax.errorbar(
            centres, means, spreads, fmt=marker, color=colour, ecolor=GREY, markersize=5,
            label=verbatim(f"{design.treat_name} = {label}"),
        )  # fmt: skip
    low, high = ax.get_xlim()
    ax.plot((low, high), (low, high), label="calibrated", **LINE)
    ax.set_xlabel(verbatim(f"prediction of {design.endog_name} by {fit.name}"))
    ax.set_ylabel(verbatim(f"mean of {design.endog_name}"))
    return finish(ax, design.n_arms + 1)


def draw_forest(frame: pd.DataFrame, ax: Any) -> Any:
    """Draw effects and intervals (the last two columns) from the top down, and a line at no effect."""
    rows = np.arange(len(frame))[::-1]
    ax.hlines(rows, frame.iloc[:, -2], frame.iloc[:, -1], color=GREY)
    ax.plot(frame.iloc[:, 0], rows, "o", color=ink(ax))
    label_rows(ax, rows, [verbatim(name) for name in frame.index])
    mark_if_seen(ax, 0)
    return finish(ax)


def draw_event_study(each: pd.DataFrame, joint: pd.DataFrame, label: str, ax: Any) -> Any:
    """Draw effects from left to right, with each interval by itself and those that hold together."""
    numbers = pd.api.types.is_numeric_dtype(each.index)
    places = each.index.to_numpy(dtype=float) if numbers else np.arange(len(each))
    ax.vlines(places, joint.iloc[:, -2], joint.iloc[:, -1], color=ORANGE, linewidth=1.2, label="all together")
    ax.vlines(places, each.iloc[:, -2], each.iloc[:, -1], color=BLUE, linewidth=4, label="each by itself")
    ax.plot(places, each["estimate"], "o", color=ink(ax))
    if each.index.name == "exposure":
        ax.plot(-1, 0, "o", color=ink(ax), fillstyle="none")  # what all others are compared with
    ax.set_xticks(places, [verbatim(name) for name in each.index])
    ax.set_xlabel(verbatim(each.index.name))
    ax.set_ylabel(verbatim(label))
    ax.axhline(0, **LINE)
    return finish(ax, 2)


GRID = 101  # values at which a curve is drawn


def plot_effects_by(
    record: FitRecord,
    by: Any,
    data: Any = None,
    ax: Any = None,
    alpha: float = 0.05,
    *,
    at: Any = GRID,
    adjust: Adjustment = "single-step",
    arm: Any = None,
) -> Any:
    """Effects in groups, or along a covariate, with each interval by itself and those that hold together.

    Parameters
    ----------
    by, data
        As in `effects_by`; a formula has one variable, such as "~ bs(age, df=4)".
    ax : matplotlib Axes, optional
        Where to draw; by default a new figure.
    alpha : float, default 0.05
        Significance level of the intervals.
    at : int or array_like, default 101
        Values of the variable of a formula, or their number.
    adjust : str, default "single-step"
        As in `effects_by`: what the wider intervals are; of a formula a uniform band.
    arm : level or label, optional
        The arm whose effect it is; by default a panel for each that is not the reference.

    Returns
    -------
    matplotlib Axes, or of several panels an array of Axes
        The plot: of groups a row each, of a formula the curve.

    Raises
    ------
    OptionError
        If the formula has several variables.
    """
    along = isinstance(by, str) and by.lstrip().startswith("~")
    encoder = moderators(record.design, by, data).encoder if along else None
    variables = () if encoder is None else encoder.variables
    if along and len(variables) != 1:
        raise OptionError(
            f"the formula {by!r} has {len(variables)} variables; expected one.\n"
            'Use `res.plot_effects_by("~ bs(x, df=4)")` with its name.'
        )
    each, joint = (effects_by(record, by, data, alpha, at=at if along else None, adjust=how) for how in (None, adjust))

    def draw(position: int, ax: Any) -> Any:
        own, wide = (
            frame.xs(record.effect_names[position - 1]) if record.design.n_arms > 2 else frame
            for frame in (each, joint)
        )
        covered = f"{100 * (1 - alpha):.4g}%"
        names = f"each by itself, {covered}", f"all together, {covered}"
        label = verbatim(effect_label(record, position))
        if not along:
            rows = np.arange(len(own))[::-1]
            ax.hlines(rows, wide.iloc[:, -2], wide.iloc[:, -1], color=ORANGE, linewidth=1.2, label=names[1])
            ax.hlines(rows, own.iloc[:, -2], own.iloc[:, -1], color=BLUE, linewidth=4, label=names[0])
            ax.plot(own["estimate"], rows, "o", color=ink(ax))
            texts = [row if isinstance(row, str) else ", ".join(map(str, row)) for row in own.index]
            label_rows(ax, rows, [verbatim(text) for text in texts])
            ax.set_xlabel(label)
            ax.set_ylabel(verbatim(", ".join(map(str, own.index.names))))
        else:
            values = own.index.to_numpy(dtype=float)
            ax.fill_between(values, wide.iloc[:, -2], wide.iloc[:, -1], color=ORANGE, alpha=0.25, lw=0, label=names[1])
            ax.fill_between(values, own.iloc[:, -2], own.iloc[:, -1], color=BLUE, alpha=0.35, lw=0, label=names[0])
            ax.plot(values, own["estimate"], color=ink(ax), linewidth=1.5)
            ax.set_xlabel(verbatim(own.index.name))
            ax.set_ylabel(label)
        mark_if_seen(ax, record.options.effect_scale.null, across=along)
        return finish(ax, 2)

    return panel_by_arm(record, draw, ax=ax, arm=arm, effect=True)


@of_means
def plot_bootstrap(
    record: FitRecord,
    ax: Any = None,
    alpha: float = 0.05,
    intervals: Sequence[Interval] = ("normal", "percentile"),
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
    shown = {"normal": "t"} if np.isfinite(record.df) else {}
    limits = {
        f"{100 * (1 - alpha):.4g}% {shown.get(method, method)}": conf_int(record, alpha, method) for method in intervals
    }

    def draw(position: int, ax: Any) -> Any:
        k = position - 1
        estimate, drawn = float(record.estimate.params[k]), {name: both.iloc[k] for name, both in limits.items()}
        paper = ax.get_facecolor()
        counts, _, _ = ax.hist(boot.used[:, k], bins="auto", color=BLUE, alpha=0.35, edgecolor=paper, linewidth=0.5)
        top, step = counts.max(), 0.14 * counts.max()
        ax.plot([estimate, estimate], [0, top], color=ink(ax), label="estimate")
        places = [-place * step for place in range(1, len(drawn) + 1)]
        for place, ends in zip(places, drawn.values(), strict=True):
            ax.plot(ends, [place, place], "|-", color=ink(ax), markersize=7)
        ax.set_ylim(-(len(drawn) + 0.8) * step, 1.12 * top)
        ticks = [tick for tick in ax.get_yticks() if 0 <= tick <= 1.1 * top]
        ax.set_yticks([*places, *ticks], [*drawn, *(f"{tick:g}" for tick in ticks)])
        mark_if_seen(ax, 0)
        ax.annotate(
            "estimate", (estimate, top), xytext=(4, 2), va="bottom", textcoords="offset points", fontsize="small"
        )
        ax.locator_params(axis="x", nbins=5)
        ax.set_xlabel(verbatim(effect_label(record, position)))
        ax.set_ylabel("resamples")
        return finish(ax)

    return panel_by_arm(record, draw, ax=ax, arm=arm, effect=True)


def plot_distribution(record: FitRecord, ax: Any = None, grid: Any = None, alpha: float = 0.05) -> Any:
    """Distribution functions of the potential outcomes of each arm, with bands that hold at all values of the grid.

    Lines join the values.

    Parameters
    ----------
    ax : matplotlib Axes, optional
        Where to draw; by default a new figure.
    grid, alpha
        As in `distribution`.

    Returns
    -------
    matplotlib Axes
        The plot.
    """
    table, ax = distribution(record, grid, alpha), axes_or_new(ax)
    for k, label in enumerate(record.design.labels):
        own, (_, colour, line) = table.loc[label], SERIES[k % len(SERIES)]
        ax.plot(own.index, own["estimate"], line, color=colour, label=verbatim(f"{record.design.treat_name} = {label}"))
        ax.fill_between(own.index, own["band low"], own["band high"], color=colour, alpha=0.2, linewidth=0)
    ax.set_xlabel(verbatim(record.design.endog_name))
    ax.set_ylabel(f"share of outcomes up to it, with {100 * (1 - alpha):.4g}% bands")
    return finish(ax, record.design.n_arms)


@of_means
def plot_influence(
    record: FitRecord, ax: Any = None, top: int = 5, method: str | None = None, arm: Any = None, clusters: bool = False
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
    ax = axes_or_new(ax)
    for k, label in enumerate(record.design.labels):
        rows, (marker, colour, _) = table[table["arm"] == label], SERIES[k % len(SERIES)]
        ax.plot(
            100 * rows["weight share"], rows["change"], marker, color=colour, markersize=4, alpha=0.6, linestyle="none",
            label=verbatim(f"{record.design.treat_name} = {label}"), markeredgewidth=0,
        )  # fmt: skip
    ax.axhline(0, **LINE)
    order = table["change"].abs().fillna(-1).to_numpy().argsort()[::-1][:top]
    middle = 50 * table["weight share"].max()
    for row_name, row in table.iloc[order].iterrows():
        x, right = 100 * row["weight share"], 100 * row["weight share"] > middle
        ax.annotate(
            verbatim(row_name), (x, row["change"]), xytext=(-5 if right else 5, 0), textcoords="offset points",
            va="center", ha="right" if right else "left", fontsize="small",
        )  # fmt: skip
    ax.set_xlabel(f"{'largest share of the weight of an' if clusters else 'share of the weight of its'} arm (%)")
    left_out = "cluster" if clusters else "row"
    ax.set_ylabel(verbatim(f"change of {record.effect_names[position - 1]} without the {left_out}"))
    return finish(ax, 3)


BARS = 60


def draw_permutations(found: Permutations, ax: Any = None) -> Any:
    """Draw a histogram of a statistic over permutations, and that of the fit; infinite values are left out."""
    ax, observed, record = axes_or_new(ax), found.observed, found.record
    null = found.null[np.isfinite(found.null)]
    edges = np.histogram_bin_edges(np.r_[null, observed], bins=min(BARS, max(len(null) // 5, 10)))
    extreme = found.are_extreme(null)
    look: dict[str, Any] = {"color": BLUE, "edgecolor": ax.get_facecolor(), "linewidth": 0.5}
    counts, _, _ = ax.hist(null, bins=edges, alpha=0.35, label="permutations", **look)
    ax.hist(null[extreme], bins=edges, label=f"as extreme (p {format_p(found.pvalue)})", **look)
    ax.plot([observed] * 2, [0, 1.05 * counts.max()], color=ink(ax), label="the fit")
    effect = f"{record.estimand} on {record.design.endog_name}"
    if record.design.n_arms > 2 and found.position is not None:
        effect = f"{effect}, {record.contrasts[found.position - 1]}"
    if found.position is None:
        ax.set_xlabel(verbatim(f"Wald's statistic of the effects on {record.design.endog_name}"))
    elif found.kind == "studentized":
        ax.set_xlabel(verbatim(f"z of the {effect}"))
    else:
        logarithm = "" if record.options.effect == "difference" else "log of the "
        ax.set_xlabel(verbatim(f"{logarithm}{effect}"))
    ax.set_ylabel("permutations")
    return finish(ax, 3)


REMOTE = 1000  # parts smaller than the largest error by this factor are not drawn


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
    design, risks = record.design, estimator_risks(record)
    own = record.spec.name
    names = [own if own in risks.biases and own != "JRE" else "IPWRA", "JRE"]

    def draw(position: int, ax: Any) -> Any:
        for name, (marker, colour) in zip(names, (("^", ORANGE), ("o", BLUE)), strict=True):
            reference, other = (risks.slopes[:, None] * risks.biases[name])[[0, position]]
            ax.plot(
                (reference + other) / 2, other - reference, marker, color=colour, markersize=4, alpha=0.6,
                linestyle="none", markeredgewidth=0, label=name,
            )  # fmt: skip
        ax.axhline(0, color=ink(ax), linewidth=1, label="no net bias")
        extent = 1.1 * max(map(abs, ax.get_ylim()))
        ax.set_ylim(-extent, extent)  # the line in the middle, and both sides alike
        ax.locator_params(nbins=5)
        ax.set_xlabel(f"bias that both arms share: not in the effect ({verbatim(design.endog_name)})")
        treated, untreated = (verbatim(f"{design.treat_name} = {design.labels[k]}") for k in (position, 0))
        ax.set_ylabel(f"net bias of the effect:\n{treated} less {untreated}")
        return finish(ax, 3)

    return panel_by_arm(record, draw, ax=ax, arm=arm)


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
        The plot of `risk_table`, on a logarithmic scale; parts far below all errors are not drawn.
    """
    table, ax = risk_table(record), axes_or_new(ax)
    rows = np.arange(len(table))[::-1]
    ax.hlines(rows, 0, 1, transform=ax.get_yaxis_transform(), **ROWS)
    kinds: tuple[tuple[str, str, str, Any, Any, int], ...] = (
        ("RMS error", "RMS error", "o", BLUE, BLUE, 9),
        ("net bias", "RMS net", "D", ORANGE, "none", 6),
        ("sampling", "sampling SD", "|", ink(ax), ink(ax), 11),
    )
    least = table["RMS error"].max() / REMOTE
    for label, column, marker, edge, face, size in kinds:
        values = table[column].where(table[column] > least)
        ax.plot(values, rows, marker, color=edge, markerfacecolor=face, markersize=size, label=label)
    if least > 0:
        log_scale(ax)
    label_rows(ax, rows, [verbatim(name) for name in table.index])
    ax.set_xlabel(f"root mean square over replicates ({verbatim(record.design.endog_name)})")
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
    return finish(ax, 2)


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
    check_alpha(alpha)
    path, joint, scale = penalty_path(record, grid), joint_of(record), record.options.effect_scale
    path, ax = path[path.index > 0], axes_or_new(ax)  # the logarithmic scale has no zero
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
    bias.set_ylabel(broken(verbatim(f"RMS net bias ({record.design.endog_name})"), UPRIGHT), color=ORANGE)
    bias.tick_params(axis="y", colors=ORANGE)
    ax.set_xscale("log")
    ax.set_xlabel("penalty λ (logarithmic)")
    ax.set_ylabel(verbatim(effect_label(record)), color=BLUE)
    ax.tick_params(axis="y", colors=BLUE)
    handles = [handle for axes in (ax, bias) for handle in axes.get_legend_handles_labels()[0]]
    return finish(ax, 2, handles)


TITLE_PAD, HEADING, PANEL_LINE = 6, 110, 27  # points above the legends; characters of the heading, and of a label


def plot_diagnostics(record: FitRecord, figure: Any = None) -> Any:
    """Draw six diagnostics on one page.

    Parameters
    ----------
    figure : matplotlib Figure, optional
        Where to draw; by default a new page, A4 across.

    Returns
    -------
    matplotlib Figure
        Overlap, balance, calibration, net bias, influence; and the bootstrap distribution, or without one the
        path of the anchor or penalty of JRE, or the risks.
    """
    record.check_means("plot_diagnostics()")
    balance(record)  # an estimator without scores is refused before anything is drawn
    last: tuple[str, Callable[..., Any]] = ("Risk", plot_risk)
    if record.cov_type == "bootstrap":
        last = ("Bootstrap", plot_bootstrap)
    elif record.joint is not None and record.joint.path is not None:
        last = ("Anchor", plot_anchor_path)
    elif record.joint is not None and record.joint.own_penalty is not None:
        last = ("Penalty", plot_penalty_path)
    clusters = record.design.cluster is not None
    influence = partial(plot_influence, method=quick_method(record, clusters), clusters=clusters)
    figure = pyplot().figure(figsize=PAGE, layout="constrained") if figure is None else figure
    plots: tuple[tuple[str, Callable[..., Any]], ...] = (
        ("Overlap", plot_overlap),
        ("Balance", plot_balance),
        ("Calibration", plot_calibration),
        ("Net bias", plot_cancellation),
        ("Influence", influence),
        last,
    )
    for (title, plot), ax in zip(plots, figure.subplots(2, 3).flat, strict=True):
        legend = plot(record, ax).get_legend()
        ax.set_xlabel(broken(ax.get_xlabel(), PANEL_LINE))
        above = 0 if legend is None else legend.get_window_extent().height * 72 / figure.dpi
        ax.set_title(title, loc="left", fontweight="bold", pad=TITLE_PAD + above)
    figure.suptitle(broken(verbatim(one_line(record)), HEADING))
    return figure
