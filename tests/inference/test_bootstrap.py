"""The bootstrap: order, threads, agreement with robust standard errors."""

from __future__ import annotations

import threading

import numpy as np
import pandas as pd
import pytest

import causalrisk as cr
from causalrisk.report.methods import call_of
from tests.conftest import RHS, simulate


@pytest.mark.parametrize("kind", ["pairs", "bayesian", "stratified"])
def test_same_seed_same_digits_whatever_the_threads(kind):
    model = cr.JRE.from_formula(f"y ~ {RHS}", simulate(150), treat="d")
    options = {"n_boot": 70, "n_replicates": 5, "bootstrap": kind}
    fits = [model.fit(n_jobs=j, **options) for j in (1, 2, -1, 3)]
    for res in fits[1:]:
        np.testing.assert_array_equal(res.boot_params, fits[0].boot_params)
        np.testing.assert_array_equal(res.bse, fits[0].bse)


def test_bootstrap_standard_error_is_the_standard_deviation():
    res = cr.IPWRA.from_formula(f"y ~ {RHS}", simulate(200), treat="d").fit(cov_type="bootstrap", n_boot=120)
    np.testing.assert_allclose(res.bse, res.boot_params.std(ddof=1), rtol=1e-12)
    limits = res.conf_int(0.1, method="percentile")
    np.testing.assert_allclose(limits, np.quantile(res.boot_params, [0.05, 0.95], axis=0).T, rtol=1e-12)


def test_robust_and_bootstrap_standard_errors_agree():
    frame = simulate(1000, strength=0.4)
    for model in (cr.OutcomeRegression, cr.IPW, cr.IPWRA, cr.AIPW, cr.JRE):
        fitted = model.from_formula(f"y ~ {RHS}", frame, treat="d")
        own = {"n_replicates": 20} if model is cr.JRE else {}
        robust, boot = (
            fitted.fit(**how, **own) for how in ({"cov_type": "robust"}, {"bootstrap": "pairs", "n_boot": 800})
        )
        # 800 resamples know a standard error to 2.5%
        np.testing.assert_allclose(boot.bse, robust.bse, rtol=0.1)


def test_clusters_are_everywhere():
    frame = simulate(200)
    doubled = frame.loc[frame.index.repeat(2)].assign(id=np.repeat(np.arange(200), 2)).reset_index(drop=True)
    plain = cr.JRE.from_formula(f"y ~ {RHS}", frame, treat="d")
    clustered = cr.JRE.from_formula(f"y ~ {RHS}", doubled, treat="d", cluster="id")
    fixed = {"objective": "erm", "n_boot": 50}
    once, twice = {"replicates": np.ones((200, 1))}, {"replicates": np.ones((400, 1))}
    one, two = plain.fit(**fixed, **once), clustered.fit(**fixed, **twice)
    # whole pairs are drawn or weighted, so the resamples of the doubled data are those of the data
    np.testing.assert_allclose(two.params, one.params, rtol=1e-9)
    np.testing.assert_allclose(two.boot_params, one.boot_params, rtol=1e-8)
    drawn = clustered.fit(bootstrap="cluster", **fixed, **twice), plain.fit(bootstrap="pairs", **fixed, **once)
    np.testing.assert_allclose(drawn[0].boot_params, drawn[1].boot_params, rtol=1e-8)
    robust = clustered.fit(cov_type="cluster", objective="erm", **twice)
    expected = plain.fit(cov_type="robust", objective="erm", **once)
    np.testing.assert_allclose(robust.bse, expected.bse, rtol=1e-8)


@pytest.mark.parametrize("kind", ["pairs", "multiplier"])
@pytest.mark.parametrize("estimator", [cr.JRE, cr.IPWRA])
def test_small_sample_multiplies_bootstrap_errors_and_intervals(estimator, kind):
    """By the root of n / (n - k), with G clusters of G / (G - 1) (n - 1) / (n - k)."""
    n, G, k = 200, 40, 4
    frame = simulate(n).assign(g=np.arange(n) % G)
    for cluster, factor in ((None, n / (n - k)), ("g", G / (G - 1) * (n - 1) / (n - k))):
        model = estimator.from_formula("y ~ x1", frame, treat="d", cluster=cluster)
        options = {"bootstrap": "cluster" if cluster and kind == "pairs" else kind, "n_boot": 40}
        options |= {"n_replicates": 5} if estimator is cr.JRE else {}
        plain, wide = model.fit(**options), model.fit(**options, small_sample=True)
        np.testing.assert_allclose(wide.bse / plain.bse, np.sqrt(factor), rtol=1e-12)
        for method in ("percentile", *(["studentized"] if kind == "multiplier" else [])):
            lengths = [np.ptp(res.conf_int(0.5, method=method), axis=1) for res in (plain, wide)]
            np.testing.assert_allclose(lengths[1] / lengths[0], np.sqrt(factor), rtol=1e-9)
        assert "Variances are" in " ".join(str(wide.summary()).split()) and "Variances are" in wide.methods()
        assert "Variances are" not in " ".join(str(plain.summary()).split()) + plain.methods()


def test_small_sample_reaches_groups_and_differences():
    """Standard errors in groups are multiplied as those of the effect, with clusters too; so are paired differences."""
    n, G, k = 200, 40, 4
    frame = simulate(n).assign(g=np.arange(n) % G, old=lambda rows: rows.x2 > 0)
    for cluster, factor in ((None, n / (n - k)), ("g", G / (G - 1) * (n - 1) / (n - k))):
        model = cr.IPWRA.from_formula("y ~ x1", frame, treat="d", cluster=cluster)
        plain, wide = (
            model.fit(small_sample=asked).effects_by("old", data=frame)["std err"] for asked in (False, True)
        )
        np.testing.assert_allclose(wide / plain, np.sqrt(factor), rtol=1e-12)
    given = {"formula": "y ~ x1", "data": frame, "treat": "d", "estimators": ["IPWRA", "JRE"], "n_boot": 9}
    plain, wide = (cr.compare(**given, small_sample=asked).differences["std err"] for asked in (False, True))
    np.testing.assert_allclose(wide / plain, np.sqrt(n / (n - k)), rtol=1e-9)
    model = cr.JRE.from_formula("y ~ x1", frame, treat="d")
    fits = [model.fit(n_boot=9, n_replicates=5, small_sample=asked) for asked in (False, True)]
    plain, wide = (res.start_difference()["std err"] for res in fits)
    np.testing.assert_allclose(wide / plain, np.sqrt(n / (n - k)), rtol=1e-9)
    plain, wide = (res.start.bse for res in fits)
    np.testing.assert_allclose(wide / plain, np.sqrt(n / (n - k)), rtol=1e-9)


def test_the_factor_of_a_difference_is_the_larger_and_leaves_equal_estimators_equal():
    n = 120
    frame = simulate(n).assign(site=np.arange(n) % 3)
    given = {"formula": "y ~ C(site)", "data": frame, "treat": "d", "n_boot": 50}
    given["estimators"] = ["Unadjusted", "IPW", "IPWRA"]
    plain, wide = (cr.compare(**given, small_sample=asked).differences["std err"] for asked in (False, True))
    assert wide["IPW", "IPWRA"] == plain["IPW", "IPWRA"] == 0.0  # saturated: they are the same
    assert wide["Unadjusted", "IPWRA"] / plain["Unadjusted", "IPWRA"] == pytest.approx(np.sqrt(n / (n - 6)), rel=1e-9)


@pytest.mark.parametrize(("cluster", "factor"), [("g", 12 / 11 * 239 / 236), (None, 240 / 236)])
@pytest.mark.parametrize("rows", [20, 4000])
def test_rows_of_a_target_frame_do_not_count_in_the_small_sample_factor(cluster, factor, rows):
    frame = simulate(240).assign(g=np.arange(240) % 12)
    model = cr.IPWRA.from_formula("y ~ x1", frame, treat="d", cluster=cluster, target=simulate(rows, seed=2))
    robust, resampled = (
        model.fit(cov_type=kind, n_boot=count, small_sample=True).bse / model.fit(cov_type=kind, n_boot=count).bse
        for kind, count in (("cluster" if cluster else "robust", None), ("bootstrap", 50))
    )
    for found in (robust, resampled):
        np.testing.assert_allclose(found, np.sqrt(factor), rtol=1e-9)


def test_the_start_of_jre_has_the_factor_and_its_estimate_has_not():
    """The covariance that is asked for changes no estimate, and the start's errors and groups as those of the fit."""
    frame = simulate(80)
    model = cr.JRE.from_formula(f"y ~ {RHS}", frame, treat="d")
    plain = model.fit(cov_type="robust")
    for asked in ({"cov_type": "HC1"}, {"cov_type": "robust", "small_sample": True}):
        wide = model.fit(**asked)
        pd.testing.assert_series_equal(wide.params, plain.params)
        of_start = (res.start.effects_by(frame.x1 > 0)["std err"] for res in (wide, plain))
        pairs = [(wide.bse, plain.bse), (wide.start.bse, plain.start.bse), of_start]
        for one, other in pairs:
            np.testing.assert_allclose(one / other, np.sqrt(80 / (80 - 8)), rtol=1e-9)


RARE = {"formula": "y ~ x1 + rare", "treat": "d"}


def with_a_rare_level(n=200):
    """One of the rows of a level is treated: a third of the resamples of rows are without it, and separate."""
    frame = simulate(n)
    rare = np.r_[np.flatnonzero(frame.d == 1)[:1], np.flatnonzero(frame.d == 0)[:12]]
    return frame.assign(rare=np.isin(np.arange(n), rare).astype(int))


@pytest.mark.filterwarnings("ignore::causalrisk.ResampleWarning")
@pytest.mark.parametrize("estimator", [cr.JRE, cr.IPWRA])
def test_fractional_weights_separate_only_where_the_sample_does(estimator):
    model = estimator.from_formula(data=with_a_rare_level(), **RARE)
    draws = {"n_boot": 40} | ({"n_replicates": 10} if estimator is cr.JRE else {})
    with pytest.raises(cr.BootstrapError, match="treatment was predicted perfectly") as caught:
        model.fit(bootstrap="pairs", **draws)
    advice = str(caught.value).splitlines()[-1]
    assert 'fit(bootstrap="bayesian")' in advice
    res = model.fit(bootstrap="bayesian", **draws)
    assert res.boot_ledger.used.all()
    assert res.effect == caught.value.results.effect


@pytest.mark.parametrize("blocks", [False, True], ids=["memory", "scan"])
def test_jre_weighs_rows_where_too_many_draws_of_them_fail(blocks):
    """With a warning that counts them, whatever is bootstrapped; where few fail, or a kind is named, it does not."""
    frame = with_a_rare_level()
    model = cr.JRE.from_formula(data=cr.scan([frame[:90], frame[90:]]) if blocks else frame, **RARE)
    with pytest.warns(cr.ResampleWarning, match="of 50 resamples of rows failed") as caught:
        res = model.fit(n_boot=50)
    assert '(`bootstrap="bayesian", small_sample=True`)' in str(caught[0].message)
    asked = model.fit(bootstrap="bayesian", n_boot=50, small_sample=True)
    pd.testing.assert_frame_equal(res.boot_params, asked.boot_params)
    assert res.bse.iloc[0] == asked.bse.iloc[0]
    assert res.glance().std_errors[0] == asked.glance().std_errors[0] == "bootstrap (bayesian)"
    assert any("fractional random weights" in note for note in res._record.notes)
    assert "bootstrap='bayesian', n_boot=50, small_sample=True" in call_of(res._record)
    drawn = cr.JRE.from_formula("y ~ x1", frame, treat="d").fit(n_boot=20)
    assert drawn.glance().std_errors[0] == "bootstrap (pairs)"


@pytest.mark.filterwarnings("ignore::causalrisk.CausalRiskWarning")
def test_jre_multiplies_influence_functions_where_fractional_weights_fail_too():
    """Strong confounding and 25 coefficients an arm: draws separate, and weights leave an arm singular."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 24))
    d = (rng.random(120) < 1 / (1 + np.exp(-3 * x[:, 0]))).astype(int)
    frame = pd.DataFrame(x, columns=[f"x{k}" for k in range(24)]).assign(
        d=d, y=x[:, :5].sum(axis=1) + d + rng.normal(size=120)
    )
    given = {"formula": f"y ~ {' + '.join(frame.columns[:24])}", "data": frame, "treat": "d"}
    model = cr.JRE.from_formula(**given)
    draws = {"n_boot": 20, "n_replicates": 10}
    with pytest.raises(cr.BootstrapError, match="collinear in a group"):
        model.fit(bootstrap="bayesian", **draws)
    with pytest.warns(cr.ResampleWarning, match="random multipliers of the influence functions of the rows"):
        res = model.fit(**draws)
    asked = model.fit(bootstrap="multiplier", small_sample=True, **draws)
    pd.testing.assert_frame_equal(res.boot_params, asked.boot_params)
    plain = model.fit(bootstrap="multiplier", **draws)
    np.testing.assert_allclose(res.bse / plain.bse, np.sqrt(120 / (120 - 50)), rtol=1e-12)
    assert res.bse.iloc[0] == asked.bse.iloc[0] > 0 and "bootstrap='multiplier'" in call_of(res._record)
    with pytest.warns(cr.ResampleWarning, match="random multipliers"):
        both = cr.compare(**given, estimators=["IPWRA", "JRE"], n_boot=20)
    assert both.table.loc["JRE", "std err"] > 0
    blocks = cr.JRE.from_formula(**given | {"data": cr.scan([frame[:50], frame[50:]])})  # which has no multipliers
    with pytest.raises(cr.BootstrapError, match=r"collinear in a group.*\n.*err\.results") as caught:
        blocks.fit(**draws)
    robust = cr.JRE.from_formula(**given).fit(cov_type="robust", n_replicates=10)
    np.testing.assert_allclose(caught.value.results.bse, robust.bse, rtol=1e-6)


def test_a_comparison_with_jre_weighs_rows_where_too_many_draws_fail():
    frame = with_a_rare_level()
    with pytest.warns(cr.ResampleWarning, match="of 50 resamples of rows failed"):
        both = cr.compare(data=frame, estimators=["IPWRA", "JRE"], n_boot=50, **RARE)
    assert "bootstrap (bayesian)" in str(both.summary())
    for model in (cr.IPWRA, cr.JRE):
        own = model.from_formula(data=frame, **RARE).fit(bootstrap="bayesian", n_boot=50, small_sample=True)
        assert both.table.loc[model.spec.name, "std err"] == pytest.approx(own.effect_se, rel=1e-9)
    with pytest.raises(cr.BootstrapError, match="resamples failed"):
        cr.compare(data=frame, estimators=["IPWRA"], n_boot=50, **RARE)
    with pytest.raises(cr.BootstrapError, match="resamples failed"):
        cr.compare(data=frame, estimators=["IPWRA", "JRE"], n_boot=50, bootstrap="pairs", **RARE)


def test_frequency_weights_within_clusters_are_carried_along():
    frame = simulate(150).assign(id=np.arange(150) // 3, count=1 + np.arange(150) % 4)
    written = frame.loc[frame.index.repeat(frame["count"])].reset_index(drop=True)
    of = {"formula": f"y ~ {RHS}", "treat": "d", "cluster": "id"}
    counted = cr.JRE.from_formula(data=frame, weights="count", weight_type="frequency", **of)
    options = {"n_boot": 40, "n_replicates": 40, "shrinkage": 3.0}
    one, two = counted.fit(**options), cr.JRE.from_formula(data=written, **of).fit(**options)
    np.testing.assert_allclose(one.params, two.params, rtol=1e-9)
    np.testing.assert_allclose(one.boot_params, two.boot_params, rtol=1e-7)


def test_fault_66_two_threads_fit_at_once():
    model = cr.JRE.from_formula(f"y ~ {RHS}", simulate(150), treat="d")
    alone = model.fit(n_boot=40, n_replicates=5)
    results = [None] * 4

    def work(slot):
        results[slot] = model.fit(n_boot=40, n_replicates=5)

    threads = [threading.Thread(target=work, args=(slot,)) for slot in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for res in results:
        np.testing.assert_array_equal(res.boot_params, alone.boot_params)


@pytest.mark.filterwarnings("ignore::causalrisk.CausalRiskWarning")
def test_only_the_bootstrap_that_was_used_is_named():
    rng = np.random.default_rng(4)
    data = pd.DataFrame({"x": rng.normal(size=40)})
    data["d"] = (rng.random(40) < 1 / (1 + np.exp(-0.5 * data.x))).astype(int)
    data["y"] = (rng.random(40) < 1 / (1 + np.exp(-data.x - 0.5 * data.d))).astype(int)
    jre = cr.JRE.from_formula("y ~ x", data, treat="d", family="binomial")
    res = jre.fit(n_boot=40, max_failed=0.01)
    (note,) = [note for note in res.summary().notes if "Standard errors are from" in note]
    assert "random multipliers" in note
