"""Overlap by arm, and the limits of Crump et al."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

import causalrisk as cr
from causalrisk.estimation.overlap import (
    SMALL_EFFECTIVE,
    SMALL_FOR_ALL,
    ArmWeights,
    crump_cut,
    limits_at,
    poor_overlap,
)
from causalrisk.report.explain import read_overlap
from tests.conftest import RHS, simulate

pytestmark = pytest.mark.filterwarnings("ignore::causalrisk.errors.MonteCarloWarning")


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
    assert bool(poor_overlap([arm], ["a"], SMALL_FOR_ALL if everybody else SMALL_EFFECTIVE)) == warned


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
    assert read_overlap(table, False, True).verdict == "good"
    blocks = cr.IPWRA.from_formula("y ~ x", cr.scan([frame[:700], frame[700:]]), **options).fit()
    np.testing.assert_allclose(blocks.overlap(), table, rtol=1e-7)


def test_overlap_is_bad_under_survey_weights_where_it_is_without():
    rng = np.random.default_rng(0)
    frame = coin_flip().assign(d=lambda f: (rng.random(len(f)) < 1 / (1 + np.exp(-4 * f.x))).astype(int))
    for own in ({}, {"weights": "w", "weight_type": "probability"}):
        model = cr.IPWRA.from_formula("y ~ x", frame, treat="d", **own)
        with pytest.warns(cr.OverlapWarning):
            res = model.fit()
        assert read_overlap(res.overlap(), True, True).verdict == "bad"


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
