"""The estimators as models: `OutcomeRegression`, `Hajek`, `IPWRA`, `AIPW` and `JRE`."""

from __future__ import annotations

from typing import Any

from causalrisk import estimators
from causalrisk.errors import FitInterrupted
from causalrisk.fitting import fit_joint
from causalrisk.keywords import FIT_INSTEAD, check_keywords
from causalrisk.model import CausalModel
from causalrisk.options import InferenceOptions, JREOptions
from causalrisk.record import FitRecord
from causalrisk.results import CausalResults
from causalrisk.uncertainty import start_record


class OutcomeRegression(CausalModel):
    """Outcome regression: a model of the outcome in each arm, averaged over everybody.

    Examples
    --------
    >>> import causalrisk as cr
    >>> births = cr.datasets.load_cattaneo2()
    >>> cr.OutcomeRegression.from_formula("bweight ~ mage + medu", births, treat="mbsmoke").fit()
    OutcomeRegression: ATE -261.58 (23.85), 1 vs 0, n 4642
    """

    spec = estimators.OUTCOME_REGRESSION


class Hajek(CausalModel):
    """Normalised inverse probability weighting: weighted means, whatever covariates the outcome formula names.

    Examples
    --------
    >>> import causalrisk as cr
    >>> births = cr.datasets.load_cattaneo2()
    >>> cr.Hajek.from_formula("bweight ~ 1", births, treat="mbsmoke", propensity="mage + medu").fit()
    Hajek: ATE -262.98 (22.81), 1 vs 0, n 4642
    """

    spec = estimators.HAJEK


IPW = Hajek


class IPWRA(CausalModel):
    """Inverse probability weighted regression adjustment: each arm's regression under importance weights.

    Examples
    --------
    >>> import causalrisk as cr
    >>> births = cr.datasets.load_cattaneo2()
    >>> cr.IPWRA.from_formula("bweight ~ mage + medu", births, treat="mbsmoke").fit()
    IPWRA: ATE -256.86 (24.38), 1 vs 0, n 4642
    """

    spec = estimators.IPWRA


class AIPW(CausalModel):
    """Augmented inverse probability weighting: outcome regression less its estimated bias in each arm.

    Examples
    --------
    >>> import causalrisk as cr
    >>> births = cr.datasets.load_cattaneo2()
    >>> cr.AIPW.from_formula("bweight ~ mage + medu", births, treat="mbsmoke").fit()
    AIPW: ATE -259.51 (24.02), 1 vs 0, n 4642
    """

    spec = estimators.AIPW


class JRE(CausalModel):
    """The Joint Robust Estimator: both arms trained together so that their biases cancel in the effect.

    Notes
    -----
    The idea is that of [1]_: the effect is right if the biases of the arms cancel, so they are trained for that, and
    measured over a bootstrap distribution of propensity scores. By default the arms keep their net bias at zero under
    the fitted score and the sampling variance of the effect small, anchored to IPWRA as strongly as rows held out say;
    ``objective="erm"`` minimises the expected risk over the distribution itself.

    References
    ----------
    .. [1] Zhang, A. (2025). Causal Inference as Distribution Adaptation: Optimizing ATE Risk under Propensity
       Uncertainty. arXiv:2512.18083.

    Examples
    --------
    >>> import causalrisk as cr
    >>> births = cr.datasets.load_cattaneo2()
    >>> res = cr.JRE.from_formula("bweight ~ mage + medu", births, treat="mbsmoke").fit(n_boot=99)
    >>> res
    JRE: ATE -256.86 (24.14), 1 vs 0, n 4642
    """

    spec = estimators.JRE

    @check_keywords(FIT_INSTEAD)
    def fit(
        self,
        *,
        cov_type: str | None = None,
        n_boot: int = 999,
        bootstrap: str | None = None,
        small_sample: bool = False,
        max_failed: float = 0.05,
        rng: Any = 0,
        n_jobs: int = 1,
        progress: bool = False,
        memory: float | None = None,
        resamples: Any = None,
        objective: str = "adaptive",
        penalty: float | str | None = None,
        anchor: float | None = None,
        n_replicates: int = 500,
        replicates: Any = None,
        method: str | None = None,
        bootstrap_replicates: str = "shifted",
        n_starts: int = 1,
    ) -> CausalResults:
        """Estimate the effect.

        Parameters
        ----------
        cov_type, n_boot, bootstrap, small_sample, max_failed, rng, n_jobs, progress, memory, resamples
            As in `IPWRA.fit`; `cov_type` is "bootstrap" by default, and `bootstrap` also says how the propensity
            replicates are drawn.
        objective : {"adaptive", "mse", "erm"}
            "adaptive": sampling variance plus penalised risk at the fitted propensity score, anchored to IPWRA by a
            weight chosen by rows held out (`CausalResults.anchor_path`); IPWRA itself where nothing is clearly better.
            "mse": the same at a given anchor, with fit and risk averaged over the propensity replicates. "erm":
            importance-weighted fit plus penalised risk over the replicates, as in the paper of the class.
        penalty : float or {"n", "10n", "n1.5", "n2"}, optional
            Weight lambda of the ATE risk; by default "10n" for "mse" and "n2" for the others.
        anchor : float, optional
            Weight of the importance-weighted fit ("mse" only, 0.3 by default).
        n_replicates : int, default 500
            Propensity replicates; for "adaptive" they only measure the expected risk.
        replicates : array_like, shape (n, B), optional
            Multiplicities of the replicates to use in place of random ones, rows as in the estimation sample.
        method : str, optional
            "least_squares" (the default: the objective is a sum of squares), or "trust-exact", "trust-ncg",
            "Newton-CG", "BFGS", "L-BFGS-B", "SLSQP" of `scipy.optimize.minimize`.
        bootstrap_replicates : {"shifted", "nested"}
            Replicates within a resample: the full sample's, moved along with the resample's propensity fit, or drawn
            and fitted afresh (exact, and n_boot times the work).
        n_starts : int, default 1
            Starting points; with linear outcome models the minimum is unique and one is enough.

        Returns
        -------
        CausalResults
            The results; `start` holds the IPWRA results.

        Raises
        ------
        SeparationError, BootstrapError, OptionError
            As in `IPWRA.fit`.
        """
        inference = InferenceOptions(
            cov_type, n_boot, bootstrap, small_sample, max_failed, rng, n_jobs, progress, memory, resamples
        )
        joint = JREOptions(objective, penalty, anchor, n_replicates, replicates, method, bootstrap_replicates, n_starts)
        try:
            record = fit_joint(self.design, self.options, inference, joint)
        except FitInterrupted as stop:
            raise FitInterrupted(self._results(stop.results)) from None
        return self._checked(self._results(record), inference)

    def _results(self, record: FitRecord) -> CausalResults:
        """Wrap a record, and beside it that of the IPWRA fit it started from."""
        return CausalResults(self, record, CausalResults(IPWRA._of(self.design, self.options), start_record(record)))
