"""What a fit says of each row: scores, weights and predictions are statsmodels'; a fit on disk has none."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.formula.api as smf

from causalrisk import IPWRA, JRE, UnavailableError
from tests.conftest import in_blocks

F = "bweight ~ mage + medu"


@pytest.fixture(scope="module")
def births(cattaneo):
    frame = cattaneo[::5].reset_index(drop=True)
    return frame.assign(medu=frame.medu.where(frame.index % 7 != 3)).set_index(np.arange(len(frame))[::-1] * 10)


def test_units_are_those_of_logit_and_weighted_regressions(births):
    kept = births[births.medu.notna()]
    score = smf.logit("mbsmoke ~ mage + medu", kept).fit(disp=0, tol=1e-12).predict(kept)
    weight = np.where(kept.mbsmoke == 1, 1 / score, 1 / (1 - score))
    res = IPWRA.from_formula(F, births, treat="mbsmoke").fit()
    assert res.propensity_scores.index.equals(kept.index)
    np.testing.assert_allclose(res.propensity_scores, score, rtol=1e-8)
    np.testing.assert_allclose(res.importance_weights, weight, rtol=1e-8)
    for arm in (0, 1):
        own = kept.mbsmoke == arm
        line = smf.wls(F, kept[own], weights=weight[own]).fit()
        np.testing.assert_allclose(res.potential_outcomes[str(arm)], line.predict(kept), rtol=1e-8)


def test_joint_fits_have_scores_and_weights_and_their_start_has_predictions(births):
    res = JRE.from_formula(F, births, treat="mbsmoke").fit(shrinkage=3.0, n_replicates=8, cov_type="robust")
    alone = IPWRA.from_formula(F, births, treat="mbsmoke").fit()
    np.testing.assert_allclose(res.propensity_scores, alone.propensity_scores, rtol=1e-12)
    np.testing.assert_allclose(res.importance_weights, alone.importance_weights, rtol=1e-12)
    np.testing.assert_allclose(res.start.potential_outcomes, alone.potential_outcomes, rtol=1e-9)


@pytest.mark.parametrize("name", ["propensity_scores", "importance_weights", "potential_outcomes"])
def test_properties_of_a_scan_need_its_rows(births, name):
    res = IPWRA.from_formula(F, in_blocks([births[:300], births[300:]]), treat="mbsmoke").fit()
    with pytest.raises(UnavailableError, match=r"this result is not available[^$]*scan\(data\).collect\(\)"):
        getattr(res, name)
