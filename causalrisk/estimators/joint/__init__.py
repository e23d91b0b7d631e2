"""The joint robust estimator; all of it in plain NumPy, and in the order of its page, is in its tests.

The objective has three fast forms: of the sample with linear outcome models (`equations`: QR of equations of the rows),
of resamples with linear models (`minima.LinearObjectives`: products of columns), and of nonlinear models, both
(`objective.JointObjective`). Where each of its terms is computed:

    term                       sample, linear             resamples, linear                nonlinear
    biases B_a, u_b            equations._first_sums      minima._risk_sums                JointObjective.first_pass
    V, but for own spread      equations._variance_rows   LinearObjectives._variance_gram  EffectVariance.gram
    own spread of a weight     equations._first_sums      LinearSums.of                    variance.own_terms
    alpha times the losses     equations._first_sums      LinearSums.of                    JointObjective.terms
    the minimum, by            optimize.minimize_squares  linalg.solve_stacked             optimize.minimize_stack

The formula of V is in `variance`, penalties of the terms in `objective`, the share c in `start`. `anchor` chooses
alpha, by steps of `leave_one_out`; `influence` has the influence function, `refit` the resamples.
"""
