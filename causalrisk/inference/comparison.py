"""Several estimators fitted to one sample and resampled together: the numbers behind `compare`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalrisk.design import Design
from causalrisk.errors import Notes
from causalrisk.estimators.fit import estimate_of, fit_joint, fit_separate, overlap_of
from causalrisk.estimators.options import InferenceOptions, JREOptions, ModelOptions
from causalrisk.estimators.prepare import FitData
from causalrisk.estimators.record import BootstrapDistribution, FitRecord
from causalrisk.estimators.refits import Refits
from causalrisk.estimators.specification import JRE, Specification
from causalrisk.inference.bootstrap import bootstrap, refitter_of
from causalrisk.inference.covariance import with_covariance, without_rounding_error
from causalrisk.inference.resampled import column_sd, resample_errors
from causalrisk.inference.wald import inference_frame
from causalrisk.numerics.failures import Failure, failure_text
from causalrisk.numerics.linalg import Array
from causalrisk.numerics.newton import NewtonFits
from causalrisk.propensity.targets import ArmTarget

PAIRED_ROUNDING = 1e-10  # a paired standard error below this share of the estimators' own is rounding error


@dataclass(frozen=True)
class Comparison:
    """What a comparison of E estimators produced.

    Parameters
    ----------
    records : tuple of FitRecord
        The fit of each estimator, with robust standard errors.
    boot : ndarray, shape (n_boot, E (K - 1))
        Effects over the resamples, those of an estimator one after the other; NaN where it failed.
    failures : ndarray of int8, shape (n_boot, E)
        A `Failure` for each resample and estimator.
    given_resamples : bool
        Whether the caller gave the resamples.
    notes : tuple of str
        Text of every warning.
    """

    records: tuple[FitRecord, ...]
    boot: Array
    failures: NDArray[np.int8]
    given_resamples: bool
    notes: tuple[str, ...]

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
        """What the columns of `boot` are: estimators, of several arms estimators and effects."""
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


class SharedRefitter:
    """Refits several estimators under the same resamples, the propensity model once for all.

    Parameters
    ----------
    records : sequence of FitRecord
        Fits of the estimators to one sample.
    """

    def __init__(self, records: Sequence[FitRecord]) -> None:
        self.refitters = [refitter_of(record) for record in records]
        self.width = len(records[0].estimate.params)
        fitted = [record.weight_fit for record in records if record.weight_fit is not None]
        self.weight_fit = fitted[0] if fitted else None

    def refit(self, counts: Array, first: int, fits: NewtonFits | None = None) -> Refits:
        """As in `refits.Refitter`; rows of `values` are, for each estimator, its parameters and its `Failure`."""
        if fits is None and self.weight_fit is not None:
            fits = self.weight_fit.refit(counts)
        refits = [refitter.refit(counts, first, fits) for refitter in self.refitters]
        rows = [part for refit in refits for part in (refit.values[: self.width], refit.failures[None])]
        return Refits(np.concatenate(rows), np.zeros(counts.shape[1], dtype=np.int8))


def fit_estimators(
    design: Design,
    specs: Sequence[Specification],
    options: ModelOptions,
    inference: InferenceOptions,
    joint_options: JREOptions,
) -> Comparison:
    """Fit estimators to one sample, with one propensity fit and robust standard errors, not yet resampled.

    Parameters
    ----------
    design : Design
        The data.
    specs : sequence of Specification
        The estimators.
    options : ModelOptions
        What is estimated.
    inference : InferenceOptions
        How the bootstrap is done; its `rng` is a SeedSequence.
    joint_options : JREOptions
        How JRE is trained.

    Returns
    -------
    Comparison
        Without resamples.
    """
    kind = inference.resolved(design.cluster is not None, joint=True)[1]
    cov_type = "robust" if design.cluster is None else "cluster"
    robust = dataclasses.replace(inference, cov_type=cov_type, bootstrap=None, n_boot=None, resamples=None)
    if JRE in specs:
        robust_joint = dataclasses.replace(robust, bootstrap=kind)
        lead = with_covariance(fit_joint(design, options, robust_joint, joint_options), robust_joint)
    else:
        spec = next((spec for spec in specs if spec.uses_propensity), specs[0])
        lead = with_covariance(fit_separate(design, spec, options, robust), robust)
        lead = dataclasses.replace(lead, bootstrap=kind)
    records = tuple(lead if spec == lead.spec else _beside(lead, spec, robust) for spec in specs)
    nothing, failures = np.empty((0, len(records) * (design.n_arms - 1))), np.empty((0, len(records)), dtype=np.int8)
    return Comparison(
        records=records,
        boot=nothing,
        failures=failures,
        given_resamples=inference.resamples is not None,
        notes=lead.notes,
    )


def _beside(lead: FitRecord, spec: Specification, robust: InferenceOptions) -> FitRecord:
    """Fit another estimator to the sample and the propensity scores of the first."""
    weights = lead.weight_fit if spec.uses_propensity or not isinstance(lead.target, ArmTarget) else None
    data = FitData(
        design=lead.design,
        full_design=lead.full_design,
        sample=lead.sample,
        target=lead.target,
        frame=lead.frame,
        weight_fit=weights,
        trimmed=lead.trimmed,
    )
    overlap, message = overlap_of(data, weights if spec.uses_propensity else None)
    notes = Notes([*lead.design.notes, message] if message else lead.design.notes)
    estimate = estimate_of(data, spec, lead.options, notes)
    record = dataclasses.replace(
        lead, spec=spec, weight_fit=weights, estimate=estimate, overlap=overlap, joint=None, notes=tuple(notes)
    )
    return with_covariance(record, robust)


def resample_estimators(comparison: Comparison, inference: InferenceOptions) -> Comparison:
    """Redo every estimator on the same resamples.

    Parameters
    ----------
    comparison : Comparison
        The fits.
    inference : InferenceOptions
        How the bootstrap is done.

    Returns
    -------
    Comparison
        With the effects over the resamples.
    """
    records = comparison.records
    first = records[0]
    resampling = first.resampler()
    stacked = bootstrap(
        SharedRefitter(records), resampler=resampling, sample=first.sample, inference=inference, notes=Notes()
    ).values
    parts = stacked.reshape(len(stacked), len(records), -1)
    failures = parts[:, :, -1].astype(np.int8)
    columns = []
    for k, record in enumerate(records):
        own = BootstrapDistribution(parts[:, k, :-1], failures[:, k])
        exact = without_rounding_error(dataclasses.replace(record, boot=own)).boot or own
        effects = exact.values[:, : len(comparison.effect_names)]
        columns.append(np.where(failures[:, [k]] == Failure.OK, effects, np.nan))
    return dataclasses.replace(comparison, boot=np.concatenate(columns, axis=1), failures=failures)


def effects_frame(comparison: Comparison, alpha: float) -> pd.DataFrame:
    """Return the effects, a row an estimator, with bootstrap and robust standard errors, z test and interval.

    Both standard errors are those of `fit`.
    """
    effects, scale = comparison.effects, comparison.records[0].options.effect_scale
    count = len(comparison.effect_names)
    se, errors = np.empty(len(effects)), np.empty(len(effects))
    for k, record in enumerate(comparison.records):
        own = slice(k * count, (k + 1) * count)
        se[own] = resample_errors(record, comparison.boot[:, own], effects[own])
        errors[own] = resample_errors(record, scale.contrast(comparison.boot[:, own]), scale.contrast(effects[own]))
    frame = inference_frame(effects, se=se, alpha=alpha, index=comparison.rows, scale=scale, errors=errors)
    robust = [np.sqrt(np.diag(record.covariance)[:count]) for record in comparison.records]
    frame.insert(2, "robust se", np.concatenate(robust))
    return frame


def differences_frame(comparison: Comparison, alpha: float) -> pd.DataFrame:
    """Return the differences of the effects, a row a pair, with the standard errors of the paired differences.

    Parameters
    ----------
    comparison : Comparison
        The comparison.
    alpha : float
        Significance level of the intervals.

    Returns
    -------
    DataFrame
        Indexed by the estimator and the one that is subtracted from it, of several arms also by the effect. Where two
        estimators are the same but for rounding error, difference and standard error are exactly zero and there is no
        test.
    """
    names, count = comparison.names, len(comparison.effect_names)
    pairs = [(i, j, k) for k in range(count) for i, j in combinations(range(len(names)), 2)]
    left, right = [i * count + k for i, _, k in pairs], [j * count + k for _, j, k in pairs]
    differences = comparison.effects[left] - comparison.effects[right]
    own, paired = column_sd(comparison.boot), column_sd(comparison.boot[:, left] - comparison.boot[:, right])
    rounding = PAIRED_ROUNDING * np.maximum(own[left], own[right])
    paired = np.where(paired <= rounding, 0.0, paired)
    differences = np.where((paired == 0) & (np.abs(differences) <= rounding), 0.0, differences)
    levels = {"estimator": [names[i] for i, _, _ in pairs], "minus": [names[j] for _, j, _ in pairs]}
    if count > 1:
        levels["effect"] = [comparison.effect_names[k] for _, _, k in pairs]
    index = pd.MultiIndex.from_arrays(list(levels.values()), names=list(levels))
    return inference_frame(differences, paired, alpha, index)
