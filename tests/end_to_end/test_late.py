"""LATE beside two-stage least squares, ratios by hand and tests at given effects."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from causalrisk import (
    AIPW,
    LATE,
    CausalRiskError,
    DesignError,
    DesignWarning,
    OptionError,
    UnavailableError,
    etable,
    scan,
)

REFERENCE = Path(__file__).parents[1] / "reference"


def drawn(n=600, strength=1.0, seed=0):
    rng = np.random.default_rng(seed)
    x1, x2, kind = rng.normal(size=n), rng.normal(size=n), rng.random(n)
    z = (rng.random(n) < 1 / (1 + np.exp(-0.5 * x1))).astype(int)
    always, complier = kind < 0.2, (kind >= 0.2) & (kind < 0.2 + 0.5 * strength)
    d = np.where(always, 1, np.where(complier, z, 0))
    y = 1.5 * d + x1 + always + rng.normal(size=n)
    return pd.DataFrame({"y": y, "d": d, "z": z, "x1": x1, "x2": x2, "group": np.arange(n) // 6})


def scores(values, data):
    """Augmented values of each row under both values of the instrument, less each other."""
    X, z = sm.add_constant(data[["x1", "x2"]]).to_numpy(), data["z"].to_numpy()
    e, found = sm.Logit(z, X).fit(disp=0, tol=1e-13).predict(X), []
    for a, score in enumerate((1 - e, e)):
        predicted = X @ np.linalg.lstsq(X[z == a], values[z == a], rcond=None)[0]
        found.append(predicted + (z == a) / score * (values - predicted))
    return found[1] - found[0]


def test_the_ratio_of_two_augmented_effects():
    data = drawn()
    res = LATE.from_formula("y ~ x1 + x2", data, treat="d", instrument="z").fit()
    y, d = (scores(data[name].to_numpy(dtype=float), data).mean() for name in ("y", "d"))
    np.testing.assert_allclose([res.effect, res.complier_share], [y / d, d], rtol=1e-10)
    np.testing.assert_allclose([res.outcome.effect, res.first_stage.effect], [y, d], rtol=1e-10)


def test_two_stage_least_squares_where_nothing_is_adjusted():
    data = drawn()
    res = LATE.from_formula("y ~ 1", data, treat="d", instrument="z", method="IPWRA").fit()
    y, d, z = (data[name] - data[name].mean() for name in ("y", "d", "z"))
    effect = (y @ z) / (d @ z)
    se = np.sqrt(((z * (y - effect * d)) ** 2).sum()) / (d @ z)
    np.testing.assert_allclose([res.effect, res.bse.iloc[0]], [effect, se], rtol=1e-8)


def at_effect(data, effect, **options):
    """Statistic of the effect of the instrument on y less a given effect of d."""
    res = AIPW.from_formula("I(y - effect * d) ~ x1 + x2", data.assign(effect=effect), treat="z", **options).fit()
    return res.effect / res.bse.iloc[0]


@pytest.mark.parametrize("strength", [1.0, 0.25])
@pytest.mark.filterwarnings("ignore::causalrisk.DesignWarning")
def test_ends_of_the_interval_of_anderson_and_rubin(strength):
    data = drawn(strength=strength)
    res = LATE.from_formula("y ~ x1 + x2", data, treat="d", instrument="z").fit()
    ends = res.conf_int(method="anderson-rubin").to_numpy().ravel()
    ends = ends[np.isfinite(ends)]
    assert len(ends) == 2
    np.testing.assert_allclose([abs(at_effect(data, end)) for end in ends], 1.959963984540054, rtol=1e-8)


def test_an_instrument_without_effect_gives_the_whole_line_and_a_warning():
    data = drawn().assign(z=np.random.default_rng(3).integers(0, 2, 600))
    with pytest.warns(DesignWarning, match="weak"):
        res = LATE.from_formula("y ~ x1 + x2", data, treat="d", instrument="z").fit()
    limits = res.conf_int(method="anderson-rubin").to_numpy()
    assert np.isinf(limits).any()
    assert (abs(at_effect(data, 100.0)) < 1.96) == bool(((limits[:, 0] < 100) & (limits[:, 1] > 100)).any())


@pytest.mark.filterwarnings("ignore::causalrisk.DesignWarning")
def test_the_summary_repeats_the_warnings(tmp_path):
    data = drawn(strength=0.0).assign(group=lambda frame: frame.index % 12)
    model = LATE.from_formula("y ~ x1 + I(2 * x1)", data, treat="d", instrument="z", cluster="group")
    with pytest.warns(DesignWarning) as warned:
        res = model.fit()
    said = [str(one.message).replace("\n", " ") for one in warned]
    assert [text.split()[0] for text in said] == ["only", "the"]
    said = [text[0].upper() + text[1:] for text in said]
    text = " ".join(str(res.summary()).split())
    for part in (*said, "dropped 'I(2 * x1)'", "The first stage is weak, so this share"):
        assert text.count(part) == 1
    assert "Df Residuals: 7" in " ".join(str(model.fit(use_t=True, df=7).summary()).split())
    assert "which is weak" in res.methods()
    assert said[1].split(".")[0] in res.report(tmp_path / "page.html").read_text("utf-8")
    strong = LATE.from_formula("y ~ x1", drawn(), treat="d", instrument="z").fit()
    assert "weak." not in strong.methods() and "uncertain" not in str(strong.summary())


def test_clusters_and_resamples():
    data = drawn()
    make = LATE.from_formula
    plain = make("y ~ x1 + x2", data, treat="d", instrument="z")
    clustered = make("y ~ x1 + x2", data, treat="d", instrument="z", cluster="group").fit()
    psi = [scores(data[name].to_numpy(dtype=float), data) for name in ("y", "d")]
    rows = psi[0] - clustered.effect * psi[1]
    by_hand = np.sqrt((pd.Series(rows).groupby(data["group"]).sum() ** 2).sum()) / psi[1].sum()
    assert abs(clustered.bse.iloc[0] / by_hand - 1) < 0.02  # which takes the score as known
    text = " ".join(str(clustered.summary()).split())
    assert f"Clusters: group ({data['group'].nunique()})" in text and "robust (cluster)" in text
    assert f"for which z raises d: an estimated {clustered.complier_share:.1%} of the sample" in text
    np.testing.assert_allclose(plain.fit(n_boot=400).bse, plain.fit().bse, rtol=0.1)
    drawn_again = plain.fit(bootstrap="multiplier", n_boot=400)
    moved = [np.asarray(res.boot_params)[:, 0] for res in (drawn_again.outcome, drawn_again.first_stage)]
    se = np.std(moved[0] - drawn_again.effect * moved[1], ddof=1) / drawn_again.complier_share
    assert drawn_again.effect_se == pytest.approx(se, rel=1e-3)
    assert plain.fit().effect_se != pytest.approx(se, rel=1e-3)


def test_rows_that_miss_the_treatment_or_the_outcome_are_left_out():
    data = drawn()
    some = data.assign(y=data["y"].where(data.index % 7 > 0), d=data["d"].where(data.index % 5 > 0))
    res = LATE.from_formula("y ~ x1 + x2", some, treat="d", instrument="z").fit()
    whole = LATE.from_formula("y ~ x1 + x2", some.dropna(), treat="d", instrument="z").fit()
    np.testing.assert_allclose([res.effect, res.bse.iloc[0]], [whole.effect, whole.bse.iloc[0]], rtol=1e-12)


def test_means_among_compliers():
    data = drawn()
    res = LATE.from_formula("y ~ x1 + x2", data, treat="d", instrument="z").fit()
    d = scores(data["d"].to_numpy(dtype=float), data).mean()
    among = [scores((data["d"] * data[name]).to_numpy(), data).mean() / d for name in ("x1", "x2")]
    found = res.compliers()
    np.testing.assert_allclose(found.loc[["x1", "x2"], "compliers"], among, rtol=1e-10)
    np.testing.assert_allclose(found.loc[["x1", "x2"], "all"], data[["x1", "x2"]].mean(), rtol=1e-10)


@pytest.mark.parametrize("rng", [0, np.random.default_rng(0), np.random.RandomState(0)])
def test_both_effects_have_the_same_resamples(rng):
    res = LATE.from_formula("y ~ x1", drawn(300), treat="d", instrument="z").fit(n_boot=99, rng=rng)
    y, d = (of.boot_params.iloc[:, 0] for of in (res.outcome, res.first_stage))
    np.testing.assert_allclose(res.bse.iloc[0], (y / d).std(ddof=1), rtol=1e-10)
    assert np.corrcoef(y, d)[0, 1] > 0.5


def test_values_go_by_label_and_arrays_by_row():
    data = drawn(300).assign(w=1 + np.arange(300) % 3).sample(frac=1, random_state=1)
    data["x1"] = data["x1"].where(data["x2"] < 2)
    data["d"] = data["d"].where(data["x2"] > -2)
    options = {"treat": "d", "instrument": "z", "weight_type": "probability"}
    by_name, series, array = (
        LATE.from_formula("y ~ x1", data, weights=weights, **options).fit()
        for weights in ("w", data["w"], data["w"].to_numpy())
    )
    np.testing.assert_allclose([series.effect, array.effect], by_name.effect, rtol=1e-12)
    kept = int(data[["x1", "d"]].notna().all(axis=1).sum())
    assert by_name.nobs == kept < 300 and f"Rows dropped: {300 - kept}" in " ".join(str(by_name.summary()).split())
    assert set(by_name.outcome.importance_weights.index) <= set(data.index)


def test_functions_of_the_caller_are_known():
    def squared(values):
        return values**2

    data = drawn(300)
    res = LATE.from_formula("y ~ x1 + squared(x1)", data, treat="d", instrument="z").fit()
    same = LATE.from_formula("y ~ x1 + I(x1**2)", data, treat="d", instrument="z").fit()
    np.testing.assert_allclose(res.effect, same.effect, rtol=1e-12)


def test_an_instrument_that_lowers_the_treatment():
    data = drawn()
    res, turned = (
        LATE.from_formula("y ~ x1", frame, treat="d", instrument="z").fit()
        for frame in (data, data.assign(z=1 - data["z"]))
    )
    np.testing.assert_allclose([turned.effect, turned.complier_share], [res.effect, res.complier_share], rtol=1e-10)
    np.testing.assert_allclose(turned.compliers(), res.compliers(), rtol=1e-8)
    assert "for which z lowers d" in " ".join(str(turned.summary()).split())


@pytest.mark.filterwarnings("error")
def test_one_sided_compliance_gives_no_warning():
    data = drawn().assign(d=lambda frame: frame["d"] * frame["z"])
    res = LATE.from_formula("y ~ x1", data, treat="d", instrument="z").fit()
    assert res.compliers().notna().all(axis=None)
    assert "does not vary" not in str(res.summary())


@pytest.mark.parametrize(
    ("change", "options", "error", "match"),
    [
        (
            {"d": lambda data: data["d"].map({0: "no", 1: "yes"})},
            {},
            DesignError,
            r"expected 0 and 1[^`]*`.*map\(\{'no': 0, 'yes': 1\}\)",
        ),
        ({"d": lambda data: data["d"] + data["z"]}, {}, DesignError, "column with two values"),
        ({}, {"treat": "dose"}, DesignError, "treat='dose' is not a column"),
        ({}, {"target": "treated"}, OptionError, "target= is not available for LATE"),
        ({}, {"estimand": "ATT"}, OptionError, "target= is not available for LATE"),
        ({}, {"learner": "smooth", "n_repeats": 3}, OptionError, "n_repeats= is not available for LATE"),
        ({}, {"method": "JRE"}, OptionError, "'JRE' .* expected one of 'AIPW', 'IPWRA', 'IPW', 'OutcomeRegression'"),
        ({}, {"method": "2sls"}, OptionError, "estimator '2sls' is not known"),
        ({}, {"treated": 1}, OptionError, "treated= is not available for LATE"),
        ({}, {"formula": "y ~ x1 + d"}, DesignError, "'d' is in the formula"),
        ({}, {"formula": "y ~ x1 + z"}, DesignError, "^instrument 'z' is in .*\nTake z out"),
        ({}, {"formula": "y ~ d + x1 | z + x1"}, DesignError, r'LATE.from_formula\("y ~ x"'),
        ({}, {"instrument": ""}, DesignError, "LATE needs instrument=.\nUse `instrument=` with one of 'y'"),
        ({"d": 1}, {}, CausalRiskError, "no effect on 'd'"),
    ],
)
@pytest.mark.filterwarnings("ignore::causalrisk.DesignWarning")
def test_what_cannot_be_is_refused(change, options, error, match):
    with pytest.raises(error, match=match):
        given = {"formula": "y ~ x1", "treat": "d", "instrument": "z"} | options
        LATE.from_formula(data=drawn().assign(**change), **given).fit()


def test_the_jackknife_leaves_out_each_row():
    data = drawn(60)
    model = LATE.from_formula("y ~ x1", data, treat="d", instrument="z")
    left_out = [
        LATE.from_formula("y ~ x1", data.drop(row), treat="d", instrument="z").fit().effect for row in data.index
    ]
    expected = np.sqrt(59) * np.std(left_out)
    res = model.fit(cov_type="jackknife", use_t=True)
    assert (res.effect_se, res.cov_type) == (pytest.approx(expected, rel=1e-7), "jackknife")
    # two outcome coefficients per arm
    assert model.fit(cov_type="HC1").effect_se == pytest.approx(np.sqrt(60 / 56) * model.fit().effect_se, rel=1e-10)


def test_both_effects_have_changed_options():
    options = {"formula": "y ~ x1", "data": drawn(200), "treat": "d", "instrument": "z"}
    changed = LATE.from_formula(**options).with_options(propensity_link="probit").fit()
    wanted = LATE.from_formula(**options, propensity_link="probit").fit()
    assert (changed.effect, changed.first_stage_f) == (wanted.effect, wanted.first_stage_f)
    with pytest.raises(OptionError, match="target= is not available for LATE"):
        changed.model.with_options(target="treated")


def test_options_may_have_their_names_in_other_packages():
    model = LATE.from_formula("y ~ x1", drawn(200), treat="d", instrument="z")
    assert model.fit(seed=3, reps=9).effect_se == model.fit(rng=3, n_boot=9).effect_se != model.fit(n_boot=9).effect_se


def test_the_summary_says_what_is_assumed():
    res = LATE.from_formula("y ~ x1", drawn(), treat="d", instrument="z").fit()
    text = " ".join(str(res.summary()).split())
    assert "First-stage F:" in text and "The 95% interval of Anderson and Rubin" in text and "only through d" in text
    assert "The 97.5% interval of Anderson and Rubin" in " ".join(res.summary(alpha=0.025).as_text().split())


GIVEN = {"outcome_predictions": ["g0", "g1"], "treatment_predictions": ["r0", "r1"]}
SCORED = GIVEN | {"treat": "d", "instrument": "z", "propensity_score": "m"}


def given_rows():
    known = json.loads((REFERENCE / "doubleml_iivm.json").read_text("utf-8"))
    return pd.DataFrame(known.pop("rows")), known


def test_given_predictions_as_doubleml():
    data, known = given_rows()
    res = LATE.from_formula("y ~ x", data, **SCORED).fit()
    np.testing.assert_allclose([res.effect, res.effect_se], [known["effect"], known["std_error"]], rtol=1e-8)
    of_arrays = [data[["g0", "g1"]].to_numpy(), data[["r0", "r1"]].to_numpy()]
    same = LATE.from_formula("y ~ x", data, **SCORED | dict(zip(GIVEN, of_arrays, strict=True))).fit()
    np.testing.assert_allclose(same.effect, res.effect, rtol=1e-14)


def test_compliers_at_given_predictions():
    data, _ = given_rows()
    z, m, d, x = (data[name] for name in ("z", "m", "d", "x"))

    def mean(values, r0, r1):
        return (r1 - r0 + z / m * (values - r1) - (1 - z) / (1 - m) * (values - r0)).mean()

    among = mean(d * x, data["r0"] * x, data["r1"] * x) / mean(d, data["r0"], data["r1"])
    found = LATE.from_formula("y ~ x", data, **SCORED).fit().compliers()
    np.testing.assert_allclose(found.loc["x", "compliers"], among, rtol=1e-10)


def test_predictions_of_one_of_both_are_refused():
    data, _ = given_rows()
    with pytest.raises(OptionError, match="predictions of both"):
        LATE.from_formula("y ~ x", data, treat="d", instrument="z", outcome_predictions=["g0", "g1"])


def test_what_other_programs_read():
    data = drawn()
    res = LATE.from_formula("y ~ x1 + x2", data, treat="d", instrument="z").fit()
    tidy, row = res.tidy(), res.glance().iloc[0]
    assert tidy.columns.tolist() == AIPW.from_formula("y ~ x1", data, treat="d").fit().tidy().columns.tolist()
    assert tidy.loc[0, "term"] == "LATE"
    numbers = [res.effect, res.effect_se, res.effect / res.effect_se, res.pvalues.iloc[0], *res.conf_int().iloc[0]]
    np.testing.assert_allclose(tidy.iloc[0, 1:].astype(float), numbers, rtol=1e-12)
    np.testing.assert_allclose([row["first_stage_f"], row["nobs"]], [res.first_stage_f, 600])
    table = etable(res, AIPW.from_formula("y ~ x1", data, treat="d").fit())
    np.testing.assert_allclose(table.frame.iloc[:, 0].dropna()["LATE"].iloc[:2], [res.effect, res.effect_se])
    assert f"{res.first_stage_f:.1f}" in str(table)
    assert "First-stage F" in str(table) and "LATE by AIPW" in str(table)
    assert str(pickle.loads(pickle.dumps(res)).summary()) == str(res.summary())


def test_methods_and_report(tmp_path):
    data = drawn()
    res = LATE.from_formula("y ~ x1 + x2", data, treat="d", instrument="z", method="IPWRA", cluster="group").fit()
    text = res.methods()
    for part in (
        "local average treatment effect (LATE) of d on",
        "with the instrument z (Imbens and Angrist 1994)",
        f"{res.complier_share:.1%} of the sample",
        "Anderson and Rubin (1949)",
        "clustered by group",
        "logit model: z ~ x1 + x2",
    ):
        assert part in text
    page = res.report(tmp_path / "late.html", assumptions={"exclusion": "The offer is a letter."}).read_text("utf-8")
    for part in ("The offer is a letter.", "Compliers", "no defiers", "Econometrica 62", "data:image/png", "Tan, Z."):
        assert part in page
    call = page.partition("<pre><code>")[2].partition("</code>")[0].replace("&#x27;", "'")
    found = {"data": data}
    exec(call, found)
    np.testing.assert_allclose(found["res"].effect, res.effect, rtol=1e-14)
    with pytest.raises(OptionError, match="exclusion"):
        res.report(tmp_path / "late.html", assumptions={"exclude": "x"})


def test_data_on_disk_are_refused_whatever_they_are():
    frames = pytest.importorskip("dask.dataframe").from_pandas(drawn(), npartitions=2)
    for data in (frames, scan(frames)):
        with pytest.raises(UnavailableError, match="LATE is not available"):
            LATE.from_formula("y ~ x1", data, treat="d", instrument="z")


def test_methods_of_the_two_effects_are_pointed_to():
    res = LATE.from_formula("y ~ x1", drawn(), treat="d", instrument="z").fit()
    with pytest.raises(UnavailableError, match=r"Use `res.outcome.balance\(\)` or `res.first_stage.balance\(\)`"):
        _ = res.balance
    with pytest.raises(UnavailableError, match="compliers"):
        _ = res.complier
