"""Compare all estimators on the same sample and the same resamples: `compare` and what it returns."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
import pandas as pd

from causalrisk.comparison import (
    Comparison,
    chosen_models,
    differences_frame,
    effects_frame,
    fit_estimators,
    resample_estimators,
)
from causalrisk.comparison_attributes import ComparisonAttributes
from causalrisk.design import design_from_formula
from causalrisk.errors import BootstrapError, FitInterrupted, OptionError, ResampleWarning
from causalrisk.inference.intervals import check_alpha
from causalrisk.inference.resample import seed_sequence
from causalrisk.keywords import FIT_INSTEAD, check_keywords
from causalrisk.ledger import TEXT, Notes, Reason
from causalrisk.model import CausalModel, classifier, given_scores
from causalrisk.models import JRE
from causalrisk.options import InferenceOptions, JREOptions, ModelOptions
from causalrisk.report.numbers import column_format, format_number, format_p
from causalrisk.report.plots import axes_or_new, draw_forest
from causalrisk.report.render import ResultSummary, TableContent, build_summary
from causalrisk.report.summary import propensity_text, target_text
from causalrisk.results import CausalResults

FEW = 3  # up to so many estimators the summary shows every difference
INSTEAD = FIT_INSTEAD | {
    "cov_kwds": 'Type  cluster="column".',
    "cov_type": "Bootstrap and robust standard errors stand side by side. Leave it out.",
    "replicates": "Type  n_replicates=, or give multiplicities to causalrisk.JRE.from_formula(...).fit.",
    "models": 'Type  estimators=["IPWRA", "JRE"].',
    "treatment": "Type  treat=.",
    "subset": "Give the rows themselves: data=data[...].",
}


class ComparisonResults(ComparisonAttributes):
    """Estimators side by side; what `compare` returns.

    Parameters
    ----------
    comparison : Comparison
        Everything the comparison produced.
    """

    def __init__(self, comparison: Comparison) -> None:
        self._data = comparison

    @property
    def results(self) -> dict[str, CausalResults]:
        """The fit of each estimator by name, with robust standard errors."""
        return dict(zip(self._data.names, self._data.fits, strict=True))

    @property
    def table(self) -> pd.DataFrame:
        """Effects, a row an estimator (and arm): bootstrap ("std err") and robust errors, z test, normal interval."""
        return effects_frame(self._data, 0.05)

    @property
    def differences(self) -> pd.DataFrame:
        """Differences of the effects, a row a pair (the first less the second), with paired standard errors."""
        return differences_frame(self._data, 0.05)

    @property
    def cov(self) -> pd.DataFrame:
        """Joint covariance of the effects over the resamples that worked for all estimators."""
        used = self._data.boot[~np.isnan(self._data.boot).any(axis=1)]
        size = (len(self._data.rows),) * 2
        values = np.cov(used, rowvar=False).reshape(size) if len(used) > 1 else np.full(size, np.nan)
        return pd.DataFrame(values, index=list(self._data.rows), columns=list(self._data.rows))

    @property
    def boot_effects(self) -> pd.DataFrame:
        """Effects in every resample, a row a resample; NaN where the estimator failed."""
        index = pd.RangeIndex(len(self._data.boot), name="resample")
        return pd.DataFrame(self._data.boot.copy(), columns=list(self._data.rows), index=index)

    @property
    def boot_ledger(self) -> pd.DataFrame:
        """Whether each resample was used for each estimator, and why not."""
        text = np.array([TEXT[reason] for reason in Reason], dtype=object)[self._data.reasons]
        return pd.DataFrame(text, columns=self._data.names, index=self.boot_effects.index)

    def summary(self, alpha: float = 0.05, title: str | None = None) -> ResultSummary:
        """Summary of the effects and of their differences.

        Parameters
        ----------
        alpha : float, default 0.05
            Significance level of the intervals.
        title : str, optional
            Heading.

        Returns
        -------
        ResultSummary
            With `as_text`, `as_html`, `as_latex`, `as_csv`. Of more than three estimators it shows the differences to
            the last; `differences` has all.
        """
        check_alpha(alpha)
        names, several = self._data.names, len(self._data.effect_names) > 1
        effects, differences = effects_frame(self._data, alpha), differences_frame(self._data, alpha)
        tables = [TableContent(rows=_head(self._data), aligns="lrlr", title=title or "Comparison of Estimators")]
        references = names[:0:-1] if len(names) <= FEW else names[-1:]
        for effect in self._data.effect_names:
            own = effects.xs(effect, level="effect") if several else effects
            tables.append(_numbers_table(own, effect, alpha, (0, 10, 10, 9, 9, 8, 10, 10)))
            of_effect = differences.xs(effect, level="effect") if several else differences
            for name in references:
                shown = of_effect.xs(name, level="minus")
                tables.append(_numbers_table(shown, f"Difference to {name}", alpha, (0, 11, 9, 9, 8, 10, 10)))
        return build_summary(tables, _notes(self._data))

    def plot_compare(self, ax: Any = None, alpha: float = 0.05) -> Any:
        """Draw `plot`, under a name like those of the plots of a fit."""
        return self.plot(ax, alpha)

    def plot(self, ax: Any = None, alpha: float = 0.05) -> Any:
        """Forest plot of the effects with their normal intervals.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; by default a new figure.
        alpha : float, default 0.05
            Significance level of the intervals.

        Returns
        -------
        matplotlib Axes
            The plot, the first estimator on top.

        Raises
        ------
        UnavailableError
            If matplotlib is not installed.
        """
        check_alpha(alpha)
        design, ax = self._data.design, axes_or_new(ax)
        estimand = self._data.records[0].estimand
        ax.set_xlabel(f"{estimand} of {design.treat_name} on {design.endog_name}, {100 * (1 - alpha):.4g}% interval")
        frame = effects_frame(self._data, alpha)
        labels = [row if isinstance(row, str) else ": ".join(row) for row in frame.index]
        return draw_forest(frame.set_axis(labels), ax)

    def __repr__(self) -> str:
        design, count = self._data.design, len(self._data.names)
        effects = self._data.effects.reshape(count, -1)
        ranges = ", ".join(
            f"{name} {format_number(low)} to {format_number(high)}"
            for name, low, high in zip(self._data.effect_names, effects.min(axis=0), effects.max(axis=0), strict=True)
        )
        return f"{count} estimator{'s' * (count > 1)}: {ranges}, {design.contrast}, n {design.nobs}"

    def _repr_html_(self) -> str:
        return self.summary().as_html()


@check_keywords(INSTEAD)
def compare(
    formula: str,
    data: Any = None,
    *,
    treat: Any,
    estimators: str | type[CausalModel] | Sequence[str | type[CausalModel]] | None = None,
    propensity: str | None = None,
    family: Any = "gaussian",
    link: Any = None,
    propensity_link: str = "logit",
    propensity_loss: str = "ml",
    propensity_score: Any = None,
    n_folds: int = 5,
    target: Any = "all",
    treated: Any = None,
    reference: Any = None,
    levels: Mapping[Any, str] | None = None,
    weights: Any = None,
    weight_type: str | None = None,
    cluster: Any = None,
    trim: Any = None,
    clip: Any = None,
    effect: str = "difference",
    missing: str = "drop",
    n_boot: int = 999,
    bootstrap: str | None = None,
    small_sample: bool = False,
    max_failed: float = 0.05,
    rng: Any = 0,
    n_jobs: int = 1,
    progress: bool = False,
    memory: float | None = None,
    resamples: Any = None,
    objective: str = "adaptive",
    penalty: float | str | None = None,
    anchor: float | None = None,
    n_replicates: int = 500,
    bootstrap_replicates: str = "shifted",
) -> ComparisonResults:
    """Estimate one effect by several estimators, on the same rows and the same resamples.

    Parameters
    ----------
    formula, data, treat
        As in `JRE.from_formula`.
    estimators : name, model class, or sequence of them, optional
        Which estimators, in the order of the table: "Unadjusted" (the difference of raw means), "OutcomeRegression",
        "Hajek" (or "IPW"), "IPWRA", "AIPW", "JRE"; by default all.
    propensity, family, link, propensity_link, propensity_loss, propensity_score, n_folds, target
        As in `JRE.from_formula`.
    treated, reference, levels, weights, weight_type, cluster, trim, clip, effect, missing
        As in `JRE.from_formula`.
    n_boot, bootstrap, small_sample, max_failed, rng, n_jobs, progress, memory, resamples
        As in `JRE.fit`.
    objective, penalty, anchor, n_replicates, bootstrap_replicates
        As in `JRE.fit`; for JRE only.

    Returns
    -------
    ComparisonResults
        Effects and paired differences.

    Raises
    ------
    BootstrapError
        If more than `max_failed` of the resamples failed for an estimator; its `results` hold the comparison without
        the bootstrap standard errors of that one.
    FitInterrupted
        If the bootstrap is interrupted; its `results` hold the comparison without bootstrap standard errors.
    DesignError, OptionError, SeparationError, TypeError
        As in `JRE.from_formula` and `JRE.fit`.

    Notes
    -----
    Every estimator sees each resample, so the standard error of a difference is that of the paired differences: the
    sampling error that two estimators share cancels, and only that in which they differ is left.

    Examples
    --------
    >>> import causalrisk as cr
    >>> births = cr.datasets.load_cattaneo2()
    >>> names = ["Unadjusted", "IPWRA"]
    >>> both = cr.compare("bweight ~ mage + medu", births, treat="mbsmoke", estimators=names, n_boot=99)
    >>> both
    2 estimators: ATE -275.25 to -256.86, 1 vs 0, n 4642
    >>> both.differences[["difference", "std err"]].round(1)
                      difference  std err
    estimator  minus
    Unadjusted IPWRA       -18.4     11.0
    """
    models = chosen_models(estimators)
    inference = InferenceOptions(
        "bootstrap", n_boot, bootstrap, small_sample, max_failed, rng, n_jobs, progress, memory, resamples
    )
    inference = dataclasses.replace(inference, rng=seed_sequence(inference.rng))  # a Generator is advanced once
    joint = JREOptions(objective, penalty, anchor, n_replicates, bootstrap_replicates=bootstrap_replicates)
    _check_joint(joint, models)
    options = ModelOptions(
        family,
        link,
        propensity_link,
        propensity_loss,
        classifier(propensity_score),
        n_folds,
        target,
        trim,
        clip,
        effect,
    )
    caller = sys._getframe(2)  # past the keyword check
    design = design_from_formula(
        formula, data, treat=treat, propensity=propensity, treated=treated, reference=reference, levels=levels,
        weights=weights, weight_type=weight_type, cluster=cluster, propensity_score=given_scores(propensity_score),
        missing=missing,
        frame={**caller.f_globals, **caller.f_locals}, constant_outcome=all(model.spec.constants for model in models),
    )  # fmt: skip
    fitted = fit_estimators(design, models, options, inference, joint)
    try:
        resampled = resample_estimators(fitted, inference)
    except KeyboardInterrupt:
        raise FitInterrupted(ComparisonResults(fitted)) from None
    return ComparisonResults(_checked(resampled, max_failed))


def _check_joint(joint: JREOptions, models: Sequence[type[CausalModel]]) -> None:
    """Refuse options of JRE where it is not among the estimators."""
    changed = [f.name for f in dataclasses.fields(joint) if getattr(joint, f.name) != getattr(JREOptions(), f.name)]
    if JRE not in models and changed:
        raise OptionError(
            f"{changed[0]}= is an option of JRE, which estimators= leaves out.\n"
            f'Add "JRE" to estimators=, or leave {changed[0]}= out.'
        )


def _checked(comparison: Comparison, max_failed: float) -> Comparison:
    """Warn of failed resamples, or refuse where they are too many."""
    failed, drawn = (comparison.reasons != Reason.OK).sum(axis=0), len(comparison.reasons)
    if not failed.any():
        return comparison
    counts = "; ".join(f"{', '.join(names)} ({text})" for text, names in comparison.failures().items())
    over = failed > max_failed * drawn
    if over.any():
        worst = failed.max() / drawn
        more = f", or type  max_failed={worst + 0.01:.2f}" if worst < 0.9 else ""
        columns = np.repeat(over, len(comparison.effect_names))
        kept = dataclasses.replace(comparison, boot=np.where(columns, np.nan, comparison.boot))
        raise BootstrapError(
            f"{failed.max()} of {drawn} resamples failed, more than max_failed={max_failed:g} allows: {counts}.\n"
            "The comparison without the bootstrap of these estimators is in err.results. Simplify propensity=, leave "
            f"them out of estimators={more}.",
            ComparisonResults(kept),
        )
    notes = Notes(comparison.notes)
    notes.warn(
        f"of {drawn} resamples some were left out of the standard errors: {counts}.\n"
        "See boot_ledger of the results; a simpler formula would avoid it.",
        ResampleWarning,
    )
    return dataclasses.replace(comparison, notes=tuple(notes))


def _head(comparison: Comparison) -> tuple[tuple[str, ...], ...]:
    records, design = comparison.records, comparison.design
    links = [propensity_text(record) for record in records if record.propensity is not None]
    used, drawn = int((comparison.reasons == Reason.OK).all(axis=1).sum()), len(comparison.reasons)
    kind = "given" if comparison.given_resamples else records[0].bootstrap
    left = [
        ("Dep. Variable:", design.endog_name),
        ("Treatment:", design.treat_name),
        ("Target:", target_text(records[0])),
        ("Outcome model:", "constants" if all(r.spec.constants for r in records) else records[0].sample.family.label),
        ("Propensity:", links[0] if links else "none"),
    ]
    right = [
        ("No. Observations:", f"{design.nobs}"),
        ("Rows dropped:", f"{len(design.in_sample) - design.n}"),
        ("Std. errors:", f"bootstrap ({kind})"),
        ("Resamples:", f"{used} of {drawn} used by all"),
        ("Seed:", f"{records[0].seed.entropy}"),
    ]
    if design.weight_type is not None:
        left.append(("Weights:", f"{design.weights_name} ({design.weight_type})"))
    if design.cluster is not None:
        right.append(("Clusters:", f"{design.cluster_name} ({int(design.cluster.max()) + 1})"))
    return tuple((*a, *b) for a, b in zip_longest(left, right, fillvalue=("", "")))


def _numbers_table(frame: pd.DataFrame, corner: str, alpha: float, widths: tuple[int, ...]) -> TableContent:
    """Lay out a frame of estimates; limits of the interval get the usual heads."""
    errors = [name for name in ("std err", "robust se") if name in frame]
    spec = column_format(frame[errors].to_numpy(), frame.iloc[:, 0].to_numpy())
    shown = {name: (lambda v: format(v, spec)) for name in frame} | {"z": lambda v: f"{v:.2f}", "P>|z|": format_p}
    rows = tuple(
        (str(name), *(shown[column](value) for column, value in zip(frame.columns, values, strict=True)))
        for name, values in zip(frame.index, frame.to_numpy(), strict=True)
    )
    heads = {"robust se": "robust", "lower": f"[{alpha / 2:.4g}", "upper": f"{1 - alpha / 2:.4g}]"}
    return TableContent(rows=rows, header=((corner, *(heads.get(c, c) for c in frame.columns)),), widths=widths)


def _notes(comparison: Comparison) -> list[str]:
    design, names = comparison.design, comparison.names
    dropped = len(design.in_sample) - design.n
    notes = [
        f"All estimators use the same {design.nobs} {design.unit_name}s and the same resamples. The std err is the "
        "bootstrap's, which intervals and tests use; the robust one is from the stacked estimating equations."
    ]
    if len(names) > 1:
        notes.append(
            "Tests of differences are paired: their std err is that of the difference within each resample, over the "
            "resamples that worked for both."
        )
    formulas = f"Outcome: {design.formula}"
    if any(record.propensity is not None for record in comparison.records):
        formulas += f"   Propensity: {design.propensity_formula}"
    notes.append(formulas)
    if any(str(level) != label for level, label in zip(design.levels, design.labels, strict=True)):
        coded = zip(design.labels, design.levels, strict=True)
        notes.append("Arms: " + ", ".join(f"{label} is {design.treat_name} = {level}" for label, level in coded) + ".")
    if dropped:
        notes.append(f'{dropped} rows dropped for all estimators. See res.results["{names[0]}"].sample_ledger.')
    return notes + [note.replace("\n", " ") for note in comparison.notes]
