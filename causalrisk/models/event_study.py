"""Staggered adoption: effects by group and period, and their averages. A group has one first treated period."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalrisk import errors
from causalrisk.design.did import COMPARED, Adoption, DiD, adoption, with_change
from causalrisk.design.formulas import callers_variables
from causalrisk.design.survey import Factors, Survey, labels_of
from causalrisk.design.tables import listing, numbers
from causalrisk.estimation.abilities import ABILITIES
from causalrisk.estimation.fits import group_sums, sandwich, small_sample_factor, stratum_of_groups
from causalrisk.estimation.options import InferenceOptions, model_options, typed_options
from causalrisk.estimation.record import FitRecord, unit_influence
from causalrisk.inference import intervals
from causalrisk.inference.covariance import jackknife_deviations, leave_one_out
from causalrisk.inference.simultaneous import adjusted_frame
from causalrisk.models.estimators import model_named
from causalrisk.models.model import OPTIONS, CausalModel, check_in_memory, design_of
from causalrisk.models.results import CausalResults, Shown
from causalrisk.numerics.arrays import Array
from causalrisk.numerics.resampling import JACKKNIFE
from causalrisk.report import labels, methods, plots, sections, summary, tidy
from causalrisk.report.table import format_number

BY = ("exposure", "group", "time", "all", "simple", "over exposure")
# parts of the fits' warnings that do not apply to the study
NOT_OF_STUDIES = "If the clusters were assigned.*exact[.]"  # advice for a single fit
OF_ONE = "does not vary within a group|has 1 observations|cannot be left out|only one cluster"


@dataclass(frozen=True, eq=False)
class EventStudy(Shown, sections.HasReport):
    """Effects of a treatment that starts at different times, returned by `event_study`.

    Parameters
    ----------
    fits : mapping of (group, time) to CausalResults
        The fit for each group and period. Its outcome is the change between the period and its base period, from the
        earlier to the later. If the base period is later, the effect in `params` is minus the fit's effect.
    contributions : ndarray, shape (n, m)
        Contribution of each unit or cluster to the sampling error of each of the m effects; NaN if all controls of an
        effect are in one cluster.
    shares : ndarray, shape (m,)
        For each fit, the share of all units that belong to its group.
    of_shares : ndarray, shape (n, m)
        Contribution of each unit or cluster to the sampling error of the shares.
    exposure : ndarray of int, shape (m,)
        Number of periods since the group's first treated period, which counts as 0.
    sign : ndarray, shape (m,)
        -1 if the base period is the later one, otherwise 1.
    given : mapping
        The formula and the options of the study.
    sizes : Series of int
        Number of units in each group. Units that no fit uses do not count.
    n_units : float
        Number of clusters, or of units (the sum of frequency weights).
    periods : list
        Periods in the data, in order.
    df : float
        Degrees of freedom of tests and intervals; infinite for the normal distribution.
    notes : tuple of str
        Notes on the groups and periods.
    strata : tuple of (ndarray of int, shape (n,), and Factors)
        With a survey design: the stratum of each unit or cluster, and the weights of the strata in the variance.
    left_out : tuple of (ndarray, shape (n, m), ndarray, shape (n, m), and ndarray, shape (n,)), optional
        With the jackknife: effects and shares if a unit or cluster is left out, and its frequency weight.
    """

    _place: ClassVar = ("study", "study")
    fits: Mapping[tuple[Any, Any], CausalResults]
    contributions: Array
    shares: Array
    of_shares: Array
    exposure: NDArray[np.intp]
    sign: Array
    given: Mapping[str, Any]
    sizes: pd.Series
    n_units: float
    periods: list[Any]
    df: float
    notes: tuple[str, ...]
    strata: tuple[NDArray[np.intp] | None, Factors | None] = (None, None)
    left_out: tuple[Array, Array, Array] | None = None

    @cached_property
    def params(self) -> pd.Series:
        """Effect on the treated for each group and period."""
        index = pd.MultiIndex.from_tuples(self.fits, names=["group", "time"])
        return pd.Series(self.sign * [res.effect for res in self.fits.values()], index=index, name="ATT")

    @property
    def placebos(self) -> NDArray[np.bool_]:
        """Mask (m,) of the placebo effects: effects in periods before treatment and anticipation."""
        return self.exposure < -self.given["anticipation"]

    def cov_params(self) -> pd.DataFrame:
        """Return the joint covariance of `params`."""
        return pd.DataFrame(self._covariance(self.contributions), self.params.index, self.params.index)

    def _covariance(self, added: Array) -> Array:
        stratum, factors = self.strata
        return sandwich(added, np.ones(len(added)), 1.0, stratum=stratum, strata=factors)

    def effects(
        self, by: str | None = "exposure", alpha: float = 0.05, *, adjust: str | None = "single-step"
    ) -> pd.DataFrame:
        """Averages of the effects, or the effect of each group in each period.

        Parameters
        ----------
        by : {"exposure", "group", "time", "all", "simple", "over exposure"}, optional
            How to average the effects. Except for "over exposure", groups are weighted by their size.
            "exposure": one average per number of periods since adoption; numbers below -`anticipation` are placebos.
            "group": one average per group, over its treated periods.
            "time": one average per period, over the groups already treated.
            "all": one number, the average of the "group" averages.
            "simple": one number, the average over all treated periods of all groups.
            "over exposure": one number, the unweighted mean of the "exposure" averages from 0 on.
            None: no average; one row per group and period.
        alpha : float, default 0.05
            Significance level of the intervals.
        adjust : {"single-step", "holm", "bonferroni", "hochberg", "fdr_bh"}, optional
            Method that adjusts the p-values and, except for "fdr_bh", the intervals, as in `CausalResults.pairwise`.
            None leaves both unadjusted.

        Returns
        -------
        DataFrame
            One row per effect: estimate, std err, z (or t), P>|z|, adjusted P and limits.
        """
        index, values, added = self._averages(by)
        covariance = self._covariance(added)
        adjust, se = adjust if len(values) > 1 else None, np.sqrt(np.diag(covariance))
        return tidy.printed_whole(adjusted_frame(values, se, covariance, index, adjust=adjust, alpha=alpha, df=self.df))

    def _averages(self, by: str | None) -> tuple[pd.Index, Array, Array]:
        """Return names, averages, and each unit's contribution to their errors, including errors of the group sizes."""
        by = errors.one_of("by", by, (None, *BY))
        if by == "over exposure":
            names, values, added = self._averages("exposure")
            kept = np.asarray(names) >= 0
            return pd.Index([by]), values[kept].mean(keepdims=True), added[:, kept].mean(axis=1, keepdims=True)
        effects, after = self.params.to_numpy(), self.exposure >= 0
        if by is None:
            return self.params.index, effects, self.contributions
        group, time = (self.params.index.get_level_values(name) for name in ("group", "time"))
        everything = pd.Index([by] * len(group))
        keys = {"exposure": pd.Index(self.exposure), "group": group, "time": time}.get(by, everything)
        used = np.ones(len(group), dtype=bool) if by == "exposure" else after
        names = keys[used].unique().rename(by)
        names = names[np.argsort([self.periods.index(name) for name in names] if by in ("group", "time") else names)]
        per = 1 / pd.Series(after).groupby(np.asarray(group)).transform("sum").to_numpy() if by == "all" else 1.0
        counted = (np.asarray(keys)[None, :] == np.asarray(names)[:, None]) * used * per
        values, unknown = _averages(counted, self.shares, effects), np.isnan(self.contributions).any(axis=0)
        if self.left_out is not None:
            without, shares, times = self.left_out
            added = _deviations(_averages(counted, shares, without), times)
        else:
            weights = counted * self.shares
            total = weights.sum(axis=1, keepdims=True)
            of_sizes = counted * (effects - values[:, None]) / total
            added = np.nan_to_num(self.contributions) @ (weights / total).T + self.of_shares @ of_sizes.T
        return names, values, np.where((counted[:, unknown] > 0).any(axis=1), np.nan, added)

    def pretrend_test(self) -> Any:
        """Test that all placebo effects are zero.

        Returns
        -------
        statsmodels.stats.contrast.ContrastResults
            Hotelling's F test of j placebos. The statistic is W (m - j + 1) / (m j), with j and m - j + 1 degrees of
            freedom. W is the Wald statistic. m is the study's `df` if finite, otherwise the number of units or clusters
            minus one. With few clusters the test rejects too often. Use ``cov_type="jackknife"`` and the adjusted
            p-values of the placebos in `effects` instead.

        Raises
        ------
        OptionError
            If there are no placebos, or more placebos than degrees of freedom.
        """
        before = self.placebos
        if not before.any():
            none = "there are no placebos: each needs two periods before treatment"
            raise errors.OptionError(f"{none}.\nUse data with earlier periods.")
        left = np.eye(len(before))[before]
        covariance = self._covariance(self.contributions)
        statistic, count, _ = intervals.wald_statistic(left, np.zeros(len(left)), self.params.to_numpy(), covariance)
        m = self.df if np.isfinite(self.df) else self.n_units - 1.0
        if m < count:
            few = f"there are {count} placebos but only {m:g} degrees of freedom, too few for a joint test"
            raise errors.OptionError(f"{few}.\nUse `study.effects()`, which has adjusted p-values of the placebos.")
        return intervals.joint_test(statistic * (m - count + 1) / m, count, m - count + 1)

    def tidy(self, by: str | None = "exposure", conf_int: bool = True, alpha: float = 0.05) -> pd.DataFrame:
        """Return the effects as plain data, under the column names of broom and marginaleffects.

        Parameters
        ----------
        by : str, optional
            How to average the effects, as in `effects`.
        conf_int : bool, default True
            Whether to add the limits of pointwise intervals.
        alpha : float, default 0.05
            Significance level of the intervals.

        Returns
        -------
        DataFrame
            One row per effect: term, estimate, std_error, statistic, p_value, conf_low, conf_high.
        """
        frame = self.effects(by, alpha, adjust=None)
        if by is None:
            frame.index = frame.index.map("{0[0]} in {0[1]}".format)
        return tidy.tidy_frame(frame, conf_int)

    plot = plots.plot_study
    summary = summary.summarize_event_study
    methods = methods.study_methods
    _report_parts = sections.study_parts

    @property
    def outcome(self) -> str:
        """Name of the outcome."""
        return str(self.given["formula"]).partition("~")[0].strip()

    @property
    def _record(self) -> FitRecord:
        return next(iter(self.fits.values()))._record

    def __repr__(self) -> str:
        overall = self.effects("all").iloc[0]
        groups = self.params.index.get_level_values("group").nunique()
        text = f"ATT {format_number(overall['estimate'])} ({format_number(overall['std err'])})"
        return f"EventStudy: {text}, {labels.count(groups, 'group')}, {labels.count(len(self.fits), 'fit')}"


NOT_STUDIED = (
    "treat", "did", "target", "effect", "treated", "reference", "levels", "subpop", "n_repeats", "quantiles",
    "outcome_predictions",
)  # fmt: skip
OWN: dict[str, Any] = {"begins": "", "time": "", "unit": "", "estimator": "AIPW", "controls": "never"}
OWN |= {"base": "universal", "anticipation": 0, "cov_type": None, "small_sample": False, "use_t": None, "df": None}
STUDIED = {name: value for name, value in OPTIONS.items() if name not in NOT_STUDIED}


@errors.with_other_names
def event_study(
    formula: str,
    data: Any = None,
    begins: str = "",
    time: str = "",
    unit: str = "",
    *,
    estimator: str | type[CausalModel] = "AIPW",
    controls: str = "never",
    base: str = "universal",
    anticipation: int = 0,
    cov_type: str | None = None,
    small_sample: bool = False,
    use_t: bool | None = None,
    df: float | None = None,
    **options: Any,
) -> EventStudy:
    """Difference-in-differences for treatments that start at different times and continue.

    Parameters
    ----------
    formula : str
        Outcome formula. Its left-hand side is the column with the outcome in each period.
    data : DataFrame or mapping of columns
        One row per unit and period. Every unit must have every period.
    begins : str
        Column with the first treated period of each unit. For never-treated units the value is missing, 0 (if periods
        are positive numbers), or a period after the last. Units with the same first treated period form a group.
    time, unit : str
        Columns with the period and the unit.
    estimator : name or model class, default "AIPW"
        Estimator for each group and period. For JRE, standard errors are robust.
    controls : {"never", "not yet"}
        Units that each group is compared with. "never" (default): never-treated units. "not yet": also units whose
        treatment begins more than `anticipation` periods after both the period of the effect and its base period.
    base : {"universal", "varying"}
        Base period of the placebos. "universal" (default): the last period before treatment and anticipation, as for
        the effects. "varying": for each period before adoption, the period just before it, the default in R's did and
        Stata's csdid. Effects in periods of anticipation are then changes from one period to the next.
    anticipation : int, default 0
        Number of periods before the treatment begins in which it may already have an effect. The base period is the
        last period before these periods.
    cov_type : {"robust", "HC1", "cluster", "jackknife"}, optional
        Kind of standard errors, as in `CausalModel.fit`. "jackknife" repeats the whole study without each unit, or each
        cluster, in turn. By default "robust", or "cluster" with clusters.
    small_sample : bool, default False
        Whether to multiply robust variances by the small-sample factor, as in `CausalModel.fit`.
    use_t : bool, optional
        Whether to use the t distribution. Its degrees of freedom are the number of clusters (or units) minus one. By
        default it is used only with a survey design, with the degrees of freedom of the design.
    df : float, optional
        Degrees of freedom, instead of the default of `use_t`. If given, the t distribution is used. With few treated
        clusters, use their number minus one.
    **options
        Options of `IPWRA.from_formula` for all fits. Give weights, clusters, offsets, propensity scores and the
        variables of a survey design as column names.

    Returns
    -------
    EventStudy
        One effect per group and period, with their joint covariance.

    Raises
    ------
    DesignError
        If a unit lacks a period, has several rows for one period, or has several first treated periods; if a unit is
        treated in the first period; if no group has controls; or as in `IPWRA.from_formula`.
    OptionError
        As in `IPWRA.from_formula`.

    Notes
    -----
    The effect on group g in period t is the change in the group since the base period, minus the change in the controls
    [1]_. Covariates are from the earlier of the two periods. In periods before treatment and anticipation, the effect
    is a placebo effect. Averages are weighted by group size: number of units, or sum of weights in the first period.
    Standard errors treat the sizes as random. Groups already treated are never controls. A two-way fixed effects
    regression uses them as controls, and is biased if effects grow after adoption.

    References
    ----------
    .. [1] Callaway, B. and Sant'Anna, P. H. C. (2021). Difference-in-differences with multiple time periods. Journal of
       Econometrics 225, 200-230.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from causalrisk import event_study
    >>> rng = np.random.default_rng(0)
    >>> units = pd.DataFrame(
    ...     {"id": range(300), "first": rng.choice([2003, 2004, np.inf], 300)}
    ... )
    >>> data = units.merge(pd.DataFrame({"year": range(2001, 2006)}), how="cross")
    >>> grown = (data.year - data["first"] + 1).clip(lower=0)
    >>> data["y"] = grown + data.year + rng.normal(size=len(data))
    >>> study = event_study(
    ...     "y ~ 1",
    ...     data,
    ...     begins="first",
    ...     time="year",
    ...     unit="id",
    ...     estimator="OutcomeRegression",
    ... )
    >>> study.effects()[["estimate", "0.975]"]].round(2)
              estimate  0.975]
    exposure
    -3            0.27    0.74
    -2            0.15    0.47
     0            1.16    1.47
     1            2.30    2.65
     2            3.15    3.64
    """
    typed = (begins, time, unit, estimator, controls, base, anticipation, cov_type, small_sample, use_t, df)
    given, read_as = errors.read("event_study", dict(zip(OWN, typed, strict=True)) | options, OWN | STUDIED)
    able = [name for name, row in ABILITIES.items() if "panel" in row.get("did", ())]
    model, scope, notes = model_named(given["estimator"], able), callers_variables(2), errors.Notes(read_as)
    given |= {"formula": formula, "estimator": model.spec.name}
    _check(given, data)
    units = adoption(data, time=given["time"], unit=given["unit"], begins=given["begins"])
    fits = _fits(model, units, given, scope, notes)
    used, n = [res.model.design.index for res in fits.values()], len(units.units)
    units = units.keeping(used[0].append(used[1:]))
    if unused := n - len(units.units):
        notes.append(f"Not counted: {labels.count(unused, 'unit')} that no fit uses.")
    first = units.of_units(given["begins"], fixed=False)
    later = (units.begins == len(units.names)) & first.notna() & ~first.astype(object).isin([0, np.inf])
    if late := int(later.sum()):
        notes.append(f"The never-treated units include {labels.count(late, 'unit')} that begin after the data end.")
    if unequal := units.unequal(given["time"]):
        notes.warn(unequal, errors.DesignWarning)
    exposure = np.array([period - group for group, period in fits])
    sign = np.where((given["base"] == "universal") & (exposure < -given["anticipation"]), -1.0, 1.0)
    made = _errors(fits, units, sign, given) | {"exposure": exposure, "sign": sign}
    df = given["df"] or (made["n_units"] - 1.0 if given["use_t"] else np.inf)
    if given.get("design") is not None:
        df = next(iter(fits.values()))._record.df
    names = units.names.tolist()
    named = {(names[group], names[period]): res for (group, period), res in fits.items()}
    return EventStudy(fits=named, given=given, periods=names, df=df, notes=tuple(notes), **made)


def _check(given: Mapping[str, Any], data: Any) -> None:
    """Raise an error for invalid options or data. Options with one value per row must be column names."""
    errors.one_of("controls", given["controls"], tuple(labels.CONTROLS))
    errors.one_of("base", given["base"], ("universal", "varying"))
    errors.whole_number("anticipation", given["anticipation"], 0)
    errors.one_of("cov_type", given["cov_type"], (None, "robust", "HC1", "cluster", "jackknife"))
    survey = given.get("design")
    columns = {name: given.get(name) for name in ("weights", "cluster", "offset", "exposure", "propensity_score")}
    if isinstance(survey, Survey):
        columns |= {f"{name} of design": getattr(survey, name) for name in ("weights", "strata", "psu", "fpc")}
        if survey.replicate_weights is not None:
            raise errors.OptionError("event studies do not support replicate weights.\nUse strata= and psu= instead.")
    for name, value in columns.items():
        if value is not None and not isinstance(value, str) and not hasattr(value, "fit"):
            found = f"{name} is a {type(value).__name__}; expected the name of a column"
            advice = "Use the name of a column of data=, because each fit uses different rows."
            raise errors.OptionError(f"{found}.\n{advice}")
    if data is None or not (given["begins"] and given["time"] and given["unit"]):
        needed = "event_study needs begins=, time=, unit= and data with one row for each unit in every period"
        use = 'Use `event_study("y ~ x1 + x2", data, begins="first", time="year", unit="id")`.'
        raise errors.OptionError(f"{needed}. It does not support repeated cross sections.\n{use}")
    check_in_memory("event_study", data)


def _fits(
    model: type[CausalModel], units: Adoption, given: Mapping[str, Any], scope: Mapping[str, Any], notes: errors.Notes
) -> dict[tuple[int, int], CausalResults]:
    """Return the fits by the numbers of group and period. Shared notes and warnings are given once."""
    formula, survey, cluster = given["formula"], given.get("design"), given.get("cluster")
    usual = None if survey is not None else "cluster" if cluster else "robust"
    inference = {name: given[name] for name in ("small_sample", "use_t", "df")}
    inference["cov_type"] = given["cov_type"] or usual
    options = {name: value for name, value in given.items() if name in STUDIED}
    typed = {"formula": repr(formula), "data": "data"} | typed_options(given, OWN | STUDIED | {"formula": formula})
    options |= {"did": DiD(time=given["time"], unit=given["unit"]), "read_as": tuple(notes), "typed": typed}
    options |= {} if survey is None else {"subpop": COMPARED}
    alone = units.alone(getattr(survey, "psu", None) or cluster)
    fits: dict[tuple[int, int], CausalResults] = {}
    without, warned = list[str](), list[tuple[str, str, Any]]()
    for group, period, part, treat in units.cells(given["base"], given["anticipation"],
                                                  given["controls"] == "not yet", survey is not None):  # fmt: skip
        cell = f"{units.names[group]} in {units.names[period]}"
        if part is None:
            without.append(cell)
            continue
        failing = {"max_failed": 0.9} if group in alone else {}  # without its only cluster, the group is empty
        with warnings.catch_warnings(record=True, action="always") as caught:
            try:
                design = design_of(formula, part, options | {"treat": treat}, scope, [model.spec])
                fits[group, period] = model._checked(design, model_options(design, options)).fit(**inference | failing)
            except errors.CausalRiskError as error:
                text = str(error).replace(with_change(options["did"], formula, part, treat)[0], formula)
                raise type(error)(f"group {cell}: {text}") from error
        said = [(cell, str(one.message), one.category) for one in caught]
        warned += [one for one in said if not (group in alone and re.search(OF_ONE, one[1]))]
    _warn_once(warned, notes)
    if alone:
        found = f"groups that begin in {listing(units.names[alone])} have only one {'cluster' if cluster else 'unit'}"
        small = "Their standard errors reflect only the controls and are too small."
        notes.warn(f"{found}, so their variation is unknown. {small}", errors.DesignWarning)
    if not fits and (units.begins == len(units.names)).all():
        raise errors.DesignError(f"no unit begins treatment in a period of the data. Check column {units.column!r}.")
    if not fits:
        other = '\nUse `controls="not yet"` to compare with units that begin later.' * (given["controls"] == "never")
        raise errors.DesignError(f"no group has controls in any period, because every unit begins treatment.{other}")
    if left_out := max(res.model.design.n_dropped for res in fits.values()):
        zero = " or zero weight" * ("weights" in given)
        notes.append(f"Each fit leaves out up to {labels.count(left_out, 'unit')} with missing values{zero}.")
    if without:
        notes.warn(f"These groups and periods have no controls: {', '.join(without)}.", errors.DesignWarning)
    return fits


def _warn_once(warned: Sequence[tuple[str, str, Any]], notes: errors.Notes) -> None:
    """Warn once if warnings of fits differ only in numbers. `warned` has the fit, text and category of each warning."""
    alike: dict[str, list[tuple[str, str, Any]]] = {}
    for one in warned:
        alike.setdefault(re.sub(errors.NUMBERS, "", one[1]), []).append(one)
    for (fit, text, category), *others in (sorted(each, key=itemgetter(1)) for each in alike.values()):
        text = re.sub(r"\bfit\((?=use_t|small_sample|cov_type)", "event_study(..., ", re.sub(NOT_OF_STUDIES, "", text))
        text = text.replace("group '1'", "the treated group").replace("group '0'", "the control group")
        said, *advice = text.rstrip().split("\n")
        more = f"; {labels.count(len(others), 'other fit')} gave a similar warning" if others else ""
        where = f" (In the fit of group {fit}{more}.)"
        notes.warn("\n".join([said + where, *advice]), category)


def _averages(counted: Array, shares: Array, effects: Array) -> Array:
    """Return j averages of `effects` (..., m). Row k of `counted` (j, m) marks the effects in the k-th average.

    Effects are weighted by `shares`. The result has shape (..., j), with NaN for a row that marks no effect.
    """
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(shares > 0, shares * effects, 0.0) @ counted.T / (shares @ counted.T))


def _deviations(left_out: Array, times: Array) -> Array:
    return jackknife_deviations(np.where(np.isnan(left_out), np.nanmean(left_out, axis=0), left_out), times)


def _errors(
    fits: Mapping[tuple[int, int], CausalResults], units: Adoption, sign: Array, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the fields of `EventStudy` that determine standard errors, and the sizes and shares of the groups."""
    groups, records = np.array([group for group, _ in fits]), [res._record for res in fits.values()]
    first, survey = records[0], options.get("design")
    cluster, weights = (options.get(name) for name in ("cluster", "weights"))
    if survey is not None:
        cluster, weights = survey.psu, survey.weights
    n, drawn = len(units.units), first.design.survey
    code, stratum = np.arange(n), np.zeros(n, dtype=np.intp)
    if drawn is not None and survey is not None and survey.strata is not None:
        stratum = pd.Index(drawn.strata).get_indexer(labels_of(units.of_units(survey.strata)))
    if cluster is not None:
        code = pd.factorize(pd.MultiIndex.from_arrays([stratum, units.of_units(cluster)]))[0]
    count = int(code.max()) + 1
    counted = options.get("weight_type") == "frequency"  # each row represents several equal units
    of = np.ones(n) if weights is None else numbers(units.of_units(weights, counted), f"weights {weights!r}")
    alike = counted and cluster is None
    times = of if alike else np.ones(count)
    sizes = {"n_units": float(times.sum()), "sizes": units.sizes(of if counted else np.ones(n))}
    member = (units.begins[:, None] == groups).astype(float)
    shares = of @ member / of.sum()

    def of_all(record: FitRecord, values: Array, otherwise: float) -> Array:
        found, own = np.full(count, otherwise), record.design.cluster
        found[code[units.units.get_indexer(record.design.index)]] = values if own is None else values[own]
        return found

    unknown = [record.one_cluster and record.design.arm_clusters[0] == 1 for record in records]
    if options["cov_type"] == JACKKNIFE:
        left_out = [leave_one_out(record, InferenceOptions()).values[:, 0] for record in records]
        pairs = zip(records, left_out, strict=True)
        effects = [of_all(record, values, record.estimate.params[0]) for record, values in pairs]
        without, gone = sign * np.column_stack(effects), (np.ones(n) if alike else of)[:, None]
        left = (of @ member - group_sums(gone * member, code, count)) / (of.sum() - group_sums(gone, code, count))
        contributions = np.where(unknown, np.nan, _deviations(without, times))
        found = {"left_out": (without, left, times), "contributions": contributions}
        return found | sizes | {"shares": shares, "of_shares": jackknife_deviations(left, times)}
    added = []
    for record in records:
        moved = unit_influence(record, 1)[:, 0] / record.sample.total
        added.append(of_all(record, np.sqrt(record.small_sample_factor) * moved, 0.0))
    factor = small_sample_factor(of.sum() if alike else n, int(first.small_sample), count * (cluster is not None))
    of_shares = np.sqrt(factor) * (member - shares) * (np.sqrt(of) if alike else of)[:, None] / of.sum()
    own = sign * np.column_stack(added) * (np.sqrt(of)[:, None] if alike else 1.0)
    return sizes | {
        "contributions": np.where(unknown, np.nan, own),
        "shares": shares,
        "of_shares": group_sums(of_shares, code, count),
        "strata": (None, None) if drawn is None else (stratum_of_groups(code, stratum, count), drawn.factors),
    }
