"""R's boot on LaLonde: the same resamples give the same replicates and intervals.

R interpolates quantiles on the normal scale; the package does as numpy and scipy (type 7), so the columns that follow
that convention are the reference. R's "normal" interval subtracts the bootstrap bias, the package's (Stata's) does not.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import causalrisk as cr
from causalrisk.estimation.options import InferenceOptions
from causalrisk.inference.covariance import leave_one_out
from causalrisk.inference.intervals import acceleration_of, bias_corrected_interval
from tests.conftest import LALONDE_RHS, REFERENCE

MODELS = {"ra": cr.OutcomeRegression, "ipw": cr.Hajek, "ipwra": cr.IPWRA, "aipw": cr.AIPW}
INTERVALS = pd.read_csv(REFERENCE / "boot_lalonde_ci.csv")
REPLICATES = pd.read_csv(REFERENCE / "boot_lalonde_replicates.csv.gz")
JACKKNIFE = pd.read_csv(REFERENCE / "boot_lalonde_jackknife.csv")


@pytest.fixture(scope="module")
def fits(lalonde):
    indices = pd.read_csv(REFERENCE / "boot_lalonde_indices_1based.csv.gz", header=None).to_numpy() - 1
    counts = np.stack([np.bincount(row, minlength=614) for row in indices], axis=1)
    models = {k: m.from_formula(f"re78 ~ {LALONDE_RHS}", lalonde, treat="treat") for k, m in MODELS.items()}
    return {k: m.fit(resamples=counts, cov_type="bootstrap") for k, m in models.items()}


@pytest.mark.parametrize("name", MODELS)
def test_replicates(fits, name):
    boot = fits[name].boot_params["ATE"]
    scale = REPLICATES[name].std()
    np.testing.assert_allclose(boot, REPLICATES[name], rtol=1e-8, atol=1e-9 * scale)
    row = INTERVALS[INTERVALS.estimator == name].iloc[0]
    assert fits[name].effect == pytest.approx(row.t0, rel=1e-10)
    assert fits[name].effect_se == pytest.approx(row.boot_se_ddof1, rel=1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_jackknife(fits, name):
    record = fits[name]._record
    left_out = leave_one_out(record, InferenceOptions()).values[:, 0]
    np.testing.assert_allclose(left_out, JACKKNIFE[name], rtol=1e-8, atol=1e-9 * abs(fits[name].effect))
    row = INTERVALS[INTERVALS.estimator == name].iloc[0]
    assert fits[name].model.fit(cov_type="jackknife").effect_se == pytest.approx(row.jack_se, rel=1e-9)


@pytest.mark.filterwarnings("ignore:fewer than .* of 1999 resamples:causalrisk.ResampleWarning")
@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
@pytest.mark.parametrize("name", MODELS)
def test_intervals(fits, name, level):
    res = fits[name]
    row = INTERVALS[(INTERVALS.estimator == name) & np.isclose(INTERVALS.level, level)].iloc[0]

    def limits(method):
        return res.conf_int(1 - level, method=method).loc["ATE"].to_numpy()

    rel = {"rtol": 1e-8, "atol": 1e-8 * row.boot_se_ddof1}
    percentile = np.array([row.perc_type7_lo, row.perc_type7_hi])
    np.testing.assert_allclose(limits("percentile"), percentile, **rel)
    np.testing.assert_allclose(limits("basic"), 2 * row.t0 - percentile[::-1], **rel)
    accelerated = [row.bca_centred_type7_lo, row.bca_centred_type7_hi]
    left_out, drawn = JACKKNIFE[name].to_numpy()[:, None], res.boot_params[["ATE"]].to_numpy()
    acceleration = acceleration_of(left_out.mean() - left_out, np.ones(len(left_out)))
    by_jackknife = bias_corrected_interval(np.array([res.effect]), drawn, acceleration, 1 - level)[0]
    np.testing.assert_allclose(by_jackknife, accelerated, **rel)
    np.testing.assert_allclose(limits("normal") - row.boot_bias, [row.norm_lo, row.norm_hi], **rel)
    np.testing.assert_allclose(limits(None), limits("normal"))
    if level < 0.99:  # farther out the order statistics lie too far apart to compare conventions
        np.testing.assert_allclose(limits("percentile"), [row.perc_lo, row.perc_hi], atol=0.05 * row.boot_se_ddof1)
        np.testing.assert_allclose(limits("bca"), accelerated, atol=0.1 * row.boot_se_ddof1)
