"""Calibration of propensity scores: bins by hand, ties, weights."""

from __future__ import annotations

import numpy as np
import pytest

import causalrisk as cr
from tests.conftest import RHS, simulate


def model(frame, kind=cr.IPWRA, **options):
    return kind.from_formula(f"y ~ {RHS}", frame, treat="d", **options)


@pytest.fixture(scope="module")
def frame():
    return simulate(300, seed=3)


def test_calibration_by_hand(frame):
    res = model(frame).fit()
    table = res.calibration(bins=6)
    order = res.propensity_scores.sort_values(kind="stable")
    groups = np.arange(300) // 50
    np.testing.assert_allclose(table["predicted"], order.groupby(groups).mean())
    observed = frame.d[order.index].groupby(groups).mean()
    np.testing.assert_allclose(table["observed"], observed)
    np.testing.assert_allclose(table["std err"], np.sqrt(observed * (1 - observed) / 50))


def test_rows_with_equal_scores_are_in_one_bin_whatever_their_order(frame):
    """A saturated score is the share treated of its rows."""
    data = frame.assign(x1=frame.x1 > 0, x2=frame.x2 > 0)
    for rows in (data, data.sort_values("d", kind="stable")):
        res = cr.IPWRA.from_formula("y ~ x1 * x2", rows, treat="d").fit()
        table = res.calibration()
        assert table["n"].sum() == 300 and len(table) <= 4
        np.testing.assert_allclose(table["observed"], table["predicted"], atol=1e-10)


def test_there_are_as_many_bins_as_asked_for(frame):
    table = model(frame[:59]).fit().calibration(bins=10)
    assert table["n"].tolist() == [6, 6, 6, 6, 6, 6, 6, 6, 6, 5]
    pure = table["observed"].isin([0, 1])
    assert pure.any() and (table["std err"].isna() == pure).all()


def test_probability_weights_weight_shares_and_scores(frame):
    """As frequency weights do in bins of the same rows, which scores of two values have."""
    data = frame.assign(x1=frame.x1 > 0, w=1 + np.arange(300) % 3)
    fits = [model(data, weights="w", weight_type=kind, propensity="x1").fit() for kind in ("probability", "frequency")]
    weighted, counted = (res.calibration() for res in fits)
    np.testing.assert_allclose(weighted[["predicted", "observed"]], counted[["predicted", "observed"]], rtol=1e-10)
    assert weighted["n"].sum() == 300 and counted["n"].sum() == data.w.sum()
    squares = data.w.pow(2).groupby(data.x1).sum().to_numpy() / data.w.groupby(data.x1).sum().to_numpy() ** 2
    share = weighted["observed"].to_numpy()
    found = np.sort(weighted["std err"].to_numpy() ** 2 / (share * (1 - share)))
    np.testing.assert_allclose(found, np.sort(squares), rtol=1e-10)
