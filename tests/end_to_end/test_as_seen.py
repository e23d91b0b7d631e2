"""What users saw go wrong, each mended thing under the name of what was seen."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import causalrisk as cr
from tests.conftest import simulate

RHS = "x1 + x2"
CLASSIC = (cr.OutcomeRegression, cr.IPW, cr.IPWRA, cr.AIPW)
pytestmark = pytest.mark.filterwarnings("ignore::causalrisk.OverlapWarning")


@pytest.fixture(scope="module")
def data():
    return simulate(200)


def fitted(model, data, formula=f"y ~ {RHS}", **options):
    return model.from_formula(formula, data, treat="d", **options).fit()


# --- rows ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [["x1", "x2", "g"], ["g"]], ids=["with a variable of the fit", "without"])
def test_a_sorted_frame_gave_the_groups_the_effects_of_other_rows(data, columns):
    data = data.assign(g=np.arange(len(data)) % 3)
    res = fitted(cr.IPWRA, data, trim=(0.05, 0.95))
    again = data[columns].sort_values("g", kind="stable")
    pd.testing.assert_frame_equal(res.effects_by("g", again), res.effects_by("g", data))
    pd.testing.assert_frame_equal(res.differences_by("g", again), res.differences_by("g", data))
    pd.testing.assert_frame_equal(res.balance(also=["g"], data=again), res.balance(also=["g"], data=data))
    pd.testing.assert_frame_equal(res.balance(also=again[["g"]]), res.balance(also=["g"], data=data))
    assert str(res.table_one(also=["g"], data=again)) == str(res.table_one(also=["g"], data=data))
    by_position = {name: data[name].to_numpy() for name in columns}
    pd.testing.assert_frame_equal(res.effects_by("g", by_position), res.effects_by("g", data))


def test_a_sorted_frame_without_its_labels_is_told_by_the_variables_of_the_fit(data):
    data = data.assign(g=np.arange(len(data)) % 3, name=np.where(data.x2 > 0, "a", "b"))
    res = fitted(cr.IPWRA, data, "y ~ x1 + C(name)")
    again = data.sort_values("g", kind="stable", ignore_index=True)
    for there, told in ((again, "'x1', 'name', 'y'"), (again[["g", "name"]], "'name'"), (again[["g", "y"]], "'y'")):
        with pytest.raises(cr.DesignError, match=rf"^{told} in data differ"):
            res.effects_by("g", there)
    with pytest.raises(cr.DesignError, match="neither the row labels"):
        res.effects_by("g", again[["g"]].add_prefix("row ", axis=0))


# --- weights -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", CLASSIC)
def test_the_answer_in_another_population_depended_on_the_size_of_the_weights(model):
    births = cr.datasets.load_cattaneo2().assign(w=lambda f: 0.5 + f.mage / 20)
    young = births[births.mage < 25].drop(columns=["bweight", "mbsmoke", "w"])
    fits = [
        model.from_formula(
            "bweight ~ mmarried + mage + fbaby", births.assign(w=births.w * size), treat="mbsmoke", weights="w",
            weight_type="probability", target=young,
        ).fit()
        for size in (1, 1 / len(births), 100, 1e-300, 1e300)
    ]  # fmt: skip
    for res in fits[1:]:
        np.testing.assert_allclose(res.params, fits[0].params, rtol=1e-12)
        np.testing.assert_allclose(res.bse, fits[0].bse, rtol=1e-10)


def test_a_weight_of_one_in_another_population_changed_nothing_but_any_other_did(data):
    there = data[["x1", "x2"]].head(70)
    plain = fitted(cr.IPWRA, data, target=there)
    for size in (1.0, 1 / 200, 100.0):
        res = fitted(cr.IPWRA, data.assign(w=size), target=there, weights="w", weight_type="probability")
        np.testing.assert_allclose(res.params, plain.params, rtol=1e-12)
        np.testing.assert_allclose(res.bse, plain.bse, rtol=1e-10)


@pytest.mark.parametrize("size", [1e-320, 1e-300, 1e155, 1e307])
def test_tiny_and_huge_weights_gave_no_standard_error_or_an_overflow(data, size):
    w = np.linspace(1, 2, len(data)) if size > 1e-310 else np.ones(len(data))
    usual = fitted(cr.IPWRA, data.assign(w=w), weights="w", weight_type="probability")
    res = fitted(cr.IPWRA, data.assign(w=w / 2 * size), weights="w", weight_type="probability")
    np.testing.assert_allclose(res.summary_frame(), usual.summary_frame(), rtol=1e-10)


def test_weights_beside_which_others_are_nothing_leave_their_rows_out(data):
    w = np.where(np.arange(200) < 3, 1e-120, 1.0)
    res = fitted(cr.IPWRA, data.assign(w=w), weights="w", weight_type="probability")
    without = fitted(cr.IPWRA, data[3:])
    np.testing.assert_allclose([res.effect, res.effect_se], [without.effect, without.effect_se], rtol=1e-9)


# --- targets -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [*CLASSIC, cr.JRE])
def test_three_arms_in_another_population_said_the_truth_value_is_ambiguous(model):
    data = simulate(300).assign(k=np.random.default_rng(0).integers(0, 3, 300))
    frame, columns = data[["x1", "x2"]].head(90), {name: data[name].head(90).tolist() for name in ("x1", "x2")}
    built = [model.from_formula(f"y ~ {RHS}", data, treat="k", reference=0, target=there) for there in (frame, columns)]
    left, right = (m.fit(cov_type="robust") for m in built)
    pd.testing.assert_series_equal(left.params, right.params)
    assert list(left.params.index[:2]) == ["transported ATE[1]", "transported ATE[2]"]


TILTS = {
    "negative": (lambda e: -e, r"<lambda> given as target= returned -0\.\d+ at the score"),
    "NaN": (lambda e: e * np.nan, "returned nan at the score"),
    "infinite": (lambda e: e / 0, "returned inf at the score"),
    "scalar": (lambda e: 1.0, r"returned shape \(\) for scores of shape \(200, 1\)"),
    "none": (lambda e: None, "returned"),
    "zero": (lambda e: 0 * e, "returned zero at every score, so the population is empty"),
}


@pytest.mark.parametrize("kind", TILTS)
@pytest.mark.parametrize("model", [cr.OutcomeRegression, cr.IPWRA, cr.JRE])
def test_a_function_that_returns_nonsense_said_infs_or_nans(data, model, kind):
    tilt, words = TILTS[kind]
    with np.errstate(divide="ignore"), pytest.raises(cr.OptionError, match=rf"(?s){words}.*\n.*target="):
        fitted(model, data, target=tilt)


# --- outcomes ------------------------------------------------------------------------------------------------------

BINARY = {
    "x": np.r_[np.arange(10.0), np.arange(10.0)],
    "z": np.tile([0.3, -1.2, 0.8, 0.1, -0.5, 1.4, -0.2, 0.6, -0.9, 0.4], 2),
    "y": np.r_[np.arange(10) > 4.5, [0, 1, 0, 0, 1, 1, 0, 1, 1, 1]] * 1.0,
    "d": np.repeat(["a", "b"], 10),
}


@pytest.mark.parametrize(("model", "link", "right"), [
    (cr.OutcomeRegression, "probit", "x + z"), (cr.AIPW, "cloglog", "x + z"), (cr.IPWRA, "logit", "x"),
    (cr.IPWRA, "probit", "x"), (cr.IPWRA, "cloglog", "x"), (cr.JRE, "logit", "x + z"),
])  # fmt: skip
def test_a_separated_binary_outcome_in_one_arm_said_singular_matrix(model, link, right):
    with pytest.raises(
        cr.SeparationError, match=r"\(.*\) of group 'a' has no finite fit: 'x'.* 'y' perfectly in some rows\.\nSimplify"
    ):
        model.from_formula(
            f"y ~ {right}", BINARY, treat="d", reference="a", propensity="1", family="binomial", link=link
        ).fit()


@pytest.mark.parametrize("source", [lambda frame: frame, lambda frame: cr.scan([frame])], ids=["memory", "scan"])
@pytest.mark.parametrize("name", ["y", "x1", "o"])
@pytest.mark.parametrize("size", [1e-320, 1e-170, 1e160, 1e200])
def test_sizes_whose_squares_are_no_numbers_gave_a_standard_error_of_zero_or_other_effects(data, source, name, size):
    given = data.assign(o=data.x2)
    given[name] *= size
    with pytest.raises(cr.DesignError, match=f"'{name}' .*has values as large as"):
        fitted(cr.IPWRA, source(given), offset="o")


def test_a_code_of_missing_values_left_its_covariate_out(data):
    with pytest.raises(
        cr.DesignError, match=r"column 'x1' .* as large as 8.99e\+307.\nReplace codes for missing values by NaN"
    ):
        fitted(cr.AIPW, data.assign(x1=data.x1.where(data.index != 3, 2.0**1023)))  # as Stata has it


@pytest.mark.parametrize("model", CLASSIC)
@pytest.mark.parametrize("options", [{}, {"cov_type": "bootstrap", "n_boot": 50}])
def test_digits_were_lost_in_an_outcome_far_from_zero(data, model, options):
    """Numbers that are the same but for a shift that floats hold exactly."""
    y = (data.y * 2**10).round()
    near, far = (
        model.from_formula(f"y ~ {RHS}", data.assign(y=y + shift), treat="d").fit(**options)
        for shift in (2.0**20, 2.0**40)
    )
    np.testing.assert_allclose(far.effect, near.effect, rtol=1e-13)
    np.testing.assert_allclose(far.effect_se, near.effect_se, rtol=1e-12)
    np.testing.assert_allclose(far.bse, near.bse, rtol=1e-6)  # resampled means are kept with their level
    np.testing.assert_allclose(far.params.iloc[1:] - 2.0**40, near.params.iloc[1:] - 2.0**20, rtol=0, atol=1e-3)
    pd.testing.assert_frame_equal(far.outcome_params.iloc[1:], near.outcome_params.iloc[1:], rtol=1e-10)


# --- names and sizes -----------------------------------------------------------------------------------------------


# --- new data and options ------------------------------------------------------------------------------------------


def test_predictions_of_no_rows_said_cannot_reshape(data):
    res = fitted(cr.IPWRA, data.assign(flag=data.x1 > 0, kind=["a", "b"] * 100), "y ~ flag + kind + x2")
    empty = res.predict(data.assign(flag=True, kind="a").head(0))
    assert empty.shape == (0, 2)
    assert res.predict(pd.DataFrame({"flag": [], "kind": [], "x2": []})).shape == (0, 2)
    assert res.get_prediction(data.assign(flag=True, kind="a").head(0)).summary_frame().shape == (0, 4)


def test_new_numbers_for_flags(data):
    res = fitted(cr.IPWRA, data.assign(flag=data.x1 > 0), "y ~ flag + x2")
    new = pd.DataFrame({"flag": [True, False], "x2": [0.0, 1.0]})
    np.testing.assert_array_equal(res.predict(new.assign(flag=[1, 0])), res.predict(new))
    np.testing.assert_array_equal(res.predict(new.assign(flag=[1.0, 0.0])), res.predict(new))
    with pytest.raises(cr.DesignError, match="'flag'"):
        res.predict(new.assign(flag=[2, 0]))


@pytest.mark.parametrize("model", [cr.IPWRA, cr.AIPW, cr.JRE])
def test_clusters_with_frequency_weights_lost_rows_in_every_resample(data, model):
    """Standard errors of 0.13 where repeated rows gave 0.22: a cluster came back with each of its rows once."""
    rng = np.random.default_rng(0)
    data = data.assign(c=rng.integers(0, 30, len(data)), w=rng.integers(1, 6, len(data)))
    repeated = data.loc[data.index.repeat(data.w)].reset_index(drop=True)
    left, right = (
        model.from_formula(f"y ~ {RHS}", frame, treat="d", cluster="c", **options).fit(bootstrap="cluster", n_boot=50)
        for frame, options in ((data, {"weights": "w", "weight_type": "frequency"}), (repeated, {}))
    )
    np.testing.assert_allclose(left.boot_params, right.boot_params, rtol=1e-8)
    np.testing.assert_allclose(left.bse, right.bse, rtol=1e-8)


# --- what stands beside the estimate -------------------------------------------------------------------------------
