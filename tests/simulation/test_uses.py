"""What studies are used for: power, and the four cells of double robustness."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import causalrisk as cr
from causalrisk.simulation import DESIGNS, four_cells, power, run_study
from tests.studies.own_designs import OppositeCurves

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


def test_four_cells_of_a_population_without_a_bound_have_none():
    table = four_cells(OppositeCurves(), n=300, n_sims=2, estimators="IPWRA").table
    assert table["mse_over_bound"].isna().all()
