"""A scan and a fit in memory have the same resamples and replicates, and so the same errors but for rounding."""

from __future__ import annotations

import dataclasses

import dask
import numpy as np
import pandas as pd
import pytest

from causalrisk import AIPW, IPWRA, JRE, Hajek, OutcomeRegression
from causalrisk.numerics.arrays import loaded
from causalrisk.numerics.resampling import CHUNK, WIDTH
from tests.conftest import in_parts

F, M = "bweight ~ mage + medu", WIDTH + 3


@pytest.fixture(scope="module")
def births(cattaneo):
    """Two whole chunks, and part of a third."""
    half = cattaneo[::2].reset_index(drop=True)
    rng, n = np.random.default_rng(0), len(half)
    return half.assign(
        w=rng.integers(1, 4, n),
        clinic=rng.integers(0, 60, n),
        dose=np.array(["none", "low", "high"])[rng.integers(0, 3, n)],
        low=(half.bweight < 3000) * 1,
    )


@pytest.fixture(scope="module")
def folder(births, tmp_path_factory):
    folder = tmp_path_factory.mktemp("births")
    births.to_parquet(folder / "births.parquet", row_group_size=CHUNK)
    return folder


FREQUENCY = {"weights": "w", "weight_type": "frequency"}
FRAME = {"target": "frame"}
ARMS = {"treat": "dose", "reference": "none"}
FITS = {
    "pairs": (IPWRA, {}, {}),
    "fractional weights": (IPWRA, {}, {"bootstrap": "bayesian"}),
    "clusters": (IPWRA, {"cluster": "clinic"}, {}),
    "fractional weights of clusters": (AIPW, {"cluster": "clinic"}, {"bootstrap": "bayesian"}),
    "stratified": (IPWRA, ARMS, {"bootstrap": "stratified"}),
    "frequencies": (IPWRA, FREQUENCY, {}),
    "frequencies, fractional weights": (Hajek, FREQUENCY, {"bootstrap": "bayesian"}),
    "frequencies, stratified": (AIPW, FREQUENCY, {"bootstrap": "stratified"}),
    "frequencies of clusters": (IPWRA, FREQUENCY | {"cluster": "clinic"}, {}),
    "probability weights": (AIPW, {"weights": "w", "weight_type": "probability", "target": "treated"}, {}),
    "target frame": (IPWRA, FRAME, {}),
    "target frame, frequencies, stratified": (IPWRA, FRAME | FREQUENCY, {"bootstrap": "stratified"}),
    "JRE": (JRE, {}, {}),
    "JRE, frequencies": (JRE, FREQUENCY | {"target": "treated"}, {}),
    "JRE, target frame": (JRE, FRAME, {"bootstrap": "bayesian"}),
    "JRE, logit outcome": (
        JRE, {"formula": "low ~ mage", "family": "binomial"}, {"shrinkage": 1, "cov_type": "robust"}
    ),
}  # fmt: skip
ON_WORKERS = ("pairs", "clusters", "JRE")


def given(births, name):
    model, options, fit = FITS[name]
    options = {"formula": F, "treat": "mbsmoke"} | options
    if options.get("target") == "frame":
        options["target"] = births.loc[births.mage > 22, ["mage", "medu"]][::5]
    return model, options, fit


@pytest.mark.parametrize("name", FITS)
def test_a_scan_has_the_bootstrap_errors_of_a_fit_in_memory(births, folder, name):
    model, options, fit = given(births, name)
    if fit.get("cov_type") != "robust":
        fit = {"cov_type": "bootstrap", "n_boot": M} | fit
    if model is JRE:
        fit = {"n_replicates": M if name in ON_WORKERS else 5} | fit
    whole = model.from_formula(data=births, **options).fit(**fit)
    parts = model.from_formula(data=in_parts(f"{folder}/*.parquet", CHUNK), **options)
    found = parts.fit(n_jobs=1 + (name in ON_WORKERS), **fit)
    pd.testing.assert_series_equal(found.bse, whole.bse, rtol=1e-10, atol=0)
    pd.testing.assert_series_equal(found.params, whole.params, rtol=1e-10, atol=0)


@pytest.mark.parametrize("name", [
    "pairs", "fractional weights", "fractional weights of clusters", "stratified", "frequencies",
    "frequencies, stratified", "frequencies of clusters", "probability weights",
    "target frame, frequencies, stratified",
])  # fmt: skip
def test_rows_beyond_memory_are_drawn_as_in_memory(births, folder, name, monkeypatch):
    """Each part draws its own rows, of chunks that it has whole and of chunks that others have too."""
    _, options, fit = given(births, name)
    drawn, kind = [], fit.get("bootstrap", "cluster" if "cluster" in options else "pairs")
    monkeypatch.setattr("causalrisk.estimation.sample.FEW", 0)
    monkeypatch.setitem(dask.config.config, "scheduler", "synchronous")
    monkeypatch.setitem(dask.config.config, "optimization.fuse.active", False)
    for data in (births, in_parts(f"{folder}/*.parquet", 3 * CHUNK // 2)):
        record = OutcomeRegression.from_formula(data=data, **options).fit()._record
        resampler, sample = dataclasses.replace(record, bootstrap=kind).resampler(), record.sample
        for block in (resampler.draw(1, 0, M - 3), resampler.draw(1, 1, 3), resampler.perturb(0, 5, 0.5)):
            values = loaded(block)
            drawn.append(np.concatenate([values[: sample.n_frame], sample.restore(values)]))
    for k in range(3):
        np.testing.assert_allclose(drawn[3 + k], drawn[k], rtol=1e-13)
