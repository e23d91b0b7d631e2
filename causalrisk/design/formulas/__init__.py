"""Formulas: other notations recognised, names resolved, safety, and the evaluation by patsy."""
