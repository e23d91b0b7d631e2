"""An arm mean far outside of all outcomes: warned of with its cause, by every estimator, in memory and from a scan."""

import warnings

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import causalrisk as cr
from tests.conftest import simulate

F = "y ~ x1 + x2"
ESTIMATORS = [cr.OutcomeRegression, cr.IPWRA, cr.AIPW, cr.JRE]


def fit(estimator, data, formula=F, **options):
    fixed = {"cov_type": "robust"} | ({"n_replicates": 60} if estimator is cr.JRE else {})
    return estimator.from_formula(formula, data, **{"treat": "d", **options}).fit(**fixed)


@pytest.fixture(scope="module")
def data():
    return simulate(n=300, seed=3)


def blocks(data):
    return cr.scan([data[:110], data[110:]])


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_model_that_extrapolates_to_a_frame_far_away(data, estimator):
    far = data.assign(x1=data.x1 + 60 * (data.x1 > 0))
    options = {"target": far[["x1", "x2"]], "propensity": "x2"}
    texts = []
    for source in (data, blocks(data)):
        with pytest.warns(cr.OverlapWarning, match="the mean of group '1' is") as caught:
            res = fit(estimator, source, **options)
        (text,) = (str(w.message) for w in caught if "the mean of group" in str(w.message))
        assert "the target frame" in text
        assert text.replace("\n", " ").replace("the", "The", 1) in res.summary().notes
        texts.append(text)
    assert texts[0] == texts[1] or estimator is cr.JRE  # whose replicates of a scan are other ones
    assert res.params["POM[1]"] > data.y.max() + np.ptp(data.y)


@pytest.mark.filterwarnings("ignore:poor overlap")
def test_weights_that_carry_a_mean_away(data):
    row = data.y[data.d == 0].idxmax()
    frame = data.assign(e=np.where(data.index == row, 0.99995, 0.5))
    with pytest.warns(cr.OverlapWarning, match=r"the mean of group '0' is [^$]*large weights of a few rows"):
        res = fit(cr.AIPW, frame, propensity_score="e")
    assert abs(res.effect) > np.ptp(frame.y)


def test_scores_that_are_not_the_groups_shares_on_average(data):
    few = data[(data.d == 0) | (data.index % 4 == 0)]
    share = few.d.mean()
    for score in (0.5, LogisticRegression(class_weight="balanced")):
        with pytest.warns(
            cr.DesignWarning, match=f"'1' average 0.[45]. over all rows, but its share of the sample is {share:.2f}"
        ):
            fit(cr.AIPW, few, propensity_score=score)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for score in (share + 0.04, LogisticRegression()):
            fit(cr.AIPW, few, propensity_score=score)


def test_means_within_reach_are_not_warned_of(data):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for estimator in (cr.OutcomeRegression, cr.IPWRA, cr.AIPW):
            fit(estimator, data)
            fit(estimator, data, target=data[["x1", "x2"]] + 0.5)
        fit(cr.OutcomeRegression, data.assign(e=2.0, y=data.y**2), family="poisson", exposure="e")


def test_ipw_notes_covariates_that_only_its_outcome_formula_has(data):
    def notes(estimator, formula, **options):
        return " ".join(fit(estimator, data, formula, **options).summary().notes)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text = notes(cr.IPW, "y ~ x1 + np.log(x2**2)", propensity="x3 + x1")
        assert 'it does not adjust for x2. Use `propensity="x3 + x1 + x2"`, or IPWRA or AIPW.' in text
        assert '`propensity="x1"`' in notes(cr.IPW, "y ~ x1", propensity="1")
        assert "does not adjust for x1" in " ".join(
            fit(cr.IPW, blocks(data), "y ~ x1", propensity="x2").summary().notes
        )
        for estimator, propensity in ((cr.IPW, None), (cr.IPW, "x1 + x2 + x3"), (cr.IPWRA, "x3"), (cr.AIPW, "x3")):
            assert "does not adjust" not in notes(estimator, F, propensity=propensity)


@pytest.mark.parametrize("estimator", [cr.IPW, cr.IPWRA, cr.AIPW, cr.TMLE, cr.JRE])
def test_without_covariates_the_effect_is_the_raw_difference(data, estimator):
    raw = data[data.d == 1].y.mean() - data[data.d == 0].y.mean()
    for source in (data, blocks(data)):
        res = fit(estimator, source, "y ~ 1")
        assert res.effect == pytest.approx(raw, rel=1e-10)
        assert "No covariates are adjusted for." in res.summary().notes
    assert "No covariates are adjusted for." not in fit(estimator, data, "y ~ 1", propensity="x1").summary().notes
