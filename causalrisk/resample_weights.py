"""Importance weights of resamples: at their own propensity fit, and under their replicates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from causalrisk.ledger import Reason
from causalrisk.linalg import Array
from causalrisk.refit import PropensityRefitter
from causalrisk.replicates import DenseWeights, FittedWeights, Replicates, SeparableWeights, StatesOf, WeightOperator
from causalrisk.sample import Sample
from causalrisk.weighting import WeightFit, Weights

ReplicateWeights = Callable[[Array, int], Array]


class SeparableReplicates:
    """Shifted replicates of a log-linear model: their excess is the resample's times one matrix for all resamples.

    Parameters
    ----------
    sample : Sample
        The data.
    fit : WeightFit
        The full-sample fit.
    replicates : Replicates
        The replicates of the full sample.
    """

    def __init__(self, sample: Sample, fit: WeightFit, replicates: Replicates) -> None:
        self.slices, self.weighting = sample.slices, fit.weighting
        shift = fit.weighting.predictors(replicates.states - fit.state[:, None])
        self.spread = fit.weighting.odds(shift)
        self.mean_spread = self.spread.mean(axis=2)[..., None]

    def __call__(self, weights: Array, states: Array, first: int) -> tuple[Weights, WeightOperator]:
        """Weigh the rows of resamples with multiplicities (n, m) and states (S, m), and under their replicates."""
        terms, at = self.weighting.terms(self.weighting.predictors(states), weights)
        return at, SeparableWeights(self.slices, terms, at.tilt, self.spread, self.mean_spread)


class DenseReplicates:
    """Replicates of any model and target, shifted or nested: one resample at a time.

    Parameters
    ----------
    sample : Sample
        The data.
    fit : WeightFit
        The full-sample fit.
    states_of : callable
        Multiplicities (n,), state (S,) and number of a resample -> states of its replicates, (S, B).
    count : int
        Number of replicates, B.
    """

    def __init__(self, sample: Sample, fit: WeightFit, states_of: StatesOf, count: int) -> None:
        self.slices, self.weighting, self.states_of, self.count = sample.slices, fit.weighting, states_of, count

    def __call__(self, weights: Array, states: Array, first: int) -> tuple[Weights, WeightOperator]:
        """Weigh the rows of resamples with multiplicities (n, m) and states (S, m), and under their replicates."""
        at = self.weighting.weights(self.weighting.predictors(states), weights)
        own = [self.states_of(weights[:, j], states[:, j], first + j) for j in range(weights.shape[1])]
        return at, DenseWeights(self.slices, self.weighting, weights, own, self.count)


class FittedReplicates:
    """No replicates: each resample has its own fit, for an objective at the fitted propensity score.

    Parameters
    ----------
    sample : Sample
        The data.
    fit : WeightFit
        The full-sample fit.
    """

    def __init__(self, sample: Sample, fit: WeightFit) -> None:
        self.slices, self.weighting = sample.slices, fit.weighting

    def __call__(self, weights: Array, states: Array, first: int) -> tuple[Weights, WeightOperator]:
        """Weigh the rows of resamples with multiplicities (n, m) and states (S, m)."""
        at = self.weighting.weights(self.weighting.predictors(states), weights)
        return at, FittedWeights(self.slices, at.total)


@dataclass(frozen=True)
class NestedStates:
    """Replicates of a resample drawn from the resample itself and fitted afresh.

    Parameters
    ----------
    refit : PropensityRefitter
        Refits the propensity model.
    draw : callable
        Multiplicities (n,) and number of a resample -> those of its own resamples, (n, B).
    """

    refit: PropensityRefitter
    draw: ReplicateWeights

    def __call__(self, weights: Array, state: Array, number: int) -> Array:
        """States of the usable replicates, shape (S, B)."""
        batch = self.refit(self.draw(weights, number), state)
        return batch.gamma[:, batch.reasons == Reason.OK]
