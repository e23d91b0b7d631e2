"""Formulas: other notations told apart, names resolved, safety, and the evaluation by patsy."""
