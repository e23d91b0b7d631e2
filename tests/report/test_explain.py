"""`explain()`: every kind of fit is told, with its own numbers."""

from __future__ import annotations

import functools

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

import causalrisk as cr
from causalrisk.report.table import format_number
from tests.conftest import CATTANEO_PROPENSITY, CATTANEO_RHS, simulate
from tests.report.test_tables import Balance

FORMULA = "y ~ x1 + x2"
STEPS = ["question", "groups", "", "", "effect", "standard error"]


def prepared():
    frame = simulate(240)
    frame["positive"] = np.exp(frame.y / 4)
    frame["binary"] = (frame.y > 0).astype(int)
    frame["score"] = 1 / (1 + np.exp(-0.8 * (frame.x1 + 0.5 * frame.x2)))
    frame["three"] = np.where(frame.d == 0, "a", np.where(frame.x3 > 0, "b", "c"))
    frame["count"] = 1 + frame.index % 3
    frame["site"] = frame.index % 25
    return frame


def matching(e):
    return np.minimum(e, 1 - e)


FRAME = prepared()
THREE = {"treat": "three", "reference": "a"}
KINDS = {
    "outcome regression": (
        cr.OutcomeRegression, FORMULA, {},
        ["uses no propensity score and no weights.", "without propensity weights", "the 240 rows used"],
    ),
    "hajek": (cr.IPW, FORMULA, {}, ["the weighted mean of y"]),
    "ipwra": (cr.IPWRA, FORMULA, {}, ["with these weights", "logit", "1 / (probability of its own group)"]),
    "aipw": (cr.AIPW, FORMULA, {}, ["next step corrects its bias", "by the size of the target"]),
    "jre": (cr.JRE, FORMULA, {}, ["fitted together", "40 random draws of the", "models' shared bias is subtracted"]),
    "treated": (cr.IPWRA, FORMULA, {"target": "treated"}, ["on the treated (ATT)"]),
    "control": (cr.JRE, FORMULA, {"target": "control"}, ["untreated (ATC)", "is (probability of group 0) /"]),
    "overlap": (cr.AIPW, FORMULA, {"target": "overlap"}, ["overlap population (ATO)", "about equally likely"]),
    "overlap without weights": (cr.OutcomeRegression, FORMULA, {"target": "overlap"}, ["only to define the target"]),
    "frame": (
        cr.IPWRA, FORMULA, {"target": FRAME.iloc[:50]},
        ["the 50 rows of the target frame", "Effects given the covariates are equal"],
    ),
    "function": (cr.IPWRA, FORMULA, {"target": matching}, ["(WATE)", "by a function of the propensity score"]),
    "three arms": (cr.JRE, FORMULA, THREE, ["in group b or", "fitted together"]),
    "three arms, overlap": (cr.IPWRA, FORMULA, {**THREE, "target": "overlap"}, ["all groups are about equally likely"]),
    "binomial": (cr.IPWRA, "binary ~ x1", {"family": "binomial", "effect": "odds_ratio"}, ["odds ratio"]),
    "gamma": (cr.IPWRA, "positive ~ x1", {"family": "gamma", "effect": "ratio"}, ["Test of ATE ratio = 1"]),
    "percent": (cr.JRE, "positive ~ x1", {"effect": "percent"}, ["= 100 ("]),
    "known": (cr.IPWRA, FORMULA, {"propensity_score": "score"}, ["known (score)"]),
    "classifier": (cr.AIPW, FORMULA, {"propensity_score": LogisticRegression()}, ["LogisticRegression, 5 folds"]),
    "calibrated": (cr.IPWRA, FORMULA, {"propensity_loss": "calibrated"}, ["calibrated logit"]),
    "trimmed": (cr.IPWRA, FORMULA, {"trim": (0.2, 0.8)}, ["after trimming", "trimmed by their propensity score"]),
    "clipped": (cr.IPWRA, FORMULA, {"clip": (0.2, 0.8)}, ["scores were clipped: ", "to [0.2, 0.8]"]),
    "weighted": (cr.AIPW, FORMULA, {"weights": "count", "weight_type": "frequency"}, ["under the observation weights"]),
    "sampled": (
        cr.AIPW, FORMULA, {"weights": "count", "weight_type": "probability"},
        ["averaged over the 240 rows used, weighted by the observation weights."],
    ),
    "clusters": (cr.IPWRA, FORMULA, {"cluster": "site"}, ["clustered by site"]),
}  # fmt: skip


@functools.cache
def fitted(kind):
    model, formula, options, words = KINDS[kind]
    built = model.from_formula(formula, FRAME, **{"treat": "d", **options})
    joint = {"n_boot": 40, "n_replicates": 40} if model is cr.JRE else {}
    return built.fit(**joint), words


@pytest.mark.filterwarnings("ignore::causalrisk.CausalRiskWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_fit(kind):
    res, words = fitted(kind)
    explained = res.explain()
    text = " ".join(str(explained).split())
    for word in words:
        assert word in text
    places = [text.index(f"{k}. The {step}") for k, step in enumerate(STEPS, 1)]
    assert places == sorted(places)
    assert ("JRE and IPWRA -" in text) == (res._record.joint is not None)
    for name in res.params.index:
        assert name in text
    for wrong in (" nan", "None", "inf ", "{", "  "):
        assert wrong not in text
    assert max(map(len, str(explained).splitlines())) <= 78


def test_the_factor_for_choosing_the_shrinkage_is_told_once():
    res = cr.JRE.from_formula("y ~ x1", FRAME, treat="d", propensity="x1 + x2").fit(cov_type="robust", n_replicates=20)
    assert str(res.explain()).replace("\n", " ").count("to allow for choosing the shrinkage") == 1


def test_a_transported_effect_names_the_model_of_membership():
    res = cr.IPWRA.from_formula(FORMULA, FRAME, treat="d", target=FRAME[FRAME.x2 > -1]).fit()
    said = "density ratio of the covariates, target frame over sample, from a logit model of membership"
    assert said in res.methods()
    text = " ".join(str(res.explain()).split())
    assert "Each row's weight is (density ratio) / (probability of its own group)." in text
    plain = cr.OutcomeRegression.from_formula(FORMULA, FRAME, treat="d", target=FRAME[FRAME.x2 > -1]).fit()
    assert "density ratio" not in plain.methods()  # it uses no weights


def test_the_numbers_are_those_of_the_fit(cattaneo):
    model = cr.JRE.from_formula(
        f"bweight ~ {CATTANEO_RHS}", cattaneo, treat="mbsmoke", propensity=CATTANEO_PROPENSITY,
        levels={0: "nonsmoker", 1: "smoker"},
    )  # fmt: skip
    res = model.fit(n_boot=40, n_replicates=60)
    text = " ".join(str(res.explain(alpha=0.1)).split())
    for line in str(res.summary(alpha=0.1)).splitlines():
        if line.startswith(("ATE ", "POM[")):
            assert line.split()[1] in text  # the digits of the summary
    control, smoker = res.params["POM[nonsmoker]"], res.params["POM[smoker]"]
    assert "nonsmoker (3778 rows, mean bweight 3412.91) and smoker (864 rows, mean bweight 3137.66)" in text
    assert "Group nonsmoker: effective n" in text
    assert "over the 4642 rows used" in text and "The sample has 4642 rows" not in text + res.methods()
    assert f"ATE = POM[smoker] - POM[nonsmoker] = {res.effect:.2f}." in text
    assert f"POM[nonsmoker] = {control:.2f} and POM[smoker] = {smoker:.2f}" in text
    low, high = res.conf_int(0.1).loc["ATE"]
    assert f"90% interval {low:.2f} to {high:.2f}" in text
    gap = abs(res.effect - res.start.effect) / res.effect_se
    ours, theirs = map(format_number, (res.effect, res.start.effect))
    assert f"JRE gives {ours} and IPWRA {theirs}. The difference is {gap:.2f} times JRE's standard error." in text
    assert "prenatal1, mmarried, mage, fbaby and medu" in text


def test_poor_overlap_and_a_gap_are_told(lalonde):
    rhs = "age + educ + race + married + nodegree + re74 + re75"
    with pytest.warns(cr.OverlapWarning):
        res = cr.IPWRA.from_formula(f"re78 ~ {rhs}", lalonde, treat="treat", trim=None, target="all",
                                    propensity=f"({rhs})**2").fit()  # fmt: skip
    assert "Poor overlap: " in " ".join(str(res.explain()).split())


def test_html_is_escaped_and_balanced():
    frame = FRAME.assign(d=np.where(FRAME.d == 1, "<b>", "a & b"))
    res = cr.AIPW.from_formula(FORMULA, frame, treat="d", reference="a & b").fit()
    page = res.explain().as_html()
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    Balance().feed(page)
    assert res.explain()._repr_html_() == page
    assert repr(res.explain()) == str(res.explain())


def test_arrays_have_no_formula():
    res = cr.AIPW(FRAME.y, FRAME[["x1", "x2"]].assign(const=1.0), FRAME.d).fit()
    text = " ".join(str(res.explain()).split())
    assert "x1, x2 and const" in text


def test_refuses_a_wrong_level():
    with pytest.raises(cr.OptionError, match="alpha"):
        fitted("aipw")[0].explain(alpha=5)


def test_unadjusted_in_a_comparison():
    together = cr.compare(FORMULA, FRAME, treat="d", estimators=["Unadjusted"], n_boot=20)
    assert "Covariates: none" in " ".join(str(together.results["Unadjusted"].explain()).split())
    assert isinstance(together.table, pd.DataFrame)


def test_offset_and_exposure_are_covariates():
    res = cr.IPWRA.from_formula("count ~ x1", FRAME, treat="d", family="poisson", exposure="positive").fit()
    assert "Covariates: x1 and positive." in " ".join(str(res.explain()).split())


def test_a_change_has_one_target():
    frame = FRAME.assign(before=FRAME.x3)
    res = cr.JRE.from_formula("y ~ x1", frame, treat="d", did=cr.DiD(before="before")).fit(n_boot=20, n_replicates=40)
    text = " ".join(str(res.explain()).split())
    assert "JRE and IPWRA -" in text and 'target="overlap"' not in text


@pytest.mark.usefixtures("unprinted_plots")
@pytest.mark.parametrize("model", [cr.OutcomeRegression, cr.IPWRA])
def test_missing_outcomes_are_an_assumption(model, tmp_path):
    frame = FRAME.assign(y=FRAME.y.mask(FRAME.index % 6 == 0))
    res = model.from_formula(FORMULA, frame, treat="d", observed="x1 * d").fit()
    given = "x1 * d" if model is cr.IPWRA else "d and the covariates of the outcome formula"
    question = f"Given {given}, could the probability that y is missing depend on its value?"
    assert f"Outcomes are missing at random. {question}" in " ".join(str(res.explain()).split())
    path = res.report(tmp_path / "report.html", assumptions={"missing_at_random": "Lost by the post."})
    page = path.read_text("utf-8")
    assert "Lost by the post." in page and question in page
