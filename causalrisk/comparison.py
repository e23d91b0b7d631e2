"""Several estimators fitted to one sample and resampled together: the numbers behind `compare`."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalrisk.assembly import Assembly
from causalrisk.design import Design
from causalrisk.errors import OptionError
from causalrisk.estimators import UNADJUSTED, Specification
from causalrisk.fitting import estimate_of, fit_joint, fit_separate, overlap_of
from causalrisk.inference.bootstrap import BootstrapDistribution
from causalrisk.inference.intervals import normal_interval
from causalrisk.ledger import Notes, Reason, failure_text
from causalrisk.linalg import Array
from causalrisk.model import CausalModel
from causalrisk.models import AIPW, IPW, IPWRA, JRE, Hajek, OutcomeRegression
from causalrisk.options import InferenceOptions, JREOptions, ModelOptions, listed
from causalrisk.record import FitRecord
from causalrisk.refit import PropensityRefitter, Refits
from causalrisk.report.summary import z_and_p
from causalrisk.resampling import bootstrap, make_resampling
from causalrisk.results import CausalResults
from causalrisk.targets import ArmTarget
from causalrisk.uncertainty import refitter_of, start_record, with_uncertainty, without_rounding_error

ROUNDING = 1e-10  # a paired standard error below this share of the estimators' own is rounding error
TESTS = ("std err", "z", "P>|z|", "lower", "upper")


class Unadjusted(CausalModel):
    """The difference of the arms' raw means, whatever covariates the formulas name."""

    spec = UNADJUSTED


MODELS: tuple[type[CausalModel], ...] = (Unadjusted, OutcomeRegression, Hajek, IPWRA, AIPW, JRE)


def chosen_models(estimators: Any) -> list[type[CausalModel]]:
    """Return the model classes that were named, all by default; an OptionError names the nearest to an unknown one."""
    known = {model.spec.name: model for model in MODELS}
    given = [estimators] if isinstance(estimators, (str, type)) else list(known if estimators is None else estimators)
    models: list[type[CausalModel]] = []
    for item in given:
        name = item.spec.name if item in MODELS else IPW.spec.name if item == "IPW" else item
        if not isinstance(name, str) or name not in known:
            lower = {key.lower(): key for key in known}
            close = difflib.get_close_matches(getattr(item, "__name__", str(item)).lower(), lower, 1, 0.4)
            nearest = lower[close[0]] if close else JRE.spec.name
            raise OptionError(
                f"estimators: {item!r} is not known; expected any of {listed(tuple(known))}.\n"
                f'Type  estimators=["{nearest}"].'
            )
        if known[name] in models:
            raise OptionError(f"estimators: {name!r} is named twice.\nName each estimator once.")
        models.append(known[name])
    if not models:
        raise OptionError("estimators is empty; expected at least one name.\nLeave it out for all estimators.")
    return models


@dataclass(frozen=True)
class Comparison:
    """What a comparison of E estimators produced.

    Parameters
    ----------
    fits : tuple of CausalResults
        One for each estimator, with robust standard errors.
    boot : ndarray, shape (n_boot, E (K - 1))
        Effects over the resamples, those of an estimator one after the other; NaN where it failed.
    reasons : ndarray of int8, shape (n_boot, E)
        A `Reason` for each resample and estimator.
    given_resamples : bool
        Whether the caller gave the resamples.
    notes : tuple of str
        Text of every warning.
    """

    fits: tuple[CausalResults, ...]
    boot: Array
    reasons: NDArray[np.int8]
    given_resamples: bool
    notes: tuple[str, ...]

    @property
    def records(self) -> list[FitRecord]:
        """The record of each fit."""
        return [fit._record for fit in self.fits]

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

    def failures(self) -> dict[str, list[str]]:
        """Sentences that count failed resamples -> the estimators they are true of."""
        found: dict[str, list[str]] = {}
        for name, reasons in zip(self.names, self.reasons.T, strict=True):
            found.setdefault(failure_text(reasons), []).append(name)
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
        fits = [record.propensity for record in records if record.propensity is not None]
        self.propensity = PropensityRefitter(fits[0]) if fits else None

    def __call__(self, weights: Array, first: int) -> Refits:
        """Refit under multiplicities (n, m): rows are, for each estimator, its 2 K - 1 parameters and its `Reason`."""
        batch = self.propensity(weights) if self.propensity is not None else None
        refits = [refit(weights, first, batch) for refit in self.refitters]
        rows = [part for refit in refits for part in (refit.values[: self.width], refit.reasons[None])]
        return Refits(np.concatenate(rows), np.zeros(weights.shape[1], dtype=np.int8))


def fit_estimators(
    design: Design,
    models: Sequence[type[CausalModel]],
    options: ModelOptions,
    inference: InferenceOptions,
    joint_options: JREOptions,
) -> Comparison:
    """Fit estimators to one sample, with one propensity fit and robust standard errors, not yet resampled.

    Parameters
    ----------
    design : Design
        The data.
    models : sequence of model classes
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
    robust = dataclasses.replace(inference, cov_type=cov_type, bootstrap=None, resamples=None)
    specs = [model.spec for model in models]
    if JRE.spec in specs:
        lead = fit_joint(design, options, dataclasses.replace(robust, bootstrap=kind), joint_options)
    else:
        spec = next((spec for spec in specs if spec.uses_propensity), specs[0])
        lead = dataclasses.replace(fit_separate(design, spec, options, robust), bootstrap=kind)
    fits = []
    for model in models:
        record = lead if model.spec == lead.spec else _beside(lead, model.spec, robust)
        start = CausalResults(IPWRA._of(design, options), start_record(record)) if record.joint is not None else None
        fits.append(CausalResults(model._of(design, options), record, start))
    nothing, reasons = np.empty((0, len(fits) * (design.n_arms - 1))), np.empty((0, len(fits)), dtype=np.int8)
    return Comparison(tuple(fits), nothing, reasons, inference.resamples is not None, lead.notes)


def _beside(lead: FitRecord, spec: Specification, robust: InferenceOptions) -> FitRecord:
    """Fit another estimator to the sample and the propensity scores of the first."""
    weights = lead.propensity if spec.uses_propensity or not isinstance(lead.target, ArmTarget) else None
    data = Assembly(lead.design, lead.sample, lead.target, lead.frame, weights, lead.trimmed)
    overlap, message = overlap_of(data, weights if spec.uses_propensity else None)
    notes = Notes([*lead.design.notes, message] if message else lead.design.notes)
    estimate = estimate_of(data, spec, lead.options, notes)
    record = dataclasses.replace(
        lead, spec=spec, propensity=weights, estimate=estimate, overlap=overlap, joint=None, notes=tuple(notes)
    )
    return with_uncertainty(record, robust, notes)


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
    resampling = make_resampling(first.design, first.sample, first.bootstrap, first.seed)
    stacked = bootstrap(SharedRefitter(records), resampling, first.sample, inference, Notes()).values
    parts = stacked.reshape(len(stacked), len(records), -1)
    reasons = parts[:, :, -1].astype(np.int8)
    columns = []
    for k, record in enumerate(records):
        own = BootstrapDistribution(parts[:, k, :-1], reasons[:, k])
        exact = without_rounding_error(dataclasses.replace(record, boot=own)).boot or own
        effects = exact.values[:, : len(comparison.effect_names)]
        columns.append(np.where(reasons[:, [k]] == Reason.OK, effects, np.nan))
    return dataclasses.replace(comparison, boot=np.concatenate(columns, axis=1), reasons=reasons)


def spread(columns: Array) -> Array:
    """Return the standard deviation of each column over its values that are not NaN; NaN of fewer than two."""
    kept = [column[~np.isnan(column)] for column in columns.T]
    return np.array([values.std(ddof=1) if len(values) > 1 else np.nan for values in kept])


def effects_frame(comparison: Comparison, alpha: float) -> pd.DataFrame:
    """Return the effects, a row an estimator, with bootstrap and robust standard errors, z test and interval."""
    effects, se = comparison.effects, spread(comparison.boot)
    frame = _tested(effects, se, alpha, comparison.rows, "effect", comparison.records[0].options.scale.null)
    count = len(comparison.effect_names)
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
    own, paired = spread(comparison.boot), spread(comparison.boot[:, left] - comparison.boot[:, right])
    rounding = ROUNDING * np.maximum(own[left], own[right])
    paired = np.where(paired <= rounding, 0.0, paired)
    differences = np.where((paired == 0) & (np.abs(differences) <= rounding), 0.0, differences)
    levels = {"estimator": [names[i] for i, _, _ in pairs], "minus": [names[j] for _, j, _ in pairs]}
    if count > 1:
        levels["effect"] = [comparison.effect_names[k] for _, _, k in pairs]
    index = pd.MultiIndex.from_arrays(list(levels.values()), names=list(levels))
    return _tested(differences, paired, alpha, index, "difference")


def _tested(values: Array, se: Array, alpha: float, index: pd.Index, name: str, null: float = 0.0) -> pd.DataFrame:
    """Return estimates with standard errors, z tests against the null and normal intervals."""
    z, p = z_and_p(values, se, null)
    numbers = np.column_stack([values, se, z, p, normal_interval(values, se, alpha)])
    return pd.DataFrame(numbers, index=index, columns=[name, *TESTS])
