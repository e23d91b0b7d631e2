"""Numerics that do not use the treatment: linear algebra, blocks of rows, scipy's optimisers, families, resampling."""
