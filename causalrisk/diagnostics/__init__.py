"""Diagnostics of a fit: functions of a fitted record that return tables."""
