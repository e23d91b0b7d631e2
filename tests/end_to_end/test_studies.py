"""The designs of the studies, and the helpers that judge standard errors there."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression

import causalrisk as cr
from causalrisk.simulation import run_study
from causalrisk.simulation.designs import find_design
from causalrisk.simulation.entries import Trial
from tests.conftest import REFERENCE, RHS, simulate
from tests.studies import (
    designs,
    study_bootstraps,
    study_coverage,
    study_intervals,
    study_learners,
    study_left_out,
    study_leverages,
    study_outside,
    study_real,
    study_robust,
    study_small_samples,
    study_stack,
)
from tests.studies.averages import geometric_mean
from tests.studies.groups import run_in_groups


@pytest.mark.parametrize("design", [designs.mild, designs.strong, designs.kang_schafer])
def test_designs_have_the_covariates_of_their_formula(design):
    frame, _ = design(50, np.random.default_rng(0))
    assert list(frame.columns) == ["y", "d", "x1", "x2", "x3", "x4"]
    assert set(frame.d) == {0, 1}
    assert frame.equals(design(50, np.random.default_rng(0))[0])


@pytest.mark.parametrize("design", [designs.mild, designs.strong])
def test_effect_is_the_one_that_a_right_propensity_model_finds(design):
    frame, effect = design(40_000, np.random.default_rng(1))
    res = cr.AIPW.from_formula(f"y ~ {designs.RHS} + I(x1**2)", frame, treat="d", propensity=designs.RHS).fit()
    assert abs(res.effect - effect) < 4 * res.effect_se


@pytest.mark.filterwarnings("ignore::causalrisk.OverlapWarning")
def test_lalonde_has_614_rows():
    frame, rhs = designs.lalonde()
    assert frame.shape[0] == 614
    assert set(rhs.split(" + ")) < set(frame.columns)
    redrawn, effect = designs.lalonde_redrawn(100, np.random.default_rng(0))
    assert effect == 0
    assert list(redrawn.columns) == list(frame.columns)


def test_leverages_sum_to_the_number_of_columns():
    rng = np.random.default_rng(0)
    leverage = study_coverage.weighted_leverage(rng.normal(size=(30, 4)), rng.random(30))
    assert leverage.sum() == pytest.approx(4)


def test_jackknife_of_the_difference_of_means_is_the_textbook_one():
    frame = simulate(60)
    y = [frame.y[frame.d == arm] for arm in (0, 1)]
    res = cr.OutcomeRegression.from_formula("y ~ 1", frame, treat="d").fit()
    # Leaving a row of an arm of m rows out moves its mean by residual / (m - 1).
    moves = np.concatenate([(v - v.mean()) / (len(v) - 1) for v in y])
    expected = np.sqrt((len(frame) - 1) / len(frame) * (moves**2).sum())
    assert study_coverage.jackknife_se(res._record) == pytest.approx(expected, rel=1e-9)


def test_inflated_standard_error_without_leverage_is_the_robust_one():
    res = cr.IPWRA.from_formula(f"y ~ {RHS}", simulate(200), treat="d").fit()
    assert study_coverage.inflated_se(res._record, np.zeros(200)) == pytest.approx(res.effect_se * 200 / 199)


def test_inflation_by_the_leverage_of_an_arm_comes_near_the_jackknife():
    res = cr.IPWRA.from_formula(f"y ~ {RHS}", simulate(300), treat="d").fit()
    leverage = np.maximum(*study_coverage.separate_leverage(res._record))
    inflated, jackknife = study_coverage.inflated_se(res._record, leverage), study_coverage.jackknife_se(res._record)
    assert res.effect_se < inflated
    assert inflated == pytest.approx(jackknife, rel=0.05)


def test_geometric_mean_and_its_error():
    mean, error = geometric_mean(np.array([0.5, 2.0]), np.array([0.05, 0.2]))
    assert mean == pytest.approx(1)
    assert error == pytest.approx(np.sqrt(2 * 0.1**2) / 2)  # relative errors of 0.1 each, averaged


def nsw_alone(monkeypatch):
    monkeypatch.setattr(study_real, "cases", lambda cases=study_real.cases: {"NSW": cases()["NSW experiment"]})


@pytest.mark.filterwarnings("ignore::causalrisk.CausalRiskWarning")
def test_real_data_are_compared_on_the_same_resamples(monkeypatch):
    nsw_alone(monkeypatch)
    found = study_real.compare_on_real_data(n_boot=20).loc["NSW"]
    data, formula, treat, propensity = study_real.cases()["NSW"]
    jre, ipwra = (
        model.from_formula(formula, data, treat=treat, propensity=propensity).fit(bootstrap="pairs", n_boot=20)
        for model in (cr.JRE, cr.IPWRA)
    )
    assert found["SE ratio"] == pytest.approx(jre.effect_se / ipwra.effect_se, rel=1e-12)
    sds = [fit.boot_params["ATE"].std() for fit in (jre, ipwra)]
    assert found["SD ratio"] == pytest.approx(sds[0] / sds[1], rel=1e-12)
    assert found["MC error"] < 0.01


@pytest.mark.filterwarnings("ignore::causalrisk.CausalRiskWarning")
def test_rows_left_out_at_the_anchor_of_the_fit_are_those_of_influence():
    """But for the number of rows in the penalties, which `influence` keeps."""
    case = (simulate(60), f"y ~ {RHS}", "d", None)
    res = cr.JRE.from_formula(*case[1::-1], treat="d").fit(cov_type="robust", replicates=np.ones((60, 3)))
    effects, anchors = study_left_out.changes_without(case, [4, 17], np.ones((60, 3)), res._record.joint.anchor)
    expected = res.influence(method="exact")["change"].to_numpy()[[4, 17]]
    np.testing.assert_allclose(effects - res.effect, expected, rtol=1e-3)
    assert set(anchors) == {res._record.joint.anchor}


@pytest.mark.filterwarnings("ignore::causalrisk.CausalRiskWarning")
def test_intervals_without_the_factor_are_narrower_by_it():
    table = study_intervals.coverage(find_design("strong"), n=150, n_boot=40, sims=1, seed=1).reset_index()
    widths = table[table.estimator == "JRE"].pivot(index="method", columns="factor", values="width")
    ratios = widths["with"] / widths["without"]
    np.testing.assert_allclose(ratios, ratios.iloc[0], rtol=1e-9)
    assert ratios.iloc[0] > 1.01


@pytest.mark.filterwarnings("ignore::causalrisk.CausalRiskWarning")
def test_bootstraps_are_compared_on_the_same_samples():
    table = study_bootstraps.study((("lalonde_like", 120),), n_boot=20, sims=6, seed=1).set_index("estimator")
    assert (table["samples"] > 1).all()
    assert (table["bayesian refused"] == 0).all()
    assert (table["pairs refused"] > 0).all()


def test_coverages_of_two_bootstraps_by_hand():
    columns = pd.MultiIndex.from_product([["error", "se"], ["pairs", "bayesian"]])
    values = [[1, 1, 1, 0.4], [2, 2, 0.5, 0.5], [3, 3, 2, 1.6], [9, 9, np.nan, 5]]
    found = study_bootstraps.coverages(pd.DataFrame(values, columns=columns))
    assert (found["pairs refused"], found["bayesian refused"], found["samples"]) == (0.25, 0, 4)
    assert found["pairs coverage"] == pytest.approx(2 / 3)
    assert found["bayesian coverage"] == pytest.approx(1 / 3)
    assert found["bayesian coverage, all"] == pytest.approx(1 / 2)
    assert found["width ratio"] == pytest.approx(0.8)


def test_page_shows_the_stored_comparison_of_bootstraps():
    page = (study_bootstraps.TABLE.parents[3] / "docs/explanation/standard_errors.md").read_text("utf-8")
    for line in study_bootstraps.markdown(pd.read_csv(study_bootstraps.TABLE)).splitlines():
        assert line in page


@pytest.mark.filterwarnings("ignore::causalrisk.CausalRiskWarning")
def test_intervals_about_the_mean_of_the_resamples_are_no_wider():
    """But for the divisor: a mean square about the estimate is that about the mean and the square between them."""
    found = study_intervals.coverage(find_design("strong"), n=150, n_boot=40, sims=2, seed=1)
    width = found["width"].xs("with", level="factor")
    assert width["JRE", "normal, about the mean"] * np.sqrt(39 / 40) < width["JRE", "normal"]


# --- groups of estimators, double robustness, benchmarks of others ---------------------------------------------------


def test_groups_of_estimators_are_stored_apart_and_give_one_study(tmp_path):
    options = {"n": 100, "n_sims": 3}
    whole = run_study("linear", estimators=["IPWRA", "AIPW", "Hajek"], **options)
    groups = {"usual": ["IPWRA", "AIPW"], "more": "Hajek"}
    parts = run_in_groups("linear", groups, tmp_path, **options)
    pd.testing.assert_frame_equal(parts.table, whole.table)
    assert {folder.name for folder in tmp_path.iterdir()} == set(groups)
    again = run_in_groups("linear", groups | {"more": "OutcomeRegression"}, tmp_path / "other", **options)
    assert again.estimators == ["IPWRA", "AIPW", "OutcomeRegression"]


def test_bias_less_that_of_ipwra_by_hand():
    study = run_study("linear", n=100, n_sims=4, estimators=["IPWRA", "Hajek"])
    errors = study.errors("linear", 100)
    apart = errors["Hajek"] - errors["IPWRA"]
    found = study_robust.with_differences(study).set_index("estimator")
    assert found.loc["Hajek", "apart"] == pytest.approx(apart.mean(), rel=1e-12)
    assert found.loc["Hajek", "apart_mc"] == pytest.approx(apart.std() / 2, rel=1e-12)
    assert found.loc["IPWRA", "apart"] == 0


@pytest.mark.parametrize("design", study_robust.MISSED.values(), ids=study_robust.MISSED)
@pytest.mark.filterwarnings("ignore::causalrisk.OverlapWarning")
def test_scores_are_missed_and_outcomes_are_not(design):
    assert design.formula == design.oracle_formula
    assert design.propensity != design.oracle_propensity
    drawn = design.draw(40_000, np.random.default_rng(0))
    res = cr.IPWRA.from_formula(design.formula, drawn.data, treat="d").fit(cov_type="robust")
    assert abs(res.effect - design.effect) < 4 * res.effect_se
    assert np.abs(res.propensity_scores - drawn.score).max() > 0.2


@pytest.mark.filterwarnings("ignore::causalrisk.CausalRiskWarning")
def test_study_of_double_robustness_prints_and_stores_its_tables(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(study_robust, "CELL_SIZE", 100)
    options = ["--sims", "2", "--n", "100", "--n-replicates", "4", "--tables", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["study_robust", *options])
    study_robust.main()
    assert "both wrong" in capsys.readouterr().out
    cells = pd.read_csv(tmp_path / "cells.csv").set_index(["design", "estimator"])
    start, joint = (cells.loc[("both right", name), "bias"] for name in ("IPWRA", "JRE"))
    assert cells.loc[("both right", "JRE"), "apart"] == pytest.approx(joint - start, abs=2e-6)  # six digits are stored
    scores = pd.read_csv(tmp_path / "wrong_scores.csv")
    assert set(scores["design"]) == set(study_robust.MISSED)


DRAWN = [*map(study_outside.NieWager, "ABCD"), study_outside.InteractiveModel()]


@pytest.mark.parametrize("design", [*DRAWN, *map(study_learners.Shaped, study_learners.SHAPES)])
def test_effects_of_benchmarks_that_are_drawn(design):
    drawn = design.draw(200_000, np.random.default_rng(1))
    effects = drawn.y1 - drawn.y0
    assert abs(effects.mean() - design.effect) <= 4 * effects.std() / np.sqrt(len(effects)) + 1e-12
    assert abs(drawn.score.mean() - drawn.data["d"].mean()) < 0.01


def benchmark(folder, samples=2, rows=60):
    """Write a benchmark as `outside_samples.R` does."""
    rng = np.random.default_rng(0)
    (folder / "of_others").mkdir(parents=True)
    for number in range(samples):
        x, d = rng.normal(size=(rows, 2)), np.arange(rows) % 2
        tau = 1 + x[:, 0]
        frame = pd.DataFrame({"y": 3 + x @ [2, 1] + d * tau, "d": d, "tau": tau, "a": x[:, 0], "b": x[:, 1]})
        frame.assign(y=frame.y + rng.normal(size=rows)).to_csv(folder / f"of_others/{number}.csv.gz", index=False)
    return sorted(folder.glob("*/*.csv.gz"))


@pytest.mark.parametrize("model", [cr.OutcomeRegression, cr.AIPW, cr.JRE])
@pytest.mark.filterwarnings("ignore::causalrisk.CausalRiskWarning")
def test_errors_of_stored_samples_are_in_standard_deviations(tmp_path, model):
    file = benchmark(tmp_path)[0]
    raw, stored = pd.read_csv(file), study_outside.Stored(file)
    assert (stored.name, stored.formula) == ("of others", "y ~ a + b")
    options = {"cov_type": "robust", "rng": 0}
    found = model.from_formula(stored.formula, stored.draw(0, None).data, treat="d").fit(**options).effect
    error = model.from_formula("y ~ a + b", raw, treat="d").fit(**options).effect - raw.tau.mean()
    assert found == pytest.approx(error / raw.y.std(), rel=1e-6)


def test_entropy_balancing_by_hand():
    """Where both arms have the covariate means of the sample under their weights, a linear outcome leaves no error."""
    design = find_design("linear")
    data = design.draw(200, np.random.default_rng(0)).data
    data["y"] = 1 + data[["x1", "x2", "x3", "x4"]] @ [1, 2, -1, 3] + 5 * data["d"]
    trial = Trial(data, design.formula, design.propensity, np.random.SeedSequence(0))
    assert study_outside.entropy_balancing(trial)[0] == pytest.approx(5, abs=0.01)
    data["d"] = (data["x1"] > 0).astype(int)
    with pytest.raises(RuntimeError, match="no weights balance arm 0"):
        study_outside.entropy_balancing(Trial(data, design.formula, design.propensity, np.random.SeedSequence(0)))


@pytest.mark.filterwarnings("ignore::causalrisk.CausalRiskWarning")
def test_benchmarks_of_others_are_compared_losses_first(tmp_path, monkeypatch, capsys):
    benchmark(tmp_path / "data")
    groups = {"usual": ["IPWRA", "AIPW"], "joint": {"JRE": ("JRE", {"n_replicates": 10})}}
    monkeypatch.setattr(study_outside, "estimator_groups", lambda n_replicates: groups)
    monkeypatch.setattr(study_outside, "DRAWN", 120)
    folders = ["--data", str(tmp_path / "data"), "--store", str(tmp_path / "store"), "--table", str(tmp_path / "t.csv")]
    monkeypatch.setattr("sys.argv", ["study_outside", "--sims", "2", *folders])
    study_outside.main()
    table, out = pd.read_csv(tmp_path / "t.csv"), capsys.readouterr().out
    assert "of others" in out
    losses = table[table["estimator"] == "JRE"]["rmse_ratio"]
    assert losses.is_monotonic_decreasing
    assert (table[table["estimator"] == "IPWRA"][["rmse_ratio", "absolute_ratio"]] == 1).all(axis=None)
    study_outside.main()  # from the store
    assert capsys.readouterr().out == out


# --- learners --------------------------------------------------------------------------------------------------------


class Counted(LinearRegression):
    """A learner that counts its fits."""

    fits = 0

    def fit(self, X, y, sample_weight=None):
        Counted.fits += 1
        return super().fit(X, y, sample_weight)


def test_a_fit_that_is_remembered_is_the_learner_s_and_is_made_once():
    rng = np.random.default_rng(0)
    x, y, w = rng.normal(size=(20, 2)), rng.normal(size=20), rng.random(20)
    given = [(x, y, None), (x, y, w), (x + 1, y, None)]
    for rows in [*given, *given]:
        found = study_learners.Remembered(Counted()).fit(*rows).predict(x)
        np.testing.assert_array_equal(found, LinearRegression().fit(*rows).predict(x))
    assert Counted.fits == len(given)


def test_averages_over_benchmarks_by_hand():
    rows = [("a", "X", 0.5, 0.05, 9, 9), ("b", "X", 2.0, 0.2, 9, 9), (study_learners.TAILS, "X", 9, 9, 1.0, 0.1)]
    columns = ["design", "estimator", "rmse_ratio", "rmse_ratio_mc", "absolute_ratio", "absolute_ratio_mc"]
    found = study_learners.averages(pd.DataFrame(rows, columns=columns)).loc["X"]
    assert found["mean"] == pytest.approx(1)
    assert found["mean_mc"] == pytest.approx(np.sqrt(3 * 0.1**2) / 3)
    assert (found["worst"], found["worst_mc"], found["of"]) == (2.0, 0.2, "b")


@pytest.mark.filterwarnings("ignore::causalrisk.CausalRiskWarning")
def test_learners_are_compared_on_benchmarks_and_in_coverage(tmp_path, monkeypatch, capsys):
    benchmark(tmp_path / "data")
    groups = study_learners.learner_groups(10)
    kept = {name: groups[name] for name in ("usual", "joint", "smooth")}
    monkeypatch.setattr(study_learners, "learner_groups", lambda n_replicates: kept)
    monkeypatch.setattr(study_learners, "with_doubleml", lambda groups: groups)
    monkeypatch.setattr(study_outside, "EFFECTS", {"A": 0.5})
    monkeypatch.setattr(study_outside, "DRAWN", 120)
    monkeypatch.setattr(study_learners, "SHAPES", study_learners.SHAPES[:2])
    table = tmp_path / "t.csv"
    options = ["--sims", "2", "--table", str(table), "--store", str(tmp_path / "store")]
    monkeypatch.setattr("sys.argv", ["", "benchmarks", "--data", str(tmp_path / "data"), *options])
    study_learners.main()
    found = pd.read_csv(table)
    assert set(found["design"]) == {"Nie-Wager A", "make_irm_data", "of others"}
    assert (found.loc[found["estimator"] == "IPWRA", ["rmse_ratio", "absolute_ratio"]] == 1).all(axis=None)
    assert "JRE, stack of smooth" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["", "coverage", "--n", "120", "--n-boot", "4", *options[:4]])
    study_learners.main()
    found = pd.read_csv(table)
    assert set(found["errors"]) == {"robust", "bootstrap"}
    assert set(found["design"]) == set(study_learners.SHAPES)


def test_rules_of_a_stack_by_hand():
    covariance = np.array([[1.0, 0.5, 0.2], [0.5, 2.0, 0.1], [0.2, 0.1, 4.0]])
    for times in (1, 2, 5):
        found = study_stack.variance_counted(times, covariance)
        exact = np.linalg.solve(covariance + (times - 1) * np.diag(np.diag(covariance)), np.ones(3))
        np.testing.assert_allclose(found, exact / exact.sum(), rtol=1e-8)
    np.testing.assert_array_equal(study_stack.RULES["no formula"](covariance)[0], 0)
    np.testing.assert_array_equal(study_stack.RULES["nothing alone"](covariance)[2], 0)


@pytest.mark.filterwarnings("ignore::causalrisk.CausalRiskWarning")
def test_a_rule_averages_the_fits_of_the_stack():
    draw = study_outside.NieWager("C").draw(200, np.random.default_rng(0))
    trial = Trial(draw.data, study_outside.NieWager("C").formula, "d ~ x1 + x2 + x3", np.random.SeedSequence(3))
    found, _ = study_stack.averaged(trial, "smooth", "each variance twice", 10)
    res = trial.model(cr.JRE, learner="smooth").fit(cov_type="robust", n_replicates=10, rng=trial.seed)
    assert found == pytest.approx(res.effect, rel=1e-12)
    assert study_stack.averaged(trial, "smooth", "equal", 10)[0] == pytest.approx(res.stack["ATE"].mean(), rel=1e-12)


def test_samples_of_a_population_stand_for_it():
    rng = np.random.default_rng(0)
    everybody = study_small_samples.population(4, rng)
    sample = study_small_samples.drawn(everybody, rng)
    assert len(everybody) == 4 * 20 * 30
    assert sample.w.sum() == pytest.approx(len(everybody))
    assert (sample.groupby("stratum").unit.nunique() == 2).all()


@pytest.mark.parametrize(("kind", "cell", "errors"), [
    ("rows", (30,), study_small_samples.OF_ROWS), ("clusters", (6, False), study_small_samples.OF_CLUSTERS),
    ("assigned", (8, 15, True), ("z", "t, factor", "jackknife, t")), ("overlap", (0.5, 1, 200), ("z", "jackknife, t")),
    ("columns", (60,), ("z", "t, factor", "jackknife, t")),
    ("surveys", (4,), ("weights alone, z", "clusters, z", *study_small_samples.OF_SURVEYS)),
])  # fmt: skip
def test_a_study_of_small_samples_has_every_error(kind, cell, errors, monkeypatch):
    make, names, _ = study_small_samples.CELLS[kind]
    monkeypatch.setattr(study_small_samples, "CELLS", {kind: (make, names, [cell])})
    monkeypatch.setattr(study_small_samples, "REPLICATES", 8)
    table = study_small_samples.coverage(kind, 1)
    assert {error.removesuffix(", half") for error in table.error} == set(errors)
    several = {"assigned": {"IPWRA"}, "overlap": {"IPWRA", "AIPW"}, "columns": {"IPWRA", "AIPW"}}
    assert set(table.estimator) == several.get(kind, set(study_small_samples.ESTIMATORS))
    assert table.coverage.isin([0, 1]).all()
    wide = table.pivot(index="estimator", columns="error", values="width")
    if kind not in ("surveys", "overlap"):
        assert (wide["t, factor"] > wide["z"]).all()


def test_sizes_of_tests_of_several_arms(monkeypatch):
    found = study_small_samples.rejections(3, 60, 5)
    assert set(found.values()) <= {True, False} and len(found) == 9


@pytest.mark.filterwarnings("ignore::causalrisk.errors.DesignWarning")
@pytest.mark.parametrize(("kind", "power"), [("CR0", 0.0), ("CR2", 0.5), ("CR3", 1.0)])
def test_correction_by_leverages_is_that_of_one_regression(kind, power):
    """R's clubSandwich of Lin's regression, with the part of the covariates' means."""
    cases = json.loads((REFERENCE / "smallsample_inference.json").read_text())["cases"]
    results = next(case["results"] for case in cases if case["id"] == "lin_clusters")
    data = pd.read_csv(REFERENCE / "smallsample_clusters.csv")
    res = cr.OutcomeRegression.from_formula("y ~ x1 + x2", data, treat="d", cluster="g").fit()
    codes = pd.factorize(data.g)[0]
    sums = np.bincount(codes, study_leverages.corrected_influence(res, codes, power))
    expected = next(each["se_with_means"] for each in results if each["type"] == kind)
    assert np.sqrt(sums @ sums) / len(data) == pytest.approx(expected, rel=1e-9)
