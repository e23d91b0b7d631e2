"""What the default of JRE does on real data: `python -m tests.studies.study_real`, half a minute."""

from __future__ import annotations

import warnings

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
        A row a data set: effects, bootstrap standard errors, their ratio, and the anchor JRE chose.
    """
    rows = {}
    for name, (data, formula, treat, propensity) in cases().items():
        jre = cr.JRE.from_formula(formula, data, treat=treat, propensity=propensity).fit(n_boot=n_boot)
        ipwra = cr.IPWRA.from_formula(formula, data, treat=treat, propensity=propensity)
        start = ipwra.fit(cov_type="bootstrap", n_boot=n_boot)
        path = jre.anchor_path
        rows[name] = {
            "JRE": jre.effect, "IPWRA": start.effect, "SE": jre.effect_se, "SE ratio": jre.effect_se / start.effect_se,
            "anchor": path.index[path["chosen"]].item(),
        }  # fmt: skip
    return pd.DataFrame(rows).T


def main():
    """Print the table."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cr.CausalRiskWarning)
        print(compare_on_real_data().round(4).to_string())


if __name__ == "__main__":
    main()
