"""The treatment: reference arm, order and labels of the arms; known propensity scores of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from causalrisk.design.tables import Table, as_pandas, find_column, listing, named_columns, numbers, plain
from causalrisk.errors import DesignError, OptionError

SHOWN = 12
MISSING = {"", ".", "#n/a", "<na>", "missing", "n/a", "na", "nan", "null"}  # words for missing values, not levels
MOST_NUMBERS = 20  # distinct numbers beyond which a treatment is taken for a count or a dose


@dataclass(frozen=True)
class Arms:
    """Levels of a treatment as arms.

    Parameters
    ----------
    levels : tuple
        Raw treatment levels, reference first.
    labels : tuple of str
        Printed labels, reference first.
    arm : ndarray of int, shape (n,), optional
        Arm of each row, where rows were coded.
    """

    levels: tuple[Any, ...]
    labels: tuple[str, ...]
    arm: Any = None

    def coded(self, arm: np.ndarray) -> pd.Categorical:
        """Return the treatment of rows by its levels, as the observation model has it; arms of shape (n,)."""
        return pd.Categorical.from_codes(arm.astype(int), categories=list(self.levels))

    def arm_of(self, codes: np.ndarray, found: list[Any], name: str) -> np.ndarray:
        """Return the arm of each row, shape (n,), of the smallest signed type that has them; codes as found."""
        unknown = [level for level in found if level not in self.levels]
        if unknown:
            raise DesignError(f"treatment {name!r} has new levels, {listing(unknown)}.\nMake scan and model anew.")
        arm = [self.levels.index(level) for level in found]
        return np.array(arm, dtype=np.min_scalar_type(-len(self.levels)))[codes]


def code_levels(values: pd.Series, name: str, **asked: Any) -> Arms:
    """Code a treatment's values, none missing, as arms; options as of `arms_in_order`."""
    codes, found = treatment_levels(values, name)
    counts, named = np.bincount(codes, minlength=len(found)), isinstance(values.dtype, pd.CategoricalDtype)
    arms = arms_in_order(found, counts, name, named=named, **asked)
    return replace(arms, arm=arms.arm_of(codes, found, name))


def arms_in_order(
    found: list[Any], counts: np.ndarray, name: str, *, named: bool, treated: Any, reference: Any, levels: Any
) -> Arms:
    """Return the levels, sorted or in the order of their categories, as arms, the reference first.

    `counts`, shape (K,), are the rows of each; `named` says whether the treatment has categories, so that many numbers
    may be levels. Values 0/1 and bool need neither `treated` nor `reference`; any other two levels need one of them,
    because the sign of the effect depends on it, and more need `reference`. `levels` are the printed labels of raw
    levels.
    """
    binary = all(isinstance(v, int | float) and v in (0, 1) for v in found)
    if reference is None:
        _check_words(name, found, counts)
    explicit = len(found) == 2 and (treated is not None or reference is not None)
    if any(isinstance(v, float) for v in found) and not explicit:
        values = f"it has values {listing(found, 5)} that are not whole numbers; expected 0/1 or bool"
        typed = f'data["{name}"] = data["{name}"].gt(0.5).astype(float).where(data["{name}"].notna())'
        raise DesignError(f"treatment {name!r} looks like a dose or a probability: {values}.\nUse `{typed}`.")
    if len(found) == 1:
        text = f"treatment {name!r} is constant: {int(counts[0])} rows have {found[0]!r}"
        raise DesignError(f"{text}.\nGive rows of both groups.")
    if len(found) > MOST_NUMBERS and not named and isinstance(found[0], int):  # text is levels, however many
        typed = f'`data["{name}"] = pd.cut(data["{name}"], 3)`, or `.astype("category")` if each is an arm'
        text = f"treatment {name!r} looks like a count or a dose: {len(found)} levels:\n{_table(found, counts)}"
        raise DesignError(f"{text}\nUse {typed}.")
    if len(found) > 2 and (treated is not None or reference is None):
        raise _no_reference(name, found, counts, treated, reference)
    first = _reference(name, found=found, counts=counts, treated=treated, reference=reference, binary=binary)
    raw = (found[first], *(level for i, level in enumerate(found) if i != first))
    return Arms(raw, _labels(name, raw, levels))


def alike(levels: Iterable[Any]) -> list[str]:
    """Return the levels of text that differ from another in nothing but case and blanks at their ends."""
    groups: dict[str, list[str]] = {}
    for level in levels:
        if isinstance(level, str):
            groups.setdefault(level.strip().casefold(), []).append(level)
    return [level for group in groups.values() if len(group) > 1 for level in sorted(group)]


def cleaned(name: str, levels: Iterable[str]) -> str:
    """Line to type that makes levels that are `alike` one."""
    fold = ".str.lower()" if len({level.strip() for level in levels}) > 1 else ""
    return f'data["{name}"] = data["{name}"].str.strip(){fold}'


def notes_of_spelling(levels: Mapping[str, Iterable[Any]]) -> list[str]:
    """Return a note for each variable that has levels which are `alike`."""
    found = {name: alike(values) for name, values in levels.items()}
    return [
        f"column {name!r} has levels that differ only in blanks or case, {listing(twins)}; they are kept as different "
        f"ones. If they mean the same, use `{cleaned(name, twins)}`."
        for name, twins in found.items()
        if twins
    ]


def show(level: Any) -> str:
    """Return a raw level as it would be typed, text in double quotes."""
    if isinstance(level, str):
        return '"' + level.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return repr(level.item() if isinstance(level, np.generic) else level)


def treatment_levels(values: pd.Series, name: str) -> tuple[np.ndarray, list[Any]]:
    """Codes and the sorted levels as plain Python values; whole numbers and bool as int, intervals as text."""
    if isinstance(values.dtype, np.dtype) and values.dtype.kind in "bi":
        codes, found = pd.factorize(values.to_numpy(dtype=values.dtype.newbyteorder("=")), sort=True)
        return codes, [_python(level) for level in found]
    levels = plain(values, name, codes=True).astype("category").cat
    return levels.codes.to_numpy(dtype=np.intp), [_python(v) for v in levels.categories]


def _python(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, pd.Interval):  # made by pandas.cut; nobody types pd.Interval(0, 10)
        return str(value)
    whole = isinstance(value, bool) or (isinstance(value, float) and value.is_integer())
    return int(value) if whole else value


def _table(found: Sequence[Any], counts: np.ndarray) -> str:
    width = max(len(repr(v)) for v in found[:SHOWN])
    digits = max(len(str(c)) for c in counts[:SHOWN])
    lines = [f"    {v!r:<{width}}   {c:>{digits}} rows" for v, c in zip(found[:SHOWN], counts[:SHOWN], strict=True)]
    if len(found) > SHOWN:
        lines.append(f"    and {len(found) - SHOWN} more levels")
    return "\n".join(lines)


def _check_words(name: str, found: list[Any], counts: np.ndarray) -> None:
    """Refuse levels that are the same but for blanks and case, or words for missing values, before one is proposed."""
    column = f'data["{name}"]'
    twins = alike(found)
    words = [level for level in found if isinstance(level, str) and level.strip().casefold() in MISSING]
    if twins:
        what, typed = f"differ only in blanks or case, {listing(twins)}", cleaned(name, twins)
    elif words and len(found) > 2:
        what, typed = f"look like missing values, {listing(words)}", f"{column} = {column}.mask({column}.isin({words}))"
    else:
        return
    text = f"treatment {name!r} has levels that {what}:\n{_table(found, counts)}"
    raise DesignError(f"{text}\nUse `{typed}`, or, if they are arms, `reference=` with a level.")


def _no_reference(name: str, found: list[Any], counts: np.ndarray, treated: Any, reference: Any) -> Exception:
    """Make the error of more than two levels without a reference, or with one that is called treated."""
    others = [level for level in found if treated is None or not _same(level, treated, False)]
    # Negative codes are often of missing values.
    likely = [level for level in others if isinstance(level, str) or level >= 0]
    base = (likely or others)[0] if reference is None else reference
    why = "nothing says which one" if treated is None else f"treated={show(treated)} does not say which one"
    instead = "" if treated is None else " without `treated=`"
    return (DesignError if treated is None else OptionError)(
        f"treatment {name!r} has {len(found)} levels, and {why} the others are compared with:\n"
        f"{_table(found, counts)}\nUse `reference={show(base)}`{instead} if that is the level."
    )


def _reference(name: str, found: list[Any], counts: np.ndarray, treated: Any, reference: Any, binary: bool) -> int:
    """Position of the reference level; the sign of the effect hangs on it, so it is never guessed."""
    places = {}
    for option, value in (("treated", treated), ("reference", reference)):
        if value is None:
            continue
        match = [i for i, level in enumerate(found) if _same(level, value, binary)]
        if not match:
            typed = " or ".join(f"`{option}={show(level)}`" for level in found[:SHOWN])
            text = f"{option}={show(value)} is not a level of treatment {name!r}:\n{_table(found, counts)}"
            raise DesignError(f"{text}\nUse {typed}.")
        places[option] = match[0]
    if len(places) > len(set(places.values())):
        raise OptionError(f"treated= and reference= name the same level, {show(treated)}.\nLeave one of them out.")
    if "reference" in places:
        return places["reference"]
    if "treated" in places:
        return 1 - places["treated"]
    if binary:
        return found.index(0)
    typed = f"Use `treated={show(found[1])}` or `treated={show(found[0])}`."
    text = f"treatment {name!r} is not 0/1 or bool, and the sign of the effect depends on which level is treated"
    raise DesignError(f"{text}:\n{_table(found, counts)}\n{typed}")


def _same(level: Any, value: Any, binary: bool) -> bool:
    """Equality of levels: True is 1 only for a 0/1 treatment, and text never equals a number."""
    value = value.item() if isinstance(value, np.generic) else value
    if not binary and isinstance(level, bool) != isinstance(value, bool):
        return False
    return isinstance(level, str) == isinstance(value, str) and bool(level == value)


def _labels(name: str, raw: tuple[Any, ...], levels: Mapping[Any, str] | None) -> tuple[str, ...]:
    labels = tuple(str(v) for v in raw)
    if levels is not None:
        binary = set(raw) <= {0, 1}
        match = [[key for key in levels if _same(level, key, binary)] for level in raw]
        absent = [level for level, keys in zip(raw, match, strict=True) if not keys]
        unknown = [key for key in levels if not any(key in keys for keys in match)]
        if absent or unknown:
            found = f"levels= has no label for {listing(absent)}" if absent else f"levels= has {listing(unknown)}"
            found += f" of treatment {name!r}" if absent else f", which treatment {name!r} does not have"
            raise DesignError(f"{found}.\nUse `levels={_example(raw)}`.")
        labels = tuple(str(levels[keys[0]]) for keys in match)
    shared = [i for i, label in enumerate(labels) if labels.count(label) > 1]
    if shared:
        same = listing(labels[i] for i in shared)
        raise DesignError(f"levels of treatment {name!r} would print as {same}.\nUse `levels={_example(raw)}`.")
    return labels


def _example(raw: tuple[Any, ...]) -> str:
    names = ["control", "treated"] if len(raw) == 2 else [f"level {i}" for i in range(len(raw))]
    return "{" + ", ".join(f"{show(v)}: {show(n)}" for v, n in zip(raw, names, strict=True)) + "}"


SUM_TOLERANCE = 1e-6  # a sum over arms of scores in single precision may be so far from one


@dataclass(frozen=True)
class Score:
    """Propensity scores, or predictions of the outcome, as they were given, on the caller's index.

    Parameters
    ----------
    name : str, tuple of str or None
        Name of a single column, or of the predictions of each arm.
    columns : dict of str to Series
        One column, the probability of the treated arm, or one per arm; the keys are the names of the columns.
    matched : bool
        Whether the columns go by their names; else they are in the order of the arms.
    """

    name: Any
    columns: dict[str, pd.Series]
    matched: bool


def is_classifier(value: Any) -> bool:
    """Return True if a value has the methods of a classifier; an OptionError where it is nearly one."""
    if not hasattr(value, "fit"):
        return False
    if isinstance(value, type) or not hasattr(value, "predict_proba"):
        found = f"class {value.__name__}" if isinstance(value, type) else f"{type(value).__name__}"
        raise OptionError(f"propensity_score is the {found}; expected a classifier.\nUse `LogisticRegression()`.")
    return True


def find_score(value: Any, table: Table, frame: Mapping[str, Any], notes: list[str]) -> Score:
    """Find the propensity scores."""
    matrix = _matrix_of_arms(value, "propensity_score", table, notes)
    if matrix is not None:
        return matrix
    column, name = find_column(value, "propensity score", "propensity_score", table, frame, notes)
    return Score(name, {name: column.rename(name)}, False)


def _matrix_of_arms(value: Any, option: str, table: Table, notes: list[str]) -> Score | None:
    """Return the columns of a matrix, one per arm; None where the value is none."""
    matrix = as_pandas(value)
    if not (isinstance(matrix, pd.DataFrame | np.ndarray) and matrix.ndim == 2 and matrix.shape[1] > 1):
        return None
    found = named_columns(value, option.replace("_", " "), table.index, notes)
    matched = isinstance(matrix, pd.DataFrame)
    columns = {key if matched else str(j): column for j, (key, column) in enumerate(found.items())}
    return Score(None, {key: column.rename(f"{option}[{key}]") for key, column in columns.items()}, matched)


def find_predictions(value: Any, table: Table, frame: Mapping[str, Any], notes: list[str]) -> Score | None:
    """Find predictions of the outcome, one column per arm: names or arrays in a list, or a matrix."""
    if value is None:
        return None
    matrix = _matrix_of_arms(value, "outcome_predictions", table, notes)
    if matrix is not None:
        return matrix
    if not isinstance(value, list | tuple):
        found = repr(value) if isinstance(value, str) else f"a {type(value).__name__}"
        raise OptionError(
            f"outcome_predictions is {found}; expected one column per arm, the reference first.\n"
            'Use `outcome_predictions=["m0", "m1"]`.'
        )
    each = [
        find_column(one, "outcome prediction", f"outcome_predictions[{j}]", table, frame, notes)
        for j, one in enumerate(value)
    ]
    columns = {str(j): column.rename(name) for j, (column, name) in enumerate(each)}
    named = all(isinstance(one, str) for one in value)
    return Score(tuple(value) if named else None, columns, False)


def prediction_matrix(predictions: Score, keep: np.ndarray, coding: Arms) -> np.ndarray:
    """Return the predictions of each arm, shape (n, K), of the rows to keep."""
    what = "outcome predictions"
    found = [predictions.columns[key] for key, _ in _places(predictions, coding, f"{what} are", "predictions")]
    return np.column_stack([numbers(column[keep], f"{what} {column.name!r}") for column in found])


def score_matrix(score: Score, keep: np.ndarray, coding: Arms) -> np.ndarray:
    """Return the probability of each arm, shape (n, K), of the rows to keep; rows sum to one, up to rounding."""
    columns = []
    for key, arm in _places(score, coding, "the propensity score is", "scores"):
        column = score.columns[key][keep]
        values = numbers(column, f"propensity score {column.name!r}")
        outside = (values <= 0) | (values >= 1)
        if outside.any():
            found = f"outside the open interval (0, 1) in {int(outside.sum())} rows (e.g. {values[outside][0]})"
            expected = f"expected the probability of arm {arm!r}"
            raise DesignError(f"propensity score {column.name!r} is {found}; {expected}.\nDivide percentages by 100.")
        columns.append(values)
    if len(columns) == 1:
        return np.column_stack([1 - columns[0], columns[0]])
    matrix = np.column_stack(columns)
    total = matrix.sum(axis=1)
    off = np.abs(total - 1) > SUM_TOLERANCE
    if off.any():
        found = f"do not sum to 1 in {int(off.sum())} rows (e.g. {total[off][0]:.6g})"
        raise DesignError(f"the propensity scores {found}.\nUse `scores.div(scores.sum(axis=1), axis=0)`.")
    return matrix


def _places(score: Score, coding: Arms, what: str, frame: str) -> list[tuple[str, str]]:
    """Column and arm of each score, in the order of the arms; only the treated arm if there is one column."""
    keys, levels = list(score.columns), [str(level) for level in coding.levels]
    if len(keys) == 1 and len(levels) == 2 and frame == "scores":
        return [(keys[0], coding.labels[1])]
    orders = (levels, list(coding.labels)) if score.matched else (keys,)
    for names in orders:
        if sorted(names) == sorted(keys) and len(names) == len(levels):
            return list(zip(names, coding.labels, strict=True))
    found = listing(keys) if score.matched or isinstance(score.name, str) else f"{len(keys)} columns"
    expected = f"expected one column per level: {listing(coding.levels)}"
    typed = f"{frame}.set_axis([{listing(levels)}], axis=1)"
    raise DesignError(f"{what} {found} for {len(levels)} arms; {expected}.\nUse `{typed}`.")
