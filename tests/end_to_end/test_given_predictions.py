"""AIPW and TMLE at outcome predictions that are given, beside sums by hand."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

import causalrisk as cr
from causalrisk import AIPW, IPWRA, TMLE, DiD, Survey
from tests.conftest import in_blocks

N = 300


def drawn(seed=0):
    rng = np.random.default_rng(seed)
    x, group = rng.normal(size=N), np.arange(N) // 5
    e = 1 / (1 + np.exp(-0.6 * x))
    d = (rng.random(N) < e).astype(int)
    y = x + d + 0.5 * rng.normal(size=N // 5)[group] + rng.normal(size=N)
    columns = {"y": y, "d": d, "x": x, "e": e, "m0": x + 0.2 * np.sin(x), "m1": x + 1.1, "group": group}
    return pd.DataFrame(columns).assign(w=1.0 + np.arange(N) % 3, before=x + rng.normal(size=N))


DATA = drawn()
GIVEN = {"treat": "d", "propensity_score": "e", "outcome_predictions": ["m0", "m1"]}


def psi(data=DATA, target="all", y="y"):
    """Summands of the effect at known scores, which average to it."""
    d, e, y, m0, m1 = (data[name].to_numpy() for name in ("d", "e", y, "m0", "m1"))
    if target == "treated":
        return (d * (y - m0) - (1 - d) * e / (1 - e) * (y - m0)) / d.mean()
    return m1 - m0 + d / e * (y - m1) - (1 - d) / (1 - e) * (y - m0)


def fitted(estimator=AIPW, data=DATA, formula="y ~ 1", fit=None, **options):
    return estimator.from_formula(formula, data, **GIVEN | options).fit(**(fit or {}))


@pytest.mark.parametrize("target", ["all", "treated"])
def test_the_mean_of_the_given_scores(target):
    res, values = fitted(target=target), psi(target=target)
    share = DATA["d"] / DATA["d"].mean() if target == "treated" else 1.0
    np.testing.assert_allclose(res.effect, values.mean(), rtol=1e-12)
    np.testing.assert_allclose(res.effect_se, np.sqrt(((values - share * res.effect) ** 2).sum()) / N, rtol=1e-12)
    np.testing.assert_allclose(res.outcome_predictions.to_numpy(), DATA[["m0", "m1"]], rtol=1e-15)


def test_weights_clusters_surveys_and_resamples():
    values, w = psi(), DATA["w"] / DATA["w"].mean()
    res = fitted(weights="w", weight_type="probability", cluster="group")
    effect = (w * values).mean()
    sums = (w * (values - effect)).groupby(DATA["group"]).sum()
    np.testing.assert_allclose([res.effect, res.effect_se], [effect, np.sqrt((sums**2).sum()) / N], rtol=1e-12)
    surveyed = fitted(design=Survey(weights="w", psu="group"))
    factor = len(sums) / (len(sums) - 1)
    np.testing.assert_allclose(surveyed.effect_se, np.sqrt(factor * ((sums - sums.mean()) ** 2).sum()) / N, rtol=1e-12)
    times = np.random.default_rng(1).multinomial(N, np.full(N, 1 / N), 50).T
    drawn_again = fitted(fit={"cov_type": "bootstrap", "resamples": times})
    np.testing.assert_allclose(drawn_again.boot_params["ATE"], times.T @ values / N, rtol=1e-10)
    without = fitted(fit={"cov_type": "jackknife"})
    left = (values.sum() - values) / (N - 1)
    np.testing.assert_allclose(without.effect_se, np.sqrt((N - 1) * left.var()), rtol=1e-10)


def test_an_estimated_score_as_with_a_model_that_gives_these_predictions():
    X = sm.add_constant(DATA["x"]).to_numpy()
    fits = [sm.OLS(DATA["y"][DATA["d"] == a], X[DATA["d"] == a]).fit() for a in (0, 1)]
    predicted = [fit.predict(X) for fit in fits]
    own = AIPW.from_formula("y ~ x", DATA, treat="d").fit()
    given = AIPW.from_formula("y ~ x", DATA, treat="d", outcome_predictions=predicted).fit()
    np.testing.assert_allclose(given.params, own.params, rtol=1e-10)  # errors differ by those of the models
    assert given.balance().index.tolist() == own.balance().index.tolist()
    with pytest.raises(cr.UnavailableError, match="has no predictions for new rows"):
        given.predict(DATA.head())


def test_linear_targeting_is_normalised_augmentation():
    np.testing.assert_allclose(fitted(TMLE).params, fitted(normalize=True).params, rtol=1e-10)
    w, residual = DATA["d"] / DATA["e"], DATA["y"] - DATA["m1"]
    np.testing.assert_allclose(fitted(TMLE).params["POM[1]"], DATA["m1"].mean() + w @ residual / w.sum(), rtol=1e-10)


def test_logistic_targeting():
    data = DATA.assign(y=(DATA["y"] > 0.5) * 1.0, m0=0.3 + 0.1 * np.tanh(DATA["x"]), m1=0.6 + 0.2 * np.tanh(DATA["x"]))
    res, eta = fitted(TMLE, data, family="binomial"), np.log(data["m1"] / (1 - data["m1"]))
    own = data["d"] == 1
    weighted = {"offset": eta[own], "freq_weights": 1 / data["e"][own]}
    shift = sm.GLM(data["y"][own], np.ones(own.sum()), sm.families.Binomial(), **weighted)
    found = 1 / (1 + np.exp(-eta - shift.fit(tol=1e-14).params.iloc[0]))
    np.testing.assert_allclose(res.params["POM[1]"], found.mean(), rtol=1e-10)
    binary = fitted(data=data, family="binomial")
    np.testing.assert_allclose(binary.effect, psi(data).mean(), rtol=1e-12)
    with pytest.raises(cr.OptionError, match="300 outcome predictions are at a limit"):
        fitted(TMLE, data.assign(m1=0.0), family="binomial")
    for estimator in (AIPW, TMLE):
        with pytest.raises(cr.OptionError, match=r"300 .* outside .* 0 to 1.\nUse `predictions.clip\(0.001, 0.999\)"):
            fitted(estimator, data.assign(m1=1.2), family="binomial")
        clipped = data.assign(m1=data["m1"].where(data.x > 0, 1.0).clip(0.001, 0.999))  # as the message says
        assert np.isfinite(fitted(estimator, clipped, family="binomial").effect)
        with pytest.raises(cr.OptionError, match=r"expected 0 to inf.\nUse predictions above 0, or"):
            fitted(estimator, data.assign(m1=-1.0), family="poisson")


@pytest.mark.parametrize("normalize", [True, False])
def test_changes(normalize):
    res = fitted(did=DiD(before="before", normalize=normalize))
    d, e, change = DATA["d"], DATA["e"], DATA["y"] - DATA["before"]
    w = (1 - d) * e / (1 - e)
    by = w.sum() if normalize else d.sum()
    residual = change - DATA["m0"]
    np.testing.assert_allclose(res.effect, (d * residual).sum() / d.sum() - (w * residual).sum() / by, rtol=1e-10)
    if normalize:
        parts = d / d.mean() * (residual - (d * residual).sum() / d.sum()) - w / w.mean() * (
            residual - (w * residual).sum() / w.sum()
        )
        np.testing.assert_allclose(res.effect_se, np.sqrt((parts**2).sum()) / N, rtol=1e-10)


def test_columns_go_by_level_label_or_order_and_rows_by_index():
    effect, frame = fitted().effect, DATA[["m1", "m0"]].set_axis([1, 0], axis=1)
    for given in (frame, DATA[["m0", "m1"]].to_numpy(), [DATA["m0"], "m1"]):
        np.testing.assert_allclose(fitted(outcome_predictions=given).effect, effect, rtol=1e-14)
    with pytest.warns(cr.DesignWarning, match="aligned by label"):
        np.testing.assert_allclose(fitted(outcome_predictions=frame[::-1]).effect, effect, rtol=1e-14)
    gaps = DATA.assign(m0=DATA["m0"].where(DATA.index % 4 > 0))
    res = fitted(data=gaps)
    np.testing.assert_allclose(res.effect, psi(gaps.dropna()).mean(), rtol=1e-12)
    assert "outcome predictions" in res.sample_ledger["formula"].tolist()
    trimmed = fitted(trim=(0.3, 0.7))
    np.testing.assert_allclose(trimmed.effect, psi(DATA.query("0.3 <= e <= 0.7")).mean(), rtol=1e-12)


def test_three_groups_and_arrays():
    rng = np.random.default_rng(3)
    data = DATA.assign(d=rng.integers(0, 3, N), m2=DATA["x"] + 2)
    scores = np.full((N, 3), 1 / 3)
    res = fitted(data=data, reference=0, propensity_score=scores, outcome_predictions=["m0", "m1", "m2"])
    means = [(data[f"m{a}"] + 3 * (data["d"] == a) * (data["y"] - data[f"m{a}"])).mean() for a in range(3)]
    np.testing.assert_allclose(res.params.iloc[2:], means, rtol=1e-12)
    given = {"propensity_score": DATA["e"], "outcome_predictions": DATA[["m0", "m1"]].to_numpy()}
    of_arrays = AIPW(DATA["y"], np.ones((N, 1)), DATA["d"], **given).fit()
    np.testing.assert_allclose(of_arrays.effect, fitted().effect, rtol=1e-14)


def test_results_say_what_they_are_of():
    res = pickle.loads(pickle.dumps(fitted(fit={"n_boot": 20})))
    assert "Outcome model:      given predictions" in str(res.summary())
    assert "its models are linear" not in str(fitted(data=DATA.assign(y=DATA.y > 0)).summary())
    text = res.methods()
    assert "predictions in m0 and m1 replace the" in text and "every step but keep the outcome predictions" in text
    again = eval(f"AIPW.from_formula('y ~ 1', DATA, treat='d', {dict_of(res)})").fit()
    np.testing.assert_allclose(again.effect, res.effect, rtol=1e-14)


def dict_of(res):
    """Options of the data in the call that the report prints."""
    given = res.model.options.typed
    return ", ".join(f"{name}={given[name]}" for name in ("propensity_score", "outcome_predictions"))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"outcome_predictions": "m0"}, "have the columns 'm0'"),
        ({"outcome_predictions": ["m0"]}, "have the columns 'm0'"),
        ({"outcome_predictions": ["m0", "m1", "e"]}, "have the columns 'm0', 'm1', 'e'"),
        ({"outcome_predictions": DATA[["m0", "m1"]]}, "Give 2 columns, and name each by its level"),
        ({"outcome_predictions": ["m0", "mm"]}, "'mm' is neither a column"),
        ({"outcome_predictions": ["m0", DATA["m1"].to_numpy()[:9]]}, "9"),
        ({"learner": "smooth", "formula": "y ~ x"}, "learner_use"),
        ({"offset": "w"}, "offset= .column. is not available for outcome_predictions="),
        ({"effect": "quantile"}, "quantile"),
        ({"target": DATA.head()}, "data frame"),
        ({"estimator": IPWRA}, "only for AIPW, TMLE"),
        ({"did": DiD(time="w")}, "cross sections"),
        ({"data": in_blocks([DATA])}, "not available for data on disk"),
        ({"data": DATA.assign(m0=np.inf)}, "m0"),
        ({"data": DATA.assign(m0="a")}, "expected numbers"),
    ],
)
def test_what_cannot_be_is_refused(options, match):
    if "did" in options:
        options |= {"data": DATA.assign(w=DATA["w"] > 1)}
    with pytest.raises((cr.CausalRiskError, TypeError), match=match):
        fitted(**options)


def test_other_calls_refuse_them_or_take_them():
    model = AIPW.from_formula("y ~ 1", DATA, **GIVEN)
    with pytest.raises(TypeError, match="cannot be changed"):
        model.with_options(outcome_predictions=["m1", "m0"])
    with pytest.raises(cr.OptionError, match="unknown option `outcome_predictions`"):
        cr.event_study("y ~ 1", DATA, begins="w", time="group", unit="d", outcome_predictions=["m0", "m1"])
    with pytest.raises(TypeError, match="outcome_predictions"):
        AIPW.from_formula("y ~ 1", DATA, treat="d", external_predictions={})
    options = {"treat": "d", "propensity_score": "e", "outcome_predictions": ["m0", "m1"], "n_boot": 19}
    both = cr.compare("y ~ 1", DATA, estimators=[AIPW, TMLE], **options)
    np.testing.assert_allclose(both.results["AIPW"].effect, model.fit().effect, rtol=1e-14)


def test_the_outcome_itself_is_no_prediction():
    with pytest.warns(cr.DesignWarning, match="standard errors are too small"):
        AIPW.from_formula("y ~ 1", DATA, **(GIVEN | {"outcome_predictions": ["y", "y"]})).fit()
