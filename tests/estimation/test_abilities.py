"""What goes with what: an estimator or a value of an option that the table does not declare is refused."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

import causalrisk as cr
from causalrisk.errors import Failure, UnavailableError
from causalrisk.estimation import options
from causalrisk.estimation.abilities import ABILITIES, PLAIN
from causalrisk.estimation.equations import Equations
from causalrisk.estimation.specification import OVERLAP
from causalrisk.models.estimators import BY_NAME
from causalrisk.models.model import CausalModel
from tests.conftest import in_blocks, simulate

DATA = simulate(200, seed=1)
N = np.arange(len(DATA))
DATA = DATA.assign(
    before=DATA.x1, w=1 + N % 2, t=1.0 + N % 3, k=N // 4, score=0.5, count=np.exp(DATA.x1).round(),
    gap=DATA.y.where(N % 5 > 0), period=N % 2, m0=DATA.x1, m1=DATA.x1 + 1,
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
    ("normalize", True): model(normalize=True),
    ("outcome_predictions", "columns"): model(outcome_predictions=["m0", "m1"]),
    ("n_neighbors", "number"): model(n_neighbors=2),
    ("metric", "propensity"): model(metric="propensity"),
    ("exact", "names"): model(exact="x1"),
    ("caliper", "distance"): model(caliper=1.0),
    ("bias_adjust", "names"): model(bias_adjust=True),
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
    ("small_sample", True): fit(small_sample=True),
    ("bootstrap", "mammen"): fit(n_boot=5, bootstrap="multiplier", multiplier="mammen"),
}
WITH = {"did": {"target": ("treated",)}, "link": {"family": ("poisson",)}, "family": {"link": ("log",)}} | {
    "at_exposure": {"family": ("poisson",), "link": ("log",)}, "bootstrap": {"cov_type": ("bootstrap",)},
    "cov_type": {"bootstrap": ("pairs",)},
}  # fmt: skip
OWN_MEANS = {"did": model(did=cr.DiD(before="before", normalize=False))}  # AIPW's normalised means are AIPW's alone
MATCHED = {"n_neighbors", "metric", "exact", "caliper", "bias_adjust"}
COMPANIONS = {"quantiles", "learner", "n_folds", "n_repeats"}  # they go with another option


@pytest.mark.parametrize(("option", "value"), CASES)
def test_a_new_estimator_has_an_option_once_it_is_declared(option, value, monkeypatch):
    call, others = CASES[option, value], WITH.get(option, {})
    monkeypatch.setitem(ABILITIES, "New", others)
    with pytest.raises((cr.OptionError, UnavailableError), match=option):
        call(New)
    monkeypatch.setitem(ABILITIES, "New", others | {option: (value,)})
    own = model() if option in MATCHED else OWN_MEANS.get(option, call)  # AIPW has no use for matches
    np.testing.assert_allclose(call(New).params, own(cr.AIPW).params)


def test_the_plain_fit_needs_no_declaration():
    new, aipw = fitted(New), fitted(cr.AIPW)
    np.testing.assert_allclose([new.params, new.bse], [aipw.params, aipw.bse])
    with pytest.raises(cr.UnavailableError, match="not available for New"):
        new.distribution()


def test_every_option_of_a_model_is_in_the_table():
    known = {option for row in (*ABILITIES.values(), PLAIN) for option in row}
    assert {option for option, _ in CASES} == known
    assert set(options.defaults_of(options.ModelOptions)) - COMPANIONS - {"repeat", "did", "read_as", "typed"} <= known


# --- what an extension that forgets a declaration meets ----------------------------------------------------------


def test_every_estimator_of_a_comparison_needs_its_resamples_and_clusters(monkeypatch):
    def compared(**given):
        return cr.compare("y ~ x1", DATA, treat="d", estimators=[cr.AIPW, New], n_boot=5, **given)

    monkeypatch.setitem(BY_NAME, "New", New)
    monkeypatch.setitem(ABILITIES, "New", {})
    with pytest.raises(cr.OptionError, match='cov_type="bootstrap" is not available for New'):
        compared()
    monkeypatch.setitem(ABILITIES, "New", {"cov_type": ("bootstrap",), "bootstrap": ("pairs", "cluster")})
    with pytest.raises(cr.OptionError, match='bootstrap="mammen" is not available for New'):
        compared(bootstrap="multiplier", multiplier="mammen")
    with pytest.raises(cr.OptionError, match='cov_type="cluster" is not available for New'):
        compared(cluster="k")
    with pytest.raises(cr.OptionError, match="small_sample=True is not available for New"):
        compared(small_sample=True)
    compared()


@pytest.mark.parametrize("effect", ["difference", "quantile"])
def test_a_comparison_leaves_out_by_default_what_declares_nothing(effect, monkeypatch):
    monkeypatch.setitem(BY_NAME, "New", New)
    names = cr.compare("y ~ x1", DATA, treat="d", effect=effect, n_boot=5, max_failed=0.9).table.index
    assert "AIPW" in names.get_level_values(0) and "New" not in names.get_level_values(0)


def test_trimming_is_declared(monkeypatch):
    monkeypatch.setitem(ABILITIES, "New", {})
    with pytest.raises(cr.OptionError, match=r"trim= \(limits\) is not available for New"):
        fitted(New, trim=(0.1, 0.9))


def test_a_fit_of_a_comparison_has_the_options_it_uses():
    both = cr.compare("y ~ x1", DATA, treat="d", estimators=["IPW", "IPWRA"], learner="smooth", n_boot=5)
    alone = cr.IPW.from_formula("y ~ x1", DATA, treat="d", trim=(0.1, 0.9)).fit()
    assert both.results["IPW"].model.with_options(trim=(0.1, 0.9)).fit().effect == alone.effect


def test_a_risk_table_has_the_estimators_that_can_do_what_the_fit_does(monkeypatch):
    quick = {"cov_type": "robust"}
    res = fitted(cr.JRE, target="overlap", fit=quick)
    with_learner = fitted(cr.JRE, learner="smooth", learner_use="terms", fit=quick)
    own, predicted = res.risk_table(), with_learner.risk_table()
    assert (
        list(own.index) == list(predicted.index) == ["Unadjusted", "OutcomeRegression", "IPW", "IPWRA", "AIPW", "JRE"]
    )
    monkeypatch.setitem(ABILITIES, "AIPW", {})
    pd.testing.assert_frame_equal(res.risk_table(), own.drop("AIPW"))


def test_a_kind_of_standard_error_without_a_formula_is_refused(monkeypatch):
    monkeypatch.setitem(options.CHOICES, "cov_type", (*options.CHOICES["cov_type"], "HC4"))
    monkeypatch.setitem(ABILITIES, "New", {"cov_type": ("HC4", "cluster")})
    with pytest.raises(cr.OptionError, match='standard errors are not available for cov_type="HC4"'):
        fitted(New, fit={"cov_type": "HC4"})
    with pytest.raises(cr.OptionError, match='cov_type="HC4" treats rows as independent'):
        fitted(New, fit={"cov_type": "HC4"}, cluster="k")


@pytest.mark.filterwarnings("ignore::causalrisk.OverlapWarning")
@pytest.mark.parametrize("name", ["correction", "mean"])
def test_any_block_that_does_not_settle_is_told(name, monkeypatch):
    own = getattr(Equations, name)

    def without_root(equations, a, g):
        block = own(equations, a, g)
        (eta,) = block.own
        terms = ((equations.sample.slices[a], lambda at: [at(eta) * at(eta) - at(eta) + 1.0]),)
        return replace(block, terms=terms if a else block.terms, linear=False, singular=Failure.SINGULAR_OUTCOME)

    monkeypatch.setattr(Equations, name, without_root)
    with pytest.warns(cr.ConvergenceWarning, match="of group 1 stopped before it converged"):
        res = fitted(cr.AIPW, normalize=True)
    assert not res.converged


def test_a_population_as_an_object_is_that_of_its_name():
    np.testing.assert_allclose(fitted(cr.AIPW, target=OVERLAP).params, fitted(cr.AIPW, target="overlap").params)


def test_the_advice_on_a_link_is_to_leave_it_out(monkeypatch):
    monkeypatch.setitem(ABILITIES, "New", {"family": ("binomial",), "link": ("logit",)})
    data = DATA.assign(y=(DATA.y > 0).astype(float))
    with pytest.raises(cr.OptionError, match="or leave `link=` out"):
        fitted(New, data, family="binomial", link="probit")
    assert np.isfinite(fitted(New, data, family="binomial").effect)


@pytest.mark.parametrize(
    ("kind", "options", "advice"),
    [
        (cr.Matching, {"cluster": "k"}, "leave `cluster=` out"),
        (cr.Matching, {"design": cr.Survey(weights="w", psu="k")}, "leave `design=` out"),
        (cr.IPW, {"learner": "smooth", "learner_use": "replace"}, "leave `learner=` and `learner_use=` out"),
        (cr.IPWRA, {"effect": "quantile", "quantiles": 0.5}, "only for IPW, AIPW.\nUse one of these"),
    ],
)
def test_advice_names_what_was_typed_and_who_can(kind, options, advice):
    with pytest.raises(cr.OptionError, match=re.escape(advice)):
        kind.from_formula("y ~ x1", DATA, treat="d", propensity="x1", **options).fit()
