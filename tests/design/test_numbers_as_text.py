"""Numbers and dates written as text: what each notation means, and advice that converts them right when followed."""

from __future__ import annotations

import re

import pandas as pd
import pytest

from causalrisk.design.dtypes import are_dates, conversion, looks_numeric, notations, plain
from causalrisk.errors import DesignError

WRITTEN = {
    "decimal comma": (["11874,57", "38,0", "7"], [11874.57, 38.0, 7.0]),
    "one and two decimals": (["1,5", "-2,25", "0,125"], [1.5, -2.25, 0.125]),
    "thousands": (["1,234,567", "38", "1,234"], [1234567.0, 38.0, 1234.0]),
    "thousands with a point": (["1,234.5", "38.25"], [1234.5, 38.25]),
    "continental": (["1.234,5", "38,25", "7"], [1234.5, 38.25, 7.0]),
    "points": (["1.5", " 2 ", "1e3"], [1.5, 2.0, 1000.0]),
}


def refused(values):
    with pytest.raises(DesignError) as caught:
        plain(pd.Series(values, dtype=object), "x")
    return str(caught.value)


def assignments(message):
    return re.findall(r'data\["x"\] = .*?(?=$|\n|   or)', message)


def converted(values, statement):
    data = pd.DataFrame({"x": pd.Series(values, dtype=object)})
    exec(statement, {"data": data, "pd": pd})
    return data["x"].tolist()


@pytest.mark.parametrize("kind", WRITTEN)
def test_advice_gives_the_numbers_that_were_meant(kind, tmp_path):
    values, meant = WRITTEN[kind]
    message = refused(values)
    (statement,) = assignments(message)
    assert converted(values, statement) == meant
    options = re.search(r"pd\.read_csv\(\.\.\., (.*?)\)  or", message)
    assert bool(options) == any("," in text for text in values)
    if options:
        path = tmp_path / "numbers.csv"
        path.write_text("x;y\n" + "".join(f"{text};1\n" for text in values))
        read = eval(f'pd.read_csv({str(path)!r}, sep=";", {options[1]})', {"pd": pd})
        assert read["x"].tolist() == meant


def test_a_comma_that_may_be_either_is_not_guessed():
    message = refused(["1,234", "38,500"])
    thousands, decimal = assignments(message)
    assert converted(["1,234"], thousands) == [1234.0] and converted(["1,234"], decimal) == [1.234]
    assert "If the comma separates thousands" in message and "If the comma is the decimal comma" in message


def test_commas_of_two_kinds_are_not_converted():
    message = refused(["1,234.5", "2,5"])
    assert "Correct the file" in message and ".str.replace" not in message


@pytest.mark.parametrize(
    ("odd", "written", "meant"), [("n.a.", "{},5", 0.5), ("none", "{}.5", 0.5), ("missing", "{},000,000", 0.0)]
)
def test_texts_among_numbers_become_missing_and_nothing_else(odd, written, meant):
    values = [written.format(i) for i in range(1, 13)] + [odd]
    message = refused(values)
    assert repr(odd) in message
    (statement,) = assignments(message)
    scale = 1e6 if "000" in written else 1
    assert converted(values, statement)[:-1] == [i * scale + meant for i in range(1, 13)]
    assert pd.isna(converted(values, statement)[-1])


@pytest.mark.parametrize(
    ("values", "meant"), [([1, "2,5"], [1.0, 2.5]), ([1, "2.5"], [1.0, 2.5]), ([1.5, "x"], [1.5, None])]
)
def test_numbers_and_text_mixed(values, meant):
    found = converted(values, assignments(refused(values))[0])
    assert [None if pd.isna(v) else v for v in found] == meant


@pytest.mark.parametrize(
    ("written", "first"),
    [("{y}-{m:02}-{d:02}", 0), ("{d}.{m}.{y}", 0), ("{d}/{m}/{y}", 0), ("{y}-{m:02}-{d:02} 12:30:00", 0)],
)
def test_dates_in_text_become_days(written, first):
    days = pd.date_range("2020-01-01", periods=40)
    values = [written.format(y=day.year, m=day.month, d=day.day) for day in days]
    message = refused(values)
    assert "dates as text" in message
    statement, year = assignments(message)
    assert converted(values, statement) == list(range(40))
    assert set(converted(values, year)) == {2020}


def test_a_few_dates_are_categories():
    waves = ["2020-01-01", "2021-01-01"] * 10
    assert plain(pd.Series(waves, dtype=object), "wave").tolist() == waves
    assert not are_dates(waves[:2]) and are_dates([f"2020-01-{d}" for d in range(10, 30)])


@pytest.mark.parametrize("text", ["", ",", "a1", "1,23,4", "--1", "12.2020.1", "yes"])
def test_what_is_no_number(text):
    assert not looks_numeric(text) or notations([text]) == []


def test_conversion_names_the_column():
    assert 'data["my wage"].str.replace(",", ".")' in conversion("my wage", ["1,5"])
