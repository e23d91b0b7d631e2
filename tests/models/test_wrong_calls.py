"""Plausible wrong calls of results: each says what was expected."""

from __future__ import annotations

import pandas as pd
import pytest

import causalrisk as cr
from causalrisk import hle
from tests.conftest import simulate

DATA = simulate(120)


@pytest.fixture(scope="module")
def fits():
    fit = {"formula": "y ~ x1 + x2", "data": DATA, "treat": "d"}
    panel = pd.concat([DATA.assign(unit=range(120), year=t, first=2 * DATA.d, y=DATA.y + t * DATA.x2) for t in (1, 2)])
    return {
        "study": cr.event_study("y ~ x1", panel, "first", "year", "unit", est_method="reg"),
        "res": cr.IPWRA.from_formula(**fit).fit(),
        "other": cr.AIPW.from_formula(**fit).fit(),
        "matched": cr.Matching.from_formula(**fit).fit(),
    }


CALLS = {
    r"predict\(data\) is not available for Matching": lambda f: f["matched"].predict(DATA),
    r"get_prediction\(\) is not available for Matching": lambda f: f["matched"].get_prediction(DATA),
    "outcome_params is not available for Matching": lambda f: f["matched"].outcome_params,
    "group 'group' is of type builtins.NoneType": lambda f: f["res"].effects_by(None),
    r"the columns are 'x1', 'x2'.\nDid you mean `x1`\?": lambda f: f["res"].effects_by("X1"),
    r'Use `family="binomial"` for a 0/1 outcome': lambda f: cr.AIPW.from_formula(
        "y ~ x1", DATA, treat="d", link="logit"
    ),
    "cannot read the hypothesis '': it is empty": lambda f: f["res"].t_test(""),
    r"xname= has 1 names; expected 3: ATE, POM\[0\], POM\[1\]": lambda f: f["res"].summary(xname=["a"]),
    "xname= has 1 names; expected 3: ATE": lambda f: f["res"].summary(xname=3),
    "estimator 3 is not known": lambda f: cr.compare("y ~ x1", DATA, treat="d", estimators=3),
    "too many positional arguments.\nThe options are `before=`": lambda f: cr.DiD("re75"),
    "too many positional arguments.\nThe options are `cov_type=`": lambda f: f["res"].model.fit("robust"),
    "too many positional arguments.\nThe options are `formula=`": lambda f: cr.AIPW.from_formula("y ~ x", 1, "d", "x"),
    "exposure= without at_exposure='observed' is not available": lambda f: cr.AIPW.from_formula(
        "y ~ x1", DATA.assign(t=1, y=1), treat="d", exposure="t", family="poisson"
    ),
    "exposure='t' needs a log link": lambda f: cr.AIPW.from_formula(
        "y ~ x1", DATA.assign(t=1), treat="d", exposure="t"
    ).fit(),
    "use_t= and df= were both given": lambda f: f["res"].model.fit(use_t=False, df=3),
    r"Use `DiD\(normalize=True\)`": lambda f: cr.AIPW.from_formula(
        "y ~ x1", DATA, treat="d", did=cr.DiD(before="x2"), normalize=True
    ),
    'Use `"~ x1 [+] x2"` for a formula': lambda f: f["res"].effects_by("x1 + x2"),
    "`at=` has 'z'; expected 'x1'": lambda f: f["res"].effects_by("~ x1", at={"x1": [0], "z": [1]}),
    "grid='all'; expected numbers": lambda f: f["other"].distribution("all"),
    "block 2 has no column 'x1'": lambda f: cr.scan([DATA, DATA.rename(columns={"x1": "X1"})]).collect(),
    "unknown option `overwrite`": lambda f: f["res"].save("fit", overwrite=True),
    "conf_int='no' is not known": lambda f: f["res"].tidy(conf_int="no"),
    "short='yes' is not known": lambda f: f["res"].report(short="yes"),
    r"simultaneous\(\): too many positional": lambda f: cr.simultaneous(f["res"], f["other"]),
    "rho='x'; expected a correlation": lambda f: f["res"].sensitivity_bounds(rho="x"),
    r"Use `study.tidy\(\)`": lambda f: f["study"].save("s.csv"),
    "missing a required argument: 'expression'": lambda f: f["res"].nlcom(),
    "3 is not text": lambda f: f["res"].nlcom(3),
    "(?s)cf_y='x1'; .*or `benchmark=": lambda f: f["res"].sensitivity_bounds("x1"),
    "names=3; expected a list": lambda f: cr.etable([f["res"]], names=3),
    r"rename=3; expected a mapping.\nUse `rename=\{": lambda f: cr.etable(f["res"], rename=3),
    "extra=3; expected a mapping": lambda f: cr.etable(f["res"], extra=3),
    "PermutationTest has no params; expected a fit": lambda f: cr.etable(f["res"].permutation_test(9)),
    "StudyResults has no params; expected a fit": lambda f: cr.etable(
        cr.simulation.run_study("linear", n=60, n_sims=2, estimators="IPWRA")
    ),
    r"no column 'arm', .*\nUse `frame = load_judged": lambda f: hle.score(3),
    "a table has no attribute 'to_excel'": lambda f: cr.etable([f["res"]]).to_excel("t.xlsx"),
    "df_complete='10'; expected": lambda f: cr.pool([f["res"], f["res"]], df_complete="10"),
    r"power\(\) got a int": lambda f: cr.simulation.power(3),
    "unknown option `short`.*\n.*`path=`": lambda f: f["study"].report(short=True),
    "unknown option `colour`": lambda f: f["study"].plot(colour="red"),
    "one has estimator IPWRA, another has estimator AIPW": lambda f: cr.pool([f["res"], f["other"]]),
}


@pytest.mark.parametrize("words", CALLS)
def test_a_wrong_call_says_what_was_expected(fits, words):
    with pytest.raises(cr.CausalRiskError, match=words):
        CALLS[words](fits)


def test_options_that_may_be_given_by_position_or_under_other_names(fits):
    assert fits["study"].given["estimator"] == "OutcomeRegression"
    by_position = cr.compare("y ~ x1", DATA, "d", estimators=["reg"], n_boot=9)
    pd.testing.assert_frame_equal(by_position.tidy(level=0.9), by_position.tidy(alpha=0.1))
    text = "POM[1] / POM[0]"
    assert fits["res"].nlcom([text, "ATE"]).effect[0] == fits["res"].nlcom(text).effect[0]


def test_a_collinear_term_of_effects_is_dropped_with_a_warning(fits):
    with pytest.warns(cr.DesignWarning, match=r"effects_by dropped 'I\(2 \* x1\)'"):
        dropped = fits["res"].effects_by("~ x1 + I(2 * x1)")
    pd.testing.assert_frame_equal(dropped.reset_index(drop=True), fits["res"].effects_by("~ x1").reset_index(drop=True))


def test_the_rows_of_one_period_have_the_groups_of_a_panel():
    panel = DATA.assign(unit=range(120), h=DATA.x3 > 0)
    data = pd.concat([panel.assign(year=1), panel.assign(year=2, y=panel.y + panel.d + panel.x2)], ignore_index=True)
    res = cr.AIPW.from_formula("y ~ x1", data, treat="d", did=cr.DiD(time="year", unit="unit")).fit()
    with pytest.raises(cr.DesignError, match=r"made from 120.\nUse .*the rows of one period"):
        res.effects_by("h", data)
    assert len(res.effects_by("h", data[data.year == 2])) == 2


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
