"""Cross-fitting: predict each row in every arm by a learner that was fitted to rows of this arm in other folds.

A learner is one of the names in `NAMED`, or an object with `fit(X, y, sample_weight=...)` and `predict` or
`predict_proba`, as in scikit-learn. The object is copied and never changed. If its `random_state` is None, the repeat,
arm and fold determine one, which makes results reproducible. "smooth" does not need all rows in memory.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from causalrisk.errors import CausalRiskError, LearnerError, OptionError, listed, needed, one_of
from causalrisk.learners.smooth import LearnerRows, Smooth, Training, smooth_fits, without_training
from causalrisk.numerics.arrays import Array, Numbers
from causalrisk.numerics.families import OutcomeFamily
from causalrisk.runtime import ordered_map

EDGE = 1e-3  # predictions are moved at least this far inside the range of a bounded mean
SMOOTH = "smooth"
FAILURES = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)  # errors of learners


class Learner(NamedTuple):
    """A learner of the outcome, with its name and an unfitted model for each arm."""

    name: str
    models: tuple[Any, ...]


NAMED = ("hist-gradient-boosting", "random-forest", "lasso")  # of scikit-learn


def check_learner(given: Any) -> None:
    """Raise an OptionError unless a value is a learner, a mapping of arms to learners, or a list of these."""
    if isinstance(given, list | tuple | Mapping):
        several = list(given.values()) if isinstance(given, Mapping) else given
        if not several or any(isinstance(one, list | tuple) for one in several):
            raise OptionError(f'learner={given!r}; expected one or more learners.\nUse `learner="smooth"`.')
        for one in several:
            check_learner(one)
    elif isinstance(given, str):
        one_of("learner", given, (SMOOTH, *NAMED))
    elif isinstance(given, type):
        raise OptionError(f"learner={given.__name__} is a class.\nUse `learner={given.__name__}()`.")
    elif not hasattr(given, "fit") or not (hasattr(given, "predict") or hasattr(given, "predict_proba")):
        problem = f"learner is a {type(given).__name__}; expected a name, or an object with fit and predict"
        raise OptionError(f'{problem}.\nUse `learner="smooth"`.')


def learners_of(
    given: Any, labels: Sequence[str], levels: Sequence[Any], smooth: Smooth, *, binary: bool
) -> list[Learner]:
    """Return the learners of a checked `learner=`, with a model for each arm."""
    found = []
    for one in given if isinstance(given, list | tuple) else [given]:
        of_arms = [one] * len(labels)
        if isinstance(one, Mapping):
            of_arms = [one.get(label, one.get(level)) for label, level in zip(labels, levels, strict=True)]
            if any(model is None for model in of_arms) or len(one) != len(labels):
                problem = f"learner= has {listed(list(one))}; expected a learner for each group"
                raise OptionError(f"{problem}.\nUse `learner={{{', '.join(f'{label!r}: ...' for label in labels)}}}`.")
        names, models = zip(*(_named_model(model, smooth, binary=binary) for model in of_arms), strict=True)
        distinct = list(dict.fromkeys(names))
        found.append(Learner(" and ".join(distinct) + " by group" * (len(distinct) > 1), models))
    every = [learner.name for learner in found]
    return [
        one._replace(name=f"{one.name} {k + 1}") if every.count(one.name) > 1 else one for k, one in enumerate(found)
    ]


def of_scikit_learn(name: str, *, binary: bool) -> Any:
    """Return the unfitted model for a name in `NAMED`: a classifier of 0 and 1, or a regressor."""
    with needed("this learner needs scikit-learn", '"causalrisk[learners]"`, or `learner="smooth"'):
        from sklearn import ensemble, linear_model, pipeline, preprocessing
    if name == "lasso":
        return pipeline.make_pipeline(preprocessing.StandardScaler(), linear_model.LassoCV())
    if name == "random-forest":
        forest = ensemble.RandomForestClassifier if binary else ensemble.RandomForestRegressor
        return forest(n_estimators=300, min_samples_leaf=5)
    boosting = ensemble.HistGradientBoostingClassifier if binary else ensemble.HistGradientBoostingRegressor
    return boosting(max_iter=120, learning_rate=0.08, max_leaf_nodes=8, min_samples_leaf=10)


def _named_model(given: Any, smooth: Smooth, *, binary: bool) -> tuple[str, Any]:
    if isinstance(given, str):
        return given, smooth if given == SMOOTH else of_scikit_learn(given, binary=binary)
    name = type(given.steps[-1][1] if hasattr(given, "steps") else given).__name__
    if hasattr(given, "predict_proba") and not binary:
        problem = f"learner {name} is a classifier, but the outcome is not 0/1"
        raise OptionError(f'{problem}.\nUse a regressor or `learner="smooth"`.')
    if hasattr(given, "decision_function") and not hasattr(given, "predict_proba"):
        problem = f"learner {name} is a classifier without predict_proba"
        raise OptionError(f"{problem}.\nUse `learner=CalibratedClassifierCV({name}())` of sklearn.calibration.")
    return name, given


@dataclass(frozen=True)
class CrossFitted:
    """A learner fitted, for each arm and fold, to the arm's rows in the other folds."""

    name: str
    fitted: tuple[tuple[Any, ...], ...]

    def __call__(self, features: Array, fold: Numbers | None) -> Array:
        """Predict n rows in each of K arms, by the model for each row's fold or, without folds, by the models' mean."""
        with learner_errors(f"learner {self.name}", "predictions"):
            found = np.stack([_predicted_by_fold(models, features, fold) for models in self.fitted])
        bad = int((~np.isfinite(found)).sum())
        if bad:
            problem = f"{bad} of {found.size} predictions of the learner {self.name} are not finite"
            raise LearnerError(f'{problem}.\nUse another learner, or `learner="smooth"`.')
        return found


def predicted(model: Any, features: Array) -> Array:
    """Return a fitted model's predicted mean outcomes, shape (m,). For a classifier, they are probabilities of 1."""
    if not hasattr(model, "predict_proba"):
        return np.asarray(model.predict(features), dtype=float).reshape(len(features))
    classes = list(model.classes_)
    return np.asarray(model.predict_proba(features)[:, classes.index(1)] if 1 in classes else np.zeros(len(features)))


def _predicted_by_fold(models: Sequence[Any], features: Array, fold: Numbers | None) -> Array:
    """Predict the mean outcome of n rows, by the model for each row's fold or, without folds, by the models' mean."""
    if fold is None:
        return np.asarray(np.mean([predicted(model, features) for model in models], axis=0))
    found = np.empty(len(features))
    for f in np.unique(fold):
        found[fold == f] = predicted(models[f], features[fold == f])
    return found


def cross_fit(learner: Learner, training: Training, workers: int) -> CrossFitted:
    """For each fold, fit a learner to the rows of each arm in other folds."""
    arms = range(len(learner.models))
    fitted = {
        a: smooth_fits(learner.models[a], a, training, workers) for a in arms if isinstance(learner.models[a], Smooth)
    }
    others = [(a, f) for a in arms if a not in fitted for f in range(training.n_folds)]
    if others:
        (rows,) = training.over(lambda rows: rows)
        task = functools.partial(_fitted_outside, learner, training, rows)
        # On a busy machine, threads within a fit of scikit-learn wait for each other; `n_jobs` runs fits in parallel.
        with threadpool_limits(1, user_api="openmp"), ordered_map(task, others, workers) as results:
            for (a, _), model in zip(others, results, strict=True):
                fitted[a] = (*fitted.get(a, ()), model)
    return CrossFitted(learner.name, tuple(fitted[a] for a in arms))


def _fitted_outside(learner: Learner, training: Training, rows: LearnerRows, place: tuple[int, int]) -> Any:
    a, f = place
    used = rows.outside(a, f, training.n_folds)
    if not len(used):
        raise without_training(training, a, f)
    weights = None if rows.weights is None else rows.weights[used]
    with learner_errors(f"learner {learner.name}", f"group {training.labels[a]!r}, fold {f + 1} of {training.n_folds}"):
        return fitted_copy(
            learner.models[a], [training.repeat, a, f], rows.features[used], rows.y[used], weights,
            counts=training.counts, instead='`learner="smooth"`',
        )  # fmt: skip


@contextlib.contextmanager
def learner_errors(what: str, where: str) -> Iterator[None]:
    """Convert an error of a learner inside the `with` block to a LearnerError. Its text contains `what` and `where`."""
    try:
        yield
    except CausalRiskError:
        raise
    except FAILURES as error:
        found = f"the {what} failed in {where}: {type(error).__name__}: {error}"
        raise LearnerError(f"{found}\nUse another learner, or check its options.") from error


def fitted_copy(
    model: Any, entropy: list[int], X: Array, y: Any, weights: Array | None, *, counts: bool, instead: str
) -> Any:
    """Fit a copy of a model under observation weights. If weights are counts, rows may be repeated instead."""
    model = copy.deepcopy(model)
    if hasattr(model, "get_params") and hasattr(model, "set_params"):
        names = [name for name, value in model.get_params().items() if name.endswith("random_state") and value is None]
        if names:
            model.set_params(**dict.fromkeys(sorted(names), int(np.random.default_rng(entropy).integers(2**31 - 1))))
    if hasattr(model, "predict_proba"):
        y = y.astype(np.intp)
    step, last = (f"{model.steps[-1][0]}__", model.steps[-1][1]) if hasattr(model, "steps") else ("", model)
    if weights is None:
        model.fit(X, y)
    elif "sample_weight" in inspect.signature(last.fit).parameters and not (counts and step):
        model.fit(X, y, **{f"{step}sample_weight": weights})
    elif counts:
        repeated = np.repeat(np.arange(len(y)), np.rint(weights).astype(np.intp))
        model.fit(X[repeated], y[repeated])
    else:
        problem = f"{type(last).__name__}.fit has no sample_weight, and the weights are not frequencies"
        raise OptionError(f"{problem}.\nUse {instead}, or a model whose fit has sample_weight.")
    if hasattr(model, "predict_proba") and not hasattr(model, "classes_"):
        raise LearnerError(f"{type(model).__name__} has no `classes_`.\nSet `self.classes_ = np.unique(y)` in `fit`.")
    return model


def on_predictor_scale(family: OutcomeFamily, means: Array) -> tuple[Array, int]:
    """Return means as linear predictors, and the number of means that were moved into the range of the family."""
    if family.link == "identity":
        return means, 0
    if family.binary is not None:
        inside = np.clip(means, EDGE, 1 - EDGE)
    else:
        positive = means[means > 0]
        inside = np.maximum(means, EDGE * (positive.mean() if positive.size else 1.0))
    return np.asarray(family.distribution.link(inside)), int((inside != means).sum())
