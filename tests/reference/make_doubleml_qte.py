"""Write doubleml_qte.json: quantile treatment effects of DoubleML, with logits for both models.

Run with DoubleML 0.11.4, scikit-learn 1.9.1 and numpy 2.4.6:  python make_doubleml_qte.py doubleml_qte.json
"""

import json
import sys

import numpy as np
import pandas as pd
import sklearn
from sklearn.linear_model import LogisticRegression

LEVELS = [0.25, 0.5, 0.75]
ROWS, REPEATS = 1000, 3


def rows():
    """Simulated rows: effects that differ between the quantiles, a score that depends on both covariates."""
    rng = np.random.default_rng(20)
    x1, x2 = rng.normal(size=(2, ROWS))
    d = (rng.uniform(size=ROWS) < 1 / (1 + np.exp(-0.5 * x1 + 0.3 * x2))).astype(int)
    y = 1 + x1 + 0.5 * x2 + d * (1 + 0.5 * x1) + rng.normal(size=ROWS)
    return pd.DataFrame({"y": y, "d": d, "x1": x1, "x2": x2}).round(6)


def main(path):
    import doubleml

    np.random.seed(1)  # noqa: NPY002, DoubleML draws its folds from it
    data = rows()
    logit = LogisticRegression(C=1000, solver="newton-cholesky", tol=1e-10)
    model = doubleml.DoubleMLQTE(
        doubleml.DoubleMLData(data, "y", "d", ["x1", "x2"]),
        ml_g=logit,
        ml_m=logit,
        quantiles=LEVELS,
        n_folds=5,
        n_rep=REPEATS,
        normalize_ipw=True,
    )
    model.fit()
    found = {
        "versions": {"doubleml": doubleml.__version__, "sklearn": sklearn.__version__, "numpy": np.__version__},
        "levels": LEVELS,
        "effects": model.coef.tolist(),
        "std_errors": model.se.tolist(),
        "repeats": model.all_coef.tolist(),
        "rows": data.to_dict("list"),
    }
    with open(path, "w") as file:
        json.dump(found, file)


if __name__ == "__main__":
    main(sys.argv[1])
