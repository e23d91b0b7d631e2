"""Separation: rows that the propensity model predicts perfectly, and the terms of the design behind them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from causalrisk.design import Design
from causalrisk.errors import SeparationError
from causalrisk.numerics.linalg import Array
from causalrisk.numerics.optimize import MARGIN, separating_direction
from causalrisk.propensity.models import Arms, other_arms
from causalrisk.propensity.weights import WeightModel

SHOWN = 3
T = TypeVar("T")
# Begins a pass: a function -> what it makes of the weight model on each block of rows.
Models: TypeAlias = Callable[[Callable[[WeightModel], Any]], Iterable[Any]]


@dataclass(frozen=True)
class Separation:
    """A direction along which the propensity model separates the arms.

    Parameters
    ----------
    direction : ndarray, shape ((K - 1) q,)
        Coefficients of the basis columns, an arm after the other.
    n_columns : int
        q.
    """

    direction: Array
    n_columns: int

    def rows(self, model: WeightModel) -> NDArray[np.bool_]:
        """Which rows of a block are predicted perfectly, shape (n,)."""
        rows = np.zeros(len(model.in_sample), dtype=bool)
        rows[_rows_of(model, 0)] = (_against_others(model, 0) @ self.direction > MARGIN).any(axis=0)
        return rows

    @property
    def strongest(self) -> Array:
        """Coefficients of the basis columns, shape (q,): of several arms the largest, for a message to name it once."""
        by_arm = self.direction.reshape(-1, self.n_columns)
        return by_arm[np.abs(by_arm).argmax(axis=0), np.arange(self.n_columns)]


def find_separation(models: Models, model: WeightModel) -> Separation | None:
    """Look for separation.

    Parameters
    ----------
    models : callable
        Begins a pass over the rows.

    Returns
    -------
    Separation or None
        None when the maximum likelihood estimate exists.

    References
    ----------
    .. [1] Konis, K. (2007). Linear programming algorithms for detecting separated data in binary logistic regression
       models. DPhil thesis, University of Oxford.
    """
    if not model.propensity.n_coefficients:
        return None
    direction = _direction_of(models, model, 0)
    return None if direction is None else Separation(direction, model.columns.shape[1])


def _direction_of(models: Models, model: WeightModel, k: int) -> Array | None:
    """Direction along which one of `WeightModel.models` separates its arms, None where they overlap; see above."""
    own = model.models[k][0]
    size = (own.n_arms - 1) * own.columns.shape[1]
    return separating_direction(lambda function: models(functools.partial(_over, k, function)), size)


def _over(k: int, function: Callable[[Array], T], model: WeightModel) -> T:
    signed = _against_others(model, k)
    return function(signed.reshape(-1, signed.shape[2]))


def _rows_of(model: WeightModel, k: int) -> NDArray[np.bool_]:
    """Which rows one of the models is of: that of membership of all, the others of those of the sample."""
    return (model.in_sample > 0) | (model.models[k][0] is model.membership)


def _against_others(model: WeightModel, k: int) -> Array:
    """Return derivatives by the coefficients of the log odds of a row's arm to each other, (K - 1, n, (K - 1) q)."""
    of, own = model.models[k][0], _rows_of(model, k)
    columns, arm, n_arms = of.columns[own], of.arm[own], of.n_arms
    n, q = columns.shape
    signed = np.zeros((n_arms - 1, n, n_arms, q))
    rows = np.arange(n)
    for j, other in enumerate(other_arms(arm, n_arms, None)):
        signed[j, rows, arm] += columns
        signed[j, rows, other] -= columns
    return signed[:, :, 1:].reshape(n_arms - 1, n, (n_arms - 1) * q)  # a block may have none of the sample's rows


def check_other(models: Models, model: WeightModel, k: int, design: Design) -> None:
    """Raise a SeparationError where the model of membership, or that of the observation, separates its rows."""
    if _direction_of(models, model, k) is None:
        return
    if model.models[k][0] is model.membership:
        raise SeparationError(
            "the membership model (logit) predicts perfectly which rows are of the target frame, so no weight exists.\n"
            "Simplify propensity=, or drop the rows of the data or the frame that have no like in the other."
        )
    formula = None if design.observation is None else design.observation.formula
    raise SeparationError(
        f"the observation model (logit) predicts perfectly whether {design.endog_name!r} is observed, so no weight "
        f"exists.\nSimplify `observed={formula!r}`: an arm or a level may have no outcomes, or all of them."
    )


@dataclass(frozen=True)
class Predicted:
    """What the error of separation says of the rows; parts of blocks go `beside` one another.

    Cells are all rows, those where each column is not zero, and those at the reference level of each factor.

    Parameters
    ----------
    counts : ndarray, shape (c, K)
        Rows of each arm in each cell.
    told : ndarray, shape (c,)
        Rows that are predicted perfectly.
    limits, others : ndarray, shape (2, q)
        Smallest and largest value of each column, and of those that are not zero.
    labels : ndarray
        Index labels of the rows that are predicted perfectly.
    """

    counts: NDArray[np.intp]
    told: NDArray[np.intp]
    limits: Array
    others: Array
    labels: NDArray[Any]

    @classmethod
    def of(cls, design: Design, Z: Array, arm: Arms, told: NDArray[np.bool_], labels: Any) -> Predicted:
        """Look at the rows of a block.

        Parameters
        ----------
        Z : ndarray, shape (n, q)
            Propensity design.
        arm : ndarray of int, shape (n,)
            Arm of each row.
        told : ndarray of bool, shape (n,)
            Rows that are predicted perfectly.
        labels : sequence
            Index label of each row.
        """
        at_reference = [(Z[:, columns] == 0).all(axis=1) for _, columns in _references(design)]
        cells = np.column_stack([np.ones(len(Z), dtype=bool), Z != 0, *at_reference]).T.astype(np.intp)
        other = np.where(Z != 0, Z, np.nan)
        return cls(
            counts=cells @ (arm[:, None] == np.arange(design.n_arms)).astype(np.intp),
            told=cells @ told.astype(np.intp),
            limits=np.stack([Z.min(axis=0, initial=np.inf), Z.max(axis=0, initial=-np.inf)]),
            others=np.stack([of.reduce(other, axis=0, initial=np.nan) for of in (np.fmin, np.fmax)]),
            labels=np.asarray(labels)[told],
        )

    def beside(self, other: Predicted) -> Predicted:
        """Merge with what is seen of later rows."""
        return Predicted(
            counts=self.counts + other.counts,
            told=self.told + other.told,
            limits=_widest(self.limits, other.limits),
            others=_widest(self.others, other.others),
            labels=np.concatenate([self.labels, other.labels]),
        )

    def cells(self, design: Design) -> Iterator[tuple[str, NDArray[np.intp], int]]:
        """Cells of the design with their counts: both values of each indicator, and reference levels of factors."""
        (low, high), q = self.others, len(design.propensity_names)
        for j, name in enumerate(design.propensity_names):
            here, told = self.counts[1 + j], self.told[1 + j]
            if low[j] == high[j] > self.limits[0, j]:
                yield f"{name} = {high[j]:g}", here, told
                yield f"{name} = 0", self.counts[0] - here, self.told[0] - told
        for (name, _), here, told in zip(_references(design), self.counts[1 + q :], self.told[1 + q :], strict=True):
            yield name, here, told


def _widest(one: Array, other: Array) -> Array:
    return np.stack([np.fmin(one[0], other[0]), np.fmax(one[1], other[1])])


def _references(design: Design) -> list[tuple[str, list[int]]]:
    """Return the reference levels of the factors, each with the columns that are zero there."""
    names = list(design.propensity_names)
    return [
        (f"{factor} = {level}", [names.index(other) for other in others])
        for factor, level, others in design.propensity_encoder.reference_levels()
        if set(others) <= set(names)
    ]


def separation_error(design: Design, found: Predicted, coefficients: Array, link: str) -> SeparationError:
    """Make the error that names the rows and the term behind them.

    Parameters
    ----------
    coefficients : ndarray, shape (q,)
        Coefficients of the columns of the propensity design that separate the arms.
    """
    told = int(found.told[0])
    every = told == found.counts[0].sum()
    cause = _cells(design, found) or _direction(design, coefficients, np.ptp(found.limits, axis=0))
    plural = "" if told == 1 else "s"
    right = (design.propensity_formula or "").partition("~")[2].strip()
    where = f'propensity="{right}"' if right else "exog_propensity"
    if every:
        advice = f"The arms have no overlap at all: take that term out of {where}."
    else:
        advice = f'Merge or drop that level or term in {where}, or drop the rows: `trim="separated"`.'
    return SeparationError(
        f"the propensity model ({link}) predicts {design.treat_name!r} perfectly in {'all' if every else told} "
        f"row{plural}: {cause}, so no weight exists.\n" + advice,
        rows=found.labels,
    )


def _cells(design: Design, found: Predicted) -> str:
    """Name the cells that lie in one arm only, with the counts."""
    said = []
    for name, counts, told in found.cells(design):
        if (counts == 0).any() and told == counts.sum() > 0:
            shares = sorted(zip(counts, design.labels, strict=True), reverse=True)
            here = " and ".join(f"{count} {_people(design, label)}" for count, label in shares)
            said.append(f"{name} has {here}")
    more = f" (and {len(said) - SHOWN} more)" if len(said) > SHOWN else ""
    return "; ".join(said[:SHOWN]) + more


def _people(design: Design, label: str) -> str:
    """Noun for the units of an arm; a numeric label gets the name of the treatment."""
    return label if label[:1].isalpha() else f"with {design.treat_name} = {label}"


def _direction(design: Design, coefficients: Array, lengths: Array) -> str:
    """Name the terms whose combination separates the arms, given how far the values of each column reach."""
    influence = np.abs(coefficients) * lengths
    order = [j for j in np.argsort(-influence) if influence[j] > 1e-6 * influence.max()]
    names = ", ".join(repr(design.propensity_names[j]) for j in order[:SHOWN])
    more = " and others" if len(order) > SHOWN else ""
    return f"a combination of {names}{more} separates the arms" if len(order) > 1 else f"{names} separates the arms"
