"""Estimators as stacked estimating equations, and the engine that solves them.

`equations.py` has the equations of each estimator. `engine.py` solves them and computes influence functions. `fits.py`
applies both to a sample, once or for all resamples. `sample.py` has the rows and draws resamples.
"""
