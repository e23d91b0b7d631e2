"""Options as frozen dataclasses that check their values, and types of the values for type checkers."""

from __future__ import annotations

import dataclasses
import numbers
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar, get_args

import numpy as np

from causalrisk.design.design import Design
from causalrisk.design.did import DiD
from causalrisk.design.survey import Survey, SurveyDesign
from causalrisk.design.tables import is_column
from causalrisk.design.treatment import is_classifier
from causalrisk.errors import HALF, OptionError, is_number, listed, nearest_name, one_of, whole_number
from causalrisk.errors.aliases import answer, clusters_in
from causalrisk.estimation import specification
from causalrisk.estimation.specification import POPULATIONS, QUANTILE, SCALES, SPELLINGS, EffectScale, TargetPopulation
from causalrisk.learners.cross_fitting import check_learner
from causalrisk.numerics.families import BINARY_LINKS, OutcomeFamily, outcome_family
from causalrisk.numerics.resampling import JACKKNIFE, MULTIPLIERS, check_rng

CovType = Literal["robust", "HC0", "HC1", "cluster", "jackknife", "HC3", "CR3", "bootstrap"]
Bootstrap = Literal["pairs", "bayesian", "cluster", "stratified", "multiplier", "rescaled"]
Multiplier = Literal["rademacher", "webb", "mammen"]
Interval = Literal["normal", "delta", "percentile", "basic", "bc", "bca", "studentized"]
Adjustment = Literal["single-step", "holm", "bonferroni", "hochberg", "simes-hochberg", "fdr_bh"]
Alternative = Literal["two-sided", "larger", "smaller"]
Objective = Literal["risk", "erm"]
Method = Literal[
    "trust-exact", "trust-krylov", "trust-ncg", "trust-constr", "dogleg", "Newton-CG", "BFGS", "L-BFGS-B", "SLSQP",
    "CG", "TNC", "Nelder-Mead", "Powell", "COBYLA",
]  # fmt: skip
PropensityLink = Literal["logit", "probit", "cloglog"]
OutcomeLink = Literal["identity", "log", "logit", "probit", "cloglog"]
PropensityLoss = Literal["ml", "calibrated"]
WeightType = Literal["frequency", "probability"]
Scale = Literal["difference", "ratio", "odds_ratio", "percent", "quantile"]
Trim = Literal["crump", "separated"]
LearnerUse = Literal["terms", "replace", "stack"]
LearnerName = Literal["smooth", "hist-gradient-boosting", "random-forest", "lasso"]
FamilyName = Literal["gaussian", "normal", "binomial", "logistic", "bernoulli", "poisson", "gamma", "inversegaussian"]
Metric = Literal["mahalanobis", "inverse_variance", "propensity"]
Missing = Literal["drop", "raise", "indicator"]
Below = Literal["se", "ci", "z", "p"]


class LearnerLike(Protocol):
    """An object with `fit`, such as an estimator of scikit-learn."""

    fit: Any


class FamilyLike(Protocol):
    """A family of statsmodels."""

    link: Any


Family = FamilyName | FamilyLike
OneLearner = LearnerName | LearnerLike
Learners = OneLearner | Mapping[Any, OneLearner] | Sequence[OneLearner]


DEFAULT_METHOD = "trust-exact"
N_BOOT = 999
OBSERVED = "observed"  # value of at_exposure
MULTIPLIER = "multiplier"  # the bootstrap without refits
BOOTSTRAPS, TRIMS, INTERVALS = get_args(Bootstrap), get_args(Trim), get_args(Interval)
TERMS, REPLACE, STACK = "terms", "replace", "stack"  # uses of a learner's predictions
WITH_CLUSTERS = {
    "cov_type": (None, "cluster", "CR3", "jackknife", "bootstrap"),
    "bootstrap": (None, "cluster", "bayesian", MULTIPLIER),
}
NUMBERS: dict[str, tuple[Callable[[float], bool], str, str]] = {  # condition, what is expected, and what to use
    "at_exposure": (lambda x: x > 0, f'the exposure of the means, a positive number, or "{OBSERVED}"', "at_exposure=1"),
    "caliper": (lambda x: x > 0, "the largest distance of a match, a positive number", "caliper=0.25"),
    "max_failed": (lambda x: 0 <= x < 1, "a share of the resamples, 0 <= max_failed < 1", "max_failed=0.05"),
    "df": (lambda x: x > 0, "the degrees of freedom, a number above 0", "use_t=True"),
    "shrinkage": (lambda x: x > 0, "a positive number, or None to choose it from the data", "shrinkage=3"),
    "share": (lambda x: 0 <= x <= 1, "a number from 0 to 1, or None to estimate it", "share=1"),
    "spread": (lambda x: 0 < x <= 1, "a number above 0 and at most 1", "spread=0.5"),
}
CHOICES: dict[str, tuple[Any, ...]] = {
    "learner_use": (None, *get_args(LearnerUse)), "effect": tuple(SCALES), "normalize": (False, True),
    "propensity_link": tuple(BINARY_LINKS), "propensity_loss": get_args(PropensityLoss), "metric": get_args(Metric),
    "cov_type": (None, *get_args(CovType)), "bootstrap": (None, *BOOTSTRAPS), "multiplier": (None, *MULTIPLIERS),
    "small_sample": (False, True), "use_t": (None, True, False),
    "objective": get_args(Objective), "method": (None, *get_args(Method)), "join_score": (None, True, False),
}  # fmt: skip
WHOLE = {"n_repeats": (1, None), "n_neighbors": (1, None), "n_boot": (2, N_BOOT), "n_replicates": (1, 200)}


def check_values(options: Any) -> None:
    """Check the values of an options dataclass. An unknown choice or a number out of range raises an error."""
    for name, value in vars(options).items():
        default = value is None and getattr(type(options), name, None) is None
        if name in CHOICES:
            object.__setattr__(options, name, one_of(name, value, CHOICES[name]))
        elif default or (name == "at_exposure" and str(value) == OBSERVED):
            continue
        elif name in WHOLE:
            whole_number(name, value, *WHOLE[name])
        elif name in NUMBERS:
            holds, expected, use = NUMBERS[name]
            if not (is_number(value) and (np.isfinite(float(value)) or name == "df") and holds(float(value))):
                raise OptionError(f"{name}={value!r}; expected {expected}.\nUse `{use}`.")


def _not_both(first: str, one: object, second: str, other: object, why: str) -> None:
    if one is not None and other is not None:
        raise OptionError(f"{first}= and {second}= were both given: {why}.\nLeave {second}= out.")


Options = TypeVar("Options")


def options_of(kind: type[Options], given: Mapping[str, Any]) -> Options:
    """Return an options dataclass of type `kind`, filled from the options of a call. Other options are ignored."""
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    return kind(**{name: given[name] for name in names if name in given})


def defaults_of(*kinds: Any) -> dict[str, Any]:
    """Return the default of each option of the given dataclasses, by name."""
    return {field.name: field.default for kind in kinds for field in dataclasses.fields(kind)}


def typed_options(options: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, str]:
    """Return the source text of each option that is not a default, by name. Data appear as the option's name."""
    texts = {}
    for name, value in options.items():
        items = value if isinstance(value, list | tuple) else [value]
        shown = (str, numbers.Number, np.bool_, Survey, DiD)
        plain = name in ("learner", "family") or isinstance(value, Mapping)
        plain = plain or all(isinstance(item, shown) or hasattr(item, "predict") for item in items)
        if value is None or (plain and value == defaults.get(name)):
            continue
        text = repr(value.item() if isinstance(value, np.generic) else value).replace("\n", " ")
        # an object without a repr of its own appears as its class
        texts[name] = re.sub(r"<(?:[\w<>]+\.)*(\w+) object at 0x[0-9a-fA-F]+>", r"\1(...)", text) if plain else name
    return texts


@dataclass(frozen=True)
class ModelOptions:
    """What is estimated: families, links, target and the reported effect.

    Parameters
    ----------
    family, ..., bias_adjust
        As in `causalrisk.JRE.from_formula` and `causalrisk.Matching`. `propensity_score` is a classifier or None.
    repeat : int
        Number of the repeat that determines the folds, from 0 to `n_repeats` - 1.
    read_as : tuple of str
        Notes on options that were given under names from other packages.
    typed : mapping of str to str
        The formula and the options of the model as they were typed.
    """

    family: Any = "gaussian"
    link: Any = None
    at_exposure: Any = None
    propensity_link: str = "logit"
    propensity_loss: str = "ml"
    propensity_score: Any = None
    learner: Any = None
    learner_use: str | None = None
    n_folds: int = 5
    n_repeats: int = 1
    repeat: int = 0
    target: Any = "all"
    trim: Any = None
    clip: Any = None
    effect: str = "difference"
    quantiles: Any = None
    did: DiD | None = None
    normalize: bool = False
    n_neighbors: int = 1
    metric: str = "mahalanobis"
    exact: Any = None
    caliper: float | None = None
    bias_adjust: Any = None
    read_as: tuple[str, ...] = ()
    typed: Mapping[str, str] = dataclasses.field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if not is_classifier(self.propensity_score):
            object.__setattr__(self, "propensity_score", None)
        check_values(self)
        if self.effect == QUANTILE.name or self.quantiles is not None:
            object.__setattr__(self, "quantiles", _levels(self.quantiles, self.effect))
        alone = self.learner is not None and self.propensity_score is None
        # with n_folds=1, a learner predicts the rows that it was fitted to
        whole_number("n_folds", self.n_folds, 1 if alone else 2, ModelOptions.n_folds)
        if self.learner is not None:
            check_learner(self.learner)
            if self.n_repeats % 2 == 0:
                problem = f"n_repeats={self.n_repeats!r}; expected an odd number, because the median repeat is reported"
                raise OptionError(f"{problem}.\nUse `n_repeats={self.n_repeats + 1}`.")
        elif self.learner_use is not None or self.n_repeats != 1:
            name = "n_repeats" if self.learner_use is None else "learner_use"
            raise OptionError(f'{name}= needs a learner.\nAdd `learner="smooth"`, for example.')
        _ = self.outcome_family  # raises an error if it is invalid
        object.__setattr__(self, "target", _target(self.target))
        if self.propensity_loss == "calibrated" and self.propensity_link != "logit":
            raise OptionError('propensity_loss="calibrated" needs the logit link.\nUse `propensity_link="logit"`.')
        if self.propensity_loss == "calibrated" and not self.population.by_arm:
            problem = f'propensity_loss="calibrated" is not available for target={self.population.name!r}'
            raise OptionError(f'{problem}.\nUse `propensity_loss="ml"`, or `target="all"`.')
        if self.did is not None:
            self._check_change(self.did)
        for name in ("exact", "bias_adjust"):
            object.__setattr__(self, name, _names(name, getattr(self, name)))
        if self.trim is not None and not (isinstance(self.trim, str) and self.trim in TRIMS):
            object.__setattr__(self, "trim", _limits("trim", self.trim, (0.1, 0.9), TRIMS))
        if self.clip is not None:
            object.__setattr__(self, "clip", _limits("clip", self.clip, (0.01, 0.99), ()))

    def _check_change(self, did: DiD) -> None:
        """Raise an error for options that are not available with `did=`."""
        linear = self.outcome_family.linear
        for name, given, only in (
            ("target", self.population.name, "treated"),
            ("effect", self.effect, "difference"),
            ("family", "gaussian" if linear else self.outcome_family.label, "gaussian"),
        ):
            if given != only:
                raise OptionError(f"{name}={given!r} is not available with did=.\nUse `{name}={only!r}`.")
        if self.normalize:
            raise OptionError("normalize= is an option of `DiD` with did=.\nUse `DiD(normalize=True)`.")
        if self.learner is not None and did.cross_sections:
            raise OptionError("learner= is not available for repeated cross sections.\nLeave learner= out.")

    def stated_exposure(self, design: Design) -> float | None:
        """Return the exposure at which means are computed. None for observed exposures, or without exposures."""
        if design.offset_kind != "exposure" or self.at_exposure == OBSERVED:
            return None
        return 1.0 if self.at_exposure is None else float(self.at_exposure)

    @property
    def population(self) -> TargetPopulation:
        """The target population."""
        target = self.target  # checked: a population or its name, a function or a data frame
        if isinstance(target, str | TargetPopulation):
            return POPULATIONS[target] if isinstance(target, str) else target
        if callable(target):
            return dataclasses.replace(specification.FUNCTION, tilt=specification.FunctionTilt(target))
        return specification.DATA_FRAME

    @property
    def estimand(self) -> str:
        """Name of the effect, such as "ATE ratio", without the prefix "trimmed"."""
        name = self.population.estimand
        return name.replace("AT", "QT") if self.quantiles else f"{name}{self.effect_scale.label}"

    @property
    def effect_scale(self) -> EffectScale:
        """The scale on which the effect is reported."""
        scale = SCALES[self.effect]
        return dataclasses.replace(scale, quantiles=self.quantiles) if self.quantiles else scale

    @property
    def outcome_family(self) -> OutcomeFamily:
        """Family of the outcome models."""
        return outcome_family(self.family, self.link)


def _names(option: str, given: Any) -> Any:
    """Return names of variables from a list, or from a text such as "x1 + x2". True is returned unchanged."""
    if given is None or given is False or (given is True and option == "bias_adjust"):
        return given or None
    given = given.split("+") if isinstance(given, str) else given
    names = [name.strip() for name in given if isinstance(name, str)] if isinstance(given, list | tuple) else []
    if not names or not all(names) or len(names) < len(given):
        raise OptionError(f'{option}={given!r}; expected names of variables.\nUse `{option}="x1 + x2"`, for example.')
    return tuple(names)


def _levels(given: Any, effect: str) -> tuple[float, ...]:
    """Return the levels of quantiles in ascending order. A level outside of (0, 1) raises an error."""
    if effect != QUANTILE.name:
        raise OptionError(f'quantiles={given!r} has no effect with effect="{effect}".\nUse `effect="quantile"`.')
    if given is None:
        return QUANTILE.quantiles
    try:
        levels = np.unique(np.asarray(given, dtype=float))
    except (TypeError, ValueError):
        levels = np.empty(0)
    if not levels.size or not ((levels > 0) & (levels < 1)).all():
        raise OptionError(f"quantiles={given!r}; expected levels between 0 and 1.\nUse `quantiles=[0.25, 0.5, 0.75]`.")
    return tuple(float(level) for level in levels)


def is_frame(target: Any) -> bool:
    """Return whether a target is a data frame or another mapping of columns."""
    return hasattr(target, "columns") or isinstance(target, Mapping)


def model_options(design: Design, given: Mapping[str, Any]) -> ModelOptions:
    """Return the options of a model from all options of a call."""
    one_of("smooth", given.get("smooth", False), (False, True))
    if given.get("smooth", False):
        _not_both("smooth", True, "learner", given.get("learner"), 'smooth=True is short for learner="smooth"')
        given = {**given, "learner": "smooth"}
    target, did = given.get("target"), given.get("did")
    if did is not None and design.n_arms > 2:
        pair = f'`data=data[data["{design.treat_name}"].isin({[design.levels[0], design.levels[1]]})]`'
        found = f"did= compares two groups; treatment {design.treat_name!r} has {design.n_arms}"
        raise OptionError(f"{found}.\nUse {pair} for each pair.")
    if target is None:
        target = "all" if did is None else "treated"
    return options_of(ModelOptions, {**given, "target": named_target(target, design)})


def named_target(value: Any, design: Design) -> Any:
    """Replace a `target` that is the level or label of an arm by the population of the arm's rows."""
    arm = design.arm_named(value)
    if arm is None:
        return value
    population, known = specification.arm_population(arm, design.labels), SPELLINGS.get(str(value).lower())
    if known is None or POPULATIONS[known] is population:
        return population
    if value not in design.labels:  # a level with another label does not make the name ambiguous
        return value
    problem = f"target={value!r} is ambiguous: it is the label of a group, and the name of the population {known!r}"
    raise OptionError(f'{problem}.\nUse another label: `levels={{{design.levels[arm]!r}: "group {value}", ...}}`.')


def _target(value: Any) -> Any:
    """Return a checked target: a population, a known name in any spelling, a data frame, or a function."""
    if isinstance(value, TargetPopulation):
        return value.name if POPULATIONS.get(value.name) == value else value
    if callable(value) or is_frame(value):
        return value
    if not isinstance(value, str):
        advice = "target=data[...]`, or `res.effects_by(...)`" if is_column(value) else 'target="all"`'
        if isinstance(value, list | tuple) and value:
            advice = f"target={value[0]!r}` with one fit per target, and `etable([res1, res2])`"
        problem = f"target= of type {type(value).__name__} is not a level of the treatment"
        known = f"{listed(tuple(POPULATIONS))}, a level, a DataFrame, or a function of the propensity score"
        raise OptionError(f"{problem}; expected {known}.\nUse `{advice}.")
    if value.lower() in SPELLINGS:
        return SPELLINGS[value.lower()]
    close = nearest_name(value, SPELLINGS)
    advice = answer("target", value.lower()) or (f'Use `target="{SPELLINGS[close]}"`.' if close else "Use one of them.")
    if re.search("[<>]|[=!]=", value):
        advice = f"Use `target=data.query({value!r})`."
    raise OptionError(
        f"target={value!r} is not known; expected one of {listed(tuple(POPULATIONS))} (or 'ATE', 'ATT', 'ATC'), "
        f"a level of the treatment, a DataFrame, or a function of the propensity score.\n{advice}"
    )


def _limits(name: str, value: Any, example: tuple[float, float], names: tuple[str, ...]) -> tuple[float, float]:
    try:
        low, high = (float(v) for v in value)
    except (TypeError, ValueError):
        low, high = np.nan, np.nan
    if not isinstance(value, str) and 0 <= low < high <= 1:
        return low, high
    if isinstance(value, float) and 0 < value < 1 and value != HALF:  # advise limits at this distance from 0 and 1
        example = min(value, round(1 - value, 12)), max(value, round(1 - value, 12))
    also = f", or one of {listed(names)}" if names else ""
    problem = f"{name}={value!r}; expected limits of the propensity score, 0 <= low < high <= 1{also}"
    raise OptionError(f"{problem}.\nUse `{name}={nearest_name(value, names) or example!r}`.")


@dataclass(frozen=True)
class InferenceOptions:
    """How standard errors are computed."""

    cov_type: str | None = None
    n_boot: int | None = None
    bootstrap: str | None = None
    multiplier: str | None = None
    small_sample: bool = False
    use_t: bool | None = None
    df: float | None = None
    max_failed: float = 0.05
    rng: Any = 0
    n_jobs: int = 1
    progress: bool = False
    resamples: Any = None

    def __post_init__(self) -> None:
        if clusters := clusters_in(self.cov_type):
            problem = f"cov_type={self.cov_type!r} names clusters, which are an option of the model"
            raise OptionError(f"{problem}.\nUse `from_formula(..., {clusters})`, and leave cov_type= out of `fit`.")
        check_values(self)
        if self.multiplier is not None and self.bootstrap != MULTIPLIER:
            advice = 'Use `bootstrap="multiplier"`, or leave multiplier= out.'
            raise OptionError(f'multiplier= needs bootstrap="multiplier".\n{advice}')
        if self.resamples is not None and self.bootstrap == MULTIPLIER:
            problem = 'bootstrap="multiplier" does not use resamples, but resamples= was given'
            raise OptionError(f"{problem}.\nTo use your resamples, leave bootstrap= out.")
        _not_both("resamples", self.resamples, "n_boot", self.n_boot, "resamples= sets the number")
        if self.use_t is False:
            _not_both("use_t", self.use_t, "df", self.df, "df= is of the t distribution")
        if self.n_jobs != -1:
            whole_number("n_jobs", self.n_jobs, 1)
        check_rng(self.rng)

    def resolved(self, design: Design, joint: bool) -> tuple[str, str]:
        """Return the covariance type, and the kind of resampling or multipliers. `joint` is for JRE."""
        if design.survey is not None:
            return self._resolved_survey(design.survey)
        clustered = design.cluster_name is not None
        self._check_clusters(clustered)
        kind = self.bootstrap or ("cluster" if clustered else "pairs")
        if kind == MULTIPLIER:
            kind = self.multiplier or next(iter(MULTIPLIERS))
        named = {name: getattr(self, name) is not None for name in ("resamples", "bootstrap", "n_boot")}
        if self.cov_type == "bootstrap" or (self.cov_type is None and (joint or any(named.values()))):
            return "bootstrap", kind
        if self.cov_type is None:
            return "cluster" if clustered else "robust", kind
        named["bootstrap"] &= not joint or self.bootstrap == MULTIPLIER  # it determines JRE's replicates too
        for name, given in named.items():
            if given:
                problem = f'{name}= is for bootstrap standard errors, not cov_type="{self.cov_type}"'
                raise OptionError(f'{problem}.\nUse `cov_type="bootstrap"`, or leave {name}= out.')
        found = {"HC0": "robust", "HC3": JACKKNIFE, "CR3": JACKKNIFE}.get(self.cov_type, self.cov_type)
        if found == JACKKNIFE and self.small_sample:
            raise OptionError("small_sample= has no effect on the jackknife.\nLeave small_sample= out.")
        return found, kind

    def _check_clusters(self, clustered: bool) -> None:
        """Raise an error for options that need clusters if there are none, or that would ignore given clusters."""
        if self.bootstrap == "rescaled":
            raise OptionError('bootstrap="rescaled" needs a survey design.\nUse `design=Survey(strata=..., psu=...)`.')
        for option, known in WITH_CLUSTERS.items():
            value, found = getattr(self, option), f'{option}="{getattr(self, option)}"'
            if not clustered and value in ("cluster", "CR3"):
                raise OptionError(f'{found} needs clusters.\nUse `from_formula(..., cluster="column")`.')
            if clustered and value not in known:
                use = f'Use `{option}="{"CR3" if value == "HC3" else "cluster"}"`.'
                raise OptionError(f"{found} treats rows as independent, but cluster= was given.\n{use}")

    def _resolved_survey(self, survey: SurveyDesign) -> tuple[str, str]:
        """Return covariance type and kind of resampling for a survey. Options that ignore the design raise an error."""
        replicates = survey.replication is not None
        refused = {
            "cov_type": self.cov_type not in (None, "bootstrap"),
            "bootstrap": self.bootstrap is not None and (replicates or self.bootstrap != "rescaled"),
            "resamples": self.resamples is not None,
            "small_sample": self.small_sample,
            "n_boot": replicates and self.n_boot is not None,
        }
        for name in (name for name, holds in refused.items() if holds):
            problem = f"{name}={getattr(self, name)!r} is not available: the survey design determines standard errors"
            also = " and multiplier=" * (name == "bootstrap" and self.multiplier is not None)
            raise OptionError(f"{problem}.\nLeave {name}={also} out.")
        if replicates:
            return "replicates", "replicates"
        if self.cov_type is None and self.bootstrap is None and self.n_boot is None:
            return "survey", "rescaled"
        if survey.lonely in ("adjust", "average") and (survey.units == 1).any():
            advice = 'Leave cov_type=, bootstrap= and n_boot= out, or use `Survey(..., lonely="certainty")`.'
            raise OptionError(f'lonely="{survey.lonely}" is not available for the bootstrap.\n{advice}')
        return "bootstrap", "rescaled"


@dataclass(frozen=True)
class JREOptions:
    """How the Joint Robust Estimator is fitted."""

    objective: str = "risk"
    shrinkage: float | None = None
    share: float | None = None
    n_replicates: int | None = None
    spread: float | None = None
    replicates: Any = None
    method: str | None = None
    join_score: bool | None = None

    def __post_init__(self) -> None:
        check_values(self)
        if self.objective == "erm":
            for name in ("shrinkage", "share", "join_score"):
                if getattr(self, name) is not None:
                    raise OptionError(f'{name}= needs objective="risk".\nUse `objective="risk"`, or leave {name}= out.')
        if self.shrinkage is not None:
            object.__setattr__(self, "shrinkage", float(self.shrinkage))
        _not_both("replicates", self.replicates, "n_replicates", self.n_replicates, "replicates= sets the number")
        _not_both("replicates", self.replicates, "spread", self.spread, "the given weights determine the spread")

    @property
    def n_drawn(self) -> int:
        """Number of propensity replicates to draw."""
        return self.n_replicates or (200 if self.objective == "risk" else 500)

    @property
    def replicate_spread(self) -> float:
        """Standard deviation of the propensity replicates, relative to the sampling standard deviation."""
        return float(self.spread or (0.5 if self.objective == "risk" else 1.0))
