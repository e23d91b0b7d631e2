"""The joint objective of linear models from products of their columns, against its general expansion."""

from __future__ import annotations

import numpy as np
import pytest

from causalrisk.estimators.joint.minima import LinearModels, LinearObjectives, LinearSums
from causalrisk.estimators.joint.objective import ResampledWeights
from causalrisk.numerics.blocks import add_up
from causalrisk.propensity.replicates import BatchedWeights, ModelRows, Replicates, ShiftedLogitReplicates
from tests.estimators.joint.test_objective import Setting
from tests.problems import ERM, RISK, expand

CASES = [
    (2, "gaussian", None, "all", "difference"),
    (2, "gaussian", None, "overlap", "difference"),
    (2, "gaussian", None, "treated", "difference", "observed"),
    (2, "gaussian", None, "frame", "difference"),
    (3, "gaussian", None, "all", "difference"),
    (3, "gaussian", None, "overlap", "difference"),
]


def resampled(setting, m=4):
    """Several resamples of the setting's rows, and their weights under replicates."""
    sample, fit = setting.parts.sample, setting.parts.fit
    counts = np.random.default_rng(0).multinomial(sample.n, np.full(sample.n, 1 / sample.n), size=m).T.astype(float)
    gammas = [setting.states + 0.01 * j for j in range(m)]
    operator = BatchedWeights(sample.slices, fit.model, counts, gammas, 3)
    gamma = np.stack([fit.gamma + 0.01 * j for j in range(m)], axis=1)
    at = fit.model.weights_at(fit.model.predictors(gamma), counts)
    return ResampledWeights.of(counts / sample.n, at, operator, starts(sample, counts * at.w))


def starts(sample, weights):
    """Coefficients of IPWRA in each resample, by least squares."""
    y = sample.y if sample.offset is None else sample.y - sample.offset

    def fit(rows, w):
        root = np.sqrt(w[rows])
        return np.linalg.lstsq(root[:, None] * sample.X.columns[rows], root * y[rows], rcond=None)[0]

    return np.stack([np.stack([fit(rows, w) for rows in sample.slices]) for w in weights.T], axis=2)


@pytest.mark.parametrize("criterion", [RISK, ERM], ids=["risk", "erm"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[3]}")
def test_equations_are_those_of_the_general_expansion(case, criterion):
    setting = Setting(case, criterion)
    theta, some = setting.start + 0.1, resampled(setting)
    expected = expand(setting.objective, theta[..., None], some)
    models = LinearModels.of(theta, setting.parts.sample)
    sums = LinearSums.of(models.rows(setting.parts.sample), setting.criterion, some)
    linear = LinearObjectives(models, setting.criterion, sums)
    np.testing.assert_allclose(linear.starts.theta, some.start_theta, rtol=1e-9, atol=1e-11)
    strict, gram = linear.equations()
    units = setting.objective.row_units
    np.testing.assert_allclose(strict * units, expected.strict, rtol=1e-9, atol=1e-11 * np.abs(expected.strict).max())
    np.testing.assert_allclose(
        gram * units[:-1, None] * units, expected.gram, rtol=1e-9, atol=1e-11 * np.abs(expected.gram).max()
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[3]}")
def test_averages_and_biases_are_those_of_the_predictions(case):
    setting = Setting(case, RISK)
    sample, some = setting.parts.sample, resampled(setting)
    models = LinearModels.of(setting.start, sample)
    sums = LinearSums.of(models.rows(sample), setting.criterion, some)
    linear, step = (
        LinearObjectives(models, setting.criterion, sums),
        np.random.default_rng(1).random(setting.start.shape),
    )
    theta = np.repeat((setting.start + step)[..., None], 4, axis=2)
    offset = 0 if sample.offset is None else sample.offset[:, None]
    predicted = sample.X.columns @ theta + offset
    averages = (some.share * some.at.tilt * predicted).sum(axis=1)
    np.testing.assert_allclose(linear.averages(theta), averages, rtol=1e-10)
    error = some.share * some.moments.mean.w * (sample.own(predicted) - sample.y[:, None])
    biases = [error[rows].sum(axis=0) for rows in sample.slices]
    found = linear.biases(np.repeat(step[..., None], 4, axis=2))
    np.testing.assert_allclose(found, biases, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("case", [CASES[0], CASES[3]], ids=["2", "3"])
def test_blocks_of_rows_and_few_combinations_of_replicates_make_the_same_equations(case):
    setting = Setting(case, RISK)
    sample, fit = setting.parts.sample, setting.parts.fit
    counts = np.random.default_rng(0).multinomial(sample.n, np.full(sample.n, 1 / sample.n), size=4).T.astype(float)
    gamma = np.repeat(fit.gamma[:, None], 4, axis=1)
    models, units, found = LinearModels.of(setting.start, sample), setting.objective.row_units, []
    near = fit.gamma[:, None] + 0.02 * np.random.default_rng(1).standard_normal((len(fit.gamma), 300))
    near = Replicates(near, np.zeros(300, dtype=np.int8))
    start, whole = np.repeat(setting.start[..., None], 4, axis=2), fit.model.fixed_sums(counts)
    for penalty, places in ((None, [slice(0, 60)]), (60.0, [slice(0, 7), slice(7, 40), slice(40, 60)])):
        replicates, parts = ShiftedLogitReplicates.of(fit, near, penalty), []
        for place in places:
            block, own = sample.part(place), counts[place]
            rows = ModelRows(fit.model.part(place), block.slices)
            at, weights = replicates.weigh(rows, own, gamma, np.arange(4), whole)
            of = ResampledWeights.of(own / sample.n, at, weights, start)
            parts.append(LinearSums.of(models.rows(block), setting.criterion, of))
        sums = add_up(parts)
        strict, gram = LinearObjectives(models, setting.criterion, sums).equations()
        found.append((strict * units, gram * units[:-1, None] * units))
    assert len(weights.shifts.ones) < 150
    for first, second in zip(*found, strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-9, atol=1e-11 * np.abs(first).max())
