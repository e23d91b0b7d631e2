"""The treatment's coding: which level is the reference arm, and what the arms are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types as dtypes

from causalrisk.design.columns import listing, plain
from causalrisk.errors import DesignError, OptionError

SHOWN = 12


@dataclass(frozen=True)
class Coding:
    """Arms of a treatment.

    Parameters
    ----------
    arm : ndarray of intp, shape (n,)
        0 .. K-1, 0 the reference arm.
    levels : tuple
        Raw treatment levels, reference first.
    labels : tuple of str
        Printed labels, reference first.
    """

    arm: np.ndarray
    levels: tuple[Any, ...]
    labels: tuple[str, ...]


def code_treatment(
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
        one of them, because the sign of the effect depends on it.
    levels : mapping, optional
        Printed label of each raw level.
    call : str
        How the call begins that messages tell the user to type.

    Returns
    -------
    Coding
        The arms.

    Raises
    ------
    DesignError
        If the values are not two known levels.
    OptionError
        If the options contradict each other.
    """
    codes, found = _levels(values, name)
    counts = np.bincount(codes, minlength=len(found))
    binary = all(isinstance(v, int | float) and v in (0, 1) for v in found)
    _check_options(treated, reference)
    _check_number_of_levels(name, found, counts, treated, reference)
    first = _reference(name, found, counts, treated, reference, binary, call)
    order = [first, *(i for i in range(len(found)) if i != first)]
    arm = np.empty(len(found), dtype=np.intp)
    arm[order] = np.arange(len(found))
    raw = tuple(found[i] for i in order)
    return Coding(arm[codes], raw, _labels(name, raw, levels))


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
    return repr(level)


def _levels(values: pd.Series, name: str) -> tuple[np.ndarray, list[Any]]:
    """Codes and the sorted levels as plain Python values; whole numbers and bool as int."""
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
                f'Type e.g. {option}=1 or {option}="smoker".'
            )
    if treated is not None and reference is not None and _same(treated, reference, False):
        raise OptionError(
            f"treated={show(treated)} and reference={show(reference)} name the same level; expected two different "
            "ones.\nGive one of the two; the other level follows."
        )


def _check_number_of_levels(name: str, found: list[Any], counts: np.ndarray, treated: Any, reference: Any) -> None:
    explicit = treated is not None or reference is not None
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
    if len(found) > 2 and reference is not None:
        raise OptionError(
            f"treatment {name!r} has {len(found)} levels; several levels are not available yet in this version, so "
            f"reference={show(reference)} alone does not help:\n{_table(found, counts)}\nKeep two levels, e.g.  "
            f'data[data["{name}"].isin([{show(found[0])}, {show(found[1])}])].'
        )
    if len(found) > 2:
        raise DesignError(
            f"treatment {name!r} has {len(found)} levels; expected two:\n{_table(found, counts)}\n"
            f'Keep two levels, e.g.  data[data["{name}"].isin([{show(found[0])}, {show(found[1])}])], or merge some.'
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
                f"{_table(found, counts)}\nType  {option}={show(found[1])}  or  {option}={show(found[0])}."
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
            f"which level is treated:\n{call}treated={show(found[1])})."
        )
    raise DesignError(
        f"treatment {name!r} has text levels, and nothing says which one is treated (the sign of the effect depends on "
        f"it):\n{_table(found, counts)}\nAdd  treated={show(found[1])}  (or  reference={show(found[0])})."
    )


def _same(level: Any, value: Any, binary: bool) -> bool:
    """Equality of levels in which True is 1 only for a 0/1 treatment, and text never equals a number."""
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
    if len(set(labels)) < len(labels):
        raise DesignError(
            f"the arms of treatment {name!r} would all print as {labels[0]!r}; expected distinct labels.\n"
            f"Type  levels={_example(raw)}."
        )
    return labels


def _example(raw: tuple[Any, ...]) -> str:
    names = ["control", "treated"] if len(raw) == 2 else [f"level {i}" for i in range(len(raw))]
    return "{" + ", ".join(f"{show(v)}: {show(n)}" for v, n in zip(raw, names, strict=True)) + "}"
