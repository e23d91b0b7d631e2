"""How effects differ: projections of the unit effects on groups or covariates, with their influence functions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from causalrisk.design import Moderators, moderators
from causalrisk.errors import CausalRiskError, Notes, OptionError, UnavailableError, check_alpha
from causalrisk.estimators.effect_scales import DIFFERENCE, EffectScale
from causalrisk.estimators.options import InferenceOptions
from causalrisk.estimators.record import FitRecord
from causalrisk.estimators.separate import (
    LINEAR,
    estimate_separately,
    project_arm,
    row_weights,
    training_columns,
    training_family,
)
from causalrisk.inference.bootstrap import bootstrap, refitter_of
from causalrisk.inference.covariance import influence_covariance
from causalrisk.inference.hypotheses import inference_frame
from causalrisk.inference.prediction import check_unit_level
from causalrisk.numerics.failures import Failure, failure_text
from causalrisk.numerics.linalg import Array


@dataclass(frozen=True)
class Projection:
    """Effects of each arm against arm 0, projected on k columns.

    Parameters
    ----------
    values : ndarray, shape (K - 1, k)
        Coefficients; of indicators of groups the effects in the groups.
    influence : ndarray, shape (n, K - 1, k)
        Their influence function; rows in the order of the sample.
    """

    values: Array
    influence: Array


def project_effects(record: FitRecord, columns: Array, scale: EffectScale, *, groups: bool) -> Projection:
    """Project the unit effects of an estimator that trains each arm by itself.

    Parameters
    ----------
    record : FitRecord
        The fit.
    columns : ndarray, shape (n, k)
        What to project on, rows in the order of the sample.
    scale : EffectScale
        How effects are reported; on other scales than the difference only for groups.
    groups : bool
        Whether the columns are indicators of groups.

    Returns
    -------
    Projection
        The best linear projection under the target's distribution: b solves mean t g (tau - g'b) = 0, with the
        correction of AIPW in the place of tau's bias. For an estimator of constants, weighted means in each group, or
        the weighted regressions on the columns.

    References
    ----------
    .. [1] Semenova, V. and Chernozhukov, V. (2021). Debiased machine learning of conditional average treatment effects
       and other causal functions. Econometrics Journal 24, 264-289.
    """
    sample, spec, estimate = record.sample, record.spec, record.estimate
    if spec.constants:  # the class of constants becomes that of the columns
        basis = replace(sample.X, columns=columns)
        sample, spec = replace(sample, X=basis, family=LINEAR), replace(spec, constants=False)
        estimate = estimate_separately(sample, spec, row_weights(sample, record.weight_fit, record.target))
    weights = row_weights(sample, record.weight_fit, record.target)
    q, family = training_columns(sample, spec), training_family(sample, spec)
    slope, n_arms = family.mean_deriv(estimate.theta @ q.T), sample.n_arms
    means, influence = [], []
    for arm in range(n_arms):
        mean, by_theta, known = project_arm(
            sample, spec, weights, columns, q, arm=arm, predicted=estimate.predicted[arm], slope=slope[arm]
        )
        means.append(mean)
        influence.append(known + estimate.influence[:, estimate.block("theta", arm)] @ by_theta.T)
    stacked, moved = np.stack(means), np.stack(influence, axis=1)
    if not groups:
        return Projection(stacked[1:] - stacked[0], moved[:, 1:] - moved[:, :1])
    jacobians = [scale.jacobian(stacked[:, g])[: n_arms - 1] for g in range(stacked.shape[1])]
    values = scale.effects(stacked)
    combined = np.stack([moved[:, :, g] @ jacobian.T for g, jacobian in enumerate(jacobians)], axis=2)
    return Projection(values, combined)


def joint_group_effects(record: FitRecord, groups: Array, n_boot: int) -> tuple[Array, Array]:
    """Train the arms of a joint fit anew for the effects in groups, and bootstrap them.

    Parameters
    ----------
    record : FitRecord
        A joint fit.
    groups : ndarray, shape (n, G)
        Indicators of the groups, rows in the order of the sample.
    n_boot : int
        Resamples.

    Returns
    -------
    values, se : ndarray, shape (K - 1, G)
        Effects of one model in which every group has a risk and a variance of its own, and their standard errors over
        the resamples of the fit.
    """
    sample, refitter = record.sample, refitter_of(record, groups)
    shape = groups.shape[1], sample.n_arms - 1
    point = refitter.refit(sample.s[:, None], 0)
    if point.failures[0] != Failure.OK:
        raise CausalRiskError(
            f"the joint objective of the groups has no solution: {failure_text(point.failures)}.\n"
            "Merge small groups, or type  res.start.effects_by(...)."
        )
    resampling = record.resampler()
    boot = bootstrap(refitter, resampling, sample, InferenceOptions(n_boot=n_boot), Notes())
    se = np.sqrt(np.diag(boot.covariance()))
    return point.values[:, 0].reshape(shape).T, se.reshape(shape).T


DRAWS = 999  # resamples of a joint fit that has none of its own


def effects_by(record: FitRecord, by: Any, data: Any = None, alpha: float = 0.05) -> pd.DataFrame:
    """Effects in groups, or how the effect changes along covariates.

    JRE trains its arms anew, with a risk and a variance for each group; it has no projections.

    Parameters
    ----------
    by : str or array_like
        Name of a variable of the model's formulas or of `data`, or one value per row: the effect in each group.
        Text that begins with "~" is a formula: the coefficients of the best linear projection of the unit effects
        on its columns.
    data : DataFrame or mapping, optional
        The data the model was made from, for variables that its formulas do not use.
    alpha : float, default 0.05
        Significance level of the intervals.

    Returns
    -------
    DataFrame
        A row a group or column (of several arms a row an effect and group): estimate, std err, z, P>|z| and the
        limits of the interval; for groups also their rows. Standard errors are robust, clustered where the fit is;
        for JRE the bootstrap's.

    Raises
    ------
    DesignError
        If a variable is unknown or misses values.
    UnavailableError
        For a projection by JRE, whose unit effects mean nothing; for the effect over a target frame.

    References
    ----------
    .. [1] Semenova, V. and Chernozhukov, V. (2021). Debiased machine learning of conditional average treatment
       effects and other causal functions. Econometrics Journal 24, 264-289.

    Examples
    --------
    >>> from causalrisk import AIPW, datasets
    >>> births = datasets.load_cattaneo2()
    >>> res = AIPW.from_formula("bweight ~ mage + mmarried", births, treat="mbsmoke").fit()
    >>> res.effects_by("mmarried")[["n", "estimate", "std err"]].round(1)
                 n  estimate  std err
    mmarried
    0         1394    -168.6     32.9
    1         3248    -276.5     30.8
    """
    check_alpha(alpha)
    if record.frame is not None:
        raise UnavailableError(
            "effects_by has no groups of a target frame.\nType  target=  with the rows of one group at a time."
        )
    found = moderators(record.design, by, data)
    scale = record.options.effect_scale
    if not found.groups:
        check_unit_level(record, "effects_by(...)")
        if scale is not DIFFERENCE:
            raise OptionError(
                f'a projection is one of differences, and this fit reports effect="{scale.name}".\n'
                'Type  model.with_options(effect="difference").fit().effects_by(...).'
            )
    values, se = _projected(record, found)
    index: pd.Index = pd.Index(found.names, name=found.name if found.groups else "term")
    if len(values) > 1:
        index = pd.MultiIndex.from_product([record.effect_names, found.names], names=["effect", index.name])
    frame = inference_frame(values.ravel(), se.ravel(), scale.null if found.groups else 0.0, alpha, index)
    if found.groups:
        counts = found.columns.sum(axis=0).astype(int)
        frame.insert(0, "n", np.tile(counts, len(values)))
    return frame


def _projected(record: FitRecord, found: Moderators) -> tuple[Array, Array]:
    """Effects by the columns found and their standard errors, each of shape (K - 1, k)."""
    sample, columns = record.sample, found.columns[record.sample.order]
    if record.joint is not None:
        return joint_group_effects(record, columns, DRAWS if record.boot is None else len(record.boot.failures))
    projection = project_effects(record, columns, record.options.effect_scale, groups=found.groups)
    covariance = influence_covariance(record, projection.influence.reshape(sample.n, -1))
    return projection.values, np.sqrt(np.diag(covariance)).reshape(projection.values.shape)


def pairwise(record: FitRecord, alpha: float = 0.05) -> pd.DataFrame:
    """Effects of every arm against every other, with the fit's own standard errors.

    Parameters
    ----------
    alpha : float, default 0.05
        Significance level of the intervals; they are not adjusted for the number of pairs.

    Returns
    -------
    DataFrame
        A row a pair, indexed by the arm and the one it is compared with.
    """
    check_alpha(alpha)
    n_arms, block = record.design.n_arms, record.estimate.block("means")
    means, covariance = record.estimate.params[block], record.covariance[block, block]
    scale, labels = record.options.effect_scale, record.design.labels
    values, variances, pairs = [], [], []
    for low, high in combinations(range(n_arms), 2):
        both = np.array([low, high])
        slope = scale.jacobian(means[both])[0]
        values.append(scale.effects(means[both])[0])
        variances.append(slope @ covariance[np.ix_(both, both)] @ slope)
        pairs.append((labels[high], labels[low]))
    index = pd.MultiIndex.from_tuples(pairs, names=["arm", "against"])
    return inference_frame(np.array(values), np.sqrt(np.clip(variances, 0, None)), scale.null, alpha, index)
