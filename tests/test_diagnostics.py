"""Overlap, cancellation, paths, influence, parts of the variance and calibration, each recomputed by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

import causalrisk as cr
from causalrisk.diagnostics.overlap import crump_limits
from causalrisk.resampling import make_resampling, replicate_multiplicities
from tests.conftest import LALONDE_RHS, RHS, simulate

pytestmark = pytest.mark.filterwarnings("ignore::causalrisk.errors.MonteCarloWarning")
SEPARATE = [cr.OutcomeRegression, cr.Hajek, cr.IPWRA, cr.AIPW]


def model(frame, kind=cr.IPWRA, **options):
    return kind.from_formula(f"y ~ {RHS}", frame, treat="d", **options)


@pytest.fixture(scope="module")
def frame():
    return simulate(300, seed=3)


@pytest.fixture(scope="module")
def joint(frame):
    return model(frame, cr.JRE).fit(objective="mse", cov_type="robust", n_replicates=60)


@pytest.fixture(scope="module")
def lalonde_model(lalonde):
    return lambda kind: kind.from_formula(f"re78 ~ {LALONDE_RHS}", lalonde, treat="treat")


def test_overlap_by_hand(frame):
    res = model(frame).fit()
    table, scores, w = res.overlap(), res.propensity_scores, res.importance_weights
    low, high = scores.groupby(frame.d).min().max(), scores.groupby(frame.d).max().min()
    crump = crump_limits(scores.to_numpy(), np.ones(len(frame)))
    for arm, label in enumerate(table.index):
        rows = frame.d == arm
        weights = w[rows].sort_values(ascending=False)
        top = int(np.ceil(0.01 * rows.sum()))
        outside = ((scores < low) | (scores > high))[rows].sum()
        by_hand = {
            "n": rows.sum(),
            "effective n": weights.sum() ** 2 / (weights**2).sum(),
            "largest weight": weights.iloc[0],
            "largest share": weights.iloc[0] / weights.sum(),
            "top 1% share": weights.iloc[:top].sum() / weights.sum(),
            "score 0%": scores[rows].min(),
            "score 25%": scores[rows].quantile(0.25),
            "outside support": outside,
            "crump low": crump[0],
            "outside crump": (~scores.between(*crump))[rows].sum(),
        }
        np.testing.assert_allclose(table.loc[label, list(by_hand)].astype(float), list(by_hand.values()))
    unit = res.overlap(by="unit")
    assert unit.index.equals(frame.index)
    assert ((~unit["in support"]).groupby(unit["arm"]).sum() == table["outside support"]).all()
    np.testing.assert_allclose(1 / unit["score"], w)


def test_crump_limits_meet_their_definition():
    e = np.random.default_rng(0).beta(0.4, 0.6, 2000)
    low, high = crump_limits(e, np.ones(2000))
    spread = 1 / (e * (1 - e))

    def variance(alpha):  # of the effect among the scores kept, which the limits minimise
        kept = (e >= alpha) & (e <= 1 - alpha)
        return spread[kept].mean() / kept.mean()

    grid = np.linspace(0.001, 0.4, 4000)
    assert variance(low) <= min(map(variance, grid)) * (1 + 1e-9)
    assert abs(low + high - 1) < 1e-12 and 0.02 < low < 0.2
    bound = 1 / (low * (1 - low))
    np.testing.assert_allclose(bound, 2 * spread[spread <= bound].mean())


def test_risk_table_by_hand(frame):
    rng = np.random.default_rng(1)
    drawn = rng.multinomial(300, np.full(300, 1 / 300), size=8).T
    res = model(frame, cr.JRE).fit(cov_type="robust", replicates=drawn)
    X = sm.add_constant(frame[["x1", "x2", "x3"]]).to_numpy()
    d, y = frame.d.to_numpy(), frame.y.to_numpy()
    logits = [sm.GLM(d, X, sm.families.Binomial(), freq_weights=c).fit().fittedvalues for c in [np.ones(300), *drawn.T]]
    weights = [np.where(d == 1, 1 / e, 1 / (1 - e)) for e in logits]
    both = np.stack([d == 0, d == 1])

    def fitted(w):
        return sum(sm.WLS(y[m], X[m], w[m]).fit().predict(X) * m for m in both)

    table = res.risk_table()
    for name, m in {"OutcomeRegression": fitted(np.ones(300)), "IPWRA": fitted(weights[0])}.items():
        bias = np.stack([both @ (w * (m - y)) / 300 for w in weights[1:]], axis=1)
        net = bias[1] - bias[0]
        row = [*bias.mean(axis=1), net.mean(), (net**2).mean() ** 0.5, (net**2).mean(), net.mean() ** 2, net.var()]
        np.testing.assert_allclose(table.loc[name].iloc[:7], row, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(table.loc[name, "correlation"], np.corrcoef(bias)[0, 1])
        if name == "OutcomeRegression":
            left = bias - (both @ (weights[0] * (m - y)) / 300)[:, None]
            np.testing.assert_allclose(table.loc["AIPW"].iloc[:2], left.mean(axis=1), rtol=1e-6, atol=1e-9)
    own = res.replicate_bias
    np.testing.assert_allclose(table.loc["JRE", "risk"], res.expected_ate_risk)
    np.testing.assert_allclose(table.loc["JRE"].iloc[:3], own.mean(), atol=1e-10)
    np.testing.assert_allclose(table["squared mean"] + table["variance"], table["risk"])


def test_risk_table_of_another_estimator_draws_what_jre_would(frame):
    own = model(frame, cr.JRE).fit(cov_type="robust").risk_table()
    np.testing.assert_allclose(model(frame, cr.AIPW).fit().risk_table(), own, rtol=1e-6, atol=1e-9)


def test_risk_table_with_known_scores_has_one_replicate(frame):
    score = np.clip(1 / (1 + np.exp(-frame.x1)), 0.1, 0.9)
    table = model(frame, propensity_score=score).fit().risk_table()
    np.testing.assert_allclose(table["variance"], 0, atol=1e-12)
    assert table["correlation"].isna().all()


def test_penalty_path_is_refitting(frame, joint):
    path = joint.penalty_path([30.0, 3000.0, 90000.0])
    for penalty, row in path.iterrows():
        again = model(frame, cr.JRE).fit(objective="mse", cov_type="robust", n_replicates=60, penalty=penalty)
        np.testing.assert_allclose(row["effect"], again.effect, rtol=1e-8)
        np.testing.assert_allclose(row["std err"], again.effect_se, rtol=1e-8)
        np.testing.assert_allclose(row["risk"], again.expected_ate_risk, rtol=1e-6)
    default = joint.penalty_path()
    assert joint.effect in default["effect"].to_numpy()
    assert default["risk"].is_monotonic_decreasing
    with pytest.raises(cr.CausalRiskError, match="JRE"):
        joint.start.penalty_path()


def test_fit_loss_of_the_path_by_hand(frame):
    once = np.ones((300, 1))  # one replicate, equal to the fit
    res = model(frame, cr.JRE).fit(cov_type="robust", replicates=once)
    theta, X = res.outcome_params, sm.add_constant(frame[["x1", "x2", "x3"]]).to_numpy()
    own = np.where(frame.d == 1, X @ theta["1"], X @ theta["0"])
    loss = (res.importance_weights * (frame.y - own) ** 2 / 2).mean()
    path = res.penalty_path([res._record.joint.criterion.penalty])
    np.testing.assert_allclose(path["fit loss"], loss)


@pytest.mark.parametrize("kind", SEPARATE)
def test_influence_is_leaving_rows_out(lalonde, lalonde_model, kind):
    fit = lalonde_model(kind)
    res = fit.fit()
    table = res.influence()
    assert table.index.equals(lalonde.index)
    rows = [*res.influence(top=10).index, *lalonde.index[::40]]
    left_out = []
    for row in rows:
        rest = kind.from_formula(f"re78 ~ {LALONDE_RHS}", lalonde.drop(index=row), treat="treat").fit()
        left_out.append(rest.effect - res.effect)
    np.testing.assert_allclose(table.loc[rows, "change"], left_out, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(table["in std errors"], table["change"] / res.effect_se)
    np.testing.assert_allclose(table.groupby("arm")["weight share"].sum(), 1)


@pytest.mark.filterwarnings("ignore::causalrisk.errors.ResampleWarning")
def test_influence_of_jre_against_dropping_the_row(lalonde, lalonde_model):
    """Every row really left out; the others are in each replicate as often as before."""
    drawn = np.random.default_rng(0).multinomial(614, np.full(614, 1 / 614), size=60).T
    res = lalonde_model(cr.JRE).fit(objective="mse", cov_type="robust", replicates=drawn)
    kept = res._record.joint.criterion.penalty
    left_out = []
    for row in lalonde.index:
        others = lalonde.index != row
        rest = cr.JRE.from_formula(f"re78 ~ {LALONDE_RHS}", lalonde[others], treat="treat")
        again = rest.fit(objective="mse", cov_type="robust", replicates=drawn[others], penalty=kept)
        left_out.append(again.effect - res.effect)
    np.testing.assert_allclose(res.influence()["change"], left_out, atol=1e-6 * np.abs(left_out).max())
    top = lalonde.index[np.argsort(-np.abs(left_out), kind="stable")[:10]]
    assert list(res.influence(top=10).index) == list(top)
    quick = res.influence(method="shifted")["change"]
    assert np.corrcoef(quick, left_out)[0, 1] < 0.999  # why the default is exact


@pytest.mark.filterwarnings("ignore::causalrisk.errors.ResampleWarning")
@pytest.mark.parametrize(
    ("kind", "objective", "method"),
    [(cr.IPWRA, {}, "exact"), (cr.JRE, {}, "exact"), (cr.JRE, {"objective": "mse"}, "shifted")],
)
def test_influence_is_the_jackknife_on_lalonde(lalonde, lalonde_model, kind, objective, method):
    res = lalonde_model(kind).fit(resamples=1 - np.eye(614), **objective)
    change = res.boot_params["ATE"].to_numpy() - res.effect
    table = res.influence(method=method)
    assert np.corrcoef(change, table["change"])[0, 1] > 0.999999
    plain = res.influence(method="influence")["change"]
    assert np.corrcoef(change, plain)[0, 1] < 0.98


@pytest.mark.parametrize("options", [{}, {"cluster": "g"}, {"target": "overlap"}, {"propensity_link": "probit"}])
def test_influence_draws_the_replicates_of_the_seed_again(frame, options):
    data = frame.assign(g=np.arange(300) % 30)
    res = model(data, cr.JRE, **options).fit(objective="mse", cov_type=None, n_boot=2, n_replicates=40, rng=3)
    record = res._record
    resampling = make_resampling(record.design, record.sample, record.bootstrap, record.seed)
    drawn = record.sample.restore(replicate_multiplicities(resampling, 40))
    given = model(data, cr.JRE, **options).fit(objective="mse", cov_type=None, n_boot=2, replicates=drawn)
    assert given.effect == res.effect
    np.testing.assert_allclose(given.influence()["change"], res.influence()["change"], rtol=1e-9)


def test_nested_replicates_are_not_drawn_anew_for_each_row(frame):
    fits = [
        model(frame, cr.JRE).fit(objective="mse", n_boot=2, n_replicates=40, bootstrap_replicates=kind)
        for kind in ("shifted", "nested")
    ]
    one, other = (res.influence(method="shifted")["change"] for res in fits)
    np.testing.assert_allclose(other, one, rtol=1e-6, atol=1e-9)


def test_influence_function_for_large_samples(cattaneo):
    res = cr.AIPW.from_formula("bweight ~ mage + medu", cattaneo, treat="mbsmoke").fit()
    exact, approximate = res.influence(), res.influence(method="influence")
    assert np.corrcoef(exact["change"], approximate["change"])[0, 1] > 0.999
    psi = res.estimating_equations()["ATE"]
    np.testing.assert_allclose(approximate["change"], -psi / (len(psi) - 1))
    with pytest.raises(cr.CausalRiskError, match="method"):
        res.influence(method="jackknife")


def test_influence_of_rows_within_clusters(frame):
    clustered = model(frame.assign(g=np.arange(300) % 30), cluster="g").fit()
    pd.testing.assert_series_equal(clustered.influence()["change"], model(frame).fit().influence()["change"])


@pytest.mark.parametrize("kind", [*SEPARATE, cr.JRE])
@pytest.mark.parametrize("target", ["all", "treated", "overlap"])
def test_parts_of_the_variance_add_up(frame, kind, target):
    options = {"n_replicates": 40} if kind is cr.JRE else {}
    res = model(frame, kind, target=target, effect="difference").fit(cov_type="robust", **options)
    table = res.se_decomposition()
    np.testing.assert_allclose(table.loc["total", "variance"], res.effect_se**2, rtol=1e-9)
    np.testing.assert_allclose(table["variance"].iloc[:-1].sum(), table.loc["total", "variance"])
    np.testing.assert_allclose(table["share"].iloc[:-1].sum(), 1)
    uses_scores = kind is not cr.OutcomeRegression or target == "overlap"
    assert (table.loc["propensity score", "variance"] > 0) == uses_scores


def test_parts_of_the_variance_by_hand(frame):
    X = sm.add_constant(frame[["x1", "x2", "x3"]]).to_numpy()
    score = 1 / (1 + np.exp(-0.5 * frame.x1))
    res = model(frame, cr.AIPW, propensity_score=score).fit()
    table = res.se_decomposition()
    outcomes = res.potential_outcomes
    gap = outcomes["1"] - outcomes["0"]
    np.testing.assert_allclose(table.loc["sampling of X", "variance"], gap.var(ddof=0) / 300)
    assert table.loc["propensity score", "variance"] == 0
    known = model(frame, cr.OutcomeRegression).fit().se_decomposition().loc["outcome model", "variance"]
    parts = []
    for arm in (0, 1):
        rows = (frame.d == arm).to_numpy()
        ols = sm.OLS(frame.y[rows], X[rows]).fit(cov_type="HC0")
        parts.append(X.mean(axis=0) @ ols.cov_params() @ X.mean(axis=0))
    np.testing.assert_allclose(known, sum(parts))


def test_parts_of_the_variance_towards_another_frame(frame):
    other = simulate(500, seed=9)[["x1", "x2", "x3"]] * 0.8
    res = model(frame, target=other).fit()
    np.testing.assert_allclose(res.se_decomposition().loc["total", "std err"], res.effect_se)


@pytest.mark.parametrize("kind", [cr.IPWRA, cr.JRE])
def test_trim_curve_is_refitting(frame, kind):
    base = model(frame, kind)
    options = {"cov_type": "robust", "n_replicates": 40} if kind is cr.JRE else {}
    res = base.fit(**options)
    curve = res.trim_curve([0, 0.1, (0.2, 0.7), "crump", 0.499])
    assert list(curve["estimand"]) == ["ATE"] + ["trimmed ATE"] * 4
    assert curve["effect"].iloc[0] == res.effect and curve["n"].iloc[0] == 300
    for position, trim in ((1, (0.1, 0.9)), (2, (0.2, 0.7)), (3, "crump")):
        again = base.with_options(trim=trim).fit(**options)
        row = curve.iloc[position]
        np.testing.assert_allclose(
            row[["n", "effect", "std err"]].astype(float), [again.nobs, again.effect, again.effect_se]
        )
    assert np.isnan(curve["effect"].iloc[4]) and "trim" in curve["note"].iloc[4]


def test_trim_curve_starts_from_all_rows(frame):
    trimmed = model(frame, trim=(0.2, 0.8)).fit()
    assert trimmed.trim_curve([0]).iloc[0]["effect"] == model(frame).fit().effect


def test_calibration_by_hand(frame):
    res = model(frame).fit()
    table = res.calibration(bins=6)
    order = res.propensity_scores.sort_values(kind="stable")
    groups = np.arange(300) // 50
    np.testing.assert_allclose(table["predicted"], order.groupby(groups).mean())
    observed = frame.d[order.index].groupby(groups).mean()
    np.testing.assert_allclose(table["observed"], observed)
    np.testing.assert_allclose(table["std err"], np.sqrt(observed * (1 - observed) / 50))
    gap = table["predicted"] - table["observed"]
    np.testing.assert_allclose(res.calibration_error(bins=6)["1"], np.sqrt((gap**2).mean()))


def test_frequency_weights_are_repeated_rows(frame):
    counts = np.random.default_rng(0).integers(1, 5, 300)
    repeated = model(frame.loc[frame.index.repeat(counts)].reset_index(drop=True)).fit()
    weighted = model(frame.assign(times=counts), weights="times", weight_type="frequency").fit()
    for table in ("balance", "overlap", "calibration", "sensitivity", "sensitivity_bounds", "se_decomposition"):
        one, other = (getattr(res, table)().select_dtypes("number") for res in (weighted, repeated))
        np.testing.assert_allclose(one.astype(float), other.astype(float), rtol=1e-6, atol=1e-8, err_msg=table)
    pd.testing.assert_series_equal(weighted.calibration_error(), repeated.calibration_error())
    np.testing.assert_allclose(weighted.balance_test().statistic, repeated.balance_test().statistic, rtol=1e-4)
    first = np.r_[0, np.cumsum(counts)[:-1]]
    once = counts == 1
    change = repeated.influence()["change"].to_numpy()[first]
    np.testing.assert_allclose(weighted.influence()["change"][once], change[once], atol=1e-9)
