"""Columns of any library, storage or notation, brought to plain NumPy and pandas ones."""
