"""`Design`, the read-only arrays of one estimation sample, and functions that code new rows in the same way."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

import numpy as np
import pandas as pd
from pandas.api.types import is_scalar

from causalrisk.design import rows as drawing
from causalrisk.design import support
from causalrisk.design.did import Periods
from causalrisk.design.encoders import Encoder, Filled, FormulaEncoder
from causalrisk.design.scan import naming
from causalrisk.design.support import ColumnMoments, Dependence, Rules
from causalrisk.design.survey import Factors, Replication, SurveyDesign
from causalrisk.design.tables import as_table, listing, needed_column, new_column
from causalrisk.errors import DesignError, DesignWarning, OptionError, UnavailableError, not_on_disk, warn_user
from causalrisk.numerics.arrays import add_up, taken

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Observation:
    """The observation model: mask (n,) of observed outcomes, design matrix (n, r), and encoder of this matrix."""

    recorded: np.ndarray
    columns: np.ndarray
    encoder: FormulaEncoder

    @property
    def formula(self) -> str:
        """Right-hand side of the model's formula."""
        return self.encoder.formula.right_text


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Design:
    """All data of an estimator, as read-only arrays.

    Parameters
    ----------
    y : ndarray of float64, shape (n,)
        Outcome.
    X : ndarray of float64, shape (n, p)
        Outcome design, C-contiguous.
    Z : ndarray of float64, shape (n, q)
        Propensity design, C-contiguous.
    arm : ndarray of int, shape (n,)
        Arm (treatment group) of each row, 0 .. K-1, in the smallest signed type; 0 is the reference.
    weights : ndarray of float64, shape (n,)
        Observation weights; ones unless given. Probability weights are divided by their mean.
    weight_type : {None, "frequency", "probability"}
        Meaning of the weights.
    cluster : ndarray of intp, shape (n,), or None
        Cluster of each row, 0 .. G-1.
    offset : ndarray of float64, shape (n,), or None
        Known part of the linear predictor of the outcome models: the offset, or the log of the exposure.
    offset_kind : {None, "offset", "exposure"}
        Whether the caller gave an offset or an exposure.
    score : ndarray of float64, shape (n, K), or None
        Known probability of each arm, strictly between 0 and 1; None if it is to be estimated.
    labels : tuple of str
        Printed arm labels, reference first.
    levels : tuple
        Raw treatment levels, reference first.
    endog_name, treat_name : str
        Names of the outcome and the treatment.
    formula, propensity_formula : str or None
        The two-sided formulas as shown in the summary; None if the design was made from arrays.
    index : pandas.Index
        Labels of the n rows in the sample.
    in_sample : Series of bool
        Mask of the rows in the sample, on the caller's index.
    ledger : tuple of tuple
        Lines of `sample_ledger`.
    notes : tuple of str
        Text of each warning given while the design was made.
    weights_name, cluster_name, second_cluster_name, offset_name, score_name : str or None
        Names of the weights, the cluster variables, the offset or exposure, and the known propensity score.
    rules : Rules
        Rules for the columns of X and Z.
    missing : {"drop", "raise", "indicator"}
        Whether rows with missing values are dropped, raise an error, or have their covariates filled in.
    dropped_terms : tuple of str
        Names of the columns dropped from either model because of linear dependence, in all rows or within an arm.
    outcome_encoder, propensity_encoder : Encoder
        Encoders, which code new rows as the columns of X and Z.
    clusters : pandas.Index, shape (G,), or None
        Names of the clusters. None without clusters, and for rows on disk.
    survey : SurveyDesign or None
        The survey design, whose first-stage units are the clusters.
    second_cluster : ndarray of intp, shape (n,), or None
        Cluster of each row by the second variable of two-way clusters.
    observation : Observation or None
        Model of whether outcomes are observed. With it, missing outcomes are NaN in `y`.
    periods : Periods or None
        The periods of repeated cross sections. Arm means are then differences between the periods.
    filled : tuple of Filled
        Covariates whose missing values were replaced.
    predictions : ndarray of float64, shape (n, K), or None
        Given predictions of the outcome in each arm, used instead of outcome models.
    predictions_name : tuple of str or None
        Names of the columns of `predictions`.
    left : ndarray of int, shape (n,), or None
        Positions of the rows among the rows before trimming; None without trimming.
    unit_name : {"row", "observation", "unit"}
        What `nobs` counts: "observation" with frequency weights, "unit" for long data, otherwise "row".

    Notes
    -----
    All arrays are copies and read-only.
    """

    y: np.ndarray
    X: np.ndarray
    Z: np.ndarray
    arm: np.ndarray
    weights: np.ndarray
    weight_type: str | None = None
    cluster: np.ndarray | None
    offset: np.ndarray | None
    offset_kind: str | None = None
    score: np.ndarray | None = None
    labels: tuple[str, ...]
    levels: tuple[object, ...]
    endog_name: str
    treat_name: str
    formula: str | None = None
    propensity_formula: str | None = None
    index: pd.Index
    in_sample: pd.Series
    ledger: tuple[drawing.Line, ...]
    notes: tuple[str, ...] = ()
    weights_name: str | None = None
    cluster_name: str | None = None
    offset_name: str | None = None
    score_name: str | None = None
    rules: Rules
    missing: str
    dropped_terms: tuple[str, ...] = ()
    outcome_encoder: Encoder
    propensity_encoder: Encoder
    clusters: pd.Index | None = None
    survey: SurveyDesign | None = None
    second_cluster: np.ndarray | None = None
    second_cluster_name: str | None = None
    observation: Observation | None = None
    periods: Periods | None = None
    filled: tuple[Filled, ...] = ()
    predictions: np.ndarray | None = None
    predictions_name: tuple[str, ...] | None = None
    left: np.ndarray | None = None
    unit_name: str = "row"

    def __post_init__(self) -> None:
        of_observation = () if self.observation is None else vars(self.observation).values()
        for array in (*vars(self).values(), *of_observation):
            if isinstance(array, np.ndarray):
                array.flags.writeable = False

    def __repr__(self) -> str:
        what = self.formula or self.endog_name
        return f"Design: {what}, {self.treat_name}: {self.contrast}, n {self.nobs}"

    on_disk: ClassVar[bool] = False  # whether the rows are on disk

    @property
    def exog_names(self) -> tuple[str, ...]:
        """Names of the columns of X."""
        return self.outcome_encoder.names

    @property
    def propensity_names(self) -> tuple[str, ...]:
        """Names of the columns of Z."""
        return self.propensity_encoder.names

    @property
    def n(self) -> int:
        """Number of rows in the sample."""
        return len(self.y)

    @property
    def position(self) -> np.ndarray:
        """Position of each row in the sample, shape (n,)."""
        return np.arange(self.n)

    def check_in_memory(self, what: str, instead: str = "") -> None:
        """Raise an UnavailableError if the rows are on disk. `what` needs rows in memory. `instead` is advice."""
        if self.on_disk:
            raise not_on_disk(what, instead)

    def over(self, function: Callable[[Any], T]) -> Iterator[T]:
        """Return an iterator over `function(rows)` for each block of rows. A design in memory is one block."""
        return iter([function(self)])

    @property
    def units(self) -> np.ndarray:
        """Number of observations that each row represents, shape (n,): its frequency weight, or one."""
        return self.weights if self.weight_type == "frequency" else np.ones(self.n)

    @property
    def nobs(self) -> int:
        """Number of observations: the sum of frequency weights, or the number of rows."""
        return int(self.units.sum())

    @property
    def n_arms(self) -> int:
        """Number of arms, K."""
        return len(self.labels)

    def arm_named(self, name: Any) -> int | None:
        """Return the position of the arm with this label or level, or None if there is no such arm."""
        pairs = enumerate(zip(self.labels, self.levels, strict=True))
        return next((k for k, names in pairs if is_scalar(name) and name in names), None)

    @property
    def contrast(self) -> str:
        """Contrast of the arms in words, such as "b, c vs a"."""
        return f"{', '.join(self.labels[1:])} vs {self.labels[0]}"

    @property
    def n_dropped(self) -> int:
        """Number of rows of the data that were dropped, not counting rows outside the subpopulation."""
        return sum(dropped for formula, _, _, dropped in self.ledger if formula != "subpop")

    @property
    def n_outside(self) -> int:
        """Number of rows outside the subpopulation, which matter only for the standard errors."""
        return sum(dropped for formula, _, _, dropped in self.ledger if formula == "subpop")

    @property
    def sample_ledger(self) -> pd.DataFrame:
        """Missing values and dropped rows by variable. Columns: "formula", "variable", "missing" and "dropped"."""
        frame = pd.DataFrame(list(self.ledger), columns=["formula", "variable", "missing", "dropped"])
        return frame.astype({"missing": np.int64, "dropped": np.int64})

    @property
    def n_clusters(self) -> int:
        """Number G of clusters, by the first cluster variable. 0 without clusters."""
        return 0 if self.cluster is None else int(self.cluster.max()) + 1

    @property
    def cluster_counts(self) -> tuple[int, ...]:
        """Number of clusters by each cluster variable: none, one or two numbers."""
        second = () if self.second_cluster is None else (int(self.second_cluster.max()) + 1,)
        return (self.n_clusters, *second) if self.n_clusters else ()

    @property
    def cluster_names(self) -> tuple[str, ...]:
        """Names of the cluster variables: none, one or two."""
        return tuple(name for name in (self.cluster_name, self.second_cluster_name) if name is not None)

    @property
    def arm_clusters(self) -> list[int]:
        """Number of clusters with rows in each arm, shape (K,). With two-way clusters, the smaller of two numbers."""
        ways = [cluster for cluster in (self.cluster, self.second_cluster) if cluster is not None]
        return [min((len(np.unique(cluster[rows])) for cluster in ways), default=0) for rows in self.members]

    @property
    def outcome_limits(self) -> np.ndarray:
        """Smallest and largest outcome in each arm, shape (K, 2)."""
        return np.array([(own.min(), own.max()) for own in (self.y[rows] for rows in self.members & self.recorded)])

    @property
    def varying(self) -> np.ndarray:
        """Mask (p,) of the columns of the outcome design that vary over the rows with an outcome."""
        return np.asarray(np.ptp(self.X[self.recorded], axis=0) > 0)

    @property
    def has_binary_outcome(self) -> bool:
        """True if every outcome is 0 or 1."""
        return bool(np.isin(self.y[self.recorded], (0, 1)).all())

    @property
    def outcome_deviation(self) -> float:
        """Standard deviation of the outcome, with observation weights."""
        return float(np.sqrt(np.cov(self.y[self.recorded], aweights=self.weights[self.recorded], ddof=0)))

    @property
    def recorded(self) -> np.ndarray:
        """Mask (n,) of the rows with an observed outcome."""
        return np.ones(self.n, dtype=bool) if self.observation is None else self.observation.recorded

    @property
    def unrecorded(self) -> np.ndarray:
        """Number of observations without an outcome in each arm, shape (K,)."""
        lost = ~self.recorded
        return np.bincount(self.arm[lost], self.units[lost], minlength=self.n_arms).astype(np.intp)

    @property
    def n_unrecorded(self) -> int:
        """Number of observations without an outcome."""
        return 0 if self.observation is None else int(self.unrecorded.sum())

    @property
    def counts(self) -> np.ndarray:
        """Number of observations in each arm, shape (K,)."""
        return np.bincount(self.arm, self.units, minlength=self.n_arms).astype(np.intp)

    @property
    def members(self) -> np.ndarray:
        """Mask (K, n) of the rows of each arm."""
        return self.arm == np.arange(self.n_arms)[:, None]

    def subset(self, keep: np.ndarray, reason: str) -> Design:
        """Return the design on the rows that the mask `keep` marks. `reason` names the dropped rows in the ledger."""
        left, notes = int(keep.sum()), list[str]()
        found = f"trimming ({reason}) leaves {left} of {self.n} rows"
        with naming(found, "\nUse a wider `trim=(low, high)`."):
            if not left:
                raise DesignError("no observations left.")
            smaller = self._of_rows(keep).supported(notes)
        lost = self.n - left
        ledger = (*self.ledger, ("trim", reason, lost, lost)) if lost else self.ledger
        smaller = smaller._with(ledger=ledger, left=np.flatnonzero(keep))
        return smaller.with_notes([f"after trimming: {note}" for note in notes if note not in self.notes])

    def for_scores(self, rule: str) -> Design:
        """Return the design under another rule for dropping propensity columns (see `Rules.scores`)."""
        if rule == self.rules.scores:
            return self
        if rule == support.AS_THEY_ARE and self.dropped_terms:
            found = f"propensity_score= or trim= needs columns that the model dropped: {listing(self.dropped_terms)}"
            raise OptionError(f"{found}.\nUse this option in `from_formula`.")
        notes = list[str]()
        made = self._with(rules=self.rules._replace(scores=rule)).supported(notes)
        return made.with_notes([note for note in notes if note not in self.notes])

    def with_notes(self, new: Sequence[str]) -> Design:
        """Give warnings, and return the design with their texts added to its notes."""
        for note in new:
            warn_user(note, DesignWarning)
        return self._with(notes=(*self.notes, *new))

    def _with(self, **other: Any) -> Design:
        return replace(self, **other)

    @property
    def replication(self) -> Replication | None:
        """Replicate weights of the survey design, if any."""
        return None if self.survey is None else self.survey.replication

    @property
    def strata(self) -> Factors | None:
        """Weights of the strata in the variance, if any. The last stratum is for the rows of a target frame."""
        if self.survey is None or self.survey.replication is not None:
            return None
        own = self.survey.factors
        return Factors(np.append(own.squares, 1.0), np.append(own.totals, 0.0))

    def _of_rows(self, keep: np.ndarray) -> Design:
        """Return the design on the rows that the mask `keep` (n,) marks, without checking its columns."""
        in_sample = self.in_sample.copy()
        in_sample.iloc[np.flatnonzero(in_sample)] = keep
        numbers, cluster = drawing.renumbered(self.cluster, keep, self.cluster_name)
        _, second = drawing.renumbered(self.second_cluster, keep, self.second_cluster_name)
        return replace(
            taken(self, keep, "y", "X", "Z", "arm", "offset", "score", "predictions", "index"),
            in_sample=in_sample,
            weights=drawing.relative_weights(self.weights[keep], self.weight_type),
            cluster=cluster,
            clusters=None if self.clusters is None else self.clusters[numbers],
            second_cluster=second,
            survey=None if self.survey is None else self.survey.of(keep),
            observation=None if self.observation is None else taken(self.observation, keep, "recorded", "columns"),
            periods=None if self.periods is None else taken(self.periods, keep, "late"),
        )

    def under(self, arm: np.ndarray) -> Design:
        """Return the design under another treatment assignment `arm` (n,) of its rows. Columns are checked again."""
        return replace(self, arm=arm).supported([])

    def extended(self, step: Callable[[Any], Any], encoder: Encoder, notes: list[str], *, given: bool) -> Design:
        """Return the design with outcome columns computed by `step`. Arguments are as in `DesignOnDisk.extended`."""
        X = np.ascontiguousarray(step(self).X)
        made = replace(self, X=X, outcome_encoder=encoder)
        return made if given else made.supported(notes)

    def without(self, names: Collection[str]) -> Design:
        """Return the design without the columns of either model that use any of these covariates."""
        keep, keep_z = ~self.outcome_encoder.made_of(names), ~self.propensity_encoder.made_of(names)
        if keep.all() and keep_z.all():
            known = listing(dict.fromkeys([*self.outcome_encoder.variables, *self.propensity_encoder.variables]))
            raise OptionError(f"{listing(names)} is in neither formula.\nUse one of {known}.")
        return self._with_columns(keep, keep_z)

    def _with_columns(self, keep: np.ndarray, keep_z: np.ndarray) -> Design:
        X = self.X if keep.all() else np.ascontiguousarray(self.X[:, keep])
        Z = self.Z if keep_z.all() else np.ascontiguousarray(self.Z[:, keep_z])
        return replace(
            self,
            X=X,
            Z=X if X is Z or np.array_equal(X, Z) else Z,  # one array, with one basis
            outcome_encoder=self.outcome_encoder.keeping(keep),
            propensity_encoder=self.propensity_encoder.keeping(keep_z),
        )

    def supported(self, notes: list[str]) -> Design:
        """Return the design without columns whose coefficients are not identified. `notes` gets the reasons."""
        support.check_magnitude(self.y[self.recorded], f"outcome {self.endog_name!r}")
        arm, k, rows = self.arm, self.n_arms, self.recorded
        cell, cells = (arm, self.labels) if self.periods is None else self.periods.cells(arm, self.labels)
        size = np.bincount(cell[rows], weights=self.units[rows], minlength=len(cells))
        X = ColumnMoments.of(self.X if rows.all() else self.X[rows], cell[rows], len(cells))
        same = self.Z is self.X and rows.all() and cell is arm
        Z = X if same else ColumnMoments.of(self.Z, arm, k)
        observation = None if self.observation is None else self._supported_observation(self.observation, notes)
        keep, keep_z, dropped = self.kept(X, Z, size, cells, notes)
        return replace(self._with_columns(keep, keep_z), observation=observation, dropped_terms=dropped)

    def _supported_observation(self, model: Observation, notes: list[str]) -> Observation | None:
        """Return the observation model without dependent columns, or None if no outcome is missing."""
        empty = [k for k, rows in enumerate(self.members) if not model.recorded[rows].any()]
        if empty:
            where = f"all {self.members[empty[0]].sum()} rows of group {self.labels[empty[0]]!r}"
            raise DesignError(f"{self.endog_name!r} is missing in {where}.\nDrop that group from the data.")
        if model.recorded.all():
            nothing = f"no outcome {self.endog_name!r} is missing"
            notes.append(f"observed={model.formula!r} has no effect, because {nothing}. Leave observed= out.")
            return None
        columns, own = ColumnMoments.of(model.columns), list[str]()
        keep = columns.usable(model.encoder.names, "observation", own)
        notes += [f"observation model: {note}" for note in own]
        return replace(model, columns=np.ascontiguousarray(model.columns[:, keep]), encoder=model.encoder.keeping(keep))

    def kept(
        self, X: ColumnMoments, Z: ColumnMoments, size: np.ndarray, cells: tuple[str, ...], notes: list[str]
    ) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
        """Return masks of the columns to keep in both models, and the names of all dropped columns.

        Among dependent columns the earlier ones are kept, as in R's ``lm``. `Rules.scores` says which of the propensity
        columns that are dependent within an arm are dropped. Columns separate an arm if a combination of them is zero
        in the arm and has one sign in every other arm. Dropped columns add lines to `notes`. A DesignError is raised if
        there are too few observations for the coefficients, or if no column is left.

        `X` has the moments of the outcome columns in each cell, over the rows with an outcome. A cell is an arm or,
        with repeated cross sections, an arm in one period. `size` has the number of observations with an outcome in
        each cell. `Z` has the moments of the propensity columns in each arm.
        """
        rules, own, own_z = self.rules, list[str](), list[str]()
        keep = X.usable(self.exog_names, "outcome", own)
        keep_z = Z.usable(self.propensity_names, "propensity", own_z)
        p = 1 if rules.constant_outcome else int(keep.sum())
        support.check_arm_sizes(size, cells, p, int(keep_z.sum()), rules.controls_only)
        of_x, of_z = list[Dependence](), list[Dependence]()
        if not rules.constant_outcome:
            keep, of_x = X.within_arms(keep, n_arms=1 if rules.controls_only else None)
        if rules.scores == "balanced":
            keep_z, of_z = Z.within_arms(keep_z)
        elif rules.scores == "likely":
            keep_z, of_z = support.without_separating(Z, keep_z, self.spans)
        for what, encoder, seen, labels, found, kept, told in (
            ("outcome", self.outcome_encoder, X, cells, of_x, keep, own),
            ("propensity", self.propensity_encoder, Z, self.labels, of_z, keep_z, own_z),
        ):
            if not found:
                continue
            why = support.causes(encoder, seen, labels, found)
            if not kept.any():
                left = f"the {what} model has no columns left"
                raise DesignError(f"{left}: {why}.\nAdd a constant: leave out `0 +` or `- 1`, or use `add_constant`.")
            dropped = listing(dict.fromkeys(encoder.names[one.column] for one in found))
            columns = [one.column for one in found]
            advice = f"\nIf a column is computed from the treatment {self.treat_name!r}, take it out of the formulas."
            if labels is not self.labels or (seen.low[:, columns] < seen.high[:, columns]).any():
                advice = (
                    " Rows with a level that a group lacks have no overlap. Without `trim=` they are kept, and their "
                    "outcome in that group is extrapolated.\nMerge this level with another, or drop its rows from "
                    "the data."
                )
            told.append(f"dropped {dropped}, because {why}.{advice}")
        both = "outcome and propensity models" if rules.scored else "outcome model"
        notes += [f"{both}: {note}" for note in own if note in own_z]
        notes += [f"outcome model: {note}" for note in own if note not in own_z]
        notes += [f"propensity model: {note}" for note in own_z if note not in own]
        lost = itertools.compress([*self.exog_names, *self.propensity_names], [*~keep, *~keep_z])
        return keep, keep_z, tuple(dict.fromkeys([*self.dropped_terms, *lost]))

    def spans(self, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the minima (K, m) and maxima (K, m) of m linear combinations of the propensity columns in each arm."""
        k = self.n_arms
        found = add_up(self.over(lambda block: ColumnMoments.of(block.Z @ directions, block.arm, k)))
        return found.low, found.high


def new_offset(design: Design, data: Any) -> np.ndarray:
    """Return the offset (m,) of new rows, read from the column that was the offset or exposure of the fit."""
    kind, name = str(design.offset_kind), str(design.offset_name)
    table = as_table(data if hasattr(data, "columns") or hasattr(data, "keys") else {}, [])
    use = f"is the {kind} of the fit" + (" (not needed with `at_exposure=1`)" if kind == "exposure" else "")
    return drawing.read_offset(drawing.Source(kind, name, new_column(table, name, use)))


@dataclass(frozen=True, eq=False)
class TargetRows:
    """Rows of another population, coded as columns of both models, with their labels and notes."""

    X: np.ndarray
    Z: np.ndarray
    index: pd.Index
    notes: tuple[str, ...]


def target_rows(design: Design, data: Any, missing: str = "drop") -> TargetRows:
    """Code rows of another population as the sample was coded: same levels, same means in ``center()``."""
    if design.filled:
        names = ", ".join(one.name for one in design.filled)
        found = f"target= cannot be a data frame if missing values of {names} are filled in"
        raise UnavailableError(f'{found}.\nUse `missing="drop"`.')
    notes, models = list[str](), {"outcome": design.outcome_encoder, "propensity": design.propensity_encoder}
    table = as_table(data, notes)
    if design.formula is None:
        for (i, name), (j, other) in itertools.product(*map(enumerate, (design.exog_names, design.propensity_names))):
            if name == other and not np.array_equal(design.X[:, i], design.Z[:, j]):
                raise DesignError(f"exog and exog_propensity have different columns named {name!r}.\nRename one.")
    sources = {}
    for model, encoder in models.items():
        for name in encoder.variables:
            column = needed_column(table, name, "the target frame has", f"the {model} model uses")
            sources[name] = drawing.Source(model, name, column)
    with naming("the target frame cannot be used"):
        rows = drawing.complete_rows(list(sources.values()), table.index, missing)
        drawing.check_rows_left(rows.lines, len(rows.keep), rows.n)
        columns = {name: source.values[rows.keep] for name, source in sources.items()}
        frame = pd.DataFrame(columns, index=table.index[rows.keep])
        X, Z = (encoder.encode(frame) for encoder in models.values())
    dropped = int((~rows.keep).sum())
    if dropped:
        names = listing(name for _, name, count, _ in rows.lines if count)
        notes.append(f"{dropped} of {len(rows.keep)} rows of the target frame lack {names} and are left out.")
    X.flags.writeable = Z.flags.writeable = False
    return TargetRows(X=X, Z=Z, index=frame.index, notes=tuple(notes))
