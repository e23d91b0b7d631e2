"""Diagnostics of a fit as tables: balance, overlap, cancellation of biases, influence, calibration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalrisk.decomposition import variance_table
from causalrisk.diagnostics.balance import WeightedRows, balance_table
from causalrisk.diagnostics.balance_test import BalanceTest, balance_test
from causalrisk.diagnostics.calibration import calibration_bins, calibration_error
from causalrisk.diagnostics.cancellation import risk_table
from causalrisk.diagnostics.overlap import common_support, crump_limits, inside, overlap_table
from causalrisk.errors import UnavailableError
from causalrisk.inference.bootstrap import BootstrapDistribution
from causalrisk.jackknife import effect_changes
from causalrisk.joint_attributes import JointAttributes
from causalrisk.linalg import Array
from causalrisk.options import one_of, whole_number
from causalrisk.replicated import estimator_biases, joint_of, penalty_path
from causalrisk.sensitivity_attributes import SensitivityAttributes
from causalrisk.trimming import trim_curve

DENOMINATORS = {"all": "pooled", "treated": "treated", "control": "control", "overlap": "weighted"}
TRIMS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2)
EXACT_ROWS, QUICK_ROWS = 5000, 1000  # up to so many rows `influence` leaves each of them out


class DiagnosticAttributes(SensitivityAttributes, JointAttributes):
    """Diagnostics of the fitted models."""

    model: Any

    @property
    def _boot(self) -> BootstrapDistribution:
        if self._record.boot is None:
            raise UnavailableError('this fit has no bootstrap.\nType  model.fit(cov_type="bootstrap").')
        return self._record.boot

    def _scores(self) -> Array:
        """Probability of each arm of the rows of the design, shape (K, n)."""
        return self._record.sample.restore(self._weight_fit.probabilities.T).T

    def _counted(self) -> NDArray[np.intp]:
        """Positions of the rows of the design, as often as frequency weights say."""
        rows, design = np.arange(self._record.design.n), self._record.design
        return np.repeat(rows, design.weights.astype(int)) if self._record.frequency else rows

    def balance(self, binary: str = "raw") -> pd.DataFrame:
        """Balance of the columns of the propensity design between arms, before and after weighting.

        Parameters
        ----------
        binary : {"raw", "std"}
            Whether differences of binary columns are of proportions, or standardized as those of the others.

        Returns
        -------
        DataFrame
            A row for the propensity score and each column but the constant (several arms: for each arm against the
            reference); columns "kind", "unit" ("std" or "raw"), and "diff", "var ratio" and "KS", each "before" and
            "after" weighting.

        Notes
        -----
        Definitions are those that R's cobalt documents [1]_. Differences of means are divided by a standard
        deviation of the unweighted sample, the same before and after: for the ATE sqrt((s_1^2 + s_0^2) / 2),
        cobalt's "pooled" (several arms: the mean of all variances), for the ATT that of the treated, for the ATC
        that of the controls; for the overlap population and functions of the score that of all rows after
        weighting. Differences of binary columns are raw by default there too. Variance ratios are treated over
        control and are not defined for binary columns. KS is the largest distance of the weighted distribution
        functions. Differences below 0.1 are usually taken as balanced.

        References
        ----------
        .. [1] Greifer, N. (2025). cobalt: Covariate Balance Tables and Plots. R package.

        Examples
        --------
        >>> import causalrisk as cr
        >>> births = cr.datasets.load_cattaneo2()
        >>> res = cr.IPWRA.from_formula("bweight ~ mage + mmarried", births, treat="mbsmoke").fit()
        >>> res.balance()[["unit", "diff before", "diff after"]].round(2)
                         unit  diff before  diff after
        covariate
        propensity score  std         0.59        0.00
        mage              std        -0.30       -0.08
        mmarried          raw        -0.28       -0.00
        """
        one_of("binary", binary, ("raw", "std"))
        design, scores = self._record.design, self._scores()
        importance = self._record.sample.restore(self._weight_fit.undivided)
        rows = WeightedRows(design.arm, design.weights, design.weights * importance, design.units)
        target = self._record.options.target
        chosen = DENOMINATORS[target] if isinstance(target, str) else "weighted" if callable(target) else "pooled"
        names = design.propensity_names
        return balance_table(design.Z, names, scores, rows, design.labels, chosen, binary == "raw")

    def balance_test(self) -> BalanceTest:
        """Test that the propensity model balances its columns.

        The conditions that weighting balances each column (the constant too) are tested beside the score of the logit,
        which determines the coefficients. A small p-value says that the model is wrong; a large one does not say that
        it is right, nor that nothing was left out.

        Returns
        -------
        BalanceTest
            With `statistic`, `df`, `pvalue`.

        Notes
        -----
        The test of Imai and Ratkovic (2014), which Stata's ``tebalance overid`` does; rows are independent in it.

        Examples
        --------
        >>> import causalrisk as cr
        >>> births = cr.datasets.load_cattaneo2()
        >>> propensity = "mmarried + mage + prenatal1 + fbaby"
        >>> res = cr.Hajek.from_formula("bweight ~ 1", births, treat="mbsmoke", propensity=propensity).fit()
        >>> print(res.balance_test())
        Balance: chi2(5) = 38.1464, p = 0.0000
        """
        fit, record = self._weight_fit, self._record
        options, sample = record.options, record.sample
        plain = options.propensity_link == "logit" and options.propensity_loss == "ml" and options.clip is None
        fitted = record.design.score is None and options.propensity_score is None
        towards = options.target_name if options.target_name in ("all", "treated", "control") else None
        if not (plain and fitted and towards and sample.n_arms == 2 and record.design.cluster is None):
            raise UnavailableError(
                "balance_test() is for a logit of two arms by maximum likelihood, independent rows, and the targets "
                "all, treated and control.\nType  res.balance()  for the differences themselves."
            )
        treated = (sample.arm == 1).astype(float)
        return balance_test(
            sample.propensity.columns, treated, sample.weights, record.frequency, towards, fit.coefficients
        )

    def overlap(self, by: str = "arm") -> pd.DataFrame:
        """How the arms overlap in the propensity score, and how their importance weights are spread.

        Parameters
        ----------
        by : {"arm", "unit"}
            A row an arm, or a row a row of the sample.

        Returns
        -------
        DataFrame
            By arm: n, effective n (Kish), largest weight, its share and that of the 1% largest, quantiles of the
            propensity score (several arms: of a row's own arm), how many are outside the common support (the scores
            that every arm has), the limits of Crump et al. (2009) that minimise the variance, and how many are outside
            them; a row of frequency weight s counts as s. By unit: arm, score of the own arm, weight, and whether it is
            inside either.

        Examples
        --------
        >>> import causalrisk as cr
        >>> births = cr.datasets.load_cattaneo2()
        >>> res = cr.IPWRA.from_formula("bweight ~ mage + medu", births, treat="mbsmoke").fit()
        >>> res.overlap()[["n", "effective n", "score 50%", "outside support"]].round(2)
                n  effective n  score 50%  outside support
        arm
        0    3778      3681.42       0.18               28
        1     864       774.72       0.20                0
        """
        one_of("by", by, ("arm", "unit"))
        record, scores = self._record, self._scores()
        design = record.design
        if by == "arm":
            return overlap_table(scores, design.arm, design.weights, design.units, record.overlap, design.labels)
        compared = scores[1:] if design.n_arms == 2 else scores
        unit = pd.DataFrame(
            {
                "arm": np.array(design.labels)[design.arm],
                "score": scores[design.arm, np.arange(design.n)],
                "weight": self._per_row(self._weight_fit.undivided, "weight"),
                "in support": inside(compared, *common_support(compared, design.arm)),
            },
            index=design.index,
        )
        if design.n_arms == 2:
            unit["in crump"] = inside(compared, *crump_limits(scores[1], design.weights))
        return unit

    def risk_table(self) -> pd.DataFrame:
        """How the biases of the arms cancel, for every estimator on the same propensity replicates.

        Returns
        -------
        DataFrame
            A row an estimator: mean bias of each arm over the replicates and net of one another; root mean squared net
            bias "RMS net"; the expected ATE "risk", which is "squared mean" plus "variance" over the replicates; and
            the "correlation" of the arms' biases: the nearer to 1, the more of them cancels.

        Notes
        -----
        The biases are those of section 2 of the explanation of the method, in units of the outcome. The replicates are
        those of the fit; for an estimator that draws none, those JRE would have drawn with the same seed. AIPW has
        subtracted the biases under the fitted score, so that what is left is how they vary with it.
        """
        record, fit = self._record, self._weight_fit
        joint = joint_of(record, fit)
        return risk_table(estimator_biases(record, fit, joint), joint.fit.slopes, record.design.labels)

    def penalty_path(self, grid: Sequence[float] | None = None) -> pd.DataFrame:
        """Refit JRE under other penalties lambda, on the same replicates (JRE).

        Parameters
        ----------
        grid : sequence of float, optional
            Penalties; by default from none to n^2, with that of the fit.

        Returns
        -------
        DataFrame
            A row a penalty: effect, robust standard error, mean loss of the importance-weighted fit, expected ATE risk
            (and "RMS net", its root), and whether the optimiser converged.

        Notes
        -----
        The risk is that over the replicates. A fit by the objective "adaptive" has its risk at the fitted propensity
        score alone, so it is not on the path, which has its anchor.
        """
        joint, n = self._joint, self._record.sample.total
        own = joint.own_penalty
        chosen = np.r_[0.0, np.geomspace(n / 10, n**2, 9)] if grid is None else np.asarray(grid, dtype=float)
        if grid is None and own is not None and not np.isclose(chosen, own).any():
            chosen = np.sort(np.r_[chosen, own])
        return penalty_path(self._record, self._weight_fit, joint, chosen)

    def influence(self, top: int | None = None, method: str | None = None) -> pd.DataFrame:
        """How much each row moves the effect.

        Parameters
        ----------
        top : int, optional
            Only so many rows, those that move it most first; by default all in their order.
        method : {"exact", "shifted", "influence"}, optional
            "exact" redoes every step without the row, at the anchor of the fit; where JRE is trained over replicates
            ("mse", "erm") those too, the other rows drawn as often as before, and "shifted" moves them as the
            propensity score moves, as the bootstrap does. "influence" is the influence function, for large samples,
            which understates the rows with the most. By default exact up to 5000 rows; with replicates exact up to
            1000, about half a minute, and shifted up to 5000.

        Returns
        -------
        DataFrame
            On the index of the data: arm, "change" (the effect without the row less the effect), "in std errors", and
            "weight share", the share of the weight of its arm.

        Examples
        --------
        >>> import causalrisk as cr
        >>> jobs = cr.datasets.load_lalonde()
        >>> res = cr.IPWRA.from_formula("re78 ~ age + educ + re75", jobs, treat="treat").fit()
        >>> changes = res.influence()["change"]
        >>> bool((changes.abs() > res.effect_se).any())
        False
        """
        record = self._record
        replicated = record.joint is not None and not record.joint.criterion.fitted
        one_of("method", method, (None, "exact", *(("shifted",) if replicated else ()), "influence"))
        design, fit = record.design, record.propensity if record.spec.uses_propensity else None
        chosen = method or _influence_method(design.n, replicated)
        change, se = effect_changes(record, chosen), np.sqrt(record.covariance[0, 0])
        weight = design.weights * (1.0 if fit is None else record.sample.restore(fit.undivided))
        frame = pd.DataFrame(
            {
                "arm": np.array(design.labels)[design.arm],
                "change": change,
                "in std errors": change / se if se > 0 else np.nan,
                "weight share": weight / np.bincount(design.arm, weight)[design.arm],
            },
            index=design.index,
        )
        if top is None:
            return frame
        whole_number("top", top, 1)
        return frame.iloc[np.argsort(-frame["change"].abs().fillna(np.inf).to_numpy(), kind="stable")[:top]]

    @property
    def _quick_influence(self) -> str:
        """How a page of many diagnostics computes the influence of the rows."""
        classifier = self._record.options.propensity_score is not None
        return "exact" if self._record.design.n <= QUICK_ROWS and not classifier else "influence"

    def se_decomposition(self) -> pd.DataFrame:
        """Where the robust variance of the effect comes from.

        Returns
        -------
        DataFrame
            Rows "sampling of X" (who is in the sample), "outcome model" (their outcomes, at the fitted score),
            "propensity score" (that it is estimated), twice the covariance of each pair, and "total"; columns
            "variance", "std err" and "share". Estimating the score often lowers the total: its covariance is negative.
        """
        return variance_table(self._record)

    def trim_curve(self, grid: Sequence[Any] = TRIMS) -> pd.DataFrame:
        """Effect and robust standard error as rows are trimmed by their propensity score.

        Parameters
        ----------
        grid : sequence
            Limits: a number a keeps scores in [a, 1 - a], a pair (low, high) those between, "crump" the limits that
            minimise the variance, 0 everybody.

        Returns
        -------
        DataFrame
            A row for each limits: the estimand (trimming changes the population it is about), rows kept, effect,
            standard error, and "note" with the warnings of the fit or why there is none.
        """
        return trim_curve(self._record, self.model.design, grid)

    def calibration(self, bins: int = 10) -> pd.DataFrame:
        """Compare propensity scores with how many were treated, in bins of rows with similar scores.

        Parameters
        ----------
        bins : int, default 10
            Number of bins, of equal size.

        Returns
        -------
        DataFrame
            A row a bin: rows, mean score "predicted", share treated "observed", and the "std err" of the latter; with
            several arms a block for each but the reference. Every row counts once, or as often as its frequency weight.
        """
        whole_number("bins", bins, 1)
        design, scores, rows = self._record.design, self._scores(), self._counted()
        size = max(len(rows) // bins, 1)
        tables = {}
        for a, label in enumerate(design.labels[1:], start=1):
            found = calibration_bins(scores[a, rows], (design.arm == a)[rows].astype(float), size)
            error = np.sqrt(found.observed * (1 - found.observed) / found.n)
            columns = {"n": found.n, "predicted": found.predicted, "observed": found.observed, "std err": error}
            tables[label] = pd.DataFrame(columns, index=pd.RangeIndex(1, len(found.n) + 1, name="bin"))
        return next(iter(tables.values())) if len(tables) == 1 else pd.concat(tables, names=["arm", "bin"])

    def calibration_error(self, bins: int = 10) -> pd.Series:
        """Root mean squared gap between score and share treated over the bins of `calibration`, a row an arm."""
        whole_number("bins", bins, 1)
        design, scores, rows = self._record.design, self._scores(), self._counted()
        size = max(len(rows) // bins, 1)
        values = [
            calibration_error(scores[a, rows], (design.arm == a)[rows].astype(float), size=size)
            for a in range(1, design.n_arms)
        ]
        return pd.Series(values, index=pd.Index(design.labels[1:], name="arm"), name="calibration error")


def _influence_method(n: int, replicated: bool) -> str:
    """Return how the influence of n rows is computed unless it is said."""
    if n <= (QUICK_ROWS if replicated else EXACT_ROWS):
        return "exact"
    return "shifted" if replicated and n <= EXACT_ROWS else "influence"
