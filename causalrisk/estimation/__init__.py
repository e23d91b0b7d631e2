"""Estimators as stacked estimating equations, and the engine that solves them.

`equations.py` has the equations of each estimator: `importance` the weights of a target, `outcome` the outcome models,
`correction` and `mean` the means. `engine.py` solves them (`solve`) and gives their influence functions (`influence`).
`fits.py` applies both to a sample, once or for all resamples. `sample.py` has the rows and draws resamples.
"""
