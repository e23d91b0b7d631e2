"""What the default of JRE does on real data: `python -m tests.studies.study_real`, half a minute."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd

import causalrisk as cr
from tests.conftest import CATTANEO_PROPENSITY, CATTANEO_RHS
from tests.studies.designs import lalonde

NHEFS_RHS = (
    "sex + race + age + I(age**2) + C(education) + smokeintensity + I(smokeintensity**2) + smokeyrs + I(smokeyrs**2) + "
    "C(exercise) + C(active) + wt71 + I(wt71**2)"
)
NSW_RHS = "age + educ + black + hispan + married + nodegree + re74 + re75"


def cases():
    """Data, formula and options by name.

    Returns
    -------
    dict of str to tuple
        Data frame, outcome formula, treatment, propensity formula or None.
    """
    rows, rhs = lalonde()
    births, smokers, experiment = cr.datasets.load_cattaneo2(), cr.datasets.load_nhefs(), cr.datasets.load_lalonde()
    return {
        "cattaneo2": (births, f"bweight ~ {CATTANEO_RHS}", "mbsmoke", CATTANEO_PROPENSITY),
        "LaLonde, 614 rows": (rows, f"y ~ {rhs}", "d", None),
        "NHEFS": (smokers, f"wt82_71 ~ {NHEFS_RHS}", "qsmk", None),
        "NSW experiment": (experiment, f"re78 ~ {NSW_RHS}", "treat", None),
    }


def compare_on_real_data(n_boot=999):
    """Fit JRE and IPWRA on each, with the same resamples.

    Parameters
    ----------
    n_boot : int, default 999
        Resamples.

    Returns
    -------
    DataFrame
        A row a data set: effects, JRE's bootstrap standard error, the anchor it chose and the factor of the standard
        error for that choice; over IPWRA's the standard deviation of the resampled effects, with its Monte Carlo error,
        and the standard error.
    """
    rows = {}
    for name, (data, formula, treat, propensity) in cases().items():
        model = cr.JRE.from_formula(formula, data, treat=treat, propensity=propensity)
        jre = model.fit(bootstrap="pairs", n_boot=n_boot)
        boot, start = jre._record.boot, jre.start_difference().loc["IPWRA"]
        rows[name] = {
            "JRE": jre.effect,
            "IPWRA": start["estimate"],
            "SE": jre.effect_se,
            "shrinkage": jre.joint.shrinkage,
            "factor": np.sqrt(jre._record.choice_variance),
            **resampled_ratio(boot.values[:, 0], boot.start[:, 0]),
            "SE ratio": jre.effect_se / start["std err"],
        }
    return pd.DataFrame(rows).T


def resampled_ratio(values, reference, draws=1000):
    """Ratio of the standard deviations of two effects over the same resamples, with its Monte Carlo error."""
    both = np.column_stack([values, reference])
    both = both[~np.isnan(both).any(axis=1)]
    picked = both[np.random.default_rng(0).integers(0, len(both), (draws, len(both)))].std(axis=1)
    ratio = both.std(axis=0)
    return {"SD ratio": ratio[0] / ratio[1], "MC error": np.std(picked[:, 0] / picked[:, 1])}


def main():
    """Print the table."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cr.CausalRiskWarning)
        print(compare_on_real_data().round(4).to_string())


if __name__ == "__main__":
    main()
