"""JRE on large samples: points in the place of replicates, and a part of the rows that chooses the anchor."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

import causalrisk.estimators.fit as fitting
from causalrisk import IPWRA, JRE, scan
from causalrisk.estimators.joint import problem, train
from causalrisk.numerics.blocks import spread_evenly
from causalrisk.propensity.replicates import Replicates
from tests.studies.study_large import EVERY, compared

N = 6000


def data(n=N, seed=1):
    rng = np.random.default_rng(seed)
    x1, x2 = rng.normal(size=(2, n))
    d = (rng.random(n) < 1 / (1 + np.exp(-0.6 * x1))).astype(int)
    y = x1 + 0.5 * x1**2 + x2 + d * (1 + 0.5 * x2) + rng.normal(size=n)
    return pd.DataFrame({"y": y, "d": d, "x1": x1, "x2": x2, "g": np.arange(n) // 2, "w": rng.integers(1, 4, n)})


@pytest.fixture
def large(monkeypatch):
    """Samples of a thousand rows count as large; the anchor is chosen by two thousand."""
    monkeypatch.setattr(fitting, "LARGE", 1000)
    for module in (train, problem):
        monkeypatch.setattr(module, "ENOUGH", 2000)


def test_means_over_the_points_are_those_of_the_normal_distribution():
    rng = np.random.default_rng(0)
    gamma, root = rng.normal(size=3), rng.normal(size=(3, 3))
    points = Replicates.of_normal(gamma, root @ root.T)
    assert points.count == 6 and points.cubature
    away = points.gamma - gamma[:, None]
    np.testing.assert_allclose(away.mean(axis=1), 0, atol=1e-14)
    np.testing.assert_allclose(away @ away.T / 6, root @ root.T, rtol=1e-12)
    cubes = np.einsum("ib,jb,kb->ijk", away, away, away)
    np.testing.assert_allclose(cubes, 0, atol=1e-12)


def test_points_have_half_the_robust_errors_of_the_score(large):
    res = JRE.from_formula("y ~ x1 + x2", data(), treat="d").fit(cov_type="robust")
    replicates, start = res._record.joint.replicates, IPWRA.from_formula("y ~ x1 + x2", data(), treat="d").fit()
    away = replicates.gamma - res._record.joint.problem.weight_fit.gamma[:, None]
    gamma = start._record.estimate.block("gamma")
    whole = fitting.with_robust(start._record).robust[gamma, gamma]
    np.testing.assert_allclose(away @ away.T / away.shape[1], whole / 4, rtol=1e-10)
    assert res.mc_se == 0 and "6 normal points" in str(res.summary()) and "normal distribution" in res.methods()


@pytest.mark.parametrize(
    "options", [{"n_replicates": 30}, {"objective": "erm", "n_replicates": 30}, {"replicates": "ones"}], ids=str
)
def test_draws_that_are_asked_for_are_drawn(large, options):
    if "replicates" in options:
        options = {"replicates": np.random.default_rng(0).exponential(size=(N, 30))}
    replicates = JRE.from_formula("y ~ x1 + x2", data(), treat="d").fit(cov_type="robust", **options)._joint.replicates
    assert replicates.count == 30 and not replicates.cubature


@pytest.mark.parametrize(
    "options",
    [{}, {"target": "treated"}, {"weights": "w", "weight_type": "frequency"}, {"propensity_loss": "calibrated"}],
    ids=str,
)
def test_effects_are_those_of_many_draws_and_all_rows(large, monkeypatch, options):
    model = JRE.from_formula("y ~ x1 + x2", data(), treat="d", **options)
    quick = model.fit(cov_type="robust")
    for module in (train, problem):
        monkeypatch.setattr(module, "ENOUGH", N)
    whole = model.fit(cov_type="robust", n_replicates=400)
    assert abs(quick.effect - whole.effect) < 0.05 * whole.bse.iloc[0]
    np.testing.assert_allclose(quick.bse.iloc[0], whole.bse.iloc[0], rtol=0.01)


@pytest.mark.parametrize("options", [{}, {"cluster": "g"}, {"target": "overlap"}], ids=str)
def test_scans_are_as_memory(large, options):
    frame = data()
    blocks = scan([frame[:2500], frame[2500:2600], frame[2600:]])
    errors = "cluster" if "cluster" in options else "robust"
    ours, theirs = (
        JRE.from_formula("y ~ x1 + x2", rows, treat="d", **options).fit(cov_type=errors) for rows in (blocks, frame)
    )
    np.testing.assert_allclose(ours.params, theirs.params, rtol=1e-11)
    np.testing.assert_allclose(ours.bse, theirs.bse, rtol=1e-9)
    pd.testing.assert_frame_equal(ours.anchor_path(), theirs.anchor_path(), rtol=1e-6)


def test_a_part_of_the_rows_is_even():
    numbers = np.arange(100_000)
    for share, period in itertools.product((0.02, 0.25, 0.5), (2, 3, 7, 10)):
        taken = spread_evenly(numbers, share)
        counts = np.bincount(taken % period, minlength=period)
        assert abs(len(taken) - share * 100_000) <= 2
        assert np.ptp(counts) <= 10  # of some thousands; random rows differ by a hundred
    every = spread_evenly(numbers, 0.1)
    np.testing.assert_array_equal(
        spread_evenly(numbers[5000:9000], 0.1), every[(every >= 5000) & (every < 9000)] - 5000
    )


def test_a_part_of_the_rows_leaves_variances_as_they_are(large, monkeypatch):
    model = JRE.from_formula("y ~ x1 + x2", data(), treat="d")
    part = model.fit(cov_type="robust").anchor_path()
    for module in (train, problem):
        monkeypatch.setattr(module, "ENOUGH", N)
    whole = model.fit(cov_type="robust").anchor_path()
    column = next(name for name in whole if "std err" in name)
    np.testing.assert_allclose(part[column].iloc[:3], whole[column].iloc[:3], rtol=0.1)
    assert not np.allclose(part[column].iloc[:3], whole[column].iloc[:3], rtol=1e-6)


def test_study_of_large_samples_runs():
    table = compared(2500, 1, designs={"strong": EVERY["strong"]})
    assert np.isfinite(table.to_numpy()).all()
