"""AIPW whose outcome model is a learner's predictions is the interactive regression model of DoubleML.

The numbers of DoubleML are in `tests/reference/doubleml_irm.json`, which `tests/reference/make_doubleml.py` made.
"""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, RegressorMixin

from causalrisk import AIPW
from tests.conftest import REFERENCE
from tests.reference.make_doubleml import CLIP, COVARIATES, GIVEN, LEARNERS

IRM = json.loads((REFERENCE / "doubleml_irm.json").read_text())
DATA = pd.DataFrame(IRM["data"])
TARGETS = {"ATE": "all", "ATTE": "treated"}
KINDS = ("learners", "score", "outcome", "normalize_ipw", "weights", "n_repeats")
CROSS_FITTED = [
    pytest.param(case, id="-".join(str(case[key]) for key in KINDS if key in case))
    for case in IRM["cases"]
    if "n_folds" not in case
]
(ONE_FOLD,) = (case for case in IRM["cases"] if "n_folds" in case)


class Stored(RegressorMixin, BaseEstimator):
    """Predictions that are known by the covariates of a row, whatever it is fitted to."""

    def __init__(self, known):
        self.known = known

    def fit(self, X, y, sample_weight=None):
        return self

    def predict(self, X):
        return np.array([self.known[tuple(row)] for row in np.asarray(X).tolist()])


def stored(values):
    return Stored(dict(zip(map(tuple, DATA[COVARIATES].to_numpy().tolist()), values, strict=True)))


def given_scores(case):
    """Scores that the file holds; those whose inverses are normalised have mean d / m and (1 - d) / (1 - m) of 1."""
    m, d = np.array(IRM["predictions"][GIVEN]["m"]), DATA["d"]
    if "normalize_ipw" not in case:
        return m
    return np.where(d == 1, m * (d / m).mean(), 1 - (1 - m) * ((1 - d) / (1 - m)).mean())


def model(case):
    """The model of a case: with its learners, or with stored predictions and scores."""
    given = case["learners"] == GIVEN
    options = {"learner_use": "replace", "target": TARGETS[case["score"]], "n_repeats": case.get("n_repeats", 1)}
    if given:
        found = IRM["predictions"][GIVEN]
        options |= {"learner": {0: stored(found["g0"]), 1: stored(found["g1"])}, "propensity_score": "m"}
    else:
        outcome, score = LEARNERS[case["learners"]]
        options |= {"learner": outcome, "propensity_score": score, "clip": (CLIP, 1 - CLIP)}
    if "weights" in case:
        options |= {"weights": case["weights"], "weight_type": "probability"}
    data = DATA.assign(m=given_scores(case)) if given else DATA
    return AIPW.from_formula(f"{case.get('outcome', 'y')} ~ {' + '.join(COVARIATES)}", data, treat="d", **options)


@pytest.mark.parametrize("case", CROSS_FITTED)
def test_interactive_model(case):
    """Estimate and standard error, over the repeats by DoubleML's median rule."""
    res = model(case).fit()
    assert res.effect == pytest.approx(case["theta"], rel=1e-10)
    assert res.effect_se == pytest.approx(case["se"], rel=1e-10)


@pytest.mark.parametrize("case", [case for case in CROSS_FITTED if "n_repeats" not in case.values[0]])
def test_score_of_rows(case):
    """The influence of every row is DoubleML's psi."""
    res = model(case).fit()
    influence = res._record.estimate.influence[:, 0]
    order = np.argsort(DATA["d"], kind="stable")  # rows of a fit stand by arm
    np.testing.assert_allclose(influence, np.array(case["psi"])[order], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", LEARNERS)
def test_predictions(name):
    """The predictions of every row in both arms are those of fits to the other folds."""
    case = next(case for case in IRM["cases"] if case["learners"] == name)
    found = model(case).fit().outcome_predictions
    for arm, key in enumerate(("g0", "g1")):
        np.testing.assert_allclose(found.iloc[:, arm], IRM["predictions"][name][key], rtol=1e-10, atol=1e-12)


def test_without_cross_fitting():
    """Fitted to the rows that it predicts, the linear model is that of AIPW."""
    res = AIPW.from_formula(f"y ~ {' + '.join(COVARIATES)}", DATA, treat="d").fit()
    assert res.effect == pytest.approx(ONE_FOLD["theta"], rel=1e-10)
