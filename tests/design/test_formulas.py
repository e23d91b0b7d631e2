"""Formulas: what names mean, what patsy says, and how new data are coded."""

import copy
import pickle
import re

import numpy as np
import pandas as pd
import pytest

from causalrisk.errors import DesignError, DesignWarning
from tests.conftest import formula_design


def double(values):
    return values * 2


@pytest.fixture
def data():
    rng = np.random.default_rng(3)
    n = 80
    return pd.DataFrame(
        {
            "y": rng.normal(size=n),
            "d": np.arange(n) % 2,
            "x": rng.normal(size=n),
            "k": rng.integers(1, 6, n),
            "g": np.array(["a", "b", "c"])[rng.integers(0, 3, n)],
        }
    )


def make(formula, data, frame=None, **options):
    return formula_design(formula, data, **{"treat": "d", "frame": {"np": np, **(frame or {})}, **options})


def test_names_and_values(data):
    design = make("y ~ x + I(k**2) + C(g) + np.exp(x)", data, propensity="d ~ x")
    assert design.exog_names == ("Intercept", "C(g)[T.b]", "C(g)[T.c]", "x", "I(k ** 2)", "np.exp(x)")
    expected = np.column_stack([np.ones(80), data.g == "b", data.g == "c", data.x, data.k**2.0, np.exp(data.x)])
    assert np.array_equal(design.X, expected)
    assert design.formula == "y ~ x + I(k**2) + C(g) + np.exp(x)"
    assert design.propensity_formula == "d ~ x"
    assert design.propensity_names == ("Intercept", "x")
    assert np.array_equal(design.y, data.y)


def test_default_propensity_is_the_right_hand_side(data):
    design = make("y ~ x +\n   k", data)
    assert design.formula == "y ~ x + k"
    assert design.propensity_formula == "d ~ x + k"
    assert np.array_equal(design.X, design.Z)


def test_transformed_and_bool_outcomes(data):
    design = make("np.exp(y) ~ x", data)
    assert design.endog_name == "np.exp(y)"
    assert np.array_equal(design.y, np.exp(data.y))
    assert np.array_equal(make("I(y > 0) ~ x", data).y, (data.y > 0).astype(float))
    assert np.array_equal(make("y ~ x", data.assign(y=data.y > 0)).y, (data.y > 0).astype(float))


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("x", "has no left-hand side"),
        ("~ x", "has no left-hand side"),
        ("y + x ~ k", r"arithmetic on its left-hand side.*\nUse `I\(y \+ x\) ~ k`"),
        ("y - x ~ k", r"Use `I\(y - x\) ~ k`"),
        ("y:x ~ k", "arithmetic on its left-hand side"),
        ("1 ~ k", "a left-hand side that is not one variable"),
        ("g ~ x", "the outcome 'g' has the levels 'a', 'b'"),
        ("C(k) ~ x", "the outcome .* has the levels"),
        ("np.column_stack([y, k]) ~ x", "has 2 columns; expected one"),
        ("y ~ ", "empty right-hand side"),
        ("y ~ 0", "empty right-hand side"),
        ("y ~ x ~ k", "outcome formula 'y ~ x ~ k' cannot be read"),
        ("y ~ (x", "cannot be read: Unmatched"),
        ("y ~ x k", r"`y ~ x1 \+ x2`"),
        ("y ~ 2 + x", "cannot be read: numbers besides"),
        ("y ~ xx", r"uses 'xx', which is neither .*\nDid you mean 'x'"),
        ("y ~ id", "uses 'id', which is neither"),
        ("y ~ np", "uses 'np', which is neither"),
        ("y ~ lg(x)", "uses the function 'lg', which is not defined"),
        ('y ~ Q("k1")', "uses 'k1', which is neither"),
        ("y ~ Q(x)", "does not quote a name"),
        ("y ~ x^2", r"I\(x\*\*2\)"),
        ("y ~ I(k ^ 2)", r"I\(k\*\*2\)"),
        ("y ~ np.log(k - 1)", r"term 'np.log\(k - 1\)' of the outcome formula .* is NaN or infinite in"),
        ("y ~ np.sqrt(x)", r"term 'np.sqrt\(x\)' .* is NaN or infinite"),
        ("y ~ x.missing", "cannot be evaluated in 'x.missing': AttributeError"),
        ("y ~ I(g + x)", "cannot be evaluated"),
        ("y ~ x[:5]", "length 5; expected one value per row"),
        ("y ~ d + x", "treatment 'd' is in the outcome formula"),
        ("d ~ x", "treatment 'd' is on the left side of the outcome formula 'd ~ x'"),
        ("y ~ I(d * x)", "treatment 'd' is in the outcome formula"),
        ("np.exp(y) ~ x + y", "outcome 'y' is in the outcome formula"),
    ],
)
def test_outcome_formula_errors(data, formula, message):
    with pytest.raises(DesignError, match=message) as caught:
        make(formula, data)
    assert "\n" in str(caught.value)


@pytest.mark.parametrize(
    ("propensity", "message"),
    [
        ("", "propensity formula '' has an empty right-hand side"),
        ("x +", r"propensity formula 'x \+' cannot be read"),
        ("x + z", "propensity formula 'x .* uses 'z'"),
        ("y ~ x", "must be the treatment 'd'"),
        ("x + d", "treatment 'd' is in the propensity formula"),
        ("x + y", "outcome 'y' is in the propensity formula"),
        ("np.log(x)", "of the propensity formula .* is NaN or infinite"),
    ],
)
def test_propensity_formula_errors(data, propensity, message):
    with pytest.raises(DesignError, match=message):
        make("y ~ x", data, propensity=propensity)


def test_formula_of_another_type(data):
    with pytest.raises(TypeError, match="outcome formula is of type list"):
        make(["y ~ x"], data)


def test_count_of_a_term_that_is_not_finite(data):
    count = int((data.k == 1).sum())
    with pytest.raises(DesignError, match=f"infinite in {count} rows"):
        make("y ~ x + np.log(k - 1)", data)
    with pytest.raises(DesignError, match=f"cut.*infinite in {int((data.k > 3).sum())} rows"):
        make("y ~ cut(k)", data, {"cut": lambda k: pd.cut(k, [0, 2, 3])})


@pytest.mark.parametrize("formula", ["y ~ x + k**2", "y ~ x + (k)**2", "y ~ np.exp(x)**2 + k"])
def test_power_outside_i(data, formula):
    base = "np.exp(x)" if "exp" in formula else "k"
    with pytest.warns(DesignWarning) as caught:
        design = make(formula, data)
    assert len(caught) == 1
    assert f"{base}**2" in str(caught[0].message)
    assert f"I({base}**2)" in str(caught[0].message)
    assert design.notes == (str(caught[0].message),)


def test_legitimate_powers(data):
    assert make("y ~ (x + k)**2", data).exog_names == ("Intercept", "x", "k", "x:k")


def test_no_constant(data):
    with pytest.warns(DesignWarning, match="outcome model: no constant among the columns"):
        design = make("y ~ 0 + x", data, propensity="x")
    assert design.exog_names == ("x",)
    assert make("y ~ 0 + C(g)", data).notes == ()
    with pytest.warns(DesignWarning, match="propensity model: no constant"):
        make("y ~ x", data, propensity="x - 1")


def test_constant_only(data):
    design = make("y ~ 1", data, propensity="1")
    assert np.array_equal(design.X, np.ones((80, 1)))
    assert design.outcome_encoder.encode(data.head(3)).tolist() == [[1.0]] * 3


def test_odd_names(data):
    frame = data.rename(columns={"x": "mutter alter", "k": "größe"}).assign(**{"class": data.x**2})
    design = make('y ~ Q("mutter alter") + größe + Q("class")', frame)
    assert design.exog_names == ("Intercept", 'Q("mutter alter")', "größe", 'Q("class")')
    assert np.array_equal(design.X[:, 1:], frame[["mutter alter", "größe", "class"]].to_numpy(float))
    pressure = frame.rename(columns={"y": "patient's pressure"})
    assert make('Q("patient\'s pressure") ~ größe', pressure).endog_name == "patient's pressure"
    assert make('np.exp(Q("patient\'s pressure")) ~ größe', pressure).endog_name.startswith("np.exp(Q(")
    frame = frame.rename(columns={"d": "the treatment"})
    assert make("y ~ größe", frame, treat="the treatment").propensity_formula == 'Q("the treatment") ~ größe'
    assert make("y ~ größe", frame, treat="the treatment", propensity='Q("the treatment") ~ größe').n == 80


@pytest.fixture
def odd(data):
    names = {"mutter alter": data.x, "income (usd)": data.x**2, "a-b": data.k, "class": data.x**2 + 1, "1": 1.0}
    more = {"wage, EUR": data.x, " test score ": data.x**3, "wage": data.x, "Unnamed: 0": data.x**4}
    return data.assign(**names, **more)


@pytest.mark.parametrize(
    ("formula", "quoted"),
    [
        ("y ~ mutter alter", "y ~ Q('mutter alter')"),
        ("y ~ income (usd) + x", "y ~ Q('income (usd)') + x"),
        ("y ~ a-b", "y ~ Q('a-b')"),
        ("y ~ np.log(class)", "y ~ np.log(Q('class'))"),
        ("y ~ a-b + class", "y ~ Q('a-b') + Q('class')"),
        ("y ~ wage, EUR + income (usd)", "y ~ Q('wage, EUR') + Q('income (usd)')"),
        ("y ~ test score + x", "y ~ Q(' test score ') + x"),
        ("y ~ x + Unnamed: 0", "y ~ x + Q('Unnamed: 0')"),
        ("y ~ Q('a-b') + class", "y ~ Q('a-b') + Q('class')"),
    ],
)
def test_odd_names_without_quotes(odd, formula, quoted):
    for name, given, typed in (("", formula, quoted), ("propensity=", formula[4:], quoted[4:])):
        options = {"propensity": given, "formula": "y ~ x"} if name else {"formula": given}
        with pytest.raises(DesignError) as caught:
            make(data=odd, **options)
        last = str(caught.value).splitlines()[-1]
        assert last.startswith("Names with spaces or symbols, and Python keywords, need Q(...). Use `Q(")
        assert {name for name in re.findall(r"Q\('[^']*'\)", typed) if name not in given} <= {*last.split("`")}
    make(quoted, odd)
    with pytest.raises(DesignError, match="need Q"):
        make(formula, {name: column.to_numpy() for name, column in odd.items()})


def test_names_that_look_like_statas(data):
    frame = data.assign(i=data.x, **{"i.g": data.k})
    assert make("y ~ i.abs()", frame).exog_names == ("Intercept", "i.abs()")
    assert make('y ~ Q("i.g")', frame).exog_names == ("Intercept", 'Q("i.g")')


def test_numpy_need_not_be_imported(data):
    design = formula_design("np.exp(y) ~ np.exp(x) + np.where(k > 2, 1, 0)", data, treat="d", frame={})
    assert np.array_equal(design.X[:, 1], np.exp(data.x))
    assert np.array_equal(pickle.loads(pickle.dumps(design)).outcome_encoder.encode(data), design.X)
    other = type("Other", (), {"exp": staticmethod(double)})
    assert np.array_equal(make("y ~ np.exp(x)", data, {"np": other}).X[:, 1], 2 * data.x)  # the caller's own np


def test_columns_named_like_functions(data):
    frame = data.rename(columns={"g": "C", "x": "Q", "k": "I"}).assign(center=data.x**2, np=data.k + 1.0, Treatment=1.0)
    shadows = {"C": 3, "I": np.arange(80), "Q": [1], "center": np.ones(80), "log": np.log}
    design = make("y ~ C + I + center + log(np)", frame, shadows)
    assert design.exog_names == ("Intercept", "C[T.b]", "C[T.c]", "I", "center", "log(np)")
    assert np.array_equal(design.X[:, 3:], np.column_stack([data.k, data.x**2, np.log(data.k + 1.0)]))
    frame["Treatment"] = np.nan  # the contrast of that name is meant, so the column is not used
    assert make("y ~ C(g, Treatment)", frame.assign(g=data.g)).n == 80
    for formula in ("C(C)", "Q('Q')", "I(I**2)", "center(center)", "np.log(np)", "C(y, Treatment) + Treatment"):
        with pytest.raises(DesignError, match="as a column and as a function"):
            make(f"d ~ {formula}", frame, shadows, treat="I" if formula != "I(I**2)" else "C")


def test_more_terms_or_levels_than_a_model_can_have(data):
    for formula in (
        "y ~ " + " + ".join(f"I(x + {k})" for k in range(2000)),
        "y ~ (x + k + g + d + y)**9 * (x + k)**99999",
    ):
        with pytest.raises(DesignError, match="formula"):
            make(formula, data)
    levels = pd.DataFrame({"y": np.sin(np.arange(20_000)), "d": np.arange(20_000) % 2, "g": np.arange(20_000) // 4})
    with pytest.raises(DesignError, match=r"5,000 columns .*\nUse fewer levels of 'g'"):
        make("y ~ C(g)", levels)


def test_callers_own_function_may_replace_a_transform(data):
    assert np.array_equal(make("y ~ scale(x)", data, {"scale": double}).X[:, 1], 2 * data.x)


def test_columns_named_like_internal_names(data):
    frame = data.assign(Intercept=data.x, _weight=data.x**2, ps=data.x**3, _column_0=data.k)
    design = make("y ~ Intercept + _weight + ps + _column_0", frame)
    assert design.exog_names == ("Intercept", "Q('Intercept')", "_weight", "ps", "_column_0")
    assert np.array_equal(design.X[:, 1:], frame[["Intercept", "_weight", "ps", "_column_0"]])


def test_integers_do_not_overflow(data):
    frame = data.assign(k=np.arange(80, dtype=np.int8), big=np.arange(80) * 10**6)
    design = make("y ~ I(k**2) + I(big**4)", frame)
    assert np.array_equal(design.X[:, 1], np.arange(80.0) ** 2)
    assert np.array_equal(design.X[:, 2], (np.arange(80.0) * 1e6) ** 4)
    for power in ("np.power(big, 4)", "big.pow(4)", "pow(big, 4)", "np.square(np.square(big))"):
        assert np.allclose(make(f"y ~ {power}", frame).X[:, 1], design.X[:, 2], rtol=1e-14)


def test_variables_of_the_scope(data):
    scope = {name: data[name].to_numpy() for name in data}
    knots = np.array([-0.5, 0.5])
    design = make("y ~ bs(x, knots=knots, degree=3) + I(k > cut)", None, {**scope, "knots": knots, "cut": 2})
    same = make("y ~ bs(x, knots=(-0.5, 0.5), degree=3) + I(k > 2)", data)
    assert np.array_equal(design.X, same.X)
    mixed = make("y ~ x + other", data, {"other": np.arange(80.0), "x": "not this"})
    assert np.array_equal(mixed.X[:, 2], np.arange(80.0))
    assert make("y ~ x", {name: list(v) for name, v in scope.items()}, {}).n == 80
    assert make("y ~ x", data, {"e": data.d}, treat="e").treat_name == "e"


def test_variables_of_the_scope_must_agree(data):
    with pytest.raises(DesignError, match="variable 'x' has 79 values, but the data have 80 rows"):
        make("y ~ x", None, {"y": data.y.to_numpy(), "x": np.ones(79), "d": data.d.to_numpy()})
    with pytest.raises(DesignError, match="variable 'x' has 80 values, but the data have 80 rows with other"):
        make("y ~ x", None, {"y": data.y, "x": data.x.set_axis(range(1, 81)), "d": data.d})
    with pytest.raises(DesignError, match="'other' has 3 values, but the data have 80 rows"):
        make("y ~ x + other", data, {"other": np.ones(3)})
    with pytest.raises(DesignError, match=r"uses 'xx'.*\nDefine 'xx'"):
        make("y ~ xx", None, {"y": data.y, "x": data.x, "d": data.d})
    with pytest.warns(DesignWarning, match="variable 'x' has the row labels of the data in another order"):
        design = make("y ~ x", None, {"y": data.y, "x": data.x[::-1], "d": data.d})
    assert np.array_equal(design.X[:, 1], data.x)


def test_state_is_of_the_sample(data):
    frame = data.astype({"k": float})
    frame.loc[frame.index[:20], "k"] = np.nan
    design = make("y ~ center(x) + standardize(k) + bs(np.exp(x), df=4)", frame)
    kept = frame[20:]
    columns = dict(zip(design.exog_names, design.X.T, strict=True))
    assert np.allclose(columns["center(x)"], kept.x - kept.x.mean())
    assert np.allclose(columns["standardize(k)"], (kept.k - kept.k.mean()) / kept.k.std(ddof=0))
    assert np.array_equal(design.outcome_encoder.encode(kept), design.X)
    assert np.array_equal(design.outcome_encoder.encode(kept[5:6]), design.X[5:6])


def test_encode_new_data(data):
    design = make("y ~ x + g + I(k**2)", data, propensity="C(k)")
    new = data.iloc[::-1, ::-1].head(7)
    assert np.array_equal(design.outcome_encoder.encode(new), design.X[::-1][:7])
    assert np.array_equal(design.outcome_encoder.encode(new.astype({"g": "category"})), design.X[::-1][:7])
    assert np.array_equal(design.propensity_encoder.encode({"k": [1, 2]})[:, 0], [1, 1])
    assert np.array_equal(design.propensity_encoder.encode(new[["k"]].astype(float)), design.Z[::-1][:7])


@pytest.mark.parametrize("kind", ["str", "category"])
def test_encode_errors(data, kind):
    encoder = make("y ~ x + g", data.astype({"g": kind})).outcome_encoder
    with pytest.raises(DesignError, match=r"'g' .*'zz'.*; expected 'a', 'b', 'c'"):
        encoder.encode(data.assign(g="zz"))
    with pytest.raises(
        DesignError, match=r"new data have no column 'x', which the outcome model uses.\nAdd it. Did you mean 'xx'"
    ):
        encoder.encode(data.rename(columns={"x": "xx"}))
    with pytest.raises(DesignError, match="column 'x' of the new data is missing in 80 rows"):
        encoder.encode(data.assign(x=np.nan))
    with pytest.raises(DesignError, match=r"column 'x' of new data has dtype .*; expected numbers"):
        encoder.encode(data.assign(x="text"))
    with pytest.raises(TypeError, match="DataFrame"):
        encoder.encode(np.ones((3, 2)))


def test_unseen_codes_are_shown_as_plain_values(data):
    encoder = make("y ~ x + C(k)", data).outcome_encoder
    with pytest.raises(DesignError, match=r"'C\(k\)' in the outcome formula .* has the level 77; expected 1, 2, "):
        encoder.encode(data.assign(k=77))
    with pytest.raises(DesignError, match=r"'C\(g, levels=order\)' in the outcome .* level 'c'; expected 'a', 'b'\."):
        make("y ~ C(g, levels=order)", data, {"order": ["a", "b"]})


def test_encode_leaves_out_dropped_columns(data):
    with pytest.warns(DesignWarning, match="dropped 'twice'"):
        design = make("y ~ x + twice + k", data.assign(twice=2 * data.x))
    new = data.assign(twice=2 * data.x).head(4)
    assert np.array_equal(design.outcome_encoder.encode(new), design.X[:4])


def test_pickle_and_copy(data):
    design = make("y ~ double(x) + np.exp(x) + C(g, levels=order)", data, {"double": double, "order": ["c", "b", "a"]})
    again = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(design))))
    assert np.array_equal(again.outcome_encoder.encode(data), design.X)
    assert again.exog_names == design.exog_names == again.outcome_encoder.names
    assert np.array_equal(copy.deepcopy(design).outcome_encoder.encode(data), design.X)
    assert np.array_equal(copy.copy(design).outcome_encoder.encode(data), design.X)


def test_function_that_does_not_pickle(data):
    design = make("y ~ f(x)", data, {"f": lambda v: v * 3})
    assert np.array_equal(copy.deepcopy(design).outcome_encoder.encode(data), design.X)
    again = pickle.loads(pickle.dumps(design))
    assert np.array_equal(again.X, design.X)
    for encoder in (again.outcome_encoder, pickle.loads(pickle.dumps(again)).outcome_encoder):
        with pytest.raises(DesignError, match="'f' could not be pickled"):
            encoder.encode(data)


def test_encoder_holds_nothing_of_the_callers(data):
    order = ["a", "b", "c"]
    design = make("y ~ C(g, levels=order) + center(x)", data, {"order": order})
    expected = design.X.copy()
    fresh = data.copy()
    order.reverse()
    data["x"] = 0.0
    data["g"] = "a"
    assert np.array_equal(pickle.loads(pickle.dumps(design)).outcome_encoder.encode(fresh), expected)


@pytest.mark.parametrize(
    ("term", "told"),
    [
        ("C(g, levels=['a', 'a', 'b', 'c'])", "categories must be unique"),
        ("str(x)", "one value per row"),
        ("I(5)", "one value per row"),
        ("x.mean()", "one value per row"),
        ("x * 1j", "expected numbers"),
        ("pd.to_timedelta(k)", "expected numbers"),
    ],
)
def test_terms_that_are_no_columns_of_numbers_are_refused(data, term, told):
    with pytest.raises(DesignError, match=told):
        make(f"y ~ I({term})" if term == "x * 1j" else f"y ~ {term}", data, frame={"pd": pd})


def test_a_class_in_the_scope_does_not_replace_a_spline(data):
    expected = make("y ~ bs(x, df=4)", data).X
    np.testing.assert_array_equal(make("y ~ bs(x, df=4)", data, frame={"bs": dict}).X, expected)


def test_levels_of_several_types_are_levels(data):
    made = make("y ~ mixed(x)", data, frame={"mixed": lambda x: [1 if v > 0 else "a" for v in x]})
    np.testing.assert_array_equal(made.X[:, 1], data.x <= 0)
