"""Stacked estimating equations: by hand, by numerical derivatives, and resamples together as one by one."""

from __future__ import annotations

import numpy as np
import pytest

from causalrisk.errors import Failure
from causalrisk.estimation.engine import ALL, Block, Linear, Point, apply, apply_score, exp, influence, solve

N, COUNTS = 90, (40, 30, 20)
ARM = np.repeat([0, 1, 2], COUNTS)
RNG = np.random.default_rng(0)
GROUP = (RNG.random(N) < 0.4) * 1.0
Z = np.column_stack([np.ones(N), RNG.normal(size=N) + 0.3 * ARM])
X = np.column_stack([Z, Z[:, 1] ** 2])
Y = Z[:, 1] + ARM + RNG.normal(size=N)
S = RNG.uniform(0.5, 2, size=N)
OFFSET = 0.3 * Z[:, 1]


def least_squares(y, columns, rows=ALL, offset=None, weight=lambda at: 1.0):
    eta = Linear("outcome", columns, 0, offset)
    return Block((eta,), ((rows, lambda at: [weight(at) * (at.of(y) - at(eta))]),), linear=True)


def multinomial(columns):
    """Log odds of arms 1 and 2, and 1 / e_2."""
    one, two = Linear("score", columns, 0), Linear("score", columns, 1)

    def inverse(at, own):
        return (1.0 + exp(at(one)) + exp(at(two))) / exp(at(own))

    def residuals(at):
        return [at.of(a == ARM) * 1.0 - 1 / inverse(at, own) for a, own in ((1, one), (2, two))]

    return Block((one, two), ((ALL, residuals),), separated=Failure.SEPARATION), lambda at: inverse(at, two)


def stack():
    """A multinomial score, then the outcome of the third arm weighted by the inverse of its score."""
    score, inverse = multinomial(Z)
    return [score, least_squares(Y, X, slice(70, 90), OFFSET, inverse)]


def test_least_squares_by_hand():
    beta, failures = solve([least_squares(Y, X, slice(40, 90), OFFSET)], S[:, None])
    expected = np.linalg.solve((X[40:].T * S[40:]) @ X[40:], X[40:].T @ (S * (Y - OFFSET))[40:])
    np.testing.assert_allclose(beta["outcome"][0, :, 0], expected, rtol=1e-12)
    assert failures["outcome"] == [Failure.OK]


def test_logits_of_two_groups_are_logs_of_the_odds_in_each():
    columns = np.column_stack([1 - GROUP, GROUP])
    beta, failures = solve([multinomial(columns)[0]], S[:, None])
    sums = np.array([[S[(g == GROUP) & (a == ARM)].sum() for g in (0, 1)] for a in (0, 1, 2)])
    np.testing.assert_allclose(beta["score"][..., 0], np.log(sums[1:] / sums[0]), rtol=1e-12)
    assert failures["score"] == [Failure.OK]


def test_the_influence_function_is_the_derivative_by_the_weight_of_a_row():
    blocks, size = stack(), 1e-4
    beta, _ = solve(blocks, S[:, None])
    psi = influence(blocks, S[:, None], beta, S.sum())
    up, down = (solve(blocks, S[:, None] + sign * size * np.eye(N), beta)[0] for sign in (1, -1))
    for name in ("score", "outcome"):
        numeric = ((up[name] - down[name]) / (2 * size)).reshape(-1, N).T * S.sum()
        assert np.abs(numeric).max(axis=1).min() > 1e-3  # the score of every row moves the outcome
        np.testing.assert_allclose(psi[name], numeric, atol=1e-6 * np.abs(numeric).max())
    later = influence(blocks[1:], S[:, None], beta, S.sum(), influence(blocks[:1], S[:, None], beta, S.sum()))
    np.testing.assert_array_equal(later["outcome"], psi["outcome"])


def test_without_the_influence_function_of_the_score_it_counts_as_known():
    """Then of the outcome the weighted residuals alone are left."""
    blocks = stack()
    beta, _ = solve(blocks, S[:, None])
    found = influence(blocks[1:], S[:, None], beta, S.sum())["outcome"]
    odds = np.exp(Z @ beta["score"][..., 0].T)
    w = ((1 + odds.sum(axis=1)) / odds[:, 1]) * (ARM == 2)
    residual = w * (Y - OFFSET - X @ beta["outcome"][0, :, 0])
    expected = np.linalg.solve((X.T * (S * w)) @ X / S.sum(), X.T * residual).T
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("from_sample", [True, False])
def test_resamples_together_are_those_one_by_one(from_sample):
    """Of one an arm is one row, so that its outcome model is singular; another leaves a group without rows."""
    blocks = stack()
    drawn = np.random.default_rng(1).multinomial(N, np.full(N, 1 / N), size=12).T * S[:, None]
    drawn[71:, 3] = drawn[40:70, 7] = 0.0
    drawn[70, 3] = 1.0
    start = solve(blocks, S[:, None])[0] if from_sample else None
    together, failures = solve(blocks, drawn, start)
    assert failures["outcome"][3] == Failure.SINGULAR_OUTCOME and failures["score"][7] == Failure.SEPARATION
    assert not np.delete(failures["score"] + failures["outcome"], [3, 7]).any()
    for r in range(12):
        alone, codes = solve(blocks, drawn[:, [r]], start)
        for name in alone:
            assert codes[name][0] == failures[name][r]
            if not codes[name][0] and r != 7:
                np.testing.assert_allclose(together[name][:, :, r], alone[name][:, :, 0], rtol=1e-9, atol=1e-11)


def test_the_derivative_of_an_expression():
    """By a complex step, which has no rounding error."""

    def expression(a, b):
        ratio = (2 - exp(-a) * b) / (1 + b**2) + 3 / (a * a + 5) - 0.5 * apply(b, np.sin, np.cos)
        return ratio * (1 - a) + apply_score(a - b, lambda x, y: (x * x * y, -2 * x * y), X[:, [2]])

    etas = Linear("one", X, 0, OFFSET), Linear("two", Z)
    rng = np.random.default_rng(1)
    beta = {"one": rng.normal(size=(1, 3, 1)), "two": rng.normal(size=(1, 2, 1))}
    found = expression(*map(Point(beta, by=frozenset(beta)), etas))
    a, b = map(Point(beta), etas)
    np.testing.assert_allclose(a[:, 0], X @ beta["one"][0, :, 0] + OFFSET, rtol=1e-12)
    np.testing.assert_allclose(found.value, expression(a, b), rtol=1e-13)
    np.testing.assert_allclose(found.by[etas[0]], expression(a + 1e-30j, b).imag / 1e-30, rtol=1e-11)
    np.testing.assert_allclose(found.by[etas[1]], expression(a, b + 1e-30j).imag / 1e-30, rtol=1e-11)
    only = expression(*map(Point(beta, by=frozenset(["two"])), etas))
    assert list(only.by) == [etas[1]]
