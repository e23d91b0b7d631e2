"""Instruments: the local average treatment effect, the ratio of the instrument's effects on outcome and treatment."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from operator import attrgetter
from typing import Any

import numpy as np
import pandas as pd

from causalrisk import errors
from causalrisk.design.covariates import covariates_of_design
from causalrisk.design.formulas import callers_variables
from causalrisk.design.tables import as_pandas
from causalrisk.estimation.options import model_options, typed_options
from causalrisk.estimation.record import influence_covariance
from causalrisk.inference import covariance, intervals
from causalrisk.models.estimators import model_named
from causalrisk.models.model import FIT_OPTIONS, OPTIONS, CausalModel, check_in_memory, design_of
from causalrisk.models.results import CausalResults, OneEffect
from causalrisk.numerics.resampling import seed_sequence
from causalrisk.report import labels, methods, sections, summary, tidy
from causalrisk.report.table import ResultSummary

WEAK = 10.0  # first-stage F below which normal intervals may have poor coverage (Staiger and Stock 1997)
CONSTANT = "does not vary within a group"  # a warning expected if only assigned units can take the treatment
LARGE = 1e6  # larger F are not printed as a number
METHODS = ("AIPW", "IPWRA", "IPW", "OutcomeRegression")
NOT_HERE = (
    "effect", "quantiles", "did", "observed", "target", "trim", "family", "link", "exposure", "offset", "treated",
    "reference", "levels", "n_repeats",
)  # fmt: skip


def _check_column(frame: Any, role: str, name: Any) -> None:
    if not isinstance(name, str) or name not in frame:
        known = errors.listed(list(frame))
        problem = f"LATE needs {role}=" if name == "" else f"{role}={name!r} is not a column of the data"
        raise errors.DesignError(f"{problem}.\nUse `{role}=` with one of {known}.")
    found = sorted(pd.unique(frame[name].dropna()).tolist(), key=str)
    if not set(found) <= {0, 1}:
        if len(found) != 2:
            text = f"{role}={name!r} has {len(found)} values, such as {errors.listed(found[:3])}; expected 0 and 1"
            raise errors.DesignError(f"{text}.\nUse a column with two values.")
        text, (low, high) = f"{role}={name!r} has the values {found}; expected 0 and 1.", found
        use = f'data["{name}"] = data["{name}"].map({{{low!r}: 0, {high!r}: 1}})'
        raise errors.DesignError(f"{text}\nUse `{use}` if {high!r} counts as 1.")


def _read(options: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Read options, as `errors.read`. An option that LATE does not have raises an error."""
    given, read_as = errors.read("model", options, OPTIONS)
    for name in NOT_HERE:
        if name in given:
            raise errors.OptionError(f"{name}= is not available for LATE.\nLeave {name}= out.")
    return given, read_as


class LATE:
    """The local average treatment effect of a 0/1 treatment, with a 0/1 instrument.

    The LATE is the effect of the instrument on the outcome divided by the effect of the instrument on the treatment.
    Both effects use the same estimator and the same propensity score of the instrument [1]_ [2]_. The LATE is the
    average effect on the compliers, the units whose treatment changes with the instrument. This needs three
    assumptions: the instrument is as good as randomly assigned given the covariates; it affects the outcome only
    through the treatment; and it changes the treatment in one direction only (monotonicity).

    Parameters
    ----------
    outcome, first_stage : CausalModel
        Models of the two effects of the instrument, on the outcome and on the treatment. Both have the same rows.
    treat, instrument : str
        Names of the treatment column and the instrument column.

    References
    ----------
    .. [1] Imbens, G. W. and Angrist, J. D. (1994). Identification and estimation of local average treatment effects.
       Econometrica 62, 467-475.
    .. [2] Tan, Z. (2006). Regression and weighting methods for causal inference using instrumental variables. Journal
       of the American Statistical Association 101, 1607-1618.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from causalrisk import LATE
    >>> rng = np.random.default_rng(0)
    >>> z, complier = rng.integers(0, 2, 500), rng.random(500) < 0.6
    >>> data = pd.DataFrame({"z": z, "d": z * complier, "x": rng.normal(size=500)})
    >>> data["y"] = 2 * data["d"] + data["x"] + complier + rng.normal(size=500)
    >>> LATE.from_formula("y ~ x", data, treat="d", instrument="z").fit()
    LATE by AIPW: 2.187 (0.1863), first-stage F 345.1, n 500
    """

    def __init__(self, outcome: Any = None, first_stage: Any = None, treat: Any = None, instrument: Any = None) -> None:
        if not isinstance(outcome, CausalModel):
            use = 'Use `LATE.from_formula("y ~ x", data, treat="d", instrument="z")`.'
            raise errors.OptionError(f"LATE() takes two models.\n{use}")
        self.outcome, self.first_stage, self.treat, self.instrument = outcome, first_stage, treat, instrument

    @classmethod
    @errors.with_other_names
    def from_formula(
        cls,
        formula: str,
        data: Any,
        treat: str = "",
        instrument: str = "",
        *,
        propensity: str | None = None,
        method: str = "AIPW",
        outcome_predictions: Any = None,
        treatment_predictions: Any = None,
        **options: Any,
    ) -> LATE:
        """Make the model.

        Parameters
        ----------
        formula : str
            Outcome and covariates, ``"y ~ x1 + x2"``.
        data : DataFrame
            One row per unit.
        treat, instrument : str
            Columns of 0 and 1.
        propensity : str, optional
            Covariates of the propensity score of the instrument. By default the covariates of the formula. Use ``"1"``
            for a randomly assigned instrument.
        method : {"AIPW", "IPWRA", "IPW", "OutcomeRegression"}
            Estimator of both effects; by default "AIPW".
        outcome_predictions, treatment_predictions : list of str or array_like, or matrix, optional
            Predictions of the outcome and of the treatment at both values of the instrument, such as ``["g0", "g1"]``
            and ``["r0", "r1"]``. They replace the outcome models, as in `AIPW`.
        **options
            Options of `AIPW.from_formula` for both effects, such as `cluster`, `weights` and `propensity_link`.

        Returns
        -------
        LATE
            The model.

        Raises
        ------
        DesignError
            If the treatment or the instrument is not a column of 0 and 1.
        OptionError
            If an option is not available for LATE.
        """
        if instrument and instrument == treat:
            raise errors.DesignError(f"{treat!r} is both the treatment and the instrument.\nUse another `instrument=`.")
        check_in_memory("LATE", data)
        model = model_named(method, METHODS)
        if (outcome_predictions is None) != (treatment_predictions is None):
            use = 'Use `outcome_predictions=["g0", "g1"], treatment_predictions=["r0", "r1"]`.'
            raise errors.OptionError(f"LATE needs predictions of both the outcome and the treatment.\n{use}")
        frame, scope = as_pandas(data), callers_variables(2)
        for role, name in (("treat", treat), ("instrument", instrument)):
            _check_column(frame, role, name)
        given, read_as = _read(options | {"treat": treat, "propensity": propensity})
        without = frame[treat].isna()
        if given.get("missing") == "raise" and without.any():
            advice = 'Leave `missing="raise"` out.'
            raise errors.DesignError(f"treat={treat!r} is missing in {int(without.sum())} rows.\n{advice}")
        typed = options | {"treat": treat, "instrument": instrument, "propensity": propensity, "method": method}
        typed |= {"outcome_predictions": outcome_predictions, "treatment_predictions": treatment_predictions}
        typed = {"formula": repr(formula)} | typed_options(typed, OPTIONS)

        def made(formula: str, rows: Any, predictions: Any) -> CausalModel:
            table = frame.assign(**{instrument: frame[instrument].where(rows)})
            own = {"treat": instrument, "outcome_predictions": predictions, "read_as": read_as, "typed": typed}
            design = design_of(formula, table, given | own, scope, [model.spec])
            return model._checked(design, model_options(design, given | own))

        try:
            outcome = made(formula, ~without, outcome_predictions)
        except errors.DesignError as error:
            raise type(error)(str(error).replace(f"treatment {instrument!r}", f"instrument {instrument!r}")) from None
        if treat in outcome.design.outcome_encoder.variables:
            raise errors.DesignError(f"the treatment {treat!r} is in the formula.\nUse `treat={treat!r}` alone.")
        left = treat if treat.isidentifier() else f"Q({treat!r})"
        with warnings.catch_warnings(action="ignore", category=errors.CausalRiskWarning):  # given for the outcome
            rows = outcome.design.in_sample.to_numpy()
            first_stage = made(f"{left} ~ {formula.partition('~')[2]}", rows, treatment_predictions)
        return cls(outcome, first_stage, treat, instrument)

    def with_options(self, **changes: Any) -> LATE:
        """Return a LATE model of the same data with other options, as `CausalModel.with_options`."""
        _read(changes)
        outcome, first_stage = self.outcome.with_options(**changes), self.first_stage.with_options(**changes)
        return LATE(outcome, first_stage, self.treat, self.instrument)

    def fit(self, **options: Any) -> LATEResults:
        """Estimate the effect.

        Parameters
        ----------
        **options
            Options of `AIPW.fit`: `cov_type`, `n_boot`, `bootstrap`, `rng` and others.

        Returns
        -------
        LATEResults
            The effect, the first stage, and the interval of Anderson and Rubin.

        Raises
        ------
        CausalRiskError
            If the instrument has no effect on the treatment.
        """
        options = errors.read("fit", options, FIT_OPTIONS)[0]
        options |= {"rng": seed_sequence(options.get("rng", 0))}  # the same resamples for both
        outcome = self.outcome.fit(**options)
        with warnings.catch_warnings(action="ignore", category=errors.CausalRiskWarning):
            found = LATEResults(self, outcome, self.first_stage.fit(**options))
        if found._weak:
            weak = f"the instrument is weak: its first-stage F is {found.first_stage_f:.1f}, less than {WEAK:g}"
            advice = 'Normal intervals can be far too short.\nUse `res.conf_int(method="anderson-rubin")`.'
            found._notes.warn(f"{weak}. {advice}", errors.DesignWarning)
        return found

    def __repr__(self) -> str:
        design = self.outcome.design
        return f"LATE: {design.formula}, {self.treat} by {self.instrument}, n {design.nobs}"


class LATEResults(OneEffect, sections.HasReport):
    """The local average treatment effect with standard errors and tests, returned by `LATE.fit`.

    Attributes
    ----------
    outcome, first_stage : CausalResults
        The two fits: the effect of the instrument on the outcome (the reduced form), and on the treatment.
    params, bse, tvalues, pvalues : Series
        The effect (named "LATE"), its standard error, its z (or t) statistic and its two-sided p-value.
    first_stage_f : float
        First-stage F statistic: the squared ratio of the first-stage effect to its standard error.
    complier_share : float
        Estimated share of compliers: the absolute value of the instrument's effect on the treatment.
    nobs : int
        Observations.
    estimand : str
        "LATE".
    """

    estimand, _place, _fits = "LATE", ("late", "res"), ("res.outcome.{}", "res.first_stage.{}")
    cov_type = property(attrgetter("outcome.cov_type"), doc="Kind of standard errors, as in `fit`.")
    _record = property(attrgetter("outcome._record"))

    def __init__(self, model: LATE, outcome: CausalResults, first_stage: CausalResults) -> None:
        self.model, self.outcome, self.first_stage, self.nobs = model, outcome, first_stage, outcome.nobs
        self._effects, records = np.array([outcome.effect, first_stage.effect]), (outcome._record, first_stage._record)
        if self._effects[1] == 0:
            none = f"the instrument {model.instrument!r} has no effect on {model.treat!r}, so there are no compliers"
            raise errors.CausalRiskError(f"{none}.\nUse another instrument.")
        record, late = records[0], self._effects[0] / self._effects[1]
        estimates, slopes = np.append(self._effects, late), np.c_[np.eye(2), np.array([1, -late]) / self._effects[1]]
        refits = [refits.values[:, 0] for of in records if (refits := intervals.refits_of(of)) is not None]
        if refits:
            draws = np.stack(refits, axis=1)
            draws = np.where(np.isfinite(draws).all(axis=1, keepdims=True), draws, np.nan)
            if record.multiplied:  # linearised, like the multiplied influence functions
                draws = estimates + (draws - self._effects) @ slopes
            else:
                draws = np.column_stack([draws, draws[:, 0] / draws[:, 1]])
            self._covariance = covariance.resample_covariance(record, draws, estimates)
        else:
            influence = np.stack([of.estimate.influence[:, 0] for of in records], axis=1)
            self._covariance = influence_covariance(record, influence @ slopes)
        known = {*record.notes, *first_stage.model.design.notes}  # the data are the same
        self._notes = errors.Notes(
            [*record.notes, *(note for note in first_stage._record.notes if note not in known and CONSTANT not in note)]
        )
        self.first_stage_f = float(self._effects[1] ** 2 / self._covariance[1, 1])
        self._weak = self.first_stage_f < WEAK
        weighted = "population" if record.design.weight_type == "probability" else "sample"
        self._whose = "subpopulation" if record.design.n_outside else weighted  # denominator of the complier share
        self._shown_f = f"above {LARGE:.0f}" if self.first_stage_f >= LARGE else f"{self.first_stage_f:.1f}"
        self.complier_share = float(abs(self._effects[1]))
        se = intervals.rounded_se(estimates[::-1], np.sqrt(np.diag(self._covariance))[::-1])
        self._estimates = intervals.Estimates(estimates[::-1], se, se, df=record.df)
        frame = self.summary_frame()
        self.params, self.bse, self.tvalues, self.pvalues = (frame.iloc[:1, k] for k in range(4))

    def cov_params(self) -> pd.DataFrame:
        """Return the variance of the effect as a matrix."""
        return pd.DataFrame(self._covariance[2:, 2:], self.params.index, self.params.index)

    def summary_frame(self, alpha: float = 0.05) -> pd.DataFrame:
        """Return the effect, the first stage, and the effect of the instrument on the outcome, as a table.

        Parameters
        ----------
        alpha : float, default 0.05
            Significance level of the intervals.

        Returns
        -------
        DataFrame
            Estimate, standard error, z (or t), p-value and limits.
        """
        of_instrument = f"effect of {self.model.instrument} on"
        names = ["LATE", f"{of_instrument} {self.model.treat}", f"{of_instrument} the outcome"]
        return self._estimates.frame(names, alpha)

    def conf_int(self, alpha: float = 0.05, method: str = "normal") -> pd.DataFrame:
        """Return a confidence interval of the effect.

        Parameters
        ----------
        alpha : float, default 0.05
            Significance level.
        method : {"normal", "anderson-rubin"}
            "normal" (default): the estimate plus and minus a critical value times the standard error.
            "anderson-rubin": valid even if the instrument is weak [1]_. With outcome y and treatment d, it contains
            each value t for which the instrument has no significant effect on y - t d. It may be the whole real line,
            or two half-lines (two rows).

        Returns
        -------
        DataFrame
            Columns 0 and 1, the limits.

        References
        ----------
        .. [1] Anderson, T. W. and Rubin, H. (1949). Estimation of the parameters of a single equation in a complete
           system of stochastic equations. Annals of Mathematical Statistics 20, 46-63.
        """
        if errors.one_of("method", method, ("normal", "anderson-rubin")) == "normal":
            return self.summary_frame(alpha).iloc[:1, -2:].set_axis([0, 1], axis=1)
        errors.check_alpha(alpha)
        (y, d), V, z2 = self._effects, self._covariance, float(intervals.critical_value(alpha, self._record.df)) ** 2
        # a t^2 - 2 b t + c <= 0
        a, b, c = d * d - z2 * V[1, 1], y * d - z2 * V[0, 1], y * y - z2 * V[0, 0]
        if b * b < a * c:
            limits = np.array([[-np.inf, np.inf]])
        else:
            low, high = sorted((b + sign * np.sqrt(b * b - a * c)) / a for sign in (-1, 1))
            limits = np.array([[-np.inf, low], [high, np.inf]] if a <= 0 else [[low, high]])
        return pd.DataFrame(limits, index=["LATE"] * len(limits))

    def _ends(self, alpha: float = 0.05) -> str:
        limits = self.conf_int(alpha, "anderson-rubin").to_numpy().tolist()
        return " and ".join(f"{low:.4g} to {high:.4g}" for low, high in limits)

    def compliers(self) -> pd.DataFrame:
        """Describe the compliers: means of the covariates among all units and among compliers.

        Returns
        -------
        DataFrame
            One row per covariate: the means "all" and "compliers", and "std difference", the difference of the two
            means in standard deviations. The mean among compliers is the instrument's effect on the product of
            treatment and covariate, divided by its effect on the treatment (Abadie 2003).
        """
        first, rows = self.model.first_stage, {}
        design, options = first.design, first.options
        weights = design.weights / design.weights.sum()
        for covariate in covariates_of_design(design, np.ones(design.n, dtype=bool)):
            x = np.asarray(covariate.values, dtype=float)
            with warnings.catch_warnings(action="ignore", category=errors.CausalRiskWarning):
                predicted = None if design.predictions is None else design.predictions * x[:, None]
                times_x = replace(design, y=design.y * x, predictions=predicted)
                moved = type(first)._of(times_x, options).fit(cov_type=None)
            among, mean = moved.effect / self._effects[1], float(weights @ x)
            apart = (among - mean) / np.sqrt(weights @ (x - mean) ** 2)
            rows[covariate.name] = {"all": mean, "compliers": among, "std difference": apart}
        return pd.DataFrame.from_dict(rows, orient="index", columns=["all", "compliers", "std difference"])

    def summary(self, alpha: float = 0.05, title: str | None = None) -> ResultSummary:
        """Return a regression-style summary.

        Parameters
        ----------
        alpha : float, default 0.05
            Significance level of the intervals.
        title : str, optional
            Heading.

        Returns
        -------
        ResultSummary
            With `as_text`, `as_html`, `as_latex`, `as_csv`.
        """
        record, model = self._record, self.model
        design, own = record.design, ("No. Observations:", "Rows dropped:", "Std. errors:", "Df Residuals:")
        texts = summary.head_texts(record) | {"Treatment:": model.treat, "Instrument:": model.instrument}
        texts |= {"Model:": f"LATE by {record.spec.name}", "First-stage F:": self._shown_f}
        shown = ("Treatment:", "Instrument:", "Model:", "Weights:", *summary.DESIGN, *own, "First-stage F:")
        moves, level, z = "raises" if self._effects[1] > 0 else "lowers", f"{100 * (1 - alpha):.4g}%", model.instrument
        weak = " The first stage is weak, so this share and its direction are uncertain."
        notes = [
            f"LATE = (effect of {z} on the outcome) / (effect of {z} on {model.treat}), the average effect on "
            f"compliers. Compliers are units for which {z} {moves} {model.treat}: an estimated "
            f"{self.complier_share:.1%} of the {self._whose}.{weak * self._weak}",
            f"The {level} interval of Anderson and Rubin, valid with a weak instrument, is {self._ends(alpha)}.",
            labels.inference_words(record),
            *summary.formulas(record),
            f"LATE is causal only if {z} is as good as random given the covariates, affects the outcome "
            f"only through {model.treat}, and changes {model.treat} in one direction only.",
        ]
        title = title or "Local Average Treatment Effect (LATE) Results"
        numbers = summary.numbers_table(self.summary_frame(alpha), "", one_unit=False)
        tables = [summary.head(title, design.endog_name, texts, shown), numbers]
        return ResultSummary(tables, [*notes, *map(labels.sentence, self._notes)])

    def tidy(self, conf_int: bool = True, alpha: float = 0.05) -> pd.DataFrame:
        """Return the effect as plain data, under the column names of broom and marginaleffects.

        Parameters
        ----------
        conf_int : bool, default True
            Whether to add the limits of the normal interval.
        alpha : float, default 0.05
            Significance level of the interval.

        Returns
        -------
        DataFrame
            One row: term, estimate, std_error, statistic, p_value, conf_low, conf_high.
        """
        return tidy.tidy_frame(self.summary_frame(alpha).iloc[:1], conf_int)

    def glance(self) -> pd.DataFrame:
        """Return one row that describes the fit, as `CausalResults.glance`, plus the instrument and the first stage."""
        model, record = self.model, self._record
        own = {"estimator": f"LATE by {record.spec.name}", "estimand": self.estimand, "treatment": model.treat}
        own |= {"instrument": model.instrument, "first_stage_f": self.first_stage_f}
        return tidy.glance(record).assign(**own, complier_share=self.complier_share)

    methods = methods.late_methods
    _report_parts = sections.late_parts

    def __repr__(self) -> str:
        shown = f"{self.effect:.4g} ({self.bse.iloc[0]:.4g}), first-stage F {self._shown_f}, n {self.nobs}"
        return f"LATE by {self.outcome._record.spec.name}: {shown}"
