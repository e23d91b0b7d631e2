"""Randomisation inference: what an estimate would have been under the other assignments that the trial could have made.

Flows in: a fitted record and how its treatment was assigned: to rows or to clusters, within strata. Flows out: the
statistic of its effects, the same statistic under permuted treatments, and the share of them that is as extreme. Under
the hypothesis that the treatment changes no outcome, outcomes and covariates are the same in every assignment.

Linear outcome models without importance weights are fitted under a block of permutations in matrix products (`Linear`).
Every other estimator goes through all stages of its fit for each of them (`Refits`): learners, propensity score,
trimming, outcome models, joint training.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc, gammaln, ndtr

from causalrisk.design import Design, ScannedDesign
from causalrisk.design.covariates import strata as strata_of
from causalrisk.design.design import by_rows
from causalrisk.errors import (
    CausalRiskError,
    CausalRiskWarning,
    OptionError,
    ResampleWarning,
    UnavailableError,
    one_of,
    warn_user,
    whole_number,
)
from causalrisk.estimators.effect_scales import DIFFERENCE, EffectScale
from causalrisk.estimators.estimates import ROWS_TOGETHER
from causalrisk.estimators.fit import fit_joint, fit_separate
from causalrisk.estimators.options import InferenceOptions
from causalrisk.estimators.record import SE_ROUNDING, FitRecord
from causalrisk.estimators.sample import make_sample
from causalrisk.estimators.training import outcome_level, training_columns, training_family
from causalrisk.inference.covariance import robust_record
from causalrisk.inference.repeats import median_fit
from causalrisk.numerics.blocks import taken
from causalrisk.numerics.linalg import Array, all_ones, gram_matrices, pairwise_columns, solve_definite
from causalrisk.numerics.multiplicities import PERMUTATION_STREAM, WIDTH, seed_sequence, stream_generator
from causalrisk.propensity.models import Arms
from causalrisk.runtime.workers import ordered_map, progress_bar, worker_count

STATISTICS = ("studentized", "difference")
ALTERNATIVES = ("two-sided", "larger", "smaller")
ALL = "all"  # n_permutations="all" lists every assignment
MOST_LISTED = 1_000_000  # assignments that are listed one by one
TIE = 1e-9  # relative difference of statistics that rounding makes
ARRAYS = 8  # arrays of a number for each row and permutation, of a block


# --- assignments -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Assignment:
    """How the treatment was assigned: arms of units, which could have changed places within strata.

    Parameters
    ----------
    arm : ndarray of int, shape (U,)
        Arm of each unit.
    stratum : ndarray of int, shape (U,)
        Stratum of each unit.
    unit : ndarray of int, shape (n,)
        Unit of each row of the design.
    words : str
        What is permuted, within what.
    """

    arm: Arms
    stratum: NDArray[np.intp]
    unit: NDArray[np.intp]
    words: str

    @cached_property
    def _strata(self) -> list[NDArray[np.intp]]:
        """Units of each stratum in which arms can change places."""
        order = np.argsort(self.stratum, kind="stable")
        parts = np.split(order, np.flatnonzero(np.diff(self.stratum[order])) + 1)
        return [units for units in parts if np.ptp(self.arm[units]) > 0]

    @cached_property
    def count(self) -> float:
        """Number of different assignments; infinite where it is no number of a reasonable size."""
        counts = [np.bincount(self.arm[units]) for units in self._strata]
        logarithm = sum(gammaln(sizes.sum() + 1) - gammaln(sizes + 1).sum() for sizes in counts)
        if logarithm > math.log(1e15):
            return math.inf
        partial = (zip(np.cumsum(sizes).tolist(), sizes.tolist(), strict=True) for sizes in counts)
        return math.prod(math.comb(total, size) for pairs in partial for total, size in pairs)

    @cached_property
    def _tables(self) -> list[Arms]:
        return [arrangements(self.arm[units]) for units in self._strata]

    def listed(self, first: int, width: int) -> Arms:
        """Return some of all assignments by number: arms of the rows of the design, shape (n, width)."""
        arms = np.repeat(self.arm[:, None], width, axis=1)
        places = np.unravel_index(np.arange(first, first + width), [len(table) for table in self._tables])
        for units, table, place in zip(self._strata, self._tables, places, strict=True):
            arms[units] = table[place].T
        return arms[self.unit]

    def drawn(self, seed: np.random.SeedSequence, first: int, width: int) -> Arms:
        """Draw assignments, from number `first` on, which is a multiple of `WIDTH`; as by `listed`."""
        starts = range(0, width, WIDTH)
        blocks = [self._block(seed, (first + start) // WIDTH, min(WIDTH, width - start)) for start in starts]
        return np.hstack(blocks)[self.unit]

    def _block(self, seed: np.random.SeedSequence, number: int, width: int) -> Arms:
        """Sort the units of each stratum at random, and give them its arms in this order."""
        chance = stream_generator(seed, PERMUTATION_STREAM, number).random((WIDTH, len(self.arm)))[:width].T
        order = np.argsort(self.stratum[:, None] + chance, axis=0)
        sorted_arms = self.arm[np.argsort(self.stratum, kind="stable")]
        arms = np.empty(order.shape, dtype=self.arm.dtype)
        np.put_along_axis(arms, order, np.repeat(sorted_arms[:, None], width, axis=1), axis=0)
        return arms


def arrangements(arm: Arms) -> Arms:
    """Return all different orders of arms of units.

    Parameters
    ----------
    arm : ndarray of int, shape (U,)
        Arms of the units.

    Returns
    -------
    ndarray of int, shape (M, U)
        An order a row.

    Examples
    --------
    >>> import numpy as np
    >>> arrangements(np.array([0, 1, 1]))
    array([[0, 1, 1],
           [1, 0, 1],
           [1, 1, 0]])
    """
    open_place = -1
    found = np.full((1, len(arm)), open_place, dtype=arm.dtype)
    for value, size in zip(*np.unique(arm, return_counts=True), strict=True):
        left = int((found[0] == open_place).sum())
        chosen = np.array(list(itertools.combinations(range(left), size)))
        places = np.argsort(found != open_place, axis=1, kind="stable")[:, :left]
        rows = np.repeat(found, len(chosen), axis=0)
        np.put_along_axis(rows, places[:, chosen].reshape(len(rows), size), value, axis=1)
        found = rows
    return found


def coded_strata(design: Design, strata: Any, data: Any) -> tuple[NDArray[np.intp], str]:
    """Return the stratum of each row of a design, (n,), and a name; arguments are those of the test."""
    if strata is None:
        return np.zeros(design.n, dtype=np.intp), ""
    if isinstance(strata, str) and strata == design.cluster_name:
        return np.asarray(design.cluster), strata
    return strata_of(design, strata, data)


def assignment_of(design: Design, codes: NDArray[np.intp], name: str, arm: int | None) -> Assignment:
    """Return how the treatment of a design was assigned.

    Parameters
    ----------
    design : Design
        The data. Of clusters with one arm each the units are the clusters; where the treatment varies within each of
        them, rows are permuted within clusters.
    codes : ndarray of int, shape (n,)
        Strata of the rows.
    name : str
        Name of the strata; empty where there are none.
    arm : int or None
        Of several arms the one that changes places with the reference; None for all.

    Returns
    -------
    Assignment
        Of rows or of clusters.

    Raises
    ------
    OptionError
        If strata and clusters do not say what could have been permuted, or nothing could have.
    """
    _check_alike(design, codes, name)
    made = _of_rows(design, codes, name) if design.cluster is None else _of_clusters(design, codes, name)
    if arm is not None and design.n_arms > 2:  # other arms stay where they are: a stratum each
        moved = np.isin(made.arm, (0, arm))
        words = f"{made.words}, of arms {design.labels[0]} and {design.labels[arm]}"
        stratum = np.unique(np.stack([made.stratum, np.where(moved, -1, made.arm)]), axis=1, return_inverse=True)[1]
        made = dataclasses.replace(made, stratum=stratum.reshape(-1), words=words)
    if made.count == 1:
        raise OptionError(
            f"there is no other assignment: of {made.words} none is of more than one arm.\n"
            "Leave strata= out, or take coarser ones: type  strata=data[...]  with their column."
        )
    return made


def _of_rows(design: Design, codes: NDArray[np.intp], name: str) -> Assignment:
    words = f"the {design.n} {design.unit_name}s"
    if name:
        words = f"{words} within {len(np.unique(codes))} strata ({name})"
    return Assignment(design.arm, codes, np.arange(design.n), words)


def _of_clusters(design: Design, codes: NDArray[np.intp], name: str) -> Assignment:
    """Permute whole clusters or rows within clusters."""
    cluster, count, of = np.asarray(design.cluster), design.n_clusters, str(design.cluster_name)
    several = _varies_within(cluster, count, design.arm)
    within = np.unique(np.stack([cluster, codes]), axis=1, return_inverse=True)[1].reshape(-1)
    nested = not _varies_within(codes, int(codes.max()) + 1, cluster).any()  # each stratum is of one cluster
    if several.all() or (several.any() and nested):
        made = _of_rows(design, within, f"{of}, {name}" if name and name != of else of)
        return (
            made
            if name and name != of
            else dataclasses.replace(made, words=f"the {design.n} {design.unit_name}s within {count} clusters ({of})")
        )
    if several.any():
        raise OptionError(
            f"the treatment varies within {int(several.sum())} of {count} clusters of {of!r} and is one in each other: "
            "neither whole clusters nor rows within each of them were assigned.\n"
            f"Type  strata={of!r}  to permute within clusters where it varies."
        )
    split = _varies_within(cluster, count, codes)
    if split.any():
        raise OptionError(
            f"clusters of {of!r} were assigned as a whole, and {int(split.sum())} of {count} are in several strata of "
            f"{name}.\nLeave strata= out, or type  strata=data[...]  with a column that is the same in all rows of a "
            "cluster."
        )
    first = np.unique(cluster, return_index=True)[1]
    words = f"the {count} clusters ({of}) as a whole"
    if name:
        words = f"{words} within {len(np.unique(codes))} strata ({name})"
    return Assignment(design.arm[first], codes[first], cluster, words)


def _varies_within(group: NDArray[np.intp], count: int, values: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether values differ within each of the groups, which are numbered."""
    first = np.zeros(count, dtype=np.intp)
    first[group[::-1]] = np.arange(len(group))[::-1]
    return np.bincount(group, values != values[first[group]], minlength=count) > 0


def _check_alike(design: Design, codes: NDArray[np.intp], name: str) -> None:
    """Refuse known scores that differ between rows that would change places."""
    if design.score is None:
        return
    _, codes = np.unique(codes, return_inverse=True)
    differ = sum(_varies_within(codes, int(codes.max()) + 1, column.round(12)).sum() for column in design.score.T[1:])
    if differ:
        where = f"within strata of {name}" if name else "between rows"
        raise OptionError(
            f"the known probabilities of treatment ({design.score_name!r}) differ {where}; rows change places in a "
            "permutation, as if theirs were the same.\n"
            f'Type  strata="{design.score_name}", data=data  for rows of the same probability.'
        )


# --- effects under assignments -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contrasts:
    """Effects of arms under m assignments; NaN where the estimator could not be computed.

    Parameters
    ----------
    values : ndarray, shape (m, K - 1)
        Effects on the scale where they are differences.
    covariance : ndarray, shape (m, K - 1, K - 1)
        Their robust covariances.
    """

    values: Array
    covariance: Array


class UnderArms(Protocol):
    """Computes effects under assignments, arms of the rows of the design, shape (n, m).

    Attributes
    ----------
    rows_together : int
        Rows below which several blocks of `WIDTH` assignments are worked on as one.
    """

    rows_together: ClassVar[int]

    def __call__(self, arms: Arms) -> Contrasts:
        """Return the effects."""


def contrasts_of(record: FitRecord) -> tuple[Array, Array]:
    """Return effects of a fit, (K - 1,), on the scale where they are differences, and their covariance."""
    scale, count = record.options.effect_scale, record.design.n_arms - 1
    with np.errstate(invalid="ignore", divide="ignore"):
        values = scale.contrast(record.estimate.params[:count])
        slope = scale.report_slope(values)
        return values, record.covariance[:count, :count] / np.outer(slope, slope)


@dataclass(frozen=True)
class Refits:
    """Redoes all stages of a fit under each assignment.

    Parameters
    ----------
    record : FitRecord
        The fit.
    """

    record: FitRecord

    rows_together: ClassVar[int] = 1

    def __call__(self, arms: Arms) -> Contrasts:
        """As in `UnderArms`."""
        count = self.record.design.n_arms - 1
        values = np.full((arms.shape[1], count), np.nan)
        covariance = np.full((arms.shape[1], count, count), np.nan)
        for j, arm in enumerate(arms.T):
            try:
                values[j], covariance[j] = contrasts_of(fitted_under(self.record, np.ascontiguousarray(arm)))
            except (CausalRiskError, np.linalg.LinAlgError):
                continue  # NaN, which is counted
        return Contrasts(values, covariance)


def fitted_under(record: FitRecord, arm: Arms) -> FitRecord:
    """Return a fit under another assignment, with robust standard errors.

    Parameters
    ----------
    record : FitRecord
        The fit.
    arm : ndarray of int, shape (n,)
        Arm of each row of the design before trimming.
    """
    joint, repeated = record.joint, []
    design, spec = record.full_design.under(arm), dataclasses.replace(record.spec, given=False)
    inference = InferenceOptions(
        cov_type=record.robust_type, rng=record.seed, bootstrap=None if joint is None else record.bootstrap
    )
    for repeat in range(record.options.n_repeats):
        options = dataclasses.replace(record.options, repeat=repeat)
        if joint is None:
            fit = fit_separate(design, spec, options, inference)
        else:
            fit = fit_joint(design, options, inference, joint.options)
        repeated.append(robust_record(fit))
    return repeated[0] if len(repeated) == 1 else median_fit(repeated)


def is_linear(record: FitRecord) -> bool:
    """Whether a fit is of linear outcome models on the columns of its design, averaged without importance weights."""
    plain = record.weight_fit is None and record.joint is None and record.learned is None
    family = training_family(record.sample, record.spec)
    return plain and record.options.trim is None and record.design.offset_kind is None and family.linear


@dataclass(frozen=True)
class Linear:
    """Fits linear outcome models in each arm, averaged over the target, under m assignments at once.

    Parameters
    ----------
    q : ndarray, shape (n, p)
        Columns of the outcome models; first those of a target frame, if there is one, then the rows of the design, rows
        of a cluster together.
    y : ndarray, shape (n,)
        Outcome less `height`.
    s : ndarray, shape (n,)
        Observation weights; one in the rows of a target frame.
    rows : ndarray of int, shape (n - n_frame,)
        Position of each row in the design.
    starts : ndarray of int, shape (G,), or None
        First row of each cluster.
    toward : int or None
        The arm whose rows are the target.
    height : float
        What the outcome is measured from.
    scale : EffectScale
        How the effect is reported.
    otherwise : Refits
        What computes the effects where columns depend on each other in an arm.
    """

    q: Array
    y: Array
    s: Array
    rows: NDArray[np.intp]
    starts: NDArray[np.intp] | None
    toward: int | None
    height: float
    scale: EffectScale
    otherwise: Refits

    rows_together: ClassVar[int] = ROWS_TOGETHER

    @classmethod
    def of(cls, record: FitRecord) -> Linear:
        """Return that of a fit for which `is_linear` is true."""
        design, frame, n_frame = record.design, record.frame, record.sample.n_frame
        sample = make_sample(
            y=design.y,
            X=design.X,
            Z=design.X,
            arm=np.zeros_like(design.arm),  # in the order of the design
            weights=design.weights,
            family=record.options.outcome_family,
            frame=None if frame is None else (frame.X, frame.X),
        )
        order, starts = np.arange(design.n), None
        if design.cluster is not None:
            order = np.argsort(design.cluster, kind="stable")
            edges = np.flatnonzero(np.diff(design.cluster[order])) + 1
            starts = np.r_[np.arange(n_frame), n_frame, n_frame + edges]
        every = np.r_[np.arange(n_frame), n_frame + order]
        height = outcome_level(sample, record.spec).height
        return cls(
            q=training_columns(sample, record.spec)[every],
            y=sample.y[every] - height,
            s=sample.s[every],
            rows=order,
            starts=starts,
            toward=record.target.toward,
            height=height,
            scale=record.options.effect_scale,
            otherwise=Refits(record),
        )

    @cached_property
    def _pairs(self) -> Array:
        return pairwise_columns(self.q)

    def __call__(self, arms: Arms) -> Contrasts:
        """As in `UnderArms`."""
        n_arms, n_frame = self.otherwise.record.design.n_arms, len(self.q) - len(self.rows)
        of_frame = np.full((n_frame, arms.shape[1]), -1, dtype=arms.dtype)
        arm = np.concatenate([of_frame, arms[self.rows]])
        total = self.s[n_frame:].sum()
        tilt = self._tilt(arm, n_frame, total)
        average = self.q.T @ (self.s[:, None] * tilt) / total  # of the columns, over the target
        trained = [self._mean(arm == a, tilt, average, total) for a in range(n_arms)]
        means, influence, singular = zip(*trained, strict=True)
        found = self._contrasts(np.stack(means), influence, total)
        alone = np.logical_or.reduce(singular)
        if alone.any():
            again = self.otherwise(arms[:, alone])
            found.values[alone], found.covariance[alone] = again.values, again.covariance
        return found

    def _tilt(self, arm: Arms, n_frame: int, total: float) -> Array:
        """Tilt towards the target, of mean one; shape (n, m) or (n, 1)."""
        if n_frame:
            return np.r_[np.full(n_frame, total / n_frame), np.zeros(len(self.rows))][:, None]
        if self.toward is None:
            return all_ones(len(self.q))[:, None]
        inside = (arm == self.toward).astype(float)
        return inside * (total / (self.s @ inside))

    def _mean(
        self, inside: NDArray[np.bool_], tilt: Array, average: Array, total: float
    ) -> tuple[Array, Array, NDArray[np.bool_]]:
        """Mean of an arm, (m,), times weights its influence function, (n, m), and which systems are singular."""
        own = inside * self.s[:, None]
        gram = gram_matrices(self._pairs, own, self.q.shape[1])
        theta, singular = solve_definite(gram, (self.q * self.y[:, None]).T @ own)
        average = np.broadcast_to(average, theta.shape)
        lever, _ = solve_definite(gram, average)
        predicted, mean = self.q @ theta, (average * theta).sum(axis=0)
        residual = own * (self.y[:, None] - predicted)
        return mean, self.s[:, None] * tilt * (predicted - mean) + total * (self.q @ lever) * residual, singular

    def _contrasts(self, means: Array, influence: tuple[Array, ...], total: float) -> Contrasts:
        levels = means if self.scale is DIFFERENCE else means + self.height
        with np.errstate(invalid="ignore", divide="ignore"):
            on_scale, slope = self.scale.g(levels), self.scale.g_slope(levels)
            on_scale = np.where((levels > self.scale.low) & (levels < self.scale.high), on_scale, np.nan)
        reference = slope[0] * influence[0]
        moved = np.stack([b * moved - reference for b, moved in zip(slope[1:], influence[1:], strict=True)], axis=2)
        if self.starts is not None:
            moved = np.add.reduceat(moved, self.starts, axis=0)
        return Contrasts((on_scale[1:] - on_scale[0]).T, np.einsum("nmj,nmk->mjk", moved, moved) / total**2)


def of_units(record: FitRecord) -> FitRecord:
    """Return a fit with frequency weights whose observations are rows of their own."""

    def longer(design: Design) -> Design:
        rows = _repeated(design)
        every = taken(design, rows, "y", "X", "Z", "arm", "cluster", "offset", "score", "index")
        return dataclasses.replace(every, weights=np.ones(len(rows)), weight_type=None, weights_name=None)

    return dataclasses.replace(record, design=longer(record.design), full_design=longer(record.full_design))


def _repeated(design: Design) -> NDArray[np.intp]:
    return np.repeat(np.arange(design.n), design.weights.astype(int))


# --- the test ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Permutations:
    """A statistic of a fit and its distribution over assignments.

    Parameters
    ----------
    record : FitRecord
        The fit.
    position : int or None
        The arm whose effect it is of; None for a joint statistic of several.
    kind : {"studentized", "difference"}
        The statistic; a joint one is Wald's.
    alternative : {"two-sided", "larger", "smaller"}
        Which values are extreme.
    assignment : Assignment
        What was permuted.
    exact : bool
        Whether every assignment was taken, that of the fit among them.
    observed : float
        The statistic of the fit.
    null : ndarray, shape (N,)
        The statistic under each assignment; NaN where it could not be computed.
    """

    record: FitRecord
    position: int | None
    kind: str
    alternative: str
    assignment: Assignment
    exact: bool
    observed: float
    null: Array

    @property
    def failed(self) -> int:
        """Assignments under which the estimator could not be computed; they count as extreme."""
        return int(np.isnan(self.null).sum())

    def are_extreme(self, values: Array) -> NDArray[np.bool_]:
        """Whether values of the statistic are at least as extreme as that of the fit; False for NaN."""
        tie = TIE * abs(self.observed)
        if self.alternative == "two-sided":
            return np.abs(values) >= abs(self.observed) - tie
        return values >= self.observed - tie if self.alternative == "larger" else values <= self.observed + tie

    @property
    def extreme(self) -> int:
        """Assignments whose statistic is at least as extreme as that of the fit, or that have none."""
        return int(self.are_extreme(self.null).sum()) + self.failed

    @property
    def pvalue(self) -> float:
        """Share of the assignments that are as extreme; of drawn ones that of the fit counts as one more."""
        added = 0 if self.exact else 1
        return (self.extreme + added) / (len(self.null) + added)

    @property
    def mc_se(self) -> float:
        """Monte Carlo standard error of the p-value; zero where every assignment was taken."""
        return 0.0 if self.exact else math.sqrt(self.pvalue * (1 - self.pvalue) / (len(self.null) + 1))

    @property
    def asymptotic_pvalue(self) -> float:
        """The p-value of the statistic by its distribution in large samples; NaN of a difference, which has none."""
        if self.kind != "studentized":
            return math.nan
        if self.position is None:
            return float(chdtrc(self.record.design.n_arms - 1, self.observed))
        tail = {"two-sided": -abs(self.observed), "larger": -self.observed, "smaller": self.observed}
        return float(ndtr(tail[self.alternative])) * (2 if self.alternative == "two-sided" else 1)


def permuted(
    record: FitRecord,
    n_permutations: int | str,
    *,
    strata: Any,
    data: Any,
    statistic: str,
    alternative: str,
    arm: Any,
    rng: Any,
    n_jobs: int,
    progress: bool,
) -> Permutations:
    """Permute the treatment of a fit; arguments and errors are those of `CausalResults.permutation_test`."""
    one_of("statistic", statistic, STATISTICS)
    one_of("alternative", alternative, ALTERNATIVES)
    if n_permutations != ALL:
        whole_number("n_permutations", n_permutations, 1)
    inference = InferenceOptions(rng=rng, n_jobs=n_jobs, progress=progress)
    _check_fit(record)
    position = None if arm is None and record.design.n_arms > 2 else record.contrast_position(arm)
    if position is None:
        _check_joint(record, statistic, alternative)
    codes, name = coded_strata(record.full_design, strata, data)
    if record.frequency:
        codes, record = codes[_repeated(record.full_design)], of_units(record)
    assignment = assignment_of(record.full_design, codes, name, position)
    exact = _lists_all(assignment, n_permutations)
    count = int(assignment.count) if exact else int(n_permutations)
    draw = assignment.listed if exact else functools.partial(assignment.drawn, seed_sequence(inference.rng))
    under: UnderArms = Linear.of(record) if is_linear(record) else Refits(record)
    measure = functools.partial(statistics_of, position=position, kind=statistic, level=_level(record))
    n = record.full_design.n
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausalRiskWarning)  # of the fit's own, which has told them
        observed = measure(_of_fit(under, record.full_design.arm))
        null = _over_blocks(functools.partial(_block, under, draw, measure), count, n, under.rows_together, inference)
    if not np.isfinite(observed[0]):
        raise UnavailableError(
            "the effect has no sampling error in these data, and a statistic in standard errors no value.\n"
            'Type  statistic="difference".'
        )
    found = Permutations(record, position, statistic, alternative, assignment, exact, float(observed[0]), null)
    if found.failed:
        warn_user(
            f"in {found.failed} of {len(null)} permutations the estimator could not be computed; they count as "
            "extreme, so that the p-value is too large rather than too small.\n"
            "Simplify the formulas for an estimate in each of them.",
            ResampleWarning,
        )
    return found


def _check_fit(record: FitRecord) -> None:
    """Refuse fits that cannot be redone under other assignments."""
    if isinstance(record.design, ScannedDesign):
        raise by_rows("permutation_test")
    if record.joint is not None and record.joint.drawn is not None:
        raise UnavailableError(
            "permutation_test draws the propensity replicates again, and this fit was given its own.\n"
            "Type  res.model.fit().permutation_test()  for a fit without replicates=."
        )


def _check_joint(record: FitRecord, statistic: str, alternative: str) -> None:
    """Refuse what a joint statistic of several effects has not."""
    label = record.design.labels[1]
    for name, given, only in (("statistic", statistic, "studentized"), ("alternative", alternative, "two-sided")):
        if given != only:
            raise OptionError(
                f"{name}={given!r} is of one effect, and there are {record.design.n_arms - 1}; they are tested jointly "
                f'by Wald\'s statistic.\nType  arm={label!r}, {name}="{given}"  for the effect of one arm.'
            )


def _lists_all(assignment: Assignment, n_permutations: int | str) -> bool:
    """Whether every assignment is taken: asked for, or no more than the permutations that were."""
    if n_permutations != ALL:
        return assignment.count <= int(n_permutations)
    if assignment.count > MOST_LISTED:
        many = f"{assignment.count:,}" if math.isfinite(assignment.count) else "more than 10**15"
        raise OptionError(
            f'n_permutations="{ALL}" would be {many} assignments; expected at most {MOST_LISTED:,}.\n'
            "Type  n_permutations=9999."
        )
    return True


def _level(record: FitRecord) -> float:
    """Size of an effect, beside which rounding is measured."""
    return record.design.outcome_deviation if record.options.effect_scale is DIFFERENCE else 1.0


def _of_fit(under: UnderArms, arm: Arms) -> Contrasts:
    """Effects under the assignment of the fit; where every assignment fails, its error."""
    if isinstance(under, Refits):
        values, covariance = contrasts_of(fitted_under(under.record, arm))
        return Contrasts(values[None], covariance[None])
    return under(arm[:, None])


def statistics_of(contrasts: Contrasts, position: int | None, kind: str, level: float) -> Array:
    """Return the statistic of effects under m assignments.

    Parameters
    ----------
    contrasts : Contrasts
        The effects.
    position : int or None
        The arm whose effect it is; None for Wald's statistic of all.
    kind : {"studentized", "difference"}
        The effect over its standard error, or as it is.
    level : float
        Size of an effect: standard errors far below are rounding error.

    Returns
    -------
    ndarray, shape (m,)
        NaN where there are no effects; infinite for an effect without sampling error.
    """
    values = contrasts.values
    se = np.sqrt(np.diagonal(contrasts.covariance, axis1=1, axis2=2))
    se = np.where(se <= SE_ROUNDING * level, 0.0, se)
    values = np.where(np.abs(values) <= SE_ROUNDING * level, 0.0, values)
    if position is not None and kind == "difference":
        return np.asarray(values[:, position - 1])
    with np.errstate(invalid="ignore", divide="ignore"):
        t = np.where(values == 0, 0.0, values / se)
        if position is not None:
            return np.asarray(t[:, position - 1])
        correlation = contrasts.covariance / (se[:, :, None] * se[:, None, :])
        solved, _ = solve_definite(correlation, t.T)
        return np.asarray((t.T * solved).sum(axis=0))


def _block(
    under: UnderArms, draw: Callable[[int, int], Arms], measure: Callable[[Contrasts], Array], width: int, count: int,
    number: int,
) -> Array:  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausalRiskWarning)  # in a process of its own too
        return measure(under(draw(number * width, min(width, count - number * width))))


def _over_blocks(
    block: Callable[[int, int, int], Array], count: int, n: int, rows_together: int, inference: InferenceOptions
) -> Array:
    """Statistics under all assignments of n rows, block by block."""
    width = WIDTH * max(rows_together // n, 1)
    workers = worker_count(inference.n_jobs, inference.memory, 8.0 * ARRAYS * n * width)
    parts = []
    with (
        ordered_map(
            functools.partial(block, width, count),
            -(-count // width),
            workers,
            name=lambda number: f"permutations {number * width} to {min((number + 1) * width, count) - 1}",
        ) as results,
        progress_bar(count, inference.progress, "permutations", "permutation") as advance,
    ):
        for part in results:
            parts.append(part)
            advance(len(part))
    return np.concatenate(parts)
