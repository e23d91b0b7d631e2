"""Stata's notation: what its pieces are here."""

from __future__ import annotations

import pytest

from causalrisk.design.formulas.dialects import from_teffects, from_treatment, stata_factor, stata_formula


@pytest.mark.parametrize(
    ("text", "typed"),
    [
        ("y ~ age", "y ~ age"),
        ("y ~ c.age##c.age + i.g", "y ~ age + I(age**2) + C(g)"),
        ("xi: y ~ i.g + age", "y ~ C(g) + age"),
        ("y ~ xi:age", "y ~ xi:age"),  # a column of that name
        ("y ~ 2.g + I(age * 1.5) + I(1.e3 * age)", "y ~ I(g == 2) + I(age * 1.5) + I(1.e3 * age)"),
    ],
)
def test_formulas(text, typed):
    assert stata_formula(text) == typed


@pytest.mark.parametrize(
    ("text", "typed"),
    [
        ("(y) (d)", 'formula="y ~ 1", treat="d"'),
        ("(y x) (d)", 'formula="y ~ x", treat="d"'),
        ("(y x i.g, poisson) (d x z, probit)", "formula=\"y ~ x + C(g)\", family='poisson', treat=\"d\", "
         'propensity="x + z", propensity_link="probit"'),
        ("teffects aipw (y x, logit) (d z), atet vce(robust)", "formula=\"y ~ x\", family='binomial', treat=\"d\", "
         'propensity="z"'),
        ("y ~ x", None),
        ("(y + x) * (z)", None),
    ],
)  # fmt: skip
def test_both_models_in_parentheses(text, typed):
    assert from_teffects(text) == typed


def test_a_treatment_with_its_covariates():
    assert from_treatment("(d x z, probit)") == 'treat="d", propensity="x + z", propensity_link="probit"'
    assert from_treatment("d x") == 'treat="d", propensity="x"'
    assert from_treatment("d") is None


def test_factors():
    assert [stata_factor(prefix, "g") for prefix in ("i", "c", "ib3")] == ["C(g)", "g", "C(g, Treatment(3))"]
