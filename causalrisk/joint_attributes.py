"""What the results of the Joint Robust Estimator have beside those of the others."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pandas as pd

from causalrisk.errors import UnavailableError
from causalrisk.ledger import Reason, ledger_frame
from causalrisk.record import FitRecord, JointRecord


class JointAttributes:
    """Attributes of a joint fit; the results of other estimators raise and say so."""

    _record: FitRecord
    _start: Any

    @property
    def _joint(self) -> JointRecord:
        if self._record.joint is None:
            name = self._record.spec.name
            raise UnavailableError(
                f"{name} does not train its arms jointly.\nType  causalrisk.JRE.from_formula(...).fit()."
            )
        return self._record.joint

    @property
    def optimize_result(self) -> Any:
        """What scipy reported of the joint objective (JRE); it is free of units."""
        return copy.copy(self._joint.fit.result)

    @property
    def start(self) -> Any:
        """The IPWRA results JRE started from, with robust standard errors."""
        if self._start is None:
            raise UnavailableError(
                f"{self._record.spec.name} has no start.\nType  causalrisk.JRE.from_formula(...).fit()."
            )
        return self._start

    @property
    def model_means(self) -> pd.Series:
        """Raw averages of the fitted arm models (JRE); they carry the common bias that the POMs leave out."""
        labels = list(self._record.design.labels)
        return pd.Series(self._joint.fit.estimate.model_means.copy(), index=labels, name="mean")

    @property
    def expected_ate_risk(self) -> float:
        """Mean squared net bias over the replicates (JRE), in squared units of the outcome."""
        return self._joint.fit.expected_risk

    @property
    def replicate_bias(self) -> pd.DataFrame:
        """Bias of each arm and net of one another under each replicate used (JRE), in units of the outcome."""
        bias = self._joint.fit.bias
        used = np.flatnonzero(self._joint.replicates.reasons == Reason.OK)
        labels = self._record.design.labels
        values = np.column_stack([bias.T, self._joint.fit.net_bias[0].T])
        nets = ["net"] if len(labels) == 2 else [f"net[{label}]" for label in labels[1:]]
        columns = [*labels, *nets]
        return pd.DataFrame(values, columns=columns, index=pd.Index(used, name="replicate"))

    @property
    def replicate_ledger(self) -> pd.DataFrame:
        """Whether each propensity replicate was used, and why not (JRE)."""
        return ledger_frame(self._joint.replicates.reasons, "replicate")

    @property
    def mc_se(self) -> float:
        """Monte Carlo standard error of the (first) effect due to the finite number of replicates (JRE).

        0 for the objective "adaptive", which does not train over the replicates; NaN for a single one.
        """
        return float(self._joint.fit.mc_se[0])

    @property
    def anchor_path(self) -> pd.DataFrame:
        """How the objective "adaptive" chose its anchor (JRE).

        A row an anchor, the first (without end) being IPWRA's fit: the (first) effect; "std err", from the influence
        function with each unit held out; "variance ratio", its square over that of the first, and "ratio std err", the
        standard error of that ratio over the units; whether the optimiser converged; and the one chosen, the smallest
        ratio plus its standard error.
        """
        path = self._joint.path
        if path is None:
            raise UnavailableError(
                f'objective="{self._joint.options.objective}" does not choose its anchor.\n'
                'Type  fit(objective="adaptive").'
            )
        table = {
            "effect": path.effects,
            "std err": path.std_errors,
            "variance ratio": path.ratios,
            "ratio std err": path.ratio_errors,
            "converged": path.converged,
            "chosen": np.arange(len(path.effects)) == path.chosen,
        }
        return pd.DataFrame(table, index=pd.Index(self._joint.options.anchors, name="anchor"))
