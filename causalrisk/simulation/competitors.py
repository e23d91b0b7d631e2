"""Estimators that are not models of the package: Lin's regression, and those of other packages where installed."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np

from causalrisk.errors import UnavailableError
from causalrisk.numerics.linalg import Array

OUTSIDE = {"DoubleML IRM": ("doubleml", "sklearn"), "zEpid TMLE": ("zepid",), "statsmodels AIPW": ("statsmodels",)}
PROJECTS = {"sklearn": "scikit-learn"}


def check_installed(name: str) -> None:
    """Raise an UnavailableError where an estimator needs a package that is not installed."""
    missing = [PROJECTS.get(package, package) for package in OUTSIDE.get(name, ()) if find_spec(package) is None]
    if missing:
        raise UnavailableError(
            f"{name} needs {' and '.join(missing)}, which is not installed.\n"
            f"Type  pip install {' '.join(missing)}, or leave it out of estimators=."
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
