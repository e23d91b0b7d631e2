"""What results say of an omitted confounder."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd

from causalrisk.confounding import bias_scales, bounds_table, sensitivity_table
from causalrisk.errors import OptionError
from causalrisk.inference.intervals import check_alpha
from causalrisk.model_attributes import ModelAttributes
from causalrisk.weighting import WeightFit

STRENGTHS = (0.01, 0.03, 0.1)


class SensitivityAttributes(ModelAttributes):
    """How strong an omitted confounder would have to be."""

    @property
    def _weight_fit(self) -> WeightFit:
        """The fitted importance weights; an estimator that uses none raises."""
        if self._record.propensity is None or not self._record.spec.uses_propensity:
            raise self._without_propensity()
        return self._record.propensity

    def sensitivity(self, alpha: float = 0.05) -> pd.DataFrame:
        """How strong an omitted confounder would have to be to explain the effect away.

        Parameters
        ----------
        alpha : float, default 0.05
            Significance level of the intervals.

        Returns
        -------
        DataFrame
            A row for each arm against the reference: the effect as a difference; the risk ratio behind the E-value and
            its "basis"; "E-value" and that of the nearer limit of the interval; "scale" S and the "robustness value",
            the strength cf_y = cf_d at which the bias is as large as the effect, and that at which the interval holds
            zero.

        Notes
        -----
        The E-value [1]_ is the risk ratio that a confounder must have with both treatment and outcome, beyond the
        covariates. It is exact where the outcome is 0/1 or the effect a ratio, odds ratio or percentage: then it is of
        the ratio of the arm means. Else it rests on the approximation exp(0.91 d) of the standardized effect d, with
        limits exp(0.91 d +- 1.78 se).

        The robustness value [2]_ assumes nothing of how the confounder works, but that the outcome regression and the
        propensity score are right given the covariates: the bias is at most S sqrt(cf_y cf_d / (1 - cf_d)), with
        S^2 = E (Y - g)^2 E alpha^2, g the outcome regression and alpha the importance weight with the sign of the
        arm. See `sensitivity_bounds`. For JRE g is that of its start.

        References
        ----------
        .. [1] VanderWeele, T. J. and Ding, P. (2017). Sensitivity analysis in observational research: introducing the
           E-value. Annals of Internal Medicine 167, 268-274.
        .. [2] Chernozhukov, V., Cinelli, C., Newey, W., Sharma, A. and Syrgkanis, V. (2022). Long story short: omitted
           variable bias in causal machine learning. NBER working paper 30302.

        Examples
        --------
        >>> import causalrisk as cr
        >>> births = cr.datasets.load_cattaneo2()
        >>> res = cr.IPWRA.from_formula("bweight ~ mage + medu", births, treat="mbsmoke").fit()
        >>> res.sensitivity()[["E-value", "E-value of limit", "robustness value"]].round(2)
                  E-value  E-value of limit  robustness value
        contrast
        1 vs 0       2.36              2.13              0.16
        """
        check_alpha(alpha)
        scales = bias_scales(self._record, self._weight_fit)
        return sensitivity_table(self._record, scales, self._record.covariance, alpha)

    def sensitivity_bounds(
        self,
        cf_y: float | Sequence[float] = STRENGTHS,
        cf_d: float | Sequence[float] = STRENGTHS,
        rho: float = 1.0,
        alpha: float = 0.05,
    ) -> pd.DataFrame:
        """Bounds of the effect if a confounder of given strength was omitted.

        Parameters
        ----------
        cf_y : float or sequence of float
            Share of the residual variance of the outcome that the confounder explains, from 0 to 1.
        cf_d : float or sequence of float
            Share of the variance of the full Riesz representer that it adds: 1 - E alpha^2 / E alpha_full^2, from 0
            to below 1; for a treatment that is linear in the covariates its partial R^2 with the treatment.
        rho : float, default 1
            Correlation of the two errors it makes, 1 the worst.
        alpha : float, default 0.05
            Significance level of the intervals.

        Returns
        -------
        DataFrame
            A row for each pair of strengths (and arm): "lower" and "upper" bound of the effect, a difference of arm
            means, and their normal limits with robust standard errors.

        Notes
        -----
        Bounds are effect -+ abs(rho) S sqrt(cf_y cf_d / (1 - cf_d)) as in theorem 2 of the reference in `sensitivity`,
        with the assumptions named there.
        """
        check_alpha(alpha)
        shares = [np.atleast_1d(np.asarray(values, dtype=float)) for values in (cf_y, cf_d)]
        for name, values, closed in (("cf_y", shares[0], True), ("cf_d", shares[1], False)):
            if not ((values >= 0) & (values <= 1 if closed else values < 1)).all():
                raise OptionError(
                    f"{name}={[float(v) for v in values]}; expected shares from 0 to {'1' if closed else 'below 1'}.\n"
                    f"Type  {name}=0.03."
                )
        if not -1 <= rho <= 1:
            raise OptionError(f"rho={rho!r}; expected a correlation between -1 and 1.\nType  rho=1.")
        scales = bias_scales(self._record, self._weight_fit)
        grid = [(float(y), float(d)) for y, d in product(*shares)]
        return bounds_table(self._record, scales, grid, float(rho), alpha)
