"""Survey designs against R's survey package, hand computations and identities.

The numbers of R are in `tests/reference/survey_*.json`: R 4.5.0, survey 4.4-2, effects from first principles.
"""

from __future__ import annotations

import functools
import json
import pickle

import numpy as np
import pandas as pd
import pytest

import causalrisk as cr
from causalrisk import AIPW, IPWRA, JRE, DesignError, Hajek, OptionError, OutcomeRegression, Survey, UnavailableError
from causalrisk.numerics.resampling import stream_generator
from causalrisk.report.methods import call_of
from tests.conftest import REFERENCE

CASES = [
    pytest.param(case, id=case["id"])
    for name in ("linearised", "lonely", "replicates")
    for case in json.loads((REFERENCE / f"survey_{name}.json").read_text())["cases"]
]
TWO = pd.read_csv(REFERENCE / "survey_twopsu.csv")  # 6 strata, 2 units each whose numbers begin anew
STRATA = {"weights": "pw", "strata": "stratum", "psu": "psu", "fpc": "fpc", "nest": True}


def model(estimator=IPWRA, data=TWO, survey=None, formula="y ~ x1 + x2", treat="d", **options):
    return estimator.from_formula(formula, data, treat=treat, design=Survey(**(survey or STRATA)), **options)


@functools.cache
def stored(name):
    return pd.read_csv(REFERENCE / name)


def design_of(case):
    """The survey design of a case, and its data."""
    design, data = case["design"], stored(case["data"])
    if "replicate_type" not in case:
        return {name: value for name, value in design.items() if value is not None}, data
    kind = case["replicate_type"]
    replicates = stored(case["replicate_file"])
    given = {"replicate_type": kind.removeprefix("sub")} | {k: case[k] for k in ("rho", "scale", "rscales")}
    return {"weights": design["weights"], "replicate_weights": f"{kind}_*", **given}, data.join(replicates)


def test_a_stratum_that_was_sampled_whole_is_not_lonely():
    """Its unit is the population's only one, so it adds no variance, and "average" replaces none by a mean."""
    data = TWO[(TWO.stratum > 1) | (TWO.psu == 1)]
    data = data.assign(fpc=data.fpc.where(data.stratum > 1, 1))
    for row in stored("r_survey_whole_stratum.csv").itertuples():
        res = model(cr.OutcomeRegression, data, STRATA | {"lonely": row.lonely}, formula="y ~ 1").fit()
        np.testing.assert_allclose([res.effect, res.effect_se], [row.effect, row.se], rtol=1e-10)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore::causalrisk.OverlapWarning")
def test_estimates_and_standard_errors_are_those_of_r(case):
    made, found = case["model"], case["result"]
    survey, data = design_of(case)
    fit = model(
        getattr(cr, made["estimator"]),
        data,
        survey,
        formula=f"{made['outcome']} ~ {made['covariates']}",
        treat=made["treat"],
        propensity=made["propensity"],
        target=made["target"],
        subpop=case.get("subpopulation"),
    ).fit
    res = fit()
    np.testing.assert_allclose(res.params, found["estimate"], rtol=1e-10)
    np.testing.assert_allclose(res.cov_params(), found["vcov"], rtol=1e-8)
    assert res.df_resid == found["df"]
    np.testing.assert_allclose(res.conf_int(), found["ci"], rtol=1e-8)
    np.testing.assert_allclose(res.tvalues, found["t"], rtol=1e-8)
    np.testing.assert_allclose(res.pvalues, found["p_two_sided"], rtol=1e-7)
    if "se_mse" in found:
        about = model(getattr(cr, made["estimator"]), data, survey | {"mse": True}, formula=f"{made['outcome']} ~ "
                      f"{made['covariates']}", treat=made["treat"], propensity=made["propensity"],
                      target=made["target"], subpop=case.get("subpopulation")).fit()  # fmt: skip
        np.testing.assert_allclose(about.bse, found["se_mse"], rtol=1e-8)


@pytest.mark.parametrize("options", [
    {"estimator": JRE}, {"estimator": AIPW, "target": "overlap"}, {"estimator": OutcomeRegression, "effect": "ratio"},
    {"estimator": IPWRA, "learner": "smooth"}, {"estimator": Hajek, "target": "control"},
])  # fmt: skip
def test_every_estimator_has_the_variance_of_its_influence_functions(options):
    data = TWO.assign(y=TWO.y - TWO.y.min() + 1)
    res = model(**options, data=data).fit()
    influence = res._record.estimate.influence[:, 0]
    sample = res._record.sample
    values = pd.Series(sample.restore(influence * sample.s) / sample.total)
    by = values.groupby([data.stratum, data.psu]).sum()
    fraction = 2 / data.groupby("stratum").fpc.first()
    spread = by.groupby(level=0).agg(lambda own: 2 * ((own - own.mean()) ** 2).sum())
    wanted = np.sqrt(((1 - fraction) * spread).sum() * res._record.choice_variance)
    np.testing.assert_allclose(res.bse.iloc[0], wanted, rtol=1e-10)


def test_units_without_strata_are_clusters_about_their_mean():
    data = TWO.assign(psu=TWO.stratum * 10 + TWO.psu)
    clusters = IPWRA.from_formula(
        "y ~ x1 + x2", data, treat="d", weights="pw", weight_type="probability", cluster="psu"
    )
    res = model(data=data, survey={"weights": "pw", "psu": "psu"}).fit()
    np.testing.assert_allclose(res.bse, clusters.fit(cov_type="cluster").bse * np.sqrt(12 / 11), rtol=1e-12)
    assert res.df_resid == 11


def test_a_subpopulation_is_rows_of_no_weight_and_not_rows_left_out():
    inside = model(subpop="dom").fit()
    without = model(data=TWO.assign(pw=TWO.pw.where(TWO.dom == 1, 0))).fit()
    np.testing.assert_allclose(inside.params, without.params, rtol=1e-12)
    np.testing.assert_allclose(inside.bse, without.bse, rtol=1e-12)
    np.testing.assert_array_equal(model(subpop=TWO.dom == 1).fit().bse, inside.bse)
    gone = TWO[(TWO.dom == 1) & ~((TWO.stratum == 1) & (TWO.psu == 1))]
    with pytest.raises(DesignError, match="single first-stage unit"):
        model(data=gone)
    empty = TWO.assign(dom=TWO.dom.where((TWO.stratum > 1) | (TWO.psu > 1), 0))  # a unit without rows
    assert model(data=empty, subpop="dom").fit().df_resid == 6
    (line,) = inside.sample_ledger[inside.sample_ledger.formula == "subpop"].itertuples()
    assert line.dropped == (TWO.dom == 0).sum()
    assert "subpopulation dom" in " ".join(str(inside.summary()).split()) and "dom" in inside.methods()


def test_rows_outside_of_a_subpopulation_are_not_called_dropped(tmp_path, unprinted_plots):
    data = TWO.assign(y=TWO.y.where(np.arange(len(TWO)) % 7 > 0))
    outside = int((TWO.dom == 0).sum())
    dropped = int((data.y.isna() & (TWO.dom == 1)).sum())
    res = model(data=data, subpop="dom").fit()
    text = " ".join(str(res.summary()).split())
    assert f"Rows dropped: {dropped} " in text and f"Outside subpop.: {outside} " in text
    assert f"{dropped} rows dropped" in text and res.glance().n_dropped[0] == dropped
    assert f"{dropped} other rows were left out; {outside} rows outside the subpopulation are" in res.methods()
    explained = " ".join(str(res.explain()).split())
    assert f"; {dropped} other rows were left out; {outside} rows outside the subpopulation are" in explained
    page = res.report(tmp_path / "a.html").read_text("utf-8")
    assert f"{dropped} other rows were left out; {outside} rows outside the subpopulation are" in page
    whole = model(subpop="dom").fit()
    assert "Rows dropped: 0 " in " ".join(str(whole.summary()).split()) and "left out" not in whole.methods()


def test_rows_that_miss_an_outcome_leave_their_units_in_the_design():
    gone = (TWO.stratum == 1) & (TWO.psu == 1)
    missing, subset = TWO.assign(y=TWO.y.where(~gone)), TWO.assign(dom=~gone)
    np.testing.assert_allclose(model(data=missing).fit().bse, model(data=subset, subpop="dom").fit().bse, rtol=1e-12)


def test_t_intervals_and_tests_have_the_degrees_of_freedom_of_the_design():
    res = model().fit()
    half = 2.446911851144979 * res.bse  # qt(0.975, 6) of R
    np.testing.assert_allclose(res.conf_int(), np.column_stack([res.params - half, res.params + half]), rtol=1e-12)
    text = str(res.summary())
    assert all(part in text for part in ("P>|t|", "stratum (6)", "psu (12)", "survey (linearised)", "Df Residuals:"))
    effects = res.effects_by("x2")
    assert "t" in effects and "P>|t|" in effects


def test_the_rescaled_bootstrap_has_the_variance_of_the_design():
    survey = model().design.survey
    generator = lambda h: stream_generator(np.random.SeedSequence(1), h)  # noqa: E731
    drawn = survey.resampled(generator, 40_000)
    values = np.sin(np.arange(len(TWO))) + TWO.stratum.to_numpy()
    totals = values @ drawn
    by = pd.Series(values).groupby([TWO.stratum, TWO.psu]).sum()
    fraction = 2 / TWO.groupby("stratum").fpc.first()
    spread = by.groupby(level=0).agg(lambda own: 2 * ((own - own.mean()) ** 2).sum())
    np.testing.assert_allclose(totals.mean(), values.sum(), atol=4 * totals.std() / 200)
    np.testing.assert_allclose(totals.var(), ((1 - fraction) * spread).sum(), rtol=0.04)
    assert drawn.min() >= 0


def test_the_rescaled_bootstrap_resamples_every_estimator_in_compare():
    res = cr.compare("y ~ x1 + x2", TWO, treat="d", design=Survey(**STRATA), n_boot=60, estimators=["IPWRA", "JRE"])
    alone = model(JRE).fit(n_boot=60)
    assert alone.cov_type == "bootstrap" and "rescaled" in str(alone.summary())
    np.testing.assert_array_equal(res.bootstrapped["JRE"].bse, alone.bse)
    np.testing.assert_array_equal(res.bootstrapped["IPWRA"].bse, model().fit(n_boot=60).bse)
    np.testing.assert_allclose(res.results["IPWRA"].bse, model().fit().bse, rtol=1e-12)


def test_replicate_weights_give_pairs_for_comparisons_and_groups():
    replicates = pd.read_csv(REFERENCE / "survey_twopsu_repweights.csv")
    data = TWO.join(replicates.filter(like="BRR"))
    survey = {"weights": "pw", "replicate_weights": "BRR_*", "replicate_type": "BRR"}
    res = model(JRE, data, survey).fit()
    values = np.array([
        model(IPWRA, data.assign(w=data[f"BRR_{r}"]), {"weights": "w"}).fit().params for r in range(1, 9)
    ])  # fmt: skip
    spread = ((values - values.mean(axis=0)) ** 2).sum(axis=0) / 8
    np.testing.assert_allclose(model(IPWRA, data, survey).fit().bse, np.sqrt(spread), rtol=1e-9)
    table = cr.compare("y ~ x1 + x2", data, treat="d", design=Survey(**survey), estimators=["IPWRA", "JRE"])
    np.testing.assert_allclose(table.table["std err"]["IPWRA"], np.sqrt(spread[0]), rtol=1e-9)
    np.testing.assert_allclose(
        res.start_difference()["std err"].iloc[1], table.differences["std err"].iloc[0], rtol=1e-9
    )
    np.testing.assert_allclose(res.bse.iloc[0], table.table["std err"]["JRE"], rtol=1e-9)
    np.testing.assert_allclose(table.results["JRE"].bse, res.bse, rtol=1e-9)
    np.testing.assert_allclose(table.table["robust se"], table.table["std err"], rtol=1e-9)
    assert "bootstrap" not in str(table.summary()).split("Notes")[0]
    groups = model(IPWRA, data, survey).fit().effects_by("x2")
    one = [
        model(IPWRA, data.assign(w=data[f"BRR_{r}"]), {"weights": "w"}).fit().effects_by("x2")["estimate"].to_numpy()
        for r in range(1, 9)
    ]
    np.testing.assert_allclose(groups["std err"], np.std(one, axis=0), rtol=1e-8)
    with pytest.raises(UnavailableError, match="conf_int"):
        res.conf_int(method="percentile")
    with pytest.raises(OptionError, match="strata"):
        model(data=data, survey=survey, target=TWO[TWO.x1.abs() < 1]).fit()


def test_weights_times_factors_are_replicate_weights():
    replicates = pd.read_csv(REFERENCE / "survey_twopsu_repweights.csv").filter(like="BRR_")
    factors = replicates.div(TWO.pw, axis=0)
    one = {"weights": "pw", "replicate_weights": replicates, "replicate_type": "BRR"}
    same = one | {"replicate_weights": factors.to_numpy(), "combined": False}
    np.testing.assert_allclose(model(survey=same).fit().bse, model(survey=one).fit().bse, rtol=1e-12)


def test_several_arms_frames_trimming_arrays_and_pickles():
    data = TWO.assign(arm=np.arange(len(TWO)) % 3)
    several = model(data=data, treat="arm", reference=0, effect="difference").fit()
    assert len(several.pairwise()) == 3 and several.df_resid == 6
    frame = model(target=TWO[TWO.x1.abs() < 1]).fit()
    assert np.isfinite(frame.bse).all()
    trimmed = model(trim=(0.1, 0.9)).fit()
    assert trimmed.nobs < len(TWO) and trimmed.df_resid == 6
    X = pd.DataFrame({"const": 1.0, "x1": TWO.x1, "x2": TWO.x2})
    columns = {role: TWO[name] for role, name in STRATA.items() if role != "nest"}
    arrays = IPWRA(TWO.y, X, TWO.d, design=Survey(**columns, nest=True)).fit()
    res = model().fit()
    np.testing.assert_allclose(arrays.bse, res.bse, rtol=1e-12)
    again = pickle.loads(pickle.dumps(res))
    np.testing.assert_array_equal(again.effects_by("x2"), res.effects_by("x2"))
    call = "design=Survey(weights='pw', strata='stratum', psu='psu', fpc='fpc', nest=True)"
    assert call in " ".join(call_of(res._record).split())
    pooled = cr.pool([model(data=TWO.assign(x1=x1)).fit() for x1 in (TWO.x1, TWO.x1 * TWO.x1.abs())])
    assert pooled.df_complete == 6


@pytest.mark.parametrize(("kind", "given", "typed"), [
    ("Fay", {"replicate_type": "BRR"}, 'replicate_type="Fay", rho=0.5'),
    ("Fay", {"replicate_type": "Fay", "rho": 0.3}, 'replicate_type="Fay", rho=0.5'),
    ("BRR", {"replicate_type": "Fay", "rho": 0.5}, 'replicate_type="BRR"'),
    ("BRR", {"replicate_type": "JK1"}, 'replicate_type="BRR"'),
])  # fmt: skip
def test_a_type_that_the_replicate_weights_contradict_is_refused(kind, given, typed):
    data = TWO.join(pd.read_csv(REFERENCE / "survey_twopsu_repweights.csv").filter(like=kind))
    survey = {"weights": "pw", "replicate_weights": f"{kind}_*"}
    with pytest.raises(DesignError) as caught:
        model(data=data, survey=survey | given)
    assert typed in str(caught.value)
    again = dict(part.split("=") for part in typed.replace('"', "").split(", "))
    again |= {"rho": float(again["rho"])} if "rho" in again else {}
    assert model(data=data, survey=survey | again).fit().df_resid == 6
    assert model(data=data, survey=survey | given | {"scale": 0.1}).fit().df_resid == 6
    bent = data.assign(**{f"{kind}_{r}": data[f"{kind}_{r}"] * (1 + 0.1 * np.sin(data.index)) for r in range(1, 9)})
    assert model(data=bent, survey=survey | given).fit().df_resid >= 6  # adjusted after they were made


def test_one_column_of_replicate_weights_is_too_few():
    data = TWO.join(pd.read_csv(REFERENCE / "survey_twopsu_repweights.csv").filter(like="BRR_1"))
    with pytest.raises(DesignError, match="names 1 column; expected several"):
        model(data=data, survey={"weights": "pw", "replicate_weights": ["BRR_1"], "replicate_type": "BRR"})


def test_a_pattern_does_not_mean_the_weights_themselves():
    data = TWO.join(pd.read_csv(REFERENCE / "survey_twopsu_repweights.csv").filter(like="BRR")).assign(BRR_0=TWO.pw)
    survey = {"replicate_weights": "BRR_*", "replicate_type": "BRR"}
    own, other = (model(data=data, survey=survey | {"weights": name}) for name in ("BRR_0", "pw"))
    assert len(own.design.replication.scales) == 8
    assert len(other.design.replication.scales) == 9


def test_unit_numbers_that_restart_may_have_slashes():
    names = {"stratum": {1: "a", 2: "a/b"}, "psu": {1: "b/c", 2: "c", 3: "d"}}
    data = TWO[TWO.stratum <= 2]
    named = data.assign(**{name: data[name].map(lambda v, of=of: of.get(v, str(v))) for name, of in names.items()})
    survey = {name: STRATA[name] for name in ("weights", "strata", "psu", "nest")}
    fits = [
        OutcomeRegression.from_formula("y ~ x1", one, treat="d", design=Survey(**survey)).fit() for one in (data, named)
    ]
    np.testing.assert_array_equal(*(res.bse for res in fits))


BAD = {
    "a unit in two strata": (STRATA | {"nest": False}, TWO, "nest=True"),
    "fpc below the sample": (STRATA, TWO.assign(fpc=1.5), "first-stage units in the population"),
    "fpc that differs": (STRATA, TWO.assign(fpc=np.arange(len(TWO)) + 10), "first-stage units in the population"),
    "missing stratum": (STRATA, TWO.assign(stratum=TWO.stratum.where(TWO.index > 0)), "dropna"),
    "missing weight": (STRATA, TWO.assign(pw=TWO.pw.where(TWO.index > 0)), "dropna"),
    "a stratum with one unit": (STRATA, TWO[(TWO.stratum > 1) | (TWO.psu > 1)], 'lonely="adjust"'),
    "factors as weights": (
        {"weights": "pw", "replicate_weights": np.ones((len(TWO), 3)), "replicate_type": "JK1"}, TWO, "combined=False",
    ),
    "one replicate": ({"weights": "pw", "replicate_weights": "psu*", "replicate_type": "JK1"}, TWO, "repw"),
    "one replicate by name": ({"weights": "pw", "replicate_weights": ["pw"], "scale": 1}, TWO, "repw"),
    "one replicate as a column": ({"weights": "pw", "replicate_weights": TWO[["pw"]], "scale": 1}, TWO, "repw"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_designs_are_refused_in_words(name):
    survey, data, typed = BAD[name]
    with pytest.raises(DesignError) as caught:
        model(survey=survey, data=data)
    assert typed in str(caught.value).splitlines()[-1]


def test_an_arm_that_a_subpopulation_empties_is_named():
    with pytest.raises(DesignError, match="'d'"):
        model(subpop=TWO.d == 1)


@pytest.mark.parametrize("options", [
    {"cov_type": "robust"}, {"bootstrap": "pairs"}, {"small_sample": True}, {"resamples": np.ones((len(TWO), 5))},
])  # fmt: skip
def test_errors_that_know_nothing_of_the_design_are_refused(options):
    with pytest.raises(OptionError, match="Leave"):
        model().fit(**options)


def test_a_subpopulation_by_a_condition_as_text():
    typed = model(subpop="x1 > -1 and d >= 0").fit()
    np.testing.assert_array_equal(typed.bse, model(subpop=TWO.x1 > -1).fit().bse)
    assert "x1 > -1 and d >= 0" in str(typed.summary()) and "x1 > -1" in typed.methods()


@pytest.mark.parametrize(
    ("text", "typed"),
    [
        ("x3 > -1", "x2"),
        ("x2 + d", "x2 + d"),
        ("x1 >", "x1"),
        ("d = 1", "Use `==` for equality"),
    ],
)
def test_conditions_that_cannot_be_used(text, typed):
    with pytest.raises(DesignError) as told:
        model(subpop=text)
    assert typed in str(told.value).splitlines()[-1]


@pytest.mark.parametrize("text", ["x1 > -1", "x1 != 9", "not (x1 < -1)", "~(x1 < -1)", "x1 > -1 or d >= 0"])
def test_a_row_that_misses_a_value_does_not_meet_a_condition(text):
    known = TWO.index != 3
    data, inside = TWO.assign(x1=TWO.x1.where(known)), TWO.eval(text) & known
    wanted = model(subpop=inside, formula="y ~ x2").fit().bse
    for given in (data, pytest.importorskip("polars").DataFrame(data.to_dict("list"))):  # whose NaN is not null
        with pytest.warns(cr.DesignWarning, match="unknown in 1 of "):
            np.testing.assert_allclose(model(data=given, subpop=text, formula="y ~ x2").fit().bse, wanted, rtol=1e-12)


@pytest.mark.parametrize("text", ["x1.isna()", "x1.fillna(9) > 1", "d > @x1 - 9"])
def test_a_condition_that_is_known_where_a_value_is_missing(text):
    x1 = 0.0  # a variable of the caller, not the column
    data = TWO.assign(x1=TWO.x1.where(TWO.index % 3 > 0))
    inside = data.d > x1 - 9 if "@" in text else data.x1.isna() if "isna" in text else data.x1.fillna(9) > 1
    wanted = model(data=data, subpop=inside, formula="y ~ x2").fit()
    given = {"data": data, "treat": "d", "design": Survey(**STRATA)}
    found = AIPW.from_formula("y ~ x2", subpop=text, **given).fit()
    np.testing.assert_array_equal(found.bse, AIPW.from_formula("y ~ x2", subpop=inside, **given).fit().bse)
    assert found.nobs == wanted.nobs == inside.sum()


def test_a_condition_on_text_and_on_a_variable_of_the_caller():
    data = TWO.assign(g=np.where(TWO.x1 > 0, "x1", None), x1=TWO.x1.where(TWO.index != 3))
    limit, value = 0.0, 99.0  # a variable of the caller, not of the package
    wanted = model(data=data, subpop=TWO.x1 > 0, formula="y ~ x2").fit().bse
    with pytest.warns(cr.DesignWarning, match="unknown in [0-9]+ of "):
        np.testing.assert_array_equal(model(data=data, subpop="g == 'x1'", formula="y ~ x2").fit().bse, wanted)
    given = {"data": TWO, "treat": "d", "design": Survey(**STRATA)}
    below = AIPW.from_formula("y ~ x2", subpop="x1 > @limit and x1 < @value", **given).fit()
    np.testing.assert_array_equal(below.bse, AIPW.from_formula("y ~ x2", subpop=TWO.x1 > limit, **given).fit().bse)
    assert value > TWO.x1.max()


def test_a_subpopulation_by_a_condition_has_no_name_of_a_column():
    res = model(subpop=TWO.x1 > -1).fit()
    text = f"{res.summary()} {res.methods()}"
    assert "subpopulation x1" not in text and "by a condition" in text
