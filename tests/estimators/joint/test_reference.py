"""The readable JRE against 256-bit arithmetic, numerical derivatives and refits; the fast code against it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import causalrisk as cr
from causalrisk.simulation.designs import Linear, find_design
from tests.conftest import jre_reference, reference_weights
from tests.estimators.joint.reference import (
    LADDER,
    Sample,
    choose_anchor,
    effect,
    fit_jre,
    fit_propensity,
    influence_function,
    minimum,
    without_each_row,
)

TARGETS = ("all", "treated", "control", "overlap")


def sample_of(target="all", n=150, n_replicates=12, weighted=True, seed=3, c=0.7):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2))
    A = (rng.random(n) < 1 / (1 + np.exp(-x[:, 0]))).astype(int)
    X = np.column_stack([np.ones(n), x])
    s = rng.uniform(0.5, 2, n) if weighted else np.ones(n)
    fractions = rng.standard_gamma(4, (n, n_replicates)) / 4
    gammas = np.column_stack([fit_propensity(X, A, s), *(fit_propensity(X, A, s * weights) for weights in fractions.T)])
    return Sample(
        y=x[:, 0] + x[:, 1] ** 2 + A + rng.normal(size=n), A=A, s=s, X=X, Z=X, gammas=gammas, target=target, c=c
    )


@pytest.mark.parametrize(
    "setting",
    jre_reference("lalonde", "share")["results"],
    ids=lambda setting: f"share {setting['share']}, anchor {setting['anchor']}",
)
def test_against_256_bits(frames, setting):
    reference = jre_reference("lalonde", "share")
    design = cr.JRE.from_formula(f"re78 ~ {reference['outcome_rhs']}", frames["lalonde_matchit"], treat="treat").design
    weights, c = reference_weights("lalonde", reference["n"], "share"), float(setting["share"])
    fit = fit_jre(design.y, design.arm, design.X, design.Z, weights, anchor=setting["anchor"], c=c)
    assert fit.effect == pytest.approx(float(setting["effect"]), rel=1e-7)
    np.testing.assert_allclose(fit.model_means, [float(setting["mean0"]), float(setting["mean1"])], rtol=1e-9)
    if setting == reference["results"][0]:  # the share that is estimated depends on the start alone
        assert fit_jre(design.y, design.arm, design.X, design.Z, weights, anchor=setting["anchor"]).c == 0


@pytest.mark.parametrize("target", TARGETS)
def test_influence_is_the_derivative_of_the_fit_by_a_weight(target):
    """Each row's weight is moved and all is done again: fitted score, replicates moved as much, minimum, effect."""
    of, alpha = sample_of(target), 0.5
    influence = influence_function(of, alpha, minimum(of, alpha))

    def refitted(row, step):
        s = of.s + step * (np.arange(len(of.s)) == row)
        moved = fit_propensity(of.Z, of.A, s) - of.gammas[:, 0]
        other = replace(of, s=s, gammas=of.gammas + moved[:, None])
        return effect(other, minimum(other, alpha))

    rows = range(0, len(of.s), 15)
    numerical = [of.s.sum() * (refitted(row, 1e-4) - refitted(row, -1e-4)) / 2e-4 for row in rows]
    np.testing.assert_allclose(influence[rows], numerical, rtol=1e-6, atol=1e-7 * np.abs(influence).max())


@pytest.mark.parametrize("c", [0, 0.7])
def test_without_a_row_is_a_fit_to_the_others(c):
    """At the scores as they are; exact but for what is of order 1 / n of the step, as the means that centre psi."""
    of, alpha = sample_of(weighted=False, c=c), 0.5
    found, theta, rows = without_each_row(of, alpha), minimum(of, alpha), range(0, len(of.y), 5)

    def alone(row):
        rest = np.delete(np.arange(len(of.y)), row)
        return minimum(replace(of, y=of.y[rest], A=of.A[rest], s=of.s[rest], X=of.X[rest], Z=of.Z[rest]), alpha)

    steps = np.array([alone(row) for row in rows]) - theta
    assert np.linalg.norm(found[rows] - theta - steps) < 0.02 * np.linalg.norm(steps)


@pytest.mark.filterwarnings("ignore::causalrisk.CausalRiskWarning")
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("target", TARGETS)
def test_the_package_computes_the_same(target, weighted):
    """Replicates given; the anchor chosen, which has to be the same to the last of its three digits."""
    data = find_design("strong").draw(200, np.random.default_rng(3)).data
    data["s"] = np.random.default_rng(1).uniform(0.5, 2, 200)
    c = np.random.default_rng(8).standard_gamma(4, (200, 20))
    weights = {"weights": "s", "weight_type": "probability"} if weighted else {}
    model = cr.JRE.from_formula("y ~ x1 + x2 + x3 + x4", data, treat="d", target=target, **weights)
    res, design = model.fit(cov_type="robust", replicates=c / c.mean(axis=0)), model.design
    fit = fit_jre(
        design.y,
        design.arm,
        design.X,
        design.Z,
        c / c.mean(axis=0),
        s=data["s"].to_numpy() if weighted else None,
        target=target,
    )
    assert fit.anchor == res.anchor_path().query("chosen").index[0]
    assert fit.anchor not in (LADDER[0], LADDER[-1])
    assert fit.effect == pytest.approx(res.effect, rel=1e-10)
    assert fit.start == pytest.approx(res.start.effect, rel=1e-10)
    assert fit.std_error == pytest.approx(res.effect_se, rel=1e-10)
    assert fit.risk == pytest.approx(res.expected_ate_risk, rel=1e-10)
    np.testing.assert_allclose(fit.model_means, res.model_means, rtol=1e-9)
    np.testing.assert_allclose(fit.means, res.params.iloc[1:], rtol=1e-9)


@pytest.mark.filterwarnings("ignore::causalrisk.CausalRiskWarning")
@pytest.mark.parametrize(("k", "anchor"), [(0, 59.7), (3, 24.2), (7, 0.284)])
def test_the_package_raises_the_anchor_as_far(k, anchor):
    """Of samples with a wrong score; beyond the ladder, by several rungs, and by one."""
    wrong_score = Linear(confounding=1.0, score_curvature=0.5, heterogeneity=1.5, baseline=-1.0)
    data = wrong_score.draw(300, np.random.default_rng([11, k, 300])).data
    c = np.random.default_rng(8).standard_gamma(4, (300, 20))
    model = cr.JRE.from_formula(wrong_score.formula, data, treat="d")
    res, design = model.fit(cov_type="robust", replicates=c / c.mean(axis=0)), model.design
    fit = fit_jre(design.y, design.arm, design.X, design.Z, c / c.mean(axis=0))
    assert fit.anchor == res.anchor_path().query("chosen").index[0] == anchor
    assert fit.effect == pytest.approx(res.effect, rel=1e-10)
    assert fit.std_error == pytest.approx(res.effect_se, rel=1e-10)


def test_the_anchor_is_the_mean_of_the_rungs_that_win():
    anchor, shares = choose_anchor(sample_of())
    assert shares.sum() == pytest.approx(1)
    assert anchor == pytest.approx(np.exp(shares @ np.log(LADDER)), rel=5e-3)
