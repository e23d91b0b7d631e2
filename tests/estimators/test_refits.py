"""Batched refits: against the estimators themselves on the resampled rows, and against the influence functions."""

from __future__ import annotations

import numpy as np
import pytest

import causalrisk as cr
from causalrisk.errors import Failure
from causalrisk.estimators.specification import AIPW, HAJEK, IPWRA, OUTCOME_REGRESSION, UNADJUSTED
from tests.conftest import RHS, simulate
from tests.problems import multiplicities, numeric_influence, problem

SEPARATE = [OUTCOME_REGRESSION, HAJEK, IPWRA, AIPW]
TARGETS = ["all", "treated", "control", "overlap", "matching", "entropy", "function", "frame"]
OUTCOMES = [("gaussian", None, "difference"), ("binomial", "logit", "odds_ratio"), ("poisson", "log", "ratio")]
OUTCOMES += [("binomial", "probit", "percent"), ("gamma", "log", "difference"), ("gaussian", "log", "difference")]
MODELS = ["logit", "probit", "cloglog", "multinomial", "known", "calibrated", "clipped"]


def combinations():
    """Every target with every outcome, and every target with every model: (arms, outcome, model, target)."""
    cases = [(2, outcome, "logit", target) for outcome in OUTCOMES for target in TARGETS]
    cases += [(2, OUTCOMES[0], model, target) for model in MODELS[1:] for target in TARGETS]
    cases += [(2, OUTCOMES[1], model, target) for model in ("probit", "known") for target in ("overlap", "frame")]
    cases += [
        (3, outcome, model, target)
        for outcome in OUTCOMES[:2]
        for model in ("multinomial", "known")
        for target in ("all", "control", "overlap", "matching", "entropy", "frame")
    ]
    cases += [(3, OUTCOMES[0], "calibrated", "all"), (3, OUTCOMES[0], "calibrated", "control")]
    return [
        pytest.param(*case, id="-".join([str(case[0]), *map(str, case[1][:2]), *case[2:]]))
        for case in cases
        if not (case[2] == "calibrated" and case[3] not in ("all", "treated", "control"))
    ]  # fmt: skip


def influence_error(estimate, refit, sample):
    """Largest relative error of the influence function against refits at weights a little off; at one they agree."""
    rows = np.arange(0, sample.n, 31)
    full, influence = numeric_influence(refit, sample, rows)
    np.testing.assert_allclose(full, estimate.values, rtol=1e-8, atol=1e-9 * np.abs(estimate.values).max())
    scale = np.abs(estimate.influence).max(axis=0)
    error = np.abs(influence - estimate.influence[rows]) / np.where(scale > 0, scale, 1.0)
    return error.max()


@pytest.mark.parametrize(("n_arms", "outcome", "model", "target"), combinations())
def test_influence_function_is_the_derivative_by_the_weights(n_arms, outcome, model, target):
    family, link, effect = outcome
    parts = problem(n_arms, family, link, model, target, effect)
    for spec in SEPARATE:
        assert influence_error(*parts.separate(spec), parts.sample) < 1e-6


@pytest.mark.parametrize("outcome", OUTCOMES[:3], ids=str)
@pytest.mark.parametrize(("offset", "target"), [("observed", "treated"), (0.3, "frame")])
def test_influence_functions_with_an_offset(outcome, offset, target):
    family, link, effect = outcome
    parts = problem(2, family, link, target=target, effect=effect, offset=offset)
    for spec in [UNADJUSTED, *SEPARATE] if offset == "observed" else [UNADJUSTED, OUTCOME_REGRESSION, HAJEK, IPWRA]:
        assert influence_error(*parts.separate(spec), parts.sample) < 1e-6


@pytest.mark.parametrize("model", [cr.OutcomeRegression, cr.Hajek, cr.IPWRA, cr.AIPW, cr.JRE])
def test_a_resample_of_every_row_once_is_the_estimate(model):
    """All of it: effects, means and the coefficients of both models, of which outcome regression has no propensity."""
    frame = simulate(80)
    res = model.from_formula(f"y ~ {RHS}", frame, treat="d").fit(resamples=np.ones((80, 2)))
    estimate = res._record.estimate
    np.testing.assert_allclose(res._record.boot.values, np.tile(estimate.values, (2, 1)), rtol=1e-8)
    assert res._record.covariance.shape == (len(estimate.values),) * 2


def repeated_rows(frame, counts):
    return frame.loc[frame.index.repeat(counts.astype(int))].reset_index(drop=True)


@pytest.mark.parametrize("model", [cr.OutcomeRegression, cr.Hajek, cr.IPWRA, cr.AIPW])
def test_resamples_equal_fits_of_the_repeated_rows(model):
    frame = simulate(200)
    draws = multiplicities(200, 5, 3)
    res = model.from_formula(f"y ~ {RHS}", frame, treat="d").fit(cov_type="bootstrap", resamples=draws)
    for j in range(5):
        again = model.from_formula(f"y ~ {RHS}", repeated_rows(frame, draws[:, j]), treat="d").fit()
        np.testing.assert_allclose(res.boot_params.iloc[j], again.params, rtol=1e-8)


def test_failed_resamples_are_recorded_and_leave_the_others_alone():
    parts = problem(n=60)
    sample = parts.sample
    _, refit = parts.separate(IPWRA)
    good = multiplicities(60, 1, 1)
    empty = good * (sample.arm == 0)[:, None]
    few = np.zeros((60, 1))
    few[[sample.slices[0].start, sample.slices[1].start]] = 30
    values = refit.refit(np.column_stack([good, empty, few]))
    assert values.failures[:2].tolist() == [Failure.OK, Failure.EMPTY_ARM]
    assert values.failures[2] != Failure.OK
    assert np.isnan(values.values[:, 1:]).all()
    np.testing.assert_allclose(values.values[:, 0], refit.refit(good).values[:, 0], rtol=1e-10)


def test_singular_outcome_design_is_a_reason():
    parts = problem(n=80)
    weights = np.ones((80, 1))
    weights[parts.sample.slices[1].start + 2 : parts.sample.slices[1].stop] = 0
    _, refit = parts.separate(OUTCOME_REGRESSION)
    assert refit.refit(weights).failures.tolist() == [Failure.SINGULAR_OUTCOME]


def test_an_effect_that_does_not_exist_is_a_reason():
    """A resample in which an arm has no events has no odds ratio."""
    parts = problem(family="binomial", effect="odds_ratio", n=120)
    _, refit = parts.separate(HAJEK)
    none = np.where((parts.sample.arm == 1) & (parts.sample.y == 1), 0.0, 1.0)[:, None]
    assert refit.refit(none).failures.tolist() == [Failure.NO_EFFECT]


def test_outcomes_without_a_finite_fit_are_reasons():
    parts = problem(family="binomial", n=200)
    sample = parts.sample
    all_zero = np.where((sample.arm == 1) & (sample.y == 1), 0.0, 1.0)
    above = sample.X.columns[:, 1] > 0
    separated = np.where((sample.arm == 1) & (above != (sample.y == 1)), 0.0, 1.0)
    _, refit = parts.separate(OUTCOME_REGRESSION)
    reasons = refit.refit(np.column_stack([np.ones(200), all_zero, separated])).failures.tolist()
    assert reasons == [Failure.OK, Failure.OUTCOME_SEPARATION, Failure.OUTCOME_SEPARATION]
