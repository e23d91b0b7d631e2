"""The estimating equations of each estimator, built from shared blocks.

The notation follows docs/explanation/method.md. e are the propensity scores. The tilt h(e) turns the sample into the
target population. w = h / e is the importance weight of a row in its own arm, and t = h is its weight in the means. m_a
is the outcome model of arm a, and mu_a is the arm's mean over the target. If arm k is the target, as in an ATT,
w = e_k / e_a, and t is 1 in arm k and 0 elsewhere. For a `Point` called `at`, `at(eta)` is a linear predictor, and
`at.of(values)` has the values in its rows. Odds are used because 1 - e would lose digits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from causalrisk.errors import Failure, SeparationError
from causalrisk.estimation.engine import ALL, LARGEST, Block, FieldsAlone, Linear, Point, apply, apply_score, exp
from causalrisk.estimation.sample import Sample
from causalrisk.estimation.specification import Specification, TargetPopulation
from causalrisk.learners.cross_fitting import fitted_copy, learner_errors
from causalrisk.numerics.arrays import Array, add_up, chunk_sizes, chunks_of, in_chunks, is_dask
from causalrisk.numerics.families import BINARY_LINKS, LINEAR, OutcomeFamily
from causalrisk.numerics.resampling import nearly_whole

SMALLEST = 1e-12  # replaces a classifier's score of zero until the score is clipped


# --- propensity scores -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Score:
    """Propensity scores of K arms, as functions of a `Point` (rows and coefficients)."""

    n_arms: int
    ratio: Callable[[Point, int, int], Any]  # ratio(at, t, a): e_t / e_a of two arms
    block: Block | None = None  # equations of the coefficients; None for known scores
    own: Callable[[Point, int], Any] | None = None  # own(at, a): 1 / e_a if it is not the sum of the ratios

    def odds(self, at: Point, t: int, a: int) -> Any:
        """Return the odds e_t / e_a of arms t and a in the rows of `at`."""
        return self.ratio(at, t, a) if t != a else 1.0

    def inverse(self, at: Point, a: int) -> Any:
        """Return the inverse probability 1 / e_a of arm a in the rows of `at`."""
        return self.own(at, a) if self.own else sum(self.odds(at, k, a) for k in range(self.n_arms))


@dataclass(frozen=True)
class ScoreModel:
    """The propensity model to fit, or the known scores."""

    kind: str  # "logit", "probit", "cloglog", "calibrated", "known" or "classifier"
    limits: tuple[float, float] | None = None  # limits to which scores are clipped
    e: Array | None = None  # known scores, (n, K), or a classifier's scores under R resamples, (n, K, R)
    classifier: Classifier | None = None  # fits scores that have no coefficients

    def score(self, sample: Sample, toward: int | None) -> Score:
        """Return the propensity scores of a sample. `toward` is the arm that is the target, as in an ATT, or None."""
        if self.e is not None:
            found = known_score(self.e)
        elif self.kind == "calibrated":
            found = calibrated_score(sample, toward)
        else:
            found = logit_score(sample) if self.kind == "logit" else link_score(sample, self.kind)
        return found if self.limits is None else clipped(found, *self.limits)


def fitted(predictors: Sequence[Linear], residuals: Callable[[Point], list[Any]]) -> Block:
    """Return the equations of a binary or multinomial model that is fitted to all rows."""
    terms = ((ALL, residuals),)
    return Block(tuple(predictors), terms, singular=Failure.SINGULAR_PROPENSITY, separated=Failure.SEPARATION)


def binary_block(eta: Linear, event: NDArray[Any], among: Array, link: str = "logit") -> Block:
    """Return the likelihood equations of a binary model for `event`, fitted to the rows where `among` is one."""
    score = BINARY_LINKS[link].score
    return fitted([eta], lambda at: [at.of(among) * apply_score(at(eta), score, at.of(event))])


def logit_score(sample: Sample) -> Score:
    """Return propensity scores by a multinomial logit, log e_k / e_0 = Z gamma_k. With two arms, this is the logit."""
    arm, inside, n_arms = sample.arm, sample.in_sample, sample.n_arms
    predictors = [Linear("score", sample.Z.columns, j) for j in range(n_arms - 1)]

    def log_odds(at: Point, k: int) -> Any:
        return at(predictors[k - 1]) if k else 0.0

    def residuals(at: Point) -> list[Any]:
        return [at.of(inside) * ((at.of(arm) == k) * 1.0 - 1 / score.inverse(at, k)) for k in range(1, n_arms)]

    block = fitted(predictors, residuals) if n_arms > 2 else binary_block(predictors[0], arm, inside)
    score = Score(n_arms, lambda at, t, a: exp(log_odds(at, t) - log_odds(at, a)), block)
    return score


def link_score(sample: Sample, link: str) -> Score:
    """Return the propensity scores of two arms under a link other than the logit, e_1 = F(Z gamma)."""
    eta, of_link = Linear("score", sample.Z.columns), BINARY_LINKS[link]

    def bounded(function: Callable[..., Array], x: Array, own: float) -> Array:
        with np.errstate(all="ignore"):  # the probability of the row's own arm may be zero
            return np.nan_to_num(np.clip(function(x, own), -LARGEST, LARGEST))

    def ratio(at: Point, _: int, a: int) -> Any:
        return apply(at(eta), partial(bounded, of_link.own_odds), partial(bounded, of_link.own_odds_slope), float(a))

    return Score(2, ratio, binary_block(eta, sample.arm, sample.in_sample, link))


def calibrated_score(sample: Sample, toward: int | None) -> Score:
    """Return scores whose weights balance Z exactly (Tan 2020): 1 + exp(-Z gamma_a) or, for an ATT, exp(-Z gamma_a)."""
    arms = [a for a in range(sample.n_arms) if a != toward]
    predictors = {a: Linear("score", sample.Z.columns, j) for j, a in enumerate(arms)}

    def away(at: Point, a: int) -> Any:
        return exp(-at(predictors[a])) if a != toward else 1.0

    def inverse(at: Point, a: int) -> Any:
        return 1.0 + away(at, a)

    def residuals(at: Point) -> list[Any]:
        found, own = [], at.of(sample.arm)
        for a in arms:
            target = (own != a if toward is None else own == toward) * 1.0
            found.append(at.of(sample.in_sample) * ((own == a) * away(at, a) - target))
        return found

    block = fitted(list(predictors.values()), residuals)
    if toward is None:
        return Score(sample.n_arms, lambda at, t, a: inverse(at, a) / inverse(at, t), block, inverse)
    return Score(sample.n_arms, lambda at, t, a: away(at, a) / away(at, t), block)


def known_score(e: Array) -> Score:
    """Return scores without coefficients: given scores (n, K), or a classifier's scores (n, K, R) in R resamples."""

    def of(at: Point, a: int) -> Array:
        own = e[at.rows, a]
        return own if own.ndim == 2 else own[:, None]

    return Score(e.shape[1], lambda at, t, a: of(at, t) / of(at, a), own=lambda at, a: 1 / of(at, a))


def clipped(score: Score, low: float, high: float) -> Score:
    """Clip the treated arm's propensity score to limits. With more than two arms, clip the score of each arm."""

    def inverse(at: Point, a: int) -> Any:
        least, most = (low, high) if a or score.n_arms > 2 else (1 - high, 1 - low)
        with np.errstate(divide="ignore"):
            floor, ceiling = np.divide(1.0, most), np.divide(1.0, least)
        x = score.inverse(at, a)
        return apply(x, lambda v: np.clip(v, floor, ceiling), lambda v: ((v >= floor) & (v <= ceiling)) * 1.0)

    def ratio(at: Point, t: int, a: int) -> Any:
        return inverse(at, a) - 1.0 if score.n_arms == 2 else inverse(at, a) / inverse(at, t)

    return Score(score.n_arms, ratio, score.block, inverse)


@dataclass(frozen=True)
class Classifier:
    """Cross-fitted propensity scores of a classifier. Each row's score is from the fit to the other folds."""

    classifier: Any
    features: Array
    fold: NDArray[np.intp]
    repeat: int = 0

    def scores(self, sample: Sample, s: Array, *, clip: bool) -> Array:
        """Return scores (n, K, R) under row weights (n, R). Without rows of an arm in a resample, scores are 1 / K."""
        found = np.full((sample.n, sample.n_arms, s.shape[1]), 1 / sample.n_arms)
        for r in range(s.shape[1]):
            if (np.bincount(sample.arm, s[:, r] > 0, sample.n_arms) > 0).all():
                found[:, :, r] = self._under(sample, s[:, r], clip)
        return found

    def _under(self, sample: Sample, weights: Array, clip: bool) -> Array:
        scores = np.empty((sample.n, sample.n_arms))
        counts = bool(nearly_whole(weights).all())
        for fold in range(self.fold.max() + 1):
            out = self.fold == fold
            rows = np.flatnonzero(~out & (weights > 0))
            where, entropy = f"fold {fold + 1} of {self.fold.max() + 1}", [self.repeat, sample.n_arms, fold]
            X, y, own = self.features[rows], sample.arm[rows], weights[rows]
            with learner_errors(f"classifier {type(self.classifier).__name__}", where):
                instead = "`propensity_score=LogisticRegression()`"
                model = fitted_copy(self.classifier, entropy, X, y, own, counts=counts, instead=instead)
                found = model.predict_proba(self.features[out])
            if len(model.classes_) < sample.n_arms:
                raise SeparationError(f"without {where}, a group has no rows.\nLeave propensity_score= out.")
            scores[out] = found
        extreme = ((scores <= 0) | (scores >= 1)).any(axis=1)
        if extreme.any() and not clip:
            found = f"{type(self.classifier).__name__} scores {int(extreme.sum())} of {len(scores)} rows as 0 or 1"
            advice = "Use `clip=(0.01, 0.99)`, or regularise the classifier."
            raise SeparationError(f"{found}, so weights are infinite.\n{advice}")
        bounded = np.clip(scores, SMALLEST, 1.0)
        return np.asarray(bounded / bounded.sum(axis=1, keepdims=True))


# --- the equations ----------------------------------------------------------------------------------------------------


T = TypeVar("T")
D = TypeVar("D", bound=np.generic)
WEIGHT_NAMES = ("score", "member", "observed")


@dataclass(frozen=True)
class Equations(FieldsAlone):
    """The sample, estimator, target and propensity model that determine the equations.

    `importance` is h / e, and `weight` is importance / (probability that the outcome is observed). `tilt` is the
    weight of a row in the means, t_i. The weights of each arm have the same expected sum as `measure`. `height` is a
    constant subtracted from the outcomes for numerical accuracy.
    """

    sample: Sample
    spec: Specification
    target: TargetPopulation
    model: ScoreModel | None = None
    height: float = 0.0

    def of_estimator(self, spec: Specification) -> Equations:
        """Return the equations of another estimator for the same target, without propensity scores if not needed."""
        model = self.model if spec.uses_propensity or self.target.tilt is not None else None
        return self if spec == self.spec and model is self.model else dataclasses.replace(self, spec=spec, model=model)

    def with_scores(self, e: Array) -> Equations:
        """Return the equations with other known scores, or scores of a classifier; see `ScoreModel`."""
        return dataclasses.replace(self, model=dataclasses.replace(cast(ScoreModel, self.model), e=e))

    @cached_property
    def score(self) -> Score | None:
        """The propensity scores. None if the estimator needs no scores."""
        return None if self.model is None else self.model.score(self.sample, self.target.toward)

    # --- importance weights ------------------------------------------------------------------------------------------

    def tilt(self, at: Point) -> Any:
        """Return each row's weight t_i in the means: h(e), or an indicator of the rows of a target arm or frame."""
        if self.target.frame:
            return 1.0 - at.of(self.sample.in_sample)
        if self.target.toward is not None:
            return (at.of(self.sample.arm) == self.target.toward) * 1.0
        return 1.0 if self.target.tilt is None else self.target.tilt(self.probabilities(at))

    def probabilities(self, at: Point) -> list[Any]:
        """Return the propensity scores e_a of all arms. For two arms that are calibrated separately, e_0 is 1 - e_1."""
        score, model = cast(Score, self.score), cast(ScoreModel, self.model)
        found: list[Any] = [1 / score.inverse(at, a) for a in range(self.sample.n_arms)]
        if model.kind == "calibrated" and self.target.toward is None and len(found) == 2:
            found[0] = 1 - found[1]
        return found

    def measure(self, at: Point) -> Any:
        """Return the tilt or, with a target frame, `density`. Each arm's weights have the same expected sum."""
        return self.density(at) if self.target.frame else self.tilt(at)

    def density(self, at: Point) -> Any:
        """Return the density of the target frame relative to the sample: the odds of belonging to the frame."""
        return exp(at(self.member)) * at.of(self.sample.in_sample)

    def weight(self, at: Point, a: int) -> Any:
        """Return h / e_a divided by the probability that the outcome is observed, and zero for missing outcomes."""
        w = self.importance(at, a)
        if self.observed is None:
            return w
        return w * ((1.0 + exp(-at(self.observed))) * at.of(self.sample.with_outcome))

    def importance(self, at: Point, a: int) -> Any:
        """Return the weight h / e_a, with the tilt h. If arm k is the target, as in an ATT, h = e_k."""
        if self.score is None:
            return at.of(self.sample.with_outcome)
        if self.target.toward is not None:
            return self.score.odds(at, self.target.toward, a)
        return self.measure(at) * self.score.inverse(at, a)

    @cached_property
    def constant(self) -> Array:
        """Coefficients (p,) of the combination of outcome columns that equals one. Zeros if there is none."""
        columns = self.columns
        if self.sample.constant is not None:  # the rows are not in memory
            return np.ones(1) if self.spec.constants else self.sample.constant
        steady = np.flatnonzero((columns[0] == columns).all(axis=0) & (columns[0] != 0))
        if steady.size:  # exact, so adding `height` back changes no other coefficient
            return np.asarray(np.eye(columns.shape[1])[steady[0]] / columns[0, steady[0]])
        found = np.linalg.lstsq(columns.T @ columns, columns.sum(axis=0), rcond=None)[0]
        return np.zeros(columns.shape[1]) if np.abs(columns @ found - 1).max() > 1e-9 else np.asarray(found)

    @cached_property
    def member(self) -> Linear:
        """Linear predictor of belonging to the target frame, on the scale of log odds."""
        return Linear("member", self.sample.Z.columns)

    @cached_property
    def observed(self) -> Linear | None:
        """Log odds that the outcome is observed. None if all are observed or weights are not used."""
        basis = self.sample.R if self.spec.uses_propensity else None
        return None if basis is None else Linear("observed", basis.columns)

    @property
    def weight_blocks(self) -> list[Block]:
        """Equations of the weights' models: propensity score, membership of a target frame, observed outcomes."""
        return [block for block in self.blocks if block.name in WEIGHT_NAMES]

    # --- outcome models ----------------------------------------------------------------------------------------------

    @cached_property
    def family(self) -> OutcomeFamily:
        """Family of the outcome models. Gaussian for intercepts without offset: every family fits their mean."""
        return LINEAR if self.spec.constants and self.sample.offset is None else self.sample.family

    @cached_property
    def columns(self) -> Array:
        """Columns (n, p) of the outcome models: the design's or a constant. One set per period in cross sections."""
        return self.sample.in_periods(self._columns)

    @cached_property
    def _columns(self) -> Array:
        return np.ones((self.sample.n, 1)) if self.spec.constants else self.sample.X.columns

    @cached_property
    def own(self) -> tuple[Linear, ...]:
        """Linear predictor of each arm's outcome model at the observed offsets."""
        return tuple(Linear(f"outcome {a}", self.columns, 0, self.sample.offset) for a in range(self.sample.n_arms))

    @cached_property
    def at_means(self) -> tuple[Linear, ...]:
        """Linear predictor of each arm's averaged predictions. With cross sections, these are changes."""
        columns = self.sample.at_means(self._columns)
        return tuple(Linear(f"outcome {a}", columns, 0, self.sample.mean_offset) for a in range(self.sample.n_arms))

    def outcome(self, a: int) -> Block:
        """Return the model's equation: the sum over arm a of s_i u_i X_i (y_i - m_a) (dm_a / d eta) / V(m_a) is zero.

        u is `weight` in IPW and IPWRA. Otherwise, it is 1 or, for a missing outcome, 0.
        """
        eta, sample = self.own[a], self.sample

        def residuals(at: Point) -> list[Any]:
            u = self.weight(at, a) if self.spec.weighted else at.of(sample.with_outcome)
            return [u * apply_score(at(eta), lambda x, y: self.family.score(y, x)[:2], at.of(sample.y))]

        linear, binary = self.family.linear, self.family.name == "binomial"
        return Block(
            (eta,),
            ((sample.slices[a], residuals),),
            start=None if linear or binary else partial(self._start, a),
            linear=linear,
            least_norm=self.spec.controls_only and a > 0,  # the mean is the same for all solutions
            unsettled=Failure.OUTCOME_NOT_CONVERGED,
            separated=Failure.OUTCOME_SEPARATION if binary else None,
        )

    def _start(self, a: int) -> tuple[Array, Array]:
        sample, rows = self.sample, self.sample.slices[a]
        u, offset = (sample.s * sample.with_outcome)[rows], 0.0 if sample.offset is None else sample.offset[rows]
        q, y, family = self.columns[rows], sample.y[rows], self.family.distribution
        eta = family.link(family.starting_mu(y)) if len(y) else y  # a chunk may have no rows of the arm
        return (q.T * u) @ q, (q.T * u) @ (eta - offset)

    def predicted(self, at: Point, a: int, shift: Any = None, *, observed: bool = False) -> Any:
        """Return an arm's predictions m_a, at `mean_offset` or, if `observed`, at the offsets of the data."""
        eta = (self.own if observed else self.at_means)[a]
        x = at.of(self.sample.X.columns[:, a]) if self.spec.given else at(eta)
        x = x if shift is None else x + shift
        return x if self.family.linear else apply(x, self.family.mean, lambda eta: self.family.mean_and_derivs(eta)[1])

    # --- means -------------------------------------------------------------------------------------------------------

    def weighted_residuals(self, at: Point, a: int, shift: Any = None, less: Any = None) -> Any:
        """Return the weighted residuals w (y - m_a) of an arm's rows, or w (y - m_a - less) if `less` is given."""
        left = at.of(self.sample.y) - self.predicted(at, a, shift, observed=True)
        return self.weight(at, a) * at.of(self.sample.with_outcome) * (left if less is None else left - less)

    @property
    def corrects_apart(self) -> bool:
        """Whether mean residuals have their own equations, instead of being a term in the equations of the means."""
        return self.spec.corrected and (self.spec.normalized or self.spec.targeted or self.target.frame)

    def correction(self, a: int, g: Array) -> Block:
        """Return the equation of an arm's mean residual delta: the sum of w (y - m_a - delta) over arm a is zero.

        For TMLE, delta is added to the linear predictor of m_a. With a target frame and unnormalised weights, the sum
        of w (y - m_a) is delta times the sum of `measure`.
        """
        sample, normalized, targeted = self.sample, self.spec.normalized, self.spec.targeted
        delta = Linear(f"correction {a}", sample.in_periods(g) if normalized else g)
        exposure = np.ones(sample.n)  # of each row, relative to the exposure of the means
        if sample.offset is not None and sample.mean_offset is not None:
            exposure = np.exp(sample.offset - sample.mean_offset)

        def residuals(at: Point) -> list[Any]:
            less = at(delta) * at.of(exposure) if normalized else None
            return [self.weighted_residuals(at, a, at(delta) if targeted else None, less)]

        terms = [(sample.slices[a], residuals)]
        if not normalized and not targeted:
            terms.append((ALL, lambda at: [-(at(delta) * self.measure(at))]))
        return Block((delta,), tuple(terms), linear=not targeted or self.family.linear, singular=Failure.OK)

    def mean(self, a: int, g: Array) -> Block:
        """Return the equation of an arm's mean mu_a: the sum of t (m_a - mu_a) is zero.

        For AIPW, the sum of w (y - m_a) is added, or delta (see `correction`) is added to m_a. AIPW's influence
        function is therefore [t (m_a - mu_a) + 1{arm = a} w (y - m_a)] / mean(t), before `engine.influence` adds the
        contributions of the estimated score and outcome models. For TMLE, m_a contains delta.
        """
        sample, mu, targeted, apart = self.sample, Linear(f"mean {a}", g), self.spec.targeted, self.corrects_apart
        delta = Linear(f"correction {a}", sample.at_means(g) if self.spec.normalized else g)

        def residuals(at: Point) -> list[Any]:
            m = self.predicted(at, a, at(delta) if targeted else None)
            if apart and not targeted:
                m = m + at(delta)
            return [(m - at(mu)) * self.tilt(at)]

        terms = [(ALL, residuals)]
        if self.spec.corrected and not apart:
            terms.append((sample.slices[a], lambda at: [self.weighted_residuals(at, a)]))
        return Block((mu,), tuple(terms), linear=True, singular=Failure.OK)

    # --- the estimators ----------------------------------------------------------------------------------------------

    def arm_blocks(self, g: Array | None = None) -> list[Block]:
        """Return the equations of the arm means or, given `g` (n, k), of projections of potential outcomes on `g`."""
        g, blocks = np.ones((self.sample.n, 1)) if g is None else g, list[Block]()
        for a in range(self.sample.n_arms):
            if self.corrects_apart:
                blocks.append(self.correction(a, g))
            blocks.append(self.mean(a, g))
        return blocks

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """All equations of the estimator.

        Unadjusted and OutcomeRegression: outcome models, means. IPW: score, weighted constants, means. IPWRA: score,
        weighted outcome models, means. AIPW: score, outcome models, means. TMLE, and AIPW with normalised weights or a
        target frame: score, outcome models, corrections, means.
        """
        if self.chunks:
            import dask

            of_chunk, empty = dask.delayed(lambda chunk, k: chunk.blocks[k]), self.empty.blocks
            chunks = [tuple(of_chunk(chunk, k) for chunk in self.chunks) for k in range(len(empty))]
            return tuple(dataclasses.replace(block, chunks=own) for block, own in zip(empty, chunks, strict=True))
        sample, blocks = self.sample, list[Block]()
        if self.score is not None:
            blocks += [] if self.score.block is None else [self.score.block]
            if self.target.frame:
                blocks.append(binary_block(self.member, 1.0 - sample.in_sample, np.ones(sample.n)))
            if self.observed is not None:
                blocks.append(binary_block(self.observed, sample.with_outcome, sample.in_sample))
        if not self.spec.given:
            blocks += [self.outcome(a) for a in range(sample.n_arms)]
        return (*blocks, *self.arm_blocks())

    # --- rows beyond memory ------------------------------------------------------------------------------------------

    @cached_property
    def empty(self) -> Equations:
        """The same equations for a sample without rows."""
        return dataclasses.replace(self, sample=self.sample.empty)

    @cached_property
    def chunks(self) -> tuple[Any, ...]:
        """The equations of each chunk of rows, as delayed objects. Empty if the rows are in memory."""
        if not is_dask(self.sample.y):
            return ()
        import dask

        of_rows, edges = dask.delayed(self.empty.of_rows), np.cumsum([0, *chunk_sizes(self.sample.y)]).tolist()
        parts = {name: chunks_of(values) for name, values in self.sample.columns.items()}
        columns = ({name: each[k] for name, each in parts.items()} for k in range(len(edges) - 1))
        return tuple(of_rows(*each) for each in zip(columns, edges, edges[1:], strict=False))

    def of_rows(self, columns: dict[str, Array], first: int, last: int) -> Equations:
        """Return the equations of the rows from `first` to `last`. `columns` has arrays of these rows by name."""
        return dataclasses.replace(self, sample=self.sample.of_rows(columns, first, last))

    def by_row(self, function: Callable[..., NDArray[D]], *given: Any) -> NDArray[D]:
        """Return `function(equations, *given)` for all rows, shape (n, ...), concatenated over the chunks."""
        found = in_chunks(function, self.chunks, self, *given)
        return np.concatenate(found) if len(found) > 1 else found[0]

    def totals(self, function: Callable[..., Any], *given: Any) -> Any:
        """Add up `function(equations, *given)` over the chunks. The function returns sums over rows."""
        return add_up(in_chunks(function, self.chunks, self, *given))
