"""Results: what they carry, how they print, what they refuse."""

from __future__ import annotations

import copy
import pickle
import re

import numpy as np
import pandas as pd
import pytest
from statsmodels.iolib.summary import Summary

import causalrisk as cr
from tests.conftest import CATTANEO_PROPENSITY, CATTANEO_RHS, RHS, simulate

CLASSIC = [cr.OutcomeRegression, cr.IPW, cr.IPWRA, cr.AIPW]
JOINT_ONLY = [
    "model_means",
    "expected_ate_risk",
    "replicate_bias",
    "replicate_ledger",
    "start",
    "optimize_result",
]


@pytest.fixture(scope="module")
def frame():
    return simulate(300).set_index(pd.Index([f"row{i}" for i in range(300)]))


@pytest.fixture(scope="module")
def jre(frame):
    return cr.JRE.from_formula(f"y ~ {RHS}", frame, treat="d").fit(n_boot=60, n_replicates=80)


@pytest.fixture(scope="module")
def ipwra(frame):
    return cr.IPWRA.from_formula(f"y ~ {RHS}", frame, treat="d", propensity="x1 + x2").fit()


@pytest.fixture(scope="module")
def births(cattaneo):
    model = cr.JRE.from_formula(
        f"bweight ~ {CATTANEO_RHS}",
        cattaneo[::4],
        treat="mbsmoke",
        propensity=CATTANEO_PROPENSITY,
        levels={0: "nonsmoker", 1: "smoker"},
    )
    return model.fit()


def test_names_and_types(jre):
    names = ["ATE", "POM[0]", "POM[1]"]
    for series in (jre.params, jre.bse, jre.tvalues, jre.pvalues):
        assert isinstance(series, pd.Series)
        assert list(series.index) == names
    assert list(jre.cov_params().index) == list(jre.cov_params().columns) == names
    assert list(jre.conf_int().columns) == [0, 1]
    assert list(jre.summary_frame(0.1).columns) == ["estimate", "std err", "z", "P>|z|", "[0.05", "0.95]"]
    assert (jre.effect, jre.effect_se) == (jre.params["ATE"], jre.bse["ATE"])
    assert (jre.estimand, jre.nobs, jre.use_t, jre.converged, jre.seed) == ("ATE", 300, False, True, 0)
    assert jre.model.endog_names == "y"
    assert jre.model.exog_names == ["Intercept", "x1", "x2", "x3"]
    assert jre.model.formula == f"y ~ {RHS}"


def test_statistics_by_hand(ipwra):
    z = ipwra.params / ipwra.bse
    np.testing.assert_allclose(ipwra.tvalues, z)
    limits = ipwra.conf_int()
    np.testing.assert_allclose(limits[1] - limits[0], 2 * 1.959963984540054 * ipwra.bse)
    np.testing.assert_allclose(np.sqrt(np.diag(ipwra.cov_params())), ipwra.bse)
    # the effect is the difference of the arm means, and so is its variance
    contrast = np.array([0.0, -1.0, 1.0])
    assert contrast @ ipwra.cov_params() @ contrast == pytest.approx(ipwra.effect_se**2, rel=1e-10)


def test_rows_carry_the_index_of_the_data(frame, ipwra):
    weights, scores = ipwra.importance_weights, ipwra.propensity_scores
    assert weights.index.equals(frame.index)
    expected = np.where(frame.d == 1, 1 / scores, 1 / (1 - scores))
    np.testing.assert_allclose(weights, expected, rtol=1e-12)
    assert ipwra.potential_outcomes.index.equals(frame.index)
    assert ipwra.in_sample.all()
    assert ipwra.sample_ledger.empty


@pytest.mark.parametrize("model", CLASSIC)
def test_potential_outcomes_predict_and_coefficients_agree(frame, model):
    res = model.from_formula(f"y ~ {RHS}", frame, treat="d").fit()
    outcomes = res.potential_outcomes
    if model is not cr.AIPW:
        np.testing.assert_allclose(outcomes.mean(), res.params.iloc[1:], rtol=1e-10)
    pd.testing.assert_frame_equal(res.predict(frame), outcomes)
    shuffled = frame[["d", "x3", "x2", "x1", "y"]].iloc[::-1].head(5)
    pd.testing.assert_frame_equal(res.predict(shuffled), outcomes.iloc[::-1].head(5))
    pd.testing.assert_series_equal(res.predict(frame, arm=1), outcomes["1"])
    with pytest.raises(cr.OptionError, match="not one of '0', '1'"):
        res.predict(frame, arm="treated")
    if model is cr.IPW:
        assert list(res.outcome_params.index) == ["Intercept"]
        np.testing.assert_allclose(res.outcome_bse.loc["Intercept"], res.bse.iloc[1:], rtol=1e-10)
    else:
        design = np.column_stack([np.ones(300), frame[["x1", "x2", "x3"]]])
        np.testing.assert_allclose(design @ res.outcome_params.to_numpy(), outcomes, rtol=1e-10)


def test_coefficients_of_outcome_regression_are_those_of_ols(frame):
    import statsmodels.formula.api as smf

    res = cr.OutcomeRegression.from_formula(f"y ~ {RHS}", frame, treat="d").fit()
    for arm in (0, 1):
        ols = smf.ols(f"y ~ {RHS}", frame[frame.d == arm]).fit(cov_type="HC0")
        np.testing.assert_allclose(res.outcome_params[str(arm)], ols.params, rtol=1e-10)
        np.testing.assert_allclose(res.outcome_bse[str(arm)], ols.bse, rtol=1e-10)


def test_bootstrap_frames(jre):
    assert jre.boot_params.shape == (60, 3)
    assert jre.boot_ledger.used.all()
    assert jre.replicate_ledger.used.sum() == 80
    assert list(jre.replicate_bias.columns) == ["0", "1", "net"]
    assert len(jre.replicate_bias) == 80


@pytest.mark.parametrize("name", JOINT_ONLY)
def test_only_jre_has(ipwra, jre, name):
    assert hasattr(jre, name)
    assert not hasattr(ipwra, name)
    with pytest.raises(cr.UnavailableError, match="JRE"):
        getattr(ipwra, name)


@pytest.mark.parametrize("use", [lambda r: r.potential_outcomes, lambda r: r.predict(simulate(5))])
def test_unit_level_results_of_jre_raise_with_what_to_type(jre, use):
    with pytest.raises(cr.CausalRiskError, match=r"single units\.\nUse `res\.start\.") as caught:
        use(jre)
    assert re.search(r"res\.start\.(potential_outcomes|predict\(data\))", str(caught.value))
    assert len(use(jre.start)) in (5, 300)


def test_start_is_the_ipwra_fit(frame, jre):
    ipwra = cr.IPWRA.from_formula(f"y ~ {RHS}", frame, treat="d").fit()
    assert isinstance(jre.start.model, cr.IPWRA)
    np.testing.assert_array_equal(jre.start.params, ipwra.params)
    np.testing.assert_array_equal(jre.start.bse, ipwra.bse)
    assert str(jre.start.summary()) == str(ipwra.summary())


def test_without_a_bootstrap_or_a_propensity(ipwra, frame):
    with pytest.raises(cr.UnavailableError, match=r'fit\(cov_type="bootstrap"\)'):
        _ = ipwra.boot_params
    with pytest.raises(cr.UnavailableError, match=r'fit\(cov_type="bootstrap"\)'):
        ipwra.conf_int(method="percentile")
    regression = cr.OutcomeRegression.from_formula(f"y ~ {RHS}", frame, treat="d").fit()
    with pytest.raises(cr.UnavailableError, match="no propensity score"):
        _ = regression.propensity_scores
    with pytest.raises(cr.UnavailableError, match="no propensity score"):
        _ = regression.propensity_params
    assert (regression.importance_weights == 1).all()


def test_t_test(ipwra):
    by_text = ipwra.t_test("POM[1] - POM[0] = 0.5, ATE")
    by_matrix = ipwra.t_test((np.array([[0, -1, 1], [1, 0, 0]]), np.array([0.5, 0])))
    np.testing.assert_allclose(by_text.effect, [ipwra.effect, ipwra.effect], rtol=1e-12)
    np.testing.assert_allclose(by_text.sd, ipwra.effect_se, rtol=1e-8)
    np.testing.assert_allclose(by_text.statistic[0], (ipwra.effect - 0.5) / ipwra.effect_se, rtol=1e-8)
    np.testing.assert_allclose(by_matrix.statistic, by_text.statistic)
    assert "P>|z|" in str(by_text.summary())
    with pytest.raises(cr.CausalRiskError, match=r"The parameters are ATE, POM\[0\], POM\[1\]"):
        ipwra.t_test("POM[2] = 0")
    with pytest.raises(cr.OptionError, match="2 columns; expected 3"):
        ipwra.t_test(np.ones((1, 2)))


def test_wald_test_handles_the_redundant_effect(ipwra):
    single = ipwra.wald_test("ATE = 0")
    assert f"statistic={float(single.statistic)}, p-value=" in str(single.summary()) == str(single)
    redundant = ipwra.wald_test("ATE = 0, POM[1] - POM[0] = 0")
    assert (single.df_denom, redundant.df_denom) == (1, 1)
    assert float(redundant.statistic.squeeze()) == pytest.approx(float(ipwra.tvalues["ATE"] ** 2), rel=1e-8)
    both = ipwra.wald_test("ATE = 0, POM[0] = 0")
    covariance = ipwra.cov_params().iloc[:2, :2].to_numpy()
    by_hand = ipwra.params.iloc[:2] @ np.linalg.solve(covariance, ipwra.params.iloc[:2])
    assert float(both.statistic.squeeze()) == pytest.approx(by_hand, rel=1e-8)
    with pytest.raises(cr.OptionError, match="cannot all be true"):
        ipwra.wald_test("ATE = 0, POM[1] - POM[0] = 1")
    assert ipwra.wald_test(("ATE = 0", "POM[0] = 0")).statistic == both.statistic
    for wrong in (("ATE", 5), ([[1, 0, 0]], [5, 6])):
        with pytest.raises(cr.OptionError, match=r"neither text, nor a matrix R(?s:.)*`\"ATE = 0\"`"):
            ipwra.wald_test(wrong)


def test_summary_of_jre(births):
    text = str(births.summary())
    lines = text.splitlines()
    assert lines[0].strip() == "Joint Robust Estimator (JRE) Results"
    assert max(map(len, lines)) == 78
    for label in (
        "Dep. Variable:",
        "Shrinkage:",
        "By group",
        "On the same resamples",
    ):
        assert label in text
    assert len(lines) <= 35  # two more where levels have long names, and a note on them
    assert "(chosen)" in text
    assert "bootstrap (pairs)" in text
    assert "999 of 999 used" in text
    row = next(line for line in lines if line.startswith("ATE ")).split()
    np.testing.assert_allclose([float(row[1]), float(row[2])], [births.effect, births.effect_se], atol=6e-3)
    np.testing.assert_allclose([float(v) for v in row[5:]], births.conf_int().loc["ATE"], atol=6e-3)


def test_the_names_offered_are_few_and_plots_are_together(births, ipwra):
    for res in (births, ipwra):
        assert len(dir(res)) <= 45 and all(hasattr(res, name) for name in dir(res))
    assert {"plot_balance", "boot_params"}.isdisjoint(dir(ipwra)) and "balance" in dir(ipwra.plot)
    assert re.findall(r"res\.plot\.(\w+)", ipwra.plot.__doc__) == dir(births.plot) and not hasattr(
        ipwra.plot, "__dict__"
    )
    assert ipwra.plot.balance.__func__ is type(ipwra).plot_balance
    with pytest.raises(cr.UnavailableError, match="plot_balanc"):
        _ = ipwra.plot.balanc


def test_summary_with_decimals_asked_for(ipwra):
    table = ipwra.summary(digits=1, slim=True).tables[0]
    assert all(re.fullmatch(r"-?[0-9]+\.[0-9]", row[j]) for row in table.body for j in (1, 2, 5, 6))


def test_summary_of_jre_names_ipwra_once(births):
    robust = births.model.fit(cov_type="robust", n_replicates=60)
    text = " ".join(str(robust.summary()).split())
    shown = re.search(r"IPWRA's ATE is (-[\d.]+)\.", text).group(1)
    np.testing.assert_allclose(float(shown), robust.start.effect, atol=6e-3)
    assert "IPWRA's ATE is" not in str(births.summary())  # its table on the same resamples has both


def test_a_model_of_arrays_says_what_it_takes(frame):
    X = frame[["x1", "x2"]].assign(const=1.0)
    for given in ((), ("y ~ x1", frame), (frame.y, X), (frame.y, X, None), (None, X, frame.d)):
        with pytest.raises(cr.OptionError, match=r"(?s)IPWRA\(endog, exog, treat\) takes arrays.*IPWRA\.from_formula"):
            cr.IPWRA(*given)
    for given in ((), ("y ~ x1", frame, "d", "z")):
        with pytest.raises(cr.OptionError, match=r"LATE\(\) takes two models\.\nUse `LATE\.from_formula"):
            cr.LATE(*given)


def test_summary_with_coefficients(births, ipwra):
    text = str(births.summary(coefficients=True))
    assert "outcome, nonsmoker" in text
    line = next(line for line in text.splitlines() if line.startswith("mage"))
    own, se = (table.loc["mage", "nonsmoker"] for table in (births.outcome_params, births.outcome_bse))
    np.testing.assert_allclose([float(v) for v in line.split()[1:3]], [own, se], atol=6e-4)
    text = str(ipwra.summary(coefficients=True))
    assert "outcome, 0" in text
    assert "propensity" in text
    assert "outcome, 0" not in str(ipwra.summary())


def test_summary_forms(births):
    summary = births.summary()
    assert isinstance(summary, Summary)
    assert "<table" in summary.as_html()
    assert births._repr_html_() == summary.as_html()
    assert r"\begin{tabular}" in summary.as_latex()
    assert "ATE," in summary.as_csv().replace(" ", "")
    assert str(births.summary()) == str(births.summary())
    assert len(summary.tables) == 4


def test_summary_options(ipwra):
    text = str(ipwra.summary(alpha=0.1, title="My title", yname="income", xname=["effect", "a", "b"]))
    assert text.splitlines()[0].strip() == "My title"
    assert "[0.05" in text
    assert re.search(r"^income +estimate", text, re.M)
    assert re.search(r"^effect ", text, re.M)
    with pytest.raises(ValueError, match="expected 3"):
        ipwra.summary(xname=["a"])


def test_warnings_of_the_fit_are_notes(frame):
    holes = frame.copy()
    holes.iloc[:7, holes.columns.get_loc("x1")] = np.nan
    holes["group"] = np.arange(len(holes)) % 6
    with pytest.warns(cr.DesignWarning, match="only 6 clusters"):
        res = cr.IPWRA.from_formula(f"y ~ {RHS}", holes, treat="d", cluster="group").fit()
    text = " ".join(str(res.summary()).split())
    assert "Only 6 clusters of 'group'" in text
    assert "7 rows dropped: x1 missing." in text
    assert "Rows dropped: 7" in text


@pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy, lambda r: pickle.loads(pickle.dumps(r))])
def test_copies(jre, clone):
    again = clone(jre)
    pd.testing.assert_series_equal(again.params, jre.params)
    assert str(again.summary()) == str(jre.summary())
    pd.testing.assert_frame_equal(again.start.predict(simulate(4)), jre.start.predict(simulate(4)))


def test_nothing_handed_out_is_shared(jre):
    before = str(jre.summary())
    pieces = [jre.params, jre.bse, jre.boot_params, jre.replicate_bias, jre.model_means, jre.cov_params()]
    pieces += [jre.start.potential_outcomes, jre.start.importance_weights]
    for piece in pieces:
        piece.iloc[:] = 0
    sample = jre.in_sample
    sample.iloc[:] = False
    assert jre.in_sample.all()
    assert str(jre.summary()) == before
    assert jre.start.potential_outcomes.to_numpy().any()


def test_with_options(frame):
    model = cr.IPWRA.from_formula(f"y ~ {RHS}", frame, treat="d")
    probit = model.with_options(propensity_link="probit")
    expected = cr.IPWRA.from_formula(f"y ~ {RHS}", frame, treat="d", propensity_link="probit").fit()
    np.testing.assert_array_equal(probit.fit().params, expected.params)
    assert model.options.propensity_link == "logit"
    with pytest.raises(TypeError, match="propensity"):
        model.with_options(propensity="x1")


def test_formula_in_the_callers_scope(frame):
    y, x1, x2, d = (frame[c].to_numpy() for c in ("y", "x1", "x2", "d"))
    assert len(y) == len(x1) == len(x2) == len(d)
    res = cr.JRE.from_formula("y ~ x1 + x2", treat="d").fit(n_boot=20, n_replicates=20)
    named = cr.JRE.from_formula("y ~ x1 + x2", frame, treat="d").fit(n_boot=20, n_replicates=20)
    np.testing.assert_array_equal(res.params, named.params)


def test_arrays_equal_formulas(frame):
    X = np.column_stack([np.ones(300), frame[["x1", "x2", "x3"]]])
    by_array = cr.JRE(frame.y.to_numpy(), X, frame.d.to_numpy(), exog_propensity=X[:, :3])
    by_formula = cr.JRE.from_formula(f"y ~ {RHS}", frame, treat="d", propensity="x1 + x2")
    options = {"n_boot": 30, "n_replicates": 30}
    np.testing.assert_array_equal(by_array.fit(**options).boot_params, by_formula.fit(**options).boot_params)
    assert by_array.exog_names == ["const", "x1", "x2", "x3"]


def test_ipw_is_hajek():
    assert cr.Hajek is cr.IPW


@pytest.mark.parametrize("model", [cr.OutcomeRegression, cr.IPW, cr.IPWRA, cr.AIPW, cr.TMLE, cr.Matching, cr.JRE])
@pytest.mark.filterwarnings("ignore::causalrisk.CausalRiskWarning")
def test_a_constant_outcome_has_no_test(model):
    constant = model.from_formula("y ~ x1 + x2", simulate(120).assign(y=0.1), treat="d")
    for fit in [{}, {"n_boot": 20}, {"cov_type": "jackknife"}][: 1 if model is cr.Matching else None]:
        res = constant.fit(**fit)
        assert res.tvalues.isna().all() and res.pvalues.isna().all()
        np.testing.assert_allclose(res.params, [0, 0.1, 0.1], atol=1e-12)
        rows = {row[0]: row for row in res.summary().tables[1].body}
        assert rows["ATE"][3:5] == ["nan", "nan"]


def test_several_effects_are_not_one():
    frame = simulate(300)
    frame["arm"] = np.where(frame.d == 0, "a", np.where(frame.x3 > 0, "b", "c"))
    fits = [cr.IPWRA.from_formula("y ~ x1", f, treat="arm", reference="a").fit() for f in (frame, frame.sample(300))]
    for res in (fits[0], cr.pool([fits[0], cr.IPWRA.from_formula("y ~ x1", frame.assign(x1=frame.x1 + frame.x2),
                                                                   treat="arm", reference="a").fit()])):  # fmt: skip
        for name, instead in (("effect", "params"), ("effect_se", "bse")):
            with pytest.raises(cr.UnavailableError) as caught:
                getattr(res, name)
            *_, last = str(caught.value).splitlines()
            assert last == f"Use `res.{instead}['ATE[b]']`."
            assert eval(last.split("`")[1], {"res": res}) == getattr(res, instead).iloc[0]
    two = cr.IPWRA.from_formula("y ~ x1", frame, treat="d").fit()
    assert (two.effect, two.effect_se) == (two.params["ATE"], two.bse["ATE"])
