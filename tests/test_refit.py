"""Batched refits: against the estimators themselves on the resampled rows, and against the influence functions."""

from __future__ import annotations

import numpy as np
import pytest

import causalrisk as cr
from causalrisk.criterion import Criterion
from causalrisk.estimators import AIPW, HAJEK, IPWRA, OUTCOME_REGRESSION, estimate_separately
from causalrisk.inference.resample import NESTED_STREAM, Resampler, seed_sequence
from causalrisk.joint import deviation_from, estimate_jointly
from causalrisk.ledger import Reason
from causalrisk.linalg import pairwise_columns
from causalrisk.propensity import fit_propensity, refit_batch
from causalrisk.refit import (
    GeneralReplicates,
    JointRefitter,
    PropensityRefitter,
    SeparableReplicates,
    SeparateRefitter,
    nested_replicates,
    replace_weights,
    shifted_replicates,
)
from causalrisk.replicates import Replicates
from causalrisk.sample import make_sample
from tests.conftest import RHS, simulate

SEPARATE = [OUTCOME_REGRESSION, HAJEK, IPWRA, AIPW]
CRITERIA = [Criterion(1.0, 300.0**2, False), Criterion(0.3, 3000.0, True)]


def numbers(n=300, link="logit", seed=0, n_rep=25):
    """Sample, propensity fit and replicates of simulated data."""
    frame = simulate(n, seed=seed)
    X = np.column_stack([np.ones(n), frame[["x1", "x2", "x3"]]])
    sample = make_sample(frame.y.to_numpy(), X, X, frame.d.to_numpy(), np.ones(n))
    fit = fit_propensity(sample.propensity, sample.treated, sample.weights, link)
    draws = multiplicities(n, n_rep, seed + 1)
    batch = refit_batch(fit.basis, pairwise_columns(fit.basis.columns), sample.treated, draws, fit.link, fit.gamma)
    return sample, fit, Replicates(batch.gamma, batch.reasons)


def multiplicities(n, m, seed):
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=m).T.astype(float)


def joint_refitter(sample, fit, replicates, criterion, general=False):
    start = estimate_separately(sample, IPWRA, fit)
    deviation = deviation_from(sample, start)
    if general:
        gamma_of = shifted_replicates(fit, replicates)
        spread = GeneralReplicates(sample, fit, deviation.residual, gamma_of, replicates.count)
    else:
        rows = np.column_stack([sample.outcome.columns, deviation.residual])
        spread = SeparableReplicates(sample, fit, replicates, rows)
    return JointRefitter(sample, fit, start, criterion, spread)


def bumps(n, rows, size=1e-5):
    weights = np.ones((n, 2 * len(rows)))
    weights[rows, 2 * np.arange(len(rows))] += size
    weights[rows, 2 * np.arange(len(rows)) + 1] -= size
    return weights


def numeric_influence(refit, n, rows, size=1e-5):
    """Derivative of every estimate by the weight of a row, times n."""
    values = refit(bumps(n, rows, size), 0).values
    return (values[:, 0::2] - values[:, 1::2]).T / (2 * size) * n


@pytest.mark.parametrize("link", ["logit", "probit", "cloglog"])
@pytest.mark.parametrize("spec", SEPARATE, ids=lambda s: s.name)
def test_influence_function_is_the_derivative_by_the_weights(spec, link):
    sample, fit, _ = numbers(link=link)
    propensity = fit if spec.uses_propensity else None
    estimate = estimate_separately(sample, spec, propensity)
    refit = SeparateRefitter(sample, spec, propensity, estimate)
    rows = np.arange(0, sample.n, 17)
    numeric = numeric_influence(refit, sample.n, rows)
    scale = np.abs(estimate.influence).max(axis=0)
    assert np.abs((numeric - estimate.influence[rows]) / scale).max() < 1e-6


@pytest.mark.parametrize("link", ["logit", "probit", "cloglog"])
@pytest.mark.parametrize("criterion", CRITERIA, ids=["erm", "mse"])
def test_joint_influence_function_is_the_derivative_by_the_weights(criterion, link):
    sample, fit, replicates = numbers(link=link)
    start = estimate_separately(sample, IPWRA, fit)
    joint = estimate_jointly(sample, fit, start, replicates, criterion, "least_squares")
    rows = np.arange(0, sample.n, 17)
    refit = joint_refitter(sample, fit, replicates, criterion, general=link != "logit")
    numeric = numeric_influence(refit, sample.n, rows)
    scale = np.abs(joint.estimate.influence).max(axis=0)
    assert np.abs((numeric - joint.estimate.influence[rows]) / scale).max() < 1e-5


@pytest.mark.parametrize("criterion", CRITERIA, ids=["erm", "mse"])
def test_separable_replicates_equal_the_general_path(criterion):
    sample, fit, replicates = numbers()
    draws = multiplicities(sample.n, 6, 9)
    separable = joint_refitter(sample, fit, replicates, criterion)(draws, 0)
    general = joint_refitter(sample, fit, replicates, criterion, general=True)(draws, 0)
    np.testing.assert_allclose(separable.values, general.values, rtol=1e-9, atol=1e-10)


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


@pytest.mark.parametrize("criterion", CRITERIA, ids=["erm", "mse"])
def test_joint_resample_equals_scipy_on_the_reweighted_sample(criterion):
    """QR of the batched rows against least_squares on the resample's own data, replicates shifted."""
    sample, fit, replicates = numbers()
    draws = multiplicities(sample.n, 3, 4)
    values = joint_refitter(sample, fit, replicates, criterion)(draws, 0).values
    for j in range(3):
        kept = draws[:, j] > 0
        again = make_sample(
            sample.y[kept],
            sample.outcome.columns[kept],
            sample.propensity.columns[kept],
            sample.arm[kept],
            draws[kept, j],
        )
        own = fit_propensity(again.propensity, again.treated, again.weights, "logit")
        eta = sample.propensity.columns[kept] @ (replicates.gamma - fit.gamma[:, None])
        shift = np.linalg.lstsq(again.propensity.columns, eta, rcond=None)[0]
        start = estimate_separately(again, IPWRA, own)
        spread = Replicates(own.gamma[:, None] + shift, replicates.reasons)
        joint = estimate_jointly(again, own, start, spread, criterion, "least_squares")
        np.testing.assert_allclose(values[:3, j], joint.estimate.params, rtol=1e-8)


def test_nested_replicates_are_fitted_to_resamples_of_the_resample():
    sample, fit, _ = numbers(n_rep=4)
    resampler = Resampler("pairs", seed_sequence(0), np.ones(sample.n))
    refit = PropensityRefitter(sample, fit)
    weights = multiplicities(sample.n, 1, 5)[:, 0]
    gamma_of = nested_replicates(refit, lambda w, number: resampler.draw_within(w, number, 4))
    own = refit(weights[:, None]).gamma[:, 0]
    gamma = gamma_of(weights, own, 7)
    drawn = resampler.draw_within(weights, 7, 4)
    assert (drawn[weights == 0] == 0).all()
    np.testing.assert_array_equal(drawn.sum(axis=0), sample.n)
    for b in range(4):
        alone = fit_propensity(sample.propensity, sample.treated, np.maximum(drawn[:, b], 1e-300), "logit")
        np.testing.assert_allclose(gamma[:, b], alone.gamma, rtol=1e-7, atol=1e-9)
    assert not np.array_equal(drawn, resampler.draw_within(weights, 8, 4))
    assert resampler.generator(NESTED_STREAM, 7).random() != resampler.generator(NESTED_STREAM, 8).random()


@pytest.mark.filterwarnings("ignore::causalrisk.MonteCarloWarning")
def test_nested_and_shifted_standard_errors_agree():
    """Same resamples: the two differ by a few percent (nested draws its replicates afresh each time)."""
    model = cr.JRE.from_formula(f"y ~ {RHS}", simulate(250), treat="d")
    shifted = model.fit(n_boot=150, n_replicates=60)
    nested = model.fit(n_boot=150, n_replicates=60, bootstrap_replicates="nested")
    assert nested.effect == shifted.effect
    assert not np.array_equal(nested.boot_params, shifted.boot_params)
    assert nested.effect_se == pytest.approx(shifted.effect_se, rel=0.1)


def test_failed_resamples_are_recorded_and_leave_the_others_alone():
    sample, fit, replicates = numbers(60)
    refit = joint_refitter(sample, fit, replicates, CRITERIA[1])
    good = multiplicities(60, 1, 1)
    empty = good * (sample.treated == 0)[:, None]
    few = np.zeros((60, 1))
    few[[sample.slices[0].start, sample.slices[1].start]] = 30
    values = refit(np.column_stack([good, empty, few]), 0)
    assert values.reasons[0] == Reason.OK
    assert values.reasons[1] == Reason.EMPTY_ARM
    assert values.reasons[2] != Reason.OK
    assert np.isnan(values.values[:, 1:]).all()
    np.testing.assert_allclose(values.values[:, 0], refit(good, 0).values[:, 0], rtol=1e-10)
    estimate = estimate_separately(sample, IPWRA, fit)
    separate = SeparateRefitter(sample, IPWRA, fit, estimate)(np.column_stack([good, empty]), 0)
    assert separate.reasons.tolist() == [Reason.OK, Reason.EMPTY_ARM]


def test_singular_outcome_design_is_a_reason():
    sample, fit, _ = numbers(80)
    estimate = estimate_separately(sample, OUTCOME_REGRESSION, None)
    weights = np.ones((80, 1))
    weights[sample.slices[1].start + 2 : sample.slices[1].stop] = 0
    refits = SeparateRefitter(sample, OUTCOME_REGRESSION, None, estimate)(weights, 0)
    assert refits.reasons.tolist() == [Reason.SINGULAR_OUTCOME]
    assert replace_weights(sample, weights[:, 0]).total == weights.sum()
    assert fit.converged
