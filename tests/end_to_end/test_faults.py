"""Bad treatments and data (faults 1-24): raises_with by name, or the same result as from clean data."""

from __future__ import annotations

import contextlib
import functools
import re

import numpy as np
import pandas as pd
import pytest

import causalrisk as cr
from tests.conftest import simulate

N = 300
BOTH = pytest.mark.parametrize("estimator", [cr.IPWRA, cr.JRE])
ONE = pytest.mark.parametrize("estimator", [cr.IPWRA])  # for how columns are read, before any estimator has them
QUICK = {"n_boot": 5, "n_replicates": 40}
RHS = "x1 + x2 + x3"


@pytest.fixture
def data():
    return simulate(n=N, seed=3)


def build(estimator, data, formula=f"y ~ {RHS}", treat="d", **options):
    return estimator.from_formula(formula, data, treat=treat, **options)


def fit(estimator, data, formula=f"y ~ {RHS}", treat="d", **options):
    return finish(build(estimator, data, formula, treat, **options))


def finish(model):
    return model.fit(**QUICK) if isinstance(model, cr.JRE) else model.fit()


@functools.cache
def clean(estimator, formula=f"y ~ {RHS}"):
    """The fit to the data as they are, which many others have to equal."""
    return fit(estimator, simulate(n=N, seed=3), formula)


def plain(text):
    """The text without marks and words that only say that something is to be typed."""
    return " ".join(re.sub(r"`|\b(?:Type|Use|Add)\b", " ", text).split())


@contextlib.contextmanager
def raises_with(kind, *words):
    """The block raises `kind` (of the package, unless a TypeError) with all the words."""
    with pytest.raises(kind) as caught:
        yield caught
    message = plain(str(caught.value))
    assert issubclass(kind, TypeError) or isinstance(caught.value, cr.CausalRiskError)
    assert [word for word in words if plain(word) not in message] == [], message


def assert_same(left, right, rtol=0.0):
    """Equal estimates and standard errors, bit for bit unless a tolerance is given."""
    np.testing.assert_allclose(left.params.to_numpy(), right.params.to_numpy(), rtol=rtol, atol=0)
    np.testing.assert_allclose(left.bse.to_numpy(), right.bse.to_numpy(), rtol=rtol, atol=0)


# --- treatment ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", [cr.OutcomeRegression, cr.IPW, cr.JRE])
@pytest.mark.parametrize("value", [1, 0, True, 0.0])
def test_fault_01_constant_treatment(data, estimator, value):
    with raises_with(cr.DesignError, "'d'", "constant", f"{N} rows have {int(value)}"):
        build(estimator, data.assign(d=value))  # already before fit


@pytest.mark.parametrize("options", [{}, {"treated": 2}, {"treated": 1}])
def test_fault_02_three_levels_are_listed_and_never_cut_at_zero(data, options):
    levels = np.where(np.arange(N) < 50, 2, data.d)
    counts = np.bincount(levels)
    lines = [f"{level}   {count:>3} complete rows" for level, count in enumerate(counts)]
    with raises_with(cr.OptionError if options else cr.DesignError, "'d'", "3 levels", *lines, "reference="):
        build(cr.JRE, data.assign(d=levels), **options)


CODINGS = [(1, 2), (-1, 1), (2, 1), (10, 20), (0, 2)]


@pytest.mark.parametrize("coding", CODINGS)
def test_fault_03_coded_one_two_is_never_guessed(data, coding):
    low, high = sorted(coding)
    with raises_with(cr.DesignError, "'d'", "0/1 or bool", f"treated={low}", f"treated={high}"):
        build(cr.JRE, data.assign(d=np.where(data.d == 1, coding[1], coding[0])))


@ONE
@pytest.mark.parametrize("coding", CODINGS)
def test_fault_03_coded_one_two_with_the_treated_level(data, estimator, coding):
    control, treated = coding
    coded = data.assign(d=np.where(data.d == 1, treated, control))
    base = clean(estimator)
    said = fit(estimator, coded, treated=treated)
    assert_same(said, base)
    assert_same(fit(estimator, coded, reference=control), base)
    assert list(said.params.index) == ["ATE", f"POM[{control}]", f"POM[{treated}]"]
    flipped = fit(estimator, coded, treated=control)
    assert flipped.effect == pytest.approx(-base.effect, rel=1e-10)


def yes_no(data, kind):
    text = np.where(data.d == 1, "yes", "no")
    return data.assign(d={"object": text.astype(object), "category": pd.Categorical(text),
                          "ordered": pd.Categorical(text, ["yes", "no"], ordered=True)}[kind])  # fmt: skip


@pytest.mark.parametrize("kind", ["object", "category", "ordered"])
def test_fault_04_text_treatment_asks_which_level(data, kind):
    treated = int(data.d.sum())
    rows = [f"'yes'   {treated} complete rows", f"'no'    {N - treated} complete rows"]
    with raises_with(cr.DesignError, "'d'", *rows, 'treated="yes"', "sign of the effect"):
        build(cr.JRE, yes_no(data, kind))


@ONE
@pytest.mark.parametrize("kind", ["object", "category", "ordered"])
def test_fault_04_text_treatment_with_the_treated_level(data, estimator, kind):
    coded, base = yes_no(data, kind), clean(estimator)
    res = fit(estimator, coded, treated="yes")
    assert_same(res, base)
    assert_same(fit(estimator, coded, reference="no"), base)
    text = str(res.summary())
    assert "ATE = POM[yes] - POM[no]" in text
    named = str(fit(estimator, coded, treated="yes", levels={"no": "never", "yes": "current"}).summary())
    assert "never is d = no" in named and "current is d = yes" in named
    with raises_with(cr.DesignError, 'treated="Yes"', "'yes'", "'no'"):
        build(estimator, coded, treated="Yes")


@ONE
@pytest.mark.parametrize("dtype", [bool, "boolean", object])
def test_fault_05_bool_treatment_is_the_same_bit_for_bit(data, estimator, dtype):
    flags = (data.d == 1).astype(dtype)
    res, base = fit(estimator, data.assign(d=flags)), clean(estimator)
    assert_same(res, base)
    assert res.cov_params().to_numpy().tobytes() == base.cov_params().to_numpy().tobytes()


@ONE
@pytest.mark.parametrize("dtype", ["float64", "float32", "int8", "uint8", "Int64", "Float64"])
def test_fault_06_float_treatment_is_the_same(data, estimator, dtype):
    res, base = fit(estimator, data.assign(d=data.d.astype(dtype))), clean(estimator)
    assert_same(res, base)
    assert list(res.params.index) == ["ATE", "POM[0]", "POM[1]"]


@pytest.mark.parametrize("values", [[0.3, 0.7], [0.0, 0.3, 1.0], [0.1, 0.2, 0.3, 0.4]])
@pytest.mark.parametrize("options", [{}, {"treated": 1}])
def test_fault_07_probabilities_as_treatment(data, values, options):
    if options and len(values) == 2:
        return  # a named level of two is fault 3
    with raises_with(cr.DesignError, "'d'", "probability", "0.3", "expected 0/1 or bool", 'data["d"]'):
        build(cr.JRE, data.assign(d=np.resize(values, N)), **options)


MISSING = [None, np.nan, pd.NA]


@BOTH
@pytest.mark.parametrize("value", MISSING, ids=repr)
def test_fault_08_missing_treatment_is_dropped_everywhere_and_counted(data, estimator, value):
    gaps = data.copy()
    gaps["d"] = gaps["d"].astype(object)
    lost = gaps.index[gaps.d == 1][:5]  # would change the effect if they counted as controls
    gaps.loc[lost, "d"] = value
    res = fit(estimator, gaps)
    assert_same(res, fit(estimator, data.drop(index=lost)))
    assert res.nobs == N - 5 and list(res.in_sample.index[~res.in_sample]) == list(lost)
    assert res.sample_ledger.to_dict("records") == [
        {"formula": "treatment", "variable": "d", "missing": 5, "dropped": 5}
    ]
    text = str(res.summary())
    assert re.search(r"Rows dropped: +5\b", text) and "d missing." in " ".join(text.split())


@pytest.mark.parametrize("value", MISSING, ids=repr)
def test_fault_08_missing_treatment_raises_with_row_labels(data, value):
    gaps = data.set_axis([f"r{i}" for i in range(N)])
    gaps["d"] = gaps["d"].astype(object)
    gaps.loc[["r3", "r77"], "d"] = value
    with raises_with(cr.DesignError, f"2 of {N} rows", "'d' (treatment)", "'r3'", "'r77'", 'missing="drop"'):
        build(cr.JRE, gaps, missing="raise")


@pytest.mark.parametrize(
    ("formula", "propensity", "model"),
    [
        ("y ~ x1 + d", "x1", "outcome"),
        ("y ~ x1*d", "x1", "outcome"),
        ("y ~ x1 + Q('d')", "x1", "outcome"),
        ("y ~ x1", "x1 + d", "propensity"),
        ("y ~ x1", "x1 + I(d*x2)", "propensity"),
    ],
)
def test_fault_09_treatment_among_the_covariates(data, formula, propensity, model):
    with raises_with(cr.DesignError, "treatment 'd'", f"the {model} formula", "Take d out"):
        build(cr.JRE, data, formula, propensity=propensity)


def test_fault_09_treatment_in_the_place_of_the_outcome(data):
    with raises_with(
        cr.DesignError, "treatment 'd' is on the left side of the outcome formula 'd ~ x1'", '"<outcome> ~ x1"'
    ):
        build(cr.JRE, data, "d ~ x1", propensity="x1")


def test_fault_09_treatment_on_the_left_of_the_propensity_formula_is_welcome(data):
    assert_same(fit(cr.IPWRA, data, propensity="d ~ x1"), fit(cr.IPWRA, data, propensity="x1"))
    with raises_with(cr.DesignError, "'x3 ~ x1'", "treatment 'd'", 'propensity="x1"'):
        build(cr.IPWRA, data, propensity="x3 ~ x1")


@pytest.mark.parametrize(
    ("formula", "propensity", "model"),
    [
        ("y ~ x1", "x1 + y", "propensity"),
        ("y ~ x1", "x1 + I(y**2)", "propensity"),
        ("y ~ x1", "Q('y')", "propensity"),
        ("np.exp(y) ~ x1", "x1 + y", "propensity"),
        ("y ~ x1 + y", "x1", "outcome"),
    ],
)
def test_fault_10_outcome_among_the_covariates(data, formula, propensity, model):
    with raises_with(cr.DesignError, "outcome 'y'", f"the {model} formula", "Take y out"):
        build(cr.JRE, data, formula, propensity=propensity)


# --- rows --------------------------------------------------------------------------------------------------------


@BOTH
def test_fault_11_one_sample_for_both_models(data, estimator):
    gaps = data.assign(y=data.y - data.x3).set_axis(np.arange(N) * 2)
    gaps.loc[[2, 4], "y"] = np.nan
    gaps.loc[[4, 10], "x1"] = np.nan  # outcome model only
    gaps.loc[[4, 10, 20, 30], "x3"] = np.nan  # propensity model only
    res = fit(estimator, gaps, "y ~ x1 + x2", propensity="x2 + x3")
    whole = gaps.drop(index=[2, 4, 10, 20, 30])
    assert_same(res, fit(estimator, whole, "y ~ x1 + x2", propensity="x2 + x3"))
    assert res.nobs == N - 5 and re.search(r"Rows dropped: +5\b", str(res.summary()))
    assert list(res.in_sample.index) == list(gaps.index) and res.in_sample.sum() == N - 5
    ledger = res.sample_ledger.set_index("variable")
    assert ledger.missing.to_dict() == {"y": 2, "x1": 2, "x3": 4} and ledger.dropped.sum() == 5
    assert ledger.formula.to_dict() == {"y": "outcome", "x1": "outcome", "x3": "propensity"}
    assert list(res.propensity_scores.index) == list(whole.index)
    with raises_with(cr.DesignError, f"5 of {N} rows", "'x3' (propensity)  4 rows", "'x1' (outcome)  2 rows"):
        build(estimator, gaps, "y ~ x1 + x2", propensity="x2 + x3", missing="raise")


@pytest.mark.parametrize("column", ["y", "x1", "d", "w"])
def test_fault_12_infinite_values(data, column):
    bad = data.assign(w=1.0).astype(float)
    bad.loc[[4, 9], column] = [np.inf, np.inf if column == "w" else -np.inf]
    with raises_with(cr.DesignError, f"'{column}'", "infinite", "in 2 of"):
        fit(cr.JRE, bad, weights="w", weight_type="probability")


@ONE
def test_fault_13_duplicate_index_labels(data, estimator):
    twice = data.set_axis(np.arange(N) // 2)
    res, base = fit(estimator, twice), clean(estimator)
    assert_same(res, base)
    assert_same(fit(estimator, twice, treat=twice.d), base)
    np.testing.assert_array_equal(res.propensity_scores.to_numpy(), base.propensity_scores.to_numpy())
    gaps = twice.copy()
    gaps.iloc[5, gaps.columns.get_loc("x1")] = np.nan
    assert_same(fit(estimator, gaps), fit(estimator, gaps.reset_index(drop=True)))


@ONE
@pytest.mark.parametrize("role", ["treat", "weights", "cluster"])
def test_fault_14_permuted_series_is_aligned_by_label_and_said(data, estimator, role):
    more = data.assign(w=1 + np.arange(N) % 3, g=np.arange(N) % 30)
    column = {"treat": "d", "weights": "w", "cluster": "g"}[role]
    options = {"weights": {"weight_type": "probability"}}.get(role, {})
    base = fit(estimator, more, **{role: column}, **options)
    shuffled = more[column].sample(frac=1, random_state=0)
    with pytest.warns(cr.DesignWarning, match=rf"'{column}'.*another order.*aligned by label"):
        model = build(estimator, more, **{role: shuffled}, **options)
    assert_same(finish(model), base)
    assert_same(fit(estimator, more, **{role: shuffled.loc[more.index].to_numpy()}, **options), base)


@pytest.mark.parametrize("role", ["treat", "weights", "cluster"])
@pytest.mark.parametrize(
    ("change", "length"),
    [
        (lambda s: s[:200], 200),
        (lambda s: s.to_numpy()[:200], 200),
        (lambda s: [*s, 1], N + 1),
        (lambda s: s.set_axis(s.index + 10_000), N),
        (lambda s: s.set_axis(s.index + 1), N),
    ],
    ids=["shorter Series", "shorter array", "longer list", "no common label", "one label off"],
)
def test_fault_15_other_length_or_index(data, role, change, length):
    options = {role: change(data.d)} | ({"weight_type": "frequency"} if role == "weights" else {})
    name = {"treat": "treatment"}.get(role, role)
    with raises_with(cr.DesignError, name, str(length), f"{N} rows"):
        build(cr.JRE, data, **options)


def test_fault_16_duplicate_column_names(data):
    with raises_with(cr.DesignError, "2 columns named 'x1'", "duplicated()"):
        build(cr.JRE, pd.concat([data, data.x1], axis=1))
    with raises_with(cr.DesignError, "columns named 'd'"):
        build(cr.IPWRA, pd.concat([data, data.d], axis=1))
    with raises_with(cr.DesignError, "exog", "'x1'", "distinct"):
        cr.JRE(data.y, pd.concat([data.x1, data.x1], axis=1), data.d)


def test_fault_17_no_observations_left(data):
    with raises_with(cr.DesignError, "no rows", "read or filtered"):
        build(cr.JRE, data[:0])
    empty = data.assign(x1=np.where(data.index < 100, np.nan, data.x1), d=np.where(data.index >= 100, np.nan, data.d))
    with raises_with(cr.DesignError, "no observations left", f"all {N} rows", "'x1' (outcome, propensity)  100 rows",
                 f"'d' (treatment)  {N - 100} rows"):  # fmt: skip
        build(cr.IPWRA, empty)


@pytest.mark.parametrize(("count", "advice"), [(1, "at least two rows"), (2, "Use fewer"), (4, "Use fewer")])
def test_fault_18_arm_smaller_than_its_number_of_coefficients(data, count, advice):
    few = data.assign(d=(np.arange(N) < count).astype(int))
    with raises_with(cr.DesignError, "group 'smoker'", f"{count} row", "4 outcome coefficients", advice):
        build(cr.JRE, few, levels={0: "never", 1: "smoker"})
    with raises_with(cr.DesignError, "group '0'", f"{count} row", "4 outcome coefficients"):
        build(cr.OutcomeRegression, few.assign(d=1 - few.d))


@pytest.mark.parametrize("estimator", [cr.IPW, cr.IPWRA, cr.AIPW, cr.JRE])
def test_fault_19_more_propensity_coefficients_than_rows(estimator):
    wide = simulate(n=20, p=25, seed=1).assign(d=np.arange(20) % 2)
    with raises_with(cr.DesignError, "20 rows", "propensity coefficients"):
        build(estimator, wide, "y ~ 1", propensity=" + ".join(f"x{j}" for j in range(1, 26)))


# --- storage -----------------------------------------------------------------------------------------------------


def with_group(data):
    return data.assign(g=np.where(np.arange(N) % 3 == 0, "a", np.where(np.arange(N) % 3 == 1, "b", "c")))


@ONE
def test_fault_20_nullable_dtypes(data, estimator):
    plain = data.assign(flag=np.arange(N) % 2 == 0, k=np.arange(N) % 4)
    nullable = plain.convert_dtypes()
    assert {str(t) for t in nullable.dtypes} >= {"Int64", "Float64", "boolean"}
    plain = plain.astype({"k": float})
    for frame, gap in ((plain, np.nan), (nullable, pd.NA)):
        frame.loc[[5, 9], "x1"], frame.loc[7, "k"], frame.loc[8, "y"] = gap, gap, gap
    formula = "y ~ x1 + flag + k"
    res, base = fit(estimator, nullable, formula), fit(estimator, plain, formula)
    assert res.nobs == base.nobs == N - 4
    assert_same(res, base)
    assert list(res.outcome_params.index) == list(base.outcome_params.index)


TEXTS = ["string", "category", "object"]
with contextlib.suppress(ImportError):  # an optional storage of pandas, which needs NumPy 2
    import pyarrow

    TEXTS += ["arrow", "arrow dictionary"]


@ONE
@pytest.mark.parametrize("storage", TEXTS)
def test_fault_21_arrow_and_string_columns(data, estimator, storage):
    base, changed = with_group(data), with_group(data)
    if storage.startswith("arrow"):
        changed = changed.convert_dtypes(dtype_backend="pyarrow")
    if storage == "arrow dictionary":
        changed["g"] = changed.g.astype(pd.ArrowDtype(pyarrow.dictionary(pyarrow.int32(), pyarrow.string())))
    elif storage != "arrow":
        changed["g"] = changed.g.astype(storage)
    res, expected = fit(estimator, changed, "y ~ x1 + g"), fit(estimator, base, "y ~ x1 + g")
    assert_same(res, expected)
    assert list(res.outcome_params.index) == ["Intercept", "g[T.b]", "g[T.c]", "x1"]


@ONE
def test_fault_22_unused_levels(data, estimator):
    base = with_group(data)
    wide = base.assign(g=pd.Categorical(base.g, ["unused", "a", "b", "never", "c"]))
    wide["d"] = pd.Categorical(base.d, [0, 1, 2])
    res = fit(estimator, wide, "y ~ x1 + g")
    assert_same(res, fit(estimator, base, "y ~ x1 + g"))
    assert not [name for name in res.outcome_params.index if "unused" in name or "never" in name]
    gone = base.assign(x1=np.where(base.g == "b", np.nan, base.x1), g=pd.Categorical(base.g))
    assert list(fit(estimator, gone, "y ~ x1 + g").outcome_params.index) == ["Intercept", "g[T.c]", "x1"]


@pytest.mark.parametrize("estimator", [cr.OutcomeRegression, cr.IPWRA, cr.AIPW, cr.JRE])
def test_fault_23_level_in_one_arm_only(data, estimator):
    alone = with_group(data)
    rare = alone.index[alone.d == 0][:6]
    alone.loc[rare, "g"] = "Österreich"
    options = {"propensity": "x1", "levels": {0: "never", 1: "smoker"}}
    with pytest.warns(cr.DesignWarning, match="'Österreich' has no rows in group 'smoker'"):
        model = build(estimator, alone, "y ~ x1 + g", **options)
    assert model.design.dropped_terms == ("g[T.Österreich]",)


@pytest.mark.parametrize(
    ("estimator", "reason"),
    [
        (cr.OutcomeRegression, "outcome model were collinear"),
        (cr.IPWRA, "propensity model were collinear"),
        (cr.JRE, "propensity model were collinear"),
    ],
)
def test_fault_24_level_missing_in_a_resample(data, estimator, reason):
    rare = with_group(data)
    rare.loc[np.arange(N) % 15 == 0, "g"] = "rare"
    resamples = np.ones((N, 3))
    resamples[rare.g == "rare", 1] = 0
    options = {"n_replicates": 60} if estimator is cr.JRE else {"cov_type": "bootstrap"}
    with pytest.warns(cr.ResampleWarning, match=f"1 of 3 resamples.*{reason}"):
        res = build(estimator, rare, "y ~ x1 + g").fit(resamples=resamples, max_failed=0.5, **options)
    assert list(res.boot_ledger.used) == [True, False, True]
    assert reason in res.boot_ledger.reason.iloc[1]
    assert res.boot_params.iloc[1].isna().all()  # a level less would be another model: no number for it
    np.testing.assert_allclose(res.boot_params.iloc[[0, 2]], [res.params, res.params], rtol=1e-10)
