"""Separation: rows that the propensity model predicts perfectly, and the terms of the design behind them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causalrisk.design import Design
from causalrisk.errors import SeparationError
from causalrisk.numerics.linalg import Array
from causalrisk.numerics.optimize import MARGIN, separating_direction
from causalrisk.propensity.models import Arms, other_arms
from causalrisk.propensity.weights import WeightFit

SUSPICIOUS = 12.0  # linear predictors beyond this (odds 160,000) are worth a linear programme
SHOWN = 3


@dataclass(frozen=True)
class Separation:
    """A direction along which the propensity model separates the arms.

    Parameters
    ----------
    rows : ndarray of bool, shape (n,)
        Rows predicted perfectly, as in the weight fit.
    direction : ndarray, shape (q,)
        Coefficients of the basis columns.
    """

    rows: NDArray[np.bool_]
    direction: Array


def find_separation(fit: WeightFit) -> Separation | None:
    """Look for separation where the fit gives cause: it did not settle, or its scores are extreme.

    Parameters
    ----------
    fit : WeightFit
        The fitted importance weights.

    Returns
    -------
    Separation or None
        None when the maximum likelihood estimate exists.

    References
    ----------
    .. [1] Konis, K. (2007). Linear programming algorithms for detecting separated data in binary logistic regression
       models. DPhil thesis, University of Oxford.
    """
    model, observed = fit.model.propensity, fit.model.observed > 0
    if not model.n_coefficients:
        return None
    if fit.converged and np.abs(fit.eta[: model.n_predictors, observed]).max() < SUSPICIOUS:
        return None
    columns, arm = model.columns[observed], model.arm[observed]
    signed = _against_others(columns, arm, model.n_arms)
    direction = separating_direction(signed.reshape(-1, signed.shape[2]))
    if direction is None:
        return None
    rows = np.zeros(len(observed), dtype=bool)
    rows[observed] = (signed @ direction > MARGIN).any(axis=0)
    # Of several arms the largest coefficient of each column, for the message to name each term once.
    strength = np.abs(direction.reshape(-1, columns.shape[1])).argmax(axis=0)
    return Separation(rows, direction.reshape(-1, columns.shape[1])[strength, np.arange(columns.shape[1])])


def _against_others(columns: Array, arm: Arms, n_arms: int) -> Array:
    """Return derivatives by the coefficients of the log odds of a row's arm to each other, (K - 1, n, (K - 1) q)."""
    n, q = columns.shape
    signed = np.zeros((n_arms - 1, n, n_arms, q))
    rows = np.arange(n)
    for k, other in enumerate(other_arms(arm, n_arms, None)):
        signed[k, rows, arm] += columns
        signed[k, rows, other] -= columns
    return signed[:, :, 1:].reshape(n_arms - 1, n, -1)


def check_membership(fit: WeightFit) -> None:
    """Raise a SeparationError where the covariates tell the target frame from the sample."""
    membership = fit.model.membership
    if membership is None or (fit.converged and np.abs(fit.eta[-1]).max() < SUSPICIOUS):
        return
    signed = _against_others(membership.columns, membership.arm, 2)[0]
    direction = separating_direction(signed)
    if direction is None:
        return
    of_frame = fit.model.observed == 0
    told = signed @ direction > MARGIN
    inside = not told[of_frame].any()
    rows, whose, others = (~of_frame, "the sample", "the frame") if inside else (of_frame, "the frame", "the sample")
    where = "covers a part of the sample only" if inside else "lies outside of the sample"
    raise SeparationError(
        f"the target frame {where}: the membership model (logit) tells {int(told[rows].sum())} of the "
        f"{int(rows.sum())} rows of {whose} from those of {others} perfectly, so no weight exists.\n"
        f"Simplify propensity=, or leave out the rows of {whose.replace('sample', 'data')} that have no like in "
        f"{others}."
    )


def separation_error(design: Design, rows: NDArray[np.bool_], coefficients: Array, link: str) -> SeparationError:
    """Make the error that names the rows and the term behind them.

    Parameters
    ----------
    design : Design
        The data with their names.
    rows : ndarray of bool, shape (n_design,)
        Rows predicted perfectly, in the order of the design.
    coefficients : ndarray, shape (q,)
        Coefficients of the columns of the propensity design that separate the arms.
    link : str
        Name of the propensity link.

    Returns
    -------
    SeparationError
        With `rows`, the index labels of the rows predicted perfectly.
    """
    cause = _cells(design, rows) or _direction(design, coefficients)
    everything = "all" if rows.all() else str(int(rows.sum()))
    plural = "" if rows.sum() == 1 else "s"
    right = (design.propensity_formula or "").partition("~")[2].strip()
    where = f'propensity="{right}"' if right else "exog_propensity"
    if rows.all():
        advice = f"The arms have no overlap at all: take that term out of {where}."
    else:
        advice = (
            f"Merge or drop that level or term in {where}, or leave the rows out (the target population changes):  "
            'trim="separated".'
        )
    return SeparationError(
        f"the propensity model ({link}) predicts {design.treat_name!r} perfectly in {everything} row{plural}: {cause}, "
        "so no weight exists.\n" + advice,
        rows=design.index[rows],
    )


def _cells(design: Design, rows: NDArray[np.bool_]) -> str:
    """Name the cells that lie in one arm only, with the counts."""
    found = []
    for name, cell in _indicators(design):
        counts = np.bincount(design.arm[cell], minlength=design.n_arms)
        if (counts == 0).any() and rows[cell].all():
            shares = sorted(zip(counts, design.labels, strict=True), reverse=True)
            here = " and ".join(f"{count} {_people(design, label)}" for count, label in shares)
            found.append(f"{name} has {here}")
    more = f" (and {len(found) - SHOWN} more)" if len(found) > SHOWN else ""
    return "; ".join(found[:SHOWN]) + more


def _people(design: Design, label: str) -> str:
    """Noun for the units of an arm; a numeric label gets the name of the treatment."""
    return label if label[:1].isalpha() else f"with {design.treat_name} = {label}"


def _indicators(design: Design) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Cells of the propensity design: both values of each indicator column, and reference levels of factors."""
    names = list(design.propensity_names)
    for name, column in zip(names, design.Z.T, strict=True):
        values = np.unique(column)
        if len(values) == 2 and values[0] == 0:
            yield f"{name} = {values[1]:g}", column == values[1]
            yield f"{name} = 0", column == 0
    for factor, level, others in design.propensity_encoder.reference_levels():
        if set(others) <= set(names):
            yield f"{factor} = {level}", (design.Z[:, [names.index(other) for other in others]] == 0).all(axis=1)


def _direction(design: Design, coefficients: Array) -> str:
    """Name the terms whose combination separates the arms."""
    influence = np.abs(coefficients) * design.Z.std(axis=0)
    order = [j for j in np.argsort(-influence) if influence[j] > 1e-6 * influence.max()]
    names = ", ".join(repr(design.propensity_names[j]) for j in order[:SHOWN])
    more = " and others" if len(order) > SHOWN else ""
    return f"a combination of {names}{more} separates the arms" if len(order) > 1 else f"{names} separates the arms"
