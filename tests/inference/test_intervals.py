"""Intervals: by hand, against scipy, and their coverage."""

from __future__ import annotations

import functools
import inspect

import numpy as np
import pytest
from scipy import stats

import causalrisk as cr
from causalrisk.inference.intervals import acceleration_of, bias_corrected_interval
from tests.conftest import RHS, simulate


@pytest.mark.parametrize("model", [cr.IPWRA, cr.JRE], ids=["IPWRA robust", "JRE bootstrap"])
def test_coverage_in_simulated_data(model):
    """Both models right: 95% intervals cover in 0.88 to 0.99 of 60 samples, and not with errors a fifth too small."""
    covered = []
    for seed in range(60):
        rng = np.random.default_rng(1000 + seed)
        frame = simulate(250, seed=seed, strength=0.5)
        frame["y"] = 1 + frame.x1 + 0.5 * frame.x2 + frame.d * 2 + rng.normal(size=250)
        options = {"n_boot": 64, "n_replicates": 10} if model is cr.JRE else {}
        fit = model(frame.y, frame[["x1", "x2", "x3"]].assign(const=1.0), frame.d).fit(**options)  # reads no formula
        low_limit, high_limit = fit.conf_int().loc["ATE"]
        covered.append(low_limit <= 2 <= high_limit)
    assert 0.88 <= np.mean(covered) <= 0.99


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
    acceleration = acceleration_of(79 * (left_out.mean() - left_out)[:, None], np.ones(80))
    ours = bias_corrected_interval(np.array([sample.mean()]), values, acceleration, 0.05)[0]
    np.testing.assert_allclose(ours, theirs.confidence_interval, rtol=1e-10)


@functools.cache
def counted_and_written(clustered):
    """Resamples of rows that are counted, and the same ones of these rows written out."""
    frame = simulate(150, strength=0.4).assign(id=np.arange(150) // 3, count=1 + np.arange(150) % 4)
    written = frame.loc[frame.index.repeat(frame["count"])].reset_index(drop=True)
    of = {"formula": f"y ~ {RHS}", "treat": "d", "cluster": "id" if clustered else None}
    models = [
        cr.IPWRA.from_formula(data=frame, weights="count", weight_type="frequency", **of),
        cr.IPWRA.from_formula(data=written, **of),
    ]
    if clustered:  # clusters are drawn, the same ones
        return [model.fit(bootstrap="cluster", n_boot=299) for model in models]
    draws = np.random.default_rng(0).multinomial(len(written), np.full(len(written), 1 / len(written)), size=299).T
    counted = np.add.reduceat(draws, np.r_[0, np.cumsum(frame["count"])[:-1]])
    return [model.fit(resamples=drawn) for model, drawn in zip(models, (counted, draws), strict=True)]


@pytest.mark.parametrize("clustered", [False, True])
def test_intervals_of_counted_rows_are_those_of_the_rows_written_out(clustered):
    fits = counted_and_written(clustered)
    limits = [res.conf_int(alpha=0.2, method="bca") for res in fits]
    np.testing.assert_allclose(limits[0], limits[1], rtol=1e-8)


@pytest.mark.parametrize(("model", "options"), [(cr.AIPW, {"resamples": np.ones((150, 3))}), (cr.JRE, {"n_boot": 20})])
def test_studentized_intervals_need_the_multiplier_bootstrap(model, options):
    res = model.from_formula(f"y ~ {RHS}", simulate(150, strength=0.4), treat="d").fit(cov_type="bootstrap", **options)
    with pytest.raises(cr.UnavailableError, match=r'percentile.*fit\(bootstrap="multiplier"\)'):
        res.conf_int(method="studentized")


def test_fault_54_too_few_resamples_for_the_tail():
    res = bootstrapped(n_boot=50)
    for method in ("percentile", "basic", "bc", "bca"):
        with pytest.warns(cr.ResampleWarning, match="n_boot="):
            res.conf_int(0.05, method=method)
    with pytest.warns(cr.ResampleWarning, match=r"(?s)fewer than 5 .* expected 5 or more\..*`fit\(n_boot=200\)`"):
        bootstrapped(n_boot=198).conf_int(method="percentile")
    bootstrapped(n_boot=199).conf_int(method="percentile")  # 200 parts, of which 5 are beyond each limit
    for n_boot in (0, 1, -5, 99.0, "many", True):
        with pytest.raises(cr.OptionError, match=r"n_boot=.*whole number of at least 2"):
            bootstrapped(n_boot=n_boot)


@pytest.mark.filterwarnings("ignore:only .* of 200 resamples:causalrisk.ResampleWarning")
def test_fault_55_estimate_outside_the_bootstrap_distribution():
    frame = simulate(150)
    model = cr.OutcomeRegression.from_formula(f"y ~ {RHS}", frame, treat="d")
    same = model.fit(resamples=np.tile(1.0 + (np.arange(150) % 7 == 0), (200, 1)).T)
    for method in ("bc", "bca"):
        with pytest.warns(cr.ResampleWarning, match="percentile"):
            assert same.conf_int(method=method).isna().all(axis=None)
