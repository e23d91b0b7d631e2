"""Calls that a type checker takes, and calls that it refuses; nothing here is run.

`python -m mypy` reads this file, too: of a refused call that it would take it says that an ignored error is none.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from causalrisk import (
    AIPW,
    IPWRA,
    JRE,
    Hajek,
    OutcomeRegression,
    Survey,
    compare,
    etable,
    pool,
    simultaneous,
    table_one,
)

DATA = pd.DataFrame()
Y = np.zeros(9)


def right() -> None:
    """Thirty calls that are right."""
    model = IPWRA.from_formula("y ~ x", DATA, treat="d")
    AIPW.from_formula("y ~ x", DATA, treat="d", learner="smooth", n_folds=3, n_repeats=3)
    AIPW.from_formula("y ~ x", DATA, treat="d", learner=["smooth", "lasso"], learner_use="terms")
    AIPW.from_formula("y ~ x", DATA, treat="d", learner={"no": "lasso", "yes": "random-forest"})
    IPWRA.from_formula("y ~ x", DATA, treat="d", family="poisson", exposure="t", at_exposure=2)
    IPWRA.from_formula("y ~ x", DATA, treat="d", family="binomial", link="probit", propensity_link="cloglog")
    IPWRA.from_formula("y ~ x", DATA, treat="d", propensity_loss="calibrated", target="treated")
    IPWRA.from_formula("y ~ x", DATA, treat="d", trim="crump", missing="raise")
    IPWRA.from_formula("y ~ x", DATA, treat="d", trim=(0.1, 0.9), clip=[0.01, 0.99])
    Hajek.from_formula("y ~ 1", DATA, treat="d", propensity="x", weights="w", weight_type="probability")
    OutcomeRegression.from_formula("y ~ x", DATA, treat="d", effect="ratio", cluster=["a", "b"])
    IPWRA.from_formula("y ~ x", DATA, treat="d", design=Survey(weights="w", strata="s", psu="p"))
    IPWRA(Y, Y, Y)
    res = model.fit()
    model.fit(cov_type="HC1", use_t=True)
    model.fit(cov_type="cluster", cov_kwds={"groups": Y})
    model.fit(n_boot=199, bootstrap="bayesian", rng=np.random.default_rng(0))
    model.fit(bootstrap="multiplier", multiplier="webb", progress=True)
    joint = JRE.from_formula("y ~ x", DATA, treat="d").fit(objective="erm", method="BFGS")
    JRE.from_formula("y ~ x", DATA, treat="d").fit(shrinkage=1, share=0)
    res.conf_int(0.1, method="bca")
    res.t_test("ATE = 0")
    res.equivalence_test(-10, 10)
    res.pairwise(adjust="holm", against="reference")
    res.effects_by("g", adjust="single-step")
    res.balance(binary="std")
    res.predict(DATA, arm=1)
    etable([res, joint], below="ci", stars=True)
    compare("y ~ x", DATA, treat="d", estimators=["IPWRA", "JRE"], n_boot=99)
    table_one(["x"], DATA, by="d", weights="w", weight_type="frequency")
    simultaneous([res, res], adjust="hochberg")
    pool([res, res])


def wrong() -> None:
    """Thirty calls that are refused."""
    model = IPWRA.from_formula("y ~ x", DATA, treat="d")
    res = model.fit()
    joint = JRE.from_formula("y ~ x", DATA, treat="d")
    model.fit(cov_type="HC9")  # type: ignore[arg-type]
    model.fit(cov_type=True)  # type: ignore[arg-type]
    model.fit(bootstrap="wild")  # type: ignore[arg-type]
    model.fit(multiplier="normal")  # type: ignore[arg-type]
    model.fit(n_boot="999")  # type: ignore[arg-type]
    model.fit(cov_kwds=Y)  # type: ignore[arg-type]
    model.fit("robust")  # type: ignore[call-arg]
    joint.fit(objective="riks")  # type: ignore[arg-type]
    joint.fit(spread="n3")  # type: ignore[arg-type]
    joint.fit(method="newton")  # type: ignore[arg-type]
    joint.fit(shrinkage="3")  # type: ignore[arg-type]
    IPWRA.from_formula("y ~ x", DATA, treat="d", family="poison")  # type: ignore[arg-type]
    IPWRA.from_formula("y ~ x", DATA, treat="d", link="inverse")  # type: ignore[arg-type]
    IPWRA.from_formula("y ~ x", DATA, treat="d", propensity_link="logistic")  # type: ignore[arg-type]
    IPWRA.from_formula("y ~ x", DATA, treat="d", propensity_loss="cbps")  # type: ignore[arg-type]
    IPWRA.from_formula("y ~ x", DATA, treat="d", weights="w", weight_type="sampling")  # type: ignore[arg-type]
    IPWRA.from_formula("y ~ x", DATA, treat="d", learner="smoth")  # type: ignore[arg-type]
    IPWRA.from_formula("y ~ x", DATA, treat="d", learner="lasso", learner_use="both")  # type: ignore[arg-type]
    IPWRA.from_formula("y ~ x", DATA, treat="d", trim="cramp")  # type: ignore[arg-type]
    IPWRA.from_formula("y ~ x", DATA, treat="d", trim=0.1)  # type: ignore[arg-type]
    IPWRA.from_formula("y ~ x", DATA, treat="d", effect="rd")  # type: ignore[arg-type]
    IPWRA.from_formula("y ~ x", DATA, treat="d", missing="ignore")  # type: ignore[arg-type]
    IPWRA.from_formula("y ~ x", DATA, treat="d", design={"strata": "s"})  # type: ignore[arg-type]
    res.conf_int(method="percentil")  # type: ignore[arg-type]
    res.pairwise(adjust="tukey")  # type: ignore[arg-type]
    res.permutation_test(alternative="greater")  # type: ignore[arg-type]
    res.balance(binary="logit")  # type: ignore[arg-type]
    etable([res], below="sd")  # type: ignore[arg-type]
    table_one(["x"], DATA, by="d", weight_type="pweights")  # type: ignore[arg-type]
    res.nlcom(alpha=0.1)  # type: ignore[call-arg]
