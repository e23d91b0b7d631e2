"""Another population's covariates, coded as those of the estimation sample."""

import numpy as np
import pandas as pd
import pytest

from causalrisk.design.design import target_rows
from causalrisk.errors import DesignError, DesignWarning, OptionError
from tests.conftest import array_design, formula_design

N, M = 80, 25


def draw(n, seed):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"x": rng.normal(size=n), "z": rng.normal(size=n), "k": rng.integers(1, 5, n)})
    return frame.assign(g=np.array(["a", "b", "c"])[np.arange(n) % 3])


@pytest.fixture
def data():
    return draw(N, 1).assign(y=np.random.default_rng(3).normal(size=N), d=np.arange(N) % 2)


@pytest.fixture
def other():
    return draw(M, 2).set_axis([f"t{i}" for i in range(M)])


def make(data, formula="y ~ x + g + center(k)", propensity="z + C(k)", **options):
    return formula_design(formula, data, **{"treat": "d", "propensity": propensity, "frame": {}, **options})


def test_the_sample_itself_gives_the_design(data):
    design = make(data)
    rows = target_rows(design, data)
    assert np.array_equal(rows.X, design.X) and np.array_equal(rows.Z, design.Z)
    assert rows.index.equals(data.index)
    assert rows.notes == ()


def test_columns_in_any_order_coded_as_in_the_sample(data, other):
    design = make(data)
    rows = target_rows(design, other.iloc[:, ::-1])
    expected = np.column_stack([np.ones(M), other.g == "b", other.g == "c", other.x, other.k - data.k.mean()])
    np.testing.assert_allclose(rows.X, expected, rtol=1e-14)
    expected = np.column_stack([np.ones(M), *(other.k == k for k in (2, 3, 4)), other.z])
    assert np.array_equal(rows.Z, expected)
    assert rows.index.equals(other.index)
    assert not rows.X.flags.writeable and not rows.Z.flags.writeable
    one = target_rows(design, other[3:4].astype({"g": "category"}))  # one level of three
    assert np.array_equal(one.X, rows.X[3:4])
    twice = other.set_axis(["same"] * M)
    assert np.array_equal(target_rows(design, twice).X, rows.X)
    assert np.array_equal(target_rows(design, {name: list(c) for name, c in other.items()}).X, rows.X)


def test_neither_outcome_nor_treatment_is_needed_or_looked_at(data, other):
    design = make(data)
    odd = other.assign(y=np.nan, d="neither")
    assert np.array_equal(target_rows(design, odd).X, target_rows(design, other).X)


def test_rows_that_miss_a_covariate_are_counted(data, other):
    other.loc[["t1", "t2"], "x"] = np.nan
    other.loc[["t2", "t5"], "z"] = np.nan
    other.loc["t9", "g"] = None
    rows = target_rows(make(data), other)
    kept = other.drop(index=["t1", "t2", "t5", "t9"])
    assert np.array_equal(rows.X, target_rows(make(data), kept).X)
    assert rows.index.equals(kept.index)
    assert rows.notes[0].startswith("4 of 25 rows of the target frame lack 'x', 'g', 'z'")
    with pytest.raises(DesignError, match=r"(?s)the target frame cannot be used: missing values in 4 of 25 rows.*'t1'"):
        target_rows(make(data), other, missing="raise")
    with pytest.raises(OptionError, match="missing='no'"):
        target_rows(make(data), other, missing="no")


def test_frames_that_cannot_be_used(data, other):
    design = make(data)
    with pytest.raises(
        DesignError, match=r"target frame has no column 'x', which the outcome model .*\nAdd it. Did you m"
    ):
        target_rows(design, other.rename(columns={"x": "xx"}))
    with pytest.raises(DesignError, match="the target frame has no column 'z', which the propensity model uses"):
        target_rows(design, other.drop(columns="z"))
    with pytest.raises(DesignError, match=r"the target frame cannot be used: 'g' in the outcome formula .* level 'zz'"):
        target_rows(design, other.assign(g=["zz", *other.g[1:]]))
    with pytest.raises(DesignError, match=r"the target frame cannot be used: the data have no rows"):
        target_rows(design, other[:0])
    with pytest.raises(DesignError, match=r"(?s)the target frame cannot be used: no observations left: all 25 rows"):
        target_rows(design, other.assign(x=np.nan))
    with pytest.raises(DesignError, match=r"the target frame cannot be used: column 'x' has infinite values in 1 of"):
        target_rows(design, other.assign(x=[np.inf, *other.x[1:]]))
    with pytest.raises(TypeError, match="expected a data frame"):
        target_rows(design, other[["x", "z", "k"]].to_numpy())


@pytest.mark.parametrize(
    "term",
    [
        "I(x - x.mean())",
        "I(1e-9 * (x - x.mean()))",
        "np.log(1 + x - x.min())",
        "C(pd.qcut(z, 3))",
        "I(1 / (x - x.max() - 1))",
    ],
)
def test_terms_that_depend_on_other_rows_code_no_new_rows(data, other, term):
    """`x.mean()` would be the mean of the new rows."""
    for rows in (data, data.sort_values(["x", "z"]), data.sort_values("d").assign(x=np.arange(N) % 2.0)):
        design = make(rows, f"y ~ {term}", "x", frame={"np": np, "pd": pd})
        with pytest.raises(DesignError, match=r"computes a row from other rows.*\nWrite the mean as a number"):
            target_rows(design, other)


def test_constant_models_need_no_column(data, other):
    rows = target_rows(make(data, "y ~ 1", propensity="1"), other)
    assert rows.X.tolist() == [[1.0]] * M and rows.Z.tolist() == [[1.0]] * M


def test_dropped_columns_stay_dropped(data, other):
    with pytest.warns(DesignWarning, match="dropped 'twice'"):
        design = make(data.assign(twice=2 * data.x), "y ~ x + twice")
    assert target_rows(design, other.assign(twice=2 * other.x)).X.shape == (M, 2)


def test_array_designs_take_columns_by_name(data, other):
    exog = data[["x", "z"]].assign(const=1.0)
    design = array_design(data.y, exog, data.d, exog_propensity=exog[["x", "const"]])
    rows = target_rows(design, other.assign(const=1.0))
    assert np.array_equal(rows.X, other[["x", "z"]].assign(const=1.0))
    assert np.array_equal(rows.Z, other[["x"]].assign(const=1.0))
    with pytest.raises(DesignError, match="the target frame has no column 'const'"):
        target_rows(design, other)


def test_array_designs_whose_names_mean_two_things(data):
    X, Z = np.column_stack([np.ones(N), data.x]), np.column_stack([np.ones(N), data.z])
    design = array_design(data.y, X, data.d, exog_propensity=Z)
    with pytest.raises(DesignError, match="exog and exog_propensity have different columns named 'x1'"):
        target_rows(design, pd.DataFrame({"const": [1.0], "x1": [2.0]}))
