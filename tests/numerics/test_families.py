"""Links of binary models: odds, slopes and likelihoods agree with the probabilities, also far out."""

from __future__ import annotations

import numpy as np
import pytest

from causalrisk.numerics.families import BINARY_LINKS

ETA, STEP = np.linspace(-8, 2.5, 43), 1e-5


@pytest.mark.parametrize("link", BINARY_LINKS.values(), ids=BINARY_LINKS)
@pytest.mark.parametrize("arm", [0, 1])
def test_odds_slopes_and_likelihood_are_those_of_the_probabilities(link, arm):
    d = np.full_like(ETA, arm)
    own, other = np.exp(link.log_likelihood(ETA, d)), np.exp(link.log_likelihood(ETA, 1 - d))
    np.testing.assert_allclose(own + other, 1.0, rtol=1e-13)
    np.testing.assert_allclose(link.probability(ETA), own if arm else other, rtol=1e-12)
    np.testing.assert_allclose(link.own_odds(ETA, d), other / own, rtol=1e-12)
    slopes = (link.own_odds, link.own_odds_slope), (link.log_likelihood, lambda *at: link.score(*at)[0])
    for function, slope in slopes:
        moved = (function(ETA + STEP, d) - function(ETA - STEP, d)) / (2 * STEP)
        np.testing.assert_allclose(slope(ETA, d), moved, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("link", BINARY_LINKS.values(), ids=BINARY_LINKS)
def test_far_out_nothing_is_undefined_or_warned_of(link):
    far, ones = np.array([-600.0, -30.0, 30.0, 600.0]), np.ones(4)
    for d in (ones, 0 * ones):
        assert not np.isnan(link.log_likelihood(far, d)).any()
        assert (link.own_odds(far, d) >= 0).all()
