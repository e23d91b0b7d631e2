"""Checks of the data: columns that both models can keep, linear dependence by arm, and limits of memory."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalrisk.design.encoders import Encoder
from causalrisk.design.tables import listing
from causalrisk.errors import DesignError
from causalrisk.numerics.arrays import Array, Basis, factored_basis, triangular_factor
from causalrisk.runtime import memory

Mask = NDArray[np.bool_]
LARGE_CONDITION = 1e7
# Columns are scaled to length one. A column counts as a linear combination of earlier ones if the sine of its angle to
# their span is at most ROUNDING (1 + sum of absolute coefficients), because each column adds its rounding error.
# Next to 80 columns, a dependent indicator of 3 rows among 1,600 has a sine of 1e-13, and rarer ones a larger one.
# The columns x and x + 1e-12 z still count as independent.
ROUNDING = 1e-13
NEAR = 1e-8  # larger sines are not rounding error; the smallest in NIST's Filip (polynomial of degree 10) is 5e-8
ROUNDED = 1e-8  # smaller coefficients of columns of length one count as zero
SMALLEST, LARGEST = 1e-152, 1e152  # magnitudes whose squares neither underflow nor overflow


def check_magnitude(values: np.ndarray, what: str) -> None:
    """Raise a DesignError for values whose squares overflow or underflow. `what` names the values."""
    largest = float(np.abs(values).max(initial=0))
    if largest and not SMALLEST <= largest <= LARGEST:
        found = f"{what} has values as large as {largest:.3g}"
        raise DesignError(f"{found}.\nIf these are codes for missing values, use NaN. Otherwise, rescale them.")


def check_arm_sizes(size: np.ndarray, labels: Sequence[str], p: int, q: int, controls_only: bool = False) -> None:
    """Raise a DesignError unless each arm has over p observations (outcome), and the sample over q (propensity)."""
    cases = [(f"group {label!r} has {n:.0f}", n, p, "outcome") for label, n in zip(labels, size, strict=True)]
    cases = cases[:1] if controls_only else cases
    for found, count, coefficients, model in [*cases, (f"{size.sum():.0f}", size.sum(), q, "propensity")]:
        if count <= coefficients:
            noun = "coefficient" if coefficients == 1 else "coefficients"
            rows = "row" if count == 1 else "rows"
            advice = f"Use fewer {model} terms." if count > 1 else "A treatment group needs at least two rows."
            raise DesignError(f"{found} {rows} for {coefficients} {model} {noun}.\n{advice}")


class Dependence(NamedTuple):
    """A column that is collinear with earlier ones in an arm. There, the columns times `direction` (p,) are zero."""

    column: int
    arm: int
    direction: Array


def independent_columns(X: Array) -> Mask:
    """Return a mask of the columns of X (n, p) that are not linear combinations of earlier columns."""
    return dependences([X], range(X.shape[1]), np.zeros(X.shape[1], dtype=bool))[0]


def dependences(factors: Sequence[Array], order: Sequence[int], exempt: Mask) -> tuple[Mask, list[Dependence]]:
    """Return a mask and dependences. Columns that depend on earlier ones in an arm are dropped, unless `exempt`."""
    keep, found, spans = np.zeros(len(exempt), dtype=bool), list[Dependence](), [_Span(each, order) for each in factors]
    for j in order:
        directions = [span.direction(j) for span in spans]
        keep[j] = exempt[j] or all(direction is None for direction in directions)
        for k, (span, direction) in enumerate(zip(spans, directions, strict=True)):
            if direction is not None or not keep[j]:
                span.set([column for column in span.columns if column != j])
            if direction is not None and not keep[j]:
                found.append(Dependence(j, k, direction))
    return keep, found


class _Span:
    """Span of columns of a matrix (r, p), in a given order."""

    def __init__(self, X: Array, order: Sequence[int]) -> None:
        self.norms = np.linalg.norm(X, axis=0)
        self.unit = X / np.where(self.norms > 0, self.norms, 1.0)
        self.set(list(order))

    def set(self, columns: list[int]) -> None:
        """Set the columns. Compute the sine of the angle between each column and the span of earlier columns."""
        triangle = np.linalg.qr(self.unit[:, columns], mode="r")
        self.columns, self.sines = columns, np.abs(np.diag(triangle))

    def direction(self, j: int) -> Array | None:
        """Return coefficients (p,) with which column j and earlier ones add up to zero, or None if j is independent."""
        direction, place = np.zeros(len(self.norms)), self.columns.index(j)
        direction[j] = 1.0
        if not self.norms[j]:
            return direction
        full = place >= len(self.sines)  # there are at least as many earlier columns as rows
        if not full and self.sines[place] > NEAR:
            return None
        before = self.columns[:place]
        shares = np.linalg.lstsq(self.unit[:, before], self.unit[:, j], rcond=None)[0]
        # Each column of the combination adds its rounding error times its coefficient.
        if not full and self.sines[place] > ROUNDING * (1 + np.abs(shares).sum()):
            return None
        shares[np.abs(shares) < ROUNDED] = 0.0
        direction[before] = -shares * self.norms[j] / self.norms[before]
        return direction


@dataclass(frozen=True)
class ColumnMoments:
    """Summary of the columns of a design in each of K arms: number of rows, limits, and a triangular factor.

    It is R in the QR of a constant and the columns minus `origin`, with rows times the roots of their weights.
    """

    origin: Array
    low: Array
    high: Array
    triangles: tuple[Array, ...]
    rows: NDArray[np.intp]

    @classmethod
    def of(
        cls, columns: Array, arm: Any = None, n_arms: int = 1, *, origin: Any = None, weights: Array | None = None
    ) -> ColumnMoments:
        """Return the moments of `columns` (n, p), which are finite numbers, given each row's arm and weight."""
        origin = np.zeros(columns.shape[1]) if origin is None else origin
        low, high, triangles, count = [], [], [], []
        for a in range(n_arms):
            members = slice(None) if arm is None else np.flatnonzero(arm == a)
            taken = columns.T[:, members]
            own = np.ones((len(taken) + 1, taken.shape[1]))  # the last row stays one
            own[:-1] = taken
            low.append(own[:-1].min(axis=1, initial=np.inf))
            high.append(own[:-1].max(axis=1, initial=-np.inf))
            count.append(own.shape[1])
            own[:-1] -= origin[:, None]
            root = None if weights is None else np.sqrt(weights[members])
            # Factorise with the ones last, then move them to the front. With the ones first, the rounding error of
            # another column of ones would be a direction of its own, and the residual of a dependent column would be
            # a hundred times its rounding error.
            last = triangular_factor(own.T, root)
            triangles.append(triangular_factor(np.roll(last, 1, axis=1)))
        return cls(origin, np.array(low), np.array(high), tuple(triangles), np.array(count, dtype=np.intp))

    def merged(self, other: ColumnMoments) -> ColumnMoments:
        """Return the moments of these rows and other rows together."""
        moved = np.r_[0.0, other.origin - self.origin]
        pairs = [(own, to + to[:, :1] * moved) for own, to in zip(self.triangles, other.triangles, strict=True)]
        return ColumnMoments(
            origin=self.origin,
            low=np.minimum(self.low, other.low),
            high=np.maximum(self.high, other.high),
            triangles=tuple(triangular_factor(np.vstack(pair)) for pair in pairs),
            rows=self.rows + other.rows,
        )

    @property
    def triangle(self) -> Array:
        """Triangular factor of the columns over the rows of all arms."""
        return self.triangles[0] if len(self.triangles) == 1 else triangular_factor(np.vstack(self.triangles))

    @property
    def limits(self) -> Array:
        """Smallest and largest value of each column, shape (p, 2)."""
        return np.column_stack([self.low.min(axis=0), self.high.max(axis=0)])

    @property
    def steady(self) -> Mask:
        """Mask (p,) of the constant columns."""
        return np.asarray(self.limits[:, 0] == self.limits[:, 1])

    def arms(self) -> list[Array]:
        """Return one matrix (r, p) per arm, whose columns have the same inner products as over the arm's rows."""
        found = [self._plain(triangle) for triangle in self.triangles]
        for rows, low, high in zip(found, self.low, self.high, strict=True):
            rows[:, (low == 0) & (high == 0)] = 0.0  # exactly zero; adding the origin leaves rounding error
        return found

    def within_arms(
        self, among: Mask, exempt: Mask | None = None, n_arms: int | None = None
    ) -> tuple[Mask, list[Dependence]]:
        """Return a mask of columns that are independent within every arm, and a `Dependence` for each other column."""
        exempt = np.zeros(len(among), dtype=bool) if exempt is None else exempt
        order = [*np.flatnonzero(among & self.steady).tolist(), *np.flatnonzero(among & ~self.steady).tolist()]
        return dependences(self.arms()[:n_arms], order, exempt)

    def _plain(self, triangle: Array) -> Array:
        return triangle[:, 1:] + triangle[:, [0]] * self.origin

    def usable(self, names: Sequence[str], model: str, notes: list[str]) -> Mask:
        """Return a mask (p,) without columns that depend on earlier ones. Problems are added to `notes`."""
        for name, limits in zip(names, self.limits, strict=True):
            check_magnitude(limits, f"column {name!r} of the {model} model")
        # Angles between the columns, and to the constant, are the same in the factor as in the rows.
        triangle, steady = self.triangle, self.steady
        ones, columns = triangle[:, :1], self._plain(triangle)
        keep = independent_columns(columns)
        constant = (keep & steady & (self.limits[:, 0] != 0)).any()
        constant = constant or not independent_columns(np.hstack([columns[:, keep], ones]))[-1]
        # The first row of the factor is along the constant. Without this row, the columns are centred.
        varying = columns[1:, keep & ~steady] if (keep & steady).any() else columns[:, keep]
        norms = np.linalg.norm(varying, axis=0)
        condition = np.inf if not norms.all() else np.linalg.cond(varying / norms) if norms.size else 1.0
        dropped = [name for name, kept in zip(names, keep, strict=True) if not kept]
        if dropped:
            level = [name for name, kept, same in zip(names, keep, steady, strict=True) if same and not kept]
            others = [name for name in dropped if name not in level]
            parts = [(others, "linearly dependent on earlier columns"), (level, "constant")]
            found = " and ".join(f"{listing(part)} ({why})" for part, why in parts if part)
            notes.append(f"dropped {found}. The effect is the same; no action is needed.")
        if not constant:
            left = listing(n for n in names if n not in dropped)
            meant = "Add a constant. If the model should go through the origin, ignore this warning"
            notes.append(f"no constant among the columns ({left}). {meant}.")
        if condition > LARGE_CONDITION:
            why = f"the columns are nearly dependent (condition number {condition:.2g} after centring and scaling)"
            notes.append(f"{why}, so coefficients are imprecise. Leave out one of the near-duplicates.")
        return keep

    def basis(self, keep: Mask) -> tuple[Basis, Array]:
        """Return an orthonormal basis of the columns to keep, and the constant's coefficients (0 if not spanned)."""
        constant = np.flatnonzero((self.steady & (self.origin != 0))[keep])
        triangle = triangular_factor(self.triangle[:, np.r_[True, keep]])
        basis = factored_basis(triangle, self.origin[keep], int(constant[0]) if constant.size else None)
        means = self.origin[keep] + triangle[0, 1:] / triangle[0, 0]
        nearest = basis.of_rows(means[None])[0]  # the constant's projection, of length one if it is in the span
        return basis, nearest if abs(nearest @ nearest - 1) < 1e-9 else np.zeros_like(nearest)


AS_THEY_ARE = "as they are"  # value of `Rules.scores`
SHOWN = 5  # causes named in a message
SIDE = 1e-8  # values of the wrong sign, up to this share of the largest value, are rounding error


def check_size(rows: int, columns: int, what: str, advice: str, arrays: float) -> None:
    """Raise a DesignError if memory cannot hold `arrays` matrices of this size. `what` names the design."""
    needed, there = 8.0 * arrays * rows * columns, memory()
    if needed > there:
        found = f"{what}, with {columns:,} columns and {rows:,} rows, needs {needed / 1e9:,.3g} GB"
        raise DesignError(f"{found}, and this computer has {there / 1e9:,.3g} GB.\n{advice}.")


def check_levels(
    rows: int, columns: Mapping[str, pd.Series], coded: set[str], model: str, arrays: float | None = None
) -> None:
    """Raise a DesignError if the variables of a model have too many levels for its matrices to fit in memory."""
    named = [name for name, values in columns.items() if name in coded or values.dtype.kind not in "bif"]
    levels = {name: int(columns[name].nunique()) for name in named}
    if levels:
        most, count = max(levels, key=lambda name: levels[name]), sum(levels.values())
        advice = f"Leave the identifier {most!r} out" if levels[most] > rows / 2 else f"Use fewer levels of {most!r}"
        check_size(rows, count, f"the {model} model", advice, arrays or (count + 1) / 2)


class Rules(NamedTuple):
    """Rules for the columns of both models.

    With `constant_outcome` (IPW), the outcome model is one constant per arm. With `controls_only`
    (difference-in-differences), only the controls need an outcome model.

    `scores` says which columns of the propensity model to drop if they are collinear within an arm. "likely": those
    that separate an arm, because with them the likelihood has no maximum. "balanced": all, because no weights can
    balance them. "as they are": none.
    """

    constant_outcome: bool
    scores: str
    controls_only: bool = False
    scored: bool = True  # whether any estimator has a propensity model, for messages

    @classmethod
    def of(cls, columns: Any, constant_outcome: bool, joint_outcome: bool = False, scored: bool = True) -> Rules:
        """Return the rules for the options of a call. With `joint_outcome`, the arms are fitted jointly (JRE)."""
        scores = scores_rule(columns.propensity_loss, columns.propensity_score, columns.trim)
        controls_only = columns.did is not None and not columns.did.cross_sections and not joint_outcome
        return cls(constant_outcome, scores, controls_only, scored)


def scores_rule(loss: str, score: Any, trim: Any) -> str:
    """Return the rule `Rules.scores` for the options `propensity_loss`, `propensity_score` and `trim`."""
    if score is not None or (isinstance(trim, str) and trim == "separated"):
        return AS_THEY_ARE
    return "balanced" if loss == "calibrated" else "likely"


def without_separating(
    seen: ColumnMoments, among: Mask, spans: Callable[[Array], tuple[Array, Array]]
) -> tuple[Mask, list[Dependence]]:
    """Return a mask and dependences. Columns that depend on others in an arm are dropped if they separate the arm."""
    exempt = np.zeros(len(among), dtype=bool)
    while True:
        keep, found = seen.within_arms(among, exempt)
        if not found:
            return keep, []
        low, high = spans(np.column_stack([one.direction for one in found]))
        side = SIDE * np.maximum(np.abs(low), np.abs(high)).max(axis=0)
        separates = ((low >= -side) | (high <= side)).all(axis=0)
        separating = [one for one, does in zip(found, separates, strict=True) if does]
        harmless = {one.column for one in found} - {one.column for one in separating}
        if not harmless:
            return keep, separating
        exempt[list(harmless)] = True


def causes(encoder: Encoder, seen: ColumnMoments, labels: Sequence[str], found: Sequence[Dependence]) -> str:
    """Return text that says which columns are linearly dependent within an arm, and which levels have no rows in it."""
    texts = list(dict.fromkeys(_cause(encoder, seen, labels[one.arm], one) for one in found))
    more = f"; and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return "; ".join(texts[:SHOWN]) + more


def _cause(encoder: Encoder, seen: ColumnMoments, label: str, found: Dependence) -> str:
    names, low, arm = encoder.names, seen.low[found.arm], f"group {label!r}"
    own, value = names[found.column], low[found.column] + 0.0
    constant = value == seen.high[found.arm, found.column]
    others = {name for name, share in zip(names, found.direction, strict=True) if share and name != own}
    for factor, columns in encoder.levels().items():
        plain, reference = re.sub(r"^C\((\w+)\)$", r"\1", factor), [v for v, name in columns.items() if not name]
        coded = {name: level for level, name in columns.items() if name}
        if own in coded and constant and not value:
            return f"{plain} = {listing([coded[own]])} has no rows in {arm}"
        if own in coded and len(reference) == 1 and len(coded.keys() - others) == 1 == len(others - coded.keys()):
            why = "so the columns of the other levels add up to one there"
            return f"{plain} = {listing(reference)}, the reference level, has no rows in {arm}, {why}"
    if constant:
        return f"{own} is {value:g} in all rows of {arm}"
    return f"{own} is a linear combination of {listing(name for name in names if name in others)} in {arm}"
