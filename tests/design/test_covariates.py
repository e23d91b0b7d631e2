"""Covariates of formulas as columns with names for readers."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from causalrisk import IPWRA, DesignError, DesignWarning, OutcomeRegression
from causalrisk.design.covariates import (
    covariates_in,
    covariates_of_design,
    further_covariates,
    renamed,
    with_products,
)
from causalrisk.design.tables import as_table
from tests.conftest import simulate


@pytest.fixture(scope="module")
def frame():
    frame = simulate(300, seed=5)
    return frame.assign(
        g=np.array(["a", "b", "c"])[np.arange(300) % 3],
        sex=np.array(["f", "m"])[np.arange(300) // 2 % 2],
        flag=frame.x2 > 0,
        k=np.arange(300) % 4,
        **{"odd name": frame.x3},
    )


def named(columns):
    return {c.name: c.values for c in columns}


def test_every_level_under_its_name(frame):
    columns = named(
        covariates_in("~ x1 + g + sex + flag + C(k) + Q('odd name') + I(x1**2) + x1:g", as_table(frame, []))
    )
    expected = {
        "x1": frame.x1,
        **{f"g: {level}": frame.g == level for level in "abc"},
        "sex: m": frame.sex == "m",
        "flag": frame.flag,
        **{f"k: {level}": frame.k == level for level in range(4)},
        "odd name": frame.x3,
        "x1^2": frame.x1**2,
        **{f"x1 * g: {level}": frame.x1 * (frame.g == level) for level in "abc"},
    }
    assert sorted(columns) == sorted(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(columns[name], values.astype(float), err_msg=name)


def test_missing_values_stay_missing_where_they_are(frame):
    gaps = frame.assign(x1=frame.x1.mask(frame.index < 5), g=frame.g.mask(frame.index > 295))
    columns = named(covariates_in(["x1", "g", "x2"], as_table(gaps, [])))
    assert np.flatnonzero(np.isnan(columns["x1"])).tolist() == [0, 1, 2, 3, 4]
    assert np.isnan(columns["g: a"]).sum() == 4 and not np.isnan(columns["x2"]).any()
    assert "x1 * g: a" in named(covariates_in("~ x1:g", as_table(gaps, [])))


def test_both_models_each_once_and_on_trimmed_rows(frame):
    model = IPWRA.from_formula("y ~ x1 + C(k)", frame, treat="d", propensity="x2 + x1 + C(g, Sum)", trim=(0.2, 0.8))
    res = model.fit()
    table = res.balance()
    assert list(table.index[1:]) == ["x2", "x1", "g: a", "g: b", "g: c", "k: 0", "k: 1", "k: 2", "k: 3"]
    kept = res.in_sample.to_numpy()
    assert kept.sum() < 300
    means = res.balance(means=True).loc["x1", "mean 1 before"]
    np.testing.assert_allclose(means, frame.x1[kept & (frame.d == 1)].mean())
    arrays = IPWRA(frame.y, frame[["x1", "x2"]].assign(const=1.0), frame.d)
    whole = np.ones(300, dtype=bool)
    assert [c.name for c in covariates_of_design(arrays.design, whole)] == ["x1", "x2"]


def test_further_covariates(frame):
    design = IPWRA.from_formula("y ~ x1", frame.assign(x1=frame.x1.mask(frame.index < 10)), treat="d").design
    columns = named(further_covariates(design, "~ x2 + g", frame))
    assert sorted(columns) == ["g: a", "g: b", "g: c", "x2"]
    np.testing.assert_array_equal(columns["x2"], frame.x2[10:])
    assert list(named(further_covariates(design, frame[["x3"]], None))) == ["x3"]
    assert list(named(further_covariates(design, ["x1"], None))) == ["x1"]
    with pytest.raises(DesignError, match=r"(?s)uses 'x2', which is neither a column .*data="):
        further_covariates(design, ["x2"], None)
    with pytest.raises(DesignError, match="'x2' is missing in 3 rows, such as 10, 11, 12;"):
        further_covariates(design, ["x2"], frame.assign(x2=frame.x2.mask(frame.index < 13)))
    with pytest.raises(DesignError, match="data has 200 rows"):
        further_covariates(design, ["x2"], frame[:200])


def test_squares_and_products(frame):
    columns = covariates_in("~ x1 + I(x1**2) + g + flag", as_table(frame, []))
    products = named(with_products(columns))
    new = [name for name in products if name not in named(columns)]
    assert new == [
        *(f"x1 * {x}" for x in ("g: a", "g: b", "g: c", "flag")),
        *(f"x1^2 * {x}" for x in ("g: a", "g: b", "g: c", "flag")), *(f"g: {x} * flag" for x in "abc"),
    ]  # fmt: skip
    np.testing.assert_array_equal(products["g: a * flag"], ((frame.g == "a") & frame.flag).astype(float))


def test_names_for_readers(frame):
    columns = with_products(covariates_in("~ x1 + g", as_table(frame, [])))
    found = [c.name for c in renamed(columns, {"x1": "Age", "g": "Region", "g: c": "Far away"})]
    assert found == ["Age", "Region: a", "Region: b", "Far away", "Age^2", "Age * Region: a", "Age * Region: b",
                     "Age * Far away"]  # fmt: skip
    assert renamed(columns, {"other": "Of another table"}) == columns


def test_refusals(frame):
    table = as_table(frame, [])
    with pytest.raises(DesignError, match="has a left-hand side"):
        covariates_in("y ~ x1", table)
    with pytest.raises(DesignError, match=r"uses 'flaf', which is neither a column .*\nDid you mean 'flag'"):
        covariates_in(["flaf"], table)
    with pytest.raises(DesignError, match="empty"):
        covariates_in([], table)
    with pytest.raises(DesignError, match="NaN or infinite"):
        covariates_in("~ np.log(x1)", table)


@pytest.mark.parametrize(("formula", "propensity"), [("y ~ x1 + copy", None), ("y ~ x1", "x1 + copy")])
def test_a_covariate_that_is_the_outcome_in_other_units_warns(formula, propensity):
    data = simulate(200).assign(copy=lambda frame: 3 - 2 * frame.y, near=lambda frame: frame.y + 0.01 * frame.x1)
    with pytest.warns(DesignWarning, match=r"'copy' is a linear function of the outcome 'y', .*\nTake it out"):
        IPWRA.from_formula(formula, data, treat="d", propensity=propensity)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        OutcomeRegression.from_formula("y ~ near", data, treat="d")
