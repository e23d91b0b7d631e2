"""Cross-fitting: each row's prediction in every arm by a learner that was fitted to rows of the arm in other folds.

A learner is an object with `fit(X, y, sample_weight=...)` and `predict`, or `predict_proba`, as in scikit-learn, or one
of the names in `NAMED`. It is copied and never changed. Folds are dealt out within each arm, whole clusters where these
are given, in the order that `numpy.random.default_rng(r)` shuffles the rows into, r = 0, 1, ... the repeat. A learner
whose `random_state` is None gets one that repeat, arm and fold determine, so that digits repeat.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalrisk.errors import LearnerError, OptionError, UnavailableError, listed, meant
from causalrisk.learners.smooth import Smooth
from causalrisk.numerics.families import OutcomeFamily
from causalrisk.numerics.linalg import Array
from causalrisk.runtime.workers import ordered_map

Arms = NDArray[np.signedinteger[Any]]
EDGE = 1e-3  # nearest that a prediction comes to the end of the range of a bounded mean
SMOOTH = "smooth"


def folds_of(
    arm: Arms, observed: Array, n_arms: int, clusters: NDArray[np.intp] | None, n_folds: int, repeat: int = 0
) -> NDArray[np.intp]:
    """Deal the rows of each arm, and those of a target frame, out to folds; or whole clusters, where there are any.

    Parameters
    ----------
    arm : ndarray of int, shape (n,)
        Arm of each row.
    observed : ndarray, shape (n,)
        1.0 for rows of the sample, 0.0 for those of a target frame.
    n_arms : int
        K.
    clusters : ndarray of int, shape (n,), or None
        Clusters, numbered from 0.
    n_folds : int
        Number of folds.
    repeat : int, default 0
        Seed of the order.

    Returns
    -------
    ndarray of int, shape (n,)
        Fold of each row; the same for the same data.
    """
    rng = np.random.default_rng(repeat)
    if clusters is not None:
        count = int(clusters.max()) + 1
        of_cluster = np.empty(count, dtype=np.intp)
        of_cluster[rng.permutation(count)] = np.arange(count) % n_folds
        return of_cluster[clusters]
    fold = np.zeros(len(arm), dtype=np.intp)
    groups = [np.flatnonzero((arm == a) & (observed > 0)) for a in range(n_arms)] + [np.flatnonzero(observed == 0)]
    for rows in groups:
        fold[rng.permutation(rows)] = np.arange(len(rows)) % n_folds
    return fold


@dataclass(frozen=True)
class Learner:
    """A learner of the outcome in each arm.

    Parameters
    ----------
    name : str
        Its name.
    models : tuple
        The object of each arm, not fitted.
    labels : sequence of str
        Labels of the arms.
    """

    name: str
    models: tuple[Any, ...]
    labels: Sequence[str]


def _scikit_learn(
    module: str, regressor: str, classifier: str, *, scaled: bool = False, **options: Any
) -> Callable[[bool], Any]:
    """Return what makes one of two models of scikit-learn, the classifier for outcomes of 0 and 1."""

    def make(binary: bool) -> Any:
        try:
            model = getattr(import_module(f"sklearn.{module}"), classifier if binary else regressor)(**options)
        except ImportError as error:
            raise UnavailableError(
                "this learner is one of scikit-learn, which is not installed.\n"
                'Type  pip install "causalrisk[learners]", or  learner="smooth", which needs nothing.'
            ) from error
        if not scaled:
            return model
        scaler = import_module("sklearn.preprocessing").StandardScaler()
        return import_module("sklearn.pipeline").make_pipeline(scaler, model)

    return make


NAMED: dict[str, Callable[[bool], Any]] = {
    "hist-gradient-boosting": _scikit_learn(
        "ensemble", "HistGradientBoostingRegressor", "HistGradientBoostingClassifier",
        max_iter=120, learning_rate=0.08, max_leaf_nodes=8, min_samples_leaf=10,
    ),
    "random-forest": _scikit_learn(
        "ensemble", "RandomForestRegressor", "RandomForestClassifier", n_estimators=300, min_samples_leaf=5
    ),
    "lasso": _scikit_learn("linear_model", "LassoCV", "LassoCV", scaled=True),
}  # fmt: skip


def check_learner(given: Any) -> None:
    """Raise an OptionError unless a value is a learner, a mapping of arms to learners, or a list of these.

    Parameters
    ----------
    given : object
        The option `learner`.
    """
    if isinstance(given, list | tuple):
        if not given:
            raise OptionError('learner=[] has no learner.\nType  learner="smooth", or leave learner= out.')
        for one in given:
            if isinstance(one, list | tuple):
                raise OptionError(
                    "learner= has a list within a list; expected learners.\nType  learner=[*first, *second]."
                )
            check_learner(one)
    elif isinstance(given, Mapping):
        for one in given.values():
            check_learner(one)
    elif isinstance(given, str):
        names = (SMOOTH, *NAMED)
        if given not in names:
            close = meant("learner", given.removeprefix("SL."), names) or SMOOTH
            raise OptionError(
                f"learner={given!r} is not known; expected one of {listed(names)}, or an object with fit and "
                f'predict.\nType  learner="{close}".'
            )
    elif isinstance(given, type):
        raise OptionError(
            f"learner={given.__name__} is a class; expected a learner.\nType  learner={given.__name__}()."
        )
    elif not hasattr(given, "fit") or not (hasattr(given, "predict") or hasattr(given, "predict_proba")):
        raise OptionError(
            f"learner is a {type(given).__name__}; expected an object with fit and predict, as in scikit-learn, or one "
            f'of {listed((SMOOTH, *NAMED))}.\nType  learner="smooth".'
        )


def learners_of(
    given: Any, labels: Sequence[str], levels: Sequence[Any], smooth: Smooth, binary: bool
) -> tuple[Learner, ...]:
    """Return the learners that an option names, with a model for each arm.

    Parameters
    ----------
    given : object
        The option `learner`, checked.
    labels, levels : sequence, of K
        Label and level of each arm.
    smooth : Smooth
        The learner of that name, not fitted.
    binary : bool
        Whether every outcome is 0 or 1.

    Returns
    -------
    tuple of Learner
        One for each of a list.

    Raises
    ------
    OptionError
        If a mapping does not have every arm, or a classifier is given for an outcome that is not 0 or 1.
    """
    every = given if isinstance(given, list | tuple) else [given]
    found = [_learner_of(one, labels, levels, smooth, binary=binary) for one in every]
    names = [learner.name for learner in found]
    return tuple(
        Learner(f"{one.name} {k + 1}" if names.count(one.name) > 1 else one.name, one.models, labels)
        for k, one in enumerate(found)
    )


def _learner_of(given: Any, labels: Sequence[str], levels: Sequence[Any], smooth: Smooth, *, binary: bool) -> Learner:
    if isinstance(given, Mapping):
        models = [given.get(label, given.get(level)) for label, level in zip(labels, levels, strict=True)]
        lacking = [label for label, model in zip(labels, models, strict=True) if model is None]
        if lacking or len(given) != len(labels):
            raise OptionError(
                f"learner= has {listed(list(given))}; expected a learner for each arm, {listed(labels)}.\n"
                f"Type  learner={{{', '.join(f'{label!r}: ...' for label in labels)}}}."
            )
        own = [_learner_of(model, labels, levels, smooth, binary=binary) for model in models]
        names = list(dict.fromkeys(one.name for one in own))
        return Learner(" and ".join(names), tuple(one.models[a] for a, one in enumerate(own)), labels)
    if isinstance(given, str):
        model = smooth if given == SMOOTH else NAMED[given](binary)
        return Learner(given, (model,) * len(labels), labels)
    name = type(given).__name__ if not hasattr(given, "steps") else type(given.steps[-1][1]).__name__
    if hasattr(given, "predict_proba") and not binary:
        raise OptionError(
            f"learner {name} is a classifier, and the outcome is not 0 and 1; expected a regressor.\n"
            'Type  learner="smooth"  for one.'
        )
    return Learner(name, (given,) * len(labels), labels)


@dataclass(frozen=True)
class CrossFitted:
    """A learner fitted to the rows of each arm outside of each fold.

    Parameters
    ----------
    name : str
        Name of the learner.
    fitted : tuple of tuple
        For each arm the fitted model of each fold.
    predictions : ndarray, shape (K, n)
        Mean outcome of each row in each arm, by the models of its fold.
    not_converged : tuple of tuple of str
        For each arm what the fits said that did not converge, one text a fit.
    """

    name: str
    fitted: tuple[tuple[Any, ...], ...]
    predictions: Array
    not_converged: tuple[tuple[str, ...], ...] = ()

    def of_new(self, features: Array) -> Array:
        """Predict rows of no fold, features (m, k), by the mean over the folds' models, shape (K, m)."""
        if not len(features):
            return np.empty((len(self.fitted), 0))
        return np.stack([np.mean([predicted(model, features) for model in models], axis=0) for models in self.fitted])


def predicted(model: Any, features: Array) -> Array:
    """Return the mean outcome by a fitted model, shape (m,): of a classifier the probability of 1."""
    if not hasattr(model, "predict_proba"):
        return np.asarray(model.predict(features), dtype=float).reshape(len(features))
    classes = list(model.classes_)
    return np.asarray(model.predict_proba(features)[:, classes.index(1)] if 1 in classes else np.zeros(len(features)))


@dataclass(frozen=True)
class LearnerRows:
    """Rows that learners are fitted to, and predict.

    Parameters
    ----------
    features : ndarray, shape (n, k)
        What is learnt from.
    y : ndarray, shape (n,)
        Outcomes; NaN in rows without one, which are predicted only.
    arm, fold : ndarray of int, shape (n,)
        Arm and fold of each row; of a single fold every row is predicted by a fit that it is in.
    weights : ndarray, shape (n,), or None
        Observation weights.
    counts : bool
        Whether they count equal rows.
    repeat : int
        Number of the repeat, for seeds.
    """

    features: Array
    y: Array
    arm: Arms
    fold: NDArray[np.intp]
    weights: Array | None
    counts: bool
    repeat: int

    @property
    def n_folds(self) -> int:
        """Number of folds."""
        return int(self.fold.max()) + 1


def cross_fit(learner: Learner, rows: LearnerRows, workers: int) -> CrossFitted:
    """Fit a learner to the rows of each arm outside of each fold, and predict the rows of the fold in every arm.

    Parameters
    ----------
    learner : Learner
        The learner.
    rows : LearnerRows
        The rows.
    workers : int
        Fits at a time.

    Returns
    -------
    CrossFitted
        Fitted models and predictions.

    Raises
    ------
    LearnerError
        If an arm has no rows outside of a fold, or a prediction is not finite.
    """
    n_folds, n_arms = rows.n_folds, len(learner.models)
    task = functools.partial(_fit_and_predict, learner, rows)
    with _single_threads(), _listening(), ordered_map(task, n_arms * n_folds, workers) as results:
        done = list(results)
    predictions = np.empty((n_arms, len(rows.y)))
    for number, (_, values, _) in enumerate(done):
        a, f = divmod(number, n_folds)
        predictions[a, rows.fold == f] = values
    of_arms = [done[a * n_folds : (a + 1) * n_folds] for a in range(n_arms)]
    return CrossFitted(
        name=learner.name,
        fitted=tuple(tuple(model for model, _, _ in fits) for fits in of_arms),
        predictions=predictions,
        not_converged=tuple(tuple(said for _, _, said in fits if said) for fits in of_arms),
    )


def _fit_and_predict(learner: Learner, rows: LearnerRows, number: int) -> tuple[Any, Array, str]:
    """Fit the model of an arm to the rows outside of a fold, predict the rows of the fold; and what it said.

    That is the text of its first warning that it did not converge, empty if it gave none.
    """
    a, f = divmod(number, rows.n_folds)
    outside = rows.fold != f if rows.n_folds > 1 else np.ones(len(rows.y), dtype=bool)
    used, label = np.flatnonzero((rows.arm == a) & outside & ~np.isnan(rows.y)), learner.labels[a]
    if not len(used):
        raise LearnerError(
            f"fold {f + 1} of {rows.n_folds} leaves arm {label!r} without rows to fit the learner to: its clusters are "
            "all in that fold.\nType  n_folds=  with another number, or leave learner= out."
        )
    model = seeded(copy.deepcopy(learner.models[a]), [rows.repeat, a, f])
    own = None if rows.weights is None else rows.weights[used]
    where = f"in the learner {learner.name}, arm {label!r}, fold {f + 1} of {rows.n_folds}"
    with _Noted(where), _listening() as heard:
        _fit(model, learner.name, rows.features[used], rows.y[used], own, counts=rows.counts)
        values = predicted(model, rows.features[rows.fold == f])
    if not np.isfinite(values).all():
        raise LearnerError(
            f"the learner {learner.name} predicts {int((~np.isfinite(values)).sum())} of {len(values)} rows of fold "
            f'{f + 1} as no finite number, in arm {label!r}.\nType  learner=  with another, or  learner="smooth".'
        )
    return model, values, next(iter(heard), "")


CONVERGENCE = ("sklearn.exceptions", "statsmodels.tools.sm_exceptions")  # modules with such a warning
_hearing = threading.local()  # what the fit of a thread said
_listeners = 0


@contextlib.contextmanager
def _listening() -> Iterator[list[str]]:
    """Gather the warnings of fits that do not converge in place of giving them: those of the thread, as texts.

    Filters of warnings are a process's own, not a thread's: the first to listen sets them for all.
    """
    global _listeners
    heard: list[str] = []
    _hearing.heard = heard
    if _listeners:
        yield heard
        return
    kinds = tuple(sys.modules[name].ConvergenceWarning for name in CONVERGENCE if name in sys.modules)
    with warnings.catch_warnings():
        shown = warnings.showwarning

        def hear(message: Warning | str, category: type[Warning], *others: Any, **more: Any) -> None:
            if issubclass(category, kinds) and hasattr(_hearing, "heard"):
                _hearing.heard.append(str(message))
            else:
                shown(message, category, *others, **more)

        for kind in kinds:
            warnings.simplefilter("always", kind)
        warnings.showwarning = hear
        _listeners += 1
        try:
            yield heard
        finally:
            _listeners -= 1


def _single_threads() -> contextlib.AbstractContextManager[Any]:
    """Keep scikit-learn from threads within a fit, which on a busy machine wait for each other; `n_jobs` has fits."""
    if "sklearn" not in sys.modules:
        return contextlib.nullcontext()
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1, user_api="openmp")


class _Noted:
    """Adds to errors where they happened."""

    def __init__(self, where: str) -> None:
        self.where = where

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is not None:
            error.add_note(self.where)


def _fit(model: Any, name: str, X: Array, y: Array, weights: Array | None, *, counts: bool) -> None:
    """Fit a model under observation weights, if there are any."""
    if hasattr(model, "predict_proba"):
        y = y.astype(np.intp)
    if weights is None:
        model.fit(X, y)
        return
    last = f"{model.steps[-1][0]}__sample_weight" if hasattr(model, "steps") else "sample_weight"
    takes = inspect.signature((model.steps[-1][1] if hasattr(model, "steps") else model).fit).parameters
    if "sample_weight" in takes:
        model.fit(X, y, **{last: weights})
    elif counts:
        repeated = np.repeat(np.arange(len(y)), weights.astype(np.intp))
        model.fit(X[repeated], y[repeated])
    else:
        raise OptionError(
            f"the learner {name} takes no sample_weight, and the probability weights are no counts of rows.\n"
            'Type  learner="smooth", or another that takes them.'
        )


def seeded(model: Any, entropy: list[int]) -> Any:
    """Give each `random_state` of a model that is None a number that a seed determines.

    Parameters
    ----------
    model : object
        A copy of the model, which is changed.
    entropy : list of int
        The seed.

    Returns
    -------
    object
        The model.
    """
    if not (hasattr(model, "get_params") and hasattr(model, "set_params")):
        return model
    names = [name for name, value in model.get_params().items() if name.endswith("random_state") and value is None]
    if names:
        seed = int(np.random.default_rng(entropy).integers(2**31 - 1))
        model.set_params(**dict.fromkeys(sorted(names), seed))
    return model


def out_of_fold_r_squared(predictions: Array, y: Array, arm: Arms, weights: Array) -> Array:
    """One less the squared errors of predictions, shape (K, n), of rows in their own arm over those of its mean, (K,).

    NaN for an arm whose outcome is constant. Rows whose outcome is NaN are left out.
    """
    found = np.full(len(predictions), np.nan)
    for a, values in enumerate(predictions):
        own = (arm == a) & ~np.isnan(y)
        spread = weights[own] @ (y[own] - np.average(y[own], weights=weights[own])) ** 2
        if spread > 0:
            found[a] = 1 - weights[own] @ (y[own] - values[own]) ** 2 / spread
    return found


def on_predictor_scale(family: OutcomeFamily, means: Array) -> tuple[Array, int]:
    """Return predicted means as linear predictors, and how many had to be moved into the range of the family's means.

    Parameters
    ----------
    family : OutcomeFamily
        Family of the outcome models.
    means : ndarray
        Means, of any shape.
    """
    if family.link == "identity":
        return means, 0
    if family.binary is not None:
        inside = np.clip(means, EDGE, 1 - EDGE)
    else:
        positive = means[means > 0]
        inside = np.maximum(means, EDGE * (positive.mean() if positive.size else 1.0))
    return family.predictor(inside), int((inside != means).sum())
