"""Plots: functions that begin with `plot_` take a fitted record, the others what they draw."""

from causalrisk.report.plots.axes import axes_or_new, verbatim
from causalrisk.report.plots.covariates import plot_balance, plot_calibration, plot_overlap
from causalrisk.report.plots.diagnostics import plot_diagnostics
from causalrisk.report.plots.effects import draw_changes, draw_forest, plot_bootstrap, plot_influence
from causalrisk.report.plots.joint import (
    cancellation_of,
    draw_penalties,
    draw_risk,
    plot_anchor_path,
    plot_cancellation,
    plot_penalty_path,
    plot_risk,
)

__all__ = [
    "axes_or_new",
    "cancellation_of",
    "draw_changes",
    "draw_forest",
    "draw_penalties",
    "draw_risk",
    "plot_anchor_path",
    "plot_balance",
    "plot_bootstrap",
    "plot_calibration",
    "plot_cancellation",
    "plot_diagnostics",
    "plot_influence",
    "plot_overlap",
    "plot_penalty_path",
    "plot_risk",
    "verbatim",
]
