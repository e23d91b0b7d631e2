"""Target populations: names, and the tilt h(e) that makes the sample each of them; of an ATT `toward`, its arm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from causalrisk.errors import OptionError
from causalrisk.estimation.engine import apply, value_of
from causalrisk.numerics.linalg import Array

STEP = 1e-6  # relative step of the numerical derivative of a tilt given as a function


@dataclass(frozen=True)
class TargetPopulation:
    """A target population: its name in `target=` and its tilt."""

    name: str  # as the option is spelled and the summary prints it
    estimand: str  # name of the effect
    full_name: str  # the same in words
    rows: str  # that means are averages over, in the report
    toward: int | None = None  # the arm whose rows are the target
    tilt: Callable[[list[Any]], Any] | None = None  # a function of the list of the K scores of the rows
    frame: bool = False  # whether the target is the rows of a data frame
    reference: str = ""  # key of its reference in the report; empty for the usual ones
    two_arms_only: bool = False

    @property
    def by_arm(self) -> bool:
        """True if the target is the whole sample or one arm, whatever the propensity score."""
        return self.everybody or self.toward is not None

    @property
    def balance_denominator(self) -> str:
        """Denominator of standardized mean differences where no arm is the target, as in R's cobalt."""
        return "weighted" if self.tilt is not None else "pooled"

    @property
    def everybody(self) -> bool:
        """Whether the target is the sample as it is."""
        return self.toward is None and self.tilt is None and not self.frame


def overlap_tilt(e: list[Any]) -> Any:
    """Overlap weights, 1 / sum_k 1 / e_k (Li, Morgan and Zaslavsky 2018)."""
    return 1 / sum(1 / each for each in e)


def matching_tilt(e: list[Any]) -> Any:
    """Return matching weights, min_k e_k (Li and Greene 2013)."""
    least = e[0]
    for each in e[1:]:
        first = value_of(least) <= value_of(each)
        least = least * first + each * ~first
    return least


def entropy_tilt(e: list[Any]) -> Any:
    """Entropy weights, -sum_k e_k log e_k (Zhou, Matsouaka and Thomas 2020)."""
    return -sum(each * apply(each, np.log, lambda v: 1 / v) for each in e)


ALL = TargetPopulation("all", "ATE", "average treatment effect (ATE)", "the {nobs} {units} used")
TREATED = TargetPopulation(
    "treated", "ATT", "average treatment effect on the treated (ATT)", "the {in_arm} treated {units} ({group})",
    toward=1, two_arms_only=True,
)  # fmt: skip
CONTROL = TargetPopulation(
    "control", "ATC", "average treatment effect on the untreated (ATC)", "the {in_arm} control {units} ({group})",
    toward=0,
)  # fmt: skip
OVERLAP = TargetPopulation(
    "overlap", "ATO", "average treatment effect in the overlap population (ATO)",
    "{nobs} {units} with overlap weights, which are largest where every group is about equally likely",
    tilt=overlap_tilt, reference="li_2018",
)  # fmt: skip
MATCHING = TargetPopulation(
    "matching", "ATM", "average treatment effect in the matching population (ATM)",
    "{nobs} {units} tilted to those that one-to-one matching would keep", tilt=matching_tilt, reference="li_2013",
)  # fmt: skip
ENTROPY = TargetPopulation(
    "entropy", "ATEN", "average treatment effect in the entropy-weighted population (ATEN)",
    "{nobs} {units} tilted by the entropy of the propensity score", tilt=entropy_tilt, reference="zhou_2020",
)  # fmt: skip
FUNCTION = TargetPopulation(
    "function of the propensity", "WATE", "weighted average treatment effect (WATE)",
    "{nobs} {units} tilted by a function of the propensity score", two_arms_only=True,
)  # fmt: skip
DATA_FRAME = TargetPopulation(
    "data frame", "transported ATE", "average treatment effect in another population (transported ATE)",
    "the {in_frame} rows of the target frame", frame=True,
)  # fmt: skip
POPULATIONS = {population.name: population for population in (ALL, TREATED, CONTROL, OVERLAP, MATCHING, ENTROPY)}
SPELLINGS = {name: name for name in POPULATIONS} | {
    "ate": "all", "att": "treated", "atet": "treated", "atte": "treated", "atc": "control", "atu": "control",
    "untreated": "control", "controls": "control", "ato": "overlap", "atm": "matching", "aten": "entropy",
}  # fmt: skip


def arm_population(arm: int, labels: Sequence[str]) -> TargetPopulation:
    """Return the rows of one arm as a target population."""
    if arm == 0:
        return CONTROL
    if len(labels) == 2:
        return TREATED
    name, what = f"ATT({labels[arm]})", f"average treatment effect on group {labels[arm]} (ATT)"
    return TargetPopulation(labels[arm], name, what, "the {in_arm} {units} with {group}", toward=arm)


def population_of(target: Any) -> TargetPopulation:
    """Return the population of a checked option `target`: itself, a name of `POPULATIONS`, a function or a frame."""
    if isinstance(target, TargetPopulation):
        return target
    if isinstance(target, str):
        return POPULATIONS[target]
    return replace(FUNCTION, tilt=FunctionTilt(target)) if callable(target) else DATA_FRAME


@dataclass(frozen=True)
class FunctionTilt:
    """A tilt h(e) of the score of the treated arm, given as a function."""

    function: Callable[[Array], Any]

    def __call__(self, e: list[Any]) -> Any:
        """Return the tilt at the scores of both arms."""
        return apply(e[1], self.values, self._slopes)

    @property
    def name(self) -> str:
        """Name of the function."""
        return str(getattr(self.function, "__name__", "target"))

    def values(self, e: Array) -> Array:
        """Call the function, and check its values."""
        found = np.asarray(self.function(e), dtype=float)
        if found.shape != e.shape:
            raise bad_tilt(self.name, f"shape {found.shape} for scores of shape {e.shape}")
        known = np.isfinite(e)  # a resample that cannot be fitted has no scores
        wrong = known & ~((found >= 0) & np.isfinite(found))
        if wrong.any():
            worst = found[wrong][0]
            raise bad_tilt(self.name, f"{worst:.4g} at the score {e[wrong][0]:.4g} ({int(wrong.sum())} such rows)")
        return found

    def _slopes(self, e: Array) -> Array:
        """Differentiate by central differences."""
        step = STEP * np.minimum(e, 1 - e)  # both points lie inside (0, 1)
        rise = self.values(e + step) - self.values(e - step)
        return np.divide(rise, 2 * step, out=np.zeros_like(e), where=step > 0)


def bad_tilt(name: str, found: str) -> OptionError:
    """Return the error of a function that is no tilt."""
    return OptionError(
        f"the function {name} given as target= returned {found}; expected a finite number, zero or more, for each "
        "propensity score.\nUse `target=lambda e: ((e > 0.1) & (e < 0.9)) * 1.0`, for example."
    )
