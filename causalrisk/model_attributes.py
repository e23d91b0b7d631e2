"""What results carry of the outcome and propensity models: coefficients, scores, weights, predictions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from causalrisk.coefficients import Coefficients, Estimates, coefficients_of, influence_of, outcome_names
from causalrisk.errors import UnavailableError
from causalrisk.linalg import Array
from causalrisk.record import FitRecord


class ModelAttributes:
    """Attributes of the fitted models."""

    _record: FitRecord
    nobs: int

    @property
    def _outcome_names(self) -> tuple[str, ...]:
        return outcome_names(self._record)

    @property
    def outcome_params(self) -> pd.DataFrame:
        """Coefficients of the outcome models, a row a term and a column an arm.

        Those of JRE serve the effect and are not regression coefficients; `res.start.outcome_params` are.
        """
        return self._by_term(self._coefficients().outcome, "values")

    @property
    def outcome_bse(self) -> pd.DataFrame:
        """Standard errors of `outcome_params`."""
        return self._by_term(self._coefficients().outcome, "se")

    def _by_term(self, blocks: Sequence[Estimates], field: str) -> pd.DataFrame:
        labels = self._record.design.labels
        columns = {label: getattr(block, field) for label, block in zip(labels, blocks, strict=True)}
        return pd.DataFrame(columns, index=list(self._outcome_names))

    @property
    def propensity_params(self) -> pd.Series:
        """Coefficients of the propensity model."""
        return self._propensity_series("values", "estimate")

    @property
    def propensity_bse(self) -> pd.Series:
        """Standard errors of `propensity_params`."""
        return self._propensity_series("se", "std err")

    def _propensity_series(self, field: str, name: str) -> pd.Series:
        block = self._coefficients().propensity
        if block is None:
            raise self._without_propensity()
        return pd.Series(getattr(block, field), index=list(block.names), name=name)

    def _without_propensity(self) -> UnavailableError:
        if self._record.propensity is not None and self._record.spec.uses_propensity:
            return UnavailableError(
                "the propensity scores are given or a classifier's, and have no coefficients.\n"
                "Type  res.propensity_scores  for the scores."
            )
        return UnavailableError(
            f"{self._record.spec.name} uses no propensity score.\n"
            "Type  causalrisk.IPWRA.from_formula(...).fit()  for an estimator that does."
        )

    def _coefficients(self) -> Coefficients:
        return coefficients_of(self._record)

    @property
    def propensity_scores(self) -> pd.Series | pd.DataFrame:
        """Estimated probability of the treated arm (several arms: a column an arm), a row a row of the sample."""
        if self._record.propensity is None:
            raise self._without_propensity()
        probabilities = self._record.propensity.probabilities
        if len(probabilities) == 2:
            return self._per_row(probabilities[1], "propensity")
        restored = self._record.sample.restore(probabilities.T.copy())
        return pd.DataFrame(restored, index=self._record.design.index, columns=list(self._record.design.labels))

    @property
    def importance_weights(self) -> pd.Series:
        """Tilt of the target over the probability of a unit's own arm; ones where the estimator uses no score."""
        fit = self._record.propensity if self._record.spec.uses_propensity else None
        return self._per_row(np.ones(self._record.sample.n) if fit is None else fit.undivided, "weight")

    def _per_row(self, values: Array, name: str) -> pd.Series:
        return pd.Series(self._record.sample.restore(values), index=self._record.design.index, name=name)

    def estimating_equations(self) -> pd.DataFrame:
        """Contribution of each row to the estimates: the solved estimating equations, or influence function.

        Returns
        -------
        DataFrame
            A row a row of the sample; columns the effect, the arm means, then ``outcome[arm]: term`` and
            ``propensity: term``. With psi these numbers and s the observation weights, the robust covariance is
            (s psi)'(s psi) / (sum s)^2; within clusters s psi is summed first.

        Examples
        --------
        >>> import causalrisk as cr
        >>> births = cr.datasets.load_cattaneo2()
        >>> res = cr.AIPW.from_formula("bweight ~ mage", births, treat="mbsmoke").fit()
        >>> psi = res.estimating_equations()["ATE"]
        >>> bool(abs((psi @ psi) ** 0.5 / len(psi) - res.effect_se) < 1e-9)
        True
        """
        values, terms = influence_of(self._record)
        sample, names = self._record.sample, [*self._record.names, *terms]
        frame = self._record.frame
        if frame is None:
            return pd.DataFrame(sample.restore(values), index=self._record.design.index, columns=names)
        rows = np.concatenate([sample.restore(values), values[: sample.n_frame]])
        keys = ["sample"] * self._record.design.n + ["target"] * sample.n_frame
        labels = [*self._record.design.index, *frame.index]
        return pd.DataFrame(rows, index=pd.MultiIndex.from_arrays([keys, labels]), columns=names)
