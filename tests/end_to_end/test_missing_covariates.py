"""Covariates that are missing: filled in by hand, identities, a simulated truth, and what is refused."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest

from causalrisk import (
    AIPW,
    IPWRA,
    DesignError,
    DiD,
    Hajek,
    OptionError,
    OutcomeRegression,
    Survey,
    UnavailableError,
    compare,
    scan,
)
from causalrisk.report.methods import call_of
from tests.conftest import simulate

FULL = simulate(400, seed=8).assign(
    k=lambda data: np.arange(400) % 3,
    c=lambda data: np.array(["u", "v"])[np.arange(400) // 3 % 2],
    y0=lambda data: data.x3,
)
ROW = np.arange(400)
DATA = FULL.assign(
    x1=FULL.x1.where(ROW % 5 > 0), c=FULL.c.where(ROW % 7 > 0), k=FULL.k.where(ROW % 11 > 0), y=FULL.y.where(ROW > 5)
)
FORMULA = "y ~ x1 + I(x1**2) + c + C(k)"


def model(estimator=AIPW, data=DATA, formula=FORMULA, **options):
    return estimator.from_formula(formula, data, treat="d", missing="indicator", **options)


@pytest.mark.parametrize("options", [
    {},
    {"propensity": "x1 + x2", "estimator": IPWRA, "target": "treated"},
    {"observed": "x1 * d", "estimator": Hajek, "propensity": "c + x1"},
    {"estimator": OutcomeRegression, "cluster": "x3"},
    {"did": DiD(before="y0")},
])  # fmt: skip
def test_it_is_the_fit_to_columns_filled_by_hand(options):
    given, by_hand = dict(options), dict(options)
    sample = DATA if "observed" in options else DATA[DATA.y.notna()]
    hand = DATA.assign(
        x1=DATA.x1.fillna(sample.x1.mean()), gone=DATA.x1.isna().astype(int), c=DATA.c.fillna("z"),
        k=DATA.k.fillna(9).astype(int),
    )  # fmt: skip
    for name in ("propensity", "observed"):
        if name in by_hand and "x1" in by_hand[name]:
            by_hand[name] += " + gone"
    estimator = by_hand.pop("estimator", AIPW)
    theirs = estimator.from_formula(f"{FORMULA} + gone", hand, treat="d", **by_hand).fit()
    res = model(**given).fit()
    np.testing.assert_allclose(res.params, theirs.params, rtol=1e-12)
    np.testing.assert_allclose(res.bse, theirs.bse, rtol=1e-10)
    assert res.nobs == (400 if "observed" in options else 394)


def test_the_outcome_before_is_not_filled_in():
    data = FULL.assign(y0=FULL.y0.where(ROW % 4 > 0), x1=DATA.x1)
    found, known = (
        model(data=rows, formula="y ~ x1 + y0", did=DiD(before="y0")).fit() for rows in (data, data[ROW % 4 > 0])
    )
    assert (found.effect, found.nobs) == (known.effect, 300)


def test_the_constant_is_of_no_matter_to_linear_terms():
    moved = DATA.assign(x1=DATA.x1 + 10)  # and so is its mean; the other columns stay
    one, other = (model(data=data, formula="y ~ x1 + c").fit() for data in (DATA, moved))
    np.testing.assert_allclose(one.params, other.params, rtol=1e-8)
    np.testing.assert_allclose(one.bse, other.bse, rtol=1e-8)


WEIGHTED = DATA.assign(count=1 + ROW % 4 + np.where(DATA.x1 > 0.5, 3, 0))


def test_frequency_weights_are_repeated_rows():
    repeated = WEIGHTED.loc[WEIGHTED.index.repeat(WEIGHTED["count"])].reset_index(drop=True)
    for estimator in (AIPW, IPWRA):
        res = model(estimator, WEIGHTED, "y ~ x1 * x2", weights="count", weight_type="frequency").fit()
        theirs = model(estimator, repeated, "y ~ x1 * x2").fit()
        np.testing.assert_allclose(res.params, theirs.params, rtol=1e-10)
        np.testing.assert_allclose(res.bse, theirs.bse, rtol=1e-10)


@pytest.mark.parametrize(
    "why", [{"d": np.nan}, {"y": np.nan}, {"count": 0}, {"inside": False}, {"inside": False, "x2": np.nan}]
)
def test_rows_outside_the_sample_do_not_count(why):
    """Their covariate has another mean; in the last case only they miss one."""
    data = WEIGHTED.assign(inside=True)
    more = pd.concat([data, data.head(90).assign(x1=50.0, y=1.0).assign(**why)], ignore_index=True)
    options = {"formula": "y ~ x1 * x2 + c", "weights": "count", "weight_type": "probability"}
    if "inside" in why:
        options = {"formula": "y ~ x1 * x2 + c", "design": Survey(weights="count"), "subpop": "inside"}
    res, theirs = (model(data=one, **options).fit() for one in (more, data))
    np.testing.assert_allclose(res.params, theirs.params, rtol=1e-10)
    assert res.nobs == theirs.nobs and res.model.design.formula == theirs.model.design.formula


def test_what_is_said_of_covariates_that_were_filled_in(tmp_path, unprinted_plots):
    res = model().fit()
    assert res.model.design.formula == f"{FORMULA} + x1_missing"
    ledger = res.sample_ledger.set_index("variable")
    lost = {"x1": ROW % 5 == 0, "c": ROW % 7 == 0, "k": ROW % 11 == 0}
    for name, rows in lost.items():
        assert ledger.loc[name].tolist() == ["indicator", (rows & (ROW > 5)).sum(), 0]
    assert ledger.loc["y", "dropped"] == 6
    for text in (str(res.summary()), str(res.explain()), res.methods()):
        assert f"c ({(lost['c'] & (ROW > 5)).sum()} rows)" in " ".join(text.split())
    assert "y missing." in " ".join(str(res.summary()).split())
    assert "Groenwold" in res.methods() and "Groenwold, R. H. H." in res.report(tmp_path / "a.html").read_text("utf-8")
    assert str(pickle.loads(pickle.dumps(res)).summary()) == str(res.summary())
    again = eval(call_of(res._record).partition("model = ")[2].partition("\nres")[0], {"AIPW": AIPW, "data": DATA})
    np.testing.assert_array_equal(again.fit().params, res.params)
    coefficients = str(res.summary(coefficients=True))
    assert "C(k)[T.1] " in coefficients and "C(k)[T.(missing)]" in coefficients
    table = compare("y ~ x1", DATA, treat="d", missing="indicator", estimators=["IPWRA", "AIPW"], n_boot=5)
    assert "x1 (" in " ".join(str(table.summary()).split())


@pytest.mark.parametrize("options", [{}, {"estimator": IPWRA, "propensity": "x1 * x2"}])
def test_new_data_are_filled_in_as_the_sample_was(options):
    res, whole = model(**options).fit(), DATA[DATA.y.notna()]
    fitted = res.predict()
    for new in (whole, whole.assign(k=whole.k.astype("Int64")), whole.iloc[:9], whole[whole.x1.isna()]):
        np.testing.assert_allclose(res.predict(new), fitted.loc[new.index], rtol=1e-12)
    named = whole.assign(x1=whole.x1.fillna(whole.x1.mean()), x1_missing=whole.x1.isna())  # filled in by the user
    np.testing.assert_allclose(res.predict(named), fitted, rtol=1e-12)
    with pytest.raises(DesignError, match="x3"):  # it was complete in the sample
        model(formula="y ~ x1 + x3", **options).fit().predict(whole.assign(x3=np.nan))


@pytest.mark.parametrize("formula", ["y ~ I(c == 'u')", "y ~ c.isin(['u'])", "y ~ k + C(k)", "y ~ C(k > 1) + C(k)"])
def test_expressions_of_what_becomes_a_level_are_refused(formula):
    """They would count missing values as one of the others."""
    with pytest.raises(DesignError, match="become a level"):
        model(formula=formula)


def test_expressions_of_numbers_are_of_the_filled_in_numbers():
    filled = DATA[DATA.y.notna()].assign(gone=DATA.x1.isna() * 1)
    filled["x1"] = filled.x1.fillna(filled.x1.mean())
    for term in ("C(x1 > 0)", "C(np.sign(x1))"):
        theirs = AIPW.from_formula(f"y ~ {term} + gone", filled, treat="d").fit()
        np.testing.assert_allclose(model(formula=f"y ~ {term}").fit().params, theirs.params, rtol=1e-10)


def test_a_level_may_have_the_name_of_missing_values():
    named = DATA.assign(c=DATA.c.mask((ROW % 14 == 0), "(missing)"))
    theirs = AIPW.from_formula("y ~ c", DATA.assign(c=DATA.c.fillna("(missing)")), treat="d").fit()
    np.testing.assert_allclose(model(data=named, formula="y ~ c").fit().params, theirs.params, rtol=1e-10)


def test_nothing_is_said_where_nothing_is_missing():
    res, plain = model(data=FULL).fit(), AIPW.from_formula(FORMULA, FULL, treat="d").fit()
    assert str(res.summary()) == str(plain.summary()) and res.model.design.filled == ()


@pytest.mark.parametrize("by", ["x1", "c", ["c", "x2"], "~ x1"])
def test_effects_by_what_was_filled_in_are_refused(by):
    res = model().fit()
    with pytest.raises(DesignError):
        res.effects_by(by)
    with pytest.raises(DesignError, match="is missing in"):
        res.effects_by(by, DATA)
    with pytest.raises(DesignError, match="is missing in"):
        res.balance(also=["x1"], data=DATA)
    assert len(res.effects_by("~ x2", DATA)) == 2


def test_what_has_no_indicators_is_refused():
    with pytest.raises(UnavailableError, match="x1, c"):
        model(formula="y ~ x1 + c", target=FULL.head(50)).fit()
    with pytest.raises(UnavailableError, match="collect"):
        model(data=scan([DATA]))
    with pytest.raises(OptionError, match="from_formula"):
        AIPW(DATA.y, DATA[["x1"]], DATA.d, missing="indicator")
    with pytest.raises(DesignError, match="'x1_missing', the name of the missing-value indicator of 'x1'"):
        model(data=DATA.assign(x1_missing=0))
    with pytest.raises(DesignError, match="Take x1 out"):
        model(data=DATA.assign(x1=np.nan))
    with pytest.raises(OptionError, match="'indicator'"):
        AIPW.from_formula("y ~ x1", DATA, treat="d", missing="fill")
    assert model(data=DATA.assign(d=FULL.d.where(ROW > 20))).fit().nobs == 379  # the treatment is never filled in


def test_in_a_trial_it_has_the_effect_on_everybody_and_complete_cases_have_not():
    rng, found = np.random.default_rng(3), []
    for _ in range(36):
        x, e = rng.normal(size=(2, 300))
        d, lost = rng.permutation(300) % 2, rng.random(300) < 1 / (1 + np.exp(1 - 2 * x))
        data = pd.DataFrame({"y": x + d * (1 + x) + e, "x": np.where(lost, np.nan, x), "d": d})
        given = {"formula": "y ~ x", "data": data, "treat": "d", "propensity": "1"}
        fits = [AIPW.from_formula(**given, missing=missing).fit() for missing in ("indicator", "drop")]
        found.append([fits[0].effect, fits[0].effect_se, fits[1].effect])
    effects, errors, complete = np.array(found).T
    assert abs(effects.mean() - 1) < 4 * effects.std() / np.sqrt(36)
    assert errors.mean() == pytest.approx(effects.std(ddof=1), rel=0.35)
    assert complete.mean() < 1 - 6 * complete.std() / np.sqrt(36)
