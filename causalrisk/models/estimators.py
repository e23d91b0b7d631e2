"""The estimators, one model class each, and their names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from causalrisk.errors import OptionError, check_distinct, listed, with_other_names
from causalrisk.errors.aliases import answer, near
from causalrisk.estimation import specification
from causalrisk.estimation.abilities import ABILITIES
from causalrisk.estimation.options import Method, Objective
from causalrisk.estimation.record import FitRecord
from causalrisk.inference.covariance import start_record
from causalrisk.models.model import CausalModel
from causalrisk.models.results import CausalResults, JREResults


class OutcomeRegression(CausalModel):
    """Outcome regression: predictions of each treatment group's outcome model, averaged over the target.

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


class IPW(CausalModel):
    """Inverse probability weighting: weighted means, without an outcome model.

    The weights are normalised to add up to one in each treatment group [1]_. `Hajek` is the same class.

    References
    ----------
    .. [1] Hajek, J. (1971). Comment on a paper by D. Basu. In Godambe and Sprott (eds.), Foundations of Statistical
       Inference, 236. Holt, Rinehart and Winston.

    Examples
    --------
    >>> from causalrisk import IPW, datasets
    >>> births = datasets.load_cattaneo2()
    >>> IPW.from_formula(
    ...     "bweight ~ 1", births, treat="mbsmoke", propensity="mage + medu"
    ... ).fit()
    IPW: ATE -262.98 (22.81), 1 vs 0, n 4642
    """

    spec = specification.IPW


Hajek = IPW


class IPWRA(CausalModel):
    """Inverse probability weighted regression adjustment: outcome regressions weighted by the importance weights.

    Examples
    --------
    >>> from causalrisk import IPWRA, datasets
    >>> births = datasets.load_cattaneo2()
    >>> IPWRA.from_formula("bweight ~ mage + medu", births, treat="mbsmoke").fit()
    IPWRA: ATE -256.86 (24.38), 1 vs 0, n 4642
    """

    spec = specification.IPWRA


class AIPW(CausalModel):
    """Augmented inverse probability weighting: outcome regression plus each group's weighted mean residual.

    The influence function of the mean mu_a of treatment group a is [t (m_a - mu_a) + 1(A = a) w (Y - m_a)] / mean(t),
    plus terms for the estimated coefficients. Here m_a is the predicted outcome, t the weight of the row in the target
    population, and w the importance weight. For the ATE, t = 1 and w = 1 / e_a, with e_a the probability of group a.

    Parameters
    ----------
    normalize : bool, default False
        Whether the weights of the residuals add up to one in each treatment group. This makes the estimate more stable
        if some weights are large. With `did`, use `DiD(normalize=)`, whose default is True.
    outcome_predictions : list of str or array_like, or matrix, optional
        Predicted outcomes of each row under each treatment. They replace the outcome models. Give a list with one
        column name or array per treatment group, such as ``["m0", "m1"]``, the reference group first. Or give a data
        frame with one column per treatment level. With `did`, predict the change. Standard errors ignore the sampling
        error of the predictions, so use cross-fitted predictions.
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
    """Targeted maximum likelihood: outcome regression, shifted until each group's weighted mean residual is zero.

    The shift is a constant in the linear predictor, fitted to the rows of the treatment group with the importance
    weights [1]_ [2]_. The estimated means stay inside the range of the family, so use ``family="binomial"`` for an
    outcome between 0 and 1. With a linear outcome model, TMLE equals ``AIPW`` with ``normalize=True``.

    Parameters
    ----------
    outcome_predictions : list of str or array_like, or matrix, optional
        As in `AIPW`. The shift is applied to these predictions.
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

    Each unit of the target is compared with the mean of its nearest units in the other treatment group. Units tied at
    the same distance all count as matches. Standard errors follow [1]_ and [2]_, or [3]_ if units are matched on the
    estimated propensity score. The bootstrap is not valid [4]_.

    Parameters
    ----------
    n_neighbors : int, default 1
        Number of matches per unit. Ties can give a unit more matches.
    metric : {"mahalanobis", "inverse_variance", "propensity"}
        Distance between two units. "mahalanobis" and "inverse_variance" compare the columns of the outcome formula,
        scaled by their covariance matrix or by their variances. "propensity" compares propensity scores (two groups
        only).
    exact : str or list of str, optional
        Variables of the outcome formula that must be equal for a unit and its matches.
    caliper : float, optional
        Largest distance allowed between a unit and its match, in units of the metric. Units without a match are dropped
        from the target population.
    bias_adjust : bool, str or list of str, optional
        Whether to correct for covariate differences between a unit and its matches by linear regression [2]_. True uses
        all columns of the outcome formula. Names restrict the correction to these variables.
    **options
        Options of `from_formula`, except options of outcome models.

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


class JRE(CausalModel):
    """The Joint Robust Estimator: outcome models of all groups, fitted jointly for a small error of the effect.

    JRE minimises the expected squared error of the effect plus a penalty on the distance from IPWRA (see Notes).
    Cross-validation chooses the weight of the penalty, called the shrinkage. JRE is consistent if either the propensity
    model or the outcome model is correctly specified.

    Notes
    -----
    The net bias is the bias of one group's outcome model minus the bias of the other group's model. Only the net bias
    enters the effect, so the models are fitted jointly [1]_. Because the propensity score is estimated, the criterion
    is averaged over random draws of the score (replicates).

    By default, JRE minimises the expected ATE risk: the squared net bias plus the sampling variance of the effect. The
    standard deviation of the replicates is half the standard error of the score. The net bias is constrained to zero at
    the estimated score. Heterogeneity of the effect adds to the sampling variance. JRE estimates it by IPWRA and
    excludes the share that is not noise (see `share` in `fit`). This makes JRE doubly robust.

    ``objective="erm"`` instead minimises the importance-weighted loss plus n^2 / 2 times the squared net bias. The
    standard deviation of the replicates is then the standard error of the score.

    Interpret only the effect, not the group means, coefficients or predictions. Report IPWRA's effect (`start`) too,
    and the difference of the two effects with its standard error (`start_difference`). JRE does not fix poor overlap.

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

    @with_other_names
    def fit(
        self,
        *,
        objective: Objective = "risk",
        share: float | None = None,
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
            "risk" (default): minimise n / 2 times the mean ATE risk over the propensity replicates, plus `shrinkage`
            times the importance-weighted loss. The ATE risk is the squared net bias plus the sampling variance of the
            effect. The net bias, the bias of one group's model minus the bias of the other group's, is constrained to
            zero at the estimated score. The replicates are random draws of the score (see `n_replicates`).
            "erm": minimise the importance-weighted loss plus n^2 / 2 times the squared net bias, both averaged over the
            replicates.
        shrinkage : float, optional
            Weight of the importance-weighted loss ("risk" only). A larger weight moves the estimate closer to IPWRA. By
            default, ten-fold cross-validation chooses a weight between 0.03 and 30. The weight is then raised, even
            above 30, while JRE's robust variance clearly exceeds IPWRA's (see `res.joint.path`).
        join_score : bool, optional
            Whether to add the linear predictor of the propensity score to the outcome models as a column ("risk" only).
            By default it is added if the outcome formula lacks columns of the propensity formula, and these columns are
            significant in a robust Wald test.
        share : float, optional
            Share of IPWRA's estimated effect heterogeneity to exclude from the sampling variance ("risk" only). The
            default is 1 - 2 N / S, or 0 if this is negative. S is the sum of squared deviations of the units' effects
            from their mean, and N is the part of S due to sampling error. The default is a cautious estimate of the
            share that is not noise, and makes JRE doubly robust.
        n_replicates : int, optional
            Number B of propensity replicates, which are refits of the propensity model with fractional random weights.
            By default 200 for "risk" and 500 for "erm". With at least 5,000 units and Q propensity coefficients, the
            default is 2Q fixed points that represent a normal distribution, if 2Q < B.
        spread : float, optional
            Standard deviation of the replicates, relative to the sampling error of the propensity score. By default 0.5
            for "risk" and 1 for "erm".
        replicates : array_like, shape (n, B), optional
            Weights of the replicates, used instead of random weights: one row per row of the sample, one column per
            replicate. The mean of each row should be 1, or its frequency weight. `fit` multiplies these weights by
            probability weights. Each fold or resample centres the same replicates at its own estimated score.
        method : str, optional
            Method of `scipy.optimize.minimize`, by default "trust-exact". The minimisation starts at the IPWRA fit.
        **others
            Options of `IPWRA.fit`; `cov_type` defaults to "bootstrap". If `bootstrap` is not given and more than
            `max_failed` of the resamples fail, the "bayesian" bootstrap is used instead, with a warning. Its weights
            are never zero, so resamples have perfect separation only if the sample has it. If too many of its resamples
            fail too, the "multiplier" bootstrap is used.

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
            "objective": objective, "shrinkage": shrinkage, "share": share, "join_score": join_score,
            "n_replicates": n_replicates, "spread": spread, "replicates": replicates, "method": method,
        }  # fmt: skip
        return self._fit(given | others)

    def _results(self, record: FitRecord) -> CausalResults:
        start = CausalResults(IPWRA._of(self.design, self.options), start_record(record))
        return JREResults(self, record, start)


class Unadjusted(CausalModel):
    """The difference of the treatment groups' raw means. Covariates are ignored.

    Examples
    --------
    >>> from causalrisk import Unadjusted, datasets
    >>> births = datasets.load_cattaneo2()
    >>> Unadjusted.from_formula("bweight ~ 1", births, treat="mbsmoke").fit()
    Unadjusted: ATE -275.25 (21.21), 1 vs 0, n 4642
    """

    spec = specification.UNADJUSTED


MODELS: tuple[type[CausalModel], ...] = (Unadjusted, OutcomeRegression, IPW, IPWRA, AIPW, TMLE, Matching, JRE)
BY_NAME = {model.spec.name: model for model in MODELS}
USUAL = [spec.name for spec in (*specification.SEPARATE, specification.JRE)]  # estimators to compare by default


def results_of(record: FitRecord) -> CausalResults:
    """Return the results for a fit, with a new model object."""
    return BY_NAME[record.spec.name]._of(record.full_design, record.options)._results(record)


def model_named(given: Any, among: Iterable[str] | None = None, resampled: bool = False) -> type[CausalModel]:
    """Return the class of an estimator in `among`, given its name or alias. Other names raise an error."""
    known = BY_NAME if among is None else {name: BY_NAME[name] for name in among}
    if isinstance(given, type) and issubclass(given, CausalModel) and (among is None or given.spec.name in known):
        return given
    if isinstance(given, CausalModel | CausalResults):
        name = type(getattr(given, "model", given)).__name__
        found = f"estimators= has an object of type {type(given).__name__}; expected names of estimators"
        raise OptionError(f'{found}.\nUse `estimators=["{name}"]`, or `etable([res1, res2])` for fits.')
    word = str(given).casefold()
    for name, model in known.items():
        if word in (name.casefold(), *model.spec.aliases):
            return model
    offered = tuple(name for name in known if not (resampled and known[name].spec.matched))
    why = answer("package", str(given)) or near(str(given), offered) or 'Use `"IPWRA"` or another of these names.'
    raise OptionError(f"estimator {given!r} is not known; expected one of {listed(offered)}.\n{why}")


def chosen_models(estimators: Any, effect: Any = None) -> list[type[CausalModel]]:
    """Return the named model classes. The default is all usual ones that support the effect."""
    quantiles = effect == specification.QUANTILE.name
    usual = [name for name in USUAL if not quantiles or effect in ABILITIES[name]["effect"]]
    given = usual if estimators is None else estimators.split() if isinstance(estimators, str) else estimators
    models = [model_named(item, resampled=True) for item in (given if isinstance(given, Iterable) else [given])]
    check_distinct("estimators", [model.spec.name for model in models])
    return models
