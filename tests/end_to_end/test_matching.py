"""Matching beside R's Matching and Stata's teffects psmatch, and beside loops over all pairs."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pandas as pd
import pytest

from causalrisk import AIPW, DesignWarning, Matching, OptionError, OverlapWarning, UnavailableError, etable
from tests.conftest import REFERENCE, simulate

KNOWN = json.loads((REFERENCE / "matching.json").read_text())
BIRTHS = "bweight ~ mmarried + mage + fage + medu + prenatal1"
SCORE = {"metric": "propensity", "propensity": "mmarried + mage + I(mage**2) + fbaby + medu"}
JOBS = {"age": "re78 ~ age", "4": "re78 ~ age + educ + re74 + re75"}
CASES = {
    "catt nn": (BIRTHS, {}),
    "catt nn invvar": (BIRTHS, {"metric": "inverse_variance"}),
    "catt nn bias": (BIRTHS, {"bias_adjust": "mage + fage"}),
    "lal nn age": (JOBS["age"], {"metric": "inverse_variance"}),
    "lal nn 4": (JOBS["4"], {"metric": "inverse_variance"}),
}
pytestmark = pytest.mark.filterwarnings("ignore::causalrisk.OverlapWarning")


@pytest.fixture(scope="module")
def experiment():
    from causalrisk.datasets import load_lalonde

    return load_lalonde()


BY_COVARIATES = [name for name in KNOWN["cases"] if " ps " not in name and name != "catt nn invvar ATE"]


@pytest.mark.parametrize("name", BY_COVARIATES)
def test_estimates_and_errors_are_those_of_r(name, cattaneo, experiment):
    """But for one case, in which R's default tolerance counts distances as equal that differ."""
    known, (case, target) = KNOWN["cases"][name], name.rsplit(" ", 1)
    formula, options = CASES[case]
    data, treat = (cattaneo, "mbsmoke") if case.startswith("catt") else (experiment, "treat")
    target = "treated" if target == "ATT" else "all"
    res = Matching.from_formula(formula, data, treat=treat, target=target, **options).fit()
    np.testing.assert_allclose([res.effect, res.effect_se], [known["estimate"], known["se"]], rtol=1e-10)


def test_estimated_score_is_that_of_stata(cattaneo):
    res = Matching.from_formula("bweight ~ 1", cattaneo, treat="mbsmoke", **SCORE).fit()
    np.testing.assert_allclose([res.effect, res.effect_se], [-210.9683, 32.021], rtol=1e-6)


@pytest.mark.parametrize("target", ["ATE", "ATT"])
def test_a_known_score_is_that_of_r(target, cattaneo):
    fitted = AIPW.from_formula("bweight ~ 1", cattaneo, treat="mbsmoke", propensity=SCORE["propensity"]).fit()
    data, known = cattaneo.assign(e=fitted.propensity_scores), KNOWN["cases"][f"catt ps fixed {target}"]
    options = {"metric": "propensity", "propensity_score": "e", "target": "treated" if target == "ATT" else "all"}
    res = Matching.from_formula("bweight ~ 1", data, treat="mbsmoke", **options).fit()
    np.testing.assert_allclose([res.effect, res.effect_se], [known["estimate"], known["se"]], rtol=1e-6)


def drawn(n=80, arms=2, seed=0):
    """Few values of the covariates, so that many distances are equal."""
    data = simulate(n, seed=seed).round({"x1": 0, "x2": 0, "x3": 1})
    return data if arms == 2 else data.assign(d=np.random.default_rng(seed).integers(0, 3, n))


def by_hand(data, n_neighbors, caliper=np.inf, exact=()):
    """Potential outcomes (n, K) as means over all units of an arm that are as near as the n_neighbors-th."""
    X = data[["x1", "x2", "x3"]].to_numpy()
    root = np.linalg.cholesky(np.linalg.inv(np.cov(X.T)))
    found = np.full((len(data), data["d"].nunique()), np.nan)
    for a, level in enumerate(sorted(data["d"].unique())):
        arm = np.flatnonzero(data["d"] == level)
        for i in range(len(data)):
            apart = np.linalg.norm((X[arm] - X[i]) @ root, axis=1)
            for name in exact:
                apart[data[name].to_numpy()[arm] != data[name].iloc[i]] = np.inf
            limit = min(np.sort(apart)[n_neighbors - 1], caliper) + 1e-9
            near = arm[(apart <= limit) & np.isfinite(apart)]
            if data["d"].iloc[i] == level:
                found[i, a] = data["y"].iloc[i]
            elif len(near):
                found[i, a] = data["y"].iloc[near].mean()
    return found


@pytest.mark.parametrize("arms", [2, 3])
@pytest.mark.parametrize("n_neighbors", [1, 3])
def test_means_are_those_of_all_pairs(arms, n_neighbors):
    data = drawn(arms=arms)
    res = Matching.from_formula("y ~ x1 + x2 + x3", data, treat="d", reference=0, n_neighbors=n_neighbors).fit()
    np.testing.assert_allclose(res.params.iloc[-arms:], by_hand(data, n_neighbors).mean(axis=0), rtol=1e-12)


@pytest.mark.filterwarnings("ignore::causalrisk.DesignWarning")
@pytest.mark.parametrize("n_neighbors", [1, 3])
def test_units_without_a_match_are_left_out(n_neighbors):
    """Those with fewer matches within the caliper than asked for stay."""
    data = drawn()
    means = by_hand(data, n_neighbors, caliper=0.5, exact=["x1"])
    kept = np.isfinite(means).all(axis=1)
    options = {"caliper": 0.5, "exact": "x1", "n_neighbors": n_neighbors}
    model = Matching.from_formula("y ~ x1 + x2 + x3", data, treat="d", **options)
    with pytest.warns(match=f"{(~kept).sum()} of 80 rows of the target have no match"):
        res = model.fit()
    assert 0 < kept.sum() < len(data)
    np.testing.assert_allclose(res.params.iloc[1:], means[kept].mean(axis=0), rtol=1e-12)
    assert res.estimand == res.params.index[0] == res.glance()["estimand"].item() == "matched ATE"
    assert repr(res).startswith("Matching: matched ATE") and "all (matched ATE)" in str(res.summary())
    assert "matched ATE" in str(etable([res]))
    assert Matching.from_formula("y ~ x1 + x2", data, treat="d", caliper=1e6).fit().estimand == "ATE"
    pairs = res.matches
    assert set(pairs["unit"]) == set(data.index[kept])
    assert f"averages over the {kept.sum()} of 80 rows that have matches" in " ".join(str(res.summary()).split())
    assert (data["x1"][pairs["unit"]].to_numpy() == data["x1"][pairs["match"]].to_numpy()).all()
    assert pairs["distance"].max() <= 0.5


def test_variances_of_exact_matching_are_from_units_of_the_stratum():
    rng = np.random.default_rng(0)
    data = simulate(300).assign(site=rng.integers(0, 6, 300)).assign(y=lambda f: f.y + 5 * f.site % 7)
    res = Matching.from_formula("y ~ x1 + site", data, treat="d", exact="site", target="treated").fit()
    used, outcome = res.matches.groupby("match")["weight"], data["y"].to_numpy()
    sums = used.sum(), used.agg(lambda w: (w**2).sum())
    times, squares = (each.reindex(data.index, fill_value=0.0) for each in sums)
    effects = data["y"] - res.matches.assign(y=outcome[res.matches["match"]]).groupby("unit")["y"].mean()
    effects, variance = effects[data["d"] == 1], 0.0
    for j in data.index[(data["d"] == 0) & (times > 0)]:
        others = data[(data["d"] == 0) & (data["site"] == data["site"][j])]
        near = (others["x1"] - data["x1"][j]).abs().sort_values().index[:3]
        variance += (times[j] ** 2 - squares[j]) * outcome[near].var(ddof=1)
    expected = np.sqrt(((effects - effects.mean()) ** 2).sum() + variance) / len(effects)
    np.testing.assert_allclose([res.effect, res.effect_se], [effects.mean(), expected], rtol=1e-10)


def test_variances_in_small_strata_are_from_the_nearest_units_anywhere():
    """A stratum has two units of each arm; three give a variance. The names of the strata do not matter."""
    rng = np.random.default_rng(0)
    g, x = np.arange(100) // 4, rng.normal(size=25).repeat(4) + rng.normal(size=100) / 20
    data = pd.DataFrame({"d": np.arange(100) % 2, "x": x, "y": 2 * x + np.arange(100) % 2 + rng.normal(size=100) / 5})
    names = [np.array([f"s{k:02d}" for k in order])[g] for order in (range(25), rng.permutation(25))]
    fits = [Matching.from_formula("y ~ x + g", data.assign(g=of), treat="d", exact="g").fit() for of in names]
    np.testing.assert_allclose(fits[0].params, fits[1].params, rtol=1e-10)
    np.testing.assert_allclose(fits[0].bse, fits[1].bse, rtol=1e-8)


def test_matches_give_the_means_and_weights():
    data = drawn().set_index(pd.Index([f"unit {i}" for i in range(80)]))
    res = Matching.from_formula("y ~ x1 + x2 + x3", data, treat="d", target="treated", n_neighbors=2).fit()
    pairs = res.matches
    own = data["y"].loc[pairs["match"]].to_numpy() * pairs["weight"]
    controls = own.groupby(pairs["unit"]).sum()
    assert sorted(controls.index) == sorted(data.index[data["d"] == 1])
    np.testing.assert_allclose(res.params["POM[0]"], controls.mean(), rtol=1e-12)
    used = pairs.groupby("match")["weight"].sum().reindex(data.index[data["d"] == 0], fill_value=0.0)
    np.testing.assert_allclose(res.importance_weights[used.index], used, atol=1e-12)


def test_bias_adjustment_on_a_line_leaves_the_outcomes_of_the_line():
    data = drawn(300)
    data = data.assign(y=3 + data[["x1", "x2", "x3"]] @ [1.0, -2.0, 0.5] + 5 * data["d"])
    res = Matching.from_formula("y ~ x1 + x2 + x3", data, treat="d", bias_adjust=True).fit()
    np.testing.assert_allclose(res.effect, 5.0, rtol=1e-9)


def test_units_do_not_matter():
    data = drawn(200)
    scaled = data.assign(x1=1000 * data["x1"] + 7, x2=data["x2"] / 50)
    for metric in ("mahalanobis", "inverse_variance", "propensity"):
        one, other = (
            Matching.from_formula("y ~ x1 + x2 + x3", frame, treat="d", metric=metric, n_neighbors=2).fit()
            for frame in (data, scaled)
        )
        np.testing.assert_allclose(one.params, other.params, rtol=1e-9)
        np.testing.assert_allclose(one.bse, other.bse, rtol=1e-7)


def test_a_constant_metric_and_outcome():
    """All units of a stratum are then as near, and the effect is that of the strata."""
    data = drawn(120).assign(e=0.5, g=np.arange(120) % 3)
    options = {"treat": "d", "propensity_score": "e", "metric": "propensity", "exact": "g"}
    res = Matching.from_formula("y ~ C(g)", data, **options).fit()
    by_hand = data.groupby(["g", "d"])["y"].mean().unstack()
    shares = data["g"].value_counts(normalize=True)
    np.testing.assert_allclose(res.effect, ((by_hand[1] - by_hand[0]) * shares).sum(), rtol=1e-10)
    still = Matching.from_formula("y ~ x1", data.assign(y=3.0), treat="d")
    with pytest.warns(match="constant"):
        np.testing.assert_allclose(still.fit().params, [0, 3, 3], atol=1e-12)


def test_names_of_columns_do_not_matter():
    data = drawn(120).assign(**{"a b": np.arange(120) % 2, "g": np.arange(120) % 3})
    formula, plain = "y ~ x1 + Q('a b') + C(g, Treatment(1))", data.rename(columns={"a b": "ab"})
    res = Matching.from_formula(formula, data, treat="d", exact=["a b", "g"]).fit()
    same = Matching.from_formula("y ~ x1 + ab + C(g)", plain, treat="d", exact="ab + g").fit()
    np.testing.assert_allclose(res.params, same.params, rtol=1e-12)


@pytest.mark.filterwarnings("ignore:.*no constant among:causalrisk.DesignWarning")
def test_no_intercept_and_steep_columns():
    data = drawn(200).assign(far=lambda frame: frame["x1"] + 1e4, s=lambda frame: np.exp(5 * frame["x2"]))
    formulas = ("y ~ x1 + x2 + x3", "y ~ 0 + far + x2 + x3")
    near, far = (Matching.from_formula(formula, data, treat="d").fit() for formula in formulas)
    np.testing.assert_allclose(near.params, far.params, rtol=1e-9)
    steep = "y ~ s + I(s**2) + I(s**3)"
    one, other = (
        Matching.from_formula(steep, data.assign(s=data["s"] * unit), treat="d", bias_adjust=True).fit()  # separated
        for unit in (1.0, 1e-5)
    )
    np.testing.assert_allclose(one.params, other.params, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "fit", "match"),
    [
        ({}, {"n_boot": 9}, "bootstrap is not valid for matching"),
        ({}, {"cov_type": "HC1"}, "HC1"),
        ({"n_neighbors": 0}, {}, "n_neighbors=0"),
        ({"metric": "euclid"}, {}, "metric='euclid'"),
        ({"caliper": -1}, {}, "caliper=-1"),
        ({"exact": "age"}, {}, "exact='age' is not in the outcome formula"),
        ({"bias_adjust": 3}, {}, "bias_adjust=3"),
        ({"metric": "propensity", "exact": "x1"}, {}, "estimated score are not available with exact="),
        ({"metric": "propensity", "bias_adjust": True}, {}, "are not available with bias_adjust="),
        ({"target": "overlap"}, {}, 'target="overlap"'),
        ({"family": "poisson"}, {}, 'family="poisson"'),
    ],
)
def test_what_it_cannot_do_is_refused(options, fit, match):
    with pytest.raises(OptionError, match=match):
        Matching.from_formula("y ~ x1 + x2 + x3", drawn(), treat="d", **options).fit(**fit)


def test_columns_of_the_propensity_formula_alone_are_not_matched_on():
    with pytest.raises(OptionError, match=r"no covariates to match on[^`]*`metric=\"propensity\"`"):
        Matching.from_formula("y ~ 1", drawn(), treat="d", propensity="x1").fit()
    model = Matching.from_formula("y ~ x1", drawn(), treat="d", propensity="x1 + x2")
    with pytest.warns(DesignWarning, match="ignores 'x2', which only the propensity formula has"):
        res = model.fit()
    assert res.effect == Matching.from_formula("y ~ x1", drawn(), treat="d").fit().effect


def test_the_score_of_several_arms_is_refused():
    with pytest.raises(OptionError, match=r"metric=.*2 groups"):
        Matching.from_formula("y ~ x1 + x2 + x3", drawn(arms=3), treat="d", reference=0, metric="propensity").fit()


@pytest.mark.parametrize("method", ["sensitivity_bounds", "influence"])
def test_what_needs_an_influence_function_says_so(method):
    res = Matching.from_formula("y ~ x1 + x2 + x3", drawn(), treat="d").fit()
    with pytest.raises(UnavailableError, match="matching has no influence function"):
        getattr(res, method)()


def test_options_of_matching_are_of_matching_alone():
    with pytest.raises(OptionError, match=r"n_neighbors.*only for Matching"):
        AIPW.from_formula("y ~ x1 + x2 + x3", drawn(), treat="d", n_neighbors=2)


@pytest.mark.filterwarnings("ignore::causalrisk.DesignWarning")
def test_reports_say_how_units_are_matched(tmp_path, unprinted_plots):
    options = {"n_neighbors": 2, "exact": "x1", "bias_adjust": True}
    res = Matching.from_formula("y ~ x1 + x2 + x3", drawn(200), treat="d", **options).fit()
    text = " ".join(str(res.summary()).split())
    assert "2 nearest, mahalanobis" in text and "among units with equal x1" in text and "Outcome model" not in text
    assert "Standard errors follow Abadie and Imbens (2006)" in res.methods()
    page = res.report(tmp_path / "report.html").read_text("utf-8")
    assert "Bias-corrected matching estimators" in page and "n_neighbors=2," in page
    assert " before matching, " in page and "n after matching" in page and "lines the matched rows" in page
    assert "weighting" not in page
    assert "plus 1 / (number of matches) for each unit" in " ".join(str(res.explain()).split())
    score = Matching.from_formula("y ~ x1 + x2 + x3", drawn(200), treat="d", metric="propensity").fit()
    assert "Abadie and Imbens 2016" in score.methods()
    known = Matching.from_formula(
        "y ~ x1 + x2 + x3", drawn(200), treat="d", metric="propensity", propensity_score=score.propensity_scores
    ).fit()
    assert "account for the estimated" not in known.methods()


def test_few_matches_are_no_poor_overlap_unless_one_stands_for_many(tmp_path, unprinted_plots):
    data = drawn(300).assign(d=lambda frame: (np.arange(300) < 40).astype(int))
    with warnings.catch_warnings():
        warnings.simplefilter("error", OverlapWarning)
        res = Matching.from_formula("y ~ x1 + x2 + x3", data, treat="d", target="treated").fit()
    size = res.overlap()["effective n"].min()
    assert size < 60
    text = res.report(tmp_path / "report.html").read_text()
    found = f"group 0 has an effective n of {size:.0f}. Target group 1 has 40 rows"
    assert f"Overlap is good: after matching, {found}" in text
    alone = data.assign(x1=lambda frame: frame["x1"] + 20 * frame["d"] + 19 * (np.arange(300) == 299))
    with pytest.warns(OverlapWarning, match="holds .* of the weight of group '0'[^`]*`caliper=`"):
        Matching.from_formula("y ~ x1", alone, treat="d", target="treated").fit()


def test_the_page_of_plots_is_without_influence(unprinted_plots):
    res = Matching.from_formula("y ~ x1 + x2 + x3", drawn(), treat="d").fit()
    assert [ax.get_title(loc="left") for ax in res.plot().axes] == ["Overlap", "Balance"]


def test_a_score_that_nothing_uses_is_not_assessed():
    by = {"data": drawn(), "treat": "d"}
    res, score = (
        Matching.from_formula("y ~ x1 + x2 + x3", metric=m, **by).fit() for m in ("mahalanobis", "propensity")
    )
    assert res.balance().index.tolist() == score.balance().index[1:].tolist() == ["x1", "x2", "x3"]
    assert res.table_one().frame.index.tolist() == ["x1", "x2", "x3"]
    for method in ("calibration", "balance_test"):
        with pytest.raises(UnavailableError, match="Matching on covariates uses no propensity score"):
            getattr(res, method)()
        getattr(score, method)()
    trimmed = Matching.from_formula("y ~ x1 + x2 + x3", trim=(0.2, 0.8), **by).fit()
    assert "Propensity: none" not in " ".join(str(trimmed.summary()).split()) and len(trimmed.balance()) == 4


def test_the_correction_for_the_score_has_the_covariates_of_the_score():
    frame = simulate(300)
    options = {"treat": "d", "propensity": "x1 + x2", "metric": "propensity", "target": "treated"}
    one, other = (Matching.from_formula(f"y ~ {right}", frame, **options).fit() for right in ("1", "x1 + x2"))
    assert one.effect_se == pytest.approx(other.effect_se, rel=1e-10)


@pytest.mark.parametrize("target", ["treated", "all"])
@pytest.mark.filterwarnings("ignore::causalrisk.CausalRiskWarning")
def test_units_beyond_the_caliper_do_not_count_in_the_correction_for_the_score(target):
    """Controls that are like no treated unit: their outcomes change no number."""
    frame, ses = simulate(300), []
    far = frame[frame.d == 0].head(30).assign(x1=lambda own: own.x1 - 8)
    for factor in (1, 50):
        data = pd.concat([frame, far.assign(y=factor * far.y)], ignore_index=True)
        model = Matching.from_formula("y ~ x1", data, treat="d", metric="propensity", target=target, caliper=0.02)
        ses.append(model.fit().effect_se)
    assert ses[0] == pytest.approx(ses[1], rel=1e-10)


@pytest.mark.parametrize("metric", ["mahalanobis", "propensity"])
@pytest.mark.filterwarnings("ignore:outcome 'y' does not vary within a group")
def test_outcomes_that_are_constant_within_the_groups_have_no_error(metric):
    frame = simulate(200).assign(y=lambda own: 1.0 * own.d)
    res = Matching.from_formula("y ~ x1", frame, treat="d", metric=metric, target="treated").fit()
    assert res.effect == 1.0 and res.effect_se == pytest.approx(0, abs=1e-12)
