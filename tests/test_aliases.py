"""Every word of other packages in the table is read with a note, or refused with its sentence."""

import functools

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

import causalrisk
from causalrisk import AIPW, IPWRA, JRE, DiD, Matching, Survey, compare, etable, pool, simulation, table_one
from causalrisk.errors.aliases import ANSWERS, ATTRIBUTES, NAMES, VALUES
from tests.conftest import simulate

ROWS = np.arange(120)
DATA = simulate(n=120, seed=3).assign(
    score=0.4 + 0.2 * (ROWS % 2), w=1 + ROWS % 3, site=ROWS % 40, ill=lambda data: (data.y > 0).astype(int)
)
DATA["gap"] = DATA["y"].where(ROWS % 9 > 0)
DATA["z"] = np.where(ROWS % 4, DATA["d"], 1 - DATA["d"])
GIVEN = {  # a value of each option, and the other options that it needs
    "treat": ("d", {}),
    "propensity": ("x1", {}),
    "propensity_score": ("score", {}),
    "propensity_link": ("probit", {}),
    "target": ("treated", {}),
    "family": ("gaussian", {}),
    "cluster": ("site", {}),
    "weights": ("w", {}),
    "observed": ("x1", {"formula": "gap ~ x1"}),
    "learner": ("smooth", {}),
    "n_folds": (3, {"learner": "smooth"}),
    "n_repeats": (3, {"learner": "smooth"}),
    "reference": (0, {}),
    "treated": (1, {}),
    "effect": ("difference", {}),
    "quantiles": (0.5, {"effect": "quantile"}),
    "trim": ((0.01, 0.99), {}),
    "clip": ((0.01, 0.99), {}),
    "missing": ("drop", {}),
    "n_neighbors": (2, {"model_class": Matching}),
    "metric": ("propensity", {"model_class": Matching}),
    "bias_adjust": (True, {"model_class": Matching}),
}
OF_FIT = {"rng": 1, "n_boot": 19, "cov_type": "robust", "n_jobs": 1, "progress": False, "shrinkage": 3}


def words(table):
    return [(word, option) for option, several in table.items() for word in several.split()]


def model(formula="y ~ x1 + x2", model_class=AIPW, **options):
    return model_class.from_formula(formula, DATA, **{"treat": "d"} | options)


@functools.cache
def wanted_of(option):
    """The fit with an option of models by its own name."""
    value, more = GIVEN[option]
    return model(**more | {option: value}).fit()


@functools.cache
def plain(model_class=AIPW):
    return model(model_class=model_class)


@pytest.mark.parametrize(("word", "option"), words(NAMES["model"]))
def test_options_of_models(word, option):
    value, more = GIVEN[option]
    options = more | {word: value} | ({"treat": None} if option == "treat" else {})
    made = model(**options)
    assert f"`{word}` is an alias of `{option}`." in made.options.read_as  # of which summaries have notes, as below
    if option != "weights":
        assert made.fit().effect == wanted_of(option).effect


@pytest.mark.parametrize(("word", "option"), words(NAMES["fit"]))
@pytest.mark.filterwarnings("ignore::causalrisk.CausalRiskWarning")
def test_options_of_fit(word, option):
    fitted = plain(JRE if option == "shrinkage" else IPWRA)
    res = fitted.fit(**{word: OF_FIT[option]})
    assert f"`{word}` is an alias of `{option}`." in " ".join(str(res.summary()).split())
    assert res.effect_se == fitted.fit(**{option: OF_FIT[option]}).effect_se


@pytest.mark.parametrize("word", ["freq_weights", "sample_weight"])
def test_a_word_for_weights_says_their_type(word):
    kind = "frequency" if word == "freq_weights" else "probability"
    assert model(**{word: "w"}).fit().effect_se == model(weights="w", weight_type=kind).fit().effect_se


VALUED = ["effect", "propensity_loss", "propensity_link", "family", "cov_type", "bootstrap"]


@functools.cache
def fitted_with(options, fit):
    """A fit with these items of dictionaries."""
    return model(**dict(options)).fit(**dict(fit))


@pytest.mark.parametrize(("word", "option", "value"), [(w, o, v) for o in VALUED for w, v in words(VALUES[o])])
@pytest.mark.filterwarnings("ignore::causalrisk.CausalRiskWarning")
def test_values(word, option, value):
    of_fit = option in ("cov_type", "bootstrap")
    options = {"formula": "ill ~ x1", "family": "binomial"} if option in ("effect", "family") else {}
    options = {} if value == "quantile" else options
    options |= {"cluster": "site"} if value in ("cluster", "CR3") else {}
    fit = {"n_boot": 19} if "boot" in (option, value) or value in ("bootstrap", "pairs", "bayesian") else {}
    fit |= {"n_boot": 19} if option == "bootstrap" else {}
    said, meant = ({option: one} for one in (word, value))
    got = model(**options | ({} if of_fit else said)).fit(**fit | (said if of_fit else {}))
    options, fit = options | ({} if of_fit else meant), fit | (meant if of_fit else {})
    wanted = fitted_with(tuple(options.items()), tuple(fit.items()))
    noted = f"`{option}={word!r}` was read as" in " ".join(got.model.options.read_as)
    assert np.array_equal(got.bse, wanted.bse) and noted == (word != value.casefold())


@pytest.mark.parametrize("word", " ".join(ANSWERS["model"]).split())
def test_options_that_models_do_not_have(word):
    with pytest.raises(TypeError, match=f"unknown option `{word}`"):
        model(**{word: "x1"})


@pytest.mark.parametrize("word", " ".join(ANSWERS["fit"]).split())
def test_options_that_fits_do_not_have(word):
    with pytest.raises(TypeError, match=f"unknown option `{word}`"):
        plain().fit(**{word: 1})


def test_estimators_typed_as_options_and_several_targets():
    with pytest.raises(causalrisk.OptionError, match=r"`target='ATE'` with one fit per target, and `etable"):
        model(target=["ATE", "ATT"])
    res = model().fit()
    assert str(causalrisk.etable(estimators=[res])) == str(causalrisk.etable([res]))


ANSWERED = ["cov_type", "bootstrap", "target", "weight_type", "learner", "family", "adjust"]


@pytest.mark.parametrize(
    ("option", "word"), [(option, word) for option in ANSWERED for word in " ".join(ANSWERS[option]).split()]
)
def test_values_that_have_no_counterpart(option, word):
    sentence = next(text for words, text in ANSWERS[option].items() if word in words.split())
    given, more = {option: word.replace("*", "qq").upper()}, {"weights": "w"} if option == "weight_type" else {}
    with pytest.raises(causalrisk.OptionError) as caught:
        if option in ("cov_type", "bootstrap"):
            plain().fit(**given)
        elif option == "adjust":
            fitted_with((), ()).pairwise(**given)
        else:
            model(**given, **more)
    assert str(caught.value).endswith(sentence)


@pytest.mark.parametrize(("word", "name"), words(ATTRIBUTES))
def test_attributes_of_results(word, name):
    options = (("learner", "smooth"),) if name == "learner_fit" else ()
    res = fitted_with(options, (("n_boot", 19), ("rng", 1)))
    got, wanted = getattr(res, word), getattr(res, name)
    assert got == wanted if callable(got) or np.isscalar(got) else np.array_equal(got, wanted)


@pytest.mark.parametrize("word", " ".join(ANSWERS["results"]).split())
def test_attributes_that_results_do_not_have(word):
    res = fitted_with((("target", "entropy"),), ())
    with pytest.raises(AttributeError) as caught:
        getattr(res, word)
    assert "`" in str(caught.value).splitlines()[-1]


@pytest.mark.parametrize("word", " ".join(ANSWERS["package"]).split())
def test_names_that_the_package_does_not_have(word):
    with pytest.raises(AttributeError, match=word):
        getattr(causalrisk, word)


def test_a_name_given_twice_and_an_unknown_one():
    with pytest.raises(TypeError, match="`treat`"):
        model(treatment="d")
    with pytest.raises(TypeError, match="`family`"):
        model(famly="binomial")
    with pytest.raises(TypeError, match=r"fit\(rng="):
        model(rng=1)
    with pytest.raises(TypeError, match=r"from_formula\(cluster="):
        model().fit(cluster="site")


@pytest.mark.parametrize(("options", "what"), [
    ({"pweights": "w", "weight_type": "frequency"}, "weight_type='probability'"),
    ({"fweights": "w", "weight_type": "probability"}, "weight_type='frequency'"),
])  # fmt: skip
def test_a_word_that_says_two_options_is_not_contradicted(options, what):
    with pytest.raises(TypeError, match=what):
        model(**options)
    assert model(pweights="w", weight_type="pw").fit().effect == model(pweights="w").fit().effect


@pytest.mark.usefixtures("few_points")
def test_words_of_event_studies():
    frame = pd.DataFrame({"unit": np.repeat(np.arange(90), 3), "year": np.tile([1, 2, 3], 90)})
    frame["first"] = np.array([0, 2, 3])[frame.unit % 3]
    begun = (frame["first"] > 0) & (frame.year >= frame["first"])
    frame["y"] = np.random.default_rng(0).normal(size=len(frame)) + begun
    options = {"begins": "first", "time": "year", "unit": "unit"}
    plain = causalrisk.event_study("y ~ 1", frame, **options, controls="not yet").effects()
    read = causalrisk.event_study("y ~ 1", frame, **options, control_group="notyettreated")
    pd.testing.assert_frame_equal(read.effects(), plain)
    assert "`control_group` is an alias of `controls`." in " ".join(str(read.summary()).split())
    pd.testing.assert_frame_equal(read.effects(level=0.9), read.effects(alpha=0.1))
    assert str(read.summary(level=0.9)) == str(read.summary(alpha=0.1))
    assert causalrisk.event_study("y ~ 1", frame, **options, base_period="varying").given["base"] == "varying"
    with pytest.raises(TypeError, match="`alpha` and `level` are both names of the option `alpha`"):
        read.effects(alpha=0.1, level=0.9)


def test_estimators_by_other_names():
    both = compare("y ~ x1", DATA, treat="d", models=["iptw", "dr"], reps=19)
    assert list(both.table.index) == ["IPW", "AIPW"]
    with pytest.raises(causalrisk.OptionError, match="bootstrap is not valid for matching"):
        compare("y ~ x1", DATA, treat="d", estimators=["nnmatch"])
    with pytest.raises(causalrisk.OptionError, match='`Matching`, with `metric="propensity"`'):
        compare("y ~ x1", DATA, treat="d", estimators=["psmatch"])


def test_a_link_in_capitals_says_nothing_of_the_outcome():
    assert model(propensity_link="Probit").fit().effect == model(propensity_link="probit").fit().effect


def test_a_classifier_for_the_score_is_read():
    score = LogisticRegression()
    assert model(ml_m=score).fit().effect == model(propensity_score=score).fit().effect
    with pytest.raises(causalrisk.DesignError, match="classifier"):
        model(propensity_score="random-forest")


@pytest.mark.parametrize("option", ["weights", "cluster"])
def test_a_column_after_a_tilde(option):
    more = {"weight_type": "probability"} if option == "weights" else {}
    assert model(**{option: "~w"}, **more).fit().effect_se == model(**{option: "w"}, **more).fit().effect_se


@pytest.mark.parametrize("word", [word for word in " ".join(ANSWERS["model"]).split() if "=" in word])
def test_the_value_of_an_option_decides_what_to_use(word):
    option, value = word.split("=")
    sentence = next(text for words, text in ANSWERS["model"].items() if word in words.split())
    with pytest.raises(TypeError) as caught:
        model(**{option: value.upper()})
    assert sentence in str(caught.value)


CALLS = {  # option of methods and functions: a call, and a value
    "alpha": (lambda res, **options: res.conf_int(**options), 0.1),
    "data": (lambda res, **options: res.predict(**options), DATA.head()),
    "arm": (lambda res, **options: res.predict(DATA.head(), **options), 1),
    "coefficients": (lambda res, **options: res.summary(**options), True),
    "threshold": (lambda res, **options: res.balance(**options), 0.1),
    "also": (lambda res, **options: res.balance(data=DATA, **options), "w"),
    "n_permutations": (lambda res, **options: res.permutation_test(**options), 5),
    "rng": (lambda res, **options: res.permutation_test(5, **options), 1),
    "names": (lambda res, **options: etable([res], **options), ["a"]),
    "rename": (lambda res, **options: etable([res], **options), {"ATE": "a"}),
    "df_complete": (lambda res, **options: pool([res, res], **options), 50),
    "by": (lambda _, **options: table_one(["x1"], DATA, **options), "d"),
    "covariates": (lambda _, **options: table_one(data=DATA, by="d", **options), ["x1"]),
    "median": (lambda _, **options: table_one(["x1"], DATA, **options), ["x1"]),
}


@pytest.fixture(scope="module")
def res():
    return model().fit()


@pytest.fixture(scope="module")
def called():
    """What calls give with an option by its own name."""
    return {}


@pytest.mark.parametrize(("word", "option"), [*words(NAMES["method"]), *words(NAMES["table_one"])])
@pytest.mark.filterwarnings("ignore::causalrisk.CausalRiskWarning")
def test_options_of_methods_and_functions(res, called, word, option):
    call, value = CALLS[option]
    given = 0.9 if option == "alpha" else value
    if option not in called:
        called[option] = str(call(res, **{option: value}))
    assert str(call(res, **{word: given})) == called[option]
    with pytest.raises(TypeError, match=word):
        call(res, **{option: value, word: value})


@pytest.mark.parametrize("level", [0.9, 90])
@pytest.mark.filterwarnings("ignore::causalrisk.DesignWarning")
def test_a_level_of_confidence_is_one_less_alpha(res, level):
    pd.testing.assert_frame_equal(res.confint(level=level), res.conf_int(0.1))
    both = pool([res, res]) if level == 90 else res
    pd.testing.assert_frame_equal(both.conf_int(conf_level=level), both.conf_int(0.1))
    with pytest.raises(causalrisk.OptionError, match=r"alpha=0\.05"):
        res.conf_int(level=0.05)
    together = compare("y ~ x1", DATA, treat="d", estimators=["IPW", "AIPW"], n_boot=19)
    late = causalrisk.LATE.from_formula("y ~ x1", DATA, treat="d", instrument="z").fit()
    for each in (res, both, together, late):
        assert str(each.summary(conf_level=level)) == str(each.summary(alpha=0.1))


@pytest.mark.parametrize(("word", "option"), words(NAMES["Survey"]))
def test_words_of_surveys(word, option):
    values = {"lonely": "adjust", "replicate_type": "BRR", "replicate_weights": "r*"}
    base = {"weights": "w", "replicate_weights": "r*", "replicate_type": "BRR"} if option[:3] == "rep" else {"psu": "u"}
    base = {"weights": "w"} if option == "psu" else base
    wanted = base | {option: values.get(option, "c")}
    given = {name: value for name, value in wanted.items() if name != option} | {word: values.get(option, "~c")}
    assert repr(Survey(**given)) == repr(Survey(**wanted))


def test_what_happens_to_lonely_units_is_read():
    assert Survey(psu="u", lonely="centered").lonely == "adjust"
    assert Survey(psu="u", lonely_psu="remove").lonely == "certainty"


@pytest.mark.parametrize(("word", "option"), words(NAMES["DiD"]))
def test_words_of_differences_in_differences(word, option):
    base = {"unit": "i"} if option == "time" else {"time": "s"} if option == "unit" else {}
    assert DiD(**base, **{word: "c"}) == DiD(**base, **{option: "c"})


@pytest.mark.parametrize(("word", "option"), words(NAMES["run_study"]))
def test_words_of_studies(word, option):
    given = {"n_sims": 2, "rng": 1, "design": "linear", "estimators": "IPWRA"}
    wanted = simulation.run_study(**given, n=60).raw
    value = given.pop(option)
    if option != "design":
        pd.testing.assert_frame_equal(simulation.run_study(**given, n=60, **{word: value}).raw, wanted)


REFUSED = {  # the calls whose words are in a table of answers
    "DiD": lambda _, **options: DiD(time="t", **options),
    "method": lambda res, **options: res.balance(**options),
}


@pytest.mark.parametrize(("place", "word"), [(p, word) for p in REFUSED for word in " ".join(ANSWERS[p]).split()])
def test_options_that_methods_do_not_have(res, place, word):
    sentence = next(text for words, text in ANSWERS[place].items() if word in words.split())
    with pytest.raises(TypeError) as caught:
        REFUSED[place](res, **{word: 1})
    assert f"unknown option `{word}`" in str(caught.value) and sentence in str(caught.value)


@pytest.mark.parametrize("call", [
    lambda res: res.summary(colour="red"), lambda res: res.plot_overlap(tresh=1), lambda res: res.nlcom("ATE", tol=1),
    lambda res: etable([res], colour="red"), lambda res: pool([res, res], frac=1), lambda res: Survey(stratta="s"),
    lambda res: table_one(["x1"], DATA, colour="red"), lambda res: simulation.run_study("linear", sims=3),
])  # fmt: skip
def test_other_options_name_the_nearest_or_all(res, call):
    with pytest.raises(TypeError, match=r"Did you mean `|The options are `|There are no options") as caught:
        call(res)
    assert "`self`" not in str(caught.value) and "`record`" not in str(caught.value)


def test_a_table_of_results_that_are_not_in_a_list(res):
    assert str(etable(res, res)) == str(etable([res, res]))
    assert str(etable(res, res, model_names=["a", "b"])) == str(etable([res, res], names=["a", "b"]))
    assert str(table_one(DATA, by="d")) == str(table_one(data=DATA, by="d"))


def test_the_group_of_the_effect_may_be_named_twice():
    assert model(estimand="ATT", focal=1).fit().estimand == model(target=1).fit().estimand
    with pytest.raises(TypeError, match=r"^`estimand` and `focal` are both .*`target`\.\nUse only `target=1`"):
        model(estimand="ATE", focal=1)


def test_options_of_a_changed_model_are_read(res):
    changed = res.model.with_options(estimand="ATT").fit()
    assert changed.effect == model(target="treated").fit().effect
    assert "`estimand` is an alias of `target`." in " ".join(str(changed.summary()).split())
