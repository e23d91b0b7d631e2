"""Columns as people have them, whatever library, storage or notation: to plain NumPy and pandas ones."""
