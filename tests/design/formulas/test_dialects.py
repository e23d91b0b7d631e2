"""Formulas of Stata, R and formulaic: told how they are typed here, and what is typed gives the columns meant."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from causalrisk.design.formulas.dialects import bitwise_or_and, called_elsewhere
from causalrisk.errors import DesignError
from tests.conftest import formula_design

N = 60
DATA = pd.DataFrame(
    {
        "y": np.sin(np.arange(N)),
        "d": np.arange(N) % 2,
        "age": 20.0 + np.arange(N) % 23,
        "g": np.arange(N) // 2 % 3,
        "h": np.arange(N) // 6 % 2,
        "odd name": np.cos(np.arange(N)),
    }
)


def names(right, **options):
    return formula_design(f"y ~ {right}", DATA, treat="d", **options).exog_names


def advice(right):
    with pytest.raises(DesignError) as caught:
        names(right)
    return re.search(r"[Tt]ype  (.*?)(?:  |\.$)", str(caught.value).rsplit("\n", 1)[1])[1]


@pytest.mark.parametrize(
    ("right", "meant"),
    [
        ("c.age##c.age", "age + I(age**2)"),
        ("c.age#c.age", "I(age**2)"),
        ("c.age##c.age##c.age", "age + I(age**2) + I(age**3)"),
        ("i.g##c.age", "C(g)*age"),
        ("g##c.age + i.h", "C(g)*age + C(h)"),
        ("i.g#i.h", "C(g):C(h)"),
        ("ib2.g##c.age", "C(g, Treatment(2))*age"),
        ("i.g##c.age##c.age", "C(g)*(age + I(age**2))"),
        ("`age` + `odd name`", "age + Q('odd name')"),
        ("{age**2}", "I(age**2)"),
        ("as.factor(g) + age", "C(g) + age"),
    ],
)
def test_whole_formulas(right, meant):
    typed = advice(right)
    assert typed == f'"y ~ {meant}"'
    assert formula_design(eval(typed), DATA, treat="d").exog_names == names(meant)


@pytest.mark.parametrize(
    ("term", "typed", "count"),
    [
        ("i.g", "C(g)", 2),
        ("ib1.g", "C(g, Treatment(1))", 2),
        ("c.age", "age", 1),
        ("factor(g)", "C(g)", 2),
        ("poly(age, 2)", "age + I(age**2)", 2),
        ("poly(age, degree=3)", "age + I(age**2) + I(age**3)", 3),
        ("log(age)", "np.log(age)", 1),
        ("exp(age / 50)", "np.exp(age / 50)", 1),
        ("ns(age, df=3)", "cr(age, df=3, constraints='center')", 3),
        ("age | g", "age + C(g)", 3),
        ("age | C(g)", "age + C(g)", 3),
        ("age & g", "age:g", 1),
        ("age^2", "I(age**2)", 1),
        ("(1|g)", "C(g)", 2),
        ("ifelse(age > 30, 1, 0)", "np.where(age > 30, 1, 0)", 1),
        ("interaction(g, h)", "C(g):C(h)", 5),
        ("relevel(g, ref=1)", "C(g, Treatment(1))", 2),
    ],
)
def test_terms(term, typed, count):
    assert advice(term) == typed
    assert len(names(typed)) == 1 + count


def test_rs_dot_names_the_columns():
    with pytest.raises(DesignError) as caught:
        names(".")
    typed = re.search(r"Type  (.*?)  without", str(caught.value))[1].replace("<treatment>", "d")
    data = DATA.drop(columns="odd name")
    assert formula_design(eval(typed, {"data": data}), data, treat="d").exog_names == names("age + g + h")


def test_what_python_means_is_left_alone():
    assert names("I((age > 30) | (g > 1))") == ("Intercept", "I((age > 30) | (g > 1))[T.True]")
    assert names("I(age | g)".replace("age", "h"))[1] == "I(h | g)"
    assert bitwise_or_and("(age > 30) | (g > 1)") is None and bitwise_or_and("age") is None
    assert names("C(g, levels=[0, 1, 2])")[0] == "Intercept"
    assert names('Q("odd name")')[1] == 'Q("odd name")'


def test_names_with_a_hash_inside_quotes():
    data = DATA.rename(columns={"odd name": "a#b"})
    assert formula_design('y ~ Q("a#b")', data, treat="d").exog_names[1] == 'Q("a#b")'


def test_unknown_functions_have_no_translation():
    assert called_elsewhere("foo", "y ~ foo(x)") is None
