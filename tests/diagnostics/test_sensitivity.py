"""Sensitivity to an omitted confounder: published examples, bounds by hand, and what they promise in simulations."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import statsmodels.api as sm

import causalrisk as cr
from causalrisk.diagnostics.sensitivity import bias_scales, e_value, robustness_value
from tests.conftest import RHS, simulate

REFERENCE = Path(__file__).parents[1] / "reference"


def model(frame, kind=cr.IPWRA, **options):
    return kind.from_formula(f"y ~ {RHS}", frame, treat="d", **options)


@pytest.fixture(scope="module")
def frame():
    return simulate(300, seed=3)


def test_published_e_values():
    # VanderWeele and Ding (2017): a ratio of 3.9 with interval 1.8 to 8.7; protective ratios by their inverse.
    assert round(e_value(3.9), 2) == 7.26
    assert e_value(np.clip(1, 1.8, 8.7)) == pytest.approx(3.0)
    assert e_value(1 / 3.9) == pytest.approx(e_value(3.9))
    assert e_value(np.clip(1, 0.9, 8.7)) == e_value(1.0) == 1.0
    assert np.isnan(e_value(-1.0))


def test_no_confounder_explains_an_effect_without_residuals_away():
    x, d = np.arange(40.0), np.arange(40) % 3 % 2
    data = pd.DataFrame({"x": x, "d": d, "y": 2 * x + d + 1e-12 * np.sin(x)})
    row = cr.IPWRA.from_formula("y ~ x", data, treat="d").fit().sensitivity().iloc[0]
    assert row["robustness value"] == row["robustness value of limit"] == 1


def test_published_robustness_value():
    # Cinelli and Hazlett (2020), Darfur: t = 4.18 with 783 degrees of freedom, 13.9%.
    assert round(robustness_value(4.18 / np.sqrt(783)), 3) == 0.139
    for ratio in (1e-9, 0.3, 5.0, 1e4):
        r = robustness_value(ratio)
        assert r**2 / (1 - r) == pytest.approx(ratio**2, rel=1e-3)
    assert robustness_value(0.0) == 0.0


@pytest.mark.parametrize(
    "options", [{}, {"effect": "ratio", "family": "poisson"}, {"weights": "w", "weight_type": "probability"}]
)
def test_sensitivity_of_a_scan_is_that_in_memory(frame, options):
    positive = frame.assign(y=np.exp(frame.y / 4), w=1 + np.arange(300) % 3)
    whole = model(positive, **options).fit().sensitivity()
    blocks = model(cr.scan([positive[:100], positive[100:]]), **options).fit().sensitivity()
    pd.testing.assert_frame_equal(blocks, whole, rtol=1e-7)
    assert whole.notna().all(axis=None)


def test_bounds_by_hand(frame):
    res = model(frame).fit()
    outcomes, w = res.potential_outcomes, res.importance_weights
    residual = frame.y - np.where(frame.d == 1, outcomes["1"], outcomes["0"])
    size = np.sqrt((residual**2).mean() * (w**2).mean())
    bounds = res.sensitivity_bounds([0.02, 0.3], 0.05, rho=0.5)
    for cf_y in (0.02, 0.3):
        half = 0.5 * size * np.sqrt(cf_y * 0.05 / 0.95)
        np.testing.assert_allclose(bounds.loc[(cf_y, 0.05), ["lower", "upper"]], [res.effect - half, res.effect + half])
    row = res.sensitivity().iloc[0]
    np.testing.assert_allclose(row["scale"], size)
    share = row["robustness value"]
    touching = res.sensitivity_bounds(share, share).iloc[0]
    assert min(abs(touching["lower"]), abs(touching["upper"])) < 1e-9 * abs(res.effect)
    share = row["robustness value of limit"]
    touching = res.sensitivity_bounds(share, share).iloc[0]
    assert min(abs(touching["ci lower"]), abs(touching["ci upper"])) < 1e-6 * abs(res.effect)
    nothing = res.sensitivity_bounds(0, 0).iloc[0]
    np.testing.assert_allclose(nothing[["ci lower", "ci upper"]].astype(float), res.conf_int().loc["ATE"])


@pytest.mark.parametrize("target", ["all", "treated", "overlap"])
def test_influence_of_the_scale_by_differences(frame, target):
    res = model(frame, target=target).fit()
    record = res._record
    size = record.sample.restore(bias_scales(record, record.weight_fit)[0].scale_influence)
    for row in (0, 5, 17):
        sizes = []
        for step in (-1e-4, 1e-4):
            weights = np.ones(300)
            weights[row] += step
            near = model(frame.assign(w=weights), target=target, weights="w", weight_type="probability").fit()._record
            sizes.append(bias_scales(near, near.weight_fit)[0].size)
        np.testing.assert_allclose((sizes[1] - sizes[0]) / 2e-4 * 300, size[row], rtol=2e-4, atol=1e-4)


def test_bounds_hold_the_effect_adjusted_for_a_hidden_confounder():
    rng = np.random.default_rng(0)
    n = 40000
    x, u = rng.normal(size=(2, n))
    score = 1 / (1 + np.exp(-(0.5 * x + 0.6 * u)))
    data = sm.add_constant(np.column_stack([x, u]))
    d = (rng.random(n) < score).astype(int)
    y = 1.0 * d + x + 0.8 * u + rng.normal(size=n)
    frame = {"y": y, "d": d, "x": x, "u": u}
    short = cr.IPWRA.from_formula("y ~ x", frame, treat="d").fit()
    long = cr.IPWRA.from_formula("y ~ x + u", frame, treat="d").fit()

    def moments(res):
        own = np.where(d == 1, res.potential_outcomes["1"], res.potential_outcomes["0"])
        return ((y - own) ** 2).mean(), (res.importance_weights**2).mean()

    (sigma_short, nu_short), (sigma_long, nu_long) = moments(short), moments(long)
    cf_y, cf_d = 1 - sigma_long / sigma_short, 1 - nu_short / nu_long
    bounds = short.sensitivity_bounds(cf_y, cf_d).iloc[0]
    assert abs(short.effect - 1) > 0.3
    assert bounds["lower"] < long.effect < bounds["upper"]
    assert data.shape == (n, 3)


def test_e_value_of_a_standardized_difference(frame):
    res = model(frame).fit()
    row = res.sensitivity().iloc[0]
    spread = frame.y.std(ddof=0)
    d, se = res.effect / spread, res.effect_se / spread
    np.testing.assert_allclose(row["E-value"], e_value(np.exp(0.91 * d)))
    low, high = np.exp(0.91 * d - 1.78 * se), np.exp(0.91 * d + 1.78 * se)
    np.testing.assert_allclose(row["E-value of limit"], e_value(np.clip(1, low, high)), rtol=1e-4)
    assert row["basis"] == "difference over the SD of all outcomes"


@pytest.mark.parametrize("effect", ["difference", "ratio"])
def test_e_value_of_a_ratio_is_exact(frame, effect):
    binary = frame.assign(y=(frame.y > 1).astype(int))
    res = model(binary, family="binomial", effect=effect).fit()
    row = res.sensitivity().iloc[0]
    ratio = model(binary, family="binomial", effect="ratio").fit()
    np.testing.assert_allclose(row["ratio"], ratio.effect)
    np.testing.assert_allclose(row["E-value"], ratio.effect + np.sqrt(ratio.effect * (ratio.effect - 1)))
    z = 1.959963984540054
    low = ratio.effect * np.exp(-z * ratio.effect_se / ratio.effect)
    np.testing.assert_allclose(row["E-value of limit"], e_value(np.clip(1, low, np.inf)))
    np.testing.assert_allclose(row["effect"], res.params["POM[1]"] - res.params["POM[0]"])


def test_jre_and_hajek_use_the_regression_of_ipwra(frame):
    by_regression = model(frame).fit().sensitivity().iloc[0]["scale"]
    np.testing.assert_allclose(model(frame, cr.IPW).fit().sensitivity().iloc[0]["scale"], by_regression)
    joint = model(frame, cr.JRE).fit(cov_type="robust")
    np.testing.assert_allclose(joint.sensitivity().iloc[0]["scale"], by_regression)
    np.testing.assert_allclose(joint.sensitivity().iloc[0]["effect"], joint.effect)


def test_refusals(frame):
    res = model(frame).fit()
    with pytest.raises(cr.CausalRiskError, match=r"cf_d=0\.03"):
        res.sensitivity_bounds(cf_d=1.0)
    with pytest.raises(cr.CausalRiskError, match="rho=1"):
        res.sensitivity_bounds(rho=2)
    with pytest.raises(cr.CausalRiskError, match="no propensity score"):
        model(frame, cr.OutcomeRegression).fit().sensitivity_bounds()


def by_doubleml():
    known = json.loads((REFERENCE / "doubleml_benchmark.json").read_text("utf-8"))
    return pd.DataFrame(known.pop("rows")), known


@pytest.mark.parametrize(("target", "score"), [("all", "ATE"), ("treated", "ATTE")])
@pytest.mark.parametrize("kind", [cr.AIPW, cr.IPWRA])
def test_benchmark_of_a_covariate_as_doubleml(target, score, kind):
    data, known = by_doubleml()
    res = kind.from_formula("y ~ C(x1) * C(x2)", data, treat="d", target=target).fit()
    row, given = res.sensitivity_bounds(benchmark="x2").loc["x2"], known[score]
    expected = [given["cf_y"], given["cf_d"], given["rho"], given["delta_theta"], *given["theta"].values()]
    np.testing.assert_allclose(row[["cf_y", "cf_d", "rho", "change", "lower", "upper"]], expected, rtol=1e-8)
    same = res.sensitivity_bounds(row["cf_y"], row["cf_d"]).iloc[0]
    np.testing.assert_allclose(row[["lower", "upper", "ci lower", "ci upper"]].astype(float), same, rtol=1e-12)


def test_benchmarks_leave_out_every_column_of_a_covariate(frame):
    data = frame.assign(g=np.arange(300) % 3)
    formula = "y ~ x1 * C(g) + I(x1 ** 2) + np.exp(x2)"
    res = cr.AIPW.from_formula(formula, data, treat="d").fit()
    short = cr.AIPW.from_formula("y ~ C(g) + np.exp(x2)", data, treat="d").fit()
    table = res.sensitivity_bounds(benchmark=["x1", "g"])
    np.testing.assert_allclose(table.loc["x1", "change"], short.effect - res.effect, rtol=1e-8)
    assert table.index.tolist() == ["x1", "g"]
    X, Z = (np.column_stack([np.ones(300), *frame[list(names)].to_numpy().T]) for names in (["x1", "x2"], ["x1"]))
    of_arrays = cr.AIPW(frame["y"], X, frame["d"], exog_propensity=Z).fit()
    without = cr.AIPW(frame["y"], X[:, :2], frame["d"], exog_propensity=Z).fit()
    name = of_arrays.model.design.exog_names[2]
    with pytest.warns(cr.DesignWarning, match="so cf_d is 0"):  # it is in the outcome model only
        change = of_arrays.sensitivity_bounds(benchmark=name)["change"].iloc[0]
    np.testing.assert_allclose(change, without.effect - of_arrays.effect, rtol=1e-8)


def test_benchmarks_leave_out_the_indicator_of_missing_values(frame):
    gaps = frame.assign(x1=frame["x1"].where(np.arange(300) % 5 > 0))
    res = cr.AIPW.from_formula("y ~ x1 + x2", gaps, treat="d", missing="indicator").fit()
    short = cr.AIPW.from_formula("y ~ x2", gaps, treat="d").fit()
    np.testing.assert_allclose(res.sensitivity_bounds(benchmark="x1")["change"], short.effect - res.effect, rtol=1e-8)


def test_a_benchmark_that_explains_all_of_the_treatment_has_no_bounds():
    rng = np.random.default_rng(0)
    x, z = rng.normal(size=(2, 600))
    d = (rng.random(600) < 1 / (1 + np.exp(-2.5 * x))).astype(int)
    data = pd.DataFrame({"x": x, "z": z, "d": d, "y": x + z + d + rng.normal(size=600)})
    with pytest.warns(cr.OverlapWarning):
        res = cr.AIPW.from_formula("y ~ x + z", data, treat="d").fit()
    table = res.sensitivity_bounds(benchmark=["x", "z"])
    assert table.loc["x", "cf_d"] == 1 and table.loc["x", ["lower", "upper"]].tolist() == [-np.inf, np.inf]
    assert np.isfinite(table.loc["z"]).all()


@pytest.mark.parametrize(("formula", "own", "message"), [
    ("y ~ x2", "x1 + x2", r"leaving out 'x1' does not raise the error of the outcome model, so cf_y is 0"),
    ("y ~ x1 + x2", "x2", r"leaving out 'x1' does not lower the variance of the weights, so cf_d is 0 and the bounds"),
])  # fmt: skip
def test_a_benchmark_without_strength_warns(frame, formula, own, message):
    res = cr.AIPW.from_formula(formula, frame, treat="d", propensity=own).fit()
    with pytest.warns(cr.DesignWarning, match=message) as caught:
        table = res.sensitivity_bounds(benchmark=["x1", "x2"])
    assert len(caught) == 1 and "benchmark=" in str(caught[0].message).splitlines()[-1]
    assert (table.loc["x1", ["lower", "upper"]] == res.effect).all() and table.loc["x2", "lower"] < res.effect


@pytest.mark.filterwarnings("ignore::causalrisk.DesignWarning")
def test_no_confounder_moves_a_constant_outcome(frame):
    res = cr.IPWRA.from_formula("const ~ x1 + x2", frame.assign(const=3.0), treat="d").fit()
    assert (res.sensitivity_bounds(benchmark="x1")[["lower", "upper"]] == 0).all(axis=None)


def test_benchmarks_of_jre_and_of_several_arms(frame):
    joint = model(frame, cr.JRE).fit(cov_type="robust")
    of_start = model(frame).fit().sensitivity_bounds(benchmark="x1")
    columns = ["cf_y", "cf_d", "rho", "change"]
    np.testing.assert_allclose(joint.sensitivity_bounds(benchmark="x1")[columns], of_start[columns], rtol=1e-8)
    three = frame.assign(d=np.arange(300) % 3)
    table = cr.AIPW.from_formula("y ~ x1 + x2", three, treat="d", reference=0).fit().sensitivity_bounds(benchmark="x1")
    assert table.index.tolist() == [("1", "x1"), ("2", "x1")]


@pytest.mark.parametrize(
    ("options", "name", "match"),
    [
        ({}, "x9", r"'x9' is in neither formula"),
        ({"learner": "smooth"}, "x1", "not available with learners"),
        ({"propensity_score": "e"}, "x1", "given scores"),
    ],
)
def test_benchmarks_that_cannot_be(frame, options, name, match):
    res = model(frame.assign(e=0.5), cr.AIPW, **options).fit()
    with pytest.raises(cr.CausalRiskError, match=match):
        res.sensitivity_bounds(benchmark=name)


# Pairs, and one-sided p-values of psens() of R's rbounds 2.2 for gamma 1, 1.5, ..., 3, with four digits.
TREATED = [
    -0.162, 0.507, 1.059, -0.352, 0.996, 0.83, 0.338, 0.631, -0.419, 2.067, 0.055, -0.331, 0.084, 1.053, 0.952, 0.492,
    -0.153, 0.152, 2.024, 1, 0.222, -0.142, 0.596, -0.866, 0.316, 0.059, 1.961, 1.812, 0.728, -0.337, 1.701, 1.652,
    1.528, 1.537, 0.448, 1.506, 2.1, 0.838, -0.179, 1.594,
]  # fmt: skip
CONTROL = [
    0.787, -0.31, 1.699, -0.795, 0.996, -2.265, -0.162, 1.131, -0.456, -0.899, 0.727, -0.809, 0.267, -1.737, -1.411,
    -0.454, -1.035, 1.362, 0.917, -0.785, 0.574, 0.918, 0.256, 0.352, 1.174, -0.481, -0.419, 0.955, -1.289, 0.186,
    -0.031, 0.467, 1.024, 0.267, 0.232, 0.748, 1.217, 0.383, -0.988, -0.157,
]  # fmt: skip
PSENS = {1.0: (0.002, 0.002), 1.5: (0, 0.0336), 2.0: (0, 0.1287), 2.5: (0, 0.2716), 3.0: (0, 0.4265)}


def test_rosenbaum_bounds_as_rbounds():
    found = cr.rosenbaum_bounds(TREATED, CONTROL, list(PSENS), alternative="greater")
    np.testing.assert_allclose(found.to_numpy(), list(PSENS.values()), atol=5.1e-5)
    turned = cr.rosenbaum_bounds(CONTROL, TREATED, list(PSENS), alternative="less")
    pd.testing.assert_frame_equal(turned, found)


def test_rosenbaum_bounds_at_one_are_wilcoxons_test():
    test = scipy.stats.wilcoxon(TREATED, CONTROL, alternative="greater", correction=False, method="approx")
    found = cr.rosenbaum_bounds(TREATED, CONTROL, 1).iloc[0]
    tied = np.abs(np.subtract(TREATED, CONTROL))
    assert len(np.unique(tied[tied > 0].round(12))) < len(tied) - 1  # ties, which scipy corrects its variance for
    np.testing.assert_allclose(found, test.pvalue, rtol=1e-3)


MATCHED = cr.Matching.from_formula("y ~ x1", simulate(300), treat="d", target="treated").fit()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"gamma": 0.5}, "odds ratios of at least 1"),
        ({"control": CONTROL[:9]}, r"shapes \(40,\) and \(9,\)"),
        ({"control": [np.nan, *CONTROL[1:]]}, "without missing values"),
        ({"alternative": "two-sided"}, "alternative"),
        ({"control": None}, "each unit in one pair"),
        ({"treated": MATCHED, "control": MATCHED}, "the outcomes of both units of each pair"),
    ],
)
def test_rosenbaum_bounds_refuse(options, match):
    with pytest.raises(cr.CausalRiskError, match=match):
        cr.rosenbaum_bounds(**{"treated": TREATED, "control": CONTROL} | options)


@pytest.mark.filterwarnings("ignore::causalrisk.ResampleWarning")
@pytest.mark.parametrize("cov_type", ["bootstrap", "jackknife"])
def test_the_limit_is_that_of_the_interval(cov_type):
    rng = np.random.default_rng(7)
    data = pd.DataFrame({"x": rng.normal(size=100), "d": rng.integers(0, 2, 100)})
    data["y"] = (rng.random(100) < 0.15 + 0.17 * data.d).astype(int)
    model = cr.OutcomeRegression.from_formula("y ~ x", data, treat="d", effect="ratio", family="binomial")
    res = model.fit(cov_type=cov_type)
    found, limits = res.sensitivity().iloc[0], res.conf_int().loc["ATE ratio"]
    assert found["E-value of limit"] == pytest.approx(e_value(np.clip(1, *limits)))
