"""What must hold exactly of JRE whatever the data: limits, equivariance, invariance, cancellation."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pandas as pd
import pytest

import causalrisk as cr
from tests.conftest import CATTANEO_PROPENSITY, CATTANEO_RHS, RHS, simulate

QUICK = {"cov_type": "robust", "n_replicates": 60}
OBJECTIVES = [{"objective": "erm"}, {"shrinkage": 3}, {"shrinkage": 0.1}]


def fit(frame, **options):
    quick = {k: v for k, v in QUICK.items() if k != "n_replicates" or "replicates" not in options}
    return cr.JRE.from_formula(f"y ~ {RHS}", frame, treat="d").fit(**(quick | options))


@pytest.mark.parametrize("data", ["simulated", "cattaneo"])
def test_one_replicate_without_spread_is_ipwra(cattaneo, data):
    if data == "simulated":
        frame, outcome, treat, propensity = simulate(), f"y ~ {RHS}", "d", None
    else:
        frame, outcome, treat, propensity = cattaneo, f"bweight ~ {CATTANEO_RHS}", "mbsmoke", CATTANEO_PROPENSITY
    model = cr.JRE.from_formula(outcome, frame, treat=treat, propensity=propensity)
    res = model.fit(cov_type="robust", objective="erm", replicates=np.ones((len(frame), 1)))
    np.testing.assert_allclose(res.params, res.start.params, rtol=1e-8)
    np.testing.assert_allclose(res.bse, res.start.bse, rtol=1e-6)


def test_identical_replicates_are_one_replicate():
    frame = simulate()
    once = fit(frame, objective="erm", replicates=np.ones((len(frame), 1)))
    often = fit(frame, objective="erm", replicates=np.ones((len(frame), 5)))
    np.testing.assert_allclose(often.params, once.params, rtol=1e-9)


@pytest.mark.parametrize("options", OBJECTIVES)
def test_affine_outcome(options):
    frame = simulate()
    moved = frame.assign(y=1e3 - 7.0 * frame.y)
    before, after = fit(frame, **options), fit(moved, **options)
    assert after.effect == pytest.approx(-7 * before.effect, rel=1e-9)
    assert after.effect_se == pytest.approx(7 * before.effect_se, rel=1e-9)
    np.testing.assert_allclose(after.params.iloc[1:], 1e3 - 7 * before.params.iloc[1:], rtol=1e-9)


@pytest.mark.parametrize("options", OBJECTIVES)
def test_affine_covariates(options):
    frame = simulate()
    mix = np.array([[2.0, 0.3, 0.0], [-1.0, 40.0, 0.2], [0.5, 0.0, 1e-3]])
    moved = frame.copy()
    moved[["x1", "x2", "x3"]] = frame[["x1", "x2", "x3"]].to_numpy() @ mix + [5.0, -300.0, 0.1]
    before, after = fit(frame, **options), fit(moved, **options)
    np.testing.assert_allclose(after.params, before.params, rtol=1e-8)
    np.testing.assert_allclose(after.bse, before.bse, rtol=1e-8)


@pytest.mark.parametrize("options", OBJECTIVES)
def test_swapped_arms(options):
    frame = simulate()
    before, after = fit(frame, **options), fit(frame.assign(d=1 - frame.d), **options)
    assert after.effect == pytest.approx(-before.effect, rel=1e-9)
    np.testing.assert_allclose(after.params.iloc[:0:-1], before.params.iloc[1:], rtol=1e-9)
    np.testing.assert_allclose(after.bse.iloc[[0, 2, 1]], before.bse, rtol=1e-9)


@pytest.mark.parametrize("options", OBJECTIVES)
def test_permuted_rows(options):
    frame = simulate(200)
    rng = np.random.default_rng(1)
    draws = rng.multinomial(200, np.full(200, 1 / 200), size=30).T
    resamples = rng.multinomial(200, np.full(200, 1 / 200), size=40).T
    order = rng.permutation(200)
    given = {"cov_type": "bootstrap", **options}
    before = fit(frame, replicates=draws, resamples=resamples, **given)
    after = fit(frame.iloc[order], replicates=draws[order], resamples=resamples[order], **given)
    np.testing.assert_allclose(after.params, before.params, rtol=1e-10)
    np.testing.assert_allclose(after.boot_params, before.boot_params, rtol=1e-8)


@pytest.mark.parametrize("options", OBJECTIVES)
def test_frequency_weights_are_repeated_rows(options):
    frame = simulate(150).assign(count=np.random.default_rng(2).integers(1, 4, size=150))
    repeated = frame.loc[frame.index.repeat(frame["count"])].reset_index(drop=True)
    rng = np.random.default_rng(3)
    total = len(repeated)
    draws = rng.multinomial(total, np.full(total, 1 / total), size=30).T
    grouped = np.add.reduceat(draws, np.r_[0, np.cumsum(frame["count"])[:-1]])
    weighted = cr.JRE.from_formula(f"y ~ {RHS}", frame, treat="d", weights="count", weight_type="frequency")
    by_weight = weighted.fit(cov_type="robust", replicates=grouped, **options)
    by_row = fit(repeated, replicates=draws, **options)
    np.testing.assert_allclose(by_weight.params, by_row.params, rtol=1e-9)
    np.testing.assert_allclose(by_weight.bse, by_row.bse, rtol=1e-9)


def test_weights_of_replicates_are_totals_of_counted_rows_and_multiply_probability_weights():
    frame = simulate(120).assign(count=np.random.default_rng(2).integers(1, 4, size=120))
    repeated = frame.loc[frame.index.repeat(frame["count"])].reset_index(drop=True)
    given = {"cov_type": "robust", "objective": "erm"}
    fractional = np.random.default_rng(3).gamma(4.0, 0.25, (len(repeated), 30))
    totals = np.add.reduceat(fractional, np.r_[0, np.cumsum(frame["count"])[:-1]])
    models = {
        kind: cr.JRE.from_formula(f"y ~ {RHS}", frame, treat="d", weights="count", weight_type=kind)
        for kind in ("frequency", "probability")
    }
    by_row = fit(repeated, replicates=fractional, **given)
    np.testing.assert_allclose(models["frequency"].fit(replicates=totals, **given).params, by_row.params, rtol=1e-9)
    of_rows = np.random.default_rng(4).gamma(4.0, 0.25, (120, 30))
    alike = fit(repeated, replicates=np.repeat(of_rows, frame["count"], axis=0), **given)
    by_weight = models["probability"].fit(replicates=of_rows, **given)
    ours, theirs = (res._record.joint.replicates.shifts["score"] for res in (by_weight, alike))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9)


@pytest.mark.parametrize("term", ["bs(x1, df=5)", "center(x1)", "standardize(x1) + x2"])
def test_transforms_that_learn_from_the_data_count_frequency_weights(term):
    frame = simulate(150)
    frame["count"] = np.where(frame.x1 > 0.3, 8, 1)
    repeated = frame.loc[frame.index.repeat(frame["count"])].reset_index(drop=True)
    options = {"treat": "d", "propensity": "x1"}
    one = cr.IPWRA.from_formula(f"y ~ {term}", frame, weights="count", weight_type="frequency", **options).fit()
    other = cr.IPWRA.from_formula(f"y ~ {term}", repeated, **options).fit()
    np.testing.assert_allclose(one.params, other.params, rtol=1e-9)
    np.testing.assert_allclose(one.outcome_params, other.outcome_params, rtol=1e-8)
    np.testing.assert_allclose(one.effects_by(f"~ {term}"), other.effects_by(f"~ {term}"), rtol=1e-8)


def numbers_of(text):
    return re.findall(r"-?\d[\d.,]*%?", text)


@pytest.mark.parametrize("options", [{}, {"target": "treated"}, {"clip": (0.2, 0.8)}, {"target": "overlap"}])
@pytest.mark.parametrize("estimator", [cr.IPWRA, cr.JRE, cr.OutcomeRegression])
def test_frequency_weights_print_what_repeated_rows_print(estimator, options):
    """Stata's fweights: every n counts observations, and a row is as many equal ones."""
    frame = simulate(150, strength=1.0).assign(count=np.random.default_rng(2).integers(1, 9, size=150))
    repeated = frame.loc[frame.index.repeat(frame["count"])].reset_index(drop=True)
    total, weights = len(repeated), {"weights": "count", "weight_type": "frequency"}
    draws = np.random.default_rng(3).multinomial(total, np.full(total, 1 / total), size=20).T
    grouped = np.add.reduceat(draws, np.r_[0, np.cumsum(frame["count"])[:-1]])
    fits = []
    for data, drawn, own in ((frame, grouped, weights), (repeated, draws, {})):
        model = estimator.from_formula(f"y ~ {RHS}", data, treat="d", **own, **options)
        with warnings.catch_warnings(record=True):
            warnings.simplefilter("always", cr.CausalRiskWarning)
            own = {"replicates": drawn, "shrinkage": 1} if estimator is cr.JRE else {}
            fits.append(model.fit(cov_type="robust", **own))
    one, two = fits
    assert (one.nobs, one.model.design.n, two.nobs) == (total, 150, total)
    assert sorted(numbers_of(str(one.summary()))) == sorted(numbers_of(str(two.summary())))
    assert numbers_of(repr(one)) == numbers_of(repr(two))
    told = f"The sample has {total} observations with frequency weights (count)."
    explained = " ".join(str(one.explain()).split())
    assert told in explained
    of_rows = " ".join(str(two.explain()).split()).replace(f"The sample has {total} rows.", "")
    assert numbers_of(explained.replace(told, "")) == numbers_of(of_rows)
    same = ["nobs", "smallest_effective_n", "largest_weight"]
    np.testing.assert_allclose(one.glance()[same].astype(float), two.glance()[same].astype(float), rtol=1e-9)
    if estimator is not cr.OutcomeRegression:
        np.testing.assert_allclose(one.overlap(), two.overlap(), rtol=1e-7)


@pytest.mark.parametrize(("options", "slope"), [(OBJECTIVES[0], 1.0), (OBJECTIVES[1], 0.0)])
def test_noiseless_linear_outcome(options, slope):
    """Exact with `erm`; with `mse` only for a constant effect: a varying one is itself sampling variance."""
    frame = simulate()
    frame["y"] = 4 + 2 * frame.x1 - frame.x2 + frame.d * (3 + slope * frame.x3)
    res = fit(frame, **options)
    assert res.effect == pytest.approx(3 + slope * frame.x3.mean(), rel=1e-10)
    assert res.expected_ate_risk < 1e-20


@pytest.mark.parametrize("options", OBJECTIVES)
def test_arm_means_are_net_of_the_common_bias(options):
    res = fit(simulate(), **options)
    common = res.replicate_bias[["0", "1"]].to_numpy().mean()
    np.testing.assert_allclose(res.params.iloc[1:].to_numpy(), res.model_means.to_numpy() - common, rtol=1e-10)
    assert res.effect == pytest.approx(res.params["POM[1]"] - res.params["POM[0]"], rel=1e-10)
    assert res.effect == pytest.approx(res.model_means["1"] - res.model_means["0"], rel=1e-10)
    net = res.risk_table().loc["JRE", "RMS net"]
    assert net**2 == pytest.approx((res.replicate_bias["net"] ** 2).mean(), rel=1e-10)


def test_hajek_is_ipwra_with_constants():
    frame = simulate()
    hajek = cr.IPW.from_formula(f"y ~ {RHS}", frame, treat="d").fit()
    constants = cr.IPWRA.from_formula("y ~ 1", frame, treat="d", propensity=RHS).fit()
    np.testing.assert_allclose(hajek.params, constants.params, rtol=1e-12)
    np.testing.assert_allclose(hajek.bse, constants.bse, rtol=1e-10)


def model(frame, kind=cr.IPWRA, **options):
    return kind.from_formula(f"y ~ {RHS}", frame, treat="d", **options)


@pytest.fixture(scope="module")
def frame():
    return simulate(300, seed=3)


def test_diagnostics_count_frequency_weights_as_repeated_rows(frame):
    counts = np.random.default_rng(0).integers(1, 5, 300)
    repeated = model(frame.loc[frame.index.repeat(counts)].reset_index(drop=True)).fit()
    weighted = model(frame.assign(times=counts), weights="times", weight_type="frequency").fit()
    for table in ("balance", "overlap", "calibration", "sensitivity", "sensitivity_bounds"):
        one, other = (getattr(res, table)().select_dtypes("number") for res in (weighted, repeated))
        np.testing.assert_allclose(one.astype(float), other.astype(float), rtol=1e-6, atol=1e-8, err_msg=table)
    half = counts % 2
    for table in ("effects_by", "differences_by"):
        one = getattr(weighted, table)(half)
        pd.testing.assert_frame_equal(one, getattr(repeated, table)(np.repeat(half, counts)), rtol=1e-8)
    assert list(weighted.effects_by(half)["n"]) == [counts[half == k].sum() for k in (0, 1)]
    np.testing.assert_allclose(weighted.balance_test().statistic, repeated.balance_test().statistic, rtol=1e-4)
    first = np.r_[0, np.cumsum(counts)[:-1]]
    once = counts == 1
    change = repeated.influence()["change"].to_numpy()[first]
    np.testing.assert_allclose(weighted.influence()["change"][once], change[once], atol=1e-9)
