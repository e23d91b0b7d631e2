"""What goes with what: an estimator or a value of an option that the table does not declare is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import causalrisk as cr
from causalrisk.errors import UnavailableError
from causalrisk.estimation import options
from causalrisk.estimation.abilities import ABILITIES, PLAIN
from causalrisk.models.model import CausalModel
from tests.conftest import in_blocks, simulate

DATA = simulate(200, seed=1)
N = np.arange(len(DATA))
DATA = DATA.assign(
    before=DATA.x1, w=1 + N % 2, t=1.0 + N % 3, k=N // 4, score=0.5, count=np.exp(DATA.x1).round(),
    gap=DATA.y.where(N % 5 > 0), period=N % 2,
)  # fmt: skip


class New(CausalModel):
    """An estimator that somebody made from the flags of AIPW, and declared nothing."""

    spec = replace(cr.AIPW.spec, name="New")


def fitted(estimator, data=DATA, formula="y ~ x1", fit=None, **given):
    return estimator.from_formula(formula, data, treat="d", **given).fit(**(fit or {}))


def fit(**how):
    return lambda estimator: fitted(estimator, fit=how)


def model(**given):
    return lambda estimator: fitted(estimator, **given)


RATE = {"formula": "count ~ x1", "family": "poisson", "exposure": "t"}
CASES = {  # what it takes to have an option with a value
    ("effect", "percent"): model(effect="percent", formula="count ~ x1"),
    ("effect", "quantile"): model(effect="quantile", quantiles=0.5),
    ("target", "treated"): model(target="treated"),
    ("target", "function"): model(target=lambda e: e),
    ("target", "data frame"): model(target=DATA[:50]),
    ("family", "poisson"): model(formula="count ~ x1", family="poisson", link="log"),
    ("link", "log"): model(formula="count ~ x1", family="poisson"),
    ("propensity_link", "probit"): model(propensity_link="probit"),
    ("propensity_loss", "calibrated"): model(propensity_loss="calibrated"),
    ("propensity_score", "values"): model(propensity_score="score"),
    ("propensity_score", "classifier"): model(propensity_score=LogisticRegression()),
    ("trim", "crump"): model(trim="crump"),
    ("clip", "limits"): model(clip=(0.1, 0.9)),
    ("learner_use", "terms"): model(learner="smooth", learner_use="terms"),
    ("did", "panel"): model(did=cr.DiD(before="before")),
    ("observed", "formula"): model(formula="gap ~ x1", observed="x1"),
    ("offset", "column"): model(offset="t"),
    ("at_exposure", "observed"): model(**RATE, at_exposure="observed"),
    ("weights", "probability"): model(weights="w", weight_type="probability"),
    ("data", "scan"): lambda estimator: fitted(estimator, in_blocks([DATA[:120], DATA[120:]])),
    ("cov_type", "HC1"): fit(cov_type="HC1"),
    ("cov_type", "cluster"): model(cluster="k"),
    ("cov_type", "jackknife"): fit(cov_type="HC3"),
    ("cov_type", "survey"): model(design=cr.Survey(psu="k")),
    ("cov_type", "bootstrap"): fit(n_boot=5),
    ("bootstrap", "mammen"): fit(n_boot=5, bootstrap="multiplier", multiplier="mammen"),
}
WITH = {"did": {"target": ("treated",)}, "link": {"family": ("poisson",)}, "family": {"link": ("log",)}} | {
    "at_exposure": {"family": ("poisson",), "link": ("log",)}, "bootstrap": {"cov_type": ("bootstrap",)},
    "cov_type": {"bootstrap": ("pairs",)},
}  # fmt: skip
OWN_MEANS = {"did": model(did=cr.DiD(before="before", normalize=False))}  # AIPW's normalised means are AIPW's alone
COMPANIONS = {"quantiles", "learner", "n_folds", "n_repeats"}  # they go with another option


@pytest.mark.parametrize(("option", "value"), CASES)
def test_a_new_estimator_has_an_option_once_it_is_declared(option, value, monkeypatch):
    call, others = CASES[option, value], WITH.get(option, {})
    monkeypatch.setitem(ABILITIES, "New", others)
    with pytest.raises((cr.OptionError, UnavailableError), match=option):
        call(New)
    monkeypatch.setitem(ABILITIES, "New", others | {option: (value,)})
    np.testing.assert_allclose(call(New).params, OWN_MEANS.get(option, call)(cr.AIPW).params)


def test_the_plain_fit_needs_no_declaration():
    new, aipw = fitted(New), fitted(cr.AIPW)
    np.testing.assert_allclose([new.params, new.bse], [aipw.params, aipw.bse])
    with pytest.raises(cr.OptionError, match="quantile"):
        new.distribution()


def test_every_option_of_a_model_is_in_the_table():
    known = {option for row in (*ABILITIES.values(), PLAIN) for option in row}
    assert {option for option, _ in CASES} == known
    assert set(options.model_option_names()) - COMPANIONS <= known
