"""Options as frozen dataclasses that check themselves."""

from __future__ import annotations

import dataclasses
import difflib
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from causalrisk.design.known_scores import is_classifier
from causalrisk.errors import OptionError, listed, one_of, whole_number
from causalrisk.estimators.effect_scales import SCALES, EffectScale
from causalrisk.estimators.joint.criterion import Criterion
from causalrisk.numerics.families import OutcomeFamily, outcome_family
from causalrisk.numerics.links import BINARY_LINKS
from causalrisk.numerics.resample import check_rng
from causalrisk.propensity.targets import ALL, CONTROL, POPULATIONS, SPELLINGS, TREATED, TargetPopulation, population_of

OBJECTIVES = ("adaptive", "mse", "erm")
PENALTY_NAMES = {"n": (1.0, 1.0), "10n": (10.0, 1.0), "n1.5": (1.0, 1.5), "n2": (1.0, 2.0)}
DEFAULT_PENALTY = {"adaptive": "n2", "mse": "10n", "erm": "n2"}
DEFAULT_ANCHOR = 0.3
ANCHORS = (np.inf, 3.0, 1.0, 0.3, 0.1, 0.03)  # what "adaptive" chooses from; without end: no variance term
METHODS = ("least_squares", "trust-exact", "trust-ncg", "Newton-CG", "BFGS", "L-BFGS-B", "SLSQP")
BOOTSTRAPS = ("pairs", "bayesian", "cluster", "stratified")
LOSSES = ("ml", "calibrated")
TRIMS = ("crump", "separated")
LARGEST_PENALTY = 1e30  # nothing changes long before, and squares still fit a float
INTERVALS = ("normal", "percentile", "basic", "bc", "bca", "studentized")


def _finite_number(name: str, value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and bool(np.isfinite(float(value)))


Options = TypeVar("Options")


def options_of(kind: type[Options], given: Mapping[str, Any]) -> Options:
    """Return the options of one kind, a dataclass, from all those of a call."""
    names = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in given.items() if name in names})


@dataclass(frozen=True)
class ModelOptions:
    """What is estimated: families, links, target and the reported effect.

    Parameters
    ----------
    family, link, propensity_link, propensity_loss, propensity_score, n_folds, target, trim, clip, effect
        As in `causalrisk.JRE.from_formula`; of `propensity_score` only a classifier: scores that are given belong to
        the data, and become None.
    """

    family: Any = "gaussian"
    link: Any = None
    propensity_link: str = "logit"
    propensity_loss: str = "ml"
    propensity_score: Any = None
    n_folds: int = 5
    target: Any = "all"
    trim: Any = None
    clip: Any = None
    effect: str = "difference"

    def __post_init__(self) -> None:
        if not is_classifier(self.propensity_score):
            object.__setattr__(self, "propensity_score", None)
        one_of("propensity_link", self.propensity_link, tuple(BINARY_LINKS))
        one_of("propensity_loss", self.propensity_loss, LOSSES)
        one_of("effect", self.effect, tuple(SCALES))
        whole_number("n_folds", self.n_folds, 2)
        outcome_family(self.family, self.link)
        object.__setattr__(self, "target", _target(self.target))
        self._check_calibrated()
        if self.trim is not None and not (isinstance(self.trim, str) and self.trim in TRIMS):
            object.__setattr__(self, "trim", _limits("trim", self.trim, (0.1, 0.9), TRIMS))
        if self.clip is not None:
            object.__setattr__(self, "clip", _limits("clip", self.clip, (0.01, 0.99), ()))

    def _check_calibrated(self) -> None:
        if self.propensity_loss != "calibrated":
            return
        if self.propensity_link != "logit":
            raise OptionError(
                f'propensity_loss="calibrated" is a loss of the logit; propensity_link={self.propensity_link!r} has '
                'none.\nType  propensity_link="logit".'
            )
        if self.population not in (ALL, TREATED, CONTROL):
            raise OptionError(
                'propensity_loss="calibrated" balances towards everybody or one arm; target '
                f"{self.population.name!r} has no such loss.\n"
                'Type  target="all", "treated" or "control", or  propensity_loss="ml".'
            )

    @property
    def population(self) -> TargetPopulation:
        """The target population."""
        return population_of(self.target)

    @property
    def estimand(self) -> str:
        """Name of the effect in the sample as it is, before trimming."""
        return f"{self.population.estimand}{self.effect_scale.label}"

    @property
    def effect_scale(self) -> EffectScale:
        """How the effect is reported."""
        return SCALES[self.effect]

    @property
    def outcome_family(self) -> OutcomeFamily:
        """Family of the outcome models."""
        return outcome_family(self.family, self.link)


def is_frame(target: Any) -> bool:
    """Whether a target is a data frame or another mapping of columns."""
    return hasattr(target, "columns") or isinstance(target, Mapping)


def _target(value: Any) -> Any:
    """Check a target: a known name in any case, a data frame, or a function."""
    if not isinstance(value, str):
        if callable(value) or is_frame(value):
            return value
        raise OptionError(
            f"target is of type {type(value).__name__}; expected {listed(tuple(POPULATIONS))}, a DataFrame, or a "
            'function of the propensity score.\nType  target="all".'
        )
    name = SPELLINGS.get(value.lower())
    if name is None:
        close = difflib.get_close_matches(value.lower(), SPELLINGS, 1, 0.4) or ["all"]
        raise OptionError(
            f"target={value!r} is not known; expected one of {listed(tuple(POPULATIONS))}, a DataFrame, or a function "
            f'of the propensity score.\nType  target="{SPELLINGS[close[0]]}".'
        )
    return name


def _limits(name: str, value: Any, example: tuple[float, float], names: tuple[str, ...]) -> tuple[float, float]:
    """Check a pair of limits of the propensity score."""
    try:
        low, high = (float(v) for v in value)
    except (TypeError, ValueError):
        low, high = np.nan, np.nan
    if isinstance(value, str) or not 0 <= low < high <= 1:
        also = f", or one of {listed(names)}" if names else ""
        close = difflib.get_close_matches(str(value), names, 1, 0.4)
        raise OptionError(
            f"{name}={value!r}; expected limits of the propensity score, 0 <= low < high <= 1{also}.\n"
            f"Type  {name}={repr(close[0]) if close else example}."
        )
    return low, high


@dataclass(frozen=True)
class InferenceOptions:
    """How standard errors are computed.

    Parameters
    ----------
    cov_type, n_boot, bootstrap, small_sample, max_failed, rng, n_jobs, progress, memory, resamples
        As in `causalrisk.JRE.fit`.
    """

    cov_type: str | None = None
    n_boot: int = 999
    bootstrap: str | None = None
    small_sample: bool = False
    max_failed: float = 0.05
    rng: Any = 0
    n_jobs: int = 1
    progress: bool = False
    memory: Any = None
    resamples: Any = None

    def __post_init__(self) -> None:
        one_of("cov_type", self.cov_type, (None, "robust", "HC0", "HC1", "cluster", "bootstrap"))
        one_of("bootstrap", self.bootstrap, (None, *BOOTSTRAPS))
        whole_number("n_boot", self.n_boot, 2)
        if self.resamples is not None and self.n_boot != 999:
            raise OptionError("resamples= and n_boot= were both given; the first says how many.\nLeave n_boot= out.")
        if not _finite_number("max_failed", self.max_failed) or not 0 <= self.max_failed < 1:
            raise OptionError(
                f"max_failed={self.max_failed!r}; expected a share of the resamples, 0 <= max_failed < 1.\n"
                "Type  max_failed=0.05."
            )
        if self.n_jobs != -1:
            whole_number("n_jobs", self.n_jobs, 1)
        if self.memory is not None and (not _finite_number("memory", self.memory) or self.memory <= 0):
            raise OptionError(
                f"memory={self.memory!r}; expected a number of bytes or None.\nType  memory=2e9  for 2 GB."
            )
        check_rng(self.rng)

    def resolved(self, clustered: bool, joint: bool) -> tuple[str, str]:
        """Covariance type and kind of resampling for data with or without clusters.

        Parameters
        ----------
        clustered : bool
            Whether a cluster was given.
        joint : bool
            Whether the estimator is the joint one, whose default is the bootstrap and whose replicates are resamples
            even where its standard errors are not.

        Returns
        -------
        tuple of str
            cov_type in {"robust", "HC1", "cluster", "bootstrap"} and the kind of bootstrap.
        """
        if clustered:
            self._check_clustered()
        elif "cluster" in (self.cov_type, self.bootstrap):
            name = "cov_type" if self.cov_type == "cluster" else "bootstrap"
            raise OptionError(f'{name}="cluster" needs the clusters.\nType  from_formula(..., cluster="column").')
        kind = self.bootstrap or ("cluster" if clustered else "pairs")
        if self.cov_type in (None, "bootstrap"):
            asked = joint or self.cov_type == "bootstrap" or self.bootstrap is not None or self.resamples is not None
            return ("bootstrap" if asked else "cluster" if clustered else "robust"), kind
        for name, given in (("resamples", self.resamples), ("bootstrap", None if joint else self.bootstrap)):
            if given is not None:
                raise OptionError(
                    f'{name}= asks for bootstrap standard errors, cov_type="{self.cov_type}" for others.\n'
                    f'Type  cov_type="bootstrap", or leave {name}= out.'
                )
        return ("robust" if self.cov_type == "HC0" else self.cov_type), kind

    def _check_clustered(self) -> None:
        """Refuse options that treat rows as independent where a cluster was given."""
        if self.cov_type in ("robust", "HC0", "HC1"):
            raise OptionError(
                f'cov_type="{self.cov_type}" treats rows as independent, but cluster= was given.\n'
                'Type  cov_type="cluster".'
            )
        if self.bootstrap not in (None, "cluster"):
            raise OptionError(
                f'bootstrap="{self.bootstrap}" resamples rows, but cluster= was given.\nType  bootstrap="cluster".'
            )


def penalty_grid(values: Any) -> np.ndarray:
    """Check penalties lambda that were given as a sequence, and return them as floats."""
    try:
        grid = np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        grid = np.empty((0, 0))
    if grid.ndim != 1 or not grid.size or not ((grid >= 0) & (grid <= LARGEST_PENALTY)).all():
        raise OptionError(
            f"grid={values!r:.80}; expected a list of penalties, each a number from 0 to {LARGEST_PENALTY:g}.\n"
            "Type, say,  grid=[0, 100, 10000]."
        )
    return grid


@dataclass(frozen=True)
class JREOptions:
    """How the Joint Robust Estimator is trained.

    Parameters
    ----------
    objective, penalty, anchor, n_replicates, replicates, method, bootstrap_replicates, n_starts
        As in `causalrisk.JRE.fit`.
    """

    objective: str = "adaptive"
    penalty: float | str | None = None
    anchor: float | None = None
    n_replicates: int = 500
    replicates: Any = None
    method: str | None = None
    bootstrap_replicates: str = "shifted"
    n_starts: int = 1

    def __post_init__(self) -> None:
        one_of("objective", self.objective, OBJECTIVES)
        one_of("method", self.method, (None, *METHODS))
        one_of("bootstrap_replicates", self.bootstrap_replicates, ("shifted", "nested"))
        whole_number("n_replicates", self.n_replicates, 1)
        whole_number("n_starts", self.n_starts, 1)
        self._check_anchor()
        if self.at_fitted_score and self.bootstrap_replicates != "shifted":
            raise OptionError(
                f'bootstrap_replicates={self.bootstrap_replicates!r} has no effect with objective="adaptive", which is '
                'trained at the fitted propensity score.\nLeave it out, or type  objective="mse".'
            )
        if self.replicates is not None and self.n_replicates != 500:
            raise OptionError(
                "replicates= and n_replicates= were both given; the first says how many.\nLeave n_replicates= out."
            )
        if self.penalty is None:
            object.__setattr__(self, "penalty", DEFAULT_PENALTY[self.objective])
        if isinstance(self.penalty, str):
            one_of("penalty", self.penalty, tuple(PENALTY_NAMES))
        elif not _finite_number("penalty", self.penalty) or not 0 <= float(self.penalty or 0) <= LARGEST_PENALTY:
            raise OptionError(
                f"penalty={self.penalty!r}; expected a number from 0 to {LARGEST_PENALTY:g}, or one of "
                f'{listed(tuple(PENALTY_NAMES))}.\nType  penalty="10n".'
            )

    def _check_anchor(self) -> None:
        if self.anchor is None:
            return
        if not _finite_number("anchor", self.anchor) or self.anchor <= 0:
            raise OptionError(f"anchor={self.anchor!r}; expected a positive number.\nType  anchor={DEFAULT_ANCHOR}.")
        if self.objective != "mse":
            why = {"erm": "whose fit has weight one", "adaptive": "which chooses it"}[self.objective]
            raise OptionError(
                f'anchor={self.anchor!r} has no effect with objective="{self.objective}", {why}.\n'
                'Leave anchor= out, or type  objective="mse".'
            )

    @property
    def at_fitted_score(self) -> bool:
        """Whether the arms are trained at the fitted propensity score, or over its replicates."""
        return self.objective == "adaptive"

    @property
    def anchors(self) -> tuple[float, ...]:
        """Anchors to choose from."""
        if self.objective == "adaptive":
            return ANCHORS
        return (np.inf if self.objective == "erm" else self.anchor or DEFAULT_ANCHOR,)

    def criteria(self, total: float) -> tuple[Criterion, ...]:
        """Return the weights of the terms of the objective for each anchor.

        Parameters
        ----------
        total : float
            Sum of the observation weights of the sample.

        Returns
        -------
        tuple of Criterion
            One for each of `anchors`.
        """
        if isinstance(self.penalty, str):
            factor, power = PENALTY_NAMES[self.penalty]
            penalty = factor * total**power
        else:
            penalty = float(self.penalty or 0)
        finite = [(1.0, False) if np.isinf(anchor) else (anchor, True) for anchor in self.anchors]
        return tuple(Criterion(fit, penalty, variance, self.at_fitted_score) for fit, variance in finite)
