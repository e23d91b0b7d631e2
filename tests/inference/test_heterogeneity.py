"""Effects in groups, projections, pairs of arms."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import statsmodels.formula.api as smf

import causalrisk as cr
from causalrisk.inference.heterogeneity import project_effects
from tests.conftest import RHS, simulate
from tests.end_to_end.test_faults import raises_with

OPTIONS = {
    "gaussian": {},
    "binomial": {"family": "binomial", "propensity_link": "probit", "target": "treated", "effect": "odds_ratio"},
    "poisson": {"family": "poisson", "target": "overlap", "effect": "ratio"},
    "three arms": {"treat": "arm", "reference": "a", "target": "overlap"},
}


@pytest.mark.parametrize(
    ("model", "options", "groups"),
    [
        *((cr.AIPW, name, True) for name in OPTIONS),
        (cr.OutcomeRegression, "poisson", True),
        (cr.IPW, "binomial", True),
        (cr.IPW, "gaussian", False),
        (cr.IPWRA, "three arms", False),
    ],
)
def test_influence_of_projections_is_the_derivative_by_the_weights(model, options, groups):
    """In groups also of other cases: tests.differential."""
    options = OPTIONS[options]
    rng, n = np.random.default_rng(0), 300
    frame = simulate(n).assign(arm=lambda f: np.where(f.x1 + rng.normal(size=n) > 1, "c", np.where(f.d, "b", "a")))
    frame["y"] = {"binomial": (frame.y > 1) * 1, "poisson": rng.poisson(np.exp(frame.y / 4))}.get(
        options.get("family"), frame.y
    )
    side = frame.x1.to_numpy() > 0
    columns = np.column_stack([side, ~side] if groups else [np.ones(n), frame.x1]).astype(float)

    def projected(weights):
        given = {"treat": "d", "weights": weights, "weight_type": "probability"} | options
        record = model.from_formula("y ~ x1 + x2", frame, **given).fit()._record
        values, influence = project_effects(record, record.sample.arrange(columns))
        return values, record.sample.restore(influence)

    influence = projected(np.ones(n))[1]
    for row in range(7, n, 150):
        bump = 1e-4 * (np.arange(n) == row)
        up, down = (projected(1 + sign * bump)[0] for sign in (1, -1))
        numeric = (up - down) / 2e-4 * n
        assert np.abs(numeric - influence[row]).max() < 1e-6 * np.abs(influence).max()


def grouped(n=400):
    frame = simulate(n)
    return frame.assign(g=np.where(frame.x1 > 0, "high", "low"), half=(frame.x2 > 0).astype(float))


@pytest.mark.parametrize("target", ["treated", "overlap"])
@pytest.mark.parametrize("model", [cr.IPWRA, cr.AIPW])
def test_group_effects_average_to_the_effect_by_their_part_in_the_target(model, target):
    frame = grouped()
    res = model.from_formula("y ~ x2 + x3", frame, treat="d", target=target, propensity=RHS).fit()
    tilt = {"treated": frame.d, "overlap": res.propensity_scores * (1 - res.propensity_scores)}[target]
    by, sizes = res.effects_by("g", frame), tilt.groupby(frame.g).sum()
    assert np.average(by.estimate, weights=sizes) == pytest.approx(res.effect, rel=1e-10)


@pytest.mark.parametrize("target", ["treated", "control"])
def test_groups_count_the_rows_of_the_target(target):
    """Weighted by n, effects of groups in the outcome formula average to the effect of OutcomeRegression."""
    frame = simulate(300).assign(side=lambda f: np.where(f.x1 > 0, "right", "left"), w=1 + np.arange(300) % 3)
    options = {"treat": "d", "target": target, "weights": "w", "weight_type": "frequency"}
    res = cr.OutcomeRegression.from_formula("y ~ x2 + side", frame, **options).fit()
    found = res.effects_by("side")
    inside = frame[frame.d == (target == "treated")]
    pd.testing.assert_series_equal(found["n"], inside.groupby("side")["w"].sum(), check_names=False)
    assert np.average(found["estimate"], weights=found["n"]) == pytest.approx(res.effect, rel=1e-10)


@pytest.mark.parametrize("model", [cr.OutcomeRegression, cr.IPWRA, cr.AIPW])
def test_group_effects_average_to_the_effect(model):
    frame = grouped()
    formula = f"y ~ {RHS}" + " + C(g)" * (model is cr.OutcomeRegression)
    res = model.from_formula(formula, frame, treat="d", propensity=RHS).fit()
    by = res.effects_by("g", frame)
    assert by.index.tolist() == ["high", "low"] and by.index.name == "g"
    assert by.n.sum() == 400
    assert np.average(by.estimate, weights=by.n) == pytest.approx(res.effect, rel=1e-10)
    one = res.effects_by(np.zeros(400))
    assert one.estimate.iloc[0] == pytest.approx(res.effect, rel=1e-10)
    assert one["std err"].iloc[0] == pytest.approx(res.effect_se, rel=1e-9)


def pseudo_outcomes(res, frame):
    """Difference of the outcome models of a fit, plus the weighted residuals."""
    fitted = res._record.sample.restore(res._record.estimate.predicted.T)
    w, sign = res.importance_weights, np.where(frame.d == 1, 1, -1)
    own = np.where(frame.d == 1, fitted[:, 1], fitted[:, 0])
    return fitted[:, 1] - fitted[:, 0] + sign * w * (frame.y - own)


@pytest.mark.parametrize("model", [cr.IPWRA, cr.AIPW, cr.JRE])
@pytest.mark.parametrize("family", ["gaussian", "binomial"])
def test_group_effects_by_hand(model, family):
    frame = grouped().assign(y=lambda f: f.y if family == "gaussian" else (f.y > 1).astype(int))
    options = {"cov_type": "robust", "n_replicates": 20, "join_score": False} if model is cr.JRE else {}
    res = model.from_formula("y ~ x2 + x3", frame, treat="d", family=family, propensity=RHS).fit(**options)
    pseudo = pseudo_outcomes(res, frame)
    by = res.effects_by("g", frame)
    np.testing.assert_allclose(by.estimate, pseudo.groupby(frame.g).mean(), rtol=1e-10)
    line = res.effects_by("~ x1 + half", frame)
    expected = smf.ols("pseudo ~ x1 + half", frame.assign(pseudo=pseudo)).fit(cov_type="HC0")
    np.testing.assert_allclose(line.estimate, expected.params, rtol=1e-9)
    assert line.index.tolist() == ["Intercept", "x1", "half"]
    curve = res.effects_by("~ np.exp(x1)", frame), res.effects_by("~ e", frame.assign(e=np.exp(frame.x1)))
    np.testing.assert_allclose(*curve, rtol=1e-12)


@pytest.mark.parametrize("family", ["gaussian", "binomial", "poisson"])
def test_groups_in_the_outcome_formula_of_ipwra_have_the_differences_of_its_models(family):
    """Its weighted residuals add up to zero in each group and arm."""
    frame = grouped()
    frame["y"] = {"gaussian": frame.y, "binomial": (frame.y > 1).astype(int), "poisson": np.exp(frame.y / 3)}[family]
    res = cr.IPWRA.from_formula("y ~ x2 + C(g)", frame, treat="d", family=family, propensity=RHS).fit()
    fitted = res.potential_outcomes
    own = fitted["1"].where(frame.d == 1, fitted["0"])
    sums = (res.importance_weights * (frame.y - own)).groupby([frame.g, frame.d]).sum()
    np.testing.assert_allclose(sums, 0, atol=1e-8)
    expected = (fitted["1"] - fitted["0"]).groupby(frame.g).mean()
    np.testing.assert_allclose(res.effects_by("g").estimate, expected, rtol=1e-9)


@pytest.mark.parametrize("target", ["all", "treated"])
@pytest.mark.parametrize("model", [cr.IPW, cr.IPWRA, cr.AIPW, cr.JRE])
def test_groups_that_are_in_no_outcome_formula_have_their_effects(model, target):
    """The score is right; the true effects are 0 and 2, whatever the target."""
    rng, n = np.random.default_rng(1), 4000
    x, g = rng.normal(size=n), rng.integers(0, 2, n)
    d = (rng.random(n) < 1 / (1 + np.exp(-x))).astype(int)
    frame = pd.DataFrame({"x": x, "g": g, "d": d, "y": x + 2 * g * d + rng.normal(size=n)})
    options = {"cov_type": "robust"} if model is cr.JRE else {}
    res = model.from_formula("y ~ x", frame, treat="d", propensity="x", target=target).fit(**options)
    by = res.effects_by("g", frame)
    assert (np.abs(by.estimate - [0, 2]) < 3 * by["std err"]).all() and (by["std err"] < 0.15).all()
    assert float(res.equality_test("g", frame).pvalue) < 1e-20


@pytest.mark.parametrize("cov_type", ["robust", "bootstrap"])
def test_standard_errors_of_groups_of_jre_are_those_of_leaving_rows_out(cov_type):
    """The jackknife by hand: refits without each row, and the mean of their contributions in each group."""
    frame = grouped(150)
    model = cr.JRE.from_formula("y ~ x2", frame, treat="d", propensity="x1 + x2")
    options = {"n_replicates": 40, "shrinkage": 3.0}
    left_out = model.fit(cov_type="jackknife", **options).effects_by("g", frame)
    res = model.fit(cov_type=cov_type, **options | ({"n_boot": 400} if cov_type == "bootstrap" else {}))
    by = res.effects_by("g", frame)
    np.testing.assert_allclose(by.estimate, left_out.estimate, rtol=1e-12)
    np.testing.assert_allclose(by["std err"], left_out["std err"], rtol=0.15)


def test_outcome_regression_warns_of_groups_that_it_does_not_see():
    frame = grouped()
    res = cr.OutcomeRegression.from_formula("y ~ x1 + x2", frame, treat="d").fit()
    for method in (res.effects_by, res.differences_by, res.equality_test):
        with pytest.warns(cr.DesignWarning, match=r"(?s)outcome formula, which does not contain 'g'.*`\+ C\(g\)`"):
            method("g", frame)
    with pytest.warns(cr.DesignWarning, match=r"\+ x3 \+ half"):
        res.effects_by("~ x1 + x3 + half", frame)
    inside = cr.OutcomeRegression.from_formula("y ~ x1 * x2 + C(g)", frame, treat="d").fit()
    inside.effects_by("g"), inside.effects_by(frame.g.to_numpy()), inside.effects_by("~ x1"), inside.equality_test("g")


def test_hajek_in_groups_is_weighted_means_in_each():
    frame = grouped()
    res = cr.IPW.from_formula("y ~ 1", frame, treat="d", propensity=RHS).fit()
    weighted = frame.assign(w=res.importance_weights, wy=res.importance_weights * frame.y).groupby(["g", "d"])
    means = (weighted.wy.sum() / weighted.w.sum()).unstack()
    np.testing.assert_allclose(res.effects_by("g", frame).estimate, means[1] - means[0], rtol=1e-10)
    line = res.effects_by("~ x1")
    slopes = [
        sm.WLS(
            frame.y[frame.d == d], sm.add_constant(frame.x1[frame.d == d]), res.importance_weights[frame.d == d]
        ).fit()
        for d in (0, 1)
    ]
    np.testing.assert_allclose(line.estimate, slopes[1].params - slopes[0].params, rtol=1e-9)


def test_group_ratio_of_raw_means():
    frame = grouped().assign(y=lambda f: f.y - f.y.min() + 1)
    res = cr.IPW.from_formula("y ~ 1", frame, treat="d", effect="ratio", propensity_score=np.full(400, 0.5)).fit()
    means = frame.groupby(["g", "d"]).y.mean().unstack()
    np.testing.assert_allclose(res.effects_by("g", frame).estimate, means[1] / means[0], rtol=1e-10)
    by = cr.OutcomeRegression.from_formula("y ~ C(g)", frame, treat="d", effect="ratio").fit().effects_by("g")
    np.testing.assert_allclose(by.estimate, means[1] / means[0], rtol=1e-10)


def test_effects_by_clusters_weights_and_several_arms():
    frame = grouped().assign(c=np.arange(400) // 4, w=np.random.default_rng(0).uniform(0.5, 2, 400))
    model = {"weights": "w", "weight_type": "probability", "cluster": "c"}
    res = cr.AIPW.from_formula(f"y ~ {RHS}", frame, treat="d", **model).fit()
    whole = res.effects_by(np.ones(400))
    assert whole["std err"].iloc[0] == pytest.approx(res.effect_se, rel=1e-9)
    arms = frame.assign(d=np.random.default_rng(1).choice(["a", "b", "c"], 400))
    three = cr.IPWRA.from_formula(f"y ~ {RHS}", arms, treat="d", reference="a").fit()
    by = three.effects_by("g", arms)
    assert by.index.names == ["effect", "g"] and len(by) == 4
    averages = [np.average(by.loc[f"ATE[{arm}]"].estimate, weights=by.loc[f"ATE[{arm}]"].n) for arm in "bc"]
    np.testing.assert_allclose(averages, three.params.iloc[:2], rtol=1e-9)


def test_rows_that_were_dropped_have_no_group():
    frame = grouped()
    frame.loc[:9, "x1"] = np.nan
    res = cr.IPWRA.from_formula(f"y ~ {RHS}", frame, treat="d").fit()
    assert res.effects_by("g", frame).n.sum() == 390
    assert res.effects_by(frame.g).n.sum() == 390


def test_what_effects_by_refuses():
    frame = grouped()
    res = cr.IPWRA.from_formula(f"y ~ {RHS}", frame, treat="d").fit()
    for by, data in (("G", frame), ("g", None), ("x1", None), ("g", frame.head(10))):
        with pytest.raises(cr.DesignError):
            res.effects_by(by, data)
    with raises_with(cr.DesignError, "missing in 5 rows"):
        res.effects_by(frame.g.where(frame.index >= 5))
    over = cr.IPWRA.from_formula(f"y ~ {RHS}", frame, treat="d", target=frame.head(50)).fit()
    with raises_with(cr.UnavailableError, "data frame"):
        over.effects_by("g", frame)
    for by in ("d", "~ x1 + y"):
        with raises_with(cr.OptionError, "is the treatment or the outcome"):
            res.effects_by(by, frame)
    ratio = cr.IPWRA.from_formula(f"y ~ {RHS}", frame.assign(y=frame.y + 20), treat="d", effect="ratio").fit()
    with raises_with(cr.OptionError, 'effect="ratio"', 'effect="difference"'):
        ratio.effects_by("~ x1")


@pytest.mark.parametrize("family", ["gaussian", "binomial"])
def test_one_group_of_everybody_is_the_joint_fit_itself(family):
    frame = grouped().assign(y=lambda f: f.y if family == "gaussian" else (f.y > 1).astype(int))
    model = cr.JRE.from_formula(f"y ~ {RHS}", frame, treat="d", family=family)
    jre = model.fit(shrinkage=1, n_boot=60, n_replicates=40)
    whole = jre.effects_by(np.zeros(400))
    assert whole.estimate.iloc[0] == pytest.approx(jre.effect, abs=1e-3 * jre.effect_se)  # its net bias
    assert whole["std err"].iloc[0] == pytest.approx(jre.effect_se, rel=1e-3)


def test_pairs_of_arms_do_not_depend_on_the_reference():
    rng = np.random.default_rng(3)
    frame = simulate(500).assign(arm=rng.choice(["a", "b", "c"], 500))
    models = (cr.JRE.from_formula(f"y ~ {RHS}", frame, treat="arm", reference=arm) for arm in "ab")
    first, other = (model.fit(shrinkage=1, cov_type="robust", n_replicates=60) for model in models)
    pairs = first.pairwise()
    assert pairs.index.tolist() == [("b", "a"), ("c", "a"), ("c", "b")]
    np.testing.assert_allclose(pairs.estimate.iloc[:2], first.params.iloc[:2], rtol=1e-12)
    np.testing.assert_allclose(pairs["std err"].iloc[:2], first.bse.iloc[:2], rtol=1e-9)
    contrast = first.t_test("ATE[c] - ATE[b]")
    assert pairs.estimate.iloc[2] == pytest.approx(contrast.effect[0])
    assert pairs["std err"].iloc[2] == pytest.approx(contrast.sd.item(), rel=1e-8)
    again = other.pairwise()
    assert again.loc[("c", "b"), "estimate"] == pytest.approx(pairs.loc[("c", "b"), "estimate"], rel=1e-8)
    assert again.loc[("c", "b"), "std err"] == pytest.approx(pairs.loc[("c", "b"), "std err"], rel=1e-7)


# --- several grouping variables, and how groups differ -----------------------------------------------------------


def test_two_grouping_variables_are_their_combinations():
    frame = grouped().assign(h=lambda f: pd.Categorical(np.where(f.x3 > 0.5, "b", "a"), ["b", "a"]))
    res = cr.AIPW.from_formula(f"y ~ {RHS}", frame, treat="d").fit()
    both = res.effects_by(["g", "h"], frame)
    assert both.index.names == ["g", "h"]
    assert both.index.tolist() == [("high", "b"), ("high", "a"), ("low", "b"), ("low", "a")]
    joined = res.effects_by(frame.g + frame.h.astype(str))
    for (g, h), row in both.iterrows():
        np.testing.assert_allclose(row, joined.loc[g + h], rtol=1e-12)
    pd.testing.assert_frame_equal(res.effects_by(("g", frame.h), frame), both)
    only = frame.assign(h=np.where(frame.g == "low", "a", frame.h))  # a combination that does not occur is no row
    assert len(res.effects_by(["g", "h"], only)) == 3
    listed = list(frame.g)  # one value per row is no list of names
    np.testing.assert_allclose(res.effects_by(listed).estimate, res.effects_by(frame.g).estimate)
    arms = frame.assign(d=np.random.default_rng(1).choice(["a", "b", "c"], 400))
    three = cr.IPWRA.from_formula(f"y ~ {RHS}", arms, treat="d", reference="a").fit().effects_by(["g", "h"], arms)
    assert three.index.names == ["effect", "g", "h"] and len(three) == 8


def test_differences_of_groups_fitted_by_themselves():
    """With every coefficient of its own in each group, the groups are independent samples."""
    frame = grouped()
    formula = "y ~ C(g) * (x2 + x3)"
    res = cr.OutcomeRegression.from_formula(formula, frame, treat="d").fit()
    alone = [
        cr.OutcomeRegression.from_formula("y ~ x2 + x3", frame[frame.g == g], treat="d").fit() for g in ("high", "low")
    ]
    row = res.differences_by("g").loc[("high", "low")]
    se = np.hypot(*(fit.effect_se for fit in alone))
    assert row.estimate == pytest.approx(alone[0].effect - alone[1].effect, rel=1e-9)
    assert row["std err"] == pytest.approx(se, rel=1e-9)
    assert res.equality_test("g").statistic.item() == pytest.approx(row.z**2, rel=1e-9)
    assert float(res.equality_test("g").pvalue) == pytest.approx(row["P>|z|"], rel=1e-9)


def test_ratios_of_groups_differ_by_a_ratio():
    frame = grouped().assign(y=lambda f: np.exp(f.y / 3))
    model = cr.OutcomeRegression.from_formula("y ~ C(g) * (x2 + x3)", frame, treat="d", effect="ratio")
    by, row = model.fit().effects_by("g"), model.fit().differences_by("g").loc[("high", "low")]
    logs = np.log(by[["estimate", "[0.025", "0.975]"]].astype(float))
    se = (logs["0.975]"] - logs["estimate"]) / 1.959963984540054
    assert row.estimate == pytest.approx(by.estimate["high"] / by.estimate["low"], rel=1e-10)
    both = np.hypot(*se)
    assert row.z == pytest.approx((logs.estimate["high"] - logs.estimate["low"]) / both, rel=1e-8)
    assert row["0.975]"] == pytest.approx(row.estimate * np.exp(1.959963984540054 * both), rel=1e-8)
    percent = model.with_options(effect="percent").fit().differences_by("g").loc[("high", "low")]
    assert percent.estimate == pytest.approx(100 * (row.estimate - 1), rel=1e-9) and percent.z == pytest.approx(row.z)


def test_differences_of_groups_of_several_arms_and_of_jre():
    arms = grouped().assign(d=np.random.default_rng(1).choice(["a", "b", "c"], 400))
    three = cr.IPWRA.from_formula(f"y ~ {RHS}", arms, treat="d", reference="a").fit()
    found, by = three.differences_by(["g", "half"], arms), three.effects_by(["g", "half"], arms).estimate
    assert found.index.names == ["effect", "g", "half", "minus"] and len(found) == 2 * 6
    expected = by["ATE[c]", "high", 0] - by["ATE[c]", "low", 1]
    assert found.estimate["ATE[c]", "high", 0, "low, 1"] == pytest.approx(expected)
    assert three.equality_test("g", arms).df_denom == 2
    jre = cr.JRE.from_formula(f"y ~ {RHS}", grouped(), treat="d").fit(cov_type="robust", n_replicates=30)
    by, row = jre.effects_by("g", grouped()), jre.differences_by("g", grouped()).loc[("high", "low")]
    assert row.estimate == pytest.approx(by.estimate["high"] - by.estimate["low"], rel=1e-12)
    assert 0.3 < row["std err"] / np.hypot(*by["std err"]) < 2


@pytest.mark.parametrize(
    "effect, level, close", [("percent", 1000, 1e-3), ("percent", 10, 0.1), ("difference", 10, 1e-9)]
)
def test_differences_that_depend_on_each_other_are_tested_as_those_that_do_not(effect, level, close):
    """The means of four arms in four groups are products of four by three coefficients and three by four means.

    A matrix of rank three keeps its rank when rows and columns are divided by numbers: the nine differences of
    logarithms lie on a surface of eight dimensions, which is curved. By hand, whichever of the nine is left out, the
    test of the other eight is the same but for the curvature; without logarithms there is none.
    """
    rng, n = np.random.default_rng(5), 600
    x, arm, g = rng.normal(size=n), rng.integers(0, 4, n), rng.integers(0, 4, n)
    x += 0.3 * g
    y = level + x + 0.5 * arm + 0.2 * arm * x**2 + rng.normal(size=n)
    frame = pd.DataFrame({"x": x, "g": g, "arm": arm, "y": y})
    model = cr.OutcomeRegression.from_formula("y ~ x + I(x**2)", frame, treat="arm", reference=0, effect=effect)
    with pytest.warns(cr.DesignWarning, match="only the outcome formula, which does not contain 'g'"):
        found = model.fit().equality_test("g", frame)

    X, values, rows = np.column_stack([np.ones(n), x, x**2]), [], []
    for a in range(4):
        own = (arm == a)[:, None] * X
        beta = np.linalg.solve(own.T @ own, own.T @ y)
        of_beta = n * np.linalg.solve(own.T @ own, (own * (y - X @ beta)[:, None]).T).T
        for k in range(4):
            inside = (g == k) / (g == k).mean()
            mean = (inside * (X @ beta)).mean()
            moved = inside * (X @ beta - mean) + of_beta @ (inside[:, None] * X).mean(axis=0)
            values.append(mean if effect == "difference" else np.log(mean))
            rows.append(moved if effect == "difference" else moved / mean)
    values, rows = np.reshape(values, (4, 4)), np.reshape(rows, (4, 4, n))
    gaps = ((values - values[0])[1:, 1:] - (values - values[0])[1:, :1]).ravel()
    moved = ((rows - rows[0])[1:, 1:] - (rows - rows[0])[1:, :1]).reshape(9, n)
    cov = moved @ moved.T / n**2
    assert np.linalg.matrix_rank(cov / np.outer(*[np.sqrt(np.diag(cov))] * 2), tol=1e-10) == found.df_denom == 8
    eights = [np.delete(np.arange(9), left_out) for left_out in range(9)]
    expected = [gaps[eight] @ np.linalg.solve(cov[np.ix_(eight, eight)], gaps[eight]) for eight in eights]
    np.testing.assert_allclose(found.statistic.item(), expected, rtol=close)
    assert min(expected) * (1 - 1e-9) <= found.statistic.item() <= max(expected) * (1 + 1e-9)


def test_what_has_no_differences():
    frame = grouped()
    res = cr.IPWRA.from_formula(f"y ~ {RHS}", frame, treat="d").fit()
    with raises_with(cr.OptionError, "differences_by needs at least two groups", "effects_by"):
        res.differences_by("~ x1")
    with raises_with(cr.OptionError, "equality_test needs at least two groups"):
        res.equality_test(np.ones(400))


def test_a_group_without_an_effect_leaves_the_other_differences():
    """Without events in an arm it has no ratio, and so there is no test of them all; the rest are those without it."""
    frame = simulate(360).assign(g=np.arange(360) % 3, y=np.arange(360) // 3 % 2)
    frame.loc[(frame.g == 2) & (frame.d == 0), "y"] = 0
    res = cr.IPW.from_formula("y ~ 1", frame, treat="d", propensity="1", effect="ratio", family="binomial").fit()
    found = res.differences_by("g", frame)
    assert found.estimate.isna().sum() == 2
    effects = res.effects_by("g", frame).estimate
    assert found.estimate[0, 1] == pytest.approx(effects[0] / effects[1], rel=1e-12)
    other = frame.assign(y=np.where(frame.g == 2, 1 - frame.y, frame.y))
    beside = cr.IPW.from_formula("y ~ 1", other, treat="d", propensity="1", effect="ratio", family="binomial").fit()
    assert found.z[0, 1] == pytest.approx(beside.differences_by("g", other).z[0, 1], rel=1e-12)
    with pytest.warns(cr.CausalRiskWarning, match="by g is NaN: the effects of the groups 2 are undefined"):
        test = res.equality_test("g", frame)
    assert np.isnan(test.pvalue) and test.df_denom == 2


def test_groups_that_differ_without_sampling_error_have_no_test():
    """All outcomes of an arm in a group are alike, which says nothing of another sample."""
    frame = simulate(200).assign(g=np.arange(200) % 2)
    frame["y"] = 1.0 + frame.g + 2 * frame.d * frame.g
    res = cr.IPW.from_formula("y ~ 1", frame, treat="d", propensity="x1").fit()
    with pytest.warns(cr.CausalRiskWarning, match="by g is NaN: some effects differ but have no sampling error"):
        test = res.equality_test("g", frame)
    assert np.isnan(test.statistic.item()) and np.isnan(test.pvalue)
    frame["y"] = 1.0 + frame.g + 2 * frame.d
    alike = cr.IPW.from_formula("y ~ 1", frame, treat="d", propensity="x1").fit()
    assert alike.equality_test("g", frame).df_denom == 0


def test_a_group_without_events_has_no_ratio():
    """Its mean is zero, or what rounding leaves of it, which is no number to divide by."""
    frame = simulate(240)
    frame["g"] = np.arange(240) % 2
    frame["y"] = np.where((frame.g == 1) & (frame.d == 0), 0, np.arange(240) // 2 % 2)
    res = cr.IPW.from_formula("y ~ 1", frame, treat="d", propensity="x1 + x2", effect="ratio", family="poisson").fit()
    table = res.effects_by("g", frame)
    assert not np.isfinite(table.estimate[1])
    assert np.isfinite(table.estimate[0])


def test_groups_of_jre_have_tests_where_some_resamples_failed():
    n, rows = 40, np.arange(40)
    frame = simulate(n).assign(d=rows % 2, g=rows // 20)
    frame["rare"] = ((rows < 6) | ((rows < 10) & (rows % 2 == 0))).astype(int)
    model = cr.JRE.from_formula("y ~ x1 + rare", frame, treat="d", propensity="~ x1")
    with pytest.warns(cr.CausalRiskWarning):
        res = model.fit(bootstrap="pairs", n_boot=60, max_failed=0.9)
    assert 0 < (~res.boot_ledger["used"]).sum() < 30
    effects, differences = res.effects_by("g", frame), res.differences_by("g", frame, adjust="single-step")
    assert np.isfinite(effects.to_numpy()).all() and np.isfinite(differences.to_numpy()).all()


def test_effects_in_small_groups_have_a_warning():
    data = simulate(200).assign(g=["rare" if k < 3 else "often" for k in range(200)])
    res = cr.AIPW.from_formula("y ~ x1", data, treat="d").fit()
    with pytest.warns(cr.DesignWarning, match="fewer than 5 rows in g = 'rare'. Standard"):
        adjusted = res.effects_by("g", data, adjust="bh")
    with pytest.warns(cr.DesignWarning, match="no rows in g = 'rare'. The models extrapolate"):
        res.effects_by(data.g.where((data.g == "often") | (data.d == 1), "often"))
    assert "adjusted P" in adjusted


@pytest.mark.parametrize("method", ["effects_by", "differences_by", "equality_test"])
def test_one_cluster_of_a_treatment_group_in_a_group_has_a_warning(method):
    k = np.arange(2400) // 20  # clusters, each with one treatment
    data = simulate(2400).assign(d=k % 2, k=k, g=np.where((k < 90) | ((k % 2 == 1) & (k != 91)), "often", "rare"))
    res = cr.AIPW.from_formula("y ~ x1", data, treat="d", cluster="k").fit()
    with pytest.warns(cr.DesignWarning, match="rows of only one cluster of 'k' in g = 'rare'. Standard"):
        getattr(res, method)("g", data)


def test_one_value_of_each_variable_is_one_row():
    data = simulate(300)
    res = cr.AIPW.from_formula("y ~ x1 + x2", data, treat="d").fit()
    assert res.effects_by("~ x1 + x2", at={"x1": 1, "x2": 0}).equals(
        res.effects_by("~ x1 + x2", at=pd.DataFrame({"x1": [1], "x2": [0]}))
    )


@pytest.mark.filterwarnings("ignore:a treatment group has:causalrisk.DesignWarning")
@pytest.mark.parametrize("cov_type", ["cluster", "jackknife"])
@pytest.mark.parametrize(
    ("model", "target"), [(cr.IPW, "all"), (cr.Unadjusted, "all"), (cr.TMLE, "all"), (cr.AIPW, "treated")]
)
def test_a_group_without_rows_of_an_arm_leaves_the_others_as_they_are(model, target, cov_type):
    frame = simulate(300).assign(k=np.arange(300) % 3, c=np.arange(300) % 20)
    frame = frame[(frame.k > 0) | (frame.d == 0)]
    res = model.from_formula("y ~ x1", frame, treat="d", target=target, cluster="c").fit(cov_type=cov_type)
    found = res.effects_by("k", frame)
    assert np.isnan(found["estimate"].iloc[0])
    for k in (1, 2):
        alone = res.effects_by((frame.k == k).astype(int).to_numpy()).iloc[1]
        np.testing.assert_allclose(found.iloc[k].astype(float), alone.astype(float), rtol=1e-10)
        if model is cr.Unadjusted:
            means = frame[frame.k == k].groupby("d").y.mean()
            assert found["estimate"].iloc[k] == pytest.approx(means[1] - means[0], rel=1e-10)


@pytest.mark.filterwarnings("ignore:a treatment group has:causalrisk.DesignWarning")
def test_the_jackknife_leaves_out_the_only_cluster_of_a_group():
    frame = simulate(300).assign(k=np.arange(300) % 3, c=np.arange(300) % 20)
    frame = frame[(frame.k > 0) | (frame.d == 0) | (frame.c == 3)]
    res = cr.IPW.from_formula("y ~ x1", frame, treat="d", cluster="c").fit(cov_type="jackknife")
    found = res.effects_by("k", frame)["std err"]
    for k in (1, 2):
        alone = res.effects_by((frame.k == k).astype(int).to_numpy())["std err"].iloc[1]
        assert found.iloc[k] == pytest.approx(alone, rel=1e-10)
