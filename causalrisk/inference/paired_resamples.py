"""Several estimators fitted to one sample and resampled together: the numbers behind `compare`."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalrisk.design import Design
from causalrisk.errors import CausalRiskWarning, Failure, Notes, OptionError, Told, check_alpha, failure_text, warn_user
from causalrisk.estimation.abilities import check_options, options_used, with_change
from causalrisk.estimation.fit import fit_joint, fit_separate
from causalrisk.estimation.options import BOOTSTRAPS, InferenceOptions, JREOptions, ModelOptions
from causalrisk.estimation.prepare import check_one_way, task_of
from causalrisk.estimation.record import BootstrapDistribution, FitRecord
from causalrisk.estimation.specification import IPWRA, JRE, Specification
from causalrisk.inference.covariance import (
    covariance_over,
    drawn_or_weighed,
    note_failures,
    resample_errors,
    robust_record,
    start_record,
    with_bootstrap,
    with_covariance,
)
from causalrisk.inference.intervals import Estimates
from causalrisk.inference.simultaneous import adjusted_frame, pairs_against
from causalrisk.numerics.linalg import Array
from causalrisk.runtime.system import one_blas_thread

PAIRED_ROUNDING = 1e-10  # a paired standard error below this share of the estimators' own is rounding error


@dataclass(frozen=True)
class Comparison:
    """Fits and resamples of a comparison of E estimators.

    `bare` are the fits without standard errors, `records` with robust ones, `distributions` the estimates over the
    resamples; `given_resamples` says whether the caller gave these. `notes` has the text of every warning.
    """

    bare: tuple[FitRecord, ...]
    records: tuple[FitRecord, ...]
    distributions: tuple[BootstrapDistribution, ...]
    given_resamples: bool
    notes: tuple[str, ...]

    @property
    def boot(self) -> Array:
        """Effects over the resamples, shape (n_boot, E (K - 1)), an estimator after the other; NaN where it failed."""
        count = len(self.effect_names)
        parts = [(boot.failures == Failure.OK, boot.values[:, :count]) for boot in self.distributions]
        return np.concatenate([np.where(used[:, None], values, np.nan) for used, values in parts], axis=1)

    @property
    def failures(self) -> NDArray[np.int8]:
        """A `Failure` for each resample and estimator, shape (n_boot, E)."""
        return np.stack([boot.failures for boot in self.distributions], axis=1)

    @property
    def design(self) -> Design:
        """The data."""
        return self.records[0].design

    @property
    def effect_names(self) -> list[str]:
        """Names of the effects: one for each arm but the reference."""
        return self.records[0].effect_names

    @property
    def rows(self) -> pd.Index:
        """Labels of the columns of `boot`: estimators, of several arms estimators and effects."""
        if len(self.effect_names) == 1:
            return pd.Index(self.names, name="estimator")
        return pd.MultiIndex.from_product([self.names, self.effect_names], names=["estimator", "effect"])

    @property
    def names(self) -> list[str]:
        """Name of each estimator."""
        return [record.spec.name for record in self.records]

    @property
    def effects(self) -> Array:
        """Effects by each estimator, shape (E (K - 1),)."""
        return np.concatenate([record.estimate.params[: len(self.effect_names)] for record in self.records])

    def failure_counts(self) -> dict[str, list[str]]:
        """Sentences that count failed resamples -> the estimators they are true of."""
        found: dict[str, list[str]] = {}
        for name, failures in zip(self.names, self.failures.T, strict=True):
            found.setdefault(failure_text(failures), []).append(name)
        return {text: names for text, names in found.items() if text}

    def bootstrap_records(self) -> tuple[FitRecord, ...]:
        """Return the fit of each estimator with the standard errors of its own bootstrap."""
        cov_type, found = "bootstrap" if self.design.replication is None else "replicates", []
        for bare, boot in zip(self.bare, self.distributions, strict=True):
            notes = Told(bare.notes)
            note_failures(boot, notes)
            record = dataclasses.replace(bare, cov_type=cov_type, given_resamples=self.given_resamples)
            found.append(with_bootstrap(record, boot, notes))
        return tuple(found)


@one_blas_thread()
def fit_estimators(
    design: Design,
    specs: Sequence[Specification],
    options: ModelOptions,
    inference: InferenceOptions,
    joint_options: JREOptions,
) -> Comparison:
    """Fit estimators to one sample, with robust errors, not yet resampled."""
    for spec in specs:
        check_options(spec, design, options_used(spec, options))
    specs = specs if options.did is None else [with_change(spec, options.did) for spec in specs]
    if options.n_repeats > 1:
        raise OptionError(f"n_repeats={options.n_repeats}; compare has one fit per estimator.\nUse `n_repeats=1`.")
    check_one_way(design, f'cluster="{design.cluster_name}"')
    kind = inference.resolved(design, joint=JRE in specs)[1]
    cov_type = None if design.survey is not None else "robust" if design.cluster is None else "cluster"
    robust = dataclasses.replace(
        inference, cov_type=cov_type, bootstrap=None, n_boot=None, resamples=None, multiplier=None
    )
    for spec in specs:  # refuses what one of them does not have
        task_of(design, spec, options, inference)
    of_joint = dataclasses.replace(robust, bootstrap=kind if kind in BOOTSTRAPS and design.survey is None else None)
    with warnings.catch_warnings(record=True) as given:  # several fits give the same
        warnings.simplefilter("always", CausalRiskWarning)
        bare = [
            fit_joint(design, options, of_joint, joint_options)
            if spec.joint
            else fit_separate(design, spec, options, robust)
            for spec in specs
        ]
        bare = [dataclasses.replace(record, bootstrap=kind) for record in bare]
        if design.replication is None:
            records = tuple(with_covariance(record, robust) for record in bare)
        else:  # the design's errors come with the resamples
            records = tuple(map(robust_record, bare))
    for text, category in dict.fromkeys((str(warning.message), warning.category) for warning in given):
        warn_user(text, category)
    nothing = [BootstrapDistribution(np.empty((0, len(r.estimate.values))), np.empty(0, np.int8)) for r in bare]
    richest = max(records, key=lambda record: (record.spec.joint, record.spec.uses_propensity))
    return Comparison(tuple(bare), records, tuple(nothing), inference.resamples is not None, richest.notes)


@one_blas_thread()
def resample_estimators(comparison: Comparison, inference: InferenceOptions) -> Comparison:
    """Redo every estimator on the same resamples; with JRE and no bootstrap named, as in `drawn_or_weighed`."""
    notes = Notes(comparison.notes)
    bare, drawn = drawn_or_weighed(comparison.bare, inference, notes)
    records = tuple(dataclasses.replace(record, bootstrap=bare[0].bootstrap) for record in comparison.records)
    found = dataclasses.replace(comparison, bare=bare, records=records, distributions=tuple(drawn), notes=tuple(notes))
    if comparison.design.replication is None:
        return found
    return dataclasses.replace(found, records=found.bootstrap_records())  # the design's errors, not those of rows


def start_difference(record: FitRecord, alpha: float = 0.05) -> pd.DataFrame:
    """Compare JRE with the IPWRA fit it starts from, on the same resamples (JRE with bootstrap standard errors).

    Parameters
    ----------
    alpha : float, default 0.05
        Significance level of the intervals.

    Returns
    -------
    DataFrame
        Rows "IPWRA" and "JRE - IPWRA" (per effect, with several arms): estimate, standard error, test and interval. The
        standard error of the difference is computed from the paired differences.

    Raises
    ------
    UnavailableError
        If the fit has no bootstrap.

    Examples
    --------
    >>> from causalrisk import JRE, datasets
    >>> births = datasets.load_cattaneo2()
    >>> model = JRE.from_formula("bweight ~ mage + medu", births, treat="mbsmoke")
    >>> model.fit(n_boot=99).start_difference().iloc[:, :2].round(2)
                 estimate  std err
    estimator
    IPWRA         -256.86    26.61
    JRE - IPWRA      0.80     0.72
    """
    check_alpha(alpha)
    boot = record.used_boot
    start = np.asarray(boot.start)
    failed = np.isnan(start).any(axis=1)
    of_start = BootstrapDistribution(start, np.where(failed, Failure.NO_EFFECT, Failure.OK).astype(np.int8))
    pair = Comparison((), (record, start_record(record)), (boot, of_start), record.given_resamples, ())
    effects, difference = effects_frame(pair, alpha).drop(columns="robust se"), differences_frame(pair, alpha)
    named = difference.droplevel("minus").rename(index={JRE.name: f"{JRE.name} - {IPWRA.name}"})
    return pd.concat([effects.loc[[IPWRA.name]], named])


def effects_frame(comparison: Comparison, alpha: float) -> pd.DataFrame:
    """Return the effects of each estimator with bootstrap and robust standard errors, test and interval."""
    effects, scale = comparison.effects, comparison.records[0].options.effect_scale
    count = len(comparison.effect_names)
    se, errors = np.empty(len(effects)), np.empty(len(effects))
    for k, record in enumerate(comparison.records):
        own = slice(k * count, (k + 1) * count)
        se[own] = resample_errors(record, comparison.boot[:, own], effects[own])
        errors[own] = resample_errors(record, scale.contrast(comparison.boot[:, own]), scale.contrast(effects[own]))
    df = np.repeat([record.df for record in comparison.records], count)
    frame = Estimates(effects, se, errors, scale, df=df).frame(comparison.rows, alpha)
    robust = [np.sqrt(np.diag(record.covariance)[:count]) for record in comparison.records]
    frame.insert(2, "robust se", np.concatenate(robust))
    return frame


def differences_frame(
    comparison: Comparison, alpha: float, adjust: str | None = None, against: Any = None
) -> pd.DataFrame:
    """Return the differences of the effects of pairs of estimators, with paired standard errors.

    `against` names the estimator that is subtracted, "reference" the first; by default each from all before it. If two
    estimators are the same but for rounding error, difference and error are exactly zero and there is no test. Degrees
    of freedom are the fewer of the two.
    """
    names, count = comparison.names, len(comparison.effect_names)
    position = names.index(against) if against in names else None
    first = list(combinations(range(len(names)), 2))  # the earlier less the later
    chosen = first if against is None else pairs_against(against, names, position)
    pairs = [(i, j, k) for k in range(count) for i, j in chosen]
    left, right = [i * count + k for i, _, k in pairs], [j * count + k for _, j, k in pairs]
    differences = comparison.effects[left] - comparison.effects[right]
    resampled, replication = comparison.boot[:, left] - comparison.boot[:, right], comparison.design.replication
    own, covariance = (
        covariance_over(values) if replication is None else replication.covariance(values, of)
        for values, of in ((comparison.boot, comparison.effects), (resampled, differences))
    )
    sd, paired = np.sqrt(np.diag(own)), np.sqrt(np.diag(covariance))
    rounding = PAIRED_ROUNDING * np.maximum(sd[left], sd[right])
    paired = np.where(paired <= rounding, 0.0, paired)
    differences = np.where((paired == 0) & (np.abs(differences) <= rounding), 0.0, differences)
    levels = {"estimator": [names[i] for i, _, _ in pairs], "minus": [names[j] for _, j, _ in pairs]}
    if count > 1:
        levels["effect"] = [comparison.effect_names[k] for _, _, k in pairs]
    index = pd.MultiIndex.from_arrays(list(levels.values()), names=list(levels))
    df = np.repeat([record.df for record in comparison.records], count)
    df = np.minimum(df[left], df[right])
    covariance = covariance * np.outer(paired > 0, paired > 0)
    return adjusted_frame(differences, paired, covariance, index, adjust=adjust, alpha=alpha, df=df)
