"""`compare`: several estimators on the same rows and resamples. `simultaneous`: multiple testing of several fits."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from causalrisk import errors
from causalrisk.design.design import Design
from causalrisk.design.formulas import callers_variables
from causalrisk.estimation import options as kinds
from causalrisk.estimation.abilities import check_options, options_used
from causalrisk.estimation.fit import fit_estimator
from causalrisk.estimation.prepare import check_one_way, task_of
from causalrisk.estimation.specification import Specification
from causalrisk.inference.covariance import bootstrap_with_fallback, with_bootstrap, with_covariance
from causalrisk.inference.simultaneous import Comparison, differences_frame, effects_frame, simultaneous_frame
from causalrisk.models.estimators import JRE, chosen_models, results_of
from causalrisk.models.model import FIT_OPTIONS, JRE_OPTIONS, OPTIONS, CausalModel, check_in_memory, design_of
from causalrisk.models.results import CausalResults, Shown, given_results
from causalrisk.numerics.resampling import seed_sequence
from causalrisk.report import plots, summary, tidy
from causalrisk.report.table import format_number
from causalrisk.runtime import one_blas_thread


class ComparisonResults(Shown):
    """Estimators side by side, returned by `compare`.

    Parameters
    ----------
    comparison : Comparison
        The fits, and their effects in common resamples.

    Attributes
    ----------
    results : dict of str to CausalResults
        The fit of each estimator by name, with robust standard errors.
    """

    def __init__(self, comparison: Comparison) -> None:
        self._data = comparison
        self.results = {record.spec.name: results_of(record) for record in comparison.records}

    @property
    def bootstrapped(self) -> dict[str, CausalResults]:
        """The fit of each estimator by name, with bootstrap standard errors. Nothing is fitted again."""
        return {record.spec.name: results_of(record) for record in self._data.drawn}

    @property
    def table(self) -> pd.DataFrame:
        """Effects with bootstrap standard errors, one row per estimator. "robust se" has robust standard errors."""
        return tidy.Frame(effects_frame(self._data, 0.05))

    @property
    def differences(self) -> pd.DataFrame:
        """Differences of the effects, one row per pair (first minus second), with paired standard errors."""
        return tidy.Frame(differences_frame(self._data, 0.05))

    def pairwise(
        self, alpha: float = 0.05, *, adjust: kinds.Adjustment | None = None, against: Any = None
    ) -> pd.DataFrame:
        """Differences of the effects, optionally adjusted for multiple testing.

        Parameters
        ----------
        alpha : float, default 0.05
            Significance level of the intervals.
        adjust : {"single-step", "holm", "bonferroni", "hochberg", "fdr_bh"}, optional
            Method that adjusts the p-values and, except for "fdr_bh", the intervals, as in `CausalResults.pairwise`.
            "single-step" uses the correlations of the differences over the resamples.
        against : str, optional
            Estimator to subtract from each of the others; "reference" means the first. By default, all pairs.

        Returns
        -------
        DataFrame
            The columns of `differences`. With `adjust`, there is also a column "adjusted P".
        """
        return tidy.Frame(differences_frame(self._data, alpha, adjust, against))

    @property
    def cov(self) -> pd.DataFrame:
        """Covariance of the effects over the resamples without failures. The `small_sample` factor is not applied."""
        return self.boot_effects.dropna().cov(min_periods=2)

    @property
    def boot_effects(self) -> pd.DataFrame:
        """Effects in every resample, one row per resample. NaN if the estimator failed."""
        index = pd.RangeIndex(len(self._data.boot), name="resample")
        return pd.DataFrame(self._data.boot.copy(), columns=list(self._data.rows), index=index)

    @property
    def boot_ledger(self) -> pd.DataFrame:
        """Status of each resample for each estimator: "used", or the reason why the estimator failed."""
        text = np.array(list(errors.TEXT.values()), dtype=object)[self._data.failures]
        return pd.DataFrame(text, columns=self._data.names, index=self.boot_effects.index)

    summary = summary.summarize_comparison

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
            One row per estimator and effect: estimator, term, estimate, std_error (bootstrap),
            robust_std_error, statistic, p_value, conf_low, conf_high.
        """
        effects, names = effects_frame(self._data, alpha), self._data.effect_names
        frame = effects.drop(columns="robust se").set_axis(names * len(self._data.names))
        frame = tidy.tidy_frame(frame, conf_int)
        frame.insert(0, "estimator", effects.index.get_level_values("estimator"))
        frame.insert(4, "robust_std_error", effects["robust se"].to_numpy())
        return frame

    def glance(self) -> pd.DataFrame:
        """Return one row for each estimator, with the columns of `CausalResults.glance`.

        Returns
        -------
        DataFrame
            One row per estimator. Standard errors are from the shared resamples.
        """
        return pd.concat([tidy.glance(record) for record in self._data.drawn], ignore_index=True)

    def plot(self, ax: Any = None, alpha: float = 0.05) -> Any:
        """Forest plot of the effects with their intervals.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Axes to draw on; by default a new figure.
        alpha : float, default 0.05
            Significance level of the intervals.

        Returns
        -------
        matplotlib Axes
            The plot, with the first estimator at the top.

        Raises
        ------
        UnavailableError
            If matplotlib is not installed.
        """
        first, frame = self._data.records[0], effects_frame(self._data, alpha)
        design, ax = first.design, plots.axes_or_new(ax, len(frame))
        labels = [row if isinstance(row, str) else ": ".join(row) for row in frame.index]
        what = f"{first.estimand} of {design.treat_name} on {design.endog_name}, {100 * (1 - alpha):.4g}% interval"
        return plots.draw_forest(frame.set_axis(labels), what, ax, first.options.effect_scale.null)

    def __repr__(self) -> str:
        design, count = self._data.records[0].design, len(self._data.names)
        effects = self._data.effects.reshape(count, -1)
        limits = zip(self._data.effect_names, effects.min(axis=0), effects.max(axis=0), strict=True)
        ranges = ", ".join(f"{name} {format_number(low)} to {format_number(high)}" for name, low, high in limits)
        return f"{count} estimator{'s' * (count > 1)}: {ranges}, {design.contrast}, n {design.nobs}"


@errors.with_other_names
def simultaneous(
    results: Iterable[CausalResults] | Mapping[str, CausalResults],
    *,
    adjust: kinds.Adjustment = "single-step",
    alpha: float = 0.05,
    names: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Table of the effects of several fits to the same rows, adjusted for multiple testing.

    Parameters
    ----------
    results : iterable of CausalResults, or mapping of names to them
        Fits to the same rows with the same weights and clusters, for example to several outcomes.
    adjust : {"single-step", "holm", "bonferroni", "hochberg", "fdr_bh"}, default "single-step"
        As in `CausalResults.pairwise`. "single-step" uses the correlations of the fits' influence functions.
    alpha : float, default 0.05
        Significance level of the intervals.
    names : sequence of str, optional
        Names of the fits. By default the keys of a mapping. For a list, the outcomes if they all differ. Otherwise the
        estimators if they all differ, or numbers.

    Returns
    -------
    DataFrame
        One row per fit and effect: estimate, std err, z, P>|z|, adjusted P and limits.

    Raises
    ------
    DesignError
        If the fits differ in their rows, weights, clusters or kind of effect.
    OptionError
        If the adjustment is unknown, the names are not one distinct name per fit, or `results` contains anything but
        fits.
    UnavailableError
        If a fit is to scanned data (`causalrisk.scan`), whose rows are not kept.

    Examples
    --------
    >>> from causalrisk import IPWRA, datasets, simultaneous
    >>> births = datasets.load_cattaneo2()
    >>> fits = [
    ...     IPWRA.from_formula(
    ...         f"{outcome} ~ mage + medu", births, treat="mbsmoke"
    ...     ).fit()
    ...     for outcome in ("bweight", "lbweight")
    ... ]
    >>> simultaneous(fits)[["estimate", "adjusted P", "[0.025", "0.975]"]].round(2)
                     estimate  adjusted P  [0.025  0.975]
    fit      effect
    bweight  ATE      -256.86         0.0 -310.28 -203.45
    lbweight ATE         0.06         0.0    0.03    0.09
    """
    names = list(results) if names is None and isinstance(results, Mapping) else names
    records = [res._record for res in given_results(results, "simultaneous([res1, res2])")]
    outcomes, estimators = [record.design.endog_name for record in records], [record.spec.name for record in records]
    numbered = [str(k + 1) for k in range(len(records))]
    distinct = next(found for found in (outcomes, estimators, numbered) if len(set(found)) == len(records))
    if not records or (names is not None and len(set(names)) != len(records)):
        found = f"there are {len(records)} fits and names={names!r}"
        expected = "expected at least one fit, and one distinct name per fit"
        raise errors.OptionError(f"{found}; {expected}.\nUse `simultaneous([res1, res2])`.")
    return tidy.Frame(simultaneous_frame(records, distinct if names is None else list(names), adjust, alpha))


COMPARED = {"estimators": None} | OPTIONS | FIT_OPTIONS | JRE_OPTIONS
del COMPARED["cov_type"], COMPARED["cov_kwds"], COMPARED["replicates"], COMPARED["method"], COMPARED["treat"]


@errors.with_other_names
def compare(
    formula: str,
    data: Any = None,
    treat: Any = None,
    *,
    estimators: str | type[CausalModel] | Sequence[str | type[CausalModel]] | None = None,
    **options: Any,
) -> ComparisonResults:
    """Estimate one effect by several estimators, on the same rows and the same resamples.

    Parameters
    ----------
    formula, data, treat
        As in `JRE.from_formula`.
    estimators : name, model class, or sequence of them, optional
        Estimators in the order of the table: "Unadjusted" (the difference of raw means), "OutcomeRegression", "IPW",
        "IPWRA", "AIPW", "JRE" or "TMLE". By default the first six. With ``effect="quantile"``, the default is all
        estimators that support quantiles. "Matching" has no valid bootstrap and is not available.
    **options
        Options of `JRE.from_formula` and `JRE.fit`. The other estimators ignore JRE's own options.

    Returns
    -------
    ComparisonResults
        Effects and paired differences.

    Raises
    ------
    BootstrapError
        If more than `max_failed` of the resamples failed for an estimator. `err.results` has the comparison, without
        bootstrap standard errors for that estimator.
    UnavailableError
        If the data are scanned (`causalrisk.scan`). Compare separate fits with `etable` instead.
    DesignError, OptionError, SeparationError
        As in `JRE.from_formula` and `JRE.fit`.

    Notes
    -----
    All estimators use the same resamples. The standard error of a difference is computed from the paired differences,
    so sampling error that two estimators share cancels. With JRE, if too many resamples fail and `bootstrap` is not
    given, the bootstrap uses fractional weights, as in `JRE.fit`.

    Examples
    --------
    >>> from causalrisk import compare, datasets
    >>> births = datasets.load_cattaneo2()
    >>> names = ["Unadjusted", "IPWRA"]
    >>> both = compare(
    ...     "bweight ~ mage + medu",
    ...     births,
    ...     treat="mbsmoke",
    ...     estimators=names,
    ...     n_boot=99,
    ... )
    >>> both
    2 estimators: ATE -275.25 to -256.86, 1 vs 0, n 4642
    >>> both.differences[["estimate", "std err"]].round(1)
                      estimate  std err
    estimator  minus
    Unadjusted IPWRA     -18.4     10.8
    """
    if not isinstance(formula, str):
        found = f"compare() got a {type(formula).__name__}; expected a formula, because it fits the estimators itself"
        use = 'Use `compare("y ~ x1 + x2", data, treat="d")`, or `etable([res1, res2])` for fits.'
        raise errors.OptionError(f"{found}.\n{use}")
    options, read_as = errors.read("compare", options, COMPARED)
    typed = {name: value for name, value in options.items() if name in OPTIONS} | {"treat": treat}
    options |= {"read_as": read_as, "typed": {"formula": repr(formula)} | kinds.typed_options(typed, OPTIONS)}
    models = chosen_models(options.pop("estimators", estimators), options.get("effect"))
    of_joint = [name for name in JRE_OPTIONS if name in options]
    if of_joint and JRE not in models:
        found = f"{of_joint[0]}= is an option of JRE, which is not in estimators="
        raise errors.OptionError(f'{found}.\nAdd "JRE" to estimators=, or leave {of_joint[0]}= out.')
    fits = "Use `etable([model.fit(n_boot=200, rng=0) for model in models])`, whose fits use the same resamples. "
    check_in_memory("compare()", data, fits)
    specs = [model.spec for model in models]
    design = design_of(formula, data, options | {"treat": treat}, callers_variables(2), specs)
    return _compared(design, specs, options)


@one_blas_thread()
def _compared(design: Design, specs: Sequence[Specification], given: Mapping[str, Any]) -> ComparisonResults:
    options, joint = kinds.model_options(design, given), kinds.options_of(kinds.JREOptions, given)
    inference = kinds.options_of(kinds.InferenceOptions, {**given, "cov_type": "bootstrap"})
    inference = dataclasses.replace(inference, rng=seed_sequence(inference.rng))  # one seed for all
    if options.n_repeats > 1:
        raise errors.OptionError(f"n_repeats={options.n_repeats} is not available in compare().\nLeave n_repeats= out.")
    check_one_way(design, f'cluster="{design.cluster_name}"')
    used = [options_used(spec, options) for spec in specs]
    for spec, own in zip(specs, used, strict=True):
        check_options(spec, design, own)
        task_of(design, spec, own, inference)
    of_draws, kind = inference.resolved(design, joint=JRE.spec in specs)
    cov_type = None if design.survey is not None else "robust" if design.cluster is None else "cluster"
    of_resampling: dict[str, Any] = dict.fromkeys(("bootstrap", "n_boot", "resamples", "multiplier"))
    robust = dataclasses.replace(inference, cov_type=cov_type, **of_resampling)
    of_replicates = kind if kind in kinds.BOOTSTRAPS and design.survey is None else None
    of_joint = dataclasses.replace(robust, bootstrap=of_replicates)
    # several fits give the same warning
    with warnings.catch_warnings(record=True, action="always", category=errors.CausalRiskWarning) as warned:
        pairs = zip(specs, used, strict=True)
        fits = [fit_estimator(design, spec, own, of_joint if spec.joint else robust, joint) for spec, own in pairs]
        records = tuple(with_covariance(record, robust) for record in fits)
    for text, category in dict.fromkeys((str(warning.message), warning.category) for warning in warned):
        errors.warn_user(text, category)
    notes = errors.Notes(max(records, key=lambda record: (record.spec.joint, record.spec.uses_propensity)).notes)
    given_draws = inference.resamples is not None
    bare = tuple(dataclasses.replace(r, cov_type=of_draws, bootstrap=kind, given_resamples=given_draws) for r in fits)
    bare, boots = bootstrap_with_fallback(bare, inference, notes)
    both = zip(bare, boots, strict=True)
    drawn = tuple(with_bootstrap(record, boot, errors.SilentNotes(record.notes)) for record, boot in both)
    _check_failures(Comparison(records, drawn), inference.max_failed, notes)
    return ComparisonResults(Comparison(records, drawn, tuple(notes)))


def _check_failures(comparison: Comparison, max_failed: float, notes: errors.Notes) -> None:
    failed, drawn = (comparison.failures != errors.Failure.OK).sum(axis=0), len(comparison.failures)
    alike: dict[str, list[str]] = {}
    for name, failures in zip(comparison.names, comparison.failures.T, strict=True):
        alike.setdefault(errors.failure_text(failures), []).append(name)
    counts = "; ".join(f"{', '.join(names)} ({text})" for text, names in alike.items() if text)
    over = failed > max_failed * drawn
    if over.any():
        known = list(comparison.drawn)
        for k in np.flatnonzero(over):
            boot, unknown = known[k].used_boot, np.full_like(known[k].covariance, np.nan)
            boot = dataclasses.replace(boot, values=np.full_like(boot.values, np.nan))
            known[k] = dataclasses.replace(known[k], boot=boot, covariance=unknown)
        drawn_units = known[0].draws_units and not known[0].given_resamples
        first = 'Use `bootstrap="bayesian"` for weights that are never zero. ' if drawn_units else ""
        lost = f"{failed.max()} of {drawn} resamples failed, more than max_failed={max_failed:g} allows: {counts}"
        advice = f"{first}Simplify the formulas, leave these estimators out, or use a larger max_failed=."
        results = ComparisonResults(dataclasses.replace(comparison, drawn=tuple(known)))
        kept = "`err.results` has the comparison, with NaN standard errors for these estimators."
        raise errors.BootstrapError(f"{lost}.\n{advice} {kept}", results)
    if failed.any():
        lost = f"the standard errors leave out some of {drawn} resamples: {counts}"
        advice = "See `boot_ledger` of the results. Use a simpler formula."
        notes.warn(f"{lost}.\n{advice}", errors.ResampleWarning)
