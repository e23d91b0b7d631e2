"""Lookup by name, alignment by label."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from causalrisk.design.tables import align, as_table, gather, nearest
from causalrisk.errors import DesignError

INDEX = pd.Index(["a", "b", "c"])


def test_identical_labels():
    notes = []
    assert align(pd.Series([1, 2, 3], index=INDEX), INDEX, "x", notes).tolist() == [1, 2, 3]
    assert notes == []


def test_other_order_is_aligned_and_noted():
    notes = []
    result = align(pd.Series([3, 1, 2], index=["c", "a", "b"], name="x"), INDEX, "weights 'x'", notes)
    assert result.tolist() == [1, 2, 3]
    assert result.index.equals(INDEX)
    assert "weights 'x' has the row labels of the data in another order; it was aligned by label" in notes[0]


@pytest.mark.parametrize(
    "values",
    [
        pd.Series([1, 2, 3], index=["a", "b", "d"]),
        pd.Series([1, 2, 3], index=["a", "b", "b"]),
        pd.Series([1, 2], index=["a", "b"]),
        pd.Series([1, 2, 3]),
    ],
)
def test_other_labels(values):
    with pytest.raises(DesignError, match=rf"x has {len(values)} values whose row labels are not .*\(3 rows\)"):
        align(values, INDEX, "x", [])


def test_duplicate_labels_go_by_position():
    index = pd.Index(["a", "a", "b"])
    assert align(pd.Series([1, 2, 3], index=index.copy()), index, "x", []).tolist() == [1, 2, 3]


@pytest.mark.parametrize("values", [[1, 2], np.ones(2), pd.Index([1, 2]), pd.array([1, 2])])
def test_lengths(values):
    with pytest.raises(DesignError, match="x has 2 values, the data have 3 rows"):
        align(values, INDEX, "x", [])


def test_shapes_and_types():
    assert align(np.ones((3, 1)), INDEX, "x", []).tolist() == [1, 1, 1]
    assert align(pd.DataFrame({"v": [1, 2, 3]}, index=INDEX), INDEX, "x", []).tolist() == [1, 2, 3]
    with pytest.raises(DesignError, match=r"x has shape \(3, 2\)"):
        align(np.ones((3, 2)), INDEX, "x", [])
    with pytest.raises(TypeError, match=r"x is of type builtins.dict; expected the name of a column"):
        align({}, INDEX, "x", [])


def test_gather():
    table = gather({"x": [1, 2, 3], "y": pd.Series([4, 5, 6], index=INDEX)}, [])
    assert table.index.equals(INDEX)
    assert table.column("x").tolist() == [1, 2, 3]
    with pytest.raises(DesignError, match=r"(?s)differ in length.*'x'  3 values\n    'y'  2 values"):
        gather({"x": [1, 2, 3], "y": [1, 2]}, [])


def test_duplicate_columns():
    table = as_table(pd.DataFrame([[1, 2, 3]], columns=["x", "x", "z"]), [])
    assert table.column("z").tolist() == [3]
    with pytest.raises(DesignError, match="2 columns named 'x'"):
        table.column("x")


class Lazy:
    def collect(self):
        raise AssertionError


@pytest.mark.parametrize(
    ("data", "advice"),
    [
        (np.zeros(3, dtype=[("y", float)]), "pandas.DataFrame"),
        (np.zeros((3, 2)), "DataFrame"),
        (Path("a/file.dta"), r'data=pandas.read_stata\("a/file.dta"\)'),
        ("file.tsv", r'data=pandas.read_csv\("file.tsv", sep='),
        (Lazy(), r"data=data.collect\(\)"),
    ],
)
def test_data_of_other_types(data, advice):
    with pytest.raises(TypeError, match=rf"(?s)expected a data frame .pandas, polars, Arrow.*{advice}"):
        as_table(data, [])


def test_nearest():
    assert nearest("mags", ["mage", "medu"]) == "Did you mean 'mage'?"
    assert nearest("MAGE", ["mage", "medu"]) == "Did you mean 'mage'?"
    assert nearest("q", ["mage"]) == "The columns are 'mage'."
    assert "sep=';'" in nearest("mage", ["mage;medu"])
