"""Make did_cross_sections.json: ``python -m tests.reference.make_did_cross_sections``, with ``pip install
drdid==1.1.7 moderndid==0.2.0``.

Difference-in-differences of repeated cross sections on 400 simulated rows that the file holds. Influence functions are
drdid's, which have to be the derivatives by the weights of rows; moderndid has to agree on the effects. (The influence
function of moderndid 0.2.0's drdid_rc is no derivative in the earlier period of the controls, and is not used.)
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

N, TOLERANCE, STEP = 400, 1e-10, 1e-4
COVARIATES = ["x1", "x2"]


def simulated():
    """Draw the rows; RandomState, because numpy never changes its stream. The weights w have mean 1."""
    draw = np.random.RandomState(34)
    x = np.round(draw.normal(size=(N, len(COVARIATES))), 3)
    d = draw.binomial(1, 1 / (1 + np.exp(0.3 - 0.6 * x[:, 0] + 0.4 * x[:, 1])))
    post = draw.binomial(1, 0.45, size=N)
    y = np.round(2 + x[:, 0] + 0.5 * d + post * (1 + 0.6 * x[:, 0] - 0.3 * x[:, 1] ** 2 + 1.5 * d)
                 + draw.normal(size=N), 3)  # fmt: skip
    w = np.arange(N) % 3 / 2 + 0.5
    return pd.DataFrame(x, columns=COVARIATES).assign(d=d, year=2015 + 4 * post, y=y, w=w / w.mean())


def check_derivatives(function, given, weights, influence):
    """Refuse an influence function that is not the derivative of the effect by the weights of rows."""
    for row in range(0, N, 16):
        moved = [weights + sign * STEP * (np.arange(N) == row) for sign in (1, -1)]
        high, low = (function(*given, i_weights=w)[0] for w in moved)
        np.testing.assert_allclose(influence[row], weights[row] * N * (high - low) / 2 / STEP, atol=1e-6)


def main():
    from drdid._estimators import drdid_rc, std_ipw_did_rc
    from moderndid import drdid_imp_local_rc
    from moderndid import drdid_rc as drdid_rc_
    from moderndid import std_ipw_did_rc as std_ipw_did_rc_

    data = simulated()
    rows = np.column_stack([np.ones(N), data[COVARIATES]])
    given = [data.y.to_numpy(), (data.year == 2019).to_numpy() * 1.0, data.d.to_numpy() * 1.0, rows]
    cases, theirs = [], {"drdid_rc": drdid_rc_, "std_ipw_did_rc": std_ipw_did_rc_}
    for weights in (None, "w"):
        w = np.ones(N) if weights is None else data[weights].to_numpy()
        for function in (drdid_rc, std_ipw_did_rc):
            att, influence = function(*given, i_weights=w)
            check_derivatives(function, given, w, influence)
            name = function.__name__
            np.testing.assert_allclose(theirs[name](*given, i_weights=w).att, att, rtol=TOLERANCE)
            cases.append({"name": name, "weights": weights, "att": att, "se": np.sqrt(influence @ influence) / N})
        improved = drdid_imp_local_rc(*given, i_weights=w)
        cases.append({"name": "drdid_imp_local_rc", "weights": weights, "att": improved.att})
    content = {
        "title": "Difference-in-differences of repeated cross sections",
        "made_with": "drdid 1.1.7; drdid_imp_local_rc by moderndid 0.2.0",
        "definitions": "se = (sum IF^2)^(1/2)/n. drdid_imp_local_rc is DRDID's default (imp, locally efficient), whose "
        "influence function leaves out that coefficients are estimated: it has no se here.",
        "data": data.to_dict(orient="list"),
        "cases": cases,
    }
    Path(__file__).with_name("did_cross_sections.json").write_text(json.dumps(content) + "\n")


if __name__ == "__main__":
    main()
