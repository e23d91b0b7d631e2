"""Every word of words.toml is said, and what its message tells to type is typed.

A new word needs a line here only if it is typed to an option that has no example in `EXAMPLES` yet, or if its text
leaves something open that is not in `KNOWN`.
"""

from __future__ import annotations

import pickle
import re
import tomllib
from io import BytesIO
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression

import causalrisk
from causalrisk import AIPW, IPWRA, JRE, DiD, OutcomeRegression, Survey, compare, etable, pool, table_one
from causalrisk.report.page.sections import ASSUMPTIONS
from causalrisk.simulation import run_study
from tests.advice import Told
from tests.conftest import simulate

N = 200
SIMULATED, ROWS = simulate(n=N, seed=3), np.arange(N)
DATA = SIMULATED.assign(
    y=1 / (1 + np.exp(-SIMULATED.y)),
    ill=(SIMULATED.y > 0).astype(int),
    score=1 / (1 + np.exp(-SIMULATED.x1)),
    g=np.array(["a", "b"])[ROWS // 2 % 2],
    w=1 + ROWS % 3,
    u=1 + ROWS % 4 / 2,
    site=ROWS % 40,
    k=ROWS // 6 % 3,
    size=400,
    y0=SIMULATED.x3,
    id=ROWS,
    **{f"r{j}": np.where(j == ROWS % 40 % 4, 0.0, 4 / 3 * (1 + ROWS % 3)) for j in range(4)},
)
STAGGERED = pd.concat([DATA.assign(year=k, y=DATA.y + k * DATA.x3, first=np.where(DATA.d, 1, 9)) for k in (-1, 0, 1)])
X = DATA[["x1", "x2"]].assign(const=1.0)
TABLES = tomllib.loads((Path(causalrisk.__file__).parent / "errors" / "words.toml").read_text("utf-8"))
EXAMPLES = {  # for each option
    "quantiles": 0.5,
    "treat": "d", "reference": 0, "treated": 1, "propensity": "x1", "propensity_score": "score", "cluster": "site",
    "weights": "w", "exposure": "u", "offset": "x3", "target": 1, "trim": (0.1, 0.9), "clip": (0.1, 0.9),
    "effect": "ratio", "propensity_link": "probit", "n_folds": 3, "n_repeats": 3, "learner": "smooth",
    "coefficients": True, "alpha": 0.1,
    "n_boot": 20, "rng": 1, "n_jobs": 1, "cov_type": "HC1", "n_replicates": 20, "estimators": ["Hajek"],
    "n_permutations": 9,
    "design": "linear", "n_sims": 2, "data": DATA, "arm": 1, "also": ["x1"], "by": "g", "covariates": ["x1"],
    "median": ["x1"], "df_complete": 50, "title": "Effects", "names": ["a"],
    "psu": "site", "strata": "g", "fpc": "size", "replicate_weights": "r*", "replicate_type": "JK1", "rho": 0.5,
    "combined": True,
    "before": "y0", "time": "year", "unit": "id", "begins": "first", "normalize": False,
    "rename": {"ATE": "Effect"}, "drop": ["POM[0]"],
    "figsize": (3, 2), "query": "x1 > 0", "effects_by": "g", "t_test": [1, 0, 0], "from_formula": "y ~ x1",
}  # fmt: skip
GIVEN = {  # for each kind of rule
    "text": "x1 > 0", "share": 0.9, "yes": True, "no": False, "classifier": LogisticRegression(),
    "mapping": {"maxlags": 1}, "learner": LinearRegression(),
}  # fmt: skip
KNOWN = {  # what a message leaves open
    "permutation_test()": "permutation_test(2)",
    'event_study("y ~ x1 + x2", data': 'event_study("y ~ x1", STAGGERED',
    'cluster="column"': 'cluster="site"', '"column"': '"g"', '"psu"': '"site"', '"stratum"': '"g"',
    "data[...]": "data[data.x1 > 0]",
    "wald_test(...)": 'wald_test("ATE = 0")', "t_test(...)": 't_test("ATE = 0")',
}  # fmt: skip


def model(estimator=IPWRA, /, **options):
    return estimator.from_formula(**({"formula": "y ~ x1 + x2", "data": DATA, "treat": "d"} | options))


def fit(**options):
    return model().fit(**options)


TRIAL = model(OutcomeRegression, formula="y ~ x1 + g").fit()
RES = model(formula="y ~ x1 + x2 + g", learner="smooth").fit(n_boot=200)


def event_study(*given, **options):
    """As in a message, whose data have no periods."""
    usual = {"data": STAGGERED, "begins": "first", "time": "year", "unit": "id"}
    return causalrisk.event_study("y ~ x1", **usual | options)


STUDY = event_study()


def from_formula(*given, **options):
    """As in a message, which leaves open what all models have: dots, and the data."""
    texts = [part for part in given if isinstance(part, str)]
    return model(**({"formula": texts[0]} if texts else {}) | options)


class Open:
    """A class of models in a message."""

    def __init__(self, kind):
        self.kind = kind

    def from_formula(self, *given, **options):
        return model(self.kind, **options)

    def __call__(self, *given):
        return self.kind(*given)


def surveyed(**options):
    return model(design=Survey(**({"weights": "w", "replicate_weights": "r*", "replicate_type": "JK1"} | options)))


def changes(**options):
    """As typed; the data have a row for each unit, so that the fit is of two columns."""
    return DiD(before="y0") if DiD(**options).before is None else DiD(**options)


def from_arrays(**options):
    return AIPW(DATA.y, X, DATA.d, **options)


def by_option(calls):
    """A function of one option that is called with it by the function that has it."""

    def call(**options):
        return calls.get(next(iter(options)), calls[None])(**options)

    return call


METHODS = by_option({
    None: RES.conf_int, "data": RES.predict, "arm": lambda **o: RES.predict(DATA, **o), "ax": RES.plot_overlap,
    "adjust": RES.pairwise, "alternative": lambda **o: RES.t_test("ATE", **o),
    "threshold": RES.balance, "interactions": RES.balance, "coefficients": RES.summary, "method": RES.conf_int,
    "also": lambda **o: RES.balance(data=DATA, **o), "n_permutations": lambda **o: TRIAL.permutation_test(**o),
    "strata": lambda **o: TRIAL.permutation_test(9, **o), "rng": lambda **o: TRIAL.permutation_test(9, **o),
})  # fmt: skip
MADE = by_option({
    None: lambda **o: etable([RES], **o),
    "by": lambda **o: table_one(["x1"], DATA, **o),
    "covariates": lambda **o: table_one(data=DATA, by="d", **o),
    "median": lambda **o: table_one(["x1"], DATA, by="d", **o),
    "df_complete": lambda **o: pool([RES, RES], **o),
})  # fmt: skip
CALLS = {
    "from_formula": model,
    "event_study": event_study,
    "survey": surveyed,
    "did": lambda **o: model(AIPW, did=DiD(**({"before": "y0"} | o))),
    "arrays": from_arrays,
    "fit": fit,
    "fit_separate": fit,
    "compare": lambda **o: compare(**{"formula": "y ~ x1", "data": DATA, "treat": "d", "n_boot": 9} | o),
    "run_study": lambda **o: run_study(**{"design": "linear", "n": [80], "n_sims": 2, "estimators": ["Hajek"]} | o),
    "methods": METHODS,
    "tables": MADE,
    "estimators": lambda estimators: compare("y ~ x1", DATA, treat="d", estimators=np.atleast_1d(estimators).tolist()),
    "target": model,
    "family": model,
    "function": lambda **o: model(formula=f"{next(iter(o))}(x1, x2) ~ x1"),
}
OF_VALUES = ("estimators", "target", "family")
ATTRIBUTES = {
    "results": RES, "model": RES.model, "data": RES.model.data, "class": IPWRA, "package": causalrisk, "study": STUDY,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a saved fit."""
    folder = tmp_path_factory.mktemp("words")
    RES.save(folder / "fit.pickle")
    return folder


TABLE = etable([RES])


@pytest.fixture
def names(folder, monkeypatch):
    """What a message names, in a folder with a saved fit."""
    monkeypatch.chdir(folder)
    return {
        "res": RES, "res1": RES, "res2": RES, "table": TABLE, "data": DATA, "y": DATA.y, "X": X, "d": DATA.d,
        "plt": plt, "causalrisk": causalrisk, "LogisticRegression": LogisticRegression,
        "LinearRegression": LinearRegression, "from_formula": from_formula,
        "fit": fit, "model": RES.model, "AIPW": Open(AIPW), "IPWRA": Open(IPWRA), "JRE": Open(JRE), "Survey": Survey,
        "DiD": changes, "STAGGERED": STAGGERED, "event_study": event_study, "study": STUDY, "group": 1, "time": 1,
        "pickle": pickle, "file": BytesIO(),
    }  # fmt: skip


def message(call):
    """What a call raises, as text."""
    with pytest.raises((ValueError, TypeError, AttributeError)) as caught:
        call()
    return str(caught.value)


def entries(place):
    """Words and rule of each text of a table."""
    for words, entry in TABLES["instead"][place].items():
        for rule in entry if isinstance(entry, list) else [{"say": entry}]:
            yield pytest.param(place, words.split(), rule, id=f"{place}: {words.split()[0]}: {rule['say'][:40]}")


def example_for(rule):
    """What is given so that a rule of an entry fits, and its text can be typed."""
    text, option = rule["say"], rule.get("word_of", rule.get("like"))
    if "example" in rule:
        return rule["example"]
    if "kind" in rule:
        return GIVEN[rule["kind"]]
    if "words" in rule:
        return rule["words"].split()[0]
    if option:
        return {"target": "ATT", "propensity_link": "logistic"}.get(option) or next(
            word for words in TABLES["values"].get(option, {}).values() for word in words.split() if word != "pomeans"
        )
    if "{less}" in text:
        return 0.9
    if "{bare}" in text:
        return "y" if "~" in text else "g"
    asked = re.search(r"(\w+)(?:=|\()\{(?:value|pair)\}", text)
    return EXAMPLES[asked[1]] if asked else ...


def carry_out(code, call, names):
    """Do what a message tells to type: an option of the same call, a term of a formula, or an expression."""
    for text, own in KNOWN.items():
        code = code.replace(text, own)
    option = re.fullmatch(r"(\w+)=(\.\.\.)?", code)
    if option:
        return call(**{option[1]: EXAMPLES[option[1]]})
    if code.startswith("C("):
        return model(formula=f"y ~ x1 + {code}")
    if re.match(r"\w+=", code):
        return call(**eval(f"dict({code})", dict(names)))
    return eval(code, dict(names))


def said_and_done(text, rule, call, names):
    """Check a message against the text it is made of, and carry out what it tells to type, each alternative."""
    assert not re.search(r"\{\w+\}", text), text
    assert all(part in text for part in re.split(r"\{[^}]*\}", rule["say"])), text
    if rule["say"].startswith("{not here"):
        assert TABLES["not_here"][re.search(r"\w+(?=\})", rule["say"])[0]] in text
    if "Type  " in rule["say"]:
        for code in Told(text).codes():
            assert carry_out(code, call, names) is not ..., code
        plt.close("all")


PLACES = [p for place in TABLES["instead"] for p in entries(place)]


@pytest.mark.parametrize(("place", "words", "rule"), PLACES)
@pytest.mark.filterwarnings("ignore::causalrisk.CausalRiskWarning")
def test_what_others_type_is_told_what_to_type(place, words, rule, names):
    """All words of an entry, of which the advice of the first is carried out."""
    given, call = example_for(rule), CALLS.get(place)
    if place in ATTRIBUTES:
        texts = [message(lambda w=word: getattr(ATTRIBUTES[place], w)) for word in words]
    elif place in OF_VALUES:
        texts = [message(lambda w=word: call(**{place: w})) for word in words]
    else:
        texts = [message(lambda w=word: call(**{w: given})) for word in words]
    said_and_done(texts[0], rule, call, names)
    assert "{name}" in rule["say"] or len({text.split("\n", 1)[1] for text in texts}) == 1


def clustered(asked):
    return model(cluster="site" if asked == "cluster" else None)


USERS = {"stack": JRE, "replace": AIPW}  # of predictions
OPTIONS = {
    "adjust": RES.pairwise, "alternative": lambda **o: RES.t_test("ATE", **o),
    "effect": model, "propensity_loss": model, "propensity_link": model, "method": RES.conf_int,
    "cov_type": lambda **o: clustered(o["cov_type"]).fit(**o),
    "bootstrap": lambda **o: clustered(o["bootstrap"]).fit(n_boot=20, **o),
    "multiplier": lambda **o: fit(bootstrap="multiplier", n_boot=20, **o),
    "lonely": lambda **o: Survey(weights="w", **o),
    "replicate_type": lambda **o: Survey(weights="w", replicate_weights="r*", rscales=1, **o),
    "below": lambda **o: etable([RES], **o),
    "at_exposure": lambda **o: model(formula="ill ~ x1", exposure="u", family="poisson", **o),
    "weight_type": lambda **o: model(weights="w", **o),
    "learner": model,
    "learner_use": lambda **o: model(USERS.get(o["learner_use"], IPWRA), learner="smooth", **o),
    "family": lambda **o: model(formula="ill ~ x1", **o),
    "assumptions": lambda **o: RES.report("page.html", **o),
    "controls": event_study,
    "by": STUDY.effects,
}  # fmt: skip
VALUES = [(o, v, w) for o in OPTIONS for v, words in TABLES["values"][o].items() for w in words.split()]


@pytest.mark.parametrize(("option", "value", "word"), VALUES)
@pytest.mark.filterwarnings("ignore::causalrisk.CausalRiskWarning")
def test_a_word_for_a_value_is_told_the_value(option, value, word, names):
    """Which the option takes; where there is none it is said why."""
    call, given = OPTIONS[option], {word: "Drawn."} if option == "assumptions" else word
    text = message(lambda: call(**{option: given}))
    sentences = [s for words, s in TABLES["explained"].get(option, {}).items() if word in words.split()]
    assert all(sentence in text for sentence in sentences)
    if not value:
        assert sentences
    elif option == "assumptions":
        assert eval(f"dict({Told(text).codes()[0]})") == {option: {value: "..."}} and value in ASSUMPTIONS
    else:
        typed = eval(f"dict({Told(text).codes()[0]})")
        links = {w: link for link, words in TABLES["values"]["link_of_family"].items() for w in words.split()}
        assert typed == {option: value} | ({"link": links[word]} if option == "family" and word in links else {})
        call(**typed)


def test_every_table_is_read():
    assert set(TABLES["instead"]) == set(CALLS) | set(ATTRIBUTES)
    assert set(TABLES["values"]) == {*OPTIONS, "link_of_family"}
    assert set(TABLES["explained"]) <= {*OPTIONS, "stars"}
    assert set(TABLES) == {
        "not_here", "values", "explained", "instead", "functions", "functions_of_one", "populations",
        "references",
    }  # fmt: skip


def test_every_reference_is_cited():
    code = "".join(path.read_text("utf-8") for path in Path(causalrisk.__file__).parent.rglob("*.py"))
    assert [key for key in TABLES["references"] if f'"{key}"' not in code] == []


@pytest.mark.parametrize("place", TABLES["instead"])
def test_a_word_stands_once_in_a_table_and_rules_end_with_one_that_always_fits(place):
    words = [word for several in TABLES["instead"][place] for word in several.split()]
    assert [word for word in words if words.count(word) > 1] == []
    assert all(set(entry[-1]) == {"say"} for entry in TABLES["instead"][place].values() if isinstance(entry, list))


ARGUMENTS = {"C({x})": "k", "interaction": "k, w", "cbind": "w, u", "ifelse": "x1 > 0, 1, 0", "cut": "x1, [-9, 0, 9]",
             "relevel": "k, ref = 1"}  # fmt: skip


@pytest.mark.parametrize(("word", "text"), [(w, t) for words, t in TABLES["functions"].items() for w in words.split()])
def test_a_function_of_others_is_told_the_term(word, text):
    called = f"base::{word}" if word == "scale" else word  # which is a function here, too
    given = ARGUMENTS.get(word, ARGUMENTS.get(text, "score"))
    term = Told(message(lambda: model(formula=f"y ~ {called}({given})"))).codes()[0]
    assert model(formula=f"y ~ {term}").design.X.shape[0] == N


@pytest.mark.parametrize("word", TABLES["functions_of_one"])
def test_a_spline_without_its_degrees_of_freedom_is_told_them(word):
    term = Told(message(lambda: model(formula=f"y ~ {word}(x1)"))).codes()[0]
    assert model(formula=f"y ~ {term}").design.X.shape[0] == N
