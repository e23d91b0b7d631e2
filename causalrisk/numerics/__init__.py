"""Numerics that do not involve the treatment: linear algebra, chunks of rows, scipy's optimisers, families, resampling."""
