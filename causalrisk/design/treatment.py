"""The treatment: reference arm, order and labels of the arms; known propensity scores of each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types as dtypes

from causalrisk.design.dtypes import listing, numbers, plain
from causalrisk.design.tables import Table, as_pandas, find_column, named_columns
from causalrisk.errors import DesignError, OptionError

SHOWN = 12
CONTROLS = {"0", "control", "controls", "false", "n", "never", "no", "none", "off", "placebo", "reference"}
NEGATIONS = ("no", "non", "not", "un", "without")  # as in nonsmoker, not treated, untreated
NOTHING = re.compile(rf"({'|'.join(sorted(CONTROLS))})\b|untreated|non[- ]?\w+")  # as in "none", "0 daily", "no drug"
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
    """

    levels: tuple[Any, ...]
    labels: tuple[str, ...]

    def coded(self, arm: np.ndarray) -> pd.Categorical:
        """Return the treatment of rows by its levels, as the observation model has it; arms of shape (n,)."""
        return pd.Categorical.from_codes(arm.astype(int), categories=list(self.levels))

    def arm_of(self, codes: np.ndarray, found: list[Any], name: str) -> np.ndarray:
        """Return the arm of each row, shape (n,), of the smallest signed type that has them; codes as found."""
        unknown = [level for level in found if level not in self.levels]
        if unknown:
            raise DesignError(
                f"treatment {name!r} has the levels {listing(unknown)}, which the first pass did not see; expected "
                f"{listing(self.levels)}.\nMake scan and model anew, from data that do not change."
            )
        arm = [self.levels.index(level) for level in found]
        return np.array(arm, dtype=np.min_scalar_type(-len(self.levels)))[codes]


@dataclass(frozen=True)
class Coding(Arms):
    """Arms of a treatment, and the arm of each row.

    Parameters
    ----------
    levels, labels
        As of `Arms`.
    arm : ndarray of int, shape (n,)
        0 .. K-1, 0 the reference arm.
    """

    arm: np.ndarray


def code_levels(
    values: pd.Series,
    name: str,
    *,
    treated: Any = None,
    reference: Any = None,
    levels: Mapping[Any, str] | None = None,
    call: str = "from_formula(..., ",
) -> Coding:
    """Code a treatment's values as arms.

    Parameters
    ----------
    values : Series
        One value per row, none missing.
    name : str
        Name of the treatment, for messages.
    treated, reference : scalar, optional
        The level that is treated, or the reference level. Values 0/1 and bool need neither; any other two levels need
        one of them, because the sign of the effect depends on it. More than two levels need `reference`.
    levels : mapping, optional
        Printed label of each raw level.
    call : str
        Beginning of the call that messages give as advice.

    Returns
    -------
    Coding
        The arms.

    Raises
    ------
    DesignError
        If the values are not known levels, or are numbers of which it would be absurd to make arms.
    OptionError
        If the options contradict each other.
    """
    codes, found = treatment_levels(values, name)
    counts, named = np.bincount(codes, minlength=len(found)), isinstance(values.dtype, pd.CategoricalDtype)
    arms = arms_in_order(
        found, counts, name, named=named, treated=treated, reference=reference, levels=levels, call=call
    )
    return Coding(arms.levels, arms.labels, arms.arm_of(codes, found, name))


def arms_in_order(
    found: list[Any],
    counts: np.ndarray,
    name: str,
    *,
    named: bool,
    treated: Any,
    reference: Any,
    levels: Mapping[Any, str] | None,
    call: str,
) -> Arms:
    """Return the levels as arms, the reference first.

    Parameters
    ----------
    found : list
        The levels, sorted or in the order of their categories, as plain Python values.
    counts : ndarray of int, shape (K,)
        Rows of each.
    named : bool
        Whether the treatment has categories, so that many numbers may be levels.
    name, treated, reference, levels, call
        As in `code_levels`.
    """
    binary = all(isinstance(v, int | float) and v in (0, 1) for v in found)
    _check_options(treated, reference)
    if reference is None:
        _check_words(name, found, counts)
    _check_kind(name, found, counts, treated is not None or reference is not None)
    if len(found) > MOST_NUMBERS and not named and isinstance(found[0], int):  # text is levels, however many
        raise DesignError(
            f"treatment {name!r} looks like a count or a dose: {len(found)} levels, expected at most {MOST_NUMBERS} "
            f'unless their dtype is "category":\n{_table(found, counts)}\n'
            f'Cut it into a few arms, e.g.  data["{name}"] = pd.cut(data["{name}"], 3)  (or, if each number is an arm '
            f'of its own, data["{name}"].astype("category")).'
        )
    _check_several(name, found=found, counts=counts, treated=treated, reference=reference)
    first = _reference(name, found=found, counts=counts, treated=treated, reference=reference, binary=binary, call=call)
    raw = (found[first], *(level for i, level in enumerate(found) if i != first))
    return Arms(raw, _labels(name, raw, levels))


def alike(levels: Iterable[Any]) -> list[list[str]]:
    """Return the levels of text that differ in nothing but case and blanks at their ends, in groups."""
    groups: dict[str, list[str]] = {}
    for level in levels:
        if isinstance(level, str):
            groups.setdefault(level.strip().casefold(), []).append(level)
    return [sorted(group) for group in groups.values() if len(group) > 1]


def cleaned(name: str, levels: Iterable[str]) -> str:
    """Line to type that makes levels that are `alike` one."""
    fold = ".str.lower()" if len({level.strip() for level in levels}) > 1 else ""
    return f'data["{name}"] = data["{name}"].str.strip(){fold}'


def notes_of_spelling(levels: Mapping[str, Iterable[Any]]) -> list[str]:
    """Return a note for each variable that has levels which are `alike`.

    Parameters
    ----------
    levels : mapping
        Names of variables -> their levels.

    Returns
    -------
    list of str
        The notes.
    """
    found = {name: [level for group in alike(values) for level in group] for name, values in levels.items()}
    return [
        f"column {name!r} has levels that differ only in blanks or case, {listing(twins)}; they are kept as different "
        f"ones; if they mean the same:\nType  {cleaned(name, twins)}"
        for name, twins in found.items()
        if twins
    ]


def show(level: Any) -> str:
    """Return a level as it would be typed, text in double quotes.

    Parameters
    ----------
    level : object
        A raw level.

    Returns
    -------
    str
        For example ``"smoker"`` with its quotes, or ``2``.
    """
    if isinstance(level, str):
        return '"' + level.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return repr(level.item() if isinstance(level, np.generic) else level)


def treatment_levels(values: pd.Series, name: str) -> tuple[np.ndarray, list[Any]]:
    """Codes and the sorted levels as plain Python values; whole numbers and bool as int, intervals as text."""
    if len(values) == 0:
        raise DesignError(f"treatment {name!r} has no rows; expected two arms.\nGive data with rows of both arms.")
    column = plain(values, name, codes=True)
    if isinstance(column.dtype, pd.CategoricalDtype):
        found = [_python(v) for v in column.cat.categories]
        return column.cat.codes.to_numpy(dtype=np.intp), found
    codes, unique = pd.factorize(column.to_numpy(), sort=True)
    return codes.astype(np.intp), [_python(v) for v in unique]


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


def _check_options(treated: Any, reference: Any) -> None:
    for option, value in (("treated", treated), ("reference", reference)):
        if value is not None and not dtypes.is_scalar(value):
            raise OptionError(
                f"{option}={value!r} is of type {type(value).__name__}; expected one level of the treatment.\n"
                f'Type  {option}=1  or  {option}="smoker".'
            )
    if treated is not None and reference is not None and _same(treated, reference, False):
        raise OptionError(
            f"treated={show(treated)} and reference={show(reference)} name the same level; expected two different "
            "ones.\nGive one of the two; the other level follows."
        )


def _check_kind(name: str, found: list[Any], counts: np.ndarray, explicit: bool) -> None:
    """Refuse a constant and a continuous variable."""
    if any(isinstance(v, float) for v in found) and not (explicit and len(found) == 2):
        unit = all(0 <= v <= 1 for v in found if isinstance(v, int | float))
        kind = "a probability" if unit else "a dose or another continuous variable"
        raise DesignError(
            f"treatment {name!r} looks like {kind}: it has values {listing(found, 5)} that are not whole numbers; "
            "expected 0/1 or bool.\n"
            f'Cut it into two arms first, e.g.  data["{name}"] = (data["{name}"] > 0.5).astype(int).'
        )
    if len(found) == 1:
        rows = int(counts[0])
        arms = ""
        if isinstance(found[0], int) and found[0] in (0, 1):
            arms = f" (arm 0: {rows if found[0] == 0 else 0} rows, arm 1: {rows if found[0] == 1 else 0} rows)"
        raise DesignError(
            f"treatment {name!r} is constant: {rows} rows have {found[0]!r}{arms}; expected two arms.\n"
            "Give treat= a column with rows of both arms (were the others dropped as missing?)."
        )


def _check_words(name: str, found: list[Any], counts: np.ndarray) -> None:
    """Refuse levels that are the same but for blanks and case, or words for missing values, before one is proposed."""
    twins = [level for group in alike(found) for level in group]
    if twins:
        raise DesignError(
            f"treatment {name!r} has levels that differ only in blanks or case, {listing(twins)}; expected one "
            f"spelling of each:\n{_table(found, counts)}\nType  {cleaned(name, twins)}"
        )
    words = [level for level in found if isinstance(level, str) and level.strip().casefold() in MISSING]
    if words and len(found) > 2:
        column = f'data["{name}"]'
        raise DesignError(
            f"treatment {name!r} has levels that look like missing values, {listing(words)}; expected arms:\n"
            f"{_table(found, counts)}\nType  {column} = {column}.mask({column}.isin({words}))   or, if they are arms,  "
            "reference=  with the level that the others are compared with."
        )


def _check_several(name: str, found: list[Any], counts: np.ndarray, treated: Any, reference: Any) -> None:
    """Refuse more than two levels unless the reference, and nothing else, is given."""
    if len(found) <= 2:
        return
    others = [level for level in found if treated is None or not _same(level, treated, False)]
    place = _control_among(others)
    base = others[place or 0] if reference is None else reference
    other = next(level for level in (*(v for v in found if not _negative(v)), *found) if level is not base)
    whichever = "" if place is not None or reference is not None else ", if that is the level to compare with"
    if treated is not None:
        raise OptionError(
            f"treated={show(treated)} names one of the {len(found)} levels of treatment {name!r}; with more than two, "
            f"each of the others has an effect against the reference level:\n{_table(found, counts)}\n"
            f"Type  reference={show(base)}  alone{whichever}."
        )
    if reference is None:
        missing = "Negative numbers are often codes of missing values. " if any(map(_negative, found)) else ""
        raise DesignError(
            f"treatment {name!r} has {len(found)} levels, and nothing says which one the others are compared with:\n"
            f"{_table(found, counts)}\n{missing}Add  reference={show(base)}{whichever}  (or keep two levels, e.g.  "
            f'data[data["{name}"].isin([{show(base)}, {show(other)}])]).'
        )


def _reference(
    name: str, found: list[Any], counts: np.ndarray, treated: Any, reference: Any, binary: bool, call: str
) -> int:
    """Position of the reference level; the sign of the effect hangs on it, so it is never guessed."""
    places = {}
    for option, value in (("treated", treated), ("reference", reference)):
        if value is None:
            continue
        match = [i for i, level in enumerate(found) if _same(level, value, binary)]
        if not match:
            raise DesignError(
                f"{option}={show(value)} is not a level of treatment {name!r}; its levels are:\n"
                f"{_table(found, counts)}\nType  {option}={show(found[0])}  or  {option}={show(found[1])}."
            )
        places[option] = match[0]
    if "reference" in places:
        return places["reference"]
    if "treated" in places:
        return 1 - places["treated"]
    if binary:
        return found.index(0)
    if all(isinstance(v, int | float) for v in found):
        raise DesignError(
            f"treatment {name!r} has values [{listing(found)}] in {int(counts.sum())} rows; expected 0/1 or bool. Say "
            f"which level is treated; if it is {show(found[1])}:\n{call}treated={show(found[1])})."
        )
    control = [i for i, level in enumerate(found) if _is_control(level, found[1 - i])]
    if len(control) == 1:
        advice = f"Add  treated={show(found[1 - control[0]])}  (or  reference={show(found[control[0]])})."
    else:
        advice = f"Add  treated={show(found[1])}  or  treated={show(found[0])}, whichever is the treatment."
    raise DesignError(
        f"treatment {name!r} has text levels, and nothing says which one is treated (the sign of the effect depends on "
        f"it):\n{_table(found, counts)}\n{advice}"
    )


def _is_control(level: Any, other: Any) -> bool:
    """Return True if a level's name says that it is the absence of the other; only a message depends on it."""
    text, of = (str(value).casefold().strip() for value in (level, other))
    return text in CONTROLS or (text.startswith(NEGATIONS) and text.endswith(of[-4:]))


def _control_among(found: Sequence[Any]) -> int | None:
    """Position of the level that is no treatment by its name or, of numbers, the lowest; None where nothing says.

    Negative numbers, often codes of missing values, are passed over where there are others.
    """
    if all(isinstance(level, int | float) for level in found):
        return next((i for i, level in enumerate(found) if not _negative(level)), 0)
    named = [i for i, level in enumerate(found) if NOTHING.match(str(level).casefold().strip())]
    return named[0] if len(named) == 1 else None


def _negative(level: Any) -> bool:
    return isinstance(level, int | float) and level < 0


def _same(level: Any, value: Any, binary: bool) -> bool:
    """Equality of levels: True is 1 only for a 0/1 treatment, and text never equals a number."""
    value = value.item() if isinstance(value, np.generic) else value
    if not binary and isinstance(level, bool) != isinstance(value, bool):
        return False
    return isinstance(level, str) == isinstance(value, str) and bool(level == value)


def _labels(name: str, raw: tuple[Any, ...], levels: Mapping[Any, str] | None) -> tuple[str, ...]:
    if levels is None:
        labels = tuple(str(v) for v in raw)
    else:
        if not isinstance(levels, Mapping):
            raise OptionError(
                f"levels is of type {type(levels).__name__}; expected a mapping of raw levels to printed labels.\n"
                f"Type  levels={_example(raw)}."
            )
        binary = set(raw) <= {0, 1}
        match = [[key for key in levels if _same(level, key, binary)] for level in raw]
        absent = [level for level, keys in zip(raw, match, strict=True) if not keys]
        unknown = [key for key in levels if not any(key in keys for keys in match)]
        if absent or unknown:
            parts = [f"has no label for {listing(absent)}"] if absent else []
            parts += [f"labels {listing(unknown)}, not among the levels"] if unknown else []
            raise DesignError(
                f"levels= {' and '.join(parts)}; treatment {name!r} has the levels {listing(raw)}.\n"
                f"Type  levels={_example(raw)}."
            )
        labels = tuple(str(levels[keys[0]]) for keys in match)
    shared = [i for i, label in enumerate(labels) if labels.count(label) > 1]
    if shared:
        raise DesignError(
            f"levels {listing(raw[i] for i in shared)} of treatment {name!r} would print as "
            f"{listing(labels[i] for i in shared)}; expected distinct labels.\n"
            f"Type  levels={_example(raw)}."
        )
    return labels


def _example(raw: tuple[Any, ...]) -> str:
    names = ["control", "treated"] if len(raw) == 2 else [f"level {i}" for i in range(len(raw))]
    return "{" + ", ".join(f"{show(v)}: {show(n)}" for v, n in zip(raw, names, strict=True)) + "}"


SUM_TOLERANCE = 1e-6  # a sum over arms of scores in single precision may be so far from one


@dataclass(frozen=True)
class Score:
    """Propensity scores as they were given, on the caller's index.

    Parameters
    ----------
    name : str or None
        Name of a single column.
    columns : dict of str to Series
        One column, the probability of the treated arm, or one per arm; the keys are the names of the columns.
    matched : bool
        Whether the columns go by their names; else they are in the order of the arms.
    """

    name: str | None
    columns: dict[str, pd.Series]
    matched: bool


def is_classifier(value: Any) -> bool:
    """Return True if a value has the methods of a classifier; an OptionError where it is nearly one."""
    if not hasattr(value, "fit"):
        return False
    if isinstance(value, type):
        raise OptionError(
            f"propensity_score={value.__name__} is a class; expected a classifier.\n"
            f"Type  propensity_score={value.__name__}()."
        )
    if not hasattr(value, "predict_proba"):
        raise OptionError(
            f"propensity_score is a {type(value).__name__}, which has no predict_proba; expected a classifier.\n"
            "Type  propensity_score=sklearn.linear_model.LogisticRegression()  for example."
        )
    return True


def find_score(value: Any, table: Table, frame: Mapping[str, Any], notes: list[str]) -> Score | None:
    """Find the propensity scores.

    Parameters
    ----------
    value : str, array-like of shape (N,), or DataFrame or ndarray of shape (N, K), or None
        A column's name, one value per row, or one column per arm.
    table : Table
        The columns there are.
    frame : mapping of str to object
        The caller's variables.
    notes : list of str
        A line is appended if the rows had to be put into another order.

    Returns
    -------
    Score or None
        None if there are none.
    """
    if value is None:
        return None
    matrix = as_pandas(value)
    if isinstance(matrix, pd.DataFrame | np.ndarray) and matrix.ndim == 2 and matrix.shape[1] > 1:
        found = named_columns(value, "propensity score", table.index, notes)
        matched = isinstance(matrix, pd.DataFrame)
        columns = {key if matched else str(j): column for j, (key, column) in enumerate(found.items())}
        named = {key: column.rename(f"propensity_score[{key}]") for key, column in columns.items()}
        return Score(None, named, matched)
    column, name = find_column(value, "propensity score", "propensity_score", table, frame, notes)
    return Score(name, {name: column.rename(name)}, False)


def score_matrix(score: Score, keep: np.ndarray, coding: Coding) -> np.ndarray:
    """Return the probability of each arm.

    Parameters
    ----------
    score : Score
        The scores.
    keep : ndarray of bool, shape (N,)
        The rows in the sample.
    coding : Coding
        The arms.

    Returns
    -------
    ndarray of float64, shape (n, K)
        Rows sum to one, up to rounding.

    Raises
    ------
    DesignError
        If there is not one column per arm, or the values are not probabilities strictly between 0 and 1.
    """
    columns = [_inside(score.columns[key][keep], arm) for key, arm in _places(score, coding)]
    if len(columns) == 1:
        return np.column_stack([1 - columns[0], columns[0]])
    matrix = np.column_stack(columns)
    total = matrix.sum(axis=1)
    off = np.abs(total - 1) > SUM_TOLERANCE
    if off.any():
        raise DesignError(
            f"the propensity scores of the {len(columns)} arms sum to something else than 1 in {int(off.sum())} rows "
            f"(e.g. {total[off][0]:.6g}); expected one probability per arm.\n"
            "Divide each row by its sum:  scores.div(scores.sum(axis=1), axis=0)."
        )
    return matrix


def _inside(column: pd.Series, arm: str) -> np.ndarray:
    values = numbers(column, f"propensity score {column.name!r}")
    outside = (values <= 0) | (values >= 1)
    if outside.any():
        raise DesignError(
            f"propensity score {column.name!r} is outside the open interval (0, 1) in {int(outside.sum())} rows (e.g. "
            f"{values[outside][0]}); expected the probability of arm {arm!r}, above 0 and below 1 in every row.\n"
            "Leave these rows out:  data[(score > 0) & (score < 1)]  (divide percentages by 100)."
        )
    return values


def _places(score: Score, coding: Coding) -> list[tuple[str, str]]:
    """Column and arm of each score, in the order of the arms; only the treated arm if there is one column."""
    keys, levels = list(score.columns), [str(level) for level in coding.levels]
    expected = f"expected one per level: {listing(coding.levels)}"
    if len(keys) == 1:
        if len(levels) == 2:
            return [(keys[0], coding.labels[1])]
        raise DesignError(
            f"propensity score {score.name!r} is one column for {len(levels)} arms; expected one per arm.\n"
            f"Give a DataFrame with the columns {listing(levels)}."
        )
    if not score.matched:
        if len(keys) == len(levels):
            return list(zip(keys, coding.labels, strict=True))
        raise DesignError(
            f"the propensity score has {len(keys)} columns; {expected}.\n"
            "Give them in this order, or as a DataFrame with columns of these names."
        )
    for names in (levels, list(coding.labels)):
        if sorted(names) == sorted(keys):
            return list(zip(names, coding.labels, strict=True))
    raise DesignError(
        f"the propensity score has the columns {listing(keys)}; {expected}.\n"
        f"Name them:  scores.set_axis([{listing(levels)}], axis=1)."
    )
