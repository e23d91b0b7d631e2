"""Estimators as stacked estimating equations, and the engine that solves them.

`equations.py` has the equations of each estimator. `engine.py` solves them and computes influence functions. `fits.py`
fits a sample and its resamples. `sample.py` has the rows and draws resamples.
"""
