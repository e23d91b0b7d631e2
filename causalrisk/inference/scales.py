"""One fit on several effect scales, and the number needed to treat."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd

from causalrisk.errors import UnavailableError, check_alpha
from causalrisk.estimation.record import FitRecord, of_means
from causalrisk.estimation.specification import DIFFERENCE, ODDS_RATIO, RATIO
from causalrisk.inference.covariance import resample_errors
from causalrisk.inference.intervals import inference_frame, summary_frame


@of_means
def effects_on_scales(record: FitRecord, alpha: float = 0.05) -> pd.DataFrame:
    """Return the effects as differences, ratios and odds ratios of the means in one table.

    Parameters
    ----------
    alpha : float, default 0.05
        Significance level of the intervals.

    Returns
    -------
    DataFrame
        One row per scale and effect: estimate, standard error, test of no effect and limits, as from fits with
        ``effect="difference"``, ``"ratio"`` and ``"odds_ratio"``. Ratios need positive means, and odds ratios need
        means between 0 and 1; otherwise they are left out.

    Raises
    ------
    UnavailableError
        For JRE, which is trained for the effect on one scale.

    Examples
    --------
    >>> from causalrisk import AIPW, datasets
    >>> births = datasets.load_cattaneo2()
    >>> res = AIPW.from_formula(
    ...     "lbweight ~ mage + medu", births, treat="mbsmoke", family="binomial"
    ... ).fit()
    >>> res.effects_on_scales()[["estimate", "[0.025", "0.975]"]].round(3)
                    estimate  [0.025  0.975]
    ATE                0.061   0.037   0.086
    ATE ratio          2.234   1.734   2.879
    ATE odds ratio     2.389   1.807   3.159
    """
    check_alpha(alpha)
    if record.joint is not None:
        raise UnavailableError(
            'JRE is trained for the effect on one scale.\nUse `res.model.with_options(effect="ratio").fit()`.'
        )
    block, frames = record.estimate.block("means"), []
    means, covariance = record.estimate.params[block], record.covariance[block, block]
    for scale in (DIFFERENCE, RATIO, ODDS_RATIO):
        if not ((means > scale.low) & (means < scale.high)).all():
            continue
        effects, errors = scale.effects(means), None
        jacobian = scale.jacobian(means)[: len(effects)]
        se = np.sqrt(np.diag(jacobian @ covariance @ jacobian.T))
        if record.boot is not None and not record.multiplied:
            resampled = scale.effects(record.boot.used[:, block].T).T
            resampled = resampled[np.isfinite(resampled).all(axis=1)]
            se = resample_errors(record, resampled, effects)
            errors = resample_errors(record, scale.contrast(resampled), scale.contrast(effects))
        names = dataclasses.replace(record, options=dataclasses.replace(record.options, effect=scale.name)).effect_names
        frames.append(inference_frame(effects, se, alpha, pd.Index(names), scale, errors, record.df))
    return pd.concat(frames)


@of_means
def nnt(record: FitRecord, alpha: float = 0.05) -> pd.DataFrame:
    """Return the number needed to treat: 1 / difference of the means of a 0/1 outcome.

    Parameters
    ----------
    alpha : float, default 0.05
        Significance level of the interval.

    Returns
    -------
    DataFrame
        Columns "nnt", "lower" and "upper". Treating this number of units gives one more outcome of 1 on average, or one
        fewer if it is negative. If the interval of the difference includes zero, there are two rows [1]_: an interval
        from "lower" to infinity, and one from minus infinity to "upper". The data exclude the numbers between.

    Raises
    ------
    UnavailableError
        If the outcome is not 0/1.

    References
    ----------
    .. [1] Altman, D. G. (1998). Confidence intervals for the number needed to treat. BMJ 317, 1309-1312.

    Examples
    --------
    >>> from causalrisk import AIPW, datasets
    >>> births = datasets.load_cattaneo2()
    >>> res = AIPW.from_formula(
    ...     "lbweight ~ mage + medu", births, treat="mbsmoke", family="binomial"
    ... ).fit()
    >>> res.nnt().round(1)
               nnt  lower  upper
    contrast
    1 vs 0    16.3   11.6   27.0
    """
    check_alpha(alpha)
    design = record.design
    if record.options.did is not None or not design.has_binary_outcome:
        raise UnavailableError(f"nnt() is for outcomes of 0 and 1; {design.endog_name} has others.\nUse `res.effect`.")
    table = (summary_frame if record.options.effect == "difference" else effects_on_scales)(record, alpha)
    rows, index = [], []
    for contrast, (value, low, high) in zip(record.contrasts, table.iloc[:, [0, -2, -1]].to_numpy(), strict=False):
        ends = [(1 / high, 1 / low)] if low * high > 0 else [(1 / high, np.inf), (-np.inf, 1 / low)]
        rows += [(1 / value, *limits) for limits in ends]
        index += [contrast] * len(ends)
    return pd.DataFrame(rows, index=pd.Index(index, name="contrast"), columns=["nnt", "lower", "upper"])
