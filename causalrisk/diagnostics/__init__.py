"""Diagnostics of a fit: functions of a `FitRecord` that return tables."""
