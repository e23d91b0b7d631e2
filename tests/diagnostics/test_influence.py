"""Influence of rows: leaving them out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

import causalrisk as cr
from tests.conftest import LALONDE_RHS, RHS, simulate

SEPARATE = [cr.OutcomeRegression, cr.IPW, cr.IPWRA, cr.AIPW]


def model(frame, kind=cr.IPWRA, **options):
    return kind.from_formula(f"y ~ {RHS}", frame, treat="d", **options)


@pytest.fixture(scope="module")
def frame():
    return simulate(300, seed=3)


@pytest.fixture(scope="module")
def lalonde_model(lalonde):
    return lambda kind: kind.from_formula(f"re78 ~ {LALONDE_RHS}", lalonde, treat="treat")


@pytest.mark.parametrize("kind", SEPARATE)
def test_influence_is_leaving_rows_out(lalonde, lalonde_model, kind):
    fit = lalonde_model(kind)
    res = fit.fit()
    table = res.influence()
    assert table.index.equals(lalonde.index)
    rows = [*res.influence(top=3).index, *lalonde.index[::200]]
    left_out = []
    for row in rows:
        rest = kind.from_formula(f"re78 ~ {LALONDE_RHS}", lalonde.drop(index=row), treat="treat").fit()
        left_out.append(rest.effect - res.effect)
    np.testing.assert_allclose(table.loc[rows, "change"], left_out, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(table["in std errors"], table["change"] / res.effect_se)
    np.testing.assert_allclose(table.groupby("arm")["weight share"].sum(), 1)


@pytest.mark.parametrize("family", ["gaussian", "binomial"])
def test_influence_of_jre_is_a_refit_without_the_row(frame, family):
    """Replicates move with the score of the others, which have the weights they had; to first order as expected."""
    data = frame.assign(b=(frame.y > frame.y.median()) * 1)
    formula = "b ~ x1 + x2" if family == "binomial" else "y ~ x1 + x2"
    res = cr.JRE.from_formula(formula, data, treat="d", family=family).fit(cov_type="robust", shrinkage=1)
    exact, quick = res.influence()["change"], res.influence(method="influence")["change"]
    assert np.corrcoef(exact, quick)[0, 1] > 0.99
    assert abs(exact.mean()) < 0.05 * exact.std()


def test_influence_function_for_large_samples(cattaneo):
    res = cr.AIPW.from_formula("bweight ~ mage + medu", cattaneo[::2], treat="mbsmoke").fit()
    exact, approximate = res.influence(), res.influence(method="influence")
    assert np.corrcoef(exact["change"], approximate["change"])[0, 1] > 0.999
    psi = res.estimating_equations()["ATE"]
    np.testing.assert_allclose(approximate["change"], -psi / (len(psi) - 1))
    largest, top = res.influence(method="largest")["change"], psi.abs().sort_values().index[-10:]
    np.testing.assert_allclose(largest[top], exact["change"][top], rtol=1e-9)
    np.testing.assert_array_equal(largest.drop(top), approximate["change"].drop(top))
    with pytest.raises(cr.CausalRiskError, match="method"):
        res.influence(method="jackknife")


def test_influence_with_a_classifier_fits_it_no_more(frame):
    res = model(frame, cr.AIPW, propensity_score=LogisticRegression()).fit()
    pd.testing.assert_frame_equal(res.influence(), res.influence(method="influence"))


def test_influence_of_rows_within_clusters(frame):
    clustered = model(frame.assign(g=np.arange(300) % 30), cluster="g").fit()
    pd.testing.assert_series_equal(clustered.influence()["change"], model(frame).fit().influence()["change"])


@pytest.mark.parametrize(("kind", "weight_type"), [
    *((kind, None) for kind in SEPARATE), (cr.AIPW, "frequency"), (cr.IPWRA, "probability"),
])  # fmt: skip
def test_influence_of_clusters_is_leaving_them_out(frame, kind, weight_type):
    rows = np.arange(300)
    site = np.array([f"clinic {k}" for k in rows * 7 % 20])
    data = frame.assign(site=site, w=1.0 + rows % 3, arm=frame.d + rows // 20 % 2)
    options = {"treat": "arm", "reference": 0, "cluster": "site"}
    options |= {} if weight_type is None else {"weights": "w", "weight_type": weight_type}
    res = kind.from_formula("y ~ x1 + x2", data, **options).fit()
    without = {
        name: kind.from_formula("y ~ x1 + x2", data[data.site != name], **options).fit().params for name in site[:2]
    }
    for arm in (1, 2):
        table = res.influence(clusters=True, arm=arm)
        assert table.index.name == "site" and list(table.index) == list(dict.fromkeys(site))
        sizes = data.groupby("site").w.sum() if weight_type == "frequency" else data.site.value_counts()
        assert table["n"].to_dict() == sizes.astype(int).to_dict()
        for name in table.index[:2]:
            change = without[name].iloc[arm - 1] - res.params.iloc[arm - 1]
            np.testing.assert_allclose(table.loc[name, "change"], change)
            np.testing.assert_allclose(table.loc[name, "in std errors"], change / res.bse.iloc[arm - 1])
    quick = res.influence(clusters=True, method="influence")["change"]
    assert np.corrcoef(quick, res.influence(clusters=True)["change"])[0, 1] > 0.95
    rows = res.influence(method="influence")
    shares = rows.groupby([data.site, "arm"])["weight share"].sum()
    for name, row in res.influence(clusters=True, method="influence").iterrows():
        assert row["weight share"] == pytest.approx(shares[name].max()) and row["arm"] == ", ".join(shares[name].index)


def test_clusters_cannot_be_left_out_where_there_are_none(frame):
    with pytest.raises(cr.OptionError, match="cluster="):
        model(frame).fit().influence(clusters=True)
