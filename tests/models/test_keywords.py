"""What other packages call things: guided keywords, constructors and attributes; the free ones exist."""

from __future__ import annotations

import numpy as np
import pytest

import causalrisk
from causalrisk import AIPW, IPWRA, JRE, DesignError, Hajek, OptionError, OutcomeRegression
from causalrisk.errors import words
from causalrisk.models.keywords import advice_on
from tests.conftest import simulate


@pytest.fixture(scope="module")
def data():
    return simulate(200)


@pytest.fixture(scope="module")
def res(data):
    return IPWRA.from_formula("y ~ x1 + x2", data, treat="d").fit()


@pytest.mark.parametrize("name", ["strata_", "stratum", "instrument", "zzz"])
def test_a_suggestion_never_changes_the_question(data, name):
    """The names that are merely alike (treat for strata) are not proposed."""
    with pytest.raises(TypeError) as caught:
        IPWRA.from_formula("y ~ x1", data, treat="d", **{name: "x2"})
    assert "Did you mean" not in str(caught.value)


def test_values_are_repeated_as_they_were_typed(data):
    model = IPWRA.from_formula("y ~ x1", data, treat="d")
    for keyword, value, typed in (("seed", 7, "rng=7"), ("reps", 50, "n_boot=50"), ("vce", "HC1", 'cov_type="HC1"')):
        with pytest.raises(TypeError) as caught:
            model.fit(**{keyword: value})
        assert str(caught.value).splitlines()[-1] == f"Type  {typed}."
    with pytest.raises(TypeError, match=r"cluster=\.\.\.\."):
        IPWRA.from_formula("y ~ x1", data, treat="d", groups=np.arange(200))


def test_n_boot_asks_for_the_bootstrap(data):
    for estimator in (OutcomeRegression, Hajek, IPWRA, AIPW):
        model = estimator.from_formula("y ~ x1", data, treat="d")
        assert model.fit(n_boot=20).cov_type == "bootstrap" and model.fit().cov_type == "robust"
        with pytest.raises(OptionError, match="n_boot= asks for bootstrap"):
            model.fit(n_boot=20, cov_type="HC1")


@pytest.mark.parametrize("estimator", [Hajek, IPWRA, AIPW, JRE])
def test_a_weighted_estimator_without_covariates_is_refused(data, estimator):
    with pytest.raises(DesignError, match="raw difference"):
        estimator.from_formula("y ~ 1", data, treat="d")
    by_chance = estimator.from_formula("y ~ 1", data, treat="d", propensity="1")
    assert by_chance.exog_names == ["Intercept"]
    assert OutcomeRegression.from_formula("y ~ 1", data, treat="d").fit().effect == pytest.approx(
        data.y[data.d == 1].mean() - data.y[data.d == 0].mean()
    )


def test_the_free_ones(data, res):
    model = res.model
    assert model.endog.tolist() == data.y.tolist() and model.exog.shape == (200, 3)
    assert res.predict().equals(res.potential_outcomes)
    assert res.predict(arm=1).equals(res.potential_outcomes["1"])
    np.testing.assert_allclose(res.get_prediction().predicted_mean, res.potential_outcomes.stack(), rtol=1e-12)
    assert res.conf_int(cols=["POM[1]", 0]).equals(res.conf_int().loc[["POM[1]", "ATE"]])
    slim = res.summary(slim=True)
    assert [row for row in str(slim).splitlines() if row.startswith("ATE ")] == [
        row for row in str(res.summary()).splitlines() if row.startswith("ATE ")
    ]
    assert len(slim.tables) == len(slim.notes) == 1
    several = res.t_test(["ATE = 0", "POM[1] = 1"])
    np.testing.assert_allclose(several.effect, res.t_test("ATE = 0, POM[1] = 1").effect)


def test_guides_do_not_hide_what_exists(res):
    """Nothing that is asked by machines is guided."""
    assert not hasattr(res, "__array__") and not hasattr(res, "nothing_of_this_kind")
    assert not hasattr(causalrisk, "__path_of_nothing__")
    assert not hasattr(res.model, "nothing_of_this_kind")


def test_a_method_with_an_unknown_option(res):
    with pytest.raises(
        TypeError, match=r"CausalResults\.conf_int got an unknown option 'level'.*\n.*\nType  alpha=0\.1\."
    ):
        res.conf_int(level=0.9)
    with pytest.raises(TypeError, match="The options are binary"):
        res.balance(zzz=1)


@pytest.mark.parametrize("alpha", [0.51, 0.9, 0.95, 0.99])
def test_a_confidence_level_is_no_significance_level(res, alpha):
    with pytest.raises(OptionError, match=rf"alpha={1 - alpha:.3g}  for {alpha:.0%} intervals"):
        res.conf_int(alpha)
    assert res.conf_int(0.5).shape == (3, 2)


def test_the_treatment_among_the_covariates_is_taken_out_in_one_message(data):
    """The second message told to undo what the first had not said."""
    frame = data.assign(g=np.tile(["a", "b"], 100))
    for formula, meant in (
        ("y ~ d + x1", "y ~ x1"),
        ("y ~ d*x1 + np.exp(x2)", "y ~ x1 + np.exp(x2)"),
        ("y ~ d", "y ~ 1"),
        ("np.abs(y) ~ x1 + g", "np.abs(y) ~ x1"),
    ):
        with pytest.raises(TypeError) as caught:
            JRE.from_formula(formula, data=frame)
        treat = "g" if "g" in formula else "d"
        typed = f'from_formula("{meant}", data, treat="{treat}")'
        assert str(caught.value).rsplit("\n", 1)[1] == f"Type  {typed}."
    with pytest.raises(TypeError, match=r'Type  from_formula\("y ~ x1 \+ x2", data, treat="d"\)'):
        JRE.from_formula("y ~ x1 + x2", frame)  # none of them has two values


def test_fit_and_model_know_the_words_of_each_other(data):
    for place, other in (("fit", "from_formula"), ("from_formula", "fit"), ("compare", "fit"), ("arrays", "fit")):
        assert all(advice_on(place, word, "x") for word in words("instead", other))
    model = IPWRA.from_formula("y ~ x1", data, treat="d")
    with pytest.raises(TypeError, match=r'\nType  from_formula\(\.\.\., target="treated"\)\.fit\(\)\.$'):
        model.fit(atet=True)
    with pytest.raises(TypeError, match=r"\nType  from_formula\(\.\.\.\)\.fit\(n_boot=50\)\.$"):
        IPWRA.from_formula("y ~ x1", data, treat="d", reps=50)


def test_costs_with_zeros_are_led_to_a_logarithmic_link_that_allows_them(data):
    frame = data.assign(cost=data.y.clip(0))
    with pytest.raises(DesignError, match=r'\nType  family="poisson"  for'):
        IPWRA.from_formula("cost ~ x1", frame, treat="d", family="gamma").fit()
    assert IPWRA.from_formula("cost ~ x1", frame, treat="d", family="poisson").fit().converged
    with pytest.raises(DesignError, match=r'\nType  family="gaussian"\.$'):
        IPWRA.from_formula("y ~ x1", data, treat="d", family="gamma").fit()  # negative costs


@pytest.mark.parametrize("name", ["Unadjusted", "unadjusted"])
def test_the_difference_of_raw_means_is_in_comparisons(name):
    """It is no public class, so that it cannot be what to type."""
    with pytest.raises(AttributeError) as caught:
        getattr(causalrisk, name)
    assert "causalrisk.compare(" in str(caught.value) and f"causalrisk.{name}" not in str(caught.value)
