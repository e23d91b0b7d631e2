"""How the treatment of a trial was assigned, and the other assignments that there could have been.

Flows in: a design, and the strata within which its treatment was assigned. Flows out: the units that were assigned,
rows or clusters, and arms of the rows under random permutations of them, or under all.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import gammaln

from causalrisk.design.covariates import groups_of
from causalrisk.design.design import Design
from causalrisk.errors import OptionError
from causalrisk.numerics.multiplicities import PERMUTATION_STREAM, WIDTH, stream_generator

Arms = NDArray[np.signedinteger[Any]]
LARGEST_COUNT = 1e15  # assignments that are counted
SAME_SCORE = 12  # decimals in which known probabilities agree


@dataclass(frozen=True)
class Assignment:
    """How the treatment was assigned: arms of U units, which could have changed places within strata.

    `unit`, shape (n,), is the unit of each row of the design. `words` say what is permuted, within what.
    """

    arm: Arms
    stratum: NDArray[np.intp]
    unit: NDArray[np.intp]
    words: str

    @cached_property
    def _strata(self) -> list[NDArray[np.intp]]:
        """Units of each stratum in which arms can change places."""
        parts = pd.Series(self.arm).groupby(self.stratum).indices.values()
        return [units for units in parts if np.ptp(self.arm[units]) > 0]

    @cached_property
    def count(self) -> float:
        """Number of different assignments; infinite where it is no number of a reasonable size."""
        counts = [np.bincount(self.arm[units]) for units in self._strata]
        logarithm = sum(gammaln(sizes.sum() + 1) - gammaln(sizes + 1).sum() for sizes in counts)
        if logarithm > math.log(LARGEST_COUNT):
            return math.inf
        partial = (zip(np.cumsum(sizes).tolist(), sizes.tolist(), strict=True) for sizes in counts)
        return math.prod(math.comb(total, size) for pairs in partial for total, size in pairs)

    @cached_property
    def _tables(self) -> list[Arms]:
        return [arrangements(self.arm[units]) for units in self._strata]

    def listed(self, first: int, width: int) -> Arms:
        """Return some of all assignments by number: arms of the rows of the design, shape (n, width)."""
        arms = np.repeat(self.arm[:, None], width, axis=1)
        places = np.unravel_index(np.arange(first, first + width), [len(table) for table in self._tables])
        for units, table, place in zip(self._strata, self._tables, places, strict=True):
            arms[units] = table[place].T
        return arms[self.unit]

    def drawn(self, seed: np.random.SeedSequence, first: int, width: int) -> Arms:
        """Draw assignments, from number `first` on, which is a multiple of `WIDTH`; as by `listed`."""
        starts = range(0, width, WIDTH)
        blocks = [self._block(seed, (first + start) // WIDTH, min(WIDTH, width - start)) for start in starts]
        return np.hstack(blocks)[self.unit]

    def _block(self, seed: np.random.SeedSequence, number: int, width: int) -> Arms:
        """Sort the units of each stratum at random, and give them its arms in this order."""
        chance = stream_generator(seed, PERMUTATION_STREAM, number).random((WIDTH, len(self.arm)))[:width].T
        order = np.argsort(self.stratum[:, None] + chance, axis=0)
        sorted_arms = self.arm[np.argsort(self.stratum, kind="stable")]
        arms = np.empty(order.shape, dtype=self.arm.dtype)
        np.put_along_axis(arms, order, np.repeat(sorted_arms[:, None], width, axis=1), axis=0)
        return arms


def arrangements(arm: Arms) -> Arms:
    """Return all different orders of arms of units of shape (U,), one per row of shape (M, U).

    Examples
    --------
    >>> import numpy as np
    >>> arrangements(np.array([0, 1, 1]))
    array([[0, 1, 1],
           [1, 0, 1],
           [1, 1, 0]])
    """
    open_place = -1
    found = np.full((1, len(arm)), open_place, dtype=arm.dtype)
    for value, size in zip(*np.unique(arm, return_counts=True), strict=True):
        left = int((found[0] == open_place).sum())
        chosen = np.array(list(itertools.combinations(range(left), size)))
        places = np.argsort(found != open_place, axis=1, kind="stable")[:, :left]
        rows = np.repeat(found, len(chosen), axis=0)
        np.put_along_axis(rows, places[:, chosen].reshape(len(rows), size), value, axis=1)
        found = rows
    return found


def coded_strata(design: Design, strata: Any, data: Any) -> tuple[NDArray[np.intp], str]:
    """Return the stratum of each row of a design, (n,), and a name; arguments are those of the test."""
    if strata is None:
        return np.zeros(design.n, dtype=np.intp), ""
    if isinstance(strata, str) and strata == design.cluster_name:
        return np.asarray(design.cluster), strata
    groups, _, names = groups_of(design, strata, data)
    return groups, ", ".join(names)


def assignment_of(design: Design, codes: NDArray[np.intp], name: str, arm: int | None) -> Assignment:
    """Return how the treatment of a design was assigned.

    Of clusters with one arm each the units are the clusters; where the treatment varies within each of them, rows are
    permuted within clusters. `codes`, shape (n,), are the strata, and `name` their name, empty where there are none.
    Of several arms `arm` is the one that changes places with the reference; None for all.
    """
    within = f" within {len(np.unique(codes))} strata ({name})" if name else ""
    if design.cluster is None:
        made = Assignment(design.arm, codes, np.arange(design.n), f"the {design.n} {design.unit_name}s{within}")
    else:
        made = _of_clusters(design, codes, name, within)
    if arm is not None and design.n_arms > 2:  # other arms stay where they are: a stratum each
        moved = np.isin(made.arm, (0, arm))
        words = f"{made.words}, of arms {design.labels[0]} and {design.labels[arm]}"
        stratum = np.unique(np.stack([made.stratum, np.where(moved, -1, made.arm)]), axis=1, return_inverse=True)[1]
        made = dataclasses.replace(made, stratum=stratum.reshape(-1), words=words)
    if made.count == 1:
        raise OptionError(f"{made.words} have one assignment only.\nUse coarser `strata=`, or leave it out.")
    scores: Any = () if design.score is None else design.score.T[1:].round(SAME_SCORE)
    if any(_varies_within(made.stratum[made.unit], column).any() for column in scores):
        raise OptionError(f"known scores differ among {made.words}.\nUse `strata={design.score_name!r}, data=data`.")
    return made


def _of_clusters(design: Design, codes: NDArray[np.intp], name: str, strata: str) -> Assignment:
    """Permute whole clusters or rows within clusters; `strata` are the words that say within which strata."""
    cluster, count, of = np.asarray(design.cluster), design.n_clusters, str(design.cluster_name)
    several = _varies_within(cluster, design.arm)
    if several.all() or (several.any() and not _varies_within(codes, cluster).any()):  # each stratum is of one cluster
        words = f"the {design.n} rows within {count} clusters ({of})"
        within = np.unique(np.stack([cluster, codes]), axis=1, return_inverse=True)[1].reshape(-1)
        if name not in ("", of):
            words = f"the {design.n} {design.unit_name}s within {within.max() + 1} strata ({of}, {name})"
        return Assignment(design.arm, within, np.arange(design.n), words)
    if several.any():
        raise OptionError(f"the treatment varies within some clusters of {of!r} only.\nUse `strata={of!r}`.")
    if _varies_within(cluster, codes).any():
        found = f"clusters of {of!r} are in several strata of {name}"
        raise OptionError(f"{found}.\nLeave `strata=` out, or give strata of clusters.")
    first = np.unique(cluster, return_index=True)[1]
    return Assignment(design.arm[first], codes[first], cluster, f"the {count} clusters ({of}) as a whole{strata}")


def _varies_within(group: NDArray[np.intp], values: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether values differ within each of the groups."""
    return pd.Series(values).groupby(group).nunique().to_numpy() > 1
