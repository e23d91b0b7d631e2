"""Write doubleml_iivm.json: the local average treatment effect of DoubleML at given predictions.

Run with DoubleML 0.11.4, scikit-learn 1.9.1 and numpy 2.4.6:  python make_doubleml_iivm.py doubleml_iivm.json
"""

import json
import sys

import numpy as np
import pandas as pd

ROWS = 400


def logistic(values):
    return 1 / (1 + np.exp(-values))


def rows():
    """Simulated rows, with predictions that are not those of the truth."""
    rng = np.random.default_rng(51)
    x, kind = rng.normal(size=ROWS), rng.random(ROWS)
    z = (rng.random(ROWS) < logistic(0.5 * x)).astype(int)
    d = np.where(kind < 0.2, 1, np.where(kind < 0.7, z, 0))
    y = 1 + x + 1.5 * d + (kind < 0.2) + rng.normal(size=ROWS)
    predictions = {"g0": 1.4 + 0.9 * x, "g1": 2.1 + 1.1 * x, "r0": logistic(0.1 * x - 1), "r1": logistic(0.8 + 0.1 * x)}
    data = {"y": y, "d": d, "z": z, "x": x, "m": logistic(0.4 * x), **predictions}
    return pd.DataFrame(data).round(6)


def main(path):
    import doubleml
    import sklearn
    from sklearn.linear_model import LinearRegression, LogisticRegression

    data = rows()
    learners = {"ml_g": LinearRegression(), "ml_m": LogisticRegression(), "ml_r": LogisticRegression()}
    model = doubleml.DoubleMLIIVM(doubleml.DoubleMLData(data, "y", "d", ["x"], "z"), **learners, n_folds=2)
    names = {"ml_g0": "g0", "ml_g1": "g1", "ml_m": "m", "ml_r0": "r0", "ml_r1": "r1"}
    model.fit(external_predictions={"d": {name: data[[column]].to_numpy() for name, column in names.items()}})
    found = {
        "versions": {"doubleml": doubleml.__version__, "sklearn": sklearn.__version__, "numpy": np.__version__},
        "effect": float(model.coef[0]),
        "std_error": float(model.se[0]),
        "rows": data.to_dict("list"),
    }
    with open(path, "w") as file:
        json.dump(found, file)


if __name__ == "__main__":
    main(sys.argv[1])
