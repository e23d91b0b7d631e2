"""Faults that end in the design (25, 26, 29, 34, 64), and those of the treatment (3-6, 23, 27, 28) with three arms."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import causalrisk as cr
from causalrisk.design.design import target_rows
from tests.conftest import simulate
from tests.end_to_end.test_faults import BOTH, assert_same, build, clean, fit, raises_with, with_group

N = 300
TEXT = np.array(["none", "half", "full"])


@pytest.fixture
def data():
    return simulate(n=N, seed=3)


@pytest.fixture
def three(data):
    return data.assign(d=np.arange(N) % 3)


def design(data, **options):
    return build(cr.IPWRA, data, **options).design


def same(left, right):
    fields = ("y", "X", "Z", "arm", "weights")
    return left.labels == right.labels and all(np.array_equal(getattr(left, f), getattr(right, f)) for f in fields)


# --- three arms --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coding", [(0, 1, 2), (1, 2, 3), (-1, 0, 1)])
def test_fault_03_three_codes_are_never_guessed(three, coding):
    coded = three.assign(d=np.array(coding)[three.d])
    with raises_with(cr.DesignError, "'d'", "3 levels", "100 complete rows", "reference="):
        design(coded)
    with raises_with(cr.OptionError, f"treated={coding[2]}", "3 levels", "reference="):
        design(coded, treated=coding[2])
    assert design(coded, reference=coding[1]).levels == (coding[1], coding[0], coding[2])


@pytest.mark.parametrize("kind", ["object", "string", "category", "ordered"])
def test_fault_04_three_texts_ask_for_the_reference(three, kind):
    text = pd.Series(TEXT[three.d])
    ordered = pd.Categorical(text, TEXT, ordered=True)
    coded = three.assign(d=ordered if kind == "ordered" else text.astype(kind).to_numpy())
    counts = [f"'{level}'   100 complete rows" for level in ("none", "half", "full")]
    with raises_with(cr.DesignError, *counts, "reference="):
        design(coded)
    made = design(coded, reference="none")
    assert made.labels == (("none", "half", "full") if kind == "ordered" else ("none", "full", "half"))
    labels = {"none": "0 mg", "half": "5 mg", "full": "10 mg"}
    assert design(coded, reference="none", levels=labels).labels == tuple(labels[level] for level in made.labels)
    with raises_with(cr.DesignError, 'reference="None"', "'none'", "'half'"):
        design(coded, reference="None")


@pytest.mark.parametrize("dtype", ["float64", "float32", "int8", "Int64", "Float64", "object"])
def test_fault_06_float_levels_are_the_same(three, dtype):
    base = design(three, reference=1)
    made = design(three.assign(d=three.d.astype(dtype)), reference=1)
    assert same(made, base)
    assert made.labels == ("1", "0", "2") and all(type(level) is int for level in made.levels)


# --- columns -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [["1.5", "2"], ["3", "4", "n/a", *map(str, range(10, 30))]])
@pytest.mark.parametrize("storage", ["object", "string"])
def test_fault_25_numbers_as_text(data, values, storage):
    text = data.assign(income=pd.Series(np.resize(values, N)).astype(storage))
    with raises_with(cr.DesignError, "'income'", "dtype", "as text", "pd.to_numeric", "C(income)"):
        build(cr.JRE, text, "y ~ x1 + income")


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (pd.date_range("2020", periods=N), "datetime64"),
        (pd.to_timedelta(np.arange(N), unit="h"), "timedelta64"),
        (pd.date_range("2020", periods=N).tz_localize("UTC"), "datetime64"),
        (pd.period_range("2000", periods=N, freq="M"), "period"),
        (np.arange(N) * 1j, "complex128"),
    ],
)
def test_fault_26_dates_and_complex_numbers(data, values, dtype):
    for formula, propensity in (("y ~ x1 + when", "x1"), ("y ~ x1", "x1 + when")):
        with raises_with(cr.DesignError, "'when'", dtype, "expected numbers", 'data["when"]'):
            build(cr.JRE, data.assign(when=values), formula, propensity=propensity)


@BOTH
def test_fault_29_mapping_is_a_table(data, estimator):
    assert_same(fit(estimator, {name: column.to_numpy() for name, column in data.items()}), clean(estimator))
    assert_same(fit(estimator, {name: list(column) for name, column in data.items()}), clean(estimator))


# --- formulas ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("term", ["np.log(x1)", "np.sqrt(x1)", "I(1 / (x1 > 0))", "np.log(x1 > 0)"])
def test_fault_34_terms_that_are_not_finite(data, term):
    count = int((data.x1 <= 0).sum())
    for formula, propensity, model in ((f"y ~ {term}", "x1", "outcome"), ("y ~ x1", term, "propensity")):
        with raises_with(cr.DesignError, repr(term), f"{model} formula", f"{count} rows", "NaN or infinite"):
            build(cr.IPWRA, data, formula, propensity=propensity)


def test_fault_34_not_finite_in_new_data_only(data):
    positive = data.assign(x1=np.abs(data.x1) + 0.1)
    res = fit(cr.IPWRA, positive, "y ~ np.log(x1)")
    for use in (res.predict, lambda new: target_rows(res.model.design, new)):
        with raises_with(cr.DesignError, "'np.log(x1)'", "1 rows"):
            use(positive.assign(x1=[0.0, *positive.x1[1:]]))


# --- new data ----------------------------------------------------------------------------------------------------

USES = {
    "predict": lambda res, new: res.predict(new),
    "target": lambda res, new: pd.DataFrame(target_rows(res.model.design, new).X, index=new.index),
}


@pytest.fixture(params=USES.values(), ids=USES)
def use(request):
    return request.param


@pytest.mark.parametrize("kind", ["object", "string", "category", "C()"])
def test_fault_64_unseen_level(data, kind, use):
    groups = with_group(data)
    groups = groups if kind == "C()" else groups.astype({"g": kind})
    res = fit(cr.IPWRA, groups, "y ~ x1 + C(g)" if kind == "C()" else "y ~ x1 + g", propensity="x1")
    new = groups.astype({"g": object})[:20]
    new.loc[4, "g"] = "Österreich"
    with raises_with(cr.DesignError, "g", "'Österreich'", "'a', 'b', 'c'", "Leave"):
        use(res, new)
    assert len(use(res, new.drop(index=4))) == 19


def test_fault_64_missing_column(data, use):
    res = fit(cr.IPWRA, data, "y ~ x1 + x2", propensity="x1")
    with raises_with(cr.DesignError, "no column 'x2'", "outcome model", "Did you mean 'X2'"):
        use(res, data.rename(columns={"x2": "X2"}))
    with raises_with(TypeError, "expected a data frame"):
        use(res, data.to_numpy())


def test_fault_64_other_order_and_fewer_levels(data, use):
    groups = with_group(data)
    res = fit(cr.IPWRA, groups, "y ~ x1 + g + standardize(x2)", propensity="x1")
    whole = use(res, groups)
    pd.testing.assert_frame_equal(use(res, groups.iloc[::-1, ::-1]), whole[::-1])
    only = groups[groups.g == "b"].drop(columns=["y", "d"])  # neither outcome nor treatment, one level of three
    pd.testing.assert_frame_equal(use(res, only), whole[groups.g == "b"])
    pd.testing.assert_frame_equal(use(res, only.astype({"g": "category"})), whole[groups.g == "b"])


# --- terms that would do nothing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("term", ["x1.fillna(0)", "I(x1.isna() * 1)", "np.nan_to_num(x1)", "I(pd.isna(x1) * 1)"])
def test_a_term_on_missing_values_that_are_dropped_before_is_refused(data, term):
    gaps = data.assign(x1=data.x1.where(data.index > 5))
    with raises_with(cr.DesignError, "no effect", "'x1' is missing"):
        cr.IPWRA.from_formula(f"y ~ {term} + x2", gaps, treat="d")
    named = gaps.assign(g=np.where(gaps.x2 > 0, "a", "b"))  # it is complete, and 'x1' is only a text
    assert cr.IPWRA.from_formula("y ~ g.fillna('x1') + x1", named, treat="d").fit().nobs == gaps.x1.notna().sum()


@pytest.mark.parametrize("term", ["city", "C(k)"])
def test_a_factor_with_one_level_is_said_to_be_left_out(data, term):
    with pytest.warns(cr.DesignWarning, match=r"one level"):
        model = cr.AIPW.from_formula(f"y ~ x1 + {term}", data.assign(city="Bern", k=1), treat="d")
    assert model.fit().effect == cr.AIPW.from_formula("y ~ x1", data, treat="d").fit().effect
