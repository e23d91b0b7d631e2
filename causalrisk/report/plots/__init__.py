"""Plots: functions that begin with `plot_` take a fitted record, the others what they draw; and six on one page."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from causalrisk.diagnostics.balance import balance
from causalrisk.diagnostics.influence import quick_method
from causalrisk.estimators.record import FitRecord
from causalrisk.report.plots.axes import axes_or_new, broken, new_page, verbatim
from causalrisk.report.plots.fits import (
    cancellation_of,
    draw_changes,
    draw_event_study,
    draw_forest,
    draw_penalties,
    draw_permutations,
    draw_risk,
    plot_anchor_path,
    plot_balance,
    plot_bootstrap,
    plot_calibration,
    plot_cancellation,
    plot_distribution,
    plot_effects_by,
    plot_influence,
    plot_learner,
    plot_overlap,
    plot_penalty_path,
    plot_risk,
)
from causalrisk.report.summary import one_line

__all__ = [
    "axes_or_new", "cancellation_of", "draw_changes", "draw_event_study", "draw_forest", "draw_penalties",
    "draw_permutations", "draw_risk", "plot_anchor_path", "plot_balance", "plot_bootstrap", "plot_calibration",
    "plot_cancellation", "plot_diagnostics", "plot_distribution", "plot_effects_by", "plot_influence", "plot_learner",
    "plot_overlap", "plot_penalty_path", "plot_risk", "verbatim",
]  # fmt: skip

TITLE_PAD, LINE, PANEL_LINE = 6, 110, 27  # points above the legends; characters of the heading, and of a label


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
    figure = new_page() if figure is None else figure
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
    figure.suptitle(broken(verbatim(one_line(record)), LINE))
    return figure
