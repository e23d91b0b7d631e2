"""Target populations: how a row's importance weight and tilt follow from the propensity scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causalrisk.linalg import Array
from causalrisk.propensity import PropensityModel

STEP = 1e-6  # of the numerical derivative of a tilt given as a function


class Target(ABC):
    """A target population: from linear predictors to the undivided excess, tilt and measure.

    Attributes
    ----------
    separable : bool
        Whether the excess is a sum of terms `PropensityModel.odds` and the tilt does not depend on the state.
    toward : int or None
        The arm whose rows are the target.
    """

    separable = False
    toward: int | None = None

    @abstractmethod
    def parts(self, model: PropensityModel, eta: Array) -> tuple[Array, Array, Array]:
        """Excess (n, m), tilt and measure (n, m) or (n, 1)."""

    @abstractmethod
    def slopes(self, model: PropensityModel, eta: Array) -> tuple[Array, Array | None]:
        """Return derivatives by each predictor of importance weight and measure, (L, n, m); None where zero."""


@dataclass(frozen=True)
class ArmTarget(Target):
    """Everybody (`toward` None), or the rows of one arm.

    Parameters
    ----------
    toward : int or None
        The arm.
    """

    toward: int | None = None
    separable = True

    def parts(self, model: PropensityModel, eta: Array) -> tuple[Array, Array, Array]:
        """Odds, and the indicator of the target."""
        rows = np.ones(len(model.arm), dtype=bool) if self.toward is None else model.arm == self.toward
        tilt = rows[:, None].astype(float)
        return model.odds(eta, self.toward).sum(axis=0), tilt, tilt

    def slopes(self, model: PropensityModel, eta: Array) -> tuple[Array, Array | None]:
        """Return derivatives of the odds."""
        return model.odds_slopes(eta, self.toward), None


@dataclass(frozen=True)
class TiltTarget(Target):
    """A tilt that is a function of the propensity scores.

    Parameters
    ----------
    tilt : callable
        Probabilities (K, ...) -> tilt (...) and its derivatives by them (K, ...).
    """

    tilt: Callable[[Array], tuple[Array, Array]]

    def parts(self, model: PropensityModel, eta: Array) -> tuple[Array, Array, Array]:
        """Tilt times the odds, and the tilt."""
        tilt, _ = self.tilt(model.probabilities(eta))
        return tilt * model.odds(eta, None).sum(axis=0), tilt, tilt

    def slopes(self, model: PropensityModel, eta: Array) -> tuple[Array, Array | None]:
        """Product rule on tilt times (1 + odds)."""
        tilt, by_score = self.tilt(model.probabilities(eta))
        slope = np.einsum("knm,klnm->lnm", by_score, model.probability_slopes(eta))
        return slope * (1 + model.odds(eta, None).sum(axis=0)) + tilt * model.odds_slopes(eta, None), slope


def overlap_tilt(p: Array) -> tuple[Array, Array]:
    """Tilt of the overlap population, 1 / sum_k 1 / e_k (two arms: e_0 e_1), and its derivatives."""
    tilt = 1 / (1 / p).sum(axis=0)
    return tilt, (tilt / p) ** 2


@dataclass(frozen=True)
class FunctionTilt:
    """A tilt given as a function of the propensity score of the treated arm.

    Parameters
    ----------
    function : callable
        e -> h(e), elementwise.
    """

    function: Callable[[Array], Array]

    def __call__(self, p: Array) -> tuple[Array, Array]:
        """Tilt, and its derivative by central differences inside (0, 1)."""
        e = p[1]
        step = STEP * np.minimum(e, 1 - e)
        slope = (self.function(e + step) - self.function(e - step)) / (2 * step)
        return np.asarray(self.function(e), dtype=float), np.stack([np.zeros_like(e), slope])


class FrameTarget(Target):
    """Another data frame: its rows are the target, and the membership model gives the density ratio.

    Parameters
    ----------
    frame : ndarray of bool, shape (n,)
        Rows of the target frame.
    membership : PropensityModel
        Logit of a row being of the frame; the last predictor is its own.
    """

    def __init__(self, frame: NDArray[np.bool_], membership: PropensityModel) -> None:
        self.frame, self.membership = frame[:, None], membership

    def parts(self, model: PropensityModel, eta: Array) -> tuple[Array, Array, Array]:
        """Density ratio times the inverse probability; the indicator of the frame; the density ratio."""
        ratio = np.where(self.frame, 0.0, np.exp(np.where(self.frame, 0.0, eta[-1])))
        weight = ratio * (1 + model.odds(eta[:-1], None).sum(axis=0))
        tilt = self.frame.astype(float)
        return weight - tilt, tilt, ratio

    def slopes(self, model: PropensityModel, eta: Array) -> tuple[Array, Array | None]:
        """Product rule; the measure depends on the membership model alone."""
        ratio = np.where(self.frame, 0.0, np.exp(np.where(self.frame, 0.0, eta[-1])))
        by_arm = ratio * model.odds_slopes(eta[:-1], None)
        weight = ratio * (1 + model.odds(eta[:-1], None).sum(axis=0))
        return np.concatenate([by_arm, weight[None]]), np.concatenate([np.zeros_like(by_arm), ratio[None]])
