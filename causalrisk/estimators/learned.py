"""Predictions of the outcome by learners, and the designs that they are part of.

Flows in: a design and the options. Flows out: cross-fitted predictions of every row in every arm (`Learned`), and two
designs with the same rows and scores. In one the predictions of all arms are terms of every arm's outcome model, after
those of the formula. In the other they are the outcome models. Both are fitted as any design is: the predictions are
fixed columns, for influence functions and for resamples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from causalrisk.design import Design, TargetRows
from causalrisk.design.encoders import ExtendedEncoder
from causalrisk.design.support import Encoder, Matrices, supported
from causalrisk.errors import ConvergenceWarning, DesignWarning, Notes, OptionError
from causalrisk.estimators.options import InferenceOptions, ModelOptions
from causalrisk.learners.cross_fitting import (
    CrossFitted,
    LearnerRows,
    cross_fit,
    folds_of,
    learners_of,
    on_predictor_scale,
    out_of_fold_r_squared,
)
from causalrisk.learners.smooth import Smooth
from causalrisk.numerics.families import OutcomeFamily
from causalrisk.numerics.linalg import Array, all_ones
from causalrisk.runtime.workers import worker_count


@dataclass(frozen=True)
class Learned:
    """Cross-fitted predictions of a sample.

    Parameters
    ----------
    fits : tuple of CrossFitted
        One for each learner; rows in the order of the design.
    r_squared : ndarray, shape (L, K)
        Out-of-fold R squared of each learner in each arm.
    """

    fits: tuple[CrossFitted, ...]
    r_squared: Array

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the learners."""
        return tuple(fit.name for fit in self.fits)

    def of(self, number: int) -> Learned:
        """Return the predictions of one learner."""
        return dataclasses.replace(self, fits=(self.fits[number],), r_squared=self.r_squared[[number]])


@dataclass(frozen=True)
class Predictors:
    """Columns of predictions, of rows that are in no fold.

    Parameters
    ----------
    fits : tuple of CrossFitted
        The learners.
    family : OutcomeFamily
        Family of the outcome models, on whose scale of linear predictors the columns are.
    features : ndarray of bool, shape (p,)
        The columns of the outcome design that the learners learn from.
    """

    fits: tuple[CrossFitted, ...]
    family: OutcomeFamily
    features: Array

    def __call__(self, columns: Array) -> Array:
        """Return the predictions for columns of the outcome design, (m, p), an arm after the other, (m, L K)."""
        means = np.concatenate([fit.of_new(columns[:, self.features]) for fit in self.fits])
        return on_predictor_scale(self.family, means)[0].T


def check_no_offset(design: Design) -> None:
    """Refuse an offset, which a learner does not know."""
    if design.offset_kind is not None:
        raise OptionError(
            f"a learner predicts the outcome without the {design.offset_kind} ({design.offset_name!r}) of the outcome "
            f"models.\nLeave learner= out, or {design.offset_kind}=."
        )


def learn(design: Design, options: ModelOptions, inference: InferenceOptions, notes: Notes) -> Learned:
    """Cross-fit the learners of the options to the rows of each arm.

    Parameters
    ----------
    design : Design
        The data, trimmed if asked for.
    options : ModelOptions
        The learners, the folds, which a cross-fitted propensity score has too, and the family.
    inference : InferenceOptions
        Fits at a time.
    notes : Notes
        Warnings so far; more are added.

    Returns
    -------
    Learned
        Predictions of the rows.
    """
    check_no_offset(design)
    features = feature_columns(design.X)
    if not features.any():
        raise OptionError(
            "a learner learns from the terms of the outcome formula, which has none but the constant.\n"
            'Type  from_formula("y ~ x1 + x2", ..., learner=...)  with the covariates.'
        )
    fold = folds_of(design.arm, all_ones(design.n), design.n_arms, design.cluster, options.n_folds, options.repeat)
    smooth = Smooth(options.outcome_family, design.weight_type or "frequency")
    learners = learners_of(options.learner, design.labels, design.levels, smooth, design.has_binary_outcome)
    rows = LearnerRows(
        features=design.X[:, features],
        y=design.y,
        arm=design.arm,
        fold=fold,
        weights=None if design.weight_type is None else design.weights,
        counts=design.weight_type == "frequency",
        repeat=options.repeat,
    )
    workers = worker_count(inference.n_jobs, inference.memory, design.X.nbytes)
    fits = tuple(cross_fit(learner, rows, workers) for learner in learners)
    _tell_of_convergence(fits, design.labels, rows.n_folds, notes)
    moved = sum(on_predictor_scale(options.outcome_family, fit.predictions)[1] for fit in fits)
    if moved:
        told = (
            f"{moved} of {sum(fit.predictions.size for fit in fits)} predictions of the learner are outside of what a "
            f"mean of the {options.outcome_family.label} model can be, or nearly, and were set to just inside."
        )
        classifiers = all(hasattr(model, "predict_proba") for learner in learners for model in learner.models)
        if classifiers:
            notes.append(told)
        else:
            advice = (
                "Use a learner whose predictions are in the range of the outcome, such as a classifier for 0 and 1."
            )
            notes.warn(f"{told}\n{advice}", DesignWarning)
    found = [out_of_fold_r_squared(fit.predictions, design.y, design.arm, design.weights) for fit in fits]
    return Learned(fits, np.stack(found))


def _tell_of_convergence(fits: Sequence[CrossFitted], labels: Sequence[str], n_folds: int, notes: Notes) -> None:
    """Warn once of each learner whose fits did not all converge."""
    for fit in fits:
        texts = [text for said in fit.not_converged for text in said]
        if not texts:
            continue
        arms = ", ".join(
            f"{len(said)} of {n_folds} folds of arm {label!r}"
            for label, said in zip(labels, fit.not_converged, strict=True)
            if said
        )
        first, fits_made = texts[0].strip().partition("\n")[0].rstrip("."), n_folds * len(labels)
        notes.warn(
            f"the learner {fit.name} did not converge in {len(texts)} of {fits_made} fits: {arms}. It says: {first}.\n"
            'Give it more iterations or standardised covariates, or type  learner="smooth".',
            ConvergenceWarning,
        )


def feature_columns(X: Array) -> Array:
    """Mark the columns that vary."""
    return np.asarray(np.ptp(X, axis=0) > 0)


def with_terms(
    design: Design, frame: TargetRows | None, learned: Learned, family: OutcomeFamily, notes: Notes
) -> tuple[Design, TargetRows | None]:
    """Add the predictions of all arms to the terms of the outcome models.

    Parameters
    ----------
    design : Design
        The data.
    frame : TargetRows or None
        Rows of a target frame.
    learned : Learned
        Predictions of the rows of the design.
    family : OutcomeFamily
        Family of the outcome models.
    notes : Notes
        Warnings so far; one is added where a column depends on others, and is left out.

    Returns
    -------
    design : Design
        With more columns in the outcome design.
    frame : TargetRows or None
        Likewise.
    """
    make, columns = _columns(design, learned, family)
    encoder = ExtendedEncoder(design.outcome_encoder, _names(design.labels, learned.fits), make)
    given = Matrices(
        np.ascontiguousarray(np.hstack([design.X, columns])), design.Z, encoder, design.propensity_encoder,
        design.dropped_terms,
    )  # fmt: skip
    counts, before = design.weights if design.weight_type == "frequency" else None, list[str]()
    matrices = supported(given, design.arm, design.labels, design.rules, before, counts)
    for note in before:
        if note not in design.notes:
            notes.warn(note, DesignWarning)
    extended = _extended(design, matrices.X, matrices.outcome, matrices.dropped)
    if frame is None:
        return extended, None
    kept = np.isin(encoder.names, matrices.outcome.names)
    return extended, dataclasses.replace(frame, X=np.hstack([frame.X, make(frame.X)])[:, kept])


def in_place(
    design: Design, frame: TargetRows | None, learned: Learned, family: OutcomeFamily
) -> tuple[Design, TargetRows | None]:
    """Put the predictions of a learner in the place of the terms of the outcome models, a column for each arm.

    Parameters and results are those of `with_terms`.
    """
    make, columns = _columns(design, learned, family)
    names = _names(design.labels, learned.fits)
    kept = np.r_[np.zeros(design.X.shape[1], dtype=bool), np.ones(len(names), dtype=bool)]
    encoder = ExtendedEncoder(design.outcome_encoder, names, make, kept)
    replaced = _extended(design, np.ascontiguousarray(columns), encoder, design.dropped_terms)
    return replaced, None if frame is None else dataclasses.replace(frame, X=make(frame.X))


def _columns(design: Design, learned: Learned, family: OutcomeFamily) -> tuple[Predictors, Array]:
    """Return what predicts other rows, and the predictions of the rows of the design, shape (n, L K)."""
    means = np.concatenate([fit.predictions for fit in learned.fits])
    return Predictors(learned.fits, family, feature_columns(design.X)), on_predictor_scale(family, means)[0].T


def _names(labels: Sequence[str], fits: Sequence[CrossFitted]) -> list[str]:
    return [f"{fit.name}[{label}]" for fit in fits for label in labels]


def _extended(design: Design, X: Array, encoder: Encoder, dropped: tuple[str, ...]) -> Design:
    return dataclasses.replace(design, X=X, exog_names=encoder.names, outcome_encoder=encoder, dropped_terms=dropped)
