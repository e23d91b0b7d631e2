"""The estimators, each a class of model; and what they are called."""

from __future__ import annotations

from typing import Any

from causalrisk.errors import OptionError, check_distinct, listed
from causalrisk.errors.aliases import answer, near
from causalrisk.estimation import specification
from causalrisk.estimation.abilities import ABILITIES
from causalrisk.estimation.options import Method, Objective
from causalrisk.estimation.record import FitRecord
from causalrisk.estimation.specification import QUANTILE
from causalrisk.inference.covariance import start_record
from causalrisk.models.model import CausalModel
from causalrisk.models.results import CausalResults, JREResults, MatchingResults


class OutcomeRegression(CausalModel):
    """Outcome regression: a model of the outcome in each arm, averaged over everybody.

    Examples
    --------
    >>> from causalrisk import OutcomeRegression, datasets
    >>> births = datasets.load_cattaneo2()
    >>> OutcomeRegression.from_formula(
    ...     "bweight ~ mage + medu", births, treat="mbsmoke"
    ... ).fit()
    OutcomeRegression: ATE -261.58 (23.85), 1 vs 0, n 4642
    """

    spec = specification.OUTCOME_REGRESSION


class Hajek(CausalModel):
    """Normalised inverse probability weighting: weighted means, whatever covariates the outcome formula names.

    Examples
    --------
    >>> from causalrisk import Hajek, datasets
    >>> births = datasets.load_cattaneo2()
    >>> Hajek.from_formula(
    ...     "bweight ~ 1", births, treat="mbsmoke", propensity="mage + medu"
    ... ).fit()
    Hajek: ATE -262.98 (22.81), 1 vs 0, n 4642
    """

    spec = specification.HAJEK


IPW = Hajek


class IPWRA(CausalModel):
    """Inverse probability weighted regression adjustment: each arm's regression under importance weights.

    Examples
    --------
    >>> from causalrisk import IPWRA, datasets
    >>> births = datasets.load_cattaneo2()
    >>> IPWRA.from_formula("bweight ~ mage + medu", births, treat="mbsmoke").fit()
    IPWRA: ATE -256.86 (24.38), 1 vs 0, n 4642
    """

    spec = specification.IPWRA


class AIPW(CausalModel):
    """Augmented inverse probability weighting: outcome regression less its estimated bias in each arm.

    Parameters
    ----------
    normalize : bool, default False
        Whether the weights of the residuals add up to one in each group, which helps with large weights.
    outcome_predictions : list of str or array_like, or matrix, optional
        Predictions of the outcome in each group, the reference first, in the place of outcome models: columns of the
        data or arrays, such as ``["m0", "m1"]``, or a frame whose columns are the levels. With `did` they are of the
        change. The standard errors take them as given, so they should be cross-fitted.
    **options
        Options of `from_formula`.

    Examples
    --------
    >>> from causalrisk import AIPW, datasets
    >>> births = datasets.load_cattaneo2()
    >>> AIPW.from_formula("bweight ~ mage + medu", births, treat="mbsmoke").fit()
    AIPW: ATE -259.51 (24.02), 1 vs 0, n 4642
    """

    spec = specification.AIPW


class TMLE(CausalModel):
    """Targeted maximum likelihood: outcome regression, shifted in each arm until its weighted residuals are zero.

    The shift is a constant in the linear predictor, fitted to the arm under the importance weights [1]_ [2]_. So the
    means stay inside the range of the family: use ``family="binomial"`` for an outcome between 0 and 1. With a linear
    model the estimate is that of AIPW with normalised weights.

    Parameters
    ----------
    outcome_predictions : list of str or array_like, or matrix, optional
        As in `AIPW`; the shift is of these.
    **options
        Options of `from_formula`.

    References
    ----------
    .. [1] van der Laan, M. J. and Rubin, D. (2006). Targeted maximum likelihood learning. The International Journal of
       Biostatistics 2(1).
    .. [2] Gruber, S. and van der Laan, M. J. (2012). tmle: an R package for targeted maximum likelihood estimation.
       Journal of Statistical Software 51(13), 1-35.

    Examples
    --------
    >>> from causalrisk import TMLE, datasets
    >>> births = datasets.load_cattaneo2()
    >>> TMLE.from_formula(
    ...     "lbweight ~ mage + medu", births, treat="mbsmoke", family="binomial"
    ... ).fit()
    TMLE: ATE 0.06142 (0.01246), 1 vs 0, n 4642
    """

    spec = specification.TMLE


class Matching(CausalModel):
    """Nearest-neighbour matching with replacement.

    Each unit of the target is compared with the mean of its nearest units in the other arm; units that are equally
    near all count. Standard errors are those of [1]_ and [2]_, on the estimated propensity score those of [3]_. The
    bootstrap is not valid [4]_.

    Parameters
    ----------
    n_neighbors : int, default 1
        Matches of each unit; more where distances are equal.
    metric : {"mahalanobis", "inverse_variance", "propensity"}
        Distance: of the columns of the outcome formula, by the inverse of their covariance matrix or of their
        variances, or of the propensity score, for two arms.
    exact : str or list of str, optional
        Variables of the outcome formula that are equal for a unit and its matches.
    caliper : float, optional
        Largest distance of a match, in units of the metric. Units without a match are left out of the target.
    bias_adjust : bool, str or list of str, optional
        Correct for differences between a unit and its matches by a linear regression on all columns of the outcome
        formula, or on the variables that are named [2]_.
    **options
        Options of `from_formula` that need no outcome model.

    References
    ----------
    .. [1] Abadie, A. and Imbens, G. W. (2006). Large sample properties of matching estimators for average treatment
       effects. Econometrica 74, 235-267.
    .. [2] Abadie, A. and Imbens, G. W. (2011). Bias-corrected matching estimators for average treatment effects.
       Journal of Business and Economic Statistics 29, 1-11.
    .. [3] Abadie, A. and Imbens, G. W. (2016). Matching on the estimated propensity score. Econometrica 84, 781-807.
    .. [4] Abadie, A. and Imbens, G. W. (2008). On the failure of the bootstrap for matching estimators. Econometrica
       76, 1537-1557.

    Examples
    --------
    >>> from causalrisk import Matching, datasets
    >>> births = datasets.load_cattaneo2()
    >>> Matching.from_formula(
    ...     "bweight ~ mmarried + mage + fage + medu + prenatal1",
    ...     births,
    ...     treat="mbsmoke",
    ... ).fit()
    Matching: ATE -210.54 (29.33), 1 vs 0, n 4642
    """

    spec = specification.MATCHING

    def _results(self, record: FitRecord) -> CausalResults:
        return MatchingResults(self, record)


class JRE(CausalModel):
    """The Joint Robust Estimator: all arms' outcome models trained together for the least error of the effect.

    Among fits without net bias at the fitted propensity score, it is the one whose effect has the least variance,
    shrunk toward IPWRA as far as cross-validation says. It is consistent if either the propensity model or the outcome
    model is correctly specified.

    Notes
    -----
    The net bias is the bias of one arm's model less that of the other's. The idea is that of [1]_: only it enters the
    effect, so the arms are trained for it, over a distribution of propensity scores. By default they minimise the
    expected ATE risk, squared net bias plus sampling variance of the effect, over scores that vary half as much as
    sampling makes them. The net bias at the fitted score is zero, and the distance to IPWRA is penalised. The effect
    heterogeneity that the IPWRA start finds is taken out of the variance, as far as it is not noise; that makes JRE
    doubly robust. ``objective="erm"`` adds a penalty on the squared net bias to the importance-weighted fit, both
    averaged over scores that vary as much as sampling makes them.

    Read the effect. Report IPWRA's (`start`) beside it, with the standard error of the difference on the same
    resamples. JRE is no remedy for poor overlap, and its arm means, coefficients and predictions are not to be read.

    References
    ----------
    .. [1] Zhang, A. (2025). Causal Inference as Distribution Adaptation: Optimizing ATE Risk under Propensity
       Uncertainty. arXiv:2512.18083.

    Examples
    --------
    >>> from causalrisk import JRE, datasets
    >>> births = datasets.load_cattaneo2()
    >>> res = JRE.from_formula("bweight ~ mage + medu", births, treat="mbsmoke").fit(
    ...     n_boot=99
    ... )
    >>> res
    JRE: ATE -256.07 (26.73), 1 vs 0, n 4642
    """

    spec = specification.JRE

    def fit(
        self,
        *,
        objective: Objective = "risk",
        anchor: float | None = None,
        share: float | None = None,
        penalty: float | None = None,
        n_replicates: int | None = None,
        spread: float | None = None,
        replicates: Any = None,
        method: Method | None = None,
        shrinkage: float | None = None,
        join_score: bool | None = None,
        **others: Any,
    ) -> CausalResults:
        """Estimate the effect.

        Parameters
        ----------
        objective : {"risk", "erm"}
            "risk": the expected ATE risk over the propensity replicates, squared net bias plus sampling variance, and
            `shrinkage` times the importance-weighted fit, with no net bias at the fitted score. "erm": the
            importance-weighted fit plus a penalty times the squared net bias, both averaged over the replicates, as in
            the paper of the class.
        shrinkage : float, optional
            Weight of the importance-weighted fit ("risk" only): the larger, the nearer to IPWRA. By default chosen
            between 30 and 0.03 by ten-fold cross-validation, and raised where the robust variance is
            clearly above IPWRA's (`res.joint.path`).
        anchor : float, optional
            Another name of `shrinkage`.
        join_score : bool, optional
            Whether the linear predictor of the propensity score is a further outcome column ("risk" only). By default
            it is where the outcome formula lacks columns of the score and a robust Wald test finds that this matters.
        share : float, optional
            Share c, from 0 to 1, of the effect heterogeneity of the IPWRA fit that the risk leaves out of the sampling
            variance ("risk" only): what of it does not depend on the weights. By default what is real of it, one less
            twice its sampling variance, so that the estimator is consistent if either model is right; 0 keeps all.
        penalty : float, optional
            Weight lambda of the squared net bias ("erm" only); by default the squared number of units.
        n_replicates : int, optional
            Propensity replicates, B: refits of the propensity model under fractional random weights; by default 200 for
            "risk" and 500 for "erm", and from 5,000 units on, with Q coefficients, the 2 Q points of a normal
            distribution where these are fewer.
        spread : float, optional
            Spread of the replicates relative to sampling; by default 0.5 for "risk" and 1 for "erm".
        replicates : array_like, shape (n, B), optional
            Weights of the replicates to use in place of random ones, whole or fractional, rows as in the estimation
            sample; folds and resamples have these replicates too, about their own score. Weight of a row there: with
            frequency weights the total of the equal rows it stands for, of mean about its weight; else about 1, and
            probability weights are multiplied in by the fit.
        method : str, optional
            A method of `scipy.optimize.minimize`, which begins at IPWRA; by default "trust-exact".
        **others
            Options of `IPWRA.fit`; by default `cov_type` is "bootstrap". Where more than `max_failed` of the resamples
            fail and `bootstrap` was not given, a warning says so and standard errors are from "bayesian": fractional
            weights as for the replicates, none of which is zero, so no resample separates unless the sample does. If
            too many of these fail, standard errors are from "multiplier", which refits nothing.

        Returns
        -------
        CausalResults
            The results; `start` holds the IPWRA results.

        Raises
        ------
        SeparationError, BootstrapError, OptionError
            As in `IPWRA.fit`.
        """
        given = {
            "objective": objective, "anchor": anchor, "share": share, "penalty": penalty,
            "n_replicates": n_replicates, "spread": spread, "replicates": replicates, "method": method,
            "shrinkage": shrinkage, "join_score": join_score,
        }  # fmt: skip
        return self._fit(given | others)

    def _results(self, record: FitRecord) -> CausalResults:
        start = CausalResults(IPWRA._of(self.design, self.options), start_record(record))
        return JREResults(self, record, start)


class Unadjusted(CausalModel):
    """The difference of the arms' raw means, whatever covariates the formulas name."""

    spec = specification.UNADJUSTED


MODELS: tuple[type[CausalModel], ...] = (Unadjusted, OutcomeRegression, Hajek, IPWRA, AIPW, TMLE, Matching, JRE)
BY_NAME = {model.spec.name: model for model in MODELS}
ALIASES = {"IPW": Hajek}
WHERE_NAMED = ("TMLE", "Matching")  # the estimators that a comparison has only where they are named


def results_of(record: FitRecord) -> CausalResults:
    """Return the results of a record, with a model of its own."""
    return BY_NAME[record.spec.name]._of(record.full_design, record.options)._results(record)


def model_named(given: Any) -> type[CausalModel]:
    """Return the class of an estimator by its name or by another name for it; an OptionError names the nearest."""
    if isinstance(given, type) and issubclass(given, CausalModel):
        return given
    word = str(given).casefold()
    for name, model in (BY_NAME | ALIASES).items():
        if word in (name.casefold(), *model.spec.aliases):
            return model
    why = answer("package", str(given)) or near(str(given), BY_NAME) or "Use one of them."
    raise OptionError(f"estimator {given!r} is not known; expected one of {listed(tuple(BY_NAME))}.\n{why}")


def chosen_models(estimators: Any, effect: Any = None) -> list[type[CausalModel]]:
    """Return the model classes that were named, by default all that have the effect and resamples."""
    needed = {("cov_type", "bootstrap")} | ({("effect", effect)} if effect == QUANTILE.name else set())
    rows = {name: ABILITIES.get(name, {}) for name in BY_NAME if name not in WHERE_NAMED}
    having = [name for name, row in rows.items() if all(value in row.get(option, ()) for option, value in needed)]
    given = [estimators] if isinstance(estimators, type) else having if estimators is None else estimators
    given = given.split() if isinstance(given, str) else list(given)
    models = [model_named(item) for item in given]
    check_distinct("estimators", [model.spec.name for model in models])
    return models
