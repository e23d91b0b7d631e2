"""The treatment: reference level, order and labels of the arms. Also the caller's propensity scores and predictions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from causalrisk.design.tables import as_pandas, find_column, listing, named_columns, numbers, plain
from causalrisk.errors import DesignError, OptionError, is_number

SHOWN = 12
CONTROLS = ("none", "no", "control", "placebo", "untreated", "never", "usual care")  # likely reference levels
MOST_NUMBERS = 20  # a treatment with more distinct numbers is a count or a dose


class Arms(NamedTuple):
    """Treatment levels as arms: raw levels and printed labels, both with the reference first, and each row's arm."""

    levels: tuple[Any, ...]
    labels: tuple[str, ...]
    arm: Any = None

    def arm_of(self, codes: np.ndarray, found: list[Any]) -> np.ndarray:
        """Return the arm of each row, shape (n,), in the smallest signed type. `codes` index the levels `found`."""
        arm = [self.levels.index(level) for level in found]
        return np.array(arm, dtype=np.min_scalar_type(-len(self.levels)))[codes]


def code_levels(values: pd.Series, name: str, **asked: Any) -> Arms:
    """Code the values of a treatment, none missing, as arms. Options are as in `arms_in_order`."""
    codes, found = treatment_levels(values, name)
    counts, named = np.bincount(codes, minlength=len(found)), isinstance(values.dtype, pd.CategoricalDtype)
    arms = arms_in_order(found, counts, name, named=named, **asked)
    return arms._replace(arm=arms.arm_of(codes, found))


def treatment_levels(values: pd.Series, name: str) -> tuple[np.ndarray, list[Any]]:
    """Return level codes (n,), and the levels in order. Whole numbers and bool become int, intervals become text."""
    levels = plain(values, name, codes=True).astype("category").cat
    return levels.codes.to_numpy(dtype=np.intp), [_python(level) for level in levels.categories]


def _python(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, pd.Interval):  # made by pandas.cut; nobody types pd.Interval(0, 10)
        return str(value)
    whole = isinstance(value, bool) or (isinstance(value, float) and value.is_integer())
    return int(value) if whole else value


def arms_in_order(
    found: list[Any], counts: np.ndarray, name: str, *, named: bool, treated: Any, reference: Any, levels: Any
) -> Arms:
    """Return the levels `found` as arms, reference first. `counts` (K,) has the number of rows of each level.

    Values 0/1 and bool need neither `treated` nor `reference`. Any other two levels need one of them. More levels need
    `reference`.
    """
    if len(found) == 1:
        text = f"treatment {name!r} is constant: {int(counts[0])} rows have {found[0]!r}"
        raise DesignError(f"{text}.\nUse data with both treated and untreated rows.")
    width, digits = max(len(repr(level)) for level in found[:SHOWN]), len(str(counts[:SHOWN].max()))
    lines = [f"    {v!r:<{width}}   {count:>{digits}} complete rows" for v, count in zip(found, counts, strict=True)]
    more = [f"    and {len(found) - SHOWN} more levels"] if len(found) > SHOWN else []
    table = "\n".join([*lines[:SHOWN], *more])
    asked = len(found) == 2 and (treated is not None or reference is not None)
    dose = any(isinstance(v, float) for v in found) and not asked
    if not named and (dose or (len(found) > MOST_NUMBERS and isinstance(found[0], int))):  # text is never a dose
        text = f"treatment {name!r} looks like a count, a dose or a probability; expected 0/1 or bool, found"
        typed = f'data["{name}"] = pd.cut(data["{name}"], 2)'
        typed = f'Use `{typed}`, or `.astype("category")` if each level is a group.'
        raise DesignError(f"{text} {len(found)} levels:\n{table}\n{typed}")
    first = _reference(name, found, table, treated, reference)
    raw = (found[first], *(level for i, level in enumerate(found) if i != first))
    return Arms(raw, _labels(name, raw, levels))


def _reference(name: str, found: list[Any], table: str, treated: Any, reference: Any) -> int:
    """Return the position of the reference level. Unless the levels are 0 and 1, it must be given."""
    codes = [level for level in found if level == "" or (is_number(level) and level < 0)]  # often mean missing
    likely = sorted(found, key=lambda level: (level in codes, str(level).casefold() not in CONTROLS))
    if len(found) > 2 and (treated is not None or reference is None):
        base = reference if reference is not None else next(level for level in likely if level != treated)
        why = "reference= is missing" if treated is None else f"treated={show(treated)} does not set the reference"
        text = f"treatment {name!r} has {len(found)} levels, but {why}:\n{table}"
        without = "" if treated is None else " without `treated=`"
        kind = DesignError if treated is None else OptionError
        missing = [f'Use `data["{name}"].replace({code!r}, None)` if {code!r} means missing.' for code in codes]
        hints = "".join(f"{hint}\n" for hint in [*missing, *notes_of_spelling({name: found})])
        raise kind(f"{text}\n{hints}Use `reference={show(base)}`{without} to compare the others with it.")
    for option, value in (("treated", treated), ("reference", reference)):
        odd = isinstance(value, bool) and not set(found) <= {0, 1}  # if the levels are 1 and 2, True is not 1
        if value is not None and (odd or value not in found):
            typed = " or ".join(f"`{option}={show(level)}`" for level in found[:SHOWN])
            text = f"{option}={show(value)} is not a level of treatment {name!r}:\n{table}"
            raise DesignError(f"{text}\nUse {typed}.")
    if treated is not None and treated == reference:
        raise OptionError(f"treated= and reference= name the same level, {show(treated)}.\nLeave one of them out.")
    if reference is not None:
        return found.index(reference)
    if treated is not None:
        return 1 - found.index(treated)
    if set(found) == {0, 1}:
        return found.index(0)
    text = f"treatment {name!r} is not 0/1 or bool, and the sign of the effect depends on which level is treated"
    raise DesignError(f"{text}:\n{table}\nUse `treated={show(likely[1])}` or `treated={show(likely[0])}`.")


def _labels(name: str, raw: tuple[Any, ...], levels: Any) -> tuple[str, ...]:
    """Return the printed label of each level: the level as text, or its label in the caller's mapping."""
    labels, found = tuple(str(v) for v in raw), ""
    if levels is not None:
        if not hasattr(levels, "keys") or set(levels.keys()) != set(raw):
            found = f"levels={levels!r}; expected a mapping of each level to its label"
        else:
            labels = tuple(str(levels[level]) for level in raw)
    if len(set(labels)) < len(labels):
        shared = [label for label in labels if labels.count(label) > 1]
        found = f"several levels of treatment {name!r} would have the label {listing(shared[:1])}"
    if found:
        names = ["control", "treated"] if len(raw) == 2 else [f"level {i}" for i in range(len(raw))]
        example = ", ".join(f"{show(v)}: {show(n)}" for v, n in zip(raw, names, strict=True))
        raise DesignError(f"{found}.\nUse `levels={{{example}}}`.")
    return labels


def show(level: Any) -> str:
    """Return a raw level as typed in code, with text in double quotes."""
    if isinstance(level, str):
        return '"' + level.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return repr(level.item() if isinstance(level, np.generic) else level)


def notes_of_spelling(levels: Mapping[str, Iterable[Any]]) -> list[str]:
    """Return a note for each variable with levels of text that differ only in case or outer blanks."""
    notes = []
    for name, values in levels.items():
        texts = pd.Series(sorted(level for level in values if isinstance(level, str)), dtype=object)
        twins = texts[texts.map(lambda text: text.strip().casefold()).duplicated(keep=False)]
        if len(twins):
            text = f"column {name!r} has levels that differ only in blanks or case ({listing(twins)}). They are kept"
            typed = f'data["{name}"] = data["{name}"].str.strip().str.lower()'
            notes.append(f"{text} as different levels. If they mean the same, use `{typed}`.")
    return notes


SUM_TOLERANCE = 1e-6  # the sum over arms of single-precision scores may be this far from one


class ByArm(NamedTuple):
    """Given propensity scores or outcome predictions, on the caller's index.

    A single column of scores is the probability of the treated arm. Several columns are matched to the arms by `keys`
    or, without keys, by their order.
    """

    name: Any
    columns: list[pd.Series]
    keys: list[str] | None = None

    def of_arms(self, coding: Arms, what: str) -> list[tuple[pd.Series, str]]:
        """Return the column and the label of each arm, in order. A single column of scores is for the treated arm."""
        levels, labels = [str(level) for level in coding.levels], coding.labels
        if what == "scores" and self.keys is None and len(self.columns) == 1 and len(levels) == 2:
            return [(self.columns[0], labels[1])]
        keys = self.keys or levels  # without names they are in the order of the arms
        for names in (levels, labels):
            if len(self.columns) == len(levels) and set(names) == set(keys):
                return [(self.columns[keys.index(name)], label) for name, label in zip(names, labels, strict=True)]
        found = listing(self.keys or [column.name for column in self.columns])
        expected = f"expected one column per level: {listing(coding.levels)}"
        advice = f"Give {len(levels)} columns, and name each by its level, with `{what}.rename(columns=...)`."
        raise DesignError(f"the {what} have the columns {found}; {expected}.\n{advice}")


def is_classifier(value: Any) -> bool:
    """Return True if a value is a classifier. A class, or an object without `predict_proba`, raises an OptionError."""
    if hasattr(value, "fit") and (isinstance(value, type) or not hasattr(value, "predict_proba")):
        found = "a class" if isinstance(value, type) else f"a {type(value).__name__} without predict_proba"
        raise OptionError(f"propensity_score is {found}.\nUse a classifier: `propensity_score=LogisticRegression()`.")
    return hasattr(value, "fit")


def find_by_arm(
    value: Any, option: str, table: pd.DataFrame, frame: Mapping[str, Any], notes: list[str]
) -> ByArm | None:
    """Return the caller's scores or predictions, given as one column, one column per arm, or constant scores."""
    if value is None:
        return None
    shares = value if isinstance(value, Mapping) else {option: value}
    plain_numbers = shares and all(map(is_number, shares.values()))
    if option == "propensity_score" and plain_numbers:  # the same in all rows
        columns = [pd.Series(float(each), table.index, name=str(key)) for key, each in shares.items()]
        return ByArm(None, columns, [str(key) for key in shares]) if shares is value else ByArm(option, columns)
    matrix = as_pandas(value)
    if isinstance(matrix, pd.DataFrame | np.ndarray) and matrix.ndim == 2 and matrix.shape[1] > 1:
        found = named_columns(value, option.replace("_", " "), table.index, notes)
        keys = list(found) if isinstance(matrix, pd.DataFrame) else None
        names = [f"{option}[{key}]" for key in keys or range(len(found))]
        return ByArm(None, [column.rename(name) for name, column in zip(names, found.values(), strict=True)], keys)
    if option == "propensity_score":
        column = find_column(value, "propensity score", option, table, frame, notes)
        return ByArm(column.name, [column])
    parts = value if isinstance(value, list | tuple) else [value]
    given = [(f"{option}[{j}]", one) for j, one in enumerate(parts)]
    columns = [find_column(one, "outcome prediction", name, table, frame, notes) for name, one in given]
    return ByArm(tuple(parts) if all(isinstance(one, str) for one in parts) else None, columns)


def score_matrix(score: ByArm, keep: np.ndarray, coding: Arms) -> np.ndarray:
    """Return the probability of each arm (n, K) in the rows to keep. Each row sums to one, up to rounding."""
    columns = []
    for column, arm in score.of_arms(coding, "scores"):
        values = numbers(column[keep], f"propensity score {column.name!r}")
        outside = (values <= 0) | (values >= 1)
        if outside.any():
            found = f"outside the open interval (0, 1) in {int(outside.sum())} rows (e.g. {values[outside][0]})"
            expected = f"expected the probability of group {arm!r}"
            advice = "Divide percentages by 100, or leave out rows with 0 or 1."
            raise DesignError(f"propensity score {column.name!r} is {found}; {expected}.\n{advice}")
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
