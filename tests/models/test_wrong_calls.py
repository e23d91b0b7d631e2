"""Plausible wrong calls of results: each says what was expected."""

from __future__ import annotations

import pytest

import causalrisk as cr
from tests.conftest import simulate

DATA = simulate(120)


@pytest.fixture(scope="module")
def fits():
    fit = {"formula": "y ~ x1 + x2", "data": DATA, "treat": "d"}
    return {
        "res": cr.IPWRA.from_formula(**fit).fit(),
        "other": cr.AIPW.from_formula(**fit).fit(),
        "matched": cr.Matching.from_formula(**fit).fit(),
    }


CALLS = {
    "Matching does not predict new rows": lambda f: f["matched"].predict(DATA),
    r"get_prediction\(\) is not available for Matching": lambda f: f["matched"].get_prediction(DATA),
    "outcome_params is not available for Matching": lambda f: f["matched"].outcome_params,
    "estimator IPWRA and estimator AIPW": lambda f: cr.pool([f["res"], f["other"]]),
}


@pytest.mark.parametrize("words", CALLS)
def test_a_wrong_call_says_what_was_expected(fits, words):
    with pytest.raises(cr.CausalRiskError, match=words):
        CALLS[words](fits)


def test_parameters_are_chosen_by_name_and_position(fits):
    assert list(fits["res"].conf_int(cols=[-1, "ATE"]).index) == ["POM[1]", "ATE"]


def test_balance_test_says_which_condition_failed(fits):
    three = DATA.assign(d=[k % 3 for k in range(120)], city=[k % 60 for k in range(120)])
    fit = {"formula": "y ~ x1", "data": three, "treat": "d"}
    with pytest.raises(cr.UnavailableError, match="not available for several treatments"):
        cr.IPW.from_formula(**fit, reference=0).fit().balance_test()
    with pytest.raises(cr.UnavailableError, match="not available for clusters"):
        cr.IPW.from_formula(**fit | {"data": DATA.assign(city=three["city"])}, cluster="city").fit().balance_test()
    with pytest.raises(cr.UnavailableError, match="not available for target="):
        cr.IPW.from_formula("y ~ x1", DATA, treat="d", target="overlap").fit().balance_test()
