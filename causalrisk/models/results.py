"""Results of a fit: attributes and methods that read its frozen `FitRecord`. Also saving and loading.

This module defines only attributes that describe the fit itself. Everything computed afterwards is a function of the
record, defined in `inference`, `diagnostics`, `report` or another module of `models`, with its docstring and example.
The method of the same name here calls this function. Every pickle begins with the version. A pickle of a newer version
raises an error before the rest is read.
"""

from __future__ import annotations

import copy
import functools
import inspect
import os
import pickle
import re
from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any, ClassVar, Concatenate, ParamSpec, TypeVar

import numpy as np
import pandas as pd

from causalrisk import errors
from causalrisk._version import __version__
from causalrisk.diagnostics import balance, scores
from causalrisk.diagnostics.risk import anchor_path, joint_of, risk_table
from causalrisk.diagnostics.sensitivity import influence, sensitivity, sensitivity_bounds
from causalrisk.errors.aliases import ATTRIBUTES, answer, attribute
from causalrisk.estimation.matching import matched_pairs
from causalrisk.estimation.record import FitRecord
from causalrisk.inference import fitted_models, heterogeneity, hypotheses, intervals, simultaneous
from causalrisk.models.permutation import permutation_test
from causalrisk.numerics.resampling import repeating
from causalrisk.report import explain, labels, methods, plots, sections, summary, table, table_one
from causalrisk.report import tidy as frames
from causalrisk.runtime import one_blas_thread, write_file

# Errors that reading a damaged pickle, or another file, can raise.
NO_PICKLE = (pickle.UnpicklingError, ArithmeticError, AttributeError, EOFError, ImportError, LookupError, MemoryError,
             RuntimeError, SyntaxError, TypeError, ValueError)  # fmt: skip
DATA_ENDINGS = (".parquet", ".pq", ".csv", ".csv.gz", ".feather", ".arrow", ".dta", ".xlsx")
P = ParamSpec("P")
R = TypeVar("R")


def load(path: str | os.PathLike[str]) -> Any:
    """Read saved results. The file is a pickle: only read files that you trust.

    Parameters
    ----------
    path : str or path
        The file.

    Returns
    -------
    CausalResults
        The results, with all of their methods.

    Raises
    ------
    DesignError
        If the file does not hold results.

    Examples
    --------
    >>> import tempfile
    >>> from causalrisk import IPWRA, datasets, load
    >>> births = datasets.load_cattaneo2()
    >>> res = IPWRA.from_formula(
    ...     "bweight ~ mage + medu", births, treat="mbsmoke"
    ... ).fit()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     again = load(res.save(f"{folder}/smoking.pickle"))
    >>> again
    IPWRA: ATE -256.86 (24.38), 1 vs 0, n 4642
    """
    content, shown = Path(path).read_bytes(), repr(str(path))
    typed = "Use a file that `res.save()` wrote."
    try:
        results = pickle.loads(content)
    except errors.CausalRiskError:  # the pickle of a newer version was refused
        raise
    except NO_PICKLE as error:
        found = f"{shown} does not contain results that causalrisk {__version__} can read ({error})"
        raise errors.DesignError(f"{found}.\n{typed}") from error
    if not isinstance(results, Shown):
        raise errors.DesignError(f"{shown} contains a {type(results).__name__}; expected results.\n{typed}")
    return results


def restore(version: str, kind: type) -> Any:
    """Return an object without its state. Refuse the pickle of a newer version before the state is read."""
    written, own = ([int(part) for part in re.findall("[0-9]+", text)[:3]] for text in (version, __version__))
    if written > own:
        found = f"the pickle was written by causalrisk {version}; this is causalrisk {__version__}"
        use = f"Use `pip install 'causalrisk>={version}'`."
        raise errors.CausalRiskError(f"{found}, which cannot read newer pickles.\n{use}")
    return object.__new__(kind)


def stamped(thing: Any) -> tuple[Any, ...]:
    """Return the `__reduce__` value of an object, with the version at the beginning of the pickle."""
    return restore, (__version__, type(thing)), thing.__dict__


class Shown(table.HasSummary):
    """Results with a summary in notebooks. Their pickles begin with the version."""

    __reduce__ = stamped
    _place: ClassVar = ("results", "res")  # the table of answers, and the name in messages
    _fits: ClassVar[tuple[str, ...]] = ()  # code for the attribute {} of the fits, which have more attributes

    def __init_subclass__(cls) -> None:
        for name, method in list(vars(cls).items()):
            if inspect.isfunction(method) and not name.startswith("_"):
                setattr(cls, name, errors.with_other_names(method))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or hasattr(type(self), name):
            return object.__getattribute__(self, name)  # raises as usual, or repeats a property's error
        if self._fits and hasattr(CausalResults, name) and not answer(self._place[0], name):
            call = "()" if callable(getattr(CausalResults, name)) else ""
            typed = " or ".join(f"`{of_fit.format(name + call)}`" for of_fit in self._fits)
            found = f"{type(self).__name__} has no {name!r}; only its fits have it"
            raise errors.UnavailableError(f"{found}.\nUse {typed}.")
        raise errors.UnavailableError(attribute(*self._place, name, dir(type(self))))

    @errors.with_other_names
    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the results to a file that `causalrisk.load` reads.

        Parameters
        ----------
        path : str or path
            File to write. The results are pickled: only read files that you trust.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        UnavailableError
            If the results contain an object that cannot be pickled, such as a lambda given as `target`.
        OptionError
            If the path has the ending of a table or a data file, such as .docx or .parquet.
        """
        name = os.fspath(path)
        if name.lower().endswith((*DATA_ENDINGS, *table.ENDINGS)):
            what, data = self._place[1], name.lower().endswith(DATA_ENDINGS) and hasattr(type(self), "tidy")
            of_table = f"{what}.tidy()" if data else f'{what}.summary().save("{name}")'
            found = f"path={name!r} has the ending of a table, but results are saved as a pickle"
            raise errors.OptionError(f'{found}.\nUse `{of_table}`, or `{what}.save("fit.pickle")`.')
        try:
            content = pickle.dumps(self)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            advice = "Define it at the top level of a module (def, not lambda), then fit again."
            found = f"the results contain an object that cannot be pickled: {error}"
            raise errors.UnavailableError(f"{found}.\n{advice}") from error
        return write_file(path, content)


class OneEffect(Shown):
    """Results with the properties `effect` and `effect_se`, which need a single effect.

    `_record` is a fit whose effects have the same names.
    """

    _record: FitRecord

    @property
    def effect(self) -> float:
        """The effect, for two treatment groups. With more, `params` has one effect per group except the reference."""
        return self._single("effect", "params")

    @property
    def effect_se(self) -> float:
        """Standard error of the effect, for two treatment groups. With more, see `bse`."""
        return self._single("effect_se", "bse")

    def _single(self, name: str, instead: str) -> float:
        """Return the value of the only effect. With several effects, an UnavailableError says how to choose one."""
        effects = self._record.effect_names
        if len(effects) > 1:
            found = f"there are {len(effects)} effects here, {errors.listed(effects)}"
            use = f"Use `res.{instead}[{effects[0]!r}]`."
            raise errors.UnavailableError(f"`{name}` needs a single effect; {found}.\n{use}")
        return float(getattr(self, instead).iloc[0])


def of_record(
    function: Callable[Concatenate[FitRecord, P], R], plain: bool = False
) -> Callable[Concatenate[Any, P], R]:
    """Make a method from a function of a `FitRecord`. It has the same name and docstring, and uses `self`'s fit.

    Returned data frames print all columns, unless `plain`.
    """
    signature = inspect.signature(function)
    self, *others = signature.parameters.values()

    @functools.wraps(function)
    def method(self: Any, *args: P.args, **keywords: P.kwargs) -> R:
        with one_blas_thread():
            made = function(self._record, *args, **keywords)
            return made if plain else frames.printed_whole(made)

    method.__qualname__ = f"CausalResults.{function.__name__}"
    own = self.replace(name="self", annotation=inspect.Parameter.empty)
    method.__signature__ = signature.replace(parameters=[own, *others])  # type: ignore[attr-defined]
    return method


class Plots:
    """The plots of results. `res.plot()` draws the main diagnostics on one page.

    res.plot.anchor_path()   Effect under each amount of shrinkage (JRE).
    res.plot.balance()       Standardized mean differences before and after weighting.
    res.plot.bootstrap()     Bootstrap distribution of the effect.
    res.plot.calibration()   Observed share of the treated against the propensity score.
    res.plot.diagnostics()   The main diagnostics on one page.
    res.plot.distribution()  Distribution functions of the potential outcomes.
    res.plot.effects_by()    All effects, or effects by group or along a covariate.
    res.plot.influence()     Influence of each row or cluster on the effect.
    res.plot.overlap()       Propensity scores of the groups.
    """

    __slots__ = ("_results",)

    def __init__(self, results: Any) -> None:
        self._results = results

    def __dir__(self) -> list[str]:
        return [name.removeprefix("plot_") for name in dir(type(self._results)) if name.startswith("plot_")]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._results, f"plot_{name}")

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        """Draw the main diagnostics on one page."""
        return self._results.plot_diagnostics(*args, **keywords)


SHOWN = """
balance balance_test bse conf_int converged cov_params cov_type df_resid effect effect_se effects_by
equivalence_test estimand explain glance influence methods model nlcom nobs overlap pairwise params permutation_test
plot potential_outcomes predict propensity_scores pvalues report resid sample_ledger save sensitivity summary
summary_frame t_test table_one tidy tvalues wald_test
""".split()  # noqa: SIM905


class CausalResults(OneEffect):
    """Estimated effects with their uncertainty, returned by `fit`.

    Parameters
    ----------
    model : CausalModel
        The model that was fitted.
    record : FitRecord
        The fitted outcome models, scores, estimates and standard errors.

    Attributes
    ----------
    model : CausalModel
        The model.
    nobs : int
        Number of observations in the estimation sample: rows, or the sum of frequency weights.
    estimand : str
        Estimand, such as "ATE" or "ATT", with the kind of effect if it is not a difference.
    seed : int or SeedSequence
        Value of `rng=` that repeats the fit: an int, or a SeedSequence if one int is not enough.
    """

    def __init__(self, model: Any, record: FitRecord) -> None:
        self.model = model
        self._record = record
        self.nobs = record.design.nobs
        self.estimand = record.estimand
        self.seed = repeating(record.seed)

    # --- effects and their inference -----------------------------------------------------------------------------

    def _by_name(self, values: Any, name: str | None = None) -> pd.Series:
        """Return a Series by parameter name. For models made from arrays, it is also by position, as in statsmodels."""
        kind = frames.Values if self._record.design.formula is None else pd.Series
        return kind(values, index=self._record.names, name=name)

    @property
    def params(self) -> pd.Series:
        """The effects (one per treatment group except the reference), then each group's potential-outcome mean."""
        return self._by_name(self._record.estimate.params.copy(), "estimate")

    @property
    def bse(self) -> pd.Series:
        """Standard errors of `params`."""
        return self._by_name(self._record.std_errors, "std err")

    @property
    def tvalues(self) -> pd.Series:
        """Test statistics z (or t) of `params`, on the log scale for ratios. NaN if the standard error is zero."""
        return self._by_name(intervals.summary_frame(self._record).iloc[:, 2])

    @property
    def pvalues(self) -> pd.Series:
        """Two-sided p-values of `params`. NaN if the standard error is zero."""
        return self._by_name(intervals.summary_frame(self._record).iloc[:, 3])

    @property
    def use_t(self) -> bool:
        """Whether p-values and intervals use the t distribution, with `df_resid` degrees of freedom."""
        return bool(np.isfinite(self._record.df))

    @property
    def df_resid(self) -> float:
        """Degrees of freedom of the t distribution that the fit uses, or that ``fit(use_t=True)`` would use."""
        return self._record.df if self.use_t else self._record.residual_df

    def cov_params(self) -> pd.DataFrame:
        """Return the covariance matrix of `params`."""
        names = self._record.names
        return pd.DataFrame(self._record.covariance[: len(names), : len(names)].copy(), index=names, columns=names)

    conf_int = of_record(intervals.conf_int)
    boot_pvalues = of_record(intervals.boot_pvalues)
    summary_frame = of_record(intervals.summary_frame)
    t_test = of_record(hypotheses.t_test)
    equivalence_test = of_record(hypotheses.equivalence_test)
    wald_test = of_record(hypotheses.wald_test)
    nlcom = of_record(hypotheses.nlcom)
    effects_on_scales = of_record(intervals.effects_on_scales)
    nnt = of_record(intervals.nnt)
    effects_by = of_record(heterogeneity.effects_by)
    differences_by = of_record(heterogeneity.differences_by)
    equality_test = of_record(heterogeneity.equality_test)
    pairwise = of_record(heterogeneity.pairwise)
    permutation_test = of_record(permutation_test)
    distribution = of_record(simultaneous.distribution)

    cov_type = property(attrgetter("_record.cov_type"), doc="Kind of standard errors, as in `fit`.")

    # --- sample and resampling -----------------------------------------------------------------------------------

    @property
    def in_sample(self) -> pd.Series:
        """Whether each row of the data is in the estimation sample, on the data's index."""
        return self._record.design.in_sample.copy()

    @property
    def dropped_terms(self) -> tuple[str, ...]:
        """Terms dropped because they are linear combinations of earlier terms, in the sample or in one group."""
        return self._record.design.dropped_terms

    @property
    def sample_ledger(self) -> pd.DataFrame:
        """Missing and dropped rows by variable. "dropped" excludes rows that an earlier variable dropped."""
        return self._record.design.sample_ledger.copy()

    @property
    def boot_params(self) -> pd.DataFrame:
        """`params` in every resample, one row per resample. NaN if the resample failed."""
        names = self._record.names
        values = self._record.used_boot.values[:, : len(names)].copy()
        return pd.DataFrame(values, columns=names, index=pd.RangeIndex(len(values), name="resample"))

    @property
    def boot_ledger(self) -> pd.DataFrame:
        """Whether each resample was used and, if not, the reason."""
        return errors.failures_frame(self._record.used_boot.failures, "resample")

    converged = property(of_record(labels.has_converged))

    # --- the fitted models ---------------------------------------------------------------------------------------

    @property
    def outcome_params(self) -> pd.DataFrame:
        """Coefficients of the outcome models, one row per term and one column per treatment group.

        JRE chooses its coefficients to minimise the error of the effect, so they are not regression coefficients. For
        regression coefficients, use `res.start.outcome_params`.
        """
        return fitted_models.outcome_frame(self._record, "values", "outcome_params")

    @property
    def outcome_bse(self) -> pd.DataFrame:
        """Standard errors of `outcome_params`."""
        return fitted_models.outcome_frame(self._record, "se", "outcome_bse")

    @property
    def propensity_params(self) -> pd.Series:
        """Coefficients of the propensity model."""
        return fitted_models.propensity_series(self._record, "values", "estimate")

    @property
    def propensity_bse(self) -> pd.Series:
        """Standard errors of `propensity_params`."""
        return fitted_models.propensity_series(self._record, "se", "std err")

    @property
    def propensity_scores(self) -> pd.Series | pd.DataFrame:
        """Estimated probability of treatment of each row of the sample. With several groups, one column per group."""
        record = self._record
        if record.weight_fit is None:
            raise record.without_scores()
        restored = record.sample.restore(record.weight_fit.probabilities.T.copy())
        scores = pd.DataFrame(restored, index=record.design.index, columns=list(record.design.labels))
        return scores if scores.shape[1] > 2 else scores.iloc[:, 1].rename("propensity")

    @property
    def importance_weights(self) -> pd.Series:
        """Each row's weight in the target population divided by the probability of its treatment group.

        The weights are 1 without a propensity score. For Matching, a matched row of the target has weight 1, and each
        use of a row as a match adds 1 / (number of matches).
        """
        record = self._record
        fit = record.weight_fit if record.spec.uses_propensity else None
        weights = np.ones(record.sample.n) if fit is None else fit.raw_weights
        return pd.Series(record.sample.restore(weights), index=record.design.index, name="weight")

    @property
    def potential_outcomes(self) -> pd.DataFrame:
        """Predicted outcome of every row in every treatment group, one column per group (not for JRE)."""
        return fitted_models.predict(self._record)

    @property
    def resid(self) -> pd.Series:
        """Outcome minus prediction in the row's own group. Not for JRE, Matching or means at a given exposure."""
        design = self._record.design
        if self._record.spec.matched:
            raise errors.UnavailableError("resid is not available for Matching.\nUse `OutcomeRegression`.")
        if self._record.stated_exposure is not None:
            use = 'Use `model.with_options(at_exposure="observed").fit()`.'
            raise errors.UnavailableError(f"resid is not available for means at a given exposure.\n{use}")
        predicted = self.potential_outcomes.to_numpy()
        own = predicted[np.arange(len(predicted)), design.arm]
        return pd.Series(design.y - own, index=design.index, name="resid")

    outcome_predictions = property(of_record(fitted_models.outcome_predictions, plain=True))
    learner_fit = property(of_record(fitted_models.learner_fit, plain=True))
    stack = property(of_record(fitted_models.stack_table, plain=True))
    matches = property(of_record(matched_pairs, plain=True))
    estimating_equations = of_record(fitted_models.estimating_equations)
    predict = of_record(fitted_models.predict)
    get_prediction = of_record(fitted_models.get_prediction)

    # --- diagnostics ---------------------------------------------------------------------------------------------

    balance = of_record(balance.balance)
    table_one = of_record(table_one.balance_for_paper)
    balance_test = of_record(scores.balance_test)
    overlap = of_record(scores.overlap)
    calibration = of_record(scores.calibration)
    influence = of_record(influence)
    risk_table = of_record(risk_table)
    sensitivity = of_record(sensitivity)
    sensitivity_bounds = of_record(sensitivity_bounds)

    # --- plots ---------------------------------------------------------------------------------------------------

    plot_balance = of_record(plots.plot_balance)
    plot_overlap = of_record(plots.plot_overlap)
    plot_calibration = of_record(plots.plot_calibration)
    plot_effects_by = of_record(plots.plot_effects_by)
    plot_influence = of_record(plots.plot_influence)
    plot_bootstrap = of_record(plots.plot_bootstrap)
    plot_distribution = of_record(plots.plot_distribution)
    plot_diagnostics = of_record(plots.plot_diagnostics)

    # --- summary, report, and what other programs read -----------------------------------------------------------

    summary = of_record(summary.summary)
    explain = of_record(explain.explain)
    report = of_record(sections.report)
    methods = of_record(methods.methods)
    tidy = of_record(frames.tidy, plain=True)
    glance = of_record(frames.glance, plain=True)

    def __repr__(self) -> str:
        return summary.one_line(self._record)

    default_model_infos: ClassVar = {  # what statsmodels' `summary_col` prints below the column
        "N": lambda res: f"{res.nobs}",
        "Estimator": lambda res: frames.table_maker_statistic(res._record, "estimator"),
        "Std. errors": lambda res: frames.table_maker_statistic(res._record, "se_type"),
    }

    __maketables_coef_table__ = property(of_record(frames.table_maker_coefficients, plain=True))
    __maketables_stat__ = of_record(frames.table_maker_statistic)
    __maketables_depvar__ = property(attrgetter("_record.design.endog_name"))

    @property
    def __maketables_vcov_info__(self) -> dict[str, Any]:
        clustered = "+".join(self._record.design.cluster_names) or None
        return {"vcov_type": frames.table_maker_statistic(self._record, "se_type"), "clustervar": clustered}

    __maketables_stat_labels__: ClassVar = frames.STATISTICS
    __maketables_default_stat_keys__: ClassVar = list(frames.STATISTICS)

    plot = property(Plots, doc="All plots: `res.plot.balance()` is `res.plot_balance()`.")

    def __dir__(self) -> list[str]:
        """Return the names that are used most. The documentation has the other names."""
        if isinstance(self, JREResults):
            return sorted({*SHOWN, "joint", "start", "start_difference"} - {"potential_outcomes", "resid"})
        return sorted({*SHOWN, "matches"} - {"resid"} if self._record.spec.matched else SHOWN)

    def __getattr__(self, name: str) -> Any:
        if name in OTHER_NAMES:
            return getattr(self, OTHER_NAMES[name])
        if name in JRE_ONLY and not hasattr(type(self), name):
            raise errors.UnavailableError(f"{self._record.spec.name} results have no `{name}`; only JRE results do.")
        return super().__getattr__(name)


def given_results(results: Any, typed: str) -> list[CausalResults]:
    """Return one or several results, or the values of a mapping, as a list. Anything else raises an OptionError."""
    several = results.values() if isinstance(results, Mapping) else results
    given = list(several) if isinstance(several, Iterable) else [several]
    for res in given:
        if not isinstance(res, CausalResults):
            name, function = type(res).__name__, typed.partition("(")[0]
            found = f"results contains a {name}; expected results of an estimator such as AIPW or JRE"
            use = f"`{function}` does not support {name}." if isinstance(res, Shown) else f"Use `{typed}`."
            raise errors.OptionError(f"{found}.\n{use}")
    return given


class JointView:
    """The joint fit of JRE's outcome models, as `res.joint`.

    Parameters
    ----------
    record : FitRecord
        The fit.

    Attributes
    ----------
    shrinkage : float or None
        Weight of the importance-weighted loss, given or chosen; None for the objective "erm".
    share : float
        Share of IPWRA's estimated effect heterogeneity that is excluded from the risk; 0 for the objective "erm".
    score_joined : bool
        Whether the linear predictor of the propensity score is a column of the outcome models.
    """

    def __init__(self, record: FitRecord) -> None:
        self._record, self._joint = record, joint_of(record)
        self.shrinkage, self.share = self._joint.anchor, self._joint.share
        self.score_joined = self._joint.score_joined

    path = property(of_record(anchor_path))
    risk = property(of_record(risk_table))

    @property
    def replicates(self) -> pd.DataFrame:
        """Bias of each group's outcome model and net bias, in units of the outcome. One row per replicate used."""
        joint = self._joint
        bias, net = joint.fit.bias, joint.fit.net_bias
        used = np.flatnonzero(joint.replicates.failures == errors.Failure.OK)
        labels = self._record.design.labels
        nets = ["net"] if len(labels) == 2 else [f"net[{label}]" for label in labels[1:]]
        index = pd.Index(used, name="replicate")
        return pd.DataFrame(np.column_stack([bias.T, net.T]), columns=[*labels, *nets], index=index)

    @property
    def optimize_result(self) -> Any:
        """The `OptimizeResult` of scipy's minimisation. Rescaling the outcome does not change it."""
        return copy.copy(self._joint.fit.result)


class JREResults(CausalResults):
    """Results of the Joint Robust Estimator, with details of the joint fit.

    Parameters
    ----------
    model : CausalModel
        The model that was fitted.
    record : FitRecord
        The fitted outcome models, scores, estimates and standard errors.
    start : CausalResults
        Results of the IPWRA fit that JRE starts from.
    """

    def __init__(self, model: Any, record: FitRecord, start: CausalResults) -> None:
        super().__init__(model, record)
        self._start, self._joint = start, joint_of(record)

    start = property(attrgetter("_start"), doc="Results of IPWRA, JRE's starting point, with robust standard errors.")

    @property
    def joint(self) -> JointView:
        """Details of JRE's joint fit: shrinkage, share, path, risk, replicates and scipy's result."""
        return JointView(self._record)

    share = property(attrgetter("joint.share"), doc="Share of heterogeneity excluded from the risk: `joint.share`.")
    optimize_result = property(attrgetter("joint.optimize_result"), doc="Scipy's result: `joint.optimize_result`.")
    replicate_bias = property(attrgetter("joint.replicates"), doc="Group biases and net bias: `joint.replicates`.")

    @property
    def model_means(self) -> pd.Series:
        """Mean prediction of each treatment group's outcome model (JRE). Interpret only the effect, not these means.

        The means in `params` are these means minus the groups' average bias (for ratios, in logarithms). It cancels out
        of the effect.
        """
        labels = list(self._record.design.labels)
        return pd.Series(self._joint.fit.estimate.model_means.copy(), index=labels, name="mean")

    @property
    def expected_ate_risk(self) -> float:
        """Expected ATE risk over the replicates (JRE), in squared units of the outcome. `risk_table` has its parts.

        With objective "risk", the risk is the squared net bias plus the sampling variance. With "erm", it is the
        squared net bias.
        """
        return self._joint.expected_risk

    @property
    def replicate_ledger(self) -> pd.DataFrame:
        """Whether each propensity replicate was used and, if not, the reason (JRE)."""
        return errors.failures_frame(self._joint.replicates.failures, "replicate")

    start_difference = of_record(simultaneous.start_difference)
    anchor_path = of_record(anchor_path)
    plot_anchor_path = of_record(plots.plot_anchor_path)


OTHER_NAMES = {word: name for name, words in ATTRIBUTES.items() for word in words.split()}
JRE_ONLY = frozenset(name for name in vars(JREResults) if not name.startswith("_"))
