"""Heterogeneity of effects: projections of the unit effects on groups or covariates, with their influence functions."""

from __future__ import annotations

import hashlib
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, permutations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalrisk.design import ScannedDesign
from causalrisk.design.covariates import Moderators, moderators
from causalrisk.design.design import rows_not_kept
from causalrisk.errors import (
    CausalRiskError,
    CausalRiskWarning,
    Failure,
    Notes,
    OptionError,
    UnavailableError,
    check_alpha,
    failure_text,
    warn_user,
    whole_number,
)
from causalrisk.estimators.estimates import RELATIVE_ROUNDING
from causalrisk.estimators.fit import check_one_way
from causalrisk.estimators.options import N_BOOT, Adjustment, InferenceOptions, default_bootstrap
from causalrisk.estimators.outcome import trained_rows, training_family
from causalrisk.estimators.record import BootstrapDistribution, FitRecord, influence_covariance, of_means
from causalrisk.estimators.resampling import sample_resampler
from causalrisk.estimators.separate import estimate_separately, project_arms
from causalrisk.estimators.specification import DIFFERENCE, EffectScale
from causalrisk.estimators.weights import row_weights
from causalrisk.inference.covariance import (
    bootstrap,
    drawn_or_weighed,
    jackknife_of,
    leave_one_out,
    left_out_resampler,
    refitter_of,
    resample_covariance,
    resample_errors,
)
from causalrisk.inference.fitted_models import check_unit_level
from causalrisk.inference.intervals import inference_frame, joint_test, wald_statistic
from causalrisk.inference.simultaneous import REFERENCE, adjusted_frame, check_adjustment, pairs_against
from causalrisk.numerics.linalg import Array
from causalrisk.numerics.multiplicities import JACKKNIFE, MULTIPLIERS, RESAMPLE_STREAM, WIDTH, seed_sequence, seed_text
from causalrisk.propensity.weights import fit_weights


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
        Columns to project on, rows in the order of the sample.
    scale : EffectScale
        Scale on which effects are reported; other scales than the difference only for groups.
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
        sample = replace(sample, X=basis, family=training_family(sample, spec))
        spec = replace(spec, constants=False)
        estimate = estimate_separately(sample, spec, row_weights(sample, record.weight_fit, record.target))
        if any(estimate.failed):
            raise CausalRiskError(
                f"the {sample.family.label} model of the groups has no finite fit: in some group an arm has no outcome "
                "above zero.\nMerge small groups, or leave these rows out."
            )
    weights = row_weights(sample, record.weight_fit, record.target)
    rows = replace(trained_rows(sample, spec, weights, estimate.theta), predicted=estimate.predicted)
    means, influence = [], []
    for arm, (mean, by_theta, known) in enumerate(project_arms(rows, columns)):
        means.append(mean)
        influence.append(known + estimate.influence[:, estimate.block("theta", arm)] @ by_theta.T)
    stacked, moved = np.stack(means), np.stack(influence, axis=1)
    if not groups:
        return Projection(stacked[1:] - stacked[0], moved[:, 1:] - moved[:, :1])
    if scale is not DIFFERENCE:  # a mean of zero to rounding is put on zero: a ratio to it would be a large number
        overall = np.abs(record.estimate.params[-sample.n_arms :])[:, None]
        stacked = scale.on_bounds(stacked, RELATIVE_ROUNDING * overall)
    jacobians = [scale.jacobian(stacked[:, g])[: sample.n_arms - 1] for g in range(stacked.shape[1])]
    values = scale.effects(stacked)
    with np.errstate(invalid="ignore"):  # a group without an effect
        combined = np.stack([moved[:, :, g] @ jacobian.T for g, jacobian in enumerate(jacobians)], axis=2)
    return Projection(values, combined)


def joint_group_effects(record: FitRecord, groups: Array, inference: InferenceOptions) -> tuple[Array, Array]:
    """Train the arms of a joint fit anew for the effects in groups, and bootstrap them; once for equal arguments.

    Parameters
    ----------
    record : FitRecord
        A joint fit, or a stack.
    groups : ndarray, shape (n, G)
        Indicators of the groups, rows in the order of the sample.
    inference : InferenceOptions
        Number of resamples, their seed, workers, progress.

    Returns
    -------
    values : ndarray, shape (K - 1, G)
        Effects of one model in which every group has a risk and a variance of its own; of a stack their averages.
    resampled : ndarray, shape (m, K - 1, G)
        The effects in the resamples of the fit that worked.
    """
    seed = seed_sequence(inference.rng)
    key = hashlib.sha256(groups.tobytes()).digest(), groups.shape, inference.draws, seed_text(seed)
    if key in record.group_resamples:
        return record.group_resamples[key]
    sample, refitter = record.sample, refitter_of(record, groups)
    shape = groups.shape[1], sample.n_arms - 1
    point = refitter.refit(sample.s[:, None])
    if point.failures[0] != Failure.OK:
        raise CausalRiskError(
            f"the joint objective of the groups has no solution: {failure_text(point.failures)}.\n"
            "Merge small groups, or type  res.start.effects_by(...)."
        )

    def run(of: FitRecord) -> BootstrapDistribution:
        kind = default_bootstrap(bool(of.design.n_clusters)) if of.bootstrap in MULTIPLIERS else of.bootstrap
        return bootstrap(refitter, sample_resampler(of.design, sample, kind, seed), sample, inference)

    if record.cov_type == JACKKNIFE:
        redone = leave_one_out(record, inference, groups=groups).values
    else:
        redone = drawn_or_weighed(record, inference, Notes(), run)[1].used
    found = point.values[:, 0].reshape(shape).T, redone.reshape(-1, *shape).transpose(0, 2, 1)
    record.group_resamples[key] = found
    return found


OWN = "fit"  # rng="fit" takes the seed of the fit


def _resampling(record: FitRecord, n_boot: int | None, rng: Any, n_jobs: int, progress: bool) -> InferenceOptions:
    """Check the bootstrap options of effects in groups by JRE; by default the resamples of the fit."""
    if record.joint is not None:
        check_one_way(record.design, "res.start.effects_by(...)")
    own_seed = isinstance(rng, str) and rng == OWN
    left_out = record.cov_type == JACKKNIFE
    if (record.joint is None or left_out) and (n_boot is not None or not own_seed):
        name, errors = "n_boot" if n_boot is not None else "rng", "jackknife" if left_out else "robust"
        raise OptionError(
            f"{name}= is for effects in groups by JRE, which are bootstrapped; those of this fit have {errors} "
            f"standard errors.\nLeave {name}= out."
        )
    if n_boot is None and record.boot is not None:
        n_boot = len(record.boot.failures)
    classifier = record.options.propensity_score is not None
    if record.joint is not None and classifier and n_boot is None and not left_out:
        folds = record.options.n_folds
        raise OptionError(
            f"effects in groups by JRE are bootstrapped, and each resample fits the classifier {folds} times: {N_BOOT} "
            f"resamples, as without a classifier, would be {N_BOOT * folds} fits. Say how many you want.\n"
            "Type  n_boot=99, progress=True."
        )
    return InferenceOptions(n_boot=n_boot, rng=record.seed if own_seed else rng, n_jobs=n_jobs, progress=progress)


@of_means
def effects_by(
    record: FitRecord,
    by: Any,
    data: Any = None,
    alpha: float = 0.05,
    *,
    n_boot: int | None = None,
    rng: Any = OWN,
    n_jobs: int = 1,
    progress: bool = False,
    at: Any = None,
    adjust: Adjustment | None = None,
    against: Any = REFERENCE,
) -> pd.DataFrame:
    """Effects in groups, or how the effect changes along covariates.

    JRE trains its arms anew, with a risk and a variance for each group; it has no projections. Its standard errors are
    the bootstrap's: this costs about what the bootstrap of a fit does, with a classifier its fits for each resample and
    fold. The resamples are kept, so that `differences_by` and `equality_test` of the same groups take them. A stack
    averages the effects of its fits in each group with its weights, on the scale where they are differences.

    Parameters
    ----------
    by : str, array_like or list of them
        Name of a variable of the model's formulas or of `data`, or one value per row: the effect in each group; of
        several, such as ["sex", "region"], in each combination that occurs. Text that begins with "~" is a formula:
        the coefficients of the best linear projection of the unit effects on its columns.
    data : DataFrame or mapping, optional
        The data the model was made from, for variables that its formulas do not use.
    alpha : float, default 0.05
        Significance level of the intervals.
    n_boot : int, optional
        Resamples (JRE only); by default as many as the fit has, and the same ones, or 999 where it has none. With a
        classifier and a fit that has none it has to be given.
    rng : int, Generator, SeedSequence or None, default "fit"
        Source of randomness (JRE only), as in `fit`; "fit" is the seed of the fit.
    n_jobs : int, default 1
        Threads, as in `fit` (JRE only).
    progress : bool, default False
        Show a progress bar of the resamples, as in `fit` (JRE only).
    at : int, array_like, mapping or DataFrame, optional
        For a formula: values of its variable at which the projection is evaluated, in place of its coefficients; a
        number of values from the smallest to the largest; of several variables a column each.
    adjust : {"single-step", "holm", "bonferroni", "hochberg", "fdr_bh"}, optional
        Adjusts p-values for the number of rows, and makes the intervals simultaneous: with "single-step" by the
        largest of the correlated statistics, with `at` a uniform band. See `pairwise`.
    against : level or label, default "reference"
        Arm that the others are compared with; None for all pairs of arms.

    Returns
    -------
    DataFrame
        A row a group, column or value (of several arms a row an effect and group): estimate, std err, z, P>|z| (t,
        P>|t| where the fit has degrees of freedom), with `adjust` "adjusted P", and the limits of the interval; for
        groups also their n, rows or what their frequency weights add up to. Standard errors are robust, clustered where
        the fit is; for JRE the bootstrap's; after ``cov_type="jackknife"`` the jackknife's, which fits anew without
        each row or cluster.

    Raises
    ------
    DesignError
        If a variable is unknown or misses values.
    UnavailableError
        For a projection by JRE, whose unit effects mean nothing; for the effect over a target frame; for a fit to a
        scan, whose rows are not kept.
    OptionError
        If `n_boot` or `rng` is given for another estimator than JRE, or no `n_boot` for a classifier as above; `at` for
        groups; an arm that is not known.

    References
    ----------
    .. [1] Semenova, V. and Chernozhukov, V. (2021). Debiased machine learning of conditional average treatment
       effects and other causal functions. Econometrics Journal 24, 264-289.

    Examples
    --------
    >>> from causalrisk import AIPW, datasets
    >>> births = datasets.load_cattaneo2()
    >>> res = AIPW.from_formula(
    ...     "bweight ~ mage + mmarried", births, treat="mbsmoke"
    ... ).fit()
    >>> res.effects_by("mmarried")[["n", "estimate", "std err"]].round(1)
                 n  estimate  std err
    mmarried
    0         1394    -168.6     32.9
    1         3248    -276.5     30.8

    The effect along age with a uniform band:

    >>> along = res.effects_by("~ bs(mage, df=4)", at=[20, 30], adjust="single-step")
    >>> along.iloc[:, [0, 1, -2, -1]].round(1)
          estimate  std err  [0.025  0.975]
    mage
    20      -155.6     41.2  -247.6   -63.7
    30      -303.5     36.8  -385.6  -221.5
    """
    check_alpha(alpha)
    check_adjustment(adjust)
    found = _moderators(record, by, data)
    scale, pairs = record.options.effect_scale, _arm_pairs(record, against)
    if not found.groups:
        check_unit_level(record, "effects_by(...)")
        if scale is not DIFFERENCE:
            raise OptionError(
                f'a projection is one of differences, and this fit reports effect="{scale.name}".\n'
                'Type  model.with_options(effect="difference").fit().effects_by(...).'
            )
    elif at is not None:
        raise OptionError(
            f'at= is for formulas; {by!r} has groups.\nLeave at= out, or type  effects_by("~ ...", at=10).'
        )
    effects = _projected(record, found, _resampling(record, n_boot, rng, n_jobs=n_jobs, progress=progress))
    names, levels = list(found.names), found.levels if found.groups else ("term",)
    if at is not None:
        columns, names, levels = _values_at(found, at)
        effects = effects.at(columns)
    effects = effects.between(pairs, scale)
    index = _index(record, names, levels, pairs)
    values, se = effects.values.ravel(), effects.se.ravel()
    frame = inference_frame(values, se, alpha, index, scale, effects.errors, record.df)
    frame = adjusted_frame(frame, effects.covariance, adjust=adjust, alpha=alpha, df=record.df, scale=scale)
    if found.groups:
        counts = (record.design.units @ found.columns).astype(int)
        frame.insert(0, "n", np.tile(counts, len(effects.values)))
    return frame


@of_means
def differences_by(
    record: FitRecord,
    by: Any,
    data: Any = None,
    alpha: float = 0.05,
    *,
    n_boot: int | None = None,
    rng: Any = OWN,
    n_jobs: int = 1,
    progress: bool = False,
    adjust: Adjustment | None = None,
    against: Any = None,
) -> pd.DataFrame:
    """Differences of the effects between groups: each group against each other, both ways.

    Parameters
    ----------
    by, data
        As in `effects_by`, for groups.
    alpha : float, default 0.05
        Significance level of the intervals.
    n_boot, rng, n_jobs, progress
        As in `effects_by`, whose resamples are taken where it was asked for the same.
    adjust : {"single-step", "holm", "bonferroni", "hochberg", "fdr_bh"}, optional
        Adjusts for the number of pairs, each of which counts once, as in `pairwise`.
    against : group, optional
        Group that is subtracted from the others, "reference" for the first; by default all pairs.

    Returns
    -------
    DataFrame
        A row a pair of groups (of several arms an effect and pair), the second of which is subtracted: the columns of
        `effects_by` without n. For a ratio or odds ratio the estimate is the quotient of the
        two, for a percentage the quotient of the underlying ratios, in percent.

    Raises
    ------
    DesignError
        As `effects_by`.
    OptionError
        If `by` is a formula, which has no groups, or makes one group only; a group that is not known.

    Examples
    --------
    >>> from causalrisk import AIPW, datasets
    >>> births = datasets.load_cattaneo2()
    >>> res = AIPW.from_formula(
    ...     "bweight ~ mage + mmarried", births, treat="mbsmoke"
    ... ).fit()
    >>> res.differences_by("mmarried")[["estimate", "std err", "z"]].round(1)
                    estimate  std err    z
    mmarried minus
    0        1         107.9     45.4  2.4
    1        0        -107.9     45.4 -2.4
    """
    check_alpha(alpha)
    check_adjustment(adjust)
    found, scale = _groups(record, by, data, "differences_by"), record.options.effect_scale
    pairs = list(permutations(range(len(found.names)), 2)) if against is None else _group_pairs(found, against)
    effects = _projected(record, found, _resampling(record, n_boot, rng, n_jobs=n_jobs, progress=progress))
    first = np.arange(len(effects.values))[:, None] * len(found.names)  # of each effect
    one, other = ((first + [pair[k] for pair in pairs]).ravel() for k in (0, 1))
    on_scale, cov = scale.contrast(effects.values.ravel()), effects.covariance
    values = scale.report(on_scale[one] - on_scale[other])
    covariance = cov[np.ix_(one, one)] + cov[np.ix_(other, other)] - cov[np.ix_(one, other)] - cov[np.ix_(other, one)]
    errors = np.sqrt(np.clip(np.diag(covariance), 0, None))
    names = [
        (*_as_tuple(found.names[a]), found.names[b] if len(found.levels) == 1 else ", ".join(found.names[b]))
        for a, b in pairs
    ]
    se = errors * scale.report_slope(scale.contrast(values))
    index = _index(record, names, (*found.levels, "minus"))
    frame = inference_frame(values, se, alpha, index, scale, errors, record.df)
    same = [pairs.index(pair[::-1]) if pair[::-1] in pairs else k for k, pair in enumerate(pairs)]
    twins = np.minimum(same, np.arange(len(pairs))) + np.arange(len(effects.values))[:, None] * len(pairs)
    return adjusted_frame(frame, covariance, adjust=adjust, alpha=alpha, df=record.df, scale=scale, twins=twins.ravel())


@of_means
def equality_test(
    record: FitRecord,
    by: Any,
    data: Any = None,
    *,
    n_boot: int | None = None,
    rng: Any = OWN,
    n_jobs: int = 1,
    progress: bool = False,
) -> Any:
    """Test that the effect is the same in all groups.

    Parameters
    ----------
    by, data
        As in `effects_by`, for groups.
    n_boot, rng, n_jobs, progress
        As in `effects_by`, whose resamples are taken where it was asked for the same.

    Returns
    -------
    statsmodels.stats.contrast.ContrastResults
        Chi-squared test with one degree of freedom less than there are groups (of several arms for each effect), fewer
        where differences depend on each other, as where a difference is zero without sampling error, or where the
        effects in many groups are made of few coefficients; of ratios that their logarithms are the same. Where the
        fit has degrees of freedom it is an F test. With robust errors a joint test may reject too often in small
        samples, as at `wald_test`.

    Warns
    -----
    CausalRiskWarning
        If there is no test, and the statistic is NaN: a group has no effect on this scale, as a ratio where an arm has
        no events; or effects differ without sampling error, as where all outcomes of each arm in a group are alike,
        which says nothing of how much they would differ in another sample. The warning names the groups.

    Examples
    --------
    >>> from causalrisk import AIPW, datasets
    >>> births = datasets.load_cattaneo2()
    >>> res = AIPW.from_formula(
    ...     "bweight ~ mage + mmarried", births, treat="mbsmoke"
    ... ).fit()
    >>> print(f"{float(res.equality_test('mmarried').pvalue):.3f}")
    0.018
    """
    found, scale = _groups(record, by, data, "equality_test"), record.options.effect_scale
    effects = _projected(record, found, _resampling(record, n_boot, rng, n_jobs=n_jobs, progress=progress))
    values = scale.contrast(effects.values.ravel())
    left = np.kron(np.eye(len(effects.values)), np.eye(len(found.names))[1:] - np.eye(len(found.names))[0])
    none = np.asarray(~np.isfinite(values.reshape(effects.values.shape)).all(axis=0))
    if none.any():
        return _untested(found, none, "have no effect on this scale", len(left))
    statistic, count, contradicted = wald_statistic(left, np.zeros(len(left)), values, effects.covariance)
    # Differences that depend on each other otherwise than linearly, as of ratios, contradict each other a little.
    exact = _without_error(values, effects.covariance, len(found.names)) if contradicted else none
    if exact.any():
        return _untested(found, exact, "have effects without sampling error, which differ", len(left))
    return joint_test(statistic, count, record.df)


def _without_error(values: Array, covariance: Array, size: int) -> NDArray[np.bool_]:
    """Which groups, shape (G,), have an effect that differs from that of another one without sampling error."""
    found = np.zeros(size, dtype=bool)
    for first in range(0, len(values), size):
        for pair in combinations(range(size), 2):
            gap = np.zeros((1, len(values)))
            gap[0, first + np.array(pair)] = 1, -1
            found[list(pair)] |= wald_statistic(gap, np.zeros(1), values, covariance)[2]
    return found


def _untested(found: Moderators, which: NDArray[np.bool_], what: str, count: int) -> Any:
    """Warn that there is no test, and of which groups; return NaN."""
    names = "; ".join(", ".join(_as_tuple(found.names[g])) for g in np.flatnonzero(which))
    by = ", ".join(found.levels)
    warn_user(
        f"equality_test has no answer (NaN): of {by} the groups  {names}  {what}.\n"
        "Type  res.differences_by(...)  for the pairs that can be compared, or merge these groups with others.",
        CausalRiskWarning,
    )
    return joint_test(np.nan, count)


def _moderators(record: FitRecord, by: Any, data: Any) -> Moderators:
    """Find the moderators, the columns of `by`; a target frame has none."""
    if record.frame is not None:
        raise UnavailableError(
            "effects_by has no groups of a target frame.\nType  target=  with the rows of one group at a time."
        )
    if isinstance(record.design, ScannedDesign):
        name = repr(by) if isinstance(by, str) and "~" not in by else '"..."'
        raise rows_not_kept(
            "effects_by",
            f"Type  data=scan(lambda: (block.frame[block.frame[{name}] == level] for block in data.blocks()))  for a "
            "model of the rows of one level. ",
        )
    return moderators(record.design, by, data)


def _groups(record: FitRecord, by: Any, data: Any, name: str) -> Moderators:
    """Find the groups, of which there have to be two or more."""
    found = _moderators(record, by, data)
    if not found.groups:
        raise OptionError(f'{name} is for groups; {by!r} is a formula.\nType  effects_by("{by}").')
    if len(found.names) < 2:
        raise OptionError(
            f"{name} compares groups; {', '.join(found.levels)} has one value only, {found.names[0]}.\n"
            "Name a variable with two values or more."
        )
    return found


def _group_pairs(found: Moderators, against: Any) -> list[tuple[int, int]]:
    """Return the positions of the groups and of the one they are compared with."""
    wanted = tuple(map(str, _as_tuple(against)))
    position = next((g for g, name in enumerate(found.names) if tuple(map(str, _as_tuple(name))) == wanted), None)
    return pairs_against(against, found.names, position)


def _arm_pairs(record: FitRecord, against: Any) -> list[tuple[int, int]]:
    """Return the positions of the arms and of those that they are compared with."""
    position = None if against is None else record.design.arm_named(against)
    return pairs_against(against, record.design.labels, position)


def _values_at(found: Moderators, at: Any) -> tuple[Array, list[Any], tuple[str, ...]]:
    """Return the columns of a formula at values of its variables, shape (m, k), these values, and their names."""
    if found.encoder is None:
        raise TypeError("a formula has an encoder")
    variables = found.encoder.variables
    if not isinstance(at, Mapping | pd.DataFrame):
        if len(variables) != 1:
            raise OptionError(
                f"at= has the values of one variable, and the formula {found.levels[0]!r} has {len(variables)}: "
                f"{', '.join(variables) or 'none'}.\n"
                f"Type  at=pandas.DataFrame({{{', '.join(f'{name!r}: [...]' for name in variables)}}})."
            )
        if isinstance(at, numbers.Integral) and not isinstance(at, bool):
            whole_number("at", at, 2)
            observed = found.encoder.sample_variables()[variables[0]]
            at = np.linspace(float(observed.min()), float(observed.max()), int(at))
        at = {variables[0]: np.atleast_1d(np.asarray(at))}
    frame = pd.DataFrame(at)
    names = list(frame[list(variables)].itertuples(index=False, name=None)) if set(variables) <= set(frame) else []
    return found.encoder.encode(frame), names, tuple(variables)


def _as_tuple(name: Any) -> tuple[Any, ...]:
    return name if isinstance(name, tuple) else (name,)


def _index(
    record: FitRecord, names: Sequence[Any], levels: Sequence[str], pairs: Sequence[tuple[int, int]] | None = None
) -> pd.Index:
    """Index with a row a name; for several arms, or pairs of them without the reference, a row an effect and name."""
    rows, labels, effects = [_as_tuple(name) for name in names], record.design.labels, record.effect_names
    if pairs is not None:
        effects = [
            f"{record.estimand}[{labels[one]} vs {labels[other]}]" if other else effects[one - 1]
            for one, other in pairs
        ]
    if record.design.n_arms > 2 or effects != record.effect_names:
        rows, levels = [(effect, *row) for effect in effects for row in rows], ("effect", *levels)
    if len(levels) == 1:
        return pd.Index([row[0] for row in rows], name=levels[0])
    return pd.MultiIndex.from_tuples(rows, names=list(levels))


@dataclass(frozen=True)
class ProjectedEffects:
    """Effects of each arm against the reference by k columns, with their sampling errors.

    Parameters
    ----------
    values, se : ndarray, shape (K - 1, k)
        Effects as they are reported, and their standard errors.
    covariance : ndarray, shape ((K - 1) k, (K - 1) k)
        On the scale where effects are differences, an arm after the other.
    """

    values: Array
    se: Array
    covariance: Array

    @property
    def errors(self) -> Array:
        """Standard errors on the scale where effects are differences, shape ((K - 1) k,)."""
        return np.sqrt(np.diag(self.covariance))

    def at(self, columns: Array) -> ProjectedEffects:
        """Return the projections of differences at rows of columns, shape (m, k)."""
        left = np.kron(np.eye(len(self.values)), columns)
        covariance = left @ self.covariance @ left.T
        values = self.values @ columns.T
        return ProjectedEffects(
            values, np.sqrt(np.clip(np.diag(covariance), 0, None)).reshape(values.shape), covariance
        )

    def between(self, pairs: Sequence[tuple[int, int]], scale: EffectScale) -> ProjectedEffects:
        """Return the effects of arms against others, by their positions; those against the reference are known."""
        count, k = self.values.shape
        if list(pairs) == [(arm, 0) for arm in range(1, count + 1)]:
            return self
        left = np.zeros((len(pairs), count + 1))
        for row, (one, other) in enumerate(pairs):
            left[row, one], left[row, other] = 1, -1
        left = np.kron(left[:, 1:], np.eye(k))
        on_scale, covariance = left @ scale.contrast(self.values.ravel()), left @ self.covariance @ left.T
        se = np.sqrt(np.clip(np.diag(covariance), 0, None)) * scale.report_slope(on_scale)
        shape = len(pairs), k
        return ProjectedEffects(scale.report(on_scale).reshape(shape), se.reshape(shape), covariance)


def _projected(record: FitRecord, found: Moderators, inference: InferenceOptions) -> ProjectedEffects:
    """Effects by the columns found."""
    sample, columns, scale = record.sample, found.columns[record.sample.order], record.options.effect_scale
    if record.joint is not None:
        values, redone = joint_group_effects(record, columns, inference)
        return _by_refits(record, values, redone)
    projection = project_effects(record, columns, scale, groups=found.groups)
    if record.cov_type in ("replicates", JACKKNIFE):
        return _by_refits(record, projection.values, _redone(record, columns, found.groups, inference))
    influence = projection.influence.reshape(sample.n, -1)
    with np.errstate(invalid="ignore", divide="ignore"):
        slope = scale.report_slope(scale.contrast(projection.values)).ravel()
        covariance = influence_covariance(record, influence / slope)
    se = np.sqrt(np.diag(covariance)) * slope
    return ProjectedEffects(projection.values, se.reshape(projection.values.shape), covariance)


def _by_refits(record: FitRecord, values: Array, redone: Array) -> ProjectedEffects:
    """Effects (K - 1, k) with their covariance by those of refits, shape (m, K - 1, k)."""
    scale, flat, effects = record.options.effect_scale, redone.reshape(len(redone), -1), np.asarray(values.ravel())
    if record.cov_type == JACKKNIFE:
        se, covariance = np.sqrt(np.diag(jackknife_of(record, flat))), jackknife_of(record, scale.contrast(flat))
    else:
        se = resample_errors(record, flat, effects)
        covariance = resample_covariance(record, scale.contrast(flat), scale.contrast(effects))
    return ProjectedEffects(values, se.reshape(values.shape), covariance)


def _redone(record: FitRecord, columns: Array, groups: bool, inference: InferenceOptions) -> Array:
    """Effects by columns under each of the replicate weights of a survey, or without each unit, shape (m, K - 1, k)."""
    left_out = record.cov_type == JACKKNIFE
    failures = leave_one_out(record, inference).failures if left_out else record.used_boot.failures
    resampling = left_out_resampler(record) if left_out else record.resampler()
    scale, spec, values = record.options.effect_scale, record.spec, []
    for r, failure in enumerate(failures):
        if failure != Failure.OK:
            values.append(np.full((record.design.n_arms - 1, columns.shape[1]), np.nan))
            continue
        weights = resampling.draw(RESAMPLE_STREAM, r // WIDTH, r % WIDTH + 1)[:, -1]
        sample, fit = record.sample.reweighted(weights), record.weight_fit
        if fit is not None:
            fit = fit_weights(fit.model, sample.s)
        estimate = estimate_separately(sample, spec, row_weights(sample, fit, record.target), scale)
        of_replicate = replace(record, sample=sample, weight_fit=fit, estimate=estimate)
        values.append(project_effects(of_replicate, columns, scale, groups=groups).values)
    return np.stack(values)


@of_means
def pairwise(
    record: FitRecord, alpha: float = 0.05, *, adjust: Adjustment | None = None, against: Any = None
) -> pd.DataFrame:
    """Effects of every arm against every other, or against one, with the fit's own standard errors.

    Parameters
    ----------
    alpha : float, default 0.05
        Significance level of the intervals.
    adjust : {"single-step", "holm", "bonferroni", "hochberg", "fdr_bh"}, optional
        Adjusts p-values for the number of pairs, and makes the intervals simultaneous. "single-step" takes the
        largest of the correlated statistics, as Tukey's and Dunnett's tests do; "bonferroni", "holm" and "hochberg"
        have Bonferroni's intervals. "fdr_bh" (Benjamini and Hochberg) controls the share of wrong rejections; its
        intervals are each by itself.
    against : level or label, optional
        Arm that the others are compared with, "reference" for the reference arm; by default all pairs.

    Returns
    -------
    DataFrame
        A row a pair, indexed by the arm and the one it is compared with; with `adjust` a column "adjusted P" more.

    Raises
    ------
    OptionError
        If the adjustment or the arm is not known.

    Examples
    --------
    >>> from causalrisk import IPWRA, datasets
    >>> births = datasets.load_cattaneo2()
    >>> res = IPWRA.from_formula(
    ...     "bweight ~ mage + medu", births, treat="msmoke", reference="0 daily"
    ... ).fit()
    >>> against_none = res.pairwise(adjust="single-step", against="reference")
    >>> against_none[["estimate", "adjusted P", "[0.025", "0.975]"]].round(3)
                        estimate  adjusted P   [0.025   0.975]
    arm        against
    1-5 daily  0 daily  -221.358         0.0 -326.678 -116.039
    11+ daily  0 daily  -297.714         0.0 -386.514 -208.915
    6-10 daily 0 daily  -242.570         0.0 -331.047 -154.093
    """
    check_alpha(alpha)
    check_adjustment(adjust)
    block, scale, labels = record.estimate.block("means"), record.options.effect_scale, record.design.labels
    pairs = _arm_pairs(record, against)
    one, other = np.array(pairs).T
    means, covariance = record.estimate.params[block], record.covariance[block, block]
    left = np.zeros((len(pairs), len(means)))
    left[np.arange(len(pairs)), one], left[np.arange(len(pairs)), other] = 1, -1
    on_scale, sloped = left @ scale.g(means), left * scale.g_slope(means)
    of_scale = sloped @ covariance @ sloped.T
    se = np.sqrt(np.clip(np.diag(of_scale), 0, None)) * scale.report_slope(on_scale)
    if record.boot is not None and scale is not DIFFERENCE:
        of_scale = resample_covariance(record, scale.g(record.boot.used[:, block]) @ left.T, on_scale)
    index = pd.MultiIndex.from_tuples([(labels[a], labels[b]) for a, b in pairs], names=["arm", "against"])
    errors = np.sqrt(np.clip(np.diag(of_scale), 0, None))
    frame = inference_frame(scale.report(on_scale), se, alpha, index, scale, errors, record.df)
    return adjusted_frame(frame, of_scale, adjust=adjust, alpha=alpha, df=record.df, scale=scale)
