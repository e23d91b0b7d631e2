"""JRE over blocks of rows against JRE in memory."""

from __future__ import annotations

import itertools
import pickle
import tracemalloc
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from causalrisk import JRE, DesignError, OptionError, UnavailableError, scan
from causalrisk.design import ScannedDesign
from causalrisk.estimators.joint import minima
from causalrisk.estimators.joint.train import Trainer
from causalrisk.numerics.multiplicities import WIDTH
from causalrisk.numerics.optimize import POLISHING
from causalrisk.simulation.designs import Linear
from tests.conftest import in_blocks, simulate

F, B = "bweight ~ mage + np.maximum(mage - 25, 0) + C(site)", WIDTH + 3
LOW, CIGS = "low ~ mage + C(site)", "cigs ~ mage + C(site)"


@pytest.fixture(scope="module")
def births(cattaneo):
    rng, frame = np.random.default_rng(3), cattaneo[::6].reset_index(drop=True)
    n = len(frame)
    return frame.assign(
        site=np.array(["north", "south", "west"])[rng.integers(0, 3, n)],
        low=(frame.bweight < 3000) * 1,
        w=rng.integers(1, 4, n),
        clinic=rng.integers(0, 40, n),
        dose=np.array(["none", "low", "high"])[rng.integers(0, 3, n)],
        known=rng.normal(0, 100, n),
        cigs=rng.poisson(1 + frame.mage / 10),
        months=rng.uniform(1, 9, n),
    )


def cut(frame, edges=(0, 300, 301)):
    return [frame[a:b] for a, b in itertools.pairwise([*edges, len(frame)])]


CASES = {
    "all": ({}, {}),
    "treated, calibrated": ({"target": "treated", "propensity_loss": "calibrated"}, {"cov_type": "HC1"}),
    "tilted, on two workers": ({"target": "overlap", "propensity": "mage + medu"}, {"n_jobs": 2}),
    "arms, probability weights": (
        {"treat": "dose", "reference": "none", "weights": "w", "weight_type": "probability"}, {"anchor": 0.3}
    ),
    "frequencies, ratio": ({"weights": "w", "weight_type": "frequency", "effect": "ratio", "target": "control"}, {}),
    "clusters": ({"cluster": "clinic"}, {"cov_type": "cluster", "anchor": 1.0}),
    "clusters held out": ({"cluster": "clinic"}, {"cov_type": "cluster"}),
    "clusters of arms held out": (
        {"cluster": "clinic", "treat": "dose", "reference": "none", "target": "overlap"}, {"cov_type": "cluster"}
    ),
    "clusters of frequencies held out": (
        {"formula": LOW, "family": "binomial", "cluster": "clinic", "weights": "w", "weight_type": "frequency"},
        {"cov_type": "cluster", "n_jobs": 2},
    ),
    "penalty, probit, offset": (
        {"target": "matching", "propensity_link": "probit", "offset": "known"}, {"objective": "erm", "penalty": 1000}
    ),
    "splines that learn": (
        {"formula": "bweight ~ bs(known, df=4) + center(mage)", "propensity": "cr(mage, df=3, constraints='center')"},
        {},
    ),
    "logit": ({"formula": LOW, "family": "binomial"}, {"anchor": 1.0}),
    "logit, treated, on two workers": (
        {"formula": LOW, "family": "binomial", "target": "treated"},
        {"n_jobs": 2, "anchor": 3.0},
    ),
    "Poisson": ({"formula": CIGS, "family": "poisson", "target": "treated", "effect": "ratio"}, {}),
    "Poisson, tilted arms": (
        {"formula": CIGS, "family": "poisson", "treat": "dose", "reference": "none", "target": "overlap"},
        {"anchor": 0.3},
    ),
    "rates, clusters of frequencies": (
        {
            "formula": CIGS, "family": "poisson", "exposure": "months", "at_exposure": "observed", "cluster": "clinic",
            "weights": "w", "weight_type": "frequency",
        },
        {"cov_type": "cluster", "anchor": 3.0},
    ),
    "probit, penalty": (
        {"formula": LOW, "family": "binomial", "link": "probit", "target": "control"}, {"objective": "erm"}
    ),
    "gamma, named optimiser": (
        {"formula": F, "family": "gamma", "link": "log"}, {"anchor": 1.0, "method": "trust-ncg"}
    ),
}  # fmt: skip


def agree(blocks, whole):
    np.testing.assert_allclose(blocks.params, whole.params, rtol=1e-9)
    scale = np.outer(whole.bse, whole.bse)
    np.testing.assert_allclose(blocks.cov_params() / scale, whole.cov_params() / scale, atol=1e-9)
    np.testing.assert_allclose(blocks.start.bse, whole.start.bse, rtol=1e-9)
    np.testing.assert_allclose(blocks.mc_se, whole.mc_se, rtol=1e-6)
    pd.testing.assert_frame_equal(blocks.replicate_bias, whole.replicate_bias, rtol=1e-6, atol=1e-9 * whole.bse.max())
    np.testing.assert_allclose(blocks.expected_ate_risk, whole.expected_ate_risk, rtol=1e-9)
    assert blocks._record.notes == whole._record.notes


@pytest.mark.filterwarnings("ignore::causalrisk.MonteCarloWarning", "ignore::causalrisk.OverlapWarning")
@pytest.mark.parametrize("name", CASES)
def test_blocks_agree_with_memory(births, name):
    options, fit = CASES[name]
    options, fit = {"formula": F, "treat": "mbsmoke"} | options, {"cov_type": "robust"} | fit
    fit |= {"spread": 0.5, "n_replicates": B}
    blocks, whole = (JRE.from_formula(data=data, **options).fit(**fit) for data in (in_blocks(cut(births)), births))
    agree(blocks, whole)
    if "anchor" not in fit and "objective" not in fit:
        pd.testing.assert_frame_equal(blocks.anchor_path(), whole.anchor_path(), rtol=1e-7)


@pytest.mark.filterwarnings("ignore::causalrisk.MonteCarloWarning", "ignore::causalrisk.OverlapWarning")
@pytest.mark.parametrize("clusters", [False, True])
def test_an_anchor_is_raised_as_in_memory(clusters):
    """A sample with a wrong score, in which it is raised by several rungs."""
    design = Linear(confounding=1.0, score_curvature=0.5, heterogeneity=1.5, baseline=-1.0)
    data = design.draw(300, np.random.default_rng([11, 3, 300])).data.assign(g=np.arange(300) % 100)
    options = {"formula": "y ~ x1 + x2 + x3 + x4", "treat": "d"} | ({"cluster": "g"} if clusters else {})
    fit = {"cov_type": "cluster" if clusters else "robust", "n_replicates": 20}
    blocks, whole = (
        JRE.from_formula(data=frames, **options).fit(**fit) for frames in (scan([data[:90], data[90:]]), data)
    )
    path = whole.anchor_path()
    assert path.loc[path["chosen"], "robust se"].item() < path.loc[path["held out"], "robust se"].item()
    pd.testing.assert_frame_equal(blocks.anchor_path(), path, rtol=1e-7)
    agree(blocks, whole)


FRAMES = {
    "all": ({}, {}),
    "arms, probability weights": (
        {"treat": "dose", "reference": "none", "weights": "w", "weight_type": "probability"}, {"anchor": 0.3}
    ),
    "frequencies, clipped": (
        {"weights": "w", "weight_type": "frequency", "effect": "ratio", "clip": (0.12, 0.3)}, {"anchor": 3.0}
    ),
    "clusters": ({"cluster": "clinic"}, {"cov_type": "cluster", "anchor": 1.0}),
    "clusters held out": ({"cluster": "clinic"}, {"cov_type": "cluster"}),
    "penalty, probit": ({"propensity_link": "probit"}, {"objective": "erm", "penalty": 1000}),
    "logit": ({"formula": LOW, "family": "binomial"}, {"anchor": 1.0}),
    "Poisson": ({"formula": CIGS, "family": "poisson", "effect": "ratio"}, {"anchor": 3.0}),
}  # fmt: skip

CUT_ANEW = ("arms, probability weights", "clusters held out", "Poisson")  # half a second each


def target_frame(births):
    return births[births.mage > 22][::5].drop(columns=["bweight", "mbsmoke", "dose"])


@pytest.mark.filterwarnings("ignore::causalrisk.MonteCarloWarning", "ignore::causalrisk.OverlapWarning")
@pytest.mark.parametrize("name", FRAMES)
def test_blocks_of_a_target_frame_agree_with_memory(births, name, monkeypatch):
    options, fit = FRAMES[name]
    options = {"formula": F, "treat": "mbsmoke", "target": target_frame(births)} | options
    fit = {"cov_type": "robust", "spread": 0.5, "n_replicates": B} | fit
    monkeypatch.setattr(ScannedDesign, "block_rows", 70)  # the frame comes in several blocks
    whole = JRE.from_formula(data=births, **options).fit(**fit)
    blocks = JRE.from_formula(data=in_blocks(cut(births)), **options).fit(**fit)
    agree(blocks, whole)
    if "anchor" not in fit and "objective" not in fit:
        pd.testing.assert_frame_equal(blocks.anchor_path(), whole.anchor_path(), rtol=1e-7)
    if name not in CUT_ANEW:
        return
    again = JRE.from_formula(data=in_blocks(cut(births)), **options).fit(n_jobs=2, **fit)
    np.testing.assert_array_equal(again.params, blocks.params)
    np.testing.assert_array_equal(again.cov_params(), blocks.cov_params())
    agree(JRE.from_formula(data=in_blocks(cut(births, (0, 400))), **options).fit(**fit), whole)


@pytest.mark.parametrize("target", ["overlap", "frame"])
def test_workers_get_sums_and_no_rows_of_a_target_frame(births, target, monkeypatch):
    frame = pd.concat([target_frame(births)] * 10)
    given = {"formula": F, "treat": "mbsmoke", "target": frame if target == "frame" else target}
    fit = {"n_replicates": 4, "n_boot": 8}
    first = JRE.from_formula(data=in_blocks(cut(births)), **given).fit(**fit)
    over, sizes = ScannedDesign.over, []

    def sent(self, function, *rest):
        work = pickle.dumps(function)
        sizes.append(len(work))
        return over(self, lambda block: pickle.loads(work)(block), *rest)

    monkeypatch.setattr(ScannedDesign, "over", sent)
    again = JRE.from_formula(data=in_blocks(cut(births)), **given).fit(**fit)
    np.testing.assert_array_equal(again._record.boot.values, first._record.boot.values)
    assert max(sizes) < 120_000 < len(pickle.dumps(frame))


def test_the_cut_into_blocks_changes_nothing(births, monkeypatch):
    first = JRE.from_formula(F, scan([births]), treat="mbsmoke").fit(cov_type="robust", n_replicates=4)
    monkeypatch.setattr("causalrisk.estimators.sample.PART", 8 * 150)
    again = JRE.from_formula(F, in_blocks(cut(births, (0, 400))), treat="mbsmoke").fit(
        cov_type="robust", n_replicates=4
    )
    np.testing.assert_allclose(again.params, first.params, rtol=1e-11)
    np.testing.assert_allclose(again.bse, first.bse, rtol=1e-10)


def test_clusters_held_out_in_several_passes_and_with_little_memory(births, monkeypatch):
    given = {
        "formula": F,
        "treat": "mbsmoke",
        "cluster": "clinic",
        "data": in_blocks(cut(births.sort_values("clinic"))),
    }
    fit = {"cov_type": "cluster", "n_replicates": 4}
    first = JRE.from_formula(**given).fit(**fit)
    monkeypatch.setattr("causalrisk.estimators.joint.anchor.AT_ONCE_BYTES", 1)  # a solution at a time
    monkeypatch.setattr("causalrisk.estimators.joint.leave_one_out.AT_ONCE", 1)  # and a cluster
    monkeypatch.setattr("causalrisk.estimators.joint.leave_one_out.LARGE", 1)  # by products of matrices
    monkeypatch.setattr("causalrisk.estimators.sample.PART", 8 * 60)
    again = JRE.from_formula(**given).fit(**fit)
    np.testing.assert_allclose(again.bse, first.bse, rtol=1e-10)
    pd.testing.assert_frame_equal(again.anchor_path(), first.anchor_path(), rtol=1e-9)
    monkeypatch.setattr("causalrisk.design.support.memory", lambda: 1e5)
    with pytest.raises(DesignError, match=r"without each of 40 clusters(.|\n)*0.000326 GB, and there are 0.0001 GB"):
        JRE.from_formula(**given).fit(**fit)


PARTS = {
    "treated, ratio": {"target": "treated", "effect": "ratio"},
    "tilted arms": {"treat": "dose", "reference": "none", "target": "overlap"},
    "frequencies": {"weights": "w", "weight_type": "frequency"},
    "logit, treated": {"formula": LOW, "family": "binomial", "target": "treated"},
    "Poisson, tilted": {"formula": CIGS, "family": "poisson", "target": "overlap"},
    "target frame": {"target": target_frame},
    "target frame of arms": {"treat": "dose", "reference": "none", "target": target_frame, "effect": "ratio"},
    "Poisson, target frame": {"formula": CIGS, "family": "poisson", "target": target_frame},
}


@pytest.mark.parametrize("name", PARTS)
def test_parts_of_rows_in_memory_agree_with_all_rows_at_once(births, name, monkeypatch):
    births = births[:400]  # three parts
    given = {"formula": F, "data": births, "treat": "mbsmoke"} | PARTS[name]
    if given.get("target") is target_frame:
        given["target"] = target_frame(births)
    fit = {"cov_type": "robust", "n_replicates": 10}
    whole = JRE.from_formula(**given).fit(**fit)
    monkeypatch.setattr("causalrisk.estimators.sample.PART", 8 * 177)
    for kept in (2**27, 1):  # weights under the replicates kept between passes, or made anew
        monkeypatch.setattr("causalrisk.estimators.joint.train.KEPT", kept)
        if kept == 1:  # and their refits go through the rows in parts, a few columns at a time
            monkeypatch.setattr("causalrisk.estimators.resampling.KEPT", 64 * len(births) * 3)
            monkeypatch.setattr("causalrisk.propensity.models.MANY", 100)
            monkeypatch.setattr("causalrisk.numerics.linalg.IN_CACHE", 400)
        parts = JRE.from_formula(**given).fit(**fit)
        np.testing.assert_allclose(parts.params, whole.params, rtol=1e-11)
        np.testing.assert_allclose(parts.bse, whole.bse, rtol=1e-10)
        pd.testing.assert_frame_equal(parts.anchor_path(), whole.anchor_path(), rtol=1e-8)
        influence = whole._record.estimate.influence
        np.testing.assert_allclose(parts._record.estimate.influence, influence, atol=1e-10 * np.abs(influence).max())
        np.testing.assert_allclose(parts._record.estimate.predicted, whole._record.estimate.predicted, rtol=1e-11)


def test_files_agree_with_memory(births, tmp_path):
    for k, block in enumerate(cut(births)):
        block.to_parquet(tmp_path / f"{k}.parquet")
    options = {"treat": "mbsmoke", "family": "poisson", "target": "treated"}
    fit = {"cov_type": "robust", "anchor": 3.0}
    files = JRE.from_formula(CIGS, scan(f"{tmp_path}/*.parquet", block_rows=200), **options)
    files = files.fit(spread=0.5, n_replicates=B, **fit)
    whole = JRE.from_formula(CIGS, births, **options).fit(spread=0.5, n_replicates=B, **fit)
    np.testing.assert_allclose(files.params, whole.params, rtol=1e-11)
    np.testing.assert_allclose(files.bse, whole.bse, rtol=1e-9)


def test_a_step_of_the_search_takes_few_passes(births, monkeypatch):
    """Beside two passes for its point a step has one for each correction; the end is a few points more."""
    passes, taken = Counter(), []
    over, search = Trainer.over, minima.minimize_stack

    def counted(self, function):
        passes[function.func.__name__] += 1
        return over(self, function)

    def searched(*given):
        found = search(*given)
        taken.append(found.steps)
        return found

    monkeypatch.setattr(Trainer, "over", counted)
    monkeypatch.setattr(minima, "minimize_stack", searched)
    model = JRE.from_formula(CIGS, in_blocks(cut(births)), treat="mbsmoke", family="poisson", target="treated")
    model.fit(cov_type="robust", n_replicates=4, anchor=3.0)
    (steps,) = taken
    assert passes["_terms"] <= steps + 1 + POLISHING
    assert passes["_levels"] <= passes["_terms"] + 2 * steps
    assert (passes["_first_sums"], passes["_second_sums"], passes["_both_sums"], passes["_walls"]) == (1, 1, 2, 0)


def test_results_of_a_scan(births):
    res = JRE.from_formula(F, in_blocks(cut(births)), treat="mbsmoke").fit(cov_type="robust", n_replicates=4, anchor=3)
    assert repr(res.start).startswith("IPWRA: ATE")
    assert "Expected ATE risk" in res.summary().as_text()
    assert len(res.tidy()) == 3
    assert res.glance()["n_replicates"].item() == len(res.replicate_bias) == 4
    for name in ("explain", "risk_table", "se_decomposition"):
        with pytest.raises(UnavailableError, match="goes by rows, and the model was made from a scan"):
            getattr(res, name)()


def test_what_jre_does_not_have_for_a_scan(births):
    data, treat = scan([births]), {"treat": "mbsmoke"}
    with pytest.raises(OptionError, match='method="least_squares" is for linear outcome models'):
        JRE.from_formula("low ~ mage", data, family="binomial", **treat).fit(cov_type="robust", method="least_squares")
    with pytest.raises(UnavailableError, match="replicates= goes by rows"):
        JRE.from_formula(F, data, **treat).fit(cov_type="robust", replicates=np.ones((len(births), 2)))


FEW = {  # beside 12,000 rows or more, as where memory matters
    "causalrisk.estimators.sample.PART": 1600,
    "causalrisk.estimators.joint.train.KEPT": 1,
    "causalrisk.estimators.resampling.KEPT": 64 * 12_000,
    "causalrisk.propensity.models.MANY": 1,
    "causalrisk.numerics.linalg.IN_CACHE": 200,
    "causalrisk.propensity.models.UNDER_RESAMPLES": 200,
}


def test_a_fit_in_memory_adds_less_than_four_designs(monkeypatch):
    data = simulate(n=12_000, seed=1)
    JRE.from_formula("y ~ x1", data[:200], treat="d").fit(cov_type="robust", n_replicates=2)  # imports what fits need
    for name, few in FEW.items():
        monkeypatch.setattr(name, few)
    model = JRE.from_formula("y ~ x1 + x2 + x3 + I(x1**2) + I(x2**2) + x1:x2", data, treat="d")
    tracemalloc.start()
    model.fit(cov_type="robust", n_replicates=2, anchor=1.0)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most / model.design.X.nbytes < 4


def test_a_model_and_the_choice_of_its_anchor_add_few_designs(monkeypatch):
    """Influence functions held out, one an anchor, come beside what each row has once."""
    data = simulate(n=20_000, p=6, seed=1)
    formula, options = "y ~ x1 + x2 + x3 + x4 + x5 + x6", {"cov_type": "robust", "n_replicates": 2}
    JRE.from_formula(formula, data[:200], treat="d").fit(**options)  # imports what fits need
    for name, few in FEW.items():
        monkeypatch.setattr(name, few)
    tracemalloc.start()
    model = JRE.from_formula(formula, data, treat="d")
    model.fit(**options)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    copied = 0 if int(pd.__version__.split(".")[0]) >= 3 else 48 * len(data)  # of covariates that the caller may change
    assert (most - copied) / model.design.X.nbytes < 5.2  # of which a block has 0.7


def test_memory_is_that_of_a_block(tmp_path):
    """Three times the rows take no more memory, for rows go with their block."""
    frame = simulate(n=1_500, seed=1)
    for k in range(3):
        frame.to_parquet(tmp_path / f"{k}.parquet")

    def peak(pattern):
        model = JRE.from_formula("y ~ x1", scan(f"{tmp_path}/{pattern}.parquet", block_rows=1_500), treat="d")
        tracemalloc.start()
        model.fit(cov_type="robust", n_replicates=2, anchor=3)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak("0")  # what is made once
    assert peak("[0-2]") < 1.1 * peak("0")
