"""Resampling as multiplicity weights, drawn in blocks of fixed width from spawned generators."""

from __future__ import annotations

import numbers
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalrisk.errors import OptionError
from causalrisk.numerics.linalg import Array

DRAWN = 2**20  # units that are drawn at a time, of some resamples or of one
WIDTH = 32  # resamples per block: part of the definition of the random stream, so never a tuning option
REPLICATE_STREAM, RESAMPLE_STREAM, NESTED_STREAM, START_STREAM = 0, 1, 2, 3


def check_rng(rng: Any) -> None:
    """Raise an OptionError unless `rng` is a source of randomness."""
    whole = isinstance(rng, numbers.Integral) and not isinstance(rng, bool)
    if (whole and rng >= 0) or rng is None or isinstance(rng, np.random.Generator | np.random.SeedSequence):
        return
    raise OptionError(
        f"rng={rng!r}; expected a non-negative int, a numpy Generator or SeedSequence, or None.\nType  rng=0."
    )


def seed_sequence(rng: Any) -> np.random.SeedSequence:
    """Turn what the user gave as `rng` into a seed sequence.

    Parameters
    ----------
    rng : int, Generator, SeedSequence or None
        A Generator is advanced once; None draws fresh entropy.

    Returns
    -------
    SeedSequence
        `repeating` says what repeats the draw.

    Raises
    ------
    OptionError
        If it is anything else.
    """
    check_rng(rng)
    if isinstance(rng, np.random.SeedSequence):
        return rng
    if isinstance(rng, np.random.Generator):
        return np.random.SeedSequence(int(rng.integers(2**63)))
    return np.random.SeedSequence(int(rng) if isinstance(rng, numbers.Integral) else None)


def repeating(seed: np.random.SeedSequence) -> int | np.random.SeedSequence:
    """Return what repeats the draws of a seed sequence as `rng`: its entropy alone where that is an int and enough."""
    entropy = seed.entropy
    if isinstance(entropy, numbers.Integral) and not seed.spawn_key:
        return int(entropy)
    return np.random.SeedSequence(entropy, spawn_key=seed.spawn_key)


def seed_text(seed: np.random.SeedSequence) -> str:
    """Return `repeating` as it is typed, a seed sequence without the name of its module."""
    if isinstance(repeating(seed), int):
        return str(seed.entropy)
    entropy = seed.entropy.tolist() if isinstance(seed.entropy, np.ndarray) else seed.entropy
    key = f", spawn_key={tuple(map(int, seed.spawn_key))}" if seed.spawn_key else ""
    return f"SeedSequence({entropy!r}{key})"


def stream_generator(seed: np.random.SeedSequence, stream: int, block: int) -> np.random.Generator:
    """Return the generator of a block of a random stream."""
    key = (*seed.spawn_key, stream, block)
    return np.random.default_rng(np.random.SeedSequence(seed.entropy, spawn_key=key))


@dataclass(frozen=True)
class Resampler:
    """Draws multiplicities for blocks of resamples of the rows of a design.

    Parameters
    ----------
    kind : {"pairs", "bayesian", "cluster", "stratified"}
        How rows are drawn.
    seed : SeedSequence
        Root of the random streams.
    weights : ndarray, shape (n,)
        Observation weights.
    frequency : bool
        Whether a weight counts repeated rows, which are then drawn one by one; otherwise weights are carried along.
    groups : ndarray of int, shape (n,), or None
        Arm codes for "stratified"; else the codes of clusters, which are drawn whole, and None without any.
    """

    kind: str
    seed: np.random.SeedSequence
    weights: Array
    frequency: bool = False
    groups: NDArray[np.intp] | None = None

    @property
    def _one_by_one(self) -> bool:
        """Whether each of the equal rows that a row stands for is drawn by itself; those of a cluster come together."""
        return self.frequency and self._clusters is None

    @property
    def _clusters(self) -> NDArray[np.intp] | None:
        """Codes of the clusters, shape (n,)."""
        return None if self.kind == "stratified" else self.groups

    def generator(self, stream: int, block: int) -> np.random.Generator:
        """Return the generator of a block of a stream."""
        return stream_generator(self.seed, stream, block)

    def draw(self, stream: int, block: int, width: int) -> Array:
        """Multiplicities times observation weights, shape (n, width), rows in the order of the design."""
        start = self.weights if self._one_by_one else np.ones(len(self.weights))
        return self._carried(self._multiplicities(start, self.generator(stream, block), width))

    def perturb(self, stream: int, block: int, width: int, spread: float) -> Array:
        """Fractional random weights times observation weights, shape (n, width), rows in the order of the design.

        Parameters
        ----------
        stream, block : int
            Which generator.
        width : int
            How many to draw.
        spread : float
            Standard deviation of the weight of a unit, relative to its mean; 1 is that of the bootstrap.

        Notes
        -----
        Gamma variables of shape 1 / spread^2, one a unit (row, cluster, or one of the equal rows a frequency weight
        counts), divided by their mean: the fractional-random-weight bootstrap [1]_. No weight is zero.

        References
        ----------
        .. [1] Xu, L., Gotwalt, C., Hong, Y., King, C. B. and Meeker, W. Q. (2020). Applications of the
           fractional-random-weight bootstrap. The American Statistician 74, 345-358.
        """
        return np.hstack(list(self.perturbations(stream, block, width, spread=spread, at_once=width)))

    def perturbations(self, stream: int, block: int, width: int, *, spread: float, at_once: int) -> Iterator[Array]:
        """Draw as `perturb` does, in groups of `at_once` columns, which are the same whatever it is."""
        start, rng = self.weights if self._one_by_one else np.ones(len(self.weights)), self.generator(stream, block)
        for first in range(0, width, at_once):
            yield self._carried(self._fractional(start, rng, min(at_once, width - first), spread))

    def perturb_within(self, weights: Array, number: int, width: int, spread: float, shift: int = 0) -> Array:
        """Draw fractional weights of the rows of a resample.

        Parameters
        ----------
        weights : ndarray, shape (n,)
            A column of `draw`.
        number : int
            Number of the resample.
        width : int
            How many to draw of it.
        spread : float
            As in `perturb`.
        shift : int, default 0
            Added to the number of the random stream.

        Returns
        -------
        ndarray, shape (n, width)
            Fractional weights times multiplicities times observation weights.
        """
        start = weights if self._one_by_one else weights / self.weights
        return self._carried(self._fractional(start, self.generator(NESTED_STREAM + shift, number), width, spread))

    def _fractional(self, start: Array, rng: np.random.Generator, width: int, spread: float) -> Array:
        """Weights of mean `start` over the rows (of each stratum), shape (n, width)."""
        shapes, clusters = start / spread**2, self._clusters
        if clusters is None:
            drawn = _gammas(shapes, rng, width)
        else:  # whose rows have one multiplicity
            drawn = _gammas(shapes[np.unique(clusters, return_index=True)[1]], rng, width)[clusters]
        if self.kind == "stratified" and self.groups is not None:
            for stratum in np.unique(self.groups):
                rows = self.groups == stratum
                drawn[rows] *= start[rows].sum() / drawn[rows].sum(axis=0)
            return drawn
        drawn *= start.sum() / drawn.sum(axis=0)
        return drawn

    def _carried(self, multiplicities: Array) -> Array:
        """Multiply, in place, by the observation weights unless the rows a weight stands for are drawn one by one."""
        if not self._one_by_one:
            multiplicities *= self.weights[:, None]
        return multiplicities

    def _multiplicities(self, start: Array, rng: np.random.Generator, width: int) -> Array:
        """How often each row is drawn from a sample that holds each row `start` times, shape (n, width)."""
        if self.kind == "bayesian":
            return self._fractional(start, rng, width, spread=1.0)
        if self._clusters is not None:
            first = np.unique(self._clusters, return_index=True)[1]
            return _draws(start[first], rng, width)[self._clusters]
        if self.kind == "stratified" and self.groups is not None:
            drawn = np.empty((len(start), width))
            for group in np.unique(self.groups):
                rows = np.flatnonzero(self.groups == group)
                drawn[rows] = _draws(start[rows], rng, width)
            return drawn
        return _draws(start, rng, width)


def _gammas(shapes: Array, rng: np.random.Generator, width: int) -> Array:
    """Draw gamma variables of the shapes of n units, shape (n, width); numpy draws faster with one for all."""
    shape = shapes[0] if (shapes == shapes[0]).all() else shapes
    return np.asarray(rng.standard_gamma(shape, (width, len(shapes))).T, dtype=float)


def _draws(start: Array, rng: np.random.Generator, width: int) -> Array:
    """Draw as many units as there are, with replacement, from units that each stand `start` times; (n, width)."""
    n, total, equal = len(start), start.sum(), (start == 1).all()
    drawn = np.empty((width, n))
    step = max(DRAWN // n, 1)  # whole numbers of some resamples at a time; the random stream is the same
    for first in range(0, width, step):
        some = drawn[first : first + step]
        if equal:
            units = rng.integers(0, n, size=some.shape) + n * np.arange(len(some))[:, None]
            some[:] = np.bincount(units.ravel(), minlength=some.size).reshape(some.shape)
        else:
            some[:] = rng.multinomial(round(total), start / total, size=len(some))
    return drawn.T


def given_multiplicities(name: str, values: Any, n: int) -> Array:
    """Check multiplicities the user gave.

    Parameters
    ----------
    name : str
        The option.
    values : array_like, shape (n, m)
        Multiplicities, rows in the order of the estimation sample.
    n : int
        Rows of the estimation sample.

    Returns
    -------
    ndarray, shape (n, m)
        The multiplicities as floats.
    """
    try:
        given = np.array(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise OptionError(
            f"{name} is of type {type(values).__name__} and holds more than numbers ({error!s:.80}).\n"
            f"Type  {name}=multiplicities  with a number for each of the {n} rows and each resample."
        ) from error
    if given.ndim != 2 or given.shape[0] != n or given.shape[1] < 1:
        raise OptionError(
            f"{name} has shape {given.shape}; expected ({n}, m): a row for each row of the estimation sample, a column "
            f"for each resample.\nType  {name}=multiplicities  with multiplicities.shape[0] == {n}."
        )
    if not np.isfinite(given).all() or (given < 0).any():
        bad = int((~np.isfinite(given) | (given < 0)).sum())
        raise OptionError(
            f"{name} has {bad} negative or non-finite entries; expected how often each row counts.\n"
            f"Type  {name}=np.abs(multiplicities)  only if that is what you mean."
        )
    return given
