"""Predictions as terms, as outcome models and in a stack: identities with fits of what is the same."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from scipy.optimize import minimize

from causalrisk import AIPW, IPWRA, JRE, DesignWarning, OutcomeRegression, compare
from causalrisk.estimation.fit import fit_estimator
from causalrisk.estimation.options import InferenceOptions
from causalrisk.estimation.record import least_variance_weights
from causalrisk.inference.covariance import with_covariance
from tests.learners.toys import Line, Square, sample

FORMULA = "y ~ x1 + x2"
JOINT = {"n_replicates": 20, "cov_type": "robust"}


def arms(frame):
    """The arm 1 in two halves."""
    return frame.assign(d=np.where(frame["d"] == 0, "a", np.where(np.arange(len(frame)) % 2, "b", "c")))


CASES = {
    "plain": {},
    "treated": {"target": "treated"},
    "overlap": {"target": "overlap"},
    "frequency": {"weights": "w", "weight_type": "frequency"},
    "probability": {"weights": "w", "weight_type": "probability"},
    "clusters": {"cluster": "g"},
    "ratio": {"effect": "ratio"},
    "trim": {"trim": (0.2, 0.9)},
    "arms": {"reference": "a"},
}


def data(name):
    frame = sample().assign(w=lambda of: np.arange(len(of)) % 3 + 1, g=lambda of: np.arange(len(of)) // 4)
    frame["y"] += 20
    return arms(frame) if name == "arms" else frame


@pytest.mark.parametrize(("model", "name"), [
    *((AIPW, name) for name in CASES), *((JRE, name) for name in ("treated", "frequency", "clusters", "arms")),
    (IPWRA, "probability"), (IPWRA, "trim"), (OutcomeRegression, "overlap"), (OutcomeRegression, "arms"),
])  # fmt: skip
def test_terms_are_columns_of_the_formula(model, name):
    """A fit with predictions as terms is that of a formula that names them."""
    frame, options = data(name), {"treat": "d", **CASES[name]}
    how = JOINT if model is JRE else {}
    how = {**how, "cov_type": "cluster"} if name == "clusters" else how
    use = {"learner": Square(), "learner_use": "terms"}
    res = model.from_formula(FORMULA, frame, **options, **use).fit(**how)
    found = res.outcome_predictions.set_axis([f"m{k}" for k in range(res.outcome_predictions.shape[1])], axis=1)
    typed = frame.loc[found.index].join(found)
    options.pop("trim", None)
    terms = " + ".join(found.columns)
    by_hand = model.from_formula(f"{FORMULA} + {terms}", typed, propensity="x1 + x2", **options).fit(**how)
    np.testing.assert_allclose(res.params, by_hand.params, rtol=1e-9)
    np.testing.assert_allclose(res.bse, by_hand.bse, rtol=1e-7)


def test_terms_of_binary_outcomes_are_on_the_scale_of_the_logit():
    frame = sample().assign(y=lambda of: (of["y"] > of["y"].median()).astype(int))
    with pytest.warns(UserWarning, match="or outside the limits"):
        res = IPWRA.from_formula(FORMULA, frame, treat="d", family="binomial", learner=Line()).fit()
    inside = res.outcome_predictions.clip(1e-3, 1 - 1e-3)
    typed = frame.join(np.log(inside / (1 - inside)).set_axis(["m0", "m1"], axis=1))
    by_hand = IPWRA.from_formula(
        f"{FORMULA} + m0 + m1", typed, treat="d", propensity="x1 + x2", family="binomial"
    ).fit()
    np.testing.assert_allclose(res.params, by_hand.params, rtol=1e-7)


def test_target_frames_are_predicted_by_the_mean_over_the_folds():
    frame, target = sample(), sample(60, 8)
    res = AIPW.from_formula(FORMULA, frame, treat="d", target=target, learner=Square()).fit()
    np.testing.assert_allclose(res._record.estimate.model_means, res.predict(target).mean(), rtol=1e-10)


@pytest.mark.parametrize("target", ["all", "treated"])
def test_replaced_outcome_models_by_hand(target):
    """The augmented mean of predictions and its error, at known scores."""
    frame = sample().assign(e=lambda of: 1 / (1 + np.exp(-0.6 * of["x1"])))
    res = AIPW.from_formula(FORMULA, frame, treat="d", learner=Square(), propensity_score="e", target=target).fit()
    m0, m1 = res.outcome_predictions.to_numpy().T
    y, d, e = (frame[name].to_numpy() for name in ("y", "d", "e"))
    if target == "all":
        scores = m1 - m0 + d / e * (y - m1) - (1 - d) / (1 - e) * (y - m0)
        effect, psi = scores.mean(), scores - scores.mean()
    else:
        odds = (1 - d) * e / (1 - e)
        effect = (d * (y - m0) - odds * (y - m0)).sum() / d.sum()
        psi = (d * (y - m0 - effect) - odds * (y - m0)) / d.mean()
    assert res.effect == pytest.approx(effect, rel=1e-12)
    assert res.effect_se == pytest.approx(np.sqrt((psi**2).mean() / len(psi)), rel=1e-10)


def test_resamples_of_replaced_outcome_models_by_hand():
    frame = sample().assign(e=lambda of: 1 / (1 + np.exp(-0.6 * of["x1"])))
    counts = np.random.default_rng(1).multinomial(len(frame), np.full(len(frame), 1 / len(frame)), 4).T
    model = AIPW.from_formula(FORMULA, frame, treat="d", learner=Square(), propensity_score="e")
    res = model.fit(resamples=counts)
    m0, m1 = res.outcome_predictions.to_numpy().T
    y, d, e = (frame[name].to_numpy() for name in ("y", "d", "e"))
    scores = m1 - m0 + d / e * (y - m1) - (1 - d) / (1 - e) * (y - m0)
    np.testing.assert_allclose(res.boot_params["ATE"], scores @ counts / len(frame), rtol=1e-10)


@pytest.fixture(scope="module")
def stacked():
    """Data, a stack, its results, and the three fits that it averages."""
    frame = sample()
    model = JRE.from_formula(FORMULA, frame, treat="d", learner=Square())
    return frame, model, model.fit(**JOINT), candidates(model, **JOINT)


def candidates(model, **how):
    """The three fits of a stack, each by itself."""
    plain = {name: value for name, value in how.items() if name != "n_replicates"}
    alone = AIPW._of(model.design, model.with_options(learner_use=None).options).with_options(normalize=True)
    return [
        model.with_options(learner=None).fit(**how),
        model.with_options(learner_use="terms").fit(**how),
        alone.fit(**plain),
    ]


@pytest.mark.filterwarnings("ignore::causalrisk.errors.CausalRiskWarning")
def test_predictions_as_terms_need_six_rows_a_column():
    """With x1 to x18 the smaller arm has 5.9 rows for each of 19 columns, with x1 to x17 6.2 for each of 18."""
    rng = np.random.default_rng(5)
    frame = sample(226).assign(d=(np.arange(226) < 112).astype(int))
    frame[[f"x{j}" for j in range(3, 19)]] = rng.normal(size=(226, 16))
    for last, fits in ((17, ["formula", "Square as terms", "Square alone"]), (18, ["formula", "Square alone"])):
        formula = "y ~ " + " + ".join(f"x{j}" for j in range(1, last + 1))
        res = JRE.from_formula(formula, frame, treat="d", propensity="x1", learner=Square()).fit(**JOINT)
        assert list(res.stack.index) == fits
        assert ("Fits with predictions as terms are left out" in str(res.summary())) == (last == 18)
        assert ("JRE with the predictions as extra terms" in res.methods()) == (last == 17)
    np.testing.assert_allclose(res.effect, res.stack["weight"] @ res.stack["ATE"], rtol=1e-12)
    twice = {"weights": "w", "weight_type": "frequency", "treat": "d", "propensity": "x1", "learner": Square()}
    formula = "y ~ " + " + ".join(f"x{j}" for j in range(1, 18))
    assert len(JRE.from_formula(formula, frame[::2].assign(w=2), **twice).fit(**JOINT).stack) == 3


def test_a_stack_is_the_average_of_its_fits(stacked):
    _, _, res, fits = stacked
    weights = res.stack["weight"].to_numpy()
    assert weights.sum() == pytest.approx(1)
    assert (weights > 0).sum() > 1
    np.testing.assert_allclose(res.stack["ATE"], [fit.effect for fit in fits], rtol=1e-10)
    np.testing.assert_allclose(res.stack["std err"], [fit.effect_se for fit in fits], rtol=1e-8)
    np.testing.assert_allclose(res.params, np.stack([fit.params for fit in fits], axis=1) @ weights, rtol=1e-10)
    psi = np.stack([fit.estimating_equations()["ATE"] for fit in fits], axis=1)
    np.testing.assert_allclose(res.estimating_equations()["ATE"], psi @ weights, rtol=1e-8, atol=1e-8)
    assert res.start.effect == pytest.approx(fits[0].start.effect, rel=1e-12)


def test_the_weights_of_a_stack_minimise_the_variance(stacked):
    _, _, res, fits = stacked
    psi = np.stack([fit.estimating_equations()["ATE"] for fit in fits], axis=1)
    covariance = psi.T @ psi / len(psi) ** 2
    doubled = covariance + np.diag(np.diag(covariance))
    found = minimize(
        lambda w: w @ doubled @ w / doubled[0, 0], np.full(3, 1 / 3), bounds=[(0, 1)] * 3,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1}, method="SLSQP", options={"ftol": 1e-14},
    )  # fmt: skip
    np.testing.assert_allclose(res.stack["weight"], found.x, atol=1e-5)


def test_errors_of_a_stack_allow_for_the_choice_of_its_anchors(stacked):
    _, model, res, fits = stacked
    psi, n = res.estimating_equations()["ATE"], model.design.n
    factors = [np.sqrt(fit._record.choice_variance) for fit in fits]
    assert factors[0] > 1
    assert factors[2] == 1
    expected = (res.stack["weight"].to_numpy() @ factors) * np.sqrt((psi**2).sum()) / n
    assert res.effect_se == pytest.approx(expected, rel=1e-10)


def test_weights_that_are_on_the_edge():
    np.testing.assert_allclose(least_variance_weights(np.array([[1.0, 2.5], [2.5, 9.0]])), [1, 0], atol=1e-9)
    np.testing.assert_allclose(least_variance_weights(np.eye(4)), np.full(4, 0.25))
    np.testing.assert_allclose(least_variance_weights(np.ones((3, 3))), np.full(3, 1 / 3))
    assert least_variance_weights(np.diag([np.nan, 2.0])).tolist() == [0.0, 1.0]
    assert least_variance_weights(np.zeros((2, 2))).tolist() == [1.0, 0.0]


def test_resamples_of_a_stack_are_averages(stacked):
    _, model, _, _ = stacked
    how = {"n_boot": 8, "n_replicates": 20, "rng": 3}
    res = model.fit(**how)
    fits = candidates(model, **how)
    values = np.stack([fit.boot_params for fit in fits], axis=-1)
    np.testing.assert_allclose(res.boot_params, values @ res.stack["weight"].to_numpy(), rtol=1e-9)
    start = fits[0].start_difference()
    np.testing.assert_allclose(res.start_difference().loc["IPWRA"], start.loc["IPWRA"], rtol=1e-10)


@pytest.mark.parametrize("name", ["arms", "ratio", "clusters", "frequency"])
def test_stacks_cross_with_other_options(name):
    frame = data(name)
    how = {**JOINT, "cov_type": "cluster"} if name == "clusters" else JOINT
    res = JRE.from_formula(FORMULA, frame, treat="d", learner=Square(), **CASES[name]).fit(**how)
    means = res.params.iloc[-len(res._record.design.labels) :].to_numpy()
    effects = means[1:] / means[0] if name == "ratio" else means[1:] - means[0]
    np.testing.assert_allclose(res.params.iloc[: len(effects)], effects, rtol=1e-10)
    assert np.isfinite(res.bse).all()
    groups = res.effects_by(frame.x2 > 0)
    assert np.isfinite(groups[["estimate", "std err"]]).all(axis=None) and len(groups) == 2 * len(effects)
    everybody = res.effects_by(np.zeros(len(frame)))["estimate"]
    np.testing.assert_allclose(everybody, res.params.iloc[: len(effects)], rtol=1e-4 if name != "ratio" else 0.01)


def test_effects_in_groups_of_a_stack_are_averages(stacked):
    frame, _, res, fits = stacked
    weights, both = res.stack["weight"].to_numpy(), (frame.x2 > 0).rename("high")
    of_fits, found = [fit.effects_by(both) for fit in fits], res.effects_by(both)
    np.testing.assert_allclose(found["estimate"], np.stack([of["estimate"] for of in of_fits], 1) @ weights, rtol=1e-9)
    everybody = res.effects_by(np.zeros(len(frame)))
    assert everybody["estimate"].item() == pytest.approx(res.effect, abs=1e-3 * res.effect_se)


@pytest.mark.parametrize("target", ["all", "treated"])
def test_effects_in_groups_of_replaced_models_by_hand(target):
    frame = sample().assign(e=lambda of: 1 / (1 + np.exp(-0.6 * of["x1"])))
    model = AIPW.from_formula(FORMULA, frame, treat="d", learner=Square(), propensity_score="e", target=target)
    res = model.fit()
    m0, m1 = res.outcome_predictions.to_numpy().T
    y, d, e = (frame[name].to_numpy() for name in ("y", "d", "e"))
    if target == "all":
        scores, weight = m1 - m0 + d / e * (y - m1) - (1 - d) / (1 - e) * (y - m0), np.ones(len(y))
    else:
        scores, weight = d * (y - m0) - (1 - d) * e / (1 - e) * (y - m0), d
    high = (frame.x2 > 0).to_numpy()
    expected = [scores[inside].sum() / weight[inside].sum() for inside in (~high, high)]
    np.testing.assert_allclose(res.effects_by(high)["estimate"], expected, rtol=1e-10)


def test_the_median_of_repeats_by_hand():
    frame = sample()
    model = AIPW.from_formula(FORMULA, frame, treat="d", learner=Square(), n_repeats=3)
    res = model.fit()
    options = [dataclasses.replace(model.options, repeat=repeat) for repeat in range(3)]
    each = [fit_estimator(model.design, AIPW.spec, own, InferenceOptions()) for own in options]
    effects = np.array([record.estimate.params[0] for record in each])
    errors = np.array([with_covariance(record, InferenceOptions()).std_errors[0] for record in each])
    assert len(set(effects)) == 3
    assert res.effect == np.median(effects)
    assert res.effect_se == pytest.approx(np.sqrt(np.median(errors**2 + (effects - np.median(effects)) ** 2)))
    assert "3 times" in res.summary().as_text().replace("\n    ", " ")
    assert res.t_test("POM[1] - POM[0]").sd.item() == pytest.approx(res.effect_se, rel=1e-9)
    with pytest.warns(DesignWarning, match="ignore the choice of folds"):
        res.effects_by(frame.x1 > 0)


@pytest.mark.filterwarnings("ignore:.*predictions of the learner:causalrisk.DesignWarning")
def test_notes_of_repeats_are_those_of_the_fit_that_is_shown():
    frame = sample().assign(y=lambda f: (f.y > f.y.median()).astype(int))
    model = AIPW.from_formula(FORMULA, frame, treat="d", family="binomial", learner=Square(), n_repeats=3)
    options = [dataclasses.replace(model.options, repeat=repeat) for repeat in range(3)]
    each = [fit_estimator(model.design, AIPW.spec, own, InferenceOptions()) for own in options]
    assert len({record.notes for record in each}) > 1
    res = model.fit()
    (own,) = (record for record in each if record.estimate.params[0] == res.effect)
    assert str(res.summary()).count("predictions of the learner are") == len(own.notes)


def test_compare_fits_each_estimator_with_its_use_of_the_learner():
    frame = sample()
    options = {"treat": "d", "learner": Square()}
    both = compare(FORMULA, frame, estimators=["IPWRA", "AIPW", "JRE"], n_boot=8, n_replicates=20, **options)
    for model in (IPWRA, AIPW, JRE):
        own = model.from_formula(FORMULA, frame, **options).fit(
            n_boot=8, **({"n_replicates": 20} if model is JRE else {})
        )
        assert both.results[model.__name__].effect == pytest.approx(own.effect, rel=1e-12)
        column = both.boot_effects[model.__name__]
        np.testing.assert_allclose(column, own.boot_params["ATE"], rtol=1e-9)


def test_learner_fit_by_hand():
    frame = sample()
    res = AIPW.from_formula(FORMULA, frame, treat="d", learner=Square()).fit()
    own = frame["d"] == 1
    y, m = frame["y"][own], res.outcome_predictions["1"][own]
    slope, intercept = np.polyfit(m, y, 1)
    found = res.learner_fit.loc["Square", "1"]
    expected = [1 - ((y - m) ** 2).sum() / ((y - y.mean()) ** 2).sum(), intercept, slope]
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert json.loads(res.glance().to_json())["learner"] == {"0": "Square (5 folds)"}


@pytest.mark.parametrize("height", [0.1, 3e7, 1e9])
@pytest.mark.filterwarnings("ignore:outcome 'y' does not vary within a group")
def test_learner_fit_of_outcomes_far_from_zero(height):
    frame = sample()
    near, far, constant = (
        AIPW.from_formula(FORMULA, frame.assign(y=y), treat="d", learner="smooth").fit().learner_fit
        for y in (frame.y, frame.y + height, np.where(frame.d == 1, height, frame.y))
    )
    np.testing.assert_allclose(far[["r squared", "slope"]], near[["r squared", "slope"]], rtol=1e-5)
    assert constant.loc["smooth", "1"].isna().all()
