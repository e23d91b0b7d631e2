"""The Joint Robust Estimator (JRE) as functions on arrays.

JRE considers the outcome models whose effect has no bias at the fitted propensity score. It uses the models with the
least variance of the effect, shrunk toward IPWRA. Cross-validation chooses the amount of shrinkage. `objective` defines
the objective and `minimum` minimises it. `start` computes what JRE needs from the IPWRA fit. `shrinkage` has the
cross-validation. `fit` has the influence function.
"""
