"""The jackknife: R's numbers for rows and clusters, refits by hand, and what the names HC3 and CR3 stand for."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import causalrisk as cr
from causalrisk.estimation.options import InferenceOptions
from causalrisk.inference.covariance import leave_one_out
from tests.conftest import REFERENCE, RHS, in_parts, simulate

CASES = {case["id"]: case for case in json.loads((REFERENCE / "smallsample_inference.json").read_text())["cases"]}
LEFT_OUT = [name for name in CASES if name.startswith("jack_")]


def reference_model(case):
    of = case["model"]
    uses = {} if of["estimator"] == "OutcomeRegression" else {"propensity": of["propensity"]}
    return getattr(cr, of["estimator"]).from_formula(
        f"y ~ {of['covariates']}", pd.read_csv(REFERENCE / case["data"]), treat="d", target=of["target"],
        cluster=case["cluster"], **uses,
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore::causalrisk.errors.DesignWarning")
@pytest.mark.filterwarnings("ignore::causalrisk.errors.OverlapWarning")
@pytest.mark.parametrize("name", LEFT_OUT)
def test_reference(name):
    case = CASES[name]
    expected, res = case["result"], reference_model(case).fit(cov_type="jackknife")
    assert list(res.params.index) == expected["names"]
    np.testing.assert_allclose(res.params, expected["estimate"], rtol=1e-10)
    np.testing.assert_allclose(res.cov_params(), expected["vcov"], rtol=1e-8)
    half = stats.t.ppf(0.975, expected["df"]) * res.bse
    np.testing.assert_allclose(np.column_stack([res.params - half, res.params + half]), expected["ci"], rtol=1e-8)


@pytest.mark.filterwarnings("ignore::causalrisk.errors.DesignWarning")
@pytest.mark.parametrize(("name", "cov_type"), [("means_rows", "HC3"), ("means_clusters", "CR3")])
def test_hc3_and_cr3_of_one_regression_are_sums_of_squares_about_the_estimate(name, cov_type):
    """Of a difference of means, where R's and these differ by the mean and the factor alone."""
    case = CASES[name]
    theirs = next(each["se"] for each in case["results"] if each["type"] == cov_type) ** 2
    res = reference_model(case).fit(cov_type=cov_type)
    units = case["n_units"]
    away = without_units(res)[:, 0] - res.effect
    assert away @ away == pytest.approx(theirs, rel=1e-10)
    assert res.effect_se**2 == pytest.approx((units - 1) / units * (theirs - units * away.mean() ** 2), rel=1e-10)
    assert res.cov_type == "jackknife"


def without_units(res):
    return leave_one_out(res._record, InferenceOptions()).values[:, : len(res.params)]


def logged(left_out, res, effect):
    """Reported effects, moved on the log scale."""
    moved = left_out.copy()
    if effect == "ratio":
        moved[:, 0] = res.effect * np.log(left_out[:, 0])
    elif effect == "percent":
        moved[:, 0] = (100 + res.effect) * np.log1p(left_out[:, 0] / 100)
    return moved


def by_hand(left_out):
    away = left_out - left_out.mean(axis=0)
    return (len(away) - 1) / len(away) * away.T @ away


THREE = simulate(90, strength=0.4).assign(
    arm=lambda f: f.d + (np.arange(90) % 3 == 0), positive=lambda f: np.exp(f.y / 5)
)
OTHERS = [
    (cr.IPWRA, {"formula": f"y ~ {RHS}", "treat": "arm", "reference": 0}),
    (cr.AIPW, {"formula": "positive ~ x1", "treat": "d", "family": "poisson", "effect": "ratio"}),
    (cr.IPW, {"formula": "y ~ 1", "treat": "d", "propensity": "x1 + x2", "target": "overlap", "weights": "w"}),
    (cr.IPWRA, {"formula": "y ~ x1", "treat": "d", "cluster": "g", "trim": (0.15, 0.95)}),
    (cr.OutcomeRegression, {"formula": "y ~ x1 * x2", "treat": "arm", "reference": 0, "target": "control"}),
]


@pytest.mark.filterwarnings("ignore::causalrisk.errors.CausalRiskWarning")
@pytest.mark.parametrize(("kind", "options"), OTHERS)
def test_every_step_is_redone_without_each_unit(kind, options):
    data = THREE.assign(w=1 + np.arange(90) % 4 / 2, g=np.arange(90) % 15)
    if "weights" in options:
        options = options | {"weight_type": "probability"}
    res = kind.from_formula(data=data, **options).fit(cov_type="jackknife")
    kept = data[res.in_sample]
    options = {name: value for name, value in options.items() if name not in ("trim", "cluster")}
    units = kept.g if res._record.design.cluster_name else kept.index
    left_out = without_units(res)
    np.testing.assert_allclose(res.cov_params(), by_hand(logged(left_out, res, options.get("effect"))), rtol=1e-10)
    for number, unit in list(enumerate(np.unique(units)))[::7][:5]:
        again = kind.from_formula(data=kept[units != unit], **options).fit(cov_type="robust")
        np.testing.assert_allclose(left_out[number], again.params, rtol=1e-7)


@pytest.mark.filterwarnings("ignore::causalrisk.errors.CausalRiskWarning")
@pytest.mark.parametrize(
    "options", [{}, {"cluster": "g"}, {"target": "treated", "effect": "percent"}, {"treat": "arm", "reference": 0}]
)
def test_jre_keeps_anchor_and_replicates(options):
    """Its replicates move with the score, as under the multiplicities of a bootstrap."""
    data = THREE.assign(y=THREE.y + 10, g=np.arange(90) % 15)
    model = cr.JRE.from_formula(f"y ~ {RHS}", data, **{"treat": "d", **options})
    units = data.g if "cluster" in options else data.index
    without = (units.to_numpy()[:, None] != np.unique(units)).astype(float)
    boot = model.fit(resamples=without, n_replicates=30)
    res = model.fit(cov_type="jackknife", n_replicates=30)
    expected = by_hand(logged(boot.boot_params.to_numpy(), res, options.get("effect")))
    np.testing.assert_allclose(res.cov_params(), res._record.choice_variance * expected, rtol=1e-8)
    assert res._record.covariance.shape == boot._record.covariance.shape


@pytest.mark.filterwarnings("ignore::causalrisk.errors.CausalRiskWarning")
@pytest.mark.parametrize("cluster", [None, "g"])
def test_one_of_equal_rows_is_left_out(cluster):
    data = simulate(80, strength=0.4).assign(count=1 + np.arange(80) % 3, g=np.arange(80) // 5)
    written = data.loc[data.index.repeat(data["count"])].reset_index(drop=True)
    counted = cr.AIPW.from_formula(
        f"y ~ {RHS}", data, treat="d", weights="count", weight_type="frequency", cluster=cluster
    )
    one, other = (
        model.fit(cov_type="jackknife")._record
        for model in (counted, cr.AIPW.from_formula(f"y ~ {RHS}", written, treat="d", cluster=cluster))
    )
    np.testing.assert_allclose(one.std_errors, other.std_errors, rtol=1e-10)


@pytest.mark.filterwarnings("ignore::causalrisk.errors.CausalRiskWarning")
def test_rows_of_a_target_frame_are_a_sample_of_their_own():
    data, frame = simulate(70, strength=0.4), simulate(40, seed=3)
    model = cr.IPWRA.from_formula("y ~ x1 + x2", data, treat="d", target=frame)
    res = model.fit(cov_type="jackknife")
    left_out = without_units(res)
    np.testing.assert_allclose(res.cov_params(), by_hand(left_out[:70]) + by_hand(left_out[70:]), rtol=1e-10)
    for number, (rows, target) in {0: (data[1:], frame), 69: (data[:-1], frame), 70: (data, frame[1:])}.items():
        again = cr.IPWRA.from_formula("y ~ x1 + x2", rows, treat="d", target=target).fit()
        np.testing.assert_allclose(left_out[number], again.params, rtol=1e-7)


@pytest.mark.filterwarnings("ignore::causalrisk.errors.CausalRiskWarning")
@pytest.mark.parametrize(("kind", "frame"), [(cr.IPWRA, None), (cr.JRE, simulate(30, seed=3))])
def test_a_scan_leaves_out_clusters(kind, frame):
    data = simulate(120, strength=0.4).assign(g=np.arange(120) // 8)
    of = {"treat": "d", "cluster": "g", "target": "all" if frame is None else frame}
    scanned = in_parts([data[:50], data[50:]], 32)
    options = {"n_replicates": 30} if kind is cr.JRE else {}
    models = [kind.from_formula("y ~ x1 + x2", source, **of) for source in (scanned, data)]
    one, other = (model.fit(cov_type="jackknife", **options) for model in models)
    np.testing.assert_allclose(one.cov_params(), other.cov_params(), rtol=1e-8)


def test_a_scan_does_not_leave_out_rows():
    data = simulate(60)
    with pytest.raises(cr.UnavailableError, match=r'cov_type="robust"'):
        cr.IPWRA.from_formula(f"y ~ {RHS}", cr.scan([data]), treat="d").fit(cov_type="jackknife")


def test_a_unit_that_cannot_be_left_out():
    """The only treated row of a level: without it the outcome design of its arm is singular."""
    data = simulate(60, strength=0.4)
    data["rare"] = (data.index == data.index[data.d == 1][0]).astype(int) + (data.d == 0) * (np.arange(60) % 2)
    model = cr.OutcomeRegression.from_formula("y ~ x1 + rare", data, treat="d")
    with pytest.warns(cr.ResampleWarning, match="the jackknife cannot leave out 1 of 60 rows"):
        res = model.fit(cov_type="jackknife")
    left_out = leave_one_out(res._record, InferenceOptions())
    worked = left_out.failures == 0
    np.testing.assert_allclose(res.cov_params(), by_hand(left_out.values[worked, :3]), rtol=1e-10)
    with pytest.raises(cr.BootstrapError, match=r'fit\(cov_type="robust"\)') as raised:
        model.fit(cov_type="jackknife", max_failed=0)
    pd.testing.assert_series_equal(raised.value.results.bse, model.fit().bse)


@pytest.mark.parametrize(
    ("cluster", "options", "typed"),
    [
        (None, {"cov_type": "CR3"}, 'cluster="column"'),
        ("g", {"cov_type": "HC3"}, 'cov_type="CR3"'),
        (None, {"cov_type": "jackknife", "small_sample": True}, "Leave small_sample= out"),
        (None, {"cov_type": "jackknife", "n_boot": 20}, 'cov_type="bootstrap"'),
        (None, {"cov_type": "HC2"}, "jackknife"),
    ],
)
def test_refused(cluster, options, typed):
    data = simulate(60).assign(g=np.arange(60) // 3)
    with pytest.raises(cr.OptionError, match=typed):
        cr.IPWRA.from_formula(f"y ~ {RHS}", data, treat="d", cluster=cluster).fit(**options)


@pytest.mark.filterwarnings("ignore::causalrisk.errors.CausalRiskWarning")
@pytest.mark.parametrize("kind", [cr.AIPW, cr.JRE])
def test_learners_keep_their_predictions(kind):
    """A stack keeps its weights too."""
    data = simulate(120, strength=0.4)
    model = kind.from_formula(f"y ~ {RHS}", data, treat="d", learner="smooth")
    options = {"n_replicates": 20} if kind is cr.JRE else {}
    boot = model.fit(resamples=1 - np.eye(120), **options)
    res = model.fit(cov_type="jackknife", **options)
    factor = res._record.choice_variance
    np.testing.assert_allclose(res.cov_params(), factor * by_hand(boot.boot_params.to_numpy()), rtol=1e-8)


@pytest.mark.filterwarnings("ignore::causalrisk.errors.CausalRiskWarning")
@pytest.mark.parametrize("options", [{}, {"cluster": "g"}, {"target": "treated"}])
def test_groups_are_redone_too(options):
    data = THREE.assign(g=np.arange(90) % 15)
    groups, units = np.where(data.x3 > 0, "high", "low"), data.g if "cluster" in options else data.index
    res = cr.AIPW.from_formula("y ~ x1 + x2", data, treat="d", **options).fit(cov_type="jackknife")
    table, alone = res.effects_by(groups), {name: value for name, value in options.items() if name != "cluster"}
    left_out = np.array([
        cr.AIPW.from_formula("y ~ x1 + x2", data[units != unit], treat="d", **alone)
        .fit().effects_by(groups[units != unit])["estimate"]
        for unit in (np.unique(units) if "cluster" in options else [])
    ])  # fmt: skip
    if "cluster" in options:
        covariance = by_hand(left_out)
        np.testing.assert_allclose(table["std err"], np.sqrt(np.diag(covariance)), rtol=1e-7)
        difference = res.differences_by(groups)["std err"].iloc[0]
        assert difference == pytest.approx(np.sqrt([1, -1] @ covariance @ [1, -1]), rel=1e-7)
    everybody = res.effects_by(np.full(90, "all"))
    assert everybody["std err"].iloc[0] == pytest.approx(res.effect_se, rel=1e-8)


def test_groups_of_jre_are_redone_too():
    """Refits without each row, and the means of their contributions in each group, by hand."""
    model = cr.JRE.from_formula("y ~ x1", THREE, treat="d", propensity=RHS)
    res = model.fit(cov_type="jackknife", n_replicates=30, join_score=False)
    record, groups = res._record, np.where(THREE.x3 > 0, "high", "low")
    sample, block, left_out = record.sample, record.estimate.block, []
    out = 1.0 - (sample.order[:, None] == np.arange(90))
    inside, Z = np.stack([groups == "high", groups == "low"])[:, sample.order], sample.Z.columns
    for s, values in zip(out.T, record.estimate.rows.refit(out).values, strict=True):
        fitted = values[block("theta")].reshape(record.estimate.theta.shape) @ sample.X.columns.T
        e = 1 / (1 + np.exp(-Z @ values[block("gamma")]))
        own = np.where(sample.arm == 1, (sample.y - fitted[1]) / e, -(sample.y - fitted[0]) / (1 - e))
        phi = fitted[1] - fitted[0] + own
        left_out.append((inside * s) @ phi / (inside @ s))
    expected = np.sqrt(record.choice_variance * np.diag(by_hand(np.array(left_out))))
    np.testing.assert_allclose(res.effects_by(groups)["std err"], expected, rtol=1e-8)


@pytest.mark.filterwarnings("ignore::causalrisk.errors.DesignWarning")
@pytest.mark.filterwarnings("ignore::causalrisk.errors.OverlapWarning")
@pytest.mark.parametrize("name", ["jack_rows_IPWRA_all", "jack_clusters_IPWRA_all"])
def test_degrees_of_freedom_are_units_less_one(name):
    expected, res = CASES[name]["result"], reference_model(CASES[name]).fit(cov_type="jackknife", use_t=True)
    np.testing.assert_allclose(res.conf_int(), expected["ci"], rtol=1e-8)
    np.testing.assert_allclose(res.pvalues, expected["p_two_sided"], rtol=1e-8)
    assert "minus one" in str(res.summary())


def test_dummies_of_the_clusters_cannot_be_left_out(tmp_path):
    data = simulate(300).assign(city=[f"c{k % 6}" for k in range(300)])
    model = cr.AIPW.from_formula("y ~ x1 + city", data, treat="d", cluster="city")
    with pytest.raises(cr.BootstrapError, match="city is in a formula"):
        model.fit(cov_type="jackknife")
    page = model.fit().report(tmp_path / "page.html", short=True).read_text("utf-8")
    assert "The models cannot be fitted without the cluster city" in page and "move by nan" not in page


def test_pairs_left_out_give_the_paired_t_test():
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"pair": np.repeat(np.arange(30), 2), "d": np.tile([0, 1], 30)})
    data["y"] = rng.normal(size=30)[data["pair"]] + 0.5 * data["d"] + rng.normal(size=60)
    model = cr.OutcomeRegression.from_formula("y ~ 1", data, treat="d", cluster="pair")
    res, paired = model.fit(cov_type="jackknife", use_t=True), stats.ttest_rel(data["y"][1::2], data["y"][::2])
    np.testing.assert_allclose([res.tvalues["ATE"], res.pvalues["ATE"]], [paired.statistic, paired.pvalue], rtol=1e-9)
