"""Plots: functions that begin with `plot_` take a fitted record, the others what they draw."""
