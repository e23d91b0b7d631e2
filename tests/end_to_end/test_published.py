"""Published analyses, redone: the numbers of docs/tutorials/textbooks.md."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.formula.api as smf

import causalrisk as cr
from tests.conftest import CATTANEO_PROPENSITY, CATTANEO_RHS

NHEFS_RHS = (
    "sex + race + age + I(age**2) + C(education) + smokeintensity + I(smokeintensity**2) + smokeyrs + I(smokeyrs**2) "
    "+ C(exercise) + C(active) + wt71 + I(wt71**2)"
)


@pytest.fixture(scope="module")
def smokers():
    return cr.datasets.load_nhefs().dropna(subset=["wt82_71"])


def test_nhefs_by_weighting(smokers):
    """What If, section 12.2: 3.4 kg (95% interval 2.4, 4.5), with a standard error that treats the weights as known."""
    res = cr.IPW.from_formula("wt82_71 ~ 1", smokers, treat="qsmk", propensity=NHEFS_RHS).fit()
    assert round(res.effect, 1) == 3.4
    residual = smokers["wt82_71"] - np.where(smokers["qsmk"], res.params["POM[1]"], res.params["POM[0]"])
    as_if_known = [
        ((res.importance_weights[arm] * residual[arm]) ** 2).sum() / res.importance_weights[arm].sum() ** 2
        for arm in (smokers["qsmk"] == 0, smokers["qsmk"] == 1)
    ]
    margin = 1.96 * sum(as_if_known) ** 0.5
    assert (round(res.effect - margin, 1), round(res.effect + margin, 1)) == (2.4, 4.5)
    assert res.effect_se < sum(as_if_known) ** 0.5  # estimating the weights is accounted for: a shorter interval


def test_nhefs_by_standardization(smokers):
    """Section 13.3: 3.5 kg, both arms sharing all slopes but that of smokeintensity; own slopes give 3.4."""
    pooled = smf.ols(f"wt82_71 ~ qsmk + qsmk:smokeintensity + {NHEFS_RHS}", smokers).fit()
    means = [pooled.predict(smokers.assign(qsmk=arm)).mean() for arm in (0, 1)]
    assert round(means[1] - means[0], 1) == 3.5
    own = cr.OutcomeRegression.from_formula(f"wt82_71 ~ {NHEFS_RHS}", smokers, treat="qsmk").fit()
    assert round(own.effect, 1) == 3.4


def test_nhefs_with_weights_for_censoring():
    """Section 12.6: 3.5 kg (2.5, 4.5), with everybody, also those whose weight in 1982 is not known."""
    res = cr.IPW.from_formula(
        "wt82_71 ~ 1", cr.datasets.load_nhefs(), treat="qsmk", propensity=NHEFS_RHS, observed=f"{NHEFS_RHS} + qsmk"
    ).fit()
    assert (res.nobs, round(res.effect, 1)) == (1629, 3.5)
    assert res.conf_int().loc["ATE"].tolist() == pytest.approx([2.5, 4.5], abs=0.1)


@pytest.mark.filterwarnings("ignore:poor overlap")
def test_mixtape_weighting():
    """The Mixtape's -11,876 and -7,238 dollars, unnormalised and normalised; 2,006 and 1,806 after trimming."""
    men = cr.datasets.load_lalonde("cps")
    score = (
        "age + I(age**2) + I(age**3) + educ + I(educ**2) + married + nodegree + black + hispan + re74 + re75 "
        "+ I(re74 == 0) + I(re75 == 0) + educ:re74"
    )
    res = cr.IPW.from_formula("re78 ~ 1", men, treat="treat", propensity=score).fit()
    assert round(res.effect) == -7238
    d, y, e = men["treat"], men["re78"], res.propensity_scores
    assert int((d * y / e - (1 - d) * y / (1 - e)).mean()) == -11876
    men["e"] = e
    kept = men[(e >= 0.1) & (e <= 0.9)]
    assert int(cr.IPW.from_formula("re78 ~ 1", kept, treat="treat", propensity_score="e").fit().effect) == 1806


@pytest.mark.parametrize(("controls", "effect", "se"), [("experimental", 1794, 633), ("cps", -8498, 712)])
def test_lalonde_raw_differences(controls, effect, se):
    """Least squares of earnings on treatment; reanalyses of Dehejia and Wahba (1999) quote 1,794 and -8,498 from it.

    The standard errors are those of least squares on the same rows; the article itself was not at hand.
    """
    men = cr.datasets.load_lalonde(controls)
    model = cr.OutcomeRegression.from_formula("re78 ~ 1", men, treat="treat")
    assert round(model.fit().effect) == effect
    assert round(smf.ols("re78 ~ treat", men).fit().bse["treat"]) == se


STATA = {  # effect and standard error printed in the manual's entries for teffects ra, ipw, ipwra and aipw
    cr.OutcomeRegression: (-239.6392, 23.82402),
    cr.IPW: (-230.6886, 25.81524),
    cr.IPWRA: (-229.9671, 26.62668),
    cr.AIPW: (-230.9892, 26.21056),
}


@pytest.mark.parametrize("estimator", STATA)
def test_birth_weight_table(cattaneo, estimator):
    res = estimator.from_formula(
        f"bweight ~ {CATTANEO_RHS}", cattaneo, treat="mbsmoke", propensity=CATTANEO_PROPENSITY, propensity_link="probit"
    ).fit()
    assert (res.effect, res.effect_se) == pytest.approx(STATA[estimator], rel=5e-7)


@pytest.mark.parametrize(("target", "effect"), [("treated", -226.178244812), (0, -230.764613251)])
def test_augmented_effects_on_an_arm_are_those_of_statsmodels(target, effect):
    """As printed in statsmodels' pull request 10233 (ATET and ATC of `aipw`), whose scores are cut at 0.01 and 0.99."""
    terms = "prenatal1 + mmarried + mage + I(mage**2) + fbaby + medu"
    births = cr.datasets.load_cattaneo2()
    model = cr.AIPW.from_formula(f"bweight ~ {terms}", births, treat="mbsmoke", target=target, clip=(0.01, 0.99))
    assert model.fit().effect == pytest.approx(effect, abs=1e-9)
