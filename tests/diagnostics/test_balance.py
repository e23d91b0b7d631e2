"""Balance tables against definitions and R's MatchIt and cobalt, and the balance test against brute force."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.optimize
import scipy.stats

import causalrisk as cr
from tests.conftest import LALONDE_RHS, REFERENCE, RHS, simulate


def built(frame, model=cr.IPWRA, **options):
    return model.from_formula(f"y ~ {RHS}", frame, treat="d", **options).fit()


@pytest.fixture(scope="module")
def frame():
    return simulate(300, seed=3).assign(b=lambda f: (f.x3 > 0.3).astype(int))


# Printed by R's MatchIt 4.7.1: summary(matchit(treat ~ age + educ + race + married + nodegree + re74 + re75, lalonde,
# method = NULL)), run for this test.
PUBLISHED = pd.DataFrame(
    [
        ("propensity score", 1.7941, 0.9211, 0.6444),
        ("age", -0.3094, 0.4400, 0.1577),
        ("educ", 0.0550, 0.4959, 0.1114),
        ("re74", -0.7211, 0.5181, 0.4470),
        ("re75", -0.2903, 0.9563, 0.2876),
    ],
    columns=["covariate", "diff before", "var ratio before", "KS before"],
).set_index("covariate")


def test_published_balance_of_lalonde(lalonde):
    table = cr.IPWRA.from_formula(f"re78 ~ {LALONDE_RHS}", lalonde, treat="treat", target="ATT").fit().balance("raw")
    np.testing.assert_allclose(table.loc[PUBLISHED.index, PUBLISHED.columns], PUBLISHED, atol=5.1e-5)
    raw = {"race: hispan": -0.0827, "race: white": -0.5577, "married": -0.3236, "nodegree": 0.1114}
    np.testing.assert_allclose(table.loc[list(raw), "diff before"], list(raw.values()), atol=5.1e-5)
    assert (table.loc[list(raw), "unit"] == "raw").all()
    assert table.loc[list(raw), ["var ratio before", "var ratio after"]].isna().all(axis=None)


@pytest.mark.parametrize(("estimand", "target"), [("ATE", "all"), ("ATT", "treated")])
def test_balance_of_weights_is_that_of_matchit(cattaneo, estimand, target):
    """MatchIt has the denominators of cobalt; KS is its eCDF Max."""
    propensity = "mmarried + mage + prenatal1 + fbaby + medu"
    model = cr.IPW.from_formula("bweight ~ 1", cattaneo, treat="mbsmoke", propensity=propensity, target=target)
    table = model.fit().balance(binary="std").rename(index={"propensity score": "score"})
    reference = pd.read_csv(REFERENCE / "r_matchit_balance.csv").query("estimand == @estimand")
    for when, theirs in reference.groupby("when"):
        expected = theirs.set_index("covariate").loc[table.index, ["diff", "var_ratio", "ks"]]
        ours = table[[f"diff {when}", f"var ratio {when}", f"KS {when}"]]
        np.testing.assert_allclose(ours, expected, atol=2e-8)  # R's glm stops there


def test_balance_of_weights_is_that_of_cobalt(lalonde):
    reference = pd.read_csv(REFERENCE / "r_cobalt_balance.csv", index_col=0)
    formula = "age + educ + race + re74 + re75"
    res = cr.IPW.from_formula("re78 ~ 1", lalonde, treat="treat", propensity=formula, target="treated").fit()
    table = res.balance("raw").loc[reference.index].assign(**{"diff after std": res.balance()["diff after"]})
    known = reference.notna()
    np.testing.assert_allclose(table[reference.columns].where(known), reference, atol=5.1e-5)
    assert res.overlap()["effective n"].round(1).tolist() == [108.2, 185]


@pytest.mark.parametrize("target", ["all", "treated", "control", "overlap"])
def test_by_hand(frame, target):
    res = built(frame, propensity="x1 + b", target=target)
    table, standardized = res.balance(binary="raw"), res.balance()
    w, treated = res.importance_weights, frame.d == 1

    def mean(values, rows, weights):
        return np.average(values[rows], weights=weights[rows])

    spreads = {
        "all": np.sqrt((frame.x1[treated].var() + frame.x1[~treated].var()) / 2),
        "treated": frame.x1[treated].std(),
        "control": frame.x1[~treated].std(),
        "overlap": np.sqrt(np.cov(frame.x1, aweights=w)),
    }
    shares = {"all": None, "treated": treated, "control": ~treated}
    for weights, when in ((w * 0 + 1, "before"), (w, "after")):
        gap = mean(frame.x1, treated, weights) - mean(frame.x1, ~treated, weights)
        np.testing.assert_allclose(table.loc["x1", f"diff {when}"], gap / spreads[target], atol=1e-12)
        ratio = np.cov(frame.x1[treated], aweights=weights[treated]) / np.cov(
            frame.x1[~treated], aweights=weights[~treated]
        )
        np.testing.assert_allclose(table.loc["x1", f"var ratio {when}"], ratio)
        gap = mean(frame.b, treated, weights) - mean(frame.b, ~treated, weights)
        np.testing.assert_allclose(table.loc["b", f"diff {when}"], gap, atol=1e-12)
        np.testing.assert_allclose(table.loc["b", f"KS {when}"], abs(gap), atol=1e-12)
        if target in ("treated", "control"):
            p = frame.b[shares[target]].mean()
            np.testing.assert_allclose(standardized.loc["b", f"diff {when}"], gap / np.sqrt(p * (1 - p)), atol=1e-12)
        below = frame.x1.to_numpy()[:, None] >= frame.x1.to_numpy()
        functions = [below[:, rows] @ weights[rows] / weights[rows].sum() for rows in (treated, ~treated)]
        np.testing.assert_allclose(table.loc["x1", f"KS {when}"], np.abs(functions[0] - functions[1]).max(), atol=1e-12)
    plain = scipy.stats.ks_2samp(frame.x1[treated], frame.x1[~treated]).statistic
    np.testing.assert_allclose(table.loc["x1", "KS before"], plain)


def test_binary_columns_of_any_coding(frame):
    one = built(frame, propensity="x1 + b").balance(binary="std")
    other = built(frame.assign(b=5 + 2 * frame.b), propensity="x1 + b").balance(binary="std")
    np.testing.assert_allclose(one.drop(columns=["kind", "unit"]), other.drop(columns=["kind", "unit"]), atol=1e-10)


def test_calibrated_weights_balance_exactly(frame):
    table = built(frame, propensity="x1 + b", propensity_loss="calibrated").balance()
    np.testing.assert_allclose(table.loc[["x1", "b"], "diff after"], 0, atol=1e-10)
    assert (table["diff before"].abs() > 0.02).all()


def test_frequency_weights_are_repeated_rows(frame):
    counts = np.random.default_rng(0).integers(1, 4, len(frame))
    repeated = frame.loc[frame.index.repeat(counts)].reset_index(drop=True)
    weighed = built(frame.assign(w=counts), weights="w", weight_type="frequency", propensity="x1 + b")
    plain = built(repeated, propensity="x1 + b")
    columns = plain.balance().columns.drop(["kind", "unit"])
    np.testing.assert_allclose(weighed.balance()[columns], plain.balance()[columns], atol=1e-9)
    assert abs(weighed.balance_test().statistic / plain.balance_test().statistic - 1) < 1e-6


@pytest.mark.filterwarnings("ignore::causalrisk.OverlapWarning")
def test_several_arms_against_the_reference():
    data = simulate(400, seed=5)
    data["d"] = np.where(data.x2 + np.random.default_rng(1).normal(size=400) > 0.8, 2, data.d)
    table = built(data, reference=0).balance()
    assert list(table.index.get_level_values("contrast").unique()) == ["1 vs 0", "2 vs 0"]
    groups = data.groupby("d").x1
    spread = np.sqrt(groups.var().mean())
    gaps = (groups.mean() - groups.mean()[0]) / spread
    for arm in (1, 2):
        np.testing.assert_allclose(table.loc[(f"{arm} vs 0", "x1"), "diff before"], gaps[arm])


def discrepancy(X, t, target):
    """The statistic to be minimised, written down again: both sets of conditions over their variance given X."""

    def value(gamma):
        p = 1 / (1 + np.exp(-X @ gamma))
        inverse = {"all": 1 / (p * (1 - p)), "treated": 1 / (1 - p), "control": 1 / p}[target]
        rows = np.column_stack([X * (t - p)[:, None], X * ((t - p) * inverse)[:, None]])
        factor = np.column_stack([X, X * inverse[:, None]])
        variance = (factor.T * (p * (1 - p))) @ factor
        total = rows.sum(axis=0)
        return total @ np.linalg.solve(variance, total)

    return value


@pytest.mark.parametrize("target", ["all", "treated", "control"])
def test_balance_test_by_brute_force(frame, target):
    res = built(frame, propensity="x1 + b", target=target)
    X, t = np.column_stack([np.ones(len(frame)), frame.x1, frame.b]), frame.d.to_numpy()
    found = scipy.optimize.minimize(
        discrepancy(X, t, target), res.propensity_params, method="Nelder-Mead", options={"xatol": 1e-8}
    )
    np.testing.assert_allclose(res.balance_test().statistic, found.fun, rtol=1e-5)


def test_refusals(frame):
    for options in ({"target": "overlap"}, {"propensity_link": "probit"}, {"target": frame[["x1", "x2", "x3"]]}):
        with pytest.raises(cr.CausalRiskError, match=r"balance\(\)"):
            built(frame, **options).balance_test()
    with pytest.raises(cr.CausalRiskError, match="missing outcomes"):
        built(frame, cr.OutcomeRegression).balance(between="observed")
    with pytest.raises(cr.CausalRiskError, match=r"one of .raw., .std."):
        built(frame).balance(binary="both")


@pytest.fixture(scope="module")
def grouped(frame):
    return frame.assign(g=np.array(["p", "q", "r"])[np.arange(300) % 3], z=np.random.default_rng(3).normal(size=300))


def test_means_and_deviations_by_hand(grouped):
    res = built(grouped, propensity="x1 + b")
    table, w = res.balance(means=True, threshold=0.05), res.importance_weights
    assert list(table.index) == ["propensity score", "x1", "b", "x2", "x3"]  # the last are of the outcome formula
    for arm in (0, 1):
        rows = grouped.d == arm
        for when, weights in (("before", w * 0 + 1), ("after", w)):
            x, own = grouped.x1[rows], weights[rows]
            np.testing.assert_allclose(table.loc["x1", f"mean {arm} {when}"], np.average(x, weights=own))
            np.testing.assert_allclose(table.loc["x1", f"sd {arm} {when}"], np.sqrt(np.cov(x, aweights=own)))
            share = np.average(grouped.b[rows], weights=own)
            np.testing.assert_allclose(table.loc["b", f"mean {arm} {when}"], share)
    assert np.isnan(table.loc["b", "sd 1 after"])
    assert table.balanced.equals(table["diff after"].abs() <= 0.05)
    np.testing.assert_allclose(
        res.balance().loc["x2", "diff before"],
        (grouped.x2[grouped.d == 1].mean() - grouped.x2[grouped.d == 0].mean())
        / np.sqrt((grouped.x2[grouped.d == 1].var() + grouped.x2[grouped.d == 0].var()) / 2),
    )


def test_further_covariates_are_as_those_of_the_model(grouped):
    inside = built(grouped, propensity="x1 + z + g + b").balance()
    outside = built(grouped, propensity="x1 + b").balance(also="~ z + g", data=grouped)
    before = [name for name in inside.columns if name.endswith("before")]
    rows = ["z", "g: p", "g: q", "g: r"]
    pd.testing.assert_frame_equal(inside.loc[rows, before], outside.loc[rows, before])
    named = built(grouped).balance(also=grouped[["z"]], names={"z": "Zeal"})
    assert "Zeal" in named.index
    for missing, message in (
        (np.nan, "'na' has no values"),
        (grouped.x1.where(grouped.x2 > 0), "'na' is missing"),
    ):
        with pytest.raises(cr.DesignError, match=message):
            built(grouped).balance(also="na", data=grouped.assign(na=missing))
    products = built(grouped, propensity="x1 + b").balance(interactions=True)
    assert {"x1^2", "x1 * b", "x2^2"} <= set(products.index) and "b^2" not in products.index


def test_balance_within_groups_is_that_of_the_groups_alone(grouped):
    res = built(grouped, propensity="x1 + b")
    table = res.balance(by="g", data=grouped)
    assert table.index.names == ["group", "covariate"]
    for group, rows in grouped.groupby("g").groups.items():
        part = grouped.loc[rows]
        treated, w = part.d == 1, res.importance_weights[rows]
        scale = np.sqrt((part.x1[treated].var() + part.x1[~treated].var()) / 2)
        gap = np.average(part.x1[treated], weights=w[treated]) - np.average(part.x1[~treated], weights=w[~treated])
        np.testing.assert_allclose(table.loc[(group, "x1"), "diff after"], gap / scale)
    with pytest.raises(cr.DesignError, match=r"h = u has no rows in treatment group '1'"):
        res.balance(by=pd.Series(np.where(grouped.d == 1, "v", np.where(grouped.b == 1, "u", "v")), name="h"))
    with pytest.raises(cr.OptionError, match=r"by='~ x1' is a formula"):
        res.balance(by="~ x1")
    with pytest.raises(cr.OptionError, match=r"threshold=0; expected a positive number"):
        res.balance(threshold=0)


def test_balance_test_of_a_trial(tmp_path, unprinted_plots):
    blocks = pd.DataFrame({"site": np.repeat(list("abcde"), 20), "d": np.tile([0, 1], 50)})
    blocks["y"] = np.random.default_rng(1).normal(size=100) + blocks["d"]
    for propensity in ("site", "1"):  # the scores balance all of these columns
        res = cr.AIPW.from_formula("y ~ site", blocks, treat="d", propensity=propensity).fit()
        with pytest.raises(cr.UnavailableError, match="balances its columns exactly"):
            res.balance_test()
        assert "Imai" not in res.report(tmp_path / "trial.html").read_text("utf-8")


def test_balance_test_with_scores_that_hardly_vary():
    rng = np.random.default_rng(32)
    data = pd.DataFrame({"x": rng.normal(size=400), "d": rng.permutation(400) % 2})  # the coefficient is 0.0008
    data["y"] = data["x"] + rng.normal(size=400)
    found = [
        cr.IPW.from_formula("y ~ 1", data.assign(x=scale * data["x"] + 5), treat="d", propensity="x").fit()
        for scale in (1, -300)
    ]
    first, second = (res.balance_test() for res in found)
    assert first.converged and first.df == 2
    np.testing.assert_allclose(first.statistic, second.statistic, rtol=1e-4)
    X, t = np.column_stack([np.ones(400), data["x"]]), data["d"].to_numpy()

    def value(gamma):  # 1 / (p (1 - p)) less 4, exactly
        p = 1 / (1 + np.exp(-X @ gamma))
        factor = (2 * p - 1) ** 2 / (p * (1 - p))
        rows = np.column_stack([X, X * (factor / factor.max())[:, None]])
        total = rows.T @ (t - p)
        return total @ np.linalg.solve((rows.T * (p * (1 - p))) @ rows, total)

    least = scipy.optimize.minimize(value, found[0].propensity_params, method="Nelder-Mead", options={"xatol": 1e-8})
    np.testing.assert_allclose(first.statistic, least.fun, rtol=1e-4)
