"""The Joint Robust Estimator (JRE) as functions on arrays.

Among fits without net bias at the fitted score, JRE takes the one whose effect has the least variance, shrunk toward
IPWRA as far as cross-validation says. The terms are in `objective`, the minimum in `minimum`, what the IPWRA start
decides in `start`, the amount of shrinkage in `shrinkage`, standard errors from estimating equations in `fit`.
"""
