"""Estimators as stacked estimating equations, and the engine that solves them."""
