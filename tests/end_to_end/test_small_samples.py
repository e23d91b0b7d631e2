"""Small samples and few clusters: t tests and intervals, against R and statsmodels, in all that a fit prints."""

from __future__ import annotations

import json
import re
import warnings

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats

import causalrisk as cr
from causalrisk.report.methods import call_of
from tests.conftest import REFERENCE, RHS, simulate

SMALL = json.loads((REFERENCE / "smallsample_inference.json").read_text("utf-8"))["cases"]
TESTS = json.loads((REFERENCE / "hypotheses_tests.json").read_text("utf-8"))["cases"]
JACKKNIFE = [case for case in SMALL if case["kind"].startswith("jackknife")]
LIN = {case["id"]: case for case in SMALL if case["kind"] == "lin_regression"}
LITTER = {case["id"]: case for case in TESTS if case["data"] == "hypotheses_litter.csv"}


def data_of(case):
    return pd.read_csv(REFERENCE / case["data"])


def model_of(case):
    spec = case["model"]
    return getattr(cr, spec["estimator"]).from_formula(
        f"{spec['outcome']} ~ {spec['covariates']}",
        data_of(case),
        treat=spec["treat"],
        target=spec["target"],
        cluster=case["cluster"],
        **({"propensity": spec["propensity"]} if spec["estimator"] != "OutcomeRegression" else {}),
    )


def litter():
    return cr.OutcomeRegression.from_formula(
        "weight ~ gesttime + number", pd.read_csv(REFERENCE / "hypotheses_litter.csv"), treat="dose", reference=0
    )


def as_t(frame, df):
    """Assert that the columns of a table are those of t tests and intervals with these degrees of freedom."""
    where = list(frame.columns).index("t")
    assert list(frame.columns)[where + 1] == "P>|t|"
    np.testing.assert_allclose(frame["P>|t|"], 2 * stats.t.sf(frame["t"].abs(), df), rtol=1e-10)
    half = stats.t.ppf(0.975, df) * frame["std err"]
    low, high = frame["[0.025"], frame["0.975]"]
    np.testing.assert_allclose((high - low) / 2, half, rtol=1e-10)
    np.testing.assert_allclose((high + low) / 2, frame["estimate"], rtol=1e-10)


@pytest.mark.parametrize("case", JACKKNIFE, ids=lambda case: case["id"])
def test_intervals_of_the_sandwich_with_the_degrees_of_freedom_of_units(case):
    expected, clustered = case["result"], case["cluster"] is not None
    res = model_of(case).fit(**({"use_t": True} if clustered else {"df": case["n_units"] - 1}))
    np.testing.assert_allclose(res.params, expected["estimate"], rtol=1e-10)
    np.testing.assert_allclose(res.bse, expected["se_sandwich"], rtol=1e-8)
    np.testing.assert_allclose(res.conf_int(), expected["ci_sandwich_t"], rtol=1e-8)
    assert (res.use_t, res.df_resid) == (True, expected["df"])


def test_hc1_with_t_is_estimatr_s_without_covariates():
    case = LIN["means_rows"]
    hc1 = next(row for row in case["results"] if row["type"] == "HC1")
    res = model_of(case).fit(cov_type="HC1", use_t=True)
    assert res.df_resid == hc1["df"] == 38
    assert res.effect_se == pytest.approx(hc1["se"], rel=1e-10)
    np.testing.assert_allclose(res.conf_int().iloc[0], hc1["ci"], rtol=1e-9)


@pytest.mark.parametrize(("name", "kind"), [("lin_rows", "HC0"), ("lin_clusters", "CR0")])
def test_the_sandwich_is_lin_s_regression_with_the_covariates_means_estimated(name, kind):
    expected = next(row for row in LIN[name]["results"] if row["type"] == kind)
    res = model_of(LIN[name]).fit()
    assert res.effect == pytest.approx(expected["estimate"], rel=1e-10)
    assert res.effect_se == pytest.approx(expected["se_with_means"], rel=1e-8)


@pytest.mark.parametrize("name", ["litter_pairwise_t", "litter_pairwise_z"])
def test_pairs_of_doses_as_multcomp_has_them(name):
    case = LITTER[name]
    res = litter().fit(use_t=case["df"] != "inf")
    frame, expected = res.pairwise(), case["result"]
    symbol = "z" if case["df"] == "inf" else "t"
    assert case["df"] == ("inf" if symbol == "z" else res.df_resid)
    for column, key in (("estimate", "estimate"), ("std err", "se"), (symbol, "t"), (f"P>|{symbol}|", "p")):
        np.testing.assert_allclose(frame[column], expected[key], rtol=1e-8)
    single = res.t_test(np.c_[np.zeros((6, 3)), case["contrasts"]["matrix"]])
    assert single.distribution == {"t": "t", "z": "norm"}[symbol]
    np.testing.assert_allclose(single.pvalue, expected["p"], rtol=1e-8)


@pytest.mark.parametrize("use_t", [True, False])
def test_a_regression_without_covariates_as_statsmodels_tests_it(use_t):
    """Clustered errors with the factor, as statsmodels has them by default, and its t and F with G - 1."""
    rng = np.random.default_rng(4)
    frame = simulate(200).assign(g=rng.integers(0, 14, 200))
    frame["y"] += rng.normal(size=14)[frame.g]
    theirs = smf.ols("y ~ d", frame).fit(cov_type="cluster", cov_kwds={"groups": frame.g}, use_t=use_t)
    res = cr.OutcomeRegression.from_formula("y ~ 1", frame, treat="d", cluster="g").fit(small_sample=True, use_t=use_t)
    rows = ["ATE", "POM[0]"]
    np.testing.assert_allclose(res.bse[rows], theirs.bse[["d", "Intercept"]], rtol=1e-10)
    np.testing.assert_allclose(res.tvalues[rows], theirs.tvalues[["d", "Intercept"]], rtol=1e-10)
    np.testing.assert_allclose(res.pvalues[rows], theirs.pvalues[["d", "Intercept"]], rtol=1e-9)
    np.testing.assert_allclose(res.conf_int().loc[rows], theirs.conf_int().loc[["d", "Intercept"]], rtol=1e-9)
    joint, same = res.wald_test("ATE = 0, POM[0] = 0"), theirs.wald_test("d = 0, Intercept = 0", scalar=True)
    assert joint.distribution == same.distribution == ("F" if use_t else "chi2")
    assert joint.statistic.item() == pytest.approx(same.statistic, rel=1e-9)
    assert float(joint.pvalue) == pytest.approx(float(same.pvalue), rel=1e-9)
    one, other = res.t_test("ATE = 0.5"), theirs.t_test("d = 0.5")
    assert one.distribution == other.distribution
    np.testing.assert_allclose(one.conf_int(), other.conf_int(), rtol=1e-9)
    np.testing.assert_allclose(one.pvalue, other.pvalue, rtol=1e-9)
    assert res.use_t is use_t
    assert res.df_resid == theirs.df_resid_inference == 13


@pytest.mark.parametrize(("options", "df"), [({"use_t": True}, 12), ({"df": 4.5}, 4.5)])
def test_all_tables_of_a_fit_have_the_same_distribution(options, df):
    frame = simulate(200).assign(g=np.arange(200) % 13, m=np.arange(200) // 2 % 2)
    res = cr.AIPW.from_formula(f"y ~ {RHS}", frame, treat="d", cluster="g").fit(**options)
    tables = [res.summary_frame(), res.effects_by("m", frame), res.effects_by("~ x1"), res.differences_by("m", frame)]
    for table in [*tables, res.pairwise()]:
        as_t(table, df)
    joint, means = res.equality_test("m", frame), res.wald_test("POM[0] = 1, POM[1] = 1")
    chi2 = float(joint.fvalue.item() * joint.df_num)
    gap = res.differences_by("m", frame)["t"].iloc[0]
    assert chi2 == pytest.approx(gap**2, rel=1e-9)
    assert float(joint.pvalue) == pytest.approx(stats.f.sf(gap**2, 1, df), rel=1e-9)
    assert (means.df_num, means.df_denom) == (2, df)
    ratio = res.nlcom("POM[1] / POM[0] - 1")
    assert float(ratio.pvalue) == pytest.approx(2 * stats.t.sf(abs(ratio.statistic.item()), df), rel=1e-9)
    predicted = res.get_prediction(frame.head(3), arm=1).summary_frame()
    half = (predicted["mean_ci_upper"] - predicted["mean_ci_lower"]) / 2
    np.testing.assert_allclose(half, stats.t.ppf(0.975, df) * predicted["mean_se"], rtol=1e-9)
    tidy = res.tidy()
    np.testing.assert_array_equal(tidy["df"], df)
    np.testing.assert_allclose(tidy["p_value"], res.pvalues, rtol=0)
    assert res.glance()["df"].item() == df
    np.testing.assert_allclose(tidy[["conf_low", "conf_high"]], res.conf_int(method="delta"), rtol=1e-12)


def test_observations_less_outcome_coefficients_without_clusters():
    frame = simulate(120).assign(w=1 + np.arange(120) % 3)
    rows = cr.IPWRA.from_formula(f"y ~ {RHS}", frame, treat="d").fit(use_t=True)
    assert rows.df_resid == 120 - 8
    counted = cr.IPWRA.from_formula(f"y ~ {RHS}", frame, treat="d", weights="w", weight_type="frequency")
    assert counted.fit(use_t=True).df_resid == 240 - 8
    ratio = cr.IPWRA.from_formula(f"I(y > 1) ~ {RHS}", frame, treat="d", family="binomial", effect="ratio")
    fit, plain = ratio.fit(use_t=True), ratio.fit()
    log = np.log(fit.conf_int().iloc[0])
    wider = stats.t.ppf(0.975, 112) / stats.norm.ppf(0.975)
    assert np.diff(log).item() == pytest.approx(wider * np.diff(np.log(plain.conf_int().iloc[0])).item(), rel=1e-9)


def test_a_comparison_has_the_degrees_of_freedom_of_each_estimator():
    frame = simulate(120)
    names = ["Unadjusted", "IPWRA"]
    both = cr.compare(f"y ~ {RHS}", frame, treat="d", estimators=names, n_boot=60, use_t=True)
    table, df = both.table, np.array([118, 112])
    np.testing.assert_allclose(table["P>|t|"], 2 * stats.t.sf(table["t"].abs(), df), rtol=1e-10)
    gap = both.differences
    np.testing.assert_allclose(gap["P>|t|"], 2 * stats.t.sf(gap["t"].abs(), 112), rtol=1e-10)
    assert [res.df_resid for res in both.bootstrapped.values()] == [118, 112]


def test_jre_and_its_start_and_pooled_fits():
    frame = simulate(150)
    res = cr.JRE.from_formula(f"y ~ {RHS}", frame, treat="d").fit(n_boot=60, n_replicates=40, use_t=True)
    assert (res.use_t, res.df_resid, res.start.use_t, res.start.df_resid) == (True, 142, True, 142)
    as_t(res.start_difference(), 142)
    assert "142 degrees of freedom" in " ".join(str(res.summary()).split())
    imputed = [frame, frame.assign(x1=frame.x1 + frame.x2 / 10)]
    fits = [cr.IPWRA.from_formula("y ~ x1", each, treat="d").fit(df=7) for each in imputed]
    assert cr.pool(fits).df_complete == 7


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        ({"use_t": "yes"}, "use_t"),
        ({"df": 0}, "use_t=True"),
        ({"df": "many"}, "use_t=True"),
    ],
)
def test_wrong_degrees_of_freedom_are_refused(options, advice):
    with pytest.raises(cr.OptionError, match=advice):
        cr.IPWRA.from_formula(f"y ~ {RHS}", simulate(100), treat="d").fit(**options)


def two_ways(n=300, seed=3):
    """Rows in clusters of two crossed variables, with effects of both."""
    rng = np.random.default_rng(seed)
    frame = simulate(n, seed=seed).assign(firm=rng.integers(0, 15, n), year=rng.integers(0, 11, n))
    frame["y"] += rng.normal(size=15)[frame.firm] + rng.normal(size=11)[frame.year]
    return frame


@pytest.mark.parametrize("small_sample", [False, True])
def test_two_way_clusters_of_a_regression_are_statsmodels_s(small_sample):
    frame = two_ways()
    groups = frame[["firm", "year"]].to_numpy()
    kwds = {"groups": groups, "use_correction": small_sample}
    theirs = smf.ols("y ~ d", frame).fit(cov_type="cluster", cov_kwds=kwds, use_t=True)
    for given in (["firm", "year"], frame[["firm", "year"]], groups):
        model = cr.OutcomeRegression.from_formula("y ~ 1", frame, treat="d", cluster=given)
        res = model.fit(small_sample=small_sample, use_t=True)
        np.testing.assert_allclose(res.bse[["ATE", "POM[0]"]], theirs.bse[["d", "Intercept"]], rtol=1e-10)
        assert res.df_resid == theirs.df_resid_inference == 10
        np.testing.assert_allclose(res.conf_int().loc["ATE"], theirs.conf_int().loc["d"], rtol=1e-9)


@pytest.mark.parametrize("model", [cr.IPW, cr.IPWRA, cr.AIPW, cr.JRE])
def test_two_way_clusters_by_hand_from_the_contributions(model):
    rng = np.random.default_rng(0)
    frame = two_ways().assign(w=rng.uniform(0.5, 2, 300), m=np.arange(300) % 2)
    options = {"weights": "w", "weight_type": "probability", "cluster": ["firm", "year"]}
    quick = {"n_replicates": 40, "cov_type": "cluster"} if model is cr.JRE else {}
    res = model.from_formula(f"y ~ {RHS}", frame, treat="d", **options).fit(**quick)
    psi = res.estimating_equations().mul(frame.w, axis=0)
    firms, years, both = (
        psi.groupby([frame[name] for name in names]).sum() for names in (["firm"], ["year"], ["firm", "year"])
    )
    by_hand = sum(sign * sums.T @ sums for sign, sums in ((1, firms), (1, years), (-1, both))) / frame.w.sum() ** 2
    np.testing.assert_allclose(res.cov_params(), by_hand.iloc[:3, :3] * res._record.choice_variance, rtol=1e-9)
    assert res._record.design.cluster_names == ("firm", "year")
    assert "firm (15), year (11)" in " ".join(str(res.summary()).split())
    assert "firm and year (Cameron" in res.methods()
    assert "cluster=['firm', 'year']" in call_of(res._record)


def test_two_way_clusters_where_one_holds_the_other_are_the_larger_ones():
    frame = two_ways().assign(part=lambda f: 10 * f.firm + f.year % 2)
    nested = cr.IPWRA.from_formula(f"y ~ {RHS}", frame, treat="d", cluster=["firm", "part"]).fit()
    alone = cr.IPWRA.from_formula(f"y ~ {RHS}", frame, treat="d", cluster="firm").fit()
    np.testing.assert_allclose(nested.bse, alone.bse, rtol=1e-9)
    np.testing.assert_allclose(nested.effects_by("~ x1")["std err"], alone.effects_by("~ x1")["std err"], rtol=1e-9)
    trimmed = nested.model.with_options(trim=(0.2, 0.8)).fit()
    np.testing.assert_allclose(trimmed.bse, alone.model.with_options(trim=(0.2, 0.8)).fit().bse, rtol=1e-9)


def test_negative_variances_of_two_way_clusters_are_zero_and_told():
    """Each firm is seen once a year: the sums of a firm, and of a year, are nearly zero, and less than their parts."""
    rng = np.random.default_rng(2)
    grid = rng.normal(size=(8, 8))
    grid -= grid.mean(axis=0) + grid.mean(axis=1)[:, None] - grid.mean()
    frame = pd.DataFrame({"y": grid.ravel(), "firm": np.repeat(np.arange(8), 8), "year": np.tile(np.arange(8), 8)})
    frame["d"] = (frame.firm + frame.year) % 2
    model = cr.IPW.from_formula("y ~ 1", frame, treat="d", propensity="1", cluster=["firm", "year"])
    with pytest.warns(cr.DesignWarning, match="cluster="):
        res = model.fit()
    assert np.linalg.eigvalsh(res.cov_params()).min() > -1e-12
    assert "negative eigenvalue" in " ".join(str(res.summary()).split())
    gap = np.array([1.0, 1.0, -1.0])  # the effect is the difference of the means, with or without them
    assert abs(gap @ res.cov_params().to_numpy() @ gap) < 1e-12


def test_missing_values_of_either_variable_leave_rows_out():
    frame = two_ways()
    frame.loc[:4, "firm"], frame.loc[3:9, "year"] = np.nan, np.nan
    assert cr.IPWRA.from_formula(f"y ~ {RHS}", frame, treat="d", cluster=["firm", "year"]).fit().nobs == 290


def test_resamples_of_two_way_clusters_are_refused():
    frame = two_ways().assign(m=np.arange(300) % 2)
    options = {"treat": "d", "cluster": ["firm", "year"]}
    joint = cr.JRE.from_formula(f"y ~ {RHS}", frame, **options)
    with pytest.raises(cr.OptionError, match=r'fit\(cov_type="cluster"\)'):
        joint.fit()
    with pytest.raises(cr.OptionError, match='cluster="firm"'):
        cr.compare(f"y ~ {RHS}", frame, n_boot=20, **options)
    res = joint.fit(cov_type="cluster", n_replicates=40)
    assert np.isfinite(res.effects_by("m", frame)["std err"]).all()
    with pytest.raises(cr.DesignError, match="cluster"):
        cr.IPWRA.from_formula(f"y ~ {RHS}", frame, treat="d", cluster=["firm", "year", "m"])


@pytest.mark.parametrize("groups", ["column", "values", "list", "two", "name", "of the sample"])
def test_clusters_given_to_fit_as_in_statsmodels(groups):
    frame = two_ways()
    frame.loc[5, "y"] = np.nan
    given = {
        "column": frame.firm, "values": frame.firm.to_numpy(), "list": frame.firm.tolist(),
        "two": frame[["firm", "year"]], "name": "x1", "of the sample": frame.firm.drop(5).to_numpy(),
    }[groups]  # fmt: skip
    cluster = {"two": ["firm", "year"], "name": "x1"}.get(groups, "firm")
    model = cr.IPWRA.from_formula(f"y ~ {RHS}", frame, treat="d")
    res = model.fit(cov_type="cluster", cov_kwds={"groups": given, "use_correction": True}, use_t=True)
    same = cr.IPWRA.from_formula(f"y ~ {RHS}", frame, treat="d", cluster=cluster).fit(small_sample=True, use_t=True)
    np.testing.assert_array_equal(res.summary_frame(), same.summary_frame())
    np.testing.assert_array_equal(res.model.fit().bse, same.model.fit().bse)
    assert model.fit().cov_type == "robust"


def test_the_jackknife_takes_clusters_given_to_fit():
    frame, jackknife = simulate(240).assign(g=np.arange(240) % 20), {"cov_type": "jackknife", "use_t": True}
    res = cr.IPWRA.from_formula("y ~ x1", frame, treat="d").fit(cov_kwds={"groups": frame.g}, **jackknife)
    same = cr.IPWRA.from_formula("y ~ x1", frame, treat="d", cluster="g").fit(**jackknife)
    np.testing.assert_array_equal(res.bse, same.bse)


@pytest.mark.parametrize(
    ("given", "cluster", "advice"),
    [
        ({"maxlags": 1}, None, r'Use `cov_kwds=\{"groups": data\["id"\]\}'),
        ({"groups": "firm"}, None, r'Use `from_formula\(..., cluster="firm"\)`'),
        ({"groups": np.r_[np.nan, np.arange(299)]}, None, "missing|NaN|values"),
        ({"groups": np.arange(9)}, None, "one value per row"),
        ({"groups": np.arange(300)}, "firm", "Leave cov_kwds= out"),
    ],
)
def test_wrong_clusters_given_to_fit_are_refused(given, cluster, advice):
    model = cr.IPWRA.from_formula(f"y ~ {RHS}", two_ways(), treat="d", cluster=cluster)
    with pytest.raises((cr.OptionError, cr.DesignError), match=advice):
        model.fit(cov_kwds=given)


@pytest.mark.parametrize(
    ("clusters", "options", "advice"),
    [
        (12, {}, r"fit\(cov_type=.jackknife., use_t=True\)"),
        (49, {"small_sample": True}, r"fit\(cov_type=.jackknife., use_t=True\)"),
        (12, {"n_boot": 20}, r"fit\(cov_type=.jackknife., use_t=True\)"),
        (4, {"use_t": True, "small_sample": True}, "No other standard error fixes this."),
        (4, {}, "No other standard error fixes this."),
    ],
)
def test_few_clusters_are_told_with_the_remedy(clusters, options, advice):
    model = cr.IPWRA.from_formula("y ~ x1", simulate(300).assign(g=np.arange(300) % clusters), treat="d", cluster="g")
    with pytest.warns(cr.DesignWarning, match=f"only {clusters} clusters of 'g' are in the data. With[^$]*{advice}"):
        res = model.fit(**options)
    assert f"Only {clusters} clusters of 'g' are in the data. With fewer than" in " ".join(str(res.summary()).split())


@pytest.mark.parametrize(
    ("clusters", "options", "advice"),
    [
        (12, {}, r'`fit\(cov_type="jackknife", use_t=True\)`.*`res.permutation_test\(\)`'),
        (12, {"use_t": True, "small_sample": True}, r'`fit\(cov_type="jackknife", use_t=True\)`.*permutation_test'),
        (4, {"cov_type": "jackknife", "use_t": True}, r"`res.permutation_test\(\)` is exact"),
        (6, {"cov_type": "jackknife", "use_t": True}, None),
        (30, {"use_t": True}, None),
    ],
)
def test_few_clusters_that_were_assigned_as_a_whole(clusters, options, advice):
    """Half of the clusters in each arm; with the jackknife and t three in an arm are enough."""
    g = np.arange(300) % clusters
    data = simulate(300).assign(g=g, d=(g < clusters // 2).astype(int))
    model = cr.IPWRA.from_formula("y ~ x1", data, treat="d", cluster="g", propensity="1")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        res = model.fit(**options)
    told = [str(warning.message).replace("\n", " ") for warning in caught]
    assert not any("No other standard error" in text for text in told)
    if advice is None:
        assert not told
        return
    (text,) = told
    assert re.search(advice, text) and f"only {clusters // 2} clusters of 'g' have rows of group" in text
    assert ('jackknife", use_t' in text) == ("cov_type" not in options)  # it is not told to do what it does
    assert res.permutation_test(n_permutations=19).pvalue <= 1


@pytest.mark.parametrize("options", [{}, {"use_t": True, "small_sample": True}, {"use_t": True}], ids=str)
@pytest.mark.parametrize(("treated", "advice"), [(3, "df=2"), (47, "df=2"), (9, "df=8"), (12, None)])
def test_few_of_many_clusters_use_the_degrees_of_freedom_of_the_smaller_group(options, treated, advice):
    """In 300 samples with 3 treated clusters of 50, intervals covered 87% with 49 degrees of freedom, 98% with 2."""
    g = np.arange(500) % 50
    data = simulate(500).assign(g=g, d=(g < treated).astype(int))
    model = cr.OutcomeRegression.from_formula("y ~ x1", data, treat="d", cluster="g")
    jackknife = options == {"use_t": True}
    options = {"cov_type": "jackknife"} | options if jackknife else options
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(**options)
    if advice is None:
        assert len(caught) == (not jackknife)
        return
    (told,) = (str(one.message) for one in caught)
    assert f'Use `fit(cov_type="jackknife", {advice})`' in told and f"{min(treated, 50 - treated)} clusters" in told
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        res = model.fit(cov_type="jackknife", df=int(advice[3:]))
    assert res.df_resid == int(advice[3:])


def many_columns(rows, covariates=9):
    """Rows of two arms of equal size, with more covariates than they bear."""
    rng = np.random.default_rng(7)
    columns = {f"x{k}": rng.normal(size=rows) for k in range(1, covariates + 1)}
    return pd.DataFrame(columns | {"d": np.arange(rows) % 2, "y": rng.normal(size=rows)})


MANY = "y ~ " + " + ".join(f"x{k}" for k in range(1, 10))


@pytest.mark.parametrize(("estimator", "scanned"), [
    *((kind, False) for kind in (cr.OutcomeRegression, cr.IPWRA, cr.AIPW, cr.JRE)), (cr.AIPW, True), (cr.JRE, True),
])  # fmt: skip
def test_many_coefficients_for_the_rows_of_an_arm_are_told_with_the_remedy(estimator, scanned):
    """Ten coefficients for 39 rows. The small-sample factor makes up for them in groups of equal size."""
    data = many_columns(78)
    model = estimator.from_formula(
        MANY, cr.scan([data[:40], data[40:]]) if scanned else data, treat="d",
        **({} if estimator is cr.OutcomeRegression else {"propensity": "d ~ x1"}),
    )  # fmt: skip
    options = {"n_replicates": 4} if estimator is cr.JRE else {}
    found = "group '0' has 39 observations and 10 outcome coefficients.* far too small"
    with pytest.warns(cr.DesignWarning, match=found) as told:
        res = model.fit(cov_type="robust", **options)
    assert ('cov_type="jackknife"' in str(told[0].message)) != scanned
    assert "39 observations and 10 outcome coefficients" in " ".join(str(res.summary()).split())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(cov_type="robust", small_sample=True, use_t=True, **options)


@pytest.mark.parametrize("estimator", [cr.OutcomeRegression, cr.IPW, cr.Unadjusted])
def test_a_few_treated_rows_among_many_are_told_until_the_jackknife_is_used(estimator):
    """The factor n / (n - k) of 200 rows does not help a group of eight."""
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"x": rng.normal(size=200), "y": rng.normal(size=200), "d": np.arange(200) < 8})
    model = estimator.from_formula(
        "y ~ x" if estimator is cr.OutcomeRegression else "y ~ 1", data, treat="d",
        **({"propensity": "x"} if estimator is cr.IPW else {}),
    )  # fmt: skip
    for options in ({}, {"small_sample": True, "use_t": True}, {"cov_type": "HC1"}):
        with pytest.warns(cr.DesignWarning, match=r"(?s)group '1' has 8 observations.*jackknife"):
            model.fit(**options)
    with warnings.catch_warnings():
        warnings.simplefilter("error", cr.DesignWarning)
        model.fit(cov_type="jackknife", use_t=True)


@pytest.mark.filterwarnings("ignore:only 3 clusters")
def test_few_treated_clusters_among_many_need_their_own_degrees_of_freedom():
    """3 of 50: the variance is of the three treated, so the statistic has a t distribution with two degrees."""
    covered = np.zeros((80, 2), dtype=bool)
    for seed in range(len(covered)):
        rng = np.random.default_rng(seed)
        cluster = np.repeat(np.arange(50), 4)
        frame = pd.DataFrame({"y": rng.normal(size=50)[cluster] + rng.normal(size=200), "d": cluster < 3, "g": cluster})
        res = cr.OutcomeRegression.from_formula("y ~ 1", frame, treat="d", cluster="g").fit(
            cov_type="jackknife", use_t=True
        )
        z = abs(res.effect / res.effect_se)
        covered[seed] = z <= stats.t.ppf(0.975, 49), z <= stats.t.ppf(0.975, 2)
    assert res.df_resid == 49
    assert covered.mean(axis=0)[0] < 0.92 and covered.mean(axis=0)[1] > 0.93
