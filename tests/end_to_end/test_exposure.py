"""Offset and exposure: rates by statsmodels, standard errors by stacked equations, refits by hand, identities."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

import causalrisk as cr
from causalrisk import AIPW, IPWRA, JRE, Hajek, OutcomeRegression
from causalrisk.models.estimators import Unadjusted

STATED = (Unadjusted, OutcomeRegression, Hajek, IPWRA)
EVERY = (*STATED, AIPW)
CONSTANT, WEIGHTED = (Unadjusted, Hajek), (Hajek, IPWRA)
QUICK = {"cov_type": "robust", "n_replicates": 20, "shrinkage": 1.0}
ALL = [(estimator, at) for at in (1.0, 2.5) for estimator in STATED] + [(estimator, "observed") for estimator in EVERY]


def counts(n=300, seed=1):
    """Events in `t` years of each unit, which are more where the yearly rate is higher."""
    rng = np.random.default_rng(seed)
    x1, x2 = rng.normal(size=(2, n))
    d = (rng.random(n) < 1 / (1 + np.exp(-0.6 * x1 + 0.3 * x2))).astype(int)
    t = rng.gamma(4, 0.5, n) * np.exp(0.3 * x1)
    rates = np.exp(-0.3 + 0.3 * x1 - 0.2 * x2 + np.array([[0.0], [0.4]]))
    y = rng.poisson(t * rates[d, np.arange(n)])
    data = {"y": y, "d": d, "x1": x1, "x2": x2, "t": t, "w": rng.uniform(0.5, 2, n), "g": rng.integers(0, 2, n)}
    return pd.DataFrame(data).assign(rate0=rates[0], rate1=rates[1])


DATA = counts()


def model(estimator=IPWRA, data=DATA, **options):
    return estimator.from_formula(
        "y ~ x1 + x2", data, **({"treat": "d", "family": "poisson", "exposure": "t"} | options)
    )


def fit(estimator=IPWRA, data=DATA, **options):
    return model(estimator, data, **options).fit(**(QUICK if estimator is JRE else {}))


class ByHand:
    """An estimator of two arms from fits of statsmodels, and as stacked estimating equations."""

    def __init__(self, estimator, at, data=DATA, target="all", s=None):
        self.estimator, self.at, self.y, self.d, self.t = estimator, at, data.y, data.d, data.t
        self.Z = sm.add_constant(data[["x1", "x2"]]).to_numpy()
        self.X = self.Z[:, :1] if estimator in CONSTANT else self.Z
        self.treated, self.s = target == "treated", np.ones(len(data)) if s is None else s
        propensity = sm.GLM(data.d, self.Z, family=sm.families.Binomial(), var_weights=self.s)
        self.gamma = np.asarray(propensity.fit(tol=1e-14, maxiter=100).params)
        w, tilt = self.weights(self.gamma)
        trained = self.s * (w if estimator in WEIGHTED else 1)
        self.beta = [self.outcome(data.d == a, trained) for a in (0, 1)]
        share = self.s / self.s.sum()
        of_all = [share @ (tilt * self.mean(b)) / (share @ tilt) for b in self.beta]
        residual = [share @ (w * (self.d == a) * self.error(b)) / (share @ tilt) for a, b in enumerate(self.beta)]
        self.means = np.array(of_all) + (residual if estimator is AIPW else 0)

    def weights(self, gamma):
        e = 1 / (1 + np.exp(-self.Z @ gamma))
        own = np.where(self.d == 1, e, 1 - e)
        return (e / own, (self.d == 1).to_numpy(float)) if self.treated else (1 / own, np.ones(len(e)))

    def outcome(self, rows, weights):
        arm = {"exposure": self.t[rows], "var_weights": weights[rows]}
        glm = sm.GLM(self.y[rows], self.X[rows], family=sm.families.Poisson(), **arm)
        return np.asarray(glm.fit(tol=1e-14, maxiter=100).params)

    def mean(self, beta):
        return np.exp(self.X @ beta) * (self.t if self.at == "observed" else self.at)

    def error(self, beta):
        return self.y - np.exp(self.X @ beta) * self.t

    def rows(self, theta):
        """Contribution of each row to each equation, shape (n, d)."""
        p = self.X.shape[1]
        gamma, beta, mu = theta[:3], [theta[3 : 3 + p], theta[3 + p : 3 + 2 * p]], theta[3 + 2 * p :]
        w, tilt = self.weights(gamma)
        blocks = [(self.d - 1 / (1 + np.exp(-self.Z @ gamma))).to_numpy()[:, None] * self.Z]
        for a, b in enumerate(beta):
            trained = (self.d == a) * (w if self.estimator in WEIGHTED else 1)
            blocks.append((trained * self.error(b)).to_numpy()[:, None] * self.X)
        for a, b in enumerate(beta):
            corrected = w * (self.d == a) * self.error(b) if self.estimator is AIPW else 0.0
            blocks.append(np.asarray(tilt * (self.mean(b) - mu[a]) + corrected)[:, None])
        return self.s[:, None] * np.hstack(blocks)

    def covariance(self):
        """Covariance of all by the sandwich, the means last, with the bread by central differences."""
        theta = np.concatenate([self.gamma, *self.beta, self.means])
        steps = 1e-6 * np.maximum(1, np.abs(theta))
        columns = [
            (self.rows(theta + h * e) - self.rows(theta - h * e)).sum(axis=0) / (2 * h)
            for h, e in zip(steps, np.eye(len(theta)), strict=True)
        ]
        half = np.linalg.solve(np.column_stack(columns), self.rows(theta).T)
        return half @ half.T


@pytest.mark.parametrize("target", ["all", "treated"])
@pytest.mark.parametrize(("estimator", "at"), ALL)
def test_means_and_standard_errors_equal_those_of_statsmodels_and_stacked_equations(estimator, at, target):
    hand, res = ByHand(estimator, at, target=target), fit(estimator, at_exposure=at, target=target)
    np.testing.assert_allclose(res.params.iloc[1:], hand.means, rtol=1e-8)
    assert res.effect == pytest.approx(hand.means[1] - hand.means[0], rel=1e-8)
    cov = hand.covariance()[-2:, -2:]
    np.testing.assert_allclose(res.bse.iloc[1:] ** 2, np.diag(cov), rtol=1e-6)
    assert res.effect_se**2 == pytest.approx(cov[0, 0] + cov[1, 1] - 2 * cov[0, 1], rel=1e-6)


def test_probability_weights():
    weights = DATA.w.to_numpy() / DATA.w.mean()
    hand, res = ByHand(IPWRA, 1.0, s=weights), fit(weights="w", weight_type="probability")
    np.testing.assert_allclose(res.params.iloc[1:], hand.means, rtol=1e-8)
    np.testing.assert_allclose(res.bse.iloc[1:] ** 2, np.diag(hand.covariance())[-2:], rtol=1e-6)


@pytest.mark.parametrize("estimator", CONSTANT)
def test_a_rate_of_constants_is_events_over_exposure(estimator):
    w = fit(estimator).importance_weights if estimator is Hajek else pd.Series(1.0, DATA.index)
    for arm in (0, 1):
        rows = DATA.d == arm
        rate = (w * DATA.y)[rows].sum() / (w * DATA.t)[rows].sum()
        assert fit(estimator).params[f"POM[{arm}]"] == pytest.approx(rate, rel=1e-10)
        assert fit(estimator, at_exposure=3).params[f"POM[{arm}]"] == pytest.approx(3 * rate, rel=1e-10)


@pytest.mark.parametrize(("estimator", "at"), [(Hajek, 1.0), (IPWRA, 2.5), (OutcomeRegression, "observed"),
                                               (AIPW, "observed")])  # fmt: skip
def test_a_resample_is_a_fit_of_its_rows(estimator, at):
    n = len(DATA)
    drawn = np.random.default_rng(5).multinomial(n, np.full(n, 1 / n), 3).T
    res = model(estimator, at_exposure=at).fit(cov_type="bootstrap", resamples=drawn)
    by_hand = [ByHand(estimator, at, DATA.loc[DATA.index.repeat(times)]).means for times in drawn.T]
    np.testing.assert_allclose(res.boot_params.iloc[:, 1:], by_hand, rtol=1e-7)
    np.testing.assert_allclose(res.bse.iloc[1:], np.std(by_hand, axis=0, ddof=1), rtol=1e-6)


def test_a_resample_of_the_joint_estimator_is_a_fit_of_its_rows():
    """One replicate of weights one in either: the propensity model of the resample itself."""
    n = len(DATA)
    drawn = np.random.default_rng(5).multinomial(n, np.full(n, 1 / n), 2).T
    options = {"objective": "erm"}
    res = model(JRE, at_exposure="observed").fit(resamples=drawn, replicates=np.ones((n, 1)), **options)
    for times, own in zip(drawn.T, res.boot_params.to_numpy(), strict=True):
        repeated = DATA.loc[DATA.index.repeat(times)].reset_index(drop=True)
        again = model(JRE, repeated, at_exposure="observed")
        by_rows = again.fit(cov_type="robust", replicates=np.ones((n, 1)), **options)
        np.testing.assert_allclose(own, by_rows.params, rtol=1e-6)


@pytest.mark.parametrize(("estimator", "at"), ALL[4:])
def test_predictions_are_those_of_statsmodels(estimator, at):
    hand, res = ByHand(estimator, at), fit(estimator, at_exposure=at)
    expected = np.column_stack([hand.mean(beta) for beta in hand.beta])
    np.testing.assert_allclose(res.predict(DATA), expected, rtol=1e-7)
    np.testing.assert_allclose(res.predict(), expected, rtol=1e-7)
    assert res.predict(DATA.head(3).reset_index(drop=True), arm=1).to_numpy() == pytest.approx(expected[:3, 1])
    np.testing.assert_allclose(res.get_prediction(arm=0).predicted_mean, expected[:, 0], rtol=1e-7)
    np.testing.assert_allclose(np.exp(res.get_prediction(arm=0).predictor), expected[:, 0], rtol=1e-7)
    by_arm = res.get_prediction(DATA, arm=1)
    np.testing.assert_allclose(by_arm.predicted_mean, expected[:, 1], rtol=1e-7)
    limits = by_arm.summary_frame()
    middle = np.sqrt(limits["mean_ci_lower"] * limits["mean_ci_upper"])  # symmetric on the logarithmic scale
    np.testing.assert_allclose(middle, limits["mean"], rtol=1e-9)


def test_the_standard_error_of_a_prediction_is_that_of_the_stacked_equations():
    hand, res = ByHand(IPWRA, 2.5), fit(at_exposure=2.5)
    own = hand.covariance()[6:9, 6:9]  # after the propensity model and the other arm
    expected = hand.mean(hand.beta[1]) * np.sqrt(np.einsum("np,pq,nq->n", hand.X, own, hand.X))
    np.testing.assert_allclose(res.get_prediction(DATA, arm=1).se_mean, expected, rtol=1e-6)


@pytest.mark.parametrize("estimator", [*EVERY, JRE])
def test_an_exposure_that_is_the_same_for_all_changes_nothing(estimator):
    alike, without = fit(estimator, DATA.assign(t=2.0), at_exposure="observed"), fit(estimator, exposure=None)
    np.testing.assert_allclose(alike.params, without.params, rtol=1e-7)
    np.testing.assert_allclose(alike.bse, without.bse, rtol=1e-6)


@pytest.mark.parametrize("estimator", [*EVERY, JRE])
def test_an_exposure_is_the_offset_of_its_logarithm(estimator):
    logged = fit(estimator, DATA.assign(lt=np.log(DATA.t)), exposure=None, offset="lt")
    observed = fit(estimator, at_exposure="observed")
    np.testing.assert_allclose(logged.params, observed.params, rtol=1e-12)
    np.testing.assert_allclose(logged.bse, observed.bse, rtol=1e-12)


@pytest.mark.parametrize("estimator", [*EVERY, JRE])
def test_the_offset_of_a_linear_model_is_subtracted_from_the_outcome(estimator):
    """A constant comes off both arms; the means are at the observed offsets, whose average they have."""
    data = DATA.assign(o=3 * DATA.x1 + DATA.t, less=DATA.y - 3 * DATA.x1 - DATA.t)
    given = {"family": "gaussian", "exposure": None}
    shifted = fit(estimator, data, offset="o", **given)
    plain = fit(estimator, data.assign(y=data.less), **given)
    assert shifted.effect == pytest.approx(plain.effect, rel=1e-9)
    assert shifted.effect_se == pytest.approx(plain.effect_se, rel=1e-9)
    np.testing.assert_allclose(shifted.params.iloc[1:], plain.params.iloc[1:] + data.o.mean(), rtol=1e-9)
    if estimator is not JRE:
        resampled = [res.model.fit(n_boot=3).boot_params["ATE"] for res in (shifted, plain)]
        np.testing.assert_allclose(*resampled, rtol=1e-9)


@pytest.mark.parametrize("link", ["logit", "probit", "cloglog"])
def test_an_offset_under_the_links_of_a_binomial_model(link):
    data = DATA.assign(any=(DATA.y > 1).astype(float), o=0.5 * DATA.t)
    options = {"treat": "d", "family": "binomial", "link": link, "offset": "o"}
    res = OutcomeRegression.from_formula("any ~ x1 + x2", data, **options).fit()
    made = {"logit": sm.families.links.Logit, "probit": sm.families.links.Probit, "cloglog": sm.families.links.CLogLog}
    X = sm.add_constant(data[["x1", "x2"]])
    for arm in (0, 1):
        rows, family = data.d == arm, sm.families.Binomial(made[link]())
        glm = sm.GLM(data["any"][rows], X[rows], family=family, offset=data.o[rows]).fit(tol=1e-14, maxiter=200)
        assert res.params[f"POM[{arm}]"] == pytest.approx(glm.predict(X, offset=data.o).mean(), rel=1e-8)


@pytest.mark.parametrize(("family", "made"), [
    ("gamma", sm.families.Gamma(sm.families.links.Log())), ("gaussian", sm.families.Gaussian(sm.families.links.Log())),
])  # fmt: skip
def test_exposure_under_the_other_families_with_a_log_link(family, made):
    data = DATA.assign(y=DATA.y + 0.5)
    for estimator in (OutcomeRegression, Unadjusted):
        res = fit(estimator, data, family=family, link="log")
        X = sm.add_constant(data[["x1", "x2"]]) if estimator is OutcomeRegression else np.ones((len(data), 1))
        for arm in (0, 1):
            rows = (data.d == arm).to_numpy()
            glm = sm.GLM(data.y[rows], X[rows], family=made, exposure=data.t[rows]).fit(tol=1e-14, maxiter=300)
            rates = glm.predict(X, exposure=np.ones(len(data)))
            assert res.params[f"POM[{arm}]"] == pytest.approx(rates.mean(), rel=1e-7)


def test_three_arms_each_have_their_rate():
    data = DATA.assign(d=np.random.default_rng(0).integers(0, 3, len(DATA)))
    res = fit(OutcomeRegression, data, reference=0)
    X = sm.add_constant(data[["x1", "x2"]])
    for arm in (0, 1, 2):
        rows = data.d == arm
        glm = sm.GLM(data.y[rows], X[rows], family=sm.families.Poisson(), exposure=data.t[rows]).fit(tol=1e-14)
        rate = glm.predict(X, exposure=np.ones(len(data))).mean()
        assert res.params[f"POM[{arm}]"] == pytest.approx(rate, rel=1e-8)


def test_the_rate_of_another_population_is_at_the_stated_exposure():
    elsewhere = counts(120, seed=9)[["x1", "x2"]] + 0.2
    hand, res = ByHand(OutcomeRegression, 1.0), fit(OutcomeRegression, target=elsewhere, at_exposure=2)
    there = np.exp(sm.add_constant(elsewhere).to_numpy() @ np.column_stack(hand.beta)).mean(axis=0)
    np.testing.assert_allclose(res.params.iloc[1:], 2 * there, rtol=1e-8)
    with pytest.raises(cr.OptionError, match="target frame"):
        fit(OutcomeRegression, target=elsewhere, at_exposure="observed")


def test_groups():
    """Rates at the stated exposure, plus what the weighted rates of the residuals are in a group."""
    res = fit(IPWRA)
    rates, w, by = res.potential_outcomes, res.importance_weights, res.effects_by("g", DATA)
    for group in (0, 1):
        means = []
        for arm in (0, 1):
            own, rate = (DATA.g == group) & (DATA.d == arm), rates[str(arm)]
            left = (w * (DATA.y - DATA.t * rate))[own].sum() / (w * DATA.t)[own].sum()
            means.append(rate[DATA.g == group].mean() + left)
        assert by["estimate"].iloc[group] == pytest.approx(means[1] - means[0], rel=1e-10)
    res = fit(Hajek, effect="ratio")
    w = res.importance_weights
    for group, estimate in enumerate(res.effects_by("g", DATA)["estimate"]):
        rows = [(DATA.g == group) & (DATA.d == arm) for arm in (0, 1)]
        rate = [(w * DATA.y)[r].sum() / (w * DATA.t)[r].sum() for r in rows]
        assert estimate == pytest.approx(rate[1] / rate[0], rel=1e-8)
    quiet = DATA.assign(y=DATA.y.where((DATA.g == 0) | (DATA.d == 1), 0))
    assert np.isnan(fit(Hajek, quiet, effect="ratio").effects_by("g", quiet)["estimate"].iloc[1])


def test_trimming_keeps_each_row_its_exposure():
    res = fit(IPWRA, trim=(0.3, 0.7))
    inside = DATA.loc[res.potential_outcomes.index]
    assert 50 < len(inside) < len(DATA)
    np.testing.assert_allclose(res.params.iloc[1:], ByHand(IPWRA, 1.0, inside).means, rtol=1e-8)


def test_the_truth_is_found():
    """The mean yearly rate of everybody, and the mean count at the observed exposures."""
    data = counts(3000, seed=4)
    for at, weight in ((1, 1.0), ("observed", data.t)):
        truth = ((data.rate1 - data.rate0) * weight).mean()
        for estimator in (OutcomeRegression, IPWRA) if at == 1 else (IPWRA, AIPW, JRE):
            res = fit(estimator, data, at_exposure=at)
            assert abs(res.effect - truth) < 3.5 * res.effect_se
            assert res.effect_se < 0.25 * truth


def test_a_row_without_exposure_is_left_out_and_counted():
    data = DATA.assign(t=DATA.t.where(DATA.index > 9))
    res = fit(IPWRA, data)
    assert res.nobs == len(DATA) - 10
    line = res.sample_ledger.iloc[-1]
    assert (line["formula"], line["variable"], line["missing"], line["dropped"]) == ("exposure", "t", 10, 10)
    np.testing.assert_allclose(res.params, fit(IPWRA, data.dropna()).params, rtol=1e-12)
    with pytest.raises(cr.DesignError, match=r"'t' \(exposure\)  10 rows"):
        fit(IPWRA, data, missing="raise")


def test_fits_at_different_exposures_are_not_pooled():
    fits = [fit(IPWRA, counts(seed=seed), at_exposure=2) for seed in (1, 2)]
    assert re.search(r"Exposure: +t \(means at 2\)", str(cr.pool(fits).summary()))
    with pytest.raises(cr.DesignError, match="at_exposure="):
        cr.pool([fits[0], fit(at_exposure=3)])


def test_an_exposure_of_zero_in_a_row_that_is_left_out_is_no_matter():
    data = DATA.assign(t=DATA.t.where(DATA.index > 2, 0.0), x1=DATA.x1.where(DATA.index > 2))
    np.testing.assert_allclose(fit(IPWRA, data).params, fit(IPWRA, DATA.iloc[3:]).params, rtol=1e-12)


def test_new_data_need_the_exposure_where_means_are_at_the_observed_ones():
    new = DATA[["x1", "x2"]].head(3)
    assert fit().predict(new).shape == (3, 2)
    observed = fit(at_exposure="observed")
    with pytest.raises(cr.DesignError, match="no column 't', which is the exposure of the fit"):
        observed.predict(new)
    with pytest.raises(cr.DesignError, match="missing in 1 rows"):
        observed.predict(new.assign(t=[1.0, np.nan, 2.0]))
    with pytest.raises(cr.DesignError, match="zero or negative"):
        observed.get_prediction(new.assign(t=[1.0, 0.0, 2.0]))


def test_compare_has_all_estimators_at_the_observed_exposures():
    options = {"treat": "d", "family": "poisson", "exposure": "t", "at_exposure": "observed", "n_boot": 5}
    both = cr.compare("y ~ x1 + x2", DATA, n_replicates=5, shrinkage=1.0, **options)
    for name, res in both.results.items():
        if name not in ("JRE",):
            alone = fit(dict(zip((e.__name__ for e in EVERY), EVERY, strict=True))[name], at_exposure="observed")
            np.testing.assert_allclose(res.params, alone.params, rtol=1e-8)
    assert "Exposure:" in str(both.summary())
    with pytest.raises(cr.OptionError, match='at_exposure="observed"'):
        cr.compare("y ~ x1 + x2", DATA, estimators=["IPWRA", "AIPW"], **options | {"at_exposure": 1})


def test_diagnostics_of_residuals_are_at_the_observed_exposures():
    """The bounds of an omitted confounder rest on the residuals y - m, here by hand."""
    observed = fit(IPWRA, at_exposure="observed")
    hand = ByHand(IPWRA, "observed")
    w, _ = hand.weights(hand.gamma)
    fitted = np.where(DATA.d == 1, hand.mean(hand.beta[1]), hand.mean(hand.beta[0]))
    size = np.sqrt(((DATA.y - fitted) ** 2).mean() * (w**2).mean())
    assert observed.sensitivity()["scale"].iloc[0] == pytest.approx(size, rel=1e-7)
    for name in ("sensitivity", "sensitivity_bounds"):
        with pytest.raises(cr.UnavailableError, match="at_exposure"):
            getattr(fit(), name)()


def test_weighted_rates_are_standardised_by_time():
    """The way to rates by AIPW and JRE: coefficients as with the exposure, and averages over years."""
    options = {"treat": "d", "family": "poisson", "weights": "t", "weight_type": "probability"}
    rates = OutcomeRegression.from_formula("I(y / t) ~ x1 + x2", DATA, **options).fit()
    hand = ByHand(OutcomeRegression, 1.0)
    np.testing.assert_allclose(rates.outcome_params.to_numpy().T, hand.beta, rtol=1e-8)
    standardised = [np.average(hand.mean(beta), weights=DATA.t) for beta in hand.beta]
    np.testing.assert_allclose(rates.params.iloc[1:], standardised, rtol=1e-8)


def test_an_exposure_that_cannot_be_is_refused():
    for t in (0.0, -1.0):
        with pytest.raises(cr.DesignError, match="exposure"):
            model(IPWRA, DATA.assign(t=DATA.t.where(DATA.index != DATA.index[3], t)))
    with pytest.raises(cr.OptionError, match="offset= and exposure="):
        model(IPWRA, DATA, offset="x1")
    with pytest.raises(cr.DesignError, match="exposure"):
        model(IPWRA, DATA, exposure="no such column")


@pytest.mark.parametrize("option", ["offset", "exposure"])
def test_the_outcome_or_the_treatment_as_an_offset_is_refused(option):
    data = DATA.assign(y=DATA.y + 1)
    for name, kind in (("y", "outcome"), ("d", "treatment")):
        for source in (data, cr.scan([data])):
            with pytest.raises(cr.DesignError, match=f"{option} '{name}' is also the {kind}"):
                IPWRA.from_formula("y ~ x1", source, treat="d", **{option: name})
        with pytest.raises(cr.DesignError, match=f"{option} '{name}' is also the {kind}"):
            IPWRA(endog=data.y, exog=data[["x1"]].assign(const=1), treat=data.d, **{option: data[name]})
