"""The designs of simulations: true effects, efficiency bounds, and the models that analysts type."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest

import causalrisk as cr
from causalrisk import simulation
from causalrisk.simulation import DESIGNS, Design, Population, Specified, designs
from causalrisk.simulation.designs import find_design
from tests.studies import published
from tests.studies.own_designs import KangSchaferMean, LalondeLike, MissedConfounder, OppositeCurves

PAPERS = [getattr(published, name)() for name in (
    "Hainmueller", "Froelich", "LuncefordDavidian", "SetoguchiLee", "HahnMurrayCarvalho", "Tan",
)]  # fmt: skip
OWN = [LalondeLike(), KangSchaferMean(), MissedConfounder(), OppositeCurves()]
ALL = {design.name: design for design in (*DESIGNS.values(), *PAPERS, *OWN)}

LARGE = 100_000


@pytest.mark.parametrize("design", ALL.values(), ids=ALL)
def test_true_effect_is_the_mean_over_a_large_draw(design):
    drawn = design.draw(LARGE, np.random.default_rng(1))
    effects = drawn.y1 - drawn.y0
    assert abs(effects.mean() - design.effect) <= 4 * effects.std() / np.sqrt(LARGE) + 1e-12
    assert abs(drawn.score.mean() - drawn.data["d"].mean()) < 0.01
    np.testing.assert_array_equal(drawn.data["y"], np.where(drawn.data["d"] == 1, drawn.y1, drawn.y0))


@pytest.mark.parametrize("design", ALL.values(), ids=ALL)
def test_noise_has_the_variance_and_the_mean_it_should(design):
    units = design.population(LARGE, np.random.default_rng(2))
    noise = design.outcomes(units, np.random.default_rng(3)) - units.mean
    for arm in (0, 1):
        scale = np.sqrt(units.variance[arm].mean()) or 1.0
        assert abs(noise[arm].mean()) < 0.01 * scale
        # of residuals over their own standard deviation, so that no heavy tail decides
        mixed = np.minimum(noise[arm] ** 2, 400 * scale**2).mean()
        assert mixed == pytest.approx(units.variance[arm].mean(), rel=0.05, abs=1e-12)


@pytest.mark.parametrize("design", ALL.values(), ids=ALL)
def test_samples_can_be_fitted_and_sent_to_another_process(design):
    drawn = design.draw(300, np.random.default_rng(0))
    again = pickle.loads(pickle.dumps(design)).draw(300, 0)
    pd.testing.assert_frame_equal(drawn.data, again.data)
    with pytest.warns(cr.CausalRiskWarning) if design.name == "kang_schafer_mean" else _nothing():
        res = cr.OutcomeRegression.from_formula(design.formula, drawn.data, treat="d").fit(small_sample=True)
    assert np.isfinite(res.effect)


class _nothing:
    def __enter__(self):
        return None

    def __exit__(self, *_):
        return False


@pytest.mark.parametrize("design", [DESIGNS["linear"], DESIGNS["strong"]])
def test_efficiency_bound_by_hand(design):
    # The score is logistic in t ~ N(0, s^2): E[1/e + 1/(1-e)] = E[2 + exp(t) + exp(-t)] = 2 + 2 exp(s^2 / 2). Effect
    # 1 + h x1 + c (x1^2 - 1) with variance h^2 + 2 c^2.
    variance = design.confounding**2 * (1 + 0.25 + 0.0625)
    by_hand = 2 + 2 * np.exp(variance / 2) + design.heterogeneity**2 + 2 * design.curvature**2
    assert design.efficiency_bound == pytest.approx(by_hand, rel=0.003)


def test_efficiency_bound_of_a_trial_by_hand():
    # Both arms have chance one half: 2 (v1 + v0) + Var(effect).
    design = DESIGNS["randomized"]
    assert design.efficiency_bound == pytest.approx(4 + 0.25 + 2 * design.curvature**2, rel=0.003)


def test_no_oracle_beats_the_bound():
    design = DESIGNS["doubly_wrong"]
    oracle = Specified(design, "oracle", design.oracle_formula, design.oracle_propensity)
    study = cr.simulation.run_study(oracle, n=500, n_sims=60, estimators="AIPW")
    assert study.table["mse_over_bound"].iloc[0] == pytest.approx(1, abs=0.55)  # three Monte Carlo errors


RIGHT = (
    "doubly_wrong", "kang_schafer", "strong", "interaction", "linear", "lunceford_davidian",
    "opposite_curves",
)  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_oracle_formulas_are_right(name):
    design = ALL[name]
    drawn = design.draw(20_000, np.random.default_rng(4))
    model = cr.AIPW.from_formula(design.oracle_formula, drawn.data, treat="d", propensity=design.oracle_propensity)
    res = model.fit()
    assert abs(res.effect - design.effect) < 4 * res.effect_se
    scores = res.propensity_scores
    assert np.abs(scores - drawn.score).max() < 0.1
    np.testing.assert_allclose(
        res.potential_outcomes.to_numpy().T.mean(axis=1), [drawn.y0.mean(), drawn.y1.mean()], atol=0.1 * drawn.y0.std()
    )


def test_wrong_formulas_are_wrong_on_purpose():
    design = DESIGNS["doubly_wrong"]
    drawn = design.draw(20_000, np.random.default_rng(4))
    res = cr.AIPW.from_formula(design.formula, drawn.data, treat="d", propensity=design.propensity).fit()
    assert abs(res.effect - design.effect) > 4 * res.effect_se


def test_binary_outcomes_and_zero_earnings():
    assert set(designs.BinaryOutcome().draw(100, np.random.default_rng(0)).data["y"]) == {0, 1}
    earnings = LalondeLike().draw(5000, np.random.default_rng(0)).data["y"]
    assert 0.1 < (earnings == 0).mean() < 0.3
    assert earnings.max() > 10 * earnings.mean()


def test_kang_schafer_mean_has_nothing_where_nothing_is_seen():
    drawn = KangSchaferMean().draw(500, np.random.default_rng(0))
    assert (drawn.data["y"][drawn.data["d"] == 0] == 0).all()
    right = KangSchaferMean(misspecified=False)
    assert right.formula == "y ~ z1 + z2 + z3 + z4"


def test_knobs_show_in_the_name_and_change_the_samples():
    strong = DESIGNS["strong"]
    assert [design.name for design in DESIGNS.values()] == list(DESIGNS)
    assert replace(strong, confounding=2.0, n_covariates=6).name == "strong(confounding=2.0, n_covariates=6)"
    assert designs.Linear(confounding=1.5).name == "linear(confounding=1.5)"
    assert designs.BinaryOutcome(confounding=2.0).name == "binary_outcome(confounding=2.0)"
    assert designs.Linear(tails=5.0, label="mine").name == "mine(tails=5.0)"
    for base in (designs.Linear, designs.BinaryOutcome):  # a subclass has its own name, and so its own random numbers
        assert type("NoisyTrial", (base,), {})().name == "noisy_trial"
    assert replace(strong, n_covariates=6).formula == "y ~ x1 + x2 + x3 + x4 + x5 + x6"
    little = replace(strong, confounding=3.0).draw(2000, np.random.default_rng(0)).score
    assert little.min() < strong.draw(2000, np.random.default_rng(0)).score.min()


def test_names_find_designs_and_errors_name_the_nearest():
    assert find_design("weak_overlap") == designs.Linear(confounding=1.6, curvature=0.35, label="weak_overlap")
    assert find_design(designs.Linear(confounding=2)) == designs.Linear(confounding=2)
    with pytest.raises(cr.OptionError, match="Did you mean `weak_overlap`"):
        find_design("weak overlap")
    with pytest.raises(cr.OptionError, match="design=3 is not known; expected one of 'linear'"):
        find_design(3)
    for wrong in ("nope", [], Coin):
        with pytest.raises(cr.OptionError, match=r'\n.*Use `design="strong"`, another name, or an instance'):
            find_design(wrong)
    with pytest.raises(cr.OptionError, match="tails"):
        designs.Linear(tails=2)
    for wrong, error in (({"shape": "cube"}, KeyError), ({"n_covariates": 2}, IndexError)):
        with pytest.raises(error):
            designs.Linear(**wrong).draw(10, np.random.default_rng(0))


@dataclass(frozen=True)
class Coin(Design):
    """One covariate that does nothing."""

    formula = "y ~ x1"

    def population(self, n, rng):
        frame = pd.DataFrame({"x1": rng.normal(size=n)})
        return Population(frame, np.full(n, 0.5), np.stack([np.zeros(n), np.full(n, 2.0)]), np.ones((2, n)))


def test_a_design_of_ones_own():
    assert Coin().name == "coin"
    assert Coin().effect == 2
    assert Coin().efficiency_bound == pytest.approx(4)  # 2 + 2
    study = cr.simulation.run_study(Coin(), n=100, n_sims=9, estimators="IPW")
    assert abs(study.table["bias"].iloc[0]) < 4 * study.table["bias_mc"].iloc[0]


def test_a_design_without_its_parts_says_so():
    with pytest.raises(TypeError, match="has no formula"):
        _ = Design().formula
    with pytest.raises(TypeError, match="has no population"):
        Design().draw(3, np.random.default_rng(0))


def test_the_bound_is_infinite_where_the_mean_of_the_odds_is():
    """exp(c x1^2) has a mean under the normal density exp(-x1^2 / 2) if c is below a half."""
    assert np.isfinite(designs.Linear(score_curvature=0.49).efficiency_bound)
    for square in (0.5, -0.5):
        assert np.isinf(designs.Linear(score_curvature=square).efficiency_bound)
    curved = designs.Linear(score_curvature=0.5)
    table = simulation.run_study(curved, n=60, n_sims=2, estimators="Unadjusted").table
    assert table["mse_over_bound"].isna().all()
