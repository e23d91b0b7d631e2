"""Make doubleml_irm.json: ``python -m tests.reference.make_doubleml``, with ``pip install doubleml==0.11.4``.

Interactive regression models (IRM) of DoubleML with given folds, on 300 simulated rows that the file holds. Where the
predictions are given, both sides have the same numbers; elsewhere both fit the same learners to the same rows.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

N, N_FOLDS, N_REPEATS, CLIP = 300, 5, 5, 0.01
COVARIATES = ["x1", "x2", "x3", "x4"]
LOGIT = LogisticRegression(C=1000, solver="newton-cholesky", tol=1e-12)
GROWN = {"max_depth": 3, "min_samples_leaf": 15, "random_state": 0}
LEARNERS = {  # of the outcome and of the treatment
    "linear": (LinearRegression(), LOGIT),
    "tree": (DecisionTreeRegressor(**GROWN), LOGIT),
    "two trees": (DecisionTreeRegressor(**GROWN), DecisionTreeClassifier(**GROWN)),
    "logit of ill": (LOGIT, LOGIT),
    "tree of ill": (DecisionTreeClassifier(**GROWN), DecisionTreeClassifier(**GROWN)),
}
GIVEN = "given"  # predictions that the file holds: those of "linear", rounded
CASES = [
    *({"learners": name, "score": score} for name in (GIVEN, "linear", "two trees") for score in ("ATE", "ATTE")),
    *({"learners": GIVEN, "score": score, "normalize_ipw": True} for score in ("ATE", "ATTE")),
    {"learners": GIVEN, "score": "ATE", "weights": "w"},
    *({"learners": "linear", "score": score, "clip": 0.25} for score in ("ATE", "ATTE")),
    {"learners": "logit of ill", "score": "ATE", "outcome": "ill"},
    {"learners": "tree of ill", "score": "ATE", "outcome": "ill"},
    {"learners": "tree of ill", "score": "ATTE", "outcome": "ill"},
    {"learners": "linear", "score": "ATE", "n_folds": 1},  # with the scores that the file holds
    *({"learners": "tree", "score": score, "n_repeats": N_REPEATS} for score in ("ATE", "ATTE")),
]


def simulated():
    """Draw the rows; RandomState, because numpy never changes its stream. The weights w have mean 1."""
    draw = np.random.RandomState(20)
    x = np.round(draw.normal(size=(N, len(COVARIATES))), 3)
    x1, x2, x3, _ = x.T
    d = draw.binomial(1, 1 / (1 + np.exp(0.4 - 0.5 * x1 + 0.4 * x2)))
    y = np.round(1 + x1 + 0.5 * x2**2 + np.maximum(x3, 0) + d * (1 + 0.5 * x1) + draw.normal(size=N), 3)
    ill = draw.binomial(1, 1 / (1 + np.exp(0.5 - x1 - 0.7 * d)))
    columns = pd.DataFrame(x, columns=COVARIATES).assign(d=d, y=y, ill=ill, w=np.arange(N) % 3 / 2 + 0.5)
    assert not columns[COVARIATES].duplicated().any()
    return columns


def fold_of_rows(d, repeat):
    """Fold of each row: dealt out within each arm, controls first, in an order of ``default_rng(repeat)``."""
    fold, rng = np.empty(len(d), dtype=int), np.random.default_rng(repeat)
    for arm in (0, 1):
        rows = np.flatnonzero(d == arm)
        fold[rng.permutation(rows)] = np.arange(len(rows)) % N_FOLDS
    return fold


def digits(values):
    """Values to twelve digits, which is more than the tests ask for."""
    return [float(f"{value:.12g}") for value in values]


def fitted(data, folds, case, given=None):
    """Fit DoubleML's model of a case; given are predictions in the place of those of its learners."""
    import doubleml as dml

    outcome, learner = case.get("outcome", "y"), LEARNERS.get(case["learners"], LEARNERS["linear"])
    weights = data[case["weights"]].to_numpy() if "weights" in case else None
    model = dml.DoubleMLIRM(
        dml.DoubleMLData(data, outcome, "d", COVARIATES),
        *learner,
        n_rep=case.get("n_repeats", 1),
        score=case["score"],
        weights=weights,
        normalize_ipw=case.get("normalize_ipw", False),
        ps_processor_config=dml.utils.PSProcessorConfig(clipping_threshold=case.get("clip", CLIP)),
        draw_sample_splitting=False,
    )
    rows = np.arange(len(data))
    split = [[(rows[fold != k], rows[fold == k]) for k in range(N_FOLDS)] for fold in folds]
    model.set_sample_splitting((rows, rows) if case.get("n_folds") == 1 else split[: model.n_rep])
    external = given and {"d": {f"ml_{name}": np.array(values)[:, None] for name, values in given.items()}}
    return model.fit(external_predictions=external)


def predictions(model):
    """Cross-fitted means of both arms and scores, clipped."""
    return {name: digits(model.predictions[f"ml_{name}"][:, 0, 0]) for name in ("g0", "g1", "m")}


def results(model):
    """Numbers of a fit: estimate and error over all repeats, and of each; psi is the score of the first."""
    return {
        "theta": float(model.coef[0]),
        "se": float(model.se[0]),
        "thetas": model.all_coef[0].tolist(),
        "ses": model.all_se[0].tolist(),
        "psi": digits(model.psi[:, 0, 0]),
    }


def main():
    """Write the file."""
    data = simulated()
    folds = [fold_of_rows(data["d"].to_numpy(), repeat) for repeat in range(N_REPEATS)]
    first = fitted(data, folds, {"learners": "linear", "score": "ATE"})
    given = {name: np.round(values, 4).tolist() for name, values in predictions(first).items()}
    cases, found = [], {}
    for case in CASES:
        alone = {"m": given["m"]} if "n_folds" in case else None
        model = fitted(data, folds, case, given if case["learners"] == GIVEN else alone)
        cases.append(case | results(model))
        found.setdefault(case["learners"], given if case["learners"] == GIVEN else predictions(model))
    written = {
        "source": {name: version(name) for name in ("DoubleML", "scikit-learn", "numpy")},
        "data": data.to_dict("list"),
        "folds": [fold.tolist() for fold in folds],
        "predictions": found,
        "cases": cases,
    }
    Path(__file__).with_name("doubleml_irm.json").write_text(json.dumps(written) + "\n")


if __name__ == "__main__":
    main()
