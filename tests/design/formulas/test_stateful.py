"""Calls that learn from all rows: found in a formula, asked in blocks, and told what was learnt."""

from __future__ import annotations

import dataclasses
import pickle
from functools import reduce

import numpy as np
import pandas as pd
import pytest

from causalrisk import DesignError
from causalrisk.design.formulas.evaluation import Scope, compile_terms, evaluate, parse
from causalrisk.design.formulas.stateful import first_lesson, options_of, stateful_calls

X = pd.Series([3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0])


def told(right, x=X, **constants):
    """What the only call of a formula is told, from two blocks, and the number of passes."""
    formula = parse(f"y ~ {right}", "outcome", [])
    (call,) = stateful_calls(formula, constants).values()
    lesson, passes = first_lesson(call, formula, Scope({"x": x[:3]}, constants), len(x)), 0
    while lesson is not None and not isinstance(lesson, str):
        question = pickle.loads(pickle.dumps(lesson.question))
        answers = [question.of(Scope({"x": block.reset_index(drop=True)}, constants)) for block in (x[:5], x[5:])]
        lesson, passes = lesson.after(reduce(lambda a, b: a.beside(b), answers)), passes + 1
    return lesson, passes


CALLS = {
    "bs(x, 4)": ("bs(x, df=4, knots=[3.5], degree=3, include_intercept=False, lower_bound=1.0, upper_bound=9.0)", 1),
    "bs(x, 1, None, degree=k)": (
        "bs(x, df=1, knots=[], degree=1, include_intercept=False, lower_bound=1.0, upper_bound=9.0)",
        1,
    ),
    "bs(np.log(x), knots=[1], upper_bound=9)": (
        "bs(np.log(x), knots=[1], degree=3, include_intercept=False, lower_bound=0.0, upper_bound=9)",
        1,
    ),
    "bs(x, knots=[2], lower_bound=0, upper_bound=9)": (None, 0),
    "cr(x, df=3)": ("cr(x, df=3, knots=[4.0], lower_bound=1.0, upper_bound=9.0)", 1),
    "cr(x, knots=[2], lower_bound=0, upper_bound=9)": (None, 0),
    "center(x)": ("((x) - 3.875)", 1),
    "scale(x, rescale=False)": ("((x) - 3.875)", 1),
    "standardize(x, center=False, ddof=1)": (f"(x) / {X.std(ddof=1)}", 1),
    "standardize(x, False, False)": ("(x)", 1),
    "te(1 * x, x)": (None, 0),
    "te(1 * x, x, constraints='center')": (f"te(1 * x, x, constraints=[{(X**2).mean()}])", 1),
}


@pytest.mark.parametrize("call", CALLS)
def test_calls_are_told_what_they_would_learn(call):
    assert told(call, np=np, k=1) == CALLS[call]


def test_a_mean_of_a_basis_is_learnt_after_its_knots():
    code, passes = told("cr(x, df=2, constraints='center')")
    assert code.startswith("cr(x, df=2, knots=[4.0], lower_bound=1.0, upper_bound=9.0, constraints=[[")
    assert passes == 2
    assert told("cr(x, knots=[4], lower_bound=1, upper_bound=9, constraints='center')")[1] == 1


def test_inner_calls_come_first_and_functions_of_the_user_are_others():
    formula = parse("center(y) ~ bs(center(x), df=4) + I(scale(z)**2) + center(x) + bs(z, df=np.min(k))", "outcome", [])
    names = ["center(y)", "center(x)", "bs(center(x), df=4)", "scale(z)", "bs(z, df=np.min(k))"]
    assert list(stateful_calls(formula, {})) == names
    assert list(stateful_calls(formula, {"scale": lambda x: x})) == [name for name in names if name != "scale(z)"]
    assert len(options_of(stateful_calls(formula, {})["bs(z, df=np.min(k))"])) == 1


def test_terms_keep_their_names_and_calls_inside_of_others_are_told():
    formula = parse("y ~ I(center(x) * 2) + standardize(center(x))", "outcome", [])
    formula = dataclasses.replace(formula, told=(("center(x)", "x - 3"), ("standardize(center(x))", "(x - 3) / 2")))
    formula = pickle.loads(pickle.dumps(formula))
    scope = Scope({"x": X}, {})
    info = compile_terms(formula.right, formula, scope)
    assert info.column_names == ["Intercept", "I(center(x) * 2)", "standardize(center(x))"]
    rows = evaluate(info, formula, scope, len(X))
    np.testing.assert_array_equal(rows, np.column_stack([np.ones(8), (X - 3) * 2, (X - 3) / 2]))


def test_what_is_no_number_or_not_finite_is_refused():
    with pytest.raises(DesignError, match=r"term 'center\(x\)' of the outcome .* is NaN or infinite in 2 rows"):
        told("center(x)", X.replace(1.0, np.inf))
    with pytest.raises(DesignError, match="TypeError: unsupported operand"):
        told("bs(x, df=4)", X.astype(str).astype(object))
