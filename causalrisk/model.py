"""What all models share: formulas or arrays in, results out. Orchestration only."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, ClassVar, Self

from causalrisk.design import Design, design_from_arrays, design_from_formula
from causalrisk.effects import parameter_names
from causalrisk.errors import BootstrapError, FitInterrupted
from causalrisk.estimators import Specification
from causalrisk.fitting import fit_separate
from causalrisk.keywords import (
    DATA_OPTIONS,
    FIT_SEPARATE,
    MODEL_INSTEAD,
    NEW_MODEL,
    check_keywords,
    unknown_keyword,
)
from causalrisk.ledger import failure_text
from causalrisk.options import InferenceOptions, ModelOptions
from causalrisk.propensity import is_classifier
from causalrisk.record import FitRecord
from causalrisk.results import CausalResults
from causalrisk.uncertainty import robust_record


def classifier(propensity_score: Any) -> Any:
    """Return the classifier, if that is what was given."""
    return propensity_score if is_classifier(propensity_score) else None


def given_scores(propensity_score: Any) -> Any:
    """Return the scores, if they were given and not a classifier."""
    return None if is_classifier(propensity_score) else propensity_score


class CausalModel:
    """A treatment effect model; the estimators are its subclasses.

    Parameters
    ----------
    endog : array_like, shape (n,)
        Outcome.
    exog : array_like, shape (n, p)
        Covariates of the outcome models; no constant is added, a missing one is warned of.
    treat : array_like, shape (n,)
        Treatment.
    exog_propensity : array_like, shape (n, q), optional
        Covariates of the propensity model; by default `exog`.
    family, link, propensity_link, propensity_loss, propensity_score, n_folds, target, treated, reference, levels
        As in `from_formula`.
    weights, weight_type, cluster, trim, clip, effect, missing
        As in `from_formula`.

    Attributes
    ----------
    design : Design
        The data on the estimation sample.
    options : ModelOptions
        What is estimated.
    """

    spec: ClassVar[Specification]
    design: Design
    options: ModelOptions

    @check_keywords(MODEL_INSTEAD)
    def __init__(
        self,
        endog: Any,
        exog: Any,
        treat: Any,
        *,
        exog_propensity: Any = None,
        family: Any = "gaussian",
        link: Any = None,
        propensity_link: str = "logit",
        propensity_loss: str = "ml",
        propensity_score: Any = None,
        n_folds: int = 5,
        target: Any = "all",
        treated: Any = None,
        reference: Any = None,
        levels: Mapping[Any, str] | None = None,
        weights: Any = None,
        weight_type: str | None = None,
        cluster: Any = None,
        trim: Any = None,
        clip: Any = None,
        effect: str = "difference",
        missing: str = "drop",
    ) -> None:
        """Make a model from arrays.

        Parameters
        ----------
        endog : array_like, shape (n,)
            Outcome.
        exog : array_like, shape (n, p)
            Covariates of the outcome models; no constant is added, a missing one is warned of.
        treat : array_like, shape (n,)
            Treatment.
        exog_propensity : array_like, shape (n, q), optional
            Covariates of the propensity model; by default `exog`.
        family, link, propensity_link, propensity_loss, propensity_score, n_folds, target, treated, reference, levels
            As in `from_formula`.
        weights, weight_type, cluster, trim, clip, effect, missing
            As in `from_formula`.
        """
        self.options = ModelOptions(
            family, link, propensity_link, propensity_loss, classifier(propensity_score), n_folds, target, trim, clip,
            effect,
        )  # fmt: skip
        self.design = design_from_arrays(
            endog, exog, treat, exog_propensity=exog_propensity, treated=treated, reference=reference, levels=levels,
            weights=weights, weight_type=weight_type, cluster=cluster,
            propensity_score=given_scores(propensity_score), missing=missing, constant_outcome=self.spec.constants,
        )  # fmt: skip

    @classmethod
    @check_keywords(MODEL_INSTEAD)
    def from_formula(
        cls,
        formula: str,
        data: Any = None,
        *,
        treat: Any,
        propensity: str | None = None,
        family: Any = "gaussian",
        link: Any = None,
        propensity_link: str = "logit",
        propensity_loss: str = "ml",
        propensity_score: Any = None,
        n_folds: int = 5,
        target: Any = "all",
        treated: Any = None,
        reference: Any = None,
        levels: Mapping[Any, str] | None = None,
        weights: Any = None,
        weight_type: str | None = None,
        cluster: Any = None,
        trim: Any = None,
        clip: Any = None,
        effect: str = "difference",
        missing: str = "drop",
    ) -> Self:
        """Make a model from formulas.

        Parameters
        ----------
        formula : str
            Outcome formula, such as "y ~ x1 + x2"; the treatment does not appear in it.
        data : DataFrame or mapping of columns, optional
            The data; None takes the variables from where this is called.
        treat : str or array_like
            Treatment: a column name, or one value per row. 0/1 and bool need nothing more; any other coding needs
            `treated` or `reference`.
        propensity : str, optional
            Propensity formula, one-sided ("x1 + x3") or with the treatment on the left; by default the right-hand
            side of the outcome formula.
        family : {"gaussian", "binomial", "poisson", "gamma"} or statsmodels family
            Outcome family, such as ``sm.families.NegativeBinomial(alpha=0.5)``; only its variance function counts, so
            that fractions under "binomial" are fine.
        link : str, optional
            Outcome link: "identity" or "log" ("gaussian"), "logit", "probit" or "cloglog" ("binomial"), else "log".
        propensity_link : {"logit", "probit", "cloglog"}
            Propensity link; several arms have a multinomial logit.
        propensity_loss : {"ml", "calibrated"}
            Maximum likelihood, or the loss whose weights balance the covariates exactly (Tan 2020), which has one set
            of coefficients for each arm that is weighted.
        propensity_score : str, array_like or classifier, optional
            Known probability of the treated arm (several arms: a column an arm); or an object with `fit` and
            `predict_proba`, cross-fitted on the columns of the propensity formula, clusters kept together.
        n_folds : int, default 5
            Folds of a cross-fitted propensity score.
        target : {"all", "treated", "control", "overlap"}, DataFrame or callable
            Target population, or "ATE", "ATT", "ATC", "ATO" in any case; a frame of another population with the same
            covariates, whose density ratio to the sample comes from a logit in those of the propensity formula;
            or a tilt as a function of the propensity score, such as ``lambda e: np.minimum(e, 1 - e)``.
        treated, reference : level, optional
            Which level of the treatment is treated, or which the others are compared with.
        levels : mapping, optional
            Printed label of each treatment level.
        weights : str or array_like, optional
            Observation weights.
        weight_type : {"frequency", "probability"}, optional
            What the weights mean; needed with `weights`.
        cluster : str or array_like, optional
            Clusters; standard errors, resamples and propensity replicates then go by cluster.
        trim : {"crump", "separated"} or tuple of float, optional
            Leave out rows with a propensity score outside of limits, of those that minimise the variance, or that the
            propensity model predicts perfectly; the target population changes. The models are then fitted again to the
            rows left, which the bootstrap resamples.
        clip : tuple of float, optional
            Limits that propensity scores are clipped to.
        effect : {"difference", "ratio", "odds_ratio", "percent"}
            How the effect is reported: of the arm means, percent of the reference arm's.
        missing : {"drop", "raise"}
            Whether rows that miss a variable of either formula are left out of both models, or refused.

        Returns
        -------
        CausalModel
            The model; call its `fit`.

        Raises
        ------
        DesignError
            If data and formulas do not describe a model that can be fitted.
        OptionError
            If an option has a value that is not allowed.
        TypeError
            If an option is not known.
        """
        options = ModelOptions(
            family, link, propensity_link, propensity_loss, classifier(propensity_score), n_folds, target, trim, clip,
            effect,
        )  # fmt: skip
        caller = sys._getframe(2)  # past the keyword check
        design = design_from_formula(
            formula,
            data,
            treat=treat,
            propensity=propensity,
            treated=treated,
            reference=reference,
            levels=levels,
            weights=weights,
            weight_type=weight_type,
            cluster=cluster,
            propensity_score=given_scores(propensity_score),
            missing=missing,
            frame={**caller.f_globals, **caller.f_locals},
            constant_outcome=cls.spec.constants,
        )
        return cls._of(design, options)

    @classmethod
    def _of(cls, design: Design, options: ModelOptions) -> Self:
        model = cls.__new__(cls)
        model.design, model.options = design, options
        return model

    def with_options(self, **changes: Any) -> Self:
        """Return a model of the same data under other options.

        Parameters
        ----------
        **changes
            Any of family, link, propensity_link, propensity_loss, propensity_score, n_folds, target, trim, clip,
            effect.

        Returns
        -------
        CausalModel
            A new model.
        """
        known = [field.name for field in dataclasses.fields(ModelOptions)]
        for name in changes:
            if name not in known:
                where = f"{type(self).__name__}.with_options"
                raise TypeError(unknown_keyword(where, name, known, dict.fromkeys(DATA_OPTIONS, NEW_MODEL)))
        if given_scores(changes.get("propensity_score")) is not None:
            raise TypeError(f"{type(self).__name__}.with_options takes no propensity scores as values.\n{NEW_MODEL}")
        return self._of(self.design, dataclasses.replace(self.options, **changes))

    def __repr__(self) -> str:
        design = self.design
        what = design.formula or f"{design.endog_name} on {', '.join(design.exog_names)}"
        return f"{type(self).__name__}: {what}, {design.treat_name}: {design.contrast}, n {design.nobs}"

    @property
    def endog_names(self) -> str:
        """Name of the outcome."""
        return self.design.endog_name

    @property
    def exog_names(self) -> list[str]:
        """Names of the columns of the outcome design."""
        return list(self.design.exog_names)

    @property
    def data(self) -> SimpleNamespace:
        """What statsmodels' tables read: `param_names`, the names of the parameters that `fit` estimates."""
        return SimpleNamespace(param_names=parameter_names(self.options.estimand, self.design.labels))

    @property
    def formula(self) -> str | None:
        """The outcome formula; None for a model made from arrays."""
        return self.design.formula

    @check_keywords(FIT_SEPARATE)
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
    ) -> CausalResults:
        """Estimate the effect.

        Parameters
        ----------
        cov_type : {"robust", "HC0", "HC1", "cluster", "bootstrap"}, optional
            Standard errors: "robust" (also "HC0") stacks the estimating equations of all models, "HC1" multiplies by
            n / (n - k), "cluster" sums contributions within clusters, "bootstrap" redoes every step on resamples.
            By default robust, or cluster where a cluster was given; bootstrap for JRE.
        n_boot : int, default 999
            Resamples.
        bootstrap : {"pairs", "bayesian", "cluster", "stratified"}, optional
            How to resample; by default clusters where given, else rows.
        small_sample : bool, default False
            Apply the factor of "HC1" also to clustered standard errors.
        max_failed : float, default 0.05
            Share of the resamples that may fail before the bootstrap is refused.
        rng : int, Generator, SeedSequence or None, default 0
            Source of randomness; None draws fresh entropy. Estimates do not depend on `n_boot`.
        n_jobs : int, default 1
            Threads, or workers of the joblib backend whose context (`joblib.parallel_config`) the call is in; -1 means
            one per processor. Results do not depend on it.
        progress : bool, default False
            Show a progress bar on standard error (tqdm if installed, else a counter).
        memory : float, optional
            Budget in bytes for the resamples in flight.
        resamples : array_like, shape (n, n_boot), optional
            Multiplicities to use in place of random ones, rows as in the estimation sample.

        Returns
        -------
        CausalResults
            The results.

        Raises
        ------
        SeparationError
            If the propensity model predicts the treatment of some rows perfectly.
        BootstrapError
            If too many resamples failed; its `results` hold the robust standard errors. Also if a joblib worker died.
        FitInterrupted
            If the bootstrap is interrupted from the keyboard; its `results` hold the robust standard errors.
        OptionError
            If an option has a value that is not allowed, or two contradict each other.
        """
        options = InferenceOptions(
            cov_type, n_boot, bootstrap, small_sample, max_failed, rng, n_jobs, progress, memory, resamples
        )
        try:
            record = fit_separate(self.design, self.spec, self.options, options)
        except FitInterrupted as stop:
            raise FitInterrupted(CausalResults(self, stop.results)) from None
        return self._checked(CausalResults(self, record), options)

    def _checked(self, results: CausalResults, options: InferenceOptions) -> CausalResults:
        """Return the results, unless too many resamples failed."""
        record: FitRecord = results._record
        if record.boot is None or record.boot.failed_share <= options.max_failed:
            return results
        failed, drawn = round(record.boot.failed_share * len(record.boot.reasons)), len(record.boot.reasons)
        kept = CausalResults(self, robust_record(record), results._start)
        more = f"max_failed={failed / drawn + 0.01:.2f}" if failed < 0.9 * drawn else 'cov_type="robust"'
        raise BootstrapError(
            f"{failed} of {drawn} resamples failed, more than max_failed={options.max_failed:g} allows: "
            f"{failure_text(record.boot.reasons)}.\nThe point estimate with robust standard errors is in err.results. "
            f"Simplify propensity=, or type  fit({more}).",
            kept,
        )
