"""Propensity score, importance weight and predicted potential outcomes of every row of a fit's sample."""

from __future__ import annotations

import functools
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalrisk.design import ScannedDesign
from causalrisk.design.design import by_rows, unit_level
from causalrisk.design.scan.encode import CodedBlock, PassCounter
from causalrisk.estimators.problem import ScannedProblem
from causalrisk.estimators.record import FitRecord
from causalrisk.estimators.sample import Sample
from causalrisk.estimators.training import predictions
from causalrisk.numerics.linalg import Array
from causalrisk.runtime.parallel import worker_count


def check_kept(record: FitRecord) -> None:
    """Refuse a result of one number a row for a scan, whose rows are not kept."""
    if isinstance(record.design, ScannedDesign):
        raise unit_level() if record.design.knows_scan else by_rows()


@dataclass(frozen=True)
class Units:
    """Scores, weights and predictions of some rows, in the order of their sample.

    Parameters
    ----------
    sample : Sample
        The rows.
    probabilities : ndarray, shape (K, n), or None
        Probability of each arm; None where there is no propensity model.
    weights : ndarray, shape (n,)
        Importance weights, ones where the estimator uses no score.
    predicted : ndarray, shape (K, n), or None
        Predicted outcome in every arm; None for JRE, whose arm models say nothing of single units.
    """

    sample: Sample
    probabilities: Array | None
    weights: Array
    predicted: Array | None

    def frame(self, position: NDArray[np.intp], labels: tuple[str, ...]) -> pd.DataFrame:
        """Return a table of the rows in the order of the data; `position` has their numbers there."""
        columns = {"row": position, "arm": pd.Categorical.from_codes(self._ordered(self.sample.arm), list(labels))}
        if self.probabilities is not None and len(labels) == 2:
            columns["propensity"] = self._ordered(self.probabilities[1])
        elif self.probabilities is not None:
            columns |= self._by_arm("propensity", self.probabilities, labels)
        columns["weight"] = self._ordered(self.weights)
        if self.predicted is not None:
            columns |= self._by_arm("potential_outcome", self.predicted, labels)
        return pd.DataFrame(columns)

    def _by_arm(self, name: str, values: Array, labels: tuple[str, ...]) -> dict[str, Array]:
        return {f"{name}[{label}]": self._ordered(own) for label, own in zip(labels, values, strict=True)}

    def _ordered(self, values: NDArray[Any]) -> NDArray[Any]:
        return self.sample.restore(values)


def unit_frames(record: FitRecord, n_jobs: int, progress: bool) -> Generator[pd.DataFrame]:
    """Yield scores, weights and predictions of every row: in memory one frame, of a scan one for each block.

    Parameters
    ----------
    record : FitRecord
        The fit.
    n_jobs, progress
        As in `fit`, of a scan.

    Yields
    ------
    DataFrame
        The rows in the order of the data: their number in all data ("row"), their arm ("arm"), then, where the fit
        has them, "propensity", "weight" and "potential_outcome[...]".
    """
    if not isinstance(record.design, ScannedDesign):
        yield _in_memory(record).frame(np.flatnonzero(record.design.in_sample), record.design.labels)
        return
    design, fit = record.design, record.weight_fit
    problem = ScannedProblem(
        design=design,
        spec=record.spec,
        options=record.options,
        target=record.target,
        n_frame=0 if record.frame is None else len(record.frame.X),
    )
    theta = None if record.joint is not None else record.estimate.theta
    of_block = functools.partial(_of_block, problem, None if fit is None else fit.gamma, theta)
    yield from design.over(
        of_block, worker_count(n_jobs, None, design.block_bytes), PassCounter() if progress else None
    )


def _in_memory(record: FitRecord) -> Units:
    fit = record.weight_fit
    return Units(
        sample=record.sample,
        probabilities=None if fit is None else fit.probabilities,
        weights=np.ones(record.sample.n) if fit is None or not record.spec.uses_propensity else fit.undivided,
        predicted=None if record.joint is not None else record.estimate.predicted,
    )


def _of_block(problem: ScannedProblem, gamma: Array | None, theta: Array | None, coded: CodedBlock) -> pd.DataFrame:
    """Compute the units of a block under propensity and outcome coefficients."""
    block = problem.block(coded)
    probabilities, weights = (None, np.empty(0)) if gamma is None else block.scored(gamma)
    units = Units(
        sample=block.sample,
        probabilities=probabilities,
        weights=weights if problem.spec.uses_propensity else np.ones(block.sample.n),
        predicted=None if theta is None else predictions(block.sample, problem.spec, theta),
    )
    return units.frame(np.arange(0) if coded.row is None else coded.row, problem.design.labels)
