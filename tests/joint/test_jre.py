"""JRE through its models: what it minimises, how far it is shrunk, its standard errors and resamples."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pandas as pd
import pytest

import causalrisk as cr
from causalrisk.simulation.designs import Linear, find_design

QUIET = pytest.mark.filterwarnings("ignore::causalrisk.OverlapWarning")


@pytest.fixture(scope="module")
def data():
    """Rows with outcomes of every family, two and three arms, some outcomes missing."""
    rng, n = np.random.default_rng(0), 300
    x1, x2, x3 = rng.normal(size=(3, n))
    odds = np.exp(np.column_stack([0 * x1, 0.6 * x1 + 0.4 * x2, 0.5 * x2 - 0.3]))
    d = (rng.random(n) < 1 / (1 + 1 / odds[:, 1])) * 1
    reached = (odds / odds.sum(axis=1, keepdims=True)).cumsum(axis=1)
    eta = 0.3 + 0.4 * x1 - 0.3 * x2 + 0.3 * d + 0.2 * x1**2
    frame = pd.DataFrame({"x1": x1, "x2": x2, "x3": x3, "d": d, "y": eta + rng.normal(size=n)})
    return frame.assign(
        arm=np.array(["a", "b", "c"])[(rng.random(n)[:, None] > reached).sum(axis=1).clip(0, 2)],
        b=(rng.random(n) < 1 / (1 + np.exp(-eta))) * 1,
        count=rng.poisson(np.exp(0.3 * eta)),
        w=rng.integers(1, 4, n),
        g=rng.integers(0, 60, n),
        o=0.1 * x3,
        seen=frame.y.where(rng.random(n) < 1 / (1 + np.exp(-1.5 - x1))),
    )


def fit(data, formula="y ~ x1 + x2", treat="d", options=None, **given):
    given = {"cov_type": "robust", "n_replicates": 15} | given
    return cr.JRE.from_formula(formula, data, treat=treat, **(options or {})).fit(**given)


def frame_of(data):
    return pd.DataFrame(np.random.default_rng(4).normal(0.2, 0.8, size=(120, 3)), columns=["x1", "x2", "x3"])


FIXED = {"shrinkage": 0.5, "share": 0.7}
ERM = {"objective": "erm"}
ARMS = {"reference": "a"}
INFLUENCE = {
    "linear": ("y ~ x1 + x2", "d", {}, FIXED),
    "further columns in the score": ("y ~ x1 + x2", "d", {"propensity": "x1 + x2 + x3"}, FIXED),
    "the score joins": ("y ~ x2", "d", {"propensity": "x1 + x2 + x3"}, FIXED | {"join_score": True}),
    "a single column joins": ("y ~ x2", "d", {"propensity": "x1 + x2"}, FIXED | {"join_score": True}),
    "two scores join": (
        "y ~ x2", "arm", ARMS | {"propensity": "x1 + x2 + x3 + I(x1**2)"}, FIXED | {"join_score": True}
    ),
    "the score joins logits": (
        "b ~ x2", "d", {"propensity": "x1 + x2 + x3", "family": "binomial"}, FIXED | {"join_score": True}
    ),
    "treated": ("y ~ x1 + x2", "d", {"target": "treated"}, FIXED),
    "overlap": ("y ~ x1 + x2", "d", {"target": "overlap"}, FIXED),
    "probit": ("y ~ x1 + x2", "d", {"propensity_link": "probit"}, FIXED),
    "calibrated": ("y ~ x1 + x2", "d", {"propensity_loss": "calibrated"}, FIXED),
    "target frame": ("y ~ x1 + x2", "d", {"target": frame_of}, FIXED),
    "target frame, the score joins": (
        "y ~ x2", "d", {"propensity": "x1 + x2 + x3", "target": frame_of}, FIXED | {"join_score": True}
    ),
    "missing outcomes": ("seen ~ x1 + x2", "d", {"observed": "x1 + x2"}, FIXED),
    "missing outcomes, overlap": ("seen ~ x1 + x2", "d", {"observed": "x1 + x2", "target": "overlap"}, FIXED),
    "three arms": ("y ~ x1 + x2", "arm", ARMS, FIXED),
    "weights": ("y ~ x1 + x2", "d", {"weights": "w", "weight_type": "probability"}, FIXED),
    "logit": ("b ~ x1 + x2", "d", {"family": "binomial"}, FIXED),
    "probit outcome, odds ratio": (
        "b ~ x1 + x2", "d", {"family": "binomial", "link": "probit", "effect": "odds_ratio"}, FIXED
    ),
    "Poisson, ratio": ("count ~ x1 + x2", "d", {"family": "poisson", "effect": "ratio"}, FIXED),
    "Poisson, three arms, overlap": (
        "count ~ x1 + x2", "arm", ARMS | {"family": "poisson", "target": "overlap"}, FIXED
    ),
    "offset": ("count ~ x1 + x2", "d", {"family": "poisson", "offset": "o"}, FIXED),
    "erm": ("y ~ x1 + x2", "d", {}, ERM),
    "erm, overlap": ("y ~ x1 + x2", "d", {"target": "overlap"}, ERM),
    "erm, logit": ("b ~ x1 + x2", "d", {"family": "binomial"}, ERM),
}  # fmt: skip


@QUIET
@pytest.mark.parametrize("case", INFLUENCE)
def test_the_influence_function_is_the_derivative_by_the_weights(data, case):
    """Of refits at weights a little off, the replicates moving with the score; at weights of one they agree."""
    formula, treat, options, given = INFLUENCE[case]
    options = {name: value(data) if callable(value) else value for name, value in options.items()}
    used = data if formula.startswith("seen") else data.drop(columns="seen")
    record = fit(used, formula, treat, options, **given)._record
    refit, sample = record.estimate.rows, record.sample
    refit = dataclasses.replace(refit, points=record.joint.replicates)
    influence, values = record.estimate.influence, record.estimate.values
    np.testing.assert_allclose(values - refit.replicate_offset, values, rtol=1e-6, atol=1e-7 * np.abs(values).max())
    rows, size = np.arange(0, sample.n, 41), 1e-4
    moved = np.repeat(sample.s[:, None], 2 * len(rows), axis=1)
    moved[rows, np.arange(len(rows))] += size
    moved[rows, len(rows) + np.arange(len(rows))] -= size
    refits = refit.refit(moved)
    assert (refits.failures == 0).all()
    up, down = np.vsplit(refits.values, 2)
    numeric = (up - down) / (2 * size) * sample.total
    assert (np.abs(numeric - influence[rows]) / np.abs(influence).max(axis=0)).max() < 1e-6


@QUIET
@pytest.mark.parametrize("case", ["linear", "the score joins", "treated", "calibrated", "three arms", "logit", "erm"])
def test_resamples_together_are_those_one_by_one(data, case):
    """One by one the weights of all replicates are made; together they are products of those of each resample."""
    formula, treat, options, given = INFLUENCE[case]
    record = fit(data.drop(columns="seen"), formula, treat, options, **given)._record
    refit, rng = record.estimate.rows, np.random.default_rng(8)
    counts = rng.multinomial(300, np.full(300, 1 / 300), size=5).T.astype(float)
    together = refit.refit(counts)
    alone = np.vstack([refit.refit(counts[:, [j]]).values for j in range(5)])
    assert (together.failures == 0).all()
    np.testing.assert_allclose(together.values, alone, rtol=1e-7, atol=1e-9)


@QUIET
def test_the_bootstrap_is_robust_error_in_large_samples():
    data = Linear(confounding=0.5).draw(3000, np.random.default_rng(2)).data
    model = cr.JRE.from_formula("y ~ x1 + x2 + x3 + x4", data, treat="d")
    robust, boot = (model.fit(shrinkage=1, n_replicates=20, **how) for how in ({"cov_type": "robust"}, {"n_boot": 400}))
    assert boot.effect_se == pytest.approx(robust.effect_se, rel=0.1)


@QUIET
@pytest.mark.parametrize("case", ["linear", "overlap", "target frame", "three arms", "logit", "Poisson, ratio"])
def test_no_net_bias_at_the_fitted_score(data, case):
    """On another scale than the difference, no bias of the effect to the first order."""
    formula, treat, options, given = INFLUENCE[case]
    options = {name: value(data) if callable(value) else value for name, value in options.items()}
    record = fit(data.drop(columns="seen"), formula, treat, options, **given)._record
    sample, estimate = record.sample, record.estimate
    left = sample.y - estimate.predicted[sample.arm, np.arange(sample.n)]
    residual = sample.s * record.weight_fit.w * left / sample.total
    biases = np.array([residual[rows].sum() for rows in sample.slices])
    net = record.options.effect_scale.g_slope(record.joint.start.model_means) * biases
    assert np.abs(net - net[0]).max() < 1e-9 * sample.y.std()


@QUIET
@pytest.mark.parametrize("case", ["linear", "overlap", "target frame", "three arms", "logit", "Poisson, ratio", "erm"])
def test_the_risk_is_never_above_that_of_ipwra(data, case):
    formula, treat, options, given = INFLUENCE[case]
    options = {name: value(data) if callable(value) else value for name, value in options.items()}
    risk = fit(data.drop(columns="seen"), formula, treat, options, **given).joint.risk
    column = "RMS net" if case == "erm" else "risk"
    assert risk.loc["JRE", column] <= risk.loc["IPWRA", column] * (1 + 1e-12)


@QUIET
@pytest.mark.parametrize("family", ["gaussian", "binomial"])
def test_much_shrinkage_is_ipwra(data, family):
    outcome = {"gaussian": "y", "binomial": "b"}[family]
    res = fit(data, f"{outcome} ~ x1 + x2", options={"family": family}, shrinkage=1e9)
    assert res.effect == pytest.approx(res.start.effect, rel=1e-7)
    assert res.joint.shrinkage == 1e9


@QUIET
def test_units_order_and_coding_of_columns_do_not_matter(data):
    other = data.assign(y=1000 * data.y - 7, z1=3 - 2 * data.x1, z2=data.x2 + data.x1)
    res, again = fit(data, shrinkage=0.5), fit(other, "y ~ z2 + z1", shrinkage=0.5)
    assert again.effect == pytest.approx(1000 * res.effect, rel=1e-8)
    assert again.effect_se == pytest.approx(1000 * res.effect_se, rel=1e-8)
    assert again.joint.share == pytest.approx(res.joint.share, rel=1e-8)
    assert fit(other, "y ~ z2 + z1").joint.shrinkage == pytest.approx(fit(data).joint.shrinkage, rel=0.02)


@QUIET
def test_swapping_the_arms_turns_the_effect(data):
    res, other = fit(data, **FIXED), fit(data.assign(d=1 - data.d), **FIXED)
    assert other.effect == pytest.approx(-res.effect, rel=1e-9)


@QUIET
def test_frequency_weights_are_repeated_rows(data):
    given = {"shrinkage": 0.5, "replicates": np.ones((300, 2)) * data.w.to_numpy()[:, None]}
    weighted = fit(data, options={"weights": "w", "weight_type": "frequency"}, n_replicates=None, **given)
    rows = data.loc[data.index.repeat(data.w)].reset_index(drop=True)
    repeated = fit(rows, n_replicates=None, **given | {"replicates": np.ones((len(rows), 2))})
    np.testing.assert_allclose(weighted.params, repeated.params, rtol=1e-9)
    np.testing.assert_allclose(weighted.bse, repeated.bse, rtol=1e-9)
    assert weighted.joint.share == pytest.approx(repeated.joint.share, rel=1e-9)


@QUIET
def test_many_observations_in_few_rows_have_no_random_replicates(data):
    """From 5,000 observations on, the replicates are the fixed points of a normal distribution."""
    options = {"weights": "w", "weight_type": "frequency"}
    weighted = fit(data.assign(w=20), options=options, n_replicates=None, shrinkage=0.5)
    repeated = fit(data.loc[data.index.repeat(20)].reset_index(drop=True), n_replicates=None, shrinkage=0.5)
    np.testing.assert_allclose(weighted.params, repeated.params, rtol=1e-9)


@QUIET
def without_shifts(model, rows, **given):
    """A fit whose replicates are the score itself, so that the number of units has no part in the objective."""
    return model.fit(replicates=np.ones((rows, 2)), **{"n_boot": 30} | given)


RISKS = {"fixed": FIXED, "chosen": {"share": 0.7}, "erm": ERM}


@QUIET
@pytest.mark.parametrize("given", RISKS.values(), ids=RISKS)
def test_clusters_of_equal_rows_are_rows(data, given):
    """In the risk, the choice of its shrinkage, robust errors and resamples."""
    data = data.assign(id=data.index)  # of one row each: what folds are dealt by
    twice = data.loc[data.index.repeat(2)].reset_index(drop=True)
    rows, clusters = (cr.JRE.from_formula("y ~ x1 + x2", of, treat="d", cluster="id") for of in (data, twice))
    for how in ({}, {"cov_type": "cluster", "n_boot": None}):
        one, two = without_shifts(rows, 300, **given, **how), without_shifts(clusters, 600, **given, **how)
        np.testing.assert_allclose(two.params, one.params, rtol=1e-9)
        np.testing.assert_allclose(two.bse, one.bse, rtol=1e-8)
    if given is RISKS["chosen"]:
        path, expected = two.anchor_path(), one.anchor_path()
        pd.testing.assert_frame_equal(path, expected, rtol=1e-7)
        assert 0.03 < two.joint.shrinkage == one.joint.shrinkage < 30


def test_the_share_of_clusters_counts_them(data):
    """Rows twice, in clusters, say no more of the heterogeneity than once; as rows they halve its error."""
    data = data.assign(y=data.y + data.d * data.x1)
    twice = data.loc[data.index.repeat(2)].assign(id=np.repeat(data.index, 2)).reset_index(drop=True)
    once, clusters, rows = (
        1 - fit(frame, options=options, cov_type="cluster" if options else "robust").joint.share
        for frame, options in ((data, {}), (twice, {"cluster": "id"}), (twice, {}))
    )
    assert once < 0.5 and clusters == pytest.approx(once, rel=0.1) and rows == pytest.approx(once / 2, rel=0.1)


@QUIET
@pytest.mark.parametrize("given", [FIXED, ERM], ids=["risk", "erm"])
def test_probability_weights_are_clusters_of_repeated_rows(data, given):
    repeated = data.loc[data.index.repeat(data.w)].assign(id=lambda f: f.index).reset_index(drop=True)
    weighted = cr.JRE.from_formula("y ~ x1 + x2", data, treat="d", weights="w", weight_type="probability")
    by_row = cr.JRE.from_formula("y ~ x1 + x2", repeated, treat="d", cluster="id")
    one, two = without_shifts(weighted, 300, **given), without_shifts(by_row, len(repeated), **given)
    np.testing.assert_allclose(one.params, two.params, rtol=1e-9)
    np.testing.assert_allclose(one.bse, two.bse, rtol=1e-8)
    large = data.assign(w=data.w * 1000.0)
    other = cr.JRE.from_formula("y ~ x1 + x2", large, treat="d", weights="w", weight_type="probability")
    one, two = (model.fit(cov_type="robust", n_replicates=15, **given) for model in (weighted, other))
    np.testing.assert_allclose(np.r_[two.params, two.bse], np.r_[one.params, one.bse], rtol=1e-9)


def test_scipy_reports_a_minimisation(data):
    res = fit(data, "b ~ x1 + x2", options={"family": "binomial"}, shrinkage=0.3)
    report = res.joint.optimize_result
    assert report.success and report.nit > 1 and np.linalg.norm(report.jac) < 1e-8
    by_bfgs = fit(data, "b ~ x1 + x2", options={"family": "binomial"}, shrinkage=0.3, method="BFGS")
    assert by_bfgs.effect == pytest.approx(res.effect, rel=1e-6)
    assert by_bfgs.joint.optimize_result.nit != report.nit
    with pytest.raises(cr.OptionError, match="least_squares"):
        fit(data, method="least_squares")


def test_names_of_the_amount_of_shrinkage(data):
    with pytest.raises(cr.OptionError, match="shrinkage="):
        fit(data, shrinkage=1, anchor=1)
    with pytest.raises(cr.OptionError, match="shrinkage"):
        fit(data, shrinkage=-1)


# --- how far it is shrunk --------------------------------------------------------------------------------------------


@QUIET
@pytest.mark.filterwarnings("ignore:ATE is .* by JRE:causalrisk.DesignWarning")
def test_cross_validation_finds_where_to_gain():
    """Fixed samples of a curved outcome that the formula takes for a line: half of IPWRA's squared error, or less."""
    design, errors, shrinkage = find_design("doubly_wrong"), [], []
    for seed in range(15):
        data = design.draw(200, np.random.default_rng([5, seed])).data
        res = cr.JRE.from_formula(design.formula, data, treat="d").fit(cov_type="robust", n_replicates=30)
        errors.append([res.effect - design.effect, res.start.effect - design.effect])
        shrinkage.append(res.joint.shrinkage)
    joint, ipwra = (np.array(errors) ** 2).mean(axis=0)
    assert joint < 0.8 * ipwra
    assert np.median(shrinkage) < 1


@QUIET
def test_the_path(data):
    res = fit(data)
    path = res.joint.path
    assert path.index.tolist() == [30, 10, 3, 1, 0.3, 0.1, 0.03]
    assert path["share"].sum() == pytest.approx(1)
    for anchor in (30.0, 0.1):
        assert fit(data, shrinkage=anchor).effect == pytest.approx(path.loc[anchor, "effect"], rel=1e-9)
    chosen = np.exp((path["share"] * np.log(path.index)).sum())
    assert res.joint.shrinkage == pytest.approx(chosen, rel=0.01)


@QUIET
def test_clusters_stay_whole_in_the_folds(data):
    """Rows of a cluster that are the same tell nothing of the others: with three of each the choice is that of one."""
    data, given = (
        data.assign(g=np.arange(300)),
        {"options": {"cluster": "g"}, "cov_type": "cluster", "n_replicates": None},
    )
    once = fit(data, replicates=np.ones((300, 1)), **given)
    thrice = pd.concat([data] * 3, ignore_index=True).sort_values("g", kind="stable")
    again = fit(thrice, replicates=np.ones((900, 1)), **given)
    assert again.effect_se == pytest.approx(once.effect_se, rel=0.05)


# --- the linear predictor of the score among the outcome columns -----------------------------------------------------


def left_out(seed, n=400, strength=1.6):
    """A strong confounder, x1, that the outcome formula lacks and the score has."""
    rng = np.random.default_rng([3, seed])
    x = rng.normal(size=(n, 5))
    d = (rng.random(n) < 1 / (1 + np.exp(-strength * x[:, 0] - 0.8 * x[:, 1]))) * 1
    frame = pd.DataFrame(x, columns=["x1", "x2", "x3", "x4", "x5"])
    return frame.assign(d=d, y=x[:, 0] + x[:, 1] + d + rng.normal(size=n))


SCORE = {"propensity": "x1 + x2 + x3 + x4 + x5"}


@QUIET
def test_the_score_joins_where_the_formula_lacks_a_confounder():
    errors = []
    for seed in range(6):
        data = left_out(seed)
        joined, without = (fit(data, "y ~ x2 + x3 + x4 + x5", options=SCORE, join_score=join) for join in (None, False))
        assert joined.joint.score_joined and not without.joint.score_joined
        pd.testing.assert_series_equal(joined.start.params, without.start.params)
        errors.append([joined.effect - 1, joined.start.effect - 1])
    assert all("score was added to the" in str(text) for text in (joined.methods(), joined.explain()))
    assert any("linear predictor of the propensity score" in note for note in joined._record.notes)
    joint, ipwra = (np.array(errors) ** 2).mean(axis=0)
    assert joint < 0.8 * ipwra


@QUIET
def test_the_score_does_not_join_where_nothing_is_missing():
    data = left_out(1)
    whole = fit(data, "y ~ x1 + x2 + x3 + x4 + x5", options=SCORE)
    assert not whole.joint.score_joined
    rng = np.random.default_rng(5)
    instrument = data.assign(y=data.x2 + data.d + rng.normal(size=len(data)))
    assert not fit(instrument, "y ~ x2 + x3 + x4 + x5", options=SCORE).joint.score_joined
    with pytest.raises(cr.OptionError, match="join_score"):
        fit(data, objective="erm", join_score=True)


# --- where JRE and IPWRA disagree ------------------------------------------------------------------------------------


def opposed(seed, bend, score_bend, n=1000):
    """Outcomes whose curves are opposite in the two arms, and a score with the same square."""
    rng = np.random.default_rng([6, seed])
    x = rng.normal(size=(n, 5))
    square = x[:, 0] ** 2 - 1
    d = (rng.random(n) < 1 / (1 + np.exp(-0.7 * x[:, 0] - 0.35 * x[:, 1] - score_bend * square))) * 1
    y = x[:, 0] + x[:, 1] + bend * (2 * d - 1) * square + rng.normal(size=n)
    return pd.DataFrame(x, columns=["x1", "x2", "x3", "x4", "x5"]).assign(d=d, y=y)


@QUIET
def test_disagreement_with_ipwra_is_told_where_both_models_are_wrong():
    with pytest.warns(cr.DesignWarning, match="by JRE and .* by IPWRA"):
        res = fit(opposed(1, 0.7, 0.5), "y ~ x1 + x2 + x3 + x4 + x5")
    assert "tests find curvature that" in " ".join(str(res.summary()).split())


@QUIET
@pytest.mark.parametrize(("bend", "score_bend"), [(0.7, 0.0), (0.0, 0.5), (0.0, 0.0)])
@pytest.mark.parametrize("seed", range(4))
def test_no_disagreement_is_told_where_a_model_is_right(bend, score_bend, seed):
    data = opposed(seed, bend, score_bend)
    res = fit(data, "y ~ x1 + x2 + x3 + x4 + x5")  # a warning is an error
    assert not any("by IPWRA" in note for note in res._record.notes)


@QUIET
def test_squares_in_the_formulas_answer_the_disagreement():
    square = "x1 + x2 + x3 + x4 + x5 + I(x1**2)"
    res = fit(opposed(1, 0.7, 0.5), f"y ~ {square}", options={"propensity": square})
    assert abs(res.effect - res.start.effect) < res.effect_se
    assert not any("by IPWRA" in note for note in res._record.notes)


@QUIET
@pytest.mark.filterwarnings("ignore:group .* observations and")
def test_the_fitted_score_serves_where_replicates_have_weights_without_bounds():
    rng, columns = np.random.default_rng(7), [f"x{j}" for j in range(45)]
    data = pd.DataFrame(rng.normal(size=(150, 45)), columns=columns)
    data["d"] = rng.random(150) < 1 / (1 + np.exp(-1.8 * data["x0"]))
    data["y"] = data["x0"] + 0.5 * data["d"] + rng.normal(size=150)
    formula = "y ~ " + " + ".join(columns)
    with pytest.warns(cr.ResampleWarning, match="a few weights under its replicates"):
        res = fit(data, formula, n_replicates=None)
    assert abs(res.effect - 0.5) < 3 * res.effect_se < 1
    given = rng.exponential(size=(150, 40))
    with pytest.raises(cr.CausalRiskError, match=r"(?s)outcome models are not determined.*use IPWRA"):
        fit(data, formula, n_replicates=None, replicates=given, shrinkage=1.0)
    with pytest.raises(cr.CausalRiskError, match="outcome models are not determined"):  # nor in a stack
        fit(data, formula, options={"learner": "smooth"}, n_replicates=None, replicates=given, shrinkage=1.0)


@pytest.mark.parametrize("seed", [1, 3, 4])
def test_searches_step_back_from_fitted_means_of_zero_and_one(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(40, 3))
    d = rng.random(40) < 1 / (1 + np.exp(-x[:, 0]))
    b = rng.random(40) < 1 / (1 + np.exp(-x[:, 0] - x[:, 1] - d))
    data = pd.DataFrame(x, columns=["x1", "x2", "x3"]).assign(b=1 * b, d=1 * d)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few rows, and a search that may not converge
        res = fit(data, "b ~ x1 + x2 + x3", options={"family": "binomial"}, shrinkage=1e-3, n_replicates=None)
    at = res.joint.optimize_result
    assert res.converged == at.success
    assert at.fun < 1.0 and np.isfinite(res.bse).all()  # one at IPWRA, in the unit of the search
