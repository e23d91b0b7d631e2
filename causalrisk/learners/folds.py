"""Rows that learners are fitted to, and their folds: for each row a function of a seed, its number and its neighbours.

Rows may come all together or block by block. In each chunk of `CHUNK` rows that follow one another the rows of an arm
are dealt out, in the order that `numpy.random.default_rng([r, k])` shuffles them into, r = 0, 1, ... the repeat and
k = 0, 1, ... the chunk; the first of them goes to fold k, or what is left of k after division by the number of folds.
The largest arm is first, of equal ones that of the first row, so that the names of the arms do not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from causalrisk.errors import LearnerError
from causalrisk.numerics.linalg import Array
from causalrisk.numerics.multiplicities import CHUNK

T = TypeVar("T")
Arms = NDArray[np.signedinteger[Any]]
Numbers = NDArray[np.intp]


@dataclass(frozen=True)
class CutRows:
    """Numbers and arms of the rows of chunks that are not whole in a block."""

    number: Numbers
    arm: Arms

    @classmethod
    def of(cls, number: Numbers, arm: Arms) -> CutRows:
        """Return those of a block."""
        _, chunk, size = np.unique(number // CHUNK, return_inverse=True, return_counts=True)
        few = np.flatnonzero(size[chunk] < CHUNK)
        return cls(number[few], arm[few])

    def beside(self, other: CutRows) -> CutRows:
        """Return these and those of another block."""
        return CutRows(np.concatenate([self.number, other.number]), np.concatenate([self.arm, other.arm]))


@dataclass(frozen=True)
class Folds:
    """Folds of rows, dealt out within each arm; or of whole clusters, if `n_clusters` is not 0.

    `cut` has, where rows come in blocks, the rows of chunks that are not whole in one.

    Examples
    --------
    >>> import numpy as np
    >>> Folds(n_folds=2).of(np.arange(6), np.array([0, 0, 0, 0, 1, 1])).tolist()
    [1, 0, 0, 1, 1, 0]
    """

    n_folds: int
    repeat: int = 0
    n_clusters: int = 0
    cut: CutRows | None = None

    def of(self, number: Numbers, arm: Arms, cluster: Numbers | None = None) -> Numbers:
        """Return the fold of each row, by its number, arm and cluster; whole chunks, or those cut."""
        if self.n_clusters and cluster is not None:
            of_cluster = np.empty(self.n_clusters, dtype=np.intp)
            order = np.random.default_rng(self.repeat).permutation(self.n_clusters)
            of_cluster[order] = np.arange(self.n_clusters) % self.n_folds
            return of_cluster[cluster]
        beyond = np.zeros(0, dtype=bool)
        if self.cut is not None:
            beyond = np.isin(self.cut.number // CHUNK, number // CHUNK) & ~np.isin(self.cut.number, number)
        if beyond.any() or (np.diff(number) < 0).any():
            every = np.concatenate([number, self.cut.number[beyond]]) if self.cut is not None else number
            arms = np.concatenate([arm, self.cut.arm[beyond]]) if self.cut is not None else arm
            order = np.argsort(every)
            found = np.empty(len(every), dtype=np.intp)
            found[order] = replace(self, cut=None).of(every[order], arms[order])
            return found[: len(number)]
        fold = np.empty(len(number), dtype=np.intp)
        for chunk in np.unique(number // CHUNK):
            own = slice(*np.searchsorted(number, [chunk * CHUNK, (chunk + 1) * CHUNK]))
            fold[own] = self._dealt(int(chunk), arm[own])
        return fold

    def _dealt(self, chunk: int, arm: Arms) -> Numbers:
        """Deal all rows of a chunk out, in the order of their numbers."""
        rng, fold = np.random.default_rng([self.repeat, chunk]), np.empty(len(arm), dtype=np.intp)
        arms, first, count = np.unique(arm, return_index=True, return_counts=True)
        for a in arms[np.lexsort((first, -count))]:
            rows = np.flatnonzero(arm == a)
            fold[rng.permutation(rows)] = (chunk + np.arange(len(rows))) % self.n_folds
        return fold


def folds_of(arm: Arms, clusters: Numbers | None, n_folds: int, repeat: int = 0) -> Numbers:
    """Return the fold of each of all rows of a sample, from their arms and clusters, shape (n,)."""
    folds = Folds(n_folds, repeat, 0 if clusters is None else int(clusters.max()) + 1)
    return folds.of(np.arange(len(arm)), arm, clusters)


@dataclass(frozen=True)
class LearnerRows:
    """Rows that learners are fitted to, and predict: `features` (n, k), outcomes `y` (n,), arms and folds.

    Rows whose outcome is NaN are predicted only. `counts` says whether weights count equal rows.
    """

    features: Array
    y: Array
    arm: Arms
    fold: Numbers
    weights: Array | None
    counts: bool
    number: Numbers

    def trained(self, arm: int) -> Numbers:
        """Return where the rows of an arm are that have an outcome."""
        return np.flatnonzero((self.arm == arm) & ~np.isnan(self.y))

    def weights_of(self, rows: Numbers) -> tuple[Array, Array]:
        """Weights of some rows, and how many rows each stands for."""
        ones = np.ones(len(rows))
        if self.weights is None:
            return ones, ones
        own = self.weights[rows]
        return own, own if self.counts else ones


@dataclass(frozen=True)
class Training:
    """Passes over rows that learners are fitted to, with the labels of the arms and the number of folds.

    `over` begins a pass: a function of `LearnerRows` -> what it makes of each block, in order.
    """

    over: Callable[[Callable[[LearnerRows], Any]], Iterator[Any]]
    labels: tuple[str, ...]
    n_folds: int
    repeat: int = 0


def without_training(training: Training, arm: int, fold: int) -> LearnerError:
    """Return the error of an arm without rows outside of a fold."""
    return LearnerError(
        f"all clusters of arm {training.labels[arm]!r} are in fold {fold + 1} of {training.n_folds}, so the learner "
        "has no rows to fit.\nUse another `n_folds=`."
    )
