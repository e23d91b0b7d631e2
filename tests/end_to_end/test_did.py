"""Difference-in-differences against R, identities, two spellings of one fit, and bad input.

The numbers of R are in `tests/reference/did_panel.json`, from the formulas of Sant'Anna and Zhao (2020); those of
repeated cross sections, in `did_cross_sections.json`, and of groups and periods, in `did_staggered.json`, are of other
Python programs.
"""

from __future__ import annotations

import json
import pickle
import re
import warnings
from html import unescape

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.stats
import statsmodels.formula.api as smf
from matplotlib.figure import Figure

import causalrisk as cr
from causalrisk import AIPW, IPWRA, JRE, DesignError, DiD, Hajek, OptionError, OutcomeRegression, Survey
from tests.conftest import REFERENCE, in_blocks
from tests.studies import study_staggered

CASES = json.loads((REFERENCE / "did_panel.json").read_text())["cases"]
DATA = {case["id"]: pd.read_csv(REFERENCE / case["data"]) for case in CASES}
SIM = DATA["sim"].assign(
    id=np.arange(300) + 100, w=1 + np.arange(300) % 3, s=np.arange(300) % 5, psu=np.arange(300) % 60
)
LONG = pd.concat(
    [
        SIM.drop(columns=["y0", "y1"]).assign(y=SIM[name], year=year, x1=SIM.x1 + moved)
        for name, year, moved in (("y0", 1999, 0), ("y1", 2004, 50))  # covariates are those of the earlier period
    ]
).sample(frac=1, random_state=1)
DID = DiD(before="y0")
OF_LONG = DiD(time="year", unit="id")
ESTIMATORS = (OutcomeRegression, Hajek, IPWRA, AIPW, JRE)
pytestmark = pytest.mark.usefixtures("few_points")


def model(estimator=AIPW, data=SIM, formula="y1 ~ x1 + x2 + x3", did=DID, treat="d", **options):
    return estimator.from_formula(formula, data, treat=treat, did=did, **options)


def fit(*given, **options):
    made = model(*given, **options)
    return made.fit(cov_type="robust", n_replicates=20) if isinstance(made, JRE) else made.fit()


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
@pytest.mark.parametrize(("name", "estimator", "options"), [
    ("trad", AIPW, {}),
    ("unnormalised", AIPW, {"normalize": False}),
    ("imp", AIPW, {"propensity_loss": "calibrated"}),
    ("imp", IPWRA, {"propensity_loss": "calibrated"}),
    ("imp", Hajek, {"propensity_loss": "calibrated"}),
])  # fmt: skip
def test_effects_and_errors_are_those_of_r(case, name, estimator, options):
    loss = options.get("propensity_loss", "ml")
    did = DiD(before=case["outcome_before"], normalize=options.get("normalize", True))
    formula = f"{case['outcome_after']} ~ {case['covariates']}"
    res = fit(estimator, DATA[case["id"]], formula, did, case["treat"], propensity_loss=loss)
    np.testing.assert_allclose(res.effect, case["result"][name]["att"], rtol=1e-8)
    np.testing.assert_allclose(res.bse["ATT"], case["result"][name]["se"], rtol=1e-8)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_every_estimator_is_its_own_on_the_change(estimator):
    found = fit(estimator, did=DiD(before="y0", normalize=estimator is not AIPW))
    change = estimator.from_formula("dy ~ x1 + x2 + x3", SIM.assign(dy=SIM.y1 - SIM.y0), treat="d", target="treated")
    same = change.fit(cov_type="robust", n_replicates=20) if estimator is JRE else change.fit()
    np.testing.assert_allclose(found.params, same.params, rtol=1e-12)
    np.testing.assert_allclose(found.bse, same.bse, rtol=1e-12)


OPTIONS = {
    "plain": {},
    "weights": {"weights": "w", "weight_type": "probability"},
    "frequencies": {"weights": "w", "weight_type": "frequency"},
    "clusters": {"cluster": "psu"},
    "survey": {"design": Survey(weights="w", strata="s", psu="psu")},
    "learner": {"smooth": True},
    "trimmed": {"trim": (0.2, 0.8)},
}


@pytest.mark.parametrize("given, options", [
    *((LONG, options) for options in OPTIONS.values()), (pl.from_pandas(LONG), {}), (dict(LONG), {}),
], ids=[*OPTIONS, "polars", "mapping"])  # fmt: skip
def test_long_data_are_the_two_columns(options, given):
    order = LONG[LONG.year == 1999].id
    wide = SIM.set_index("id").loc[order].reset_index()
    long = fit(data=given, formula="y ~ x1 + x2 + x3", did=OF_LONG, **options)
    same = fit(data=wide, **options)
    np.testing.assert_allclose(long.params, same.params, rtol=1e-12)
    np.testing.assert_allclose(long.bse, same.bse, rtol=1e-12)
    assert set(long.model.design.index) <= set(SIM.id)


def test_transformed_outcomes_change_by_their_transforms():
    data = SIM.assign(y0=np.exp(SIM.y0 / 9), y1=np.exp(SIM.y1 / 9))
    long = pd.concat([data.assign(**{"the y": data[n]}, t=t) for n, t in (("y0", 1.0), ("y1", 2.0))])
    change = cr.AIPW.from_formula("I(np.log(y1) - np.log(y0)) ~ x1", data, treat="d", target="treated").fit()
    two = fit(data=data, formula="np.log(y1) ~ x1", did=DiD(before="np.log(y0)", normalize=False))
    own = fit(data=long, formula='np.log(Q("the y")) ~ x1', did=DiD(time="t", unit="id", normalize=False))
    assert two.effect == pytest.approx(change.effect, rel=1e-12)
    assert own.effect == pytest.approx(change.effect, rel=1e-12)
    assert own.model.design.endog_name == 'I(np.log(Q("the y")) - np.log(Q("the y_1")))'


def with_words(data, *names):
    """The data with columns `big` and `word` that say whether each outcome is above 0, and the outcome as 1 and 0."""
    for name in names:
        big, k = data[name] > 0, name[1:]
        data = data.assign(**{f"big{k}": big, f"word{k}": np.where(big, "big", "small"), f"number{k}": big * 1})
    return data


@pytest.mark.parametrize(("after", "before"), [
    ("big1", "big0"), ("I(word1 == 'big')", "I(word0 == 'big')"), ("number1 > 0", "I(y0 > 0)"),
    ("big1", "0 * np.abs(y0) + big0"),
])  # fmt: skip
def test_outcomes_of_true_and_false_are_one_and_zero(after, before):
    """NumPy does not subtract them."""
    data = with_words(SIM, "y0", "y1")
    numbers = fit(data=data, formula="number1 ~ x1 + x2 + x3", did=DiD(before="number0"))
    for table in (data, in_blocks([data])):
        found = fit(data=table, formula=f"{after} ~ x1 + x2 + x3", did=DiD(before=before))
        np.testing.assert_allclose([found.effect, found.bse["ATT"]], [numbers.effect, numbers.bse["ATT"]], rtol=1e-9)


@pytest.mark.parametrize("outcome", ["big", "I(word == 'big')", "y > 0"])
def test_outcomes_of_long_data_may_be_true_and_false(outcome):
    long, panel = with_words(LONG, "y"), with_words(SHORT, "y")
    fits = [fit(data=long, formula=f"{left} ~ x2", did=OF_LONG) for left in (outcome, "number")]
    assert fits[0].effect == pytest.approx(fits[1].effect, rel=1e-12)
    studies = [study(panel, f"{left} ~ x") for left in (outcome, "number")]
    pd.testing.assert_frame_equal(studies[0].effects(), studies[1].effects())


def test_the_outcome_before_may_be_a_covariate():
    """With it the change is the outcome after, but for its coefficient."""
    found = fit(OutcomeRegression, formula="y1 ~ x1 + y0")
    after = OutcomeRegression.from_formula("y1 ~ x1 + y0", SIM, treat="d", target="treated").fit()
    np.testing.assert_allclose([found.effect, found.bse["ATT"]], [after.effect, after.bse["ATT"]], rtol=1e-10)
    long = fit(OutcomeRegression, LONG, "y ~ x1 + y_1999", OF_LONG)
    assert long.effect == pytest.approx(found.effect, rel=1e-10)
    with pytest.raises(DesignError, match="y_1999"):
        fit(data=LONG, formula="y ~ x1 + y", did=OF_LONG)


def test_trends_may_be_parallel_without_covariates():
    means = SIM.assign(dy=SIM.y1 - SIM.y0).groupby("d").dy.mean()
    assert fit(formula="y1 ~ 1").effect == pytest.approx(means[1] - means[0], rel=1e-10)
    assert study(SHORT, formula="y ~ 1").params.shape == OF_SHORT.shape


@pytest.mark.parametrize("estimator", [AIPW, IPWRA])
def test_a_scan_is_the_data_in_memory(estimator):
    scanned, whole = fit(estimator, in_blocks([SIM.head(130), SIM.tail(170)])), fit(estimator)
    np.testing.assert_allclose(scanned.params, whole.params, rtol=1e-10)
    np.testing.assert_allclose(scanned.bse, whole.bse, rtol=1e-10)


def test_resamples_weigh_the_controls_anew():
    rng = np.random.default_rng(0)
    counts = rng.multinomial(300, np.full(300, 1 / 300), size=4).T
    boot = model().fit(resamples=counts)
    again = [fit(data=SIM.iloc[np.repeat(np.arange(300), column)]).params for column in counts.T]
    np.testing.assert_allclose(boot.bse["ATT"], np.std(np.array(again)[:, 0], ddof=1), rtol=1e-9)
    few = SIM.tail(24)
    left_out = [fit(data=few.drop(index=row), formula="y1 ~ x1").effect for row in few.index]
    jackknife = np.sqrt(23 / 24 * np.sum((np.array(left_out) - np.mean(left_out)) ** 2))
    found = model(data=few, formula="y1 ~ x1").fit(cov_type="jackknife")
    assert found.bse["ATT"] == pytest.approx(jackknife, rel=1e-9)


def test_effects_in_groups_are_those_of_the_rows_of_the_group():
    data = SIM.assign(g=np.where(SIM.x1 > 0, "a", "b"))
    found = fit(data=data, formula="y1 ~ g * x2").effects_by("g")
    for group in ("a", "b"):
        alone = fit(data=data[data.g == group], formula="y1 ~ x2")
        np.testing.assert_allclose(
            found.loc[group][["estimate", "std err"]], [alone.effect, alone.bse["ATT"]], rtol=1e-9
        )


def test_one_of_the_models_may_be_wrong():
    """Trends that differ by x1 squared: the raw changes mislead, and either model alone puts it right."""
    rng = np.random.default_rng(5)
    n = 20_000
    x = rng.normal(size=n)
    d = rng.uniform(size=n) < 1 / (1 + np.exp(-0.5 * (x**2 - 1)))
    y0 = 3 * x + 2 * d + rng.normal(size=n)
    data = pd.DataFrame({"x": x, "d": d * 1, "y0": y0, "y1": y0 + 1 + x**2 + 2 * d + rng.normal(size=n)})
    right, wrong = "x + I(x**2)", "x"
    for outcome, score in ((right, right), (right, wrong), (wrong, right)):
        res = fit(data=data, formula=f"y1 ~ {outcome}", propensity=score)
        assert abs(res.effect - 2) < 4 * res.bse["ATT"]
    neither = fit(data=data, formula=f"y1 ~ {wrong}", propensity=wrong)
    assert abs(neither.effect - 2) > 4 * neither.bse["ATT"]


SECTIONS = json.loads((REFERENCE / "did_cross_sections.json").read_text())
CROSS = pd.DataFrame(SECTIONS["data"]).assign(
    s=np.arange(400) % 5, psu=np.arange(400) % 80, f=1 + np.arange(400) % 3, g=np.arange(400) // 40 % 2
)
OF_CROSS = DiD(time="year")


def crossed(estimator=AIPW, data=CROSS, formula="y ~ x1 + x2", **options):
    return fit(estimator, data, formula, OF_CROSS, **options)


@pytest.mark.parametrize("case", SECTIONS["cases"], ids=[f"{c['name']}-{c['weights']}" for c in SECTIONS["cases"]])
def test_repeated_cross_sections_are_those_of_drdid(case):
    weighted = {} if case["weights"] is None else {"weights": "w", "weight_type": "probability"}
    loss = "calibrated" if "imp" in case["name"] else "ml"
    estimator = {"drdid_rc": AIPW, "std_ipw_did_rc": Hajek, "drdid_imp_local_rc": IPWRA}[case["name"]]
    res = crossed(estimator, propensity_loss=loss, **weighted)
    np.testing.assert_allclose(res.effect, case["att"], rtol=1e-8)
    if "se" in case:
        np.testing.assert_allclose(res.bse["ATT"], case["se"], rtol=1e-8)


def test_each_arm_has_a_regression_in_each_period():
    """Outcome regression by hand: four least-squares fits, averaged over the treated of both periods."""
    columns = np.column_stack([np.ones(400), CROSS[["x1", "x2"]]])
    change = {}
    for arm in (0, 1):
        beta = [
            np.linalg.lstsq(columns[cell], CROSS.y[cell], rcond=None)[0]
            for cell in ((CROSS.d == arm) & (CROSS.year == year) for year in (2015, 2019))
        ]
        change[arm] = columns[CROSS.d == 1].mean(axis=0) @ (beta[1] - beta[0])
    res = crossed(OutcomeRegression)
    np.testing.assert_allclose(res.params, [change[1] - change[0], change[0], change[1]], rtol=1e-10)
    np.testing.assert_allclose(res.outcome_params.loc["x1 in 2019", "1"], beta[1][1], rtol=1e-10)
    np.testing.assert_allclose(res.predict(CROSS.head(3)), res.predict().head(3), rtol=1e-10)
    means = CROSS.groupby(["d", "year"]).y.mean().unstack()
    compared = cr.compare(
        "y ~ x1", CROSS, treat="d", did=OF_CROSS, n_boot=9, estimators=["Unadjusted", "AIPW"], max_failed=0.9
    )
    raw = (means[2019] - means[2015]).diff().iloc[1]
    np.testing.assert_allclose(compared.table.loc["Unadjusted", "estimate"], raw, rtol=1e-12)


@pytest.mark.parametrize("estimator", [OutcomeRegression, Hajek, IPWRA, AIPW])
def test_errors_of_changes_are_those_of_weights_moved(estimator):
    """What a row adds to the effect is its derivative by the row's weight, with every model of either period."""
    step, psi = 1e-4, crossed(estimator).estimating_equations()["ATT"]
    for row in (3, 5, 0, 200):
        moved = [
            crossed(estimator, CROSS.assign(v=1 + sign * step * (CROSS.index == row)), weights="v",
                    weight_type="probability").effect
            for sign in (1, -1)
        ]  # fmt: skip
        np.testing.assert_allclose(psi[row], 400 * (moved[0] - moved[1]) / (2 * step), rtol=1e-5)


def test_weights_clusters_and_surveys_go_with_cross_sections():
    repeated = CROSS.loc[np.repeat(CROSS.index, CROSS.f)]
    for estimator in (OutcomeRegression, IPWRA, AIPW):
        counted = crossed(estimator, weights="f", weight_type="frequency")
        again = crossed(estimator, repeated)
        np.testing.assert_allclose(counted.params, again.params, rtol=1e-10)
        np.testing.assert_allclose(counted.bse, again.bse, rtol=1e-10)
    res, clustered = crossed(), crossed(cluster="psu")
    psi = res.estimating_equations()["ATT"]
    np.testing.assert_allclose(clustered.bse["ATT"], np.sqrt((psi.groupby(CROSS.psu).sum() ** 2).sum()) / 400)
    surveyed = crossed(design=Survey(weights="w", strata="s", psu="psu"))
    assert surveyed.effect == pytest.approx(crossed(weights="w", weight_type="probability").effect, rel=1e-12)


def test_resamples_of_cross_sections_are_refits():
    rng = np.random.default_rng(0)
    counts = rng.multinomial(400, np.full(400, 1 / 400), size=4).T
    for estimator in (Hajek, IPWRA, AIPW):
        boot = model(estimator, CROSS, "y ~ x1 + x2", OF_CROSS).fit(resamples=counts)
        again = [crossed(estimator, CROSS.iloc[np.repeat(np.arange(400), column)]).effect for column in counts.T]
        np.testing.assert_allclose(boot.bse["ATT"], np.std(again, ddof=1), rtol=1e-9)


def test_groups_of_cross_sections_are_their_rows():
    for estimator in (Hajek, AIPW):
        found = crossed(estimator, formula="y ~ g * x2").effects_by("g")
        for group in (0, 1):
            alone = crossed(estimator, CROSS[CROSS.g == group], "y ~ x2", propensity="x2")
            if estimator is AIPW:
                np.testing.assert_allclose(
                    found.loc[group][["estimate", "std err"]], [alone.effect, alone.bse["ATT"]], rtol=1e-9
                )
    assert np.isfinite(crossed().effects_by("~ x1")).all(axis=None)


def test_what_cross_sections_cannot_have():
    for refused in (
        lambda: crossed(JRE),
        lambda: crossed(smooth=True),
        lambda: DiD(time="year", normalize=False),
        lambda: crossed().sensitivity(),
        lambda: crossed(formula="y ~ x1 + year"),
        lambda: crossed(data=CROSS.assign(year=CROSS.year.where(CROSS.index > 0))),
        lambda: crossed(data=CROSS[CROSS.year == 2015]),
        lambda: crossed(data=CROSS[(CROSS.year == 2015) | (CROSS.d == 0)]),  # no treated afterwards
        lambda: crossed(data=CROSS.assign(d=CROSS.d * (CROSS.year == 2019))),  # nor before
        lambda: crossed(data=in_blocks([CROSS.head(200), CROSS.tail(200)])),
        lambda: cr.compare("y ~ x1", CROSS, treat="d", did=OF_CROSS, n_boot=9),
    ):
        with pytest.raises(cr.CausalRiskError, match=r"\n"):
            refused()


def test_cross_sections_with_one_model_wrong():
    """Trends that differ by x1 squared, and other people in each period."""
    rng = np.random.default_rng(6)
    n = 40_000
    x, late = rng.normal(size=n), rng.uniform(size=n) < 0.4
    d = rng.uniform(size=n) < 1 / (1 + np.exp(-0.5 * (x**2 - 1)))
    y = 3 * x + 2 * d + late * (1 + x**2 + 2 * d) + rng.normal(size=n)
    data = pd.DataFrame({"x": x, "d": d * 1, "y": y, "year": 2015 + 4 * late})
    right, wrong = "x + I(x**2)", "x"
    for outcome, score in ((right, right), (right, wrong), (wrong, right)):
        res = crossed(data=data, formula=f"y ~ {outcome}", propensity=score)
        assert abs(res.effect - 2) < 4 * res.bse["ATT"]
    neither = crossed(data=data, formula=f"y ~ {wrong}", propensity=wrong)
    assert abs(neither.effect - 2) > 4 * neither.bse["ATT"]


YEARS = range(2001, 2006)


def staggered(n=240, seed=0, firsts=(2003, 2004, np.inf)):
    """Effects that grow by one each year from 1 on, and trends that differ by x, as when units begin does."""
    rng = np.random.default_rng(seed)
    x, noise = rng.normal(size=n), rng.normal(size=(n, len(YEARS)))
    first = np.asarray(firsts)[(rng.uniform(size=n) * len(firsts) + 0.4 * x).clip(0, len(firsts) - 1e-9).astype(int)]
    units = pd.DataFrame(
        {
            "id": np.arange(n),
            "first": first,
            "x": x,
            "w": 1 + np.arange(n) % 3,
            "c": np.arange(n) % 30,
            "h": np.arange(n) % 3,
        }
    )
    data = units.merge(pd.DataFrame({"year": YEARS}), how="cross")
    grown = (data.year - data["first"] + 1).clip(lower=0)
    return data.assign(y=grown + (data.year - 2001) * (0.5 + 0.4 * data.x) + noise.ravel()).sample(
        frac=1, random_state=1
    )


PANEL = staggered()


def study(data=PANEL, formula="y ~ x", **options):
    return cr.event_study(formula, data, begins="first", time="year", unit="id", **options)


STUDY = study()
SHORT = PANEL[PANEL.year.between(2002, 2004)]  # a group's year before and its first, of one group the second too
OF_SHORT = STUDY.params.drop(index=[2001, 2005], level="time")


STAGGERED = json.loads((REFERENCE / "did_staggered.json").read_text())["cases"]


CHOICES = ("controls", "base", "anticipation")


@pytest.mark.parametrize("case", STAGGERED, ids=lambda case: " ".join(str(case[name]) for name in CHOICES))
def test_effects_of_groups_periods_and_averages_are_those_of_moderndid(case):
    found = study(pd.read_csv(REFERENCE / "did_staggered.csv"), **{name: case[name] for name in CHOICES})
    for by in (None, "exposure", "group", "time", "all", "simple", "over exposure"):
        table = found.effects(by, adjust=None)
        expected = pd.DataFrame(case[by or "group_time"])
        if len(expected.columns) > 2:
            names = [name if isinstance(name, tuple) else (name,) for name in table.index]
            assert list(expected.iloc[:, :-2].itertuples(index=False, name=None)) == names
        np.testing.assert_allclose(table[["estimate", "std err"]], expected.iloc[:, -2:], rtol=1e-8)


def test_placebos_are_before_the_treatment_and_its_anticipation():
    found = study(base="varying", anticipation=1)
    assert found.placebos.tolist() == [time < group - 1 for group, time in found.params.index]
    assert found.pretrend_test().df_num == found.placebos.sum() == 1
    assert "anticipation (1)" in found.methods()
    assert "no effect before it began, except in the anticipation periods (1)." in found.methods()
    weighted = study(SHORT, weights="w", weight_type="probability")
    assert all(
        "probability weights (w)" in " ".join(str(text).split()) for text in (weighted.methods(), weighted.summary())
    )
    assert "except in the anticipation periods" in " ".join(str(found.summary()).split())
    with pytest.raises(DesignError, match="no period before its anticipation periods"):
        study(anticipation=3)


@pytest.mark.parametrize(
    ("column", "options"),
    [
        ("x", {"use_t": True, "small_sample": True}),
        ("x", {"cov_type": "jackknife", "use_t": True}),
        ("w", {"weights": "w", "weight_type": "probability"}),
        ("w", {"weights": "w", "weight_type": "frequency", "use_t": True}),
        ("c", {"cluster": "c", "use_t": True, "small_sample": True}),
    ],
)
def test_units_with_missing_values_count_nowhere(column, options):
    gone = PANEL["c"].eq(4) | (PANEL["first"].eq(2003) & PANEL["id"].lt(60))
    missing, without = (
        study(PANEL.assign(**{column: PANEL[column].mask(gone)}), **options),
        study(PANEL[~gone], **options),
    )
    assert (missing.n_units, missing.df) == (without.n_units, without.df)
    pd.testing.assert_series_equal(missing.sizes, without.sizes)
    for by in ("exposure", "group", "all"):
        pd.testing.assert_frame_equal(missing.effects(by), without.effects(by), rtol=1e-9)
    unused = PANEL["id"][gone].nunique()
    assert f"Not counted: {unused} units that no fit uses." in " ".join(str(missing.summary()).split())


def test_a_weight_missing_in_one_period_is_that_of_the_others():
    lacking = SHORT.assign(w=SHORT.w.mask((SHORT.year == 2002) & (SHORT["first"] == 2004) & (SHORT.id % 2 == 0)))
    given = {"weights": "w", "weight_type": "probability"}
    found, expected = (study(data, **given) for data in (lacking, SHORT))
    assert found.sizes.equals(expected.sizes) and found.shares.tolist() == expected.shares.tolist()
    row, other = (each.effects("group", adjust=None).loc[2004] for each in (found, expected))
    np.testing.assert_allclose(row, other, rtol=1e-10)  # the fits in 2004 use the weights of 2003


@pytest.mark.parametrize("controls", ["never", "not yet"])
def test_each_group_and_period_is_a_fit_of_two_periods(controls):
    found = study(SHORT, controls=controls)
    for (group, year), effect in found.params.items():  # of the change since the last period before the group began
        later = PANEL["first"] > max(year, group - 1) if controls == "not yet" else PANEL["first"] == np.inf
        part = PANEL[PANEL.year.isin([group - 1, year]) & ((PANEL["first"] == group) | later)]
        part = part.assign(d=(part["first"] == group) * 1)
        two = fit(data=part, formula="y ~ x", did=DiD(time="year", unit="id"))
        np.testing.assert_allclose(effect, two.effect if year > group - 1 else -two.effect, rtol=1e-12)
        np.testing.assert_allclose(found.fits[group, year].bse["ATT"], two.bse["ATT"], rtol=1e-12)


@pytest.mark.parametrize("options", [
    {"weights": "w", "weight_type": "probability"}, {"estimator": "OutcomeRegression"},
    {"estimator": IPWRA, "propensity_loss": "calibrated", "controls": "not yet"},
    {"design": Survey(weights="w", strata="h", psu="c")}, {"design": Survey(weights="w", strata="h")},
    {"cluster": "c", "small_sample": True}, {"cov_type": "HC1"},
    {"weights": "w", "weight_type": "frequency", "small_sample": True},
])  # fmt: skip
def test_errors_of_the_effects_are_those_of_the_fits(options):
    found = study(SHORT, **options)
    errors = [res.bse["ATT"] for res in found.fits.values()]
    np.testing.assert_allclose(np.sqrt(np.diag(found.cov_params())), errors, rtol=1e-10)


def test_a_fit_of_a_survey_is_of_the_subpopulation_of_its_group_and_controls():
    survey = Survey(weights="w", strata="h", psu="c")
    found = study(SHORT, design=survey)
    part = PANEL[PANEL.year.isin([2002, 2004])]
    part = part.assign(d=(part["first"] == 2003) * 1, inside=part["first"].isin([2003, np.inf]))
    two = fit(data=part, formula="y ~ x", did=DiD(time="year", unit="id"), design=survey, subpop="inside")
    assert found.params[2003, 2004] == pytest.approx(two.effect, rel=1e-12)
    assert found.fits[2003, 2004].bse["ATT"] == pytest.approx(two.bse["ATT"], rel=1e-12)
    assert found.df == two.model.design.survey.df == 27
    assert study(SHORT, design=survey, use_t=False).df == np.inf


def test_tests_of_few_clusters_are_of_t():
    few = study(SHORT, cluster="c", use_t=True)
    table = few.effects(adjust=None)
    assert few.df == 29 and "t" in table
    half = (table["0.975]"] - table["estimate"]) / table["std err"]
    np.testing.assert_allclose(half, scipy.stats.t.ppf(0.975, 29), rtol=1e-10)
    placebos = few.params[few.exposure < 0]
    test, count = few.pretrend_test(), len(placebos)
    wald = placebos @ np.linalg.solve(few.cov_params().loc[placebos.index, placebos.index], placebos)
    assert test.df_denom == 29 - count + 1 and study(SHORT, use_t=True).df == 239
    assert test.pvalue == pytest.approx(scipy.stats.f.sf(wald * (30 - count) / (29 * count), count, 30 - count))
    assert few.fits[2003, 2003].bse["ATT"] == pytest.approx(study(SHORT, cluster="c").fits[2003, 2003].bse["ATT"])


def test_averages_weigh_groups_by_their_sizes():
    sizes = PANEL.drop_duplicates("id")["first"].value_counts()
    table = STUDY.params.reset_index().assign(size=lambda t: t.group.map(sizes), exposure=lambda t: t.time - t.group)
    after = table[table.exposure >= 0]
    by_hand = {
        "exposure": [np.average(t.ATT, weights=t["size"]) for _, t in table.groupby("exposure")],
        "time": [np.average(t.ATT, weights=t["size"]) for _, t in after.groupby("time")],
        "group": after.groupby("group").ATT.mean(),
        "all": [np.average(after.groupby("group").ATT.mean(), weights=sizes.sort_index().iloc[:2])],
    }
    for by, values in by_hand.items():
        np.testing.assert_allclose(STUDY.effects(by, adjust=None)["estimate"], values, rtol=1e-12)


def test_errors_of_averages_are_those_of_weights_moved():
    """What a unit adds to an average is its derivative by the unit's weight, sizes of the groups moved too."""
    step, unit, whole = 1e-4, 50, study(SHORT)
    moved = [
        study(SHORT.assign(v=1.0 + sign * step * (SHORT.id == unit)), weights="v", weight_type="probability")
        for sign in (1, -1)
    ]
    place = pd.unique(SHORT.id).tolist().index(unit)
    for by in ("exposure", "group", "time", "all"):
        first, second = (each.effects(by, adjust=None)["estimate"] for each in moved)
        np.testing.assert_allclose(whole._averages(by)[2][place], (first - second) / (2 * step), rtol=1e-5, atol=1e-8)


def test_effects_that_grow_are_found_and_placebos_are_none():
    large = study(staggered(1500, seed=2))
    found = large.effects("exposure")
    truth = np.clip(found.index.to_numpy() + 1, 0, None)
    assert (np.abs(found["estimate"] - truth) < 4 * found["std err"]).all()
    assert large.pretrend_test().pvalue > 0.001
    raw = study(staggered(1500, seed=2), formula="y ~ 1", estimator="OutcomeRegression")
    assert raw.pretrend_test().pvalue < 0.001  # trends are parallel given x only


def test_intervals_cover_effects_that_grow():
    """The study at a few samples; fixed effects of units and years take part of the growth for a trend."""
    table, coefficients = study_staggered.coverage(sims=8, seed=1)
    assert (np.abs(table["bias"]) < 4 * table["sd"] / np.sqrt(8)).all()
    assert table["coverage"].mean() > 0.8 and table["coverage of the table"].min() >= 0.5
    assert 0.6 < (table["mean std err"] / table["sd"]).median() < 1.8
    assert coefficients.mean() + 4 * coefficients.std(ddof=1) / np.sqrt(8) < table["truth"].iloc[-1]


def test_intervals_hold_together():
    each, joint, bonferroni = (
        (frame["0.975]"] - frame["estimate"]) / frame["std err"]
        for frame in (STUDY.effects("time", adjust=how) for how in (None, "single-step", "bonferroni"))
    )
    assert (each < joint).all() and (joint < bonferroni).all()
    assert STUDY.effects(None, adjust=None).index.names == ["group", "time"]


def test_ways_of_saying_never():
    last = SHORT["first"].replace(np.inf, 2099)
    for never in (SHORT["first"].replace(np.inf, np.nan), SHORT["first"].replace(np.inf, 0), last):
        found = study(SHORT.assign(first=never))
        pd.testing.assert_series_equal(found.params, OF_SHORT)
        later = SHORT[(never > 2004) & (never != np.inf)].id.nunique()
        said = f"The never-treated units include {later} units that begin after the data end."
        assert (said in found.summary().notes) == (later > 0)


DATES = pd.to_datetime(SHORT.year.astype(str) + "-01-01")
BEGUN = pd.to_datetime(SHORT["first"].replace(np.inf, np.nan).astype("Int64").astype(str) + "-01-01", errors="coerce")
WHOLE = SHORT["first"].replace(np.inf, np.nan).astype("Int64")


@pytest.fixture(scope="module")
def plain():
    """The quickest study."""
    return study(SHORT, "y ~ 1", estimator="OutcomeRegression")


@pytest.mark.parametrize("data", [
    SHORT.assign(first=WHOLE),
    SHORT.assign(first=WHOLE.astype("Float64")),
    SHORT.assign(first=WHOLE).convert_dtypes(dtype_backend="pyarrow"),
    pl.from_pandas(SHORT.assign(first=WHOLE)),
    SHORT.assign(first=WHOLE.fillna(0).astype("uint16")),
    SHORT.assign(first=WHOLE.fillna(0).astype("uint16"), year=SHORT.year.astype("uint16")),
    pl.from_pandas(SHORT.assign(first=WHOLE.fillna(0).astype("uint16"))),
    SHORT.assign(first=WHOLE.astype("category"), year=SHORT.year.astype("category")),
    SHORT.assign(first=BEGUN, year=DATES),
    SHORT.assign(first=BEGUN.dt.to_period("Y"), year=DATES.dt.to_period("Y")),
    SHORT.assign(first=BEGUN, year=DATES).convert_dtypes(dtype_backend="pyarrow"),
], ids=["Int64", "Float64", "Arrow", "polars", "unsigned", "both unsigned", "unsigned polars", "categories", "dates",
        "periods", "dates of Arrow"])  # fmt: skip
def test_periods_are_read_from_any_column(plain, data):
    np.testing.assert_array_equal(study(data, "y ~ 1", estimator="OutcomeRegression").params, plain.params)


@pytest.mark.parametrize("dtype", ["int64", "float64", "uint16", "Int64", "category"])
def test_periods_that_are_not_equally_spaced_give_a_warning(dtype):
    gap = PANEL[PANEL.year != 2004]
    with pytest.warns(cr.DesignWarning, match="not equally spaced") as told:
        found = study(gap.assign(year=gap.year.astype(dtype)), "y ~ 1", estimator="OutcomeRegression")
    said = str(told[0].message)
    assert (
        "'year'" in said and "no period is observed between 2003 and 2005" in said and "`study.effects(None)`" in said
    )
    assert "counts as beginning in the next observed one" in said and len(told) == 1
    assert "between 2003 and 2005" in str(found.summary()) and said.splitlines()[0] in found.methods()
    assert found.sizes["2005"] == (PANEL["first"] == 2004).sum() / 5


@pytest.mark.filterwarnings("error")
def test_periods_with_equal_steps_give_no_warning():
    doubled = SHORT.assign(year=2 * SHORT.year, first=2 * SHORT["first"])
    np.testing.assert_array_equal(study(doubled).params, OF_SHORT)


def test_an_order_in_time_is_that_of_ordered_categories():
    words = {2002: "spring", 2003: "rain", 2004: "autumn"}
    seasons = pd.Categorical(SHORT.year.map(words), list(words.values()), ordered=True)
    first = SHORT["first"].map(words)
    named = study(SHORT.assign(year=seasons, first=first))
    np.testing.assert_array_equal(named.params, OF_SHORT)
    for by in ("group", "time"):
        expected = study(SHORT).effects(by, adjust=None)
        assert named.effects(by, adjust=None).index.tolist() == [words[one] for one in expected.index]
        np.testing.assert_array_equal(named.effects(by, adjust=None), expected)
    with pytest.raises(DesignError, match="ordered=True"):
        study(SHORT.assign(year=SHORT.year.map(words).astype("category"), first=first))
    with pytest.raises(DesignError, match="time='year' has 'spring'"):
        study(SHORT.assign(year=seasons))


@pytest.mark.filterwarnings("ignore::causalrisk.OverlapWarning", "ignore::causalrisk.DesignWarning")
@pytest.mark.parametrize("options", [
    {"cluster": "c", "weights": "w", "weight_type": "probability", "controls": "not yet"},
    {"weights": "w", "weight_type": "probability", "estimator": "OutcomeRegression"},
])  # fmt: skip
def test_the_jackknife_makes_the_study_again_without_each_cluster(options):
    units = 48 if "cluster" in options else 12
    data = SHORT[SHORT.id < units].assign(c=lambda part: part.id % 3)
    formula, by_rows = ("y ~ x", data.c) if "cluster" in options else ("y ~ 1", data.id)
    found = study(data, formula, cov_type="jackknife", use_t=True, **options)
    again = [study(data[by_rows != one], formula, **options) for one in by_rows.unique()]
    share = 1 - 1 / len(again)
    assert found.df == len(again) - 1
    for by in (None, "exposure", "group", "time", "all"):
        values = np.array([one.effects(by, adjust=None)["estimate"] for one in again])
        errors = np.sqrt(share * ((values - values.mean(axis=0)) ** 2).sum(axis=0))
        np.testing.assert_allclose(found.effects(by, adjust=None)["std err"], errors, rtol=1e-8)


@pytest.mark.filterwarnings("ignore::causalrisk.OverlapWarning")
@pytest.mark.parametrize("cov_type", ["robust", "jackknife"])
def test_frequency_weights_are_rows_of_units(cov_type):
    data = SHORT[SHORT.id < 24]
    rows = pd.concat([data[data.w > k].assign(id=data.id + 1000 * k) for k in range(3)])
    weighted = study(data, weights="w", weight_type="frequency", cov_type=cov_type, use_t=True)
    of_rows = study(rows, cov_type=cov_type, use_t=True)
    for by in (None, "exposure", "all"):
        pd.testing.assert_frame_equal(weighted.effects(by, adjust=None), of_rows.effects(by, adjust=None), rtol=1e-8)
    assert weighted.pretrend_test().pvalue == pytest.approx(of_rows.pretrend_test().pvalue, rel=1e-6)
    assert weighted.sizes.equals(of_rows.sizes)
    assert cov_type != "jackknife" or "jackknife" in weighted.methods()


def test_a_group_of_one_unit_is_compared_with_the_controls():
    data = PANEL[(PANEL["first"] == np.inf) | (PANEL.id == PANEL.id[PANEL["first"] == 2003].min())]
    wide = data.pivot(index="id", columns="year", values="y")
    x, treated = data.groupby("id").x.first(), data.groupby("id")["first"].first() == 2003
    change = wide[2004] - wide[2002]
    for formula, columns in (("y ~ 1", np.ones((len(x), 1))), ("y ~ x", np.column_stack([np.ones(len(x)), x]))):
        with pytest.warns(cr.DesignWarning, match="begin in 2003 have only one unit"):
            found = study(data, formula, estimator="OutcomeRegression")
        beta = np.linalg.lstsq(columns[~treated], change[~treated], rcond=None)[0]
        expected = (change - columns @ beta)[treated].item()
        np.testing.assert_allclose(found.params[2003, 2004], expected, rtol=1e-10)
        residual, at = (change - columns @ beta)[~treated], columns[treated][0]
        bread = np.linalg.inv(columns[~treated].T @ columns[~treated])
        error = np.sqrt((((columns[~treated] @ bread @ at) * residual) ** 2).sum())  # of the controls alone
        np.testing.assert_allclose(found.fits[2003, 2004].bse["ATT"], error, rtol=1e-10)
        assert "only one unit" in str(found.summary()) and "only one unit" in found.methods()
    with pytest.raises(DesignError, match="group '1' has 1 row "):
        study(data, estimator="JRE", cov_type="robust")


@pytest.mark.parametrize("cov_type", ["cluster", "jackknife"])
def test_controls_in_one_cluster_have_no_standard_errors(cov_type):
    data = SHORT.assign(site=np.where(SHORT["first"] == np.inf, -1, SHORT.id % 9))
    with pytest.warns(cr.DesignWarning, match="only one cluster of 'site' is in the control group"):
        found = study(data, "y ~ 1", cluster="site", cov_type=cov_type)
    for by in (None, "group", "all"):
        table = found.effects(by)
        assert table["std err"].isna().all() and table["estimate"].notna().all()


@pytest.mark.parametrize("cov_type", ["cluster", "jackknife"])
def test_a_group_in_one_cluster_adds_only_the_error_of_the_controls(cov_type):
    data = SHORT.assign(site=np.where(SHORT["first"] == 2003, -1, SHORT.id % 9))
    with pytest.warns(cr.DesignWarning, match="begin in 2003 have only one cluster") as caught:
        found = study(data, "y ~ 1", cluster="site", cov_type=cov_type)
    assert not any("They are NaN" in str(one.message) for one in caught)
    assert found.effects("all")["std err"].notna().all()


def test_few_treated_clusters_of_a_study_use_their_number_minus_one():
    data = SHORT.assign(site=np.where(SHORT["first"] == np.inf, 10 + SHORT.id % 20, SHORT.id % 3))
    data = data[data["first"] != 2004]
    options = {"estimator": "OutcomeRegression", "cluster": "site", "cov_type": "jackknife"}
    with pytest.warns(cr.DesignWarning, match=r'Use `event_study\(..., cov_type="jackknife", df=2\)`'):
        usual = study(data, "y ~ 1", use_t=True, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = study(data, "y ~ 1", df=2, **options)
    assert found.df == 2 and usual.df == 22 and "2 degrees of freedom" in found.methods()
    critical = scipy.stats.t.ppf(0.975, 2)
    row = found.effects("all").iloc[0]
    assert row["0.975]"] - row["estimate"] == pytest.approx(critical * row["std err"])


def test_a_note_of_two_lines_has_one_number():
    few = SHORT.assign(site=SHORT.id % 9)
    with pytest.warns(cr.DesignWarning, match="fewer than 50") as given:
        text = str(study(few, "y ~ 1", cluster="site", estimator="OutcomeRegression").summary())
    assert any("\n" in str(one.message) for one in given)
    numbers = re.findall(r"^\[(\d+)\]", text, flags=re.MULTILINE)
    assert numbers == [str(k) for k in range(1, len(numbers) + 1)]


@pytest.mark.filterwarnings("ignore::causalrisk.OverlapWarning")
@pytest.mark.parametrize("estimator", [AIPW, OutcomeRegression])
def test_the_mean_of_the_treated_is_that_of_their_changes(estimator):
    """Whether their outcome model has a unique fit or not."""
    rng = np.random.default_rng(5)
    data = pd.DataFrame({"x": rng.normal(size=16), "z": rng.normal(size=16), "d": np.arange(16) < 2, "y0": 0.0})
    data["y1"] = data.x + rng.normal(size=16)
    with pytest.warns(cr.DesignWarning, match='cov_type="jackknife"'):
        res = fit(estimator, data, "y1 ~ x + z", propensity="x", did=DiD(before="y0"))
    assert res.params.iloc[-1] == pytest.approx(data.y1[:2].mean(), rel=1e-10)
    jackknife = res.model.fit(cov_type="jackknife").bse["ATT"]  # without one of the two, too
    warnings.simplefilter("ignore", cr.DesignWarning)
    again = [
        fit(estimator, data.drop(index=i), "y1 ~ x + z", propensity="x", did=DiD(before="y0")).effect for i in range(16)
    ]
    assert jackknife == pytest.approx(np.sqrt(15 / 16 * ((again - np.mean(again)) ** 2).sum()), rel=1e-6)


def test_a_summary_has_the_p_values_of_its_intervals():
    table, text = STUDY.effects(), str(STUDY.summary())
    assert "adjusted P" in text
    row = next(line.split() for line in text.splitlines() if line.startswith("-2 "))
    assert row[5] == f"{table.loc[-2, 'adjusted P']:.3f}" and row[4] == f"{table.loc[-2, 'P>|z|']:.3f}"


@pytest.mark.parametrize(("estimator", "options", "said"), [
    (AIPW, {}, "The estimator is the doubly robust one of Sant'Anna and Zhao (2020), with normalised weights of "
     "the controls, as in R's DRDID."),
    (AIPW, {"did": DiD(before="y0", normalize=False)}, "with unnormalised weights."),
    (AIPW, {"propensity_loss": "calibrated"}, "The estimator is the improved one of"),
    (AIPW, {"did": DiD(time="year"), "data": LONG, "formula": "y ~ x1"}, "is the locally efficient doubly robust one"),
    (IPWRA, {}, ""),
    (OutcomeRegression, {}, ""),
])  # fmt: skip
def test_methods_name_sant_anna_and_zhao_where_the_estimator_is_theirs(estimator, options, said):
    text = fit(estimator, **options).methods()
    assert said in text if said else "Sant'Anna" not in text


def test_methods_of_a_study_name_its_models():
    text = study(SHORT, estimator="IPWRA").methods()
    assert "Each effect was estimated by inverse probability weighted regression adjustment" in text and "[" not in text
    assert "Outcome models of the change were linear: y ~ x. The propensity model was logit: x." in text
    assert "Averages are weighted by group size. Standard errors treat these sizes as random." in text
    assert "The propensity model was logit without covariates." in study(SHORT, "y ~ 1").methods()
    plain = study(SHORT, estimator="Unadjusted").methods()
    assert "[" not in plain and "outcome models" not in plain


def test_a_study_is_printed_drawn_and_kept(unprinted_plots):
    text = " ".join(str(STUDY.summary()).split())
    assert "parallel trends" in text and "exposure" in text and "untreated in all periods" in text
    with pd.option_context("display.max_columns", 0):  # as many as a terminal has room for
        assert "..." not in repr(STUDY.effects())
    assert [label.get_text() for label in STUDY.plot("time").get_xticklabels()] == ["2003", "2004", "2005"]
    for said in ("Units: id (240)", " treated from 2003, ", "Propensity: x", "year (5)"):
        assert said in text
    assert "Clusters: c (30)" in " ".join(str(study(SHORT, cluster="c").summary()).split())
    missing = study(SHORT.assign(x=SHORT.x.where(SHORT.id > 5)))
    assert "units with missing values" in " ".join(str(missing.summary()).split())
    again = pickle.loads(pickle.dumps(STUDY))
    pd.testing.assert_frame_equal(again.effects(adjust=None), STUDY.effects(adjust=None))
    for by in ("exposure", "all", None):
        table, effects = STUDY.tidy(by), STUDY.effects(by, adjust=None)
        np.testing.assert_array_equal(table.drop(columns="term"), effects)
    assert STUDY.tidy(None).term[0] == "{} in {}".format(*STUDY.params.index[0])


def test_a_study_stands_beside_other_results_in_a_table():
    table = cr.etable({"Study": STUDY, "TWFE": smf.ols("y ~ x", PANEL).fit()}, rename={"x": "ATT"})
    estimates = table.frame.xs("estimate", level="number")
    numbers = pd.concat([STUDY.effects("all"), STUDY.effects("exposure")])["estimate"]
    np.testing.assert_array_equal(estimates.iloc[: len(numbers), 0], numbers)
    assert estimates.loc["ATT"].notna().all()
    assert "exposure -2" in str(table)
    lines = {line.split("  ")[0]: line.split()[-2:] for line in str(table).splitlines()}
    assert lines["Units"][-1] == "240" and lines["Observations"][-1] == str(len(PANEL))
    limits = cr.etable(STUDY, below="ci")
    pointwise = STUDY.effects("exposure", adjust=None)
    np.testing.assert_array_equal(limits.frame.xs("lower", level="number").iloc[1:, 0], pointwise["[0.025"])
    assert "Intervals by exposure are pointwise." in " ".join(str(limits).split())


def test_errors_of_a_study_are_in_its_own_words():
    always = PANEL.assign(d=(PANEL.year >= PANEL["first"]) * 1)
    for refused, kind, said in (
        (lambda: study(formula="y ~ z"), DesignError, "'y ~ z'"),
        (lambda: study(formula="y ~ x + y"), DesignError, "Take y out"),
        (lambda: study(estimator=["AIPW", "IPWRA"]), OptionError, "expected one of"),
        (lambda: study(controls="none"), OptionError, "controls="),
        (lambda: STUDY.effects("year"), OptionError, "by="),
        (lambda: study(data=None), TypeError, "event_study("),
        (lambda: study(use_t="yes"), OptionError, "use_t='yes'"),
        (lambda: study(data=in_blocks([PANEL])), cr.UnavailableError, "scan(data).collect()"),
        (lambda: study(design=Survey(weights="w", replicate_weights=["w"], replicate_type="BRR")), OptionError, "psu="),
        (lambda: study(design=Survey(weights=PANEL.w)), OptionError, "weights of design"),
        (lambda: cr.event_study("y ~ x", always, begins="d", time="year", unit="id"), DesignError, ".transform("),
        (lambda: study(PANEL.assign(first=PANEL["first"].replace(2003, 2001))), DesignError, "of the data (2001)"),
        (lambda: study(PANEL.assign(first=PANEL["first"].replace(np.inf, -1))), DesignError, "([-1.0], np.nan)"),
        (lambda: study(PANEL.assign(first=(PANEL["first"] < 9999) * 1)), DesignError, ".transform("),
        (lambda: study(SHORT.assign(year=DATES)), DesignError, ".dt.year"),
        (lambda: study(SHORT.assign(first=BEGUN)), DesignError, "time="),
        (lambda: study(PANEL.sample(frac=0.5, random_state=0)), DesignError, "do not have one row in each period"),
        (lambda: cr.event_study("y ~ x", PANEL, begins="first", time="year"), TypeError, "repeated cross sections"),
        (lambda: study(base="first"), OptionError, "varying"),
        (lambda: study(anticipation=-1), OptionError, "anticipation="),
        (lambda: study(cov_type="jackknife", small_sample=True), OptionError, "small_sample="),
        (lambda: study(cov_type="bootstrap"), OptionError, 'Use `cov_type="jackknife"`'),
        (lambda: study(estimator="TMLE"), OptionError, "'IPWRA', 'AIPW', 'JRE'."),
        (lambda: cr.event_study(), OptionError, "'formula'.\nThe options are `data=`, `begins=`"),
    ):  # fmt: skip
        with pytest.raises(kind) as told:
            refused()
        assert said in str(told.value) and "I(y" not in str(told.value)
    begun = always.year.where(always.d == 1).groupby(always.id).transform("min")
    pd.testing.assert_series_equal(study(always.assign(first=begun)).params, STUDY.params)


def test_groups_without_controls_are_named():
    everybody = staggered(firsts=(2003, 2004, 2005))
    with pytest.warns(cr.DesignWarning, match="2005 in 2005"):
        found = study(everybody, controls="not yet")
    assert (2004, 2005) not in found.fits and (2003, 2004) in found.fits


def test_periods_in_words_have_no_order_of_their_own():
    wide = pd.DataFrame({"x": np.arange(40.0) % 7, "d": np.arange(40) % 2, "y0": np.arange(40.0) % 5})
    wide["y1"] = wide.y0 + wide.d + np.arange(40) % 3
    long = pd.concat([wide.assign(y=wide.y0, year="pre"), wide.assign(y=wide.y1, year="post")]).reset_index(names="id")
    for unit in ("id", None):
        for years in (long.year, long.year.astype("category"), pd.Categorical(long.year, ["pre", "post"])):
            with pytest.raises(DesignError, match="ordered=True") as told:
                AIPW.from_formula("y ~ x", long.assign(year=years), treat="d", did=DiD(time="year", unit=unit))
            assert '["<first period>", "<second>"]' in str(told.value)
    told = long.assign(year=pd.Categorical(long.year, ["pre", "post"], ordered=True))
    polars_years = pl.from_pandas(long).with_columns(pl.col("year").cast(pl.Enum(["pre", "post"])))
    assert fit(data=polars_years, formula="y ~ x", did=DiD(time="year", unit="id")).effect == pytest.approx(
        fit(data=told, formula="y ~ x", did=DiD(time="year", unit="id")).effect
    )
    ours = AIPW.from_formula("y ~ x", told, treat="d", did=DiD(time="year", unit="id")).fit().effect
    assert ours == pytest.approx(AIPW.from_formula("y1 ~ x", wide, treat="d", did=DiD(before="y0")).fit().effect)


@pytest.mark.parametrize(
    ("formula", "before", "typed"),
    [("np.log(y1) ~ x", "y0", "np.log(y0)"), ("y1 ~ x", "y1", "<column>"), ("I(y1 / 2) ~ x", "y0", "I(y0 / 2)")],
)
def test_the_outcome_before_is_on_the_scale_of_that_after(formula, before, typed):
    rng = np.random.default_rng(0)
    wide = pd.DataFrame({"x": rng.normal(size=60), "d": np.arange(60) % 2, "y0": rng.exponential(size=60) + 1})
    wide["y1"] = wide.y0 * 1.5
    with pytest.raises(DesignError) as told:
        AIPW.from_formula(formula, wide, treat="d", did=DiD(before=before))
    assert typed in str(told.value).splitlines()[-1]
    if typed != "<column>":
        assert AIPW.from_formula(formula, wide, treat="d", did=DiD(before=typed)).fit().converged


def test_the_report_of_a_study(tmp_path, unprinted_plots):
    page = STUDY.report(tmp_path / "study.html").read_text("utf-8")
    test = STUDY.pretrend_test()
    said = f"Hotelling's F test that all {test.df_num:g} placebos are zero: F({test.df_num:g}, {test.df_denom:g}) = "
    assert said in unescape(page) and "Wald test" not in page
    for text in (
        "Placebos",
        "parallel trends",
        "from causalrisk import event_study",
        "study = event_study(",
        "Report: EventStudy: ATT",
    ):
        assert text in page
    assert page.count("<img") == 3 and "seed" not in unescape(page).lower()
    learned = study(SHORT, learner="smooth").report(tmp_path / "learned.html").read_text("utf-8")
    assert "Seed 0. causalrisk" in unescape(learned)


def test_the_methods_of_a_study_give_version_seed_and_limits_of_the_scores():
    found = study(SHORT, clip=(0.1, 0.9))
    assert "Each fit applied `clip=(0.1, 0.9)` to its own propensity scores." in " ".join(str(found.summary()).split())
    assert f"Computed by causalrisk {cr.__version__}." in found.methods() and "`clip=(0.1, 0.9)`" in found.methods()
    learned = study(SHORT, learner="smooth")
    assert "from seed 0." in learned.methods() and "Learner:" in str(learned.summary())


def test_the_legend_of_a_study_has_the_level():
    legend = STUDY.plot(ax=Figure().subplots(), alpha=0.1).get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["simultaneous 90%", "pointwise 90%"]


@pytest.mark.filterwarnings("ignore::causalrisk.DesignWarning")
def test_whole_numbers_of_degrees_of_freedom_and_the_name_of_the_jackknife():
    found, same = (study(cov_type="jackknife", df=df).effects() for df in (4, 4.0))
    assert found.equals(same)
    begins, unit = PANEL["first"], PANEL["id"]
    earliest = begins == begins.min()
    alone = PANEL[~earliest | (unit == unit[earliest].iloc[0])]
    res = study(alone, cluster="id", cov_type="jackknife", use_t=True)
    assert "jackknife" in str(res.summary()) and "jackknife" in res.methods()


@pytest.mark.parametrize("options", [{"cluster": "c"}, {"weights": "w", "weight_type": "frequency"}])
def test_clusters_and_frequency_weights_that_change_within_units_are_refused(options):
    moved = SHORT.assign(w=2, c=SHORT.c.where(SHORT.year < SHORT.year.max(), SHORT.c.iloc[0]))
    moved["w"] += (moved.year == moved.year.min()) * (moved.x > 0)
    with pytest.raises(DesignError, match=r"(?s)changes within .*one value per unit"):
        study(moved, "y ~ 1", **options)
