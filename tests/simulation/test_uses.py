"""What studies are used for: plasmode simulation, power, and the four cells of double robustness."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import causalrisk as cr
from causalrisk.simulation import DESIGNS, four_cells, plasmode, power, run_study
from causalrisk.simulation.study import plasmode_design
from tests.conftest import RHS, simulate

FORMULA = f"y ~ {RHS}"


@pytest.fixture(scope="module")
def res():
    return cr.IPWRA.from_formula(FORMULA, simulate(300, seed=1, strength=0.5), treat="d", propensity="x1 + x2").fit()


# --- plasmode ------------------------------------------------------------------------------------------------------


def test_plasmode_is_the_fit(res):
    design = plasmode_design(res)
    assert design.effect == pytest.approx(res.effect, rel=1e-9)
    np.testing.assert_allclose(design.mean.T, res.potential_outcomes)
    np.testing.assert_allclose(design.score, res.propensity_scores)
    assert design.formula == "y ~ x1 + x2 + x3"
    assert design.propensity == "z1 + z2"
    residual = res.model.design.y - design.mean[res.model.design.arm, np.arange(300)]
    assert design.residuals[1].std() == pytest.approx(residual[res.model.design.arm == 1].std())
    variance = [arm.var() for arm in design.residuals]
    effects = design.mean[1] - design.mean[0]
    by_hand = np.mean(variance[1] / design.score + variance[0] / (1 - design.score)) + effects.var()
    assert design.efficiency_bound == pytest.approx(by_hand, rel=1e-9)


@pytest.mark.parametrize("wrong", ["none", "outcome", "propensity", "both"])
def test_effect_of_a_plasmode_is_the_mean_of_a_large_draw(res, wrong):
    design = plasmode_design(res, wrong)
    drawn = design.draw(100_000, np.random.default_rng(0))
    effects = drawn.y1 - drawn.y0
    assert abs(effects.mean() - design.effect) < 4 * effects.std() / np.sqrt(100_000)
    assert abs(drawn.data["d"].mean() - design.score.mean()) < 0.01


def test_bent_models_are_what_the_analysts_miss(res):
    frame = plasmode_design(res, "both").draw(30_000, np.random.default_rng(0)).data
    bend = plasmode_design(res).draw(30_000, np.random.default_rng(0)).data
    for data, found in ((frame, True), (bend, False)):
        fit = cr.IPWRA.from_formula("y ~ x1 + x2 + x3", data, treat="d", propensity="z1 + z2").fit()
        design = plasmode_design(res, "both" if found else "none")
        assert (abs(fit.effect - design.effect) > 4 * fit.effect_se) == found


def test_plasmode_of_a_joint_fit_takes_the_models_of_its_start(res):
    joint = cr.JRE._of(res.model.design, res.model.options).fit(cov_type="robust", n_replicates=40)
    assert plasmode_design(joint).effect == pytest.approx(plasmode_design(res).effect)


def test_plasmode_study(res):
    study = plasmode(res, misspecification=["none", "both"], n_sims=15, estimators=["Unadjusted", "IPWRA"])
    assert [design.name for design in study.designs] == ["both right", "both wrong"]
    right = study.table.loc[("both right", 300, "IPWRA")]
    assert abs(right["bias"]) < 4 * right["bias_mc"]
    assert study.table.loc[("both right", 300, "Unadjusted"), "mse_ratio"] > 2
    sent = pickle.loads(pickle.dumps(study.designs[1]))  # to another process
    one, other = (design.draw(300, np.random.default_rng(0)).data for design in (study.designs[1], sent))
    pd.testing.assert_frame_equal(one, other)


def test_plasmode_keeps_the_link():
    data = simulate(200, seed=1, strength=0.3)
    probit = cr.IPWRA.from_formula(FORMULA, data, treat="d", propensity_link="probit").fit()
    study = plasmode(probit, n_sims=2, estimators={"IPWRA": "IPWRA", "logit": ("IPWRA", {"propensity_link": "logit"})})
    wide = study.raw.pivot(index="sample", columns="estimator", values="estimate")
    assert (wide["IPWRA"] != wide["logit"]).all()
    assert np.allclose(wide["IPWRA"], wide["logit"], atol=0.1)


def test_plasmode_refuses_what_it_cannot_simulate(res):
    data = simulate(200, seed=1, strength=0.3).assign(s=2, g=np.arange(200) // 4)
    weighted = cr.IPWRA.from_formula(FORMULA, data, treat="d", weights="s", weight_type="frequency").fit()
    clustered = cr.IPWRA.from_formula(FORMULA, data, treat="d", cluster="g").fit()
    with pytest.raises(cr.OptionError, match="observation weights"):
        plasmode(weighted)
    with pytest.raises(cr.OptionError, match="clusters"):
        plasmode(clustered)
    with pytest.raises(cr.OptionError, match="trimmed rows"):
        plasmode(cr.IPWRA.from_formula(FORMULA, data, treat="d", trim=(0.2, 0.8)).fit())
    with pytest.raises(cr.OptionError, match="misspecification='bot' is not known"):
        plasmode(res, misspecification="bot")
    with pytest.raises(AttributeError):
        plasmode(weighted.model)
    without = cr.OutcomeRegression.from_formula(FORMULA, data, treat="d").fit()
    with pytest.raises(cr.UnavailableError, match="no propensity score"):
        plasmode(without)


# --- power ---------------------------------------------------------------------------------------------------------


def difference(trial):
    """Difference in means and its standard error, which take no fit."""
    arms = [trial.data["y"].to_numpy()[trial.data["d"] == arm] for arm in (1, 0)]
    return arms[0].mean() - arms[1].mean(), np.sqrt(sum(arm.var(ddof=1) / len(arm) for arm in arms))


@pytest.fixture(scope="module")
def trial():
    return run_study("randomized", n=[60, 240], n_sims=120, estimators=[difference])


def test_power_by_hand(trial):
    table = power(trial, 0.5)
    raw = trial.raw[(trial.raw["n"] == 60) & (trial.raw["estimator"] == "difference")]
    z = (raw["estimate"] - 0.5) / raw["se"]  # the true effect is 1
    row = table.loc[("randomized", 60, "difference")]
    assert row["power"] == (z.abs() > stats.norm.ppf(0.975)).mean()
    assert row["size"] == (((raw["estimate"] - 1) / raw["se"]).abs() > stats.norm.ppf(0.975)).mean()
    assert power(trial).loc[("randomized", 60, "difference"), "power"] > row["power"]


def test_power_is_about_what_the_normal_formula_says(trial):
    row, found = trial.table.loc[("randomized", 240, "difference")], power(trial, 0.5)
    formula = stats.norm.sf(stats.norm.ppf(0.975) - 0.5 / row["mean_se"])
    assert found.loc[("randomized", 240, "difference"), "power"] == pytest.approx(formula, abs=0.1)
    mde = (stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) * row["mean_se"]
    assert found.loc[("randomized", 240, "difference"), "mde"] == pytest.approx(mde, rel=0.12)


def test_power_at_the_minimum_detectable_effect_is_the_target(trial):
    mde = power(trial, target=0.9).loc[("randomized", 60, "difference"), "mde"]
    at = power(trial, mde + 1e-9).loc[("randomized", 60, "difference"), "power"]
    assert at == pytest.approx(0.9, abs=0.01)
    assert power(trial)["mde"].unstack("n")[240].lt(power(trial)["mde"].unstack("n")[60]).all()
    assert (power(trial, alpha=0.5, target=0.01)["mde"] == 0).all()  # rejects always
    few = run_study("randomized", n=60, n_sims=20, estimators={"difference": "Unadjusted"}, rng=1)
    least = power(few, target=0.8)["mde"].iloc[0]
    assert [power(few, least + step)["power"].iloc[0] for step in (-1e-9, 1e-9)] == [0.75, 0.8]


def test_power_refuses_impossible_targets(trial):
    with pytest.raises(ValueError, match=r"range \[0, 1\]"):
        power(trial, target=80)
    with pytest.raises(cr.OptionError, match="alpha"):
        power(trial, alpha=5)


# --- four cells ----------------------------------------------------------------------------------------------------


def test_four_cells_show_double_robustness():
    design = replace(DESIGNS["doubly_wrong"], curvature=0.5)
    estimators = ["OutcomeRegression", "IPW", "AIPW"]
    study = four_cells(design, n=1000, n_sims=12, estimators=estimators, rng=1)
    clear = (study.table["bias"] / study.table["bias_mc"]).droplevel("n").unstack().abs() > 5
    expected = pd.DataFrame(
        {
            "OutcomeRegression": [False, True, False, True],
            "IPW": [False, False, True, True],
            "AIPW": [False, False, False, True],
        },
        index=["both right", "outcome wrong", "propensity wrong", "both wrong"],
    )
    pd.testing.assert_frame_equal(clear.loc[expected.index, expected.columns], expected, check_names=False)


def test_the_four_cells_have_the_same_samples():
    study = four_cells("kang_schafer", n=100, n_sims=3, estimators="Unadjusted")
    wide = study.raw.pivot(index="sample", columns="design", values="estimate")
    assert (wide.nunique(axis=1) == 1).all()


def test_four_cells_need_right_and_wrong_formulas():
    with pytest.raises(cr.OptionError, match='Use `design="doubly_wrong"'):
        four_cells("strong")
