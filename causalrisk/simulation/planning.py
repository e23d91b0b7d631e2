"""Planning from a study: power, and the minimum detectable effect."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import ndtri

from causalrisk.errors import OptionError, check_alpha
from causalrisk.simulation.measures import share
from causalrisk.simulation.results import StudyResults


def power(
    study: StudyResults, effect: float | None = None, *, alpha: float = 0.05, target: float = 0.8
) -> pd.DataFrame:
    """Chance that the two-sided test of no effect rejects, and the minimum detectable effect.

    Parameters
    ----------
    study : StudyResults
        A study of the design that is planned, at the sizes that are thought of.
    effect : float, optional
        Effect to be found, in units of the outcome; by default the design's. Another effect is taken to be the same for
        everybody, so that it shifts the estimates and leaves their spread.
    alpha : float, default 0.05
        Significance level.
    target : float, default 0.8
        Power at the minimum detectable effect.

    Returns
    -------
    DataFrame
        One row a design, size and estimator: power and its Monte Carlo error; size, the share of rejections if there
        were no effect (more than alpha: the estimator is biased or its standard errors too small, and its power is not
        worth having); mde, the smallest positive effect that is found with the target power.

    Examples
    --------
    >>> from causalrisk import simulation
    >>> study = simulation.run_study("linear", n=200, n_sims=50, estimators="IPWRA")
    >>> simulation.power(study, 0.5).round(2)
                          power  power_mc  size   mde
    design n   estimator
    linear 200 IPWRA       0.94      0.03  0.06  0.38
    """
    check_alpha(alpha)
    if not 0 < target < 1:
        raise OptionError(f"target={target!r}; expected a power between 0 and 1.\nType  target=0.8.")
    critical, rows, index = float(ndtri(1 - alpha / 2)), [], []
    for design, n, errors, se in study.cells():
        sought = design.effect if effect is None else float(effect)
        for label in errors:
            known = ~(errors[label].isna() | se[label].isna())
            error, limit = errors[label][known].to_numpy(), critical * se[label][known].to_numpy()
            found, found_mc = share(np.abs(error + sought) > limit)
            mde = float(np.quantile(limit - error, target, method="higher")) if len(error) else np.nan
            rows.append((found, found_mc, share(np.abs(error) > limit)[0], mde))
            index.append((design.name, n, label))
    names = pd.MultiIndex.from_tuples(index, names=["design", "n", "estimator"])
    return pd.DataFrame(rows, index=names, columns=["power", "power_mc", "size", "mde"])
