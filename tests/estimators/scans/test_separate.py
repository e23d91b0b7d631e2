"""Fits over blocks of rows against fits in memory: the same numbers whatever the blocks, and memory that is bounded."""

from __future__ import annotations

import contextlib
import itertools
import re
import sys
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import causalrisk
from causalrisk import (
    AIPW,
    IPWRA,
    JRE,
    BootstrapError,
    Hajek,
    OptionError,
    OutcomeRegression,
    SeparationError,
    UnavailableError,
    scan,
)
from causalrisk.design import ScannedDesign
from causalrisk.models.estimators import Unadjusted
from causalrisk.numerics.linalg import orthonormal_basis
from tests.conftest import in_blocks, simulate
from tests.dask_stub import cluster

F = "bweight ~ mage + medu + C(site)"


@pytest.fixture(scope="module")
def births(cattaneo):
    tiled = pd.concat([cattaneo] * 2, ignore_index=True)
    rng, n = np.random.default_rng(8), len(tiled)
    return tiled.assign(
        bweight=tiled.bweight + rng.normal(0, 100, n).round(),
        site=np.array(["north", "south", "west"])[rng.integers(0, 3, n)],
        w=rng.integers(1, 4, n),
        clinic=rng.integers(0, 40, n),
        dose=np.array(["none", "low", "high"])[rng.integers(0, 3, n)],
        low=(tiled.bweight < 3000) * 1,
        far=tiled.bweight + 1e7,
        months=rng.uniform(1, 9, n),
        known=rng.normal(1e5, 1e4, n),
        cigs=rng.poisson(3, n) + tiled.mbsmoke,
    )


def shuffled(frame, seed):
    """Blocks of very different sizes, one without rows."""
    cuts = np.sort(np.random.default_rng(seed).choice(len(frame), 2, replace=False))
    edges = [0, *cuts, cuts[-1], len(frame)]
    return [frame[a:b] for a, b in itertools.pairwise(edges)]


def agree(ours, theirs, rtol=1e-9):
    np.testing.assert_allclose(ours.params, theirs.params, rtol=rtol)
    np.testing.assert_allclose(ours.cov_params(), theirs.cov_params(), rtol=rtol, atol=rtol * theirs.bse.max() ** 2)
    np.testing.assert_allclose(ours.outcome_params, theirs.outcome_params, rtol=1e-6)
    np.testing.assert_allclose(ours.outcome_bse, theirs.outcome_bse, rtol=1e-6)
    assert ours.nobs == theirs.nobs
    assert ours._record.notes == theirs._record.notes
    np.testing.assert_allclose(
        [arm.effective_n for arm in ours._record.overlap], [arm.effective_n for arm in theirs._record.overlap]
    )


def compare(model, data, formula=F, fit=None, **options):
    """Fits to every second row, as blocks and in memory."""
    given, fit, data = {"treat": "mbsmoke"} | options, fit or {}, data[::2].reset_index(drop=True)
    whole = model.from_formula(formula, data, **given).fit(**fit)
    blocks = model.from_formula(formula, in_blocks(shuffled(data, seed=3)), **given).fit(**fit)
    agree(blocks, whole)
    return blocks, whole


FITS = [
    *((IPWRA, target) for target in ("all", "treated", "overlap")),
    (AIPW, "entropy"),
    (OutcomeRegression, "treated"),
    (Hajek, "control"),
    (Unadjusted, "all"),
]


@pytest.mark.parametrize("model", [OutcomeRegression, Hajek, IPWRA, AIPW])
def test_splines_that_learn_their_knots_agree_with_memory(births, model):
    formula = "bweight ~ bs(np.log(mage), df=4) + cr(known, df=3, constraints='center') + center(medu):C(site)"
    propensity = "bs(mage, df=5, degree=2) * standardize(medu)"
    options = {"propensity": propensity, "weights": "w", "weight_type": "probability"}
    blocks, whole = compare(model, births, formula, **options)
    assert blocks.outcome_params.index.equals(whole.outcome_params.index)
    assert blocks._record.design.propensity_names == whole._record.design.propensity_names
    np.testing.assert_allclose(blocks.bse, whole.bse, rtol=1e-9)


@pytest.mark.parametrize(("model", "target"), FITS)
def test_blocks_agree_with_memory(births, model, target):
    compare(model, births, target=target)


def test_parquet_agrees_with_memory(births, tmp_path):
    for k, part in enumerate(shuffled(births, seed=4)):
        part.to_parquet(tmp_path / f"{k}.parquet")
    for target in ("ATE", "ATT"):
        whole = IPWRA.from_formula(F, births, treat="mbsmoke", target=target).fit()
        source = scan(f"{tmp_path}/*.parquet", block_rows=4000)
        agree(IPWRA.from_formula(F, source, treat="mbsmoke", target=target).fit(), whole)


OPTIONS = {
    "frequency weights": {"weights": "w", "weight_type": "frequency"},
    "clusters": {"cluster": "clinic", "fit": {"small_sample": True}},
    "probit": {"propensity_link": "probit", "propensity": "mage + medu", "effect": "ratio", "fit": {"cov_type": "HC1"}},
    "calibrated": {"formula": "low ~ mage", "family": "binomial", "propensity_loss": "calibrated", "target": "treated"},
    "poisson": {"formula": "low ~ mage", "family": "poisson", "target": "matching"},
    "exposure": {"formula": "cigs ~ mage", "family": "poisson", "exposure": "months", "at_exposure": 9},
    "offset of far outcomes": {"formula": "far ~ mage", "offset": "known", "target": "treated"},
    "no intercept": {"formula": "far ~ 0 + C(site) + mage"},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_agree_with_memory(births, name):
    compare(IPWRA, births, **OPTIONS[name])


def test_aipw_of_several_arms_with_weights(births):
    compare(AIPW, births, treat="dose", reference="none", target="overlap", weights="w", weight_type="probability")


@pytest.mark.parametrize("model", [AIPW, Hajek])
def test_means_at_observed_exposures(births, model):
    blocks, whole = compare(
        model, births, "cigs ~ mage + medu", family="poisson", exposure="months", at_exposure="observed", effect="ratio"
    )
    pd.testing.assert_frame_equal(blocks.glance(), whole.glance(), rtol=1e-9)


def test_sorted_rows_and_missing_values(births):
    frame = births.sort_values("mbsmoke", ignore_index=True)  # most blocks lack an arm
    frame.loc[8000:8100, "mage"] = np.nan
    blocks, whole = compare(IPWRA, frame)
    pd.testing.assert_frame_equal(blocks.sample_ledger, whole.sample_ledger)
    head = [res.summary(coefficients=False).as_text().split("By arm")[0].splitlines() for res in (blocks, whole)]
    assert head[0][:13] == head[1][:13]


def test_results_that_need_no_rows(births):
    blocks, whole = compare(IPWRA, births)
    pd.testing.assert_frame_equal(blocks.tidy(), whole.tidy(), rtol=1e-9)
    pd.testing.assert_frame_equal(blocks.conf_int(0.1), whole.conf_int(0.1), rtol=1e-9)
    pd.testing.assert_frame_equal(blocks.predict(births[:5]), whole.predict(births[:5]), rtol=1e-9)
    np.testing.assert_allclose(blocks.propensity_bse, whole.propensity_bse)
    assert np.isnan([arm.top_share for arm in blocks._record.overlap]).all()
    assert "top 1%" not in blocks.summary().as_text()


OFFSETS = {
    "offset": {"family": "poisson", "offset": "months"},
    "exposure": {"family": "poisson", "exposure": "months"},
    "observed exposure": {"family": "poisson", "exposure": "months", "at_exposure": "observed"},
    "offset of a line": {"offset": "known"},
}


@pytest.mark.parametrize("model", [OutcomeRegression, Hajek])
@pytest.mark.parametrize("name", OFFSETS)
def test_predictions_are_at_the_offsets_of_memory(births, name, model):
    blocks, whole = compare(model, births, "cigs ~ mage", **OFFSETS[name])
    rows = births[:5]
    pd.testing.assert_frame_equal(blocks.predict(rows), whole.predict(rows), rtol=1e-9)
    found, expected = (res.get_prediction(rows).summary_frame() for res in (blocks, whole))
    pd.testing.assert_frame_equal(found, expected, rtol=1e-7)


@pytest.mark.parametrize("easy", [1e9, 1e4])
def test_rows_that_would_fit_into_memory_are_said_to(births, monkeypatch, easy):
    monkeypatch.setattr("causalrisk.report.summary.EASY", easy)
    fits = [IPWRA.from_formula(F, data, treat="mbsmoke").fit() for data in (births, scan([births]))]
    told = ["data=data.collect()" in "".join(res.summary().as_text().split()) for res in fits]
    assert told == [False, easy == 1e9]


@pytest.mark.parametrize("name", ["table_one", "balance_test", "predict"])
def test_results_that_need_rows_say_so(births, name):
    births = births[:800]
    res = IPWRA.from_formula(F, scan([births]), treat="mbsmoke").fit()
    with pytest.raises(UnavailableError, match="goes by rows, and the model was made from a scan"):
        getattr(res, name)()


@pytest.mark.parametrize("model", [IPWRA, JRE])
def test_trim_curve_is_that_of_memory(births, model):
    options = {"cov_type": "robust"} | ({"n_replicates": 10} if model is JRE else {})
    whole, blocks = (
        model.from_formula(F, data, treat="mbsmoke").fit(**options) for data in (births[:800], scan([births[:800]]))
    )
    pd.testing.assert_frame_equal(blocks.trim_curve([0, 0.1, 0.2]), whole.trim_curve([0, 0.1, 0.2]), rtol=1e-9)


@pytest.mark.parametrize(
    ("name", "arguments"), [("explain", ()), ("report", ()), ("effects_by", ("dose",)), ("equality_test", ("dose",))]
)
def test_results_that_need_rows_say_what_there_is(births, name, arguments):
    res = IPWRA.from_formula(F, scan([births[:800]]), treat="mbsmoke").fit()
    with pytest.raises(UnavailableError, match=r"Type  .*type  data=data.collect\(\)"):
        getattr(res, name)(*arguments)


def test_fits_to_a_scan_under_one_seed_have_the_same_resamples(births):
    """Weighted means are outcome models of a constant, resample by resample, if the weights are."""
    data = scan([births[:500], births[500:800]])
    one = causalrisk.OutcomeRegression.from_formula("bweight ~ 1", data, treat="mbsmoke").fit(n_boot=20, rng=3)
    other = causalrisk.Hajek.from_formula("bweight ~ 1", data, treat="mbsmoke", propensity="1").fit(n_boot=20, rng=3)
    np.testing.assert_allclose(one.boot_params, other.boot_params, rtol=1e-9)
    assert one.boot_params["ATE"].std() > 1


def test_what_is_not_there_for_a_scan(births):
    births = births[:800]
    data = scan([births])
    with pytest.raises(OptionError, match="trim="):
        IPWRA.from_formula(F, data, treat="mbsmoke", target=births, trim="crump").fit()
    with pytest.raises(UnavailableError, match=r"Type  etable\(\[.*data=data.collect\(\)"):
        causalrisk.compare(F, data, treat="mbsmoke")
    with pytest.raises(OptionError, match="propensity_link='probit' is for two arms"):
        IPWRA.from_formula(F, data, treat="dose", reference="none", propensity_link="probit").fit()


def some(score):
    """A population of a part of the scores, of which a block may have none."""
    return ((score > 0.15) & (score < 0.3)) * (1 - score)


def nobody(score):
    return score * 0


TARGETS = {
    "function": (AIPW, {"target": some, "propensity": "mage"}),
    "function, trimmed": (Hajek, {"target": some, "trim": (0.1, 0.5)}),
    "frame": (IPWRA, {}),
    "frame, scores clipped": (AIPW, {"clip": (0.15, 0.25), "propensity": "mage + medu"}),
    "frame, clusters": (AIPW, {"cluster": "clinic", "fit": {"small_sample": True}}),
    "frame, frequencies": (Hajek, {"weights": "w", "weight_type": "frequency", "fit": {"cov_type": "HC1"}}),
    "frame, arms and weights": (
        IPWRA, {"treat": "dose", "reference": "none", "weights": "w", "weight_type": "probability"}
    ),
    "frame, no scores": (OutcomeRegression, {"fit": {"cov_type": "HC1"}}),
    "frame, exposure": (
        OutcomeRegression, {"formula": "cigs ~ mage", "family": "poisson", "exposure": "months", "at_exposure": 2}
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TARGETS)
def test_functions_and_frames_as_targets(births, name, monkeypatch):
    model, options = TARGETS[name]
    frame = births[births.mage > 22][::9].drop(columns=["bweight", "mbsmoke", "dose"])
    frame = frame.assign(medu=frame.medu.where(frame.index % 90 > 0))
    births = births.sort_values("mage", ignore_index=True)
    monkeypatch.setattr(ScannedDesign, "block_rows", 300)  # the frame comes in several blocks
    blocks, whole = compare(model, births, **{"target": frame} | options)
    assert blocks._record.trimmed == whole._record.trimmed
    heads = [str(res.summary(coefficients=False)).split("By arm")[0].splitlines()[:13] for res in (blocks, whole)]
    assert heads[0] == heads[1]


def test_targets_without_anybody(births):
    data = in_blocks(shuffled(births[:800], seed=3))
    with pytest.raises(OptionError, match="the function nobody given as target= returned zero at every score"):
        AIPW.from_formula(F, data, treat="mbsmoke", target=nobody).fit()
    options = {"treat": "mbsmoke", "target": births[births.medu == 0]}
    said = refused(AIPW, births[:800], scan(shuffled(births[:800], seed=3)), F, **options)
    assert "the membership model (logit)" in str(said)


def refused(model, frame, data, formula, **options):
    """The error of separation: that of memory, which a scan has word for word, with the same rows."""
    found = []
    for source in (frame, data):
        with pytest.raises(SeparationError) as caught:
            model.from_formula(formula, source, **options).fit()
        found.append(caught.value)
    assert str(found[1]) == str(found[0])
    np.testing.assert_array_equal(np.sort(found[1].rows), np.sort(found[0].rows))
    return found[1]


@pytest.mark.parametrize(
    "options, says",
    [
        ({"propensity": "mage + q"}, "q = 1 has 90 with mbsmoke = 1 and 0 with mbsmoke = 0"),
        ({"propensity": "mage + C(cell)"}, "C(cell) = a has 90 with mbsmoke = 1 and 0 with mbsmoke = 0"),
        ({"propensity": "mage * q", "propensity_link": "probit"}, "q = 1 has 90 with"),
        ({"propensity": "mage + q", "trim": "crump", "propensity_link": "cloglog"}, "q = 1 has 90 with"),
        ({"propensity": "mage + far"}, "'far'"),
        ({"propensity": "np.exp(far)", "propensity_loss": "calibrated"}, "'np.exp(far)' separates the arms"),
        ({"treat": "dose", "reference": "none", "propensity": "mage + hit"}, "hit = 1 has"),
        ({"propensity": "mage + q", "target": "entropy"}, "q = 1 has 90 with"),
    ],
    ids=lambda value: "",
)
def test_separation_is_refused_in_the_words_of_a_fit_in_memory(births, options, says):
    """A linear programme over the blocks finds it, whatever the scores are at which the iterations end."""
    q = (births.mbsmoke == 1) & (births.mage > 30)
    frame = births.assign(
        q=q * 1,
        cell=np.where(q, "a", np.where(births.medu > 12, "b", "c")),
        far=np.where(births.mbsmoke == 1, births.mage + 50.0, births.mage / 100),
        hit=((births.dose == "low") & (births.mage > 35)) * 1,
    )
    frame, options = frame[::3].reset_index(drop=True), {"treat": "mbsmoke", "collinear": "raise"} | options
    said = refused(IPWRA, frame, scan(shuffled(frame, seed=4)), "bweight ~ mage", **options)
    assert says in str(said)


def test_outcomes_that_a_family_does_not_know_name_the_block(births):
    low = births.low.astype(float).where(births.index != 9000, 2)
    model = IPWRA.from_formula("low ~ mage", scan([births[:4000], births.assign(low=low)[4000:]]), treat="mbsmoke",
                               family="binomial")  # fmt: skip
    with pytest.raises(causalrisk.DesignError, match=r"block 2, rows 0 to .*outcome 'low' has 1 values"):
        model.fit()


def test_exposures_of_zero_name_the_block(births):
    broken = births.assign(months=births.months.where(births.index != 9000, 0.0))
    with pytest.raises(causalrisk.DesignError, match=r"block 2, rows 0 .* 1 values of zero or less[^$]*in the files"):
        IPWRA.from_formula("cigs ~ mage", scan([births[:4000], broken[4000:]]), treat="mbsmoke", family="poisson",
                           exposure="months")  # fmt: skip


PARTS = {
    "target frame": (AIPW, {"target": "frame"}),
    "arms, clusters": (AIPW, {"treat": "dose", "reference": "none", "cluster": "clinic", "target": "overlap"}),
    "frequencies": (IPWRA, {"weights": "w", "weight_type": "frequency", "target": "treated"}),
    "exposure": (IPWRA, {"formula": "cigs ~ mage", "family": "poisson", "exposure": "months"}),
    "no scores": (OutcomeRegression, {}),
}


@pytest.mark.parametrize("name", PARTS)
def test_parts_of_rows_in_memory_agree_with_all_rows_at_once(births, name, monkeypatch):
    model, options = PARTS[name]
    given = {"formula": F, "treat": "mbsmoke", "data": births[:1000]} | options
    if "target" in options and options["target"] == "frame":
        given["target"] = births[1000:1500]
    whole = model.from_formula(**given).fit()._record
    monkeypatch.setattr("causalrisk.estimators.sample.PART", 77)
    parts = model.from_formula(**given).fit()._record
    np.testing.assert_allclose(parts.estimate.params, whole.estimate.params, rtol=1e-12)
    scale = np.sqrt(np.diag(whole.covariance))
    np.testing.assert_allclose(parts.covariance / scale, whole.covariance / scale, rtol=1e-10, atol=1e-12 * scale.max())
    np.testing.assert_allclose(parts.estimate.predicted, whole.estimate.predicted, rtol=1e-12)
    influence = whole.estimate.influence
    np.testing.assert_allclose(parts.estimate.influence, influence, atol=1e-12 * np.abs(influence).max())


@pytest.mark.parametrize(("model", "fit"), [(IPWRA, {}), (JRE, {"n_replicates": 4, "anchor": 1.0})])
def test_parts_of_rows_in_memory_may_have_nobody_of_the_target(births, model, fit, monkeypatch):
    frame = births[:1000].sort_values("mage", ignore_index=True)
    made = model.from_formula("bweight ~ mage", frame, treat="mbsmoke", target=some)
    whole = made.fit(cov_type="robust", **fit)
    monkeypatch.setattr("causalrisk.estimators.sample.PART", 160)
    parts = made.fit(cov_type="robust", **fit)
    np.testing.assert_allclose(parts.params, whole.params, rtol=1e-11)
    np.testing.assert_allclose(parts.bse, whole.bse, rtol=1e-10)


@pytest.mark.parametrize("model", [IPWRA, AIPW])
def test_a_model_and_its_fit_in_memory_add_less_than_four_designs(model, monkeypatch):
    data = simulate(n=25_000, p=6, seed=1)
    formula = "y ~ x1 + x2 + x3 + x4 + x5 + x6"
    model.from_formula(formula, data[:200], treat="d").fit()  # imports what fits need
    for name in ("estimators.sample.PART", "propensity.models.ALONE"):
        monkeypatch.setattr(f"causalrisk.{name}", 1000)  # few beside all rows, as where memory matters
    tracemalloc.start()
    made = model.from_formula(formula, data, treat="d")
    made.fit()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    copied = 0 if int(pd.__version__.split(".")[0]) >= 3 else 48 * len(data)  # of covariates that the caller may change
    assert (most - copied) / made.design.X.nbytes < 4


def test_a_basis_on_other_rows_is_the_basis():
    rng = np.random.default_rng(0)
    X, s = np.column_stack([rng.normal(1e6, 1, 90), np.full(90, 2.0), rng.normal(size=90)]), rng.random(90)
    basis = orthonormal_basis(X, s)
    np.testing.assert_allclose(basis.of(X[40:]).columns, basis.columns[40:], atol=1e-9)


def test_memory_is_that_of_a_block(tmp_path):
    """Three times the rows take no more memory, for rows go with their block."""
    frame = simulate(n=6_000, seed=1)
    frame[:500].to_parquet(tmp_path / "few.parquet")
    for k in range(6):
        frame.to_parquet(tmp_path / f"{k}.parquet")

    def peak(pattern):
        source = scan(f"{tmp_path}/{pattern}.parquet", block_rows=6 * 1024, keep="disk")
        tracemalloc.start()
        Hajek.from_formula("y ~ 1", source, treat="d", propensity="x1 + x2").fit()
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak("few")  # what is made once
    assert peak("[0-5]") < 1.1 * peak("[01]")  # a block is there until the next is read


@pytest.mark.parametrize("client", [False, True])
def test_progress_counts_the_rows_of_each_pass(births, monkeypatch, capsys, client):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    source = in_blocks(shuffled(births[:900], seed=5))
    model = IPWRA.from_formula(F, source, treat="mbsmoke", trim=(0.05, 0.95))
    with cluster("works") if client else contextlib.nullcontext():
        model.fit(progress=True)
        shown = capsys.readouterr().err
        model.fit()
    assert capsys.readouterr().err == ""
    lines = shown.split("\n")[:-1]
    assert [line.rpartition("\r")[2] for line in lines] == [f"pass {k + 1}: 900 of 900 rows" for k in range(len(lines))]
    assert lines[0].count("rows") == 3  # blocks with rows


@pytest.mark.parametrize("outcome", ["y ~ x1", "b ~ x1"])
@pytest.mark.parametrize("model", [OutcomeRegression, Hajek, IPWRA, AIPW, JRE])
@pytest.mark.parametrize("fit", [{}, {"n_boot": 20}])
def test_progress_tells_of_about_how_many_passes_and_the_time_left(model, outcome, fit, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    clock = itertools.count(0.0, 30.0)  # a pass begins every half minute
    reader = sys.modules["causalrisk.design.scan.reader"]
    monkeypatch.setattr(reader, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    frame = simulate(300).assign(b=lambda f: (f.y > 1).astype(int))
    family = "binomial" if outcome.startswith("b") else "gaussian"
    options = {"n_replicates": 20, **(fit or {"cov_type": "robust"})} if model is JRE else fit
    made = model.from_formula(outcome, scan([frame[:100], frame[100:]]), treat="d", family=family)
    made.fit(progress=True, **options)
    lines = [line.rpartition("\r")[2] for line in capsys.readouterr().err.split("\n")[:-1]]
    if model is JRE and family == "binomial":
        assert not any("about" in line for line in lines)
        return
    expected = {int(word) for line in lines for word in re.findall(r"pass \d+ of about (\d+)", line)}
    (told,) = expected
    assert abs(told - len(lines)) <= max(2, 0.2 * told)
    assert "left" not in lines[0]
    for k, line in enumerate(lines[1:told], start=1):
        seconds = 30 * (told - k)
        left = f"{seconds} s" if seconds < 100 else f"{seconds / 60:.0f} min"
        assert line.startswith(f"pass {k + 1} of about {told}, about {left} left: ")


def test_rows_are_numbered_as_in_the_data(births):
    frame = births[:900].assign(mage=births.mage.where(births.index % 7 != 3))
    model = IPWRA.from_formula(F, in_blocks(shuffled(frame, seed=5)), treat="mbsmoke")
    rows = np.concatenate([block.row for block in model.design.blocks()])
    np.testing.assert_array_equal(rows, np.flatnonzero(frame.mage.notna()))
    position = np.concatenate([block.position for block in model.design.blocks()])
    np.testing.assert_array_equal(position, np.arange(len(rows)))


@pytest.mark.parametrize("model", [IPWRA, JRE])
@pytest.mark.parametrize("options", [{"cov_type": "robust"}, {"n_boot": 20}])
def test_workers_that_die_before_there_are_standard_errors(model, options, monkeypatch):
    made = model.from_formula("y ~ x1", scan([simulate(n=300)]), treat="d")

    def lost(*given):
        raise BootstrapError("workers died over block 1")

    monkeypatch.setattr("causalrisk.inference.covariance.robust_covariance", lost)
    with pytest.raises(BootstrapError, match="workers died over block 1") as caught:
        made.fit(**options | ({"n_replicates": 20, "anchor": 1.0} if model is JRE else {}))
    assert caught.value.results is None
