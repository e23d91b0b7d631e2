"""Numerics that do not use the treatment: linear algebra, parts of rows, scipy's optimisers, families, resampling."""
