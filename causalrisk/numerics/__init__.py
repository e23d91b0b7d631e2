"""Numerics: linear algebra, blocks of rows, scipy's optimisers, families, resampling."""
