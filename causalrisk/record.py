"""What a fit produces, as frozen records."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from causalrisk.anchor import AnchorPath
from causalrisk.criterion import JointCriterion
from causalrisk.design import Design, TargetRows
from causalrisk.diagnostics.overlap import ArmWeights
from causalrisk.effects import effect_names, parameter_names
from causalrisk.estimators import IPWRA, Estimate, Specification
from causalrisk.inference.bootstrap import BootstrapDistribution
from causalrisk.joint import JointEstimate
from causalrisk.linalg import Array
from causalrisk.options import JREOptions, ModelOptions
from causalrisk.replicates import Replicates
from causalrisk.sample import Sample
from causalrisk.targets import Target
from causalrisk.weighting import WeightFit


@dataclass(frozen=True)
class JointRecord:
    """What a joint fit has beside an ordinary one.

    Parameters
    ----------
    fit : JointEstimate
        The estimate with its diagnostics.
    options : JREOptions
        The options, without the caller's multiplicities.
    criterion : JointCriterion
        Weights of the terms of the objective.
    replicates : Replicates
        The propensity replicates.
    path : AnchorPath or None
        How the anchor was chosen, where it was.
    drawn : ndarray, shape (n, B), optional
        Their multiplicities where the caller gave them, rows in the order of the sample; else the seed tells.
    """

    fit: JointEstimate
    options: JREOptions
    criterion: JointCriterion
    replicates: Replicates
    path: AnchorPath | None
    drawn: Array | None = None

    @property
    def own_penalty(self) -> float | None:
        """Weight of the risk over the replicates; None where the arms were trained at the fitted propensity score."""
        return None if self.criterion.fitted else self.criterion.penalty

    @property
    def anchor(self) -> float:
        """Weight of the fit against the variance, without end where there is no variance."""
        return self.options.anchors[0 if self.path is None else self.path.chosen]


@dataclass(frozen=True)
class FitRecord:
    """Everything a fit produced.

    Parameters
    ----------
    design : Design
        The data.
    spec : Specification
        The estimator.
    options : ModelOptions
        What was estimated.
    sample : Sample
        The data as numbers, rows sorted by arm.
    target : Target
        The target population.
    frame : TargetRows or None
        Rows of a target frame.
    trimmed : str
        How many rows were trimmed and by what limits; empty where none were.
    propensity : WeightFit or None
        The propensity model and the importance weights.
    estimate : Estimate
        The point estimate.
    overlap : tuple of ArmWeights
        How the importance weights are spread, per arm.
    joint : JointRecord or None
        The joint part, for JRE.
    cov_type : str
        "robust", "HC1", "cluster" or "bootstrap".
    bootstrap : str
        Kind of resampling.
    covariance : ndarray, shape (d, d)
        Covariance of `estimate.values`.
    boot : BootstrapDistribution or None
        The bootstrap distribution.
    given_resamples : bool
        Whether the caller gave the resamples.
    seed : SeedSequence
        Root of the random streams.
    notes : tuple of str
        Text of every warning.
    """

    design: Design
    spec: Specification
    options: ModelOptions
    sample: Sample
    target: Target
    frame: TargetRows | None
    trimmed: str
    propensity: WeightFit | None
    estimate: Estimate
    overlap: tuple[ArmWeights, ...]
    joint: JointRecord | None
    cov_type: str
    bootstrap: str
    covariance: Array
    boot: BootstrapDistribution | None
    given_resamples: bool
    seed: np.random.SeedSequence
    notes: tuple[str, ...]

    @property
    def estimand(self) -> str:
        """Name of the effect."""
        return (
            f"trimmed {self.options.estimand}"
            if (self.design.sample_ledger.formula == "trim").any()
            else self.options.estimand
        )

    @property
    def effect_names(self) -> list[str]:
        """Names of the effects: the estimand, for several arms with the arm that is compared."""
        return effect_names(self.estimand, self.design.labels)

    @property
    def names(self) -> list[str]:
        """Names of the parameters: effects, then arm means."""
        return parameter_names(self.estimand, self.design.labels)

    @property
    def frequency(self) -> bool:
        """Whether the observation weights count repeated rows."""
        return self.design.weight_type == "frequency"

    @property
    def robust_type(self) -> str:
        """Covariance type that needs no resampling."""
        return "cluster" if self.design.cluster is not None else "robust"

    @property
    def joint_start_spec(self) -> Specification:
        """The estimator that trains each arm by itself: this one, or the start of the joint one."""
        return self.spec if self.joint is None else IPWRA
