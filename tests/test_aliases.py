"""Every word of other packages in the table is read with a note, or refused with its sentence."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

import causalrisk
from causalrisk import AIPW, IPWRA, JRE, compare
from causalrisk.errors.aliases import ANSWERS, ATTRIBUTES, NAMES, VALUES
from tests.conftest import simulate

ROWS = np.arange(120)
DATA = simulate(n=120, seed=3).assign(
    score=0.4 + 0.2 * (ROWS % 2), w=1 + ROWS % 3, site=ROWS % 40, ill=lambda data: (data.y > 0).astype(int)
)
DATA["gap"] = DATA["y"].where(ROWS % 9 > 0)
GIVEN = {  # a value of each option, and the other options that it needs
    "treat": ("d", {}),
    "propensity": ("x1", {}),
    "propensity_score": ("score", {}),
    "target": ("treated", {}),
    "cluster": ("site", {}),
    "weights": ("w", {}),
    "offset": ("x2", {}),
    "exposure": ("w", {"formula": "site ~ x1", "family": "poisson", "at_exposure": "observed"}),
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
}
OF_FIT = {"rng": 1, "n_boot": 19, "cov_type": "robust", "n_jobs": 1, "progress": False}


def words(table):
    return [(word, option) for option, several in table.items() for word in several.split()]


def model(formula="y ~ x1 + x2", model_class=AIPW, **options):
    return model_class.from_formula(formula, DATA, **{"treat": "d"} | options)


@pytest.mark.parametrize(("word", "option"), words(NAMES["model"]))
def test_options_of_models(word, option):
    value, more = GIVEN[option]
    options = more | {word: value} | ({"treat": None} if option == "treat" else {})
    res = model(**options).fit()
    assert f"`{word}` was read as `{option}`." in " ".join(str(res.summary()).split())
    if option != "weights":
        assert res.effect == model(**more | {option: value}).fit().effect


@pytest.mark.parametrize(("word", "option"), words(NAMES["fit"]))
@pytest.mark.filterwarnings("ignore::causalrisk.CausalRiskWarning")
def test_options_of_fit(word, option):
    fitted = model(model_class=IPWRA)
    res = fitted.fit(**{word: OF_FIT[option]})
    assert f"`{word}` was read as `{option}`." in " ".join(str(res.summary()).split())
    assert res.effect_se == fitted.fit(**{option: OF_FIT[option]}).effect_se


@pytest.mark.parametrize("word", ["freq_weights", "sample_weight"])
def test_a_word_for_weights_says_their_type(word):
    kind = "frequency" if word == "freq_weights" else "probability"
    assert model(**{word: "w"}).fit().effect_se == model(weights="w", weight_type=kind).fit().effect_se


VALUED = ["effect", "propensity_loss", "propensity_link", "family", "cov_type", "bootstrap", "learner_use"]


@pytest.mark.parametrize(("word", "option", "value"), [(w, o, v) for o in VALUED for w, v in words(VALUES[o])])
@pytest.mark.filterwarnings("ignore::causalrisk.CausalRiskWarning")
def test_values(word, option, value):
    of_fit = option in ("cov_type", "bootstrap")
    options = {"formula": "ill ~ x1", "family": "binomial"} if option in ("effect", "family") else {}
    options = {} if value == "quantile" else options
    options |= {"cluster": "site"} if value == "cluster" else {}
    if option == "learner_use":
        options |= {"learner": "smooth", "model_class": JRE if value == "stack" else AIPW}
    fit = {"n_boot": 19} if "boot" in (option, value) or value in ("bootstrap", "pairs", "bayesian") else {}
    fit |= {"n_boot": 19} if option == "bootstrap" else {"cov_type": "robust"} if value == "stack" else {}
    said, meant = ({option: one} for one in (word, value))
    link = {"link": "probit"} if word == "probit" and option == "family" else {}
    got = model(**options | ({} if of_fit else said)).fit(**fit | (said if of_fit else {}))
    wanted = model(**options | link | ({} if of_fit else meant)).fit(**fit | (meant if of_fit else {}))
    assert np.array_equal(got.bse, wanted.bse) and f"`{option}={word!r}` was read as" in str(got.summary())


@pytest.mark.parametrize("word", " ".join(ANSWERS["model"]).split())
def test_options_that_models_do_not_have(word):
    with pytest.raises(TypeError, match=f"unknown option `{word}`"):
        model(**{word: "x1"})


@pytest.mark.parametrize("word", " ".join(ANSWERS["fit"]).split())
def test_options_that_fits_do_not_have(word):
    with pytest.raises(TypeError, match=f"unknown option `{word}`"):
        model().fit(**{word: 1})


@pytest.mark.parametrize("word", ["nonrobust", "hac", "hc2", "cr1"])
def test_standard_errors_that_would_be_others_are_refused(word):
    with pytest.raises(causalrisk.OptionError, match="cov_type"):
        model().fit(cov_type=word)


@pytest.mark.parametrize(("word", "name"), words(ATTRIBUTES))
def test_attributes_of_results(word, name):
    res = model(learner="smooth" if name == "learner_fit" else None).fit(n_boot=19, rng=1)
    got, wanted = getattr(res, word), getattr(res, name)
    assert got == wanted if callable(got) or np.isscalar(got) else np.array_equal(got, wanted)


@pytest.mark.parametrize("word", " ".join(ANSWERS["results"]).split())
def test_attributes_that_results_do_not_have(word):
    res = model(target="entropy").fit()
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
    ({"formula": "ill ~ x1", "family": "probit", "link": "logit"}, "link='probit'"),
])  # fmt: skip
def test_a_word_that_says_two_options_is_not_contradicted(options, what):
    with pytest.raises(TypeError, match=what):
        model(**options)
    assert model(pweights="w", weight_type="pw").fit().effect == model(pweights="w").fit().effect


def test_words_of_event_studies():
    frame = pd.DataFrame({"unit": np.repeat(np.arange(90), 4), "year": np.tile([1, 2, 3, 4], 90)})
    frame["first"] = np.array([0, 3, 4])[frame.unit % 3]
    begun = (frame["first"] > 0) & (frame.year >= frame["first"])
    frame["y"] = np.random.default_rng(0).normal(size=len(frame)) + begun
    options = {"begins": "first", "time": "year", "unit": "unit"}
    plain = causalrisk.event_study("y ~ 1", frame, **options, controls="not yet").effects()
    read = causalrisk.event_study("y ~ 1", frame, **options, control_group="notyettreated")
    pd.testing.assert_frame_equal(read.effects(), plain)
    assert "`control_group` was read as `controls`." in " ".join(str(read.summary()).split())


def test_estimators_by_other_names():
    both = compare("y ~ x1", DATA, treat="d", models=["iptw", "dr"], reps=19)
    assert list(both.table.index) == ["Hajek", "AIPW"]
    with pytest.raises(causalrisk.OptionError, match="bootstrap is not valid for matching"):
        compare("y ~ x1", DATA, treat="d", estimators=["psmatch"])


def test_a_classifier_for_the_score_is_named():
    with pytest.raises(TypeError, match="propensity_score="):
        model(ml_m=LogisticRegression())
