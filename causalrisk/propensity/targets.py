"""Target populations: excess, tilt and measure of each row as functions of the propensity scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalrisk.errors import OptionError
from causalrisk.numerics.blocks import Rows
from causalrisk.numerics.linalg import Array, all_ones
from causalrisk.propensity.models import BinaryModel, PropensityModel, likelihood_of

LEAST = 1e-300  # least probability in a tilt, whose logarithm and inverse are finite
NOBODY = "zero at every score: nobody is in the population"
STEP = 1e-6  # relative step of the numerical derivative of a tilt given as a function


class Target(ABC):
    """A target population: from linear predictors to the undivided excess, tilt and measure.

    Attributes
    ----------
    fixed_tilt : bool
        Whether the tilt does not depend on gamma; the excess is then a sum of terms `PropensityModel.odds`.
    toward : int or None
        The arm whose rows are the target.
    """

    fixed_tilt = False
    toward: int | None = None

    @abstractmethod
    def parts(self, model: PropensityModel, eta: Array) -> tuple[Array, Array, Array]:
        """Excess (n, m), tilt and measure (n, m) or (n, 1)."""

    @abstractmethod
    def slopes(self, model: PropensityModel, eta: Array) -> tuple[Array, Array | None]:
        """Return derivatives by each predictor of importance weight and measure, (L, n, m); None where zero."""

    def part(self, rows: Rows) -> Target:
        """Return the target on some of the rows: itself, where it is the same for all."""
        return self


def all_odds(model: PropensityModel, eta: Array, toward: int | None = None) -> Array:
    """Sum of the terms of `PropensityModel.odds`, shape (n, m); a single one as it is."""
    terms = model.odds(eta, toward)
    return np.asarray(terms[0] if len(terms) == 1 else terms.sum(axis=0))


@dataclass(frozen=True)
class ArmTarget(Target):
    """Everybody (`toward` None), or the rows of one arm.

    Parameters
    ----------
    toward : int or None
        The arm.
    """

    toward: int | None = None
    fixed_tilt = True

    def parts(self, model: PropensityModel, eta: Array) -> tuple[Array, Array, Array]:
        """Odds, and the indicator of the target."""
        own = all_ones(len(model.arm)) if self.toward is None else (model.arm == self.toward).astype(float)
        tilt = own[:, None]
        return all_odds(model, eta, self.toward), tilt, tilt

    def slopes(self, model: PropensityModel, eta: Array) -> tuple[Array, Array | None]:
        """Return derivatives of the odds."""
        return model.odds_slopes(eta, self.toward), None


class TiltTarget(Target):
    """A tilt that is a function of the propensity scores."""

    @abstractmethod
    def tilt_of(self, p: Array) -> Array:
        """Tilt of probabilities (K, ...), shape (...)."""

    @abstractmethod
    def tilt_slopes(self, p: Array) -> Array:
        """Return the derivatives of the tilt by the probabilities, shape (K, ...)."""

    def parts(self, model: PropensityModel, eta: Array) -> tuple[Array, Array, Array]:
        """Tilt times the odds, and the tilt."""
        tilt = self.tilt_of(model.probabilities(eta))
        return tilt * all_odds(model, eta), tilt, tilt

    def slopes(self, model: PropensityModel, eta: Array) -> tuple[Array, Array | None]:
        """Product rule on tilt times (1 + odds)."""
        p = model.probabilities(eta)
        slope = np.einsum("knm,klnm->lnm", self.tilt_slopes(p), model.probability_slopes(eta))
        return slope * (1 + all_odds(model, eta)) + self.tilt_of(p) * model.odds_slopes(eta, None), slope


class OverlapTarget(TiltTarget):
    """Tilt of the overlap population, 1 / sum_k 1 / e_k: of two arms, whose e add up to one, e_0 e_1."""

    def tilt_of(self, p: Array) -> Array:
        """As in `TiltTarget`."""
        return np.maximum(p[0] * p[1], LEAST) if len(p) == 2 else 1 / (1 / np.maximum(p, LEAST)).sum(axis=0)

    def tilt_slopes(self, p: Array) -> Array:
        """As in `TiltTarget`."""
        return np.asarray((self.tilt_of(p) / np.maximum(p, LEAST)) ** 2)


class MatchingTarget(TiltTarget):
    """Tilt of matching weights, min_k e_k."""

    def tilt_of(self, p: Array) -> Array:
        """As in `TiltTarget`."""
        return np.asarray(p.min(axis=0))

    def tilt_slopes(self, p: Array) -> Array:
        """One for the least likely arm."""
        least = p.argmin(axis=0)
        return (least == np.arange(len(p)).reshape(-1, *[1] * least.ndim)).astype(float)


class EntropyTarget(TiltTarget):
    """Tilt of entropy weights, -sum_k e_k log e_k."""

    def tilt_of(self, p: Array) -> Array:
        """As in `TiltTarget`."""
        return np.asarray(-(p * np.log(np.maximum(p, LEAST))).sum(axis=0))

    def tilt_slopes(self, p: Array) -> Array:
        """As in `TiltTarget`."""
        return np.asarray(-(np.log(np.maximum(p, LEAST)) + 1))


@dataclass(frozen=True)
class FunctionTarget(TiltTarget):
    """A tilt given as an elementwise function e -> h(e) of the propensity score of the treated arm.

    Parameters
    ----------
    tilt : callable
        The function.
    in_blocks : bool, default False
        Whether rows come in blocks, some of which may have nobody of the population.
    """

    tilt: Callable[[Array], Any]
    in_blocks: bool = False

    def part(self, rows: Rows) -> FunctionTarget:
        """As in `Target`."""
        return replace(self, in_blocks=True)

    def check_tilt(self, total: float) -> None:
        """Raise an OptionError where the tilts of all rows, which come in blocks, add up to nobody."""
        if not total > 0:
            raise _bad_tilt(getattr(self.tilt, "__name__", "target"), NOBODY)

    def tilt_of(self, p: Array) -> Array:
        """As in `TiltTarget`."""
        return self._values(p[1])

    def tilt_slopes(self, p: Array) -> Array:
        """Return the derivative by central differences inside (0, 1); zero where no score is next to it."""
        e = p[1]
        # Relative to the smaller probability, so that both points lie inside (0, 1).
        step = STEP * p.min(axis=0)
        above, below = e + step, e - step
        rise = self._values(above) - self._values(below)
        slope = np.divide(rise, above - below, out=np.zeros_like(e), where=above > below)
        return np.stack([np.zeros_like(e), slope])

    def _values(self, e: Array) -> Array:
        """Call the caller's function, and check its values."""
        name = getattr(self.tilt, "__name__", "target")
        tilt = np.asarray(self.tilt(e), dtype=float)
        if tilt.shape != e.shape:
            raise _bad_tilt(name, f"shape {tilt.shape} for scores of shape {e.shape}")
        known = np.isfinite(e)  # a resample that cannot be fitted has no scores
        wrong = known & ~((tilt >= 0) & np.isfinite(tilt))
        if wrong.any():
            worst = tilt[wrong][0]
            raise _bad_tilt(name, f"{worst:.4g} at the score {e[wrong][0]:.4g} ({int(wrong.sum())} such rows)")
        if not self.in_blocks and known.any() and not (tilt[known] > 0).any():
            raise _bad_tilt(name, NOBODY)
        return tilt


def _bad_tilt(name: str, found: str) -> OptionError:
    return OptionError(
        f"the function {name} given as target= returned {found}; expected a finite number, zero or more, for each "
        "propensity score.\nUse `target=lambda e: ((e > 0.1) & (e < 0.9)) * 1.0`, for example."
    )


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

    def part(self, rows: Rows) -> FrameTarget:
        """As in `Target`."""
        return FrameTarget(self.frame[rows, 0], likelihood_of(self.membership).part(rows))

    def parts(self, model: PropensityModel, eta: Array) -> tuple[Array, Array, Array]:
        """Density ratio times the inverse probability; the indicator of the frame; the density ratio."""
        ratio = np.where(self.frame, 0.0, np.exp(np.where(self.frame, 0.0, eta[-1])))
        weight = ratio * (1 + all_odds(model, eta[:-1]))
        tilt = self.frame.astype(float)
        return weight - tilt, tilt, ratio

    def slopes(self, model: PropensityModel, eta: Array) -> tuple[Array, Array | None]:
        """Product rule; the measure depends on the membership model alone."""
        ratio = np.where(self.frame, 0.0, np.exp(np.where(self.frame, 0.0, eta[-1])))
        by_arm = ratio * model.odds_slopes(eta[:-1], None)
        weight = ratio * (1 + all_odds(model, eta[:-1]))
        return np.concatenate([by_arm, weight[None]]), np.concatenate([np.zeros_like(by_arm), ratio[None]])


def frame_target(columns: Array, of_frame: NDArray[np.bool_]) -> FrameTarget:
    """Return the target of rows of a frame and of the sample; arguments as in `make_target`."""
    return FrameTarget(of_frame, BinaryModel(columns, of_frame.astype(np.intp), "logit"))


@dataclass(frozen=True)
class TargetPopulation:
    """A target population: its name in `target=` and its tilt.

    Parameters
    ----------
    name : str
        As the option is spelled and the summary prints it.
    estimand, full_name : str
        Name of the effect, short and in words.
    texts : str
        Key of its texts in the report.
    aliases : tuple of str
        Other spellings, in lower case.
    toward : int or None
        The arm whose rows are the target.
    tilt : type of TiltTarget, or None
        Tilt as a function of the scores, where it is one.
    balance_denominator : {"pooled", "toward", "weighted"}
        Denominator of standardized mean differences, as in R's cobalt.
    reference : str
        Key of its reference in the report; empty for the usual ones.
    two_arms_only : bool
        Whether it is not defined for more arms.
    """

    name: str
    estimand: str
    full_name: str
    texts: str
    aliases: tuple[str, ...] = ()
    toward: int | None = None
    tilt: type[TiltTarget] | None = None
    balance_denominator: str = "weighted"
    reference: str = ""
    two_arms_only: bool = False

    @property
    def by_arm(self) -> bool:
        """True if the target is the whole sample or one arm, whatever the propensity score."""
        return self.name == "all" or self.toward is not None


ALL = TargetPopulation(
    name="all",
    aliases=("ate",),
    estimand="ATE",
    full_name="average treatment effect (ATE)",
    texts="all",
    balance_denominator="pooled",
)
TREATED = TargetPopulation(
    name="treated",
    aliases=("att", "atet", "atte"),
    estimand="ATT",
    full_name="average treatment effect on the treated (ATT)",
    texts="arm",
    toward=1,
    balance_denominator="toward",
    two_arms_only=True,
)
CONTROL = TargetPopulation(
    name="control",
    aliases=("atc", "atu", "untreated", "controls"),
    estimand="ATC",
    full_name="average treatment effect on the untreated (ATC)",
    texts="arm",
    toward=0,
    balance_denominator="toward",
)
OVERLAP = TargetPopulation(
    name="overlap",
    aliases=("ato",),
    estimand="ATO",
    full_name="average treatment effect in the overlap population (ATO)",
    texts="overlap",
    tilt=OverlapTarget,
    reference="li_2018",
)
MATCHING = TargetPopulation(
    name="matching",
    aliases=("atm",),
    estimand="ATM",
    full_name="average treatment effect in the matching population (ATM)",
    texts="matching",
    tilt=MatchingTarget,
    reference="li_2013",
)
ENTROPY = TargetPopulation(
    name="entropy",
    aliases=("aten",),
    estimand="ATEN",
    full_name="average treatment effect in the entropy-weighted population (ATEN)",
    texts="entropy",
    tilt=EntropyTarget,
    reference="zhou_2020",
)
FUNCTION = TargetPopulation(
    name="function of the propensity",
    estimand="WATE",
    full_name="weighted average treatment effect (WATE)",
    texts="function",
    two_arms_only=True,
)
DATA_FRAME = TargetPopulation(
    name="data frame",
    estimand="transported ATE",
    full_name="average treatment effect in another population (transported ATE)",
    texts="data_frame",
    balance_denominator="pooled",
)
POPULATIONS = {population.name: population for population in (ALL, TREATED, CONTROL, OVERLAP, MATCHING, ENTROPY)}
SPELLINGS = {name: name for name in POPULATIONS}
SPELLINGS |= {alias: population.name for population in POPULATIONS.values() for alias in population.aliases}


def arm_population(arm: int, labels: Sequence[str]) -> TargetPopulation:
    """Return the rows of one arm as a target population."""
    if arm == 0:
        return CONTROL
    if len(labels) == 2:
        return TREATED
    label = labels[arm]
    return replace(
        TREATED,
        name=label,
        aliases=(),
        estimand=f"ATT({label})",
        full_name=f"average treatment effect on arm {label} (ATT)",
        toward=arm,
        two_arms_only=False,
    )


def population_of(target: Any) -> TargetPopulation:
    """Return the population of a checked option `target`: itself, a name of `POPULATIONS`, a function or a frame."""
    if isinstance(target, TargetPopulation):
        return target
    if isinstance(target, str):
        return POPULATIONS[target]
    return FUNCTION if callable(target) else DATA_FRAME


def make_target(target: Any, columns: Array, of_frame: NDArray[np.bool_]) -> Target:
    """Return the target that a checked option asks for.

    Parameters
    ----------
    target : str, TargetPopulation, callable or frame
        The option.
    columns : ndarray, shape (n, q)
        Basis columns of the propensity design, for the membership model.
    of_frame : ndarray of bool, shape (n,)
        Rows of the target frame, if there is one.
    """
    population = population_of(target)
    if population is DATA_FRAME:
        return frame_target(columns, of_frame)
    if population is FUNCTION:
        return FunctionTarget(target)
    return ArmTarget(population.toward) if population.tilt is None else population.tilt()
