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
IN_SAMPLE = {"learner": LEARNERS["linear"][0], "n_folds": 1}
TARGETS = {"ATE": "all", "ATTE": "treated"}
KINDS = ("learners", "score", "outcome", "normalize_ipw", "weights", "clip", "n_repeats")
CROSS_FITTED = [
    pytest.param(case, id="-".join(str(case[key]) for key in KINDS if key in case))
    for case in IRM["cases"]
    if "n_folds" not in case
]
REPEATED = [case for case in CROSS_FITTED if "n_repeats" in case.values[0]]
ONCE = [case for case in CROSS_FITTED if case not in REPEATED]
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
        (outcome, score), low = LEARNERS[case["learners"]], case.get("clip", CLIP)
        options |= {"learner": outcome, "propensity_score": score, "clip": (low, 1 - low)}
    if "weights" in case:
        options |= {"weights": case["weights"], "weight_type": "probability"}
    data = DATA.assign(m=given_scores(case)) if given else DATA
    return AIPW.from_formula(f"{case.get('outcome', 'y')} ~ {' + '.join(COVARIATES)}", data, treat="d", **options)


@pytest.mark.parametrize("case", ONCE)
def test_interactive_model(case):
    """Estimate, standard error, and what each row adds to them, psi."""
    res = model(case).fit()
    assert res.effect == pytest.approx(case["theta"], rel=1e-10)
    assert res.effect_se == pytest.approx(case["se"], rel=1e-10)
    order = np.argsort(DATA["d"], kind="stable")  # rows of a fit stand by arm, without their weights
    weight = DATA[case["weights"]].to_numpy() if "weights" in case else np.ones(len(DATA))
    influence = weight[order] * res._record.estimate.influence[:, 0]
    np.testing.assert_allclose(influence, np.array(case["psi"])[order], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("case", [case for case in ONCE if case.values[0]["learners"] == GIVEN])
def test_interactive_model_with_given_predictions(case):
    found = IRM["predictions"][GIVEN]
    data = DATA.assign(m=given_scores(case), g0=found["g0"], g1=found["g1"])
    options = {"propensity_score": "m", "outcome_predictions": ["g0", "g1"], "target": TARGETS[case["score"]]}
    if "weights" in case:
        options |= {"weights": case["weights"], "weight_type": "probability"}
    res = AIPW.from_formula("y ~ 1", data, treat="d", **options).fit()
    assert res.effect == pytest.approx(case["theta"], rel=1e-10)
    assert res.effect_se == pytest.approx(case["se"], rel=1e-10)


@pytest.mark.parametrize("case", REPEATED)
def test_repeats(case):
    """The median of DoubleML's estimates with these folds, and the error of Chernozhukov et al. (2018), definition 3.3.

    DoubleML 0.11 has another rule for the error, the median of the upper ends of the intervals.
    """
    res = model(case).fit()
    assert res.effect == pytest.approx(case["theta"], rel=1e-10)
    variances = np.square(case["ses"]) + (np.array(case["thetas"]) - case["theta"]) ** 2
    assert res.effect_se == pytest.approx(np.sqrt(np.median(variances)), rel=1e-10)


@pytest.mark.parametrize("name", [name for name in LEARNERS if name in IRM["predictions"]])
def test_predictions(name):
    """The predictions of every row in both arms are those of fits to the other folds."""
    case = next(case for case in IRM["cases"] if case["learners"] == name)
    found = model(case | {"n_repeats": 1}).fit().potential_outcomes
    for arm, key in enumerate(("g0", "g1")):
        np.testing.assert_allclose(found.iloc[:, arm], IRM["predictions"][name][key], rtol=1e-10, atol=1e-12)


def test_without_cross_fitting():
    """Fitted to the rows that it predicts, the linear model is that of AIPW, here and in DoubleML."""
    formula, data = f"y ~ {' + '.join(COVARIATES)}", DATA.assign(m=IRM["predictions"][GIVEN]["m"])
    known = AIPW.from_formula(formula, data, treat="d", propensity_score="m").fit()
    assert known.effect == pytest.approx(ONE_FOLD["theta"], rel=1e-10)
    fits = [AIPW.from_formula(formula, data, treat="d", **options).fit() for options in ({}, IN_SAMPLE)]
    assert fits[1].effect == pytest.approx(fits[0].effect, rel=1e-10)
