"""Monte Carlo studies of designs, sample sizes and estimators, in parallel."""

from __future__ import annotations

import hashlib
import itertools
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from causalrisk import errors
from causalrisk.models.estimators import USUAL, OutcomeRegression, model_named
from causalrisk.models.model import OPTIONS, CausalModel
from causalrisk.numerics.resampling import seed_sequence
from causalrisk.runtime import ordered_map, progress_bar, worker_count
from causalrisk.simulation.designs import Design, Specified, find_design
from causalrisk.simulation.results import StudyResults

FAILURES = (errors.CausalRiskError, ArithmeticError, np.linalg.LinAlgError, RuntimeError, ValueError)


@dataclass
class Trial:
    """One simulated sample, passed to each estimator.

    Parameters
    ----------
    data : DataFrame, shape (n, p + 2)
        Outcome y, treatment d, covariates.
    formula, propensity : str
        Formulas of the analyst.
    seed : SeedSequence
        Seed of the estimators, the same for all of them.
    """

    data: pd.DataFrame
    formula: str
    propensity: str
    seed: np.random.SeedSequence

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
            The model.
        """
        given = {"formula": self.formula, "propensity": self.propensity, "treat": "d"} | options
        return kind.from_formula(data=self.data, **given)


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
        Options of `from_formula` and `fit`, or keyword arguments of the callable.
    """

    label: str
    run: Any
    options: Mapping[str, Any]

    def estimate(self, trial: Trial, n_boot: int) -> tuple[float, float]:
        """Return the estimated effect and its standard error, which is robust if n_boot is 0."""
        if not isinstance(self.run, type):
            found = self.run(trial, **self.options)
            if np.shape(found) != (2,):
                problem = f"estimator {self.label!r} returned {found!r:.80}; expected estimate and standard error"
                raise errors.OptionError(f"{problem}.\nUse `return estimate, se`.")
            return float(found[0]), float(found[1])
        model = {name: value for name, value in self.options.items() if name in ("formula", *OPTIONS)}
        fit = {name: value for name, value in self.options.items() if name not in model}
        how = {"cov_type": "bootstrap", "n_boot": n_boot} if n_boot else {"cov_type": "robust"}
        res = trial.model(self.run, **model).fit(**(how | {"rng": trial.seed} | fit))
        return res.effect, res.effect_se


def choose_estimators(estimators: Any) -> tuple[Entry, ...]:
    """Return the entries of the given estimators.

    Parameters
    ----------
    estimators : None, name, model class, callable, sequence of these, or mapping
        A mapping has labels as keys. Its values are estimators, or pairs of an estimator and its options. None gives
        the defaults.

    Returns
    -------
    tuple of Entry
        The entries.

    Raises
    ------
    OptionError
        If an estimator is unknown, or two have the same label.

    Examples
    --------
    >>> from causalrisk.simulation.study import choose_estimators
    >>> chosen = choose_estimators(
    ...     {"IPWRA": "IPWRA", "JRE erm": ("JRE", {"objective": "erm"})}
    ... )
    >>> [entry.label for entry in chosen], chosen[1].options
    (['IPWRA', 'JRE erm'], {'objective': 'erm'})
    """
    given = USUAL if estimators is None else estimators
    if isinstance(given, str | type) or not isinstance(given, Iterable):
        given = [given]
    pairs = given.items() if isinstance(given, Mapping) else [(None, item) for item in given]
    entries = tuple(_entry(label, item) for label, item in pairs)
    errors.check_distinct("estimators", [entry.label for entry in entries])
    return entries


def _entry(label: str | None, item: Any) -> Entry:
    what, options = item if isinstance(item, tuple) and len(item) == 2 else (item, {})
    if callable(what) and not isinstance(what, type):
        return Entry(str(label or getattr(what, "__name__", repr(what))), what, dict(options))
    model = model_named(what)
    for name, default in (("effect", "difference"), ("target", "all"), ("trim", None), ("use_t", False), ("df", None)):
        if str(options.get(name)) not in ("None", str(default)):
            what = "A study compares differences of means over all units, with normal intervals"
            raise errors.OptionError(f"{name}= is not available in a study. {what}.\nLeave it out, or pass a function.")
    return Entry(str(label or model.spec.name), model, dict(options))


@errors.with_other_names
def run_study(
    design: Any,
    *,
    n: int | Sequence[int] = 500,
    n_sims: int = 200,
    estimators: Any = None,
    rng: Any = 0,
    n_jobs: int = 1,
    progress: bool = False,
    n_boot: int = 0,
    reference: str = "IPWRA",
) -> StudyResults:
    """Draw samples from designs with a known effect, and compare estimators on them.

    Parameters
    ----------
    design : Design, name, or sequence of them
        Designs to draw from. Names are the keys of `causalrisk.simulation.DESIGNS`.
    n : int or sequence of int, default 500
        Number of rows per sample.
    n_sims : int, default 200
        Number of samples per design and size.
    estimators : None, name, model class, callable, sequence of these, or mapping, optional
        By default "Unadjusted", "OutcomeRegression", "IPW", "IPWRA", "AIPW" and "JRE". A mapping gives each estimator a
        label and, if needed, options of `from_formula` and `fit`: ``{"JRE erm": ("JRE", {"objective": "erm"})}``. A
        callable takes a `Trial` and its options, and returns an estimate and its standard error.
    rng : int, Generator, SeedSequence or None, default 0
        Seed or source of random numbers. Sample k depends only on the seed, the design, `n` and k.
    n_jobs : int, default 1
        Number of processes; -1 means one per processor. The number does not change the results. Inside
        ``joblib.parallel_config("dask")``, a number other than 1 uses all workers of the cluster.
    progress : bool, default False
        Whether to show a progress bar on standard error. This needs tqdm.
    n_boot : int, default 0
        Number of bootstrap resamples for this package's estimators. With 0, standard errors are robust: fast, but
        a little too small for JRE.
    reference : str, default "IPWRA"
        Label of the estimator whose mean squared error is the denominator of "mse_ratio". If "IPWRA" is not among the
        estimators, the default is the first one.

    Returns
    -------
    StudyResults
        Estimates and tables.

    Raises
    ------
    OptionError
        If an option is not allowed.

    Notes
    -----
    If an estimator fails on a sample, for example because of separation, its estimate is missing. `failures` of the
    results counts the failures by reason.

    Examples
    --------
    >>> from causalrisk import simulation
    >>> study = simulation.run_study(
    ...     "strong", n=200, n_sims=20, estimators=["Unadjusted", "IPWRA"]
    ... )
    >>> study
    Study of 2 estimators: strong, n 200, 20 samples
    >>> study.table[["bias", "rmse", "mse_ratio"]].round(2)
                           bias  rmse  mse_ratio
    design n   estimator
    strong 200 Unadjusted  1.55  1.57      64.34
               IPWRA       0.03  0.20       1.00
    """
    designs = [find_design(item) for item in (design if isinstance(design, list | tuple) else [design])]
    errors.check_distinct("design", [item.name for item in designs])
    sizes: list[Any] = list(n) if isinstance(n, Iterable) else [n]
    errors.check_distinct("n", [str(size) for size in sizes])
    for size in sizes:
        errors.whole_number("n", size, 2)
    errors.whole_number("n_sims", n_sims, 2)
    errors.whole_number("n_boot", n_boot, 0)
    entries = choose_estimators(estimators)
    names = [entry.label for entry in entries]
    first = reference == "IPWRA" and "IPWRA" not in names
    reference = names[0] if first else errors.one_of("reference", reference, names)
    seed = seed_sequence(rng)
    entropy = [int(word) for word in seed.generate_state(4)] if seed.spawn_key else seed.entropy
    samples = [(of, int(size), number) for of, size, number in itertools.product(designs, sizes, range(n_sims))]
    raw = run_samples(samples, entries, n_boot, entropy, n_jobs, progress)
    for (name, label), part in raw.groupby(["design", "estimator"], sort=False):
        if part["estimate"].isna().all():
            text = f"{label} failed on every sample of {name}: {part['failure'].iloc[0]}"
            errors.warn_user(f"{text}\nSee `study.failures`.", errors.ResampleWarning)
    return StudyResults(raw=raw, designs=tuple(designs), reference=reference, entropy=entropy, n_boot=int(n_boot))


def run_samples(
    samples: list[tuple[Design, int, int]],
    entries: Sequence[Entry],
    n_boot: int,
    entropy: Any,
    n_jobs: int,
    progress: bool,
) -> pd.DataFrame:
    """Draw samples, each given by its design, size and number, and fit the estimators to each.

    `entropy` seeds all random numbers. Returns one row per sample and estimator, in the order of the samples.
    """
    work, rows = partial(run_sample, entries=entries, n_boot=n_boot, entropy=entropy), []
    with (
        progress_bar(len(samples), progress, "study", "sample") as advance,
        ordered_map(work, samples, worker_count(n_jobs), prefer="processes") as results,
    ):
        for found in results:
            rows += found
            advance(1)
    return pd.DataFrame(rows, columns=["design", "n", "sample", "estimator", "estimate", "se", "failure"])


def run_sample(sample: tuple[Design, int, int], entries: Sequence[Entry], n_boot: int, entropy: Any) -> list[Any]:
    """Draw a sample and fit the estimators to it. Return one row per estimator."""
    design, n, number = sample
    data_seed, fit_seed = sample_seeds(entropy, design, n, number)
    rows = []
    with warnings.catch_warnings(action="ignore", category=errors.CausalRiskWarning):  # such as poor overlap
        drawn = design.draw(n, np.random.default_rng(data_seed))
        trial = Trial(drawn.data, design.formula, design.propensity, fit_seed)
        for entry in entries:
            try:
                estimate, se = entry.estimate(trial, n_boot)
                failure = "" if np.isfinite(estimate) else f"the estimate is {estimate}"
            except errors.OptionError:  # a mistake of the caller, not a failure
                raise
            except FAILURES as error:
                failure = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            numbers = (np.nan, np.nan) if failure else (estimate, se)
            rows.append((design.name, n, number, entry.label, *numbers, failure))
    return rows


def sample_seeds(entropy: Any, design: Design, n: int, sample: int) -> list[np.random.SeedSequence]:
    """Return the seeds of a sample's data and of its estimators. Designs with the same `stream` share them."""
    code = int.from_bytes(hashlib.sha256(design.stream.encode()).digest()[:8], "big")
    return np.random.SeedSequence(entropy, spawn_key=(code, n, sample)).spawn(2)


def four_cells(design: Any = "doubly_wrong", **options: Any) -> StudyResults:
    """Compare estimators whose outcome and propensity formulas are correct or misspecified, on the same samples.

    Parameters
    ----------
    design : Design or name, default "doubly_wrong"
        A design in which both formulas are misspecified and the correct formulas are known, such as "kang_schafer".
    **options
        Options of `run_study`.

    Returns
    -------
    StudyResults
        Results with four designs, one per combination.

    Raises
    ------
    OptionError
        If the design does not have both correct and misspecified formulas.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from causalrisk import simulation
    >>> design = replace(simulation.DESIGNS["doubly_wrong"], curvature=0.5)
    >>> names = ["OutcomeRegression", "IPW", "AIPW"]
    >>> cells = simulation.four_cells(design, n=1000, n_sims=8, estimators=names)
    >>> cells.table["bias"].unstack().round(1)[names] + 0.0
    estimator              OutcomeRegression  IPW  AIPW
    design           n
    both right       1000                0.0    0.0   0.0
    both wrong       1000                0.2    0.3   0.4
    outcome wrong    1000                0.2    0.0   0.0
    propensity wrong 1000                0.0    0.3   0.0
    """
    base = find_design(design)
    right, right_propensity = base.oracle_formula, base.oracle_propensity
    if right is None or right_propensity is None or right == base.formula or right_propensity == base.propensity:
        problem = f"four_cells() needs both correct and misspecified formulas; design={base.name!r} does not have both"
        raise errors.OptionError(f'{problem}.\nUse `design="doubly_wrong"` or `design="kang_schafer"`.')
    cells = [
        Specified(base, "both right", right, right_propensity),
        Specified(base, "outcome wrong", base.formula, right_propensity),
        Specified(base, "propensity wrong", right, base.propensity),
        Specified(base, "both wrong", base.formula, base.propensity),
    ]
    return run_study(cells, **options)
