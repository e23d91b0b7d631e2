"""Results for other programs: tidy data frames, statsmodels' `summary_col`, and the protocol of maketables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from causalrisk.inference.intervals import check_alpha
from causalrisk.record import FitRecord
from causalrisk.report.explain import explain_fit
from causalrisk.report.prose import Prose
from causalrisk.report.tidy import (
    STATISTICS,
    glance_frame,
    table_maker_coefficients,
    table_maker_statistic,
    tidy_frame,
)


class ExportAttributes:
    """Attributes that other programs read."""

    _record: FitRecord
    params: pd.Series
    bse: pd.Series
    tvalues: pd.Series
    pvalues: pd.Series
    conf_int: Callable[..., pd.DataFrame]

    def _estimates(self) -> list[np.ndarray]:
        return [series.to_numpy() for series in (self.params, self.bse, self.tvalues, self.pvalues)]

    def tidy(self, conf_int: bool = True, alpha: float = 0.05, method: str | None = None) -> pd.DataFrame:
        """Return the estimates as plain data, under the column names of broom and marginaleffects.

        Parameters
        ----------
        conf_int : bool, default True
            Whether to add the limits of confidence intervals.
        alpha : float, default 0.05
            Significance level of the intervals; 0.05 gives 95% intervals.
        method : str, optional
            Kind of interval, as in `conf_int`.

        Returns
        -------
        DataFrame
            One row a parameter, the effect first: term, estimate, std_error, statistic (z), p_value (two-sided,
            normal), conf_low, conf_high.

        Examples
        --------
        >>> import causalrisk as cr
        >>> births = cr.datasets.load_cattaneo2()
        >>> res = cr.IPWRA.from_formula("bweight ~ mage", births, treat="mbsmoke").fit()
        >>> res.tidy().columns.tolist()
        ['term', 'estimate', 'std_error', 'statistic', 'p_value', 'conf_low', 'conf_high']
        """
        limits = self.conf_int(alpha, method).to_numpy() if conf_int else None
        return tidy_frame(list(self.params.index), self._estimates(), limits)

    def glance(self) -> pd.DataFrame:
        """Return one row that describes the fit: rows, estimator, estimand, models, standard errors, seed.

        Returns
        -------
        DataFrame
            One row with the same columns for every estimator, so that rows of several can be stacked; what does not
            apply is missing. There is no R2: an average effect has none.
        """
        return glance_frame(self._record)

    def explain(self, alpha: float = 0.05) -> Prose:
        """Explain in plain words how the estimate came about, with the numbers of this fit.

        Parameters
        ----------
        alpha : float, default 0.05
            Significance level of the interval.

        Returns
        -------
        Prose
            Prints as text; `as_html()` gives HTML. The steps from the formula to the standard error, what to do when
            JRE and IPWRA disagree, and the question no test answers.
        """
        check_alpha(alpha)
        return explain_fit(self._record, alpha)

    @property
    def cov_type(self) -> str:
        """Kind of standard errors, as `fit` takes it."""
        return self._record.cov_type

    @property
    def default_model_infos(self) -> dict[str, Callable[[Any], str]]:
        """What statsmodels' `summary_col` prints below the column."""
        return {
            "N": lambda res: f"{res.nobs}",
            "Estimator": lambda res: table_maker_statistic(res._record, "estimator"),
            "Std. errors": lambda res: table_maker_statistic(res._record, "se_type"),
        }

    @property
    def __maketables_coef_table__(self) -> pd.DataFrame:
        return table_maker_coefficients(list(self.params.index), self._estimates(), self.conf_int().to_numpy())

    def __maketables_stat__(self, key: str) -> Any:
        return table_maker_statistic(self._record, key)

    @property
    def __maketables_depvar__(self) -> str:
        return self._record.design.endog_name

    @property
    def __maketables_vcov_info__(self) -> dict[str, Any]:
        clustered = self._record.design.cluster_name
        return {"vcov_type": table_maker_statistic(self._record, "se_type"), "clustervar": clustered}

    @property
    def __maketables_stat_labels__(self) -> dict[str, str]:
        return dict(STATISTICS)

    @property
    def __maketables_default_stat_keys__(self) -> list[str]:
        return list(STATISTICS)
