"""Missing outcomes against R, hand computations, identities and a simulated truth.

The numbers of R are in `tests/reference/missing_outcome.json`: R 4.5.0, the equations of all models stacked.
"""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

import causalrisk as cr
from causalrisk import (
    AIPW,
    IPWRA,
    JRE,
    DesignError,
    DesignWarning,
    Hajek,
    OptionError,
    OutcomeRegression,
    SeparationError,
    Survey,
    UnavailableError,
)
from tests.conftest import REFERENCE
from tests.studies.study_missing import FLAT, LOGIT, RIGHT, WRONG, rows

CASES = [
    pytest.param(case, id=case["id"]) for case in json.loads((REFERENCE / "missing_outcome.json").read_text())["cases"]
]
ROWS = pd.read_csv(REFERENCE / "missing_outcome.csv")  # 300 rows in 30 groups, 88 without an outcome
BY_ARM = "(x1 + x2) * d"


def model(estimator=IPWRA, data=ROWS, formula="y ~ x1 + x2", observed=BY_ARM, treat="d", **options):
    return estimator.from_formula(formula, data, treat=treat, observed=observed, **options)


@pytest.mark.parametrize("case", CASES)
def test_estimates_and_standard_errors_are_those_of_r(case):
    made, found = case["model"], case["result"]
    weights = {} if case["weights"] is None else {"weights": case["weights"], "weight_type": "probability"}
    given = {
        "estimator": getattr(cr, made["estimator"]), "formula": f"{made['outcome']} ~ {made['covariates']}",
        "propensity": made["propensity"], "observed": case["observed_model"], "target": made["target"], **weights,
    }  # fmt: skip
    res = model(**given).fit()
    np.testing.assert_allclose(res.params, found["estimate"], rtol=1e-10)
    np.testing.assert_allclose(res.cov_params(), found["vcov"], rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(res.pvalues, found["p_two_sided"], rtol=1e-8)
    np.testing.assert_allclose(model(**given, cluster="g").fit().bse, found["se_cluster_g"], rtol=1e-8)


LARGER = ROWS.assign(
    a=np.array(["low", "mid", "high"])[np.arange(len(ROWS)) % 3],
    b=(ROWS.y > 1).where(ROWS.y.notna()).astype(float),
    f=np.array(["u", "v", "w"])[np.arange(len(ROWS)) // 4 % 3],
)


@pytest.mark.parametrize("options", [
    {"estimator": AIPW},
    {"estimator": AIPW, "target": "overlap", "formula": "b ~ x1", "family": "binomial"},
    {"estimator": AIPW, "treat": "a", "reference": "low", "observed": "x1 * a", "target": "mid"},
    {"estimator": IPWRA, "target": "matching", "propensity_link": "probit"},
    {"estimator": IPWRA, "propensity_loss": "calibrated", "clip": (0.3, 0.7)},
    {"estimator": Hajek, "treat": "a", "reference": "low", "observed": "x1 + a", "target": "entropy"},
    {"estimator": AIPW, "propensity_score": np.full(len(ROWS), 0.4), "target": "treated"},
    {"estimator": OutcomeRegression, "target": "treated"},
])  # fmt: skip
def test_influence_functions_are_derivatives_of_refits_by_the_weights(options):
    def params(weights):
        return model(**options, data=LARGER, weights=weights, weight_type="probability").fit().params.to_numpy()

    weights = ROWS.pw / ROWS.pw.mean()
    res = model(**options, data=LARGER, weights=weights, weight_type="probability").fit()
    influence = res.estimating_equations().iloc[:, : len(res.params)].to_numpy()
    assert np.isnan(ROWS.y[1]) and not np.isnan(ROWS.y[0])
    for row in (0, 1):
        step = np.where(np.arange(len(ROWS)) == row, 1e-4, 0.0)
        slope = (params(weights + step) - params(weights - step)) / 2e-4 * len(ROWS)
        np.testing.assert_allclose(influence[row], slope, rtol=1e-6, atol=1e-6 * np.abs(influence).max())


@pytest.mark.parametrize("estimator", [Hajek, IPWRA, AIPW, OutcomeRegression])
def test_in_strata_the_means_are_those_of_their_observed_outcomes(estimator):
    res = model(estimator, formula="y ~ x2", observed="x2 * d").fit()
    share = ROWS.x2.value_counts(normalize=True)
    means = ROWS.groupby(["d", "x2"]).y.mean()  # which leaves missing values out
    wanted = [(means[arm] * share).sum() for arm in (0, 1)]
    np.testing.assert_allclose(res.params, [wanted[1] - wanted[0], *wanted], rtol=1e-10)
    cells = ROWS.assign(p=ROWS.groupby(["d", "x2"]).d.transform("size") / ROWS.groupby("x2").d.transform("size"))
    seen = ROWS.y.notna().groupby([ROWS.d, ROWS.x2]).transform("mean")
    if estimator is not OutcomeRegression:
        np.testing.assert_allclose(res.importance_weights, ROWS.y.notna() / (cells.p * seen), rtol=1e-8)


@pytest.mark.parametrize("estimator", [Hajek, AIPW, JRE])
def test_where_nothing_is_missing_the_digits_stay_and_it_is_said(estimator):
    whole = ROWS[ROWS.y.notna()]
    with pytest.warns(DesignWarning, match="has no effect"):
        made = model(estimator, whole)
    plain = estimator.from_formula("y ~ x1 + x2", whole, treat="d")
    np.testing.assert_array_equal(made.fit(cov_type="robust").bse, plain.fit(cov_type="robust").bse)
    assert made.design.observation is None


def test_frequency_weights_are_repeated_rows():
    count = 1 + np.arange(len(ROWS)) % 3
    repeated = model(AIPW, ROWS.loc[ROWS.index.repeat(count)].reset_index(drop=True)).fit()
    weighted = model(AIPW, weights=count, weight_type="frequency").fit()
    np.testing.assert_allclose(weighted.params, repeated.params, rtol=1e-10)
    np.testing.assert_allclose(weighted.bse, repeated.bse, rtol=1e-10)
    assert weighted.glance().n_without_outcome[0] == repeated.glance().n_without_outcome[0]


def test_rows_with_an_outcome_against_all_by_hand():
    """Nothing is left of a variable in whose strata every share is modelled; of others what the weights leave."""
    given = {"formula": "y ~ x2", "observed": "f * d", "weights": "pw", "weight_type": "probability"}
    res = model(AIPW, LARGER, **given).fit()
    table, by_unit = res.balance(between="observed", means=True), res.overlap(by="unit")
    assert set(table.index.get_level_values("covariate")) == {"probability of an outcome", "x2", "f: u", "f: v", "f: w"}
    np.testing.assert_allclose(table.loc[pd.IndexSlice[:, ["f: u", "f: v"]], "diff after"], 0, atol=1e-8)
    wide = res.balance(between="observed", also="x1", data=LARGER)
    for arm in (0, 1):
        rows = LARGER[arm == LARGER.d]
        seen, chance = rows.y.notna(), by_unit.observed[rows.index]
        spread = np.sqrt(np.cov(rows.x1, aweights=rows.pw))
        for when, weight in {"before": rows.pw[seen], "after": (rows.pw / chance)[seen]}.items():
            gap = np.average(rows.x1[seen], weights=weight) - np.average(rows.x1, weights=rows.pw)
            np.testing.assert_allclose(wide.loc[(str(arm), "x1"), f"diff {when}"], gap / spread, rtol=1e-10)
        distance = table.loc[(str(arm), "probability of an outcome")]
        np.testing.assert_allclose(distance["mean observed before"], np.average(chance[seen], weights=rows.pw[seen]))
        np.testing.assert_allclose(distance["mean all after"], np.average(chance, weights=rows.pw))
        assert res.overlap()["least chance"][str(arm)] == chance.min()
        own = by_unit.score[rows.index[seen]] if arm else 1 - by_unit.score[rows.index[seen]]
        np.testing.assert_allclose(res.overlap()["score 25%"][str(arm)], np.percentile(own, 25), rtol=1e-10)
    within = res.balance("raw", between="observed", by="x2")
    assert within.index.nlevels == 3 and within.index.names[:2] == ["group", "arm"]
    one = within.loc[(0, "1", "f: u"), "diff before"]
    some = LARGER[(LARGER.x2 == 0) & (LARGER.d == 1)]
    shares = [np.average(of.f == "u", weights=of.pw) for of in (some[some.y.notna()], some)]
    np.testing.assert_allclose(one, shares[0] - shares[1], rtol=1e-10)


def test_scores_that_are_all_the_same_have_no_difference():
    alike = model(Hajek, formula="y ~ 1", propensity="1", observed="d").fit()
    for table in (alike.balance(), alike.balance(between="observed")):
        assert table["diff after"].isna().all() and (table["KS after"] == 0).all()


def test_a_balance_of_outcomes_needs_outcomes_that_are_missing():
    with pytest.raises(UnavailableError, match="observed="):
        IPWRA.from_formula("y ~ x1", ROWS, treat="d").fit().balance(between="observed")
    with pytest.raises(UnavailableError, match="IPWRA"):
        model(OutcomeRegression, target="treated").fit().balance(between="observed")
    with pytest.raises(OptionError, match="'observed'"):
        model(IPWRA).fit().balance(between="outcomes")


@pytest.mark.parametrize("estimator", [IPWRA, AIPW])
def test_a_resample_fits_every_model_again(estimator):
    counts = np.random.default_rng(0).multinomial(len(ROWS), np.full(len(ROWS), 1 / len(ROWS)), 3).T
    boot = model(estimator).fit(resamples=counts).boot_params
    for j in range(3):
        again = model(estimator, ROWS.loc[ROWS.index.repeat(counts[:, j])].reset_index(drop=True)).fit()
        np.testing.assert_allclose(boot.iloc[j][again.params.index], again.params, rtol=1e-8)


def test_the_jackknife_leaves_units_out_of_every_model():
    res = model(AIPW, cluster="g").fit(cov_type="jackknife")
    effects = np.array([model(AIPW, ROWS[ROWS.g != g]).fit().effect for g in ROWS.g.unique()])
    count = len(effects)
    wanted = np.sqrt((count - 1) / count * ((effects - effects.mean()) ** 2).sum())
    np.testing.assert_allclose(res.effect_se, wanted, rtol=1e-8)


def test_a_survey_design_has_the_variance_of_the_influence_functions():
    data = ROWS.assign(stratum=ROWS.g % 3)
    res = model(AIPW, data, design=Survey(weights="pw", strata="stratum", psu="g")).fit()
    own = res.estimating_equations().iloc[:, 0] * ROWS.pw / ROWS.pw.sum()
    totals = own.groupby([data.stratum, data.g]).sum().groupby(level=0)
    variance = totals.agg(lambda t: len(t) / (len(t) - 1) * ((t - t.mean()) ** 2).sum()).sum()
    np.testing.assert_allclose(res.effect_se, np.sqrt(variance), rtol=1e-10)


def test_replicates_of_jre_go_over_both_models():
    def effect(weights):
        return model(JRE, weights=weights, weight_type="probability").fit(**fit).params.iloc[0]

    fit = {"cov_type": "robust", "shrinkage": 1.0, "share": 1.0, "n_replicates": 20, "spread": 0.01}
    weights = ROWS.pw / ROWS.pw.mean()
    res = model(JRE, weights=weights, weight_type="probability").fit(**fit)
    shifts = np.concatenate([each[0] for each in res._record.joint.replicates.shifts.values()])
    assert len(shifts) == 3 + 6 and (shifts.std(axis=1) > 0).all()
    influence = res.estimating_equations().iloc[:, 0]
    for row in (0, 1):
        step = np.where(np.arange(len(ROWS)) == row, 1e-3, 0.0)
        slope = (effect(weights + step) - effect(weights - step)) / 2e-3 * len(ROWS)
        assert abs(influence[row] - slope) < 1e-4 * influence.abs().max()


def truth(n, seed):
    return rows(n, np.random.default_rng(seed))


def test_it_is_right_if_either_model_is_and_complete_cases_are_not():
    data = truth(40_000, 1)

    def away(estimator, formula, observed):
        res = model(estimator, data, f"y ~ {formula}", observed, propensity="x1").fit()
        return abs(res.effect - 1) / res.effect_se

    complete = Hajek.from_formula("y ~ 1", data, treat="d", propensity="x1").fit()
    assert abs(complete.effect - 1) > 5 * complete.effect_se
    for estimator, formula, observed in [
        (Hajek, "1", LOGIT), (IPWRA, WRONG, LOGIT), (IPWRA, RIGHT, FLAT), (AIPW, WRONG, LOGIT), (AIPW, RIGHT, FLAT),
        (OutcomeRegression, RIGHT, FLAT),
    ]:  # fmt: skip
        assert away(estimator, formula, observed) < 3
    for estimator in (IPWRA, AIPW, OutcomeRegression):
        assert away(estimator, WRONG, FLAT) > 5


def test_intervals_cover_the_truth():
    covered = 0
    for seed in range(40):
        low, high = model(AIPW, truth(400, seed), f"y ~ {RIGHT}", LOGIT, propensity="x1").fit().conf_int().iloc[0]
        covered += low <= 1 <= high
    assert covered >= 35  # of 38, less two standard errors; 34 with errors a tenth too small


def test_learners_predict_rows_without_an_outcome_and_learn_from_the_others():
    res = model(AIPW, learner="smooth", n_folds=3).fit()
    assert res.outcome_predictions.shape == (300, 2) and res.outcome_predictions.notna().all(axis=None)
    other = ROWS.assign(x1=ROWS.x1.where(ROWS.y.notna(), 9.0))  # of rows that teach nothing
    own = model(AIPW, other, observed="x2 * d", learner="smooth", n_folds=3).fit().outcome_predictions
    seen = ROWS.y.notna()
    np.testing.assert_allclose(own[seen], res.outcome_predictions[seen], rtol=1e-10)
    assert np.isfinite(res.learner_fit).all(axis=None)


@pytest.mark.parametrize("observed", [None, BY_ARM])
def test_a_classifier_leaves_the_coefficients_of_the_other_models(observed):
    frame = ROWS.loc[:40, ["x1", "x2"]]
    given = {"observed": observed, "target": frame}
    own = model(AIPW, **given, propensity_score=LogisticRegression()).fit(n_boot=2, bootstrap="bayesian")
    logit = model(AIPW, **given).fit(n_boot=2, bootstrap="bayesian")
    assert own.propensity_params.index[0] == "membership: Intercept"
    beside = logit.propensity_params.index[3:]
    np.testing.assert_allclose(own.propensity_params, logit.propensity_params[beside], rtol=1e-8)
    np.testing.assert_allclose(own.propensity_bse, logit.propensity_bse[beside], rtol=1e-6)


def test_an_arm_without_outcomes_is_told():
    lost = ROWS.assign(y=ROWS.y.where(ROWS.d == 0), a=np.where(ROWS.d == 1, "new", "old"))
    with pytest.raises(DesignError, match=r'\'y\' is missing in all \d+ rows with a = "new"'):
        IPWRA.from_formula("y ~ x1", lost, treat="a", reference="old")
    with pytest.raises(DesignError, match="is missing in all"):
        IPWRA(lost.y, lost[["x1"]], lost.d)
    with pytest.warns(DesignWarning, match=r'rows with a = "low"'):
        IPWRA.from_formula("y ~ x1", LARGER.assign(y=ROWS.y.where(LARGER.a != "low")), treat="a", reference="mid")
    with pytest.raises(TypeError, match="observed"):
        IPWRA(ROWS.y, ROWS[["x1"]], ROWS.d, observed="x1")


def test_rows_that_miss_a_covariate_of_any_model_are_dropped():
    data = ROWS.assign(x3=ROWS.x1.where(ROWS.index >= 7))
    res = model(AIPW, data, observed="x3 * d").fit()
    assert res.nobs == 293 and set(res.sample_ledger.formula) == {"observation", "observed"}
    with pytest.raises(DesignError, match="x3"):
        model(AIPW, data, observed="x3 * d", missing="raise")


@pytest.mark.parametrize(("rows", "observed", "error", "told"), [
    (ROWS.assign(y=ROWS.y.where(ROWS.d == 0)), "x1", DesignError, "group '1'"),
    (ROWS.assign(y=np.nan), "x1", DesignError, "group '0'"),
    (ROWS.assign(y=ROWS.y.where(ROWS.d == 0, 1.0)), "x1 * d", SeparationError, "observed='x1 \\* d'"),
    (ROWS, "r", (DesignError, SeparationError), "whether"),
    (ROWS, "x1 + y", DesignError, "Take y out"),
    (ROWS, ROWS.r, TypeError, 'observed="x1 [+] x2"'),
])  # fmt: skip
def test_what_no_model_can_be_of_is_refused(rows, observed, error, told):
    with pytest.raises(error, match=told):
        model(data=rows, observed=observed).fit()


def test_rows_without_an_outcome_are_no_matter_of_overlap():
    """Seven outcomes of ten are missing at random in a trial: the weights are all alike."""
    rng = np.random.default_rng(0)
    trial = pd.DataFrame({"d": np.repeat([0, 1], 400), "y": rng.normal(size=800)})
    trial.loc[rng.random(800) < 0.7, "y"] = np.nan
    res = Hajek.from_formula("y ~ 1", trial, treat="d", propensity="1", observed="1").fit()
    table = res.overlap()
    seen = trial[trial.y.notna()].groupby("d").size()
    np.testing.assert_allclose(table["effective n"], seen, rtol=1e-9)
