"""Overlap by arm, and the limits of Crump et al."""

from __future__ import annotations

import numpy as np
import pytest

import causalrisk as cr
from causalrisk.propensity.limits import ArmWeights, crump_limits, overlap_message
from causalrisk.report.readings import read_overlap
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


LALONDE = "re78 ~ age + educ + black + hispan + married + nodegree + re74 + re75"


def test_a_fit_whose_report_says_bad_has_warned():
    """The survey controls of LaLonde: 58 of 185 treated are left once weighted; in a trial nearly all are."""
    model = cr.IPWRA.from_formula(LALONDE, cr.datasets.load_lalonde("cps3"), treat="treat")
    with pytest.warns(cr.OverlapWarning, match=r"the 185 rows of arm '1' weigh as much as 58\.3 rows"):
        res = model.fit()
    reading = read_overlap(res.overlap(), True, True)
    assert reading.verdict == "bad"
    fine = cr.IPWRA.from_formula(LALONDE, cr.datasets.load_lalonde("experimental"), treat="treat").fit()
    assert read_overlap(fine.overlap(), False, True).verdict != "bad"


@pytest.mark.parametrize(("everybody", "share", "warned"), [
    (True, 0.30, True), (True, 0.35, False), (False, 0.19, True), (False, 0.30, False),
])  # fmt: skip
def test_the_least_effective_n_is_a_third_for_everybody_and_a_fifth_else(everybody, share, warned):
    arm = ArmWeights(100, 100 * share, 9.0, 0.1, 0.1, 0, 9.0)
    assert bool(overlap_message([arm], ["a"], (0, 100) if everybody else None)) == warned


def test_the_limits_of_the_warnings_are_in_their_docstrings():
    for kind, word in ((cr.OverlapWarning, "third"), (cr.DesignWarning, "10"), (cr.MonteCarloWarning, "5%"),
                       (cr.ResampleWarning, "200")):  # fmt: skip
        assert word in kind.__doc__
