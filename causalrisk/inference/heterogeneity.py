"""Heterogeneous effects: projections of the units' effects on groups or covariates, with their influence functions."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalrisk import errors
from causalrisk.design.covariates import Moderators, moderators
from causalrisk.design.tables import listing
from causalrisk.errors import CausalRiskWarning, DesignWarning, Failure, OptionError, UnavailableError, warn_user
from causalrisk.estimation.fits import RELATIVE_ROUNDING, means_under, projected_means, weights_of
from causalrisk.estimation.options import Adjustment, InferenceOptions
from causalrisk.estimation.record import FitRecord, influence_covariance
from causalrisk.estimation.sample import sample_resampler
from causalrisk.estimation.specification import DIFFERENCE, Specification
from causalrisk.inference import intervals
from causalrisk.inference.covariance import resampled
from causalrisk.inference.simultaneous import REFERENCE, adjusted_frame, pairs_against
from causalrisk.numerics.arrays import Array
from causalrisk.numerics.resampling import JACKKNIFE, RESAMPLE_STREAM, WIDTH, numbered_blocks

FEW_ROWS = 5  # with fewer rows of some treatment group, the standard error of a group in `effects_by` is unreliable
SPANNED = 1e-8  # a column is in the span of the outcome columns if its largest residual is smaller


def spec_in_groups(record: FitRecord) -> Specification:
    """Return the estimator of arm means in groups: the model's predictions plus weighted residuals.

    The weights add up to the group size on average, as in AIPW. For weighted means (IPW), rates and repeated cross
    sections, they are normalised to add up to it exactly. OutcomeRegression adds no residuals.
    """
    spec = record.spec
    if spec.constants or (spec.weighted and (record.stated_exposure is not None or record.sample.late is not None)):
        return replace(spec, corrected=True, normalized=True)
    return spec if spec.corrected or not spec.uses_propensity else replace(spec, corrected=True)


def project_effects(record: FitRecord, columns: Array) -> tuple[Array, Array]:
    """Regress the rows' contributions phi_a (below) on columns (n, k). Rows are in the order of the sample.

    Returns the coefficients (K - 1, k) of differences, or of logs of ratios, and their influence function (n, K - 1,
    k). For indicator columns, the coefficients are the effects in the groups.

    The contribution of a row to the mean of arm a is phi_a = t m_a(x) + 1{arm = a} w (y - m_a(x)), with t the row's
    weight in the target and w its importance weight. The coefficients b_a solve mean[c (phi_a - t c'b_a)] = 0, where c
    has the row's values of the columns. In a group, b_a is the sum of phi_a divided by the sum of t. If the estimate is
    an average of fits, the results are averages too. See Semenova, V. and Chernozhukov, V. (2021). Debiased machine
    learning of conditional average treatment effects and other causal functions. Econometrics Journal 24, 264-289.
    """
    if record.stack is not None:
        pairs = list(zip(record.stack.weights, record.stack.records, strict=True))
        parts = [(weight, project_effects(of, columns)) for weight, of in pairs if weight > 0]
        values, influence = (sum(weight * part[k] for weight, part in parts) for k in (0, 1))
        return np.asarray(values), np.asarray(influence)
    if record.joint is not None and record.joint.score_joined:
        problem = "effects by group are not available if the outcome models include the score's linear predictor"
        raise UnavailableError(f"{problem}.\nUse `fit(join_score=False)`.")
    sample, estimate, scale = record.sample, record.estimate, record.options.effect_scale
    means, moved = projected_means(weights_of(record), spec_in_groups(record), estimate, columns)
    # a mean that is zero up to rounding is set to zero, as ratios to it would be huge
    means = scale.on_bounds(means, RELATIVE_ROUNDING * np.abs(estimate.params[-sample.n_arms :])[:, None])
    with np.errstate(invalid="ignore", divide="ignore"):  # a group without an effect
        influence = moved * scale.g_slope(means)
        return scale.differences(means), influence[:, 1:] - influence[:, :1]


def effects_by(
    record: FitRecord,
    by: Any,
    data: Any = None,
    alpha: float = 0.05,
    *,
    at: Any = None,
    adjust: Adjustment | None = None,
    against: Any = REFERENCE,
) -> pd.DataFrame:
    """Effects in groups, or how the effect changes along covariates.

    In each group, the predicted outcomes are averaged over the target and corrected by the weighted residuals. The
    effect compares the resulting means. It is consistent if the outcome model or the propensity model is correctly
    specified, whether or not the grouping variable is in a formula. `OutcomeRegression` has no weights, so its formula
    must contain the grouping variable. For IPW, the weights add up to one in each group. The average of the group
    effects, weighted by size in the target, equals the fit's effect if it is a difference by AIPW (without `normalize`)
    or by IPWRA with the canonical link. For JRE, this holds approximately.

    Parameters
    ----------
    by : str, array_like or list of them
        Groups: the name of a variable of the model's formulas or of `data`, or one value per row. For a list such as
        ["sex", "region"], the groups are all combinations that occur. Text that begins with "~" is a formula. The
        result is then the best linear projection of the unit effects on the columns of the formula.
    data : DataFrame or mapping, optional
        The data of the model; needed for variables that its formulas do not use.
    alpha : float, default 0.05
        Significance level of the intervals.
    at : int, array_like, mapping or DataFrame, optional
        For a formula: values of its variable at which to evaluate the projection. The result has the effects at these
        values instead of coefficients. An int is the number of equally spaced values from the smallest to the largest
        observed value. With several variables, give a mapping or a DataFrame with one column per variable.
    adjust : {"single-step", "holm", "bonferroni", "hochberg", "fdr_bh"}, optional
        Adjusts the p-values for the number of rows of the table and makes the intervals simultaneous, as in `pairwise`.
        With `at` and "single-step", the intervals are a uniform band.
    against : level or label, default "reference"
        Treatment group to compare the others with. None compares all pairs.

    Returns
    -------
    DataFrame
        One row per group, column of the formula or value of `at` (and per effect, with several treatments). Columns
        are estimate, std err, z, P>|z| (or t, P>|t|), "adjusted P" if `adjust` is given, and limits of the interval.
        Groups also have "n", the number of observations over which the effect is averaged: for the ATT, the treated.
        Standard errors are robust, clustered or from the survey design, even if the fit has a bootstrap. They come from
        refits with ``cov_type="jackknife"`` or replicate weights. They also do with JRE's bootstrap, unless the
        estimate is an average of fits, the propensity score is given or from a classifier, or the bootstrap used
        `resamples` or multipliers.

    Warns
    -----
    DesignWarning
        If a group has fewer than five rows of some treatment group, or `by` is not in the outcome formula of
        `OutcomeRegression`.

    Raises
    ------
    DesignError
        If a variable is unknown or has missing values.
    UnavailableError
        If the target is a data frame, or if the data are scanned, because their rows are not kept.
    OptionError
        If `at` is given for groups, or a treatment is unknown.

    See Also
    --------
    differences_by : Differences of the effects between groups.
    equality_test : Test that the effect is the same in all groups.

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
    record.check_means("effects_by()")
    found = _moderators(record, by, data)
    scale, design = record.options.effect_scale, record.design
    pairs = pairs_against(against, design.labels, design.arm_named(against))
    if not found.groups and scale is not DIFFERENCE:
        text = f'effects_by() with a formula needs effect="difference"; the model has effect="{scale.name}"'
        raise OptionError(f'{text}.\nUse `model.with_options(effect="difference").fit()`.')
    if found.groups and at is not None:
        raise OptionError(f'`at=` is for a formula; {by!r} has groups.\nUse `at=None`, or a formula such as `"~ x"`.')
    values, se, covariance = _projected(record, found)
    names, levels, count = found.names, found.levels if found.groups else ("term",), design.n_arms - 1
    if at is not None:
        columns, names, levels = _values_at(found, at)
        left = np.kron(np.eye(count), columns)
        values, covariance = left @ values, left @ covariance @ left.T
        se = np.sqrt(np.clip(np.diag(covariance), 0, None))
    if pairs != [(arm, 0) for arm in range(1, count + 1)]:
        of_arms = np.arange((count + 1) * len(names)).reshape(count + 1, -1)  # positions, reference first
        one, other = (of_arms[list(arms)].ravel() for arms in zip(*pairs, strict=True))
        on_scale = np.r_[np.zeros(len(names)), scale.contrast(values)]
        values, se, covariance = intervals.differences(scale, on_scale, np.pad(covariance, (len(names), 0)), one, other)
    index = _index(record, names, levels, pairs)
    frame = adjusted_frame(values, se, covariance, index, adjust=adjust, alpha=alpha, df=record.df, scale=scale)
    if found.groups:
        toward = record.options.population.toward  # the rows over which effects are averaged
        units = design.units if toward is None else design.units * (design.arm == toward)
        frame.insert(0, "n", np.tile(units @ found.columns, len(pairs)).astype(int))
    return frame


def differences_by(
    record: FitRecord,
    by: Any,
    data: Any = None,
    alpha: float = 0.05,
    *,
    adjust: Adjustment | None = None,
    against: Any = None,
) -> pd.DataFrame:
    """Differences of the effects between groups, for all pairs or against one group.

    `effects_by` defines the effects in groups.

    Parameters
    ----------
    by, data
        As in `effects_by`, without a formula.
    alpha : float, default 0.05
        Significance level of the intervals.
    adjust : {"single-step", "holm", "bonferroni", "hochberg", "fdr_bh"}, optional
        Adjusts for the number of pairs, as in `pairwise`.
    against : group, optional
        Group to subtract from each of the others; "reference" means the first. By default, all pairs are compared.

    Returns
    -------
    DataFrame
        One row per pair of groups (and per effect, with several treatments): first minus second, with the columns of
        `effects_by` except n. For a ratio or odds ratio, the estimate is the first divided by the second. For a
        percentage, it is the percentage change from the second ratio of means to the first.

    Raises
    ------
    DesignError
        As in `effects_by`.
    OptionError
        If `by` is a formula or defines only one group, or a group is unknown.

    See Also
    --------
    effects_by : Effects in groups.
    equality_test : Test that the effect is the same in all groups.

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
    """
    record.check_means("differences_by()")
    found, scale = _moderators(record, by, data, "differences_by"), record.options.effect_scale
    texts, wanted = found.texts, ", ".join(map(str, against)) if isinstance(against, tuple) else str(against)
    every, position = list(combinations(range(len(texts)), 2)), texts.index(wanted) if wanted in texts else None
    pairs = every if against is None else pairs_against(against, texts, position)
    values, _, covariance = _projected(record, found)
    of_arms = np.arange(len(values)).reshape(-1, len(texts))
    one, other = (of_arms[:, list(groups)].ravel() for groups in zip(*pairs, strict=True))
    values, se, covariance = intervals.differences(scale, scale.contrast(values), covariance, one, other)
    index = _index(record, [(*found.names[a], found.keys[b]) for a, b in pairs], (*found.levels, "minus"))
    return adjusted_frame(values, se, covariance, index, adjust=adjust, alpha=alpha, df=record.df, scale=scale)


def equality_test(record: FitRecord, by: Any, data: Any = None) -> Any:
    """Test that the effect is the same in all groups.

    `effects_by` defines the effects in groups.

    Parameters
    ----------
    by, data
        As in `effects_by`, without a formula.

    Returns
    -------
    statsmodels.stats.contrast.ContrastResults
        Chi-squared test, or F test if the fit uses the t distribution. The degrees of freedom are the number of groups
        minus one (per effect, with several treatments). There are fewer if differences are linearly dependent, for
        example because the effects in many groups come from few coefficients. Ratios are compared on the log scale.
        With robust errors, a joint test may reject too often in small samples: see `wald_test`.

    Warns
    -----
    CausalRiskWarning
        If the test cannot be computed. The statistic is then NaN, and the warning gives the reason. For example, a
        ratio is undefined if a treatment group has no events, and effects have no sampling error if all outcomes of
        each treatment in a group are equal.

    See Also
    --------
    effects_by : Effects in groups.
    differences_by : Differences of the effects between groups.

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
    record.check_means("equality_test()")
    found, scale = _moderators(record, by, data, "equality_test"), record.options.effect_scale
    values, _, covariance = _projected(record, found)
    size, count = len(found.names), record.design.n_arms - 1
    values = scale.contrast(values)
    left = np.kron(np.eye(count), np.eye(size)[1:] - np.eye(size)[0])
    none = np.flatnonzero(~np.isfinite(values.reshape(count, size)).all(axis=0))
    if none.size:
        why = f"the effects of the groups {'; '.join(found.texts[g] for g in none)} are undefined on this scale"
    else:
        statistic, rank, contradicted = intervals.wald_statistic(left, np.zeros(len(left)), values, covariance)
        # Ratios that depend on each other nonlinearly also look contradictory, but they have sampling error.
        exact = np.sqrt(np.diag(covariance)) <= RELATIVE_ROUNDING * np.abs(values).max()
        if not (contradicted and exact.sum() > 1):
            return intervals.joint_test(statistic, rank, record.df)
        why = "some effects differ but have no sampling error"
    warn_user(f"equality_test by {', '.join(found.levels)} is NaN: {why}.\nMerge groups.", CausalRiskWarning)
    return intervals.joint_test(np.nan, len(left))


def _moderators(record: FitRecord, by: Any, data: Any, compared_by: str = "") -> Moderators:
    """Return the groups or columns of `by`. The function `compared_by`, if any, needs at least two groups."""
    if record.frame is not None:
        problem = "effects in groups are not available if target= is a data frame"
        raise UnavailableError(f"{problem}.\nFit once per group, with the group's rows as `target=`.")
    record.design.check_in_memory("effects_by", "For the effect in one group, use `scan` with its rows. ")
    found = moderators(record.design, by, data)
    for name in found.levels if found.encoder is None else found.encoder.variables:
        if name in (record.design.treat_name, record.design.endog_name):
            raise OptionError(f"{name!r} is the treatment or the outcome.\nUse variables from before the treatment.")
    if compared_by and not (found.groups and len(found.names) > 1):
        what = "has one" if found.groups else "is a formula"
        levels = ", ".join(found.levels)
        raise OptionError(f"{compared_by} needs at least two groups, but {levels} {what}.\nUse `effects_by`.")
    return found


def _values_at(found: Moderators, at: Any) -> tuple[Array, list[Any], tuple[str, ...]]:
    """Return a formula's columns (m, k) at m values of its variables, the values, and the variables' names."""
    encoder: Any = found.encoder
    variables = encoder.variables
    if not isinstance(at, Mapping | pd.DataFrame):
        if len(variables) != 1:
            raise OptionError(f"`at=` needs one variable; {found.levels[0]!r} has {len(variables)}.\nUse a DataFrame.")
        if isinstance(at, numbers.Integral) and not isinstance(at, bool):
            errors.whole_number("at", at, 2)
            observed = encoder.sample_variables[variables[0]]
            if observed.dtype.kind not in "if":
                name = variables[0]
                raise OptionError(f"{name!r} is not numeric, so it has no grid of values.\nUse `effects_by({name!r})`.")
            at = np.linspace(float(observed.min()), float(observed.max()), int(at))
        at = {variables[0]: np.atleast_1d(np.asarray(at))}
    if unknown := [name for name in at if name not in variables]:
        raise OptionError(f"`at=` has {unknown[0]!r}; expected {errors.listed(variables)}.\nLeave it out.")
    frame = pd.DataFrame(at, index=None if any(map(np.ndim, dict(at).values())) else [0])  # numbers give one row
    names = list(frame[list(variables)].itertuples(index=False, name=None)) if set(variables) <= set(frame) else []
    return encoder.encode(frame), names, tuple(variables)


def _index(record: FitRecord, rows: Sequence[Any], levels: Sequence[str], pairs: Any = None) -> pd.Index:
    """Return the index of `rows`, repeated for each effect (of `pairs`). A fit's only effect is not named."""
    labels, effects = record.design.labels, record.effect_names
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


def _projected(record: FitRecord, found: Moderators) -> tuple[Array, Array, Array]:
    """Project the effects on the k columns of `found`, with the standard errors that `effects_by` describes.

    Returns the reported effects, sorted by arm, shape ((K - 1) k,), their standard errors, and their covariance, for
    ratios on the log scale.
    """
    columns, scale = found.columns[record.sample.order], record.options.effect_scale
    if record.repeats is not None:
        text = "standard errors of effects by group are from one repeat, so they ignore the choice of folds"
        warn_user(f"{text}.\nThe summary has the range of the effect over the repeats.", DesignWarning)
    if not (record.spec.uses_propensity or record.spec.constants):
        _check_seen(record, found, columns)
    on_scale, influence = project_effects(record, columns)
    if found.groups:
        _check_sizes(record, found, np.asarray(np.isnan(on_scale).any(axis=0)))
    on_scale, redone = on_scale.ravel(), _redone(record, columns)
    values = scale.report(on_scale)
    if redone is not None:
        return values, *intervals.refitted_errors(record, redone, scale, values)
    with np.errstate(invalid="ignore"):  # a group without an effect
        covariance = record.choice_variance * influence_covariance(record, influence.reshape(record.sample.n, -1))
    return values, np.sqrt(np.diag(covariance)) * scale.report_slope(on_scale), covariance


def _check_sizes(record: FitRecord, found: Moderators, undefined: NDArray[np.bool_]) -> None:
    """Warn if a treatment group has few rows, or rows of only one cluster, in a group of `effects_by`."""
    design, of_groups = record.design, (found.columns > 0).T
    rows = np.min([found.columns[own].T @ design.units[own] for own in design.members], axis=0)
    unreliable, small = "Standard errors there are unreliable", (rows > 0) & (rows < FEW_ROWS)
    warned = [
        ("no rows", (rows == 0) & undefined, "Effects there are NaN"),
        ("no rows", (rows == 0) & ~undefined, "The models extrapolate the effects there"),
        (f"fewer than {FEW_ROWS} rows", small, unreliable),
    ]
    if design.n_clusters and design.survey is None and not record.one_cluster:
        cluster = np.asarray(design.cluster)
        count = [[len(np.unique(cluster[own][group[own]])) for own in design.members] for group in of_groups]
        alone = np.min(count, axis=1) == 1
        warned.append((f"rows of only one cluster of {design.cluster_name!r}", alone, unreliable))
    for size, which, so in warned:
        if which.any():
            groups = listing([text for text, own in zip(found.texts, which, strict=True) if own])
            where = f"a treatment group has {size} in {', '.join(found.levels)} = {groups}"
            warn_user(f"{where}. {so}.\nMerge these groups.", DesignWarning)


def _check_seen(record: FitRecord, found: Moderators, columns: Array) -> None:
    """Warn if the outcome formula of an estimator without propensity scores lacks the grouping variables."""
    q, known = record.sample.X.columns, record.design.outcome_encoder.sample_variables
    names = found.levels if found.encoder is None else found.encoder.variables
    unseen = [name for name in names if name not in known]
    if not unseen or np.abs(columns - q @ np.linalg.lstsq(q, columns, rcond=None)[0]).max() < SPANNED:
        return
    terms = " ".join(f"+ C({name})" if found.groups else f"+ {name}" for name in unseen)
    text = f"{record.spec.name} uses only the outcome formula, which does not contain {listing(unseen)}"
    warn_user(f"{text}.\nUse `{terms}` in the outcome formula, or `IPWRA` or `AIPW`.", DesignWarning)


def _redone(record: FitRecord, columns: Array) -> Array | None:
    """Return the projected effects, or logs of ratios, of m refits, shape (m, (K - 1) k). None without refits.

    Refits are from the jackknife, replicate weights, or reproducible resamples of JRE. Failed refits are NaN.
    """
    if record.cov_type not in ("replicates", JACKKNIFE):
        fit, drawn = record.weight_fit, record.boot is not None and not (record.multiplied or record.given_resamples)
        known = fit is not None and fit.equations.model is not None and fit.equations.model.classifier is None
        if record.joint is None or record.stack is not None or not (known and drawn):
            return None
    return _under_refits(record, columns)


def _under_refits(record: FitRecord, columns: Array) -> Array:
    if record.stack is not None:
        pairs = zip(record.stack.weights, record.stack.records, strict=True)
        return np.asarray(sum(weight * _under_refits(of, columns) for weight, of in pairs if weight > 0))
    refits = intervals.refits_of(record) or resampled((record,), InferenceOptions())[0]  # averaged fits have none
    kind = JACKKNIFE if record.cov_type == JACKKNIFE else record.bootstrap
    resampler = sample_resampler(record.design, record.sample, kind, record.seed)
    n_refits, weights = len(refits.failures), weights_of(record)
    spec, scale = spec_in_groups(record), record.options.effect_scale
    found = np.full((n_refits, (record.design.n_arms - 1) * columns.shape[1]), np.nan)
    for number, width in numbered_blocks(n_refits):
        s, first = resampler.draw(RESAMPLE_STREAM, number, width), number * WIDTH
        used = np.flatnonzero(refits.failures[first : first + width] == Failure.OK)
        values = refits.values[first + used].T
        theta = values[record.estimate.block("theta")].reshape(*record.estimate.theta.shape, -1)
        means = means_under(weights, spec, values[record.estimate.block("gamma")], theta, columns, s[:, used])
        found[first + used] = scale.differences(means).reshape(found.shape[1], -1).T
    return found


def pairwise(
    record: FitRecord, alpha: float = 0.05, *, adjust: Adjustment | None = None, against: Any = None
) -> pd.DataFrame:
    """Compare all pairs of treatment groups, or all groups with one group.

    Parameters
    ----------
    alpha : float, default 0.05
        Significance level of the intervals.
    adjust : {"single-step", "holm", "bonferroni", "hochberg", "fdr_bh"}, optional
        Adjusts the p-values for the number of pairs and makes the intervals simultaneous. "single-step" uses the
        distribution of the largest of the correlated statistics, as in Tukey's and Dunnett's tests. "bonferroni",
        "holm" and "hochberg" use Bonferroni intervals. "fdr_bh" (Benjamini and Hochberg) controls the false discovery
        rate, and leaves the intervals unadjusted.
    against : level or label, optional
        Treatment group to compare the others with, or "reference". By default, all pairs are compared.

    Returns
    -------
    DataFrame
        One row per pair. The index has the treatment group and the group that it is compared with. With `adjust`, there
        is also a column "adjusted P".

    Raises
    ------
    OptionError
        If the adjustment or the treatment group is unknown.

    Examples
    --------
    >>> from causalrisk import IPWRA, datasets
    >>> births = datasets.load_cattaneo2()
    >>> res = IPWRA.from_formula(
    ...     "bweight ~ mage + medu", births, treat="msmoke", reference="0 daily"
    ... ).fit()
    >>> against_none = res.pairwise(adjust="single-step", against="reference")
    >>> against_none[["estimate", "adjusted P", "[0.025", "0.975]"]].round(2)
                        estimate  adjusted P  [0.025  0.975]
    arm        against
    1-5 daily  0 daily   -221.36         0.0 -326.68 -116.04
    11+ daily  0 daily   -297.71         0.0 -386.51 -208.92
    6-10 daily 0 daily   -242.57         0.0 -331.05 -154.09
    """
    record.check_means("pairwise()")
    scale, labels = record.options.effect_scale, record.design.labels
    pairs = pairs_against(against, labels, record.design.arm_named(against))
    refits, (one, other) = None if scale is DIFFERENCE else intervals.refits_of(record), np.array(pairs).T
    values, se, covariance = intervals.differences_of_arms(record, scale, one, other, refits)
    index = pd.MultiIndex.from_tuples([(labels[a], labels[b]) for a, b in pairs], names=["arm", "against"])
    return adjusted_frame(values, se, covariance, index, adjust=adjust, alpha=alpha, df=record.df, scale=scale)
