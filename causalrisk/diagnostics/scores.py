"""Propensity scores: overlap, importance weights, calibration, and a test of the model."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import chdtrc, expit

from causalrisk import errors
from causalrisk.estimation.overlap import crump_cut, inside, inverse_sum, limits_at
from causalrisk.estimation.record import FitRecord
from causalrisk.numerics.arrays import Arms, Array, weighted_gram
from causalrisk.numerics.optimize import minimize_value

QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
ROUNDING = 1e-12  # relative rounding error of balance conditions that follow from the score equations
EQUAL = 1e-10  # relative tolerance of limits of the score, as rounding differs between equal rows


def common_support(scores: Array, arm: Arms) -> NDArray[np.bool_]:
    """Return a mask of the rows whose propensity scores (K, n) are within the range of scores in every arm."""
    compared = scores[1:] if len(scores) == 2 else scores  # with two arms, only the score of the treated
    members = [compared[:, arm == a] for a in range(len(scores))]
    low = np.max([own.min(axis=1, initial=np.inf) for own in members], axis=0)
    high = np.min([own.max(axis=1, initial=-np.inf) for own in members], axis=0)
    return inside(compared, low * (1 - EQUAL), high * (1 + EQUAL))


def overlap(record: FitRecord, by: str = "arm") -> pd.DataFrame:
    """Overlap of the treatment groups in the propensity score, and spread of their importance weights.

    Parameters
    ----------
    by : {"arm", "unit"}
        "arm" (default): one row per treatment group. "unit": one row per row of the sample.

    Returns
    -------
    DataFrame
        With ``by="arm"``, one row per treatment group:

        - "n", "effective n" (Kish), "largest weight", "largest share" and "top 1% share" describe the importance
          weights. Probability weights, if any, are scaled to mean one and multiply the importance weights. "survey n"
          is the effective n of the probability weights alone.
        - "score 0%" to "score 100%" are quantiles of the propensity score. With several treatments, they are quantiles
          of the score of the row's own group. `Matching` on covariates does not use these scores.
        - "outside support" counts rows whose score is outside the range of at least one group.
        - "outside crump" counts rows whose score is below "crump low" or above "crump high", the limits that minimise
          the variance (Crump et al. 2009). With several treatments, it counts rows whose sum of inverse scores exceeds
          "crump cut" (Yang et al. 2016).

        If outcomes are missing, the numbers describe the rows with an outcome. "least chance" is then the smallest
        probability that an outcome is observed. A row with frequency weight s counts s times.

        With ``by="unit"``, one row per row of the sample: its group, the score of this group, its weight, and whether
        it is inside the support and the Crump limits. If outcomes are missing, "observed" is the probability that the
        outcome is observed. This table is not available for scanned data.

    Examples
    --------
    >>> from causalrisk import IPWRA, datasets
    >>> births = datasets.load_cattaneo2()
    >>> res = IPWRA.from_formula(
    ...     "bweight ~ mage + medu", births, treat="mbsmoke"
    ... ).fit()
    >>> res.overlap()[["n", "effective n", "score 50%", "outside support"]].round(2)
            n  effective n  score 50%  outside support
    arm
    0    3778      3681.42       0.18               28
    1     864       774.72       0.20                0
    """
    errors.one_of("by", by, ("arm", "unit"))
    design, rows, scores, n_arms = record.design, record.rows, record.scores, record.design.n_arms
    cut = crump_cut(scores, rows.weights)
    support, compared = common_support(scores, rows.arm), scores[1:]
    crump = inside(compared, *limits_at(cut)) if n_arms == 2 else inverse_sum(scores) <= cut
    own = scores[rows.arm, np.arange(len(rows.arm))]
    if by == "unit":
        columns = {"arm": np.array(design.labels)[rows.arm], "score": own, "weight": rows.importance}
        columns |= {"in support": support, "in crump": crump}
        return pd.DataFrame(columns | ({} if rows.chances is None else {"observed": rows.chances}), index=design.index)
    limits = {"crump cut": cut} if n_arms > 2 else dict(zip(("crump low", "crump high"), limits_at(cut), strict=True))
    shown, units = own if n_arms > 2 else scores[1], rows.units * rows.recorded
    tables = []
    for a, found in enumerate(record.overlap):
        members = rows.arm == a
        quantiles = np.percentile(np.repeat(shown[members], units[members].astype(int)), [100 * q for q in QUANTILES])
        tables.append({
            "n": found.n,
            **({"survey n": found.alone_n} if design.weight_type == "probability" else {}),
            "effective n": found.effective_n,
            "largest weight": found.heaviest,
            "largest share": found.largest_share,
            "top 1% share": found.top_share,
            **{f"score {q:.0%}": value for q, value in zip(QUANTILES, quantiles, strict=True)},
            "outside support": int(units[members & ~support].sum()),
            **limits,
            "outside crump": int(units[members & ~crump].sum()),
            **({} if rows.chances is None else {"least chance": rows.chances[members].min(initial=1.0)}),
        })  # fmt: skip
    return pd.DataFrame(tables, index=pd.Index(design.labels, name="arm"))


SAME_SCORE = 12  # decimals to which propensity scores are compared


def calibration(record: FitRecord, bins: int = 10) -> pd.DataFrame:
    """Compare mean propensity scores with the observed share of treated rows, in bins of rows with similar scores.

    Parameters
    ----------
    bins : int, default 10
        Largest number of bins. Rows with equal scores are in one bin. Otherwise, bins have equal size.

    Returns
    -------
    DataFrame
        One row per bin: number of rows "n", mean score "predicted", treated share "observed" and its standard error
        "std err" (NaN if all or none are treated). With several groups, the bins are repeated for each group except
        the reference. A row with frequency weight s counts s times. Means and shares use probability weights, if any.
    """
    errors.whole_number("bins", bins, 1)
    if not record.uses_score:
        raise record.without_scores()
    design, rows, tables = record.design, record.counted_rows, {}
    weight = np.ones(len(rows)) if record.frequency else design.weights[rows]
    for a, label in enumerate(design.labels[1:], start=1):
        score, observed = record.scores[a, rows], (design.arm == a)[rows]
        place = pd.Series(score.round(SAME_SCORE)).rank(method="min") - 1  # equal for equal scores
        given = {"n": 1, "weight": weight, "square": weight**2, "score": weight * score, "own": weight * observed}
        sums = pd.DataFrame(given).groupby(place * bins // len(score)).sum()
        share = sums["own"] / sums["weight"]
        se = np.sqrt((share * (1 - share)).replace(0, np.nan) * sums["square"]) / sums["weight"]
        means = {"n": sums["n"], "predicted": sums["score"] / sums["weight"], "observed": share, "std err": se}
        tables[label] = pd.DataFrame(means).set_axis(pd.RangeIndex(1, len(sums) + 1, name="bin"))
    return next(iter(tables.values())) if len(tables) == 1 else pd.concat(tables, names=["arm", "bin"])


# --- a test of the propensity model ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class BalanceTest:
    """Overidentification test of balance.

    Parameters
    ----------
    statistic : float
        The statistic J.
    df : int
        Degrees of freedom of J: the number of balance conditions that do not follow from the score equations.
    pvalue : float
        Probability of a larger J if the propensity model is correctly specified.
    converged : bool
        Whether the minimisation converged.
    """

    statistic: float
    df: int
    pvalue: float
    converged: bool

    def __str__(self) -> str:
        left = "" if self.converged else " (the minimisation did not converge)"
        return f"Balance: chi2({self.df}) = {self.statistic:.4f}, p = {self.pvalue:.4f}{left}"


def balance_test(record: FitRecord) -> BalanceTest:
    """Test that weighting by the propensity score balances the columns of the propensity model.

    The test combines two sets of conditions: weighting balances each column, including the constant, and the
    coefficients solve the score equations of the logit. A small p-value shows that the model is misspecified. A large
    p-value does not show that the model is correct, or that no covariate is missing.

    Returns
    -------
    BalanceTest
        With `statistic`, `df`, `pvalue`.

    Notes
    -----
    This is the test of Imai and Ratkovic [1]_ in its continuously updated form, as in Stata's ``tebalance overid``. J
    is the minimum of m' S^-1 m over the coefficients. The vector m has both sets of conditions, summed over the rows,
    and S is its variance under the model, given the covariates. J has a chi-squared distribution if the model is
    correct. The test assumes independent rows. In small samples it rejects too rarely, and has little power. In 400
    simulations at a nominal 5%, it rejected a correct logit with three covariates in 0.5% of samples of 80 rows, 2.5%
    of 300 rows and 3.0% of 1000 rows (Monte Carlo error 1.1%).

    References
    ----------
    .. [1] Imai, K. and Ratkovic, M. (2014). Covariate balancing propensity score. Journal of the Royal Statistical
       Society B 76, 243-263.

    Examples
    --------
    >>> from causalrisk import IPW, datasets
    >>> births = datasets.load_cattaneo2()
    >>> propensity = "mmarried + mage + prenatal1 + fbaby"
    >>> res = IPW.from_formula(
    ...     "bweight ~ 1", births, treat="mbsmoke", propensity=propensity
    ... ).fit()
    >>> print(res.balance_test())
    Balance: chi2(5) = 38.1464, p = 0.0000
    """
    if not record.uses_score:
        raise record.without_scores()
    fit = record.used_weight_fit
    options, sample = record.options, record.sample
    plain = options.propensity_link == "logit" and options.propensity_loss == "ml" and options.clip is None
    fitted = record.design.score is None and options.propensity_score is None
    for what, bad in (
        ("clusters or survey designs", record.design.cluster is not None or record.design.survey is not None),
        ("several treatments", sample.n_arms > 2),
        (f"target={options.population.name!r}", not options.population.by_arm),
        ("propensity scores that are clipped, or not from a logit by maximum likelihood", not (plain and fitted)),
    ):
        if bad:
            raise errors.UnavailableError(f"balance_test() is not available for {what}.\nUse `res.balance()`.")
    columns, treated, weights = sample.Z.columns, (sample.arm == 1).astype(float), sample.s
    squared = weights if record.frequency else weights**2

    q = columns.shape[1]
    unit, start = 1 / np.sqrt(sample.total), fit.gamma[:q]  # a step is about one standard error, so few steps suffice

    def conditions(step: Array) -> tuple[Array, Array, Array, Array]:
        """Return p, the factor of (treated - p) in balance conditions, the factor's derivative, and the variance S.

        J does not change if the conditions are rescaled, or if a multiple of the score equations is subtracted. The
        factor is therefore standardised, which keeps J accurate if p hardly varies.
        """
        p = expit(columns @ (start + unit * step))
        pq = p * (1 - p)
        factors = {"treated": (1 / (1 - p), p / (1 - p)), "control": (1 / p, -(1 - p) / p)}
        factor, slope = factors.get(options.population.name, (1 / pq, (2 * p - 1) / pq))
        mean = np.average(factor, weights=weights)
        size = np.sqrt(np.average((factor - mean) ** 2, weights=weights))
        size = size if size > ROUNDING * mean else np.inf  # the factor is constant
        factor, slope = (factor - mean) / size, slope / size
        first, both, second = (weighted_gram(columns, squared * pq * k) for k in (1.0, factor, factor**2))
        return p, factor, slope, np.block([[first, both], [both, second]])

    def value(step: Array) -> tuple[float, Array]:
        p, factor, slope, variance = conditions(step)
        moments = np.concatenate([columns.T @ (weights * (treated - p) * k) for k in (1.0, factor)])
        solved = np.linalg.pinv(variance, rcond=ROUNDING, hermitian=True) @ moments
        score, balance = (columns @ half for half in np.split(solved, 2))
        pull, pq = score + factor * balance, p * (1 - p)
        by_moment = weights * (-pq * pull + (treated - p) * slope * balance)
        by_variance = squared * pq * ((1 - 2 * p) * pull**2 + 2 * pull * slope * balance)
        return float(moments @ solved), unit * (columns.T @ (2 * by_moment - by_variance))

    spread = np.linalg.eigvalsh(conditions(np.zeros(q))[3])
    df = int((spread > ROUNDING * spread[-1]).sum()) - q
    if df == 0:
        what = "a propensity model that balances its columns exactly, such as a constant or a single factor"
        raise errors.UnavailableError(f"balance_test() is not available for {what}.\nUse `res.balance()`.")
    statistic, converged = minimize_value(value, np.zeros(q))
    return BalanceTest(statistic, df, float(chdtrc(df, statistic)), converged)
