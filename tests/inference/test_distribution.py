"""Distribution functions with bands, beside the estimators of means of the indicators."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, logit

import causalrisk as cr
from causalrisk import AIPW, Hajek
from tests.conftest import simulate

DATA = simulate(n=500, seed=5).assign(site=lambda data: np.arange(len(data)) % 40)
GRID = [-2.0, 0.0, 1.5, 4.0]


def fitted(estimator=AIPW, **options):
    return estimator.from_formula("y ~ x1 + x2", DATA, treat="d", **options).fit()


@pytest.mark.parametrize(
    ("estimator", "options"),
    [(Hajek, {"target": "treated"}), (AIPW, {}), (AIPW, {"target": "treated", "cluster": "site"})],
)
def test_share_and_error_are_those_of_the_indicator(estimator, options):
    found = fitted(estimator, **options).distribution(GRID)
    for value in GRID:
        data = DATA.assign(z=(DATA.y <= value).astype(float))
        res = estimator.from_formula(
            "z ~ x1 + x2", data, treat="d", family="binomial", propensity="x1 + x2", **options
        ).fit()
        own = found.xs(value, level="y")
        assert own["estimate"].to_numpy() == pytest.approx(res.params.iloc[1:].to_numpy(), abs=1e-10)
        assert own["std err"].to_numpy() == pytest.approx(res.bse.iloc[1:].to_numpy(), rel=1e-8)
        share, half = res.params.iloc[1:].to_numpy(), res.conf_int().iloc[1:].diff(axis=1).iloc[:, 1].to_numpy() / 2
        reach = half / (share * (1 - share))
        limits = expit(np.column_stack([logit(share) - reach, logit(share) + reach]))
        assert own[["[0.025", "0.975]"]].to_numpy() == pytest.approx(limits, abs=1e-8)


@pytest.mark.parametrize("estimator", [Hajek, AIPW])
def test_missing_outcomes_are_weighed_as_those_of_the_indicator(estimator):
    seen = np.random.default_rng(0).random(len(DATA)) < 1 / (1 + np.exp(-1 - DATA.x1))
    data, given = DATA.assign(y=DATA.y.where(seen)), {"treat": "d", "observed": "x1 + d", "propensity": "x1 + x2"}
    model = estimator.from_formula("y ~ x1 + x2", data, effect="quantile", quantiles=0.5, **given)
    found, res = model.fit().distribution([1.5]), model.fit()
    z = (data.y <= 1.5).astype(float).where(seen)
    of_indicator = estimator.from_formula("z ~ x1 + x2", data.assign(z=z), family="binomial", **given).fit()
    assert found["estimate"].to_numpy() == pytest.approx(of_indicator.params.iloc[1:].to_numpy(), abs=1e-8)
    assert found["std err"].to_numpy() == pytest.approx(of_indicator.bse.iloc[1:].to_numpy(), rel=1e-6)
    assert set(res.params.iloc[1:]) < set(data.y.dropna())
    assert res.model.fit(n_boot=20).boot_params.iloc[:, 1:].isin(data.y.dropna().to_list()).all(axis=None)


@pytest.mark.parametrize("estimator", [Hajek, AIPW])
def test_missing_outcomes_are_no_values_of_the_grid(estimator):
    seen = np.random.default_rng(0).random(len(DATA)) < 1 / (1 + np.exp(-1 - DATA.x1))
    data = DATA.assign(y=DATA.y.where(seen))
    res = estimator.from_formula("y ~ x1 + x2", data, treat="d", observed="x1 + d", propensity="x1 + x2").fit()
    found = res.distribution()
    grid = found.loc["0"].index
    assert grid[-1] == pytest.approx(data.y.dropna().sort_values().iloc[int(0.98 * seen.sum())], abs=0.3)
    np.testing.assert_allclose(found["estimate"], res.distribution(grid)["estimate"])
    known = found.dropna()
    assert (known["[0.025"] < known["estimate"]).all() and (known["estimate"] < known["0.975]"]).all()
    assert (res.distribution([data.y.max()])["estimate"] == 1).all()


def test_parallel_trends_identify_no_distribution():
    data = DATA.assign(before=DATA.y - DATA.x2)
    res = AIPW.from_formula("y ~ x1", data, treat="d", did=cr.DiD(before="before")).fit()
    with pytest.raises(cr.UnavailableError, match="not available with did="):
        res.distribution()


def test_bands_are_as_wide_as_the_largest_of_the_correlated_statistics():
    res, grid = fitted(Hajek), np.linspace(-1.0, 2.0, 4)
    found = res.distribution(grid)
    psi = []
    for value in grid:
        data = DATA.assign(z=(DATA.y <= value).astype(float))
        of_value = Hajek.from_formula("z ~ 1", data, treat="d", propensity="x1 + x2").fit()
        psi.append(of_value.estimating_equations()[["POM[0]", "POM[1]"]].to_numpy())
    correlation = np.corrcoef(np.concatenate(psi, axis=1), rowvar=False)
    drawn = np.random.default_rng(0).multivariate_normal(np.zeros(8), correlation, size=200_000, method="eigh")
    critical = np.quantile(np.abs(drawn).max(axis=1), 0.95)
    share = found["estimate"]
    reach = (logit(found["band high"]) - logit(share)) / (found["std err"] / (share * (1 - share)))
    assert reach.to_numpy() == pytest.approx(np.full(8, critical), rel=0.01)


def test_functions_rise_and_have_no_error_beyond_the_outcomes_of_an_arm():
    low, high = DATA.y.min(), DATA.y.max()
    found = fitted().distribution([low - 1, *np.quantile(DATA.y, [0.1, 0.5, 0.9]), high])
    for arm in ("0", "1"):
        own = found.loc[arm]
        assert (own["estimate"].iloc[[0, -1]] == [0, 1]).all()
        assert own["std err"].iloc[[0, -1]].isna().all()
        assert (np.diff(own["estimate"]) >= 0).all()
        inner = own.iloc[1:-1]
        assert (inner["band low"] <= inner["[0.025"]).all()
        assert (inner["band high"] >= inner["0.975]"]).all()


def test_values_beyond_all_outcomes_have_no_errors():
    found = fitted(cluster="site").distribution([DATA.y.max() + 1])
    assert (found["estimate"] == 1).all() and found["std err"].isna().all()


@pytest.mark.filterwarnings("ignore:outcome 'y' does not vary")
@pytest.mark.parametrize("smallest", [0, 1])
def test_a_group_whose_outcomes_are_at_most_its_median_leaves_the_other_group_alone(smallest):
    """In group 1 outcomes are 1, with or without some of 0; the reference group is as before."""
    rng = np.random.default_rng(3)
    of_treated = rng.choice([smallest, 1], len(DATA), p=[0.3, 0.7])
    data = DATA.assign(y=np.where(DATA.d == 1, of_treated, DATA.y.round().clip(-1, 3)))
    other = data.assign(y=np.where(DATA.d == 1, DATA.y, data.y))
    found, known = (AIPW.from_formula("y ~ x1", own, treat="d").fit().distribution([0, 1, 2]) for own in (data, other))
    columns = ["estimate", "std err", "[0.025", "0.975]"]
    np.testing.assert_allclose(found.loc["0", columns], known.loc["0", columns], rtol=1e-10)
    assert (found.loc["1", "estimate"].to_numpy()[1:] == 1).all()
    assert found.loc["1", "std err"].isna().tolist() == [bool(smallest), True, True]


def test_other_estimators_and_grids_are_refused():
    with pytest.raises(cr.UnavailableError, match="IPW or AIPW"):
        fitted(cr.IPWRA).distribution()
    with pytest.raises(cr.OptionError, match="grid="):
        fitted().distribution([np.nan])


@pytest.mark.filterwarnings("ignore:only one cluster:causalrisk.DesignWarning")
def test_a_group_in_one_cluster_has_no_bands():
    data = DATA.assign(site=np.where(DATA.d == 1, -1, DATA.site))
    found = Hajek.from_formula("y ~ x1", data, treat="d", cluster="site").fit().distribution([0.0])
    assert found["estimate"].notna().all() and found[["std err", "band low"]].isna().all(axis=None)
