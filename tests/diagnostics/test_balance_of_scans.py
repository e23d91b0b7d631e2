"""Balance and overlap of scans against fits in memory, whatever the blocks."""

from __future__ import annotations

import pickle

import matplotlib
import numpy as np
import pandas as pd
import pytest

from causalrisk import AIPW, IPWRA, JRE, OutcomeRegression, UnavailableError
from causalrisk.datasets import load_lalonde
from causalrisk.diagnostics.balance import Compared, balance_table
from causalrisk.diagnostics.scores import common_support
from tests.conftest import in_blocks

matplotlib.use("Agg")

F = "bweight ~ mage + C(site) + I(medu > 12)"
PROPENSITY = "mage + mmarried + known + I((known / 1000) ** 2) + C(site):medu"
CUTS = (0, 300)
RTOL, ATOL = 1e-9, 1e-11


@pytest.fixture(scope="module")
def births(cattaneo):
    rng, n = np.random.default_rng(8), 1500  # fewer values than are counted one by one
    return cattaneo[:n].assign(
        site=np.array(["north", "south", "west"])[rng.integers(0, 3, n)],
        w=rng.integers(1, 4, n),
        p=rng.gamma(2, size=n),
        clinic=rng.integers(0, 40, n),
        dose=np.array(["none", "low", "high"])[rng.integers(0, 3, n)],
        known=rng.normal(1e3, 1e2, n),
    )


def cut(frame, cuts=CUTS):
    return [frame[a:b] for a, b in zip(cuts, (*cuts[1:], len(frame)), strict=True)]


def pair(data, model=IPWRA, cuts=CUTS, formula=F, fit=None, **options):
    given = {"treat": "mbsmoke", "propensity": PROPENSITY} | options
    made = (model.from_formula(formula, rows, **given) for rows in (in_blocks(cut(data, cuts)), data))
    return [one.fit(**(fit or {})) for one in made]


def agree(ours, theirs):
    pd.testing.assert_frame_equal(ours, theirs, rtol=RTOL, atol=ATOL)


FITS = {
    "ATT, clusters": {"target": "ATT", "cluster": "clinic"},
    "overlap, clipped": {"model": AIPW, "target": "overlap", "clip": (0.1, 0.3)},
    "several arms": {"treat": "dose", "reference": "none", "target": "all"},
    "frequencies": {"weights": "w", "weight_type": "frequency"},
    "trimmed by Crump's rule": {"trim": "crump", "weights": "p", "weight_type": "probability"},
}


@pytest.fixture(scope="module", params=FITS)
def both(births, request):
    """A fit to a scan and the one in memory."""
    return pair(births, **FITS[request.param])


def test_balance_is_that_of_memory(both):
    blocks, whole = both
    agree(blocks.balance(means=True, threshold=0.1), whole.balance(means=True, threshold=0.1))
    agree(blocks.balance("std", names={"mage": "Age"}), whole.balance("std", names={"mage": "Age"}))
    agree(blocks.overlap(), whole.overlap())


def test_rows_of_a_target_frame_are_not_compared(births):
    blocks, whole = pair(births, target=births[births.mage > 22][::9].drop(columns=["bweight", "mbsmoke"]))
    agree(blocks.balance(), whole.balance())
    agree(blocks.overlap(), whole.overlap())


def test_joint_fit_and_its_start(births):
    blocks, whole = pair(births, JRE, fit={"cov_type": "robust", "n_replicates": 4, "shrinkage": 3})
    agree(blocks.balance(), whole.balance())
    agree(blocks.start.balance(), whole.start.balance())
    agree(blocks.overlap(), whole.overlap())


@pytest.mark.parametrize("room", [1, 7000])
def test_covariates_are_measured_some_at_a_time(births, monkeypatch, room):
    monkeypatch.setattr("causalrisk.diagnostics.balance.ROOM", room)
    blocks, whole = pair(births)
    agree(blocks.balance(), whole.balance())


def test_scores_that_differ_by_rounding_are_the_same():
    rng = np.random.default_rng(1)
    arm, score = rng.integers(0, 2, 400), rng.choice([0.2, 0.3, 0.5], 400)
    noisy = score + 1e-16 * arm
    tables = []
    for e in (score, noisy):
        rows = Compared(slice(None), arm, np.ones((2, 400)), np.ones(400), np.stack([1 - e, e]))
        tables.append(balance_table(rows, [], ("0", "1"), "pooled", raw_binary=True, means=True))
    agree(*tables)
    assert common_support(np.stack([1 - noisy, noisy]), arm).all()


def test_workers_make_no_difference(births):
    model = IPWRA.from_formula(F, in_blocks(cut(births)), treat="mbsmoke")
    one, two = (model.fit(n_jobs=jobs) for jobs in (1, 2))
    for name in ("balance", "overlap"):
        pd.testing.assert_frame_equal(getattr(one, name)(), getattr(two, name)(), rtol=0, atol=0)


def test_what_stays_refused(births):
    blocks = IPWRA.from_formula(F, in_blocks(cut(births)), treat="mbsmoke").fit()
    with pytest.raises(UnavailableError, match="also="):
        blocks.balance(also="~ fage", data=births)
    with pytest.raises(UnavailableError, match="by="):
        blocks.balance(by="site")
    with pytest.raises(UnavailableError, match="interactions="):
        blocks.balance(interactions=True)
    with pytest.raises(UnavailableError):
        pickle.loads(pickle.dumps(blocks)).balance()
    with pytest.raises(UnavailableError):
        pickle.loads(pickle.dumps(blocks)).overlap()
    outcome = OutcomeRegression._of(blocks.model.design, blocks.model.options).fit()
    assert outcome.balance().columns.tolist() == [name for name in blocks.balance() if "after" not in name]
    with pytest.raises(UnavailableError, match="OutcomeRegression"):
        outcome.overlap()


@pytest.mark.parametrize(
    ("cuts", "weights"), [((0, 1, 2, 200), {}), ((0, 100, 185, 186), {"weights": "w", "weight_type": "frequency"})]
)
def test_lalonde(cuts, weights):
    """Sorted by arm, so that most blocks lack one; a column of two values may have one in a block."""
    data = load_lalonde().assign(w=lambda f: 1 + np.arange(len(f)) % 3)
    formula = "re78 ~ age + educ + C(black) + married + nodegree + re74 + re75"
    options = {"treat": "treat", "propensity": None, "target": "ATT"}
    blocks, whole = pair(data, cuts=cuts, formula=formula, **options, **weights)
    agree(blocks.balance(means=True), whole.balance(means=True))
    agree(blocks.overlap(), whole.overlap())
    assert (whole.overlap()[["outside support", "outside crump"]] > 0).any(axis=None)
    with pytest.raises(UnavailableError):
        blocks.overlap(by="unit")
