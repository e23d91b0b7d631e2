"""Quantiles of the potential outcomes, beside QuantReg, DoubleML, the estimators of means, and definitions by hand."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy.stats import norm
from statsmodels.regression.quantile_regression import hall_sheather

import causalrisk as cr
from causalrisk import AIPW, Hajek
from causalrisk.models.estimators import Unadjusted
from tests.conftest import REFERENCE, simulate
from tests.studies import study_quantiles

LEVELS = (0.25, 0.5, 0.75)
MANY = simulate(n=640, seed=4)  # of each arm so many that no quantile lies between two rows
DATA = pd.concat([MANY[MANY.d == 0].head(301), MANY[MANY.d == 1].head(299)], ignore_index=True).assign(
    w=lambda data: 1 + np.arange(len(data)) % 3,
    site=lambda data: np.arange(len(data)) % 40,
    arm=lambda data: np.where(data.d == 1, np.where(data.x3 > 0, "c", "b"), "a"),
)


def fitted(estimator=AIPW, data=DATA, treat="d", cov=None, **options):
    model = estimator.from_formula("y ~ x1 + x2", data, treat=treat, effect="quantile", **options)
    return model.fit(**(cov or {}))


def weighted_quantile(y, weights, level):
    order = np.argsort(y)
    reached = np.cumsum(weights[order]) >= (level - 1e-10) * weights.sum()
    return y[order][np.argmax(reached)]


@pytest.mark.parametrize("level", LEVELS)
def test_without_adjustment_is_statsmodels_quantile_regression(level):
    res = fitted(Unadjusted, quantiles=level)
    both = sm.QuantReg(DATA.y, sm.add_constant(DATA.d)).fit(q=level, p_tol=1e-10, max_iter=2000)
    assert res.params.iloc[0] == pytest.approx(both.params["d"], abs=1e-6)
    for arm in (0, 1):
        own = DATA.y[DATA.d == arm]
        alone = sm.QuantReg(own, np.ones(len(own))).fit(q=level, kernel="epa", bandwidth="hsheather")
        # statsmodels divides by n, takes the level for the share below, and quantiles between the rows for the spread
        assert res.bse[f"POQ[{arm}] q{level:g}"] == pytest.approx(alone.bse.iloc[0], rel=0.02)


@pytest.mark.parametrize(
    "options", [{}, {"target": "treated"}, {"target": "overlap"}, {"weights": "w", "weight_type": "probability"}]
)
@pytest.mark.filterwarnings("ignore::statsmodels.tools.sm_exceptions.IterationLimitWarning")
def test_hajek_is_a_weighted_quantile_regression(options):
    res = fitted(Hajek, **options)
    weights = res.importance_weights * (DATA.w if "weights" in options else 1)
    for level in LEVELS:
        for arm in (0, 1):
            own, w = DATA.y[DATA.d == arm].to_numpy(), weights[DATA.d == arm].to_numpy()
            assert res.params[f"POQ[{arm}] q{level:g}"] == weighted_quantile(own, w, level)
            if "treated" in options.values():  # QuantReg's search goes round in circles
                continue
            check = sm.QuantReg(w * own, w[:, None]).fit(q=level, p_tol=1e-10, max_iter=2000)  # w rho(u) is rho(w u)
            assert res.params[f"POQ[{arm}] q{level:g}"] == pytest.approx(
                check.params[0], abs=1e-5
            )  # its search ends there


def below(res, level):
    """Indicators of the outcomes up to the quantile of each arm."""
    return (DATA.y <= np.where(DATA.d == 1, *(res.params[f"POQ[{arm}] q{level:g}"] for arm in (1, 0)))).astype(float)


@pytest.mark.parametrize("target", ["all", "treated"])
@pytest.mark.parametrize("level", LEVELS)
def test_aipw_is_where_its_mean_of_the_indicator_reaches_the_level(level, target):
    res = fitted(target=target)
    data = DATA.assign(z=below(res, level))
    model = AIPW.from_formula("z ~ x1 + x2", data, treat="d", family="binomial", propensity="x1 + x2", target=target)
    tilt = 1 if target == "all" else DATA.d.mean()
    for arm, share in enumerate(model.fit().params.iloc[1:]):
        last = res.importance_weights[DATA.y == res.params[f"POQ[{arm}] q{level:g}"]].item() / tilt / len(DATA)
        assert share - last < level <= share + 1e-9


@pytest.mark.filterwarnings("ignore::causalrisk.errors.DesignWarning")
@pytest.mark.parametrize(("seed", "level", "arm"), [(3, 0.5, 1), (5, 0.25, 1), (7, 0.5, 0)])
def test_few_rounded_outcomes_reach_the_level_first_at_the_quantile(seed, level, arm):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=60)
    d = (rng.random(60) < 1 / (1 + np.exp(-x))) * 1
    y = np.round(x + d + rng.normal(size=60), seed % 2)
    data = pd.DataFrame({"x": x, "d": d, "y": y})
    found = AIPW.from_formula("y ~ x", data, treat="d", effect="quantile", quantiles=level).fit()
    quantile = found.params[f"POQ[{arm}] q{level:g}"]
    before = y[(d == arm) & (y < quantile)].max()
    reached = [
        AIPW.from_formula(f"I((y <= {at}) * 1.0) ~ x", data, treat="d", family="binomial").fit().params[f"POM[{arm}]"]
        for at in (before, quantile)
    ]
    assert reached[0] < level <= reached[1]


def test_a_density_that_is_not_positive_leaves_the_quantile():
    rng = np.random.default_rng(15)
    x = rng.normal(size=60)
    d = (rng.random(60) < 1 / (1 + np.exp(-x))) * 1
    data = pd.DataFrame({"x": x, "d": d, "y": np.round(x + d + rng.normal(size=60), 1)})
    model = AIPW.from_formula("y ~ x", data, treat="d", effect="quantile", quantiles=0.75)
    with pytest.warns(cr.DesignWarning, match=r"is NaN for quantile 0.75 of group '0' \(1.1\)\."):
        res = model.fit()
    assert np.isfinite(res.params).all() and list(np.isnan(res.bse)) == [True, True, False]


@pytest.mark.parametrize("target", ["all", "treated"])
def test_standard_error_is_that_of_the_indicator_over_the_density(target):
    level = 0.5
    res = fitted(target=target)
    z = below(res, level)
    kernel, widths = np.empty(len(DATA)), {}
    for arm in (0, 1):
        rows = DATA.d == arm
        w, y = res.importance_weights[rows].to_numpy(), DATA.y[rows].to_numpy()
        mean, n = np.average(y, weights=w), w.sum() ** 2 / (w**2).sum()
        iqr = weighted_quantile(y, w, 0.75) - weighted_quantile(y, w, 0.25)
        spread = min(np.sqrt(np.average((y - mean) ** 2, weights=w)), iqr / 1.34)
        h = hall_sheather(n, level)
        widths[arm] = spread * (norm.ppf(level + h) - norm.ppf(level - h))
        u = (y - res.params[f"POQ[{arm}] q0.5"]) / widths[arm]
        kernel[rows] = np.where(abs(u) <= 1, 0.75 * (1 - u**2), 0) / widths[arm]

    def means(outcome):
        model = AIPW.from_formula(
            "z ~ x1 + x2", DATA.assign(z=outcome), treat="d", family="binomial", propensity="x1 + x2", target=target
        )
        return model.fit()

    small, at = 1e-5, means(z)  # the derivative in the direction of the kernel, within 0 and 1
    up, down = (means(z + small * kernel * (1 - z)), means(z - small * kernel * z))
    density = (up.params.iloc[1:] - down.params.iloc[1:]) / small
    assert res.bse[["POQ[0] q0.5", "POQ[1] q0.5"]].to_numpy() == pytest.approx(
        (at.bse.iloc[1:] / density).to_numpy(), rel=1e-4
    )


def test_effects_are_beside_doubleml():
    found = json.loads((REFERENCE / "doubleml_qte.json").read_text())
    data = pd.DataFrame(found["rows"])
    model = AIPW.from_formula("y ~ x1 + x2", data, treat="d", effect="quantile", quantiles=found["levels"])
    effects, errors = model.fit().params.iloc[:3], model.fit().bse.iloc[:3]
    # DoubleML cross-fits, and keeps the logit at a first estimate of the quantile
    assert (np.abs(effects - found["effects"]) < 0.1 * np.array(found["std_errors"])).all()
    assert errors.to_numpy() == pytest.approx(np.array(found["std_errors"]), rel=0.02)


@pytest.mark.filterwarnings("ignore::causalrisk.DesignWarning")  # of rows that are repeated
def test_resamples_of_hajek_are_fits_to_the_repeated_rows():
    counts = np.random.default_rng(0).multinomial(len(DATA), np.full(len(DATA), 1 / len(DATA)), size=6).T
    res = fitted(Hajek, cov={"resamples": counts})
    for column, row in zip(counts.T, res.boot_params.to_numpy(), strict=True):
        again = fitted(Hajek, data=DATA.loc[np.repeat(DATA.index, column)].reset_index(drop=True))
        assert row == pytest.approx(again.params.to_numpy(), abs=1e-9)


@pytest.mark.filterwarnings("ignore::causalrisk.DesignWarning")  # of rows that are repeated
def test_resamples_of_aipw_are_near_fits_to_the_repeated_rows():
    counts = np.random.default_rng(0).multinomial(len(DATA), np.full(len(DATA), 1 / len(DATA)), size=6).T
    res = fitted(cov={"resamples": counts})
    again = [fitted(data=DATA.loc[np.repeat(DATA.index, column)].reset_index(drop=True)).params for column in counts.T]
    away = np.sqrt(((res.boot_params.to_numpy() - np.array(again)) ** 2).mean(axis=0))
    assert (away < 0.25 * fitted().bse).all()  # a place or two in the order of the outcomes
    assert (away == 0).any()


@pytest.mark.parametrize("estimator", [Hajek, AIPW])
@pytest.mark.filterwarnings("ignore::causalrisk.DesignWarning")  # of rows that are repeated
def test_frequency_weights_repeat_rows(estimator):
    weighted = fitted(estimator, weights="w", weight_type="frequency")
    repeated = fitted(estimator, data=DATA.loc[np.repeat(DATA.index, DATA.w)].reset_index(drop=True))
    assert weighted.params.to_numpy() == pytest.approx(repeated.params.to_numpy(), abs=1e-9)
    assert weighted.bse.to_numpy() == pytest.approx(repeated.bse.to_numpy(), rel=1e-9)


def test_clusters_add_up_the_estimating_equations():
    res = fitted(cluster="site")
    psi = res.estimating_equations()[list(res.params.index)].groupby(DATA.site).sum().to_numpy()
    assert res.cov_params().to_numpy() == pytest.approx(psi.T @ psi / len(DATA) ** 2, rel=1e-9)
    assert res.t_test("QTE q0.25 = QTE q0.75").effect[0] == pytest.approx(res.params.iloc[0] - res.params.iloc[2])


def test_a_survey_design_has_its_own_errors():
    data = DATA.assign(stratum=DATA.site % 4, weight=DATA.w * 10.0)
    design = cr.Survey(weights="weight", strata="stratum", psu="site")
    res, plain = fitted(data=data, design=design), fitted(data=data, weights="weight", weight_type="probability")
    assert res.params.equals(plain.params)
    psi = plain.estimating_equations()[list(res.params.index)].mul(data.weight / data.weight.sum(), axis=0)
    units = psi.groupby([data.stratum, data.site]).sum()
    away = units - units.groupby("stratum").transform("mean")
    assert res.cov_params().to_numpy() == pytest.approx((away.T @ away).to_numpy() * 10 / 9, rel=1e-9)


def test_several_arms_have_their_own_quantiles():
    res = fitted(Unadjusted, treat="arm", reference="a", quantiles=(0.3, 0.7))
    assert list(res.params.index) == [
        "QTE[b] q0.3", "QTE[b] q0.7", "QTE[c] q0.3", "QTE[c] q0.7",
        "POQ[a] q0.3", "POQ[a] q0.7", "POQ[b] q0.3", "POQ[b] q0.7", "POQ[c] q0.3", "POQ[c] q0.7",
    ]  # fmt: skip
    for arm in "abc":
        own = np.quantile(DATA.y[DATA.arm == arm], (0.3, 0.7), method="inverted_cdf")
        assert res.params[[f"POQ[{arm}] q0.3", f"POQ[{arm}] q0.7"]].to_numpy() == pytest.approx(own)
        if arm != "a":
            assert res.params[f"QTE[{arm}] q0.7"] == pytest.approx(own[1] - res.params["POQ[a] q0.7"])
    assert np.isfinite(fitted(AIPW, treat="arm", reference="a", cov={"n_boot": 20}).bse).all()


@pytest.mark.parametrize("cov", [{"bootstrap": "bayesian", "n_boot": 200}, {"bootstrap": "multiplier", "n_boot": 200}])
def test_bootstrap_errors_are_near_the_robust_ones(cov):
    assert (fitted(cov=cov).bse / fitted().bse).mean() == pytest.approx(1, abs=0.15)


def test_either_model_is_enough():
    draw = np.random.default_rng(3)
    n = 4000
    x = draw.normal(size=n)
    d = (draw.random(n) < 1 / (1 + np.exp(-x))).astype(int)
    data = pd.DataFrame({"y": 1 + x + d + draw.normal(size=n), "d": d, "x": x})
    for formula, propensity in (("y ~ x", "1"), ("y ~ 1", "x")):
        res = AIPW.from_formula(formula, data, treat="d", propensity=propensity, effect="quantile").fit()
        assert (np.abs(res.params.iloc[:3] - 1) < 4 * res.bse.iloc[:3]).all()
    wrong = AIPW.from_formula("y ~ 1", data, treat="d", propensity="1", effect="quantile").fit()
    assert (np.abs(wrong.params.iloc[:3] - 1) > 4 * wrong.bse.iloc[:3]).all()


def test_values_that_many_rows_share_are_warned_of():
    data = DATA.assign(y=DATA.y.round())
    with pytest.warns(cr.DesignWarning, match=r"res.distribution\(\)"):
        fitted(data=data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted(data=DATA.assign(y=DATA.y.round(3)))


def test_observations_of_a_row_with_a_frequency_weight_share_its_value():
    few = DATA.iloc[::8]
    with pytest.warns(cr.DesignWarning, match="many rows share") as told:
        fitted(data=few.loc[few.index.repeat(30)])
    with pytest.warns(cr.DesignWarning) as of_weights:
        fitted(data=few.assign(count=30), weights="count", weight_type="frequency")
    assert str(of_weights[0].message) == str(told[0].message)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"estimator": cr.IPWRA}, "effect"),
        ({"estimator": cr.JRE}, "effect"),
        ({"learner": "smooth"}, "learner"),
        ({"offset": "w"}, "offset"),
        ({"data": DATA.assign(y=np.exp(DATA.y)), "family": "poisson"}, "family"),
        ({"data": DATA.assign(y=DATA.y > 0)}, "effect"),
        ({"data": cr.scan([DATA])}, "data"),
        ({"quantiles": [0.5, 1]}, "quantiles"),
        ({"quantiles": "median"}, "quantiles"),
    ],
)
def test_what_has_no_quantiles_is_refused(options, named):
    with pytest.raises((cr.OptionError, cr.UnavailableError), match=named):
        fitted(**options)


def test_compare_takes_the_estimators_that_have_quantiles():
    given = {"formula": "y ~ x1 + x2", "data": DATA, "treat": "d", "effect": "quantile", "n_boot": 9}
    table = cr.compare(**given).table
    assert list(table.index.get_level_values("estimator").unique()) == ["Unadjusted", "IPW", "AIPW"]
    raw = [np.quantile(DATA.y[arm == DATA.d], [0.25, 0.5, 0.75], method="inverted_cdf") for arm in (0, 1)]
    np.testing.assert_allclose(table.loc["Unadjusted", "estimate"], raw[1] - raw[0])
    with pytest.raises(cr.OptionError, match="IPW, AIPW"):
        cr.compare(**given, estimators=["IPW", "JRE"])


@pytest.mark.usefixtures("few_points")
def test_intervals_hold_as_often_as_they_say(monkeypatch):
    """With a constant for an outcome model AIPW is nearly IPW, and for a propensity model nearly right in both."""
    fits = {name: study_quantiles.FITS[name] for name in ("IPW", "AIPW, wrong propensity")}
    monkeypatch.setattr(study_quantiles, "FITS", fits)
    table = study_quantiles.coverage(sims=25, seed=2, values=2)
    assert (table["coverage of the band"] > 0.8).all()
    found = table.groupby("fit")["coverage"].mean()
    assert list(found.index) == sorted(study_quantiles.FITS)
    assert ((found > 0.88) & (found < 0.995)).all()
    assert (table["bias"].abs() < 4 * table["sd"] / np.sqrt(25)).all()


def test_levels_beyond_all_outcomes_are_the_first_or_the_last():
    few = pd.DataFrame({"y": np.arange(40.0), "d": np.repeat([0, 1], 20)})
    levels = [0.04, 0.05, 0.95, 0.96]
    model = Hajek.from_formula("y ~ 1", few, treat="d", propensity="1", effect="quantile", quantiles=levels)
    with pytest.warns(cr.DesignWarning, match=r"NaN for quantile 0.96 of group '0' \(19\), quantile 0.96 of"):
        res = model.fit(cov_type="robust")
    assert [res.params[f"POQ[0] q{level:g}"] for level in levels] == [0, 0, 18, 19]
    known = ~res.bse.index.str.endswith("q0.96")
    assert (res.bse[known] > 0).all() and res.bse[~known].isna().all()
    for test in (res.t_test, res.wald_test):
        assert float(test("QTE q0.95 = 0").pvalue) == pytest.approx(res.pvalues["QTE q0.95"])
    assert np.isnan(res.wald_test("QTE q0.96 = 0, QTE q0.95 = 0").pvalue)
    with pytest.raises(cr.SeparationError, match=r"levels below 0.96"):
        fitted(data=few.assign(x1=few.y % 7, x2=few.y % 3), quantiles=0.96)
