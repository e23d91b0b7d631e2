"""Separation: rows that the propensity model predicts perfectly, and the terms of the design behind them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from causalrisk.design import Design
from causalrisk.errors import SeparationError
from causalrisk.numerics.blocks import add_up
from causalrisk.numerics.linalg import Array
from causalrisk.numerics.optimize import MARGIN, separating_direction
from causalrisk.propensity.models import Arms, other_arms
from causalrisk.propensity.weights import WeightModel, membership_of, observation_of

SUSPICIOUS = 12.0  # linear predictors beyond this (odds 160,000) are worth a linear programme
SHOWN = 3
T = TypeVar("T")


class Models(Protocol):
    """Begins a pass: what a function makes of the weight model on each block of rows."""

    def __call__(self, function: Callable[[WeightModel], T]) -> Iterable[T]:
        """Begin it."""


def is_suspicious(converged: bool, farthest: float) -> bool:
    """Whether a fit gives cause to look for separation: it did not settle, or a linear predictor is that large."""
    return not (converged and farthest < SUSPICIOUS)


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
        rows = np.zeros(len(model.observed), dtype=bool)
        rows[model.observed > 0] = (_of_sample(model) @ self.direction > MARGIN).any(axis=0)
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
    model : WeightModel
        That of some rows or none.

    Returns
    -------
    Separation or None
        None when the maximum likelihood estimate exists.

    References
    ----------
    .. [1] Konis, K. (2007). Linear programming algorithms for detecting separated data in binary logistic regression
       models. DPhil thesis, University of Oxford.
    """
    propensity, q = model.propensity, model.columns.shape[1]
    if not propensity.n_coefficients:
        return None
    size = (propensity.n_arms - 1) * q
    direction = separating_direction(lambda function: models(functools.partial(_over_sample, function)), size)
    return None if direction is None else Separation(direction, q)


def _over_sample(function: Callable[[Array], T], model: WeightModel) -> T:
    signed = _of_sample(model)
    return function(signed.reshape(-1, signed.shape[2]))


def _of_sample(model: WeightModel) -> Array:
    """As `_against_others`, of the rows of the sample."""
    propensity, own = model.propensity, model.observed > 0
    return _against_others(propensity.columns[own], propensity.arm[own], propensity.n_arms)


def _against_others(columns: Array, arm: Arms, n_arms: int) -> Array:
    """Return derivatives by the coefficients of the log odds of a row's arm to each other, (K - 1, n, (K - 1) q)."""
    n, q = columns.shape
    signed = np.zeros((n_arms - 1, n, n_arms, q))
    rows = np.arange(n)
    for k, other in enumerate(other_arms(arm, n_arms, None)):
        signed[k, rows, arm] += columns
        signed[k, rows, other] -= columns
    return signed[:, :, 1:].reshape(n_arms - 1, n, (n_arms - 1) * q)  # a block may have none of the sample's rows


def check_membership(models: Models, model: WeightModel) -> None:
    """Raise a SeparationError where the covariates tell the target frame from the sample; arguments as above."""
    q = model.columns.shape[1]
    direction = separating_direction(lambda function: models(functools.partial(_over_members, function)), q)
    if direction is None:
        return
    told, every = add_up(models(functools.partial(_members_told, direction)))
    inside = not told[0]
    k, whose, others = (1, "the sample", "the frame") if inside else (0, "the frame", "the sample")
    where = "covers a part of the sample only" if inside else "lies outside of the sample"
    raise SeparationError(
        f"the target frame {where}: the membership model (logit) tells {told[k]} of the "
        f"{every[k]} rows of {whose} from those of {others} perfectly, so no weight exists.\n"
        f"Simplify propensity=, or leave out the rows of {whose.replace('sample', 'data')} that have no like in "
        f"{others}."
    )


def _over_members(function: Callable[[Array], T], model: WeightModel) -> T:
    return function(_of_members(model))


def _of_members(model: WeightModel) -> Array:
    """As `_against_others`, of the target frame and the sample."""
    membership = membership_of(model)
    return _against_others(membership.columns, membership.arm, 2)[0]


def _members_told(direction: Array, model: WeightModel) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Count the rows of the frame and of the sample that are told from the others, and all of them."""
    told, member = _of_members(model) @ direction > MARGIN, (model.observed > 0).astype(np.intp)
    return np.bincount(member[told], minlength=2), np.bincount(member, minlength=2)


def check_observation(models: Models, model: WeightModel, design: Design) -> None:
    """Raise a SeparationError where the observation model tells which outcomes are missing; arguments as above."""
    observation, seen = model.observation, design.observation
    if observation is None or seen is None:
        return
    size = observation.n_coefficients
    direction = separating_direction(lambda function: models(functools.partial(_over_seen, function)), size)
    if direction is None:
        return
    told = add_up(models(functools.partial(_seen_told, direction)))
    raise SeparationError(
        f"the observation model (logit) predicts whether the outcome {design.endog_name!r} is observed perfectly in "
        f"{int(told.sum())} rows ({told[0]} without and {told[1]} with an outcome), so its coefficients are not "
        f"finite.\nSimplify  observed={seen.formula!r}: leave out the term that tells, such as an arm or a level "
        "whose outcomes are all observed, or all missing."
    )


def _over_seen(function: Callable[[Array], T], model: WeightModel) -> T:
    return function(_of_seen(model))


def _of_seen(model: WeightModel) -> Array:
    """As `_against_others`, of the rows of the sample with and without an outcome."""
    observation, own = observation_of(model), model.observed > 0
    return _against_others(observation.columns[own], observation.arm[own], 2)[0]


def _seen_told(direction: Array, model: WeightModel) -> NDArray[np.intp]:
    """Count the rows without and with an outcome that are told from the others."""
    arm = observation_of(model).arm[model.observed > 0]
    return np.bincount(arm[_of_seen(model) @ direction > MARGIN], minlength=2)


@dataclass(frozen=True)
class _Counts:
    """Counts of rows: of each arm, (..., K), and of those that are predicted perfectly, (...)."""

    of_arm: NDArray[np.intp]
    told: NDArray[np.intp]

    @classmethod
    def of(cls, cells: NDArray[np.bool_], arm: Arms, told: NDArray[np.bool_], n_arms: int) -> _Counts:
        """Count the rows of each of c cells, of shape (n, c)."""
        inside = cells.T.astype(np.intp)
        return cls(inside @ (arm[:, None] == np.arange(n_arms)).astype(np.intp), inside @ told.astype(np.intp))


@dataclass(frozen=True)
class Predicted:
    """What the error of separation says of the rows; parts of blocks go `beside` one another.

    Parameters
    ----------
    rows, nonzero, reference : _Counts
        Of all rows, of those where each column is not zero, and of those at the reference level of each factor.
    limits, others : ndarray, shape (2, q)
        Smallest and largest value of each column, and of those that are not zero.
    labels : ndarray
        Index labels of the rows that are predicted perfectly.
    """

    rows: _Counts
    nonzero: _Counts
    reference: _Counts
    limits: Array
    others: Array
    labels: NDArray[Any]

    @classmethod
    def of(cls, design: Design, Z: Array, arm: Arms, told: NDArray[np.bool_], labels: Any) -> Predicted:
        """Look at the rows of a block.

        Parameters
        ----------
        design : Design
            The data with their names.
        Z : ndarray, shape (n, q)
            Propensity design.
        arm : ndarray of int, shape (n,)
            Arm of each row.
        told : ndarray of bool, shape (n,)
            Rows that are predicted perfectly.
        labels : sequence
            Index label of each row.
        """
        count = functools.partial(_Counts.of, arm=arm, told=told, n_arms=design.n_arms)
        at_reference = [(Z[:, columns] == 0).all(axis=1) for _, columns in _references(design)]
        other = np.where(Z != 0, Z, np.nan)
        return cls(
            rows=count(np.ones((len(Z), 1), dtype=bool)),
            nonzero=count(Z != 0),
            reference=count(np.array(at_reference, dtype=bool).reshape(len(at_reference), len(Z)).T),
            limits=np.stack([Z.min(axis=0, initial=np.inf), Z.max(axis=0, initial=-np.inf)]),
            others=np.stack([of.reduce(other, axis=0, initial=np.nan) for of in (np.fmin, np.fmax)]),
            labels=np.asarray(labels)[told],
        )

    def beside(self, other: Predicted) -> Predicted:
        """Merge with what is seen of later rows."""
        rows, nonzero, reference = add_up([(one.rows, one.nonzero, one.reference) for one in (self, other)])
        return Predicted(
            rows=rows,
            nonzero=nonzero,
            reference=reference,
            limits=_widest(self.limits, other.limits),
            others=_widest(self.others, other.others),
            labels=np.concatenate([self.labels, other.labels]),
        )

    def cells(self, design: Design) -> Iterator[tuple[str, NDArray[np.intp], int]]:
        """Cells of the design with their counts: both values of each indicator, and reference levels of factors."""
        low, high = self.others
        for j, name in enumerate(design.propensity_names):
            here, told = self.nonzero.of_arm[j], self.nonzero.told[j]
            if low[j] == high[j] > self.limits[0, j]:
                yield f"{name} = {high[j]:g}", here, told
                yield f"{name} = 0", self.rows.of_arm[0] - here, self.rows.told[0] - told
        for (name, _), here, told in zip(_references(design), self.reference.of_arm, self.reference.told, strict=True):
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
    design : Design
        The data with their names.
    found : Predicted
        Rows predicted perfectly.
    coefficients : ndarray, shape (q,)
        Coefficients of the columns of the propensity design that separate the arms.
    link : str
        Name of the propensity link.

    Returns
    -------
    SeparationError
        With `rows`, the index labels of the rows predicted perfectly; of a scan their numbers in the data.
    """
    told = int(found.rows.told[0])
    every = told == found.rows.of_arm.sum()
    cause = _cells(design, found) or _direction(design, coefficients, np.ptp(found.limits, axis=0))
    plural = "" if told == 1 else "s"
    right = (design.propensity_formula or "").partition("~")[2].strip()
    where = f'propensity="{right}"' if right else "exog_propensity"
    if every:
        advice = f"The arms have no overlap at all: take that term out of {where}."
    else:
        advice = (
            f"Merge or drop that level or term in {where}, or leave the rows out (the target population changes):  "
            'trim="separated".'
        )
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
