"""Coverage of 95% intervals of LATE: ``python -m tests.studies.study_instruments --n-sims 500``.

500 units with a covariate that moves the instrument and the outcome. Always-takers are a fifth; compliers are half of
the units (a strong instrument), a tenth or a twentieth (weak ones). The effect on compliers is 1.5. The outcomes of
always-takers are higher by 2 (moderate confounding) or 10 (strong confounding).
"""

from __future__ import annotations

import argparse
import warnings

import numpy as np
import pandas as pd

from causalrisk import LATE

EFFECT = 1.5
SHARES = {"strong": 0.5, "weak": 0.1, "very weak": 0.05}
CONFOUNDING = {"moderate": 2.0, "strong": 10.0}
INTERVALS = ("normal", "anderson-rubin")


def drawn(seed, share, n, higher):
    """One sample: always-takers have higher outcomes, and compliers higher values of the covariate."""
    rng = np.random.default_rng(seed)
    x, kind = rng.normal(size=n), rng.random(n)
    z = (rng.random(n) < 1 / (1 + np.exp(-0.5 * x))).astype(int)
    d = np.where(kind < 0.2, 1, np.where(kind < 0.2 + share, z, 0))
    return pd.DataFrame({"y": EFFECT * d + x + higher * (kind < 0.2) + rng.normal(size=n), "d": d, "z": z, "x": x})


def holds(limits):
    """Whether an interval, or one of its two half-lines, holds the effect."""
    return bool(((limits[0] <= EFFECT) & (limits[1] >= EFFECT)).any())


def study(share, n_sims, n, higher):
    """Return the mean first-stage F, and the coverage of both intervals."""
    found = []
    for seed in range(n_sims):
        res = LATE.from_formula("y ~ x", drawn(seed, share, n, higher), treat="d", instrument="z").fit()
        found.append((res.first_stage_f, *(holds(res.conf_int(method=method)) for method in INTERVALS)))
    return np.mean(found, axis=0)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n-sims", type=int, default=500)
    parser.add_argument("--n", type=int, default=500)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = {
        (f"{confounding} confounding", f"{instrument} instrument"): study(share, given.n_sims, given.n, higher)
        for confounding, higher in CONFOUNDING.items()
        for instrument, share in SHARES.items()
    }
    print(pd.DataFrame(rows, index=["first-stage F", *INTERVALS]).T.round(3))


if __name__ == "__main__":
    main()
