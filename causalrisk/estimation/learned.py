"""Predictions of the outcome by learners, and the designs that they are part of.

Flows in: a design and the options. Flows out: cross-fitted predictions of every row in every arm (`Learned`), and two
designs with the same rows and scores. In one the predictions of all arms are terms of every arm's outcome model, after
those of the formula. In the other they are the outcome models. Both are fitted as any design is: the predictions are
fixed columns, for influence functions and for resamples.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from causalrisk.design import Design, TargetRows
from causalrisk.design.scan.coding import CodedRows
from causalrisk.errors import DesignWarning, Notes, OptionError, UnavailableError
from causalrisk.estimation.beyond_memory import folds_by_position
from causalrisk.estimation.options import InferenceOptions, ModelOptions
from causalrisk.learners.cross_fitting import (
    CrossFitted,
    cross_fit,
    learners_of,
    on_predictor_scale,
)
from causalrisk.learners.folds import LearnerRows, Numbers, Training
from causalrisk.learners.smooth import Smooth
from causalrisk.numerics.blocks import add_up
from causalrisk.numerics.families import OutcomeFamily
from causalrisk.numerics.linalg import Array
from causalrisk.runtime.workers import worker_count

T = TypeVar("T")
Rows = TypeVar("Rows", CodedRows, Design)
ROUNDED = 1e-14  # spread of a constant relative to its mean square


@dataclass(frozen=True)
class Learned:
    """Cross-fitted predictions of a sample.

    Parameters
    ----------
    fits : tuple of CrossFitted
        One for each learner; rows in the order of the design.
    quality : ndarray, shape (L, K, 3)
        Of each learner in each arm, by rows it was not fitted to: R squared, and intercept and slope of the outcomes on
        the predictions.
    folds : ndarray of int, shape (n,)
        Fold of each row, by its position in the data.
    """

    fits: tuple[CrossFitted, ...]
    quality: Array
    folds: Numbers

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the learners."""
        return tuple(fit.name for fit in self.fits)

    def of(self, number: int) -> Learned:
        """Return the predictions of one learner."""
        return dataclasses.replace(self, fits=(self.fits[number],), quality=self.quality[[number]])


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
        means = [fit.of_new(columns[:, self.features]) for fit in self.fits]
        return on_predictor_scale(self.family, np.concatenate(means))[0].T

    def of_rows(self, columns: Array, fold: Numbers) -> Array:
        """Return the predictions of rows of the sample by the fits of their folds, likewise."""
        means = [fit.of_rows(columns[:, self.features], fold) for fit in self.fits]
        return on_predictor_scale(self.family, np.concatenate(means))[0].T


def learn(design: Design, options: ModelOptions, inference: InferenceOptions, notes: Notes) -> Learned:
    """Cross-fit the learners of the options to the rows of each arm.

    Parameters
    ----------
    options : ModelOptions
        The learners, the folds, which a cross-fitted propensity score has too, and the family.
    """
    if design.offset_kind is not None:
        raise OptionError(f"a learner ignores the {design.offset_kind}.\nLeave learner= out, or {design.offset_kind}=.")
    features = feature_columns(design)
    if not features.any():
        raise OptionError(
            "learner= needs terms in the outcome formula, which has only the constant.\n"
            'Use `from_formula("y ~ x1 + x2", ..., learner=...)`.'
        )
    smooth = Smooth(options.outcome_family, design.weight_type or "frequency")
    learners = learners_of(options.learner, design.labels, design.levels, smooth, design.has_binary_outcome)
    workers = worker_count(inference.n_jobs, 1.0 if design.on_disk else design.X.nbytes)
    folds, kind = folds_by_position(design, options.n_folds, options.repeat), design.weight_type

    def made(block: CodedRows | Design) -> LearnerRows:
        """Return the rows of a block of a scan, or of a design in memory, with the columns that are learnt from."""
        return LearnerRows(
            features=block.X[:, features],
            y=block.y,
            arm=block.arm,
            fold=folds[block.position],
            weights=None if kind is None else block.weights,
            counts=kind == "frequency",
            number=block.position,
        )

    for learner in learners if design.on_disk else ():
        if not all(isinstance(model, Smooth) for model in learner.models):
            raise UnavailableError(
                f"the learner {learner.name} is not available for data on disk.\n"
                'Use `learner="smooth"`, or, if the rows fit into memory, `data=data.collect()`.'
            )
    rows = None if design.on_disk else made(design)

    def over(function: Callable[[LearnerRows], T]) -> Iterator[T]:
        """Begin a pass over the rows."""
        return iter([function(rows)]) if rows is not None else design.over(lambda block: function(made(block)))

    training = Training(over, design.labels, options.n_folds, options.repeat)
    fits = tuple(cross_fit(learner, training, workers, rows) for learner in learners)
    family, origin = options.outcome_family, design.outcome_limits.mean(axis=1)
    products, moved, size = add_up(over(functools.partial(_compared, fits, family, origin)))
    if moved:
        told = (
            f"{moved} of {size} predictions of the learner are outside of what a mean of the {family.label} model can "
            "be, or nearly, and were set to just inside."
        )
        models = [model for learner in learners for model in learner.models]
        if all(hasattr(model, "predict_proba") or isinstance(model, Smooth) for model in models):
            notes.append(told)  # they are of 0 and 1, and merely too near
        else:
            advice = (
                "Use a learner whose predictions are in the range of the outcome, such as a classifier for 0 and 1."
            )
            notes.warn(f"{told}\n{advice}", DesignWarning)
    return Learned(fits, _quality(products, origin), folds)


def _compared(
    fits: Sequence[CrossFitted], family: OutcomeFamily, origin: Array, rows: LearnerRows
) -> tuple[Array, int, int]:
    """Sum products of 1, prediction and outcome about the origin of each arm, and count predictions out of range."""
    products, moved, size = np.zeros((len(fits), len(origin), 3, 3)), 0, 0
    for number, fit in enumerate(fits):
        values = fit.of_rows(rows.features, rows.fold)
        moved, size = moved + on_predictor_scale(family, values)[1], size + values.size
        for a, start in enumerate(origin):
            own = rows.trained(a)
            three = np.stack([np.ones(len(own)), values[a, own] - start, rows.y[own] - start])
            products[number, a] = (three * rows.weights_of(own)[0]) @ three.T
    return products, moved, size


def _quality(products: Array, origin: Array) -> Array:
    """R squared, and intercept and slope of outcomes on predictions, (L, K, 3), from sums of products."""
    count = products[..., 0, 0]
    means = products[..., 0, 1:] / count[..., None]
    spread = products[..., 1:, 1:] - count[..., None, None] * means[..., :, None] * means[..., None, :]
    varies = np.diagonal(spread, axis1=-2, axis2=-1) > ROUNDED * np.diagonal(products, axis1=-2, axis2=-1)[..., 1:]
    errors = products[..., 1, 1] - 2 * products[..., 1, 2] + products[..., 2, 2]
    with np.errstate(all="ignore"):
        r_squared = np.where(varies[..., 1], 1 - errors / spread[..., 1, 1], np.nan)
        slope = np.where(varies[..., 0], spread[..., 0, 1] / spread[..., 0, 0], np.nan)
    intercept = means[..., 1] + origin - slope * (means[..., 0] + origin)
    return np.stack([r_squared, intercept, slope], axis=-1)


def feature_columns(design: Design) -> Array:
    """Mark the columns of the outcome design that vary among the rows with an outcome."""
    limits = design.column_limits
    return np.asarray(limits[:, 1].max(axis=0) > limits[:, 0].min(axis=0))


def with_predictions(
    design: Design,
    frame: TargetRows | None,
    learned: Learned,
    family: OutcomeFamily,
    notes: Notes,
    *,
    given: bool,
) -> tuple[Design, TargetRows | None]:
    """Add the predictions of all arms to the terms of the outcome models, or put them in the place of these.

    Parameters
    ----------
    frame : TargetRows or None
        Rows of a target frame.
    notes : Notes
        Warnings so far; one is added where a column depends on others, and is left out.
    given : bool
        Whether the predictions of a learner, a column for each arm, are the outcome models.

    Returns
    -------
    design : Design
        With other columns in the outcome design.
    frame : TargetRows or None
        Likewise.
    """
    make, before = Predictors(learned.fits, family, feature_columns(design)), list[str]()
    names = [f"{fit.name}[{label}]" for fit in learned.fits for label in design.labels]
    kept = np.repeat([not given, True], [len(design.exog_names), len(names)])
    encoder = design.outcome_encoder.extended(names, make, kept)

    def step(block: Rows) -> Rows:
        """Put the cross-fitted predictions of a block of rows after its columns, or in their place."""
        columns = make.of_rows(block.X, learned.folds[block.position])
        return dataclasses.replace(block, X=columns if given else np.hstack([block.X, columns]))

    extended = design.extended(step, encoder, before, given=given)
    for note in before:
        if note not in design.notes:
            notes.warn(note, DesignWarning)
    if frame is None:
        return extended, None
    columns = make(frame.X)
    if not given:
        kept = np.isin(encoder.names, extended.outcome_encoder.names)
        columns = np.hstack([frame.X, columns])[:, kept]
    return extended, dataclasses.replace(frame, X=columns)
