"""Trimming and clipping over blocks of rows against those in memory."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from causalrisk import (
    AIPW,
    IPWRA,
    JRE,
    DesignError,
    SeparationError,
    scan,
)
from tests.conftest import in_blocks
from tests.estimation.scans import test_joint, test_refit
from tests.estimation.scans.test_separate import agree, shuffled

F = "bweight ~ mage + medu + fbaby"
pytestmark = pytest.mark.filterwarnings(
    "ignore::causalrisk.OverlapWarning", "ignore::causalrisk.DesignWarning", "ignore::causalrisk.ResampleWarning",
)  # fmt: skip


@pytest.fixture(scope="module")
def births(cattaneo):
    rng, n = np.random.default_rng(8), len(cattaneo)
    return cattaneo.assign(
        w=rng.integers(1, 4, n),
        clinic=np.where(cattaneo.mage > 40, 99, rng.integers(0, 30, n)),  # one is trimmed away
        dose=np.array(["none", "low", "high"])[rng.integers(0, 3, n)],
        old=cattaneo.mage > 40,
    )


CASES = {
    "crump, arms": (
        AIPW, {"treat": "dose", "reference": "none", "trim": "crump", "propensity": "mage * medu * fbaby * mmarried"}
    ),
    "limits of arms, clipped": (
        IPWRA, {"treat": "dose", "reference": "none", "trim": (0.31, 0.36), "clip": (0.32, 0.35), "target": "overlap"}
    ),
    "a cluster and a term that are trimmed away": (
        IPWRA,
        {"formula": "bweight ~ mage + old", "propensity": "mage + medu", "trim": (0.15, 0.4), "cluster": "clinic"},
    ),
    "frequency weights": (IPWRA, {"trim": "crump", "weights": "w", "weight_type": "frequency", "clip": (0.1, 0.3)}),
}  # fmt: skip


def both(model, births, formula=F, **options):
    """Fits to every third row, as blocks and in memory."""
    given, births = {"treat": "mbsmoke"} | options, births[::3].reset_index(drop=True)
    fit = {"small_sample": True} if "cluster" in options else {}
    whole = model.from_formula(formula, births, **given).fit(**fit)
    return model.from_formula(formula, in_blocks(shuffled(births, seed=3)), **given).fit(**fit), whole


@pytest.mark.parametrize("name", CASES)
def test_blocks_agree_with_memory(births, name, request):
    if name not in ("limits of arms, clipped", "a cluster and a term that are trimmed away"):
        request.getfixturevalue("in_memory")
    model, options = CASES[name]
    blocks, whole = both(model, births, **options)
    agree(blocks, whole)
    assert blocks._record.trimmed == whole._record.trimmed
    assert blocks._record.design.notes == whole._record.design.notes
    pd.testing.assert_frame_equal(blocks.sample_ledger, whole.sample_ledger)
    lines = [str(res.summary()).split("By group")[0].splitlines() for res in (blocks, whole)]
    assert lines[0][:13] == lines[1][:13]
    if "trim" in options:
        assert whole.nobs < blocks._record.full_design.nobs
    if "clip" in options:
        assert "Clipped:" in "".join(lines[0])
        assert " 0 to [" not in "".join(lines[0])


def test_trimmed_rows_and_clipped_scores_in_the_bootstrap(births):
    options = {"trim": (0.1, 0.35), "clip": (0.12, 0.3), "cluster": "clinic", "kind": "cluster"}
    test_refit.agree(*test_refit.both(AIPW, births[::6].reset_index(drop=True), F, **options))


@pytest.mark.usefixtures("in_memory")
def test_joint_fits_agree_with_memory(births):
    births, fit = births[::6].reset_index(drop=True), {"cov_type": "robust", "spread": 0.5, "n_replicates": 35}
    blocks, whole = (
        JRE.from_formula(F, data, treat="mbsmoke", clip=(0.12, 0.3), target="overlap").fit(**fit)
        for data in (scan(test_joint.cut(births)), births)
    )
    np.testing.assert_allclose(blocks.params, whole.params, rtol=1e-9)
    np.testing.assert_allclose(blocks.bse, whole.bse, rtol=1e-9)


@pytest.mark.parametrize("years, treat, reference", [(35, "dose", "none"), (99, "mbsmoke", 0)])
def test_rows_that_are_predicted_perfectly_are_left_out(births, treat, reference, years, request):
    """Those of memory; of mothers older than 99 there are none."""
    if years == 99:
        request.getfixturevalue("in_memory")
    births = births[::6].reset_index(drop=True)
    q = (births[treat] == births[treat].iloc[0]) & (births.mage > years)
    frame, right = births.assign(q=q * 1), "mage + q" if q.any() else "mage"
    options = {"treat": treat, "propensity": right, "trim": "separated", "cluster": "clinic", "reference": reference}
    blocks, whole = (
        IPWRA.from_formula("bweight ~ mage", data, **options).fit() for data in (scan(shuffled(frame, seed=3)), frame)
    )
    agree(blocks, whole)
    assert blocks.sample_ledger.equals(whole.sample_ledger)
    assert blocks.nobs == len(frame) - q.sum()


def test_what_trimming_cannot_do(births):
    births = births[:1000]
    data = in_blocks(shuffled(births, seed=3))
    with pytest.raises(DesignError, match=r"leaves 0 of 1000 rows"):
        IPWRA.from_formula(F, data, treat="mbsmoke", trim=(0.9, 0.99)).fit()
    far = np.where(births.mbsmoke == 1, births.mage, -births.mage)
    with pytest.raises(SeparationError, match="predicts 'mbsmoke' perfectly"):
        IPWRA.from_formula(F, scan([births.assign(far=far)]), treat="mbsmoke", propensity="far", trim="crump").fit()
