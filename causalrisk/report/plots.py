"""Plots of a fit: balance, overlap, calibration, effects, and the shrinkage of JRE.

Functions take and return matplotlib Axes. The colours of Okabe and Ito suit colour-blind readers. Markers and lines
differ too, for print. Texts have a colour that is visible on the Axes, which may be dark.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import pandas as pd

from causalrisk.design.covariates import moderators
from causalrisk.diagnostics import balance, risk, scores, sensitivity
from causalrisk.errors import OptionError, UnavailableError, check_alpha, needed, one_of, whole_number
from causalrisk.estimation.options import Adjustment, Interval
from causalrisk.estimation.record import FitRecord
from causalrisk.inference.heterogeneity import effects_by
from causalrisk.inference.intervals import conf_int, critical_value, summary_frame
from causalrisk.inference.simultaneous import distribution
from causalrisk.report.labels import outcome_name
from causalrisk.report.summary import one_line
from causalrisk.report.table import wrap

BLUE, ORANGE, GREEN, PINK, SKY, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "0.5"
COLOURS, LINES = (ORANGE, BLUE, GREEN, PINK, SKY, "#E69F00", "#F0E442", GREY), ("-", "--", "-.", ":")
SERIES = tuple(zip("o^sDvPX*", COLOURS, LINES * 2, strict=True))  # by group
LINE: dict[str, Any] = {"color": GREY, "linewidth": 1, "linestyle": "--", "zorder": 0}
PANEL = (5.2, 4.2)  # inches
CHARACTER = 7  # points that a character of a label needs
BELOW = 70  # characters of the labels that fit below a plot
BINS = 30  # bars of the histograms of scores
CONSTANT = 1e-6  # propensity scores with a smaller range count as constant
GRID = 101  # values at which a curve is drawn
FONT = 10  # points of labels, if there is room
LABEL_GAP = 0.06  # between the labels of points, as a share of the height of the axes
BAR: dict[str, Any] = {"ecolor": GREY, "markersize": 5}
DOTS: dict[str, Any] = {"markersize": 4, "alpha": 0.6, "linestyle": "none", "markeredgewidth": 0}


def pyplot() -> Any:
    """Return matplotlib.pyplot, or an error that says how to install it."""
    with needed("plots need matplotlib", "matplotlib"):
        import matplotlib.pyplot as plt
    return plt


def verbatim(text: object) -> str:
    """Escape a name, so matplotlib shows it unchanged. A dollar sign would begin a formula."""
    return str(text).removesuffix(" 00:00:00").replace("$", r"\$")  # a date is a time at midnight


def series(record: FitRecord, a: int, label: str) -> tuple[str, str, str, str]:
    """Return marker, colour, line style and legend text of treatment group `a`."""
    return *SERIES[a % len(SERIES)], verbatim(f"{record.design.treat_name} = {label}")


def ink(ax: Any) -> Any:
    """Return the colour of the texts of axes, which is light on a dark page."""
    return ax.xaxis.label.get_color()


def check_drawable(given: Any, name: str, kind: str, typed: str, saved: str) -> None:
    """Raise an error for an option `ax` or `figure` of the wrong type, such as the name of a file."""
    if not isinstance(given, getattr(pyplot(), kind)):
        if isinstance(given, str | os.PathLike):
            typed = f'{saved}.savefig("{os.fspath(given)}")'
        raise OptionError(f"{name}={given!r:.80}; expected a matplotlib {kind}.\nUse `{typed}`.")


def axes_or_new(ax: Any, rows: int | None = None) -> Any:
    """Return the given axes, or new axes. With `rows`, the figure is high enough for that number of labelled rows."""
    if ax is not None:
        check_drawable(ax, "ax", "Axes", "ax=plt.subplots()[1]", "ax.figure")
        return ax
    plt = pyplot()
    size = None if rows is None else (plt.rcParams["figure.figsize"][0], 1.2 + 0.4 * rows)
    return plt.subplots(figsize=size, layout="constrained")[1]


def room(ax: Any) -> tuple[float, float]:
    """Return width and height of axes in points."""
    box = ax.get_window_extent()
    return box.width * 72 / ax.figure.dpi, box.height * 72 / ax.figure.dpi


def broken(text: object, points: float) -> str:
    """Wrap each line of a text to a width in points."""
    return "\n".join(wrap(verbatim(text), max(int(points / CHARACTER), 8)))


def finish(ax: Any, across: str, upright: str = "", columns: int = 0, handles: Sequence[Any] | None = None) -> Any:
    """Label the axes, put a legend with up to `columns` columns above them, and return the axes."""
    width, height = room(ax)
    ax.set_xlabel(broken(across, width))
    ax.set_ylabel(broken(upright, height))
    if columns:  # above the axes, where the legend hides nothing
        for count in range(columns, 0, -1):
            legend = ax.legend(
                handles=handles, ncols=count, frameon=False, fontsize="small", loc="lower right", bbox_to_anchor=(1, 1),
                columnspacing=1, borderaxespad=0.2,
            )  # fmt: skip
            if legend.get_window_extent().width <= ax.get_window_extent().width:
                break
    return ax


def mark_if_seen(ax: Any, value: float, across: bool = False) -> None:
    """Draw a vertical or, with `across`, horizontal line at a value, if the value is within the axes' range."""
    low, high = ax.get_ylim() if across else ax.get_xlim()
    if low < value < high:
        (ax.axhline if across else ax.axvline)(value, **LINE)


def label_rows(ax: Any, rows: Any, names: Iterable[object]) -> None:
    """Label the rows of a plot on its vertical axis."""
    width, height = room(ax)
    texts = [broken(name, 0.6 * width) for name in names]
    size = height / (1.3 * sum([text.count("\n") + 1 for text in texts], 1))
    ax.set_yticks(rows, texts, **({"fontsize": size} if size < FONT else {}))
    ax.set_ylim(-0.6, len(rows) - 0.4)


def log_scale(ax: Any) -> None:
    """Make the horizontal axis logarithmic, with numbers as tick labels that do not touch."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    ax.set_xscale("log")
    low, high = ax.get_xlim()
    steps = (1, 2, 5) if high / low < 75 else (1,)
    ax.xaxis.set_major_locator(MaxNLocator(4) if high / low < 3 else LogLocator(subs=steps))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.minorticks_off()


def panel_by_arm(record: FitRecord, draw: Callable[[int, Any], Any], ax: Any, arm: Any, rows: int | None = None) -> Any:
    """Draw a plot of one treatment group, or one panel for each group except the reference."""
    if arm is not None:
        return draw(record.arm_position(arm, effect=True), axes_or_new(ax, rows))
    count = record.design.n_arms - 1
    if ax is not None or count == 1:
        ax = draw(1, axes_or_new(ax, rows))
        if count > 1:
            ax.set_xlabel(f"{ax.get_xlabel()}\n(1 of {count} comparisons)")
        return ax
    across = min(count, 3)
    down = -(-count // across)
    size = (PANEL[0] * across, max(PANEL[1], 1.2 + 0.4 * (rows or 0)) * down)
    axes = pyplot().subplots(down, across, figsize=size, layout="constrained", squeeze=False)[1]
    for empty in axes.flat[count:]:
        empty.remove()
    return np.array([draw(position, axes.flat[position - 1]) for position in range(1, count + 1)])


def effect_label(record: FitRecord, position: int = 1) -> str:
    """Return the label of the axis of the effect of a treatment group."""
    return f"{record.estimand} on {outcome_name(record)}, {record.contrasts[position - 1]}"


def plot_balance(
    record: FitRecord,
    ax: Any = None,
    binary: Literal["raw", "std"] = "std",
    *,
    between: Literal["arms", "observed"] = "arms",
    also: Any = None,
    data: Any = None,
    by: Any = None,
    interactions: bool = False,
    threshold: float = 0.1,
    names: Mapping[str, str] | None = None,
) -> Any:
    """Love plot: standardized mean differences between the treatment groups, before and after weighting (if any).

    Parameters
    ----------
    ax : matplotlib Axes, optional
        Axes to draw on; by default a new figure.
    binary : {"std", "raw"}
        For binary covariates, "std" (default) shows standardized differences, as for other covariates. "raw" shows
        differences of proportions.
    between, also, data, by, interactions, names
        As in `balance`. With several treatment groups, the plot shows the largest difference.
    threshold : float, default 0.1
        Absolute difference at which a dashed line is drawn.

    Returns
    -------
    matplotlib Axes
        The plot.
    """
    balance.check_threshold(threshold)
    asked: dict[str, Any] = {"between": between, "also": also, "data": data, "by": by, "interactions": interactions}
    table = balance.balance(record, binary, **asked, names=names).dropna(subset="diff before")
    if table.empty:
        raise UnavailableError(balance.NO_COVARIATES)
    several, columns = isinstance(table.index, pd.MultiIndex), [name for name in table if name.startswith("diff ")]
    sizes = table[columns].abs().assign(raw=table["unit"] == "raw")
    sizes = sizes.groupby(level="covariate", sort=False).max() if several else sizes
    ax = axes_or_new(ax, len(sizes))
    count, shown = len(sizes), max(int(room(ax)[1] / FONT), 1)  # others would overlap
    rank = sizes[columns].max(axis=1).rank(method="first", ascending=False)
    sizes = sizes[rank <= shown].sort_values("diff before", kind="stable")
    rows = np.arange(len(sizes))
    label_rows(ax, rows, [f"{name}{'*' * raw}" for name, raw in sizes["raw"].items()])
    ax.hlines(rows, sizes[columns].min(axis=1), sizes[columns].max(axis=1), color=GREY, alpha=0.3, zorder=0)
    weighted, how = record.design.weight_type is not None, record.spec.adjustment
    before = f"before (weighted by {record.design.weights_name} only)" if weighted else f"before {how}"
    ax.plot(sizes["diff before"], rows, "o", color=ORANGE, markerfacecolor=ax.get_facecolor(), label=before)
    for name in columns[1:]:
        ax.plot(sizes[name], rows, "o", color=BLUE, label=f"after {how}")
    ax.axvline(0, color=ink(ax), linewidth=0.8, zorder=0)
    ax.axvline(threshold, **LINE)
    label = f"{'largest ' * several}absolute standardized mean difference"
    label += f"\n({shown} largest of {count})" * (shown < count)
    label += "\n(* difference of proportions)" * bool(sizes["raw"].any())
    return finish(ax, label, columns=2 * (len(columns) > 1))


def plot_overlap(record: FitRecord, ax: Any = None, arm: Any = None) -> Any:
    """Mirrored histograms of the propensity score in a treatment group and in the reference group.

    Parameters
    ----------
    ax : matplotlib Axes, optional
        Axes to draw on; by default a new figure.
    arm : level or label, optional
        The treatment group to plot; by default one panel per group except the reference.

    Returns
    -------
    matplotlib Axes, or an array of Axes for several panels
        The plot. Bars are for the unweighted rows, and lines for the weighted rows.
    """
    design = record.design
    rows, once = record.counted_rows, 1.0 if record.frequency else design.weights
    weight = (once * record.sample.restore(record.used_weight_fit.raw_weights))[rows]

    def draw(position: int, ax: Any) -> Any:
        score = record.scores[position, rows]
        members = [(design.arm == a)[rows] for a in (position, 0)]
        labels = [f"{design.treat_name} = {design.labels[a]}" for a in (position, 0)]
        used = score[members[0] | members[1]]
        low, high = used.min(), used.max()
        if high - low < CONSTANT:  # such as a known probability
            low, high = max(low - 0.05, 0.0), min(high + 0.05, 1.0)
        edges = np.linspace(low, high, BINS + 1)
        handles = []
        for sign, inside, label, colour in zip((1, -1), members, labels, (BLUE, ORANGE), strict=True):
            shares = [np.histogram(score[inside], edges, weights=w)[0] for w in (None, weight[inside])]
            bars, line = (sign * share / share.sum() for share in shares)
            shown = f"{verbatim(label)} (n {inside.sum()})"
            bar = ax.bar(edges[:-1], bars, np.diff(edges), align="edge", color=colour, alpha=0.4, label=shown)
            handles += [
                bar,
                ax.stairs(line, edges, color=ink(ax), linewidth=1.1, label=f"after {record.spec.adjustment}"),
            ]
        ax.axhline(0, color=ink(ax), linewidth=0.8)
        ax.yaxis.set_major_formatter(lambda value, _: f"{100 * abs(value):.3g}%")
        across = f"propensity score: probability of {labels[0]}"
        return finish(ax, across, "share of the group", columns=2, handles=[handles[0], *handles[2:]])

    return panel_by_arm(record, draw, ax, arm)


def plot_calibration(record: FitRecord, ax: Any = None, bins: int = 10, arm: Any = None) -> Any:
    """Observed share of treated rows against the mean propensity score, bin by bin.

    Parameters
    ----------
    ax : matplotlib Axes, optional
        Axes to draw on; by default a new figure.
    bins : int, default 10
        Number of bins.
    arm : level or label, optional
        The treatment group to plot; by default one panel per group except the reference.

    Returns
    -------
    matplotlib Axes, or an array of Axes for several panels
        The plot, with 95% intervals of the shares.
    """
    design, table = record.design, scores.calibration(record, bins)

    def draw(position: int, ax: Any) -> Any:
        label = f"{design.treat_name} = {design.labels[position]}"
        own = table.loc[design.labels[position]] if design.n_arms > 2 else table
        spread = 1.96 * own["std err"].fillna(0)
        top = 1.05 * max(own["predicted"].max(), (own["observed"] + spread).max())
        limits = 0.0, min(1.0, top) if top > 0 else 1.0
        ax.plot(limits, limits, label="calibrated", **LINE)
        ax.errorbar(own["predicted"], own["observed"], spread, fmt="o", color=BLUE, label="95% interval", **BAR)
        ax.set(xlim=(-0.02 * limits[1], limits[1]), ylim=(-0.02 * limits[1], limits[1]))
        return finish(ax, f"propensity score: probability of {label}", f"observed share of {label}", columns=2)

    return panel_by_arm(record, draw, ax, arm)


def draw_forest(frame: pd.DataFrame, label: str, ax: Any, null: float = 0.0) -> Any:
    """Draw effects and intervals (the last two columns) from the top down, and a line at no effect."""
    rows = np.arange(len(frame))[::-1]
    ax.hlines(rows, frame.iloc[:, -2], frame.iloc[:, -1], color=GREY)
    ax.plot(frame.iloc[:, 0], rows, "o", color=ink(ax))
    label_rows(ax, rows, frame.index)
    mark_if_seen(ax, null)
    return finish(ax, label)


def draw_intervals(draw: Any, places: Any, each: Any, joint: Any, alpha: float, filled: bool = False) -> None:
    """Draw simultaneous intervals, and pointwise intervals over them, as lines or filled."""
    for frame, colour, width, opacity, kind in (
        (joint, ORANGE, 1.2, 0.25, "simultaneous"),
        (each, BLUE, 4, 0.35, "pointwise"),
    ):
        look = {"linewidth": 0, "alpha": opacity} if filled else {"linewidth": width}
        label = f"{kind} {100 * (1 - alpha):.4g}%"
        draw(places, frame.iloc[:, -2], frame.iloc[:, -1], color=colour, label=label, **look)


ALONG = {"exposure": "periods since adoption", "group": "first period with treatment", "time": "period"}


def plot_study(study: Any, by: str = "exposure", ax: Any = None, alpha: float = 0.05) -> Any:
    """Plot effects by periods since adoption, group or time, with pointwise and simultaneous intervals.

    Parameters
    ----------
    by : {"exposure", "group", "time"}
        As in `effects`.
    ax : matplotlib Axes, optional
        Axes to draw on; by default a new figure.
    alpha : float, default 0.05
        Significance level of the intervals.

    Returns
    -------
    matplotlib Axes
        The plot.
    """
    by = one_of("by", by, tuple(ALONG))
    each, joint = (study.effects(by, alpha, adjust=how) for how in (None, "single-step"))
    numbers, ax = pd.api.types.is_numeric_dtype(each.index), axes_or_new(ax)
    places, names = each.index.to_numpy(dtype=float) if numbers else np.arange(len(each)), list(each.index)
    draw_intervals(ax.vlines, places, each, joint, alpha)
    ax.plot(places, each["estimate"], "o", color=ink(ax))
    if by == "exposure" and study.given["base"] == "universal":  # the period all others are compared with
        reference = -1 - study.given["anticipation"]
        ax.plot(reference, 0, "o", color=ink(ax), fillstyle="none")
        places, names = np.append(places, reference), [*names, reference]
    labels = [verbatim(names[k]) for k in np.argsort(places)]
    step = -(-len(labels) * (2 + max(map(len, labels))) // BELOW)
    ax.set_xticks(np.sort(places)[::step], labels[::step])
    ax.axhline(0, **LINE)
    return finish(ax, ALONG[by], f"ATT on {study.outcome}", columns=2)


def plot_effects_by(
    record: FitRecord,
    by: Any = None,
    data: Any = None,
    ax: Any = None,
    alpha: float = 0.05,
    *,
    at: Any = GRID,
    adjust: Adjustment = "single-step",
    arm: Any = None,
) -> Any:
    """Effects in groups, or along a covariate, with pointwise and simultaneous intervals.

    Parameters
    ----------
    by, data
        As in `effects_by`. A formula must have one variable, as in "~ bs(age, df=4)". Without `by`, the plot shows the
        effects of the summary with pointwise intervals, one row per treatment group or quantile.
    ax : matplotlib Axes, optional
        Axes to draw on; by default a new figure.
    alpha : float, default 0.05
        Significance level of the intervals.
    at : int or array_like, default 101
        For a formula: values of the variable at which the curve is drawn, or the number of such values.
    adjust : str, default "single-step"
        Kind of simultaneous interval, as in `effects_by`. For a formula, the default gives a uniform band.
    arm : level or label, optional
        The treatment group whose effect to plot; by default one panel per group except the reference.

    Returns
    -------
    matplotlib Axes, or an array of Axes for several panels
        The plot, with one row per group, or the curve of a formula.

    Raises
    ------
    OptionError
        If the formula has several variables.
    """
    if by is None:
        table = summary_frame(record, alpha).iloc[: len(record.effect_names)]
        label = f"{record.estimand} on {outcome_name(record)}, {100 * (1 - alpha):.4g}% interval"
        return draw_forest(table, label, axes_or_new(ax, len(table)), record.options.effect_scale.null)
    along = isinstance(by, str) and by.lstrip().startswith("~")
    encoder = moderators(record.design, by, data).encoder if along else None
    if encoder is not None and len(encoder.variables) != 1:
        found = f"the formula {by!r} has {len(encoder.variables)} variables; expected one"
        raise OptionError(f'{found}.\nUse `res.plot_effects_by("~ bs(x, df=4)")` with one variable.')
    frames = [effects_by(record, by, data, alpha, at=at if along else None, adjust=how) for how in (None, adjust)]

    def draw(position: int, ax: Any) -> Any:
        name, several = record.effect_names[position - 1], record.design.n_arms > 2
        own, wide = (frame.xs(name) if several else frame for frame in frames)
        label = effect_label(record, position)
        if along:
            values = own.index.to_numpy(dtype=float)
            draw_intervals(ax.fill_between, values, own, wide, alpha, filled=True)
            ax.plot(values, own["estimate"], color=ink(ax), linewidth=1.5)
            label, upright = own.index.name, label
        else:
            rows = np.arange(len(own))[::-1]
            draw_intervals(ax.hlines, rows, own, wide, alpha)
            ax.plot(own["estimate"], rows, "o", color=ink(ax))
            label_rows(ax, rows, [", ".join(map(str, row)) if isinstance(row, tuple) else row for row in own.index])
            upright = ", ".join(map(str, own.index.names))
        mark_if_seen(ax, record.options.effect_scale.null, across=along)
        return finish(ax, label, upright, columns=2)

    return panel_by_arm(record, draw, ax, arm, None if along else len(frames[0]) // (record.design.n_arms - 1))


def plot_bootstrap(
    record: FitRecord,
    ax: Any = None,
    alpha: float = 0.05,
    intervals: Interval | Sequence[Interval] = ("normal", "percentile"),
    arm: Any = None,
) -> Any:
    """Bootstrap distribution of the effect, with confidence intervals.

    Parameters
    ----------
    ax : matplotlib Axes, optional
        Axes to draw on; by default a new figure.
    alpha : float, default 0.05
        Significance level of the intervals.
    intervals : str or sequence of str
        Intervals to draw: methods of `conf_int`.
    arm : level or label, optional
        The treatment group whose effect to plot; by default one panel per group except the reference.

    Returns
    -------
    matplotlib Axes, or an array of Axes for several panels
        The plot.

    Raises
    ------
    UnavailableError
        If the fit has no bootstrap.
    """
    record.check_means("plot_bootstrap()")
    boot = record.used_boot
    shown, level = {"normal": "t"} if np.isfinite(record.df) else {}, f"{100 * (1 - alpha):.4g}%"
    methods = [intervals] if isinstance(intervals, str) else intervals or ()
    limits = {f"{level} {shown.get(method, method)}": conf_int(record, alpha, method) for method in methods}

    def draw(position: int, ax: Any) -> Any:
        k = position - 1
        look = {"color": BLUE, "alpha": 0.35, "edgecolor": ax.get_facecolor(), "linewidth": 0.5}
        counts, _, _ = ax.hist(boot.used[:, k], bins="auto", **look)
        estimate, top, step = float(record.estimate.params[k]), counts.max(), 0.14 * counts.max()
        ax.plot([estimate, estimate], [0, top], color=ink(ax), label="estimate")
        places = [-place * step for place in range(1, len(limits) + 1)]
        for place, both in zip(places, limits.values(), strict=True):
            ax.plot(both.iloc[k], [place, place], "|-", color=ink(ax), markersize=7)
        ax.set_ylim(-(len(limits) + 0.8) * step, 1.12 * top)
        ticks = [tick for tick in ax.get_yticks() if 0 <= tick <= 1.1 * top]
        ax.set_yticks([*places, *ticks], [*limits, *(f"{tick:g}" for tick in ticks)])
        mark_if_seen(ax, record.options.effect_scale.null)
        ax.annotate("estimate", (estimate, top), (4, 2), textcoords="offset points", fontsize="small", va="bottom")
        return finish(ax, effect_label(record, position), "resamples")

    return panel_by_arm(record, draw, ax, arm)


def plot_distribution(record: FitRecord, ax: Any = None, grid: Any = None, alpha: float = 0.05) -> Any:
    """Distribution function of the potential outcome in each treatment group, with simultaneous bands.

    Parameters
    ----------
    ax : matplotlib Axes, optional
        Axes to draw on; by default a new figure.
    grid, alpha
        As in `distribution`.

    Returns
    -------
    matplotlib Axes
        The plot. Lines join the values of the grid.
    """
    table, ax = distribution(record, grid, alpha), axes_or_new(ax)
    for k, label in enumerate(record.design.labels):
        own, (_, colour, line, name) = table.loc[label], series(record, k, label)
        ax.plot(own.index, own["estimate"], line, color=colour, label=name)
        ax.fill_between(own.index, own["band low"], own["band high"], color=colour, alpha=0.2, linewidth=0)
    upright = f"share of outcomes up to this value, {100 * (1 - alpha):.4g}% bands"
    return finish(ax, record.design.endog_name, upright, columns=record.design.n_arms)


def plot_influence(
    record: FitRecord, ax: Any = None, top: int = 5, method: str | None = None, arm: Any = None, clusters: bool = False
) -> Any:
    """Influence of each row (or cluster) on the effect, plotted against its share of its group's weight.

    Parameters
    ----------
    ax : matplotlib Axes, optional
        Axes to draw on; by default a new figure.
    top : int, default 5
        Number of rows to label, the most influential first.
    method, clusters
        As in `influence`.
    arm : level or label, optional
        The treatment group whose effect to plot; by default one panel per group except the reference.

    Returns
    -------
    matplotlib Axes, or an array of Axes for several panels
        The plot.
    """
    record.check_means("plot_influence()")
    whole_number("top", top, 1, 5)
    tables = sensitivity.influence_tables(record, sensitivity.influence_method(record, method, clusters), clusters)

    def draw(position: int, ax: Any) -> Any:
        return draw_changes(record, tables[position - 1], ax, top, position, clusters)

    return panel_by_arm(record, draw, ax, arm)


def draw_changes(record: FitRecord, table: pd.DataFrame, ax: Any, top: int, position: int, clusters: bool) -> Any:
    """Draw the influences of the rows, or of the clusters, on the effect of a treatment group."""
    for k, label in enumerate(dict.fromkeys([*record.design.labels, *table["arm"]])):
        rows, (marker, colour, _, name) = table[table["arm"] == label], series(record, k, label)
        if len(rows):
            ax.plot(100 * rows["weight share"], rows["change"], marker, color=colour, label=name, **DOTS)
    ax.axhline(0, **LINE)
    named = table.iloc[table["change"].abs().fillna(-1).to_numpy().argsort()[::-1][:top]].sort_values("change")
    low, high = ax.get_ylim()
    steps = LABEL_GAP * (high - low) * np.arange(len(named))  # labels are moved up until they do not touch
    heights = np.maximum.accumulate(named["change"].to_numpy() - steps) + steps
    for (name, row), height in zip(named.iterrows(), heights, strict=True):
        right = row["weight share"] > table["weight share"].max() / 2
        point, moved = (100 * row["weight share"], row["change"]), height > row["change"]
        line = {"arrowstyle": "-", "color": GREY, "linewidth": 0.6} if moved else None
        look: dict[str, Any] = {"fontsize": "small", "va": "center", "ha": "right" if right else "left"}
        ax.annotate(f"  {verbatim(name)}  ", point, (point[0], height), arrowprops=line, **look)
    ax.set_ylim(low, max(high, heights.max(initial=high) + LABEL_GAP * (high - low)))
    left_out = "cluster" if clusters else record.design.unit_name
    across = f"{'largest ' * clusters}share of the total weight of {'a' if clusters else 'its'} group (%)"
    upright = f"change in {record.effect_names[position - 1]} if the {left_out} is left out"
    return finish(ax, across, upright, columns=record.design.n_arms)


def plot_anchor_path(record: FitRecord, ax: Any = None, alpha: float = 0.05) -> Any:
    """Effect for each candidate amount of shrinkage toward IPWRA (JRE).

    Parameters
    ----------
    ax : matplotlib Axes, optional
        Axes to draw on; by default a new figure.
    alpha : float, default 0.05
        Significance level of the intervals.

    Returns
    -------
    matplotlib Axes
        The plot of `anchor_path`. It has intervals if there are two treatment groups and the effect is a difference.
    """
    check_alpha(alpha)
    path, joint, ax = risk.anchor_path(record), risk.joint_of(record), axes_or_new(ax)
    if record.options.effect == "difference" and record.design.n_arms == 2:
        half = critical_value(alpha, record.df) * path["std err"]
        look = {"color": BLUE, "alpha": 0.25, "linewidth": 0, "label": f"{100 * (1 - alpha):.4g}% interval"}
        ax.fill_between(path.index, path["effect"] - half, path["effect"] + half, **look)
    ax.plot(path.index, path["effect"], "o-", color=BLUE, markersize=4, label="JRE")
    ax.axhline(joint.start.params[0], color=GREY, linestyle=":", label="IPWRA")
    ax.set_xscale("log")
    chosen, own, empty = float(joint.anchor or 0.0), joint.fit.estimate.params[0], {"markerfacecolor": "none"}
    ax.plot([chosen], [own], "o", color=ink(ax), markersize=9, label=f"chosen: {chosen:g}", **empty)
    rungs = path.index[path["share"].notna()]
    ax.set_xticks(rungs, [f"{anchor:g}" for anchor in rungs])
    ax.minorticks_off()  # the largest amount of shrinkage, on the right, is nearest to IPWRA
    return finish(ax, "shrinkage toward IPWRA (logarithmic)", effect_label(record), columns=2)


def plot_diagnostics(record: FitRecord, figure: Any = None) -> Any:
    """Draw the main diagnostics on one page.

    Parameters
    ----------
    figure : matplotlib Figure, optional
        Figure to draw on; by default a new A4 page in landscape format.

    Returns
    -------
    matplotlib Figure
        Overlap, balance, calibration, influence and, after a bootstrap, the distribution of the resamples. For JRE,
        also the effect by amount of shrinkage.
    """
    record.check_means("plot_diagnostics()")
    scores.overlap(record)  # an estimator without scores is refused before anything is drawn
    joint, clusters = record.joint, record.design.cluster is not None
    plots: dict[str, Any] = {"Overlap": plot_overlap}
    plots |= {"Balance": plot_balance} if balance.balance(record)["diff before"].notna().any() else {}
    plots |= {"Calibration": plot_calibration} if record.uses_score else {}
    if not record.spec.matched:
        method = sensitivity.influence_method(record, None, clusters, quick=True)
        plots["Influence"] = partial(plot_influence, method=method, clusters=clusters)
    if joint is not None and joint.path is not None:
        plots["Shrinkage"] = plot_anchor_path
    if record.cov_type == "bootstrap":
        plots["Bootstrap"] = plot_bootstrap
    if figure is None:
        figure = pyplot().figure(figsize=(11.7, 8.3), layout="constrained")
    check_drawable(figure, "figure", "Figure", "figure=plt.figure()", "res.plot()")
    panels = list(figure.subplots(2, -(-len(plots) // 2)).flat)
    for (title, plot), ax in zip(plots.items(), panels, strict=False):
        legend = plot(record, ax).get_legend()
        above = 0 if legend is None else legend.get_window_extent().height * 72 / figure.dpi
        ax.set_title(title, loc="left", fontweight="bold", pad=6 + above)
    for empty in panels[len(plots) :]:
        empty.remove()
    figure.suptitle(broken(one_line(record), 72 * figure.get_figwidth()))
    return figure
