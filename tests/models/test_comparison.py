"""Comparison of estimators on one sample and the same resamples."""

from __future__ import annotations

import pickle
import re

import matplotlib
import numpy as np
import pandas as pd
import pytest
from scipy import stats

import causalrisk as cr
from causalrisk.estimation.fits import WeightFit
from causalrisk.models.estimators import BY_NAME, Unadjusted
from tests.conftest import RHS, simulate

NAMES = ["Unadjusted", "OutcomeRegression", "IPW", "IPWRA", "AIPW", "JRE"]
FORMULA = f"y ~ {RHS}"
QUICK = {"n_boot": 70, "n_replicates": 40}


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(5)
    return simulate(240, strength=0.5).assign(
        group=np.arange(240) // 6, s=rng.uniform(0.5, 2, 240), times=rng.integers(1, 4, 240)
    )


@pytest.fixture(scope="module")
def both(frame):
    return cr.compare(FORMULA, frame, treat="d", propensity="x1 + x2", **QUICK)


def single(model, frame, options, fit):
    if model is cr.JRE:
        fit = fit | {"n_replicates": QUICK["n_replicates"]}
    return model.from_formula(FORMULA, frame, treat="d", **options).fit(cov_type="bootstrap", **fit)


# --- by hand -----------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:outcome .* is constant:causalrisk.DesignWarning")
def test_a_constant_outcome_has_no_tests(frame):
    both = cr.compare("I(0 * y + 3.1) ~ x1", frame, treat="d", n_boot=20)
    for table in (both.table, both.differences):
        assert (table["std err"] == 0).all() and table["P>|z|"].isna().all()


@pytest.mark.filterwarnings("ignore:outcome .* is constant:causalrisk.DesignWarning")
@pytest.mark.filterwarnings("ignore:outcome model. no constant:causalrisk.DesignWarning")
@pytest.mark.parametrize(
    ("formula", "estimators", "options"),
    [
        ("y ~ x1", ["IPWRA", "Unadjusted"], {"exposure": "s", "family": "poisson"}),
        ("y ~ 0 + x1", ["IPWRA", "OutcomeRegression"], {"propensity": "x1"}),
        ("y ~ 1", ["AIPW", "TMLE"], {"propensity": "x1", "outcome_predictions": ["x1", "x2"]}),
    ],
)
def test_a_constant_outcome_of_effects_that_vary_has_tests(frame, formula, estimators, options):
    """Rates, models without a constant, and given predictions have sampling error though no outcome varies."""
    both = cr.compare(formula, frame.assign(y=1.0), treat="d", estimators=estimators, n_boot=70, **options)
    np.testing.assert_allclose(both.table["std err"], both.boot_effects.std(), rtol=1e-12)
    assert (both.differences["std err"] > 0).all() and (both.differences["estimate"] != 0).all()
    for res in both.results.values():
        assert not any("there is no test" in str(note) for note in res._record.notes) and res.pvalues.notna().all()


def test_differences_by_hand(both):
    boot, differences = both.boot_effects, both.differences
    assert boot.shape == (70, 6)
    assert len(differences) == 15
    for (left, right), row in differences.iterrows():
        se = np.std(boot[left] - boot[right], ddof=1)
        difference = both.results[left].effect - both.results[right].effect
        z = difference / se
        expected = [difference, se, z, 2 * stats.norm.sf(abs(z)), *(difference + np.array([-1, 1]) * 1.959963985 * se)]
        np.testing.assert_allclose(row, expected, rtol=1e-8)
    assert list(differences.columns) == ["estimate", "std err", "z", "P>|z|", "[0.025", "0.975]"]


def deviation_of_jre(comparison):
    jre, boot = comparison.results["JRE"], comparison.boot_effects["JRE"].dropna()
    return np.sqrt(jre._record.choice_variance * ((boot - jre.effect) ** 2).mean())


def test_table_and_covariance_by_hand(both):
    table, boot = both.table, both.boot_effects
    assert list(table.columns) == ["estimate", "std err", "robust se", "z", "P>|z|", "[0.025", "0.975]"]
    assert list(table.index) == list(boot.columns) == list(both.results) == NAMES
    # a single fit's: JRE's are about the estimate, and allow for the choice of its anchor, which the resamples keep
    se = boot.std(ddof=1)
    se["JRE"] = deviation_of_jre(both)
    np.testing.assert_allclose(table["std err"], se, rtol=1e-12)
    np.testing.assert_allclose(table["z"], table["estimate"] / se, rtol=1e-12)
    np.testing.assert_allclose(table["0.975]"] - table["estimate"], 1.959963985 * se, rtol=1e-8)
    np.testing.assert_allclose(both.cov, np.cov(boot.to_numpy().T), rtol=1e-12)
    # the paired variance is that of the joint covariance
    variance = both.cov.loc["IPWRA", "IPWRA"] + both.cov.loc["JRE", "JRE"] - 2 * both.cov.loc["IPWRA", "JRE"]
    assert both.differences.loc[("IPWRA", "JRE"), "std err"] == pytest.approx(np.sqrt(variance), rel=1e-8)


def test_unadjusted_is_the_difference_of_raw_means(frame):
    one = cr.compare("y ~ 1", frame, treat="d", estimators="Unadjusted", n_boot=40)
    arms = [frame.y[frame.d == arm] for arm in (1, 0)]
    assert one.table.loc["Unadjusted", "estimate"] == pytest.approx(arms[0].mean() - arms[1].mean(), rel=1e-12)
    by_hand = np.sqrt(sum(y.var(ddof=0) / len(y) for y in arms))
    assert one.table.loc["Unadjusted", "robust se"] == pytest.approx(by_hand, rel=1e-12)
    assert one.differences.empty
    assert one.cov.shape == (1, 1)
    assert "Difference" not in str(one.summary())
    assert repr(one).startswith("1 estimator: ATE ")


# --- the same as single fits -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "fit"),
    [
        ({"propensity": "x1 + x2"}, {}),
        ({"propensity_link": "probit"}, {"rng": 7, "bootstrap": "stratified"}),
        ({"cluster": "group"}, {"small_sample": True}),
        ({"weights": "s", "weight_type": "probability"}, {"bootstrap": "bayesian"}),
        ({"weights": "times", "weight_type": "frequency"}, {"rng": np.random.SeedSequence(3)}),
    ],
    ids=["pairs", "probit", "cluster", "probability", "frequency"],
)
def test_rows_equal_single_fits(frame, options, fit):
    res = cr.compare(FORMULA, frame, treat="d", **options, **fit, **QUICK | {"n_boot": 40})
    for name in NAMES:
        model = BY_NAME[name]
        alone = single(model, frame, options, fit | {"n_boot": 40})
        np.testing.assert_allclose(res.boot_effects[name], alone.boot_params["ATE"], rtol=1e-10, atol=1e-12)
        row = res.table.loc[name]
        np.testing.assert_allclose(row[["estimate", "std err"]], [alone.effect, alone.effect_se], rtol=1e-10)
        np.testing.assert_allclose(row[["[0.025", "0.975]"]], alone.conf_int().loc["ATE"], rtol=1e-10)
        more = {k: v for k, v in fit.items() if k in ("rng", "small_sample") or model is cr.JRE}
        if model is cr.JRE:
            more["n_replicates"] = QUICK["n_replicates"]
        robust = alone.model.fit(cov_type="cluster" if "cluster" in options else "robust", **more)
        np.testing.assert_allclose(row["robust se"], robust.effect_se, rtol=1e-10)
        np.testing.assert_allclose(res.results[name].cov_params(), robust.cov_params(), rtol=1e-10, atol=1e-14)
        own = res.bootstrapped[name]
        assert str(own.summary(coefficients=True)) == str(alone.summary(coefficients=True))
        np.testing.assert_allclose(own.boot_params, alone.boot_params, rtol=1e-10)
        np.testing.assert_allclose(own.cov_params(), alone.cov_params(), rtol=1e-10, atol=1e-14)
    assert res.results["JRE"].start.params.equals(res.results["IPWRA"].params)


def test_options_of_jre_and_given_resamples(frame):
    drawn = np.random.default_rng(1).multinomial(240, np.full(240, 1 / 240), size=45).T
    joint = {"objective": "erm", "n_replicates": 120}
    res = cr.compare(FORMULA, frame, treat="d", estimators=["JRE", "AIPW"], resamples=drawn, **joint)
    alone = cr.JRE.from_formula(FORMULA, frame, treat="d").fit(resamples=drawn, **joint)
    np.testing.assert_allclose(res.boot_effects["JRE"], alone.boot_params["ATE"], rtol=1e-10)
    assert "bootstrap (given)" in str(res.summary())


def test_neither_threads_nor_the_selection_change_a_digit(frame, both):
    options = {"treat": "d", "propensity": "x1 + x2"} | QUICK
    some = cr.compare(FORMULA, frame, estimators=[cr.JRE, "IPW", Unadjusted], n_jobs=2, **options)
    order = ["JRE", "IPW", "Unadjusted"]
    assert list(some.table.index) == order
    pd.testing.assert_frame_equal(some.boot_effects, both.boot_effects[order])
    without = cr.compare(FORMULA, frame, treat="d", propensity="x1 + x2", estimators=["IPW", "AIPW"], n_boot=70)
    pd.testing.assert_frame_equal(without.boot_effects, both.boot_effects[["IPW", "AIPW"]])
    reversed_pair = some.differences.loc[("JRE", "Unadjusted")]
    np.testing.assert_allclose(reversed_pair["estimate"], -both.differences.loc[("Unadjusted", "JRE"), "estimate"])


def test_the_propensity_model_is_refitted_once_a_block(frame, monkeypatch):
    calls, once = [], WeightFit.refit

    def refit(self, s):
        if self.beta:  # what needs no score has none to fit
            calls.append(s.shape[1])
        return once(self, s)

    monkeypatch.setattr(WeightFit, "refit", refit)
    cr.compare(FORMULA, frame, treat="d", **QUICK)
    assert calls == [32, 8, 10, 70, 1]  # 40 replicates, ten folds, 70 resamples, all rows


def test_a_generator_is_advanced_once_and_the_seed_repeats(frame):
    options = {"treat": "d", "estimators": ["IPWRA", "AIPW"], "n_boot": 10}
    first = cr.compare(FORMULA, frame, rng=np.random.default_rng(4), **options)
    again = cr.compare(FORMULA, frame, rng=first.results["AIPW"].seed, **options)
    pd.testing.assert_frame_equal(first.boot_effects, again.boot_effects)


def test_constants_only_need_no_estimable_outcome_design(frame):
    rare = frame.assign(only=((frame.d == 1) & (frame.x1 > 1)).astype(float))
    options = {"treat": "d", "propensity": "x1", "n_boot": 20}
    res = cr.compare("y ~ only", rare, estimators=["Unadjusted", "IPW"], **options)
    alone = cr.IPW.from_formula("y ~ only", rare, treat="d", propensity="x1").fit(cov_type="bootstrap", n_boot=20)
    assert res.table.loc["IPW", "std err"] == pytest.approx(alone.effect_se, rel=1e-12)
    with pytest.warns(cr.DesignWarning, match="only is 0 in all"):
        cr.compare("y ~ only", rare, estimators=["Unadjusted", "IPWRA"], **options)


def test_one_sample_for_all(frame):
    holes = frame.copy()
    holes.loc[:9, "x3"] = np.nan
    res = cr.compare(FORMULA, holes, treat="d", propensity="x1", estimators=["Unadjusted", "IPWRA"], n_boot=20)
    kept = holes.dropna()
    means = kept.groupby("d").y.mean()
    assert res.table.loc["Unadjusted", "estimate"] == pytest.approx(means[1] - means[0], rel=1e-12)
    assert "10 rows dropped: x3 missing." in str(res.summary())


def test_formula_in_the_callers_scope(frame):
    y, x1, d = (frame[c].to_numpy() for c in ("y", "x1", "d"))
    assert len(y) == len(x1) == len(d)
    here = cr.compare("y ~ x1", treat="d", estimators="IPWRA", n_boot=20)
    named = cr.compare("y ~ x1", frame, treat="d", estimators="IPWRA", n_boot=20)
    pd.testing.assert_frame_equal(here.table, named.table)


# --- failures ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def damaged(frame):
    """Multiplicities: column 0 separates the groups, column 1 leaves a group without rows, the others are sound."""
    drawn = np.random.default_rng(2).multinomial(240, np.full(240, 1 / 240), size=40).T
    drawn[:, 0] = np.where(frame.d == 1, frame.x1 > 0, frame.x1 < 0)
    drawn[:, 1] = frame.d == 1
    return drawn


def test_failed_resamples_count_per_estimator_and_per_pair(frame, damaged):
    with pytest.warns(cr.ResampleWarning) as caught:
        res = cr.compare(FORMULA, frame, treat="d", resamples=damaged, n_replicates=40, max_failed=0.1)
    assert len(caught) == 1
    message = str(caught[0].message)
    assert "Unadjusted, OutcomeRegression (a group had no rows)" in message
    assert "IPW, IPWRA, AIPW, JRE (a group had no rows (1); treatment was predicted perfectly" in message
    boot = res.boot_effects
    assert boot.isna().sum().to_list() == [1, 1, 2, 2, 2, 2]
    assert res.boot_ledger.loc[0, "Unadjusted"] == "used"
    assert "predicted perfectly" in res.boot_ledger.loc[0, "JRE"]
    assert res.table.loc["Unadjusted", "std err"] == pytest.approx(boot["Unadjusted"].dropna().std(), rel=1e-12)
    assert res.table.loc["JRE", "std err"] == pytest.approx(deviation_of_jre(res), rel=1e-12)
    own = (boot["Unadjusted"] - boot["OutcomeRegression"]).dropna()
    assert len(own) == 39
    assert res.differences.loc[("Unadjusted", "OutcomeRegression"), "std err"] == pytest.approx(own.std(), rel=1e-12)
    mixed = (boot["Unadjusted"] - boot["JRE"])[2:]
    assert res.differences.loc[("Unadjusted", "JRE"), "std err"] == pytest.approx(mixed.std(), rel=1e-12)
    np.testing.assert_allclose(res.cov, boot[2:].cov(), rtol=1e-12)
    text = " ".join(str(res.summary()).split())
    assert "38 of 40 used by all" in text
    assert "`boot_ledger` of the results" in text
    with pytest.warns(cr.ResampleWarning):
        alone = cr.AIPW.from_formula(FORMULA, frame, treat="d").fit(resamples=damaged, max_failed=0.1)
    assert res.table.loc["AIPW", "std err"] == pytest.approx(alone.effect_se, rel=1e-12)
    own = res.bootstrapped["AIPW"]
    assert str(own.summary()) == str(alone.summary())
    pd.testing.assert_frame_equal(own.boot_ledger, alone.boot_ledger)


def test_too_many_failures(frame, damaged):
    with pytest.raises(cr.BootstrapError, match=r"2 of 40 .*max_failed=0.03.*IPW, AIPW") as caught:
        cr.compare(
            FORMULA, frame, treat="d", estimators=["Unadjusted", "IPW", "AIPW"], resamples=damaged, max_failed=0.03
        )
    assert "max_failed=" in str(caught.value)
    table = caught.value.results.table
    assert table["estimate"].notna().all() and table["robust se"].notna().all()
    assert table["std err"].isna().to_list() == [False, True, True]
    own = caught.value.results.bootstrapped.values()
    assert [np.isnan(res.effect_se) for res in own] == [False, True, True]
    assert "nan" in str(caught.value.results.summary())


@pytest.mark.filterwarnings("ignore:outcome 'y' is constant:causalrisk.DesignWarning")
def test_constant_outcome_has_no_sampling_error(frame):
    res = cr.compare(FORMULA, frame.assign(y=3.3), treat="d", **QUICK)
    assert (res.table[["estimate", "std err", "robust se"]].abs() < 1e-14).all(axis=None)
    assert (res.differences[["estimate", "std err"]].abs() < 1e-14).all(axis=None)
    str(res.summary())


def test_estimators_that_coincide_have_no_test():
    """With a saturated binary covariate IPWRA, AIPW and outcome regression are one estimator."""
    frame = simulate(200).assign(b=lambda f: (f.x1 > 0).astype(int))
    res = cr.compare("y ~ b", frame, treat="d", estimators=["OutcomeRegression", "IPWRA", "AIPW"], n_boot=30)
    assert (res.differences[["estimate", "std err"]] == 0).all(axis=None)
    assert res.differences[["z", "P>|z|"]].isna().all(axis=None)


def test_warnings_are_given_once(frame):
    with pytest.warns(cr.OverlapWarning) as caught:
        far = frame.assign(x1=np.where(frame.d == 1, frame.x1 + 1.5, frame.x1))
        res = cr.compare("y ~ x2", far, treat="d", propensity="x1", n_boot=20, n_replicates=40, max_failed=0.5)
    assert [w.category for w in caught].count(cr.OverlapWarning) == 1
    assert str(res.summary()).count("Poor overlap") == 1


# --- what is asked -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("estimators", "words"),
    [
        (["IPWRA", "jrx"], ["'jrx' is not known", "'Unadjusted', 'OutcomeRegression'", "`JRE`"]),
        ("OutcomeRegresion", ["`OutcomeRegression`"]),
        ([cr.CausalResults], ["CausalResults"]),
        ([3], ["3 is not known"]),
        (["Hajek", cr.IPW], ["'IPW' twice"]),
        ([], ["empty", "Leave estimators= out"]),
    ],
)
def test_unknown_estimators(frame, estimators, words):
    with pytest.raises(cr.OptionError) as caught:
        cr.compare(FORMULA, frame, treat="d", estimators=estimators)
    assert [word for word in words if word not in str(caught.value)] == []


def test_options_that_do_not_fit(frame):
    with pytest.raises(cr.OptionError, match="shrinkage= is an option of JRE"):
        cr.compare(FORMULA, frame, treat="d", estimators=["AIPW"], shrinkage=3.0)
    with pytest.raises(cr.OptionError, match=r'cluster="column"'):
        cr.compare(FORMULA, frame, treat="d", bootstrap="cluster")
    with pytest.raises(cr.OptionError, match="n_boot=1"):
        cr.compare(FORMULA, frame, treat="d", n_boot=1)
    with pytest.raises(TypeError, match="cov_type"):
        cr.compare(FORMULA, frame, treat="d", cov_type="robust")


# --- what is shown -----------------------------------------------------------------------------------------------


def test_summary_of_few_shows_every_pair(frame):
    res = cr.compare(FORMULA, frame, treat="d", estimators=["Unadjusted", "IPWRA", "AIPW"], n_boot=20)
    text = str(res.summary())
    assert "Difference to AIPW" in text and "Difference to IPWRA" in text
    assert max(map(len, text.splitlines())) == 78


def test_summary_names_the_distribution_and_the_factor_of_intervals(frame):
    options = {"treat": "d", "estimators": ["IPWRA", "AIPW"], "n_boot": 20}
    plain = cr.compare(FORMULA, frame, **options)
    small = cr.compare(FORMULA, frame, **options, use_t=True, small_sample=True)
    text = " ".join(str(small.summary()).split())
    assert f"t distribution with {small.results['AIPW'].df_resid:.0f} degrees of freedom" in text
    assert "n / (n - k)" in text
    assert "t distribution" not in str(plain.summary())


def test_plot_is_a_forest(both):
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    axes = both.plot()
    assert isinstance(axes, matplotlib.axes.Axes)
    assert [label.get_text() for label in axes.get_yticklabels()] == NAMES
    points = axes.get_lines()[0]
    np.testing.assert_allclose(points.get_xdata(), both.table["estimate"])
    assert list(points.get_ydata()) == [5, 4, 3, 2, 1, 0]
    segments = np.array(axes.collections[0].get_segments())[:, :, 0]
    np.testing.assert_allclose(segments, both.table[["[0.025", "0.975]"]])
    own = plt.figure().subplots()
    assert both.plot(own, alpha=0.1) is own
    assert "90% interval" in own.get_xlabel()
    plt.close("all")


def test_pickles_and_hands_out_copies(both):
    again = pickle.loads(pickle.dumps(both))
    pd.testing.assert_frame_equal(again.table, both.table)
    assert str(again.summary()) == str(both.summary())
    before = str(both.summary())
    for piece in (both.table, both.differences, both.boot_effects, both.cov):
        piece.iloc[:] = 0
    both.results.clear()
    assert str(both.summary()) == before


def test_several_arms_have_a_row_each():
    frame = simulate(300).assign(arm=np.random.default_rng(3).choice(["a", "b", "c"], 300))
    names = ["OutcomeRegression", "IPWRA"]
    options = {"treat": "arm", "reference": "a"}
    both = cr.compare(f"y ~ {RHS}", frame, estimators=names, n_boot=50, **options)
    assert both.table.index.names == ["estimator", "effect"] and len(both.table) == 4
    alone = cr.IPWRA.from_formula(f"y ~ {RHS}", frame, **options).fit(cov_type="bootstrap", n_boot=50)
    np.testing.assert_allclose(both.table.loc["IPWRA"].estimate, alone.params.iloc[:2], rtol=1e-10)
    np.testing.assert_allclose(both.table.loc["IPWRA"]["std err"], alone.bse.iloc[:2], rtol=1e-9)
    differences = both.differences
    assert differences.index.names == ["estimator", "minus", "effect"] and len(differences) == 2
    gap = both.table.loc[("OutcomeRegression", "ATE[c]")].estimate - both.table.loc[("IPWRA", "ATE[c]")].estimate
    assert differences.xs("ATE[c]", level="effect").estimate.iloc[0] == pytest.approx(gap, rel=1e-9)
    assert repr(both).startswith("2 estimators: ATE[b]") and "b, c vs a" in repr(both)
    text = str(both.summary())
    assert text.index("ATE[b]") < text.index("ATE[c]") and both.cov.shape == (4, 4)
    labels = [label.get_text() for label in both.plot().get_yticklabels()]
    assert labels[0] == "OutcomeRegression: ATE[b]"


@pytest.mark.parametrize(
    "options", [{"target": "overlap"}, {"family": "binomial", "effect": "ratio"}, {"clip": (0.2, 0.8)}]
)
def test_options_of_the_models_hold_for_all(options):
    frame = simulate(200).assign(y=lambda f: (f.y > 1).astype(int))
    both = cr.compare(f"y ~ {RHS}", frame, treat="d", n_boot=20, n_replicates=20, **options)
    for name, model in (("OutcomeRegression", cr.OutcomeRegression), ("AIPW", cr.AIPW)):
        alone = model.from_formula(f"y ~ {RHS}", frame, treat="d", **options).fit()
        assert both.table.loc[name, "estimate"] == pytest.approx(alone.effect, rel=1e-10)
        assert both.table.loc[name, "robust se"] == pytest.approx(alone.effect_se, rel=1e-9)
        row, scale = both.table.loc[name], np.log if "effect" in options else np.asarray
        se = scale(both.boot_effects[name]).std(ddof=1)
        assert row.z == pytest.approx(scale(row.estimate) / se, rel=1e-9)
        assert scale(row["0.975]"]) == pytest.approx(scale(row.estimate) + 1.959963984540054 * se, rel=1e-9)


def test_what_is_read_in_parts_is_collected_first():
    arrow = pytest.importorskip("pyarrow.dataset").dataset(
        pytest.importorskip("pyarrow").Table.from_pandas(simulate(60))
    )
    for data in (cr.scan([simulate(60)]), arrow):
        with pytest.raises(cr.UnavailableError, match=re.escape("`data=causalrisk.scan(data).collect()`.")):
            cr.compare("y ~ x1", data, treat="d")
        assert len(cr.scan(data).collect()) == 60
