"""Formulas: other notations recognised, names resolved, and the evaluation by patsy."""
