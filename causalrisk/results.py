"""Results of a fit: thin methods over the frozen record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from causalrisk.coefficients import Estimates
from causalrisk.design import linear_constraint
from causalrisk.errors import OptionError
from causalrisk.export_attributes import ExportAttributes
from causalrisk.inference.hypotheses import constraint_matrix, t_contrast, wald_contrast
from causalrisk.inference.intervals import check_alpha, normal_interval
from causalrisk.jackknife import bootstrap_interval
from causalrisk.joint_attributes import JointAttributes
from causalrisk.ledger import ledger_frame
from causalrisk.model_attributes import ModelAttributes
from causalrisk.options import INTERVALS, one_of
from causalrisk.plot_attributes import PlotAttributes
from causalrisk.record import FitRecord
from causalrisk.report.numbers import format_number
from causalrisk.report.render import ResultSummary
from causalrisk.report.summary import has_converged, summarize, z_and_p
from causalrisk.report_attributes import ReportAttributes
from causalrisk.unit_attributes import UnitAttributes


class CausalResults(
    PlotAttributes, ModelAttributes, JointAttributes, UnitAttributes, ExportAttributes, ReportAttributes
):
    """Estimated effects with their uncertainty; what `fit` returns.

    Parameters
    ----------
    model : CausalModel
        The model that was fitted.
    record : FitRecord
        Everything the fit produced.
    start : CausalResults, optional
        For JRE the IPWRA results it started from.

    Attributes
    ----------
    model : CausalModel
        The model.
    nobs : int
        Observations in the estimation sample: the sum of frequency weights, otherwise the number of rows.
    use_t : bool
        False: p-values and intervals are normal.
    estimand : str
        "ATE", "ATT", ...; with the kind of effect where it is not a difference.
    seed : int or sequence of int
        Entropy that repeats the fit as `rng=`.
    """

    use_t = False

    def __init__(self, model: Any, record: FitRecord, start: CausalResults | None = None) -> None:
        self.model = model
        self._record = record
        self._start = start
        self.nobs = record.design.nobs
        self.estimand = record.estimand
        self.seed = record.seed.entropy

    # --- effects -------------------------------------------------------------------------------------------------

    @property
    def _names(self) -> list[str]:
        return self._record.names

    @property
    def _null(self) -> np.ndarray:
        effects = len(self._record.effect_names)
        return np.r_[np.full(effects, self._record.options.scale.null), np.zeros(len(self._names) - effects)]

    @property
    def params(self) -> pd.Series:
        """The effects (one for each arm but the reference), then the potential-outcome mean of each arm."""
        return pd.Series(self._record.estimate.params.copy(), index=self._names, name="estimate")

    @property
    def effect(self) -> float:
        """The effect: the first of `params`, that of the first arm against the reference."""
        return float(self._record.estimate.params[0])

    @property
    def effect_se(self) -> float:
        """Standard error of the effect."""
        return float(self.bse.iloc[0])

    @property
    def bse(self) -> pd.Series:
        """Standard errors of `params`."""
        variances = np.diag(self._record.covariance)[: len(self._names)]
        return pd.Series(np.sqrt(variances), index=self._names, name="std err")

    @property
    def tvalues(self) -> pd.Series:
        """Statistics z of `params`; NaN where the standard error is zero."""
        return pd.Series(
            z_and_p(self.params.to_numpy(), self.bse.to_numpy(), self._null)[0], index=self._names, name="z"
        )

    @property
    def pvalues(self) -> pd.Series:
        """Two-sided normal p-values of `params`; NaN where the standard error is zero."""
        return pd.Series(
            z_and_p(self.params.to_numpy(), self.bse.to_numpy(), self._null)[1], index=self._names, name="P>|z|"
        )

    def cov_params(self) -> pd.DataFrame:
        """Covariance matrix of `params`."""
        d = len(self._names)
        return pd.DataFrame(self._record.covariance[:d, :d].copy(), index=self._names, columns=self._names)

    def conf_int(self, alpha: float = 0.05, method: str | None = None, acceleration: str = "influence") -> pd.DataFrame:
        """Confidence intervals of `params`.

        Parameters
        ----------
        alpha : float, default 0.05
            Significance level; 0.05 gives 95% intervals.
        method : {"normal", "percentile", "basic", "bc", "bca", "studentized"}, optional
            "normal" (also None, and what the summary prints) uses the standard errors, the others the bootstrap
            distribution: its quantiles, these reflected about the estimate, bias-corrected, also accelerated, or those
            of the estimates studentized by the robust standard error of each resample (slow for JRE).
        acceleration : {"influence", "jackknife"}
            For "bca": from the influence function, or by leaving out every row (cluster) in turn.

        Returns
        -------
        DataFrame
            Columns 0 (lower) and 1 (upper).

        Raises
        ------
        OptionError
            If alpha is not between 0 and 1 or the method is not known.
        UnavailableError
            If the method needs a bootstrap and the fit has none.
        """
        check_alpha(alpha)
        one_of("method", method, (None, *INTERVALS))
        one_of("acceleration", acceleration, ("influence", "jackknife"))
        estimate = self._record.estimate.params
        if method in (None, "normal"):
            limits = normal_interval(estimate, self.bse.to_numpy(), alpha)
        else:
            limits = bootstrap_interval(self._record, self._boot, str(method), alpha, acceleration)
        return pd.DataFrame(limits, index=self._names)

    def summary_frame(self, alpha: float = 0.05) -> pd.DataFrame:
        """Return the table of estimates as a DataFrame.

        Parameters
        ----------
        alpha : float, default 0.05
            Significance level of the intervals.

        Returns
        -------
        DataFrame
            Columns estimate, std err, z, P>|z| and the limits of the interval.
        """
        limits = self.conf_int(alpha)
        limits.columns = [f"[{alpha / 2:.4g}", f"{1 - alpha / 2:.4g}]"]
        return pd.concat([self.params, self.bse, self.tvalues, self.pvalues, limits], axis=1)

    def t_test(self, r_matrix: Any) -> Any:
        """Test linear combinations of `params`, one at a time.

        Parameters
        ----------
        r_matrix : str, array_like, or tuple
            As in statsmodels: a text such as "POM[1] - POM[0] = 0" (several separated by commas), a matrix R with a
            column per parameter, or a pair (R, q) for R params = q.

        Returns
        -------
        statsmodels.stats.contrast.ContrastResults
            Estimates, z tests and intervals.
        """
        left, right = constraint_matrix(r_matrix, self._names, linear_constraint)
        return t_contrast(left, right, self._record.estimate.params, self.cov_params().to_numpy())

    def wald_test(self, r_matrix: Any) -> Any:
        """Test linear combinations of `params` jointly.

        Parameters
        ----------
        r_matrix : str, array_like, or tuple
            As in `t_test`.

        Returns
        -------
        statsmodels.stats.contrast.ContrastResults
            Chi-squared test. Since the effect is a difference of the arm means, combinations may be redundant; the
            degrees of freedom count those that are not.
        """
        left, right = constraint_matrix(r_matrix, self._names, linear_constraint)
        return wald_contrast(left, right, self._record.estimate.params, self.cov_params().to_numpy())

    # --- sample and resampling -----------------------------------------------------------------------------------

    @property
    def in_sample(self) -> pd.Series:
        """Whether each row of the data is in the estimation sample, on the data's index."""
        return self._record.design.in_sample.copy()

    @property
    def sample_ledger(self) -> pd.DataFrame:
        """Why rows are not in the sample: formula, variable, rows missing it, rows dropped for it first."""
        return self._record.design.sample_ledger.copy()

    @property
    def boot_params(self) -> pd.DataFrame:
        """`params` in every resample, a row a resample; NaN where it failed."""
        values = self._boot.values[:, : len(self._names)].copy()
        return pd.DataFrame(values, columns=self._names, index=pd.RangeIndex(len(values), name="resample"))

    @property
    def boot_ledger(self) -> pd.DataFrame:
        """Whether each resample was used, and why not."""
        return ledger_frame(self._boot.reasons, "resample")

    @property
    def converged(self) -> bool:
        """Whether every optimiser converged."""
        return has_converged(self._record)

    # --- printing ------------------------------------------------------------------------------------------------

    def summary(
        self,
        alpha: float = 0.05,
        title: str | None = None,
        yname: str | None = None,
        xname: Sequence[str] | None = None,
        coefficients: bool | None = None,
    ) -> ResultSummary:
        """Regression-style summary.

        Parameters
        ----------
        alpha : float, default 0.05
            Significance level of the intervals.
        title : str, optional
            Heading.
        yname : str, optional
            Name of the outcome.
        xname : sequence of str, optional
            Names of the rows, one for each of `params`.
        coefficients : bool, optional
            Whether to print the coefficients of the two models; by default for every estimator but JRE. For JRE
            those of IPWRA stand beside.

        Returns
        -------
        ResultSummary
            A statsmodels Summary: `as_text`, `as_html`, `as_latex`, `as_csv`; printing shows the text.
        """
        check_alpha(alpha)
        names = tuple(self._names if xname is None else map(str, xname))
        if len(names) != len(self._names):
            raise OptionError(
                f"xname has {len(names)} names; expected {len(self._names)}: one for each of {', '.join(self._names)}"
                ".\n"
                f"Type  xname={self._names!r}."
            )
        joint = self._record.joint is not None
        wanted = not joint if coefficients is None else coefficients
        return summarize(
            self._record,
            Estimates(names, self._record.estimate.params, self.bse.to_numpy(), self._null),
            alpha=alpha,
            title=title,
            yname=yname,
            coefficients=self._coefficients() if wanted else None,
            beside=self.start._coefficients() if wanted and joint else None,
        )

    def __repr__(self) -> str:
        names = self._record.effect_names
        pairs = zip(names, self.params.iloc[: len(names)], self.bse, strict=False)
        effects = ", ".join(f"{name} {format_number(value)} ({format_number(se)})" for name, value, se in pairs)
        return f"{self._record.spec.name}: {effects}, {self._record.design.contrast}, n {self.nobs}"

    def _repr_html_(self) -> str:
        return self.summary().as_html()
