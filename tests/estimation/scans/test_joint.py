"""JRE over blocks of rows against JRE in memory."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from causalrisk import JRE, UnavailableError, scan
from causalrisk.numerics.resampling import WIDTH
from causalrisk.simulation.designs import Linear
from tests.conftest import in_blocks

pytestmark = pytest.mark.filterwarnings("ignore::causalrisk.OverlapWarning")
F, B = "bweight ~ mage + np.maximum(mage - 25, 0) + C(site)", WIDTH + 3
CIGS = "cigs ~ mage + C(site)"


@pytest.fixture(scope="module")
def births(cattaneo):
    rng, frame = np.random.default_rng(3), cattaneo[::12].reset_index(drop=True)
    n = len(frame)
    return frame.assign(
        site=np.array(["north", "south", "west"])[rng.integers(0, 3, n)],
        w=rng.integers(1, 4, n),
        clinic=rng.integers(0, 40, n),
        dose=np.array(["none", "low", "high"])[rng.integers(0, 3, n)],
        known=rng.normal(0, 100, n),
        cigs=rng.poisson(1 + frame.mage / 10),
        months=rng.uniform(1, 9, n),
    )


def cut(frame, edges=(0, 150)):
    return [frame[a:b] for a, b in itertools.pairwise([*edges, len(frame)])]


CASES = {
    "all": ({}, {}),
    "arms, probability weights": (
        {"treat": "dose", "reference": "none", "weights": "w", "weight_type": "probability"}, {"shrinkage": 0.3}
    ),
    "erm, probit, offset": (
        {"target": "matching", "propensity_link": "probit", "offset": "known"}, {"objective": "erm"}
    ),
    "rates, clusters of frequencies": (
        {
            "formula": CIGS, "family": "poisson", "exposure": "months", "at_exposure": "observed", "cluster": "clinic",
            "weights": "w", "weight_type": "frequency",
        },
        {"cov_type": "cluster", "shrinkage": 3.0},
    ),
}  # fmt: skip


def agree(blocks, whole):
    np.testing.assert_allclose(blocks.params, whole.params, rtol=1e-9)
    scale = np.outer(whole.bse, whole.bse)
    np.testing.assert_allclose(blocks.cov_params() / scale, whole.cov_params() / scale, atol=1e-9)
    np.testing.assert_allclose(blocks.start.bse, whole.start.bse, rtol=1e-9)
    pd.testing.assert_frame_equal(blocks.replicate_bias, whole.replicate_bias, rtol=1e-6, atol=1e-9 * whole.bse.max())
    np.testing.assert_allclose(blocks.expected_ate_risk, whole.expected_ate_risk, rtol=1e-9)
    assert blocks._record.notes == whole._record.notes


@pytest.mark.parametrize("name", CASES)
def test_blocks_agree_with_memory(births, name, request):
    if name != "arms, probability weights":  # with clusters of frequencies, `test_joint_refit.py`
        request.getfixturevalue("in_memory")
    options, fit = CASES[name]
    options, fit = {"formula": F, "treat": "mbsmoke"} | options, {"cov_type": "robust"} | fit
    fit |= {"spread": 0.5, "n_replicates": B}
    blocks, whole = (JRE.from_formula(data=data, **options).fit(**fit) for data in (in_blocks(cut(births)), births))
    agree(blocks, whole)
    if "shrinkage" not in fit and "objective" not in fit:
        pd.testing.assert_frame_equal(blocks.anchor_path(), whole.anchor_path(), rtol=1e-7)


@pytest.mark.usefixtures("in_memory")
def test_an_anchor_is_raised_as_in_memory():
    """A sample with a wrong score, in which it is raised by several rungs."""
    design = Linear(confounding=1.0, score_curvature=0.5, heterogeneity=1.5, baseline=-1.0)
    data = design.draw(300, np.random.default_rng([11, 4, 300])).data.assign(g=np.arange(300) % 100)
    blocks, whole = (
        JRE.from_formula("y ~ x1 + x2 + x3 + x4", frames, treat="d", cluster="g").fit(
            cov_type="cluster", n_replicates=20
        )
        for frames in (scan([data[:90], data[90:]]), data)
    )
    assert whole._record.joint.path.raised_from < whole.joint.shrinkage
    pd.testing.assert_frame_equal(blocks.anchor_path(), whole.anchor_path(), rtol=1e-7)
    agree(blocks, whole)


def target_frame(births):
    return births[births.mage > 22][::5].drop(columns=["bweight", "mbsmoke", "dose"])


def test_blocks_of_a_target_frame_agree_with_memory(births, monkeypatch):
    """In `test_joint_refit.py` with arms and weights, and of counts."""
    options = {"formula": F, "treat": "mbsmoke", "target": target_frame(births), "cluster": "clinic"}
    fit = {"cov_type": "cluster", "shrinkage": 1.0, "spread": 0.5, "n_replicates": 10}
    monkeypatch.setattr("causalrisk.estimation.sample.CHUNK", 70)  # the frame comes in several blocks
    whole = JRE.from_formula(data=births, **options).fit(**fit)
    blocks = JRE.from_formula(data=in_blocks(cut(births)), **options).fit(**fit)
    agree(blocks, whole)


@pytest.mark.usefixtures("in_memory")
def test_shrinkage_is_chosen_with_a_target_frame_as_in_memory(births):
    """Scores of folds are refitted to eight digits."""
    given = {"treat": "mbsmoke", "target": target_frame(births), "cluster": "clinic"}
    frames = births, in_blocks(cut(births))
    whole, blocks = (JRE.from_formula(F, data, **given).fit(cov_type="cluster", n_replicates=B) for data in frames)
    for column, digits in (("effect", 1e-9), ("std err", 1e-6)):
        np.testing.assert_allclose(blocks.joint.path[column], whole.joint.path[column], rtol=digits)
    assert blocks.joint.shrinkage == whole.joint.shrinkage


PARTS = {
    "tilted arms": {"treat": "dose", "reference": "none", "target": "overlap"},
    "Poisson, tilted": {"formula": CIGS, "family": "poisson", "target": "overlap"},
    "target frame": {"target": target_frame},
    "Poisson, target frame": {"formula": CIGS, "family": "poisson", "target": target_frame},
}


@pytest.mark.parametrize("name", PARTS)
def test_parts_of_rows_in_memory_agree_with_all_rows_at_once(births, name, monkeypatch):
    given = {"formula": F, "data": births, "treat": "mbsmoke"} | PARTS[name]
    if given.get("target") is target_frame:
        given["target"] = target_frame(births)
    fit = {"cov_type": "robust", "n_replicates": 10} | ({"shrinkage": 3.0} if "family" in given else {})
    whole = JRE.from_formula(**given).fit(**fit)
    for name in ("AT_ONCE", "FEWEST"):
        monkeypatch.setattr(f"causalrisk.joint.rows.{name}", 150)  # three parts
    monkeypatch.setattr("causalrisk.numerics.arrays.IN_CACHE", 150)
    parts = JRE.from_formula(**given).fit(**fit)
    np.testing.assert_allclose(parts.params, whole.params, rtol=1e-9)
    np.testing.assert_allclose(parts.bse, whole.bse, rtol=1e-9)
    if "shrinkage" not in fit:
        pd.testing.assert_frame_equal(parts.anchor_path(), whole.anchor_path(), rtol=1e-7)
    influence = whole._record.estimate.influence
    np.testing.assert_allclose(parts._record.estimate.influence, influence, atol=1e-9 * np.abs(influence).max())
    np.testing.assert_allclose(parts._record.estimate.predicted, whole._record.estimate.predicted, rtol=1e-9)


@pytest.mark.usefixtures("in_memory")
def test_results_of_a_scan(births):
    res = JRE.from_formula(F, in_blocks(cut(births)), treat="mbsmoke").fit(
        cov_type="robust", n_replicates=4, shrinkage=3
    )
    assert repr(res.start).startswith("IPWRA: ATE")
    assert len(res.tidy()) == 3
    assert len(res.replicate_bias) == 4
    with pytest.raises(UnavailableError, match="scan"):
        res.explain()


def test_what_jre_does_not_have_for_a_scan(births):
    data, treat = scan([births]), {"treat": "mbsmoke"}
    with pytest.raises(UnavailableError, match="replicates= is not available for data on disk"):
        JRE.from_formula(F, data, **treat).fit(cov_type="robust", replicates=np.ones((len(births), 2)))
