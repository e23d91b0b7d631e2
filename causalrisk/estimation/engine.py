"""Stacked estimating equations: solved block by block, and the influence function of their solution.

A block has coefficients beta, shape (m, p), in linear predictors eta_j = X beta_j + offset, and solves

    sum_i s_i X_i r_l(eta_i) = 0,   l = 1 .. m,

where the residuals r may depend on the predictors of the blocks before it. The row weights s are (n, R): the sample, or
R resamples of it at once. The Jacobian of a stack is block triangular, so that influence functions follow by forward
substitution (Stefanski and Boos 2002). Rows may be arrays of NumPy or of Dask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalrisk.errors import Failure
from causalrisk.numerics.linalg import (
    Array,
    pairwise_columns,
    row_blocks,
    solve_definite,
    unpack_symmetric,
    weighted_gram,
)

ALL = slice(None)
MAX_ITERATIONS, HALVINGS = 60, 30
CONVERGED, LAST = 1e-8, 1e-13  # steps that end Newton's method: a small one, or one that the next would be below
OVERSHOT = 0.9  # share of the equations along a step that may be left, turned, at its end
RAN_AWAY, SEPARATED = 1e3, 15.0  # coefficients of scaled columns, and linear predictors, that have no finite fit
LARGEST, LOG_LARGEST = 1e150, 345.0  # odds of a row that is sure of another arm: their square is a number
FEW = 8  # stacks narrower than this need no products of columns


# --- numbers with derivatives ----------------------------------------------------------------------------------------


class Dual:
    """A number a row, with its derivatives by linear predictors."""

    __slots__ = ("by", "value")
    __array_ufunc__ = None  # arrays leave arithmetic to the operators below

    def __init__(self, value: Any, by: Mapping[Linear, Any]) -> None:
        self.value, self.by = value, by

    def chain(self, value: Any, slope: Any) -> Dual:
        """Return a function of this number, from its value and its derivative."""
        return Dual(value, {eta: slope * d for eta, d in self.by.items()})

    def __add__(self, other: Any) -> Dual:
        if not isinstance(other, Dual):
            return Dual(self.value + other, self.by)
        by = dict(self.by)
        for eta, d in other.by.items():
            by[eta] = by[eta] + d if eta in by else d
        return Dual(self.value + other.value, by)

    def __mul__(self, other: Any) -> Dual:
        if not isinstance(other, Dual):
            return self.chain(self.value * other, other)
        return Dual(self.value * other.value, (self.chain(0, other.value) + other.chain(0, self.value)).by)

    def __neg__(self) -> Dual:
        return self.chain(-self.value, -1.0)

    def __sub__(self, other: Any) -> Dual:
        return self + (-other)

    def __rsub__(self, other: Any) -> Dual:
        return -self + other

    def __rtruediv__(self, other: Any) -> Dual:
        value = other / self.value
        return self.chain(value, -value / self.value)

    def __truediv__(self, other: Any) -> Dual:
        return self * (1 / other)

    def __pow__(self, power: float) -> Dual:
        return self.chain(self.value**power, power * self.value ** (power - 1))

    __radd__, __rmul__ = __add__, __mul__


def value_of(x: Any) -> Any:
    """Return a number without its derivatives."""
    return x.value if isinstance(x, Dual) else x


def exp(x: Any) -> Any:
    """Exponential of a number with or without derivatives, at the most `LARGEST`."""
    value = np.exp(np.minimum(value_of(x), LOG_LARGEST))
    return x.chain(value, value) if isinstance(x, Dual) else value


def apply(x: Any, function: Callable[..., Any], slope: Callable[..., Any], *others: Any) -> Any:
    """Return a function of a number and of arrays, with its derivative by the number where that is wanted."""
    if isinstance(x, Dual):
        return x.chain(by_row(function, x.value, *others), by_row(slope, x.value, *others))
    return by_row(function, x, *others)


def apply_both(x: Any, function: Callable[..., tuple[Any, Any]], *others: Any) -> Any:
    """As `apply`, of a function that returns value and derivative."""
    first, arrays = value_of(x), [value_of(x), *others]
    if any(map(is_dask, arrays)):
        value, slope = (by_row(lambda *each, k=k: function(*each)[k], *arrays) for k in (0, 1))
    else:
        value, slope = function(first, *others)
    return x.chain(value, slope) if isinstance(x, Dual) else value


def by_row(function: Callable[..., Any], *arrays: Any) -> Any:
    """Return a function of rows: of Dask arrays a chunk at a time."""
    if not any(is_dask(each) for each in arrays):
        return function(*arrays)
    import dask.array as da

    return da.map_blocks(_quietly, *arrays, function=function, dtype=float)


def _quietly(*arrays: Any, function: Callable[..., Any]) -> Any:
    with np.errstate(all="ignore"):  # threads do not know of the caller's
        return function(*arrays)


def is_dask(array: Any) -> bool:
    """Whether rows are beyond memory."""
    return hasattr(array, "compute")


def in_memory(array: Any) -> Any:
    """Return an array in memory."""
    return totals([array])[0]


# --- blocks ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Linear:
    """A linear predictor X beta_j + offset in the coefficients of a block."""

    block: str
    X: Array
    j: int = 0
    offset: Array | None = None

    @cached_property
    def pairs(self) -> Array:
        """Products of pairs of columns, shape (n, p (p + 1) / 2)."""
        if not is_dask(self.X):
            return pairwise_columns(self.X)
        p = self.X.shape[1]
        X: Any = self.X
        return X.map_blocks(pairwise_columns, dtype=float, chunks=(X.chunks[0], (p * (p + 1) // 2,)))


Beta = dict[str, Array]  # name of a block: its coefficients, shape (m, p, R)


@dataclass(frozen=True)
class Point:
    """Some rows at some coefficients: what residuals are evaluated at."""

    beta: Beta
    rows: slice = field(default_factory=lambda: ALL)
    by: frozenset[str] = frozenset()  # blocks whose predictors carry derivatives

    def __call__(self, eta: Linear) -> Any:
        """Return a linear predictor of the rows, shape (n, R)."""
        value = eta.X[self.rows] @ self.beta[eta.block][eta.j]
        if eta.offset is not None:
            value = value + eta.offset[self.rows, None]
        return Dual(value, {eta: 1.0}) if eta.block in self.by else value

    def of(self, column: Array) -> Array:
        """Return a column of the sample, (n,), for these rows, as (n, 1)."""
        return column[self.rows, None]


Residuals = Callable[[Point], Sequence[Any]]


@dataclass(frozen=True)
class Block:
    """Equations sum_i s_i X_i r_l = 0, one l for each of its predictors."""

    own: tuple[Linear, ...]
    terms: tuple[tuple[slice, Residuals], ...]  # rows, and their residuals; the equations add up the terms
    start: Array | None = None  # coefficients to start from, shape (m, p)
    linear: bool = False  # one step solves it
    least_norm: bool = False  # linear equations may have many solutions
    unsettled: int = Failure.NOT_CONVERGED
    singular: int = Failure.SINGULAR_OUTCOME
    separated: int | None = None  # where predictors may run away

    @property
    def name(self) -> str:
        """Name of the coefficients."""
        return self.own[0].block


def totals(arrays: Iterable[Any]) -> list[Any]:
    """Return sums over rows as arrays in memory."""
    arrays = list(arrays)
    if any(map(is_dask, arrays)):
        import dask

        arrays = list(dask.compute(*arrays))
    return arrays


def ones_of(rows: Array) -> Any:
    """Ones, a column of them, for the rows of an array, shape (n, 1)."""
    if not is_dask(rows):
        return np.ones((len(rows), 1))
    import dask.array as da

    return da.ones((len(rows), 1), chunks=(chunks_of(rows), 1))


def chunks_of(rows: Any) -> tuple[int, ...]:
    """Return the sizes of the blocks of rows of a Dask array."""
    return tuple(rows.chunks[0])


def gram(one: Linear, other: Linear, rows: slice, v: Any) -> Any:
    """Return X' diag(v_r) Y for each column v_r of v, (R, p, q); of many columns, of X alone, as `unpack_symmetric`."""
    if v.shape[1] >= FEW and one.X is other.X:
        return one.pairs[rows].T @ v
    X, Y = one.X[rows], other.X[rows]
    if is_dask(X) or is_dask(v):
        return np.stack([X.T @ (v[:, [r]] * Y) for r in range(v.shape[1])])
    return np.stack([weighted_gram(X, v[:, r], Y) for r in range(v.shape[1])])


def _sums(block: Block, beta: Beta, s: Array) -> tuple[Array, Array]:
    """Return the equations, shape (m p, R), and minus their derivative by the own coefficients, (R, m p, m p)."""
    m, p, R = len(block.own), block.own[0].X.shape[1], s.shape[1]
    keys, sums = list[tuple[int, int | None]](), list[Any]()
    for rows, residuals in block.terms:
        weights = s[rows]
        for i, r in enumerate(residuals(Point(beta, rows, frozenset([block.name])))):
            keys.append((i, None))
            sums.append(block.own[i].X[rows].T @ (weights * value_of(r)))
            for eta, d in r.by.items() if isinstance(r, Dual) else ():
                keys.append((i, eta.j))
                sums.append(gram(block.own[i], eta, rows, weights * d))
    equations, slope = np.zeros((m, p, R)), np.zeros((R, m, p, m, p))
    for (i, j), total in zip(keys, totals(sums), strict=True):
        if j is None:
            equations[i] += total
        else:
            slope[:, i, :, j] -= unpack_symmetric(total, p) if total.ndim == 2 else total
    return equations.reshape(m * p, R), slope.reshape(R, m * p, m * p)


def solve(
    blocks: Sequence[Block], s: Array, start: Beta | None = None, known: Beta | None = None
) -> tuple[Beta, dict[str, NDArray[np.int8]]]:
    """Solve a stack of blocks.

    Parameters
    ----------
    blocks : sequence of Block
        The equations, each after those that it depends on.
    s : array, shape (n, R)
        Weights of the rows; of resamples how often each row counts, times its weight.
    start : dict, optional
        Coefficients of the sample, which resamples start from, each of shape (m, p, 1).
    known : dict, optional
        Coefficients of earlier blocks, which are solved.

    Returns
    -------
    beta : dict
        Coefficients of each block, shape (m, p, R), the known ones among them.
    failures : dict
        For each block what failed, a `Failure` for each resample, shape (R,).
    """
    beta, failures = dict(known or {}), dict[str, NDArray[np.int8]]()
    for block in blocks:
        at = None if start is None else start[block.name]
        with np.errstate(all="ignore"):  # fits without a solution are told by their codes
            beta[block.name], failures[block.name] = newton(block, beta, s, at)
    return beta, failures


def newton(block: Block, known: Beta, s: Array, start: Array | None) -> tuple[Array, NDArray[np.int8]]:
    """Solve one block by Newton's method; a step is halved while the equations turn by more than they were."""
    m, p, R = len(block.own), block.own[0].X.shape[1], s.shape[1]
    if block.linear:
        equations, slope = _sums(block, known | {block.name: np.zeros((m, p, 1))}, s)
        solution, singular = _step(block, slope, equations)
        solution[:, singular] = np.nan
        return solution.reshape(m, p, R), np.where(singular, block.singular, Failure.OK).astype(np.int8)
    first = block.start if start is None else start[..., 0]
    beta = np.zeros((m * p, R)) if first is None else np.repeat(first.reshape(m * p, 1), R, axis=1)
    codes, active, last = np.full(R, block.unsettled, dtype=np.int8), np.arange(R), np.full(R, np.inf)
    weights, before = s, known

    def at(coefficients: Array) -> tuple[Array, Array]:
        return _sums(block, {**before, block.name: coefficients.reshape(m, p, -1)}, weights)

    equations, slope = at(beta[:, :1])  # the start is the same for all
    for _ in range(MAX_ITERATIONS):
        step, singular = _step(block, slope, equations)
        step[:, singular] = 0.0
        size = np.abs(step).max(axis=0, initial=0)
        done = ~singular & ((size <= CONVERGED) | (size**2 * np.maximum(size / last**2, 1) <= LAST))
        lost = singular | (np.abs(beta[:, active] + step).max(axis=0) > RAN_AWAY)
        codes[active[done]], codes[active[singular]] = Failure.OK, block.singular
        beta[:, active[done]] += step[:, done]
        go_on = ~(done | lost)
        if not go_on.any():
            break
        if not go_on.all():
            active, step, size, equations = active[go_on], step[:, go_on], size[go_on], equations[:, go_on]
            weights, before = weights[:, go_on], {name: some(each, go_on) for name, each in before.items()}
        rise, moved = (step * equations).sum(axis=0), beta[:, active]
        for _ in range(HALVINGS):
            equations, slope = at(moved + step)
            overshot = ~(-(step * equations).sum(axis=0) <= OVERSHOT * rise)
            if not overshot.any():
                break
            step, rise = np.where(overshot, step / 2, step), np.where(overshot, rise / 2, rise)
        beta[:, active], last = moved + step, size
    bad = np.flatnonzero(codes != Failure.OK)
    if block.separated is not None and bad.size:
        there = {name: some(each, bad) for name, each in known.items()} | {block.name: beta[:, bad].reshape(m, p, -1)}
        codes[bad[_farthest(block, there, s[:, bad]) > SEPARATED]] = block.separated
    return beta.reshape(m, p, R), codes


def some(beta: Array, columns: NDArray[Any]) -> Array:
    """Return coefficients (m, p, R) of some of the resamples; those of the sample, (m, p, 1), serve all."""
    return beta if beta.shape[2] == 1 else beta[:, :, columns]


def _step(block: Block, slope: Array, equations: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Solve for a step; those of singular equations are marked."""
    if not block.least_norm:
        return solve_definite(slope, np.where(np.isfinite(equations), equations, 0.0))
    inverse = np.linalg.pinv(slope, rcond=1e-10, hermitian=True)
    return np.einsum("rij,jr->ir", inverse, equations), np.zeros(len(slope), dtype=bool)


def _farthest(block: Block, beta: Beta, s: Array) -> Array:
    """Largest linear predictor of a row that has weight, shape (R,)."""
    found = np.zeros(s.shape[1])
    for rows, _ in block.terms:
        here = Point(beta, rows)
        for largest in totals((np.abs(here(eta)) * (s[rows] > 0)).max(axis=0) for eta in block.own):
            found = np.maximum(found, largest)
    return found


# --- influence -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Influence:
    """Influence functions of the coefficients of a stack: -J^-1 g_i, J the mean derivative of the equations.

    Parameters
    ----------
    n : int
        Number of rows.
    parts : dict
        For each block rows, and what they add to its equations, shape (n, m p).
    factors : dict
        For each block the rows of -J^-1 that are its own, one matrix for the equations of each block in them.
    """

    n: int
    parts: dict[str, list[tuple[slice, Array]]]
    factors: dict[str, dict[str, Array]]

    def __getitem__(self, name: str) -> Array:
        return self.of({name: np.eye(len(self.factors[name][name]))})

    def of(self, *combinations: Mapping[str, Array]) -> Array:
        """Return influence functions of combinations of coefficients, shape (n, d).

        A combination is a matrix, shape (k, m p), for each of some blocks; those of several stand side by side.
        """
        terms, columns = list[tuple[slice, str, Array]](), 0
        for combination in combinations:
            k = len(next(iter(combination.values())))
            factors = dict[str, Array]()
            for name, matrix in combination.items():
                for source, factor in self.factors[name].items():
                    factors[source] = factors.get(source, 0.0) + (matrix @ factor).T
            terms += [(slice(columns, columns + k), source, factor) for source, factor in factors.items()]
            columns += k
        edges = {edge for _, source, _ in terms for rows, _ in self.parts[source] for edge in rows.indices(self.n)[:2]}
        pieces = [self._piece(first, last, terms, columns) for first, last in pairwise(sorted({0, self.n, *edges}))]
        return np.concatenate(pieces) if len(pieces) > 1 else pieces[0]

    def _piece(self, first: int, last: int, terms: Sequence[tuple[slice, str, Array]], columns: int) -> Array:
        """Return the rows from `first` to `last`, which are all or none of those that add to an equation."""
        here = list[tuple[slice, Array, Array]]()
        for place, source, factor in terms:
            for rows, g in self.parts[source]:
                start, stop, _ = rows.indices(self.n)
                if start <= first and last <= stop:
                    here.append((place, g[first - start : last - start], factor))
        if any(is_dask(g) for _, g, _ in here):
            whole = [np.pad(factor, ((0, 0), (place.start, columns - place.stop))) for place, _, factor in here]
            added: Any = sum(g @ factor for (_, g, _), factor in zip(here, whole, strict=True))
            return added
        found = np.zeros((last - first, columns))
        for rows in row_blocks(last - first):
            for place, g, factor in here:
                found[rows, place] += g[rows] @ factor
        return found


def influence(
    blocks: Sequence[Block], s: Array, beta: Beta, total: float, known: Influence | Mapping[str, Array] | None = None
) -> Influence:
    """Return the influence function of the coefficients of a stack.

    That of a block whose rows have equations g_i is -G^-1 (g_i + sum over earlier blocks of their G times theirs), each
    G the mean derivative of the equations. The covariance of the coefficients is the sum of the outer products of s_i
    times it, over `total` squared. `known` are those of earlier blocks; coefficients that have none count as known.
    """
    if not isinstance(known, Influence):
        given = known or {}
        identity = {name: {name: np.eye(psi.shape[1])} for name, psi in given.items()}
        known = Influence(len(s), {name: [(ALL, psi)] for name, psi in given.items()}, identity)
    parts, factors = dict(known.parts), dict(known.factors)
    by = frozenset([*factors, *(block.name for block in blocks)])
    for block in blocks:
        parts[block.name], slopes = _linear(block, s, beta, by)
        inverse = -_inverse(slopes.pop(block.name) / total, least_norm=block.least_norm)
        own = {block.name: inverse}
        for name, slope in slopes.items():
            for source, factor in factors[name].items():
                own[source] = own.get(source, 0.0) + inverse @ (slope / total) @ factor
        factors[block.name] = own
    return Influence(len(s), parts, factors)


def changes(blocks: Sequence[Block], s: Array, beta: Beta, moved: Mapping[str, Array]) -> dict[str, Array]:
    """Return how the coefficients of each block change, shape (m p,), where the equations of some of them are moved."""
    found, by = dict[str, Array](), frozenset(block.name for block in blocks)
    for block in blocks:
        _, slopes = _linear(block, s, beta, by)
        inverse = _inverse(slopes.pop(block.name), least_norm=block.least_norm)
        total = np.array(moved.get(block.name, np.zeros(len(inverse))))
        for name, slope in slopes.items():
            total = total + slope @ found[name]
        found[block.name] = -inverse @ total
    return found


def _linear(
    block: Block, s: Array, beta: Beta, by: frozenset[str]
) -> tuple[list[tuple[slice, Array]], dict[str, Array]]:
    """Return what rows add to the equations of a block, and their derivatives by the coefficients of each block."""
    m, p = len(block.own), block.own[0].X.shape[1]
    parts, keys, sums, slopes = [], [], [], dict[str, Array]()
    for rows, residuals in block.terms:
        columns = []
        for i, r in enumerate(residuals(Point(beta, rows, by))):
            columns.append(value_of(r) * block.own[i].X[rows])
            for eta, d in r.by.items() if isinstance(r, Dual) else ():
                keys.append((i, eta))
                sums.append(gram(block.own[i], eta, rows, s[rows] * d)[0])
        parts.append((rows, np.concatenate(columns, axis=1) if m > 1 else columns[0]))
    for (i, eta), of_rows in zip(keys, totals(sums), strict=True):
        q = eta.X.shape[1]
        slope = slopes.setdefault(eta.block, np.zeros((m * p, beta[eta.block].shape[0] * q)))
        slope[i * p : (i + 1) * p, eta.j * q : (eta.j + 1) * q] += of_rows
    return parts, slopes


def _inverse(slope: Array, *, least_norm: bool = False) -> Array:
    if least_norm:
        return np.asarray(np.linalg.pinv(slope, rcond=1e-10, hermitian=True))
    try:
        return np.asarray(np.linalg.inv(slope))
    except np.linalg.LinAlgError:
        return np.full_like(slope, np.nan)
