"""Advice that is executed: what a message tells to type is typed, and the outcome is what was meant.

Every text of the package that says "Type  ..." must be told by one of the cases; `test_no_advice_is_untried` names
those that none tells. A case is a call that is refused, and the call that was meant. What the message says is carried
out on the first, and must give the second: the same class, estimand, sample and digits.
"""

from __future__ import annotations

import contextlib
import functools
import io
import pickle
import re
import shlex
import sys
import tempfile
from concurrent.futures import BrokenExecutor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import joblib
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import sklearn.linear_model
import statsmodels.api as sm
from matplotlib.axes import Axes
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LinearRegression
from sklearn.neural_network import MLPRegressor
from sklearn.svm import LinearSVC

import causalrisk
from causalrisk import AIPW, IPWRA, JRE, DiD, Hajek, OutcomeRegression, Survey, compare, hle
from causalrisk.cli import main
from causalrisk.cli.data_files import read_file
from causalrisk.diagnostics.scores import rms_calibration_error
from causalrisk.errors import Failure, FitInterrupted
from causalrisk.learners.smooth import Smooth
from causalrisk.numerics.families import outcome_family
from tests.advice import SAID_OTHERWISE, Told, package_files, seen, sites, sites_of, told
from tests.conftest import simulate
from tests.dask_stub import cluster

N = 300


pytestmark = pytest.mark.usefixtures("unprinted_plots", "few_points")


def _data():
    data = simulate(n=N, seed=3)
    rows = np.arange(N)
    return data.assign(
        g=np.array(["a", "b", "c"])[rows // 2 % 3],
        k=rows // 6 % 3,
        w=1 + rows % 3,
        u=1 + rows % 4 / 2,
        site=rows % 30,
        town=rows % 60,
        score=1 / (1 + np.exp(-data.x1)),
        ill=(data.y > 0).astype(int),
        share=50 + 40 * np.tanh(data.y),
        drug=np.where(data.d == 1, "drug", "placebo"),
        dose=np.array(["none", "low", "high"])[rows % 3],
        positive=np.exp(data.y / 4),
    )


DATA = _data()
NAMES = {
    "pd": pd, "pandas": pd, "np": np, "sm": sm, "causalrisk": causalrisk, "JRE": JRE, "IPWRA": IPWRA, "compare": compare
}  # fmt: skip
GIVEN = {"formula": "y ~ x1 + x2", "data": DATA, "treat": "d"}


def in_little_memory(call, **options):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("causalrisk.design.support.memory", lambda: 1e3)
        return call(**options)


@functools.cache
def plain(estimator):
    """The model of an estimator without any option, which hundreds of cases take or mean."""
    return estimator.from_formula(**GIVEN)


@functools.cache
def plain_fit(estimator):
    """Its fit without any option."""
    return plain(estimator).fit()


def model(estimator=IPWRA, **options):
    return estimator.from_formula(**(GIVEN | options)) if options else plain(estimator)


def fit(estimator=IPWRA, **options):
    return model(estimator).fit(**options) if options else plain_fit(estimator)


def of(estimator, **fixed):
    """A fit of another model as a function of the options of fit."""
    return lambda **options: model(estimator, **fixed).fit(**options)


@dataclass
class Case:
    """A call that is refused, and what was meant.

    Parameters
    ----------
    call : callable
        Takes options.
    wrong, meant : dict
        Options that are refused, and those that were meant.
    which : int
        Which of the alternatives of the message is tried.
    fill : dict
        What the user knows and the message cannot: texts that stand in it, and what they are replaced by.
    """

    call: Any
    wrong: dict[str, Any]
    meant: dict[str, Any]
    which: int = 0
    fill: dict[str, str] | None = None

    def provoke(self):
        return told(lambda: self.call(**self.wrong))

    def follow(self, heard: Told):
        """Replace the refused options by those that the message says to type."""
        code = heard.codes()[self.which]
        for text, own in (self.fill or {}).items():
            assert text in code, (text, code)
            code = code.replace(text, own)
        typed = eval(f"dict({code})", NAMES | {"data": DATA})
        kept = {name: value for name, value in self.wrong.items() if name in self.meant}
        return self.call(**(kept | typed))

    def outcome(self):
        return self.call(**self.meant)


@dataclass
class Formula(Case):
    """A formula with a term that is refused; `wrong` and `meant` are right-hand sides."""

    def __init__(self, wrong, meant, which=0, fill=None, data=DATA):
        def call(right):
            return model(formula=f"y ~ {right}", data=data)

        super().__init__(call, {"right": wrong}, {"right": meant}, which, fill)
        self.data = data

    def follow(self, heard):
        code = heard.codes()[self.which]
        for text, own in (self.fill or {}).items():
            code = code.replace(text, own)
        if code.startswith('"y ~ '):
            return model(formula=eval(code, NAMES | {"data": self.data}), data=self.data)
        return self.call(right=code)


@dataclass
class Expression(Case):
    """A call whose message names an expression to type, and one that gives what was meant; `names` are what it uses."""

    def __init__(self, provoke, meant, which=0, fill=None, **names):
        super().__init__(provoke, {}, {}, which, fill)
        self.right, self.names = meant, names

    def follow(self, heard):
        code = heard.codes()[self.which]
        for text, own in (self.fill or {}).items():
            assert text in code, (text, code)
            code = code.replace(text, own)
        names = {name: value() if name in ("res", "model") else value for name, value in self.names.items()}
        return eval(code, NAMES | {"data": DATA} | names)

    def outcome(self):
        return self.right() if callable(self.right) else self.right


@dataclass
class Column(Case):
    """A column that is refused; the message has an assignment to it."""

    def __init__(self, values, meant, call=None, column="x2"):
        super().__init__(call or (lambda data: model(data=data)), {}, {})
        self.values, self.converted, self.column = values, meant, column

    def frame(self, values):
        return DATA.assign(**{self.column: values})

    def provoke(self):
        return told(lambda: self.call(data=self.frame(self.values)))

    def follow(self, heard):
        data = self.frame(self.values)
        statement = re.search(rf'data\["{self.column}"\] = .*?(?=$|   or)', heard.message.rsplit("\n", 1)[1])[0]
        exec(statement, NAMES | {"data": data})
        return self.call(data=data)

    def outcome(self):
        return self.call(data=self.frame(self.converted))


class ManyLevels(Column):
    """A column with too many levels; the message has two statements."""

    def follow(self, heard):
        data = self.frame(self.values)
        exec(heard.message.rpartition("Type  ")[2].removesuffix("."), NAMES | {"data": data})
        return self.call(data=data)


def res_of(estimator=IPWRA, **options):
    return lambda: model(estimator, **options).fit() if options else plain_fit(estimator)


def of_quantiles(n_boot=None, **options):
    return model(AIPW, **({"effect": "quantile"} | options)).fit(n_boot=n_boot)


def equivalence(call, low, high, **options):
    """A test of equivalence whose limits are refused."""
    typed = f"res.equivalence_test(low={low}, high={high})"
    return Expression(
        lambda: call(res_of(**options)()),
        lambda: str(res_of(**options)().equivalence_test(low, high)),
        fill={typed: f"str({typed})"},
        res=res_of(**options),
    )


def two_outcomes(data):
    return causalrisk.simultaneous([model(data=data).fit(), model(data=data, formula="positive ~ x1 + x2").fit()])


def at_once(call):
    """Fits that are refused by `simultaneous`."""
    one, other = fit(), fit(AIPW)
    return Expression(
        call,
        lambda: causalrisk.simultaneous([one, other]),
        res1=one,
        res2=other,
        fill={"simultaneous(": "causalrisk.simultaneous("},
    )


def attribute(name, meant, fill=None, **options):
    """A name that results do not have."""
    res = res_of(**options)
    return Expression(lambda: getattr(res(), name), lambda: meant(res()), res=res, fill=fill)


X = DATA[["x1", "x2"]].assign(const=1.0)
POSITIVE = DATA[DATA.x1 > 0]
ODD = DATA.rename(columns={"x2": "x 2"})
THREE = {"treat": "dose", "reference": "none"}


def CLASSIFIED():
    score = sklearn.linear_model.LogisticRegression()
    return model(JRE, propensity_score=score, n_folds=2).fit(cov_type="robust", n_replicates=4)


NO_EVENTS = res_of(
    Hajek,
    data=DATA.assign(ill=DATA.ill * ~((DATA.g == "a") & (DATA.d == 0))),
    formula="ill ~ 1",
    propensity="g",
    family="binomial",
    effect="ratio",
)
BY_G = res_of(formula="y ~ x1 + g")
FORMULAS = {
    "hash": Formula("c.x1##c.x1", "x1 + I(x1**2)"),
    "backticks": Formula("`x1` + `x 2`", "x1 + Q('x 2')", data=ODD),
    "braces": Formula("{x1**2}", "I(x1**2)"),
    "as.factor": Formula("as.factor(g)", "C(g)"),
    "dot": Formula(".", "x1 + x2 + x3", fill={"<treatment>": "d"}, data=DATA[["y", "d", "x1", "x2", "x3"]]),
    "list": Formula("x1 x2", "x1 + x2"),
    "power of a sum": Formula("(x1 + x2)^2", "(x1 + x2)**2"),
    "package": Formula("splines::ns(x1, 3)", "cr(x1, df=3, constraints='center')"),
    "bar": Formula("x1 | k", "x1 + C(k)"),
    "bar meant": Formula("k | site", "I(k | site)", which=1),
    "random effect": Formula("(1|k)", "C(k)"),
    "ampersand": Formula("x1 & x2", "x1:x2"),
    "by a number": Formula("x2 + x1:1", "x2 + x1"),
    "hat": Formula("x1^2", "I(x1**2)"),
    "stata": Formula("ib2.k", "C(k, Treatment(2))"),
    "poly": Formula("poly(x1, 3)", "x1 + I(x1**2) + I(x1**3)"),
    "factor": Formula("factor(k)", "C(k)"),
    "exp": Formula("exp(x1)", "np.exp(x1)"),
    "called column": Formula("x1(x2)", "x1 * (x2)", fill={"...": "x2"}),
    "unquoted": Formula("x 2", "Q('x 2')", data=ODD),
    "empty quotes": Formula("Q(x2)", 'Q("x2")', fill={"name of the column": "x2"}),
    "power": Case(lambda right: model(formula=f"y ~ {right}"), {"right": "x1**2"}, {"right": "I(x1**2)"}),
    "removal": Case(lambda right: model(formula=f"y ~ {right}"), {"right": "x1 - x2"}, {"right": "I(x1 - x2)"}),
    "te": Formula("te(x1, x2)", "te(cr(x1, df=4), cr(x2, df=4), constraints='center')"),
    "bs": Formula("bs(x1)", "bs(x1, df=3)"),
    "group of Stata": Formula("c.(x1 x2)##i.(k g)", "(x1 + x2)*(C(k) + C(g))"),
    "groups in parentheses": Formula("(x1 + x2)##(x3 + k)", "(x1 + x2)*(x3 + k)"),
    "square of a group": Formula("c.(x1 x2)##c.(x1 x2)", "(x1 + x2)**2 + I(x1**2) + I(x2**2)"),
    "prefix of a group": Formula("c.(x1 x2) + i.(k g)", "x1 + x2 + C(k) + C(g)"),
    "comment": Formula("x1 + x2  # adjust", "x1 + x2"),
    "interaction like a comment": Formula("x1 + k # g", "x1 + C(k):C(g)", which=1),
    "comment of words": Formula("x1 + x2  # adjust for both", "x1 + x2"),
    "vector of R": Formula("bs(x1, knots = c(-1, 1), degree = 3)", "bs(x1, knots = [-1, 1], degree = 3)"),
    "cut of R": Formula("x2 + cut(x1, c(-9, 0, 1, 9))", "x2 + pd.cut(x1, [-9, 0, 1, 9])"),
    "knots": Formula("ns(x1, knots=[-1, 1])", "cr(x1, knots=[-1, 1], constraints='center')"),
    "knots counted": Formula("rcs(x1, 4)", "cr(x1, df=3, constraints='center')"),
    "relevel": Formula("relevel(factor(k), ref = 1)", "C(k, Treatment(1))"),
    "base as text": Formula("C(k, Treatment('1'))", "C(k, Treatment(1))"),
    "base by another name": Formula("C(g, reference='b')", "C(g, Treatment('b'))"),
    "comparisons": Formula("x1 > 0 & x2 > 0", "I((x1 > 0) & (x2 > 0))"),
    "number": Formula("x1/10", "I(x1 / 10)"),
    "number first": Formula("10 * x1", "I(10 * x1)"),
    "logarithm": Formula("ln(u)", "np.log(u)"),
    "itself": Case(lambda right: model(formula=f"y ~ {right}"), {"right": "x1*x1"}, {"right": "I(x1**2)"}),
}
for name in ("power", "removal", "itself"):
    FORMULAS[name].follow = lambda heard: model(formula=f"y ~ {heard.codes()[0]}")
WHOLE = {
    "empty": Case(model, {"formula": "y ~ "}, {"formula": "y ~ 1", "propensity": "x1"}),
    "empty propensity": Case(model, {"propensity": " "}, {"propensity": "1"}),
    "no outcome": Case(model, {"formula": "x1 + x2"}, {"formula": "y ~ x1 + x2"}, fill={"<outcome>": "y"}),
    "formula object": Case(model, {"formula": sm.OLS.from_formula("y ~ x1", DATA)}, {"formula": "y ~ x1"}),
    "factor as the outcome": Case(model, {"formula": "factor(ill) ~ x1"}, {"formula": "ill ~ x1"}),
    "propensity model": Case(model, {"propensity": sm.Logit.from_formula("d ~ x1", DATA)}, {"propensity": "d ~ x1"}),
    "other treatment": Case(model, {"propensity": "x3 ~ x1"}, {"propensity": "x1"}),
    "no covariates": Case(lambda **o: model(Hajek, formula="y ~ 1", **o), {}, {"propensity": "x1 + x2"}),
    "no covariates, by chance": Case(lambda **o: model(Hajek, formula="y ~ 1", **o), {}, {"propensity": "1"}, which=1),
}
for name in ("empty", "no outcome", "formula object", "factor as the outcome"):
    WHOLE[name].follow = lambda heard, case=WHOLE[name]: model(
        **{"formula": eval(next(iter(heard.codes())).replace("<outcome>", "y"))}
        | {k: v for k, v in case.meant.items() if k != "formula"}
    )
EXACT = [f"{i},5" for i in range(N)]
COLUMNS = {
    "decimal comma": Column(EXACT, [i + 0.5 for i in range(N)]),
    "dates": Column(pd.date_range("2020-01-01", periods=N), range(N)),
    "mixed commas": Column(["1,234.5", "2,5"] * 150, None),
}
COLUMNS["mixed commas"].follow = COLUMNS["mixed commas"].outcome = lambda *_: (
    None
)  # the file has to be corrected by hand
ONE_ARM = {"formula": "y ~ x1 + rare", "data": DATA.assign(rare=np.where(DATA.d == 1, DATA.site % 2, 0))}
TWICE = {"formula": "y ~ x1 + I(2 * x1)"}


def model_or_refusal(**options):
    """A model, or the text of the error."""
    try:
        return model(**options)
    except causalrisk.DesignError as error:
        return str(error)


ARM = np.array(["drug", "none"] * 150)
for name, odd, meant in (
    ("one spelling", ["drug ", "none", *ARM[2:]], ARM),
    ("one case", ["Drug", "none", *ARM[2:]], ARM),
    ("words for missing", ["n/a", *ARM[1:]], [np.nan, *ARM[1:]]),
):
    COLUMNS[name] = Column(odd, meant, lambda data: model(data=data, treat="arm", treated="drug"), "arm")
TWO_SPELLINGS = ["a ", "a", "b"] * 100
COLUMNS["covariate"] = Column(
    TWO_SPELLINGS, ["a", "a", "b"] * 100, lambda data: model(data=data, formula="y ~ x1 + town"), "town"
)
MODEL = {
    "term of one arm": Case(model_or_refusal, ONE_ARM, ONE_ARM | {"collinear": "raise"}),
    "term of one arm refused": Case(model, ONE_ARM | {"collinear": "raise"}, ONE_ARM | {"collinear": "drop"}),
    "dependent terms refused": Case(model, TWICE | {"collinear": "raise"}, TWICE | {"collinear": "drop"}),
    "forgotten data": Expression(
        lambda: IPWRA.from_formula("re78 ~ age", treat="d"),
        model,
        fill={"from_formula(": "IPWRA.from_formula(", "re78 ~ age": "y ~ x1 + x2", ", ...": ""},
    ),
    "treatment among the covariates": Expression(
        lambda: IPWRA.from_formula("y ~ x1 + d + x2", DATA), model, fill={"from_formula(": "IPWRA.from_formula("}
    ),
    "zeros": Case(
        lambda **o: model(**o).fit(),
        {"family": "gamma", "formula": "ill ~ x1"},
        {"family": "poisson", "formula": "ill ~ x1"},
    ),
    "treat of another coding": Case(model, {"treat": "k", "treated": 1}, {"treat": "k", "reference": 0}),
    "level": Case(model, {"treat": "drug", "reference": "plcebo"}, {"treat": "drug", "reference": "placebo"}, which=1),
    "three levels": Case(model, {"treat": "dose", "treated": "high"}, {"treat": "dose", "reference": "none"}),
    "levels": Case(model, {"levels": ["no", "yes"]}, {"levels": {0: "control", 1: "treated"}}),
    "levels of others": Case(model, {"levels": {0: "no"}}, {"levels": {0: "control", 1: "treated"}}),
    "levels alike": Case(model, {"levels": {0: "a", 1: "a"}}, {"levels": {0: "control", 1: "treated"}}),
    "treat of several": Case(
        model,
        {"treat": ["d", "k"]},
        {"treat": DATA.d.astype(str) + ", " + DATA.k.astype(str), "reference": "0, 0"},
        fill={"reference=...": 'reference="0, 0"'},
    ),
    "treat as a formula": Case(model, {"treat": "d ~ x1"}, {"treat": "d", "propensity": "x1"}),
    "treat None": Case(model, {"treat": None}, {"treat": "d"}),
    "missing": Case(model, {"missing": "skip"}, {"missing": "drop"}),
    "missing raise": Case(model, {"missing": "skip"}, {"missing": "raise"}, which=1),
    "missing values": Case(
        model,
        {"data": DATA.assign(x1=DATA.x1.where(DATA.index > 5)), "missing": "raise"},
        {"data": DATA.assign(x1=DATA.x1.where(DATA.index > 5)), "missing": "drop"},
    ),
    "weight type": Case(model, {"weights": "w", "weight_type": "??"}, {"weights": "w", "weight_type": "frequency"}),
    "pweight": Case(model, {"weights": "w", "weight_type": "pweight"}, {"weights": "w", "weight_type": "probability"}),
    "fweight": Case(model, {"weights": "w", "weight_type": "fweight"}, {"weights": "w", "weight_type": "frequency"}),
    "aweight": Case(model, {"weights": "w", "weight_type": "aweight"}, {"weights": "w", "weight_type": "probability"}),
    "not whole": Case(
        model, {"weights": "u", "weight_type": "frequency"}, {"weights": "u", "weight_type": "probability"}
    ),
    "three-way clusters": Case(model, {"cluster": ["site", "town", "k"]}, {"cluster": ["site", "town"]}),
    "several weights": Case(
        model, {"weights": ["w", "u"], "weight_type": "probability"}, {"weights": "w", "weight_type": "probability"}
    ),
    "path": Case(model, {"data": "births.csv"}, {"data": DATA}, fill={'pandas.read_csv("births.csv")': "data"}),
    "classifier class": Case(
        lambda **o: model(**o).options.propensity_score.get_params(), {"propensity_score": lambda: 1}, {}
    ),
    "link": Case(model, {"link": "probit"}, {"link": "identity"}),
    "family": Case(model, {"family": "logistc"}, {"family": "binomial"}),
    "family word": Case(model, {"family": "logit"}, {"family": "binomial"}),
    "family far": Case(model, {"family": "zzz"}, {"family": "gamma"}, fill={"family=": 'family="gamma"'}),
    "alpha": Case(model, {"family": "negativebinomial"}, {"family": sm.families.NegativeBinomial(alpha=1.0)}),
    "var_power": Case(model, {"family": "tweedie"}, {"family": sm.families.Tweedie(var_power=1.5)}),
    "tweedie": Case(
        model, {"family": sm.families.Tweedie(var_power=4)}, {"family": sm.families.Tweedie(var_power=1.5)}
    ),
    "calibrated link": Case(
        model,
        {"propensity_loss": "calibrated", "propensity_link": "probit"},
        {"propensity_loss": "calibrated", "propensity_link": "logit"},
    ),
    "calibrated overlap": Case(
        model, {"propensity_loss": "calibrated", "target": "overlap"}, {"propensity_loss": "ml", "target": "overlap"}
    ),
    "cbps": Case(model, {"propensity_loss": "cbps"}, {"propensity_loss": "calibrated"}),
    "entropy balancing": Case(
        model, {"propensity_loss": "entropy", "target": "ATT"}, {"propensity_loss": "calibrated", "target": "treated"}
    ),
    "loss far": Case(model, {"propensity_loss": "zzz"}, {"propensity_loss": "ml"}, fill={"loss=": 'loss="ml"'}),
    "target type": Case(model, {"target": 3}, {"target": "all"}),
    "target": Case(model, {"target": "treatd"}, {"target": "treated"}),
    "target far": Case(model, {"target": "zzz"}, {"target": "overlap"}, fill={"target=": 'target="overlap"'}),
    "groups without events": Expression(
        lambda: NO_EVENTS().equality_test("g"),
        lambda: NO_EVENTS().differences_by("g"),
        fill={"...": '"g"'},
        res=lambda: NO_EVENTS(),
    ),
    "trim": Case(model, {"trim": "crumpp"}, {"trim": "crump"}),
    "clip": Case(model, {"clip": "narrow"}, {"clip": (0.01, 0.99)}),
    "one limit": Case(model, {"clip": 0.025}, {"clip": (0.025, 0.975)}),
    "level of another type": Case(model, {"treat": "k", "reference": [1]}, {"treat": "k", "reference": 1}),
    "effect": Case(model, {"effect": "RR"}, {"effect": "ratio"}),
    "folds": Case(model, {"n_folds": 1}, {"n_folds": 2}),
    "probit of several": Case(
        lambda **o: model(**THREE, **o).fit(), {"propensity_link": "probit"}, {"propensity_link": "logit"}
    ),
    "percentages": Case(
        lambda **o: model(**o).fit(),
        {"family": "binomial", "formula": "share ~ x1"},
        {"family": "binomial", "formula": "I(share / 100) ~ x1"},
    ),
    "grams": Case(
        lambda **o: model(**o).fit(),
        {"family": "binomial", "formula": "y ~ x1"},
        {"family": "gaussian", "formula": "y ~ x1"},
    ),
    "one and two": Case(
        lambda **o: model(**o).fit(),
        {"family": "binomial", "formula": "ill12 ~ x1", "data": DATA.assign(ill12=DATA.ill + 1)},
        {"family": "binomial", "formula": "I(ill12 == 2) ~ x1", "data": DATA.assign(ill12=DATA.ill + 1)},
    ),
    "negative mean": Case(
        lambda **o: model(**o).fit(),
        {"formula": "I(y - 50) ~ x1", "effect": "ratio"},
        {"formula": "I(y - 50) ~ x1", "effect": "difference"},
    ),
    "constant arm": Case(
        lambda **o: model(**o).fit(),
        {"formula": "I(ill * d) ~ x1", "family": "binomial"},
        {"formula": "I(ill * d) ~ x1", "family": "gaussian"},
    ),
}
for name in ("percentages", "one and two"):
    MODEL[name].follow = lambda heard, case=MODEL[name]: case.call(
        **case.wrong | {"formula": heard.codes()[0].replace("...", "x1")}
    )
del MODEL["classifier class"], MODEL["constant arm"]
COUNTS = {"formula": "ill ~ x1", "family": "poisson"}
RATES = COUNTS | {"exposure": "u"}
EXPOSURE = {
    "offset of R": Case(model, COUNTS | {"formula": "ill ~ x1 + offset(log(u))"}, RATES),
    "offset of R first": Case(model, COUNTS | {"formula": "ill ~ offset(np.log(u)) + x1"}, RATES),
    "offset of R alone": Case(
        model, COUNTS | {"formula": "ill ~ offset(log(u))", "propensity": "x1"},
        RATES | {"formula": "ill ~ 1", "propensity": "x1"},
    ),
    "offset of R, a column": Case(model, COUNTS | {"formula": "ill ~ x1 + offset(x3)"}, COUNTS | {"offset": "x3"}),
    "offset of R, computed": Case(
        model, COUNTS | {"formula": "ill ~ offset(2 * (x3 - 1)) + x1"}, COUNTS | {"offset": 2 * (DATA.x3 - 1)}
    ),
    "offset of the propensity": Case(model, {"propensity": "x1 + offset(x3)"}, {"propensity": "x1"}),
    "exposure of zero": Case(model, COUNTS | {"exposure": "k"}, COUNTS | {"exposure": DATA.k.where(DATA.k > 0)}),
    "exposure of a difference": Case(
        lambda **o: model(**o).fit(), {"formula": "ill ~ x1", "exposure": "u", "family": "gaussian"}, RATES
    ),
    "exposure of a difference, log": Case(
        lambda **o: model(**o).fit(), {"formula": "positive ~ x1", "exposure": "u"},
        {"formula": "positive ~ x1", "exposure": "u", "link": "log"}, which=1,
    ),
    "at_exposure alone": Case(
        lambda **o: model(**o).fit(), COUNTS | {"at_exposure": 2}, RATES | {"at_exposure": 2}, fill={"<column>": "u"}
    ),
    "at_exposure word": Case(model, RATES | {"at_exposure": "asobserved"}, RATES | {"at_exposure": "observed"}),
    "at_exposure of nothing": Case(model, RATES | {"at_exposure": -1}, RATES | {"at_exposure": 1}),
    "AIPW at a stated exposure": Case(
        lambda **o: model(AIPW, **o).fit(), RATES | {"at_exposure": 1}, RATES | {"at_exposure": "observed"}
    ),
    "JRE at a stated exposure": Case(
        lambda **o: model(JRE, **o).fit(cov_type="robust", n_replicates=5), RATES, RATES | {"at_exposure": "observed"}
    ),
    "exposure of a target frame": Case(
        lambda **o: model(OutcomeRegression, target=DATA.head(50), **o).fit(),
        RATES | {"at_exposure": "observed"}, RATES | {"at_exposure": 1},
    ),
    "no events in an arm": Case(
        lambda **o: model(data=DATA.assign(ill=DATA.ill * DATA.d), **o).fit(), RATES,
        RATES | {"exposure": None, "family": "gaussian"},
    ),
    "exposure of new data": Case(
        lambda **o: model(**o).fit().predict(DATA[["x1"]]),
        RATES | {"at_exposure": "observed"}, RATES | {"at_exposure": 1},
    ),
    "diagnostic of residuals": Expression(
        lambda: model(**RATES).fit().sensitivity(), lambda: model(**RATES, at_exposure="observed").fit(),
        model=lambda: model(**RATES),
    ),
}  # fmt: skip
OF_FIT = {
    "cov_type": Case(fit, {"cov_type": "HC2"}, {"cov_type": "jackknife"}),
    "HC3 of clusters": Case(of(IPWRA, cluster="site"), {"cov_type": "HC3"}, {"cov_type": "CR3"}),
    "multiplier alone": Case(
        fit, {"multiplier": "webb", "n_boot": 20}, {"bootstrap": "multiplier", "multiplier": "webb", "n_boot": 20}
    ),
    "multiplier": Case(
        fit,
        {"bootstrap": "multiplier", "multiplier": "signs", "n_boot": 20},
        {"bootstrap": "multiplier", "multiplier": "rademacher", "n_boot": 20},
    ),
    "wild bootstrap": Case(fit, {"bootstrap": "wild", "n_boot": 20}, {"bootstrap": "multiplier", "n_boot": 20}),
    "null of p-values": Case(lambda **o: fit(n_boot=40).boot_pvalues(**o), {"null": "ATE"}, {"null": 0}),
    "nonrobust": Case(fit, {"cov_type": "nonrobust"}, {"cov_type": "robust"}),
    "bootstrap=True": Case(fit, {"bootstrap": True, "n_boot": 20}, {"cov_type": "bootstrap", "n_boot": 20}),
    "max_failed": Case(fit, {"max_failed": 2}, {"max_failed": 0.05}),
    "memory": Case(fit, {"memory": -1}, {"memory": 2e9}),
    "rng": Case(fit, {"rng": -1}, {"rng": 0}),
    "positional": Case(lambda *a, **o: model().fit(*a, **o), {}, {"cov_type": "HC1"}),
    "positional number": Case(lambda *a, **o: model().fit(*a, **o), {}, {"n_boot": 20}),
    "n_boot beside robust": Case(fit, {"cov_type": "robust", "n_boot": 20}, {"cov_type": "bootstrap", "n_boot": 20}),
    "rows of clusters": Case(of(IPWRA, cluster="site"), {"cov_type": "HC1"}, {"cov_type": "cluster"}),
    "df": Case(fit, {"df": 0}, {"use_t": True}),
    "series of time": Case(
        fit, {"cov_kwds": {"maxlags": 1}}, {"cov_kwds": {"groups": DATA.site}}, fill={'"id"': '"site"'}
    ),
    "pairs of clusters": Case(
        of(IPWRA, cluster="site"), {"bootstrap": "pairs", "n_boot": 20}, {"bootstrap": "cluster", "n_boot": 20}
    ),
    "negative multiplicities": Case(
        fit,
        {"resamples": -np.ones((N, 2)), "max_failed": 0.9},
        {"resamples": np.ones((N, 2)), "max_failed": 0.9},
        fill={"multiplicities": "np.ones((300, 2))"},
    ),
}
for name, given in (("positional", "HC1"), ("positional number", 20)):
    OF_FIT[name].provoke = lambda given=given: told(lambda: model().fit(given))
FIT_EXPRESSIONS = {
    "option of the model": Expression(
        lambda: fit(target="treated"),
        lambda: res_of(target="treated")(),
        fill={"from_formula(...": 'IPWRA.from_formula("y ~ x1 + x2", data, treat="d"'},
    ),
    "trim of the model": Expression(
        lambda: fit(trim=(0.1, 0.9)),
        lambda: res_of(trim=(0.1, 0.9))(),
        fill={"from_formula(...": 'IPWRA.from_formula("y ~ x1 + x2", data, treat="d"'},
    ),
    "weights of a fit": Expression(
        lambda: fit(sample_weight="positive"),
        lambda: res_of(weights="positive", weight_type="probability")(),
        fill={"from_formula(...": 'IPWRA.from_formula("y ~ x1 + x2", data, treat="d"'},
    ),
    "estimand that is a scale": Case(
        lambda **o: model(formula="positive ~ x1", **o).fit(), {"estimand": "RR"}, {"effect": "ratio"}
    ),
    "option of the fit": Expression(
        lambda: model(n_boot=20),
        lambda: fit(n_boot=20),
        fill={"from_formula(...": 'IPWRA.from_formula("y ~ x1 + x2", data, treat="d"'},
    ),
    "no treat": Expression(
        lambda: IPWRA.from_formula("y ~ x1 + x2", DATA), model, fill={"from_formula": "IPWRA.from_formula"}
    ),
    "formula to the constructor": Expression(lambda: IPWRA("y ~ x1 + x2", data=DATA, treat="d"), model),
    "text to the constructor": Expression(lambda: IPWRA("y ~ x1 + x2", DATA, "d"), model),
    "arrays that miss one": Expression(
        lambda: IPWRA(DATA.y, X), lambda: IPWRA(DATA.y, X, DATA.d), y=DATA.y, X=X, d=DATA.d
    ),
    "result of a model": Expression(
        lambda: model().effects_by,
        lambda: BY_G().effects_by("g"),
        model=lambda: model(formula="y ~ x1 + g"),
        fill={"effects_by(...)": 'effects_by("g")'},
    ),
    "jre option": Expression(
        lambda: fit(n_replicates=50),
        lambda: fit(JRE, n_replicates=50, n_boot=20),
        fill={
            "from_formula(...)": 'from_formula("y ~ x1 + x2", data, treat="d")',
            "n_replicates=...": "n_replicates=50, n_boot=20",
        },
    ),
    "jre attribute": Expression(
        lambda: res_of()().start,
        lambda: fit(JRE, n_boot=20),
        fill={"from_formula(...).fit()": 'from_formula("y ~ x1 + x2", data, treat="d").fit(n_boot=20)'},
    ),
    "two-way clusters resampled": Expression(
        lambda: model(JRE, cluster=["site", "town"]).fit(),
        lambda: model(JRE, cluster=["site", "town"]).fit(cov_type="cluster"),
        model=lambda: model(JRE, cluster=["site", "town"]),
        fill={"fit(": "model.fit("},
    ),
    "groups of no formula": Expression(
        lambda: fit(cov_kwds={"groups": "site"}),
        lambda: model(cluster="site").fit(),
        fill={"from_formula(...": 'IPWRA.from_formula("y ~ x1 + x2", data, treat="d"', "'site')": "'site').fit()"},
    ),
    "cluster without clusters": Expression(
        lambda: fit(cov_type="cluster"),
        lambda: model(cluster="site").fit(cov_type="cluster"),
        fill={
            "from_formula(...": 'IPWRA.from_formula("y ~ x1 + x2", data, treat="d"',
            '"column")': '"site").fit(cov_type="cluster")',
        },
    ),
}
RESULTS = {
    "ate": attribute("ate", lambda res: res.effect),
    "ate of several": attribute("ate", lambda res: res.params.iloc[0], **THREE),
    "effect of several": attribute("effect", lambda res: res.params.iloc[0], **THREE),
    "its error": attribute("effect_se", lambda res: res.bse.iloc[0], **THREE),
    "att": attribute("att", lambda res: res_of(target="treated")()),
    "alpha": Expression(
        lambda: res_of()().conf_int(95),
        lambda: res_of()().conf_int(),
        fill={"alpha=0.05": "res.conf_int(alpha=0.05)"},
        res=res_of(),
    ),
    "confidence for alpha": Expression(
        lambda: res_of()().conf_int(0.9),
        lambda: res_of()().conf_int(0.1),
        fill={"alpha=0.1": "res.conf_int(alpha=0.1)"},
        res=res_of(),
    ),
    "cols": Expression(
        lambda: res_of()().conf_int(cols=["ATT"]),
        lambda: res_of()().conf_int(cols=[0]),
        fill={"cols=['ATE']": "res.conf_int(cols=['ATE'])"},
        res=res_of(),
    ),
    "xname": Expression(
        lambda: res_of()().summary(xname=["a"]),
        lambda: res_of()().summary(),
        fill={"xname=['ATE', 'POM[0]', 'POM[1]']": "res.summary(xname=['ATE', 'POM[0]', 'POM[1]'])"},
        res=res_of(),
    ),
    "t_test": Expression(
        lambda: res_of()().t_test(np.eye(5)),
        lambda: str(res_of()().t_test("POM[1] - POM[0]")),
        fill={"res.t_test(": "str(res.t_test(", '")': '"))'},
        res=res_of(),
    ),
    "arm": Expression(
        lambda: res_of()().predict(DATA, arm="z"),
        lambda: res_of()().predict(DATA, arm=1),
        fill={"arm='1'": "res.predict(data, arm='1')"},
        res=res_of(),
    ),
    "no bootstrap": Expression(
        lambda: res_of()().boot_params,
        lambda: fit(cov_type="bootstrap").boot_params,
        fill={'model.fit(cov_type="bootstrap")': 'model.fit(cov_type="bootstrap").boot_params'},
        model=model,
    ),
    "no scores": Expression(
        lambda: res_of(OutcomeRegression)().propensity_scores,
        res_of(),
        fill={"from_formula(...)": 'from_formula("y ~ x1 + x2", data, treat="d")'},
    ),
    "scores given": Expression(
        lambda: res_of(propensity_score="score")().propensity_params,
        lambda: res_of(propensity_score="score")().propensity_scores,
        res=res_of(propensity_score="score"),
    ),
    "balance test": Expression(
        lambda: res_of(target="overlap")().balance_test(),
        lambda: res_of(target="overlap")().balance(),
        res=res_of(target="overlap"),
    ),
    "unit level": Expression(
        lambda: fit(JRE, n_boot=20).predict(DATA), lambda: res_of()().predict(DATA), res=lambda: fit(JRE, n_boot=20)
    ),
    "rho": Expression(
        lambda: res_of()().sensitivity_bounds(0.1, 0.1, rho=3),
        lambda: res_of()().sensitivity_bounds(0.1, 0.1, rho=1.0),
        fill={"rho=1": "res.sensitivity_bounds(0.1, 0.1, rho=1)"},
        res=res_of(),
    ),
    "shares": Expression(
        lambda: res_of()().sensitivity_bounds(3, 0.1),
        lambda: res_of()().sensitivity_bounds(0.03, 0.1),
        res=res_of(),
        fill={"cf_y=0.03": "res.sensitivity_bounds(0.03, 0.1)"},
    ),
    "groups by a classifier": Expression(
        lambda: CLASSIFIED().effects_by("g", DATA),
        lambda: CLASSIFIED().effects_by("g", DATA, n_boot=5),
        fill={"n_boot=99, progress=True": "res.effects_by('g', data, n_boot=5, progress=False)"},
        res=lambda: CLASSIFIED(),
    ),
    "group by many": Expression(
        lambda: res_of()().effects_by("x1"),
        lambda: res_of()().effects_by("~ x1"),
        fill={"effects_by": "res.effects_by"},
        res=res_of(),
    ),
    "group elsewhere": Expression(
        lambda: model(formula="y ~ x1 + x2", data=DATA[["y", "d", "x1", "x2"]]).fit().effects_by("g"),
        lambda: res_of()().effects_by("g", DATA),
        fill={"data=data": "res.effects_by('g', data=data)"},
        res=res_of(),
    ),
    "other rows": Expression(
        lambda: res_of()().effects_by("g", DATA.head(50)),
        lambda: res_of()().effects_by("g", DATA),
        fill={"data=": "res.effects_by('g', data)"},
        res=res_of(),
    ),
    "sorted rows": Expression(
        lambda: res_of()().effects_by("g", DATA.sort_values("x1").reset_index(drop=True)),
        lambda: res_of()().effects_by("g", DATA),
        fill={"data=": "res.effects_by('g', data)"},
        res=res_of(),
    ),
    "rows by other labels": Expression(
        lambda: res_of()().effects_by("g", DATA[["g"]].add_prefix("row ", axis=0)),
        lambda: res_of()().effects_by("g", DATA),
        fill={"data=data.reset_index(drop=True)": "res.effects_by('g', data=data.reset_index(drop=True))"},
        res=res_of(),
        data=DATA[["g"]].add_prefix("row ", axis=0),
    ),
    "pairs of columns": Expression(
        lambda: in_little_memory(model().fit, n_boot=5),
        lambda: model().fit(cov_type="robust"),
        fill={"fit(": "model.fit("},
        model=model,
    ),
    "pairs of columns, joint": Expression(
        lambda: in_little_memory(model(JRE).fit),
        lambda: model().fit(),
        fill={"IPWRA": 'IPWRA.from_formula("y ~ x1 + x2", data, treat="d").fit()'},
    ),
    "projection of a ratio": Expression(
        lambda: model(formula="positive ~ x1", effect="ratio").fit().effects_by("~ x1"),
        lambda: model(formula="positive ~ x1").fit().effects_by("~ x1"),
        fill={"effects_by(...)": 'effects_by("~ x1")'},
        model=lambda: model(formula="positive ~ x1", effect="ratio"),
    ),
    "estimators": Expression(
        lambda: compare(**GIVEN, estimators=["ipwraa"], n_boot=20),
        lambda: compare(**GIVEN, estimators=["IPWRA"], n_boot=20).table,
        fill={'estimators=["IPWRA"]': 'compare("y ~ x1 + x2", data, treat="d", estimators=["IPWRA"], n_boot=20).table'},
    ),
    "estimators, none near": Expression(
        lambda: compare(**GIVEN, estimators=["zzz"], n_boot=20),
        lambda: compare(**GIVEN, estimators=["AIPW"], n_boot=20).table,
        fill={"estimators=": 'compare("y ~ x1 + x2", data, treat="d", estimators=["AIPW"], n_boot=20).table'},
    ),
}


class Classifier:
    """A classifier whose scores are the arms' shares, or certain."""

    certain = False

    def fit(self, X, y):
        self.classes_, counts = np.unique(y, return_counts=True)
        self.shares = counts / len(y)
        return self

    def predict_proba(self, X):
        return np.tile([0.0, 1.0] if self.certain else self.shares, (len(X), 1))


class Certain(Classifier):
    """One whose scores are 0 and 1."""

    certain = True


NAMES |= {"Classifier": Classifier, "sklearn": sklearn}
NAMES |= {"CalibratedClassifierCV": CalibratedClassifierCV, "LinearSVC": LinearSVC}
ALONE = np.flatnonzero(DATA.d == 1)[0]
RARE = {  # one treated row of a level, without which a resample separates
    "formula": "y ~ x1",
    "propensity": "x1 + rare",
    "data": DATA.assign(rare=((DATA.d == 0) & (np.arange(N) < 40) | (np.arange(N) == ALONE)).astype(int)),
}
HALF = np.ones((N, 4))
HALF[DATA.d == 1, 2:] = 0  # half of the resamples lack an arm
SMALL = {"design": "strong", "n": [100], "n_sims": 3, "estimators": ["Hajek"]}


def study(**options):
    return causalrisk.simulation.run_study(**(SMALL | options)).table


def compared(**options):
    return compare(**(GIVEN | {"estimators": ["Hajek", "IPWRA"], "n_boot": 20} | options)).table


def fitted(**options):
    return model(**options).fit()


def two_way_jre():
    return model(JRE, cluster=["site", "town"]).fit(cov_type="cluster", n_replicates=20)


def _grid():
    """Firms in years, whose sums in either are next to nothing."""
    rows = np.arange(64)
    values = np.random.default_rng(2).normal(size=(8, 8))
    values -= values.mean(axis=0) + values.mean(axis=1)[:, None] - values.mean()
    return pd.DataFrame({"y": values.ravel(), "firm": rows // 8, "year": rows % 8, "d": (rows // 8 + rows % 8) % 2})


GRID = _grid()


def undefined():
    """Resamples that all drop the rows with the largest outcomes, so that the estimate lies outside."""
    drawn = np.ones((N, 300))
    drawn[(DATA.y > 0) & (DATA.d == 1)] = 0
    drawn += np.random.default_rng(0).multinomial(N, np.full(N, 1 / N), size=300).T * (drawn > 0)
    return model().fit(resamples=drawn)


SEMICOLONS = DATA.to_csv(sep=";", index=False)


def reported(assumptions):
    """The part of the page that holds the assumptions."""
    return page_with(*assumptions.items())


@functools.cache
def page_with(*assumptions):
    with tempfile.TemporaryDirectory() as folder:
        page = fit().report(Path(folder) / "page.html", assumptions=dict(assumptions)).read_text("utf-8")
    return re.search(r"(?s)<h2[^>]*>[^<]*[Aa]ssumption.*?</section>|Drawn\..{100}", page)[0]


def load_pickled(value):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "a.pickle").write_bytes(pickle.dumps(value))
        return causalrisk.load(Path(folder, "a.pickle"))


def crowded():
    """A model of eight coefficients for some 25 rows of an arm."""
    return IPWRA.from_formula("y ~ x1 * x2 * x3", DATA[:50], treat="d", propensity="d ~ x1")


MORE = {
    "classifier class": Case(fitted, {"propensity_score": Classifier}, {"propensity_score": Classifier()}),
    "certain classifier": Case(
        fitted, {"propensity_score": Certain()}, {"propensity_score": Certain(), "clip": (0.01, 0.99)}
    ),
    "few clusters": Expression(
        lambda: fitted(cluster=DATA.site % 5),
        lambda: model(cluster=DATA.site % 5).fit(use_t=True),
        model=lambda: model(cluster=DATA.site % 5),
        fill={"fit(": "model.fit("},
    ),
    "many coefficients": Expression(
        lambda: crowded().fit(),
        lambda: crowded().fit(small_sample=True, use_t=True),
        model=lambda: crowded(),
        fill={"fit(": "model.fit("},
    ),
    "negative variance of two-way clusters": Case(
        lambda cluster: Hajek.from_formula("y ~ 1", GRID, treat="d", propensity="1", cluster=cluster).fit(use_t=True),
        {"cluster": ["firm", "year"]},
        {"cluster": "firm"},
        fill={"cluster=": 'cluster="firm"'},
    ),
    "compared under two-way clusters": Case(compared, {"cluster": ["site", "town"]}, {"cluster": "site"}),
    "groups of jre under two-way clusters": Expression(
        lambda: two_way_jre().effects_by(DATA.g),
        lambda: two_way_jre().start.effects_by(DATA.g),
        res=lambda: two_way_jre(),
        fill={"...": "data.g"},
    ),
    "constant in an arm": Case(
        fitted,
        {"formula": "z ~ x1", "data": DATA.assign(z=DATA.ill * DATA.d), "family": "binomial"},
        {"formula": "z ~ x1", "data": DATA.assign(z=DATA.ill * DATA.d), "family": "gaussian"},
    ),
    "predicted in an arm": Case(
        fitted,
        {"formula": "z ~ x1", "data": DATA.assign(z=1 * (DATA.x1 > 0)), "family": "binomial"},
        {"formula": "z ~ x1", "data": DATA.assign(z=1 * (DATA.x1 > 0)), "family": "gaussian"},
    ),
    "groups of a frame": Expression(
        lambda: fitted(target=DATA.head(150)).effects_by("x1"),
        lambda: fitted(target=DATA[DATA.g == "a"]),
        fill={"target=": 'IPWRA.from_formula("y ~ x1 + x2", data, treat="d", target=data[data.g == "a"]).fit()'},
    ),
    "tails": Expression(
        lambda: fit(n_boot=20).conf_int(method="percentile"),
        lambda: fit(n_boot=200),
        model=model,
        fill={"fit(": "model.fit("},
    ),
    "bias-corrected": Expression(
        lambda: undefined().conf_int(method="bc"),
        lambda: undefined().conf_int(method="percentile"),
        res=undefined,
        fill={"conf_int": "res.conf_int"},
    ),
    "studentized": Expression(
        lambda: undefined().conf_int(method="studentized"),
        lambda: undefined().conf_int(method="bca"),
        res=undefined,
        fill={"conf_int": "res.conf_int"},
    ),
    "shape": Case(
        fit,
        {"resamples": np.ones((5, 2)), "max_failed": 0.9},
        {"resamples": np.ones((N, 2)), "max_failed": 0.9},
        fill={"multiplicities": "np.ones((300, 2))"},
    ),
    "failed": Expression(
        lambda: fit(resamples=HALF),
        lambda: fit(resamples=HALF, max_failed=0.51),
        model=model,
        HALF=HALF,
        fill={"fit(": "model.fit(resamples=HALF, "},
    ),
    "failed in a comparison": Case(
        lambda **o: compare(**GIVEN, estimators=["Hajek", "IPWRA"], **o).table,
        {"resamples": HALF},
        {"resamples": HALF, "max_failed": 0.51},
    ),
    "rows drawn": Expression(
        lambda: model(**RARE).fit(n_boot=20),
        lambda: model(**RARE).fit(bootstrap="bayesian", n_boot=20),
        model=lambda: model(**RARE),
        fill={"fit(": "model.fit(n_boot=20, "},
    ),
    "rows drawn, and left out": Expression(
        lambda: model(**RARE).fit(n_boot=20),
        lambda: model(**RARE).fit(max_failed=0.99, n_boot=20),
        which=1,
        model=lambda: model(**RARE),
        fill={"fit(": "model.fit(n_boot=20, "},
    ),
    "rows weighted": Case(
        lambda **o: JRE.from_formula(treat="d", **RARE).fit(n_boot=20, **o),
        {},
        {"bootstrap": "bayesian"},
    ),
    "rows drawn in a comparison": Case(
        lambda **o: compare(**RARE, treat="d", n_boot=20, estimators=["Hajek", "IPWRA"], **o).table,
        {},
        {"bootstrap": "bayesian"},
    ),
    "load": Expression(
        lambda: causalrisk.load(__file__),
        lambda: Path("x"),
        res=res_of(),
        fill={f"res.save({__file__!r})": "pd.io.common.Path('x')"},
    ),
    "score note": Expression(
        lambda: "\n".join(fitted(propensity_score=Classifier()).summary().notes),
        lambda: model(propensity_score=Classifier()).fit(cov_type="bootstrap", n_boot=20),
        model=lambda: model(propensity_score=Classifier()),
        fill={"fit(": "model.fit(n_boot=20, "},
    ),
    "name": Expression(lambda: causalrisk.ipwra, lambda: IPWRA),
    "name of Stata's": Expression(lambda: causalrisk.RA, lambda: OutcomeRegression),
    "load another": Expression(lambda: load_pickled({}), lambda: None),
    "assumption": Case(
        reported,
        {"assumptions": {"ignorability": "Drawn."}},
        {"assumptions": {"unconfoundedness": "Drawn."}},
        fill={"...": "Drawn."},
    ),
    "assumption far": Case(
        reported,
        {"assumptions": {"zzz": "Drawn."}},
        {"assumptions": {"no_interference": "Drawn."}},
        fill={"assumptions=": 'assumptions={"no_interference": "Drawn."}'},
    ),
    "separator": Expression(
        lambda: model(data=pd.read_csv(io.StringIO(SEMICOLONS))),
        lambda: pd.read_csv(io.StringIO(SEMICOLONS), sep=";"),
        fill={"...": "text"},
        text=io.StringIO(SEMICOLONS),
    ),
    "no design": Case(study, {"design": []}, {"design": "strong"}),
    "design": Case(study, {"design": "strng"}, {"design": "strong"}),
    "design far": Case(study, {"design": "zzz"}, {"design": "linear"}, fill={"design=": 'design="linear"'}),
    "lambda": Case(
        study, {"estimators": [lambda trial: (0.0, 1.0)], "n_jobs": 2, "n_sims": 60}, {"estimators": [], "n_jobs": 1}
    ),
    "four cells": Case(
        lambda **o: causalrisk.simulation.four_cells(**{"n": 100, "n_sims": 2, "estimators": ["Hajek"]} | o).table,
        {"design": "linear"},
        {"design": "doubly_wrong"},
    ),
    "power": Case(
        lambda **o: causalrisk.simulation.power(causalrisk.simulation.run_study(**SMALL), **o),
        {"target": 80},
        {"target": 0.8},
    ),
    "calibration bins": Case(
        lambda **o: rms_calibration_error(np.full(9, 0.5), np.ones(9), **o),
        {"binning": "published"},
        {"binning": "all"},
    ),
}
for name in ("load", "load another"):  # what to save is the user's
    MORE[name].follow = MORE[name].outcome = lambda *_: None
MORE["lambda"].follow = MORE["lambda"].outcome = lambda *_: None


def joint(**fixed):
    """A fit of the joint estimator, quick, as a function of further options of fit."""
    binary = {"formula": "ill ~ x1 + x2", "family": "binomial"} if fixed.pop("binary", False) else {}
    return lambda **o: model(JRE, **binary).fit(**{"cov_type": "robust", "n_replicates": 20} | fixed | o)


def joint_model(**options):
    """Expressions that begin with `fit(` are typed after this."""
    return {"fill": {"fit(": "model.fit(cov_type='robust', "}, "model": lambda: model(JRE, **options)}


def imputed(**options):
    models = [model(data=DATA.assign(x2=DATA.x2 + shift * DATA.x3)) for shift in (0, 0.01)]
    return causalrisk.pool([m.fit() for m in models], **options).params


def in_folder(call):
    """What a call writes, in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        call()
        return [path.name for path in Path().iterdir()]


def saved(name):
    return lambda **typed: in_folder(lambda: fit().summary().save(typed.get("path", name)))


COMBINED = {"models": [model(), model()], "pool": lambda results: len(results)}
TABLES = {"etable": lambda results: str(causalrisk.etable(results))}
FURTHER = {  # of covariates, tables and pooling
    "two-sided covariates": Case(
        lambda **o: fit().balance(data=DATA, **o), {"also": "y ~ x3"}, {"also": "~ x3"}, fill={'"~': 'also="~'}
    ),
    "no covariates": Case(
        lambda **o: causalrisk.table_one(**{"data": DATA, "by": "d"} | o).frame,
        {"covariates": []},
        {"covariates": ["x1"]},
        fill={'["age"]': 'covariates=["x1"]'},
    ),
    "covariates without data": Case(
        lambda **o: fit().balance(**o), {"also": "~ x3"}, {"also": "~ x3", "data": DATA}, fill={"data=": "data=data"}
    ),
    "threshold": Case(lambda **o: fit().balance(**o), {"threshold": -1}, {"threshold": 0.1}),
    "groups by formula": Case(
        lambda **o: fit().balance(data=DATA, **o), {"by": "~ x1 + x2"}, {"by": "g"}, fill={"sex": "g"}
    ),
    "nonlinear hypothesis": Expression(
        lambda: fit().t_test("POM[1] / POM[0]"),
        lambda: str(fit().nlcom("POM[1] / POM[0]")),
        fill={"res.nlcom": "str(res.nlcom"} | {"POM[0]'": "POM[0]')"},
        res=res_of(),
    ),
    "power of a parameter": Expression(
        lambda: fit().nlcom("POM[1]^2"),
        lambda: str(fit().nlcom("POM[1]**2")),
        fill={"**": "str(res.nlcom('POM[1]**2'))"},
        res=res_of(),
    ),
    "arm of a contrast": Case(lambda **o: fit().influence(**o), {"arm": 0}, {"arm": 1}),
    "differences along a line": Expression(
        lambda: fit().differences_by("~ x1"),
        lambda: str(fit().effects_by("~ x1")),
        effects_by=lambda by: str(fit().effects_by(by)),
    ),
    "nothing to pool": Expression(lambda: causalrisk.pool([3, 4]), lambda: 2, **COMBINED),
    "one to pool": Expression(lambda: causalrisk.pool([fit()]), lambda: 2, **COMBINED),
    "degrees of freedom": Case(imputed, {"df_complete": -1}, {"df_complete": np.inf}, fill={"numpy": "np"}),
    "resamples of text": Case(
        fit,
        {"resamples": "abc", "max_failed": 0.9},
        {"resamples": np.ones((N, 2)), "max_failed": 0.9},
        fill={"multiplicities": "np.ones((300, 2))"},
    ),
    "extra of a table": Case(
        lambda **o: str(causalrisk.etable([fit()], **o)),
        {"extra": {"Study": ["a", "b"]}},
        {"extra": {"Study": ["a"]}},
        fill={"['']": "['a']"},
    ),
    "names of a table": Case(
        lambda **o: str(causalrisk.etable([fit()], **o)), {"names": ["a", "b"]}, {"names": ["(1)"]}
    ),
    "no columns": Expression(
        lambda: causalrisk.etable([]), lambda: str(causalrisk.etable([fit()])), res=res_of(), **TABLES
    ),
    "a number as columns": Expression(
        lambda: causalrisk.etable(3), lambda: str(causalrisk.etable([fit()])), res=res_of(), **TABLES
    ),
    "rows of a table": Case(
        lambda **o: str(causalrisk.etable([fit()], **o)), {"notes": "All rows."}, {"notes": ["All rows."]}
    ),
    "reference of a table": Case(
        lambda **o: causalrisk.table_one(["x1"], DATA, by="drug", **o).frame,
        {"reference": "none"},
        {"reference": "drug"},
    ),
    "treated of several groups": Case(
        lambda **o: causalrisk.table_one(["x1"], DATA, by="dose", **o).frame,
        {"treated": "none"},
        {"reference": "high"},
    ),
    "levels of a table": ManyLevels(
        [f"l{i % 20}" if i < 40 else f"l{i}" for i in range(N)],
        [f"l{i % 20}" if i < 40 else "other" for i in range(N)],
        call=lambda data: causalrisk.table_one(["x2"], data, by="d").frame,
    ),
    "clusters left out": Case(lambda **o: fit().influence(**o), {"clusters": True}, {"clusters": False}),
    "label of LaTeX": Case(
        lambda **o: causalrisk.etable([fit()]).as_latex(**o), {"label": "tab}{1"}, {"label": "tab-1"}
    ),
    "ending of a summary": Expression(
        lambda: fit().summary().save("a.doc"),
        lambda: ["a.docx"],
        save=lambda path: saved(path)(),
    ),
    "folder of a summary": Expression(
        lambda: fit().summary().save("no/such/a.txt"),
        lambda: ["a.txt"],
        save=lambda path: saved(path)(),
    ),
    "options of an entry": Case(
        study, {"estimators": {"JRE erm": ("JRE", 3)}}, {"estimators": {"JRE erm": ("JRE", {"objective": "erm"})}}
    ),
}
JOINT = {
    "no anchor chosen": Expression(
        lambda: joint(anchor=3.0)().anchor_path(), lambda: model(JRE).fit(cov_type="robust"), **joint_model()
    ),
    "no penalty": Expression(
        lambda: joint()().penalty_path(),
        lambda: str(joint()().anchor_path()),
        fill={"res.anchor_path()": "str(res.anchor_path())"},
        res=joint(),
    ),
    "no penalty, the other objective": Expression(
        lambda: joint()().penalty_path(),
        lambda: str(joint(objective="erm")().penalty_path()),
        which=1,
        fill={"fit(": "str(fit("} | {"penalty_path()": "penalty_path())"},
        fit=joint(),
    ),
    "method": Case(joint(binary=True, anchor=3.0), {"method": "least_squares"}, {"method": "trust-exact"}),
    "spread": Case(joint(), {"spread": 2}, {"spread": 0.5}),
    "anchor of the other objective": Case(
        joint(), {"anchor": 3.0, "objective": "erm"}, {"anchor": 3.0, "objective": "risk"}
    ),
    "anchor": Case(joint(), {"anchor": -3}, {"anchor": 3}),
    "share": Case(joint(), {"share": 1.5}, {"share": 1}),
    "share of the other objective": Case(joint(), {"share": 1, "objective": "erm"}, {"share": 1, "objective": "risk"}),
    "Monte Carlo": Expression(
        joint(objective="erm"), lambda: joint(objective="erm", n_replicates=100)(), fit=joint(objective="erm")
    ),
    "level of the arm means": Expression(
        lambda: joint()().nlcom("POM[1] / POM[0]"),
        lambda: str(joint()().start.nlcom("POM[1] / POM[0]")),
        fill={"res.start.nlcom()": "str(res.start.nlcom('POM[1] / POM[0]'))"},
        res=joint(),
    ),
}


HABITS = {  # of Stata, R and statsmodels
    "if": Case(model, {"formula": "y ~ x1 if x2 > 0"}, {"formula": "y ~ x1", "data": DATA[DATA.x2 > 0]}),
    "list of the propensity": Case(
        model, {"propensity": "x1 x2, probit"}, {"propensity": "x1 + x2", "propensity_link": "probit"}
    ),
    "no formula": Case(model, {"formula": "y x1 x2"}, {"formula": "y ~ x1 + x2"}),
    "weights' formula": Case(model, {"formula": "d ~ x1"}, {"formula": "y ~ x1"}, fill={'"<outcome>': 'formula="y'}),
    "tmle's order": Case(
        lambda **o: IPWRA(**o),
        {"endog": DATA.y, "exog": DATA.d, "treat": X},
        {"endog": DATA.y, "exog": X, "treat": DATA.d},
        fill={"endog=y, exog=X, treat=d": 'endog=data.y, exog=data[["x1", "x2"]].assign(const=1.0), treat=data.d'},
    ),
    "name without data": Case(
        lambda **o: IPWRA(DATA.y, X, **o), {"treat": "d"}, {"treat": DATA.d}, fill={"data": "treat=data"}
    ),
    "in the index": Case(
        model, {"data": DATA.set_index(["x1"])}, {"data": DATA}, fill={"data.": "data.set_index('x1')."}
    ),
    "group inside": Case(lambda **o: str(BY_G().effects_by(**o)), {"by": "C(g)"}, {"by": "g"}),
    "one row": Expression(
        lambda: fit().predict({"x1": 1.0, "x2": 2.0}),
        lambda: fit().predict(pd.DataFrame({"x1": [1.0], "x2": [2.0]})),
        fill={"pandas.DataFrame([data])": "res.predict(pandas.DataFrame([{'x1': 1.0, 'x2': 2.0}]))"},
        res=res_of(),
    ),
    "confint": Case(lambda **o: fit().conf_int(**o), {"alpha": "ATE"}, {"cols": ["ATE"]}),
    "predict a statistic": Expression(lambda: fit().predict("te"), lambda: fit().potential_outcomes, res=res_of()),
    "teffects": Case(
        model,
        {"formula": "(y x1 x2) (d x1, probit)"},
        {"formula": "y ~ x1 + x2", "treat": "d", "propensity": "x1", "propensity_link": "probit"},
    ),
    "teffects without treat": Case(
        lambda **o: IPWRA.from_formula(data=DATA, **o),
        {"formula": "(y x1) (d x2)"},
        {"formula": "y ~ x1", "treat": "d", "propensity": "x2"},
    ),
    "treatment with covariates": Case(model, {"treat": "d x1 x2"}, {"treat": "d", "propensity": "x1 + x2"}),
    "treatment by a condition": Case(model, {"treat": "k > 0"}, {"treat": DATA.k > 0}),
    "treatment in a list": Case(model, {"treat": ["d"]}, {"treat": "d"}),
    "treatment of more rows": Expression(
        lambda: model(data=POSITIVE, treat=DATA.d), lambda: POSITIVE.d, values=DATA.d, data=POSITIVE
    ),
    "options after a comma": Case(
        model, {"propensity": "x1 + x2, probit"}, {"propensity": "x1 + x2", "propensity_link": "probit"}
    ),
    "weights in a formula": Case(
        model,
        {"formula": "y ~ x1 [pw=w]"},
        {"formula": "y ~ x1", "weights": "w", "weight_type": "probability"},
    ),
    "data of a fit": Expression(
        lambda: IPWRA(DATA.y, X, DATA.d).fit(X, DATA.y), lambda: IPWRA(DATA.y, X, DATA.d).fit(), y=DATA.y, X=X, d=DATA.d
    ),
    "whole float": Case(fit, {"n_boot": 2e1}, {"n_boot": 20}),
    "below": Case(lambda **o: str(causalrisk.etable([fit()], **o)), {"below": "t"}, {"below": "z"}),
    "numbers of a table": Expression(
        lambda: causalrisk.etable([fit()]).to_dict,
        lambda: causalrisk.etable([fit()]).frame.to_dict(),
        table=causalrisk.etable([fit()]),
        fill={"to_dict": "to_dict()"},
    ),
    "compare fits": Expression(
        lambda: compare(fit(), fit()),
        lambda: causalrisk.etable([fit(), fit()]),
        fill={"etable": "causalrisk.etable"},
        res1=fit(),
        res2=fit(),
    ),
    "data alone": Expression(
        lambda: causalrisk.table_one(DATA, by="d"),
        lambda: causalrisk.table_one(["x1", "x2"], DATA, by="d"),
        fill={"table_one": "causalrisk.table_one"},
    ),
    "data first": Case(
        lambda **o: causalrisk.table_one(by="d", **o),
        {"covariates": DATA, "data": ["x1"]},
        {"covariates": ["x1"], "data": DATA},
    ),
    "groups behind a bar": Case(
        lambda **o: causalrisk.table_one(data=DATA, **o),
        {"covariates": "~ x1 + x2 | d"},
        {"covariates": "~ x1 + x2", "by": "d"},
    ),
    "data set": Expression(lambda: causalrisk.load_tutoring, lambda: causalrisk.datasets.load_tutoring()),
    "data set without load": Expression(
        lambda: causalrisk.datasets.tutoring, lambda: causalrisk.datasets.load_tutoring()
    ),
    "predict, an arm": Expression(lambda: fit().predict(DATA, "te"), lambda: fit().potential_outcomes, res=res_of()),
    "several in a table": Expression(
        lambda: causalrisk.etable(fit(), fit()),
        lambda: str(causalrisk.etable([fit(), fit()])),
        res1=fit(),
        res2=fit(),
        fill={"etable([res1, res2])": "str(causalrisk.etable([res1, res2]))"},
    ),
    "hypothesis": Expression(
        lambda: fit().t_test("x1 = 0"),
        lambda: str(fit().t_test("ATE = 0")),
        res=res_of(),
        fill={'"ATE = 0"': 'str(res.t_test("ATE = 0"))'},
    ),
    "direction": Expression(
        lambda: fit().t_test("ATE < 1"),
        lambda: str(fit().t_test("ATE = 1", alternative="smaller")),
        res=res_of(),
        fill={"res.t_test(": "str(res.t_test(", '"smaller")': '"smaller"))'},
    ),
    "no limit": equivalence(lambda res: res.equivalence_test(), -10, 10),
    "limit as text": equivalence(lambda res: res.equivalence_test("-10", 10), -10, 10),
    "limit of a ratio": equivalence(
        lambda res: res.equivalence_test(-0.2, 0.2), 0.8, 1.25, formula="positive ~ x1", effect="ratio"
    ),
    "limits turned": equivalence(lambda res: res.equivalence_test(3, -3), -3, 3),
    "limits and a value": Expression(
        lambda: fit().equivalence_test(-3, 3, "POM[1] = 1"),
        lambda: str(fit().equivalence_test(-3, 3, "POM[1]")),
        res=res_of(),
        fill={"res.equivalence_test(": "str(res.equivalence_test(", "'POM[1]')": "'POM[1]'))"},
    ),
    "against": Expression(
        lambda: fit().pairwise(against="z"),
        lambda: fit().pairwise(against=0),
        res=res_of(),
        fill={"against='0'": "res.pairwise(against='0')"},
    ),
    "values of a curve": Expression(
        lambda: fit(AIPW).effects_by("~ x1 + x2", at=[0.0]),
        lambda: fit(AIPW).effects_by("~ x1 + x2", at={"x1": [0.0], "x2": [1.0]}),
        res=res_of(AIPW),
        fill={"at=": 'res.effects_by("~ x1 + x2", at=', "'x1': [...], 'x2': [...]})": "'x1': [0.0], 'x2': [1.0]}))"},
    ),
    "curve": Expression(
        lambda: fit(AIPW).plot_effects_by("~ x1 + x2"),
        lambda: Axes,
        res=res_of(AIPW),
        fill={'res.plot_effects_by("~ bs(x, df=4)")': 'type(res.plot_effects_by("~ x1"))'},  # whose band is quick
    ),
    "simultaneous of what is no fit": at_once(lambda: causalrisk.simultaneous([DATA])),
    "simultaneous of nothing": at_once(lambda: causalrisk.simultaneous([])),
    "simultaneous of other rows": Expression(
        lambda: two_outcomes(DATA.assign(positive=DATA.positive.mask(DATA.positive > 2))),
        lambda: two_outcomes(DATA[DATA.positive <= 2]),
        data=DATA.assign(positive=DATA.positive.mask(DATA.positive > 2)),
        two_outcomes=lambda data: two_outcomes(data),
        fill={"data=data.dropna(subset=['y', 'positive'])": "two_outcomes(data=data.dropna(subset=['y', 'positive']))"},
    ),
    "expression": Expression(
        lambda: fit().nlcom("_b[x1]"),
        lambda: str(fit().nlcom("POM[1] / POM[0] - 1")),
        res=res_of(),
        fill={'"POM[1] / POM[0] - 1"': 'str(res.nlcom("POM[1] / POM[0] - 1"))'},
    ),
    "regressor": Case(
        fitted,
        {"propensity_score": LinearRegression()},
        {"propensity_score": sklearn.linear_model.LogisticRegression()},
    ),
    "tilt": Case(fitted, {"target": lambda e: e * np.nan}, {"target": lambda e: ((e > 0.1) & (e < 0.9)) * 1.0}),
    "grid": Expression(
        lambda: joint(objective="erm")().penalty_path(grid=-1),
        lambda: joint(objective="erm")().penalty_path([0, 100, 10000]),
        res=joint(objective="erm"),
        fill={"grid=[0, 100, 10000]": "res.penalty_path(grid=[0, 100, 10000])"},
    ),
    "two formulas": Expression(lambda: IPWRA.from_formula("y ~ x1 + x2", "d ~ x1 + x2", DATA), model),
    "treat by position": Case(lambda *a, **o: IPWRA.from_formula("y ~ x1 + x2", DATA, *a, **o), {}, {"treat": "d"}),
    "to_latex": Expression(
        lambda: fit().summary().to_latex(), lambda: fit().summary().as_latex(), table=fit().summary()
    ),
    "no such attribute": Expression(lambda: fit().nothing_at_all, lambda: dir(fit()), res=res_of()),
    "estimator of a model": Expression(
        lambda: model().ipw_ra, fit, fill={"from_formula(...)": 'from_formula("y ~ x1 + x2", data, treat="d")'}
    ),
    "levels of stars": Case(lambda **o: str(causalrisk.etable([fit()], **o)), {"stars": (0.05, 0.01)}, {"stars": True}),
    "report as PDF": Expression(
        lambda: in_folder(lambda: fit().report("a.pdf")),
        lambda: ["a.html"],
        in_folder=in_folder,
        fill={'res.report("a.html")': 'in_folder(lambda: fit().report("a.html"))'},
        fit=fit,
    ),
    "estimand of a fit": Expression(
        lambda: fit(estimand="ATT"),
        lambda: fitted(target="ATT"),
        fill={"from_formula(...": 'IPWRA.from_formula("y ~ x1 + x2", data, treat="d"'},
    ),
    "levels of an average": Case(
        of_quantiles, {"effect": "difference", "quantiles": 0.5}, {"effect": "quantile", "quantiles": 0.5}
    ),
    "levels in percent": Case(of_quantiles, {"quantiles": 50}, {"quantiles": [0.25, 0.5, 0.75]}),
    "quantiles of 0 and 1": Case(
        of_quantiles, {"formula": "ill ~ x1"}, {"formula": "ill ~ x1", "effect": "difference"}
    ),
    "quantiles left out one by one": Case(
        lambda cov_type: model(AIPW, effect="quantile").fit(
            cov_type=cov_type, n_boot=20 if cov_type == "bootstrap" else None
        ),
        {"cov_type": "jackknife"},
        {"cov_type": "bootstrap"},
    ),
    "quantiles of means": Expression(
        lambda: fitted(effect="quantile"),
        lambda: model(AIPW),
        fill={"AIPW.from_formula(...)": "made"},
        made=model(AIPW),
    ),
    "means of a fit of quantiles": Expression(
        lambda: of_quantiles().effects_by("g"), lambda: fit(AIPW), res=of_quantiles
    ),
    "studentized quantiles": Expression(
        lambda: of_quantiles(n_boot=20).conf_int(method="studentized"),
        lambda: of_quantiles(n_boot=20).conf_int(method="percentile"),
        fill={"conf_int": "res.conf_int"},
        res=lambda: of_quantiles(n_boot=20),
    ),
    "quantiles of shared values": Expression(
        lambda: of_quantiles(formula="I(y.round()) ~ x1"),
        lambda: of_quantiles(formula="I(y.round()) ~ x1").distribution(),
        res=lambda: of_quantiles(formula="I(y.round()) ~ x1"),
    ),
    "grid of a distribution": Expression(
        lambda: of_quantiles().distribution("all"),
        lambda: of_quantiles().distribution([float(f"{DATA.y.median():.4g}")]),
        fill={"grid=": "res.distribution(grid=", "]": "])"},
        res=of_quantiles,
    ),
    "quantile of the weights": Case(model, {"trim": 0.99}, {"clip": (0.01, 0.99)}),
    "quantile of the weights, rows": Case(model, {"trim": 0.99}, {"trim": (0.01, 0.99)}, which=1),
    "upper limit": Case(model, {"clip": 0.97}, {"clip": (0.03, 0.97)}),
    "predict under a treatment": Expression(
        lambda: fit().predict(DATA.assign(d=1)),
        lambda: fit().potential_outcomes["1"],
        res=res_of(),
        fill={"arm='1'": "res.predict(data, arm='1')"},
    ),
    "classifier as a formula": Case(
        lambda **o: fitted(**o).effect,
        {"propensity": Classifier()},
        {"propensity_score": Classifier()},
        fill={"propensity_score=": "propensity=None, propensity_score=Classifier()"},
    ),
    "target by a condition": Case(model, {"target": DATA.x1 > 0}, {"target": POSITIVE}, fill={"...": "data.x1 > 0"}),
    "target by a text": Case(model, {"target": "x1 > 0"}, {"target": POSITIVE}),
    "groups by a condition": Case(lambda **o: str(fit().effects_by(**o)), {"by": "x1 > 0"}, {"by": DATA.x1 > 0}),
}
HABITS["if"].follow = lambda heard: model(
    formula="y ~ x1", data=eval(heard.codes()[0].partition("=")[2], {"data": DATA})
)
HABITS["treat by position"].provoke = lambda: told(lambda: IPWRA.from_formula("y ~ x1 + x2", DATA, "d"))
HABITS["no formula"].follow = lambda heard: model(formula=re.search('"(.*?)"', heard.codes()[0])[1])


@functools.cache
def run_command(arguments):
    """What a command says and writes."""
    out, err = io.StringIO(), io.StringIO()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path("data.csv").write_text(DATA.head(150).to_csv(index=False))
        Path("latin.csv").write_bytes(DATA.head(150).rename(columns={"x1": "größe"}).to_csv().encode("latin-1"))
        DATA.head(150).to_csv("semicolon.csv", sep=";", index=False)
        notes = np.where(np.arange(150) > 9, "late, by hand", "")
        DATA.head(150).assign(note=notes).to_csv("ragged.csv", sep=";", index=False)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(list(arguments))
        written = [Path(name).read_text() for name in ("a.html", "a.txt") if Path(name).exists()]
    return code, out.getvalue(), err.getvalue(), written


@dataclass
class Command(Case):
    """A command that is refused; what to type replaces options of the same name, or is added."""

    def __init__(self, wrong, meant, which=0, fill=None):
        super().__init__(None, {}, {}, which, fill)
        self.refused, self.right = wrong, meant

    def run(self, arguments):
        """Run a command, the same one once."""
        return run_command(tuple(arguments))

    def provoke(self):
        heard = told(lambda: run_command.__wrapped__(self.refused)[2])  # what it goes through is seen
        assert heard.message, self.refused
        return heard

    def follow(self, heard):
        code = heard.codes()[self.which]
        for text, own in (self.fill or {}).items():
            assert text in code, (text, code)
            code = code.replace(text, own)
        typed, arguments = shlex.split(code), list(self.refused)
        if typed[0].startswith("--") and typed[0] in arguments:
            place = arguments.index(typed[0])
            arguments[place : place + 2] = typed
        elif typed[0].startswith("--"):
            arguments += typed
        else:
            arguments[1] = typed[0]
        return self.run(arguments)

    def outcome(self):
        found = self.run(self.right)
        assert found[0] == 0
        return found


FIT = ["fit", "data.csv", "y ~ x1", "--treat", "d", "--estimator", "IPWRA"]
SIMULATE = ["simulate", "strong", "--n-sims", "2", "--estimators", "Hajek"]
COMMANDS = {
    "jre": Command(
        [*FIT, "--anchor", "3"], ["fit", "data.csv", "y ~ x1", "--treat", "d", "--estimator", "JRE", "--anchor", "3"]
    ),
    "estimator": Command([*FIT[:-1], "ipwr"], FIT),
    "over the data": Command([*FIT, "--output", "data.csv"], [*FIT, "--output", "data-results.txt"]),
    "sizes": Command([*SIMULATE, "--n", "few"], [*SIMULATE, "--n", "500"]),
    "ending": Command([*FIT, "--output", "a.doc"], [*FIT, "--output", "a.txt"]),
    "folder": Command([*FIT, "--output", "no/a.txt"], [*FIT, "--output", "a.txt"]),
    "below": Command([*FIT, "--balance", "--output", "a.tex"], [*FIT, "--balance", "--output", "a.html"]),
    "misspelt": Command(["fit", "dtaa.csv", *FIT[2:]], FIT),
    "a folder": Command(["fit", "..", *FIT[2:]], FIT, fill={"../ and the name of the file in it": "data.csv"}),
    "no folder": Command(["fit", "no/data.csv", *FIT[2:]], FIT, fill={"the path of the file as": "data.csv"}),
    "encoding": Command(
        ["fit", "latin.csv", "y ~ größe", *FIT[3:]],
        ["fit", "latin.csv", "y ~ größe", *FIT[3:], "--encoding", "latin-1"],
    ),
    "no encoding": Command([*FIT, "--encoding", "latin-99"], [*FIT, "--encoding", "utf-8"]),
    "separator": Command(["fit", "semicolon.csv", *FIT[2:]], ["fit", "semicolon.csv", *FIT[2:], "--sep", ";"]),
    "ragged": Command(["fit", "ragged.csv", *FIT[2:]], ["fit", "ragged.csv", *FIT[2:], "--sep", ";"]),
    "levels": Command([*FIT, "--levels", "no,yes"], [*FIT, "--levels", "0=control,1=treated"]),
    "text": Command([*FIT, "--treat", "drug", "--treated", "drg"], [*FIT, "--treat", "drug", "--treated", "drug"]),
    "assumption": Command(
        ["report", *FIT[1:], "-o", "a.html", "--assumption", "Drawn by lot"],
        ["report", *FIT[1:], "-o", "a.html", "--assumption", "unconfoundedness=..."],
    ),
    "assumption of another name": Command(
        ["report", *FIT[1:], "-o", "a.html", "--assumption", "ignorability=..."],
        ["report", *FIT[1:], "-o", "a.html", "--assumption", "unconfoundedness=..."],
    ),
    "assumption far": Command(
        ["report", *FIT[1:], "-o", "a.html", "--assumption", "zzz=..."],
        ["report", *FIT[1:], "-o", "a.html", "--assumption", "unconfoundedness=..."],
        fill={"--assumption": "--assumption unconfoundedness=..."},
    ),
}
SCAN = causalrisk.scan([DATA[:200], DATA[200:]])
WEIGHTS = np.random.default_rng(0).gamma(4, size=(len(DATA), 8))
COLLECTED = {"data.collect()": "causalrisk.scan([data]).collect()"}
FOLDER = Path(__file__).parents[1] / "reference"
FILE = FOLDER / "lalonde614.csv.gz"


def scanned_on(kind):
    """A fit to a scan on such a cluster."""
    with cluster(kind):
        return model(data=SCAN).fit()


def scanned_by_two():
    with joblib.parallel_config("loky"):
        return model(data=SCAN).fit(n_jobs=2)


class Partitioned:
    """A Dask data frame, as far as it is asked."""

    __module__ = "dask.dataframe"
    columns, get_partition = [], None

    def compute(self):
        return DATA


def columns_of_scan(columns):
    """Names of the columns of a scan that is told which there are."""
    return causalrisk.scan(FILE, columns=columns).column_names()


def names_of(source):
    """Names of the columns of a scan."""
    return causalrisk.scan(source).column_names()


@functools.cache
def plain_fit_to_a_scan():
    """The fit to a scan without any option, which many cases take."""
    return model(data=SCAN).fit()


def scanned(**fixed):
    """A fit to a scan, or to whatever data are given, as a function of the options of the model."""

    def call(**options):
        given = {"data": SCAN} | fixed | options
        alone = given["data"] is SCAN and len(given) == 1
        return plain_fit_to_a_scan() if alone else model(**given).fit()

    return call


def kept(**options):
    """A fit to a scan whose rows are kept by some options."""
    return model(data=causalrisk.scan([DATA[:200], DATA[200:]], **options)).fit()


def of_few_values(right):
    """A design from a scan that keeps few distinct values."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("causalrisk.numerics.blocks.DISTINCT", 9)
        return model(formula=f"y ~ {right}", propensity="x2", data=SCAN).fit()


def scanned_jre(cov_type=None, anchor=None, n_replicates=8, bootstrap=None, replicates=None, **options):
    """JRE from a scan, or from whatever data are given."""
    how = {"cov_type": cov_type, "anchor": anchor, "n_replicates": n_replicates, "bootstrap": bootstrap}
    return model(JRE, **({"data": SCAN} | options)).fit(replicates=replicates, **how)


def written_units(path="other.parquet", data=SCAN):
    """What is written for each row of a fit, in a folder that has a file of data."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        DATA.to_parquet("claims.parquet")
        res = scanned(data=causalrisk.scan("claims.parquet") if data is None else data)()
        return pd.read_parquet(res.write_units(path))


WRITES = mock.Mock(write_units=written_units)


def interrupted():
    """What a fit to a scan says that is interrupted before there is an estimate."""
    stopped = mock.patch("causalrisk.estimators.fit.prepare", side_effect=KeyboardInterrupt)
    with stopped, pytest.raises(FitInterrupted) as error:
        model(data=SCAN).fit()
    return str(error.value)


SCANS = {
    "interrupted": Expression(
        interrupted,
        lambda: model(data=SCAN).fit(),
        fill={"fit(": "again("},
        again=lambda progress: model(data=SCAN).fit(progress=progress),
    ),
    "units": Expression(lambda: scanned()().propensity_scores, written_units, res=lambda: WRITES),
    "units, ending": Expression(lambda: written_units("units.csv"), written_units, res=lambda: WRITES),
    "units, file of the data": Expression(
        lambda: written_units("claims.parquet", None), written_units, res=lambda: WRITES
    ),
    "rows": Case(lambda **o: scanned()(**o).balance_test(), {"data": SCAN}, {"data": DATA}, fill=COLLECTED),
    "explain": Expression(lambda: scanned()().explain(), lambda: scanned()().methods(), res=scanned()),
    "report": Expression(lambda: scanned()().report(), lambda: scanned()().methods(), res=scanned()),
    "groups": Case(
        lambda data: scanned()(data=data).effects_by("g") if data is SCAN else scanned()(data=data),
        {"data": SCAN},
        {"data": causalrisk.scan([DATA[DATA.g == "a"]])},
        fill={"scan": "causalrisk.scan", "level": "'a'", "data.blocks()": "causalrisk.scan([data]).blocks()"},
    ),
    "clusters at the fit": Expression(
        lambda: scanned()().model.fit(cov_kwds={"groups": DATA.site}),
        lambda: model(data=SCAN, cluster="site").fit(),
        fill={"from_formula(...": "model(data=SCAN", '"column")': '"site").fit()'},
        model=lambda: model,
        SCAN=SCAN,
    ),
    "compare": Expression(
        lambda: compare("y ~ x1", SCAN, treat="d"),
        lambda: causalrisk.etable([of(kind, data=SCAN)(n_boot=9, rng=0) for kind in (IPWRA, AIPW)]),
        fill={"...": "**GIVEN | {'data': SCAN}", "200": "9"},
        etable=causalrisk.etable,
        AIPW=AIPW,
        GIVEN=GIVEN,
        SCAN=SCAN,
    ),
    "rows of groups": Case(
        lambda **o: scanned()(**o).balance(by=DATA.g), {"data": SCAN}, {"data": DATA}, fill=COLLECTED
    ),
    "rows of covariates": Case(
        lambda **o: scanned()(**o).balance(also=["x1"]), {"data": SCAN}, {"data": DATA}, fill=COLLECTED
    ),
    "jre anchor": Case(
        lambda **o: model(JRE, data=SCAN, cluster="site").fit(n_boot=20, n_replicates=8, memory=1e5, **o),
        {"anchor": None},
        {"anchor": 3},
    ),
    "budget": Case(kept, {"budget": 0}, {"budget": 2e9}),
    "folder of rows": Case(kept, {"folder": "no/such/folder"}, {"folder": tempfile.gettempdir()}),
    "memory for rows": Case(kept, {"keep": "memory", "budget": 1.0}, {"keep": "auto"}),
    "no room for rows": Case(
        kept, {"budget": 1.0}, {"folder": tempfile.gettempdir()}, fill={'"..."': repr(tempfile.gettempdir())}
    ),
    "jre replicates": Case(
        lambda **o: scanned_jre(cov_type="robust", n_replicates=None, replicates=WEIGHTS, **o),
        {"data": SCAN},
        {"data": DATA},
        fill=COLLECTED,
    ),
    "quantiles": Case(of_quantiles, {"data": SCAN}, {"data": DATA}, fill=COLLECTED),
    "known scores": Case(
        scanned(),
        {"propensity_score": "score", "data": SCAN},
        {"propensity_score": "score", "data": DATA},
        fill=COLLECTED,
    ),
    "classifier": Case(
        scanned(),
        {"propensity_score": sklearn.linear_model.LogisticRegression(), "data": SCAN},
        {"propensity_score": sklearn.linear_model.LogisticRegression(), "data": DATA},
        fill=COLLECTED,
    ),
    "learner": Case(scanned(), {"learner": "lasso", "data": SCAN}, {"learner": "smooth", "data": SCAN}),
    "resamples": Case(lambda **o: model(data=SCAN).fit(**o), {"resamples": np.ones((len(DATA), 20))}, {"n_boot": 999}),
    "rescaled bootstrap": Case(
        lambda **o: model(**o, design=causalrisk.Survey(strata="k")).fit(n_boot=9),
        {"data": SCAN},
        {"data": DATA},
        fill=COLLECTED,
    ),
    "distinct values": Case(
        of_few_values,
        {"right": "cr(x1, df=3, constraints='center')"},
        {"right": "cr(x1, knots=[0, 1], constraints='center')"},
    ),
    "outcome": Case(scanned(formula="ill ~ y", propensity="x2"), {"family": "binomial"}, {"family": "gaussian"}),
    "matrices": Expression(
        lambda: in_little_memory(model(data=SCAN).fit, n_boot=99),
        lambda: model(data=SCAN).fit(cov_type="robust"),
        fit=lambda **options: model(data=SCAN).fit(**options),
    ),
    "cost of rows read again": Case(
        lambda keep: model(data=causalrisk.scan([DATA[:200], DATA[200:]], keep=keep)).cost().rows,
        {"keep": "nothing"},
        {"keep": "auto"},
    ),
    "workers that die": Expression(
        lambda: scanned_on("workers die"),
        lambda: scanned(data=causalrisk.scan([DATA]))(),
        scan=lambda source, block_rows: scanned(data=causalrisk.scan(source, block_rows=block_rows))(),
        fill={"...": "[data]"},
    ),
    "no workers": Expression(
        lambda: scanned_on("no workers"),
        lambda: scanned()(),
        client=mock.Mock(wait_for_workers=lambda count: scanned()()),
    ),
    "scheduler lost": Expression(
        lambda: scanned_on("scheduler lost"),
        lambda: scanned()(),
        distributed=mock.Mock(Client=lambda address: scanned()()),
        address="tcp://127.0.0.1:8786",
    ),
    "no source": Expression(
        lambda: causalrisk.scan(3), lambda: names_of(str(FILE)), scan=names_of, fill={"folder/*.parquet": str(FILE)}
    ),
    "folder": Expression(
        lambda: causalrisk.scan(str(FOLDER)),
        lambda: names_of(f"{FOLDER}/*.csv.gz"),
        scan=names_of,
        fill={"*.parquet": "*.csv.gz"},
    ),
    "columns as text": Case(columns_of_scan, {"columns": "age"}, {"columns": ["age"]}),
    "columns that are no names": Case(
        columns_of_scan, {"columns": 3}, {"columns": ["age", "educ"]}, fill={'["y", "d", "x"]': '["age", "educ"]'}
    ),
    "partitions": Expression(
        lambda: model().fit().predict(Partitioned()),
        lambda: model().fit().predict(DATA),
        data=mock.Mock(compute=lambda: model().fit().predict(Partitioned().compute())),
    ),
    "ending": Expression(
        lambda: causalrisk.scan(__file__), lambda: names_of(FILE), scan=names_of, fill={__file__: str(FILE)}
    ),
}
SCANS["distinct values"].follow = lambda heard: of_few_values(heard.codes()[0].replace("[...]", "[0, 1]"))


@contextlib.contextmanager
def without(*modules):
    """As if these modules were not installed."""
    kept = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(dict.fromkeys(modules))
    try:
        yield
    finally:
        for name, module in kept.items():
            del sys.modules[name]
            sys.modules.update({name: module} if module is not None else {})


@dataclass
class Missing(Case):
    """A call that is refused where modules are missing, tells what to install, and works with them."""

    def __init__(self, call, project, *modules):
        super().__init__(call, {}, {})
        self.project, self.modules = project, modules

    def provoke(self):
        with without(*self.modules):
            return told(self.call)

    def follow(self, heard):
        assert heard.codes()[0] == f"pip install {self.project}"
        self.done = self.call()  # with what was missing it does its work
        return self.done

    def outcome(self):
        return self.done


@dataclass
class Under(Expression):
    """A call that is refused while something of the package behaves in another way."""

    def __init__(self, target, behaviour, provoke, meant, **others):
        super().__init__(provoke, meant, **others)
        self.target, self.behaviour = target, behaviour

    def provoke(self):
        with mock.patch(self.target, self.behaviour):
            return told(self.call)


@contextlib.contextmanager
def dying(*_, **options):
    """Workers of which one dies."""

    def results():
        raise BrokenExecutor
        yield

    yield results()


class Unsolved:
    """A refitter whose solver finds nothing."""

    def __init__(self, *_):
        pass

    def refit(self, *_):
        return mock.Mock(failures=np.array([Failure.NOT_CONVERGED]))


class Capsule:
    """A frame that is read through Arrow alone."""

    def __arrow_c_stream__(self, requested_schema=None):
        return pa.table(DATA[["y", "d", "x1", "x2"]]).__arrow_c_stream__(requested_schema)


def in_example(call):
    """Call in a folder with the files of the made-up example, under the names of the message."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        paths = hle.write_example(".")
        for kind, name in (("tools off", "off.json"), ("tools on", "on.json"), ("questions", "questions.jsonl")):
            Path(paths[kind]).rename(name)
        return call()


def load_judged(files=None, questions="questions.jsonl"):
    def call():
        path = stored(questions, "questions.parquet") if isinstance(questions, bytes) else questions
        return hle.load_judged(files or {"off": "off.json"}, path)

    return in_example(call)


def stored(content, name):
    """The path of a file of this content in the folder one is in."""
    Path(name).write_bytes(content)
    return Path(name)


def listed_questions(code=None):
    """The example with its questions in a list, or in what the code makes of it."""

    def call():
        pd.read_json("questions.jsonl", lines=True).to_json("list.jsonl", orient="records")
        Path("questions.jsonl").unlink()
        if code:
            eval(code, NAMES)
        return hle.load_judged({"off": "off.json"}, "questions.jsonl" if code else "list.jsonl")

    return in_example(call)


ARROW = "pyarrow", "pyarrow.parquet"
PARQUET, JUDGED = DATA.to_parquet(), load_judged()
QUESTIONS = in_example(lambda: pd.read_json("questions.jsonl", lines=True).to_parquet())
STATED = JUDGED[JUDGED.confidence.notna()]
WHOLE_FILES = {"files": {"tools off": "off.json", "tools on": "on.json"}}
SCORED = {"fill": {"frame = load_judged(...)": "hle.score(load_judged())"}, "hle": hle, "load_judged": load_judged}
INSTALLED = {
    "parquet": Missing(lambda: in_folder(lambda: read_file(stored(PARQUET, "a.parquet"))), "pyarrow", "pyarrow"),
    "arrow": Missing(lambda: model(data=Capsule()), "pyarrow", "pyarrow"),
    "scan": Missing(lambda: in_folder(lambda: names_of(stored(PARQUET, "a.parquet"))), "pyarrow", *ARROW),
    "units": Missing(lambda: in_folder(lambda: fit().write_units("a.parquet")), "pyarrow", *ARROW),
    "questions": Missing(lambda: load_judged(questions=QUESTIONS), "pyarrow", "pyarrow"),
    "report": Missing(lambda: in_folder(lambda: fit().report("a.html")), "matplotlib", "matplotlib"),
    "plot": Missing(lambda: fit().plot_balance(), "matplotlib", "matplotlib", "matplotlib.pyplot"),
    "word": Missing(lambda: in_folder(lambda: fit().summary().save("a.docx")), "python-docx", "docx"),
    "great tables": Missing(lambda: causalrisk.etable([fit()]).to_gt(), "maketables", "maketables"),
    "learner": Missing(lambda: fitted(learner="lasso"), '"causalrisk[learners]"', "sklearn.linear_model"),
    "competitor": Missing(lambda: study(estimators=["statsmodels AIPW"], n_sims=2), "statsmodels", "statsmodels"),
}


def broken_pool(_):
    """Workers that die at once."""
    future = Future()
    future.set_exception(BrokenExecutor())
    return contextlib.nullcontext(mock.Mock(submit=lambda *_: future))


def under(backend, n_jobs=1):
    """A bootstrap by a backend of joblib."""
    with joblib.parallel_config(backend):
        return fit(n_boot=64, n_jobs=n_jobs)


class DaskDistributedBackend:
    """Joblib's, with a client whose workers die."""

    def __init__(self, client):
        self.client = client


def by_dask(function):
    """Work of which the workers of joblib's Dask backend die."""
    with cluster("workers die") as client, contextlib.ExitStack() as stack:
        for module in ("runtime.workers", "simulation.study"):
            backend = DaskDistributedBackend(client)
            stack.enter_context(mock.patch(f"causalrisk.{module}.chosen_backend", return_value=backend))
        return function(n_jobs=2)


WRITTEN = pickle.dumps(fit())
JRE_BY_G = of(JRE, formula="y ~ x1 + g")
BROKEN = {
    "worker of a bootstrap": Under(
        "causalrisk.inference.covariance.ordered_map", dying, lambda: fit(n_boot=20, n_jobs=2), lambda: fit(n_boot=20),
        fill={"fit(": "model.fit(n_boot=20, "}, model=model,
    ),
    "worker of a scan": Under(
        "causalrisk.runtime.workers.joblib_map", dying, scanned_by_two,
        lambda: scanned()(), fill={"fit(": "of(IPWRA, data=SCAN)("}, SCAN=SCAN, of=of,
    ),
    "worker of a study": Under(
        "causalrisk.simulation.study.worker_processes", broken_pool, lambda: study(n=[50, 60], n_sims=2, n_jobs=2),
        lambda: study(n=[50, 60], n_sims=2), which=1,
        fill={"n_jobs=1": "study(n=[50, 60], n_sims=2, n_jobs=1)"}, study=study,
    ),
    "Dask workers of a bootstrap": Expression(
        lambda: by_dask(lambda **o: fit(n_boot=64, **o)), lambda: fit(n_boot=64),
        fit=lambda memory: fit(n_boot=64, memory=memory),
    ),
    "Dask workers of a study": Expression(
        lambda: by_dask(lambda **o: study(n=[50, 60], n_sims=2, **o)), lambda: study(n=[50, 60], n_sims=2),
        fill={"n_jobs=1": "study(n=[50, 60], n_sims=2, n_jobs=1)"}, study=study,
    ),
    "pickle of later": Under(
        "causalrisk.models.results.__version__", "0.0.1", lambda: pickle.loads(WRITTEN), fit,
        fill={f"pip install 'causalrisk>={causalrisk.__version__}'": "pickle.loads(WRITTEN)"},
        pickle=pickle, WRITTEN=WRITTEN,
    ),
    "groups without a solution": Under(
        "causalrisk.inference.heterogeneity.refitter_of", Unsolved, lambda: JRE_BY_G(n_boot=20).effects_by("g"),
        lambda: BY_G().effects_by("g"), res=lambda: JRE_BY_G(n_boot=20), fill={"(...)": "('g')"},
    ),
    "backend that cannot stream": Expression(
        lambda: under("multiprocessing", 2), lambda: fit(n_boot=64), fill={"joblib.parallel_config(": "under("},
        under=under,
    ),
}  # fmt: skip
BENCHMARK = {
    "no files": Expression(
        lambda: hle.load_judged({}, "questions.jsonl"), lambda: load_judged(**WHOLE_FILES),
        fill={"questions=...": "questions='questions.jsonl'"}, load_judged=load_judged,
    ),
    "no path": Expression(
        lambda: load_judged({"off": 3}), lambda: load_judged(**WHOLE_FILES),
        load_judged=load_judged,
    ),
    "list": Expression(listed_questions, load_judged),
    "no column": Expression(lambda: hle.score(JUDGED.drop(columns="arm")), lambda: hle.score(JUDGED), **SCORED),
    "no rows": Expression(lambda: hle.score(JUDGED[:0]), lambda: hle.score(JUDGED), **SCORED),
    "one bin": Case(
        lambda **o: hle.score(STATED.sample(120, replace=True, random_state=0).assign(id=range(120)), n_boot=20, **o),
        {"binning": "published"}, {"binning": "all"},
    ),
}  # fmt: skip
BENCHMARK["list"].follow = lambda heard: listed_questions(heard.codes()[0])


class Regressor:
    """A learner that takes no weights and predicts the mean."""

    def fit(self, X, y):
        self.mean = y.mean()
        return self

    def predict(self, X):
        return np.full(len(X), self.mean)


class Nothing(Regressor):
    """A learner that predicts no numbers."""

    def predict(self, X):
        return np.full(len(X), np.nan)


def by_town(**options):
    """A fit where one arm has two clusters, which are in the same of two folds and in different ones of five."""
    data = DATA.assign(town=np.arange(N) % 10, d=(np.arange(N) % 10 < 2).astype(int))
    return model(data=data, cluster="town", learner="smooth", **options).fit()


def predicted(name, meant, which=0, fill=None):
    """What a fit by predictions alone does not have."""
    res = res_of(AIPW, learner="smooth")
    return Expression(lambda: name(res()), lambda: meant(res()), which, fill, res=res)


REMADE = {"from_formula(...": 'from_formula("y ~ x1 + x2", data, treat="d"', ".fit()": ".fit(cov_type='robust')"}
LEARNERS = {
    "no terms": Expression(
        lambda: fitted(formula="y ~ 1", propensity="x1 + x2", learner="smooth"), lambda: model(learner="smooth"),
        fill={", ..., learner=...": ', data, treat="d", learner="smooth"'}, from_formula=IPWRA.from_formula,
    ),
    "even": Case(model, {"learner": "smooth", "n_repeats": 4}, {"learner": "smooth", "n_repeats": 5}),
    "use": Case(
        lambda **o: model(JRE, **o), {"learner": "smooth", "learner_use": "replace"},
        {"learner": "smooth", "learner_use": "stack"},
    ),
    "several alone": Case(
        lambda **o: model(AIPW, **o), {"learner": ["smooth", "lasso"]},
        {"learner": ["smooth", "lasso"], "learner_use": "terms"},
    ),
    "twice": Case(
        model, {"smooth": True, "learner": "lasso"}, {"learner": ["smooth", "lasso"]}, fill={"...": "'lasso'"}
    ),
    "coefficients": predicted(lambda res: res.outcome_params, lambda res: res.outcome_predictions),
    "prediction": predicted(lambda res: res.get_prediction(DATA), lambda res: res.predict(DATA)),
    "predictions of none": Expression(
        lambda: fit().outcome_predictions, lambda: fitted(learner="smooth"), fill=REMADE,
        from_formula=IPWRA.from_formula,
    ),
    "average of none": Expression(
        lambda: fit().stack,
        lambda: model(JRE, learner="smooth", learner_use="stack").fit(cov_type="robust"), fill=REMADE,
    ),
    "smooth of a fit": Expression(
        lambda: fit(smooth=True), lambda: fitted(learner="smooth"), from_formula=IPWRA.from_formula,
        fill={"from_formula(...": REMADE["from_formula(..."]},
    ),
    "smooth of another model": Expression(
        lambda: model().with_options(smooth=True), lambda: model(learner="smooth"),
        fill={"with_options": "model.with_options"}, model=lambda: model(),
    ),
    "none": Case(fitted, {"learner": []}, {"learner": "smooth"}),
    "list in a list": Case(
        fitted, {"learner": [["smooth"], ["smooth"]]}, {"learner": ["smooth", "smooth"]},
        fill={"*first, *second": "'smooth', 'smooth'"},
    ),
    "repeats of several": Case(
        lambda **o: compared(estimators=["IPWRA"], learner="smooth", n_boot=10, **o), {"n_repeats": 3}, {"n_repeats": 1}
    ),
    "misspelt": Case(model, {"learner": "smoth"}, {"learner": "smooth"}),
    "class": Case(fitted, {"learner": Regressor}, {"learner": Regressor()}),
    "number": Case(model, {"learner": 3}, {"learner": "smooth"}),
    "arms": Case(
        fitted, {"learner": {"a": "smooth"}}, {"learner": {"0": "smooth", "1": "smooth"}}, fill={"...": "'smooth'"}
    ),
    "classifier of numbers": Case(fitted, {"learner": Classifier()}, {"learner": "smooth"}),
    "classifier without probabilities": Case(
        lambda **o: fitted(formula="ill ~ x1 + x2", **o),
        {"learner": LinearSVC()}, {"learner": CalibratedClassifierCV(LinearSVC())},
    ),
    "constant": Case(fitted, {"learner": Regressor()}, {"learner": "smooth"}),
    "arm in one fold": Case(by_town, {"n_folds": 2}, {"n_folds": 5}, fill={"n_folds=": "n_folds=5"}),
    "no number": Case(fitted, {"learner": Nothing()}, {"learner": "smooth"}, which=1),
    "not converged": Case(fitted, {"learner": MLPRegressor(max_iter=2, random_state=0)}, {"learner": "smooth"}),
    "no weights": Case(
        lambda **o: fitted(weights="u", weight_type="probability", **o), {"learner": Regressor()}, {"learner": "smooth"}
    ),
    "no outcome model": Expression(
        lambda: model(Hajek, learner="smooth"), lambda: model(learner="smooth"),
        fill={"(...)": '("y ~ x1 + x2", data, treat="d", learner="smooth")'},
    ),
    "outcome model of others": Case(
        fitted, {"outcome_model": LinearRegression()}, {"learner": LinearRegression()},
    ),
    "parts": Expression(
        lambda: model(JRE, learner="smooth", effect="ratio").fit(cov_type="robust").se_decomposition(),
        lambda: model(JRE, learner="smooth").fit(cov_type="robust"), fill={".fit()": ".fit(cov_type='robust')"},
        model=lambda: model(JRE, learner="smooth", effect="ratio"),
    ),
}  # fmt: skip


def permuted(estimator=OutcomeRegression, /, *, test=None, **options):
    """A permutation test as a table."""
    return model(estimator, **options).fit().permutation_test(**{"n_permutations": 9} | (test or {})).tidy()


def of_test(wrong, meant, fill=None, **options):
    """A test that is refused, and the one that was meant."""
    return Case(lambda **o: permuted(test=o, **options), wrong, meant, fill=fill)


TOWNS = {"treat": "lot", "cluster": "town", "data": DATA.assign(lot=DATA.town % 2)}
SCHOOLS = {"cluster": "site", "data": DATA.assign(d=np.where(DATA.site == 0, 1, DATA.d))}
CHANCE = "data.k.map({0: 0.4, 1: 0.5, 2: 0.6})"
CHANCES = DATA.assign(chance=eval(CHANCE, {"data": DATA}))
PERMUTATIONS = {
    "nothing to permute": of_test(
        {"strata": np.arange(N)}, {"strata": DATA.g}, fill={"strata=data[...]": "strata=data.g"}
    ),
    "clusters of both kinds": of_test({}, {"strata": "site"}, **SCHOOLS),
    "clusters in several strata": of_test(
        {"strata": DATA.x1 > 0}, {"strata": DATA.town % 3}, fill={"strata=data[...]": "strata=data.town % 3"}, **TOWNS
    ),
    "known scores": Case(
        lambda **o: permuted(AIPW, propensity_score="chance", data=CHANCES, test=o),
        {}, {"strata": "chance", "data": CHANCES}, fill={"data=data": f"data=data.assign(chance={CHANCE})"},
    ),
    "all of too many": of_test({"n_permutations": "all"}, {"n_permutations": 9999}),
    "one of several": of_test(
        {"statistic": "difference"}, {"arm": "high", "statistic": "difference"}, treat="dose", reference="none"
    ),
    "no sampling error": of_test(
        {}, {"statistic": "difference"}, data=DATA.assign(y=1.0 * DATA.d), formula="y ~ 1"
    ),
    "own replicates": Expression(
        lambda: model(JRE).fit(cov_type="robust", replicates=np.ones((N, 2))).permutation_test(2),
        lambda: permuted(JRE, test={"n_permutations": 2}),
        fill={"permutation_test()": "permutation_test(2).tidy()"},
        res=lambda: model(JRE).fit(cov_type="robust"),
    ),
}  # fmt: skip
GAPS = np.where(np.arange(N) == 7, np.nan, DATA.x1)
LEARNERS |= {
    "one covariate": Expression(
        lambda: Smooth().fit(np.array(DATA.x1), DATA.y), lambda: DATA[["x1"]].to_numpy(), X=np.array(DATA.x1)
    ),
    "a column of outcomes": Expression(
        lambda: Smooth().fit(DATA[["x1"]], DATA[["y"]]), lambda: np.array(DATA.y), y=DATA[["y"]].to_numpy()
    ),
    "means below zero": Case(
        lambda link: Smooth(outcome_family("gaussian", link)).fit(DATA[["x1"]], -np.exp(DATA.y)).predict(DATA[["x1"]]),
        {"link": "log"}, {"link": "identity"},
    ),
    "missing values": Expression(lambda: Smooth().fit(DATA[["x1"]], GAPS), lambda: np.array([[7]]), y=GAPS),
}  # fmt: skip
NAMES |= {"Regressor": Regressor, "LinearRegression": LinearRegression}

REPLICATED = DATA.assign(**{f"repw{j}": np.where(DATA.site % 3 == j, 0, 1.5 * DATA.w) for j in range(3)})


def drawn(data=REPLICATED, fit=True, subpop=None, target="all", n_boot=None, **options):
    found = model(data=data, design=Survey(**options), subpop=subpop, target=target)
    return found.fit(n_boot=n_boot) if fit else found


@dataclass
class Drawn(Case):
    """Options of a survey design that are refused; the message has the whole design to type."""

    def follow(self, heard):
        code = heard.codes()[self.which]
        for text, own in (self.fill or {}).items():
            assert text in code, (text, code)
            code = code.replace(text, own)
        return model(data=REPLICATED, design=eval(code, NAMES | {"Survey": Survey})).fit()

    def outcome(self):
        return drawn(**self.meant)


SAMPLING = {"weights": "w", "replicate_weights": "repw*"}
JKN = SAMPLING | {"replicate_type": "JKn"}
BRR = SAMPLING | {"replicate_type": "BRR"}
HALVES = {f"half{j}": DATA.w * np.where(DATA.site // 2**j % 2 == 1, 0.5, 1.5) for j in range(4)}
FAY = {"weights": "w", "replicate_weights": "half*", "replicate_type": "Fay", "data": DATA.assign(**HALVES)}
STRATA = {"weights": "w", "strata": "g", "psu": "site"}
COLUMNS_OF = {"weights=": 'weights="w"', "strata=": 'strata="g"', "psu=": 'psu="site"'}
HUNDRED = REPLICATED.assign(w=100 * DATA.w, **{f"repw{j}": 150 * DATA.w for j in range(3)})
AGAIN = REPLICATED.assign(unit=DATA.site // 3)
LONELY = REPLICATED[(DATA.g != "a") | (DATA.site == 0)]
ANYBODY = DATA.assign(few=np.where(DATA.index > 0, DATA.k == 0, np.nan), town=DATA.town % 2 + 1)
ONE = DATA.assign(rare=((DATA.index < 40) & (DATA.d == 0)) | (DATA.index == DATA.index[DATA.d == 1][0]))


def FRAGILE():
    return model(data=ONE, propensity="x1 + rare")


SURVEYS = {
    "no design": Case(
        model, {"subpop": DATA.x1 > 0}, {"subpop": DATA.x1 > 0, "design": Survey(weights="w")},
        fill={"Survey(...)": 'causalrisk.Survey(weights="w")'},
    ),
    "a name": Case(
        of(IPWRA), {}, {}, fill={'weights="<column>"': 'weights="w"', '"<column>", psu="<column>"': '"g", psu="site"'}
    ),
    "weights twice": Drawn(
        lambda: model(weights="w", design=Survey(strata="g")), {}, {"weights": "w", "strata": "g"},
        fill={"...": '"w", strata="g"'},
    ),
    "no replicates": Drawn(
        drawn, {"weights": "w", "replicate_type": "BRR"}, BRR, fill={"...,": 'weights="w",', "...": '"BRR"'}
    ),
    "nothing": Drawn(drawn, {}, STRATA, fill=COLUMNS_OF),
    "no weights": Drawn(
        drawn, {"replicate_weights": "repw*", "replicate_type": "BRR"}, BRR,
        fill={"<column>": "w", "replicate_weights=...": 'replicate_weights="repw*"', "e=...": 'e="BRR"'},
    ),
    "no type": Case(drawn, SAMPLING, BRR),
    "no type but a scale": Case(drawn, SAMPLING, SAMPLING | {"scale": 2}, which=1, fill={"scale=": "scale=2"}),
    "Fay without rho": Case(drawn, BRR | {"replicate_type": "Fay"}, BRR | {"replicate_type": "Fay", "rho": 0.5}),
    "rho": Case(drawn, BRR | {"replicate_type": "Fay", "rho": 2}, BRR | {"replicate_type": "Fay", "rho": 0.5}),
    "JKn": Case(drawn, JKN, JKN | {"rscales": [0.5, 0.5, 0.75]}, fill={"[...]": "[0.5, 0.5, 0.75]"}),
    "units in two strata": Case(
        drawn, STRATA | {"psu": "unit", "data": AGAIN}, STRATA | {"psu": "unit", "nest": True, "data": AGAIN}
    ),
    "one unit": Case(drawn, STRATA | {"data": LONELY}, STRATA | {"data": LONELY, "lonely": "adjust"}),
    "pattern": Case(drawn, BRR | {"replicate_weights": "x1"}, BRR),
    "factors": Case(
        drawn, BRR | {"replicate_weights": np.ones((N, 3)), "weights": 100 * DATA.w},
        BRR | {"replicate_weights": np.ones((N, 3)), "weights": 100 * DATA.w, "combined": False},
    ),
    "weights for factors": Case(
        drawn, BRR | {"combined": False, "data": HUNDRED}, BRR | {"combined": True, "data": HUNDRED}
    ),
    "rscales": Case(
        drawn, BRR | {"rscales": [1, 1]}, BRR | {"rscales": [1, 1, 2]}, fill={"[...]": "[1, 1, 2]"}
    ),
    "another type": Case(drawn, FAY | {"rho": 0.2}, FAY | {"rho": 0.5}),
    "subpopulation that is missing": Case(
        lambda subpop: model(data=ANYBODY, design=Survey(weights="w"), subpop=subpop), {"subpop": "few"},
        {"subpop": ANYBODY.few == 1}, fill={'data["few"]': "ANYBODY.few"},
    ),
    "subpopulation of levels": Case(
        lambda subpop: model(data=ANYBODY, design=Survey(weights="w"), subpop=subpop), {"subpop": "town"},
        {"subpop": ANYBODY.town == 1}, fill={'data["town"]': "ANYBODY.town"},
    ),
    "bootstrap of a design": Case(
        lambda **o: (model(**o) if "design" in o else fit(**o)), {"bootstrap": "rescaled"},
        {"design": Survey(strata="g", psu="site")},
        fill={"from_formula(..., ": "**dict(", "Survey": "causalrisk.Survey", '"<column>", psu="<column>"':
        '"g", psu="site"'},
    ),
    "lonely in resamples": Drawn(
        lambda: drawn(**STRATA, data=LONELY, lonely="adjust", n_boot=9), {}, STRATA | {"lonely": "certainty"},
        fill={"...": 'weights="w", strata="g", psu="site"'},
    ),
    "resamples of a scan": Case(
        lambda data, n_boot=None: model(data=data, design=Survey(**STRATA)).fit(n_boot=n_boot),
        {"data": SCAN, "n_boot": 9}, {"data": DATA, "n_boot": 9}, fill=COLLECTED,
    ),
    "several strata": Case(
        drawn, STRATA | {"strata": ["g", "k"], "nest": True},
        STRATA | {"strata": DATA.g.astype(str) + "/" + DATA.k.astype(str), "nest": True},
    ),
    "jackknife of a scan": Case(
        lambda data, cov_type: model(data=data).fit(cov_type=cov_type),
        {"data": SCAN, "cov_type": "jackknife"}, {"data": SCAN, "cov_type": "robust"},
    ),
    "values of groups": Expression(
        lambda: BY_G().effects_by("g", at=1), lambda: BY_G().effects_by("~ x1", at=10), res=BY_G,
        fill={'effects_by("~ ..."': 'res.effects_by("~ x1"'},
    ),
    "a row that cannot be left out": Expression(
        lambda: FRAGILE().fit(cov_type="jackknife"), lambda: FRAGILE().fit(cov_type="robust"), model=FRAGILE,
        fill={"fit(": "model.fit("},
    ),
    "rows that cannot be left out": Expression(
        lambda: FRAGILE().fit(cov_type="jackknife", max_failed=0), lambda: FRAGILE().fit(cov_type="robust"),
        model=FRAGILE, fill={"fit(": "model.fit("},
    ),
    "permutations": Expression(
        lambda: drawn(**STRATA).permutation_test(9), lambda: drawn(**STRATA).pvalues, res=lambda: drawn(**STRATA)
    ),
    "frame": Drawn(
        lambda: drawn(**BRR, target=POSITIVE), {}, STRATA, fill=COLUMNS_OF
    ),
    "intervals of replicates": Expression(
        lambda: drawn(**BRR).conf_int(method="basic"), lambda: drawn(**BRR).conf_int(), res=lambda: drawn(**BRR)
    ),
    "intervals of a design": Expression(
        lambda: drawn(**STRATA, n_boot=400).conf_int(method="bca"),
        lambda: drawn(**STRATA, n_boot=400).conf_int(method="percentile"), res=lambda: drawn(**STRATA, n_boot=400),
    ),
}  # fmt: skip
SURVEYS["a name"].call = lambda design="g": model(data=REPLICATED, design=design)
SURVEYS["a name"].meant = {"design": Survey(weights="w", strata="g", psu="site")}
for name in ("intervals of replicates", "intervals of a design"):
    SURVEYS[name].fill = {"conf_int": "res.conf_int"}
NAMES |= {"ANYBODY": ANYBODY}


PANEL = DATA.assign(y0=DATA.x3, unit=DATA.index)
LONG = pd.concat([PANEL.assign(year=1, y=PANEL.y0), PANEL.assign(year=2)])
OF_LONG = DiD(time="year", unit="unit")
IN_WORDS = LONG.assign(year=LONG.year.map({1: "before", 2: "after"}))
THREE_YEARS = pd.concat([LONG, LONG[LONG.year == 2].assign(year=3)])


def change(did, data=PANEL, **options):
    return model(AIPW, data=data, did=DiD(**did) if isinstance(did, dict) else did, **options)


@dataclass
class Change(Case):
    """Outcomes before a treatment that are refused; the message has an option, or all of DiD, to type."""

    def follow(self, heard):
        code = heard.codes()[self.which]
        for text, own in (self.fill or {}).items():
            assert text in code, (text, code)
            code = code.replace(text, own)
        names = NAMES | {"DiD": DiD, "Survey": Survey, "LONG": LONG, "data": self.wrong.get("data", PANEL)}
        option = {"DiD": "did", "Survey": "design"}.get(code.partition("(")[0])
        typed = {option: eval(code, names)} if option else eval(f"dict({code})", names)
        return self.call(**({name: value for name, value in self.wrong.items() if name in self.meant} | typed))


def long(data, meant=LONG[LONG.unit >= 9]):
    """Long data that are refused, and those that were meant."""
    return Change(change, {"data": data, "did": OF_LONG}, {"data": meant, "did": OF_LONG})


ADOPTED = pd.concat(
    [
        PANEL.assign(year=year, first=np.where(PANEL.d == 1, 2, np.where(PANEL.k == 0, 3, 9)), y=PANEL.y + year)
        for year in (1, 2, 3)
    ]
)


def adopted(data=ADOPTED, **options):
    given = {"formula": "y ~ x1", "begins": "first", "time": "year", "unit": "unit"}
    return causalrisk.event_study(data=data, **given, **options).params


def adoptions(data, meant=ADOPTED[ADOPTED.unit >= 9]):
    """Data of units that begin at different times that are refused, and those that were meant."""
    return Change(adopted, {"data": data}, {"data": meant})


BEFORE = {"did": DiD(before="y0")}
CHANGES = {
    "a function of the outcome": Change(
        lambda did: change(did, formula="np.exp(y) ~ x1"), {"did": {"before": "y0"}}, {"did": DiD(before="np.exp(y0)")}
    ),
    "periods in words": Change(
        change, {"data": IN_WORDS, "did": {"time": "year", "unit": "unit"}},
        {"data": IN_WORDS.assign(year=pd.Categorical(IN_WORDS["year"], ["after", "before"])), "did": OF_LONG},
    ),
    "values": Change(change, {"did": {"before": DATA.x3}}, BEFORE, fill={"<column>": "y0"}),
    "both kinds of data": Change(change, {"did": {"before": "y0", "time": "year"}}, BEFORE),
    "weights as they are of cross sections": Change(
        change, {"data": LONG, "did": {"time": "year", "normalize": False}}, {"data": LONG, "did": DiD(time="year")}
    ),
    "arms together of cross sections": Case(
        lambda estimators: compared(
            data=LONG, did=DiD(time="year"), propensity="x1 + x2", estimators=estimators, n_boot=2
        ),
        {"estimators": ["AIPW", "JRE"]}, {"estimators": ["AIPW", "IPWRA"]}, which=2,
    ),
    "nothing": Change(change, {"did": {}}, BEFORE, fill={"<column>": "y0"}),
    "nothing of long data": Change(change, {"data": LONG, "did": {}}, {"data": LONG, "did": OF_LONG}, which=1,
                                   fill={'"<column>", unit="<column>"': '"year", unit="unit"'}),
    "a name": Change(change, {"did": "y0"}, BEFORE),
    "yes": Change(change, {"did": True}, BEFORE, fill={"<column>": "y0"}),
    "in the place of a survey": Change(
        lambda design=None, did=None: model(AIPW, data=PANEL, design=design, did=did),
        {"design": DiD(before="y0")}, BEFORE,
    ),
    "a scan of long data": Change(
        change, {"data": causalrisk.scan([LONG]), "did": OF_LONG}, {"data": LONG, "did": OF_LONG},
        fill={"data.collect()": "causalrisk.scan([LONG]).collect()"},
    ),
    "missing years": long(LONG.assign(year=LONG.year.where(LONG.unit >= 9))),
    "three years": long(THREE_YEARS, meant=THREE_YEARS[THREE_YEARS.year != 2]),
    "copies": long(pd.concat([LONG, LONG.head(9)]), meant=LONG),
    "once": long(LONG[(LONG.unit >= 9) | (LONG.year == 1)]),
    "values of the treatment": Change(
        change, {"data": LONG, "did": OF_LONG, "treat": LONG.d}, {"data": LONG, "did": OF_LONG, "treat": "d"}
    ),
    "treated from then on": long(LONG.assign(d=LONG.d * (LONG.year == 2)), meant=LONG),
    "another arm": long(LONG.assign(d=np.where((LONG.unit < 9) & (LONG.year == 2), 1 - LONG.d, LONG.d))),
    "another target": Change(change, BEFORE | {"target": "overlap"}, BEFORE | {"target": "treated"}),
    "another family": Change(change, BEFORE | {"family": "poisson"}, BEFORE | {"family": "gaussian"}),
    "another effect": Change(change, BEFORE | {"effect": "ratio"}, BEFORE | {"effect": "difference"}),
    "several arms": Change(
        change, BEFORE | THREE | {"data": PANEL}, BEFORE | THREE | {"data": PANEL[PANEL.dose != "low"]}
    ),
    "several beginnings": adoptions(
        ADOPTED.assign(first=np.where((ADOPTED.unit < 9) & (ADOPTED.year == 2), 3.5, ADOPTED["first"]))
    ),
    "treated from the first": adoptions(ADOPTED.assign(first=np.where(ADOPTED.unit < 9, 1, ADOPTED["first"]))),
    "everybody treated": Change(
        adopted, {"data": ADOPTED[ADOPTED["first"] < 9]}, {"data": ADOPTED[ADOPTED["first"] < 9], "controls": "not yet"}
    ),
    "a scan of units": Change(adopted, {"data": causalrisk.scan([ADOPTED])}, {"data": ADOPTED}),
    "several estimators": Change(adopted, {"estimator": ["AIPW", "Hajek"]}, {"estimator": "AIPW"}),
    "replicate weights of units": Change(
        adopted, {"design": Survey(weights="w", replicate_weights=["w", "x3"], replicate_type="JK1")},
        {"design": Survey(weights="w", strata="k", psu="unit")},
        fill={'weights="<column>"': 'weights="w"', 'strata="<column>"': 'strata="k"', 'psu="<column>"': 'psu="unit"'},
    ),
    "strata that are no column": Change(
        adopted, {"design": Survey(weights="w", strata=ADOPTED.k)}, {"design": Survey(weights="w", strata="k")},
        fill={'strata="<column>"': 'weights="w", strata="k"'},
    ),
    "a study without": Expression(
        lambda: causalrisk.event_study("y ~ x1", ADOPTED, begins="first"), adopted,
        fill={"event_study": "causalrisk.event_study", "x1 + x2": "x1", 'unit="id")': 'unit="unit").params'},
        data=ADOPTED,
    ),
    "values of weights": Change(
        adopted, {"weights": ADOPTED.w, "weight_type": "probability"}, {"weights": "w", "weight_type": "probability"},
        fill={"<column>": "w"},
    ),
    "arrays": Expression(
        lambda: AIPW(DATA.y, X, DATA.d, did=DiD(before="y0")), lambda: change(DiD(before="y0")),
        fill={"data": "PANEL", "AIPW": "causalrisk.AIPW", "did=": "did=causalrisk."},
        PANEL=PANEL,
    ),
}  # fmt: skip


GAPPY = DATA.assign(x1=DATA.x1.where(DATA.index % 6 > 0))


def filled(data):
    return model(data=data, missing="indicator").fit()


LOST = DATA.assign(y=DATA.y.where(DATA.index % 5 > 0), seen=DATA.index % 5 > 0)
MISSING = {
    "values": Case(
        lambda observed: model(data=LOST, observed=observed), {"observed": LOST.seen}, {"observed": "x1 + x2"}
    ),
    "a column": Case(
        lambda observed: model(data=LOST, observed=observed), {"observed": "seen"}, {"observed": "x1 + x2"}
    ),
    "a left-hand side": Case(
        lambda observed: model(data=LOST, observed=observed), {"observed": "y ~ x1"}, {"observed": "x1"}
    ),
    "no term": Case(lambda observed: model(data=LOST, observed=observed), {"observed": ""}, {"observed": "1"}),
    "rows with an outcome": Expression(
        lambda: model(data=LOST).fit().balance(between="observed"), lambda: model(data=LOST, observed="x1 + x2"),
        made=model, LOST=LOST, fill={"from_formula(..., ": "made(data=LOST, "},
    ),
    "an arm without": Expression(
        lambda: model(data=DATA.assign(y=DATA.y.where(DATA.drug == "drug")), treat="drug", treated="drug"),
        lambda: DATA[DATA.drug == "placebo"],
    ),
    "estimators of quantiles": Case(
        lambda estimators: compared(estimators=estimators, effect="quantile", quantiles=0.5),
        {"estimators": ["Hajek", "JRE"]}, {"estimators": ["Hajek", "AIPW"]},
    ),
    "target of the filled": Case(
        lambda missing: model(data=GAPPY, target=DATA.head(50), missing=missing).fit(),
        {"missing": "indicator"}, {"missing": "drop"},
    ),
    "indicator of a scan": Case(
        lambda missing: model(data=causalrisk.scan([GAPPY]), missing=missing).fit(),
        {"missing": "indicator"}, {"missing": "drop"},
    ),
    "indicator of arrays": Expression(
        lambda: IPWRA(GAPPY.y, GAPPY[["x1", "x2"]], GAPPY.d, missing="indicator"),
        lambda: model(data=GAPPY, missing="indicator"), fill={"from_formula": "IPWRA.from_formula"}, data=GAPPY,
    ),
    "name of an indicator": Expression(
        lambda: filled(data=GAPPY.assign(x1_missing=1)), lambda: filled(data=GAPPY),
        fill={"data=": "filled(", '_0"})': '_0"}))'}, data=GAPPY.assign(x1_missing=1), filled=lambda data: filled(data),
    ),
    "permutations": Expression(
        lambda: model(data=LOST, observed="x1").fit().permutation_test(9),
        lambda: model(data=LOST, observed="x1").fit().pvalues, res=lambda: model(data=LOST, observed="x1").fit(),
    ),
}  # fmt: skip


GROUPS = {
    "formula": FORMULAS, "whole": WHOLE, "column": COLUMNS, "model": MODEL, "fit": OF_FIT,
    "call": FIT_EXPRESSIONS, "results": RESULTS, "more": MORE, "further": FURTHER, "joint": JOINT, "habit": HABITS,
    "command": COMMANDS, "installed": INSTALLED, "broken": BROKEN, "benchmark": BENCHMARK, "exposure": EXPOSURE,
    "scan": SCANS, "learner": LEARNERS, "survey": SURVEYS, "change": CHANGES, "missing": MISSING,
    "permutation": PERMUTATIONS,
}  # fmt: skip
CASES = {f"{group}: {name}": case for group, cases in GROUPS.items() for name, case in cases.items()}
HEARD: dict[str, Told] = {}


def heard(name):
    """What the refused call of a case told, once."""
    if name not in HEARD:
        HEARD[name] = CASES[name].provoke()
    return HEARD[name]


@pytest.mark.filterwarnings("ignore::causalrisk.CausalRiskWarning")
@pytest.mark.parametrize("name", CASES)
def test_advice_gives_what_was_meant(name):
    case = CASES[name]
    assert seen(case.follow(heard(name))) == seen(case.outcome()), heard(name).advice


def test_no_advice_is_untried():
    messages = [heard(name) for name in CASES]
    untried = [site for site in sites() if not any(site.told_by(m.message, m.run) for m in messages)]
    assert [f"{site.file}, line {site.lines.start}: {site.text}" for site in untried] == []


HOW_TEXTS_ARE_BUILT = """
TABLE = {"seed": "Type  rng=1."}
def helper(name):
    'Type  nothing: a docstring'
    return f"Type  {name}={name!r:>3}  or  {{braces}}"
class Owner:
    def method(self, x, known):
        start = f"{x} is not known; expected {', '.join(known)}.\\n"
        if x:
            raise ValueError(
                f"{x} is odd.\\n"
                'Type  odd="yes"'
                f"  for {x}."
            )
        raise ValueError(start + ("Type  a=1." if known else f"Type  {known[0]}={f'type  {x}'}.") + "%s" % "Type  %d")
"""


def test_texts_are_found_however_they_are_built():
    texts = [(site.function, site.text, list(site.lines)) for site in sites_of(HOW_TEXTS_ARE_BUILT, "here.py")]
    assert texts == [
        ("", "Type  rng=1.", [2]),
        ("helper", "Type  {}={}  or  {braces}", [5]),
        ("method", '{} is odd.\nType  odd="yes"  for {}.', [11, 12, 13]),
        ("method", "Type  a=1.", [15]),
        ("method", "Type  {}={}.", [15]),
        ("method", "type  {}", [15]),
        ("method", "Type  %d", [15]),
    ]


def test_a_text_is_told_by_the_line_that_makes_it():
    """One whose words another message of the same function happens to have is not."""
    (site,) = sites_of('def f(x):\n    return f"Type  {x}."\n', "here.py")
    assert site.told_by("Type  a=1.", {("here.py", 2)}) and not site.told_by(
        "Type  a=1.", {("here.py", 1), ("b.py", 2)}
    )
    assert not site.told_by("Leave it out.", {("here.py", 2)})


def test_what_to_type_stands_behind_two_blanks():
    """By which it is found, by readers and by the tests above."""
    sources = [path.read_text("utf-8") for path in package_files()]
    suspected = [source for source in sources if SAID_OTHERWISE.search(source)]  # comments and docstrings among them
    assert [site.text for source in suspected for site in sites_of(source, "", SAID_OTHERWISE)] == []
