"""Numerics without a treatment: linear algebra, Newton, scipy's optimisers, families, random draws."""
