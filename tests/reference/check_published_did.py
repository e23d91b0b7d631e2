"""Compare with printed tables: ``python -m tests.reference.check_published_did``, with ``pip install moderndid``.

The data are of R's DRDID and did, which are under the GPL; they are read from moderndid (0.2.0) and not kept here. The
tables are those of Stata's drdid for `nsw` (controls of the CPS), as a panel and as repeated cross sections, and of did
for `mpdta`, whose standard errors are of a bootstrap and not compared.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from causalrisk import AIPW, IPWRA, DiD, Hajek, OutcomeRegression, event_study

FORMULA = "re ~ age + educ + black + married + nodegree + hisp + re74"
IMPROVED = {"propensity_loss": "calibrated"}
PANEL = [  # name in the table, estimator, options, effect, standard error
    ("dripw", AIPW, {}, -871.3271, 396.0211),
    ("drimp", AIPW, IMPROVED, -901.2703, 393.6127),
    ("reg", OutcomeRegression, {}, -1300.645, 349.8259),
    ("stdipw", Hajek, {}, -1021.609, 397.5201),
    ("sipwra", IPWRA, {}, -908.2912, 393.8673),
]
CROSS_SECTIONS = [  # of dripw the table has 410.2751, where a term of the influence function has the other sign
    ("dripw", AIPW, {}, -871.3272, None),
    ("drimp", IPWRA, IMPROVED, -901.2703, 408.3107),
    ("stdipw", Hajek, {}, -1021.609, 495.464),
]
GROUP_TIME = {
    2004: {2004: -0.0105, 2005: -0.0704, 2006: -0.1373, 2007: -0.1008},
    2006: {2003: -0.0038, 2004: 0.0028, 2006: -0.0046, 2007: -0.0412},
    2007: {2003: 0.0033, 2004: 0.0338, 2005: 0.0311, 2007: -0.0261},
}


def compared(name: str, found: float, printed: float, digits: int) -> None:
    """Print a number beside the printed one, and refuse one that differs by more than the last digit."""
    print(f"{name:32} {found:12.4f} {printed:12.4f}")
    np.testing.assert_allclose(found, printed, rtol=0, atol=1.5 * 10.0**-digits)


def main() -> None:
    import moderndid

    men, counties = (pd.DataFrame(load().to_dict()) for load in (moderndid.load_nsw, moderndid.load_mpdta))
    for did, table in ((DiD(time="year", unit="id"), PANEL), (DiD(time="year"), CROSS_SECTIONS)):
        for name, estimator, options, effect, error in table:
            res = estimator.from_formula(FORMULA, men, treat="experimental", did=did, **options).fit()
            kind = f"{name}, {'panel' if did.unit else 'cross sections'}"
            compared(kind, res.effect, effect, 3)
            if error is not None:
                compared(f"{kind}, std. err.", res.bse["ATT"], error, 4)
    study = event_study("lemp ~ 1", counties, begins="first.treat", time="year", unit="countyreal")
    for (group, year), effect in study.params.items():
        compared(f"mpdta, {group} in {year}", effect, GROUP_TIME[group][year], 4)


if __name__ == "__main__":
    main()
