"""Errors and warnings, checks of options, and the reasons why resamples or propensity replicates fail."""

from __future__ import annotations

import contextlib
import functools
import inspect
import numbers
import os
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalrisk.errors import aliases
from causalrisk.errors.aliases import value_meant

P = ParamSpec("P")
R = TypeVar("R")
__all__ = [
    "BootstrapError", "CausalRiskError", "CausalRiskWarning", "ConvergenceWarning", "DesignError", "DesignWarning",
    "LearnerError", "OptionError", "OverlapWarning", "ResampleWarning", "SeparationError",
    "UnavailableError",
]  # fmt: skip


class CausalRiskError(ValueError):
    """Base of every error the package raises about data, models or options."""


class DesignError(CausalRiskError):
    """The data, the formulas or the treatment coding do not describe a model that can be fitted."""


class SeparationError(CausalRiskError):
    """A model predicts the treatment or the outcome of some rows perfectly, so it has no finite estimates.

    Parameters
    ----------
    message : str
        What was found and what to type.
    rows : sequence, optional
        Index labels of the rows that are predicted perfectly.

    Attributes
    ----------
    rows : ndarray
        Index labels of the rows that are predicted perfectly.
    """

    def __init__(self, message: str, rows: Any = ()) -> None:
        super().__init__(message)
        self.rows = np.asarray(rows)


class BootstrapError(CausalRiskError):
    """Too many resamples, propensity replicates or jackknife fits failed, or a worker process died.

    Parameters
    ----------
    message : str
        How many failed, why, and what to type.
    results : CausalResults, optional
        Results with the estimate and robust standard errors, which are still usable.

    Attributes
    ----------
    results : CausalResults or None
        Results with the estimate and robust standard errors. None if there is no estimate yet, and in simulation
        studies.
    """

    def __init__(self, message: str, results: Any = None) -> None:
        super().__init__(message)
        self.results = results


class OptionError(CausalRiskError, TypeError):
    """An option is not known, has a value or type that is not allowed, or contradicts another option."""


class LearnerError(CausalRiskError):
    """A learner of the outcome or the propensity score cannot be fitted, or its predictions are not finite."""


class CausalRiskWarning(UserWarning):
    """Base of every warning the package gives."""


class DesignWarning(CausalRiskWarning):
    """The data or formulas were understood, but probably not as meant.

    It is given, for example, if

    - a power is outside I();
    - columns were dropped because they depend linearly on others, in all rows or in one treatment group;
    - rows were reordered, or levels differ only in blanks or case;
    - a group has too few clusters;
    - JRE and IPWRA differ, and tests find that both models omit curvature.
    """


class OverlapWarning(CausalRiskWarning):
    """Some units have propensity scores so close to 0 or 1 that a few weights dominate.

    It is given if

    - the effective n of a group, (sum w)^2 / sum w^2, is below a third of its number of rows. If the target is not all
      rows, the limit is a fifth, because other targets leave rows out on purpose. If the target is a smaller group,
      the limit is a fifth of that group's rows. With probability weights, the effective n of these weights alone
      replaces the number of rows;
    - one row has more than a fifth of its group's weight, and more than twice the largest share under probability
      weights alone;
    - a weight exceeds a million;
    - all rows are the target, and more than 5% of them have a propensity score below 0.001 for one of the groups;
    - the estimated mean of a group lies outside the range of the outcomes by more than the width of this range.

    The message says what to try. `CausalResults.overlap` describes weights and scores for every fit.
    """


class ConvergenceWarning(CausalRiskWarning):
    """An optimiser stopped before it converged."""


class ResampleWarning(CausalRiskWarning):
    """Some resamples, replicates or jackknife fits failed, or there are too few resamples for an interval.

    It is given if any failed. If too many failed (see `max_failed`), there is an error, or JRE uses another bootstrap.
    It is also given if a bootstrap interval is NaN, or has fewer than 5 resamples beyond a limit (95% needs 200).
    """


class UnavailableError(CausalRiskError, AttributeError):
    """The results or data do not allow what was asked for, or a package is missing. The message says what to use."""


@contextlib.contextmanager
def needed(what: str, install: str) -> Iterator[None]:
    """Convert an ImportError inside the `with` block to an UnavailableError that says what to install."""
    try:
        yield
    except ImportError as error:
        raise UnavailableError(f"{what}, which is not installed.\nUse `pip install {install}`.") from error


# Prefixes of the files that a warning does not point at.
OUR_FILES = (os.path.dirname(os.path.dirname(__file__)), contextlib.__file__.removesuffix(".py"))


def warn_user(message: str, category: type[Warning]) -> None:
    """Give a warning that points at the line of the caller outside the package."""
    ours = [frame.filename.startswith(OUR_FILES) for frame in reversed(traceback.extract_stack())]
    warnings.warn(message, category, stacklevel=1 + ours.index(False))


class Notes(list[str]):
    """Texts of the warnings of a fit, for the summary."""

    def warn(self, message: str, category: type[CausalRiskWarning]) -> None:
        """Give a warning and keep its text."""
        self.append(message)
        warn_user(message, category)


class SilentNotes(Notes):
    """Notes that keep the texts of warnings without giving the warnings."""

    def warn(self, message: str, category: type[CausalRiskWarning]) -> None:
        """Keep the text of a warning without giving it."""
        self.append(message)


def listed(values: Sequence[object]) -> str:
    """Return the values as text, quoted and separated by commas."""
    return ", ".join(repr(v) for v in values)


IN_MEMORY = "data=causalrisk.scan(data).collect()"  # what to type where data on disk are refused


def not_on_disk(what: str = "this result", instead: str = "", use: str = IN_MEMORY) -> UnavailableError:
    """Return the error for a result or option that needs rows in memory. `instead` is advice, `use` what to type."""
    return UnavailableError(f"{what} is not available for data on disk.\n{instead}Use `{use}`.")


NUMBERS = r"(?<![\w.])(?<!group ')[-\d.]+(e[-+]\d+)?"  # numbers in which equal notes may differ; not those in names
NEAR = 0.75  # least similarity of a misspelled name; a less similar name may mean something else


def nearest_name(value: object, names: Iterable[str]) -> str | None:
    """Return the name that a value probably misspells, ignoring case; None if no name is similar."""
    return next(iter(aliases.nearest(value, names, 1, NEAR)), None)


def one_of(name: str, value: Any, allowed: Sequence[object]) -> Any:
    """Return the value of an option, translated from other packages' words. Other values raise an OptionError."""
    value = value_meant(name, value)
    for one in allowed:  # 1 and np.True_ mean True
        if value is one or (isinstance(value, str | numbers.Real | np.bool_) and value == one):
            return one
    nearest = aliases.near(str(value), [a for a in allowed if isinstance(a, str)])
    why = aliases.answer(name, str(value).casefold()) or nearest or aliases.answer(name, "*")
    raise OptionError(f"{name}={value!r} is not known; expected one of {listed(allowed)}.\n{why or 'Use one of them.'}")


def is_number(value: object) -> bool:
    """Return True for a real number, False for a bool or anything else."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def whole_number(name: str, value: object, least: int, usual: int | None = None) -> None:
    """Raise an OptionError unless the value is an integer of at least `least`; the message suggests `usual`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        whole = isinstance(value, float) and value.is_integer() and value >= least
        close = int(value) if whole else usual or least  # type: ignore[call-overload]
        raise OptionError(f"{name}={value!r}; expected a whole number of at least {least}.\nUse `{name}={close}`.")


def check_distinct(name: str, values: Sequence[str]) -> None:
    """Raise an OptionError if there are no values, or one is given twice."""
    if not values:
        raise OptionError(f"{name} is empty; expected at least one.\nLeave {name}= out for the default.")
    twice = [value for value in values if values.count(value) > 1]
    if twice:
        raise OptionError(f"{name} has {twice[0]!r} twice.\nUse each value once.")


HALF = 0.5  # largest significance level: beyond it, an interval would cover less than it leaves out


def check_alpha(alpha: float) -> None:
    """Raise an OptionError unless alpha is a significance level: above 0 and no more than a half."""
    if not is_number(alpha) or not 0 < alpha <= HALF:
        level = alpha / (100 if alpha > 1 else 1) if is_number(alpha) else 0.0
        hint = min(level, 1 - level) if 0 < level < 1 else 0.05  # 0.95, 95 and 5 all mean 95% intervals
        raise OptionError(f"alpha={alpha!r}; expected a significance level in (0, 0.5].\nUse `alpha={hint:.3g}`.")


def read(place: str, given: Mapping[str, Any], defaults: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the options of a call under this package's names and values, and notes on other packages' words."""
    found, notes = named_here(place, given, defaults)
    for name, value in list(found.items()):
        meant = value_meant(name, value)
        if meant is not value and meant != value:
            found[name] = meant
            if str(meant).casefold() != str(value).casefold():
                notes.append(f"`{name}={value!r}` was read as `{name}={meant!r}`.")
    return found, tuple(notes)


def with_other_names(function: Callable[P, R]) -> Callable[P, R]:
    """Return a function that also accepts its options' names in other packages, such as ``level=0.9``."""
    signature = inspect.signature(function)
    known = [one for one in signature.parameters.values() if one.kind != one.VAR_POSITIONAL]
    reads = known[-1].kind == inspect.Parameter.VAR_KEYWORD
    defaults = {one.name: one.default for one in known[: len(known) - reads] if one.name != "self"}

    @functools.wraps(function)
    def called(*args: P.args, **options: P.kwargs) -> R:
        named: Any = options
        if not (reads or options.keys() <= defaults.keys()):
            place = function.__qualname__.removesuffix(".__init__").rpartition(".")[2]
            named = named_here(place, options, defaults)[0]
        try:
            signature.bind(*args, **named)
        except TypeError as error:
            more, name = " See its documentation." * reads, function.__qualname__.removesuffix(".__init__")
            raise OptionError(f"{name}(): {error}.\n{aliases.options_text(defaults)}{more}") from None
        return function(*args, **named)

    return called


def named_here(place: str, given: Mapping[str, Any], defaults: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the options of a call under this package's names, and a note on each name of another package."""
    tables, notes = [aliases.NAMES.get(table, {}) for table in reversed(aliases.tables_of(place))], list[str]()
    words = {word: name for table in tables for word, name in aliases.by_word(table).items() if name in defaults}
    found, said = {name: value for name, value in given.items() if name in defaults}, dict[str, str]()
    weights = aliases.by_word(aliases.WEIGHTS)
    if str(given.get("estimand")).upper() == "ATT" and "focal" in given:  # both name the same group
        given = {word: value for word, value in given.items() if word != "estimand"}
    for word in [word for word in given if word not in found]:
        value = given[word]
        if word not in words:
            raise OptionError(aliases.unknown_option(place, word, defaults, value))
        name = words[word]
        now = found.get(name)
        if now is not None and now is not defaults[name] and not (isinstance(now, str | int) and now == defaults[name]):
            use = f"Use only `{name}={value!r}`." if isinstance(value, str | int | float) else "Leave one of them out."
            raise OptionError(f"`{said.get(name, name)}` and `{word}` are both names of the option `{name}`.\n{use}")
        if name == "alpha" and isinstance(value, int | float):
            value = round(1 - value / (100 if value > 1 else 1), 12)
        found[name], said[name] = value, word
        notes.append(f"`{word}` is an alias of `{name}`.")
        if word in weights and "weight_type" in defaults:
            kind, typed = weights[word], value_meant("weight_type", found.get("weight_type"))
            if typed not in (None, kind):
                meant = f"`{word}` means `weight_type={kind!r}`, but `weight_type={typed!r}` was given"
                raise OptionError(f"{meant}.\nLeave one of them out.")
            found["weight_type"] = kind
    return found, notes


class Failure:
    """Result of a resample or propensity replicate as an integer: OK, or the reason why it failed."""

    OK, EMPTY_ARM, SEPARATION, SINGULAR_PROPENSITY, NOT_CONVERGED, SINGULAR_OUTCOME, NO_REPLICATES = range(7)
    OUTCOME_SEPARATION, OUTCOME_NOT_CONVERGED, NO_EFFECT = range(7, 10)


TEXT = {  # in the order of their numbers
    Failure.OK: "used",
    Failure.EMPTY_ARM: "a group had no rows",
    Failure.SEPARATION: "treatment was predicted perfectly, perhaps by a rare level that one group lacks",
    Failure.SINGULAR_PROPENSITY: "the columns of the propensity model were collinear",
    Failure.NOT_CONVERGED: "the propensity fit did not converge",
    Failure.SINGULAR_OUTCOME: "the columns of the outcome model were collinear in a group",
    Failure.NO_REPLICATES: "every propensity replicate failed",
    Failure.OUTCOME_SEPARATION: "the outcomes of a group were predicted perfectly",
    Failure.OUTCOME_NOT_CONVERGED: "the outcome fit did not converge",
    Failure.NO_EFFECT: "the effect is undefined for the group means",
}


def failures_frame(failures: NDArray[np.int8], name: str) -> pd.DataFrame:
    """Return a table with one row per resample: whether it was used and, if not, the reason."""
    used = failures == Failure.OK
    text = np.array(list(TEXT.values()), dtype=object)[failures]
    return pd.DataFrame({"used": used, "reason": text}, index=pd.RangeIndex(len(failures), name=name))


def failure_text(failures: NDArray[np.int8]) -> str:
    """Return the reasons of failures as text, the most frequent first, with counts if there are several reasons."""
    codes, counts = np.unique(failures[failures != Failure.OK], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return "; ".join(TEXT[int(codes[k])] + f" ({counts[k]})" * (len(codes) > 1) for k in order)


def first_failure(*failures: NDArray[np.int8]) -> NDArray[np.int8]:
    """Return the first failure of each resample in the order of the arguments, each of shape (m,); OK if none."""
    found = failures[0]
    for more in failures[1:]:
        found = np.where(found == Failure.OK, more, found)
    return found.astype(np.int8)
