"""Pooling of fits to imputed data sets by Rubin's rules."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from causalrisk import errors
from causalrisk.errors import DesignError, OptionError, is_number
from causalrisk.estimation.options import InferenceOptions, ModelOptions, defaults_of, typed_options
from causalrisk.estimation.record import FitRecord
from causalrisk.inference import hypotheses, intervals
from causalrisk.inference.covariance import asks_for_factor
from causalrisk.models.results import CausalResults, OneEffect, given_results
from causalrisk.numerics.arrays import Array
from causalrisk.report import methods, sections, summary, tidy

# --- pooling ---------------------------------------------------------------------------------------------------------

TESTED = ["estimate", "std err", "df"]  # columns of `rubin` that tests and intervals use


def rubin(estimates: Array, covariances: Array, df_complete: float) -> tuple[pd.DataFrame, Array]:
    """Pool estimates (m, d) with covariances (m, d, d) by Rubin's rules. Return a table and the total covariance.

    The formulas follow Rubin (1987), with the degrees of freedom of Barnard and Rubin (1999), as in R's mice. With
    nu = (m - 1) / lambda^2 and nu_obs = (nu_com + 1) / (nu_com + 3) nu_com (1 - lambda), the degrees of freedom are
    nu nu_obs / (nu + nu_obs), or nu if nu_com (`df_complete`) is infinite.
    """
    m, within = len(estimates), covariances.mean(axis=0)
    between = np.atleast_2d(np.cov(estimates, rowvar=False))
    rounding = (1e-13 * np.abs(estimates).max(axis=0)) ** 2  # a smaller variance means equal estimates
    equal = np.diag(between) <= rounding
    between[equal] = between[:, equal] = 0.0
    total = within + (1 + 1 / m) * between
    # Without missing information, b is 0 and nu infinite; without sampling variance, u is 0. NumPy handles both.
    u, b, t = (np.diag(matrix) for matrix in (within, between, total))
    with np.errstate(divide="ignore", invalid="ignore"):
        increase, share = (1 + 1 / m) * b / u, np.where(t > 0, (1 + 1 / m) * b / t, 0.0)
        old = (m - 1) / share**2
        shrunk = (df_complete + 1) / (df_complete + 3) if np.isfinite(df_complete) else 1.0
        df = 1 / (1 / old + 1 / (shrunk * df_complete * (1 - share)))
        fmi = np.where(np.isinf(increase), 1.0, (increase + 2 / (df + 3)) / (increase + 1))
    numbers = {"within": u, "between": b, "total": t, "riv": increase, "lambda": share, "df": df, "fmi": fmi}
    return pd.DataFrame({"estimate": estimates.mean(axis=0), **numbers, "std err": np.sqrt(t)}), total


def _reported(like: intervals.Estimates, pooled: pd.DataFrame) -> intervals.Estimates:
    """Transform estimates pooled on the additive scale to the reporting scale of the estimates `like`."""
    values, se, df = pooled[TESTED].to_numpy().T
    reported, of_reported = like.report(values), se * np.abs(like.slopes(values))
    return dataclasses.replace(like, values=reported, se=of_reported, errors=se, df=df)


def _frame(estimates: intervals.Estimates, index: Any, alpha: float) -> pd.DataFrame:
    frame = estimates.frame(index, alpha)
    frame.columns = ["estimate", "std err", "t", "P>|t|", *frame.columns[-2:]]
    frame.insert(3, "df", estimates.df)
    return tidy.Frame(frame)


def _column(name: str, doc: str) -> property:
    return property(lambda pooled: pd.Series(pooled.summary_frame()[name]), doc=doc)


class PooledResults(OneEffect, sections.HasReport):
    """Effects pooled over imputations, returned by `pool`.

    Parameters
    ----------
    results : list of CausalResults
        The fits.
    df_complete : float
        Degrees of freedom of the complete data.

    Attributes
    ----------
    results : list of CausalResults
        The fits.
    n_imputations : int
        Number of fits, m.
    df_complete : float
        Degrees of freedom of the complete data.
    nobs : int
        Number of observations of each fit.
    estimand : str
        "ATE", "ATT", ...
    params, bse : Series
        The effects, then the potential-outcome mean of each treatment group; and their standard errors.
    tvalues, pvalues : Series
        t statistics of `params` and two-sided p-values from the t distribution. Ratios are tested on the log scale.
    df : Series
        Degrees of freedom of Barnard and Rubin.
    fmi : Series
        Fraction of missing information.
    use_t : bool
        Always True: p-values and intervals use the t distribution.
    """

    use_t, _place, _fits = True, ("pooled", "res"), ("[res.{} for res in pooled.results]",)

    def __init__(self, results: list[CausalResults], df_complete: float) -> None:
        self.results, self.n_imputations, self.df_complete = results, len(results), df_complete
        self.nobs, self.estimand, self.model = results[0].nobs, results[0].estimand, results[0].model
        self._records = [res._record for res in results]
        self._record = self._records[0]
        scaled, covariances = zip(*map(intervals.on_scale, self._records), strict=True)
        pooled, total = rubin(np.array(scaled), np.array(covariances), df_complete)
        self._pooled = pooled.set_axis(self._record.names)
        first = intervals.parameters(self._record)
        slopes = first.slopes(pooled["estimate"])
        self._covariance, self._estimates = total * np.outer(slopes, slopes), _reported(first, pooled)

    params = _column("estimate", "The effects, then the potential-outcome mean of each group.")
    bse = _column("std err", "Standard errors of `params`.")
    tvalues = _column("t", "t statistics of `params`; ratios are tested on the logarithmic scale.")
    pvalues = _column("P>|t|", "Two-sided p-values of `params`, from the t distribution.")
    df = _column("df", "Degrees of freedom of Barnard and Rubin.")
    fmi = property(lambda pooled: pooled._pooled["fmi"].copy(), doc="Fraction of missing information.")

    def cov_params(self) -> pd.DataFrame:
        """Return the covariance matrix of `params`."""
        return pd.DataFrame(self._covariance, index=self._record.names, columns=self._record.names)

    def conf_int(self, alpha: float = 0.05) -> pd.DataFrame:
        """Return confidence intervals from the t distribution.

        Parameters
        ----------
        alpha : float, default 0.05
            Significance level.

        Returns
        -------
        DataFrame
            Columns 0 and 1, one row per parameter. Intervals of ratios are transformed from the logarithmic scale.
        """
        return self.summary_frame(alpha).iloc[:, -2:].set_axis([0, 1], axis=1)

    def summary_frame(self, alpha: float = 0.05) -> pd.DataFrame:
        """Return the table of estimates as a DataFrame.

        Parameters
        ----------
        alpha : float, default 0.05
            Significance level of the intervals.

        Returns
        -------
        DataFrame
            Columns estimate, std err, t, df, P>|t| and the limits of the interval.
        """
        return _frame(self._estimates, self._record.names, alpha)

    @property
    def missing_information(self) -> pd.DataFrame:
        """How much missing data add to the variance, one row per parameter.

        Columns: "within" and "between", the variances within and between imputations; "total"; "riv", the relative
        increase of the variance; "lambda", the share of the total due to missing data; "df"; and "fmi", the fraction of
        missing information. Variances of ratios are on the logarithmic scale.
        """
        return self._pooled.drop(columns=["estimate", "std err"])

    summary = summary.summarize_pooled
    methods = methods.pooled_methods
    _report_parts = sections.pooled_parts

    def nlcom(self, expression: str) -> Any:
        """Pool nonlinear functions of `params` by Rubin's rules.

        Parameters
        ----------
        expression : str
            As in `CausalResults.nlcom`.

        Returns
        -------
        statsmodels.stats.contrast.ContrastResults
            Estimates, t tests and intervals. `df_denom` has the degrees of freedom of Barnard and Rubin.
        """
        found = [hypotheses.nlcom(record, expression) for record in self._records]
        wanted = hypotheses.Expressions(expression, self._record.names)
        variances = np.array([np.diag(test.sd**2) for test in found])
        pooled, _ = rubin(np.array([test.effect for test in found]), variances, self.df_complete)
        values, se, df = pooled[TESTED].to_numpy().T
        return hypotheses.single_tests(values, wanted.null, se, df, wanted.texts)

    def equivalence_test(
        self, low: float | None = None, high: float | None = None, alpha: float = 0.05
    ) -> pd.DataFrame:
        """Test that the pooled effects lie between two limits, or beyond one limit.

        Parameters
        ----------
        low, high : float, optional
            As in `CausalResults.equivalence_test`.
        alpha : float, default 0.05
            Significance level of each of the two one-sided tests.

        Returns
        -------
        DataFrame
            One row per effect, with the columns of `CausalResults.equivalence_test`. The tests use the degrees of
            freedom of Barnard and Rubin.
        """
        every = hypotheses.equivalence_table(self._record.names, self._estimates, low, high, alpha)
        return every.iloc[: len(self._record.effect_names)]

    def effects_by(self, by: Any, data: Any = None, alpha: float = 0.05) -> pd.DataFrame:
        """Pool the effects in groups, or along covariates, by Rubin's rules.

        Parameters
        ----------
        by : str, array_like or list of them
            As in `CausalResults.effects_by`.
        data : DataFrame, mapping, or list of them, optional
            As in `CausalResults.effects_by`. A list has one data set per fit, such as the result of `impute`.
        alpha : float, default 0.05
            Significance level of the intervals.

        Returns
        -------
        DataFrame
            One row per group (and per effect, with several treatments), with the columns of `summary_frame`.

        Raises
        ------
        DesignError
            If the groups differ between the imputed data sets.
        OptionError
            If the number of data sets in a list differs from the number of fits.
        """
        every = data if isinstance(data, list) else [data] * self.n_imputations
        if len(every) != self.n_imputations:
            raise OptionError(f"data has {len(every)} data sets; expected {self.n_imputations}.\nUse one per fit.")
        tables = [res.effects_by(by, one, alpha) for res, one in zip(self.results, every, strict=True)]
        if not all(table.index.equals(tables[0].index) for table in tables):
            raise DesignError("the groups differ between the imputed data sets.\nUse groups that occur in all of them.")
        scale = self._record.options.effect_scale
        values = scale.contrast(np.array([table["estimate"] for table in tables]))
        se = np.array([table["std err"] for table in tables]) / scale.report_slope(values)
        pooled, _ = rubin(values, np.array([np.diag(each**2) for each in se]), self.df_complete)
        return _frame(_reported(dataclasses.replace(self._estimates, effects=True), pooled), tables[0].index, alpha)

    def tidy(self, conf_int: bool = True, alpha: float = 0.05) -> pd.DataFrame:
        """Return the estimates as plain data, under the column names of broom and marginaleffects.

        Parameters
        ----------
        conf_int : bool, default True
            Whether to add the limits of confidence intervals.
        alpha : float, default 0.05
            Significance level of the intervals.

        Returns
        -------
        DataFrame
            One row per parameter: term, estimate, std_error, statistic (t), p_value, conf_low, conf_high, df, fmi.
        """
        frame = tidy.tidy_frame(self.summary_frame(alpha).drop(columns="df"), conf_int)
        return frame.assign(df=self.df.to_numpy(), fmi=self.fmi.to_numpy())

    def glance(self) -> pd.DataFrame:
        """Return one row that describes the fits, as `CausalResults.glance`, plus the number of "imputations".

        "df" has the degrees of freedom of the first effect.
        """
        return tidy.glance(self._record).assign(df=self.df.iloc[0], imputations=self.n_imputations)

    def __repr__(self) -> str:
        return summary.one_line(self._record, (self.params, self.bse), self.n_imputations)


@errors.with_other_names
def pool(results: Iterable[CausalResults], *more: Any, df_complete: float | None = None) -> PooledResults:
    """Pool the fits to several imputed data sets by Rubin's rules.

    Parameters
    ----------
    results : iterable of CausalResults
        Fits of one model to data sets that differ only in the imputed values.
    *more : CausalResults
        Further fits: ``pool(first, second)`` is the same as ``pool([first, second])``.
    df_complete : float, optional
        Degrees of freedom of the complete data (mice's ``dfcom``). By default `df_resid` of the first fit: the number
        of clusters minus one, or the number of observations minus the number of outcome coefficients. ``numpy.inf``
        gives Rubin's original degrees of freedom.

    Returns
    -------
    PooledResults
        Pooled results with `params`, `bse`, `conf_int()`, `df`, `fmi`, `summary()` and more, as for a single fit.

    Raises
    ------
    DesignError
        If the fits differ in options, formulas, terms, weights, clusters, offset, target frame or number of
        observations.
    OptionError
        If there are fewer than two fits, `df_complete` is not positive, or `results` contains anything but fits.

    Notes
    -----
    Let Q_i be the estimates and U_i their variances in m data sets. The pooled estimate is the mean of Q_i. Its
    variance is T = mean(U_i) + (1 + 1/m) var(Q_i). Tests and intervals use the t distribution with the degrees of
    freedom of Barnard and Rubin [2]_. Ratios, odds ratios and percentages are pooled on the logarithmic scale and
    transformed back. The imputation model must include the treatment and the outcome.

    References
    ----------
    .. [1] Rubin, D. B. (1987). Multiple Imputation for Nonresponse in Surveys. Wiley.
    .. [2] Barnard, J. and Rubin, D. B. (1999). Small-sample degrees of freedom with multiple imputation. Biometrika
       86, 948-955.

    Examples
    --------
    >>> import numpy as np
    >>> from causalrisk import IPWRA, datasets, pool
    >>> births = datasets.load_cattaneo2()
    >>> rng = np.random.default_rng(0)
    >>> gone = rng.random(len(births)) < 0.2  # rows whose age is imputed
    >>> fits = []
    >>> for _ in range(5):
    ...     births.loc[gone, "mage"] = rng.choice(births.mage[~gone], gone.sum())
    ...     fits.append(
    ...         IPWRA.from_formula(
    ...             "bweight ~ mage + medu", births, treat="mbsmoke"
    ...         ).fit()
    ...     )
    >>> pooled = pool(fits)
    >>> pooled
    IPWRA, 5 imputations: ATE -256.76 (24.29), 1 vs 0, n 4642
    >>> bool(0 < pooled.fmi["ATE"] < 0.1)
    True
    """
    given = given_results([results, *more] if more else results, "pool([model.fit() for model in models])")
    if len(given) < 2:
        raise OptionError(f"pool() got {len(given)} results; expected at least two, one per imputed data set.\n"
                          "Use `pool([model.fit() for model in models])`.")  # fmt: skip
    _check_alike([res._record for res in given])
    if df_complete is None:
        df_complete = given[0].df_resid
    if not is_number(df_complete) or not df_complete > 0:
        raise OptionError(f"df_complete={df_complete!r}; expected a positive number.\nUse `df_complete=numpy.inf`.")
    if all(np.array_equal(res.params, given[0].params) for res in given):
        found = "all fits have the same estimates, so the variance between the imputed data sets is zero"
        advice = "Use fits to data sets that were imputed independently."
        errors.warn_user(f"{found}.\n{advice}", errors.DesignWarning)
    return PooledResults(given, float(df_complete))


# options of the data, which are compared as typed, and options that are not compared
OF_DATA = ("weights", "weight_type", "cluster", "offset", "exposure", "at_exposure", "observed", "outcome_predictions",
           "propensity_score", "design", "subpop")  # fmt: skip
NOT_COMPARED = ("family", "link", "at_exposure", "repeat", "read_as", "typed")


def _check_alike(records: list[FitRecord]) -> None:
    first, *others = map(_model_of, records)
    for other in others:
        # the estimator first, then options
        for name in sorted({**first, **other}, key=lambda name: (name != "estimator ", name[-1] != "=")):
            if first.get(name) != other.get(name):
                a, b = (f"{name}{made[name]}" if name in made else f"no {name}" for made in (first, other))
                found = f"the results are from different models: one has {a:.120}, another has {b:.120}"
                advice = "Fit the same model to each data set."
                if name.startswith("observations"):
                    advice = "Impute every variable, or leave the same rows out of all data sets."
                raise DesignError(f"{found}.\n{advice}")


def _model_of(record: FitRecord) -> dict[str, object]:
    """Describe the model of a fit: names, terms, kind of standard errors and options.

    Resamples may differ. Family and link have many spellings, and are compared by their labels.
    """
    design, joint, family, target = record.design, record.joint, record.sample.family, record.options.target
    given = {name: value for name, value in vars(record.options).items() if name not in NOT_COMPARED} | {
        "cov_type": "robust" if record.cov_type == "HC1" else record.cov_type,
        "use_t": bool(np.isfinite(record.df)),
        "df": record.inference.df,
    }
    defaults = defaults_of(ModelOptions, InferenceOptions) | {"cov_type": "robust", "use_t": False}
    if joint is not None:
        own = {"n_replicates": joint.options.n_drawn, "spread": joint.options.replicate_spread}
        given |= vars(joint.options) | own | {"replicates": joint.drawn}
    texts = {name: text for name, text in record.options.typed.items() if name in OF_DATA}
    texts |= typed_options(given, defaults)
    return {
        "estimator ": record.spec.name,
        "outcome ": design.endog_name,
        "formula ": design.formula,
        "treatment ": f"{design.treat_name}: {', '.join(design.labels)}",
        **{f"{name}=": text for name, text in texts.items()},
        "propensity formula ": design.propensity_formula,
        "function of target= ": getattr(target, "__qualname__", None),
        "rows of target= ": None if record.frame is None else tuple(record.frame.index),
        "outcome model ": family.label,
        "alpha of family= ": family.alpha,
        "terms of the outcome models ": design.exog_names,
        "terms of the propensity model ": design.propensity_names,
        "observations ": design.nobs,
        # JRE may have chosen the factor for some data sets
        **({"small-sample factor": ' (cov_type="HC1" or small_sample=True)'} if asks_for_factor(record) else {}),
    }
