"""nlcom: the delta method by hand and by the package's own ratios, what it reads, what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

import causalrisk as cr
from tests.conftest import RHS, simulate

pytestmark = pytest.mark.filterwarnings("ignore::causalrisk.CausalRiskWarning")


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(2)
    return simulate(400).assign(y=lambda f: np.exp(0.3 * f.y), arm=lambda f: rng.choice(["a", "b 1", "b 12"], len(f)))


@pytest.fixture(scope="module")
def res(frame):
    return cr.IPWRA.from_formula(f"y ~ {RHS}", frame, treat="d").fit()


def test_the_delta_method_by_hand(res):
    found = res.nlcom("POM[1] / POM[0] - 1")
    _, zero, one = res.params
    gradient = np.array([0, -one / zero**2, 1 / zero])
    se = np.sqrt(gradient @ res.cov_params().to_numpy() @ gradient)
    assert found.effect[0] == pytest.approx(one / zero - 1, rel=1e-12)
    assert found.sd[0] == pytest.approx(se, rel=1e-10)
    assert float(found.statistic[0]) == pytest.approx((one / zero - 1) / se, rel=1e-10)
    assert "POM[1] / POM[0] - 1" in str(found.summary())


@pytest.mark.parametrize("cov_type", ["robust", "bootstrap"])
def test_it_is_the_ratio_of_another_scale(frame, cov_type):
    """Point and standard error of effect="ratio" and "percent" for robust errors; the logarithm has its interval."""
    model = cr.AIPW.from_formula(f"y ~ {RHS}", frame, treat="d")
    options = {"cov_type": cov_type} | ({"n_boot": 50} if cov_type == "bootstrap" else {})
    res, ratio = model.fit(**options), model.with_options(effect="ratio").fit(**options)
    found = res.nlcom("POM[1]/POM[0] = 1, 100 * (POM[1] - POM[0]) / POM[0], log(POM[1]) - log(POM[0])")
    assert found.effect[0] == pytest.approx(ratio.effect, rel=1e-12)
    assert found.effect[1] == pytest.approx(model.with_options(effect="percent").fit().effect, rel=1e-12)
    if cov_type == "robust":
        assert found.sd[0] == pytest.approx(ratio.effect_se, rel=1e-9)
        np.testing.assert_allclose(np.exp(found.conf_int()[2]), ratio.conf_int().iloc[0], rtol=1e-9)
        assert found.statistic[0] == pytest.approx((ratio.effect - 1) / ratio.effect_se, rel=1e-9)


@pytest.mark.parametrize(
    ("linear", "nonlinear"),
    [
        ("POM[1] - POM[0] = 0.2", "POM[1] - POM[0] = 0.2"),
        ("2 * ATE", "ATE * 4 / 2"),
        ("2 * ATE = 0.001", "2e+0 * ATE = 1e-3"),
        ("POM[1] = POM[0]", "POM[1] = POM[0]"),
        ("ATE, POM[0] = 1", "ATE, POM[0] = 2**0"),
        ("ATE", "-(-ATE)^1"),
    ],
)
def test_linear_expressions_are_t_test(res, linear, nonlinear):
    one, other = res.t_test(linear), res.nlcom(nonlinear)
    np.testing.assert_allclose(other.effect, one.effect, rtol=1e-12)
    np.testing.assert_allclose(other.sd, one.sd, rtol=1e-9)
    np.testing.assert_allclose(np.ravel(other.statistic), np.ravel(one.statistic), rtol=1e-9)
    np.testing.assert_allclose(other.conf_int(), one.conf_int(), rtol=1e-9)


def test_names_that_hold_one_another(frame):
    res = cr.IPWRA.from_formula(f"y ~ {RHS}", frame, treat="arm", reference="a").fit()
    found = res.nlcom("ATE[b 12] / ATE[b 1], sqrt(POM[a]**2), exp(ATE[b 12])")
    first, second, mean = res.params[["ATE[b 1]", "ATE[b 12]", "POM[a]"]]
    np.testing.assert_allclose(found.effect, [second / first, mean, np.exp(second)])
    assert found.c_names == ["ATE[b 12] / ATE[b 1]", "sqrt(POM[a]**2)", "exp(ATE[b 12])"]
    target = cr.IPWRA.from_formula(f"y ~ {RHS}", frame, treat="arm", reference="a", target="b 1").fit()
    assert target.nlcom("ATT(b 1)[b 12] / ATT(b 1)[b 1]").effect[0] == target.params.iloc[1] / target.params.iloc[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("POM[1] / mage", r"the names ATE, POM\[0\], POM\[1\]"),
        ("POM[1] /", "cannot read"),
        ("sin(ATE)", "log, exp, sqrt"),
        ("ATE = 1 = 2", "cannot read"),
        ("__import__('os')", "cannot read"),
        ("log(0 * ATE)", "no finite value"),
        ("9**9**9 * ATE", "cannot read"),  # of whole numbers Python would compute every digit
    ],
)
def test_what_it_does_not_read(res, text, message):
    with pytest.raises(cr.OptionError, match=message):
        res.nlcom(text)


def test_jre_has_functions_of_its_effect_only(frame):
    model = cr.JRE.from_formula(f"y ~ {RHS}", frame, treat="d")
    res = model.fit(cov_type="robust", n_replicates=40)
    for text in ("POM[1] / POM[0]", "POM[1]", "log(POM[1]) - log(POM[0])"):
        with pytest.raises(cr.OptionError, match='effect="ratio"'):
            res.nlcom(text)
    for text in ("ATE**2", "exp(POM[1] - POM[0])", "ATE"):
        assert np.isfinite(res.nlcom(text).sd).all()
    ratio = model.with_options(effect="ratio").fit(cov_type="robust", n_replicates=40)
    found = ratio.nlcom("POM[1] / POM[0]")
    assert found.effect[0] == pytest.approx(ratio.effect, rel=1e-9)
    with pytest.raises(cr.OptionError, match="depends on the means"):
        ratio.nlcom("POM[1] - POM[0]")
    assert res.start.nlcom("POM[1] / POM[0]").effect[0] > 0
