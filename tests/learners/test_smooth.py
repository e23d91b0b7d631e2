"""The learner "smooth" against a plain dense ridge, penalised likelihood, and what must hold of any of its fits."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from causalrisk.errors import DesignError
from causalrisk.learners.smooth import LINEAR, ROWS, LearnerRows, Smooth, Training, smooth_basis, smooth_fits
from causalrisk.numerics.families import outcome_family

BINOMIAL, POISSON = outcome_family("binomial", None), outcome_family("poisson", None)
GAMMA, PROBIT = outcome_family("gamma", None), outcome_family("binomial", "probit")
FAMILIES = {"logit": BINOMIAL, "probit": PROBIT, "poisson": POISSON, "gamma": GAMMA}


def fit_smooth(X, y, weights=None, *, family=LINEAR, counts=True):
    """The learner fitted to all rows."""
    none = np.zeros(len(y), dtype=int)
    rows = LearnerRows(X, y, none, none, weights, np.arange(len(y)))
    training = Training(lambda function: iter([function(rows)]), labels=("",), n_folds=1, counts=counts)
    return smooth_fits(Smooth(family), 0, training)[0]


def draw(n, p=4, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p))
    X[:, 1] = X[:, 1] > 0.3
    if p > 2:
        X[:, 2] = np.exp(X[:, 2])
    return X, np.sin(2 * X[:, 0]) + X[:, 1] + X[:, 0] * X[:, 1] + rng.normal(size=n) / 2


def outcomes(family, eta, seed=1):
    rng, mean = np.random.default_rng(seed), family.mean(eta)
    if family.binary:
        return (rng.random(len(eta)) < mean).astype(float)
    return rng.poisson(mean).astype(float) if family.name == "poisson" else rng.gamma(2, mean / 2)


def plain_columns(X, train):
    """Standardised covariates, their curves by the textbook's formula, and their products."""
    mean, sd = train.mean(axis=0), train.std(axis=0)
    Z = (X - mean) / sd
    curves = [[], []]
    for j in range(X.shape[1]):
        if len(np.unique(train[:, j])) < 5:
            continue
        knots = np.quantile((train[:, j] - mean[j]) / sd[j], [0.05, 0.35, 0.65, 0.95], method="inverted_cdf")

        def d(k, x=Z[:, j], knots=knots):
            return (np.maximum(x - knots[k], 0) ** 3 - np.maximum(x - knots[3], 0) ** 3) / (knots[3] - knots[k])

        for k in range(2):
            curves[k].append(d(k) - d(2))
    products = [Z[:, j] * Z[:, k] for j in range(X.shape[1]) for k in range(j + 1, X.shape[1])]
    kinds = np.repeat([0, 1, 2], [X.shape[1], len(curves[0] + curves[1]), len(products)])
    return np.column_stack([*Z.T, *curves[0], *curves[1], *products]), kinds


def scaled_columns(X, train, shares):
    """Columns with the standard deviation of their share in the training rows, where it is not zero."""
    (B, kinds), (new, _) = plain_columns(train, train), plain_columns(X, train)
    share = np.array([1.0, *shares])[kinds]
    return ((new - B.mean(axis=0)) / B.std(axis=0) * share)[:, share > 0]


def plain_criterion(S, y, weights, penalty):
    """Minus twice the restricted log likelihood under the covariance matrix V of the outcomes, written out."""
    N, ones = len(y), np.ones(len(y))
    V = np.diag(1 / weights) + S @ S.T / penalty
    inverse = np.linalg.inv(V)
    projection = inverse - np.outer(inverse @ ones, inverse @ ones) / (ones @ inverse @ ones)
    freedom = N - np.trace(projection / weights[:, None])
    found = np.linalg.slogdet(V)[1] + np.log(ones @ inverse @ ones) + (N - 1) * np.log(y @ projection @ y)
    return found if freedom <= N / 2 else np.inf


def plain_choice(X, y, weights, grid):
    """Shares and penalty with the least criterion: first the share of the products, then that of the curves."""

    def least(choices):
        choices = [(shares, penalty) for shares in choices for penalty in grid]
        values = [plain_criterion(scaled_columns(X, X, shares), y, weights, penalty) for shares, penalty in choices]
        return choices[int(np.argmin(values))]

    (_, product), _ = least([(0.3, share) for share in (0, 0.1, 0.3, 1)])
    return least([(share, product) for share in (0, 0.1, 0.3, 1)])


def plain_ridge(X, y, choice, new):
    shares, penalty = choice
    S = scaled_columns(X, X, shares)
    slopes = np.linalg.solve(S.T @ S + penalty * np.eye(S.shape[1]), S.T @ (y - y.mean()))
    return y.mean() + scaled_columns(new, X, shares) @ slopes


@pytest.mark.parametrize("n, p", [(40, 4), (30, 7)])
def test_equals_a_plain_ridge_with_explicit_likelihood(n, p):
    """With fewer and more rows than columns, of which there are 16 and 40."""
    (X, y), (new, _) = draw(n, p), draw(100, p, seed=5)
    fit = fit_smooth(X, y)
    shares, penalty = plain_choice(X, y, np.ones(n), n * np.geomspace(1e4, 1e-8, 49))
    assert fit.choice.shares == shares
    np.testing.assert_allclose(fit.choice.penalty, penalty, rtol=1e-12)
    np.testing.assert_allclose(fit.predict(new), plain_ridge(X, y, fit.choice, new), rtol=1e-8, atol=1e-8)


def test_many_blocks_of_rows_equal_a_plain_ridge():
    (X, y), (new, _) = draw(2 * ROWS + 50), draw(100, seed=5)
    fit = fit_smooth(X, y)
    np.testing.assert_allclose(fit.predict(new), plain_ridge(X, y, fit.choice, new), rtol=1e-8, atol=1e-8)


def test_few_values_make_no_curve_and_ties_no_equal_knots():
    x = np.repeat([0.0, 1.0, 2.0, 3.0], 10)
    tied = np.where(np.arange(40) < 30, 0.0, np.arange(40))
    basis = smooth_basis(np.column_stack([x, tied]), np.ones(40))
    assert basis.curved.tolist() == [1]
    assert (np.diff(basis.knots, axis=0) > 0).all()


@pytest.mark.parametrize("family, n, p", [(None, 300, 4), (None, 30, 7), ("logit", 300, 4), ("poisson", 300, 4)])
def test_frequency_weights_are_repeated_rows_and_zero_none(family, n, p):
    X, y = draw(n, p)
    learned = LINEAR if family is None else FAMILIES[family]
    y = y if family is None else outcomes(FAMILIES[family], y / 2)
    counts = np.arange(n) % 4
    repeated = np.repeat(np.arange(n), counts)
    weighted = fit_smooth(X[counts > 0], y[counts > 0], counts[counts > 0].astype(float), family=learned)
    rows = fit_smooth(X[repeated], y[repeated], family=learned)
    assert weighted.choice.shares == rows.choice.shares
    np.testing.assert_allclose(weighted.choice.penalty, rows.choice.penalty, rtol=1e-10)
    np.testing.assert_allclose(weighted.predict(X), rows.predict(X), rtol=1e-7)


def test_probability_weights_have_no_unit():
    X, y = draw(300)
    weights = np.random.default_rng(2).uniform(0.5, 2, 300)
    fits = [fit_smooth(X, y, c * weights, counts=False) for c in (1, 1000)]
    np.testing.assert_allclose(fits[0].predict(X), fits[1].predict(X), rtol=1e-9)
    np.testing.assert_allclose(1000 * fits[0].choice.penalty, fits[1].choice.penalty, rtol=1e-9)


@pytest.mark.parametrize("n, p", [(300, 4), (30, 7)])
def test_scale_and_shift_of_columns_and_outcomes_do_not_matter(n, p):
    X, y = draw(n, p)
    expected = fit_smooth(X, y).predict(X)
    shift, scale = 1e3 * np.arange(p), 10.0 ** (np.arange(p) - 3)
    moved = fit_smooth(shift + scale * X, 1e10 + 100 * y).predict(shift + scale * X)
    np.testing.assert_allclose((moved - 1e10) / 100, expected, atol=1e-6)


def test_a_curved_truth_is_learned_and_a_straight_one_not_lost():
    """Out of sample, against least squares on the covariates."""
    rng = np.random.default_rng(0)
    gain = {"curved": [], "straight": []}
    for _ in range(10):
        X, new = rng.normal(size=(400, 5)), rng.normal(size=(4000, 5))
        truths = {"curved": lambda x: np.sin(2 * x[:, 0]) + x[:, 1] * x[:, 2], "straight": lambda x: x @ np.ones(5)}
        for name, truth in truths.items():
            y = truth(X) + rng.normal(size=400)
            line = np.linalg.lstsq(np.column_stack([np.ones(400), X]), y, rcond=None)[0]
            error = [
                1 + np.mean((truth(new) - predicted) ** 2)
                for predicted in (fit_smooth(X, y).predict(new), np.column_stack([np.ones(4000), new]) @ line)
            ]
            gain[name].append(error[0] / error[1])
    assert np.mean(gain["curved"]) < 0.65
    assert np.mean(gain["straight"]) < 1.01


def plain_likelihood(family, X, y, choice, new):
    """Newton's method on the penalised quasi-likelihood, derivatives by formula for logit and log links."""
    S = np.column_stack([np.ones(len(y)), scaled_columns(X, X, choice.shares)])
    ridge = choice.penalty * np.eye(S.shape[1])
    ridge[0, 0] = 0.0
    beta = np.zeros(S.shape[1])
    beta[0] = np.log(y.mean() / (1 - y.mean())) if family == "logit" else np.log(y.mean())
    for _ in range(100):
        eta = S @ beta
        if family == "logit":
            score, information = y - expit(eta), expit(eta) * expit(-eta)
        elif family == "poisson":
            score, information = y - np.exp(eta), np.exp(eta)
        else:
            score, information = y / np.exp(eta) - 1, np.ones(len(y))
        beta += np.linalg.solve(S.T @ (information[:, None] * S) + ridge, S.T @ score - ridge @ beta)
    inverse = expit if family == "logit" else np.exp
    return inverse(beta[0] + scaled_columns(new, X, choice.shares) @ beta[1:])


@pytest.mark.parametrize("family", ["logit", "poisson", "gamma"])
@pytest.mark.parametrize("n, p", [(400, 4), (30, 7)])
def test_families_minimise_the_penalised_likelihood(family, n, p):
    X, eta = draw(n, p)
    y = outcomes(FAMILIES[family], eta / 2)
    fit = fit_smooth(X, y, family=FAMILIES[family])
    new = draw(100, p, seed=6)[0]
    np.testing.assert_allclose(fit.predict(new), plain_likelihood(family, X, y, fit.choice, new), rtol=2e-5)


def test_the_penalty_of_a_family_is_that_of_its_working_responses():
    X, eta = draw(80)
    y = outcomes(BINOMIAL, eta)
    fit = fit_smooth(X, y, family=BINOMIAL)
    mean = fit.predict(X)
    W = mean * (1 - mean)
    grid = 80 * y.mean() * (1 - y.mean()) * np.geomspace(1e4, 1e-8, 49)
    shares, penalty = plain_choice(X, np.log(mean / (1 - mean)) + (y - mean) / W, W, grid)
    assert fit.choice.shares == shares
    np.testing.assert_allclose(fit.choice.penalty, penalty, rtol=1e-9)


@pytest.mark.parametrize("name", FAMILIES)
def test_means_stay_in_the_range_of_the_family(name):
    """Where arms are separated by a covariate, and far from the training rows."""
    family, rng = FAMILIES[name], np.random.default_rng(4)
    X = rng.normal(size=(80, 3))
    y = (X[:, 0] > 0).astype(float) + (0.5 if name == "gamma" else 0.0)
    fit = fit_smooth(X, y, family=family)
    new = np.vstack([X, 1e4 * rng.normal(size=(200, 3))])
    mean = fit.predict(new)
    assert np.isfinite(mean).all() and mean.min() >= 0 and mean.max() <= family.entry.high
    assert np.corrcoef(mean[:80], y)[0, 1] > 0.8


def test_steps_that_are_too_long_are_halved():
    """A row far out has most of the events; the constant is not penalised, so that the means add up to the outcomes."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(150, 2))
    X[0] = 6.0
    y = rng.poisson(np.exp(np.clip(2 * X[:, 0], -5, 9))).astype(float)
    assert fit_smooth(X, y, family=POISSON).predict(X).sum() == pytest.approx(y.sum(), rel=1e-6)


def test_a_logarithmic_link_takes_negative_outcomes():
    X, eta = draw(400)
    y = np.exp(eta / 2) + np.random.default_rng(0).normal(size=400) - 0.5
    fit = fit_smooth(X, y, family=outcome_family("gaussian", "log"))
    assert fit.predict(X).min() > 0 > y.min()
    assert np.corrcoef(fit.predict(X), np.exp(eta / 2))[0, 1] > 0.8
    with pytest.raises(DesignError, match='link="identity"'):
        fit_smooth(X, y - y.mean() - 0.1, family=outcome_family("gaussian", "log"))


@pytest.mark.parametrize("family", [None, BINOMIAL, POISSON])
def test_one_outcome_is_predicted_as_it_is(family):
    X, _ = draw(40)
    for value in (0.0, 1.0):
        fitted = fit_smooth(X, np.full(40, value), family=family or LINEAR)
        assert (fitted.predict(X) == value).all()


@pytest.mark.parametrize("n", [12, 20])
def test_a_fit_has_at_most_half_a_degree_of_freedom_a_row(n):
    """Even if there is no noise."""
    X, _ = draw(n, p=7)
    S = scaled_columns(X, X, (choice := fit_smooth(X, X @ np.ones(7)).choice).shares)
    freedom = 1 + np.trace(S @ np.linalg.solve(S.T @ S + choice.penalty * np.eye(S.shape[1]), S.T))
    assert n / 4 < freedom <= n / 2


@pytest.mark.parametrize("n, p", [(300, 4), (30, 7)])
def test_constant_and_repeated_columns(n, p):
    (X, y), (new, _) = draw(n, p), draw(50, p, seed=7)
    plain = fit_smooth(X, y)
    constant = fit_smooth(np.column_stack([X, np.full(n, 0.1)]), y)
    np.testing.assert_allclose(
        constant.predict(np.column_stack([new, np.full(50, 7.0)])), plain.predict(new), rtol=1e-7
    )
    twice = fit_smooth(np.column_stack([X, X[:, 0]]), y).predict(np.column_stack([new, new[:, 0]]))
    assert np.corrcoef(twice, plain.predict(new))[0, 1] > 0.95
    assert fit_smooth(np.zeros((n, 1)), y).predict(np.ones((2, 1))) == pytest.approx(y.mean())
    assert fit_smooth(np.zeros((n, 0)), y).predict(np.ones((2, 0))) == pytest.approx(y.mean())
