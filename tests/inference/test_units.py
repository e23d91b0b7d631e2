"""What a fit says of each row: of a scan as in memory, and as the properties of results in memory have it."""

from __future__ import annotations

import itertools
import pickle

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf

from causalrisk import AIPW, IPWRA, JRE, Hajek, OutcomeRegression, UnavailableError
from causalrisk.models.estimators import Unadjusted
from tests.conftest import in_blocks

F = "bweight ~ mage + medu + C(site)"


@pytest.fixture(scope="module")
def births(cattaneo):
    frame = cattaneo[::5].reset_index(drop=True)
    rng, n = np.random.default_rng(3), len(frame)
    return frame.assign(
        site=np.array(["north", "south", "west"])[rng.integers(0, 3, n)],
        dose=np.array(["none", "low", "high"])[rng.integers(0, 3, n)],
        medu=frame.medu.where(frame.index % 7 != 3),
        w=rng.integers(1, 4, n),
        far=frame.bweight + 1e7,
        low=(frame.bweight < 3000) * 1,
        cigs=rng.poisson(1 + frame.mage / 10),
        months=rng.uniform(1, 9, n),
    ).set_index(np.arange(n)[::-1] * 10)


def cut(frame, edges=(0, 300, 301)):
    return [frame[a:b] for a, b in itertools.pairwise([*edges, len(frame)])]


def units(res, folder, **options):
    return pd.read_parquet(res.write_units(folder / "units.parquet", **options))


MANY = {"treat": "dose", "reference": "none"}
FITS = {
    "IPWRA": (IPWRA, {}),
    "AIPW, three arms, weights": (AIPW, MANY | {"target": "overlap", "weights": "w", "weight_type": "probability"}),
    "Hajek, frequencies": (Hajek, {"target": "treated", "weights": "w", "weight_type": "frequency"}),
    "no scores": (OutcomeRegression, {}),
    "scores that tilt and do not weigh": (OutcomeRegression, {"target": "overlap"}),
    "Unadjusted": (Unadjusted, {}),
    "trimmed": (IPWRA, {"trim": (0.1, 0.35)}),
    "trimmed, three arms": (Hajek, MANY | {"trim": "crump", "propensity": "mage"}),
    "clipped": (AIPW, {"clip": (0.12, 0.3)}),
    "probit": (IPWRA, {"propensity_link": "probit", "family": "binomial", "formula": "low ~ mage"}),
    "calibrated": (IPWRA, {"propensity_loss": "calibrated", "target": "treated"}),
    "exposure": (IPWRA, {"formula": "cigs ~ mage", "family": "poisson", "exposure": "months", "at_exposure": 9}),
    "observed exposure": (
        AIPW,
        {"formula": "cigs ~ mage", "family": "poisson", "exposure": "months", "at_exposure": "observed"},
    ),
    "high level": (IPWRA, {"formula": "far ~ mage + C(site)"}),
}


def fitted(model, data, formula=F, **options):
    return model.from_formula(formula, data, **({"treat": "mbsmoke"} | options)).fit()


@pytest.mark.parametrize("name", FITS)
def test_units_of_a_scan_agree_with_memory(births, name, tmp_path):
    model, options = FITS[name]
    whole = fitted(model, births, **options)
    labels, treat = list(whole._record.design.labels), options.get("treat", "mbsmoke")
    rows = np.flatnonzero(whole.in_sample)
    expected = {"row": rows, "arm": pd.Categorical(births[treat].astype(str).iloc[rows], labels)}
    if name not in ("no scores", "Unadjusted"):
        scores = whole.propensity_scores
        several = {f"propensity[{label}]": scores[label].to_numpy() for label in labels} if len(labels) > 2 else {}
        expected |= several or {"propensity": scores.to_numpy()}
    expected["weight"] = whole.importance_weights.to_numpy()
    expected |= {f"potential_outcome[{label}]": whole.potential_outcomes[label].to_numpy() for label in labels}
    in_memory = units(whole, tmp_path)
    pd.testing.assert_frame_equal(in_memory, pd.DataFrame(expected), check_exact=True)
    blocks = units(fitted(model, in_blocks(cut(births)), **options), tmp_path)
    pd.testing.assert_frame_equal(blocks, in_memory, rtol=1e-9, atol=0)


def test_rows_of_a_target_frame_are_not_written(births, tmp_path):
    options = {"target": births[births.mage > 22][::3], "clip": (0.05, 0.3)}
    whole = units(fitted(AIPW, births, **options), tmp_path)
    assert len(whole) == births.medu.notna().sum()
    pd.testing.assert_frame_equal(units(fitted(AIPW, in_blocks(cut(births)), **options), tmp_path), whole, rtol=1e-9)


def test_units_are_those_of_logit_and_weighted_regressions(births, tmp_path):
    kept = births.reset_index(drop=True)[births.medu.notna().to_numpy()]
    score = smf.logit("mbsmoke ~ mage + medu", kept).fit(disp=0, tol=1e-12).predict(kept)
    weight = np.where(kept.mbsmoke == 1, 1 / score, 1 / (1 - score))
    found = units(fitted(IPWRA, in_blocks(cut(births)), "bweight ~ mage + medu"), tmp_path)
    np.testing.assert_array_equal(found.row, kept.index)
    np.testing.assert_array_equal(found.arm.astype(int), kept.mbsmoke)
    np.testing.assert_allclose(found.propensity, score, rtol=1e-8)
    np.testing.assert_allclose(found.weight, weight, rtol=1e-8)
    for arm in (0, 1):
        own = kept.mbsmoke == arm
        line = smf.wls("bweight ~ mage + medu", kept[own], weights=weight[own]).fit()
        np.testing.assert_allclose(found[f"potential_outcome[{arm}]"], line.predict(kept), rtol=1e-8)


def test_joint_fits_have_scores_and_weights_and_their_start_has_predictions(births, tmp_path):
    how = {"anchor": 3.0, "n_replicates": 8, "cov_type": "robust"}
    whole, blocks = (JRE.from_formula(F, data, treat="mbsmoke").fit(**how) for data in (births, in_blocks(cut(births))))
    found = units(blocks, tmp_path)
    assert [*found] == ["row", "arm", "propensity", "weight"]
    pd.testing.assert_frame_equal(found, units(whole, tmp_path), rtol=1e-9)
    start = units(blocks.start, tmp_path)
    pd.testing.assert_frame_equal(start, units(whole.start, tmp_path), rtol=1e-9)
    pd.testing.assert_frame_equal(start[[*found]], found, check_exact=True)
    np.testing.assert_allclose(start["potential_outcome[1]"], whole.start.potential_outcomes["1"], rtol=1e-9)


@pytest.mark.parametrize("name", ["propensity_scores", "importance_weights", "potential_outcomes"])
def test_properties_of_a_scan_say_that_units_can_be_written(births, name):
    res = fitted(IPWRA, in_blocks(cut(births)))
    with pytest.raises(UnavailableError, match=r"write_units.*collect"):
        getattr(res, name)
    with pytest.raises(UnavailableError, match=r"that goes by rows[^$]*data=data.collect\(\)"):
        getattr(pickle.loads(pickle.dumps(res)), name)


def test_results_from_a_file_do_not_know_their_scan(births, tmp_path):
    res = pickle.loads(pickle.dumps(fitted(IPWRA, in_blocks(cut(births)))))
    with pytest.raises(UnavailableError, match="scan"):
        res.write_units(tmp_path / "units.parquet")
    assert list(tmp_path.iterdir()) == []
