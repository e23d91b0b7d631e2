"""One-sided tests, equivalence and several tests at once, beside R's multcomp and emmeans; and their definitions."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from statsmodels.stats.multitest import multipletests

import causalrisk as cr
from causalrisk.inference.simultaneous import adjusted
from causalrisk.models.estimators import results_of
from tests.conftest import REFERENCE, simulate

CASES = {case["id"]: case for case in json.loads((REFERENCE / "hypotheses_tests.json").read_text())["cases"]}
ONE_SIDED = [name for name, case in CASES.items() if case["kind"] == "one_sided_tost"]
P_ERROR, CRITICAL_ERROR = 1e-5, 5e-5  # Monte Carlo error of multcomp's single step, as stored with the cases


@pytest.fixture(scope="module")
def litter():
    data = pd.read_csv(REFERENCE / "hypotheses_litter.csv")
    model = cr.OutcomeRegression.from_formula("weight ~ gesttime + number", data, treat="dose", reference=0)
    return model.fit()


def with_df(res, df):
    return results_of(dataclasses.replace(res._record, df=float(df)))


@pytest.fixture(scope="module")
def trial():
    """Four arms, a 0/1 outcome, groups and a covariate."""
    data = simulate(600, seed=4)
    rng = np.random.default_rng(0)
    return data.assign(
        arm=np.array(["none", "low", "mid", "high"])[rng.integers(4, size=600)],
        ill=(data.y > 0).astype(int),
        g=np.array(["a", "b", "c"])[rng.integers(3, size=600)],
        z=data.y + rng.normal(size=600),
    )


@pytest.mark.parametrize("name", ["litter_pairwise_t", "litter_reference_z"])
def test_all_pairs_and_against_the_reference_as_in_multcomp(litter, name):
    case = CASES[name]
    wanted, against = case["result"], "reference" if "reference" in name else None
    res = with_df(litter, case["df"])
    frames = {how: res.pairwise(adjust=how, against=against) for how in ("single-step", "holm", "bonferroni", "fdr_bh")}
    rows = [tuple(pair.split(" vs ")) for pair in case["contrasts"]["names"]]
    single = frames["single-step"].loc[rows]
    np.testing.assert_allclose(single["estimate"], wanted["estimate"], rtol=1e-8)
    np.testing.assert_allclose(single["std err"], wanted["se"], rtol=1e-8)
    np.testing.assert_allclose(single["adjusted P"], wanted["p_single_step"], rtol=0, atol=P_ERROR)
    reach = CRITICAL_ERROR * np.array(wanted["se"])[:, None]
    assert (np.abs(single.iloc[:, -2:] - np.array(wanted["ci_single_step"])) <= reach).all(axis=None)
    for how, key in (("holm", "p_holm"), ("bonferroni", "p_bonferroni"), ("fdr_bh", "p_bh")):
        np.testing.assert_allclose(frames[how].loc[rows, "adjusted P"], wanted[key], rtol=1e-8)
    np.testing.assert_allclose(frames["bonferroni"].loc[rows].iloc[:, -2:], wanted["ci_bonferroni"], rtol=1e-8)


def test_a_given_covariance_as_in_multcomp():
    case = CASES["given_t12"]
    wanted, df = case["result"], float(case["df"])
    statistic, covariance = np.array(wanted["t"]), np.array(case["vcov"])
    p, critical = adjusted(statistic, covariance, "single-step", 0.05, df)
    np.testing.assert_allclose(p, wanted["p_single_step"], rtol=0, atol=P_ERROR)
    assert critical == pytest.approx(wanted["critical_single_step"], abs=CRITICAL_ERROR)
    for how, key in (("holm", "p_holm"), ("bonferroni", "p_bonferroni"), ("fdr_bh", "p_bh")):
        np.testing.assert_allclose(adjusted(statistic, covariance, how, 0.05, df)[0], wanted[key], rtol=1e-8)


@pytest.mark.parametrize("name", ONE_SIDED)
def test_one_sided_and_equivalence_as_in_emmeans(litter, name):
    case = CASES[name]
    wanted, res, arm = case["result"], with_df(litter, case["df"]), case["contrast"].split(" vs ")[0]
    effect = f"ATE[{arm}]"
    for side, limits in (("larger", {"low": 0}), ("smaller", {"high": 0})):
        test = res.equivalence_test(**limits, r_matrix=effect).loc[effect]
        assert test["P"] == pytest.approx(wanted[f"p_{side}"], rel=1e-8)
        finite = [k for k, limit in enumerate(wanted[f"ci_{side}"]) if np.isfinite(float(limit))]
        ours = test[["[0.05", "0.95]"]].to_numpy(float)[finite]
        np.testing.assert_allclose(ours, np.array(wanted[f"ci_{side}"], dtype=float)[finite], rtol=1e-8)
        assert (test["estimate"], test["std err"]) == pytest.approx((case["estimate"], case["se"]), rel=1e-8)
    both = res.equivalence_test(case["lower"], case["upper"], effect).loc[effect]
    np.testing.assert_allclose(both.iloc[[2, 4]].to_numpy(float), [wanted["t_lower"], wanted["t_upper"]], rtol=1e-8)
    np.testing.assert_allclose(both.iloc[[3, 5]].to_numpy(float), [wanted["p_lower"], wanted["p_upper"]], rtol=1e-8)
    assert both["P"] == pytest.approx(wanted["p_equivalence"], rel=1e-8)
    np.testing.assert_allclose(both[["[0.05", "0.95]"]].to_numpy(float), wanted["ci_equivalence_90"], rtol=1e-8)
    everything = res.equivalence_test(-case["margin"])
    assert everything.loc[effect, "P"] == pytest.approx(wanted["p_noninferior"], rel=1e-8)
    other_side = res.equivalence_test(None, case["margin"], effect)
    assert other_side.loc[effect, "P"] == pytest.approx(wanted["p_nonsuperior"], rel=1e-8)


def test_combinations_of_ratios_have_limits_about_zero():
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"x": rng.normal(size=300), "d": np.arange(300) % 3, "y": rng.poisson(2.0, 300)})
    res = cr.IPWRA.from_formula("y ~ x", data, treat="d", reference=0, effect="ratio").fit()
    combination = "ATE ratio[1] - ATE ratio[2]"
    found, plain = res.equivalence_test(-0.3, 0.2, combination).iloc[0], res.t_test(f"{combination} = 0.2")
    assert found["P (< 0.2)"] == pytest.approx(float(plain.pvalue) / 2, rel=1e-8)
    with pytest.raises(cr.OptionError, match="not valid limits"):
        res.equivalence_test(-0.3, 0.2)


def test_equivalence_is_shown_exactly_where_the_interval_lies_within(litter):
    for low, high in ((-5, 3), (-5, -0.1), (-7, 1), (-4.1, 0.6)):
        frame = litter.equivalence_test(low, high, alpha=0.1)
        inside = (frame["[0.1"] > low) & (frame["0.9]"] < high)
        assert list(frame["shown"]) == list(inside)
        np.testing.assert_allclose(frame[["[0.1", "0.9]"]], litter.conf_int(0.2).iloc[:3])


@pytest.mark.parametrize(
    ("effect", "limits"), [("ratio", (0.8, 1.5)), ("percent", (-20, 50)), ("odds_ratio", (0.5, 2))]
)
@pytest.mark.parametrize("options", [{}, {"n_boot": 99}], ids=["robust", "bootstrap"])
def test_ratios_are_tested_as_logarithms_against_limits_as_they_are_reported(trial, effect, limits, options):
    model = cr.IPWRA.from_formula("ill ~ x1", trial, treat="d", family="binomial", effect=effect)
    res = model.fit(**options)
    test, null = res.equivalence_test(*limits), 1.0 if effect != "percent" else 0.0
    log = (lambda x: np.log1p(np.asarray(x) / 100)) if effect == "percent" else np.log
    error = log(res.effect) / res.tvalues.iloc[0]
    statistics = test.iloc[0, [2, 4]].to_numpy(float)
    np.testing.assert_allclose(statistics, (log(res.effect) - log(limits)) / error, rtol=1e-9)
    np.testing.assert_allclose(test[["[0.05", "0.95]"]].iloc[0], res.conf_int(0.1).iloc[0], rtol=1e-12)
    one_sided = res.equivalence_test(null)["P"].iloc[0], res.equivalence_test(None, null)["P"].iloc[0]
    assert 2 * min(one_sided) == pytest.approx(res.pvalues.iloc[0], rel=1e-9)


@pytest.mark.usefixtures("few_points")
def test_adjusted_p_values_and_simultaneous_intervals_agree(trial):
    """Below alpha exactly where no effect lies outside of the interval, on each scale, for each adjustment of both."""
    for effect in ("difference", "ratio"):
        res = cr.AIPW.from_formula("ill ~ x1 + x2", trial, treat="arm", reference="none", effect=effect).fit()
        null = 0 if effect == "difference" else 1
        for how in ("single-step", "bonferroni"):
            frame = res.pairwise(adjust=how, alpha=0.3)
            outside = (frame.iloc[:, -2] > null) | (frame.iloc[:, -1] < null)
            np.testing.assert_array_equal(frame["adjusted P"] < 0.3, outside)
        plain = res.pairwise()
        holm = multipletests(plain["P>|z|"], method="holm")[1]
        np.testing.assert_allclose(res.pairwise(adjust="holm")["adjusted P"], holm)
        pd.testing.assert_frame_equal(res.pairwise(adjust="fdr_bh").drop(columns="adjusted P"), plain)


@pytest.mark.usefixtures("few_points")
def test_independent_groups_have_the_adjustment_of_sidak(trial):
    """Effects in groups by models of the groups alone are independent: 1 - (1 - p)^m."""
    res = cr.OutcomeRegression.from_formula("y ~ C(g) * x1", trial, treat="d").fit()
    frame = res.effects_by("g", adjust="single-step")
    np.testing.assert_allclose(frame["adjusted P"], 1 - (1 - frame["P>|z|"]) ** 3, rtol=1e-6)
    critical = norm.ppf((1 + 0.95 ** (1 / 3)) / 2)
    np.testing.assert_allclose(frame["0.975]"], frame["estimate"] + critical * frame["std err"], rtol=1e-7)


@pytest.mark.usefixtures("few_points")
def test_an_adjusted_p_value_below_the_precision_of_the_integral_is_an_upper_limit(trial):
    """Three groups are independent, which tells the p-value: below 0.00001 the table has no less, nor Bonferroni's."""
    for effect in (1.0, 1.5, 2.0, 3.0):
        data = trial.assign(y=trial.y + effect * trial.d)
        res = cr.OutcomeRegression.from_formula("y ~ C(g) * x1", data, treat="d").fit()
        single, frame = res.effects_by("g"), res.effects_by("g", adjust="single-step")
        exact, most = -np.expm1(3 * np.log1p(-single["P>|z|"])), 3 * single["P>|z|"]
        small = exact < 0.9e-5
        assert small.any()
        np.testing.assert_allclose(frame["adjusted P"][small], np.minimum(most, 1e-5)[small], rtol=1e-9)
        np.testing.assert_allclose(frame["adjusted P"][~small], exact[~small], rtol=1e-2)


@pytest.mark.usefixtures("few_points")
def test_pairs_of_groups(trial):
    res = cr.OutcomeRegression.from_formula("y ~ x1 + C(g)", trial, treat="arm", reference="none").fit()
    plain = res.differences_by("g", trial)
    assert [pair for _, *pair in plain.index[:3]] == [["a", "b"], ["a", "c"], ["b", "c"]] and len(plain) == 9
    holm = multipletests(plain["P>|z|"], method="holm")[1]
    np.testing.assert_allclose(res.differences_by("g", trial, adjust="holm")["adjusted P"], holm)
    first = res.differences_by("g", trial, against="reference")
    assert set(first.index.get_level_values("minus")) == {"a"} and len(first) == 6
    same = plain[plain.index.get_level_values("g") == "a"]
    np.testing.assert_allclose(first["estimate"], -same["estimate"])
    np.testing.assert_allclose(first["std err"], same["std err"])
    pd.testing.assert_frame_equal(first, res.differences_by("g", trial, against="a"))


@pytest.mark.usefixtures("few_points")
@pytest.mark.parametrize("effect", ["difference", "ratio"])
def test_another_arm_to_compare_with_is_another_reference(trial, effect):
    options = {"treat": "arm", "effect": effect}
    res, other = (cr.IPWRA.from_formula("ill ~ x1", trial, reference=r, **options).fit() for r in ("none", "low"))
    ours = res.pairwise(against="low", adjust="holm")
    np.testing.assert_allclose(
        ours.loc[("high", "low")], other.pairwise(adjust="holm", against="reference").loc[("high", "low")]
    )
    assert set(ours.index.get_level_values("against")) == {"low"}
    groups = res.effects_by("g", trial, against="low")
    name = f"{res.estimand}[high vs low]"
    np.testing.assert_allclose(groups.loc[name], other.effects_by("g", trial).loc[f"{other.estimand}[high]"], rtol=1e-7)
    assert len(res.effects_by("g", trial, against=None)) == 18
    pd.testing.assert_frame_equal(res.effects_by("g", trial, against="none"), res.effects_by("g", trial))


def test_a_projection_at_values_is_its_columns_times_its_coefficients(trial):
    res = cr.AIPW.from_formula("y ~ x1 + x2", trial, treat="d").fit()
    line = res.effects_by("~ x1")
    at = res.effects_by("~ x1", at=[-1.0, 0.5])
    assert at.index.name == "x1"
    np.testing.assert_allclose(
        at["estimate"], line["estimate"].iloc[0] + np.array([-1, 0.5]) * line["estimate"].iloc[1]
    )
    assert res.effects_by("~ x1", at=[0.0])["std err"].item() == pytest.approx(line["std err"].iloc[0])
    two = res.effects_by("~ x1 + x2", at=pd.DataFrame({"x1": [0.0, 1.0], "x2": [1.0, 0.0]}))
    assert list(two.index) == [(0.0, 1.0), (1.0, 0.0)]
    grid = res.effects_by("~ bs(x1, df=4)", at=20)
    assert len(grid) == 20 and grid.index[0] == trial.x1.min() and grid.index[-1] == trial.x1.max()
    with pytest.raises(cr.OptionError, match="'g' is not numeric"):
        cr.AIPW.from_formula("y ~ x1 + g", trial.assign(g=trial.g.astype(str)), treat="d").fit().effects_by("~ g", at=3)


@pytest.mark.usefixtures("few_points")
def test_a_band_about_a_line_is_scheffe_between_one_test_and_all_directions(trial):
    """Over a wide range of a line's values the supremum is that of nearly all directions of the plane."""
    res = cr.AIPW.from_formula("y ~ x1", trial, treat="d").fit()
    at = np.r_[-np.logspace(2, -2, 15), 0, np.logspace(-2, 2, 15)]
    band = res.effects_by("~ x1", at=at, adjust="single-step")
    critical = ((band["0.975]"] - band["estimate"]) / band["std err"]).to_numpy()
    assert np.ptp(critical) < 1e-8
    assert critical[0] == pytest.approx(np.sqrt(-2 * np.log(0.05)), abs=0.02)  # of chi-squared with two degrees


@pytest.mark.usefixtures("few_points")
def test_differences_of_estimators_by_their_paired_resamples(trial):
    both = cr.compare("y ~ x1", trial, treat="d", estimators=["Unadjusted", "IPW", "AIPW"], n_boot=200)
    pd.testing.assert_frame_equal(both.pairwise(), both.differences)
    frame = both.pairwise(adjust="single-step", against="AIPW")
    assert list(frame.index) == [("Unadjusted", "AIPW"), ("IPW", "AIPW")]
    boot = both.boot_effects
    gaps = pd.DataFrame({name: boot[name] - boot["AIPW"] for name in ("Unadjusted", "IPW")})
    errors = gaps.std().to_numpy()
    statistic = frame["estimate"].to_numpy() / errors
    p, critical = adjusted(statistic, gaps.cov().to_numpy(), "single-step", 0.05, np.inf)
    np.testing.assert_allclose(frame["adjusted P"], p, rtol=1e-10)
    np.testing.assert_allclose(frame["0.975]"] - frame["estimate"], critical * errors, rtol=1e-8)


@pytest.mark.usefixtures("few_points")
def test_several_outcomes_by_their_influence_functions(trial):
    """By hand: without covariates the influence function of a difference of means is that of two averages."""
    fits = [cr.OutcomeRegression.from_formula(f"{y} ~ 1", trial, treat="d").fit() for y in ("y", "z", "ill")]
    frame = cr.simultaneous(fits)
    assert list(frame.index) == [("y", "ATE"), ("z", "ATE"), ("ill", "ATE")]
    named = cr.simultaneous(dict(zip(("rev", "conv", "ill"), fits, strict=True)))
    assert list(named.index.get_level_values("fit")) == ["rev", "conv", "ill"]
    assert np.array_equal(named.to_numpy(), frame.to_numpy())
    d, share = trial.d.to_numpy(), trial.d.mean()
    parts = []
    for y in ("y", "z", "ill"):
        means = trial.groupby("d")[y].mean()
        parts.append(np.where(d == 1, (trial[y] - means[1]) / share, -(trial[y] - means[0]) / (1 - share)))
    covariance = np.cov(parts, ddof=0) / len(d)
    errors = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(frame["std err"], errors, rtol=1e-9)
    p, critical = adjusted(frame["z"].to_numpy(), covariance, "single-step", 0.05, np.inf)
    np.testing.assert_allclose(frame["adjusted P"], p, rtol=1e-9)
    np.testing.assert_allclose(frame["0.975]"] - frame["estimate"], critical * errors, rtol=1e-9)
    np.testing.assert_allclose(
        cr.simultaneous(fits, adjust="holm")["adjusted P"], multipletests(frame["P>|z|"], method="holm")[1]
    )
    other = fits[1].model.fit(use_t=True)
    alone = cr.simultaneous([fits[0], other], adjust=None)
    for row, fit in zip(alone.to_numpy(), (fits[0], other), strict=True):
        np.testing.assert_allclose(row[-2:], fit.conf_int().loc["ATE"], rtol=1e-12)
        np.testing.assert_allclose(row[3], fit.pvalues["ATE"], rtol=1e-9)


@pytest.mark.usefixtures("few_points")
def test_an_outcome_twice_counts_once_and_one_fit_is_its_own_pairs(trial):
    data = trial.assign(minus=-3 * trial.y, site=np.arange(600) % 60)
    one, other = (
        cr.AIPW.from_formula(f"{y} ~ x1", data, treat="arm", reference="none", cluster="site").fit()
        for y in ("y", "minus")
    )
    alone = one.pairwise(adjust="single-step", against="reference")["adjusted P"]
    for fits in ([one], [one, other]):
        np.testing.assert_allclose(cr.simultaneous(fits)["adjusted P"].iloc[:3], alone, rtol=0, atol=1e-6)


def test_fits_of_other_rows_have_no_joint_distribution(trial):
    data = trial.assign(z=trial.z.mask(trial.z > 2))
    fits = [cr.AIPW.from_formula(f"{y} ~ x1", data, treat="d").fit() for y in ("y", "z")]
    with pytest.raises(cr.DesignError, match=r"data.dropna\(subset="):
        cr.simultaneous(fits)
    ratio = cr.AIPW.from_formula("ill ~ x1", data, treat="d", effect="ratio").fit()
    with pytest.raises(cr.DesignError, match="one `effect=` for both"):
        cr.simultaneous([fits[0], ratio])
    with pytest.raises(TypeError, match="simultaneous"):
        cr.simultaneous([1])
    with pytest.raises(cr.OptionError, match="simultaneous"):
        cr.simultaneous([])


@pytest.mark.parametrize("formulas", [("y ~ x1", "z ~ x1"), ("y ~ x1", "z ~ x2"), ("y ~ 1", "z ~ x1")])
def test_rows_in_another_order_have_no_joint_distribution_whatever_their_labels(trial, formulas):
    shuffled = trial.sample(frac=1, random_state=0).reset_index(drop=True)
    same, other = (
        [
            cr.OutcomeRegression.from_formula(formula, data, treat="d", reference=reference).fit()
            for formula, data, reference in zip(formulas, (trial, second), (0, 1), strict=True)
        ]
        for second in (trial, shuffled)
    )
    assert len(cr.simultaneous(same)) == 2
    with pytest.raises(cr.DesignError, match="differ in their rows"):
        cr.simultaneous(other)


@pytest.mark.parametrize("other", ["site", ["site", "visit"], ["month", "week"]])
def test_fits_with_other_clusters_have_no_joint_distribution(trial, other):
    row = np.arange(600)
    data = trial.assign(site=row % 60, month=row % 12, visit=row // 50, week=row % 52)
    first, second = (
        cr.AIPW.from_formula(f"{y} ~ x1", data, treat="d", cluster=cluster).fit()
        for y, cluster in (("y", ["site", "month"]), ("z", other))
    )
    for fits in ([first, second], [second, first]):
        with pytest.raises(cr.DesignError, match="differ in their rows, weights or clusters"):
            cr.simultaneous(fits)


@pytest.mark.usefixtures("few_points")
def test_jre_and_clusters_have_them_too(trial):
    data = trial.assign(site=np.arange(600) % 60)
    model = cr.IPWRA.from_formula("y ~ x1", data, treat="arm", reference="none", cluster="site")
    clustered = model.fit().pairwise(adjust="single-step", against="reference")
    assert (clustered["adjusted P"] >= clustered["P>|z|"]).all()
    joint = cr.JRE.from_formula("y ~ x1", trial, treat="d").fit(n_boot=50, n_replicates=20)
    frame = joint.effects_by("g", trial, adjust="holm")
    np.testing.assert_allclose(frame["adjusted P"], multipletests(frame["P>|z|"], method="holm")[1])
    assert joint.equivalence_test(-5, 5)["shown"].iloc[0]


@pytest.mark.parametrize(
    ("call", "typed"),
    [
        (lambda res: res.t_test("ATE[5] > -300"), "equivalence_test(low=-300)"),
        (lambda res: res.wald_test("POM[0] = 1, ATE[5] <= 2"), "equivalence_test(high=2)"),
        (lambda res: res.equivalence_test(), "equivalence_test("),
        (lambda res: res.equivalence_test(3, -3), "equivalence_test("),
        (lambda res: res.equivalence_test("3"), "equivalence_test("),
        (lambda res: res.equivalence_test(-3, 3, "ATE[5] = 1"), "low="),
        (lambda res: res.pairwise(against="7"), "against='0'"),
        (lambda res: res.effects_by("~ gesttime + number", at=[1]), "DataFrame"),
    ],
)
def test_what_cannot_be_is_told_with_what_to_type(litter, call, typed):
    with pytest.raises(cr.OptionError) as refused:
        call(litter)
    assert typed in str(refused.value).rsplit("\n", 1)[-1]
