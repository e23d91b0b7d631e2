"""Values of options as types, so that a type checker catches a misspelt one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

CovType = Literal["robust", "HC0", "HC1", "cluster", "jackknife", "HC3", "CR3", "bootstrap"]
Bootstrap = Literal["pairs", "bayesian", "cluster", "stratified", "multiplier", "rescaled"]
Multiplier = Literal["rademacher", "webb", "mammen"]
Interval = Literal["normal", "delta", "percentile", "basic", "bc", "bca", "studentized"]
Adjustment = Literal["single-step", "holm", "bonferroni", "hochberg", "simes-hochberg", "fdr_bh"]
Alternative = Literal["two-sided", "larger", "smaller"]
Objective = Literal["risk", "erm"]
Penalty = Literal["n", "n1.5", "n2"]
Method = Literal["least_squares", "trust-exact", "trust-ncg", "Newton-CG", "BFGS", "L-BFGS-B", "SLSQP"]
Replicates = Literal["shifted", "nested"]
PropensityLink = Literal["logit", "probit", "cloglog"]
OutcomeLink = Literal["identity", "log", "logit", "probit", "cloglog"]
PropensityLoss = Literal["ml", "calibrated"]
WeightType = Literal["frequency", "probability"]
Scale = Literal["difference", "ratio", "odds_ratio", "percent", "quantile"]
Trim = Literal["crump", "separated"]
LearnerUse = Literal["terms", "replace", "stack"]
LearnerName = Literal["smooth", "hist-gradient-boosting", "random-forest", "lasso"]
FamilyName = Literal[
    "gaussian", "normal", "binomial", "logistic", "bernoulli", "poisson", "gamma", "inversegaussian", "inverse_gaussian"
]
Missing = Literal["drop", "raise", "indicator"]
Below = Literal["se", "ci", "z", "p"]


class LearnerLike(Protocol):
    """An object with `fit`, such as an estimator of scikit-learn."""

    @property
    def fit(self) -> Any:
        """The method."""


class FamilyLike(Protocol):
    """A family of statsmodels."""

    @property
    def link(self) -> Any:
        """Its link."""


Family = FamilyName | FamilyLike
OneLearner = LearnerName | LearnerLike
Learners = OneLearner | Mapping[Any, OneLearner] | Sequence[OneLearner]
