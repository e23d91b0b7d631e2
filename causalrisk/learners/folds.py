"""Rows that learners are fitted to, and their folds.

In each chunk of `CHUNK` rows that follow one another the rows of an arm
are dealt out, in the order that `numpy.random.default_rng([r, k])` shuffles them into, r = 0, 1, ... the repeat and
k = 0, 1, ... the chunk; the first of them goes to fold k, or what is left of k after division by the number of folds.
The largest arm is first, of equal ones that of the first row, so that the names of the arms do not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalrisk.errors import LearnerError
from causalrisk.numerics.linalg import Array
from causalrisk.numerics.multiplicities import CHUNK

Arms = NDArray[np.signedinteger[Any]]
Numbers = NDArray[np.intp]


def folds_of(arm: Arms, clusters: Numbers | None, n_folds: int, repeat: int = 0) -> Numbers:
    """Return the fold of each row, shape (n,): balanced within arms; clusters stay whole.

    Examples
    --------
    >>> import numpy as np
    >>> folds_of(np.array([0, 0, 0, 0, 1, 1]), None, n_folds=2).tolist()
    [1, 0, 0, 1, 1, 0]
    """
    if clusters is not None:
        of_cluster = np.empty(int(clusters.max()) + 1, dtype=np.intp)
        of_cluster[np.random.default_rng(repeat).permutation(len(of_cluster))] = np.arange(len(of_cluster)) % n_folds
        return of_cluster[clusters]
    fold = np.empty(len(arm), dtype=np.intp)
    for chunk, first in enumerate(range(0, len(arm), CHUNK)):
        rng, own = np.random.default_rng([repeat, chunk]), arm[first : first + CHUNK]
        arms, place, count = np.unique(own, return_index=True, return_counts=True)
        for a in arms[np.lexsort((place, -count))]:
            rows = first + np.flatnonzero(own == a)
            fold[rng.permutation(rows)] = (chunk + np.arange(len(rows))) % n_folds
    return fold


@dataclass(frozen=True)
class LearnerRows:
    """Rows that learners are fitted to, and predict: `features` (n, k), outcomes `y` (n,), arms and folds.

    Rows whose outcome is NaN are predicted only. `number` is the position of each in the data.
    """

    features: Array
    y: Array
    arm: Arms
    fold: Numbers
    weights: Array | None
    number: Numbers

    def trained(self, arm: int) -> Numbers:
        """Return where the rows of an arm are that have an outcome."""
        return np.flatnonzero((self.arm == arm) & ~np.isnan(self.y))

    def outside(self, arm: int, fold: int, n_folds: int) -> Numbers:
        """Return where these rows are outside of a fold; all of them with a single fold."""
        own = self.trained(arm)
        return own if n_folds == 1 else own[self.fold[own] != fold]

    @property
    def s(self) -> Array:
        """Weights of the rows, shape (n,)."""
        return np.ones(len(self.y)) if self.weights is None else self.weights


@dataclass(frozen=True)
class Training:
    """Passes over rows that learners are fitted to, with the labels of the arms and the number of folds.

    `over` begins a pass: a function of `LearnerRows` -> what it makes of each block, in order. `counts` says whether
    weights count equal rows.
    """

    over: Callable[[Callable[[LearnerRows], Any]], Iterator[Any]]
    labels: tuple[str, ...]
    n_folds: int
    repeat: int = 0
    counts: bool = False


def without_training(training: Training, arm: int, fold: int) -> LearnerError:
    """Return the error of an arm without rows outside of a fold."""
    return LearnerError(
        f"all clusters of arm {training.labels[arm]!r} are in fold {fold + 1} of {training.n_folds}, so the learner "
        "has no rows to fit.\nUse another `n_folds=`."
    )
