"""Formulas as R and Stata write them are answered with what to write here; formulas of this package pass."""

import numpy as np
import pandas as pd
import pytest

from causalrisk import IPWRA, DesignError

N = 60
DATA = pd.DataFrame({name: np.random.default_rng(k).normal(size=N) for k, name in enumerate(("y", "x", "z", "age"))})
DATA["d"] = np.arange(N) % 2
DATA["g"] = np.arange(N) % 3
DATA["odd name"] = DATA["x"]


def fitted(formula: str) -> None:
    IPWRA.from_formula(formula, DATA, treat="d").fit()


@pytest.mark.parametrize(
    ("formula", "here"),
    [
        ("y ~ i.g", "C(g)"),
        ("I(g = 'yes') ~ x", "I(g == ...)"),
        ("I(g == yes) ~ x", "Text is in quotes: `'yes'`."),
        ("y ~ d + x | z + x", 'LATE.from_formula("y ~ x", data, treat="d", instrument="z")'),
        ("y ~ i.g + x + c.age", "`C(g)`, and `c.g` is `g`. Stata's `i.age` is `C(age)`, and `c.age` is `age`."),
        ("y ~ ib2.g + x", "C(g, Treatment(2))"),
        ("y ~ c.age##c.age", "`c.x##c.x` is `x + I(x**2)`"),
        ("y ~ g##x", "`i.g##c.x` is `C(g)*x`"),
        ("y ~ i.g#c.x", "C(g):x"),
        ("y ~ 1.g", "I(g == 1)"),
        ("y ~ i.(g z)", "C(g)"),
        ("y ~ L.x", 'groupby("unit")["x"].shift(1)'),
        ("xi: y ~ x", "C(x)"),
        ("y ~ x [pw=z]", 'weights="z"'),
        ("y ~ x if z > 0", 'data.query("z > 0")'),
        ("y x z", "y ~ x1 + x2"),
        ("y ~ x + odd name", "Q('odd name')"),
        ("y ~ age x C(g)", "Join terms with `+`"),
        ("y age C(g)", "Join terms with `+`"),
        ("odd name ~ x", "Q('odd name')"),
        ("y ~ age z + C(g)", "age + z"),
        ("teffects ipwra (y x) (d x)", "propensity="),
        ("y ~ x, robust", '"y ~ x"'),
        ("y ~ x # a comment", "Leave comments out."),
        ("y ~ `odd name`", "Q("),
        ("y ~ x^2", "I(x**2)"),
        ("factor(y) ~ x", "y ~"),
        ("y ~ as.factor(g)", "C(g)"),
        ("y ~ as.numeric(g)", "1.0 * g"),
        ("y ~ C(g, contr.sum)", "Sum"),
        ("y ~ C(g, ref=2)", "C(g, Treatment(2))"),
        ("y ~ x + offset(log(age))", 'exposure="age"'),
        ("y ~ splines::ns(x)", "`ns(...)`"),
        ("y ~ ns(x, 3)", "`cr(x, df=3, constraints='center')`"),
        ("y ~ ns(x, df=5)", "df=5"),
        ("y ~ rcs(x, 4)", "df=3"),
        ("y ~ poly(x, 3)", "`x + I(x**2) + I(x**3)`"),
        ("y ~ bs(x, degree=2)", "bs(x, df=3)"),
        ("y ~ odd.name", "Q('odd name')"),
        ("y ~ .", "data.columns.drop"),
        ("age ~ . - x", 'data.columns.drop(["age", "d"])'),
        ("y ~ x + ", "ends in `+`"),
        ("y ~ I(g %in% c(1, 2))", "isin"),
        ("y ~ I(x > 0 & z < 1)", "(x > 1) & (z < 2)"),
        ("y ~ x | g", "C(g)"),
        ("y ~ df$x", "`x`"),
        ("y \u223c x", "~"),
        ("y = x", "~"),
        ("y ~ factor(g)", "C(g)"),
        ("y ~ log(age)", "np.log(age)"),
        ("y ~ c(g)", "Did you mean `C`"),
        ("y ~ poly(x, 2)", "I(x**2)"),
        ("y ~ bs(x)", "bs(x, df=3)"),
        ("y ~ cut(x, 3)", "C(pd.cut(x, 3))"),
        ("y ~ lag(x)", '["x"].shift(1)'),
        ("y ~ diff(x)", '["x"].diff()'),
        ("y ~ %in%", "Join terms with `+`"),
        ("y ~ C(g, ref='a b')", "C(g, Treatment('a b'))"),
        ('y ~ relevel(g, ref="a")', 'C(g, Treatment("a"))'),
        ("Surv(y, d) ~ x", "Survival"),
        ("y ~ x & z", "x:z"),
    ],
)
def test_other_notations_are_answered(formula, here):
    with pytest.raises(DesignError) as caught:
        fitted(formula)
    assert here in str(caught.value)


@pytest.mark.parametrize(
    "formula",
    [
        "y ~ x + C(g)",
        "y ~ x*z + I(x**2)",
        "y ~ (x + z)**2",
        "y ~ I((x > 0) & (z < 1)) + age",
        "y ~ Q('odd name') + z",
        "y ~ C(g, Treatment(2)):x",
        "y ~ bs(x, df=4) + np.abs(z)",
        "y ~ I(1.5 * x) + I(z if len(z) else x)",
        "y ~ I(g.isin([1, 2]))",
        "np.log(I(y - y.min() + 1)) ~ 0 + x + C(g)",
    ],
)
def test_formulas_of_this_package_pass(formula):
    fitted(formula)
