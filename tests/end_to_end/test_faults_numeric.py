"""Numerical faults (36-45, 68, 69): raises_with by name, or the right digits."""

from __future__ import annotations

import functools
import re

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

import causalrisk as cr
import causalrisk.estimation.engine
from tests.conftest import simulate
from tests.end_to_end.test_faults import BOTH, assert_same, build, clean, finish, fit, raises_with

N = 300
WEIGHTED = [cr.IPW, cr.IPWRA, cr.AIPW, cr.JRE]
ALL = [cr.OutcomeRegression, *WEIGHTED]
FORMULA = "y ~ x1 + x2"


@pytest.fixture
def data():
    return simulate(n=N, seed=3)


# --- separation --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", WEIGHTED)
@pytest.mark.parametrize("link", ["logit", "probit", "cloglog"])
def test_fault_36_perfect_separation(data, estimator, link):
    split = data.assign(d=(data.x1 > 0.2).astype(int))
    with raises_with(cr.SeparationError, f"({link})", "'d' perfectly", "'x1'", 'propensity="x1 + x2"'):
        fit(estimator, split, FORMULA, propensity_link=link)


@pytest.mark.parametrize("propensity", ["x1", "x1 + x2", "x3 + x1", "I(1e6 * x1)", "I(x1 + 1e6)"])
def test_fault_36_all_rows_are_predicted_perfectly(data, propensity):
    """A threshold strictly between two values of x1 separates every row, also those next to it."""
    split = data.assign(d=(data.x1 > 0.2).astype(int))
    with pytest.raises(cr.SeparationError) as caught:
        fit(cr.IPWRA, split, "y ~ 1", propensity=propensity)
    assert len(caught.value.rows) == N and "in all rows" in str(caught.value)


def test_fault_36_an_estimator_without_propensity_score_does_not_mind(data):
    split = data.assign(d=(data.x1 > 0.2).astype(int))
    res = build(cr.OutcomeRegression, split, "y ~ x2", propensity="x1").fit()
    by_arm = [np.polynomial.Polynomial.fit(g.x2, g.y, 1)(split.x2).mean() for _, g in split.groupby("d")]
    assert res.effect == pytest.approx(by_arm[1] - by_arm[0], rel=1e-10)


def with_cell(data, treated=7):
    cell = np.where(data.index.isin(data.index[data.d == 1][:treated]), "only", "other")
    return data.assign(cell=cell).set_axis([f"r{i}" for i in range(N)])


@pytest.mark.parametrize("estimator", WEIGHTED)
def test_fault_37_one_cell_all_treated(data, estimator):
    quasi = with_cell(data)
    only = quasi.index[quasi.cell == "only"]
    with pytest.warns(
        cr.DesignWarning, match=r"cell = 'only', the reference level, has no rows in group '0'[^$]*trim="
    ):
        kept = fit(estimator, quasi, "y ~ x1", propensity="x1 + cell")
    assert_same(kept, fit(estimator, quasi, "y ~ x1", propensity="x1"), rtol=1e-8)
    with pytest.warns(cr.DesignWarning, match="after trimming"):
        res = fit(estimator, quasi, "y ~ x1", propensity="x1 + cell", trim="separated")
    assert res.nobs == N - 7 and res.estimand == "trimmed ATE"
    plain = fit(estimator, quasi.drop(index=only), "y ~ x1", propensity="x1")
    np.testing.assert_allclose(res.params, plain.params, rtol=1e-8)


def test_fault_37_an_interaction(data):
    quasi = data.assign(a=(data.x1 > 0) * 1, b=(data.x2 > 0) * 1)
    quasi["d"] = np.where((quasi.a == 1) & (quasi.b == 1), 1, quasi.d)
    with pytest.warns(cr.DesignWarning, match="dropped 'a:b', because a:b is 0 in all rows of group '0'"):
        fit(cr.IPWRA, quasi, "y ~ 1", propensity="a*b")


# --- rank and conditioning ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", [cr.OutcomeRegression, cr.IPWRA, cr.JRE])
def test_fault_38_dependent_columns_are_dropped_with_a_warning(data, estimator):
    doubled = data.assign(twice=2 * data.x1, total=data.x1 + data.x2, g=np.arange(N) % 3)
    for formula, same, dropped in [
        ("y ~ x1 + x2 + twice", "y ~ x1 + x2", "'twice'"),
        ("y ~ x1 + x2 + total", "y ~ x1 + x2", "'total'"),
        ("y ~ x1 + C(g) + I(1.0 * (g == 1))", "y ~ x1 + C(g)", "g == 1"),
    ]:
        with pytest.warns(cr.DesignWarning) as caught:
            res = fit(estimator, doubled, formula)
        told = [str(w.message) for w in caught]
        assert all(dropped in text and "dropped" in text for text in told)
        models = "outcome model" if estimator is cr.OutcomeRegression else "outcome and propensity models"
        assert [text.split(":")[0] for text in told] == [models]
        base = fit(estimator, doubled, same)
        assert_same(res, base, rtol=1e-11)
        assert np.isfinite(res.bse).all() and list(res.outcome_params.index) == list(base.outcome_params.index)
        assert "dropped" in str(res.summary())


def test_fault_38_dummy_trap_in_the_array_interface(data):
    dummies = pd.get_dummies(np.arange(N) % 3).to_numpy(dtype=float)
    X = np.column_stack([np.ones(N), data.x1, dummies])
    with pytest.warns(cr.DesignWarning, match="dropped 'x4'"):
        res = cr.OutcomeRegression(data.y, X, data.d).fit()
    assert_same(res, cr.OutcomeRegression(data.y, X[:, :-1], data.d).fit(), rtol=1e-11)


@BOTH
@pytest.mark.parametrize(("near", "rtol"), [(1e-8, 1e-7), (1e-12, 1e-3)])
def test_fault_39_near_collinear_columns(data, estimator, near, rtol):
    """x1 and x1 + near * x2 span what x1 and x2 span, up to rounding of relative size 1e-16 / near."""
    close = data.assign(x3=data.x1 + near * data.x2)
    with pytest.warns(cr.DesignWarning, match="nearly dependent") as caught:
        res = fit(estimator, close, "y ~ x1 + x3")
    for text in (str(w.message) for w in caught):
        found = float(re.search(r"condition number ([\d.e+]+)", text)[1])
        assert 0.1 / near < found < 10 / near
    assert_same(res, clean(estimator, FORMULA), rtol=rtol)
    assert any("condition number" in note for note in res.summary().notes)


@pytest.mark.filterwarnings("ignore:group .* outcome coefficients")  # what is certified are coefficients
def test_fault_39_nist_longley():
    """Certified values of the NIST Statistical Reference Datasets, to 10 digits; one arm shifted by 5."""
    certified = [-3482258.63459582, 15.0618722713733, -0.0358191792925910, -2.02022980381683, -1.03322686717359,
                 -0.0511041056535807, 1829.15146461355]  # fmt: skip
    longley = sm.datasets.longley.load_pandas().data
    arms = pd.concat([longley.assign(d=0), longley.assign(d=1, TOTEMP=longley.TOTEMP + 5)], ignore_index=True)
    res = fit(cr.OutcomeRegression, arms, "TOTEMP ~ GNPDEFL + GNP + UNEMP + ARMED + POP + YEAR")
    np.testing.assert_allclose(res.outcome_params["0"], certified, rtol=1e-10)
    assert res.effect == pytest.approx(5, abs=1e-6)


@pytest.mark.filterwarnings("ignore:group .* outcome coefficients")  # what is certified are coefficients
@pytest.mark.parametrize(("base", "noise", "rtol"), [(1.0, 0, 1e-8), (0.1, 0, 1e-10), (1.0, 1, 1e-8), (1.0, 100, 1e-6)])
def test_fault_39_nist_wampler(base, noise, rtol):
    """Wampler's polynomials of degree 5: the certified coefficients are the powers of the base."""
    x = np.arange(21)
    delta = np.array([759, -2048, 2048, -2048, 2523, -2048, 2048, -2048, 1838, -2048, 2048])
    delta = np.concatenate([delta, delta[9::-1]])
    assert not np.any(delta @ x[:, None] ** np.arange(6))  # residuals orthogonal to the design, so the fit is exact
    y = (base ** np.arange(6) * x[:, None] ** np.arange(6)).sum(axis=1) + noise * delta
    arms = pd.DataFrame({"x": np.tile(x, 2), "d": np.repeat([0, 1], 21), "y": np.concatenate([y, y + 3])})
    res = fit(cr.OutcomeRegression, arms, "y ~ x + " + " + ".join(f"I(x**{k})" for k in range(2, 6)))
    np.testing.assert_allclose(res.outcome_params["0"], base ** np.arange(6), rtol=rtol)
    assert res.effect == pytest.approx(3, rel=1e-8)


# --- units -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ALL)
@pytest.mark.parametrize("scale", [1e12, 1e-12, 1e150, 1e-150, -1e6])
def test_fault_40_outcome_in_other_units(data, estimator, scale):
    res, base = fit(estimator, data.assign(y=scale * data.y)), clean(estimator)
    np.testing.assert_allclose(res.params / scale, base.params, rtol=1e-12)
    np.testing.assert_allclose(res.bse / abs(scale), base.bse, rtol=1e-12)
    np.testing.assert_allclose(res.pvalues, base.pvalues, rtol=1e-9)
    assert res.converged


@functools.cache
def fit_on_a_grid(estimator):
    """Data whose x1 is not rounded where it is shifted, and their fit."""
    grid = simulate(n=N, seed=2)
    grid["x1"] = np.round(grid.x1 * 2**20) / 2**20
    return grid, fit(estimator, grid)


@pytest.mark.parametrize("estimator", ALL)
@pytest.mark.parametrize(("scale", "shift"), [(1e9, 0), (1e-9, 0), (1, 1e8), (1, -1e8), (-1, 0), (2.0**30, 2.0**30)])
def test_fault_41_covariate_in_other_units(estimator, scale, shift):
    grid, base = fit_on_a_grid(estimator)
    moved = grid.assign(x1=scale * grid.x1 + shift)
    assert_same(fit(estimator, moved), base, rtol=1e-8)


# --- degenerate outcome and covariates ---------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ALL)
@pytest.mark.parametrize("value", [0.0, 1e6 + 0.1])
def test_fault_42_constant_outcome(data, estimator, value):
    with pytest.warns(cr.CausalRiskWarning, match=r"'y'.*(constant|vary|variance)"):
        res = fit(estimator, data.assign(y=value), FORMULA)
    assert abs(res.effect) <= 1e-14 * max(value, 1) and res.effect_se <= 1e-14 * max(value, 1)
    np.testing.assert_allclose(res.params.iloc[1:], value, rtol=1e-14)
    assert np.isnan(res.pvalues["ATE"]) and np.isnan(res.tvalues["ATE"])
    assert "nan" in str(res.summary())


@pytest.mark.parametrize("estimator", ALL)
def test_fault_42_constant_outcome_in_one_arm(data, estimator):
    with pytest.warns(cr.CausalRiskWarning, match=r"'y'.*'treated'"):
        res = fit(estimator, data.assign(y=np.where(data.d == 1, 5.0, data.y)), FORMULA, levels={0: "a", 1: "treated"})
    assert np.isfinite(res.effect_se) and res.effect_se > 0
    assert not np.abs(res.tvalues["POM[treated]"]) > 1e9  # no z of 1e17: NaN, or for JRE an ordinary number
    assert len(str(res.summary()).splitlines()[1]) < 100  # nor a column as wide as one


@BOTH
def test_fault_43_constant_covariate(data, estimator):
    with pytest.warns(cr.DesignWarning, match="dropped 'k'.*constant"):
        res = fit(estimator, data.assign(k=3.7), "y ~ x1 + k + x2")
    base = clean(estimator, FORMULA)
    assert_same(res, base, rtol=1e-12)
    assert list(res.outcome_params.index) == list(base.outcome_params.index)
    with pytest.warns(cr.DesignWarning, match="dropped 'x1'"):
        finish(estimator(data.y, np.column_stack([np.ones(N), np.full(N, 7.0), data.x1]), data.d))


def test_fault_43_covariate_constant_in_one_arm(data):
    steady = data.assign(k=np.where(data.d == 1, 2.0, 2 + data.x2**2))
    with pytest.warns(cr.DesignWarning, match="k is 2 in all rows of group '1'"):
        res = fit(cr.IPWRA, steady, "y ~ x1 + k")
    assert_same(res, fit(cr.IPWRA, data, "y ~ x1"), rtol=1e-12)


# --- overlap and convergence -------------------------------------------------------------------------------------


def poor_overlap():
    rng = np.random.default_rng(5)
    x = rng.uniform(-1, 1, 2000)
    x[0] = -1
    d = (rng.random(2000) < 1 / (1 + np.exp(-20 * x))).astype(int)
    d[0] = 1  # treated although its propensity is 1e-8
    return pd.DataFrame({"y": x + 2 * d + rng.normal(size=2000), "d": d, "x1": x})


@pytest.mark.filterwarnings("ignore:the mean of group")
@pytest.mark.filterwarnings("ignore:cross-validation ignores shrinkage")  # squared weights of 1e15
@pytest.mark.parametrize("estimator", WEIGHTED)
def test_fault_44_extreme_weights_are_told_and_never_clipped(estimator):
    extreme = poor_overlap()
    logit = sm.Logit(extreme.d, sm.add_constant(extreme[["x1"]])).fit(disp=0, tol=1e-14, maxiter=200)
    largest = 1 + np.exp(-(logit.params.iloc[0] - logit.params.iloc[1]))
    assert largest > 1e6
    told = rf"1 row .*'1'.*1e6 \(largest {re.escape(f'{largest:.3g}')}\)"
    options = {"n_replicates": 60} if estimator is cr.JRE else {}
    with pytest.warns(cr.OverlapWarning, match=told):
        res = build(estimator, extreme, "y ~ x1").fit(cov_type="robust", **options)
    assert res.importance_weights.max() == pytest.approx(largest, rel=1e-6)
    assert res.converged and "Poor overlap" in str(res.summary())


TILTS = ["overlap", "matching", "entropy", lambda e: e**2 * (1 - e)]


@pytest.mark.parametrize("x1", [-1000.0, 15.0])
@pytest.mark.parametrize(
    ("link", "target"), [*(("logit", t) for t in TILTS), ("probit", TILTS[0]), ("cloglog", TILTS[3])]
)
def test_a_row_that_is_sure_of_its_arm_counts_as_nobody(data, link, target, x1):
    """A tilt of zero, a score of zero: estimate and standard error are those of the other rows, to every digit."""
    outlier = data.iloc[:1].assign(x1=x1, d=int(x1 > 0))
    drawn = data.assign(d=(np.random.default_rng(1).random(N) < 1 / (1 + np.exp(-3 * data.x1))).astype(int))
    options = {"treat": "d", "target": target, "propensity_link": link}
    plain, other = (
        cr.IPWRA.from_formula("y ~ x1", frame, **options).fit()
        for frame in (drawn, pd.concat([drawn, outlier], ignore_index=True))
    )
    np.testing.assert_allclose(other.params, plain.params, rtol=1e-9)
    np.testing.assert_allclose(other.bse, plain.bse, rtol=1e-7)


@pytest.mark.filterwarnings("ignore::causalrisk.OverlapWarning")
@pytest.mark.parametrize("target", ["all", "control"])
def test_a_treated_row_that_is_sure_under_cloglog_weighs_as_under_any_link(data, target):
    """Its weight is 1 to the last digit, or nothing, whatever the link: standard errors by the logit, nearly."""
    drawn = data.assign(d=(np.random.default_rng(1).random(N) < 1 / (1 + np.exp(-data.x1))).astype(int))
    frame = pd.concat([drawn, data.iloc[:1].assign(x1=40.0, d=1)], ignore_index=True)
    logit, cloglog = (
        cr.IPWRA.from_formula("y ~ x1", frame, treat="d", target=target, propensity_link=link).fit().bse
        for link in ("logit", "cloglog")
    )
    np.testing.assert_allclose(cloglog, logit, rtol=0.1)


def confounded(data):
    rng = np.random.default_rng(1)
    return data.assign(d=(rng.random(N) < 1 / (1 + np.exp(-2.5 * data.x1))).astype(int))


@pytest.mark.filterwarnings("ignore::causalrisk.OverlapWarning")
@BOTH
def test_fault_45_propensity_fit_stopped_early(data, estimator, monkeypatch):
    hard, options = confounded(data), {"n_boot": 20, "n_replicates": 300} if estimator is cr.JRE else {}
    full = build(estimator, hard, FORMULA).fit(**options)
    assert full.converged and re.search(r"Converged: +yes", str(full.summary()))
    monkeypatch.setattr(causalrisk.estimation.engine, "MAX_ITERATIONS", 6)
    with pytest.warns(cr.ConvergenceWarning, match=r"propensity model \(logit\).*still changed[^$]*res.conv"):
        res = build(estimator, hard, FORMULA).fit(**options)
    assert res.converged is False
    text = str(res.summary())
    assert re.search(r"Converged: +NO", text) and "stopped before it converged" in text
    if estimator is cr.JRE:
        assert res.start.converged is False


@pytest.mark.parametrize("estimator", [cr.IPWRA, cr.AIPW])
def test_an_outcome_model_that_does_not_settle_is_said_in_the_results_too(data, estimator):
    model = estimator.from_formula("y ~ x1", data.assign(y=data.y - 5), treat="d", family="gaussian", link="log")
    with pytest.warns(cr.ConvergenceWarning, match=r"outcome model [^$]*res.converged` is False"):
        res = model.fit()
    assert res.converged is False
    assert re.search(r"Converged: +NO", str(res.summary()))


# --- the joint objective -----------------------------------------------------------------------------------------

ONES = np.ones((N, 5))


def test_fault_68_replicates_without_spread_give_ipwra(data):
    res = build(cr.JRE, data, FORMULA).fit(objective="erm", replicates=ONES, cov_type="robust")
    ipwra = fit(cr.IPWRA, data, FORMULA)
    np.testing.assert_allclose(res.params, ipwra.params, rtol=1e-12)
    np.testing.assert_allclose(res.bse, ipwra.bse, rtol=1e-8)


def test_fault_68_replicates_without_spread_give_ipwra_in_every_resample(data):
    res = build(cr.JRE, data, FORMULA).fit(objective="erm", replicates=ONES, n_boot=20)
    ipwra = build(cr.IPWRA, data, FORMULA).fit(cov_type="bootstrap", n_boot=20)
    np.testing.assert_allclose(res.boot_params, ipwra.boot_params, rtol=1e-10)
    assert res.boot_params.ATE.std() > 0.01


def test_fault_68_a_single_replicate(data):
    model = build(cr.JRE, data, FORMULA)
    res = model.fit(n_replicates=1, n_boot=20)
    assert np.isfinite(res.bse).all() and len(res.replicate_bias) == 1


@pytest.mark.parametrize(
    ("replicates", "words"),
    [
        (ONES[:200], [f"replicates has shape (200, 5); expected an array of shape ({N}, m)"]),
        (ONES.T, [f"has shape (5, {N}); expected", "replicates.T"]),
        (-ONES, [f"replicates has {ONES.size} negative or non-finite entries; expected values >= 0"]),
        (ONES * np.nan, [f"replicates has {ONES.size} negative or non-finite entries"]),
        (np.ones(N), [f"has shape ({N},); expected"]),
        ("many", ["replicates is not an array of numbers; expected"]),
    ],
)
def test_fault_68_replicates_that_are_no_multiplicities(data, replicates, words):
    with raises_with(cr.OptionError, "replicates", *words):
        build(cr.JRE, data).fit(replicates=replicates)


def test_fault_68_replicates_that_cannot_be_fitted(data):
    with raises_with(
        cr.CausalRiskError, "5 of 5 propensity replicates failed", "more than half", "a group had no rows"
    ):
        build(cr.JRE, data).fit(replicates=0 * ONES)
    some = ONES.copy()
    some[data.d == 1, 0] = 0
    some[3:, 1] = 0  # three rows for three coefficients
    with pytest.warns(cr.ResampleWarning, match=r"leaves out 2 of 5 propensity replicates"):
        res = build(cr.JRE, data, FORMULA).fit(replicates=some, objective="erm", cov_type="robust")
    assert list(res.replicate_ledger.used) == [False, False, True, True, True]
    assert res.replicate_ledger.reason.iloc[0] == "a group had no rows"
    np.testing.assert_allclose(res.params, fit(cr.IPWRA, data, FORMULA).params, rtol=1e-12)
