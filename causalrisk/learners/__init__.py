"""Learners of an outcome's mean: cross-fitting of any, and the one that needs nothing installed."""
