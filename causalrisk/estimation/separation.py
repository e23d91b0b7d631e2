"""Separation: rows that a model of the weights predicts perfectly, and the terms of the design behind them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalrisk.design import Design, DesignOnDisk
from causalrisk.errors import Failure, SeparationError
from causalrisk.estimation.engine import Point
from causalrisk.estimation.equations import Equations
from causalrisk.estimation.fits import WeightFit
from causalrisk.estimation.sample import Sample
from causalrisk.numerics.blocks import totals
from causalrisk.numerics.families import OutcomeFamily
from causalrisk.numerics.linalg import Array
from causalrisk.numerics.optimize import MARGIN, separating_direction

SHOWN = 3  # terms that a message names
BOUNDED = ("binomial", "poisson", "negativebinomial", "tweedie")  # means reach a bound at infinite predictors only
SUSPICIOUS = 12.0  # linear predictors beyond this (odds 160,000) are worth a linear programme


def is_suspicious(weights: WeightFit, name: str) -> bool:
    """Whether a model gives cause to look for separation: it did not settle, or a linear predictor is that large."""
    if not weights.converged:
        return True
    return max(weights.equations.each(_largest, weights.at, name)) >= SUSPICIOUS


def _largest(equations: Equations, at: Point, name: str) -> float:
    """Largest linear predictor of a model of the weights."""
    block = next(block for block in equations.blocks if block.name == name)
    inside = equations.sample.in_sample[:, None] if name != "member" else 1.0
    return max(float(np.abs(inside * at(eta)).max(initial=0)) for eta in block.own)


def signed_rows(columns: Array, arm: NDArray[Any], n_arms: int) -> Array:
    """Differentiate by the coefficients the log odds of a row's arm to each other one, (K - 1, n, (K - 1) q)."""
    n, q = columns.shape
    signed, rows = np.zeros((n_arms - 1, n, n_arms, q)), np.arange(n)
    for j in range(1, n_arms):
        signed[j - 1, rows, arm] += columns
        signed[j - 1, rows, (arm + j) % n_arms] -= columns
    return signed[:, :, 1:].reshape(n_arms - 1, n, (n_arms - 1) * q)


def direction_of(signed: Array) -> Array | None:
    """Direction along which no row contradicts its arm and some are told for certain; None where the groups overlap."""
    return separating_direction(signed.reshape(-1, signed.shape[2]))


def _signed(weights: WeightFit) -> tuple[Array, NDArray[np.bool_]]:
    sample = weights.equations.sample
    columns, arm, inside = totals([sample.Z.columns, sample.arm, sample.in_sample > 0])
    return signed_rows(columns[inside], arm[inside], sample.n_arms), inside


def separated_rows(weights: WeightFit) -> NDArray[np.bool_] | None:
    """Mark the rows that the propensity model predicts perfectly, shape (n,); None where it predicts none."""
    found = _separation(weights)
    return None if found is None else found[0]


def _separation(weights: WeightFit) -> tuple[NDArray[np.bool_], Array] | None:
    if "score" not in weights.beta or not is_suspicious(weights, "score"):
        return None
    signed, inside = _signed(weights)
    direction = direction_of(signed)
    if direction is None:
        return None
    told = np.zeros(len(inside), dtype=bool)
    told[inside] = (signed @ direction > MARGIN).any(axis=0)
    by_arm = direction.reshape(-1, weights.equations.sample.Z.columns.shape[1])
    return told, by_arm[np.abs(by_arm).argmax(axis=0), np.arange(by_arm.shape[1])]


def refuse_separation(weights: WeightFit, design: Design, link: str) -> None:
    """Raise a SeparationError where the propensity model predicts the arm of some rows perfectly."""
    found = _separation(weights)
    if found is None:
        return
    told, strongest = found
    sample = weights.equations.sample
    if isinstance(design, DesignOnDisk):
        Z, arm, place, labels = totals(map(design.dask, ("Z", "arm", "position", "row")))
        predicted = Predicted.of(design, Z, arm, sample.restore(told)[place], labels)
    else:
        predicted = Predicted.of(design, design.Z, design.arm, sample.restore(told), design.index)
    raise separation_error(design, predicted, sample.Z.coefficients(strongest), link)


def refuse_other(weights: WeightFit, design: Design) -> None:
    """Raise a SeparationError where the model of membership, or that of the observation, separates its rows."""
    sample = weights.equations.sample
    if "member" in weights.beta and is_suspicious(weights, "member"):
        columns, arm = totals([sample.Z.columns, (sample.in_sample == 0).astype(int)])
        if direction_of(signed_rows(columns, arm, 2)) is not None:
            raise SeparationError(
                "the membership model (logit) predicts perfectly which rows are of the target frame, so no weight "
                "exists.\nSimplify propensity=, or drop the rows of the data or the frame that have no like in the "
                "other."
            )
    if "observed" not in weights.beta or sample.R is None or not is_suspicious(weights, "observed"):
        return
    columns, seen, inside = totals([sample.R.columns, sample.with_outcome.astype(int), sample.in_sample > 0])
    if direction_of(signed_rows(columns[inside], seen[inside], 2)) is not None:
        formula = None if design.observation is None else design.observation.formula
        raise SeparationError(
            f"the observation model (logit) predicts perfectly whether {design.endog_name!r} is observed, so no weight "
            f"exists.\nSimplify `observed={formula!r}`: an arm or a level may have no outcomes, or all of them."
        )


@dataclass(frozen=True)
class Predicted:
    """What the error of separation says of the rows.

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
    def of(cls, design: Design, Z: Array, arm: NDArray[Any], told: NDArray[np.bool_], labels: Any) -> Predicted:
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


def _references(design: Design) -> list[tuple[str, list[int]]]:
    """Return the reference levels of the factors, each with the columns that are zero there."""
    names, found = list(design.propensity_names), list[tuple[str, list[int]]]()
    for factor, columns in design.propensity_encoder.levels().items():
        others = [column for column in columns.values() if column]
        if others and len(others) == len(columns) - 1 and set(others) <= set(names):
            reference = next(level for level, column in columns.items() if not column)
            found.append((f"{factor} = {reference}", [names.index(other) for other in others]))
    return found


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


# --- outcome models --------------------------------------------------------------------------------------------------


def _separating_terms(design: Design, sample: Sample, arm: int) -> list[str]:
    """Names of the columns that tell an arm's outcomes at the bound of their family from the others perfectly."""
    family, rows = sample.family, sample.slices[arm]
    own = sample.with_outcome[rows] > 0
    y, columns = sample.y[rows][own], sample.X.columns[rows][own]
    low, high = y == family.low, y == family.high
    if family.name not in BOUNDED or not (low | high).any():
        return []
    inside = columns[~(low | high)]
    signed = np.vstack([-columns[low], columns[high], inside, -inside])
    direction = separating_direction(signed)
    if direction is None:
        return []
    strength = np.abs(sample.X.coefficients(direction)) * design.X[design.arm == arm].std(axis=0)
    order = [j for j in np.argsort(-strength) if strength[j] > 1e-6 * strength.max()]
    return [design.exog_names[j] for j in order[:SHOWN]]


def gaussian_instead(design: Design) -> str:
    """Name a family that has a fit in any case."""
    return '`exposure=None, family="gaussian"`' if design.offset_kind == "exposure" else '`family="gaussian"`'


def check_bound(design: Design, family: OutcomeFamily, arm: int) -> None:
    """Raise a SeparationError where all outcomes of an arm are at the bound of their family."""
    low, high = design.outcome_limits[arm]
    if low == high and low in (family.low, family.high):
        raise SeparationError(
            f"outcome {design.endog_name!r} is {low:g} in all rows of arm {design.labels[arm]!r}, so its outcome model "
            f"({family.label}) has no finite fit.\nUse {gaussian_instead(design)}, or merge that arm."
        )


def check_outcome_fits(design: Design, family: OutcomeFamily, failed: tuple[int, ...], sample: Sample | None) -> str:
    """Raise a SeparationError where an arm's outcome model has no finite fit.

    Parameters
    ----------
    failed : tuple of int
        How the fit of each arm ended, a `Failure`.
    sample : Sample or None
        The same data as numbers, where they are in memory.
    """
    for a, reason in enumerate(failed):
        if reason == Failure.OK:
            continue
        check_bound(design, family, a)
        found = [] if sample is None else _separating_terms(design, sample, a)
        if found or (reason == Failure.OUTCOME_SEPARATION and sample is not None):
            terms = ", ".join(map(repr, found)) or "a combination of the terms"
            raise SeparationError(
                f"the outcome model ({family.label}) predicts {design.endog_name!r} perfectly in rows of arm "
                f"{design.labels[a]!r}: {terms} separate{'s' if len(found) == 1 else ''} its outcomes, so it has no "
                f"finite fit.\nSimplify the outcome formula, or use {gaussian_instead(design)}."
            )
    return ", ".join(label for label, reason in zip(design.labels, failed, strict=True) if reason != Failure.OK)
