"""Trimming: the rows that rules keep, and other limits for a fitted model."""

from __future__ import annotations

import numpy as np
import pytest

import causalrisk as cr
from causalrisk.estimation.overlap import crump_cut, limits_at
from tests.conftest import RHS, simulate


def model(frame, kind=cr.IPWRA, **options):
    return kind.from_formula(f"y ~ {RHS}", frame, treat="d", **options)


@pytest.fixture(scope="module")
def frame():
    return simulate(300, seed=3)


@pytest.mark.parametrize("kind", [cr.IPWRA, cr.JRE])
def test_trimming_again_starts_from_all_rows(frame, kind):
    options = {"cov_type": "robust", "n_replicates": 40} if kind is cr.JRE else {}
    trimmed, full = model(frame, kind, trim=(0.2, 0.8)), model(frame, kind).fit(**options)
    again = trimmed.with_options(trim=None).fit(**options)
    assert (again.effect, again.effect_se, again.nobs) == (full.effect, full.effect_se, 300)
    assert (
        trimmed.with_options(trim="crump").fit(**options).effect
        == model(frame, kind, trim="crump").fit(**options).effect
    )
    with pytest.raises(cr.DesignError, match="trim"):
        trimmed.with_options(trim=(0.499, 0.501)).fit(**options)


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


@pytest.mark.filterwarnings("ignore::causalrisk.DesignWarning")
@pytest.mark.parametrize("other", [{"trim": "separated"}, {"propensity_loss": "calibrated"}])
def test_options_that_keep_other_terms_are_those_of_a_new_model_or_refused(frame, other):
    """A level without treated rows: trim="separated" keeps its term, to find the rows; a logit drops it."""
    data = frame.assign(site=np.where((frame.d == 0) & (frame.x1 > 0.8), "z", np.where(frame.x2 > 0, "a", "b")))

    def made(**options):
        return cr.IPWRA.from_formula("y ~ x1 + site", data, treat="d", **options)

    default = {"trim": None, "propensity_loss": "ml"}
    again, new = made(**other).with_options(**{name: default[name] for name in other}).fit(), made().fit()
    assert (again.effect, again.effect_se) == (new.effect, new.effect_se)
    if "trim" in other:
        with pytest.raises(cr.OptionError, match="needs columns that the model dropped"):
            made().with_options(**other).fit()
    else:
        assert made().with_options(**other).fit().effect == made(**other).fit().effect


def test_variables_of_the_formulas_are_known_after_trimming(frame):
    data = frame.assign(g=np.where(frame.x1 > 0, "high", "low"))
    res = cr.AIPW.from_formula(f"y ~ {RHS} + g", data, treat="d", trim=(0.2, 0.8)).fit()
    assert res.nobs < 300
    for by in ("g", "~ x2"):
        assert res.effects_by(by).equals(res.effects_by(by, data=data))
    assert res.differences_by("g").equals(res.differences_by("g", data=data))
    assert res.balance(by="g").equals(res.balance(by="g", data=data))
    with pytest.raises(cr.DesignError, match="differ from the model's data"):
        res.effects_by("g", data=data.assign(x1=data.x1 + 1))
