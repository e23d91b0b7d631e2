"""Model classes, which take formulas or arrays and return results. They only combine the other modules."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from operator import attrgetter
from types import SimpleNamespace
from typing import Any, ClassVar, Self

from causalrisk.design.build import design_from_arrays, design_from_formula
from causalrisk.design.covariates import clustered
from causalrisk.design.design import Design
from causalrisk.design.did import DiD, with_change
from causalrisk.design.formulas import callers_variables
from causalrisk.design.on_disk import design_from_scan
from causalrisk.design.rows import ColumnOptions
from causalrisk.design.scan import Scan, as_scan
from causalrisk.design.support import Rules
from causalrisk.design.survey import Survey
from causalrisk.design.treatment import is_classifier
from causalrisk.errors import BootstrapError, OptionError, UnavailableError, not_on_disk, read, with_other_names
from causalrisk.errors.aliases import attribute
from causalrisk.estimation import options as kinds
from causalrisk.estimation.abilities import check_options
from causalrisk.estimation.fit import fit_estimator
from causalrisk.estimation.record import FitRecord
from causalrisk.estimation.specification import Specification, parameter_names
from causalrisk.inference import covariance, fitted_models
from causalrisk.models.results import CausalResults, JREResults, stamped
from causalrisk.runtime import one_blas_thread

OF_RESULTS_ONLY = frozenset(dir(JREResults)) | {"params", "nobs"}
OPTIONS = {"treat": None, "propensity": None, "smooth": False} | kinds.defaults_of(ColumnOptions, kinds.ModelOptions)
del OPTIONS["repeat"], OPTIONS["read_as"], OPTIONS["typed"]  # not options of the caller
OF_FORMULAS = ("treat", "propensity", "observed", "did")  # options that arrays do not have
FIT_OPTIONS = {"cov_kwds": None} | kinds.defaults_of(kinds.InferenceOptions)
JRE_OPTIONS = kinds.defaults_of(kinds.JREOptions)


class CausalModel:
    """A treatment effect model: the base class of all estimators.

    Parameters
    ----------
    endog : array_like, shape (n,)
        Outcome.
    exog : array_like, shape (n, p)
        Covariates of the outcome models. No constant is added. A missing constant triggers a warning.
    treat : array_like, shape (n,)
        Treatment.
    exog_propensity : array_like, shape (n, q), optional
        Covariates of the propensity model; by default `exog`.
    **options
        Options of `from_formula`.

    Attributes
    ----------
    design : Design
        The data on the estimation sample.
    options : ModelOptions
        Options of the models and the estimand.
    """

    spec: ClassVar[Specification]
    design: Design
    options: kinds.ModelOptions

    @classmethod
    @with_other_names
    def from_formula(
        cls,
        formula: str,
        data: Any = None,
        treat: Any = None,
        *,
        propensity: str | None = None,
        family: kinds.Family = "gaussian",
        link: kinds.OutcomeLink | None = None,
        propensity_link: kinds.PropensityLink = "logit",
        propensity_loss: kinds.PropensityLoss = "ml",
        propensity_score: Any = None,
        learner: kinds.Learners | None = None,
        smooth: bool = False,
        learner_use: kinds.LearnerUse | None = None,
        n_folds: int = 5,
        n_repeats: int = 1,
        target: Any = None,
        treated: Any = None,
        reference: Any = None,
        levels: Mapping[Any, str] | None = None,
        weights: Any = None,
        weight_type: kinds.WeightType | None = None,
        cluster: Any = None,
        offset: Any = None,
        exposure: Any = None,
        at_exposure: Any = None,
        trim: kinds.Trim | Sequence[float] | None = None,
        clip: Sequence[float] | None = None,
        effect: kinds.Scale = "difference",
        quantiles: float | Sequence[float] | None = None,
        design: Survey | None = None,
        subpop: Any = None,
        did: DiD | None = None,
        observed: str | None = None,
        missing: kinds.Missing = "drop",
        **others: Any,
    ) -> Self:
        """Make a model from formulas.

        Parameters
        ----------
        formula : str
            Outcome formula, such as "y ~ x1 + x2". The treatment does not appear in it.
        data : DataFrame, mapping of columns or Scan, optional
            A pandas, polars, pyarrow or other data frame. By default, the caller's variables are used. For files that
            do not fit into memory, use `causalrisk.scan`. Dask data frames and Arrow datasets are scanned too.
        treat : str or array_like
            Treatment: a column name, or one value per row. A 0/1 or bool treatment needs no other option. Any other
            coding needs `treated` or `reference`. The treatment groups are called arms.
        propensity : str, optional
            Propensity formula, one-sided ("x1 + x3") or with the treatment on the left. By default, the right-hand
            side of the outcome formula.
        family : {"gaussian", "binomial", "poisson", "gamma", "inversegaussian"} or statsmodels family
            Outcome family, such as ``sm.families.NegativeBinomial(alpha=0.5)``. With "binomial", outcomes may also be
            fractions between 0 and 1.
        link : str, optional
            Outcome link: "identity" (default) or "log" for "gaussian", "logit" (default), "probit" or "cloglog" for
            "binomial", and "log" for the other families.
        propensity_link : {"logit", "probit", "cloglog"}
            Propensity link. With several arms, the model is a multinomial logit.
        propensity_loss : {"ml", "calibrated"}
            "ml" (default): maximum likelihood.
            "calibrated": calibrated estimation, which balances the weighted covariates exactly (Tan 2020). Each arm has
            its own coefficients, except the target arm of the ATT or ATC.
        propensity_score : str, array_like, float, dict or classifier, optional
            Known probability of treatment, or a classifier that estimates it. With several arms, give one column per
            arm. If the probability is the same in all rows, give a number, or a dict with one number per level. A
            classifier, with `fit` and `predict_proba`, is cross-fitted on the columns of the propensity formula, in
            folds that keep clusters together.
        learner : {"smooth", "hist-gradient-boosting", "random-forest", "lasso"}, learner, dict or list, optional
            Machine learner that predicts the outcome in each arm. It is cross-fitted on the terms of the outcome
            formula. Give a name; an object with `fit` and `predict` (or `predict_proba` for a 0/1 outcome), as in
            scikit-learn; a dict with one learner per arm label; or a list of learners. "smooth" is ridge regression on
            splines and products of the covariates. It needs no other package, and is the only learner for scanned data.
            The other names stand for scikit-learn models.
        smooth : bool, default False
            Short for ``learner="smooth"``.
        learner_use : {"terms", "replace", "stack"}, optional
            "terms" (default of OutcomeRegression and IPWRA): the predictions for all arms are added to each outcome
            model as terms.
            "replace" (default of AIPW and TMLE): the predictions replace the outcome models. AIPW is then the
            interactive regression model of double machine learning.
            "stack" (default of JRE): a weighted average of three fits: JRE on the formula, JRE with the predictions as
            terms, and AIPW with the predictions. The weights minimise the variance of the effect plus a penalty on
            unequal weights. The second fit is left out if the smallest arm has fewer than six observations per column
            of the outcome formula.
        n_folds : int, default 5
            Number of folds for learners and classifiers. With 1, learners predict the rows that they are fitted to.
        n_repeats : int, default 1
            Odd number of fits, each with different folds. The fit with the median effect is returned. Its standard
            errors account for the choice of folds.
        target : {"all", "treated", "control", "overlap", "matching", "entropy"}, level, DataFrame or callable
            Target population. The default is "all", or "treated" with `did`. "ATE", "ATT", "ATC", "ATO", "ATM" and
            "ATEN" are other names of the six populations, in upper or lower case.
            A treatment level: the rows with that level (for the ATT with several arms).
            A DataFrame: a sample of another population, with the same covariates. The weights are from a logit model
            that predicts membership in that sample from the covariates of the propensity formula.
            A function of the propensity score that returns the weight of each row in the target population, such as
            ``lambda e: (e > 0.1) * 1.0``.
        treated, reference : level, optional
            The level that is treated, or the level that the others are compared with.
        levels : mapping, optional
            Printed label of each treatment level.
        weights : str or array_like, optional
            Observation weights.
        weight_type : {"frequency", "probability"}, optional
            Meaning of the weights; required with `weights`.
        cluster : str, array_like, or list of two of them, optional
            Cluster variable. Standard errors account for clusters, and resamples and folds keep them together. Two
            variables give two-way clustered standard errors, folds by the first variable, and no bootstrap.
        offset : str or array_like, optional
            Known part of the linear predictor of the outcome models, under any link. The means are averages at the
            observed offsets.
        exposure : str or array_like, optional
            Time or amount for which each unit was observed. It needs a log link; its logarithm is the offset.
        at_exposure : float or "observed", optional
            Exposure at which the arm means are computed. The default, 1, gives rates per unit of `exposure`. With
            "observed", each unit keeps its own exposure. AIPW, TMLE and JRE need "observed", because they use residuals
            of observed outcomes. Unadjusted and IPW estimate one rate per arm. With "poisson", the rate is the weighted
            sum of outcomes divided by the weighted sum of exposures.
        trim : {"crump", "separated"} or tuple of float, optional
            Rows to drop because of their propensity scores. This changes the target population. The models are refitted
            to the remaining rows, and the bootstrap resamples only these rows.
            (low, high): drop rows with a score outside these limits; with several arms, with any score outside.
            "crump": drop rows with a score outside the limits that minimise the variance; with several arms, rows with
            a large sum of inverse scores.
            "separated": drop rows whose treatment the propensity model predicts perfectly.
        clip : tuple of float, optional
            Limits to which propensity scores are clipped. With several arms, each arm's score is clipped separately.
        effect : {"difference", "ratio", "odds_ratio", "percent", "quantile"}
            "difference" (default): difference of the arm means.
            "ratio": ratio of the arm means.
            "odds_ratio": odds ratio of the arm means.
            "percent": difference in percent of the reference arm's mean.
            "quantile": differences of quantiles of the outcome (Unadjusted, IPW and AIPW only).
        quantiles : float or sequence of float, optional
            Quantile levels for ``effect="quantile"``, between 0 and 1. By default 0.25, 0.5 and 0.75.
        design : Survey, optional
            Survey design for standard errors, degrees of freedom and tests. It replaces `weights` and `cluster`.
        subpop : str or array_like, optional
            Subpopulation of the survey: a column of True and False, a condition such as "age >= 20", or one value per
            row. Rows outside the subpopulation contribute to the variance, so do not delete them yourself.
        did : DiD, optional
            The outcome before the treatment, for difference-in-differences. The outcome models then predict the change.
        observed : str, optional
            For missing outcomes: formula of a logit model of whether the outcome is observed. It may contain the
            treatment d, as in "x1 + d". "(x1 + x2) * d" gives one model per arm. Rows without an outcome stay in the
            sample. They enter the propensity score, the target population and averages of predictions, but not the
            outcome models. Weights are divided by the estimated probability of observation, and standard errors account
            for its estimation. OutcomeRegression and Unadjusted have no weights. They assume that outcomes are missing
            at random in each arm, given the covariates of the outcome formula.
        missing : {"drop", "raise", "indicator"}
            "drop" (default): drop rows with a missing value in a variable of either formula.
            "raise": raise an error if there are such rows.
            "indicator": keep rows in which only covariates are missing. A missing number is replaced by the variable's
            weighted mean in the sample, and a column `<name>_missing` is added. Other covariates get an extra level for
            missing values. This suits randomised trials. In other data, it assumes that the missing values are not
            confounders. It is not available for target frames, arrays and scanned data.
        **others
            Options under their names in other packages, such as ``estimand="ATT"``. A note in the summary reports them.

        Returns
        -------
        CausalModel
            The model; call its `fit`.

        Raises
        ------
        DesignError
            If no model can be fitted to the data with these formulas.
        OptionError
            If an option is unknown, or has a value that is not allowed.
        """
        given = {
            "treat": treat, "propensity": propensity, "family": family, "link": link,
            "propensity_link": propensity_link, "propensity_loss": propensity_loss,
            "propensity_score": propensity_score, "learner": learner, "smooth": smooth, "learner_use": learner_use,
            "n_folds": n_folds, "n_repeats": n_repeats, "target": target, "treated": treated,
            "reference": reference, "levels": levels, "weights": weights, "weight_type": weight_type,
            "cluster": cluster, "offset": offset, "exposure": exposure, "at_exposure": at_exposure, "trim": trim,
            "clip": clip, "effect": effect, "quantiles": quantiles, "design": design, "subpop": subpop, "did": did,
            "observed": observed, "missing": missing,
        }  # fmt: skip
        given, read_as = read("model", given | others, OPTIONS)
        made = design_of(formula, as_scan(data), given, callers_variables(2), [cls.spec])
        typed = {"formula": repr(formula)} | kinds.typed_options(given, OPTIONS)
        return cls._checked(made, kinds.model_options(made, given | {"read_as": read_as, "typed": typed}))

    def __init__(
        self, endog: Any = None, exog: Any = None, treat: Any = None, *, exog_propensity: Any = None, **options: Any
    ) -> None:
        """Make a model from arrays.

        Parameters
        ----------
        endog : array_like, shape (n,)
            Outcome.
        exog : array_like, shape (n, p)
            Covariates of the outcome models. No constant is added. A missing constant triggers a warning.
        treat : array_like, shape (n,)
            Treatment.
        exog_propensity : array_like, shape (n, q), optional
            Covariates of the propensity model; by default `exog`.
        **options
            Options of `from_formula`.
        """
        if isinstance(endog, str) or endog is None or exog is None or treat is None:
            name = type(self).__name__
            use = f'Use `{name}.from_formula("y ~ x1 + x2", data, treat="d")` for a formula.'
            raise OptionError(f"{name}(endog, exog, treat) takes arrays: outcome, covariates and treatment.\n{use}")
        known = {name: value for name, value in OPTIONS.items() if name not in OF_FORMULAS}
        options, read_as = read("model", options, known)
        columns = kinds.options_of(ColumnOptions, {**options, "treat": treat})
        rules = Rules.of(columns, self.spec.constants, scored=self.spec.uses_propensity)
        self.design = design_from_arrays(endog, exog, columns, rules, exog_propensity=exog_propensity)
        typed = kinds.typed_options(options | {"exog_propensity": exog_propensity}, OPTIONS)
        self.options = kinds.model_options(self.design, options | {"read_as": read_as, "typed": typed})
        check_options(self.spec, self.design, self.options)

    @classmethod
    def _checked(cls, design: Design, options: kinds.ModelOptions) -> Self:
        check_options(cls.spec, design, options)
        return cls._of(design, options)

    @classmethod
    def _of(cls, design: Design, options: kinds.ModelOptions) -> Self:
        model = cls.__new__(cls)
        model.design, model.options = design, options
        return model

    def with_options(self, **changes: Any) -> Self:
        """Return a model of the same data with other options.

        Parameters
        ----------
        **changes
            Options of `from_formula` to change, except options that describe the data, such as `weights`.

        Returns
        -------
        CausalModel
            A new model.
        """
        known = [name for name in kinds.defaults_of(kinds.ModelOptions) if name in OPTIONS and name != "did"]
        for name, value in changes.items():
            given_score = name == "propensity_score" and value is not None and not is_classifier(value)
            if name in OPTIONS and (name not in known or given_score):
                raise OptionError(f"`{name}` cannot be changed after construction.\nUse `from_formula` again.")
        changes, read_as = read("model", changes, {name: OPTIONS[name] for name in known})
        typed = {name: text for name, text in self.options.typed.items() if name not in changes}
        typed |= kinds.typed_options(changes, OPTIONS)
        if "target" in changes:
            changes["target"] = kinds.named_target(changes["target"], self.design)
        if "effect" in changes:  # quantile levels belong to the old effect
            changes.setdefault("quantiles", None)
        options = dataclasses.replace(self.options, **changes, read_as=self.options.read_as + read_as, typed=typed)
        return self._checked(self.design, options)

    __reduce__ = stamped

    def __repr__(self) -> str:
        design = self.design
        what = design.formula or f"{design.endog_name} on {', '.join(design.exog_names)}"
        return f"{type(self).__name__}: {what}, {design.treat_name}: {design.contrast}, n {design.nobs}"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or hasattr(type(self), name):
            return object.__getattribute__(self, name)
        if name in OF_RESULTS_ONLY:
            call = "()" if callable(getattr(JREResults, name, None)) else ""
            raise UnavailableError(f"a model has no `{name}`, but its results do.\nUse `model.fit().{name}{call}`.")
        raise UnavailableError(attribute("model attribute", "model", name, dir(self)))

    endog = property(attrgetter("design.y"), doc="Outcome on the estimation sample, shape (n,).")
    exog = property(attrgetter("design.X"), doc="Columns of the outcome models on the estimation sample, shape (n, p).")
    endog_names = property(attrgetter("design.endog_name"), doc="Name of the outcome.")
    formula = property(attrgetter("design.formula"), doc="The outcome formula; None for a model made from arrays.")

    @property
    def exog_names(self) -> list[str]:
        """Names of the columns of the outcome models."""
        return list(self.design.exog_names)

    @property
    def data(self) -> SimpleNamespace:
        """Names of the parameters. statsmodels' `summary_col` reads this attribute."""
        scale = self.options.effect_scale
        return SimpleNamespace(param_names=parameter_names(self.options.estimand, self.design.labels, scale.quantiles))

    @with_other_names
    def fit(
        self,
        *,
        cov_type: kinds.CovType | None = None,
        cov_kwds: Mapping[str, Any] | None = None,
        n_boot: int | None = None,
        bootstrap: kinds.Bootstrap | None = None,
        multiplier: kinds.Multiplier | None = None,
        small_sample: bool = False,
        use_t: bool | None = None,
        df: float | None = None,
        max_failed: float = 0.05,
        rng: Any = 0,
        n_jobs: int = 1,
        progress: bool = False,
        resamples: Any = None,
        **others: Any,
    ) -> CausalResults:
        """Estimate the effect.

        Parameters
        ----------
        cov_type : {"robust", "HC0", "HC1", "cluster", "jackknife", "HC3", "CR3", "bootstrap"}, optional
            "robust" or "HC0": sandwich errors that account for the estimated propensity score and outcome models.
            "HC1": "robust", with variances multiplied by n / (n - k), for k coefficients of the outcome models.
            "cluster": "robust", but rows of one cluster may be correlated.
            "jackknife": repeats every step without each row, or without each cluster, in turn. With G rows or clusters,
            the variance is (G - 1) / G times the sum of squared deviations of the G estimates from their mean. For
            ratios, the deviations are computed on the logarithmic scale.
            "HC3", "CR3": other names of "jackknife", without and with clusters.
            "bootstrap": repeats every step on resamples, except with "multiplier".
            The default is "robust", or "cluster" with clusters. It is "bootstrap" for JRE, or if `n_boot`, `bootstrap`
            or `resamples` is given. With scanned data, the jackknife needs clusters.
        cov_kwds : mapping, optional
            Clusters under the key "groups", as in statsmodels, for a model made without `cluster`. Give the name of a
            variable in the formulas, or one value per row of the data or of the sample. For two-way clusters, give a
            list of two. Missing values raise an error. `res.model` then has these clusters. The key "use_correction"
            is another name of `small_sample`.
        n_boot : int, optional
            Number of resamples, by default 999. If given, standard errors are from the bootstrap.
        bootstrap : {"pairs", "bayesian", "cluster", "stratified", "rescaled", "multiplier"}, optional
            "pairs" (default): draws rows with replacement.
            "cluster" (default with clusters): draws clusters with replacement.
            "stratified": draws rows within each arm.
            "bayesian": gives rows or clusters fractional random weights.
            "rescaled" (default with a survey design): draws first-stage units within strata.
            "multiplier": fast, because nothing is refitted. The influence function of each row or cluster is multiplied
            by a random number with mean 0 and variance 1. Intervals (`conf_int`) and p-values (`boot_pvalues`) are
            from the bootstrap-t.
        multiplier : {"rademacher", "webb", "mammen"}, optional
            Distribution of the random numbers of "multiplier". "rademacher" (default): 1 and -1. "webb": Webb's six
            values, for a dozen clusters or fewer. "mammen": Mammen's two values, which are skewed.
        small_sample : bool, default False
            Whether to multiply variances by the factor of "HC1", also in `effects_by` and `pairwise`. With G clusters,
            the factor is G / (G - 1) (n - 1) / (n - k). With two-way clusters, each of the three variances has its own
            G, as in R's sandwich. R's fixest uses the smallest G.
        use_t : bool, optional
            Whether to use the t distribution instead of the normal, and F instead of chi-squared. The degrees of
            freedom are G - 1 with G clusters, n - 1 for the jackknife, and n - k otherwise, for k coefficients of the
            outcome models. The default is True only with a survey design, which has its own degrees of freedom.
        df : float, optional
            Degrees of freedom, instead of the default of `use_t`. If given, the t distribution is used.
        max_failed : float, default 0.05
            Largest share of resamples that may fail. For the jackknife: largest share of units that cannot be left out,
            because the fit without them fails. If more fail, `fit` raises a BootstrapError (for JRE, see `JRE.fit`).
        rng : int, Generator, SeedSequence or None, default 0
            Seed or source of random numbers. None draws a new seed.
        n_jobs : int, default 1
            Number of threads, or of workers of the joblib backend set by `joblib.parallel_config`; -1 means one per
            processor. Scanned data use threads, or the cluster of a `distributed.Client`. The number does not change
            the results.
        progress : bool, default False
            Whether to show a progress bar on standard error. This needs tqdm. For scanned data, use
            `dask.diagnostics.ProgressBar` instead.
        resamples : array_like, shape (n, n_boot), optional
            Resamples to use instead of random draws. Each column has the number of times that each row is drawn, as in
            ``rng.multinomial(n, np.full(n, 1 / n), size=999).T``. With frequency weights, count the draws of all
            observations that the row represents. `fit` multiplies these numbers by probability weights.
        **others
            Options under their names in other packages, such as ``seed=1``.

        Returns
        -------
        CausalResults
            The results.

        Raises
        ------
        SeparationError
            If the propensity model predicts the treatment of some rows perfectly.
        BootstrapError
            If too many resamples, propensity replicates or jackknife fits fail, a survey replicate weight gives no
            estimate, or a joblib worker dies. `err.results` has the fit with robust standard errors, if any.
        OptionError
            If an option has a value that is not allowed, or two options contradict each other.
        """
        given = {
            "cov_type": cov_type, "cov_kwds": cov_kwds, "n_boot": n_boot, "bootstrap": bootstrap,
            "multiplier": multiplier, "small_sample": small_sample, "use_t": use_t, "df": df,
            "max_failed": max_failed, "rng": rng, "n_jobs": n_jobs, "progress": progress, "resamples": resamples,
        }  # fmt: skip
        return self._fit(given | others)

    @one_blas_thread()
    def _fit(self, options: Mapping[str, Any]) -> CausalResults:
        """Fit once per repeat, each with other folds, and return the results with the median effect."""
        known = FIT_OPTIONS | (JRE_OPTIONS if self.spec.joint else {})
        given, read_as = read("fit", options, known)
        model = self._clustered(given, read_as)
        inference, records = kinds.options_of(kinds.InferenceOptions, given), []
        for repeat in range(self.options.n_repeats):
            chosen = dataclasses.replace(model.options, repeat=repeat) if repeat else model.options
            of_joint = kinds.options_of(kinds.JREOptions, given)
            record = fit_estimator(model.design, model.spec, chosen, inference, of_joint)
            try:
                records.append(covariance.with_covariance(record, inference))
            except BootstrapError as error:
                raise BootstrapError(str(error), model._results(covariance.robust_record(record))) from error.__cause__
        return model._results(records[0] if len(records) == 1 else fitted_models.median_fit(records))

    def _clustered(self, given: dict[str, Any], read_as: tuple[str, ...]) -> Self:
        """Return the model with the clusters of `cov_kwds`, which may also set `small_sample`."""
        found = given.get("cov_kwds")
        options = dataclasses.replace(self.options, read_as=self.options.read_as + read_as)
        if found is None:
            return self._of(self.design, options)
        if not isinstance(found, Mapping) or not {"groups"} <= found.keys() <= {"groups", "use_correction"}:
            expected = "expected a dict with clusters as 'groups' (and 'use_correction')"
            use = 'Use `cov_kwds={"groups": data["id"]}`, or leave cov_kwds= out.'
            raise OptionError(f"cov_kwds={found!r:.60}; {expected}.\n{use}")
        if self.design.on_disk:
            raise not_on_disk("cov_kwds=", use='from_formula(..., cluster="column")')
        given["small_sample"] = bool(found.get("use_correction", given.get("small_sample", False)))
        typed = {**options.typed, **kinds.typed_options({"cluster": found["groups"]}, OPTIONS)}
        return self._of(clustered(self.design, found["groups"]), dataclasses.replace(options, typed=typed))

    def _results(self, record: FitRecord) -> CausalResults:
        return CausalResults(self, record)


def check_in_memory(what: str, data: Any, instead: str = "") -> None:
    """Raise an error for data on disk, which `what` does not support. `instead` is advice."""
    if isinstance(as_scan(data), Scan):
        raise not_on_disk(what, instead)


def design_of(
    formula: str, data: Any, given: Mapping[str, Any], scope: Mapping[str, Any], specs: Sequence[Specification]
) -> Design:
    """Return the design of one model, or of several models to compare. `scope` has the caller's variables."""
    if given.get("treat") is None:
        found = "`treat` is missing; the treatment is not part of the formula"
        raise OptionError(f'{found}.\nUse `treat="d"`, with the name of the treatment column.')
    columns, propensity = kinds.options_of(ColumnOptions, given), given.get("propensity")
    if columns.did is not None:
        formula, data = with_change(columns.did, formula, data, columns.treat)
    make = design_from_scan if isinstance(data, Scan) else design_from_formula
    constant = all(spec.constants for spec in specs) or columns.outcome_predictions is not None
    scored = any(spec.uses_propensity for spec in specs)
    rules = Rules.of(columns, constant, any(spec.joint for spec in specs), scored)
    return make(formula, data, columns, rules, propensity=propensity, frame=scope)
