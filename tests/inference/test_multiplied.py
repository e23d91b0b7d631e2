"""The multiplier bootstrap: draws by hand, and intervals, p-values and tables made of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import causalrisk as cr
from causalrisk.numerics.resampling import MULTIPLIERS, multipliers, seed_sequence
from tests.conftest import RHS, in_parts, simulate

DATA = simulate(90, strength=0.4).assign(
    y=lambda f: f.y + 10, g=np.arange(90) % 13, k=1 + np.arange(90) % 3, arm=lambda f: f.d + (np.arange(90) % 3 == 0)
)
QUIET = pytest.mark.filterwarnings("ignore::causalrisk.errors.DesignWarning")


def model_of(kind, data=DATA, **options):
    return kind.from_formula("y ~ x1 + x2", data, **{"treat": "d", **options})


def multiplied(model, n_boot=70, **options):
    return model.fit(bootstrap="multiplier", n_boot=n_boot, **options)


def drawn(law, units, n_boot):
    """Multipliers of units, shape (units, n_boot)."""
    blocks = [(b, min(32, n_boot - 32 * b)) for b in range(-(-n_boot // 32))]
    return np.hstack([multipliers(law, seed_sequence(0), b, w, units, None)[0] for b, w in blocks])


@QUIET
@pytest.mark.parametrize(("law", "options"), [
    *((law, {"cluster": "g"}) for law in MULTIPLIERS), ("rademacher", {}),
    ("rademacher", {"treat": "arm", "reference": 0}),
    ("rademacher", {"weights": "k", "weight_type": "probability"}),
])  # fmt: skip
@pytest.mark.parametrize("kind", [cr.IPWRA, cr.AIPW, cr.JRE])
def test_draws_by_hand(kind, options, law):
    """Estimate plus the sum of multipliers times the rows of the estimating equations, in all columns of these."""
    extra = {"n_replicates": 20} if kind is cr.JRE else {}
    res = multiplied(model_of(kind, **options), multiplier=law, **extra)
    weights = DATA.k.to_numpy() if "weights" in options else np.ones(90)
    psi = res.estimating_equations().to_numpy() * (weights / weights.sum())[:, None]
    if "cluster" in options:
        psi = pd.DataFrame(psi).groupby(DATA.g.to_numpy()).sum().to_numpy()
    w, count = drawn(law, len(psi), 70), len(res.params)
    np.testing.assert_allclose(res.boot_params, res.params.to_numpy() + w.T @ psi[:, :count], rtol=1e-9)
    parts = w.T[:, :, None] * psi[:, :count]
    errors = np.sqrt(((parts - parts.mean(axis=1, keepdims=True)) ** 2).sum(axis=1))
    np.testing.assert_allclose(res._record.boot.errors, errors, rtol=1e-9)
    moved = res._record.boot.values - res._record.estimate.values
    factor = res._record.choice_variance
    expected = factor * moved.T @ moved / 70 if kind is cr.JRE else np.cov(moved, rowvar=False)
    np.testing.assert_allclose(res._record.covariance, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("law", MULTIPLIERS)
def test_each_of_equal_rows_has_a_multiplier(law):
    """Mean and variance of the sum, and of the squares the mean, are those of as many independent multipliers."""
    sizes = np.repeat([1.0, 2.0, 7.0], 1500)
    found = [multipliers(law, seed_sequence(1), b, 32, 4500, sizes) for b in range(4)]
    sums, squares = (np.hstack(each) for each in zip(*found, strict=True))
    third = MULTIPLIERS[law][0] ** 3 @ MULTIPLIERS[law][1]
    for size in (1, 2, 7):
        own = sizes == size
        assert sums[own].mean() == pytest.approx(0, abs=0.02)
        assert sums[own].var() == pytest.approx(size, rel=0.02)
        assert squares[own].mean() == pytest.approx(size, rel=0.01)
        assert (sums[own] ** 3).mean() == pytest.approx(size * third, abs=0.25 * size)
    robust = model_of(cr.IPWRA, weights="k", weight_type="frequency")
    res = multiplied(robust, n_boot=2000, multiplier=law)
    np.testing.assert_allclose(res.bse, robust.fit().bse, rtol=0.06)
    assert np.mean(res._record.boot.errors[:, 0] ** 2) == pytest.approx(robust.fit().effect_se ** 2, rel=0.03)


def test_data_on_disk_have_no_multipliers():
    model = model_of(cr.IPWRA, in_parts([DATA[:40], DATA[40:]], 32))
    with pytest.raises(cr.UnavailableError, match='bootstrap="multiplier" is not available for data on disk'):
        multiplied(model, multiplier="mammen")


def test_effects_move_on_the_scale_where_they_are_differences():
    ratio, difference = (multiplied(model_of(cr.IPWRA, effect=name)) for name in ("ratio", "difference"))
    moved = difference.boot_params - difference.params
    low, high = difference.params["POM[0]"], difference.params["POM[1]"]
    logs = np.log(ratio.boot_params["ATE ratio"] / ratio.effect)
    np.testing.assert_allclose(logs, moved["POM[1]"] / high - moved["POM[0]"] / low, rtol=1e-8, atol=1e-12)
    log_errors = ratio._record.boot.errors[:, 0] / ratio.boot_params["ATE ratio"]
    psi = difference.estimating_equations().to_numpy() / len(DATA)
    parts = drawn("rademacher", 90, 70).T * (psi[:, 2] / high - psi[:, 1] / low)
    np.testing.assert_allclose(log_errors, np.sqrt(90) * parts.std(axis=1), rtol=1e-8)


@QUIET
@pytest.mark.parametrize("kind", [cr.IPWRA, cr.JRE])
def test_studentized_intervals_and_p_values(kind):
    model = model_of(kind, cluster="g")
    res = multiplied(model, n_boot=999, multiplier="webb")
    boot, robust = res._record.boot, model.fit(cov_type="cluster").bse
    t = np.quantile((res.boot_params - res.params) / boot.errors, [0.975, 0.025], axis=0)
    limits = res.conf_int(method="studentized")
    np.testing.assert_allclose(limits, (res.params.to_numpy() - t * robust.to_numpy()).T, rtol=1e-9)
    for method in ("studentized", "percentile", "basic"):
        null = res.effect - 1.7 * res.effect_se
        p = res.boot_pvalues(null, method=method)["ATE"]
        outside = [not low < null < high for low, high in (
            res.conf_int(alpha, method=method).loc["ATE"] for alpha in (p * 0.9, p * 1.1)
        )]  # fmt: skip
        assert outside == [False, True]
    assert res.boot_pvalues()["POM[1]"] == 2 / 1000
    assert res.boot_pvalues(res.effect, method="percentile")["ATE"] > 0.9


def test_p_values_of_resamples():
    res = model_of(cr.IPWRA).fit(n_boot=199)
    at = np.sort(res.boot_params["ATE"])
    assert res.boot_pvalues((at[9] + at[10]) / 2)["ATE"] == pytest.approx(2 * 11 / 200)  # by percentiles
    with pytest.raises(cr.UnavailableError, match='cov_type="bootstrap"'):
        model_of(cr.IPWRA).fit().boot_pvalues()
    with pytest.raises(cr.OptionError, match="method"):
        res.boot_pvalues(method="bca")


def test_comparison_has_the_same_multipliers_for_all():
    names = ["OutcomeRegression", "IPWRA", "JRE"]
    options = {"n_boot": 70, "multiplier": "webb", "rng": 0}
    together = cr.compare(
        "y ~ x1 + x2", DATA, treat="d", estimators=names, bootstrap="multiplier", n_replicates=20, **options
    )
    alone = {
        name: multiplied(model_of(getattr(cr, name)), **options, **({"n_replicates": 20} if name == "JRE" else {}))
        for name in names
    }
    for name in names:
        np.testing.assert_allclose(together.boot_effects[name], alone[name].boot_params["ATE"], rtol=1e-9)
    both = alone["OutcomeRegression"].boot_params["ATE"] - alone["IPWRA"].boot_params["ATE"]
    row = together.differences.loc["OutcomeRegression", "IPWRA"]
    assert row["std err"] == pytest.approx(both.std(), rel=1e-9)
    assert "webb multipliers" in str(together.summary())
    start = alone["JRE"].start_difference().loc["JRE - IPWRA", "std err"]
    assert start == pytest.approx((alone["JRE"].boot_params["ATE"] - alone["IPWRA"].boot_params["ATE"]).std(), rel=1e-9)


def test_groups_of_jre_have_the_errors_of_the_influence_function():
    rows = np.where(DATA.x3 > 0, "high", "low")
    one = multiplied(model_of(cr.JRE), n_boot=30, n_replicates=20).effects_by(rows)
    robust = model_of(cr.JRE).fit(cov_type="robust", n_replicates=20)
    pd.testing.assert_frame_equal(one, robust.effects_by(rows))


@pytest.mark.parametrize(
    ("options", "typed"),
    [
        ({"multiplier": "webb"}, "multiplier"),
        ({"bootstrap": "multiplier", "multiplier": "normal"}, "multiplier"),
        ({"bootstrap": "multiplier", "resamples": np.ones((90, 3))}, "bootstrap"),
        ({"bootstrap": "multiplier", "cov_type": "jackknife"}, "bootstrap"),
    ],
)
def test_refused(options, typed):
    with pytest.raises(cr.OptionError, match=typed):
        model_of(cr.JRE).fit(**options)


def test_seed_and_number_of_draws():
    model = cr.IPWRA.from_formula(f"y ~ {RHS}", DATA, treat="d")
    fewer, more = multiplied(model, n_boot=40, rng=5).boot_params, multiplied(model, n_boot=70, rng=5).boot_params
    np.testing.assert_allclose(fewer, more[:40], rtol=1e-12)
    assert not np.isclose(more["ATE"], multiplied(model, rng=6).boot_params["ATE"]).any()
