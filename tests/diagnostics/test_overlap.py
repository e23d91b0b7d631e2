"""Overlap by arm, and the limits of Crump et al."""

from __future__ import annotations

import re
from html import unescape

import numpy as np
import pandas as pd
import pytest

import causalrisk as cr
from causalrisk.estimation.overlap import ArmWeights, crump_cut, limits_at, poor_overlap
from causalrisk.estimation.specification import EVERYBODY, OVERLAP
from causalrisk.report.explain import read_overlap
from tests.conftest import RHS, simulate


def model(frame, kind=cr.IPWRA, **options):
    return kind.from_formula(f"y ~ {RHS}", frame, treat="d", **options)


@pytest.fixture(scope="module")
def frame():
    return simulate(300, seed=3)


def test_overlap_by_hand(frame):
    res = model(frame).fit()
    table, scores, w = res.overlap(), res.propensity_scores, res.importance_weights
    low, high = scores.groupby(frame.d).min().max(), scores.groupby(frame.d).max().min()
    crump = limits_at(crump_cut(np.stack([1 - scores, scores]), np.ones(len(frame))))
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
    low, high = limits_at(crump_cut(np.stack([1 - e, e]), np.ones(2000)))
    spread = 1 / (e * (1 - e))

    def variance(alpha):  # of the effect among the scores kept, which the limits minimise
        kept = (e >= alpha) & (e <= 1 - alpha)
        return spread[kept].mean() / kept.mean()

    grid = np.linspace(0.001, 0.4, 4000)
    assert variance(low) <= min(map(variance, grid)) * (1 + 1e-9)
    assert abs(low + high - 1) < 1e-12 and 0.02 < low < 0.2
    bound = 1 / (low * (1 - low))
    np.testing.assert_allclose(bound, 2 * spread[spread <= bound].mean())


LALONDE = "re78 ~ age + educ + black + hispan + married + nodegree + re74 + re75"


@pytest.mark.parametrize(("everybody", "share", "warned"), [
    (True, 0.30, True), (True, 0.35, False), (False, 0.19, True), (False, 0.30, False),
])  # fmt: skip
def test_the_least_effective_n_is_a_third_for_everybody_and_a_fifth_else(everybody, share, warned):
    arm = ArmWeights(100, 100 * share, 9.0, 0.1, 0.1, 0, 9.0, 100.0, 0.01)
    assert bool(poor_overlap([arm], ["a"], EVERYBODY if everybody else OVERLAP)) == warned


def far_controls(n=6000, level=5.0, slope=1.5, seed=0):
    """Few treated, a correct logit with scores below a half, and many controls far from the treated."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    d = (rng.random(n) < 1 / (1 + np.exp(level - slope * x))).astype(int)
    return pd.DataFrame({"y": x + d + rng.normal(size=n), "x": x, "d": d})


@pytest.mark.parametrize(("target", "given"), [("treated", {}), ("control", {"reference": 1}),
                                              ("b", {"reference": "a"})])  # fmt: skip
def test_controls_far_from_a_target_group_are_no_poor_overlap(target, given, tmp_path, unprinted_plots):
    frame, third = far_controls(), target == "b"
    frame = frame.assign(d=frame.d.map({0: "a", 1: "b"}).mask(frame.index % 3 == 0, "c")) if third else frame
    res = cr.AIPW.from_formula("y ~ x", frame, treat="d", target=target, **given).fit()  # warnings are errors
    table = res.overlap()
    name = "b" if third else "1"
    few, others = table.loc[name, "n"], table["effective n"].drop(name)
    worst, many = others.idxmin(), others.min()
    assert many > few and (table["effective n"] / table["n"]).min() < 0.2
    page = " ".join(res.report(tmp_path / "report.html").read_text("utf-8").split())
    size = f"group {worst} has an effective n of {many:.0f}. Target group {name} has {few} rows."
    assert f"Overlap is good: after weighting, {size}" in page
    assert f" of {few} rows of group {name} ha" in page


def test_poor_overlap_with_a_target_group_names_its_rows(tmp_path, unprinted_plots):
    frame = far_controls(2000, 2.0, 3.0, seed=2)
    model = cr.IPW.from_formula("y ~ 1", frame, treat="d", propensity="x", target="treated")
    with pytest.warns(cr.OverlapWarning) as caught:
        res = model.fit()
    row, n = res.overlap().loc["0"], int(res.overlap().loc["1", "n"])
    size = f"the effective n of group '0' is only {row['effective n']:.1f}; the target group '1' has {n} rows."
    assert row["n"] > n and size in str(caught[0].message)
    page = res.report(tmp_path / "report.html").read_text("utf-8")
    assert f"Overlap is poor: after weighting, group 0 has an effective n of {row['effective n']:.0f}. " in page


@pytest.mark.parametrize(("slope", "word"), [(0.3, "good"), (1.0, "limited"), (2.5, "poor")])
def test_one_rule_for_weighting_and_matching(slope, word, tmp_path, unprinted_plots):
    frame = far_controls(600, 0.0, slope, seed=1)
    model = cr.Matching.from_formula("y ~ x", frame, treat="d", target="treated")
    if word == "poor":
        with pytest.warns(cr.OverlapWarning, match="after matching, the effective n of group '0' is only"):
            res = model.fit()
    else:
        res = model.fit()
    table = res.overlap()
    size = table.loc["0", "effective n"] / table["n"].min()
    assert {"good": size > 1 / 3, "limited": 0.2 < size < 1 / 3, "poor": size < 0.2}[word]
    page = res.report(tmp_path / "report.html").read_text("utf-8")
    assert f"Overlap is {word}: after matching" in page
    assert "Test of the propensity model" not in page  # matching on the covariates uses none


@pytest.mark.parametrize(("trim", "said"), [(None, True), ("crump", False)])
def test_rows_outside_the_limits_are_told_only_before_trimming(trim, said, tmp_path, unprinted_plots):
    frame = far_controls(2000, 0.0, 1.4)
    res = cr.IPW.from_formula("y ~ 1", frame, treat="d", propensity="x", trim=trim).fit()
    share = res.overlap()["outside crump"].sum() / res.nobs
    assert share > 0.05 if trim is None else share > 0
    page = res.report(tmp_path / "report.html").read_text("utf-8")
    assert ("outside the limits of Crump" in page) == said


def test_a_few_rows_outside_the_limits_are_not_told():
    frame = pd.DataFrame({"n": [10, 10], "effective n": [10.0, 10.0], "outside support": 0, "outside crump": [1, 0]})
    assert "limits" not in " ".join(read_overlap(frame, False, EVERYBODY, "").texts)
    texts = " ".join(read_overlap(frame.head(1), False, EVERYBODY, "").texts)
    assert "Scores of 1 of 10 rows (10%) are outside the limits of Crump et al. (2009)." in texts


def coin_flip(n=1000, sd=1.3):
    """An experiment whose survey weights are far more uneven than its treatment."""
    rng = np.random.default_rng(1)
    x, d, w = rng.normal(size=n), rng.integers(0, 2, n), np.exp(sd * rng.normal(size=n))
    return pd.DataFrame({"y": x + d + rng.normal(size=n), "x": x, "d": d, "w": w})


def kish(w):
    return w.sum() ** 2 / (w**2).sum()


@pytest.mark.parametrize("sd", [0.65, 1.3])
def test_survey_weights_are_no_matter_of_overlap(sd):
    frame, options = coin_flip(sd=sd), {"treat": "d", "weights": "w", "weight_type": "probability"}
    res = cr.IPWRA.from_formula("y ~ x", frame, **options).fit()  # warnings are errors
    table, total = res.overlap(), res.importance_weights * frame.w / frame.w.mean()
    for arm in (0, 1):
        rows, row = frame.d == arm, table.loc[str(arm)]
        assert row["survey n"] == pytest.approx(kish(frame.w[rows])) and row["n"] == rows.sum()
        assert row["effective n"] == pytest.approx(kish(total[rows]))
        assert row["largest weight"] == pytest.approx(total[rows].max())
        assert row["largest share"] == pytest.approx(total[rows].max() / total[rows].sum())
    assert (table["effective n"] / table["n"] < [0.75, 0.75]).all()  # which were called thin or bad
    assert read_overlap(table, False, EVERYBODY, "").verdict == "good"
    blocks = cr.IPWRA.from_formula("y ~ x", cr.scan([frame[:700], frame[700:]]), **options).fit()
    np.testing.assert_allclose(blocks.overlap(), table, rtol=1e-7)


def test_overlap_is_bad_under_survey_weights_where_it_is_without():
    rng = np.random.default_rng(0)
    frame = coin_flip().assign(d=lambda f: (rng.random(len(f)) < 1 / (1 + np.exp(-4 * f.x))).astype(int))
    for own in ({}, {"weights": "w", "weight_type": "probability"}):
        model = cr.IPWRA.from_formula("y ~ x", frame, treat="d", **own)
        with pytest.warns(cr.OverlapWarning):
            res = model.fit()
        assert read_overlap(res.overlap(), True, EVERYBODY, "").verdict == "bad"


def arms(n=3000):
    """Three arms of which the last is rare where x2 is zero."""
    rng = np.random.default_rng(2)
    x1, x2 = rng.normal(size=n), rng.integers(0, 2, n)
    utility = np.column_stack([np.zeros(n), 0.3 * x1, 5.0 * x2 - 5])
    d = np.array(["a", "b", "c"])[(utility + rng.gumbel(size=(n, 3))).argmax(axis=1)]
    return pd.DataFrame({"y": x1 + x2 + rng.normal(size=n), "x1": x1, "x2": x2, "d": d})


def advice_of(data, formula, **options):
    with pytest.warns(cr.OverlapWarning) as caught:
        cr.IPWRA.from_formula(formula, data, **options).fit()
    return str(caught[0].message).splitlines()[-1]


def test_a_fit_is_not_told_to_trim_again_by_crumps_rule(tmp_path, unprinted_plots):
    rng = np.random.default_rng(3)
    x = rng.normal(size=200)
    data = pd.DataFrame({"x": x, "d": (rng.random(200) < 1 / (1 + np.exp(3 * x + 3))).astype(int)})
    data["y"] = x + rng.normal(size=200)
    options, left = {"treat": "d", "trim": "crump"}, '`target="overlap"` or `target="treated"`.'
    assert advice_of(data, "y ~ x", **options) == f"Try logarithms or squares in propensity=, or use {left}"
    with pytest.warns(cr.OverlapWarning):
        res = cr.IPWRA.from_formula("y ~ x", data, **options).fit()
    page = re.sub("</?code>", "`", unescape(res.report(tmp_path / "report.html").read_text("utf-8")))
    assert f"Try logarithms or squares in propensity=, or use {left}" in page


@pytest.mark.parametrize("scanned", [False, True])
def test_other_populations_are_offered(scanned):
    cps = cr.datasets.load_lalonde("cps3")
    for data, formula, options, offered in (
        (cps, LALONDE, {"treat": "treat"}, ["overlap", "treated"]),
        (cps, LALONDE, {"treat": "treat", "propensity_loss": "calibrated"}, ["treated"]),
        (cps.assign(treat=1 - cps.treat), LALONDE, {"treat": "treat", "target": "treated"}, ["overlap"]),
        (arms(), "y ~ x1 + x2", {"treat": "d", "reference": "a"}, ["overlap"]),
    ):
        source = cr.scan([data[: len(data) // 2], data[len(data) // 2 :]]) if scanned else data
        assert re.findall('target="(.*?)"', advice_of(source, formula, **options)) == offered
