"""Numbers from outside: 45-digit arithmetic and Stata for the classic four, 256-bit arithmetic for JRE."""

from __future__ import annotations

import functools

import numpy as np
import pandas as pd
import pytest

import causalrisk as cr
from tests.conftest import REFERENCE, jre_reference, our_names, reference_weights

MODELS = {"ra": cr.OutcomeRegression, "ipw": cr.Hajek, "ipwra": cr.IPWRA, "aipw": cr.AIPW}
PRECISE = pd.read_csv(REFERENCE / "highprecision.csv", keep_default_na=False)
CASES = PRECISE[["dataset", "estimator", "outcome_rhs", "ps_rhs", "ps_link"]].drop_duplicates()
STATA = pd.read_csv(REFERENCE / "stata_cattaneo2_fullprecision.csv.gz", keep_default_na=False)
STATA = STATA[(STATA.estimand == "ATE") & STATA.estimator.isin(list(MODELS))]
PRINTED = pd.read_csv(REFERENCE / "stata_cattaneo2_printed.csv", keep_default_na=False)
PRINTED = PRINTED[(PRINTED.estimand == "ATE") & PRINTED.estimator.isin(list(MODELS))]
PRINTED = PRINTED[~PRINTED.stata_cmd.str.contains("poisson")]


def fit(frame, estimator, formula, treat, propensity, link):
    model = MODELS[estimator].from_formula(
        formula, frame, treat=treat, propensity=propensity or None, propensity_link=link or "logit"
    )
    return model.fit()


@pytest.mark.parametrize("case", [tuple(row) for row in CASES.to_numpy()], ids="-".join)
def test_high_precision(frames, case):
    dataset, estimator, outcome_rhs, ps_rhs, link = case
    rows = PRECISE[(PRECISE[CASES.columns] == list(case)).all(axis=1)].drop_duplicates("param").set_index("param")
    outcome, treat = rows.outcome.iloc[0], our_names(rows.treatment.iloc[0])
    formula = f"{outcome} ~ {our_names(outcome_rhs) or '1'}"
    res = fit(frames[dataset], estimator, formula, treat, our_names(ps_rhs), link)
    expected = rows.loc[["effect", "pom0", "pom1"]]
    points = 1e-10 if estimator == "ra" else 1e-8
    np.testing.assert_allclose(res.params, expected.estimate.astype(float), rtol=points)
    np.testing.assert_allclose(res.bse, expected.se.astype(float), rtol=1e-8)


@pytest.mark.parametrize("command", STATA.stata_cmd.unique())
def test_stata_full_precision(cattaneo, command):
    """All of Stata's coefficients; Stata iterates its solver to about seven digits of the standard errors."""
    rows = STATA[STATA.stata_cmd == command]
    first = rows.iloc[0]
    formula = our_names(first.outcome_formula) or "bweight ~ 1"
    propensity = our_names(first.ps_formula).replace("mage2", "I(mage**2)")
    res = fit(cattaneo, first.estimator, formula, "mbsmoke", propensity, first.ps_link)
    effect = rows[rows.equation == "EFFECT"].iloc[0]
    assert res.effect == pytest.approx(effect.b, rel=1e-8)
    assert res.effect_se == pytest.approx(effect.se, rel=1e-7)
    for code, label in enumerate(("0", "1")):
        for _, row in rows[rows.equation == f"POM{code}"].iterrows():
            assert res.params[f"POM[{label}]"] == pytest.approx(row.b, rel=1e-8)
            assert res.bse[f"POM[{label}]"] == pytest.approx(row.se, rel=1e-7)
        for _, row in rows[rows.equation == f"OME{code}"].iterrows():
            name = "Intercept" if row.term == "_cons" else row.term
            assert res.outcome_params.loc[name, label] == pytest.approx(row.b, rel=1e-6)
            assert res.outcome_bse.loc[name, label] == pytest.approx(row.se, rel=1e-6)
    names = {"_cons": "Intercept", "c.mage#c.mage": "I(mage ** 2)"}
    for _, row in rows[rows.equation == "TME1"].iterrows():
        name = names.get(row.term, row.term)
        assert res.propensity_params[name] == pytest.approx(row.b, rel=1e-6)
        assert res.propensity_bse[name] == pytest.approx(row.se, rel=1e-6)


@pytest.mark.parametrize("command", PRINTED.stata_cmd.unique())
def test_stata_printed(cattaneo, command):
    """Seven printed digits of further specifications."""
    row = PRINTED[PRINTED.stata_cmd == command].iloc[0]
    formula = our_names(row.outcome_formula) or "bweight ~ 1"
    res = fit(cattaneo, row.estimator, formula, "mbsmoke", our_names(row.ps_formula).replace("^", "**"), row.ps_link)
    assert res.effect == pytest.approx(float(row.effect), rel=2e-6)
    assert res.effect_se == pytest.approx(float(row.effect_se), rel=2e-6)


def is_offered(setting, n):
    """Whether the objective "erm" of the reference has the weight of the squared net bias that it has here, n^2."""
    return setting["objective"] == "risk" or (setting["objective"] == "erm" and float(setting["lam"]) == n**2)


JRE_CASES = [
    pytest.param(name, setting, id=f"{name}-{objective}-{setting['anchor']}-{setting.get('lam', setting.get('share'))}")
    for objective, names in (("constrained", ("lalonde",)), ("erm", ("lalonde", "cattaneo2")))
    for name in names
    for setting in jre_reference(name, objective)["results"]
    if is_offered(setting, jre_reference(name, objective)["n"])
]


@pytest.fixture(scope="module")
def jre_model(frames):
    """A function of data and objective: the model of a reference file and the weights of its replicates."""

    @functools.cache
    def made(name, objective):
        reference = jre_reference(name, objective)
        model = cr.JRE.from_formula(
            f"{reference['outcome']} ~ {our_names(reference['outcome_rhs'])}",
            frames[name],
            treat=our_names(reference["treatment"]),
            propensity=our_names(reference["propensity_rhs"]),
        )
        return model, reference_weights(name, reference["n"], objective)

    return made


def jre_fit(jre_model, name, setting, method=None):
    objective = setting["objective"]
    model, weights = jre_model(name, objective)
    chosen = {} if objective == "erm" else {"shrinkage": float(setting["anchor"]), "share": float(setting["share"])}
    return model.fit(cov_type="robust", objective=objective, replicates=weights, method=method, **chosen)


def check_jre(res, setting, rel):
    assert res.effect == pytest.approx(float(setting["effect"]), rel=rel)
    assert res.model_means.iloc[1] == pytest.approx(float(setting["mean1"]), rel=rel)
    assert res.model_means.iloc[0] == pytest.approx(float(setting["mean0"]), rel=rel)
    if setting["objective"] == "erm":
        assert res.expected_ate_risk == pytest.approx(float(setting["expected_ate_risk"]), rel=rel)
    else:
        squared = (res.joint.replicates["net"] ** 2).mean()
        assert squared == pytest.approx(float(setting["mean_squared_net_bias"]), rel=rel)


@pytest.mark.filterwarnings("ignore::causalrisk.OverlapWarning")
@pytest.mark.parametrize(("name", "setting"), JRE_CASES)
def test_jre_reference(jre_model, name, setting):
    res = jre_fit(jre_model, name, setting)
    check_jre(res, setting, 1e-8)
    design = res.model.design
    spread = np.where(design.X.std(axis=0) > 0, design.X.std(axis=0), 1.0)
    for arm, key in enumerate(("theta0", "theta1")):
        difference = res.outcome_params.iloc[:, arm] - np.array(setting[key], dtype=float)
        assert (np.abs(difference) * spread).max() <= 1e-8 * design.y.std()


@pytest.mark.filterwarnings("ignore::causalrisk.OverlapWarning")
@pytest.mark.parametrize("method", ["trust-ncg", "trust-krylov", "Newton-CG", "BFGS", "L-BFGS-B", "SLSQP"])
@pytest.mark.parametrize(("name", "setting"), JRE_CASES[:1])
def test_jre_reference_by_other_methods(jre_model, name, setting, method):
    res = jre_fit(jre_model, name, setting, method)
    assert res.converged
    assert res.joint.optimize_result.nit > 0
    check_jre(res, setting, 1e-5)


@pytest.mark.parametrize("name", ["lalonde", "cattaneo2"])
def test_the_share_of_the_formula(jre_model, name):
    """What is real of the effect heterogeneity at the start: nothing on LaLonde."""
    model, weights = jre_model(name, "share")
    share = float(jre_reference(name, "share")["results"][0]["share"])
    assert model.fit(cov_type="robust", replicates=weights).share == pytest.approx(share, abs=1e-8)
