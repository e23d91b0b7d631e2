"""Write doubleml_benchmark.json: sensitivity benchmark and bounds of DoubleML, with cell means as predictions.

Run with DoubleML 0.11.4 and scikit-learn 1.9.1:  python make_doubleml_benchmark.py doubleml_benchmark.json
"""

import json
import sys

import numpy as np
import pandas as pd

ROWS = 500


def rows():
    """Simulated rows with two covariates of few values, so that models with all interactions have cell means."""
    rng = np.random.default_rng(7)
    x1, x2 = rng.integers(0, 3, ROWS), rng.integers(0, 2, ROWS)
    d = (rng.random(ROWS) < 1 / (1 + np.exp(0.6 - 0.3 * x1 - 0.5 * x2))).astype(int)
    y = 1 + x1 + 1.2 * x2 + d * (1 + 0.5 * x2) + rng.normal(size=ROWS)
    return pd.DataFrame({"y": y, "d": d, "x1": x1, "x2": x2}).round(6)


def cell_means(data, cells):
    """Predictions of DoubleML's IRM: means by cells of the covariates."""
    by = data[cells].astype(str).agg("-".join, axis=1)
    found = {"ml_m": data["d"].groupby(by).transform("mean")}
    for a in (0, 1):
        found[f"ml_g{a}"] = by.map(data["y"][data["d"] == a].groupby(by[data["d"] == a]).mean())
    return {"d": {name: values.to_numpy()[:, None] for name, values in found.items()}}


def fitted(data, score):
    import doubleml
    from sklearn.linear_model import LinearRegression, LogisticRegression

    made = doubleml.DoubleMLData(data, "y", "d", ["x1", "x2"])
    model = doubleml.DoubleMLIRM(made, LinearRegression(), LogisticRegression(), n_folds=2, score=score)
    model.fit(external_predictions=cell_means(data, ["x1", "x2"]))
    found = {"effect": float(model.coef[0])}
    short = {"external_predictions": cell_means(data, ["x1"])}
    benchmark = model.sensitivity_benchmark(["x2"], fit_args=short)
    found |= {name: float(values.iloc[0]) for name, values in benchmark.items()}
    model.sensitivity_analysis(cf_y=found["cf_y"], cf_d=found["cf_d"], rho=1.0)
    for name in ("theta", "se"):
        found[name] = {side: float(model.sensitivity_params[name][side][0]) for side in ("lower", "upper")}
    return found


def main(path):
    import doubleml

    data = rows()
    found = {"versions": {"doubleml": doubleml.__version__, "numpy": np.__version__}, "rows": data.to_dict("list")}
    found |= {score: fitted(data, score) for score in ("ATE", "ATTE")}
    with open(path, "w") as file:
        json.dump(found, file)


if __name__ == "__main__":
    main(sys.argv[1])
