"""Results of a fit: thin methods over the frozen record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from causalrisk.coefficients import Coefficients, Estimates, coefficients_of, outcome_names
from causalrisk.design import linear_constraint
from causalrisk.errors import OptionError, UnavailableError
from causalrisk.inference.bootstrap import BootstrapDistribution
from causalrisk.inference.hypotheses import constraint_matrix, t_contrast, wald_contrast
from causalrisk.inference.intervals import check_alpha, normal_interval, percentile_interval
from causalrisk.joint_attributes import JointAttributes
from causalrisk.ledger import ledger_frame
from causalrisk.linalg import Array
from causalrisk.options import INTERVALS, one_of
from causalrisk.record import FitRecord
from causalrisk.report.numbers import format_number
from causalrisk.report.render import ResultSummary
from causalrisk.report.summary import has_converged, summarize, z_and_p


class CausalResults(JointAttributes):
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
        Rows in the estimation sample.
    use_t : bool
        False: p-values and intervals are normal.
    estimand : str
        "ATE".
    seed : int or sequence of int
        Entropy that repeats the fit as `rng=`.
    """

    use_t = False
    estimand = "ATE"

    def __init__(self, model: Any, record: FitRecord, start: CausalResults | None = None) -> None:
        self.model = model
        self._record = record
        self._start = start
        self.nobs = record.design.n
        self.seed = record.seed.entropy

    # --- effects -------------------------------------------------------------------------------------------------

    @property
    def _names(self) -> list[str]:
        return [self.estimand, *(f"POM[{label}]" for label in self._record.design.labels)]

    @property
    def params(self) -> pd.Series:
        """The effect, then the potential-outcome mean of each arm."""
        return pd.Series(self._record.estimate.params.copy(), index=self._names, name="estimate")

    @property
    def effect(self) -> float:
        """The average treatment effect, in units of the outcome."""
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
        return pd.Series(z_and_p(self.params.to_numpy(), self.bse.to_numpy())[0], index=self._names, name="z")

    @property
    def pvalues(self) -> pd.Series:
        """Two-sided normal p-values of `params`; NaN where the standard error is zero."""
        return pd.Series(z_and_p(self.params.to_numpy(), self.bse.to_numpy())[1], index=self._names, name="P>|z|")

    def cov_params(self) -> pd.DataFrame:
        """Covariance matrix of `params`."""
        d = len(self._names)
        return pd.DataFrame(self._record.covariance[:d, :d].copy(), index=self._names, columns=self._names)

    def conf_int(self, alpha: float = 0.05, method: str | None = None) -> pd.DataFrame:
        """Confidence intervals of `params`.

        Parameters
        ----------
        alpha : float, default 0.05
            Significance level; 0.05 gives 95% intervals.
        method : {"normal", "percentile"}, optional
            "normal" (also None, and what the summary prints) uses the standard errors, "percentile" the quantiles of
            the bootstrap distribution.

        Returns
        -------
        DataFrame
            Columns 0 (lower) and 1 (upper).

        Raises
        ------
        OptionError
            If alpha is not between 0 and 1 or the method is not known.
        UnavailableError
            If "percentile" is asked of a fit without a bootstrap.
        """
        check_alpha(alpha)
        one_of("method", method, (None, *INTERVALS))
        if method == "percentile":
            limits = percentile_interval(self._boot.used[:, : len(self._names)], alpha)
        else:
            limits = normal_interval(self.params.to_numpy(), self.bse.to_numpy(), alpha)
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

    # --- models --------------------------------------------------------------------------------------------------

    @property
    def _outcome_names(self) -> tuple[str, ...]:
        return outcome_names(self._record)

    @property
    def outcome_params(self) -> pd.DataFrame:
        """Coefficients of the outcome models, a row a term and a column an arm.

        Those of JRE serve the effect and are not regression coefficients; `res.start.outcome_params` are.
        """
        return self._by_term(self._coefficients().outcome, "values")

    @property
    def outcome_bse(self) -> pd.DataFrame:
        """Standard errors of `outcome_params`."""
        return self._by_term(self._coefficients().outcome, "se")

    def _by_term(self, blocks: Sequence[Estimates], field: str) -> pd.DataFrame:
        labels = self._record.design.labels
        columns = {label: getattr(block, field) for label, block in zip(labels, blocks, strict=True)}
        return pd.DataFrame(columns, index=list(self._outcome_names))

    @property
    def propensity_params(self) -> pd.Series:
        """Coefficients of the propensity model."""
        return self._propensity_series("values", "estimate")

    @property
    def propensity_bse(self) -> pd.Series:
        """Standard errors of `propensity_params`."""
        return self._propensity_series("se", "std err")

    def _propensity_series(self, field: str, name: str) -> pd.Series:
        block = self._coefficients().propensity
        if block is None:
            raise self._without_propensity()
        return pd.Series(getattr(block, field), index=list(block.names), name=name)

    def _without_propensity(self) -> UnavailableError:
        return UnavailableError(
            f"{self._record.spec.name} uses no propensity score.\n"
            "Type  causalrisk.IPWRA.from_formula(...).fit()  for an estimator that does."
        )

    def _coefficients(self) -> Coefficients:
        return coefficients_of(self._record)

    @property
    def propensity_scores(self) -> pd.Series:
        """Estimated probability of the treated arm, indexed by the rows in the sample."""
        if self._record.propensity is None:
            raise self._without_propensity()
        return self._per_row(self._record.propensity.score, "propensity")

    @property
    def importance_weights(self) -> pd.Series:
        """Inverse probability of the arm each unit is in; ones where the estimator uses no propensity score."""
        fit = self._record.propensity
        return self._per_row(np.ones(self.nobs) if fit is None else fit.weights, "weight")

    def _per_row(self, values: Array, name: str) -> pd.Series:
        return pd.Series(self._record.sample.restore(values), index=self._record.design.index, name=name)

    @property
    def potential_outcomes(self) -> pd.DataFrame:
        """Predicted outcome of every row in every arm, a column an arm (not for JRE)."""
        self._check_unit_level("potential_outcomes")
        fitted = self._record.sample.restore(self._record.estimate.fitted.T.copy())
        return pd.DataFrame(fitted, index=self._record.design.index, columns=list(self._record.design.labels))

    def predict(self, data: Any, arm: Any = None) -> pd.DataFrame | pd.Series:
        """Predict the outcome of new rows in each arm (not for JRE).

        Parameters
        ----------
        data : DataFrame or array_like
            New rows with the covariates of the outcome formula, coded as in the fit.
        arm : level or label, optional
            One arm; by default all.

        Returns
        -------
        DataFrame or Series
            A column an arm, or the one arm.

        Raises
        ------
        DesignError
            If a covariate is missing or has a level that was not in the fit.
        """
        self._check_unit_level("predict(data)")
        design, theta = self._record.design, self._record.estimate.theta
        if self._record.spec.constants:
            predicted = np.repeat(theta.T, len(data), axis=0)
        else:
            predicted = design.outcome_encoder.encode(data) @ self._record.sample.outcome.coefficients(theta.T)
        index = data.index if isinstance(data, pd.DataFrame) else None
        frame = pd.DataFrame(predicted, index=index, columns=list(design.labels))
        return frame if arm is None else frame[self._arm_label(arm)]

    def _arm_label(self, arm: Any) -> str:
        design = self._record.design
        for level, label in zip(design.levels, design.labels, strict=True):
            if arm in (label, level):
                return label
        raise OptionError(
            f"arm={arm!r} is not an arm; the arms are {', '.join(map(repr, design.labels))}.\n"
            f"Type  arm={design.labels[-1]!r}."
        )

    def _check_unit_level(self, what: str) -> None:
        if self._record.joint is not None:
            raise UnavailableError(
                "JRE debiases one contrast, the average effect: its arm models are bent to serve it, and their "
                "unit-level predictions mean nothing.\n"
                f"Type  res.start.{what}  for those of the IPWRA fit it started from."
            )

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
    def _boot(self) -> BootstrapDistribution:
        if self._record.boot is None:
            raise UnavailableError('this fit has no bootstrap.\nType  model.fit(cov_type="bootstrap").')
        return self._record.boot

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
            Estimates(names, self._record.estimate.params, self.bse.to_numpy()),
            alpha=alpha,
            title=title,
            yname=yname,
            coefficients=self._coefficients() if wanted else None,
            beside=self.start._coefficients() if wanted and joint else None,
        )

    def __repr__(self) -> str:
        reference, treated = self._record.design.labels[0], self._record.design.labels[-1]
        numbers = f"{format_number(self.effect)} ({format_number(self.effect_se)})"
        return f"{self._record.spec.name}: {self.estimand} {numbers}, {treated} vs {reference}, n {self.nobs}"

    def _repr_html_(self) -> str:
        return self.summary().as_html()
