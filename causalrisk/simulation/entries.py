"""The estimators of a study: names, model classes with options, or functions, as entries that a worker can run."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from causalrisk.errors import OptionError, check_distinct, listed
from causalrisk.errors.aliases import near
from causalrisk.models.estimators import ALIASES, BY_NAME, OutcomeRegression
from causalrisk.models.model import OPTIONS, CausalModel


def lin(trial: Any) -> tuple[float, float]:
    """Lin's regression: treatment, centred covariates and their products, with HC2 standard errors [1]_.

    Parameters
    ----------
    trial : Trial
        The sample.

    Returns
    -------
    estimate, se : float
        The estimate equals `OutcomeRegression`'s. The standard error treats the covariates as fixed.

    References
    ----------
    .. [1] Lin, W. (2013). Agnostic notes on regression adjustments to experimental data. Annals of Applied Statistics
       7, 295-318.
    """
    from statsmodels.regression.linear_model import OLS  # here, so that importing causalrisk stays fast

    design = trial.model().design
    treated, centred = design.arm[:, None], design.X[:, np.ptp(design.X, axis=0) > 0]
    centred = centred - centred.mean(axis=0)
    columns = np.hstack([np.ones_like(treated), treated, centred, treated * centred])
    fit = OLS(design.y, columns).fit(cov_type="HC2")
    return fit.params[1], fit.bse[1]


DEFAULT = ("Unadjusted", "Lin", "OutcomeRegression", "Hajek", "IPWRA", "AIPW", "JRE")


@dataclass
class Trial:
    """One sample, as given to an estimator.

    Parameters
    ----------
    data : DataFrame, shape (n, p + 2)
        Outcome y, treatment d, covariates.
    formula, propensity : str
        Formulas of the analyst.
    seed : SeedSequence
        Randomness of the estimators, the same for all of them, so their errors are paired.
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
            The model. Models that differ only in the estimator share the parsed formulas.
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
        Estimator. A callable takes a `Trial` and returns the estimate and its standard error.
    options : mapping
        Options of `from_formula` and of `fit`; empty for a callable.
    """

    label: str
    run: Any
    options: Mapping[str, Any]

    def estimate(self, trial: Trial, n_boot: int) -> tuple[float, float]:
        """Return the estimated effect and its standard error, which is robust if n_boot is 0."""
        if not isinstance(self.run, type):
            estimate, se = self.run(trial)
            return float(estimate), float(se)
        model = {name: value for name, value in self.options.items() if name in ("formula", *OPTIONS)}
        fit = {name: value for name, value in self.options.items() if name not in model}
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
    """Return the entries of the given estimators.

    Parameters
    ----------
    estimators : None, name, model class, callable, sequence of these, or mapping
        A mapping has labels as keys. Its values are estimators, or pairs of an estimator and its options. None gives
        the default estimators.

    Returns
    -------
    tuple of Entry
        The entries.

    Raises
    ------
    OptionError
        If an estimator is unknown, two have the same label, or options are given to a function.

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
    check_distinct("estimators", [entry.label for entry in entries])
    return entries


def _entry(label: str | None, item: Any) -> Entry:
    """Check one entry and return it."""
    what, options = item if isinstance(item, tuple) and len(item) == 2 else (item, {})
    found = (BY_NAME | ALIASES | {"Lin": lin}).get(what) if isinstance(what, str) else what
    if isinstance(found, type) and issubclass(found, CausalModel):
        name = found.spec.name
    elif callable(found) and not isinstance(found, type):
        name = "Lin" if found is lin else getattr(found, "__name__", repr(found))
    else:
        names = [*BY_NAME, "Lin"]
        known = f"expected one of {listed(names)}, a model class, or a function of a Trial"
        raise OptionError(f"estimator {what!r} is not known; {known}.\n{near(str(what), names)}".rstrip())
    label = label or name
    if not isinstance(options, Mapping):
        raise OptionError(
            f"estimators: the options of {label!r} are {options!r}; expected a mapping.\n"
            'Use `estimators={"JRE erm": ("JRE", {"objective": "erm"})}`.'
        )
    if options and not isinstance(found, type):
        raise OptionError(f"estimators: {label!r} takes no options.\nGive it as it is, or wrap it in a function.")
    return Entry(str(label), found, dict(options))


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
