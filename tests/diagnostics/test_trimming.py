"""Crump's rule at its limits."""

from __future__ import annotations

import numpy as np
import pytest

import causalrisk as cr
from causalrisk.estimation.overlap import crump_cut, limits_at
from tests.conftest import RHS, simulate

pytestmark = pytest.mark.filterwarnings("ignore::causalrisk.errors.MonteCarloWarning")


def model(frame, kind=cr.IPWRA, **options):
    return kind.from_formula(f"y ~ {RHS}", frame, treat="d", **options)


def test_a_score_of_one_to_the_last_digit_left_crumps_rule_without_a_limit():
    """NumPy's division by zero was shown, and the rule, whose cut became infinite, kept every row."""

    def limits(e):
        return limits_at(crump_cut(np.stack([1 - e, e]), np.ones(6)))

    scores = np.array([0.3, 0.4, 0.5, 0.6, 0.7, 1.0])
    low, high = limits(scores)
    assert (low, high) == limits(np.array([0.3, 0.4, 0.5, 0.6, 0.7, 1 - 1e-9]))
    assert 0 < low < 0.3
    assert high < 1


def test_crumps_rule_for_calibrated_weights_is_about_the_score_of_the_treated():
    """Each arm has a score of its own there; the cut was made of both, with a sum of inverses that no row has."""
    data = simulate(400, seed=11)
    e = np.sort(model(data, propensity_loss="calibrated").fit().propensity_scores.to_numpy())
    cost = np.sort(1 / (e * (1 - e)))
    means = np.cumsum(cost) / np.arange(1, len(cost) + 1)
    kept = np.flatnonzero(cost <= 2 * means)[-1] + 1
    assert kept < len(cost)
    assert model(data, propensity_loss="calibrated", trim="crump").fit().nobs == kept
