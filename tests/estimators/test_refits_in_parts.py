"""Refits of the arms one by one under resamples: rows are gone through in parts where there are many."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from causalrisk import AIPW, IPWRA, Hajek, OutcomeRegression
from tests.conftest import RHS, simulate

N = 700
SETTINGS = {
    "linear": (IPWRA, {}),
    "treated, clusters": (AIPW, {"target": "treated", "cluster": "c"}),
    "overlap, counted": (AIPW, {"target": "overlap", "weights": "k", "weight_type": "frequency"}),
    "frame": (IPWRA, {"target": "frame"}),
    "frame, no scores": (OutcomeRegression, {"target": "frame"}),
    "one arm, no scores": (OutcomeRegression, {"target": "treated"}),
    "binary": (IPWRA, {"family": "binomial", "formula": f"low ~ {RHS}", "effect": "ratio"}),
    "counts, clipped": (AIPW, {"family": "poisson", "formula": f"count ~ {RHS}", "clip": (0.2, 0.8)}),
    "arms": (Hajek, {"treat": "arm", "reference": 0, "weights": "k", "weight_type": "probability"}),
    "calibrated": (IPWRA, {"propensity_loss": "calibrated"}),
}


@pytest.fixture(scope="module")
def data():
    frame, rng = simulate(N, seed=2), np.random.default_rng(1)
    return frame.assign(
        c=np.arange(N) // 4, k=1 + np.arange(N) % 3, low=(frame.y < frame.y.median()) * 1,
        count=rng.poisson(np.exp(frame.x1 / 4)), arm=frame.d + rng.integers(0, 2, N),
    )  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_parts_change_nothing_but_rounding(data, name, monkeypatch):
    model, options = SETTINGS[name]
    given = {"formula": f"y ~ {RHS}", "treat": "d"} | options
    if given.get("target") == "frame":
        given["target"] = data[:90].assign(x1=lambda d: d.x1 + 0.2)

    def boot():
        return model.from_formula(data=data, **given).fit(n_boot=40)

    whole = boot()
    monkeypatch.setattr("causalrisk.estimators.sample.PART", 100)
    monkeypatch.setattr("causalrisk.numerics.linalg.IN_CACHE", 64)
    parts = boot()
    pd.testing.assert_frame_equal(parts.boot_params, whole.boot_params, rtol=1e-8)
    pd.testing.assert_frame_equal(parts.boot_ledger, whole.boot_ledger)
