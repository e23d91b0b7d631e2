"""Fits over blocks of rows against fits in memory: the same numbers whatever the blocks, and memory that is bounded."""

from __future__ import annotations

import gc
import itertools
import pickle

import numpy as np
import pandas as pd
import pytest

import causalrisk
from causalrisk import (
    AIPW,
    IPWRA,
    Hajek,
    OptionError,
    OutcomeRegression,
    SeparationError,
    UnavailableError,
    scan,
)
from causalrisk.models.estimators import Unadjusted
from tests.conftest import in_blocks

F = "bweight ~ mage + medu + C(site)"


@pytest.fixture(scope="module")
def births(cattaneo):
    rng, n = np.random.default_rng(8), len(cattaneo)
    return cattaneo.assign(
        site=np.array(["north", "south", "west"])[rng.integers(0, 3, n)],
        w=rng.integers(1, 4, n),
        clinic=rng.integers(0, 40, n),
        dose=np.array(["none", "low", "high"])[rng.integers(0, 3, n)],
        low=(cattaneo.bweight < 3000) * 1,
        far=cattaneo.bweight + 1e7,
        months=rng.uniform(1, 9, n),
        known=rng.normal(1e5, 1e4, n),
        cigs=rng.poisson(3, n) + cattaneo.mbsmoke,
    )


def shuffled(frame, seed):
    """Blocks of different sizes, one without rows."""
    cut = int(np.random.default_rng(seed).integers(len(frame)))
    return [frame[a:b] for a, b in itertools.pairwise([0, cut, cut, len(frame)])]


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
    """Fits to every third row, as blocks and in memory."""
    given, fit, data = {"treat": "mbsmoke"} | options, fit or {}, data[::3].reset_index(drop=True)
    whole = model.from_formula(formula, data, **given).fit(**fit)
    blocks = model.from_formula(formula, in_blocks(shuffled(data, seed=3)), **given).fit(**fit)
    agree(blocks, whole)
    return blocks, whole


@pytest.mark.usefixtures("in_memory")
def test_terms_of_functions_agree_with_memory(births):
    formula = "bweight ~ np.log(mage) + I((known / 1e5) ** 2) + medu:C(site)"
    options = {"propensity": "np.sqrt(mage) * medu", "weights": "w", "weight_type": "probability"}
    blocks, whole = compare(AIPW, births, formula, **options)
    assert blocks.outcome_params.index.equals(whole.outcome_params.index)
    assert blocks._record.design.propensity_names == whole._record.design.propensity_names
    np.testing.assert_allclose(blocks.bse, whole.bse, rtol=1e-9)


@pytest.mark.parametrize(("model", "target"), [(AIPW, "entropy"), (Unadjusted, "all")])
def test_blocks_agree_with_memory(births, model, target):
    compare(model, births, target=target)


OPTIONS = {
    "clusters of frequencies": {
        "weights": "w",
        "weight_type": "frequency",
        "cluster": "clinic",
        "fit": {"small_sample": True},
    },
    "calibrated": {"formula": "low ~ mage", "family": "binomial", "propensity_loss": "calibrated", "target": "treated"},
    "exposure": {"formula": "cigs ~ mage", "family": "poisson", "exposure": "months", "at_exposure": 9},
    "no intercept": {"formula": "far ~ 0 + C(site) + mage"},
    "arms": {"treat": "dose", "reference": "none", "target": "overlap", "weights": "w", "weight_type": "probability"},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_agree_with_memory(births, name, request):
    if name == "no intercept":
        request.getfixturevalue("in_memory")
    compare(IPWRA, births, **OPTIONS[name])


def test_results_that_need_no_rows(births):
    """Of sorted rows, and of some with missing values."""
    frame = births.sort_values("mbsmoke", ignore_index=True)  # most blocks lack an arm
    frame.loc[4000:4050, "mage"] = np.nan
    blocks, whole = compare(IPWRA, frame)
    pd.testing.assert_frame_equal(blocks.sample_ledger, whole.sample_ledger)
    head = [res.summary().as_text().split("By group")[0].splitlines() for res in (blocks, whole)]
    assert head[0][:13] == head[1][:13]
    pd.testing.assert_frame_equal(blocks.tidy(), whole.tidy(), rtol=1e-9)
    pd.testing.assert_frame_equal(blocks.conf_int(0.1), whole.conf_int(0.1), rtol=1e-9)
    pd.testing.assert_frame_equal(blocks.predict(births[:5]), whole.predict(births[:5]), rtol=1e-9)
    np.testing.assert_allclose(blocks.propensity_bse, whole.propensity_bse)
    pd.testing.assert_frame_equal(blocks.overlap(), whole.overlap(), rtol=1e-9)
    blocks, whole = (str(res.summary()).partition("top 1%")[2].partition("===")[0] for res in (blocks, whole))
    assert blocks and blocks == whole


OFFSETS = {
    "offset": {"family": "poisson", "offset": "months"},
    "observed exposure": {"family": "poisson", "exposure": "months", "at_exposure": "observed"},
    "offset of a line": {"offset": "known"},
}


@pytest.mark.usefixtures("in_memory")
@pytest.mark.parametrize("name", OFFSETS)
def test_predictions_are_at_the_offsets_of_memory(births, name):
    blocks, whole = compare(OutcomeRegression, births, "cigs ~ mage", **OFFSETS[name])
    rows = births[:5]
    pd.testing.assert_frame_equal(blocks.predict(rows), whole.predict(rows), rtol=1e-9)
    found, expected = (res.get_prediction(rows).summary_frame() for res in (blocks, whole))
    pd.testing.assert_frame_equal(found, expected, rtol=1e-7)


@pytest.mark.usefixtures("in_memory")
def test_results_that_need_rows_are_refused(births):
    res = IPWRA.from_formula(F, scan([births[:800]]), treat="mbsmoke").fit()
    for name in ("table_one", "balance_test", "predict", "explain", "report"):
        with pytest.raises(UnavailableError, match=r"scan\(data\).collect\(\)"):
            getattr(res, name)()
    for name in ("effects_by", "equality_test"):
        with pytest.raises(UnavailableError, match=r"scan\(data\).collect\(\)"):
            getattr(res, name)("dose")


def test_what_is_not_there_for_a_scan(births):
    births = births[:800]
    data = scan([births])
    with pytest.raises(OptionError, match="trim="):
        IPWRA.from_formula(F, data, treat="mbsmoke", target=births, trim="crump").fit()
    with pytest.raises(UnavailableError, match=r"Use `etable\(\[.*scan\(data\).collect\(\)"):
        causalrisk.compare(F, data, treat="mbsmoke")
    with pytest.raises(OptionError, match="propensity_link='probit' is for two groups"):
        IPWRA.from_formula(F, data, treat="dose", reference="none", propensity_link="probit").fit()


def some(score):
    """A population of a part of the scores, of which a block may have none."""
    return ((score > 0.15) & (score < 0.3)) * (1 - score)


def nobody(score):
    return score * 0


TARGETS = {
    "function, trimmed": (Hajek, {"target": some, "trim": (0.1, 0.5)}),
    "frame, clusters": (AIPW, {"cluster": "clinic", "fit": {"small_sample": True}}),
    "frame, exposure": (
        OutcomeRegression, {"formula": "cigs ~ mage", "family": "poisson", "exposure": "months", "at_exposure": 2}
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TARGETS)
def test_functions_and_frames_as_targets(births, name, monkeypatch):
    model, options = TARGETS[name]
    frame = births[births.mage > 22][::18].drop(columns=["bweight", "mbsmoke", "dose"])
    frame = frame.assign(medu=frame.medu.where(frame.index % 9 > 0))
    births = births.sort_values("mage", ignore_index=True)
    monkeypatch.setattr("causalrisk.estimation.sample.CHUNK", 100)  # the frame comes in two blocks
    blocks, whole = compare(model, births, **{"target": frame} | options)
    assert blocks._record.trimmed == whole._record.trimmed
    heads = [str(res.summary()).split("By group")[0].splitlines()[:13] for res in (blocks, whole)]
    assert heads[0] == heads[1]


def test_targets_without_anybody(births):
    data = scan([births[:800]])
    with pytest.raises(OptionError, match="the function nobody in target= returned zero at every score"):
        AIPW.from_formula(F, data, treat="mbsmoke", target=nobody).fit()
    options = {"treat": "mbsmoke", "target": births[births.medu == 0]}
    said = refused(AIPW, births[:800], data, F, **options)
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


@pytest.mark.usefixtures("in_memory")
def test_separation_is_refused_in_the_words_of_a_fit_in_memory(births):
    """A linear programme over the rows finds it, whatever the scores are at which the iterations end."""
    far = np.where(births.mbsmoke == 1, births.mage + 50.0, births.mage / 100)
    frame = births.assign(far=far)[::2].reset_index(drop=True)
    options = {"treat": "mbsmoke", "propensity": "np.exp(far)", "propensity_loss": "calibrated"}
    said = refused(IPWRA, frame, scan(shuffled(frame, seed=4)), "bweight ~ mage", **options)
    assert "'np.exp(far)' separates the groups" in str(said)


def test_outcomes_that_a_family_does_not_know_name_the_block(births):
    low = births.low.astype(float).where(births.index != 4500, 2)
    model = IPWRA.from_formula("low ~ mage", scan([births[:2000], births.assign(low=low)[2000:]]), treat="mbsmoke",
                               family="binomial")  # fmt: skip
    with pytest.raises(causalrisk.DesignError, match=r"outcome 'low' has 1 values"):
        model.fit()


def test_a_result_is_unpickled_when_its_rows_are_gone(births):
    res = IPWRA.from_formula("bweight ~ mage", scan([births[:400]]), treat="mbsmoke").fit()
    params, pickled = res.params.copy(), pickle.dumps(res)
    del res
    gc.collect()
    again = pickle.loads(pickled)
    pd.testing.assert_series_equal(again.params, params)
    with pytest.raises(causalrisk.UnavailableError, match="does not contain the rows"):
        again.overlap()
