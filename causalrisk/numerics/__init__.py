"""Numerics without a treatment: linear algebra, chunks of rows, scipy's optimisers, families, resampling."""
