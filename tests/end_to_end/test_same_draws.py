"""A scan and a fit in memory have the same resamples and replicates, and so the same errors but for rounding."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from causalrisk import AIPW, IPWRA, JRE, Hajek
from causalrisk.numerics.multiplicities import CHUNK, WIDTH
from tests.conftest import in_parts

pytestmark = pytest.mark.filterwarnings("ignore::causalrisk.MonteCarloWarning")
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
    "JRE, stratified": (JRE, ARMS, {"bootstrap": "stratified"}),
    "JRE, frequencies": (JRE, FREQUENCY | {"target": "treated"}, {}),
    "JRE, clusters": (JRE, {"cluster": "clinic"}, {}),
    "JRE, target frame": (JRE, FRAME, {"bootstrap": "bayesian"}),
    "JRE, logit outcome": (JRE, {"formula": "low ~ mage", "family": "binomial"}, {"anchor": 1.0, "cov_type": "robust"}),
}  # fmt: skip
ON_WORKERS = ("pairs", "clusters", "frequencies, stratified", "JRE", "target frame")
# Of the others, in blocks of two chunks, each feature and each way to resample is here as well.
ONE_CHUNK = (
    *ON_WORKERS, "fractional weights of clusters", "stratified", "frequencies, fractional weights",
    "probability weights", "JRE, stratified", "JRE, frequencies", "JRE, target frame",
)  # fmt: skip


@pytest.mark.parametrize("name", FITS)
def test_a_scan_has_the_bootstrap_errors_of_a_fit_in_memory(births, folder, name):
    model, options, fit = FITS[name]
    options = {"formula": F, "treat": "mbsmoke"} | options
    if options.get("target") == "frame":
        options["target"] = births.loc[births.mage > 22, ["mage", "medu"]][::5]
    if fit.get("cov_type") != "robust":
        fit = {"cov_type": "bootstrap", "n_boot": M} | fit
    if model is JRE:
        fit = {"n_replicates": M} | fit
    whole = model.from_formula(data=births, **options).fit(**fit)
    for size, n_jobs in ((2 * CHUNK, 1), *[(CHUNK, 1)] * (name in ONE_CHUNK), *[(CHUNK, 2)] * (name in ON_WORKERS)):
        blocks = model.from_formula(data=in_parts(f"{folder}/*.parquet", size), **options)
        found = blocks.fit(n_jobs=n_jobs, **fit)
        pd.testing.assert_series_equal(found.bse, whole.bse, rtol=1e-10, atol=0)
        pd.testing.assert_series_equal(found.params, whole.params, rtol=1e-10, atol=0)
