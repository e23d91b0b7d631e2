"""What users saw go wrong, each mended thing under the name of what was seen."""

from __future__ import annotations

import contextlib
import re
import tracemalloc
from pathlib import Path

import matplotlib.figure
import numpy as np
import pandas as pd
import pytest

import causalrisk as cr
from causalrisk.propensity.targets import POPULATIONS
from tests.conftest import simulate

RHS = "x1 + x2"
CLASSIC = (cr.OutcomeRegression, cr.Hajek, cr.IPWRA, cr.AIPW)
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
        with pytest.raises(cr.DesignError, match=rf"^{told} of data differ"):
            res.effects_by("g", there)
    with pytest.raises(cr.DesignError, match="other row labels"):
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


def test_weights_beside_which_others_are_nothing_are_refused(data):
    w = np.where(np.arange(200) < 3, 1e-120, 1.0)
    with pytest.raises(cr.DesignError, match=r"weights 'w' range from 1e-120 to 1: .*\nSet weights of no size to 0"):
        fitted(cr.IPWRA, data.assign(w=w), weights="w", weight_type="probability")


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
    "text": (lambda e: "much", "returned a str that is no array of numbers"),
    "none": (lambda e: None, "returned"),
    "zero": (lambda e: 0 * e, "returned zero at every score: nobody is in the population"),
}


@pytest.mark.parametrize("kind", TILTS)
@pytest.mark.parametrize("model", [cr.OutcomeRegression, cr.IPWRA, cr.JRE])
def test_a_function_that_returns_nonsense_said_infs_or_nans(data, model, kind):
    tilt, words = TILTS[kind]
    with np.errstate(divide="ignore"), pytest.raises(cr.OptionError, match=rf"(?s){words}.*\nType  target="):
        fitted(model, data, target=tilt)


# --- outcomes ------------------------------------------------------------------------------------------------------

BINARY = {
    "x": np.r_[np.arange(10.0), np.arange(10.0)],
    "z": np.tile([0.3, -1.2, 0.8, 0.1, -0.5, 1.4, -0.2, 0.6, -0.9, 0.4], 2),
    "y": np.r_[np.arange(10) > 4.5, [0, 1, 0, 0, 1, 1, 0, 1, 1, 1]] * 1.0,
    "d": np.repeat(["a", "b"], 10),
}


@pytest.mark.parametrize("model", [cr.OutcomeRegression, cr.AIPW, cr.IPWRA, cr.JRE])
@pytest.mark.parametrize("link", ["logit", "probit", "cloglog"])
@pytest.mark.parametrize("right", ["x", "x + z"])
def test_a_separated_binary_outcome_in_one_arm_said_singular_matrix(model, link, right):
    with pytest.raises(
        cr.SeparationError, match=r"\(.*\) predicts 'y' perfectly in rows of arm 'a': 'x'.* no finite fit\.\nSimplify"
    ):
        model.from_formula(
            f"y ~ {right}", BINARY, treat="d", reference="a", propensity="1", family="binomial", link=link
        ).fit()


def test_counts_that_are_zero_in_a_cell_of_one_arm_are_separated_too(data):
    cell = (data.x1 > 0.5).astype(int)
    counts = np.where((cell == 1) & (data.d == 1), 0, np.random.default_rng(3).poisson(3, 200))
    with pytest.raises(cr.SeparationError, match=r"perfectly in rows of arm '1': 'cell' separates its outcomes"):
        fitted(cr.IPWRA, data.assign(y=counts, cell=cell), "y ~ cell", family="poisson")


@pytest.mark.parametrize("name", ["y", "x1"])
@pytest.mark.parametrize("size", [1e-320, 1e-170, 1e160, 1e200])
def test_sizes_whose_squares_are_no_numbers_gave_a_standard_error_of_zero_or_none(data, name, size):
    what = "outcome 'y'" if name == "y" else "column 'x1' of the outcome model"
    with pytest.raises(cr.DesignError, match=rf"{what} has values of the size \d.*\nChange its unit: divide it by"):
        fitted(cr.IPWRA, data.assign(**{name: data[name] * size}))


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


DOLLARS = ["$x^$", r"$\frac$", "$", "a$b$c"]


@pytest.mark.parametrize(("outcome", "treatment"), [("$x^$", r"$\frac$"), ("$", "a$b$c")])
def test_a_column_named_with_dollars_broke_the_report(data, outcome, treatment, tmp_path):
    odd = data.assign(x4=data.x1**2).rename(columns=dict(zip(("x1", "x2", "x3", "x4"), DOLLARS, strict=True)))
    odd = odd.rename(columns={"y": f"y {outcome}", "d": f"d {treatment}"})
    covariates = " + ".join(f"Q({name!r})" for name in DOLLARS)
    model = cr.IPWRA.from_formula(f"Q({f'y {outcome}'!r}) ~ {covariates}", odd, treat=f"d {treatment}")
    res = model.fit(cov_type="bootstrap", n_boot=200)
    res.report(tmp_path / "report.html")
    figure = matplotlib.figure.Figure()
    res.plot_diagnostics(figure)
    figure.savefig(tmp_path / "all.png")
    texts = [text.get_text() for text in figure.findobj(matplotlib.text.Text)]
    for name in (f"y {outcome}", f"d {treatment}", *DOLLARS):
        assert any(name.replace("$", r"\$") in text for text in texts), name


@contextlib.contextmanager
def within_a_hundred_megabytes():
    """Refused before what is refused is made, which would take more."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 1e8
    finally:
        tracemalloc.stop()


def test_a_formula_of_two_thousand_terms_said_recursion():
    names = [f"x{i}" for i in range(2000)]
    data = pd.DataFrame(np.zeros((5, 2000)), columns=names).assign(y=0.0, d=[0, 1, 0, 1, 0])
    with pytest.raises(cr.DesignError, match="the outcome formula has 2000 terms, more than a formula can have"):
        fitted(cr.IPWRA, data, f"y ~ {' + '.join(names)}")


def test_five_thousand_levels_said_nothing_for_minutes():
    rng = np.random.default_rng(0)
    n = 20_000
    data = {"y": rng.normal(size=n), "d": rng.integers(0, 2, n), "zip": [f"z{k}" for k in rng.integers(0, 5000, n)]}
    data["zip"][:5000] = [f"z{k}" for k in range(5000)]
    told = r"5,000 columns \('zip' alone has 5,000 levels\) and 20,000 rows: .* GB"
    with within_a_hundred_megabytes(), pytest.raises(cr.DesignError, match=told):
        fitted(cr.IPWRA, data, "y ~ zip")


def test_a_thousand_columns_filled_the_memory(monkeypatch):
    monkeypatch.setattr("causalrisk.design.support.memory", lambda: 1e8)
    x = np.zeros((3000, 1000))
    told = r"(?s)1,000 columns and 3,000 rows, .* about 694 would fit"
    with within_a_hundred_megabytes(), pytest.raises(cr.DesignError, match=told):
        cr.IPWRA(np.zeros(3000), x, np.arange(3000) % 2)


def test_products_of_pairs_of_columns_were_asked_for_by_fits_that_make_none(monkeypatch):
    monkeypatch.setattr("causalrisk.design.support.memory", lambda: 1e7)
    rng = np.random.default_rng(0)
    x, d = np.column_stack([np.ones(500), rng.normal(size=(500, 79))]), np.arange(500) % 2
    res = cr.IPWRA(x[:, 1] + d + rng.normal(size=500), x, d).fit(cov_type="HC1")
    assert res.converged
    told = r"the outcome model has 80 columns and 500 rows: .* 0 GB\.\nType  {}, or fewer columns: about 70 would fit\."
    with pytest.raises(cr.DesignError, match=told.format(re.escape('fit(cov_type="robust")'))):
        res.model.fit(n_boot=10)
    with pytest.raises(cr.DesignError, match=told.format("IPWRA  in the place of JRE")):
        cr.JRE(x[:, 1] + d, x, d).fit(cov_type="robust")


# --- new data and options ------------------------------------------------------------------------------------------


def test_predictions_of_no_rows_said_cannot_reshape(data):
    res = fitted(cr.IPWRA, data.assign(flag=data.x1 > 0, kind=["a", "b"] * 100), "y ~ flag + kind + x2")
    empty = res.predict(data.assign(flag=True, kind="a").head(0))
    assert empty.shape == (0, 2)
    assert res.predict(pd.DataFrame({"flag": [], "kind": [], "x2": []})).shape == (0, 2)
    assert res.get_prediction(data.assign(flag=True, kind="a").head(0)).summary_frame().shape == (0, 4)


def test_new_flags_for_numbers_said_no_attribute_dtype(data):
    res = fitted(cr.IPWRA, data.assign(x2=(data.x2 > 0).astype(int)))
    new = pd.DataFrame({"x1": [0.5, 1.0], "x2": [True, False]})
    np.testing.assert_array_equal(res.predict(new), res.predict(new.astype(float)))


def test_new_numbers_for_flags(data):
    res = fitted(cr.IPWRA, data.assign(flag=data.x1 > 0), "y ~ flag + x2")
    new = pd.DataFrame({"flag": [True, False], "x2": [0.0, 1.0]})
    np.testing.assert_array_equal(res.predict(new.assign(flag=[1, 0])), res.predict(new))
    np.testing.assert_array_equal(res.predict(new.assign(flag=[1.0, 0.0])), res.predict(new))
    with pytest.raises(cr.DesignError, match=r"column 'flag' of the new data has 2; expected True and False"):
        res.predict(new.assign(flag=[2, 0]))


@pytest.mark.parametrize("rng", ["x", 1.5, -1, [1, 2]])
def test_a_study_with_a_seed_that_is_none_drew_another_each_time(rng):
    with pytest.raises(cr.OptionError, match=r"rng=.*; expected a non-negative int.*\nType  rng=0"):
        cr.simulation.run_study("strong", n=100, n_sims=2, estimators="IPWRA", rng=rng)
    with pytest.raises(cr.OptionError, match="rng="):
        cr.datasets.load_cattaneo2().pipe(lambda f: cr.IPWRA.from_formula("bweight ~ mage", f, treat="mbsmoke")).fit(
            rng=rng
        )


@pytest.mark.parametrize("values", ["abc", [[1, 2], [3]], {"a": 1}])
@pytest.mark.parametrize(("model", "name"), [(cr.IPWRA, "resamples"), (cr.JRE, "replicates")])
def test_text_given_as_resamples_said_could_not_convert_string(data, model, name, values):
    with pytest.raises(cr.OptionError, match=rf"{name} is of type \w+ and holds more than numbers .*\nType  {name}="):
        model.from_formula(f"y ~ {RHS}", data, treat="d").fit(**{name: values})


@pytest.mark.parametrize("grid", [[-1.0], [np.nan], "x", [1.0, "n"], [], [np.inf], 3.0])
def test_a_penalty_below_zero_said_svd_did_not_converge(data, grid):
    res = cr.JRE.from_formula(f"y ~ {RHS}", data, treat="d").fit(n_boot=20, objective="erm", n_replicates=500)
    with pytest.raises(cr.OptionError, match=r"grid=.*; expected a list of penalties.*\nType  grid="):
        res.penalty_path(grid)


@pytest.mark.parametrize("target", [None, *POPULATIONS])
def test_probability_weights_of_one_are_no_weights(data, target):
    options = {} if target is None else {"target": target}
    plain, weighted = (
        fitted(cr.IPWRA, data.assign(w=3.7), **options, **more)
        for more in ({}, {"weights": "w", "weight_type": "probability"})
    )
    np.testing.assert_allclose(weighted.params, plain.params, rtol=1e-13)
    np.testing.assert_allclose(weighted.bse, plain.bse, rtol=1e-13)


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

ROOT = Path(__file__).resolve().parents[2]


def test_a_trimmed_sample_was_refused_for_replicates_that_separated():
    men = cr.datasets.load_lalonde("cps3")
    formula = "re78 ~ age + educ + black + hispan + married + nodegree + re74 + re75"
    model = cr.JRE.from_formula(formula, men, treat="treat", trim=(0.15, 0.85))
    assert np.isfinite(model.fit(cov_type="robust", n_replicates=60, anchor=3.0).effect)


def test_the_path_of_a_fit_was_that_of_another_estimator(data):
    res = cr.JRE.from_formula(f"y ~ {RHS}", data, treat="d").fit(cov_type="robust", n_replicates=40)
    path = res.anchor_path()
    assert path.effect[path.chosen].item() == pytest.approx(res.effect, rel=1e-9)
    with pytest.raises(cr.UnavailableError, match=r"Use `res\.anchor_path\(\)`"):
        res.penalty_path()


def test_two_kinds_of_standard_errors_stood_side_by_side_unnamed(data):
    joint = cr.JRE.from_formula(f"y ~ {RHS}", data, treat="d").fit(n_boot=40, n_replicates=40, anchor=3.0)
    for res, kind in ((joint, "bootstrap (pairs)"), (joint.start, "robust")):
        assert res.glance()["std_errors"].item() == kind
        assert re.search(rf"Std. errors: +{re.escape(kind)}", str(res.summary()))


def test_one_quantity_had_several_names(data):
    fit = fitted(cr.IPWRA, data)
    both = cr.compare(f"y ~ {RHS}", data, treat="d", estimators=["Hajek", "IPWRA"], n_boot=20)
    shared = ["term", "estimate", "std_error", "statistic", "p_value", "conf_low", "conf_high"]
    for res in (fit, both, cr.pool([fit, fitted(cr.IPWRA, data.assign(x2=data.x2 + 0.01 * data.x1**2))])):
        assert [name for name in res.tidy().columns if name in shared] == shared
    printed = list(fit.summary_frame().columns)
    assert list(both.table.columns.drop("robust se")) == list(both.differences.columns) == printed
    assert list(fit.effects_by("~ x1").columns) == list(fit.pairwise().columns) == printed


def test_the_name_of_the_package_in_its_examples_hid_a_spline():
    """As cr it hides patsy's cr() from every formula beside it."""
    pages = [*(ROOT / "docs").rglob("*.md"), *(ROOT / "causalrisk").rglob("*.py"), ROOT / "README.md"]
    assert [page.name for page in pages if "import causalrisk as cr" in page.read_text("utf-8")] == []
