"""Effects on several scales beside fits of each, and the number needed to treat by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import causalrisk as cr

SCALES = ("difference", "ratio", "odds_ratio")


def drawn(n=400, effect=0.2, arms=2, seed=0):
    rng = np.random.default_rng(seed)
    x, d = rng.normal(size=n), rng.integers(0, arms, n)
    y = (rng.random(n) < 1 / (1 + np.exp(0.8 - effect * 5 * d - 0.5 * x))).astype(int)
    return pd.DataFrame({"y": y, "d": d, "x": x, "group": np.arange(n) // 10})


def made(data, kind=cr.AIPW, **options):
    return kind.from_formula("y ~ x", data, **{"treat": "d", "family": "binomial", "reference": 0} | options)


@pytest.mark.parametrize(
    ("options", "fit"),
    [
        ({}, {}),
        ({"cluster": "group"}, {"use_t": True}),
        ({"effect": "ratio"}, {}),
        ({}, {"n_boot": 49}),
        ({"arms": 3}, {"n_boot": 49, "bootstrap": "bayesian"}),
        ({"arms": 3}, {"n_boot": 49, "bootstrap": "multiplier"}),
        ({"effect": "percent"}, {"cov_type": "jackknife"}),
        ({"kind": cr.Matching, "family": "gaussian"}, {}),
    ],
)
def test_the_table_is_that_of_a_fit_on_each_scale(options, fit):
    model = made(drawn(arms=options.pop("arms", 2)), **options)
    table = model.fit(**fit).effects_on_scales(0.1)
    each = [model.with_options(effect=effect).fit(**fit) for effect in SCALES]
    expected = pd.concat([res.summary_frame(0.1).filter(regex="^ATE", axis=0) for res in each])
    pd.testing.assert_frame_equal(table, expected, rtol=1e-9)


@pytest.mark.parametrize(
    "fit", [{}, {"n_boot": 49}, {"n_boot": 49, "bootstrap": "multiplier"}, {"cov_type": "jackknife"}]
)
def test_pairs_have_the_numbers_of_the_summary_and_of_swapped_arms(fit):
    data = drawn()
    res = made(data, effect="odds_ratio").fit(**fit)
    swapped = made(data, effect="odds_ratio", reference=1).fit(**fit)
    expected = res.summary_frame().iloc[0].to_numpy()
    np.testing.assert_allclose(res.pairwise(against="reference").iloc[0], expected, rtol=1e-9)
    if "n_boot" not in fit:  # groups have robust errors then
        np.testing.assert_allclose(res.effects_by(np.ones(len(data))).iloc[0, 1:], expected, rtol=1e-9)
    np.testing.assert_allclose(swapped.tvalues.iloc[0], -res.tvalues.iloc[0], rtol=1e-7)
    np.testing.assert_allclose(1 / swapped.conf_int().iloc[0, ::-1], res.conf_int().iloc[0], rtol=1e-7)


def test_scales_that_the_means_do_not_have_are_left_out():
    data = drawn()
    above = made(data.assign(y=data["y"] + 2), family="gaussian").fit().effects_on_scales()
    assert above.index.tolist() == ["ATE", "ATE ratio"]
    below = made(data.assign(y=data["y"] - 2), family="gaussian").fit().effects_on_scales()
    assert below.index.tolist() == ["ATE"]


def test_number_needed_to_treat_of_a_clear_effect():
    res = made(drawn()).fit()
    low, high = res.conf_int(0.1).loc["ATE"]
    assert low > 0
    np.testing.assert_allclose(res.nnt(0.1).loc["1 vs 0"], [1 / res.effect, 1 / high, 1 / low], rtol=1e-12)
    of_ratio = made(drawn(), effect="ratio").fit().nnt(0.1)
    np.testing.assert_allclose(of_ratio, res.nnt(0.1), rtol=1e-8)


def test_number_needed_to_treat_of_an_interval_that_holds_zero():
    res = made(drawn(effect=0.02)).fit()
    low, high = res.conf_int().loc["ATE"]
    assert low < 0 < high
    expected = [[1 / res.effect, 1 / high, np.inf], [1 / res.effect, -np.inf, 1 / low]]
    np.testing.assert_allclose(res.nnt(), expected, rtol=1e-12)
    excluded = 1 / (high * 1.01)  # an effect beyond the interval is a number outside of both half-lines
    assert not (res.nnt()["lower"].lt(excluded) & res.nnt()["upper"].gt(excluded)).any()


def test_what_has_no_table_or_number():
    data = drawn(200)
    joint = made(data, cr.JRE).fit(cov_type="robust")
    with pytest.raises(cr.UnavailableError, match="one scale"):
        joint.effects_on_scales()
    np.testing.assert_allclose(joint.nnt()["nnt"], 1 / joint.effect)
    with pytest.raises(cr.UnavailableError, match="0/1 outcome"):
        made(data.assign(y=data["x"] ** 2), family="gaussian").fit().nnt()
    with pytest.raises(cr.UnavailableError, match="not available for quantiles"):
        made(data.assign(y=data["x"] ** 2), cr.IPW, family="gaussian", effect="quantile").fit().effects_on_scales()


def test_counts_have_no_odds_ratio():
    """Their means may lie between 0 and 1."""
    data = drawn()
    model = made(data.assign(y=np.random.default_rng(0).poisson(0.4 + 0.2 * data.d)), cr.IPWRA, family="poisson")
    assert list(model.fit().effects_on_scales().index) == ["ATE", "ATE ratio"]
    with pytest.raises(cr.CausalRiskError, match="needs outcomes between 0 and 1; the largest is 3"):
        model.with_options(effect="odds_ratio").fit()
