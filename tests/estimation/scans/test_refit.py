"""The bootstrap over blocks of rows against that in memory, resample by resample."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from causalrisk import AIPW, IPWRA, BootstrapError, Hajek, UnavailableError
from causalrisk.errors import Failure
from causalrisk.numerics.resampling import WIDTH
from tests.conftest import in_blocks

pytestmark = pytest.mark.filterwarnings("ignore::causalrisk.ResampleWarning")
F, M = "bweight ~ mage + medu", WIDTH + 5


@pytest.fixture(scope="module")
def births(cattaneo):
    rng, frame = np.random.default_rng(3), cattaneo[::6].reset_index(drop=True)
    n = len(frame)
    return frame.assign(
        low=(frame.bweight < 3000) * 1,
        w=rng.integers(1, 4, n),
        clinic=rng.integers(0, 40, n),
        dose=np.array(["none", "low", "high"])[rng.integers(0, 3, n)],
        cigs=rng.poisson(3, n),
        far=frame.bweight + 1e7,
    )


def cut(frame, edges=(0, 300)):
    return [frame[a:b] for a, b in itertools.pairwise([*edges, len(frame)])]


CASES = {
    "tilted, Bayesian": (AIPW, {"target": "overlap", "kind": "bayesian"}),
    "arms": (AIPW, {"formula": "cigs ~ mage", "family": "poisson", "treat": "dose", "reference": "none"}),
    "stratified arms, weights": (
        AIPW,
        {
            "kind": "stratified",
            "treat": "dose",
            "reference": "none",
            "weights": "w",
            "weight_type": "probability",
            "fit": {"n_boot": 5},  # one block, as others of the rows beyond memory have two
        },
    ),
    "clusters of frequencies": (IPWRA, {"cluster": "clinic", "weights": "w", "weight_type": "frequency"}),
    "far outcomes": (IPWRA, {"formula": "far ~ mage"}),
}


def agree(ours, theirs):
    """Each resample ended alike, and estimates differ by rounding."""
    ours, theirs = ours._record.boot, theirs._record.boot
    np.testing.assert_array_equal(ours.failures, theirs.failures)
    spread = np.nanstd(theirs.values, axis=0)
    np.testing.assert_allclose(ours.values / spread, theirs.values / spread, rtol=0, atol=1e-7)


def both(model, frame, formula=F, kind="pairs", fit=None, **options):
    given = {"treat": "mbsmoke"} | options
    fit = {"n_boot": M} | ({} if kind == "pairs" else {"bootstrap": kind}) | (fit or {})
    blocks, whole = (model.from_formula(formula, data, **given).fit(**fit) for data in (in_blocks(cut(frame)), frame))
    return blocks, whole


@pytest.mark.parametrize("name", CASES)
def test_resamples_agree_with_memory(births, name, request):
    if name not in ("tilted, Bayesian", "stratified arms, weights", "clusters of frequencies"):
        request.getfixturevalue("in_memory")
    model, options = CASES[name]
    agree(*both(model, births, **options))


FRAMES = {
    "arms, weights, Bayesian": (
        AIPW, {"treat": "dose", "reference": "none", "weights": "w", "weight_type": "probability", "kind": "bayesian"}
    ),
    "clusters": (Hajek, {"cluster": "clinic", "kind": "cluster"}),
}  # fmt: skip


def target_frame(births, step=5):
    return births[births.mage > 22][::step].drop(columns=["bweight", "mbsmoke", "dose"])


def agree_on_frame(ours, theirs):
    """As `agree`; the coefficients are compared outside of the bases, which in memory are those of all rows."""
    np.testing.assert_array_equal(ours._record.boot.failures, theirs._record.boot.failures)
    pd.testing.assert_frame_equal(ours.boot_params, theirs.boot_params, rtol=1e-9)
    for name in ("params", "bse", "outcome_params", "outcome_bse", "propensity_params", "propensity_bse"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("name", FRAMES)
def test_the_rows_of_a_target_frame_are_drawn_as_in_memory(births, name, monkeypatch, request):
    beyond = name == "arms, weights, Bayesian"
    if not beyond:
        request.getfixturevalue("in_memory")
    model, options = FRAMES[name]
    target = target_frame(births, 20 if beyond else 5)
    given = {"formula": F, "treat": "mbsmoke", "target": target} | options
    fit = {"n_boot": 5 if beyond else M, "bootstrap": given.pop("kind", "pairs")}
    chunk = len(target) // 2 + 1
    monkeypatch.setattr("causalrisk.estimation.sample.CHUNK", chunk)  # the frame comes in two blocks
    whole = model.from_formula(data=births, **given).fit(**fit)
    blocks = model.from_formula(data=in_blocks(cut(births)), **given).fit(**fit)
    agree_on_frame(blocks, whole)


def small(births, n=70):
    """So few rows that resamples fail in several ways."""
    arms = births.groupby("mbsmoke").head(n // 7)
    return pd.concat([arms, births[:n]]).reset_index(drop=True)


def failing(births):
    frame = small(births).assign(q=lambda d: ((d.index % 9 == 0) & (d.mbsmoke == 1)) | (d.index == 3))
    options = {"formula": "low ~ mage", "propensity": "q + mage", "family": "binomial", "fit": {"max_failed": 0.9}}
    return both(IPWRA, frame, **options)


def test_resamples_that_fail_are_told_alike(births):
    ours, theirs = failing(births)
    agree(ours, theirs)
    assert len(np.unique(ours._record.boot.failures)) > 2
    pd.testing.assert_frame_equal(ours.boot_ledger, theirs.boot_ledger)


@pytest.mark.usefixtures("in_memory")
def test_too_many_resamples_that_fail_leave_the_estimate(births):
    ours, _ = failing(births)
    with pytest.raises(BootstrapError, match=r"resamples failed, more than max_failed=0.05") as caught:
        ours.model.fit(n_boot=M)
    np.testing.assert_array_equal(caught.value.results.bse, ours.model.fit().bse)


@pytest.mark.usefixtures("in_memory")
def test_an_arm_without_rows_is_a_failure(births):
    frame = births[:200].assign(mbsmoke=lambda d: (d.index < 2) * 1)
    options = {"formula": "bweight ~ 1", "propensity": "1", "fit": {"max_failed": 0.9}}
    ours, theirs = both(IPWRA, frame, **options)
    agree(ours, theirs)
    assert (ours._record.boot.failures == Failure.EMPTY_ARM).any()


@pytest.mark.usefixtures("in_memory")
def test_results_of_a_bootstrap(births):
    ours, theirs = both(IPWRA, births)
    for method in ("normal", "percentile", "basic", "bc"):
        pd.testing.assert_frame_equal(ours.conf_int(method=method), theirs.conf_int(method=method), rtol=1e-9)
    np.testing.assert_allclose(ours.bse, theirs.bse, rtol=1e-9)
    pd.testing.assert_frame_equal(ours.boot_params, theirs.boot_params, rtol=1e-9)
    assert f"{M} of {M} used" in ours.summary().as_text()
    with pytest.raises(UnavailableError, match="not available for data on disk"):
        ours.conf_int(method="bca")
    with pytest.raises(UnavailableError, match=r'model.fit\(cov_type="bootstrap"\)'):
        ours.model.fit().boot_params  # noqa: B018


def test_resamples_that_go_by_rows_are_refused(births):
    model = IPWRA.from_formula(F, in_blocks(cut(births)), treat="mbsmoke")
    with pytest.raises(UnavailableError, match="resamples="):
        model.fit(resamples=np.ones((len(births), 5)))
