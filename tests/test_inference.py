"""Resampling, bootstrap, sandwich and intervals."""

from __future__ import annotations

import inspect
import threading

import joblib
import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

import causalrisk as cr
from causalrisk.inference.bootstrap import BootstrapDistribution, run_bootstrap
from causalrisk.inference.intervals import (
    acceleration_of,
    bias_corrected_interval,
    normal_interval,
    percentile_interval,
)
from causalrisk.inference.resample import RESAMPLE_STREAM, Resampler, given_multiplicities, seed_sequence
from causalrisk.inference.sandwich import sandwich
from causalrisk.jackknife import resample_standard_errors
from causalrisk.ledger import Reason
from tests.conftest import RHS, simulate

pytestmark = pytest.mark.filterwarnings("ignore::causalrisk.MonteCarloWarning")


def resampler(kind, n=50, weights=None, frequency=False, groups=None, seed=0):
    return Resampler(kind, seed_sequence(seed), np.ones(n) if weights is None else weights, frequency, groups)


def test_pairs_are_multinomial_counts():
    counts = resampler("pairs", 40).draw(RESAMPLE_STREAM, 0, 4000)
    np.testing.assert_array_equal(counts.sum(axis=0), 40)
    # mean 1 and variance 1 - 1/n of a multinomial cell; 160,000 cells give standard errors of 0.0025 and 0.006
    assert counts.mean(axis=1) == pytest.approx(np.ones(40), abs=0.08)
    assert counts.var() == pytest.approx(1 - 1 / 40, abs=0.03)


def test_fewer_resamples_are_a_prefix_of_more():
    few = resampler("pairs").draw(RESAMPLE_STREAM, 3, 5)
    np.testing.assert_array_equal(few, resampler("pairs").draw(RESAMPLE_STREAM, 3, 32)[:, :5])


def test_blocks_streams_and_seeds_differ():
    base = resampler("pairs").draw(0, 0, 8)
    for other in (
        resampler("pairs").draw(0, 1, 8),
        resampler("pairs").draw(1, 0, 8),
        resampler("pairs", seed=1).draw(0, 0, 8),
    ):
        assert not np.array_equal(base, other)


def test_bayesian_weights_are_dirichlet():
    weights = resampler("bayesian", 30).draw(RESAMPLE_STREAM, 0, 5000)
    np.testing.assert_allclose(weights.sum(axis=0), 30)
    assert weights.var() == pytest.approx(30 * 29 / (30 * 31), abs=0.02)  # n^2 times the variance of a Dirichlet(1)


def test_cluster_resamples_keep_clusters_whole():
    groups = np.repeat(np.arange(10), [1, 2, 3, 4, 5, 6, 7, 8, 9, 5])
    counts = resampler("cluster", 50, groups=groups).draw(RESAMPLE_STREAM, 0, 20)
    for g in range(10):
        assert np.ptp(counts[groups == g], axis=0).max() == 0
    first = np.unique(groups, return_index=True)[1]
    np.testing.assert_array_equal(counts[first].sum(axis=0), 10)


def test_stratified_resamples_keep_the_arms():
    groups = np.r_[np.zeros(35, int), np.ones(15, int)]
    counts = resampler("stratified", 50, groups=groups).draw(RESAMPLE_STREAM, 0, 20)
    np.testing.assert_array_equal(counts[:35].sum(axis=0), 35)
    np.testing.assert_array_equal(counts[35:].sum(axis=0), 15)


def test_frequency_weights_are_drawn_one_by_one():
    weights = np.arange(1.0, 11.0)
    counts = resampler("pairs", 10, weights, frequency=True).draw(RESAMPLE_STREAM, 0, 4000)
    np.testing.assert_array_equal(counts.sum(axis=0), 55)
    assert counts.mean(axis=1) == pytest.approx(weights, abs=0.25)


def test_probability_weights_are_carried_along():
    weights = np.linspace(0.5, 2, 50)
    plain = resampler("pairs").draw(RESAMPLE_STREAM, 0, 6)
    np.testing.assert_allclose(
        resampler("pairs", weights=weights).draw(RESAMPLE_STREAM, 0, 6), plain * weights[:, None]
    )


def test_seeds():
    generator = np.random.default_rng(3)
    assert seed_sequence(generator).entropy != seed_sequence(generator).entropy
    assert seed_sequence(None).entropy != seed_sequence(None).entropy
    assert seed_sequence(7).entropy == 7
    sequence = np.random.SeedSequence(5).spawn(2)[1]
    drawn = Resampler("pairs", seed_sequence(sequence), np.ones(50)).draw(0, 0, 4)
    assert not np.array_equal(drawn, resampler("pairs", seed=5).draw(0, 0, 4))


@pytest.mark.parametrize("given", [np.ones((3, 2)), np.ones(4), -np.ones((4, 2)), np.full((4, 2), np.nan)])
def test_given_multiplicities_are_checked(given):
    with pytest.raises(cr.errors.OptionError, match="resamples"):
        given_multiplicities("resamples", given, 4)


@pytest.mark.parametrize("kind", ["pairs", "bayesian", "stratified"])
def test_same_seed_same_digits_whatever_the_threads(kind):
    model = cr.JRE.from_formula(f"y ~ {RHS}", simulate(150), treat="d")
    options = {"n_boot": 100, "n_replicates": 40, "bootstrap": kind}
    fits = [model.fit(n_jobs=j, memory=m, **options) for j, m in ((1, None), (2, None), (-1, 1.0), (3, 1e12))]
    for res in fits[1:]:
        np.testing.assert_array_equal(res.boot_params, fits[0].boot_params)
        np.testing.assert_array_equal(res.bse, fits[0].bse)


def test_standard_error_options_do_not_move_the_estimate():
    model = cr.JRE.from_formula(f"y ~ {RHS}", simulate(150), treat="d")
    base = model.fit(n_boot=20, n_replicates=40)
    for other in ({"n_boot": 40}, {"cov_type": "robust"}, {"cov_type": "HC1"}, {"n_jobs": 2}):
        assert model.fit(**({"n_boot": 20, "n_replicates": 40} | other)).effect == base.effect
    more = model.fit(n_boot=40, n_replicates=40)
    np.testing.assert_allclose(more.boot_params.iloc[:20], base.boot_params, rtol=1e-12)


def test_bootstrap_standard_error_is_the_standard_deviation():
    res = cr.IPWRA.from_formula(f"y ~ {RHS}", simulate(200), treat="d").fit(cov_type="bootstrap", n_boot=120)
    np.testing.assert_allclose(res.bse, res.boot_params.std(ddof=1), rtol=1e-12)
    limits = res.conf_int(0.1, method="percentile")
    np.testing.assert_allclose(limits, np.quantile(res.boot_params, [0.05, 0.95], axis=0).T, rtol=1e-12)


def test_robust_and_bootstrap_standard_errors_agree():
    frame = simulate(1500, strength=0.4)
    for model in (cr.OutcomeRegression, cr.Hajek, cr.IPWRA, cr.AIPW, cr.JRE):
        fitted = model.from_formula(f"y ~ {RHS}", frame, treat="d")
        robust, boot = fitted.fit(cov_type="robust"), fitted.fit(cov_type="bootstrap", n_boot=800)
        # 800 resamples know a standard error to 2.5%
        np.testing.assert_allclose(boot.bse, robust.bse, rtol=0.1)


def test_outcome_regression_in_a_trial_is_lins_estimator():
    """Robust standard error by hand: the influence function of OLS with interactions plus the sampling of X."""
    frame = simulate(400, strength=0.0)
    frame[["x1", "x2", "x3"]] -= frame[["x1", "x2", "x3"]].mean()
    res = cr.OutcomeRegression.from_formula(f"y ~ {RHS}", frame, treat="d").fit()
    x = frame[["x1", "x2", "x3"]].to_numpy()
    d = frame[["d"]].to_numpy()
    columns = np.column_stack([d, np.ones(400), x, d * x])
    lin = sm.OLS(frame.y, columns).fit(cov_type="HC0")
    assert res.effect == pytest.approx(lin.params.iloc[0], rel=1e-10)
    regression = (columns * lin.resid.to_numpy()[:, None]) @ np.linalg.inv(columns.T @ columns)[:, 0]
    assert np.sqrt((regression**2).sum()) == pytest.approx(lin.bse.iloc[0], rel=1e-10)
    contrast = x @ lin.params.to_numpy()[5:]
    assert res.effect_se == pytest.approx(np.linalg.norm(regression + contrast / 400), rel=1e-10)


def test_small_sample_factor():
    model = cr.IPWRA.from_formula(f"y ~ {RHS}", simulate(120), treat="d")
    plain, scaled = model.fit(), model.fit(cov_type="HC1")
    np.testing.assert_allclose(scaled.bse / plain.bse, np.sqrt(120 / (120 - 8)), rtol=1e-12)
    np.testing.assert_allclose(model.fit(small_sample=True).bse, scaled.bse, rtol=1e-12)
    np.testing.assert_array_equal(model.fit(cov_type="HC0").bse, plain.bse)


def test_sandwich_by_hand():
    rng = np.random.default_rng(0)
    influence, weights = rng.normal(size=(6, 2)), np.array([1.0, 2.0, 1.0, 3.0, 1.0, 1.0])
    total = weights.sum()
    by_hand = sum(np.outer(w * f, w * f) for w, f in zip(weights, influence, strict=True)) / total**2
    np.testing.assert_allclose(sandwich(influence, weights), by_hand)
    by_count = sum(w * np.outer(f, f) for w, f in zip(weights, influence, strict=True)) / total**2
    np.testing.assert_allclose(sandwich(influence, weights, frequency=True), by_count)
    groups = np.array([0, 0, 1, 1, 2, 2])
    sums = [(weights[groups == g, None] * influence[groups == g]).sum(axis=0) for g in range(3)]
    by_group = sum(np.outer(s, s) for s in sums) / total**2
    np.testing.assert_allclose(sandwich(influence, weights, cluster=groups), by_group)
    factor = 3 / 2 * 5 / (6 - 2)
    scaled = sandwich(influence, weights, cluster=groups, n_coefficients=2)
    np.testing.assert_allclose(scaled, factor * by_group)


def test_clusters_of_one_row_equal_no_clusters():
    frame = simulate(200).assign(id=np.arange(200)[::-1])
    plain = cr.AIPW.from_formula(f"y ~ {RHS}", frame, treat="d").fit()
    single = cr.AIPW.from_formula(f"y ~ {RHS}", frame, treat="d", cluster="id").fit()
    assert single.summary().as_text().count("cluster") >= 1
    np.testing.assert_allclose(single.bse, plain.bse, rtol=1e-12)


def test_clusters_are_everywhere():
    frame = simulate(200)
    doubled = frame.loc[frame.index.repeat(2)].assign(id=np.repeat(np.arange(200), 2)).reset_index(drop=True)
    plain = cr.JRE.from_formula(f"y ~ {RHS}", frame, treat="d")
    clustered = cr.JRE.from_formula(f"y ~ {RHS}", doubled, treat="d", cluster="id")
    fixed = {"penalty": 2000.0, "n_replicates": 50, "n_boot": 50}
    one, two = plain.fit(**fixed), clustered.fit(**fixed)
    # whole pairs are drawn, so the resamples of the doubled data are those of the data
    np.testing.assert_allclose(two.params, one.params, rtol=1e-9)
    np.testing.assert_allclose(two.boot_params, one.boot_params, rtol=1e-8)
    robust = clustered.fit(cov_type="cluster", penalty=2000.0, n_replicates=50)
    np.testing.assert_allclose(robust.bse, plain.fit(cov_type="robust", penalty=2000.0, n_replicates=50).bse, rtol=1e-8)


def test_intervals_by_hand():
    limits = normal_interval(np.array([1.0, -2.0]), np.array([0.5, 0.0]), 0.1)
    half = stats.norm.ppf(0.95) * 0.5
    np.testing.assert_allclose(limits, [[1 - half, 1 + half], [-2, -2]])
    values = np.arange(101.0)[:, None]
    np.testing.assert_allclose(percentile_interval(values, 0.1), [[5, 95]])


def test_distribution_leaves_failures_out():
    values = np.array([[1.0], [np.nan], [3.0]])
    reasons = np.array([Reason.OK, Reason.SEPARATION, Reason.OK], dtype=np.int8)
    boot = BootstrapDistribution(values, reasons)
    assert boot.covariance()[0, 0] == pytest.approx(2.0)
    assert boot.failed_share == pytest.approx(1 / 3)


class Batch:
    def __init__(self, weights):
        self.values = weights.sum(axis=0)[None]
        self.reasons = np.zeros(weights.shape[1], dtype=np.int8)


def test_run_bootstrap_keeps_the_order_and_the_last_partial_block(capsys):
    def draw(block, width):
        return np.full((3, width), float(block))

    boot = run_bootstrap(lambda w, first: Batch(w), draw, 10, 4, 3, progress=True)
    assert boot.values[:, 0].tolist() == [0] * 4 + [3] * 4 + [6] * 2
    assert "10/10" in capsys.readouterr().err


@pytest.mark.parametrize(("model", "low"), [(cr.IPWRA, 0.88), (cr.JRE, 0.88)], ids=["IPWRA robust", "JRE bootstrap"])
def test_coverage_in_simulated_data(model, low):
    """Both models right: 95% intervals cover in 0.88 to 0.99 of 120 samples (three standard errors are 0.06)."""
    covered = []
    for seed in range(120):
        rng = np.random.default_rng(1000 + seed)
        frame = simulate(250, seed=seed, strength=0.5)
        frame["y"] = 1 + frame.x1 + 0.5 * frame.x2 + frame.d * 2 + rng.normal(size=250)
        options = {"n_boot": 99, "n_replicates": 50} if model is cr.JRE else {}
        low_limit, high_limit = model.from_formula(f"y ~ {RHS}", frame, treat="d").fit(**options).conf_int().loc["ATE"]
        covered.append(low_limit <= 2 <= high_limit)
    assert low <= np.mean(covered) <= 0.99


def bootstrapped(model=cr.IPWRA, n_boot=400, **options):
    frame = simulate(200, strength=0.4)
    return model.from_formula(f"y ~ {RHS}", frame, treat="d").fit(cov_type="bootstrap", n_boot=n_boot, **options)


def test_bias_corrected_intervals_by_hand():
    res = bootstrapped()
    values, t0 = res.boot_params["ATE"].to_numpy(), res.effect
    z0 = stats.norm.ppf((values < t0).mean())
    levels = stats.norm.cdf(2 * z0 + stats.norm.ppf([0.05, 0.95]))
    np.testing.assert_allclose(res.conf_int(0.1, method="bc").loc["ATE"], np.quantile(values, levels), rtol=1e-10)
    influence = res._record.estimate.influence[:, 0]
    a = (influence**3).sum() / (6 * (influence**2).sum() ** 1.5)
    shifted = z0 + stats.norm.ppf([0.05, 0.95])
    levels = stats.norm.cdf(z0 + shifted / (1 - a * shifted))
    np.testing.assert_allclose(res.conf_int(0.1, method="bca").loc["ATE"], np.quantile(values, levels), rtol=1e-10)


def test_bca_agrees_with_scipy():
    """scipy.stats.bootstrap of a difference in means, given its own resamples' distribution."""
    rng = np.random.default_rng(4)
    sample = rng.exponential(size=80)
    seed = "rng" if "rng" in inspect.signature(stats.bootstrap).parameters else "random_state"  # before scipy 1.15
    theirs = stats.bootstrap((sample,), np.mean, n_resamples=999, method="BCa", **{seed: np.random.default_rng(1)})
    values = theirs.bootstrap_distribution[:, None]
    left_out = (sample.sum() - sample) / 79
    acceleration = acceleration_of(79 * (left_out.mean() - left_out)[:, None])
    ours = bias_corrected_interval(np.array([sample.mean()]), values, acceleration, 0.05)[0]
    np.testing.assert_allclose(ours, theirs.confidence_interval, rtol=1e-10)


@pytest.mark.parametrize("model", [cr.OutcomeRegression, cr.Hajek, cr.AIPW, cr.JRE])
def test_studentized_interval(model):
    """The standard error of a resample is the robust one of its repeated rows."""
    frame = simulate(150, strength=0.4)
    options = {"n_replicates": 30, "penalty": 1500.0} if model is cr.JRE else {}
    built = model.from_formula(f"y ~ {RHS}", frame, treat="d")
    res = built.fit(cov_type="bootstrap", n_boot=200, **options)
    se = resample_standard_errors(res._record, 3)
    if model is not cr.JRE:
        drawn = Resampler("pairs", seed_sequence(0), np.ones(150)).draw(RESAMPLE_STREAM, 0, 32)
        again = frame.loc[frame.index.repeat(drawn[:, 3].astype(int))].reset_index(drop=True)
        expected = model.from_formula(f"y ~ {RHS}", again, treat="d").fit()
        np.testing.assert_allclose(se[3], expected.bse, rtol=1e-8)
    t = (res.boot_params - res.params) / se
    robust = built.fit(cov_type="robust", **options).bse
    expected = res.effect - np.quantile(t["ATE"], [0.95, 0.05]) * robust["ATE"]
    np.testing.assert_allclose(res.conf_int(0.1, method="studentized").loc["ATE"], expected, rtol=1e-10)
    with pytest.raises(cr.UnavailableError, match="given its own"):
        built.fit(resamples=np.ones((150, 3)), **options).conf_int(method="studentized")


def test_fault_54_too_few_resamples_for_the_tail():
    res = bootstrapped(n_boot=50)
    for method in ("percentile", "basic", "bc", "bca"):
        with pytest.warns(cr.ResampleWarning, match=r"(?s)extreme order statistics.*n_boot="):
            res.conf_int(0.05, method=method)
    for n_boot in (0, 1, -5, 99.0, "many", True):
        with pytest.raises(cr.OptionError, match=r"n_boot=.*whole number of at least 2"):
            bootstrapped(n_boot=n_boot)


@pytest.mark.filterwarnings("ignore:200 resamples leave:causalrisk.ResampleWarning")
def test_fault_55_estimate_outside_the_bootstrap_distribution():
    frame = simulate(150)
    model = cr.OutcomeRegression.from_formula(f"y ~ {RHS}", frame, treat="d")
    same = model.fit(resamples=np.tile(1.0 + (np.arange(150) % 7 == 0), (200, 1)).T)
    for method in ("bc", "bca"):
        with pytest.warns(cr.ResampleWarning, match="undefined"):
            assert same.conf_int(method=method).isna().all(axis=None)


def test_fault_57_seeds():
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    by_int = bootstrapped(n_boot=20, rng=5)
    by_sequence = bootstrapped(n_boot=20, rng=np.random.SeedSequence(5))
    np.testing.assert_array_equal(by_int.boot_params, by_sequence.boot_params)
    generator, expected = np.random.default_rng(5), np.random.default_rng(5)
    bootstrapped(cr.JRE, n_boot=20, rng=generator, n_replicates=40)
    expected.integers(2**63)
    assert generator.bit_generator.state == expected.bit_generator.state  # advanced once, whatever is drawn
    first, second = bootstrapped(n_boot=20, rng=generator), bootstrapped(n_boot=20, rng=generator)
    assert not np.array_equal(first.boot_params, second.boot_params)
    repeated = bootstrapped(n_boot=20, rng=first.seed)
    np.testing.assert_array_equal(repeated.boot_params, first.boot_params)
    assert bootstrapped(n_boot=20, rng=None).seed != bootstrapped(n_boot=20, rng=None).seed
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    for wrong in (np.random.RandomState(1), "1", -1, 1.5):
        with pytest.raises(cr.OptionError, match=r"rng=.*expected a non-negative int"):
            bootstrapped(n_boot=20, rng=wrong)


def test_fault_35_functions_of_the_caller_with_workers():
    """The design is made by the caller; workers get arrays."""
    squared = lambda x: x**2  # noqa: E731
    frame = simulate(150)
    model = cr.JRE.from_formula("y ~ x1 + squared(x1)", frame, treat="d")
    named = cr.JRE.from_formula("y ~ x1 + I(x1**2)", frame, treat="d")
    options = {"n_boot": 70, "n_replicates": 20}
    expected = named.fit(**options).bse
    for backend in ("threading", "loky"):
        with joblib.parallel_config(backend):
            np.testing.assert_array_equal(model.fit(n_jobs=2, **options).bse, expected)
    assert squared(3) == 9


def test_fault_66_two_threads_fit_at_once():
    model = cr.JRE.from_formula(f"y ~ {RHS}", simulate(150), treat="d")
    alone = model.fit(n_boot=64, n_replicates=40)
    results = [None] * 4

    def work(slot):
        results[slot] = model.fit(n_boot=64, n_replicates=40)

    threads = [threading.Thread(target=work, args=(slot,)) for slot in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for res in results:
        np.testing.assert_array_equal(res.boot_params, alone.boot_params)


@pytest.mark.parametrize("model", [cr.OutcomeRegression, cr.Hajek, cr.IPWRA, cr.AIPW])
def test_fault_49_frequency_weights_are_repeated_rows(model):
    frame = simulate(150).assign(count=np.random.default_rng(2).integers(1, 5, size=150))
    repeated = frame.loc[frame.index.repeat(frame["count"])].reset_index(drop=True)
    weighted = model.from_formula(f"y ~ {RHS}", frame, treat="d", weights="count", weight_type="frequency")
    by_row = model.from_formula(f"y ~ {RHS}", repeated, treat="d")
    for cov_type in ("robust", "HC1"):
        one, two = weighted.fit(cov_type=cov_type), by_row.fit(cov_type=cov_type)
        np.testing.assert_allclose(one.params, two.params, rtol=1e-10)
        np.testing.assert_allclose(one.bse, two.bse, rtol=1e-10)
    drawn = np.random.default_rng(3).multinomial(len(repeated), np.full(len(repeated), 1 / len(repeated)), size=50).T
    grouped = np.add.reduceat(drawn, np.r_[0, np.cumsum(frame["count"])[:-1]])
    one, two = weighted.fit(resamples=grouped), by_row.fit(resamples=drawn)
    np.testing.assert_allclose(one.bse, two.bse, rtol=1e-10)


def test_probability_weights_by_hand():
    """Weighted least squares per arm and its weighted score, for outcome regression with constants."""
    rng = np.random.default_rng(8)
    frame = simulate(120).assign(w=rng.uniform(0.5, 3, size=120))
    res = cr.OutcomeRegression.from_formula("y ~ 1", frame, treat="d", weights="w", weight_type="probability").fit()
    means, variances = [], []
    for arm in (0, 1):
        y, w = frame.y[frame.d == arm], frame.w[frame.d == arm]
        means.append(np.average(y, weights=w))
        variances.append((w**2 * (y - means[-1]) ** 2).sum() / w.sum() ** 2)
    assert res.effect == pytest.approx(means[1] - means[0], rel=1e-12)
    assert res.effect_se == pytest.approx(np.sqrt(sum(variances)), rel=1e-10)
