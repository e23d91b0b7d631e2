"""Multiplicities of rows that come in blocks: each a function of (seed, unit, resample), whatever else is drawn.

In memory all rows are drawn together (`multiplicities.Resampler`), so that they add up to a total. Here each unit, a
row or a cluster, is drawn by itself, by its number, from a generator that counts (Philox), so that neither the cut into
blocks, nor their order, nor who works on them changes a weight.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincinv, pdtr

from causalrisk.numerics.linalg import Array
from causalrisk.numerics.multiplicities import WIDTH

CHUNK = 1024  # units drawn from one generator: like WIDTH a part of the definition of the random stream
MOST = 13  # no unit is drawn as often: it would be once in 1e10 draws, less than the generator tells apart
THRESHOLDS = np.round(pdtr(np.arange(MOST - 1), 1.0) * 2**32).astype(np.uint32)
Draw = Callable[[np.random.Generator], NDArray[np.generic]]


@dataclass(frozen=True)
class KeyedResampler:
    """Draws multiplicities of some of the rows, for blocks of resamples.

    Parameters
    ----------
    kind : {"pairs", "bayesian", "cluster", "stratified"}
        How rows are drawn.
    seed : SeedSequence
        Root of the random streams.
    one_by_one : bool
        Whether each of the equal rows that a frequency weight counts is drawn by itself. Otherwise weights are carried
        along, as those of the rows of a cluster always are.

    Notes
    -----
    The methods take `units`, ndarray of int, shape (n,), the number of each row in all data or that of its cluster, and
    `weights`, ndarray, shape (n,), the observation weights. Block b of a stream has the resamples from b times
    `multiplicities.WIDTH` on; `width` is that or less.

    What is drawn has mean one and is not divided by its mean, as that needs all rows: who needs shares divides by the
    sum. For "stratified" that is the sum over each stratum.
    """

    kind: str
    seed: np.random.SeedSequence
    one_by_one: bool = False

    def draw(self, stream: int, block: int, width: int, units: NDArray[np.intp], weights: Array) -> Array:
        """Multiplicities times observation weights, shape (n, width).

        Multiplicities are Poisson variables of mean one, for "bayesian" exponential ones; of rows that a frequency
        weight counts the sum of as many, which is again a Poisson or a gamma variable.
        """
        if self.kind == "bayesian":
            return self.perturb(stream, block, width=width, spread=1.0, units=units, weights=weights)
        if self.one_by_one:
            return _poisson_quantiles(self._drawn(_uniform, (stream, block), width, units), weights)
        return self._drawn(_poisson, (stream, block), width, units) * weights[:, None]

    def perturb(
        self, stream: int, block: int, width: int, *, spread: float, units: NDArray[np.intp], weights: Array
    ) -> Array:
        """Fractional random weights times observation weights, shape (n, width).

        They are gamma variables of mean one and standard deviation `spread`, as in `multiplicities.Resampler.perturb`.
        """
        shape = spread**-2
        if self.one_by_one:
            uniform = self._drawn(_uniform, (stream, block), width, units)
            return np.asarray(gammaincinv(weights[:, None] * shape, uniform) / shape)
        drawn = self._drawn(lambda rng: rng.standard_gamma(shape, (CHUNK, WIDTH)), (stream, block), width, units)
        drawn *= (weights / shape)[:, None]
        return drawn

    def _drawn(self, draw: Draw, of: tuple[int, int], width: int, units: NDArray[np.intp]) -> Array:
        """Draw each chunk of units that some are of, and take these, shape (n, width); `of` are stream and block."""
        stream, block = of
        key = np.random.SeedSequence(self.seed.entropy, spawn_key=(*self.seed.spawn_key, stream))
        words = key.generate_state(2, np.uint64)
        chunk, within = np.divmod(units, CHUNK)
        order = np.argsort(chunk, kind="stable")  # at once where they stand in order
        edges = np.flatnonzero(np.diff(chunk[order], prepend=-1))
        found = np.empty((len(units), width))
        for rows in np.split(order, edges[1:]):
            counter = np.array([0, 0, block, chunk[rows[0]]], dtype=np.uint64)  # the first two run
            rng = np.random.Generator(np.random.Philox(key=words, counter=counter))
            found[rows] = draw(rng)[within[rows], :width]
        return found


def _uniform(rng: np.random.Generator) -> Array:
    return rng.random((CHUNK, WIDTH))


def _poisson(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Poisson variables of mean one, as the quantiles of 32 bits each."""
    bits = np.asarray(rng.bit_generator.random_raw(CHUNK * WIDTH // 2)).astype("<u8", copy=False).view("<u4")
    found = np.zeros(bits.shape, dtype=np.uint8)
    for threshold in THRESHOLDS:
        found += bits >= threshold
    return found.reshape(CHUNK, WIDTH)


def _poisson_quantiles(uniform: Array, means: Array) -> Array:
    """Quantiles, shape (n, m), of Poisson variables of means of shape (n,)."""
    found = np.empty(uniform.shape)
    for mean in np.unique(means):
        rows, last = means == mean, int(mean + 12 * np.sqrt(mean) + 30)
        found[rows] = np.searchsorted(pdtr(np.arange(last), mean), uniform[rows], side="right")
    return found
