"""The bootstrap of JRE over blocks of rows against that in memory, resample by resample."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from causalrisk import JRE, UnavailableError
from causalrisk.estimation.record import robust_covariance
from causalrisk.numerics.resampling import WIDTH
from tests.conftest import in_blocks, in_parts

pytestmark = pytest.mark.filterwarnings("ignore::causalrisk.ResampleWarning", "ignore::causalrisk.OverlapWarning")

F, B, M, SPREAD = "bweight ~ mage + C(site)", 6, WIDTH + 3, 0.5


@pytest.fixture(scope="module")
def births(cattaneo):
    rng, frame = np.random.default_rng(3), cattaneo[::12].reset_index(drop=True)
    n = len(frame)
    return frame.assign(
        site=np.array(["north", "south", "west"])[rng.integers(0, 3, n)],
        w=rng.integers(1, 4, n),
        clinic=rng.integers(0, 40, n),
        dose=np.array(["none", "low", "high"])[rng.integers(0, 3, n)],
        cigs=rng.poisson(1 + frame.mage / 10),
    )


def cut(frame, edges=(0, 150)):
    return [frame[a:b] for a, b in itertools.pairwise([*edges, len(frame)])]


def agree(ours, theirs, tolerance=1e-9):
    """Each resample ended alike, and estimates differ by rounding."""
    ours, theirs = ours._record.boot, theirs._record.boot
    np.testing.assert_array_equal(ours.failures, theirs.failures)
    spread = np.nanstd(theirs.values, axis=0)
    np.testing.assert_allclose(ours.values / spread, theirs.values / spread, rtol=0, atol=tolerance)


def both(frame, fit=None, kind="bayesian", **options):
    options = {"formula": F, "treat": "mbsmoke"} | options
    fit = {"shrinkage": 1.0, "max_failed": 0.9} | {"n_replicates": B, "spread": SPREAD, "n_boot": M} | (fit or {})
    blocks, whole = (
        JRE.from_formula(data=data, **options).fit(bootstrap=kind, **fit) for data in (in_blocks(cut(frame)), frame)
    )
    return blocks, whole


CASES = {
    "erm": {"fit": {"shrinkage": None, "objective": "erm"}},
    "clusters of frequencies, anchor chosen": {
        "cluster": "clinic",
        "weights": "w",
        "weight_type": "frequency",
        "fit": {"shrinkage": None, "n_boot": 5},
    },
}


@pytest.mark.parametrize("name", CASES)
def test_resamples_agree_with_memory(births, name, request):
    if name == "erm":
        request.getfixturevalue("in_memory")
    blocks, whole = both(births, **CASES[name])
    agree(blocks, whole)
    if name != "erm":
        pd.testing.assert_frame_equal(blocks.anchor_path(), whole.anchor_path(), rtol=1e-7)


FRAMES = {
    "arms, weights, Bayesian": {
        "treat": "dose", "reference": "none", "weights": "w", "weight_type": "probability", "kind": "bayesian"
    },
    "Poisson": {"formula": "cigs ~ mage", "family": "poisson", "effect": "ratio", "fit": {"shrinkage": 3, "n_boot": 5}},
}  # fmt: skip


@pytest.mark.usefixtures("in_memory")
@pytest.mark.parametrize("name", FRAMES)
def test_the_rows_of_a_target_frame_are_drawn_as_in_memory(births, name, monkeypatch):
    """Those of IPWRA, where it starts, beyond memory too: `test_refit.py`."""
    target = births[births.mage > 22][::5].drop(columns=["bweight", "mbsmoke", "dose"])
    options = {"formula": F, "treat": "mbsmoke", "target": target} | FRAMES[name]
    fit = {"shrinkage": 1.0, "max_failed": 0.9, "n_replicates": B, "spread": SPREAD, "n_boot": M} | options.pop(
        "fit", {}
    )
    fit["bootstrap"] = options.pop("kind", "pairs")
    chunk = len(target) // 2 + 1
    monkeypatch.setattr("causalrisk.estimation.sample.CHUNK", chunk)  # the frame comes in two blocks
    whole = JRE.from_formula(data=births, **options).fit(**fit)
    blocks = JRE.from_formula(data=in_blocks(cut(births)), **options).fit(**fit)
    agree(blocks, whole)
    for name in ("params", "bse", "outcome_params", "outcome_bse", "propensity_params", "propensity_bse"):
        np.testing.assert_allclose(getattr(blocks, name), getattr(whole, name), rtol=1e-7)
    np.testing.assert_allclose(blocks.start.bse, whole.start.bse, rtol=1e-9)


@pytest.mark.usefixtures("in_memory")
def test_failures_are_told_alike(births):
    frame = pd.concat([births.groupby("mbsmoke").head(12), births[:90]]).reset_index(drop=True)
    frame = frame.assign(q=((frame.index % 9 == 0) & (frame.mbsmoke == 1)) | (frame.index == 3))
    ours, theirs = both(frame, kind="pairs", formula="bweight ~ mage", propensity="q + mage", target="overlap")
    agree(ours, theirs, tolerance=1e-7)
    assert len(np.unique(ours._record.boot.failures)) > 1
    pd.testing.assert_frame_equal(ours.boot_ledger, theirs.boot_ledger)


def test_blocks_and_parts_change_no_digit_but_the_last(births, monkeypatch):
    def values(edges):
        model = JRE.from_formula(F, in_blocks(cut(births, edges)), treat="mbsmoke")
        return model.fit(shrinkage=3.0, n_replicates=B, n_boot=5)

    first = values((0, 150))
    for name in ("AT_ONCE", "FEWEST", "PART"):
        monkeypatch.setattr(f"causalrisk.joint.rows.{name}", 100)  # rows at a time
    agree(values((0,)), first)


@pytest.mark.usefixtures("in_memory")
def test_results_of_a_bootstrap(births, tmp_path):
    for k, block in enumerate(cut(births)):
        block.to_parquet(tmp_path / f"{k}.parquet")
    model = JRE.from_formula(F, in_parts(f"{tmp_path}/*.parquet", 200), treat="mbsmoke")
    ours = model.fit(n_boot=M, n_replicates=B, spread=SPREAD)  # the bootstrap is the default, and the anchor is chosen
    theirs = JRE.from_formula(F, births, treat="mbsmoke").fit(n_boot=M, n_replicates=B, spread=SPREAD)
    for method in ("normal", "percentile", "basic", "bc"):
        pd.testing.assert_frame_equal(ours.conf_int(method=method), theirs.conf_int(method=method), rtol=1e-9)
    np.testing.assert_allclose(ours.bse, theirs.bse, rtol=1e-9)
    pd.testing.assert_frame_equal(ours.boot_params, theirs.boot_params, rtol=1e-9)
    np.testing.assert_allclose(ours.start.params, theirs.start.params, rtol=1e-11)
    np.testing.assert_allclose(ours.start.bse, theirs.start.bse, rtol=1e-9)
    known = robust_covariance(ours.start._record, False)
    np.testing.assert_allclose(np.sqrt(np.diag(known))[:3], ours.start.bse, rtol=1e-12)
    assert f"{M} of {M} used" in ours.summary().as_text()
    with pytest.raises(UnavailableError, match="not available for data on disk"):
        ours.conf_int(method="bca")
