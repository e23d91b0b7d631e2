"""Effects beside average comparisons of marginaleffects, whose standard errors take the covariates as given."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from causalrisk import IPWRA, OutcomeRegression, datasets

KNOWN = json.loads((Path(__file__).parents[1] / "reference" / "marginaleffects.json").read_text("utf-8"))


@pytest.mark.parametrize(
    ("name", "estimator", "outcome", "options"),
    [
        ("linear", OutcomeRegression, "bweight", {}),
        ("linear, treated", OutcomeRegression, "bweight", {"target": "treated"}),
        ("weighted", IPWRA, "bweight", {}),
        ("logit difference", OutcomeRegression, "lbweight", {"family": "binomial"}),
        ("logit lnratioavg", OutcomeRegression, "lbweight", {"family": "binomial", "effect": "ratio"}),
        ("logit lnoravg", OutcomeRegression, "lbweight", {"family": "binomial", "effect": "odds_ratio"}),
    ],
)
def test_average_comparisons(name, estimator, outcome, options):
    births = datasets.load_cattaneo2()
    res = estimator.from_formula(f"{outcome} ~ mage + medu", births, treat="mbsmoke", **options).fit()
    found, se = res.effect, res.effect_se
    if "ln" in name:
        found, se = np.log(found), se / found
    np.testing.assert_allclose(found, KNOWN[name]["estimate"], rtol=1e-7)
    np.testing.assert_allclose(se, KNOWN[name]["std_error"], rtol=0.02)
