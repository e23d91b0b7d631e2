"""Separation: rows that a model of the weights predicts perfectly, and the terms of the design behind them."""

from __future__ import annotations

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


def _separated(columns: Array, arm: NDArray[Any], n_arms: int) -> tuple[Array, NDArray[np.bool_]] | None:
    """Direction along which no row contradicts its arm, and the rows told for certain; None where all overlap."""
    n, q = columns.shape
    slopes, rows = np.zeros((n_arms - 1, n, n_arms, q)), np.arange(n)
    for j in range(1, n_arms):  # of the log odds of a row's arm to each other one
        slopes[j - 1, rows, arm] += columns
        slopes[j - 1, rows, (arm + j) % n_arms] -= columns
    signed = slopes[:, :, 1:].reshape(n_arms - 1, n, (n_arms - 1) * q)
    direction = separating_direction(signed.reshape(-1, signed.shape[2]))
    return None if direction is None else (direction, np.asarray((signed @ direction > MARGIN).any(axis=0)))


def separation(weights: WeightFit) -> tuple[NDArray[np.bool_], Array] | None:
    """Mark the rows that the propensity model predicts perfectly, and return coefficients that do; None for none."""
    if "score" not in weights.beta or not is_suspicious(weights, "score"):
        return None
    sample = weights.equations.sample
    columns, arm, inside = totals([sample.Z.columns, sample.arm, sample.in_sample > 0])
    found = _separated(columns[inside], arm[inside], sample.n_arms)
    if found is None:
        return None
    told = np.zeros(len(inside), dtype=bool)
    told[inside] = found[1]
    by_arm = found[0].reshape(-1, columns.shape[1])
    return told, by_arm[np.abs(by_arm).argmax(axis=0), np.arange(by_arm.shape[1])]


def refuse_separation(weights: WeightFit, design: Design, link: str) -> None:
    """Raise a SeparationError where the propensity model predicts the arm of some rows perfectly."""
    found = separation(weights)
    if found is None:
        return
    sample = weights.equations.sample
    told = sample.restore(found[0])
    if isinstance(design, DesignOnDisk):
        Z, arm, place, labels = totals(map(design.dask, ("Z", "arm", "position", "row")))
        told = told[place]
    else:
        Z, arm, labels = design.Z, design.arm, design.index
    cause = _cells(design, Z, arm, told) or _direction(design, sample.Z.coefficients(found[1]), np.ptp(Z, axis=0))
    count = int(told.sum())
    right = (design.propensity_formula or "").partition("~")[2].strip()
    where = f'propensity="{right}"' if right else "exog_propensity"
    advice = f'Merge or drop that level or term in {where}, or drop the rows: `trim="separated"`.'
    if told.all():
        advice = f"The arms have no overlap at all: take that term out of {where}."
    raise SeparationError(
        f"the propensity model ({link}) predicts {design.treat_name!r} perfectly in "
        f"{'all' if told.all() else count} row{'' if count == 1 else 's'}: {cause}, so no weight exists.\n" + advice,
        rows=np.asarray(labels)[told],
    )


def refuse_other(weights: WeightFit, design: Design) -> None:
    """Raise a SeparationError where the model of membership, or that of the observation, separates its rows."""
    sample = weights.equations.sample
    if "member" in weights.beta and is_suspicious(weights, "member"):
        columns, arm = totals([sample.Z.columns, (sample.in_sample == 0).astype(int)])
        if _separated(columns, arm, 2) is not None:
            raise SeparationError(
                "the membership model (logit) predicts perfectly which rows are of the target frame, so no weight "
                "exists.\nSimplify propensity=, or drop the rows of the data or the frame that have no like in the "
                "other."
            )
    if "observed" not in weights.beta or sample.R is None or not is_suspicious(weights, "observed"):
        return
    columns, seen, inside = totals([sample.R.columns, sample.with_outcome.astype(int), sample.in_sample > 0])
    if _separated(columns[inside], seen[inside], 2) is not None:
        formula = None if design.observation is None else design.observation.formula
        raise SeparationError(
            f"the observation model (logit) predicts perfectly whether {design.endog_name!r} is observed, so no weight "
            f"exists.\nSimplify `observed={formula!r}`: an arm or a level may have no outcomes, or all of them."
        )


def _cells(design: Design, Z: Array, arm: NDArray[Any], told: NDArray[np.bool_]) -> str:
    """Name the values of indicators, and the reference levels of factors, whose rows are told, with their counts."""
    names, cells = list(design.propensity_names), list[tuple[str, NDArray[np.bool_]]]()
    for name, column in zip(names, Z.T, strict=True):
        others = column[column != 0]
        if others.size and others.min() == others.max() > column.min():
            cells += [(f"{name} = {others[0]:g}", column != 0), (f"{name} = 0", column == 0)]
    for factor, columns in design.propensity_encoder.levels().items():
        coded = [column for column in columns.values() if column]
        if coded and len(coded) == len(columns) - 1 and set(coded) <= set(names):
            reference = next(level for level, column in columns.items() if not column)
            at_reference = (Z[:, [names.index(column) for column in coded]] == 0).all(axis=1)
            cells.append((f"{factor} = {reference}", at_reference))
    people = [label if label[:1].isalpha() else f"with {design.treat_name} = {label}" for label in design.labels]
    said = []
    for name, rows in cells:
        counts = np.bincount(arm[rows], minlength=design.n_arms).tolist()
        if min(counts) == 0 and rows.any() and told[rows].all():
            shares = sorted(zip(counts, design.labels, people, strict=True), reverse=True)
            said.append(f"{name} has {' and '.join(f'{count} {who}' for count, _, who in shares)}")
    more = f" (and {len(said) - SHOWN} more)" if len(said) > SHOWN else ""
    return "; ".join(said[:SHOWN]) + more


def _direction(design: Design, coefficients: Array, lengths: Array) -> str:
    """Name the terms whose combination separates the arms, given how far the values of each column reach."""
    order = _strongest(np.abs(coefficients) * lengths)
    names = ", ".join(repr(design.propensity_names[j]) for j in order[:SHOWN])
    more = " and others" if len(order) > SHOWN else ""
    return f"a combination of {names}{more} separates the arms" if len(order) > 1 else f"{names} separates the arms"


def _strongest(strength: Array) -> list[int]:
    """Positions in descending order, less those that count for nothing."""
    return [int(j) for j in np.argsort(-strength) if strength[j] > 1e-6 * strength.max()]


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
    return [design.exog_names[j] for j in _strongest(strength)[:SHOWN]]


def gaussian_instead(design: Design) -> str:
    """Name a family that has a fit in any case."""
    return '`exposure=None, family="gaussian"`' if design.offset_kind == "exposure" else '`family="gaussian"`'


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
        low, high = design.outcome_limits[a]
        if low == high and low in (family.low, family.high):
            raise SeparationError(
                f"outcome {design.endog_name!r} is {low:g} in all rows of arm {design.labels[a]!r}, so its outcome "
                f"model ({family.label}) has no finite fit.\nUse {gaussian_instead(design)}, or merge that arm."
            )
        found = [] if sample is None else _separating_terms(design, sample, a)
        if found or (reason == Failure.OUTCOME_SEPARATION and sample is not None):
            terms = ", ".join(map(repr, found)) or "a combination of the terms"
            raise SeparationError(
                f"the outcome model ({family.label}) predicts {design.endog_name!r} perfectly in rows of arm "
                f"{design.labels[a]!r}: {terms} separate{'s' if len(found) == 1 else ''} its outcomes, so it has no "
                f"finite fit.\nSimplify the outcome formula, or use {gaussian_instead(design)}."
            )
    return ", ".join(label for label, reason in zip(design.labels, failed, strict=True) if reason != Failure.OK)
