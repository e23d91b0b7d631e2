"""The estimators of a study: names, model classes with options, or functions, as entries that a worker can run.

Beside the models of the package stand Lin's regression and estimators of other packages, where these are installed.
"""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import numpy as np
import pandas as pd

from causalrisk.errors import OptionError, UnavailableError, listed
from causalrisk.errors.aliases import near
from causalrisk.models.estimators import ALIASES, BY_NAME, OutcomeRegression
from causalrisk.models.model import CausalModel
from causalrisk.numerics.linalg import Array

OUTSIDE = {"DoubleML IRM": ("doubleml", "sklearn"), "zEpid TMLE": ("zepid",), "statsmodels AIPW": ("statsmodels",)}
PROJECTS = {"sklearn": "scikit-learn"}


def check_installed(name: str) -> None:
    """Raise an UnavailableError where an estimator needs a package that is not installed."""
    missing = [PROJECTS.get(package, package) for package in OUTSIDE.get(name, ()) if find_spec(package) is None]
    if missing:
        raise UnavailableError(
            f"{name} needs {' and '.join(missing)}, which is not installed.\n"
            f"Use `pip install {' '.join(missing)}`, or leave it out of estimators=."
        )


def lin(trial: Any) -> tuple[float, float]:
    """Lin's regression: treatment, centred covariates and their products, with HC2 standard errors [1]_.

    Parameters
    ----------
    trial : Trial
        The sample.

    Returns
    -------
    estimate, se : float
        The estimate equals `OutcomeRegression`'s; the standard error takes the covariates as fixed.

    References
    ----------
    .. [1] Lin, W. (2013). Agnostic notes on regression adjustments to experimental data. Annals of Applied Statistics
       7, 295-318.
    """
    from statsmodels.regression.linear_model import OLS  # here, so that importing causalrisk stays fast

    design = trial.model().design
    treated, centred = design.arm[:, None], _varying(design.X)
    centred = centred - centred.mean(axis=0)
    columns = np.hstack([np.ones_like(treated), treated, centred, treated * centred])
    fit = OLS(design.y, columns).fit(cov_type="HC2")
    return fit.params[1], fit.bse[1]


def doubleml_irm(trial: Any) -> tuple[float, float]:
    """Interactive regression model of DoubleML: cross-fitted AIPW, here with linear and logistic regressions.

    Parameters
    ----------
    trial : Trial
        The sample.

    Returns
    -------
    estimate, se : float
        Effect and standard error.
    """
    from sklearn.linear_model import LinearRegression, LogisticRegression

    return cross_fitted(trial, LinearRegression(), LogisticRegression(C=np.inf, max_iter=1000))


def cross_fitted(trial: Any, outcome: Any, score: Any) -> tuple[float, float]:
    """Interactive regression model of DoubleML with learners of scikit-learn's kind, in five folds.

    Parameters
    ----------
    trial : Trial
        The sample; the learners see the columns of both formulas.
    outcome, score : estimator
        Learners of the outcome in each arm and of the treatment.

    Returns
    -------
    estimate, se : float
        Effect and standard error.
    """
    import doubleml as dml
    from sklearn.model_selection import StratifiedKFold

    design = trial.model().design
    shared = np.unique(np.hstack([_varying(design.X), _varying(design.Z)]), axis=1)
    folds = StratifiedKFold(5, shuffle=True, random_state=int(trial.seed.generate_state(1)[0]))
    data = dml.DoubleMLData.from_arrays(shared, design.y, design.arm.astype(float))
    model = dml.DoubleMLIRM(data, outcome, score, draw_sample_splitting=False)
    fit = model.set_sample_splitting([list(folds.split(shared, design.arm))]).fit()
    return float(fit.coef[0]), float(fit.se[0])


def zepid_tmle(trial: Any) -> tuple[float, float]:
    """Targeted maximum likelihood by zEpid, with the formulas as they are; zEpid 0.9 needs pandas 2.

    Parameters
    ----------
    trial : Trial
        The sample.

    Returns
    -------
    estimate, se : float
        Effect and standard error.
    """
    from zepid.causal.doublyrobust import TMLE

    rhs = trial.formula.partition("~")[2]
    products = " + ".join(f"d:{name}" for name in _terms(rhs))
    fit = TMLE(trial.data, exposure="d", outcome="y")
    fit.exposure_model(trial.propensity, print_results=False)
    fit.outcome_model(f"d + {rhs}" + (f" + {products}" if products else ""), print_results=False)
    fit.fit()
    return float(fit.average_treatment_effect), float(fit.average_treatment_effect_se)


def statsmodels_aipw(trial: Any) -> tuple[float, float]:
    """AIPW of `statsmodels.treatment`.

    Parameters
    ----------
    trial : Trial
        The sample.

    Returns
    -------
    estimate, se : float
        Effect and standard error.
    """
    from statsmodels.discrete.discrete_model import Logit
    from statsmodels.regression.linear_model import OLS
    from statsmodels.treatment.treatment_effects import TreatmentEffect

    design = trial.model().design
    selection = Logit(design.arm, design.Z).fit(disp=0)
    fit = TreatmentEffect(OLS(design.y, design.X), design.arm, results_select=selection).aipw()
    return float(fit.effect[0]), float(fit.sd[0])


def _varying(columns: Array) -> Array:
    return columns[:, np.ptp(columns, axis=0) > 0]


def _terms(rhs: str) -> list[str]:
    return [term.strip() for term in rhs.split("+") if term.strip() not in ("", "0", "1")]


COMPETITORS: dict[str, Callable[[Any], tuple[float, float]]] = {
    "Lin": lin,
    "DoubleML IRM": doubleml_irm,
    "zEpid TMLE": zepid_tmle,
    "statsmodels AIPW": statsmodels_aipw,
}


DEFAULT = ("Unadjusted", "Lin", "OutcomeRegression", "Hajek", "IPWRA", "AIPW", "JRE")
_MODEL_OPTIONS = frozenset(inspect.signature(CausalModel.from_formula).parameters)


@dataclass
class Trial:
    """One sample as an estimator sees it.

    Parameters
    ----------
    data : DataFrame, shape (n, p + 2)
        Outcome y, treatment d, covariates.
    formula, propensity : str
        Formulas of the analyst.
    seed : SeedSequence
        Randomness of the estimators, the same for each of them, so that their errors stay paired.
    """

    data: pd.DataFrame
    formula: str
    propensity: str
    seed: np.random.SeedSequence
    _models: dict[str, CausalModel] = field(default_factory=dict)

    def model(self, kind: type[CausalModel] = OutcomeRegression, **options: Any) -> CausalModel:
        """Make a model of the sample.

        Parameters
        ----------
        kind : model class
            The estimator.
        **options
            Options of `from_formula`.

        Returns
        -------
        CausalModel
            The model; those that differ in the estimator only share the parsed formulas.
        """
        given = {"formula": self.formula, "propensity": self.propensity, "treat": "d"} | options
        key = repr(sorted(given.items()))
        if key not in self._models:
            self._models[key] = kind.from_formula(data=self.data, **given)
        first = self._models[key]
        return kind._of(first.design, first.options)


@dataclass(frozen=True)
class Entry:
    """An estimator with its options.

    Parameters
    ----------
    label : str
        Name in tables.
    run : model class or callable
        Estimator; a callable takes a `Trial` and returns estimate and standard error.
    options : mapping
        Options of `from_formula` and of `fit`; empty for a callable.
    """

    label: str
    run: Any
    options: Mapping[str, Any]

    def estimate(self, trial: Trial, n_boot: int) -> tuple[float, float]:
        """Estimate the effect.

        Parameters
        ----------
        trial : Trial
            The sample.
        n_boot : int
            Resamples of the bootstrap of the package's own models; 0 for robust standard errors.

        Returns
        -------
        estimate, se : float
            Effect and standard error, in units of the outcome.
        """
        if not isinstance(self.run, type):
            estimate, se = self.run(trial)
            return float(estimate), float(se)
        model = {name: value for name, value in self.options.items() if name in _MODEL_OPTIONS}
        fit = {name: value for name, value in self.options.items() if name not in _MODEL_OPTIONS}
        how = {"cov_type": "bootstrap", "n_boot": n_boot} if n_boot else {"cov_type": "robust"}
        res = trial.model(self.run, **model).fit(**(how | {"rng": trial.seed} | fit))
        return res.effect, res.effect_se

    @property
    def signature(self) -> str:
        """Text by which a resumed study recognizes the estimator and its options."""
        known = hasattr(self.run, "__qualname__")  # without its module, which may be __main__ today and moved tomorrow
        name = self.run.__qualname__.rpartition(".")[2] if known else repr(self.run)
        return f"{self.label}: {name} {dict(self.options)!r}"


def choose_estimators(estimators: Any) -> tuple[Entry, ...]:
    """Return the entries that were asked for.

    Parameters
    ----------
    estimators : None, name, model class, callable, sequence of these, or mapping
        A mapping's keys are labels and its values any of the first, or a pair of one and its options. None: those that
        need nothing else installed.

    Returns
    -------
    tuple of Entry
        The entries.

    Raises
    ------
    OptionError
        If one is not known, two have the same label, or options are given to a function.
    UnavailableError
        If one needs a package that is not installed.

    Examples
    --------
    >>> from causalrisk.simulation.entries import choose_estimators
    >>> chosen = choose_estimators(
    ...     {"IPWRA": "IPWRA", "JRE erm": ("JRE", {"objective": "erm"})}
    ... )
    >>> [entry.label for entry in chosen], chosen[1].options
    (['IPWRA', 'JRE erm'], {'objective': 'erm'})
    """
    if estimators is None:
        estimators = DEFAULT
    if isinstance(estimators, Mapping):
        named = list(estimators.items())
    else:
        single = isinstance(estimators, (str, type)) or callable(estimators)
        named = [(None, item) for item in ([estimators] if single else estimators)]
    entries = tuple(_entry(label, item) for label, item in named)
    labels = [entry.label for entry in entries]
    if not labels:
        raise OptionError("estimators is empty; expected at least one.\nLeave it out for the usual ones.")
    for label in labels:
        if labels.count(label) > 1:
            raise OptionError(
                f"estimators: {label!r} is named twice.\nName each estimator once, or give labels: a dict."
            )
    return entries


def _entry(label: str | None, item: Any) -> Entry:
    """Check one entry and return it."""
    if isinstance(item, Entry):
        return item
    what, options = item if isinstance(item, tuple) and len(item) == 2 else (item, {})
    if isinstance(what, str):
        found = (BY_NAME | ALIASES).get(what) or COMPETITORS.get(what)
        if found is None:
            raise _unknown(what)
        check_installed(what)
        label = label or (ALIASES[what].spec.name if what in ALIASES else what)
    elif isinstance(what, type) and issubclass(what, CausalModel):
        found, label = what, label or what.spec.name
    elif callable(what) and not isinstance(what, type):
        found, label = what, label or getattr(what, "__name__", repr(what))
    else:
        raise _unknown(what)
    if not isinstance(options, Mapping):
        raise OptionError(
            f"estimators: the options of {label!r} are {options!r}; expected a mapping.\n"
            'Use `estimators={"JRE erm": ("JRE", {"objective": "erm"})}`.'
        )
    if options and not isinstance(found, type):
        raise OptionError(f"estimators: {label!r} takes no options.\nGive it as it is, or wrap it in a function.")
    return Entry(str(label), found, dict(options))


def _unknown(what: Any) -> OptionError:
    also = f" ({listed(tuple(OUTSIDE))} need other packages), a model class, or a function of a Trial"
    names = [*BY_NAME, *COMPETITORS]
    return OptionError(
        f"estimator {what!r} is not known; expected one of {listed(names)}{also}.\n{near(str(what), names)}".rstrip()
    )


def check_picklable(entries: Sequence[Entry], designs: Sequence[Any]) -> None:
    """Refuse estimators and designs that cannot be sent to another process."""
    for what in (*designs, *(entry.run for entry in entries)):
        try:
            pickle.dumps(what)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise OptionError(
                f"{what!r} cannot be sent to another process: {error}.\n"
                "Define it at the top level of a module, or use `n_jobs=1`."
            ) from error
