"""Rows that learners are fitted to, and their folds: for each row a function of a seed, its number and its neighbours.

Rows may come all together or block by block. In each chunk of `CHUNK` rows that follow one another the rows of an arm
are dealt out, in the order that `numpy.random.default_rng([r, k])` shuffles them into, r = 0, 1, ... the repeat and
k = 0, 1, ... the chunk; the first of them goes to fold k, or what is left of k after division by the number of folds.
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
    """Rows of chunks that are not whole in a block.

    Parameters
    ----------
    number : ndarray of int, shape (c,)
        Their numbers in the sample.
    arm : ndarray of int, shape (c,)
        Their arms.
    """

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
    """Folds of rows, dealt out within each arm; or of whole clusters, where there are any.

    Parameters
    ----------
    n_folds : int
        Number of folds.
    repeat : int, default 0
        The repeat, for seeds.
    n_clusters : int, default 0
        Number of clusters; 0 where rows are by themselves.
    cut : CutRows, optional
        Where rows come in blocks, those of chunks that are not whole in one.

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
        """Return the fold of each of some rows; all rows of a chunk are among them, or it is one of those cut.

        Parameters
        ----------
        number : ndarray of int, shape (n,)
            Their numbers in the sample, ascending.
        arm : ndarray of int, shape (n,)
            Their arms.
        cluster : ndarray of int, shape (n,), optional
            Their clusters.
        """
        if self.n_clusters and cluster is not None:
            of_cluster = np.empty(self.n_clusters, dtype=np.intp)
            order = np.random.default_rng(self.repeat).permutation(self.n_clusters)
            of_cluster[order] = np.arange(self.n_clusters) % self.n_folds
            return of_cluster[cluster]
        if self.cut is not None and len(self.cut.number):
            beyond = np.isin(self.cut.number // CHUNK, number // CHUNK) & ~np.isin(self.cut.number, number)
            every = np.concatenate([number, self.cut.number[beyond]])
            arms = np.concatenate([arm, self.cut.arm[beyond]])
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
        for a in np.unique(arm):
            rows = np.flatnonzero(arm == a)
            fold[rng.permutation(rows)] = (chunk + np.arange(len(rows))) % self.n_folds
        return fold


def folds_of(arm: Arms, clusters: Numbers | None, n_folds: int, repeat: int = 0) -> Numbers:
    """Return the fold of each of all rows of a sample, from their arms and clusters, shape (n,)."""
    folds = Folds(n_folds, repeat, 0 if clusters is None else int(clusters.max()) + 1)
    return folds.of(np.arange(len(arm)), arm, clusters)


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
        Arm and fold of each row.
    weights : ndarray, shape (n,), or None
        Observation weights.
    counts : bool
        Whether they count equal rows.
    number : ndarray of int, shape (n,)
        Their numbers in the sample.
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
    """What learners are fitted to: passes over rows, with the number of folds.

    Parameters
    ----------
    over : callable
        Begins a pass: a function of `LearnerRows` -> what it makes of each block, in their order.
    labels : sequence of str
        Labels of the arms.
    n_folds : int
        Number of folds; with a single one each row is predicted by a fit that it is in.
    repeat : int, default 0
        The repeat, for seeds.
    """

    over: Callable[[Callable[[LearnerRows], Any]], Iterator[Any]]
    labels: tuple[str, ...]
    n_folds: int
    repeat: int = 0


def without_training(training: Training, arm: int, fold: int) -> LearnerError:
    """Return the error of an arm without rows outside of a fold."""
    return LearnerError(
        f"fold {fold + 1} of {training.n_folds} leaves arm {training.labels[arm]!r} without rows to fit the learner "
        "to: its clusters are all in that fold.\nType  n_folds=  with another number, or leave learner= out."
    )
