"""A comparison as plain data frames."""

from __future__ import annotations

import pandas as pd

from causalrisk.comparison import Comparison, effects_frame
from causalrisk.inference.intervals import check_alpha
from causalrisk.ledger import Reason
from causalrisk.report.tidy import glance_frame, tidy_comparison


class ComparisonAttributes:
    """Attributes of a comparison that other programs read."""

    _data: Comparison

    def tidy(self, conf_int: bool = True, alpha: float = 0.05) -> pd.DataFrame:
        """Return the effects as plain data, under the column names of broom and marginaleffects.

        Parameters
        ----------
        conf_int : bool, default True
            Whether to add the limits of confidence intervals.
        alpha : float, default 0.05
            Significance level of the intervals.

        Returns
        -------
        DataFrame
            One row an estimator (several arms: and effect): estimator, term, estimate, std_error (bootstrap),
            robust_std_error, statistic, p_value, conf_low, conf_high.
        """
        check_alpha(alpha)
        return tidy_comparison(effects_frame(self._data, alpha), self._data.effect_names, conf_int)

    def glance(self) -> pd.DataFrame:
        """Return one row for each estimator, with the columns of `CausalResults.glance`.

        Returns
        -------
        DataFrame
            The rows; their standard errors are those of the shared resamples.
        """
        rows = pd.concat([glance_frame(record) for record in self._data.records], ignore_index=True)
        kind = "given" if self._data.given_resamples else self._data.records[0].bootstrap
        used = (self._data.reasons == Reason.OK).sum(axis=0)
        return rows.assign(std_errors=f"bootstrap ({kind})", n_boot=len(self._data.boot), n_boot_used=used)
