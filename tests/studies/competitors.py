"""DoubleML's interactive regression model as an estimator of a study."""

from __future__ import annotations

import numpy as np


def doubleml_irm(trial):
    """Estimate by linear and logistic regressions, cross-fitted."""
    from sklearn.linear_model import LinearRegression, LogisticRegression

    return cross_fitted(trial, LinearRegression(), LogisticRegression(C=np.inf, max_iter=1000))


def cross_fitted(trial, outcome, score):
    """Estimate with learners of scikit-learn's kind, which see the columns of both formulas, in five folds."""
    import doubleml as dml
    from sklearn.model_selection import StratifiedKFold

    design = trial.model().design
    columns = (x[:, np.ptp(x, axis=0) > 0] for x in (design.X, design.Z))
    shared = np.unique(np.hstack([*columns]), axis=1)
    folds = StratifiedKFold(5, shuffle=True, random_state=int(trial.seed.generate_state(1)[0]))
    data = dml.DoubleMLData.from_arrays(shared, design.y, design.arm.astype(float))
    model = dml.DoubleMLIRM(data, outcome, score, draw_sample_splitting=False)
    fit = model.set_sample_splitting([list(folds.split(shared, design.arm))]).fit()
    return float(fit.coef[0]), float(fit.se[0])
