"""Rubin's rules against the formulas of R's mice, and fits to imputed data made one by hand."""

from __future__ import annotations

import copy
import functools
import pickle
import re

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from sklearn.linear_model import LogisticRegression

from causalrisk import (
    AIPW,
    IPWRA,
    JRE,
    DesignError,
    DesignWarning,
    OptionError,
    OutcomeRegression,
    Survey,
    UnavailableError,
    etable,
    pool,
    scan,
)
from causalrisk.models.pooled import rubin
from tests.conftest import simulate


def mice(q, u, dfcom):
    """pool.scalar and barnard.rubin of R's mice 3, for one parameter, and its summary's p-value and interval."""
    m = len(q)
    qbar, ubar = sum(q) / m, sum(u) / m
    b = sum((x - qbar) ** 2 for x in q) / (m - 1)
    t = ubar + (m + 1) * b / m
    r = (1 + 1 / m) * b / ubar
    lam = (1 + 1 / m) * b / t
    dfold = (m - 1) / lam**2
    dfobs = (dfcom + 1) / (dfcom + 3) * dfcom * (1 - lam) if np.isfinite(dfcom) else np.inf
    df = dfold * dfobs / (dfold + dfobs) if np.isfinite(dfcom) else dfold
    fmi = (r + 2 / (df + 3)) / (r + 1)
    p = 2 * scipy.stats.t.sf(abs(qbar) / t**0.5, df)
    return [qbar, t, r, lam, df, fmi, p]


@pytest.mark.parametrize("dfcom", [12.0, 250.0, np.inf])
@pytest.mark.parametrize("m", [2, 5, 40])
def test_formulas_of_mice(m, dfcom):
    rng = np.random.default_rng(m)
    estimates = rng.normal(2, [0.5, 1, 0.01], (m, 3))
    roots = rng.normal(size=(m, 3, 3)) * np.array([1, 0.3, 2])[:, None]
    covariances = roots @ roots.transpose(0, 2, 1)
    pooled, total = rubin(estimates, covariances, dfcom)
    for j in range(3):
        found = pooled.loc[j, ["estimate", "total", "riv", "lambda", "df", "fmi"]]
        np.testing.assert_allclose(found, mice(estimates[:, j], covariances[:, j, j], dfcom)[:6], rtol=1e-10)
        np.testing.assert_allclose(pooled.loc[j, "std err"] ** 2, total[j, j], rtol=1e-10)
    np.testing.assert_allclose(total, covariances.mean(axis=0) + (1 + 1 / m) * np.cov(estimates.T), rtol=1e-10)


def test_where_nothing_is_missing():
    same = rubin(np.full((4, 1), 2.0), np.full((4, 1, 1), 0.25), 50.0)[0]
    assert (same["lambda"][0], same.riv[0]) == (0, 0)
    np.testing.assert_allclose(same.df, 51 / 53 * 50)
    normal = rubin(np.full((4, 1), 2.0), np.full((4, 1, 1), 0.25), np.inf)[0]
    assert normal.loc[0, ["estimate", "std err", "df"]].tolist() == [2, 0.5, np.inf]


def test_without_variance():
    between = rubin(np.array([[1.0], [2.0]]), np.zeros((2, 1, 1)), 50.0)[0]
    assert between.fmi[0] == 1 and np.isinf(between.riv[0])
    assert rubin(np.ones((3, 1)), np.zeros((3, 1, 1)), 50.0)[0]["std err"][0] == 0


M = 6


def imputed(n=250, **more):
    """Data sets that differ in a quarter of x1 only."""
    whole = simulate(n, seed=8).assign(firm=np.arange(n) // 10, **more)
    rng = np.random.default_rng(0)
    gone = rng.random(n) < 0.25
    return [whole.assign(x1=np.where(gone, rng.choice(whole.x1[~gone], n), whole.x1)) for _ in range(M)]


@pytest.fixture(scope="module")
def frames():
    return imputed()


def fits(frames, model=IPWRA, fit=None, formula="y ~ x1 + x2", **options):
    return [model.from_formula(formula, frame, treat="d", **options).fit(**(fit or {})) for frame in frames]


@pytest.mark.parametrize("model", [OutcomeRegression, IPWRA, AIPW, JRE])
def test_by_hand(frames, model):
    results = fits(frames, model, {"cov_type": "robust"})
    pooled = pool(results)
    for name in ("ATE", "POM[0]", "POM[1]"):
        q, u = (np.array([getattr(res, what)[name] for res in results]) for what in ("params", "bse"))
        b, within = q.var(ddof=1), (u**2).mean()
        total = within + (1 + 1 / M) * b
        lam, r, dfcom = (1 + 1 / M) * b / total, (1 + 1 / M) * b / within, 250 - 6
        old, obs = (M - 1) / lam**2, (dfcom + 1) / (dfcom + 3) * dfcom * (1 - lam)
        df = old * obs / (old + obs)
        expected = [
            q.mean(),
            total**0.5,
            q.mean() / total**0.5,
            df,
            2 * scipy.stats.t.sf(abs(q.mean()) / total**0.5, df),
        ]
        expected += list(scipy.stats.t.interval(0.9, df, q.mean(), total**0.5))
        np.testing.assert_allclose(pooled.summary_frame(0.1).loc[name], expected, rtol=1e-10)
        fmi = (r + 2 / (df + 3)) / (r + 1)
        table = pooled.missing_information.loc[name]
        np.testing.assert_allclose(table, [within, b, total, r, lam, df, fmi], rtol=1e-10)
        np.testing.assert_allclose([pooled.fmi[name], pooled.df[name]], [fmi, df], rtol=1e-10)
    assert pooled.effect == pooled.params["ATE"] and pooled.effect_se == pooled.bse["ATE"]
    np.testing.assert_allclose(np.sqrt(np.diag(pooled.cov_params())), pooled.bse)
    covariance = pooled.cov_params()  # the effect is the difference of the means, pooled too
    left = np.array([1, 1, -1])
    np.testing.assert_allclose(left @ covariance @ left, 0, atol=1e-10)


@pytest.mark.parametrize(("effect", "scale"), [("ratio", np.log), ("odds_ratio", np.log)])
def test_ratios_on_the_logarithmic_scale(effect, scale):
    frames = [f.assign(y=(f.y > f.y.median()).astype(int)) for f in imputed()]
    results = fits(frames, family="binomial", effect=effect)
    pooled, name = pool(results), results[0].params.index[0]
    q = np.log([res.effect for res in results])
    u = np.array([(res.effect_se / res.effect) ** 2 for res in results])
    total = u.mean() + (1 + 1 / M) * q.var(ddof=1)
    np.testing.assert_allclose(pooled.effect, np.exp(q.mean()), rtol=1e-10)
    np.testing.assert_allclose(pooled.effect_se, np.exp(q.mean()) * total**0.5, rtol=1e-10)
    np.testing.assert_allclose(pooled.tvalues[name], q.mean() / total**0.5, rtol=1e-10)
    limits = np.exp(scipy.stats.t.interval(0.95, pooled.df[name], q.mean(), total**0.5))
    np.testing.assert_allclose(pooled.conf_int().loc[name], limits, rtol=1e-10)
    assert "logarithmic scale" in str(pooled.summary())


def test_bootstrapped_ratios_have_the_errors_of_their_logarithms(frames):
    """Without variance between, the pooled interval is that of each fit."""
    res = fits([frames[0].assign(y=(frames[0].y > 1).astype(int))], fit={"n_boot": 60}, effect="odds_ratio")[0]
    with pytest.warns(DesignWarning, match="all fits have the same estimates"):
        pooled = pool([res, res], df_complete=np.inf)
    np.testing.assert_allclose(pooled.conf_int(), res.conf_int(), rtol=1e-10)


def test_functions_of_the_parameters_are_pooled_by_rubins_rules(frames):
    results = fits(frames)
    pooled, names = pool(results), ("ATE", "POM[1] / POM[0] - 1")
    found = pooled.nlcom(", ".join(names) + " = 2")
    for j, (name, null) in enumerate(zip(names, (0, 2), strict=True)):
        tests = [res.nlcom(name) for res in results]
        q, u = (np.array([np.squeeze(getattr(test, what)) for test in tests]) for what in ("effect", "sd"))
        qbar, t, _, _, df, _, _ = mice(q, u**2, 250 - 6)
        p = 2 * scipy.stats.t.sf(abs(qbar - null) / t**0.5, df)
        np.testing.assert_allclose([found.effect[j], found.sd[j], found.pvalue[j]], [qbar, t**0.5, p], rtol=1e-9)
        limits = scipy.stats.t.interval(0.9, df, qbar, t**0.5)
        np.testing.assert_allclose(found.conf_int(0.1)[j], limits, rtol=1e-9)
    np.testing.assert_allclose(found.sd[0], pooled.bse["ATE"], rtol=1e-10)
    assert list(found.summary_frame().index) == ["ATE", "POM[1] / POM[0] - 1"]
    with pytest.raises(OptionError, match="cannot read"):
        pooled.nlcom("ATT")


def test_equivalence_of_pooled_effects(frames):
    pooled = pool(fits(frames))
    test = pooled.equivalence_test(1, 2.5)
    t = (pooled.effect - np.array([1, 2.5])) / pooled.effect_se
    p = [scipy.stats.t.sf(t[0], pooled.df["ATE"]), scipy.stats.t.cdf(t[1], pooled.df["ATE"])]
    np.testing.assert_allclose(test.loc["ATE", ["P (> 1)", "P (< 2.5)"]].astype(float), p, rtol=1e-8)
    np.testing.assert_allclose(test[["[0.05", "0.95]"]].loc["ATE"], pooled.conf_int(0.1).loc["ATE"], rtol=1e-12)
    assert "t (> 1)" in test
    binary = [frame.assign(y=(frame.y > frame.y.median()).astype(int)) for frame in frames]
    ratio = pool(fits(binary, family="binomial", effect="ratio"))
    name = ratio.params.index[0]
    found = ratio.equivalence_test(low=1.2)
    t = (np.log(ratio.effect) - np.log(1.2)) / (ratio.effect_se / ratio.effect)
    np.testing.assert_allclose(found["P"], scipy.stats.t.sf(t, ratio.df[name]), rtol=1e-8)
    np.testing.assert_allclose(found[["[0.05", "0.95]"]].loc[name], ratio.conf_int(0.1).loc[name], rtol=1e-12)
    with pytest.raises(OptionError, match="low"):
        ratio.equivalence_test(-1)


def test_methods_of_pooled_fits(frames):
    binary = [frame.assign(y=(frame.y > frame.y.median()).astype(int)) for frame in frames]
    text = pool(fits(binary, family="binomial", effect="ratio", cluster="firm")).methods()
    for said in ("risk ratio", "6 imputed data sets", "Rubin 1987", "Barnard and Rubin (1999)", "logarithmic scale",
                 "clustered by firm"):  # fmt: skip
        assert said in text
    assert "normal" not in text and "seed" not in text  # intervals use the t distribution, no random numbers
    joint = pool(fits(frames, JRE, {"cov_type": "robust", "rng": 3})).methods()
    assert "are from the first" in joint and "by IPWRA" not in joint and "from seed 3." in joint


@pytest.mark.parametrize("name", ["balance", "overlap", "propensity_scores"])
def test_what_pooled_results_lack_is_asked_of_a_fit(frames, name):
    pooled = pool(fits(frames))
    with pytest.raises(UnavailableError, match=rf"`\[res\.{name}.* for res in pooled\.results\]`"):
        getattr(pooled, name)
    for name in ("fit", "with_options", "ate", "HC1_se"):  # the model of one data set is not the answer
        with pytest.raises(UnavailableError, match=r"`pool\(\[model\.fit\("):
            getattr(pooled, name)
    with pytest.raises(UnavailableError, match=r"`res\.nlcom\("):
        pooled.lincom  # noqa: B018
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        pooled.nothing_of_the_kind  # noqa: B018


def test_pooled_fits_with_missing_outcomes_and_a_survey():
    frame = simulate(200, seed=2).assign(pw=1.0, stratum=np.arange(200) % 4, psu=np.arange(200) % 20)
    rng, lost = np.random.default_rng(0), np.arange(200) % 5 == 0
    data = [frame.assign(x1=frame.x1 + 0.1 * rng.normal(size=200), y=frame.y.where(~lost)) for _ in range(3)]
    survey = Survey(weights="pw", strata="stratum", psu="psu")
    made = fits(data, observed="(x1 + x2) * d", design=survey)
    text = " ".join(str(pool(made).summary()).split())
    assert "No outcome: 40 (20.0%)" in text and "40 rows with covariates but no outcome" in text
    assert "Observed: (x1 + x2) * d" in text
    assert "PSUs: psu (20)" in text and "Strata: stratum (4)" in text
    with pytest.raises(DesignError, match="observed="):
        pool([made[0], fits(data[1:2], observed="x1", design=survey)[0]])


def test_percent_is_the_ratio_less_one():
    frames = [f.assign(y=np.exp(f.y / 4)) for f in imputed()]
    ratio, percent = (pool(fits(frames, effect=effect)) for effect in ("ratio", "percent"))
    np.testing.assert_allclose(percent.conf_int().iloc[0], 100 * (ratio.conf_int().iloc[0] - 1), rtol=1e-10)
    np.testing.assert_allclose(percent.pvalues.iloc[0], ratio.pvalues.iloc[0], rtol=1e-10)


def test_complete_degrees_of_freedom(frames):
    assert pool(fits(frames, cluster="firm")).df_complete == 24
    rubins = pool(fits(frames), df_complete=np.inf)
    np.testing.assert_allclose(rubins.df, (M - 1) / rubins.missing_information["lambda"] ** 2)


def test_several_arms(frames):
    for frame in frames:
        frame["arm"] = np.where(frame.x3 > 0.5, 2, frame.d)
    results = [IPWRA.from_formula("y ~ x1", f, treat="arm", reference=0).fit() for f in frames]
    pooled = pool(iter(results))
    assert list(pooled.params.index) == list(results[0].params.index)
    np.testing.assert_allclose(pooled.params, np.mean([res.params for res in results], axis=0))


def test_summary_and_exports(frames):
    pooled = pool(fits(frames))
    text = str(pooled.summary())
    assert max(map(len, text.splitlines())) <= 78
    for words in ("IPW Regression Adjustment (IPWRA) Results, Pooled", "Imputations:", "Complete-data df:", "P>|t|"):
        assert words in text
    assert repr(pooled).startswith("IPWRA, 6 imputations: ATE ")
    assert pooled._repr_html_() == pooled.summary().as_html()
    tidy = pooled.tidy()
    assert list(tidy.columns[-4:]) == ["conf_low", "conf_high", "df", "fmi"]
    np.testing.assert_array_equal(tidy.conf_low, pooled.conf_int()[0])
    assert "conf_low" not in pooled.tidy(conf_int=False)
    assert pooled.glance().loc[0, ["estimator", "imputations", "nobs"]].tolist() == ["IPWRA", 6, 250]
    assert pooled.glance().loc[0, "df"] == pooled.df["ATE"]
    cells = {row[0]: row[1:] for row in etable([pooled, pooled.results[0]]).tables[0].body}
    assert cells["Imputations"] == ["6", ""]
    for other in (pickle.loads(pickle.dumps(pooled)), copy.deepcopy(pooled)):
        pd.testing.assert_series_equal(other.params, pooled.params)


def square(e):
    return e**2


def odds_like(power):
    return lambda e: (e * (1 - e)) ** power


OTHERS = {
    "no clip= and clip=": [{}, {"clip": (0.2, 0.8)}],
    "trim=(0.01, 0.99) and trim=": [{"trim": (0.01, 0.99)}, {"trim": (0.02, 0.98)}],
    "no propensity_link= and propensity_link=": [{}, {"propensity_link": "probit"}],
    "no propensity_loss= and propensity_loss=": [{}, {"propensity_loss": "calibrated"}],
    "no n_folds= and n_folds=4": [{}, {"n_folds": 4}],
    "no target= and target='treated'": [{}, {"target": "treated"}],
    "function of target= square and function of target= ": [{"target": square}, {"target": odds_like(1)}],
    "no weights= and weights=": [{}, {"weights": "w", "weight_type": "probability"}],
    "weight_type=": [{"weights": "w", "weight_type": "frequency"}, {"weights": "w", "weight_type": "probability"}],
    "outcome model linear and outcome model poisson": [
        {"formula": "count ~ x1"},
        {"formula": "count ~ x1", "family": "poisson"},
    ],
    "outcome model binomial (logit) and outcome model binomial (probit)": [
        {"formula": "binary ~ x1", "family": "binomial"},
        {"formula": "binary ~ x1", "family": "binomial", "link": "probit"},
    ],
    "cluster='firm' and cluster='town'": [{"cluster": "firm"}, {"cluster": "town"}],
    "propensity_score=": [
        {"propensity_score": LogisticRegression()},
        {"propensity_score": LogisticRegression(C=0.1)},
    ],
}


@pytest.fixture(scope="module")
def data():
    whole = np.arange(250)
    return imputed(town=whole // 5, w=1 + whole % 3, count=whole % 4, binary=whole % 2)


OF_JRE = ("no clip= and clip=", "no target= and target='treated'", "cluster='firm' and cluster='town'")


@pytest.fixture(scope="module")
def plain(data):
    """Fits without options to the first two data sets, by estimator and options of the fit."""

    @functools.cache
    def made(model, own):
        return fits(data[:2], model, dict(own))

    return made


@pytest.mark.filterwarnings("ignore::causalrisk.DesignWarning")
@pytest.mark.parametrize(("model", "what"), [(IPWRA, what) for what in OTHERS] + [(JRE, what) for what in OF_JRE])
def test_what_differs_is_refused(data, plain, what, model):
    options, own = OTHERS[what], {"cov_type": "cluster" if "cluster" in what else "robust"}
    own |= {"n_replicates": 20} if model is JRE else {}
    usual = () if all(options) else plain(model, tuple(own.items()))
    made = [fits(data[k : k + 1], model, own, **given)[0] if given else usual[k] for k, given in enumerate(options)]
    found = ", another has ".join(what.strip().split(" and "))
    with pytest.raises(DesignError, match=re.escape(f"the results are from different models: one has {found}")):
        pool(made)
    if "trim" not in what:  # which leaves other rows of each
        again = fits(data[1:2], model, own, **options[0])[0] if options[0] else usual[1]
        assert pool([made[0], again]).n_imputations == 2


def test_rows_of_another_target_frame(data):
    def fit(k, rows):
        return fits(data[k : k + 1], target=data[k].loc[rows])[0]

    first = fit(0, slice(0, 60))
    with pytest.raises(DesignError, match="different models: one has rows of target="):
        pool([first, fit(1, slice(60, 120))])
    assert pool([first, fit(1, slice(0, 60))]).n_imputations == 2


@pytest.mark.parametrize("option", [{"objective": "erm"}, {"shrinkage": 3.0}, {"spread": 0.7}, {"n_replicates": 100}])
def test_options_of_the_joint_fit(data, option):
    one, other = (fits(data[k : k + 1], JRE, {"cov_type": "robust", **own})[0] for k, own in ((0, {}), (1, option)))
    with pytest.raises(DesignError, match=f"different models: .*{next(iter(option))}="):
        pool([one, other])


def test_fits_that_differ_in_their_resamples_only(data):
    plain = {"cov_type": "bootstrap", "max_failed": 0.5}
    others = [{"n_boot": 20, "rng": 3}, {"n_boot": 25}, {"n_boot": 20, "bootstrap": "bayesian"}]
    made = [fits(data[k : k + 1], fit=plain | own)[0] for k, own in enumerate(others)]
    assert pool(made).n_imputations == 3
    with pytest.raises(DesignError, match="different models: one has no use_t=, another has use_t=True"):
        pool([made[0], fits(data[1:2], fit=plain | {"n_boot": 20, "rng": 3, "use_t": True})[0]])


SAME = {
    "target": [{"target": "ATT"}, {"target": "treated"}],
    "clip": [{"clip": [0.1, 0.9]}, {"clip": (0.1, 0.9)}],
    "smooth": [{"smooth": True}, {"learner": "smooth"}],
    "propensity": [{"propensity": "x1 + x2"}, {}],
    "treated": [{"treated": 1}, {"propensity_link": "logit"}],
    "cov_type": [{"fit": {"cov_type": "HC0"}}, {"fit": {"use_t": False}}],
    "HC1": [{"fit": {"cov_type": "HC1"}}, {"fit": {"small_sample": True}}],
    "max_failed": [{"fit": {"max_failed": 0.1}}, {}],
    "shrinkage": [
        {"model": JRE, "fit": {"cov_type": "robust", "shrinkage": 3}},
        {"model": JRE, "fit": {"cov_type": "robust", "shrinkage": 3.0, "n_replicates": 200, "spread": 0.5}},
    ],
}


@pytest.mark.parametrize("what", SAME)
def test_options_that_mean_the_same_are_pooled(frames, what):
    made = [fits(frames[k : k + 1], **given)[0] for k, given in enumerate(SAME[what])]
    assert pool(made).n_imputations == 2


@pytest.mark.parametrize("own", [{"n_boot": 20}, {"bootstrap": "multiplier", "n_boot": 20}, {"cov_type": "jackknife"}])
def test_kinds_of_standard_errors_are_not_mixed(frames, own):
    made = [fits(frames[:1])[0], fits(frames[1:2], fit=own)[0]]
    with pytest.raises(DesignError, match=r"no cov_type=, another has cov_type='(bootstrap|jackknife)'"):
        pool(made)


def test_estimates_are_copies(data):
    pooled = pool(fits(data[:2]))
    before = pooled.effect, pooled.effect_se, pooled.summary_frame()
    for name in ("params", "bse", "tvalues", "pvalues", "df", "fmi"):
        mine = getattr(pooled, name)
        mine["ATE"] = 0.0
    assert (pooled.effect, pooled.effect_se) == before[:2]
    pd.testing.assert_frame_equal(pooled.summary_frame(), before[2])


def test_functions_and_classifiers_made_anew_are_the_same(frames):
    for make in (lambda: {"target": odds_like(1)}, lambda: {"propensity_score": LogisticRegression()}):
        made = [fits(frames[k : k + 1], AIPW, **make())[0] for k in (0, 1)]
        assert pool(made).n_imputations == 2


def test_refusals(frames):
    good = fits(frames[:2])
    shorter = IPWRA.from_formula("y ~ x1 + x2", frames[0][:200], treat="d").fit()
    others = {
        "one has estimator IPWRA, another has estimator AIPW": fits(frames[:1], AIPW)[0],
        "one has no target=, another has target='treated'": fits(frames[:1], target="treated")[0],
        "one has formula y ~ x1 + x2, another has formula y ~ x1.": fits(frames[:1], formula="y ~ x1")[0],
        "one has no cluster=, another has cluster='firm'": fits(frames[:1], cluster="firm")[0],
        "one has observations 250, another has observations 200": shorter,
    }
    for what, other in others.items():
        with pytest.raises(DesignError, match=f"the results are from different models: {re.escape(what)}"):
            pool([*good, other])
    with pytest.raises(OptionError, match="got 1 results; expected at least two, one per imputed data set"):
        pool(good[:1])
    with pytest.raises(OptionError, match=r"df_complete=0; expected a positive number"):
        pool(good, df_complete=0)
    pd.testing.assert_frame_equal(pool(*good).summary_frame(), pool(good).summary_frame())
    for bad in ([good[0], good[0].model], ["a"], good[0].params):
        with pytest.raises(TypeError, match="expected results of an estimator"):
            pool(bad)
    with pytest.warns(DesignWarning, match="all fits have the same estimates"):
        pool([good[0], good[0]])


def test_equal_estimates_have_no_variance_between():
    """Rounding error apart, such as that of a mean of outcomes that none of the imputations changed."""
    estimates = np.array([[0.3, 1.0], [np.nextafter(0.3, 1), 1.1], [0.3, 1.2]])
    pooled, total = rubin(estimates, np.array([np.diag([0.04, 0.09])] * 3), np.inf)
    assert pooled["between"].tolist() == [0.0, pytest.approx(0.01)]
    assert total[0, 0] == pytest.approx(0.04, rel=1e-15) and pooled["fmi"][0] == 0


@pytest.mark.filterwarnings("ignore::causalrisk.CausalRiskWarning")
def test_jre_may_weigh_rows_in_one_data_set_alone():
    """Where draws lose a level with few treated rows, its bootstrap has weights, and the factor for small samples."""
    frame, fits = simulate(200), []
    for treated in (1, 40):
        rare = np.r_[np.flatnonzero(frame.d == 1)[:treated], np.flatnonzero(frame.d == 0)[:12]]
        data = frame.assign(rare=frame.index.isin(rare).astype(int))
        fits.append(JRE.from_formula("y ~ x1 + rare", data, treat="d").fit(n_boot=60))
    assert {res.glance().std_errors.iloc[0] for res in fits} == {"bootstrap (bayesian)", "bootstrap (pairs)"}
    assert pool(fits).params["ATE"] == pytest.approx(np.mean([res.effect for res in fits]))


@pytest.mark.filterwarnings("ignore::causalrisk.OverlapWarning", "ignore::causalrisk.DesignWarning")
def test_the_summary_repeats_the_warnings_of_the_fits():
    """Once if they differ only in numbers."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=600)
    data = pd.DataFrame({"x": x, "d": rng.uniform(size=600) < 1 / (1 + np.exp(-4 * x)), "g": np.arange(600) % 12})
    data["y"] = data.x + data.d + rng.normal(size=600)
    fits = [
        AIPW.from_formula("y ~ x", data.assign(x=x + noise), treat="d", cluster="g").fit()
        for noise in (0.01 * rng.normal(size=600) for _ in range(3))
    ]
    text = " ".join(str(pool(fits).summary()).split())
    assert text.count("Only 12 clusters of 'g' are in the data.") == 1
    assert text.count("Poor overlap: after weighting") == 1
    assert "Each warning below is from the first imputed data set in which it occurs." in text
    assert f"effective n of group '1' is only {fits[0].overlap().loc['1', 'effective n']:.1f}" in text


@pytest.mark.parametrize("effect", ["difference", "ratio"])
def test_effects_in_groups_are_pooled(frames, effect):
    data = [frame.assign(y=np.exp(frame.y / 9), g=frame.x2 > 0) for frame in frames]
    of = [AIPW.from_formula("y ~ x1 + x2", one, treat="d", effect=effect).fit() for one in data]
    pooled = pool(of)
    found, every = pooled.effects_by("g", data), [res.effects_by("g", one) for res, one in zip(of, data, strict=True)]
    log = np.log if effect == "ratio" else np.asarray
    q = log(np.array([table["estimate"] for table in every]))
    se = np.array([table["std err"] for table in every]) / (np.exp(q) if effect == "ratio" else 1.0)
    for k in (0, 1):
        expected = mice(q[:, k], se[:, k] ** 2, pooled.df_complete)
        np.testing.assert_allclose(log(found["estimate"].iloc[k]), expected[0])
        np.testing.assert_allclose(found[["df", "P>|t|"]].iloc[k], [expected[4], expected[6]])
    assert list(found.index) == list(every[0].index)
    with pytest.raises(OptionError, match=f"data has 1 data sets; expected {len(data)}"):
        pooled.effects_by("g", data[:1])
    with pytest.raises(DesignError, match="groups differ between the imputed data sets"):
        pooled.effects_by("g", [data[0].assign(g="all"), *data[1:]])


def test_the_report_of_pooled_fits(frames, tmp_path, unprinted_plots):
    page = pool(fits(frames)).report(tmp_path / "pooled.html").read_text("utf-8")
    for text in ("Overlap in the first imputed data set", "Rubin, D. B. (1987)", "pooled = causalrisk.pool(fits)"):
        assert text in page
    assert "Imai, K. and Ratkovic" in page  # whom the part on balance cites


def test_the_report_of_pooled_fits_says_what_it_does_not_have(frames, tmp_path, unprinted_plots):
    scanned = [scan([frame[:100], frame[100:]]) for frame in frames]
    page = pool(fits(scanned)).report(tmp_path / "pooled.html").read_text("utf-8")
    assert "Not available for this fit: this result is not available for data on disk." in page
