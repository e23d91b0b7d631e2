"""The Joint Robust Estimator (JRE) as functions on arrays.

Among fits without net bias at the fitted score, JRE takes the one whose effect has the least variance, shrunk toward
IPWRA as far as cross-validation says. `objective` defines the objective and `minimum` minimises it. `start` computes
what JRE needs from the IPWRA fit. `shrinkage` chooses the amount of shrinkage. `fit` has the influence function.
"""
