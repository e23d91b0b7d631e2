"""Estimators as stacked estimating equations, and the engine that solves them.

`equations.py` has the equations of each estimator: `importance` for the weights of a target, `outcome` for the outcome
models, `correction` and `mean` for the means. `engine.py` solves the equations (`solve`) and computes their influence
functions (`influence`). `fits.py` applies both to a sample, once or for all resamples. `sample.py` has the rows and
draws resamples.
"""
