"""Predictions of the outcome by learners, and the designs that use them.

`learn` cross-fits predictions of every row in every arm (`Learned`). `with_predictions` adds the predictions of all
arms to the terms of every outcome model, or replaces the terms. Influence functions and resamples treat the
predictions as fixed columns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from causalrisk.design.design import Design, TargetRows
from causalrisk.design.on_disk import CodedRows
from causalrisk.errors import DesignWarning, Notes, OptionError, not_on_disk
from causalrisk.estimation.options import InferenceOptions, ModelOptions
from causalrisk.estimation.sample import folds_by_position
from causalrisk.learners.cross_fitting import CrossFitted, cross_fit, learners_of, on_predictor_scale
from causalrisk.learners.smooth import LearnerRows, Smooth, Training
from causalrisk.numerics.arrays import Array, Numbers
from causalrisk.numerics.families import OutcomeFamily
from causalrisk.runtime import worker_count

T = TypeVar("T")
Rows = TypeVar("Rows", CodedRows, Design)
ROUNDED = 1e-26  # variance that a constant has by rounding, relative to its mean square


@dataclass(frozen=True)
class Learned:
    """Learners cross-fitted to a sample. They predict on the scale of linear predictors of `family`.

    `features` (p,) marks the columns of the outcome design that the learners use. `folds` has the fold of each row, in
    the order of the data. `quality` (L, K, 3) has out-of-fold measures for each learner (L) and arm (K): R squared, and
    intercept and slope of a regression of the outcomes on the predictions. `means` (L, K, n) has the predicted mean
    outcomes, or is None if the rows are not in memory.
    """

    fits: tuple[CrossFitted, ...]
    family: OutcomeFamily
    features: Array
    folds: Numbers
    quality: Array
    means: Array | None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the learners."""
        return tuple(fit.name for fit in self.fits)

    def of(self, number: int) -> Learned:
        """Return the predictions of one learner."""
        return dataclasses.replace(self, fits=(self.fits[number],), quality=self.quality[[number]])

    def __call__(self, columns: Array, position: Numbers | None = None) -> Array:
        """Predict rows of `columns` (m, p), one column per learner and arm. `position` has their places in `folds`."""
        fold = None if position is None else self.folds[position]
        means = [fit(columns[:, self.features], fold) for fit in self.fits]
        return on_predictor_scale(self.family, np.concatenate(means))[0].T


def learn(design: Design, options: ModelOptions, inference: InferenceOptions, notes: Notes) -> Learned:
    """Cross-fit the learners of the options to the rows of each arm. A propensity classifier uses the same folds."""
    if design.offset_kind is not None:
        raise OptionError(f"a learner ignores the {design.offset_kind}.\nLeave learner= or {design.offset_kind}= out.")
    features, family = design.varying, options.outcome_family
    if not features.any():
        problem = "learner= needs terms in the outcome formula, which has only the constant"
        raise OptionError(f'{problem}.\nUse `from_formula("y ~ x1 + x2", ..., learner=...)`.')
    binary = design.has_binary_outcome
    learners = learners_of(options.learner, design.labels, design.levels, Smooth(family), binary=binary)
    folds = folds_by_position(design, options.n_folds, options.repeat)

    def made(block: CodedRows | Design) -> LearnerRows:
        weights = None if design.weight_type is None else block.weights
        number = block.position
        return LearnerRows(block.X[:, features], block.y, block.arm, folds[number], weights, number)

    for learner in learners if design.on_disk else ():
        if not all(isinstance(model, Smooth) for model in learner.models):
            raise not_on_disk(f"the learner {learner.name}", 'Use `learner="smooth"`. ')
    rows = None if design.on_disk else made(design)

    def over(function: Callable[[LearnerRows], T]) -> Iterator[T]:
        return iter([function(rows)]) if rows is not None else design.over(lambda block: function(made(block)))

    training = Training(over, design.labels, options.n_folds, options.repeat, design.weight_type == "frequency")
    workers = worker_count(inference.n_jobs, 1.0 if design.on_disk else design.X.nbytes)
    fits = tuple(cross_fit(learner, training, workers) for learner in learners)
    moved, size, means, quality = 0, 0, list[Array](), np.empty((len(fits), design.n_arms, 3))
    for number, fit in enumerate(fits):

        def judged(block: LearnerRows, fit: CrossFitted = fit) -> tuple[Any, ...]:
            return fit(block.features, block.fold), block.y, block.arm, block.s

        predicted, y, arm, s = (np.concatenate(part, axis=-1) for part in zip(*over(judged), strict=True))
        moved, size = moved + on_predictor_scale(family, predicted)[1], size + predicted.size
        means += [] if design.on_disk else [predicted]
        for a in range(design.n_arms):
            own = (arm == a) & ~np.isnan(y)
            quality[number, a] = _quality(y[own], predicted[a, own], s[own])
    if moved:
        outside = f"{moved} of {size} predictions of the learner are at or outside the limits of the {family.label}"
        told = f"{outside} model. They were moved inside the limits."
        models = [model for learner in learners for model in learner.models]
        if all(hasattr(model, "predict_proba") or isinstance(model, Smooth) for model in models):
            notes.append(told)  # the predictions are in the range, but too close to its ends
        else:
            such = "a classifier" if binary else '`learner="smooth"`'
            advice = f"Use a learner whose predictions are in the range of the outcome, such as {such}."
            notes.warn(f"{told}\n{advice}", DesignWarning)
    return Learned(fits, family, features, folds, quality, np.stack(means) if means else None)


def _quality(y: Array, predicted: Array, weights: Array) -> tuple[float, float, float]:
    means = np.average([y, predicted], axis=1, weights=weights)
    dy, df = np.stack([y, predicted]) - means[:, None]
    varies = [weights @ d**2 > ROUNDED * (weights @ of**2) for d, of in ((dy, y), (df, predicted))]
    r_squared = 1 - weights @ (y - predicted) ** 2 / (weights @ dy**2) if varies[0] else np.nan
    slope = (weights * df) @ dy / (weights @ df**2) if varies[1] else np.nan
    return r_squared, means[0] - slope * means[1], slope


def with_predictions(
    design: Design, frame: TargetRows | None, learned: Learned, notes: Notes, *, given: bool
) -> tuple[Design, TargetRows | None]:
    """Add predictions for all arms to the terms of the outcome models or, if `given`, replace the terms by them."""
    before, names = list[str](), [f"{fit.name}[{label}]" for fit in learned.fits for label in design.labels]
    kept = np.repeat([not given, True], [len(design.exog_names), len(names)])
    encoder = design.outcome_encoder.extended(names, learned, kept)

    def step(block: Rows) -> Rows:
        columns = learned(block.X, block.position)
        return dataclasses.replace(block, X=columns if given else np.hstack([block.X, columns]))

    extended = design.extended(step, encoder, before, given=given)
    for note in before:
        if note not in design.notes:
            notes.warn(note, DesignWarning)
    if frame is None:
        return extended, None
    columns = learned(frame.X)
    if not given:
        kept = np.isin(encoder.names, extended.outcome_encoder.names)
        columns = np.hstack([frame.X, columns])[:, kept]
    return extended, dataclasses.replace(frame, X=columns)
