"""Solve stacked estimating equations block by block, and compute influence functions of the coefficients.

A block has m linear predictors eta_j = X beta_j + offset with coefficients beta, shape (m, p). It solves

    sum_i s_i X_i r_l(eta_i) = 0,   l = 1 .. m,

where the residuals r may depend on the predictors of earlier blocks. The row weights s have shape (n, R): one column
for the sample, or R resamples at once. The Jacobian of the equations is block triangular. Influence functions
therefore follow by forward substitution (Stefanski and Boos 2002). Rows that do not fit in memory come in chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from causalrisk.errors import Failure
from causalrisk.numerics.arrays import Array, add_up, in_chunks, inverse_or_nan, solve_definite, weighted_grams

T = TypeVar("T")
ALL = slice(None)
MAX_ITERATIONS, HALVINGS = 60, 30
CONVERGED, LAST = 1e-8, 1e-13  # Newton's method ends if a step, or the predicted next step, is at most this
OVERSHOT = 0.9  # a step is halved if its product with the equations reverses and exceeds this share of its start
RAN_AWAY, SEPARATED = 1e3, 15.0  # coefficients, and linear predictors, above which a fit is taken to diverge
AT_ONCE = 2**15  # numbers that are processed at a time, few enough to stay in the cache
LARGEST, LOG_LARGEST = 1e150, 345.0  # cap on odds, and its logarithm; the square of the cap is finite
CONCAVE = 1e-8  # ratio of a derivative's smallest to largest absolute eigenvalue at which it counts as singular


@dataclass(frozen=True)
class FieldsAlone:
    """Dataclass whose cached properties are not pickled, but computed again after loading."""

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


# --- numbers with derivatives ----------------------------------------------------------------------------------------


class Dual:
    """One number per row, with its derivatives with respect to linear predictors."""

    __slots__ = ("by", "value")
    __array_ufunc__ = None  # arrays leave arithmetic to the operators below

    def __init__(self, value: Any, by: Mapping[Linear, Any]) -> None:
        self.value, self.by = value, by

    def chain(self, value: Any, slope: Any) -> Dual:
        """Return f(self) with derivatives by the chain rule, given the value and the derivative of f at this number."""
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
    """Return the values of a `Dual` without its derivatives. Other numbers are returned unchanged."""
    return x.value if isinstance(x, Dual) else x


def exp(x: Any) -> Any:
    """Return exp(x), at most `LARGEST`, with derivatives if x is a `Dual`."""
    value = np.exp(np.minimum(value_of(x), LOG_LARGEST))
    return x.chain(value, value) if isinstance(x, Dual) else value


def apply(x: Any, function: Callable[..., Any], slope: Callable[..., Any], *others: Any) -> Any:
    """Return function(x, *others), with derivatives if x is a `Dual`. `slope` is the derivative with respect to x."""
    if isinstance(x, Dual):
        return x.chain(function(x.value, *others), slope(x.value, *others))
    return function(x, *others)


def apply_score(x: Any, function: Callable[..., tuple[Any, Any]], *others: Any) -> Any:
    """Return the score of a log likelihood at x, with derivatives if x is a `Dual`.

    `function(x, *others)` returns the score, and minus its derivative with respect to x.
    """
    score, information = function(value_of(x), *others)
    return x.chain(score, -information) if isinstance(x, Dual) else score


# --- blocks ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Linear:
    """A linear predictor X beta_j + offset, where beta_j is row j of the coefficients of the `Block` named `block`."""

    block: str
    X: Array
    j: int = 0
    offset: Array | None = None


Beta = dict[str, Array]  # name of a block: its coefficients, shape (m, p, R)


@dataclass(frozen=True)
class Point:
    """The rows and coefficients at which residuals are evaluated."""

    beta: Beta
    rows: slice = field(default_factory=lambda: ALL)
    by: frozenset[str] = frozenset()  # blocks whose predictors carry derivatives

    def __call__(self, eta: Linear) -> Any:
        """Return the values of a linear predictor in these rows, shape (n, R) for R resamples."""
        value = eta.X[self.rows] @ self.beta[eta.block][eta.j]
        if eta.offset is not None:
            value = value + eta.offset[self.rows, None]
        return Dual(value, {eta: 1.0}) if eta.block in self.by else value

    def of(self, column: NDArray[Any]) -> NDArray[Any]:
        """Return the entries of `column` (one per row of the sample) for these rows, shape (m, 1)."""
        return column[self.rows, None]


Residuals = Callable[[Point], Sequence[Any]]


@dataclass(frozen=True)
class Block:
    """Equations sum_i s_i X_i r_l = 0, with one residual r_l for each linear predictor."""

    own: tuple[Linear, ...]
    terms: tuple[tuple[slice, Residuals], ...]  # rows and their residuals; the equations are sums over the terms
    start: Callable[[], tuple[Array, Array]] | None = None  # Gram matrix and moments of the start, zero by default
    linear: bool = False  # whether one step solves the equations
    least_norm: bool = False  # whether to use the solution of least norm if there are several
    unsettled: int = Failure.NOT_CONVERGED
    singular: int = Failure.SINGULAR_OUTCOME
    separated: int | None = None  # failure code if the linear predictors may diverge
    chunks: tuple[Any, ...] = ()  # the same block for each chunk of rows, delayed, if the rows do not fit in memory

    @property
    def name(self) -> str:
        """Name of the block, under which `Beta` has its coefficients."""
        return self.own[0].block


def _gram(one: Linear, other: Linear, rows: slice, v: Any) -> Any:
    """Return X' diag(v_r) Y for each column v_r of `v`, shape (R, p, q), where `one` has X and `other` has Y."""
    if one.X is other.X:
        return weighted_grams(one.X[rows], v)
    return np.stack([one.X[rows].T @ (of[:, None] * other.X[rows]) for of in v.T])


def _sums(block: Block, s: Array, beta: Beta, by: frozenset[str]) -> tuple[Array, dict[str, Array]]:
    """Return the block's equations, shape (m p, R), and their derivatives, summed over the rows.

    The derivatives with respect to the k coefficients of each block in `by` have shape (R, m p, k).
    """
    (m, p), R = (len(block.own), block.own[0].X.shape[1]), s.shape[1]
    equations, slopes = np.zeros((m, p, R)), {block.name: np.zeros((R, m, p, m, p))} if by else {}
    for term, residuals in block.terms:
        first, last, _ = term.indices(len(s))
        for rows in _pieces(first, last, R):
            weights = s[rows]
            for i, r in enumerate(residuals(Point(beta, rows, by))):
                equations[i] += block.own[i].X[rows].T @ (weights * value_of(r))
                for eta, d in r.by.items() if isinstance(r, Dual) else ():
                    slope = slopes.setdefault(eta.block, np.zeros((R, m, p, *beta[eta.block].shape[:2])))
                    slope[:, i, :, eta.j] += _gram(block.own[i], eta, rows, weights * d)
    return equations.reshape(m * p, R), {name: slope.reshape(R, m * p, -1) for name, slope in slopes.items()}


def _pieces(first: int, last: int, width: int) -> list[slice]:
    size = AT_ONCE // min(max(width, 2), 64)
    return [slice(start, min(start + size, last)) for start in range(first, max(last, first + 1), size)]


def solve(
    blocks: Sequence[Block], s: Array, start: Beta | None = None, known: Beta | None = None
) -> tuple[Beta, dict[str, NDArray[np.int8]]]:
    """Solve blocks in order under row weights (n, R). A block may depend on earlier blocks.

    `start` has the coefficients (m, p, 1) of the sample, from which resamples start. `known` has the coefficients of
    blocks that are solved already. Returns the coefficients (m, p, R) and the `Failure` codes (R,) of each block.
    """
    beta, failures = dict(known or {}), dict[str, NDArray[np.int8]]()
    with np.errstate(all="ignore"):  # fits without a solution have a failure code
        for block in blocks:
            at = None if start is None else start[block.name]
            beta[block.name], failures[block.name] = newton(block, beta, s, at)
    return beta, failures


def newton(block: Block, known: Beta, s: Array, start: Array | None) -> tuple[Array, NDArray[np.int8]]:
    """Solve one block by Newton's method. Return coefficients (m, p, R) and failure codes (R,).

    A step is halved if its product with the equations changes sign and exceeds `OVERSHOT` times its initial size.
    """
    m, p, R = len(block.own), block.own[0].X.shape[1], s.shape[1]
    weights, before = s, known

    def at(coefficients: Array) -> tuple[Array, Array]:
        there = {**before, block.name: coefficients.reshape(m, p, -1)}
        equations, slopes = add_up(in_chunks(_sums, block.chunks, block, weights, there, frozenset([block.name])))
        return equations, -slopes[block.name]

    if block.linear:
        equations, slope = at(np.zeros((m * p, 1)))
        solution, singular = _step(block, slope, equations)
        solution[:, singular | ~np.isfinite(equations).all(axis=0)] = np.nan
        return solution.reshape(m, p, R), np.where(singular, block.singular, Failure.OK).astype(np.int8)
    first = np.zeros(m * p)
    if start is not None:
        first = start[..., 0]
    elif block.start is not None:
        gram, moments = add_up(in_chunks(lambda of: of.start(), block.chunks, block))
        first = np.linalg.lstsq(gram, moments, rcond=1e-13)[0]
    beta = np.repeat(first.reshape(m * p, 1), R, axis=1)
    codes, active, last = np.full(R, block.unsettled, dtype=np.int8), np.arange(R), np.full(R, np.inf)
    equations, slope = at(beta[:, :1])  # the start is the same for all resamples
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
        largest = np.max(in_chunks(farthest, block.chunks, block, s[:, bad], there), axis=0)
        codes[bad[largest > SEPARATED]] = block.separated
    return beta.reshape(m, p, R), codes


def some(beta: Array, columns: NDArray[Any]) -> Array:
    """Select the resamples `columns` from coefficients (m, p, R). Coefficients (m, p, 1) are returned unchanged."""
    return beta if beta.shape[2] == 1 else beta[:, :, columns]


def _step(block: Block, slope: Array, equations: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Return Newton steps (k, R) and a mask (R,) of singular equations."""
    if not block.least_norm:
        equations = np.where(np.isfinite(equations), equations, 0.0)
        step, singular = solve_definite(slope, equations)
        known = np.isfinite(slope).all(axis=(1, 2)) & (not block.linear)
        for r in np.flatnonzero(singular & known):  # far from the solution, slopes may not be positive definite
            values, vectors = np.linalg.eigh(slope[r])
            size = np.abs(values)
            if size.min() > CONCAVE * size.max():
                step[:, r], singular[r] = vectors @ (vectors.T @ equations[:, r] / size), False
        return step, singular
    inverse = np.linalg.pinv(slope, rcond=1e-10, hermitian=True)
    return np.einsum("rij,jr->ir", inverse, equations), np.zeros(len(slope), dtype=bool)


def farthest(block: Block, s: Array, beta: Beta) -> Array:
    """Return the largest absolute linear predictor of the rows with positive weight, shape (R,)."""
    found = np.zeros(s.shape[1])
    for rows, _ in block.terms:
        here = Point(beta, rows)
        for eta in block.own:
            found = np.maximum(found, (np.abs(here(eta)) * (s[rows] > 0)).max(axis=0, initial=0))
    return found


# --- influence -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Influence:
    """Influence functions -G^-1 g_i of all coefficients, where G is the mean derivative of the stacked equations.

    `factors[block][source]` is the part of -G^-1 that maps the equations of `source` to the coefficients of `block`.
    `known` has influence functions (n, k) of the coefficients of blocks that were solved elsewhere.
    """

    n: int
    blocks: tuple[Block, ...]
    beta: Beta
    factors: dict[str, dict[str, Array]]
    known: Mapping[str, Array] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Array:
        return self.of({name: np.eye(len(self.factors[name][name]))})

    def of(self, *combinations: Mapping[str, Array]) -> Array:
        """Return influence functions (n, d) of linear `combinations` of coefficients: matrices (k, m p) by block."""
        factors, ends = dict[str, Array](), np.cumsum([0, *(len(next(iter(each.values()))) for each in combinations)])
        for combination, start, stop in zip(combinations, ends, ends[1:], strict=False):
            for name, matrix in combination.items():
                for source, factor in self.factors[name].items():
                    whole = factors.setdefault(source, np.zeros((factor.shape[1], ends[-1])))
                    whole[:, start:stop] += (matrix @ factor).T
        found = np.zeros((self.n, ends[-1]))
        for name, psi in self.known.items():
            if name in factors:
                found += psi @ factors[name]
        with np.errstate(all="ignore"):  # fits that diverged have a failure code
            for block in (block for block in self.blocks if block.name in factors):
                own = np.split(factors[block.name], len(block.own))
                for term, residuals in block.terms:
                    for rows in _pieces(*term.indices(self.n)[:2], 1):
                        for eta, r, factor in zip(block.own, residuals(Point(self.beta, rows)), own, strict=True):
                            found[rows] += value_of(r) * (eta.X[rows] @ factor)
        return found


def influence(blocks: Sequence[Block], s: Array, beta: Beta, total: float, known: Influence | None = None) -> Influence:
    """Return the influence functions of all coefficients of stacked blocks.

    Block b has psi_b = -G_bb^-1 (g_b + sum over earlier blocks c of G_bc psi_c), where G_bc is the mean derivative of
    the equations of b in the coefficients of c. The covariance of the coefficients is the sum of s_i^2 psi_i psi_i^T,
    divided by `total` squared. `known` has psi for earlier blocks.
    """
    known = known or Influence(len(s), (), beta, {})
    factors = dict(known.factors)
    by = frozenset([*factors, *(block.name for block in blocks)])
    with np.errstate(all="ignore"):  # fits that diverged have a failure code
        chunks = [*zip(*(block.chunks for block in blocks), strict=True)]
        every = add_up(in_chunks(lambda of, s: [_sums(block, s, beta, by)[1] for block in of], chunks, blocks, s))
    for block, slopes in zip(blocks, every, strict=True):
        slope = slopes.pop(block.name)[0] / total
        inverse = -(np.linalg.pinv(slope, rcond=1e-10, hermitian=True) if block.least_norm else inverse_or_nan(slope))
        own = {block.name: inverse}
        for name, slope in slopes.items():
            for source, factor in factors[name].items():
                own[source] = own.get(source, 0.0) + inverse @ (slope[0] / total) @ factor
        factors[block.name] = own
    return Influence(len(s), (*known.blocks, *blocks), beta, factors, known.known)
