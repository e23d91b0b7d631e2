"""Columns of any storage come out plain, and what cannot be is refused by name."""

import datetime
import re
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest

from causalrisk import AIPW
from causalrisk.design.tables import NUMBER, missing_mask, numbers, plain
from causalrisk.errors import DesignError

VALUES = [3.0, 1.0, 2.0]
READ_ONLY = np.array(VALUES)
READ_ONLY.flags.writeable = False
NUMERIC = {
    "float32": np.array(VALUES, dtype=np.float32),
    "big-endian": np.array(VALUES, dtype=">f8"),
    "big-endian int": np.array(VALUES, dtype=">i2"),
    "int8": np.array(VALUES, dtype=np.int8),
    "uint64": np.array(VALUES, dtype=np.uint64),
    "read-only": READ_ONLY,
    "strided": np.array([VALUES, VALUES], order="F").T[:, 0],
    "Int64": pd.array(VALUES, dtype="Int64"),
    "UInt8": pd.array(VALUES, dtype="UInt8"),
    "Float64": pd.array(VALUES, dtype="Float64"),
    "Sparse": pd.arrays.SparseArray(VALUES),
    "object": np.array([3, 1.0, np.float32(2)], dtype=object),
    "Decimal": np.array([Decimal(3), Decimal(1), Decimal("2.0")], dtype=object),
    "Fraction": np.array([Fraction(3), 1, 2], dtype=object),
}


@pytest.mark.parametrize("values", NUMERIC.values(), ids=NUMERIC)
def test_numbers_of_any_storage(values):
    result = numbers(pd.Series(values), "column 'x'")
    assert result.dtype == np.float64
    assert result.tolist() == VALUES


@pytest.mark.parametrize("kind", ["int64[pyarrow]", "double[pyarrow]", "float[pyarrow]", "uint8[pyarrow]"])
def test_arrow_numbers(kind):
    pytest.importorskip("pyarrow", exc_type=ImportError)
    assert numbers(pd.Series(VALUES, dtype=kind), "column 'x'").tolist() == VALUES


TEXT = {
    "object": lambda v: pd.Series(v, dtype=object),
    "string": lambda v: pd.Series(v, dtype="string"),
    "default": lambda v: pd.Series(v),
    "numpy": lambda v: pd.Series(np.array(v)),
}


@pytest.mark.parametrize("make", TEXT.values(), ids=TEXT)
def test_text_of_any_storage(make):
    result = plain(make(["b", "a", "b"]), "g")
    assert result.dtype == object
    assert result.tolist() == ["b", "a", "b"]
    assert {type(v) for v in result} == {str}


@pytest.mark.parametrize("kind", ["string[pyarrow]", "large_string[pyarrow]", "dictionary"])
def test_arrow_text(kind):
    pa = pytest.importorskip("pyarrow", exc_type=ImportError)
    if kind == "dictionary":
        values = pd.Series(["b", "a", "b"], dtype=pd.ArrowDtype(pa.dictionary(pa.int32(), pa.string())))
    else:
        values = pd.Series(["b", "a", "b"], dtype=kind)
    result = plain(values, "g")
    assert result.tolist() == ["b", "a", "b"]
    assert result.dtype == object


@pytest.mark.parametrize(
    "values", [[True, False], pd.array([True, False], dtype="boolean"), np.array([True, False], object)]
)
def test_bool(values):
    result = plain(pd.Series(values), "f")
    assert result.dtype == bool
    assert result.tolist() == [True, False]


def test_categories_without_rows_go():
    values = pd.Series(pd.Categorical(["b", "a"], categories=["b", "zzz", "a"], ordered=True))
    result = plain(values, "g")
    assert list(result.cat.categories) == ["b", "a"]
    assert result.cat.ordered
    assert list(values.cat.categories) == ["b", "zzz", "a"]


def test_what_is_written_to_a_column_does_not_change_the_result():
    frame = pd.DataFrame({"x": np.array(VALUES), "i": [1, 2, 3][: len(VALUES)]})
    results = [plain(frame[name], name) for name in frame]
    before = [result.tolist() for result in results]
    frame.loc[0] = 99
    frame["x"] += 1
    assert [result.tolist() for result in results] == before
    values = np.array(VALUES)
    assert not np.shares_memory(numbers(pd.Series(values, copy=False), "x"), values)


MISSING = {
    "float": [1.0, np.nan],
    "Int64": pd.array([1, None], dtype="Int64"),
    "Float64 with NaN": pd.arrays.FloatingArray(np.array([1.0, np.nan]), np.array([False, False])),
    "boolean": pd.array([True, None], dtype="boolean"),
    "object None": np.array(["a", None], dtype=object),
    "object NA": np.array(["a", pd.NA], dtype=object),
    "NaT": pd.to_datetime(["2020-01-01", None]),
    "category": pd.Categorical(["a", None]),
    "Sparse": pd.arrays.SparseArray([1.0, np.nan]),
    "string": pd.array(["", None], dtype="string"),
}


@pytest.mark.parametrize("values", MISSING.values(), ids=MISSING)
def test_missing(values):
    assert missing_mask(pd.Series(values)).tolist() == [False, True]


@pytest.mark.parametrize(
    ("values", "dtype", "converted"),
    [
        (pd.to_datetime(["2020-01-01", "2020-02-03"]), "datetime64", [0, 33]),
        (pd.to_timedelta(["1 day", "36 hours"]), "timedelta64", [1.0, 1.5]),
        (np.array([1 + 2j, 3]), "complex128", [1.0, 3.0]),
        (pd.period_range("2020-12", periods=2, freq="M"), "period", ["2020-12", "2021-01"]),
        (pd.to_datetime(["2020-01-01", "2020-02-03"]).tz_localize("UTC"), "datetime64", [0, 33]),
        (pd.interval_range(0, 2), "interval", ["(0, 1]", "(1, 2]"]),
        ([datetime.date(2020, 1, 1), datetime.date(2020, 2, 3)], "object", [0, 33]),
    ],
)
def test_dates_periods_and_complex_numbers(values, dtype, converted):
    data = pd.DataFrame({"when": pd.Series(values)})
    with pytest.raises(DesignError, match=rf"column 'when' has dtype {dtype}") as caught:
        plain(data["when"], "when")
    exec(assignment(caught.value), {"data": data, "pd": pd})
    assert plain(data["when"], "when").tolist() == converted


def assignment(error):
    """The assignment that a message proposes."""
    return re.search(r"`(data\[.*?)`", str(error))[1]


def converted(values):
    data = pd.DataFrame({"when": pd.Series(values, dtype=object)})
    with pytest.raises(DesignError, match="column 'when' has dtype") as caught:
        plain(data["when"], "when")
    exec(assignment(caught.value), {"data": data, "pd": pd})
    return [None if pd.isna(value) else value for value in data["when"]]


@pytest.mark.parametrize(
    ("values", "meant"),
    [
        (["1.5", " 2 ", "1e3"], [1.5, 2.0, 1000.0]),
        ([*(f"{i}.5" for i in range(12)), "n.a."], [*(i + 0.5 for i in range(12)), None]),
        ([1, "2.5"], [1.0, 2.5]),
        ([1.5, "x"], [1.5, None]),
        ([f"2020-01-{day:02}" for day in range(1, 21)], list(range(20))),
    ],
)
def test_numbers_and_dates_as_text_are_refused_with_what_converts_them(values, meant):
    assert converted(values) == meant


@pytest.mark.parametrize("values", [["1,234", "5"], ["11874,57", "38,0"], ["1.234,5", "38,25"]])
@pytest.mark.parametrize(("name", "typed"), [("x", "x"), ("x y", "Q('x y')")])
def test_a_comma_in_numbers_is_not_guessed(values, name, typed):
    read = '`pandas.read_csv(..., decimal=",")` for a decimal comma, or `thousands=","`'
    with pytest.raises(DesignError, match=rf"(?s)numbers as text .*`C\({re.escape(typed)}\)`.*{re.escape(read)}"):
        plain(pd.Series(values), name)
    assert plain(pd.Series(values), "x", codes=True).tolist() == values


@pytest.mark.parametrize("text", ["", ",", "a1", "1,23,4", "--1", "12.2020.1", "yes"])
def test_what_is_no_number(text):
    assert not NUMBER.fullmatch(text)


def test_a_few_dates_are_categories():
    waves = ["2020-01-01", "2021-01-01"] * 10
    assert plain(pd.Series(waves), "wave").tolist() == waves


def test_mixed_objects():
    with pytest.raises(DesignError, match=r"column 'x' has dtype object and holds int, str; expected"):
        plain(pd.Series(["a", 1], dtype=object), "x")


@pytest.mark.parametrize("values", [[1.0, np.inf, -np.inf], np.array([1, float("inf"), -np.inf], object)])
def test_infinite(values):
    with pytest.raises(DesignError, match="column 'x' has infinite values in 2 of"):
        plain(pd.Series(values), "x")


def test_large_integers():
    assert plain(pd.Series(np.array([2**64 - 1], dtype=np.uint64)), "x").dtype == np.float64
    assert plain(pd.Series([2**80, 1], dtype=object), "x").tolist() == [2.0**80, 1.0]


def test_numbers_refuses_text():
    with pytest.raises(DesignError, match="weights 'w' has dtype"):
        numbers(pd.Series(["a"], name="w"), "weights 'w'")


@pytest.mark.parametrize("levels", [["q1", "q2"], ["none", "1-5 daily", "6-10 daily", "11+ daily"]])
def test_an_outcome_of_categories_is_asked_for_the_event(levels):
    data = pd.DataFrame({"cut": levels * 10, "d": np.arange(10 * len(levels)) % 2})
    with pytest.raises(DesignError, match=rf"I\(cut == '{re.escape(max(levels))}'\) ~ 1"):
        AIPW.from_formula("cut ~ 1", data, treat="d", propensity="1")
